"""Usage summed by day, context, tag set and price box: what every question that tells no single calls apart is made of.

The sums are whole numbers in numpy arrays, kept beside the ledger, and brought up to date from its new files alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zoneinfo import ZoneInfo

import numpy as np

from farthing.book import ANY_PROMPT, Book
from farthing.cells import local_day
from farthing.meters import METERS
from farthing.usage import EPOCH

FORMAT = 1
CACHED = " + ".join(METERS[2:])
PROMPT = " + ".join(meter for meter in METERS if meter != "output")
BY = ("day", "local", "ctx", "tags", "band", "cached")
COUNTS = ("calls", *METERS, *(f"calls_{meter}" for meter in METERS))
_MOST = 2**62  # of a column's absolute sum: no group of it can then leave 64 bits
_LONG_AGO, _LONG_AHEAD = datetime(2015, 1, 1, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)

Array = Any  # of int64


class TooLarge(ValueError):
    """A count that 64 bits may not hold: the engine says so in its own way."""


@dataclass
class Sums:
    """`by` and `counts` are columns of equal length, each group there once. `files` are those that are in it."""

    tz: str
    edges: tuple[int, ...]  # prompt sizes at which any price of the book changes; `band` counts those reached
    files: frozenset[str]
    by: dict[str, Array]
    counts: dict[str, Array]

    def __len__(self) -> int:
        return len(self.by["day"])


def edges_in(book: Book) -> tuple[int, ...]:
    """Every prompt size at which a price of the book changes."""
    sizes = {size for card in book.cards() for size in (card.prompt_from, card.prompt_to)}
    return tuple(sorted(size for size in sizes if 0 < size < ANY_PROMPT))


def read(con: Any, files: Sequence[str], zone: ZoneInfo, edges: tuple[int, ...]) -> Sums:
    """The sums of these data files of the table `usage`."""
    import narwhals.stable.v2 as nw

    names = [Path(file).name for file in files]
    if not files:
        return Sums(
            str(zone), edges, frozenset(), *({n: np.zeros(0, np.int64) for n in c} for c in (BY, COUNTS))
        )
    rows = con.read_parquet(list(files), hive_partitioning=False, union_by_name=True)
    dated = nw.from_native(rows).with_columns(local=local_day(zone, _LONG_AGO, _LONG_AHEAD)).to_native()
    local = (
        "local"
        if str(dated.types[dated.columns.index("local")]) == "INTEGER"
        else "local - DATE '1970-01-01'"
    )
    band = " + ".join(f"CAST(abs({PROMPT}) >= {size} AS INTEGER)" for size in edges) or "0"
    groups = {"day": '"day"', "local": local, "ctx": "ctx", "tags": "tags", "band": band,
              "cached": f"CAST({CACHED} <> 0 AS INTEGER)"}  # fmt: skip
    sums = {"calls": "sum(calls)", **{meter: f"sum({meter})" for meter in METERS}}
    sums |= {f"calls_{meter}": f"sum(CASE WHEN {meter} <> 0 THEN calls ELSE 0 END)" for meter in METERS}
    said = ", ".join(f"CAST({sql} AS BIGINT) AS {name}_" for name, sql in {**groups, **sums}.items())
    found = dated.aggregate(said, ", ".join(groups.values())).fetchnumpy()
    columns = {name.removesuffix("_"): np.asarray(values, np.int64) for name, values in found.items()}
    by, counts = ({name: columns[name] for name in group} for group in (BY, COUNTS))
    return merged(Sums(str(zone), edges, frozenset(names), by, counts))


def added(first: Sums, second: Sums) -> Sums:
    """Both together."""
    by = {name: np.concatenate([first.by[name], second.by[name]]) for name in BY}
    counts = {name: np.concatenate([first.counts[name], second.counts[name]]) for name in COUNTS}
    return merged(Sums(first.tz, first.edges, first.files | second.files, by, counts))


def merged(sums: Sums) -> Sums:
    """Each group once; what was taken back without remainder is left out. TooLarge where 64 bits might not do."""
    for values in sums.counts.values():
        if float(np.abs(values).sum(dtype=np.float64)) >= _MOST:
            raise TooLarge
    by, counts = grouped(sums.by, sums.counts)
    left = np.zeros(len(by["day"]), bool)
    for values in counts.values():
        left |= values != 0
    return Sums(
        sums.tz, sums.edges, sums.files,
        {name: values[left] for name, values in by.items()}, {name: values[left] for name, values in counts.items()},
    )  # fmt: skip


def grouped(by: dict[str, Array], counts: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """The counts summed by the columns."""
    size = len(next(iter(by.values())))
    if not size:
        return by, counts
    key = np.zeros(size, np.int64)
    room = 1
    for (
        values
    ) in by.values():  # one number for all: codes times codes, made small again before they leave 64 bits
        low = int(values.min())
        span = int(values.max()) - low + 1
        if span > 2 * size + 1024:
            codes = np.unique(values, return_inverse=True)[1].astype(np.int64)
            low, span = 0, int(codes.max()) + 1
        else:
            codes = values - low
        if room * span >= _MOST:
            key = np.unique(key, return_inverse=True)[1].astype(np.int64)
            room = int(key.max()) + 1
        key = key * span + codes
        room *= span
    if room <= 4 * size:  # each has a place of its own: nothing need be sorted
        first = np.full(room, -1, np.int64)
        first[key[::-1]] = np.arange(size - 1, -1, -1)
        used = np.flatnonzero(first >= 0)
        summed = {name: _placed(key, values, room)[used] for name, values in counts.items()}
        return {name: values[first[used]] for name, values in by.items()}, summed
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    first = order[starts]
    summed = {name: np.add.reduceat(values[order], starts) for name, values in counts.items()}
    return {name: values[first] for name, values in by.items()}, summed


def _placed(key: Array, values: Array, room: int) -> Array:
    sums = np.zeros(room, np.int64)
    np.add.at(sums, key, values)
    return sums


# --- kept beside the ledger ------------------------------------------------------------------------------------------


def load(path: Path, tz: str, edges: tuple[int, ...]) -> Sums | None:
    """What was kept there; None if nothing fit for this was."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            said = json.loads(bytes(kept["said"]).decode())
            if said["format"] != FORMAT or said["tz"] != tz or tuple(said["edges"]) != edges:
                return None
            by, counts = ({name: kept[name] for name in group} for group in (BY, COUNTS))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return Sums(tz, edges, frozenset(said["files"]), by, counts)


def save(path: Path, sums: Sums) -> None:
    """In one step; where it cannot be kept it is made again next time."""
    said = {"format": FORMAT, "tz": sums.tz, "edges": sums.edges, "files": sorted(sums.files)}
    draft = path.with_name(f"{path.name}.draft")
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        with draft.open("wb") as out:
            np.savez(out, said=np.frombuffer(json.dumps(said).encode(), np.uint8), **sums.by, **sums.counts)
        draft.replace(path)


def day_number(at: datetime) -> int:
    """The UTC day, counted from 1970."""
    return (at - EPOCH) // timedelta(days=1)
