"""The queue of requests that may wait: a SQLite file which only its owner may read.

What `accept` has returned from is on disk, whatever happens next. A request's body is kept until it is answered, its
answer until it is collected; what is deleted is overwritten.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from farthing.gateway._batch_clock import Anchor, anchor, boot_id
from farthing.gateway._sqlite import create, prepared

WAITING, PLACED, SYNC, SENDING, DONE, FAILED = "waiting", "placed", "sync", "sending", "done", "failed"
OPEN = (WAITING, PLACED, SYNC, SENDING)
PLANNED, READY, CREATED, ENDED = "planned", "ready", "created", "ended"  # jobs; then collected, or dissolved
COLLECTED, DISSOLVED = "collected", "dissolved"
LIVE_JOBS = (PLANNED, READY, CREATED, ENDED)
PROMISED, HELD = (
    "fb-",
    "fh-",
)  # how a gateway's ids begin: its client was told where to ask, or waits on the line
VERSION = 1
BUSY_S = 60.0  # to wait for another process
_TABLES = """
CREATE TABLE IF NOT EXISTS requests (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, platform TEXT NOT NULL, model TEXT NOT NULL,
    kind TEXT NOT NULL, accepted_us INTEGER NOT NULL, deadline_us INTEGER NOT NULL, digest TEXT NOT NULL,
    size INTEGER NOT NULL, body BLOB, who BLOB NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    job TEXT, attempt TEXT UNIQUE, intent BLOB, tries INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0, later_us INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0,
    output BLOB, error TEXT NOT NULL DEFAULT '', mode TEXT NOT NULL DEFAULT '', picos INTEGER, done_us INTEGER
);
CREATE INDEX IF NOT EXISTS by_state ON requests (state, deadline_us);
CREATE INDEX IF NOT EXISTS by_job ON requests (job);
CREATE INDEX IF NOT EXISTS by_digest ON requests (digest);
CREATE TABLE IF NOT EXISTS jobs (
    name TEXT PRIMARY KEY, platform TEXT NOT NULL, model TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
    remote TEXT NOT NULL DEFAULT '', records INTEGER NOT NULL, made_us INTEGER NOT NULL,
    tried INTEGER NOT NULL DEFAULT 0, created_us INTEGER NOT NULL DEFAULT 0, ended_us INTEGER NOT NULL DEFAULT 0,
    next_us INTEGER NOT NULL DEFAULT 0, faults INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0,
    stopping INTEGER NOT NULL DEFAULT 0, status TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class QueueError(Exception):
    """The queue cannot be used: one line with the mend."""


class Group(NamedTuple):
    """Requests that may share a job; `kind` is the operation whose bodies they have."""

    platform: str
    model: str
    kind: str


class New(NamedTuple):
    """A request to accept. `reason`, if there is one, says why it is sent by itself and not in a batch."""

    id: str
    group: Group
    body: bytes
    deadline_us: int
    who: bytes = b"{}"
    reason: str = ""
    digest: str = ""  # of what it asks, however that is written


def digest(group: Group, canonical: bytes) -> str:
    return sha256(b"\0".join((*map(str.encode, group), canonical))).hexdigest()


class Row(NamedTuple):
    """An open request without its body."""

    id: str
    group: Group
    accepted_us: int
    deadline_us: int
    size: int
    later_us: int = 0

    @property
    def is_held(self) -> bool:
        """Whether a client waits for it on an open line."""
        return self.id.startswith(HELD)


class Held(NamedTuple):
    """A request that is sent: with what it is sent, and what is known of its attempt."""

    id: str
    group: Group
    deadline_us: int
    body: bytes
    who: bytes
    attempt: str
    intent: bytes
    tries: int
    failures: int
    cancelled: int
    reason: str = ""


class Job(NamedTuple):
    """`tried`: when it was begun, if it was; nobody has noted its answer before it has a `remote` name."""

    name: str
    group: Group
    state: str
    remote: str
    records: int
    made_us: int
    tried: int
    created_us: int
    ended_us: int
    next_us: int
    faults: int
    done: int
    stopping: int
    status: str
    message: str


class End(NamedTuple):
    """What became of a request. `picos` is None where nobody knows."""

    id: str
    deadline_us: int
    state: str
    output: bytes
    error: str
    mode: str
    picos: int | None
    done_us: int
    reason: str
    model: str

    @property
    def is_held(self) -> bool:
        return self.id.startswith(HELD)

    @property
    def late(self) -> bool:
        return self.done_us > self.deadline_us


_JOB = (
    "name, platform, model, kind, state, remote, records, made_us, tried, created_us, ended_us, next_us, faults, "
    "done, stopping, status, message"
)
_HELD = (
    "id, platform, model, kind, deadline_us, body, who, coalesce(attempt, ''), coalesce(intent, x''), tries, "
    "failures, cancelled, reason"
)
_END = (
    "id, deadline_us, state, coalesce(output, x''), error, mode, picos, coalesce(done_us, 0), reason, model"
)


class Queue:
    """Safe for threads and processes. `speed` counts only where the queue is new."""

    def __init__(self, folder: Path | str, *, speed: int = 1) -> None:
        self.folder = Path(folder)
        self._lock = threading.RLock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = self.folder / "queue.sqlite"
            create(file)
            self._db = sqlite3.connect(file, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            prepared(self._db, lambda: self._prepare(speed), BUSY_S)
        except (OSError, sqlite3.Error) as error:
            raise QueueError(f"{self.folder}: no queue can be kept there: {error}") from error

    def _prepare(self, speed: int) -> None:
        for said in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
            self._db.execute(f"PRAGMA {said}")
        with self.change():
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            self._check_version()
            self.clock = self._anchor(speed)

    def _check_version(self) -> None:
        version = self.meta("version") or str(VERSION)
        if version != str(VERSION):
            raise QueueError(
                f"{self.folder}: a queue of version {version}; this farthing has {VERSION}: update it"
            )
        self.set_meta("version", version)

    def _anchor(self, speed: int) -> Anchor:
        said = self.meta("clock")
        known = msgspec.json.decode(said, type=Anchor) if said else None
        if known is None or known.boot != boot_id():
            known = anchor(speed, known)
            self.set_meta("clock", msgspec.json.encode(known).decode())
        return known

    def now_us(self) -> int:
        if self.clock.speed != 1:  # a test's clock, which goes more slowly where the machine does
            self.clock = self._anchor(1)
        return self.clock.now_us()

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; on disk when the block is left."""
        with self._lock:
            if self._db.in_transaction:  # within another's
                yield self._db
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def meta(self, key: str) -> str:
        found = self.rows("SELECT value FROM meta WHERE key = ?", (key,))
        return str(found[0][0]) if found else ""

    def set_meta(self, key: str, value: str) -> None:
        with self.change() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # --- what comes in

    def accept(self, news: Iterable[New]) -> tuple[int, int, list[str]]:
        """(accepted, known already, ids that another request has). On disk when it returns."""
        accepted = known = 0
        clashes: list[str] = []
        with self.change() as db:
            now = self.now_us()
            for new in news:
                found = db.execute("SELECT digest FROM requests WHERE id = ?", (new.id,)).fetchone()
                if found:
                    same = found[0] == new.digest
                    known += same
                    clashes += [] if same else [new.id]
                    continue
                db.execute(
                    "INSERT INTO requests (id, platform, model, kind, accepted_us, deadline_us, digest, size, body, "
                    "who, state, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (new.id, *new.group, now, new.deadline_us, new.digest, len(new.body), new.body, new.who,
                     SYNC if new.reason else WAITING, new.reason),
                )  # fmt: skip
                accepted += 1
        return accepted, known, clashes

    def cancel(self, ids: Iterable[str] | None = None) -> int:
        """None: everything. What waits is over at once, what is in a job when the job has been stopped."""
        with self.change() as db:
            now, count = self.now_us(), 0
            chosen = [row[0] for row in self.rows(f"SELECT id FROM requests WHERE state IN {OPEN}")]
            if ids is not None:
                chosen = sorted(set(ids) & set(chosen))
            for name in chosen:
                db.execute("UPDATE requests SET cancelled = 1 WHERE id = ?", (name,))
                count += db.execute(
                    "UPDATE requests SET state = ?, error = 'cancelled', body = NULL, done_us = ? "
                    f"WHERE id = ? AND state IN {(WAITING, SYNC)}",
                    (FAILED, now, name),
                ).rowcount
            return len(chosen)

    # --- what waits, and what is sent

    def waiting(self) -> list[Row]:
        """By deadline."""
        found = self.rows(
            "SELECT id, platform, model, kind, accepted_us, deadline_us, size, later_us FROM requests "
            "WHERE state = ? ORDER BY deadline_us, seq",
            (WAITING,),
        )
        return [Row(row[0], Group(*row[1:4]), *row[4:]) for row in found]

    def to_send(self, most: int) -> list[Held]:
        """Requests that go by themselves and may go now, by deadline."""
        return self._held(
            "state = ? AND later_us <= ? ORDER BY deadline_us, seq LIMIT ?", SYNC, self.now_us(), most
        )

    def of_job(self, name: str) -> list[Held]:
        """Those that have no result yet, in the order in which they are sent."""
        return self._held("job = ? AND state = ? ORDER BY deadline_us, seq", name, PLACED)

    def sending(self) -> list[Held]:
        return self._held("state = ?", SENDING)

    def _held(self, where: str, *values: Any) -> list[Held]:
        found = self.rows(f"SELECT {_HELD} FROM requests WHERE {where}", values)
        return [Held._make((row[0], Group(*row[1:4]), *row[4:])) for row in found]

    def jobs(self, *states: str) -> list[Job]:
        marks = ", ".join("?" * len(states))
        found = self.rows(f"SELECT {_JOB} FROM jobs WHERE state IN ({marks}) ORDER BY made_us, name", states)
        return [Job._make((row[0], Group(*row[1:4]), *row[4:])) for row in found]

    def place(self, name: str, group: Group, attempts: Sequence[tuple[str, str]]) -> None:
        """A job is planned, of requests that wait: (id, the id of its attempt) each. From here on it is not planned
        again."""
        with self.change() as db:
            taken = sum(
                db.execute(
                    "UPDATE requests SET state = ?, job = ?, attempt = ?, intent = NULL, tries = tries + 1 "
                    "WHERE id = ? AND state = ?",
                    (PLACED, name, attempt, request, WAITING),
                ).rowcount
                for request, attempt in attempts
            )
            db.execute(
                "INSERT INTO jobs (name, platform, model, kind, state, records, made_us) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (name, *group, PLANNED, taken, self.now_us()),
            )

    def set_job(self, name: str, **values: Any) -> None:
        names = ", ".join(f"{key} = ?" for key in values)
        with self.change() as db:
            db.execute(f"UPDATE jobs SET {names} WHERE name = ?", (*values.values(), name))

    def set_request(self, name: str, **values: Any) -> None:
        names = ", ".join(f"{key} = ?" for key in values)
        with self.change() as db:
            db.execute(f"UPDATE requests SET {names} WHERE id = ?", (*values.values(), name))

    def to_sync(self, ids: Iterable[str], reason: str) -> None:
        with self.change() as db:
            db.executemany(
                "UPDATE requests SET state = ?, reason = ?, job = NULL WHERE id = ? AND state = ?",
                [(SYNC, reason, name, WAITING) for name in ids],
            )

    def back(
        self, held: Held, reason: str, *, failed: bool = False, state: str = WAITING, later_us: int = 0
    ) -> None:
        """It waits again, without an attempt; unless it was cancelled meanwhile."""
        with self.change():
            if self.rows("SELECT 1 FROM requests WHERE id = ? AND cancelled = 1", (held.id,)):
                self.finish(held, error="cancelled", mode="")
                return
            self.set_request(
                held.id, state=state, job=None, attempt=None, intent=None, later_us=later_us, reason=reason,
                failures=held.failures + failed,
            )  # fmt: skip

    def finish(
        self, held: Held, *, output: bytes = b"", error: str = "", mode: str, picos: int | None = 0
    ) -> None:
        """Its body goes; its answer stays until it is collected."""
        self.set_request(
            held.id, state=FAILED if error else DONE, output=output or None, error=error[:2000], mode=mode,
            picos=picos, body=None, done_us=self.now_us(),
        )  # fmt: skip

    # --- what comes out

    def ends(self, ids: Sequence[str] | None = None) -> list[End]:
        """Of those that are over, in the order in which they came; not more than these ids."""
        found = self.rows(f"SELECT {_END} FROM requests WHERE state IN (?, ?) ORDER BY seq", (DONE, FAILED))
        wanted = None if ids is None else set(ids)
        return [End(*row) for row in found if wanted is None or row[0] in wanted]

    def end(self, name: str) -> tuple[str, bytes, End] | None:
        """(state, who asked, how it ended or stands) of one request; None if it is not there."""
        found = self.rows(f"SELECT state, who, {_END} FROM requests WHERE id = ?", (name,))
        return (found[0][0], found[0][1], End(*found[0][2:])) if found else None

    def forget(self, ids: Iterable[str]) -> None:
        """What is collected. Its jobs go with the last of their requests, but for what they taught of durations."""
        with self.change() as db:
            db.executemany(
                f"DELETE FROM requests WHERE id = ? AND state IN {(DONE, FAILED)}", [(name,) for name in ids]
            )
        with contextlib.suppress(sqlite3.Error):  # a reader is in the way: the next one does it
            self.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    def forget_old(self, prefix: str, before_us: int) -> None:
        """Those that begin so, and were over before that."""
        found = self.rows(
            "SELECT id FROM requests WHERE state IN (?, ?) AND id >= ? AND id < ? AND done_us < ?",
            (DONE, FAILED, prefix, f"{prefix}\x7f", before_us),
        )
        if found:
            self.forget(row[0] for row in found)

    def same(self, digest: str, prefix: str) -> list[str]:
        """Ids that begin so, of requests that ask the same; the oldest first."""
        found = self.rows("SELECT id FROM requests WHERE digest = ? ORDER BY seq", (digest,))
        return [row[0] for row in found if row[0].startswith(prefix)]

    def withdraw(self, name: str) -> None:
        """Who asked is gone. What is in a job already may be paid: it stays, for who asks again."""
        with self.change() as db:
            db.execute("DELETE FROM requests WHERE id = ? AND state = ?", (name, WAITING))

    def counts(self) -> dict[str, int]:
        return dict(self.rows("SELECT state, count(*) FROM requests GROUP BY state"))
