"""Metering of a response while its bytes are passed on: it reads along, changes nothing and never raises."""

from __future__ import annotations

import sys
import zlib
from base64 import b64decode
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import msgspec

from farthing.usage import Part, Reading, Rejected, read_usage
from farthing.wire._frames import Frame, FrameError, Frames
from farthing.wire._route import Route
from farthing.wire._sse import Events

EVENT_STREAM, SSE = "application/vnd.amazon.eventstream", "text/event-stream"
MOST_BODY = 64 * 1024 * 1024  # of an answer that is read whole
MOST_ERROR = 64 * 1024
_OK, _ERRORS = 200, 400
_COUNTS = {
    "x-amzn-bedrock-input-token-count": "inputTokenCount",
    "x-amzn-bedrock-output-token-count": "outputTokenCount",
    "x-amzn-bedrock-cache-read-input-token-count": "cacheReadInputTokenCount",
    "x-amzn-bedrock-cache-write-input-token-count": "cacheWriteInputTokenCount",
}


class Answer(NamedTuple):
    """What a response said. `final`: its usage is the last word; else it ended before that, or said none.

    `usage` is the block as read_usage takes it, the events of a stream merged. `error` is the code of an error, also
    of one in the middle of a stream. `fault` is why it could not be read.
    """

    status: int
    usage: Mapping[str, Any] | None = None
    model: str = ""
    message_id: str = ""
    request_id: str = ""
    final: bool = False
    error: str = ""
    fault: str = ""

    def reading(self) -> Reading | None:
        """The tokens; None if it told none, or none that can be."""
        try:
            return read_usage(self.usage) if self.usage else None
        except Rejected:
            return None

    @property
    def parts(self) -> tuple[Part, ...]:
        reading = self.reading()
        return reading.parts if reading else ()


class _Message(msgspec.Struct, gc=False):
    """An answer, or the start of one."""

    id: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None


class _Error(msgspec.Struct, gc=False):
    type: str | None = None


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    message: _Message | None = None
    usage: dict[str, Any] | None = None
    error: _Error | None = None
    metrics: dict[str, Any] | None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")


class _Failure(msgspec.Struct, gc=False):
    error: _Error | None = None
    type: str | None = msgspec.field(default=None, name="__type")


class _Chunk(msgspec.Struct, gc=False):
    bytes: str = ""


_message = msgspec.json.Decoder(_Message)
_event = msgspec.json.Decoder(_Event)
_failure = msgspec.json.Decoder(_Failure)
_chunk = msgspec.json.Decoder(_Chunk)


class _Reader(Protocol):
    """It does not keep the answer: the two would be a cycle, which only the garbage collector ends."""

    def feed(self, answer: Answers, chunk: bytes) -> None: ...

    def end(self, answer: Answers) -> None: ...


class Answers:
    """One response. Feed it what was passed on, in order; `done` may be asked at any time, also of a cut answer.

    Header names are in small letters.
    """

    def __init__(self, route: Route, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.usage: dict[str, Any] = {}
        self.model = self.message_id = self.fault = ""
        self.error = f"http_{status}" if status >= _ERRORS else ""
        self.final = False
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        self._unpack = _unpacker(headers.get("content-encoding", ""))
        self._reader: _Reader = (
            _Failed() if status >= _ERRORS
            else _Framed() if kind == EVENT_STREAM
            else _Sent() if kind == SSE
            else _Whole() if route.billed
            else _Unread()
        )  # fmt: skip
        self.streamed = isinstance(self._reader, _Framed | _Sent)

    def feed(self, chunk: bytes) -> None:
        """Bytes of the body as the upstream sent them."""
        if not self.fault:
            try:
                self._reader.feed(self, self._unpack(chunk))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the answer is passed on
                self.fault = str(error)[:200] or type(error).__name__

    def done(self) -> Answer:
        if not self.fault:
            try:
                self._reader.end(self)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the answer is passed on
                self.fault = str(error)[:200] or type(error).__name__
        request_id = self.headers.get("x-amzn-requestid") or self.headers.get("request-id") or ""
        return Answer(
            self.status,
            self.usage or None,
            self.model,
            self.message_id,
            request_id,
            self.final,
            self.error,
            self.fault,
        )

    # What the readers tell

    def said(self, message: _Message) -> None:
        self.model, self.message_id = message.model or self.model, message.id or self.message_id

    def used(self, usage: Mapping[str, Any] | None, *, final: bool) -> None:
        """Later counts are cumulative: they replace the earlier ones, and what they leave out stands."""
        if usage:
            self.usage.update((name, value) for name, value in usage.items() if value is not None)
            self.final = self.final or final


def _unpacker(encoding: str) -> Any:
    encoding = encoding.strip().lower()
    if encoding in ("gzip", "deflate", "x-gzip"):
        return zlib.decompressobj(15 + 32).decompress
    if encoding == "zstd":
        return _zstd()
    if encoding == "br" and find_spec("brotli") is not None:
        return import_module("brotli").Decompressor().process
    if encoding in ("", "identity"):
        return _same

    def unknown(_: bytes) -> bytes:
        raise FrameError(f"content-encoding {encoding[:20]} is not read")

    return unknown


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdDecompressor
    else:
        from backports.zstd import ZstdDecompressor
    return ZstdDecompressor().decompress


def _same(chunk: bytes) -> bytes:
    return chunk


class _Unread:
    """An operation that is not billed."""

    def feed(self, answer: Answers, chunk: bytes) -> None: ...

    def end(self, answer: Answers) -> None: ...


class _Collected:
    most = MOST_BODY

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0

    def feed(self, answer: Answers, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self.most:
            self.chunks.clear()
            raise FrameError(f"a body of more than {self.most} bytes")
        self.chunks.append(chunk)


class _Whole(_Collected):
    """An answer that is one JSON document."""

    def end(self, answer: Answers) -> None:
        body, self.chunks = b"".join(self.chunks), []
        if not body:
            return
        try:
            message = _message.decode(body)
            answer.said(message)
            answer.used(message.usage, final=True)
        finally:
            if not answer.usage:
                counted = {
                    told: int(answer.headers[name])
                    for name, told in _COUNTS.items()
                    if name in answer.headers
                }
                answer.used(counted, final=True)


class _Failed(_Collected):
    """An error: only its code is wanted."""

    most = MOST_ERROR

    def end(self, answer: Answers) -> None:
        answer.error = (
            answer.headers.get("x-amzn-errortype", "").partition(":")[0][:100] or f"http_{answer.status}"
        )
        if "x-amzn-errortype" not in answer.headers and self.chunks:
            failure = _failure.decode(b"".join(self.chunks))
            said = (failure.error.type if failure.error else None) or (failure.type or "").rpartition("#")[2]
            answer.error = said[:100] or answer.error


class _Sent:
    """Anthropic's events over SSE."""

    def __init__(self) -> None:
        self.events = Events()

    def feed(self, answer: Answers, chunk: bytes) -> None:
        for data in self.events.feed(chunk):
            _anthropic(answer, data)

    def end(self, answer: Answers) -> None:
        """A cut event is no event."""


class _Framed:
    """AWS's event stream, of Converse or with Anthropic's events in chunks."""

    def __init__(self) -> None:
        self.frames = Frames()

    def feed(self, answer: Answers, chunk: bytes) -> None:
        for frame in self.frames.feed(chunk):
            _read(answer, frame)

    def end(self, answer: Answers) -> None:
        """A cut frame is no frame."""


def _read(answer: Answers, frame: Frame) -> None:
    headers = frame.headers
    kind = headers.get(":event-type", "")
    if kind == "chunk":
        _anthropic(answer, b64decode(_chunk.decode(frame.payload).bytes))
    elif kind == "metadata":
        answer.used(_message.decode(frame.payload).usage, final=True)
    elif headers.get(":message-type") in ("exception", "error"):
        answer.error = (headers.get(":exception-type") or headers.get(":error-code") or "error")[:100]


def _anthropic(answer: Answers, data: bytes) -> None:
    """One of Anthropic's events. Text in it cannot be mistaken: its quotation marks are escaped."""
    if (
        b'"usage"' not in data
        and b'"error"' not in data
        and b'"amazon-bedrock-invocationMetrics"' not in data
    ):
        return
    event = _event.decode(data)
    match event.type:
        case "message_start" if event.message:
            answer.said(event.message)
            answer.used(event.message.usage, final=False)
        case "message_delta":
            answer.used(event.usage, final=True)
        case "error":
            answer.error = (event.error.type if event.error and event.error.type else "error")[:100]
        case _ if event.metrics and not answer.usage:
            answer.used(event.metrics, final=True)
