"""Tasks to worker processes and their frames back, in whatever order they come.

Workers are programs of their own, started with subprocess: a caller needs no `__main__` guard, and may have
threads. Callbacks and walking stay in the caller's thread; a thread of ours per worker only carries frames.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, cast

from farthing.importers._begin import end, start
from farthing.importers._task import End, Frame, Task, run
from farthing.importers._wire import HELLO, pack_task, receive, send, unpack_frame

TASKS_AHEAD = 16  # for each worker, while the caller writes what it has
AHEAD_BYTES = 4_000  # of a task that waits in a worker's pipe: any has room for these
FRAMES_WAITING = 64  # for a caller that is slower than the workers, which then wait at their pipes


class _Answer(NamedTuple):
    """A frame as it came; with no data, the task is done, or its worker has ended with that status."""

    task: Task
    data: bytes = b""
    status: int | None = None


class Done(NamedTuple):
    """A frame of a task; `last` if no other follows."""

    task: Task
    frame: Frame
    last: bool


def here(tasks: Iterator[Task]) -> Iterator[Done]:
    """Run the tasks in this process."""
    for task in tasks:
        for frame in run(task):
            yield Done(task, frame, last=False)
        yield Done(task, NOTHING, last=True)


def in_workers(
    tasks: Iterator[Task], count: int, meanwhile: Callable[[], None] | None = None
) -> Iterator[Done]:
    """Run the tasks in `count` processes; in this one if they cannot be started.

    `meanwhile` is called once the workers have something to do.
    """
    pool = _Pool(count)
    try:
        yield from pool.run(tasks, meanwhile) if pool.places else here(tasks)
    finally:
        pool.close()


class _Pool:
    def __init__(self, count: int) -> None:
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._answers: queue.Queue[_Answer] = queue.Queue(FRAMES_WAITING)
        self._closed = threading.Event()
        self._workers = [worker for worker in [start() for _ in range(count)] if worker]  # all start at once
        self.places = [place for place, worker in enumerate(self._workers) if _greets(worker)]
        self._threads = [threading.Thread(target=self._serve, args=(at,), daemon=True) for at in self.places]
        for thread in self._threads:
            thread.start()

    def run(self, tasks: Iterator[Task], meanwhile: Callable[[], None] | None) -> Iterator[Done]:
        """Keep every worker busy, and some tasks waiting for it."""
        under_way = 0
        more = True
        ended: dict[int, set[int]] = {}  # by task: the places of its files that have been read
        while more or under_way:
            while more and under_way < TASKS_AHEAD * len(self.places):
                task = next(tasks, None)
                if task is None:
                    more = False
                else:
                    self._tasks.put(task)
                    under_way += 1
            if meanwhile:
                meanwhile()
                meanwhile = None
            if under_way:
                task, data, status = self._answers.get()
                if data:
                    frame = unpack_frame(data)
                    ended.setdefault(task.number, set()).update(end.place for end in frame.ends)
                else:
                    places = ended.pop(task.number, set())
                    frame = NOTHING if status is None else _failed(task, places, status)
                    under_way -= 1
                yield Done(task, frame, last=not data)

    def close(self) -> None:
        """End the workers, whatever they are doing: what they have not handed over was not counted."""
        self._closed.set()
        for _ in self._threads:
            self._tasks.put(None)
        while any(thread.is_alive() for thread in self._threads):
            for worker in list(self._workers):
                worker.kill()
            try:
                self._answers.get(timeout=0.001)  # a thread may be waiting to put
            except queue.Empty:
                continue
        for worker in self._workers:
            end(worker)

    def _serve(self, place: int) -> None:
        """Frames of one worker after the other: one that dies is replaced, and the files it was at say so."""
        alive = True
        ahead: Task | None = None
        while (task := ahead or self._tasks.get()) is not None and not self._closed.is_set():
            worker = self._workers[place]
            told, ahead = ahead is not None, None
            data: bytes | None = None
            try:
                if alive:
                    if not told:
                        send(_in(worker), pack_task(task))
                    ahead = self._told_ahead(worker)
                    while data := receive(_out(worker)):
                        self._answers.put(_Answer(task, data))
            except Exception:  # noqa: BLE001 - whatever it is, the caller must not wait for ever
                data = None
            if data is not None:
                self._answers.put(_Answer(task))
                continue
            if ahead:  # it never began with that
                self._tasks.put(ahead)
                ahead = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(timeout=1)  # for its status
            end(worker)
            self._answers.put(_Answer(task, status=worker.returncode))
            fresh = None if self._closed.is_set() else start()
            if fresh:
                self._workers[place] = fresh
            alive = fresh is not None and _greets(fresh)

    def _told_ahead(self, worker: subprocess.Popen[bytes]) -> Task | None:
        """A task that the worker has been told of beside the one it is at, if there are others for the others.

        So it need not wait for this process, which has more to do, between the two. It reads nothing until then.
        """
        if self._tasks.qsize() <= len(self.places):
            return None
        try:
            task = self._tasks.get_nowait()
        except queue.Empty:  # others were quicker
            return None
        told = False
        try:
            data = pack_task(task) if task else b""
            if 0 < len(data) <= AHEAD_BYTES:
                send(_in(worker), data)
                told = True
        finally:
            if not told:
                self._tasks.put(task)
        return task if told else None


NOTHING = Frame([], 0, 0, 0, 0, [], [], [], 0)


def _failed(task: Task, ended: set[int], status: int) -> Frame:
    """A worker has died (killed for its memory, most likely). Its files say so, and the next import reads them."""
    why = f"the process that read it ended early (status {status}): import it again"
    ends = [End(place, error=why) for place in range(len(task.ranges)) if place not in ended]
    return NOTHING._replace(ends=ends)


def _greets(worker: subprocess.Popen[bytes]) -> bool:
    return receive(_out(worker)) == HELLO


def _in(worker: subprocess.Popen[bytes]) -> BinaryIO:
    return cast("BinaryIO", worker.stdin)


def _out(worker: subprocess.Popen[bytes]) -> BinaryIO:
    return cast("BinaryIO", worker.stdout)
