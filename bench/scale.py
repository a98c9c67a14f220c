"""What a question costs by the number of rows, on DuckDB and on Spark: the figures of docs/scale.md.

    python -m bench.scale 1000000 10000000
    python -m bench.scale 1000000 10000000 100000000 --cluster    # two executors of their own

The answers are compared, to the last token and picodollar, before anything is printed.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.ledger_data import make_ledger
from farthing.cells import Question, cells
from farthing.ledger import Ledger

KEYS = ("model", "team", "day")
ROUNDS = 3
LONG = 50_000_000  # rows from which on one round has no start to speak of


def main(arguments: Sequence[str]) -> None:
    """Print a row a size and engine, and between sizes the exponent by which the time grows."""
    sizes = [int(text) for text in arguments if not text.startswith("-")] or [1_000_000, 10_000_000]
    session = _session("--cluster" in arguments)
    print("| rows | engine | seconds | ns a row | grows by | of a processor | ns a row | grows by |")
    print("|---|---|---|---|---|---|---|---|")
    last: dict[str, tuple[int, list[float]]] = {}
    for size in sizes:
        folder = Path(".bench") / f"ledger-{size}"
        make_ledger(folder, size)
        engines = {"duckdb": Ledger(folder), "spark": Ledger(folder, engine=session)}
        answers = {}
        for name, ledger in engines.items():
            took, answers[name] = _timed(ledger, session, 1 if size >= LONG else ROUNDS)
            shown = [f"{size:,}", name]
            for i, seconds in enumerate(took):
                before, earlier = last.get(name, (0, took))
                grows = f"n^{math.log(seconds / earlier[i]) / math.log(size / before):.2f}" if before else ""
                shown += [f"{seconds:.2f}", f"{seconds / size * 1e9:,.0f}", grows]
            print(f"| {' | '.join(shown)} |", flush=True)
            last[name] = size, took
        if answers["duckdb"] != answers["spark"]:
            sys.exit(f"{size:,} rows: the engines disagree")
    session.stop()


def _timed(ledger: Ledger, session: Any, rounds: int) -> tuple[list[float], set[tuple[Any, ...]]]:
    """The quickest of some rounds, the first of which warms up, by the clock and by processors; and every cell."""
    best = [math.inf, math.inf]
    found: set[tuple[Any, ...]] = set()
    for _ in range(rounds):
        start, worked = time.perf_counter(), _worked(session)
        answer = cells(ledger, Question(), KEYS)
        best = [min(best[0], time.perf_counter() - start), min(best[1], _worked(session) - worked)]
        found = {(cell.keys, str(cell.sku), cell.at, cell.prompt, *cell.tokens, cell.cost) for cell in answer}
    return best, found


def _worked(session: Any) -> float:
    """Processor seconds of this process and of Spark's, where /proc tells them; executors of their own are not seen."""
    stat = Path(f"/proc/{session.sparkContext._gateway.proc.pid}/stat")
    ticks = sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13])) if stat.exists() else 0
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _session(cluster: bool) -> Any:
    from pyspark.sql import SparkSession

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    made = SparkSession.builder.master("local-cluster[2,1,2048]" if cluster else "local[2]")
    return (
        made.config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.memory", "2g")
        .getOrCreate()
    )


if __name__ == "__main__":
    main(sys.argv[1:])
