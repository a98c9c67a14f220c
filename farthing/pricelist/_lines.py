"""A line of a price list: which SKU and meter it is the rate of, or why that cannot be told.

The words of a usage type are read as bills are read (`statement`), and more strictly: a word that nobody knows may
change the price, so the line is unmatched and not guessed. A unit is taken only where it is one of those known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from farthing.book import Book, Unpriced
from farthing.money import from_usd
from farthing.statement._usage_type import TOKENS, UNDECODED, Name, about, words_of
from farthing.usage import MODES, Sku


class PriceListError(ValueError):
    """A source of prices cannot be used: one line that names it and the mend."""


class Quote(NamedTuple):
    """A rate as a source states it, in picodollars per token. `said` is how the source names it."""

    sku: Sku
    meter: str
    long_prompt: bool
    rate: int
    region: str
    said: str


class Unmatched(NamedTuple):
    """A line about Claude's tokens, as it seems, that is no rate of any SKU; `of` is the product it names."""

    said: str
    of: str
    why: str


@dataclass
class Reading:
    """What was read: read = quotes + skipped + unmatched, each line counted once."""

    name: str
    published: date | None = None
    quotes: list[Quote] = field(default_factory=list)
    skipped: Counter[str] = field(
        default_factory=Counter
    )  # by class: reserved, provisioned, another model ...
    unmatched: list[Unmatched] = field(default_factory=list)

    @property
    def lines(self) -> int:
        return len(self.quotes) + self.skipped.total() + len(self.unmatched)

    def add(self, line: Quote | Unmatched | str) -> None:
        """A line as `read_line` told it; text is the class of one that is passed over."""
        if isinstance(line, Quote):
            self.quotes.append(line)
        elif isinstance(line, Unmatched):
            self.unmatched.append(line)
        else:
            self.skipped[line] += 1


_WORDS = frozenset(
    ("input", "output", "token", "tokens", "count", "cache", "read", "write", "1h", "5m", "global", "geo", "regional",
     "batch", "standard", "unit", "units", "mantle", "mp", "million", "l", "long", "ctx", "context", "on", "demand",
     "cross", "region", "claude", "anthropic", "v")
)  # fmt: skip
_UNITS = frozenset(
    (
        "unit",
        "units",
        "token",
        "tokens",
        "1k tokens",
        "1m tokens",
        "1000 tokens",
        "1000000 tokens",
        "1k",
        "1m",
    )
)
_CODE = re.compile(r"^[A-Z]{2,3}\d?[-_]")


def read_line(
    book: Book,
    names: Mapping[Name, str],
    *,
    usage_type: str,
    product: str,
    unit: str,
    price: str,
    code: str = "AmazonBedrock",
    description: str = "",
    region: str = "",
) -> Quote | Unmatched | str:
    """One line of a list: a rate, why it is none, or the class that it is passed over by. `names` are `by_name`."""
    found = about(names, usage_type, code, product, unit, description, region)
    if found.kind not in (TOKENS, UNDECODED):
        return found.kind or "other"

    def unmatched(why: str) -> Unmatched:
        return Unmatched(usage_type, product, why)

    if found.kind == UNDECODED:
        return unmatched(found.why)
    if found.mode not in MODES:
        return found.mode
    strange = _strange(usage_type, found.model)
    if strange:
        return unmatched(f"the word {strange!r} in its usage type is not known")
    if unit.strip().lower().replace(",", "") not in _UNITS:
        return unmatched(f"the unit {unit!r} is not known")
    sku = _sku(book, found.model, found.endpoint, found.mode, found.region)
    if isinstance(sku, str):
        return unmatched(sku)
    rate = _rate(price, found.scale)
    if isinstance(rate, str):
        return unmatched(rate)
    return Quote(sku, found.meter, found.long_prompt, rate, found.region, usage_type)


def _strange(usage_type: str, model: str) -> str:
    """The first word that is neither a known one nor of the model's name."""
    text = _CODE.sub("", _CODE.sub("", usage_type).removeprefix("MP:"))
    known = _WORDS | set(words_of(model.replace("-", " ")))
    return next((word for word in words_of(text) if word not in known and not word.isdigit()), "")


def _sku(book: Book, model: str, endpoint: str, mode: str, region: str) -> Sku | str:
    base = next((name for name in book.models[model].ids if name.startswith("anthropic.")), "")
    if not base:
        return f"{model} has no id on Bedrock"
    prefix = "global." if endpoint == "global" else ""
    found = book.resolve(prefix + base, platform="bedrock", region=region, mode=mode)
    if isinstance(found, Unpriced):
        return found.reason
    if "region" in found.assumed:
        return f"the price of {model} differs by region, and no known region is named"
    return found.sku


def _rate(price: str, scale: int) -> int | str:
    """Picodollars per token, or why the price is none."""
    try:
        picos = from_usd(price)
    except ValueError:
        return f"{price!r} is no price in dollars"
    rate, rest = divmod(picos, scale)
    if rest:
        return f"${price} for {scale:,} tokens is finer than a picodollar a token"
    if rate <= 0:
        return f"a price of ${price}: unknown is not free"
    return rate
