"""Trace files for commands: found, here or in a bucket, opened one by one, with what lies beside them; and the key of
their hashes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from farthing.aws import is_s3, keys, split
    from farthing.cli._bills import configured
    from farthing.importers import _s3
    from farthing.importers._find import Fault, find
    from farthing.importers._open import Numbered
    from farthing.importers._open import Source as Opened
    from farthing.traces import Source

    access = configured([path])
    for found in find([path], access):
        if isinstance(found, Fault):
            faults.append(f"{found.path}: {found.reason}")
            continue
        try:
            if is_s3(found.path):
                _s3.use(keys(access, split(found.path)[0]))
            opened = Opened(found.path)
        except OSError as error:
            faults.append(f"{found.path}: {error.strerror or error}")
            continue
        try:
            head = opened.head()
            lines = Numbered(opened.chunks(), MOST_LINE_BYTES)
            yield Source(found.path, head, _until_cut(found.path, lines, faults), _beside(found.path))
        finally:
            opened.close()


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
