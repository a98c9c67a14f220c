"""A closed month derived again: each part that a closing froze, beside what comes out now, and what moved between."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import Any, NamedTuple

from farthing.cells import Question
from farthing.close._books import Booking, bookings, period_of, standing, target
from farthing.close._month import APART, BILLED, CARD, USAGE, Month
from farthing.exporters.journal import shown_rate
from farthing.fx import Rates
from farthing.ledger import Closing, Line
from farthing.meters import METERS
from farthing.money import mtok_usd, show, usd

OK, NO, UNASKED, GONE = "ok", "no", "not asked", "gone"
SHOWN = 20


class Part(NamedTuple):
    """One thing that was frozen. `closed` and `now` are exact, for machines; `note` is for people."""

    name: str
    verdict: str
    closed: str
    now: str
    note: str = ""


class Change(NamedTuple):
    """What moved in one place, since the month was closed."""

    what: str  # usage, billed
    day: str
    account: str
    model: str
    tokens: int
    picos: int


class RateChange(NamedTuple):
    card: str
    meter: str
    closed: int  # picodollars a token
    now: int | None
    picos: int  # on the month's tokens


@dataclass
class Audit:
    month: str
    closing: str
    corrected_by: list[str]
    parts: list[Part] = field(default_factory=list)
    later: list[tuple[str, Booking]] = field(default_factory=list)  # booked by other closings
    changes: list[Change] = field(default_factory=list)
    rates: list[RateChange] = field(default_factory=list)

    @property
    def comes_out(self) -> bool:
        return all(part.verdict in (OK, UNASKED) for part in self.parts)

    def add(self, name: str, closed: Any, now: Any, note: str = "", *, same: bool | None = None) -> bool:
        found = closed == now if same is None else same
        self.parts.append(Part(name, OK if found else NO, str(closed), str(now), note))
        return found


def audit(
    seen: Sequence[Closing],
    changed: Sequence[str],
    month: str,
    frozen: Month,
    now: Month | None,
    question: Question,
    rates: Rates | None,
    *,
    bill_given: bool,
) -> Audit:
    """`changed` are closings that are not as they were written.

    `frozen` is the month as the last closing knew it, `now` as it looks now; None where its usage was dropped.
    """
    own = next(closing for closing in reversed(seen) if closing.period == month)
    later = [it.id for it in seen if it.period != month and month in it.said["months"]]
    found = Audit(month, own.id, later)
    found.add("closing", "as written", f"changed: {', '.join(changed)}" if changed else "as written")
    if now is None:
        note = "dropped from the ledger since: the closing stands, and cannot be derived again"
        found.parts.append(Part("usage", GONE, frozen.said["usage_digest"], "", note))
    else:
        _usage(found, frozen, now, question)
    _bill(found, frozen, now if bill_given else None)
    _fx(found, own, rates)
    _books(found, seen, frozen, question)
    return found


# --- usage and rates ------------------------------------------------------------------------------------------------


def _usage(found: Audit, frozen: Month, now: Month, question: Question) -> None:
    counts = frozen.said["calls"], now.said["calls"]
    calls = _counts(*counts, " calls")
    found.add("usage", frozen.said["usage_digest"], now.said["usage_digest"], calls)
    tokens = [sum(line.tokens for line in it.part(USAGE)) for it in (frozen, now)]
    found.add("tokens", tokens[0], tokens[1], _counts(tokens[0], tokens[1]))
    repriced = list(_repriced(frozen, now))
    closed, again = frozen.sum(USAGE), sum(line.picos for line in repriced)
    note = f"{show(closed)}{_moved_by((closed, again))}, at the {len(frozen.part(CARD))} cards it was closed with"
    found.add("contracted cost" if frozen.said.get("offers") else "list cost", usd(closed), usd(again), note)
    found.changes += _moved("usage", frozen.part(USAGE), repriced)
    found.rates = list(_rate_changes(frozen, question))
    moved = sum(change.picos for change in found.rates)
    closed_book, book = frozen.said["book"], now.said["book"]
    note = "the same book" if closed_book == book else "another book, with the same rates for this month"
    if found.rates:
        note = f"{len({it.card for it in found.rates})} cards have other rates now: {_signed(moved)} on this month"
    found.add("book", closed_book, book, note, same=not found.rates)
    if frozen.said["teams"] != now.said["teams"]:
        note = "made up anew in farthing.toml since: the month stays as it was closed"
        found.add("teams", frozen.said["teams"], now.said["teams"], note, same=True)
    if frozen.said["profiles"] != now.said["profiles"]:
        note = "the map of profiles is another since"
        found.add("profiles", frozen.said["profiles"], now.said["profiles"], note, same=True)


def _repriced(frozen: Month, now: Month) -> Iterator[Line]:
    """Usage as it is now at the rates that it was closed with; where there were none, at those of today."""
    cards = {line.card: json.loads(line.said) for line in frozen.part(CARD)}
    boxes: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for line in frozen.part(CARD):
        boxes[_sku(line)].append(cards[line.card])
    today = {line.card: json.loads(line.said) for line in now.part(CARD)}
    for line in now.part(USAGE):
        card = cards.get(line.card) or (line.card and _same_box(boxes[_sku(line)], line, today[line.card]))
        if card:
            yield line._replace(picos=line.tokens * card["rates"][METERS.index(line.meter)])
        else:
            yield line


def _sku(line: Line) -> tuple[str, ...]:
    return line.platform, line.model, line.endpoint, line.zone, line.mode


def _same_box(boxes: Iterable[dict[str, Any]], line: Line, today: dict[str, Any]) -> dict[str, Any] | None:
    """The card that held for this SKU, day and prompt band when the month was closed."""
    fits = (
        box
        for box in boxes
        if box["starts"][:10] <= line.day < box["ends"][:10] and box["prompt_from"] == today["prompt_from"]
    )
    return next(fits, None)


def _rate_changes(frozen: Month, question: Question) -> Iterator[RateChange]:
    """The rates of the cards used that the book has otherwise today, with what that makes on the month's tokens."""
    there = {card.id: card for card in question.book.cards()}
    tokens: dict[tuple[str, str], int] = defaultdict(int)
    for line in frozen.part(USAGE):
        tokens[line.card, line.meter] += line.tokens
    for line in frozen.part(CARD):
        rates = json.loads(line.said)["rates"]
        card = there.get(line.card)
        for meter, closed in zip(METERS, rates, strict=True):
            now = None if card is None else int(getattr(card.rates, meter))
            count = tokens[line.card, meter]
            if count and now != closed:
                yield RateChange(line.card, meter, closed, now, count * ((now or 0) - closed) if card else 0)


def _moved(what: str, before: Iterable[Line], after: Iterable[Line]) -> list[Change]:
    """By day, account and model, the largest first."""
    sums: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for lines, at in ((before, 0), (after, 2)):
        for line in lines:
            total = sums[line.day, line.account, line.model]
            total[at] += line.tokens
            total[at + 1] += line.picos
    changes = [Change(what, *key, s[2] - s[0], s[3] - s[1]) for key, s in sums.items() if s[:2] != s[2:]]
    return sorted(changes, key=lambda change: (-abs(change.picos), -abs(change.tokens), change))


# --- the bill, the rate of exchange, the books ---------------------------------------------------------------------


def _bill(found: Audit, frozen: Month, now: Month | None) -> None:
    said = frozen.said.get("bill")
    if now is None or not now.has_bill:
        note = "hold it against its bill with --statement" if said else "it was closed without a bill"
        found.parts.append(Part("statement", UNASKED, "", "", note))
        return
    files = [_files(it.said.get("bill")) for it in (frozen, now)]
    if not said:
        note = f"{_signed(now.sum(BILLED, APART))} billed; it was closed without a bill"
        found.add("statement", "", files[1], note)
        return
    found.add("statement", files[0], files[1], "the very files" if files[0] == files[1] else "other files")
    for name, part, which in (("billed", BILLED, "for tokens"), ("apart", APART, "beside tokens")):
        sums = frozen.sum(part), now.sum(part)
        same = _by_place(frozen, part) == _by_place(now, part)
        found.add(name, usd(sums[0]), usd(sums[1]), f"{show(sums[0])} {which}{_moved_by(sums)}", same=same)
    found.changes += _moved("billed", frozen.part(BILLED), now.part(BILLED))
    open_ = frozen.unexplained_picos, now.unexplained_picos
    found.add("residuals", usd(open_[0]), usd(open_[1]), f"{show(open_[0])} unexplained{_moved_by(open_)}")


def _by_place(month: Month, part: str) -> dict[Line, tuple[int, int]]:
    return {
        line._replace(invoice="", tokens=0, picos=0): (line.tokens, line.picos) for line in month.part(part)
    }


def _files(bill: dict[str, Any] | None) -> str:
    return " ".join(sorted(file["sha256"] for file in (bill or {}).get("files", ())))


def _fx(found: Audit, own: Closing, rates: Rates | None) -> None:
    said = own.said["fx"]
    if said is None:
        return
    closed = f"{said['per_usd']} {said['currency']} of {said['date']}"
    shown = f"{shown_rate(Fraction(said['per_usd']))} {said['currency']} for a dollar of {said['date']}"
    if rates is None:
        note = f"{shown}, by {said['source']}: hold it against the file with --fx"
        found.parts.append(Part("fx", UNASKED, closed, "", note))
        return
    rate = rates.at(date.fromisoformat(said["day"]), said["currency"])
    now = f"{rate.per_usd} {rate.currency} of {rate.date}"
    moved = "" if closed == now else f", now {shown_rate(rate.per_usd)} of {rate.date}"
    found.add("fx", closed, now, f"{shown}, by {said['source']}{moved}")


def _books(found: Audit, seen: Sequence[Closing], frozen: Month, question: Question) -> None:
    """That the entries of all closings sum to what the last of them knew of the month."""
    booked = bookings(seen)
    held = standing(booked, frozen.of)
    found.later = [(name, it) for name, it in booked.items() if it.of == frozen.of != period_of(name)]
    accrued = any(booking.what == "accrual" for booking in held.values())
    wanted = target(frozen, question.config, accrue=accrued)
    due = sum(picos for amounts in wanted for _, picos, _ in amounts.values())
    total = sum(booking.picos for booking in held.values())
    note = (
        f"{len(held):,} bookings in {', '.join(sorted({name.partition('/')[0] for name in held})) or 'none'}"
    )
    found.add("entries", usd(due), usd(total), f"{note}: {show(total)}")


def _signed(picos: int) -> str:
    return f"{'+' if picos > 0 else ''}{show(picos)}"


def _moved_by(sums: tuple[int, int]) -> str:
    return f", now {show(sums[1])}" if sums[0] != sums[1] else ""


def _counts(closed: int, now: int, unit: str = "") -> str:
    return f"{closed:,}{unit}" if closed == now else f"{closed:,}{unit} when closed, {now:,} now"


def described_rate(change: RateChange) -> str:
    """bedrock/.../on_demand@2026-03-13 output: $15 a million tokens when closed, $16.5 now: +$1.20"""
    now = "no such card" if change.now is None else f"${mtok_usd(change.now)}"
    closed = f"${mtok_usd(change.closed)} a million tokens"
    return f"{change.card} {change.meter}: {closed} when closed, {now} now: {_signed(change.picos)}"
