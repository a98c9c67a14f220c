"""List, contracted and effective cost of the same usage: what an account's offers make of the ledger's cells.

Contracted is by the rates of the offers. Effective is that less what volume tiers give back, each period's rebate
spread over its spend. A commitment adds no cost to a call: its shortfall is one amount, due when the period is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, NamedTuple

from farthing.book import Book, Card, Resolved, midnight
from farthing.cells import Cell, Question, Where, cells
from farthing.ledger import Ledger
from farthing.meters import Vector
from farthing.offers import Offer, contracted, load_offers, split


class Costed(NamedTuple):
    """`cell` is at list price; the vectors are picodollars by meter, zeros where the cell has no price."""

    cell: Cell
    contracted: Vector
    effective: Vector


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


class Group(NamedTuple):
    """Accounts with the same offers, the book that they have, and how they are told from the others."""

    held: tuple[Offer, ...]
    book: Book
    where: tuple[Where, ...]


def offers_of(question: Question) -> list[Offer]:
    """The offers of farthing.toml. OfferError (a ValueError) where one cannot be."""
    return load_offers(question.config.contracts, question.book)


def costed(
    ledger: Ledger,
    question: Question,
    keys: Sequence[str] = (),
    *,
    by_meter: bool = False,
    offers: Sequence[Offer] | None = None,
) -> list[Costed]:
    """The ledger's cells, each with what it comes to by the offers that its account has: those of farthing.toml."""
    offers = offers_of(question) if offers is None else offers
    back = periods(ledger, question, offers, volume=True)
    counted: dict[Period, int] = {}
    found = []
    for group in groups(ledger, question, offers):
        asked = replace(question, book=group.book, where=(*question.where, *group.where))
        for cell in cells(ledger, asked, keys, by_meter=by_meter):
            paid = spread = _by_meter(cell)
            counting = _counting(cell, group.held)
            for period in back:
                if period.offer in counting and _within(cell, period.starts, period.ends):
                    spread = _less(spread, paid, period, counted)
            found.append(Costed(_at_list(question.book, cell), paid, spread))
    return found


def _less(spread: Vector, paid: Vector, period: Period, counted: dict[Period, int]) -> Vector:
    """With the part of the period's rebate that falls on it; the parts of all its spend sum to the rebate exactly."""
    parts = []
    for left, picos in zip(spread, paid, strict=True):
        before = counted.get(period, 0)
        after = counted[period] = before + picos
        share = [
            period.rebate * reached // period.spent if period.spent else 0 for reached in (before, after)
        ]
        parts.append(left - share[1] + share[0])
    return Vector._make(parts)


def periods(
    ledger: Ledger,
    question: Question,
    offers: Sequence[Offer],
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
    terms = [(offer, term) for offer in offers if (term := offer.volume if volume else offer.commitment)]
    if not terms or last is None:
        return []
    found = [Period(o, t.every, *span, 0) for o, t in terms for span in o.periods(t.every, last)]
    spent = [0] * len(found)
    everything = replace(question, since=None, until=as_of, where=(), tz="UTC")
    for group in groups(ledger, question, offers):
        for cell in cells(ledger, replace(everything, book=group.book, where=group.where)):
            counting = _counting(cell, group.held)
            for i, period in enumerate(found):
                if period.offer in counting and _within(cell, period.starts, period.ends):
                    spent[i] += sum(_by_meter(cell))
    return [period._replace(spent=picos) for period, picos in zip(found, spent, strict=True)]


def notes(ledger: Ledger, question: Question) -> list[str]:
    """What stays at list price though an offer may be meant for it."""
    offers = offers_of(question)
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
    """(rebates, shortfalls) of the periods that end within the days asked for, and are over: what an invoice has."""
    offers = offers_of(question)
    since, until = question.span()

    def over(period: Period) -> bool:
        return period.ends <= today and since < midnight(period.ends) <= until

    back = sum(p.rebate for p in periods(ledger, question, offers, volume=True, until=today) if over(p))
    short = sum(p.shortfall for p in periods(ledger, question, offers, until=today) if over(p))
    return back, short


def groups(ledger: Ledger, question: Question, offers: Sequence[Offer]) -> list[Group]:
    """The ledger's accounts by the offers they have. Cells of their books lie in one period of each offer."""
    used = ledger.days()
    accounts: dict[tuple[int, ...], list[str]] = {}
    for (account,) in sorted(ledger.contexts().project("account").distinct().fetchall()) if used else ():
        held = tuple(i for i, offer in enumerate(offers) if offer.holds_for(account))
        accounts.setdefault(held, []).append(account)
    found = []
    for numbers, names in accounts.items():
        held_offers = tuple(offers[i] for i in numbers)
        book = contracted(question.book, held_offers, names[0])
        book = split(book, _edges(held_offers, used[1].date())) if used else book
        where = (Where("account", tuple(names)),) if len(accounts) > 1 else ()
        found.append(Group(held_offers, book, where))
    return found


def _edges(offers: Iterable[Offer], until: date) -> set[Any]:
    terms = [(offer, term.every) for offer in offers for term in (offer.volume, offer.commitment) if term]
    return {midnight(day) for offer, every in terms for span in offer.periods(every, until) for day in span}


def _counting(cell: Cell, held: Iterable[Offer]) -> list[Offer]:
    """The offers whose commitment or volume this cell counts to."""
    if not isinstance(cell.sku, Resolved) or not isinstance(cell.price, Card):
        return []
    platform = cell.sku.sku.platform
    return [
        offer
        for offer in held
        if (offer.volume or offer.commitment)
        and platform in offer.platforms
        and offer.span[0] <= cell.at < offer.span[1]
    ]


def _within(cell: Cell, starts: date, ends: date) -> bool:
    return midnight(starts) <= cell.at < midnight(ends)


def _by_meter(cell: Cell) -> Vector:
    rates = cell.price.rates if isinstance(cell.price, Card) else Vector()
    return Vector(*(count * rate for count, rate in zip(cell.tokens, rates, strict=True)))


def _at_list(book: Book, cell: Cell) -> Cell:
    """The cell as the public book has it."""
    if not isinstance(cell.sku, Resolved) or not isinstance(cell.price, Card):
        return cell
    card = book.find(cell.sku.sku, cell.at, cell.prompt, cached=cell.tokens.cached > 0)
    assert isinstance(card, Card)  # an offer changes a card, and adds none
    return cell._replace(price=card, cost=cell.tokens @ card.rates)
