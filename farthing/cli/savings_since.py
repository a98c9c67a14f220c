"""What comes after `farthing savings --apply`: undone, and what it has saved since."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._offered import offers_json, print_offers, taken_off
from farthing.cli._opened import hashing_key, sources
from farthing.cli._policies import By, Config, Json, Policy, policy_path, told
from farthing.cli._shared import (
    book_of,
    console,
    ledger_to_read,
    load_config,
    parse_assume,
    read_profiles,
    write_json,
)
from farthing.money import show as dollars
from farthing.money import usd

if TYPE_CHECKING:
    from farthing.cells import Question
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
    switch_off: Annotated[bool, Parameter(negative="", help="Switch off what does not save.")] = False,
    json: Json = False,
) -> int:  # fmt: skip
    """What each lever has saved since it was adopted, against what was estimated. Exit 1 if one does not save."""
    from farthing.cells import Question
    from farthing.optimise._realised import realised
    from farthing.policy import periods
    from farthing.policy import undo as undo_entry

    said, now = load_config(config), datetime.now(UTC)
    path = policy_path(policy, config)
    adopted = periods(path, now)
    if not adopted:
        raise BadInput(f"{path}: no policy, so nothing to report: `farthing savings --apply` writes one")
    question = Question(
        assume=parse_assume(assume or ()),
        profiles={**said.profiles, **read_profiles(profiles)},
        book=book_of(),
        config=said,
    )
    with ledger_to_read(ledger, said) as books:
        traces, wrong = _traces(books, question, bodies) if bodies else (None, [])
        found = realised(books, question, adopted, now, _day(since), traces)
        taken = taken_off(books, question)
    for line in wrong[:_MOST_TOLD]:
        print(f"farthing: {line}", file=sys.stderr)
    if json:
        write_json(_json_of(found, str(path)) | offers_json(taken))
    else:
        _print(found)
        print_offers(taken)
    if switch_off:
        for one in found:
            if one.failed and one.entry.state == "on":
                undone = undo_entry(path, one.entry.name, by="farthing savings report", now=now)
                print(f"farthing: {path}: version {undone.version}: {one.entry.name} is off", file=sys.stderr)
    return 2 if wrong else int(any(one.failed for one in found))


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
