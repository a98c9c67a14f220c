"""Messages in, Bedrock out: what the anthropic SDK says to Anthropic's API, said to InvokeModel, and its answer back.

The prompt's bytes stay as they were: only the fields around it change. Usage is passed on as Bedrock counted it.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from farthing.book import Book
from farthing.gateway._reply import Failure
from farthing.usage import Rejected, parse_model_id
from farthing.wire import Frame, FrameError, Frames, Route, event

VERSION = "bedrock-2023-05-31"
IN_REGION = "in_region"
_DROPPED = frozenset(  # an answer in gzip could not be turned
    {
        "anthropic-version",
        "anthropic-beta",
        "anthropic-dangerous-direct-browser-access",
        "accept",
        "accept-encoding",
    }
    | {"content-length"}
)
_ERRORS = {
    "ValidationException": "invalid_request_error",
    "AccessDeniedException": "permission_error",
    "UnrecognizedClientException": "authentication_error",
    "ResourceNotFoundException": "not_found_error",
    "ThrottlingException": "rate_limit_error",
    "ServiceQuotaExceededException": "rate_limit_error",
    "ModelTimeoutException": "timeout_error",
    "ModelNotReadyException": "overloaded_error",
    "ServiceUnavailableException": "overloaded_error",
}
_BY_STATUS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error"} | {
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error"
}  # fmt: skip
_PLACES = (  # whose profile is meant where a region has one
    ("us-gov-", "us-gov"), ("us-", "us"), ("eu-", "eu"), ("ap-northeast-1", "jp"), ("ap-northeast-3", "jp"),
    ("ap-southeast-2", "au"), ("ap-southeast-4", "au"),
)  # fmt: skip

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


Pair = tuple[bytes, bytes]  # a header of an answer


class Translated(NamedTuple):
    """A call as Bedrock takes it."""

    route: Route
    path: str
    body: bytes
    headers: list[tuple[str, str]]


# --- the request ------------------------------------------------------------------------------------------------------


def model_for_bedrock(model: str, book: Book, models: Mapping[str, str], routing: str, region: str) -> str:
    """The id that Bedrock has for one of Anthropic's. Failure where none is known, or where it runs is not said."""
    if model in models:
        return models[model]
    parsed = parse_model_id(model)
    if parsed.base.startswith("anthropic.") or parsed.kind != "model":
        return model
    found = next((each for each in book.models.values() if model in (each.id, *each.ids)), None)
    ids = [name for name in found.ids if name.startswith("anthropic.")] if found else []
    if found is None or not ids:
        raise Failure("not_found", f"model: {model[:100]}: Bedrock has none of this name")
    dated = [name for name in ids if model in name]
    base = max(dated or ids, key=len)
    known = (
        *found.platform("bedrock").get("profiles", ()),
        *found.platform("bedrock").get("profiles_claimed", ()),
    )
    if not known or routing == IN_REGION:
        return base
    prefix = routing or next((place for start, place in _PLACES if region.startswith(start)), "")
    if not prefix:
        says = f"which profile of {base} to call is not said: start the gateway with --routing ({', '.join(known)})"
        raise Failure("invalid", says)
    if prefix not in known:
        raise Failure("not_found", f"model: {model[:100]}: Bedrock has no profile {prefix}.{base}")
    return f"{prefix}.{base}"


def to_invoke(model: str, body: bytes, headers: Sequence[tuple[str, str]], *, stream: bool) -> Translated:
    """Messages as InvokeModel."""
    fields = _read(body)
    fields.pop("model", None)
    fields.pop("stream", None)
    said = {"anthropic_version": _raw(VERSION)}
    betas = [
        beta.strip()
        for name, value in headers
        if name.lower() == "anthropic-beta"
        for beta in value.split(",")
    ]
    if betas and "anthropic_beta" not in fields:
        said["anthropic_beta"] = _raw([beta for beta in betas if beta])
    action = "invoke-with-response-stream" if stream else "invoke"
    operation = "InvokeModelWithResponseStream" if stream else "InvokeModel"
    accept = "application/vnd.amazon.eventstream" if stream else "application/json"
    return Translated(
        Route(operation, "bedrock", model, stream),
        f"/model/{quote(model, safe='')}/{action}",
        msgspec.json.encode({**said, **fields}),
        [*_headers(headers), ("accept", accept)],
    )


def to_count_tokens(model: str, body: bytes, headers: Sequence[tuple[str, str]]) -> Translated:
    """count_tokens as CountTokens, which takes a whole request with an answer's length."""
    inner = to_invoke(model, body, headers, stream=False).body
    fields = _fields.decode(inner)
    fields.setdefault("max_tokens", _raw(1))
    sent = {"input": {"invokeModel": {"body": b64encode(msgspec.json.encode(fields)).decode()}}}
    return Translated(
        Route("CountTokens", "bedrock", model),
        f"/model/{quote(model, safe='')}/count-tokens",
        json.dumps(sent).encode(),
        _headers(headers),
    )


def _read(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _fields.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"the body is no request of Messages: {error}"[:300]) from None


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _headers(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in _DROPPED]


# --- the answer -------------------------------------------------------------------------------------------------------


class Events:
    """An event stream as SSE. What cannot be read becomes an error event, as the end."""

    def __init__(self) -> None:
        self._frames = Frames()
        self._over = False

    def feed(self, chunk: bytes) -> bytes:
        if self._over:
            return b""
        try:
            return b"".join(self._event(frame) for frame in self._frames.feed(chunk))
        except (FrameError, ValueError) as error:
            self._over = True
            return _error("api_error", f"the upstream's stream cannot be read: {error}")

    def _event(self, frame: Frame) -> bytes:
        headers = frame.headers
        if headers.get(":message-type") in ("exception", "error"):
            self._over = True
            name = headers.get(":exception-type") or headers.get(":error-code") or ""
            return _error(_kind(name, 0), _message(frame.payload) or headers.get(":error-message", name))
        if headers.get(":event-type") != "chunk":
            return b""
        data = b64decode(json.loads(frame.payload)["bytes"])
        said = json.loads(data)
        kind = said.get("type") if isinstance(said, dict) else None
        if not isinstance(kind, str) or "\n" in kind:
            return b""
        return event(kind, data.replace(b"\n", b" "))


def stream_headers(headers: Sequence[Pair], told: Mapping[str, str]) -> list[Pair]:
    """Of what was AWS's event stream and is one of Anthropic's. `told`: the answer's, by names in small letters."""
    kept = [pair for pair in headers if pair[0].lower() not in (b"content-type", b"content-length")]
    return [*kept, (b"content-type", b"text/event-stream; charset=utf-8"), _request_id(told)]


def turned_back(
    operation: str, status: int, headers: Sequence[Pair], told: Mapping[str, str], body: bytes
) -> tuple[list[Pair], bytes]:
    """Bedrock's answer as Anthropic's API would give it. A message is the same in both."""
    if status >= 400:
        body = error_body(status, told.get("x-amzn-errortype", ""), body, told.get("x-amzn-requestid", ""))
    elif operation == "CountTokens":
        body = _count_body(body)
    kept = [pair for pair in headers if pair[0].lower() != b"content-length"]
    return [*kept, (b"content-length", str(len(body)).encode()), _request_id(told)], body


def _request_id(told: Mapping[str, str]) -> Pair:
    return b"request-id", told.get("x-amzn-requestid", "").encode("latin-1")


def error_body(status: int, errortype: str, body: bytes, request_id: str) -> bytes:
    """An error of Bedrock in Anthropic's shape; the status stays."""
    kind = _kind(errortype.partition(":")[0], status)
    said = {
        "type": "error",
        "error": {"type": kind, "message": _message(body) or errortype},
        "request_id": request_id,
    }
    return json.dumps(said, ensure_ascii=False).encode()


def _count_body(body: bytes) -> bytes:
    """CountTokens' answer as count_tokens'."""
    return json.dumps({"input_tokens": json.loads(body)["inputTokens"]}).encode()


def _kind(name: str, status: int) -> str:
    name = name[:1].upper() + name[1:]
    return _ERRORS.get(name) or _BY_STATUS.get(status, "api_error")


def _message(payload: bytes) -> str:
    try:
        said = json.loads(payload)
    except ValueError:
        return payload[:1000].decode("utf-8", "replace")
    found = (said.get("message") or said.get("Message")) if isinstance(said, dict) else ""
    return found if isinstance(found, str) else ""


def _error(kind: str, message: str) -> bytes:
    said = {"type": "error", "error": {"type": kind, "message": message}}
    return event("error", json.dumps(said, ensure_ascii=False).encode())
