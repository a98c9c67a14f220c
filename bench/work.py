"""What is measured from within: each part runs in a process of its own and prints JSON as its last line.

python bench/work.py rate 2 | ints 2 | group FOLDER | sql FOLDER VARIANT | scan FOLDER | gunzip FOLDER |
read FOLDER | read_json FOLDER | make KIND FOLDER SIZE; and those of bench/find_work.py
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import find_work
from bench.calls import MODEL, NOW, blocks, per_second, probes
from bench.measure import memory_mb

PARTS: dict[str, Callable[..., dict[str, Any]]] = dict(find_work.PARTS)
KEYS = ("model", "tag:team", "day")


def part(measured: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    PARTS[measured.__name__] = measured
    return measured


# --- one record ----------------------------------------------------------------------------------------------------


@part
def rate(seconds: str) -> dict[str, Any]:
    """farthing.rate, from the raw usage block to picodollars."""
    from farthing import rate as price

    speed = per_second(lambda usage: price(MODEL, NOW, usage).cost, blocks(500), float(seconds))
    charges = [price(probe.model, probe.at, probe.usage, region="us-east-1") for probe in probes()]
    return {"per_s": speed, "answers": [None if c.cost is None else c.cost / 10**12 for c in charges]}


@part
def ints(seconds: str) -> dict[str, Any]:
    """The floor: rates in a dict, five multiplications, four additions."""
    rates = {MODEL: (3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000)}

    def price(tokens: tuple[int, int, int, int, int]) -> int:
        fresh, output, read, short, long = rates[MODEL]
        return (
            tokens[0] * fresh + tokens[1] * output + tokens[2] * read + tokens[3] * short + tokens[4] * long
        )

    vectors = [(412 + i, 650 + i, 18_000 + i, 1_200 + i, i) for i in range(500)]
    return {"per_s": per_second(price, vectors, float(seconds))}


# --- a ledger ------------------------------------------------------------------------------------------------------


@part
def group(folder: str) -> dict[str, Any]:
    """Spend by model, team and day as `farthing by` makes it, from opening the ledger to the finished table."""
    import deltalake  # noqa: F401  libraries are loaded before the clock starts, as the rivals' engine is
    import duckdb
    import narwhals.stable.v2 as nw

    some: Any = duckdb.sql("SELECT 1")
    nw.from_native(some)  # which loads its part for DuckDB

    from farthing.cells import Question
    from farthing.ledger import Ledger
    from farthing.reports import by

    gc.set_threshold(200_000, 50, 50)  # as the command line sets it
    start = time.perf_counter()
    table = by(Ledger(Path(folder)), Question(), KEYS)
    seconds = time.perf_counter() - start
    meters = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
    rows = [
        [*(row[key] for key in KEYS), row["calls"], *(row[m] for m in meters), row["usd"]]
        for row in table.rows
    ]
    return {"seconds": seconds, "memory_mb": memory_mb(), **_digest(rows)}


@part
def sql(folder: str, variant: str) -> dict[str, Any]:
    """The same table by hand-written SQL, without farthing."""
    import duckdb

    from bench.sql import VARIANTS, views

    start = time.perf_counter()
    con = duckdb.connect()
    con.execute(views(Path(folder)))
    rows = con.execute(VARIANTS[variant]).fetchall()
    seconds = time.perf_counter() - start
    shown = [[model, team, day.isoformat(), *map(int, rest)] for model, team, day, *rest in rows]
    return {"seconds": seconds, "memory_mb": memory_mb(), **_digest(shown)}


@part
def scan(folder: str) -> dict[str, Any]:
    """The floor: read and add up the five token columns."""
    import duckdb

    from bench.sql import SCAN, views

    start = time.perf_counter()
    con = duckdb.connect()
    con.execute(views(Path(folder)))
    con.execute(SCAN).fetchall()
    return {"seconds": time.perf_counter() - start, "memory_mb": memory_mb()}


def _digest(rows: Iterable[list[Any]]) -> dict[str, Any]:
    """Rows that differ by one picodollar have another digest."""
    ordered = sorted(rows, key=lambda row: row[:3])
    text = json.dumps(ordered)
    picos = sum(row[-1] for row in ordered)
    return {"rows": len(ordered), "picos": picos, "digest": hashlib.sha256(text.encode()).hexdigest()}


# --- files ---------------------------------------------------------------------------------------------------------


@part
def gunzip(folder: str) -> dict[str, Any]:
    """The floor of importing logs: decompress every object, on two processes, and throw the bytes away."""
    files = sorted(str(path) for path in Path(folder).rglob("*.json.gz"))
    start = time.perf_counter()
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        size = sum(pool.map(_gunzip, [files[0::2], files[1::2]]))
    return {"seconds": time.perf_counter() - start, "bytes": size}


def _gunzip(files: list[str]) -> int:
    from isal import igzip

    decompress: Callable[[bytes], bytes] = igzip.decompress
    return sum(len(decompress(Path(name).read_bytes())) for name in files)


@part
def read(folder: str) -> dict[str, Any]:
    """The floor of importing transcripts: read every byte and count the lines."""
    start = time.perf_counter()
    size = lines = 0
    for path in Path(folder).rglob("*.jsonl"):
        with path.open("rb", buffering=0) as file:
            while piece := file.read(1 << 20):
                size += len(piece)
                lines += piece.count(b"\n")
    return {"seconds": time.perf_counter() - start, "bytes": size, "lines": lines}


@part
def read_json(folder: str) -> dict[str, Any]:
    """Bedrock logs by DuckDB's own reader: the counts at the top of each record, added up. Nothing is kept."""
    import duckdb

    start = time.perf_counter()
    found = duckdb.execute(
        f"""
        SELECT count(*), sum(input.inputTokenCount), sum(output.outputTokenCount)
        FROM read_json('{folder}/AWSLogs/*/BedrockModelInvocationLogs/*/*/*/*/*/*.json.gz',
                       format = 'newline_delimited', maximum_object_size = 200000000,
                       columns = {{timestamp: 'VARCHAR', requestId: 'VARCHAR', modelId: 'VARCHAR',
                                  input: 'STRUCT(inputTokenCount BIGINT, cacheReadInputTokenCount BIGINT)',
                                  output: 'STRUCT(outputTokenCount BIGINT)'}})
        """
    ).fetchall()[0]
    return {"seconds": time.perf_counter() - start, "records": found[0], "output": int(found[2])}


# --- making data ---------------------------------------------------------------------------------------------------


@part
def make(kind: str, folder: str, size: str) -> dict[str, Any]:
    """Write data that is not there yet; what it holds is in FOLDER.done."""
    if kind == "ledger":
        from bench.ledger_data import make_ledger

        return make_ledger(Path(folder), int(size))
    if kind == "logs":
        from bench.logs_data import make_logs

        return make_logs(Path(folder), int(size))
    if kind in ("blocks", "bill"):
        from bench.find_data import make_bill, make_blocks

        return (make_blocks if kind == "blocks" else make_bill)(Path(folder), int(size))
    from bench.transcripts_data import make_transcripts

    return make_transcripts(Path(folder), int(size))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUTF8", "1")
    print(json.dumps(PARTS[sys.argv[1]](*sys.argv[2:])))
