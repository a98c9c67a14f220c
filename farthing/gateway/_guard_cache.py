"""What the bill says of the cache, against what was expected of it: entries that fail, caches that break, and where.

Windows of the last minutes, in whole tokens and picodollars. What is found is an `Alarm`; who acts on it is not here.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from farthing.gateway._autopilot import Prompt
from farthing.meters import Vector
from farthing.money import show

MINUTE_US = 60_000_000
WINDOW_US = 15 * MINUTE_US
FEW, SOME = 10, 30  # calls before anything is said: of reads that are missing, of what costs more
AGAIN_US = 60 * MINUTE_US  # before the same is said again
DOWNGRADED = 2  # writes for an hour that are billed for five minutes
MOST_TALKS = 2_000  # conversations whose last prompt is remembered
MOST_BLOCKS = 500_000  # of all of them
MOST_STEMS = 64
_ENDS = 5  # so many blocks at the end of a prompt may be gone in the next: reminders, the date


class Alarm(NamedTuple):
    """`kind` is reverted, downgraded or broken; `picos` are what it costs in an hour, as far as that is known."""

    kind: str
    entry: str
    says: str
    at_us: int
    picos: int = 0


class _Call(NamedTuple):
    at_us: int
    expected_read: int
    read: int
    prompt: int
    expected_cached: int
    cached: int


@dataclass
class Window:
    """The calls of the last minutes, added up."""

    calls: deque[_Call] = field(default_factory=deque)
    sums: list[int] = field(default_factory=lambda: [0] * 5)

    def add(self, call: _Call) -> None:
        self.calls.append(call)
        self.sums = [a + b for a, b in zip(self.sums, call[1:], strict=True)]
        while self.calls[0].at_us < call.at_us - WINDOW_US:
            self.sums = [a - b for a, b in zip(self.sums, self.calls.popleft()[1:], strict=True)]

    @property
    def span_us(self) -> int:
        return max(MINUTE_US, self.calls[-1].at_us - self.calls[0].at_us)


@dataclass
class Guard:
    """Of one entry's calls at one SKU. `places`: the cache points are ours, so no cache is the other way."""

    entry: str
    places: bool
    window: Window = field(default_factory=Window)
    baseline: tuple[int, int] = (
        0,
        0,
    )  # prompt tokens and those read, before the window; what is older counts less
    spent: tuple[int, int] = (0, 0)  # picodollars of prompts, and without a cache; what is older counts less
    calls: int = 0
    since_us: int = 0
    short: int = 0

    def note(self, at_us: int, expected: Vector, billed: Vector, rates: Vector) -> Alarm | None:
        """`expected` in the tokens of the bill. An alarm means that the entry is to be taken back."""
        prompt = billed.prompt
        cost = billed._replace(output=0) @ rates
        self.calls, self.since_us = self.calls + 1, self.since_us or at_us
        self.spent = (self.spent[0] * 199 // 200 + cost, self.spent[1] * 199 // 200 + prompt * rates.input)
        if len(self.window.calls) >= FEW:
            first = self.window.calls[0]
            self.baseline = (
                self.baseline[0] * 99 // 100 + first.prompt,
                self.baseline[1] * 99 // 100 + first.read,
            )
        made = _Call(
            at_us, expected.cache_read, billed.cache_read, prompt, expected.cached, billed.cached
        )  # fmt: skip
        self.window.add(made)
        return self._missing(at_us, rates) or self._dearer(at_us)

    def _missing(self, at_us: int, rates: Vector) -> Alarm | None:
        """Reads that do not come; or cache points that are taken for nothing at all."""
        expected, read, _, expected_cached, cached = self.window.sums
        waited = sum(call.expected_read > 0 for call in self.window.calls) if read * 2 < expected else 0
        if waited >= FEW:
            says = f"{read:,} tokens were read from the cache where {expected:,} were expected, in {waited} calls"
            picos = (expected - read) * (rates.cache_write_5m - rates.cache_read)
            return Alarm("reverted", self.entry, says, at_us, picos * AGAIN_US // self.window.span_us)
        waited = (
            sum(call.expected_cached > 0 for call in self.window.calls) if cached * 2 < expected_cached else 0
        )
        if waited >= FEW:
            says = f"{cached:,} tokens were read or written where {expected_cached:,} were expected, in {waited} calls"
            return Alarm("reverted", self.entry, says, at_us)
        return None

    def _dearer(self, at_us: int) -> Alarm | None:
        """What is written is paid at once and read later: so not before some minutes have gone."""
        billed, plain = self.spent
        if not self.places or self.calls < SOME or at_us - self.since_us < WINDOW_US:
            return None
        if billed * 100 <= plain * 102:
            return None
        says = f"prompts cost {show(billed)} lately, and {show(plain)} without a cache"
        return Alarm("reverted", self.entry, says, at_us)

    def downgraded(self, expected: Vector, billed: Vector) -> bool:
        """Whether what was asked for an hour is billed for five minutes: several times, so that it is no accident."""
        if expected.cache_write_1h and not billed.cache_write_1h and billed.cache_write_5m:
            self.short += 1
            return self.short == DOWNGRADED
        if billed.cache_write_1h:
            self.short = 0
        return False

    def dropped(self, rates: Vector) -> tuple[str, int] | None:
        """In words and picodollars an hour, where much less of the prompts is read than before."""
        _, read, prompt, _, _ = self.window.sums
        before, was = self.baseline
        if len(self.window.calls) < FEW or not before or not prompt or was * 100 < before * 30:
            return None
        if read * before * 2 >= was * prompt:
            return None
        lost = prompt * was // before - read
        picos = lost * (rates.cache_write_5m - rates.cache_read) * AGAIN_US // self.window.span_us
        return (
            f"{100 * read // prompt} % of prompts is read from the cache, {100 * was // before} % before",
            picos,
        )


# --- which block changed ---------------------------------------------------------------------------------------------


class Change(NamedTuple):
    """A block that is not what it was, and the tokens' weight behind it that were the same: lost to the cache."""

    place: str
    lost: int


@dataclass
class Churn:
    """Prompts of one entry's calls against those before them. Only hashes are remembered, of so many blocks at most."""

    stems: OrderedDict[tuple[bytes, ...], int] = field(default_factory=OrderedDict)  # and their weights
    talks: OrderedDict[str, tuple[tuple[bytes, ...], int]] = field(default_factory=OrderedDict)
    held: int = 0

    def note(self, prompt: Prompt, session: str) -> Change | None:
        """What changed since the request before it: of its session, else of those whose prompts begin much like it."""
        talk = prompt.blocks[prompt.stem :]
        name = session or (talk[0].hex() if len(talk) > 1 else "")
        before, start = self.talks.pop(name, ((), 0)) if name else ((), 0)
        found = self._stem(prompt, before[:start] if session else None)
        if name:
            self.talks[name] = prompt.blocks, prompt.stem
            self.held += len(prompt.blocks) - len(before)
        while len(self.talks) > MOST_TALKS or self.held > MOST_BLOCKS:
            self.held -= len(self.talks.popitem(last=False)[1][0])
        return found or _edited(prompt, before[start:], talk)

    def _stem(self, prompt: Prompt, own: tuple[bytes, ...] | None) -> Change | None:
        """Tools and system prompt that were never seen, against those they come from: of the session, if it has one.

        Agents of one session have stems of their own: what has few blocks in common and another length is another's.
        """
        stem, weight = prompt.blocks[: prompt.stem], sum(prompt.sizes[: prompt.stem])
        if not stem:
            return None
        found = None
        others = list(reversed(self.stems)) if own is None else [own]
        for before in [] if stem in self.stems else others:
            size = self.stems.get(before, 0)
            alike = len(set(before) & set(stem)) * 2 >= len(stem)
            if alike or (len(before) == len(stem) and abs(size - weight) * 50 <= weight):
                found = _changed(prompt, before, stem)
                break
        self.stems[stem] = weight
        self.stems.move_to_end(stem)
        if len(self.stems) > MOST_STEMS:
            self.stems.popitem(last=False)
        return found


def _changed(prompt: Prompt, before: Sequence[bytes], stem: Sequence[bytes]) -> Change | None:
    at = _parted(before, stem)
    return Change(prompt.places[at], sum(prompt.sizes[at:])) if at < len(stem) else None


def _parted(before: Sequence[bytes], now: Sequence[bytes]) -> int:
    """The first position at which they are not the same."""
    at = 0
    for one, other in zip(before, now, strict=False):
        if one != other:
            break
        at += 1
    return at


def _edited(prompt: Prompt, before: tuple[bytes, ...], talk: tuple[bytes, ...]) -> Change | None:
    """A conversation that goes on, with a block in its middle changed: what follows is there still, at least half."""
    at = _parted(before, talk)
    rest = before[at + 1 :]
    if at >= len(before) - _ENDS or len(set(rest) & set(talk[at:])) * 2 < len(set(rest)):
        return None
    return Change(prompt.places[prompt.stem + at], sum(prompt.sizes[prompt.stem + at :]))


@dataclass
class Broken:
    """Changes of the last minutes, by place: one that comes again and again is a broken cache."""

    entry: str
    calls: deque[tuple[int, str, int]] = field(default_factory=deque)  # when, place or "", picodollars
    told: dict[str, int] = field(default_factory=dict)

    def note(self, at_us: int, change: Change | None, picos: int) -> None:
        self.calls.append((at_us, change.place if change else "", picos))
        while self.calls[0][0] < at_us - WINDOW_US:
            self.calls.popleft()

    def worst(self) -> tuple[str, int, int]:
        """The place that changed most often; how often; picodollars."""
        sums: dict[str, list[int]] = {}
        for _, place, picos in self.calls:
            if place:
                made = sums.setdefault(place, [0, 0])
                made[0] += 1
                made[1] += picos
        place = max(sums, key=lambda place: sums[place][0], default="")
        return (place, *sums[place]) if place else ("", 0, 0)  # type: ignore[return-value]

    def alarm(self, at_us: int, dropped: tuple[str, int] | None) -> Alarm | None:
        """Said once an hour for each place."""
        place, times, picos = self.worst()
        calls = len(self.calls)
        often = times * 2 >= FEW and times * 10 >= calls * 3
        if not often and dropped is None:
            return None
        key = place if often else "drop"
        if at_us - self.told.get(key, -AGAIN_US) < AGAIN_US:
            return None
        self.told[key] = at_us
        span = max(MINUTE_US, at_us - self.calls[0][0])
        hourly = picos * AGAIN_US // span if often else dropped[1] if dropped else 0
        why = f"{place} changed in {times} of {calls} calls" if often else "no block of the prompts changed"
        said = f"{dropped[0]}: {why}" if dropped else why
        return Alarm("broken", self.entry, f"{said}; {show(hourly)} an hour", at_us, hourly)
