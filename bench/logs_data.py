"""Bedrock model invocation logs with real bodies: 2 to 40 kB a record, gzipped objects in the layout of S3.

Four operations, streams logged event by event, agents whose requests carry a whole conversation. The sums of
what was written are kept, so that an import can be checked.
"""

from __future__ import annotations

import gzip
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from bench.made import keep
from bench.text import Filler

SEED = 11
MEAN_BYTES = 20_000  # of a record, about
DAYS, HOURS = 31, 24
PLACES = (("111122223333", "us-east-1"), ("111122223333", "eu-central-1"), ("444455556666", "us-west-2"))
MODELS = (
    "global.anthropic.claude-sonnet-4-6", "us.anthropic.claude-sonnet-4-6", "global.anthropic.claude-opus-5-5",
    "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.anthropic.claude-opus-4-6-v1",
    "us.anthropic.claude-haiku-4-5-20251001-v1:0",
)  # fmt: skip
OPERATIONS = ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream")


def make_logs(folder: Path, size: int) -> dict[str, Any]:
    """About `size` bytes of records before compression, unless they are there."""

    def write(folder: Path) -> dict[str, Any]:
        records = max(1, round(size / MEAN_BYTES / DAYS))
        totals: Counter[str] = Counter()
        with ProcessPoolExecutor(min(os.cpu_count() or 1, 4), get_context("spawn")) as pool:
            for told in pool.map(partial(_day, folder, records), range(DAYS)):
                totals.update(told)
        return dict(totals)

    return keep(folder, Path(__file__).read_text(encoding="utf-8"), write)


def _day(folder: Path, records: int, day: int) -> dict[str, int]:
    """One day's objects: an object an hour and place, as long as there are records for it."""
    random = Random(SEED * 1_000 + day)
    filler = Filler(random)
    objects: dict[tuple[int, int], list[bytes]] = {}
    totals: Counter[str] = Counter()
    for second in sorted(random.randrange(86_400) for _ in range(records)):
        place = random.randrange(len(PLACES))
        line = _record(random, filler, day, second, PLACES[place], totals)
        objects.setdefault((place, second // 3_600), []).append(line)
    for (place, hour), lines in objects.items():
        account, region = PLACES[place]
        content = b"\n".join(lines) + b"\n"
        name = f"202610{day + 1:02}T{hour:02}5959000Z_{random.getrandbits(64):016x}.json.gz"
        path = (
            folder
            / f"AWSLogs/{account}/BedrockModelInvocationLogs/{region}/2026/10/{day + 1:02}/{hour:02}"
            / name
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content, 6, mtime=0))
        totals.update(objects=1, bytes=len(content), compressed=path.stat().st_size)
    return totals


def _record(
    random: Random, filler: Filler, day: int, second: int, place: tuple[str, str], totals: Counter[str]
) -> bytes:
    operation = random.choices(OPERATIONS, (30, 25, 20, 25))[0]
    size = min(40_000, max(2_000, int(random.lognormvariate(9.6, 0.75))))
    counts = {
        "input": random.randrange(3, 9_000),
        "output": random.randrange(5, 1_800),
        "read": random.randrange(60_000) if random.random() < 0.6 else 0,
        "written": random.randrange(4_000) if random.random() < 0.4 else 0,
    }
    totals.update(records=1, **counts)
    digits = f"{random.getrandbits(128):032x}"
    request = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    model = random.choice(MODELS)
    anthropic = operation.startswith("Invoke")
    stamp = f"2026-10-{day + 1:02}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"
    asked = _asked(random, filler, int(size * 0.8), anthropic)
    answer = _answer(filler, operation, request, int(size * 0.2), counts)
    team = random.randrange(25)
    return (
        f'{{"schemaType":"ModelInvocationLog","schemaVersion":"1.0","timestamp":"{stamp}",'
        f'"accountId":"{place[0]}","identity":{{"arn":"arn:aws:sts::{place[0]}:assumed-role/team-{team:02}/pod-'
        f'{random.randrange(8)}"}},"region":"{place[1]}","requestId":"{request}","operation":"{operation}",'
        f'"modelId":"{model}","requestMetadata":{{"team":"team-{team:02}"}},'
        f'"input":{{"inputContentType":"application/json","inputBodyJson":{asked},'
        f'"inputTokenCount":{counts["input"]},"cacheReadInputTokenCount":{counts["read"]},'
        f'"cacheWriteInputTokenCount":{counts["written"]}}},'
        f'"output":{{"outputContentType":"application/json","outputBodyJson":{answer},'
        f'"outputTokenCount":{counts["output"]}}},"inferenceRegion":"{place[1]}"}}'
    ).encode()


def _asked(random: Random, filler: Filler, size: int, anthropic: bool) -> str:
    """A request: a system prompt, then turns of a user, a model that calls tools, and their results."""
    turns: list[str] = []
    left = size - size // 4
    while left > 0:
        length = min(left, random.randrange(200, 5_000))
        left -= length
        text = filler.text(length)
        if anthropic:
            kind = len(turns) % 3
            block = (
                f'{{"type":"text","text":"{text}"}}',
                f'{{"type":"tool_use","id":"toolu_{len(turns):04}","name":"read","input":{{"path":"{text}"}}}}',
                f'{{"type":"tool_result","tool_use_id":"toolu_{len(turns):04}","content":"{text}"}}',
            )[kind]
            role = ("user", "assistant", "user")[kind]
        else:
            block, role = f'{{"text":"{text}"}}', ("user", "assistant")[len(turns) % 2]
        turns.append(f'{{"role":"{role}","content":[{block}]}}')
    system = filler.text(size // 4)
    messages = ",".join(turns)
    if anthropic:
        return (
            f'{{"anthropic_version":"bedrock-2023-05-31","max_tokens":8192,"system":[{{"type":"text",'
            f'"text":"{system}","cache_control":{{"type":"ephemeral"}}}}],"messages":[{messages}]}}'
        )
    return (
        f'{{"messages":[{messages}],"system":[{{"text":"{system}"}},{{"cachePoint":{{"type":"default"}}}}],'
        f'"inferenceConfig":{{"maxTokens":2048}}}}'
    )


def _answer(filler: Filler, operation: str, request: str, size: int, counts: dict[str, int]) -> str:
    """A response body of that operation; a stream has an event for every few words."""
    if operation.startswith("Converse"):
        total = sum(counts.values())
        return (
            f'{{"output":{{"message":{{"role":"assistant","content":[{{"text":"{filler.text(size)}"}}]}}}},'
            f'"stopReason":"end_turn","metrics":{{"latencyMs":4211}},"usage":{{"inputTokens":{counts["input"]},'
            f'"outputTokens":{counts["output"]},"totalTokens":{total},"cacheReadInputTokens":{counts["read"]},'
            f'"cacheWriteInputTokens":{counts["written"]},"cacheDetails":[{{"ttl":"5m","inputTokens":{counts["written"]}}}]}}}}'
        )
    usage = (
        f'"input_tokens":{counts["input"]},"cache_creation_input_tokens":{counts["written"]},'
        f'"cache_read_input_tokens":{counts["read"]},"cache_creation":{{"ephemeral_5m_input_tokens":'
        f'{counts["written"]},"ephemeral_1h_input_tokens":0}}'
    )
    head = (
        f'"id":"msg_bdrk_01{request[:8]}{request[-12:]}","type":"message","role":"assistant","model":"claude"'
    )
    if operation == "InvokeModel":
        return (
            f'{{{head},"content":[{{"type":"text","text":"{filler.text(size)}"}}],"stop_reason":"end_turn",'
            f'"usage":{{{usage},"output_tokens":{counts["output"]}}}}}'
        )
    deltas = ",".join(
        f'{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{filler.text(40)}"}}}}'
        for _ in range(size // 110)
    )
    return (
        f'[{{"type":"message_start","message":{{{head},"content":[],"usage":{{{usage},"output_tokens":1}}}}}},'
        f'{{"type":"content_block_start","index":0,"content_block":{{"type":"text","text":""}}}},{deltas or "{}"},'
        f'{{"type":"content_block_stop","index":0}},{{"type":"message_delta","delta":{{"stop_reason":"end_turn"}},'
        f'"usage":{{"output_tokens":{counts["output"]}}}}},{{"type":"message_stop",'
        f'"amazon-bedrock-invocationMetrics":{{"inputTokenCount":{counts["input"]},"outputTokenCount":'
        f'{counts["output"]},"cacheReadInputTokenCount":{counts["read"]},"cacheWriteInputTokenCount":'
        f'{counts["written"]},"invocationLatency":4211,"firstByteLatency":870}}}}]'
    )
