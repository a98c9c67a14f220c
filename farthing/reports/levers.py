"""What the levers saved, and what they could."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from farthing.book import Book, Card, Resolved, Unpriced
from farthing.cells import Cell, Question, cells
from farthing.ledger import Ledger
from farthing.levers import LEVERS, Lever
from farthing.meters import METERS, Vector
from farthing.rating import columns
from farthing.reports._table import Table, footer, heading, report
from farthing.usage import Sku

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw


def _flags() -> tuple[nw.Expr, nw.Expr]:
    """Whether a row's prompt is long enough to be cached, and whether a batch would make it cheaper."""
    import narwhals.stable.v2 as nw

    tokens = columns()
    saved = tokens @ columns("saves_")
    sign = nw.when(nw.col("reversal")).then(nw.lit(-1)).otherwise(nw.lit(1))
    return tokens.prompt.abs() >= nw.col("cache_minimum"), saved * sign > 0


@report("The levers: dollars eligible, already saved, still to be saved.", adds_up=True)
def levers(ledger: Ledger, question: Question) -> Table:
    """Each lever alone, on the usage as it was; their savings overlap and do not add up."""
    used = ledger.days()
    last = used[1] - timedelta(microseconds=1) if used else None

    def extra(place: Resolved | Unpriced) -> dict[str, int]:
        return _lever_facts(question.book, place, last)

    found = cells(ledger, question, ("model",), flags=_flags(), extra=extra, beside=_rewritten)
    rows = [score(question.book, made, found) for made in LEVERS.values()]
    shown = ("lever", "eligible_usd", "applied_usd", "missing_usd", "label")
    return Table("Levers", heading(found), shown, rows, footer(ledger, question, found))


def _rewritten(sku: Sku) -> list[Sku]:
    """Every SKU that a lever makes of this one, or that this one is made from."""
    probe = Vector(1, 1, 1, 1, 1)
    moves = (rewrite(sku, probe) for made in LEVERS.values() for rewrite in (made.rewrite, made.undo))
    return [moved[0] for moved in moves if moved]


def _lever_facts(book: Book, place: Resolved | Unpriced, at: datetime | None) -> dict[str, int]:
    """For each SKU: the least prefix that caches, and what a token of each meter saves when sent as a batch."""
    nothing = {"cache_minimum": 2**62, **{f"saves_{meter}": 0 for meter in METERS}}
    if isinstance(place, Unpriced) or at is None:
        return nothing
    sku = place.sku
    minimum = book.models[sku.model].cache_minimum(sku.platform, at.date())
    card = book.find(sku, at)
    facts = nothing | {"cache_minimum": 1_024 if minimum is None else minimum}
    for meter in METERS:
        moved = LEVERS["batch"].rewrite(sku, Vector(**{meter: 1}))
        batch = book.find(moved[0], at) if moved else None
        if moved and isinstance(card, Card) and isinstance(batch, Card):
            facts[f"saves_{meter}"] = Vector(**{meter: 1}) @ card.rates - moved[1] @ batch.rates
    return facts


def score(book: Book, made: Lever, found: Sequence[Cell]) -> dict[str, Any]:
    """What a lever saved and could save of these cells, whose flags say whether they cache and whether batch pays."""
    eligible = missing = applied = 0
    for cell in found:
        if isinstance(cell.price, Unpriced):
            continue
        now = cell.cost
        saved = _difference(book, cell, made.rewrite)
        if saved is not None and not _may(made, cell):
            saved = None
        if saved is not None:
            eligible += now
            missing += max(saved, 0)
        without = _difference(book, cell, made.undo)
        if without is not None:
            applied -= without
            eligible += now if saved is None else 0
    return {
        "lever": made.name,
        "eligible_usd": eligible,
        "applied_usd": applied,
        "missing_usd": missing,
        "label": "exact, same tokens" if made.exact else "upper limit",
        "says": made.says,
    }


def _may(made: Lever, cell: Cell) -> bool:
    """Caching wants prompts past the minimum, batch wants calls that it would make cheaper."""
    cacheable, batch_pays = cell.flags
    return {"caching": cacheable, "batch": batch_pays}.get(made.name, True)


def _difference(
    book: Book, cell: Cell, rewrite: Callable[[Sku, Vector], tuple[Sku, Vector] | None]
) -> int | None:
    """What the cell costs more than it would rewritten; None where the rewrite or its price does not exist."""
    assert isinstance(cell.price, Card)
    moved = rewrite(cell.price.sku, cell.tokens)
    if moved is None:
        return None
    sku, tokens = moved
    card = book.find(sku, cell.at, cell.prompt, cached=tokens.cached > 0)
    return cell.cost - tokens @ card.rates if isinstance(card, Card) else None
