"""Answers of the gateway's own, in the caller's dialect, and raw ASGI for sending them.

What a budget refuses is 429, and must not be tried again. Of Anthropic's SDKs `x-should-retry: false` asks that.
botocore retries a 429 unless its code is in the operation's model and not called retryable there:
AccessDeniedException is in every operation's (decision 0101).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, NamedTuple

from farthing.wire import Route

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
RawHeaders = Sequence[tuple[bytes, bytes]]

CALL_ID = b"x-farthing-call-id"


class _Kind(NamedTuple):
    status: int
    bedrock: str
    anthropic: str


KINDS = {
    "invalid": _Kind(400, "ValidationException", "invalid_request_error"),
    "unknown": _Kind(401, "UnrecognizedClientException", "authentication_error"),
    "forbidden": _Kind(403, "AccessDeniedException", "permission_error"),
    "not_found": _Kind(404, "ResourceNotFoundException", "not_found_error"),
    "slow": _Kind(408, "RequestTimeoutException", "timeout_error"),
    "too_large": _Kind(413, "ValidationException", "request_too_large"),
    "budget": _Kind(429, "AccessDeniedException", "rate_limit_error"),
    "internal": _Kind(500, "InternalServerException", "api_error"),
    "upstream": _Kind(502, "InternalServerException", "api_error"),
    "busy": _Kind(503, "ServiceUnavailableException", "overloaded_error"),
    "upstream_slow": _Kind(504, "ModelTimeoutException", "timeout_error"),
}


class Failure(Exception):
    """Why a request is not passed on, or its answer is not to be had."""

    def __init__(
        self, kind: str, message: str, headers: RawHeaders = (), more: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.kind, self.message, self.headers, self.more = kind, message, headers, more


def failed(failure: Failure, dialect: str, call_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body."""
    status, bedrock, anthropic = KINDS[failure.kind]
    headers = [(b"content-type", b"application/json"), (CALL_ID, call_id.encode()), *failure.headers]
    said: dict[str, Any] = {"message": failure.message, **(failure.more or {})}
    if dialect == "anthropic":
        said = {
            "type": "error",
            "error": {"type": anthropic, **said},
            "request_id": call_id,
        }
        headers += [(b"request-id", call_id.encode())]
        if failure.kind in ("budget", "forbidden"):
            headers += [(b"x-should-retry", b"false")]
    else:
        headers += [(b"x-amzn-errortype", bedrock.encode()), (b"x-amzn-requestid", call_id.encode())]
    return status, headers, json.dumps(said, ensure_ascii=False).encode()


def dialect_of(path: str, route: Route | None) -> str:
    """How to speak to a caller whose path may not be known."""
    if route is not None:
        return route.dialect
    return "anthropic" if path.startswith(("/v1/", "/anthropic/")) else "bedrock"


async def answer(send: Send, status: int, headers: RawHeaders, body: bytes) -> None:
    """The whole of an answer whose body is at hand."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
