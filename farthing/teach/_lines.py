"""The bill as its rates are learned from it: tokens of one price, day and description, and what they were billed at."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from farthing.book import Book, Card, Unpriced
from farthing.meters import CACHE_METERS
from farthing.statement import Statement
from farthing.usage import Sku

ROUNDING_PICOS = 1_000_000  # a line's cost has at least six decimals that count
PARTS = 100_000  # rounded quantities make an amount wrong by one of as many parts
FAR = 20  # times off the list price: the unit was misread
_USAGE = "lower(replace(line_type, ' ', '')) IN ('usage', 'discountedusage', 'savingsplancoveredusage')"


class Price(NamedTuple):
    """What has one rate on one day in one account."""

    account: str
    model: str
    endpoint: str
    zone: str
    mode: str
    long_prompt: bool
    meter: str

    @property
    def sku(self) -> Sku:
        return Sku("bedrock", self.model, self.endpoint, self.zone, self.mode)

    def card(self, book: Book, day: date) -> Card | Unpriced:
        """The card of that day; beyond the last prompt band for long prompts."""
        at = datetime.combine(day, time(), UTC)
        edges = [card.prompt_from for card in book.cards(self.sku) if card.starts <= at < card.ends]
        size = max(edges, default=0) if self.long_prompt else 0
        return book.find(self.sku, at, size, cached=self.meter in CACHE_METERS)

    def rate(self, book: Book, day: date) -> int | None:
        """Picodollars a token."""
        card = self.card(book, day)
        return None if isinstance(card, Unpriced) else int(getattr(card.rates, self.meter))


class Line(NamedTuple):
    """Lines of one price, day and description, summed."""

    price: Price
    day: date
    usage_type: str
    tokens: int
    picos: int
    rate: int | None  # the book's
    lines: int

    @property
    def listed(self) -> int:
        return self.tokens * (self.rate or 0)

    def is_at(self, rate: int) -> bool:
        """Whether the amount is that of this rate, but for rounding."""
        at_rate = self.tokens * rate
        return PARTS * abs(self.picos - at_rate) <= PARTS * ROUNDING_PICOS + abs(at_rate)

    @property
    def share(self) -> tuple[Fraction, Fraction]:
        """Between which shares of list it was billed: amounts and quantities are rounded."""
        slack = PARTS * ROUNDING_PICOS + self.listed
        whole = PARTS * self.listed
        return Fraction(PARTS * self.picos - slack, whole), Fraction(PARTS * self.picos + slack, whole)


def lines(statement: Statement) -> Iterator[Line]:
    """Every line of tokens, by what the statement says of it."""
    columns = "day, coalesce(nullif(account, ''), payer), usage_type, description, negative"
    sums = f"sum(coalesce({statement.cost}, unblended, 0)), sum(coalesce(quantity, 0)), sum(lines)"
    for number, day, account, usage_type, *_, cost, quantity, count in statement.classed(
        f"{columns}, {sums}", _USAGE
    ):
        about = statement.classes[number]
        if about.kind != "tokens":
            continue
        cached = about.meter in CACHE_METERS
        where = (about.model, about.endpoint, about.mode, about.region, day, about.long_prompt, cached)
        card = statement.card(*where)
        zone = "" if isinstance(card, Unpriced) else card.sku.zone
        rate = None if isinstance(card, Unpriced) else int(getattr(card.rates, about.meter))
        price = Price(account, about.model, about.endpoint, zone, about.mode, about.long_prompt, about.meter)
        tokens = int((quantity * about.scale).to_integral_value())
        yield Line(price, day, usage_type, tokens, int(Decimal(cost).scaleb(12)), rate, count)


def span_of(statement: Statement) -> tuple[date, date] | None:
    """The first and the last day that the tokens of a bill are of; whole months, where it tells no days."""
    days = [line.day for line in statement.billed]
    if not days:
        return None
    last = max(days)
    if statement.loaded.by_month:
        last = last.replace(day=monthrange(last.year, last.month)[1])
    return min(days), last


def rate_elsewhere(book: Book, line: Line) -> Card | None:
    """The card of the same SKU on other days, or in other zones, whose rate the line was billed at."""
    zones = ("", *book.models[line.price.model].platform("bedrock").get("zones", ()))
    band = line.price.card(book, line.day)
    if isinstance(band, Unpriced):
        return None
    for zone in zones:
        for card in book.cards(line.price.sku._replace(zone=zone)):
            rate = int(getattr(card.rates, line.price.meter))
            same_band = (card.prompt_from > 0) == (band.prompt_from > 0)
            if same_band and rate not in (line.rate, 0) and line.is_at(rate):
                return card
    return None
