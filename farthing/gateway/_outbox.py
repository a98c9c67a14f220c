"""Writing the outbox (docs/outbox.md): one file a process, each line in one write, on disk by a stated policy.

`call`: an intent is on disk before its request leaves; many that wait together share one `fdatasync`, which the kernel
makes by itself where it can, else a thread. `second`: what was written is on disk within a second. `os`: the kernel
decides. In all of them a line survives the death of the process from the moment it is written; the policies differ in
what a power cut may take.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from farthing.gateway._aio import Syncs, syncs
from farthing.outbox import Record, encode
from farthing.usage import Rejected

Fsync = Literal["call", "second", "os"]
MOST_BYTES = 64 * 1024 * 1024  # of a file, before the next one is begun
MOST_SECONDS = 3600
MOST_WAITING = 100_000  # results that a full disk keeps in memory
_FLUSH_SECONDS = 1.0
_GATHER_SECONDS = 0.001


class OutboxError(Exception):
    """A line could not be made durable: disk full, folder gone."""


class Outbox:
    """The writer of one process. Safe to use from threads; a forked child begins a file of its own.

    OutboxError is raised for intents alone. Results that cannot be written wait for room and are written with the
    next line that can be: until then the call counts as what its intent expected.
    """

    def __init__(self, folder: Path | str, *, fsync: Fsync = "call", name: str = "farthing") -> None:
        self.folder = Path(folder)
        self.fsync = fsync
        self.name = name
        self.waiting: deque[bytes] = deque(maxlen=MOST_WAITING)
        self._begin()
        begin = weakref.WeakMethod(self._begin)
        os.register_at_fork(after_in_child=lambda: (alive := begin()) and alive())

    def _begin(self) -> None:
        """A state without file, thread or lock of another process."""
        self._lock = threading.Lock()
        self._fd = -1
        self._written = self._synced = 0  # bytes, over all files of the process
        self._lost = (0, 0)  # from, to: what a sync that failed may not have brought to the disk
        self._opened_at = 0.0
        self._start = 0  # of the file that is open, in bytes over all files
        self._changed = threading.Condition(self._lock)
        self._waiters: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._thread: threading.Thread | None = None
        self._served: asyncio.AbstractEventLoop | None = (
            None  # the loop for which `_syncs` was made, or tried
        )
        self._syncs: Syncs | None = None
        self._asked: list[asyncio.Future[None]] = []  # who waits for it
        self._closed = False
        self.waiting = deque(maxlen=MOST_WAITING)  # what a parent has not written is the parent's

    # --- writing

    def intent(self, record: Record) -> int:
        """Write it; the position that `durable` or `sync` waits for. OutboxError if there is no room."""
        return self.intents((record,))

    def intents(self, records: Iterable[Record]) -> int:
        """The same with several, in one write: all of them or none."""
        lines = b"".join(map(encode, records))
        with self._lock:
            try:
                self._write(lines)
            except OSError as error:
                raise self._error(error) from None
            return self._written

    def result(self, record: Record) -> None:
        """Write it, or keep it until there is room."""
        self.results((record,))

    def results(self, records: Iterable[Record]) -> None:
        """The same with several, in one write. Rejected, if one is no record, when the others are written."""
        lines, wrong = [], None
        for record in records:
            try:
                lines.append(encode(record))
            except Rejected as error:
                wrong = error
        if lines:
            with self._lock:
                try:
                    self._write(b"".join(lines))
                except OSError:
                    self.waiting.extend(lines)
        if wrong is not None:
            raise wrong

    def _write(self, line: bytes) -> None:
        if self._closed:
            raise OSError("the outbox is closed")
        if self._fd < 0 or self._full() or os.fstat(self._fd).st_nlink == 0:  # its file was removed
            self._open()
        if self.waiting:
            self._append(b"".join(self.waiting))
            self.waiting.clear()
        self._append(line)
        if self.fsync == "second":
            self._wake()

    def _append(self, lines: bytes) -> None:
        """All of it or nothing: a file of ours never has a torn line before others."""
        size = self._written - self._start
        try:
            written = os.write(self._fd, lines)
        except OSError:
            os.ftruncate(self._fd, size)
            raise
        if written != len(lines):
            os.ftruncate(self._fd, size)
            raise OSError(28, "no space left on device")
        self._written += written

    def _full(self) -> bool:
        return (
            self._written - self._start >= MOST_BYTES or time.monotonic() - self._opened_at >= MOST_SECONDS
        ) and self._written > self._start

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        file = self.folder / f"{self.name}-{stamp}-{os.getpid()}-{secrets.token_hex(3)}.jsonl"
        if self._fd >= 0:
            self._sync_file(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._start, self._opened_at = self._written, time.monotonic()
        if self.fsync != "os":
            _sync_folder(self.folder)

    # --- on disk

    def syncing(self, positions: Sequence[int], *, alone: bool = False) -> list[asyncio.Future[None] | None]:
        """To wait for, each until all up to its position is as durable as the policy says: one sync for all has begun.

        None where there is nothing to wait for. OutboxError from a future if the disk refuses.
        `alone`: the loop has nothing else to do, so that it may wait here for a sync that cannot go on beside it.
        """
        if self.fsync != "call":
            return [None] * len(positions)
        loop = asyncio.get_running_loop()
        with self._lock:
            kernel = self._kernel(loop)
            if alone and not (kernel and kernel.beside) and self._synced < max(positions):
                with contextlib.suppress(OSError):  # its bytes are lost then, as is told below
                    self._sync_file(self._fd)
            waiting = [None if self._is_synced(position) else loop.create_future() for position in positions]
            asked = [(position, each) for position, each in zip(positions, waiting, strict=True) if each]
            lost = [each for position, each in asked if self._is_lost(position)]
            asked = [(position, each) for position, each in asked if not self._is_lost(position)]
            if asked and kernel is not None:
                self._asked += [each for _, each in asked]
                self._begin_sync()
            elif asked:
                self._waiters += [(position, loop, each) for position, each in asked]
                self._wake()
        _settle(lost, f"{self.folder}: a sync failed")
        return waiting

    def _is_synced(self, position: int) -> bool:
        return self._synced >= position and not self._is_lost(position)

    def _is_lost(self, position: int) -> bool:
        return self._lost[0] < position <= self._lost[1]

    def _kernel(self, loop: asyncio.AbstractEventLoop) -> Syncs | None:
        """What syncs for this loop without a thread; None: threads do."""
        if self._served is not loop and (self._syncs is None or self._syncs.loop.is_closed()):
            self._served, self._syncs = loop, syncs(loop)
        return self._syncs if self._syncs is not None and self._syncs.loop is loop else None

    def _begin_sync(self) -> None:
        """By the kernel, for all who have asked; those who ask meanwhile share the next one."""
        if self._syncs is None or self._syncs.busy or not self._asked:
            return
        asked, self._asked = self._asked, []
        upto = self._written

        def told(fault: str) -> None:
            with self._lock:
                if fault:
                    asked.extend(self._asked)
                    self._asked = []
                    self._lose()
                else:
                    self._synced = max(self._synced, upto)
                self._begin_sync()
            _settle(asked, f"{self.folder}: {fault}" if fault else "")

        try:
            self._syncs.begin(self._fd, told)
        except OSError:  # threads do it from now on
            self._waiters += [(upto, self._syncs.loop, future) for future in asked]
            self._syncs = None
            self._wake()

    def sync(self, position: int = 0) -> None:
        """The same, for who has no event loop. Without a position: all that was written, whatever the policy."""
        if position and self.fsync != "call":
            return
        with self._lock:
            if position and self._is_lost(position):
                raise OutboxError(f"{self.folder}: a sync failed")
            if self._fd >= 0 and self._synced < (position or self._written):
                try:
                    self._sync_file(self._fd)
                except OSError as error:
                    raise self._error(error) from None

    def _error(self, error: OSError) -> OutboxError:
        return OutboxError(f"{self.folder}: {error.strerror or error}")

    def _sync_file(self, fd: int) -> None:
        if self.fsync != "os":
            upto = self._written
            try:
                os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)
            except OSError:
                self._lose()
                raise
            self._synced = max(self._synced, upto)

    def _lose(self) -> None:
        """A sync failed. Linux says so once, and the next one of the same bytes would succeed: they count as lost."""
        self._lost = self._synced, self._written
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1  # what comes goes into a new file

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._flush, name="farthing-outbox", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _flush(self) -> None:
        """The thread that syncs: for all who wait at once, or once a second."""
        while True:
            with self._lock:
                while not self._closed and not self._waiters and not (
                    self.fsync == "second" and self._synced < self._written
                ):  # fmt: skip
                    self._changed.wait()
                if self._closed and not self._waiters:
                    return
                waiters, self._waiters = self._waiters, []
                upto, fd = self._written, os.dup(self._fd) if self._fd >= 0 else -1
            fault = _synced(fd)
            with self._lock:
                if fault:
                    waiters, self._waiters = waiters + self._waiters, []
                    self._lose()
                else:
                    self._synced = max(self._synced, upto)
            _tell(waiters, f"{self.folder}: {fault}" if fault else "")
            if self.fsync == "second":
                time.sleep(_FLUSH_SECONDS)
            elif (
                len(waiters) > 1
            ):  # under load the next ones come together, too: a sync is for as many as can be
                time.sleep(_GATHER_SECONDS)

    def close(self) -> None:
        """Write what waits, sync and close. Later writes fail."""
        with self._lock:
            if self._closed:
                return
            if self._fd >= 0:
                try:
                    if self.waiting:
                        self._append(b"".join(self.waiting))
                        self.waiting.clear()
                    self._sync_file(self._fd)
                except OSError:
                    pass  # what is not on disk stays open intents, or is in the log
                if self._fd >= 0:
                    os.close(self._fd)
                self._fd = -1
            self._closed = True
            self._changed.notify_all()

    @property
    def writable(self) -> bool:
        """Whether a line could be written now, as far as that can be told without writing one."""
        return not self._closed and not self.waiting and os.access(_existing(self.folder), os.W_OK | os.X_OK)


def _synced(fd: int) -> str:
    """Sync and close it; the fault, if there is one."""
    if fd < 0:
        return ""
    try:
        os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)
    except OSError as error:
        return error.strerror or str(error)
    finally:
        os.close(fd)
    return ""


def _tell(waiters: Iterable[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]], fault: str) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for _, loop, future in waiters:
        by_loop.setdefault(loop, []).append(future)
    for loop, futures in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, futures, fault)


def _settle(futures: Iterable[asyncio.Future[None]], fault: str) -> None:
    for future in futures:
        if not future.done():
            if fault:
                future.set_exception(OutboxError(fault))
            else:
                future.set_result(None)


def _sync_folder(folder: Path) -> None:
    """So that the file's name is on disk, too."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())
