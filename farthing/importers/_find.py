"""Paths to files: what is named, what a pattern matches, what a folder holds however deep."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple


class Found(NamedTuple):
    """A file to be read."""

    path: str
    size: int
    mtime_ns: int
    folder: str  # the folder given, of which it is a part; "" if it was named, or matched a pattern
    stream: bool  # standard input or a pipe: of unknown size, and read once


class Fault(NamedTuple):
    """Something given, or met on the way, that cannot be opened."""

    path: str
    reason: str
    folder: str = ""


def find(paths: Sequence[str]) -> Iterator[Found | Fault]:
    """Every file of these paths. Of a folder all regular files count, hidden ones too, in the order of names."""
    for path in paths:
        if path == "-":
            yield Found("-", 0, 0, "", stream=True)
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
        return "no local path: copy it here first (`aws s3 sync`)"
    return error.strerror or type(error).__name__
