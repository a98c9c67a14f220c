"""The prefix access log: which requests sent which prefixes when, put together from what the readers of formats find.

A reader yields a `Call` a request. What the calls of one namespace have in common is found here: their hashes become
nodes, clocks that run back are sorted, hashes that are no hashes of prefixes are chained, and where tokens had to be
shared out among blocks, every prefix gets one size that all its requests agree on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from farthing.cache import Ints, Trace
from farthing.cache._trace import radix_with
from farthing.meters import Vector
from farthing.outbox import apportion

UNKNOWN = "unknown"
TAIL_BLOCKS = 8  # at the end of each prompt stay apart, for policies that mark a place shortly before it


class Source(NamedTuple):
    """An opened file: its beginning, its lines by number, and how to read one that lies beside it (None: not there)."""

    path: str
    head: bytes
    lines: Iterable[tuple[int, bytes]]
    beside: Callable[[str], bytes | None] = lambda _: None


class Moved(NamedTuple):
    """The same prompt with what changes from call to call at its end, as the fields of a Call.

    `cuts` are what was moved: its place, its kind, and a keyed hash of it.
    """

    hashes: Sequence[str]
    weights: Sequence[int]
    anchors: Sequence[tuple[int, int]]
    system: int
    cuts: tuple[tuple[str, str, str], ...]
    answers: Sequence[int] = ()


class Call(NamedTuple):
    """A request. `hashes` name the prompt up to the end of each block; the same hash is the same prefix.

    `weights` are the tokens of each block, or one number if all have as many; with `anchors` they are only in
    proportion to them. An anchor is (blocks, tokens): that many tokens are known to lie in so many first blocks.
    Tokens of the prompt that no block holds are never cached.
    """

    at_us: int
    namespace: tuple[str, ...]
    hashes: Sequence[int] | Sequence[str] | Ints
    weights: int | Sequence[int]
    prompt: int
    output: int
    system: int = 0  # how many blocks are tools and system
    kind: str = ""  # how the answer ended
    anchors: Sequence[tuple[int, int]] = ()
    marks: Sequence[tuple[int, str]] = ()  # cache points it had: (blocks before it, "5m" or "1h")
    billed: Vector | None = None
    model: str = ""
    id: str = ""  # a second call of the same id is a copy
    settled: Moved | None = None
    answers: Sequence[int] = ()  # which blocks, from 0 on, are answers of the model; where the format tells


class Left(NamedTuple):
    """Requests that were read and are not in the log, and why."""

    reason: str
    requests: int = 1


class Reject(NamedTuple):
    """A line that could not be read, and why."""

    line: int
    reason: str


Item = Call | Left | Reject


class Format(Protocol):
    """A file of this folder without an underscore in front: a trace format.

    `DATED` says whether its times are those of a calendar, `ASSUMED` what the format does not tell.
    """

    __doc__: str | None
    DATED: bool
    ASSUMED: tuple[str, ...]

    def sniff(self, head: bytes) -> bool:
        """Whether a file that begins so has this format."""

    def read(self, source: Source, key: bytes) -> Iterator[Item]:
        """The requests of a file. Text is hashed with the key and not kept."""

    # Where hashes are not told, the format may have `chain(calls) -> calls`: those of a namespace, in order of time,
    # with the hashes that their counts speak for.


@dataclass
class Log:
    """What was read: read = used + left out, with the reasons."""

    format: str
    trace: Trace
    left: Counter[str]
    mended: Counter[str]  # what was put right, and in how many requests
    rejects: list[tuple[str, int, str]]  # path, line, reason
    assumed: tuple[str, ...]
    dated: bool
    models: Counter[str]
    billed: Vector | None  # the tokens that were billed, where the format says so for every request
    others: int  # files of no format, or of another

    @property
    def read(self) -> int:
        """How many requests were met."""
        return self.trace.requests + self.left.total()


class Space(NamedTuple):
    """The calls of one namespace: their trace, and what the log tells of them."""

    trace: Trace
    models: Counter[str]
    billed: Vector | None


@dataclass
class Gather:
    """Calls by namespace, on their way to a log."""

    calls: dict[tuple[str, ...], list[Call]] = field(default_factory=dict)
    left: Counter[str] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)
    rejects: list[tuple[str, int, str]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    others: int = 0

    def add(self, path: str, items: Iterable[Item]) -> None:
        """What a reader finds in a file."""
        latest: dict[tuple[str, ...], int] = {}
        for item in items:
            if isinstance(item, Call) and item.id in self.seen:
                self.left["copies"] += 1
            elif isinstance(item, Call):
                if item.id:
                    self.seen.add(item.id)
                if item.at_us < latest.get(item.namespace, item.at_us):
                    self.mended["clocks run back: sorted"] += 1
                latest[item.namespace] = item.at_us
                self.calls.setdefault(item.namespace, []).append(_packed(item))
            elif isinstance(item, Left):
                self.left[item.reason] += item.requests
            else:
                self.left["unreadable"] += 1
                self.rejects.append((path, *item))

    def log(self, name: str, form: Format) -> Log:
        """The log of everything added."""
        return self.joined(name, form, {space: self.space(each, form) for space, each in self.calls.items()})

    def space(self, calls: list[Call], form: Format) -> Space:
        """The calls of one namespace put together."""
        billed = [call.billed for call in calls if call.billed is not None]
        return Space(
            self._trace(calls, form),
            Counter(call.model for call in calls if call.model),
            Vector(*map(sum, zip(*billed, strict=True))) if calls and len(billed) == len(calls) else None,
        )

    def joined(self, name: str, form: Format, spaces: Mapping[tuple[str, ...], Space]) -> Log:
        """Namespaces in one log, with what was left out and put right on the way."""
        billed = [made.billed for made in spaces.values() if made.billed is not None]
        return Log(
            name,
            _joined({space: made.trace for space, made in spaces.items()}),
            self.left,
            self.mended,
            self.rejects,
            form.ASSUMED,
            form.DATED,
            sum((made.models for made in spaces.values()), Counter[str]()),
            Vector(*map(sum, zip(*billed, strict=True))) if billed and len(billed) == len(spaces) else None,
            self.others,
        )

    def _trace(self, calls: list[Call], form: Format) -> Trace:
        """The trace of one namespace, its chains made one but for the last blocks, so that few nodes are held."""
        calls.sort(key=lambda call: call.at_us)
        if chain := getattr(form, "chain", None):
            calls = [_packed(call) for call in chain(calls)]
        names, lengths = _numbered(calls)
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        nodes, again = _chained(names, starts)
        if again:
            self.mended["hashes are not of prefixes: chained"] += again
        count = int(nodes.max()) + 1 if len(nodes) else 0
        sizes, plain = _sizes(calls, nodes, starts, count)
        kinds = ("", *sorted({call.kind for call in calls} - {""}))
        trace = Trace(
            at_us=_ints(call.at_us for call in calls),
            namespace=np.zeros(len(calls), np.int64),
            output=_ints(call.output for call in calls),
            plain=plain,
            starts=starts,
            nodes=nodes,
            sizes=sizes,
            system=_ints(min(call.system, len(call.hashes)) for call in calls),
            kinds=_ints(kinds.index(call.kind) for call in calls),
            kind_names=kinds,
        )
        return radix_with(trace, tuple(range(1, TAIL_BLOCKS + 1)))[0]


def _packed(call: Call) -> Call:
    """Its hashes in an array, if they are numbers: an eighth of the memory of a list."""
    hashes = call.hashes
    if len(hashes) and isinstance(hashes[0], int):
        try:
            return call._replace(hashes=np.array(hashes, np.int64))
        except OverflowError:
            return call._replace(hashes=[f"{each:x}" for each in hashes])
    return call


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, np.int64)


def _numbered(calls: Sequence[Call]) -> tuple[Ints, Ints]:
    """All hashes as small numbers, one path after the other, and how long each path is."""
    lengths = _ints(len(call.hashes) for call in calls)
    given = [call.hashes for call in calls if len(call.hashes)]
    if not given:
        return np.zeros(0, np.int64), lengths
    if all(isinstance(hashes, np.ndarray) for hashes in given):
        whole = np.concatenate(given)
        if whole.min() >= 0 and whole.max() < 4 * len(whole) + 1024:
            return whole, lengths
        return np.unique(whole, return_inverse=True)[1].astype(np.int64), lengths
    numbers: dict[Any, int] = {}
    named = (name for hashes in given for name in hashes)
    return _ints(numbers.setdefault(name, len(numbers)) for name in named), lengths


def _chained(names: Ints, starts: Ints) -> tuple[Ints, int]:
    """Nodes of which each has one parent, and in how many requests some name had more than one.

    A name that follows on different ones is that of a block, not of a prefix. Its prefix is the path to it.
    """
    if not len(names):
        return names, 0
    before = np.concatenate([[-1], names[:-1]]).astype(np.int64)
    before[starts[:-1][np.diff(starts) > 0]] = -1
    parent = np.full(int(names.max()) + 1, -2, np.int64)
    parent[names] = before
    if (parent[names] == before).all():
        return names, 0
    several = np.zeros(len(parent), bool)
    several[names[parent[names] != before]] = True
    of_request = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    touched = len(np.unique(of_request[several[names]]))
    known: dict[tuple[int, int], int] = {}
    nodes = np.empty_like(names)
    node = -1
    begins = set(starts[:-1].tolist())
    for at, name in enumerate(names.tolist()):
        node = known.setdefault((-1 if at in begins else node, name), len(known))
        nodes[at] = node
    return nodes, touched


# --- tokens of nodes -----------------------------------------------------------------------------------------------


def _sizes(calls: Sequence[Call], nodes: Ints, starts: Ints, count: int) -> tuple[Ints, Ints]:
    """The tokens of each node, and for each request those of its prompt that no node holds."""
    prompt = _ints(call.prompt for call in calls)
    if all(isinstance(call.weights, int) for call in calls):
        sizes = np.zeros(count, np.int64)
        each = _ints(call.weights for call in calls if isinstance(call.weights, int))
        sizes[nodes] = np.repeat(each, np.diff(starts))
        walked = np.concatenate([[0], np.cumsum(sizes[nodes])]).astype(np.int64)[starts]
        return sizes, prompt - np.diff(walked)
    depth = _depths(calls, nodes, starts)
    sizes = np.zeros(count, np.int64)
    plain = prompt.copy()
    for at, begin, end in zip(range(len(calls)), starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        path = nodes[begin:end]
        ends = np.array([depth[node] for node in path.tolist()], np.int64)
        sizes[path] = np.diff(ends, prepend=0)
        plain[at] -= ends[-1] if len(ends) else 0
    return sizes, plain


def _depths(calls: Sequence[Call], nodes: Ints, starts: Ints) -> dict[int, int]:
    """How many tokens lead to the end of each node.

    A bill counts the whole prompt, so the end of a whole prompt is known exactly, and the later prompts that begin
    with it share out only the rest. Estimates of the same prefix that still differ give way to the least: then no
    node has a negative size, no request's nodes exceed its prompt, and what they fall short of it is plain.
    """
    known: dict[int, int] = {}
    least: dict[int, int] = {}
    for call, begin, end in zip(calls, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        path = nodes[begin:end].tolist()
        own = dict(call.anchors)
        own.setdefault(len(path), call.prompt)
        weights = [call.weights] * len(path) if isinstance(call.weights, int) else call.weights
        for node, tokens in zip(path, _shared_out(path, weights, own, known), strict=True):
            least[node] = min(least.get(node, tokens), tokens)
        for blocks, tokens in own.items():
            if blocks:
                known.setdefault(path[blocks - 1], tokens)
    return least


def _shared_out(
    path: Sequence[int], weights: Sequence[int], own: Mapping[int, int], known: Mapping[int, int]
) -> list[int]:
    """The tokens up to the end of each block, by the request's own anchors and what is known of its prefixes."""
    limits = sorted(own.items(), reverse=True)
    points = [(0, 0)]
    for blocks in range(1, len(path) + 1):
        while limits[-1][0] < blocks:
            limits.pop()
        ceiling = limits[-1][1]
        tokens = own.get(blocks, known.get(path[blocks - 1]))
        if tokens is not None and points[-1][1] <= tokens <= ceiling:
            points.append((blocks, tokens))
    depths: list[int] = []
    for (begin, low), (end, high) in pairwise(points):
        total = low
        for share in apportion(weights[begin:end], high - low):
            total += share
            depths.append(total)
    return depths


# --- namespaces together -------------------------------------------------------------------------------------------


def _joined(traces: Mapping[tuple[str, ...], Trace]) -> Trace:
    """Traces of different namespaces as one, in order of time."""
    each = list(traces.values())
    kinds = (UNKNOWN, *sorted({name for trace in each for name in trace.kind_names} - {""}))
    nodes_before = np.cumsum([0, *(len(trace.sizes) for trace in each)])
    at_us = _together([trace.at_us for trace in each])
    order = np.argsort(at_us, kind="stable")
    lengths = _together([np.diff(trace.starts) for trace in each])
    nodes = _together([trace.nodes + nodes_before[i] for i, trace in enumerate(each)])
    begins = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)[:-1][order]
    starts = np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int64)
    at = np.repeat(begins - starts[:-1], lengths[order]) + np.arange(len(nodes))
    renamed = [
        np.array([kinds.index(name or UNKNOWN) for name in trace.kind_names], np.int64)[trace.kinds]
        for trace in each
    ]
    return Trace(
        at_us=at_us[order],
        namespace=np.repeat(np.arange(len(each)), [trace.requests for trace in each]).astype(np.int64)[order],
        output=_together([trace.output for trace in each])[order],
        plain=_together([trace.plain for trace in each])[order],
        starts=starts,
        nodes=nodes[at],
        sizes=_together([trace.sizes for trace in each]),
        system=_together([trace.system for trace in each])[order],
        kinds=_together(renamed)[order],
        kind_names=kinds,
        namespaces=tuple(" ".join(filter(None, space)) for space in traces),
    )


def _together(columns: Sequence[Ints]) -> Ints:
    return np.concatenate(columns).astype(np.int64) if columns else np.zeros(0, np.int64)
