"""What an answer said: its text and why it ended, of one document or of a stream. For who grades it; never kept."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from farthing.wire._answer import EVENT_STREAM, SSE
from farthing.wire._frames import Frames
from farthing.wire._sse import Events


class Said(NamedTuple):
    text: str = ""
    stop: str = ""


def said(kind: str, body: bytes) -> Said | None:
    """By the media type of the answer; None where it cannot be read."""
    try:
        events = list(_events(kind.partition(";")[0].strip().lower(), body))
        return Said("".join(map(_text, events)), next(filter(None, map(_stop, reversed(events))), ""))
    except (ValueError, KeyError, TypeError, AttributeError, msgspec.MsgspecError):
        return None


def _events(kind: str, body: bytes) -> Iterator[dict[str, Any]]:
    if kind == SSE:
        yield from map(msgspec.json.decode, Events().feed(body))
    elif kind == EVENT_STREAM:
        for frame in Frames().feed(body):
            event = msgspec.json.decode(frame.payload)
            yield msgspec.json.decode(b64decode(event["bytes"])) if "bytes" in event else event
    else:
        yield msgspec.json.decode(body)


def _text(event: dict[str, Any]) -> str:
    """Of Messages or Converse, whole or a part."""
    message = (event.get("output") or {}).get("message") or event
    if isinstance(message.get("content"), list):
        return "".join(block.get("text", "") for block in message["content"])
    delta = event.get("delta")
    return delta.get("text", "") if isinstance(delta, dict) else ""


def _stop(event: dict[str, Any]) -> str:
    delta = event.get("delta")
    inner = delta if isinstance(delta, dict) else event
    return str(inner.get("stop_reason") or event.get("stopReason") or "")


def asked(body: dict[str, Any]) -> dict[str, Any]:
    """A question as a grader takes it, of a body of Messages or Converse."""
    system = body.get("system") or ""
    blocks = [{"text": system}] if isinstance(system, str) else system
    return {
        "messages": body.get("messages") or [],
        "system": "\n".join(each.get("text", "") for each in blocks),
    }
