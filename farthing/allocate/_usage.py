"""Who used what: the ledger's tokens by team, and by the pool whose filters they fit."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from farthing.allocate._divide import Exchange, Money
from farthing.book import Book, Card
from farthing.cells import Cell, Question, QuestionError, Where, cells, parse_where
from farthing.config import Pool
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.reports import hanging, layers

WRITES = ("cache_write_5m", "cache_write_1h")
_KEYS = ("team", "day", "account", "platform", "model", "endpoint", "zone", "mode")


class Place(NamedTuple):
    """What a bill's line is held against: there every token has one price."""

    day: str
    account: str
    platform: str
    model: str
    endpoint: str
    zone: str
    mode: str
    long_prompt: bool
    meter: str


class Piece(NamedTuple):
    """A team's tokens in one place. `pool` is the name of the pool that they fall in; "" is the team's own."""

    team: str
    pool: str
    place: Place


@dataclass
class Facts:
    """What a statement tells of a team's own calls, those in no pool, beside what it pays for them."""

    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # by model
    tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unpriced_calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # by reason
    computed: dict[str, Money] = field(
        default_factory=lambda: defaultdict(Money)
    )  # by step, from list price on
    assumed: dict[str, Money] = field(default_factory=lambda: defaultdict(Money))  # by assumption


@dataclass
class Usage:
    tokens: dict[Piece, int] = field(default_factory=lambda: defaultdict(int))
    money: dict[Piece, Money] = field(default_factory=lambda: defaultdict(Money))
    reads: dict[tuple[str, str, str, str], dict[str, int]] = field(default_factory=dict)  # see `shared_by`
    teams: dict[str, Facts] = field(default_factory=lambda: defaultdict(Facts))
    cells: list[Cell] = field(default_factory=list)


def usage_of(ledger: Ledger, question: Question, pools: Sequence[Pool], exchange: Exchange | None) -> Usage:
    """The tokens and the computed cost of every team and place.

    A call falls in the first pool whose filters it fits all; into one that is split by reads only its cache writes
    fall, and the rest of it in the next.
    """
    filters = Filters(pools)
    keys = tuple(dict.fromkeys((*_KEYS, *filters.keys)))
    found = Usage(cells=cells(ledger, question, keys))
    for cell in found.cells:
        said = dict(zip(keys, cell.keys, strict=True))
        fits = filters.fits(said)
        if filters.by_reads.issuperset(fits):
            _note(found.teams[said["team"]], question.book, cell, said, exchange)
        for i, (meter, count) in enumerate(zip(METERS, cell.tokens, strict=True)):
            if not count:
                continue
            piece = Piece(
                said["team"], filters.pool(fits, meter), _place(said, meter, long_prompt=cell.prompt > 0)
            )
            found.tokens[piece] += count
            if isinstance(cell.price, Card):
                found.money[piece] += money_of(count * cell.price.rates[i], said["day"], exchange)
            if meter == "cache_read":
                _note_reads(found, filters.by_reads.intersection(fits), piece, count)
    return found


def shared_by(pool: str, place: Place) -> tuple[str, str, str, str]:
    """Where a cached prefix can be met again, as far as counts tell: the same day, account and model."""
    return pool, place.day, place.account, place.model


def _note_reads(found: Usage, pools: set[str], piece: Piece, count: int) -> None:
    for pool in pools:
        reads = found.reads.setdefault(shared_by(pool, piece.place), {})
        reads[piece.team] = reads.get(piece.team, 0) + count


def _place(said: Mapping[str, str], meter: str, *, long_prompt: bool) -> Place:
    return Place(**{key: said[key] for key in _KEYS[1:]}, long_prompt=long_prompt, meter=meter)


def money_of(picos: int, day: str, exchange: Exchange | None) -> Money:
    return exchange(picos, day) if exchange else Money(picos)


def _note(facts: Facts, book: Book, cell: Cell, said: Mapping[str, str], exchange: Exchange | None) -> None:
    facts.calls[said["model"]] += cell.calls
    facts.tokens[said["model"]] += cell.tokens.total
    if isinstance(cell.price, Card):
        for step, picos in layers(book, cell, cell.price).items():
            facts.computed[step] += money_of(picos, said["day"], exchange)
        if cell.assumed:
            facts.assumed[" and ".join(cell.assumed)] += money_of(hanging(cell), said["day"], exchange)
    else:
        facts.unpriced_calls[cell.price.reason] += cell.calls


class Filters:
    """Which pools calls fit, and what of them falls in which."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._tests = {pool.name: _filters(pool) for pool in pools if pool.where}
        self.keys = tuple(dict.fromkeys(key for tests in self._tests.values() for key, _ in tests))
        self.by_reads = {pool.name for pool in pools if pool.split == "reads"}

    def fits(self, said: Mapping[str, str]) -> list[str]:
        """The pools whose filters all fit what is said of calls, under `keys` and others; in their order."""
        return [name for name, tests in self._tests.items() if all(test(said[key]) for key, test in tests)]

    def pool(self, fits: Sequence[str], meter: str) -> str:
        """The one of these that tokens of a meter fall in; "" where they stay with the team."""
        return next((name for name in fits if name not in self.by_reads or meter in WRITES), "")


def _filters(pool: Pool) -> list[tuple[str, Callable[[str], bool]]]:
    try:
        found = [parse_where(text) for text in pool.where]
    except QuestionError as error:
        raise QuestionError(f"pool {pool.name}: {error}") from error
    return [(where.key, _test(where)) for where in found]


def _test(where: Where) -> Callable[[str], bool]:
    """As the engine filters: any of the values, `*` and `?` as in a shell."""
    patterns = (re.escape(value).replace(r"\*", ".*").replace(r"\?", ".") for value in where.values)
    any_of = re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.DOTALL)
    return lambda value: (any_of.fullmatch(value or "") is not None) != where.negated
