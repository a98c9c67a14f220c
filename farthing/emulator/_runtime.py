"""Calls of models: InvokeModel, Converse, Messages, streamed and not, and CountTokens."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from farthing.emulator import _converse, _messages
from farthing.emulator._errors import Headers, Refused, in_stream
from farthing.emulator._faults import Fault
from farthing.emulator._http import JSON, Ask, Receive, Send, parsed, respond
from farthing.emulator._models import COUNT, DIRECT, MANTLE
from farthing.emulator._prompt import prompt_of
from farthing.emulator._world import Call, Caller, World
from farthing.wire import Route, encode, event

VERSION = "bedrock-2023-05-31"
METADATA_HEADER = "x-amzn-bedrock-request-metadata"
_MOST_METADATA, _MOST_TEXT = 16, 256
_json = msgspec.json.Encoder().encode
_MALFORMED = "Malformed input request: #: {}, please reformat your input and try again."


# --- requests --------------------------------------------------------------------------------------------------------


def messages_of(route: Route, body: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    """A request of any of the operations in Anthropic's form. Refused where the service would."""
    if route.operation.startswith("Converse"):
        return _converse.messages_of(body)
    if route.dialect == "bedrock":
        for name in ("model", "stream"):
            if name in body:
                raise Refused("invalid", _MALFORMED.format(f"extraneous key [{name}] is not permitted"))
        for name in ("anthropic_version", "max_tokens"):
            if name not in body:
                raise Refused("invalid", _MALFORMED.format(f"required key [{name}] not found"))
    else:
        if "anthropic-version" not in headers and not (route.mantle and "anthropic_version" in body):
            raise Refused("invalid", "anthropic-version: header is required")
        if not isinstance(body.get("model"), str):
            raise Refused("invalid", "model: Field required")
        if "max_tokens" not in body:
            raise Refused("invalid", "max_tokens: Field required")
    most = body["max_tokens"]
    if most.__class__ is not int or most < 0 or (most == 0 and body.get("stream")):
        raise Refused("invalid", "max_tokens: Input should be greater than or equal to 1")
    return body


def metadata_of(route: Route, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, str]:
    """requestMetadata: a header of InvokeModel, a field of Converse."""
    told: Any = body.get("requestMetadata") if route.operation.startswith("Converse") else None
    if told is None and METADATA_HEADER in headers:
        try:
            told = msgspec.json.decode(headers[METADATA_HEADER])
        except msgspec.DecodeError:
            told = headers[METADATA_HEADER]
    if told is None:
        return {}
    texts = isinstance(told, dict) and all(
        isinstance(value, str) and len(value) <= _MOST_TEXT and 0 < len(name) <= _MOST_TEXT
        for name, value in told.items()
    )
    if not texts or len(told) > _MOST_METADATA:
        raise Refused(
            "invalid", "requestMetadata: up to 16 keys and values of at most 256 characters are allowed"
        )
    return dict(told)


# --- answers ---------------------------------------------------------------------------------------------------------


def answer_of(call: Call, latency_ms: int) -> bytes:
    """The body of an answer in one piece."""
    tokens = call.tokens()
    if call.route.operation.startswith("Converse"):
        return _json(_converse.answer(call.said, tokens, latency_ms))
    tier = "batch" if call.mode == "batch" else "standard"
    return _json(_messages.answer(call.said, tokens, call.called.served, call.message_id, tier))


def _headers(call: Call, latency_ms: int) -> Headers:
    tokens = call.tokens()
    if call.door == DIRECT:
        return [*JSON, (b"request-id", call.request_id.encode())]
    told: Headers = [*JSON, (b"x-amzn-requestid", call.request_id.encode())]
    if call.door == MANTLE:
        return [*told, (b"request-id", call.request_id.encode())]
    if call.route.operation == "InvokeModel":
        for name, value in (
            (b"x-amzn-bedrock-invocation-latency", latency_ms),
            (b"x-amzn-bedrock-input-token-count", tokens.input),
            (b"x-amzn-bedrock-output-token-count", tokens.output),
            (b"x-amzn-bedrock-cache-read-input-token-count", tokens.cache_read),
            (b"x-amzn-bedrock-cache-write-input-token-count", tokens.cache_write_5m + tokens.cache_write_1h),
        ):
            told.append((name, str(value).encode()))
    return told


async def called(world: World, ask: Ask, caller: Caller, at_us: int, send: Send, receive: Receive) -> None:
    """Answer a call of a model. Refused before anything was sent."""
    route = ask.route
    body = parsed(ask.body)
    streamed = route.streamed or (route.operation == "Messages" and bool(body.get("stream")))
    fault = world.failing.meet(route.operation, streamed=streamed)
    metadata = metadata_of(route, body, ask.headers)
    request = messages_of(route, body, ask.headers)
    call = world.take(
        route,
        route.model or request["model"],
        request,
        ask.body,
        caller,
        at_us,
        streamed=streamed,
        metadata=metadata,
    )
    if call.door == DIRECT:
        call.request_id = f"req_{call.request_id.replace('-', '')[:24]}"
    if streamed:
        await _stream(world, call, fault, send, receive)
        return
    latency_ms = world.failing.faults.latency_ms or call.elapsed_ms
    data = answer_of(call, latency_ms)
    world.settle(call, status=fault.do if fault else "", answer=data)
    if world.failing.faults.latency_ms:
        await asyncio.sleep(world.failing.faults.latency_ms / 1000)
    if fault and fault.do == "hang":
        await receive()
    elif fault:
        await _closed(call, data, latency_ms, send)
    else:
        await respond(send, 200, _headers(call, latency_ms), data)


async def _closed(call: Call, data: bytes, latency_ms: int, send: Send) -> None:
    """Half an answer: the connection is closed when its sender returns without having ended it."""
    headers = [*_headers(call, latency_ms), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data[: len(data) // 2], "more_body": True})


# --- streams ---------------------------------------------------------------------------------------------------------


class _Sent:
    """A stream under way: its events as bytes, and what of it was said until now."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.said = 0
        self.first_ms = 0
        self.written: list[bytes] = []
        self.whole = self.settled = False

    def events(self) -> _messages.Events:
        call = self.call
        if call.route.operation.startswith("Converse"):
            return [*_converse.events(call.said), ("metadata", {}, call.said.tokens)]
        pings = call.route.dialect == "anthropic"
        return _messages.events(call.said, call.prompt, call.called.served, call.message_id, pings=pings)

    def encode(self, kind: str, payload: dict[str, Any]) -> bytes:
        """An event as it is sent. The last ones tell what was measured."""
        call = self.call
        if kind == "metadata":
            payload = {"usage": _converse.usage(call.tokens()), "metrics": {"latencyMs": call.elapsed_ms}}
        elif kind == "message_stop" and call.route.dialect == "bedrock":
            payload = payload | {"amazon-bedrock-invocationMetrics": self._metrics()}
        data = _json(payload)
        self.written.append(data)
        if call.route.dialect == "anthropic":
            return event(kind, data)
        if call.route.operation == "ConverseStream":
            return _framed(kind, data)
        return _framed("chunk", _json({"bytes": base64.b64encode(data).decode()}))

    def _metrics(self) -> dict[str, int]:
        call, tokens = self.call, self.call.tokens()
        return {
            "inputTokenCount": tokens.input,
            "outputTokenCount": tokens.output,
            "invocationLatency": call.elapsed_ms,
            "firstByteLatency": self.first_ms,
            "cacheReadInputTokenCount": tokens.cache_read,
            "cacheWriteInputTokenCount": tokens.cache_write_5m + tokens.cache_write_1h,
        }

    def for_log(self) -> bytes:
        """What the log keeps: the events of InvokeModel, the answer of Converse in one piece."""
        call = self.call
        if not call.route.operation.startswith("Converse"):
            return b"[" + b",".join(self.written) + b"]"
        told = _converse.answer(call.said, call.tokens(self.said), call.elapsed_ms)
        if not self.whole:
            told["output"]["message"]["content"] = []
            del told["stopReason"]
        return _json(told)


def _framed(kind: str, data: bytes) -> bytes:
    return encode({":event-type": kind, ":content-type": "application/json", ":message-type": "event"}, data)


async def _stream(world: World, call: Call, fault: Fault | None, send: Send, receive: Receive) -> None:
    """Send the answer event by event, and settle it by what was said, however it ends."""
    sent, gone = _Sent(call), asyncio.ensure_future(receive())
    status = "client gone"  # until another end is known
    try:
        status = await _events(world, sent, fault, send, gone)
    except asyncio.CancelledError:
        status = "stopped"
        raise
    finally:
        gone.cancel()
        _settle(world, sent, status)


def _settle(world: World, sent: _Sent, status: str = "") -> None:
    """Once."""
    if not sent.settled:
        sent.settled, sent.whole = True, not status
        world.settle(sent.call, sent.said, status, sent.for_log())


async def _events(world: World, sent: _Sent, fault: Fault | None, send: Send, gone: Any) -> str:
    """How the stream ended: "" if it did as it should."""
    faults, call = world.failing.faults, sent.call
    events = sent.events()
    last = len(events) - 1
    stop = min(fault.after, last) if fault else -1
    if faults.first_token_ms and await _waited(gone, faults.first_token_ms):
        return "client gone"
    sent.first_ms = call.elapsed_ms
    await send({"type": "http.response.start", "status": 200, "headers": _stream_headers(call)})
    for at, (kind, payload, tokens) in enumerate(events):
        data = sent.encode(kind, payload)
        if fault and at == stop:
            sent.written.pop()
            await _fail(fault, call.route, data, send, gone)
            return fault.do
        sent.said = tokens
        if at == last:  # who has read all of it finds the call settled
            _settle(world, sent)
        await send({"type": "http.response.body", "body": data, "more_body": True})
        if faults.event_ms and at < last and await _waited(gone, faults.event_ms):
            return "client gone"
        if gone.done():
            return "client gone"
    await send({"type": "http.response.body", "body": b""})
    return ""


async def _waited(gone: asyncio.Future[Any], ms: int) -> bool:
    """Wait; whether the client went away meanwhile."""
    done, _ = await asyncio.wait({gone}, timeout=ms / 1000)
    return bool(done)


async def _fail(fault: Fault, route: Route, data: bytes, send: Send, gone: Any) -> None:
    """End a stream as the fault has it, in place of the event `data`."""
    if fault.do == "hang":
        await gone
    elif fault.do == "exception":
        body = in_stream(route, fault.exception, fault.message or "The stream ended in the middle.")
        await send({"type": "http.response.body", "body": body})
    elif fault.do == "corrupt":
        spoiled = data[:-3] + bytes((data[-3] ^ 0xFF,)) + data[-2:]
        await send({"type": "http.response.body", "body": spoiled})
    elif fault.do == "cut":
        await send({"type": "http.response.body", "body": data[: len(data) // 2], "more_body": True})


def _stream_headers(call: Call) -> Headers:
    request_id = call.request_id.encode()
    if call.route.dialect == "anthropic":
        headers: Headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"request-id", request_id),
        ]
        return [*headers, (b"x-amzn-requestid", request_id)] if call.door == MANTLE else headers
    return [
        (b"content-type", b"application/vnd.amazon.eventstream"),
        (b"x-amzn-requestid", request_id),
        (b"x-amzn-bedrock-content-type", b"application/json"),
    ]


# --- counting --------------------------------------------------------------------------------------------------------


def counted(world: World, ask: Ask, caller: Caller) -> bytes:
    """CountTokens of Bedrock and of Anthropic. Free, and in no log."""
    body = parsed(ask.body)
    if ask.route.dialect == "anthropic":
        door = MANTLE if ask.route.mantle else DIRECT
        world.models.called(str(body.get("model") or ""), door, caller.region)
        return _json(
            {"input_tokens": prompt_of(body, marked=b"cache_control" in ask.body, automatic=True).tokens}
        )
    world.models.called(ask.route.model, COUNT, caller.region)
    given = body.get("input")
    given = given if isinstance(given, dict) else {}
    if isinstance(given.get("converse"), dict):
        request = _converse.messages_of(given["converse"])
    else:
        request = parsed(_blob(given))
    return _json({"inputTokens": prompt_of(request, marked=False, automatic=True).tokens})


def _blob(given: Mapping[str, Any]) -> bytes:
    inner = given.get("invokeModel")
    text = inner.get("body") if isinstance(inner, dict) else None
    try:
        return base64.b64decode(text or "", validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Refused(
            "invalid", "input: one of invokeModel (with a base64 body) and converse is wanted"
        ) from None
