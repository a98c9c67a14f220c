"""Calls as they happen: the outbox of gateway and hooks, read from its end on.

An event's id says how far each file had been read, so that a browser that comes back, even to another server, misses
nothing and sees nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.book import Card, Resolved, Unpriced
from farthing.cells import FACT_KEYS
from farthing.config import UNASSIGNED, claim_by_facts, claims, fingerprint
from farthing.importers.outbox import OPEN, read
from farthing.meters import METERS, Vector
from farthing.money import usd
from farthing.rating import find
from farthing.usage import EPOCH, Usage, parse_model_id
from farthing.web._page import Kpi, Page, Row, Sheet, View
from farthing.web._where import fits

if TYPE_CHECKING:
    from farthing.config import Members

COLUMNS = ("at", "id", "model", "endpoint", "team", "status", *METERS, "usd", "latency_ms", "source")
RECENT = 50
_TAIL_BYTES = 1 << 20  # of the newest files, for the last calls
_MOST_BYTES = 4 << 20  # read at once
_OLD_S = 7_200  # a writer begins another file each hour: one that is older than this grows no more
_SEPARATOR = "~"


class Place(NamedTuple):
    """How far an outbox has been read: by file, in bytes; files that ended before `at` are done with."""

    at: int
    read: dict[str, int]

    @property
    def id(self) -> str:
        return _SEPARATOR.join(
            [str(self.at), *(f"{name}:{size}" for name, size in sorted(self.read.items()))]
        )

    @classmethod
    def of(cls, text: str) -> Place | None:
        """None if it is no id of ours: one of a time to come would hide all until then."""
        at, *files = text.split(_SEPARATOR)
        pairs = [file.rpartition(":") for file in files]
        if (
            not at.isdecimal()
            or int(at) > time.time() + 60
            or not all(name and size.isdecimal() for name, _, size in pairs)
        ):
            return None
        return cls(int(at), {name: int(size) for name, _, size in pairs})


def end_of(folder: Path) -> Place:
    """Where the outbox ends now."""
    now = int(time.time())
    sizes = {
        file.name: _whole(file, size) for file, size, changed in _files(folder) if changed > now - _OLD_S
    }
    return Place(now, sizes)


def follow(folder: Path, place: Place) -> Iterator[tuple[Usage, Place]]:
    """What was written since: each call with the place after it."""
    now = int(time.time())
    files = _files(folder)
    done = {file.name: place.read.get(file.name) for file, _, _ in files}
    sizes = {
        file.name: place.read.get(file.name, 0)
        for file, _, changed in files
        if file.name in place.read or changed > place.at - _OLD_S
    }
    for file, size, changed in files:
        begin = done[file.name]
        if begin is None:
            if changed <= place.at - _OLD_S:
                continue
            begin = 0
        if size <= begin:
            continue
        for usage, end in _calls(file, begin, size):
            sizes[file.name] = end
            yield usage, Place(now, _young(sizes, files, now))


def _young(sizes: dict[str, int], files: list[tuple[Path, int, float]], now: int) -> dict[str, int]:
    return {
        file.name: sizes[file.name]
        for file, _, changed in files
        if changed > now - _OLD_S and file.name in sizes
    }


def _files(folder: Path) -> list[tuple[Path, int, float]]:
    """In the order in which they were begun."""
    found = []
    try:
        for file in folder.glob("*.jsonl"):
            said = file.stat()
            found.append((file, said.st_size, said.st_mtime))
    except OSError:
        return []  # it is not there yet, or a file has just gone
    return sorted(found)


def _whole(file: Path, size: int) -> int:
    """Without a last line that is still being written."""
    begin = max(0, size - _TAIL_BYTES)
    data = _bytes(file, begin, size)
    return begin + data.rfind(b"\n") + 1 if b"\n" in data else begin


def _bytes(file: Path, begin: int, end: int) -> bytes:
    try:
        with file.open("rb") as opened:
            opened.seek(begin)
            return opened.read(end - begin)
    except OSError:
        return b""


def _calls(file: Path, begin: int, end: int) -> Iterator[tuple[Usage, int]]:
    """The results in these bytes, each with where its line ends. A line that cannot be read is the import's to tell."""
    at = begin
    for line in _bytes(file, begin, min(end, begin + _MOST_BYTES)).splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return
        at += len(line)
        for item in read([(1, line)]):
            if isinstance(item, Usage) and item.parts[0][0].source != OPEN:
                yield item, at


# --- as rows ---------------------------------------------------------------------------------------------------------


def rows_of(view: View) -> Callable[[Usage], Row | None]:
    """A call as a row; None for one that may not be seen, or that the filters leave out."""
    book = view.question.book
    config = view.question.config
    teams, workloads = _claimant(config.teams), _claimant(config.workloads)

    def said(usage: Usage, place: Resolved | Unpriced) -> dict[str, str]:
        """What filters ask of."""
        facts, tags = usage.parts[0][0], dict(usage.tags)
        model = parse_model_id(facts.model_id)
        whose = {
            "profiles": "" if model.base else model.profile, "principals": facts.principal,
            "projects": facts.project, "accounts": facts.account,
        }  # fmt: skip
        team = teams(usage, whose) if config.teams else tags.get("team", "")
        named = {"platform": facts.platform, "model": facts.model_id, "mode": facts.mode or "on_demand"}
        if isinstance(place, Resolved):
            named = {key: str(value) for key, value in place.sku.named().items()} | {"routing": place.routing}
        return {
            **{key: getattr(facts, key) for key in FACT_KEYS}, **named, "profile": model.profile,
            "team": team or UNASSIGNED, "workload": workloads(usage, whose) or fingerprint(whose),
            **{f"tag:{key}": value for key, value in tags.items()},
        }  # fmt: skip

    def row(usage: Usage) -> Row | None:
        placed = [book.place(facts, view.question.profiles, view.question.assume) for facts, _ in usage.parts]
        named = said(usage, placed[0])
        if not all(fits(where, named.get(where.key)) for where in view.question.where):
            return None
        parts = [Vector(*counts) for _, counts in usage.parts]
        cards = [
            place if isinstance(place, Unpriced) else find(book, place.sku, usage.at, part)
            for place, part in zip(placed, parts, strict=True)
        ]
        costs = [part @ card.rates for part, card in zip(parts, cards, strict=True) if isinstance(card, Card)]
        at = EPOCH + timedelta(microseconds=usage.at_us)
        return {
            "at": f"{at:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z",
            "id": usage.request_id or usage.message_id or usage.gateway_id,
            "model": named["model"], "endpoint": named.get("endpoint", ""), "team": named["team"],
            "status": named["status"] or "ok", **dict(zip(METERS, map(sum, zip(*parts, strict=True)), strict=True)),
            "usd": sum(costs) if len(costs) == len(parts) else None, "latency_ms": usage.latency_ms,
            "source": named["source"],
        }  # fmt: skip

    return row


def _claimant(claimants: Mapping[str, Members]) -> Callable[[Usage, Mapping[str, str]], str]:
    """Who claims a call: by its tags, else by its facts; "" if nobody."""
    by_tag, by_facts = claims(claimants, "tags"), claim_by_facts(claimants)

    def claimant(usage: Usage, whose: Mapping[str, str]) -> str:
        found = [claim for pair in usage.tags if (claim := by_tag("=".join(pair)))]
        return min(found)[1] if found else by_facts(whose)

    return claimant


def event(row: Row) -> dict[str, Any]:
    """A row as an event says it."""
    return row | {"usd": None if row["usd"] is None else usd(row["usd"])}


def recent(view: View) -> Page:
    """The last calls of the outbox, newest first."""
    if not view.outbox:
        mend = "start with `farthing web --outbox FOLDER`, the folder that gateway or hooks write"
        return Page("Live", missing=("no outbox to follow", mend))
    folder, row = Path(view.outbox), rows_of(view)
    found: list[Row] = []
    for file, size, _ in reversed(_files(folder)):
        begin = max(0, size - _TAIL_BYTES)
        if begin:  # from the next line on
            begin += _bytes(file, begin, size).find(b"\n") + 1
        found += [made for usage, _ in _calls(file, begin, size) if (made := row(usage))]
        if len(found) >= RECENT:
            break
    found.sort(key=lambda made: str(made["at"]), reverse=True)
    found = found[:RECENT]
    kinds = {"latency_ms": "count", "at": "time"}
    table = Sheet(
        "The last calls", COLUMNS, found, kinds=kinds, empty="no call yet: they appear as they come"
    )
    cost = sum(made["usd"] or 0 for made in found)
    kpis = [Kpi("recent", f"The last {len(found)} calls", "usd", cost)]
    return Page("Live", {"recent": table}, kpis, extra={"events": "/live/events", "place": end_of(folder).id})
