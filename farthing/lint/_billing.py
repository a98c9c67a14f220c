"""What requests are billed by the rules of the cache, and what a fault in one costs over many calls."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import numpy as np

from farthing.book import Book, Card, Unpriced
from farthing.cache import FIVE_US, HOUR_US, Refused, Trace, replay
from farthing.lint._request import CONVERSE, INVOKE, Sent
from farthing.meters import Vector
from farthing.usage import EPOCH, Sku

_TTL_US = {"5m": FIVE_US, "1h": HOUR_US}


class Play(NamedTuple):
    """A request for the machine: each prefix's name and the tokens that it adds; breakpoints as (position, ttl)."""

    at_us: int
    path: Sequence[tuple[Hashable, int]]
    marks: Sequence[tuple[int, str]] = ()
    output: int = 0


class _Marks(NamedTuple):
    starts: np.ndarray[tuple[int], np.dtype[np.int64]]
    positions: np.ndarray[tuple[int], np.dtype[np.int64]]
    ttl_us: np.ndarray[tuple[int], np.dtype[np.int64]]


def billed(plays: Sequence[Play], minimum: int) -> list[Vector]:
    """The tokens of each, by meter. Refused, with its number, if the API would not take one."""
    numbers: dict[Hashable, int] = {}
    sizes: list[int] = []
    nodes: list[int] = []
    for play in plays:
        for name, tokens in play.path:
            node = numbers.setdefault(name, len(sizes))
            if node == len(sizes):
                sizes.append(tokens)
            nodes.append(node)
    marks = [mark for play in plays for mark in play.marks]
    zeros = _ints([0] * len(plays))
    trace = Trace(
        at_us=_ints([play.at_us for play in plays]),
        namespace=zeros,
        output=_ints([play.output for play in plays]),
        plain=zeros,
        starts=_starts([len(play.path) for play in plays]),
        nodes=_ints(nodes),
        sizes=_ints(sizes),
        system=zeros,
        kinds=zeros,
    )
    placed = _Marks(
        _starts([len(play.marks) for play in plays]),
        _ints([at for at, _ in marks]),
        _ints([_TTL_US[ttl] for _, ttl in marks]),
    )
    columns = replay(trace, placed, minimum)
    return [Vector(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _ints(values: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


def _starts(lengths: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.concatenate([[0], np.cumsum(_ints(lengths))]).astype(np.int64)


# --- a request, over and over ---------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """A part as the machine sees it. One that varies is another in every call."""

    tokens: int
    mark: str = ""
    varies: bool = False


class Scenario(NamedTuple):
    """What is sent again and again. With `step`, each call goes on where the last one ended, by as many pieces as
    its own last `step`; breakpoints among those move along."""

    pieces: tuple[Piece, ...]
    step: int = 0

    def play(self, calls: int, gap_us: int) -> list[Play]:
        """So many calls of it, so far apart."""
        found = []
        first = next((at for at, piece in enumerate(self.pieces) if piece.varies), len(self.pieces))
        for call in range(calls):
            path: list[tuple[Hashable, int]] = [
                ((at, call if at >= first else -1), piece.tokens) for at, piece in enumerate(self.pieces)
            ]
            tail = self.pieces[len(self.pieces) - self.step :] if self.step else ()
            path += [((len(path) + more, call if first < len(self.pieces) else -1), tail[more % self.step].tokens)
                     for more in range(call * self.step)]  # fmt: skip
            shift, fixed = call * self.step, len(self.pieces) - self.step
            marks = [
                (at + shift if self.step and at >= fixed else at, piece.mark)
                for at, piece in enumerate(self.pieces)
                if piece.mark
            ]
            found.append(Play(call * gap_us, path, marks))
        return found


class Terms(NamedTuple):
    """By what a request is priced: its card and the least that is cached, or why there is none."""

    sku: Sku | None
    card: Card | None
    minimum: int | None
    caches: bool  # whether the model caches there at all
    assumed: tuple[str, ...]
    reason: str = ""


def terms(book: Book, sent: Sent, day: date, platform: str = "", mode: str = "") -> Terms:
    """The terms that hold for a request."""
    if not sent.model:
        return Terms(None, None, None, True, (), "no model is named: give --model")
    found = book.resolve(
        sent.model, platform=platform or platform_of(sent), region=sent.region, mode=mode or "on_demand"
    )
    if isinstance(found, Unpriced):
        return Terms(None, None, None, True, (), found.reason)
    model = book.models[found.sku.model]
    caches = model.platform(found.sku.platform).get("cache", True) is not False
    minimum = model.cache_minimum(found.sku.platform, day) if caches else None
    at = datetime(day.year, day.month, day.day, tzinfo=UTC)
    card = book.find(found.sku, at, sum(sent.sizes), cached=caches and mode != "batch")
    if isinstance(card, Unpriced):
        return Terms(found.sku, None, minimum, caches, found.assumed, card.reason)
    return Terms(found.sku, card, minimum, caches, found.assumed + card.assumed)


def platform_of(sent: Sent) -> str:
    """Bedrock where the form or the id says so; else "" leaves it to the book."""
    return "bedrock" if sent.form in (CONVERSE, INVOKE) else ""


def day_of(sent: Sent, otherwise: date) -> date:
    """When it was sent, if something says so."""
    return otherwise if sent.at_us is None else (EPOCH + timedelta(microseconds=sent.at_us)).date()


class Loss(NamedTuple):
    """A fault over many calls: picodollars with it and without, tokens read with it and without.

    `before` is None where the API refuses the request as it is, and bills nothing.
    """

    before: int | None
    after: int
    calls: int
    gap_s: int
    read_before: int
    read_after: int

    @property
    def lost(self) -> int:
        return 0 if self.before is None else self.before - self.after


def loss(before: Scenario, after: Scenario, card: Card, minimum: int, calls: int, gap_s: int) -> Loss | None:
    """What the fault costs; None where what would mend it is refused, too."""
    mended = _sum(after, minimum, calls, gap_s)
    if mended is None:
        return None
    faulty = _sum(before, minimum, calls, gap_s)
    return Loss(
        None if faulty is None else faulty @ card.rates,
        mended @ card.rates,
        calls,
        gap_s,
        faulty.cache_read if faulty else 0,
        mended.cache_read,
    )


def _sum(scenario: Scenario, minimum: int, calls: int, gap_s: int) -> Vector | None:
    try:
        found = billed(scenario.play(calls, gap_s * 1_000_000), minimum)
    except Refused:
        return None
    return Vector(*map(sum, zip(*found, strict=True)))
