"""Traces read by Spark: its executors read files, then put namespaces together, each from the calls of all files.

What is done with a file and with a namespace is what is done here without Spark (_log.py); its log comes out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count, groupby
from operator import itemgetter
from typing import Any, NamedTuple

from farthing.traces._formats import formats
from farthing.traces._log import Call, Gather, Log, Source, Space
from farthing.traces._rows import rows

FILES_A_SLOT = 32  # tasks at most, for each slot of the cluster
_COLUMNS = ("namespace", "prefix", "tokens", "depth", "at_us")
_NODES_BITS = 40  # of a prefix's number; what is above them is its namespace's
Opened = Callable[[str, list[str]], Iterable[Source]]
At = tuple[int, int]  # which file, which of its items


class _Met(NamedTuple):
    """A call where it was met first, and how many copies of it there are."""

    at: At
    call: Call
    copies: int = 0


class _Put(NamedTuple):
    """A namespace put together, from what it was met first, and what was put right and left out for that."""

    at: At
    space: tuple[str, ...]
    made: Space
    gather: Gather


class Spread:
    """Traces on executors. `opened` opens a file there, by its path, and tells what is wrong with it."""

    def __init__(
        self, session: Any, paths: Sequence[str], opened: Opened, key: bytes, name: str = ""
    ) -> None:
        self._session = session
        self.name = name or _name(paths, opened)
        self.faults: list[str] = []
        self.gather = Gather()  # of what is no call
        context = session.sparkContext
        slices = max(1, min(len(paths), FILES_A_SLOT * context.defaultParallelism))
        files = context.parallelize(list(enumerate(paths)), slices)
        self._read = files.flatMap(partial(_read, self.name, opened, key)).persist()
        self._spaces = (
            self._read.filter(itemgetter(0))
            .reduceByKey(_first)
            .map(lambda named: (named[1].call.namespace, named[1]))
            .groupByKey()
            .map(partial(_put, self.name))
            .persist()
        )
        told = self._read.filter(lambda named: not named[0]).map(itemgetter(1)).collect()
        for _, gather, faults in sorted(told, key=itemgetter(0)):
            _add(self.gather, gather)
            self.gather.others += gather.others
            self.faults += faults

    def log(self) -> Log | None:
        """All of it, here, as `read_traces` gives it; None if there is nothing."""
        found = sorted(self._spaces.collect(), key=itemgetter(0))
        for put in found:
            _add(self.gather, put.gather)
        if not (found or self.gather.left):
            return None
        return self.gather.joined(self.name, formats()[self.name], {put.space: put.made for put in found})

    def rows(self) -> Any:
        """The access log as a frame of Spark, which stays where it is: for farthing.cache.saved."""
        schema = ", ".join(f"{name} bigint" for name in _COLUMNS)
        return self._session.createDataFrame(self._spaces.zipWithIndex().flatMap(_rows), schema)

    def forget(self) -> None:
        """Executors need not keep what they read."""
        self._spaces.unpersist()
        self._read.unpersist()


def _name(paths: Sequence[str], opened: Opened) -> str:
    """The format of the first file that has one."""
    known = formats()
    for path in paths:
        for source in opened(path, []):
            for name, form in known.items():
                if form.sniff(source.head):
                    return name
    return ""


def _read(name: str, opened: Opened, key: bytes, file: tuple[int, str]) -> Iterator[tuple[Any, Any]]:
    """The calls of a file by their ids, or by where they are if they have none; at the end what else is in it."""
    number, path = file
    form = formats().get(name)
    rest, faults, place = Gather(), list[str](), count()
    for source in opened(path, faults):
        if form is None or not form.sniff(source.head):
            rest.others += 1
            continue
        for item in form.read(source, key):
            if isinstance(item, Call):
                at = number, next(place)
                yield item.id or at, _Met(at, item)
            else:
                rest.add(source.path, [item])
    yield None, (number, rest, faults)


def _first(one: _Met, other: _Met) -> _Met:
    return min(one, other, key=itemgetter(0))._replace(copies=one.copies + other.copies + 1)


def _put(name: str, found: tuple[tuple[str, ...], Iterable[_Met]]) -> _Put:
    """The trace of a namespace, as if its files had been read one after the other."""
    space, calls = found[0], sorted(found[1], key=itemgetter(0))
    gather = Gather()
    for _, each in groupby(calls, key=lambda met: met.at[0]):
        gather.add("", (met.call for met in each))
    if copies := sum(met.copies for met in calls):
        gather.left["copies"] = copies
    made = gather.space(gather.calls.pop(space), formats()[name])
    gather.seen.clear()
    return _Put(calls[0].at, space, made, gather)


def _add(whole: Gather, part: Gather) -> None:
    whole.left += part.left
    whole.mended += part.mended
    whole.rejects += part.rejects


def _rows(numbered: tuple[_Put, int]) -> Iterator[tuple[int, ...]]:
    put, number = numbered
    table = rows(put.made.trace)
    columns = {name: table.column(name).to_numpy() for name in _COLUMNS}
    columns["namespace"] += number
    columns["prefix"] += number << _NODES_BITS
    return zip(*(columns[name].tolist() for name in _COLUMNS), strict=True)
