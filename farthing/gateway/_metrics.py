"""Counters and histograms in Prometheus' text form. Sums of money are exact inside; as told they are floating.

Labels are names from the book, the key file and this module, never what a caller says: their number is bounded.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from farthing.money import usd

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
MOST_SERIES = 5_000  # of a counter: the rest is told as "other"
_MONEY = "farthing_cost_usd_total"
_HELP = {
    "farthing_calls_total": ("counter", "Attempts at the upstream, by what they came to."),
    "farthing_tokens_total": ("counter", "Tokens by meter."),
    _MONEY: ("counter", "List cost in dollars. The ledger has the exact figure."),
    "farthing_unpriced_calls_total": ("counter", "Answered calls without a price."),
    "farthing_denied_total": ("counter", "Requests not passed on, by reason."),
    "farthing_upstream_errors_total": ("counter", "Answers with an error, and failures to get one."),
    "farthing_retries_total": ("counter", "Attempts after a first."),
    "farthing_client_gone_total": ("counter", "Clients that went away before the end of their answer."),
    "farthing_unmetered_calls_total": (
        "counter",
        "Calls passed on without an intent: the outbox had no room.",
    ),
    "farthing_decisions_total": (
        "counter",
        "What levers of the policy did with calls: applied, shadow, refused.",
    ),
    "farthing_cache_alarms_total": (
        "counter",
        "What the cache's guard found: reverted, downgraded, broken.",
    ),
    "farthing_shadow_usd_total": (
        "counter",
        "What calls cost, and the same tokens where an entry in shadow would have sent them.",
    ),
    "farthing_evaluation_calls_total": (
        "counter",
        "Copies of calls that were put to the model of an entry in shadow: answered, failed, too dear.",
    ),
    "farthing_evaluation_usd_total": ("counter", "What these copies cost."),
    "farthing_policy_fault": (
        "gauge",
        "1 if the policy file cannot be read: what was in force before stays so.",
    ),
    "farthing_policy_version": ("gauge", "Of the policy in force."),
    "farthing_open_calls": ("gauge", "Calls on their way."),
    "farthing_open_streams": ("gauge", "Streams on their way."),
    "farthing_held_usd": ("gauge", "Money held for calls on their way."),
    "farthing_outbox_waiting_lines": ("gauge", "Results that the outbox has no room for."),
    "farthing_request_seconds": ("histogram", "From a request's head to the end of its answer."),
    "farthing_first_byte_seconds": ("histogram", "From a request's head to the first byte of its answer."),
}

Labels = tuple[tuple[str, str], ...]


@dataclass
class Metrics:
    """Of one process."""

    counts: dict[str, dict[Labels, int]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(int))
    )
    spread: dict[str, dict[Labels, list[int]]] = field(default_factory=lambda: defaultdict(dict))
    sums: dict[str, dict[Labels, float]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(float))
    )

    def add(self, name: str, by: int = 1, /, **labels: str) -> None:
        series = self.counts[name]
        key = tuple(labels.items())
        if key not in series and len(series) >= MOST_SERIES:
            key = tuple((label, "other") for label in labels)
        series[key] += by

    def observe(self, name: str, seconds: float) -> None:
        buckets = self.spread[name].get(())
        if buckets is None:
            buckets = self.spread[name][()] = [0] * (len(BUCKETS_S) + 1)
        buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.sums[name][()] += seconds

    # --- several processes, one answer

    def dump(self) -> bytes:
        """For another process to add."""
        return json.dumps([
            [[name, list(labels), value] for name, series in self.counts.items() for labels, value in series.items()],
            [[name, list(labels), value, self.sums[name][labels]]
             for name, series in self.spread.items() for labels, value in series.items()],
        ]).encode()  # fmt: skip

    def absorb(self, dumped: bytes) -> None:
        counts, spread = json.loads(dumped)
        for name, labels, value in counts:
            self.counts[name][_labels(labels)] += value
        for name, labels, values, total in spread:
            key = _labels(labels)
            held = self.spread[name].setdefault(key, [0] * len(values))
            self.spread[name][key] = [one + other for one, other in zip(held, values, strict=True)]
            self.sums[name][key] += total


def _labels(said: Iterable[Iterable[str]]) -> Labels:
    return tuple((name, value) for name, value in said)


def text(metrics: Metrics, gauges: Mapping[str, int]) -> str:
    """As /metrics shows it. Gauges of money are picodollars, as the counters are."""
    lines: list[str] = []
    for name, (kind, says) in _HELP.items():
        if kind == "gauge" and name not in gauges:
            continue
        lines += [f"# HELP {name} {says}", f"# TYPE {name} {kind}"]
        if kind == "gauge":
            lines.append(f"{name} {_number(name, gauges[name])}")
        elif kind == "counter":
            lines += [
                f"{name}{_shown(labels)} {_number(name, value)}"
                for labels, value in metrics.counts[name].items()
            ]
        else:
            for labels, buckets in metrics.spread[name].items():
                lines += _histogram(name, labels, buckets, metrics.sums[name][labels])
    return "\n".join(lines) + "\n"


def _number(name: str, value: int) -> str:
    return usd(value) if "usd" in name else str(value)


def _histogram(name: str, labels: Labels, buckets: list[int], total: float) -> Iterable[str]:
    count = 0
    for bound, each in zip((*map(str, BUCKETS_S), "+Inf"), buckets, strict=True):
        count += each
        yield f"{name}_bucket{_shown((*labels, ('le', bound)))} {count}"
    yield f"{name}_sum{_shown(labels)} {total:.6f}"
    yield f"{name}_count{_shown(labels)} {count}"


def _shown(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
