"""Streams without the events that carry text alone: metering needs the first and the last few of hundreds.

What is left out is found by its first bytes; whoever reads the stream decodes it and checks its sums. Anything not
known for certain is passed on to be read.
"""

from __future__ import annotations

from collections.abc import Callable
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


class Reader(Protocol):
    def skips(self, chunk: bytes) -> bool:
        """Whether it is known at a glance that `feed` would do nothing with it: what a stream mostly has."""

    def feed(self, chunk: bytes) -> None: ...


def skimmed(operation: str, answers: Any) -> Reader:
    """What reads for a farthing.wire.Answers, without what it needs not see."""
    if not answers.streamed or answers.headers.get("content-encoding", "") not in ("", "identity"):
        return All(answers.feed)
    if needle := _DELTA.get(operation):
        return Frames(needle, answers.feed)
    return Events(answers.feed)


class All:
    """Of what is no stream, or packed."""

    def __init__(self, feed: Callable[[bytes], None]) -> None:
        self.feed = feed

    def skips(self, _: bytes) -> bool:
        return False


class Frames:
    """Of an AWS event stream."""

    def __init__(self, needle: bytes, feed: Callable[[bytes], None]) -> None:
        self._needle, self._feed = needle, feed
        self._rest = b""
        self._broken = False
        # What a frame of text begins with, and where: as in the one before. Nothing at all within a frame.
        self._mark: bytes | tuple[()] = ()
        self._at = 0

    def skips(self, chunk: bytes) -> bool:
        return chunk.startswith(self._mark, self._at) and _size(chunk)[0] == len(chunk) <= _MOST_BYTES

    def feed(self, chunk: bytes) -> None:
        self._read(chunk)
        self._mark = () if self._rest or self._broken else self._needle

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
                kept, self._at = end, found - at
            at = end
        if kept < at:
            self._feed(data[kept:at])
        self._rest = data[at:]


class Events:
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
