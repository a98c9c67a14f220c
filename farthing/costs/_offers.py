"""What offers make of the same usage: list and contracted cost of its cells, and what their periods owe or give back.

Contracted is by the rates of the offers. A commitment or volume tiers are no rates: a shortfall, or what comes back,
is one amount, of the day on which its period ends. So an effective cost is a call's contracted one, and in all these
amounts are added: as in FOCUS, where they are charges of their own (docs/decisions/0096).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, NamedTuple

from farthing.book import Book, Card, Resolved, midnight
from farthing.cells import Cell, Question, at_list, cells
from farthing.ledger import Ledger
from farthing.meters import Vector
from farthing.money import show
from farthing.offers import Offer, contract_book, split


class Costed(NamedTuple):
    """`cell` is at list price; `contracted` is picodollars by meter, zeros where the cell has no price."""

    cell: Cell
    contracted: Vector


class Period(NamedTuple):
    """One period of an offer's commitment or volume. `spent` is contracted cost, in picodollars."""

    offer: Offer
    every: str
    starts: date
    ends: date  # the first day after it
    spent: int

    @property
    def rebate(self) -> int:
        """What its volume tiers give back."""
        volume = self.offer.volume
        return volume.rebate(self.spent) if volume and volume.every == self.every else 0

    @property
    def shortfall(self) -> int:
        """What is missing to its commitment."""
        commitment = self.offer.commitment
        committed = commitment.picos if commitment and commitment.every == self.every else 0
        return max(0, committed - self.spent)


def by_offers(question: Question, offers: Sequence[Offer]) -> Question:
    """The same question by these offers alone."""
    question = at_list(question)
    return replace(question, book=contract_book(question.book, offers))


def costed(
    ledger: Ledger, question: Question, keys: Sequence[str] = (), *, by_meter: bool = False
) -> list[Costed]:
    """The ledger's cells at list, each with what it comes to by the offers of its account."""
    found = cells(ledger, question, keys, by_meter=by_meter)
    return [Costed(_at_list(question.book, cell), _by_meter(cell)) for cell in found]


def taken_off(book: Book, found: Iterable[Cell]) -> dict[str, Any] | None:
    """What the offers of the book took off the list price of these cells, which are priced by it; None without offers.

    Whoever tells the cost of cells tells this under it.
    """
    if not book.offers:
        return None
    priced = [cell for cell in found if isinstance(cell.price, Card)]
    listed = sum(_at_list(book, cell).cost for cell in priced)
    return off_list(book, listed, sum(cell.cost for cell in priced))


def off_list(book: Book, listed: int, contracted: int) -> dict[str, Any]:
    """The same of sums."""
    names = [offer.name for offer in book.offers]
    return {"names": names, "book": book.digest, "list_usd": listed, "off_usd": listed - contracted}


def off_sentence(taken: Mapping[str, Any]) -> str:
    """For people, of amounts as picodollars."""
    off, listed = show(taken["off_usd"]), show(taken["list_usd"])
    return f"by private offers ({', '.join(taken['names'])}): {off} off the list price of {listed}"


def periods(
    ledger: Ledger,
    question: Question,
    *,
    volume: bool = False,
    until: date | None = None,
    as_of: date | None = None,
) -> list[Period]:
    """The periods of commitments (or of volume tiers) with all of their spend, whatever days and filter are asked for.

    Those that begin before `until`; before the end of the usage if that is left out. `as_of` is the last day counted.
    """
    used = ledger.days()
    last = until or (used[1].date() if used else None)
    offers: Sequence[Offer] = question.book.offers
    terms = [(offer, term) for offer in offers if (term := offer.volume if volume else offer.commitment)]
    if not terms or last is None:
        return []
    found = [Period(o, t.every, *span, 0) for o, t in terms for span in o.periods(t.every, last)]
    spent = [0] * len(found)
    edges = {midnight(day) for period in found for day in (period.starts, period.ends)}
    book = split(question.book, edges)  # so that a cell lies in one period of each
    asked = replace(question, since=None, until=as_of, where=(), tz="UTC", book=book)
    held = {terms: _held(book, terms) for terms in ("", *book.terms.values())}
    for cell in cells(ledger, asked):
        if not isinstance(cell.sku, Resolved) or not isinstance(cell.price, Card):
            continue
        sku = cell.sku.sku
        for i, period in enumerate(found):
            counts = period.offer in held[sku.terms] and sku.platform in period.offer.platforms
            if counts and midnight(period.starts) <= cell.at < midnight(period.ends):
                spent[i] += cell.cost
    return [period._replace(spent=picos) for period, picos in zip(found, spent, strict=True)]


def _held(book: Book, terms: str) -> list[Offer]:
    """The offers to the accounts of these terms."""
    own = {account for account, name in book.terms.items() if name == terms}
    return [offer for offer in book.offers if not offer.accounts or offer.accounts & own]


def notes(ledger: Ledger, question: Question) -> list[str]:
    """What stays at list price though an offer may be meant for it."""
    offers: Sequence[Offer] = question.book.offers
    seen = {account for (account,) in ledger.contexts().project("account").distinct().fetchall()}
    said = [
        f"offer {offer.name!r}: the ledger has no calls of its accounts"
        for offer in offers
        if offer.accounts and not offer.accounts & seen
    ]
    if "" in seen and any(offer.accounts for offer in offers):
        said.append("calls of no known account are at list price where an offer names accounts")
    return said


def due(ledger: Ledger, question: Question, today: date) -> tuple[int, int]:
    """(rebates, shortfalls) of the periods that end within the days asked for, and are over: what an invoice has.

    They are of all usage, so a question with a filter has none.
    """
    if question.where:
        return 0, 0
    since, until = question.span()

    def over(period: Period) -> bool:
        return period.ends <= today and since < midnight(period.ends) <= until

    back = sum(p.rebate for p in periods(ledger, question, volume=True, until=today) if over(p))
    short = sum(p.shortfall for p in periods(ledger, question, until=today) if over(p))
    return back, short


def _by_meter(cell: Cell) -> Vector:
    rates = cell.price.rates if isinstance(cell.price, Card) else Vector()
    return Vector(*(count * rate for count, rate in zip(cell.tokens, rates, strict=True)))


def _at_list(book: Book, cell: Cell) -> Cell:
    """The cell as the public book has it."""
    if not isinstance(cell.sku, Resolved) or not isinstance(cell.price, Card):
        return cell
    card = book.listed.find(cell.sku.sku, cell.at, cell.prompt, cached=cell.tokens.cached > 0)
    assert isinstance(card, Card)  # an offer changes a card, and adds none
    return cell._replace(price=card, cost=cell.tokens @ card.rates)
