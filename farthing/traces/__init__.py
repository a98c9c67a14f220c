"""Traces: files that tell which requests sent which prefixes when, read into a prefix access log.

A format is one file of this folder (`_log.Format` says what it holds), found by listing it. No text is kept: of
prompts there are keyed hashes of their prefixes at ends of blocks, and token counts.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from farthing.traces._formats import formats
from farthing.traces._prompt import blocks_of, prompt_of

if TYPE_CHECKING:
    from farthing.traces._log import Call, Format, Left, Log, Reject, Source
    from farthing.traces._rows import rows
    from farthing.traces._spark import Opened, Spread

__all__ = [
    "Call",
    "Format",
    "Left",
    "Log",
    "Reject",
    "Source",
    "Spread",
    "TraceError",
    "blocks_of",
    "formats",
    "prompt_of",
    "read_traces",
    "read_traces_on",
    "rows",
]

_HOMES = dict.fromkeys(("Call", "Format", "Left", "Log", "Reject", "Source"), "_log")
_HOMES |= {"rows": "_rows", "Spread": "_spark"}


def __getattr__(
    name: str,
) -> Any:  # the log comes with numba, which takes a second: hooks hash prompts without it
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class TraceError(ValueError):
    """Why there is no log, in one line."""


def read_traces(sources: Iterable[Source], key: bytes, name: str = "") -> Log:
    """The log of these files, all of one format: the one named, or else the one that the first of them has.

    Files of no format, or of another, are left out and counted.
    """
    from farthing.traces._log import Gather

    known = _known(name)
    gather = Gather()
    asked, others = name, 0
    for source in sources:
        found = [each for each in ([name] if name else known) if known[each].sniff(source.head)]
        if found:
            name = found[0]
            gather.add(source.path, known[name].read(source, key))
        else:
            others += 1
    if not gather.calls and not gather.left:
        raise _nothing(asked, others)
    gather.others = others
    return gather.log(name, known[name])


def read_traces_on(
    session: Any, paths: Sequence[str], opened: Opened, key: bytes, name: str = ""
) -> tuple[Log, list[str]]:
    """The same log, of files that the executors of a SparkSession open and read; and what is wrong with files.

    `opened` goes to the executors: it opens the files of a path, one by one, and adds what is wrong to a list.
    """
    from farthing.traces._spark import Spread

    _known(name)
    spread = Spread(session, paths, opened, key, name)
    log = spread.log()
    spread.forget()
    if log is None:
        raise _nothing(name, spread.gather.others)
    return log, spread.faults


def _known(name: str) -> dict[str, Format]:
    known = formats()
    if name and name not in known:
        raise TraceError(f"no trace format {name!r}: there are {', '.join(known)}")
    return known


def _nothing(asked: str, others: int) -> TraceError:
    what = f"no {asked} trace" if asked else f"no trace of a known format ({', '.join(formats())})"
    return TraceError(f"{what} in {others:,} files")
