"""Both sides of every place for faults: what AWS billed, what our sources saw, and how sure they were of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import NamedTuple

from farthing.book import Book, Unpriced
from farthing.cells import Cell, Question, cells
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.statement import Statement
from farthing.teach._lines import Line, Price

# Endings of calls that nothing should be charged for; a stop by a guardrail is billed as its counts say.
REFUSED = "refusal"
FAILED = ("exception", "error", "errored", "failure", "failed", "unavailable", "timeout", "expired")


class Place(NamedTuple):
    """A price on a day."""

    day: date
    price: Price


class Group(NamedTuple):
    """Places that calls of one kind fall into together."""

    day: date
    account: str
    model: str
    endpoint: str
    zone: str
    mode: str

    @classmethod
    def of(cls, place: Place) -> Group:
        price = place.price
        return cls(place.day, price.account, price.model, price.endpoint, price.zone, price.mode)


@dataclass
class Side:
    ours: int = 0
    theirs: int = 0
    theirs_picos: int = 0
    lines: int = 0
    rate: int = 0  # that the tokens should be billed at
    sure: Counter[str] = field(default_factory=Counter)  # of ours, those whose meter, endpoint ... was told
    failed: Counter[str] = field(default_factory=Counter)  # of ours, those of calls that failed, by status
    usage_types: set[str] = field(default_factory=set)

    @property
    def more(self) -> int:
        """Tokens billed and not seen; below zero those seen and not billed."""
        return self.theirs - self.ours

    def paid(self, tokens: int) -> int:
        """What that many of their tokens were billed at."""
        return round(Fraction(self.theirs_picos * tokens, self.theirs)) if self.theirs else 0


@dataclass
class Sides:
    places: dict[Place, Side]
    empty: dict[Group, Counter[str]]  # calls that ended badly and show no tokens, by status


def sides(
    statement: Statement,
    found: Iterable[Line],
    ledger: Ledger,
    question: Question,
    book_of: Callable[[str], Book],
) -> Sides:
    places: dict[Place, Side] = defaultdict(Side)
    empty: dict[Group, Counter[str]] = defaultdict(Counter)
    billed = list(found)
    by_account = any(line.price.account for line in billed)
    for line in billed:
        side = places[Place(line.day, line.price)]
        side.theirs += line.tokens
        side.theirs_picos += line.picos
        side.lines += line.lines
        side.usage_types.add(line.usage_type)
    keys = ("day", "account", "platform", "model", "endpoint", "zone", "mode", "status")
    for cell in cells(ledger, question, keys):
        day, account, platform, *sku, status = cell.keys
        if platform != "bedrock" or isinstance(cell.sku, Unpriced):
            continue
        on = date.fromisoformat(day)
        on = on.replace(day=1) if statement.loaded.by_month else on
        _add(cell, on, account if by_account else "", sku, status, places, empty)
    for place, side in places.items():
        side.rate = place.price.rate(book_of(place.price.account), place.day) or 0
    return Sides(dict(places), dict(empty))


def _add(
    cell: Cell,
    day: date,
    account: str,
    sku: list[str],
    status: str,
    places: dict[Place, Side],
    empty: dict[Group, Counter[str]],
) -> None:
    model, endpoint, zone, mode = sku
    if not cell.tokens.total:
        if ended_badly(status):
            empty[Group(day, account, model, endpoint, zone, mode)][status] += cell.calls
        return
    for meter, count in zip(METERS, cell.tokens, strict=True):
        if not count:
            continue
        side = places[Place(day, Price(account, model, endpoint, zone, mode, cell.prompt > 0, meter))]
        side.ours += count
        side.sure["mode"] += count
        side.sure["long_prompt"] += count
        side.sure["meter"] += 0 if "ttl" in cell.assumed else count
        side.sure["endpoint"] += 0 if "endpoint" in cell.assumed else count
        if ended_badly(status):
            side.failed[status] += count


def ended_badly(status: str) -> bool:
    """Whether nothing should have been charged for a call that ended so."""
    return status == REFUSED or status.lower().endswith(FAILED) or (status[:1] == "5" and status.isdigit())
