"""A trace: requests in order of time, each a path through the prefix tree of its namespace; integers only.

Two prompts that begin with the same tokens walk the same nodes that far. A node stands for all that comes
before it, as a hash of a prefix does, so it has one parent and belongs to one namespace: that of a model, an
account and a speed, between which nothing is shared.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._jit import jit

Ints = npt.NDArray[np.int64]


class Trace(NamedTuple):
    """Request i walks `nodes[starts[i]:starts[i + 1]]`, root first. But for `sizes`, the rest has one entry each."""

    at_us: Ints  # start of each request, ascending
    namespace: Ints
    output: Ints  # output tokens
    plain: Ints  # prompt tokens behind the last node (a block not full): never cached
    starts: Ints  # one more than there are requests
    nodes: Ints
    sizes: Ints  # tokens of each node, by its id
    system: Ints  # how many nodes of the path are tools and system; 0 if unknown
    kinds: Ints  # how its answer ended (stop reason), known only after it; 0 if unknown
    kind_names: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()

    @property
    def requests(self) -> int:
        return len(self.at_us)

    @property
    def accesses(self) -> int:
        """How many nodes are walked in all."""
        return len(self.nodes)

    @property
    def prompt(self) -> Ints:
        """The prompt of each request, in tokens."""
        walked = self.sizes[self.nodes]
        np.cumsum(walked, out=walked)  # in place: a trace may have many millions
        before, some = np.zeros_like(self.starts), self.starts > 0
        before[some] = walked[self.starts[some] - 1]
        return np.diff(before) + self.plain


def faults(trace: Trace) -> list[str]:
    """What is wrong with a trace, in words: sizes that do not fit, times that run back, a node of two parents."""
    count, found = trace.requests, []
    by_request = (trace.namespace, trace.output, trace.plain, trace.system, trace.kinds)
    if any(len(field) != count for field in by_request) or len(trace.starts) != count + 1:
        return ["the fields are not of one length"]
    if int(trace.starts[0]) or int(trace.starts[-1]) != len(trace.nodes) or (np.diff(trace.starts) < 0).any():
        return ["starts does not divide the nodes"]
    if len(trace.nodes) and not 0 <= trace.nodes.min() <= trace.nodes.max() < len(trace.sizes):
        return ["a node has no size"]
    if (np.diff(trace.at_us) < 0).any():
        found.append("times run back")
    if any((field < 0).any() for field in (trace.output, trace.plain, trace.sizes)):
        found.append("a count is negative")
    if ((trace.system < 0) | (trace.system > np.diff(trace.starts))).any():
        found.append("a system prompt is longer than its path")
    if (parents(trace)[trace.nodes] != _before(trace)).any():
        found.append("a node has two parents: the hashes are not chained")
    owner = np.full(len(trace.sizes), -1, np.int64)
    of_node = np.repeat(trace.namespace, np.diff(trace.starts))
    owner[trace.nodes] = of_node
    if (owner[trace.nodes] != of_node).any():
        found.append("a node lies in two namespaces")
    return found


def parents(trace: Trace) -> Ints:
    """The node before each node, -1 at a root."""
    parent = np.full(len(trace.sizes), -1, np.int64)
    parent[trace.nodes] = _before(trace)
    return parent


def _before(trace: Trace) -> Ints:
    """For each access, the node walked just before it; -1 where a path begins."""
    before = np.concatenate([[-1], trace.nodes[:-1]]).astype(np.int64)[: len(trace.nodes)]
    before[trace.starts[:-1][np.diff(trace.starts) > 0]] = -1
    return before


def radix(trace: Trace) -> Trace:
    """The same trace with chains of nodes that always occur together made one; a system prompt still ends a node.

    Bills of a plan that marks ends of paths, ends of system prompts and places where paths part stay as they
    are, and the positions that a breakpoint looks back over come nearer to what they are: parts of a message.
    """
    return radix_with(trace, ())[0]


def radix_with(trace: Trace, cuts: tuple[int, ...]) -> tuple[Trace, Ints]:
    """The radix trace in which a node ends so many nodes before the end of each path, too; and where.

    Where paths will part is not known beforehand, so who means to mark another place than their ends must ask
    for it to be kept. The second thing has a row a request: the position of each cut in the new path, -1 where
    the path is too short for it.
    """
    ends = np.array(cuts, np.int64)
    places = np.full((trace.requests, len(cuts)), -1, np.int64)
    starts, system = np.zeros_like(trace.starts), np.zeros_like(trace.system)
    nodes, sizes = _merge(trace.starts, trace.nodes, trace.sizes, trace.system, ends, starts, system, places)
    return trace._replace(starts=starts, nodes=nodes, sizes=sizes, system=system), places


@jit
def _ends(starts: Any, nodes: Any, system: Any, cuts: Any, last: Any) -> Any:
    """Which nodes are the last of theirs whatever follows: by system prompts and cuts."""
    for i in range(len(system)):
        if system[i] > 0:
            last[nodes[starts[i] + system[i] - 1]] = True
        for cut in cuts:
            if starts[i + 1] - starts[i] > cut:
                last[nodes[starts[i + 1] - 1 - cut]] = True
    return last


@jit
def _merge(
    starts: Any, nodes: Any, sizes: Any, system: Any, cuts: Any, new_starts: Any, new_system: Any, places: Any
) -> Any:
    """The new nodes and their sizes; what else is new is filled in."""
    seen = np.zeros(len(sizes), np.int64)
    for node in nodes:
        seen[node] += 1
    last = _ends(starts, nodes, system, cuts, np.zeros(len(sizes), np.bool_))
    number, joined = np.full(len(sizes), -1, np.int64), np.zeros(len(sizes), np.bool_)
    merged, widths = np.zeros(len(nodes), np.int64), np.zeros(len(sizes), np.int64)
    kept, count = 0, 0
    for i in range(len(system)):
        for access in range(starts[i], starts[i + 1]):
            node = nodes[access]
            if number[node] < 0:
                before = nodes[access - 1]
                joined[node] = access > starts[i] and seen[node] == seen[before] and not last[before]
                number[node] = number[before] if joined[node] else count
                count += 0 if joined[node] else 1
                widths[number[node]] += sizes[node]
            if not joined[node]:
                merged[kept] = number[node]
                kept += 1
            if access == starts[i] + system[i] - 1:
                new_system[i] = kept - new_starts[i]
            for k in range(len(cuts)):
                if access == starts[i + 1] - 1 - cuts[k]:
                    places[i, k] = kept - new_starts[i] - 1
        new_starts[i + 1] = kept
    return merged[:kept].copy(), widths[:count].copy()


def select(trace: Trace, chosen: npt.NDArray[np.bool_]) -> Trace:
    """The trace of some of its requests, of which `chosen` says one by one."""
    return take(trace, np.flatnonzero(chosen))


def take(trace: Trace, order: Ints) -> Trace:
    """The trace of these requests, in this order; the nodes keep their ids."""
    lengths = np.diff(trace.starts)[order]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    accesses = np.arange(starts[-1]) + np.repeat(trace.starts[:-1][order] - starts[:-1], lengths)
    by_request = {
        name: getattr(trace, name)[order]
        for name in ("at_us", "namespace", "output", "plain", "system", "kinds")
    }
    return trace._replace(**by_request, starts=starts, nodes=trace.nodes[accesses])
