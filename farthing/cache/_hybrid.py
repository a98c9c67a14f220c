"""Batch or cache, for a trace that is known whole: which requests to batch, and a proof of how little it could cost.

A batched request pays less for every token and is not in the cache: it reads nothing, and renews nothing for others.
Whether it is batched is one decision for all nodes of its path, and that alone ties the nodes together. So each access
gets its own decision, and a price a token for being batched; whatever the prices, the least of all nodes apart, plus
what the prices of a path overdraw of a batch's, is no more than the best decision costs (Lagrangian relaxation).
The prices are moved to where the accesses of a request agree, by subgradients; what most of its tokens say is rounded,
and then requests are flipped one by one as long as that saves something.

All of it is integers. Prices are whole picodollars, and whichever the search ends with, what they prove is exact.
"""

from __future__ import annotations

from operator import mul
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from farthing.meters import Vector

from ._bound import FIVE_US, HOUR_US, check_rates
from ._jit import jit
from ._trace import Ints, Trace, radix, select
from ._values import Accesses, Cards, _exact_sum, accesses, bound

Bools = npt.NDArray[np.bool_]
SWEEPS, FEWEST_SWEEPS = 200, 20
_LOOKS = 15_000_000  # accesses looked at in all sweeps: over a large trace there are fewer of them
ONE = 1_024  # shares are parts of it
_PATIENCE = 8  # sweeps without a better bound, then steps are halved
_CLOSE = 2_000_000  # of the cost: a gap of less than one in so many is closed
_WORK = 100_000_000  # accesses looked at while flipping, in all


class Hybrid(NamedTuple):
    """Picodollars, output included. `cost` is of the batched and the bound of the rest; no choice is below `bound`."""

    cost: int
    bound: int
    batched: Bools


class _Parts(NamedTuple):
    """Accesses by node and time, in pieces between which nothing lives: `firsts[c]:firsts[c + 1]` is a piece."""

    firsts: Ints
    at_us: Ints
    card: Ints
    rates: Ints
    sizes: Ints
    request: Ints
    waits: Bools
    starts: Ints  # of each request, in `places`
    places: Ints  # of its accesses
    piece: Ints  # of each access


def hybrid(trace: Trace, minimum: int, cards: Cards, batch: Vector, deferrable: Bools) -> Hybrid:
    """The cheapest choice found among the requests that may wait, at the rates `batch`, and what none can go below."""
    for rates in cards.rates:
        check_rates(rates)
    trace = radix(trace)
    cut = accesses(trace, minimum)
    parts = _parts(trace, cut, cards, deferrable)
    extra = _extra(trace, cut, cards, batch)
    prices, found = _search(parts, extra, deferrable)
    choices = [np.zeros(trace.requests, bool), deferrable.copy(), found]
    costs = [_cost(trace, minimum, cards, batch, chosen) for chosen in choices]
    least = min(range(3), key=costs.__getitem__)
    each = _relaxed(*parts[:4], prices, parts.waits)[0]
    zero = np.zeros(trace.requests, np.int64)
    proved = cards.price((_apart(trace, cut), trace.output, zero, zero, zero))
    proved += sum(map(mul, each.tolist(), parts.sizes[parts.firsts[:-1]].tolist()))
    proved += sum(_overdrawn(parts, extra, prices, deferrable).tolist())
    return Hybrid(costs[least], proved, choices[least])


def _parts(trace: Trace, cut: Accesses, cards: Cards, deferrable: Bools) -> _Parts:
    lengths = np.diff(cut.starts)
    order = np.argsort(cut.nodes, kind="stable")
    request = np.repeat(np.arange(trace.requests), lengths)[order]
    nodes, at_us = cut.nodes[order], trace.at_us[request]
    first = np.ones(len(order), bool)
    first[1:] = (nodes[1:] != nodes[:-1]) | (at_us[1:] - at_us[:-1] > HOUR_US)
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return _Parts(
        firsts=np.append(np.flatnonzero(first), len(order)).astype(np.int64),
        at_us=at_us,
        card=cards.of[request],
        rates=np.array([list(rates) for rates in cards.rates], np.int64),
        sizes=cut.sizes[nodes],
        request=request,
        waits=deferrable[request],
        starts=cut.starts,
        places=places,
        piece=np.cumsum(first).astype(np.int64) - 1,
    )


def _apart(trace: Trace, cut: Accesses) -> Ints:
    """Of each prompt, the tokens that cannot be cached."""
    walked = np.concatenate([[0], np.cumsum(cut.sizes[cut.nodes])]).astype(np.int64)[cut.starts]
    return trace.prompt - np.diff(walked)


def _extra(trace: Trace, cut: Accesses, cards: Cards, batch: Vector) -> Ints:
    """What each request costs in a batch, less what it costs outside whatever is cached."""
    rates = np.array([list(card) for card in cards.rates], np.int64)[cards.of]
    alone = _apart(trace, cut) * rates[:, 0] + trace.output * rates[:, 1]
    return np.asarray(trace.prompt * batch.input + trace.output * batch.output - alone, np.int64)


def _cost(trace: Trace, minimum: int, cards: Cards, batch: Vector, chosen: Bools) -> int:
    """The batched requests, and the bound of the rest."""
    zero = np.zeros(int(chosen.sum()), np.int64)
    sent = Cards((batch,), zero).price((trace.prompt[chosen], trace.output[chosen], zero, zero, zero))
    return sent + bound(select(trace, ~chosen), minimum, Cards(cards.rates, cards.of[~chosen]))


def _overdrawn(parts: _Parts, extra: Ints, prices: Ints, deferrable: Bools) -> Ints:
    """Of each request that may wait, by how much a batch costs less than the prices of its path; else 0."""
    paid = _by_request(parts, prices * parts.sizes, len(extra))
    return np.where(deferrable, np.minimum(extra - paid, 0), 0)


# --- the search ----------------------------------------------------------------------------------------------------


def _search(parts: _Parts, extra: Ints, deferrable: Bools) -> tuple[Ints, Bools]:
    """The prices that prove the most, and the cheapest choice on the way to them."""
    walked = _by_request(parts, parts.sizes, len(extra))
    chosen = deferrable & (extra < 0) & (walked == 0)
    least = _total(parts, extra, chosen)
    prices = best_prices = _allotted(parts, extra, walked, np.zeros_like(parts.sizes))
    best = least - (1 << 100)  # anything proves more
    sums, halved, waited, work = np.zeros_like(extra), 0, 0, _WORK
    sweeps = min(SWEEPS, max(FEWEST_SWEEPS, _LOOKS // max(1, len(prices))))
    for sweep in range(sweeps):
        each, batched = _relaxed(*parts[:4], prices, parts.waits)
        proved = _exact_sum(each * parts.sizes[parts.firsts[:-1]]) + _exact_sum(
            _overdrawn(parts, extra, prices, deferrable)
        )
        waited += 1
        if proved > best:
            best, best_prices, waited = proved, prices, 0
        share = _by_request(parts, parts.sizes * batched, len(extra)) * ONE // np.maximum(walked, 1)
        sums += share
        starts = [_rounded(share, walked, extra, deferrable)]
        if sweep % 50 == 10 or sweep == sweeps - 1:
            for start in (chosen, _rounded(sums // (sweep + 1), walked, extra, deferrable)):
                moved, work = _flipped(parts, extra, start, np.abs(2 * share - ONE), deferrable, work)
                starts.append(moved)
        for start in starts:
            if (cost := _total(parts, extra, start)) < least:
                chosen, least = start, cost
        apart = np.where(parts.waits, ONE * batched - share[parts.request], 0)
        norm = _exact_sum(parts.sizes * apart**2)
        if norm == 0 or (least - best) * _CLOSE <= abs(least):
            break
        if waited >= _PATIENCE:
            halved, waited, prices = halved + 1, 0, best_prices
            continue
        step = (
            max(least - best, 1) * ONE**2 // norm >> halved
        )  # a part in ONE of a picodollar, for a part in ONE
        most = 20 * int(parts.rates.max())
        moved_by = apart * min(step, most) // ONE
        prices = _allotted(parts, extra, walked, np.clip(prices + moved_by, -most, most))
    return best_prices, chosen


def _by_request(parts: _Parts, tokens: Ints, count: int) -> Ints:
    """Their sums over the accesses of each request."""
    sums = np.zeros(count, np.int64)
    np.add.at(sums, parts.request, tokens)
    return sums


def _allotted(parts: _Parts, extra: Ints, walked: Ints, prices: Ints) -> Ints:
    """The prices, moved alike over each path so that they come to what a batch costs there, but for less than one."""
    left = extra - _by_request(parts, prices * parts.sizes, len(extra))
    return np.asarray(prices + (left // np.maximum(walked, 1))[parts.request], np.int64)


def _rounded(share: Ints, walked: Ints, extra: Ints, deferrable: Bools) -> Bools:
    """Batched as most of its tokens say; what has none that could be cached, if a batch costs less."""
    return np.asarray(deferrable & np.where(walked > 0, 2 * share >= ONE, extra < 0), bool)


def _total(parts: _Parts, extra: Ints, chosen: Bools) -> int:
    """What a choice costs, less what all requests pay outside of what is cached."""
    each = _spent(*parts[:4], chosen[parts.request])
    return _exact_sum(each * parts.sizes[parts.firsts[:-1]]) + _exact_sum(extra[chosen])


def _flipped(
    parts: _Parts, extra: Ints, chosen: Bools, doubt: Any, deferrable: Bools, work: int
) -> tuple[Bools, int]:
    """The choice after flipping single requests, the doubtful first, as long as one saves something; and work left."""
    order = np.argsort(doubt, kind="stable")
    order = order[deferrable[order]]
    made = chosen.copy()
    left = _flip(
        *parts[:5], parts.starts, parts.places, parts.piece, order, extra, made, chosen[parts.request], work
    )
    return made, int(left)


# --- compiled ------------------------------------------------------------------------------------------------------


@jit
def _relaxed(firsts: Any, at_us: Any, card: Any, rates: Any, prices: Any, waits: Any) -> Any:
    """The least a token of each piece costs where each access may be batched at its price; and which are.

    From the last access to the first. What an entry leads to is the best of the reads within its life, with all
    accesses between batched: the least of a window, which a queue keeps; no read leads past what may not wait.
    """
    count = len(at_us)
    least = np.zeros(len(firsts) - 1, np.int64)
    how = np.zeros(
        count, np.int64
    )  # with nothing cached: 0 plain, 1 for five minutes, 2 for an hour, 3 batched
    follow = np.full((2, count), -1, np.int64)  # the next read, or -1 if the entry is left to die
    worth = np.zeros((2, count), np.int64)  # of a read: what it leads to, with all prices before it
    queue = np.zeros((2, count), np.int64)
    ends = np.zeros((2, 2), np.int64)  # where each queue begins and ends
    before = np.zeros(count + 1, np.int64)
    for i in range(count):
        before[i + 1] = before[i] + (prices[i] if waits[i] else 0)
    for c in range(len(firsts) - 1):
        rest = np.int64(0)
        ends[0, 0] = ends[0, 1] = ends[1, 0] = ends[1, 1] = 0
        for i in range(firsts[c + 1] - 1, firsts[c] - 1, -1):
            of = card[i]
            best = rates[of, 0] + rest
            for t in range(2):
                until_us = at_us[i] + (FIVE_US if t == 0 else HOUR_US)
                k = follow[t, i] = _next_read(t, at_us, worth, queue, ends, until_us, before[i + 1] + rest)
                alive = worth[t, k] - before[i + 1] if k >= 0 else rest
                worth[t, i] = before[i] + rates[of, 2] + alive
                if rates[of, 3 + t] + alive < best:
                    best, how[i] = rates[of, 3 + t] + alive, 1 + t
            if waits[i] and prices[i] + rest < best:
                best, how[i] = prices[i] + rest, 3
            for t in range(2):
                _queue(t, i, waits[i], worth, queue, ends)
            rest = best
        least[c] = rest
    return least, _taken(firsts, how, follow)


@jit
def _next_read(t: Any, at_us: Any, worth: Any, queue: Any, ends: Any, until_us: Any, than: Any) -> Any:
    """The best read until then, if it is worth less than that; else -1. The queue loses what comes later."""
    while ends[t, 0] < ends[t, 1] and at_us[queue[t, ends[t, 0]]] > until_us:
        ends[t, 0] += 1
    if ends[t, 0] < ends[t, 1] and worth[t, queue[t, ends[t, 0]]] < than:
        return queue[t, ends[t, 0]]
    return -1


@jit
def _queue(t: Any, i: Any, waits: Any, worth: Any, queue: Any, ends: Any) -> Any:
    """Puts a read before the others: what costs no less and comes later is forgotten, as is what it bars."""
    if not waits:
        ends[t, 0] = ends[t, 1] = 0
    while ends[t, 0] < ends[t, 1] and worth[t, queue[t, ends[t, 1] - 1]] >= worth[t, i]:
        ends[t, 1] -= 1
    queue[t, ends[t, 1]] = i
    ends[t, 1] += 1


@jit
def _taken(firsts: Any, how: Any, follow: Any) -> Any:
    """Which accesses the cheapest path of each piece batches."""
    batched = np.zeros(len(how), np.bool_)
    for c in range(len(firsts) - 1):
        i, ttl = firsts[c], -1  # -1: nothing is cached
        while i < firsts[c + 1]:
            if ttl < 0:
                batched[i] = how[i] == 3
                if how[i] == 1 or how[i] == 2:
                    ttl = how[i] - 1
            k = follow[ttl, i] if ttl >= 0 else -1
            if k < 0:
                ttl, k = -1, i + 1
            batched[i + 1 : k] = True
            i = k
    return batched


@jit
def _piece(first: Any, end: Any, at_us: Any, card: Any, rates: Any, batched: Any) -> Any:
    """What a token of a piece costs at the least, without the accesses that are batched."""
    rest = read_five = read_hour = next_us = np.int64(0)
    some = False
    for i in range(end - 1, first - 1, -1):
        if batched[i]:
            continue
        rate = rates[card[i]]
        five = hour = rest
        if some and next_us - at_us[i] <= FIVE_US:
            five = read_five
        if some and next_us - at_us[i] <= HOUR_US:
            hour = read_hour
        rest = min(rate[0] + rest, rate[3] + five, rate[4] + hour)
        read_five, read_hour = min(rate[2] + five, rest), min(rate[2] + hour, rest)
        next_us, some = at_us[i], True
    return rest


@jit
def _spent(firsts: Any, at_us: Any, card: Any, rates: Any, batched: Any) -> Any:
    """The same for all pieces."""
    spent = np.zeros(len(firsts) - 1, np.int64)
    for c in range(len(spent)):
        spent[c] = _piece(firsts[c], firsts[c + 1], at_us, card, rates, batched)
    return spent


@jit
def _flip(
    firsts: Any, at_us: Any, card: Any, rates: Any, sizes: Any, starts: Any, places: Any, piece: Any,
    order: Any, extra: Any, chosen: Any, batched: Any, work: Any,
) -> Any:  # fmt: skip
    """Flips in `chosen` what saves something, until nothing does or the work is used up."""
    spent = _spent(firsts, at_us, card, rates, batched)
    since = 0  # requests looked at since the last flip
    while len(order) and since <= len(order) and work > 0:
        for i in order:
            delta = -extra[i] if chosen[i] else extra[i]
            for at in places[starts[i] : starts[i + 1]]:
                c = piece[at]
                batched[at] = not chosen[i]
                new = _piece(firsts[c], firsts[c + 1], at_us, card, rates, batched)
                delta += sizes[at] * (new - spent[c])
                work -= firsts[c + 1] - firsts[c]
            since += 1
            if delta < 0:
                chosen[i], since = not chosen[i], 0
            for at in places[starts[i] : starts[i + 1]]:
                batched[at] = chosen[i]
                if since == 0:
                    c = piece[at]
                    spent[c] = _piece(firsts[c], firsts[c + 1], at_us, card, rates, batched)
            if since > len(order) or work <= 0:
                break
    return work
