"""The ledger itself: what is in it, whether it is whole, its files put together, usage dropped, names forgotten."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._shared import default_ledger, is_ledger, write_json

if TYPE_CHECKING:
    from farthing.ledger import Ledger

group = App(name="ledger", help="Look into the ledger, check it and keep it in shape.")
app.command(group)

_Where = Annotated[str, Parameter(name="--ledger", help="Ledger folder or s3:// prefix.")]
_Json = Annotated[bool, Parameter(name=["--json", "-j"], negative="", help="One line of JSON.")]
_Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative="", help="Do it without asking.")]


def _open(named: str) -> Ledger:
    from farthing.ledger import Ledger

    place = named or default_ledger()
    if not is_ledger(place):
        raise BadInput(f"no ledger at {place}: run `farthing import PATH --ledger {place}` first")
    return Ledger(place)


@group.command
def info(*, ledger: _Where = "", json: _Json = False) -> int:
    """Tables, rows, files, bytes, days, sources, accounts, formats, versions, and when usage last came in."""
    from farthing.ledger import info as look

    found = look(_open(ledger))
    if json:
        write_json(found)
        return 0
    days = " to ".join(found["days"]) or "none"
    print(f"{found['ledger']}: format {found['format']}, {found['calls']:,} calls, days {days}")
    print(f"last import {found['last_import'] or 'unknown'}, {found['forgotten']:,} names forgotten")
    for what in ("sources", "accounts", "formats"):
        unit = "files" if what == "formats" else "calls"
        for name, count in found[what].items():
            print(f"  {what.removesuffix('s'):8} {name or '(not said)':24} {count:>14,} {unit}")
    for name, table in found["tables"].items():
        said = f"{table['rows']:>14,} rows {table['files']:>7,} files {table['bytes']:>15,} bytes"
        print(f"  {'table':8} {name:12} {said}   version {table['version']}")
    return 0


@group.command
def verify(*, ledger: _Where = "", json: _Json = False) -> int:
    """Check that files, rows, codes and calls are whole. Exit code 1 if not, with each fault and its mend."""
    from farthing.ledger import verify as check

    opened = _open(ledger)
    faults = check(opened)
    if json:
        write_json({"ledger": str(opened.folder), "faults": [fault._asdict() for fault in faults]})
    else:
        for fault in faults:
            print(f"{fault.table}: {fault.what}; {fault.mend}")
        print(f"{opened.folder}: {f'{len(faults):,} faults' if faults else 'whole'}")
    return int(bool(faults))


@group.command
def compact(*, ledger: _Where = "", json: _Json = False) -> int:
    """Put small files together and remove what no reader needs any more; others may read and import meanwhile."""
    from farthing.ledger import compact as put_together

    done = put_together(_open(ledger))
    if json:
        write_json({**done._asdict(), "left": list(done.left)})
        return 0
    print(f"{done.before:,} files became {done.after:,}; {done.removed:,} left over removed")
    if done.restored:
        print(f"{done.restored:,} codes brought back that an interrupted command had dropped")
    if done.linked:
        print(f"{done.linked:,} calls were there twice, and are one now")
    for what in done.left:
        print(f"{what}: others kept writing to it; compact again later")
    return 0


@group.command
def retain(
    *,
    days: Annotated[int, Parameter(help="Whole days before today to keep.")],
    totals: Annotated[bool, Parameter(negative="", help="Drop older control totals too.")] = False,
    yes: _Yes = False,
    ledger: _Where = "",
    json: _Json = False,
) -> int:
    """Drop usage and entries that are older, from every version. Says what it would drop, and asks."""
    from farthing.ledger import older
    from farthing.ledger import retain as drop
    from farthing.usage import EPOCH

    if days < 1:
        raise BadInput(f"--days {days}: at least 1")
    opened = _open(ledger)
    first = datetime.now(UTC) - timedelta(days=days)
    day = (first - EPOCH).days
    found = older(opened, day, totals=totals)
    said = f"{found.calls:,} calls of {found.days:,} days before {first:%Y-%m-%d}"
    said += f", {found.entries:,} entries beside tokens" if found.entries else ""
    said += f", {found.totals:,} control totals" if totals else ""
    do = bool(found.rows or found.totals or found.entries) and _agreed(f"drop {said}", yes=yes, quiet=json)
    dropped = drop(opened, day, totals=totals) if do else found
    answer = {"before": f"{first:%Y-%m-%d}", "done": do, **dropped._asdict()}
    return _answer(answer, f"dropped {said}" if do else f"would drop {said}", json=json)


@group.command
def forget(
    principal: Annotated[str, Parameter(help="The name as logs have it; * and ? stand for anything.")],
    /,
    *,
    yes: _Yes = False,
    ledger: _Where = "",
    json: _Json = False,
) -> int:
    """Put a pseudonym in place of a principal and its sessions, now and in later imports; costs stay. Asks first."""
    from farthing.ledger import find_named
    from farthing.ledger import forget as hide

    opened = _open(ledger)
    found = find_named(opened, principal)
    said = f"{len(found.names):,} names, {len(found.sessions):,} sessions, {found.calls:,} calls"
    said += f", {found.totals:,} control totals"
    said += f", {found.entries:,} entries beside tokens" if found.entries else ""
    do = _agreed(f"forget {said}: {', '.join(found.names[:5])}", yes=yes, quiet=json)
    if do:
        hide(opened, principal, datetime.now(UTC))
    counts = {
        "names": len(found.names),
        "sessions": len(found.sessions),
        "calls": found.calls,
        "totals": found.totals,
        "entries": found.entries,
    }
    done = f"forgot {said}; the logs it was read from, and where they lie, still name them"
    return _answer({"done": do, **counts}, done if do else f"would forget {said}", json=json)


def _agreed(what: str, *, yes: bool, quiet: bool) -> bool:
    """Whether to go on: as told, or as a person at a terminal answers; nobody there means no."""
    if yes:
        return True
    if quiet or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return input(f"{what}? It cannot be undone. [y/N] ").strip().lower() in ("y", "yes")


def _answer(answer: Mapping[str, Any], said: str, *, json: bool) -> int:
    if json:
        write_json(answer)
    else:
        print(said if answer["done"] else f"{said}; nothing done: add --yes to do it")
    return 0
