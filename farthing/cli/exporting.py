"""Costs out, in formats that others read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._offered import ByOffers, offers_json, print_offers, taken_off
from farthing.cli._shared import Asked, ledger_to_read, write_json
from farthing.money import show, usd

export = App(name="export", help="Costs out, in formats that others read.")
app.command(export)


@export.command
def focus(
    out: Annotated[Path, Parameter(help="The file to write: .csv or .parquet.")],
    *,
    version: Annotated[Literal["1.2"], Parameter(help="Of the FOCUS specification.")] = "1.2",
    tags: Annotated[str, Parameter(help="KEY[,KEY...]: the tags that rows are told apart by.")] = "",
    asked: Asked | None = None,
    offers: ByOffers | None = None,
) -> int:
    """FOCUS rows: a day, account, region, SKU and meter each, with list, contracted, effective and billed cost."""
    from farthing.exporters.focus import export as write

    asked = asked or Asked()
    if out.suffix not in (".csv", ".parquet"):
        raise BadInput(f"{out}: name a .csv or .parquet file")
    if asked.shared:
        raise BadInput("--shared: a FOCUS file names no principals; choose its --tags, and leave this out")
    if not out.parent.is_dir():
        raise BadInput(f"{out}: there is no folder {out.parent}")
    question = (offers or ByOffers()).asked(asked.question())
    with ledger_to_read(asked.ledger, question.config) as ledger:
        done = write(ledger, question, out, tuple(name for name in tags.split(",") if name))
        taken = taken_off(ledger, question)
    if asked.json:
        counts = {"unpriced_calls": done.unpriced_calls}
        counts |= {"unpriced_entries": done.unpriced_entries} if done.unpriced_entries else {}
        write_json({"rows": done.rows, "usd": usd(done.picos), **counts, **offers_json(taken)})
        return 0
    print(f"{out}: {done.rows:,} rows of FOCUS {version}, {show(done.picos)}")
    print_offers(taken)
    if done.unpriced_calls:
        print(f"{done.unpriced_calls:,} calls without a price are not in it")
    if done.unpriced_entries:
        print(f"{done.unpriced_entries:,} sessions, searches or code run without a price are not in it")
    return 0
