"""What a change of model or endpoint would lose: the cache that a session has where it is. And who is throttled.

A session that has a cache alive stays where it is until that has expired: its next call would write anew all that it
now reads, which costs more than many calls save.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from farthing.gateway._autopilot import FIVE_US, HOUR_US
from farthing.meters import Vector
from farthing.money import show
from farthing.usage import Sku

MOST_SESSIONS = 20_000
THROTTLED_US = 60_000_000  # no other endpoint is tried for so long
SOME = 20  # calls before what is usual is told
KNOWN = 400  # calls from which what is usual is told


class Last(NamedTuple):
    """A session's last call: by which id, at which SKU, how much of it is cached and until when."""

    model_id: str
    sku: Sku
    cached: int
    until_us: int
    ttl_us: int


class Switches:
    """Where sessions are, and where it is throttled. In memory, and bounded."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], Last] = OrderedDict()
        self._throttled: dict[str, int] = {}
        self._usual: dict[
            str, tuple[int, Vector]
        ] = {}  # by entry: calls that were sent at once, and what they used

    def note(self, key: str, session: str, model_id: str, sku: Sku, billed: Vector, at_us: int) -> None:
        """A call of a session was billed."""
        if not session:
            return
        before = self._last.pop((key, session), None)
        ttl = FIVE_US
        if billed.cache_write_1h or (before and before.ttl_us == HOUR_US and billed.cache_read):
            ttl = HOUR_US
        self._last[key, session] = Last(model_id, sku, billed.cached, at_us + ttl, ttl)
        if len(self._last) > MOST_SESSIONS:
            self._last.popitem(last=False)

    def stays(self, key: str, session: str, lever: str, to: Sku, rates: Vector, now_us: int) -> str:
        """Why a lever (model, endpoint) is not to move a session to a SKU now; "" if it may, or has."""
        last = self._last.get((key, session)) if session else None
        if last is None or last.until_us <= now_us or not last.cached:
            return ""
        if getattr(last.sku, lever) == getattr(to, lever):
            return ""
        lost = last.cached * (rates.cache_write_5m - rates.cache_read)
        return (
            f"its session has {last.cached:,} tokens cached at {last.sku.model} {last.sku.endpoint}, which would be "
            f"written anew for {show(lost)}: it moves once they have expired"
        )

    def cached(self, key: str, session: str, now_us: int) -> int:
        """How many tokens of a session are in a cache now."""
        last = self._last.get((key, session)) if session else None
        return last.cached if last is not None and last.until_us > now_us else 0

    # --- what could have been a batch

    def sent(self, entry: str, billed: Vector) -> None:
        """A call was sent at once, of which a batch had been thought. Older ones count less and less."""
        calls, used = self._usual.get(entry, (0, Vector()))
        if calls >= KNOWN:
            calls, used = calls // 2, Vector(*(tokens // 2 for tokens in used))
        self._usual[entry] = calls + 1, used + billed

    def usual(self, entry: str) -> Vector | None:
        """What a call uses if it is sent at once; None before that was seen of some."""
        calls, used = self._usual.get(entry, (0, Vector()))
        return Vector(*(tokens // calls for tokens in used)) if calls >= SOME else None

    # --- throttling

    def throttled(self, model_id: str, now_us: int) -> None:
        self._throttled[model_id] = now_us + THROTTLED_US
        if len(self._throttled) > 1_000:
            self._throttled = {name: until for name, until in self._throttled.items() if until > now_us}

    def is_throttled(self, model_id: str, now_us: int) -> bool:
        return self._throttled.get(model_id, 0) > now_us
