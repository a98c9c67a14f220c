"""Usage blocks in every dialect: the same call reads the same, and what is impossible is rejected."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.meters import METERS, Vector
from farthing.rating import rate
from farthing.usage import (
    Reading,
    Rejected,
    is_own,
    read_usage,
    settle_ttl,
)


def only(block: dict) -> Vector:
    """The tokens of a block of one part."""
    (part,) = read_usage(block).parts
    assert part.model == ""
    return part.tokens


# --- dialects --------------------------------------------------------------------------------------

DIALECTS: dict[
    str, dict
] = {  # the same call (3 in, 40 out, 500 read, 60 written for 5 minutes, 7 for an hour) in each
    "native": {"input": 3, "output": 40, "cache_read": 500, "cache_write_5m": 60, "cache_write_1h": 7},
    "anthropic": {
        "input_tokens": 3,
        "output_tokens": 40,
        "cache_read_input_tokens": 500,
        "cache_creation_input_tokens": 67,
        "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 7},
        "output_tokens_details": {"thinking_tokens": 30},
        "server_tool_use": {"web_search_requests": 1},
        "service_tier": "standard",
        "inference_geo": "not_available",
    },
    "anthropic, split alone": {
        "input_tokens": 3,
        "output_tokens": 40,
        "cache_read_input_tokens": 500,
        "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 7},
    },
    "converse": {
        "inputTokens": 3,
        "outputTokens": 40,
        "totalTokens": 610,
        "cacheReadInputTokens": 500,
        "cacheReadInputTokenCount": 500,
        "cacheWriteInputTokens": 67,
        "cacheWriteInputTokenCount": 67,
        "cacheDetails": [{"ttl": "1h", "inputTokens": 7}, {"ttl": "5m", "inputTokens": 60}],
        "serverToolUsage": {},
    },
    "converse, twins alone": {
        "inputTokens": 3,
        "outputTokens": 40,
        "cacheReadInputTokenCount": 500,
        "cacheWriteInputTokenCount": 67,
        "cacheDetails": [
            {"ttl": "1h", "inputTokens": 7},
            {"ttl": "5m", "inputTokens": 20},
            {"ttl": "5m", "inputTokens": 40},
        ],
    },
    "litellm": {
        "prompt_tokens": 570,
        "completion_tokens": 40,
        "total_tokens": 610,
        "cache_read_input_tokens": 500,
        "cache_creation_input_tokens": 67,
        "prompt_tokens_details": {
            "cached_tokens": 500,
            "cache_creation_tokens": 67,
            "cache_creation_token_details": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 7},
        },
    },
    "litellm that leaves the cache out of the prompt": {
        "prompt_tokens": 3,
        "completion_tokens": 40,
        "cache_read_input_tokens": 500,
        "cache_creation_input_tokens": 67,
        "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 7},
    },
    "openai responses": {
        "input_tokens": 570,
        "output_tokens": 40,
        "total_tokens": 610,
        "input_tokens_details": {
            "cached_tokens": 500,
            "cache_write_tokens": 67,
            "cache_creation_token_details": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 7},
        },
        "output_tokens_details": {"reasoning_tokens": 30},
    },
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects_agree(dialect):
    assert only(DIALECTS[dialect]) == Vector(3, 40, 500, 60, 7)
    assert read_usage(DIALECTS[dialect]).assumed == ()


UNTOLD: dict[str, dict] = {  # the same call again, its 67 written tokens without a time to live
    "anthropic": {
        "input_tokens": 3,
        "output_tokens": 40,
        "cache_read_input_tokens": 500,
        "cache_creation_input_tokens": 67,
    },
    "anthropic, split null": {
        "input_tokens": 3,
        "output_tokens": 40,
        "cache_read_input_tokens": 500,
        "cache_creation_input_tokens": 67,
        "cache_creation": None,
    },
    "converse": {
        "inputTokens": 3,
        "outputTokens": 40,
        "cacheReadInputTokens": 500,
        "cacheWriteInputTokens": 67,
    },
    "converse, details empty": {
        "inputTokens": 3,
        "outputTokens": 40,
        "cacheReadInputTokens": 500,
        "cacheWriteInputTokens": 67,
        "cacheDetails": [],
    },
    "converse, a new ttl": {
        "inputTokens": 3,
        "outputTokens": 40,
        "cacheReadInputTokens": 500,
        "cacheDetails": [{"ttl": "24h", "inputTokens": 67}],
    },
    "invocation log": {
        "inputTokenCount": 3,
        "outputTokenCount": 40,
        "cacheReadInputTokenCount": 500,
        "cacheWriteInputTokenCount": 67,
    },
    "openrouter": {
        "prompt_tokens": 570,
        "completion_tokens": 40,
        "prompt_tokens_details": {"cached_tokens": 500, "cache_write_tokens": 67},
    },
    "otel that leaves the cache out": {
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 40,
        "gen_ai.usage.cache_read.input_tokens": 500,
        "gen_ai.usage.cache_creation.input_tokens": 67,
    },
}


@pytest.mark.parametrize("dialect", UNTOLD)
def test_writes_of_untold_ttl_are_5m_and_marked(dialect):
    assert only(UNTOLD[dialect]) == Vector(3, 40, 500, 67, 0)
    assert read_usage(UNTOLD[dialect]).assumed == ("ttl",)


@pytest.mark.parametrize(
    ("input_name", "output_name", "read_name", "write_name"),
    [
        ("input_tokens", "output_tokens", "cache_read.input_tokens", "cache_creation.input_tokens"),
        ("prompt_tokens", "completion_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
        ("input_tokens", "output_tokens", "cache_read.input_tokens", "cache_write.input_tokens"),
    ],
)
def test_otel_includes_the_cache_as_the_convention_says_and_marks_that(
    input_name, output_name, read_name, write_name
):
    block = {input_name: 570, output_name: 40, read_name: 500, write_name: 67}
    reading = read_usage({f"gen_ai.usage.{name}": count for name, count in block.items()})
    assert [part.tokens for part in reading.parts] == [Vector(3, 40, 500, 67)]
    assert reading.assumed == ("ttl", "input_includes_cache")


def test_otel_without_a_cache_has_nothing_to_assume():
    assert read_usage({"gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 4}) == Reading(
        read_usage({"input": 3, "output": 4}).parts
    )


def test_an_input_all_of_which_was_cached():
    details = {"cached_tokens": 500, "cache_creation_tokens": 67}
    assert only({"prompt_tokens": 567, "prompt_tokens_details": details}) == Vector(0, 0, 500, 67)
    assert only({"prompt_tokens": 566, "prompt_tokens_details": details}) == Vector(566, 0, 500, 67)


def test_a_partial_split_keeps_what_it_tells():
    split = {"ephemeral_1h_input_tokens": 7}
    reading = read_usage({"input_tokens": 3, "cache_creation_input_tokens": 67, "cache_creation": split})
    assert reading.parts[0].tokens == Vector(3, 0, 0, 60, 7)
    assert reading.assumed == ("ttl",)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_twins_are_never_added(read, written):
    block = {
        "inputTokens": 1,
        "cacheReadInputTokens": read,
        "cacheReadInputTokenCount": read,
        "cacheWriteInputTokens": written,
        "cacheWriteInputTokenCount": written,
    }
    assert only(block) == Vector(1, 0, read, written)


@pytest.mark.parametrize(
    ("extra", "mode", "geo"),
    [
        ({"service_tier": "batch"}, "batch", ""),
        ({"speed": "fast"}, "fast", ""),
        ({"service_tier": "batch", "speed": "standard"}, "batch", ""),
        ({"service_tier": "priority"}, "priority", ""),
        ({"service_tier": "flex", "speed": "standard"}, "flex", ""),
        ({"service_tier": "standard_only"}, "", ""),
        ({"service_tier": "standard", "speed": "standard", "inference_geo": "us"}, "", "us"),
        ({"inference_geo": "global"}, "", "global"),
        ({"inference_geo": "not_available"}, "", ""),
        ({"inference_geo": None, "service_tier": None, "speed": None}, "", ""),
    ],
)
def test_how_a_call_ran(extra, mode, geo):
    reading = read_usage({"input_tokens": 1, "output_tokens": 1} | extra)
    assert (reading.mode, reading.inference_geo) == (mode, geo)


# --- iterations ------------------------------------------------------------------------------------


def test_compaction_counts_though_the_top_level_leaves_it_out():
    # FORMATS.md 5: the call as it was measured
    block = {
        "input_tokens": 180,
        "output_tokens": 8,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "iterations": [
            {
                "type": "compaction",
                "input_tokens": 100,
                "output_tokens": 82,
                "cache_creation_input_tokens": 55_096,
                "cache_creation": {"ephemeral_5m_input_tokens": 55_096, "ephemeral_1h_input_tokens": 0},
            },
            {"type": "message", "input_tokens": 180, "output_tokens": 8},
        ],
    }
    reading = read_usage(block)
    assert [part.tokens for part in reading.parts] == [Vector(100, 82, 0, 55_096), Vector(180, 8)]
    assert reading.assumed == ()
    charge = rate("claude-sonnet-4-6", datetime(2026, 8, 1, tzinfo=UTC), block)
    dollars = 280 * Decimal(3) + 90 * Decimal(15) + 55_096 * Decimal("3.75")  # per million tokens
    assert charge.cost == dollars * 10**6


def test_an_advisor_costs_what_its_own_model_costs():
    block = {
        "input_tokens": 2_390,
        "output_tokens": 121,
        "iterations": [
            {"type": "message", "input_tokens": 1_128, "output_tokens": 110},
            {
                "type": "advisor_message",
                "model": "claude-opus-4-8",
                "input_tokens": 2_518,
                "output_tokens": 22,
            },
            {"type": "message", "input_tokens": 1_262, "output_tokens": 11},
        ],
    }
    assert [part.model for part in read_usage(block).parts] == ["", "claude-opus-4-8", ""]
    charge = rate("claude-sonnet-5", datetime(2026, 8, 1, tzinfo=UTC), block)
    sonnet, opus = 2_390 * 2 + 121 * 10, 2_518 * 5 + 22 * 25
    assert charge.cost == (sonnet + opus) * 10**6


FABLE = {"type": "message", "model": "claude-fable-5", "input_tokens": 1_000, "output_tokens": 0}
OPUS = {"type": "fallback_message", "model": "claude-opus-4-8", "input_tokens": 900, "output_tokens": 100}


@pytest.mark.parametrize(
    ("iterations", "billed"),
    [
        ([FABLE, OPUS], [OPUS]),
        ([FABLE, OPUS | {"output_tokens": 0}, OPUS], [OPUS]),
        ([FABLE | {"output_tokens": 1}, OPUS], [FABLE | {"output_tokens": 1}, OPUS]),
        ([FABLE | {"type": "compaction"}, FABLE, OPUS], [FABLE, OPUS]),  # a compaction is no attempt
        ([OPUS, FABLE], [OPUS, FABLE]),  # nothing followed: it was no refusal
        ([FABLE, OPUS | {"output_tokens": 0}], [OPUS | {"output_tokens": 0}]),
    ],
)
def test_an_attempt_refused_before_any_output_is_not_billed(iterations, billed):
    reading = read_usage({"input_tokens": 1, "iterations": iterations})
    wanted = [(one["model"], Vector(one["input_tokens"], one["output_tokens"])) for one in billed]
    assert [(part.model, part.tokens) for part in reading.parts] == wanted


@pytest.mark.parametrize(
    ("named", "called", "served", "own"),
    [
        ("claude-opus-4-8", "us.anthropic.claude-opus-4-8", "", True),
        ("claude-opus-4-6-20260205", "global.anthropic.claude-opus-4-6-v1", "", True),
        ("claude-haiku-4-5", "anthropic.claude-haiku-4-5-20251001-v1:0", "", True),
        ("claude-3-5-sonnet-20240620", "anthropic.claude-3-5-sonnet-20241022-v2:0", "", False),
        ("claude-opus-5", "claude-opus-5-5", "", False),
        ("claude-opus-4-8", "us.anthropic.claude-fable-5", "claude-opus-4-8", False),
        ("claude-opus-4-8", "arn:aws:bedrock:us-east-1:1:x", "", False),
        (
            "claude-opus-4-8",
            "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a",
            "claude-opus-4-8",
            True,
        ),
        ("", "", "", True),
    ],
)
def test_a_pass_is_of_the_model_called_or_of_another(named, called, served, own):
    assert is_own(named, called, served) == own


def test_a_row_of_the_usage_report_is_read_as_a_block():
    report = {"uncached_input_tokens": 7, "cache_read_input_tokens": 5, "output_tokens": 3}
    assert only(report) == Vector(7, 3, 5)


@pytest.mark.parametrize(
    "block",
    [
        {"input_tokens": None, "output_tokens": None},
        {"inputTokens": None},
        {"input": None, "cache_read": None},
        {"prompt_tokens": None, "completion_tokens": None},
    ],
)
def test_a_block_of_nothing_but_nulls_is_unknown_and_not_free(block):
    with pytest.raises(Rejected, match="no counts"):
        read_usage(block)
    read_usage(block | {next(iter(block)): 0})


def test_one_iteration_of_untold_ttl_marks_the_call():
    told = {"cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 5}}
    reading = read_usage({"input_tokens": 1, "iterations": [told, {"cache_creation_input_tokens": 6}]})
    assert [part.tokens for part in reading.parts] == [Vector(cache_write_1h=5), Vector(cache_write_5m=6)]
    assert reading.assumed == ("ttl",)


# --- real bodies -----------------------------------------------------------------------------------


def bodies(shared) -> list[dict]:
    rows = json.loads((shared / "data/usage_objects/usages.json").read_text(encoding="utf-8"))
    return [row["body"] for row in rows if isinstance(row["body"].get("usage"), dict)]


def test_every_real_anthropic_body_reads_with_its_own_totals(shared):
    seen = 0
    for body in bodies(shared):
        usage = body["usage"]
        if "cache_creation_input_tokens" not in usage:
            continue
        seen += 1
        reading = read_usage(usage)
        own = usage | {"iterations": []}
        assert only(own) == Vector(
            usage["input_tokens"],
            usage["output_tokens"],
            usage["cache_read_input_tokens"],
            usage["cache_creation"]["ephemeral_5m_input_tokens"],
            usage["cache_creation"]["ephemeral_1h_input_tokens"],
        )
        assert reading.assumed == ()
        messages = [
            part.tokens
            for part, entry in zip(reading.parts, usage.get("iterations", [{"type": "message"}]), strict=True)
            if entry["type"] == "message"
        ]
        assert sum(messages, Vector()) == only(own)
    assert seen > 100


def test_every_real_converse_body_reads_with_its_own_total(shared):
    seen = 0
    for body in bodies(shared):
        usage = body["usage"]
        if "inputTokens" not in usage:
            continue
        seen += 1
        tokens = only(usage)
        assert tokens.total == usage["totalTokens"]
        assert (tokens.input, tokens.output) == (usage["inputTokens"], usage["outputTokens"])
    assert seen > 100


def test_every_real_openai_style_body_reads_with_its_own_total(shared):
    seen = 0
    for body in bodies(shared):
        usage = body["usage"]
        if "total_tokens" not in usage:
            continue
        seen += 1
        prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
        output = usage.get("completion_tokens", usage.get("output_tokens", 0))
        assert (only(usage).prompt, only(usage).output) == (prompt, output)
    assert seen > 300


def test_openrouters_own_figures_for_claude(shared):
    """Its `cost` is what Anthropic's list comes to, so it checks the reading and the price at once."""
    names = {"claude-4.5-sonnet": "claude-sonnet-4-5", "claude-4.6-sonnet": "claude-sonnet-4-6"}
    seen = 0
    for body in bodies(shared):
        usage = body["usage"]
        model = names.get(str(body.get("model")).removeprefix("anthropic/")[:17])
        if model is None or "cost_details" not in usage:
            continue
        seen += 1
        charge = rate(model, datetime(2026, 8, 1, tzinfo=UTC), usage)
        assert charge.cost == Decimal(repr(usage["cost"])) * 10**12
    assert seen > 10


# --- refusals --------------------------------------------------------------------------------------

BAD_COUNTS: tuple[object, ...] = (
    -1,
    True,
    False,
    1.0,
    1.5,
    "5",
    "",
    [],
    [5],
    {},
    {"tokens": 5},
    float("nan"),
)
COUNTED = [
    "input",
    "cache_write_1h",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "inputTokens",
    "outputTokens",
    "inputTokenCount",
    "prompt_tokens",
    "completion_tokens",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.completion_tokens",
]


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("bad", BAD_COUNTS, ids=repr)
def test_a_count_is_a_whole_number_or_the_record_is_rejected(name, bad):
    assert only({name: 5}).total == 5
    with pytest.raises(Rejected):
        read_usage({name: bad})


ANTHROPIC = {"input_tokens": 1, "output_tokens": 1}
CONVERSE = {"inputTokens": 1, "outputTokens": 1}
OPENAI = {"prompt_tokens": 1, "completion_tokens": 1}


@pytest.mark.parametrize(
    "block",
    [
        {},
        {"tokens": 5},
        {"input": 5, "inputs": 5},
        {"cache_read": 5, 7: 5},
        {"totalTokens": 5},
        {"billed_units": {}, "tokens": {}},
        ANTHROPIC | {"cache_creation": 5},
        ANTHROPIC | {"cache_creation": "x"},
        ANTHROPIC | {"cache_creation": []},
        ANTHROPIC | {"cache_creation": False},
        ANTHROPIC | {"cache_creation": {"ephemeral_5m_input_tokens": "5"}},
        ANTHROPIC | {"cache_creation": {"ephemeral_1h_input_tokens": -5}},
        ANTHROPIC | {"iterations": {}},
        ANTHROPIC | {"iterations": {"input_tokens": 5}},
        ANTHROPIC | {"iterations": "x"},
        ANTHROPIC | {"iterations": 5},
        ANTHROPIC | {"iterations": [1]},
        ANTHROPIC | {"iterations": [None]},
        ANTHROPIC | {"iterations": [{}]},
        ANTHROPIC | {"iterations": [{"type": "message"}]},
        ANTHROPIC | {"iterations": [ANTHROPIC, {"input_tokens": 1.5}]},
        ANTHROPIC | {"iterations": [ANTHROPIC | {"model": 5}]},
        ANTHROPIC | {"iterations": [ANTHROPIC | {"cache_creation": 5}]},
        ANTHROPIC | {"inference_geo": 5},
        ANTHROPIC | {"inference_geo": ["us"]},
        ANTHROPIC | {"input_tokens_details": 5},
        CONVERSE | {"cacheDetails": "x"},
        CONVERSE | {"cacheDetails": 5},
        CONVERSE | {"cacheDetails": {}},
        CONVERSE | {"cacheDetails": {"ttl": "5m", "inputTokens": 5}},
        CONVERSE | {"cacheDetails": [5]},
        CONVERSE | {"cacheDetails": [{"ttl": 5, "inputTokens": 5}]},
        CONVERSE | {"cacheDetails": [{"ttl": "5m", "inputTokens": "5"}]},
        CONVERSE | {"cacheReadInputTokenCount": -5},
        OPENAI | {"prompt_tokens_details": 5},
        OPENAI | {"prompt_tokens_details": [5]},
        OPENAI | {"prompt_tokens_details": {"cached_tokens": "5"}},
        OPENAI | {"prompt_tokens_details": {"cache_creation_token_details": 5}},
        OPENAI | {"cache_creation": "x"},
        [],
        ["input_tokens"],
        "input_tokens",
        5,
        None,
        True,
    ],
    ids=repr,
)
def test_what_is_no_usage_block_is_rejected(block):
    with pytest.raises(Rejected):
        read_usage(block)


def test_a_rejection_tells_which_meters_there_are():
    with pytest.raises(Rejected, match=r"no such meter: cache_wrote \(meters: input, output, cache_read"):
        read_usage({"input": 1, "cache_wrote": 2})


NAMES = (
    *COUNTED,
    *("cache_creation", "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "iterations", "model"),
    *(
        "service_tier",
        "speed",
        "inference_geo",
        "cacheDetails",
        "ttl",
        "cacheReadInputTokens",
        "cacheWriteInputTokens",
    ),
    *("cacheWriteInputTokenCount", "prompt_tokens_details", "input_tokens_details", "cached_tokens"),
    *("cache_creation_token_details", "cache_write_tokens", "gen_ai.usage.cache_read.input_tokens"),
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 100)
    | st.floats(allow_nan=False)
    | st.sampled_from(("", "5m", "us", "x")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=700)
@given(json_values)
def test_any_json_is_read_or_rejected(value):
    try:
        reading = read_usage(value)
    except Rejected:
        return
    assert reading.parts
    for part in reading.parts:
        assert all(count.__class__ is int and count >= 0 for count in part.tokens)
        assert isinstance(part.model, str)


@given(st.fixed_dictionaries({}, optional={meter: st.integers(0, 2**70) for meter in METERS}))
def test_native_blocks_are_taken_as_they_are(block):
    if block:
        assert only(block) == Vector(**block)


# --- ttl settled -----------------------------------------------------------------------------------


def test_settling_the_ttl():
    tokens = Vector(1, 2, 3, 4, 5)
    assert settle_ttl(tokens, ("ttl", "other"), "") == (tokens, ("ttl", "other"))
    assert settle_ttl(tokens, ("ttl", "other"), "5m") == (tokens, ("other",))
    assert settle_ttl(tokens, ("ttl", "other"), "1h") == (Vector(1, 2, 3, 0, 9), ("other",))
    assert settle_ttl(tokens, ("other",), "1h") == (tokens, ("other",))  # told, so not to be settled
