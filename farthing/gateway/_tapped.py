"""Bodies of answers that are read along while their reader takes them: late, in pieces, to the end or never.

What the reader gets is what it would have got, exceptions too. A tap that is closed or dropped may be so by the
garbage collector, anywhere: it only says so (`Watch.left`), and another thread settles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

from farthing.gateway import _skim as skim


class Watch(skim.Watch, Protocol):
    def along(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks, fed as they go by."""

    @property
    def skips(self) -> Callable[[bytes], bool]:
        """Whether a chunk need not be fed."""

    def left(self) -> None:
        """The reader went away, or must not wait."""


class Tapped:
    """A raw body of urllib3, as botocore's StreamingBody and EventStream read it. All else is the body's own."""

    def __init__(self, raw: Any, watch: Watch) -> None:
        self._raw = raw
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def read(self, amt: int | None = None, *args: Any, **kwargs: Any) -> Any:
        data = self._seen(self._raw.read, amt, *args, **kwargs)
        if amt is None or amt < 0 or (amt and not data):
            self._watch.end()
        return data

    def read1(self, *args: Any, **kwargs: Any) -> Any:
        return self._seen(self._raw.read1, *args, **kwargs)

    def readline(self, *args: Any, **kwargs: Any) -> Any:
        return self._seen(self._raw.readline, *args, **kwargs)

    def _seen(self, read: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            data = read(*args, **kwargs)
        except Exception:
            self._watch.end()
            raise
        if data:
            self._watch.feed(data)
        return data

    def readinto(self, buffer: Any) -> Any:
        try:
            count = self._raw.readinto(buffer)
        except Exception:
            self._watch.end()
            raise
        if count:
            self._watch.feed(bytes(memoryview(buffer)[:count]))
        elif len(buffer):
            self._watch.end()
        return count

    def readlines(self, *args: Any) -> Any:
        lines = self._raw.readlines(*args)
        for line in lines:
            self._watch.feed(line)
        self._watch.end()
        return lines

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        return self._watch.along(self._raw.stream(*args, **kwargs))

    def read_chunked(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        return self._watch.along(self._raw.read_chunked(*args, **kwargs))

    def __iter__(self) -> Iterator[bytes]:
        return self._watch.along(iter(self._raw))

    def close(self) -> Any:
        try:
            return self._raw.close()
        finally:
            self._watch.left()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
