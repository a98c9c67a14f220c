"""Measurements of the dashboard: how soon it is ready, and how long a page of many calls takes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from bench.cases import DATA, FARTHING, Result, Sizes, Target, case
from bench.ledger_data import make_ledger
from bench.measure import ROOT, Failed, middle, take_turns

PAGES = ("bill", "explore", "why", "endpoints", "batch", "prices")
FILTERS = (
    "", "where=team%3Dteam-05", "where=model%3Dclaude-sonnet*", "since=2026-10-10&until=2026-10-19",
    "where=endpoint%3Dregional", "where=team%3Dteam-1*&since=2026-10-20", "where=mode%3Don_demand", "until=2026-10-15",
)  # fmt: skip
ASKED = [f"/{name}.json?{query}" for query in FILTERS[1:] for name in PAGES]


class Got(NamedTuple):
    """A page: its text, and milliseconds that its reader waited and that the server says it took."""

    text: bytes
    waited: float
    took: float


@case
def page(sizes: Sizes) -> Result:
    """A page of the dashboard on the large ledger, from the request to the last byte, one after the other.

    Six pages under seven filters that nobody asked for before; the sums were made by an earlier start. `again` is the
    same page asked once more. The floor is the same bytes, from memory, by a bare ASGI app on the same server: HTTP,
    without a calculation. So far above it because the filter is new: what it leaves of the sums is added up by numpy,
    then some hundred cells are priced, each step of a bill or a bridge as an exact fraction, in Python. A page that
    was asked for before is near the floor: `again`, which is the server's own time as `slowest` is.
    """
    ledger = DATA / f"ledger-{sizes.rows}"
    make_ledger(ledger, sizes.rows)
    with tempfile.TemporaryDirectory() as home:
        program = [*FARTHING, "web", "--port", "0", "--no-open", "--ledger", str(ledger)]
        _record(program, Path(home))  # makes the sums, too
        floor = [sys.executable, str(ROOT / "bench" / "page_floor.py"), home]
        runners: dict[str, Callable[[], Any]] = {
            "farthing": lambda: _pages(program, home),
            "floor": lambda: _pages(floor, home),
        }
        taken = take_turns(sizes.few_rounds, runners, sizes.tries)
    ours = {
        name: middle(taken["farthing"], name) for name in ("ready_s", "waited", "took", "slowest", "again")
    }
    result = Result(
        "page", "ms", ours["waited"], floor=middle(taken["floor"], "waited"), rounds=sizes.few_rounds,
        others=taken.others, size={"rows": sizes.rows, "pages": len(ASKED)},
    )  # fmt: skip
    result.targets = [
        Target("ready, s", ours["ready_s"], 1.0),
        Target("server time of a page, ms, median", ours["took"], 20.0),
    ]
    result.notes = [
        f"slowest {ours['slowest']:.0f} ms; again {ours['again']:.2f} ms; ready after {ours['ready_s']:.2f} s"
    ]
    return result


def _pages(program: list[str], home: str) -> dict[str, float]:
    """Seconds until it is ready; the median page in milliseconds, and what else is told of them."""
    begun = time.perf_counter()
    with _served(program, home) as line:
        ready_s = time.perf_counter() - begun
        for name in PAGES:
            _get(line, f"/{name}.json?")  # the sums are loaded
        first = [_get(line, asked) for asked in ASKED]
        again = [_get(line, asked) for asked in ASKED]
    took = [one.took for one in first]
    return {
        "ready_s": ready_s,
        "waited": middle([one.waited for one in first]),
        "took": middle(took),
        "slowest": max(took),
        "again": middle([one.took for one in again]),
    }


def _record(program: list[str], home: Path) -> None:
    """All that is asked for, with its answers, for the floor to give."""
    with _served(program, str(home)) as line:
        asked = [*(f"/{name}.json?" for name in PAGES), *ASKED]
        answers = {one: _get(line, one).text.decode() for one in asked}
    (home / "answers.json").write_text(json.dumps(answers))


@contextmanager
def _served(program: list[str], home: str) -> Iterator[HTTPConnection]:
    """A connection to a server that has said that it listens; it is ended afterwards."""
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=home) as server:
        try:
            assert server.stdout
            said = server.stdout.readline()
            if not said:
                raise Failed(f"{' '.join(program)} ended")
            line = HTTPConnection(urlsplit(json.loads(said)["listening"]).netloc, timeout=120)
            yield line
            line.close()
        finally:
            server.terminate()
            server.wait(timeout=20)


def _get(line: HTTPConnection, asked: str) -> Got:
    begun = time.perf_counter()
    line.request("GET", asked)
    answer = line.getresponse()
    text = answer.read()
    waited = (time.perf_counter() - begun) * 1000
    if answer.status != 200:
        raise Failed(f"{asked}: {answer.status}")
    said = re.search(r"dur=([\d.]+)", answer.headers["server-timing"] or "")
    return Got(text, waited, float(said[1]) if said else 0.0)
