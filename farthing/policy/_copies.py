"""Copies of calls that were put to another model while its entry is in shadow: what they cost and how they ended.

One SQLite file beside the policy file, so that several processes keep to one budget. No text is in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from farthing.policy._file import Entry, PolicyError

_WAIT_S = 30


class Copied(NamedTuple):
    """One copy, beside the call that it is of. Of what is not known there is None.

    `held` counts against the budget until `picos` is known. `alike_picos` is what the copy would have come to with as
    much of it in the cache as of the call. Scores are from 0 to 1, `length` is of the answer's text, in characters.
    """

    id: str  # of the copy's own call in the outbox
    entry: str
    use: str
    at_us: int
    held: int
    status: str = ""  # "" once it was answered; else why it was not
    picos: int | None = None
    alike_picos: int | None = None
    called_picos: int | None = None
    prompt: int | None = None
    called_prompt: int | None = None
    output: int | None = None
    called_output: int | None = None
    ms: int | None = None
    called_ms: int | None = None
    stop: str = ""
    called_stop: str = ""
    length: int | None = None
    called_length: int | None = None
    score: float | None = None
    called_score: float | None = None


_KINDS = {"score": "REAL", "called_score": "REAL"} | dict.fromkeys(
    ("id", "entry", "use", "status", "stop", "called_stop"), "TEXT"
)
_COLUMNS = ", ".join(f"{name} {_KINDS.get(name, 'INTEGER')}" for name in Copied._fields)
_SPENT = "SELECT coalesce(sum(coalesce(picos, held)), 0) FROM copies WHERE entry = ? AND use = ?"


def copies_path(policy: Path | str) -> Path:
    """Beside the policy file."""
    file = Path(policy)
    return file.with_name(f"{file.stem}.shadow.db")


class Copies:
    """Opened for each access: a few in a minute. PolicyError where the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def hold(self, copy: Copied, budget: int) -> bool:
        """Before it is sent; False where the budget would not suffice for all that it may cost."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            spent = db.execute(_SPENT, (copy.entry, copy.use)).fetchone()[0]
            if spent + copy.held <= budget:
                db.execute(f"INSERT INTO copies VALUES ({', '.join('?' * len(copy))})", copy)
            db.execute("COMMIT")
            return bool(spent + copy.held <= budget)

    def done(self, copy: Copied) -> None:
        with self._open() as db:
            db.execute(f"REPLACE INTO copies VALUES ({', '.join('?' * len(copy))})", copy)

    def of(self, entry: Entry) -> list[Copied]:
        """In the order in which they were sent; none where there is no file."""
        if not self.path.exists():
            return []
        with self._open() as db:
            found = db.execute(
                "SELECT * FROM copies WHERE entry = ? AND use = ? ORDER BY at_us, id", (entry.name, entry.use)
            )
            return [Copied(*row) for row in found]

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None)) as db:
                db.execute(f"CREATE TABLE IF NOT EXISTS copies ({_COLUMNS}, PRIMARY KEY (id))")
                yield db
        except sqlite3.Error as error:
            mend = "if it is none of ours, move it away"
            raise PolicyError(f"{self.path}: {error}: {mend}") from error
