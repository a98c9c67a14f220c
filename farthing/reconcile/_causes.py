"""Causes of the difference, as they are found; each with its money."""

from __future__ import annotations

from typing import NamedTuple


class Cause(NamedTuple):
    name: str
    where: str  # the account, model or day it hangs on
    picos: int
    lines: int


class Causes:
    """`known` causes explain; the others are told by what they look like, and stay unexplained."""

    def __init__(self) -> None:
        self._explained: dict[tuple[str, str], list[int]] = {}
        self._unknown: dict[tuple[str, str], list[int]] = {}

    def add(self, name: str, where: str, picos: int, lines: int, *, known: bool = True) -> None:
        if picos or lines:
            total = (self._explained if known else self._unknown).setdefault((name, where), [0, 0])
            total[0] += picos
            total[1] += lines

    @property
    def explained(self) -> list[Cause]:
        return _sorted(self._explained)

    @property
    def unexplained(self) -> list[Cause]:
        return _sorted(self._unknown)

    @property
    def picos(self) -> int:
        return sum(picos for found in (self._explained, self._unknown) for picos, _ in found.values())


def _sorted(found: dict[tuple[str, str], list[int]]) -> list[Cause]:
    causes = [Cause(*key, *total) for key, total in found.items() if total[0]]
    return sorted(causes, key=lambda cause: (-abs(cause.picos), cause))
