"""Who works on a queue: one runner and one sender at a time, told by a lock that ends with its holder's life."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

RUNNER_LOCK = "runner.lock"


@contextlib.contextmanager
def only(file: Path, how: int = fcntl.LOCK_EX) -> Iterator[bool]:
    """Whether this process is the one, for the length of the block. Killed, it is so no longer."""
    held = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(held, how | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(held)


def is_held(file: Path) -> bool:
    with only(file, fcntl.LOCK_SH) as free:  # shared with who else asks
        return not free
