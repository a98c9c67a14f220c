"""Draws docs/figures/*.svg from farthing's own functions: what caching costs by reads, by gaps, by policy.

Each figure is a function to the text of an SVG. `make docs` writes them; a test fails when one is stale.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from math import log
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np

from farthing.book import Card, default_book
from farthing.cache import (
    FIVE_US,
    HOUR_US,
    POLICIES,
    Cards,
    Request,
    State,
    Trace,
    bill,
    bound,
    simulate,
    uncached,
)
from farthing.estimate._arrivals import hits
from farthing.estimate._workload import Workload
from farthing.meters import Vector
from farthing.usage import Sku

FOLDER = Path(__file__).parent.parent / "docs" / "figures"
MODEL, DAY = "claude-sonnet-4-6", datetime(2026, 11, 1, tzinfo=UTC)
SECOND_US, MINIMUM, PREFIX = 1_000_000, 1_024, 10_000
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 380, 64, 52, 150, 56

STYLE = """
  svg { font: 14px system-ui, sans-serif }
  .paper { fill: #fff } text { fill: #1f2328 } .axis, .grid { stroke: #8c959f } .grid { stroke-opacity: .35 }
  .line { fill: none; stroke-width: 2.5 }
  .grey { --c: #57606a } .blue { --c: #0550ae } .orange { --c: #953800 } .green { --c: #116329 }
  .line { stroke: var(--c) } .fill { fill: var(--c) } text.fill { fill: var(--c) } .title { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #16191d } text { fill: #e6edf3 }
    .grey { --c: #9ea7b3 } .blue { --c: #79c0ff } .orange { --c: #ffa657 } .green { --c: #7ee787 }
  }
"""


class Line(NamedTuple):
    """`points` are x and y, or y alone where dots stand for what was played."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


class Axis(NamedTuple):
    says: str
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False


def rates() -> Vector:
    """Those of the figures' model, at the global endpoint."""
    card = default_book().find(Sku("bedrock", MODEL, "global", "", "on_demand"), DAY)
    assert isinstance(card, Card)
    return card.rates


# --- the figures -------------------------------------------------------------------------------------


def break_even() -> str:
    """A prefix that is written once and read n times, by the billing machine."""
    lines = [
        Line("no cache", "grey", [(n, 100) for n in range(1, 11)]),
        Line("5 minutes", "blue", [(n, _mean(n, FIVE_US)) for n in range(1, 11)]),
        Line("1 hour", "orange", [(n, _mean(n, HOUR_US)) for n in range(1, 11)]),
    ]
    return plot(
        "What a prefix costs each call, by how many calls share it",
        lines,
        Axis("calls within its life", [(n, str(n)) for n in range(1, 11)]),
        Axis("% of the price without a cache", [(n, str(n)) for n in range(0, 201, 50)]),
    )


def _mean(calls: int, ttl_us: int) -> float:
    """Cost of the prefix, in percent of sending it plain, over calls a minute apart."""
    kept: State = {}
    cost = 0
    for n in range(calls):
        made, kept = bill(kept, Request(n * 60 * SECOND_US, [("prefix", PREFIX)], [(0, ttl_us)]), MINIMUM)
        cost += made.tokens @ rates()
    return 100 * cost / (calls * PREFIX * rates().input)


def gaps() -> str:
    """A prefix that is sent on and on, with the same pause each time."""
    seconds = [int(30 * 1.1**n) for n in range(58)] + [300, 301, 3_600, 3_601]
    lines = [
        Line("no cache", "grey", [(s, 100) for s in (30, 7_200)]),
        *(
            Line(name, colour, [(s, _by_gap(s, policy)) for s in sorted(seconds) if s <= 7_200])
            for name, colour, policy in (("5 minutes", "blue", "end_5m"), ("1 hour", "orange", "end_1h"))
        ),
    ]
    return plot(
        "What a prefix costs each call, by the pause between calls",
        lines,
        Axis("pause", _TIMES, logarithmic=True),
        Axis("% of the price without a cache", [(n, str(n)) for n in range(0, 201, 50)]),
    )


def _by_gap(seconds: int, policy: str) -> float:
    trace = _repeated([n * seconds * SECOND_US for n in range(200)])
    return 100 * simulate(trace, POLICIES[policy], rates(), MINIMUM).cost / uncached(trace, _cards(trace))


def hit_rate() -> str:
    """Calls that come when they like: the formula of `farthing estimate`, and 2,000 calls played."""
    lines = []
    for name, colour, ttl in (("5 minutes", "blue", "5m"), ("1 hour", "orange", "1h")):
        means = [int(30 * 1.25**n) for n in range(28)]
        lines.append(Line(name, colour, [(s, _expected(s, ttl)) for s in means if s <= 7_200]))
        lines.append(
            Line("", colour, [(s, _played(s, f"end_{ttl}")) for s in means[::3] if s <= 7_200], dots=True)
        )
    return plot(
        "How much of a prefix is read from the cache, by the mean pause",
        lines,
        Axis("mean pause; lines: 1 − e^(−life/pause), dots: 2,000 calls played", _TIMES, logarithmic=True),
        Axis("% read", [(n, str(n)) for n in range(0, 101, 25)]),
    )


def _expected(seconds: int, ttl: str) -> float:
    work = Workload(
        requests=1_000_000,
        input_tokens=PREFIX,
        output_tokens=0,
        gap_seconds=Decimal(seconds),
        arrivals="poisson",
    )
    month = hits(work, ttl)
    return 100 * float(month.reads / (month.reads + month.writes))


def _played(seconds: int, policy: str) -> float:
    drawn, at, times = random.Random(seconds), 0.0, []
    for _ in range(2_000):
        times.append(int(at * SECOND_US))
        at += drawn.expovariate(1 / seconds)
    trace = _repeated(times)
    tokens = simulate(trace, POLICIES[policy], rates(), MINIMUM).tokens
    return 100 * tokens.cache_read / tokens.prompt


def policies() -> str:
    """Policies on made-up conversations, beside the least that any plan could have cost."""
    trace = conversations()
    least, plain = bound(trace, MINIMUM, _cards(trace)), uncached(trace, _cards(trace))
    names = ("end_5m", "end_1h", "guarded_5m", "guarded_1h", "adaptive_unpinged")
    costs = {name: simulate(trace, POLICIES[name], rates(), MINIMUM).cost for name in names}
    bars = [("no cache", "grey", plain), *((name, "blue", cost) for name, cost in costs.items())]
    bars.append(("bound", "green", least))
    return bar_chart(
        "Made-up conversations: policies, and the least that any could cost",
        [(name, colour, 100 * cost / plain, f"{100 * cost / plain:.1f} %") for name, colour, cost in bars],
    )


def conversations(count: int = 120, seed: int = 7) -> Trace:
    """Conversations behind one system prompt: turns of seconds, pauses of minutes, a last block that may not stay."""
    drawn = random.Random(seed)
    calls, sizes = [], [4_000]  # node 0: tools and system
    for _ in range(count):
        at, path = drawn.uniform(0, 8 * 3_600), [0]
        for _ in range(drawn.randint(2, 14)):
            sizes += [drawn.randint(300, 2_500), drawn.randint(40, 120)]
            path = [*path, len(sizes) - 2]
            calls.append((int(at * SECOND_US), [*path, len(sizes) - 1], drawn.randint(100, 900)))
            path = [*path, len(sizes) - 1] if drawn.random() < 0.6 else path
            at += drawn.choice((12, 25, 45, 90, 240, 700, 1_500))
    calls.sort()
    walked = np.concatenate([[0], np.cumsum([len(path) for _, path, _ in calls])])
    zero = np.zeros(len(calls), np.int64)
    return Trace(
        np.array([at for at, _, _ in calls]), zero, np.array([out for _, _, out in calls]), zero, walked,
        np.array([node for _, path, _ in calls for node in path]), np.array(sizes), zero + 1, zero,
    )  # fmt: skip


def _repeated(times: Sequence[int]) -> Trace:
    """The same prefix at each of the times, and nothing else."""
    zero = np.zeros(len(times), np.int64)
    return Trace(
        np.array(times), zero, zero, zero, np.arange(len(times) + 1), zero, np.array([PREFIX]), zero, zero
    )


def _cards(trace: Trace) -> Cards:
    return Cards.one(rates(), trace)


# --- drawing -----------------------------------------------------------------------------------------

_TIMES = [(30, "30 s"), (60, "1 min"), (300, "5 min"), (900, "15 min"), (3_600, "1 h"), (7_200, "2 h")]


def plot(title: str, lines: Sequence[Line], x: Axis, y: Axis) -> str:
    """Lines over two axes, each named where it ends."""
    across = _scale(x, LEFT, WIDTH - RIGHT)
    up = _scale(y, HEIGHT - BOTTOM, TOP)
    parts = []
    for value, says in y.ticks:
        at = up(value)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 5:.1f}" text-anchor="end">{says}</text>')
    for value, says in x.ticks:
        at = across(value)
        parts.append(f'<path class="axis" d="M{at:.1f} {HEIGHT - BOTTOM}v5"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{says}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 12}">{escape(x.says)}</text>')
    parts.append(f'<text x="{LEFT - 46}" y="{TOP - 12}">{escape(y.says)}</text>')
    low = float(HEIGHT)
    for line in sorted(lines, key=lambda line: line.points[-1][1]):
        points = [(across(a), up(b)) for a, b in line.points]
        parts += _drawn(line, points)
        if line.name:
            low = min(points[-1][1] + 5, low - 17)  # names of lines that end together stand above each other
            parts.append(
                f'<text class="fill {line.colour}" x="{points[-1][0] + 8:.1f}" y="{low:.1f}">{escape(line.name)}</text>'
            )
    return _picture(title, parts, HEIGHT)


def _drawn(line: Line, points: Sequence[tuple[float, float]]) -> Iterable[str]:
    if line.dots:
        yield from (
            f'<circle class="fill {line.colour}" cx="{a:.1f}" cy="{b:.1f}" r="4"/>' for a, b in points
        )
        return
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    yield f'<path class="line {line.colour}" d="M{path}"/>'


def bar_chart(title: str, bars: Sequence[tuple[str, str, float, str]]) -> str:
    """Bars from nothing, each with its name before and its figure behind it."""
    left, step = 160, 34
    most = max(value for _, _, value, _ in bars)
    parts = []
    for n, (name, colour, value, says) in enumerate(bars):
        top, wide = TOP + n * step, (WIDTH - left - 90) * value / most
        parts.append(f'<text x="{left - 10}" y="{top + 17}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="fill {colour}" x="{left}" y="{top}" width="{wide:.1f}" height="24"/>')
        parts.append(f'<text x="{left + wide + 8:.1f}" y="{top + 17}">{escape(says)}</text>')
    return _picture(title, parts, TOP + len(bars) * step + 12)


def _scale(axis: Axis, start: float, end: float) -> Callable[[float], float]:
    measure: Callable[[float], float] = log if axis.logarithmic else float
    low, high = measure(axis.ticks[0][0]), measure(axis.ticks[-1][0])
    return lambda value: start + (end - start) * (measure(value) - low) / (high - low)


def _picture(title: str, parts: Iterable[str], height: int) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="8"/>\n'
        f'<text class="title" x="18" y="24">{escape(title)}</text>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


FIGURES = {"break-even": break_even, "gaps": gaps, "hit-rate": hit_rate, "policies": policies}


def write() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        (FOLDER / f"{name}.svg").write_text(draw(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write()
    print(f"wrote {len(FIGURES)} figures")
