"""What a policy decides for one request, from what it remembers: how far to write, for how long, and where to mark."""

import numpy as np
import pytest

from farthing.cache import FIVE_US, HOUR_US, POLICIES, Policy, Semantics, simulate
from farthing.cache._engine import blank
from tests.test_cache_player import AGENT, MILLION, OTHER, PRICES, player, trait
from tests.test_cache_policies import FABLE_5_1, MINIMUM, MINUTE, SECOND, SONNET, session, trace_of

RULES = Semantics()
DAY = 24 * 60 * MINUTE
AT_ONCE, DOUBTFUL = (
    trait(0),
    trait(3),
)  # comes again in 35 % of cases, which is enough, and in 20 %, which is not


def stage(requests, sizes, system=0, named=1, guards=(), kinds=0):
    """Requests as (microseconds, path of nodes) that are yet to be recognised; nothing is cached or known."""
    each = np.ones(len(requests), np.int64)
    paths = [np.array(path, np.int64) for _, path in requests]
    walk = player.Walk(
        np.array([at for at, _ in requests], np.int64),
        np.cumsum([0, *map(len, paths)]).astype(np.int64),
        np.concatenate(paths),
        np.array(sizes, np.int64),
        each * system,
        each * kinds,
        each * 0,
        each * named,
        np.array([guards] * len(requests), np.int64).reshape(len(requests), len(guards)),
    )
    return walk, player.mind(len(each), len(walk.nodes), len(sizes), 1), blank(len(sizes)), paths


def cached(state, nodes, ttl=FIVE_US, until=DAY):
    """As segments and as entries."""
    for node in nodes:
        state[node] = ttl, until, 0, ttl, until, 0


# --- what is recognised and learned ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "known"), [(DAY, 3), (DAY + 1, 0)])
def test_what_was_sent_is_known_for_a_day(after, known):
    walk, own, state, paths = stage([(0, [0, 1, 2]), (after, [0, 1, 2])], [10, 20, 30])
    assert player.recognise(0, paths[0], walk, state, own, RULES) == 0
    assert player.recognise(1, paths[1], walk, state, own, RULES) == known


@pytest.mark.parametrize(("after", "cold"), [(FIVE_US, 0), (FIVE_US + 1, 1), (HOUR_US, 1), (HOUR_US + 1, 0)])
def test_a_return_is_cold_when_five_minutes_are_over_and_the_hour_is_not(after, cold):
    walk, own, state, paths = stage([(0, [0, 1]), (after, [0, 1])], [10, 20])
    for i in range(2):
        player.recognise(i, paths[i], walk, state, own, RULES)
    assert own.seen[:, player.COLD].tolist() == [cold, cold]


def test_growth_is_what_a_later_turn_sends_for_the_first_time():
    for system, who in ((0, OTHER), (1, AGENT)):
        walk, own, state, paths = stage([(0, [0, 1]), (SECOND, [0, 1, 2])], [10, 20, 400], system)
        for i in range(2):
            player.recognise(i, paths[i], walk, state, own, RULES)
        assert own.grown[who].tolist() == [430, 400]
        assert own.grown[1 - who].tolist() == [0, 0]


@pytest.mark.parametrize(("after", "reused"), [(FIVE_US, 10), (FIVE_US + 1, 0)])
def test_reuse_is_what_comes_again_within_five_minutes(after, reused):
    """The third request comes when the five minutes of the first are over."""
    walk, own, state, paths = stage([(0, [0]), (after, [0]), (after + 2, [1])], [10, 20])
    for i in range(3):
        player.recognise(i, paths[i], walk, state, own, RULES)
    assert own.reuse[0, 3].tolist() == [10, reused]  # of what was not sent before


def test_where_little_is_known_reuse_counts_at_once_and_later_when_five_minutes_are_over():
    for seen, counted in ((49_999, 10), (50_000, 0)):
        walk, own, state, paths = stage([(0, [0]), (SECOND, [0])], [10])
        player.recognise(0, paths[0], walk, state, own, RULES)
        own.reuse[0, 3] = seen, 0
        player.recognise(1, paths[1], walk, state, own, RULES)
        assert own.reuse[0, 3].tolist() == [seen + counted, counted]


def test_tokens_are_told_apart_by_the_guards_before_them_and_whether_they_are_new():
    walk, own, state, paths = stage([(0, range(7)), (SECOND, range(8))], [10] * 8, guards=(2, 4))
    zones = []
    for i in range(2):
        player.recognise(i, paths[i], walk, state, own, RULES)
        zones.append((own.traits[walk.starts[i] : walk.starts[i + 1], 0] // trait(1, length=0)).tolist())
    assert zones == [[3, 3, 3, 4, 4, 5, 5], [0, 0, 0, 1, 1, 2, 2, 5]]


# --- who waits, and comes back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after_s", "slot"),
    [
        (0, 0),
        (285, 0),
        (285.000001, 1),
        (300, 1),
        (570, 1),
        (571, 2),
        (3_586, 13),
        (10_756, 15),
        (90_000, 15),
    ],
)
def test_a_return_counts_in_the_slot_of_the_ping_before_it(after_s, slot):
    walk, own, state, paths = stage([(0, [0, 1]), (round(after_s * SECOND), [0, 1, 2])], [10, 20, 400])
    known = player.recognise(0, paths[0], walk, state, own, RULES)
    player.begin_waiting(0, paths[0], 1, known, walk, own)
    player.come_back(0, 2, walk.at_us[1], walk, own)
    wait = int(own.waits[0, player.WAIT])
    assert own.waited[wait, :, 1].tolist() == [30 if at == slot else 0 for at in range(16)]
    assert own.waited[wait, 0, 0] == 30
    assert own.waited.sum() == 60


def test_who_does_not_walk_the_anchor_has_not_come_back():
    walk, own, state, paths = stage([(0, [0, 1]), (SECOND, [0, 2])], [10, 20, 400])
    player.recognise(0, paths[0], walk, state, own, RULES)
    player.begin_waiting(0, paths[0], 1, 0, walk, own)
    player.come_back(0, 1, walk.at_us[1], walk, own)
    assert own.waited[:, :, 1].sum() == 0


@pytest.mark.parametrize(
    ("guards", "held", "place"),
    [((0, 3), 3, 0), ((1, 3), 3, 1), ((-1, 2), 3, 2), ((2, 3), 1, 1), ((1, 3), -1, 0), ((), 2, 2)],
)
def test_the_anchor_is_the_first_guard_that_is_kept(guards, held, place):
    walk, own, _, paths = stage([(0, [4, 5, 6, 7])], [0] * 4 + [1, 10, 100, 1_000], guards=guards)
    player.begin_waiting(0, paths[0], held, 0, walk, own)
    row = own.waits[0]
    assert (row[player.ANCHOR], row[player.PLACE]) == (4 + place, place)
    assert row[player.DEPTH] == [0, 1, 11, 111, 1_111][held + 1]


@pytest.mark.parametrize(("kind", "same"), [(0, 0), (1, 1), (2, 2), (3, 2), (9, 2)])
def test_waits_are_told_apart_by_who_waits_and_how_the_answer_ended(kind, same):
    for system, known, first in ((0, 0, 0), (0, 1, 6), (1, 1, 12), (1, 2, 18)):
        walk, own, _, paths = stage([(0, [0, 1])], [10, 20], system, kinds=kind)
        player.begin_waiting(0, paths[0], 1, known, walk, own)
        assert own.waits[0, player.WAIT] == first + same


def test_whoever_is_not_there_waits_in_every_slot():
    walk, own, state, _ = stage([(0, [0, 1])], [10_000, 20_000])
    policy = Policy(end_ttl_us=FIVE_US, pings=12)
    billed, pinged = np.zeros((1, 3), np.int64), np.zeros((1, 2), np.int64)
    player.follow(walk, policy, PRICES, MINIMUM, RULES, state, own, billed, pinged)
    assert own.waited[0, :, 0].tolist() == [30_000] * 16


def pings(gaps_s, policy, rates=FABLE_5_1, path=1):
    trace = trace_of(session(gaps_s, path, system=0), size=50_000)
    return simulate(trace, policy, rates, MINIMUM).pings


def test_a_turn_in_the_very_moment_of_a_ping_needs_none():
    policy = POLICIES["pinged_5m"]
    assert pings([285.000001], policy) == pings([285], policy) + 1


def test_no_more_pings_in_a_row_than_allowed():
    for most in (1, 2, 5):
        assert pings([], Policy(end_ttl_us=FIVE_US, pings=most)) == most


def test_what_lives_for_an_hour_is_pinged_by_the_hour():
    """At a fortieth of the input rate: four in a hundred come back each hour, to save a write at the double rate."""
    assert pings([], Policy(end_ttl_us=HOUR_US, pings=12)) == 3
    assert pings([], Policy(end_ttl_us=HOUR_US, pings=2)) == 2


def test_a_prompt_of_one_block_is_kept_alive_too():
    lone = trace_of([(0, 0, ["document"], 0)], size=50_000)
    assert simulate(lone, POLICIES["pinged_5m"], FABLE_5_1, MINIMUM).pings > 0


def test_a_ping_that_just_breaks_even_is_not_sent():
    """23 % of agents come back in the third slot: at these prices that saves what one ping and a half costs."""
    own, wait = player.mind(1, 1, 1, 1), 18
    assert not player.ping_pays(own, wait, 2, 1, 346, player.Prices(46, 346, 0))
    assert player.ping_pays(own, wait, 2, 1, 347, player.Prices(46, 347, 0))


# --- how far to write ------------------------------------------------------------------------------------------------


def reach(traits, sizes, prices=PRICES, known=0, ttl=FIVE_US, *, minimum=1, seen=None, **about):
    """(read, end) of one request whose accesses have these traits."""
    walk, own, state, paths = stage([(0, range(len(traits)))], sizes, **about)
    own.traits[:, 0] = traits
    if seen:
        seen(own, state)
    return player.worth_writing(0, paths[0], known, ttl, walk, prices, minimum, state, own, RULES)


@pytest.mark.parametrize("likely", range(9))
def test_writing_ends_at_a_place_where_it_may_end(likely):
    """At the ends of the system prompt, of what is known and of the prompt, and at guards: not where it were best."""
    traits = [AT_ONCE] * likely + [DOUBTFUL] * (8 - likely)
    sizes = [1_000] * likely + [MILLION] * (8 - likely)
    allowed = [place for place in (1, 3, 5, 6, 7) if place < likely]
    assert reach(traits, sizes, known=4, system=2, guards=(5, 6)) == (-1, max(allowed, default=-1))


def test_what_just_breaks_even_is_not_written():
    """Where reads are free, what comes again once in five times."""
    assert reach([DOUBTFUL], [MILLION], player.Prices(0, 1_250, 2_000)) == (-1, -1)
    assert reach([DOUBTFUL], [MILLION], player.Prices(0, 1_249, 2_000)) == (-1, 0)


def test_the_least_gain_is_a_gain():
    """One token, 200,001 in a million of its kind come again."""

    def seen(own, _):
        own.reuse[0, 3] = 950_000, 190_001

    assert reach([DOUBTFUL], [1], player.Prices(0, 1_250, 2_000), seen=seen) == (-1, 0)


@pytest.mark.parametrize("length", range(13, 19))
@pytest.mark.parametrize(("system", "named", "trusted"), [(1, 1, 15), (1, 0, 17), (0, 1, 24), (0, 0, 24)])
def test_long_new_prompts_of_agents_are_trusted(system, named, trusted, length):
    """From 16,384 tokens where a client says which session it is, else from 65,536."""
    found = reach([trait(3, length=length)] * 2, [2_000] * 2, system=system, named=named)
    assert found == (-1, 1 if length >= trusted else -1)


def test_what_expires_now_can_still_be_read():
    for until, read in ((0, 1), (-1, -1)):
        found = reach(
            [DOUBTFUL] * 3, [2_000] * 3, seen=lambda _, state, until=until: cached(state, [0, 1], until=until)
        )
        assert found == (read, -1)


@pytest.mark.parametrize(
    ("price", "calls", "written"), [(750, 5, True), (889, 5, False), (750, 50, False), (100, 50, False)]
)
def test_what_a_timer_sends_is_thought_to_come_again_three_times_in_four(price, calls, written):
    """And of the fourth those who come back within the hour: 85 % in all. Three cold calls of 50 are no timer."""

    def seen(own, _):
        own.seen[:3, player.COLD], own.seen[0, player.TIMES], own.seen[1:3, player.TIMES] = 3, calls, 5

    found = reach(
        [trait(1)] * 3, [2_000] * 3, player.Prices(price, 1_250, 2_000), known=3, ttl=HOUR_US, seen=seen
    )
    if price == 100:  # a third is thought to come again in any case, and of the rest some within the hour
        assert found == (-1, 2)
    else:
        assert found == (-1, 2 if written else -1)


def test_a_first_turn_is_not_trusted_to_come_back_within_the_hour():
    """Of agents two in three do; but of a first turn nobody knows yet that it is a conversation."""
    assert reach([DOUBTFUL] * 3, [2_000] * 3, known=1, ttl=HOUR_US, system=1, minimum=4_001) == (-1, -1)
    assert reach([DOUBTFUL] * 3, [2_000] * 3, known=2, ttl=HOUR_US, system=1, minimum=4_001) == (-1, 2)


# --- for how long ----------------------------------------------------------------------------------------------------


def life(known, prices=PRICES, lives=player.BY_PAUSES, system=0, seen=None, sizes=(100,) * 4):
    walk, own, state, paths = stage([(0, range(len(sizes)))], sizes, system)
    if seen:
        seen(own, state)
    policy = Policy(end_ttl_us=FIVE_US, lives=lives)
    return player.lifetime(0, paths[0], known, walk, policy, prices, state, own, RULES)


@pytest.mark.parametrize("who", [OTHER, AGENT])
@pytest.mark.parametrize(("seen", "growth"), [(0, 20_000), (1, 510_000)])
def test_an_hour_pays_if_returns_outweigh_what_is_not_read_again(who, seen, growth):
    """In a later turn two in a hundred tokens are new, until as many were seen as are trusted. At par it is 5m."""
    within, never = player.pauses(player.mind(1, 1, 1, 1), who)
    trust = MILLION if who == AGENT else 30 * MILLION

    def grown(own, _):
        own.grown[who] = seen * trust

    at_par = player.Prices(0, never + growth, never + growth + within)
    above = player.Prices(0, never + growth + 1, never + growth + 1 + within)
    assert [life(0, prices, system=who, seen=grown) for prices in (at_par, above)] == [FIVE_US, HOUR_US]


def test_a_conversation_is_written_on_as_it_was():
    """What is alive of it, when that is more than half."""

    def seen(_, state):
        cached(state, [0], HOUR_US)
        cached(state, [1, 2], FIVE_US)

    def longer(_, state):
        cached(state, [0, 1], FIVE_US)
        cached(state, [2], HOUR_US)

    certain = player.Prices(0, MILLION, MILLION + 1)  # an hour costs next to nothing more
    assert life(3, certain, system=1, seen=seen) == FIVE_US
    assert life(3, PRICES, system=1, seen=longer) == HOUR_US
    assert (
        life(3, certain, system=1, seen=seen, sizes=(100, 100, 100, 201)) == HOUR_US
    )  # a half is not enough


def cold(own, node, times):
    own.seen[node, player.COLD], own.seen[0, player.TIMES] = times, times + 1


@pytest.mark.parametrize(("known", "returns", "hour"), [(1, 2, False), (2, 1, False), (2, 2, True)])
def test_a_conversation_that_came_back_twice_too_late_may_get_an_hour(known, returns, hour):
    certain = player.Prices(0, MILLION, MILLION + 1)
    for node in range(3):  # it is the last known that says how often
        found = life(
            known, certain, player.BY_RETURNS, 1, seen=lambda own, _, node=node: cold(own, node, returns)
        )
        assert found == (HOUR_US if hour and node == known - 1 else FIVE_US)


@pytest.mark.parametrize("known", range(4))
def test_what_a_timer_sends_gets_an_hour_whatever_others_do(known):
    never = player.Prices(0, 1, MILLION)
    for node in range(4):
        found = life(known, never, seen=lambda own, _, node=node: cold(own, node, 3))
        assert found == (HOUR_US if node == known - 1 else FIVE_US)


# --- where to mark ---------------------------------------------------------------------------------------------------


def marked(read, end, known=0, *, system=0, guards=(), length=60, rules=RULES):
    walk, _, _, paths = stage([(0, range(length))], [1] * length, system, guards=guards)
    marks, ttls = np.zeros(4, np.int64), np.zeros(4, np.int64)
    policy = Policy(guarded=True)
    count = player.mark_up_to(0, paths[0], read, end, known, HOUR_US, walk, policy, rules, marks, ttls)
    assert ttls[:count].tolist() == [HOUR_US] * count
    return marks[:count].tolist()


@pytest.mark.parametrize(
    ("read", "end", "about", "places"),
    [
        (-1, -1, {}, []),
        (-1, 9, {}, [9]),
        (-1, 9, {"known": 4}, [3, 9]),
        (-1, 9, {"known": 4, "system": 2}, [1, 9]),
        (-1, 9, {"system": 2, "guards": (5, 8)}, [1, 5, 8, 9]),
        (5, 9, {"system": 2, "guards": (5, 8)}, [8, 9]),
        (7, 7, {}, [7]),  # nothing to write: what can be read is looked for
        (0, 0, {}, [0]),
        (0, 20, {}, [0, 20]),  # too far back for the other to find
        (0, 19, {}, [19]),
        (12, 31, {}, [31]),
        (12, 32, {}, [12, 32]),
        (12, 32, {"known": 32}, [12, 31, 32][1:]),
        (12, 59, {"known": 33, "guards": (55, 58)}, [32, 55, 58, 59]),  # a fifth is refused
        (12, 59, {"guards": (55, 58)}, [12, 55, 58, 59]),
        (2, 58, {"guards": (55, 58)}, [2, 55, 58]),
    ],
)
def test_marks_are_where_they_are_read_again_and_one_finds_what_was_written(read, end, about, places):
    assert marked(read, end, **about) == places


@pytest.mark.parametrize(
    ("ttls", "upto", "system", "guards", "places"),
    [
        ((FIVE_US, FIVE_US), 4, 2, (), [1, 3]),
        ((FIVE_US, FIVE_US), 2, 2, (), [1]),  # both are the same place
        ((FIVE_US, FIVE_US), 1, 2, (), [0]),  # only so much was seen
        ((FIVE_US, 0), 4, 2, (), [1]),
        ((FIVE_US, 0), 2, 2, (), [1]),
        ((FIVE_US, 0), 1, 2, (), []),
        ((FIVE_US, 0), 4, 0, (), []),
        ((0, FIVE_US), 4, 2, (), [3]),
        ((0, FIVE_US), 0, 0, (), []),
        ((0, FIVE_US), 3, 0, (-1, 1), [1, 2]),  # too short for the first guard
        ((FIVE_US, FIVE_US), 9, 2, (4, 7), [1, 4, 7, 8]),
        ((FIVE_US, FIVE_US), 9, 5, (4, 7), [4, 7, 8]),  # a guard that is the system prompt's end
        ((FIVE_US, FIVE_US), 8, 2, (4, 7), [1, 4, 7]),
        ((FIVE_US, FIVE_US), 7, 2, (4, 7), [1, 4, 6]),
    ],
)
def test_a_fixed_policy_marks_no_place_twice_and_none_behind_what_was_seen(
    ttls, upto, system, guards, places
):
    walk, _, _, _ = stage([(0, range(10))], [1] * 10, system, guards=guards)
    policy = Policy(ttls[0], ttls[1], guarded=True)
    marks, lives = np.zeros(4, np.int64), np.zeros(4, np.int64)
    count = player.fixed(0, upto, walk, policy, policy.end_ttl_us, marks, lives)
    assert marks[:count].tolist() == places
    assert lives[:count].tolist() == [FIVE_US] * count


def test_a_policy_that_says_nothing_does_nothing():
    assert not any(Policy())
    trace = trace_of(session([10, 10]), size=2_000)
    assert simulate(trace, Policy(), SONNET, MINIMUM).tokens.cached == 0


def test_rows_are_as_many_as_requests_accesses_and_nodes():
    """What a live policy remembers is bounded: twelve numbers by node and access, eight by request, and its sums."""
    own = player.mind(3, 5, 7, 2)
    shapes = {name: column.shape for name, column in own._asdict().items()}
    assert shapes == {
        "seen": (7, 5), "waits": (3, 6), "traits": (5, 2), "reuse": (4, 6 * 4 * 5 * 24, 2), "waited": (24, 16, 2),
        "grown": (2, 2), "newest": (2,), "matured": (1,),
    }  # fmt: skip
    assert {*own.newest, *own.waits.ravel(), *own.seen[:, player.WALKER]} == {-1}  # of requests: none
