"""Moments as AWS writes them. They are microseconds since 1970 UTC, and cut, never rounded."""

from __future__ import annotations

from datetime import UTC, date, datetime


def at(at_us: int) -> datetime:
    """To the second."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC)


def day(at_us: int) -> date:
    return at(at_us).date()


def iso(at_us: int) -> str:
    return at(at_us).strftime("%Y-%m-%dT%H:%M:%SZ")


def compact(at_us: int) -> str:
    """As in the names of log objects."""
    return at(at_us).strftime("%Y%m%dT%H%M%S") + f"{at_us // 1000 % 1000:03d}Z"


def hour_path(at_us: int) -> str:
    return at(at_us).strftime("%Y/%m/%d/%H")


def hour(at_us: int) -> str:
    """The hour as a bill has it."""
    return at(at_us).strftime("%Y-%m-%dT%H:00:00Z")
