"""Running programs and measuring them: wall time, memory of the whole process tree, rounds that take turns.

The memory of the largest process is the kernel's own count. A child begins with the count of the process that
started it, so whoever measures stays small: data is made, and engines are loaded, in programs of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_S = 0.02
CALM = 0.05  # the share of the processors that others may take while something is measured
CALM_PAUSE_S = 4
MB = 1_000_000


class Ran(NamedTuple):
    """A program that ran: `largest_mb` is the peak of its largest process, `together_mb` that of all at once.

    The second is sampled, with pages that processes share counted in each; where there is no /proc it is 0.
    """

    seconds: float
    cpu_s: float  # of all its processors and processes
    largest_mb: float
    together_mb: float
    out: str


class Failed(RuntimeError):
    """A measured program ended badly: its last words."""


def run(argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Ran:
    """Run a program to its end from the root of the repository; Failed unless it exits with 0."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        child = subprocess.Popen(argv, stdout=out, stderr=err, cwd=ROOT, env=_usual() | dict(env or {}))
        watch = _Watch(child.pid)
        watch.start()
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        watch.stop()
        out.seek(0)
        err.seek(0)
        if child.returncode:
            said = err.read().decode(errors="replace").strip() or out.read().decode(errors="replace").strip()
            raise Failed(f"{' '.join(map(str, argv))} exited with {child.returncode}:\n{said[-2_000:]}")
        unit = 1 if sys.platform == "darwin" else 1024
        largest = used.ru_maxrss * unit / MB
        return Ran(
            seconds, used.ru_utime + used.ru_stime, largest, max(watch.peak / MB, 0), out.read().decode()
        )


def _usual() -> dict[str, str]:
    """The environment of a measured program: Python keeps compiled modules, as it does for any user."""
    odd = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPROFILEIMPORTTIME")
    kept = {name: value for name, value in os.environ.items() if name not in odd}
    return kept | {"PYTHONPYCACHEPREFIX": str(ROOT / ".bench" / "pycache")}


class _Watch(threading.Thread):
    """Adds up the resident memory of a process and its descendants, many times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self._done = pid, 0, threading.Event()
        self.page = os.sysconf("SC_PAGE_SIZE")

    def run(self) -> None:
        while not self._done.wait(SAMPLE_S):
            self.peak = max(self.peak, sum(self._resident(pid) for pid in self._tree(self.pid)))

    def stop(self) -> None:
        self._done.set()
        self.join()

    def _tree(self, pid: int) -> list[int]:
        found = [pid]
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                for child in (task / "children").read_text().split():
                    found += self._tree(int(child))
        except OSError:  # it has ended, or this system keeps no such files
            pass
        return found

    def _resident(self, pid: int) -> int:
        try:
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * self.page
        except (OSError, IndexError):
            return 0


def memory_mb() -> float:
    """The peak of this program alone, without that of the one which started it; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), 0)


def work(*argv: str | Path, python: str | Path = sys.executable) -> dict[str, Any]:
    """What a part of bench/work.py measured of itself, in a process of its own."""
    return script("work.py", *argv, python=python)


def script(name: str, *argv: str | Path, python: str | Path = sys.executable) -> dict[str, Any]:
    """Run a script of this folder; its last line is JSON. `peak_mb` and `cpu_s` are added to it."""
    ran = run([python, ROOT / "bench" / name, *argv], {"LITELLM_LOCAL_MODEL_COST_MAP": "True"})
    told: dict[str, Any] = json.loads(ran.out.splitlines()[-1])
    return told | {"peak_mb": ran.largest_mb, "cpu_s": ran.cpu_s}


class Turns(dict[str, list[Any]]):
    """What each runner gave, round by round. `others` is the most that others took of the processors meanwhile."""

    others = 0.0


def warm(python: str | Path, modules: str) -> None:
    """Import these once, so that no measured program has to compile them."""
    run([python, "-c", f"import {modules}"], {"LITELLM_LOCAL_MODEL_COST_MAP": "True"})


def take_turns(rounds: int, runners: Mapping[str, Callable[[], Any]], tries: int = 1) -> Turns:
    """Each runner once a round, so that a busy minute of the machine falls on all alike.

    A run during which others were busy too is tried again, up to `tries` times; the calmest one counts.
    """
    taken = Turns({name: [] for name in runners})
    for number in range(rounds):
        for name, runner in runners.items():
            if sys.stderr.isatty():
                print(
                    f"\r\033[K  round {number + 1} of {rounds}: {name}", end="\r", file=sys.stderr, flush=True
                )
            others, result = _calm(runner, tries)
            taken[name].append(result)
            taken.others = max(taken.others, others)
    return taken


def _calm(runner: Callable[[], Any], tries: int) -> tuple[float, Any]:
    """The result of the run in which others took the least of the processors, and that share."""
    calmest: tuple[float, Any] | None = None
    for attempt in range(tries):
        if attempt:
            time.sleep(CALM_PAUSE_S)
        start, busy, own = time.perf_counter(), _busy_s(), _own_s()
        result = runner()
        spent = (time.perf_counter() - start) * (os.cpu_count() or 1)
        others = max(0.0, (_busy_s() - busy - (_own_s() - own)) / spent)
        if calmest is None or others < calmest[0]:
            calmest = (others, result)
        if others <= CALM:
            break
    assert calmest is not None
    return calmest


def _busy_s() -> float:
    """Processor seconds that the whole machine has worked, or that its host has taken from it; 0 if unknown."""
    try:
        user, nice, system, _, _, *rest = map(
            int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        )
    except (OSError, ValueError):
        return 0
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Processor seconds of this process and the programs it has run."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def middle(taken: Sequence[Any], name: str = "") -> float:
    """The median of a field, of an attribute, or of the values themselves."""
    return float(median(_field(one, name) for one in taken))


def highest(taken: Sequence[Any], name: str) -> float:
    return float(max(_field(one, name) for one in taken))


def _field(one: Any, name: str) -> float:
    if not name:
        return float(one)
    return float(one[name] if isinstance(one, dict) else getattr(one, name))
