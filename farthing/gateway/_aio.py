"""Syncs that the kernel makes by itself (by caio): no thread is woken, and none waits for Python's lock.

By io_uring, whose workers run on any processor, so that the caller goes on meanwhile; where that is forbidden, as in
many containers, by Linux AIO, whose worker runs where the caller does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from importlib import import_module

Told = Callable[[str], None]  # with what is wrong, "" if nothing is


class Syncs:
    """Of one event loop, one at a time. OSError where there is no such thing, or no more of it (fs.aio-max-nr).

    `beside`: what the caller does meanwhile costs the sync no time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, kind: str) -> None:
        try:
            caio = import_module(f"caio.{kind}")
        except ImportError as error:
            raise OSError(str(error)) from None
        self.loop, self.beside = loop, kind == "linux_uring"
        self.busy = self._begins = False
        self._context, self._operation = caio.Context(max_requests=1), caio.Operation
        loop.add_reader(self._context.fileno, self._ready)

    def begin(self, fd: int, told: Told) -> None:
        """What was written to the file so far is on disk when `told` is called, by the loop. OSError: not begun."""

        def done(answer: int) -> None:
            self.busy = False
            if self._begins:  # it is done at once: but the caller still holds what `told` may need
                self.loop.call_soon(told, fault(answer))
            else:
                told(fault(answer))

        asked = self._operation.fdsync(fd)
        asked.set_callback(done)
        self.busy = self._begins = True
        try:
            if self._context.submit(asked) != 1:
                raise OSError("not taken")
            if self.beside:
                self._context.flush()
        except (OSError, ValueError, SystemError) as error:
            self.busy = False
            raise OSError(str(error)) from None
        finally:
            self._begins = False

    def _ready(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._context.poll()
        while self._context.process_events():
            pass


def fault(answer: int) -> str:
    """What the kernel's -errno says, which caio hands on from AIO without its sign.

    >>> fault(0), fault(-5), fault(2**64 - 5)
    ('', 'Input/output error', 'Input/output error')
    """
    return os.strerror(-answer % 2**64) if answer else ""


def syncs(loop: asyncio.AbstractEventLoop) -> Syncs | None:
    """None where threads have to do it: no Linux, an old kernel, a sandbox."""
    for kind in ("linux_uring", "linux_aio"):
        # caio says SystemError where there are no more files; Windows' loops have no readers
        with contextlib.suppress(OSError, SystemError, NotImplementedError):
            return Syncs(loop, kind)
    return None
