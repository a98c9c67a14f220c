"""A plan for a trace that is known whole: which breakpoints each request would have had, at next to the least cost.

Two passes. The first goes through the requests in order, as if every end of a node had an entry. What is alive is
read; behind it, two cuts say what is written for an hour and for five minutes. They are where the costs to go of
the nodes behind (_values.py) add up to the least, 1h before 5m, so a conflict between a parent that wants five
minutes and a child that wants an hour is settled at the price of the cheaper to give in. The second pass puts
breakpoints: at the cuts, where later requests will part from what is written, and near enough to what is read.

The machine (_machine.py) bills the outcome, so nothing here has to be believed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ._bound import FIVE_US, HOUR_US
from ._jit import jit
from ._trace import Ints, Trace
from ._values import Accesses, Cards, Values, accesses, values

MOST_MARKERS = 4
LOOKBACK = 20
_MOST_LOSS = 10**11  # of a token; its product with any prompt fits into 64 bits


class Plan(NamedTuple):
    """Request i has the breakpoints `starts[i]:starts[i + 1]`, each at the end of a node of its path."""

    starts: Ints
    positions: Ints
    ttl_us: Ints


class Cuts(NamedTuple):
    """Of each path, in nodes: so many are read, up to here written for an hour, up to here at all; and who wrote."""

    read: Ints
    hour: Ints
    end: Ints
    writer: Ints  # the request that wrote the last node that is read; -1 if nothing is


def plan(trace: Trace, minimum: int, cards: Cards) -> Plan:
    """Breakpoints for every request."""
    cut = accesses(trace, minimum)
    cuts = _cuts(trace, cut, values(trace, cut, cards))
    wanted: dict[int, Counter[int]] = defaultdict(Counter)
    for writer, read in zip(cuts.writer.tolist(), cuts.read.tolist(), strict=True):
        if read:
            wanted[writer][read - 1] += 1
    starts, positions, ttls = [0], [], []
    depths = _Depths(cut)
    columns = (cuts.read.tolist(), cuts.hour.tolist(), cuts.end.tolist(), cut.skipped.tolist())
    for request, (read, hour, end, skipped) in enumerate(zip(*columns, strict=True)):
        marked = _marks(read, hour, end, wanted.get(request, {}), depths.of(request))
        positions += [skipped + at for at in marked]
        ttls += [HOUR_US if read < hour and at < hour else FIVE_US for at in marked]
        starts.append(len(positions))
    return Plan(*(np.array(column, np.int64) for column in (starts, positions, ttls)))


class _Depths:
    """How many tokens lead to the end of each node of a path, for the few requests that must choose."""

    def __init__(self, cut: Accesses) -> None:
        self._cut = cut

    def of(self, request: int) -> Any:
        """Called with a position, the tokens up to there."""
        nodes = self._cut.nodes[self._cut.starts[request] : self._cut.starts[request + 1]]
        return lambda at: int(self._cut.sizes[nodes[: at + 1]].sum())


def _cuts(trace: Trace, cut: Accesses, worth: Values) -> Cuts:
    losses = np.stack([worth.plain - worth.best, worth.five - worth.best, worth.hour - worth.best])
    return Cuts(
        *_walk(
            trace.at_us,
            trace.starts,
            trace.nodes,
            cut.sizes,
            cut.skipped,
            cut.starts,
            np.minimum(losses, _MOST_LOSS).astype(np.int64),
            _by_node(_needed_us, cut.starts, cut.nodes, trace.at_us),
            _by_node(_steady_us, trace.starts, trace.nodes, trace.at_us),
        )
    )


def _by_node(find: Any, starts: Ints, nodes: Ints, at_us: Ints) -> Ints:
    """What `find` finds for accesses in order of node and time, in the order of the trace."""
    order = np.argsort(nodes, kind="stable")
    found = np.empty_like(order)
    found[order] = find(nodes[order], np.repeat(at_us, np.diff(starts))[order])
    return found


@jit
def _needed_us(nodes: Any, at_us: Any) -> Any:
    """For each access, the last of its node that an hour's life leads to and five minutes' does not; -1 if none."""
    needed = np.full(len(nodes), -1, np.int64)
    for i in range(len(nodes) - 2, -1, -1):
        gap = at_us[i + 1] - at_us[i]
        if nodes[i + 1] == nodes[i] and gap <= HOUR_US:
            needed[i] = at_us[i + 1] if needed[i + 1] < 0 and gap > FIVE_US else needed[i + 1]
    return needed


@jit
def _steady_us(nodes: Any, at_us: Any) -> Any:
    """For each access, the last one of its node that five minutes' life leads to."""
    steady = at_us.copy()
    for i in range(len(nodes) - 2, -1, -1):
        if nodes[i + 1] == nodes[i] and at_us[i + 1] - at_us[i] <= FIVE_US:
            steady[i] = steady[i + 1]
    return steady


@jit
def _walk(
    at_us: Any,
    starts: Any,
    nodes: Any,
    sizes: Any,
    skipped: Any,
    cut_starts: Any,
    losses: Any,
    needed_us: Any,
    steady_us: Any,
) -> Any:
    """Rows: read, hour, end, writer. The cuts behind what is alive, where the losses add up to the least.

    What lies below the minimum is written with each branch behind it, so a branch written for 5m would shorten the
    life of one that was written for 1h. Where that one will still be read, 5m is no choice for the first node.
    """
    count = len(at_us)
    found = np.zeros((4, count), np.int64)
    expires = np.full(len(sizes), -1, np.int64)
    ttl = np.zeros(len(sizes), np.int64)
    written = np.full(len(sizes), -1, np.int64)
    relied = np.full(len(sizes), -1, np.int64)  # of what lies below the minimum: until when a branch needs it
    for i in range(count):
        now, at = at_us[i], cut_starts[i]
        path = nodes[starts[i] + skipped[i] : starts[i + 1]]
        below = nodes[starts[i] : starts[i] + skipped[i]]
        read = 0
        while read < len(path) and expires[path[read]] >= now:
            expires[path[read]] = now + ttl[path[read]]
            read += 1
        found[3, i] = written[path[read - 1]] if read else -1
        # In losses against sending all plain; `lead` is what 1h up to the best place for the cut has before 5m.
        hour = end = lead_at = read
        five = ahead = least = lead = np.int64(0)
        if not read:
            for k in range(len(below)):
                if relied[below[k]] > steady_us[starts[i] + k] + FIVE_US:
                    lead = np.int64(1) << 62
        for k in range(read, len(path)):
            size = sizes[path[k]]
            five += size * (losses[1, at + k] - losses[0, at + k])
            ahead += size * (losses[2, at + k] - losses[1, at + k])
            if ahead < lead:
                lead, lead_at = ahead, k + 1
            if lead + five < least:
                least, hour, end = lead + five, lead_at, k + 1
        for k in range(read, end):
            ttl[path[k]] = HOUR_US if k < hour else FIVE_US
            expires[path[k]] = now + ttl[path[k]]
            written[path[k]] = i
        if len(path) and expires[path[0]] == now + HOUR_US:
            for node in below:
                relied[node] = max(relied[node], needed_us[at])
        found[0, i], found[1, i], found[2, i] = read, hour, end
    return found


# --- breakpoints ---------------------------------------------------------------------------------------------------


def _marks(read: int, hour: int, end: int, wanted: Mapping[int, int], depth: Any) -> list[int]:
    """Positions of a request's breakpoints. Of more than four, those that let later requests read the most."""
    needed = {cut - 1 for cut in (hour, end) if cut > read}
    marks = sorted(needed | wanted.keys())
    if read and not any(read - 1 <= at < read - 1 + LOOKBACK for at in marks):
        needed.add(read - 1)
        marks.insert(0, read - 1)
    if len(marks) <= MOST_MARKERS:
        return marks
    return _best(marks, needed, wanted, [depth(at) for at in marks])


def _best(marks: list[int], needed: set[int], wanted: Mapping[int, int], depths: list[int]) -> list[int]:
    """Four of them, the needed ones among them: a read that wants a place gets the last breakpoint up to there."""
    counts = [wanted.get(at, 0) for at in marks]
    whole = 1 + sum(counts) * depths[-1]  # more than all reads together are worth

    def read(last: int, until: int) -> int:
        """What is read by those that want places from the breakpoint `last` on, before the next one."""
        return sum(counts[last:until]) * depths[last] if last >= 0 else 0

    found: dict[int, tuple[int, tuple[int, ...]]] = {-1: (0, ())}  # by the last breakpoint
    for _ in range(MOST_MARKERS):
        found = {
            j: max(
                (value + read(i, j) + (whole if at in needed else 0), (*chosen, j))
                for i, (value, chosen) in found.items()
                if i < j
            )
            for j, at in enumerate(marks)
            if min(found) < j
        }
    _, chosen = max((value + read(j, len(marks)), chosen) for j, (value, chosen) in found.items())
    return [marks[j] for j in chosen]
