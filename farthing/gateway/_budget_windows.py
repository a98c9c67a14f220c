"""The windows of a budget: minutes, hours, days, weeks and months of a zone, as microseconds since 1970 UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from farthing.usage import EPOCH

_MICRO = timedelta(microseconds=1)
_SHORT = {"minute": 60 * 10**6, "hour": 3600 * 10**6}


class Window(NamedTuple):
    """[start, end). Days are those of the calendar: 23 to 25 hours where the clocks change."""

    start_us: int
    end_us: int


def window(period: str, zone: ZoneInfo, at_us: int) -> Window:
    """The window that an instant lies in; weeks begin on Mondays.

    >>> spring = window("day", ZoneInfo("Europe/Berlin"), 1_774_785_600_000_000)  # 2026-03-29
    >>> (spring.end_us - spring.start_us) // 3_600_000_000
    23
    """
    local = (EPOCH + timedelta(microseconds=at_us)).astimezone(zone)
    if length := _SHORT.get(period):
        into = timedelta(minutes=local.minute if period == "hour" else 0, seconds=local.second)
        start = at_us - (into // _MICRO + local.microsecond)
        return Window(start, start + length)
    first = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0, tzinfo=None)
    if period == "week":
        first -= timedelta(days=first.weekday())
        last = first + timedelta(days=7)
    elif period == "month":
        first = first.replace(day=1)
        last = (first + timedelta(days=32)).replace(day=1)
    else:
        last = first + timedelta(days=1)
    return Window(_instant(first, zone), _instant(last, zone))


def _instant(midnight: datetime, zone: ZoneInfo) -> int:
    """Where the clocks skip midnight, the instant at which they do; where it comes twice, the first."""
    return (midnight.replace(tzinfo=zone).astimezone(UTC) - EPOCH) // _MICRO
