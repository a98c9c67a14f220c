"""One import: files go out as tasks, frames come back in any order and add up to files and batches."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

from farthing.importers._batch import Batch, File, Reject
from farthing.importers._find import Fault, Found, find
from farthing.importers._open import Source
from farthing.importers._pool import Done, here, in_workers
from farthing.importers._task import MOST_REJECTS, End, Range, Task, formats, recognise
from farthing.usage import EPOCH

BATCH_RECORDS = 25_000  # a batch is handed over when it has as many; a frame may add 20,000
SMALL_BYTES = 8 << 20  # less than this is read sooner than a worker has started
TASK_BYTES = 4 << 20
TASK_FILES = 256
SPLIT_BYTES = 32 << 20  # files beyond this are read in ranges, if they are not packed
RANGE_BYTES = 16 << 20
MOST_WORKERS = 8
SKEW = timedelta(days=1)  # how far clocks may be ahead of `now`


def read(
    paths: list[str],
    form: str,
    now: datetime,
    workers: int | None,
    known: Callable[[str, int, int], bool] | None,
    progress: Callable[[int, int], None] | None,
) -> Generator[Batch, None, None]:
    """read_paths."""
    if form and form not in formats():
        raise ValueError(f"no such format: {form} (there are {', '.join(formats())})")
    if workers is None:
        workers = min(len(_processors()), MOST_WORKERS)
    return _Reading(paths, form, now, known, progress).batches(workers)


def _processors() -> Sequence[int] | set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


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
            next((end.error for end in ends if end.error), ""),
        )
        return file, ends[0].unlike


class _Reading:
    def __init__(
        self,
        paths: list[str],
        form: str,
        now: datetime,
        known: Callable[[str, int, int], bool] | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._paths = paths
        self._form = form
        self._latest_us = (now.astimezone(UTC) + SKEW - EPOCH) // timedelta(microseconds=1)
        self._known = known
        self._progress = progress
        self._under_way: dict[int, list[tuple[_Open, int]]] = {}  # by Task.number: files, range starts
        self._streams: list[Found] = []
        self._numbers = 0
        self._recognised: Counter[str] = Counter()  # by folder
        self._looked_at: Counter[str] = Counter()
        self._batch = Batch()
        self._done_bytes = self._all_bytes = 0

    def batches(self, workers: int) -> Generator[Batch, None, None]:
        """Everything, in batches; the last one is never empty of news, for it says what was skipped."""
        if self._progress:
            self._all_bytes = sum(found.size for found in find(self._paths) if isinstance(found, Found))
        for done in self._frames(workers):
            self._take(done)
            if len(self._batch.usages) >= BATCH_RECORDS or len(self._batch.files) >= BATCH_RECORDS:
                yield self._batch
                self._batch = Batch()
        for path in self._paths:
            if Path(path).is_dir() and not self._recognised[path]:
                self._batch.files.append(File(path, error=self._nothing(path)))
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
            if workers < 2 or ahead_bytes >= SMALL_BYTES:
                break
        rest = chain(first, (task for task, _ in tasks))
        if workers < 2 or ahead_bytes < SMALL_BYTES:
            yield from here(rest)
        else:
            yield from in_workers(rest, workers)
        for found in self._streams:
            yield from here(iter([self._task([(Range(found.path, named=True), _Open(found))])]))

    def _tasks(self) -> Iterator[tuple[Task, int]]:
        """The work, with its size on disk: a range of a large file, or some small ones together."""
        group: list[tuple[Range, _Open]] = []
        size = 0
        for found in self._to_read():
            named = not found.folder
            form = self._splittable(found) if found.size > SPLIT_BYTES else ""
            if form:
                starts = range(0, found.size, RANGE_BYTES)
                one = _Open(found, len(starts))
                for start in starts:
                    end = start + RANGE_BYTES if start + RANGE_BYTES < found.size else None
                    yield self._task([(Range(found.path, named, form, start, end), one)]), RANGE_BYTES
                continue
            if group and (size + found.size > TASK_BYTES or len(group) >= TASK_FILES):
                yield self._task(group), size
                group, size = [], 0
            group.append((Range(found.path, named), _Open(found)))
            size += found.size
        if group:
            yield self._task(group), size

    def _task(self, group: list[tuple[Range, _Open]]) -> Task:
        self._numbers += 1
        self._under_way[self._numbers] = [(one, part.start) for part, one in group]
        return Task(self._numbers, [part for part, _ in group], self._form, self._latest_us)

    def _to_read(self) -> Iterator[Found]:
        """The files that are not known already; faults go straight into the batch."""
        for found in find(self._paths):
            if isinstance(found, Fault):
                self._batch.files.append(File(_shown(found.path), error=found.reason))
                self._recognised[found.folder] += 1
            elif found.stream:
                self._streams.append(found)
            elif self._known and self._known(found.path, found.size, found.mtime_ns):
                self._recognised[found.folder] += 1
                self._batch.unchanged += 1
                self._tell(found.size)
            else:
                self._looked_at[found.folder] += 1
                yield found

    def _splittable(self, found: Found) -> str:
        """The format of a file that can be read in ranges: one that is not packed."""
        try:
            source = Source(found.path)
        except OSError:
            return ""  # its task will say so
        try:
            head = source.head()
            return "" if source.packed else recognise(head, self._form)
        except OSError:
            return ""
        finally:
            source.close()

    def _take(self, done: Done) -> None:
        batch, frame = self._batch, done.frame
        batch.usages += frame.usages
        batch.totals += frame.totals
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
        self._batch.files.append(file)

    def _tell(self, size: int) -> None:
        self._done_bytes += size
        if self._progress and size:
            self._progress(min(self._done_bytes, self._all_bytes), self._all_bytes)
