"""Faults on the provider's side: billed amounts that its own documentation speaks against.

A bill alone tells rates on the wrong date or region, batch at on-demand rates, use after a model's end, and writes to a
cache that is not read. With a ledger beside it: what is billed twice, in another place than it was used, or for calls
that failed. `sure` faults rest on counts that match to the token; the others are worth a question.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import NamedTuple

from farthing.book import Book, Unpriced
from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.offers import Offer, books
from farthing.statement import Statement
from farthing.teach._lines import Line, Price, lines, rate_elsewhere, span_of
from farthing.teach._places import REFUSED, Group, Place, Side, Sides, sides

MANY = 1_000  # tokens: counts as large as that are not a multiple of another by chance
STORM = 100_000  # tokens written on a day: fewer may be single calls


class Part(NamedTuple):
    """A piece of a fault: one price on one day."""

    kind: str
    place: Place
    tokens: int
    paid: int  # picodollars that were billed for them
    picos: int  # of these, what should not have been
    usage_types: tuple[str, ...]
    detail: str
    sure: bool = True
    seen_at: Price | None = None  # where our sources saw it, if not there
    statuses: tuple[str, ...] = ()


@dataclass
class Fault:
    """What is wrong with one model in one account, over days."""

    kind: str
    account: str
    model: str
    detail: str
    sure: bool
    parts: list[Part] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)

    @property
    def picos(self) -> int:
        """Billed beyond what should have been; below zero where it is in the account's favour."""
        return sum(part.picos for part in self.parts)

    @property
    def paid(self) -> int:
        """What was billed for its tokens."""
        return sum(part.paid for part in self.parts)

    @property
    def tokens(self) -> int:
        return sum(part.tokens for part in self.parts)

    @property
    def days(self) -> list[date]:
        return sorted({part.place.day for part in self.parts})

    @property
    def usage_types(self) -> list[str]:
        return sorted({name for part in self.parts for name in part.usage_types})


def find_faults(
    statement: Statement,
    ledger: Ledger | None = None,
    question: Question | None = None,
    offers: Sequence[Offer] = (),
) -> list[Fault]:
    """Every fault, the dearest first; those in the account's favour last. With offers, against their rates."""
    found = list(lines(statement))
    of = books(statement.book, offers)
    parts = [*_rates(statement.book, of, found), *_after_life(statement.book, found), *_storms(of, found)]
    span = span_of(statement)
    if ledger is not None and span:
        asked = question or Question(*span, book=statement.book)
        both = sides(statement, found, ledger, asked, of)
        parts += _Compared(both).parts()
    faults: dict[tuple[object, ...], Fault] = {}
    for part in parts:
        price = part.place.price
        key = (part.kind, price.account, price.model, part.detail, part.sure)
        faults.setdefault(key, Fault(*key)).parts.append(part)
    return sorted(faults.values(), key=lambda fault: (-fault.picos, fault.kind, fault.account, fault.model))


# --- a bill alone --------------------------------------------------------------------------------------------------


def _part(kind: str, line: Line, picos: int, detail: str, *, sure: bool = True) -> Part:
    return Part(
        kind, Place(line.day, line.price), line.tokens, line.picos, picos, (line.usage_type,), detail, sure
    )  # fmt: skip


def _rates(book: Book, of: Callable[[str], Book], found: Iterable[Line]) -> Iterator[Part]:
    """Lines that were billed above the rate that holds for them."""
    for line in found:
        if line.tokens <= 0 or line.picos <= 0 or line.rate is None:
            continue
        right = line.price.rate(of(line.price.account), line.day)
        right = line.rate if right is None else right
        if line.is_at(right) or line.picos < line.tokens * right:
            continue
        kind, detail = _why_above(book, line, right)
        yield _part(kind, line, line.picos - line.tokens * right, detail)


def _why_above(book: Book, line: Line, right: int) -> tuple[str, str]:
    price = line.price
    if price.mode == "batch":
        on_demand = price._replace(mode="on_demand").rate(book, line.day)
        if on_demand is not None and line.is_at(on_demand):
            return "batch_rate", price.endpoint
    card = price.card(book, line.day)
    if price.long_prompt and not isinstance(card, Unpriced) and not card.prompt_from:
        return "long_prompt_flat", price.endpoint
    other = rate_elsewhere(book, line)
    if other is not None and other.sku.zone == price.zone:
        early = other.starts.date() > line.day
        when = f"{other.starts:%Y-%m-%d}" if early else f"{other.ends:%Y-%m-%d}"
        return ("early_price", f"in force from {when}") if early else ("late_price", f"replaced on {when}")
    if other is not None:
        return "extended_access", f"billed at the rate of zone {other.sku.zone or 'standard'}"
    return ("contract", "") if right != line.rate else ("above_list", f"{price.endpoint} {price.mode}")


def _after_life(book: Book, found: Iterable[Line]) -> Iterator[Part]:
    for line in found:
        life = book.models[line.price.model].platform("bedrock").get("lifecycle", {})
        end = life.get("eol") or life.get("eol_by")
        if end and line.day > end and line.picos > 0:
            yield _part("after_end_of_life", line, line.picos, f"end of life {end}", sure="eol" in life)


def _storms(of: Callable[[str], Book], found: Iterable[Line]) -> Iterator[Part]:
    """Days on which a place wrote much and read next to nothing, while on its other days it read."""
    days: dict[tuple[str, str, str], dict[date, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in found:
        if line.price.meter.startswith("cache_"):
            days[line.price.account, line.price.model, line.price.endpoint][line.day].append(line)
    for by_day in days.values():
        sums = {
            day: (_tokens(of_day, "cache_write"), _tokens(of_day, "cache_read"))
            for day, of_day in by_day.items()
        }
        stormy = {day for day, (written, read) in sums.items() if written >= STORM and read * 100 < written}
        calm = [both for day, both in sums.items() if day not in stormy]
        if not stormy or sum(read for _, read in calm) < sum(written for written, _ in calm) or not calm:
            continue
        for line in (line for day in sorted(stormy) for line in by_day[day] if "write" in line.price.meter):
            book = of(line.price.account)
            plain = line.price._replace(meter="input").rate(book, line.day) or 0
            written = line.price.rate(book, line.day) or 0
            yield _part("cache_storm", line, line.tokens * (written - plain), line.price.endpoint, sure=False)


def _tokens(found: Iterable[Line], meter: str) -> int:
    return sum(line.tokens for line in found if line.price.meter.startswith(meter))


# --- a ledger beside it --------------------------------------------------------------------------------------------


class _Compared:
    """Tokens that only the bill has, taken off as faults account for them."""

    def __init__(self, both: Sides) -> None:
        self._sides = both.places
        self._empty = both.empty
        self._open = {place: side.more for place, side in self._sides.items()}

    def parts(self) -> Iterator[Part]:
        yield from self._twice()
        for axis, kind in _MOVED.items():
            yield from self._moved(axis, kind)
        yield from self._failed()
        yield from self._unseen()

    def _twice(self) -> Iterator[Part]:
        for place, side in self._sides.items():
            more = self._open[place]
            if side.ours >= MANY and more > 0 and more % side.ours == 0:
                detail = f"{1 + more // side.ours} times"
                yield self._take("duplicate_lines", place, more, side.paid(more), detail)

    def _moved(self, axis: str, kind: str) -> Iterator[Part]:
        """As many tokens in one place of the bill as are missing in another, which differs in one thing."""
        groups: dict[tuple[object, ...], list[Place]] = defaultdict(list)
        for place in self._sides:
            if axis != "meter" or place.price.meter.startswith("cache_write"):
                rest = tuple(value for name, value in place.price._asdict().items() if name != axis)
                groups[place.day, rest].append(place)
        for group in groups.values():
            for there in group:
                for here in group:
                    count = min(self._open[there], -self._open[here], self._sides[here].sure[axis])
                    if count <= 0 or not _is_fault(axis, there.price, here.price):
                        continue
                    exact = self._open[there] == -self._open[here] == count
                    picos = self._beyond(there, here, count)
                    detail = _between(axis, there.price, here.price)
                    self._open[here] += count
                    yield self._take(kind, there, count, picos, detail, sure=exact, seen_at=here.price)

    def _beyond(self, there: Place, here: Place, count: int) -> int:
        """What tokens were billed at in one place beyond what they would have been in the other, at the same share."""
        paid, right, wrong = self._sides[there].paid(count), self._sides[here].rate, self._sides[there].rate
        return round(paid * (1 - Fraction(right, wrong))) if wrong else 0

    def _failed(self) -> Iterator[Part]:
        """Tokens that we have of calls that failed, and that the bill has as well."""
        for place, side in self._sides.items():
            for refused in (False, True):
                statuses = tuple(s for s in sorted(side.failed) if (s == REFUSED) == refused)
                count = min(sum(side.failed[s] for s in statuses), side.theirs)
                count += min(self._open[place], 0)  # what is not in the bill
                if count > 0:
                    kind = "refusals" if refused else "failed_calls"
                    names = "" if refused else ", ".join(statuses)
                    part = self._take(kind, place, 0, side.paid(count), names)
                    yield part._replace(tokens=count, paid=part.picos, statuses=statuses, seen_at=place.price)

    def _unseen(self) -> Iterator[Part]:
        """Prompts in the bill that no answer belongs to, where calls failed that our sources have no counts of."""
        groups: dict[Group, list[Place]] = defaultdict(list)
        for place in self._sides:
            groups[Group.of(place)].append(place)
        for group, statuses in self._empty.items():
            opened = [(place, self._open[place]) for place in groups.get(group, ())]
            answered = any(more and place.price.meter == "output" for place, more in opened)
            if answered or any(more < 0 for _, more in opened):
                continue
            kind = "refusals" if set(statuses) == {REFUSED} else "failed_calls"
            names = ", ".join(sorted(statuses)) if kind == "failed_calls" else ""
            for place, more in opened:
                if more > 0:
                    part = self._take(kind, place, more, self._sides[place].paid(more), names, sure=False)
                    yield part._replace(statuses=tuple(sorted(statuses)), seen_at=place.price)

    def _take(
        self,
        kind: str,
        place: Place,
        count: int,
        picos: int,
        detail: str,
        *,
        sure: bool = True,
        seen_at: Price | None = None,
    ) -> Part:
        self._open[place] -= count
        side: Side = self._sides[place]
        return Part(
            kind,
            place,
            count,
            side.paid(count),
            picos,
            tuple(sorted(side.usage_types)),
            detail,
            sure,
            seen_at,
        )


_MOVED = {
    "meter": "cache_lifetime",
    "endpoint": "endpoint",
    "mode": "batch_as_on_demand",
    "long_prompt": "long_prompt",
}


def _is_fault(axis: str, there: Price, here: Price) -> bool:
    """Whether tokens used in one place and billed in the other are a fault of this kind, and in which direction."""
    match axis:
        case "endpoint":
            return (there.endpoint, here.endpoint) == ("regional", "global")
        case "mode":
            return (there.mode, here.mode) == ("on_demand", "batch")
        case "long_prompt":
            return there.long_prompt and not here.long_prompt
    return True


def _between(axis: str, there: Price, here: Price) -> str:
    if axis == "meter":
        lives = {"cache_write_5m": "5 minutes", "cache_write_1h": "an hour"}
        return f"asked for {lives[here.meter]}, billed for {lives[there.meter]}"
    return ""
