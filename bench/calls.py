"""Anthropic-shaped usage blocks that farthing and its rivals price, and a few calls on which they may not agree.

Standard library only: the rivals run in an environment of their own and read this file too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any, NamedTuple

MODEL = "global.anthropic.claude-sonnet-4-6"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SEED = 7


class Probe(NamedTuple):
    """One call. `agree` says that all must give the same dollars."""

    name: str
    model: str
    at: datetime
    usage: dict[str, Any]
    agree: bool = False


def block(fresh: int, output: int, read: int = 0, short: int = 0, long: int = 0) -> dict[str, Any]:
    """A usage block as Claude's Messages API writes it."""
    return {
        "input_tokens": fresh,
        "cache_creation_input_tokens": short + long,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "output_tokens": output,
        "service_tier": "standard",
    }


def blocks(count: int) -> list[dict[str, Any]]:
    """As many different blocks, a third of them without any caching."""
    random = Random(SEED)
    made = []
    for number in range(count):
        cached = number % 3 > 0
        read, short, long = (random.randrange(limit) if cached else 0 for limit in (60_000, 5_000, 2_000))
        made.append(block(random.randrange(1, 9_000), random.randrange(1, 2_000), read, short, long))
    return made


def probes() -> list[Probe]:
    """Global Sonnet 4.6 has one price that all know; the others differ by endpoint, date or prompt size."""
    usual = block(412, 650, 18_000, 1_200)
    settled = [
        Probe(f"global Sonnet 4.6, block {i}", MODEL, NOW, one, True) for i, one in enumerate(blocks(50))
    ]
    return [
        *settled,
        Probe("us. Sonnet 4.6", "us.anthropic.claude-sonnet-4-6", NOW, usual),
        Probe("Sonnet 4.6 in the region, no prefix", "anthropic.claude-sonnet-4-6", NOW, usual),
        Probe("global Sonnet 5.5", "global.anthropic.claude-sonnet-5-5", NOW, usual),
        Probe(
            "global Sonnet 5.5 before its cut of 2026-10-07",
            "global.anthropic.claude-sonnet-5-5",
            datetime(2026, 10, 1, tzinfo=UTC),
            usual,
        ),
        Probe("global Opus 5.5", "global.anthropic.claude-opus-5-5", NOW, usual),
        Probe("us. Opus 5.5", "us.anthropic.claude-opus-5-5", NOW, usual),
        Probe("global Haiku 5.5", "global.anthropic.claude-haiku-5-5", NOW, usual),
        Probe(
            "global Haiku 5.5, 150,000 tokens of prompt",
            "global.anthropic.claude-haiku-5-5",
            NOW,
            block(150_000, 650),
        ),
        Probe(
            "3.5 Sonnet v2 in us-east-1, extended access",
            "anthropic.claude-3-5-sonnet-20241022-v2:0",
            NOW,
            block(3_200, 480),
        ),
    ]


def per_second(price: Callable[[Any], Any], usages: Sequence[Any], seconds: float) -> float:
    """How many of these a second are priced, one at a time, over at least so many seconds."""
    for one in usages:
        price(one)
    done, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        for one in usages:
            price(one)
        done += len(usages)
    return done / spent
