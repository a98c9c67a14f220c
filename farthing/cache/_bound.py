"""How little caching could cost, in closed form: window functions and groupings of integers, on any engine.

Take away that a prefix is read as a whole, that a request has four breakpoints and that 1h goes before 5m. What is
left costs no more than any real plan, and its nodes have nothing to do with each other. A node's accesses fall into
islands (no gap over an hour) and these into clusters (no gap over five minutes), and for K accesses of an island

    min( sum over its clusters of min(k * input, w5 + (k - 1) * read),  w1 + (K - 1) * read )

is the least a token of the node can cost there, as long as reading costs no more than anything else:

- Whoever writes for an hour at access j > 1 paid at least min(input, w5) + (j - 2) * read before, so no less than
  min(input, w5) + w1 + (K - 2) * read in all, and writing for an hour at once is not dearer.
- Without such a write, clusters are apart. Writing at access j of one costs (j - 1) * input + w5 + (k - j) * read,
  which grows with j: at once, or never.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from farthing.meters import Vector

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

FIVE_US = 300_000_000
HOUR_US = 3_600_000_000


def check_rates(rates: Vector) -> None:
    """ValueError if reading a cached token costs more than any other way to send it."""
    if rates.cache_read > min(rates.input, rates.cache_write_5m, rates.cache_write_1h):
        raise ValueError("a cache read costs more here than the token itself: there is nothing to save")


def saved(rows: Any, rates: Vector, minimum: int) -> Any:
    """The most that caching can save, as a frame of one number, `picos`.

    `rows` is any frame narwhals reads, a row each time a node of the prefix tree was sent: `prefix` (the hash of the
    prompt so far, its namespace included), `at_us`, `tokens` of the node, and `depth`, the tokens up to its end. A
    prefix below `minimum` tokens cannot be cached, so what is shallower counts with the first node that reaches it.
    """
    import narwhals.stable.v2 as nw

    check_rates(rates)
    if rates.cache_write_5m + rates.cache_read > 2 * rates.input:
        raise ValueError("writing for five minutes does not pay for two requests: values() prices such rates")
    if min(rates.cache_write_5m, rates.cache_write_1h) < rates.input:
        raise ValueError("a cache write costs less here than the token itself: values() prices such rates")
    depth, tokens = nw.col("depth"), nw.col("tokens")
    accesses = (
        nw.from_native(rows)
        .filter(depth >= minimum)
        .select("prefix", "at_us", size=nw.when(depth - tokens < minimum).then(depth).otherwise(tokens))
    )
    edges = _edges(accesses, rates)
    island = nw.col("island").cum_sum().over("prefix", order_by="place")
    first, last = nw.col("place").min(), nw.col("place").max()
    islands = (
        edges.with_columns(island=island)
        .group_by("prefix", "island")
        .agg(count=last - first + 1, more=nw.col("more").sum(), size=nw.col("size").min())
        .with_columns(count=nw.col("count").cast(nw.Int64()), more=nw.col("more").cast(nw.Int64()))
    )
    count = nw.col("count")
    five = nw.col("more") + count * rates.cache_read
    hour = rates.cache_write_1h + (count - 1) * rates.cache_read
    wide = nw.Decimal(38, 0)
    picos = (count * rates.input - nw.min_horizontal(five, hour)).cast(wide)
    # The product too, for it is beyond 64 bits where a large prefix is read a million times.
    return nw.to_native(islands.select(picos=(picos * nw.col("size").cast(wide)).sum()))


def _edges(accesses: nw.LazyFrame[Any], rates: Vector) -> nw.LazyFrame[Any]:
    """The accesses that begin a cluster or end an island, with their `place` among all of their prefix.

    The others need no second sort: they are reads, and how many there are follows from the places. So do islands of
    one access, on which nothing can be saved. Where two accesses make a cluster worth writing, the first of one
    costs `more` than a read by what a write does, and an only one by what the plain token does.
    """
    import narwhals.stable.v2 as nw

    def over(each: nw.Expr) -> nw.Expr:
        return each.over("prefix", order_by="at_us")

    def beyond(gap: str, ttl_us: int) -> nw.Expr:
        return nw.col(gap).is_null() | (nw.col(gap) > ttl_us)

    at_us = nw.col("at_us")
    begins, ends = beyond("before", HOUR_US), beyond("after", HOUR_US)
    write = nw.when(beyond("after", FIVE_US)).then(rates.input).otherwise(rates.cache_write_5m)
    return (
        accesses.with_columns(
            before=at_us - over(at_us.shift(1)),
            after=over(at_us.shift(-1)) - at_us,
            place=over(at_us.cum_count()),
        )
        .filter((beyond("before", FIVE_US) | ends) & ~(begins & ends))
        .select(
            "prefix",
            "size",
            "place",
            island=begins.cast(nw.Int64()),
            more=nw.when(beyond("before", FIVE_US)).then(write - rates.cache_read).otherwise(0),
        )
    )
