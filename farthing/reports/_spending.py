"""Spending by day, as it was and at today's prices, and what a coming span of days will bring at its own.

Usage is what goes on from day to day; prices change on dates that the book knows. So the past is priced as if today's
prices had always held, that is forecast, and each coming day is priced by the book of that day.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from farthing.book import START, Book, Card, Resolved, midnight
from farthing.cells import Cell, Question, cells
from farthing.ledger import Ledger
from farthing.meters import Vector
from farthing.money import PICOS_PER_USD
from farthing.offers import made_by
from farthing.reports._ahead import Ahead, ahead
from farthing.usage import Sku

DAY = timedelta(days=1)
LEARNT_DAYS = 120  # of the past, to forecast from
RECENT_DAYS = 14  # whose usage tells what a change of price will matter
SMOOTHED = 8  # groups, the dearest; for the rest the run-rate is good enough

Keys = tuple[Any, ...]


class Box(NamedTuple):
    """What has one price at a time."""

    sku: Sku
    prompt: int
    cached: bool


class Event(NamedTuple):
    """A change of price ahead: what recent usage would have cost by the prices before and after."""

    day: date
    model: str
    before: int
    after: int | None  # no price is known from that day
    offers: str = ""  # private ones that change it


@dataclass
class Spending:
    """Of each group by day: picodollars as charged, and dollars at the prices of the end."""

    end: datetime  # up to which usage is known
    today: date  # the day of the end; it may not be over
    passed: float  # the share of today that has
    question: Question
    cells: list[Cell]
    first: date | None = None  # day of any usage
    charged: dict[Keys, dict[date, int]] = field(default_factory=dict)
    level: dict[Keys, dict[date, float]] = field(default_factory=dict)
    recent: dict[Keys, dict[Box, Vector]] = field(default_factory=dict)


class Forecast(NamedTuple):
    """Of a span of days: what is spent and what is to come; the interval is of the whole."""

    spent: int
    total: int
    low: int
    high: int
    rest: Ahead | None  # None where nothing is left to come
    by_day: dict[date, float]  # dollars to come
    known_days: int


def known_until(ledger: Ledger, question: Question, now: datetime) -> datetime | None:
    """The last use that is not after now, nor after the days asked for; None if there is none."""
    limit = min(now, question.span()[1] - timedelta(microseconds=1))
    until = limit + timedelta(microseconds=1)
    ends = ledger.sift("spent_rows", 'SELECT max("at") AS last FROM spent_rows', ("at",), (START, until))
    last = ends.aggregate("epoch_us(max(last))").fetchall()[0][0]
    return None if last is None else datetime.fromtimestamp(last // 1_000_000, UTC)


def spending(
    ledger: Ledger, question: Question, keys: Sequence[str], end: datetime, since: date | None = None
) -> Spending:
    """By `keys`; the group () is everything. `since` is the first day needed, where that is long ago."""
    local = end.astimezone(question.zone)
    today = local.date()
    start = min(since or today, today - LEARNT_DAYS * DAY)
    if question.since:
        start = max(start, question.since)
    found = cells(ledger, replace(question, since=start, until=today), ("day", *keys))
    passed = (local - local.replace(hour=0, minute=0, second=0, microsecond=0)) / DAY
    made = Spending(end, today, min(1.0, passed), question, found)
    for cell in found:
        day = date.fromisoformat(cell.keys[0])
        made.first = min(day, made.first or day)
        for group in {(), cell.keys[1:]}:
            charged = made.charged.setdefault(group, defaultdict(int))
            level = made.level.setdefault(group, defaultdict(float))
            charged[day] += cell.cost
            level[day] += _worth(question.book, cell, end) / PICOS_PER_USD
            if day > today - RECENT_DAYS * DAY and isinstance(cell.sku, Resolved):
                box = Box(cell.sku.sku, cell.prompt, cell.tokens.cached > 0)
                boxes = made.recent.setdefault(group, {})
                boxes[box] = Vector(*map(sum, zip(boxes.get(box, Vector()), cell.tokens, strict=True)))
    return made


def _worth(book: Book, cell: Cell, at: datetime) -> int:
    """What the cell would cost at that time; as it was charged, if it has no price then."""
    if not isinstance(cell.sku, Resolved) or not isinstance(cell.price, Card):
        return 0
    card = book.find(cell.sku.sku, at, cell.prompt, cached=cell.tokens.cached > 0)
    return cell.tokens @ card.rates if isinstance(card, Card) else cell.cost


def forecasts(made: Spending, first: date, last: date, groups: Iterable[Keys]) -> dict[Keys, Forecast]:
    """Of everything, and of groups: what these share out is the forecast of everything."""
    groups = [group for group in groups if group]
    dearest = sorted(groups, key=lambda group: -sum(made.level[group].values()))[:SMOOTHED]
    whole = _forecast(made, (), first, last, smooth=True)
    parts = {group: _forecast(made, group, first, last, smooth=group in dearest) for group in groups}
    to_come = sum(sum(part.by_day.values()) for part in parts.values())
    share = sum(whole.by_day.values()) / to_come if to_come else 1.0
    return {(): whole} | {group: _scaled(part, share) for group, part in parts.items()}


def _scaled(part: Forecast, share: float) -> Forecast:
    def scaled(picos: int) -> int:
        return part.spent + _picos((picos - part.spent) * share / PICOS_PER_USD)

    by_day = {day: usd * share for day, usd in part.by_day.items()}
    return part._replace(
        total=scaled(part.total), low=scaled(part.low), high=scaled(part.high), by_day=by_day
    )


def _forecast(made: Spending, group: Keys, first: date, last: date, *, smooth: bool) -> Forecast:
    charged, level = made.charged.get(group, {}), made.level.get(group, {})
    spent = sum(picos for day, picos in charged.items() if first <= day <= last)
    begun = min(level, default=made.today)
    history = [level.get(begun + n * DAY, 0.0) for n in range((made.today - begun).days)]
    if last < made.today or not level:
        return Forecast(spent, spent, spent, spent, None, {}, len(history))
    if not history:  # today is the first day: as it went until now
        history = [level[made.today] / max(made.passed, 1 / 24)]
    start = max(first, made.today)
    skip, days = (start - made.today).days, (last - start).days + 1
    rest = ahead(history, skip, days, library=smooth)
    by_day = {
        start + n * DAY: usd * price_factor(made, group, start + n * DAY) for n, usd in enumerate(rest.days)
    }
    if start == made.today:
        by_day[start] *= 1 - made.passed
    before, after = sum(rest.days), sum(by_day.values())
    moved = after / before if before else 0.0
    low, high = (spent + _picos(bound * moved) for bound in (rest.low, rest.high))
    return Forecast(spent, spent + _picos(after), low, high, rest, by_day, len(history))


def _picos(usd: float) -> int:
    """To the cent: more digits would say more than is known."""
    return round(usd * 100) * (PICOS_PER_USD // 100)


def price_factor(made: Spending, group: Keys, day: date) -> float:
    """What the group's recent usage costs on a coming day, as a multiple of what it costs at the end."""
    boxes = made.recent.get(group, {})
    now = sum(_cost(made, box, tokens, made.end) for box, tokens in boxes.items())
    then = sum(_cost(made, box, tokens, max(made.end, midnight(day))) for box, tokens in boxes.items())
    return then / now if now else 1.0


def _cost(made: Spending, box: Box, tokens: Vector, at: datetime) -> int:
    """At that time; by the price at the end, if none is known then."""
    book = made.question.book
    for when in (at, made.end):
        card = book.find(box.sku, when, box.prompt, cached=box.cached)
        if isinstance(card, Card):
            return int(tokens @ card.rates)
    return 0


def price_events(made: Spending, last: date) -> list[Event]:
    """The changes of price between the end and that day, of models used recently."""
    book, boxes = made.question.book, made.recent.get((), {})
    cards = book.cards(*{box.sku for box in boxes}) if boxes else []
    turns = {turn for card in cards for turn in (card.starts, card.ends) if made.end < turn <= midnight(last)}
    found = []
    for turn in sorted(turns):
        sums: dict[str, list[Any]] = {}
        offers: dict[str, str] = {}  # that begin or end then
        for box, tokens in boxes.items():
            before = book.find(box.sku, turn - timedelta(microseconds=1), box.prompt, cached=box.cached)
            after = book.find(box.sku, turn, box.prompt, cached=box.cached)
            if isinstance(before, Card):
                if isinstance(after, Card) and made_by(after) != made_by(before):
                    offers[box.sku.model] = made_by(after) or f"the end of {made_by(before)}"
                row = sums.setdefault(box.sku.model, [0, 0])
                row[0] += tokens @ before.rates
                row[1] = (
                    row[1] + tokens @ after.rates if isinstance(after, Card) and row[1] is not None else None
                )
        found += [
            Event(turn.date(), model, row[0], row[1], offers.get(model, ""))
            for model, row in sorted(sums.items())
            if row[0] != row[1]
        ]
    return found


def unpriced_calls(found: Iterable[Cell], first: date, last: date) -> int:
    """Calls of these days that have no price, and so are in no figure."""
    return sum(
        cell.calls
        for cell in found
        if not isinstance(cell.price, Card) and first.isoformat() <= cell.keys[0] <= last.isoformat()
    )


def period_of(name: str, day: date) -> tuple[date, date]:
    """The month, week (from Monday) or day that a day lies in: its first day and its last."""
    if name == "month":
        first = day.replace(day=1)
        return first, (first + 31 * DAY).replace(day=1) - DAY
    if name == "week":
        first = day - day.weekday() * DAY
        return first, first + 6 * DAY
    return day, day


def by_name(groups: Mapping[Keys, Forecast]) -> list[Keys]:
    """Dearest first."""
    return sorted((group for group in groups if group), key=lambda group: (-groups[group].total, group))
