"""Price: what AWS's tokens cost beyond the book's rate, and why.

A share of list that two meters or more of an account and model are at is a discount, on the days that nothing of it
is at list. A rate that is wrong as well is told apart: first the rate, then the discount off it. So is extended access.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
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
AS_GOOD_AS = 100_000  # two shares of list that differ by one part in that are one, but for rounding
_LEAST = 1 - Fraction(10, AS_GOOD_AS)  # a share that is below list at all
_SHARES = 8  # are looked at, those of most money first
_ALL = Fraction(1)
_Sides = Mapping[Place, Side]


class _Deal(NamedTuple):
    """A share of list, and the days it was in force."""

    share: Fraction
    days: frozenset[date]

    @property
    def name(self) -> str:
        off = 100 * (1 - Decimal(self.share.numerator) / self.share.denominator)
        return f"discount of {off.quantize(Decimal('0.01')).normalize():f} %"


def name_prices(sides: _Sides, book: Book, causes: Causes) -> None:
    by_model: dict[tuple[str, str], list[Place]] = defaultdict(list)
    for place, side in sides.items():
        if side.rate is None:
            where = f"{place.model} {place.endpoint} {place.mode} {place.meter}"
            causes.add("no rate in the book", where, side.theirs_picos, side.lines)
        elif side.theirs or side.theirs_picos:
            by_model[place.account, place.model].append(place)
    deals = {owner: _deals(sides, places) for owner, places in by_model.items()}
    priced: list[tuple[Place, _Deal | None]] = []
    for (account, model), places in by_model.items():
        others = [deal for (of, _), found in deals.items() for deal in found if of == account]
        # too few rates to tell by themselves: they may be at the share of the account's other models
        found = deals[account, model] or [deal for deal in others if _is_on(deal, sides, places, book)]
        listed = {place.day for place in places if _is_surely_at_list(sides[place])}
        priced += [(place, _deal_on(place, sides[place], found, listed, book)) for place in places]
    naming = _Naming(sides, book, causes)
    for place, deal in sorted(priced, key=lambda pair: (-_listed(sides[pair[0]]), pair[0])):
        naming.name(place, deal)


def _deal_on(
    place: Place, side: Side, deals: Sequence[_Deal], listed: Collection[date], book: Book
) -> _Deal | None:
    """The discount of that day. Extended access hides the one before it, which goes on if no day since is at list."""
    today = next((deal for deal in deals if place.day in deal.days), None)
    if today or not deals or side.price_picos <= 0 or not _is_legacy(book, place):
        return today
    earlier = {day: deal for deal in deals for day in deal.days if day < place.day}
    last = max(earlier, default=None)
    return None if last is None or any(last < day <= place.day for day in listed) else earlier[last]


def _is_on(deal: _Deal, sides: _Sides, places: Sequence[Place], book: Book) -> bool:
    """Whether a discount on other models of the account is on these rates too: some fit it, and none is at list."""
    on = [(sides[place], place) for place in places if place.day in deal.days]
    fit = [_fits(side, place, deal, book) for side, place in on]
    return any(fit) and all(
        fits or not _is_surely_at_list(side) for (side, _), fits in zip(on, fit, strict=True)
    )


def _fits(side: Side, place: Place, deal: _Deal, book: Book) -> bool:
    shares = [_ALL, *_zone_shares(book, place, side).values()]
    return any(_is_at(side, deal.share * share) for share in shares)


def _deals(sides: _Sides, places: Sequence[Place]) -> list[_Deal]:
    listed = {place: _listed(sides[place]) for place in places if _listed(sides[place]) > 0}
    off = sorted((p for p in listed if not _is_at(sides[p], _ALL)), key=lambda p: (-listed[p], p))
    found: list[_Deal] = []
    taken: set[Place] = set()
    tried: set[Place] = set()
    for _ in range(_SHARES):
        first = next((place for place in off if place not in tried | taken), None)
        if first is None:
            break
        share = sides[first].theirs_picos / Fraction(listed[first])
        at = [place for place in off if place not in taken and _is_at(sides[place], share)]
        tried.update(at, [first])
        if not 0 < share < _LEAST:
            continue
        days = frozenset(place.day for place in at)
        others = [place for place in listed if place.day in days and not _is_at(sides[place], share)]
        at_list = any(_is_surely_at_list(sides[place]) for place in others)
        telling = [place for place in at if _tells(sides[place], share)]
        meters, odd = {place.meter for place in telling}, {place.meter for place in others}
        most = len(meters) > max(1, len(odd - meters)) and len(telling) >= len(others)
        if most and not at_list:
            share = sum(sides[place].theirs_picos for place in at) / Fraction(sum(listed[p] for p in at))
            found.append(_Deal(_plain(share, [sides[place] for place in at]), days))
            taken.update(at, others)
    return found


def _plain(share: Fraction, sides: Sequence[Side]) -> Fraction:
    """The share as somebody would have agreed on it, where that is within rounding."""
    near = share.limit_denominator(10_000)
    return near if all(_is_at(side, near) for side in sides) else share


def _listed(side: Side) -> int:
    return round(side.theirs * (side.rate or 0))


def _is_at(side: Side, share: Fraction) -> bool:
    """In whole numbers, since there may be hundreds of thousands of places."""
    at_list, of = _listed(side), share.denominator
    slack = ROUNDING_PICOS * max(side.lines, 1) + abs(at_list) // AS_GOOD_AS
    return abs(side.theirs_picos * of - share.numerator * at_list) <= slack * of


def _tells(side: Side, share: Fraction) -> bool:
    """Whether it is large enough to be at this share and not at list."""
    return (1 - share) * _listed(side) > 10 * ROUNDING_PICOS * max(side.lines, 1)


def _is_surely_at_list(side: Side) -> bool:
    """Whether it is at list, and large enough that rounding does not hide a thousandth of it."""
    return _is_at(side, _ALL) and _listed(side) > 2_000 * ROUNDING_PICOS * max(side.lines, 1)


class _Naming:
    """Places one by one, those of most money first: what is too small to tell is as the large ones are."""

    def __init__(self, sides: _Sides, book: Book, causes: Causes) -> None:
        self._sides = sides
        self._book = book
        self._causes = causes
        self._wrong: dict[str, Fraction] = {}  # times the book's rate, by what it is the rate of

    def name(self, place: Place, deal: _Deal | None) -> None:
        side = self._sides[place]
        share = deal.share if deal else _ALL
        before = side.theirs_picos  # of the discount
        at_list = before - side.price_picos
        what, best = f"{place.model} {place.endpoint} {place.mode} {place.meter}", ""
        if before * share.denominator != share.numerator * at_list:
            best = self._nearest(place, side, share, at_list, what)
        if deal:
            before = round(before / share) if best else at_list
            less = side.theirs_picos - before
            self._causes.add(deal.name, f"{place.account} {place.model}", less, side.lines)
        extra = before - at_list
        if best == "wrong":
            self._add_wrong(place, side, what, at_list, extra)
        elif best:
            where = f"{place.account} {what}: billed at the rate of zone {best}"
            self._causes.add("extended access", where, extra, side.lines)
        elif extra:
            self._causes.add("rounding", "amounts and quantities of the bill", extra, side.lines)

    def _nearest(self, place: Place, side: Side, share: Fraction, at_list: int, what: str) -> str:
        """Which rate it was billed at: "" for the book's, a zone's, or one that is wrong."""
        near = ROUNDING_PICOS * max(side.lines, 1) + (abs(at_list) // AS_GOOD_AS if share != _ALL else 0)
        times = {"": _ALL, **_zone_shares(self._book, place, side)}
        if what in self._wrong:
            times["wrong"] = self._wrong[what]
        off = {name: abs(side.theirs_picos - share * of * at_list) for name, of in times.items()}
        best = min(off, key=lambda name: off[name])
        return best if off[best] <= near else "wrong"

    def _add_wrong(self, place: Place, side: Side, what: str, at_list: int, extra: int) -> None:
        if at_list:
            self._wrong.setdefault(what, Fraction(at_list + extra, at_list))
        dearer = f"{Decimal(extra * 10_000 // at_list if at_list else 0) / 100:+.2f} %"
        if extra > 0 and _is_legacy(self._book, place):
            self._causes.add("extended access", f"{place.account} {what}: {dearer}", extra, side.lines)
        else:
            self._causes.add("rate other than the book's", f"{what}: {dearer}", extra, side.lines)


def _zone_shares(book: Book, place: Place, side: Side) -> dict[str, Fraction]:
    """What the model costs on that day in the other zones of its price, as times the rate here."""
    zones = ("", *book.models[place.model].platform("bedrock").get("zones", ()))
    if len(zones) == 1 or not side.rate:
        return {}
    at = datetime.combine(place.day, time(), UTC)
    found = {}
    for zone in zones:
        sku = Sku("bedrock", place.model, place.endpoint, zone, place.mode)
        card = book.find(sku, at, cached=place.meter in CACHE_METERS)
        if zone != place.zone and not isinstance(card, Unpriced):
            found[zone or "standard"] = Fraction(getattr(card.rates, place.meter)) / side.rate
    return found


def _is_legacy(book: Book, place: Place) -> bool:
    """Whether AWS may ask more for the model on that day without saying how much."""
    since = book.models[place.model].platform("bedrock").get("lifecycle", {}).get("extended_access")
    return since is not None and place.day >= since
