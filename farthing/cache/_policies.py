"""Policies that could run live, by name, and what a trace comes to under one of them.

None looks ahead: each decision is made from what came before it. docs/caching.md says what each does, what it cost
on real traces, and which one to take.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from farthing.meters import Vector

from ._bound import FIVE_US, HOUR_US, check_rates
from ._engine import DOCUMENTED, Semantics, blank
from ._player import ALWAYS, BY_PAUSES, BY_RETURNS, LIKELY, SEEN, Policy, Prices, Walk, follow, mind
from ._trace import Ints, Trace, radix_with

GUARDS = (4, 1)  # nodes before the end: docs/decisions/0061-guards.md
_FIVE = Policy(FIVE_US, FIVE_US)
_HOUR = Policy(HOUR_US, HOUR_US)

POLICIES: dict[str, Policy] = {
    "none": Policy(),
    "end_5m": Policy(0, FIVE_US),
    "end_1h": Policy(0, HOUR_US),
    "system_end_5m": _FIVE,
    "system_end_1h": _HOUR,
    "guarded_5m": _FIVE._replace(guarded=True),
    "guarded_1h": _HOUR._replace(guarded=True),
    "second_sighting": Policy(0, FIVE_US, writes=SEEN),
    "likely": Policy(0, FIVE_US, writes=LIKELY),
    "guarded_likely": Policy(0, FIVE_US, guarded=True, writes=LIKELY),
    "fitted_ttl": Policy(FIVE_US, FIVE_US, guarded=True, lives=BY_PAUSES),
    "pinged_5m": _FIVE._replace(guarded=True, pings=4),
    "padded": _FIVE._replace(guarded=True, pads=True),
    "first_alone": _FIVE._replace(guarded=True, waits=True),
    "adaptive": Policy(FIVE_US, FIVE_US, guarded=True, writes=LIKELY, lives=BY_RETURNS, pings=4),
    "adaptive_unpinged": Policy(FIVE_US, FIVE_US, guarded=True, writes=LIKELY, lives=BY_PAUSES),
}


class Replay(NamedTuple):
    tokens: Vector
    pings: int
    cost: int
    billed: Ints
    pinged: Ints


def simulate(trace: Trace, policy: Policy, rates: Vector, minimum: int, semantics: Semantics = DOCUMENTED) -> Replay:
    check_rates(rates)
    walked, guards = radix_with(trace, GUARDS if policy.guarded else ())
    billed = np.zeros((walked.requests, 3), np.int64)
    pinged = np.zeros((walked.requests, 2), np.int64)
    if guards.shape[1] == 0:
        guards = np.zeros((walked.requests, 0), np.int64)
    seen, names = np.unique(walked.namespace, return_inverse=True)
    walk = Walk(walked.at_us, walked.starts, walked.nodes, walked.sizes, walked.system, walked.kinds, names, guards)
    prices = Prices(*(rate * 1000 // rates.input for rate in rates[2:]))
    own = mind(walked.requests, walked.accesses, len(walked.sizes), len(seen))
    follow(walk, policy, prices, minimum, semantics, blank(len(walked.sizes)), own, billed, pinged)
    read, five, hour = (int(n) for n in billed.sum(0))
    pings, held = (int(n) for n in pinged.sum(0))
    prompt = int(trace.prompt.sum())
    tokens = Vector(prompt - read - five - hour, int(trace.output.sum()) + pings, read + held, five, hour)
    return Replay(tokens, pings, tokens @ rates, billed, pinged)
