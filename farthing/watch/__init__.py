"""Sync, look, and tell each thing once: one round, and rounds on a schedule.

A round imports every source, looks for anomalies, budgets and dates ahead, and hands what is new to each channel. What
fails is an event itself, and no fault of the rest. What was told is kept beside the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from farthing.api import Imported
from farthing.cells import Question
from farthing.config import Channel, Config
from farthing.ledger import Ledger, LedgerError
from farthing.notify import PAUSES, NotifyError
from farthing.sync import Synced, sync, total
from farthing.watch import _told
from farthing.watch._events import MINIMUM, Event, checks, failed_check, failed_sources
from farthing.watch._messages import send, text

__all__ = ["MINIMUM", "TERMINAL", "Event", "Round", "look", "round_of", "send", "text", "try_out", "wanted"]

TERMINAL = "terminal"  # the channel of those who have no other: the caller prints
_TICK = timedelta(microseconds=1)


class Look(NamedTuple):
    """What there is to tell, and the beginnings of keys that were looked at without fault."""

    events: list[Event]
    looked_at: tuple[str, ...]


@dataclass
class Round:
    """What a round did: `told` are the events handed to some channel, `failures` a line a channel that failed."""

    imported: Imported = field(default_factory=Imported)
    events: list[Event] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    cleared: int = 0

    def sentence(self) -> str:
        said = [f"{self.imported.imported:,} calls imported"]
        if self.imported.errors:
            said.append(f"{len(self.imported.errors):,} errors")
        said.append(f"{len(self.events)} events, {len(self.told)} told")
        if self.cleared:
            said.append(f"{self.cleared} over")
        return ", ".join(said + self.failures)


def round_of(
    ledger: Ledger,
    question: Question,
    now: datetime,
    *,
    minimum: int = MINIMUM,
    stopped: Callable[[], bool] = lambda: False,
    pauses: Sequence[float] = PAUSES,
) -> Round:
    """Sync, look and tell, as of now. `stopped` is asked between sources: what is not read is read next time."""
    config = question.config
    done = Round()
    synced: list[Synced] = []
    seen: list[Event] = []
    try:
        for result in sync(ledger, config, now=now):
            synced.append(result)
            if stopped():
                break
    except LedgerError as error:
        seen.append(failed_check("the ledger", error))
    done.imported = total(synced)
    seen += failed_sources(synced)
    found = look(ledger, question, now, minimum)
    done.events = seen + found.events
    looked_at = (*found.looked_at, *(f"sync/{result.source.path}" for result in synced), "check/")
    try:
        _tell(ledger, config, done, looked_at, now, pauses)
    except LedgerError as error:  # without it nobody knows what was told
        done.failures.append(str(error))
    return done


def look(ledger: Ledger, question: Question, now: datetime, minimum: int = MINIMUM) -> Look:
    """What the ledger has to tell as it is."""
    prefixes = {"anomalies": ("anomaly/", "silent/"), "budgets": (), "prices": ()}
    events: list[Event] = []
    looked_at: list[str] = []
    for name, check in checks(ledger, question, now, minimum).items():
        try:
            events += check()
            looked_at += prefixes[name]
        except (LedgerError, OSError, ValueError) as error:
            events.append(failed_check(name, error))
    return Look(events, tuple(looked_at))


def _tell(
    ledger: Ledger,
    config: Config,
    done: Round,
    looked_at: tuple[str, ...],
    now: datetime,
    pauses: Sequence[float],
) -> None:
    """Claim what nobody has told, hand it over, and note what became of it: each channel for itself."""
    done.cleared = _told.clear(ledger, {event.key for event in done.events}, looked_at, now)
    channels = config.notify or (Channel(TERMINAL, TERMINAL),)
    by_key = {event.key: event for event in done.events}
    pairs = [(event.key, channel.name) for channel in channels for event in wanted(channel, by_key.values())]
    ours = _told.claim(ledger, pairs, now)
    mine = {channel: [by_key[key] for key, name in ours if name == channel.name] for channel in channels}
    busy = [channel for channel in channels if mine[channel]]
    with ThreadPoolExecutor(max(1, len(busy))) as threads:  # one that hangs does not hold up the rest
        failures = list(threads.map(lambda channel: _hand(channel, config, mine[channel], pauses), busy))
    told: set[str] = set()
    for channel, failure in zip(busy, failures, strict=True):
        keys = [event.key for event in mine[channel]]
        state = _told.FAILED if failure else _told.TOLD
        _told.note(ledger, [(key, channel.name) for key in keys], state, now + _TICK)
        if failure:
            done.failures.append(f"{channel.name}: {failure}; again next round")
        else:
            told.update(keys)
    done.told = [event for event in done.events if event.key in told]


def wanted(channel: Channel, events: Iterable[Event]) -> list[Event]:
    """The events that a channel asks for. One of no single team is for the channels that ask for no team."""
    return [
        event
        for event in events
        if (not channel.events or event.kind in channel.events)
        and (not channel.teams or event.team in channel.teams)
    ]


def _hand(channel: Channel, config: Config, events: list[Event], pauses: Sequence[float]) -> str:
    """Why it was not delivered; "" if it was."""
    if channel.kind == TERMINAL:
        return ""
    try:
        send(channel, config, events, pauses)
    except NotifyError as error:
        return str(error)
    return ""


def try_out(config: Config, now: datetime, pauses: Sequence[float] = PAUSES) -> dict[str, str]:
    """A test message to each channel: its name, and why it was not delivered, or "" if it was."""
    event = Event(
        "test",
        "sync",
        "this is a test of farthing watch",
        (
            ("what", "anomalies, budgets and failed imports will be told here, each once"),
            ("sent", f"{now:%Y-%m-%d %H:%M} UTC"),
        ),
    )
    return {channel.name: _hand(channel, config, [event], pauses) for channel in config.notify}
