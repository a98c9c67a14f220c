"""The ledger: what was used, appended and never changed, each call counted once.

A folder of Delta tables. `usage` holds one row a part of a call; when a better record of a known call
arrives, the old row is reversed (the same row, counts negated) and the new one added, so that a plain SUM
over all rows is always right. `contexts` and `tags` hold what rows share, under a code made from their
content; `files` holds what was read, so that an unchanged file is not read again and a report can say how
many rows were rejected and why.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from farthing.meters import METERS
from farthing.usage import EPOCH, Facts, Usage

if TYPE_CHECKING:
    import duckdb

_MARKER = "farthing.json"
FORMAT = 1  # of the folder; a ledger of another format is refused, never guessed at
RANK = {"bedrock_log": 2, "claude_code": 1}  # which source to believe of one call; the gateway will be 3


_ROOM_BYTES = 100_000  # that a commit may take beside its data: the log entry, footers, a block a file


class LedgerError(Exception):
    """The ledger cannot be read or written: one line that names the folder and the mend."""


class Calls:
    """Records gathered by call, the best of each kept.

    Two records are one call if they share a request id or a message id and contradict each other in
    neither. A side-chain copy, or another source, may name another request of the same message. What the
    best record lacks of the two ids it takes from the others, so that it is found under either.
    """

    def __init__(self, known: Iterable[Usage] = ()) -> None:
        """`known` calls keep their places in `kept`, whatever they have in common."""
        self.kept: list[Usage | None] = []  # None: found to be the same call as another
        self.superseded = 0  # records that a better one of the same call replaced
        self.duplicates = 0  # records that said nothing new
        self._places: dict[str, list[int]] = {}  # id -> where in `kept` its calls are
        for usage in known:
            self._name(len(self.kept), usage)
            self.kept.append(usage)

    @property
    def best(self) -> list[Usage]:
        return [usage for usage in self.kept if usage is not None]

    def add(self, usage: Usage) -> None:
        places = self._matching(usage)
        if not places:
            self._name(len(self.kept), usage)
            self.kept.append(usage)
            return
        place = places[0]
        if self._merge(place, usage):
            self.superseded += 1
        else:
            self.duplicates += 1
        for other in places[1:]:  # this record shows that what looked like two calls is one
            twin, merged = self.kept[other], self.kept[place]
            if twin and merged and self._is(other, merged):
                self._merge(place, twin)
                self.kept[other] = None
                self.superseded += 1

    def extend(self, usages: Iterable[Usage]) -> None:
        places, kept = self._places, self.kept
        for usage in usages:
            request, message = usage.request_id, usage.message_id
            if request in places or message in places:
                self.add(usage)
                continue
            place = len(kept)  # the usual call is met once
            if request:
                places[request] = [place]
            if message and message != request:
                places[message] = [place]
            kept.append(usage)

    def _matching(self, usage: Usage) -> list[int]:
        found: list[int] = []
        for name in (usage.message_id, usage.request_id):
            for place in self._places.get(name, ()) if name else ():
                if place not in found and self._is(place, usage):
                    found.append(place)
        return found

    def _merge(self, place: int, usage: Usage) -> bool:
        """Keep the better of two records of a call, under the ids of both; whether it is the new one.

        A copy on a side chain, however much it tells, leaves the call the request it was made by.
        """
        old = self.kept[place]
        assert old is not None
        wins = better(usage, old)
        best, other = (usage, old) if wins else (old, usage)
        if usage.request_id != old.request_id or usage.message_id != old.message_id:
            self._name(place, usage)
        main, copy = (other, best) if best.sidechain and not other.sidechain else (best, other)
        request, message = main.request_id, best.message_id or other.message_id
        if not request and _one_request(main, copy):
            request = copy.request_id
        if (request, message, main.sidechain) != (best.request_id, best.message_id, best.sidechain):
            best = best._replace(request_id=request, message_id=message, sidechain=main.sidechain)
        self.kept[place] = best
        return wins

    def _name(self, place: int, usage: Usage) -> None:
        for name in (usage.message_id, usage.request_id):
            if name:
                places = self._places.get(name)
                if places is None:
                    self._places[name] = [place]
                elif place not in places:
                    places.append(place)

    def _is(self, place: int, usage: Usage) -> bool:
        known = self.kept[place]
        if known is None or _differ(known.message_id, usage.message_id):
            return False
        return not (_differ(known.request_id, usage.request_id) and _one_request(known, usage))


def _one_request(a: Usage, b: Usage) -> bool:
    """Whether two records of one message must name the same request."""
    return not (a.sidechain or b.sidechain) and a.parts[0][0].source == b.parts[0][0].source


def _differ(a: str, b: str) -> bool:
    return a != b and bool(a) and bool(b)


def better(new: Usage, old: Usage) -> bool:
    """Whether `new` tells more of the call: source first, then output (streams repeat a call as it grows).

    Of two that tell as much, one wins whatever order they come in: the earlier, if their counts are the same.
    """
    a, b = _worth(new), _worth(old)
    return a > b or (a == b and _tie(new) > _tie(old))


def _tie(usage: Usage) -> tuple[list[tuple[int, ...]], int]:
    return [tokens for _, tokens in usage.parts], -usage.at_us


def _worth(usage: Usage) -> tuple[int, int, bool, bool, int]:
    facts = usage.parts[0][0]
    return (
        RANK.get(facts.source, 0),
        sum(tokens[1] for _, tokens in usage.parts),
        not usage.sidechain,
        "ttl" not in facts.assumed,
        sum(sum(tokens) for _, tokens in usage.parts),
    )


# --- storage -------------------------------------------------------------------------------------------------------

_USAGE = {
    "month": "string", "at": "timestamp", "day": "int32", "calls": "int8", "reversal": "bool", "part": "int16",
    "ctx": "int64", "tags": "int64", **dict.fromkeys(METERS, "int64"),
    "latency_ms": "int64", "request_id": "string", "message_id": "string", "sidechain": "bool",
}  # fmt: skip
_CONTEXTS = {"ctx": "int64", **dict.fromkeys(Facts._fields, "string")}
_TAGS = {"tags": "int64", "key": "string", "value": "string"}
_FILES = {
    "path": "string", "size": "int64", "mtime_ns": "int64", "format": "string", "at": "timestamp",
    "read": "int64", "rejected": "int64", "reasons": "string",
}  # fmt: skip
_TABLES = {"usage": _USAGE, "contexts": _CONTEXTS, "tags": _TAGS, "files": _FILES}
_DUCK = {
    "string": "VARCHAR", "timestamp": "TIMESTAMPTZ", "bool": "BOOLEAN",
    "int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
}  # fmt: skip
_NUMBERS = {name for name, kind in _USAGE.items() if kind in ("int64", "timestamp") and name != "latency_ms"}
DAY_US = 86_400_000_000
_UNFIT = re.compile(r"[][%*?{}|^\\]")  # in a path: Delta Lake fails on some, DuckDB takes others for patterns


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


class Ledger:
    """A ledger in a folder; made there if there is none.

    Several processes may append at once: a commit that finds another one landed since it looked starts again
    from what it now sees, so no call is counted twice. LedgerError if the folder cannot be used.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._con: duckdb.DuckDBPyConnection | None = None
        self._tables: dict[str, Any] = {}  # as last read
        self._contexts: set[int] | None = None
        self._tagsets: set[int] | None = None
        if _UNFIT.search(self.folder.absolute().as_posix()):
            raise LedgerError(
                f"{folder}: a ledger's path has none of {_UNFIT.pattern[1:-1]}; name another folder"
            )
        marker = self.folder / _MARKER
        try:
            if not marker.exists():
                self._begin(marker)
            found = json.loads(marker.read_text())
        except OSError as error:
            raise LedgerError(f"{folder}: {_os_reason(error)}") from error
        except ValueError as error:
            raise LedgerError(f'{marker} is damaged: it should hold {{"format": {FORMAT}}}') from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise LedgerError(
                f"{folder}: a ledger of format {found.get('format') if isinstance(found, dict) else found!r}; this "
                f"farthing reads format {FORMAT}: use the farthing that wrote it, or import into another folder"
            )

    def _begin(self, marker: Path) -> None:
        """Mark a new or empty folder as a ledger, in one step: this process may be killed, and others may look."""
        self.folder.mkdir(parents=True, exist_ok=True)
        strange = [path for path in self.folder.iterdir() if not path.name.startswith(marker.name)]
        if strange and not marker.exists():
            raise LedgerError(f"{self.folder}: not empty and no farthing ledger; name another folder")
        draft = self._draft()
        draft.write_text(json.dumps({"format": FORMAT}))
        draft.replace(marker)

    # --- reading ---

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The ledger's own DuckDB, in UTC; frames of this ledger join only here."""
        if self._con is None:
            import duckdb

            self._con = duckdb.connect()
            self._con.execute("SET TimeZone = 'UTC'")
        return self._con

    def table(self, name: str) -> duckdb.DuckDBPyRelation:
        """A table as it stands: `usage`, `contexts`, `tags` or `files`; empty where nothing was written yet."""
        columns = _TABLES[name]
        delta = self._delta(name)
        paths = [unquote(uri) for uri in delta.file_uris()] if delta else []
        if not paths:
            columns = {column: kind for column, kind in columns.items() if column != "month"}
            empty = ", ".join(
                f'CAST(NULL AS {_DUCK[kind]}) AS "{column}"' for column, kind in columns.items()
            )
            return self.connection.sql(f"SELECT {empty} LIMIT 0")
        import duckdb

        try:
            return self.connection.read_parquet(paths, hive_partitioning=False)
        except duckdb.Error as error:
            raise LedgerError(f"{self.folder}: cannot read {name}: {_os_reason(error)}") from error

    def rows(self) -> duckdb.DuckDBPyRelation:
        return self.table("usage")

    def contexts(self) -> duckdb.DuckDBPyRelation:
        """One row a distinct Facts. Two writers may both have added one: it is given once."""
        return self.table("contexts").distinct()

    def files(self) -> list[SourceFile]:
        """Every source file as it was last read."""
        if self._delta("files") is None:
            return []  # and DuckDB need not be loaded yet
        query = """SELECT path, size, mtime_ns, format, read, rejected, reasons FROM files
                   QUALIFY row_number() OVER (PARTITION BY path ORDER BY "at" DESC) = 1 ORDER BY path"""
        self.connection.register("files", self.table("files"))
        rows = self.connection.execute(query).fetchall()
        return [SourceFile._make((*row[:6], tuple(json.loads(row[6])))) for row in rows]

    def span(self) -> tuple[datetime, datetime] | None:
        """The first and last time of use; None for an empty ledger."""
        low, high = self.rows().aggregate('epoch_us(min("at")), epoch_us(max("at"))').fetchall()[0]
        return None if low is None else (_instant(low), _instant(high))

    def days(self) -> tuple[datetime, datetime] | None:
        """The whole UTC days of use, [from, to), as the table's own statistics tell them: no row is read."""
        delta = self._delta("usage")
        actions = delta.get_add_actions(flatten=True) if delta else None
        if actions is None or not actions.num_rows:
            return None
        low, high = (actions[f"{end}.day"].to_pylist() for end in ("min", "max"))
        return EPOCH + timedelta(days=min(low)), EPOCH + timedelta(days=max(high) + 1)

    # --- writing ---

    def append(self, usages: Sequence[Usage], attempts: int = 20) -> Added:
        """Add what these records say that is not known yet, in one commit; all of it or nothing."""
        if not usages:
            return Added([])
        for _ in range(attempts):
            delta = self._delta("usage", make=True)
            version = delta.transaction_version("farthing") or 0
            known = list(self._known(usages)) if version else []
            calls = Calls(known)
            calls.extend(usages)
            replaced = [(old, new) for old, new in zip(known, calls.kept, strict=False) if old is not new]
            fresh = [usage for usage in calls.kept[len(known) :] if usage is not None]
            if not fresh and not replaced:
                return Added([], 0, calls.duplicates)
            rows = _Rows()
            rows.extend([old for old, _ in replaced], -1)
            rows.extend([new for _, new in replaced if new is not None])
            rows.extend(fresh)
            self._add_dimensions(rows)
            if self._commit("usage", rows.columns, delta, version + 1):
                return Added(fresh, calls.superseded, calls.duplicates)
        raise LedgerError(f"{self.folder}: {attempts} commits in a row met another writer's; try again")

    def note_files(self, files: Sequence[SourceFile], at: datetime) -> None:
        """Remember these files as read; called once their records are in."""
        if files:
            columns: dict[str, list[Any]] = {name: [] for name in _FILES}
            for file in files:
                row = (*file[:4], _micros(at), *file[4:6], json.dumps(file.reasons[:100]))
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
            self._commit("files", columns)

    def _known(self, usages: Sequence[Usage]) -> Iterator[Usage]:
        """The ledger's present records of these calls, found by id within a day of them."""
        low = min(usage.at_us for usage in usages) - DAY_US
        high = max(usage.at_us for usage in usages) + DAY_US
        wanted = self.frame(
            {"id": [i for u in usages for i in (u.request_id, u.message_id) if i]}, {"id": "string"}
        )
        con = self.connection
        rows = self.rows().filter(f'"at" BETWEEN make_timestamptz({low}) AND make_timestamptz({high})')
        con.register("wanted_ids", wanted)
        con.register("ledger_rows", rows)
        con.register("ledger_contexts", self.contexts())
        con.register("ledger_tags", self.table("tags").distinct())
        keys = "request_id, message_id, part, ctx, tags, sidechain, latency_ms"
        present = con.execute(
            f"""
            WITH hits AS (SELECT * FROM ledger_rows WHERE request_id IN (FROM wanted_ids)
                          OR message_id IN (FROM wanted_ids)),
                 sums AS (SELECT {keys}, epoch_us("at") AS at_us, {", ".join(f"abs({m}) AS {m}" for m in METERS)},
                                 sum(CASE WHEN reversal THEN -1 ELSE 1 END) AS net FROM hits GROUP BY ALL),
                 sets AS (SELECT tags, list([key, value] ORDER BY key, value) AS pairs FROM ledger_tags GROUP BY tags)
            SELECT request_id, message_id, at_us, sidechain, latency_ms, pairs,
                   {", ".join(Facts._fields)}, {", ".join(METERS)}
            FROM sums JOIN ledger_contexts USING (ctx) LEFT JOIN sets USING (tags)
            WHERE net > 0 ORDER BY request_id, message_id, at_us, part
            """
        )
        last: Usage | None = None
        while rows_ := present.fetchmany(10_000):
            for request, message, at_us, side, latency, pairs, *rest in rows_:
                part = (Facts(*rest[: len(Facts._fields)]), tuple(rest[len(Facts._fields) :]))
                if last and (request, message, at_us) == (last.request_id, last.message_id, last.at_us):
                    last = last._replace(parts=(*last.parts, part))
                    continue
                if last:
                    yield last
                last = Usage(at_us, request, message, (part,), tuple(map(tuple, pairs or ())), latency, side)
        if last:
            yield last

    def _add_dimensions(self, rows: _Rows) -> None:
        """Contexts and tag sets that no row had before; written first, so that no row lacks its own."""
        if self._contexts is None:
            self._contexts = {code for (code,) in self.table("contexts").project("ctx").distinct().fetchall()}
            self._tagsets = {code for (code,) in self.table("tags").project("tags").distinct().fetchall()}
        assert self._tagsets is not None
        new = {code: facts for facts, code in rows.contexts.items() if code not in self._contexts}
        if new:
            columns: dict[str, list[Any]] = {"ctx": list(new)}
            for i, name in enumerate(Facts._fields):
                columns[name] = [facts[i] for facts in new.values()]
            self._commit("contexts", columns)
            self._contexts |= new.keys()
        pairs = [
            (code, *pair) for tags, code in rows.tagsets.items() if code not in self._tagsets for pair in tags
        ]
        if pairs:
            self._commit("tags", dict(zip(_TAGS, map(list, zip(*pairs, strict=True)), strict=True)))
            self._tagsets |= {code for code, *_ in pairs}

    def _commit(self, name: str, columns: dict[str, Any], delta: Any = None, version: int = 0) -> bool:
        """Append columns to a table. With a version: False if another commit took it since `delta` was read."""
        from deltalake import CommitProperties, Transaction, WriterProperties, write_deltalake
        from deltalake.exceptions import CommitFailedError, DeltaError

        transactions = [Transaction("farthing", version)] if version else None
        data = self.frame(columns, _TABLES[name])
        need = data.nbytes + _ROOM_BYTES
        free = shutil.disk_usage(self.folder).free
        if free < need:  # found out by the writer itself, this prints a stack trace of its own
            raise LedgerError(
                f"{self.folder}: cannot write: {free:,} bytes free on the disk, {need:,} needed"
            )
        try:
            write_deltalake(
                self._delta(name, make=True) if delta is None else delta,
                data,
                mode="append",
                writer_properties=WriterProperties(compression="ZSTD"),
                commit_properties=CommitProperties(app_transactions=transactions),
            )
        except (DeltaError, OSError) as error:
            if version and isinstance(error, CommitFailedError):
                return False
            raise LedgerError(f"{self.folder}: cannot write: {_os_reason(error)}") from error
        return True

    def _delta(self, name: str, *, make: bool = False) -> Any:
        """A table as it stands; None, or an empty one, if it was never written.

        It is made by itself, not by its first rows: then the first commit of rows is one like any other, and two
        writers who begin at once see each other. Delta lets both of two who make a table succeed, so it is renamed
        into its place.
        """
        path = self.folder / name
        if name in self._tables and _is_newest(path, self._tables[name].version()):
            return self._tables[name]
        if not make and not path.exists():
            return None
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        try:
            if path.exists():
                self._tables[name] = DeltaTable(str(path))
                return self._tables[name]
        except TableNotFoundError:
            pass
        except (DeltaError, OSError) as error:
            raise LedgerError(f"{self.folder}: cannot read {name}: {_os_reason(error)}") from error
        if not make:
            return None
        columns = _TABLES[name]
        schema = self.frame({column: [] for column in columns}, columns).schema
        draft = self._draft()
        try:
            DeltaTable.create(str(draft), schema, partition_by=["month"] if "month" in columns else None)
            draft.rename(path)  # in one step, and only if no other writer was quicker
            return DeltaTable(str(path))
        except (DeltaError, OSError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            if found := self._delta(name):
                return found
            raise LedgerError(f"{self.folder}: cannot write: {_os_reason(error)}") from error

    def _draft(self) -> Path:
        """A name for something that will be renamed once it is whole; what a killed process leaves of it is ignored."""
        return self.folder / f"{_MARKER}.{os.urandom(8).hex()}"

    def frame(self, columns: dict[str, Any], types: dict[str, str]) -> Any:
        """Columns as an Arrow table that DuckDB and Delta read: `timestamp` columns hold microseconds."""
        from arro3.core import Array, DataType, Table

        kinds = {
            "string": DataType.string(), "bool": DataType.bool(), "int8": DataType.int8(),
            "int16": DataType.int16(), "int32": DataType.int32(), "int64": DataType.int64(),
        }  # fmt: skip

        def build(values: Any, kind: str) -> Any:
            if isinstance(values, array):
                built = Array.from_buffer(values)
                return built if kind == "int64" else built.cast(DataType.timestamp("us", tz="UTC"))
            if kind == "timestamp":
                return Array(values, DataType.int64()).cast(DataType.timestamp("us", tz="UTC"))
            return Array(values, kinds[kind])

        return Table.from_pydict({name: build(columns[name], kind) for name, kind in types.items()})


class _Rows:
    """Usage records as columns of the `usage` table, with the contexts and tag sets they need."""

    def __init__(self) -> None:
        self.columns: dict[str, Any] = {name: array("q") if name in _NUMBERS else [] for name in _USAGE}
        self.contexts: dict[Facts, int] = _Codes()
        self.tagsets: dict[tuple[tuple[str, str], ...], int] = _Codes()

    def extend(self, usages: Iterable[Usage], sign: int = 1) -> None:
        """A column at a time, which takes a third of the time of a row at a time."""
        parts = [
            (usage, part, facts, tokens)
            for usage in usages
            for part, (facts, tokens) in enumerate(usage.parts)
        ]
        if not parts:
            return
        owners, places, facts, tokens = zip(*parts, strict=True)
        at_us, request_ids, message_ids, _, tags, latency_ms, sidechain = zip(*owners, strict=True)
        days = [at // DAY_US for at in at_us]
        columns = {
            "month": map(_month, days),
            "at": at_us,
            "day": days,
            "calls": (
                0 if place else sign for place in places
            ),  # the call is counted once, on its first part
            "reversal": [sign < 0] * len(parts),
            "part": places,
            "ctx": map(self.contexts.__getitem__, facts),
            "tags": (self.tagsets[pairs] if pairs else 0 for pairs in tags),
            "latency_ms": latency_ms,
            "request_id": request_ids,
            "message_id": message_ids,
            "sidechain": sidechain,
        }
        for name, values in columns.items():
            self.columns[name].extend(values)
        for meter, counts in zip(METERS, zip(*tokens, strict=True), strict=True):
            self.columns[meter].extend(counts if sign > 0 else [-count for count in counts])


class _Codes(dict[Any, int]):
    def __missing__(self, value: Any) -> int:
        code = self[value] = content_code(value)
        return code


_as_json = json.JSONEncoder(ensure_ascii=False).encode


def content_code(value: Any) -> int:
    """A 63-bit code made from what it stands for, so that writers need not agree on one; never 0."""
    digest = hashlib.blake2b(_as_json(value).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big") >> 1 or 1


_MONTHS: dict[int, str] = {}


def _month(day: int) -> str:
    month = _MONTHS.get(day)
    if month is None:
        month = _MONTHS[day] = f"{datetime.fromtimestamp(day * 86_400, UTC):%Y-%m}"
    return month


def _is_newest(table: Path, version: int) -> bool:
    """Whether nothing was committed after this version: its log is still there, and that of the next one is not."""
    log = table / "_delta_log"
    return (log / f"{version:020}.json").exists() and not (log / f"{version + 1:020}.json").exists()


def _micros(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def _instant(micros: int) -> datetime:
    return datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000)


def _os_reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
