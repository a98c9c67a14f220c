"""Ledgers of earlier formats, brought to the present one in place: tables gain columns, no data file is written anew.

Format 1 had neither gateways' ids nor digests of files. What it wrote lacks these columns, and reads as if nothing
had been said in them. The schema marks a column that some files may lack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from farthing.ledger._tables import TABLES

if TYPE_CHECKING:
    import duckdb

UPGRADED = (1,)  # the formats that this can begin with
_LATE = "farthing.late"
_ADDED = {"usage": ("gateway_id", "also"), "files": ("digest",)}  # all of them text
_ATTEMPTS = 20


def add_columns(name: str, reopen: Any) -> None:
    """The columns that a table of an earlier format lacks. `reopen()` gives the table as it now stands, or None.

    Another process may do the same at the same time: the one that comes second finds nothing left to do.
    """
    from deltalake import Field
    from deltalake.exceptions import DeltaError
    from deltalake.schema import PrimitiveType

    for attempt in range(_ATTEMPTS):
        delta = reopen()
        there = {field.name for field in delta.schema().fields} if delta else set(TABLES[name])
        missing = [column for column in _ADDED.get(name, ()) if column not in there]
        if not missing:
            return
        try:
            text = PrimitiveType("string")
            delta.alter.add_columns([Field(column, text, metadata={_LATE: "1"}) for column in missing])
        except DeltaError:
            if attempt == _ATTEMPTS - 1:
                raise


def late_columns(delta: Any) -> list[str]:
    """The columns that some of a table's files may lack."""
    return [field.name for field in delta.schema().fields if _LATE in (field.metadata or {})]


def filled(rows: duckdb.DuckDBPyRelation, late: list[str]) -> duckdb.DuckDBPyRelation:
    """Rows with "" in the columns that their file lacks."""
    if not late:
        return rows
    there = set(rows.columns)
    replaced = ", ".join(f"coalesce({name}, '') AS {name}" for name in late if name in there)
    added = "".join(f", '' AS {name}" for name in late if name not in there)
    return rows.project(f"* REPLACE ({replaced}){added}" if replaced else f"*{added}")
