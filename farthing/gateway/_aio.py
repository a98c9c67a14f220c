"""Syncs that the kernel makes by itself (Linux AIO, by caio): no thread is woken, and none waits for Python's lock."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

Told = Callable[[str], None]  # with what is wrong, "" if nothing is


class Syncs:
    """Of one event loop, one at a time. OSError where there is no such thing, or no more of it (fs.aio-max-nr)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            from caio.linux_aio import Context, Operation
        except ImportError as error:
            raise OSError(str(error)) from None
        self.loop, self.busy = loop, False
        self._context, self._operation = Context(max_requests=1), Operation
        loop.add_reader(self._context.fileno, self._ready)

    def begin(self, fd: int, told: Told) -> None:
        """What was written to the file so far is on disk when `told` is called, by the loop. OSError: not begun."""

        def done(answer: int) -> None:
            self.busy = False
            told(fault(answer))

        asked = self._operation.fdsync(fd)
        asked.set_callback(done)
        try:
            if self._context.submit(asked) != 1:
                raise OSError("not taken")
        except ValueError as error:
            raise OSError(str(error)) from None
        self.busy = True

    def _ready(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._context.poll()
        while self._context.process_events():
            pass


def fault(answer: int) -> str:
    """What the kernel's -errno says, unsigned as caio hands it on.

    >>> fault(0), fault(2**64 - 5)
    ('', 'Input/output error')
    """
    return os.strerror(2**64 - answer) if answer else ""


def syncs(loop: asyncio.AbstractEventLoop) -> Syncs | None:
    """None where threads have to do it: no Linux, an old kernel, a sandbox."""
    try:
        return Syncs(loop)
    except (OSError, NotImplementedError):  # a loop without readers (Windows)
        return None
