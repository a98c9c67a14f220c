"""The five meters of a call, and the vector over them: `usage.tokens @ card.rates` is the price.

The meters are disjoint: Anthropic and Bedrock report cached tokens apart from `input`, so no
token is counted twice and the price of a call is a plain dot product. The entries of a Vector
may be ints (one call) or columns of a table (any engine's), since both multiply and add.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

METERS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
CACHE_METERS = METERS[2:]


class Vector(NamedTuple):
    """One entry a meter, in the order of METERS: tokens, rates, or columns of either.

    >>> Vector(1_000, 200) @ Vector(3_000_000, 15_000_000)
    6000000000
    """

    input: Any = 0
    output: Any = 0
    cache_read: Any = 0
    cache_write_5m: Any = 0
    cache_write_1h: Any = 0

    @classmethod
    def of(cls, entry: Callable[[str], Any]) -> Vector:
        """The vector whose entry at each meter is `entry(meter)`."""
        return cls(*map(entry, METERS))

    def __matmul__(self, rates: Vector) -> Any:
        """Tokens times picodollars per token: picodollars. An int for ints, a column for columns."""
        return (
            self.input * rates.input
            + self.output * rates.output
            + self.cache_read * rates.cache_read
            + self.cache_write_5m * rates.cache_write_5m
            + self.cache_write_1h * rates.cache_write_1h
        )

    def __add__(self, other: Vector) -> Vector:  # type: ignore[override]  # of vectors, not of tuples
        return Vector(*(a + b for a, b in zip(self, other, strict=True)))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(*(a - b for a, b in zip(self, other, strict=True)))

    def __neg__(self) -> Vector:
        return Vector(*(-a for a in self))

    @property
    def prompt(self) -> Any:
        """The size that price bands look at: every token sent, cached or not (PRICES.md 1.3, A-PRh 2026-03-14)."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def cached(self) -> Any:
        """Tokens on the three cache meters."""
        return self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def total(self) -> Any:
        return self.prompt + self.output

    def move(self, count: int, source: str, target: str) -> Vector:
        """`count` tokens change meter; the total cannot change. ValueError if `source` holds fewer.

        >>> Vector(input=10).move(4, "input", "cache_read")
        Vector(input=6, output=0, cache_read=4, cache_write_5m=0, cache_write_1h=0)
        """
        entries = dict(zip(METERS, self, strict=True))
        if not 0 <= count <= entries[source]:
            raise ValueError(f"cannot move {count} tokens out of {entries[source]} on {source}")
        entries[source] -= count
        entries[target] += count
        return Vector(**entries)
