"""Closing a month: what it cost, frozen with its proof; what is learnt later is booked, never written over.

A closing books entries. Those of its own month are what AWS billed, by team, or what was computed where there is no
bill. Of months closed before it books the difference to what is known now. So for each month the entries of all
closings sum to what is known of it, and no closing ever changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from farthing.allocate import apportion
from farthing.cells import Question
from farthing.close._audit import SHOWN, Audit, Change, Part, RateChange, described_rate
from farthing.close._audit import audit as _audit
from farthing.close._books import (
    ACCRUAL,
    Booking,
    bookings,
    corrections,
    first,
    live,
    numbered,
    period_of,
    replacing,
    standing,
    target,
)
from farthing.close._month import (
    APART,
    BILLED,
    CAUSE,
    NOT_YET,
    USAGE,
    Month,
    asked_of,
    bill_of,
    days_of,
    digests_of,
    known,
    rows_of,
    together,
    usage_of,
)
from farthing.costs import due
from farthing.fx import Rates
from farthing.ledger import Closing, Ledger, LedgerError, add_closing, closings, faulty, in_full
from farthing.money import show, usd
from farthing.statement import Statement

__all__ = [
    "ACCRUAL", "APART", "BILLED", "CAUSE", "NOT_YET", "SHOWN", "USAGE", "Asked", "Audit", "Booking", "Change", "Month",
    "Part", "RateChange", "Refused", "apportion", "audit", "bookings", "close", "days_of", "described",
    "described_rate", "latest", "live", "open_corrections", "period_of", "standing",
]  # fmt: skip

_ATTEMPTS = 5
CENT_PICOS = 10**10


class Refused(Exception):
    """The month is not closed: one line that says why, and what would."""


@dataclass(frozen=True)
class Asked:
    """How a month is to be closed. `by`, `note` and `reason` are kept as they are given."""

    accrue: bool = False
    again: bool = False
    reason: str = ""
    by: str = ""
    note: str = ""
    tolerance_picos: int = CENT_PICOS
    allow_unexplained: bool = False
    rates: Rates | None = None
    currency: str = "USD"


def close(
    ledger: Ledger,
    month: str,
    question: Question,
    bills: Mapping[str, Statement],
    asked: Asked,
    now: datetime,
    *,
    dry_run: bool = False,
) -> Closing:
    """Close a month, in one step; Refused if that cannot be. `bills` has the bill of each month that one is given for.

    Of two who close it at once one is refused. Killed before the step, nothing is closed; `dry_run` stops there.
    """
    for _ in range(_ATTEMPTS):
        seen = closings(ledger)
        before = _version(ledger)
        made = _made(ledger, month, question, bills, asked, now, seen)
        if _version(ledger) != before:
            continue  # usage came in while it was being looked at
        if dry_run or add_closing(ledger, made, [closing.id for closing in seen]):
            return made
    raise LedgerError(f"{ledger.folder}: others keep writing to it; close again when they are done")


def _version(ledger: Ledger) -> int:
    delta = ledger.delta("usage")
    return delta.version() if delta else 0


def _made(
    ledger: Ledger,
    month: str,
    question: Question,
    bills: Mapping[str, Statement],
    asked: Asked,
    now: datetime,
    seen: Sequence[Closing],
) -> Closing:
    _check(month, asked, now, seen)
    usage = usage_of(ledger, question, month)
    earlier = [closing for closing in seen if closing.period == month]
    if month in bills:
        own = together(usage, bill_of(bills[month], ledger, question, month))
    else:  # closed again: on the bill that it was closed on
        own = together(usage, latest(ledger, seen, month) if earlier else None)
    _check_known(own, asked)
    if not own.part(BILLED, APART):
        own = usage  # no bill, or one of nothing yet
    booked = bookings(seen)
    others = {name: booking for name, booking in booked.items() if period_of(name) != month}
    found = list(replacing(booked, month))
    found += first(own, target(own, question.config, accrue=asked.accrue))
    months = {month: own}
    skipped = []
    for of in sorted({closing.period for closing in seen if closing.period < month}):
        restated = _restated(ledger, of, question, bills.get(of), seen, others, asked, month)
        if isinstance(restated, str):
            skipped.append(restated)
        elif restated:
            months[of] = restated.now
            found += restated.bookings
    if not found:
        given = ", and the bill has nothing of it" if month in bills else ""
        raise Refused(
            f"{month}: no usage in the ledger{given}: import its logs, or name its bill by --statement"
        )
    name = f"{month}.{len(earlier) + 1}"
    terms = _terms(ledger, asked_of(question, month), now)
    lines = (*(line for it in months.values() for line in it.lines), *numbered(name, found))
    said = {
        "by": asked.by,
        "note": asked.note,
        "reason": asked.reason,
        "fx": _fx(month, asked, now),
        "tolerance_usd": usd(asked.tolerance_picos),
        "ends": f"{days_of(month)[1]}",
        "ledger_version": _version(ledger),
        "accrued": any(it.what == ACCRUAL and it.of == month for it in found),
        "months": {of: it.said | (terms if of == month else {}) for of, it in months.items()},
        "skipped": skipped,
    }
    return Closing(name, len(seen) + 1, int(now.timestamp()) * 1_000_000, said, lines)


def _terms(ledger: Ledger, asked: Question, now: datetime) -> dict[str, Any]:
    """What commitments and volume tiers of offers came to in the month: of no call, and so in no booking."""
    back, short = due(ledger, asked, now.date())
    return {"terms": {"rebate_usd": usd(back), "shortfall_usd": usd(short)}} if back or short else {}


def _check(month: str, asked: Asked, now: datetime, seen: Sequence[Closing]) -> None:
    """Refused where the month is not to be closed, whatever is known of it."""
    _, last = days_of(month)
    ends = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
    if now < ends and not asked.accrue:
        raise Refused(f"{month} is not over before {ends:%Y-%m-%d} UTC: --accrue books what there is of it")
    versions = [closing for closing in seen if closing.period == month]
    if asked.again and not versions:
        raise Refused(f"{month} was never closed: leave --again out")
    if versions and not asked.again:
        raise Refused(f"{month} is closed already: {described(versions[-1])}; {_instead(versions[-1])}")
    if asked.again:
        if not asked.reason:
            raise Refused(f"--again: say why with --reason; {versions[-1].id} is kept beside it")
        elsewhere = [
            name for name, it in live(bookings(seen)).items() if it.of == month and period_of(name) != month
        ]
        if elsewhere:
            later = period_of(elsewhere[0])
            mend = f"close {later} again, or let the next close book what changed"
            raise Refused(f"{month} has entries in {later} ({elsewhere[0].partition('/')[0]}): {mend}")


def described(closing: Closing) -> str:
    """2026-10.1, 2026-11-05 09:00 UTC, by Ada, with an accrual"""
    at = f"{datetime.fromtimestamp(closing.at_us // 1_000_000, UTC):%Y-%m-%d %H:%M} UTC"
    by = f", by {closing.said['by']}" if closing.said["by"] else ""
    return f"{closing.id}, {at}{by}{', with an accrual' if closing.said['accrued'] else ''}"


def _instead(closing: Closing) -> str:
    again = "--again --reason TEXT makes a new version and keeps this one"
    if closing.said["accrued"]:
        return f"the next month's close books its bill with --statement; {again}"
    return f"the next month's close books what changed; {again}"


def _check_known(month: Month, asked: Asked) -> None:
    """Refused where what is known of a month is not enough."""
    if month.part(USAGE) and month.has_bill and not month.part(BILLED, APART) and not asked.accrue:
        raise Refused(
            f"the bill has nothing of {month.of}: name another by --statement; --accrue books it as computed"
        )
    unexplained = month.unexplained_picos if month.part(BILLED, APART) else 0
    if unexplained > asked.tolerance_picos and not asked.allow_unexplained:
        raise Refused(
            f"{month.of}: {show(unexplained)} is unexplained, more than {show(asked.tolerance_picos)}: see "
            f"`farthing reconcile --month {month.of}`; --tolerance USD or --allow-unexplained closes it all the same"
        )


def _fx(month: str, asked: Asked, now: datetime) -> dict[str, Any] | None:
    """The rate of the month's last day, or of today's while it lasts, by which its entries are converted."""
    if asked.rates is None or asked.currency == "USD":
        return None
    day = min(days_of(month)[1], now.astimezone(UTC).date())
    rate = asked.rates.at(day, asked.currency)
    return {
        "currency": rate.currency,
        "day": f"{day}",
        "date": rate.date,
        "per_usd": str(rate.per_usd),
        "source": asked.rates.path.rpartition("/")[2],
        "digest": asked.rates.digest,
    }


# --- months that were closed before ---------------------------------------------------------------------------------


def knowing(seen: Sequence[Closing], of: str) -> Closing:
    """The last closing that knew of a month, of those that were not made again."""
    last = {closing.period: closing.id for closing in seen}
    return [it for it in seen if of in it.said["months"] and it.id == last[it.period]][-1]


def latest(ledger: Ledger, seen: Sequence[Closing], of: str) -> Month:
    """What that closing knew of it."""
    closing = in_full(ledger, knowing(seen, of).id)
    return known(closing.lines, of, closing.said["months"][of])


def is_untouched(ledger: Ledger, question: Question, of: str, said: Mapping[str, Any]) -> bool:
    """Whether nothing can have changed, as the log and digests tell: a ledger only grows, and compacting keeps rows."""
    same = (rows_of(ledger, of), question.book.digest, *digests_of(question))
    return same == tuple(said[name] for name in ("rows", "book", "teams", "profiles"))


def is_dropped(ledger: Ledger, month: Month) -> bool:
    """Whether the ledger no longer has usage that a closing knew of: then nothing can be said of the rest."""
    known_days = [line.day for line in month.part(USAGE)]
    if not known_days:
        return False
    there = ledger.days()
    return there is None or there[0].date() > date.fromisoformat(min(known_days))


def now_known(ledger: Ledger, question: Question, before: Month, bill: Statement | None) -> Month:
    """A closed month as it looks now: on the same assumptions, with the bill given, or with that of its closing."""
    asked = replace(question, assume=before.said["assume"])
    usage = usage_of(ledger, asked, before.of)
    if bill is None:
        return together(usage, before if before.has_bill else None)
    cost = (before.said.get("bill") or {}).get("cost", bill.cost)
    if bill.cost != cost:
        raise ValueError(f"--cost {bill.cost}: {before.of} was closed on {cost} costs; give --cost {cost}")
    return together(usage, bill_of(bill, ledger, asked, before.of))


class Restated(NamedTuple):
    """A closed month as it is known now, and what that has to book; nothing where it only moved what is unseen."""

    now: Month
    bookings: list[Booking]


def _restated(
    ledger: Ledger,
    of: str,
    question: Question,
    bill: Statement | None,
    seen: Sequence[Closing],
    booked: Mapping[str, Booking],
    asked: Asked,
    period: str = "",
) -> Restated | str | None:
    """What is known anew of a closed month; None if nothing is; or why nothing can be said of it.

    `period` is the month that is closed. If it is closed again, what it knew stays known, and what it booked does not.
    """
    others = [closing for closing in seen if closing.period != period]
    last, base = knowing(seen, of), knowing(others, of)
    if bill is None and last is base and is_untouched(ledger, question, of, last.said["months"][of]):
        return None
    before = latest(ledger, others, of)
    if is_dropped(ledger, before):
        return f"{of}: its usage is no longer in the ledger, so nothing is booked for it"
    now = now_known(ledger, question, before if last is base else latest(ledger, seen, of), bill)
    if bill is not None:
        _check_known(now, asked)
    accrued = any(it.what == ACCRUAL for it in standing(booked, of).values())
    wanted = target(now, question.config, accrue=accrued)
    same = before.said["teams"] == now.said["teams"]
    made = list(corrections(of, wanted, booked, reason(before, now), same_teams=same))
    if not made and before.said["usage_digest"] == now.said["usage_digest"] and _files(before) == _files(now):
        return None
    return Restated(now._replace(said={**now.said, "teams": before.said["teams"]}), made)


def reason(before: Month, now: Month) -> str:
    """Why a month is not as it was closed."""
    found = []
    if before.said["usage_digest"] != now.said["usage_digest"]:
        calls = now.said["calls"] - before.said["calls"]
        tokens = sum(it.tokens for it in now.part(USAGE)) - sum(it.tokens for it in before.part(USAGE))
        found.append(f"usage: {calls:+,} calls, {tokens:+,} tokens since")
    if _files(before) != _files(now):
        found.append("another delivery of the bill" if _files(before) else "its bill came")
    if before.said["book"] != now.said["book"]:
        found.append(f"price book {before.said['book']} became {now.said['book']}")
    return "; ".join(found) or "shared out among teams otherwise"


def _files(month: Month) -> list[str]:
    return sorted(file["sha256"] for file in (month.said.get("bill") or {}).get("files", ()))


def open_corrections(
    ledger: Ledger, question: Question, bills: Mapping[str, Statement], asked: Asked
) -> tuple[str, list[Booking], list[str]]:
    """What the close of the open month, which comes after the last closed one, would book for months before it."""
    seen = closings(ledger)
    if not seen:
        raise Refused("no month is closed yet: farthing close 2026-10")
    last = max(closing.period for closing in seen)
    opened = f"{days_of(last)[1] + timedelta(days=1):%Y-%m}"
    found: list[Booking] = []
    skipped: list[str] = []
    booked = bookings(seen)
    for of in sorted({closing.period for closing in seen}):
        restated = _restated(ledger, of, question, bills.get(of), seen, booked, asked)
        if isinstance(restated, str):
            skipped.append(restated)
        elif restated:
            found += restated.bookings
    return opened, found, skipped


# --- audit ----------------------------------------------------------------------------------------------------------


def audit(
    ledger: Ledger,
    month: str,
    question: Question,
    bill: Statement | None = None,
    rates: Rates | None = None,
    seen: Sequence[Closing] | None = None,
) -> Audit:
    """A closed month derived again from the ledger, the bill and the rates given; Refused if it was never closed."""
    days_of(month)
    seen = closings(ledger) if seen is None else seen
    if all(closing.period != month for closing in seen):
        raise Refused(f"{month} is not closed: farthing close {month}")
    frozen = latest(ledger, seen, month)
    changed = faulty(ledger, [closing.id for closing in seen if month in closing.said["months"]])
    now = None if is_dropped(ledger, frozen) else now_known(ledger, question, frozen, bill)
    return _audit(seen, changed, month, frozen, now, question, rates, bill_given=bill is not None)
