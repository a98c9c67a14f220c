"""A day of made-up traffic: five workloads of a company in Frankfurt, the same requests whoever asks.

A conversation's answers are part of the day and not what the emulator says, so that both runs send the same bytes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from farthing.usage import EPOCH

DAY = datetime(2026, 11, 16, tzinfo=UTC)
REGION, ACCOUNT = "eu-central-1", "111122223333"
SONNET = "eu.anthropic.claude-sonnet-4-6"
OPUS = "eu.anthropic.claude-opus-4-8"
MINUTE, HOUR = 60, 3600
_WORDS = (  # noqa: SIM905 - as a text it is three lines
    "order ticket answer letter number window river garden market summer winter bridge engine paper yellow silver "
    "copper harbour station journey account delivery invoice product return repair colour figure signal record"
).split()


class Ask(NamedTuple):
    """One request. `body` is of the operation; `name` stays the same in both runs; `app` is its workload."""

    name: str
    at_us: int
    app: str
    operation: str
    model: str
    body: dict[str, Any]
    session: str = ""


def requests() -> list[Ask]:
    """All of the day, in order of time."""
    made = [*_triage(), *_chat(), *_nightly(), *_agents(), *_people()]
    return sorted(made, key=lambda ask: (ask.at_us, ask.name))


# --- workloads -------------------------------------------------------------------------------------------------------


def _triage() -> Iterator[Ask]:
    """Tickets, each by itself, behind a long system prompt that never changes; a few of them at night."""
    rng = random.Random("triage")
    system = _text(rng, 5_200)
    moments = [rng.uniform(7 * HOUR, 19 * HOUR) for _ in range(520)]
    moments += [rng.uniform(0, 24 * HOUR) for _ in range(40)]
    for number, second in enumerate(sorted(moments)):
        body = {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 60,
            "system": [{"type": "text", "text": system}],
            "messages": [{"role": "user", "content": _text(rng, rng.randint(80, 260))}],
        }
        yield Ask(f"triage-{number:04d}", _at_us(second), "triage", "InvokeModel", SONNET, body)


def _chat() -> Iterator[Ask]:
    """Conversations of people, who think between two turns, for some seconds or over lunch."""
    rng = random.Random("chat")
    system = _text(rng, 2_400)
    for number in range(48):
        second = rng.uniform(8 * HOUR, 17 * HOUR)
        messages: list[dict[str, Any]] = []
        for turn in range(rng.randint(3, 9)):
            messages = [*messages, {"role": "user", "content": [{"text": _text(rng, rng.randint(40, 300))}]}]
            body = {
                "system": [{"text": system}],
                "messages": messages,
                "inferenceConfig": {"maxTokens": 220},
            }
            name = f"chat-{number:03d}-{turn:02d}"
            yield Ask(name, _at_us(second), "chat", "Converse", SONNET, body, f"chat-{number:03d}")
            messages = [*messages, {"role": "assistant", "content": [{"text": _text(rng, 220)}]}]
            second += rng.expovariate(1 / 110) if rng.random() < 0.8 else rng.uniform(6 * MINUTE, 30 * MINUTE)


def _nightly() -> Iterator[Ask]:
    """A job that reads the documents of the day before, each of them once. It may take until the morning."""
    rng = random.Random("nightly")
    rules = _text(rng, 240)
    for number in range(240):
        body = {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 180,
            "system": [{"type": "text", "text": rules}],
            "messages": [{"role": "user", "content": _text(rng, rng.randint(1_200, 2_600))}],
        }
        yield Ask(
            f"nightly-{number:04d}",
            _at_us(2 * HOUR + number * 0.4),
            "nightly",
            "InvokeModel",
            SONNET,
            body,
        )


def _agents() -> Iterator[Ask]:
    """Coding agents: tools, a system prompt, and steps that grow; markers of their own that live five minutes."""
    rng = random.Random("agents")
    tools = [
        {"name": name, "description": _text(rng, 420), "input_schema": {"type": "object"}}
        for name in ("read", "write", "search", "run")
    ]
    system = _text(rng, 4_000)
    for number in range(12):
        second = rng.uniform(8 * HOUR, 16 * HOUR)
        session = f"agent-{number:03d}"
        steps: list[dict[str, Any]] = [_said("user", _text(rng, 700))]
        for turn in range(rng.randint(10, 22)):
            body = {
                "anthropic_version": "bedrock-2023-05-31",
                "max_tokens": 300,
                "tools": tools,
                "system": [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}],
                "messages": [*steps[:-1], _marked(steps[-1])],
            }
            yield Ask(
                f"{session}-{turn:02d}",
                _at_us(second),
                "agents",
                "InvokeModelWithResponseStream",
                OPUS,
                body,
                session,
            )
            steps = [
                *steps,
                _said("assistant", _text(rng, 300)),
                _said("user", _text(rng, rng.randint(100, 900))),
            ]
            second += rng.uniform(8, 90) if rng.random() < 0.75 else rng.uniform(6 * MINUTE, 40 * MINUTE)


def _people() -> Iterator[Ask]:
    """Letters about employees, which may not leave Europe: the residency refuses the one lever that they have."""
    rng = random.Random("people")
    for number in range(36):
        second = rng.uniform(9 * HOUR, 17 * HOUR)
        messages = [{"role": "user", "content": [{"text": _text(rng, rng.randint(600, 1_500))}]}]
        body = {"messages": messages, "inferenceConfig": {"maxTokens": 200}}
        yield Ask(f"people-{number:03d}", _at_us(second), "people", "Converse", SONNET, body)


# --- their parts -----------------------------------------------------------------------------------------------------


def _said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _marked(message: dict[str, Any]) -> dict[str, Any]:
    """With a cache point at its end."""
    last = {**message["content"][-1], "cache_control": {"type": "ephemeral"}}
    return {**message, "content": [*message["content"][:-1], last]}


def _text(rng: random.Random, tokens: int) -> str:
    """Words that the emulator counts as so many tokens: four bytes each."""
    words: list[str] = []
    size = 0
    while size < 4 * tokens:
        words.append(rng.choice(_WORDS))
        size += len(words[-1]) + 1
    return " ".join(words)[: 4 * tokens].ljust(4 * tokens, ".")


def _at_us(second: float) -> int:
    """Whole milliseconds into the day."""
    return (DAY - EPOCH) // timedelta(microseconds=1) + round(second * 1000) * 1000
