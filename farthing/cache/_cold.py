"""What a switch to another model loses in the cache: what was there, and is read again, is written once more.

It depends on the moment. What a request reads is lost by a switch that comes after the last breakpoint which made it
readable, and not after the request. So each node that is read says for how long a switch loses it, and all of them
together what a switch loses on average over the moments of a trace, and at the worst of them.
"""

from __future__ import annotations

from operator import mul
from typing import Any, NamedTuple

import numpy as np

from ._bound import HOUR_US
from ._jit import jit
from ._player import Policy
from ._policies import simulate
from ._trace import Trace, radix
from ._values import Cards


class Cold(NamedTuple):
    """Picodollars that a switch costs, written less read: on average over all moments, and at the worst."""

    mean: int
    most: int


def cold(trace: Trace, policy: Policy, cards: Cards, minimum: int, span_us: int = 0) -> Cold:
    """Of prompts marked as by a fixed policy, at the rates of the model that is switched to.

    `span_us` are the moments that the average is over: the trace's own, if that is longer or none is given.
    """
    if not trace.requests:
        return Cold(0, 0)
    trace = radix(trace)
    reads = simulate(trace, policy, cards.rates[0], minimum).each.cache_read
    begins = np.full(trace.accesses, -1, np.int64)
    _begins(
        trace.at_us, trace.starts, trace.nodes, trace.sizes, trace.system, reads, policy.system_ttl_us > 0,
        policy.end_ttl_us > 0, np.full(len(trace.sizes), -1, np.int64), begins,
    )  # fmt: skip
    lost = np.flatnonzero(begins >= 0)
    if not len(lost):
        return Cold(0, 0)
    request = np.repeat(np.arange(trace.requests), np.diff(trace.starts))[lost]
    rates = np.array([list(card) for card in cards.rates], np.int64)[cards.of[request]]
    of_system = lost - trace.starts[request] < trace.system[request]
    lives = np.where(of_system, max(policy.system_ttl_us, policy.end_ttl_us), policy.end_ttl_us)
    written = np.where(lives == HOUR_US, rates[:, 4], rates[:, 3])
    worth = trace.sizes[trace.nodes[lost]] * (written - rates[:, 2])
    first, last = begins[lost], trace.at_us[request]
    span = max(span_us, int(trace.at_us[-1] - trace.at_us[0]), 1)
    mean = sum(map(mul, worth.tolist(), (last - first).tolist())) // span
    times, change = np.concatenate([first, last]), np.concatenate([worth, -worth])
    at_once = np.cumsum(change[np.lexsort((change, times))])
    return Cold(mean, max(mean, int(at_once.max())))


@jit
def _begins(
    at_us: Any, starts: Any, nodes: Any, sizes: Any, system: Any, reads: Any, of_system: Any, of_end: Any,
    marked_us: Any, begins: Any,
) -> None:  # fmt: skip
    """For each access that is read, when it last became readable: by a breakpoint at it or behind it on its path."""
    for i in range(len(at_us)):
        first, last = starts[i], starts[i + 1]
        depth, end = 0, first
        while end < last and depth + sizes[nodes[end]] <= reads[i]:
            depth += sizes[nodes[end]]
            end += 1
        since = np.int64(-1)
        for access in range(end - 1, first - 1, -1):
            since = max(since, marked_us[nodes[access]])
            begins[access] = since
        if of_system and system[i] > 0:
            marked_us[nodes[first + system[i] - 1]] = at_us[i]
        if of_end and last > first:
            marked_us[nodes[last - 1]] = at_us[i]
