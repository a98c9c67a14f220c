"""What hooks add to a call in the caller's process: `python bench/hook_work.py CALLS`. Its last line is JSON.

botocore does all that it does, but for the network: an answer is there at once. Clients with and without hooks take
turns, call by call, and the median of each pair's difference counts (`added`); settling goes on meanwhile, in a thread
of ours. `whole` is what all threads work more for a call, settling included, as processor time.
"""

from __future__ import annotations

import gc
import io
import json
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import boto3
from botocore.awsrequest import AWSResponse

from bench.measure import memory_mb
from farthing.config import Budget, Config
from farthing.gateway.budgets import open_budgets
from farthing.gateway.hooks import Hook, attach, open_hook
from farthing.wire import encode

MODEL = "eu.anthropic.claude-sonnet-4-6"
USAGE = {
    "input_tokens": 12,
    "output_tokens": 700,
    "cache_read_input_tokens": 18_000,
    "cache_creation_input_tokens": 0,
}
ASK = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 800}
STREAM = "application/vnd.amazon.eventstream"
WARM = 300  # calls that do not count: memory, caches and files are as in a program that runs
FEW, MANY = 10, 310  # text events of a stream; the difference between the two tells what one costs

Client = Any
Call = Callable[[Client], None]


class Body(io.BytesIO):
    """An answer that has arrived."""

    def __init__(self, chunks: list[bytes]) -> None:
        super().__init__(b"".join(chunks))
        self.chunks = chunks

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield from self.chunks


def packed(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def events(texts: int) -> list[bytes]:
    """A streamed message, a frame an event."""
    said: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "model": "claude-sonnet-4-6", "usage": USAGE}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}},)
        * texts,
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 700}},
        {"type": "message_stop"},
    ]
    headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    return [encode(headers, packed({"bytes": b64encode(packed(each)).decode()})) for each in said]


ANSWER = [packed({"id": "m", "model": "claude-sonnet-4-6", "content": [], "usage": USAGE})]


def client(kind: str, chunks: list[bytes], hook: Hook | None) -> Client:
    made = boto3.Session("AKIAMADEUP", "made-up", region_name="eu-west-1").client("bedrock-runtime")
    made.meta.events.register(
        "before-send.bedrock-runtime",
        lambda request, **_: AWSResponse(request.url, 200, {"content-type": kind}, Body(chunks)),
    )
    if hook:
        attach(made.meta.events, hook)
    return made


def invoke(size: int) -> Call:
    body = packed(ASK | {"messages": [{"role": "user", "content": "x" * size}]})

    def call(client: Client) -> None:
        client.invoke_model(modelId=MODEL, body=body)["body"].read()

    return call


def streamed(client: Client) -> None:
    body = packed(ASK | {"messages": [{"role": "user", "content": "x" * 2000}]})
    for _ in client.invoke_model_with_response_stream(modelId=MODEL, body=body)["body"]:
        pass


def added(call: Call, kind: str, chunks: list[bytes], calls: int, hook: Hook) -> dict[str, float]:
    """Microseconds: the call as it is, what hooks add while the caller waits, and what all threads work more."""
    clients = {False: client(kind, chunks, None), True: client(kind, chunks, hook)}
    times: dict[bool, list[int]] = {False: [], True: []}
    for number in range(calls + WARM):
        for ours in (False, True) if number % 2 else (True, False):
            start = time.perf_counter_ns()
            call(clients[ours])
            if number >= WARM:
                times[ours].append(time.perf_counter_ns() - start)
    work: dict[bool, list[int]] = {False: [], True: []}
    for turn in range(10):
        for ours in (False, True) if turn % 2 else (True, False):
            hook.flush()
            start = time.process_time_ns()
            for _ in range(calls // 10):
                call(clients[ours])
            hook.flush()
            work[ours].append((time.process_time_ns() - start) // (calls // 10))
    return {"call": median(times[False]) / 1000, "added": _more(times), "whole": _more(work)}


def _more(taken: dict[bool, list[int]]) -> float:
    """Microseconds, of nanoseconds without (False) and with hooks."""
    return median([one - other for one, other in zip(taken[True], taken[False], strict=True)]) / 1000


def main(calls: int) -> dict[str, Any]:
    gc.freeze()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "key").write_bytes(b"0123456789abcdef0123456789abcdef")
        budgets = open_budgets(
            Config(budgets=(Budget("all", usd=10**6, hold="hard"),)), str(place / "budgets.sqlite")
        )
        metered = open_hook(outbox=place / "outbox", tags={"team": "search"})
        held = open_hook(outbox=place / "held", tags={"team": "search"}, budgets=budgets)
        hashed = open_hook(outbox=place / "hashed", tags={"team": "search"}, key=place / "key")
        kind = "application/json"
        told = {
            "metered": added(invoke(2_000), kind, ANSWER, calls, metered),
            "with a budget": added(invoke(2_000), kind, ANSWER, calls, held),
            "100 kB": added(invoke(100_000), kind, ANSWER, calls // 4, metered),
            "100 kB, prefixes hashed": added(invoke(100_000), kind, ANSWER, calls // 4, hashed),
            "short stream": added(streamed, STREAM, events(FEW), calls // 4, metered),
            "long stream": added(streamed, STREAM, events(MANY), calls // 4, metered),
        }
        faults = metered.faults + held.faults + hashed.faults
        for hook in (metered, held, hashed):
            hook.close()
    event = (told["long stream"]["added"] - told["short stream"]["added"]) / (MANY - FEW)
    plain = (told["long stream"]["call"] - told["short stream"]["call"]) / (MANY - FEW)
    return {
        "us": told,
        "event_us": event,
        "event_alone_us": plain,
        "faults": faults,
        "memory_mb": memory_mb(),
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
