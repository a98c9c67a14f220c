"""Batch or cache with hindsight: against every subset of small traces, against both extremes, on a published trace."""

from itertools import product

import numpy as np
import pytest

from farthing.cache import Cards, Trace, bound, hybrid, plan, radix, replay, select, uncached
from farthing.meters import Vector

SONNET = Vector(3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000)
DEARER = Vector(*(2 * rate for rate in SONNET))
HALF = Vector(*(rate // 2 for rate in SONNET))
MINUTE = 60_000_000


def a_trace(seed, count=8):
    """Prompts of one to four nodes in a tree of two branches each, minutes and sometimes hours apart."""
    random = np.random.default_rng(seed)
    names: dict[tuple[int, ...], int] = {}
    paths = []
    for _ in range(count):
        turns = random.integers(0, 2, random.integers(1, 5)).tolist()
        paths.append([names.setdefault(tuple(turns[: k + 1]), len(names)) for k in range(len(turns))])
    gaps = random.choice([0, 1, 4, 5, 6, 20, 59, 61], count, p=[0.1, 0.3, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])
    zero = np.zeros(count, np.int64)
    return Trace(
        at_us=np.cumsum(gaps).astype(np.int64) * MINUTE, namespace=zero, output=random.integers(0, 900, count),
        plain=random.integers(0, 300, count), starts=np.cumsum([0, *map(len, paths)]).astype(np.int64),
        nodes=np.array([node for path in paths for node in path], np.int64),
        sizes=random.integers(200, 3_000, len(names)), system=zero, kinds=zero,
    )  # fmt: skip


def cost_of(trace, cards, chosen):
    """The chosen requests as a batch, all their tokens plain, and the least that the others cost with a cache."""
    sent = Vector(int(trace.prompt[chosen].sum()), int(trace.output[chosen].sum())) @ HALF
    return sent + bound(select(trace, ~chosen), 1_024, Cards(cards.rates, cards.of[~chosen]))


def every_choice(trace, cards, waits):
    chosen = [np.array(one, bool) for one in product(*((False, True) if may else (False,) for may in waits))]
    return [cost_of(trace, cards, one) for one in chosen]


def cards_of(trace, seed):
    """Every second trace has two cards: prices by date, or by size of the prompt."""
    if seed % 2:
        return Cards.one(SONNET, trace)
    return Cards((SONNET, DEARER), np.random.default_rng(seed).integers(0, 2, trace.requests))


def test_no_subset_is_below_the_bound_and_nearly_always_the_cheapest_one_is_found():
    found = closed = 0
    for seed in range(150):
        trace = a_trace(seed)
        waits = np.random.default_rng(seed).random(trace.requests) < (0.5 if seed % 3 else 1)
        cards = cards_of(trace, seed)
        costs = every_choice(trace, cards, waits)
        made = hybrid(trace, 1_024, cards, HALF, waits)
        assert made.bound <= min(costs) <= made.cost <= min(costs[0], costs[-1])
        assert made.cost == cost_of(trace, cards, made.batched)
        assert not made.batched[~waits].any()
        assert made.cost <= 1.03 * min(costs)
        found += made.cost == min(costs)
        closed += (made.cost - made.bound) * 1_000 <= made.cost
    assert found >= 145
    assert closed >= 145


@pytest.mark.parametrize("seed", range(5))
def test_without_a_request_that_may_wait_it_is_the_bound_of_the_cache_alone(seed):
    trace = a_trace(seed, 40)
    cards = cards_of(trace, seed)
    made = hybrid(trace, 1_024, cards, HALF, np.zeros(40, bool))
    assert made.cost == made.bound == bound(trace, 1_024, cards)
    assert not made.batched.any()


def test_what_cannot_be_cached_is_batched():
    trace = a_trace(1, 40)
    made = hybrid(trace, 10**9, Cards.one(SONNET, trace), HALF, np.ones(40, bool))
    assert made.batched.all()
    assert made.cost == made.bound == uncached(trace, Cards.one(HALF, trace))


def test_the_warm_stay_and_the_cold_go():
    """A prefix each minute, where each reads what the one before kept; the others come once in two hours."""
    often, seldom = 30, 6
    count = often + seldom
    at_us = [minute * MINUTE for minute in range(often)] + [(60 + 120 * k) * MINUTE for k in range(seldom)]
    zero = np.zeros(count, np.int64)
    nodes = np.array([0] * often + [1] * seldom, np.int64)
    sizes = np.array([5_000, 5_000], np.int64)
    trace = Trace(np.array(at_us, np.int64), zero, zero, zero, np.arange(count + 1), nodes, sizes, zero, zero)
    made = hybrid(trace, 1_024, Cards.one(SONNET, trace), HALF, np.ones(count, bool))
    assert made.batched.tolist() == [False] * often + [True] * seldom
    assert made.cost == made.bound == 5_000 * (3_750_000 + 29 * 300_000 + 6 * 1_500_000)


def test_an_empty_trace_costs_nothing():
    none = np.zeros(0, np.int64)
    trace = Trace(none, none, none, none, np.zeros(1, np.int64), none, none, none, none)
    assert hybrid(trace, 1_024, Cards.one(SONNET, trace), HALF, none.astype(bool))[:2] == (0, 0)


def test_a_published_trace_comes_to_the_known_shares(shared):
    from farthing.traces import Source, read_traces

    raw = (shared / "data" / "mooncake" / "synthetic_trace.jsonl").read_bytes()
    lines = list(enumerate(raw.splitlines(), 1))
    trace = read_traces([Source("trace", raw[:4_096], lines)], b"k" * 32, "mooncake").trace
    cards = Cards.one(SONNET, trace)
    none = uncached(trace, cards)
    for share, known, within in ((1.0, 0.381, 0.002), (0.5, 0.459, 0.02)):  # which half may wait is drawn
        waits = np.random.default_rng(1).random(trace.requests) < share
        made = hybrid(trace, 1_024, cards, HALF, waits)
        assert made.cost / none == pytest.approx(known, rel=within)
        assert (made.cost - made.bound) * 100_000 <= made.cost
        if share == 1:
            assert made.batched.mean() == pytest.approx(0.56, abs=0.005)
        rest = radix(select(trace, ~made.batched))
        at = Cards.one(SONNET, rest)
        played = at.price(replay(rest, plan(rest, 1_024, at), 1_024))
        assert played <= 1.001 * bound(rest, 1_024, at)
