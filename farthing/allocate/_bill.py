"""Whose a bill's lines are: billed money in the place of the computed, line by line, summing to the bill.

A line goes to those who have tokens in its very place (day, account, SKU, prompt band, meter), by their tokens; what it
bills beyond these, to those who have tokens of the model and meter on that day which no other line took (an endpoint
misread). What nobody here used stays apart as `not_seen`: no team pays for calls that its logs do not show.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from farthing.allocate._divide import Exchange, Money, apportion, divided
from farthing.allocate._usage import Piece, Place, Usage, money_of
from farthing.statement import Billed, Statement

NOT_SEEN = "not_seen"
_ROUNDED = 1_000  # a line's amount is rounded: less than one in so many tokens beyond ours are ours too

Group = tuple[str, str, str, str, str]


class Other(NamedTuple):
    """Money of the bill that is nobody's usage: what was not seen, and what is beside tokens."""

    kind: str
    account: str
    day: str
    model: str  # of what was not seen


def billed(
    statement: Statement, usage: Usage, exchange: Exchange | None
) -> tuple[dict[Piece, Money], dict[Other, Money]]:
    """The bill by piece of usage, and the rest of it; together they sum to the bill exactly."""
    by_account = any(line.account for line in statement.billed) or not statement.billed
    ours = _Ours(usage, by_account=by_account, by_day=not statement.loaded.by_month)
    money: dict[Piece, Money] = defaultdict(Money)
    rest: dict[Other, Money] = defaultdict(Money)
    lines = list(statement.billed)
    taken = [ours.take(line) for line in lines]
    for line, got in zip(lines, taken, strict=True):
        if line.tokens > 0:
            ours.take_near(line, got)
    for line, got in zip(lines, taken, strict=True):
        amount = money_of(line.billed_picos, line.day.isoformat(), exchange)
        unseen = _unseen(line, got)
        weights = [*got.values(), *([unseen] if unseen else [])]
        parts = divided(amount, weights) if weights else [amount]
        for piece, part in zip(got, parts, strict=False):
            money[piece] += part
        if len(parts) > len(got):
            rest[Other(NOT_SEEN, line.account, line.day.isoformat(), line.model)] += parts[-1]
    for group in statement.grouped(("account", "day")):
        if group.kind != "tokens":
            account, day = group.values
            rest[Other(group.kind, account, day, "")] += money_of(group.picos, day, exchange)
    return money, rest


def _unseen(line: Billed, got: dict[Piece, int]) -> int:
    if line.tokens <= 0:
        return 0 if got else 1
    beyond = line.tokens - sum(got.values())
    return beyond if beyond * _ROUNDED > line.tokens or not got else 0


class _Ours:
    """Our tokens, as the bill's lines take them one after another."""

    def __init__(self, usage: Usage, *, by_account: bool, by_day: bool) -> None:
        self._by_account = by_account
        self._by_day = by_day
        self._all: dict[Place, dict[Piece, int]] = defaultdict(dict)
        self._open: dict[Place, dict[Piece, int]] = defaultdict(dict)
        self._near: dict[Group, list[Place]] = defaultdict(list)
        for piece, count in usage.tokens.items():
            place = self._told(piece.place)
            if place not in self._all:
                self._near[_group(place)].append(place)
            self._all[place][piece] = self._open[place][piece] = count

    def _told(self, place: Place) -> Place:
        """The place as far as the bill tells it."""
        day = place.day if self._by_day else f"{place.day[:7]}-01"
        return place._replace(day=day, account=place.account if self._by_account else "")

    def _of(self, line: Billed) -> Place:
        return self._told(
            Place(line.day.isoformat(), line.account, line.platform, line.model, line.endpoint, line.zone, line.mode,
                  line.long_prompt, line.meter)
        )  # fmt: skip

    def take(self, line: Billed) -> dict[Piece, int]:
        """Our tokens in the line's very place; what is taken back is so from all who have some there."""
        place = self._of(line)
        if line.tokens <= 0:
            return {piece: count for piece, count in self._all.get(place, {}).items() if count > 0}
        return dict(self._from(place, line.tokens))

    def take_near(self, line: Billed, got: dict[Piece, int]) -> None:
        """Adds what is still open nearby to what a line has got."""
        for place in self._near.get(_group(self._of(line)), ()):
            for piece, count in self._from(place, line.tokens - sum(got.values())):
                got[piece] = got.get(piece, 0) + count

    def _from(self, place: Place, wanted: int) -> Iterator[tuple[Piece, int]]:
        there = {piece: count for piece, count in self._open.get(place, {}).items() if count > 0}
        some = min(wanted, sum(there.values()))
        if some > 0:
            for piece, count in zip(there, apportion(some, list(there.values())), strict=True):
                self._open[place][piece] -= count
                if count:
                    yield piece, count


def _group(place: Place) -> Group:
    return place.day, place.account, place.platform, place.model, place.meter


def not_billed(usage: Usage, platforms: Iterable[str]) -> Money:
    """The computed cost of what this bill cannot have: usage of other platforms."""
    there = {"bedrock", *platforms}
    return sum((money for piece, money in usage.money.items() if piece.place.platform not in there), Money())
