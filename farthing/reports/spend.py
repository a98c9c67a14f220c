"""What was spent, by keys and over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from farthing.book import Card
from farthing.cells import TIME_KEYS, Cell, Question, at_list, check_key
from farthing.costs import due_entries
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.reports._contract import beside, priced
from farthing.reports._entries import include
from farthing.reports._table import Table, footer, grouped, heading, report


@report("Spend by any keys.", adds_up=True)
def by(ledger: Ledger, question: Question, keys: Sequence[str]) -> Table:
    """One row a group, dearest first; groups of time in order of time."""
    keys = tuple(dict.fromkeys(check_key(key) for key in keys))
    stored = tuple(key for key in keys if key != "meter")
    found, costs = priced(ledger, question, stored, by_meter="meter" in keys)
    rows = _by_meter(found, keys) if "meter" in keys else grouped(found, keys)
    columns = (*keys, "calls", "tokens") + (() if "meter" in keys else METERS) + ("usd",)
    entries = due_entries(ledger, question, keys)
    under = footer(ledger, at_list(question), found, entries)
    table = Table(f"Spend by {', '.join(keys)}", heading(found), columns, rows, under)
    table = include(beside(table, costs, keys, ledger, question), entries, keys)
    if keys and keys[0] in TIME_KEYS:
        rows.sort(key=lambda row: (row[keys[0]], -(row["usd"] or 0), *(str(row[key]) for key in keys)))
    else:
        rows.sort(key=lambda row: (-(row["usd"] or 0), *(str(row[key]) for key in keys)))
    return table


def _by_meter(found: Iterable[Cell], keys: Sequence[str]) -> list[dict[str, Any]]:
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    at = keys.index("meter")
    for cell in found:
        for i, meter in enumerate(METERS):
            count = list(cell.tokens)[i]
            if not count:
                continue
            names = (*cell.keys[:at], meter, *cell.keys[at:])
            row = rows.setdefault(
                names,
                dict(zip(keys, names, strict=True)) | {"calls": 0, "tokens": 0, "usd": None},
            )
            row["calls"] += list(cell.meter_calls)[i]
            row["tokens"] += count
            if isinstance(cell.price, Card):
                row["usd"] = (row["usd"] or 0) + count * list(cell.price.rates)[i]
    return list(rows.values())


Order = Literal["asc", "desc"]


@report("Spend by day.", adds_up=True)
def daily(ledger: Ledger, question: Question, breakdown: bool = False, order: Order = "asc") -> Table:
    return _over_time(ledger, question, ("day",), breakdown, order)


@report("Spend by week, from Monday.", adds_up=True)
def weekly(ledger: Ledger, question: Question, breakdown: bool = False, order: Order = "asc") -> Table:
    return _over_time(ledger, question, ("week",), breakdown, order)


@report("Spend by month.", adds_up=True)
def monthly(ledger: Ledger, question: Question, breakdown: bool = False, order: Order = "asc") -> Table:
    return _over_time(ledger, question, ("month",), breakdown, order)


@report("Spend by session, dearest first.", adds_up=True)
def session(ledger: Ledger, question: Question, breakdown: bool = False, order: Order = "asc") -> Table:
    return _over_time(ledger, question, ("session", "project"), breakdown, order)


def _over_time(
    ledger: Ledger, question: Question, keys: tuple[str, ...], breakdown: bool, order: Order
) -> Table:
    table = by(ledger, question, (*keys, "model") if breakdown else keys)
    if order == "desc" and keys[0] in TIME_KEYS:
        table.rows.sort(key=lambda row: str(row[keys[0]]), reverse=True)
    elif order == "desc":
        table.rows.reverse()
    return table
