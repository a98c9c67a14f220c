"""What an import hands over: batches of usage, the files they came from, the lines that were rejected."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from farthing.usage import Entry, Total, Usage


class Reject(NamedTuple):
    """A line that should be a usage record and cannot be read as one."""

    line: int
    reason: str


@dataclass
class File:
    """A file that has been read: every record of it is in this batch or an earlier one.

    `error` is why it could not be read, or not to its end; what was good before that counts all the same, but
    the file should be read again. A folder or pattern in which nothing was recognised has a File too, with an
    error and no format.
    """

    path: str  # as found: relative if it was given so; bytes that are no text are escaped
    size: int = 0
    mtime_ns: int = 0
    format: str = ""
    read: int = 0  # records: good ones, superseded ones, duplicates, rejected ones
    rejected: int = 0
    rejects: list[Reject] = field(default_factory=list)  # the first 100
    error: str = ""
    digest: str = (
        ""  # names the content: an ETag, or crc32 of the bytes on disk; "" if it was not read to its end
    )


@dataclass
class Batch:
    """Some usage, and what became of the records behind it: read = usages + superseded + duplicates + rejected.

    Collapsed are records that share both ids, where they met in one piece of work; the ledger collapses the
    rest, and adds to `superseded` and `duplicates` what it finds.
    """

    usages: list[Usage] = field(default_factory=list)
    totals: list[Total] = field(default_factory=list)  # control totals, which are no records of calls
    entries: list[Entry] = field(default_factory=list)  # what is no token; no records of calls either
    read: int = 0
    superseded: int = 0  # records that a better one of the same call replaced
    duplicates: int = 0  # records that said nothing new
    rejected: int = 0
    files: list[File] = field(default_factory=list)
    skipped: int = 0  # files met in a folder that have no known format
    unchanged: int = 0  # files that `known` vouched for
    read_until: dict[str, str] = field(
        default_factory=dict
    )  # of the last batch: `read_until` for the next import
