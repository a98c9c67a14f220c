"""Our tokens as the lines of a bill take them: each from its very place first, then from what is left nearby."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from farthing.allocate._divide import apportion

Of = TypeVar("Of", bound=Hashable)  # whose tokens they are


class Wanted(NamedTuple):
    """A line of a bill: its place, the places nearby (by what these have in common), its tokens."""

    place: Hashable
    group: Hashable
    tokens: int


class Taking(Generic[Of]):
    """Tokens by place, and what of them no line has taken."""

    def __init__(self) -> None:
        self._all: dict[Hashable, dict[Of, int]] = defaultdict(dict)
        self._open: dict[Hashable, dict[Of, int]] = defaultdict(dict)
        self._near: dict[Hashable, list[Hashable]] = defaultdict(list)

    def add(self, of: Of, place: Hashable, group: Hashable, tokens: int) -> None:
        if place not in self._all:
            self._near[group].append(place)
        self._all[place][of] = self._open[place][of] = tokens

    def taken(self, lines: Sequence[Wanted]) -> list[dict[Of, int]]:
        """What each line takes. All take from their own places before any takes from one nearby."""
        found = [self._own(line) for line in lines]
        for line, got in zip(lines, found, strict=True):
            for place in self._near.get(line.group, ()) if line.tokens > 0 else ():
                for of, count in self._from(place, line.tokens - sum(got.values())):
                    got[of] = got.get(of, 0) + count
        return found

    def left(self) -> Iterator[tuple[Of, int]]:
        """What no line has taken."""
        for there in self._open.values():
            yield from ((of, count) for of, count in there.items() if count > 0)

    def _own(self, line: Wanted) -> dict[Of, int]:
        """What a line takes back is from all who have some there."""
        if line.tokens <= 0:
            return {of: count for of, count in self._all.get(line.place, {}).items() if count > 0}
        return dict(self._from(line.place, line.tokens))

    def _from(self, place: Hashable, wanted: int) -> Iterator[tuple[Of, int]]:
        there = {of: count for of, count in self._open.get(place, {}).items() if count > 0}
        some = min(wanted, sum(there.values()))
        if some > 0:
            for of, count in zip(there, apportion(some, list(there.values())), strict=True):
                self._open[place][of] -= count
                if count:
                    yield of, count
