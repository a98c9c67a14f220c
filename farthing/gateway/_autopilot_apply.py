"""What a policy does with a request, for proxy and hooks alike; and what is learned of its answer.

`apply` decides, holds back what would cost more than it saves now (a session has its cache elsewhere, an endpoint is
throttled, the guard took an entry back), places cache points and rewrites. The call carries its `Flight`, which is told
what was billed.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from farthing.book import Book, Card, Unpriced
from farthing.gateway._autopilot import (
    TTL_OF,
    Pilot,
    Prompt,
    Sighting,
    Warmth,
    compiled,
    prompt_seen,
    running,
    share,
)  # fmt: skip
from farthing.gateway._autopilot_switch import Switches
from farthing.gateway._guard_cache import Alarm, Broken, Churn, Guard
from farthing.gateway.policy import Seen, is_fixed, least_of, look, placed, rewrite
from farthing.gateway.protocol import State
from farthing.meters import Vector
from farthing.outbox import Decision
from farthing.policy import (
    APPLIED,
    LEVERS,
    REFUSED,
    Decide,
    Decided,
    Entry,
    Loaded,
    PolicyError,
    Request,
    decider,
    undo,
)
from farthing.usage import Rejected, Sku
from farthing.wire import Asked, Route

if TYPE_CHECKING:
    from farthing.gateway.live import Live, Who

MOST_PILOTS = 32
THROTTLED = (429, 503, 529)
SHORT_US = 24 * 3_600_000_000  # then an hour is tried again
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SWITCHES = ("model", "endpoint")

log = logging.getLogger("farthing.policy")


class Applied(NamedTuple):
    """`body` is the one that was given where nothing changed, `model` what to call instead. `moved`: by which entry it
    goes to another endpoint, "" if by none.
    """

    body: bytes
    model: str = ""
    deadline: str = ""
    decisions: tuple[Decision, ...] = ()
    flight: Flight | None = None
    moved: str = ""


@dataclass
class Flight:
    """A request on its way, and who is to know what becomes of it."""

    crew: Autopilots
    policy: Path | None  # the file, out of which an entry is taken
    at_us: int
    key: str
    session: str
    model_id: str
    sku: Sku
    rates: Vector
    space: tuple[str, ...]
    decided: Sequence[Decided]
    sighting: Sighting | None = None
    entry: Entry | None = None  # of the cache lever
    ours: bool = False  # its cache points, or lifetimes, are
    shadow: bool = False

    def landed(self, state: State, billed: Vector | None, *, split: bool, status: int) -> None:
        """`billed` is None where it was billed and nobody knows what."""
        with self.crew.lock:
            if state is State.VOIDED:
                self._lost(status)
            elif state is State.POSTED:
                self._billed(billed, split=split)

    def _lost(self, status: int) -> None:
        if self.sighting is not None:
            self.sighting.pilot.withdraw(self.sighting)
        moved = any(made.lever == "endpoint" and made.outcome == APPLIED for made in self.decided)
        if moved and status in THROTTLED:
            self.crew.switches.throttled(self.model_id, self.at_us)

    def _billed(self, billed: Vector | None, *, split: bool) -> None:
        crew, seen = self.crew, self.sighting
        if billed is not None:
            for made in self.decided:
                if made.lever == "endpoint":
                    crew.switches.count(made.entry, made.outcome == APPLIED, billed)
        if seen is None:
            return
        seen.pilot.settle(seen, None if self.shadow else billed, split=split)
        if billed is not None and not self.shadow and self.entry is not None:
            crew.judge(self, seen, billed, split=split)


@dataclass
class Autopilots:
    """All that is learned of calls in this process, in bounded memory. Used under its lock."""

    alarm: Callable[[Alarm], None] | None = None  # told of each; from a thread of its own
    switches: Switches = field(default_factory=Switches)
    warmth: Warmth = field(default_factory=Warmth)
    alarms: deque[Alarm] = field(default_factory=lambda: deque(maxlen=100))  # to be counted
    lock: threading.RLock = field(default_factory=threading.RLock)
    hashing: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _pilots: OrderedDict[tuple[Any, ...], Pilot] = field(default_factory=OrderedDict)
    _guards: OrderedDict[tuple[Any, ...], Guard] = field(default_factory=OrderedDict)
    _churns: OrderedDict[str, tuple[Churn, Broken]] = field(default_factory=OrderedDict)
    _off: dict[str, tuple[Entry, str]] = field(default_factory=dict)
    _short: dict[tuple[str, ...], int] = field(default_factory=dict)
    _notices: deque[Decision] = field(default_factory=lambda: deque(maxlen=20))
    _deciders: tuple[Loaded | None, dict[frozenset[str], Decide]] = (None, {})

    # --- what is decided

    def decide(
        self, loaded: Loaded, book: Book, request: Request, now_us: int, hold: Callable[[Decided], str]
    ) -> list[Decided]:
        """As the policy has it, but for the entries that are held back, each with the reason."""
        now = _instant(now_us)
        refused: dict[str, Decided] = {}
        while True:
            made = self._without(loaded, book, frozenset(refused))(request, now)
            held = {each.entry: why for each in made if each.outcome == APPLIED and (why := hold(each))}
            for each in made:
                if each.entry in held:
                    refused[each.entry] = each._replace(outcome=REFUSED, reason=held[each.entry], change={})
            if not held:
                return sorted([*made, *refused.values()], key=lambda each: LEVERS.index(each.lever))

    def _without(self, loaded: Loaded, book: Book, names: frozenset[str]) -> Decide:
        """The policy in force without some entries: those after them decide as if these were not there."""
        if not names:
            return loaded.decide
        if self._deciders[0] is not loaded:
            self._deciders = loaded, {}
        known = self._deciders[1]
        if names not in known:
            left = tuple(entry for entry in loaded.policy.entries if entry.name not in names)
            known[names] = decider(msgspec.structs.replace(loaded.policy, entries=left), book)
        return known[names]

    def reverted(self, entry: Entry | None) -> str:
        """Why the guard has taken an entry back; until it is written anew."""
        was, why = self._off.get(entry.name, (None, "")) if entry else (None, "")
        return why if was == entry else ""

    def is_short(self, space: tuple[str, ...], model: str, now_us: int) -> bool:
        """Whether an hour is billed as five minutes there, by whatever id the model is called."""
        return now_us - self._short.get((*space[:3], model), -SHORT_US) < SHORT_US

    def notices(self) -> tuple[Decision, ...]:
        """What the guard did since the last call."""
        told = tuple(self._notices)
        self._notices.clear()
        return told

    # --- pilots

    def pilot(
        self,
        entry: str,
        sku: Sku,
        policy: str,
        rates: Vector,
        minimum: int,
        space: tuple[str, ...],
        now_us: int,
    ) -> Pilot:
        key = (entry, sku, policy, rates, minimum)
        found = self._pilots.get(key)
        if found is None:
            found = self._pilots[key] = Pilot(policy, rates, minimum)
            if len(self._pilots) > MOST_PILOTS:
                self._pilots.popitem(last=False)
        self._pilots.move_to_end(key)
        found.plan(short=self.is_short(space, sku.model, now_us))
        return found

    # --- what was billed

    def judge(self, flight: Flight, seen: Sighting, billed: Vector, *, split: bool) -> None:
        """The bill against what was expected, and this prompt against those before it."""
        entry, now = flight.entry, flight.at_us
        assert entry is not None
        expected = share(seen.marked.expected, billed.prompt)
        guard = self._guards.setdefault(
            (entry, flight.sku), Guard(entry.name, flight.ours and entry.lever == "cache")
        )
        if len(self._guards) > MOST_PILOTS * 4:
            self._guards.popitem(last=False)
        if split and guard.downgraded(expected, billed):
            self._downgrade(flight, seen.pilot, guard)
        found = guard.note(now, expected, billed, flight.rates)
        churn, broken = self._churns.setdefault(entry.name, (Churn(), Broken(entry.name)))
        change = churn.note(seen.prompt, flight.session)
        lost = change.lost * billed.prompt // max(1, seen.prompt.weight) if change else 0
        rates = flight.rates
        broken.note(now, change, lost * (rates.cache_write_5m - rates.cache_read))
        dropped = guard.dropped(now, rates)
        if found is not None and not flight.ours:  # the client's own: not ours to take back
            dropped = dropped or (found.says, found.picos)
        if alarm := broken.alarm(now, dropped):
            self._tell(alarm)
        if found is not None and flight.ours:
            del self._guards[entry, flight.sku]
            self._tell(found)
            self._revert(entry, found, flight.policy)

    def _downgrade(self, flight: Flight, pilot: Pilot, guard: Guard) -> None:
        self._short[*flight.space[:3], flight.sku.model] = flight.at_us
        pilot.plan(short=True)
        says = f"{flight.sku.model}: writes for an hour are billed for five minutes; it is planned for five minutes"
        self._tell(Alarm("downgraded", guard.entry, says, flight.at_us))

    def _revert(self, entry: Entry, alarm: Alarm, policy: Path | None) -> None:
        why = f"the guard took it back: {alarm.says}"
        self._off[entry.name] = entry, why
        self._notices.append(Decision(entry.lever, f"{entry.name}: {why}"[:300]))
        if policy is not None:
            _aside(_take_back, policy, entry.name)

    def _tell(self, alarm: Alarm) -> None:
        self.alarms.append(alarm)
        log.error("%s: %s: %s", alarm.kind, alarm.entry, alarm.says)
        if self.alarm is not None:
            _aside(self.alarm, alarm)


def _take_back(policy: Path, entry: str) -> None:
    """Out of the file too, for other processes and for people. Who may not write it has it back in this process."""
    try:
        undo(policy, entry, by="the cache guard", now=datetime.now(UTC))
    except PolicyError as error:
        log.error("%s stays in the file: %s", entry, error)  # noqa: TRY400


def _aside(function: Callable[..., None], *args: Any) -> None:
    threading.Thread(target=function, args=args, name="farthing-guard", daemon=True).start()


def _instant(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).replace(microsecond=at_us % 1_000_000)


# --- one request -----------------------------------------------------------------------------------------------------


def apply(
    live: Live, who: Who, route: Route, asked: Asked, body: bytes, tags: Mapping[str, str], *,
    pinned: bool = False, no_batch: str = "", hold: Mapping[str, str] = {},
) -> Applied:  # fmt: skip
    """What becomes of a request. `hold` are entries that are not to be applied, each with the reason; `no_batch` is
    the driver's reason, if it sends none. What cannot be done leaves the request as it was.
    """
    loaded = live.loaded()
    if loaded is None or not loaded.policy.entries:
        return Applied(body)
    try:
        read = msgspec.json.decode(body)
        seen = look(read)
    except (Rejected, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        read, seen = None, Seen((), ())
    speed = "fast" if asked.speed == "fast" else ""
    request = Request(
        asked.model, who.platform, who.region, who.account, who.principal, who.project, tags, speed,
        asked.inference_geo, asked.stream, who.key, who.session, pinned, seen.markers, seen.places,
    )  # fmt: skip
    made = _Made(live, who, route, asked, body, read, request, loaded, live.clock_us(), no_batch, hold)
    with live.autopilots.lock:
        return made.applied()


@dataclass
class _Made:
    """One request while it is decided on."""

    live: Live
    who: Who
    route: Route
    asked: Asked
    body: bytes
    read: Any
    request: Request
    loaded: Loaded
    now_us: int
    no_batch: str
    hold: Mapping[str, str]

    def applied(self) -> Applied:
        crew = self.live.autopilots
        decided = crew.decide(self.loaded, self.live.book, self.request, self.now_us, self._held)
        told = crew.notices()
        if not decided:
            return Applied(self.body, decisions=told)
        decided = [self._said(each) for each in decided]
        flight = self._flight(decided)
        if flight is not None:
            decided = flight.decided = self._cached(decided, flight)
        done = rewrite(self.route, self.body, decided, self._least)
        moved = next(
            (each.entry for each in decided if each.lever == "endpoint" and each.outcome == APPLIED), ""
        )
        return Applied(done.body, done.model, done.deadline, (*told, *done.decisions), flight, moved)

    @property
    def _least(self) -> Callable[[str], int | None]:
        return least_of(self.live.book, self.who.platform, self.who.region, _instant(self.now_us))

    def _entry(self, name: str) -> Entry | None:
        return next((entry for entry in self.loaded.policy.entries if entry.name == name), None)

    def _held(self, made: Decided) -> str:
        """Why it is not applied after all; "" if it is."""
        crew = self.live.autopilots
        if why := self.hold.get(made.entry) or crew.reverted(self._entry(made.entry)):
            return why
        if made.lever == "batch":
            return self.no_batch
        if made.lever == "ttl" and made.change["markers"][0].ttl == "1h":
            to = self._priced(self.asked.model, self.asked.inference_geo)
            if to and crew.is_short(self._space(self.asked.model), to[0].model, self.now_us):
                return "writes for an hour are billed for five minutes here"
        if made.lever not in _SWITCHES:
            return ""
        model_id = str(made.change.get("model_id", self.asked.model))
        if made.lever == "endpoint" and crew.switches.is_throttled(model_id, self.now_us):
            return "the global endpoint throttles: the one that was asked for is called"
        to = self._priced(model_id, "" if "inference_geo" in made.change else self.asked.inference_geo)
        if to is None:
            return ""
        return crew.switches.stays(self.who.key, self.who.session, made.lever, *to, self.now_us)

    def _said(self, made: Decided) -> Decided:
        """With what the other side's cache reads, and with the verdict by which a model is called."""
        entry = self._entry(made.entry)
        if made.lever == "endpoint" and made.outcome != REFUSED:
            return made._replace(reason=made.reason + self.live.autopilots.switches.shares(made.entry))
        if made.lever == "model" and made.outcome != REFUSED and entry is not None and entry.verdict:
            return made._replace(reason=f"{made.reason} by the verdict {entry.verdict}")
        return made

    def _priced(self, model_id: str, geo: str) -> tuple[Sku, Vector] | None:
        found = self.live.resolve(self.who, self.asked._replace(model=model_id, inference_geo=geo))
        if isinstance(found, Unpriced):
            return None
        card = self.live.book.find(found.sku, _instant(self.now_us), len(self.body) // 4)
        return (found.sku, card.rates) if isinstance(card, Card) else None

    def _space(self, model_id: str) -> tuple[str, ...]:
        """What shares a cache."""
        return self.who.platform, self.who.account, self.who.region, model_id, self.asked.speed

    def _flight(self, decided: Sequence[Decided]) -> Flight | None:
        model_id, geo = self.asked.model, self.asked.inference_geo
        for made in decided:
            if made.outcome == APPLIED:
                model_id = str(made.change.get("model_id", model_id))
                geo = str(made.change.get("inference_geo", geo))
        to = self._priced(model_id, geo)
        if to is None:
            return None
        space = self._space(model_id)
        return Flight(
            self.live.autopilots,
            self.live.policy,
            self.now_us,
            self.who.key,
            self.who.session,
            model_id,
            *to,
            space,
            decided,
        )

    # --- cache points

    def _cached(self, decided: list[Decided], flight: Flight) -> list[Decided]:
        """With the cache points placed. The prompt is looked at for one lever: an applied one, if there is any."""
        levers = [at for at, made in enumerate(decided) if made.lever in ("cache", "ttl")]
        levers.sort(key=lambda at: decided[at].outcome == REFUSED)
        for at in levers[:1]:
            entry = self._entry(decided[at].entry)
            if entry is not None and isinstance(self.read, dict):
                flight.entry = entry
                decided = [*decided]
                decided[at] = self._placed(decided[at], entry, flight)
        return decided

    def _placed(self, made: Decided, entry: Entry, flight: Flight) -> Decided:
        thinks = made.lever == "cache" and made.outcome != REFUSED and not is_fixed(made.change)
        prompt = self._prompt()
        if isinstance(prompt, str) and thinks:
            return made._replace(outcome=REFUSED, reason=prompt, change={})
        if isinstance(prompt, str):
            return self._fixed(made, flight)[0] if made.lever == "cache" and made.change else made
        return self._piloted(made, prompt, flight) if thinks else self._watched(made, prompt, flight)

    def _prompt(self) -> Prompt | str:
        """The prompt as pilots see it, or why none does."""
        if not compiled():
            return "an autopilot wants numba: pip install 'farthing[fast]'"
        if not self.live.autopilots.warmth.there:
            return "the autopilot is still being compiled"
        try:
            return prompt_seen(self.read, self.live.autopilots.hashing)
        except (Rejected, LookupError, TypeError, AttributeError) as error:
            return f"its prompt could not be taken apart: {error}"[:200]

    def _pilot(self, made: Decided, policy: str, flight: Flight) -> Pilot | None:
        least = self._least(flight.model_id)
        if least is None:
            return None
        crew = self.live.autopilots
        name = made.entry if made.outcome == APPLIED else f"{made.entry} {made.outcome}"
        return crew.pilot(name, flight.sku, policy, flight.rates, least, flight.space, self.now_us)

    def _piloted(self, made: Decided, prompt: Prompt, flight: Flight) -> Decided:
        """The pilot's own choice."""
        policy = str(made.change["cache_policy"])
        pilot = self._pilot(made, policy, flight)
        if pilot is None:  # the policy has asked already
            return made._replace(
                outcome=REFUSED, reason="nobody has published from where it caches", change={}
            )
        flight.sighting = seen = pilot.see(prompt, self.now_us, flight.space)
        flight.ours, flight.shadow = made.outcome == APPLIED, made.outcome != APPLIED
        points = [(prompt.spots[at], TTL_OF[ttl]) for at, ttl in seen.marked.breakpoints]
        what = ", ".join(f"{prompt.place(at)} {TTL_OF[ttl]}" for at, ttl in seen.marked.breakpoints)
        expected = seen.marked.expected
        if not points:
            return made._replace(reason=f"{running(policy)}: no cache point pays here", change={})
        reason = f"{running(policy)}: {what}; about {expected.cache_read:,} tokens read, "
        reason += f"{expected.cache_write_5m + expected.cache_write_1h:,} written"
        return made._replace(reason=reason, change={"placed": tuple(points)})

    def _fixed(self, made: Decided, flight: Flight) -> tuple[Decided, tuple[tuple[int, str], ...]]:
        """Cache points at the same places always."""
        short = self.live.autopilots.is_short(flight.space, flight.sku.model, self.now_us)
        found = placed(self.read, made.change, self._least, flight.model_id, short=short)
        if isinstance(found, str):
            return made._replace(outcome=REFUSED, reason=found, change={}), ()
        return made._replace(change={"placed": found}), found

    def _watched(self, made: Decided, prompt: Prompt, flight: Flight) -> Decided:
        """What the cache points are expected to do, whoever placed them."""
        marks = prompt.marks
        if made.lever == "cache" and made.change:
            made, found = self._fixed(made, flight)
            at = {spot: position for position, spot in enumerate(prompt.spots)}
            marks = tuple((at[spot], ttl) for spot, ttl in found if spot in at)
            flight.shadow = made.outcome != APPLIED
        elif made.lever == "ttl" and made.outcome == APPLIED:
            marks = tuple((at, made.change["markers"][0].ttl) for at, _ in marks)
        flight.ours = made.outcome == APPLIED
        pilot = self._pilot(made, "none", flight)
        if pilot is not None and not flight.shadow:
            with suppress(ValueError):  # the service will refuse it: more than four, or 1h behind 5m
                flight.sighting = pilot.see(prompt, self.now_us, flight.space, marks)
        return made
