"""Ours against AWS's, to the picodollar: every dollar of the difference has a name.

For each day, account, model, endpoint, mode, prompt band and meter: billed - ours = (their tokens - our tokens) at the
book's rate, plus what their tokens cost beyond that rate. The first part is quantity, the second is price; both are
then given causes, and what has none is unexplained. Days are UTC, as AWS bills them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import NamedTuple

from farthing.book import Book, Resolved, Unpriced
from farthing.cells import Question, cells
from farthing.ledger import Ledger
from farthing.meters import CACHE_METERS, METERS
from farthing.reports._pairs import SECONDS, find_copies
from farthing.statement import Billed, Statement
from farthing.usage import Facts, Sku

ROUNDING_PICOS = 1_000_000  # a line's cost has at least six decimals that count
LATE_DAYS = 3  # AWS may still add lines to days as young as that
AS_GOOD_AS = Decimal("0.00001")  # a share below list that is the same, but for the rounding of amounts
MANY = 1_000  # tokens: counts as large as that are not twice another by chance


class Place(NamedTuple):
    """What usage is compared by."""

    day: date
    account: str
    model: str
    endpoint: str
    zone: str
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
    back: int = 0  # of their tokens, those of lines below zero
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
    grain = _Grain(statement)
    sides: dict[Place, Side] = defaultdict(Side)
    unpriced = _ours(sides, ledger, question, grain)
    for line in statement.billed:
        _add(sides, line, statement, grain)
    naming = _Naming(dict(sides), statement, unpriced)
    naming.prices(statement.book)
    naming.twice()
    for axis in _MISREAD:
        naming.moved(axis)
    if naming.has_more():
        naming.duplicates(ledger, question, grain)
    for place, side in naming.sides.items():
        naming.quantity(place, side)
    billed = sum(side.theirs_picos for side in naming.sides.values())
    for unknown in statement.undecoded:
        naming.add("unknown SKU, not decoded", f"{unknown.usage_type}: {unknown.why}", unknown.picos, 1)
        billed += unknown.picos
    for entry in statement.apart:
        naming.add(f"apart: {entry.kind}", entry.account, entry.picos, entry.lines)
        billed += entry.picos
    ours = sum(side.ours_picos for side in naming.sides.values())
    explained, unexplained = naming.sorted(naming.explained), naming.sorted(naming.unknown)
    result = Reconciled(ours, billed, explained, unexplained, naming.sides)
    found = sum(cause.picos for cause in (*result.explained, *result.unexplained))
    assert found == result.difference_picos, (found, result.difference_picos)
    return result


class _Grain:
    """How finely the bill tells usage: some tell no accounts, some no days. Ours is summed as far."""

    def __init__(self, statement: Statement) -> None:
        self.by_account = any(line.account for line in statement.billed) or not statement.billed
        self.by_day = not statement.loaded.by_month

    def __call__(self, day: date, account: str) -> tuple[date, str]:
        return day if self.by_day else day.replace(day=1), account if self.by_account else ""


def _ours(
    sides: dict[Place, Side], ledger: Ledger, question: Question, grain: _Grain
) -> dict[tuple[date, str, str], list[tuple[str, int]]]:
    """Puts our usage in its places. What has no price stands in none: (day, account, meter) to reasons and tokens."""
    unpriced: dict[tuple[date, str, str], list[tuple[str, int]]] = defaultdict(list)
    keys = ("day", "account", "platform", "model", "endpoint", "zone", "mode")
    for cell in cells(ledger, question, keys):
        day, account, platform, *sku = cell.keys
        at, account = grain(date.fromisoformat(day), account)
        if platform not in ("bedrock", ""):
            continue
        for i, (meter, count) in enumerate(zip(METERS, cell.tokens, strict=True)):
            if not count:
                continue
            if isinstance(cell.price, Unpriced):
                unpriced[at, account, meter].append((cell.price.reason, count))
                continue
            model, endpoint, zone, mode = sku
            side = sides[Place(at, account, model, endpoint, zone, mode, cell.prompt > 0, meter)]
            side.ours += count
            side.ours_picos += count * cell.price.rates[i]
            side.rate = cell.price.rates[i]
    return unpriced


def _add(sides: dict[Place, Side], line: Billed, statement: Statement, grain: _Grain) -> None:
    day, account = grain(line.day, line.account)
    place = Place(day, account, line.model, line.endpoint, line.zone, line.mode, line.long_prompt, line.meter)
    side = sides[place]
    side.theirs += line.tokens
    side.theirs_picos += line.billed_picos
    side.lines += 1
    side.back += min(line.tokens, 0)
    if line.mantle:
        side.mantle += line.tokens
    if side.rate is None:
        cached = line.meter in CACHE_METERS
        card = statement.card(
            line.model, line.endpoint, line.mode, line.region, line.day, line.long_prompt, cached
        )
        side.rate = None if isinstance(card, Unpriced) else getattr(card.rates, line.meter)


# Tokens that stand in one place here and in another there, which differ in this alone.
_MISREAD = {
    "account": "account not told",
    "endpoint": "endpoint misread",
    "zone": "region misread (extended access)",
    "meter": "cache lifetime misread",
}


class _Naming:
    """Causes of the difference, as they are found. Tokens that have a cause are taken off the side they were on."""

    def __init__(
        self,
        sides: dict[Place, Side],
        statement: Statement,
        unpriced: dict[tuple[date, str, str], list[tuple[str, int]]],
    ) -> None:
        self.explained: dict[tuple[str, str], list[int]] = {}
        self.unknown: dict[tuple[str, str], list[int]] = {}
        self.sides = sides
        self._open = {place: side.theirs - side.ours for place, side in sides.items()}
        self._unpriced = unpriced
        self._logged = {(p.account, p.day) for p, side in sides.items() if side.ours}
        self._logged |= {(account, day) for day, account, _ in unpriced}
        self._accounts = {account for account, _ in self._logged}
        self._batched = {p.account for p, side in sides.items() if side.ours and p.mode == "batch"}
        self._billed_days = {(p.account, p.day) for p, side in sides.items() if side.lines}
        self._last_day: dict[str, date] = {}
        for account, day in self._billed_days:
            self._last_day[account] = max(day, self._last_day.get(account, day))
        self._last_of_all = max(self._last_day.values(), default=date.min)
        self._final = statement.invoiced

    def add(self, name: str, where: str, picos: int, lines: int, *, known: bool = True) -> None:
        if picos or lines:
            total = (self.explained if known else self.unknown).setdefault((name, where), [0, 0])
            total[0] += picos
            total[1] += lines

    @staticmethod
    def sorted(found: dict[tuple[str, str], list[int]]) -> list[Cause]:
        causes = [Cause(*key, *total) for key, total in found.items() if total[0]]
        return sorted(causes, key=lambda cause: (-abs(cause.picos), cause))

    # --- price: what their tokens cost beyond the book's rate

    def prices(self, book: Book) -> None:
        beyond: dict[tuple[str, str], list[Place]] = defaultdict(list)
        for place, side in self.sides.items():
            if side.rate is None:
                where = f"{place.model} {place.endpoint} {place.mode} {place.meter}"
                self.add("no rate in the book", where, side.theirs_picos, side.lines)
                self._open[place] = 0
            elif side.theirs or side.theirs_picos:
                beyond[place.account, place.model].append(place)
        shares = {owner: self._discount(places) for owner, places in beyond.items()}
        for (account, model), places in beyond.items():
            share = shares[account, model]
            if share is None:  # one rate alone may be wrong, unless it is what the account has on others
                others = {found for (of, _), found in shares.items() if of == account and found is not None}
                share = next((other for other in sorted(others) if self._are_at(places, other)), None)
            for place in places:
                if share is None:
                    self._price(book, place)
                    continue
                side = self.sides[place]
                extra = side.theirs_picos - side.theirs * (side.rate or 0)
                off = (100 * (1 - share)).quantize(Decimal("0.01")).normalize()
                self.add(f"discount of {off:f} %", f"{account} {model}", extra, side.lines)

    def _discount(self, places: list[Place]) -> Decimal | None:
        """The share of list that two rates or more are all at, if it is below list."""
        sides = [self.sides[place] for place in places]
        listed = sum(side.theirs * (side.rate or 0) for side in sides)
        share = Decimal(sum(side.theirs_picos for side in sides)) / listed if listed > 0 else Decimal(1)
        several = len({place.meter for place in places}) > 1
        below = several and 0 < share < 1 - AS_GOOD_AS * 10
        return share if below and self._are_at(places, share) else None

    def _are_at(self, places: list[Place], share: Decimal) -> bool:
        for side in (self.sides[place] for place in places):
            at_list = side.theirs * (side.rate or 0)
            slack = ROUNDING_PICOS * max(side.lines, 1) + AS_GOOD_AS * abs(at_list)
            if abs(side.theirs_picos - share * at_list) > slack:
                return False
        return True

    def _price(self, book: Book, place: Place) -> None:
        side = self.sides[place]
        at_list = side.theirs * (side.rate or 0)
        extra = side.theirs_picos - at_list
        slack = ROUNDING_PICOS * max(side.lines, 1)
        if abs(extra) <= slack:
            self.add("rounding", "amounts and quantities of the bill", extra, side.lines)
            return
        what = f"{place.model} {place.endpoint} {place.mode} {place.meter}"
        for zone, rate in _zone_rates(book, place).items():
            if abs(side.theirs_picos - side.theirs * rate) <= slack:
                at = f"{place.account} {what}: billed at the rate of zone {zone or 'standard'}"
                self.add("extended access", at, extra, side.lines)
                return
        share = extra * 10_000 // at_list if at_list else 0
        self.add("rate other than the book's", f"{what}: {share / 100:+.2f} %", extra, side.lines)

    # --- quantity: tokens that only one side has

    def twice(self) -> None:
        """Lines that the bill has twice, or more often: sure where the count is large, then the day's others too."""
        again = [place for place in self.sides if self._is_again(place)]
        sure = {(place.account, place.day) for place in again if self.sides[place].ours >= MANY}
        for place in again:
            if (place.account, place.day) in sure:
                where = f"{place.account} {place.model} {place.day}"
                picos = self._open[place] * (self.sides[place].rate or 0)
                self.add("billed more than once (duplicate delivery)", where, picos, self.sides[place].lines)
                self._open[place] = 0

    def _is_again(self, place: Place) -> bool:
        side, count = self.sides[place], self._open[place]
        return bool(side.ours and count > 0 and count % side.ours == 0 and not side.mantle)

    def moved(self, axis: str) -> None:
        groups: dict[tuple[object, ...], list[Place]] = defaultdict(list)
        rest = [i for i, name in enumerate(Place._fields) if name != axis]
        for place in self.sides:
            if axis != "meter" or place.meter.startswith("cache_write"):
                groups[tuple(place[i] for i in rest)].append(place)
        for group in groups.values():
            self._pair(axis, group)

    def _pair(self, axis: str, group: Iterable[Place]) -> None:
        places = [place for place in group if self.sides[place].rate is not None]
        more = [place for place in places if self._open[place] > 0]
        less = [place for place in places if self._open[place] < 0]
        for there in more:
            for here in less:
                count = min(self._open[there], -self._open[here])
                if count <= 0 or (axis == "account" and here.account):
                    continue
                rates = self.sides[there].rate or 0, self.sides[here].rate or 0
                self._open[there] -= count
                self._open[here] += count
                where = f"{there.model}: billed {getattr(there, axis)}, counted {getattr(here, axis)}"
                self.add(_MISREAD[axis], where, count * (rates[0] - rates[1]), 1)

    def has_more(self) -> bool:
        return any(count < 0 for count in self._open.values())

    def duplicates(self, ledger: Ledger, question: Question, grain: _Grain) -> None:
        """Ours that another source of ours may have told of too: no more of them than we have beyond the bill."""
        for copy in find_copies(ledger, question, SECONDS):
            for facts, tokens in copy.copy.parts:
                day, account = grain(copy.copy.at.date(), facts.account)
                for place in self._places(question, facts, day, account):
                    count = min(tokens[METERS.index(place.meter)], -self._open[place])
                    rate = self.sides[place].rate
                    if count > 0 and rate is not None:
                        self._open[place] += count
                        where = f"{account or 'of no account'}: {facts.source} (see farthing duplicates)"
                        self.add("possible duplicates of ours", where, -count * rate, 1)

    def _places(self, question: Question, facts: Facts, day: date, account: str) -> list[Place]:
        found = question.book.place(facts, question.profiles, question.assume)
        if not isinstance(found, Resolved):
            return []
        sku = (found.sku.model, found.sku.endpoint, found.sku.zone, found.sku.mode)
        wanted = [Place(day, account, *sku, long, meter) for meter in METERS for long in (False, True)]
        return [place for place in wanted if self._open.get(place, 0) < 0]

    def quantity(self, place: Place, side: Side) -> None:
        count = self._open[place]
        if not count or side.rate is None:
            return
        if count > 0 and side.mantle:
            mantle = min(count, side.mantle)
            self.add("mantle traffic, never logged", place.account, mantle * side.rate, side.lines)
            count -= mantle
        if count > 0:
            count -= self._of_no_price(place, side.rate, count)
        if count < 0 and side.back:
            back = max(count, side.back)
            where = f"{place.account} {place.model} {place.day}"
            self.add("usage taken back by negative lines", where, back * side.rate, side.lines)
            count -= back
        if count:
            name, where, known = self._not_seen(place) if count > 0 else self._not_billed(place, side)
            self.add(name, where, count * side.rate, side.lines, known=known)

    def _of_no_price(self, place: Place, rate: int, count: int) -> int:
        """Tokens that we saw and could not price, most likely of a profile that is not resolved."""
        taken = 0
        pool = self._unpriced.get((place.day, place.account, place.meter), [])
        for i, (reason, tokens) in enumerate(pool):
            some = min(tokens, count - taken)
            pool[i] = (reason, tokens - some)
            taken += some
            self.add("calls that we could not price", f"{place.account}: {reason}", some * rate, bool(some))
        return taken

    def _not_seen(self, place: Place) -> tuple[str, str, bool]:
        if place.mode == "batch" and place.account not in self._batched:
            return "batch, which logs do not have", place.account, True
        if place.account not in self._accounts:
            return "logging off in the account", place.account, True
        if (place.account, place.day) not in self._logged:
            return "no logs on the day", f"{place.account} {place.day}", True
        return "more billed than seen", f"{place.account} {place.model} {place.day}", False

    def _not_billed(self, place: Place, side: Side) -> tuple[str, str, bool]:
        on = f"{place.account} {place.day}"
        if not self._last_day:
            return "nothing of Claude in the bill", on, True
        if not place.account and "" not in self._last_day:
            return "usage of no known account", place.model, True
        last = self._last_day.get(place.account)
        if last is None:
            return "account not in the bill", place.account, True
        late = place.day > self._last_of_all - timedelta(days=LATE_DAYS)
        if (place.account, place.day) not in self._billed_days:
            return ("not billed yet" if place.day > last or late else "day missing from the bill"), on, True
        if late and not self._final:
            return "not billed yet", on, True
        if not side.lines:
            return "line missing from the bill, or late", f"{on} {place.model} {place.meter}", True
        return "more seen than billed", f"{place.account} {place.model} {place.day}", False


def _zone_rates(book: Book, place: Place) -> dict[str, int]:
    """What the model costs on that day in the other zones of its price."""
    zones = ("", *book.models[place.model].platform("bedrock").get("zones", ()))
    at = datetime.combine(place.day, time(), UTC)
    found = {}
    for zone in zones:
        sku = Sku("bedrock", place.model, place.endpoint, zone, place.mode)
        card = book.find(sku, at, cached=place.meter in CACHE_METERS)
        if zone != place.zone and not isinstance(card, Unpriced):
            found[zone] = int(getattr(card.rates, place.meter))
    return found
