"""What an offer is: its rules, its days and periods, and what it owes or gives back."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from fractions import Fraction

from farthing.book import FOREVER, Card, midnight
from farthing.money import mtok_usd

ENDPOINTS = ("global", "regional", "govcloud", "geo_us")
WILD = re.compile(r"[*?]")


class OfferError(ValueError):
    """An offer cannot be used: one line that names the file, the line and the mend."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is paid for the tokens it names; "" names all. Either `share` of the list rate, or `rate` itself."""

    model: str = ""  # an id of the book; * and ? stand for others
    meter: str = ""
    platform: str = "bedrock"
    endpoint: str = ""
    mode: str = ""
    long_prompt: bool | None = None  # beyond the first prompt band, where a model has bands
    share: Fraction | None = None
    rate: int | None = None  # picodollars per token

    def fits(self, card: Card, meter: str) -> bool:
        sku = card.sku
        return (
            (self.platform, self.endpoint or sku.endpoint, self.mode or sku.mode, self.meter or meter)
            == (sku.platform, sku.endpoint, sku.mode, meter)
            and (self.long_prompt is None or self.long_prompt == (card.prompt_from > 0))
            and fnmatchcase(sku.model, self.model or "*")
        )

    @property
    def order(self) -> tuple[int, ...]:
        """How specific it is: the greatest wins."""
        named = 0 if not self.model else 1 if WILD.search(self.model) else 2
        others = (self.meter, self.endpoint, self.mode, self.long_prompt is not None, self.rate is not None)
        return (named, *map(int, map(bool, others)))

    def __str__(self) -> str:
        """How it is told on a card."""
        if self.share is None:
            return f"${mtok_usd(self.rate or 0)} per million"
        return f"{plain(100 * (1 - self.share))} % off"


MONTHS = {"month": 1, "quarter": 3, "year": 12}  # of the periods; a term is all of the offer


@dataclass(frozen=True, slots=True)
class Committed:
    """So much is spent in every period, or the rest is paid all the same."""

    picos: int
    every: str = "term"


@dataclass(frozen=True, slots=True)
class Volume:
    """Of what a period's spend has above each bound (picodollars) a share comes back; bounds and shares rise."""

    every: str
    tiers: tuple[tuple[int, Fraction], ...]

    def rebate(self, spent: int) -> int:
        """What comes back of a period's spend: exact, and rounded half-even once."""
        bounds = [bound for bound, _ in self.tiers[1:]]
        bands = zip(self.tiers, [*bounds, max(spent, 0)], strict=True)
        back = (share * max(0, min(spent, upto) - bound) for (bound, share), upto in bands)
        return round(sum(back, Fraction(0)))


@dataclass(frozen=True, slots=True)
class Offer:
    name: str
    accounts: frozenset[str]  # none named: all
    signed: date
    starts: date
    ends: date | None  # the first day on which it no longer holds
    rules: tuple[Rule, ...]
    sources: tuple[str, ...] = ()
    file: str = ""
    lines: tuple[int, ...] = ()  # of the file: the offer's, then those of its rules
    commitment: Committed | None = None
    volume: Volume | None = None

    @property
    def span(self) -> tuple[datetime, datetime]:
        return midnight(self.starts), midnight(self.ends) if self.ends else FOREVER

    def holds_for(self, account: str) -> bool:
        """Whether it is an offer to this account; one that names accounts is none to an unknown one."""
        return not self.accounts or account in self.accounts

    @property
    def platforms(self) -> frozenset[str]:
        """Whose usage its commitment and volume count: those that it has rates for, or Bedrock."""
        return frozenset(rule.platform for rule in self.rules) or frozenset({"bedrock"})

    def periods(self, every: str, until: date) -> Iterator[tuple[date, date]]:
        """Its periods that begin before that day, each with the first day after it."""
        number, starts = 0, self.starts
        while starts < until and (self.ends is None or starts < self.ends):
            number += 1
            ends = months_later(self.starts, MONTHS[every] * number) if every in MONTHS else self.ends
            ends = min(ends or FOREVER.date(), self.ends or FOREVER.date())
            yield starts, ends
            starts = ends


def months_later(day: date, months: int) -> date:
    """The same day of a later month (earlier: negative), or that month's last."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def plain(number: Fraction) -> str:
    """The number as a decimal, exact where it has an end."""
    return f"{(Decimal(number.numerator) / Decimal(number.denominator)).normalize():f}"
