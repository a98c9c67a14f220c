"""What a policy changes of a request: only what was decided, byte for byte, and never the client's own cache points."""

import copy
import json
from datetime import UTC, datetime
from functools import reduce
from operator import getitem
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.book import default_book
from farthing.gateway._body import Mark, splice, spots
from farthing.gateway.policy import MOST_MARKERS, least_of, look, rewrite
from farthing.lint._request import parts_of
from farthing.policy import APPLIED, LIVE, REFUSED, SHADOWED, Decided, Marker
from farthing.policy._file import FIXED
from farthing.traces import blocks_of, prompt_of
from farthing.wire import Route

SONNET = "eu.anthropic.claude-sonnet-4-6"
INVOKE = Route("InvokeModel", "bedrock", SONNET)
CONVERSE = Route("Converse", "bedrock", SONNET)
MESSAGES = Route("Messages", "anthropic")
KEY = b"0123456789abcdef"
LONG = "s" * 5000  # more than 1,024 tokens of four bytes
CACHED = {
    "5m": b'"cache_control":{"type":"ephemeral"}',
    "1h": b'"cache_control":{"type":"ephemeral","ttl":"1h"}',
}
POINT = b'{"cachePoint":{"type":"default"}}'
WRAP = b'[{"type":"text","text":}]'  # what a text is put into, to bear one


def decided(lever: str, **change: Any) -> Decided:
    return Decided(lever, APPLIED, "as agreed", "support/" + lever, change)


def marks(*places: str, ttl: str = "5m") -> Decided:
    return decided("cache", markers=tuple(Marker(at, ttl) for at in places))


def always(_: str) -> int:
    return 0


def put_in(before: bytes, after: bytes) -> bytes:
    """What was put in, if nothing was taken away: the letters of `after` that `before` has not, in order."""
    rest, added = iter(after), bytearray()
    for wanted in before:
        for found in rest:
            if found == wanted:
                break
            added.append(found)
        else:
            raise AssertionError("something was taken away")
    return bytes(added) + bytes(rest)


def plain(value: Any) -> Any:
    """Without cache points, a text alone as the list that it stands for."""
    if isinstance(value, dict):
        kept = {name: plain(each) for name, each in value.items() if name != "cache_control"}
        for name in ("content", "system"):
            if isinstance(kept.get(name), str):
                kept[name] = [{"type": "text", "text": kept[name]}] if kept[name] else []
        return kept
    if isinstance(value, list):
        return [plain(each) for each in value if not (isinstance(each, dict) and "cachePoint" in each)]
    return value


# --- laws -------------------------------------------------------------------------------------------------------------

# Texts that cannot be mistaken for what is put in; escapes, quotation marks and other scripts are in them.
texts = st.text(st.sampled_from('aé"\\/\n\u2028漢😀 {}[],:'), min_size=1, max_size=8)
blocks = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, texts),
    st.builds(lambda text: {"type": "tool_result", "tool_use_id": "t", "content": text}, texts),
    st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "s"}, texts),
)
messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant"]),
            "content": texts | st.lists(blocks, min_size=1, max_size=3),
        }
    ),
    min_size=1,
    max_size=4,
)
tools = st.lists(
    st.builds(lambda name: {"name": name, "input_schema": {"type": "object"}}, texts), min_size=1, max_size=3
)
bodies = st.fixed_dictionaries(
    {"max_tokens": st.just(5), "messages": messages},
    optional={
        "tools": tools,
        "system": texts | st.lists(blocks, min_size=1, max_size=2),
        "temperature": st.just(1.0),
    },
)
converses = st.fixed_dictionaries(
    {
        "inferenceConfig": st.just({"maxTokens": 5}),
        "messages": st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.just("user"),
                    "content": st.lists(st.builds(lambda t: {"text": t}, texts), min_size=1),
                }
            ),
            min_size=1,
            max_size=3,
        ),
    },
    optional={
        "system": st.lists(st.builds(lambda t: {"text": t}, texts), min_size=1, max_size=2),
        "toolConfig": st.builds(lambda t: {"tools": [{"toolSpec": {"name": t}}]}, texts),
    },
)
written = st.sampled_from(
    [
        {"separators": (",", ":")},
        {"indent": 1},
        {"ensure_ascii": False},
        {"indent": "\t", "ensure_ascii": False},
    ]
)
places = st.lists(
    st.sampled_from(["tools", "system", "end-3", "end-1", "end"]),
    min_size=1,
    max_size=MOST_MARKERS,
    unique=True,
)


@settings(max_examples=50)
@given(bodies, written, places, st.sampled_from(["5m", "1h"]))
def test_cache_points_are_put_in_and_all_other_bytes_stay(body, way, at, ttl):
    before = json.dumps(body, **way).encode()
    made = rewrite(INVOKE, before, [marks(*at, ttl=ttl)], always)
    added = put_in(before, made.body)
    points = len(look(json.loads(made.body)).markers)
    assert points <= MOST_MARKERS
    assert added.count(b"cache_control") == points
    assert len(added) in {
        points * (len(CACHED[ttl]) + 1) + wrapped * len(WRAP) for wrapped in range(points + 1)
    }
    assert plain(json.loads(made.body)) == plain(body)
    assert (made.body != before) == (made.decisions[0].reason == "support/cache: as agreed")


@settings(max_examples=50)
@given(converses, written, places)
def test_so_they_are_of_converse(body, way, at):
    before = json.dumps(body, **way).encode()
    made = rewrite(CONVERSE, before, [marks(*at)], always)
    assert made.body.replace(b"," + POINT, b"") == before
    assert plain(json.loads(made.body)) == plain(body)


def woven(body: Any, marks: list[Mark]) -> Any:
    """The body as an object, with cache points put in from its end on, so that none moves a place still to come."""
    new = copy.deepcopy(body)
    for spot, ttl in reversed(marks):
        around: Any = reduce(getitem, spot.path[:-1], new)
        at: Any = spot.path[-1]
        lives = {"ttl": "1h"} if ttl == "1h" else {}
        point = {"cache_control": {"type": "ephemeral"} | lives}
        if spot.native:
            around.insert(at + 1, {"cachePoint": {"type": "default"} | lives})
        elif isinstance(around[at], str):
            around[at] = [{"type": "text", "text": around[at], **point}]
        else:
            around[at] |= point
    return new


@settings(max_examples=50)
@given(bodies | converses, written, st.sets(st.integers(0, 5)), st.sampled_from(["5m", "1h"]))
def test_bytes_are_changed_as_the_object_would_be(body, way, chosen, ttl):
    edits = [Mark(spot, ttl) for n, spot in enumerate(spots(body)) if n in chosen and spot.bears]
    assert json.loads(splice(json.dumps(body, **way).encode(), edits)) == woven(body, edits)


@settings(max_examples=50)
@given(bodies | converses, places)
def test_no_prefix_is_another_for_its_cache_points(body, at):
    """What was cached before stays cached: hashes leave cache points out, and nothing else."""
    made = rewrite(INVOKE, json.dumps(body).encode(), [marks(*at)], always)
    assert prompt_of(blocks_of(json.loads(made.body)), KEY).hashes == prompt_of(blocks_of(body), KEY).hashes


@settings(max_examples=50)
@given(bodies, written, st.sampled_from(["claude-haiku-4-5", 'odd"id']))
def test_a_model_is_set_where_messages_name_it(body, way, model):
    for given_body in (body, {"model": "claude-sonnet-4-6", **body}, {**body, "model": "claude-sonnet-4-6"}):
        before = json.dumps(given_body, **way).encode()
        made = rewrite(MESSAGES, before, [decided("model", model_id=model, use="x")], always)
        assert made.model == model
        if "model" in given_body:
            assert json.loads(made.body) == {**given_body, "model": model}
        assert rewrite(INVOKE, before, [decided("model", model_id=model, use="x")], always).body == before


# --- where cache points go --------------------------------------------------------------------------------------------


def marked(body: dict[str, Any], *made: Decided, least: int = 0) -> list[tuple[str, str]]:
    """Paths and lifetimes of the cache points after the levers."""
    after = rewrite(INVOKE, json.dumps(body).encode(), made, lambda _: least)
    return [(part.path, part.mark) for part in parts_of(json.loads(after.body)) if part.mark]


BODY: dict[str, Any] = {
    "tools": [{"name": "a", "input_schema": {}}, {"name": "b", "input_schema": {}}],
    "system": LONG,
    "messages": [
        {"role": "user", "content": "one"},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "three"}],
        },
        {"role": "user", "content": [{"type": "text", "text": "four"}]},
    ],
}


def test_each_place():
    found = marked(BODY, decided("cache", markers=(
        Marker("tools", "1h"), Marker("system", "1h"), Marker("end-2", "5m"), Marker("end", "5m")
    )))  # fmt: skip
    assert found == [("tools[1]", "1h"), ("system[0]", "1h"), ("messages[1].content[0]", "5m"),
                     ("messages[2].content[0]", "5m")]  # fmt: skip


def test_what_a_policy_sees():
    assert look(BODY).places == ("tools", "system", "end", "end-1", "end-2", "end-3")
    assert look(BODY).markers == ()
    own = copy.deepcopy(BODY)
    own["tools"][1]["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
    own["messages"][1]["content"][1]["cache_control"] = {"type": "ephemeral"}
    assert look(own).markers == (Marker("tools", "1h"), Marker("end-1", "5m"))
    assert look({**BODY, "cache_control": {"type": "ephemeral"}}).markers == (Marker("end", "5m"),)
    converse = {"system": [{"text": "s"}, {"cachePoint": {"type": "default"}}], "messages": [
        {"role": "user", "content": [{"text": "a"}, {"text": "b"}, {"cachePoint": {"type": "default", "ttl": "1h"}}]}
    ]}  # fmt: skip
    assert look(converse).markers == (Marker("system", "5m"), Marker("end", "1h"))
    assert look(converse).places == ("system", "end", "end-1")


@pytest.mark.parametrize(
    "own",
    [
        {"system": [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]},
        {"cache_control": {"type": "ephemeral"}},
        {"messages": [{"role": "user", "content": [{"text": "a"}, {"cachePoint": {"type": "default"}}]}]},
    ],
)
def test_beside_the_clients_own_there_are_none_of_ours(own):
    body = {**BODY, **own}
    made = rewrite(INVOKE, json.dumps(body).encode(), [marks("tools", "end")], always)
    assert made.body == json.dumps(body).encode()
    assert made.decisions[0].reason == "refused: the client places cache points of its own"


def test_thinking_an_empty_text_and_deferred_tools_bear_none():
    body = {
        "tools": [{"name": "a"}, {"name": "b", "defer_loading": True}],
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"}]},
            {"role": "user", "content": ""},
        ],
    }
    assert marked(body, marks("tools", "end")) == [("tools[0]", "5m"), ("messages[0].content[0]", "5m")]
    assert marked({"messages": [{"role": "user", "content": ""}]}, marks("end")) == []


def test_a_longer_life_never_comes_after_a_shorter_one():
    odd = decided("cache", markers=(Marker("tools", "5m"), Marker("system", "1h"), Marker("end", "1h")))
    assert {ttl for _, ttl in marked(BODY, odd)} == {"5m"}


def test_no_more_than_four():
    many = marks(*(f"end-{back}" for back in range(3, 0, -1)), "end", "tools", "system")
    assert len(marked(BODY, many)) == MOST_MARKERS


def test_what_is_too_short_to_be_cached_is_not_marked():
    assert [path for path, _ in marked(BODY, marks("tools", "system", "end"), least=1024)] == [
        "system[0]", "messages[2].content[0]"
    ]  # fmt: skip
    short = b'{"messages": [{"role": "user", "content": "hi"}]}'
    made = rewrite(INVOKE, short, [marks("end")], lambda _: 1024)
    assert made.body is short
    assert made.decisions[0].reason == "refused: about 0 tokens, and it caches from 1,024"


def test_the_minimum_is_the_models_and_the_days():
    book = default_book()
    least = least_of(book, "bedrock", "eu-west-1", datetime(2026, 11, 1, tzinfo=UTC))
    told = {
        model: least(f"eu.anthropic.{model}")
        for model in ("claude-sonnet-4-6", "claude-haiku-4-5-20251001-v1:0")
    }
    assert told == {"claude-sonnet-4-6": 1024, "claude-haiku-4-5-20251001-v1:0": 4096}
    assert least("no-such-model") is None
    body = json.dumps({"messages": [{"role": "user", "content": LONG}]}).encode()
    haiku = decided("model", model_id="eu.anthropic.claude-haiku-4-5-20251001-v1:0", use="claude-haiku-4-5")
    assert CACHED["5m"] in rewrite(INVOKE, body, [marks("end")], least).body
    after = rewrite(INVOKE, body, [haiku, marks("end")], least)  # it is Haiku that will be called
    assert after.body == body
    assert "caches from 4,096" in after.decisions[1].reason


# --- other levers -----------------------------------------------------------------------------------------------------


def test_the_life_of_the_clients_own_is_changed_where_they_stand():
    body = (
        b'{"system": [{"type":"text","text":"s", "cache_control" : {"type":"ephemeral" } }],'
        b' "cache_control":{"type":"ephemeral","ttl": "5m"}, "messages":[{"role":"user","content":"a"}]}'
    )
    made = rewrite(
        INVOKE, body, [decided("ttl", markers=(Marker("system", "1h"), Marker("end", "1h")))], always
    )
    assert made.body == body.replace(b'{"type":"ephemeral" }', b'{"type":"ephemeral" ,"ttl":"1h"}').replace(
        b'"ttl": "5m"', b'"ttl": "1h"'
    )
    converse = {
        "messages": [{"role": "user", "content": [{"text": "a"}, {"cachePoint": {"type": "default"}}]}]
    }
    made = rewrite(
        CONVERSE, json.dumps(converse).encode(), [decided("ttl", ttl_override="1h", markers=())], always
    )
    turn = json.loads(made.body)["messages"][0]["content"]
    assert turn[1] == {"cachePoint": {"type": "default", "ttl": "1h"}}


def test_the_geography_is_lifted():
    before = b'{"model":"claude-opus-5-5", "inference_geo" : "us","messages":[{"role":"user","content":"a"}]}'
    made = rewrite(MESSAGES, before, [decided("endpoint", inference_geo="")], always)
    assert made.body == before.replace(b'"us"', b'"global"')


def test_a_batch_is_asked_of_the_driver():
    made = rewrite(
        INVOKE, b'{"messages":[{"role":"user","content":"a"}]}', [decided("batch", deadline="6h")], always
    )
    assert made.deadline == "6h"


@pytest.mark.parametrize("name", LIVE)
def test_policies_that_decide_as_traffic_comes_are_refused_and_others_are_placed(name):
    before = json.dumps(BODY).encode()
    made = rewrite(INVOKE, before, [decided("cache", cache_policy=name)], always)
    placed = made.body != before
    assert placed == (name in FIXED or name.startswith("guarded"))
    assert made.decisions[0].reason.startswith("refused: ") == (not placed and name != "none")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"nonsense", b'{"messages":1}', b'{"messages":[]}', b'{"messages":[1]}',
        b'{"messages":[{"content":[1]}]}',
        b'\xff{"messages":[{"role":"user","content":"a"}]}', b"[" * 100_000,
        b'{"messages":[{"role":"user","content":"a"}],"messages":[{"role":"user","content":"a"}]}',
    ],
)  # fmt: skip
def test_what_cannot_be_read_for_certain_stays_as_it_is(body):
    made = rewrite(INVOKE, body, [marks("end")], always)
    assert made.body == body
    assert made.decisions[0].reason.startswith("refused: ")


def test_shadows_and_refusals_change_nothing():
    body = json.dumps(BODY).encode()
    shadow = marks("end")._replace(outcome=SHADOWED)
    refused = Decided("cache", REFUSED, "no", "e", {})
    made = rewrite(INVOKE, body, [shadow, refused], always)
    assert made.body is body
    assert [each.shadow for each in made.decisions] == [True, False]
