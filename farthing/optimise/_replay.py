"""A lot's trace played under policies: what today's configuration comes to, what another would, and the least."""

from __future__ import annotations

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
    Policy,
    Trace,
    Unpriceable,
    bound,
    cards_for,
    radix,
    simulate,
)
from farthing.meters import Vector
from farthing.optimise._traffic import Traffic
from farthing.usage import Sku

GATE = (3, 100)  # of what was billed: a replay that is further off claims no dollars
ENOUGH = 100  # sessions, to tell what an hour's cache is worth (docs/decisions/0072-what-counts.md)
FEWEST = 10  # sessions, or hours, for an interval to mean anything
RESAMPLES = 400
SEED = 20_260
# What a client can do by marking its prompts; what decides call by call (farthing.cache.BEST) needs a gateway.
BY_CLIENT: dict[str, Policy] = {
    **{name: POLICIES[name] for name in ("none", "end_5m", "end_1h", "system_end_5m", "system_end_1h")},
    "system_5m": Policy(system_ttl_us=FIVE_US),
    "system_1h": Policy(system_ttl_us=HOUR_US),
    "system_1h_end_5m": Policy(system_ttl_us=HOUR_US, end_ttl_us=FIVE_US),
}
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


class Stage:
    """A traffic under the rates of one model: plays each policy once."""

    def __init__(self, book: Book, traffic: Traffic, sku: Sku, at: datetime) -> None:
        """Unpriceable where the model has no rates for cached tokens."""
        self.traffic = traffic
        self.cards, _ = cards_for(book, sku, traffic.trace, at, dated=True)
        least = book.models[sku.model].cache_minimum(sku.platform, at.date())
        self.minimum = 1_024 if least is None else least
        self._played: dict[Policy, Played] = {}

    def today(self) -> Played:
        return self.play(self.traffic.today)

    def play(self, policy: Policy) -> Played:
        if policy not in self._played:
            rates = self.cards.rates[0]
            self._played[policy] = self._priced(
                simulate(self.traffic.trace, policy, rates, self.minimum).each
            )
        return self._played[policy]

    def billed(self) -> Played:
        """What was billed, at the same rates."""
        return self._priced(self.traffic.billed)

    def least(self) -> int:
        """The bound, with pings: no policy is below it."""
        merged: Trace = radix(self.traffic.trace)
        return bound(merged, self.minimum, self.cards, pings=True)

    def _priced(self, tokens: Vector) -> Played:
        rates = np.array([list(card) for card in self.cards.rates], float)[self.cards.of]
        each = sum(rates[:, i] * column for i, column in enumerate(tokens))
        return Played(Cards.price(self.cards, tokens), each)

    def error(self) -> tuple[int, int]:
        """By how much the replay of today is off the bill: part and whole."""
        billed = self.billed().cost
        return self.today().cost - billed, billed

    def calibrated(self) -> bool:
        part, whole = self.error()
        return abs(part) * GATE[1] <= GATE[0] * whole

    def ratio(self, policy: Policy) -> Ratio:
        """With the interval of a cluster bootstrap: sessions are drawn again, and the sums' ratio taken.

        What a policy learns it learns as the trace goes, from the past alone, so there is nothing fitted to refit.
        """
        before, after = self.today(), self.play(policy)
        sums = [np.bincount(self.traffic.cluster, weights=one.each) for one in (before, after)]
        drawn = _resampled(sums)
        low, high = np.quantile(drawn, [0.025, 0.975])
        whole = before.cost
        mid = after.cost
        return Ratio(min(mid, int(low * whole)), mid, max(mid, int(high * whole)), whole)


def _resampled(sums: Sequence[Any]) -> Any:
    """Ratios of the sums over clusters that are drawn with replacement."""
    random = np.random.default_rng(SEED)
    count = len(sums[0])
    table = np.stack(sums, axis=1)
    chances = np.full(count, 1 / count)
    drawn = np.concatenate(
        [random.multinomial(count, chances, size=50).astype(float) @ table for _ in range(RESAMPLES // 50)]
    )
    whole = np.where(drawn[:, 0] > 0, drawn[:, 0], 1.0)
    return drawn[:, 1] / whole


def stage(book: Book, traffic: Traffic, sku: Sku, at: datetime) -> Stage | None:
    try:
        return Stage(book, traffic, sku, at)
    except Unpriceable:
        return None


def policy_of(name: str, traffic: Traffic) -> Policy:
    return traffic.today if name == AS_IS else BY_CLIENT[name]


def off(found: Stage) -> float:
    """How far the replay of today is from the bill, whichever way: to choose between two traces of the same calls."""
    part, whole = found.error()
    return abs(part) / whole if whole else 0.0
