"""Costs out, in formats that others read."""

from __future__ import annotations

import sys
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


@export.command
def prometheus(
    out: Annotated[
        Path | None, Parameter(help="A file of node_exporter's textfile folder, .prom; stdout if left out.")
    ] = None,
    *,
    asked: Asked | None = None,
) -> int:
    """The ledger as OpenMetrics: today's and this month's cost, budgets, what is unpriced, assumed, or old."""
    from datetime import UTC, datetime
    from importlib import metadata

    from farthing.exporters.prometheus import Budget, text
    from farthing.reports.budgets import standings

    asked = asked or Asked()
    if asked.shared or asked.json or asked.csv or asked.since or asked.until:
        raise BadInput(
            "metrics are as of now, in their own form: leave out --since, --until, --json, --csv, --shared"
        )
    if out is not None and not out.parent.is_dir():
        raise BadInput(f"{out}: there is no folder {out.parent}")
    question, now = asked.question(), datetime.now(UTC)
    with ledger_to_read(asked.ledger, question.config) as ledger:
        budgets = [Budget(one.budget.name, one.limit, one.spent) for one in standings(ledger, question, now)]
        made = text(ledger, question, now, budgets, metadata.version("farthing"))
    if out is None:
        sys.stdout.write(made)
        return 0
    beside = out.with_name(
        f".{out.name}.new"
    )  # the collector reads whatever ends in .prom, and never half of it
    beside.write_text(made, encoding="utf-8")
    beside.replace(out)
    return 0


@export.command
def grafana() -> int:
    """A Grafana dashboard over these metrics and the gateway's, as JSON to import (docs/metrics.md)."""
    import json

    from farthing.exporters.grafana import dashboard

    print(json.dumps(dashboard(), indent=2))
    return 0


@export.command
def alerts() -> int:
    """Alert rules for Prometheus over these metrics and the gateway's (docs/metrics.md)."""
    from farthing.exporters.grafana import rules

    sys.stdout.write(rules())
    return 0
