"""A bill alone, as the ledger's own reports show usage: the waterfall and the levers, from what AWS billed.

Lines of one day, account, SKU and prompt band are a cell; what was billed beyond the book's rates (a discount, mostly)
is a step of its own.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, time
from typing import Any

from farthing.book import Card, Resolved
from farthing.cells import Cell
from farthing.levers import LEVERS
from farthing.meters import CACHE_METERS, Vector
from farthing.reports.bills import STEPS, layers
from farthing.reports.levers import score
from farthing.statement import Billed, Statement

_BEYOND = "Billed other than the list says (discounts, other rates)"
_NO_RATE = "Billed at rates the book does not have"


def waterfall(statement: Statement) -> list[dict[str, Any]]:
    """Steps from list price at global to what was billed for tokens; they sum to it exactly."""
    cells = as_cells(statement)
    steps = dict.fromkeys((name for name, _ in STEPS), 0)
    for cell in cells:
        assert isinstance(cell.price, Card)
        for name, cost in layers(statement.book, cell, cell.price).items():
            steps[name] += cost
    rated = sum(line.billed_picos for line in statement.billed if line.list_picos is not None)
    rows = [{"step": name, "label": label, "usd": steps[name]} for name, label in STEPS]
    rows = [row for row in rows if row["usd"] or row["step"] == "list"]
    for name, label, picos in (
        ("beyond_list", _BEYOND, rated - sum(steps.values())),
        ("no_rate", _NO_RATE, statement.billed_picos - rated),
    ):
        if picos:
            rows.append({"step": name, "label": label, "usd": picos})
    return [*rows, {"step": "total", "label": "Billed for tokens", "usd": statement.billed_picos}]


def levers(statement: Statement) -> list[dict[str, Any]]:
    """Each lever on what was billed, at list prices. A bill tells no prompt sizes: caching, batch are upper limits."""
    cells = as_cells(statement)
    return [score(statement.book, made, cells) for made in LEVERS.values()]


def as_cells(statement: Statement) -> list[Cell]:
    """The billed tokens that have a card, as cells."""
    groups: dict[tuple[Any, ...], list[Billed]] = defaultdict(list)
    for line in statement.billed:
        if line.list_picos is not None:
            place = (
                line.day,
                line.account,
                line.model,
                line.endpoint,
                line.mode,
                line.region,
                line.long_prompt,
            )
            groups[place].append(line)
    return [cell for place, lines in groups.items() for cell in _cells(statement, place, lines)]


def _cells(statement: Statement, place: tuple[Any, ...], lines: list[Billed]) -> list[Cell]:
    day, _, model, endpoint, mode, region, long_prompt = place
    counts: dict[bool, dict[str, int]] = {}
    for line in lines:
        # in a batch only what is not cached has a rate: those lines may lie beside others in one place
        cached = mode == "batch" and line.meter in CACHE_METERS
        of = counts.setdefault(cached, {})
        of[line.meter] = of.get(line.meter, 0) + line.tokens
    found = []
    for cached, tokens in counts.items():
        card = statement.card(model, endpoint, mode, region, day, long_prompt, cached)
        assert isinstance(card, Card)  # its lines have a list price
        vector = Vector(**tokens)
        at = datetime.combine(day, time(), UTC)
        sku = Resolved(card.sku, endpoint, ())
        found.append(
            Cell((model,), sku, at, card.prompt_from, card, vector, 0, Vector(), vector @ card.rates, (),
                 "statement", (True, mode != "batch"))
        )  # fmt: skip
    return found
