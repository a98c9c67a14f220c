"""An emulator in a thread of this process, for tests: real clients call it, and it is asked and set in Python."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from farthing.book import default_book
from farthing.emulator._clock import moment
from farthing.emulator._cur import Form
from farthing.emulator._faults import Failing, Faults
from farthing.emulator._server import Server
from farthing.emulator._world import World

_READY_S = 30


class Emulator:
    """A running emulator. `url` is its address."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.world = server.world

    @property
    def url(self) -> str:
        return self._server.url

    def client(self, service: str = "bedrock-runtime", region: str = "us-east-1", **more: Any) -> Any:
        """A client of boto3 that calls it, with made-up credentials."""
        import boto3

        return boto3.client(
            service, region_name=region, endpoint_url=self.url,
            aws_access_key_id="EMULATED", aws_secret_access_key="made up", **more,  # noqa: S106
        )  # fmt: skip

    def calls(self) -> list[dict[str, Any]]:
        """What it has billed and refused, oldest first."""
        return [json.loads(call) for _, call in list(self.world.calls)]

    def fail(self, *plan: Any, **settings: Any) -> None:
        """Faults from now on: Fault(...) each, and the settings of Faults. Without any: all is well again."""
        self.world.failing = Failing(Faults(plan=plan, **settings))

    def clock(self, now: str = "", *, speed: int | None = None, advance_s: int = 0) -> None:
        """Set the clock."""
        self.world.clock.set(moment(now) if now else None, speed, advance_s)

    def cur(self, form: Form = "cur2") -> bytes:
        """The AWS bill of what went through it, as CSV."""
        return self.world.bills.cur(form)

    def write(self) -> None:
        """Write logs and bill, now."""
        self._server.flush_now()


@contextmanager
def running(world: World | None = None, **how: Any) -> Iterator[Emulator]:
    """An emulator on a free port until the end of the block; `how` is for Server."""
    server = Server(world or World(default_book()), **how)
    ready = threading.Event()
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            asyncio.run(server.run(0, lambda _: ready.set()))
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=serve, name="farthing emulator")
    thread.start()
    try:
        ready.wait(_READY_S)
        if failed:
            raise failed[0]
        yield Emulator(server)
    finally:
        server.end()
        thread.join()
    if failed:  # its logs and its bill may not be written
        raise failed[0]
