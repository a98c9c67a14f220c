"""A policy run live: one request at a time, from what came before it, in bounded memory.

It decides with the very functions that `simulate` plays over a trace (_player.py), so what was replayed is what is
run. It does no I/O and reads no clock: who sends the requests says when, and what was billed for them.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappush
from typing import Any, NamedTuple

import numpy as np

from farthing.meters import Vector

from ._bound import FIVE_US, HOUR_US, check_rates
from ._engine import (
    BREAKPOINTS,
    DOCUMENTED,
    ENTRY_EXPIRES,
    ENTRY_TTL,
    EXPIRES,
    NEVER,
    TTL,
    Semantics,
    blank,
    serve,
)
from ._machine import Request, check
from ._player import (
    ACCESS,
    ANCHOR,
    BY_PAUSES,
    DAY_US,
    LAST,
    PLACE,
    SLOTS,
    WALKER,
    Mind,
    Policy,
    Prices,
    Walk,
    begin_waiting,
    chosen,
    idle,
    mind,
    recognise,
    slot_start,
)
from ._policies import GUARDS

_LATER = 2**62
_START = 1_024  # rows to begin with; they double until the most that are held
_WAITED_US = slot_start(SLOTS) + FIVE_US  # nothing is waited for longer
_waited = getattr(idle, "py_func", idle)  # its queue is a list of Python's


class Marked(NamedTuple):
    """Where a request should have breakpoints, and the cached tokens that it will then be billed, if all goes well.

    `number` names it when it is settled. A guard compares `expected` with what was billed.
    """

    number: int
    breakpoints: tuple[tuple[int, int], ...]  # position in the path, FIVE_US or HOUR_US
    expected: Vector  # of the prompt; no output


class Ping(NamedTuple):
    """Send the prompt of a request again, up to and with this position, marked there as before, for one token."""

    number: int
    position: int
    ttl_us: int


class _Sent(NamedTuple):
    """A request that was not settled yet."""

    row: int
    path: Any
    before: Any  # the state of its nodes before it, and after
    after: Any
    held: int  # the last position that is read or written
    known: int
    expected: Vector


class Autopilot:
    """One policy for one model and the requests of one workload. Not for several threads at a time.

    `observe` says where a request should be marked, `settle` tells what became of it, `pings` which conversations are
    to be kept warm now. Of `waits` and `pads` it does nothing: those hold a request back, and change its text.
    """

    def __init__(
        self,
        policy: Policy,
        rates: Vector,
        minimum: int,
        semantics: Semantics = DOCUMENTED,
        *,
        most_requests: int = 1 << 15,
        most_accesses: int = 1 << 20,
    ) -> None:
        """`rates` are the model's, and `minimum` the tokens from which it caches. Older requests are forgotten."""
        check_rates(rates)
        self.policy, self.minimum, self.semantics = policy, minimum, semantics
        self._prices = Prices(*(rate * 1000 // rates.input for rate in (rates[2], rates[3], rates[4])))
        self._most = most_requests, most_accesses
        self._requests = self._accesses = self._first = 0  # rows in use; and the number of the first
        self._rooms = min(_START, most_requests), min(16 * _START, most_accesses)
        self._names: dict[Hashable, int] = {}
        self._spaces: dict[Hashable, int] = {}
        self._sent: dict[int, _Sent] = {}
        self._waiting: list[Any] = []
        self._now_us = NEVER
        self._walk, self._own, self._state, self._pinged = self._blank()

    def observe(
        self, request: Request, *, system: int = 0, namespace: Hashable = "", named: bool = True
    ) -> Marked:
        """Where to mark a request that is about to be sent; `system` of its positions are tools and system.

        `named`: its client says which session it is of, so a long one is trusted to come back. One that has
        breakpoints keeps them. Prefixes are shared within a namespace: an account, a region, a speed.
        """
        check(request.breakpoints, len(request.path))
        self._now_us = now = max(self._now_us, request.at_us)  # clocks run back
        self._count_down(self.policy._replace(pings=0), now - 1)
        i = self._enter(request, min(system, len(request.path)), namespace, now)
        self._walk.named[i] = named
        path = self._path(i)
        before = self._state[path].copy()
        marks, ttls = np.zeros(BREAKPOINTS, np.int64), np.zeros(BREAKPOINTS, np.int64)
        billed = np.zeros(3, np.int64)
        known, held, count = 0, -1, 0
        if len(path):
            known = recognise(i, path, self._walk, self._state, self._own, self.semantics)
            if request.breakpoints:
                count = len(request.breakpoints)
                marks[:count] = [at for at, _ in request.breakpoints]
                ttls[:count] = [ttl for _, ttl in request.breakpoints]
            else:
                count = chosen(
                    i, path, known, self._walk, self.policy, self._prices, self.minimum, self._state, self._own,
                    self.semantics, marks, ttls,
                )  # fmt: skip
            held = serve(
                path,
                self._walk.sizes,
                self._state,
                marks,
                ttls,
                count,
                now,
                self.minimum,
                self.semantics,
                billed,
            )
            held = max(int(held), *marks[:count].tolist()) if count else int(held)
        plain = sum(size for _, size in request.path) + request.plain - int(billed.sum())
        expected = Vector(plain, 0, *billed.tolist())
        number = self._first + i
        self._sent[number] = _Sent(i, path.copy(), before, self._state[path], held, int(known), expected)
        return Marked(
            number, tuple(zip(marks[:count].tolist(), ttls[:count].tolist(), strict=True)), expected
        )

    def settle(self, number: int, billed: Vector | None = None, *, kind: int = 0) -> None:
        """What a request was billed, and how its answer ended (0 unknown; classes of one's own). None: as expected.

        What was expected to be in the cache, and by the bill is not, is forgotten; what was written for 5m instead of
        1h lives that long. Calls that were not made are for `withdraw`.
        """
        sent = self._sent.pop(number, None)
        if sent is None or not len(sent.path):
            return
        if billed is not None:
            self._correct(sent, billed)
        self._walk.kinds[sent.row] = kind
        begin_waiting(sent.row, sent.path, sent.held, sent.known, self._walk, self._own)
        if self.policy.pings > 0 or self.policy.lives == BY_PAUSES:
            at_us = self._walk.at_us[sent.row] + slot_start(1)
            heappush(self._waiting, (at_us, np.int64(sent.row), np.int64(1)))

    def withdraw(self, number: int) -> None:
        """The call did not happen: nothing was read or written by it."""
        sent = self._sent.pop(number, None)
        if sent is not None:
            same = (self._state[sent.path] == sent.after).all(axis=1)  # others may have used the rest since
            self._state[sent.path[same]] = sent.before[same]

    def pings(self, now_us: int) -> list[Ping]:
        """What to send now to keep prefixes warm that are likely to be used again. Asked for every few seconds.

        They are taken as sent.
        """
        return self._count_down(self.policy, now_us)

    @property
    def next_us(self) -> int | None:
        """When `pings` may next have something to say."""
        return int(self._waiting[0][0]) if self._waiting and self.policy.pings else None

    # --- one request -------------------------------------------------------------------------------------------------

    def _path(self, i: int) -> Any:
        return self._walk.nodes[self._walk.starts[i] : self._walk.starts[i + 1]]

    def _enter(self, request: Request, system: int, namespace: Hashable, now: int) -> int:
        """Its row, among those that came before."""
        length = len(request.path)
        if length > self._most[1] // 4:
            raise ValueError(f"a path of {length:,} places: make {self._most[1]:,} accesses more")
        rows = max(self._accesses, len(self._names)) + length  # names may outlive the requests they came with
        if self._requests >= self._rooms[0] or rows > self._rooms[1]:
            self._make_room(length)
        walk, i, at = self._walk, self._requests, self._accesses
        space = self._spaces.setdefault(namespace, len(self._spaces))
        for name, size in request.path:
            node = self._names.setdefault((namespace, name), len(self._names))
            walk.nodes[at], walk.sizes[node] = node, size
            at += 1
        walk.starts[i + 1] = at
        walk.at_us[i], walk.system[i], walk.namespace[i], walk.kinds[i] = now, system, space, 0
        for k in range(walk.guards.shape[1]):
            walk.guards[i, k] = length - 1 - GUARDS[k] if length > GUARDS[k] else -1
        self._requests, self._accesses = i + 1, at
        return i

    def _correct(self, sent: _Sent, billed: Vector) -> None:
        """The state as the bill says that it is."""
        state, depth = self._state, 0
        for node in sent.path.tolist():
            depth += int(self._walk.sizes[node])
            if billed.cached < depth <= sent.expected.cached:
                state[node, EXPIRES] = state[node, ENTRY_EXPIRES] = NEVER
            elif sent.expected.cache_write_1h and not billed.cache_write_1h and depth > billed.cache_read:
                for kind in (TTL, ENTRY_TTL):
                    if state[node, kind] == HOUR_US:
                        state[node, kind] = FIVE_US
                        state[node, kind + 1] += FIVE_US - HOUR_US

    def _count_down(self, policy: Policy, until_us: int) -> list[Ping]:
        """Go through the slots that have begun until then."""
        found = []
        while self._waiting and self._waiting[0][0] <= until_us:
            i = int(self._waiting[0][1])
            sent = int(self._pinged[i, 0])
            _waited(
                self._waiting, self._walk, policy, self._prices, self.minimum, self.semantics, self._state,
                self._own, self._pinged,
            )  # fmt: skip
            if self._pinged[i, 0] > sent:
                position = int(self._own.waits[i, 2])
                ttl = int(self._state[self._path(i)[position], ENTRY_TTL])
                found.append(Ping(self._first + i, position, ttl))
        return found

    # --- memory ------------------------------------------------------------------------------------------------------

    def _blank(self) -> tuple[Walk, Mind, Any, Any]:
        """Rows for as many requests and accesses as there is room for, with nothing in them."""
        requests, accesses = self._rooms
        zero = np.zeros(requests, np.int64)
        walk = Walk(
            np.full(requests, _LATER, np.int64),
            np.zeros(requests + 1, np.int64),
            np.zeros(accesses, np.int64),
            np.zeros(accesses, np.int64),
            zero.copy(),
            zero.copy(),
            zero.copy(),
            zero.copy(),
            np.full((requests, len(GUARDS) if self.policy.guarded else 0), -1, np.int64),
        )
        # A namespace has a name or a request: there are no more of them than of both.
        own = mind(requests, accesses, accesses, requests + accesses)
        return walk, own, blank(accesses), np.zeros((requests, 2), np.int64)

    def _make_room(self, length: int) -> None:
        """Forget what nothing hangs on any more; if that is little, take more room, and at the most forget the rest.

        Sums of classes are kept whole: they are what was learned.
        """
        now = self._now_us
        kept = int(np.searchsorted(self._walk.at_us[: self._requests], now - _WAITED_US))
        recent = int((self._own.seen[: len(self._names), LAST] >= now - DAY_US).sum())
        while self._rooms != self._most and (
            self._is_full(kept, length) or 2 * max(recent, length) > self._rooms[1]
        ):
            rooms, most = self._rooms, self._most
            self._rooms = min(2 * rooms[0], most[0]), min(2 * rooms[1], most[1])
        while self._is_full(kept, length) and kept < self._requests:
            kept += max(1, (self._requests - kept) // 2)
        nodes = self._nodes_kept(kept)
        old = self._walk, self._own, self._state, self._pinged
        self._walk, self._own, self._state, self._pinged = self._blank()
        self._move(old, kept, nodes)

    def _is_full(self, kept: int, length: int) -> bool:
        """Whether three quarters would be taken by the requests from `kept` on."""
        requests, accesses = self._requests - kept, self._accesses - int(self._walk.starts[kept]) + length
        return 4 * requests > 3 * self._rooms[0] or 4 * accesses > 3 * self._rooms[1]

    def _nodes_kept(self, kept: int) -> Any:
        """Those of the requests that are kept, and of the others as many as there is room for, the latest first."""
        count = len(self._names)
        last = self._own.seen[:count, LAST].copy()
        last[self._walk.nodes[self._walk.starts[kept] : self._accesses]] = _LATER
        recent = np.flatnonzero(last >= self._now_us - DAY_US)
        most = self._rooms[1] // 2
        pinned = int((last == _LATER).sum())
        if len(recent) > max(most, pinned):
            recent = recent[np.argsort(-last[recent], kind="stable")[: max(most, pinned)]]
        return np.sort(recent)

    def _move(self, old: tuple[Walk, Mind, Any, Any], kept: int, nodes: Any) -> None:
        """What is kept, into the new rows."""
        walk, own, state, pinged = old
        requests, first = self._requests - kept, int(walk.starts[kept])
        accesses = self._accesses - first
        place = np.full(len(walk.sizes), -1, np.int64)
        place[nodes] = np.arange(len(nodes))
        here, rows = slice(0, requests), slice(kept, self._requests)
        for new, was in zip(self._walk, walk, strict=True):
            if was is not walk.starts and was is not walk.nodes and was is not walk.sizes:
                new[here] = was[rows]
        self._walk.starts[: requests + 1] = walk.starts[kept : self._requests + 1] - first
        self._walk.nodes[:accesses] = place[walk.nodes[first : self._accesses]]
        self._walk.sizes[: len(nodes)] = walk.sizes[nodes]
        self._state[: len(nodes)] = state[nodes]
        self._own.seen[: len(nodes)] = own.seen[nodes]
        self._own.seen[:, WALKER] = np.maximum(self._own.seen[:, WALKER] - kept, -1)
        self._own.seen[:, ACCESS] = np.maximum(self._own.seen[:, ACCESS] - first, 0)
        self._own.waits[here] = own.waits[rows]
        waits = self._own.waits[here]
        anchored = waits[:, PLACE] >= 0
        waits[anchored, ANCHOR] = place[waits[anchored, ANCHOR]]
        self._own.traits[:accesses] = own.traits[first : self._accesses]
        for new, was in (
            (self._own.reuse, own.reuse),
            (self._own.waited, own.waited),
            (self._own.grown, own.grown),
        ):
            new[:] = was
        self._own.matured[0] = max(0, int(own.matured[0]) - kept)
        self._pinged[here] = pinged[rows]
        self._rename(own, kept, place)
        self._requests, self._accesses, self._first = requests, accesses, self._first + kept

    def _rename(self, own: Mind, kept: int, place: Any) -> None:
        """Names, namespaces, requests not settled and what is waited for, by their new numbers."""
        self._names = {name: int(place[node]) for name, node in self._names.items() if place[node] >= 0}
        used = {name[0] for name in self._names}  # type: ignore[index]
        spaces = {name: number for name, number in self._spaces.items() if name in used}
        renumbered = np.zeros(len(self._spaces), np.int64)
        for number, was in enumerate(spaces.values()):
            renumbered[was] = number
            self._own.newest[number] = max(-1, int(own.newest[was]) - kept)
        self._spaces = {name: number for number, name in enumerate(spaces)}
        count = self._requests - kept
        self._walk.namespace[:count] = renumbered[self._walk.namespace[:count]]
        self._sent = {
            number: sent._replace(row=sent.row - kept, path=place[sent.path])
            for number, sent in self._sent.items()
            if sent.row >= kept
        }
        self._waiting = [(at_us, i - kept, slot) for at_us, i, slot in self._waiting if i >= kept]
        heapify(self._waiting)
