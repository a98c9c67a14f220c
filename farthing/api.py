"""What the command line and Python callers do with usage: read it into records, or import it into a ledger."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from farthing.aws import Access, is_s3
from farthing.book import Book, Unpriced, default_book
from farthing.frames import Frame
from farthing.importers import Batch, File, holds, read_paths
from farthing.ledger import Calls, Ledger, SourceFile, settle_open
from farthing.meters import METERS, Vector
from farthing.rating import find
from farthing.usage import Facts, Usage

DAY_US = 86_400_000_000
SHOWN_REJECTS = 20  # of one file, in the errors of an import


@dataclass
class Imported:
    """What an import did: read = imported + superseded + duplicates + rejected. `imported` counts calls."""

    files: int = 0
    skipped: int = 0
    read: int = 0
    imported: int = 0
    superseded: int = 0
    duplicates: int = 0
    rejected: int = 0
    unpriced: int = 0
    totals: int = 0  # control totals that are new, or other than they were; no part of `read`
    entries: int = 0  # uses of what is no token that are new, or more than was known; no part of `read`
    settled: int = 0  # open intents of a gateway that turned out to be calls of the log; no part of `read`
    errors: list[str] = field(default_factory=list)  # a line each: file, line, what is wrong

    def as_json(self) -> dict[str, int]:
        """The counts; those that are no part of `read` only where there are some."""
        shown = {name: value for name, value in vars(self).items() if name != "errors"}
        return {
            name: value
            for name, value in shown.items()
            if value or name not in ("totals", "entries", "settled")
        }

    def sentence(self) -> str:
        said = [
            f"{self.files:,} files read",
            f"{self.imported:,} calls imported",
            f"{self.superseded:,} records superseded" if self.superseded else "",
            f"{self.duplicates:,} known already" if self.duplicates else "",
            f"{self.rejected:,} rejected" if self.rejected else "",
            f"{self.unpriced:,} without a price" if self.unpriced else "",
            f"{self.totals:,} control totals" if self.totals else "",
            f"{self.entries:,} entries beside tokens" if self.entries else "",
            f"{self.settled:,} open intents found in the log" if self.settled else "",
            f"{self.skipped:,} other files skipped" if self.skipped else "",
        ]
        return ", ".join(filter(None, said))


def import_paths(
    ledger: Ledger,
    paths: Sequence[str | Path],
    *,
    now: datetime,
    forced: str = "",
    profiles: Mapping[str, str] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    access: Access = Access(),  # noqa: B008 - it cannot change
    full: bool = False,
    engine: Any = None,
    meanwhile: Callable[[], None] | None = None,
) -> Imported:
    """Import files, folders, globs and s3:// prefixes ("-" is stdin). What is in the ledger already adds nothing.

    A file that has not changed since it was read without fault is not read again. Interrupted, an import
    loses nothing: what had been committed stays, and the rest is read by the next. `access` is how to reach the
    buckets; `full` lists them from their beginning, and not from some hours before what was read last.
    `engine` is a SparkSession, whose executors parse; what they found is added here. `meanwhile` is called once,
    while other processes parse.
    """
    done = Imported()
    read_until = {} if full or forced else ledger.read_until()
    known = {file.path: file for file in ledger.files(read_until)}
    touched: list[SourceFile] = []  # another time, and the content that was read
    prices = _Prices(profiles or {})

    def unchanged(path: str, size: int, mtime_ns: int, digest: str) -> bool:
        file = known.get(_place(path)) if known else None
        if file is None or file.size != size or file.mtime_ns < 0 or file.rejected:
            return False
        if digest and digest != file.digest:
            return False
        if mtime_ns != file.mtime_ns and not digest:
            if not (file.digest and holds(path, file.digest)):
                return False
            touched.append(file._replace(mtime_ns=mtime_ns))
        done.files += 1
        done.read += file.read
        done.duplicates += file.read
        return True

    batches = read_paths(
        [str(path) for path in paths],
        format=forced,
        now=now,
        workers=workers,
        known=unchanged,
        progress=progress,
        access=access,
        read_until=read_until,
        engine=engine,
        meanwhile=meanwhile,
    )
    for batch in batches:
        _add(ledger, batch, done, prices, now)
        ledger.note_files(touched, now)
        touched.clear()
        if batch.read_until.items() - read_until.items():
            ledger.note_read_until(batch.read_until, now)
    if done.imported or done.superseded:
        done.settled = settle_open(ledger)
    return done


def _place(path: str) -> str:
    """The name a file goes by in the ledger."""
    return path if is_s3(path) else os.path.abspath(path)  # noqa: PTH100 - a tenth of Path's time


def _add(ledger: Ledger, batch: Batch, done: Imported, prices: _Prices, now: datetime) -> None:
    added = ledger.append(batch.usages)
    done.totals += ledger.note_totals(batch.totals, now)
    done.entries += ledger.note_entries(batch.entries, now)
    done.read += batch.read
    done.skipped += batch.skipped
    done.imported += len(added.fresh)
    done.superseded += added.superseded
    done.duplicates += batch.duplicates + added.duplicates
    if added.fresh or added.superseded:
        done.superseded += batch.superseded
    else:  # a copy gave way to a better one, but the ledger had that one already
        done.duplicates += batch.superseded
    done.rejected += batch.rejected
    done.unpriced += prices.lacking(added.fresh)
    for file in batch.files:
        done.files += bool(file.format)
        done.errors += _errors(file)
    ledger.note_files([_noted(file) for file in batch.files if file.format and file.path != "-"], now)


def _noted(file: File) -> SourceFile:
    """The file as the ledger remembers it; one that could not be read to its end never counts as unchanged."""
    reasons = tuple(f"{reject.line}: {reject.reason}" for reject in file.rejects)
    mtime_ns = -1 if file.error else file.mtime_ns
    path = _place(file.path)
    return SourceFile(path, file.size, mtime_ns, file.format, file.read, file.rejected, reasons, file.digest)


def _errors(file: File) -> list[str]:
    shown = file.rejects[:SHOWN_REJECTS]
    lines = [f"{file.path}:{reject.line}: {reject.reason}" for reject in shown]
    if file.rejected > len(lines):
        lines.append(f"{file.path}: and {file.rejected - len(lines):,} more lines rejected")
    # Where reading stopped, the line that was rejected there has the reason.
    told = shown and file.error == f"read no further than line {shown[-1].line}"
    if file.error and not (told and len(shown) == file.rejected):
        lines.append(f"{file.path}: {file.error}")
    return lines


class _Prices:
    """Which records have no price: asked for once a day, for what a price depends on."""

    def __init__(self, profiles: Mapping[str, str], book: Book | None = None) -> None:
        self._book = book  # else the default one, read when first asked: workers are at work by then
        self._profiles = profiles
        self._known: dict[tuple[object, object, int, bool], bool] = {}

    def lacking(self, usages: Sequence[Usage]) -> int:
        """How many of these have none."""
        known, count = self._known, 0
        for usage in usages:
            day = usage.at_us // DAY_US
            for facts, tokens in usage.parts:
                # What Book.place looks at: calls have many more Facts than that.
                box = facts[1:6], facts[7:9], day, tokens[2] + tokens[3] + tokens[4] > 0
                lacks = known.get(box)
                if lacks is None:
                    lacks = known[box] = self._ask(facts, usage, tokens)
                if lacks:
                    count += 1
                    break
        return count

    def _ask(self, facts: Facts, usage: Usage, tokens: Sequence[int]) -> bool:
        book = self._book or default_book()
        resolved = book.place(facts, self._profiles)
        if isinstance(resolved, Unpriced):
            return True
        return isinstance(find(book, resolved.sku, usage.at, Vector(*tokens)), Unpriced)


def read(
    *paths: str | Path,
    forced: str = "",
    now: datetime | None = None,
    errors: Callable[[str], None] | None = None,
    access: Access = Access(),  # noqa: B008 - it cannot change
) -> Frame:
    """Usage files as a frame, one row a part of a call, each call once. No ledger is touched.

    Columns: at_us (a UTC timestamp), the ids, the facts, the five meters. `errors` is told of each line or
    file that could not be read; without it the first one is raised as ValueError.
    """
    calls = Calls()
    places = [str(path) for path in paths]
    for batch in read_paths(places, format=forced, now=now or datetime.now(UTC), access=access):
        for line in (line for file in batch.files for line in _errors(file)):
            if errors is None:
                raise ValueError(line)
            errors(line)
        calls.extend(batch.usages)
    rows = [
        {"at_us": usage.at_us, "request_id": usage.request_id, "message_id": usage.message_id, "part": part}
        | facts._asdict()
        | dict(zip(METERS, tokens, strict=True))
        for usage in calls.best
        for part, (facts, tokens) in enumerate(usage.parts)
    ]
    return Frame(("at_us", "request_id", "message_id", "part", *Facts._fields, *METERS), rows)
