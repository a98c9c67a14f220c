"""What the emulator knows and does with a call: take it, bill its prompt, answer, and write down what it was.

A call is billed when it is settled: at once if its answer is one piece, else when its stream has ended, by the tokens
said until then. A client that goes away is billed the prompt and what was said when it went.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from farthing.book import Book
from farthing.emulator._answers import Said, say
from farthing.emulator._cache import Cache
from farthing.emulator._clock import Clock, moment, us_of
from farthing.emulator._cur import Bills
from farthing.emulator._errors import Refused
from farthing.emulator._faults import Failing, Faults
from farthing.emulator._logs import Logs
from farthing.emulator._models import DIRECT, MANTLE, RUNTIME, Called, Models, minimum
from farthing.emulator._moments import day
from farthing.emulator._prompt import Prompt, prompt_of
from farthing.emulator._rates import rates
from farthing.meters import METERS, Vector
from farthing.wire import Route

MOST_CALLS = 100_000  # kept for /_farthing/calls, as JSON; totals are of all
AT_HEADER = "x-farthing-at"
_json = msgspec.json.Encoder().encode
_SIGNED = re.compile(r"Credential=([^/,\s]{1,128})/\d{8}/([a-z0-9-]+)/")


class Identity(NamedTuple):
    """Who an access key belongs to. Signatures are checked where its secret is told."""

    account: str
    arn: str
    secret: str = ""


class Caller(NamedTuple):
    account: str
    arn: str
    region: str
    auth: str  # how it said who it is: sigv4, bearer, key, none
    secret: str = ""  # with which it must have signed


@dataclass(slots=True)
class Call:
    """A call under way. `prompt` has no output yet; `said` is the whole answer."""

    at_us: int
    began_ns: int
    request_id: str
    message_id: str
    route: Route
    called: Called
    caller: Caller
    door: str
    mode: str
    streamed: bool
    metadata: dict[str, Any]
    raw: bytes
    prompt: Vector
    said: Said
    over: int = 0  # the length of prompt from which its rates hold

    def tokens(self, output: int | None = None) -> Vector:
        return self.prompt._replace(output=self.said.tokens if output is None else output)

    @property
    def elapsed_ms(self) -> int:
        return (time.monotonic_ns() - self.began_ns) // 1_000_000


@dataclass
class World:
    """One emulator. Nothing in it is shared with another."""

    book: Book
    clock: Clock = field(default_factory=Clock)
    account: str = "111122223333"
    region: str = "us-east-1"
    output_tokens: int = 0
    logs: Logs = field(default_factory=Logs)
    bills: Bills = field(default_factory=Bills)
    cache: Cache = field(default_factory=Cache)
    failing: Failing = field(default_factory=lambda: Failing(Faults()))
    identities: dict[str, Identity] = field(default_factory=dict)
    seed: bytes = field(default_factory=lambda: os.urandom(16))
    calls: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=MOST_CALLS))

    def __post_init__(self) -> None:
        self.models = Models(self.book)
        self.billed = 0
        self.errors: dict[str, int] = {}
        self.sums = [0] * len(METERS)
        self._numbers = itertools.count(1)

    @property
    def number(self) -> int:
        """Another one each time."""
        return next(self._numbers)

    def new_ids(self) -> tuple[str, str]:
        """A request id in the form of a UUID, and 24 characters for other ids. They differ from run to run."""
        digest = blake2b(self.number.to_bytes(8, "big"), key=self.seed, digest_size=16).hexdigest()
        return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}-{digest[20:]}", digest[:24]

    # --- who and when ------------------------------------------------------------------------------------------------

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """By the access key of a signature, which is believed. Secrets are never kept."""
        said = headers.get("authorization", "")
        signed = _SIGNED.search(said)
        if signed:
            key, region = signed[1], signed[2]
            known = self.identities.get(key)
            if known:
                return Caller(known.account, known.arn, region, "sigv4", known.secret)
            return Caller(self.account, f"arn:aws:iam::{self.account}:user/{key}", region, "sigv4")
        auth = "bearer" if said else "key" if "x-api-key" in headers else "none"
        return Caller(self.account, f"arn:aws:iam::{self.account}:user/emulated", self.region, auth)

    def at_us(self, headers: Mapping[str, str]) -> int:
        """The clock, or the moment that the call says it is made at."""
        told = headers.get(AT_HEADER)
        if told is None:
            return self.clock.now_us()
        try:
            return us_of(moment(told))
        except ValueError as error:
            raise Refused("invalid", f"{AT_HEADER}: {error}") from error

    # --- a call ------------------------------------------------------------------------------------------------------

    def take(
        self,
        route: Route,
        model: str,
        body: Mapping[str, Any],
        raw: bytes,
        caller: Caller,
        at_us: int,
        *,
        streamed: bool = False,
        mode: str = "on_demand",
        metadata: Mapping[str, Any] | None = None,
    ) -> Call:
        """A request in Anthropic's form, billed for its prompt. Refused where the service would."""
        began_ns = time.monotonic_ns()
        door = RUNTIME if route.dialect == "bedrock" else MANTLE if route.mantle else DIRECT
        called = self.models.called(model, door, caller.region)
        caller = caller._replace(
            region=called.region or caller.region, account=called.account or caller.account
        )
        marked = b"cache_control" in raw or b"cachePoint" in raw
        prompt = prompt_of(body, marked=marked, automatic=door != RUNTIME)
        limit = int(called.model.data.get("context_tokens", 200_000))
        if prompt.tokens > limit:
            raise Refused("invalid", f"prompt is too long: {prompt.tokens} tokens > {limit} maximum")
        _check_thinking(body)
        tokens, over = self._bill(called, caller, door, mode, prompt, at_us)
        request_id, other = self.new_ids()
        prefix = "msg_" if door == DIRECT else "msg_bdrk_"
        return Call(
            at_us, began_ns, request_id, prefix + other, route, called, caller, door, mode, streamed,
            dict(metadata or {}), raw, tokens, say(body, raw, self.output_tokens), over,
        )  # fmt: skip

    def offered(self, called: Called, region: str, mode: str, at_us: int) -> bool:
        """Whether Bedrock sells the model so."""
        return bool(rates(called.model.id, called.endpoint, mode, region, day(at_us)))

    def _bill(
        self, called: Called, caller: Caller, door: str, mode: str, prompt: Prompt, at_us: int
    ) -> tuple[Vector, int]:
        """The prompt by meter, and from which length on its rates hold."""
        faults = self.failing.faults
        platform = "anthropic" if door == DIRECT else "bedrock"
        cached, hour, over = True, True, 0
        if door != DIRECT:
            held = rates(called.model.id, called.endpoint, mode, caller.region, day(at_us))
            if not held:
                raise Refused(
                    "invalid", f"{called.id} is not offered in mode {mode} in {caller.region} on that day."
                )
            cached, hour = "cache_read" in held[0].usd, "cache_write_1h" in held[0].usd
            over = next((one.over for one in reversed(held) if prompt.tokens > one.over), 0)
        if not cached:
            return Vector(prompt.tokens), over
        space = f"{caller.account}/{caller.region}/{door}/{called.routing}/{called.model.id}"
        delay_us = faults.first_token_ms * 1000 * self.clock.speed
        tokens = self.cache.bill(
            space,
            at_us,
            prompt,
            minimum(called.model, platform, at_us),
            delay_us,
            hour_as_five=faults.downgrade_1h or not hour,
        )
        return tokens, over

    def settle(self, call: Call, output: int | None = None, status: str = "", answer: Any = None) -> None:
        """Bill the call: the tokens said, all of them if `output` is None. `answer` is what the log keeps of it."""
        tokens = call.tokens(output)
        for at, count in enumerate(tokens):
            self.sums[at] += count
        self.billed += 1
        self._note(call.route.operation, call.caller, call.called.id, call.at_us, call.request_id, status, {
            "message_id": call.message_id, "model": call.called.model.id, "door": call.door, "mode": call.mode,
            "streamed": call.streamed, "metadata": call.metadata, "tokens": tokens._asdict(),
        })  # fmt: skip
        if call.door != DIRECT:
            self.bills.add(call, tokens)
        if call.door == RUNTIME and call.mode == "on_demand":
            self.logs.add(call, tokens, answer)

    def refuse(
        self,
        route: Route,
        model: str,
        caller: Caller,
        at_us: int,
        refused: Refused,
        raw: bytes,
        metadata: Any,
    ) -> str:
        """Write down a call that was not taken; its request id."""
        request_id, other = self.new_ids()
        if route.dialect == "anthropic" and not route.mantle:
            request_id = f"req_{other}"
        code = refused.code(route)
        self.errors[code] = self.errors.get(code, 0) + 1
        self._note(route.operation, caller, model, at_us, request_id, code, {"metadata": metadata})
        if route.dialect == "bedrock" and route.billed:
            self.logs.add_error(route, model, caller, at_us, request_id, code, raw, metadata)
        return request_id

    def _note(
        self,
        operation: str,
        caller: Caller,
        model_id: str,
        at_us: int,
        request_id: str,
        status: str,
        more: Any,
    ) -> None:
        n = self.number
        told = {
            "n": n, "at_us": at_us, "operation": operation, "request_id": request_id, "status": status,
            "model_id": model_id, "account": caller.account, "region": caller.region, "principal": caller.arn,
            "auth": caller.auth, **more,
        }  # fmt: skip
        self.calls.append((n, _json(told)))

    # --- what is told ------------------------------------------------------------------------------------------------

    def calls_since(self, n: int, most: int) -> list[tuple[int, bytes]]:
        """The emulator's own log: calls after number n as JSON, those that were refused too."""
        return list(itertools.islice((call for call in self.calls if call[0] > n), most))

    def totals(self) -> dict[str, Any]:
        """Of all calls since it began."""
        tokens = dict(zip(METERS, self.sums, strict=True))
        return {
            "billed": self.billed,
            "errors": self.errors,
            "tokens": tokens,
            "cached_prefixes": len(self.cache),
        }


def _check_thinking(body: Mapping[str, Any]) -> None:
    thinking, most = body.get("thinking"), body.get("max_tokens")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if isinstance(budget, int) and budget < 1_024:
        raise Refused(
            "invalid", "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
        )
    if isinstance(budget, int) and isinstance(most, int) and most <= budget:
        raise Refused("invalid", "`max_tokens` must be greater than `thinking.budget_tokens`.")
