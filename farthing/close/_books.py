"""What a closing books: the entries of its month, and what has to be put right of months that were closed before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from farthing.allocate import apportion
from farthing.close._month import APART, BILLED, USAGE, Month
from farthing.close._share import Given, computed, not_yet, pooled, shared_bill
from farthing.config import UNASSIGNED, Config, claims
from farthing.ledger import Closing, Line

FINAL, ACCRUAL, REVERSAL, CORRECTION = "actual", "accrual", "reversal", "correction"  # what a booking is
KEY = ("kind", "account", "team", "platform", "model", "endpoint", "zone", "mode", "meter")
Key = tuple[str, ...]
Amounts = dict[Key, tuple[int, int, str]]  # tokens, picodollars, invoice


class Booking(NamedTuple):
    """Entries that belong together: `ref` is the booking they take back."""

    what: str
    of: str
    entries: tuple[Line, ...]
    ref: str = ""
    reason: str = ""

    @property
    def picos(self) -> int:
        return sum(line.picos for line in self.entries)


class Target(NamedTuple):
    """What the books should hold of a month: for good, and until its bill comes."""

    final: Amounts
    accrued: Amounts


def target(month: Month, config: Config, *, accrue: bool) -> Target:
    """Billed money where there is a bill; what was computed where there is none, for good or as an accrual."""
    claim = claims(config.teams, "accounts")

    def owner(account: str) -> str:
        claimed = claim(account)
        return claimed[1] if claimed else UNASSIGNED

    if not month.part(BILLED, APART):
        whole = summed(pooled(list(_computed(month, beside_a_bill=False)), month, config))
        return Target({}, whole) if accrue else Target(whole, {})
    found = [*shared_bill(month, owner), *_computed(month, beside_a_bill=True)]
    late = list(not_yet(month, owner)) if accrue else []
    return Target(summed(pooled(found, month, config)), summed(pooled(late, month, config)))


def _computed(month: Month, *, beside_a_bill: bool) -> Iterator[Given]:
    """Usage at its computed cost; beside a bill only what is not on it."""
    billed = {"bedrock"} if beside_a_bill else set()
    if any(line.kind == "ccu" for line in month.part(APART)):
        billed.add("claude_aws")
    for line in month.part(USAGE):
        if line.card and line.platform not in billed:
            yield computed(line)


def summed(lines: Iterable[Line]) -> Amounts:
    """Lines by key, without those that come to nothing."""
    sums: dict[Key, list[int]] = defaultdict(lambda: [0, 0])
    invoices: dict[Key, dict[str, None]] = defaultdict(dict)
    for line in lines:
        key = tuple(getattr(line, name) for name in KEY)
        sums[key][0] += line.tokens
        sums[key][1] += line.picos
        invoices[key] |= dict.fromkeys(line.invoice.split())
    return {
        key: (tokens, picos, " ".join(sorted(invoices[key])))
        for key, (tokens, picos) in sorted(sums.items())
        if tokens or picos
    }


def as_entries(of: str, amounts: Amounts) -> tuple[Line, ...]:
    return tuple(
        Line("entry", of, **dict(zip(KEY, key, strict=True)), tokens=tokens, picos=picos, invoice=invoice)
        for key, (tokens, picos, invoice) in amounts.items()
    )


def taken_back(entries: Iterable[Line]) -> tuple[Line, ...]:
    """The exact negative."""
    return tuple(line._replace(tokens=-line.tokens, picos=-line.picos) for line in entries)


# --- what was booked -----------------------------------------------------------------------------------------------


def bookings(closings: Iterable[Closing]) -> dict[str, Booking]:
    """Every booking of these closings by its name, as 2026-10.1/2, in their order."""
    found: dict[str, list[Line]] = {}
    for closing in closings:
        for line in sorted(closing.entries, key=lambda line: int(line.booking.rpartition("/")[2])):
            found.setdefault(line.booking, []).append(line)
    return {
        name: Booking(lines[0].what, lines[0].of, tuple(lines), lines[0].ref, lines[0].said)
        for name, lines in found.items()
    }


def live(booked: Mapping[str, Booking]) -> dict[str, Booking]:
    """The bookings that nothing takes back. What takes back a taking back gives the first one its force again."""
    backs: dict[str, list[str]] = defaultdict(list)
    for name, booking in booked.items():
        if booking.ref:
            backs[booking.ref].append(name)

    def stands(name: str) -> bool:
        return not any(stands(back) for back in backs[name])

    return {name: booking for name, booking in booked.items() if stands(name)}


def standing(booked: Mapping[str, Booking], of: str) -> dict[str, Booking]:
    """What the books hold of a month: live bookings that are no reversals."""
    found = live(booked)
    return {name: it for name, it in found.items() if it.of == of and it.what != REVERSAL}


# --- what is to be booked ------------------------------------------------------------------------------------------


def replacing(booked: Mapping[str, Booking], period: str) -> Iterator[Booking]:
    """All that a period booked and that stands, taken back: it is closed again."""
    for name, booking in live(booked).items():
        own = booking.what == REVERSAL and period_of(booking.ref) == period
        if period_of(name) == period and not own:
            yield Booking(REVERSAL, booking.of, taken_back(booking.entries), name, "closed again")


def period_of(name: str) -> str:
    """Of a closing or a booking."""
    return name.partition(".")[0]


def first(month: Month, wanted: Target) -> Iterator[Booking]:
    """A month that was never closed."""
    for what, amounts in ((FINAL, wanted.final), (ACCRUAL, wanted.accrued)):
        if amounts:
            yield Booking(what, month.of, as_entries(month.of, amounts))


def corrections(
    of: str, wanted: Target, booked: Mapping[str, Booking], reason: str, *, same_teams: bool
) -> Iterator[Booking]:
    """From what is booked of an earlier month to what should be.

    An accrual that changed is taken back whole, and what is still open of it booked anew. Where teams were made up
    anew since, money stays with those it was booked to, and only what was added goes to those of today.
    """
    held = standing(booked, of)
    accruals = {name: booking for name, booking in held.items() if booking.what == ACCRUAL}
    final = [booking for booking in held.values() if booking.what != ACCRUAL]
    delta = difference(_sum(final), wanted.final, same_teams=same_teams)
    moved = difference(_sum(accruals.values()), wanted.accrued, same_teams=same_teams)
    if moved:
        for name, booking in accruals.items():
            yield Booking(REVERSAL, of, taken_back(booking.entries), name, reason)
    if delta:
        yield Booking(CORRECTION if final else FINAL, of, as_entries(of, delta), "", reason)
    if moved and wanted.accrued:
        yield Booking(ACCRUAL, of, as_entries(of, wanted.accrued), "", reason)


def _sum(found: Iterable[Booking]) -> Amounts:
    return summed(line for booking in found for line in booking.entries)


def difference(before: Amounts, after: Amounts, *, same_teams: bool) -> Amounts:
    """What has to be added to get from one to the other. Invoices alone make no difference."""
    if not same_teams:
        return _spread(before, after)
    found: Amounts = {}
    for key in sorted({*before, *after}):
        old, new = before.get(key, (0, 0, "")), after.get(key, (0, 0, ""))
        if old[:2] != new[:2]:
            found[key] = new[0] - old[0], new[1] - old[1], new[2] or old[2]
    return found


_TEAM = KEY.index("team")


def _spread(before: Amounts, after: Amounts) -> Amounts:
    """The difference without regard to teams, given to those that the key has afterwards, or had."""
    added = difference(_without_teams(before), _without_teams(after), same_teams=True)
    found: Amounts = {}
    for key, (tokens, picos, invoice) in added.items():
        teams = _teams(after, key) or _teams(before, key)
        names, weights = list(teams), list(teams.values())
        parts = zip(names, apportion(tokens, weights), apportion(picos, weights), strict=True)
        for team, count, amount in parts:
            found[(*key[:_TEAM], team, *key[_TEAM + 1 :])] = count, amount, invoice
    return {key: amounts for key, amounts in found.items() if any(amounts[:2])}


def _without_teams(amounts: Amounts) -> Amounts:
    entries = as_entries("", amounts)
    return summed(line._replace(team="") for line in entries)


def _teams(amounts: Amounts, key: Key) -> dict[str, int]:
    """The weights of a key's teams."""
    found: dict[str, int] = {}
    for of, (tokens, picos, _) in amounts.items():
        if (*of[:_TEAM], "", *of[_TEAM + 1 :]) == key:
            found[of[_TEAM]] = abs(picos) or abs(tokens)
    return found if any(found.values()) else {}


def numbered(closing: str, found: Sequence[Booking]) -> tuple[Line, ...]:
    """Bookings as the rows of a closing."""
    return tuple(
        line._replace(booking=f"{closing}/{number}", what=booking.what, ref=booking.ref, said=booking.reason)
        for number, booking in enumerate(found, 1)
        for line in booking.entries
    )
