"""How an offer does: what it saves, how far its commitment is drawn down, and what a month earlier is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import NamedTuple

from farthing.cells import Question, Where, cells
from farthing.costs import Period, by_offers, periods
from farthing.ledger import Ledger
from farthing.offers import Offer, months_later
from farthing.reports._spending import forecasts, known_until, spending

DAY = timedelta(days=1)


class Coming(NamedTuple):
    """What a period's spend will come to, in picodollars: between low and high by the errors of the past."""

    low: int
    middle: int
    high: int
    method: str


class Drawn(NamedTuple):
    """A period of a commitment. `coming` is None where nothing is left to come, or nothing is known."""

    period: Period
    committed: int
    over: bool
    coming: Coming | None

    def shortfall(self, spent: int) -> int:
        return max(0, self.committed - spent)


class Earlier(NamedTuple):
    """What the offer had saved, had it held `since` .. `until` too. `stands_in`: other days, for want of usage then."""

    since: date
    until: date  # the first day after
    saved: int
    stands_in: tuple[date, date] | None


class Told(NamedTuple):
    offer: Offer
    listed: int  # of its days, accounts and platforms
    contracted: int
    drawn: list[Drawn]
    volume: list[Period]
    earlier: Earlier | None  # None where there is no usage to tell by


def told(ledger: Ledger, question: Question, offers: Sequence[Offer], now: datetime) -> list[Told]:
    """Of each offer, in order of their first day. The question's days and filter do not matter."""
    question = by_offers(replace(question, since=None, until=None, where=(), tz="UTC"), offers)
    today = now.date()
    drawn = periods(ledger, question, until=today + DAY, as_of=today)
    volume = periods(ledger, question, volume=True, until=today + DAY, as_of=today)
    found = []
    for offer in offers:
        span = offer.starts, min(offer.span[1].date(), today + DAY)
        found.append(
            Told(
                offer,
                _cost(ledger, question, offer, (), span),
                _cost(ledger, question, offer, offers, span),
                [_drawn(ledger, question, p, now) for p in drawn if p.offer is offer],
                [p for p in volume if p.offer is offer],
                earlier(ledger, question, offers, offer, today),
            )
        )
    return found


def _drawn(ledger: Ledger, question: Question, period: Period, now: datetime) -> Drawn:
    assert period.offer.commitment
    over = period.ends <= now.date()
    coming = None if over else _coming(ledger, question, period, now)
    return Drawn(period, period.offer.commitment.picos, over, coming)


def _coming(ledger: Ledger, question: Question, period: Period, now: datetime) -> Coming | None:
    """By the forecast of what the offer is of, at the rates of its accounts."""
    asked = replace(question, where=_of(period.offer))
    end = known_until(ledger, asked, now)
    if end is None:
        return None
    made = spending(ledger, asked, (), end, period.starts)
    if made.first is None:
        return None
    found = forecasts(made, period.starts, period.ends - DAY, ())[()]
    method = "it is over"
    if found.rest:
        method = found.rest.method + ("" if found.rest.tried else ", wide interval")
    return Coming(found.low, found.total, found.high, method)


def earlier(
    ledger: Ledger, question: Question, offers: Sequence[Offer], offer: Offer, today: date
) -> Earlier | None:
    """What starting a month earlier is worth: by the usage of those days, else by as many of the last days.

    No offer is retroactive: this is what a month of waiting costs, and not what can be claimed.
    """
    used = ledger.days()
    if used is None or not offer.rules:
        return None
    since, until = months_later(offer.starts, -1), offer.starts
    first, beyond = used[0].date(), min(used[1].date(), today + DAY)
    if beyond <= first:
        return None
    window, known = (since, until), first <= since and until <= beyond
    if not known:
        window = max(first, beyond - (until - since)), beyond
    shifted = replace(offer, signed=min(offer.signed, window[0]), starts=window[0], ends=window[1])
    before = _cost(ledger, question, offer, offers if known else (), window)
    after = _cost(ledger, question, offer, (shifted, *(offers if known else ())), window)
    return Earlier(since, until, before - after, None if known else window)


def _cost(
    ledger: Ledger, question: Question, offer: Offer, by: Sequence[Offer], span: tuple[date, date]
) -> int:
    """What the usage that the offer is of comes to, on these days, by the rates of some offers."""
    if span[1] <= span[0]:
        return 0
    asked = replace(question, tz="UTC", since=span[0], until=span[1] - DAY, where=_of(offer))
    return sum(cell.cost for cell in cells(ledger, by_offers(asked, by)))


def _of(offer: Offer) -> tuple[Where, ...]:
    """Whose usage it is an offer for."""
    platforms = Where("platform", tuple(sorted(offer.platforms)))
    return (platforms, Where("account", tuple(sorted(offer.accounts)))) if offer.accounts else (platforms,)
