"""What AWS billed: the bill decoded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Cost, Json, faults, read_statement
from farthing.cli._shared import console, write_json
from farthing.money import show, usd

if TYPE_CHECKING:
    from farthing.statement import Statement


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
    found = read_statement(files, cost, month)
    if json:
        write_json(statement_json(found))
    else:
        _print_statement(found)
    return faults(found)


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
