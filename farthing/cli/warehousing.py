"""`farthing sql`: the ledger asked where it lies, by an engine of yours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._completing import keys as completed
from farthing.cli._offered import ByOffers
from farthing.cli._shared import OUTPUT, Asked, ledger_to_read, write_json

_REPORTS = {
    "by": "", "daily": "day", "weekly": "week", "monthly": "month", "session": "session,project",
}  # fmt: skip
_LONGEST = 262_144  # bytes of a statement that Athena takes


@app.command(name="sql")
def as_sql(
    keys: Annotated[
        list[str] | None,
        Parameter(help="KEY[,KEY...] to group by, or daily, weekly, monthly, session.", completer=completed),
    ] = None,
    *,
    dialect: Annotated[
        Literal["athena", "trino", "spark", "duckdb"], Parameter(group=OUTPUT, help="Whose SQL it is.")
    ] = "athena",
    database: Annotated[
        str, Parameter(group=OUTPUT, help="Where the tables stand: DATABASE or CATALOG.DATABASE.")
    ] = "farthing",
    tables: Annotated[
        bool, Parameter(group=OUTPUT, negative="", help="The statements that make the tables known, instead.")
    ] = False,
    location: Annotated[
        str, Parameter(group=OUTPUT, help="Where that engine finds the ledger, if not where --ledger is.")
    ] = "",
    asked: Asked | None = None,
    offers: ByOffers | None = None,
) -> int:
    """Spend by any keys as SQL for Athena, Trino, Spark or DuckDB, which comes to the same picodollar there."""
    from farthing import warehouse

    asked = asked or Asked()
    if asked.csv or asked.shared:
        raise BadInput("a query is text: leave out --csv and --shared")
    catalog, _, schema = database.rpartition(".")
    if "." in catalog or not schema:
        raise BadInput(f"--database {database}: write DATABASE or CATALOG.DATABASE")
    if dialect == "athena" and catalog:
        raise BadInput(f"--database {database}: Athena takes the name of the database alone")
    by = [key for text in keys or () for key in _REPORTS.get(text, text).split(",") if key]
    question = (offers or ByOffers()).asked(asked.question())
    with ledger_to_read(asked.ledger, question.config) as ledger:
        place = location or _found_at(str(ledger.folder), dialect)
        made = None if tables else warehouse.query(ledger, question, by, dialect, database)
    if tables and dialect == "athena" and not place.startswith("s3://"):
        raise BadInput(f"--location: Athena reads s3:// addresses, and not {place}")
    if made and dialect == "athena" and (size := len(made.sql.encode())) > _LONGEST:
        raise BadInput(
            f"the query has {size:,} bytes, and Athena takes {_LONGEST:,}: ask for fewer days, by --since"
        )
    known = warehouse.statements(dialect, place, database)
    if asked.json:
        answer = {"dialect": dialect, "database": database, "tables": known}
        write_json(answer | ({"sql": made.sql, "columns": list(made.columns)} if made else {}))
    else:
        print(made.sql if made else ";\n".join([*known, ""]), end="\n" if made else "")
    return 0


def _found_at(folder: str, dialect: str) -> str:
    """A bucket as the engine calls it; a folder in full."""
    if folder.startswith("s3://"):
        return folder.replace("s3://", "s3a://", 1) if dialect == "spark" else folder
    return str(Path(folder).resolve())
