"""What has been told, and by which channel: rows beside the usage, in commits of which one of two watchers loses.

claimed -> told, or failed and claimed again; cleared once it is over, after which it may be told anew. Who is killed
between claiming and telling leaves a claim that lapses: then it may be told twice, but never not at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from farthing.ledger import Ledger

CLAIMED, TOLD, FAILED, CLEARED = "claimed", "told", "failed", "cleared"
LAPSES = timedelta(minutes=15)

Told = tuple[str, str]  # the key of an event, and the name of a channel


def known(ledger: Ledger) -> dict[Told, tuple[str, datetime]]:
    """Each event and channel with what happened last, and when."""
    if ledger.delta("alerts") is None:
        return {}
    rows = ledger.table("alerts").aggregate(
        'event, channel, arg_max(state, "at"), epoch_us(max("at"))', "event, channel"
    )
    from farthing.usage import EPOCH

    return {
        (event, channel): (state, EPOCH + timedelta(microseconds=at))
        for event, channel, state, at in rows.fetchall()
    }


def claim(ledger: Ledger, wanted: Iterable[Told], now: datetime) -> list[Told]:
    """Those of the wanted that nobody has told or is telling: they are ours to tell."""
    wanted = list(wanted)
    ours: list[Told] = []

    def rows() -> list[tuple[Any, ...]]:
        before = known(ledger)
        ours[:] = [told for told in wanted if _is_free(before.get(told), now)]
        return _rows(ours, CLAIMED, now)

    if wanted:
        ledger.add("alerts", rows)
    return ours


def _is_free(last: tuple[str, datetime] | None, now: datetime) -> bool:
    if last is None:
        return True
    state, at = last
    return state in (FAILED, CLEARED) or (state == CLAIMED and now - at > LAPSES)


def note(ledger: Ledger, told: Iterable[Told], state: str, now: datetime) -> None:
    rows = _rows(told, state, now)
    ledger.add("alerts", lambda: rows)


def clear(ledger: Ledger, present: set[str], looked_at: tuple[str, ...], now: datetime) -> int:
    """Note what was told, has a key that begins so, and is not present any more."""
    before = known(ledger)
    over = [
        told
        for told, (state, _) in before.items()
        if state in (TOLD, FAILED) and told[0] not in present and told[0].startswith(looked_at)
    ]
    note(ledger, over, CLEARED, now)
    return len(over)


def _rows(told: Iterable[Told], state: str, now: datetime) -> list[tuple[Any, ...]]:
    at = int(now.timestamp()) * 1_000_000 + now.microsecond
    return [(at, event, channel, state) for event, channel in told]
