"""What torture kills or starves: calls of a gateway against budgets, or a command with a bound on memory or files.

python work.py budget FOLDER, or memory|files BOUND LEDGER COMMAND ...
"""

import os
import resource
import sys
from contextlib import suppress
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


def bounded(kind: str, bound: int, ledger: str, argv: list[str]) -> None:
    """A command that finds no more memory than so many bytes beside what it begins with, or makes no longer file.

    All that it does is done once before, on another ledger: libraries and their threads are there already, as they
    are in every process that may begin at all (farthing/ledger/_limits.py).
    """
    from farthing.cli import main
    from farthing.importers import _reading
    from farthing.ledger import _limits

    _reading.BATCH_RECORDS, _reading.TASK_FILES = 40, 1
    with suppress(SystemExit):
        main([*argv, "--ledger", f"{ledger}-before"])
    if kind == "files":
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, resource.RLIM_INFINITY))
    else:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _limits.BASE_BYTES, _limits.CORE_BYTES = used, bound // (os.cpu_count() or 1)
        resource.setrlimit(resource.RLIMIT_AS, (used + bound, resource.RLIM_INFINITY))
    main([*argv, "--ledger", ledger])


if __name__ == "__main__":
    if sys.argv[1] == "budget":
        calls(Path(sys.argv[2]))
    else:
        bounded(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])
