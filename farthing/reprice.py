"""What another price book makes of the ledger's history: by month, model and meter, before and after.

The ledger keeps usage and no prices, so a corrected catalogue holds for all of history as soon as it is used. What was
closed stays as it was booked: those months are told apart, with what they were closed on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from farthing.book import Book, Card, Unpriced
from farthing.cells import Question, cells
from farthing.ledger import Ledger, closings
from farthing.meters import METERS

BILL, COMPUTED = "on its bill", "on computed cost"


class Change(NamedTuple):
    """Tokens that another book prices otherwise. None is without a price; `closed` is the closing of the month."""

    month: str
    model: str
    meter: str
    tokens: int
    before: int | None
    after: int | None
    unpriced_before: int  # of the tokens
    unpriced_after: int
    closed: str  # "" while the month is open
    closed_on: str  # its bill, or computed cost

    @property
    def difference(self) -> int:
        return (self.after or 0) - (self.before or 0)


class Repriced(NamedTuple):
    """`changes` are those asked for; `kept` those of closed months, which stay as they were closed."""

    changes: list[Change]
    kept: list[Change]
    before: int  # of all usage in the selection
    after: int

    @property
    def difference(self) -> int:
        return sum(change.difference for change in self.changes)


class _Side(NamedTuple):
    tokens: int = 0
    unpriced: int = 0
    picos: int | None = None

    def plus(self, other: _Side) -> _Side:
        known = [picos for picos in (self.picos, other.picos) if picos is not None]
        return _Side(
            self.tokens + other.tokens, self.unpriced + other.unpriced, sum(known) if known else None
        )


_NONE = _Side()
_Key = tuple[str, ...]


def reprice(ledger: Ledger, question: Question, book: Book, *, closed: bool = False) -> Repriced:
    """By `book` instead of the question's own. With `closed`, closed months are among the changes."""
    was, becomes = (
        _sums(ledger, replace(question, tz="UTC", book=side), book) for side in (question.book, book)
    )
    both: dict[_Key, tuple[_Side, _Side]] = {}
    for key in sorted(was.keys() | becomes.keys()):
        one, other = was.get(key, _NONE), becomes.get(key, _NONE)
        if one != other:  # by SKU and day: what rises here does not hide what falls there
            day, model, meter, *_ = key
            asked = (day[:7], model, meter)
            before, after = both.get(asked, (_NONE, _NONE))
            both[asked] = before.plus(one), after.plus(other)
    of_month = {closing.period: closing for closing in closings(ledger)}  # the latest of each
    changes: list[Change] = []
    kept: list[Change] = []
    for (month, model, meter), (before, after) in both.items():
        closing = of_month.get(month)
        on = (BILL if _on_a_bill(closing.said, month) else COMPUTED) if closing else ""
        change = Change(
            month, model, meter, max(before.tokens, after.tokens), before.picos, after.picos, before.unpriced,
            after.unpriced, closing.id if closing else "", on,
        )  # fmt: skip
        (kept if closing and not closed else changes).append(change)
    totals = (sum(side.picos or 0 for side in sides.values()) for sides in (was, becomes))
    return Repriced(changes, kept, *totals)


def _sums(ledger: Ledger, question: Question, names: Book) -> dict[_Key, _Side]:
    """By day, model, meter and where it was sold: a price may change within a month.

    A model is called as `names` calls it, if that knows it.
    """
    found: dict[_Key, _Side] = {}
    for cell in cells(ledger, question, ("day", "model", "platform", "endpoint", "zone", "mode")):
        day, model, *place = cell.keys
        if isinstance(cell.sku, Unpriced):
            opened = names.resolve(model)
            model = model if isinstance(opened, Unpriced) else opened.sku.model
        for i, meter in enumerate(METERS):
            count = list(cell.tokens)[i]
            if not count:
                continue
            priced = isinstance(cell.price, Card)
            picos = count * list(cell.price.rates)[i] if isinstance(cell.price, Card) else None
            key = (day, model, meter, *place)
            found[key] = found.get(key, _NONE).plus(_Side(count, 0 if priced else count, picos))
    return found


def _on_a_bill(said: dict[str, Any], month: str) -> bool:
    return bool(said.get("months", {}).get(month, {}).get("bill"))
