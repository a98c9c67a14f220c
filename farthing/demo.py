"""A made-up company's month of Bedrock model invocation logs, in the format and layout that AWS leaves in S3.

Every number comes from a seed, so the same arguments write the same bytes. Each lever has something to find:

    model tier   legal-legacy on 3.5 Sonnet (extended-access price in us-east-1, not in Tokyo), product-copy
                 on Opus 4.1, ticket triage with one-word answers on Opus 4.8
    caching      search-rag sends the same 9,000 tokens with every question and never marks them
    batch        doc-nightly works from 01:00 to 04:00 UTC, when nobody waits for the answers
    endpoint     support-chat, coding-agents and others call `us.` where `global.` is a tenth cheaper

and an importer meets what real logs hold: four operations and their bodies, opaque application profiles,
failed and guardrail-stopped calls, bodies moved to /data/, an account that logs no bodies at all. Cached
traffic obeys the billing rules (CACHING.md 2): a read follows a write or a read within the TTL.

There are no prompts. Text is filler, one letter for 48 tokens, so lengths keep their proportions and what is
repeated in the tokens is repeated in the text. Only the growing context of an agent's session is left out.
"""

from __future__ import annotations

import calendar
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import astuple, dataclass
from datetime import date
from functools import partial
from itertools import accumulate, pairwise
from math import exp
from multiprocessing import get_context
from operator import add, itemgetter
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
from isal import igzip

INVOKE, INVOKE_STREAM = "InvokeModel", "InvokeModelWithResponseStream"
CONVERSE, CONVERSE_STREAM = "Converse", "ConverseStream"
FAILURES = ("ThrottlingException", "ValidationException", "ModelTimeoutException")
GUARDRAIL = "guardrail_intervened"
PROD, DATA, LABS = "111122223333", "444455556666", "777788889999"  # account ids of the AWS documentation
BUCKET = "example-bedrock-logs"

DAY_S, HOUR_S = 86_400, 3_600
TTL_S = {"5m": 300, "1h": 3_600}
CONTEXT_LIMIT = 190_000  # tokens; the smallest window of the models below is 200,000
COMPACT_AT, COMPACTED = 150_000, 9_000  # an agent's context is summed up at the first, to the second
BODY_LIMIT_INPUT, BODY_LIMIT_OUTPUT = 100_000, 8_000  # tokens; beyond these a body is moved to /data/
POOL_WORTHWHILE = 20_000  # calls; fewer are written before a second process has started
OBJECT_HOURS = {(PROD, "ap-northeast-1"): 6, (LABS, "us-east-1"): 6}  # quiet places deliver less often

_encode = msgspec.json.Encoder().encode


# --- the company ---------------------------------------------------------------------------------

# Families, eldest first, with release dates (rates.json); each name follows `anthropic.claude-`.
# fmt: off
FAMILIES = (
    {"3-5-sonnet-20241022-v2:0": "2024-10-22", "sonnet-4-20250514-v1:0": "2025-05-22",
     "sonnet-4-5-20250929-v1:0": "2025-09-29", "sonnet-4-6": "2026-02-17", "sonnet-5": "2026-06-30",
     "sonnet-5-5": "2026-09-28"},
    {"opus-4-1-20250805-v1:0": "2025-08-05", "opus-4-5-20251101-v1:0": "2025-11-24",
     "opus-4-6-v1": "2026-02-05", "opus-4-7": "2026-04-16", "opus-4-8": "2026-05-28", "opus-5": "2026-07-24",
     "opus-5-5": "2026-09-22"},
    {"haiku-4-5-20251001-v1:0": "2025-10-15", "haiku-5-5": "2026-10-07"},
)
# fmt: on


def model_on(name: str, day: str) -> str:
    """The id of the model once it is released; until then the newest of its elders, or the eldest.

    >>> model_on("haiku-5-5", "2026-10-06"), model_on("haiku-5-5", "2026-10-07")
    ('anthropic.claude-haiku-4-5-20251001-v1:0', 'anthropic.claude-haiku-5-5')
    """
    family = next(family for family in FAMILIES if name in family)
    elders = list(family)[: list(family).index(name) + 1]
    released = [elder for elder in elders if family[elder] <= day]
    return f"anthropic.claude-{(released or elders[:1])[-1]}"


def hours_around(peak: float, width: float, floor: float = 0.02) -> list[float]:
    """A weight for each UTC hour: a bell around the peak, and a few calls at any time."""
    return [floor + exp(-(((hour - peak + 12) % 24 - 12) ** 2) / (2 * width**2)) for hour in range(24)]


US_SHOPPERS, US_OFFICE = hours_around(20, 4.5, 0.06), hours_around(18.5, 3)
EU_OFFICE, JP_OFFICE = hours_around(10.5, 3), hours_around(4, 3)
NIGHT = [float(1 <= hour < 4) for hour in range(24)]
SHOP_WEEK = (1, 0.97, 0.98, 1, 1.06, 0.85, 0.78)  # Monday first
OFFICE_WEEK = (0.97, 1.05, 1.06, 1.02, 0.9, 0.1, 0.07)
EVERY_NIGHT = (0.8, 1, 1, 1, 1, 0.9, 0.6)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """One kind of traffic: who sends it, from where, to which model, when and how much."""

    share: float  # of all calls, in percent or so
    team: str = ""  # untagged where empty
    app: str = ""
    account: str
    region: str
    model: str
    route: str = ""  # system profile prefix, or "" for a call in the region
    arn: str = ""  # `inference-profile`, or the id of the application profile that hides the model
    operations: tuple[str, ...]
    hours: list[float]
    week: tuple[float, ...] = OFFICE_WEEK
    prefix: int = 0  # tokens of the system prompt and tools, the same in every call
    cached: str = ""  # TTL of the prefix, where it is marked
    fresh: tuple[float, float] = (500, 0.6)  # median and log-sigma of the tokens that are new
    output: tuple[float, float] = (250, 0.6)
    turns: int = 0  # mean length of a session whose context grows and is cached; 0 for single calls
    long_share: float = 0  # share of the sessions that cache for 1h
    text: bool = True  # whether the account-region logs bodies
    cache_fields: bool = True  # old models report no cache counts
    failures: float = 0.0055

    @property
    def model_id(self) -> str:
        """How the log writes the model; the base id goes in at {base}."""
        profile = f"{self.route}.{{base}}" if self.route else "{base}"
        arn = f"arn:aws:bedrock:{self.region}:{self.account}:"
        if self.arn == "inference-profile":
            return f"{arn}inference-profile/{profile}"
        return f"{arn}application-inference-profile/{self.arn}" if self.arn else profile

    def callers(self) -> list[str]:
        """The identities it calls under: developers, IAM users, or the pods of a service."""
        if not self.team:
            return [f"arn:aws:iam::{self.account}:user/research-{number}" for number in range(1, 4)]
        session = "dev{:02}@example.com" if self.turns else f"{self.app}-pod-{{}}"
        names = [session.format(number) for number in range(1, 38 if self.turns else 6)]
        return [f"arn:aws:sts::{self.account}:assumed-role/{self.team}/{name}" for name in names]


# fmt: off
shop = partial(Workload, team="support-chat", account=PROD, week=SHOP_WEEK)
code = partial(Workload, team="coding-agents", app="agent", account=LABS, region="us-west-2", route="us",
               operations=(INVOKE_STREAM,), hours=hours_around(19, 3.5), prefix=17_000, turns=30)
legal = partial(Workload, team="legal-legacy", app="clauses", account=PROD, model="3-5-sonnet-20241022-v2:0",
                operations=(INVOKE,), prefix=600, fresh=(3_200, 0.6), output=(480, 0.5), cache_fields=False)
extract = partial(Workload, team="data-extract", account=DATA, region="us-west-2", operations=(INVOKE,),
                  hours=hours_around(14, 5, 0.1), week=SHOP_WEEK)
study = partial(Workload, team="analytics", account=DATA, region="us-east-1", route="us", hours=US_OFFICE)
copy = partial(Workload, team="product-copy", account=PROD, region="us-east-1", route="us", hours=US_OFFICE,
               arn="inference-profile")
labs = partial(Workload, account=LABS, region="us-east-1", route="us", hours=US_OFFICE, text=False)

WORKLOADS = [
    shop(share=26, app="web", region="us-east-1", model="sonnet-4-6", route="us", hours=US_SHOPPERS,
         operations=(CONVERSE, CONVERSE_STREAM), prefix=2_900, cached="5m", fresh=(420, 0.6),
         output=(210, 0.5)),
    shop(share=3, app="web-jp", region="ap-northeast-1", model="sonnet-4-6", route="jp", hours=JP_OFFICE,
         operations=(CONVERSE_STREAM,), prefix=2_900, cached="5m", fresh=(480, 0.6), output=(230, 0.5)),
    shop(share=3, app="triage", region="us-east-1", model="opus-4-8", route="us", hours=US_SHOPPERS,
         operations=(CONVERSE,), prefix=700, fresh=(260, 0.5), output=(9, 0.3)),
    Workload(share=20, team="search-rag", app="answers", account=PROD, region="us-east-1",
             model="haiku-4-5-20251001-v1:0", route="global", operations=(CONVERSE, CONVERSE_STREAM),
             hours=US_SHOPPERS, week=SHOP_WEEK, prefix=9_000, fresh=(800, 0.5), output=(260, 0.5)),
    code(share=12, model="opus-5-5", fresh=(900, 1.0), output=(330, 0.9), long_share=0.3),
    code(share=10, model="sonnet-5-5", fresh=(800, 1.0), output=(300, 0.9), long_share=0.2),
    Workload(share=9, team="doc-nightly", app="summaries", account=DATA, region="us-west-2",
             model="sonnet-4-6", route="us", operations=(CONVERSE,), hours=NIGHT, week=EVERY_NIGHT,
             prefix=900, fresh=(7_500, 0.5), output=(650, 0.4), failures=0.02),
    legal(share=2.5, region="us-east-1", hours=US_OFFICE),
    legal(share=1.5, region="ap-northeast-1", hours=JP_OFFICE),
    extract(share=7, app="invoices", model="haiku-5-5", route="global", prefix=1_200, fresh=(24_000, 0.95),
            output=(350, 0.5)),
    extract(share=3, app="contracts", model="sonnet-5", route="us", prefix=1_500, fresh=(6_000, 0.7),
            output=(700, 0.5)),
    study(share=3.5, app="sql-helper", model="sonnet-4-6", arn="q7x2m4vd91ab", operations=(INVOKE, CONVERSE),
          prefix=1_900, cached="5m", fresh=(700, 0.7)),
    study(share=0.4, app="charts", model="haiku-4-5-20251001-v1:0", arn="k3w8tz5rn0ce",
          operations=(CONVERSE,)),
    copy(share=1.5, app="catalogue", model="opus-4-1-20250805-v1:0", operations=(INVOKE,), prefix=500,
         fresh=(900, 0.4), output=(520, 0.4)),
    copy(share=2, app="newsletter", model="sonnet-4-5-20250929-v1:0", operations=(INVOKE, INVOKE_STREAM),
         prefix=800, fresh=(1_100, 0.5), output=(800, 0.5)),
    Workload(share=4, team="eu-claims", app="intake", account=PROD, region="eu-central-1",
             model="sonnet-4-6", route="eu", operations=(CONVERSE,), hours=EU_OFFICE, prefix=3_600,
             cached="1h", fresh=(1_500, 0.7)),
    labs(share=1.2, model="opus-5", operations=(INVOKE, CONVERSE), prefix=5_000, fresh=(1_200, 0.8),
         output=(700, 0.7), turns=8, long_share=0.5),
    labs(share=0.4, model="haiku-4-5-20251001-v1:0", operations=(CONVERSE,), fresh=(900, 1.0)),
]
# fmt: on

SERVED_BY = {
    "us": ("us-east-1", "us-east-2", "us-west-2"),
    "eu": ("eu-central-1", "eu-north-1", "eu-west-1", "eu-west-3"),
    "jp": ("ap-northeast-1", "ap-northeast-3"),
    "global": ("us-east-1", "us-east-2", "us-west-2", "eu-west-1", "ap-southeast-2", "ap-northeast-1"),
}


# --- calls ---------------------------------------------------------------------------------------


class Call(NamedTuple):
    """What was asked and what it used. The token counts are disjoint; a failed call used nothing."""

    second: int  # of the day
    caller: str
    session: str = ""
    failure: str = ""  # an errorCode, or GUARDRAIL
    fresh: int = 0
    output: int = 0
    read: int = 0
    short: int = 0  # written to the cache for 5m
    long: int = 0  # written for 1h


def draw(random: Random, size: tuple[float, float]) -> int:
    """A log-normal size of at least one token."""
    return max(1, int(size[0] * exp(size[1] * random.gauss())))


def fail(work: Workload, random: Random) -> str:
    """Why a call failed, or "" for nearly all."""
    chance = random.random()
    if chance < work.failures:
        return random.choices(FAILURES, (75, 20, 5))[0]
    return GUARDRAIL if work.team == "support-chat" and chance > 0.997 else ""


def moments(work: Workload, count: int, random: Random) -> list[int]:
    """Seconds of the day, early ones first."""
    hours = random.choices(range(24), work.hours, k=count)
    return sorted(hour * HOUR_S + int(random.random() * HOUR_S) for hour in hours)


def single_calls(work: Workload, count: int, random: Random) -> Iterator[Call]:
    """Calls that have nothing but the prefix in common."""
    callers, marked, warm_until = work.callers(), work.prefix if work.cached else 0, 0
    for second in moments(work, count, random):
        caller = callers[int(random.random() * len(callers))]
        if failed := fail(work, random):
            yield Call(second, caller, failure=failed)
            continue
        fresh = work.prefix - marked + min(draw(random, work.fresh), CONTEXT_LIMIT)
        read = marked if second < warm_until else 0
        long = marked - read if work.cached == "1h" else 0
        yield Call(second, caller, "", "", fresh, draw(random, work.output), read, marked - read - long, long)
        warm_until = second + TTL_S.get(work.cached, 0)


def sessions(work: Workload, count: int, random: Random) -> Iterator[Call]:
    """Sessions, each with a context and a cache of its own, until `count` calls are made."""
    callers = work.callers()
    while count > 0:
        caller, name = random.choice(callers), f"{random.getrandbits(48):012x}"
        long = random.random() < work.long_share
        turns = min(count, 1 + int(random.expovariate(1 / work.turns)))
        for call in session(work, turns, long, random):
            yield call._replace(caller=caller, session=name)
            count -= 1


def session(work: Workload, turns: int, long: bool, random: Random) -> Iterator[Call]:
    """Up to `turns` calls, none past midnight. What is new in a turn is written, what was there is read."""
    [second] = moments(work, 1, random)
    ttl = TTL_S["1h" if long else "5m"]
    context, cached, warm_until = work.prefix, 0, 0
    for _ in range(turns):
        if second >= DAY_S:
            return
        if failed := fail(work, random):
            yield Call(second, "", failure=failed)
            second += random.randrange(2, 30)
            continue
        fresh, output = random.randrange(1, 12), draw(random, work.output)
        read = cached if second < warm_until else 0
        context += min(draw(random, work.fresh), 40_000)
        written = context - read
        yield Call(second, "", "", "", fresh, output, read, 0 if long else written, written if long else 0)
        cached, warm_until = context, second + ttl
        context += fresh + output
        if context > COMPACT_AT:
            context, cached = work.prefix + COMPACTED, work.prefix
        second += pause(random)


def pause(random: Random) -> int:
    """Seconds to an agent's next call: a tool at work, a person reading, now and then a meeting."""
    median, sigma = random.choices(((9, 0.8), (110, 1.0), (1_500, 1.0)), (86, 12, 2))[0]
    return 3 + draw(random, (median, sigma))


# --- records -------------------------------------------------------------------------------------

LOREM = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut " * 45


def filler(tokens: int, opening: str) -> str:
    """Text for so many tokens, at least 8 letters; the opening is part of it and tells it from others."""
    return f"{opening} {LOREM}"[: max(tokens // 48, 8)]


def request_body(work: Workload, operation: str, call: Call, request: str) -> dict[str, Any]:
    alone = not (call.read or call.short or call.long)  # the prefix is then counted with what is new
    system = filler(work.prefix, f"{work.app} {call.session}".strip())
    asked = filler(call.fresh - work.prefix * alone, request[:8])
    ttl = "1h" if call.long or work.cached == "1h" else "5m"
    marked = bool(work.cached or work.turns)
    if operation in (CONVERSE, CONVERSE_STREAM):
        point = [{"cachePoint": {"type": "default", "ttl": ttl}}] if marked else []
        return {
            "messages": [{"role": "user", "content": [{"text": asked}, *(point if work.turns else [])]}],
            "system": [{"text": system}, *point],
            "inferenceConfig": {"maxTokens": 2048, "temperature": 0.2},
        }
    mark = {"cache_control": {"type": "ephemeral", "ttl": ttl}} if marked else {}
    last = mark if work.turns else {}
    return {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 8192,
        "system": [{"type": "text", "text": system} | mark],
        "messages": [{"role": "user", "content": [{"type": "text", "text": asked} | last]}],
    }


def converse_body(work: Workload, call: Call, request: str) -> dict[str, Any]:
    written = call.short + call.long
    usage: dict[str, Any] = {
        "inputTokens": call.fresh,
        "outputTokens": call.output,
        "totalTokens": call.fresh + call.output + call.read + written,
    }
    if work.cache_fields:
        told = (("1h", call.long), ("5m", call.short))
        usage |= {
            "cacheReadInputTokens": call.read,
            "cacheWriteInputTokens": written,
            "cacheReadInputTokenCount": call.read,
            "cacheWriteInputTokenCount": written,
            "cacheDetails": [{"ttl": ttl, "inputTokens": tokens} for ttl, tokens in told if tokens],
            "serverToolUsage": {},
        }
    text = "Sorry, I cannot help with that." if call.failure else filler(call.output, request[-8:])
    body = {
        "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
        "stopReason": call.failure or "end_turn",
        "metrics": {"latencyMs": latency_ms(call, call.output)},
        "usage": usage,
    }
    if call.failure:
        units = {"topicPolicyUnits": 1, "contentPolicyUnits": 1, "sensitiveInformationPolicyUnits": 1}
        found = {"invocationMetrics": {"guardrailProcessingLatency": 211, "usage": units}}
        body["trace"] = {"guardrail": {"inputAssessment": {"gr4k2m7pq1xz": found}}}
    return body


def anthropic_usage(work: Workload, call: Call, output: int) -> dict[str, Any]:
    if not work.cache_fields:
        return {"input_tokens": call.fresh, "output_tokens": output}
    return {
        "input_tokens": call.fresh,
        "cache_creation_input_tokens": call.short + call.long,
        "cache_read_input_tokens": call.read,
        "cache_creation": {"ephemeral_5m_input_tokens": call.short, "ephemeral_1h_input_tokens": call.long},
        "output_tokens": output,
    }


def message(base: str, request: str, content: list[Any], usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": re.sub(r"-v\d(:\d+)?$", "", base.removeprefix("anthropic.")),
        "id": f"msg_bdrk_01{request.replace('-', '')[:22]}",
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": "end_turn" if content else None,
        "stop_sequence": None,
        "usage": usage,
    }


def stream_events(work: Workload, base: str, call: Call, request: str) -> list[Any]:
    """The stream as the log keeps it: the output is a placeholder in `message_start`, and true later."""
    start = message(base, request, [], anthropic_usage(work, call, 1))
    text = filler(call.output, request[-8:])
    metrics = {
        "inputTokenCount": call.fresh,
        "outputTokenCount": call.output,
        "invocationLatency": latency_ms(call, call.output),
        "firstByteLatency": latency_ms(call, 0),
        "cacheReadInputTokenCount": call.read,
        "cacheWriteInputTokenCount": call.short + call.long,
    }
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    events: list[Any] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": {"output_tokens": call.output}},
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics},
    ]
    return [*events, "[DONE]"] if request.startswith("00") else events


def latency_ms(call: Call, output: int) -> int:
    """Milliseconds to read the prompt and say `output` tokens, cached ones read ten times faster."""
    return 380 + (call.fresh + call.short + call.long) // 60 + call.read // 600 + 13 * output


def response_body(work: Workload, base: str, operation: str, call: Call, request: str) -> Any:
    if operation in (CONVERSE, CONVERSE_STREAM):
        return converse_body(work, call, request)
    if operation == INVOKE_STREAM:
        return stream_events(work, base, call, request)
    content = [{"type": "text", "text": filler(call.output, request[-8:])}]
    return message(base, request, content, anthropic_usage(work, call, call.output))


def record(work: Workload, base: str, day: date, call: Call, random: Random) -> dict[str, Any]:
    """The log line of a call, with both bodies in it. A failed call has neither counts nor an answer."""
    digits = f"{random.getrandbits(128):032x}"
    request = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
    operation = work.operations[int(random.random() * len(work.operations))]
    minute, second = divmod(call.second, 60)
    asked: dict[str, Any] = {"inputContentType": "application/json"}
    line: dict[str, Any] = {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": f"{day}T{minute // 60:02}:{minute % 60:02}:{second:02}Z",
        "accountId": work.account,
        "identity": {"arn": call.caller},
        "region": work.region,
        "requestId": request,
        "operation": operation,
        "modelId": work.model_id.format(base=base),
    }
    if work.text:
        asked["inputBodyJson"] = request_body(work, operation, call, request)
    if call.failure not in ("", GUARDRAIL):
        line |= {"errorCode": call.failure, "input": asked}
    else:
        answer: dict[str, Any] = {"outputContentType": "application/json"}
        if work.text:
            answer["outputBodyJson"] = response_body(work, base, operation, call, request)
        asked["inputTokenCount"] = call.fresh
        if work.cache_fields:
            asked["cacheReadInputTokenCount"] = call.read
            asked["cacheWriteInputTokenCount"] = call.short + call.long
        answer["outputTokenCount"] = call.output
        line |= {"input": asked, "output": answer}
        if work.route and random.random() < 0.92:
            line["inferenceRegion"] = random.choice(SERVED_BY[work.route])
    if work.team:
        line["requestMetadata"] = {"team": work.team, "app": work.app}
        if call.session:
            line["requestMetadata"]["session"] = call.session
    return line


def move_bodies(line: dict[str, Any], call: Call, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Take large bodies out of the line, leaving their addresses: the key and bytes of each."""
    sides = (("input", call.fresh, BODY_LIMIT_INPUT), ("output", call.output, BODY_LIMIT_OUTPUT))
    for side, tokens, limit in sides:
        if tokens > limit and f"{side}BodyJson" in line[side]:
            key = f"{prefix}/data/{line['requestId']}_{side}.json.gz"
            yield key, _encode(line[side].pop(f"{side}BodyJson"))
            line[side][f"{side}BodyS3Path"] = f"s3://{BUCKET}/{key}"


# --- files ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Summary:
    """What was written: all objects, and the records' bytes before compression, without moved bodies."""

    files: int = 0
    records: int = 0
    errors: int = 0
    uncompressed_bytes: int = 0

    def __add__(self, other: Summary) -> Summary:
        return Summary(*map(add, astuple(self), astuple(other)))


class Task(NamedTuple):
    """A day to write: `counts` has the calls of each workload."""

    folder: Path
    seed: int
    day: date
    counts: list[int]


def hour_prefix(account: str, region: str, day: date, hour: int) -> str:
    return f"AWSLogs/{account}/BedrockModelInvocationLogs/{region}/{day:%Y/%m/%d}/{hour:02}"


def put(folder: Path, key: str, content: bytes) -> None:
    """Write an object under its key, gzipped where the key says so, with no date of its own."""
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(igzip.compress(content, 1, mtime=0) if key.endswith(".gz") else content)


def write_day(task: Task) -> Summary:
    """Write one day. Each workload's day has random numbers of its own, so no other can disturb it."""
    objects: defaultdict[tuple[str, str, int], list[tuple[int, bytes]]] = defaultdict(list)
    errors = moved = 0
    for index, (work, count) in enumerate(zip(WORKLOADS, task.counts, strict=True)):
        random = Random(f"{task.seed} {task.day} {index}")
        base = model_on(work.model, task.day.isoformat())
        span = OBJECT_HOURS.get((work.account, work.region), 1) * HOUR_S
        for call in (sessions if work.turns else single_calls)(work, count, random):
            line = record(work, base, task.day, call, random)
            if "errorCode" in line:
                errors += 1
            elif call.fresh > BODY_LIMIT_INPUT or call.output > BODY_LIMIT_OUTPUT:
                hour = hour_prefix(work.account, work.region, task.day, call.second // HOUR_S)
                for key, body in move_bodies(line, call, hour):
                    put(task.folder, key, body)
                    moved += 1
            objects[work.account, work.region, call.second // span].append((call.second, _encode(line)))
    size = 0
    for (account, region, _), lines in objects.items():
        lines.sort(key=itemgetter(0))
        content = b"\n".join([line for _, line in lines]) + b"\n"
        minute, second = divmod(lines[-1][0], 60)
        digest = hashlib.sha256(lines[0][1]).hexdigest()
        stamp = f"{task.day:%Y%m%d}T{minute // 60:02}{minute % 60:02}{second:02}000Z"
        prefix = hour_prefix(account, region, task.day, minute // 60)
        put(task.folder, f"{prefix}/{stamp}_{digest[:16]}.json.gz", content)
        size += len(content)
    return Summary(len(objects) + moved, sum(map(len, objects.values())), errors, size)


def share_out(calls: int, days: list[date], seed: int) -> list[list[int]]:
    """How many calls each workload makes on each day; they add up to `calls`, even if that is one."""
    random = Random(f"{seed} {days[0]}")
    weights = [
        work.share * work.week[day.weekday()] * random.lognormvariate(0, 0.07)
        for day in days
        for work in WORKLOADS
    ]
    so_far = list(accumulate(weights))
    ends = [0, *(round(calls * weight / so_far[-1]) for weight in so_far)]
    counts = [end - start for start, end in pairwise(ends)]
    return [counts[start : start + len(WORKLOADS)] for start in range(0, len(counts), len(WORKLOADS))]


def days_of(month: str) -> list[date]:
    """Every date of `YYYY-MM`; ValueError if it is no month."""
    if not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", month):
        raise ValueError(f"{month!r} is no month: write it as 2026-10")
    year, number = map(int, month.split("-"))
    return [date(year, number, day + 1) for day in range(calendar.monthrange(year, number)[1])]


def write_logs(
    folder: Path,
    calls: int = 200_000,
    seed: int = 7,
    month: str = "2026-10",
    progress: Callable[[int, int], None] | None = None,
    *,
    processes: int | None = None,
) -> Summary:
    """Write `calls` records, failed ones included, under folder/AWSLogs, which must not be there yet.

    The same arguments write the same bytes, whatever the number of processes. `progress` is told the records
    written so far and their total, once a day of the month. A month too early for a model has its elder; from
    2025-11 on every id is one that Bedrock had then. Processes are started from POOL_WORTHWHILE calls on, so
    a script needs the `if __name__ == "__main__"` of multiprocessing.
    """
    if calls < 1:
        raise ValueError(f"cannot write {calls} calls: at least 1")
    days = days_of(month)
    if (folder / "AWSLogs").exists():
        raise FileExistsError(f"{folder / 'AWSLogs'} exists: choose another folder, or remove it")
    accounts = {work.account for work in WORKLOADS}
    for account in accounts:
        put(folder, f"AWSLogs/{account}/BedrockModelInvocationLogs/amazon-bedrock-logs-permission-check", b"")
    tasks = [Task(folder, seed, *of_day) for of_day in zip(days, share_out(calls, days, seed), strict=True)]
    if processes is None:
        processes = min(os.cpu_count() or 1, 8) if calls >= POOL_WORTHWHILE else 1
    total = Summary(files=len(accounts))
    context = get_context("spawn")  # a fork would copy the threads of whoever calls
    with ProcessPoolExecutor(processes, context) if processes > 1 else nullcontext() as pool:
        for summary in (pool.map if pool else map)(write_day, tasks):
            total += summary
            if progress:
                progress(total.records, calls)
    return total
