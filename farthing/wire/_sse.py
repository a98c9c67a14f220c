"""Server-sent events, as Anthropic's API streams them."""

from __future__ import annotations

from farthing.wire._frames import FrameError

MOST_BYTES = 32 * 1024 * 1024  # of an event that has not ended


def event(name: str, data: bytes) -> bytes:
    """One event, as Anthropic writes it."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


class Events:
    """Cuts a stream, however it was chunked, into the data of its events. Comments and names are dropped."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        data = self._rest + chunk if self._rest else chunk
        if b"\r" in data:
            held = data[-1:] if data.endswith(b"\r") else b""  # its line feed may be yet to come
            data = data[: len(data) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        *whole, self._rest = data.split(b"\n\n")
        if len(self._rest) > MOST_BYTES:
            raise FrameError(f"an event of more than {MOST_BYTES} bytes")
        return [found for each in whole if (found := _data(each))]

    @property
    def partial(self) -> bool:
        """Whether an event has begun that has not ended."""
        return bool(self._rest.strip())


def _data(block: bytes) -> bytes:
    lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
    return lines[0] if len(lines) == 1 else b"\n".join(lines)
