"""What is out of the ordinary in a series by the hour: too much for that hour of the week, or nothing where there is
always something.

The usual is the median of the same hour of the week, and the hours beside it, in the four weeks before; the spread is
the median deviation from it. Medians are not moved by one bad week. As long as there are no two weeks, days of the same
kind (working days, or weekends) stand for weeks. Where neither is known, nothing is judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from statistics import median
from typing import NamedTuple

from farthing.usage import EPOCH

DAY, WEEK = 24, 168
WEEKS = 4
FEWEST_DAYS = 3  # of the same kind, where there are no weeks
SPREADS = 4.0  # beyond the usual
FAR = 2.0  # times that, for a single hour to be enough
UNEVEN = 4.0  # the mean square of calls' sizes, over the square of their mean
SHARE = 0.5  # more than usual, at least
SHORTEST_SILENCE = 3  # hours
FEWEST_CALLS = 20  # that are missing, for a silence to be one
GAP = 3  # hours that may lie between two of one alarm
_MAD = 1.4826  # of a normal spread

Series = Mapping[int, float]  # hours since 1970; an hour that is not there has nothing


class Window(NamedTuple):
    """Hours from `start` to `end`, which does not belong to it."""

    start: int
    end: int


def spikes(costs: Series, calls: Series, known_from: int, hours: range, least: float) -> list[Window]:
    """Where the cost is beyond what it may be, by at least `least` an hour: far beyond, or for two hours of three."""
    over: dict[int, float] = {}
    growth = {
        day: _growth(costs, known_from, day) for day in {hour // DAY for hour in hours if hour in costs}
    }
    a_call = sum(costs.values()) / max(1.0, sum(calls.values()))
    for hour in hours:
        usual = around(hour, known_from) if costs.get(hour, 0.0) >= least else []
        if usual:
            values = [costs.get(at, 0.0) * growth[hour // DAY] for at in usual]
            allowed = max(_allowed(values, a_call), least)
            over[hour] = (costs[hour] - median(values)) / allowed
    beyond = [hour for hour, times in over.items() if times > 1]
    sure = [
        hour for hour in beyond if over[hour] > FAR or any(abs(other - hour) in (1, 2) for other in beyond)
    ]
    return _windows(sure)


def long_days(costs: Series, calls: Series, known_from: int, days: range, least: float) -> list[Window]:
    """Whole days that cost more than they may, by at least `least`: what no hour of them shows."""
    found = []
    a_call = sum(costs.values()) / max(1.0, sum(calls.values()))
    by_day: dict[int, float] = {}
    for hour, cost in costs.items():
        by_day[hour // DAY] = by_day.get(hour // DAY, 0.0) + cost
    for day in days:
        usual = [at // DAY for at in same_hours(day * DAY, known_from)]
        if usual and by_day.get(day, 0.0) >= least:
            grown = _growth(costs, known_from, day)
            values = [by_day.get(at, 0.0) * grown for at in usual]
            if by_day[day] > median(values) + max(_allowed(values, a_call), least):
                found.append(Window(day * DAY, (day + 1) * DAY))
    return found


def _allowed(values: list[float], a_call: float) -> float:
    """How far an hour may be above the usual: calls come in handfuls, and their sizes differ."""
    middle, mean = median(values), sum(values) / len(values)
    spread = _MAD * median(abs(value - middle) for value in values)
    handful = math.sqrt(mean * a_call * UNEVEN)  # the spread of a count is its root
    return max(SPREADS * max(spread, handful), SHARE * middle)


def silences(calls: Series, known_from: int, hours: range) -> list[Window]:
    """Where there are no calls for hours, though in each of them there always were some."""
    found = []
    for window in _windows([hour for hour in hours if not calls.get(hour)], gap=1):
        busy = [
            hour
            for hour in range(*window)
            if (same := same_hours(hour, known_from)) and all(calls.get(at) for at in same)
        ]
        missing = sum(median(calls.get(at, 0.0) for at in same_hours(hour, known_from)) for hour in busy)
        if len(busy) >= SHORTEST_SILENCE and missing >= FEWEST_CALLS:
            found.append(Window(busy[0], window.end))
    return found


def same_hours(hour: int, known_from: int) -> list[int]:
    """The hours to compare with: weeks before, or else days before that are of the same kind. Latest first."""
    weeks = [hour - WEEK * k for k in range(1, WEEKS + 1) if hour - WEEK * k > known_from]
    if len(weeks) > 1:
        return weeks
    days = [hour - DAY * k for k in range(1, 2 * WEEK // DAY)]
    days = [at for at in days if at > known_from and _weekend(at) == _weekend(hour)]
    return days if len(days) >= FEWEST_DAYS else []


def around(hour: int, known_from: int) -> list[int]:
    """The same hours, and those beside them."""
    return [at + beside for at in same_hours(hour, known_from) for beside in (-1, 0, 1)]


def _growth(costs: Series, known_from: int, day: int) -> float:
    """How much more the days before this one were than their usual: what grows is not out of the ordinary.

    The median of a week's days, without the last, so that what began yesterday is not taken for growth.
    """
    ratios = []
    for before in range(day - 8, day - 1):
        weeks = [before - 7 * k for k in range(1, WEEKS + 1) if (before - 7 * k) * DAY > known_from]
        usual = median([_of_day(costs, week) for week in weeks]) if weeks else 0.0
        if usual:
            ratios.append(_of_day(costs, before) / usual)
    return min(3.0, max(1.0, median(ratios))) if len(ratios) > 3 else 1.0


def _of_day(costs: Series, day: int) -> float:
    return sum(costs.get(hour, 0.0) for hour in range(day * DAY, (day + 1) * DAY))


def _weekend(hour: int) -> bool:
    return (EPOCH + timedelta(hours=hour)).weekday() > 4


def _windows(hours: list[int], gap: int = GAP) -> list[Window]:
    """Hours that lie together, as one."""
    found: list[Window] = []
    for hour in hours:
        if found and hour - found[-1].end < gap:
            found[-1] = found[-1]._replace(end=hour + 1)
        else:
            found.append(Window(hour, hour + 1))
    return found
