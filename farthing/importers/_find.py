"""Paths to files: what is named, what a pattern matches, what a folder or an s3:// prefix holds however deep."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from farthing.aws import SCHEME, Access, AwsError, Object, is_s3, objects, split

OVERLAP = timedelta(hours=6)  # that objects may come late: so much of what is known is listed again


class Found(NamedTuple):
    """A file to be read. `digest` names its content, where that is known before it is read."""

    path: str
    size: int
    mtime_ns: int
    folder: str  # the folder given, of which it is a part; "" if it was named, or matched a pattern
    stream: bool  # standard input or a pipe: of unknown size, and read once
    digest: str = ""


class Fault(NamedTuple):
    """Something given, or met on the way, that cannot be opened."""

    path: str
    reason: str
    folder: str = ""


def find(
    paths: Sequence[str],
    access: Access = Access(),  # noqa: B008 - it cannot change
    read_until: Mapping[str, str] | None = None,
) -> Iterator[Found | Fault]:
    """Every file of these paths. Of a folder all regular files count, hidden ones too, in the order of names.

    Of each series of `read_until` (see `hour_of`), only what is not much older than its hour is listed.
    """
    for path in paths:
        if path == "-":
            yield Found("-", 0, 0, "", stream=True)
        elif is_s3(path):
            try:
                yield from _in_bucket(path, access, read_until or {})
            except AwsError as error:
                yield Fault(path, str(error), path)
        elif not os.path.lexists(path) and glob.has_magic(path):
            yield from _matching(path)
        else:
            yield from _named(path)


def _matching(pattern: str) -> Iterator[Found | Fault]:
    """What the pattern names, each once, by whatever links. Where it goes into folders itself, they are not walked."""
    matches = sorted(glob.glob(pattern, recursive=True, include_hidden=True))  # noqa: PTH207 - it may have any root
    seen = set()
    for match in matches:
        real = os.path.realpath(match)
        if real not in seen and not ("**" in pattern and Path(match).is_dir()):
            seen.add(real)
            yield from _named(match)
    if not seen:
        yield Fault(pattern, "the pattern matches no file")


def _named(path: str) -> Iterator[Found | Fault]:
    try:
        status = Path(path).stat()
    except OSError as error:
        yield Fault(path, _why(path, error))
        return
    if stat.S_ISDIR(status.st_mode):
        yield from _walk(path, status)
    else:
        regular = stat.S_ISREG(status.st_mode)
        yield Found(path, status.st_size, status.st_mtime_ns, "", stream=not regular)


def _walk(top: str, status: os.stat_result) -> Iterator[Found | Fault]:
    """The folder's files. A folder reached by a link is entered once, so loops end."""
    seen = {(status.st_dev, status.st_ino)}
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            yield Fault(folder, _why(folder, error), top)
            continue
        inner = []
        for entry in entries:
            try:
                status = entry.stat()
            except OSError:  # a link to nothing, or a file that has gone since
                continue
            if stat.S_ISDIR(status.st_mode):
                key = (status.st_dev, status.st_ino)
                if not entry.is_symlink() or key not in seen:
                    inner.append(entry.path)
                seen.add(key)
            elif stat.S_ISREG(status.st_mode):  # opening a pipe or a device could wait forever
                yield Found(entry.path, status.st_size, status.st_mtime_ns, top, stream=False)
        waiting.extend(reversed(inner))


def _why(path: str, error: OSError) -> str:
    if "://" in path:
        return "no local path, and no s3:// one: copy it here first"
    return error.strerror or type(error).__name__


# --- in a bucket ----------------------------------------------------------------------------------

_HOUR = re.compile(r"(.*/)?(20\d\d/[01]\d/[0-3]\d/[0-2]\d)/")
_MAGIC = re.compile(r"[*?]")
# Bodies that were too large for their records, which name them; and what Bedrock tries its permission with.
_NO_LOG = re.compile(r"/\d\d/data/[^/]+\Z|amazon-bedrock-logs-permission-check\Z")


def hour_of(path: str) -> tuple[str, str]:
    """The series that an object belongs to, and its hour in it; empty if its key has no hour.

    >>> hour_of("s3://logs/AWSLogs/111122223333/BedrockModelInvocationLogs/eu-west-1/2026/11/22/05/a.json.gz")
    ('s3://logs/AWSLogs/111122223333/BedrockModelInvocationLogs/eu-west-1/', '2026/11/22/05')
    """
    match = _HOUR.match(path)
    return (match[1] or "", match[2]) if match else ("", "")


def _in_bucket(url: str, access: Access, read_until: Mapping[str, str]) -> Iterator[Found | Fault]:
    """The objects below a prefix, which ends where a name does; or the one of this name, or those a pattern matches."""
    bucket, name = split(url)
    magic = _MAGIC.search(name)
    if magic:
        below = name[: name.rfind("/", 0, magic.start()) + 1]
    else:
        below = f"{name}/" if name and not name.endswith("/") else name
    fits = _pattern(name) if magic else re.compile("")
    met = False
    for one in _each(access, bucket, below, read_until):
        if one.size and fits.match(one.key) and not _NO_LOG.search(one.key):
            met = True
            yield _found(bucket, one, "" if magic else url)
    if met or any(series.startswith(f"{SCHEME}{bucket}/{below}") for series in read_until):
        return
    first = None if magic or not name else next(objects(access, bucket, name), None)
    if first and first.key == name:
        yield _found(bucket, first, "")
    elif magic:
        yield Fault(url, "the pattern matches no object")
    else:
        yield Fault(
            url, "no objects below this prefix: check it (aws s3 ls), and that logs are delivered", url
        )


def _found(bucket: str, one: Object, folder: str) -> Found:
    return Found(f"{SCHEME}{bucket}/{one.key}", one.size, 0, folder, stream=False, digest=one.etag)


def _each(access: Access, bucket: str, prefix: str, read_until: Mapping[str, str]) -> Iterator[Object]:
    """The objects in the order of keys. Where a series begins that was read up to an hour, listing jumps there."""
    after = ""
    again = True
    while again:
        again = False
        for one in objects(access, bucket, prefix, after):
            series, hour = hour_of(f"{SCHEME}{bucket}/{one.key}")
            start = split(series + _earlier(read_until[series]))[1] if hour and series in read_until else ""
            if one.key < start:
                after, again = start, True
                break
            yield one


def _earlier(hour: str) -> str:
    """The hour from which a series is listed that was read until this one."""
    return f"{datetime.strptime(hour, '%Y/%m/%d/%H') - OVERLAP:%Y/%m/%d/%H}"  # noqa: DTZ007 - it is text again


def _pattern(pattern: str) -> re.Pattern[str]:
    """A pattern over keys, as of files: a star stays in one name, two do not. What is below a match matches."""
    parts = re.split(r"(\*\*/?|\*|\?)", pattern)
    said = {"**": ".*", "**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(said.get(part, re.escape(part)) for part in parts) + r"(?:/.*)?\Z")
