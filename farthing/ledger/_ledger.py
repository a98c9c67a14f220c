"""The ledger itself: reading it, and appending to it so that each call is in it once."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from farthing.ledger import _spark
from farthing.ledger._calls import Calls
from farthing.ledger._forget import KEY, Forgotten
from farthing.ledger._own import Own, ids_of, parted
from farthing.ledger._store import LedgerError, Store
from farthing.ledger._tables import (
    BETWEEN_IDS,
    DAY_US,
    TABLES,
    TOTALS,
    WRITER,
    Rows,
    arrow,
    transposed,
)
from farthing.meters import METERS
from farthing.usage import ENTRY_UNITS, EPOCH, Entry, Facts, Total, Usage

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")
R = TypeVar("R")
_SERIES = "series"  # the format of rows in `files` that tell how far a bucket's series has been read
_HOUR = "%Y/%m/%d/%H"


class Added(NamedTuple):
    """What an append did: the calls that were not known, and how many records replaced or repeated known ones."""

    fresh: list[Usage]
    superseded: int = 0
    duplicates: int = 0

    @property
    def imported(self) -> int:
        return len(self.fresh)


class SourceFile(NamedTuple):
    """A file as it was read. `reasons` are up to a hundred of its rejected lines, as `line: reason`."""

    path: str
    size: int
    mtime_ns: int
    format: str
    read: int
    rejected: int
    reasons: tuple[str, ...] = ()
    digest: str = ""  # of its content, as far as one is known


_TORN_ATTEMPTS = 8  # two seconds


class _Torn(LedgerError):
    """Rows have a code without a meaning: for the moment, while retain drops it and gives it back; or a fault."""


class _Seen(NamedTuple):
    """A table as a writer has looked at it, and how many transactions it had seen."""

    delta: Any
    version: int
    transaction: int


class Ledger(Store):
    """A ledger in a folder; made there if there is none.

    Several processes may append at once: a commit that finds another one landed since it looked starts again
    from what it now sees, so no call is counted twice. LedgerError if the folder cannot be used.

    `engine` is a SparkSession, to sum and sift usage on a cluster; everything else is done here.
    """

    def __init__(self, folder: Path | str, engine: Any = None) -> None:
        super().__init__(folder)
        self.engine: Any = None
        if engine:
            self.sum_on(engine)
        self._forgotten = (-1, Forgotten())  # as of which version
        self._known_codes: dict[str, tuple[int, set[int]]] = {}  # by table: as of which commit, and the codes
        self._own = Own()

    # --- reading ---

    def rows(self) -> duckdb.DuckDBPyRelation:
        return self.table("usage")

    def sum_on(self, engine: Any) -> None:
        """From now on usage is summed and sifted by this SparkSession."""
        self.engine = _spark.own_session(engine)

    def rows_to_sum(self, since: datetime, until: datetime, columns: Sequence[str] = ()) -> Any:
        """Usage as a frame of the engine: all of [since, until), these columns of it at least; it may be more."""
        if not self.engine:
            return self.rows()
        delta, opened = self.delta("usage"), self.place.opened("usage")
        try:
            return _spark.rows(self.engine, delta, since, until, columns, opened)
        except (ValueError, OSError) as error:
            raise LedgerError(f"{self.folder}: cannot read usage: {error}") from error

    def lifted(self, relation: duckdb.DuckDBPyRelation) -> Any:
        """A small relation as a frame that `rows_to_sum` joins."""
        return _spark.lifted(self.engine, relation) if self.engine else relation

    def fetched(self, frame: Any) -> list[tuple[Any, ...]]:
        """The rows of a small frame of the engine."""
        if not self.engine:
            return list(frame.fetchall())
        try:
            return _spark.fetched(frame)
        except OSError as error:
            raise LedgerError(f"{self.folder}: cannot read usage: {error}") from error

    def sift(
        self,
        name: str,
        query: str,
        columns: Sequence[str],
        span: tuple[datetime, datetime],
        together: Sequence[str] = (),
        **beside: duckdb.DuckDBPyRelation,
    ) -> duckdb.DuckDBPyRelation:
        """What a SELECT finds in `name`, these columns of usage of [from, to), and in small relations by their names.

        On Spark the executors' DuckDBs are asked, each of some of the rows, and what they find is put together: so ask
        for what may be added up. Rows alike in `together`, expressions over the columns, are in one share.
        """
        con, used = self.connection, self.days()
        since, until = (max(span[0], used[0]), min(span[1], used[1])) if used else (EPOCH, EPOCH)
        within = f"\"at\" >= TIMESTAMPTZ '{since.isoformat()}' AND \"at\" < TIMESTAMPTZ '{until.isoformat()}'"
        rows = self.none("usage") if self.engine else self.rows()  # a bucket's would be fetched for nothing
        rows = rows.filter(within).project(", ".join(f'"{column}"' for column in columns))
        for view, relation in {**beside, name: rows}.items():
            con.register(view, relation)
        found = con.sql(query)
        if not self.engine or since >= until:
            return found
        read = dict.fromkeys((*columns, "at"))
        usage = _spark.between(self.rows_to_sum(since, until, tuple(read)), since, until).select(*columns)
        try:
            return con.from_arrow(_spark.sifted(usage, name, query, together, beside, found))
        except OSError as error:
            raise LedgerError(f"{self.folder}: cannot read usage: {error}") from error

    def mapped(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """What `map` gives; on Spark its executors make it, an item a task."""
        return (
            _spark.on_executors(self.engine, function, items) if self.engine else list(map(function, items))
        )

    def contexts(self) -> duckdb.DuckDBPyRelation:
        """One row a distinct Facts. Two writers may both have added one: it is given once."""
        return self.table("contexts").distinct()

    def files(self, read_until: Mapping[str, str] | None = None) -> list[SourceFile]:
        """Every source file as it was last read; without those more than a day before the hours of `read_until`."""
        if self.delta("files") is None:
            return []  # and DuckDB need not be loaded yet
        wanted = "format <> ?"
        values = [_SERIES]
        for series, hour in (read_until or {}).items():
            day = datetime.strptime(hour, _HOUR).replace(tzinfo=UTC) - timedelta(days=1)
            wanted += " AND NOT (path >= ? AND path < ?)"
            values += [series, f"{series}{day:{_HOUR}}"]
        query = f"""SELECT path, size, mtime_ns, format, read, rejected, reasons, digest FROM files WHERE {wanted}
                    QUALIFY row_number() OVER (PARTITION BY path ORDER BY "at" DESC) = 1 ORDER BY path"""
        self.connection.register("files", self.table("files"))
        rows = self.connection.execute(query, values).fetchall()
        return [
            SourceFile._make((*row[:6], () if row[6] == "[]" else tuple(json.loads(row[6])), row[7]))
            for row in rows
        ]

    def read_until(self) -> dict[str, str]:
        """By series of objects that go by the hour: the hour before which all of it has been read."""
        if self.delta("files") is None:
            return {}
        self.connection.register("files", self.table("files"))
        query = (
            """SELECT path, arg_max(digest, "at") FROM files WHERE format = ? GROUP BY path ORDER BY path"""
        )
        return dict(self.connection.execute(query, [_SERIES]).fetchall())

    def totals(self) -> duckdb.DuckDBPyRelation:
        """Control totals, each as it was last read: what sources counted over a period, never usage beside calls.

        Of those that begin together the longest holds: a count that goes on from one start is told as it grows.
        """
        key = ", ".join(f'"{name}"' for name in TOTALS if name not in ("read_at", "end", "value"))
        order = '"end" DESC, read_at DESC, value DESC'
        latest = f"row_number() OVER (PARTITION BY {key} ORDER BY {order}) = 1"
        table = self.table("totals")
        self.connection.register("all_totals", table)
        return self.connection.sql(f"SELECT * FROM all_totals QUALIFY {latest}")

    def entries(self) -> list[Entry]:
        """What was used beside tokens, in order of time; of those with one id the greatest, as it was told first."""
        if self.delta("entries") is None:
            return []
        self.connection.register("all_entries", self.table("entries"))
        facts = ", ".join(Facts._fields)
        order = f'quantity DESC, read_at, epoch_us("at"), kind, free, {facts}'
        rows = self.connection.execute(
            f"""SELECT id, epoch_us("at") AS at_us, kind, quantity, free, {facts} FROM all_entries
                QUALIFY row_number() OVER (PARTITION BY id ORDER BY {order}) = 1 ORDER BY at_us, id"""
        ).fetchall()
        known: dict[tuple[str, ...], Facts] = {}  # few differ
        return [
            Entry(name, at_us, kind, quantity, known.setdefault(said, Facts(*said)), free)
            for name, at_us, kind, quantity, free, *rest in rows
            for said in [tuple(rest)]
        ]

    def forgotten(self) -> Forgotten:
        """The names that are not to be kept, as digests."""
        delta = self.delta("forgotten")
        if delta is None:
            return Forgotten()
        if self._forgotten[0] != delta.version():
            rows = self.table("forgotten").project("kind, digest").distinct().fetchall()
            keys = [bytes.fromhex(digest) for kind, digest in rows if kind == KEY]
            names = frozenset(digest for kind, digest in rows if kind != KEY)
            self._forgotten = delta.version(), Forgotten(keys[0] if keys else b"", names)
        return self._forgotten[1]

    def span(self) -> tuple[datetime, datetime] | None:
        """The first and last time of use; None for an empty ledger."""
        low, high = self.rows().aggregate('epoch_us(min("at")), epoch_us(max("at"))').fetchall()[0]
        return None if low is None else (_instant(low), _instant(high))

    def days(self) -> tuple[datetime, datetime] | None:
        """The whole UTC days of use, [from, to), as the table's own statistics tell them: no row is read."""
        delta = self.delta("usage")
        actions = delta.get_add_actions(flatten=True) if delta else None
        if actions is None or not actions.num_rows:
            return None
        low, high = (actions[f"{end}.day"].to_pylist() for end in ("min", "max"))
        return EPOCH + timedelta(days=min(low)), EPOCH + timedelta(days=max(high) + 1)

    # --- writing ---

    def append(self, usages: Sequence[Usage], attempts: int = 40) -> Added:
        """Add what these records say that is not known yet, in one commit; all of it or nothing."""
        if not usages:
            return Added([])
        for attempt in range(attempts):
            _give_way(attempt)
            seen = {name: self._look(name) for name in ("usage", "contexts", "tags")}
            try:
                added = self._append(usages, seen)
            except _Torn:
                if attempt == _TORN_ATTEMPTS:
                    raise
                continue  # retain is at work, or was killed
            except Exception as error:
                if not isinstance(error, LedgerError) and "duckdb" not in type(error).__module__:
                    raise  # of DuckDB's, which may not be loaded, any may say that a file has gone
                if all(self.place.is_newest(name, table.version) for name, table in seen.items()):
                    raise
                continue  # what was seen has been removed meanwhile
            if added is not None:
                return added
        raise LedgerError(f"{self.folder}: {attempts} commits in a row met another writer's; try again")

    def _append(self, usages: Sequence[Usage], seen: dict[str, _Seen]) -> Added | None:
        """None if another writer came between."""
        told = self.forgotten().usages(usages)  # asked for after the tables were looked at: see forget
        delta, _, transaction = seen["usage"]
        ids = ids_of(told)
        met = self._own.met(ids.every, transaction)
        # What shares no id with any other is a call of its own: it need be neither compared nor looked for.
        shared, alone = (told, ()) if met is None else parted(told, met | ids.repeated)
        asked = told if met is None else parted(shared, met)[0]
        known = list(self.known(asked)) if asked else []
        calls = Calls(known)
        calls.extend(shared)
        replaced = [(old, new) for old, new in zip(known, calls.kept, strict=False) if old != new]
        fresh = [*alone, *(usage for usage in calls.kept[len(known) :] if usage is not None)]
        if not fresh and not replaced:
            return Added([], 0, calls.duplicates)
        rows = Rows()
        rows.extend([old for old, _ in replaced], -1)
        rows.extend([new for _, new in replaced if new is not None])
        rows.extend(fresh)
        if self._add_dimensions(rows, seen) and self.commit("usage", rows.columns, delta, transaction + 1):
            self._own.note(ids.every, rows.contexts, transaction)
            return Added(fresh, calls.superseded, calls.duplicates)
        return None

    def _look(self, name: str) -> _Seen:
        delta = self.delta(name, make=True)
        return _Seen(delta, delta.version(), delta.transaction_version(WRITER) or 0)

    def note_files(self, files: Sequence[SourceFile], at: datetime) -> None:
        """Remember these files as read; called once their records are in."""
        rows = [
            (*file[:4], _micros(at), *file[4:6], json.dumps(file.reasons[:100]), file.digest)
            for file in files
        ]
        if rows:
            self.add("files", lambda: rows)

    def note_read_until(self, read_until: Mapping[str, str], at: datetime) -> None:
        """Remember how far these series have been read; called once all before that is in."""
        self.note_files(
            [SourceFile(series, 0, 0, _SERIES, 0, 0, (), hour) for series, hour in read_until.items()], at
        )

    def note_totals(self, totals: Sequence[Total], at: datetime) -> int:
        """Remember control totals; how many of them are new, or other than they were."""
        if not totals:
            return 0
        now, con = _micros(at), self.connection
        on = ", ".join(f'"{name}"' for name in TOTALS if name != "read_at")

        def fresh() -> list[tuple[Any, ...]]:
            masked = map(self.forgotten().total, totals)
            rows = [(now, total.start_us, total.end_us, total.value, *total.said) for total in masked]
            con.register("given_totals", arrow(transposed(rows, TOTALS), TOTALS))
            con.register("ledger_totals", self.totals())
            return con.execute(
                f"""SELECT epoch_us(read_at), epoch_us("start"), epoch_us("end"), * EXCLUDE (read_at, "start", "end")
                    FROM given_totals ANTI JOIN ledger_totals USING ({on})"""
            ).fetchall()

        return self.add("totals", fresh)

    def note_entries(self, entries: Sequence[Entry], at: datetime) -> int:
        """Remember what was used beside tokens; how many of them are new, or more than was known under their ids."""
        if not entries:
            return 0
        now, con = _micros(at), self.connection
        most: dict[str, Entry] = {}
        for entry in entries:
            held = most.setdefault(entry.id, entry)
            if entry.quantity > held.quantity:
                most[entry.id] = entry

        def fresh() -> list[tuple[Any, ...]]:
            con.register("given_entries", arrow({"id": list(most)}, {"id": "string"}))
            con.register("kept_entries", self.table("entries"))
            query = (
                "SELECT id, max(quantity) FROM kept_entries SEMI JOIN given_entries USING (id) GROUP BY id"
            )
            known = dict(con.execute(query).fetchall())
            masked = self.forgotten().facts
            return [
                (now, entry.id, entry.at_us, entry.kind, entry.quantity, ENTRY_UNITS[entry.kind], entry.free,
                 *masked(entry.facts))
                for entry in most.values()
                if entry.quantity > known.get(entry.id, -1)
            ]  # fmt: skip

        return self.add("entries", fresh)

    def known(self, usages: Sequence[Usage]) -> Iterator[Usage]:
        """The ledger's present records of these calls, found by id within a day of them; of batches, at any time."""
        low = min(usage.at_us for usage in usages) - DAY_US
        high = max(usage.at_us for usage in usages) + DAY_US
        if any(
            usage.parts[0][0].mode == "batch" for usage in usages
        ):  # where no job is at hand, a file's time
            low, high = 0, max(high, low + 36_500 * DAY_US)
        wanted = arrow({"id": [name for usage in usages for name in usage.ids]}, {"id": "string"})
        con = self.connection
        rows = self.rows().filter(f'"at" BETWEEN make_timestamptz({low}) AND make_timestamptz({high})')
        con.register("wanted_ids", wanted)
        con.register("ledger_rows", rows)
        con.register("ledger_contexts", self.contexts())
        con.register("ledger_tags", self.table("tags").distinct())
        keys = "part, request_id, message_id, gateway_id, also, at_us, sidechain, latency_ms, pairs"
        facts, meters = ", ".join(Facts._fields), ", ".join(METERS)
        present = con.execute(
            f"""
            WITH others AS (SELECT also FROM (SELECT DISTINCT also, unnest(string_split(also, chr({ord(BETWEEN_IDS)})))
                            AS id FROM ledger_rows WHERE also <> '') WHERE id IN (FROM wanted_ids)),
                 hits AS (SELECT *, epoch_us("at") AS at_us FROM ledger_rows WHERE request_id IN (FROM wanted_ids)
                          OR message_id IN (FROM wanted_ids) OR gateway_id IN (FROM wanted_ids)
                          OR also IN (FROM others)),
                 sets AS (SELECT tags, list([key, value] ORDER BY key, value) AS pairs FROM ledger_tags GROUP BY tags),
                 told AS (SELECT * FROM hits LEFT JOIN ledger_contexts USING (ctx) LEFT JOIN sets USING (tags)),
                 sums AS (SELECT {keys}, {facts}, {", ".join(f"abs({m}) AS {m}" for m in METERS)},
                                 sum(CASE WHEN reversal THEN -1 ELSE 1 END) AS net FROM told GROUP BY ALL)
            SELECT {keys}, {facts}, {meters} FROM sums
            WHERE net > 0 ORDER BY request_id, message_id, gateway_id, at_us, account, part
            """  # by what codes mean: two of them may mean the same since a name was forgotten
        )
        last: Usage | None = None
        while rows_ := present.fetchmany(10_000):
            for place, request, message, gateway, also, at_us, side, latency, pairs, *rest in rows_:
                if rest[0] is None:
                    raise _Torn(f"{self.folder}: usage lacks its context; run `farthing ledger compact`")
                part = (Facts(*rest[: len(Facts._fields)]), tuple(rest[len(Facts._fields) :]))
                if last and place:
                    last = last._replace(parts=(*last.parts, part))
                    continue
                if last:
                    yield last
                tags, others = tuple(map(tuple, pairs or ())), tuple(also.split(BETWEEN_IDS)) if also else ()
                last = Usage(at_us, request, message, (part,), tags, latency, side, gateway, others)
        if last:
            yield last

    def lacks_source(self, source: str) -> bool:
        """Whether it is certain, without a look at its rows, that no record in it is of this source."""
        return self._own.lacks_source(source, self._look("usage").transaction)

    def _add_dimensions(self, rows: Rows, seen: dict[str, _Seen]) -> bool:
        """Contexts and tag sets that no row had before; written first, so that no row lacks its own.

        False if another writer changed these tables since they were looked at.
        """
        for name, codes in (("contexts", rows.contexts), ("tags", rows.tagsets)):
            delta, _, transaction = seen[name]
            known = self._codes(name, transaction)
            new = {said: code for said, code in codes.items() if code not in known}
            if not new:
                continue
            if name == "contexts":
                given = [(code, *said) for said, code in new.items()]
            else:
                given = [(code, *pair) for said, code in new.items() for pair in said]
            if not self.commit(name, transposed(given, TABLES[name]), delta, transaction + 1):
                return False
            known.update(new.values())
            self._known_codes[name] = (transaction + 1, known)
        return True

    def _codes(self, name: str, transaction: int) -> set[int]:
        """The codes that a table of contexts or tags has, remembered until another writer changes it."""
        found = self._known_codes.get(name)
        if found is None or found[0] != transaction:
            column = next(iter(TABLES[name]))
            rows = self.table(name).project(column).distinct().fetchall() if transaction else ()
            codes = {code for (code,) in rows}
            found = self._known_codes[name] = (transaction, codes)
        return found[1]

    def add(self, name: str, rows: Callable[[], list[tuple[Any, ...]]], attempts: int = 40) -> int:
        """Append rows, which are made once the table has been looked at, and made again if another writer came first.

        How many there were.
        """
        for attempt in range(attempts):
            _give_way(attempt)
            delta, _, transaction = self._look(name)
            made = rows()
            if not made or self.commit(name, transposed(made, TABLES[name]), delta, transaction + 1):
                return len(made)
        raise LedgerError(f"{self.folder}: {attempts} commits in a row met another writer's; try again")


def _give_way(attempt: int) -> None:
    """After a commit that another writer's came before: wait for a moment, so that not always the slowest loses."""
    if attempt:
        time.sleep(random.uniform(0, min(0.01 * 2**attempt, 0.5)))


def _micros(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def _instant(micros: int) -> datetime:
    return datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000)
