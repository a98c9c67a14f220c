"""Quantity: tokens that only one side has, each under the cause that the evidence points to.

The causes are tried in a fixed order, the surest first: what is in the bill twice; exactly as many tokens in one place
here and in another there; mantle, which no log has; nearly as many elsewhere; duplicates of ours; then where and when
the rest was used, and who saw that. Tokens that have a cause are taken off the side they were on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import NamedTuple

from farthing.book import Resolved
from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.reconcile._causes import Causes
from farthing.reconcile._control import Control
from farthing.reconcile._passes import Passes
from farthing.reconcile._sides import Grain, NoPrice, Place, Seen, Side
from farthing.reconcile._writes import Writes
from farthing.reports._pairs import SECONDS, find_copies
from farthing.statement import Statement
from farthing.usage import Facts

LATE_DAYS = 3  # AWS may still add lines to days as young as that
MANY = 1_000  # tokens: counts as large as that are not twice another by chance, nor the same
_NEARLY = 10  # the smaller lacks at most one part in as many

# Tokens that stand in one place here and in another there, which differ in this alone.
_MISREAD = {
    "endpoint": "endpoint misread",
    "zone": "region misread (extended access)",
    "meter": "cache lifetime misread",
    "long_prompt": "prompt size misread",
    "day": "billed on another day",
}
_WRITES = ("cache_write_5m", "cache_write_1h")
_AS_BILL, _AS_OURS = "CloudWatch agrees with the bill", "CloudWatch agrees with us"
_AGREES = {"bill": _AS_BILL, "ours": _AS_OURS}


class Bill(NamedTuple):
    """What of a bill says whether more is to come: its days, and if it is on an invoice."""

    days: set[tuple[str, date]]  # (account, day)
    accounts: set[str]
    last: date | None
    final: bool
    not_decoded: dict[tuple[str, date], set[int]]  # what its lines that were not understood cost

    @classmethod
    def of(cls, sides: Mapping[Place, Side], statement: Statement, grain: Grain) -> Bill:
        days = {(place.account, place.day) for place, side in sides.items() if side.lines}
        unknown: dict[tuple[str, date], set[int]] = defaultdict(set)
        for line in statement.undecoded:
            day, account = grain(line.day, line.account)
            unknown[account, day].add(line.picos)
        last = max((day for _, day in days), default=None)
        return cls(days, {account for account, _ in days}, last, statement.invoiced, unknown)

    def waits(self, day: date) -> bool:
        """Whether AWS may still add lines to a day."""
        last = self.last or date.min
        return day > last or (day > last - timedelta(days=LATE_DAYS) and not self.final)


class Quantities:
    """Tokens still without a cause: above zero what only the bill has, below zero what only we have."""

    def __init__(
        self, sides: Mapping[Place, Side], seen: Seen, bill: Bill, control: Control, causes: Causes
    ) -> None:
        self._sides = sides
        self._seen = seen
        self._bill = bill
        self._control = control
        self._causes = causes
        self._found = dict.fromkeys(sides, 0)  # picodollars that have a cause
        self._open = {
            place: side.theirs - side.ours for place, side in sides.items() if side.rate is not None
        }
        self._told = dict.fromkeys(sides, 0)  # of no account in the ledger, and of this by the bill
        self._mantle = {place: side.mantle for place, side in sides.items() if side.mantle}
        self._called = {(place.account, place.model) for place, side in sides.items() if side.ours}
        self._passes: Passes | None = None
        self._writes: Writes | None = None
        self._pools: dict[tuple[date, str, str], list[NoPrice]] = defaultdict(list)
        for key, pool in seen.unpriced.items():
            self._pools[key] = list(pool)

    def name(self, ledger: Ledger, question: Question, grain: Grain) -> None:
        if any(count > 0 and self._is_seen(place) for place, count in self._open.items()):
            self._passes = Passes(ledger, question, grain)
            self._writes = Writes(ledger, question) if grain.by_day else None
        self._accounts()
        self._twice()
        self._take_mantle(surely=True)
        for axis in _MISREAD:
            self._moved(axis, exactly=True)
        self._take_mantle(surely=False)
        for axis in ("endpoint", "zone", "meter"):
            self._moved(axis, exactly=False)
        if any(count < 0 for count in self._open.values()):
            self._duplicates(ledger, question, grain)
        further = self._further()
        for place, side in self._sides.items():
            if self._open.get(place):
                self._rest(place, side, self._passes if place in further else None)
            lost = side.quantity_picos - self._found[place]  # of a rate that is a fraction
            self._causes.add("rounding", "rates of a month without days", lost, 0)

    def _take(
        self, name: str, where: str, place: Place, count: int, *, known: bool = True, lines: int = -1
    ) -> None:
        """Tokens, of the sign of what is open, have this cause."""
        if not count:
            return
        side = self._sides[place]
        picos = round(count * (side.rate or 0))
        self._causes.add(name, where, picos, side.lines if lines < 0 else lines, known=known)
        self._found[place] += picos
        self._open[place] -= count

    # --- the same tokens in two places

    def _accounts(self) -> None:
        """Usage of ours that names no account is of those that the bill names."""
        for group in self._groups("account"):
            here = next((place for place in group if not place.account), None)
            for there in group:
                if here and there.account:
                    count = min(self._open[there], -self._open[here])
                    if count > 0:
                        self._told[there] = count
                        self._move("account not told", here, there, count)

    def _groups(self, axis: str) -> Iterable[list[Place]]:
        groups: dict[tuple[object, ...], list[Place]] = defaultdict(list)
        rest = [i for i, name in enumerate(Place._fields) if name != axis]
        for place, count in self._open.items():
            if count and (axis != "meter" or place.meter in _WRITES):
                groups[tuple(place[i] for i in rest)].append(place)
        return [group for group in groups.values() if len(group) > 1]

    def _moved(self, axis: str, *, exactly: bool) -> None:
        """Pairs count where any of theirs, from the same to the same, is too large to be alike by chance."""
        pairs: dict[tuple[object, ...], list[tuple[Place, Place, int]]] = defaultdict(list)
        for group in self._groups(axis):
            for there in (place for place in group if self._open[place] > 0):
                for here in (place for place in group if self._open[place] < 0):
                    more, less = self._open[there], -self._open[here]
                    near = (max(more, less) - min(more, less)) * _NEARLY <= max(more, less)
                    alone = not (self._sides[here].theirs and self._sides[there].ours)
                    fits = more == less if exactly else near and alone
                    if fits and (axis != "day" or self._may_be_late(here, there)):
                        way = there.account, there.model, getattr(here, axis), getattr(there, axis)
                        pairs[way].append((here, there, min(more, less)))
        for found in pairs.values():
            if max(count for *_, count in found) < MANY:
                continue
            for here, there, count in found:
                if min(self._open[there], -self._open[here]) >= count:
                    said = f"billed {getattr(there, axis)}, counted {getattr(here, axis)}"
                    self._move(_MISREAD[axis], here, there, count, f"{there.model}: {said}")

    def _may_be_late(self, here: Place, there: Place) -> bool:
        """Whether both days have other tokens of the account on the side that lacks these."""
        return (here.account, here.day) in self._bill.days and (there.account, there.day) in self._seen.days

    def _move(self, name: str, here: Place, there: Place, count: int, where: str = "") -> None:
        self._take(name, where or there.account, there, count)
        self._take(name, where or there.account, here, -count, lines=0)

    # --- in the bill twice

    def _twice(self) -> None:
        """Days whose lines are all there twice, or more often; then single lines.

        Those are sure where a count is large, and all that the day has too much of is there a whole number of times.
        """
        times = self._times()
        for place in list(self._open):
            side = self._sides[place]
            often = times.get((place.account, place.day), 1)
            if often > 1 and self._open[place] > 0:
                self._mantle[place] = self._mantle.get(place, 0) // often
                self._again(place, min(side.theirs - side.theirs // often, self._open[place]))
        again = {place: often for place in self._open if (often := self._often(place)) > 1}
        more = Counter((p.account, p.day) for p, count in self._open.items() if count > 0)
        most = Counter((p.account, p.day) for p in again)
        sure = {(p.account, p.day) for p in again if self._ours(p) >= MANY}
        sure = {key for key in sure if most[key] == more[key]}
        for place, often in again.items():
            if (place.account, place.day) in sure and (place.account, place.day) not in times:
                self._again(place, self._ours(place) * (often - 1))

    def _again(self, place: Place, count: int) -> None:
        where = f"{place.account} {place.model} {place.day}"
        self._take("billed more than once (duplicate delivery)", where, place, count)

    def _ours(self, place: Place) -> int:
        return self._sides[place].ours + self._told[place]

    def _often(self, place: Place) -> int:
        """How often the bill has what we have of a place; 1 where it is no whole number of times."""
        side, ours = self._sides[place], self._ours(place)
        if ours <= 0 or self._open[place] <= 0 or self._control.side(place) == "bill":
            return 1
        gross = side.theirs - side.mantle
        return next((n // ours for n in (gross, gross - side.back) if n > ours and n % ours == 0), 1)

    def _times(self) -> dict[tuple[str, date], int]:
        """How often the bill has all that it has of an account's day, where that is more than once.

        Accounts that we saw nothing of are as the others of that day, if those agree.
        """
        told: dict[tuple[str, date], set[int]] = defaultdict(set)
        counts: dict[tuple[str, date], list[int]] = defaultdict(list)
        for place in self._open:
            key = (place.account, place.day)
            counts[key].append(self._sides[place].theirs)
            if self._ours(place) >= MANY and self._sides[place].theirs:
                often = self._often(place)
                if often > 1 or not self._has_passes(place):
                    told[key].add(often)
        by_day: dict[date, set[int]] = defaultdict(set)
        for (_, day), found in told.items():
            by_day[day] |= found
        times: dict[tuple[str, date], int] = {}
        for key, tokens in counts.items():
            said = told.get(key) or by_day.get(key[1]) or {1}
            most = max(said)
            if len(said - {1}) == 1 and 1 not in said and all(count % most == 0 for count in tokens):
                times[key] = most
        return times

    def _has_passes(self, place: Place) -> bool:
        """Whether what the bill has there may be so much because of passes that we do not know, and tells no times."""
        return self._passes is not None and self._open[place] > 0 and self._passes.most(place) > 0

    # --- one place at a time

    def _take_mantle(self, *, surely: bool) -> None:
        """All of mantle's tokens where none of our sources can have seen them; else what is open of them."""
        for place, tokens in list(self._mantle.items()):
            unseen = not self._seen.may_see_mantle(place.account)
            count = tokens if unseen else min(tokens, self._open.get(place, 0))
            if place in self._open and count > 0 and unseen == surely:
                self._take("mantle traffic, never logged", place.account, place, count)

    def _duplicates(self, ledger: Ledger, question: Question, grain: Grain) -> None:
        """Ours that another source of ours may have told of too: no more of them than we have beyond the bill."""
        for copy in find_copies(ledger, question, SECONDS):
            for facts, tokens in copy.copy.parts:
                day, account = grain(copy.copy.at.date(), facts.account)
                for place in self._places(question, facts, day, account):
                    count = min(tokens[METERS.index(place.meter)], -self._open[place])
                    if count > 0:
                        where = f"{account or 'of no account'}: {facts.source} (see farthing duplicates)"
                        self._take("possible duplicates of ours", where, place, -count, lines=1)

    def _places(self, question: Question, facts: Facts, day: date, account: str) -> list[Place]:
        found = question.book.place(facts, question.profiles, question.assume)
        if not isinstance(found, Resolved):
            return []
        sku = (found.sku.model, found.sku.endpoint, found.sku.zone, found.sku.mode)
        wanted = [Place(day, account, *sku, long, meter) for meter in METERS for long in (False, True)]
        return [place for place in wanted if self._open.get(place, 0) < 0]

    def _further(self) -> set[Place]:
        """The places where tokens beyond ours may be of passes: there are answers among them, and prompts."""
        more = [place for place, count in self._open.items() if count > 0 and self._is_seen(place)]
        kinds: dict[Place, set[bool]] = defaultdict(set)
        for place in more:
            kinds[_sku(place)].add(place.meter == "output")
        return {place for place in more if len(kinds[_sku(place)]) > 1}

    def _is_seen(self, place: Place) -> bool:
        """Whether the log tells of the account on that day, and so not the whole of it is unseen."""
        return place.mode != "batch" and self._seen.is_logged(place.account, place.day)

    def _rest(self, place: Place, side: Side, passes: Passes | None) -> None:
        if self._open[place] > 0:
            self._take_without_price(place)
            self._take_blind_regions(place, side)
            if passes and self._open[place]:
                count, where = passes.take(place, self._open[place])
                self._take("compaction or fallback attempts", self._agreed(where, place), place, count)
        elif side.back:
            back = max(self._open[place], side.back)
            where = f"{place.account} {place.model} {place.day}"
            self._take("usage taken back by negative lines", where, place, back)
        count = self._open[place]
        if count:
            name, where, known = self._not_seen(place) if count > 0 else self._not_billed(place, side)
            if "CloudWatch" not in name:
                where = self._agreed(where, place)
            self._take(name, where, place, count, known=known)

    def _agreed(self, where: str, place: Place) -> str:
        said = _AGREES.get(self._control.side(place))
        return f"{where} ({said})" if said else where

    def _take_without_price(self, place: Place) -> None:
        """Tokens that we saw and could not price, most likely of a profile that is not resolved."""
        pool = self._pools[place.day, place.account, place.meter]
        for i, said in enumerate(pool):
            some = min(said.tokens, self._open[place]) if said.model in ("", place.model) else 0
            if some > 0:
                pool[i] = said._replace(tokens=said.tokens - some)
                where = f"{place.account}: {said.reason}"
                self._take("calls that we could not price", where, place, some, lines=1)

    def _take_blind_regions(self, place: Place, side: Side) -> None:
        """Billed in a region of the account that has no log, or has none of that day."""
        if place.mode == "batch":
            return
        for region, tokens in side.theirs_in.items():
            count = min(tokens, self._open[place])
            where = f"{place.account} {region}"
            if count > 0 and self._seen.is_blind_in(place.account, region):
                self._take("logging off in the region", self._agreed(where, place), place, count)
            elif (
                count > 0
                and self._seen.is_logged(place.account, place.day)
                and self._seen.is_blind_in(place.account, region, place.day)
            ):
                where = self._agreed(f"{where} {place.day}", place)
                self._take("no logs on the day", where, place, count)

    def _not_seen(self, place: Place) -> tuple[str, str, bool]:
        account, on = place.account, f"{place.account} {place.day}"
        seen = self._seen
        if not seen.days:
            return "nothing in the ledger", on, False
        if place.mode == "batch":
            if account not in seen.batches:
                return "batch, which logs do not have", account, True
            if place.day not in seen.batches[account]:
                blind = (account, place.day) not in seen.days
                return "no logs on the day" if blind else "batch, which logs do not have", on, True
        elif account not in seen.logs:
            past = seen.has_gateway(account)
            return "gateway bypass" if past else "logging off in the account", account, True
        elif not seen.is_logged(account, place.day):
            return "no logs on the day", on, True
        return self._more_billed(place)

    def _more_billed(self, place: Place) -> tuple[str, str, bool]:
        where = f"{place.account} {place.model} {place.day}"
        agrees = self._control.side(place)
        if agrees == "bill":
            return f"our logs are short ({_AS_BILL})", where, True
        name = "more billed than seen"
        if place.meter in _WRITES and self._only_writes(place):
            again = self._writes.again(place, self._open[place]) if self._writes else None
            if again:
                where += f": {again.writes:,} of {again.tokens:,} tokens, which {again.calls:,} calls of ours wrote"
                return "cache writes billed more than once", where, True
            name += ": cache writes without reads"
        elif self._is_of_failed(place):
            name += ": prompts of calls that failed (see farthing faults)"
        elif (place.account, place.model) not in self._called:
            name += ": a model that no call of ours names (fallback or advisor attempts)"
        return f"{name} ({_AS_OURS})" if agrees == "ours" else name, where, False

    def _is_of_failed(self, place: Place) -> bool:
        """Whether calls failed that we have no counts of, and the answers of the rest are as we have them."""
        answers = self._sides.get(place._replace(meter="output"))
        same = answers is None or answers.ours == answers.theirs
        return (
            place.meter != "output" and same and (place.account, place.model, place.day) in self._seen.failed
        )

    def _only_writes(self, place: Place) -> bool:
        """Whether of the same day and SKU all else is as we have it."""
        others = (place._replace(meter=meter) for meter in METERS if meter not in _WRITES)
        sides = [self._sides[other] for other in others if other in self._sides]
        return bool(sides) and all(side.ours == side.theirs for side in sides)

    def _not_billed(self, place: Place, side: Side) -> tuple[str, str, bool]:
        bill, on = self._bill, f"{place.account} {place.day}"
        if not bill.days:
            return "nothing of Claude in the bill", on, False
        if place.account not in bill.accounts and not self._waits_for_all(place.account):
            name = "account not in the bill" if place.account else "usage of no known account"
            return name, place.account or place.model, True
        if bill.waits(place.day):
            return "not billed yet", on, True
        on = f"{on} ({'final' if bill.final else 'provisional'})"
        if (place.account, place.day) not in bill.days:
            return "day missing from the bill", on, True
        if -self._open[place] * (side.rate or 0) in bill.not_decoded.get((place.account, place.day), ()):
            return "counted by us, and not decoded in the bill", f"{place.model} {place.meter} {on}", True
        if not side.theirs_in or self._is_short_of_a_region(place, side):
            return "line missing from the bill, or late", f"{place.model} {place.meter} {on}", True
        where = f"{place.account} {place.model} {place.day}"
        agrees = self._control.side(place)
        if agrees == "ours":
            return f"the bill is short ({_AS_OURS})", where, True
        name = "more seen than billed"
        return f"{name} ({_AS_BILL})" if agrees == "bill" else name, where, False

    def _waits_for_all(self, account: str) -> bool:
        """Whether AWS may still bill every day that we know of an account."""
        return all(self._bill.waits(day) for of, day in self._seen.days if of == account)

    def _is_short_of_a_region(self, place: Place, side: Side) -> bool:
        """Whether what is missing is all that we have of regions which the bill's lines do not name."""
        missing = sum(
            count for region, count in side.ours_in.items() if region and region not in side.theirs_in
        )
        return bool(missing) and -self._open[place] == missing


def _sku(place: Place) -> Place:
    """The place, whatever the meter and the size of the prompt."""
    return place._replace(meter="", long_prompt=False)
