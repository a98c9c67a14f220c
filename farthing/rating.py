"""Rating: usage times rates. One operator for a single record and for a table on any engine.

`rate` finds the card of each part of a call and multiplies. `rate_frame` does the same to every row of any
frame narwhals can read: a box is found by an equi-join on (SKU, era, band, cached), where era and band count
the book's date and prompt-size boundaries that a row lies beyond. No interval join, no division, no float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.book import ANY_PROMPT, FOREVER, START, Book, Card, Unpriced, default_book
from farthing.meters import METERS, Vector
from farthing.usage import EPOCH, Sku, read_usage, settle_ttl

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw


def columns(prefix: str = "") -> Vector:
    """The vector of a frame's columns: of the meters, or with a prefix of what is kept under them."""
    import narwhals.stable.v2 as nw  # a program that prices no frame does without

    return Vector.of(lambda meter: nw.col(f"{prefix}{meter}"))


@dataclass(frozen=True, slots=True)
class Line:
    """One part of a call, rated: its tokens at one card's rates."""

    tokens: Vector
    card: Card

    @property
    def cost(self) -> int:
        return self.tokens @ self.card.rates  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Charge:
    """A call, rated. Picodollars in `cost`; or, if any part has no price, None and the reason in `unpriced`."""

    lines: tuple[Line, ...]
    assumed: tuple[str, ...]
    routing: str
    book: str
    unpriced: str = ""

    @property
    def cost(self) -> int | None:
        return None if self.unpriced else sum(line.cost for line in self.lines)


def rate(
    model: str,
    at: datetime,
    usage: Mapping[str, Any],
    *,
    platform: str = "",
    mode: str = "",
    region: str = "",
    inference_geo: str = "",
    profiles: Mapping[str, str] | None = None,
    assume: Mapping[str, str] | None = None,
    book: Book | None = None,
) -> Charge:
    """The exact price of one call, in picodollars, from any usage block.

    `at` must be aware. Rejected (a ValueError) is raised for impossible counts; no price is no error: the
    Charge says why in `unpriced`.

    >>> from datetime import UTC, datetime
    >>> call = {"input": 412, "output": 650, "cache_read": 18_000, "cache_write_5m": 1_200}
    >>> rate("jp.anthropic.claude-sonnet-4-6", datetime(2026, 5, 29, tzinfo=UTC), call).cost
    22974600000
    """
    book = book or default_book()
    reading = read_usage(usage)
    lines: list[Line] = []
    ttl = (assume or {}).get("ttl", "")
    assumed = dict.fromkeys(settle_ttl(Vector(), reading.assumed, ttl)[1])
    routing = ""
    for part in reading.parts:
        tokens, _ = settle_ttl(part.tokens, reading.assumed, ttl)
        resolved = book.resolve(
            model,
            platform=platform,
            region=region,
            mode=mode or reading.mode,
            inference_geo=inference_geo or reading.inference_geo,
            pass_model=part.model,
            profiles=profiles,
            assume=assume,
        )
        card = resolved if isinstance(resolved, Unpriced) else find(book, resolved.sku, at, tokens)
        if isinstance(card, Unpriced):
            return Charge((), tuple(assumed), routing, book.digest, card.reason)
        assert not isinstance(resolved, Unpriced)  # the card came from it
        routing = routing or resolved.routing
        assumed |= dict.fromkeys((*resolved.assumed, *card.assumed))
        lines.append(Line(tokens, card))
    return Charge(tuple(lines), tuple(assumed), routing, book.digest)


def find(book: Book, sku: Sku, at: datetime, tokens: Vector) -> Card | Unpriced:
    return book.find(sku, at, tokens.prompt, cached=tokens.cached > 0)


# --- tables --------------------------------------------------------------------------------------------------------


class Grid(NamedTuple):
    """The boundaries of a book between two instants, and its cards in the cells between them.

    `rows` has one row a (SKU, era, band, cached): the SKU's five columns, the cell, the card's id, its five
    rates and what it assumes. A cell without a row has no price.
    """

    dates: tuple[datetime, ...]
    prompts: tuple[int, ...]
    split_cached: bool
    rows: list[dict[str, Any]]

    def at(self, at: datetime, tokens: Vector) -> tuple[int, int, int]:
        """The cell of one call: (era, band, cached)."""
        return (
            sum(at >= date for date in self.dates),
            sum(tokens.prompt >= prompt for prompt in self.prompts),
            int(self.split_cached and tokens.cached > 0),
        )

    def cell(
        self, *, varying: bool = False, days: bool = False, prompts: Sequence[Any] | None = None
    ) -> dict[str, nw.Expr]:
        """The cell of every row, as expressions over `at` and the meters; a reversal's counts are negative.

        `varying` leaves out what is 0 for every row. `days` reads a column `day`, the UTC day counted from 1970,
        instead of `at`: a comparison of times with zone costs several of ints, and prices change at midnight.
        `prompts` are boundaries that rows bring along, where those of their own SKU suffice.
        """
        import narwhals.stable.v2 as nw

        era = _zero()
        for date in self.dates:
            days_in = days and date.time() == time.min
            beyond = nw.col("day") >= (date - EPOCH).days if days_in else nw.col("at") >= nw.lit(date)
            era = era + beyond.cast(nw.Int64())
        prompt = columns().prompt.abs()
        band = _zero()
        sizes = self.prompts if prompts is None else prompts
        for size in sizes:
            band = band + (prompt >= size).cast(nw.Int64())
        cached = (columns().cached != 0).cast(nw.Int64()) if self.split_cached else _zero()
        cell = {"era": era, "band": band, "cached": cached}
        edges = {"era": self.dates, "band": sizes, "cached": self.split_cached}
        return {name: expr for name, expr in cell.items() if edges[name] or not varying}


def grid(book: Book, skus: Sequence[Sku] = (), since: datetime = START, until: datetime = FOREVER) -> Grid:
    """The grid of these SKUs (of all) for calls in [since, until)."""
    cards = [card for card in book.cards(*skus) if card.starts < until and since < card.ends]
    dates = sorted({edge for card in cards for edge in (card.starts, card.ends) if since < edge < until})
    prompts = sorted(
        {edge for card in cards for edge in (card.prompt_from, card.prompt_to) if 0 < edge < ANY_PROMPT}
    )
    split = any(not card.cached for card in cards)
    rows = []
    for card in (card for card in cards if not card.sku.terms):
        eras = [i for i, era in enumerate((max(since, START), *dates)) if card.starts <= era < card.ends]
        bands = [i for i, size in enumerate((0, *prompts)) if card.prompt_from <= size < card.prompt_to]
        cells = [
            (era, band, cached)
            for era in eras
            for band in bands
            for cached in range(1 + (split and card.cached))
        ]
        rates = {f"rate_{meter}": rate for meter, rate in zip(METERS, card.rates, strict=True)}
        rows += [
            {**card.sku._asdict(), "era": era, "band": band, "cached": cached, "card": card.id, **rates}
            for era, band, cached in cells
        ]
    return Grid(tuple(dates), tuple(prompts), split, rows)


def rate_frame(usage: Any, cards: Any, lines: Grid) -> Any:
    """`rate`, for every row of a frame: `usage` with the columns `card` and `cost` (picodollars), priced rows only.

    `usage` is any frame narwhals reads (DuckDB, Spark, Polars, pandas, Ibis), with the columns of Sku but `terms`, `at`
    (UTC) and the five meters; rows of negative counts are reversals. `cards` holds `lines.rows` as a frame of
    the same engine. What is missing from the result is in `unpriced_frame`: the two make up the input.
    """
    import narwhals.stable.v2 as nw

    joined = _boxed(usage, lines).join(nw.from_native(cards), on=_BOX, how="inner")
    kept = [*nw.from_native(usage).collect_schema().names(), "card", "cost"]
    return joined.with_columns(cost=columns() @ columns("rate_")).select(*kept).to_native()


def unpriced_frame(usage: Any, cards: Any, lines: Grid) -> Any:
    """The rows of `usage` that no card holds. Arguments as of `rate_frame`."""
    import narwhals.stable.v2 as nw

    known = nw.from_native(cards).select(*_BOX)
    return _boxed(usage, lines).join(known, on=_BOX, how="anti").drop("era", "band", "cached").to_native()


_BOX = [*Sku._fields[:5], "era", "band", "cached"]  # of public prices: terms are no column of usage


def _boxed(usage: Any, lines: Grid) -> Any:
    import narwhals.stable.v2 as nw

    return nw.from_native(usage).with_columns(**lines.cell())


def _zero() -> nw.Expr:
    import narwhals.stable.v2 as nw

    return nw.lit(0).cast(nw.Int64())


def bridge(tokens_from: Vector, rates_from: Vector, tokens_to: Vector, rates_to: Vector) -> tuple[int, int]:
    """(volume, price): the accountant's two variances. Their sum is exactly to minus from.

    >>> bridge(Vector(10), Vector(3), Vector(14), Vector(2))
    (12, -14)
    """
    return (tokens_to - tokens_from) @ rates_from, tokens_to @ (rates_to - rates_from)
