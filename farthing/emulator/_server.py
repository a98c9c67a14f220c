"""The emulator as a server on the loopback: which call goes where, and what is written when."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from farthing import wire
from farthing.emulator._admin import admin
from farthing.emulator._control import OPERATIONS, Control
from farthing.emulator._cur import Form
from farthing.emulator._errors import Refused, answered, direct
from farthing.emulator._http import JSON, Ask, Gone, Receive, Scope, Send, read_body, respond
from farthing.emulator._jobs import MINIMUM, STEP_MS, Jobs
from farthing.emulator._runtime import called, counted, metadata_of
from farthing.emulator._signature import Request, check
from farthing.emulator._world import Caller, World
from farthing.wire import Route

FLUSH_S = 2  # between two writings of logs
KEEP_ALIVE_S = 75
GRACE_S = 2  # for calls under way, when the server ends
_NOWHERE = Route("Unknown", "bedrock")
_NOWHERE_DIRECT = Route("Unknown", "anthropic")


class _Uvicorn(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


class Server:
    """A world behind a port. `cur_folder` gets the bill whenever logs are written."""

    def __init__(
        self,
        world: World,
        *,
        s3: Any = None,
        cur_folder: Path | None = None,
        cur_form: Form = "cur2",
        batch_minimum: int = MINIMUM,
        step_ms: int = STEP_MS,
    ) -> None:
        self.world = world
        self.jobs = Jobs(world, s3, minimum=batch_minimum, step_ms=step_ms)
        self.control = Control(world, self.jobs)
        self.url = ""
        self._cur_folder, self._cur_form = cur_folder, cur_form
        self._admin = admin(self)
        self._writing = asyncio.Lock()
        self._uvicorn: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- requests ----------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["raw_path"].decode("latin-1")
        if path.startswith("/_farthing/"):
            await self._admin(scope, receive, send)
            return
        route = wire.route(scope["method"], path) or _beside(scope["method"], path)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        caller, at_us, body, metadata = self.world.caller(headers), self.world.clock.now_us(), b"", {}
        try:
            at_us = self.world.at_us(headers)
            body = await read_body(receive, route.dialect)
            if caller.secret:
                check(
                    Request(scope["method"], path, scope["query_string"].decode("latin-1"), headers, body),
                    caller.secret,
                )
            ask = Ask(route, headers, scope["query_string"].decode("latin-1"), body)
            await self._answer(ask, caller, at_us, path, send, receive)
        except Refused as refused:
            if route.billed:
                metadata = _told(route, headers)
            request_id = self.world.refuse(route, route.model, caller, at_us, refused, body, metadata)
            await respond(send, *answered(route, refused, request_id))
        except Gone:
            return

    async def _answer(
        self, ask: Ask, caller: Caller, at_us: int, path: str, send: Send, receive: Receive
    ) -> None:
        route = ask.route
        if route.billed:
            await called(self.world, ask, caller, at_us, send, receive)
            return
        if route.operation == "CountTokens":
            status, data = 200, counted(self.world, ask, caller)
        elif route.operation in OPERATIONS:
            status, data = self.control.answer(ask, caller, at_us, self.url, _named(path))
        elif path.startswith("/model/"):
            raise Refused("unknown_model", "The provided model identifier is invalid.")
        else:
            raise Refused("unknown_operation", f"There is no such operation: {path[:200]}")
        name = b"request-id" if direct(route) else b"x-amzn-requestid"
        kind = (
            JSON
            if route.operation != "GetMessageBatchResults"
            else [(b"content-type", b"application/x-jsonl")]
        )
        await respond(send, status, [*kind, (name, self.world.new_ids()[0].encode())], data)

    # --- writing -----------------------------------------------------------------------------------------------------

    async def flush(self) -> list[Path]:
        """Write logs and bill; the files of the bill."""
        async with self._writing:
            logs, held = self.world.logs, self.world.logs.take()
            await asyncio.to_thread(logs.write, held)
            if self._cur_folder is None:
                return []
            return await asyncio.to_thread(self.world.bills.write, self._cur_folder, self._cur_form)

    async def _flushing(self) -> None:
        logs = self.world.logs
        while logs.wanted:
            for _ in range(FLUSH_S * 10):
                await asyncio.sleep(0.1)
                if logs.full:
                    break
            async with self._writing:
                await asyncio.to_thread(logs.write, logs.take())

    # --- running -----------------------------------------------------------------------------------------------------

    async def run(self, port: int, ready: Callable[[str], None]) -> None:
        """Serve until told to end; what is held is written then. `ready` gets the address."""
        self._loop = asyncio.get_running_loop()
        self.world.cache.warm()
        listener = socket.create_server(("127.0.0.1", port), backlog=2048)
        # Answers go out as a head and a body; without this the body waits 40 ms for the head to be acknowledged.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = "http://{}:{}".format(*listener.getsockname()[:2])
        config = uvicorn.Config(
            self, log_config=None, log_level="critical", access_log=False, lifespan="off", ws="none",
            server_header=False, timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=GRACE_S,
        )  # fmt: skip
        self._uvicorn = _Uvicorn(config, lambda: ready(self.url))
        flushing = asyncio.ensure_future(self._flushing())
        try:
            await self._uvicorn.serve([listener])
        finally:
            async with self._writing:  # not while it writes: what it took would be lost
                flushing.cancel()
            # Calls that did not end in time were cancelled, and are settled as they were.
            await asyncio.gather(*self._uvicorn.server_state.tasks, return_exceptions=True)
            await self.jobs.stop()
            await self.flush()
            listener.close()

    @property
    def listened(self) -> bool:
        """Whether it listens, or did before it ended."""
        return self._uvicorn is not None and self._uvicorn.started

    def flush_now(self) -> None:
        """From another thread."""
        if self._loop:
            asyncio.run_coroutine_threadsafe(self.flush(), self._loop).result()

    def end(self) -> None:
        """May be called from another thread."""
        if self._uvicorn:
            self._uvicorn.should_exit = True


def _beside(method: str, path: str) -> Route:
    """What only the emulator does, or nobody."""
    if (method, path) == ("POST", "/inference-profiles"):
        return Route("CreateInferenceProfile", "bedrock")
    return _NOWHERE_DIRECT if path.startswith(("/v1/", "/anthropic/")) else _NOWHERE


def _named(path: str) -> str:
    """The id in a path of Anthropic's API: a batch, a model."""
    parts = path.removeprefix("/anthropic").split("/")[2:]
    return (
        parts[2]
        if parts[:2] == ["messages", "batches"] and len(parts) > 2
        else parts[1]
        if len(parts) > 1
        else ""
    )


def _told(route: Route, headers: dict[str, str]) -> dict[str, str]:
    """The metadata of a request that was refused, if it can be read."""
    try:
        return metadata_of(route, {}, headers)
    except Refused:
        return {}
