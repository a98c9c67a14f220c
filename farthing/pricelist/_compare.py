"""A price list against the book: what is equal, new, changed or gone, and what only a person can decide."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from farthing.book import ANY_PROMPT, Book, Card
from farthing.meters import CACHE_METERS, METERS
from farthing.money import mtok_usd
from farthing.pricelist._lines import Quote, Reading
from farthing.usage import Sku

Kind = Literal["new", "changed", "gone", "undecided", "confirmed"]
FAR = 20  # times the book's rate: so far off that the unit may have been misread


class Change(NamedTuple):
    """A rate on which list and book differ. Rates are picodollars per token; `card` is the book's, where it has one.

    `confirmed` is no difference: the list has what the book only assumes.
    """

    kind: Kind
    sku: Sku
    meter: str
    long_prompt: bool
    ours: int | None
    theirs: int | None
    card: Card | None
    said: tuple[str, ...]
    why: str = ""


@dataclass
class Comparison:
    reading: Reading
    at: datetime
    rates: int  # that the list has: equal + new + changed + undecided
    equal: int
    changes: list[Change]
    absent: list[str]  # models of the book on Bedrock of which the list has nothing

    def of(self, *kinds: Kind) -> list[Change]:
        return [change for change in self.changes if change.kind in kinds]


def compare(book: Book, reading: Reading, at: datetime) -> Comparison:
    """The list against the cards in force at that time."""
    by_rate: dict[tuple[Sku, str, bool], list[Quote]] = defaultdict(list)
    for quote in reading.quotes:
        by_rate[quote.sku, quote.meter, quote.long_prompt].append(quote)
    changes = [
        change for key, quotes in sorted(by_rate.items()) if (change := _change(book, at, *key, quotes))
    ]
    differing = sum(change.kind != "confirmed" for change in changes)
    changes += _gone(book, at, by_rate)
    seen = {sku.model for sku, _, _ in by_rate}
    absent = sorted(
        model.id for model in book.models.values() if model.platform("bedrock") and model.id not in seen
    )
    return Comparison(reading, at, len(by_rate), len(by_rate) - differing, changes, absent)


def card_for(book: Book, sku: Sku, at: datetime, *, long_prompt: bool = False) -> Card | None:
    """The card in force, for the longest prompts or for the shortest."""
    found = book.find(sku, at, ANY_PROMPT - 1 if long_prompt else 0)
    return found if isinstance(found, Card) else None


def rate_of(card: Card | None, meter: str) -> int | None:
    """The card's rate of the meter; None where none is published."""
    if card is None or (meter in CACHE_METERS and not card.cached):
        return None
    return int(getattr(card.rates, meter))


def _change(
    book: Book, at: datetime, sku: Sku, meter: str, long_prompt: bool, quotes: Sequence[Quote]
) -> Change | None:
    card = card_for(book, sku, at, long_prompt=long_prompt)
    ours, theirs = rate_of(card, meter), quotes[0].rate
    said = tuple(dict.fromkeys(quote.said for quote in quotes))

    def change(kind: Kind, why: str = "") -> Change:
        return Change(kind, sku, meter, long_prompt, ours, theirs, card, said, why)

    if len({quote.rate for quote in quotes}) > 1:
        return change("undecided", _disagreement(quotes))
    if ours == theirs:
        return change("confirmed", "seen in the list") if card and card.assumed else None
    if long_prompt and (card is None or card.prompt_from == 0):
        return change("undecided", "the list does not say above how many prompt tokens it holds")
    if ours is None:
        return change("new")
    if sku.zone and theirs == rate_of(
        card_for(book, sku._replace(zone=""), at, long_prompt=long_prompt), meter
    ):
        # AWS has the prices of extended access on a page, and not in its lists.
        return change(
            "undecided", f"it is the price of other regions, and the book's is from {_source(card)}"
        )
    if theirs >= ours * FAR or ours >= theirs * FAR:
        return change("undecided", f"{FAR} times off or more: is the unit right?")
    return change("changed")


def _source(card: Card | None) -> str:
    return card.source if card else "nowhere"


def _disagreement(quotes: Sequence[Quote]) -> str:
    """Which regions say what: no order settles it."""
    places: Mapping[int, dict[str, None]] = defaultdict(dict)
    for quote in quotes:
        places[quote.rate][quote.region or "no region"] = None
    says = (f"${mtok_usd(rate)} in {', '.join(sorted(regions))}" for rate, regions in sorted(places.items()))
    return f"the list disagrees with itself: {'; '.join(says)}"


def _gone(
    book: Book, at: datetime, by_rate: Mapping[tuple[Sku, str, bool], Sequence[Quote]]
) -> Iterator[Change]:
    """What the book has and the list lacks, of models, zones and kinds of region of which it has something."""
    zones = {(sku.model, sku.zone) for sku, _, _ in by_rate}
    gov = {sku.endpoint == "govcloud" for sku, _, _ in by_rate}
    for card in book.cards():
        sku = card.sku
        if not (card.starts <= at < card.ends and sku.platform == "bedrock" and card.prompt_from == 0):
            continue
        if (sku.model, sku.zone) not in zones or (sku.endpoint == "govcloud") not in gov:
            continue
        for meter in METERS if card.cached else METERS[:2]:
            if (sku, meter, False) not in by_rate:
                why = "the book assumes it" if card.assumed else ""
                yield Change("gone", sku, meter, False, rate_of(card, meter), None, card, (), why)
