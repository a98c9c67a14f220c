"""What became slower since a commit: `python bench/compare.py BASE`, as `make bench-compare BASE=COMMIT` runs it.

Two tables. Times are those on record, bench/results.json then and now: on a shared machine a tenth means nothing. So
small work of fixed sizes (bench/counted.py) is run by valgrind, with the code of both, and its instructions are
counted: they hardly vary. Exit code 1 if one of these takes 3 % more, or a time on record a quarter more.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.counted import WORK  # noqa: E402

MORE_TIME, MORE_INSTRUCTIONS = 1.25, 1.03
RESULTS = "bench/results.json"
VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")

Row = tuple[str, str, str, str, str]


def main(base: str) -> int:
    commit = _git("rev-parse", "--short", f"{base}^{{commit}}").strip()
    slips = _print(
        "on record", commit, list(times(_recorded(commit), json.loads((ROOT / RESULTS).read_text())))
    )
    if shutil.which("valgrind") is None:
        print("instructions are not counted: install valgrind (apt install valgrind)", file=sys.stderr)
        return int(slips)
    with _checked_out(commit) as old:
        slips |= _print("instructions", commit, list(instructions(old, ROOT)))
    return int(slips)


# --- times on record -------------------------------------------------------------------------------------------------


def _recorded(commit: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_git("show", f"{commit}:{RESULTS}"))
    return found


def times(base: list[dict[str, Any]], now: list[dict[str, Any]]) -> Iterator[Row]:
    """What is in both, by name. Of what is counted a second more is better, of all else less."""
    before = {entry["name"]: entry for entry in base}
    for entry in now:
        if old := before.get(entry["name"]):
            unit = entry["unit"]
            cost = old["ours"] / entry["ours"] if unit.endswith("/s") else entry["ours"] / old["ours"]
            said = [_figure(value, unit) for value in (old["ours"], entry["ours"])]
            yield entry["name"], said[0], said[1], f"{cost:.3f}", _said(cost, MORE_TIME)


def _figure(value: float, unit: str) -> str:
    return f"{value:,.3g} {unit}" if value < 1_000 else f"{value:,.0f} {unit}"


# --- instructions ----------------------------------------------------------------------------------------------------


def instructions(old: Path, new: Path) -> Iterator[Row]:
    """Of each piece of work, without what it takes to start Python and to load what is needed."""
    for name, (_, size) in WORK.items():
        before, after = _more(old, name, size), _more(new, name, size)
        if before is None or after is None:
            yield name, _counted(before), _counted(after), "", ""
        else:
            times = after / before
            yield name, _counted(before), _counted(after), f"{times:.3f}", _said(times, MORE_INSTRUCTIONS)


def _counted(count: int | None) -> str:
    return "not run" if count is None else f"{count:,}"


def _more(place: Path, name: str, size: int) -> int | None:
    """Instructions that twice the work takes beyond the work itself; of a start, all of it."""
    _run([], place, name, size)  # what Python compiles once is compiled
    whole = _count(place, name, size)
    if whole is None or name == "begin":
        return whole
    twice = _count(place, name, 2 * size)
    return None if twice is None else (twice - whole) // size


def _count(place: Path, name: str, size: int) -> int | None:
    """None if it does not run there: an older farthing may lack what it uses."""
    ran = _run(VALGRIND, place, name, size)
    found = re.search(r"I\s+refs:\s+([\d,]+)", ran.stderr)
    if ran.returncode or not found:
        print(f"{name} does not run in {place.name}: {ran.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return int(found[1].replace(",", ""))


def _run(under: Sequence[str], place: Path, name: str, size: int) -> subprocess.CompletedProcess[str]:
    """With the code of that place, and the same hashes in every run."""
    words = [*under, sys.executable, str(ROOT / "bench" / "counted.py"), name, str(size)]
    env = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": ""}
    return subprocess.run(words, cwd=place, env=env, capture_output=True, text=True, check=False)


@contextmanager
def _checked_out(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / commit
        _git("worktree", "add", "--detach", "--quiet", str(place), commit)
        try:
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


# --- both ------------------------------------------------------------------------------------------------------------


def _said(cost: float, most: float) -> str:
    return "slower" if cost > most else "quicker" if cost < 1 / most else ""


def _print(what: str, commit: str, rows: list[Row]) -> bool:
    """The table; whether something became slower."""
    lines = [(what, commit, "now", "times", ""), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    for line in lines:
        figures = [cell.rjust(width) for cell, width in zip(line[1:4], widths[1:4], strict=True)]
        cells = [line[0].ljust(widths[0]), *figures]
        print("  ".join([*cells, line[4]]).rstrip())
    print()
    return any(line[4] == "slower" for line in rows)


def _git(*words: str) -> str:
    ran = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"git {words[0]}: {ran.stderr.strip()}")
    return ran.stdout


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("make bench-compare BASE=COMMIT")
    raise SystemExit(main(sys.argv[1]))
