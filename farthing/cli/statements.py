"""What AWS billed: the bill decoded, and held against the ledger."""

from __future__ import annotations

import calendar
import re
import sys
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._shared import console, ledger_to_read, parse_assume, read_profiles, write_json
from farthing.money import from_usd, show, usd

if TYPE_CHECKING:
    from farthing.reconcile import Cause, Reconciled
    from farthing.statement import Statement

Cost = Annotated[
    Literal["unblended", "net", "public"],
    Parameter(help="Which amount of a line counts; net has an EDP in it."),
]
Json = Annotated[bool, Parameter(name=["--json", "-j"], negative="")]


@app.command
def statement(
    *files: Annotated[
        Path, Parameter(help="CUR, CUR 2.0, FOCUS (CSV, Parquet), Cost Explorer JSON, or folders.")
    ],
    cost: Cost = "unblended",
    month: Annotated[str, Parameter(help="Only this month: 2026-10.")] = "",
    json: Json = False,
) -> int:
    """An AWS bill decoded: tokens by model, endpoint, mode and meter; everything else by name."""
    if not files:
        raise BadInput("name the bill: files or folders of a CUR, FOCUS or Cost Explorer export")
    found = _read(files, cost, month)
    if json:
        write_json(statement_json(found))
    else:
        _print_statement(found)
    return _faults(found)


@app.command
def reconcile(
    *,
    statement: Annotated[list[Path], Parameter(help="The bill: files or folders.", negative="")],
    month: Annotated[str, Parameter(help="2026-10.")],
    ledger: Annotated[str, Parameter(help="Ledger: a folder, or s3://BUCKET/PREFIX.")] = "",
    cost: Cost = "unblended",
    tolerance: Annotated[str, Parameter(help="Dollars that may stay unexplained.")] = "0.01",
    assume: Annotated[list[str] | None, Parameter(negative="", help="As in reports.")] = None,
    profiles: Annotated[Path | None, Parameter(help="As in reports.")] = None,
    json: Json = False,
) -> int:
    """Ours against AWS's: every dollar of the difference by its cause. Exit 1 if too much is unexplained."""
    from farthing.cells import Question
    from farthing.reconcile import reconcile as compare

    first, last = _month(month)
    try:
        allowed = from_usd(Decimal(tolerance))
    except (InvalidOperation, ValueError) as error:
        raise BadInput(f"--tolerance {tolerance!r}: write dollars, such as 0.50") from error
    question = Question(first, last, assume=parse_assume(assume or ()), profiles=read_profiles(profiles))
    billed = _read(statement, cost, month)
    with ledger_to_read(ledger) as books:
        found = compare(billed, books, question)
    if json:
        write_json(reconciled_json(found, billed))
    else:
        _print_reconciled(found, billed, month)
    return _faults(billed) or int(abs(found.unexplained_picos) > allowed)


@app.command
def why(
    *,
    from_: Annotated[
        str, Parameter(name="--from", help="A month, 2026-09, or days: 2026-09-01..2026-09-15.")
    ],
    to: Annotated[str, Parameter(help="The later month or days.")],
    ledger: Annotated[str, Parameter(help="Ledger: a folder, or s3://BUCKET/PREFIX.")] = "",
    where: Annotated[list[str] | None, Parameter(negative="", help="As in reports.")] = None,
    tz: str = "UTC",
    assume: Annotated[list[str] | None, Parameter(negative="", help="As in reports.")] = None,
    profiles: Annotated[Path | None, Parameter(help="As in reports.")] = None,
    json: Json = False,
) -> int:
    """Why the cost moved: volume, sizes, mixes, cache and each dated price, summing to the difference exactly."""
    from farthing.cells import Question, parse_where
    from farthing.why import why as explain

    question = Question(
        tz=tz,
        where=tuple(parse_where(text) for text in where or ()),
        assume=parse_assume(assume or ()),
        profiles=read_profiles(profiles),
    )
    with ledger_to_read(ledger) as books:
        found = explain(books, question, _days(from_, "--from"), _days(to, "--to"))
    if json:
        write_json(
            {
                "from_usd": usd(found.from_picos),
                "to_usd": usd(found.to_picos),
                "steps": [{"name": step.name, "usd": usd(step.picos)} for step in found.steps],
                "unpriced_calls": found.unpriced_calls,
            }
        )
        return 0
    print(f"  {show(found.from_picos):>18}  {from_}")
    for step in found.steps:
        print(f"  {('+' if step.picos > 0 else '') + show(step.picos):>18}  {step.name}")
    print(f"  {show(found.to_picos):>18}  {to}")
    if found.unpriced_calls:
        print(f"  {found.unpriced_calls:,} calls without a price are in neither")
    return 0


def _days(text: str, option: str) -> tuple[date, date]:
    first, is_span, last = text.partition("..")
    try:
        if not is_span:
            return _month(text)
        days = date.fromisoformat(first), date.fromisoformat(last)
    except (BadInput, ValueError) as error:
        raise BadInput(
            f"{option} {text!r}: write a month, 2026-09, or days, 2026-09-01..2026-09-15"
        ) from error
    if days[0] > days[1]:
        raise BadInput(f"{option} {text!r}: the first day is after the last")
    return days


def statement_json(found: Statement) -> dict[str, Any]:
    """The bill as JSON: dollars are exact strings; a list price that the book has not is null."""
    from farthing.billed import levers, waterfall

    share = found.decoded_share
    return {
        "rows": [
            {
                "usage_type": line.usage_type, "day": line.day.isoformat(), "account": line.account,
                "platform": line.platform, "model": line.model, "endpoint": line.endpoint, "mode": line.mode,
                "meter": line.meter, "tokens": line.tokens, "billed_usd": usd(line.billed_picos),
                "list_usd": None if line.list_picos is None else usd(line.list_picos),
                "region": line.region, "long_prompt": line.long_prompt,
            }
            for line in found.billed
        ],
        "apart": [
            {"kind": entry.kind, "usd": usd(entry.picos), "account": entry.account, "lines": entry.lines}
            for entry in found.apart
        ],
        "undecoded": [
            {
                "usage_type": line.usage_type, "day": line.day.isoformat(), "account": line.account,
                "product": line.product, "usd": usd(line.picos), "why": line.why,
            }
            for line in found.undecoded
        ],
        "decoded_share": None if share is None else float(share),
        "waterfall": [row | {"usd": usd(row["usd"])} for row in waterfall(found)],
        "levers": [_lever(row) for row in levers(found)],
        "notes": found.loaded.notes,
    }  # fmt: skip


def _lever(row: dict[str, Any]) -> dict[str, Any]:
    return {name: usd(value) if name.endswith("_usd") else value for name, value in row.items()}


def reconciled_json(found: Reconciled, billed: Statement) -> dict[str, Any]:
    """billed - ours = difference = all explained + unexplained, in exact dollars."""

    def causes(given: list[Cause]) -> list[dict[str, Any]]:
        return [
            {"cause": cause.name, "where": cause.where, "usd": usd(cause.picos), "lines": cause.lines}
            for cause in given
        ]

    share = billed.decoded_share
    return {
        "ours_usd": usd(found.ours_picos),
        "billed_usd": usd(found.billed_picos),
        "difference_usd": usd(found.difference_picos),
        "explained": causes(found.explained),
        "unexplained_usd": usd(found.unexplained_picos),
        "unexplained": causes(found.unexplained),
        "decoded_share": None if share is None else float(share),
        "notes": billed.loaded.notes,
    }


def _read(files: Any, cost: Any, month: str) -> Statement:
    from farthing.statement import Statement

    since, until = _month(month) if month else (None, None)
    return Statement(list(files), cost=cost, since=since, until=until)


def _month(text: str) -> tuple[date, date]:
    match = re.fullmatch(r"(\d{4})-(\d\d)", text)
    if not match or not 1 <= int(match[2]) <= 12:
        raise BadInput(f"--month {text!r}: write 2026-10")
    year, month = int(match[1]), int(match[2])
    return date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])


def _faults(found: Statement) -> int:
    for line in found.loaded.bad:
        print(f"farthing: {line}", file=sys.stderr)
    return 2 if found.loaded.bad else 0


def _print_statement(found: Statement) -> None:
    from rich.table import Table

    from farthing.billed import levers, waterfall

    share = found.decoded_share
    print(
        "no Claude lines in it"
        if share is None
        else f"{share:.4%} of Claude's spend decoded; {show(found.billed_picos)} billed for tokens"
    )
    if found.billed:
        for row in waterfall(found):
            print(f"  {show(row['usd']):>18}  {row['label']}")
        print("levers, on what was billed, each alone:")
        for row in levers(found):
            missing, applied = show(row["missing_usd"]), show(row["applied_usd"])
            print(f"  {missing:>18}  {row['lever']} could save ({row['label']}); it saved {applied}")
    table = Table(box=None, pad_edge=False)
    for name in ("model", "endpoint", "mode", "meter"):
        table.add_column(name)
    for name in ("tokens", "billed", "list"):
        table.add_column(name, justify="right")
    for key, (tokens, billed, listed) in _by_place(found).items():
        table.add_row(*key, f"{tokens:,}", show(billed), "no rate" if listed is None else show(listed))
    if found.billed:
        console().print(table)
    for entry in found.apart:
        print(f"  apart  {entry.kind:<24}{entry.account:<14}{show(entry.picos):>16}  {entry.lines:,} lines")
    for line in found.undecoded:
        print(f"  not decoded  {line.usage_type} ({line.product}) {line.day} {show(line.picos)}: {line.why}")
    for note in found.loaded.notes:
        print(f"  note: {note}")


def _by_place(found: Statement) -> dict[tuple[str, ...], tuple[int, int, int | None]]:
    sums: dict[tuple[str, ...], tuple[int, int, int | None]] = {}
    for line in found.billed:
        key = (line.model, line.endpoint, line.mode, line.meter)
        tokens, billed, listed = sums.get(key, (0, 0, 0))
        unknown = listed is None or line.list_picos is None
        sums[key] = (
            tokens + line.tokens,
            billed + line.billed_picos,
            None if unknown else (listed or 0) + (line.list_picos or 0),
        )
    return dict(sorted(sums.items(), key=lambda item: -item[1][1]))


def _print_reconciled(found: Reconciled, billed: Statement, month: str) -> None:
    share = billed.decoded_share
    print(f"{month}: {'no Claude lines' if share is None else f'{share:.4%} of the spend on Claude decoded'}")
    for name, picos in (
        ("AWS billed", found.billed_picos),
        ("we computed", found.ours_picos),
        ("difference", found.difference_picos),
    ):
        print(f"  {name:<14}{show(picos):>18}")
    for title, causes in (("explained", found.explained), ("unexplained", found.unexplained)):
        print(f"{title}: {show(sum(cause.picos for cause in causes))}")
        for cause in causes[:40]:
            print(f"  {show(cause.picos):>18}  {cause.name}: {cause.where}")
        if len(causes) > 40:
            print(f"  and {len(causes) - 40} more (--json has all)")
    for note in billed.loaded.notes:
        print(f"  note: {note}")
