"""Starting a gateway and ending it: one process or several, a socket, signals, and the order of a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import uvicorn

from farthing.book import Book
from farthing.config import Config, load
from farthing.gateway import _admin, _spans
from farthing.gateway._autopilot_tell import tell
from farthing.gateway._credentials import Outbound
from farthing.gateway._deferred import Deferred
from farthing.gateway._guard import Guarded
from farthing.gateway._keys import NAME, Keys
from farthing.gateway._outbox import Outbox
from farthing.gateway._settings import SettingError, Settings, is_loopback
from farthing.gateway._shadow import Shadows
from farthing.gateway._upstream import session
from farthing.gateway.budgets import Budgets, StoreError, open_budgets
from farthing.gateway.live import Live
from farthing.gateway.proxy import Gateway
from farthing.policy import default_path

_KEEP_ALIVE_S = 75
_EXPIRE_S = 30.0
_SHARE_S = 1.0
_RESTART_S = 1.0
_COLLECT = (10_000, 20, 50)
_ENDING = (signal.SIGTERM, signal.SIGINT)
_LAST_S = 5.0  # for calls that were cut off to be settled

log = logging.getLogger("farthing.gateway")


def serve(settings: Settings, book: Book, announce: Callable[[str], None]) -> int:
    """Until SIGTERM or SIGINT; the exit code. Its URL is announced once it can be called, as a line of JSON.

    SettingError or StoreError before anything has begun.
    """
    check(settings)
    listening = listen(settings)
    scheme = "https" if settings.certificate else "http"
    host, port = listening.getsockname()[:2]
    line = json.dumps({"listening": f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"})
    with tempfile.TemporaryDirectory(prefix="farthing-gateway-") as shared:
        if settings.workers == 1:
            return _work(settings, book, listening, Path(shared), lambda: announce(line))
        return _oversee(settings, book, listening, Path(shared), lambda: announce(line))


def check(settings: Settings) -> None:
    """SettingError for what would not be safe, or makes no sense."""
    if not settings.targets():
        raise SettingError("no upstream: say --bedrock URL, --anthropic URL or --claude-aws URL")
    if not settings.auth and not is_loopback(settings.host):
        raise SettingError(
            f"--no-auth on {settings.host}: whoever reaches it would spend your money; only on loopback"
        )
    if bool(settings.certificate) != bool(settings.private_key):
        raise SettingError("--certificate and --private-key go together")
    if settings.workers < 1:
        raise SettingError(f"--workers {settings.workers}: at least 1")
    if settings.auth and not keys_path(settings).exists():
        raise SettingError(
            f"no keys at {keys_path(settings)}: `farthing gateway key add NAME` makes some; or --no-auth on loopback"
        )


def keys_path(settings: Settings) -> Path:
    """Named, or beside farthing.toml, or here."""
    if settings.keys:
        return settings.keys
    config = load(settings.config)
    return Path(config.path).parent / NAME if config.path else Path(NAME)


def listen(settings: Settings) -> socket.socket:
    """A socket that nobody is answered on yet. SettingError where there can be none."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((settings.host, settings.port))
        made.listen(2048)
    except (OSError, OverflowError) as error:
        made.close()
        raise SettingError(
            f"{settings.host}:{settings.port}: {getattr(error, 'strerror', None) or error}"
        ) from None
    made.set_inheritable(True)
    return made


# --- one process ------------------------------------------------------------------------------------------------------


def build(settings: Settings, book: Book) -> Gateway:
    """All that a process holds, but for what belongs to its event loop. Opened after any fork."""
    config = load(settings.config)
    targets = settings.targets()
    live = Live(
        book,
        Outbox(settings.outbox, fsync=settings.fsync, name="gateway"),
        _budgets(settings, config),
        settings.policy or default_path(config),
        config.profiles,
        on_full=settings.on_full,
        config=config,
    )
    if config.notify:
        live.autopilots.alarm = partial(tell, config)
    loaded = live.loaded()
    if loaded and any(entry.lever in ("cache", "ttl") for entry in loaded.policy.entries):
        live.autopilots.warmth.wait()
    keys = Keys(keys_path(settings)) if settings.auth else None
    made = Gateway(settings, live, targets, Outbound.open(settings, targets), keys)
    made.shadows = Shadows(made, settings.grade)
    if settings.queue is not None:
        made.deferred = Deferred(settings.queue, live.book, settings.upstream_region)
    return made


def _budgets(settings: Settings, config: Config) -> Budgets | None:
    if not settings.budgets and not any(budget.hold for budget in config.budgets):
        return None
    return open_budgets(config, settings.budgets, when_down=settings.when_down)


def configured(gateway: Gateway) -> uvicorn.Config:
    """How uvicorn serves it."""
    settings = gateway.settings
    return uvicorn.Config(
        gateway,
        http=type("Protocol", (Guarded,), {"head_s": settings.limits.head_s}),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.limits.drain_s),
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.private_key,
    )


def _work(
    settings: Settings, book: Book, listening: socket.socket, shared: Path, ready: Callable[[], None]
) -> int:
    gateway = build(settings, book)
    gateway.own = _admin.app(gateway, shared)
    gateway.observe, flush = _spans.observer()
    server = Server(configured(gateway), gateway, ready, shared)
    gc.collect()
    gc.freeze()  # what is loaded stays: no collection has to look at it again
    gc.set_threshold(*_COLLECT)
    server.run(sockets=[listening])
    flush()
    return 0


class Server(uvicorn.Server):
    """uvicorn's, with signals that end it with exit code 0, and what runs beside the calls."""

    def __init__(
        self, config: uvicorn.Config, gateway: Gateway, ready: Callable[[], None], shared: Path
    ) -> None:
        super().__init__(config)
        self.gateway, self.ready, self.shared = gateway, ready, shared

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in _ENDING:
            loop.add_signal_handler(number, self._end)
        yield

    def _end(self) -> None:
        """Asked once, streams may finish; asked twice, they are cut off."""
        self.force_exit = self.gateway.draining
        self.gateway.draining = self.should_exit = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        gateway = self.gateway
        gateway.http = session(gateway.settings.limits)
        beside = [
            asyncio.create_task(each)
            for each in (
                gateway.watch_clients(), gateway.outbound.keep_fresh(), _expire(gateway), _share(gateway, self.shared),
                gateway.shadows.run(),
            )
        ]  # fmt: skip
        try:
            await super().serve(sockets)
        finally:
            for task in (*self.server_state.tasks, *beside):
                task.cancel()
            if self.server_state.tasks:
                await asyncio.wait(self.server_state.tasks, timeout=_LAST_S)
            await gateway.http.close()
            gateway.together.close()
            gateway.live.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.ready()


async def _expire(gateway: Gateway) -> None:
    """Holds that nobody renewed: of processes that died."""
    budgets = gateway.live.budgets
    while budgets is not None:
        await asyncio.sleep(_EXPIRE_S)
        with contextlib.suppress(StoreError):
            await budgets.run(budgets.expire, gateway.live.clock_us())


async def _share(gateway: Gateway, shared: Path) -> None:
    """What this process has counted, for the one that is asked for all. Without the parent it ends, too."""
    parent = os.getppid()
    while gateway.settings.workers > 1:
        await asyncio.sleep(_SHARE_S)
        _admin.publish(gateway, shared)
        if os.getppid() != parent and not gateway.draining:
            os.kill(os.getpid(), signal.SIGTERM)


# --- several processes ------------------------------------------------------------------------------------------------


def _oversee(
    settings: Settings, book: Book, listening: socket.socket, shared: Path, announce: Callable[[], None]
) -> int:
    """Fork the workers, say once that all are ready, start anew one that dies, and end them all."""
    reading, writing = os.pipe()
    ending = False
    workers: dict[int, float] = {}

    def end(*_: object) -> None:
        nonlocal ending
        ending = True
        listening.close()  # or clients would wait in line here for workers that take nobody any more
        for pid in list(workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # so that one that comes now finds the worker known
        pid = -1 if ending else os.fork()
        if pid > 0:
            workers[pid] = time.monotonic()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
            return
        code = 1
        try:
            os.close(reading)
            for number in _ENDING:
                signal.signal(number, lambda *_: os._exit(0))  # until the server takes them
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
            code = _work(settings, book, listening, shared, lambda: _tell(writing))
        except (SettingError, StoreError) as error:
            log.error("%s", error)  # noqa: TRY400
            code = 2
        finally:
            os._exit(code)  # nothing of the parent's is this process's to clean up

    for number in _ENDING:
        signal.signal(number, end)
    for _ in range(settings.workers):
        start()
    failed = _await_ready(reading, settings.workers, workers)
    unasked = failed and not ending
    if not failed:
        announce()
    elif unasked:
        end()
    code = _reap(workers, start, lambda: ending)
    return 2 if unasked else code


def _tell(writing: int) -> None:
    os.write(writing, b".")


def _await_ready(reading: int, wanted: int, workers: dict[int, float]) -> bool:
    """Whether one of them died before all were ready."""
    os.set_blocking(reading, False)
    ready = 0
    while ready < wanted:
        with contextlib.suppress(BlockingIOError):
            ready += len(os.read(reading, wanted))
        pid = os.waitpid(-1, os.WNOHANG)[0] if workers else 0
        if pid or not workers:
            workers.pop(pid, None)
            return True
        time.sleep(0.01)
    return False


def _reap(workers: dict[int, float], start: Callable[[], None], ending: Callable[[], bool]) -> int:
    code = 0
    while workers:
        pid, status = os.wait()
        born = workers.pop(pid, 0.0)
        if not ending():
            log.warning("a worker ended (%s); another begins", status)
            time.sleep(max(0.0, _RESTART_S - (time.monotonic() - born)))
            start()
        else:
            code = code or os.waitstatus_to_exitcode(status)
    return code
