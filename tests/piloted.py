"""What tests of live policies share: a gateway's insides without the network, and a cache that bills by the rules."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from farthing.book import default_book
from farthing.emulator._cache import Cache
from farthing.emulator._prompt import prompt_of
from farthing.gateway._autopilot_apply import Applied, apply
from farthing.gateway._outbox import Outbox
from farthing.gateway.live import Call, Live, Settled, Who
from farthing.meters import Vector
from farthing.outbox import Decision
from farthing.wire import Answer, ask, route

BOOK = default_book()
MODEL = "eu.anthropic.claude-sonnet-4-6"
MINIMUM = 1_024
SECOND = 1_000_000
NOON = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()) * SECOND
HEAD = """
[workloads.support]
tags = ["app=support"]
"""
APPROVED = 'approver = "Ada"\napproved_at = "2026-11-20"\nexpires = "2027-02-01"\n'


def entry(lever: str, says: str, workload: str = "support") -> str:
    return f'\n[[entries]]\nworkload = "{workload}"\nlever = "{lever}"\n{says}\n{APPROVED}'


ADAPTIVE = HEAD + entry("cache", 'cache_policy = "adaptive"')


def words(tokens: int, name: str = "") -> str:
    """A text of so many tokens, as the emulator counts them, that no other name has."""
    return (f"{name}." + "lorem ipsum " * (tokens // 2 + 1))[: 4 * tokens]


def turn(*texts: str, system: str = "", marks: Mapping[int, str] = {}) -> bytes:
    """A request of InvokeModel: the texts are blocks of user and assistant in turn."""
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text} for text in texts]
    for at, ttl in marks.items():
        blocks[at]["cache_control"] = {"type": "ephemeral"} | ({"ttl": ttl} if ttl else {})
    said: dict[str, Any] = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50}
    if system:
        said["system"] = [{"type": "text", "text": system}]
    roles = ("user", "assistant")
    said["messages"] = [
        {"role": roles[at % 2], "content": [block]} for at, block in enumerate(blocks)
    ]  # fmt: skip
    return json.dumps(said).encode()


class Sent(NamedTuple):
    """What went to the service, and what came of it."""

    body: bytes
    model: str
    decisions: Sequence[Decision]
    call: Call
    settled: Settled
    billed: Vector | None
    applied: Applied

    @property
    def marks(self) -> list[str]:
        """Lifetimes of the cache points, in order."""
        prompt = prompt_of(json.loads(self.body), marked=True, automatic=False)
        return [ttl for _, ttl in prompt.marks]

    @property
    def said(self) -> str:
        return " | ".join(each.reason for each in self.decisions)


@dataclass
class Cloud:
    """Calls one after another, billed as the emulator bills: unless what is written cannot be read (`reads` is false),
    or cache points are ignored.
    """

    live: Live
    cache: Cache = field(default_factory=Cache)
    reads: bool = True
    ignores: bool = False
    hour_as_five: bool = False
    attempts: int = 1  # at each call: all but the last are throttled
    total: Vector = Vector()  # noqa: RUF009 - a tuple

    def send(
        self, body: bytes, *, model: str = MODEL, status: int = 200, wait_s: int = 0, app: str = "support", **who: Any
    ) -> Sent:  # fmt: skip
        self.clock.now_us += wait_s * SECOND
        path = f"/model/{model}/invoke"
        asked_for = route("POST", path)
        assert asked_for is not None
        asked = ask(asked_for, body, {})
        caller = Who(region="eu-west-1", **who)
        done = apply(self.live, caller, asked_for, asked, body, {"app": app}, no_batch="no batches here")
        called = done.model or model
        asked = asked._replace(model=called)

        def begin() -> Call:
            begun = self.live.begin(caller, asked_for, asked, done.body, done.decisions, flight=done.flight)
            assert isinstance(begun, Call)
            return begun

        for _ in range(self.attempts - 1):
            self.live.settle(begin(), _answer(429, None))
        call = begin()
        billed = self.bill(called, done.body) if status == 200 else None
        settled = self.live.settle(call, _answer(status, billed))
        return Sent(done.body, called, done.decisions, call, settled, billed, done)

    @property
    def clock(self) -> "Clock":
        clock = self.live.clock_us
        assert isinstance(clock, Clock)
        return clock

    def bill(self, model: str, body: bytes) -> Vector:
        prompt = prompt_of(json.loads(body), marked=True, automatic=False)
        if self.ignores:
            prompt = prompt._replace(blocks=[block._replace(mark="") for block in prompt.blocks])
        cache = self.cache if self.reads else Cache()
        billed = cache.bill(model, self.clock(), prompt, MINIMUM, 0, hour_as_five=self.hour_as_five)
        self.total = Vector(*(a + b for a, b in zip(self.total, billed, strict=True)))
        return billed._replace(output=20)


def _answer(status: int, billed: Vector | None) -> Answer:
    if billed is None:
        return Answer(status, error="ThrottlingException")
    usage = {
        "input_tokens": billed.input,
        "output_tokens": billed.output,
        "cache_read_input_tokens": billed.cache_read,
        "cache_creation_input_tokens": billed.cache_write_5m + billed.cache_write_1h,
        "cache_creation": {
            "ephemeral_5m_input_tokens": billed.cache_write_5m,
            "ephemeral_1h_input_tokens": billed.cache_write_1h,
        },
    }
    return Answer(200, usage, final=True)


@dataclass
class Clock:
    """A time that stands still until it is moved."""

    now_us: int = NOON

    def __call__(self) -> int:
        return self.now_us


def cloud(folder: Path, policy: str, **how: Any) -> Cloud:
    """With a policy file in a folder, and the autopilot compiled."""
    file = folder / "farthing-policy.toml"
    file.write_text(policy)
    live = Live(BOOK, Outbox(folder / "outbox", fsync="os", name="test"), policy=file, clock_us=Clock())
    live.autopilots.warmth.wait()
    return Cloud(live, **how)
