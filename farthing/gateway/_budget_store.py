"""Where budgets are kept: one SQL for SQLite and PostgreSQL. Only how to connect, lock and give up differs.

A transaction takes a lock on the call's hold first and then on the windows in the order of their names, so that no two
wait for each other. Amounts are text, since picodollars of a year outgrow 64 bits.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from farthing.gateway._budget_rules import Part
from farthing.gateway._budget_types import Change, StoreError
from farthing.gateway._sqlite import prepared

VERSION = 1
BUSY_S = 2.0  # to wait for another process, or for a server
THREADS = 8  # that wait for a network at once


class Hold(msgspec.Struct, array_like=True):
    """What a call holds in one window. `counted` is in what is spent already: of a hold that nobody came back to."""

    budget: str
    value: str
    start_us: int
    unit: str
    amount: int
    counted: int = 0

    @property
    def part(self) -> Part:
        return self.budget, self.value, self.start_us


class Sums(NamedTuple):
    """Of a window. `told` is the highest mark that was told."""

    spent: int = 0
    held: int = 0
    told: int = 0


_decode = msgspec.json.Decoder(list[Hold]).decode
_encode = msgspec.json.Encoder().encode

_TABLES = (
    """CREATE TABLE IF NOT EXISTS budget_windows (budget TEXT NOT NULL, value TEXT NOT NULL, start_us BIGINT NOT NULL,
    spent TEXT NOT NULL, held TEXT NOT NULL, told INTEGER NOT NULL, PRIMARY KEY (budget, value, start_us))""",
    "CREATE TABLE IF NOT EXISTS budget_holds (call_id TEXT PRIMARY KEY, until_us BIGINT NOT NULL, parts TEXT NOT NULL)",
    # Of calls that expired or were voided: what came to their windows, should an answer come after all.
    "CREATE TABLE IF NOT EXISTS budget_late (call_id TEXT PRIMARY KEY, until_us BIGINT NOT NULL, parts TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS budget_version (version INTEGER PRIMARY KEY)",
)
_INDEX = "CREATE INDEX IF NOT EXISTS budget_audit_until ON budget_audit (action, until_us)"
_AUDIT = (
    "CREATE TABLE IF NOT EXISTS budget_audit (id {} PRIMARY KEY, at_us BIGINT NOT NULL, who TEXT NOT NULL,"
    " action TEXT NOT NULL, budget TEXT NOT NULL, value TEXT, amount TEXT NOT NULL, until_us BIGINT NOT NULL,"
    " reason TEXT NOT NULL)"
)
_GUARD = (
    "CREATE TRIGGER IF NOT EXISTS budget_audit_{0} BEFORE {0} ON budget_audit"
    " BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END"
)
_PG_GUARD = """
CREATE OR REPLACE FUNCTION budget_audit_guard() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit is only added to'; END $$;
CREATE OR REPLACE TRIGGER budget_audit_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON budget_audit
EXECUTE FUNCTION budget_audit_guard();
"""
_WINDOW = "SELECT spent, held, told FROM budget_windows WHERE budget = ? AND value = ? AND start_us = ?"
_SET = (
    "INSERT INTO budget_windows (budget, value, start_us, spent, held, told) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (budget, value, start_us)"
    " DO UPDATE SET spent = excluded.spent, held = excluded.held, told = excluded.told"
)
_NEW = (
    "INSERT INTO budget_windows (budget, value, start_us, spent, held, told) VALUES (?, ?, ?, '0', '0', 0)"
    " ON CONFLICT DO NOTHING"
)
_HOLD = "INSERT INTO budget_holds (call_id, until_us, parts) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_LATE = (
    "INSERT INTO budget_late (call_id, until_us, parts) VALUES (?, ?, ?)"
    " ON CONFLICT (call_id) DO UPDATE SET until_us = excluded.until_us, parts = excluded.parts"
)
_AUDITED = (
    "INSERT INTO budget_audit (at_us, who, action, budget, value, amount, until_us, reason)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_CHANGES = "SELECT at_us, who, action, budget, value, amount, until_us, reason FROM budget_audit"
_RAISES = f"{_CHANGES} WHERE action = 'raise' AND until_us > ? ORDER BY id"

Execute = Callable[..., Any]


class Store(Protocol):
    """`waits` tells that an answer takes a network's time."""

    waits: bool

    def transaction(self, *, reads: bool = False) -> Any:
        """A context that gives a Work: all of it is done, or with an exception none. StoreError if it cannot be.

        One that only `reads` keeps nobody waiting.
        """

    def close(self) -> None: ...


class Work:
    """What can be done in a transaction. Windows are written at its end, however many calls changed them."""

    def __init__(self, execute: Execute, *, locks: bool) -> None:
        self._do, self._locks = execute, locks
        self._window = f"{_WINDOW} FOR UPDATE" if locks else _WINDOW
        self._changed: dict[Part, Sums] = {}

    def sums(self, part: Part) -> Sums:
        """Of a window, which nobody else changes until the transaction ends."""
        return self._changed.get(part) or self._sums(part)

    def _sums(self, part: Part) -> Sums:
        row = self._do(self._window, part).fetchone()
        if row is None and self._locks:  # a row that is not there cannot be locked
            self._do(_NEW, part)
            row = self._do(self._window, part).fetchone()
        return Sums(int(row[0]), int(row[1]), row[2]) if row else Sums()

    def set(self, part: Part, sums: Sums) -> None:
        self._changed[part] = sums

    def write(self) -> None:
        """The windows that were changed."""
        for part, sums in self._changed.items():
            self._do(_SET, (*part, str(sums.spent), str(sums.held), sums.told))
        self._changed.clear()

    def hold(self, call_id: str, until_us: int, holds: Sequence[Hold]) -> bool:
        """False if the call holds already."""
        return bool(self._do(_HOLD, (call_id, until_us, _encode(holds).decode())).rowcount)

    def release(self, call_id: str, expired_us: int | None = None) -> list[Hold] | None:
        """What the call holds, taken from it; with `expired_us` only if it was not renewed beyond that."""
        sql = "DELETE FROM budget_holds WHERE call_id = ? RETURNING parts"
        if expired_us is None:
            return _holds(self._do(sql, (call_id,)).fetchall())
        sql = "DELETE FROM budget_holds WHERE call_id = ? AND until_us < ? RETURNING parts"
        return _holds(self._do(sql, (call_id, expired_us)).fetchall())

    def late(self, call_id: str, at_us: int, holds: Sequence[Hold]) -> None:
        self._do(_LATE, (call_id, at_us, _encode(holds).decode()))

    def release_late(self, call_id: str) -> list[Hold] | None:
        return _holds(
            self._do("DELETE FROM budget_late WHERE call_id = ? RETURNING parts", (call_id,)).fetchall()
        )

    def renew(self, call_id: str, until_us: int) -> bool:
        sql = "UPDATE budget_holds SET until_us = ? WHERE call_id = ?"
        return bool(self._do(sql, (until_us, call_id)).rowcount)

    def overdue(self, now_us: int, most: int) -> list[str]:
        sql = "SELECT call_id FROM budget_holds WHERE until_us < ? ORDER BY until_us LIMIT ?"
        return [row[0] for row in self._do(sql, (now_us, most)).fetchall()]

    def open(self) -> list[Hold]:
        """Every hold there is."""
        return [
            hold for row in self._do("SELECT parts FROM budget_holds").fetchall() for hold in _decode(row[0])
        ]

    def values(self, budget: str, start_us: int) -> list[tuple[str, Sums]]:
        self.write()
        sql = "SELECT value, spent, held, told FROM budget_windows WHERE budget = ? AND start_us = ? ORDER BY value"
        rows = self._do(sql, (budget, start_us)).fetchall()
        return [(row[0], Sums(int(row[1]), int(row[2]), row[3])) for row in rows]

    def forget(self, budgets: Sequence[str], before_us: int) -> None:
        """Windows of these budgets in which nothing is held."""
        self.write()
        for budget in budgets:
            sql = "DELETE FROM budget_windows WHERE budget = ? AND start_us < ? AND held = '0'"
            self._do(sql, (budget, before_us))

    def forget_late(self, before_us: int) -> None:
        self._do("DELETE FROM budget_late WHERE until_us < ?", (before_us,))

    def audit(self, change: Change) -> None:
        self._do(_AUDITED, (*change[:5], str(change.amount), change.until_us, change.reason))

    def changes(self) -> list[Change]:
        return _changes(self._do(f"{_CHANGES} ORDER BY id").fetchall())

    def raises(self, now_us: int) -> list[Change]:
        """Those that are not over."""
        return _changes(self._do(_RAISES, (now_us,)).fetchall())


def _changes(rows: list[tuple[Any, ...]]) -> list[Change]:
    return [Change(*row)._replace(amount=int(row[5])) for row in rows]


def _holds(rows: list[tuple[str]]) -> list[Hold] | None:
    return _decode(rows[0][0]) if rows else None


# --- SQLite ----------------------------------------------------------------------------------------------------------


_open: weakref.WeakSet[Sqlite] = weakref.WeakSet()
_at_fork: list[threading.Lock] = []


def _before_fork() -> None:
    """No fork in the middle of a transaction: SQLite would hold its file's lock in the child for ever."""
    _at_fork.extend(store.lock for store in _open)
    for lock in _at_fork:
        lock.acquire()


def _after_fork() -> None:
    while _at_fork:
        _at_fork.pop().release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class Sqlite:
    """A file, for every process of one host. A transaction takes some ten microseconds; writers take turns."""

    waits = False

    def __init__(self, path: Path) -> None:
        self._path, self.lock = path, threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            prepared(self._db, self._prepare, BUSY_S)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path}: no budget store can be opened there: {error}") from error
        _open.add(self)

    def _prepare(self) -> None:
        do = self._db.execute
        do("PRAGMA page_size = 1024")  # a transaction writes whole pages: small ones are half the time
        do("PRAGMA journal_mode = WAL")
        do("PRAGMA synchronous = NORMAL")  # synced by the checkpoints: so much can a power cut take back
        do("PRAGMA wal_autocheckpoint = 4000")
        do("BEGIN IMMEDIATE")
        for table in _TABLES:
            do(table + " WITHOUT ROWID")
        do(_AUDIT.format("INTEGER"))
        do(_INDEX)
        for verb in ("UPDATE", "DELETE"):
            do(_GUARD.format(verb))
        _check_version(do, str(self._path))
        do("COMMIT")

    @contextmanager
    def transaction(self, *, reads: bool = False) -> Iterator[Work]:
        with self.lock:
            try:
                self._db.execute("BEGIN" if reads else "BEGIN IMMEDIATE")
                work = Work(self._db.execute, locks=False)
                yield work
                work.write()
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo()
                raise StoreError(f"{self._path}: {error}") from error
            except BaseException:
                self._undo()
                raise

    def _undo(self) -> None:
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def close(self) -> None:
        with self.lock:
            self._db.close()


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


class Postgres:
    """A server, for several hosts. Each thread has a connection of its own, made anew when it broke."""

    waits = True

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise StoreError("a PostgreSQL store needs psycopg: pip install 'farthing[postgres]'") from error
        self._psycopg, self._url = psycopg, url
        self._own = threading.local()
        self._all: list[Any] = []
        try:
            with psycopg.connect(url, autocommit=False, connect_timeout=int(BUSY_S)) as db:  # one transaction
                self._prepare(lambda sql, values=None: db.execute(sql.replace("?", "%s"), values))
        except psycopg.Error as error:
            raise StoreError(f"the PostgreSQL budget store: {_line(error)}") from error

    def _prepare(self, do: Execute) -> None:
        do("SELECT pg_advisory_xact_lock(762305821)")  # two that begin at once would make a table twice
        for table in _TABLES:
            do(table)
        do(_AUDIT.format("BIGINT GENERATED ALWAYS AS IDENTITY"))
        do(_INDEX)
        do(_PG_GUARD)
        _check_version(do, "the PostgreSQL budget store")

    def _connection(self) -> Any:
        found = getattr(self._own, "db", None)
        if found is None or found.closed:
            wait_ms = int(BUSY_S * 1000)
            found = self._own.db = self._psycopg.connect(
                self._url, autocommit=True, connect_timeout=int(BUSY_S), tcp_user_timeout=wait_ms
            )
            found.execute(f"SET statement_timeout = {wait_ms}")
            self._all = [*(db for db in self._all if not db.closed), found]
        return found

    @contextmanager
    def transaction(self, *, reads: bool = False) -> Iterator[Work]:
        try:
            db = self._connection()
            with db.transaction():
                work = Work(lambda sql, values=None: db.execute(sql.replace("?", "%s"), values), locks=True)
                yield work
                work.write()
        except self._psycopg.Error as error:
            raise StoreError(f"the PostgreSQL budget store: {_line(error)}") from error

    def close(self) -> None:
        for db in self._all:
            db.close()


def _line(error: Exception) -> str:
    """One line, and never the address, which may hold a password."""
    return " ".join(str(error).split())[:300]


def _check_version(do: Execute, place: str) -> None:
    do("INSERT INTO budget_version (version) VALUES (?) ON CONFLICT DO NOTHING", (VERSION,))
    (newest,) = do("SELECT max(version) FROM budget_version").fetchone()
    if newest > VERSION:
        raise StoreError(f"{place} is of version {newest}; this farthing writes {VERSION}: update it")


def open_store(url: str) -> Store:
    """SQLite by a path, PostgreSQL by its address."""
    return Postgres(url) if url.startswith(("postgresql://", "postgres://")) else Sqlite(Path(url))


def threads() -> ThreadPoolExecutor:
    """For a store that waits."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="farthing-budgets")
