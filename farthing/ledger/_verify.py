"""Whether a ledger is whole: each check says what it found wrong, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.ledger._closings import closings, faulty
from farthing.ledger._keep import CODES, lost, shapes
from farthing.ledger._link import doubles
from farthing.ledger._store import LedgerError
from farthing.ledger._tables import TABLES
from farthing.meters import METERS
from farthing.usage import ENTRY_UNITS, Facts

if TYPE_CHECKING:
    from farthing.ledger._ledger import Ledger

_SHOWN = 5
_AGAIN = "import what it was read from into another folder"
_COMPACT = "run `farthing ledger compact`"


class Fault(NamedTuple):
    table: str
    what: str
    mend: str


def verify(ledger: Ledger) -> list[Fault]:
    """Everything that is wrong with a ledger; an empty list if it is whole. Nothing is changed.

    Rows are not looked at where files are missing, nor calls where rows are wrong.
    """
    for check in (_files, _rows, _meanings):
        if faults := list(check(ledger)):
            return faults
    return [*_shared_ids(ledger), *_notes(ledger), *_entries(ledger), *_closings(ledger)]


def _files(ledger: Ledger) -> Iterator[Fault]:
    """Every data file is there, of its size, with as many rows as the log tells."""
    for name in TABLES:
        try:
            delta = ledger.delta(name)
        except LedgerError as error:
            yield Fault(name, str(error), f"restore its _delta_log, or {_AGAIN}")
            continue
        if delta is None:
            continue
        there = ledger.place.sizes(name)
        actions = delta.get_add_actions(flatten=True)
        paths, sizes = actions["path"].to_pylist(), actions["size_bytes"].to_pylist()
        broken = [
            (p, there.get(p), size) for p, size in zip(paths, sizes, strict=True) if there.get(p) != size
        ]
        for path, found, size in broken:
            what = "is missing" if found is None else f"has {found:,} bytes and not {size:,}"
            yield Fault(name, f"{name}/{path} {what}", f"restore it from a backup, or {_AGAIN}")
        if broken:
            continue
        told = sum(actions["num_records"].to_pylist())
        try:
            found = ledger.table(name, delta).aggregate("count(*)").fetchall()[0][0]
        except Exception as error:  # noqa: BLE001 - DuckDB's, of a file that is none
            yield Fault(name, f"cannot be read: {' '.join(str(error).split())}", f"restore it, or {_AGAIN}")
            continue
        if found != told:
            yield Fault(name, f"{found:,} rows and not {told:,}", f"restore it, or {_AGAIN}")


def _rows(ledger: Ledger) -> Iterator[Fault]:
    """A row agrees with itself; a part 0 counts its call once; a reversal takes back one row that is there.

    By month, so that a large ledger needs no more memory than its largest month: a reversal is in that of its row.
    """
    con = ledger.connection
    sign = "CASE WHEN reversal THEN -1 ELSE 1 END"
    row_checks = {
        "rows whose day or month is not that of their time":
            """"day" <> epoch_us("at") // 86400000000 OR strftime("at", '%Y-%m') <> '{month}'""",
        "rows that count their call other than once": f"calls <> CASE WHEN part = 0 THEN {sign} ELSE 0 END",
        "rows with counts of the wrong sign": " OR ".join(f"{meter} * ({sign}) < 0" for meter in METERS),
    }  # fmt: skip
    identity = [
        f"abs({name})" if name in METERS else f'"{name}"'
        for name in TABLES["usage"]
        if name not in ("month", "calls", "reversal")
    ]
    for shape in shapes(ledger):
        if shape.table != "usage":
            continue
        con.register("month_rows", _by_meaning(ledger, ledger.table("usage", None, shape.month)))
        counts = ", ".join(f"count(*) FILTER ({check})" for check in row_checks.values())
        found = con.execute(f"SELECT {counts} FROM month_rows".replace("{month}", shape.month)).fetchall()[0]
        for what, count in zip(row_checks, found, strict=True):
            if count:
                yield Fault("usage", f"{shape.month}: {count:,} {what}", _AGAIN)
        call = 'hash(request_id, message_id, gateway_id, also, "at", reversal)'
        query = f"""SELECT count(*) FILTER (net < 0), count(*) FILTER (net > 1), (SELECT count(*) FROM (
                SELECT max(part) + 1 - count(DISTINCT part) AS lacks FROM month_rows
                WHERE {call} IN (SELECT {call} FROM month_rows WHERE part > 0) GROUP BY {call}) WHERE lacks > 0)
            FROM (SELECT sum({sign}) AS net FROM month_rows GROUP BY hash({", ".join(identity)}))"""
        unmatched, twice, torn = con.execute(query).fetchall()[0]
        for count, what in (
            (unmatched, "reversals of rows that are not there"),
            (twice, "rows that are there twice"),
            (torn, "calls of which a part is missing"),
        ):
            if count:
                yield Fault("usage", f"{shape.month}: {count:,} {what}", _AGAIN)


def _by_meaning(ledger: Ledger, rows: Any) -> Any:
    """Rows under one code of those that mean the same, as they may since a name was forgotten."""
    if not ledger.forgotten().digests:
        return rows
    con = ledger.connection
    con.register("coded_rows", rows)
    con.register("kept_contexts", ledger.contexts())
    con.register("kept_tags", ledger.table("tags").distinct())
    facts = ", ".join(Facts._fields)
    return con.sql(f"""
        WITH sets AS (SELECT tags, list([key, value] ORDER BY key, value) AS pairs FROM kept_tags GROUP BY tags),
             one_ctx AS (SELECT ctx, min(ctx) OVER (PARTITION BY {facts}) AS one FROM kept_contexts),
             one_tags AS (SELECT tags, min(tags) OVER (PARTITION BY pairs) AS one FROM sets)
        SELECT r.* REPLACE (coalesce(c.one, r.ctx) AS ctx, coalesce(t.one, r.tags) AS tags)
        FROM coded_rows r LEFT JOIN one_ctx c USING (ctx) LEFT JOIN one_tags t USING (tags)""")


def _meanings(ledger: Ledger) -> Iterator[Fault]:
    """Every code of a row has its meaning, and no code two."""
    con = ledger.connection
    for name in CODES:
        if missing := lost(ledger, name):
            yield Fault(name, f"{len(missing):,} codes of usage have no row", _COMPACT)
    con.register("kept_contexts", ledger.contexts())
    (double,) = con.execute("SELECT count(*) - count(DISTINCT ctx) FROM kept_contexts").fetchall()[0]
    if double:
        yield Fault("contexts", f"{double:,} codes mean two things", _AGAIN)


def _shared_ids(ledger: Ledger) -> Iterator[Fault]:
    """No two calls that are there share an id without contradicting each other: they would be one, counted twice."""
    names: list[str] = []
    count = 0
    for name, _, too_many in doubles(ledger):
        names += [name] * (len(names) < _SHOWN)
        count += too_many
    if count:
        yield Fault(
            "usage", f"{count:,} calls are counted twice under a shared id ({', '.join(names)} ...)", _COMPACT
        )


def _notes(ledger: Ledger) -> Iterator[Fault]:
    """What was noted of files agrees: none has more rejected lines than were read, or fewer than are named."""
    wrong = "read < rejected OR rejected < json_array_length(reasons) OR size < 0"
    files = ledger.table("files").filter(wrong).project("path").distinct().order("path")
    if paths := [path for (path,) in files.fetchall()]:
        what = f"the counts of {len(paths):,} files disagree ({', '.join(paths[:_SHOWN])})"
        yield Fault("files", what, "import these files again")


def _entries(ledger: Ledger) -> Iterator[Fault]:
    """An entry has an id, a known kind in its unit, and no less than nothing of it."""
    ledger.connection.register("kept_entries", ledger.table("entries"))
    units = ", ".join(f"('{kind}', '{unit}')" for kind, unit in ENTRY_UNITS.items())
    wrong = (
        f"SELECT count(*) FROM kept_entries WHERE id = '' OR quantity < 0 OR (kind, unit) NOT IN ({units})"
    )
    (count,) = ledger.connection.execute(wrong).fetchall()[0]
    if count:
        yield Fault("entries", f"{count:,} rows that cannot be", _AGAIN)


def _closings(ledger: Ledger) -> Iterator[Fault]:
    """Each closed month is as it was written, and none is there twice."""
    found = closings(ledger)
    if changed := faulty(ledger, [closing.id for closing in found]):
        what = f"{', '.join(changed[:_SHOWN])} no longer as closed"
        yield Fault("closings", what, "restore the table from a backup: a closed month is never changed")
    if [closing.number for closing in found] != list(range(1, len(found) + 1)):
        yield Fault("closings", "numbers are missing or there twice", "restore the table from a backup")
