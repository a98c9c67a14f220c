"""What a policy does with a request, for proxy and hooks alike.

`apply` decides, holds back what would cost more than it saves now (a session has its cache elsewhere, an endpoint is
throttled, the cache guard took an entry back), places cache points and rewrites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from farthing.book import Card, Unpriced
from farthing.gateway._autopilot import BYTES_A_TOKEN, TTL_OF, Pilot, Prompt, compiled, prompt_seen, running
from farthing.gateway._autopilot_crew import Flight, instant
from farthing.gateway._autopilot_residency import forbidden
from farthing.gateway.live import Live, Who
from farthing.gateway.policy import Seen, is_fixed, least_of, look, placed, rewrite
from farthing.meters import Vector
from farthing.outbox import Decision
from farthing.policy import APPLIED, REFUSED, SHADOWED, Decided, Entry, Loaded, Request
from farthing.usage import Rejected, Sku
from farthing.wire import Asked, Route

_SWITCHES = ("model", "endpoint")
WhyNot = Callable[
    [Entry, Vector | None], str
]  # an entry's call is no batch, given what it uses if it is sent at once


class Applied(NamedTuple):
    """`body` is the one that was given where nothing changed, `model` what to call instead, "" for the same.

    `batch` is the entry by which it is to be a batch.
    """

    body: bytes
    model: str = ""
    batch: Entry | None = None
    decisions: tuple[Decision, ...] = ()
    flight: Flight | None = None


def apply(
    live: Live, who: Who, route: Route, asked: Asked, body: bytes, tags: Mapping[str, str], *,
    pinned: bool = False, no_batch: str | WhyNot = "", waits: bool = False,
) -> Applied:  # fmt: skip
    """What becomes of a request. `no_batch` is the driver's reason, if it sends none; `waits`: it is one by its client.

    What cannot be done leaves the request as it was.
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
    made = _Made(live, who, route, asked, body, read, request, loaded, live.clock_us(), no_batch, waits)
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
    no_batch: str | WhyNot
    waits: bool

    def applied(self) -> Applied:
        decided, batch = self._decided()
        told = self.live.autopilots.notices()
        if not decided:
            return Applied(self.body, decisions=told)
        decided = [self._said(each) for each in decided]
        flight = None if self.waits else self._flight(decided)
        if flight is not None:
            decided = flight.decided = self._cached(decided, flight)
        done = rewrite(self.route, self.body, decided, self._least)
        return Applied(done.body, done.model, batch, (*told, *done.decisions), flight)

    def _decided(self) -> tuple[list[Decided], Entry | None]:
        """Of what becomes a batch the other levers are asked once more, as of a batch: it has other prices, and no
        cache that a policy could plan."""
        found = [] if self.waits else self._asked_of(self.request)
        batch = next((each for each in found if each.lever == "batch" and each.outcome == APPLIED), None)
        if batch is None and not self.waits:
            return found, None
        self.waits = True
        found = self._asked_of(self.request._replace(mode="batch"))
        if batch is None:
            return found, None
        return [batch if each.entry == batch.entry else each for each in found], self._entry(batch.entry)

    def _asked_of(self, request: Request) -> list[Decided]:
        return self.live.autopilots.decide(self.loaded, self.live.book, request, self.now_us, self._held)

    def _usual(self, entry: Entry) -> Vector | None:
        """What such a call uses if it is sent at once, as far as that was seen."""
        switches = self.live.autopilots.switches
        cached = switches.cached(self.who.key, self.who.session, self.now_us)
        if cached:
            prompt = max(cached, len(self.body) // BYTES_A_TOKEN)
            return Vector(input=prompt - cached, output=self.asked.max_tokens or 1024, cache_read=cached)
        return switches.usual(entry.name)

    @property
    def _least(self) -> Callable[[str], int | None]:
        return least_of(self.live.book, self.who.platform, self.who.region, instant(self.now_us))

    def _entry(self, name: str) -> Entry | None:
        return next((entry for entry in self.loaded.policy.entries if entry.name == name), None)

    def _held(self, made: Decided) -> str:
        """Why it is not applied after all; "" if it is."""
        crew = self.live.autopilots
        if why := crew.reverted(self._entry(made.entry)):
            return why
        if made.lever == "batch":
            no_batch, batch = self.no_batch, self._entry(made.entry)
            if isinstance(no_batch, str) or batch is None:
                return str(no_batch)
            return no_batch(batch, self._usual(batch))
        if made.lever in ("cache", "ttl") and self.waits:
            return "a batch is not cached by a policy"
        if made.lever == "ttl" and made.change["markers"][0].ttl == "1h":
            to = self._priced(self.asked.model, self.asked.inference_geo)
            if to and crew.is_short(self._space(self.asked.model), to[0].model, self.now_us):
                return "an hour is not to be had here, or is billed as five minutes"
        if made.lever not in _SWITCHES:
            return ""
        model_id = str(made.change.get("model_id", self.asked.model))
        if made.lever == "endpoint" and not self.waits and crew.switches.is_throttled(model_id, self.now_us):
            return "the global endpoint throttles: the one that was asked for is called"
        if made.lever == "endpoint" and self.live.config is not None:
            told = self.who.account, self.who.team, self.who.principal, self.who.region
            if why := forbidden(self.live.config, *told, "global", instant(self.now_us).date()):
                return why
        to = self._priced(model_id, "" if "inference_geo" in made.change else self.asked.inference_geo)
        if to is None or self.waits:
            return ""
        return crew.switches.stays(self.who.key, self.who.session, made.lever, *to, self.now_us)

    def _said(self, made: Decided) -> Decided:
        """With what the other side's cache reads, and with the verdict by which a model is called."""
        entry = self._entry(made.entry)
        if made.lever == "endpoint" and made.outcome != REFUSED:
            return made._replace(reason=made.reason + self._shares(made))
        if made.lever == "model" and made.outcome != REFUSED and entry is not None and entry.verdict:
            return made._replace(reason=f"{made.reason} by the verdict {entry.verdict}")
        return made

    def _shares(self, made: Decided) -> str:
        to = self._priced(str(made.change.get("model_id", self.asked.model)), self.asked.inference_geo)
        return self.live.autopilots.arms.shares(made.entry, to[0].model) if to else ""

    def _priced(self, model_id: str, geo: str) -> tuple[Sku, Vector] | None:
        found = self.live.resolve(self.who, self.asked._replace(model=model_id, inference_geo=geo))
        if isinstance(found, Unpriced):
            return None
        card = self.live.book.find(found.sku, instant(self.now_us), len(self.body) // 4)
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
        return Flight(
            self.live.autopilots, self.live.policy, self.now_us, self.who.key, self.who.session, model_id, *to,
            self._space(model_id), decided, others=list(self._shadows(decided)),
            entries={made.entry: entry for made in decided if (entry := self._entry(made.entry))},
        )  # fmt: skip

    def _shadows(self, decided: Sequence[Decided]) -> Iterator[tuple[str, Vector]]:
        """What would be called by entries in shadow, by its rates."""
        for made in decided:
            if made.outcome == SHADOWED and made.lever in _SWITCHES:
                model_id = str(made.change.get("model_id", self.asked.model))
                to = self._priced(model_id, str(made.change.get("inference_geo", self.asked.inference_geo)))
                if to is not None:
                    yield made.entry, to[1]

    # --- cache points

    def _cached(self, decided: list[Decided], flight: Flight) -> list[Decided]:
        """With the cache points placed. The prompt is looked at for one lever: an applied one, if there is any."""
        levers = [at for at, made in enumerate(decided) if made.lever in ("cache", "ttl")]
        levers.sort(key=lambda at: decided[at].outcome == REFUSED)
        for at in levers[:1]:
            entry = self._entry(decided[at].entry)
            watched = decided[at].outcome != REFUSED or self.request.markers  # else nothing is cached
            if entry is not None and watched and isinstance(self.read, dict):
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
        if least is None or not flight.rates.cache_read:
            return None
        crew = self.live.autopilots
        name = made.entry if made.outcome == APPLIED else f"{made.entry} {made.outcome}"
        return crew.pilot(name, flight.sku, policy, flight.rates, least, flight.space, self.now_us)

    def _piloted(self, made: Decided, prompt: Prompt, flight: Flight) -> Decided:
        """The pilot's own choice."""
        policy = str(made.change["cache_policy"])
        pilot = self._pilot(made, policy, flight)
        if pilot is None:
            return made._replace(outcome=REFUSED, reason="it has no price for what is cached", change={})
        flight.sighting = seen = pilot.see(prompt, self.now_us, flight.space, session=self.who.session)
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
                flight.sighting = pilot.see(prompt, self.now_us, flight.space, marks, self.who.session)
        return made
