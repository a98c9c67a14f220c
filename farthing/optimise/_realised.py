"""What levers have saved since they were adopted: what the calls would have come to without, less what they came to.

The traffic since the adoption is its own control: replayed with the configuration of before, its volume and its mix
cancel exactly. Endpoint, model and batch are rated again under the SKU of before; a cache policy in place of another is
played on the traces of the sessions. Each lever is taken back by itself, the others being as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from farthing.book import Card, Unpriced
from farthing.cache import POLICIES, Ints, select
from farthing.cells import Cell, Question, cells
from farthing.ledger import Ledger
from farthing.meters import Vector
from farthing.money import from_usd
from farthing.optimise._advice import Interval
from farthing.optimise._replay import ENOUGH, GATE, Stage, _resampled, stage
from farthing.optimise._traffic import Lot, Traffic, from_counts
from farthing.outbox import apportion
from farthing.policy import Entry, Period, Span
from farthing.usage import EPOCH, Sku
from farthing.why import KAPPA, KAPPA_RANGE

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

DELIVERS, LESS, FAILS, UNRESOLVED, IDLE = (
    "delivers", "saves less than estimated", "does not save", "not resolved", "not in use",
)  # fmt: skip
_MICROSECOND = timedelta(microseconds=1)
_NEWER = "v2"  # the tokenizer that makes more tokens of a text


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


class _Kept(NamedTuple):
    """The cells of an entry: while it was in force, and for as long before."""

    after: list[Cell]
    before: list[Cell]


class _Worth(NamedTuple):
    """What the calls that went the entry's way would have cost without it, and what else that rests on."""

    without: Interval
    treated: int
    billed: int
    sessions: int = 0
    calibration: str = ""
    notes: tuple[str, ...] = ()
    unresolved: str = ""


def realised(
    ledger: Ledger,
    question: Question,
    adopted: Sequence[Period],
    now: datetime,
    since: datetime | None = None,
    bodies: Mapping[Lot, Traffic] | None = None,
) -> list[Realised]:
    """Each entry that is, or was, in force; for those that never were, why.

    Traces are those of `bodies`, where a workload has some; else those that the counts of its sessions tell.
    """
    told = _Told(ledger, question, bodies or {})
    clipped = [
        made._replace(
            spans=tuple(
                (max(since or start, start), end) for start, end in made.spans if end > (since or start)
            )
        )
        for made in adopted
    ]
    live = [made for made in clipped if made.spans]
    sorted_out = _cells(ledger, question, [made.spans for made in live], [made.entry for made in live])
    found = dict(zip((made.entry.name for made in live), sorted_out, strict=True))
    uses = _uses(made.entry for made in adopted)
    return [
        _one(told, made, found[made.entry.name], uses(made.entry), now)
        if made.spans
        else _idle(made, 0, 0, _never(made.entry, now))
        for made in clipped
    ]


def _uses(entries: Iterable[Entry]) -> Callable[[Entry], frozenset[str]]:
    """The models that an entry's calls run on: its own, and what the tier lever puts in its place."""
    moved = [entry for entry in entries if entry.lever == "model"]

    def models(entry: Entry) -> frozenset[str]:
        into = {one.use for one in moved if (one.workload, one.model) == (entry.workload, entry.model)}
        return frozenset({entry.model, *into} - {""})

    return models


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


def _one(told: _Told, made: Period, kept: _Kept, models: frozenset[str], now: datetime) -> Realised:
    entry = made.entry
    mine = [cell for cell in kept.after if _is_of(cell, models)]
    calls, billed = sum(cell.calls for cell in mine), sum(cell.cost for cell in mine)
    if not calls:
        return _idle(made, 0, 0, f"no call of {entry.workload} since {made.spans[0][0]:%Y-%m-%d %H:%M} UTC")
    replayed = entry.lever == "ttl" or (entry.lever == "cache" and entry.was not in ("", "none"))
    if replayed:
        worth = _replayed(told, made, mine, now)
    else:
        worth = _rated(told.question, entry, mine, [cell for cell in kept.before if _is_of(cell, models)])
    if isinstance(worth, str):
        return _idle(made, calls, billed, worth)
    saved = Interval(*(each - worth.billed for each in _ends(worth.without)))
    whole = billed + saved.mid
    estimated = _estimated(entry, whole)
    verdict, says = _verdict(entry, saved, estimated, worth)
    without = Interval(*(billed + each for each in _ends(saved)))
    unpriced = sum(cell.calls for cell in mine if isinstance(cell.price, Unpriced))
    notes = worth.notes + ((f"{unpriced:,} calls without a price are left out",) if unpriced else ())
    return Realised(
        entry, made.spans, calls, worth.treated, billed, without, saved, estimated, worth.sessions,
        worth.calibration, verdict, says, notes,
    )  # fmt: skip


def _ends(interval: Interval) -> tuple[int, int, int]:
    return interval.low, interval.mid, interval.high


def _is_of(cell: Cell, models: frozenset[str]) -> bool:
    return not isinstance(cell.sku, Unpriced) and (not models or cell.sku.sku.model in models)


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


def _verdict(entry: Entry, saved: Interval, estimated: Interval | None, worth: _Worth) -> tuple[str, str]:
    off = f"farthing savings undo {entry.name}"
    if worth.unresolved:
        return UNRESOLVED, worth.unresolved
    if saved.high <= 0:
        return FAILS, f"switch it off: {off}"
    if saved.low <= 0:
        few = worth.sessions and worth.sessions < ENOUGH
        why = (
            f"{worth.sessions} sessions are too few: from {ENOUGH} on it can be told"
            if few
            else "it may cost more"
        )
        return UNRESOLVED, f"the interval spans zero; {why}"
    if estimated and saved.high < estimated.low:
        return LESS, "it saves, and less than the advice said; look what has changed: farthing why"
    return DELIVERS, "as estimated" if estimated else "no estimate was given"


# --- by rating again -------------------------------------------------------------------------------------------------


def _was(entry: Entry, sku: Sku) -> Sku | None:
    """The SKU that a call would have had without the entry; None where it did not go its way."""
    if entry.lever == "endpoint" and sku.endpoint == "global":
        return sku._replace(endpoint=entry.was or ("regional" if sku.platform == "bedrock" else "geo_us"))
    if entry.lever == "model" and sku.model == entry.use:
        return sku._replace(model=entry.model, zone="")
    if entry.lever == "batch" and sku.mode == "batch":
        return sku._replace(mode="on_demand")
    return sku if entry.lever == "cache" else None


def _rated(question: Question, entry: Entry, after: list[Cell], before: list[Cell]) -> _Worth | str:
    mix, already, prompts = _mix(entry, before)
    as_is = as_before = billed = treated = 0
    for cell in after:
        if not isinstance(cell.price, Card) or (entry.lever == "cache" and not cell.tokens.cached):
            continue
        sku = _was(entry, cell.price.sku)
        if sku is None:
            continue
        tokens = Vector(cell.tokens.prompt, cell.tokens.output) if entry.lever == "cache" else cell.tokens
        again = tokens if entry.lever == "cache" or mix is None else _like(mix, tokens)
        card = question.book.find(sku, cell.at, cell.prompt, cached=tokens.cached + again.cached > 0)
        if isinstance(card, Unpriced):
            return f"without it there is no price: {card.reason}"
        as_is += tokens @ card.rates
        as_before += again @ card.rates
        billed += cell.cost
        treated += cell.calls
    if not treated:
        calls = sum(cell.calls for cell in after)
        return f"none of {calls:,} calls went its way: do they pass the gateway or the hooks?"
    without, notes = _without(question, entry, as_is, as_before, has_mix=mix is not None)
    if already:
        # what went this way before it was asked for is not its doing
        notes = (
            *notes,
            f"{100 * already // prompts} % of the tokens went this way before, and are not counted",
        )
        ends = (billed + (each - billed) * (prompts - already) // prompts for each in _ends(without))
        without = Interval(*ends)
    return _Worth(without, treated, billed, notes=notes)


def _mix(entry: Entry, before: list[Cell]) -> tuple[Vector | None, int, int]:
    """The prompts of before by meter, those of them that went the entry's way already, and all: tokens."""
    mix, already, prompts = Vector(), 0, 0
    for cell in before:
        if not isinstance(cell.price, Card):
            continue
        prompts += cell.tokens.prompt
        if entry.lever == "cache":
            already += cell.tokens.cached
        elif _was(entry, cell.price.sku) is not None:
            already += cell.tokens.prompt
        else:
            mix += cell.tokens
    return mix if mix.prompt else None, already, prompts


def _like(mix: Vector, tokens: Vector) -> Vector:
    """The prompt on the meters that prompts were on before."""
    sizes = (mix.input, mix.cache_read, mix.cache_write_5m, mix.cache_write_1h)
    plain, *cached = apportion(sizes, tokens.prompt)
    return Vector(plain, tokens.output, *cached)


def _without(
    question: Question, entry: Entry, as_is: int, as_before: int, *, has_mix: bool
) -> tuple[Interval, tuple[str, ...]]:
    """The same tokens under the SKU of before; what the cache and the tokenizer may have to do with it as an interval.

    If less is read from the cache than before, that may be the entry's doing (a new endpoint, a new model: a cold
    cache), so the least counts it. A batch of Bedrock has no cache, so what would have been is taken from before.
    """
    low, mid, high = min(as_is, as_before), as_is, as_is
    if entry.lever == "batch":
        if has_mix:
            low, mid, high = min(as_is, as_before), as_before, max(as_is, as_before)
            return Interval(low, mid, high), (
                "cached, without it, as much as before",
            ) if mid != as_is else ()
        return Interval(low, mid, high), (
            "without it nothing would have been cached: no calls before to tell",
        )
    notes: tuple[str, ...] = ("less is read from the cache than before",) if low < mid else ()
    if entry.lever == "model":
        low, mid, high, said = _retold(question, entry, low, mid, high)
        notes += said
    return Interval(low, mid, high), notes


def _retold(
    question: Question, entry: Entry, low: int, mid: int, high: int
) -> tuple[int, int, int, tuple[str, ...]]:
    """The same text in tokens of the model of before; how long its answers would have been is not known."""
    newer = [question.book.models[name].data.get("tokenizer") == _NEWER for name in (entry.model, entry.use)]
    least, most = KAPPA_RANGE
    notes: tuple[str, ...] = ("answers are taken to be as long",)
    if newer[0] == newer[1]:
        return low, mid, high, notes
    notes += ("the two models count tokens differently: 1 to 1.35",)
    if newer[1]:  # the same text was fewer tokens
        return int(low / most), int(mid / KAPPA), int(high / least), notes
    return int(low * least), int(mid * KAPPA), int(high * most), notes


# --- by replay -------------------------------------------------------------------------------------------------------


def _replayed(told: _Told, made: Period, mine: list[Cell], now: datetime) -> _Worth | str:
    """The sessions' traces under the cache policy of before; their bill is scaled to that of all calls."""
    entry = made.entry
    lots = {lot: part for lot, one in told.traces(entry.workload, made.spans).items()
            if (part := _inside(one, made.spans)) and entry.model in ("", lot.model)}  # fmt: skip
    stages = [each for lot, one in lots.items() if (each := _stage(told.question, lot, one, mine, now))]
    if not stages:
        return "no session of it tells how prompts grew: only traces show what another cache policy comes to"
    old = POLICIES[entry.was or ("end_1h" if entry.ttl == "5m" else "end_5m")]
    billed, played = [each.billed() for each in stages], [each.play(old) for each in stages]
    whole, replayed = sum(each.cost for each in billed), sum(each.cost for each in played)
    shift = int(np.max([len(each.traffic.cluster) for each in stages]) + 1)
    cluster = np.concatenate([each.traffic.cluster + i * shift for i, each in enumerate(stages)])
    _, of = np.unique(cluster, return_inverse=True)
    sums = [np.bincount(of, weights=np.concatenate([one.each for one in each])) for each in (billed, played)]
    low, high = np.quantile(_resampled(sums), [0.025, 0.975])
    off = _calibration(entry, stages)
    costs = sum(cell.cost for cell in mine)
    bias = int(abs(off) * replayed)
    ends = (min(replayed, int(low * whole)) - bias, replayed, max(replayed, int(high * whole)) + bias)
    without = Interval(*(each * costs // whole for each in ends))
    percent = f"{Decimal(off.numerator * 100) / Decimal(off.denominator):.1f}"
    far = abs(off) > Fraction(*GATE)
    unresolved = f"the replay was {percent} % off, and more than {GATE[0]} % claims no dollars" if far else ""
    sessions = sum(each.traffic.sessions for each in stages)
    calls = sum(cell.calls for cell in mine)
    return _Worth(without, calls, costs, sessions, percent, _by(lots.values()), unresolved)


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
        trace=select(traffic.trace, chosen), billed=billed, cluster=kept, sessions=sessions
    )


def _us(at: datetime) -> int:
    return (at - EPOCH) // _MICROSECOND


def _stage(question: Question, lot: Lot, traffic: Traffic, mine: list[Cell], now: datetime) -> Stage | None:
    """Under the rates that most of the lot was billed by."""
    costs: dict[Sku, int] = {}
    for cell in mine:
        if isinstance(cell.price, Card) and (cell.price.sku.platform, cell.price.sku.model) == (
            lot.platform,
            lot.model,
        ):
            costs[cell.price.sku] = costs.get(cell.price.sku, 0) + cell.cost
    return stage(question.book, traffic, max(costs, key=lambda sku: costs[sku]), now) if costs else None


def _calibration(entry: Entry, stages: Sequence[Stage]) -> Fraction:
    """How far the replay was off before the adoption; where that was not written down, how far it is now."""
    if entry.calibration:
        return Fraction(entry.calibration.replace("%", "").replace("+", "").strip()) / 100
    parts = [each.error() for each in stages]
    return Fraction(sum(part for part, _ in parts), sum(whole for _, whole in parts) or 1)


# --- the traffic -----------------------------------------------------------------------------------------------------


def _cells(
    ledger: Ledger, question: Question, spans: Sequence[tuple[Span, ...]], entries: Sequence[Entry]
) -> list[_Kept]:
    """Of each entry its workload's cells, in its spans and for as long before the first of them; one pass over all."""
    if not entries:
        return []
    before = [_before(each) for each in spans]
    distinct = list(dict.fromkeys([*spans, *before]))
    asked = replace(question, since=None, until=None)

    def beside(sku: Sku) -> Iterable[Sku]:
        return [moved for entry in entries if (moved := _was(entry, sku)) is not None]

    found = cells(ledger, asked, ("workload",), flags=[_within(each) for each in distinct], beside=beside)
    by_workload: dict[str, list[Cell]] = {}
    for cell in found:
        by_workload.setdefault(cell.keys[0], []).append(cell)

    def of(entry: Entry, span: tuple[Span, ...]) -> list[Cell]:
        number = distinct.index(span)
        return [cell for cell in by_workload.get(entry.workload, ()) if cell.flags[number]]

    return [
        _Kept(of(entry, span), of(entry, past))
        for entry, span, past in zip(entries, spans, before, strict=True)
    ]


def _before(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    start = spans[0][0]
    length = sum((end - begin for begin, end in spans), timedelta())
    return ((max(start - length, EPOCH), start),)


def _within(spans: tuple[Span, ...]) -> nw.Expr:
    import narwhals.stable.v2 as nw

    tests = [
        (nw.col("at") >= nw.lit(start.astimezone(UTC))) & (nw.col("at") < nw.lit(end.astimezone(UTC)))
        for start, end in spans
    ]
    return nw.any_horizontal(*tests, ignore_nulls=False)
