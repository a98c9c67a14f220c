"""Requests and responses below Starlette, for what must be quick: bodies within limits, answers in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

import msgspec

from farthing.emulator._errors import Headers, Refused
from farthing.wire import Route

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MOST_BYTES = {"bedrock": 25_000_000, "anthropic": 32 * 1024 * 1024}
BODY_S = 30  # within which a body must be there
JSON: Headers = [(b"content-type", b"application/json")]


class Gone(Exception):
    """The client went away before its request was complete."""


class Ask(NamedTuple):
    """A request. Header names are in small letters."""

    route: Route
    headers: dict[str, str]
    query: str
    body: bytes


async def read_body(receive: Receive, dialect: str) -> bytes:
    """The whole body. Refused if it is too large or too slow; Gone if it does not come."""
    most = MOST_BYTES[dialect]
    first = await receive()
    if first["type"] == "http.disconnect":
        raise Gone
    body: bytes = first.get("body", b"")
    if not first.get("more_body"):
        if len(body) > most:
            raise Refused("too_large", f"Request exceeds the maximum size of {most} bytes")
        return body
    chunks, size = [body], len(body)
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > most:
                    raise Refused("too_large", f"Request exceeds the maximum size of {most} bytes")
                if not message.get("more_body"):
                    return b"".join(chunks)
    except TimeoutError:
        raise Refused("slow", "The request body did not arrive in time.") from None


def parsed(body: bytes) -> dict[str, Any]:
    """A body that must be an object of JSON. Refused in the service's words if it is none."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(
            "invalid",
            "The request body is not valid JSON: it could not be parsed, please reformat your input.",
        ) from None
    if not isinstance(found, dict):
        raise Refused("invalid", "The request body is no JSON object.")
    return found


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """An answer in one piece."""
    await send({
        "type": "http.response.start",
        "status": status,
        "headers": [*headers, (b"content-length", str(len(body)).encode())],
    })  # fmt: skip
    await send({"type": "http.response.body", "body": body})
