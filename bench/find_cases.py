"""Measurements of what finds the cheapest plan, and of reconciling a large bill."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bench.cases import FARTHING, Result, Sizes, Target, case, made, memory
from bench.measure import Failed, Ran, highest, middle, run, take_turns, work

TWO_GB = 2_000  # MB


@case
def cache_bound(sizes: Sizes) -> Result:
    """The least that caching could cost, over 90 million rows of a log of prompt blocks in Parquet, on DuckDB.

    The rival is gaps and islands in hand-written SQL, as a textbook has them. The floor reads the columns and
    adds them up. Blocks of growing conversations are sent together; in the second log no two blocks are. What is
    between the two is bringing each block's accesses together, in order of time: DuckDB's sort.
    """
    folder, told = made("blocks", sizes.blocks)
    runners: dict[str, Callable[[], Any]] = {
        "farthing": lambda: work("bound", folder / "growing"),
        "DuckDB SQL": lambda: work("bound_sql", folder / "growing"),
        "floor": lambda: work("bound_scan", folder / "growing"),
        "unlike": lambda: work("bound", folder / "unlike"),
        "unlike, SQL": lambda: work("bound_sql", folder / "unlike"),
    }
    taken = take_turns(sizes.few_rounds, runners, sizes.tries)
    for ours, theirs in (("farthing", "DuckDB SQL"), ("unlike", "unlike, SQL")):
        if len({run["picos"] for name in (ours, theirs) for run in taken[name]}) != 1:
            raise Failed(f"cache_bound: {ours} and {theirs} differ")
    seconds = {name: middle(runs, "seconds") for name, runs in taken.items()}
    result = Result(
        "cache_bound", "s", seconds["farthing"], {"DuckDB SQL": seconds["DuckDB SQL"]}, floor=seconds["floor"],
        rounds=sizes.few_rounds, others=taken.others, size=told,
    )  # fmt: skip
    result.peak_mb = {name: highest(runs, "memory_mb") for name, runs in taken.items() if name != "floor"}
    result.targets = [
        Target("at most 30 s", seconds["farthing"], 30),
        Target("at most 30 s where no two blocks are sent together", seconds["unlike"], 30),
    ]
    cpu = {name: middle(runs, "cpu_s") for name, runs in taken.items()}
    result.notes = [
        "All answers are equal to the last picodollar.",
        f"No two blocks together: {seconds['unlike']:.2f} s, SQL {seconds['unlike, SQL']:.2f} s.",
        "Processor seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in cpu.items()) + ".",
    ]
    return result


@case
def cache_machine(sizes: Sizes) -> Result:
    """Block accesses a second of the billing machine, over a trace of growing conversations, two breakpoints each.

    The rival is a plain Python loop over dicts, which knows this one case only: its bills of the first
    requests must be ours. The floor is one compiled pass over the same arrays, which adds up each prompt's tokens
    and remembers nothing. So far above it because each access also asks when its node expires, writes when it will,
    and looks back for what can be read, as the rules say: three walks of a path, over six times a node, 35 MB in all.
    """
    accesses, alike = str(sizes.accesses), str(sizes.accesses // 5_000)
    runners: dict[str, Callable[[], Any]] = {
        "farthing": lambda: work("machine", accesses, alike),
        "Python loop": lambda: work("machine_python", accesses, alike),
        "floor": lambda: work("machine_sum", accesses),
    }
    runners["farthing"]()  # which compiles it, once
    taken = take_turns(sizes.few_rounds, runners, sizes.tries)
    if len({run["digest"] for name, runs in taken.items() if name != "floor" for run in runs}) != 1:
        raise Failed("cache_machine: the loop bills other tokens")
    first = taken["farthing"][0]
    speed = middle(taken["farthing"], "per_s")
    result = Result(
        "cache_machine", "accesses/s", speed, {"Python loop": middle(taken["Python loop"], "per_s")},
        floor=middle(taken["floor"], "per_s"), rounds=sizes.few_rounds, others=taken.others,
        size={"accesses": first["accesses"], "requests": first["requests"]},
    )  # fmt: skip
    result.peak_mb = {"farthing": highest(taken["farthing"], "memory_mb")}
    result.targets = [Target("at least 5,000,000 accesses/s", speed, 5_000_000, at_least=True)]
    policy = middle(taken["farthing"], "policy_per_s")
    result.notes = [
        f"The loop plays the first {alike} requests; both bill them alike, token for token.",
        f"The adaptive policy, deciding as it goes: {policy:,.0f} accesses/s.",
    ]
    return result


@case
def whatif_64(sizes: Sizes) -> Result:
    """64 scenarios, every set of six levers, over a ledger of 100 million rows, from opening it to the dollars.

    One pass is ours, too: the same ledger summed and priced as it is. The floor reads and adds up the five token
    columns, once.
    """
    folder, told = made("ledger", sizes.many_rows)
    runners: dict[str, Callable[[], Any]] = {
        "farthing": lambda: work("scenarios", folder),
        "one pass": lambda: work("one_pass", folder),
        "floor": lambda: work("scan", folder),
    }
    taken = take_turns(sizes.few_rounds, runners, sizes.tries)
    if len({run["picos"] for name in ("farthing", "one pass") for run in taken[name]}) != 1:
        raise Failed("whatif_64: the scenario that changes nothing costs something else than the ledger")
    seconds = {name: middle(runs, "seconds") for name, runs in taken.items()}
    result = Result(
        "whatif_64", "s", seconds["farthing"], floor=seconds["floor"], rounds=sizes.few_rounds,
        others=taken.others, size=told | {"scenarios": taken["farthing"][0]["scenarios"]},
    )  # fmt: skip
    result.peak_mb = {"farthing": highest(taken["farthing"], "memory_mb")}
    result.targets = [Target("at most 1.3 times one pass", seconds["farthing"] / seconds["one pass"], 1.3)]
    result.notes = [
        f"One pass: {seconds['one pass']:.2f} s.",
        "The scenario without a lever costs what the ledger does, to the last picodollar.",
    ]
    return result


@case
def reconcile_10m(sizes: Sizes) -> Result:
    """`farthing reconcile` of a month's CUR 2.0 of 10 million lines in Parquet with the ledger it is of, as a command.

    The floor reads each line's day, account and type with DuckDB, and adds up its amount and cost.
    """
    folder, told = made("bill", sizes.lines)

    def compare() -> Ran:
        ran = run([
            *FARTHING, "reconcile", "--statement", folder / "bill", "--month", "2026-09",
            "--ledger", folder / "ledger", "--json",
        ])  # fmt: skip
        found = json.loads(ran.out)
        if (float(found["difference_usd"]), found["decoded_share"]) != (0, 1) or float(
            found["ours_usd"]
        ) <= 0:
            raise Failed(f"reconcile_10m: not equal: {ran.out[:2_000]}")
        return ran

    runners: dict[str, Callable[[], Any]] = {
        "farthing": compare,
        "floor": lambda: work("bill_scan", folder / "bill"),
    }
    taken = take_turns(sizes.few_rounds, runners, sizes.tries)
    ours = middle(taken["farthing"], "seconds")
    result = Result(
        "reconcile_10m", "s", ours, floor=middle(taken["floor"], "seconds"), rounds=sizes.few_rounds,
        others=taken.others, size=told,
    )  # fmt: skip
    result.peak_mb = memory(taken, "farthing")
    result.targets = [
        Target("at most 60 s", ours, 60),
        Target("under 2 GB", result.peak_mb["farthing, all processes"], TWO_GB),
    ]
    result.notes = ["Bill and ledger are equal to the last picodollar, and every line is decoded."]
    return result
