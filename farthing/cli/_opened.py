"""Trace files for commands: found, here or in a bucket, opened one by one, with what lies beside them; and the key of
their hashes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farthing.aws import Access
    from farthing.traces import Source

MOST_LINE_BYTES = 1 << 30  # a session may be one line


def hashing_key() -> bytes:
    """The user's own secret, where there is one, so that hashes of two runs compare; else one for this run."""
    import platformdirs

    path = Path(platformdirs.user_config_dir("farthing", appauthor=False)) / "pseudonyms.key"
    try:
        return path.read_bytes()
    except OSError:
        return secrets.token_bytes(32)


def sources(path: str, faults: list[str]) -> Iterator[Source]:
    """The files, each opened when it is its turn. What cannot be opened, or ends too early, is a fault.

    A bucket is reached as farthing.toml says, if it is one of its sources; else as AWS's own settings do.
    """
    access, places = reached(path, faults)
    for place in places:
        yield from opened(access, place, faults)


def reached(path: str, faults: list[str]) -> tuple[Access, Iterator[str]]:
    """How to reach the files, and where they are."""
    from farthing.cli._bills import configured
    from farthing.importers._find import Fault, find

    access = configured([path])

    def places() -> Iterator[str]:
        for found in find([path], access):
            if isinstance(found, Fault):
                faults.append(f"{found.path}: {found.reason}")
            else:
                yield found.path

    return access, places()


def opened(access: Access, path: str, faults: list[str]) -> Iterator[Source]:
    """One file while it is open; nothing but a fault if it cannot be opened."""
    from farthing.aws import is_s3, keys, split
    from farthing.importers import _s3
    from farthing.importers._open import Numbered
    from farthing.importers._open import Source as Opened
    from farthing.traces import Source

    try:
        if is_s3(path):
            _s3.use(keys(access, split(path)[0]))
        file = Opened(path)
    except OSError as error:
        faults.append(f"{path}: {error.strerror or error}")
        return
    try:
        head = file.head()
        lines = Numbered(file.chunks(), MOST_LINE_BYTES)
        yield Source(path, head, _until_cut(path, lines, faults), _beside(path))
    finally:
        file.close()


def _until_cut(path: str, lines: Any, faults: list[str]) -> Iterator[tuple[int, bytes]]:
    from farthing.importers._open import Cut

    try:
        yield from lines
    except Cut as cut:
        faults.append(f"{path}: {cut}")


def _beside(path: str) -> Callable[[str], bytes | None]:
    def read(name: str) -> bytes | None:
        from farthing.importers._open import Cut
        from farthing.importers._open import Source as Opened

        try:
            opened = Opened(os.path.join(os.path.dirname(path), name))  # noqa: PTH118, PTH120
            try:
                return b"".join(opened.chunks())
            finally:
                opened.close()
        except (OSError, Cut):
            return None

    return read
