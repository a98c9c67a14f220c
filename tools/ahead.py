"""How good forecasts and alarms are, on made-up series: the figures of docs/watch.md.

python -m tools.ahead            # a few minutes; needs statsmodels
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from statistics import mean, median
from typing import NamedTuple

from farthing.reports._ahead import ahead, run_rate
from farthing.reports._alarms import DAY, WEEK, long_days, silences, spikes

SERIES = 10  # of each kind and length
LEAST = 5.0  # dollars an hour


def _weekly(day: int) -> float:
    return 0.3 if day % 7 > 4 else 1.0


KINDS: dict[str, Callable[[int, int, random.Random], float]] = {
    "weeks": lambda day, _, rng: _weekly(day) * rng.lognormvariate(0, 0.12),
    "weeks, growing 1 % a day": lambda day, _, rng: _weekly(day) * 1.01**day * rng.lognormvariate(0, 0.12),
    "weeks, falling 0.8 % a day": lambda day, _, rng: _weekly(day) * 0.992**day * rng.lognormvariate(0, 0.12),
    "weeks, noisy": lambda day, _, rng: _weekly(day) * rng.lognormvariate(0, 0.35),
    "a level that jumps halfway": lambda day, days, rng: (
        _weekly(day) * (1.8 if day > days // 2 else 1) * rng.lognormvariate(0, 0.12)
    ),
    "bursts": lambda day, _, rng: (
        _weekly(day) * (5 if rng.random() < 0.06 else 1) * rng.lognormvariate(0, 0.12)
    ),
    "two days of five": lambda _, __, rng: float(rng.random() < 0.4) * rng.lognormvariate(0, 0.12),
}


class Tried(NamedTuple):
    error: float
    run_rate: float
    held: bool
    width: float


def forecasts(days: int) -> list[Tried]:
    """Of series of so many days, the sum of the next 3 to 27."""
    found = []
    for kind, made in KINDS.items():
        for seed in range(SERIES):
            rng = random.Random(f"{kind} {days} {seed}")
            length = rng.randrange(3, 28)
            series = [100 * made(day, days, rng) for day in range(days + length)]
            came = sum(series[days:])
            if not came or not sum(series[:days]):
                continue
            made_ = ahead(series[:days], 0, length)
            naive = sum(run_rate(series[:days], length))
            width = (made_.high - made_.low) / came
            found.append(
                Tried(
                    abs(sum(made_.days) - came) / came,
                    abs(naive - came) / came,
                    made_.low <= came <= made_.high,
                    width,
                )
            )
    return found


class Traffic(NamedTuple):
    calls: float  # in a busy hour
    usd: float  # a call
    spread: float  # of the logarithm of its size
    growth: float = 0.0  # a day


def hours(traffic: Traffic, rng: random.Random, weeks: int = 9) -> tuple[dict[int, float], dict[int, int]]:
    """Dollars and calls by the hour."""
    usd, calls = {}, {}
    for hour in range(weeks * WEEK):
        busy = (1 if 8 <= hour % DAY < 18 else 0.15) * _weekly(hour // DAY)
        count = _count(traffic.calls * busy * (1 + traffic.growth) ** (hour / DAY), rng)
        if count:
            calls[hour] = count
            usd[hour] = sum(
                traffic.usd * rng.lognormvariate(-(traffic.spread**2) / 2, traffic.spread)
                for _ in range(count)
            )
    return usd, calls


def _count(expected: float, rng: random.Random) -> int:
    """Calls that know nothing of each other; where they are many, half as uneven again."""
    if expected > 50:
        return max(0, round(rng.gauss(expected, 1.5 * math.sqrt(expected))))
    count, left = -1, expected
    while left >= 0:
        left -= rng.expovariate(1)
        count += 1
    return count


TRAFFIC: Sequence[Traffic] = (
    Traffic(3, 2, 0.5),
    Traffic(3, 10, 1.0),
    Traffic(10, 3, 1.0),
    Traffic(50, 0.5, 0.8),
    Traffic(50, 1, 1.2, 0.01),
    Traffic(200, 0.5, 0.5, 0.02),
    Traffic(1000, 0.1, 0.5),
)


def alarms(traffic: Traffic) -> tuple[float, float, float]:
    """Of a quiet month; and the shares found of a rise to the double and to 3.6 times, within its first day."""
    false, found = 0, {2.0: 0, 3.6: 0}
    begun = 6 * WEEK + 9
    for seed in range(SERIES):
        usd, calls = hours(traffic, random.Random(f"{traffic} {seed}"))
        month = range(5 * WEEK, 9 * WEEK)
        false += len(spikes(usd, calls, 0, month, LEAST)) + len(silences(calls, 0, month))
        false += len(long_days(usd, calls, 0, range(35, 63), 4 * LEAST))
        for times in found:
            risen = {hour: cost * (times if hour >= begun else 1) for hour, cost in usd.items()}
            day = range(begun - 9, begun + 15)
            found[times] += bool(
                spikes(risen, calls, 0, day, LEAST) or long_days(risen, calls, 0, range(42, 43), 4 * LEAST)
            )
    return false / SERIES, found[2.0] / SERIES, found[3.6] / SERIES


def main() -> None:
    print(
        "days known | median error | by run-rate | mean error | by run-rate | intervals that held | median width"
    )
    for days in (3, 7, 14, 28, 42, 60, 90):
        tried = forecasts(days)
        middle = [f"{median(getattr(one, name) for one in tried):.1%}" for name in ("error", "run_rate")]
        means = [
            f"{mean(min(2.0, getattr(one, name)) for one in tried):.1%}" for name in ("error", "run_rate")
        ]
        held = f"{mean(one.held for one in tried):.0%}"
        print(" | ".join([f"{days}", *middle, *means, held, f"{median(one.width for one in tried):.0%}"]))
    print("calls/h | $/call | spread | growth | false alarms a month | x2 found | x3.6 found")
    for traffic in TRAFFIC:
        false, double, more = alarms(traffic)
        shown = [f"{traffic.calls:g}", f"{traffic.usd:g}", f"{traffic.spread:g}", f"{traffic.growth:g}"]
        print(" | ".join([*shown, f"{false:.1f}", f"{double:.0%}", f"{more:.0%}"]))


if __name__ == "__main__":
    main()
