"""The claims of the article this project starts from, worked out anew from the price book, each with its break-even.

The article (clauder-navi.com, bedrock-claude-cost, 2026-05-29) prices 10,000 tickets of 3,700 tokens as if every token
were input. Here the share of output is an input.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from farthing.book import Book, Card, midnight
from farthing.meters import Vector
from farthing.money import PICOS_PER_USD, from_usd, show
from farthing.usage import Sku

WRITTEN = date(2026, 5, 29)
TICKETS, TICKET_TOKENS = 10_000, 3_700
ITEMS = 100_000  # a month, of the size of a ticket
THOUSANDS_USD = 2_000  # the least that `thousands of dollars` can mean
DAYS, HOURS = 30, 720  # of a month
HAIKU, SONNET, OPUS, OLD = "claude-haiku-4-5", "claude-sonnet-4-6", "claude-opus-4-7", "claude-3-5-sonnet-v2"


class Figure(NamedTuple):
    """What the book gives under one reading: dollars, or a number without a unit. `agrees` with the article, or not."""

    when: str
    value: Fraction
    unit: str  # usd, share, reads, tokens, items, times
    agrees: bool


class Claim(NamedTuple):
    """`verdict` is holds, wrong or one reading, by which of the figures agree."""

    name: str
    says: str
    figures: tuple[Figure, ...]
    break_even: tuple[Figure, ...]
    why: str

    @property
    def verdict(self) -> str:
        agreed = {figure.agrees for figure in self.figures}
        return "one reading" if len(agreed) > 1 else "holds" if agreed == {True} else "wrong"


def article(book: Book, output_share: Decimal = Decimal(0), day: date = WRITTEN) -> list[Claim]:
    """The claims, with `output_share` of a ticket's tokens as output."""
    share = Fraction(output_share)
    if not 0 <= share <= 1:
        raise ValueError(f"an output share is from 0 to 1, not {output_share}")
    prices = _Prices(book, day)
    return [
        _tickets(prices, share),
        _quarter(prices),
        _halves(prices),
        _thousands(prices, share),
        _sessions(prices, share),
        _reads(prices),
        _few_percent(prices),
        _global(prices),
    ]


class _Prices(NamedTuple):
    book: Book
    day: date

    def rates(self, path: str, *, cached: bool = False) -> Vector:
        platform, model, endpoint, *zone, mode = path.split("/")
        sku = Sku(platform, model, endpoint, zone[0] if zone else "", mode)
        card = self.book.find(sku, midnight(self.day), cached=cached)
        if not isinstance(card, Card):
            raise ValueError(  # noqa: TRY004 - no wrong type, but no price
                f"the article's {path} has no price in this book: {card.reason}"
            )
        return card.rates

    def usd(self, path: str, tokens: int, share: Fraction) -> Fraction:
        """Dollars of so many tokens, of which a share is output."""
        rates = self.rates(path)
        picos: Fraction = tokens * ((1 - share) * rates.input + share * rates.output)
        return picos / PICOS_PER_USD


def _tickets(prices: _Prices, share: Fraction) -> Claim:
    path, tokens = f"bedrock/{HAIKU}/global/on_demand", TICKETS * TICKET_TOKENS
    shares = dict.fromkeys([Fraction(0), share, *(Fraction(p, 100) for p in (5, 10, 20, 50))])
    figures = [
        _dollars(f"{_percent(one)} output", cost := prices.usd(path, tokens, one), round(cost) == 37)
        for one in sorted(shares)
    ]
    regional = prices.usd(f"bedrock/{HAIKU}/regional/on_demand", tokens, share)
    figures.append(_dollars(f"regional, {_percent(share)} output", regional, round(regional) == 37))
    rates = prices.rates(path)
    none = prices.usd(path, tokens, Fraction(0))
    edge = (Fraction(75, 2) / none - 1) / (Fraction(rates.output, rates.input) - 1)
    return Claim(
        "tickets",
        "10,000 support tickets of 3,700 tokens cost about $37 with Haiku 4.5",
        tuple(figures),
        (Figure("share of output from which it is no longer $37", edge, "share", agrees=True),),
        "Only if every token is input. Each percent of output adds $1.48, a regional endpoint 10 %.",
    )


def _quarter(prices: _Prices) -> Claim:
    old = prices.rates(f"bedrock/{OLD}/regional/extended/on_demand")
    usual = prices.rates(f"bedrock/{OLD}/regional/on_demand")
    batch = prices.rates(f"bedrock/{SONNET}/global/batch")
    regional = prices.rates(f"bedrock/{SONNET}/regional/batch")
    cached = prices.rates(f"bedrock/{SONNET}/global/on_demand", cached=True)
    ratios = [
        ("global batch against 6 / 30, input", Fraction(batch.input, old.input)),
        ("global batch against 6 / 30, output", Fraction(batch.output, old.output)),
        ("regional batch against 6 / 30", Fraction(regional.input, old.input)),
        ("global batch against 3 / 15", Fraction(batch.input, usual.input)),
    ]
    read, output = Fraction(cached.cache_read, old.input), Fraction(cached.output, old.output)
    edge = (output - Fraction(1, 4)) / (output - read)
    return Claim(
        "quarter",
        "Sonnet 4.6 in batch costs less than a quarter of Sonnet 3.5",
        tuple(Figure(when, ratio, "share", ratio < Fraction(1, 4)) for when, ratio in ratios),
        (
            Figure(
                "share of input in the old bill above which caching on demand gets below a quarter, if all is read",
                edge,
                "share",
                agrees=True,
            ),
        ),
        "Batch is exactly a quarter of the extended price, which is not less; any discount would tip it.",
    )


def _halves(prices: _Prices) -> Claim:
    old = prices.rates(f"bedrock/{OLD}/regional/extended/on_demand")
    usual = prices.rates(f"bedrock/{OLD}/regional/on_demand")
    new = prices.rates(f"bedrock/{SONNET}/global/on_demand")
    regional = prices.rates(f"bedrock/{SONNET}/regional/on_demand")
    saved = [
        ("from 6 / 30 to global", 1 - Fraction(new.input, old.input)),
        ("from 6 / 30 to regional", 1 - Fraction(regional.input, old.input)),
        ("from 3 / 15 to global", 1 - Fraction(new.input, usual.input)),
    ]
    return Claim(
        "halves",
        "Going from Sonnet 3.5 to Sonnet 4.6 halves the cost",
        tuple(Figure(when, share, "share", share == Fraction(1, 2)) for when, share in saved),
        (
            Figure(
                "tokens of the new answer for one of the old at which nothing is saved, global",
                Fraction(old.input, new.input),
                "times",
                agrees=True,
            ),
        ),
        "From extended access, and to the global endpoint. Tokyo pays the old price, and saves nothing.",
    )


def _thousands(prices: _Prices, share: Fraction) -> Claim:
    figures, edges = [], []
    for name, model, platform in (
        ("Haiku 4.5", HAIKU, "bedrock"),
        ("Sonnet 4.6", SONNET, "bedrock"),
        ("Opus 4.7, direct", OPUS, "anthropic"),
    ):
        plain = prices.usd(f"{platform}/{model}/global/on_demand", ITEMS * TICKET_TOKENS, share)
        saved = plain - prices.usd(f"{platform}/{model}/global/batch", ITEMS * TICKET_TOKENS, share)
        figures.append(_dollars(f"100,000 a month, {name}", saved, saved >= THOUSANDS_USD))
        if model == HAIKU:
            daily = saved * DAYS
            figures.append(_dollars(f"100,000 a day, {DAYS} days, {name}", daily, daily >= THOUSANDS_USD))
        items = Fraction(ceil(THOUSANDS_USD * ITEMS / saved))
        edges.append(
            Figure(f"items a month that save ${THOUSANDS_USD:,}, {name}", items, "items", agrees=True)
        )
    return Claim(
        "thousands",
        "Batching 100,000 items saves thousands of dollars a month",
        tuple(figures),
        tuple(edges),
        "Hundreds, at the article's size of ticket; thousands if it is 100,000 a day. Opus 4.7 has none on Bedrock.",
    )


def _sessions(prices: _Prices, share: Fraction) -> Claim:
    hour = Fraction(prices.book.defaults["addons"]["managed_agents_session_hour"])
    path = f"anthropic/{HAIKU}/global/on_demand"
    figures = [
        _dollars(
            f"{tokens:,} tokens an hour beside {say(_dollars('', hour, agrees=True))}",
            cost := prices.usd(path, tokens, share),
            cost < hour,
        )
        for tokens in (20_000, 50_000, 200_000)
    ]
    edges = []
    for name, model in (("Haiku 4.5", HAIKU), ("Sonnet 4.6", SONNET)):
        rate = prices.usd(f"anthropic/{model}/global/on_demand", 1, share)
        edges.append(
            Figure(
                f"tokens an hour below which the session outweighs them, {name}",
                Fraction(int(hour / rate)),
                "tokens",
                agrees=True,
            )
        )
    edges.append(_dollars(f"a session that never stops, {HOURS} hours", hour * HOURS, agrees=True))
    return Claim(
        "sessions",
        "Session hours can outweigh tokens",
        tuple(figures),
        tuple(edges),
        "Only of sessions that run and hardly ask. An idle session costs nothing.",
    )


def _reads(prices: _Prices) -> Claim:
    rates = prices.rates(f"bedrock/{SONNET}/global/on_demand", cached=True)
    figures, edges = [], []
    for ttl, meter, said in (("5m", "cache_write_5m", 1), ("1h", "cache_write_1h", 2)):
        reads = Fraction(getattr(rates, meter) - rates.input, rates.input - rates.cache_read)
        figures.append(
            Figure(
                f"whole reads that repay a {ttl} write", Fraction(ceil(reads)), "reads", ceil(reads) == said
            )
        )
        edges.append(Figure(f"reads that repay a {ttl} write, exactly", reads, "reads", agrees=True))
    return Claim(
        "reads",
        "One read repays a 5m write, two repay a 1h write",
        tuple(figures),
        tuple(edges),
        "If they come within the TTL, and the prefix is as long as the model asks for.",
    )


def _few_percent(prices: _Prices) -> Claim:
    direct = prices.rates(f"anthropic/{SONNET}/global/on_demand")
    batch = prices.rates(f"anthropic/{SONNET}/global/batch", cached=True)
    read, output = Fraction(batch.cache_read, direct.input), Fraction(batch.output, direct.output)
    edge = (output - Fraction(1, 10)) / (output - read)
    return Claim(
        "few percent",
        "Batch and caching together bring the bill to a few percent",
        (
            Figure("direct API, input that is read", read, "share", read < Fraction(1, 10)),
            Figure("direct API, output", output, "share", output < Fraction(1, 10)),
        ),
        (
            Figure(
                "share of input in the bill from which all of it comes under 10 %", edge, "share", agrees=True
            ),
        ),
        "Of the input, on the direct API alone: a Bedrock batch has no rate for cached tokens. Output stays at half.",
    )


def _global(prices: _Prices) -> Claim:
    rates = prices.rates(f"bedrock/{SONNET}/global/on_demand")
    regional = prices.rates(f"bedrock/{SONNET}/regional/on_demand")
    saved = 1 - Fraction(rates.input, regional.input)
    return Claim(
        "global",
        "The global endpoint saves 10 %",
        (Figure("of the regional price", saved, "share", saved == Fraction(1, 10)),),
        (
            Figure(
                "discount on the regional endpoint alone at which both cost the same",
                saved,
                "share",
                agrees=True,
            ),
        ),
        "10 % more the one way is 9.09 % less the other.",
    )


# --- figures, shown --------------------------------------------------------------------------------------------------


def _dollars(when: str, value: Fraction, agrees: bool) -> Figure:
    return Figure(when, value, "usd", agrees)


def _percent(share: Fraction) -> str:
    return f"{decimal(share * 100, 2)} %"


def decimal(value: Fraction, places: int = 6) -> str:
    """Rounded half-even to so many places, without padding."""
    text = format(Decimal(round(value * 10**places)).scaleb(-places), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def say(figure: Figure) -> str:
    """The figure with its unit, for a person."""
    if figure.unit == "usd":
        return show(from_usd(decimal(figure.value, 12)))
    if figure.unit == "share":
        return _percent(figure.value)
    text = f"{int(figure.value):,}" if figure.value.denominator == 1 else decimal(figure.value, 2)
    return f"{text} {figure.unit}"
