"""Everything that farthing.toml names, imported: one result a source, and a fault of one is no fault of the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, NamedTuple

from farthing.api import Imported, import_paths
from farthing.aws import Access
from farthing.config import Config, Source
from farthing.ledger import Ledger

Watch = Callable[[str], AbstractContextManager[Callable[[int, int], None] | None]]


class Synced(NamedTuple):
    """What became of a source. `done.errors` has a line for each file or record of it that could not be read."""

    source: Source
    done: Imported

    def as_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {"path": self.source.path, **self.done.as_json()}
        if self.done.errors:
            more = len(self.done.errors) - 1
            said["error"] = self.done.errors[0] + (f" (and {more:,} more)" if more else "")
        return said


def _unwatched(path: str) -> nullcontext[None]:
    return nullcontext()


def sync(
    ledger: Ledger, config: Config, *, now: datetime, full: bool = False, watch: Watch = _unwatched
) -> Iterator[Synced]:
    """Import each source into the ledger, in the order of the file.

    `full` lists buckets from their beginning. `watch(path)` is entered while a source is read, and may give a
    function that is told how far it is. LedgerError where the ledger itself cannot be written.
    """
    for source in config.sources:
        try:
            with watch(source.path) as progress:
                done = import_paths(
                    ledger,
                    [source.path],
                    now=now,
                    forced=source.format,
                    profiles=config.profiles,
                    progress=progress,
                    access=access(source),
                    full=full,
                )
        except (OSError, ValueError) as error:
            done = Imported(errors=[f"{source.path}: {' '.join(str(error).split())}"])
        yield Synced(source, done)


def access(source: Source) -> Access:
    """How the file says its bucket is reached."""
    return Access(*(getattr(source, name) for name in Access._fields))


def total(results: Iterable[Synced]) -> Imported:
    """All sources as one import."""
    every = Imported()
    for result in results:
        for name, value in vars(result.done).items():
            setattr(every, name, getattr(every, name) + value)
    return every
