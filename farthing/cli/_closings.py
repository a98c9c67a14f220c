"""Closings and audits, as a person reads them and as JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from farthing.close import (
    ACCRUAL,
    APART,
    BILLED,
    CAUSE,
    SHOWN,
    USAGE,
    Audit,
    Booking,
    bookings,
    described_rate,
    period_of,
    standing,
)
from farthing.exporters.journal import shown_rate
from farthing.ledger import Closing, Line
from farthing.money import from_usd, show, usd

KEYS = ("account", "team", "platform", "model", "endpoint", "zone", "mode", "meter", "day", "kind")
_CAUSES = 12


def signed(picos: int) -> str:
    return f"{'+' if picos > 0 else ''}{show(picos)}"


def own(closing: Closing, *parts: str) -> list[Line]:
    """The rows of a closing's own month."""
    return [line for line in closing.lines if line.of == closing.period and line.part in parts]


def booked(closing: Closing, seen: Sequence[Closing]) -> dict[str, Booking]:
    """What the closing booked for its own month and stands."""
    until = [*(it for it in seen if it.number < closing.number), closing]
    found = standing(bookings(until), closing.period)
    return {name: it for name, it in found.items() if period_of(name) == closing.period}


def total(lines: Iterable[Line]) -> int:
    return sum(line.picos for line in lines)


# --- one closing ----------------------------------------------------------------------------------------------------


def print_closing(closing: Closing, seen: Sequence[Closing], *, done: bool = True) -> None:
    said = closing.said["months"][closing.period]
    at = f"{datetime.fromtimestamp(closing.at_us // 1_000_000, UTC):%Y-%m-%d %H:%M} UTC"
    by = f", by {closing.said['by']}" if closing.said["by"] else ""
    print(f"{closing.period} {'is closed' if done else 'would be closed'}: {closing.id}, {at}{by}")
    for text in (closing.said["reason"], closing.said["note"]):
        if text:
            print(f"  {text}")
    for name, picos, rest in _totals(closing, said, booked(closing, seen).values()):
        amount = show(picos) if picos is not None else "-"
        print(f"  {name:<24}{amount:>18}  {rest}".rstrip())
    if fx := closing.said["fx"]:
        rate = shown_rate(Fraction(fx["per_usd"]))
        print(f"  {fx['currency']} for a dollar{rate:>31}  of {fx['date']}, by {fx['source']}")
    _print_causes(own(closing, CAUSE))
    earlier = [it for it in bookings([closing]).values() if it.of != closing.period or it.ref]
    _print_bookings(earlier, "also booked")
    for skipped in closing.said["skipped"]:
        print(f"note: {skipped}")


def _totals(
    closing: Closing, said: Mapping[str, Any], held: Iterable[Booking]
) -> Iterable[tuple[str, int | None, str]]:
    usage = own(closing, USAGE)
    counts = [
        f"{len({getattr(line, key) for line in usage}):,} {key}s" for key in ("account", "team", "model")
    ]
    offers = said.get("offers")
    by = f"computed by {' and '.join(offers['names'])}" if offers else "computed at list"
    yield by, total(usage), f"{said['calls']:,} calls, {', '.join(counts)}"
    if offers:
        yield (
            "taken off the list price",
            from_usd(offers["off_usd"]),
            f"of {show(from_usd(said['list_usd']))}",
        )
    if said["unpriced_calls"]:
        yield "without a price", None, f"{said['unpriced_calls']:,} calls are in no figure: farthing by model"
    if terms := said.get("terms"):
        amount = from_usd(terms["shortfall_usd"]) - from_usd(terms["rebate_usd"])
        yield "shortfalls less rebates", amount, "of private offers, due in the month: not booked"
    if left := said.get("left_out"):
        yield (
            "not tokens",
            from_usd(left["usd"]),
            f"{left['entries']:,} sessions, searches and code run: not booked",
        )
    if bill := said.get("bill"):
        share = "none" if bill["decoded_share"] is None else f"{float(bill['decoded_share']):.2%}"
        invoices = f"; invoice {', '.join(bill['invoices'])}" if bill["invoices"] else "; on no invoice yet"
        yield "billed for tokens", total(own(closing, BILLED)), f"{share} decoded{invoices}"
        for kind, lines in sorted(_by(own(closing, APART), ("kind",)).items()):
            yield kind[0].replace("_", " "), total(lines), ""
    else:
        yield "billed for tokens", None, "no bill was given: --statement holds one against it"
    held = list(held)
    entries = [line for it in held for line in it.entries]
    accrued = [line for it in held if it.what == ACCRUAL for line in it.entries]
    if accrued:
        yield "of it accrued", total(accrued), "provisional: taken back when its bill comes"
    yield "booked", total(entries), f"{len(entries):,} entries of {closing.period}"


def _print_causes(causes: Sequence[Line]) -> None:
    known = [line for line in causes if not line.kind.startswith("apart: ")]
    for ref in ("explained", "unexplained"):
        lines = sorted((line for line in known if line.ref == ref), key=lambda line: -abs(line.picos))
        if lines:
            print(f"billed otherwise than computed, {ref}: {show(total(lines))}")
        for line in lines[:_CAUSES]:
            print(f"  {show(line.picos):>18}  {line.kind}: {line.said}")
        if len(lines) > _CAUSES:
            print(f"  and {len(lines) - _CAUSES} more (--json has all)")


def _print_bookings(found: Sequence[Booking], title: str) -> None:
    if found:
        print(f"{title}:")
    for booking in found:
        of = f"{booking.what} of {booking.of}"
        ref = f" (takes back {booking.ref})" if booking.ref else f" ({_kinds(booking)})"
        print(f"  {signed(booking.picos):>18}  {of}: {booking.reason}{ref}")


def _kinds(booking: Booking) -> str:
    """What it is made of: usage +$3.59, tax +$412.19"""
    sums = sorted(_by(booking.entries, ("kind",)).items())
    return ", ".join(f"{kind[0].replace('_', ' ')} {signed(total(lines))}" for kind, lines in sums)


def print_corrections(opened: str, found: Sequence[Booking], skipped: Sequence[str]) -> None:
    if found:
        _print_bookings(found, f"the close of {opened} will book for months closed before")
        for booking in found:
            for line in sorted(booking.entries, key=lambda line: -abs(line.picos))[:SHOWN]:
                where = " ".join(filter(None, (line.account, line.team, line.model, line.meter, line.kind)))
                print(f"    {signed(line.picos):>16}  {booking.of} {booking.what}: {where}")
    else:
        print("nothing to correct: the closed months are as they are known now")
    for why in skipped:
        print(f"note: {why}")


def closing_json(closing: Closing, seen: Sequence[Closing]) -> dict[str, Any]:
    """All that a closing says, in exact dollars; but for its usage, which `closings show --by` sums."""
    said = closing.said["months"][closing.period]
    held = list(booked(closing, seen).values())
    return {
        **headline(closing, seen),
        "reason": closing.said["reason"],
        "note": closing.said["note"],
        "calls": said["calls"],
        "unpriced_calls": said["unpriced_calls"],
        **({"left_out": said["left_out"]} if "left_out" in said else {}),
        "apart": [
            {"kind": kind[0], "usd": usd(total(lines))}
            for kind, lines in sorted(_by(own(closing, APART), ("kind",)).items())
        ],
        "accrued_usd": usd(sum(it.picos for it in held if it.what == ACCRUAL)),
        "causes": [
            {"cause": it.kind, "where": it.said, "usd": usd(it.picos), "known": it.ref == "explained"}
            for it in own(closing, CAUSE)
        ],
        "digests": {name: said[name] for name in ("book", "usage_digest", "teams", "profiles")},
        "statement": said.get("bill"),
        "fx": closing.said["fx"],
        "ledger_version": closing.said["ledger_version"],
        "tolerance_usd": closing.said["tolerance_usd"],
        "bookings": [booking_json(it, name, entries=True) for name, it in bookings([closing]).items()],
        "skipped": closing.said["skipped"],
    }


def headline(closing: Closing, seen: Sequence[Closing]) -> dict[str, Any]:
    """What a list has of a closing."""
    said = closing.said["months"][closing.period]
    return {
        "month": closing.period,
        "closing": closing.id,
        "closed_at": f"{datetime.fromtimestamp(closing.at_us // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "by": closing.said["by"],
        "accrued": closing.said["accrued"],
        "computed_usd": said.get("contracted_usd", said["list_usd"]),
        "billed_usd": said["bill"]["billed_usd"] if said.get("bill") else None,
        "booked_usd": usd(sum(it.picos for it in booked(closing, seen).values())),
        **({"offers": {**said["offers"], "list_usd": said["list_usd"]}} if "offers" in said else {}),
        **({"terms": said["terms"]} if "terms" in said else {}),
    }


def booking_json(booking: Booking, name: str = "", *, entries: bool = False) -> dict[str, Any]:
    said = {
        "booking": name,
        "what": booking.what,
        "of": booking.of,
        "usd": usd(booking.picos),
        "takes_back": booking.ref,
        "reason": booking.reason,
    }
    if entries:
        said["entries"] = [_entry_json(line) for line in booking.entries]  # type: ignore[assignment]
    return said


def _entry_json(line: Line) -> dict[str, Any]:
    names = ("kind", "account", "team", "platform", "model", "endpoint", "zone", "mode", "meter", "invoice")
    said = {name: value for name in names if (value := getattr(line, name))}
    return {**said, "tokens": line.tokens, "usd": usd(line.picos)}


# --- by keys --------------------------------------------------------------------------------------------------------


def summed_by(closing: Closing, seen: Sequence[Closing], keys: Sequence[str]) -> list[dict[str, Any]]:
    """The closed month by keys: tokens and list cost as they were computed, and what is booked."""
    entries = [line for it in booked(closing, seen).values() for line in it.entries]
    usage, money = _by(own(closing, USAGE), keys), _by(entries, keys)
    rows = []
    for key in {*usage, *money}:
        tokens = sum(line.tokens for line in usage.get(key, ()))
        values = dict(zip(keys, key, strict=True))
        rows.append(
            {
                **values,
                "tokens": tokens,
                "computed": total(usage.get(key, ())),
                "booked": total(money.get(key, ())),
            }
        )
    return sorted(rows, key=lambda row: (-row["booked"], -row["computed"], *(row[key] for key in keys)))


def _by(lines: Iterable[Line], keys: Sequence[str]) -> dict[tuple[str, ...], list[Line]]:
    found: dict[tuple[str, ...], list[Line]] = defaultdict(list)
    for line in lines:
        kind = "usage" if line.part == USAGE else line.kind
        found[tuple(kind if key == "kind" else getattr(line, key) for key in keys)].append(line)
    return found


# --- audits ---------------------------------------------------------------------------------------------------------


def verdict(found: Audit) -> str:
    if found.comes_out:
        return "comes out as closed"
    return "does not come out: " + ", ".join(
        part.name for part in found.parts if part.verdict not in ("ok", "not asked")
    )


def print_audit(found: Audit) -> None:
    known = f", known anew in {', '.join(found.corrected_by)}" if found.corrected_by else ""
    print(f"{found.month}, closed as {found.closing}{known}: {verdict(found)}")
    for part in found.parts:
        print(f"  {part.name:<17}{part.verdict:<11}{part.note or _short(part.closed, part.now)}".rstrip())
    for rate in found.rates[:SHOWN]:
        print(f"    {described_rate(rate)}")
    _print_bookings([booking for _, booking in found.later], "booked for it since")
    if found.changes:
        print("what moved, by day, account and model:")
    for change in found.changes[:SHOWN]:
        where = " ".join(filter(None, (change.day, change.account or "no account", change.model)))
        print(f"  {signed(change.picos):>18}  {change.what:<7}{change.tokens:>+16,} tokens  {where}")
    if len(found.changes) > SHOWN:
        rest = sum(change.picos for change in found.changes[SHOWN:])
        print(f"  {signed(rest):>18}  in {len(found.changes) - SHOWN:,} more (--json has all)")
    if not found.comes_out:
        print("`farthing close --corrections` shows what the next close books for closed months")


def _short(closed: str, now: str) -> str:
    return closed[:64] if closed == now else f"{closed[:64]} when closed, {now[:64]} now"


def audit_json(found: Audit) -> dict[str, Any]:
    return {
        "month": found.month,
        "closing": found.closing,
        "known_anew_in": found.corrected_by,
        "comes_out": found.comes_out,
        "parts": [part._asdict() for part in found.parts],
        "booked_since": [booking_json(booking, name) for name, booking in found.later],
        "changes": [
            {**{k: v for k, v in it._asdict().items() if k != "picos"}, "usd": usd(it.picos)}
            for it in found.changes
        ],
        "rates": [
            {
                "card": it.card,
                "meter": it.meter,
                "closed_picos": it.closed,
                "now_picos": it.now,
                "usd": usd(it.picos),
            }
            for it in found.rates
        ],
    }
