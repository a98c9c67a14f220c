"""The books that offers make of a public one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from itertools import pairwise
from typing import Any

from farthing.book import Book, Card
from farthing.meters import METERS, Vector
from farthing.offers._offer import Offer, Rule, plain
from farthing.usage import Sku

_BY = " by "  # in the id of a card, before the names of its offers


def contracted(book: Book, offers: Iterable[Offer], account: str = "") -> Book:
    """The book that an account has: cards split at the dates of its offers, with their rates between them.

    What no offer changes is the same card as in `book`, and the whole is `book` itself if none changes anything.
    """
    held = [offer for offer in offers if offer.holds_for(account)]
    if not held:
        return book
    cards: dict[str, dict[Any, list[Card]]] = {name: {} for name in book.models}
    for card in book.cards():
        cards[card.sku.model].setdefault(card.sku, []).extend(_split(card, held))
    for found in cards.values():
        for of_sku in found.values():
            of_sku.sort(key=lambda card: (card.starts, card.prompt_from))
    digest = _digest(book, held, [bool(offer.accounts) for offer in held])
    return Book(book.models, book.defaults, digest, _cards=cards)


def split(book: Book, edges: Iterable[datetime]) -> Book:
    """The same prices, on cards that end at these instants and begin anew."""
    turns = sorted(set(edges))
    if not turns:
        return book
    cards: dict[str, dict[Any, list[Card]]] = {name: {} for name in book.models}
    for card in book.cards():
        inside = [turn for turn in turns if card.starts < turn < card.ends]
        parts = pairwise([card.starts, *inside, card.ends])
        cards[card.sku.model].setdefault(card.sku, []).extend(
            replace(card, starts=start, ends=end) for start, end in parts
        )
    return replace(book, _cards=cards)


def books(book: Book, offers: Sequence[Offer]) -> Callable[[str], Book]:
    """The book of each account; accounts with the same offers share one."""

    made: dict[frozenset[int], Book] = {}

    def of(account: str) -> Book:
        held = frozenset(i for i, offer in enumerate(offers) if offer.holds_for(account))
        if held not in made:
            made[held] = contracted(book, offers, account)
        return made[held]

    return of


def _split(card: Card, offers: Sequence[Offer]) -> Iterator[Card]:
    touching = [offer for offer in offers if overlap(offer.span, (card.starts, card.ends))]
    touching = [offer for offer in touching if any(best(offer, card, meter) for meter in meters_of(card))]
    if not touching:
        yield card
        return
    edges = {edge for offer in touching for edge in offer.span if card.starts < edge < card.ends}
    for start, end in pairwise(sorted({card.starts, card.ends, *edges})):
        held = [offer for offer in touching if offer.span[0] <= start < offer.span[1]]
        yield _priced(card, held, start, end)


def _priced(card: Card, held: Sequence[Offer], start: datetime, end: datetime) -> Card:
    band = f">{card.prompt_from - 1}" if card.prompt_from else ""
    name = card.id if start == card.starts else f"{card.sku}@{start:%Y-%m-%d}{band}"
    if not held:
        return replace(card, id=name, starts=start, ends=end)
    rates = card.rates._asdict()
    said, used = [], []
    for meter in meters_of(card):
        found = [(offer, rule) for offer in held if (rule := best(offer, card, meter))]
        if not found:
            continue
        # an offer to named accounts comes before one to all
        offer, rule = max(found, key=lambda pair: bool(pair[0].accounts))
        exact = Fraction(rule.rate) if rule.rate is not None else rates[meter] * (rule.share or Fraction(0))
        rates[meter] = round(exact)  # half-even, once
        rounded = f", rounded from {plain(exact)} picodollars" if exact.denominator != 1 else ""
        said.append(f"{meter} {rule}{rounded}")
        used.append(offer)
    names = " and ".join(dict.fromkeys(offer.name for offer in used))
    return replace(
        card,
        id=f"{name}{_BY}{names}",
        starts=start,
        ends=end,
        rates=Vector(**rates),
        source=", ".join(
            dict.fromkeys(source for offer in used for source in (offer.sources or (offer.name,)))
        ),
        accessed=max(offer.signed for offer in used),
        confidence="contract",
        factors=f"{card.factors}; {names}: {'; '.join(said)}",
    )


def best(offer: Offer, card: Card, meter: str) -> Rule | None:
    return max(
        (rule for rule in offer.rules if rule.fits(card, meter)), key=lambda rule: rule.order, default=None
    )


def meters_of(card: Card) -> tuple[str, ...]:
    """The meters that the card has a rate for."""
    return METERS if card.cached else METERS[:2]


def overlap(one: tuple[datetime, datetime], other: tuple[datetime, datetime]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def contract_book(book: Book, offers: Sequence[Offer]) -> Book:
    """One book for all accounts: an account that offers name has SKUs of its own, which `Book.place` gives its calls.

    So whatever asks such a book for a price asks for the account's, and a what-if stays within its terms.
    """
    if not offers:
        return book
    base = contracted(book, [offer for offer in offers if not offer.accounts])
    cards = {name: {sku: base.cards(sku) for sku in skus} for name, skus in _skus(book).items()}
    terms: dict[str, str] = {}
    for account in sorted(set().union(*(offer.accounts for offer in offers))):
        name = " and ".join(offer.name for offer in offers if account in offer.accounts)
        if name not in terms.values():
            own = contracted(book, offers, account)
            for sku in [sku for skus in _skus(book).values() for sku in skus]:
                public = {card.id: card for card in cards[sku.model][sku]}
                theirs = sku._replace(terms=name)
                cards[sku.model][theirs] = [_own(card, public, theirs) for card in own.cards(sku)]
        terms[account] = name
    digest = _digest(book, offers, [sorted(offer.accounts) for offer in offers])
    return Book(book.models, book.defaults, digest, tuple(offers), terms, book.listed, _cards=cards)


def told_apart(book: Book, other: Book) -> Book:
    """The book at its own prices, with SKUs of their own for the accounts that the other book has terms for.

    So the same usage by two books differs in prices alone. A book that has terms itself is left as it is.
    """
    if book.terms or not other.terms:
        return book
    cards = {name: {sku: book.cards(sku) for sku in skus} for name, skus in _skus(book).items()}
    for held in cards.values():
        for sku, its in list(held.items()):
            for name in set(other.terms.values()):
                theirs = sku._replace(terms=name)
                held[theirs] = [replace(card, sku=theirs) for card in its]
    return Book(
        book.models, book.defaults, book.digest, book.offers, dict(other.terms), book.listed, _cards=cards
    )


def _skus(book: Book) -> dict[str, list[Sku]]:
    found: dict[str, list[Sku]] = {name: [] for name in book.models}
    for sku in dict.fromkeys(card.sku for card in book.cards()):
        found[sku.model].append(sku)
    return found


def _own(card: Card, public: dict[str, Card], sku: Sku) -> Card:
    """The card under the account's SKU. No two cards of a book have one id and different days."""
    same = public.get(card.id, card)
    if (same.starts, same.ends) == (card.starts, card.ends):
        return replace(card, sku=sku)
    name, by, names = card.id.partition(_BY)
    return replace(card, id=f"{name}..{card.ends:%Y-%m-%d}{by}{names}", sku=sku)


def made_by(card: Card) -> str:
    """The offers that the card has its rates from; "" of a list price."""
    return card.id.partition(_BY)[2]


def _digest(book: Book, offers: Iterable[Offer], accounts: Iterable[Any]) -> str:
    said = [
        (offer.name, whose, offer.signed, *offer.span, offer.rules)
        for offer, whose in zip(offers, accounts, strict=True)
    ]
    return hashlib.sha256("\n".join([book.digest, *sorted(map(repr, said))]).encode()).hexdigest()[:12]
