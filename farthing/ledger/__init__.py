"""The ledger: what was used, appended and never changed, each call counted once.

A folder of Delta tables. `usage` holds one row a part of a call; when a better record of a known call
arrives, the old row is reversed (the same row, counts negated) and the new one added, so that a plain SUM
over all rows is always right. `contexts` and `tags` hold what rows share, under a code made from their
content; `files` holds what was read, so that an unchanged file is not read again and a report can say how
many rows were rejected and why. `totals` holds what sources counted over periods, to compare with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.ledger._calls import RANK, Calls, better
from farthing.ledger._store import FORMAT, LedgerError, Store
from farthing.ledger._tables import DAY_US, FILES, TAGS, TOTALS, Rows, arrow, content_code, transposed
from farthing.meters import METERS
from farthing.usage import EPOCH, Facts, Total, Usage

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "FORMAT",
    "RANK",
    "Added",
    "Calls",
    "Ledger",
    "LedgerError",
    "SourceFile",
    "arrow",
    "better",
    "content_code",
]


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


class Ledger(Store):
    """A ledger in a folder; made there if there is none.

    Several processes may append at once: a commit that finds another one landed since it looked starts again
    from what it now sees, so no call is counted twice. LedgerError if the folder cannot be used.
    """

    def __init__(self, folder: Path | str) -> None:
        super().__init__(folder)
        self._contexts: set[int] | None = None
        self._tagsets: set[int] | None = None

    # --- reading ---

    def rows(self) -> duckdb.DuckDBPyRelation:
        return self.table("usage")

    def contexts(self) -> duckdb.DuckDBPyRelation:
        """One row a distinct Facts. Two writers may both have added one: it is given once."""
        return self.table("contexts").distinct()

    def files(self) -> list[SourceFile]:
        """Every source file as it was last read."""
        if self.delta("files") is None:
            return []  # and DuckDB need not be loaded yet
        query = """SELECT path, size, mtime_ns, format, read, rejected, reasons, digest FROM files
                   QUALIFY row_number() OVER (PARTITION BY path ORDER BY "at" DESC) = 1 ORDER BY path"""
        self.connection.register("files", self.table("files"))
        rows = self.connection.execute(query).fetchall()
        return [SourceFile._make((*row[:6], tuple(json.loads(row[6])), row[7])) for row in rows]

    def totals(self) -> duckdb.DuckDBPyRelation:
        """Control totals, each as it was last read: what sources counted over a period, never usage beside calls."""
        key = ", ".join(f'"{name}"' for name in TOTALS if name not in ("read_at", "value"))
        latest = f"row_number() OVER (PARTITION BY {key} ORDER BY read_at DESC) = 1"
        table = self.table("totals")
        self.connection.register("all_totals", table)
        return self.connection.sql(f"SELECT * FROM all_totals QUALIFY {latest}")

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

    def append(self, usages: Sequence[Usage], attempts: int = 20) -> Added:
        """Add what these records say that is not known yet, in one commit; all of it or nothing."""
        if not usages:
            return Added([])
        for _ in range(attempts):
            delta = self.delta("usage", make=True)
            version = delta.transaction_version("farthing") or 0
            known = list(self._known(usages)) if version else []
            calls = Calls(known)
            calls.extend(usages)
            replaced = [(old, new) for old, new in zip(known, calls.kept, strict=False) if old is not new]
            fresh = [usage for usage in calls.kept[len(known) :] if usage is not None]
            if not fresh and not replaced:
                return Added([], 0, calls.duplicates)
            rows = Rows()
            rows.extend([old for old, _ in replaced], -1)
            rows.extend([new for _, new in replaced if new is not None])
            rows.extend(fresh)
            self._add_dimensions(rows)
            if self.commit("usage", rows.columns, delta, version + 1):
                return Added(fresh, calls.superseded, calls.duplicates)
        raise LedgerError(f"{self.folder}: {attempts} commits in a row met another writer's; try again")

    def note_files(self, files: Sequence[SourceFile], at: datetime) -> None:
        """Remember these files as read; called once their records are in."""
        rows = [
            (*file[:4], _micros(at), *file[4:6], json.dumps(file.reasons[:100]), file.digest)
            for file in files
        ]
        if rows:
            self.commit("files", transposed(rows, FILES))

    def note_totals(self, totals: Sequence[Total], at: datetime) -> int:
        """Remember control totals; how many of them are new, or other than they were."""
        if not totals:
            return 0
        now = _micros(at)
        rows = [(now, total.start_us, total.end_us, total.value, *total.said) for total in totals]
        con = self.connection
        con.register("given_totals", arrow(transposed(rows, TOTALS), TOTALS))
        con.register("ledger_totals", self.totals())
        on = ", ".join(f'"{name}"' for name in TOTALS if name != "read_at")
        fresh = con.execute(
            f"""SELECT epoch_us(read_at), epoch_us("start"), epoch_us("end"), * EXCLUDE (read_at, "start", "end")
                FROM given_totals ANTI JOIN ledger_totals USING ({on})"""
        ).fetchall()
        if fresh:
            self.commit("totals", transposed(fresh, TOTALS))
        return len(fresh)

    def _known(self, usages: Sequence[Usage]) -> Iterator[Usage]:
        """The ledger's present records of these calls, found by id within a day of them."""
        low = min(usage.at_us for usage in usages) - DAY_US
        high = max(usage.at_us for usage in usages) + DAY_US
        wanted = arrow({"id": [name for usage in usages for name in usage.ids]}, {"id": "string"})
        con = self.connection
        rows = self.rows().filter(f'"at" BETWEEN make_timestamptz({low}) AND make_timestamptz({high})')
        con.register("wanted_ids", wanted)
        con.register("ledger_rows", rows)
        con.register("ledger_contexts", self.contexts())
        con.register("ledger_tags", self.table("tags").distinct())
        keys = "request_id, message_id, gateway_id, part, ctx, tags, sidechain, latency_ms"
        present = con.execute(
            f"""
            WITH hits AS (SELECT * FROM ledger_rows WHERE request_id IN (FROM wanted_ids)
                          OR message_id IN (FROM wanted_ids) OR gateway_id IN (FROM wanted_ids)),
                 sums AS (SELECT {keys}, epoch_us("at") AS at_us, {", ".join(f"abs({m}) AS {m}" for m in METERS)},
                                 sum(CASE WHEN reversal THEN -1 ELSE 1 END) AS net FROM hits GROUP BY ALL),
                 sets AS (SELECT tags, list([key, value] ORDER BY key, value) AS pairs FROM ledger_tags GROUP BY tags)
            SELECT request_id, message_id, gateway_id, at_us, sidechain, latency_ms, pairs,
                   {", ".join(Facts._fields)}, {", ".join(METERS)}
            FROM sums JOIN ledger_contexts USING (ctx) LEFT JOIN sets USING (tags)
            WHERE net > 0 ORDER BY request_id, message_id, gateway_id, at_us, part
            """
        )
        last: Usage | None = None
        while rows_ := present.fetchmany(10_000):
            for request, message, gateway, at_us, side, latency, pairs, *rest in rows_:
                part = (Facts(*rest[: len(Facts._fields)]), tuple(rest[len(Facts._fields) :]))
                named = (request, message, gateway, at_us)
                if last and named == (last.request_id, last.message_id, last.gateway_id, last.at_us):
                    last = last._replace(parts=(*last.parts, part))
                    continue
                if last:
                    yield last
                tags = tuple(map(tuple, pairs or ()))
                last = Usage(at_us, request, message, (part,), tags, latency, side, gateway)
        if last:
            yield last

    def _add_dimensions(self, rows: Rows) -> None:
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
            self.commit("contexts", columns)
            self._contexts |= new.keys()
        pairs = [
            (code, *pair) for tags, code in rows.tagsets.items() if code not in self._tagsets for pair in tags
        ]
        if pairs:
            self.commit("tags", dict(zip(TAGS, map(list, zip(*pairs, strict=True)), strict=True)))
            self._tagsets |= {code for code, *_ in pairs}


def _micros(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def _instant(micros: int) -> datetime:
    return datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000)
