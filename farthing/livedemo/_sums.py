"""What a run came to, by its logs and by its bill; and the saving between two runs, lever by lever."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from farthing.api import import_paths
from farthing.book import Book, Unpriced
from farthing.cells import Question, cells
from farthing.ledger import Ledger
from farthing.levers import batch
from farthing.livedemo._day import DAY
from farthing.livedemo._floor import Spent
from farthing.livedemo._stack import DemoError, Places
from farthing.policy import LEVERS
from farthing.rating import find
from farthing.reconcile import reconcile
from farthing.statement import Statement


class Run(NamedTuple):
    """Picodollars: `picos` by logs and records, `billed` by the emulator's bill. `spent` is by request."""

    ledger: Ledger
    picos: int
    billed: int
    batched: int  # of `picos`, what the invocation logs do not have
    reconciled: bool
    spent: dict[str, Spent]


def question(book: Book) -> Question:
    return Question(since=DAY.date(), until=DAY.date(), book=book)


def read(places: Places, ledger: Ledger, calls: int, book: Book, now: datetime) -> Run:
    """Logs, results of batches and the gateway's records, each call once; and the bill beside them."""
    done = import_paths(ledger, [places.logs, places.outbox], now=now, workers=1)
    asked = question(book)
    found = reconcile(Statement([places.cur]), ledger, asked)
    spent: dict[str, Spent] = {}
    batched = total = 0
    for cell in cells(ledger, asked, ("tag:run",)):
        if isinstance(cell.sku, Unpriced) or isinstance(cell.price, Unpriced) or cell.calls != 1:
            raise DemoError(f"{cell.keys[0]}: {cell.calls} calls, {cell.price}")
        spent[cell.keys[0]] = Spent(cell.sku.sku, cell.tokens)
        total += cell.cost
        batched += cell.cost if cell.sku.sku.mode == "batch" else 0
    exact = not (found.difference_picos or found.explained or found.unexplained or done.errors)
    reconciled = exact and total == found.ours_picos and len(spent) == calls
    return Run(ledger, total, found.billed_picos, batched, reconciled, spent)


def waterfall(off: Run, on: Run, caching: Mapping[str, str], book: Book) -> dict[str, int]:
    """What each lever saved: put on one after the other in the order in which they are decided, request by request.

    `caching` names the lever, cache or ttl, that changed where a request's tokens were billed. The parts sum to the
    whole, since each begins where the one before it ended.
    """
    saved = dict.fromkeys(LEVERS, 0)
    for name, before in off.spent.items():
        cost = _cost(before, book)
        for lever, now in _steps(before, on.spent[name], caching.get(name, "cache")):
            then, cost = cost, _cost(now, book)
            saved[lever] += then - cost
    return saved


def _steps(before: Spent, after: Spent, caching: str) -> list[tuple[str, Spent]]:
    """The request with one lever after the other, and at last as it was sent."""
    sku = before.sku
    if after.sku.model != sku.model:
        sku = after.sku._replace(endpoint=sku.endpoint, mode=sku.mode)
    model = Spent(sku, before.tokens)
    made = batch.rewrite(*model) if after.sku.mode == "batch" else None
    batched = Spent(*made) if made else model
    return [
        ("model", model),
        ("batch", batched),
        (caching, Spent(batched.sku, after.tokens)),
        ("endpoint", after),
    ]


def _cost(spent: Spent, book: Book) -> int:
    card = find(book, spent.sku, DAY, spent.tokens)
    if isinstance(card, Unpriced):
        raise DemoError(f"{spent.sku}: {card.reason}")
    cost: int = spent.tokens @ card.rates
    return cost
