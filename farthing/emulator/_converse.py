"""Converse as Messages and back: inside, the emulator has one form of request and answer, Anthropic's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farthing.emulator._answers import PIECE, Said
from farthing.emulator._errors import Refused
from farthing.emulator._messages import Events, pieces
from farthing.meters import Vector

_LIMITS = {
    "maxTokens": "max_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "stopSequences": "stop_sequences",
}


def messages_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request in Anthropic's form."""
    made: dict[str, Any] = {}
    for name, own in _LIMITS.items():
        value = _dict(body.get("inferenceConfig"), "inferenceConfig").get(name)
        if value is not None:
            made[own] = value
    config = _dict(body.get("toolConfig"), "toolConfig")
    if config.get("tools") is not None:
        made["tools"] = _joined(config["tools"], "toolConfig.tools", _tool)
    choice = config.get("toolChoice")
    if isinstance(choice, dict) and choice:
        kind = next(iter(choice))
        named = {"name": _dict(choice[kind], "toolChoice.tool").get("name")} if kind == "tool" else {}
        made["tool_choice"] = {"type": kind} | named
    if body.get("system"):
        made["system"] = _joined(body["system"], "system", _block)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("invalid", "The messages field is required and must not be empty.")
    told = [_dict(message, f"messages.{at}") for at, message in enumerate(messages)]
    if told[0].get("role") != "user":
        raise Refused(
            "invalid",
            "A conversation must start with a user message. "
            "Try again with a conversation that starts with a user message.",
        )
    made["messages"] = [
        {
            "role": message.get("role"),
            "content": _joined(message.get("content"), f"messages.{at}.content", _block),
        }
        for at, message in enumerate(told)
    ]
    more = _dict(body.get("additionalModelRequestFields"), "additionalModelRequestFields")
    return made | {name: value for name, value in more.items() if name not in ("messages", "system", "tools")}


def _dict(value: Any, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused("invalid", f"{name} is no object")
    return value


def _joined(content: Any, place: str, read: Any) -> list[dict[str, Any]]:
    """Blocks, each cache point with the one before it."""
    if not isinstance(content, list):
        raise Refused("invalid", f"{place} is no list")
    found: list[dict[str, Any]] = []
    for one in content:
        if not isinstance(one, dict):
            raise Refused("invalid", f"an entry of {place} is no object")
        if "cachePoint" in one:
            point = _dict(one["cachePoint"], "cachePoint")
            if found:
                found[-1]["cache_control"] = {"type": "ephemeral", "ttl": point.get("ttl") or "5m"}
        else:
            found.append(read(one))
    return found


def _tool(one: Mapping[str, Any]) -> dict[str, Any]:
    spec = _dict(one.get("toolSpec"), "toolSpec")
    schema = _dict(spec.get("inputSchema"), "inputSchema").get("json")
    return {
        "name": spec.get("name"),
        "description": spec.get("description", ""),
        "input_schema": schema or {},
    }


def _block(one: Mapping[str, Any]) -> dict[str, Any]:
    if "text" in one:
        return {"type": "text", "text": one["text"]}
    if "toolUse" in one:
        used = _dict(one["toolUse"], "toolUse")
        return {
            "type": "tool_use",
            "id": used.get("toolUseId"),
            "name": used.get("name"),
            "input": used.get("input"),
        }
    if "toolResult" in one:
        result = _dict(one["toolResult"], "toolResult")
        inner = _joined(result.get("content"), "toolResult.content", _block)
        return {"type": "tool_result", "tool_use_id": result.get("toolUseId"), "content": inner}
    if "reasoningContent" in one:
        text = _dict(_dict(one["reasoningContent"], "reasoningContent").get("reasoningText"), "reasoningText")
        return {"type": "thinking", "thinking": text.get("text", ""), "signature": text.get("signature", "")}
    for kind in ("image", "document"):
        if kind in one:
            source = _dict(_dict(one[kind], kind).get("source"), "source")
            return {"type": kind, "source": {"type": "base64", "data": source.get("bytes")}}
    return {"type": "other", "value": dict(one)}


# --- back ------------------------------------------------------------------------------------------------------------


def usage(tokens: Vector) -> dict[str, Any]:
    """Converse's block, with the twins that the service writes too."""
    written = tokens.cache_write_5m + tokens.cache_write_1h
    told: dict[str, Any] = {
        "inputTokens": tokens.input,
        "outputTokens": tokens.output,
        "totalTokens": tokens.input + tokens.output + tokens.cache_read + written,
        "cacheReadInputTokens": tokens.cache_read,
        "cacheWriteInputTokens": written,
        "cacheReadInputTokenCount": tokens.cache_read,
        "cacheWriteInputTokenCount": written,
        "serverToolUsage": {},
    }
    if written:
        each = (("1h", tokens.cache_write_1h), ("5m", tokens.cache_write_5m))
        told["cacheDetails"] = [{"ttl": ttl, "inputTokens": count} for ttl, count in each if count]
    return told


def answer(said: Said, tokens: Vector, latency_ms: int) -> dict[str, Any]:
    """The body of Converse."""
    content = [_content(block) for block in said.content]
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": said.stop_reason,
        "usage": usage(tokens),
        "metrics": {"latencyMs": latency_ms},
    }


def _content(block: Mapping[str, Any]) -> dict[str, Any]:
    if block["type"] == "thinking":
        text = {"text": block["thinking"], "signature": block["signature"]}
        return {"reasoningContent": {"reasoningText": text}}
    if block["type"] == "tool_use":
        return {"toolUse": {"toolUseId": block["id"], "name": block["name"], "input": block["input"]}}
    return {"text": block["text"]}


def events(said: Said) -> Events:
    """The events of ConverseStream but the last, which has the counts."""
    found: Events = [("messageStart", {"role": "assistant"}, 0)]
    done = 0
    for at, block in enumerate(said.content):
        if block["type"] == "tool_use":
            start = {"toolUse": {"toolUseId": block["id"], "name": block["name"]}}
            found.append(("contentBlockStart", {"start": start, "contentBlockIndex": at}, done))
        for text, tokens in pieces(block, PIECE):
            done = min(done + tokens, said.tokens)
            delta: dict[str, Any] = {"text": text}
            if block["type"] == "tool_use":
                delta = {"toolUse": {"input": text}}
            elif block["type"] == "thinking":
                delta = {"reasoningContent": {"text": text}}
            found.append(("contentBlockDelta", {"delta": delta, "contentBlockIndex": at}, done))
        if block["type"] == "thinking":
            delta = {"reasoningContent": {"signature": block["signature"]}}
            found.append(("contentBlockDelta", {"delta": delta, "contentBlockIndex": at}, done))
        found.append(("contentBlockStop", {"contentBlockIndex": at}, done))
    found.append(("messageStop", {"stopReason": said.stop_reason}, said.tokens))
    return found
