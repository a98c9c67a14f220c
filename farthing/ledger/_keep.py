"""A ledger kept in shape: what is in it, its files put together, old usage dropped, names forgotten.

Other processes may read and append meanwhile. Whatever is rewritten is rewritten from one version of a table, and
committed only if nobody else wrote there since; else it is done again. (Delta's own optimize is not used: of two at
once both succeed, and every row is there twice.)
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from farthing.ledger._forget import HOMES, KEY, NAME, SOMEBODYS_HOME
from farthing.ledger._link import link
from farthing.ledger._store import FORMAT, LedgerError
from farthing.ledger._tables import TABLES, WRITER, arrow, statistics, transposed, written
from farthing.usage import EPOCH, Facts

if TYPE_CHECKING:
    from farthing.ledger._ledger import Ledger

TARGET_BYTES = 128 << 20  # of a data file
KEPT_HOURS = (
    24  # what no version names any more is left so long to those who still read it, or are about to commit it
)
CODES = {"contexts": "ctx", "tags": "tags"}  # the tables that rows of usage share, and by which code
_ATTEMPTS = 20
_NO_RETENTION = {"delta.logRetentionDuration": "interval 0 days"}
_RETENTION = {"delta.logRetentionDuration": "interval 30 days"}


Given = ParamSpec("Given")
Made = TypeVar("Made")


def again(act: Callable[Concatenate[Ledger, Given], Made]) -> Callable[Concatenate[Ledger, Given], Made]:
    """Do it again if files were removed that were being read, as retain and forget do; nothing is done twice by it."""

    @wraps(act)
    def run(ledger: Ledger, /, *args: Given.args, **kwargs: Given.kwargs) -> Made:
        import duckdb

        for _ in range(_ATTEMPTS):
            try:
                return act(ledger, *args, **kwargs)
            except duckdb.IOException:
                continue
        raise LedgerError(f"{ledger.folder}: data is missing; `farthing ledger verify` tells what")

    return run


class Shape(NamedTuple):
    """A table, or a month of it: `month` is "" where it has none."""

    table: str
    month: str
    files: int
    bytes: int
    rows: int


def shapes(ledger: Ledger) -> list[Shape]:
    """Every table by month, as its log tells: no data is read."""
    found = []
    for name in TABLES:
        delta = ledger.delta(name)
        if delta is None:
            continue
        actions = delta.get_add_actions(flatten=True)
        columns = [actions[column].to_pylist() for column in ("size_bytes", "num_records")]
        months = actions["partition.month"].to_pylist() if "month" in TABLES[name] else [""] * len(columns[0])
        sums: dict[str, list[int]] = {}
        for month, size, rows in zip(months, *columns, strict=True):
            one = sums.setdefault(month, [0, 0, 0])
            one[0] += 1
            one[1] += size
            one[2] += rows
        found += [Shape(name, month, *sums[month]) for month in sorted(sums)]
    return found


@again
def info(ledger: Ledger) -> dict[str, Any]:
    """What is in a ledger, and since when."""
    con = ledger.connection
    tables: dict[str, dict[str, int]] = {}
    for shape in shapes(ledger):
        one = tables.setdefault(shape.table, {"rows": 0, "files": 0, "bytes": 0, "version": 0})
        one["rows"] += shape.rows
        one["files"] += shape.files
        one["bytes"] += shape.bytes
        one["version"] = ledger.delta(shape.table).version()
    con.register("rows", ledger.rows())
    con.register("contexts", ledger.contexts())
    con.register("files", ledger.table("files"))

    def counted(query: str) -> dict[str, int]:
        return dict(con.execute(query).fetchall())

    by = "coalesce(sum(calls), 0)::BIGINT FROM rows JOIN contexts USING (ctx) GROUP BY ALL ORDER BY 2 DESC, 1"
    last = con.execute("""SELECT strftime(max("at"), '%Y-%m-%dT%H:%M:%SZ') FROM files""").fetchall()[0][0]
    days = ledger.days()
    return {
        "ledger": str(ledger.folder),
        "format": FORMAT,
        "calls": sum(counted(f"SELECT source, {by}").values()),
        "days": [f"{days[0]:%Y-%m-%d}", f"{days[1] - timedelta(days=1):%Y-%m-%d}"] if days else [],
        "last_import": last,
        "sources": counted(f"SELECT source, {by}"),
        "accounts": counted(f"SELECT account, {by}"),
        "formats": counted("SELECT format, count(DISTINCT path) FROM files GROUP BY ALL ORDER BY 2 DESC, 1"),
        "forgotten": len(ledger.forgotten().digests),
        "tables": tables,
    }


# --- rewriting ----------------------------------------------------------------------------------------------------


def _change(ledger: Ledger, name: str, act: Callable[[Any, Any], None], attempts: int = _ATTEMPTS) -> bool:
    """`act(table, commit properties)`, again and again until no other writer came between; False if one always did.

    The commit counts as a writer's: whoever looked at the table before it has to look again.
    """
    from deltalake import CommitProperties, Transaction
    from deltalake.exceptions import CommitFailedError, DeltaError

    for _ in range(attempts):
        delta = ledger.delta(name)
        if delta is None:
            return True
        mine = Transaction(WRITER, (delta.transaction_version(WRITER) or 0) + 1)
        try:
            act(delta, CommitProperties(app_transactions=[mine]))
            return True
        except CommitFailedError:
            continue
        except (DeltaError, OSError) as error:
            if ledger.place.is_newest(name, delta.version()):
                why = ledger.place.reason(error, "s3:PutObject")
                raise LedgerError(f"{ledger.folder}: cannot write: {why}") from error
    return False


def _rewrite(ledger: Ledger, name: str, query: str, month: str = "", attempts: int = _ATTEMPTS) -> bool:
    """Put what `query` makes of `old_rows` in place of all of a table's rows, or of those of a month."""
    from deltalake import write_deltalake

    columns = [column for column in TABLES[name] if column != "month"]
    said = ", ".join([f"'{month}' AS month"] * bool(month) + [f'"{column}"' for column in columns])

    def act(delta: Any, properties: Any) -> None:
        ledger.connection.register("old_rows", ledger.table(name, delta, month))
        write_deltalake(
            delta,
            ledger.connection.sql(f"SELECT {said} FROM ({query})"),
            mode="overwrite",
            predicate=f"month = '{month}'" if month else None,
            target_file_size=TARGET_BYTES,
            writer_properties=written(name),
            commit_properties=properties,
        )

    return _change(ledger, name, act, attempts)


def _bump(ledger: Ledger) -> None:
    """Make every writer who is about to commit usage look again, at names and codes too."""
    from deltalake import write_deltalake

    nothing = arrow(transposed([], TABLES["usage"]), TABLES["usage"])

    def act(delta: Any, properties: Any) -> None:
        write_deltalake(delta, nothing, mode="append", commit_properties=properties)

    if not _change(ledger, "usage", act):
        raise _busy(ledger)


def _erase(ledger: Ledger, name: str) -> None:
    """Remove the data that only earlier versions of a table hold.

    The log of an old table tells the least and the greatest of everything, names among it: once, its old
    entries are removed too.
    """

    def act(delta: Any, properties: Any) -> None:
        delta.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        wanted = statistics(name)
        if wanted.items() <= delta.metadata().configuration.items():
            return
        delta.alter.set_table_properties({**wanted, **_NO_RETENTION}, commit_properties=properties)
        delta.create_checkpoint()
        delta.cleanup_metadata()
        delta.alter.set_table_properties(_RETENTION)

    if not _change(ledger, name, act):
        raise _busy(ledger)


def _tend(ledger: Ledger, name: str) -> int:
    """A checkpoint of the log, so that it is opened sooner, and what nobody reads any more removed; how many files."""
    removed: list[str] = []

    def act(delta: Any, properties: Any) -> None:
        delta.create_checkpoint()
        hours = {"retention_hours": KEPT_HOURS, "enforce_retention_duration": False}
        removed.extend(delta.vacuum(**hours, dry_run=False, full=True))

    _change(ledger, name, act)
    return len(removed)


def _busy(ledger: Ledger) -> LedgerError:
    return LedgerError(f"{ledger.folder}: other writers kept coming first; try again when they are done")


# --- compact ------------------------------------------------------------------------------------------------------


class Compacted(NamedTuple):
    before: int  # files
    after: int
    removed: int  # files that no version of the last day names
    restored: int  # codes whose meaning had been lost
    linked: int  # calls that were there twice, as copies from more than a day apart may be
    left: tuple[str, ...]  # what others were writing to all the time


@again
def compact(ledger: Ledger) -> Compacted:
    """Put small files together, by month and in order of time; write checkpoints; remove what nobody reads any more.

    No row is changed and none is dropped: a call and its reversal stay both, and tell how it became known. Two copies
    of one call that no import saw together become one, by a reversal.
    """
    restored = sum(restore(ledger, name) for name in CODES)
    linked = link(ledger)
    before = shapes(ledger)
    left = []
    for shape in before:
        if shape.files < 2 * -(-shape.bytes // TARGET_BYTES):
            continue
        query = 'SELECT * FROM old_rows ORDER BY "at"' if shape.month else "SELECT * FROM old_rows"
        if shape.table in CODES:
            query = "SELECT DISTINCT * FROM old_rows"
        if not _rewrite(ledger, shape.table, query, shape.month, attempts=5):
            left.append(f"{shape.table} {shape.month}".strip())
    removed = ledger.place.tidy() + sum(
        _tend(ledger, name) for name in dict.fromkeys(it.table for it in before)
    )
    after = sum(shape.files for shape in shapes(ledger))
    return Compacted(sum(shape.files for shape in before), after, removed, restored, linked, tuple(left))


def lost(ledger: Ledger, name: str) -> list[int]:
    """The codes that rows of usage have and `contexts` or `tags` does not explain."""
    con, code = ledger.connection, CODES[name]
    con.register("kept_usage", ledger.rows())
    con.register("kept_codes", ledger.table(name))
    query = f"SELECT DISTINCT {code} FROM kept_usage ANTI JOIN kept_codes USING ({code}) WHERE {code} <> 0"
    return [found for (found,) in con.execute(query).fetchall()]


def restore(ledger: Ledger, name: str) -> int:
    """Bring rows back that another process was killed in the middle of dropping; how many codes were without."""
    import duckdb
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    missing = without = set(lost(ledger, name))
    if not missing:
        return 0
    commits = ledger.delta(name, make=True).history()
    rewritten = (
        it["version"] for it in commits if it.get("operationParameters", {}).get("mode") == "Overwrite"
    )
    address, options = ledger.place.address(name)
    for version in (number - 1 for number in rewritten):
        try:
            earlier = ledger.table(name, DeltaTable(address, version=version, storage_options=options))
            missing = _bring_back(ledger, name, earlier, missing)
        except (DeltaError, LedgerError, OSError, duckdb.Error):
            break  # earlier versions are gone
        if not missing:
            break
    return len(without) - len(missing)


# --- retain -------------------------------------------------------------------------------------------------------


class Dropped(NamedTuple):
    calls: int = 0
    days: int = 0
    rows: int = 0
    totals: int = 0
    entries: int = 0
    contexts: int = 0  # contexts and tag sets that nothing else had


@again
def older(ledger: Ledger, day: int, *, totals: bool = False) -> Dropped:
    """What there is from before a day, counted from 1970."""
    counted = 'coalesce(sum(calls), 0)::BIGINT, count(DISTINCT "day"), count(*)'
    calls, days, rows = ledger.rows().filter(f'"day" < {day}').aggregate(counted).fetchall()[0]
    before = f""""end" <= make_timestamptz({day * 86_400_000_000})"""
    count = ledger.table("totals").filter(before).aggregate("count(*)").fetchall()[0][0] if totals else 0
    earlier = f""""at" < make_timestamptz({day * 86_400_000_000})"""
    entries = ledger.table("entries").filter(earlier).aggregate("count(DISTINCT id)").fetchall()[0][0]
    return Dropped(calls, days, rows, count, entries)


@again
def retain(ledger: Ledger, day: int, *, totals: bool = False) -> Dropped:
    """Drop usage and entries from before a day, with the contexts and tags that only they had.

    Of control totals only if asked.
    """
    dropped = older(ledger, day, totals=totals)

    def delete(predicate: str) -> Callable[[Any, Any], None]:
        return lambda delta, properties: delta.delete(predicate, commit_properties=properties)

    done = not dropped.rows or _change(ledger, "usage", delete(f"day < {day}"))
    before = f"to_timestamp_micros({day * 86_400_000_000})"
    if dropped.entries:
        done = _change(ledger, "entries", delete(f'"at" < {before}')) and done
    if dropped.totals:
        done = _change(ledger, "totals", delete(f'"end" <= {before}')) and done
    if not done:
        raise _busy(ledger)
    unused = sum(_drop_unused(ledger, name) for name in CODES)
    for name in ("usage", "totals", "entries", *CODES):
        _erase(ledger, name)
    return dropped._replace(contexts=unused)


def _drop_unused(ledger: Ledger, name: str) -> int:
    """Drop the codes that no row of usage has.

    Somebody may be about to use one of them again. Whoever commits usage before _bump is seen here, and gets it
    back; whoever does so later has looked at the codes again.
    """
    con, code = ledger.connection, CODES[name]
    con.register("kept_usage", ledger.rows())
    con.register("kept_codes", ledger.table(name))
    con.execute(f"""CREATE OR REPLACE TEMP TABLE unused AS SELECT DISTINCT * FROM kept_codes
                    WHERE {code} NOT IN (SELECT {code} FROM kept_usage)""")
    count: int = con.execute(f"SELECT count(DISTINCT {code}) FROM unused").fetchall()[0][0]
    if not count:
        return 0
    if not _rewrite(
        ledger, name, f"SELECT DISTINCT * FROM old_rows WHERE {code} NOT IN (SELECT {code} FROM unused)"
    ):
        raise _busy(ledger)
    _bump(ledger)
    _bring_back(ledger, name, con.table("unused"), set(lost(ledger, name)))
    return count


def _bring_back(ledger: Ledger, name: str, rows: Any, codes: set[int]) -> set[int]:
    """Add what these rows say of these codes, but for names that were forgotten since; of which they say nothing."""
    con, told = ledger.connection, ", ".join(f'"{column}"' for column in TABLES[name])
    con.register("wanted_codes", arrow({"code": sorted(codes)}, {"code": "int64"}))
    found = rows.filter(f"{CODES[name]} IN (FROM wanted_codes)").project(told).distinct().fetchall()

    def masked() -> list[tuple[Any, ...]]:
        hidden = ledger.forgotten()
        if name == "contexts":
            return [(code, *hidden.facts(Facts(*said))) for code, *said in found]
        return [(code, key, hidden.name(value)) for code, key, value in found]

    ledger.add(name, masked)
    return codes - {row[0] for row in found}


# --- forget -------------------------------------------------------------------------------------------------------


class Named(NamedTuple):
    """What a ledger holds under a name, or under all that a pattern fits."""

    names: list[str]  # principals and values of tags
    sessions: list[str]
    calls: int
    totals: int
    entries: int


@again
def find_named(ledger: Ledger, pattern: str) -> Named:
    """`*` and `?` stand for anything; a pattern without them is a name."""
    con = ledger.connection
    fits = "".join({"*": ".*", "?": "."}.get(sign) or re.escape(sign) for sign in pattern)
    con.register("named_contexts", ledger.contexts())
    con.register("named_totals", ledger.table("totals"))
    con.register("named_entries", ledger.table("entries"))
    con.register("named_tags", ledger.table("tags"))
    con.register("named_usage", ledger.rows())
    said = "SELECT principal AS name FROM named_contexts UNION SELECT principal FROM named_totals"
    said += " UNION SELECT principal FROM named_entries UNION SELECT value FROM named_tags"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE names AS FROM ({said}) WHERE name <> '' AND regexp_full_match(name, ?, 's')",
        [fits],
    )
    con.execute("""CREATE OR REPLACE TEMP TABLE sessions AS SELECT DISTINCT session AS name FROM (
        SELECT principal, session FROM named_contexts UNION ALL SELECT principal, session FROM named_totals
        UNION ALL SELECT principal, session FROM named_entries) WHERE session <> '' AND principal IN (FROM names)""")
    tied = "(principal IN (FROM names) OR session IN (FROM sessions))"
    calls = f"""SELECT coalesce(sum(calls), 0)::BIGINT FROM named_usage WHERE
                ctx IN (SELECT ctx FROM named_contexts WHERE {tied})
                OR tags IN (SELECT tags FROM named_tags WHERE value IN (FROM names) OR value IN (FROM sessions))"""
    return Named(
        [name for (name,) in con.execute("FROM names ORDER BY ALL").fetchall()],
        [name for (name,) in con.execute("FROM sessions ORDER BY ALL").fetchall()],
        con.execute(calls).fetchall()[0][0],
        con.execute(f"SELECT count(*) FROM named_totals WHERE {tied}").fetchall()[0][0],
        con.execute(f"SELECT count(DISTINCT id) FROM named_entries WHERE {tied}").fetchall()[0][0],
    )


@again
def forget(ledger: Ledger, pattern: str, now: datetime) -> Named:
    """Put pseudonyms in place of names and of the sessions tied to them, in every version, now and in later imports.

    What they used and what it cost stays, under the codes that it has: what these mean is replaced, in one commit. The
    digests are there first, and a writer who looked at the tables before they were rewritten has to look again: so
    none brings a name back. Killed anywhere, it is done again by the same call.
    """
    found = find_named(ledger, pattern)
    exact = [] if set(pattern) & set("*?") else [pattern]
    there = found
    for _ in range(_ATTEMPTS):
        names = list(dict.fromkeys([*exact, *there.names, *there.sessions]))
        _note_forgotten(ledger, names, now)
        hidden = ledger.forgotten()
        columns = {"name": names, "pseudonym": list(map(hidden.pseudonym, names))}
        ledger.connection.register("pseudonyms", arrow(columns, {"name": "string", "pseudonym": "string"}))
        for name, query in _renaming().items():
            if not _rewrite(ledger, name, query):
                raise _busy(ledger)
        there = find_named(ledger, pattern)
        if not (there.names or there.sessions):
            break
    for name in _renaming():
        _erase(ledger, name)
    return found


def _renaming() -> dict[str, str]:
    """By table: its rows with pseudonyms, and without the home folders of whom they stand for."""
    who = "coalesce(p.pseudonym, r.principal) AS principal, coalesce(s.pseudonym, r.session) AS session"
    joined = """FROM old_rows r LEFT JOIN pseudonyms p ON r.principal = p.name
                LEFT JOIN pseudonyms s ON r.session = s.name"""
    project = "r.project"
    for home in HOMES:
        project = f"regexp_replace({project}, '{home}', '{SOMEBODYS_HOME}')"
    project = f"CASE WHEN p.name IS NULL AND s.name IS NULL THEN r.project ELSE {project} END AS project"
    return {
        "contexts": f"SELECT DISTINCT r.* REPLACE ({who}, {project}) {joined}",
        "tags": """SELECT DISTINCT r.* REPLACE (coalesce(p.pseudonym, r.value) AS value)
                   FROM old_rows r LEFT JOIN pseudonyms p ON r.value = p.name""",
        "totals": f"SELECT r.* REPLACE ({who}) {joined}",
        "entries": f"SELECT r.* REPLACE ({who}, {project}) {joined}",
        "closings": """SELECT r.* REPLACE (coalesce(p.pseudonym, r.team) AS team)
                       FROM old_rows r LEFT JOIN pseudonyms p ON r.team = p.name""",
    }


def _note_forgotten(ledger: Ledger, names: Sequence[str], now: datetime) -> None:
    """Their digests, under the ledger's key, which is made with the first of them."""
    known = ledger.forgotten()
    at = (now - EPOCH).days * 86_400_000_000
    while not known.key:
        delta = ledger.delta("forgotten", make=True)
        key = [(at, KEY, secrets.token_hex(32))]
        if delta.transaction_version(WRITER) is None:  # of two who make one, one is too late
            ledger.commit("forgotten", transposed(key, TABLES["forgotten"]), delta, 1)
        known = ledger.forgotten()
    rows = [(at, NAME, digest) for digest in {known.digest(name) for name in names} - known.digests]
    ledger.add("forgotten", lambda: rows)
