"""A gateway under a steady load for a long time: its memory stays flat, and at the end everything is metered.

`python bench/soak.py [MINUTES] [CALLS_A_SECOND]` (make soak). Calls and streams go through the gateway to the
emulator; some clients leave in the middle. Prints memory each minute; exits 1 if it grew by more than a tenth after the
first fifth, or if the ledger is not what the emulator billed.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aiohttp

from bench.cases import FARTHING
from bench.live_cases import MODEL, farthing_gateway, free_port, resident, served
from farthing.api import import_paths
from farthing.ledger import Ledger
from farthing.meters import METERS

GROWTH = 1.1
OPERATIONS = ("invoke", "invoke-with-response-stream", "converse", "converse-stream")


def main(minutes: float, rate: float) -> int:
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        folder, port = Path(name), free_port()
        servers.enter_context(served([*FARTHING, "emulate", "--port", str(port)], port))
        ours, pid = servers.enter_context(farthing_gateway(folder, port))
        memory = asyncio.run(load(f"http://127.0.0.1:{ours}", minutes * 60, rate, pid))
        time.sleep(3)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_farthing/totals") as answer:
            truth = json.load(answer)
        metered = tokens(folder)
    early, late = max(memory[: max(1, len(memory) // 5)]), max(memory[-max(1, len(memory) // 5) :])
    flat, same = late <= early * GROWTH, metered == truth["tokens"]
    print(
        json.dumps(
            {"billed": truth["billed"], "early_mb": early, "late_mb": late, "flat": flat, "metered": same}
        )
    )
    return 0 if flat and same else 1


async def load(url: str, seconds: float, rate: float, pid: int) -> list[float]:
    """So many calls a second, whatever becomes of them; the gateway's memory each 5 seconds."""
    chance, memory, under_way = random.Random(1), list[float](), set[asyncio.Task[None]]()
    began = time.monotonic()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        while (passed := time.monotonic() - began) < seconds:
            if passed >= len(memory) * 5:
                memory.append(resident(pid))
                if len(memory) % 12 == 1:
                    print(f"{passed / 60:5.1f} min  {memory[-1]:7.1f} MB", flush=True)
            task = asyncio.create_task(call(session, url, chance))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(chance.expovariate(rate))
        await asyncio.gather(*under_way)
    return memory


async def call(session: aiohttp.ClientSession, url: str, chance: random.Random) -> None:
    operation = chance.choice(OPERATIONS)
    text = "word " * chance.randrange(1, 2000)
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "max_tokens": 200}
    body["anthropic_version"] = "bedrock-2023-05-31"
    if operation.startswith("converse"):
        body = {
            "messages": [{"role": "user", "content": [{"text": text}]}],
            "inferenceConfig": {"maxTokens": 200},
        }
    leaves = chance.random() < 0.05
    async with session.post(f"{url}/model/{MODEL}/{operation}", json=body) as answer:
        if leaves:
            await answer.content.read(100)
            return
        await answer.read()


def tokens(folder: Path) -> dict[str, int]:
    """By meter, as the ledger has them once the outbox is imported."""
    ledger = Ledger(folder / "ledger")
    import_paths(ledger, [str(path) for path in folder.glob("*/outbox")], now=datetime.now(UTC))
    ledger.rows().create_view("u", replace=True)
    sums = ", ".join(f"sum({meter})::BIGINT" for meter in METERS)
    (row,) = ledger.connection.execute(f"SELECT {sums} FROM u").fetchall()
    return dict(zip(METERS, row, strict=True))


if __name__ == "__main__":
    said = [float(text) for text in sys.argv[1:]]
    raise SystemExit(main(said[0] if said else 20, said[1] if len(said) > 1 else 40))
