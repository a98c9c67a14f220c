"""Traces: files that tell which requests sent which prefixes when, read into a prefix access log.

A format is one file of this folder (`_log.Format` says what it holds), found by listing it. No text is kept: of
prompts there are keyed hashes of their prefixes at ends of blocks, and token counts.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from farthing.traces._prompt import blocks_of, prompt_of

if TYPE_CHECKING:
    from farthing.traces._log import Call, Format, Left, Log, Reject, Source
    from farthing.traces._rows import rows

__all__ = [
    "Call",
    "Format",
    "Left",
    "Log",
    "Reject",
    "Source",
    "TraceError",
    "blocks_of",
    "formats",
    "prompt_of",
    "read_traces",
    "rows",
]

_HOMES = dict.fromkeys(("Call", "Format", "Left", "Log", "Reject", "Source"), "_log") | {"rows": "_rows"}


def __getattr__(
    name: str,
) -> Any:  # the log comes with numba, which takes a second: hooks hash prompts without it
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class TraceError(ValueError):
    """Why there is no log, in one line."""


def formats() -> dict[str, Format]:
    """Every format by its name."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name[0] != "_")
    return {name: cast("Format", importlib.import_module(f"{__name__}.{name}")) for name in names}


def read_traces(sources: Iterable[Source], key: bytes, name: str = "") -> Log:
    """The log of these files, all of one format: the one named, or else the one that the first of them has.

    Files of no format, or of another, are left out and counted.
    """
    from farthing.traces._log import Gather

    known = formats()
    if name and name not in known:
        raise TraceError(f"no trace format {name!r}: there are {', '.join(known)}")
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
        what = f"no {asked} trace" if asked else f"no trace of a known format ({', '.join(known)})"
        raise TraceError(f"{what} in {others:,} files")
    gather.others = others
    return gather.log(name, known[name])
