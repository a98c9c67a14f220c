"""A closed month as lines for the general ledger."""

from __future__ import annotations

import sys
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Json, parse_month
from farthing.cli._shared import default_ledger, is_ledger, load_config, write_json

if TYPE_CHECKING:
    from farthing.exporters.journal import JournalLine


@app["export"].command
def journal(
    month: Annotated[str, Parameter(help="2026-10.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="The file to write: .csv, .parquet or .json.")],
    closing: Annotated[
        str, Parameter(help="What one closing booked alone, as 2026-10.2; else all of the month's.")
    ] = "",
    ledger: Annotated[str, Parameter(help="Ledger: a folder, or s3://BUCKET/PREFIX.")] = "",
    config: Annotated[
        Path | None, Parameter(help="farthing.toml: teams with cost centres, [journal].")
    ] = None,
    json: Json = False,
) -> int:
    """A closed month by cost centre and GL code, in cents: debits equal credits, and nothing is lost in rounding."""
    from farthing.exporters.journal import SUFFIXES, write
    from farthing.exporters.journal import journal as made
    from farthing.ledger import Ledger, closings

    _check(month, out, SUFFIXES)
    settings = load_config(config)
    place = ledger or default_ledger(settings)
    if not is_ledger(place):
        raise BadInput(f"no ledger at {place}: run `farthing import PATH --ledger {place}` first")
    seen = closings(Ledger(place))
    if closing and closing not in [one.id for one in seen if one.period == month]:
        raise BadInput(f"--closing {closing!r} is none of {month}; see `farthing closings list`")
    if all(one.period != month for one in seen):
        print(f"farthing: {month} is not closed: farthing close {month}", file=sys.stderr)
        return 1
    lines = [
        line for line in made(seen, month, settings) if closing in ("", line.reference.partition("/")[0])
    ]
    write(out, lines)
    last = [one for one in seen if one.period == month][-1].said["months"][month]
    unpriced = 0 if last.get("bill") else last["unpriced_calls"]
    _tell(out, lines, month, unpriced, json=json)
    return 0


def _check(month: str, out: Path, suffixes: tuple[str, ...]) -> None:
    try:
        parse_month(month)
    except BadInput as error:
        raise BadInput(f"{month!r} is no month: write 2026-10") from error
    if out.suffix not in suffixes:
        raise BadInput(f"{out}: name a file that ends in {', '.join(suffixes)}")
    if not out.parent.is_dir():
        raise BadInput(f"{out}: there is no folder {out.parent}")


def _tell(out: Path, lines: list[JournalLine], month: str, unpriced: int, *, json: bool) -> None:
    """What is in the file, by currency and by the month whose money it is: expense, which is what is owed."""
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for line in lines:
        if line.kind:
            sums[line.currency, line.of] += Decimal(line.amount)
    if json:
        booked = [{"currency": c, "of": of, "amount": f"{total}"} for (c, of), total in sorted(sums.items())]
        write_json({"file": str(out), "month": month, "lines": len(lines), "booked": booked,
                    "unpriced_calls": unpriced})  # fmt: skip
        return
    print(f"{out}: {len(lines):,} lines of {month}; debits equal credits")
    for (currency, of), total in sorted(sums.items()):
        print(f"  {total:>16,} {currency}  of {of}")
    if unpriced:
        print(f"{unpriced:,} calls without a price are not in it: {month} was closed without a bill")
