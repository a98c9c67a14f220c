"""Amounts in two currencies, and their division without a remainder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from farthing.fx import Rate, Rates


class Money(NamedTuple):
    """Picodollars, and the same in 10^-12 units of the currency that was asked for; 0 where none was.

    The two are divided by the same weights, so that each sums by itself.
    """

    picos: int = 0
    other: int = 0

    def __add__(self, more: Money) -> Money:  # type: ignore[override]  # of amounts, not of tuples
        return Money(self.picos + more.picos, self.other + more.other)


@dataclass
class Exchange:
    """Dollars of a day in another currency, at that day's rate; it notes the rates that this took."""

    rates: Rates
    currency: str
    used: dict[str, Rate] = field(default_factory=dict)

    def __call__(self, picos: int, day: str) -> Money:
        rate = self.rates.at(date.fromisoformat(day), self.currency)
        self.used[rate.date] = rate
        return Money(picos, rate.convert(picos))


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Whole parts of a total in proportion to weights, none below 0 and one above, that sum to it.

    What is left over goes, one each, to the largest remainders; of equal ones to the first.

    >>> apportion(10, [1, 1, 1]), apportion(-10, [1, 1, 1])
    ([4, 3, 3], [-4, -3, -3])
    """
    whole, size = sum(weights), abs(total)
    parts = [size * weight // whole for weight in weights]
    order = sorted(range(len(parts)), key=lambda i: (-(size * weights[i] % whole), i))
    for i in order[: size - sum(parts)]:
        parts[i] += 1
    return parts if total >= 0 else [-part for part in parts]


def divided(money: Money, weights: Sequence[int]) -> list[Money]:
    """The same of an amount in both its currencies."""
    pairs = zip(apportion(money.picos, weights), apportion(money.other, weights), strict=True)
    return [Money(*pair) for pair in pairs]
