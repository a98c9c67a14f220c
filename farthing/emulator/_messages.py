"""Answers in Anthropic's form: a message, its usage, and the events of its stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from farthing.emulator._answers import PIECE, Said
from farthing.meters import Vector

Events = list[tuple[str, dict[str, Any], int]]  # kind, payload, tokens said up to its end


def usage(tokens: Vector, thinking: int = 0, tier: str = "standard") -> dict[str, Any]:
    """The usage block of a message."""
    told: dict[str, Any] = {
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.cache_write_5m + tokens.cache_write_1h,
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write_5m,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        },
        "output_tokens": tokens.output,
        "service_tier": tier,
    }
    if thinking:
        told["output_tokens_details"] = {"thinking_tokens": thinking}
    return told


def answer(said: Said, tokens: Vector, model: str, message_id: str, tier: str = "standard") -> dict[str, Any]:
    """The message."""
    return {
        "model": model,
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "content": said.content,
        "stop_reason": said.stop_reason,
        "stop_sequence": said.stop_sequence,
        "usage": usage(tokens, said.thinking, tier),
    }


def events(said: Said, tokens: Vector, model: str, message_id: str, *, pings: bool) -> Events:
    """The events of the message as a stream. `tokens` has no output yet but a placeholder of one."""
    begun = Said([], "", None, 0)
    start = answer(begun, tokens._replace(output=1), model, message_id)
    start |= {"stop_reason": None, "stop_sequence": None}
    found: Events = [("message_start", {"type": "message_start", "message": start}, 0)]
    done = 0
    for at, block in enumerate(said.content):
        begin = {"type": "content_block_start", "index": at, "content_block": _empty(block)}
        found.append(("content_block_start", begin, done))
        if pings and not at:
            found.append(("ping", {"type": "ping"}, done))
        for text, count in pieces(block, PIECE):
            done = min(done + count, said.tokens)
            found.append(_delta(at, _kind(block, text), done))
        if block["type"] == "thinking":
            found.append(_delta(at, {"type": "signature_delta", "signature": block["signature"]}, done))
        found.append(("content_block_stop", {"type": "content_block_stop", "index": at}, done))
    counts = usage(tokens._replace(output=said.tokens), said.thinking)
    del counts["cache_creation"], counts["service_tier"]
    delta = {"stop_reason": said.stop_reason, "stop_sequence": said.stop_sequence}
    found.append(("message_delta", {"type": "message_delta", "delta": delta, "usage": counts}, said.tokens))
    found.append(("message_stop", {"type": "message_stop"}, said.tokens))
    return found


def _delta(at: int, delta: dict[str, Any], done: int) -> tuple[str, dict[str, Any], int]:
    return ("content_block_delta", {"type": "content_block_delta", "index": at, "delta": delta}, done)


def _kind(block: Mapping[str, Any], text: str) -> dict[str, Any]:
    if block["type"] == "tool_use":
        return {"type": "input_json_delta", "partial_json": text}
    if block["type"] == "thinking":
        return {"type": "thinking_delta", "thinking": text}
    return {"type": "text_delta", "text": text}


_EMPTY: dict[str, dict[str, Any]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
}


def _empty(block: Mapping[str, Any]) -> dict[str, Any]:
    """As a block begins, before anything of it is said."""
    return dict(block) | _EMPTY[block["type"]]


def pieces(block: Mapping[str, Any], tokens: int) -> Iterator[tuple[str, int]]:
    """The block's text, some tokens at a time."""
    text = block.get("text") or block.get("thinking") or ""
    if block["type"] == "tool_use":
        text = msgspec.json.encode(block["input"]).decode()
    step = 4 * tokens
    for at in range(0, len(text), step):
        part = text[at : at + step]
        yield part, len(part) + 3 >> 2
