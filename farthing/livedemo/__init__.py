"""`farthing demo live`: a day of made-up traffic through the gateway, without levers and with them, and the proof.

Both runs send the same requests. What they cost is read from the emulator's logs and agrees with its bill; what could
have been saved at most is worked out of the traffic (docs/demo-live.md).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from farthing.book import Book
from farthing.ledger import Ledger
from farthing.livedemo import _policy
from farthing.livedemo._day import Ask, requests
from farthing.livedemo._floor import CACHING, Floor, floors
from farthing.livedemo._stack import DemoError, Places, run
from farthing.livedemo._sums import Run, question, read, waterfall
from farthing.meters import METERS
from farthing.money import mtok_usd, usd
from farthing.policy import history_of, load

__all__ = ["DemoError", "Outcome", "Run", "live", "question"]

Progress = Callable[[str, int, int], None]  # which run, how many requests of it, of how many
_MARK = ".farthing-demo"
_OURS = ("off", "on", "cur", "outbox", "ledger", history_of(_policy.NAME).name)
_FILES = ("bound.json", "farthing.toml", _policy.NAME, _policy.VERDICT)


class Outcome(NamedTuple):
    """Two runs of one day. `levers` sum to what the second cost less; `bound` is of the levers switched on."""

    off: Run
    on: Run
    floors: list[Floor]
    levers: dict[str, int]

    @property
    def bound(self) -> int:
        return sum(floor.picos for floor in self.floors)

    @property
    def reconciled(self) -> bool:
        return self.off.reconciled and self.on.reconciled

    def as_json(self) -> dict[str, Any]:
        return {
            "off_usd": usd(self.off.picos),
            "on_usd": usd(self.on.picos),
            "bound_usd": usd(self.bound),
            "reconciled": self.reconciled,
            "levers": {name: usd(picos) for name, picos in self.levers.items()},
            "billed_usd": {"off": usd(self.off.billed), "on": usd(self.on.billed)},
            "on_batch_usd": usd(self.on.batched),  # which no invocation log has
        }


def live(
    folder: Path, book: Book, now: datetime, progress: Progress = lambda *_: None, asks: Sequence[Ask] = ()
) -> Outcome:
    """Both runs, in a folder that is empty, or a demo's from before, which is replaced. DemoError has one line.

    `asks` are the day's requests, all of them if none are given.
    """
    asks = asks or requests()
    _clear(folder)
    policy, none = folder / _policy.NAME, folder / "none.toml"  # which is not there
    _policy.begin(folder)
    off = _run(folder, "off", none, asks, book, now, progress)
    _policy.apply(folder, off.ledger, question(book))
    on = _run(folder, "on", policy, asks, book, now, progress)
    entries = [entry for entry in load(policy).entries if entry.workload != _policy.KEPT]
    caching = {entry.workload: entry.lever for entry in entries if entry.lever in CACHING}
    by_ask = {ask.name: caching.get(ask.app, "cache") for ask in asks}
    made = Outcome(off, on, floors(asks, off.spent, entries, book), waterfall(off, on, by_ask, book))
    (folder / "bound.json").write_text(json.dumps(_bound(made), indent=2) + "\n", encoding="utf-8")
    return made


def _run(
    folder: Path, name: str, policy: Path, asks: Sequence[Ask], book: Book, now: datetime, progress: Progress
) -> Run:
    places = Places.of(folder, name)
    run(places, policy, asks, book, partial(progress, name))
    return read(places, Ledger(folder / "ledger" / name), len(asks), book, now)


def _clear(folder: Path) -> None:
    """Nothing that is not the demo's is touched."""
    if folder.exists() and not folder.is_dir():
        raise DemoError(f"{folder}: is a file: name a folder")
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise DemoError(f"{folder}: is not empty, and not a demo's: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in _OURS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    (folder / _MARK).touch()


def _bound(made: Outcome) -> dict[str, Any]:
    """The bound and what it was worked out of."""
    return {
        "bound_usd": usd(made.bound),
        "says": "the least that the requests of the day can come to, whatever the levers that were switched on do",
        "workloads": [
            {
                "workload": floor.app,
                "bound_usd": usd(floor.picos),
                "requests": floor.requests,
                "levers": floor.levers,
                "skus": [str(sku) for sku in floor.skus],
                "usd_per_mtok": dict(zip(METERS, map(mtok_usd, floor.rates), strict=True)),
                "cached_from_tokens": floor.minimum,
            }
            for floor in made.floors
        ],
    }
