"""What is learned of calls by what they were billed: pilots, the cache guard, sessions. In memory, and bounded.

A call carries its `Flight`, which is told what became of it; `Autopilots` is what all calls of a process share.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from farthing.book import Book
from farthing.gateway._autopilot import TTL_OF, Pilot, Sighting, Warmth, share
from farthing.gateway._autopilot_arms import Arms
from farthing.gateway._autopilot_switch import Switches
from farthing.gateway._guard_cache import Alarm, Broken, Churn, Guard
from farthing.meters import Vector
from farthing.outbox import Decision
from farthing.policy import (
    APPLIED,
    LEVERS,
    NOT_IN_SHARE,
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
from farthing.usage import Sku

MOST_PILOTS = 16  # of at most 60 MB, and hashes
THROTTLED = (429, 503, 529)
REFUSING = (400, 403, 404)  # what may be refused because it was changed: 1h, a model, a profile not allowed
# What AWS lists no rate of a 1h write for: Bedrock answers such a cache point with an error.
NO_HOUR = frozenset({
    "claude-opus-4-1", "claude-opus-4", "claude-sonnet-4", "claude-3-7-sonnet", "claude-3-5-haiku",
    "claude-3-5-sonnet-v2",
})  # fmt: skip
MOST_DOUBTS = 3
SHORT_US = 24 * 3_600_000_000  # then an hour is tried again

log = logging.getLogger("farthing.policy")


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
    entries: Mapping[str, Entry] = field(default_factory=dict)  # by name, of the levers that were decided on
    entry: Entry | None = None  # of the cache lever
    ours: bool = False  # its cache points, or lifetimes, are
    shadow: bool = False
    others: Sequence[tuple[str, Vector]] = ()  # entries in shadow, and the rates of what they would call
    withdrawn: bool = False  # by an attempt that was not billed
    suspect: bool = False  # it was refused as the policy had changed it, and goes as it came

    @property
    def moved(self) -> bool:
        """Whether it goes to another endpoint."""
        return any(made.lever == "endpoint" and made.outcome == APPLIED for made in self.decided)

    def suspected(self) -> Flight:
        """The same call once more, as it came."""
        return replace(self, sighting=None, others=(), suspect=True)

    def landed(self, billed: Vector | None, *, split: bool) -> None:
        """It was billed; None: and nobody knows what. `split`: the bill says which writes live for an hour."""
        with self.crew.lock:
            self._billed(billed, split=split)

    def lost(self, status: int) -> None:
        """It was not billed. `status` is that of the answer, 0 without one."""
        with self.crew.lock:
            if self.sighting is not None and not self.withdrawn:
                self.sighting.pilot.withdraw(self.sighting)
                self.withdrawn = True
            if self.moved and not self.suspect and status in THROTTLED:
                self.crew.switches.throttled(self.model_id, self.at_us)
            if status in REFUSING:
                self.crew.doubt(self, -1 if self.suspect else 1)

    def _billed(self, billed: Vector | None, *, split: bool) -> None:
        crew, seen = self.crew, self.sighting
        if self.suspect:
            crew.refused(self)
            return
        taken = [made.entry for made in self.decided if made.outcome == APPLIED]
        crew.doubts.update((name, -1) for name in taken)
        for name in taken:
            crew.slips.pop(name, None)
        if billed is not None:
            for made in self.decided:
                if made.lever == "endpoint":
                    self._weigh(made, billed)
                elif made.lever == "batch":
                    crew.switches.sent(made.entry, billed)
            for entry, rates in self.others:
                crew.shadows.append((entry, billed @ self.rates, billed @ rates))
        if seen is None:
            return
        if self.withdrawn:  # and made again
            marks = [(at, TTL_OF[ttl]) for at, ttl in seen.marked.breakpoints]
            seen = seen.pilot.see(seen.prompt, self.at_us, self.space, marks, self.session)
            self.sighting, self.withdrawn = seen, False
        seen.pilot.settle(seen, None if self.shadow else billed, split=split)
        if billed is not None and not self.shadow and self.entry is not None:
            crew.judge(self, seen, billed, split=split)

    def _weigh(self, made: Decided, billed: Vector) -> None:
        """What the endpoint saves, less what is lost at its cache."""
        crew, name, model = self.crew, made.entry, self.sku.model
        entry, key = self.entries.get(name), self.key or self.session
        if entry is None or key in entry.keys:  # who is in by name was not drawn by lot
            return
        applied = made.outcome == APPLIED
        if applied or made.reason.startswith(NOT_IN_SHARE):
            crew.arms.count(name, model, key, billed, self.rates, applied=applied)
        if not crew.reverted(entry) and (why := crew.arms.dearer(name, model)):
            crew.take_back(entry, Alarm("reverted", name, why, self.at_us), self.policy)


@dataclass
class Autopilots:
    """All that is learned of calls in this process, in bounded memory. Used under its lock."""

    alarm: Callable[[Alarm], None] | None = None  # told of each; from a thread of its own
    switches: Switches = field(default_factory=Switches)
    arms: Arms = field(default_factory=Arms)
    warmth: Warmth = field(default_factory=Warmth)
    alarms: deque[Alarm] = field(default_factory=lambda: deque(maxlen=100))  # to be counted
    shadows: deque[tuple[str, int, int]] = field(  # an entry, picodollars as called and as it would have been
        default_factory=lambda: deque(maxlen=1_000)
    )
    lock: threading.RLock = field(default_factory=threading.RLock)
    hashing: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _pilots: OrderedDict[tuple[Any, ...], Pilot] = field(default_factory=OrderedDict)
    _guards: OrderedDict[tuple[Any, ...], Guard] = field(default_factory=OrderedDict)
    _churns: OrderedDict[str, tuple[Churn, Broken]] = field(default_factory=OrderedDict)
    _off: dict[str, tuple[Entry, str]] = field(default_factory=dict)
    _short: dict[tuple[str, ...], int] = field(default_factory=dict)
    doubts: dict[str, int] = field(
        default_factory=dict
    )  # refusals of an entry's calls; -1 once one was taken
    slips: dict[str, int] = field(default_factory=dict)  # in a row, once one was taken
    _notices: deque[Decision] = field(default_factory=lambda: deque(maxlen=20))
    _deciders: tuple[Loaded | None, dict[frozenset[str], Decide]] = (None, {})

    # --- what is decided

    def decide(
        self, loaded: Loaded, book: Book, request: Request, now_us: int, hold: Callable[[Decided], str]
    ) -> list[Decided]:
        """As the policy has it, but for the entries that are held back, each with the reason."""
        now = instant(now_us)
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
        """Whether there is no hour to be had there, or it is billed as five minutes, by whatever id it is called."""
        if space[0] == "bedrock" and model in NO_HOUR:
            return True
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
        ratios = tuple(
            rate * 1000 // rates.input for rate in rates[2:]
        )  # a long prompt's rates have the same
        key = (entry, sku, policy, ratios, minimum)
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
        dropped = guard.dropped(rates)
        if found is not None and not flight.ours:  # the client's own: not ours to take back
            dropped = dropped or (found.says, found.picos)
        if alarm := broken.alarm(now, dropped):
            self._tell(alarm)
        if found is not None and flight.ours:
            del self._guards[entry, flight.sku]
            self.take_back(entry, found, flight.policy)

    def _downgrade(self, flight: Flight, pilot: Pilot, guard: Guard) -> None:
        self._short[*flight.space[:3], flight.sku.model] = flight.at_us
        pilot.plan(short=True)
        says = f"{flight.sku.model}: writes for an hour are billed for five minutes; it is planned for five minutes"
        self._tell(Alarm("downgraded", guard.entry, says, flight.at_us))

    def doubt(self, flight: Flight, by: int) -> None:
        """A refusal that may be a lever's doing: three, and no call of the entry that was ever taken, and it is.

        -1: as it came it is refused too, so it was not.
        """
        for made in flight.decided:
            if made.outcome == APPLIED and made.change and (count := self.doubts.get(made.entry, 0)) >= 0:
                self.doubts[made.entry] = max(0, count + by)
                if count + by == MOST_DOUBTS:
                    self.refused(flight)

    def refused(self, flight: Flight) -> None:
        """What the service takes as it came, and not as levers had changed it: these are not applied again.

        One that was taken before has three in a row: it may be that request alone, too long for the other model, say.
        """
        for made in flight.decided:
            entry = flight.entries.get(made.entry)
            if made.outcome == APPLIED and made.change and entry is not None:
                if self.doubts.get(entry.name) == -1:
                    self.slips[entry.name] = self.slips.get(entry.name, 0) + 1
                    if self.slips[entry.name] < MOST_DOUBTS:
                        continue
                says = "the service refuses what it changes, and takes the same as it comes"
                self._off[entry.name] = entry, f"the cache guard took it back: {says}"
                self._tell(Alarm("reverted", entry.name, says, flight.at_us))

    def take_back(self, entry: Entry, alarm: Alarm, policy: Path | None) -> None:
        """At once here, out of the file, and told."""
        self._tell(alarm)
        why = f"the cache guard took it back: {alarm.says}"
        self._off[entry.name] = entry, why
        self._notices.append(Decision(entry.lever, f"refused: {entry.name}: {why}"[:300]))
        if policy is not None:
            _aside(_take_back, policy, entry.name, alarm.says)

    def _tell(self, alarm: Alarm) -> None:
        self.alarms.append(alarm)
        log.error("%s: %s: %s", alarm.kind, alarm.entry, alarm.says)
        if self.alarm is not None:
            _aside(self.alarm, alarm)


def _take_back(policy: Path, entry: str, why: str) -> None:
    """Out of the file too, for other processes and for people. Who may not write it has it back in this process."""
    try:
        undo(policy, entry, by="the cache guard", now=datetime.now(UTC), why=why)
    except PolicyError as error:
        log.error("%s stays in the file: %s", entry, error)  # noqa: TRY400


def _aside(function: Callable[..., None], *args: Any) -> None:
    threading.Thread(target=function, args=args, name="farthing-guard", daemon=True).start()


def instant(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).replace(microsecond=at_us % 1_000_000)
