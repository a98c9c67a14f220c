"""What AWS billed: the bill decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Cost, Json, Reached, faults, read_statement
from farthing.cli._shared import console, ledger_to_read, write_json
from farthing.money import show, usd

if TYPE_CHECKING:
    from farthing.statement import Beside, Billed, Commitment, Group, Statement


@app.command
def statement(
    *files: Annotated[
        str,
        Parameter(
            help="CUR, CUR 2.0, FOCUS (CSV, Parquet, zip), Cost Explorer JSON, folders, s3:// prefixes."
        ),
    ],
    cost: Cost = "unblended",
    month: Annotated[str, Parameter(help="Only this month: 2026-10.")] = "",
    by: Annotated[
        str,
        Parameter(
            help="KEY[,KEY...]: all its money by account, model, day, principal, invoice, tag:team ..."
        ),
    ] = "",
    ledger: Annotated[
        str, Parameter(help="Ledger that tells what ran in reserved capacity, where the bill does not.")
    ] = "",
    reached: Reached = Reached(),  # noqa: B008 - it is not changed
    json: Json = False,
) -> int:
    """An AWS bill decoded: tokens by model, endpoint, mode and meter; everything else by name."""
    if not files:
        raise BadInput(
            "name the bill: files, folders or s3:// prefixes of a CUR, FOCUS or Cost Explorer export"
        )
    keys = [key for key in by.split(",") if key]
    found = read_statement(files, cost, month, reached=reached)
    bought = _bought(found, ledger)
    groups = found.grouped(keys) if keys else []
    found.loaded.notes.extend(_untold(groups, keys))
    if json:
        write_json(statement_json(found, bought) | ({"by": _groups(groups, keys)} if keys else {}))
    elif keys:
        _print_groups(found, groups, keys)
    else:
        _print_statement(found, bought)
    return faults(found)


def _bought(found: Statement, ledger: str) -> Sequence[Commitment]:
    """What was bought ahead; a ledger that is named tells the tokens that ran in it."""
    if not ledger:
        return found.commitments
    from farthing.cells import Question, cells
    from farthing.meters import METERS

    days = [line.first for line in found.commitments] + [line.last for line in found.commitments]
    if not days:
        return []
    ran: dict[tuple[str, str, str], int] = {}
    with ledger_to_read(ledger) as books:
        for cell in cells(books, Question(min(days), max(days)), ("account", "model", "mode")):
            account, model, mode = cell.keys
            for meter, count in zip(METERS, cell.tokens, strict=True):
                if mode == "reserved" and count:
                    ran[account, model, meter] = ran.get((account, model, meter), 0) + count
    return found.committed(ran)


# --- JSON ---------------------------------------------------------------------------------------------------------


def statement_json(found: Statement, bought: Sequence[Commitment] | None = None) -> dict[str, Any]:
    """The bill as JSON: dollars are exact strings; what the bill or the book does not tell is null."""
    from farthing.billed import levers, waterfall

    share = found.decoded_share
    return {
        "rows": [_row(line) for line in found.billed],
        "beside": [
            {
                "kind": one.kind, "usage_type": one.usage_type, "account": one.account, "unit": one.unit,
                "quantity": _plain(one.quantity), "usd": usd(one.picos), "lines": one.lines,
            }
            for one in found.beside
        ],
        "commitments": [_commitment(one) for one in (found.commitments if bought is None else bought)],
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


def _row(line: Billed) -> dict[str, Any]:
    return {
        "usage_type": line.usage_type, "day": line.day.isoformat(), "account": line.account,
        "platform": line.platform, "model": line.model, "endpoint": line.endpoint, "mode": line.mode,
        "meter": line.meter, "tokens": line.tokens, "billed_usd": usd(line.billed_picos),
        "list_usd": _usd(line.list_picos), "unblended_usd": usd(line.unblended_picos),
        "net_usd": _usd(line.net_picos), "region": line.region, "long_prompt": line.long_prompt,
        "invoice": line.invoice, "entity": line.entity, "currency": line.currency,
    }  # fmt: skip


def _commitment(one: Commitment) -> dict[str, Any]:
    share = one.utilisation
    return {
        "kind": one.kind, "name": one.name, "account": one.account, "model": one.model, "meter": one.meter,
        "from": one.first.isoformat(), "to": one.last.isoformat(), "unit": one.unit,
        "capacity": _plain(one.capacity), "used": _plain(one.used), "idle": _plain(one.idle),
        "utilisation": None if share is None else float(share), "usd": usd(one.picos),
        "idle_usd": _usd(one.idle_picos), "why": one.why,
    }  # fmt: skip


def _groups(groups: Sequence[Group], keys: Sequence[str]) -> list[dict[str, Any]]:
    return [
        dict(zip(keys, group.values, strict=True))
        | {
            "kind": group.kind, "tokens": group.tokens, "lines": group.lines, "usd": usd(group.picos),
            "unblended_usd": usd(group.unblended_picos), "net_usd": _usd(group.net_picos),
            "list_usd": _usd(group.list_picos),
        }
        for group in groups
    ]  # fmt: skip


_MENDS = {
    "principal": "CUR 2.0 has it if exported with IAM principal data (INCLUDE_IAM_PRINCIPAL_DATA)",
    "resource": "it has resources if exported with resource ids (INCLUDE_RESOURCES)",
    "tag": "activate it as a cost-allocation tag, for the days to come",
}


def _untold(groups: Sequence[Group], keys: Sequence[str]) -> Iterator[str]:
    for i, key in enumerate(keys):
        mend = _MENDS.get(key.partition(":")[0], "this export lacks it")
        if groups and not any(group.values[i] for group in groups):
            yield f"no line of the bill tells its {key}: {mend}"


def _usd(picos: int | None) -> str | None:
    return None if picos is None else usd(picos)


def _plain(quantity: Decimal | None) -> str | None:
    if quantity is None:
        return None
    text = f"{quantity:.12f}"
    return text.rstrip("0").rstrip(".")


def _lever(row: dict[str, Any]) -> dict[str, Any]:
    return {name: usd(value) if name.endswith("_usd") else value for name, value in row.items()}


# --- for a person -------------------------------------------------------------------------------------------------


def _print_statement(found: Statement, bought: Sequence[Commitment]) -> None:
    from farthing.billed import levers, waterfall

    print(_headline(found))
    if found.billed:
        for row in waterfall(found):
            print(f"  {show(row['usd']):>18}  {row['label']}")
        print("levers, on what was billed, each alone:")
        for row in levers(found):
            missing, applied = show(row["missing_usd"]), show(row["applied_usd"])
            print(f"  {missing:>18}  {row['lever']} could save ({row['label']}); it saved {applied}")
        _table("tokens", ("model", "endpoint", "mode", "meter"), ("tokens", "billed", "list"), _places(found))
    _table("beside tokens", ("class", "usage type", "unit"), ("quantity", "billed"), _beside(found.beside))
    _table("bought ahead (what it cost is in the lines above)", ("what", "account", "model", "unit"),
           ("capacity", "used", "idle", "share used", "cost", "of it idle"), map(_bought_row, bought))  # fmt: skip
    for line in bought:
        if line.why:
            print(f"  {line.name}: not known how much was used: {line.why}")
    classes = {one.kind for one in found.beside}
    other = [one for one in found.apart if one.kind not in classes]
    _table("apart from usage", ("type", "account"), ("billed", "lines"),
           ((one.kind, one.account, show(one.picos), f"{one.lines:,}") for one in other))  # fmt: skip
    unknown = (
        (one.usage_type, one.product, f"{one.day}", one.why, show(one.picos)) for one in found.undecoded
    )
    _table("not decoded", ("usage type", "product", "day", "why"), ("billed",), unknown)
    _print_notes(found)


def _headline(found: Statement) -> str:
    share = found.decoded_share
    if share is None:
        return "no Claude lines in it"
    return f"{share:.4%} of Claude's spend decoded; {show(found.billed_picos)} billed for tokens"


def _print_notes(found: Statement) -> None:
    for note in found.loaded.notes:
        print(f"note: {note}")


def _table(title: str, names: Sequence[str], amounts: Sequence[str], rows: Any) -> None:
    """Nothing, if there are no rows."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=f"\n{title}", title_justify="left", title_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for name in amounts:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    if table.rows:
        console().print(table)


def _places(found: Statement) -> Iterator[tuple[str, ...]]:
    sums: dict[tuple[str, ...], tuple[int, int, int | None]] = {}
    for line in found.billed:
        key = (line.model, line.endpoint, line.mode, line.meter)
        tokens, billed, listed = sums.get(key, (0, 0, 0))
        unknown = listed is None or line.list_picos is None
        whole = None if unknown else (listed or 0) + (line.list_picos or 0)
        sums[key] = tokens + line.tokens, billed + line.billed_picos, whole
    for place, (tokens, billed, listed) in sorted(sums.items(), key=lambda item: -item[1][1]):
        yield *place, f"{tokens:,}", show(billed), _shown(listed, "no rate")


def _beside(lines: Sequence[Beside]) -> Iterator[tuple[str, ...]]:
    """The same in several accounts is one row here."""
    sums: dict[tuple[str, ...], tuple[Decimal, int]] = {}
    for line in lines:
        key = line.kind.replace("_", " "), line.usage_type, line.unit
        quantity, picos = sums.get(key, (Decimal(), 0))
        sums[key] = quantity + line.quantity, picos + line.picos
    for place, (amount, billed) in sorted(sums.items()):
        yield *place, _rounded(amount), show(billed)


def _bought_row(one: Commitment) -> tuple[str, ...]:
    share = "unknown" if one.utilisation is None else f"{one.utilisation:.1%}"
    quantities = (_rounded(one.capacity), _rounded(one.used), _rounded(one.idle))
    what = f"{one.kind} {one.meter}".strip() + f": {one.name}"
    return (
        what,
        one.account,
        one.model,
        one.unit,
        *quantities,
        share,
        show(one.picos),
        _shown(one.idle_picos, "unknown"),
    )


def _rounded(quantity: Decimal | None) -> str:
    if quantity is None:
        return "unknown"
    text = f"{quantity:,.4f}"
    return text.rstrip("0").rstrip(".")


def _shown(picos: int | None, otherwise: str) -> str:
    return otherwise if picos is None else show(picos)


def _print_groups(found: Statement, groups: Sequence[Group], keys: Sequence[str]) -> None:
    print(f"{_headline(found)}; by {', '.join(keys)}:")
    _table("", (*keys, "kind"), ("tokens", "billed", "list"), map(_group_row, groups))
    print(f"{show(sum(group.picos for group in groups))} in all")
    _print_notes(found)


def _group_row(group: Group) -> tuple[str, ...]:
    tokens = f"{group.tokens:,}" if group.kind == "tokens" else ""
    listed = _shown(group.list_picos, "no rate") if group.kind == "tokens" else ""
    values = (value or "-" for value in group.values)
    return *values, group.kind.replace("_", " "), tokens, show(group.picos), listed
