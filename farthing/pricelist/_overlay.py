"""An overlay: price rows of one TOML file, laid on a book from their day on. What they do not name stays as it is.

Its rows are rows of the catalogue (prices/README.md), for models that the book knows, or whole models that it does not.
Two keys are its own: `endpoints` and `modes` (on_demand, if left out). A row that has one of them holds there alone,
and its rates are what is paid there: no factor of an endpoint or of batch is applied to them.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from farthing.book import UNREADABLE_TOML, Book, Card, Model, default_book, toml_fault
from farthing.meters import METERS
from farthing.pricelist._lines import PriceListError
from farthing.usage import PLATFORMS, Sku

MODES = ("on_demand", "batch")  # that a row may name
_ROW = (
    "from", "to", *METERS, "bands", "platforms", "zones", "endpoints", "modes", "cache", "source", "accessed",
    "confidence", "bedrock_confidence",
)  # fmt: skip
_MODEL = ("name", "released", "ids", "sources", "accessed", "confidence", "price")  # that a new model needs


def load_book(named: str | Path = "") -> Book:
    """A book by its name: a folder of TOML, an overlay on the shipped one, or the shipped one itself ("")."""
    if not str(named):
        return default_book()
    path = Path(named)
    if not path.exists():
        raise PriceListError(f"{path}: no such book: name a folder of TOML files, or an overlay")
    return Book.load(path) if path.is_dir() else overlaid(default_book(), path)


def overlaid(book: Book, path: Path | str) -> Book:
    """The book with the overlay on it, under a digest of its own; PriceListError names the row that is wrong."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PriceListError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise PriceListError(f"{path}: not UTF-8: save it as UTF-8") from error
    return laid(book, text, str(path))


def laid(book: Book, text: str, file: str = "overlay") -> Book:
    """`overlaid`, of the overlay's text."""
    try:
        tables = tomllib.loads(text, parse_float=Decimal)
    except UNREADABLE_TOML as error:
        raise PriceListError(f"{file}:{toml_fault(error, text)}") from error
    models = dict(book.models)
    cards: dict[str, dict[Sku, list[Card]]] = defaultdict(lambda: defaultdict(list))
    for card in book.cards():
        cards[card.sku.model][card.sku].append(card)
    for name, table in tables.items():
        try:
            if name in book.models:
                _lay_rows(book, book.models[name], table, cards[name])
            else:
                models[name] = _new_model(book, name, table)
                for card in _expanded(book, models[name]):
                    cards[name][card.sku].append(card)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            raise PriceListError(f"{file}:{_line(text, name)}: {name}: {_said(error)}") from error
    digest = hashlib.sha256((book.digest + text).encode()).hexdigest()[:12]
    for of_model in cards.values():
        for of_sku in of_model.values():
            of_sku.sort(key=lambda card: (card.starts, card.prompt_from))
    try:
        made = Book(models, book.defaults, digest, _cards={name: dict(of) for name, of in cards.items()})
        made.check()
    except ValueError as error:
        raise PriceListError(f"{file}: {error}") from error
    return made


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"needs {error.args[0]!r}"
    return str(error) if isinstance(error, ValueError) else f"not written as a row of prices is: {error}"


def _line(text: str, name: str) -> int:
    """The first line that has a table of the model."""
    head = re.compile(rf"\s*\[+\s*[\"']?{re.escape(name)}\b")
    return next((number for number, line in enumerate(text.splitlines(), 1) if head.match(line)), 1)


def _new_model(book: Book, name: str, table: Mapping[str, Any]) -> Model:
    missing = [key for key in _MODEL if key not in table]
    if missing:
        near = difflib.get_close_matches(name, book.models, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise PriceListError(f"no model of the book, and as a new one it lacks {', '.join(missing)}{hint}")
    for row in table["price"]:
        _check_row({"from": table["released"], **row})
    return Model(name, table)


def _lay_rows(book: Book, model: Model, table: Mapping[str, Any], cards: dict[Sku, list[Card]]) -> None:
    if not isinstance(table, dict) or set(table) != {"price"} or not isinstance(table["price"], list):
        raise PriceListError(
            f"a model of the book has [[{model.id}.price]] rows in an overlay, and nothing else"
        )
    for row in table["price"]:
        _check_row(row)
        for sku, new in _by_sku(_expanded(book, _of_row(model, row), row)).items():
            cards[sku] = [
                piece for old in cards[sku] for piece in _cut(old, new[0].starts, new[0].ends)
            ] + new


def _check_row(row: Mapping[str, Any]) -> None:
    for key in row:
        if key not in _ROW:
            near = difflib.get_close_matches(key, _ROW, n=1)
            mend = f"did you mean `{near[0]}`?" if near else f"known here are {', '.join(_ROW)}"
            raise PriceListError(f"unknown key {key!r}; {mend}")
    for key in ("from", "to", "accessed"):
        if key in row and (not isinstance(row[key], date) or isinstance(row[key], datetime)):
            raise PriceListError(f"{key} is no day: write 2026-09-01, without quotes")
    if "from" not in row:
        raise PriceListError("a row of an overlay says from which day on it holds: from = 2026-09-01")
    for key, known in (("platforms", PLATFORMS), ("modes", MODES)):
        if unknown := set(row.get(key, ())).difference(known):
            raise PriceListError(f"{key}: {', '.join(sorted(unknown))} is none of {', '.join(known)}")
    if _exact(row) and "platforms" not in row:
        raise PriceListError(
            'a row that names endpoints or modes names its platforms too: platforms = ["bedrock"]'
        )
    for rates in (row, *row.get("bands", ())):
        _check_rates(rates)


def _check_rates(row: Mapping[str, Any]) -> None:
    """Of a row, or of a band of one: what is missing would cost nothing."""
    for key in ("input", "output"):
        if key not in row:
            raise PriceListError(f"a row needs {key}: without it that would cost nothing")
    for meter in METERS:
        if row.get(meter, 1) <= 0:
            raise PriceListError(f"{meter} = {row[meter]}: a rate is above zero; leave out what is not known")


def _of_row(model: Model, row: Mapping[str, Any]) -> Model:
    """The model with this row as its only price; with factors of 1 where the row says what is paid."""
    data = {**model.data, "price": [row]}
    for platform in PLATFORMS:
        offered = {**model.platform(platform)}
        if not offered:
            continue
        offered.pop("fast", None)
        if _exact(row):
            offered["endpoints"] = dict.fromkeys(row.get("endpoints", offered["endpoints"]), 1)
            if "batch" in row.get("modes", ()):
                offered["batch"] = "sku"
        data[platform] = offered
    return Model(model.id, data)


def _exact(row: Mapping[str, Any]) -> bool:
    return "endpoints" in row or "modes" in row


def _expanded(book: Book, model: Model, row: Mapping[str, Any] | None = None) -> Iterator[Card]:
    """The cards that the book would make of the model; those of a row that names modes, as paid."""
    defaults = book.defaults
    if row and _exact(row):
        defaults = {**defaults, "factors": {**defaults["factors"], "mode": {}}}
    modes = row.get("modes", ("on_demand",)) if row and _exact(row) else ()
    for card in Book({model.id: model}, defaults, book.digest).cards():
        if not modes or card.sku.mode in modes:
            yield card


def _by_sku(cards: Iterable[Card]) -> dict[Sku, list[Card]]:
    found: dict[Sku, list[Card]] = defaultdict(list)
    for card in cards:
        found[card.sku].append(card)
    return found


def _cut(card: Card, starts: datetime, ends: datetime) -> Iterator[Card]:
    """What is left of the card outside those days."""
    if card.starts < starts:
        yield replace(card, ends=min(card.ends, starts))
    if card.ends > ends:
        begins = max(card.starts, ends)
        band = f">{card.prompt_from - 1}" if card.prompt_from else ""
        yield replace(card, id=f"{card.sku}@{begins:%Y-%m-%d}{band}", starts=begins)
