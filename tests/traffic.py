"""Made-up traffic by the hour, for what looks ahead and what raises alarms: quiet by itself, with faults where planted.

A company of workloads, each with its team, model, account and week. Counts vary from hour to hour as calls do; a
planted change is a function that alters one workload from an hour on, and nothing else of it.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from farthing.book import PRICES, Book
from farthing.usage import Facts, Usage

HOUR = timedelta(hours=1)
MONDAY = datetime(2026, 9, 7, tzinfo=UTC)  # a week begins, and no price changes for a while


@dataclass(frozen=True)
class Workload:
    """Calls of a busy hour. `prompt` and `output` are tokens a call, `read` the cached percent of the prompt."""

    team: str
    model: str = "global.anthropic.claude-sonnet-4-6"
    account: str = "111122223333"
    calls: float = 6.0
    prompt: int = 60_000
    output: int = 2_000
    read: int = 0
    mode: str = "on_demand"
    nights: float = 0.15  # of a busy hour
    weekends: float = 0.3
    spread: float = 0.25  # of the size of a call
    growth: float = 0.0  # a day


COMPANY = (
    Workload("search", calls=8, prompt=80_000, read=80),
    Workload("ads", "eu.anthropic.claude-haiku-4-5", calls=9, prompt=40_000, output=3_000, account="444455556666"),
    Workload("legal", "us.anthropic.claude-opus-4-6-v1", calls=2.5, prompt=90_000, output=3_000, nights=0, weekends=0),
    Workload("nightly", calls=4, prompt=50_000, output=4_000, mode="batch", nights=1.0, weekends=1.0),
)  # fmt: skip

Change = Callable[[Workload, datetime], Workload | None]  # None: it does not call at all


def nothing(work: Workload, _: datetime) -> Workload:
    return work


def usages(
    company: Sequence[Workload] = COMPANY,
    *,
    start: datetime = MONDAY,
    hours: int,
    first: int = 0,
    seed: int = 0,
    change: Change = nothing,
) -> Iterator[Usage]:
    """Every call of these hours, from the first that is asked for."""
    for number in range(first, hours):
        at = start + number * HOUR
        for place, usual in enumerate(company):
            rng = random.Random(
                f"{seed} {place} {number}"
            )  # so that a change alters nothing but its workload
            work = change(usual, at)
            if work is None:
                continue
            busy = 1.0 if 8 <= at.hour < 18 else work.nights
            busy *= (work.weekends if at.weekday() > 4 else 1.0) * (1 + work.growth) ** (number / 24)
            for i in range(_poisson(rng, work.calls * busy)):
                yield _call(work, at, rng, f"{seed}-{place}-{number}-{i}")


def _call(work: Workload, at: datetime, rng: random.Random, name: str) -> Usage:
    size = math.exp(rng.gauss(0, work.spread))
    prompt, output = round(work.prompt * size), round(work.output * math.exp(rng.gauss(0, work.spread)))
    read = prompt * work.read // 100
    facts = Facts(
        "bedrock_log", "bedrock", work.model, region="us-east-1", account=work.account, mode=work.mode
    )
    at_us = int((at.timestamp() + rng.uniform(0, 3599)) * 1_000_000)
    return Usage(at_us, name, "", ((facts, (prompt - read, output, read, 0, 0)),), (("team", work.team),))


def _poisson(rng: random.Random, mean: float) -> int:
    """Counts of calls that know nothing of each other."""
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def since(team: str, at: datetime, until: datetime | None = None, **changed: object) -> Change:
    """From then on the team's workloads are as told; `calls` may be None for none at all."""

    def change(work: Workload, now: datetime) -> Workload | None:
        if work.team != team or now < at or (until and now >= until):
            return work
        if "calls" in changed and changed["calls"] is None:
            return None
        values: dict[str, Any] = {name: _value(work, name, value) for name, value in changed.items()}
        return replace(work, **values)

    return change


def _value(work: Workload, name: str, value: object) -> object:
    """A function alters what there is."""
    return value(getattr(work, name)) if callable(value) else value


def changed_prices(folder: Path, file: str, old: str, new: str) -> Book:
    """The book that ships, with one text of one of its files replaced."""
    shutil.copytree(PRICES, folder)
    text = (folder / file).read_text(encoding="utf-8")
    assert text.count(old) == 1
    (folder / file).write_text(text.replace(old, new), encoding="utf-8")
    return Book.load(folder)


def dearer_haiku(folder: Path, day: str) -> Book:
    """From that day on Haiku 4.5 costs four times as much."""
    row = "[[claude-haiku-4-5.price]]\n"
    dearer = f"{row}to = {day}\ninput = 1\noutput = 5\n\n{row}from = {day}\ninput = 4\noutput = 20\n"
    return changed_prices(folder, "haiku.toml", f"{row}input = 1\noutput = 5\n", dearer)
