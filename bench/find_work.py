"""Parts of bench/work.py: the least that caching could cost, the cache machine, scenarios over a ledger."""

from __future__ import annotations

import gc
import hashlib
import time
from itertools import combinations
from pathlib import Path
from typing import Any

from bench.measure import memory_mb

FIVE_US, HOUR_US = 300_000_000, 3_600_000_000
RATES = (3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000)
MINIMUM = 1_024

# Gaps and islands as a textbook has them: two windows, then clusters, then islands.
BOUND_SQL = f"""
    WITH gaps AS (
        SELECT prefix, at_us, CASE WHEN depth - tokens < {MINIMUM} THEN depth ELSE tokens END AS size,
               at_us - lag(at_us) OVER (PARTITION BY prefix ORDER BY at_us) AS gap
        FROM '{{}}/*.parquet' WHERE depth >= {MINIMUM}
    ), numbered AS (
        SELECT prefix, size,
               sum(CAST(gap IS NULL OR gap > {HOUR_US} AS INTEGER)) OVER w AS island,
               sum(CAST(gap IS NULL OR gap > {FIVE_US} AS INTEGER)) OVER w AS cluster
        FROM gaps WINDOW w AS (PARTITION BY prefix ORDER BY at_us)
    ), clusters AS (
        SELECT prefix, island, count(*) AS k, min(size) AS size FROM numbered GROUP BY prefix, island, cluster
    ), islands AS (
        SELECT CAST(sum(k) AS BIGINT) AS k, min(size) AS size,
               CAST(sum(least(k * {RATES[0]}, {RATES[3]} + (k - 1) * {RATES[2]})) AS BIGINT) AS five
        FROM clusters GROUP BY prefix, island
    )
    SELECT sum(CAST(k * {RATES[0]} - least(five, {RATES[4]} + (k - 1) * {RATES[2]}) AS DECIMAL(38, 0)) * size)
    FROM islands
"""


def bound(folder: str) -> dict[str, Any]:
    """What caching can save at most, from the Parquet files to the number."""
    import duckdb
    import narwhals.stable.v2 as nw

    from farthing.cache import saved
    from farthing.meters import Vector

    some: Any = duckdb.sql("SELECT 1")
    nw.from_native(some)  # which loads its part for DuckDB
    start = time.perf_counter()
    log = duckdb.connect().sql(f"SELECT * FROM '{folder}/*.parquet'")
    picos = saved(log, Vector(*RATES), MINIMUM).fetchall()[0][0]
    return {"seconds": time.perf_counter() - start, "memory_mb": memory_mb(), "picos": int(picos)}


def bound_sql(folder: str) -> dict[str, Any]:
    """The same by hand-written SQL."""
    import duckdb

    start = time.perf_counter()
    picos = duckdb.connect().execute(BOUND_SQL.format(folder)).fetchall()[0][0]
    return {"seconds": time.perf_counter() - start, "memory_mb": memory_mb(), "picos": int(picos)}


def bound_scan(folder: str) -> dict[str, Any]:
    """The floor: read the columns and add them up."""
    import duckdb

    start = time.perf_counter()
    columns = ", ".join(f"sum({name})" for name in ("prefix", "at_us", "tokens", "depth"))
    duckdb.connect().execute(f"SELECT {columns} FROM '{folder}/*.parquet'").fetchall()
    return {"seconds": time.perf_counter() - start}


# --- the machine ---------------------------------------------------------------------------------------------------


def machine(accesses: str, alike: str) -> dict[str, Any]:
    """A whole trace through the compiled machine, and through a policy; the bills of the first `alike` requests."""
    from bench.find_data import growing_trace, marked
    from farthing.cache import BEST, POLICIES, replay, simulate, warm
    from farthing.meters import Vector

    warm()
    trace = growing_trace(int(accesses))
    made = marked(trace)
    start = time.perf_counter()
    billed = replay(trace, made, MINIMUM)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    simulate(trace, POLICIES[BEST], Vector(*RATES), MINIMUM)
    policy_s = time.perf_counter() - start
    first = zip(*(column.tolist() for column in billed[2:4]), strict=True)
    return {
        "per_s": trace.accesses / seconds,
        "policy_per_s": trace.accesses / policy_s,
        "accesses": trace.accesses,
        "requests": trace.requests,
        "memory_mb": memory_mb(),
        "digest": _digest([pair for pair, _ in zip(first, range(int(alike)), strict=False)]),
    }


def machine_python(accesses: str, alike: str) -> dict[str, Any]:
    """The first `alike` requests through a plain loop over dicts, written for this one case: all for five minutes."""
    from bench.find_data import growing_trace

    trace = growing_trace(int(accesses))
    count = min(int(alike), trace.requests)
    times, sizes = trace.at_us.tolist(), trace.sizes.tolist()
    paths = [trace.nodes[trace.starts[i] : trace.starts[i + 1]].tolist() for i in range(count)]
    system = trace.system.tolist()
    start = time.perf_counter()
    bills = naive(times, paths, system, sizes)
    seconds = time.perf_counter() - start
    return {"per_s": sum(map(len, paths)) / seconds, "digest": _digest(bills)}


def machine_sum(accesses: str) -> dict[str, Any]:
    """The floor: one pass in the order of the requests, compiled too, that adds up the tokens of each prompt."""
    import numba
    import numpy as np

    from bench.find_data import growing_trace

    @numba.njit
    def prompts(starts: Any, nodes: Any, sizes: Any, sums: Any) -> None:
        for i in range(len(sums)):
            for access in range(starts[i], starts[i + 1]):
                sums[i] += sizes[nodes[access]]

    trace = growing_trace(int(accesses))
    sums = np.zeros(trace.requests, np.int64)
    prompts(trace.starts[:2], trace.nodes, trace.sizes, sums[:1])  # which compiles it
    sums[:] = 0
    start = time.perf_counter()
    prompts(trace.starts, trace.nodes, trace.sizes, sums)
    seconds = time.perf_counter() - start
    if (sums + trace.plain != trace.prompt).any():
        raise ValueError("the sums are not those of the prompts")
    return {"per_s": trace.accesses / seconds}


def naive(
    times: list[int], paths: list[list[int]], system: list[int], sizes: list[int]
) -> list[tuple[int, int]]:
    """Tokens read and written by each request, marked behind its system prompt and at its end."""
    lives: dict[int, int] = {}  # of segments: when each expires
    entries: dict[int, int] = {}
    bills = []
    for now, path, own in zip(times, paths, system, strict=False):
        reach = 0
        while reach < len(path) and lives.get(path[reach], -1) >= now:
            reach += 1
        read = -1
        for mark in (own - 1, len(path) - 1):
            for place in range(min(mark, reach - 1), max(read, mark - 20), -1):
                if entries.get(path[place], -1) >= now:
                    read = place
                    break
        for place, node in enumerate(path):
            lives[node] = now + FIVE_US
            if place <= read and entries.get(node, -1) >= now:
                entries[node] = now + FIVE_US
        for mark in (own - 1, len(path) - 1):
            if mark > read:
                entries[path[mark]] = now + FIVE_US
        reads = sum(sizes[node] for node in path[: read + 1])
        bills.append((reads, sum(sizes[node] for node in path) - reads))
    return bills


def _digest(bills: list[tuple[int, int]]) -> str:
    return hashlib.sha256(repr(bills).encode()).hexdigest()


# --- a bill --------------------------------------------------------------------------------------------------------


def bill_scan(folder: str) -> dict[str, Any]:
    """The floor of reconciling: read what tells a line's day, account and type, and add up the amounts."""
    import duckdb

    start = time.perf_counter()
    keys = ("line_item_usage_start_date", "line_item_usage_account_id", "line_item_usage_type")
    read = [f"max({name})" for name in keys] + [
        "sum(line_item_usage_amount)",
        "sum(line_item_unblended_cost)",
    ]
    duckdb.connect().execute(f"SELECT {', '.join(read)} FROM '{folder}/*.parquet'").fetchall()
    return {"seconds": time.perf_counter() - start}


# --- what-ifs ------------------------------------------------------------------------------------------------------


def one_pass(folder: str) -> dict[str, Any]:
    """The ledger summed and priced once, as it is."""
    import deltalake  # noqa: F401  libraries are loaded before the clock starts
    import duckdb  # noqa: F401

    import farthing.optimise  # noqa: F401
    from farthing.cells import Question, cells
    from farthing.ledger import Ledger

    gc.set_threshold(200_000, 50, 50)  # as the command line sets it
    start = time.perf_counter()
    picos = sum(cell.cost for cell in cells(Ledger(Path(folder)), Question()))
    return {"seconds": time.perf_counter() - start, "memory_mb": memory_mb(), "picos": picos}


def scenarios(folder: str) -> dict[str, Any]:
    """The same under 64 scenarios: every set of six levers. The first is the empty one."""
    import deltalake  # noqa: F401
    import duckdb  # noqa: F401

    from farthing.cells import Question
    from farthing.ledger import Ledger
    from farthing.levers import LEVERS, Rewrite, to_model
    from farthing.optimise import Scenario, whatif

    levers: list[str | Rewrite] = [
        *sorted(LEVERS)[:4],
        to_model("claude-haiku-4-5"),
        to_model("claude-sonnet-5-5"),
    ]
    sets = [chosen for size in range(len(levers) + 1) for chosen in combinations(levers, size)]
    asked = [Scenario(str(number), chosen) for number, chosen in enumerate(sets)]
    gc.set_threshold(200_000, 50, 50)
    start = time.perf_counter()
    found = whatif(Ledger(Path(folder)), Question(), asked)
    return {
        "seconds": time.perf_counter() - start,
        "memory_mb": memory_mb(),
        "picos": found[0].cost,
        "scenarios": len(found),
        "cheapest": min(one.cost for one in found),
    }


PARTS = {
    part.__name__: part
    for part in (
        bill_scan,
        bound,
        bound_sql,
        bound_scan,
        machine,
        machine_python,
        machine_sum,
        one_pass,
        scenarios,
    )
}
