"""Another catalogue against the book: each rate that differs, with our source beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from farthing.book import Book, Card, Unpriced
from farthing.meters import METERS
from farthing.money import mtok_usd
from farthing.pricelist._catalogues import Catalogue, Entry
from farthing.pricelist._compare import rate_of
from farthing.usage import Sku


class Differs(NamedTuple):
    """Dollars per million tokens; `above` is the prompt size from which it is compared, 0 for any."""

    name: str
    sku: Sku
    meter: str
    above: int
    theirs: Decimal
    ours: int
    card: Card


class NoMatch(NamedTuple):
    name: str
    meter: str
    above: int
    why: str


@dataclass
class Checked:
    """rows = equal + different + unmatched; a row is one rate: an entry of theirs, a meter, a prompt size.

    A row of theirs that cannot be read is one, without a meter.
    """

    kind: str
    at: datetime
    equal: int
    different: list[Differs]
    unmatched: list[NoMatch]
    skipped: Counter[str]

    @property
    def rows(self) -> int:
        return self.equal + len(self.different) + len(self.unmatched)


def check(book: Book, theirs: Catalogue, at: datetime) -> Checked:
    """Every rate of theirs against the card in force at that time."""
    done = Checked(theirs.kind, at, 0, [], [], theirs.skipped)
    done.unmatched += [NoMatch(name, "", 0, why) for name, why in theirs.malformed]
    for entry in theirs.entries:
        for above in _sizes(book, entry, at):
            _compare(book, entry, above, at, done)
    return done


def _sizes(book: Book, entry: Entry, at: datetime) -> list[int]:
    """The prompt sizes above which either of us has another price."""
    return sorted({*(over for over, _ in entry.bands), *_our_sizes(book, entry.sku, at)})


def _our_sizes(book: Book, sku: Sku | Unpriced, at: datetime) -> Iterator[int]:
    if isinstance(sku, Sku):
        for card in book.cards(sku):
            if card.starts <= at < card.ends and card.prompt_from:
                yield card.prompt_from - 1


def _compare(book: Book, entry: Entry, above: int, at: datetime, done: Checked) -> None:
    rates = entry.rates(above + 1)
    sku = entry.sku
    for meter in METERS:
        if meter not in rates:
            continue
        if not rates[meter].is_finite():
            done.unmatched.append(
                NoMatch(entry.name, meter, above, f"no price of {meter}: a number from 0 up")
            )
            continue
        card = sku if isinstance(sku, Unpriced) else book.find(sku, at, above + 1 if above else 0)
        if isinstance(card, Unpriced):
            done.unmatched.append(NoMatch(entry.name, meter, above, card.reason))
            continue
        ours = rate_of(card, meter)
        if ours is None:
            why = book.find(card.sku, at, above, cached=True)
            assert isinstance(why, Unpriced)  # the card has no rate of it
            done.unmatched.append(NoMatch(entry.name, meter, above, why.reason))
        elif Decimal(mtok_usd(ours)) == rates[meter]:
            done.equal += 1
        else:
            done.different.append(Differs(entry.name, card.sku, meter, above, rates[meter], ours, card))
