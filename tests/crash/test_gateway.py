"""kill -9 of the gateway at any moment of a load: nothing that the upstream billed is missing, nothing counts twice.

`make crash` kills it 200 times, `make test` a few times. The emulator keeps a log of its own of what it billed: that,
and not anything of ours, is what the ledger is compared with.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from farthing.api import import_paths
from farthing.ledger import Ledger
from farthing.meters import METERS

SEED = int(os.environ.get("CRASH_SEED", "1"))
CRASHES = int(os.environ.get("CRASHES", "200"))
MODEL = "global.anthropic.claude-sonnet-4-6"
CLIENTS = 6
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip


@contextlib.contextmanager
def started(*argv: str | Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server of farthing's, from its ready line on."""
    child = subprocess.Popen(
        [sys.executable, "-m", "farthing", *argv], stdout=subprocess.PIPE, env=os.environ | ENVIRONMENT
    )
    try:
        assert child.stdout is not None
        yield json.loads(child.stdout.readline())["listening"], child
    finally:
        if child.poll() is None:
            child.terminate()
        child.communicate(timeout=300)


class Load:
    """What clients do to a gateway, until it is over."""

    def __init__(self, url: str, most: int) -> None:
        self.url, self.most, self.answered = url, most, 0
        self.enough, self.over = asyncio.Event(), False

    def count(self) -> None:
        self.answered += 1
        if self.answered >= self.most:
            self.enough.set()


async def client(load: Load, chance: random.Random) -> None:
    """Calls of every kind, one after the other; some of them it leaves before they are answered."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        while not load.over:
            text = "word " * chance.randrange(1, 300) + str(chance.random())
            operation = chance.choice(
                ["invoke", "invoke-with-response-stream", "converse", "converse-stream"]
            )
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, ConnectionError):
                sent = session.post(f"{load.url}/model/{MODEL}/{operation}", json=request(operation, text))
                if chance.random() < 0.15:
                    await asyncio.wait_for(leave(sent), chance.random() * 0.03)
                else:
                    await leave(sent)
                load.count()


async def leave(sent: Any) -> None:
    async with sent as answer:
        await answer.read()


def request(operation: str, text: str) -> dict[str, Any]:
    if operation.startswith("converse"):
        messages = [{"role": "user", "content": [{"text": text}]}]
        return {"messages": messages, "inferenceConfig": {"maxTokens": 60}}
    messages = [{"role": "user", "content": text}]
    return {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 60, "messages": messages}


async def life(url: str, most: int, chance: random.Random, end: Callable[[], None] | None = None) -> None:
    """Calls until so many are answered, however long that takes here; then, amid others, the end."""
    load = Load(url, most)
    seeds = [random.Random(chance.random()) for _ in range(CLIENTS)]
    calling = asyncio.gather(*(client(load, seed) for seed in seeds))
    if most:
        await asyncio.wait_for(load.enough.wait(), 300)
    await asyncio.sleep(chance.uniform(0, 0.03))
    if end:
        end()
    load.over = True
    await calling


def crash(upstream: str, outbox: Path, chance: random.Random, tag: str) -> None:
    """One life of a gateway, ended by the kernel at a moment that nobody chose."""
    with started(*gateway(upstream, outbox, tag)) as (url, child):
        asyncio.run(life(url, chance.randrange(60), chance, child.kill))
        assert child.wait(10) == -signal.SIGKILL


def gateway(upstream: str, outbox: Path, tag: str) -> list[str | Path]:
    return ["gateway", "--port", "0", "--bedrock", upstream, "--outbox", outbox, "--no-auth", "--tag", tag]


def billed_by(upstream: str) -> list[dict[str, Any]]:
    """All of it: an answer has 10,000 calls at most."""
    calls: list[dict[str, Any]] = []
    told: dict[str, Any] = {"next": 0}
    while True:
        with urllib.request.urlopen(f"{upstream}/_farthing/calls?since={told['next']}") as answer:
            told = json.load(answer)
        if not told["calls"]:
            return calls
        calls += told["calls"]


@pytest.mark.parametrize("tag", ["all", "header"])
@pytest.mark.parametrize("crashes", [pytest.param(CRASHES // 2, marks=pytest.mark.crash), 3])
def test_what_was_billed_is_counted_once(
    tmp_path: Path, crashes: int, tag: str, record_property: Callable[[str, object], None]
) -> None:
    """With the tag in headers alone, the log's record of a Converse call does not name its intent."""
    record_property("fault", "kill -9 of the gateway")
    record_property("kills", crashes)
    chance = random.Random(SEED)
    outbox, logs = tmp_path / "outbox", tmp_path / "logs"
    with started("emulate", "--port", "0", "--log-dir", logs) as (upstream, _):
        for _ in range(crashes):
            crash(upstream, outbox, chance, tag)
        with started(*gateway(upstream, outbox, tag)) as (url, _):
            asyncio.run(life(url, 60, chance))
        time.sleep(0.5)  # streams whose reader was killed come to their end
        billed = [call for call in billed_by(upstream) if call.get("tokens")]
    assert len(billed) > 10 * crashes
    ledger = Ledger(tmp_path / "ledger")

    # By the outbox alone: everything billed is there once, with its tokens or, assumed, with at least as many
    counted = imported(ledger, outbox)
    missing = [call for call in billed if not found(counted, call)]
    still_open = [told for told in counted if told.open]
    if tag == "all":
        assert not missing, f"{len(missing)} of {len(billed)} billed calls are not there: {missing[:2]}"
    assert all(call["operation"].startswith("Converse") for call in missing)
    assert len(missing) <= len(still_open)
    assert len(still_open) >= crashes // 2, "no call was killed on its way"
    for call in billed:
        for told in found(counted, call):
            assert told.calls == 1
            assert told.tokens == tokens(call) or (told.open and sum(told.tokens) >= sum(tokens(call)))
    known = {told for call in billed for told in found(counted, call)}
    for told in set(counted) - known:
        assert told.open or not any(told.tokens), f"was never billed: {told}"

    # With the invocation log: every token, once, and each call is one that went through the gateway
    counted = imported(ledger, logs)
    for call in billed:
        (told,) = found(counted, call)
        assert (told.calls, sum(told.tokens), told.open) == (1, sum(tokens(call)), False), (
            f"{told} was {call}"
        )
    alone = [told for told in counted if not told.gateway_id]
    assert not alone, f"not seen to be of {[told for told in counted if told.open]}: {alone}"
    assert sum(told.calls for told in counted if any(told.tokens) and not told.open) == len(billed)
    assert imported(ledger, outbox, logs) == counted, "a second import changes something"


class Counted(NamedTuple):
    gateway_id: str
    request_id: str
    calls: int
    tokens: tuple[int, ...]
    open: bool


def tokens(call: dict[str, Any]) -> tuple[int, ...]:
    return tuple(call["tokens"][meter] for meter in METERS)


def found(counted: list[Counted], call: dict[str, Any]) -> list[Counted]:
    """What the ledger has of a call that was billed."""
    ids = {call["request_id"], call["metadata"].get("farthing_id", "-")}
    return [told for told in counted if told.gateway_id in ids or told.request_id in ids]


def imported(ledger: Ledger, *folders: Path) -> list[Counted]:
    """What the ledger holds of each call, once these are imported."""
    import_paths(ledger, [str(folder) for folder in folders], now=datetime.now(UTC))
    sums = ", ".join(f"sum({meter})::BIGINT" for meter in METERS)
    rows = duckdb_rows(
        ledger,
        f"SELECT gateway_id, request_id, sum(calls)::BIGINT, {sums}, bool_or(source = 'outbox_intent') FROM "
        "usage JOIN contexts USING (ctx) GROUP BY gateway_id, request_id, ctx HAVING sum(calls) <> 0 ORDER BY ALL",
        usage=ledger.rows(),
        contexts=ledger.contexts(),
    )
    return [
        Counted(gateway, request, calls, tuple(used), still) for gateway, request, calls, *used, still in rows
    ]


def duckdb_rows(ledger: Ledger, query: str, **tables: Any) -> list[tuple[Any, ...]]:
    for name, table in tables.items():
        table.create_view(name, replace=True)
    return ledger.connection.execute(query).fetchall()
