"""The numbers of the article this project starts from, worked out from the price book: tests/article.toml.

What holds must come out of the book. What is wrong, or true in one reading only, says so, and the book's own
figure stands beside it.
"""

import tomllib
from datetime import date
from decimal import Decimal
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from farthing.book import Card, Unpriced, default_book, midnight
from farthing.meters import Vector
from farthing.money import PICOS_PER_MTOK_USD, PICOS_PER_USD
from farthing.usage import Sku

BOOK = default_book()
ARTICLE = tomllib.loads((Path(__file__).parent / "article.toml").read_text(encoding="utf-8"))
CLAIMS: list[dict[str, Any]] = ARTICLE["claim"]
READINGS = [(claim, reading) for claim in CLAIMS for reading in claim.get("readings", [])]
TOKENS_OF_THE_NEW_TOKENIZER = Fraction("1.3")  # about, for one of the old; Anthropic's pricing page


# --- the ways to work out a figure: each takes a reading and the day ---------------------------------


def find(path: str, day: date, prompt: int = 0, *, cached: bool = False) -> Card | Unpriced:
    platform, model, endpoint, *zone, mode = path.split("/")
    sku = Sku(platform, model, endpoint, zone[0] if zone else "", mode)
    return BOOK.find(sku, midnight(day), prompt, cached=cached)


def card(path: str, day: date, prompt: int = 0, *, cached: bool = False) -> Card:
    found = find(path, day, prompt, cached=cached)
    assert isinstance(found, Card), found.reason
    return found


def per_million(rate: str, day: date) -> Fraction:
    path, meter = rate.split()
    cached = meter.startswith("cache")
    return Fraction(getattr(card(path, day, cached=cached).rates, meter), PICOS_PER_MTOK_USD)


def rate(reading: dict[str, Any], day: date) -> Fraction:
    return per_million(reading["of"], day)


def ratio(reading: dict[str, Any], day: date) -> Fraction:
    return per_million(reading["of"], day) / per_million(reading["to"], day)


def rise(reading: dict[str, Any], day: date) -> Fraction:
    return ratio(reading, day) - 1


def saving(reading: dict[str, Any], day: date) -> Fraction:
    return 1 - ratio(reading, day)


def cost(reading: dict[str, Any], day: date) -> Fraction:
    """Dollars of some tokens; many small calls, so no prompt band."""
    return Fraction(Vector(**reading["tokens"]) @ card(reading["sku"], day).rates, PICOS_PER_USD)


def saved(reading: dict[str, Any], day: date) -> Fraction:
    before, after = (cost({"sku": reading[key], **reading}, day) for key in ("to", "of"))
    return before - after


def reads_to_repay(reading: dict[str, Any], day: date) -> Fraction:
    """A write costs w inputs, a read r: n reads save n(1 - r), the write cost w - 1 more."""
    rates = card(reading["sku"], day, cached=True).rates
    extra = getattr(rates, reading["meter"]) - rates.input
    reads = Fraction(extra, rates.input - rates.cache_read)
    return Fraction(ceil(reads)) if reading.get("whole") else reads


def input_share_below(reading: dict[str, Any], day: date) -> Fraction:
    """The share a of input in the base cost from which read x a + output x (1 - a) falls below `share`."""
    new, base = card(reading["sku"], day, cached=True).rates, card(reading["base"], day).rates
    read, output = Fraction(new.cache_read, base.input), Fraction(new.output, base.output)
    return (output - Fraction(reading["share"])) / (output - read)


def prices(reading: dict[str, Any], day: date) -> Fraction:
    """How many prices each of the models has over its Bedrock endpoints; they must agree."""
    counts = set()
    for model in reading["models"]:
        endpoints = BOOK.models[model].platform("bedrock")["endpoints"].keys() - {"govcloud"}
        counts.add(len({card(f"bedrock/{model}/{one}/on_demand", day).rates for one in endpoints}))
    (count,) = counts
    return Fraction(count)


def places(reading: dict[str, Any], day: date) -> Fraction:
    resolved = [BOOK.resolve(id) for id in reading["ids"]]
    named = {one.reason if isinstance(one, Unpriced) else (one.routing, one.sku.endpoint) for one in resolved}
    return Fraction(len({pair[reading["count"] == "endpoint"] for pair in named}))


def addon(reading: dict[str, Any], day: date) -> Fraction:
    return Fraction(BOOK.defaults["addons"][reading["key"]])


def words(reading: dict[str, Any], day: date) -> Fraction:
    old = BOOK.models[reading["model"]].data["tokenizer"] == "v1"
    return Fraction(750_000) / (1 if old else TOKENS_OF_THE_NEW_TOKENIZER)


HOW = {
    how.__name__: how
    for how in (
        rate,
        ratio,
        rise,
        saving,
        cost,
        saved,
        reads_to_repay,
        input_share_below,
        prices,
        places,
        addon,
        words,
    )
}


# --- the tests ---------------------------------------------------------------------------------------


def rounded(value: Fraction, like: str) -> Decimal:
    """A figure to as many digits as another is written with."""
    places = len(like.partition(".")[2])
    return Decimal(round(value * 10**places)).scaleb(-places)


def work_out(reading: dict[str, Any]) -> Fraction:
    day = reading.get("at", ARTICLE["article"])
    return HOW[reading["how"]](reading, day) * Fraction(reading.get("times", "1"))


def agrees(claim: dict[str, Any], reading: dict[str, Any]) -> bool:
    """Whether the book gives the article's figure (or less, or as much, where the claim is of that kind)."""
    if reading["how"] == "unpriced":
        return False
    value, figure = work_out(reading), Fraction(reading["figure"])
    if claim.get("below"):
        return value < figure
    if claim.get("at_least"):
        return value >= figure
    return rounded(value, reading["figure"]) == Decimal(reading["figure"])


@pytest.mark.parametrize(
    ("claim", "reading"), READINGS, ids=[f"{c['says'][:40]}: {r['when']}" for c, r in READINGS]
)
def test_what_the_book_gives(claim, reading):
    if reading["how"] == "unpriced":
        day = reading.get("at", ARTICLE["article"])
        found = find(reading["sku"], day, cached=reading.get("cached", False))
        assert isinstance(found, Unpriced)
        assert reading["book"] in found.reason
    else:
        assert rounded(work_out(reading), reading["book"]) == Decimal(reading["book"])


@pytest.mark.parametrize("claim", CLAIMS, ids=[claim["says"] for claim in CLAIMS])
def test_verdict(claim):
    assert claim["verdict"] in ("holds", "wrong", "one reading")
    assert claim.get("why") or claim["verdict"] == "holds"
    assert ("outside" in claim) != ("readings" in claim)
    if "readings" in claim:
        agreed = {agrees(claim, reading) for reading in claim["readings"]}
        assert agreed == {"holds": {True}, "wrong": {False}, "one reading": {True, False}}[claim["verdict"]]


def test_every_way_is_used():
    assert {reading["how"] for _, reading in READINGS} == {*HOW, "unpriced"}


def test_each_percent_of_output_adds_148_cents():
    """37 x (1 + 4s): what the article's example leaves out."""
    haiku = "bedrock/claude-haiku-4-5/global/on_demand"
    for percent in range(101):
        output = 370_000 * percent
        tokens = {"input": 37_000_000 - output, "output": output}
        assert cost({"sku": haiku, "tokens": tokens}, ARTICLE["article"]) == 37 + Fraction("1.48") * percent
