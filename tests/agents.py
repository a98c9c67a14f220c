"""Made-up traffic for plans: sessions whose context grows and is cached as documented, and single calls."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from farthing.usage import Facts, Usage

START = datetime(2026, 9, 7, 8, tzinfo=UTC)
MINUTE = 60_000_000
_FIRST = round(START.timestamp()) * 1_000_000


def role(name: str, session: str = "") -> str:
    return f"arn:aws:sts::111122223333:assumed-role/{name}/{session or 'pod'}"


def sessions(
    name: str, model_id: str, pauses: Sequence[float], count: int, *, source: str = "bedrock_log",
    turns: int = 12, ttl: str = "5m", seed: int = 1,
) -> Iterator[Usage]:  # fmt: skip
    """Sessions of a role, in which a turn comes so many minutes after the one before: each marks its end."""
    rng = random.Random(seed)
    platform = "bedrock" if "anthropic." in model_id else "anthropic"
    for number in range(count):
        session = f"{name}-{number}"
        facts = Facts(
            source, platform, model_id, region="us-east-1" if platform == "bedrock" else "",
            account="111122223333" if platform == "bedrock" else "", principal=role(name), session=session,
            operation="InvokeModelWithResponseStream",
        )  # fmt: skip
        at, depth = _FIRST + number * 40 * MINUTE, 0
        for turn in range(turns):
            fresh = 8_000 if not turn else rng.randint(300, 900)
            pause = rng.choice(pauses) if turn else 0
            at += round(pause * MINUTE)
            lives = 60 if ttl == "1h" else 5
            read = depth if turn and pause <= lives else 0
            written = depth + fresh - read
            five, hour = (written, 0) if ttl == "5m" else (0, written)
            yield Usage(at, f"{session}-{turn}", "", ((facts, (0, rng.randint(50, 300), read, five, hour)),))
            depth += fresh


def singles(
    name: str, model_id: str, count: int, *, prompt: int = 6_000, read: int = 0, output: int = 400,
    operation: str = "InvokeModel", apart_minutes: int = 5,
) -> Iterator[Usage]:  # fmt: skip
    """Calls that nothing connects, so many minutes apart."""
    facts = Facts(
        "bedrock_log", "bedrock", model_id, region="us-east-1", account="111122223333", principal=role(name),
        operation=operation,
    )  # fmt: skip
    for number in range(count):
        counts = (prompt - read, output, read, 0, 0)
        yield Usage(_FIRST + number * apart_minutes * MINUTE, f"{name}-{number}", "", ((facts, counts),))
