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
_PRIME = 2**31 - 1  # squares of what is left of a division by it fit into 64 bits


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
    depth, tokens = nw.col("depth"), nw.col("tokens")
    accesses = (
        nw.from_native(rows)
        .filter(depth >= minimum)
        .select("prefix", "at_us", size=nw.when(depth - tokens < minimum).then(depth).otherwise(tokens))
    )
    alike = _alike(accesses)
    islands = _islands(accesses.select("prefix", "at_us").join(alike, on="prefix", how="inner"), rates)
    wide = nw.Decimal(38, 0)
    # The product too, for it is beyond 64 bits where a large prefix is read a million times.
    picos = nw.col("saved").cast(wide) * nw.col("size").cast(wide)
    return nw.to_native(islands.select(picos=picos.sum()))


def _alike(accesses: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
    """One node for all that were sent at the same times, with the size of them together; without those sent once.

    Most blocks of a prompt are sent just when their neighbours are, so few nodes are left to sort. Times are told
    apart by sums of powers of them modulo a prime: integers, the same on every engine.
    """
    import narwhals.stable.v2 as nw

    rest = nw.col("at_us") % _PRIME
    cube = rest * rest % _PRIME * rest % _PRIME
    seventh = cube * cube % _PRIME * rest % _PRIME
    times = ["count", "rest", "cube", "seventh"]
    nodes = (
        accesses.with_columns(rest=rest, cube=cube, seventh=seventh)
        .group_by("prefix")
        .agg(
            *(nw.col(name).sum() for name in times[1:]),
            count=nw.len(),
            size=nw.col("size").min(),
        )
        .filter(nw.col("count") > 1)
    )
    return (
        nodes.group_by(*times)
        .agg(size=nw.col("size").sum(), prefix=nw.col("prefix").min())
        .select("prefix", "size")
    )


def _islands(accesses: nw.LazyFrame[Any], rates: Vector) -> nw.LazyFrame[Any]:
    """Each island with its `size` in tokens and what caching saves on one of them.

    Where two accesses make a cluster worth writing, what its clusters cost needs no look at each: the first access
    of one is a write, the only access of one is plain, and every other a read.
    """
    import narwhals.stable.v2 as nw

    def over(each: nw.Expr) -> nw.Expr:
        return each.over("prefix", order_by="at_us")

    def beyond(gap: str, ttl_us: int) -> nw.Expr:
        return nw.col(gap).is_null() | (nw.col(gap) > ttl_us)

    at_us, count = nw.col("at_us"), nw.col("count")
    alone = nw.when(beyond("after", FIVE_US)).then(rates.input).otherwise(rates.cache_write_5m)
    placed = (
        accesses.with_columns(before=at_us - over(at_us.shift(1)), after=over(at_us.shift(-1)) - at_us)
        .select(
            "prefix",
            "at_us",
            "size",
            island=beyond("before", HOUR_US).cast(nw.Int64()),
            five=nw.when(beyond("before", FIVE_US)).then(alone).otherwise(rates.cache_read),
        )
        .with_columns(island=over(nw.col("island").cum_sum()))
    )
    return (
        placed.group_by("prefix", "island")
        .agg(count=nw.len(), five=nw.col("five").sum(), size=nw.col("size").min())
        .with_columns(count=count.cast(nw.Int64()), five=nw.col("five").cast(nw.Int64()))
        .select(
            "size",
            saved=count * rates.input
            - nw.min_horizontal(nw.col("five"), rates.cache_write_1h + (count - 1) * rates.cache_read),
        )
    )
