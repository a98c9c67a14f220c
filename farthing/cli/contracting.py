"""Prices other than those of the list: how private offers do, and what a corrected catalogue makes of history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Json
from farthing.cli._shared import Asked, book_of, ledger_to_read, load_config, read_profiles, write_json
from farthing.money import show, usd

if TYPE_CHECKING:
    from farthing.commitment import Drawn, Earlier, Told
    from farthing.reprice import Change, Repriced


@app.command
def contract(
    *,
    contract: Annotated[
        list[Path] | None,
        Parameter(help="Private offers, TOML; those of farthing.toml if left out.", negative=""),
    ] = None,
    ledger: Annotated[str, Parameter(help="Ledger: a folder, or s3://BUCKET/PREFIX.")] = "",
    config: Annotated[Path | None, Parameter(help="farthing.toml: ledger, profiles, contracts.")] = None,
    profiles: Annotated[Path | None, Parameter(help="As in reports.")] = None,
    until: Annotated[str, Parameter(help="As of the end of that day, 2026-11-22; today if left out.")] = "",
    json: Json = False,
) -> int:
    """Private offers: what they saved, drawdown and forecast shortfall, what a month earlier would have been worth."""
    from farthing.cells import Question, at_list
    from farthing.commitment import told
    from farthing.offers import load_offers

    said = load_config(config)
    files = [str(path) for path in contract or said.contracts]
    if not files:
        raise BadInput(
            'no private offers: name a file by --contract, or contracts = ["..."] in farthing.toml'
        )
    question = at_list(Question(config=said, profiles={**said.profiles, **read_profiles(profiles)}))
    offers = load_offers(files, question.book)
    now = _end_of(until) if until else datetime.now(UTC)
    with ledger_to_read(ledger, said) as books:
        found = told(books, replace(question, tz="UTC"), offers, now)
    if json:
        write_json({"as_of": now.date().isoformat(), "offers": [_as_json(one, now.date()) for one in found]})
        return 0
    for one in found:
        print("\n".join(_lines(one, now.date())))
    return 0


def _end_of(text: str) -> datetime:
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"--until {text!r} is no day: write 2026-11-22") from error
    return datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=UTC)


def _as_json(one: Told, today: date) -> dict[str, Any]:
    offer = one.offer
    return {
        "name": offer.name,
        "accounts": sorted(offer.accounts),
        "starts": offer.starts.isoformat(),
        "ends": offer.ends.isoformat() if offer.ends else None,
        "list_usd": usd(one.listed),
        "contracted_usd": usd(one.contracted),
        "saved_usd": usd(one.listed - one.contracted),
        "commitment": [_drawn_json(drawn, today) for drawn in one.drawn],
        "volume": [
            {
                "starts": period.starts.isoformat(),
                "ends": period.ends.isoformat(),
                "spent_usd": usd(period.spent),
                "rebate_usd": usd(period.rebate),
            }
            for period in one.volume
        ],
        "earlier": _earlier_json(one.earlier) if one.earlier else None,
    }


def _drawn_json(drawn: Drawn, today: date) -> dict[str, Any]:
    period, coming = drawn.period, drawn.coming
    said: dict[str, Any] = {
        "starts": period.starts.isoformat(),
        "ends": period.ends.isoformat(),
        "over": drawn.over,
        "days_passed": (min(today, period.ends) - period.starts).days,
        "days": (period.ends - period.starts).days,
        "committed_usd": usd(drawn.committed),
        "spent_usd": usd(period.spent),
        "missing_usd": usd(period.shortfall),
        "forecast_usd": None,
        "forecast_shortfall_usd": None,
    }
    if coming:
        said["method"] = coming.method
        said["forecast_usd"] = {
            name: usd(picos) for name, picos in zip(("low", "mid", "high"), coming[:3], strict=True)
        }
        shortfalls = map(drawn.shortfall, (coming.high, coming.middle, coming.low))
        said["forecast_shortfall_usd"] = {
            name: usd(picos) for name, picos in zip(("low", "mid", "high"), shortfalls, strict=True)
        }
    return said


def _earlier_json(found: Earlier) -> dict[str, Any]:
    return {
        "since": found.since.isoformat(),
        "until": found.until.isoformat(),
        "saved_usd": usd(found.saved),
        "by_usage_of": [day.isoformat() for day in found.stands_in or (found.since, found.until)],
        "stands_in": found.stands_in is not None,
    }


def _lines(one: Told, today: date) -> Iterable[str]:
    offer = one.offer
    whose = ", ".join(sorted(offer.accounts)) or "all accounts"
    yield f"{offer.name}: {offer.starts} to {offer.ends or 'no end'}, {whose}"
    saved = one.listed - one.contracted
    yield f"  list {show(one.listed)}, contracted {show(one.contracted)}: {show(saved)} saved so far"
    for drawn in one.drawn:
        yield from _drawn_lines(drawn, today)
    for period in one.volume:
        yield (
            f"  volume {period.starts} to {period.ends}: {show(period.spent)} spent, {show(period.rebate)} comes back"
        )
    if one.earlier:
        yield _earlier_line(one.earlier)


def _drawn_lines(drawn: Drawn, today: date) -> Iterable[str]:
    period = drawn.period
    share = f"{period.spent * 1000 // drawn.committed / 10:.1f} %"
    yield (
        f"  commitment {period.starts} to {period.ends}: {show(period.spent)} of {show(drawn.committed)}"
        f" spent ({share}), day {(min(today, period.ends) - period.starts).days}"
        f" of {(period.ends - period.starts).days}"
    )
    if drawn.over:
        yield f"    over: {show(period.shortfall)} short" if period.shortfall else "    over: met"
    elif drawn.coming is None:
        yield "    no usage to forecast by"
    else:
        low, middle, high, method = drawn.coming
        yield f"    forecast {show(middle)} ({show(low)} to {show(high)}; {method})"
        most, least = drawn.shortfall(low), drawn.shortfall(high)
        yield (
            f"    forecast shortfall {show(drawn.shortfall(middle))} ({show(least)} to {show(most)})"
            if most
            else "    no shortfall forecast"
        )


def _earlier_line(found: Earlier) -> str:
    if found.stands_in:
        days = f"by the usage of {found.stands_in[0]} to {found.stands_in[1]}, in place of it"
        return f"  from {found.since} it would be worth {show(found.saved)} more, {days}"
    return (
        f"  from {found.since} it would have saved {show(found.saved)} more, by the usage until {found.until}"
    )


# --- a corrected catalogue -------------------------------------------------------------------------------------------


@app.command
def reprice(
    *,
    dry_run: Annotated[bool, Parameter(negative="", help="Tell what would change.")] = False,
    closed: Annotated[bool, Parameter(negative="", help="Count closed months too.")] = False,
    asked: Asked | None = None,
) -> int:
    """What the prices of --book would change in history, by model, meter and month; closed months stay closed."""
    from farthing.cells import at_list
    from farthing.reprice import reprice as repriced

    asked = asked or Asked()
    if not dry_run:
        raise BadInput(
            "reprice changes nothing: usage is priced when it is asked for, and closed months are corrected by "
            "`farthing close`; add --dry-run to be told what the book would change"
        )
    if not asked.book:
        raise BadInput(
            "reprice wants the new prices: --book FOLDER, or an overlay of `farthing prices update`"
        )
    if asked.shared or asked.tz:
        raise BadInput("--shared, --tz: reprice compares list prices, by months of UTC")
    new = book_of(asked.book)
    question = at_list(replace(asked, book="").question())
    with ledger_to_read(asked.ledger, question.config) as ledger:
        found = repriced(ledger, question, new, closed=closed)
    if asked.json:
        write_json(_repriced_json(found, question.book.digest, new.digest))
    elif asked.csv:
        _write_csv(found)
    else:
        _print_repriced(found, question.book.digest, new.digest)
    return 0


def _repriced_json(found: Repriced, old: str, new: str) -> dict[str, Any]:
    return {
        "book": {"from": old, "to": new},
        "from_usd": usd(found.before),
        "to_usd": usd(found.after),
        "difference_usd": usd(found.difference),
        "changes": [_change(change) for change in found.changes],
        "kept": [_change(change) for change in found.kept],
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "month": change.month,
        "model": change.model,
        "meter": change.meter,
        "tokens": change.tokens,
        "from_usd": None if change.before is None else usd(change.before),
        "to_usd": None if change.after is None else usd(change.after),
        "difference_usd": usd(change.difference),
        "unpriced_tokens": {"from": change.unpriced_before, "to": change.unpriced_after},
        "closed": change.closed,
        "closed_on": change.closed_on,
    }


def _write_csv(found: Repriced) -> None:
    import csv
    import sys

    from farthing.reports import inert

    rows = [_change(change) for change in (*found.changes, *found.kept)]
    names = [
        "month",
        "model",
        "meter",
        "tokens",
        "from_usd",
        "to_usd",
        "difference_usd",
        "closed",
        "closed_on",
    ]
    out = csv.DictWriter(sys.stdout, names, extrasaction="ignore", lineterminator="\n")
    out.writeheader()
    out.writerows({name: inert(value) for name, value in row.items()} for row in rows)


def _print_repriced(found: Repriced, old: str, new: str) -> None:
    for change in found.changes:
        print(
            f"  {_changed(change)}{f'  closed as {change.closed} {change.closed_on}' if change.closed else ''}"
        )
    if not found.changes:
        print("  no usage of open months costs otherwise" if found.kept else "  no usage costs otherwise")
    sign = "+" if found.difference > 0 else ""
    print(f"price book {old} to {new}: {sign}{show(found.difference)} of {show(found.before)}")
    if found.kept:
        print("closed months, which stay as they are (--closed counts them):")
    for change in found.kept:
        print(f"  {_changed(change)}  closed as {change.closed} {change.closed_on}")


def _changed(change: Change) -> str:
    before, after = ("unpriced" if picos is None else show(picos) for picos in (change.before, change.after))
    left = (
        f"  ({change.unpriced_after:,} tokens still unpriced)"
        if change.unpriced_after and change.after
        else ""
    )
    return (
        f"{change.month}  {change.model:<20} {change.meter:<14} {change.tokens:>15,} tokens"
        f"  {before:>12} -> {after:>12}{left}"
    )
