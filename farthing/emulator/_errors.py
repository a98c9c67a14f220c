"""What the services answer instead of an answer: status, code and text, in the words of both."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from farthing.wire import Route, encode, event

_INTERNAL = ":http://internal.amazon.com/coral/com.amazon.bedrock/"
Headers = list[tuple[bytes, bytes]]


class Kind(NamedTuple):
    """Bedrock's status and code, Anthropic's status and type."""

    status: int
    code: str
    direct_status: int
    type: str


KINDS = {
    "invalid": Kind(400, "ValidationException", 400, "invalid_request_error"),
    "unknown_model": Kind(400, "ValidationException", 404, "not_found_error"),
    "not_found": Kind(404, "ResourceNotFoundException", 404, "not_found_error"),
    "unknown_operation": Kind(404, "UnknownOperationException", 404, "not_found_error"),
    "denied": Kind(403, "AccessDeniedException", 403, "permission_error"),
    "conflict": Kind(400, "ConflictException", 409, "invalid_request_error"),
    "too_large": Kind(413, "RequestEntityTooLargeException", 413, "request_too_large"),
    "slow": Kind(408, "RequestTimeoutException", 408, "timeout_error"),
    "throttled": Kind(429, "ThrottlingException", 429, "rate_limit_error"),
    "not_ready": Kind(429, "ModelNotReadyException", 529, "overloaded_error"),
    "model": Kind(424, "ModelErrorException", 500, "api_error"),
    "timeout": Kind(408, "ModelTimeoutException", 504, "timeout_error"),
    "internal": Kind(500, "InternalServerException", 500, "api_error"),
    "unavailable": Kind(503, "ServiceUnavailableException", 503, "api_error"),
    "overloaded": Kind(503, "ServiceUnavailableException", 529, "overloaded_error"),
}
TEXTS = {
    "throttled": "Too many requests, please wait before trying again.",
    "not_ready": "The model is not ready for inference. Try again later.",
    "model": "The model returned an error while it processed the request.",
    "timeout": "Model has timed out in processing the request. Try your request again.",
    "internal": "The system encountered an unexpected error during processing. Try your request again.",
    "unavailable": "Bedrock is unable to process your request.",
    "overloaded": "Overloaded",
}


class Refused(Exception):
    """Such a request gets an error. `kind` is a key of KINDS."""

    def __init__(self, kind: str, message: str = "", retry_after_s: int = 0) -> None:
        super().__init__(message or TEXTS.get(kind, kind))
        self.kind = KINDS[kind]
        self.message = message or TEXTS.get(kind, kind)
        self.retry_after_s = retry_after_s

    def code(self, route: Route | None) -> str:
        return self.kind.type if direct(route) else self.kind.code


def direct(route: Route | None) -> bool:
    """Whether the caller speaks Anthropic's API, on mantle too."""
    return route is not None and route.dialect == "anthropic"


def answered(route: Route | None, refused: Refused, request_id: str) -> tuple[int, Headers, bytes]:
    """The error as a response."""
    headers: Headers = [(b"content-type", b"application/json")]
    if refused.retry_after_s:
        headers.append((b"retry-after", str(refused.retry_after_s).encode()))
    kind = refused.kind
    if direct(route):
        headers.append((b"request-id", request_id.encode()))
        return kind.direct_status, headers, _body(kind.type, refused.message, request_id)
    headers.append((b"x-amzn-requestid", request_id.encode()))
    headers.append((b"x-amzn-errortype", f"{kind.code}{_INTERNAL}".encode()))
    return kind.status, headers, msgspec.json.encode({"message": refused.message})


def in_stream(route: Route, name: str, message: str) -> bytes:
    """The error as an event of a stream that has begun. `name` is Bedrock's: throttlingException ..."""
    if direct(route):
        found = next((k for k in KINDS.values() if k.code.lower() == name.lower()), KINDS["overloaded"])
        return event("error", _body(found.type, message))
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return encode(headers, msgspec.json.encode({"message": message}))


def _body(kind: str, message: str, request_id: str = "") -> bytes:
    told: dict[str, object] = {"type": "error", "error": {"type": kind, "message": message}}
    return msgspec.json.encode(told | ({"request_id": request_id} if request_id else {}))
