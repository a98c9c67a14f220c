"""Contracted and effective cost beside the list price, in reports of those who have private offers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from farthing.book import Card
from farthing.cells import Cell, Question, cells
from farthing.costs import Costed, costed, due, notes, off_list
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.reports._table import Table

COLUMNS = ("contracted_usd", "effective_usd")
_HEADS = {"usd": "list", "contracted_usd": "contracted", "effective_usd": "effective"}


def priced(
    ledger: Ledger, question: Question, keys: Sequence[str], *, by_meter: bool = False
) -> tuple[list[Cell], list[Costed]]:
    """The cells at list price, and what each comes to by the offers; the latter is empty where there are none."""
    if not question.book.offers:
        return cells(ledger, question, keys, by_meter=by_meter), []
    costs = costed(ledger, question, keys, by_meter=by_meter)
    return [made.cell for made in costs], costs


def beside(
    table: Table, costs: Sequence[Costed], keys: Sequence[str], ledger: Ledger, question: Question
) -> Table:
    """The report with the columns, and the four costs of all of it: FOCUS's ListCost, ContractedCost and so on."""
    if not question.book.offers:
        return table
    sums: dict[tuple[Any, ...], int] = {}
    for made in costs:
        for names, picos in _amounts(made, keys):
            sums[names] = sums.get(names, 0) + picos
    for row in table.rows:
        row["list_usd"] = row["usd"]
        # what periods owe or give back is no call's
        row["contracted_usd"] = row["effective_usd"] = sums.get(tuple(row[key] for key in keys))
    table.columns += COLUMNS
    table.heads |= _HEADS
    table.heading += "; list price, and contracted and effective by your offers"
    table.parts |= _costs(costs, ledger, question)
    table.footer["offers"] = off_list(question.book, table.parts["list_usd"], table.parts["contracted_usd"])
    if said := notes(ledger, question):
        table.parts["notes"] = said
    return table


def _amounts(made: Costed, keys: Sequence[str]) -> Iterable[tuple[tuple[Any, ...], int]]:
    """(keys, contracted cost), of each meter if they are told apart by it."""
    if not isinstance(made.cell.price, Card):
        return
    if "meter" not in keys:
        yield made.cell.keys, sum(made.contracted)
        return
    at = list(keys).index("meter")
    for meter, picos in zip(METERS, made.contracted, strict=True):
        yield (*made.cell.keys[:at], meter, *made.cell.keys[at:]), picos


def _costs(costs: Sequence[Costed], ledger: Ledger, question: Question) -> dict[str, int | None]:
    """The costs of all rows, with what came back and fell due of periods that are over. That is of all usage, so a
    filter leaves it out, and what was billed is then unknown.
    """
    contracted = sum(sum(made.contracted) for made in costs)
    back, short = due(ledger, question, datetime.now(UTC).date())
    effective = contracted - back + short
    return {
        "list_usd": sum(made.cell.cost for made in costs),
        "contracted_usd": contracted,
        "effective_usd": effective,
        "billed_usd": None if question.where else effective,
        **({"rebate_usd": back} if back else {}),
        **({"shortfall_usd": short} if short else {}),
    }
