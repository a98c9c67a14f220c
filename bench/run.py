"""The benchmarks: `python bench/run.py [--quick] [--only NAME]... [--docs]`. `make bench` sets up the rivals first."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import find_cases, hook_cases, live_cases, report, statusline_cases, web_cases  # noqa: F401  these add to CASES
from bench.cases import CASES, CCUSAGE, DATA, FULL, QUICK, RIVAL_PYTHON, Sizes, prepare
from bench.made import alone
from bench.measure import ROOT

RESULTS = ROOT / "bench" / "results.json"
PAGE = ROOT / "docs" / "benchmarks.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little data: shows that it works, and no more")
    parser.add_argument("--only", action="append", choices=CASES, metavar="NAME", help=", ".join(CASES))
    parser.add_argument(
        "--docs", action="store_true", help="write docs/benchmarks.md from bench/results.json, and stop"
    )
    asked = parser.parse_args()
    if not asked.docs:
        with alone(DATA / "run.lock"):
            prepare()
            measure(asked.only or list(CASES), QUICK if asked.quick else FULL)
    if not asked.quick:
        PAGE.write_text(report.page(report.load(RESULTS), CASES), encoding="utf-8")


def measure(names: list[str], sizes: Sizes) -> None:
    """Measure, print the table, and write the JSON; results of a quick run do not replace real ones."""
    target = RESULTS if sizes is FULL else DATA / "quick.json"
    taken = report.surroundings()
    taken["versions"] |= rival_versions()
    fresh: list[dict[str, Any]] = []
    for name in names:
        start = time.perf_counter()
        entry = CASES[name](sizes).as_json()
        fresh.append(entry | {"taken": taken})
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        report.save(target, fresh, CASES)
    print(report.table(fresh))
    if sizes is not FULL:
        print("Little data: these figures show that the bench works, and nothing about speed.")
    print("\n".join(f"{entry['name']}: {note}" for entry in fresh for note in entry["notes"]))
    print(f"written to {target.relative_to(ROOT)}", file=sys.stderr)


def rival_versions() -> dict[str, str]:
    """Of what runs in the other environment, and of ccusage."""
    found = {"ccusage": CCUSAGE}
    if RIVAL_PYTHON.exists():
        code = "import json; from importlib.metadata import version as v\n"
        code += "print(json.dumps({n: v(n) for n in ('litellm', 'genai-prices')}))"
        found |= json.loads(
            subprocess.run([RIVAL_PYTHON, "-c", code], check=True, capture_output=True).stdout
        )
    return found


if __name__ == "__main__":
    main()
