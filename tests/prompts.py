"""Requests to lint: an agent's body, which keeps every rule, and the small changes that break one."""

import copy
import json
from typing import Any

MODEL = (
    "global.anthropic.claude-sonnet-4-6"  # $3 in, $3.75 and $0.30 for the cache; cached from 1,024 tokens on
)
DAY = "2026-11-22"
SENTENCE = "The quick agent answers questions about orders, refunds and deliveries with care. "
FIVE = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}


def tool(name):
    return {
        "name": name,
        "description": f"Tool {name}. " + SENTENCE * 4,
        "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}},
    }


def body(question="Where is order 7?", system=SENTENCE * 60, mark=FIVE):
    """An InvokeModel body with a marker behind its system prompt."""
    text = {"type": "text", "text": system}
    return {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 500,
        "tools": [tool("search"), tool("refund"), tool("mail")],
        "system": [text | ({"cache_control": mark} if mark else {})],
        "messages": [{"role": "user", "content": [{"type": "text", "text": question}]}],
    }


def with_(base, **changes):
    return copy.deepcopy(base) | changes


def converse(system=SENTENCE * 60, question="hi"):
    return {
        "modelId": MODEL,
        "toolConfig": {"tools": [{"toolSpec": {"name": "search", "description": SENTENCE}}]},
        "system": [{"text": system}, {"cachePoint": {"type": "default"}}],
        "messages": [{"role": "user", "content": [{"text": question}]}],
        "inferenceConfig": {"maxTokens": 500},
    }


def results(count, mark=True):
    """A conversation whose last turn brings so many tool results, a breakpoint on the last of them."""
    blocks: list[dict[str, Any]] = [
        {"type": "tool_result", "tool_use_id": f"t{i}", "content": SENTENCE} for i in range(count)
    ]
    if mark:
        blocks[-1]["cache_control"] = FIVE
    found = body(mark=None)
    found["messages"] = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "calls"},
        {"role": "user", "content": blocks},
    ]
    return found


def save(path, *bodies):
    path.write_text("".join(json.dumps(each) + "\n" for each in bodies), encoding="utf-8")
    return path
