"""What the choice of endpoint costs, and what the choice not to wait does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from farthing.book import Card
from farthing.cells import Cell, Question, cells
from farthing.ledger import Ledger
from farthing.levers import LEVERS
from farthing.reports._table import Table, footer, grouped, heading, report

_ENDPOINTS = ("platform", "model", "endpoint", "routing")
_BATCHING = ("workload", "platform", "model", "mode")


@report(
    "What each model costs at each endpoint, and what the endpoint adds to the global one's price.",
    adds_up=True,
)
def endpoints(ledger: Ledger, question: Question) -> Table:
    """`premium_usd` is what the same tokens would cost less at the global endpoint; 0 for what is there already.

    None where nothing of a row has a price, or its model has none there: what a premium is not over is not known.
    """
    found = cells(ledger, question, _ENDPOINTS)
    premiums: dict[tuple[Any, ...], int] = defaultdict(int)
    for cell in found:
        if isinstance(cell.price, Card):
            there = cell.price.sku.endpoint == "global"
            cost = cell.cost if there else _moved(question, cell, "endpoint")
            if cost is not None:
                premiums[cell.keys] += cell.cost - cost
    rows = _rows(found, _ENDPOINTS)
    for row in rows:
        row["premium_usd"] = premiums.get(tuple(row[key] for key in _ENDPOINTS))
    columns = (*_ENDPOINTS, "calls", "tokens", "usd", "premium_usd")
    under = footer(ledger, question, found)
    return Table("Endpoints", heading(found), columns, rows, under, heads={"premium_usd": "premium"})


@report(
    "What went as batches, and what the rest would come to as such: the most that waiting could save.",
    adds_up=True,
)
def batching(ledger: Ledger, question: Question) -> Table:
    """Each group alone, as if nothing of it had to be answered at once. None where there is no batch to be had."""
    found = cells(ledger, question, _BATCHING)
    batch: dict[tuple[Any, ...], int] = defaultdict(int)
    saved: dict[tuple[Any, ...], int] = defaultdict(int)
    for cell in found:
        cost = _moved(question, cell, "batch")
        if cost is not None:
            batch[cell.keys] += cost
            saved[cell.keys] += max(0, cell.cost - cost)
    rows = _rows(found, _BATCHING)
    for row in rows:
        keys = tuple(row[key] for key in _BATCHING)
        row["batch_usd"], row["saved_usd"] = batch.get(keys), saved.get(keys)
    columns = (*_BATCHING, "calls", "tokens", "usd", "batch_usd", "saved_usd")
    heads = {"batch_usd": "as a batch", "saved_usd": "would save"}
    return Table("Batching", heading(found), columns, rows, footer(ledger, question, found), heads=heads)


def _rows(found: Sequence[Cell], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Dearest first."""
    rows = grouped(found, keys)
    return sorted(rows, key=lambda row: (-(row["usd"] or 0), *(str(row[key]) for key in keys)))


def _moved(question: Question, cell: Cell, lever: str) -> int | None:
    """What the cell would cost under a lever; None where that changes nothing, or there is no such price."""
    if not isinstance(cell.price, Card):
        return None
    to = LEVERS[lever].rewrite(cell.price.sku, cell.tokens)
    if to is None:
        return None
    card = question.book.find(to[0], cell.at, cell.prompt, cached=to[1].cached > 0)
    return int(to[1] @ card.rates) if isinstance(card, Card) else None
