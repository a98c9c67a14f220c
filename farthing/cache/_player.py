"""Policies at work: a trace is gone through in order of time, and each decision is made from what came before it.

Compiled as it stands, so its values are integers and arrays of them. What a policy must remember is bounded: of
nodes, those seen within a day; of classes, sums. (Here, rows for all nodes of a trace are simply kept.)
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np

from ._bound import FIVE_US, HOUR_US
from ._engine import (
    BREAKPOINTS,
    ENTRY_EXPIRES,
    ENTRY_TTL,
    NEVER,
    TTL,
    Semantics,
    alive,
    cacheable,
    serve,
)
from ._jit import jit

ALWAYS, SEEN, LIKELY = range(3)
FIXED, BY_RETURNS, BY_PAUSES = range(3)

PARTS = 10**6
DAY_US = 24 * HOUR_US
RETURNS = 2  # so often must a conversation have come back to an expired cache before it is kept for an hour
REGULAR = 2  # and so often, three times in four, before that alone is reason enough

# Tokens that may be reused, by zone (before the guards, between them, behind, and whether they are new), by turn, by
# how long ago the turn before was, by length. Each level is trusted as far as it has seen tokens, else the one above.
ZONES, TURNS, GAPS, LENGTHS = 6, 4, 5, 24
NEW = 3  # the first zone of what was not sent before
BELOW_LEVEL = np.array([TURNS * GAPS * LENGTHS, GAPS * LENGTHS, LENGTHS, 1])
TRAITS = ZONES * TURNS * GAPS * LENGTHS
TRUST = 50_000  # tokens
LATER, COUNTED = 1, 2  # of what was reused: when it is in the sums
# Parts of a million, before anything is known: of what was sent before and of agents' long prompts, and of the rest,
# which is less than a write wants. So what nobody sends twice is never written.
REUSED, UNSEEN = 350_000, 200_000
LONG = 15  # the class of lengths from 16,384 tokens on
LONGER = 17  # and from 65,536 on: what long prompts of agents must have whose client names no session

# Waiting for the next turn: a slot for each ping that could be sent, those of 5m up to the hour, then those of 1h.
EARLY_US = 15_000_000  # a ping goes out so long before what it keeps would expire
FIVES, SLOTS = 12, 16
WAITS = 24  # classes: agent or not, first turn or later, newest of its namespace or overtaken, how the answer ended
WAIT_TRUST = 30_000_000  # tokens
PAUSE_TRUST = 3_000_000  # tokens: the same of agents, all classes taken together
# How many in a million of those who still wait come back in each slot, before anything is known: of others, and of
# agents, at first turns and later ones, each newest and overtaken. Where from: docs/caching.md.
RARELY = (40_000,) * 15
KNOWN = np.array(
    [
        (200_000, *RARELY),
        (200_000, *RARELY),
        (300_000, *RARELY),
        (300_000, *RARELY),
        (900_000, *RARELY),
        (300_000, *RARELY),
        (940_000, 285_000, 230_000, 105_000, 70_000, *RARELY[:11]),
        (300_000, *RARELY),
    ],
    np.int64,
)
GROWTH = 20_000  # new tokens of a later turn, of a million, before anything is known
GROWTH_TRUST = 1_000_000  # tokens of agents: every turn tells of it, and much the same


class Policy(NamedTuple):
    """What to mark, for how long, and what else to do. POLICIES has those with a name."""

    system_ttl_us: int = 0  # of a breakpoint behind tools and system; 0 for none
    end_ttl_us: int = 0  # of one at the end of the prompt
    guarded: bool = (
        False  # with two more a few nodes before the end, where the next prompt may part from this one
    )
    writes: int = ALWAYS  # or what was SEEN before, or what is LIKELY to be read again
    lives: int = FIXED  # or 1h BY_RETURNS to an expired cache, or BY_PAUSES within the hour
    pings: int = 0  # at most so many in a row, each where a return is likely enough
    pads: bool = False  # lengthens a system prompt up to the minimum
    waits: bool = False  # lets the first of a fan-out go alone


class Prices(NamedTuple):
    """Rates in thousandths of the input rate."""

    read: int
    five: int
    hour: int


class Walk(NamedTuple):
    """A radix trace as arrays, and where its guards are."""

    at_us: Any
    starts: Any
    nodes: Any
    sizes: Any
    system: Any
    kinds: Any
    namespace: Any  # counted from 0
    named: Any  # whether a session was: its client says that there is more to come
    guards: Any


class Mind(NamedTuple):
    """What a policy remembers: rows for nodes, for requests, for accesses, and sums for classes."""

    seen: Any  # by node: when last, how often, returns to an expired cache, last request, last access
    waits: Any  # by request: anchor and its position, position kept alive, tokens up to there, class, whether alive
    traits: (
        Any  # by access; and whether its tokens were reused within five minutes (LATER, COUNTED), or not yet
    )
    reuse: (
        Any  # by level and trait: tokens sent more than five minutes ago, tokens reused within five minutes
    )
    waited: Any  # by class of wait and slot: tokens still waiting as it began, tokens that came back in it
    grown: Any  # of agents and others, in later turns: tokens sent, tokens sent for the first time
    newest: Any  # by namespace: the last request
    matured: Any  # one: the first request whose five minutes are not over


LAST, TIMES, COLD, WALKER, ACCESS = range(5)
ANCHOR, PLACE, HELD, DEPTH, WAIT, ALIVE = range(6)


def mind(requests: int, accesses: int, nodes: int, namespaces: int) -> Mind:
    """Nothing remembered yet."""
    seen = np.zeros((nodes, 5), np.int64)
    seen[:, LAST], seen[:, WALKER] = NEVER, -1
    return Mind(
        seen,
        np.full((requests, 6), -1, np.int64),
        np.zeros((accesses, 2), np.int64),
        np.zeros((4, TRAITS, 2), np.int64),
        np.zeros((WAITS, SLOTS, 2), np.int64),
        np.zeros((2, 2), np.int64),
        np.full(namespaces, -1, np.int64),
        np.zeros(1, np.int64),
    )


@jit
def follow(
    walk: Walk,
    policy: Policy,
    prices: Prices,
    minimum: Any,
    rules: Semantics,
    state: Any,
    own: Mind,
    billed: Any,
    pinged: Any,
) -> None:
    """Play a policy over a trace. `billed` and `pinged` get a row a request; the latter its pings and their tokens."""
    marks, ttls = np.zeros(BREAKPOINTS, np.int64), np.zeros(BREAKPOINTS, np.int64)
    thinks = policy.writes != ALWAYS or policy.lives != FIXED or policy.pings > 0
    counts_down = policy.pings > 0 or policy.lives == BY_PAUSES
    waiting = [(np.int64(0), np.int64(0), np.int64(0)) for _ in range(0)]
    for i in range(len(walk.at_us)):
        now = walk.at_us[i]
        while len(waiting) > 0 and waiting[0][0] < now:
            idle(waiting, walk, policy, prices, minimum, rules, state, own, pinged)
        path = walk.nodes[walk.starts[i] : walk.starts[i + 1]]
        if len(path) == 0:
            continue
        if not thinks:
            count = fixed(i, len(path), walk, policy, policy.end_ttl_us, marks, ttls)
            serve(path, walk.sizes, state, marks, ttls, count, now, minimum, rules, billed[i])
            continue
        known = recognise(i, path, walk, state, own, rules)
        count = chosen(i, path, known, walk, policy, prices, minimum, state, own, rules, marks, ttls)
        read = serve(path, walk.sizes, state, marks, ttls, count, now, minimum, rules, billed[i])
        for k in range(count):
            read = max(read, marks[k])
        begin_waiting(i, path, read, known, walk, own)
        if counts_down:
            heappush(waiting, (now + slot_start(1), np.int64(i), np.int64(1)))
    while len(waiting) > 0:
        idle(waiting, walk, policy, prices, minimum, rules, state, own, pinged)


# --- where to mark, and for how long -------------------------------------------------------------------------------


@jit
def chosen(
    i: Any,
    path: Any,
    known: Any,
    walk: Walk,
    policy: Policy,
    prices: Prices,
    minimum: Any,
    state: Any,
    own: Mind,
    rules: Semantics,
    marks: Any,
    ttls: Any,
) -> Any:
    """The breakpoints of a request, into `marks` and `ttls`; how many."""
    ttl = lifetime(i, path, known, walk, policy, prices, state, own, rules)
    if policy.writes == LIKELY:
        read, end = worth_writing(i, path, known, ttl, walk, prices, minimum, state, own, rules)
        return mark_up_to(i, path, read, end, known, ttl, walk, policy, rules, marks, ttls)
    return fixed(i, known if policy.writes == SEEN else len(path), walk, policy, ttl, marks, ttls)


@jit
def fixed(i: Any, upto: Any, walk: Walk, policy: Policy, ttl: Any, marks: Any, ttls: Any) -> Any:
    """Breakpoints where the policy always has them, as far as `upto`; how many."""
    count, last = 0, -1
    system = walk.system[i]
    if policy.system_ttl_us > 0 and system > 0 and (system < upto or (system == upto and ttl == 0)):
        marks[0], ttls[0] = system - 1, max(policy.system_ttl_us, ttl)
        count, last = 1, system - 1
    if ttl > 0 and upto > 0:
        for k in range(walk.guards.shape[1]):
            if policy.guarded and last < walk.guards[i, k] < upto - 1:
                marks[count], ttls[count] = walk.guards[i, k], ttl
                count, last = count + 1, walk.guards[i, k]
        marks[count], ttls[count] = upto - 1, ttl
        count += 1
    return count


@jit
def worth_writing(
    i: Any, path: Any, known: Any, ttl: Any, walk: Walk, prices: Prices, minimum: Any, state: Any, own: Mind,
    rules: Semantics,
) -> Any:  # fmt: skip
    """Up to where the prompt can be read, and up to where what is behind is likely enough to be read again (or -1).

    Writing a token pays if P(reuse within its life) > (w - 1) / (w - read): 21.7 % for 5m, 52.6 % for 1h. Whether to
    go further is asked only where a breakpoint could be: at the ends of the system prompt, of what was seen before
    and of the prompt, and at the guards.
    """
    read = -1
    for position in range(alive(path, state, walk.at_us[i], rules)):
        if state[path[position], ENTRY_EXPIRES] >= walk.at_us[i]:
            read = position
    first = cacheable(path, walk.sizes, minimum)
    write, later = prices.five, 0
    if ttl == HOUR_US:
        within, never = pauses(own, 1 if walk.system[i] > 0 else 0)
        write, later = prices.hour, PARTS * within // max(1, within + never)
    gain, most, end = 0, 0, -1
    trusted = LENGTHS if walk.system[i] == 0 else LONG if walk.named[i] > 0 else LONGER
    for position in range(read + 1, len(path)):
        chance = probability(own, own.traits[walk.starts[i] + position, 0], trusted)
        if later > 0 and position < known and regular(own, path[position], path[0]):
            chance = max(chance, PARTS * 3 // 4)
        # Those who wait come back: so far that is known of conversations, and of what was seen to be reused.
        if position < known or known > walk.system[i] or chance > UNSEEN:
            chance += (PARTS - chance) * later // PARTS
        worth = chance * (write - prices.read) - PARTS * (write - 1000)
        gain += walk.sizes[path[position]] * (worth // 1000)
        if gain > most and position >= first:
            marked = position in (walk.system[i] - 1, known - 1, len(path) - 1)
            for k in range(walk.guards.shape[1]):
                marked = marked or position == walk.guards[i, k]
            if marked:
                most, end = gain, position
    return read, end


@jit
def regular(own: Mind, node: Any, root: Any) -> Any:
    """Whether most requests that begin alike found the cache expired within the hour, as those of a timer do.

    While nothing is written nothing is waited for, so the classes of waits would never learn it.
    """
    cold = own.seen[node, COLD]
    return cold >= REGULAR and cold * 4 >= (own.seen[root, TIMES] - 1) * 3


@jit
def mark_up_to(
    i: Any,
    path: Any,
    read: Any,
    end: Any,
    known: Any,
    ttl: Any,
    walk: Walk,
    policy: Policy,
    rules: Semantics,
    marks: Any,
    ttls: Any,
) -> Any:
    """Breakpoints behind `read`, the last at `end`, and one that finds what can be read if they do not; how many."""
    before = walk.system[i] if walk.system[i] > 0 else known
    count, last = 0, read
    for k in range(walk.guards.shape[1] + 2):
        if k == 0:
            place = before - 1
        elif k <= walk.guards.shape[1]:
            place = walk.guards[i, k - 1] if policy.guarded else -1
        else:
            place = end
        if last < place <= end:
            marks[count], ttls[count] = place, ttl
            count, last = count + 1, place
    if read >= 0 and (count == 0 or (marks[0] - read >= rules.lookback and count < BREAKPOINTS)):
        for k in range(count, 0, -1):
            marks[k], ttls[k] = marks[k - 1], ttls[k - 1]
        marks[0], ttls[0] = read, ttl
        count += 1
    return count


@jit
def lifetime(
    i: Any, path: Any, known: Any, walk: Walk, policy: Policy, prices: Prices, state: Any, own: Mind, rules: Semantics
) -> Any:  # fmt: skip
    """For how long to write: as what is alive of the conversation was written, else as the policy says."""
    if policy.lives == FIXED:
        return policy.end_ttl_us
    system = walk.system[i]
    living = alive(path, state, walk.at_us[i], rules)
    if living > system and depth(path, walk.sizes, system, living) * 2 > depth(
        path, walk.sizes, system, len(path)
    ):
        return state[path[living - 1], TTL]
    if policy.lives == BY_RETURNS and (known <= system or own.seen[path[known - 1], COLD] < RETURNS):
        return FIVE_US
    if system == 0 and known > 0 and regular(own, path[known - 1], path[0]):
        return HOUR_US
    # An hour pays if P(back after 5m, within 1h) * (w5 - read) > (P(not back) + growth) * (w1 - w5).
    agent = 1 if system > 0 else 0
    within, never = pauses(own, agent)
    trust = GROWTH_TRUST if agent == 1 else WAIT_TRUST
    growth = (PARTS * own.grown[agent, 1] + GROWTH * trust) // (own.grown[agent, 0] + trust)
    longer = within * (prices.five - prices.read) > (never + growth) * (prices.hour - prices.five)
    return HOUR_US if longer else FIVE_US


@jit
def depth(path: Any, sizes: Any, first: Any, last: Any) -> Any:
    """The tokens of a part of a path."""
    tokens = 0
    for position in range(first, last):
        tokens += sizes[path[position]]
    return tokens


# --- what is learned of reuse --------------------------------------------------------------------------------------


@jit
def recognise(i: Any, path: Any, walk: Walk, state: Any, own: Mind, rules: Semantics) -> Any:
    """Note what a prompt has in common with earlier ones; how many of its first nodes were seen within a day."""
    now, first = walk.at_us[i], walk.starts[i]
    mature(walk, own, now)
    known = 0
    while known < len(path) and own.seen[path[known], LAST] >= now - DAY_US:
        known += 1
    system = walk.system[i]
    gap, times, cold = NEVER, 0, 0
    if known > system:
        row = own.seen[path[known - 1]]
        gap, times, cold = now - row[LAST], row[TIMES], row[COLD]
        if FIVE_US < gap <= HOUR_US and alive(path, state, now, rules) <= system:
            cold += 1
        come_back(row[WALKER], known, now, walk, own)
    same = (min(times, TURNS - 1) * GAPS + gap_class(gap)) * LENGTHS + length_class(
        depth(path, walk.sizes, 0, len(path))
    )
    agent = 1 if system > 0 else 0
    for position in range(len(path)):
        node, size = path[position], walk.sizes[path[position]]
        row = own.seen[node]
        if now - row[LAST] <= FIVE_US and own.traits[row[ACCESS], 1] == 0:
            own.traits[row[ACCESS], 1] = LATER
            if own.reuse[0, own.traits[row[ACCESS], 0] // BELOW_LEVEL[0], 0] < TRUST:
                own.traits[row[ACCESS], 1] = COUNTED
                count_in(row[ACCESS], size, size, own)
        zone = 0 if position < known else NEW
        for k in range(walk.guards.shape[1]):
            if position > walk.guards[i, k]:
                zone += 1
        own.traits[first + position, 0] = zone * BELOW_LEVEL[0] + same
        if known > system:
            own.grown[agent, 0] += size
            own.grown[agent, 1] += size if position >= known else 0
        row[LAST], row[TIMES], row[WALKER], row[ACCESS] = now, row[TIMES] + 1, i, first + position
        row[COLD] = cold
    return known


@jit
def mature(walk: Walk, own: Mind, now: Any) -> None:
    """Count those tokens of which it is known by now whether they were reused within five minutes.

    Of a zone that little is known of, those that were are counted when they are, since five minutes are long.
    """
    while own.matured[0] < len(walk.at_us) and walk.at_us[own.matured[0]] + FIVE_US < now:
        for access in range(walk.starts[own.matured[0]], walk.starts[own.matured[0] + 1]):
            tokens, reused = walk.sizes[walk.nodes[access]], own.traits[access, 1]
            if reused != COUNTED:
                count_in(access, tokens, tokens if reused == LATER else 0, own)
        own.matured[0] += 1


@jit
def count_in(access: Any, tokens: Any, reused: Any, own: Mind) -> None:
    """What became of an access, in the sums of its classes."""
    for level in range(len(BELOW_LEVEL)):
        row = own.reuse[level, own.traits[access, 0] // BELOW_LEVEL[level]]
        row[0] += tokens
        row[1] += reused


@jit
def probability(own: Mind, trait: Any, trusted: Any) -> Any:
    """How many in a million tokens of that trait are reused within five minutes, as far as is known.

    `trusted` is the class of lengths from which what is new is trusted.
    """
    known = trait // BELOW_LEVEL[0] < NEW
    chance = REUSED if known or trait % LENGTHS >= trusted else UNSEEN
    for level in range(len(BELOW_LEVEL)):
        row = own.reuse[level, trait // BELOW_LEVEL[level]]
        chance = min(PARTS, (row[1] * PARTS + chance * TRUST) // (row[0] + TRUST))
    return chance


@jit
def gap_class(gap_us: Any) -> Any:
    """None, half a minute, two, five, more."""
    if gap_us < 0:
        return 0
    if gap_us <= 30_000_000:
        return 1
    if gap_us <= 120_000_000:
        return 2
    return 3 if gap_us <= FIVE_US else 4


@jit
def length_class(tokens: Any) -> Any:
    """Powers of two."""
    bits = 0
    while tokens > 0 and bits < LENGTHS - 1:
        tokens //= 2
        bits += 1
    return bits


# --- waiting for the next turn, and pings ----------------------------------------------------------------------------


@jit
def slot_start(slot: Any) -> Any:
    """When a slot begins, in microseconds after the request; each ping that could be sent has one."""
    if slot <= FIVES:
        return slot * (FIVE_US - EARLY_US)
    return (slot - FIVES) * (HOUR_US - EARLY_US)


@jit
def begin_waiting(i: Any, path: Any, held: Any, known: Any, walk: Walk, own: Mind) -> None:
    """After a request: the next turn is one that walks its anchor, the node at the first guard that is kept."""
    row = own.waits[i]
    place = max(held, 0)
    for k in range(walk.guards.shape[1]):
        if 0 <= walk.guards[i, k] < place:
            place = walk.guards[i, k]
            break
    system = walk.system[i]
    later = 1 if known > system else 0
    row[ANCHOR], row[PLACE], row[HELD], row[ALIVE] = path[place], place, held, 1
    row[DEPTH] = depth(path, walk.sizes, 0, held + 1)
    row[WAIT] = ((1 if system > 0 else 0) * 2 + later) * 6 + min(walk.kinds[i], 2)
    own.waited[row[WAIT], 0, 0] += row[DEPTH]
    own.newest[walk.namespace[i]] = i


@jit
def wait_class(i: Any, walk: Walk, own: Mind) -> Any:
    """The class of a wait as it is now, when other requests may have followed."""
    return own.waits[i, WAIT] + (3 if own.newest[walk.namespace[i]] != i else 0)


@jit
def come_back(earlier: Any, known: Any, now: Any, walk: Walk, own: Mind) -> None:
    """The next turn of a request that was waited for."""
    if earlier < 0:
        return
    row = own.waits[earlier]
    if row[PLACE] < 0 or row[PLACE] >= known or own.seen[row[ANCHOR], WALKER] != earlier:
        return
    slot = 0
    while slot < SLOTS - 1 and now - walk.at_us[earlier] > slot_start(slot + 1):
        slot += 1
    own.waited[wait_class(earlier, walk, own), slot, 1] += row[DEPTH]


@jit
def pooled(own: Mind, group: Any, slot: Any) -> Any:
    """How many in a million of those who still wait come back in a slot, whatever the answer was."""
    tokens, back = WAIT_TRUST, KNOWN[group, slot] * (WAIT_TRUST // PARTS)
    for kind in range(3):
        tokens += own.waited[group * 3 + kind, slot, 0]
        back += own.waited[group * 3 + kind, slot, 1]
    return min(PARTS, back * PARTS // tokens)


@jit
def pauses(own: Mind, agent: Any) -> Any:
    """Of a million later turns, how many are followed after five minutes but within the hour, and how many are not.

    A wait begins as the newest and may end overtaken: of agents both count. Of others the newest alone: with both,
    Mooncake's 17 minutes cost a seventh more.
    """
    group, within, here = 4 * agent + 2, 0, PARTS
    trust, kinds = (PAUSE_TRUST, 6) if agent == 1 else (WAIT_TRUST, 3)
    for slot in range(FIVES + 1):
        tokens, returned = trust, KNOWN[group, slot] * (trust // PARTS)
        for wait in range(group * 3, group * 3 + kinds):
            tokens += own.waited[wait, slot, 0]
            returned += own.waited[wait, slot, 1]
        back = here * min(PARTS, returned * PARTS // tokens) // PARTS
        here -= back
        if slot > 0:
            within += back
    return within, here


@jit
def hazard(own: Mind, wait: Any, slot: Any) -> Any:
    """The same for a class of waits, as far as it was seen."""
    row = own.waited[wait, slot]
    chance = pooled(own, wait // 3, slot)
    return min(PARTS, (row[1] * PARTS + chance * WAIT_TRUST) // (row[0] + WAIT_TRUST))


@jit
def idle(
    waiting: Any,
    walk: Walk,
    policy: Policy,
    prices: Prices,
    minimum: Any,
    rules: Semantics,
    state: Any,
    own: Mind,
    pinged: Any,
) -> None:
    """A slot begins and the next turn is not there: ping or let go. The next slot is looked at in any case."""
    now, i, slot = heappop(waiting)
    row = own.waits[i]
    if own.seen[row[ANCHOR], WALKER] != i or slot >= SLOTS:
        return
    wait = wait_class(i, walk, own)
    own.waited[wait, slot, 0] += row[DEPTH]
    path = walk.nodes[walk.starts[i] : walk.starts[i] + row[HELD] + 1]
    if row[HELD] >= 0 and row[ALIVE] == 1:
        ttl = state[path[row[HELD]], ENTRY_TTL]
        write = prices.five if ttl == FIVE_US else prices.hour
        if (ttl == HOUR_US) == (slot > FIVES):
            sent = slot if slot <= FIVES else slot - FIVES
            pays = ping_pays(own, wait, slot, policy.pings - sent + 1, write, prices)
            if pays and all_alive(path, state, now, rules):
                marks, ttls = np.array([row[HELD]]), np.array([ttl])
                unbilled = np.zeros(3, np.int64)
                serve(path, walk.sizes, state, marks, ttls, 1, now, minimum, rules, unbilled)
                pinged[i, 0] += 1
                pinged[i, 1] += row[DEPTH]
            else:
                row[ALIVE] = 0
    if slot + 1 < SLOTS:
        heappush(waiting, (walk.at_us[i] + slot_start(slot + 1), i, slot + 1))


@jit
def ping_pays(own: Mind, wait: Any, slot: Any, left: Any, write: Any, prices: Prices) -> Any:
    """Whether some number of pings from this one on costs less, by a third, than the returns they catch save."""
    gain, here = 0, PARTS
    for later in range(slot, min(slot + left, FIVES + 1 if slot <= FIVES else SLOTS)):
        back = here * hazard(own, wait, later) // PARTS
        gain += back * (write - prices.read) - here * prices.read * 3 // 2
        if gain > 0:
            return True
        here -= back
    return False


@jit
def all_alive(path: Any, state: Any, now: Any, rules: Semantics) -> Any:
    """Whether a ping would read the whole path and write nothing."""
    return alive(path, state, now, rules) == len(path) and state[path[-1], ENTRY_EXPIRES] >= now
