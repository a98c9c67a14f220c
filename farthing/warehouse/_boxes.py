"""What a book makes of a ledger's contexts, as three small tables to stand beside its own in a warehouse.

`places` has what each model id, region and so on comes to; `boxes` the number of the card of each place, era, band and
cached; `cards` the rates. A context that comes later finds its place, as long as its model, region and mode were there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from farthing.book import Card, Resolved, Unpriced
from farthing.cells import SKU_KEYS, Contexts, Question
from farthing.ledger import Ledger
from farthing.meters import METERS, Vector
from farthing.rating import Grid, grid
from farthing.usage import parse_model_id

TTL = "ttl"  # of this assumption, writes alone hang on it
CERTAIN, WRITES, ALL = range(3)  # what of a cost hangs on assumptions


class Values(NamedTuple):
    """A table that a query brings along: its columns with their types, and its rows."""

    types: dict[str, str]
    rows: list[tuple[Any, ...]]


class Boxes(NamedTuple):
    """Three tables; `on`, what of a context its place hangs on; `edges`, the columns of prompt sizes in `places`."""

    on: tuple[str, ...]
    edges: tuple[str, ...]
    lines: Grid
    places: Values
    boxes: Values
    cards: Values


def boxes(ledger: Ledger, question: Question) -> Boxes:
    """The tables for a question of any time: a ledger grows after its query was printed."""
    since, until = question.span()
    contexts = Contexts(ledger, replace(question, where=()), (since, until), ())
    lines = grid(question.book, sorted(contexts.skus), since, until)
    places = ledger.connection.table("ctx_places")  # as Contexts has laid them down
    types = {
        name: "string" if str(kind) == "VARCHAR" else "int64"
        for name, kind in zip(places.columns, places.types, strict=True)
    }
    own = (*(f"sku_{key}" for key in SKU_KEYS), "routing", "profile", *contexts.edge_columns)
    on = tuple(name for name in types if name not in (*own, "place"))
    numbers: dict[tuple[Any, ...], int] = {}
    found = [(*cell, numbers.setdefault(card, len(numbers))) for cell, card in _found(contexts, lines, since)]
    box = dict.fromkeys(("place", "era", "band", "cached", "number"), "int64")
    card = {"number": "int64", "card": "string", "unpriced": "string", "hangs": "int64"}
    rates = dict.fromkeys((f"rate_{meter}" for meter in METERS), "decimal(38, 0)")
    cards = [(number, *card) for card, number in numbers.items()]
    named = {**types, "named": "string", "named_short": "string"}
    return Boxes(
        on,
        tuple(contexts.edge_columns),
        lines,
        Values(named, [_named(row, types) for row in places.fetchall()]),
        Values(box, found),
        Values(card | rates, cards),
    )


def _named(row: tuple[Any, ...], types: dict[str, str]) -> tuple[Any, ...]:
    """A place with the profile that claims go by: one that AWS made is nobody's."""
    model = parse_model_id(dict(zip(types, row, strict=True))["model_id"])
    named = "" if model.base else model.profile
    return (*row, named, named.rpartition("/")[2])


def _found(
    contexts: Contexts, lines: Grid, since: Any
) -> Iterator[tuple[tuple[int, int, int, int], tuple[Any, ...]]]:
    """Each place in each cell of the book, with its card as a row; without one, why."""
    book = contexts.question.book
    for number, place in enumerate(contexts.places):
        for era, at in enumerate((since, *lines.dates)):
            for band, prompt in enumerate((0, *contexts.edges[number])):
                for cached in range(1 + lines.split_cached):
                    priced = (
                        book.find(place.sku, at, prompt, cached=bool(cached))
                        if isinstance(place, Resolved)
                        else place
                    )
                    yield (number, era, band, cached), _card(place, priced)


def _card(place: Resolved | Unpriced, priced: Card | Unpriced) -> tuple[Any, ...]:
    assumed = place.assumed if isinstance(place, Resolved) else ()
    if isinstance(priced, Unpriced):
        return "", priced.reason, hanging(assumed), *Vector()
    return priced.id, "", hanging((*assumed, *priced.assumed)), *priced.rates


def hanging(assumed: tuple[str, ...]) -> int:
    return CERTAIN if not assumed else WRITES if set(assumed) == {TTL} else ALL
