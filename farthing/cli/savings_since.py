"""What comes after `farthing savings --apply`: undone, and what it has saved since."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._offered import offers_json, print_offers, taken_off
from farthing.cli._opened import hashing_key, sources
from farthing.cli._policies import By, Config, Json, Policy, policy_path, told
from farthing.cli._shared import (
    book_of,
    console,
    default_ledger,
    ledger_to_read,
    load_config,
    parse_assume,
    read_profiles,
    run_import,
    write_json,
)
from farthing.money import show as dollars
from farthing.money import usd

if TYPE_CHECKING:
    from farthing.cells import Question
    from farthing.config import Config as FarthingConfig
    from farthing.ledger import Ledger
    from farthing.optimise._advice import Interval
    from farthing.optimise._lent import Lot
    from farthing.optimise._realised import Realised
    from farthing.optimise._traffic import Traffic

_MOST_TOLD = 5  # lines that could not be read
savings = app["savings"]  # of saving.py, whose name comes before this one's


@savings.command
def undo(
    what: Annotated[str, Parameter(help="A lever, workload, entry or version; else what was written last.")] = "",
    /, *, by: By = "", policy: Policy = None, config: Config = None, json: Json = False,
) -> int:  # fmt: skip
    """Switch levers off, or bring an earlier version of the policy back, at once. It can be undone as well."""
    from farthing.policy import undo as undone

    return told(undone(policy_path(policy, config), what, by=by, now=datetime.now(UTC)), json=json)


# --- realised against estimated --------------------------------------------------------------------------------------


@savings.command
def report(
    *, since: Annotated[str, Parameter(name=["--since", "-s"], help="First day, of UTC.")] = "",
    ledger: Annotated[str, Parameter(help="Ledger: a folder, or s3://BUCKET/PREFIX.")] = "",
    policy: Policy = None, config: Config = None,
    assume: Annotated[list[str] | None, Parameter(negative="", help="As in reports.")] = None,
    profiles: Annotated[Path | None, Parameter(help="As in reports.")] = None,
    bodies: Annotated[str, Parameter(help="Invocation logs with bodies, as for `farthing savings`.")] = "",
    outbox: Annotated[str, Parameter(help="A gateway's outbox, imported first: its calls up to now.")] = "",
    switch_off: Annotated[bool, Parameter(negative="", help="Switch off what does not save.")] = False,
    every: Annotated[str, Parameter(help="Again and again, 15m or 6h after the last, until it is ended.")] = "",
    json: Json = False,
) -> int:  # fmt: skip
    """What each lever has saved since it was adopted, against what was estimated. Exit 1 if one does not save."""
    said = load_config(config)
    asked = _Since(
        policy_path(policy, config), said, ledger, _day(since), parse_assume(assume or ()),
        {**said.profiles, **read_profiles(profiles)}, bodies, outbox, switch_off, json,
    )  # fmt: skip
    pause_s = _seconds(every)
    while pause_s:
        try:
            _report(asked)
        except (BadInput, ValueError, OSError) as error:  # the next time it may be mended
            print(f"farthing: {error}", file=sys.stderr)
        time.sleep(pause_s)
    return _report(asked)


class _Since(NamedTuple):
    """What is asked of a report."""

    path: Path
    config: FarthingConfig
    ledger: str
    since: datetime | None
    assume: dict[str, str]
    profiles: dict[str, str]
    bodies: str
    outbox: str
    switch_off: bool
    json: bool


def _report(asked: _Since) -> int:
    from farthing.cells import Question
    from farthing.ledger import Ledger
    from farthing.optimise._realised import realised
    from farthing.policy import periods

    now = datetime.now(UTC)
    adopted = periods(asked.path, now)
    if not adopted:
        raise BadInput(
            f"{asked.path}: no policy, so nothing to report: `farthing savings --apply` writes one"
        )
    question = Question(assume=asked.assume, profiles=asked.profiles, book=book_of(), config=asked.config)
    wrong: list[str] = []
    if asked.outbox:
        books = Ledger(asked.ledger or default_ledger(asked.config))
        wrong += run_import(books, [asked.outbox]).errors
    with ledger_to_read(asked.ledger, asked.config) as books:
        traces, bad = _traces(books, question, asked.bodies) if asked.bodies else (None, [])
        found = realised(books, question, adopted, now, asked.since, traces)
        taken = taken_off(books, question)
    for line in bad[:_MOST_TOLD]:
        print(f"farthing: {line}", file=sys.stderr)
    copies = _evaluated(asked.path, found)
    if asked.json:
        spent = {"evaluation_usd": usd(sum(picos for _, picos in copies.values()))}
        write_json(_json_of(found, str(asked.path)) | spent | offers_json(taken))
    else:
        _print(found)
        for name, (count, picos) in copies.items():
            more = f"farthing policy shadow {name}"
            print(f"  {name}: its evaluation cost {dollars(picos)} beside, in {count:,} copies: {more}")
        print_offers(taken)
    if asked.switch_off:
        _switch_off(asked.path, found, now)
    return 2 if wrong or bad else int(any(one.failed for one in found))


def _evaluated(path: Path, found: list[Realised]) -> dict[str, tuple[int, int]]:
    """Copies in shadow of entries, and what they cost: not in the calls of any workload."""
    from farthing.policy import Copies, copies_path

    store = Copies(copies_path(path))
    rows = {one.entry.name: store.of(one.entry) for one in found if one.entry.lever == "model"}
    return {
        name: (len(each), sum(row.held if row.picos is None else row.picos for row in each))
        for name, each in rows.items()
        if each
    }


def _switch_off(path: Path, found: list[Realised], now: datetime) -> None:
    """What has failed, each as a version of its own with the reason, which can be undone.

    What somebody has written anew since it was looked at is another entry: it is looked at the next time.
    """
    from farthing.policy import load
    from farthing.policy import undo as undo_entry

    for one in found:
        still = any(entry == one.entry and entry.state == "on" for entry in load(path).entries)
        if one.failed and still and one.saved:
            why = (
                f"{one.treated:,} calls cost {dollars(-one.saved.mid)} more than without it, "
                f"between {dollars(-one.saved.high)} and {dollars(-one.saved.low)}"
            )
            undone = undo_entry(path, one.entry.name, by="farthing savings report", now=now, why=why)
            told = f"farthing: {path}: version {undone.version}: {one.entry.name} is off: {why}"
            print(told, file=sys.stderr, flush=True)


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([1-9]\d*)([mhd])", text) if text else None
    if text and found is None:
        raise BadInput(f"--every {text!r}: write 15m, 6h or 1d")
    return int(found[1]) * {"m": 60, "h": 3_600, "d": 86_400}[found[2]] if found else 0


def _traces(ledger: Ledger, question: Question, bodies: str) -> tuple[dict[Lot, Traffic], list[str]]:
    """The traces of logs with bodies, and what could not be read."""
    from farthing.optimise._traffic import from_bodies

    wrong: list[str] = []
    found, bad, _ = from_bodies(ledger, question, sources(bodies, wrong), hashing_key())
    return found, [*wrong, *bad]


def _day(text: str) -> datetime | None:
    from farthing.policy import instant

    try:
        return instant(text) if text else None
    except ValueError as error:
        raise BadInput(f"--since {text!r} is no day: write 2026-11-22") from error


def _json_of(found: list[Realised], path: str) -> dict[str, Any]:
    return {
        "policy": path,
        "realised_usd": _sum([one.saved for one in found]),
        "estimated_usd": _sum([one.estimated for one in found]),
        "levers": [
            {
                "name": one.entry.name,
                "workload": one.entry.workload,
                "model": one.entry.model,
                "lever": one.entry.lever,
                "in_force": [
                    [f"{start:%Y-%m-%dT%H:%M:%SZ}", f"{end:%Y-%m-%dT%H:%M:%SZ}"] for start, end in one.spans
                ],
                "calls": one.calls,
                "calls_changed": one.treated,
                "billed_usd": usd(one.billed),
                "without_usd": _interval(one.without),
                "realised_usd": _interval(one.saved),
                "estimated_usd": _interval(one.estimated),
                "sessions": one.sessions,
                "calibration": one.calibration,
                "verdict": one.verdict,
                "says": one.says,
                "notes": list(one.notes),
            }
            for one in found
        ],
    }


def _interval(interval: Interval | None) -> dict[str, str] | None:
    if interval is None:
        return None
    return {"low": usd(interval.low), "mid": usd(interval.mid), "high": usd(interval.high)}


def _sum(intervals: list[Interval | None]) -> str:
    return usd(sum(interval.mid for interval in intervals if interval is not None))


def _print(found: list[Realised]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    saved = sum(one.saved.mid for one in found if one.saved)
    estimated = sum(one.estimated.mid for one in found if one.estimated)
    out = console()
    out.print(f"saved {dollars(saved)} since adoption; {dollars(estimated)} was estimated for this traffic")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in ("lever", "since", "calls", "billed", "saved", "between", "estimated", "verdict"):
        table.add_column(name, justify="left" if name in ("lever", "since", "verdict") else "right")
    for one in found:
        span = f"{dollars(one.saved.low)} and {dollars(one.saved.high)}" if one.saved else ""
        table.add_row(
            one.entry.name,
            f"{one.spans[0][0]:%Y-%m-%d}" if one.spans else "",
            f"{one.treated:,} of {one.calls:,}",
            dollars(one.billed),
            dollars(one.saved.mid) if one.saved else "",
            span if one.saved and one.saved.low != one.saved.high else "exact" if one.saved else "",
            dollars(one.estimated.mid) if one.estimated else "",
            one.verdict,
        )
    out.print(table)
    for one in found:
        out.print(f"  {one.entry.name}: {'; '.join((one.says, *one.notes))}")
