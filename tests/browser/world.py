"""A small company for the browser to see: a month of calls, budgets, an AWS bill with a fault, a gateway's outbox."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from farthing import demo
from farthing.book import Card, Resolved
from farthing.cells import Question, cells
from farthing.ledger import Ledger
from farthing.outbox import Result, Tokens, encode
from tests import bills

CALLS = 3_000
FARTHING = [sys.executable, "-m", "farthing"]
CONFIG = """
[[budgets]]
name = "all of it, monthly"
usd = 70

[[budgets]]
name = "support, monthly"
usd = 8
where = ["team=support-chat"]

[[budgets]]
name = "coding agents, monthly"
usd = 60
where = ["team=coding-agents"]

[workloads.support]
owner = "Grace"
tags = ["team=support-chat"]
allow = ["global"]
cache = true

[workloads.nightly]
owner = "Ada"
tags = ["team=doc-nightly"]
allow = ["global"]
deadline = "24h"
"""


def build(folder: Path) -> Path:
    """All of it, under a folder: ledger, farthing.toml, bill.csv, outbox."""
    demo.write_logs(folder / "logs", calls=CALLS)
    (folder / "farthing.toml").write_text(CONFIG, encoding="utf-8")
    done = subprocess.run(
        [*FARTHING, "import", str(folder / "logs"), "--ledger", str(folder / "ledger")],
        cwd=folder, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bills.write_csv(folder / "bill.csv", billed(Ledger(folder / "ledger")))
    (folder / "outbox").mkdir()
    post(folder, 5)
    return folder


def billed(ledger: Ledger) -> list[bills.Line]:
    """What AWS bills for the models that the generator of bills knows, one line of them dearer than it should be."""
    found: list[bills.Line] = []
    for cell in cells(ledger, Question(), ("day", "account", "region")):
        day, account, region = cell.keys
        if not isinstance(cell.sku, Resolved) or not isinstance(cell.price, Card):
            continue
        sku = cell.sku.sku
        if sku.model not in bills.MODELS or region not in bills.CODES:
            continue
        for meter, tokens, rate in zip(bills.METERS, cell.tokens, cell.price.rates, strict=True):
            if tokens:
                cost = Decimal(tokens * rate) / 10**12
                place = (day, account, region, sku.model, sku.endpoint, sku.mode)
                found.append(bills.Line(*place, meter, False, tokens, cost))
    found[0] = replace(found[0], cost=found[0].cost * 2)
    return found


def post(folder: Path, calls: int, model: str = "eu.anthropic.claude-sonnet-4-6") -> None:
    """Calls as a gateway writes them, now."""
    at = datetime.now(UTC)
    with (folder / "outbox" / "gateway.jsonl").open("ab") as file:
        before = file.tell()
        for i in range(calls):
            file.write(encode(Result(
                gateway_id=f"call-{before}-{i}", at=at - timedelta(seconds=calls - i), model=model, platform="bedrock",
                region="eu-central-1", account="111122223333", mode="on_demand", tags={"team": "support-chat"},
                tokens=Tokens(input=400 + i, output=90, cache_read=2_000), latency_ms=800,
            )))  # fmt: skip


@contextmanager
def served(folder: Path, *options: str) -> Iterator[str]:
    """`farthing web` on the folder, until it is told to end; its address."""
    named = {"ledger": "ledger", "config": "farthing.toml", "statement": "bill.csv", "outbox": "outbox",
             "policy": "farthing-policy.toml"}  # fmt: skip
    places = [part for name, file in named.items() for part in (f"--{name}", str(folder / file))]
    command = [*FARTHING, "web", "--port", "0", "--no-open", *places, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as server:
        try:
            assert server.stdout
            line = server.stdout.readline()
            assert re.match(r"\{", line), "the server did not begin"
            yield json.loads(line)["listening"]
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)
