"""A lot's trace played under policies: what today's configuration comes to, what another would, and the least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from farthing.book import Book
from farthing.cache import (
    FIVE_US,
    HOUR_US,
    POLICIES,
    Cards,
    Cold,
    Hybrid,
    Ints,
    Policy,
    Trace,
    Unpriceable,
    bound,
    cards_for,
    cold,
    hybrid,
    radix,
    simulate,
    take,
)
from farthing.meters import Vector
from farthing.optimise._scenarios import find
from farthing.optimise._traffic import Traffic
from farthing.usage import Sku

GATE = (3, 100)  # of what was billed: a replay that is further off claims no dollars
ENOUGH = 100  # sessions, to tell what an hour's cache is worth (docs/decisions/0072-what-counts.md)
FEWEST = 10  # sessions, or hours, for an interval to mean anything
RESAMPLES = 400
ROUNDS = 6  # of asking which calls a batch makes cheaper
APART_US = 1_000_000  # calls in the order of their prefixes, one after the other
SEED = 20_260
DAY_US = 86_400_000_000
# What a client can do by marking its prompts.
BY_CLIENT: dict[str, Policy] = {
    **{name: POLICIES[name] for name in ("none", "end_5m", "end_1h", "system_end_5m", "system_end_1h")},
    "system_5m": Policy(system_ttl_us=FIVE_US),
    "system_1h": Policy(system_ttl_us=HOUR_US),
    "system_1h_end_5m": Policy(system_ttl_us=HOUR_US, end_ttl_us=FIVE_US),
}
# Decided call by call: for calls that pass the gateway, which runs them (farthing.cache.Autopilot).
BY_GATEWAY = ("guarded_5m", "guarded_1h", "adaptive_unpinged", "adaptive")
BY_SETTINGS = ("end_5m", "end_1h")  # Claude Code marks by itself: only how long it asks for can be set
AS_IS = ""


class Played(NamedTuple):
    """Costs in picodollars. `each` are those of the requests, as floats: intervals are made of them."""

    cost: int
    each: Any


class Ratio(NamedTuple):
    """A policy's cost over today's, both replayed: parts of `whole`."""

    low: int
    mid: int
    high: int
    whole: int


SAME = Ratio(1, 1, 1, 1)


class Way(NamedTuple):
    """How a trace is sent: under a policy, with calls that may wait batched where that is less, or put in order."""

    policy: Policy
    batch: bool = False
    window_us: int = (
        0  # calls that may wait are held so long at most, and sent in the order of their prefixes
    )
    settled: bool = False  # with what changes from call to call at the end of the prompt


class Stage:
    """A traffic under the rates of one model: plays each policy once."""

    def __init__(self, book: Book, traffic: Traffic, sku: Sku, at: datetime) -> None:
        """Unpriceable where the model has no rates for cached tokens."""
        self.traffic = traffic
        self.cards, _ = cards_for(book, sku, traffic.trace, at, dated=True)
        least = book.models[sku.model].cache_minimum(sku.platform, at.date())
        self.minimum = 1_024 if least is None else least
        self._played: dict[Way, Played] = {}
        self._held: dict[tuple[int, bool], Ints] = {}
        self._hybrid: dict[tuple[int, bool], Hybrid] = {}
        self._cold: dict[tuple[Policy, int, bool], Cold] = {}
        self.batched = _batched(book, sku, at)

    def today(self) -> Played:
        return self.play(Way(self.traffic.today))

    def play(self, way: Way | Policy) -> Played:
        """What the trace comes to, sent in this way."""
        way = Way(way) if isinstance(way, Policy) else way
        if way not in self._played:
            played = self._mixed(way) if way.batch else self._sent(way, None)
            self._played[way] = played
        return self._played[way]

    def _sent(self, way: Way, without: Any) -> Played:
        """Under the policy, but for some requests, which cost nothing here."""
        trace, cards = self.trace(settled=way.settled), self.cards
        order = np.arange(trace.requests) if without is None else np.flatnonzero(~without)
        at_us = self._times(way.window_us, settled=way.settled)[order]
        again = np.lexsort((np.arange(len(order)), at_us))
        order = order[again]
        if not len(order):
            return Played(0, np.zeros(trace.requests))
        sent = take(trace, order)._replace(at_us=at_us[again])
        tokens = simulate(sent, way.policy, cards.rates[0], self.minimum).each
        some = Cards(cards.rates, cards.of[order])
        each = np.zeros(trace.requests)
        each[order] = _priced(some, tokens)
        return Played(some.price(tokens), each)

    def trace(self, *, settled: bool = False) -> Trace:
        """What was sent, or would be sent if what changes came last."""
        return self.traffic.settled if settled and self.traffic.settled else self.traffic.trace

    def _times(self, window_us: int, *, settled: bool = False) -> Ints:
        asked = window_us, settled
        if asked not in self._held:
            self._held[asked] = _held(self.trace(settled=settled), self.traffic.deferrable, window_us)
        return self._held[asked]

    def _mixed(self, way: Way) -> Played:
        """Each call that may wait sent as a batch if it costs less so than in the cache, as the cache then is.

        What is batched no longer warms the cache for others, so this is asked again until nothing changes, a few times
        at most; all and none are tried too, and last what hindsight would choose if markers were free. The least is
        taken: a plan that was played, not the best.
        """
        alone = self._sent(way._replace(batch=False), None)
        if self.batched is None or not self.traffic.deferrable.any():
            return alone
        trace, waits = self.traffic.trace, self.traffic.deferrable
        zero = np.zeros(trace.requests, np.int64)
        batched = _priced(Cards((self.batched,), zero), Vector(trace.prompt, trace.output, zero, zero, zero))
        best, sync, seen = alone, alone.each, set[bytes]()
        chosen, last = waits.copy(), self.optimum(way.window_us, settled=way.settled).batched
        for _ in range(ROUNDS + 1):
            rest = self._sent(way._replace(batch=False), chosen)
            prompt, output = int(trace.prompt[chosen].sum()), int(trace.output[chosen].sum())
            cost = rest.cost + prompt * self.batched.input + output * self.batched.output
            if cost < best.cost:
                best = Played(cost, np.where(chosen, batched, rest.each))
            if chosen is last:
                break
            seen.add(chosen.tobytes())
            sync = np.where(chosen, sync, rest.each)
            chosen = waits & (batched < sync)
            if chosen.tobytes() in seen or len(seen) == ROUNDS:
                chosen = last
        return best

    def optimum(self, window_us: int = 0, *, settled: bool = False) -> Hybrid:
        """Which calls to batch if all were known beforehand and markers were free, and what no choice goes below.

        Without pings, as all that is advised here.
        """
        assert self.batched is not None
        asked = window_us, settled
        if asked not in self._hybrid:
            trace, cards, waits = self.trace(settled=settled), self.cards, self.traffic.deferrable
            at_us = self._times(window_us, settled=settled)
            order = np.argsort(at_us, kind="stable")
            sent = take(trace, order)._replace(at_us=at_us[order])
            some = Cards(cards.rates, cards.of[order])
            made = hybrid(sent, self.minimum, some, self.batched, waits[order])
            batched = np.zeros(trace.requests, bool)
            batched[order] = made.batched
            self._hybrid[asked] = made._replace(batched=batched)
        return self._hybrid[asked]

    def cold(self, policy: Policy, span_us: int, *, settled: bool = False) -> Cold:
        """What it costs once to come to this model with prompts that are cached at another."""
        asked = policy, span_us, settled
        if asked not in self._cold:
            self._cold[asked] = cold(self.trace(settled=settled), policy, self.cards, self.minimum, span_us)
        return self._cold[asked]

    def billed(self) -> Played:
        """What was billed, at the same rates."""
        return self._priced(self.traffic.billed)

    def least(self, *, batch: bool = False, settled: bool = False) -> int:
        """The bound, with pings: no policy is below it.

        Where calls may be batched, each node of those that can wait may have the batch's rate by itself, and their
        output has it anyway: that leaves out that a call is batched whole or not at all, so it is a bound still.
        """
        merged: Trace = radix(self.trace(settled=settled))
        cards = self.cards
        if batch and self.batched is not None:
            into, out = self.batched.input, self.batched.output
            either = tuple(
                rates._replace(input=min(rates.input, into), output=min(rates.output, out))
                for rates in cards.rates
            )
            cards = Cards(
                cards.rates + either, cards.of + len(cards.rates) * self.traffic.deferrable.astype(np.int64)
            )
        return bound(merged, self.minimum, cards, pings=True)

    def _priced(self, tokens: Vector) -> Played:
        return Played(self.cards.price(tokens), _priced(self.cards, tokens))

    def error(self) -> tuple[int, int]:
        """By how much the replay of today is off the bill: part and whole."""
        billed = self.billed().cost
        return self.today().cost - billed, billed

    def calibrated(self) -> bool:
        part, whole = self.error()
        return abs(part) * GATE[1] <= GATE[0] * whole

    def ratio(self, way: Way | Policy) -> Ratio:
        """With the interval of a cluster bootstrap, by sessions and by days.

        What a policy learns it learns as the trace goes, from the past alone, so there is nothing fitted to refit.
        """
        before, after = self.today(), self.play(way)
        low, high = resampled(before.each, after.each, (self.traffic.cluster, days(self.traffic)))
        whole = before.cost
        mid = after.cost
        return Ratio(min(mid, int(low * whole)), mid, max(mid, int(high * whole)), whole)


def resampled(before: Any, after: Any, kinds: Sequence[Ints]) -> tuple[float, float]:
    """Between what the ratio of two sums lies, nineteen times of twenty, if whole clusters are drawn again.

    Each of `kinds` puts every request in a cluster; the ends are the widest of any of them, since what is alike in
    calls of one day does not average out over its sessions.
    """
    found = []
    for kind in kinds:
        _, cluster = np.unique(kind, return_inverse=True)
        table = np.stack([np.bincount(cluster, weights=one) for one in (before, after)], axis=1)
        random = np.random.default_rng(SEED)
        chances = np.full(len(table), 1 / len(table))
        drawn = np.concatenate(
            [
                random.multinomial(len(table), chances, size=50).astype(float) @ table
                for _ in range(RESAMPLES // 50)
            ]
        )
        whole = np.where(drawn[:, 0] > 0, drawn[:, 0], 1.0)
        found.append(np.quantile(drawn[:, 1] / whole, [0.025, 0.975]))
    return float(min(low for low, _ in found)), float(max(high for _, high in found))


def days(traffic: Traffic) -> Ints:
    """The day of each request, in UTC."""
    return np.asarray(traffic.trace.at_us // DAY_US, np.int64)


def _priced(cards: Cards, tokens: Vector) -> Any:
    rates = np.array([list(card) for card in cards.rates], float)[cards.of]
    return sum(rates[:, i] * column for i, column in enumerate(tokens))


def _batched(book: Book, sku: Sku, at: datetime) -> Vector | None:
    found = find(book, sku._replace(mode="batch"), at, 0, cached=False)
    return found.rates if found else None


def _held(trace: Trace, waits: Any, window_us: int) -> Ints:
    """When each request goes out: those that may wait are collected for half their window, and sent in order of
    their prefixes within the other half, a second apart or less. So none waits longer than it may."""
    at_us = trace.at_us.copy()
    half = window_us // 2
    if not half:
        return at_us
    held = np.flatnonzero(waits)
    window = at_us[held] // half
    paths = [trace.nodes[trace.starts[i] : trace.starts[i + 1]].tolist() for i in held.tolist()]
    counts = Counter(window.tolist())
    before, place = -1, 0
    for at in sorted(range(len(held)), key=lambda at: (window[at], paths[at])):
        place = place + 1 if window[at] == before else 0
        before = int(window[at])
        at_us[held[at]] = (before + 1) * half + place * min(APART_US, half // counts[before])
    return at_us


def stage(book: Book, traffic: Traffic, sku: Sku, at: datetime) -> Stage | None:
    try:
        return Stage(book, traffic, sku, at)
    except Unpriceable:
        return None


def policy_of(name: str, traffic: Traffic) -> Policy:
    return traffic.today if name == AS_IS else (BY_CLIENT | POLICIES)[name]


def off(found: Stage) -> float:
    """How far the replay of today is from the bill, whichever way: to choose between two traces of the same calls."""
    part, whole = found.error()
    return abs(part) / whole if whole else 0.0
