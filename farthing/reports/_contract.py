"""Contracted and effective cost beside the list price, in reports of those who have private offers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from farthing.book import Card
from farthing.cells import Cell, Question, cells
from farthing.costs import Costed, costed, due, notes
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.reports._table import Table

COLUMNS = ("contracted_usd", "effective_usd")
_HEADS = {"contracted_usd": "contracted", "effective_usd": "effective"}


def priced(
    ledger: Ledger, question: Question, keys: Sequence[str], *, by_meter: bool = False
) -> tuple[list[Cell], list[Costed]]:
    """The cells at list price, and what each comes to by the offers; the latter is empty where there are none."""
    if not question.config.contracts:
        return cells(ledger, question, keys, by_meter=by_meter), []
    costs = costed(ledger, question, keys, by_meter=by_meter)
    return [made.cell for made in costs], costs


def beside(
    table: Table, costs: Sequence[Costed], keys: Sequence[str], ledger: Ledger, question: Question
) -> Table:
    """The report with the columns, and the four costs of all of it: FOCUS's ListCost, ContractedCost and so on."""
    if not question.config.contracts:
        return table
    sums: dict[tuple[Any, ...], list[int]] = {}
    for made in costs:
        for names, (contracted, effective) in _amounts(made, keys):
            total = sums.setdefault(names, [0, 0])
            total[:] = [total[0] + contracted, total[1] + effective]
    for row in table.rows:
        amounts: Sequence[int | None] = sums.get(tuple(row[key] for key in keys), (None, None))
        row["list_usd"] = row["usd"]
        row["contracted_usd"], row["effective_usd"] = amounts
    table.columns += COLUMNS
    table.heads |= _HEADS
    table.heading += "; USD is list price, contracted and effective are by your offers"
    table.parts |= _costs(costs, ledger, question)
    if said := notes(ledger, question):
        table.parts["notes"] = said
    return table


def _amounts(made: Costed, keys: Sequence[str]) -> Iterable[tuple[tuple[Any, ...], tuple[int, int]]]:
    """(keys, (contracted, effective)), of each meter if they are told apart by it."""
    if not isinstance(made.cell.price, Card):
        return
    if "meter" not in keys:
        yield made.cell.keys, (sum(made.contracted), sum(made.effective))
        return
    at = list(keys).index("meter")
    for meter, *amounts in zip(METERS, made.contracted, made.effective, strict=True):
        yield (*made.cell.keys[:at], meter, *made.cell.keys[at:]), (amounts[0], amounts[1])


def _costs(costs: Sequence[Costed], ledger: Ledger, question: Question) -> dict[str, int | None]:
    """The costs of all rows. What a period owes or gives back is of all usage, so a filter leaves it out.

    Effective has the shortfalls that fell due, and billed has rebates only of periods that are over.
    """
    contracted = sum(sum(made.contracted) for made in costs)
    effective = sum(sum(made.effective) for made in costs)
    back, short = (0, 0) if question.where else due(ledger, question, datetime.now(UTC).date())
    return {
        "list_usd": sum(made.cell.cost for made in costs),
        "contracted_usd": contracted,
        "effective_usd": effective + short,
        "billed_usd": None if question.where else contracted - back + short,
        **({"shortfall_usd": short} if short else {}),
    }
