"""The same prices on Spark as one call at a time: the short run is for every day, the long one for `make spark`."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from farthing.book import FOREVER, Card, default_book
from farthing.meters import METERS, Vector
from farthing.rating import Grid, find, grid, rate_frame, unpriced_frame
from farthing.usage import MODES, PLATFORMS, Sku

BOOK = default_book()
CARDS = BOOK.cards()
SKUS = sorted({card.sku for card in CARDS})
EDGES = sorted({edge for card in CARDS for edge in (card.starts, card.ends)} - {FOREVER})
SIZES = sorted({card.prompt_from for card in CARDS} - {0})
TICK = timedelta(microseconds=1)
Row = tuple[int, Sku, datetime, Vector, int | None]  # number, SKU, time, tokens, cost


def calls(count: int, seed: int) -> list[Row]:
    """Random calls, many at the edges of dates and bands, each third one with its reversal behind it."""
    rng = random.Random(seed)
    rows: list[Row] = []
    while len(rows) < count:
        sku = rng.choice(SKUS)
        if rng.random() < 0.05:
            sku = sku._replace(
                mode=rng.choice((*MODES, "priority")), platform=rng.choice(PLATFORMS), zone="nowhere"
            )
        at = rng.choice([rng.choice(EDGES) + rng.randrange(-1, 2) * TICK, datetime(2026, 11, 1, tzinfo=UTC)])
        size = rng.choice([rng.choice(SIZES) + rng.randrange(-1, 2), rng.randrange(2**20), 2**34, 0])
        a, b, c = sorted(rng.randrange(size + 1) for _ in range(3))
        output = rng.choice([0, rng.randrange(10_000), 2**35 - size])
        tokens = rng.choice([Vector(size, output), Vector(a, output, b - a, c - b, size - c)])
        card = find(BOOK, sku, at, tokens)
        cost = tokens @ card.rates if isinstance(card, Card) else None
        rows.append((len(rows), sku, at, tokens, cost))
        if rng.random() < 0.3:
            rows.append((len(rows), sku, at, -tokens, None if cost is None else -cost))
    return rows


def check(spark, rows: list[Row], lines: Grid) -> None:
    texts = ", ".join(f"{name} string" for name in Sku._fields)
    numbers = ", ".join(f"{meter} bigint" for meter in METERS)
    said = [(number, *sku, at, *tokens) for number, sku, at, tokens, _ in rows]
    usage = spark.createDataFrame(said, f"id bigint, {texts}, at timestamp, {numbers}")
    rates = ", ".join(f"rate_{meter} bigint" for meter in METERS)
    columns = f"{texts}, era bigint, band bigint, cached bigint, card string, {rates}"
    cards = spark.createDataFrame([tuple(line.values()) for line in lines.rows], columns)

    priced = rate_frame(usage, cards, lines)
    assert priced.columns == [*usage.columns, "card", "cost"]
    costs = {row["id"]: row["cost"] for row in priced.select("id", "cost").collect()}
    assert costs == {number: cost for number, *_, cost in rows if cost is not None}
    unpriced = unpriced_frame(usage, cards, lines)
    assert unpriced.columns == usage.columns
    left = sorted(row["id"] for row in unpriced.select("id").collect())
    assert left == [number for number, *_, cost in rows if cost is None]
    assert costs
    assert left


def test_a_table_costs_what_its_calls_cost(spark):
    check(spark, calls(1_000, 1), grid(BOOK))


def test_a_grid_of_a_few_skus_and_a_span_of_time_prices_the_same(spark):
    since, until = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 10, 7, 12, tzinfo=UTC)
    rows = [row for row in calls(1_500, 2) if since <= row[2] < until]
    check(spark, rows, grid(BOOK, sorted({row[1] for row in rows}), since, until))


@pytest.mark.spark_long
@pytest.mark.parametrize("seed", range(10, 22))
def test_many_tables_cost_what_their_calls_cost(spark, seed):
    check(spark, calls(50_000, seed), grid(BOOK))
