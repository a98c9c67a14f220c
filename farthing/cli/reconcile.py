"""The bill held against the ledger."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Cost, Json, Reached, faults, parse_month, read_statement
from farthing.cli._engine import OnEngine
from farthing.cli._offered import ByOffers, offers_json, print_offers, taken_off
from farthing.cli._shared import (
    book_of,
    console,
    ledger_to_read,
    load_config,
    parse_assume,
    read_profiles,
    write_json,
)
from farthing.money import from_usd, show, usd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farthing.reconcile import Cause, Reconciled, Row
    from farthing.statement import Statement

_SHOWN = 40  # rows
_PLACES = 8  # of one cause


@app.command
def reconcile(
    *,
    statement: Annotated[list[str], Parameter(help="The bill: files, folders, s3:// prefixes.", negative="")],
    month: Annotated[str, Parameter(help="2026-10.")],
    ledger: Annotated[str, Parameter(help="Ledger: a folder, or s3://BUCKET/PREFIX.")] = "",
    cost: Cost = "unblended",
    by: Annotated[
        str, Parameter(help="KEY[,KEY...]: day, account, model, endpoint, zone, mode, long_prompt, meter.")
    ] = "",
    tolerance: Annotated[str, Parameter(help="Dollars that may stay unexplained.")] = "0.01",
    assume: Annotated[list[str] | None, Parameter(negative="", help="As in reports.")] = None,
    profiles: Annotated[Path | None, Parameter(help="As in reports.")] = None,
    contract: Annotated[
        list[Path] | None,
        Parameter(negative="", help="Private offers, TOML, whose rates ours has; else farthing.toml's."),
    ] = None,
    config: Annotated[Path | None, Parameter(help="farthing.toml: ledger, profiles, contracts.")] = None,
    reached: Reached = Reached(),  # noqa: B008 - it is not changed
    engine: OnEngine = OnEngine(),  # noqa: B008
    json: Json = False,
) -> int:
    """Ours against AWS's: every dollar of the difference by its cause. Exit 1 if too much is unexplained."""
    from farthing.cells import Question
    from farthing.reconcile import by as grouped
    from farthing.reconcile import check_keys
    from farthing.reconcile import reconcile as compare

    first, last = parse_month(month)
    keys = check_keys(by)
    allowed = _dollars(tolerance)
    told = load_config(config)
    question = Question(
        first,
        last,
        book=book_of(),
        assume=parse_assume(assume or ()),
        profiles={**told.profiles, **read_profiles(profiles)},
        config=told,
    )
    question = ByOffers(contract).asked(question)
    billed = read_statement(statement, cost, month, reached=reached)
    with ledger_to_read(ledger, told) as books, engine.summing(books):
        found = compare(billed, books, question)
        taken = taken_off(books, question)
    rows = grouped(found.sides, keys) if keys else []
    if json:
        write_json(
            reconciled_json(found, billed)
            | ({"rows": rows_json(rows, keys)} if keys else {})
            | offers_json(taken)
        )
    else:
        _print_reconciled(found, billed, month)
        print_offers(taken)
        if keys:
            _print_rows(rows, keys)
    return faults(billed) or int(found.unexplained_gross_picos > allowed)


def _dollars(text: str) -> int:
    try:
        allowed = from_usd(Decimal(text))
    except (InvalidOperation, ValueError) as error:
        raise BadInput(f"--tolerance {text!r}: write dollars, such as 0.50") from error
    if allowed < 0:
        raise BadInput(f"--tolerance {text!r}: write dollars from 0 up")
    return allowed


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
        "invoices": [
            {
                "invoice": name, "tokens_usd": usd(parts.pop("tokens", 0)),
                "undecoded_usd": usd(parts.pop("undecoded", 0)),
                "apart": [{"kind": kind, "usd": usd(picos)} for kind, picos in parts.items()],
                "total_usd": usd(total),
            }
            for name, parts, total in _invoices(billed)
        ],
        "control": [count._asdict() | {"agrees_with": count.agrees_with} for count in found.control],
        "notes": [*billed.loaded.notes, *found.notes],
    }  # fmt: skip


def rows_json(rows: Sequence[Row], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Tokens and exact dollars of each group; quantity + price = difference."""
    return [
        {
            **{key: value.isoformat() if key == "day" else value for key, value in zip(keys, row.keys, strict=True)},
            "ours": row.ours, "billed": row.billed,
            "ours_usd": usd(row.ours_picos), "billed_usd": usd(row.billed_picos),
            "difference_usd": usd(row.billed_picos - row.ours_picos),
            "quantity_usd": usd(row.quantity_picos), "price_usd": usd(row.price_picos),
        }
        for row in rows
    ]  # fmt: skip


def _invoices(billed: Statement) -> list[tuple[str, dict[str, int], int]]:
    """Each invoice with its money by kind, tax among them, and in all; "" is what is on none yet."""
    found: dict[str, dict[str, int]] = {}
    for group in billed.grouped(("invoice",)):
        parts = found.setdefault(group.values[0], {})
        parts[group.kind] = parts.get(group.kind, 0) + group.picos
    return [(name, parts, sum(parts.values())) for name, parts in sorted(found.items())]


# --- for people ----------------------------------------------------------------------------------------------------


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
        for name, of in _by_name(causes):
            print(f"  {show(sum(cause.picos for cause in of)):>18}  {name}")
            for cause in of[:_PLACES]:
                print(f"  {'':>18}  {show(cause.picos):>16}  {cause.where}")
            if len(of) > _PLACES:
                print(f"  {'':>18}  and {len(of) - _PLACES} more (--json has all)")
    for name, parts, total in _invoices(billed):
        listed = ", ".join(
            f"{kind} {show(picos)}" for kind, picos in sorted(parts.items(), key=_tokens_first)
        )
        print(f"{f'invoice {name}' if name else 'on no invoice yet'}: {show(total)} = {listed}")
    _print_control(found)
    for note in (*billed.loaded.notes, *found.notes):
        print(f"  note: {note}")


def _by_name(causes: list[Cause]) -> list[tuple[str, list[Cause]]]:
    """Causes of one name together, those of most money first."""
    found: dict[str, list[Cause]] = {}
    for cause in causes:
        found.setdefault(cause.name, []).append(cause)
    return sorted(found.items(), key=lambda item: -sum(abs(cause.picos) for cause in item[1]))


def _tokens_first(part: tuple[str, int]) -> tuple[bool, str]:
    return part[0] != "tokens", part[0]


_AGREES = {"both": "all agree", "bill": "agrees with the bill: our logs are short",
           "ours": "agrees with us: the bill is off", "": "agrees with neither"}  # fmt: skip


def _print_control(found: Reconciled) -> None:
    if not found.control:
        return
    out = _table(("model", "meter"), ("ours", "CloudWatch", "billed"))
    out.add_column("CloudWatch")
    for count in found.control:
        meter = count.meter if count.service == "runtime" else f"{count.service}: {count.meter}"
        ours = "-" if count.ours is None else f"{count.ours:,}"
        agrees = _AGREES[count.agrees_with] if count.ours is not None or count.agrees_with else ""
        out.add_row(count.model, meter, ours, f"{count.cloudwatch:,}", f"{count.billed:,}", agrees)
    print("tokens, on the days and accounts that CloudWatch tells of:")
    console().print(out)


def _print_rows(rows: Sequence[Row], keys: Sequence[str]) -> None:
    """The rows of most difference, and the sums of all."""
    from farthing.reconcile import total

    out = _table(keys, ("our tokens", "billed", "ours USD", "billed USD", "difference", "quantity", "price"))
    largest = sorted(rows, key=lambda row: -abs(row.billed_picos - row.ours_picos))
    shown = rows if len(rows) <= _SHOWN else largest[:_SHOWN]
    for row in shown:
        out.add_row(*map(str, row.keys), *_cells(row))
    if rows:
        out.add_section()
        out.add_row("total", *[""] * (len(keys) - 1), *_cells(total(rows)), style="bold")
    console().print(out)
    if len(rows) > len(shown):
        print(f"  and {len(rows) - len(shown)} more of smaller difference (--json has all)")


def _cells(row: Row) -> list[str]:
    picos = (
        row.ours_picos, row.billed_picos, row.billed_picos - row.ours_picos, row.quantity_picos, row.price_picos,
    )  # fmt: skip
    return [f"{row.ours:,}", f"{row.billed:,}", *map(show, picos)]


def _table(words: Sequence[str], numbers: Sequence[str]) -> Any:
    from rich.table import Table

    out = Table(box=None, pad_edge=False)
    for name in words:
        out.add_column(name, overflow="fold")
    for name in numbers:
        out.add_column(name, justify="right", no_wrap=True)
    return out
