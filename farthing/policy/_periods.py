"""When entries were in force, as the file and its history tell it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from farthing.policy._file import Entry, Policy, instant, load
from farthing.policy._write import is_kept, versions

_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_SAYS = ("endpoint", "use", "deadline", "cache_policy", "markers", "ttl", "was")  # what an entry does

Span = tuple[datetime, datetime]  # [from, to)


class Period(NamedTuple):
    """An entry as it was said last, and the spans for which it was switched on and approved, saying the same."""

    entry: Entry
    spans: tuple[Span, ...]


def periods(path: Path | str, now: datetime) -> list[Period]:
    """Of every entry that the file or its history has, in the order in which they came. PolicyError if it is at fault.

    What a person edits counts from the version that was edited: when they did it nobody wrote down.
    """
    file = Path(path)
    policy = load(file)
    known = [version.policy for version in versions(file) if not version.fault and version.policy.at]
    if not is_kept(file, policy.version):
        known = [each for each in known if each.version < policy.version or not policy.at] + [policy]
    starts = [_at(each) for each in known]
    found: dict[str, tuple[Entry, list[Span]]] = {}
    for each, start, end in zip(known, starts, [*starts[1:], now], strict=True):
        for entry in each.entries:
            before, spans = found.get(entry.name, (entry, []))
            if _does(before) != _does(entry):
                spans = []
            if entry.state == "on" and entry.approver:
                _add(spans, max(start, instant(entry.approved_at)), min(end, now, instant(entry.expires)))
            found[entry.name] = entry, spans
    return [Period(entry, tuple(spans)) for entry, spans in found.values()]


def _at(policy: Policy) -> datetime:
    try:
        return instant(policy.at)
    except ValueError:
        return _BEGINNING


def _does(entry: Entry) -> bytes:
    return msgspec.json.encode([getattr(entry, key) for key in _SAYS])


def _add(spans: list[Span], start: datetime, end: datetime) -> None:
    if start >= end:
        return
    if spans and spans[-1][1] == start:
        spans[-1] = spans[-1][0], end
    else:
        spans.append((start, end))
