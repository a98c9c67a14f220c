"""Laws of the core: what must hold for any usage, any rates and any call, on every engine."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import Any

import duckdb
import narwhals.stable.v2 as nw
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from farthing.book import FOREVER, START, Card, Resolved, Unpriced, default_book
from farthing.levers import LEVERS
from farthing.meters import METERS, Vector
from farthing.rating import bridge, find, grid, rate, rate_frame, unpriced_frame
from farthing.usage import MODES, PLATFORMS, Rejected, Sku

BOOK = default_book()
CARDS = BOOK.cards()
SKUS = sorted({card.sku for card in CARDS})
TICK = timedelta(microseconds=1)
EDGES = sorted({edge for card in CARDS for edge in (card.starts, card.ends)} - {FOREVER})
SIZES = sorted({card.prompt_from for card in CARDS} - {0})

counts = st.integers(0, 2**35)
vectors = st.builds(Vector, *[st.integers(-(2**40), 2**40)] * 5)
usages = st.builds(Vector, *[counts] * 5)
instants = st.one_of(
    st.builds(lambda edge, ticks: edge + ticks * TICK, st.sampled_from(EDGES), st.integers(-1, 1)),
    st.datetimes(datetime(2023, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
sizes = st.one_of(
    st.builds(lambda size, by: size + by, st.sampled_from(SIZES), st.integers(-1, 1)),
    st.integers(0, 2_000_000),
    st.integers(0, 2**34),
)


@st.composite
def calls_tokens(draw):
    """Tokens of one call; its prompt likes the edges of price bands, and half of the prompts have nothing cached."""
    size = draw(sizes)
    output = draw(st.integers(0, 2**35 - size))
    if draw(st.booleans()):
        return Vector(input=size, output=output)
    a, b, c = sorted(draw(st.integers(0, size)) for _ in range(3))
    return Vector(a, output, b - a, c - b, size - c)


# --- the vector ------------------------------------------------------------------------------------


@given(vectors, vectors, vectors)
def test_price_is_linear_in_usage(q, s, rates):
    assert (q + s) @ rates == q @ rates + s @ rates
    assert (q - s) @ rates == q @ rates - s @ rates


@given(vectors, vectors, vectors)
def test_price_is_linear_in_rates(q, a, b):
    assert q @ (a + b) == q @ a + q @ b


@given(st.integers(-1000, 1000), vectors, vectors)
def test_price_scales(k, q, rates):
    assert Vector(*(k * count for count in q)) @ rates == k * (q @ rates)
    assert -q @ rates == -(q @ rates)


@given(vectors)
def test_a_vector_is_its_meters(q):
    assert Vector.of(lambda meter: getattr(q, meter)) == q
    assert list(q) == [getattr(q, meter) for meter in METERS]
    assert (q.prompt, q.total) == (sum(q) - q.output, sum(q))
    assert q.cached == q.prompt - q.input


@given(usages, counts, st.sampled_from(METERS), st.sampled_from(METERS))
def test_move_conserves_or_refuses(q, count, source, target):
    if count > getattr(q, source):
        with pytest.raises(ValueError, match=f"cannot move {count} tokens"):
            q.move(count, source, target)
        return
    moved = q.move(count, source, target)
    assert moved.total == q.total
    assert min(moved) >= 0
    assert moved.move(count, target, source) == q


@given(usages)
def test_move_takes_all_but_not_one_more_and_no_negative_count(q):
    assert q.move(q.input, "input", "cache_read").input == 0
    for count in (q.input + 1, -1):
        with pytest.raises(ValueError, match="cannot move"):
            q.move(count, "input", "cache_read")


@given(vectors, vectors, vectors, vectors)
def test_bridge_sums_exactly(tokens_from, rates_from, tokens_to, rates_to):
    volume, price = bridge(tokens_from, rates_from, tokens_to, rates_to)
    assert volume + price == tokens_to @ rates_to - tokens_from @ rates_from
    assert bridge(tokens_from, rates_from, tokens_from, rates_to)[0] == 0
    assert bridge(tokens_from, rates_from, tokens_to, rates_from)[1] == 0


# --- the book --------------------------------------------------------------------------------------

any_sku = st.one_of(
    st.sampled_from(SKUS),
    st.builds(
        Sku,
        st.sampled_from((*PLATFORMS, "azure")),
        st.sampled_from((*BOOK.models, "claude-unheard-of")),
        st.sampled_from(("global", "regional", "govcloud", "geo_us", "geo_eu", "")),
        st.sampled_from(("", "extended", "nowhere")),
        st.sampled_from((*MODES, "priority")),
    ),
)


@settings(max_examples=500)
@given(any_sku, instants, sizes, st.booleans())
def test_find_gives_the_one_box_that_holds_a_call_or_why_none_does(sku, at, size, cached):
    holding = [
        card
        for card in CARDS
        if card.sku == sku._replace(terms="")  # this book knows no terms
        and card.starts <= at < card.ends
        and card.prompt_from <= size < card.prompt_to
    ]
    found = BOOK.find(sku, at, size, cached=cached)
    if isinstance(found, Unpriced):
        assert found.reason
        assert not holding or (cached and not holding[0].cached)
    else:
        assert [found] == holding
        assert found.cached or not cached


def test_every_card_is_found_by_its_own_corners():
    for card in CARDS:
        for at in (card.starts, card.ends - TICK):
            for size in (card.prompt_from, card.prompt_to - 1):
                assert BOOK.find(card.sku, at, size, cached=card.cached) == card


# --- one call and a table of them ------------------------------------------------------------------


@cache
def forms() -> list[tuple[str, dict]]:
    """Ways to ask for a call, as `rate` takes them: each model, on each platform, at each endpoint, in each mode."""
    asked: list[tuple[str, dict]] = []
    for model in BOOK.models.values():
        for name in model.ids:
            if name.startswith("anthropic."):
                asked += [
                    (prefix + name, {"mode": mode, "region": region})
                    for prefix in ("", "global.", "us.", "eu.", "us-gov.")
                    for mode in ("", "batch")
                    for region in ("", "us-east-1", "ap-northeast-1")
                ]
            else:
                asked += [
                    (name, {"platform": platform, "mode": mode, "inference_geo": geo})
                    for platform in ("anthropic", "claude_aws")
                    for mode in ("", "batch", "fast")
                    for geo in ("", "us")
                ]
                asked.append((name, {"platform": "bedrock"}))
    return asked


def row(asked: tuple[str, dict], at: datetime, tokens: Vector) -> tuple[dict, int | None]:
    """A call as a row of a table, and what `rate` says it costs."""
    name, said = asked
    resolved = BOOK.resolve(name, **said)
    assert isinstance(resolved, Resolved)
    charge = rate(name, at, dict(zip(METERS, tokens, strict=True)), **said)
    return {**resolved.sku._asdict(), "at": at, **dict(zip(METERS, tokens, strict=True))}, charge.cost


@st.composite
def tables(draw):
    """Rows of calls, each with its cost; some are followed by their own reversal."""
    rows, costs = [], []
    for _ in range(draw(st.integers(1, 25))):
        made, cost = row(draw(st.sampled_from(forms())), draw(instants), draw(calls_tokens()))
        rows.append(made)
        costs.append(cost)
        if draw(st.booleans()):
            rows.append(made | {meter: -made[meter] for meter in METERS})
            costs.append(None if cost is None else -cost)
    return [{"id": i, **made} for i, made in enumerate(rows)], dict(enumerate(costs))


CONNECTION = duckdb.connect()
CONNECTION.execute("SET TimeZone = 'UTC'")
ENGINES: dict[str, Callable[[list[dict]], Any]] = {
    "polars": pl.DataFrame,
    "polars lazy": pl.LazyFrame,
    "pandas": pd.DataFrame,
    "duckdb": lambda rows: CONNECTION.from_arrow(pa.Table.from_pylist(rows)),
}


def records(frame) -> list[dict]:
    frame = nw.from_native(frame)
    frame = frame.collect(backend="pyarrow") if isinstance(frame, nw.LazyFrame) else frame
    return frame.to_arrow().to_pylist()


def check(engine: str, rows: list[dict], costs: dict, lines) -> None:
    """rate_frame and unpriced_frame share the rows out, and price them as `rate` does."""
    make = ENGINES[engine]
    usage, cards = make(rows), make(lines.rows)
    priced = {made["id"]: made for made in records(rate_frame(usage, cards, lines))}
    unpriced = records(unpriced_frame(usage, cards, lines))
    assert {i: made["cost"] for i, made in priced.items()} == {
        i: c for i, c in costs.items() if c is not None
    }
    assert sorted(made["id"] for made in unpriced) == sorted(i for i, c in costs.items() if c is None)
    for made in unpriced:
        assert {name: made[name] for name in METERS} == {name: rows[made["id"]][name] for name in METERS}
    for i, made in priced.items():
        sku = Sku(*(rows[i][name] for name in Sku._fields))
        tokens = Vector(*(abs(rows[i][meter]) for meter in METERS))
        card = find(BOOK, sku, rows[i]["at"], tokens)
        assert isinstance(card, Card)
        assert made["card"] == card.id


WHOLE = grid(BOOK)


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=10)
@given(table=tables())
def test_a_table_costs_what_its_calls_cost(engine, table):
    rows, costs = table
    check(engine, rows, costs, WHOLE)


@cache
def corners() -> tuple[list[dict], dict]:
    """A call in each corner of each card's box, one just outside of it, and the reversals of both."""
    asked = {BOOK.resolve(name, **said)[0]: (name, said) for name, said in forms()}
    made = []
    for card in CARDS:
        for at in {card.starts - TICK, card.starts, card.ends - TICK, card.ends} - {FOREVER}:
            for size in {max(card.prompt_from - 1, 0), card.prompt_from, min(card.prompt_to, 2**34) - 1, 5}:
                tokens = Vector(1, 7, size - 1) if card.cached and size else Vector(size, 7)
                call, cost = row(asked[card.sku], at, tokens)
                made.append((call, cost))
                made.append(
                    (call | {meter: -call[meter] for meter in METERS}, None if cost is None else -cost)
                )
    return [{"id": i, **call} for i, (call, _) in enumerate(made)], {i: c for i, (_, c) in enumerate(made)}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_corners_of_all_boxes(engine):
    rows, costs = corners()
    assert {cost is None for cost in costs.values()} == {True, False}
    check(engine, rows, costs, WHOLE)


@settings(max_examples=10)
@given(table=tables())
def test_a_grid_of_a_few_skus_and_a_span_of_time_prices_the_same(table):
    rows, costs = table
    skus = sorted({Sku(*(made[name] for name in Sku._fields)) for made in rows})
    times = [made["at"] for made in rows]
    lines = grid(BOOK, skus, min(times), max(times) + TICK)
    if lines.rows:
        check("polars", rows, costs, lines)
    else:
        assert set(costs.values()) == {None}


@settings(max_examples=20)
@given(tables())
def test_the_cell_of_a_call_holds_its_card(table):
    rows, costs = table
    held = {tuple(line[name] for name in (*Sku._fields, "era", "band", "cached")) for line in WHOLE.rows}
    for made in rows:
        tokens = Vector(*(abs(made[meter]) for meter in METERS))
        cell = WHOLE.at(made["at"], tokens)
        assert ((*(made[name] for name in Sku._fields), *cell) in held) == (costs[made["id"]] is not None)


def test_no_cell_holds_two_cards():
    cells = [tuple(line[name] for name in (*Sku._fields, "era", "band", "cached")) for line in WHOLE.rows]
    assert len(cells) == len(set(cells))
    assert grid(BOOK, (), START, FOREVER) == WHOLE


# --- levers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lever", LEVERS.values(), ids=attrgetter("name"))
@pytest.mark.parametrize("way", ["rewrite", "undo"])
@given(st.sampled_from(SKUS), usages)
def test_levers_make_and_destroy_no_tokens(lever, way, sku, tokens):
    rewritten = getattr(lever, way)(sku, tokens)
    if rewritten is None:
        return
    target, moved = rewritten
    assert (moved.total, moved.output) == (tokens.total, tokens.output)
    assert min(moved) >= 0
    assert target.platform == sku.platform
    if lever.exact:
        assert moved == tokens


@given(st.sampled_from(SKUS), usages)
def test_what_a_lever_did_can_be_undone_to_where_it_was(sku, tokens):
    for name in ("endpoint", "batch"):
        done = LEVERS[name].rewrite(sku, Vector(tokens.input, tokens.output))
        if done is not None:
            assert LEVERS[name].undo(*done) == (sku, Vector(tokens.input, tokens.output))


# --- rate ------------------------------------------------------------------------------------------


@given(st.sampled_from(forms()), instants, calls_tokens(), calls_tokens())
def test_a_charge_has_a_cost_or_a_reason(asked, at, a, b):
    name, said = asked
    charge = rate(name, at, dict(zip(METERS, a, strict=True)), **said)
    assert (charge.cost is None) == bool(charge.unpriced)
    assert charge.book == BOOK.digest
    if charge.cost is not None:
        assert charge.cost == sum(line.tokens @ line.card.rates for line in charge.lines) >= 0
        assert sum(line.tokens.total for line in charge.lines) == a.total


@given(st.sampled_from(forms()), instants)
@example(("global.anthropic.claude-sonnet-4-6", {}), datetime(2026, 5, 29, tzinfo=UTC))
def test_nothing_used_costs_nothing_or_has_no_price(asked, at):
    charge = rate(asked[0], at, {"input": 0}, **asked[1])
    assert charge.cost == 0 or charge.unpriced


@pytest.mark.parametrize(
    ("model", "usage", "usd"),
    [  # FORMATS.md 3.3: lines of real bills; thousands of tokens, and what AWS charged for them
        ("eu.anthropic.claude-sonnet-4-6", {"output": 68_579}, "1.131"),
        ("us.anthropic.claude-sonnet-4-6", {"cache_write_5m": 831_740}, "3.4309"),
        ("jp.anthropic.claude-sonnet-4-6", {"input": 17_330}, "0.0572"),
        ("anthropic.claude-sonnet-4-6", {"cache_read": 5_372_659}, "1.77297747"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", {"input": 29_481}, "0.0972873"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", {"output": 31_102}, "0.513183"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", {"cache_write_5m": 433_893}, "1.789808625"),
        ("global.anthropic.claude-opus-5", {"output": 10_666_360}, "266.6590"),
        ("global.anthropic.claude-opus-5", {"cache_read": 3_564_377_450}, "1782.1887"),
        ("anthropic.claude-opus-4-8", {"cache_write_5m": 1_629_500}, "11.2029"),
    ],
)
def test_lines_of_real_bills(model, usage, usd):
    charge = rate(model, datetime(2026, 8, 12, tzinfo=UTC), usage)
    assert charge.cost is not None
    last_digit = Decimal(1).scaleb(-len(usd.partition(".")[2]))
    assert abs(Decimal(charge.cost).scaleb(-12) - Decimal(usd)) < last_digit  # some of the quotes are cut off


def test_a_call_with_one_part_without_a_price_has_none():
    block = {
        "input_tokens": 5,
        "iterations": [{"input_tokens": 5}, {"input_tokens": 7, "model": "claude-unheard-of"}],
    }
    charge = rate("claude-opus-5", datetime(2026, 9, 1, tzinfo=UTC), block)
    assert charge.cost is None
    assert "unknown model 'claude-unheard-of'" in charge.unpriced


@pytest.mark.parametrize(
    ("ttl", "write", "assumed"), [("", "4.125", ("ttl",)), ("5m", "4.125", ()), ("1h", "6.6", ())]
)
def test_rate_settles_the_ttl_as_reports_do(ttl, write, assumed):
    block = {"inputTokens": 1, "outputTokens": 0, "cacheWriteInputTokens": 1_000}
    assume = {"ttl": ttl} if ttl else {}
    charge = rate("us.anthropic.claude-sonnet-4-6", datetime(2026, 9, 1, tzinfo=UTC), block, assume=assume)
    assert charge.cost == int((Decimal(write) * 1_000 + Decimal("3.3")) * 10**6)
    assert charge.assumed == assumed


def test_rate_rejects_what_is_no_usage():
    with pytest.raises(Rejected):
        rate("claude-opus-5", datetime(2026, 9, 1, tzinfo=UTC), {})
