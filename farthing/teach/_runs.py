"""Shares of list that hold for days: where each begins, and between what bounds it must lie.

A line's amount is rounded, so it tells its share only within bounds. Days follow one another in a run as long as some
one share lies within the bounds of all of them; where none does, a new run begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from itertools import pairwise

from farthing.teach._lines import Line, Price


@dataclass
class Run:
    """Days of one price at one share of list, or at one rate while list moved. Bounds that cross hold nothing."""

    price: Price
    first: date
    last: date
    low: Fraction  # share of list
    high: Fraction
    rate_low: Fraction  # picodollars a token
    rate_high: Fraction
    lines: list[Line] = field(default_factory=list)

    @classmethod
    def of(cls, line: Line) -> Run:
        low, high = line.share
        rate = line.rate or 0
        return cls(line.price, line.day, line.day, low, high, low * rate, high * rate, [line])

    def joined(self, other: Run) -> Run:
        return Run(
            self.price,
            min(self.first, other.first),
            max(self.last, other.last),
            max(self.low, other.low),
            min(self.high, other.high),
            max(self.rate_low, other.rate_low),
            min(self.rate_high, other.rate_high),
            self.lines + other.lines,
        )

    @property
    def holds(self) -> bool:
        return self.low <= self.high

    @property
    def rate_holds(self) -> bool:
        return self.rate_low <= self.rate_high

    @property
    def at_list(self) -> bool:
        return self.holds and self.low <= 1 <= self.high

    @property
    def below_list(self) -> bool:
        return self.high < 1

    @property
    def days(self) -> int:
        return len({line.day for line in self.lines})

    def agrees(self, other: Run) -> bool:
        return self.holds and other.holds and max(self.low, other.low) <= min(self.high, other.high)


def runs_of(lines: Iterable[Line]) -> tuple[list[Run], list[Line]]:
    """The runs of one price, in order of time; and lines of days that differ from both neighbours, or in themselves."""
    by_day: dict[date, Run] = {}
    for line in lines:
        run = Run.of(line)
        by_day[line.day] = by_day[line.day].joined(run) if line.day in by_day else run
    days = [by_day[day] for day in sorted(by_day) if by_day[day].holds]
    odd = {
        here.first
        for before, here, after in zip(days, days[1:], days[2:], strict=False)
        if before.agrees(after) and not here.agrees(before)
    }
    odd |= {day for day, run in by_day.items() if not run.holds}
    return _followed([day for day in days if day.first not in odd]), [
        line for day in odd for line in by_day[day].lines
    ]


def _followed(days: Sequence[Run]) -> list[Run]:
    found: list[Run] = []
    for day in days:
        if found and (found[-1].agrees(day) or _same_rate(found[-1], day)):
            found[-1] = found[-1].joined(day)
        else:
            found.append(day)
    return found


def _same_rate(run: Run, day: Run) -> bool:
    """Whether list moved, and what was paid did not."""
    both = run.joined(day)
    moved = run.lines[-1].rate != day.lines[0].rate or not run.holds
    return moved and run.below_list and day.below_list and both.rate_holds


def cuts(runs_by_price: Iterable[Sequence[Run]]) -> list[date]:
    """The fewest days on which rates changed, so that no price has two runs between two of them.

    Between the last day of one run and the first of the next its rate changed. One day can be that of many prices: the
    first on which any of them shows its new rate, for those that may have changed then.
    """
    windows = []
    for runs in runs_by_price:
        windows += [(after.first, before.last) for before, after in pairwise(runs)]
    found: list[date] = []
    for end, start in sorted(windows):
        if not found or not start < found[-1] <= end:
            found.append(end)
    return found
