"""How a SQLite file that several processes use is opened."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_creating = threading.Lock()


def create(file: Path) -> None:
    """An empty file that only its owner may read, if there is none.

    One that is there is not touched: a process that closes any descriptor of a file loses its locks on it, those of
    its open databases too (sqlite.org/howtocorrupt.html, 2.2).
    """
    with _creating, suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def prepared(db: sqlite3.Connection, prepare: Callable[[], None], seconds: float) -> None:
    """Who opens a new file together with others may find it locked at once: SQLite does not wait there."""
    until = time.monotonic() + seconds
    while True:
        try:
            return prepare()
        except sqlite3.OperationalError as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)
