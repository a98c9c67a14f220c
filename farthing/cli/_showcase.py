"""What `farthing web --demo` shows: a made-up month with its bill, budgets and workloads, and calls that go on."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.cli._shared import progress, run_import

if TYPE_CHECKING:
    from farthing.ledger import Ledger

CALLS = 12_000  # few enough to be there in seconds
NOW = datetime(2026, 10, 31, 18, tzinfo=UTC)  # near the end of the made-up month: its budgets are under way
EVERY_S = 2.0  # a call in the outbox
UNLOGGED = "555566667777"  # an account that the bill has and the logs lack
CONFIG = """
[[budgets]]
name = "everything, monthly"
usd = 300

[[budgets]]
name = "coding agents, monthly"
usd = 150
where = ["team=coding-agents"]

[[budgets]]
name = "support, monthly"
usd = 15
where = ["team=support-chat"]

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


class Shown(NamedTuple):
    ledger: Path
    config: Path
    bill: Path
    outbox: Path


def build(folder: Path, calls: int = CALLS) -> Shown:
    """All of it, in this folder."""
    from farthing import demo
    from farthing.ledger import Ledger

    with progress("writing logs") as advance:
        demo.write_logs(folder / "logs", calls=calls, seed=7, progress=advance)
    made = Shown(folder / "ledger", folder / "farthing.toml", folder / "bill.csv", folder / "outbox")
    ledger = Ledger(made.ledger)
    run_import(ledger, [str(folder / "logs")])
    made.config.write_text(CONFIG, encoding="utf-8")
    made.bill.write_bytes(bill_of(ledger))
    made.outbox.mkdir()
    return made


def bill_of(ledger: Ledger) -> bytes:
    """As AWS would write it, by prices that are not ours; with a day of an account whose calls nobody logged."""
    from farthing.book import Resolved, default_book
    from farthing.cells import Question, cells
    from farthing.emulator._cur import Bills
    from farthing.emulator._rates import rates
    from farthing.meters import Vector
    from farthing.usage import EPOCH

    bills, known = Bills(), default_book().models
    for cell in cells(ledger, Question(), ("day", "account", "region")):
        day, account, region = cell.keys
        if not isinstance(cell.sku, Resolved):
            continue
        sku, at = cell.sku.sku, datetime.fromisoformat(day).replace(tzinfo=UTC)
        held = [one.over for one in rates(sku.model, sku.endpoint, sku.mode, region, at.date())]
        if not held:
            continue
        released = date.fromisoformat(str(known[sku.model].data["released"]))
        model = SimpleNamespace(id=sku.model, released=released)
        called = SimpleNamespace(model=model, endpoint=sku.endpoint, id=f"anthropic.{sku.model}", profile="")
        over = max(over for over in held if cell.prompt > over or not over)
        caller = SimpleNamespace(account=account, region=region, arn="")
        call: Any = SimpleNamespace(
            called=called, caller=caller, mode=sku.mode, over=over, door="runtime", streamed=False,
            at_us=(at - EPOCH).days * 86_400_000_000,
        )  # fmt: skip
        bills.add(call, cell.tokens)
        if day.endswith("-12") and region == "us-east-1":
            call.caller = SimpleNamespace(account=UNLOGGED, region=region, arn="")
            bills.add(call, Vector(*(count // 4 for count in cell.tokens)))
    return bills.cur()


def go_on(outbox: Path) -> None:
    """Calls into the outbox for as long as the program lives."""
    threading.Thread(target=_go_on, args=(outbox,), daemon=True).start()


def _go_on(folder: Path) -> None:
    from farthing.gateway._outbox import Outbox, OutboxError
    from farthing.outbox import Result, Tokens

    rng, outbox = random.Random(7), Outbox(folder, fsync="os", name="demo")
    kinds = (
        ("global.anthropic.claude-sonnet-5-5", "coding-agents", 40_000, 600),
        ("us.anthropic.claude-sonnet-4-6", "support-chat", 2_500, 250),
        ("global.anthropic.claude-haiku-5-5", "data-extract", 3_000, 90),
        ("us.anthropic.claude-opus-5-5", "search-rag", 9_500, 400),
    )
    while True:
        model, team, prompt, output = rng.choice(kinds)
        read = prompt * rng.choice((0, 8, 9)) // 10
        name = f"{rng.getrandbits(64):016x}"
        try:
            outbox.result(
                Result(
                    gateway_id=f"demo-{name}",
                    at=datetime.now(UTC),
                    model=model,
                    platform="bedrock",
                    region="us-east-1",
                    account="111122223333",
                    tags={"team": team},
                    request_id=name,
                    tokens=Tokens(prompt - read, rng.randrange(output // 2, output * 2), read),
                    latency_ms=rng.randrange(400, 9_000),
                )
            )
        except OutboxError:
            return  # the folder is gone: the program is ending
        time.sleep(EVERY_S)
