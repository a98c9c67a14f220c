"""The bound and the plan: against slow ones that try everything, against each other, against figures known before."""

import random
from functools import cache
from itertools import combinations
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cache import Cards, Trace, bound, plan, radix, saved, uncached
from farthing.cache._machine import Request, bill, replay
from farthing.cache._plan import _best
from farthing.meters import Vector
from farthing.traces import rows

SECOND = 1_000_000
FIVE, HOUR = 300 * SECOND, 3600 * SECOND
SONNET = Vector(3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000)
OPUS_5_5 = SONNET._replace(cache_read=150_000)
FABLE_5_1 = SONNET._replace(cache_read=75_000)
DEAR_READS = SONNET._replace(cache_read=2_900_000)  # no model's: reading hardly pays


def trace_of(*requests, sizes):
    """Requests as (seconds, path of nodes), in order of time."""
    paths = [path for _, path in requests]
    count = len(requests)
    zero = np.zeros(count, np.int64)
    return Trace(
        at_us=np.array([round(at * SECOND) for at, _ in requests], np.int64),
        namespace=zero,
        output=zero,
        plain=zero,
        starts=np.cumsum([0, *map(len, paths)]).astype(np.int64),
        nodes=np.array([node for path in paths for node in path], np.int64),
        sizes=np.array(sizes, np.int64),
        system=zero,
        kinds=zero,
    )


def a_node(gaps, size=2_000):
    """One prefix, sent at the start and after each gap."""
    times = np.cumsum([0, *gaps]).astype(np.int64)
    return trace_of(*((0, [0]) for _ in times), sizes=[size])._replace(at_us=times)


def at_best(trace, rates, minimum=1_024, **how):
    return bound(trace, minimum, Cards.one(rates, trace), **how)


def by_engine(trace, rates, minimum=1_024):
    """What is left of the cost without a cache, by the window functions on DuckDB."""
    con = duckdb.connect()
    con.register("log", rows(trace))
    picos = saved(con.table("log"), rates, minimum).fetchall()[0][0] or 0
    return uncached(trace, Cards.one(rates, trace)) - int(picos)


# --- one node ------------------------------------------------------------------------------------------------------

GAPS = st.sampled_from(
    [0, SECOND, FIVE - 1, FIVE, FIVE + 1, 2 * FIVE, 7 * FIVE, HOUR - 1, HOUR, HOUR + 1, 3 * HOUR]
)
RATES = st.sampled_from([SONNET, OPUS_5_5, FABLE_5_1, DEAR_READS])


def slowly(times, rates, pings=False):
    """A token of one node, by trying: what to do with it each time it is sent, and how long to keep it up."""

    @cache
    def rest(i, ttl, expires):
        if i == len(times):
            return 0
        if expires >= times[i]:
            return rates[i].cache_read + kept(i, ttl)
        return min(
            rates[i].input + rest(i + 1, 0, -1),
            rates[i].cache_write_5m + kept(i, FIVE),
            rates[i].cache_write_1h + kept(i, HOUR),
        )

    def kept(i, ttl):
        options = [rest(i + 1, ttl, times[i] + ttl)]
        if pings and i + 1 < len(times):
            needed = max(0, -(-(times[i + 1] - times[i]) // ttl) - 1)
            options.append(needed * rates[i].cache_read + rest(i + 1, ttl, times[i] + (needed + 1) * ttl))
        return min(options)

    return rest(0, 0, -1)


@settings(max_examples=40)
@given(gaps=st.lists(GAPS, max_size=9), rates=RATES)
def test_a_node_costs_the_least_there_is(gaps, rates):
    trace = a_node(gaps)
    least = 2_000 * slowly(trace.at_us.tolist(), [rates] * trace.requests)
    assert at_best(trace, rates) == least
    if rates == DEAR_READS:
        with pytest.raises(ValueError, match="does not pay for two requests"):
            by_engine(trace, rates)
    else:
        assert by_engine(trace, rates) == least


@given(gaps=st.lists(GAPS, max_size=9), rates=RATES)
def test_pings_bridge_a_gap_where_that_pays(gaps, rates):
    trace = a_node(gaps)
    least = 2_000 * slowly(trace.at_us.tolist(), [rates] * trace.requests, pings=True)
    assert at_best(trace, rates, pings=True) == least <= at_best(trace, rates)


@given(gaps=st.lists(GAPS, min_size=1, max_size=7), data=st.data())
def test_rates_may_differ_from_request_to_request(gaps, data):
    trace = a_node(gaps)
    cards = (SONNET, Vector(*(5 * rate for rate in SONNET)))
    of = data.draw(st.lists(st.integers(0, 1), min_size=trace.requests, max_size=trace.requests))
    found = bound(trace, 1_024, Cards(cards, np.array(of, np.int64)))
    # A prompt's size does not change what is cached, so skipping a read is the only other way; it never pays here.
    assert found <= 2_000 * slowly(trace.at_us.tolist(), [cards[card] for card in of])
    if len(set(of)) == 1:
        assert found == at_best(trace, cards[of[0]])


def test_a_million_times_the_same():
    """Written once and read ever after; the sum is beyond 64 bits, and exact."""
    times, size = 1_000_000, 50_000_000
    trace = a_node([SECOND] * (times - 1), size)
    least = size * (SONNET.cache_write_5m + (times - 1) * SONNET.cache_read)
    assert least > 2**63
    assert at_best(trace, SONNET) == by_engine(trace, SONNET) == least
    made = plan(trace, 1_024, Cards.one(SONNET, trace))
    assert Cards.one(SONNET, trace).price(replay(trace, made, 1_024)) == least


def test_a_session_over_months():
    """Each return after days is written anew or sent plain; times are microseconds since 1970."""
    month = 30 * 24 * HOUR
    trace = a_node([month, SECOND, month, month, 2 * SECOND, 3 * SECOND])
    trace = trace._replace(at_us=trace.at_us + 1_760_000_000 * SECOND)
    plain, pair, triple = SONNET.input, 3_750_000 + 300_000, 3_750_000 + 600_000
    assert at_best(trace, SONNET) == by_engine(trace, SONNET) == 2_000 * (2 * plain + pair + triple)


def test_one_request_has_nothing_to_save():
    trace = a_node([])
    assert at_best(trace, SONNET) == by_engine(trace, SONNET) == 2_000 * 3_000_000
    assert not len(plan(trace, 1_024, Cards.one(SONNET, trace)).positions)


def test_reads_dearer_than_tokens_are_refused():
    with pytest.raises(ValueError, match="a cache read costs more"):
        at_best(a_node([SECOND]), SONNET._replace(cache_read=3_000_001))


def test_engines_leave_writes_cheaper_than_tokens_to_the_other_way():
    cheap = SONNET._replace(cache_write_1h=2_900_000)
    assert at_best(a_node([SECOND]), cheap) == 2_000 * (2_900_000 + 300_000)
    with pytest.raises(ValueError, match="a cache write costs less"):
        by_engine(a_node([SECOND]), cheap)


# --- trees ---------------------------------------------------------------------------------------------------------


def a_tree(seed, requests=6, depth=3, width=2, sizes=(100, 600, 1_500), gaps=(10, 200, 400, 1_000, 4_000)):
    """Requests that walk a small tree: node numbers name their paths, so that no node has two parents."""
    chance = random.Random(seed)
    ids: dict[tuple[int, ...], int] = {}
    found, at = [], 0
    for _ in range(requests):
        at += chance.choice(gaps)
        path = tuple(chance.randrange(width) for _ in range(chance.randint(1, depth)))
        found.append((at, [ids.setdefault(path[: i + 1], len(ids)) for i in range(len(path))]))
    return trace_of(*found, sizes=[chance.choice(sizes) for _ in ids])


@pytest.mark.parametrize("seed", range(40))
def test_blocks_that_go_together_cost_what_one_does(seed):
    trace = a_tree(seed, requests=30, depth=8)
    assert at_best(trace, SONNET) == at_best(radix(trace), SONNET)
    assert by_engine(trace, SONNET) == by_engine(radix(trace), SONNET) == at_best(trace, SONNET)


def test_what_is_below_the_minimum_is_cached_with_what_reaches_it():
    """Tools of 600 tokens under two questions of 500: each question is a prefix of 1,100, with its own tools."""
    trace = trace_of((0, [0, 1]), (1, [0, 2]), (2, [0, 1]), (3, [0, 2]), (4, [0]), sizes=[600, 500, 500])
    twice = 1_100 * (SONNET.cache_write_5m + SONNET.cache_read)
    assert at_best(trace, SONNET) == by_engine(trace, SONNET) == 2 * twice + 600 * SONNET.input


@pytest.mark.parametrize("seed", [7, 8])
def test_spark_finds_what_duckdb_finds(spark, seed):
    """Some requests come at once, and some exactly when a life ends."""
    trace = a_tree(seed, requests=200, depth=6, gaps=(0, 0, 10, 200, 300, 400, 3_600, 4_000))
    table = rows(trace)
    log = spark.createDataFrame(
        list(zip(*(table[name].to_pylist() for name in table.column_names), strict=True)), table.column_names
    )
    picos = saved(log, SONNET, 1_024).collect()[0]["picos"]
    assert picos > 0
    left = uncached(trace, Cards.one(SONNET, trace)) - int(picos)
    assert left == by_engine(trace, SONNET) == at_best(trace, SONNET)


# --- every plan there is -------------------------------------------------------------------------------------------


def choices(length):
    """Every set of up to four breakpoints on a path, with every order of lifetimes that the API takes."""
    for count in range(min(length, 4) + 1):
        for positions in combinations(range(length), count):
            for hours in range(count + 1):
                yield tuple((at, HOUR if i < hours else FIVE) for i, at in enumerate(positions))


def optimum(trace, rates, minimum):
    """The cheapest of all plans: every choice for every request, states that are the same kept once."""
    states: dict[Any, tuple[int, Any]] = {(): (0, {})}
    for i in range(trace.requests):
        nodes = trace.nodes[trace.starts[i] : trace.starts[i + 1]].tolist()
        path = [(node, int(trace.sizes[node])) for node in nodes]
        reached: dict[Any, tuple[int, Any]] = {}
        for cost, state in states.values():
            for chosen in choices(len(path)):
                billed, after = bill(state, Request(int(trace.at_us[i]), path, chosen), minimum)
                total = cost + billed.tokens @ rates
                key = tuple(sorted(after.items()))
                if key not in reached or total < reached[key][0]:
                    reached[key] = total, after
        states = reached
    return min(cost for cost, _ in states.values())


@pytest.mark.parametrize("seed", range(24))
def test_no_plan_beats_the_bound_and_ours_is_near(seed):
    trace = a_tree(seed, requests=4, depth=2)
    cards = Cards.one(SONNET, trace)
    least = optimum(trace, SONNET, 1_024)
    ours = cards.price(replay(trace, plan(trace, 1_024, cards), 1_024))
    assert at_best(trace, SONNET) <= least <= ours
    assert ours * 100 <= least * 101


def test_parent_for_five_minutes_child_for_an_hour():
    """The parent is sent all the time, its child every ten minutes: apart, one wants 5m and the other 1h."""
    asks = [(60 * i, [0, 1] if i % 10 == 0 else [0]) for i in range(60)]
    trace = trace_of(*asks, sizes=[5_000, 5_000])
    cards = Cards.one(SONNET, trace)
    made = plan(trace, 1_024, cards)
    ours, least = cards.price(replay(trace, made, 1_024)), at_best(trace, SONNET)
    assert made.ttl_us[:1].tolist() == [
        HOUR
    ]  # the parent gives in: that costs 0.75 of its 5,000 tokens, once
    assert ours - least == 5_000 * (SONNET.cache_write_1h - SONNET.cache_write_5m)


@pytest.mark.parametrize("seed", range(30))
def test_plans_are_ones_the_api_takes(seed):
    """`replay` refuses a fifth breakpoint, 5m before 1h, a place outside the prompt."""
    trace = a_tree(seed, requests=60, depth=9, width=3, sizes=(300, 900, 2_500))
    cards = Cards.one(SONNET, trace)
    ours = cards.price(replay(trace, plan(trace, 1_024, cards), 1_024))
    assert at_best(trace, SONNET) <= ours <= uncached(trace, cards)
    assert ours * 100 <= at_best(trace, SONNET) * 106


def test_of_many_places_the_four_that_are_read_most():
    """Six requests will part from one prompt in six places; the last and the three heaviest before it stay."""
    wanted = {0: 1, 1: 50, 2: 1, 3: 40, 4: 30, 9: 20}
    depths = [1_000 * (at + 1) for at in sorted(wanted)]
    kept = _best(sorted(wanted), {9}, wanted, depths)
    assert kept == [1, 3, 4, 9]


# --- figures known before ------------------------------------------------------------------------------------------


def of_data(path):
    """A trace of the shared data, merged, and its cards."""
    from farthing.cli._opened import sources as _sources
    from farthing.traces import read_traces

    faults: list[str] = []
    log = read_traces(_sources(str(path), faults), b"key")
    assert not faults
    trace = radix(log.trace)
    return trace, Cards.one(SONNET, trace)


@pytest.mark.parametrize(
    ("path", "none", "least", "pinged"),
    [
        ("mooncake/synthetic_trace.jsonl", "192.52", "99.46", "93.13"),
        ("claude_code_kv_traces/sessions.jsonl.gz", "3363.48", "593.22", "569.08"),
    ],
)
def test_real_traces_cost_what_they_did(shared, path, none, least, pinged):
    """Figures of an earlier program, written apart from this one; a plan within a thousandth of the bound."""
    trace, cards = of_data(shared / "data" / path)

    def dollars(picos):
        return f"{picos / 10**12:.2f}"

    lowest = bound(trace, 1_024, cards)
    assert dollars(uncached(trace, cards)) == none
    assert dollars(lowest) == least
    assert dollars(bound(trace, 1_024, cards, pings=True)) == pinged
    assert by_engine(trace, SONNET) == lowest
    ours = cards.price(replay(trace, plan(trace, 1_024, cards), 1_024))
    assert lowest <= ours <= lowest + lowest // 1_000
