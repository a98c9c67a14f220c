"""Starting the server and ending it: a socket, signals, and the line that says where it listens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from farthing.web.app import Web


class ServeError(ValueError):
    """It cannot listen there: one line with the mend."""


def serve(web: Web, listening: socket.socket, ready: Callable[[str], None], certificate: Path | None = None,
          private_key: Path | None = None) -> int:  # fmt: skip
    """Until SIGTERM or SIGINT; the exit code. `ready` is told the URL once it can be called."""
    scheme = "https" if certificate else "http"
    name, number = listening.getsockname()[:2]
    url = f"{scheme}://{f'[{name}]' if ':' in name else name}:{number}"
    config = uvicorn.Config(
        web.app(), ws="none", lifespan="off", log_config=None, log_level="critical", access_log=False,
        server_header=False, proxy_headers=False, timeout_graceful_shutdown=3,
        ssl_certfile=certificate, ssl_keyfile=private_key,
    )  # fmt: skip
    _Server(config, web, lambda: ready(url)).run(sockets=[listening])
    return 0


def line_of(url: str) -> str:
    return json.dumps({"listening": url})


class _Server(uvicorn.Server):
    """uvicorn's, which says when it is ready, and ends with exit code 0."""

    def __init__(self, config: uvicorn.Config, web: Web, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.web, self.ready = web, ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        yield

    def _end(self) -> None:
        """Streams are told; asked twice, it does not wait."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self.web.ending.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            threading.Thread(target=self.web.books.warm, daemon=True).start()
            self.ready()


def listen(host: str, port: int) -> socket.socket:
    """ServeError if it cannot: to be asked before anything that takes long."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(512)
    except (OSError, OverflowError) as error:
        made.close()
        why = getattr(error, "strerror", None) or error
        raise ServeError(f"{host}:{port}: {why}; --port 0 takes any that is free") from None
    return made
