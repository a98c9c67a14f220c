"""Whose a bill's lines are: billed money in the place of the computed, line by line, summing to the bill.

A line goes to those who have tokens in its very place (day, account, SKU, prompt band, meter), by their tokens; what it
bills beyond these, to those who have tokens of the model and meter on that day which no other line took (an endpoint
misread). What nobody here used stays apart as `not_seen`: no team pays for calls that its logs do not show.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from farthing.allocate._divide import Exchange, Money, divided
from farthing.allocate._taken import Taking, Wanted
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
    told = _Told(
        by_account=any(line.account for line in statement.billed) or not statement.billed,
        by_day=not statement.loaded.by_month,
    )
    ours: Taking[Piece] = Taking()
    for piece, count in usage.tokens.items():
        place = told.of(piece.place)
        ours.add(piece, place, _group(place), count)
    money: dict[Piece, Money] = defaultdict(Money)
    rest: dict[Other, Money] = defaultdict(Money)
    lines = list(statement.billed)
    places = [told.of(_place(line)) for line in lines]
    wanted = zip(places, lines, strict=True)
    taken = ours.taken([Wanted(place, _group(place), line.tokens) for place, line in wanted])
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


class _Told(NamedTuple):
    """How finely the bill tells."""

    by_account: bool
    by_day: bool

    def of(self, place: Place) -> Place:
        """The place as far as the bill tells it."""
        day = place.day if self.by_day else f"{place.day[:7]}-01"
        return place._replace(day=day, account=place.account if self.by_account else "")


def _place(line: Billed) -> Place:
    return Place(
        line.day.isoformat(), line.account, line.platform, line.model, line.endpoint, line.zone, line.mode,
        line.long_prompt, line.meter,
    )  # fmt: skip


def _group(place: Place) -> Group:
    return place.day, place.account, place.platform, place.model, place.meter


def not_billed(usage: Usage, platforms: Iterable[str]) -> Money:
    """The computed cost of what this bill cannot have: usage of other platforms."""
    there = {"bedrock", *platforms}
    return sum((money for piece, money in usage.money.items() if piece.place.platform not in there), Money())
