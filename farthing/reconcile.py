"""Ours against AWS's, to the picodollar: every dollar of the difference has a name.

For each day, account, model, endpoint, mode, prompt band and meter: billed - ours = (their tokens - our tokens) at the
book's rate, plus what their tokens cost beyond that rate. The first part is quantity, the second is price; both are
then given causes, and what has none is unexplained. Days are UTC, as AWS bills them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import NamedTuple

from farthing.book import Unpriced
from farthing.cells import Question, cells
from farthing.ledger import Ledger
from farthing.meters import CACHE_METERS, METERS
from farthing.statement import Billed, Statement

ROUNDING_PICOS = 1_000_000  # a line's cost has at least six decimals that count
LATE_DAYS = 3  # AWS may still add lines to days as young as that


class Place(NamedTuple):
    """What usage is compared by."""

    day: date
    account: str
    model: str
    endpoint: str
    mode: str
    long_prompt: bool
    meter: str


@dataclass
class Side:
    """Both sides of one place. `rate` is the book's, in picodollars a token; None where it has none."""

    ours: int = 0
    ours_picos: int = 0
    theirs: int = 0
    theirs_picos: int = 0
    rate: int | None = None
    mantle: int = 0  # of their tokens
    lines: int = 0


class Cause(NamedTuple):
    name: str
    where: str  # the account, model or day it hangs on
    picos: int
    lines: int


@dataclass
class Reconciled:
    """billed - ours = sum of explained + unexplained, exactly."""

    ours_picos: int
    billed_picos: int
    explained: list[Cause]
    unexplained: list[Cause]
    sides: dict[Place, Side] = field(repr=False)

    @property
    def difference_picos(self) -> int:
        return self.billed_picos - self.ours_picos

    @property
    def unexplained_picos(self) -> int:
        return sum(cause.picos for cause in self.unexplained)


def reconcile(statement: Statement, ledger: Ledger, question: Question) -> Reconciled:
    """The bill against the ledger, both of the same days. The parts sum to the difference, or this raises."""
    sides = _sides(statement, ledger, question)
    naming = _Naming(sides, statement)
    for place, side in sides.items():
        naming.price(place, side)
    naming.moved("endpoint")
    naming.moved("meter")
    for place, side in sides.items():
        naming.quantity(place, side)
    billed = sum(side.theirs_picos for side in sides.values())
    for line in statement.undecoded:
        naming.add("not decoded", f"{line.usage_type}: {line.why}", line.picos, 1)
        billed += line.picos
    for entry in statement.apart:
        naming.add(f"apart: {entry.kind}", entry.account, entry.picos, entry.lines)
        billed += entry.picos
    ours = sum(side.ours_picos for side in sides.values()) + naming.unpriced_picos
    result = Reconciled(ours, billed, naming.sorted(naming.explained), naming.sorted(naming.unknown), sides)
    found = sum(cause.picos for cause in (*result.explained, *result.unexplained))
    assert found == result.difference_picos, (found, result.difference_picos)
    return result


def _sides(statement: Statement, ledger: Ledger, question: Question) -> dict[Place, Side]:
    sides: dict[Place, Side] = defaultdict(Side)
    keys = ("day", "account", "platform", "model", "endpoint", "mode")
    for cell in cells(ledger, question, keys):
        day, account, platform, model, endpoint, mode = cell.keys
        if platform != "bedrock" or isinstance(cell.price, Unpriced):
            continue
        for meter, count, rate in zip(METERS, cell.tokens, cell.price.rates, strict=True):
            if count:
                place = Place(date.fromisoformat(day), account, model, endpoint, mode, cell.prompt > 0, meter)
                side = sides[place]
                side.ours += count
                side.ours_picos += count * rate
                side.rate = rate
    for line in statement.billed:
        _add(sides, line, statement)
    return dict(sides)


def _add(sides: dict[Place, Side], line: Billed, statement: Statement) -> None:
    place = Place(line.day, line.account, line.model, line.endpoint, line.mode, line.long_prompt, line.meter)
    side = sides[place]
    side.theirs += line.tokens
    side.theirs_picos += line.billed_picos
    side.lines += 1
    if line.mantle:
        side.mantle += line.tokens
    if side.rate is None:
        cached = line.meter in CACHE_METERS
        card = statement.card(
            line.model, line.endpoint, line.mode, line.region, line.day, line.long_prompt, cached
        )
        side.rate = None if isinstance(card, Unpriced) else getattr(card.rates, line.meter)


class _Naming:
    """Causes of the difference, as they are found. Tokens that have a cause are taken off the side they were on."""

    def __init__(self, sides: dict[Place, Side], statement: Statement) -> None:
        self.explained: dict[tuple[str, str], list[int]] = {}
        self.unknown: dict[tuple[str, str], list[int]] = {}
        self.unpriced_picos = 0
        self._sides = sides
        self._open = {place: side.theirs - side.ours for place, side in sides.items()}
        self._logged = {(p.account, p.day) for p, side in sides.items() if side.ours}
        self._accounts = {account for account, _ in self._logged}
        self._batched = {p.account for p, side in sides.items() if side.ours and p.mode == "batch"}
        billed = [(line.account, line.day) for line in statement.billed]
        self._billed_days = set(billed)
        self._last_day: dict[str, date] = {}
        for account, day in billed:
            self._last_day[account] = max(day, self._last_day.get(account, day))
        self._last_of_all = max((day for _, day in billed), default=date.min)

    def add(self, name: str, where: str, picos: int, lines: int, *, known: bool = True) -> None:
        if picos or lines:
            total = (self.explained if known else self.unknown).setdefault((name, where), [0, 0])
            total[0] += picos
            total[1] += lines

    @staticmethod
    def sorted(found: dict[tuple[str, str], list[int]]) -> list[Cause]:
        causes = [Cause(*key, *total) for key, total in found.items() if total[0]]
        return sorted(causes, key=lambda cause: (-abs(cause.picos), cause))

    def price(self, place: Place, side: Side) -> None:
        """What their tokens cost beyond the book's rate."""
        if not side.theirs and not side.theirs_picos:
            return
        if side.rate is None:
            where = f"{place.model} {place.endpoint} {place.mode} {place.meter}"
            self.add("no rate in the book", where, side.theirs_picos, side.lines)
            self._open[place] = 0
            return
        beyond = side.theirs_picos - side.theirs * side.rate
        if abs(beyond) <= ROUNDING_PICOS * max(side.lines, 1):
            self.add("rounding", "amounts and quantities of the bill", beyond, side.lines)
            return
        share = beyond * 10_000 // (side.theirs * side.rate) if side.theirs * side.rate else 0
        what = f"{place.model} {place.endpoint} {place.mode} {place.meter}: {share / 100:+.2f} %"
        self.add("rate other than the book's", what, beyond, side.lines)

    def moved(self, axis: str) -> None:
        """Tokens that stand at one endpoint (or cache lifetime) here and at another there."""
        groups: dict[Place, list[Place]] = defaultdict(list)
        for place in self._sides:
            if axis == "meter" and not place.meter.startswith("cache_write"):
                continue
            blank = place._replace(endpoint="") if axis == "endpoint" else place._replace(meter="")
            groups[blank].append(place)
        for group in groups.values():
            self._pair(axis, group)

    def _pair(self, axis: str, group: Iterable[Place]) -> None:
        places = [place for place in group if self._sides[place].rate is not None]
        more = [place for place in places if self._open[place] > 0]
        less = [place for place in places if self._open[place] < 0]
        for there in more:
            for here in less:
                count = min(self._open[there], -self._open[here])
                if count <= 0:
                    continue
                rates = self._sides[there].rate or 0, self._sides[here].rate or 0
                self._open[there] -= count
                self._open[here] += count
                name = "endpoint misread" if axis == "endpoint" else "cache lifetime misread"
                where = f"{there.model}: billed {getattr(there, axis)}, counted {getattr(here, axis)}"
                self.add(name, where, count * (rates[0] - rates[1]), 1)

    def quantity(self, place: Place, side: Side) -> None:
        """Tokens that only one side has."""
        count = self._open[place]
        if not count or side.rate is None:
            return
        if count > 0 and side.mantle:
            mantle = min(count, side.mantle)
            self.add("mantle traffic, never logged", place.account, mantle * side.rate, side.lines)
            count -= mantle
        if count:
            name, where, known = self._not_seen(place) if count > 0 else self._not_billed(place)
            self.add(name, where, count * side.rate, side.lines, known=known)

    def _not_seen(self, place: Place) -> tuple[str, str, bool]:
        if place.mode == "batch" and place.account not in self._batched:
            return "batch, which logs do not have", place.account, True
        if place.account not in self._accounts:
            return "logging off in the account", place.account, True
        if (place.account, place.day) not in self._logged:
            return "no logs on the day", f"{place.account} {place.day}", True
        return "more billed than seen", f"{place.account} {place.model} {place.day}", False

    def _not_billed(self, place: Place) -> tuple[str, str, bool]:
        if not place.account:
            return "usage of no known account", place.model, True
        last = self._last_day.get(place.account)
        if last is None:
            return "account not in the bill", place.account, True
        if place.day > last or place.day > self._last_of_all - timedelta(days=LATE_DAYS):
            if (place.account, place.day) not in self._billed_days:
                return "not billed yet", f"{place.account} {place.day}", True
        elif (place.account, place.day) not in self._billed_days:
            return "day missing from the bill", f"{place.account} {place.day}", True
        return "more seen than billed", f"{place.account} {place.model} {place.day}", False
