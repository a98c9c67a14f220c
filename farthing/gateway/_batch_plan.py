"""What leaves the queue when, as pure functions: earliest deadline first, in jobs that end in time or not at all.

A request may go into a job as long as the job will probably end early enough to send by itself what came to nothing.
How long jobs take is learned from those that ended; until then the service's own limit of 24 hours is the worst case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from farthing.book import Book, Unpriced
from farthing.gateway._batch_clock import HOUR, SECOND
from farthing.gateway._batch_queue import Group, Row
from farthing.levers import batch
from farthing.meters import Vector
from farthing.money import show
from farthing.rating import find
from farthing.usage import Sku

LEAST = 100  # records of a Bedrock job: the quota as it is published; farthing.gateway._batch_limits asks for yours
WORST_US = 24 * HOUR
LIKELY_US = HOUR // 2  # while no job has ended
LINGER_US = 30 * SECOND  # for what else arrives, where nothing presses
SEND_US = 10 * SECOND  # of a request that is sent by itself, until some were
KNOWN = 20  # jobs that durations are told from


class Limits(NamedTuple):
    """Of one job of one model, and how many of them at once."""

    least: int = LEAST
    most: int = 50_000
    most_bytes: int = 128 << 20  # below the service's: it is made in memory
    jobs: int = 20


class Pace(NamedTuple):
    """How long a job takes: usually, and in the worst case that is reckoned with."""

    likely_us: int = LIKELY_US
    worst_us: int = WORST_US


class Margin(NamedTuple):
    """What must be left before a deadline, so that what came to nothing can be sent by itself."""

    base_us: int = HOUR // 4
    send_us: int = SEND_US
    senders: int = 8

    def of(self, requests: int) -> int:
        return self.base_us + requests * self.send_us // self.senders


class Release(NamedTuple):
    """Requests that leave the queue now: as a job, or each by itself, for a reason."""

    group: Group
    ids: tuple[str, ...]
    as_job: bool
    reason: str = ""


def pace(durations_us: Sequence[int]) -> Pace:
    """From how long jobs took that have ended, the newest last: the middle one, and half as much again as the
    longest."""
    known = sorted(durations_us[-KNOWN:])
    if not known:
        return Pace()
    return Pace(known[len(known) // 2], min(WORST_US, known[-1] * 3 // 2))


def plan(
    waiting: Sequence[Row],
    now_us: int,
    *,
    limits: Callable[[Group], Limits],
    paces: Callable[[Group], Pace],
    margin: Margin,
    open_jobs: Mapping[str, int],
    size: int,
) -> list[Release]:
    """`waiting` is in order of deadlines. `open_jobs` counts by model, whose quota it is."""
    groups: dict[Group, list[Row]] = {}
    for row in waiting:
        groups.setdefault(row.group, []).append(row)
    found: list[Release] = []
    taken = dict(open_jobs)
    jobs: list[tuple[int, Release]] = []
    for group, rows in groups.items():
        hopeless, rest = _split(rows, now_us, paces(group), margin, size)
        if hopeless:
            found.append(Release(group, _ids(hopeless), False, "too near its deadline for a batch"))
        ready = [row for row in rest if row.later_us <= now_us]
        free = limits(group).jobs - taken.get(group.model, 0)
        parts = _jobs(ready, now_us, limits(group), paces(group), margin, size, max(1, free))
        jobs += [(min(row.deadline_us for row in some), Release(group, _ids(some), True)) for some in parts]
    for _, job in sorted(jobs, key=lambda each: each[0]):
        model = job.group.model
        if taken.get(model, 0) < limits(job.group).jobs:
            taken[model] = taken.get(model, 0) + 1
            found.append(job)
    return found


def _ids(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(row.id for row in rows)


def _split(
    rows: Sequence[Row], now_us: int, pace: Pace, margin: Margin, size: int
) -> tuple[list[Row], list[Row]]:
    """(those that no batch can be in time for, the rest). Each leaves time to send a job's worth of those before it."""
    hopeless: list[Row] = []
    rest: list[Row] = []
    for place, row in enumerate(rows, 1):
        in_time = now_us + pace.likely_us + margin.of(min(place, size)) <= row.deadline_us
        (rest if in_time else hopeless).append(row)
    return hopeless, rest


def _jobs(
    rows: Sequence[Row], now_us: int, limits: Limits, pace: Pace, margin: Margin, size: int, free: int
) -> list[Sequence[Row]]:
    """Jobs to start now. What is left waits: for company, or for its time."""
    least = max(1, limits.least)
    if len(rows) < least:
        return []
    size = min(max(size, least), limits.most)
    spare_us = margin.of(min(len(rows), size))
    urgent = sum(row.is_held or now_us + pace.worst_us + spare_us >= row.deadline_us for row in rows)
    lingers = now_us - max(row.accepted_us for row in rows) < LINGER_US
    presses = _presses(rows, now_us + spare_us, pace) or _bears_no_more(rows, now_us)
    if len(rows) < size and (not urgent or (lingers and not presses)):
        return []
    rows = sorted(rows, key=lambda row: not row.is_held) if len(rows) < size else rows
    count = len(rows) if len(rows) >= size else max(urgent, least)
    if len(rows) - count < least:  # the rest would be too few for a job of its own
        count = len(rows)
    return _parts(rows[:count], max(1, min(count // size, free)), least, limits)


def _presses(rows: Sequence[Row], now_us: int, pace: Pace) -> bool:
    return now_us + pace.likely_us + 2 * LINGER_US >= rows[0].deadline_us


def _bears_no_more(rows: Sequence[Row], now_us: int) -> bool:
    """Whether somebody has waited on an open line for as long as company is waited for."""
    return any(row.is_held and now_us - row.accepted_us >= 10 * LINGER_US for row in rows)


def _parts(rows: Sequence[Row], parts: int, least: int, limits: Limits) -> list[Sequence[Row]]:
    """In order of deadlines, as even as can be, each within the limits: more parts until they are.

    Where a job of the least number of requests is too large already, those are left out of it.
    """
    while True:
        cuts = [len(rows) * part // parts for part in range(parts + 1)]
        found = [rows[start:end] for start, end in pairwise(cuts)]
        if all(
            len(part) <= limits.most and sum(row.size for row in part) <= limits.most_bytes for part in found
        ):
            return found
        if len(rows) < least * (parts + 1):
            return [part for part in found if sum(row.size for row in part) <= limits.most_bytes]
        parts += 1


def cutoff_us(deadlines_us: Sequence[int], margin: Margin) -> int:
    """When a job has to be given up, so that what it has not done can be sent in time: `deadlines_us` of those."""
    return min(
        (deadline - margin.of(place) for place, deadline in enumerate(sorted(deadlines_us), 1)),
        default=1 << 62,
    )


# --- batch, or cached and at once ------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """What a request comes to either way. `reason` says why it is not batched; "" if it is."""

    reason: str
    sync_picos: int | None = None
    batch_picos: int | None = None


def choose(book: Book, sku: Sku, tokens: Vector, at: datetime) -> Choice:
    """Whether a batch is the cheaper way for usage as it is when sent at once, with what it reads from the cache.

    A batch costs half and, on Bedrock, has no cache: with nine tenths of a prompt read from it, sending is cheaper.
    """
    rewritten = batch.rewrite(sku, tokens)
    if rewritten is None:
        return Choice("is no call at the usual rates")
    there, counted = rewritten
    card, now = find(book, there, at, counted), find(book, sku, at, tokens)
    if isinstance(card, Unpriced):
        return Choice(f"no batch price: {card.reason}")
    if isinstance(now, Unpriced):
        return Choice("", None, counted @ card.rates)
    sync, batched = tokens @ now.rates, counted @ card.rates
    if sync < batched:
        return Choice(
            f"cached and at once it costs {show(sync, 4)}, in a batch, which has no cache, {show(batched, 4)}",
            sync, batched,
        )  # fmt: skip
    return Choice("", sync, batched)


def with_hits(prompt: int, output: int, percent: int) -> Vector:
    """Usage of which so many percent of the prompt are read from the cache."""
    read = prompt * percent // 100
    return Vector(input=prompt - read, output=output, cache_read=read)
