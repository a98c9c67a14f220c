"""What each node of a trace costs from each access on: the bound for any rates and with pings, and the plan's guide.

The shortest path over a node's accesses, with three states: not cached, kept for five minutes, kept for an hour. One
pass from the last access to the first says for each access what the rest costs if the node is sent plain, or written
to live so long. Where one card holds, the best at the first access equals the closed form of _bound.py (the tests
hold the two together); this one also takes a card for each request, for prices by prompt size and by date.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul
from typing import Any, NamedTuple

import numpy as np

from farthing.meters import Vector

from ._bound import FIVE_US, HOUR_US, check_rates
from ._jit import jit
from ._trace import Ints, Trace


class Cards(NamedTuple):
    """The rates of each request: request i pays `rates[of[i]]`."""

    rates: tuple[Vector, ...]
    of: Ints

    @classmethod
    def one(cls, rates: Vector, trace: Trace) -> Cards:
        """These rates for all of them."""
        return cls((rates,), np.zeros(trace.requests, np.int64))

    def price(self, tokens: Sequence[Ints]) -> int:
        """What tokens come to, as five columns in the order of the meters, one entry a request. Exact."""
        picos: int = 0
        for card, rates in enumerate(self.rates):
            for rate, column in zip(rates, tokens, strict=True):
                picos += rate * _exact_sum(column[self.of == card])
        return picos


class Accesses(NamedTuple):
    """A trace as the bound sees it: in each path, what is below the minimum counts with the first node that reaches it.

    Positions count from there: `skipped` says how many nodes of the path come before, for each request.
    """

    starts: Ints
    nodes: Ints
    sizes: Ints  # by node
    skipped: Ints


class Values(NamedTuple):
    """For each access, what a token of its node costs from here on: sent plain, or written, and the best of them."""

    plain: Ints
    five: Ints
    hour: Ints
    best: Ints


def accesses(trace: Trace, minimum: int) -> Accesses:
    """The cacheable part of every path."""
    depth = _depths(trace)
    usable = depth >= minimum
    sizes = trace.sizes.copy()
    entering = usable & (depth - trace.sizes[trace.nodes] < minimum)
    sizes[trace.nodes[entering]] = depth[entering]
    before = np.concatenate([[0], np.cumsum(usable)]).astype(np.int64)
    starts = before[trace.starts]
    return Accesses(starts, trace.nodes[usable], sizes, np.diff(trace.starts) - np.diff(starts))


def _depths(trace: Trace) -> Ints:
    """For each access, the tokens of the prompt up to the end of its node."""
    walked = np.cumsum(trace.sizes[trace.nodes])
    before = np.concatenate([[0], walked]).astype(np.int64)[trace.starts[:-1]]
    return (walked - np.repeat(before, np.diff(trace.starts))).astype(np.int64)


def values(trace: Trace, cut: Accesses, cards: Cards, *, pings: bool = False) -> Values:
    """Costs to go, in the order of the trace's accesses; with pings, a node can be kept alive for a read each."""
    for rates in cards.rates:
        check_rates(rates)
    lengths = np.diff(cut.starts)
    order = np.argsort(cut.nodes, kind="stable")  # by node, and by time within it
    table = np.array([list(rates) for rates in cards.rates], np.int64)
    costs = _costs_to_go(
        cut.nodes[order],
        np.repeat(trace.at_us, lengths)[order],
        np.repeat(cards.of, lengths)[order],
        table,
        pings,
    )
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return Values(*(costs[state][back] for state in range(4)))


def bound(trace: Trace, minimum: int, cards: Cards, *, pings: bool = False) -> int:
    """Picodollars that no plan can go below, output included: segments survive alone, entries are there at once."""
    cut = accesses(trace, minimum)
    best = values(trace, cut, cards, pings=pings).best
    _, first = np.unique(cut.nodes, return_index=True)
    sizes = cut.sizes[cut.nodes]
    walked = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)[cut.starts]
    zero = np.zeros(trace.requests, np.int64)
    apart = (trace.prompt - np.diff(walked), trace.output, zero, zero, zero)
    nodes: int = sum(map(mul, best[first].tolist(), sizes[first].tolist()))
    return cards.price(apart) + nodes


def uncached(trace: Trace, cards: Cards) -> int:
    """What the trace costs without a cache."""
    zero = np.zeros(trace.requests, np.int64)
    return cards.price((trace.prompt, trace.output, zero, zero, zero))


def _exact_sum(column: Ints) -> int:
    """Its sum as a Python int: halves apart, since a table of calls may hold more than 64 bits of tokens."""
    return (int((column >> 32).sum()) << 32) + int((column & 0xFFFFFFFF).sum())


@jit
def _costs_to_go(nodes: Any, at_us: Any, card: Any, rates: Any, pings: Any) -> Any:
    """Rows: plain, five, hour, best. A read may also be left out, as if the entry were gone: no plan gains by less."""
    count = len(nodes)
    costs = np.empty((4, count), np.int64)
    read_five = read_hour = np.int64(0)
    for i in range(count - 1, -1, -1):
        rate = rates[card[i]]
        dead = alive_five = alive_hour = np.int64(0)
        if i + 1 < count and nodes[i + 1] == nodes[i]:
            gap = at_us[i + 1] - at_us[i]
            dead = alive_five = alive_hour = costs[3, i + 1]
            if gap <= FIVE_US:
                alive_five = read_five
            elif pings:
                alive_five = min(dead, read_five + rate[2] * ((gap - 1) // FIVE_US))
            if gap <= HOUR_US:
                alive_hour = read_hour
            elif pings:
                alive_hour = min(dead, read_hour + rate[2] * ((gap - 1) // HOUR_US))
        costs[0, i] = rate[0] + dead
        costs[1, i] = rate[3] + alive_five
        costs[2, i] = rate[4] + alive_hour
        costs[3, i] = min(costs[0, i], costs[1, i], costs[2, i])
        read_five = min(rate[2] + alive_five, costs[3, i])
        read_hour = min(rate[2] + alive_hour, costs[3, i])
    return costs
