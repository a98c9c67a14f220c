"""Price: what AWS's tokens cost beyond the book's rate, and why.

A share of list that two meters or more of an account and model are at is a discount, on the days that nothing of it
is at list. A rate that is wrong as well is told apart: first the rate, then the discount off it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from farthing.book import Book, Unpriced
from farthing.meters import CACHE_METERS
from farthing.reconcile._causes import Causes
from farthing.reconcile._sides import Place, Side
from farthing.usage import Sku

ROUNDING_PICOS = 1_000_000  # a line's cost has at least six decimals that count
AS_GOOD_AS = Fraction(1, 100_000)  # a share below list that is the same, but for the rounding of amounts
_LEAST = 1 - AS_GOOD_AS * 10  # a share that is below list at all
_SHARES = 20  # are looked at, those of most money first
_Sides = Mapping[Place, Side]


class _Deal(NamedTuple):
    """A share of list, and the days it was in force."""

    share: Fraction
    days: frozenset[date]


def name_prices(sides: _Sides, book: Book, causes: Causes) -> None:
    by_model: dict[tuple[str, str], list[Place]] = defaultdict(list)
    for place, side in sides.items():
        if side.rate is None:
            where = f"{place.model} {place.endpoint} {place.mode} {place.meter}"
            causes.add("no rate in the book", where, side.theirs_picos, side.lines)
        elif side.theirs or side.theirs_picos:
            by_model[place.account, place.model].append(place)
    deals = {owner: _deals(sides, places) for owner, places in by_model.items()}
    for (account, model), places in by_model.items():
        others = [deal for (of, _), found in deals.items() for deal in found if of == account]
        # too few rates to tell by themselves: they may be at the share of the account's other models
        found = deals[account, model] or [deal for deal in others if _is_on(deal, sides, places, book)]
        for place in places:
            deal = next((deal for deal in found if place.day in deal.days), None)
            _name(sides[place], place, deal, book, causes)


def _is_on(deal: _Deal, sides: _Sides, places: Sequence[Place], book: Book) -> bool:
    """Whether a discount on other models of the account is on these rates too: some fit it, and none is at list."""
    on = [(sides[place], place) for place in places if place.day in deal.days]
    fit = [_fits(side, place, deal, book) for side, place in on]
    return any(fit) and all(
        fits or not _is_at(side, Fraction(1)) for (side, _), fits in zip(on, fit, strict=True)
    )


def _fits(side: Side, place: Place, deal: _Deal, book: Book) -> bool:
    before = round(side.theirs_picos / deal.share)
    return _is_at(side, deal.share) or bool(_zone_billed(side, place, before, book))


def _deals(sides: _Sides, places: Sequence[Place]) -> list[_Deal]:
    listed = {place: _listed(sides[place]) for place in places if _listed(sides[place]) > 0}
    off = sorted((p for p in listed if not _is_at(sides[p], Fraction(1))), key=lambda p: (-listed[p], p))
    found: list[_Deal] = []
    taken: set[Place] = set()
    tried: set[Place] = set()
    for _ in range(_SHARES):
        first = next((place for place in off if place not in tried | taken), None)
        if first is None:
            break
        share = Fraction(sides[first].theirs_picos) / listed[first]
        at = [place for place in off if place not in taken and _is_at(sides[place], share)]
        tried.update(at, [first])
        if not 0 < share < _LEAST:
            continue
        days = frozenset(place.day for place in at)
        others = [place for place in listed if place.day in days and not _is_at(sides[place], share)]
        at_list = any(_is_at(sides[place], Fraction(1)) for place in others)
        several = len({place.meter for place in at}) > 1
        if several and not at_list and sum(listed[p] for p in at) > sum(listed[p] for p in others):
            share = Fraction(sum(sides[place].theirs_picos for place in at)) / sum(listed[p] for p in at)
            found.append(_Deal(_plain(share, [sides[place] for place in at]), days))
            taken.update(at, others)
    return found


def _plain(share: Fraction, sides: Sequence[Side]) -> Fraction:
    """The share as somebody would have agreed on it, where that is within rounding."""
    near = share.limit_denominator(10_000)
    return near if all(_is_at(side, near) for side in sides) else share


def _listed(side: Side) -> Fraction:
    return Fraction(side.theirs * (side.rate or 0))


def _is_at(side: Side, share: Fraction) -> bool:
    at_list = _listed(side)
    slack = ROUNDING_PICOS * max(side.lines, 1) + AS_GOOD_AS * abs(at_list)
    return abs(side.theirs_picos - share * at_list) <= slack


def _name(side: Side, place: Place, deal: _Deal | None, book: Book, causes: Causes) -> None:
    before = side.theirs_picos  # of the discount
    if deal:
        if _is_at(side, deal.share):
            before = side.theirs_picos - side.price_picos
        else:
            before = round(side.theirs_picos / deal.share)
        off = (100 * (1 - Decimal(deal.share.numerator) / deal.share.denominator)).quantize(Decimal("0.01"))
        name = f"discount of {off.normalize():f} %"
        causes.add(name, f"{place.account} {place.model}", side.theirs_picos - before, side.lines)
    extra = side.price_picos - (side.theirs_picos - before)
    at_list = before - extra
    slack = ROUNDING_PICOS * max(side.lines, 1)
    if abs(extra) <= slack:
        causes.add("rounding", "amounts and quantities of the bill", extra, side.lines)
        return
    what = f"{place.model} {place.endpoint} {place.mode} {place.meter}"
    if zone := _zone_billed(side, place, before, book):
        at = f"{place.account} {what}: billed at the rate of zone {zone}"
        causes.add("extended access", at, extra, side.lines)
        return
    share = extra * 10_000 // at_list if at_list else 0
    dearer = f"{Decimal(share) / 100:+.2f} %"
    if extra > 0 and _is_legacy(book, place):
        causes.add("extended access", f"{place.account} {what}: {dearer}", extra, side.lines)
        return
    causes.add("rate other than the book's", f"{what}: {dearer}", extra, side.lines)


def _zone_billed(side: Side, place: Place, picos: int, book: Book) -> str:
    """The other zone of the model's price at whose rate the tokens come to that much; "" for none."""
    slack = ROUNDING_PICOS * max(side.lines, 1) + AS_GOOD_AS * abs(picos)
    rates = _zone_rates(book, place).items()
    return next((zone or "standard" for zone, rate in rates if abs(picos - side.theirs * rate) <= slack), "")


def _is_legacy(book: Book, place: Place) -> bool:
    """Whether AWS may ask more for the model on that day without saying how much."""
    since = book.models[place.model].platform("bedrock").get("lifecycle", {}).get("extended_access")
    return since is not None and place.day >= since


def _zone_rates(book: Book, place: Place) -> dict[str, int]:
    """What the model costs on that day in the other zones of its price."""
    zones = ("", *book.models[place.model].platform("bedrock").get("zones", ()))
    at = datetime.combine(place.day, time(), UTC)
    found = {}
    for zone in zones:
        sku = Sku("bedrock", place.model, place.endpoint, zone, place.mode)
        card = book.find(sku, at, cached=place.meter in CACHE_METERS)
        if zone != place.zone and not isinstance(card, Unpriced):
            found[zone] = int(getattr(card.rates, place.meter))
    return found
