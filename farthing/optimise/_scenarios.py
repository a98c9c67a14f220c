"""What-ifs: usage summed once, then rated under as many scenarios as are asked. Pricing is linear, so this is exact."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from farthing.book import FOREVER, Book, Card, Resolved
from farthing.cells import Cell, Question, cells
from farthing.ledger import Ledger
from farthing.levers import LEVERS, Rewrite
from farthing.meters import Vector
from farthing.usage import Sku

_PROBE = Vector(1, 1, 1, 1, 1)


class Scenario(NamedTuple):
    """Levers in the order in which they are applied: names of farthing.levers.LEVERS, or rewrites; and a price book."""

    name: str
    levers: Sequence[str | Rewrite] = ()
    book: Book | None = None  # else the question's


class Outcome(NamedTuple):
    """What a scenario comes to. `moved` is what of today's cost some lever applied to; unpriced calls stay out."""

    name: str
    cost: int
    moved: int


class _Pile(NamedTuple):
    """Cells that share what prices hang on. The levers ask which meters are used: that is in here."""

    sku: Sku
    at: datetime
    prompt: int
    used: tuple[bool, ...]


def whatif(ledger: Ledger, question: Question, scenarios: Sequence[Scenario]) -> list[Outcome]:
    """Each scenario's cost, from one pass over the ledger. A lever that has no price here leaves usage as it is."""

    def beside(sku: Sku) -> Iterable[Sku]:
        return {reached for scenario in scenarios for reached in _reached(sku, scenario)}

    piles = _piles(cells(ledger, question, beside=beside))
    return [_outcome(scenario, question.book, piles) for scenario in scenarios]


def _reached(sku: Sku, scenario: Scenario) -> Iterator[Sku]:
    for rewrite in _rewrites(scenario):
        if moved := rewrite(sku, _PROBE):
            sku = moved[0]
            yield sku


def _rewrites(scenario: Scenario) -> list[Rewrite]:
    return [LEVERS[one].rewrite if isinstance(one, str) else one for one in scenario.levers]


def _piles(found: Iterable[Cell]) -> dict[_Pile, Vector]:
    piles: dict[_Pile, Vector] = defaultdict(Vector)
    for cell in found:
        if isinstance(cell.price, Card) and isinstance(cell.sku, Resolved):
            pile = _Pile(cell.sku.sku, cell.at, cell.prompt, tuple(map(bool, cell.tokens)))
            piles[pile] += cell.tokens
    return piles


def _outcome(scenario: Scenario, own: Book, piles: dict[_Pile, Vector]) -> Outcome:
    book = scenario.book or own
    rewrites = _rewrites(scenario)
    cost = moved = 0
    for pile, tokens in piles.items():
        found = own.find(pile.sku, pile.at, pile.prompt, cached=tokens.cached > 0)
        today = tokens @ found.rates if isinstance(found, Card) else 0
        after = rated(book, pile.sku, tokens, pile.at, pile.prompt, rewrites)
        cost += today if after is None else after[0]
        moved += today if after is not None and after[1:] != (pile.sku, tokens) else 0
    return Outcome(scenario.name, cost, moved)


def rated(
    book: Book, sku: Sku, tokens: Vector, at: datetime, prompt: int, rewrites: Sequence[Rewrite]
) -> tuple[int, Sku, Vector] | None:
    """The cost after these rewrites, with the SKU and tokens they made; those that nobody sells are passed over."""
    card = find(book, sku, at, prompt, tokens.cached > 0)
    if card is None:
        return None
    for rewrite in rewrites:
        if (made := rewrite(sku, tokens)) and (sold := find(book, made[0], at, prompt, made[1].cached > 0)):
            (sku, tokens), card = made, sold
    return tokens @ card.rates, sku, tokens


def find(book: Book, sku: Sku, at: datetime, prompt: int, cached: bool) -> Card | None:
    """The card; of a model that was not on sale yet, its first: a plan is for what comes."""
    found = book.find(sku, at, prompt, cached=cached)
    if isinstance(found, Card):
        return found
    if at >= _first(book, sku):
        return None
    later = book.find(sku, _first(book, sku), prompt, cached=cached)
    return later if isinstance(later, Card) else None


def _first(book: Book, sku: Sku) -> datetime:
    return min((card.starts for card in book.cards(sku)), default=FOREVER)
