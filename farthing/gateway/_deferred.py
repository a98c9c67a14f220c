"""Calls that may wait, handed to the gateway: a header or a policy puts one into the queue of batches.

Who sends `x-farthing-deadline`, or `Prefer: respond-async` where a policy batches, is answered 202 with the place where
the answer will be. Others wait on an open line and see nothing of it. `farthing batch run` works on the queue.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from farthing.book import Book
from farthing.gateway._batch_accept import Usual, alone, checked, due_us
from farthing.gateway._batch_clock import SECOND
from farthing.gateway._batch_lever import Client, Way, client_of, too_late, unfit, way
from farthing.gateway._batch_lock import RUNNER_LOCK, is_held
from farthing.gateway._batch_plan import Margin, Pace
from farthing.gateway._batch_queue import (
    DONE,
    FAILED,
    HELD,
    PROMISED,
    End,
    Group,
    New,
    Queue,
    QueueError,
    digest,
)
from farthing.gateway._batch_settings import Settings, kept, margin_of, pace_of
from farthing.gateway._guard import PROTOCOL
from farthing.gateway._keys import Key
from farthing.gateway._metrics import Metrics
from farthing.gateway._plan import Plan, leveled
from farthing.gateway._reply import Failure, Scope, Send, answer
from farthing.gateway._settings import Settings as ServerSettings
from farthing.meters import Vector
from farthing.money import usd
from farthing.policy import Entry
from farthing.usage import Rejected

HEADER = "x-farthing-deadline"
PATH = "/v1/farthing/batch/"
LOOK_S, LATEST_S = 0.5, 5.0  # between two looks at what is waited for: less and less often
SLACK_US = 60 * SECOND  # after a deadline, for an answer on its way
KEPT_US = 3600 * SECOND  # an answer whose client went away: it may ask again
_WHO = ("key", "team", "project", "run", "session")  # of the caller, kept with its request
_JSON = (b"content-type", b"application/json")
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 30, "TCP_KEEPCNT": 4}
_INVALID = ("4", "invalid_request_error", "request_too_large")  # how errors of a caller's begin
Whole = tuple[int, list[tuple[bytes, bytes]], bytes]


class Exchange(Protocol):
    """One request: the proxy's."""

    scope: Scope
    who: Any  # who calls, as farthing.gateway.live knows it
    key: Key | None
    begun: bool  # its answer

    @property
    def send(self) -> Send: ...


class Gateway(Protocol):
    """Where it came in."""

    settings: ServerSettings
    live: Any  # of farthing.gateway.live
    metrics: Metrics
    draining: bool


class Standing(NamedTuple):
    """Of the queue, for one group: as of a second ago at most."""

    at: float
    settings: Settings
    worked: bool
    pace: Pace
    margin: Margin


class Deferred:
    """The queue behind a gateway. What writes to the disk does so in a thread."""

    def __init__(self, folder: Path, book: Book, region: str = "") -> None:
        self._folder, self._book, self._region = folder, book, region
        self._queue: Queue | None = None
        self._standing: dict[Group, Standing] = {}
        self._waited: Counter[str] = Counter()  # by how many connections, by id
        self._swept = 0.0

    @property
    def queue(self) -> Queue:
        self._queue = self._queue or Queue(self._folder)
        return self._queue

    async def serve(self, send: Send, method: str, path: str, key: str) -> None:
        """GET tells the answer, DELETE forgets it."""
        ask = self.forget if method == "DELETE" else self.result
        await answer(send, *await ask(path.removeprefix(PATH), key))

    async def takes(self, gateway: Gateway, x: Exchange, made: Plan, said: Mapping[str, str]) -> Plan | None:
        """What is to be sent now; None of a call that is in the queue, and answered. Failure if it cannot wait."""
        assert x.who is not None
        assert x.key is not None
        if made.asked is None:
            return made
        client, levers = client_of(said), partial(leveled, made, gateway.live, x.who, x.key)
        if HEADER in said:
            if why := unfit(made.kind, made.route, said):
                raise Failure("invalid", f"{HEADER}: {why}")
            await self._promised(gateway, x, made, levers(waits=True), said, client)
            return None
        planned = levers(partial(self._why_not, gateway, made, x, said, client))
        if planned.batch is None:
            return planned
        found = way(planned.batch, client)
        try:
            name = await self._put(x, made, planned, said, found)
        except (Rejected, QueueError, sqlite3.Error) as error:
            return levers(f"the queue did not take it: {error}")
        self._count(gateway, planned)
        if found.held:
            await self._hold(gateway, x, name)
        else:
            await self._tell(x, name, client.wait_s, gateway)
        return None

    # --- whether

    def _why_not(
        self, gateway: Gateway, made: Plan, x: Exchange, said: Mapping[str, str], client: Client, entry: Entry,
        usual: Vector | None,
    ) -> str:  # fmt: skip
        """Why an entry's call is sent at once; "" if it may wait."""
        found, group = way(entry, client), _group(made)
        if why := unfit(made.kind, made.route, said):
            return why
        if x.key is not None and x.key.role_arn:
            return "its key calls as a role of its own, as which no batch is sent"
        now = self._stands(group)
        if found.held and not now.worked:
            return "its client waits, and nobody works on the queue: farthing batch run"
        if found.held and self._waited.total() * 2 >= gateway.settings.limits.calls:
            return "its client waits, and as many as may do so already: --max-calls"
        if why := too_late(found, now.pace, now.margin):
            return why
        if usual is None and made.asked is not None and made.asked.marked and group.platform == "bedrock":
            return "its client places cache points, and what they read is not known yet"
        return alone(
            group, made.body, usual, Usual(0, region=self._region, hits=now.settings.hits), self._book
        )

    def _stands(self, group: Group) -> Standing:
        known = self._standing.get(group)
        if known is None or time.monotonic() - known.at > 1:
            settings = kept(self.queue)
            known = self._standing[group] = Standing(
                time.monotonic(), settings, is_held(self._folder / RUNNER_LOCK), pace_of(self.queue, group),
                margin_of(self.queue, settings),
            )  # fmt: skip
            if len(self._standing) > 1_000:
                self._standing.clear()
        return known

    # --- into the queue

    async def _promised(
        self,
        gateway: Gateway,
        x: Exchange,
        made: Plan,
        planned: Plan,
        said: Mapping[str, str],
        client: Client,
    ) -> None:
        """By its header. With `idempotency-key`, twice is once."""
        once = said.get("idempotency-key", "")
        try:
            due_us(said[HEADER], 0)
            new = await asyncio.to_thread(self._new, x, made, planned, _name(PROMISED, x, once), said[HEADER])
            clashes = (await asyncio.to_thread(self.queue.accept, [new]))[2]
        except Rejected as error:
            raise Failure("invalid", f"{HEADER}: {error}") from None
        except (QueueError, sqlite3.Error) as error:
            raise Failure("busy", f"the queue did not take it: {error}") from None
        if clashes:
            raise Failure("invalid", "another request has this idempotency-key already")
        self._count(gateway, planned)
        await self._tell(x, new.id, client.wait_s, gateway)

    async def _put(self, x: Exchange, made: Plan, planned: Plan, said: Mapping[str, str], found: Way) -> str:
        """By a policy; the id. An attempt of an SDK's that asks again, because it waited too long, goes on waiting."""
        once = said.get("idempotency-key") or said.get("amz-sdk-invocation-id", "")
        name = _name(HELD if found.held else PROMISED, x, once)

        def put() -> str:
            new = self._new(x, made, planned, name, "1h")
            if not once and said.get("x-stainless-retry-count", "0") != "0":
                known = self.queue.same(new.digest, HELD)
                if known:  # rather one that nobody waits for; though who went away may still seem to
                    return min(known, key=lambda each: self._waited[each])
            self.queue.accept([new._replace(deadline_us=self.queue.now_us() + found.deadline_s * SECOND)])
            self._sweep()
            return name

        return await asyncio.to_thread(put)

    def _new(self, x: Exchange, made: Plan, planned: Plan, name: str, deadline: str) -> New:
        """Rejected if it cannot wait. It is known again by what the client asked, whatever levers make of it."""
        assert x.who is not None
        assert planned.asked is not None
        told = {each: getattr(x.who, each) for each in _WHO}
        told |= {"tags": {**planned.asked.metadata, **x.who.tags}, "decisions": planned.decisions}
        settings = kept(self.queue)
        usual = Usual(self.queue.now_us(), deadline, region=self._region, hits=settings.hits)
        new = checked(name, _group(planned), planned.body, usual, self._book, msgspec.json.encode(told))
        asked = msgspec.json.encode(msgspec.json.decode(made.body), order="sorted")
        reason = new.reason if planned.batch is None else ""  # that was decided already
        return new._replace(digest=digest(_group(made), asked), reason=reason)

    def _sweep(self) -> None:
        """What clients waited for and did not fetch is not kept long."""
        if time.monotonic() - self._swept > 60:
            self._swept = time.monotonic()
            self.queue.forget_old(HELD, self.queue.now_us() - KEPT_US)

    def _count(self, gateway: Gateway, planned: Plan) -> None:
        for made in planned.decisions:
            done = "shadow" if made.shadow else "refused" if made.reason.startswith("refused:") else "applied"
            gateway.metrics.add("farthing_decisions_total", lever=made.lever, outcome=done)

    # --- out of it

    async def _tell(self, x: Exchange, name: str, wait_s: int, gateway: Gateway) -> None:
        """202, or the answer if it comes in the time that the client wants to wait."""
        end = time.monotonic() + wait_s
        found = await self._wait(x, name, lambda: gateway.draining or time.monotonic() >= end)
        if found is not None:
            x.begun = True
            await answer(x.send, *found)

    async def _hold(self, gateway: Gateway, x: Exchange, name: str) -> None:
        """As if nothing were: the answer, when it is there. 503 if the gateway ends, 504 if the deadline was missed."""
        known = await asyncio.to_thread(self.queue.end, name)
        until_us = (known[2].deadline_us if known else 0) + SLACK_US
        _keep_alive(x)
        found = await self._wait(x, name, lambda: gateway.draining or self.queue.now_us() > until_us)
        if found is None:
            await asyncio.to_thread(self.queue.withdraw, name)
            return
        if found[0] != 202:
            x.begun = True
            await answer(x.send, *found)
            if not _is_gone(x):
                await asyncio.to_thread(self.queue.forget, [name])
            return
        place = f"{PATH}{name}"
        headers, more = [(b"location", place.encode()), (b"retry-after", b"1")], {"result": place}
        if gateway.draining:
            raise Failure(
                "busy", f"this gateway ends; asked again, the call goes on to wait: {place}", headers, more
            )
        raise Failure(
            "upstream_slow", f"not answered by its deadline; its answer will be at {place}", headers, more
        )

    async def _wait(self, x: Exchange, name: str, over: Callable[[], bool]) -> Whole | None:
        """The answer, or 202 if there was none until then; None if the client went away, and nobody else waits."""
        key = x.who.key if x.who else ""
        began = time.monotonic()
        self._waited[name] += 1
        try:
            while True:
                found = await self.result(name, key)
                if found[0] != 202 or over():
                    return found
                if _is_gone(x):
                    return None if self._waited[name] == 1 else found
                await asyncio.sleep(min(LATEST_S, max(LOOK_S, (time.monotonic() - began) / 20)))
        finally:
            self._waited -= Counter((name,))

    async def result(self, name: str, key: str) -> Whole:
        """The answer as the API gives it, once it is there; 202 until then. Only to the key that asked."""
        ours = name.startswith((PROMISED, HELD))
        found = await asyncio.to_thread(self.queue.end, name) if ours else None
        if found is None or msgspec.json.decode(found[1]).get("key", "") != key:
            raise Failure("not_found", f"no request {name[:60]!r} waits here, or has: it may be collected")
        state, _, end = found
        if state == FAILED:
            raise Failure("invalid" if end.error.startswith(_INVALID) else "upstream", end.error)
        if state != DONE:
            place = f"{PATH}{name}"
            left = max(0, (end.deadline_us - self.queue.now_us()) // 1_000_000)
            told = {"id": name, "status": state, "result": place, "due_in_s": left}
            headers = [_JSON, (b"location", place.encode()), (b"retry-after", b"60")]
            return 202, headers, msgspec.json.encode(told)
        return 200, [_JSON, *_told(end)], end.output

    async def forget(self, name: str, key: str) -> Whole:
        """What was fetched need not be kept."""
        await self.result(name, key)
        await asyncio.to_thread(self.queue.forget, [name])
        return 204, [], b""


def _name(kind: str, x: Exchange, once: str) -> str:
    text = f"{x.who.key if x.who else ''}\0{once}"
    return f"{kind}{sha256(text.encode()).hexdigest()[:32] if once else secrets.token_hex(16)}"


def _group(made: Plan) -> Group:
    platform = "anthropic" if made.route.dialect == "anthropic" else "bedrock"
    return Group(platform, made.asked.model if made.asked else "", made.route.operation)


def _told(end: End) -> list[tuple[bytes, bytes]]:
    cost = [(b"x-farthing-cost-usd", usd(end.picos).encode())] if end.picos is not None else []
    return [*cost, (b"x-farthing-mode", end.mode.encode())]


def _is_gone(x: Exchange) -> bool:
    return bool(_transport(x).is_closing())


def _transport(x: Exchange) -> Any:
    return x.scope[PROTOCOL].transport


def _keep_alive(x: Exchange) -> None:
    """Between the two hosts, so that nothing forgets a connection that is silent. Nothing else can be sent before an
    answer that all clients bear (decision 0120)."""
    held = _transport(x).get_extra_info("socket")
    if held is None or held.family not in (socket.AF_INET, socket.AF_INET6):
        return
    held.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            held.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
