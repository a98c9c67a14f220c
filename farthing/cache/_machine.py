"""Prompt caching as it is billed: a pure function from what is cached and a request to its tokens by meter.

A state maps a prefix, by whatever names it (a hash), to what is kept under it. Nothing is shared between models,
accounts and speeds: each has a state of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from farthing.meters import Vector

from ._bound import FIVE_US, HOUR_US
from ._engine import BREAKPOINTS, DOCUMENTED, Semantics, blank, play, serve
from ._trace import Ints, Trace


class Refused(ValueError):
    """The API answers such a request with an error, and bills nothing."""


class Kept(NamedTuple):
    """Of a prefix, two things: its last segment, and the entry that ends there. Times in microseconds."""

    ttl_us: int
    expires_us: int
    ready_us: int
    entry_ttl_us: int
    entry_expires_us: int
    entry_ready_us: int


State = Mapping[Hashable, Kept]


class Request(NamedTuple):
    """`path` names each prefix of the prompt and says how many tokens it adds; `plain` more follow behind the last.

    A breakpoint is a position in the path and its TTL, FIVE_US or HOUR_US.
    """

    at_us: int
    path: Sequence[tuple[Hashable, int]]
    breakpoints: Sequence[tuple[int, int]] = ()
    output: int = 0
    plain: int = 0


class Bill(NamedTuple):
    """The tokens by meter, and up to which position they were read (-1: nothing was)."""

    tokens: Vector
    read_to: int


class Breakpoints(Protocol):
    """Request i of a trace has those from `starts[i]` to `starts[i + 1]`, in the order of their positions."""

    @property
    def starts(self) -> Ints: ...
    @property
    def positions(self) -> Ints: ...
    @property
    def ttl_us(self) -> Ints: ...


def bill(
    state: State, request: Request, minimum: int, semantics: Semantics = DOCUMENTED
) -> tuple[Bill, dict[Hashable, Kept]]:
    """What a request is billed, and what is kept after it.

    >>> hello = Request(0, [("tools", 2_000), ("question", 500)], [(0, FIVE_US)])
    >>> first, kept = bill({}, hello, 1_024)
    >>> first.tokens
    Vector(input=500, output=0, cache_read=0, cache_write_5m=2000, cache_write_1h=0)
    >>> bill(kept, hello._replace(at_us=1_000_000), 1_024)[0].tokens
    Vector(input=500, output=0, cache_read=2000, cache_write_5m=0, cache_write_1h=0)
    """
    check(request.breakpoints, len(request.path))
    names = [name for name, _ in request.path]
    if len(set(names)) < len(names):
        raise ValueError("a prefix is named twice in one path")
    sizes = np.array([size for _, size in request.path], np.int64)
    rows = blank(len(names))
    for row, name in zip(rows, names, strict=True):
        row[:] = state.get(name, row)
    billed = np.zeros(3, np.int64)
    read = serve(
        np.arange(len(names)),
        sizes,
        rows,
        np.array([at for at, _ in request.breakpoints], np.int64),
        np.array([ttl for _, ttl in request.breakpoints], np.int64),
        len(request.breakpoints),
        request.at_us,
        minimum,
        semantics,
        billed,
    )
    reads, five, hour = billed.tolist()
    tokens = Vector(int(sizes.sum()) + request.plain - reads - five - hour, request.output, reads, five, hour)
    kept = {name: Kept(*row) for name, row in zip(names, rows.tolist(), strict=True)}
    return Bill(tokens, int(read)), {
        **state,
        **{name: it for name, it in kept.items() if it.ttl_us or it.entry_ttl_us},
    }


def check(breakpoints: Sequence[tuple[int, int]], length: int) -> None:
    """Refused if the API would not take these breakpoints on a path of that length."""
    if len(breakpoints) > BREAKPOINTS:
        raise Refused(f"{len(breakpoints)} breakpoints: a request has at most {BREAKPOINTS}")
    positions = [at for at, _ in breakpoints]
    if any(not 0 <= at < length for at in positions):
        raise Refused(f"a breakpoint lies outside the prompt, which has {length} places for one")
    if sorted(set(positions)) != positions:
        raise Refused("breakpoints are not in the order of the prompt")
    ttls = [ttl for _, ttl in breakpoints]
    if not set(ttls) <= {FIVE_US, HOUR_US}:
        raise Refused("a breakpoint lives for five minutes or for an hour")
    if sorted(ttls, reverse=True) != ttls:
        raise Refused("a 1h breakpoint comes after a 5m one: the longer must be first")


def replay(trace: Trace, breakpoints: Breakpoints, minimum: int, semantics: Semantics = DOCUMENTED) -> Vector:
    """What a trace is billed with these breakpoints: a Vector of columns, one entry a request."""
    _check_all(trace, breakpoints)
    billed = np.zeros((trace.requests, 3), np.int64)
    play(
        trace.at_us,
        trace.starts,
        trace.nodes,
        trace.sizes,
        breakpoints.starts,
        breakpoints.positions,
        breakpoints.ttl_us,
        minimum,
        semantics,
        blank(len(trace.sizes)),
        billed,
    )
    return Vector(trace.prompt - billed.sum(1), trace.output, *billed.T)


def _check_all(trace: Trace, breakpoints: Breakpoints) -> None:
    """Refused if any request would be; looks one by one only where something is wrong."""
    starts, positions, ttls = breakpoints.starts, breakpoints.positions, breakpoints.ttl_us
    counts, lengths = np.diff(starts), np.diff(trace.starts)
    inside = np.ones(len(positions), bool)
    inside[starts[:-1][counts > 0]] = False
    inside = inside[1:]
    wrong = (
        (counts > BREAKPOINTS).any()
        or ((positions < 0) | (positions >= np.repeat(lengths, counts))).any()
        or (~np.isin(ttls, (FIVE_US, HOUR_US))).any()
        or (inside & ((np.diff(positions) <= 0) | (np.diff(ttls) > 0))).any()
    )
    if wrong:
        for i, (first, last) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
            chosen = zip(positions[first:last].tolist(), ttls[first:last].tolist(), strict=True)
            try:
                check(list(chosen), int(lengths[i]))
            except Refused as reason:
                raise Refused(f"request {i}: {reason}") from None
