"""A gateway in a thread of this process, on a clock that may be any: for dry runs, demos and tests."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farthing.book import Book
from farthing.gateway import _admin, _serve
from farthing.gateway._settings import Settings

_READY_S = 30


@contextmanager
def running(settings: Settings, book: Book, clock_us: Callable[[], int] | None = None) -> Iterator[str]:
    """Its URL, until the end of the block; calls under way are waited for. SettingError or StoreError before it begins.

    `clock_us` is the time of records, policies and caches; signatures have the machine's.
    """
    _serve.check(settings)
    with (
        contextlib.closing(_serve.listen(settings)) as listening,
        tempfile.TemporaryDirectory(prefix="farthing-gateway-") as shared,
    ):
        gateway = _serve.build(settings, book)
        if clock_us is not None:
            gateway.live.clock_us = clock_us
        gateway.live.autopilots.warmth.wait()  # what is decided shall not hang on how soon it is compiled
        gateway.own = _admin.app(gateway, Path(shared))
        ready = threading.Event()
        server = _Threaded(_serve.configured(gateway), gateway, ready.set, Path(shared))
        failed: list[BaseException] = []

        def serve() -> None:
            try:
                server.run(sockets=[listening])
            except BaseException as error:  # noqa: BLE001 - told below
                failed.append(error)
            finally:
                ready.set()

        thread = threading.Thread(target=serve, name="farthing gateway")
        thread.start()
        try:
            ready.wait(_READY_S)
            if failed:
                raise failed[0]
            yield "http://{}:{}".format(*listening.getsockname()[:2])
        finally:
            gateway.draining = server.should_exit = True
            thread.join()


class _Threaded(_serve.Server):
    """Signals are of the main thread, and no business of this one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[Any]:
        yield
