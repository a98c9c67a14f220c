"""A policy run live decides what it decides in a replay, forgets what is old, and believes the bill."""

import random

import pytest

from farthing.cache import (
    BEST,
    FIVE_US,
    HOUR_US,
    POLICIES,
    Autopilot,
    Refused,
    Request,
    Semantics,
    simulate,
)
from farthing.meters import Vector
from tests.test_cache_policies import MINIMUM, MINUTE, SONNET, session, trace_of, traffic

LIVE = [name for name, policy in POLICIES.items() if not (policy.pads or policy.waits)]
FAR = Semantics(lookback=10**6)  # a replay's nodes are merged, so it looks back over more blocks
TURN = [(f"{n}", 2_000) for n in range(4)]


def requests(trace):
    """Of a trace, as they come: with their namespace, the length of their system prompt and how they end."""
    for i in range(trace.requests):
        path = trace.nodes[trace.starts[i] : trace.starts[i + 1]].tolist()
        steps = [(node, int(trace.sizes[node])) for node in path]
        yield (
            Request(int(trace.at_us[i]), steps, plain=int(trace.plain[i])),
            int(trace.namespace[i]),
            int(trace.system[i]),
            int(trace.kinds[i]),
        )


def run(pilot, trace):
    """The tokens of each request as expected, those of its pings added, and how many pings there were."""
    each: dict[int, list[int]] = {}
    depths: dict[int, list[int]] = {}
    pings = 0
    for asked, space, system, kind in requests(trace):
        for ping in pilot.pings(asked.at_us - 1):
            pings += 1
            each[ping.number][0] += depths[ping.number][ping.position]
        made = pilot.observe(asked, system=system, namespace=space)
        tokens = made.expected
        each[made.number] = [tokens.cache_read, tokens.cache_write_5m, tokens.cache_write_1h, tokens.input]
        total, depths[made.number] = 0, []
        for _, size in asked.path:
            total += size
            depths[made.number].append(total)
        pilot.settle(made.number, kind=kind)
    for ping in pilot.pings(10**18):
        pings += 1
        each[ping.number][0] += depths[ping.number][ping.position]
    return list(each.values()), pings


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", LIVE)
def test_it_decides_what_a_replay_decides(name, seed):
    trace = traffic(seed)
    replayed = simulate(trace, POLICIES[name], SONNET, MINIMUM, FAR)
    each, pings = run(Autopilot(POLICIES[name], SONNET, MINIMUM, FAR), trace)
    told = replayed.each
    columns = (told.cache_read, told.cache_write_5m, told.cache_write_1h, told.input)
    assert [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)] == each
    assert pings == replayed.pings


def test_more_requests_than_it_has_room_for_are_forgotten_and_nothing_that_counts():
    """Two days of conversations, each over after some minutes, in rows for some hours of them."""
    asked = [one for n in range(400) for one in session([30] * 6, 1, 500.0 * n, n)]
    trace = trace_of(asked, size=4_000)
    small = Autopilot(POLICIES[BEST], SONNET, MINIMUM, FAR, most_requests=2_048, most_accesses=16_384)
    large = Autopilot(POLICIES[BEST], SONNET, MINIMUM, FAR)
    assert run(small, trace) == run(large, trace)
    assert small._rooms <= (2_048, 16_384)
    assert len(small._names) < 400 * 9 // 2


def test_more_at_once_than_it_has_room_for_is_taken_all_the_same():
    luck = random.Random(5)
    pilot = Autopilot(POLICIES[BEST], SONNET, MINIMUM, most_requests=64, most_accesses=1_024)
    open_ = []
    for n in range(2_000):
        steps = [((n if k > 1 else luck.randint(0, 3), k), 1_000) for k in range(luck.randint(1, 9))]
        made = pilot.observe(Request(n * 1_000, [(str(name), size) for name, size in steps]))
        assert len(made.breakpoints) <= 4
        assert made.expected.prompt == 1_000 * len(steps)
        open_.append(made.number)
        if luck.random() < 0.5:
            pilot.settle(open_.pop(luck.randrange(len(open_))))
    assert len(pilot._names) <= 1_024
    assert len(pilot._sent) <= 64
    with pytest.raises(ValueError, match="places"):
        pilot.observe(Request(3_000_000, [(str(k), 10) for k in range(300)]))


@pytest.mark.parametrize(
    ("path", "namespace", "gap_us"),
    [
        (lambda n: [(f"{n} {k}", 200) for k in range(18)], lambda _: "", 10_000_000),
        (lambda n: [(f"{n}", 2_000)], lambda n: f"account {n}", 40_000_000),
    ],
)
def test_what_outlives_its_requests_has_room_too(path, namespace, gap_us):
    """Prefixes are known for a day, requests for hours: after a quiet night there are more of the former."""
    pilot = Autopilot(POLICIES[BEST], SONNET, MINIMUM, most_requests=1_024, most_accesses=16_384)
    for n in range(3_000):
        at_us = n * gap_us + (10 * HOUR_US if n > 900 else 0)
        made = pilot.observe(Request(at_us, path(n)), namespace=namespace(n))
        pilot.settle(made.number, made.expected)
        assert len(pilot._names) <= 16_384


def test_the_markers_of_a_client_are_kept_and_learned_from():
    pilot = Autopilot(POLICIES[BEST], SONNET, MINIMUM)
    first = pilot.observe(Request(0, TURN, [(1, HOUR_US)]))
    assert first.breakpoints == ((1, HOUR_US),)
    assert first.expected == Vector(4_000, 0, 0, 0, 4_000)
    pilot.settle(first.number)
    again = pilot.observe(Request(50 * MINUTE, TURN, [(1, HOUR_US)]))
    assert again.expected == Vector(4_000, 0, 4_000)
    with pytest.raises(Refused):
        pilot.observe(Request(51 * MINUTE, TURN, [(0, FIVE_US), (1, HOUR_US)]))


def test_what_the_bill_says_is_not_there_is_written_again():
    pilot = Autopilot(POLICIES["end_5m"], SONNET, MINIMUM)
    for at, billed in ((0, Vector(8_000)), (MINUTE, Vector(0, 10, 0, 8_000))):
        made = pilot.observe(Request(at, TURN))
        assert made.expected == Vector(0, 0, 0, 8_000)
        pilot.settle(made.number, billed)
    assert pilot.observe(Request(2 * MINUTE, TURN)).expected == Vector(0, 0, 8_000)


def test_a_bill_as_expected_changes_nothing_where_a_mark_stood_below_the_minimum():
    pilot = Autopilot(POLICIES["end_5m"], SONNET, MINIMUM)
    whole, start = [("a", 600), ("b", 600)], [("a", 600)]
    for at, path, expected in (
        (0, whole, Vector(0, 0, 0, 1_200)),
        (MINUTE, start, Vector(600)),
        (2 * MINUTE, whole, Vector(0, 0, 1_200)),
    ):
        made = pilot.observe(Request(at, path))
        assert made.expected == expected
        pilot.settle(made.number, made.expected)


def test_an_hour_that_became_five_minutes_on_the_bill_is_not_counted_on():
    pilot = Autopilot(POLICIES["end_1h"], SONNET, MINIMUM)
    made = pilot.observe(Request(0, TURN))
    pilot.settle(made.number, Vector(0, 10, 0, 8_000))
    assert pilot.observe(Request(4 * MINUTE, TURN)).expected == Vector(0, 0, 8_000)
    assert pilot.observe(Request(10 * MINUTE, TURN)).expected == Vector(0, 0, 0, 0, 8_000)


def test_a_call_that_did_not_happen_left_nothing():
    pilot = Autopilot(POLICIES["end_5m"], SONNET, MINIMUM)
    lost = pilot.observe(Request(0, TURN))
    pilot.withdraw(lost.number)
    made = pilot.observe(Request(MINUTE, TURN))
    assert made.expected.cache_write_5m == 8_000
    again = pilot.observe(Request(2 * MINUTE, TURN))
    pilot.withdraw(made.number)  # another has read what it wrote, so it did happen
    assert again.expected.cache_read == 8_000
    assert pilot.observe(Request(3 * MINUTE, TURN)).expected.cache_read == 8_000


def test_pings_are_due_when_they_say_and_are_let_go_where_nobody_asks():
    pilot, late = (Autopilot(POLICIES["pinged_5m"], SONNET, MINIMUM) for _ in range(2))
    turns = list(requests(trace_of(session([30, 30], 1), size=20_000)))
    for asked, space, system, _ in turns:
        for each in (pilot, late):
            each.settle(each.observe(asked, system=system, namespace=space).number)
    due = pilot.next_us
    assert due is not None
    assert pilot.pings(due - 1) == []
    # a slot of each request is looked at; only the last turn is still waited for
    found = pilot.pings(due + MINUTE)
    assert [ping.number for ping in found] == [len(turns) - 1]
    assert found[0].ttl_us == FIVE_US
    later = Request(due + 10 * MINUTE, turns[-1][0].path)
    assert late.observe(later, system=2, namespace=0).expected.cache_read == 0


def test_clocks_may_run_back():
    pilot = Autopilot(POLICIES[BEST], SONNET, MINIMUM)
    for at in (MINUTE, 0, 2 * MINUTE):
        pilot.settle(pilot.observe(Request(at, TURN)).number)
    assert pilot.observe(Request(MINUTE, TURN)).expected.cached == 8_000
