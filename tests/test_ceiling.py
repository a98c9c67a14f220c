"""A ceiling is never below what the call can cost: text, pictures, PDFs, tools, thinking, writes, long prompts."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.book import Card, Resolved, default_book
from farthing.gateway._ceiling import (
    IMAGE,
    MOST_OUTPUT,
    MOST_PAGES,
    PAGE,
    TOOL_PROMPT,
    TOOLS,
    WINDOW,
    ceiling,
)
from farthing.meters import METERS, Vector
from farthing.rating import find
from farthing.wire import Route, ask

BOOK = default_book()
NOW = datetime(2026, 11, 18, tzinfo=UTC)
SONNET, OPUS, HAIKU = "eu.anthropic.claude-sonnet-4-6", "global.anthropic.claude-opus-5", "claude-haiku-5-5"
MESSAGES, CONVERSE = Route("Messages", "anthropic"), Route("Converse", "bedrock", SONNET)


def most(body, model=SONNET, **how):
    """The ceiling of a Messages body, or of bytes that are one."""
    sent = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return ceiling(ask(MESSAGES, sent), sent, BOOK, BOOK.resolve(model, **how), NOW)


def message(*content, **more):
    return {
        "model": SONNET,
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": list(content) or "Hello"}],
        **more,
    }


def text(said="Hello", **more):
    return {"type": "text", "text": said, **more}


def image(data="aGk=", **source):
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data, **source}}


def pdf(data, **more):
    encoded = base64.b64encode(data).decode()
    return {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": encoded},
        **more,
    }


def size(body):
    return len(json.dumps(body, ensure_ascii=False).encode())


# --- text ------------------------------------------------------------------------------------------------------------


def test_text_has_no_more_tokens_than_bytes_and_output_no_more_than_max_tokens():
    body = message()
    found = most(body)
    assert found.tokens == Vector(input=size(body), output=1000)
    assert found.picos == size(body) * 3_300_000 + 1000 * 16_500_000  # $3.30 and $16.50 a million, in the EU
    assert found.reasons == ()


@given(st.text(max_size=200), st.booleans())
def test_json_never_writes_a_text_in_fewer_bytes_than_it_has(said, escaped):
    """So bytes of the body bound bytes of text, of which every token of a byte-level tokenizer has at least one."""
    if any("\ud800" <= character <= "\udfff" for character in said):
        return
    written = json.dumps(said, ensure_ascii=escaped).encode()
    assert len(written) - 2 >= len(said.encode())


def test_nothing_is_longer_than_the_window():
    body = message(text("word " * 300_000))
    assert size(body) > WINDOW
    assert most(body).tokens.input == WINDOW
    assert most(body, "anthropic.claude-haiku-4-5-20251001-v1:0").tokens.input == 200_000


def test_a_window_is_as_long_as_a_beta_lets_it_be():
    """Sonnet 4.5 has 200,000 tokens, and prices beyond them: who may send more is billed for it."""
    body = message(text("word " * 300_000))
    assert most(body, "anthropic.claude-sonnet-4-5-20250929-v1:0").tokens.input == WINDOW


def test_without_max_tokens_the_model_s_own_limit_counts():
    body = {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}
    sent = json.dumps(body).encode()
    asked = ask(CONVERSE, sent)
    found = ceiling(asked, sent, BOOK, BOOK.resolve(SONNET), NOW)
    assert found.tokens.output == MOST_OUTPUT
    assert found.reasons == (f"no certain max_tokens: {MOST_OUTPUT:,}, which is the most there is",)
    haiku = ceiling(asked, sent, BOOK, BOOK.resolve("anthropic.claude-3-haiku-20240307-v1:0"), NOW)
    assert haiku.tokens.output == 4_096


def test_a_second_max_tokens_of_converse_is_not_trusted():
    body = {
        "messages": [{"role": "user", "content": [{"text": "Hello"}]}],
        "inferenceConfig": {"maxTokens": 10},
        "additionalModelRequestFields": {"max_tokens": 90_000},
    }
    sent = json.dumps(body).encode()
    assert ceiling(ask(CONVERSE, sent), sent, BOOK, BOOK.resolve(SONNET), NOW).tokens.output == MOST_OUTPUT


def test_thinking_is_inside_max_tokens():
    body = message(thinking={"type": "enabled", "budget_tokens": 900})
    assert most(body).tokens.output == 1000


# --- cache writes and long prompts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("marks", "meter"),
    [
        ([None], "input"),
        ([{"type": "ephemeral"}], "cache_write_5m"),
        ([{"type": "ephemeral", "ttl": "5m"}, {"type": "ephemeral", "ttl": "1h"}], "cache_write_1h"),
    ],
)
def test_a_prompt_with_cache_points_may_be_written_at_the_dearest_lifetime_asked_for(marks, meter):
    body = message(*(text(**({"cache_control": mark} if mark else {})) for mark in marks))
    assert most(body).tokens == Vector(output=1000, **{meter: size(body)})


def test_converse_has_cache_points_too():
    body = {
        "messages": [{"role": "user", "content": [{"text": "Hello"}, {"cachePoint": {"type": "default"}}]}],
        "inferenceConfig": {"maxTokens": 10},
    }
    sent = json.dumps(body).encode()
    asked = ask(CONVERSE, sent)
    found = ceiling(asked, sent, BOOK, BOOK.resolve(SONNET), NOW)
    assert found.tokens == Vector(output=10, cache_write_5m=len(sent))


def test_a_prompt_that_may_be_long_is_held_at_the_long_rates():
    """Haiku 5.5 costs five times as much beyond 100,000 tokens of prompt, every token of it."""
    short, long = message(text("a" * 99_000)), message(text("a" * 101_000))
    assert most(short, HAIKU).picos == size(short) * 100_000 + 1000 * 500_000
    assert most(long, HAIKU).picos == size(long) * 500_000 + 1000 * 2_500_000
    assert most(long, HAIKU).reasons == ("may be a long prompt: the rates beyond 100,000 tokens",)


def test_no_band_of_the_book_costs_less_than_the_one_below():
    """Which is why the band of the most tokens is the dearest that a prompt may come to lie in."""
    for card in BOOK.cards():
        if card.prompt_from:
            below = BOOK.find(card.sku, card.starts, card.prompt_from - 1)
            assert isinstance(below, Card)
            assert all(a >= b for a, b in zip(card.rates, below.rates, strict=True)), card.id


# --- pictures and documents ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "cap"), [(SONNET, 1_568), (OPUS, 4_784)])
def test_pictures_count_at_their_cap_and_not_by_their_bytes(model, cap):
    big = "QUJD" * 100_000
    body = message(image(big), image(big), text())
    assert most(body, model).tokens.input == size(body) - 2 * len(big) + 2 * cap
    assert most(body, model).reasons == ("2 pictures, 0 pages of PDF, at their caps",)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        {"image": {"format": "png", "source": {"bytes": "aGk="}}},
        {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://a/b"}}}},
        {"type": "tool_result", "tool_use_id": "t", "content": [image()]},
        {
            "toolResult": {
                "toolUseId": "t",
                "content": [{"image": {"format": "png", "source": {"bytes": "aGk="}}}],
            }
        },
    ],
)
def test_a_picture_counts_wherever_it_stands(block):
    body = message(block)
    assert 0 <= size(body) + IMAGE["v1"] - most(body).tokens.input <= 4  # its data


def test_a_picture_is_found_however_its_name_is_written():
    sent = json.dumps(message(image())).encode().replace(b'"image"', b'"im\\u0061ge"')
    assert most(sent).tokens.input >= IMAGE["v1"]


def test_what_a_tool_was_given_is_text_though_it_looks_like_a_picture():
    call = {"type": "tool_use", "id": "t", "name": "draw", "input": image("QUJD" * 1000)}
    body = message(call)
    assert most(body).tokens.input >= size(body)


def test_a_name_that_stands_twice_hides_nothing():
    hidden = json.dumps(message(*[image()] * 50)).encode()[:-1]
    shown = b'"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]'
    assert most(hidden + b", " + shown + b"}").tokens.input == WINDOW


@pytest.mark.parametrize("depth", [10, 500, 900, 960, 5_000])
def test_what_is_nested_without_end_is_no_fault_of_ours(depth):
    deep = json.dumps(message(image(), text("@"))).replace('"@"', "[" * depth + "]" * depth).encode()
    asked = ask(MESSAGES, b'{"model": "m", "max_tokens": 1}')
    found = ceiling(asked, deep, BOOK, BOOK.resolve(SONNET), NOW)
    assert found.tokens.input == WINDOW if depth == 5_000 else found.tokens.input >= IMAGE["v1"]


def test_a_pdf_counts_text_and_picture_of_every_page():
    three = b"%PDF-1.4 " + b"<< /Type /Page >> " * 3 + b"<< /Type /Pages /Count 3 >>" + b"x" * 5000
    body = message(pdf(three))
    data = len(base64.b64encode(three))
    assert most(body).tokens.input == size(body) - data + 3 * (PAGE + IMAGE["v1"])


@pytest.mark.parametrize("packed", [b"%PDF-1.7 /ObjStm /Type /Page", b"%PDF-1.7 /Encrypt", b"no pdf at all"])
def test_a_pdf_whose_pages_cannot_be_counted_has_as_many_as_may_be(packed):
    """100 on Bedrock; 600 elsewhere, which are more than fit."""
    found = most(message(pdf(packed))).tokens.input
    assert 0 <= found - MOST_PAGES[False] * (PAGE + IMAGE["v1"]) < 1_000
    assert most(message(pdf(packed)), "claude-opus-5").tokens.input == WINDOW


def test_a_document_of_text_is_text_and_any_other_may_fill_the_window():
    plain = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "word " * 100},
    }
    assert most(message(plain)).tokens.input == size(message(plain))
    word = {"document": {"format": "docx", "name": "a", "source": {"bytes": "aGk="}}}
    url = {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}
    for block in (word, url):
        assert most(message(block)).tokens.input == WINDOW


# --- tools, and what has no ceiling ----------------------------------------------------------------------------------


def test_tools_bring_a_prompt_along():
    own = {"name": "get", "input_schema": {"type": "object"}}
    bash = {"type": "bash_20250124", "name": "bash"}
    plain = message(tools=[own])
    assert most(plain).tokens.input == size(plain) + TOOL_PROMPT
    both = message(tools=[own, bash])
    assert most(both).tokens.input == size(both) + TOOL_PROMPT + TOOLS["bash"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "web_search: the service runs it",
        ),
        (
            {"tools": [{"type": "tool_search_tool_regex", "name": "find"}]},
            "tool_search_tool: the service runs it",
        ),
        ({"mcp_servers": [{"type": "url", "url": "https://example.com"}]}, "mcp_servers"),
        ({"fallbacks": [{"model": "claude-opus-5"}]}, "fallbacks"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "compact: the service runs it"),
    ],
)
def test_what_the_service_does_by_itself_has_no_ceiling(more, says):
    found = most(message(**more))
    assert found.picos is None
    assert says in found.reasons[0]
    assert found.tokens.total > 0


def test_edits_that_shorten_the_context_have_one():
    assert most(message(context_management={"edits": [{"type": "clear_tool_uses_20250919"}]})).picos


@pytest.mark.parametrize(
    ("model", "how", "says"),
    [
        ("anthropic.claude-none-1", {}, "unknown model"),
        ("arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc", {}, "not resolved"),
        ("anthropic.claude-opus-4-7", {"mode": "batch"}, "batch"),
    ],
)
def test_what_has_no_price_has_no_ceiling(model, how, says):
    found = most(message(), model, **how)
    assert found.picos is None
    assert says in found.reasons[0]


def test_a_text_that_speaks_of_pictures_and_tools_is_a_text():
    body = message(
        text('{"type": "image", "tools": [{"type": "web_search_20250305"}], "cache_control": "1h"}')
    )
    assert most(body).tokens == Vector(input=size(body), output=1000)


# --- never below -----------------------------------------------------------------------------------------------------

_words = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
_blocks = st.one_of(
    st.builds(text, _words),
    st.builds(lambda said: text(said, cache_control={"type": "ephemeral", "ttl": "1h"}), _words),
    st.just(image("QUJD" * 50)),
)
_models = st.sampled_from([SONNET, OPUS, HAIKU, "anthropic.claude-haiku-4-5-20251001-v1:0"])


@given(st.lists(_blocks, min_size=1, max_size=6), _models, st.integers(0, 5000), st.data())
def test_no_usage_that_the_request_can_have_costs_more(blocks, model, output, data):
    """Any text at a token a byte, pictures at their cap, on the meters that its cache points allow."""
    body = message(*blocks, max_tokens=output)
    found = most(body, model)
    cap = IMAGE["v1" if "4-" in model else "v2"]
    said = sum(len(block["text"].encode()) for block in blocks if block["type"] == "text")
    prompt = said + cap * sum(block["type"] == "image" for block in blocks)
    marked = any("cache_control" in block for block in blocks)
    meters = ["input", "cache_read", "cache_write_5m", "cache_write_1h"] if marked else ["input"]
    used = dict.fromkeys(METERS, 0) | {"output": data.draw(st.integers(0, output))}
    for meter in meters:
        share = data.draw(st.integers(0, prompt))
        used[meter] += share
        prompt -= share
    resolved = BOOK.resolve(model)
    assert isinstance(resolved, Resolved)
    card = find(BOOK, resolved.sku, NOW, Vector(**used))
    assert isinstance(card, Card)
    assert Vector(**used) @ card.rates <= found.picos


def test_no_card_reads_dearer_than_it_takes_in():
    """Which is why a prompt that is not written may be held as if none of it were cached."""
    assert all(card.rates.cache_read <= card.rates.input for card in BOOK.cards())


@pytest.mark.bench
def test_a_request_of_2_kb_takes_microseconds():
    sent = json.dumps(message(text("Hello there, " * 150))).encode()
    asked = ask(MESSAGES, sent)
    resolved = BOOK.resolve(SONNET)
    start = time.perf_counter()
    for _ in range(2_000):
        ceiling(asked, sent, BOOK, resolved, NOW)
    assert (time.perf_counter() - start) / 2_000 < 20e-6
