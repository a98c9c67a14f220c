"""What the coming days will come to, from the days before: a forecast of their sum, its interval, and how it did.

Three ways are tried: the run-rate (the last seven days, again), and exponential smoothing of statsmodels with a
weekly season, without and with a damped trend. Each forecasts from points of the past, where the answer is known; the
one that was wrong by least is used, and its errors there make the interval. Days are dollars as floats: nothing here
is exact, and nothing of it is ever added to a bill.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

RUN_RATE = "run-rate"
COVERED = 80  # percent of the sums that should lie in their interval
WEEK = 7
FEWEST_DAYS = 3 * WEEK  # to learn from, for anything but the run-rate
ENOUGH_DAYS = 4 * WEEK  # for that to be tried out on them
ORIGINS = 12  # points of the past that are forecast from, at most
FEWEST_ORIGINS = 5  # for an interval of the history's own
WIDE = (0.4, 2.0)  # the interval where there are fewer, as factors
CLEARLY = 1.1
FURTHEST = 4  # times as many days as sums of the past had, for their errors to make the interval

Method = Callable[[Sequence[float], int], list[float]]


class Ahead(NamedTuple):
    days: list[float]  # the forecast, by day
    low: float  # of their sum
    high: float
    method: str
    error: float | None  # of sums of the past, as a share of them; None where too little is known to tell
    run_rate_error: float | None
    held: int  # of so many sums of the past, so many lay in the interval that the others make
    tried: int


class _Try(NamedTuple):
    forecast: float
    came: float


def ahead(history: Sequence[float], skip: int, days: int, *, library: bool = True) -> Ahead:
    """The `days` days that come `skip` days after the history's end. Without `library`, by run-rate only."""
    span = skip + days
    methods: dict[str, Method] = {RUN_RATE: run_rate}
    if library and len(history) >= ENOUGH_DAYS and any(history):
        methods |= smoothing()
    origins, length = _origins(len(history), days)
    tries = {
        name: [_tried(method, history, at, skip, length) for at in origins]
        for name, method in methods.items()
    }
    errors = {name: _error(found) for name, found in tries.items()}
    best = min(methods, key=lambda name: _judged(name, errors[name]))
    forecast = methods[best](history, span)[skip:]
    enough = len(origins) >= FEWEST_ORIGINS and len(history) >= ENOUGH_DAYS and days <= length * FURTHEST
    found = tries[best] if enough else []
    stretch = max(1.0, days / length)  # what drifts, drifts on
    low, high = _interval(sum(forecast), found, stretch)
    return Ahead(forecast, low, high, best, errors[best], errors[RUN_RATE], _held(found), len(found))


def _judged(name: str, error: float | None) -> float:
    """Its error; what is not simple must be better by more than chance."""
    return math.inf if error is None else error * (1 if name == RUN_RATE else CLEARLY)


def run_rate(history: Sequence[float], days: int) -> list[float]:
    """The last seven days, again and again; of a shorter history, its mean."""
    if len(history) < WEEK:
        return [sum(history) / len(history) if history else 0.0] * days
    return [history[len(history) - WEEK + day % WEEK] for day in range(days)]


def smoothing() -> dict[str, Method]:
    """The ways that need statsmodels; none where it is not installed."""
    try:
        from statsmodels.tsa.exponential_smoothing.ets import ETSModel
    except ImportError:
        return {}

    def fitted(trend: bool) -> Method:
        def forecast(history: Sequence[float], days: int) -> list[float]:
            with warnings.catch_warnings():  # that it did not converge: what it is worth the backtest says
                warnings.simplefilter("ignore")
                model = ETSModel(
                    _floats(history),
                    trend="add" if trend else None,
                    damped_trend=trend,
                    seasonal="add",
                    seasonal_periods=WEEK,
                    initialization_method="heuristic",
                )
                found = [float(day) for day in model.fit(disp=False, maxiter=300).forecast(days)]
            return (
                [max(0.0, day) for day in found]
                if all(map(math.isfinite, found))
                else run_rate(history, days)
            )

        return forecast

    return {"smoothing": fitted(trend=False), "smoothing with trend": fitted(trend=True)}


def _floats(history: Sequence[float]) -> object:
    import numpy as np

    return np.asarray(history, dtype=float)


def _origins(known: int, days: int) -> tuple[list[int], int]:
    """Points of the past to forecast from, evenly apart, and how many days from each: fewer where little is known."""
    first = FEWEST_DAYS if known >= ENOUGH_DAYS else max(WEEK, known // 2)
    length = max(1, min(days, (known - first) // 2))  # so that at least two of them do not overlap
    last = known - length
    if last < first:
        return [], 1
    count = min(ORIGINS, last - first + 1)
    steps = max(1, count - 1)
    return sorted({last - (last - first) * i // steps for i in range(count)}), length


def _tried(method: Method, history: Sequence[float], at: int, skip: int, days: int) -> _Try:
    """What it would have said at that point of the past, and what came. A gap is kept as far as history reaches."""
    skip = min(skip, len(history) - at - days)
    return _Try(sum(method(history[:at], skip + days)[skip:]), sum(history[at + skip : at + skip + days]))


def _error(tries: Sequence[_Try]) -> float | None:
    came = sum(one.came for one in tries)
    return sum(abs(one.forecast - one.came) for one in tries) / came if came else None


def _interval(forecast: float, tries: Sequence[_Try], stretch: float) -> tuple[float, float]:
    """By the errors of the past, scaled to what is forecast now; by fixed factors where there are none."""
    if not tries:
        return forecast * WIDE[0], forecast * WIDE[1]
    mean = sum(one.forecast for one in tries) / len(tries)
    scale = stretch * (forecast / mean if mean and forecast else 1.0)
    errors = sorted(abs(one.came - one.forecast) for one in tries)
    rank = math.ceil(
        (len(errors) + 1) * COVERED / 100
    )  # of a next error, as likely to take any place among them
    reach = errors[min(rank, len(errors)) - 1] * scale
    return max(0.0, forecast - reach), forecast + reach


def _held(tries: Sequence[_Try]) -> int:
    """Of the sums of the past, those in the interval that the rest make: by none is it judged that it made itself."""
    held = 0
    for i, one in enumerate(tries):
        low, high = _interval(one.forecast, [*tries[:i], *tries[i + 1 :]], 1.0)
        held += low <= one.came <= high
    return held
