"""What is measured, each by a function that gives its results: ours, the rivals and the floor, taken in turns.

To add a measurement, write a function under `@case`; its first sentences are what docs/benchmarks.md says of it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.calls import probes
from bench.measure import ROOT, Failed, Ran, highest, middle, run, script, take_turns, warm, work
from bench.sql import VARIANTS

DATA = ROOT / ".bench"
RIVAL_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
CCUSAGE = "20.0.24"
FARTHING = (sys.executable, "-m", "farthing")
MORE_IS_BETTER = ("records/s", "rows/s", "accesses/s", "requests/s")


@dataclass
class Target:
    """What was hoped for. `met` is None where the rival is not there to compare with."""

    says: str
    value: float | None
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass
class Result:
    name: str
    unit: str
    ours: float
    peers: dict[str, float] = field(default_factory=dict)
    floor: float = field(kw_only=True)  # what nothing is measured without
    targets: list[Target] = field(default_factory=list)
    peak_mb: dict[str, float] = field(default_factory=dict)
    size: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rounds: int = 0
    others: float = 0.0

    def times(self, other: float) -> float:
        """How many times as fast as `other` we are."""
        return self.ours / other if self.unit in MORE_IS_BETTER else other / self.ours

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "ours": self.ours, "unit": self.unit, "peers": self.peers, "floor": self.floor,
            "ratio_to_floor": 1 / self.times(self.floor),
            "times_as_fast_as": {peer: self.times(v) for peer, v in self.peers.items()},
            "targets": [asdict(target) | {"met": target.met} for target in self.targets],
            "peak_mb": self.peak_mb, "size": self.size, "rounds": self.rounds, "others": self.others,
            "notes": self.notes,
        }  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """How much of everything; `--quick` takes the small ones, which show that the bench works and no more."""

    tries: int  # of a run, until it has the machine to itself
    rounds: int
    few_rounds: int  # where one takes long
    starts: int  # of programs that do next to nothing
    few_starts: int  # where a rival takes seconds
    seconds: float  # of single records
    rows: int
    many_rows: int
    log_bytes: int
    transcript_bytes: int
    blocks: int  # rows of a log of prompt blocks
    accesses: int  # of the cache machine
    lines: int  # of a bill


FULL = Sizes(
    12, 5, 3, 15, 5, 3.0, 10_000_000, 100_000_000, 2_000_000_000, 1_000_000_000, 90_000_000, 20_000_000, 10_000_000
)  # fmt: skip
QUICK = Sizes(1, 1, 1, 1, 1, 0.2, 200_000, 400_000, 20_000_000, 16_000_000, 500_000, 400_000, 100_000)

CASES: dict[str, Callable[[Sizes], Result]] = {}


def case(measure: Callable[[Sizes], Result]) -> Callable[[Sizes], Result]:
    CASES[measure.__name__] = measure
    return measure


# --- one record at a time ------------------------------------------------------------------------------------------


def _rivals(seconds: float) -> dict[str, Callable[[], Any]]:
    if not RIVAL_PYTHON.exists():
        _say("litellm and genai-prices are left out: no .venv-bench (make bench makes it)")
        return {}

    def runner(name: str) -> Callable[[], Any]:
        return lambda: script("peers.py", name, str(seconds), python=RIVAL_PYTHON)

    return {name: runner(name) for name in ("litellm", "genai-prices")}


@case
def rate_record(sizes: Sizes) -> Result:
    """One record at a time, in one process: from an Anthropic usage block to exact picodollars.

    The rivals' usage objects are made beforehand, so only their pricing is timed. The floor is rates in a
    dict and five multiplications: no id is resolved there, no date or prompt size looked at, no count checked, and no
    line says why, which is most of what a call of `rate` does.
    """
    own: dict[str, Callable[[], Any]] = {
        "farthing": lambda: work("rate", str(sizes.seconds)),
        "floor": lambda: work("ints", str(sizes.seconds)),
    }
    taken = take_turns(sizes.few_rounds, own | _rivals(sizes.seconds), sizes.tries)
    answers = {name: runs[0]["answers"] for name, runs in taken.items() if name != "floor"}
    result = Result(
        "rate_record",
        "records/s",
        middle(taken["farthing"], "per_s"),
        floor=middle(taken["floor"], "per_s"),
        rounds=sizes.few_rounds,
        others=taken.others,
    )
    result.peers = {n: middle(runs, "per_s") for n, runs in taken.items() if n not in ("farthing", "floor")}
    result.targets = [
        Target(f"at least 5 times {name}", result.times(value), 5, at_least=True)
        for name, value in result.peers.items()
    ]
    result.notes = _disagreements(answers)
    return result


def _disagreements(answers: Mapping[str, list[float | None]]) -> list[str]:
    """Where the rivals' dollars are not ours; Failed where all must agree and do not."""
    notes = []
    agreed = 0
    for i, probe in enumerate(probes()):
        ours = answers["farthing"][i]
        others = {name: given[i] for name, given in answers.items() if name != "farthing"}
        differ = {n: v for n, v in others.items() if v is None or ours is None or abs(v - ours) > 1e-12}
        if not differ:
            agreed += 1
            continue
        shown = ", ".join(f"{name} {_dollars(value)}" for name, value in differ.items())
        if probe.agree:
            raise Failed(f"{probe.name}: farthing {_dollars(ours)}, {shown}")
        notes.append(f"{probe.name}: farthing {_dollars(ours)}, {shown}")
    if len(answers) > 1:
        notes.insert(
            0,
            f"All agree to the last picodollar on {agreed} of {len(probes())} calls, with these exceptions:",
        )
    return notes


def _dollars(value: float | None) -> str:
    return "has no price" if value is None else f"${value:.10f}".rstrip("0")


# --- tables --------------------------------------------------------------------------------------------------------


def made(kind: str, size: int) -> tuple[Path, dict[str, Any]]:
    """The folder of made-up data of that kind and size, made if it is not there, and what it holds."""
    folder = DATA / f"{kind}-{size}"
    start = time.perf_counter()
    told = work("make", kind, folder, str(size))
    if (seconds := time.perf_counter() - start) > 3:
        _say(f"{kind} of {size:,} made in {seconds:.0f} s")
    return folder, {name: value for name, value in told.items() if name not in ("peak_mb", "cpu_s")}


def _group(name: str, rows: int, rounds: int, tries: int) -> Result:
    folder, _ = made("ledger", rows)
    runners: dict[str, Callable[[], Any]] = {"farthing": lambda: work("group", folder)}
    runners |= {variant: partial(work, "sql", folder, variant) for variant in VARIANTS}
    runners["floor"] = lambda: work("scan", folder)
    taken = take_turns(rounds, runners, tries)
    if len({run["digest"] for name, runs in taken.items() if name != "floor" for run in runs}) != 1:
        raise Failed(f"{name}: the answers are not equal: {taken}")
    seconds = {name: middle(runs, "seconds") for name, runs in taken.items()}
    best = min(VARIANTS, key=lambda variant: seconds[variant])
    result = Result(
        name, "s", seconds["farthing"], {"DuckDB SQL": seconds[best]}, floor=seconds["floor"], rounds=rounds
    )
    memory = highest(taken["farthing"], "memory_mb")
    result.peak_mb = {"farthing": memory, "DuckDB SQL": highest(taken[best], "memory_mb")}
    result.targets = [
        Target("at most 1.3 times the best SQL", seconds["farthing"] / seconds[best], 1.3),
        Target("under 1,000 MB", memory, 1_000),
    ]
    usage = folder / "usage"
    result.size = {
        "rows": rows,
        "groups": taken["farthing"][0]["rows"],
        "parquet_bytes": sum(path.stat().st_size for path in usage.rglob("*.parquet")),
        "picodollars": taken["farthing"][0]["picos"],
    }
    said = ", ".join(f"{variant} {seconds[variant]:.2f} s" for variant in VARIANTS)
    result.notes = [f"All answers are equal to the last picodollar. SQL, by variant (bench/sql.py): {said}."]
    return result


@case
def rate_group_10m(sizes: Sizes) -> Result:
    """Spend by model, team and day over a ledger of 10 million rows, as `farthing by` makes it.

    The rival is the best of several hand-written DuckDB queries on the same files, spared what farthing does
    besides: resolving SKUs, finding price changes, counting what is unpriced or assumed. The floor reads and
    adds up the five token columns.
    """
    return _group("rate_group_10m", sizes.rows, sizes.rounds, sizes.tries)


@case
def rate_group_100m(sizes: Sizes) -> Result:
    """The same over 100 million rows, with the same floor."""
    return _group("rate_group_100m", sizes.many_rows, sizes.few_rounds, sizes.tries)


@case
def rate_frame(sizes: Sizes) -> Result:
    """Rows a second of the ledger of 10 million, rated and grouped, beside the rivals' records a second.

    The floor is that of rate_group_10m, in rows a second.
    """
    folder, _ = made("ledger", sizes.rows)
    runners: dict[str, Callable[[], Any]] = {
        "farthing": lambda: work("group", folder),
        "floor": lambda: work("scan", folder),
    }
    taken = take_turns(sizes.few_rounds, runners | _rivals(sizes.seconds), sizes.tries)
    speed = sizes.rows / middle(taken["farthing"], "seconds")
    result = Result(
        "rate_frame", "rows/s", speed, floor=sizes.rows / middle(taken["floor"], "seconds"), rounds=sizes.few_rounds,
        size={"rows": sizes.rows}, others=taken.others,
    )  # fmt: skip
    result.peers = {n: middle(runs, "per_s") for n, runs in taken.items() if n not in ("farthing", "floor")}
    result.targets = [
        Target(f"at least 500 times {name}", result.times(value), 500, at_least=True)
        for name, value in result.peers.items()
    ]
    return result


# --- imports -------------------------------------------------------------------------------------------------------


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder on the disk of the data, gone afterwards."""
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=DATA) as folder:
        yield Path(folder)


def _import_logs(logs: Path, told: Mapping[str, int]) -> Ran:
    """`farthing import` into a new ledger; Failed unless every call and token arrived."""
    with _scratch() as scratch:
        ran = run([*FARTHING, "import", logs, "--ledger", scratch / "ledger"])
        _check(
            json.loads(run([*FARTHING, "monthly", "--json", "--ledger", scratch / "ledger"]).out),
            told,
            "records",
        )
        return ran


def _check(report: Mapping[str, Any], told: Mapping[str, int], calls: str) -> None:
    found = {
        name: sum(row[name] for row in report["rows"]) for name in ("calls", "input", "output", "cache_read")
    }
    wanted = {
        "calls": told[calls],
        "input": told["input"],
        "output": told["output"],
        "cache_read": told["read"],
    }
    if found != wanted:
        raise Failed(f"found {found}, wanted {wanted}")


@case
def import_logs(sizes: Sizes) -> Result:
    """`farthing import` of 2 GB of Bedrock invocation logs (.json.gz) into a new ledger, as a command.

    The floor decompresses the same files with isal on two processes and does nothing else. The rival adds up
    the counts at the top of each record with DuckDB's JSON reader, and keeps nothing.
    """
    folder, told = made("logs", sizes.log_bytes)
    rounds = sizes.few_rounds
    taken = take_turns(
        rounds,
        {
            "farthing": lambda: _import_logs(folder, told),
            "floor": lambda: work("gunzip", folder),
            "DuckDB read_json": lambda: work("read_json", folder),
        },
        sizes.tries,
    )
    result = Result(
        "import_logs",
        "s",
        middle(taken["farthing"], "seconds"),
        floor=middle(taken["floor"], "seconds"),
        size=dict(told),
        rounds=rounds,
        others=taken.others,
    )
    result.peers = {"DuckDB read_json": middle(taken["DuckDB read_json"], "seconds")}
    result.peak_mb = memory(taken, "farthing") | {
        "DuckDB read_json": highest(taken["DuckDB read_json"], "peak_mb")
    }
    result.notes = [_processor_seconds(taken)]
    result.targets = [Target("at most 2.5 times the floor", result.ours / result.floor, 2.5)]
    return result


def _processor_seconds(taken: Mapping[str, list[Any]]) -> str:
    """Less disturbed by a busy machine than the time on the clock."""
    return (
        "Processor seconds: "
        + ", ".join(f"{n} {middle(runs, 'cpu_s'):.1f}" for n, runs in taken.items())
        + "."
    )


def memory(taken: Mapping[str, list[Any]], name: str) -> dict[str, float]:
    return {
        f"{name}, all processes": highest(taken[name], "together_mb"),
        f"{name}, largest process": highest(taken[name], "largest_mb"),
    }


@case
def import_transcripts(sizes: Sizes) -> Result:
    """`farthing` without arguments on 1 GB of Claude Code transcripts: read, count each call once, print the bill.

    The rival is `ccusage daily --offline --json` on the same files. The floor reads every byte and counts lines.
    """
    folder, told = made("transcripts", sizes.transcript_bytes)
    with _scratch() as home:
        env = {"CLAUDE_CONFIG_DIR": str(folder), "FARTHING_LEDGER": str(home / "none"), "HOME": str(home)}
        _check(json.loads(run([*FARTHING, "monthly", "--json"], env).out), told, "messages")
        runners: dict[str, Callable[[], Any]] = {
            "farthing": lambda: run(FARTHING, env),
            "floor": lambda: work("read", folder),
        }
        notes = []
        if rival := ccusage():
            runners["ccusage"] = lambda: run([rival, "daily", "--offline", "--json"], env)
            notes.append(
                _ccusage_agrees(json.loads(run([rival, "daily", "--offline", "--json"], env).out), told)
            )
        taken = take_turns(sizes.few_rounds, runners, sizes.tries)
    ours = middle(taken["farthing"], "seconds")
    result = Result(
        "import_transcripts",
        "s",
        ours,
        floor=middle(taken["floor"], "seconds"),
        size=dict(told),
        rounds=sizes.few_rounds,
        notes=notes,
        others=taken.others,
    )
    result.notes.append(_processor_seconds(taken))
    result.peak_mb = memory(taken, "farthing")
    ratio = None
    if "ccusage" in taken:
        result.peers = {"ccusage": middle(taken["ccusage"], "seconds")}
        result.peak_mb |= memory(taken, "ccusage")
        ratio = ours / result.peers["ccusage"]
    result.targets = [
        Target("at most 0.7 times ccusage", ratio, 0.7),
        Target("all processes together under 400 MB", result.peak_mb["farthing, all processes"], 400),
    ]
    return result


def _ccusage_agrees(report: Mapping[str, Any], told: Mapping[str, int]) -> str:
    names = {
        "inputTokens": "input",
        "outputTokens": "output",
        "cacheReadTokens": "read",
        "cacheCreationTokens": "written",
    }
    differ = {name: report["totals"][name] - told[ours] for name, ours in names.items()}
    if not any(differ.values()):
        return "ccusage and farthing count the same tokens on every meter."
    return f"ccusage counts other tokens than were written: {differ}"


def ccusage() -> Path | None:
    """The program, installed from npm if it is not there; None, and the reason said, where that cannot be."""
    folder = DATA / f"ccusage-{CCUSAGE}"
    program = folder / "node_modules" / ".bin" / "ccusage"
    if program.exists():
        return program
    npm = shutil.which("npm")
    if npm is None:
        _say("ccusage is left out: no npm")
        return None
    folder.mkdir(parents=True, exist_ok=True)
    try:
        run([npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, f"ccusage@{CCUSAGE}"])
    except Failed as error:
        _say(f"ccusage is left out: {error}")
        return None
    return program


# --- starting ------------------------------------------------------------------------------------------------------

_OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def _start(python: str | Path, code: str) -> Callable[[], Ran]:
    return lambda: run([python, "-c", code], _OFFLINE)


@case
def import_time(sizes: Sizes) -> Result:
    """`import farthing`, from the start of Python to its end. The floor is Python doing nothing."""
    runners = {"floor": _start(sys.executable, "pass"), "farthing": _start(sys.executable, "import farthing")}
    taken = take_turns(sizes.starts, runners, sizes.tries)
    ms = {name: 1_000 * middle(runs, "seconds") for name, runs in taken.items()}
    added = max(0.0, ms["farthing"] - ms["floor"])
    result = Result(
        "import_time", "ms", ms["farthing"], floor=ms["floor"], rounds=sizes.starts, others=taken.others
    )
    result.targets = [Target("under 100 ms more than Python alone", added, 100)]
    result.notes = ["What farthing needs is loaded when first used."]
    return result


_FIRST_PRICE = {
    "farthing": "from datetime import UTC, datetime; from farthing import rate\n"
    "rate('global.anthropic.claude-sonnet-4-6', datetime.now(UTC), {'input_tokens': 9, 'output_tokens': 9})",
    "genai-prices": "from genai_prices import Usage, calc_price\n"
    "calc_price(Usage(input_tokens=9, output_tokens=9), 'global.anthropic.claude-sonnet-4-6', provider_id='aws')",
    "litellm": "from litellm import cost_per_token\n"
    "cost_per_token('global.anthropic.claude-sonnet-4-6', 9, 9, custom_llm_provider='bedrock')",
}


@case
def first_price(sizes: Sizes) -> Result:
    """From the start of Python to the price of one call. The floor is Python doing nothing.

    The rest is loading what reads usage and prices, and the price book itself.
    """
    runners = {"floor": _start(sys.executable, "pass")}
    for name, code in _FIRST_PRICE.items():
        if name == "farthing" or RIVAL_PYTHON.exists():
            runners[name] = _start(sys.executable if name == "farthing" else RIVAL_PYTHON, code)
    taken = take_turns(sizes.few_starts, runners, sizes.tries)
    ms = {name: 1_000 * middle(runs, "seconds") for name, runs in taken.items()}
    peers = {name: value for name, value in ms.items() if name not in ("farthing", "floor")}
    return Result(
        "first_price", "ms", ms["farthing"], peers, floor=ms["floor"], rounds=sizes.few_starts, others=taken.others
    )  # fmt: skip


@case
def help_time(sizes: Sizes) -> Result:
    """`farthing --help`, from start to end. The floor is Python doing nothing.

    The rest is loading: the library that reads command lines and the one that sets help, two thirds of it, and the
    reports, each of which is a command by itself.
    """
    runners = {"farthing": lambda: run([*FARTHING, "--help"]), "floor": _start(sys.executable, "pass")}
    if rival := ccusage():
        runners["ccusage"] = lambda: run([rival, "--help"])
    taken = take_turns(sizes.starts, runners, sizes.tries)
    ms = {name: 1_000 * middle(runs, "seconds") for name, runs in taken.items()}
    peers = {name: ms[name] for name in ms if name == "ccusage"}
    return Result(
        "help_time", "ms", ms["farthing"], peers, floor=ms["floor"], rounds=sizes.starts, others=taken.others
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def prepare() -> None:
    """A folder for data that keeps itself out of git, and modules compiled."""
    DATA.mkdir(exist_ok=True)
    (DATA / ".gitignore").write_text("*\n")
    own = "farthing.cli, farthing.api, farthing.render, farthing.importers._worker, farthing.importers.bedrock_log"
    warm(
        sys.executable, f"{own}, farthing.importers.claude_code, duckdb, deltalake, rich.table, rich.progress"
    )
    if RIVAL_PYTHON.exists():
        warm(RIVAL_PYTHON, "litellm, genai_prices, litellm.llms.anthropic.chat.transformation")
