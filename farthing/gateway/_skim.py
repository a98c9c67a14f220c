"""Streams without the events that carry text alone: metering needs the first and the last few of hundreds.

What is left out is found by its first bytes; whoever reads the stream decodes it and checks its sums. Anything not
known for certain is passed on to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any, Protocol

_FIRST_BYTES = 200  # of a frame: its headers, and the beginning of its payload
_LEAST_BYTES, _MOST_BYTES = 16, 16 * 1024 * 1024 + 16
_DELTA = {  # in an event that only has text: its name, or the base64 of '{"type":"content_block_delta"'
    "ConverseStream": b"contentBlockDelta",
    "InvokeModelWithResponseStream": b'"eyJ0eXBlIjoiY29udGVudF9ibG9ja19kZWx0YSIs',
}
_size = Struct(">I").unpack_from
_SSE_DELTA = b"event: content_block_delta\n"


class Watch(Protocol):
    """Who reads along. No method raises."""

    def feed(self, chunk: bytes) -> None: ...

    def end(self) -> None:
        """The body is over, or broke."""


class Reader:
    """Of an answer. What `skips` need not be fed: it is known at a glance to be text alone, as most of a stream is."""

    # What a frame of text begins with, and where: as in the one before. None within a frame, and where there are none.
    _mark: bytes | None = None
    _where = slice(0, 0)

    def __init__(self, feed: Callable[[bytes], None]) -> None:
        self.feed = feed

    def skips(self, chunk: bytes) -> bool:
        return chunk[self._where] == self._mark and _size(chunk)[0] == len(chunk)

    def along(self, chunks: Iterator[bytes], watch: Watch) -> Iterator[bytes]:
        """The chunks, as `watch` sees them go by. Frames are skipped here: a call would take as long as the glance."""
        size = _size
        try:
            for chunk in chunks:
                if chunk[self._where] != self._mark or size(chunk)[0] != len(chunk):
                    watch.feed(chunk)
                yield chunk
        except Exception:
            watch.end()
            raise
        watch.end()


def skimmed(operation: str, answers: Any) -> Reader:
    """What reads for a farthing.wire.Answers, without what it needs not see."""
    if not answers.streamed or answers.headers.get("content-encoding", "") not in ("", "identity"):
        return Reader(answers.feed)
    if needle := _DELTA.get(operation):
        return Frames(needle, answers.feed)
    return Events(answers.feed)


class Frames(Reader):
    """Of an AWS event stream."""

    def __init__(self, needle: bytes, feed: Callable[[bytes], None]) -> None:
        self._needle, self._feed = needle, feed
        self._rest = b""
        self._broken = False

    def feed(self, chunk: bytes) -> None:
        self._read(chunk)
        self._mark = None if self._rest or self._broken else self._needle

    def _read(self, chunk: bytes) -> None:
        data = self._rest + chunk if self._rest else chunk
        if self._broken:
            self._feed(chunk)
            return
        at = kept = 0
        size = len(data)
        while size - at >= _LEAST_BYTES:
            end = at + int.from_bytes(data[at : at + 4], "big")
            if not _LEAST_BYTES <= end - at <= _MOST_BYTES:  # no frame: the reader of frames is to say so
                self._feed(data[kept:])
                self._rest, self._broken = b"", True
                return
            if end > size:
                break
            found = data.find(self._needle, at, min(end, at + _FIRST_BYTES))
            if found >= 0:
                if kept < at:
                    self._feed(data[kept:at])
                kept, self._where = end, slice(found - at, found - at + len(self._needle))
            at = end
        if kept < at:
            self._feed(data[kept:at])
        self._rest = data[at:]


class Events(Reader):
    """Of server-sent events, which mostly come one by one: only such are left out."""

    def __init__(self, feed: Callable[[bytes], None]) -> None:
        self._feed = feed
        self._between = True  # what came so far is whole events

    def skips(self, chunk: bytes) -> bool:
        return self._between and chunk.startswith(_SSE_DELTA) and chunk.find(b"\n\n") == len(chunk) - 2

    def feed(self, chunk: bytes) -> None:
        if not self.skips(chunk):
            self._between = chunk.endswith(b"\n\n")
            self._feed(chunk)
