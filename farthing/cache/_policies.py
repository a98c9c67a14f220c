"""Policies that could run live, by name, and what a trace comes to under one of them.

None looks ahead: each decision is made from what came before it. docs/caching.md says what each does, what it cost
on real traces, and which one to take.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from farthing.meters import Vector

from ._bound import FIVE_US, HOUR_US, check_rates
from ._engine import DOCUMENTED, NEVER, Semantics, blank
from ._jit import jit
from ._player import BY_PAUSES, BY_RETURNS, FIVES, LIKELY, SEEN, Policy, Prices, Walk, follow, mind
from ._trace import Ints, Trace, radix_with, take

GUARDS = (4, 1)  # nodes before the end: docs/decisions/0061-guards.md
_FIVE = Policy(system_ttl_us=FIVE_US, end_ttl_us=FIVE_US)
_HOUR = Policy(system_ttl_us=HOUR_US, end_ttl_us=HOUR_US)
_GUARDED = _FIVE._replace(guarded=True)

POLICIES: dict[str, Policy] = {
    "none": Policy(),
    "end_5m": Policy(end_ttl_us=FIVE_US),  # what automatic caching does
    "end_1h": Policy(end_ttl_us=HOUR_US),
    "system_end_5m": _FIVE,
    "system_end_1h": _HOUR,
    "guarded_5m": _GUARDED,
    "guarded_1h": _HOUR._replace(guarded=True),
    "second_sighting": Policy(end_ttl_us=FIVE_US, writes=SEEN),
    "likely_5m": _GUARDED._replace(writes=LIKELY),
    "fitted_ttl": _GUARDED._replace(lives=BY_PAUSES),
    "pinged_5m": _GUARDED._replace(pings=FIVES),
    "padded_5m": _GUARDED._replace(pads=True),
    "first_alone_5m": _GUARDED._replace(waits=True),
    "adaptive_unpinged": _GUARDED._replace(writes=LIKELY, lives=BY_PAUSES),
    "adaptive": _GUARDED._replace(writes=LIKELY, lives=BY_RETURNS, pings=FIVES),
}
BEST = "adaptive"  # chosen on the traces of docs/caching.md; not by looking at the one it is used on


class Replay(NamedTuple):
    """A trace under a policy. Pings and padding are in the tokens: prompts add up to the trace's and theirs."""

    tokens: Vector
    cost: int  # picodollars
    pings: int
    padding: int  # tokens added to prompts to make them long enough
    each: Vector  # columns: the tokens of each request and of the pings that follow it


def simulate(
    trace: Trace, policy: Policy, rates: Vector, minimum: int, semantics: Semantics = DOCUMENTED
) -> Replay:
    """Play a policy over a trace, given as it was read: it is made radix here, with the places the policy marks.

    `minimum` is how long a prompt must be to be cached, from the book. The rates price the outcome, and their
    ratios are what the policy decides by.
    """
    check_rates(rates)
    prices = Prices(*(rate * 1000 // rates.input for rate in (rates[2], rates[3], rates[4])))
    played = _padded(trace, prices, minimum) if policy.pads else trace
    released = _released(played, semantics.delay_us) if policy.waits else played.at_us
    order = np.argsort(released, kind="stable")
    played = take(played._replace(at_us=released), order) if policy.waits else played

    walked, guards = radix_with(played, GUARDS if policy.guarded else ())
    billed, pinged = np.zeros((walked.requests, 3), np.int64), np.zeros((walked.requests, 2), np.int64)
    spaces, space = np.unique(walked.namespace, return_inverse=True)
    follow(
        Walk(
            walked.at_us,
            walked.starts,
            walked.nodes,
            walked.sizes,
            walked.system,
            walked.kinds,
            space.astype(np.int64),
            np.ones(walked.requests, np.int64),
            guards,
        ),
        policy,
        prices,
        minimum,
        semantics,
        blank(len(walked.sizes)),
        mind(walked.requests, walked.accesses, len(walked.sizes), len(spaces)),
        billed,
        pinged,
    )
    padding = int(walked.prompt.sum() - trace.prompt.sum()) if policy.pads else 0
    return _added_up(walked, order, billed, pinged, padding, rates)


def _added_up(played: Trace, order: Ints, billed: Ints, pinged: Ints, padding: int, rates: Vector) -> Replay:
    """The bill, with the requests back in their order. A ping is answered with one token."""
    columns = (
        played.prompt - billed.sum(1),
        played.output + pinged[:, 0],
        billed[:, 0] + pinged[:, 1],
        billed[:, 1],
        billed[:, 2],
    )
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    tokens = Vector(*(int(column.sum()) for column in columns))
    pings = int(pinged[:, 0].sum())
    return Replay(tokens, tokens @ rates, pings, padding, Vector(*(column[back] for column in columns)))


def _padded(trace: Trace, prices: Prices, minimum: int) -> Trace:
    """System prompts below the minimum made long enough, where reading them then costs less than sending them."""
    sizes = trace.sizes.copy()
    has = trace.system > 0
    ends = trace.starts[:-1][has] + trace.system[has] - 1
    walked = np.cumsum(trace.sizes[trace.nodes])
    before = np.concatenate([[0], walked])[trace.starts[:-1][has]]
    depth = walked[ends] - before
    short = (depth < minimum) & (depth * 1000 > prices.read * minimum)
    sizes[trace.nodes[ends[short]]] += minimum - depth[short]
    return trace._replace(sizes=sizes)


def _released(trace: Trace, delay_us: int) -> Ints:
    """When requests go out if one waits while another, not yet answered, writes what it could read."""
    released = trace.at_us.copy()
    _wait(released, trace.starts, trace.nodes, np.full((len(trace.sizes), 2), NEVER, np.int64), delay_us)
    return released


@jit
def _wait(at_us: Any, starts: Any, nodes: Any, used: Any, delay_us: Any) -> None:
    """`used` has for each node when it was written and when it was last used; `at_us` becomes the release."""
    for i in range(len(at_us)):
        path = nodes[starts[i] : starts[i + 1]]
        arrival = release = at_us[i]
        for node in path:
            if used[node, 1] >= arrival - FIVE_US:
                release = max(release, used[node, 0] + delay_us)
        for node in path:
            if used[node, 1] < arrival - FIVE_US:
                used[node, 0] = release
            used[node, 1] = max(used[node, 1], release)
        at_us[i] = release
