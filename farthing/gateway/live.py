"""A call from before it is sent until its money is settled: what proxy, hooks and batch runner have in common.

`begin` holds the ceiling in the budgets and writes the intent; `settle` posts what was used and writes the result.
Both take microseconds and leave waiting to the driver: `Call.position` is what `Outbox.durable` or `Outbox.sync` waits
for before the request may leave. Only budgets on a network make them wait: `Live.run` then takes a thread.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from farthing.book import Book, Resolved, Unpriced
from farthing.config import Config
from farthing.gateway._autopilot_crew import Autopilots, Flight
from farthing.gateway._ceiling import Ceiling, ceiling
from farthing.gateway._outbox import Outbox, OutboxError
from farthing.gateway.budgets import Budgets, Denied, Held, Holding, Notice, Scope, Settling
from farthing.gateway.protocol import Effect, Event, State, outcome, step
from farthing.outbox import Decision, Intent, Pass, Prefixes, Result, Tokens
from farthing.policy import Loaded, reload
from farthing.rating import find
from farthing.usage import Part, Reading, Rejected, Sku, is_own
from farthing.wire import Answer, Asked, Route

LEASE_S = 900  # a hold lasts so long unless it is renewed
RENEW_S = 300
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_TAG = 300

log = logging.getLogger("farthing.policy")


class Who(NamedTuple):
    """The caller, as the driver knows it; what it does not know is empty."""

    key: str = ""  # its name, never the secret
    team: str = ""
    project: str = ""
    run: str = ""
    principal: str = ""
    account: str = ""
    region: str = ""
    session: str = ""
    platform: str = "bedrock"
    tags: Mapping[str, str] = {}


class Refused(NamedTuple):
    """Why a call may not be sent. `denied` is of a budget; else the outbox has no room."""

    reason: str
    denied: Denied | None = None


class Settled(NamedTuple):
    """What an attempt came to. `picos` is None where it has no price, or its usage is not known."""

    state: State
    picos: int | None = None
    parts: tuple[Part, ...] = ()
    unpriced: str = ""
    warnings: tuple[Notice, ...] = ()


@dataclass(slots=True)
class Call:
    """One attempt at the upstream. `metered` is false where no intent could be written and the setting lets it pass."""

    id: str
    intent: Intent
    at_us: int
    resolved: Resolved | Unpriced
    ceiling: Ceiling
    state: State = State.HELD
    position: int = 0
    holds: tuple[str, ...] = ()
    warnings: tuple[Notice, ...] = ()
    metered: bool = True
    renewed_us: int = 0
    key: str = ""  # of the client, by its name
    flight: Flight | None = None  # of what the policy did with it
    near: bool = False  # a budget is near a mark: settling it may have something to tell

    @property
    def sku(self) -> Sku | None:
        return None if isinstance(self.resolved, Unpriced) else self.resolved.sku


class Ready(NamedTuple):
    """A call that waits for its grant. `holding` is what its budgets are asked; None: it falls under none."""

    call: Call
    holding: Holding | None


class Over(NamedTuple):
    """A call that has ended, and what its budgets are told of it; None: nothing."""

    call: Call
    answer: Answer
    effect: Effect
    reading: Reading | None
    picos: int | None
    unpriced: str
    now_us: int
    first_token_ms: int | None
    prefixes: Prefixes | None
    settling: Settling | None

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is posted."""
        return self.reading.parts if self.reading is not None and self.effect is Effect.POST else ()


def new_id() -> str:
    """Unique to an attempt: random, so that several gateways need not agree."""
    return f"fa-{secrets.token_hex(12)}"


def now_us() -> int:
    return time.time_ns() // 1000


@dataclass
class Live:
    """`on_full` says what becomes of calls when the outbox has no room: refuse them, or let them pass unmetered."""

    book: Book
    outbox: Outbox
    budgets: Budgets | None = None
    policy: Path | None = None
    profiles: Mapping[str, str] = field(default_factory=dict)
    assume: Mapping[str, str] = field(default_factory=dict)
    on_full: Literal["refuse", "pass"] = "refuse"
    clock_us: Callable[[], int] = now_us
    unmetered: int = 0  # calls that passed without an intent
    autopilots: Autopilots = field(default_factory=Autopilots)
    config: Config | None = None  # whose residency levers keep to
    _loaded: Loaded | None = None

    # --- before the call

    def loaded(self) -> Loaded | None:
        """The policy in force. The file is asked after before every call, which takes two microseconds."""
        if self.policy is None:
            return None
        before, self._loaded = self._loaded, reload(self.policy, self.book, self._loaded)
        if self._loaded.fault and (before is None or before.fault != self._loaded.fault):
            log.error("%s; what was in force before stays so", self._loaded.fault)
        return self._loaded

    @property
    def fault(self) -> str:
        """Why the policy file, as it was when last looked at, is not in force."""
        return self._loaded.fault if self._loaded else ""

    def begin(
        self,
        who: Who,
        route: Route,
        asked: Asked,
        body: bytes,
        decisions: Sequence[Decision] = (),
        mode: str = "",
        call_id: str = "",
        lease_s: int = LEASE_S,
        flight: Flight | None = None,
    ) -> Call | Refused:
        """Hold its ceiling and write its intent. The request is the one that will be sent, all levers applied.

        Who gives `call_id` again, after a crash, begins the same call again.
        """
        ready = self.prepare(who, route, asked, body, decisions, mode, call_id, lease_s, flight)
        held: Held | Denied = Held()
        if ready.holding is not None and self.budgets is not None:
            held = self.budgets.hold(*ready.holding)
        return self.granted(ready, held)

    def prepare(
        self,
        who: Who,
        route: Route,
        asked: Asked,
        body: bytes,
        decisions: Sequence[Decision] = (),
        mode: str = "",
        call_id: str = "",
        lease_s: int = LEASE_S,
        flight: Flight | None = None,
    ) -> Ready:
        """All of `begin` that waits for nothing and changes nothing; `granted` is the rest."""
        at_us, name = self.clock_us(), call_id or new_id()
        resolved, at = self.resolve(who, asked, mode), _instant(at_us)
        most = ceiling(asked, body, self.book, resolved, at)
        tags = _tags(who, asked)
        holding = None
        holds: tuple[str, ...] = ()
        if self.budgets is not None and self.budgets.rules.all:
            scope, lease = _scope(who, resolved, asked, tags), at_us + lease_s * 1_000_000
            holding = Holding(name, scope, most.picos, at_us, lease, sum(most.tokens))
            holds = self.budgets.names(holding)
        intent = _intent(name, who, route, asked, most, decisions, mode, at, tags, holds)
        call = Call(name, intent, at_us, resolved, most, renewed_us=at_us, key=who.key, flight=flight)
        return Ready(call, holding)

    def announced(self, some: Sequence[Ready]) -> bool:
        """Their intents written before their budgets have answered, as those are likely to agree. False: none is.

        `granted` takes it back of those that are denied all the same, and writes it where that could not be done.
        """
        try:
            position = self.outbox.intents([call.intent for call, _ in some])
        except (OutboxError, Rejected):
            return False
        for call, _ in some:
            call.position = position
        return True

    def granted(
        self, ready: Ready, held: Held | Denied, write: Callable[[Result], None] | None = None
    ) -> Call | Refused:
        """The call with its intent written, by what the budgets answered. `write` takes what takes one back."""
        call = ready.call
        if isinstance(held, Denied):
            if call.position:
                (write or self.outbox.result)(void(call))
            return Refused(held.reason, held)
        call.holds, call.warnings, call.near = held.holds, held.warnings, held.near
        if call.position:
            return call
        if held.holds != call.intent.holds:  # the store is down, and the call passes
            call.intent = msgspec.structs.replace(call.intent, holds=held.holds)
        try:
            call.position = self.outbox.intent(call.intent)
        except OutboxError as error:
            return self._unwritten(call, str(error))
        except BaseException:
            self._give_back(call)
            raise
        return call

    def undo(self, call: Call, reason: str) -> Call | Refused:
        """The outbox could not make the intent durable: if its line is there after all, it is void."""
        undone = self._unwritten(call, reason)
        if isinstance(undone, Refused):
            self.outbox.result(void(call))
        return undone

    def _unwritten(self, call: Call, reason: str) -> Call | Refused:
        if self.on_full == "pass":
            call.metered = False
            self.unmetered += 1
            return call
        self._give_back(call)
        return Refused(f"the outbox has no room: {reason}")

    def _give_back(self, call: Call) -> None:
        if self.budgets is not None and call.holds:
            self.budgets.void(call.id, self.clock_us())

    def resolve(self, who: Who, asked: Asked, mode: str = "") -> Resolved | Unpriced:
        """The SKU that the call will be priced at."""
        found = self.book.resolve(
            asked.model,
            platform=who.platform,
            region=who.region,
            mode=mode or _mode(asked),
            inference_geo=asked.inference_geo,
            profiles=self.profiles,
            assume=self.assume,
        )
        return self.book.by_terms(found, who.account)

    # --- after it

    def settle(
        self,
        call: Call,
        answer: Answer,
        *,
        sent: bool = True,
        first_token_ms: int | None = None,
        prefixes: Prefixes | None = None,
    ) -> Settled:
        """An attempt is over, with its answer as far as it came; a call that was settled before stays as it is."""
        over = self.ended(call, answer, sent=sent, first_token_ms=first_token_ms, prefixes=prefixes)
        warnings: tuple[Notice, ...] = ()
        if over.settling is not None and self.budgets is not None:
            warnings = self.budgets.settle(over.settling)
        return self.settled(over, warnings)

    def ended(
        self,
        call: Call,
        answer: Answer,
        *,
        sent: bool = True,
        first_token_ms: int | None = None,
        prefixes: Prefixes | None = None,
    ) -> Over:
        """What it came to, by which the call is resolved; `settled` writes it down."""
        reading = answer.reading()
        event = outcome(answer.status, sent=sent, final=answer.final and reading is not None)
        call.state, effect = step(call.state, event)
        parts = reading.parts if reading is not None and effect is Effect.POST else ()
        picos, unpriced = self.price(call, parts) if parts else (None, "")
        over = Over(
            call, answer, effect, reading, picos, unpriced, self.clock_us(), first_token_ms, prefixes, None
        )
        if self.budgets is None or not call.holds or effect is Effect.NONE:
            return over
        return over._replace(settling=_settling(over))

    def told(self, asked: Sequence[Ready | Over]) -> list[Any]:
        """What the budgets answer to each, in one transaction if that can be."""
        wanted = [each.holding if isinstance(each, Ready) else each.settling for each in asked]
        some = [each for each in wanted if each is not None]
        told = iter(self.budgets.together(some) if self.budgets is not None and some else ())
        return [
            next(told) if want is not None else Held() if isinstance(each, Ready) else ()
            for each, want in zip(asked, wanted, strict=True)
        ]

    def settled(
        self, over: Over, warnings: tuple[Notice, ...], write: Callable[[Result], None] | None = None
    ) -> Settled:
        """Its result written. `warnings` are what the budgets answered."""
        call, effect = over.call, over.effect
        if effect is Effect.NONE:
            return Settled(call.state)
        if effect is not Effect.POST_CEILING and (call.metered or call.position):
            (write or self.outbox.result)(_result(over))
        self._learn(call, over.answer, over.reading if over.parts else None, over.now_us)
        return Settled(
            call.state, 0 if effect is Effect.VOID else over.picos, over.parts, over.unpriced, warnings
        )

    def _learn(self, call: Call, answer: Answer, reading: Reading | None, now: int) -> None:
        """For the decisions to come. A fault of theirs is none of the call's."""
        own = reading.parts[0].tokens if reading else None
        try:
            if own is not None and call.sku is not None and (intent := call.intent).session:
                self.autopilots.switches.note(call.key, intent.session, intent.model, call.sku, own, now)
            if call.flight is not None and call.state is State.VOIDED:
                call.flight.lost(answer.status)
            elif call.flight is not None:
                call.flight.landed(own, split=reading is not None and "ttl" not in reading.assumed)
        except Exception as error:  # noqa: BLE001
            log.error("a call taught nothing: %s", type(error).__name__)  # noqa: TRY400

    def renew(self, call: Call) -> None:
        """A stream lives: its hold must not lapse. Cheap to call for every chunk."""
        now = self.clock_us()
        if now - call.renewed_us >= RENEW_S * 1_000_000 and self.budgets is not None and call.holds:
            call.state, effect = step(call.state, Event.RENEWED)
            call.renewed_us = now
            if effect is Effect.RENEW:
                self.budgets.renew(call.id, now + LEASE_S * 1_000_000)

    def price(self, call: Call, parts: Sequence[Part]) -> tuple[int | None, str]:
        """Picodollars; or None and the reason."""
        total = 0
        at = call.intent.at
        for part in parts:
            resolved = call.resolved
            if part.model or isinstance(resolved, Unpriced):
                resolved = self.book.resolve(
                    call.intent.model, platform=call.intent.platform, region=call.intent.region,
                    mode=call.intent.mode, inference_geo=call.intent.inference_geo,
                    served_model=part.model, pass_model=part.model, profiles=self.profiles,
                )  # fmt: skip
                resolved = self.book.by_terms(resolved, call.intent.account)
            if isinstance(resolved, Unpriced):
                return None, resolved.reason
            card = find(self.book, resolved.sku, at, part.tokens)
            if isinstance(card, Unpriced):
                return None, card.reason
            total += part.tokens @ card.rates
        return total, ""

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """`begin` or `settle` from an event loop, which does not stand still while budgets wait for a network."""
        if self.budgets is not None and self.budgets.waits:
            return await self.budgets.run(function, *args)
        return function(*args)

    def close(self) -> None:
        self.outbox.close()
        if self.budgets is not None:
            self.budgets.close()


def _intent(
    name: str,
    who: Who,
    route: Route,
    asked: Asked,
    most: Ceiling,
    decisions: Sequence[Decision],
    mode: str,
    at: datetime,
    tags: dict[str, str],
    holds: tuple[str, ...],
) -> Intent:
    return Intent(
        gateway_id=name,
        at=at,
        model=asked.model,
        platform=who.platform,
        region=who.region,
        account=who.account,
        principal=who.principal,
        session=who.session,
        project=who.project,
        operation=route.operation,
        mode=mode or _mode(asked),
        inference_geo=asked.inference_geo,
        tags=tags,
        stream=asked.stream,
        decisions=tuple(decisions),
        holds=holds,
        expected=Tokens(*most.tokens),
    )


def _settling(over: Over) -> Settling:
    """What has no price, or no usage, counts as the ceiling."""
    posts, parts = over.effect is not Effect.VOID, over.parts
    tokens = sum(sum(part.tokens) for part in parts) if parts else None
    return Settling(over.call.id, posts, over.picos, over.now_us, tokens)


def void(call: Call) -> Result:
    """Takes its intent back: the request never left."""
    return _result(Over(call, Answer(0), Effect.VOID, None, None, "", call.at_us, None, None, None))


def _result(over: Over) -> Result:
    """Its usage stands there if the call is posted."""
    call, answer, posted, parts = over.call, over.answer, over.effect is Effect.POST, over.parts
    said = dict(zip(_REPEATED, _repeated(call.intent), strict=True))
    # Where the first attempt was refused, the call has none of its own model.
    own = parts[0] if parts and is_own(parts[0].model, call.intent.model, answer.model) else None
    return Result(
        **said,
        request_id=answer.request_id,
        message_id=answer.message_id,
        served_model=answer.model,
        tokens=Tokens(*own.tokens) if own else Tokens(),
        passes=tuple(
            Pass(part.model or call.intent.model, Tokens(*part.tokens)) for part in parts[bool(own) :]
        ),
        web_searches=_searches(answer) if parts else 0,
        status="" if posted else answer.error or "void",
        assumed=",".join(over.reading.assumed) if posted and over.reading else "",
        latency_ms=max(0, (over.now_us - call.at_us) // 1000),
        first_token_ms=over.first_token_ms,
        prefixes=over.prefixes if own and over.prefixes and _fits(over.prefixes, own) else None,
    )


_REPEATED = tuple(name for name in Intent.__struct_fields__ if name in Result.__struct_fields__)
_repeated = attrgetter(*_REPEATED)


def _fits(prefixes: Prefixes, own: Part) -> bool:
    return bool(sum(block.tokens for block in prefixes.blocks) == own.tokens.prompt)


def _searches(answer: Answer) -> int:
    made = (answer.usage or {}).get("server_tool_use")
    count = made.get("web_search_requests") if isinstance(made, dict) else 0
    return count if isinstance(count, int) and count > 0 else 0


def _scope(who: Who, resolved: Resolved | Unpriced, asked: Asked, tags: dict[str, str]) -> Scope:
    return Scope(
        key=who.key,
        team=who.team,
        project=who.project,
        run=who.run,
        model=asked.model if isinstance(resolved, Unpriced) else resolved.sku.model,
        tags=tuple(tags.items()),
        account=who.account,
    )


def _mode(asked: Asked) -> str:
    return "fast" if asked.speed == "fast" else ""


def _tags(who: Who, asked: Asked) -> dict[str, str]:
    """The key's tags stand over what a caller says of itself: those it cannot choose."""
    own = who.tags
    if not asked.metadata and who.team == own.get("team", "") and who.run == own.get("run", ""):
        return dict(own)
    told = {name[:_LONGEST_TAG]: value[:_LONGEST_TAG] for name, value in asked.metadata.items()}
    known = {"team": who.team, "run": who.run}
    return told | {name: value for name, value in known.items() if value} | dict(who.tags)


def _instant(at_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at_us)
