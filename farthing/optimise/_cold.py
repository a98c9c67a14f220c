"""What a change of model costs in the cache: what is alive at that moment, and what other workloads kept alive.

Caches are of a model. What is alive when a lot goes over is written anew, once (farthing.cache.cold). And where lots
of one model share a prefix, each kept it alive for the others: when one of them leaves, both sides write what only the
other had kept alive, for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from farthing.book import Book, Resolved
from farthing.cache import FIVE_US, HOUR_US
from farthing.cells import Cell
from farthing.levers import Ratio
from farthing.meters import Vector
from farthing.optimise._lent import Lot
from farthing.optimise._scenarios import find
from farthing.optimise._traffic import Traffic

NOTHING = (0, 0, 0)


class Lent(NamedTuple):
    """Tokens that a lot read and that only others had kept alive, and those that others read and only it had."""

    borrowed: int = 0
    lent: int = 0


ALONE = Lent()


def split(lot: Lot, traffic: Mapping[Lot, Traffic]) -> Lent:
    """What is read no more when the lot leaves its model and the others stay."""
    own = traffic.get(lot)
    return Lent(
        own.every * sum(own.borrowed.values()) if own else 0,
        sum(one.every * one.borrowed.get(lot, 0) for other, one in traffic.items() if other != lot),
    )


def apart(lent: Lent, old: Vector, new: Vector, kappas: Sequence[Ratio]) -> tuple[int, int, int]:
    """What writing it instead comes to: the lot's own at the new model's rates, the others' at the old one's."""
    stays = lent.lent * (old.cache_write_5m - old.cache_read)
    goes = lent.borrowed * (new.cache_write_5m - new.cache_read)
    low, mid, high = (stays + goes * above // below for above, below in kappas)
    return low, mid, high


def at_most(book: Book, cells: Iterable[Cell], model: str, span_us: int) -> int:
    """Where no prefixes are known: the most that a switch can lose at a mean moment.

    What is alive was used within its life, and each read ends one gap of at most so long.
    """
    total = 0
    for cell in cells:
        if not cell.tokens.cache_read or not isinstance(cell.sku, Resolved):
            continue
        card = find(book, cell.sku.sku._replace(model=model, zone=""), cell.at, cell.prompt, cached=True)
        if card is None or not card.cached:
            continue
        hour = cell.tokens.cache_write_1h > cell.tokens.cache_write_5m
        write = card.rates.cache_write_1h if hour else card.rates.cache_write_5m
        total += cell.tokens.cache_read * (write - card.rates.cache_read) * (HOUR_US if hour else FIVE_US)
    return total // max(1, span_us)
