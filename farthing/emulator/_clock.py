"""The time of the emulator: the real one, one that began at another moment, one that runs faster or stands still."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from farthing.usage import EPOCH


class Clock:
    """`speed` is a whole number of emulated seconds to a real one; 0 stands still."""

    def __init__(self, at: datetime | None = None, speed: int = 1) -> None:
        self.speed = speed
        self._from_us = us_of(at) if at else time.time_ns() // 1000
        self._began_ns = time.monotonic_ns()

    def now_us(self) -> int:
        """Microseconds since 1970 UTC."""
        return self._from_us + (time.monotonic_ns() - self._began_ns) // 1000 * self.speed

    def set(self, at: datetime | None = None, speed: int | None = None, advance_s: int = 0) -> None:
        """Go on from another moment, at another speed, or later by so much."""
        now = us_of(at) if at else self.now_us()
        self._from_us, self._began_ns = now + advance_s * 1_000_000, time.monotonic_ns()
        self.speed = self.speed if speed is None else speed


def us_of(at: datetime) -> int:
    """Exact, unlike a timestamp in floating point."""
    span = at - EPOCH
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


def moment(text: str) -> datetime:
    """A time in ISO form; UTC where it names no zone. ValueError if it is none."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write 2026-11-22T08:00:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
