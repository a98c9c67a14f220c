"""One request against the cache: what it reads, what it writes, and what lives on. docs/caching.md quotes each rule.

What is remembered of a node is a row of six times. The first three are of the node as a segment, the tokens between
it and its parent: how long it lives when used, when it expires, when it can first be read. The other three are the
same of its entry, the prefix that ends there, which is there only where a breakpoint was.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._bound import FIVE_US, HOUR_US
from ._jit import jit

TTL, EXPIRES, READY, ENTRY_TTL, ENTRY_EXPIRES, ENTRY_READY = range(6)
NEVER = -(2**62)
BREAKPOINTS = 4


class Semantics(NamedTuple):
    """What the documentation leaves open, and two numbers that it gives. The defaults promise the least.

    Two defaults are the ones read from the documentation all the same, since "each time the cached content is used"
    covers the shorter prefix too: `refreshes_shorter`; and `lookback`, the breakpoint itself counted.
    """

    entries_stand_alone: bool = (
        False  # an entry outlives a part of its prefix that was written for a shorter time
    )
    refreshes_shorter: bool = True  # a hit refreshes the entries before it, not only its own
    marks_inside_a_hit: bool = False  # a breakpoint in what is read makes an entry there, for nothing
    keeps_the_longer: bool = False  # writing for 5m again does not shorten what lives for 1h
    lookback: int = 20
    delay_us: int = 0  # from the start of a request to its first token, when what it writes can be read


DOCUMENTED = Semantics()


def blank(nodes: int) -> Any:
    """The memory of a cache in which nothing is."""
    state = np.full((nodes, 6), NEVER, np.int64)
    state[:, (TTL, ENTRY_TTL)] = 0
    return state


@jit
def alive(path: Any, state: Any, now: Any, rules: Semantics) -> Any:
    """How many nodes of the path, from its root on, an entry may need and find."""
    if rules.entries_stand_alone:
        return len(path)
    count = 0
    while count < len(path):
        row = state[path[count]]
        if row[EXPIRES] < now or row[READY] > now:
            break
        count += 1
    return count


@jit
def hit(path: Any, state: Any, marks: Any, count: Any, now: Any, rules: Semantics) -> Any:
    """The deepest position that can be read: an entry that one of the breakpoints looks back to. Else -1."""
    reach = alive(path, state, now, rules)
    found = -1
    for k in range(count):
        for position in range(min(marks[k], reach - 1), max(found, marks[k] - rules.lookback), -1):
            row = state[path[position]]
            if row[ENTRY_EXPIRES] >= now and row[ENTRY_READY] <= now:
                found = position
                break
    return found


@jit
def cacheable(path: Any, sizes: Any, minimum: Any) -> Any:
    """The first position up to which the prompt is long enough to be cached; the path's length if none is."""
    depth = 0
    for position in range(len(path)):
        depth += sizes[path[position]]
        if depth >= minimum:
            return position
    return len(path)


@jit
def serve(
    path: Any,
    sizes: Any,
    state: Any,
    marks: Any,
    ttls: Any,
    count: Any,
    now: Any,
    minimum: Any,
    rules: Semantics,
    billed: Any,
) -> Any:
    """Bill a request with `count` breakpoints and change the state; the position it reads up to, -1 if none.

    `billed` gets the tokens read, written for 5m and for 1h added; the rest of the prompt is plain input.
    """
    first = cacheable(path, sizes, minimum)
    read = hit(path, state, marks, count, now, rules)
    hour = end = read  # B and C of the documentation; read is A
    for k in range(count):
        if marks[k] >= first:
            end = max(end, marks[k])
            if ttls[k] == HOUR_US:
                hour = max(hour, marks[k])
    for position in range(read + 1):
        row = state[path[position]]
        billed[0] += sizes[path[position]]
        row[EXPIRES] = now + row[TTL]
        if position == read or (rules.refreshes_shorter and row[ENTRY_EXPIRES] >= now):
            row[ENTRY_EXPIRES] = now + row[ENTRY_TTL]
    for position in range(read + 1, end + 1):
        ttl = HOUR_US if position <= hour else FIVE_US
        billed[2 if ttl == HOUR_US else 1] += sizes[path[position]]
        write(state[path[position]], TTL, ttl, now, rules)
    for k in range(count):
        if marks[k] > read and marks[k] >= first:
            write(state[path[marks[k]]], ENTRY_TTL, ttls[k], now, rules)
        elif rules.marks_inside_a_hit and first <= marks[k] <= read:
            row = state[path[marks[k]]]
            if row[ENTRY_EXPIRES] < now:
                write(row, ENTRY_TTL, row[TTL], now, rules)
    return read


@jit
def write(row: Any, kind: Any, ttl: Any, now: Any, rules: Semantics) -> None:
    """Write a segment or an entry (`kind` is the column of its TTL). What was readable stays readable meanwhile."""
    ready = now + rules.delay_us
    if row[kind + 1] >= now:
        ready = min(ready, row[kind + 2])
        if rules.keeps_the_longer and row[kind + 1] > now + ttl:
            row[kind + 2] = ready
            return
    row[kind], row[kind + 1], row[kind + 2] = ttl, now + ttl, ready


@jit
def play(
    at_us: Any,
    starts: Any,
    nodes: Any,
    sizes: Any,
    mark_starts: Any,
    marks: Any,
    ttls: Any,
    minimum: Any,
    rules: Semantics,
    state: Any,
    billed: Any,
) -> None:
    """Every request of a trace with the breakpoints that are given for it."""
    for i in range(len(at_us)):
        first, last = mark_starts[i], mark_starts[i + 1]
        serve(
            nodes[starts[i] : starts[i + 1]],
            sizes,
            state,
            marks[first:last],
            ttls[first:last],
            last - first,
            at_us[i],
            minimum,
            rules,
            billed[i],
        )
