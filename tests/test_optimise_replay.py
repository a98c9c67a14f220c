"""A trace sent in other ways: calls batched where that costs less, and put in the order of their prefixes."""

from datetime import UTC, datetime
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.book import default_book
from farthing.cache import FIVE_US, Policy, Trace
from farthing.meters import Vector
from farthing.optimise._replay import Stage, Way, days, resampled
from farthing.optimise._traffic import Traffic
from farthing.usage import Sku

SONNET = Sku("bedrock", "claude-sonnet-4-6", "global", "", "on_demand")
AT = datetime(2026, 9, 10, tzinfo=UTC)
MINUTE = 60_000_000
END = Policy(end_ttl_us=FIVE_US)
HOUR = 60 * MINUTE


def traffic(calls, waits):
    """Calls as (minute, prefix, tokens of their own, output): a prefix has 5,000 tokens, and what follows is new."""
    calls = sorted(calls)
    count = len(calls)
    sizes = np.array([5_000] * 4 + [own for _, _, own, _ in calls], np.int64)
    nodes = np.array([node for i, call in enumerate(calls) for node in (call[1], 4 + i)], np.int64)
    zero = np.zeros(count, np.int64)
    first = round(datetime(2026, 9, 7, tzinfo=UTC).timestamp()) * 1_000_000
    trace = Trace(
        at_us=np.array([first + call[0] * MINUTE for call in calls], np.int64), namespace=zero,
        output=np.array([call[3] for call in calls], np.int64), plain=zero, starts=np.arange(count + 1) * 2,
        nodes=nodes, sizes=sizes, system=zero + 1, kinds=zero,
    )  # fmt: skip
    billed = Vector(trace.prompt, trace.output, zero, zero, zero)
    return Traffic(
        trace, billed, np.arange(count), count, np.array(waits[:count], bool), Policy(), "bodies", ()
    )


def stage(calls, waits):
    return Stage(default_book(), traffic(calls, waits), SONNET, AT)


call = st.tuples(st.integers(0, 90), st.integers(0, 3), st.integers(1, 4_000), st.integers(0, 2_000))
calls_ = st.lists(call, min_size=1, max_size=6)
waits_ = st.lists(st.booleans(), min_size=6, max_size=6)
system = Policy(system_ttl_us=FIVE_US)


@settings(max_examples=60, deadline=None)
@given(calls_, waits_)
def test_what_is_batched_costs_no_more_than_all_or_none_and_no_less_than_the_bound(calls, waits):
    played = stage(calls, waits)
    trace, may = played.traffic.trace, played.traffic.deferrable
    mixed = played.play(Way(system, batch=True)).cost
    every = [
        np.array(chosen, bool)
        for chosen in product(*[(False, True) if one else (False,) for one in may.tolist()])
    ]

    def cost(chosen):
        batched = Vector(int(trace.prompt[chosen].sum()), int(trace.output[chosen].sum())) @ played.batched
        return played._sent(Way(system), chosen).cost + batched

    costs = [cost(chosen) for chosen in every]
    best = played.optimum()
    assert best.bound <= min(costs) <= mixed <= min(costs[0], costs[-1], cost(best.batched))
    assert played.least(batch=True) <= best.bound * (1 + 1e-6)  # its prices are whole picodollars
    assert played.least(batch=True) <= min(costs)
    assert played.least() <= played.play(Way(system)).cost


def test_of_warm_and_cold_calls_the_cold_ones_are_batched():
    warm = [(minute, 0, 50, 20) for minute in range(0, 60, 2)]
    cold = [(minute, 1 + minute % 3, 50, 20) for minute in range(1, 60, 8)]
    played = stage(warm + cold, [True] * 60)
    one, all_, none = (
        played.play(way).cost for way in (Way(system, batch=True), Way(Policy(), batch=True), Way(system))
    )
    assert one < all_
    assert one < none


@settings(max_examples=40, deadline=None)
@given(calls_, waits_)
def test_an_order_changes_when_calls_are_sent_and_nothing_else(calls, waits):
    played = stage(calls, waits)
    assert played.play(Way(Policy(), window_us=HOUR)).cost == played.play(Way(Policy())).cost
    kept = played._times(HOUR)
    waiting = played.traffic.deferrable
    trace = played.traffic.trace
    assert (kept[~waiting] == trace.at_us[~waiting]).all()
    assert (kept[waiting] >= trace.at_us[waiting]).all()
    assert (kept[waiting] <= trace.at_us[waiting] + HOUR).all()


def test_none_of_many_calls_waits_longer_than_it_may():
    calls = [(minute // 100, minute % 4, 50, 20) for minute in range(6_000)]
    played = stage(calls, [True] * len(calls))
    late = played._times(HOUR) - played.traffic.trace.at_us
    assert late.min() >= 0
    assert late.max() <= HOUR


def test_calls_in_the_order_of_their_prefixes_read_what_the_first_one_wrote():
    calls = [(minute * 10, minute % 4, 50, 20) for minute in range(24)]
    played = stage(calls, [True] * 24)
    asis, ordered = played.play(Way(system)).cost, played.play(Way(system, window_us=24 * HOUR)).cost
    assert ordered < asis
    assert played.play(Way(system, window_us=24 * HOUR, batch=True)).cost <= ordered


def test_the_same_sessions_have_the_same_interval_and_more_of_them_a_narrower_one():
    def spread(copies):
        calls = [
            (minute + 200 * copy, 0, 50 + 40 * copy % 700, 20)
            for copy in range(copies)
            for minute in (0, 3, 9, 30)
        ]
        ratio = stage(calls, [False] * 6 + [False] * len(calls)).ratio(system)
        assert ratio.low <= ratio.mid <= ratio.high
        return (ratio.high - ratio.low) / ratio.whole

    assert spread(4) == spread(4)
    assert spread(40) < spread(4)


def calls_of_five_days(together):
    """A hundred calls a day, of which fifty of all find their prefix cached: on the third day, or ten on each."""
    calls = []
    for day in range(5):
        for number in range(100):
            soon = number % 10 == 7 if not together else day == 2 and number % 2
            at = day * 24 * 60 + number * 12 - (9 if soon else 0)
            calls.append((at, 0, 50 + number, 20))
    return stage(calls, [False] * len(calls))


def test_an_effect_that_lives_on_one_day_widens_the_interval():
    def width(found):
        return (found.high - found.low) / found.whole

    alike, unlike = calls_of_five_days(together=False), calls_of_five_days(together=True)
    before, after = unlike.today(), unlike.play(system)
    by_session = resampled(before.each, after.each, (unlike.traffic.cluster,))
    assert len(set(days(unlike.traffic).tolist())) == 5
    found = unlike.ratio(system)
    assert width(found) > 1.5 * (by_session[1] - by_session[0])
    assert width(found) > 1.5 * width(alike.ratio(system))
    assert found == calls_of_five_days(together=True).ratio(system)


def test_within_one_day_sessions_alone_make_the_interval():
    played = stage([(minute * 3, minute % 2, 50, 20) for minute in range(60)], [False] * 60)
    before, after = played.today(), played.play(system)
    found = played.ratio(system)
    low, high = resampled(before.each, after.each, (played.traffic.cluster,))
    assert (found.low, found.high) == (int(low * found.whole), int(high * found.whole))


def test_the_bill_is_what_a_replay_is_measured_by():
    played = stage([(0, 0, 100, 10), (1, 0, 100, 10)], [False] * 6)
    assert played.error() == (0, played.billed().cost)
    assert played.calibrated()
    off = Stage(
        default_book(),
        played.traffic._replace(billed=Vector(*(column // 2 for column in played.traffic.billed))),
        SONNET,
        AT,
    )
    assert not off.calibrated()
    part, whole = off.error()
    assert part == pytest.approx(whole, rel=0.01)
