"""Policies: levers that gateway and hooks apply before a call, from a file that farthing or a person writes.

`load` reads it, `decider` makes a pure function of it that says what to do with a request, `write` puts advice into
it, `undo` takes it out. docs/policy.md has the format.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from farthing.book import Book
from farthing.config import Config
from farthing.policy._advised import Advised, Skipped, entries_of
from farthing.policy._copies import Copied, Copies, copies_path
from farthing.policy._decide import (
    APPLIED,
    NOT_IN_SHARE,
    REFUSED,
    SHADOWED,
    Decide,
    Decided,
    Request,
    decide,
    decider,
    draw,
)
from farthing.policy._file import (
    LEVERS,
    LIVE,
    NAME,
    Entry,
    Estimate,
    Marker,
    Policy,
    PolicyError,
    Selectors,
    Shadow,
    instant,
    load,
)
from farthing.policy._periods import Period, Span, periods
from farthing.policy._write import (
    Act,
    Version,
    Written,
    adopting,
    history_of,
    is_kept,
    judging,
    restoring,
    rewrite,
    selectors,
    switching,
    version_file,
    version_text,
    versions,
)

__all__ = [
    "APPLIED", "LEVERS", "LIVE", "NAME", "NOT_IN_SHARE", "REFUSED", "SHADOWED", "Advised", "Copied", "Copies",
    "Decide", "Decided", "Entry", "Estimate", "Loaded", "Marker", "Period", "Policy", "PolicyError", "Request",
    "Selectors", "Shadow", "Skipped", "Span", "Version", "Written", "adopt", "attach", "copies_path", "decide",
    "decider", "default_path", "draw", "entries_of", "history_of", "instant", "load", "periods", "reload", "undo",
    "versions", "write",
]  # fmt: skip


def default_path(config: Config) -> Path:
    """Beside farthing.toml, or here."""
    return Path(config.path).parent / NAME if config.path else Path(NAME)


# --- reading it live -------------------------------------------------------------------------------------------------


class Loaded(NamedTuple):
    """A policy in force. `fault` says why the file that is there now is not: then the one before it still holds."""

    policy: Policy
    decide: Decide
    stamp: tuple[int, ...]
    fault: str


def reload(path: Path | str, book: Book, before: Loaded | None = None) -> Loaded:
    """The file as it is now; `before` itself where nothing changed. Never raises, and never applies half a file.

    No file is no policy. With a file that is at fault, what was in force stays; at the start that is nothing.
    """
    stamp: tuple[int, ...] = ()
    try:
        found = os.stat(path)  # noqa: PTH116 - asked before every call: a Path takes as long again
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
    except OSError:
        pass  # there is none
    if before is not None and before.stamp == stamp:
        return before
    try:
        policy = load(path)
    except PolicyError as error:
        held = before.policy if before else Policy()
        return Loaded(held, before.decide if before else decider(held, book), stamp, str(error))
    return Loaded(policy, decider(policy, book), stamp, "")


# --- writing it ------------------------------------------------------------------------------------------------------


def write(
    advices: Iterable[Advised],
    path: Path | str,
    approver: str,
    expires: str,
    *,
    now: datetime,
    config: Config | None = None,
    reason: str = "",
    state: str = "on",
    share: int = 100,
    keys: Sequence[str] = (),
    book: str = "",
    dry: bool = False,
) -> tuple[Written, list[Skipped]]:
    """Advice into the policy file, in one step, as its next version; `dry` only says what would be written.

    Without an approver the entries are there to be looked at, and do nothing until somebody adopts them.
    """
    if approver:
        _check_expiry(expires, now)
    entries, skipped = entries_of(
        advices, config, approver=approver, expires=expires, now=now, reason=reason, state=state, share=share,
        keys=keys, book=book,
    )  # fmt: skip
    workloads = {name: selectors(made) for name, made in (config or Config()).workloads.items()}
    change = adopting(entries, workloads if entries else {})
    what = f"{'apply' if approver else 'propose'} {', '.join(entry.name for entry in entries)}"
    return rewrite(path, change, Act(approver, what, now), dry=dry), skipped


def _check_expiry(expires: str, now: datetime) -> None:
    try:
        ends = instant(expires)
    except ValueError:
        raise PolicyError(
            f"expires {expires!r} is no time: write 2027-02-01, from which day it no longer holds"
        ) from None
    if ends <= now:
        raise PolicyError(f"expires {expires} is over already: name a day to come")


def adopt(proposal: Path | str, path: Path | str, *, approver: str, expires: str, now: datetime) -> Written:
    """The entries of a proposal, approved, into the policy file: a person's too, as they were reviewed."""
    proposed = load(proposal)
    if not proposed.entries:
        raise PolicyError(f"{proposal}: no entries in it: `farthing savings --propose` writes some")
    _check_expiry(expires, now)
    at = f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    entries = [
        msgspec.structs.replace(entry, approver=approver, approved_at=at, expires=expires)
        for entry in proposed.entries
    ]
    what = f"adopt {', '.join(entry.name for entry in entries)}"
    return rewrite(path, adopting(entries, proposed.workloads), Act(approver, what, now))


def undo(path: Path | str, what: str = "", *, by: str = "", now: datetime, why: str = "") -> Written:
    """A lever, workload or entry switched off; a version (its number) brought back; by default the one before.

    The writing is a version of its own, with the reason: an undo can be undone. PolicyError where there is nothing of
    that name.
    """
    because = f": {why}" if why else ""
    if what and not what.isdigit():
        policy = load(path)
        meant = {entry.name for entry in policy.entries if what in (entry.name, entry.lever, entry.workload)}
        if not meant:
            known = ", ".join(entry.name for entry in policy.entries) or "nothing"
            raise PolicyError(f"{path}: nothing there is called {what!r}: it has {known}")
        change = switching(lambda entry: entry.name in meant, "off")
        return rewrite(path, change, Act(by, f"undo {what}{because}", now))
    number = int(what) if what else _before(Path(path))
    text = version_text(path, number) if number else ""
    change = restoring(text, str(version_file(path, number)))
    return rewrite(path, change, Act(by, f"undo to version {number}{because}", now, whatever=True))


def attach(path: Path | str, name: str, verdict: str, *, by: str, now: datetime) -> Written:
    """The verdict of the quality gate put to an entry of the lever model, as a version. It is not switched on by it."""
    entries = [entry for entry in load(path).entries if entry.lever == "model"]
    if not any(entry.name == name for entry in entries):
        known = ", ".join(entry.name for entry in entries) or "none"
        raise PolicyError(f"{path}: no entry of the lever model is called {name!r}: there are {known}")
    return rewrite(path, judging(name, verdict), Act(by, f"attach {verdict} to {name}", now))


def _before(file: Path) -> int:
    """The version before the one in force; 0, which is empty, before the first. Of a file edited since: as it was."""
    if not file.exists():
        raise PolicyError(f"{file}: no policy there: nothing to undo")
    good = [version.number for version in versions(file) if not version.fault]
    try:
        number = load(file).version
    except PolicyError:
        return max(good, default=0)
    if not is_kept(file, number):
        return max(good, default=0)
    return max((each for each in good if each < number), default=0)
