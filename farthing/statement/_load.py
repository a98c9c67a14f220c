"""Files of a bill into DuckDB: every export to the same columns, lines that we do not tell apart as one."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.aws import Access
from farthing.statement._columns import (
    AMOUNTS,
    DAY,
    IS_BAD,
    MONTH,
    NEGATIVE,
    TEXT,
    dates_are_us,
    export_of,
    missing,
    month_text,
    place,
    projection,
)
from farthing.statement._explorer import explore
from farthing.statement._files import (
    Asked,
    Meter,
    Progress,
    Source,
    StatementError,
    kind_of,
    opened,
    rejects,
    sources,
)
from farthing.statement._same import BRANDS, Part, told_once

if TYPE_CHECKING:
    import duckdb

# Lines of other services are counted, and left.
_OURS = f"{BRANDS}|vendedlog|agentcore|mp:[a-z0-9_]*token"
_OPAQUE = "[a-z0-9]{20,}"  # a product code of AWS Marketplace


class Loaded(NamedTuple):
    """What was read: lines of ours are in the table `statement_lines`; the rest is told here."""

    parts: list[Part]
    lines: int  # in all files
    ours: int
    notes: list[str]  # deliveries that were replaced, files that say the same
    bad: list[str]  # lines whose amounts are no numbers
    by_month: bool = False  # it tells no days


def load(
    con: duckdb.DuckDBPyConnection,
    paths: Sequence[Path | str],
    *,
    copies: Path,
    access: Access = Access(),  # noqa: B008 - it cannot change
    since: date = date.min,
    until: date = date.max,
    progress: Progress | None = None,
) -> Loaded:
    """Read the files, folders and s3:// prefixes of these paths. StatementError where one of them has no bill.

    `copies` is a folder for what has to be fetched or unpacked.
    """
    con.execute(f"CREATE OR REPLACE TEMP TABLE statement_lines ({_SCHEMA})")
    meter = Meter(progress)
    reading = _Reading(con, meter)
    found = list(sources(Asked(paths, access, since, until, copies, meter), reading.notes))
    tell = meter.begin(sum(source.path.stat().st_size for source in found))
    for source in found:
        reading.read(source, tell)
    _by_product_code(con)
    reading.notes += told_once(con, reading.parts)
    (ours,) = con.execute("SELECT count(*) FROM statement_lines").fetchall()[0]
    return Loaded(reading.parts, reading.lines, ours, reading.notes, reading.bad, reading.by_month)


_SCHEMA = (
    "part INTEGER, export VARCHAR, "
    + ", ".join(f"{name} VARCHAR" for name in TEXT)
    + ", day DATE, month TIMESTAMP, negative BOOLEAN, place UBIGINT, "
    + ", ".join(f"{name} DECIMAL(38, 12)" for name in AMOUNTS)
    + ", lines BIGINT, tags VARCHAR"
)


class _Reading:
    """One file after another into the table, and what there is to say of them."""

    def __init__(self, con: duckdb.DuckDBPyConnection, meter: Meter) -> None:
        self.parts: list[Part] = []
        self.notes: list[str] = []
        self.bad: list[str] = []
        self.lines = 0
        self.by_month = False
        self._con = con
        self._meter = meter
        self._seen: dict[str, str] = {}

    def read(self, source: Source, tell: Any) -> None:
        size = source.path.stat().st_size
        if not size:
            raise StatementError(f"{source.name}: empty: fetch it again")
        digest = _digest(source.path)
        if digest in self._seen:
            self.notes.append(f"{source.name}: the same as {self._seen[digest]}, and not read again")
            tell(size)
            return
        self._seen[digest] = source.name
        number = len(self.parts)
        if kind_of(source) == "json":
            self._explore(source, number)
            tell(size)
        else:
            with _watched(self._con, size, tell, self._meter.watched):
                self._tabulate(source, number)

    def _explore(self, source: Source, number: int) -> None:
        found = explore(source)
        self.parts.append(Part(source, "cost_explorer"))
        self.notes += found.notes
        self.by_month |= found.by_month
        self.lines += len(found.rows)
        columns = ["part", "export", "place", *found.rows[0]] if found.rows else []
        rows = [(number, "cost_explorer", place_, *row.values()) for place_, row in enumerate(found.rows)]
        if rows:
            marks = ", ".join("?" * len(columns))
            self._con.executemany(
                f"INSERT INTO statement_lines ({', '.join(columns)}) VALUES ({marks})", rows
            )

    def _tabulate(self, source: Source, number: int) -> None:
        import duckdb

        con = self._con
        try:
            relation = opened(con, source)
            types = dict(zip(relation.columns, map(str, relation.types), strict=True))
        except duckdb.Error as error:
            raise _unreadable(source, error) from error
        export = export_of(relation.columns)
        if not export:
            raise StatementError(
                f"{source.name}: no bill that is known here: neither CUR (line_item_usage_type ...) nor FOCUS "
                f"(BilledCost, ChargeCategory ...) columns, but {', '.join(relation.columns[:4])} ..."
            )
        if lacking := missing(export, relation.columns):
            raise StatementError(f"{source.name}: lacks {', '.join(lacking)}: export it with these columns")
        self.parts.append(Part(source, export))
        con.register("statement_file", relation)
        columns = projection(export, types)
        try:
            con.execute(f"CREATE OR REPLACE TEMP TABLE statement_part AS {_summed(number, export, columns)}")
            faults = con.execute(_faulty(columns)).fetchall() if _bad_lines(con) else []
            self._check_dates(source, month_text(export, types))
        except duckdb.Error as error:
            raise _unreadable(source, error) from error
        (count,) = con.execute("SELECT sum(lines + bad) FROM statement_part").fetchall()[0]
        con.execute(
            f"""INSERT INTO statement_lines BY NAME SELECT * EXCLUDE (bad) FROM statement_part
                WHERE lines > 0 AND ({_IS_OURS} OR {_MAY_BE_OURS})"""
        )
        con.execute("DROP TABLE statement_part")
        torn = rejects(con)
        self.lines += int(count or 0) + len(torn)
        self.bad += [_fault(source.name, *row) for row in faults]
        self.bad += [f"{source.name}:{line}: no whole row ({what}): fetch it again" for line, what in torn]

    def _check_dates(self, source: Source, month: str) -> None:
        """Of dates such as 9/1/2026 the first is the month, as billing periods begin on a first day of one."""
        first = self._con.execute(f"SELECT {month} FROM statement_file LIMIT 1").fetchall()
        if not first or not dates_are_us(first[0][0]):
            return
        (odd,) = self._con.execute("SELECT count(*) FROM statement_part WHERE day(month) != 1").fetchall()[0]
        if odd:
            raise StatementError(
                f"{source.name}: dates such as {first[0][0]} are no month/day/year, for billing periods begin on the "
                "first of a month: export dates as 2026-09-30"
            )


_NAMES = "usage_type, product_code, product_name, service_code, description"
_IS_OURS = f"regexp_matches(lower(concat_ws(' ', {_NAMES})), '{_OURS}')"
# Lines of a product that only other lines name: taxes, credits.
_MAY_BE_OURS = f"(lower(line_type) != 'usage' OR regexp_full_match(product_code, '{_OPAQUE}'))"


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").hexdigest()


def _unreadable(source: Source, error: Exception) -> StatementError:
    text = " ".join(str(error).split()).replace(str(source.path), source.name)
    return StatementError(
        f"{source.name}: cannot be read, as if it were cut off: fetch it again ({text[:200]})"
    )


@contextmanager
def _watched(con: duckdb.DuckDBPyConnection, size: int, tell: Any, watched: bool) -> Iterator[None]:
    """Tells how much of a file of this size has been read, as far as DuckDB knows, and in the end all of it."""
    told = 0
    done = threading.Event()

    def look() -> None:
        nonlocal told
        while not done.wait(0.2):
            reached = size * int(max(con.query_progress(), 0)) // 100
            if told < reached <= size:
                tell(reached - told)
                told = reached

    looking = threading.Thread(target=look, daemon=True)
    if watched:
        con.execute("SET enable_progress_bar = true")
        con.execute("SET enable_progress_bar_print = false")
        looking.start()
    try:
        yield
    finally:
        done.set()
        if watched:
            looking.join()
        tell(size - told)


def _summed(part: int, export: str, columns: str) -> str:
    """Lines that differ in nothing we tell apart, as one: ten million of them are some thousand."""
    sums = ", ".join(f"sum({name}) FILTER (NOT {IS_BAD}) AS {name}" for name in AMOUNTS)
    return f"""SELECT {part} AS part, '{export}' AS export, {", ".join(TEXT)}, {DAY} AS day, {MONTH} AS month,
                      {NEGATIVE} AS negative, {place(part)} AS place, {sums},
                      count(*) FILTER (NOT {IS_BAD}) AS lines, count(*) FILTER ({IS_BAD}) AS bad, '' AS tags
               FROM (SELECT {columns} FROM statement_file) GROUP BY ALL"""


def _bad_lines(con: duckdb.DuckDBPyConnection) -> bool:
    return bool(con.execute(f"SELECT 1 FROM statement_part WHERE bad > 0 AND {_IS_OURS} LIMIT 1").fetchall())


def _faulty(columns: str) -> str:
    return f"""SELECT line, unblended_text, quantity_text, started IS NULL
               FROM (SELECT {columns}, row_number() OVER () AS line FROM statement_file)
               WHERE {IS_BAD} AND {_IS_OURS} LIMIT 100"""


def _fault(name: str, line: int, cost: str, quantity: str, no_date: bool) -> str:
    what = "no usage start date" if no_date else f"not a number: cost {cost!r}, amount {quantity!r}"
    return f"{name}:{line + 1}: {what}"


def _by_product_code(con: duckdb.DuckDBPyConnection) -> None:
    """Lines that tell no more than a Marketplace product code (taxes do) are of the product it stands for."""
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE statement_codes AS
            SELECT product_code AS code, min(if(regexp_matches(lower(product_name), '{BRANDS}'), product_name,
                                                description)) AS name
            FROM statement_lines WHERE regexp_full_match(product_code, '{_OPAQUE}')
            AND regexp_matches(lower(concat_ws(' ', product_name, description)), '{BRANDS}') GROUP BY ALL"""
    )
    con.execute(
        f"""UPDATE statement_lines SET product_name = c.name FROM statement_codes c
            WHERE NOT regexp_matches(lower(concat_ws(' ', product_name, description)), '{BRANDS}')
            AND (product_code = c.code OR contains(description, c.code))"""
    )
    con.execute(f"DELETE FROM statement_lines WHERE NOT {_IS_OURS}")
