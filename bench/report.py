"""Results as a table, as JSON, and as docs/benchmarks.md, which is written from the JSON and nothing else."""

from __future__ import annotations

import inspect
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("farthing", "duckdb", "narwhals", "deltalake", "msgspec", "isal", "numpy", "numba")


def surroundings() -> dict[str, Any]:
    """When, on what and with what a result was taken."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory_gb()} GB, {platform.system()}",
        "versions": {"python": platform.python_version()} | {n: v for n in PACKAGES if (v := _version(n))},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def _memory_gb() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)


def load(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()) if path.exists() else []


def save(path: Path, fresh: Iterable[Mapping[str, Any]], order: Iterable[str]) -> list[dict[str, Any]]:
    """Fresh results in place of those of the same names; the others stay as they were."""
    known = {entry["name"]: entry for entry in load(path)} | {entry["name"]: dict(entry) for entry in fresh}
    kept = [known[name] for name in order if name in known]
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return kept


# --- tables --------------------------------------------------------------------------------------------------------

HEAD = ("what", "farthing", "rivals", "times as fast", "floor", "over the floor", "target", "")


def rows(entries: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One line a target; the figures stand in the first line of each measurement."""
    out: list[tuple[str, ...]] = []
    for entry in entries:
        unit = entry["unit"]
        peers = ", ".join(f"{name} {_figure(value, unit)}" for name, value in entry["peers"].items())
        times = ", ".join(_times(value) for value in entry["times_as_fast_as"].values())
        floor = "" if entry["floor"] is None else _figure(entry["floor"], unit)
        ratio = "" if entry["ratio_to_floor"] is None else f"{_plain(entry['ratio_to_floor'])} x"
        start = (entry["name"], _figure(entry["ours"], unit), peers, times, floor, ratio)
        for target in entry["targets"] or [None]:
            out.append((*start, *_aim(target)))
            start = ("",) * 6
    return out


def _aim(target: Mapping[str, Any] | None) -> tuple[str, str]:
    if target is None:
        return "", ""
    if target["met"] is None:
        return target["says"], "not compared"
    return f"{target['says']}: {_plain(target['value'])}", "met" if target["met"] else "**missed**"


def _figure(value: float, unit: str) -> str:
    return f"{_plain(value)} {unit}"


def _plain(value: float) -> str:
    """Three figures that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _times(value: float) -> str:
    """A loss is told as plainly as a win."""
    return f"{_plain(value)}" + (" (slower)" if value < 1 else "")


def table(entries: Iterable[Mapping[str, Any]]) -> str:
    """For the terminal."""
    lines = [HEAD, *rows(entries)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    shown = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([shown[0], "-" * max(map(len, shown)), *shown[1:]]).replace("**", "")


# --- the page ------------------------------------------------------------------------------------------------------

INTRODUCTION = """# Benchmarks

Written by `python bench/run.py --docs` from `bench/results.json`; nothing here is copied by hand.

- `make bench` measures everything and writes both. The first time it makes about 7 GB of data in `.bench/`; all in all
  it takes the better part of an hour.
- `python bench/run.py --only NAME` measures one (may be repeated); `--quick` tries all of them on little data, in
  under two minutes, and leaves the results alone.
- `make bench-compare BASE=COMMIT` tells what became slower since: the results on record then and now, and, by valgrind,
  the instructions of small work of fixed sizes with the code of both, which hardly vary.

How it is measured: rivals, floor and farthing take turns, round by round, in processes of their own, with files in the
page cache; each figure is the median of its rounds. A run during which something else used more than a twentieth of
the processors is taken again, a dozen times at most, and the calmest counts. Data is made from seeds. Where two give
the same answer it is checked, to the last picodollar or token. A floor is the least that any program would have to do.
"Times as fast" compares with each rival in its order; below 1 we lose. The machine is small and shared: ratios say more
than times.
"""


def page(entries: Sequence[Mapping[str, Any]], cases: Mapping[str, Callable[..., Any]]) -> str:
    """docs/benchmarks.md."""
    parts = [INTRODUCTION, _markdown([HEAD, *rows(entries)]), _tally(entries)]
    for entry in entries:
        parts.append(f"## {entry['name']}\n\n{inspect.getdoc(cases[entry['name']])}\n")
        parts.append("\n".join(f"- {line}" for line in _details(entry)) + "\n")
    parts.append(f"## Taken with\n\n{_taken(entries)}")
    return "\n".join(parts)


def _markdown(lines: list[tuple[str, ...]]) -> str:
    head, *body = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(HEAD), *body, ""])


def _tally(entries: Sequence[Mapping[str, Any]]) -> str:
    targets = [(entry["name"], target) for entry in entries for target in entry["targets"]]
    missed = [f"{name} ({target['says']})" for name, target in targets if target["met"] is False]
    lost = [
        f"{entry['name']} to {peer}"
        for entry in entries
        for peer, t in entry["times_as_fast_as"].items()
        if t < 1
    ]
    met = sum(target["met"] is True for _, target in targets)
    lines = [f"Targets met: {met} of {len(targets)}." + (f" Missed: {'; '.join(missed)}." if missed else "")]
    lines.append(f"Slower than a rival: {'; '.join(lost)}." if lost else "Slower than a rival: nowhere.")
    far = sorted(
        (entry for entry in entries if entry["ratio_to_floor"]), key=lambda one: -one["ratio_to_floor"]
    )
    said = ", ".join(f"{entry['name']} ({_plain(entry['ratio_to_floor'])} x)" for entry in far[:3])
    lines.append(f"Furthest from the floor: {said}. Below each says why.")
    return "\n\n".join(lines) + "\n"


def _details(entry: Mapping[str, Any]) -> list[str]:
    calm = f"others took {entry['others']:.0%} of the processors at most"
    lines = [f"{entry['rounds']} rounds, {entry['taken']['date']}; {calm}."]
    if entry["size"]:
        lines.append("Data: " + ", ".join(f"{name} {value:,}" for name, value in entry["size"].items()) + ".")
    if entry["peak_mb"]:
        lines.append(
            "Peak memory: " + ", ".join(f"{n} {value:,.0f} MB" for n, value in entry["peak_mb"].items()) + "."
        )
    return [*lines, *entry["notes"]]


def _taken(entries: Iterable[Mapping[str, Any]]) -> str:
    """Each machine and set of versions, once."""
    seen: dict[str, list[str]] = {}
    for entry in entries:
        with_ = ", ".join(f"{name} {value}" for name, value in entry["taken"]["versions"].items())
        seen.setdefault(f"{entry['taken']['machine']}; {with_}", []).append(entry["name"])
    if len(seen) == 1:
        return f"{next(iter(seen))}.\n"
    return "\n".join(f"- {text}: {', '.join(names)}." for text, names in seen.items()) + "\n"
