"""Sessions, searches and code run in the reports: what they come to is added to the rows of tokens, and told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from farthing.costs import Due
from farthing.meters import METERS
from farthing.reports._table import Table, amount_of
from farthing.usage import ENTRY_UNITS

_COSTS = (
    "list_usd",
    "contracted_usd",
    "effective_usd",
    "billed_usd",
)  # offers are for tokens: one price in all


def include(table: Table, entries: Sequence[Due], keys: Sequence[str]) -> Table:
    """The report with its entries in the rows of their keys, and a table of them with rate, source and day."""
    if not entries:
        return table
    rows = {tuple(row[key] for key in keys): row for row in table.rows}
    for row in table.rows:
        row["entries_usd"] = 0
    for due in entries:
        if due.keys not in rows:
            rows[due.keys] = _blank(keys, due.keys, table.columns)
            table.rows.append(rows[due.keys])
        _add(rows[due.keys], due.picos)
    at = table.columns.index("usd")
    table.columns = (*table.columns[:at], "entries_usd", *table.columns[at:])
    table.heads |= {"entries_usd": "not tokens"}
    total = amount_of(entries)
    for name in _COSTS:
        if table.parts.get(name) is not None:
            table.parts[name] += total
    table.parts["entries"] = _by_kind(entries)
    return table


def _blank(keys: Sequence[str], names: Sequence[str], columns: Sequence[str]) -> dict[str, Any]:
    counts = dict.fromkeys(("calls", "tokens", *METERS), 0)
    amounts = {name: None for name in columns if name.endswith("usd")}
    return dict(zip(keys, names, strict=True)) | counts | amounts | {"entries_usd": None, "unpriced_calls": 0}


def _add(row: dict[str, Any], picos: int | None) -> None:
    """Of a row whose entries have no price in part, the rest is shown; the footer tells of those."""
    if picos is None:
        row["entries_usd"] = row["entries_usd"] or None
        return
    for name in ("usd", "entries_usd", *_COSTS):
        if name in row:
            row[name] = (row[name] or 0) + picos


def _by_kind(entries: Sequence[Due]) -> list[dict[str, Any]]:
    """A row a kind and reason: what was used, what of it is billed, what that comes to."""
    groups: dict[tuple[str, str], list[Due]] = {}
    for due in entries:
        groups.setdefault((due.entry.kind, due.why), []).append(due)
    return [
        {
            "kind": kind,
            "entries": len(group),
            "quantity": sum(due.entry.quantity for due in group),
            "billed": sum(due.billed for due in group),
            "unit": ENTRY_UNITS[kind],
            "usd": None if group[0].picos is None else amount_of(group),
            "why": why,
        }
        for (kind, why), group in sorted(groups.items())
    ]
