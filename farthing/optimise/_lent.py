"""What lots of one model keep alive in the cache for each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from farthing.cache import FIVE_US, HOUR_US
from farthing.meters import Vector


class Lot(NamedTuple):
    """Calls of one workload to one model: caches are per model, so each lot is planned by itself."""

    workload: str
    platform: str
    model: str


class Sharer(NamedTuple):
    """A call that reads or warms a cache: the names of its prefixes, and the tokens that each adds."""

    lot: Lot
    at_us: int
    space: tuple[str, ...]  # account and region: nothing is shared between two of them
    path: Sequence[tuple[object, int]]
    billed: Vector


def lent(sharers: Iterable[Sharer]) -> dict[Lot, dict[Lot | None, int]]:
    """For each lot the tokens that it read and had not kept alive itself, by who had: None for several others.

    Calls of which no prefixes are known are taken to share what they read with all calls of their model and account.
    """
    calls = sorted(sharers, key=lambda one: one.at_us)
    models = defaultdict(set)
    hours = set()
    for one in calls:
        models[one.lot.platform, one.lot.model].add(one.lot)
        if one.billed.cache_write_1h > one.billed.cache_write_5m:
            hours.add(one.lot)
    found: dict[Lot, Counter[Lot | None]] = defaultdict(Counter)
    last: dict[tuple[object, ...], dict[Lot, int]] = defaultdict(dict)
    for one in calls:
        if len(models[one.lot.platform, one.lot.model]) == 1:
            continue
        tokens = own = 0
        keepers: list[Lot] = []
        alive = True
        for name, size in one.path:
            uses = last[one.lot.platform, one.lot.model, one.space, name]
            kept = [
                lot
                for lot, at_us in uses.items()
                if one.at_us - at_us <= (HOUR_US if lot in hours else FIVE_US)
            ]
            alive = alive and bool(kept)
            if alive:
                tokens, keepers = tokens + size, [lot for lot in kept if lot != one.lot]
                own = tokens if one.lot in kept else own
            uses[one.lot] = one.at_us
        borrowed = min(tokens, one.billed.cache_read) - min(own, one.billed.cache_read)
        if borrowed:
            found[one.lot][keepers[0] if len(keepers) == 1 else None] += borrowed
    return {lot: dict(by) for lot, by in found.items()}
