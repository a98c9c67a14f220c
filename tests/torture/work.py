"""What torture kills or starves: calls of a gateway against budgets, or an import with a bound on memory or files.

python work.py budget|import|memory|files FOLDER [LOGS] BOUND
"""

import os
import resource
import sys
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

AT = datetime(2026, 11, 18, 10, tzinfo=UTC)
AT_US = int(AT.timestamp()) * 1_000_000
CEILING, COST = 10**12, 3 * 10**11
MODEL = "global.anthropic.claude-sonnet-4-6"


def budgets_of(folder: Path):
    from farthing.config import Budget, Config
    from farthing.gateway.budgets import open_budgets

    of = (Budget("day", 10**6, period="day", hold="hard"), Budget("month", 10**6, hold="hard"))
    return open_budgets(Config(budgets=of), str(folder / "budgets.sqlite"))


def calls(folder: Path) -> None:
    """Calls as a gateway makes them, whose clock steps to and fro within a minute: hold, intent, result, post."""
    from farthing.gateway._outbox import Outbox
    from farthing.gateway.budgets import Scope
    from farthing.outbox import Intent, Result, Tokens

    budgets, outbox = budgets_of(folder), Outbox(folder / "outbox", fsync="os")
    print("ready", flush=True)
    for number in count():
        name, step = f"{os.getpid()}-{number}", number * 37 % 60 - 30
        at, at_us = AT + timedelta(seconds=step), AT_US + step * 1_000_000
        budgets.hold(name, Scope(), CEILING, at_us, at_us + 1)
        said: dict[str, Any] = dict(gateway_id=name, at=at, model=MODEL, platform="bedrock")
        outbox.sync(outbox.intent(Intent(**said, expected=Tokens(input=9, output=9))))
        if number % 5 == 4:
            continue  # its client went away: nothing is known of it any more
        outbox.result(Result(**said, tokens=Tokens(input=9, output=3)))
        budgets.post(name, COST, at_us)


def bounded(kind: str, ledger: str, logs: str, bound: int) -> None:
    """An import that finds no more memory, or cannot make a file longer than so many bytes."""
    from farthing.api import import_paths
    from farthing.importers import _reading
    from farthing.ledger import Ledger

    _reading.BATCH_RECORDS, _reading.TASK_FILES = 40, 1
    ready = Ledger(ledger)
    ready.rows()
    which = resource.RLIMIT_FSIZE if kind == "files" else resource.RLIMIT_AS
    used = (
        0
        if kind == "files"
        else int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    )
    resource.setrlimit(which, (used + bound, resource.getrlimit(which)[1]))
    print("ready", flush=True)
    done = import_paths(
        ready, sorted(Path(logs).iterdir()), now=datetime(2026, 11, 22, tzinfo=UTC), workers=0
    )
    sys.exit(bool(done.errors))


if __name__ == "__main__":
    if sys.argv[1] == "budget":
        calls(Path(sys.argv[2]))
    else:
        bounded(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
