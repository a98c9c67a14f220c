"""Both sides of every place that usage is compared in: what the ledger has there, and what AWS billed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from fractions import Fraction
from typing import NamedTuple

from farthing.book import Book, Resolved, Unpriced
from farthing.cells import Cell, Question, cells
from farthing.ledger import Ledger
from farthing.meters import CACHE_METERS, METERS, Vector
from farthing.offers import Offer, books, split
from farthing.statement import Billed, Statement
from farthing.usage import parse_model_id

LOG, BATCH = "bedrock_log", "bedrock_batch"
GATEWAYS = ("outbox", "litellm")


class Place(NamedTuple):
    """What usage is compared by."""

    day: date
    account: str
    model: str
    endpoint: str
    zone: str
    mode: str
    long_prompt: bool
    meter: str


@dataclass
class Side:
    """Both sides of one place. `rate` is the book's, in picodollars a token; None where it has none.

    It is a fraction only where a bill tells no days and the price changed within the month: then it is what ours cost.
    """

    ours: int = 0
    ours_picos: int = 0
    theirs: int = 0
    theirs_picos: int = 0
    rate: int | Fraction | None = None
    mantle: int = 0  # of their tokens
    back: int = 0  # of their tokens, those of lines below zero
    lines: int = 0
    ours_in: dict[str, int] = field(default_factory=dict)  # by region
    theirs_in: dict[str, int] = field(default_factory=dict)

    @property
    def quantity_picos(self) -> int:
        """What the tokens that only one side has come to, at the book's rate."""
        return 0 if self.rate is None else round(self.theirs * self.rate) - self.ours_picos

    @property
    def price_picos(self) -> int:
        """What their tokens cost beyond the book's rate."""
        return self.theirs_picos - self.ours_picos - self.quantity_picos


class NoPrice(NamedTuple):
    """Tokens of ours without a price, and of which model; "" may be any (a profile that is not resolved)."""

    reason: str
    model: str
    tokens: int


@dataclass
class Seen:
    """What our sources saw, whatever it cost."""

    unpriced: dict[tuple[date, str, str], list[NoPrice]]  # by (day, account, meter)
    logs: dict[str, dict[str, set[date]]] = field(default_factory=dict)  # account: region: days of its log
    days: set[tuple[str, date]] = field(default_factory=set)  # (account, day) that any source tells of
    batches: dict[str, set[date]] = field(default_factory=dict)  # account: days that batch outputs tell of
    sources: dict[str, set[str]] = field(default_factory=dict)  # by account
    failed: set[tuple[str, str, date]] = field(
        default_factory=set
    )  # (account, model, day) of calls without counts

    @property
    def last(self) -> date | None:
        return max((day for _, day in self.days), default=None)

    def note(self, day: date, account: str, region: str, mode: str, source: str) -> None:
        self.days.add((account, day))
        self.sources.setdefault(account, set()).add(source)
        if mode == "batch":
            self.batches.setdefault(account, set()).add(day)
        elif source == LOG:
            self.logs.setdefault(account, {}).setdefault(region, set()).add(day)

    def has_gateway(self, account: str) -> bool:
        return not self.sources.get(account, set()).isdisjoint(GATEWAYS)

    def may_see_mantle(self, account: str) -> bool:
        """Logs and batches never do; clients, gateways and telemetry may."""
        return bool((self.sources.get(account, set()) | self.sources.get("", set())) - {LOG, BATCH})

    def is_logged(self, account: str, day: date) -> bool:
        return any(day in days for days in self.logs.get(account, {}).values())

    def is_blind_in(self, account: str, region: str, day: date | None = None) -> bool:
        """Whether the account's log names its regions, and never this one; or has nothing of it on this day alone."""
        regions = self.logs.get(account, {})
        if not regions or not region or "" in regions:
            return False
        return region not in regions if day is None else day not in regions.get(region, ())


class Grain:
    """How finely the bill tells usage: some tell no accounts, some no days. Ours is summed as far."""

    def __init__(self, statement: Statement) -> None:
        self.by_account = any(line.account for line in statement.billed) or not statement.billed
        self.by_day = not statement.loaded.by_month

    def __call__(self, day: date, account: str) -> tuple[date, str]:
        return day if self.by_day else day.replace(day=1), account if self.by_account else ""


def both_sides(
    statement: Statement, ledger: Ledger, question: Question, grain: Grain, offers: Sequence[Offer] = ()
) -> tuple[dict[Place, Side], Seen]:
    """`offers` are the rates agreed with each account, which both sides are held to instead of the list's."""
    paid = books(question.book, offers)
    if offers:  # so that no cell of ours lies in two of an offer's prices
        edges = (edge for offer in offers for edge in offer.span)
        question = replace(question, book=split(question.book, edges))
    sides: dict[Place, Side] = defaultdict(Side)
    seen = _add_ours(sides, ledger, question, grain, paid)
    for line in statement.billed:
        _add_theirs(sides, line, statement, grain, paid(line.account))
    return dict(sides), seen


_KEYS = ("day", "account", "platform", "model", "endpoint", "zone", "mode", "source", "region", "status")


def _add_ours(
    sides: dict[Place, Side], ledger: Ledger, question: Question, grain: Grain, paid: Callable[[str], Book]
) -> Seen:
    """Puts our usage in its places. What has no price stands in none, and is told apart."""
    seen = Seen(defaultdict(list))
    for cell in cells(ledger, question, _KEYS):
        day, account, platform, *sku, source, region, status = cell.keys
        if platform not in ("bedrock", ""):
            continue
        rates = _rates(cell, paid(account))
        at, account = grain(date.fromisoformat(day), account)
        model, endpoint, zone, mode = sku
        seen.note(at, account, region, mode, source)
        if status and not any(cell.tokens):
            seen.failed.add((account, model, at))
        for i, (meter, count) in enumerate(zip(METERS, cell.tokens, strict=True)):
            if not count:
                continue
            if rates is None:
                known = model if isinstance(cell.sku, Resolved) else parse_model_id(model).base
                seen.unpriced[at, account, meter].append(NoPrice(_reason(cell), known, count))
                continue
            side = sides[Place(at, account, model, endpoint, zone, mode, cell.prompt > 0, meter)]
            rate = rates[i]
            side.ours += count
            side.ours_picos += count * rate
            side.ours_in[region] = side.ours_in.get(region, 0) + count
            # of two prices in a month that the bill tells no days of: what ours cost
            steady = side.rate in (None, rate) or not side.ours
            side.rate = rate if steady else Fraction(side.ours_picos, side.ours)
    return seen


def _rates(cell: Cell, paid: Book) -> Vector | None:
    """What the account pays for the cell's tokens; None where they have no price."""
    if isinstance(cell.price, Unpriced):
        return None
    card = paid.find(cell.price.sku, cell.at, cell.prompt)
    return None if isinstance(card, Unpriced) else card.rates


def _reason(cell: Cell) -> str:
    return cell.price.reason if isinstance(cell.price, Unpriced) else "no price"


def _add_theirs(
    sides: dict[Place, Side], line: Billed, statement: Statement, grain: Grain, paid: Book
) -> None:
    day, account = grain(line.day, line.account)
    place = Place(day, account, line.model, line.endpoint, line.zone, line.mode, line.long_prompt, line.meter)
    side = sides[place]
    side.theirs += line.tokens
    side.theirs_picos += line.billed_picos
    side.lines += line.lines
    side.back += min(line.tokens, 0)
    if line.mantle:
        side.mantle += line.tokens
    else:
        side.theirs_in[line.region] = side.theirs_in.get(line.region, 0) + line.tokens
    if side.rate is None:
        cached = line.meter in CACHE_METERS
        card = statement.card(
            line.model, line.endpoint, line.mode, line.region, line.day, line.long_prompt, cached, paid
        )
        side.rate = None if isinstance(card, Unpriced) else int(getattr(card.rates, line.meter))
