"""What policies decide by: how long they wait, what they think before anything was seen, and how they learn."""

from fractions import Fraction
from types import FunctionType, SimpleNamespace

import numpy as np
import pytest

from farthing.cache import POLICIES, Semantics, simulate
from farthing.cache import _player as compiled
from farthing.cache._engine import blank
from tests.test_cache_policies import (
    FABLE_5_1,
    MINIMUM,
    MINUTE,
    OPUS_5_5,
    SECOND,
    SONNET,
    every_answer,
    session,
    trace_of,
    traffic,
)


def in_python(module):
    """The same functions, not compiled: for a handful of calls that is quicker."""
    names = dict(vars(module))
    for name, function in list(names.items()):
        plain = getattr(function, "py_func", None)
        if plain and plain.__module__ == module.__name__:
            names[name] = FunctionType(plain.__code__, names, name, plain.__defaults__)
    return SimpleNamespace(**names)


player = in_python(compiled)
MILLION = 1_000_000
TRUST, WAIT_TRUST = 50_000, 30 * MILLION  # tokens: as many seen weigh as much as what was thought before
PRICES = player.Prices(100, 1_250, 2_000)  # reads at a tenth
CHEAP = player.Prices(25, 1_250, 2_000)
OTHER, AGENT = 0, 1


def nothing_seen():
    return player.mind(8, 8, 8, 2)


# --- what stays as it was chosen -------------------------------------------------------------------------------------


def chats(count, gaps_s, apart_s, grow=1, system=2, spaces=10**6):
    """Conversations that begin one after the other, some in the same namespace."""
    calls = [one for n in range(count) for one in session(gaps_s, grow, apart_s * n, n, system)]
    return [(at, space % spaces, path, known) for at, space, path, known in calls]


def timers(jobs, times, every_s):
    return [
        (every_s * n + 7 * job, 0, [*(f"{job}.{m}" for m in range(9)), f"{job}.{n}"], 0)
        for n in range(times)
        for job in range(jobs)
    ]


def documents(count, each, apart_s):
    """Long documents with questions behind: most are asked about once."""
    return [
        (apart_s * (each * n + k), 0, [*(f"doc {n % (count // 2)}.{m}" for m in range(6)), f"{n}.{k}"], 0)
        for n in range(count)
        for k in range(1 if n % 3 else each)
    ]


WORLDS = {
    "a mixture, small": (traffic(1, 8, 900), SONNET, Semantics()),
    "a mixture, large": (traffic(2, 6, 6_000), OPUS_5_5, Semantics()),
    "a mixture, another cache": (traffic(5, 8, 2_000), SONNET, every_answer(5)),
    "agents that pause": (
        trace_of(chats(6, [20, 60, 5, 400, 30, 1_300] * 2, 100, spaces=2), 3_000), SONNET, Semantics(),
    ),
    "agents at work": (trace_of(chats(20, [20, 60, 5] * 2, 100, 2, spaces=1), 12_000), SONNET, Semantics()),
    "chats": (trace_of(chats(25, [40, 250, 320], 200, 3, system=0), 700), SONNET, Semantics()),
    "chats, read for a fortieth": (
        trace_of(chats(12, [40, 400, 900, 310], 90, system=0), 9_000), FABLE_5_1, Semantics(),
    ),
    "long turns": (trace_of(chats(5, [100] * 4, 400, 30, spaces=1), 800), SONNET, Semantics(lookback=3)),
    "timers": (trace_of(timers(3, 14, 900), 512), SONNET, Semantics()),
    "timers that are seldom": (trace_of(timers(2, 9, 4_500), 2_048), SONNET, Semantics()),
    "documents": (trace_of(documents(12, 5, 45), 1_500), SONNET, Semantics()),
}  # fmt: skip
THINKING = [name for name, one in POLICIES.items() if one.writes or one.lives or one.pings]


def test_decisions_stay_as_they_were_chosen(golden):
    """Chosen by their cost on real traces, which are not here: another decision is meant, and read in this file."""
    lines = []
    for world, (trace, rates, rules) in WORLDS.items():
        lines.append(f"{world}: {trace.requests} requests, {trace.prompt.sum():,} tokens")
        for name in THINKING:
            found = simulate(trace, POLICIES[name], rates, MINIMUM, rules)
            turn = np.arange(1, trace.requests + 1)  # so that it matters which request it was
            moment = sum(int((column * turn).sum()) * weight for weight, column in enumerate(found.each, 1))
            lines.append(
                f"  {name:17} sent {found.tokens.input:>9,}  read {found.tokens.cache_read:>10,}"
                f"  5m {found.tokens.cache_write_5m:>9,}  1h {found.tokens.cache_write_1h:>9,}"
                f"  pings {found.pings:>3}  by turn {moment % 99_991:>6}"
            )
    golden("tests/golden/decisions.txt", "\n".join([*lines, ""]))


# --- times and classes -----------------------------------------------------------------------------------------------


def test_pings_go_out_fifteen_seconds_before_what_they_keep_expires():
    """Twelve of 5m up to the hour, then three of 1h."""
    starts = [player.slot_start(slot) // SECOND for slot in range(16)]
    assert starts == [*(285 * n for n in range(13)), *(3_585 * n for n in (1, 2, 3))]


def test_pauses_are_told_apart_as_the_cache_does():
    ends = {0: 30 * SECOND, 1: 2 * MINUTE, 2: 5 * MINUTE}
    assert player.gap_class(-1) == 0
    assert [player.gap_class(gap) for gap in (0, *ends.values())] == [1, 1, 2, 3]
    assert [player.gap_class(end + 1) for end in ends.values()] == [2, 3, 4]


def test_lengths_are_told_apart_by_powers_of_two():
    for bits in range(23):
        assert player.length_class(2**bits) == bits + 1
        assert player.length_class(2**bits - 1) == bits
    assert player.length_class(2**40) == 23


# --- reuse -----------------------------------------------------------------------------------------------------------


def trait(zone, turn=0, gap=0, length=5):
    return ((zone * 4 + turn) * 5 + gap) * 24 + length


@pytest.mark.parametrize("zone", range(6))
def test_what_was_not_sent_before_is_not_worth_a_write(zone):
    """A write for 5m pays from 21.7 % on. Of what was sent before 35 % is thought to come again, of the new 20 %."""
    own = nothing_seen()
    for length in range(24):
        expected = 350_000 if zone < 3 or length >= 15 else 200_000
        assert player.probability(own, trait(zone, 3, 4, length), 15) == expected


@pytest.mark.parametrize("level", range(4))
def test_as_much_seen_as_is_trusted_weighs_half(level):
    """Of all prompts, of that turn, after that pause, of that length: each corrects what the wider class says."""
    own, one = nothing_seen(), trait(1, 2, 3, 7)
    own.reuse[level, one // [480, 120, 24, 1][level]] = TRUST, TRUST // 10
    assert player.probability(own, one, 15) == (350_000 + 100_000) // 2
    for other in (trait(2, 2, 3, 7), trait(1, 3, 3, 7), trait(1, 2, 4, 7), trait(1, 2, 3, 8)):
        same = [one // size == other // size for size in (480, 120, 24, 1)]
        assert player.probability(own, other, 15) == (225_000 if same[level] else 350_000)


def test_an_access_counts_in_its_four_classes():
    own, one = nothing_seen(), trait(4, 1, 2, 9)
    own.traits[3, 0] = one
    player.count_in(3, 700, 600, own)
    player.count_in(3, 70, 0, own)
    for level, size in enumerate((480, 120, 24, 1)):
        assert own.reuse[level, one // size].tolist() == [770, 600]
        assert own.reuse[level].sum() == 1_370


@pytest.mark.parametrize(
    ("cold", "times", "is_one"),
    [
        (1, 2, False),
        (2, 3, True),
        (2, 4, False),
        (3, 5, True),
        (3, 6, False),
        (30, 41, True),
        (30, 42, False),
    ],
)
def test_a_timer_is_what_mostly_comes_when_the_cache_is_cold(cold, times, is_one):
    """Twice at the least, and three times in four of all but the first."""
    own = nothing_seen()
    own.seen[4, player.COLD], own.seen[2, player.TIMES] = cold, times
    assert player.regular(own, 4, 2) == is_one


# --- waiting for the next turn ---------------------------------------------------------------------------------------

# In parts of a million, by slot of 285 seconds; the rest is four in a hundred. docs/caching.md says where from.
COME_BACK = {
    (OTHER, "first"): (200_000,),
    (OTHER, "later"): (300_000,),
    (AGENT, "first"): (900_000,),
    (AGENT, "later"): (940_000, 285_000, 230_000, 105_000, 70_000),
}
OVERTAKEN = {
    (OTHER, "first"): 200_000,
    (OTHER, "later"): 300_000,
    (AGENT, "first"): 300_000,
    (AGENT, "later"): 300_000,
}


def group(who, turn, overtaken=False):
    return who * 4 + (2 if turn == "later" else 0) + overtaken


@pytest.mark.parametrize(("who", "turn"), COME_BACK)
def test_what_is_thought_of_waits_before_any_was_seen(who, turn):
    own = nothing_seen()
    for slot in range(16):
        known = [*COME_BACK[who, turn], *[40_000] * 16][slot]
        assert player.pooled(own, group(who, turn), slot) == known
        assert [player.hazard(own, group(who, turn) * 3 + kind, slot) for kind in range(3)] == [known] * 3
        late = OVERTAKEN[who, turn] if slot == 0 else 40_000
        assert player.pooled(own, group(who, turn, overtaken=True), slot) == late


def test_waits_that_were_seen_correct_it():
    own = nothing_seen()
    own.waited[3 * group(AGENT, "later") + 1, 2] = WAIT_TRUST, WAIT_TRUST // 2
    assert player.pooled(own, group(AGENT, "later"), 2) == (230_000 + 500_000) // 2
    assert player.hazard(own, 3 * group(AGENT, "later"), 2) == 365_000
    assert player.hazard(own, 3 * group(AGENT, "later") + 1, 2) == (365_000 + 500_000) // 2
    assert player.pooled(own, group(AGENT, "later"), 3) == 105_000
    assert player.pooled(own, group(AGENT, "first"), 2) == 40_000


def hour(chances):
    """Of a million who wait: back within the hour but not in the first slot, and not back."""
    within, here = 0, MILLION
    for slot, chance in enumerate(chances[:13]):
        back = here * chance // MILLION
        within += back if slot else 0
        here -= back
    return within, here


@pytest.mark.parametrize("who", [OTHER, AGENT])
def test_an_hour_of_waiting_is_thirteen_slots(who):
    assert player.pauses(nothing_seen(), who) == hour([*COME_BACK[who, "later"], *[40_000] * 16])


def test_pauses_of_agents_are_learned_sooner_and_overtaken_ones_count():
    for who, trust, kinds in ((OTHER, WAIT_TRUST, 3), (AGENT, 3 * MILLION, 6)):
        for kind in range(6):
            own = nothing_seen()
            own.waited[3 * group(who, "later") + kind, 1] = trust, trust
            chances = [*COME_BACK[who, "later"], *[40_000] * 16]
            if kind < kinds:
                chances[1] = (chances[1] + MILLION) // 2
            assert player.pauses(own, who) == hour(chances)


@pytest.mark.parametrize("prices", [PRICES, CHEAP])
@pytest.mark.parametrize("left", [0, 1, 3, 12])
@pytest.mark.parametrize("slot", [1, 2, 11, 12, 13, 15])
def test_a_ping_pays_if_some_number_of_them_does(slot, left, prices):
    """They catch returns, each saving a write less a read; each costs a read, taken by half too high to be sure."""
    wait = 3 * group(AGENT, "later")
    for scale in (0, 1, 3, 10, 40, 200):  # how likely returns are
        own = nothing_seen()
        own.waited[wait, :, 0] = 1_000 * MILLION
        own.waited[wait, :, 1] = scale * MILLION * np.arange(1, 17) // 4
        last = 13 if slot <= 12 else 16
        gain, here, pays = Fraction(0), Fraction(1), False
        for later in range(slot, min(slot + left, last)):
            back = here * player.hazard(own, wait, later) / MILLION
            gain += back * (1_250 - prices.read) - here * prices.read * 3 / 2
            here -= back
            pays = pays or gain > 0
        assert player.ping_pays(own, wait, slot, left, 1_250, prices) == pays, scale


# --- lives and places ------------------------------------------------------------------------------------------------


def path_of(sizes):
    path = np.arange(len(sizes))
    return path, np.array(sizes, np.int64)


def test_the_depth_of_a_part_of_a_path():
    path, sizes = path_of([5, 70, 900, 1])
    assert player.depth(path, sizes, 1, 3) == 970
    assert player.depth(path, sizes, 2, 2) == 0


def test_a_ping_needs_all_of_the_path_alive_and_an_entry_at_its_end():
    path, _ = path_of([1, 1])
    for gone in range(4):
        state = blank(2)
        state[:, 1] = state[:, 4] = 100
        state[:, 2] = state[:, 5] = 0
        if gone:
            state[(0, 1, 1)[gone - 1], (1, 1, 4)[gone - 1]] = 99
        assert player.all_alive(path, state, 100, Semantics()) == (gone == 0)
