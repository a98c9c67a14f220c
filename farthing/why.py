"""Why one cost is not another: steps in a fixed order, which sum to the difference exactly.

Two scenarios are compared: mostly two periods of a ledger, or any two of period, filter, ledger, book and assumptions.
Usage is taken as a product of factors: calls x text of a call x tokens of a text x which model x which endpoint x
which mode x how many prompts were long x how the prompt was met (plain, read from the cache, written to it). One factor
after another is exchanged for that of the later, at the prices of the earlier; last come the prices themselves, by the
dates they changed.

1. volume            calls
2. prompt size       prompt text a call, in tokens of the older tokenizer
3. output size       output text a call, likewise
4. tokenizer         tokens of a text: what share of it went to models whose tokenizer makes more of it
5. model mix         each model's share of the tokens
6. endpoint mix      within each model
7. batch and mode    within each model and endpoint
8. account mix       between accounts that have different private offers
9. long prompts      the share of tokens in prompts beyond a price band
10. cache            what share of the prompt was read, written, or neither
11. prices           one step a SKU's price event, or a private offer's; `unpriced` usage is in no step

No source tells text, so step 4 is assumed: a token of the older tokenizer is taken to be KAPPA tokens of the newer.
What it adds, steps 2 and 3 lose: their sum with it does not hang on the assumption.

What the earlier has nothing of (a model that is new) it is given from the later: all that it brings stands under its
mix. Steps before the last are rounded to the picodollar one total at a time, so their sum loses nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from farthing.book import Book, Card, Unpriced
from farthing.cells import Cell, Question, cells
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.offers import made_by
from farthing.usage import Sku

PROMPT = tuple(meter for meter in METERS if meter != "output")


# Tokens of the newer tokenizer (v2, from the 4.7 models on) for one of the older: Anthropic says about 30 % more, and
# has said up to 35 % (PRICES.md 8).
KAPPA = Fraction(13, 10)
KAPPA_RANGE = (Fraction(1), Fraction(135, 100))
_NEWER = "v2"


class Step(NamedTuple):
    """`least_picos` and `most_picos` are what an assumed step comes to at either end of what is known."""

    name: str
    picos: int
    least_picos: int | None = None
    most_picos: int | None = None


class Scenario(NamedTuple):
    """One side: whole days of a ledger, the last included, under a question's filter, book and assumptions."""

    ledger: Ledger
    question: Question
    days: tuple[date, date]


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


def why(
    ledger: Ledger,
    question: Question,
    earlier: tuple[date, date],
    later: tuple[date, date],
    kappa: Fraction = KAPPA,
) -> Moved:
    """From one period of a ledger to another."""
    return between(Scenario(ledger, question, earlier), Scenario(ledger, question, later), kappa)


def between(earlier: Scenario, later: Scenario, kappa: Fraction = KAPPA) -> Moved:
    """From one scenario to another."""
    before, after = _periods(earlier, ()), _periods(later, ())
    return _moved(before.get((), _nothing(earlier)), after.get((), _nothing(later)), earlier, later, kappa)


def between_by(
    earlier: Scenario, later: Scenario, keys: Sequence[str], kappa: Fraction = KAPPA
) -> dict[tuple[str, ...], Moved]:
    """The same for each value of the keys (team, account ...): they come to the whole; largest difference first."""
    before, after = _periods(earlier, keys), _periods(later, keys)
    found = {
        value: _moved(
            before.get(value, _nothing(earlier)), after.get(value, _nothing(later)), earlier, later, kappa
        )
        for value in before.keys() | after.keys()
    }
    return dict(
        sorted(found.items(), key=lambda item: (-abs(item[1].to_picos - item[1].from_picos), item[0]))
    )


def between_cells(
    earlier: Scenario, before: Iterable[Cell], later: Scenario, after: Iterable[Cell], kappa: Fraction = KAPPA
) -> Moved:
    """The same of cells at hand, which may be any part of the scenarios' days."""
    return _moved(_period(before, _end(earlier)), _period(after, _end(later)), earlier, later, kappa)


def _moved(before: Period, after: Period, earlier: Scenario, later: Scenario, kappa: Fraction) -> Moved:
    prices = _Prices(earlier.question.book, before)
    chain = _chain(before, after, prices, later.question.book, kappa)
    steps = [Step(name, there - here) for (_, here), (name, there) in pairwise(chain)]
    steps = [_ranged(step, before, after, prices, later.question.book) for step in steps]
    reached = chain[-1][1]
    steps += _price_steps(prices, earlier, later, after, after.picos - reached)
    unpriced = before.unpriced_calls + after.unpriced_calls
    return Moved(before.picos, after.picos, [step for step in steps if step.picos], unpriced)


def _ranged(step: Step, before: Period, after: Period, prices: _Prices, book: Book) -> Step:
    """The tokenizer's step, with what it is at the ends of what Anthropic has said."""
    if step.name != _TOKENIZER:
        return step
    ends = []
    for kappa in KAPPA_RANGE:
        chain = _chain(before, after, prices, book, kappa)
        ends += [there - here for (_, here), (name, there) in pairwise(chain) if name == _TOKENIZER]
    return step._replace(least_picos=min(ends), most_picos=max(ends))


def _nothing(of: Scenario) -> Period:
    return Period(0, {}, 0, {}, 0, _end(of))


def _end(of: Scenario) -> datetime:
    return replace(of.question, since=of.days[0], until=of.days[1]).span()[1]


def _periods(of: Scenario, keys: Sequence[str]) -> dict[tuple[str, ...], Period]:
    asked = replace(of.question, since=of.days[0], until=of.days[1])
    groups: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for cell in cells(of.ledger, asked, keys):
        groups[cell.keys].append(cell)
    return {value: _period(found, _end(of)) for value, found in groups.items()}


def _period(found: Iterable[Cell], last: datetime) -> Period:
    tokens: Usages = defaultdict(lambda: dict.fromkeys(METERS, Fraction(0)))
    paid: dict[tuple[Box, str], int] = defaultdict(int)
    calls = picos = unpriced = 0
    for cell in found:
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
    return Period(calls, dict(tokens), picos, rates, unpriced, last)


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


_TOKENIZER = "tokenizer"
_PARTS = {"prompt": PROMPT, "output": ("output",)}


def _chain(
    before: Period, after: Period, prices: _Prices, book: Book, kappa: Fraction
) -> list[tuple[str, int]]:
    """The totals after each factor has been exchanged, the first of them before any has."""
    if not before.calls or not after.calls:
        return [("", before.picos), ("volume", prices.total(after.tokens))]
    found = [("", before.picos)]
    sizes = {part: _sum(before.tokens, meters) for part, meters in _PARTS.items()}
    wanted = {part: _sum(after.tokens, meters) for part, meters in _PARTS.items()}
    grown = Fraction(after.calls, before.calls)
    tokens = _scaled(before.tokens, dict.fromkeys(_PARTS, grown))
    found.append(("volume", prices.total(tokens)))
    swelled = {
        part: _per_text(after.tokens, meters, book, kappa) / _per_text(before.tokens, meters, book, kappa)
        for part, meters in _PARTS.items()
    }
    for part in _PARTS:
        if sizes[part]:
            tokens = _scaled(tokens, {part: wanted[part] / (sizes[part] * grown * swelled[part])})
        found.append((f"{part} size", prices.total(tokens)))
    tokens = _scaled(tokens, {part: factor for part, factor in swelled.items() if sizes[part]})
    found.append((_TOKENIZER, prices.total(tokens)))
    for name, key in _MIXES:
        tokens = _mixed(tokens, after.tokens, key)
        found.append((name, prices.total(tokens)))
    found.append(("cache", prices.total(after.tokens)))
    return found


def _per_text(tokens: Usages, meters: Sequence[str], book: Book, kappa: Fraction) -> Fraction:
    """Tokens for what would be one token of the older tokenizer, over all of them."""
    whole = _sum(tokens, meters)
    newer = _sum({box: counts for box, counts in tokens.items() if _is_newer(book, box)}, meters)
    return whole / (whole - newer + newer / kappa) if whole else Fraction(1)


def _is_newer(book: Book, box: Box) -> bool:
    model = book.models.get(box.sku.model)
    return model is not None and model.data.get("tokenizer") == _NEWER


_MIXES = (
    ("model mix", lambda box: (box.sku.platform, box.sku.model)),
    ("endpoint mix", lambda box: (box.sku.platform, box.sku.model, box.sku.endpoint, box.sku.zone)),
    ("batch and mode", lambda box: box.sku._replace(terms="")),
    ("account mix", lambda box: box.sku),
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


def _price_steps(
    prices: _Prices, earlier: Scenario, later: Scenario, after: Period, whole: int
) -> list[Step]:
    """The rest of the difference, by SKU and the date of its price: what is paid after less what was before."""
    books = earlier.question.book, later.question.book
    by_event: dict[str, Fraction] = defaultdict(Fraction)
    for box, counts in after.tokens.items():
        for meter, count in counts.items():
            if count:
                change = count * (after.rates[box, meter] - prices(box, meter))
                if change:
                    by_event[_event(*books, box, after)] += change
    steps = [Step(name, round(picos)) for name, picos in sorted(by_event.items())]
    lost = whole - sum(step.picos for step in steps)
    return [*steps, Step("rounding", lost)] if lost else steps


def _event(earlier: Book, later: Book, box: Box, after: Period) -> str:
    """The name of what changed the SKU's price last, before the end of the later period; or that books differ."""
    cards = [
        card
        for card in later.cards(box.sku)
        if card.starts < after.last and card.prompt_from <= box.band < card.prompt_to
    ]
    if earlier.digest != later.digest and earlier.cards(box.sku) != later.cards(box.sku):
        return f"price of {box.sku.model} in the other book"
    cards.sort(key=lambda card: card.starts)
    on = f" of {cards[-1].starts:%Y-%m-%d}" if cards and cards[-1].starts.year > 1 else ""
    return f"price of {box.sku.model}{on}{_by_offer(cards)}"


def _by_offer(cards: Sequence[Card]) -> str:
    """The private offers that the last price is by, or without whom it began."""
    was, names = ("", "", *map(made_by, cards))[-2:]
    return f" by {names}" if names else f" after {was}" if was else ""
