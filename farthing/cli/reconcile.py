"""The bill held against the ledger."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Cost, Json, faults, parse_month, read_statement
from farthing.cli._shared import ledger_to_read, parse_assume, read_profiles, write_json
from farthing.money import from_usd, show, usd

if TYPE_CHECKING:
    from farthing.reconcile import Cause, Reconciled
    from farthing.statement import Statement


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

    first, last = parse_month(month)
    try:
        allowed = from_usd(Decimal(tolerance))
    except (InvalidOperation, ValueError) as error:
        raise BadInput(f"--tolerance {tolerance!r}: write dollars, such as 0.50") from error
    question = Question(first, last, assume=parse_assume(assume or ()), profiles=read_profiles(profiles))
    billed = read_statement(statement, cost, month)
    with ledger_to_read(ledger) as books:
        found = compare(billed, books, question)
    if json:
        write_json(reconciled_json(found, billed))
    else:
        _print_reconciled(found, billed, month)
    return faults(billed) or int(abs(found.unexplained_picos) > allowed)


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
