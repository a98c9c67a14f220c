"""The book asked about itself: the history of a model, two books side by side, models whose end is near."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from typing import Any, NamedTuple

from farthing.book import Book, Card
from farthing.usage import Sku

_STAGES = {  # of a lifecycle, in the order in which they come
    "legacy": "legacy",
    "extended_access": "extended access: a higher price may follow",
    "eol": "end of life",
    "retirement": "retired",
}
_BOUNDS = {"": "", "_not_before": "not before", "_by": "by"}


class History(NamedTuple):
    """A day on which a rate of a SKU began, and the card that began with it; None where prices ended."""

    day: date
    sku: Sku
    card: Card
    before: Card | None


def history(book: Book, model: str, platform: str = "") -> list[History]:
    """Each change of price, in order of days: of rates, or of the prompts that they hold for."""
    found = []
    cards = [card for card in book.cards() if card.sku.model == model and platform in ("", card.sku.platform)]
    for card in cards:
        if card.prompt_from:
            continue
        before = next(
            (old for old in cards if (old.sku, old.ends, old.prompt_from) == (card.sku, card.starts, 0)), None
        )
        if before is None or _priced(before) != _priced(card):
            found.append(History(card.starts.date(), card.sku, card, before))
    return sorted(found, key=lambda change: (change.day, change.sku))


class Difference(NamedTuple):
    """Cards of a SKU, begun on the same day and at the same prompt size, of which the books differ."""

    old: Card | None
    new: Card | None


def differences(old: Book, new: Book) -> list[Difference]:
    """What the second book has otherwise: cards that came, went, or have other rates or days."""

    def by_box(book: Book) -> dict[tuple[Any, ...], Card]:
        return {(card.sku, card.starts, card.prompt_from): card for card in book.cards()}

    before, after = by_box(old), by_box(new)
    boxes = sorted(before.keys() | after.keys())
    return [
        Difference(before.get(box), after.get(box))
        for box in boxes
        if _holds(before.get(box)) != _holds(after.get(box))
    ]


def _priced(card: Card) -> tuple[Any, ...]:
    return card.prompt_to, card.cached, card.rates


def _holds(card: Card | None) -> tuple[Any, ...] | None:
    return (card.ends, *_priced(card)) if card else None


class Risk(NamedTuple):
    """A stage of a model's life that has come, or comes within the days asked for; `days` is below zero if it has."""

    platform: str
    model: str
    stage: str
    day: date
    bound: str  # "", "not before" or "by", where no more is known
    days: int
    source: str


def at_risk(
    book: Book, today: date, within: timedelta, used: Iterable[tuple[str, str]] | None = None
) -> list[Risk]:
    """Of the (platform, model) pairs in use, or of the whole book. What comes first is first."""
    pairs = used if used is not None else _offered(book)
    found = [risk for pair in sorted(set(pairs)) for risk in _risks(book, *pair, today)]
    return sorted((risk for risk in found if risk.days <= within.days), key=lambda risk: (risk.day, risk[:3]))


def _offered(book: Book) -> Iterator[tuple[str, str]]:
    for model in book.models.values():
        yield from ((platform, model.id) for platform in ("bedrock", "anthropic") if model.platform(platform))


def _risks(book: Book, platform: str, model: str, today: date) -> Iterator[Risk]:
    """By what its platform publishes. Where that is nothing, a price of extended access tells, or its maker."""
    known = book.models.get(model)
    life = known.platform(platform).get("lifecycle", {}) if known else {}
    found = list(_stages(life, platform, model, today))
    yield from found
    dearer = [
        card
        for card in book.cards()
        if (card.sku.platform, card.sku.model, card.sku.zone) == (platform, model, "extended")
    ]
    if dearer and not any(key.startswith("extended_access") for key in life):
        last = max(dearer, key=lambda card: card.starts)  # until then the zone had the price of all
        day = last.starts.date()
        stage = "extended access: a higher price in some regions"
        yield Risk(platform, model, stage, day, "", (day - today).days, last.source)
    elif known and not found:
        made = known.platform("anthropic").get("lifecycle", {})
        if day := made.get("retirement"):
            source = str(made.get("source", ""))
            yield Risk(platform, model, "retired by its maker", day, "", (day - today).days, source)


def _stages(life: Mapping[str, Any], platform: str, model: str, today: date) -> Iterator[Risk]:
    for key, stage in _STAGES.items():
        for suffix, bound in _BOUNDS.items():
            day = life.get(key + suffix)
            if day and not (suffix == "_not_before" and day < today):  # a bound that has passed says nothing
                yield Risk(
                    platform, model, stage, day, bound, (day - today).days, str(life.get("source", ""))
                )
