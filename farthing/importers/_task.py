"""A task is some files, or a range of one: opened, recognised, read, checked, and gathered into frames.

It runs the same in the calling process and in a worker.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from farthing.aws import Keys
from farthing.importers._batch import Reject
from farthing.importers._open import Cut, Numbered, Source, flawed
from farthing.importers._read import Format, reason
from farthing.importers._s3 import bodies, use
from farthing.usage import MAX_TOKENS, Entry, Rejected, Total, Usage, check_region

FRAME_RECORDS = 20_000
MOST = 2**63  # beyond it a number has no place in the ledger's rows
MOST_MS = 2**40  # that a call may have taken
MOST_REJECTS = 100  # of one file are told one by one; all are counted
FIRST_US = 1_672_531_200_000_000  # 2023-01-01: no call to Claude is older


class Range(NamedTuple):
    """A file, or the lines of it that begin from `start` on and before `end`. A known format is not asked for."""

    path: str
    named: bool = False  # not met in a folder, so a forced format is tried even if it does not know the file
    format: str = ""
    start: int = 0
    end: int | None = None
    size: int = 0  # of an object of S3, with the ETag of what was listed
    etag: str = ""


class Task(NamedTuple):
    """`forced` is the only format that may be found, or ""; `latest_us` is the last time a record may have.

    `keys` open the bucket that all of its files are in, if they are in one.
    """

    number: int
    ranges: list[Range]
    forced: str
    latest_us: int
    keys: Keys | None = None


class End(NamedTuple):
    """A range has been read: all its usage has been handed over."""

    place: int  # in Task.ranges
    format: str = ""
    lines: int = 0
    read: int = 0
    rejected: int = 0
    rejects: tuple[Reject, ...] = ()
    error: str = ""  # why it was not read, or not to its end
    unlike: str = ""  # why it has no known format
    crc: int = 0  # of its bytes as they lie on the disk


class Frame(NamedTuple):
    """Usage, collapsed, and the ends met since the frame before it."""

    usages: list[Usage]
    read: int
    superseded: int
    duplicates: int
    rejected: int
    ends: list[End]
    totals: list[Total]
    entries: list[Entry]
    taken: int  # bytes read from disk


class _Formats(Mapping[str, Format]):
    """The files of this folder without an underscore in front, each loaded when it is first asked for."""

    def __init__(self) -> None:
        here = [str(Path(__file__).parent)]
        self._names = sorted(found.name for found in pkgutil.iter_modules(here) if found.name[0] != "_")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> Format:
        if name not in self._names:
            raise KeyError(name)
        return cast("Format", importlib.import_module(f"{__package__ or 'farthing.importers'}.{name}"))


@cache
def formats() -> Mapping[str, Format]:
    """Every format by its name. Most imports need few of them."""
    return _Formats()


def recognise(head: bytes, forced: str = "", like: str = "") -> str:
    """The format of a file that begins so, "" if none is known. The one it is most `like`ly to have is tried first."""
    if like and not forced and formats()[like].sniff(head):
        return like
    return next((name for name in ([forced] if forced else formats()) if formats()[name].sniff(head)), "")


def run(task: Task) -> Iterator[Frame]:
    """The task's frames; the last one holds its last End."""
    gather = _Gather(task.latest_us)
    use(task.keys)
    files = bodies(task.ranges) if task.keys else repeat(None)
    for place, (part, file) in enumerate(zip(task.ranges, files, strict=False)):
        try:
            yield from _read(gather, part, place, task.forced, file)
        except Exception as fault:  # noqa: BLE001 - in sniff(), or ours: it costs a file, not the import
            gather.ends.append(End(place, error=f"a fault of the importer: {type(fault).__name__}: {fault}"))
    yield gather.frame()


def _read(
    gather: _Gather, part: Range, place: int, forced: str, opened: BinaryIO | OSError | None
) -> Iterator[Frame]:
    try:
        if isinstance(opened, OSError):
            raise opened
        file = Source(part.path, part.start, part.end, opened)
    except OSError as fault:
        gather.ends.append(End(place, error=fault.strerror or str(fault)))
        return
    try:
        lines = Numbered(file.chunks())
        gather.begin(lines)
        name = part.format
        error = ""
        taken = 0
        try:
            if not name:
                name, error = _recognised(file, forced, gather.format, named=part.named)
            if not name:
                gather.taken += file.taken
                lost = file.cut and not file.head()  # it may have been a log: that is not for skipping
                gather.ends.append(End(place, error=error) if lost else End(place, unlike=error))
                return
            gather.format = name
            for _ in gather.all(formats()[name], part.path):
                gather.taken += file.taken - taken
                taken = file.taken
                yield gather.frame()
            if gather.found:
                error = ""
            if not lines.finished:
                error = f"the importer read no further than line {lines.number}"
        except Cut as cut:
            gather.reject(Reject(lines.number + 1, str(cut)))
            error = f"read no further than line {lines.number + 1}"
        except OSError as fault:
            gather.reject(Reject(lines.number + 1, f"reading stopped: {fault.strerror or fault}"))
            error = f"read no further than line {lines.number + 1}"
        gather.taken += file.taken - taken
        gather.end(place, name, error, file.crc)
    finally:
        file.close()


def _recognised(file: Source, forced: str, like: str, *, named: bool) -> tuple[str, str]:
    """The format of an open file, or "" and why it has none. A forced one may stand without being recognised."""
    head = file.head()
    name = recognise(head, forced, like)
    if name:
        return name, ""
    other = recognise(head) if forced else ""
    if other:
        return "", f"it is no {forced}: it looks like {other}; leave out the format, or name that one"
    flaw = flawed(head, file.cut)
    if flaw:
        return "", flaw
    if forced and named:
        return forced, f"no line of it is a {forced} record"  # unless one is
    return "", f"it looks like no format known here ({', '.join(formats())})"


class _Gather:
    """Counts and checks what formats yield, and keeps the best record of each set of ids.

    A call is written once for each block of its answer, or delivered twice: those records share both ids, and
    are collapsed here, before they cost more. Calls that share only one id are the ledger's to compare.
    """

    def __init__(self, latest_us: int) -> None:
        self._latest_us = latest_us
        self._regions: set[str] = set()
        self.format = ""  # of the last file
        self.ends: list[End] = []
        self.taken = 0
        self._seen = 0  # since the beginning, unlike all else
        self._seen_before = 0
        self._reset()

    def _reset(self) -> None:
        self._best: list[Usage] = []
        self._totals: list[Total] = []
        self._entries: list[Entry] = []
        self._places: dict[tuple[str, str, str, str], int] = {}  # by ids and account
        self._superseded = self._duplicates = self._rejected = 0
        self._seen_before = self._seen

    def frame(self) -> Frame:
        """What has been gathered since the last frame."""
        frame = Frame(
            self._best,
            self._seen - self._seen_before + self._rejected,
            self._superseded,
            self._duplicates,
            self._rejected,
            self.ends,
            self._totals,
            self._entries,
            self.taken,
        )
        self.ends = []
        self.taken = 0
        self._reset()
        return frame

    def begin(self, lines: Numbered) -> None:
        self._lines = lines
        self._file_begins = self._seen
        self._file_rejected = self._file_others = 0
        self._rejects: list[Reject] = []

    def end(self, place: int, name: str, error: str, crc: int) -> None:
        for number in self._lines.long:
            self.reject(Reject(number, "a line over 64 MiB"))
        self._rejects.sort()
        read = self._seen - self._file_begins + self._file_rejected
        lines = self._lines.number
        self.ends.append(
            End(
                place,
                name,
                lines,
                read,
                self._file_rejected,
                tuple(self._rejects[:MOST_REJECTS]),
                error,
                crc=crc,
            )
        )

    @property
    def found(self) -> bool:
        """Whether the file had a good record."""
        return self._seen > self._file_begins or self._file_others > 0

    def _sound(self, total: Total) -> bool:
        """Whether a total can be; it is rejected otherwise."""
        in_time = FIRST_US <= total.start_us <= min(self._latest_us, total.end_us)
        if in_time and total.end_us < MOST and 0 <= total.value < MOST:
            return True
        why = (
            "a total is negative" if total.value < 0
            else "a total is more than there can be" if total.value >= MOST
            else "a total of a time that cannot be"
        )  # fmt: skip
        self.reject(Reject(self._lines.number, why))
        return False

    def _add_entry(self, entry: Entry) -> None:
        if not FIRST_US <= entry.at_us <= self._latest_us:
            self.reject(Reject(self._lines.number, "an entry of a time that cannot be"))
        elif not 0 <= entry.quantity <= MAX_TOKENS:
            self.reject(Reject(self._lines.number, f"a quantity that cannot be ({entry.quantity})"))
        else:
            self._file_others += 1
            self._entries.append(entry)

    def reject(self, reject: Reject) -> None:
        self._rejected += 1
        self._file_rejected += 1
        if len(self._rejects) < 2 * MOST_REJECTS:
            self._rejects.append(reject)

    def all(self, form: Format, path: str) -> Iterator[None]:
        """Go through the lines; each stop is a full frame."""
        while True:
            try:
                yield from self._some(form, path)
            except (Cut, OSError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 - the promise of Format: it costs a line, not a file
                self.reject(Reject(self._lines.number, reason(error)))
            else:
                return

    def _some(self, form: Format, path: str) -> Iterator[None]:
        lines, regions, latest_us = self._lines, self._regions, self._latest_us
        best, places = self._best, self._places
        for item in form.read(lines, path):
            if not isinstance(item, Usage):
                if isinstance(item, Reject):
                    self.reject(item)
                elif isinstance(item, Entry):
                    self._add_entry(item)
                elif self._sound(item):
                    self._file_others += 1
                    self._totals.append(item)
                continue
            usage = item
            at_us, request_id, message_id, parts, _, took_ms, sidechain, gateway_id, _ = usage
            if took_ms is not None and not 0 <= took_ms < MOST_MS:
                usage = usage._replace(latency_ms=None)  # the call counts; how long it took is not known
            # The usual record has one part and nothing wrong; _check looks closer at all others.
            facts, tokens = parts[0]
            if not (
                FIRST_US <= at_us <= latest_us
                and len(parts) == 1
                and facts[4] in regions
                and min(tokens) >= 0
                and sum(tokens) <= MAX_TOKENS
            ):
                try:
                    self._check(usage)
                except Rejected as fault:
                    self.reject(Reject(lines.number, reason(fault)))
                    continue
            self._seen += 1
            fresh = len(best)
            place = places.setdefault((request_id, message_id, gateway_id, facts[5]), fresh)
            if place == fresh or best[place][6] is not sidechain:
                best.append(usage)  # of a call and its copy on a side chain the ledger makes one
                if fresh == FRAME_RECORDS:
                    yield
                    best, places = self._best, self._places  # of the next frame
            elif _better(usage, best[place]):
                best[place] = usage
                self._superseded += 1
            else:
                self._duplicates += 1

    def _check(self, usage: Usage) -> None:
        """Rejected if it is impossible, whichever format it came from."""
        if usage.at_us > self._latest_us:
            raise Rejected(f"its time is in the future ({_date(usage)})")
        if usage.at_us < FIRST_US:
            raise Rejected(f"its time is before any call to Claude ({_date(usage)})")
        for facts, tokens in usage.parts:
            if min(tokens) < 0:
                raise Rejected("a count is negative")
            if sum(tokens) > MAX_TOKENS:
                raise Rejected(f"more tokens than one call can have ({sum(tokens)})")
            if facts.region not in self._regions:
                self._regions.add(check_region(facts.region))


def _date(usage: Usage) -> str:
    try:
        return f"{usage.at:%Y-%m-%d}"
    except OverflowError:
        return f"{usage.at_us} microseconds from 1970"


def _better(new: Usage, old: Usage) -> bool:
    """ledger.better, sooner for the copies that differ in counts or not at all."""
    parts, old_parts = new[3], old[3]
    facts, tokens = parts[0]
    old_facts, old_tokens = old_parts[0]
    if facts is not old_facts or len(parts) + len(old_parts) != 2:
        from farthing.ledger import better  # most workers never need it, and it takes half of their start

        return better(new, old)
    if tokens == old_tokens:
        return new[0] < old[0]
    return (tokens[1], sum(tokens), tokens) > (old_tokens[1], sum(old_tokens), old_tokens)
