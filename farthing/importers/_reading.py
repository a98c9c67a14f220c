"""One import: files go out as tasks, frames come back in any order and add up to files and batches."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from farthing.aws import Access, AwsError, Keys, is_s3, keys, split
from farthing.importers._batch import Batch, File, Reject
from farthing.importers._begin import WORTH_BYTES, usual_count
from farthing.importers._find import Fault, Found, find, hour_of
from farthing.importers._open import RANGE_BYTES, Source, digest_of, in_lines
from farthing.importers._pool import Done, here, in_workers
from farthing.importers._s3 import use
from farthing.importers._spark import on_spark
from farthing.importers._task import MOST_REJECTS, End, Range, Task, formats, recognise
from farthing.usage import EPOCH

BATCH_RECORDS = 25_000  # a batch is handed over when it has as many; a frame may add 20,000
LAST_RECORDS = 8_000  # once all work is given out: what there is can be written while that is done
SMALL_BYTES = WORTH_BYTES
TASK_BYTES = 4 << 20  # of packed files, which hold three times as much or more
PLAIN_TASK_BYTES = 12 << 20
PACKED = (".gz", ".zst")
TASK_FILES = 256
SPLIT_BYTES = 32 << 20  # files beyond this are read in ranges, if they are not packed
MOST_ALIKE = 3  # files of a prefix that fail for the same reason are told one by one; the others are counted
SKEW = timedelta(days=1)  # how far clocks may be ahead of `now`


Known = Callable[[str, int, int, str], bool]
Progress = Callable[[int, int], None]


class Asked(NamedTuple):
    """What read_paths was given."""

    paths: list[str]
    form: str
    now: datetime
    known: Known | None = None
    progress: Progress | None = None
    access: Access = Access()
    read_until: Mapping[str, str] = {}
    engine: Any = None
    meanwhile: Callable[[], None] | None = None


def read(asked: Asked, workers: int | None) -> Generator[Batch, None, None]:
    """read_paths."""
    if asked.form and asked.form not in formats():
        raise ValueError(f"no such format: {asked.form} (there are {', '.join(formats())})")
    if workers is None:
        workers = usual_count()
    return _Reading(asked).batches(workers)


def _shown(path: str) -> str:
    """The path as text, which not every name of a file is."""
    return os.fsencode(path).decode(errors="backslashreplace")


class _Open:
    """A file under way: its ranges may come back in any order."""

    def __init__(self, found: Found, ranges: int = 1) -> None:
        self.found = found
        self._waiting = ranges
        self._ends: dict[int, End] = {}  # by where they start

    def take(self, start: int, end: End) -> bool:
        """Whether that was the last of them."""
        self._ends[start] = end
        return len(self._ends) == self._waiting

    def file(self) -> tuple[File, str]:
        """The ranges put together, with lines numbered through; and why it has no known format, if so."""
        ends = [end for _, end in sorted(self._ends.items())]
        error = next((end.error for end in ends if end.error), "")
        rejects: list[Reject] = []
        before = 0
        for end in ends:
            rejects += [Reject(before + line, reason) for line, reason in end.rejects]
            before += end.lines
        file = File(
            _shown(self.found.path),
            self.found.size,
            self.found.mtime_ns,
            ends[0].format,
            sum(end.read for end in ends),
            sum(end.rejected for end in ends),
            rejects[:MOST_REJECTS],
            error,
            "" if error else self.found.digest or digest_of([end.crc for end in ends]),
        )
        return file, ends[0].unlike


class _Reading:
    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._paths = asked.paths
        self._form = asked.form
        self._latest_us = (asked.now.astimezone(UTC) + SKEW - EPOCH) // timedelta(microseconds=1)
        self._known = asked.known
        self._progress = asked.progress
        self._listing = _Listing(asked.paths)
        self._held: dict[str, Keys] = {}  # by bucket
        self._under_way: dict[int, list[tuple[_Open, int]]] = {}  # by Task.number: files, range starts
        self._streams: list[Found] = []
        self._numbers = 0
        self._recognised: Counter[str] = Counter()  # by folder
        self._looked_at: Counter[str] = Counter()
        self._alike: Counter[tuple[str, str]] = Counter()  # files not read, by folder and reason
        self._batch = Batch()
        self._enough = BATCH_RECORDS
        self._done_bytes = self._all_bytes = 0

    def batches(self, workers: int) -> Generator[Batch, None, None]:
        """Everything, in batches; the last one is never empty of news, for it says what was skipped."""
        if self._progress:
            local = [
                path for path in self._paths if not is_s3(path)
            ]  # a bucket is listed once, as it is read
            self._all_bytes = sum(found.size for found in find(local) if isinstance(found, Found))
        for done in self._frames(workers):
            self._take(done)
            if len(self._batch.usages) >= self._enough or len(self._batch.files) >= BATCH_RECORDS:
                yield self._batch
                self._batch = Batch()
        for path in self._paths:
            if not self._recognised[path] and (self._looked_at[path] if is_s3(path) else Path(path).is_dir()):
                self._batch.files.append(File(path, error=self._nothing(path)))
        for (folder, reason), count in self._alike.items():
            if count > MOST_ALIKE:
                more = f"{count - MOST_ALIKE:,} more objects: {reason}"
                self._batch.files.append(File(folder, error=more))
        if not self._form:
            self._batch.read_until = self._listing.read_until()
        if self._progress:
            self._progress(self._all_bytes, self._all_bytes)
        yield self._batch

    def _nothing(self, folder: str) -> str:
        count = self._looked_at[folder]
        if not count:
            return "no files in it"
        return f"none of the {count} files in it has a known format ({self._form or ', '.join(formats())})"

    def _frames(self, workers: int) -> Iterator[Done]:
        """Every task's frames. Workers are started once there is enough to do, and pipes are read last."""
        tasks = self._tasks()
        first: list[Task] = []
        ahead_bytes = 0
        for task, size in tasks:
            first.append(task)
            ahead_bytes += size
            if (workers < 2 and not self._asked.engine) or ahead_bytes >= SMALL_BYTES:
                break
        rest = chain(first, (task for task, _ in tasks))
        if self._asked.engine and ahead_bytes >= SMALL_BYTES:
            yield from on_spark(self._asked.engine, rest)
        elif workers < 2 or ahead_bytes < SMALL_BYTES:
            yield from here(rest)
        else:
            yield from in_workers(rest, workers, self._asked.meanwhile)
        for found in self._streams:
            yield from here(iter([self._task([(Range(found.path, named=True), _Open(found))])]))

    def _tasks(self) -> Iterator[tuple[Task, int]]:
        """The work, with its size on disk: a range of a large file, or some small ones of a bucket or disk together."""
        group: list[tuple[Range, _Open]] = []
        size = 0
        bucket = ""
        for found in self._to_read():
            named = not found.folder
            if group and _bucket(found.path) != bucket:
                yield self._task(group), size
                group, size = [], 0
            bucket = _bucket(found.path)
            whole = Range(found.path, named)
            if bucket:
                whole = whole._replace(size=found.size, etag=found.digest)
            form = self._splittable(found) if found.size > SPLIT_BYTES else ""
            if form:
                starts = range(0, found.size, RANGE_BYTES)
                one = _Open(found, len(starts))
                for start in starts:
                    end = start + RANGE_BYTES if start + RANGE_BYTES < found.size else None
                    part = whole._replace(format=form, start=start, end=end)
                    yield self._task([(part, one)]), RANGE_BYTES
                continue
            most = TASK_BYTES if found.path.endswith(PACKED) else PLAIN_TASK_BYTES
            if group and (size + found.size > most or len(group) >= TASK_FILES):
                yield self._task(group), size
                group, size = [], 0
            group.append((whole, _Open(found)))
            size += found.size
        if group:
            yield self._task(group), size
        self._enough = min(LAST_RECORDS, BATCH_RECORDS)

    def _task(self, group: list[tuple[Range, _Open]]) -> Task:
        self._numbers += 1
        self._under_way[self._numbers] = [(one, part.start) for part, one in group]
        ranges = [part for part, _ in group]
        return Task(self._numbers, ranges, self._form, self._latest_us, self._keys(ranges[0].path))

    def _keys(self, path: str) -> Keys | None:
        """Asked for anew for each task, so that no worker holds any that have run out."""
        bucket = _bucket(path)
        with suppress(
            AwsError
        ):  # they were good for the listing: if they no longer are, S3 says so of each object
            if bucket:
                self._held[bucket] = keys(self._asked.access, bucket)
        return self._held.get(bucket)

    def _to_read(self) -> Iterator[Found]:
        """The files that are not known already; faults go straight into the batch."""
        for found in find(self._paths, self._asked.access, self._asked.read_until):
            self._listing.add(found)
            if isinstance(found, Fault):
                self._batch.files.append(File(_shown(found.path), error=found.reason))
                self._recognised[found.folder] += 1
                continue
            if found.digest:
                self._all_bytes += found.size
            if found.stream:
                self._streams.append(found)
            elif self._known and self._known(found.path, found.size, found.mtime_ns, found.digest):
                self._recognised[found.folder] += 1
                self._batch.unchanged += 1
                self._tell(found.size)
            else:
                self._looked_at[found.folder] += 1
                yield found

    def _splittable(self, found: Found) -> str:
        """The format of a file that can be read in ranges: one that is not packed, and no document over many lines."""
        try:
            use(self._keys(found.path))
            source = Source(found.path)
        except OSError:
            return ""  # its task will say so
        try:
            head = source.head()
            return "" if source.packed or not in_lines(head) else recognise(head, self._form)
        except OSError:
            return ""
        finally:
            source.close()

    def _take(self, done: Done) -> None:
        batch, frame = self._batch, done.frame
        batch.usages += frame.usages
        batch.totals += frame.totals
        batch.entries += frame.entries
        batch.read += frame.read
        batch.superseded += frame.superseded
        batch.duplicates += frame.duplicates
        batch.rejected += frame.rejected
        files = self._under_way[done.task.number]
        for end in frame.ends:
            one, start = files[end.place]
            if one.take(start, end):
                self._finish(one)
        if done.last:
            del self._under_way[done.task.number]
        self._tell(frame.taken)

    def _finish(self, one: _Open) -> None:
        file, unlike = one.file()
        folder = one.found.folder
        if unlike and folder:
            self._batch.skipped += 1
            return
        self._recognised[folder] += 1
        if unlike:
            file.error = unlike
        if file.error:
            self._listing.fault(one.found)
        if one.found.digest and file.error and not file.format:
            self._alike[folder, file.error] += 1
            if self._alike[folder, file.error] > MOST_ALIKE:
                return
        self._batch.files.append(file)

    def _tell(self, size: int) -> None:
        self._done_bytes += size
        if self._progress and size:
            self._progress(min(self._done_bytes, self._all_bytes), self._all_bytes)


def _bucket(path: str) -> str:
    return split(path)[0] if is_s3(path) else ""


class _Listing:
    """How far each series of a bucket has been read: up to its last hour, or to the first with a file that failed."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = {path: path if path.endswith("/") else f"{path}/" for path in paths if is_s3(path)}
        self._last: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._broken: set[str] = set()  # paths that were not listed to their end

    def add(self, found: Found | Fault) -> None:
        if isinstance(found, Fault):
            self._broken.add(found.path)
        elif found.folder and found.digest:
            series, hour = hour_of(found.path)
            if hour:
                self._last[series] = max(hour, self._last.get(series, ""))

    def fault(self, found: Found) -> None:
        series, hour = hour_of(found.path)
        if hour:
            self._failed[series] = min(hour, self._failed.get(series, hour))

    def read_until(self) -> dict[str, str]:
        """By series, those only that were listed from their beginning, or from where they had been read to."""
        whole = tuple(folder for path, folder in self._paths.items() if path not in self._broken)
        return {
            series: min(hour, self._failed.get(series, hour))
            for series, hour in self._last.items()
            if series.startswith(whole)
        }
