"""The gateway's hot path: a request in, an upstream's answer out as it came, metered on the way (docs/gateway.md).

One ASGI function. What is not a call (health, metrics, calls by id) goes to a Starlette app. An answer is passed on
chunk by chunk; a client that goes away does not end its call: the upstream is read to the end, since it is billed.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from farthing.gateway import _deferred
from farthing.gateway._callers import Caller, caller, verified, who_calls
from farthing.gateway._credentials import Outbound, role_for
from farthing.gateway._deferred import Deferred
from farthing.gateway._guard import PROTOCOL, corked, unframed
from farthing.gateway._keys import Key, Keys, may
from farthing.gateway._metrics import Metrics
from farthing.gateway._plan import Plan, again, is_ours, leveled, plan, tagged
from farthing.gateway._reply import CALL_ID, Failure, Receive, Scope, Send, answer, dialect_of, failed
from farthing.gateway._settings import Settings, Target, is_loopback
from farthing.gateway._together import Together
from farthing.gateway._translate import Events, stream_headers, turned_back
from farthing.gateway._upstream import Pairs, arrived, caller_auth, come_back, retry_after_s, timeouts, url
from farthing.gateway.budgets import Denied, Notice
from farthing.gateway.live import RENEW_S, Call, Live, Refused, Settled, Who, new_id
from farthing.meters import METERS
from farthing.money import usd
from farthing.usage import Rejected
from farthing.wire import Answer, Answers, Route, route

OWN = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json"})
OWN_FOLDERS = ("/v1/calls/", "/v1/organizations/", "/admin/")
RETRIED = (429, 503, 529)
MOST_RECENT = 5_000
_STALL_LOOK_S = 5.0
_BACKOFF_S = 0.2
_UNSAID = re.compile(r"[^ -~]")  # in a header

log = logging.getLogger("farthing.gateway")


_route = lru_cache(maxsize=512)(route)  # few models are called again and again


class Recent(NamedTuple):
    """An attempt, for who asks after it by its id."""

    call: Call
    key: str
    settled: Settled | None


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and what became of it."""

    scope: Scope
    receive: Receive
    send: Send
    route: Route | None
    started: float
    key: Key | None = None
    who: Who | None = None
    call: Call | None = None
    settled: Settled | None = None
    sending_since: float = 0.0  # of the chunk that the client has not taken yet
    sent: bool = False  # the attempt's request, or a part of it
    begun: bool = False  # the answer
    stream: bool = False


@dataclass
class Gateway:
    """What all requests of a process share."""

    settings: Settings
    live: Live
    targets: Mapping[str, Target]
    outbound: Outbound
    keys: Keys | None
    metrics: Metrics = field(default_factory=Metrics)
    http: aiohttp.ClientSession | None = None  # made in the event loop
    deferred: Deferred | None = None  # calls that may wait
    own: Callable[[Scope, Receive, Send], Any] | None = None  # the app of what is not a call
    observe: Callable[[Call, Settled, Answer], None] | None = None  # spans
    shadows: Any = None  # of _shadow.py: calls that another model is asked, too
    open: set[Exchange] = field(default_factory=set)
    recent: OrderedDict[str, Recent] = field(default_factory=OrderedDict)
    draining: bool = False

    def __post_init__(self) -> None:
        self.timeouts = timeouts(self.settings.limits)
        self.together = Together(self.live, lambda: len(self.open) < 2)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["raw_path"].decode("ascii")
        if self.own is not None and (path in OWN or path.startswith(OWN_FOLDERS)):
            self.together.catch_up()  # what it tells of budgets is of now
            await self.own(scope, receive, send)
            return
        x = Exchange(scope, receive, send, _route(scope["method"], path), time.perf_counter())
        self.open.add(x)
        try:
            await self._answer(x, path)
        except Failure as failure:
            await self._fail(x, path, failure)
        except Rejected as error:
            await self._fail(x, path, Failure("invalid", str(error)))
        except Exception as error:  # noqa: BLE001 - a fault of ours has one line, and no text of the request
            log.error("fault %s at %s", type(error).__name__, _where(error))  # noqa: TRY400
            await self._fail(x, path, Failure("internal", f"a fault of the gateway: {type(error).__name__}"))
        finally:
            if (
                x.call is not None and x.settled is None
            ):  # cut off in the middle: by a fault, or by the gateway's end
                await self._settle(x, Answer(0), sent=x.sent)
            self.open.discard(x)
            self.metrics.observe("farthing_request_seconds", time.perf_counter() - x.started)

    async def _fail(self, x: Exchange, path: str, failure: Failure) -> None:
        if x.begun:  # it cannot be taken back: the client sees it cut, as it was
            _transport(x).close()
            return
        self.metrics.add("farthing_denied_total", reason=failure.kind)
        x.begun = True
        call_id = x.call.id if x.call else new_id()
        status, headers, body = failed(failure, dialect_of(path, x.route), call_id)
        if failure.kind in ("too_large", "slow"):
            headers.append((b"connection", b"close"))
        await answer(x.send, status, headers, body)

    # --- the request

    async def _answer(self, x: Exchange, path: str) -> None:
        scope, method = x.scope, x.scope["method"]
        if len(self.open) > self.settings.limits.calls:
            raise Failure(
                "busy", "as many calls as this gateway takes are on their way", [(b"retry-after", b"1")]
            )
        headers, said = arrived(scope)
        now = datetime.now(UTC)
        if self.keys is None and not _is_local(said.get("origin", "")):
            raise Failure("forbidden", "a page of another site may not spend through a gateway without keys")
        known = caller(self.keys, said, now)
        if self.deferred is not None and path.startswith(_deferred.PATH):
            x.key = self._key(known, method, path, "", headers, b"", now)
            await self.deferred.serve(x.send, method, path, x.key.name if self.keys else "")
            return
        if x.route is None:
            raise Failure("not_found", f"{method} {path[:200]}: nothing that this gateway passes on")
        body = await self._body(x, said)
        query = scope["query_string"].decode("latin-1")
        x.key = self._key(known, method, path, query, headers, body, now)
        made = plan(
            self.settings, self.targets, self.live.book, x.key, x.route, method, path, query, headers, said, body
        )  # fmt: skip
        x.who = who_calls(
            x.key, said, made.target.platform, made.target.region, self.settings.account,
            made.asked.user if made.asked else "",
        )  # fmt: skip
        self._permit(x.key, x.who, made)
        x.stream = made.streams
        auth = caller_auth(headers) if self.outbound.pass_on else []
        if self.deferred is None:
            await self._exchange(x, leveled(made, self.live, x.who, x.key), auth)
        elif (at_once := await self.deferred.takes(self, x, made, said)) is not None:
            await self._exchange(x, at_once, auth)

    def _key(
        self, known: Caller, method: str, path: str, query: str, headers: Pairs, body: bytes, now: datetime
    ) -> Key:
        if not known.signed or self.keys is None:
            return known.key
        return verified(self.keys, known.signed, method, path, query, headers, body, now)

    async def _body(self, x: Exchange, said: Mapping[str, str]) -> bytes:
        """All of it: it is signed and has its ceiling told before a byte is sent on."""
        limits = self.settings.limits
        length = said.get("content-length", "")
        if length.isdecimal() and int(length) > limits.body_bytes:
            raise Failure("too_large", f"the body has {length} bytes; at most {limits.body_bytes} are taken")
        message = await self._receive(x)
        if not message.get("more_body"):
            found: bytes = message.get("body", b"")
        else:
            chunks, size, until = [message["body"]], len(message["body"]), time.monotonic() + limits.body_s
            while message.get("more_body"):
                message = await self._receive(x, until - time.monotonic())
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > limits.body_bytes:
                    raise Failure("too_large", f"the body has more than {limits.body_bytes} bytes")
            found = b"".join(chunks)
        if len(found) > limits.body_bytes:
            raise Failure("too_large", f"the body has more than {limits.body_bytes} bytes")
        return found

    async def _receive(self, x: Exchange, wait_s: float = 0.0) -> Any:
        cycle = x.scope[PROTOCOL].cycle
        if cycle.scope is x.scope and not cycle.more_body:  # it is all there: nothing to wait for
            message = await x.receive()
        else:
            try:
                async with asyncio.timeout(wait_s or self.settings.limits.body_s):
                    message = await x.receive()
            except TimeoutError:
                raise Failure("slow", "the body did not arrive in time") from None
        if message["type"] == "http.disconnect":
            raise Failure("slow", "the client went away before its body had arrived")
        return message

    def _permit(self, key: Key, who: Who, made: Plan) -> None:
        """What the key may call, by the model's name as called or as catalogued."""
        if self.keys is None or made.asked is None:
            return
        resolved = self.live.resolve(who, made.asked)
        sku, routing = getattr(resolved, "sku", None), getattr(resolved, "routing", "")
        reasons = [
            may(key, model, routing, who.team) for model in (made.asked.model, sku.model if sku else "")
        ]
        if all(reasons):
            raise Failure("forbidden", reasons[0])

    # --- attempts

    async def _exchange(self, x: Exchange, made: Plan, auth: Pairs) -> None:
        """Attempts at the upstream: each is a call of its own. Only what cannot have been billed is tried again."""
        limits, attempt, lost = self.settings.limits, 0, 0
        while True:
            await self._begin(x, made)
            try:
                response = await self.send_on(x, made, auth)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                await self._settle(x, Answer(0), sent=False)
                lost += 1
                self.metrics.add("farthing_upstream_errors_total", error="unreachable", target=made.kind)
                if lost > limits.connect_retries:
                    raise Failure("upstream", f"{made.target.host} cannot be reached") from error
                await self._again(_BACKOFF_S * 2**lost)
                continue
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                await self._settle(x, Answer(0), sent=x.sent)
                raise self._no_answer(made, error) from error
            if is_ours(made, response.status) and x.who and x.key:
                await self._give_up(x, made, response)
                self.metrics.add("farthing_retries_total")
                made = again(made, response.status, self.live, x.who, x.key)
                continue
            wait_s = self._wait_s(response, attempt)
            if wait_s is None:
                await self._pass_on(x, made, response)
                return
            attempt += 1
            await self._give_up(x, made, response)
            await self._again(wait_s)

    async def _again(self, wait_s: float) -> None:
        self.metrics.add("farthing_retries_total")
        await asyncio.sleep(wait_s)

    def _no_answer(self, made: Plan, error: Exception) -> Failure:
        slow = isinstance(error, TimeoutError)
        self.metrics.add(
            "farthing_upstream_errors_total", error="silent" if slow else "cut", target=made.kind
        )
        if slow:
            return Failure("upstream_slow", f"{made.target.host} did not answer in time")
        return Failure("upstream", f"{made.target.host} closed the connection before it answered")

    def _wait_s(self, response: aiohttp.ClientResponse, attempt: int) -> float | None:
        """How long to wait before the next attempt; None if this answer is the caller's."""
        limits = self.settings.limits
        if response.status not in RETRIED or attempt >= limits.retries:
            return None
        told = retry_after_s(come_back(response.raw_headers)[1])
        if told is not None and told > limits.most_retry_after_s:
            return None
        return told if told is not None else _BACKOFF_S * 2**attempt

    async def _give_up(self, x: Exchange, made: Plan, response: aiohttp.ClientResponse) -> None:
        meter = Answers(made.route, response.status, come_back(response.raw_headers)[1])
        try:
            async for chunk in response.content.iter_any():
                meter.feed(chunk)
        except (aiohttp.ClientError, TimeoutError):
            pass  # the status tells enough
        await self._settle(x, meter.done())

    async def _begin(self, x: Exchange, made: Plan) -> None:
        """Money held and the intent written, or Failure. What is not billed has neither."""
        if made.asked is None or x.who is None:
            return
        begun = await self.together.begin(
            x.who, made.route, made.asked, made.body, made.decisions, flight=made.flight
        )
        if isinstance(begun, Refused):
            x.call = None
            raise _refusal(begun)
        x.call, x.settled, x.sent = begun, None, False

    async def _on_disk(self, x: Exchange, call: Call) -> None:
        """When this returns the request may leave. Failure if it may not."""
        begun = await self.together.durable(call)
        if isinstance(begun, Refused):
            x.call = None
            raise _refusal(begun)
        if not begun.metered:
            self.metrics.add("farthing_unmetered_calls_total")
        x.sent = True

    async def send_on(self, x: Exchange, made: Plan, auth: Pairs) -> aiohttp.ClientResponse:
        assert self.http is not None
        assert x.key is not None
        who = x.who or Who()
        headers, body = made.headers, made.body
        if x.call is not None:
            headers, body = tagged(made, who.tags, x.call.id, self.settings.tag)
        role = role_for(self.settings, x.key.role_arn, who.key, who.team, who.project)
        added = await self.outbound.authorize(
            made.kind,
            made.target,
            made.method,
            made.target.prefix + made.path,
            made.query,
            headers,
            body,
            role,
            auth,
        )

        async def send(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            """The request was made ready while the disk took its intent."""
            if x.call is not None:
                await self._on_disk(x, x.call)
            return await handler(request)

        return await self.http.request(
            made.method,
            url(made.target.base, made.path, made.query),
            headers=[*headers, *added],
            data=body if body or made.method in ("POST", "PUT") else None,
            allow_redirects=False,
            timeout=self.timeouts[made.streams],
            middlewares=(send,),
        )

    # --- the answer

    async def _pass_on(self, x: Exchange, made: Plan, response: aiohttp.ClientResponse) -> None:
        headers, told = come_back(response.raw_headers)
        meter = Answers(made.route, response.status, told)
        if self.shadows is not None:
            meter = self.shadows.listen(x, made, meter)
        headers.append((CALL_ID, (x.call.id if x.call else new_id()).encode()))
        if x.call is not None and x.call.warnings:
            headers += _warnings(x.call.warnings)
        if response.status >= 400:
            self.metrics.add("farthing_upstream_errors_total", error=str(response.status), target=made.kind)
        try:
            if x.call is None and not made.translated:
                await self._stream(x, made, response, meter, headers)
            elif meter.streamed:
                if made.translated:
                    headers = stream_headers(headers, told)
                await self._stream(x, made, response, meter, headers)
            else:
                await self._whole(x, made, response, meter, headers, told)
        finally:
            if x.call is not None and x.settled is None:
                await self._settle(x, meter.done())
            if not response.content.at_eof():
                response.close()
            response.release()

    async def _whole(
        self, x: Exchange, made: Plan, response: aiohttp.ClientResponse, meter: Answers,
        headers: list[tuple[bytes, bytes]], told: Mapping[str, str],
    ) -> None:  # fmt: skip
        """An answer that is one document: its cost is told in its headers."""
        chunks = []
        try:
            async for chunk in response.content.iter_any():
                meter.feed(chunk)
                chunks.append(chunk)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._no_answer(made, error) from error
        body = b"".join(chunks)
        self._first_byte(x)
        if x.call is not None:
            settled = await self._settle(x, meter.done())
            headers += _costs(x.call, settled, self.live.book.digest)
            headers += _warnings(settled.warnings if settled else ())
        if made.translated:
            headers, body = turned_back(made.spoken.operation, response.status, headers, told, body)
        x.begun = True
        with corked(x.send):
            await x.send({"type": "http.response.start", "status": response.status, "headers": headers})
            await x.send({"type": "http.response.body", "body": body})
        self._gone(x)

    async def _stream(
        self, x: Exchange, made: Plan, response: aiohttp.ClientResponse, meter: Answers,
        headers: list[tuple[bytes, bytes]],
    ) -> None:  # fmt: skip
        """Chunk by chunk, as it comes. It is settled before its end is told."""
        turn = Events().feed if made.translated else None
        first_ms = None
        x.begun, ends = True, unframed(x.scope)
        await self._emit(x, {"type": "http.response.start", "status": response.status, "headers": headers})
        try:
            async for chunk in response.content.iter_any():
                if first_ms is None:
                    first_ms = self._first_byte(x)
                meter.feed(chunk)
                sent = turn(chunk) if turn else chunk
                if sent:
                    await self._emit(x, {"type": "http.response.body", "body": sent, "more_body": True})
                if x.call is not None:
                    await self._renew(x.call)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            await self._settle(x, meter.done(), first_ms=first_ms)
            raise self._no_answer(made, error) from error
        await self._settle(x, meter.done(), first_ms=first_ms)
        ends()
        await self._emit(x, {"type": "http.response.body", "body": b"", "more_body": False})
        self._gone(x)

    async def _emit(self, x: Exchange, message: dict[str, Any]) -> None:
        """To the client, if it is there. `stalled` looks at how long it takes."""
        x.sending_since = time.monotonic()
        await x.send(message)
        x.sending_since = 0.0

    async def _renew(self, call: Call) -> None:
        if self.live.budgets is not None and self.live.budgets.waits:
            if self.live.clock_us() - call.renewed_us >= RENEW_S * 1_000_000:
                await self.live.run(self.live.renew, call)
        else:
            self.live.renew(call)

    def _first_byte(self, x: Exchange) -> int:
        """Since the request was sent on."""
        self.metrics.observe("farthing_first_byte_seconds", time.perf_counter() - x.started)
        return max(0, self.live.clock_us() - x.call.at_us) // 1000 if x.call else 0

    def _gone(self, x: Exchange) -> None:
        if _transport(x).is_closing():
            self.metrics.add("farthing_client_gone_total")

    async def _settle(
        self, x: Exchange, answer: Answer, *, sent: bool = True, first_ms: int | None = None
    ) -> Settled | None:
        """Once. A fault in it never reaches the caller: the intent, and the budget's lease, remain."""
        call = x.call
        if call is None or x.settled is not None:
            return x.settled
        try:
            x.settled = await self.together.settle(call, answer, sent=sent, first_token_ms=first_ms)
        except Exception as error:  # noqa: BLE001
            where = f"{type(error).__name__} at {_where(error)}"
            log.error("call %s could not be settled: %s", call.id, where)  # noqa: TRY400
            x.settled = Settled(call.state)
        asyncio.get_running_loop().call_soon(
            self._count, x, call, x.settled, answer
        )  # when the answer is on its way
        return x.settled

    def _count(self, x: Exchange, call: Call, settled: Settled, answer: Answer) -> None:
        metrics, sku = self.metrics, call.sku
        model = sku.model if sku else "unknown"
        key = x.key.name if x.key is not None and self.keys is not None else ""
        metrics.add(
            "farthing_calls_total", operation=call.intent.operation, model=model, state=settled.state.value
        )
        for part in settled.parts:
            for meter, tokens in zip(METERS, part.tokens, strict=True):
                if tokens:
                    metrics.add("farthing_tokens_total", tokens, model=model, meter=meter)
        if settled.picos:
            metrics.add("farthing_cost_usd_total", settled.picos, model=model, key=key)
        elif settled.unpriced:
            metrics.add("farthing_unpriced_calls_total", model=model)
        self.recent[call.id] = Recent(call, key, settled)
        if len(self.recent) > MOST_RECENT:
            self.recent.popitem(last=False)
        for notice in (*call.warnings, *settled.warnings):
            log.warning("%s", " ".join(notice.says.split()))
        for made in call.intent.decisions:
            done = "shadow" if made.shadow else "refused" if made.reason.startswith("refused:") else "applied"
            metrics.add("farthing_decisions_total", lever=made.lever, outcome=done)
        crew = self.live.autopilots
        while crew.shadows:
            entry, called, other = crew.shadows.popleft()
            metrics.add("farthing_shadow_usd_total", called, entry=entry, side="called")
            metrics.add("farthing_shadow_usd_total", other, entry=entry, side="shadow")
        while crew.alarms:
            alarm = crew.alarms.popleft()
            metrics.add("farthing_cache_alarms_total", kind=alarm.kind, entry=alarm.entry)
        if self.observe is not None:
            self.observe(call, settled, answer)

    # --- beside the calls

    async def watch_clients(self) -> None:
        """A client that takes nothing of its answer is cut off; its call goes on to its end."""
        while True:
            await asyncio.sleep(_STALL_LOOK_S)
            oldest = time.monotonic() - self.settings.limits.client_s
            for x in list(self.open):
                if x.sending_since and x.sending_since < oldest:
                    _transport(x).abort()


def _is_local(origin: str) -> bool:
    """Whether it is no browser that asks, or one that shows a page of this machine."""
    try:
        return not origin or is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False


def _transport(x: Exchange) -> Any:
    return x.scope[PROTOCOL].transport


def _where(error: BaseException) -> str:
    """The place in the code, and not the message, which may hold what a caller sent."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else "?"


def _refusal(refused: Refused) -> Failure:
    denied = refused.denied
    if denied is None or not denied.period:  # no room in the outbox, or no budget store: soon there may be
        return Failure("busy", refused.reason, [(b"retry-after", b"5")])
    return budget_failure(denied)


def budget_failure(denied: Denied) -> Failure:
    """429 with all that a client can do something with."""
    reset = (
        datetime.fromtimestamp(denied.reset_us / 1e6, UTC)
        .isoformat(timespec="seconds")
        .replace("+00:00", "Z")
    )
    amount = usd if denied.unit == "usd" else str
    more: dict[str, Any] = {
        "budget": denied.budget, "period": denied.period, "resets_at": reset, "unit": denied.unit,
        "limit": amount(denied.limit), "spent": amount(denied.spent), "held": amount(denied.held),
    }  # fmt: skip
    headers = [(b"retry-after", str(max(1, denied.retry_after_s)).encode())]
    return Failure("budget", denied.reason, headers, more)


def _warnings(notices: Sequence[Notice]) -> list[tuple[bytes, bytes]]:
    """What budgets are near their end, as `name; used=75`."""
    told = [f"{each.budget}; used={each.percent}" for each in notices if each.percent]
    return [(b"x-farthing-budget", _UNSAID.sub("?", each).encode()) for each in told]


def _costs(call: Call, settled: Settled | None, book: str) -> list[tuple[bytes, bytes]]:
    """Unknown is never $0: without a price there is no cost."""
    told = [(b"x-farthing-book", book.encode())]
    if call.sku is not None:
        told.append((b"x-farthing-endpoint", call.sku.endpoint.encode()))
    if settled is not None and settled.picos is not None:
        told.append((b"x-farthing-cost-usd", usd(settled.picos).encode()))
    return told
