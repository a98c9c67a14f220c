"""Why the cost of one period is not that of another: steps in a fixed order, which sum to the difference exactly.

Usage is taken as a product of factors: calls x size of a call x which model x which endpoint x which mode x how the
prompt was met (plain, read from the cache, written to it) x how many prompts were long. One factor after another is
exchanged for that of the later period, at the prices of the earlier; last come the prices, by the dates they changed.

1. volume            calls
2. prompt size       prompt tokens a call
3. output size       output tokens a call
4. model mix         each model's share of the tokens
5. endpoint mix      within each model
6. batch and mode    within each model and endpoint
7. long prompts      the share of tokens in prompts beyond a price band
8. cache             what share of the prompt was read, written, or neither
9. prices            one step a SKU's price event; `unpriced` usage is in no step

What the earlier period has nothing of (a model that is new) it is given from the later: all that it brings stands
under its mix. Steps before the last are rounded to the picodollar one total at a time, so their sum loses nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from farthing.book import Book, Card, Unpriced
from farthing.cells import Cell, Question, cells
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.usage import Sku

PROMPT = tuple(meter for meter in METERS if meter != "output")


class Step(NamedTuple):
    name: str
    picos: int


class Moved(NamedTuple):
    """`steps` sum to `to_picos - from_picos`. Usage without a price is in neither; its calls are told."""

    from_picos: int
    to_picos: int
    steps: list[Step]
    unpriced_calls: int


class Box(NamedTuple):
    """What has one price at a time."""

    sku: Sku
    band: int


Usages = dict[Box, dict[str, Fraction]]


class Period(NamedTuple):
    calls: int
    tokens: Usages
    picos: int
    rates: dict[tuple[Box, str], Fraction]  # what was paid a token
    unpriced_calls: int
    last: datetime


def why(ledger: Ledger, question: Question, earlier: tuple[date, date], later: tuple[date, date]) -> Moved:
    """From one period to another, both of whole days, the last included."""
    before, after = (_period(ledger, question, *days) for days in (earlier, later))
    chain = _chain(before, after, _Prices(question.book, before))
    steps = [Step(name, there - here) for (_, here), (name, there) in pairwise(chain)]
    reached = chain[-1][1]
    steps += _price_steps(question.book, before, after, after.picos - reached)
    unpriced = before.unpriced_calls + after.unpriced_calls
    return Moved(before.picos, after.picos, [step for step in steps if step.picos], unpriced)


def _period(ledger: Ledger, question: Question, first: date, last: date) -> Period:
    asked = replace(question, since=first, until=last)
    tokens: Usages = defaultdict(lambda: dict.fromkeys(METERS, Fraction(0)))
    paid: dict[tuple[Box, str], int] = defaultdict(int)
    calls = picos = unpriced = 0
    for cell in cells(ledger, asked):
        if isinstance(cell.price, Unpriced):
            unpriced += cell.calls
            continue
        calls += cell.calls
        picos += cell.cost
        _put(cell, cell.price, tokens[Box(cell.price.sku, cell.prompt)], paid)
    rates = {
        (box, meter): Fraction(paid[box, meter]) / count
        for box, counts in tokens.items()
        for meter, count in counts.items()
        if count
    }
    return Period(calls, dict(tokens), picos, rates, unpriced, asked.span()[1])


def _put(cell: Cell, card: Card, counts: dict[str, Fraction], paid: dict[tuple[Box, str], int]) -> None:
    for meter, count, rate in zip(METERS, cell.tokens, card.rates, strict=True):
        counts[meter] += count
        paid[Box(card.sku, cell.prompt), meter] += count * rate


class _Prices:
    """What a token cost in the earlier period: as it was paid, else by the book at the period's end."""

    def __init__(self, book: Book, before: Period) -> None:
        self._book = book
        self._before = before

    def __call__(self, box: Box, meter: str) -> Fraction:
        paid = self._before.rates.get((box, meter))
        if paid is not None:
            return paid
        at = self._before.last - timedelta(microseconds=1)
        card = self._book.find(box.sku, at, box.band)
        if isinstance(card, Unpriced):  # it did not exist: its first price
            cards = [c for c in self._book.cards(box.sku) if c.prompt_from <= box.band < c.prompt_to]
            if not cards:
                return Fraction(0)
            card = min(cards, key=lambda c: c.starts)
        return Fraction(int(getattr(card.rates, meter)))

    def total(self, tokens: Usages) -> int:
        exact = sum(
            (
                count * self(box, meter)
                for box, counts in tokens.items()
                for meter, count in counts.items()
                if count
            ),
            Fraction(0),
        )
        return round(exact)


def _chain(before: Period, after: Period, prices: _Prices) -> list[tuple[str, int]]:
    """The totals after each factor has been exchanged, the first of them before any has."""
    if not before.calls or not after.calls:
        return [("", before.picos), ("volume", prices.total(after.tokens))]
    found = [("", before.picos)]
    sizes = {"prompt": _sum(before.tokens, PROMPT), "output": _sum(before.tokens, ("output",))}
    wanted = {"prompt": _sum(after.tokens, PROMPT), "output": _sum(after.tokens, ("output",))}
    grown = Fraction(after.calls, before.calls)
    tokens = _scaled(before.tokens, {"prompt": grown, "output": grown})
    found.append(("volume", prices.total(tokens)))
    for part in ("prompt", "output"):
        if sizes[part]:
            factor = wanted[part] / (sizes[part] * grown)
            tokens = _scaled(tokens, {part: factor})
        found.append((f"{part} size", prices.total(tokens)))
    for name, key in _MIXES:
        tokens = _mixed(tokens, after.tokens, key)
        found.append((name, prices.total(tokens)))
    found.append(("cache", prices.total(after.tokens)))
    return found


_MIXES = (
    ("model mix", lambda box: (box.sku.platform, box.sku.model)),
    ("endpoint mix", lambda box: (box.sku.platform, box.sku.model, box.sku.endpoint, box.sku.zone)),
    ("batch and mode", lambda box: box.sku),
    ("long prompts", lambda box: box),
)


def _sum(tokens: Usages, meters: Iterable[str]) -> Fraction:
    return sum((counts[meter] for counts in tokens.values() for meter in meters), Fraction(0))


def _scaled(tokens: Usages, factors: Mapping[str, Fraction]) -> Usages:
    return {
        box: {
            meter: count * factors.get("output" if meter == "output" else "prompt", Fraction(1))
            for meter, count in counts.items()
        }
        for box, counts in tokens.items()
    }


def _mixed(tokens: Usages, wanted: Usages, key: object) -> Usages:
    """The tokens with each group's prompt and output sums as in `wanted`; within a group as they were."""
    assert callable(key)
    groups: dict[object, list[Box]] = defaultdict(list)
    for box in tokens.keys() | wanted.keys():
        groups[key(box)].append(box)
    mixed: Usages = {}
    for boxes in groups.values():
        for part in (PROMPT, ("output",)):
            have = _sum({box: tokens[box] for box in boxes if box in tokens}, part)
            want = _sum({box: wanted[box] for box in boxes if box in wanted}, part)
            model, factor = (tokens, want / have) if have else (wanted, Fraction(1))
            for box in boxes:
                counts = mixed.setdefault(box, dict.fromkeys(METERS, Fraction(0)))
                if box in model:
                    counts.update({meter: model[box][meter] * factor for meter in part})
    return mixed


def _price_steps(book: Book, before: Period, after: Period, whole: int) -> list[Step]:
    """The rest of the difference, by SKU and the date of its price: what is paid after less what was before."""
    prices = _Prices(book, before)
    by_event: dict[str, Fraction] = defaultdict(Fraction)
    for box, counts in after.tokens.items():
        for meter, count in counts.items():
            if count:
                change = count * (after.rates[box, meter] - prices(box, meter))
                if change:
                    by_event[_event(book, box, before, after)] += change
    steps = [Step(name, round(picos)) for name, picos in sorted(by_event.items())]
    lost = whole - sum(step.picos for step in steps)
    return [*steps, Step("rounding", lost)] if lost else steps


def _event(book: Book, box: Box, before: Period, after: Period) -> str:
    """The name of what changed the SKU's price last, before the end of the later period."""
    starts = [
        card.starts
        for card in book.cards(box.sku)
        if card.starts < after.last and card.prompt_from <= box.band < card.prompt_to
    ]
    on = f" of {max(starts):%Y-%m-%d}" if starts and max(starts).year > 1 else ""
    return f"price of {box.sku.model}{on}"
