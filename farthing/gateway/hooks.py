"""Metering inside the caller's own process: boto3, the anthropic SDK and LiteLLM, with nothing in between.

`instrument`, `Middleware` and `LiteLLMCallback` are thin drivers of one `Hook`: it applies policies, holds budgets and
writes the outbox before each attempt, reads the answer along and settles. What is wrong with us stays with us: it is
counted, said once a minute, and the call goes its way. Only a budget that denies raises, `BudgetExceeded`.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar

import msgspec

from farthing.book import Book, default_book
from farthing.config import Config, load
from farthing.gateway._attempt import ACTIONS, Attempt, route_of
from farthing.gateway._autopilot_apply import Applied, apply
from farthing.gateway._autopilot_crew import Autopilots
from farthing.gateway._boto import UNIQUE, Boto
from farthing.gateway._metadata import bytes_of, metadata_of, told
from farthing.gateway._outbox import Fsync, Outbox
from farthing.gateway._prefixes import Key, hashed, key_of, prefixes
from farthing.gateway.budgets import Budgets, Denied, Notice, open_budgets
from farthing.gateway.live import Live, Over, Refused, Settled, Who
from farthing.outbox import Result
from farthing.policy import default_path
from farthing.usage import Rejected
from farthing.wire import Asked, Route, ask

Tags = Mapping[str, str] | Callable[[], Mapping[str, str]]
T = TypeVar("T")

WARN_SECONDS = 60.0
_NO_BATCH = "not applied: hooks cannot batch"
_POLL_S = 0.1  # between two looks at what is to be settled, as long as calls come
_PATIENCE = 50  # looks in vain, after which the next call has to wake who settles
_AT_ONCE = 100  # settled in one go
_KNOWN = ("key", "team", "project", "run", "session")  # tags that budgets and policies know by name
_MOST_TAG = 300  # characters, as the outbox takes them
_log = logging.getLogger("farthing.hooks")


class BudgetExceeded(Exception):
    """A hard budget denies the call, which was not sent. `period` is "" where budgets could not be asked."""

    def __init__(self, denied: Denied) -> None:
        super().__init__(denied.reason)
        self.budget = denied.budget
        self.period = denied.period
        self.reset = datetime.fromtimestamp(denied.reset_us // 1_000_000, UTC)
        self.retry_after = denied.retry_after_s
        self.denied = denied

    def __reduce__(self) -> tuple[Any, ...]:  # so that it crosses processes
        return BudgetExceeded, (self.denied,)


_INHERITED: list[Any] = []  # stores that a parent opened: to close one here would be felt there
_forks = 0  # between this process and the one that imported us: cheaper to ask than the process id


def _forked() -> None:
    global _forks  # noqa: PLW0603 - the child's own
    _forks += 1


os.register_at_fork(after_in_child=_forked)


# --- what all hooks do -----------------------------------------------------------------------------------------------


class Hook:
    """`begin` before an attempt; the attempt settles itself. `faults` counts what went wrong with us."""

    denial = BudgetExceeded

    def __init__(
        self,
        live: Live,
        *,
        tags: Tags | None = None,
        who: Who | None = None,
        key: Key | None = None,
        fail: Literal["open", "closed"] = "open",
        on_settled: Callable[[str, Settled], None] | None = None,
        reopen: Callable[[], Budgets] | None = None,
        settle_now: bool = False,
    ) -> None:
        self.live = live
        self.who = who or Who()
        self.tags = tags
        self.key = key
        self.fail = fail
        self.on_settled = on_settled
        self.settle_now = settle_now
        self.reopen = reopen  # the budgets, in a process that was forked
        self.faults = 0
        self._warned = -WARN_SECONDS
        self._queue: SimpleQueue[Attempt | threading.Event] = SimpleQueue()
        self._hurry, self._settling = threading.Event(), threading.RLock()
        self.process = _forks
        self._thread: threading.Thread | None = None
        self._whos: dict[tuple[str, str], Who] = {}

    # --- before

    def begin(
        self,
        path: str,
        body: Any,
        headers: Mapping[str, str],
        region: str = "",
        platform: str = "",
        *,
        held: bool = True,
        rewrites: bool = True,
    ) -> Attempt | None:
        """The attempt to send; None: send it as it is, unmetered. BudgetExceeded is all that it raises.

        Not `held`: it goes whatever budgets say. Without `rewrites` it is sent as it is.
        """
        try:
            sent = bytes_of(body)
            return self._begin(path, sent, headers, (region, platform), held, rewrites) if sent else None
        except BudgetExceeded:
            raise
        except Exception as fault:  # noqa: BLE001
            self.fault(fault)
            if held and self.fail == "closed" and self.live.budgets is not None:
                raise BudgetExceeded(_unasked()) from None
            return None

    def _begin(
        self,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        place: tuple[str, str],
        held: bool,
        rewrites: bool,
    ) -> Attempt | None:
        asked_for = route_of(path)
        if asked_for is None or not asked_for.billed:
            return None
        try:
            asked = ask(asked_for, body, headers)
        except Rejected:
            return None  # the service says what is wrong with it, and does not bill it
        self._start()
        who = self._who(*place)
        done = Applied(body)
        if self.live.policy is not None and rewrites:
            done = self._policed(who, asked_for, asked, body)
        model, new = done.model, done.body
        if model:
            asked = asked._replace(model=model)
            asked_for = asked_for._replace(model=model) if asked_for.model else asked_for
        live = self.live if held else replace(self.live, budgets=None)
        call = live.begin(who, asked_for, asked, new, done.decisions, flight=done.flight)
        if isinstance(call, Refused) and call.denied:
            while self._settle_queued([]):  # what has ended denies no call, nor what the thread is settling
                pass
            call = live.begin(who, asked_for, asked, new, done.decisions, flight=done.flight)
        if isinstance(call, Refused):
            if call.denied is None:
                return None
            raise BudgetExceeded(call.denied)
        _tell(call.warnings)
        attempt = Attempt(self, call, asked_for, new, model)
        try:
            if rewrites:
                self._dress(attempt, asked, who)
            attempt.changed = attempt.body is not body
            if call.position and self.live.outbox.fsync == "call":
                self.live.outbox.sync(call.position)
        except Exception as fault:  # noqa: BLE001 - it is held and written: it goes, without what failed
            self.fault(fault)
        return attempt

    def _who(self, region: str, platform: str) -> Who:
        platform = platform or self.who.platform
        if not callable(self.tags) and (known := self._whos.get((region, platform))):
            return known
        made = self._new_who(region, platform, self.tags() if callable(self.tags) else self.tags or {})
        if not callable(self.tags):
            self._whos[region, platform] = made
        return made

    def _new_who(self, region: str, platform: str, given: Mapping[str, str]) -> Who:
        tags = {str(name)[:_MOST_TAG]: str(value)[:_MOST_TAG] for name, value in given.items()}
        known = {name: tags[name] for name in _KNOWN if name in tags}
        region = region or self.who.region or (_region() if platform == "bedrock" else "")
        return self.who._replace(region=region, platform=platform, tags=tags, **known)

    def _policed(self, who: Who, asked_for: Route, asked: Asked, body: bytes) -> Applied:
        """What the policy in force does with it; a fault of it changes nothing."""
        try:
            return apply(
                self.live, who, asked_for, asked, body, {**asked.metadata, **who.tags}, no_batch=_NO_BATCH
            )
        except Exception as fault:  # noqa: BLE001
            self.fault(fault)
            return Applied(body)

    def _dress(self, attempt: Attempt, asked: Asked, who: Who) -> None:
        """Tags and the call's id, by which the invocation log is joined."""
        operation = attempt.route.operation
        if operation not in ACTIONS:
            return
        metadata = metadata_of(asked.metadata, who.tags, attempt.call.id)
        if not metadata:
            return
        if operation.startswith("Converse"):
            attempt.body = told(attempt.body, metadata)
        else:
            attempt.metadata = msgspec.json.encode(metadata).decode()

    # --- after

    async def run(self, function: Callable[..., T], *args: Any) -> T | None:
        """What it returns, as `guarded`; from a thread if budgets are asked over a network: no loop should wait."""
        budgets = self.live.budgets
        if budgets is None:
            return self.guarded(function, *args)
        try:
            return await budgets.run(function, *args)  # type: ignore[no-any-return]
        except BudgetExceeded:
            raise
        except Exception as fault:  # noqa: BLE001
            self.fault(fault)
            return None

    def settle(self, *attempts: Attempt) -> None:
        """All in one transaction of the budgets and one write of the outbox."""
        ended = [self.guarded(self._ended, attempt) for attempt in attempts if attempt.process == _forks]
        try:
            self._settled([over for over in ended if over is not None])
        except Exception as fault:  # noqa: BLE001 - a denial too, if the application's own code raises one
            self.fault(fault)

    def _ended(self, attempt: Attempt) -> Over:
        answer = attempt.answer()
        tokens = answer.parts[0].tokens.prompt if self.key and answer.parts else 0
        made = hashed(attempt.body, self.key) if self.key and tokens else None
        return self.live.ended(
            attempt.call,
            answer,
            sent=attempt.sent,
            first_token_ms=attempt.first_token_ms,
            prefixes=prefixes(made, tokens) if made else None,
        )

    def _settled(self, ended: list[Over]) -> None:
        results: list[Result] = []
        done = []
        for over, warnings in zip(ended, self.live.told(ended), strict=True):
            done.append(self.guarded(self.live.settled, over, warnings, results.append))
            _tell(warnings)
        self.live.outbox.results(results)
        if self.on_settled is not None:
            for over, settled in zip(ended, done, strict=True):
                if settled is not None:
                    self.guarded(self.on_settled, over.call.id, settled)

    def later(self, attempt: Attempt) -> None:
        """Settled by our own thread: putting it here is safe wherever the caller stands."""
        self._queue.put(attempt)
        if attempt.call.holds and self.live.budgets is not None and self.live.budgets.waits:
            self._hurry.set()

    def _start(self) -> None:
        """The thread that settles what was left; and after a fork, what cannot be shared with the parent."""
        if self.process != _forks:
            self.process, self._thread = _forks, None
            self._whos.clear()
            self._queue, self._hurry = SimpleQueue(), threading.Event()  # what a parent left is the parent's
            self._settling = threading.RLock()
            self.live.autopilots = Autopilots()  # a thread of the parent may have held its lock
            if self.reopen is not None:
                _INHERITED.append(self.live.budgets)
                self.live.budgets = self.reopen()
        if self._thread is None:
            self._thread = threading.Thread(target=self._settle_left, name="farthing-settle", daemon=True)
            self._thread.start()

    def _settle_left(self) -> None:
        """While calls come, none has to wake it, which would cost the caller as much as metering does."""
        queue, hurry, looks = self._queue, self._hurry, 0
        while True:
            done = self._settle_queued([queue.get()] if looks >= _PATIENCE else [])
            looks = 0 if done else looks + 1
            if done < _AT_ONCE:
                hurry.wait(_POLL_S)
                hurry.clear()

    def _settle_queued(self, left: list[Attempt | threading.Event]) -> int:
        """These, and what is in the queue; how many they were."""
        with self._settling:
            with suppress(Empty):
                while len(left) < _AT_ONCE:
                    left.append(self._queue.get_nowait())
            self.settle(*(each for each in left if isinstance(each, Attempt)))
            for each in left:
                if isinstance(each, threading.Event):
                    each.set()
        return len(left)

    def flush(self, seconds: float = 5.0) -> None:
        """Return when all that was left before is settled."""
        if self._thread is not None and self.process == _forks:
            done = threading.Event()
            self._queue.put(done)
            self._hurry.set()
            done.wait(seconds)

    def close(self) -> None:
        """Settle what was left, and close outbox and budgets."""
        try:
            self.flush()
            self.live.close()
        except Exception as fault:  # noqa: BLE001
            self.fault(fault)

    # --- faults of ours

    def guarded(self, function: Callable[..., T], *args: Any, **named: Any) -> T | None:
        """What it returns; None if it fails, which is counted. A budget's denial passes."""
        try:
            return function(*args, **named)
        except BudgetExceeded:
            raise
        except Exception as fault:  # noqa: BLE001
            self.fault(fault)
            return None

    def fault(self, fault: BaseException) -> None:
        """Counted, and said at most once a minute: the kind and the place, since a text could quote a prompt."""
        self.faults += 1
        now = time.monotonic()
        if now - self._warned < WARN_SECONDS:
            return
        self._warned = now
        trace = fault.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
        says = fault.strerror if isinstance(fault, OSError) else ""
        _log.warning(
            "farthing could not meter a call, which went on: %s %s at %s; %d so far",
            type(fault).__name__, says or "", where, self.faults,
        )  # fmt: skip


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""


def _tell(warnings: tuple[Notice, ...]) -> None:
    """Of budgets, at 75, 95 and 100 %: each comes once a period."""
    for notice in warnings:
        _log.warning("farthing: %s", notice.says)


def _unasked() -> Denied:
    return Denied("", "", 0, 1, 0, 0, 0, "the budgets could not be asked, and calls are to fail closed")


# --- opening one -----------------------------------------------------------------------------------------------------


def open_hook(
    *,
    outbox: Path | str | None = None,
    budgets: Budgets | str | None = None,
    policy: Path | str | None = None,
    tags: Tags | None = None,
    config: Config | Path | str | None = None,
    key: Path | str | None = None,
    account: str = "",
    principal: str = "",
    region: str = "",
    platform: str = "bedrock",
    fsync: Fsync = "second",
    fail: Literal["open", "closed"] = "open",
    book: Book | None = None,
    on_settled: Callable[[str, Settled], None] | None = None,
    settle: Literal["soon", "now"] = "soon",
) -> Hook:
    """What is wrong with the settings is said here, at once; afterwards nothing raises but a denial."""
    settings = config if isinstance(config, Config) else load(str(config)) if config else Config()
    reopen = None
    if isinstance(budgets, str):
        reopen = partial(open_budgets, settings, budgets, when_down="refuse" if fail == "closed" else "pass")
        budgets = reopen()
    if policy is None and settings.path:
        policy = default_path(settings)
    live = Live(
        book or default_book(),
        Outbox(outbox or default_outbox(), fsync=fsync, name="hook"),
        budgets,
        Path(policy) if policy else None,
        on_full="pass",
        config=settings,
    )
    who = Who(account=account, principal=principal, region=region, platform=platform)
    hook = Hook(
        live,
        settle_now=settle == "now",
        tags=tags,
        who=who,
        key=key_of(key),
        fail=fail,
        on_settled=on_settled,
        reopen=reopen,
    )
    atexit.register(hook.close)
    return hook


def default_outbox() -> Path:
    """FARTHING_OUTBOX, else a folder of the user's own."""
    import platformdirs

    named = os.environ.get("FARTHING_OUTBOX")
    return Path(named or Path(platformdirs.user_data_dir("farthing", appauthor=False)) / "outbox")


# --- boto3 -----------------------------------------------------------------------------------------------------------


def instrument(client: Any, **settings: Any) -> Any:
    """Meter a boto3 client of bedrock-runtime, or all that a session makes from now on. Returns it.

    Instrumented again, it keeps the first settings. `settings` are those of docs/hooks.md.
    """
    events = _events(client)
    attach(events, open_hook(**settings))
    return client


def attach(events: Any, hook: Hook) -> None:
    """To an event system of botocore."""
    boto = Boto(hook)
    events.register_first("request-created.bedrock-runtime", boto.created, unique_id=f"{UNIQUE}-created")
    events.register("response-received.bedrock-runtime", boto.received, unique_id=f"{UNIQUE}-received")


def _events(client: Any) -> Any:
    if type(client).__module__.startswith(("aiobotocore", "aioboto3")):
        raise TypeError(
            "aioboto3 is not supported: put `farthing gateway` before it, or use the anthropic SDK"
        )
    events = getattr(getattr(client, "meta", None), "events", None) or getattr(client, "events", None)
    if events is None and hasattr(client, "get_component"):
        events = client.get_component("event_emitter")
    if events is None:
        raise TypeError(f"{type(client).__name__} is no boto3 client or session")
    return events


# --- the anthropic SDK, and LiteLLM ----------------------------------------------------------------------------------


_USUAL: dict[str, Any] = {"platform": ""}  # told by the id of the model


def Middleware(**settings: Any) -> Any:  # noqa: N802 - what it makes is one
    """For `middleware=[...]` of the anthropic SDK's clients, sync and async, of every platform."""
    from farthing.gateway._anthropic import FarthingMiddleware

    return FarthingMiddleware(open_hook(**_USUAL | settings))


def LiteLLMCallback(**settings: Any) -> Any:  # noqa: N802
    """For `litellm.callbacks`, and the callbacks of LiteLLM's proxy."""
    from farthing.gateway._litellm import FarthingLogger

    return FarthingLogger(open_hook(**_USUAL | settings))
