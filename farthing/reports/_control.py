"""Control totals beside what was seen call by call: the tokens that only a total has, and what they would cost.

A total says how much was used, never by which call, and rarely for how long cache writes live or how long prompts
were. What only it has is therefore a range, from the least it can have cost to the most.
"""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache
from typing import Any, NamedTuple

from farthing.book import Book, Resolved, Unpriced
from farthing.cells import Cell, Question, Where, glob
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.usage import EPOCH, Sku

_PLACES = ("account", "region")
_WRITES = ("cache_write_5m", "cache_write_1h")
_COUNTED = (*METERS, "cache_write", "calls", "errors", "throttles")
_SERVICES = ("runtime", "mantle", "messages")  # levels that count all usage; others are parts of these

# One level of each bucket, and one width of bucket a day: those of most tokens, since the others hold part of them.
# Only levels that tell models apart can be priced, and only buckets within a day compared by day.
_CHOSEN = f"""
WITH told AS (
    SELECT *, split_part(scope, ' ', 1) AS level, split_part(scope, ':', 1) AS service,
           epoch_us("start") AS starts, epoch_us("end") AS ends, starts // 86400000000 AS day
    FROM control_totals
), fit AS (
    SELECT * FROM told WHERE model_id <> '' AND service IN {_SERVICES} AND name IN {_COUNTED}
    AND starts >= $since AND ends <= $until AND (ends - 1) // 86400000000 = day
), by_level AS (
    SELECT source, service, platform, account, region, day, starts, ends, level,
           coalesce(sum(value) FILTER (name NOT IN ('calls', 'errors', 'throttles')), 0) AS tokens
    FROM fit GROUP BY ALL
), levels AS (
    FROM by_level
    QUALIFY row_number() OVER (PARTITION BY source, service, platform, account, region, starts, ends
                               ORDER BY tokens DESC, level) = 1
), by_width AS (
    SELECT source, service, platform, account, region, day, ends - starts AS width, sum(tokens) AS tokens
    FROM levels GROUP BY ALL
), widths AS (
    FROM by_width
    QUALIFY row_number() OVER (PARTITION BY source, service, platform, account, region, day
                               ORDER BY tokens DESC, width DESC) = 1
)
SELECT service, platform, account, region, day, model_id, mode, inference_geo, name, CAST(sum(value) AS BIGINT)
FROM fit JOIN levels USING (source, service, platform, account, region, day, starts, ends, level)
JOIN widths USING (source, service, platform, account, region, day) WHERE ends - starts = width
GROUP BY ALL ORDER BY ALL
"""


@dataclass
class Slot:
    """Tokens of one meter that a total counted, with the least and the most that one of them can cost."""

    model: str  # of the book; what the source said where the book knows none
    day: int
    account: str
    region: str
    sku: Sku | None
    meter: str
    tokens: int
    service: str = ""
    low: int = 0
    high: int = 0
    priced: bool = True


class Gap(NamedTuple):
    """What of a slot no call was seen for: the tokens left when the least is asked for, and the most."""

    slot: Slot
    least: int
    most: int

    @property
    def usd(self) -> int:
        return self.least * self.slot.low

    @property
    def upper_usd(self) -> int:
        return self.most * self.slot.high


class Compared(NamedTuple):
    gaps: list[Gap]
    excess: list[Slot]  # what calls have and the totals that should count them have not
    counting: frozenset[tuple[str, str]] = frozenset()  # places whose totals count calls, not tokens alone


def compare(ledger: Ledger, question: Question, found: Sequence[Cell], names: Sequence[str]) -> Compared:
    """Control totals against cells whose keys are `names`, by UTC day: question.tz is UTC.

    A total or a call that names no account or region is set against those of any, after all that do.
    """
    slots = list(counted(ledger, question))
    families: dict[Hashable, tuple[list[Slot], list[Slot]]] = defaultdict(lambda: ([], []))
    for slot in slots:
        families[slot.model, slot.day, _family(slot.meter)][0].append(slot)
    for slot in _seen(found, names):
        pair = families.get((slot.model, slot.day, _family(slot.meter)))
        if pair:
            pair[1].append(slot)
    gaps: list[Gap] = []
    excess: list[Slot] = []
    for totals, seen in families.values():
        least, _ = _left(totals, seen, lambda slot: -slot.low)
        most, over = _left(totals, seen, lambda slot: slot.high)
        gaps += [Gap(*one) for one in zip(totals, least, most, strict=True) if one[1] or one[2]]
        excess += over
    counting = frozenset((slot.account, slot.region) for slot in slots if slot.meter == "calls")
    return Compared(gaps, excess, counting)


def _family(meter: str) -> str:
    return "cache_write" if meter in _WRITES else meter


# --- what totals count ---------------------------------------------------------------------------------------------


def counted(ledger: Ledger, question: Question) -> Iterator[Slot]:
    """What totals count by model and UTC day: of each place one level, and one width of period."""
    con = ledger.connection
    con.register("control_totals", ledger.totals())
    since, until = ((at - EPOCH) // timedelta(microseconds=1) for at in question.span())
    rows = con.execute(_CHOSEN, {"since": since, "until": until}).fetchall()
    rates = cache(_Rates(question))
    for service, platform, account, region, day, model_id, mode, geography, name, value in rows:
        place = question.book.resolve(
            model_id,
            platform=platform,
            region=region,
            mode=mode,
            inference_geo=geography,
            profiles=question.profiles,
            assume=question.assume,
        )
        place = question.book.by_terms(place, account)
        meter = "errors" if name == "throttles" else name
        if not (value or meter == "calls") or not _asked(question, account, region, place):
            continue
        slot = Slot(_model(place, model_id), day, account, region, None, meter, value, service)
        if isinstance(place, Resolved):
            slot.sku = place.sku
        if meter not in ("calls", "errors"):
            bounds = rates(slot.sku, day, meter) if slot.sku else None
            slot.priced = bounds is not None
            slot.low, slot.high = bounds or (0, 0)
        yield slot


def _model(place: Resolved | Unpriced, model_id: str) -> str:
    return (
        f"{place.sku.platform}/{place.sku.model}"
        if isinstance(place, Resolved)
        else model_id.rsplit("/", 1)[-1]
    )


class _Rates:
    """The least and the most that a token of a meter costs on a day, over all sizes of prompts."""

    def __init__(self, question: Question) -> None:
        self._book: Book = question.book
        self._ttl = question.assume.get("ttl", "")

    def __call__(self, sku: Sku, day: int, meter: str) -> tuple[int, int] | None:
        at = EPOCH + timedelta(days=day)
        cards = [card for card in self._book.cards(sku) if card.starts <= at < card.ends]
        meters = (
            (meter,)
            if meter != "cache_write"
            else _WRITES
            if not self._ttl
            else (f"cache_write_{self._ttl}",)
        )
        rates = [getattr(card.rates, name) for card in cards for name in meters]
        return (min(rates), max(rates)) if rates else None


_ASKABLE = (*_PLACES, "platform", "model", "endpoint", "zone", "mode", "routing")


def comparable(question: Question) -> bool:
    """Whether totals know all that is asked for: not a principal, a session, a tag."""
    return all(where.key in _ASKABLE for where in question.where)


def _asked(question: Question, account: str, region: str, place: Resolved | Unpriced) -> bool:
    said = {"account": account, "region": region, "routing": "unknown"}
    if isinstance(place, Resolved):
        said |= {**place.sku.named(), "routing": place.routing}
    return all(where.key in said and matches(where, said[where.key]) for where in question.where)


def matches(where: Where, value: str) -> bool:
    """A filter of reports, on a value at hand."""
    return any(_pattern(text)(value) for text in where.values) != where.negated


@cache
def _pattern(text: str) -> Callable[[str], bool]:
    fits = re.compile(fnmatch.translate(glob(text))).match
    return lambda value: fits(value) is not None


def not_compared(ledger: Ledger) -> list[dict[str, Any]]:
    """Totals that nothing is set against, with the reason."""
    con = ledger.connection
    con.register("control_totals", ledger.totals())
    rows = con.execute(
        f"""SELECT source, split_part(scope, ' ', 1) AS level, split_part(scope, ':', 1) AS service, count(*),
                   bool_and(model_id = ''), bool_or((epoch_us("end") - 1) // 86400000000
                                                    <> epoch_us("start") // 86400000000)
            FROM control_totals WHERE name IN {_COUNTED} GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    priced = {(source, service) for source, _, service, _, nameless, _ in rows if not nameless}
    told: list[dict[str, Any]] = []
    for source, level, service, count, nameless, long in rows:
        why = ""
        if service not in _SERVICES:
            why = "counts a part of the usage only"
        elif nameless and (source, service) not in priced:
            why = "names no model: ask for it by model (docs/coverage.md)"
        elif long:
            why = "some periods lie in more than one UTC day: ask for periods of a day or less"
        if why:
            told.append({"source": source, "level": level or "all", "totals": count, "why": why})
    return told


# --- what calls were seen for --------------------------------------------------------------------------------------


def _seen(found: Iterable[Cell], names: Sequence[str]) -> Iterator[Slot]:
    """Cells as slots. Batches of Bedrock are left out: no metric of CloudWatch that we read counts them."""
    for cell in found:
        keys = dict(zip(names, cell.keys, strict=True))
        sku = cell.sku.sku if isinstance(cell.sku, Resolved) else None
        if sku and sku.platform == "bedrock" and sku.mode == "batch":
            continue
        counts = dict(zip(METERS, cell.tokens, strict=True))
        counts["errors" if keys["status"] else "calls"] = cell.calls
        model = _model(cell.sku, keys["model"])
        for meter, count in counts.items():
            if count:
                rate = (
                    0
                    if meter not in METERS or isinstance(cell.price, Unpriced)
                    else getattr(cell.price.rates, meter)
                )
                yield Slot(
                    model,
                    _day(keys["day"]),
                    keys["account"],
                    keys["region"],
                    sku,
                    meter,
                    count,
                    "",
                    rate,
                    rate,
                )


def _day(text: str) -> int:
    return (date.fromisoformat(text) - EPOCH.date()).days


# --- one against the other -----------------------------------------------------------------------------------------

_ALIKE: tuple[Callable[[Slot], Hashable], ...] = (
    lambda slot: (slot.account, slot.region, slot.sku, slot.meter),
    lambda slot: (slot.account, slot.region, slot.sku),
    lambda slot: (slot.account, slot.region),
)


def _left(totals: list[Slot], seen: list[Slot], first: Callable[[Slot], int]) -> tuple[list[int], list[Slot]]:
    """What of each total no call was seen for, and the calls that no total counted.

    Where it is open which total counted a call, it is one that comes `first`, and mantle's last, since most
    sources of calls never see those.
    """
    left, have = [slot.tokens for slot in totals], [slot.tokens for slot in seen]
    order = sorted(range(len(totals)), key=lambda i: (totals[i].service == "mantle", first(totals[i])))
    for i, j in _alike(totals, seen, order):
        taken = min(left[i], have[j])
        left[i] -= taken
        have[j] -= taken
    over = [
        replace(call, tokens=rest)
        for call, rest in zip(seen, have, strict=True)
        if rest and any(_may_be(slot, call) for slot in totals)
    ]
    return left, over


def _alike(totals: list[Slot], seen: list[Slot], order: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Totals and calls that may be of one another, those that agree in most things first."""
    for alike in _ALIKE:
        places: dict[Hashable, list[int]] = defaultdict(list)
        for i in order:
            places[alike(totals[i])].append(i)
        for j, call in enumerate(seen):
            yield from ((i, j) for i in places.get(alike(call), ()))
    vague = [j for j, call in enumerate(seen) if not (call.account and call.region)]
    pairs = [
        (i, j)
        for i in order
        for j in (vague if totals[i].account and totals[i].region else range(len(seen)))
        if _may_be(totals[i], seen[j])
    ]
    yield from sorted(pairs, key=lambda pair: totals[pair[0]].sku != seen[pair[1]].sku)


def _may_be(a: Slot, b: Slot) -> bool:
    """Whether they may be of one place: what either leaves out may be anything."""
    return (a.account == b.account or not (a.account and b.account)) and (
        a.region == b.region or not (a.region and b.region)
    )
