"""Requests with something wrong somewhere in them: each is answered or refused, and nothing else happens."""

import copy
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.book import default_book
from farthing.emulator import World
from farthing.emulator._errors import Refused
from farthing.emulator._http import Ask, parsed
from farthing.emulator._runtime import _Sent, answer_of, counted, messages_of, metadata_of
from farthing.emulator._world import Caller
from farthing.wire import Route

POINT = {"type": "ephemeral", "ttl": "5m"}
PICTURE = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
LIST = {"type": "array", "items": {"enum": ["x"]}, "minItems": 1}
SCHEMA = {"type": "object", "properties": {"a": LIST}, "required": ["a"]}
FOUND = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "here"}]}
MESSAGES: dict[str, Any] = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 2_000,
    "system": [{"type": "text", "text": "Be brief. " * 500, "cache_control": POINT}],
    "tools": [{"name": "find", "description": "Find it", "input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "find"},
    "thinking": {"type": "enabled", "budget_tokens": 1_024},
    "stop_sequences": ["oak"],
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    "messages": [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Where?"}, {"type": "image", "source": PICTURE}],
        },
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t", "name": "find", "input": {"a": ["x"]}}],
        },
        {"role": "user", "content": [FOUND]},
    ],
}
TOOL = {"toolSpec": {"name": "find", "inputSchema": {"json": SCHEMA}}}
PAPER = {"document": {"format": "pdf", "name": "d", "source": {"bytes": "AAAA"}}}
RESULT = {"toolResult": {"toolUseId": "t", "content": [{"json": {"a": 1}}, {"text": "x"}]}}
USED = {"toolUse": {"toolUseId": "t", "name": "find", "input": {}}}
CONVERSE: dict[str, Any] = {
    "system": [{"text": "Be brief. " * 500}, {"cachePoint": {"type": "default", "ttl": "1h"}}],
    "inferenceConfig": {"maxTokens": 2_000, "stopSequences": ["oak"]},
    "toolConfig": {"tools": [TOOL], "toolChoice": {"tool": {"name": "find"}}},
    "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 1_024}},
    "requestMetadata": {"team": "blue"},
    "messages": [
        {"role": "user", "content": [{"text": "Where?"}, PAPER]},
        {
            "role": "assistant",
            "content": [{"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}}, USED],
        },
        {"role": "user", "content": [RESULT]},
    ],
}
BEDROCK = "us.anthropic.claude-sonnet-4-6"
KINDS = [
    (Route("InvokeModel", "bedrock", BEDROCK), MESSAGES),
    (Route("InvokeModelWithResponseStream", "bedrock", BEDROCK, streamed=True), MESSAGES),
    (Route("Converse", "bedrock", BEDROCK), CONVERSE),
    (Route("ConverseStream", "bedrock", BEDROCK, streamed=True), CONVERSE),
    (Route("Messages", "anthropic"), MESSAGES | {"model": "claude-sonnet-4-6"}),
]
CALLER = Caller("111122223333", "arn", "us-east-1", "none")
VALUES = ["", "x", "1h", "text", "é", [], [[]], [None], ["x"], {}, {"type": "text"}, {"cachePoint": 1}]
odd = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.sampled_from(VALUES)


def places(value, path=()):
    """The path of everything in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


def spoiled(document, path, value, *, remove):
    """The document with another value there, or with nothing."""
    document = copy.deepcopy(document)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    if remove:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return document


@pytest.fixture(scope="module")
def world():
    return World(default_book())


def answered(world, route, body):
    """The answer to a body in full; its length in tokens is what was billed."""
    raw = json.dumps(body).encode()
    told = parsed(raw)
    metadata_of(route, told, {})
    request = messages_of(route, told, {"anthropic-version": "2023-06-01"})
    call = world.take(
        route,
        route.model or request["model"],
        request,
        raw,
        CALLER,
        world.clock.now_us(),
        streamed=route.streamed,
    )
    if not route.streamed:
        return json.loads(answer_of(call, 1))
    sent = _Sent(call)
    for kind, payload, tokens in sent.events():
        assert sent.encode(kind, payload)
        assert tokens >= sent.said
        sent.said = tokens
    assert sent.said == call.said.tokens
    return json.loads(sent.for_log())


@pytest.mark.parametrize(("route", "body"), KINDS, ids=lambda kind: getattr(kind, "operation", ""))
def test_nothing_is_wrong_with_them_before(world, route, body):
    assert answered(world, route, body)


@pytest.mark.parametrize(("route", "body"), KINDS, ids=lambda kind: getattr(kind, "operation", ""))
@given(data=st.data())
@settings(max_examples=100)
def test_each_is_answered_or_refused(world, route, body, data):
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(places(body))))
        body = spoiled(body, path, data.draw(odd), remove=data.draw(st.booleans()))
    with suppress(Refused):
        assert answered(world, route, body)
    counts = (
        {"converse": body} if route.operation.startswith("Converse") else {"invokeModel": {"body": "e30="}}
    )
    ask = Ask(Route("CountTokens", "bedrock", BEDROCK), {}, "", json.dumps({"input": counts}).encode())
    with suppress(Refused):
        assert b"inputTokens" in counted(world, ask, CALLER)
