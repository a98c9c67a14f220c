"""What levers have saved since they were adopted: what the calls would have come to without, less what they came to.

The traffic since the adoption is its own control: replayed with the configuration of before, its volume and its mix
cancel exactly. Endpoint, model, batch and markers where there were none are rated again (_undone.py); a cache policy in
place of another is played on the traces of the sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from farthing.book import Card
from farthing.cache import POLICIES, Cards, Ints, Policy, Unpriceable, cards_for, select, simulate
from farthing.cells import Cell, Question
from farthing.ledger import Ledger
from farthing.meters import Vector
from farthing.money import from_usd, show
from farthing.optimise._advice import Interval
from farthing.optimise._lent import Lot
from farthing.optimise._replay import BY_CLIENT, ENOUGH, FEWEST, GATE, days, resampled
from farthing.optimise._traffic import Traffic, from_counts
from farthing.optimise._undone import Adopted, Worth, adopted, costs, ends, rated, sliced, slices_of
from farthing.policy import Entry, Period, Span
from farthing.usage import EPOCH, Sku

DELIVERS, LESS, FAILS, UNRESOLVED, IDLE = (
    "delivers", "saves less than estimated", "does not save", "not resolved", "not in use",
)  # fmt: skip
_MICROSECOND = timedelta(microseconds=1)


class Realised(NamedTuple):
    """An entry of the policy, held against the traffic since. `without` is what the calls would have come to.

    `estimated` is the advice's estimate for as much traffic as there was; None where none was given. `calls` are those
    of the workload and model while it was in force, `treated` those of them that went the entry's way.
    """

    entry: Entry
    spans: tuple[Span, ...]
    calls: int
    treated: int
    billed: int
    without: Interval | None
    saved: Interval | None
    estimated: Interval | None
    sessions: int  # replayed; 0 where tokens were rated
    calibration: str  # percent
    verdict: str
    says: str
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        return self.verdict == FAILS


def realised(
    ledger: Ledger,
    question: Question,
    periods: Sequence[Period],
    now: datetime,
    since: datetime | None = None,
    bodies: Mapping[Lot, Traffic] | None = None,
) -> list[Realised]:
    """Each entry that is, or was, in force; for those that never were, why.

    Traces are those of `bodies`, where a workload has some; else those that the counts of its sessions tell.
    """
    told = _Told(ledger, question, bodies or {})
    clipped = [made._replace(spans=_since(made.spans, since)) for made in periods]
    live = [made for made in clipped if made.spans]
    known = [made.entry for made in periods]
    found = {one.entry.name: one for one in adopted(ledger, question, live, known)}
    judged = [
        _one(told, found[made.entry.name], now) if made.spans else _idle(made, 0, 0, _never(made.entry, now))
        for made in clipped
    ]
    return [_sure(told, one, live, known) if one.failed and not one.sessions else one for one in judged]


def _since(spans: Sequence[Span], since: datetime | None) -> tuple[Span, ...]:
    return tuple((max(since or start, start), end) for start, end in spans if since is None or end > since)


def _never(entry: Entry, now: datetime) -> str:
    if not entry.approver:
        return "nobody has approved it: farthing policy adopt"
    if entry.approved_at > f"{now:%Y-%m-%dT%H:%M:%SZ}":
        return f"approved at {entry.approved_at}, which is still to come: is the clock right?"
    return (
        f"it is {entry.state}: nothing is done to calls"
        if entry.state != "on"
        else "not in force in these days"
    )


def _idle(made: Period, calls: int, billed: int, says: str) -> Realised:
    return Realised(made.entry, made.spans, calls, 0, billed, None, None, None, 0, "", IDLE, says)


# --- one entry -------------------------------------------------------------------------------------------------------


class _Told(NamedTuple):
    """What there is to tell by."""

    ledger: Ledger
    question: Question
    bodies: Mapping[Lot, Traffic]

    def traces(self, workload: str, spans: Sequence[Span]) -> Mapping[Lot, Traffic]:
        of_bodies = {lot: one for lot, one in self.bodies.items() if lot.workload == workload}
        days = replace(self.question, since=spans[0][0].date(), until=spans[-1][1].date(), tz="UTC")
        return of_bodies or from_counts(self.ledger, days, [workload])


def _one(told: _Told, one: Adopted, now: datetime) -> Realised:
    made, entry = one.made, one.entry
    calls, billed = sum(cell.calls for cell in one.cells), sum(cell.cost for cell in one.cells)
    if not calls:
        return _idle(made, 0, 0, f"no call of {entry.workload} since {made.spans[0][0]:%Y-%m-%d %H:%M} UTC")
    worth = _replayed(told, one, now) if one.replayed else rated(told.question, one)
    if isinstance(worth, str):
        return _idle(made, calls, billed, worth)._replace(
            estimated=_estimated(entry, costs(told.question, one))
        )
    saved = Interval(*(each - worth.with_ for each in ends(worth.without)))
    whole = costs(told.question, one) + saved.mid
    estimated = _estimated(entry, whole)
    verdict, says = _verdict(entry, saved, estimated, worth)
    without = Interval(*(whole - saved.mid + each for each in ends(saved)))
    notes = worth.notes + ((f"{one.unpriced:,} calls without a price are left out",) if one.unpriced else ())
    return Realised(
        entry, made.spans, calls, worth.treated, billed, without, saved, estimated, worth.sessions,
        worth.calibration, verdict, says, notes,
    )  # fmt: skip


def _estimated(entry: Entry, whole: int) -> Interval | None:
    """The advice's share of what its calls came to, of these; at a canary's share of them."""
    if not (entry.estimate.mid and entry.estimate.of) or not from_usd(entry.estimate.of):
        return None
    of = from_usd(entry.estimate.of)
    parts = (
        entry.estimate.low or entry.estimate.mid,
        entry.estimate.mid,
        entry.estimate.high or entry.estimate.mid,
    )
    return Interval(*(from_usd(part) * whole * entry.share // (of * 100) for part in parts))


def _verdict(entry: Entry, saved: Interval, estimated: Interval | None, worth: Worth) -> tuple[str, str]:
    off = f"farthing savings undo {entry.name}"
    if worth.unresolved:
        return UNRESOLVED, worth.unresolved
    few = worth.sessions and worth.sessions < ENOUGH
    if saved.high <= 0 and (not worth.sessions or worth.sessions >= FEWEST):
        return FAILS, f"switch it off: {off}"
    if saved.low <= 0:
        why = (
            f"{worth.sessions} sessions are too few: from {ENOUGH} on it can be told"
            if few
            else "it may cost more"
        )
        return UNRESOLVED, f"the interval {'spans' if saved.high > 0 else 'is below'} zero; {why}"
    if estimated and saved.high < estimated.low:
        return LESS, "it saves, and less than the advice said; look what has changed: farthing why"
    return DELIVERS, "as estimated" if estimated else "no estimate was given"


def _sure(told: _Told, one: Realised, live: Sequence[Period], known: Sequence[Entry]) -> Realised:
    """A lever that has cost so far, and may not go on to: what is written is paid at once, and read later.

    So it has failed where it costs in nineteen of twenty drawings of its hours, from ten of them on.
    """
    slices = slices_of(told.ledger, one.spans)
    again = adopted(told.ledger, told.question, live, known, slices)
    mine = next(each for each in again if each.entry.name == one.entry.name)
    found = [rated(told.question, each) for each in sliced(mine, len(slices))]
    worths = [each for each in found if not isinstance(each, str)]
    lost = f"it has cost {show(-one.saved.mid) if one.saved else ''} more so far"
    if len(worths) < FEWEST:
        few = f"{len(worths)} hours with calls are too few, from {FEWEST} on it can be told"
        return one._replace(verdict=UNRESOLVED, says=f"{lost}; {few}")
    paid, without = (
        np.array(each, float) for each in zip(*((w.with_, w.without.high) for w in worths), strict=True)
    )
    if resampled(paid, without, [np.arange(len(paid))])[1] >= 1:
        return one._replace(verdict=UNRESOLVED, says=f"{lost}; in other hours it may have saved as much")
    return one


# --- by replay -------------------------------------------------------------------------------------------------------


def _replayed(told: _Told, one: Adopted, now: datetime) -> Worth | str:
    """The sessions' traces under the cache policy of before; their bill is scaled to that of all calls."""
    entry, spans = one.entry, one.made.spans
    inside = {lot: _inside(each, spans) for lot, each in told.traces(entry.workload, spans).items()}
    lots = {lot: each for lot, each in inside.items() if each is not None}
    found = (_rates(told.question, lot, each, one.cells, now) for lot, each in lots.items())
    known = [each for each in found if each is not None]
    if not known:
        return "no session of it tells how prompts grew: only traces show what another cache policy comes to"
    old = (POLICIES | BY_CLIENT)[entry.was or ("end_1h" if entry.ttl == "5m" else "end_5m")]
    billed, played = [each.traffic.billed for each in known], [_played(each, old) for each in known]
    whole, replayed = _price(known, billed), _price(known, played)
    low, high = _bootstrap(known, billed, played)
    off = _calibration(entry, known, whole)
    bias = int(abs(off) * replayed)
    now_costs = costs(told.question, one)
    span = (min(replayed, int(low * whole)) - bias, replayed, max(replayed, int(high * whole)) + bias)
    without = Interval(*(each * now_costs // whole for each in span))
    percent = f"{Decimal(off.numerator * 100) / Decimal(off.denominator):.1f}"
    far = abs(off) > Fraction(*GATE)
    unresolved = f"the replay was {percent} % off, and more than {GATE[0]} % claims no dollars" if far else ""
    sessions = sum(each.traffic.sessions for each in known)
    calls = sum(cell.calls for cell in one.cells)
    return Worth(now_costs, without, calls, sessions, percent, _by(lots.values()), unresolved)


def _by(traffics: Iterable[Traffic]) -> tuple[str, ...]:
    return tuple(sorted({f"prefixes are told by {each.told_by}" for each in traffics}))


def _inside(traffic: Traffic, spans: Sequence[Span]) -> Traffic | None:
    """The requests of these spans."""
    at_us = traffic.trace.at_us
    chosen = np.zeros(len(at_us), bool)
    for start, end in spans:
        chosen |= (at_us >= _us(start)) & (at_us < _us(end))
    if not chosen.any():
        return None
    billed = Vector(*(column[chosen] for column in traffic.billed))
    clusters, cluster = np.unique(traffic.cluster[chosen], return_inverse=True)
    sessions = min(traffic.sessions, len(clusters))
    kept: Ints = cluster.astype(np.int64)
    return traffic._replace(
        trace=select(traffic.trace, chosen),
        billed=billed,
        cluster=kept,
        sessions=sessions,
        deferrable=traffic.deferrable[chosen],
    )


def _us(at: datetime) -> int:
    return (at - EPOCH) // _MICROSECOND


class _Rated(NamedTuple):
    """A traffic with the rates of each request, and from how many tokens its model caches."""

    traffic: Traffic
    cards: Cards
    minimum: int


def _rates(
    question: Question, lot: Lot, traffic: Traffic, mine: Iterable[Cell], now: datetime
) -> _Rated | None:
    """By the SKU that most of the lot was billed as; None if it has no calls, or no rates for cached tokens."""
    billed: dict[Sku, int] = {}
    for cell in mine:
        sku = cell.price.sku if isinstance(cell.price, Card) else None
        if sku and (sku.platform, sku.model) == (lot.platform, lot.model):
            billed[sku] = billed.get(sku, 0) + cell.cost
    if not billed:
        return None
    sku = max(billed, key=lambda sku: billed[sku])
    try:
        cards, _ = cards_for(question.book, sku, traffic.trace, now, dated=True)
    except Unpriceable:
        return None
    least = question.book.models[sku.model].cache_minimum(sku.platform, now.date())
    return _Rated(traffic, cards, 1_024 if least is None else least)


def _played(rated: _Rated, policy: Policy) -> Vector:
    """The tokens of each request under a cache policy."""
    return simulate(rated.traffic.trace, policy, rated.cards.rates[0], rated.minimum).each


def _price(known: Sequence[_Rated], tokens: Sequence[Vector]) -> int:
    return sum(each.cards.price(columns) for each, columns in zip(known, tokens, strict=True))


def _bootstrap(
    known: Sequence[_Rated], billed: Sequence[Vector], played: Sequence[Vector]
) -> tuple[float, float]:
    """Between what the ratio of the two lies, nineteen times of twenty: whole sessions, or days, are drawn again."""
    sums: tuple[list[Any], list[Any]] = ([], [])
    clusters: list[Ints] = []
    before = 0
    for each, *both in zip(known, billed, played, strict=True):
        rates = np.array([list(card) for card in each.cards.rates], float)[each.cards.of]
        for found, tokens in zip(sums, both, strict=True):
            found.append(sum(rates[:, i] * column for i, column in enumerate(tokens)))
        clusters.append(each.traffic.cluster + before)
        before = int(clusters[-1].max()) + 1
    by_day = np.concatenate([days(each.traffic) for each in known])
    paid, old = (np.concatenate(each) for each in sums)
    return resampled(paid, old, (np.concatenate(clusters), by_day))


def _calibration(entry: Entry, known: Sequence[_Rated], whole: int) -> Fraction:
    """How far the replay was off before the adoption; where that was not written down, how far it is now."""
    if entry.calibration:
        return Fraction(entry.calibration.replace("%", "").replace("+", "").strip()) / 100
    today = _price(known, [_played(each, each.traffic.today) for each in known])
    return Fraction(today - whole, whole or 1)
