"""farthing watch: sync, look, tell; once, or on a schedule."""

from __future__ import annotations

import re
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._shared import Asked, default_ledger

if TYPE_CHECKING:
    from farthing.cells import Question
    from farthing.config import Config
    from farthing.ledger import Ledger
    from farthing.watch import Round

_LEAST = timedelta(seconds=10)  # between rounds


@app.command
def watch(
    *,
    every: Annotated[str, Parameter(help="How often: 15m, 1h, 90s.")] = "15m",
    once: Annotated[bool, Parameter(negative="", help="One round, for cron and the like.")] = False,
    dry_run: Annotated[
        bool, Parameter(negative="", help="Show what would be told; import, send and remember nothing.")
    ] = False,
    test: Annotated[bool, Parameter(negative="", help="Send a test message to each channel.")] = False,
    minimum: Annotated[int, Parameter(help="Dollars an hour; anomalies of less are no news.")] = 5,
    config: Annotated[Path | None, Parameter(help="The file; farthing.toml here if left out.")] = None,
    ledger: Annotated[str, Parameter(help="Ledger: a folder, or s3://...; else the one of the file.")] = "",
) -> int:
    """Sync, look for anomalies, budgets and dates ahead, and tell each once, by the channels of farthing.toml."""
    from farthing.ledger import Ledger

    question = Asked(config=config).question()
    said = question.config
    if not said.path:
        raise BadInput("no farthing.toml here: run `farthing init`, which writes one, or name it by --config")
    pause = _seconds(every)
    if test:
        return _test(said)
    books = Ledger(ledger or default_ledger(said))
    if dry_run:
        return _dry(books, question, minimum)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: _stop(stop, number))
    while True:
        done = _round(books, question, minimum, stop)
        if once:
            return 2 if done.failures or done.imported.errors else 0
        if stop.wait(pause.total_seconds()):
            return 0


def _stop(stop: threading.Event, number: int) -> None:
    """The first signal ends the watch after what it is at; the second ends it as it would any program."""
    stop.set()
    signal.signal(number, signal.SIG_DFL)


def _seconds(every: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([smhd])", every)
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    pause = timedelta(**{units[found[2]]: int(found[1])}) if found else timedelta()
    if pause < _LEAST:
        raise BadInput(f"--every {every!r} is no time: write 15m, 1h or 90s, and at least 10s")
    return pause


def _round(books: Ledger, question: Question, minimum: int, stop: threading.Event) -> Round:
    from farthing.watch import round_of, text

    now = datetime.now(UTC)
    done = round_of(books, question, now, minimum=minimum, stopped=stop.is_set)
    for line in done.imported.errors:
        print(f"farthing: {line}", file=sys.stderr)
    print(f"{now:%Y-%m-%d %H:%M:%S}Z  {done.sentence()}", flush=True)
    if done.told and not question.config.notify:
        print(text(done.told), flush=True)
    elif done.told:
        print("".join(f"  {event.title}\n" for event in done.told), end="", flush=True)
    return done


def _dry(books: Ledger, question: Question, minimum: int) -> int:
    from farthing.watch import look, text, wanted

    found = look(books, question, datetime.now(UTC), minimum).events
    print(text(found) if found else "nothing to tell")
    for channel in question.config.notify:
        print(f"{channel.name}: {len(wanted(channel, found))} of {len(found)}")
    return 0


def _test(said: Config) -> int:
    from farthing.watch import try_out

    if not said.notify:
        raise BadInput(f"{said.path}: no channels: add [[notify]] (docs/watch.md)")
    results = try_out(said, datetime.now(UTC))
    for name, failure in results.items():
        print(f"{name}: {failure or 'sent'}", file=sys.stderr if failure else sys.stdout)
    return 2 if any(results.values()) else 0
