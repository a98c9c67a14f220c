"""The time of a queue: one that no step of the machine's clock moves, the same for every process of the machine.

Deadlines are promises of a duration. So a queue notes once per boot what time it was, and counts on from there with a
clock that only runs forward, also while the machine sleeps.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

SECOND = 1_000_000
HOUR = 3600 * SECOND
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Anchor(NamedTuple):
    """`wall_us` was the time when the steady clock said `steady_us`. `speed` is for tests: a faster clock."""

    boot: str
    wall_us: int
    steady_us: int
    speed: int = 1

    def now_us(self) -> int:
        return self.wall_us + (steady_us() - self.steady_us) * self.speed


def anchor(speed: int = 1, before: Anchor | None = None) -> Anchor:
    """As of now; after another boot, never earlier than where the last one began."""
    wall = time.time_ns() // 1000
    if before is not None:
        wall, speed = max(wall, before.wall_us), before.speed
    return Anchor(boot_id(), wall, steady_us(), speed)


def steady_us() -> int:
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1000


def boot_id() -> str:
    """Names this run of the machine; where nothing does, its steady clock is all there is to go by."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return "steady"
