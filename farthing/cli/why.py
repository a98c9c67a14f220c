"""Why one period cost more than another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from farthing.cli._app import app
from farthing.cli._bills import Json, parse_days
from farthing.cli._shared import ledger_to_read, parse_assume, read_profiles, write_json
from farthing.money import show, usd


@app.command
def why(
    *,
    from_: Annotated[
        str, Parameter(name="--from", help="A month, 2026-09, or days: 2026-09-01..2026-09-15.")
    ],
    to: Annotated[str, Parameter(help="The later month or days.")],
    ledger: Annotated[str, Parameter(help="Ledger: a folder, or s3://BUCKET/PREFIX.")] = "",
    where: Annotated[list[str] | None, Parameter(negative="", help="As in reports.")] = None,
    tz: str = "UTC",
    assume: Annotated[list[str] | None, Parameter(negative="", help="As in reports.")] = None,
    profiles: Annotated[Path | None, Parameter(help="As in reports.")] = None,
    json: Json = False,
) -> int:
    """Why the cost moved: volume, sizes, mixes, cache and each dated price, summing to the difference exactly."""
    from farthing.cells import Question, parse_where
    from farthing.why import why as explain

    question = Question(
        tz=tz,
        where=tuple(parse_where(text) for text in where or ()),
        assume=parse_assume(assume or ()),
        profiles=read_profiles(profiles),
    )
    with ledger_to_read(ledger) as books:
        found = explain(books, question, parse_days(from_, "--from"), parse_days(to, "--to"))
    if json:
        write_json(
            {
                "from_usd": usd(found.from_picos),
                "to_usd": usd(found.to_picos),
                "steps": [{"name": step.name, "usd": usd(step.picos)} for step in found.steps],
                "unpriced_calls": found.unpriced_calls,
            }
        )
        return 0
    print(f"  {show(found.from_picos):>18}  {from_}")
    for step in found.steps:
        print(f"  {('+' if step.picos > 0 else '') + show(step.picos):>18}  {step.name}")
    print(f"  {show(found.to_picos):>18}  {to}")
    if found.unpriced_calls:
        print(f"  {found.unpriced_calls:,} calls without a price are in neither")
    return 0
