"""Measurements of the dashboard: how soon it is ready, and what its server takes for a page of many calls."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from bench.cases import DATA, FARTHING, Result, Sizes, Target, case
from bench.ledger_data import make_ledger
from bench.measure import Failed

PAGES = ("bill", "explore", "why", "endpoints", "batch", "prices")
FILTERS = (
    "", "where=team%3Dteam-05", "where=model%3Dclaude-sonnet*", "since=2026-10-10&until=2026-10-19",
    "where=endpoint%3Dregional", "where=team%3Dteam-1*&since=2026-10-20", "where=mode%3Don_demand", "until=2026-10-15",
)  # fmt: skip


@case
def page(sizes: Sizes) -> Result:
    """A page of the dashboard on the large ledger: the server's own time for a filter that nobody asked for before.

    Six pages under eight filters; the sums were made by an earlier start. `again` is the same page asked once more.
    """
    ledger = DATA / f"ledger-{sizes.rows}"
    make_ledger(ledger, sizes.rows)
    with tempfile.TemporaryDirectory() as home:
        _serve(ledger, home)  # makes the sums
        ready_s, first, again = _serve(ledger, home)
    worst = max(first)
    return Result(
        "page", "ms", statistics.median(first), size={"rows": sizes.rows},
        targets=[
            Target("ready, s", ready_s, 1.0),
            Target("server time of a page, ms, median", statistics.median(first), 20.0),
        ],
        notes=[f"slowest {worst:.0f} ms; again {statistics.median(again):.2f} ms; ready after {ready_s:.2f} s"],
    )  # fmt: skip


def _serve(ledger: Path, home: str) -> tuple[float, list[float], list[float]]:
    """Seconds until it is ready; milliseconds of each page, first and again."""
    command = [*FARTHING, "web", "--port", "0", "--no-open", "--ledger", str(ledger)]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=home) as server:
        try:
            assert server.stdout
            url = json.loads(server.stdout.readline())["listening"]
            ready_s = time.perf_counter() - begun
            for name in PAGES:
                _took(f"{url}/{name}.json")  # the sums are loaded
            asked = [f"{url}/{name}.json?{query}" for query in FILTERS[1:] for name in PAGES]
            first = [_took(one) for one in asked]
            return ready_s, first, [_took(one) for one in asked]
        finally:
            server.terminate()
            server.wait(timeout=20)


def _took(url: str) -> float:
    with urllib.request.urlopen(url, timeout=120) as answer:
        answer.read()
        said = re.search(r"dur=([\d.]+)", answer.headers["server-timing"] or "")
    if said is None:
        raise Failed(f"{url}: no server-timing")
    return float(said[1])
