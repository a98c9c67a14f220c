"""A ledger that keeps sums, so that a page of ten million calls is made of some thousand numbers.

It is the first stage of `cells`: what it answers is the same to the picodollar, and what it cannot answer (conditions
on single rows, prompt sizes that its sums do not know) goes to the ledger's rows as ever.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from farthing.aws import is_s3
from farthing.book import Resolved, Unpriced
from farthing.cells import (
    CLAIMED,
    TIME_KEYS,
    Cell,
    Contexts,
    Question,
    Summed,
    edges_of,
    priced_cells,
)
from farthing.ledger import Ledger, SourceFile
from farthing.meters import METERS
from farthing.rating import Grid, grid
from farthing.usage import Entry
from farthing.web._sums import (
    COUNTS,
    Array,
    Sums,
    TooLarge,
    added,
    day_number,
    edges_in,
    grouped,
    load,
    read,
    save,
)
from farthing.web._where import fits

# By these most pages group and filter: one slate serves them all.
COMMON = frozenset(("platform", "model", "endpoint", "zone", "mode", "routing", "team"))
MOST_SLATES, MOST_ZONES, MOST_BASES = 24, 4, 8

Span = tuple[datetime, datetime]


@dataclass
class Placed:
    places: list[Resolved | Unpriced]
    edges: list[tuple[int, ...]]


@dataclass
class Base:
    """What the contexts and tag sets say under one book and configuration; values stand once, rows have their codes."""

    contexts: Contexts
    named: dict[str, list[Any]]  # by key: of each context
    index: dict[int, int]  # of each context's code
    tagsets: dict[int, dict[str, str]]
    claimed: dict[str, dict[int, str]]  # by key: who claims a tag set, where tags say so
    spans: OrderedDict[Span, tuple[Grid, list[tuple[int, ...]]]] = field(default_factory=OrderedDict)

    def of_span(self, question: Question, span: Span) -> tuple[Grid, list[tuple[int, ...]]]:
        """The grid of those days, and the edges of each place in them."""
        if span not in self.spans:
            book = question.book
            edges = [
                edges_of(book, {p.sku}, *span) if isinstance(p, Resolved) else ()
                for p in self.contexts.places
            ]
            self.spans[span] = grid(book, sorted(self.contexts.skus), *span), edges
            while len(self.spans) > MOST_SLATES:
                self.spans.popitem(last=False)
        return self.spans[span]

    def columns(self, keys: Sequence[str], ctx: Array, tags: Array) -> list[list[Any]]:
        """The values of each pair of a context and a tag set, under each key."""
        at = [self.index[code] for code in ctx.tolist()]
        found = []
        for key in keys:
            if key.startswith("tag:"):
                found.append([self.tagsets.get(code, {}).get(key[4:], "") for code in tags.tolist()])
                continue
            values = self.named[key]
            by_tags = self.claimed.get(key)
            if by_tags is None:
                found.append([values[i] for i in at])
            else:
                pairs = zip(tags.tolist(), at, strict=True)
                found.append([by_tags.get(code) or values[i] for code, i in pairs])
        return found


@dataclass
class Slate:
    """Sums by day, box and what some keys say; `said` has place, assumed, source and the keys, of each code."""

    by: dict[str, Array]  # code, day, local, band, cached
    counts: dict[str, Array]
    said: list[dict[str, Any]]
    merged: dict[tuple[str, ...], tuple[Array, dict[int, dict[str, Any]]]] = field(default_factory=dict)

    def merge(self, keys: tuple[str, ...]) -> tuple[Array, dict[int, dict[str, Any]]]:
        """For each code, one that tells these keys apart alone, and what those stand for."""
        if keys not in self.merged:
            names = ("place", "assumed", "source", *keys)
            codes: dict[tuple[Any, ...], int] = {}
            of = [codes.setdefault(tuple(said[name] for name in names), len(codes)) for said in self.said]
            meanings = {code: dict(zip(names, values, strict=True)) for values, code in codes.items()}
            self.merged[keys] = np.array(of, np.int64), meanings
        return self.merged[keys]


class Cubed(Ledger):
    """To be read only, by one thread at a time."""

    def __init__(self, folder: Path | str, fresh_s: float = 1.0) -> None:
        super().__init__(folder)
        self.files_read = 0  # of usage, since it was opened
        self._fresh_s = fresh_s
        self._asked_at: dict[str, float] = {}
        self._memo: dict[str, tuple[Any, Any]] = {}
        self._sums: OrderedDict[tuple[str, tuple[int, ...]], Sums] = OrderedDict()
        self._bases: OrderedDict[Any, Base] = OrderedDict()
        self._slates: OrderedDict[Any, Slate] = OrderedDict()

    # --- the ledger as it was a moment ago

    def delta(self, name: str, *, make: bool = False) -> Any:
        """A table as it stood at most a second ago."""
        now = time.monotonic()
        if name not in self._asked_at or now - self._asked_at[name] >= self._fresh_s or make:
            super().delta(name, make=make)
            self._asked_at[name] = now
        held = self._tables.get(name)
        return held[0] if held else None

    def version(self) -> tuple[int, ...]:
        """Another whenever anything that pages show has changed."""
        return tuple(
            self._version(name) for name in ("usage", "contexts", "tags", "files", "entries", "totals")
        )

    def _version(self, name: str) -> int:
        delta = self.delta(name)
        return delta.version() if delta is not None else -1

    def _once(self, name: str, table: str, make: Any) -> Any:
        version = self._version(table)
        if name not in self._memo or self._memo[name][0] != version:
            self._memo[name] = version, make()
        return self._memo[name][1]

    def days(self) -> Span | None:
        found: Span | None = self._once("days", "usage", super().days)
        return found

    def files(self, read_until: Any = None) -> list[SourceFile]:
        if read_until:
            return super().files(read_until)
        found: list[SourceFile] = self._once("files", "files", super().files)
        return found

    def entries(self) -> list[Entry]:
        found: list[Entry] = self._once("entries", "entries", super().entries)
        return found

    # --- sums

    def kept_cells(
        self, question: Question, keys: Sequence[str], span: Span, by_meter: bool
    ) -> list[Cell] | None:
        """The first stage of `cells` from the sums; None where they do not tell."""
        try:
            sums = self.sums(question)
            base = self._base(question)
            lines, edges = base.of_span(question, span)
            if any(date.time() != datetime.min.time() for date in lines.dates):
                return None
            if not {size for each in edges for size in each} <= set(sums.edges):
                return None
            slate = self._slate(question, base, sums, keys)
            summed = _summed(slate, question, tuple(dict.fromkeys(keys)), lines, edges, sums.edges, by_meter)
        except TooLarge:
            return None
        return list(priced_cells(summed, question, Placed(base.contexts.places, edges), lines, keys, span[0]))

    def sums(self, question: Question) -> Sums:
        """Those of the question's zone, as the ledger stands: of files that came since, these alone are read."""
        edges = self._edges(question)
        key = (question.tz, edges)
        kept = self._sums.get(key)
        if kept is None and (path := self._path(key)):
            kept = load(path, *key)
        delta = self.delta("usage")
        files = {Path(file).name: file for file in self.place.files("usage", delta)} if delta else {}
        if kept is None or not kept.files <= files.keys():  # what was put together or dropped is read again
            kept = read(self.connection, (), question.zone, edges)
        if fresh := [file for name, file in files.items() if name not in kept.files]:
            kept = added(kept, read(self.connection, fresh, question.zone, edges))
            self.files_read += len(fresh)
            if path := self._path(key):
                save(path, kept)
        self._sums[key] = kept
        self._sums.move_to_end(key)
        while len(self._sums) > MOST_ZONES:
            self._sums.popitem(last=False)
        return kept

    def _edges(self, question: Question) -> tuple[int, ...]:
        memo = f"edges {question.book.digest}"
        if memo not in self._memo:
            self._memo[memo] = None, edges_in(question.book)
        found: tuple[int, ...] = self._memo[memo][1]
        return found

    def _path(self, key: tuple[str, tuple[int, ...]]) -> Path | None:
        """Where they are kept: in the ledger's folder, if it is one of this machine."""
        if is_s3(str(self.folder)):
            return None
        name = hashlib.blake2b(repr(key).encode(), digest_size=8).hexdigest()
        return Path(self.folder) / "sums" / f"{name}.npz"

    def _base(self, question: Question) -> Base:
        config = question.config
        versions = self._version("contexts"), self._version("tags")
        asked = msgspec.json.encode([question.profiles, question.assume, config.teams, config.workloads])
        key = (*versions, question.book.digest, asked)
        if key not in self._bases:
            self._bases[key] = self._based(question)
            while len(self._bases) > MOST_BASES:
                self._bases.popitem(last=False)
        self._bases.move_to_end(key)
        return self._bases[key]

    def _based(self, question: Question) -> Base:
        used = self.days()
        assert used
        contexts = Contexts(self, replace(question, since=None, until=None, where=()), used, CLAIMED)
        found = contexts.named
        columns = dict(zip(found.columns, map(list, zip(*found.fetchall(), strict=True)), strict=True))
        pairs = (
            self.table("tags")
            .distinct()
            .project("tags, key, value")
            .order("tags, key, value DESC")
            .fetchall()
        )
        tagsets = {
            tags: {key: value for _, key, value in said} for tags, said in groupby(pairs, lambda row: row[0])
        }
        claimed = {
            key: dict(contexts.claiming[key].project("tags, value").fetchall())
            for key in CLAIMED
            if contexts.claiming.get(key) is not None
        }
        index = {code: i for i, code in enumerate(columns.pop("ctx"))}
        return Base(contexts, columns, index, tagsets, claimed)

    def _slate(self, question: Question, base: Base, sums: Sums, keys: Sequence[str]) -> Slate:
        wanted = {key for key in (*keys, *(where.key for where in question.where)) if key not in TIME_KEYS}
        names = COMMON | wanted  # so that another filter by what is common needs no other slate
        key = (id(sums), id(base), names)
        kept = self._slates.get(key)
        if kept is None:
            kept = self._slates[key] = _slated(base, sums, sorted(names))
            live = {id(one) for one in (*self._sums.values(), *self._bases.values())}
            for old in [old for old in self._slates if not {old[0], old[1]} <= live]:
                del self._slates[old]
            while len(self._slates) > MOST_SLATES:
                self._slates.popitem(last=False)
        self._slates.move_to_end(key)
        return kept


def _slated(base: Base, sums: Sums, keys: Sequence[str]) -> Slate:
    ctx, tags = sums.by["ctx"], sums.by["tags"]
    (pairs, at) = (
        np.unique(np.stack([ctx, tags]), axis=1, return_inverse=True) if len(ctx) else (np.zeros((2, 0)), ctx)
    )
    names = ("place", "assumed", "source", *keys)
    columns = base.columns(names, pairs[0].astype(np.int64), pairs[1].astype(np.int64))
    codes: dict[tuple[Any, ...], int] = {}
    of = np.array([codes.setdefault(values, len(codes)) for values in zip(*columns, strict=True)], np.int64)
    by = {"code": of[at.reshape(-1)] if len(ctx) else ctx}
    by |= {name: sums.by[name] for name in ("day", "local", "band", "cached")}
    by, counts = grouped(by, sums.counts)
    return Slate(by, counts, [dict(zip(names, values, strict=True)) for values in codes])


def _summed(
    slate: Slate, question: Question, keys: tuple[str, ...], lines: Grid, edges: list[tuple[int, ...]],
    sizes: tuple[int, ...], by_meter: bool,
) -> Summed:  # fmt: skip
    """The slate's rows that are as asked, summed by keys and cell of the book, as the engine would have it."""
    wanted = COUNTS if by_meter else COUNTS[: 1 + len(METERS)]
    rows, counts = slate.by, {name: slate.counts[name] for name in wanted}
    chosen = _chosen(slate, question)
    if chosen is not None:
        rows = {name: values[chosen] for name, values in rows.items()}
        counts = {name: values[chosen] for name, values in counts.items()}
    named = tuple(key for key in keys if key not in TIME_KEYS)
    codes, meanings = slate.merge(named)
    by = {"code": codes[rows["code"]]}
    if any(key in TIME_KEYS for key in keys):
        by["local_day"] = rows["local"]
    if lines.dates:
        by["era"] = np.searchsorted([day_number(date) for date in lines.dates], rows["day"], side="right")
    if any(edges):
        floors = (0, *sizes)
        bands = np.array(
            [[sum(edge <= floor for edge in each) for floor in floors] for each in edges], np.int64
        )
        places = np.array([said["place"] for said in slate.said], np.int64)
        by["band"] = bands[places[rows["code"]], rows["band"]]
    if lines.split_cached:
        by["cached"] = rows["cached"]
    by, counts = grouped(by, counts)
    table = [values.tolist() for values in (*by.values(), *counts.values())]
    return Summed(tuple(by), list(zip(*table, strict=True)), meanings, {})


def _chosen(slate: Slate, question: Question) -> Array | None:
    """Which rows are as asked; None is all of them."""
    tests = []
    for where in question.where:
        fitting = np.array([fits(where, said[where.key]) for said in slate.said], bool)
        tests.append(fitting[slate.by["code"]])
    if question.since:
        tests.append(slate.by["local"] >= question.since.toordinal() - _EPOCH_DAY)
    if question.until:
        tests.append(slate.by["local"] <= question.until.toordinal() - _EPOCH_DAY)
    return np.logical_and.reduce(tests) if tests else None


_EPOCH_DAY = datetime(1970, 1, 1).toordinal()  # noqa: DTZ001 - a day's number has no zone
