"""What a trace costs in every way: without a cache, under each policy, planned with hindsight, and at the least."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from farthing.book import Book, Unpriced
from farthing.meters import Vector
from farthing.usage import EPOCH, Sku

from ._engine import DOCUMENTED, Semantics
from ._hybrid import hybrid
from ._machine import replay
from ._plan import plan
from ._policies import BEST, POLICIES, simulate
from ._trace import Trace, radix
from ._values import Cards, bound, uncached


class Comparison(NamedTuple):
    """Picodollars, output included. `online` has every policy that can run live.

    `best_online` names the one that is advised: it was chosen on other traces, since which is the cheapest here is
    only known afterwards. Where a replay of it comes to more than no caching, none is advised.
    """

    none: int
    bound: int
    plan: int
    bound_with_pings: int
    online: dict[str, int]
    best_online: str


class Unpriceable(ValueError):
    """Why there are no rates for a trace, in one line."""


def cards_for(book: Book, sku: Sku, trace: Trace, at: datetime, *, dated: bool) -> tuple[Cards, int]:
    """The rates of each request, by its prompt's size and, in a dated trace, its day; and how many have those of `at`.

    Requests from before a model had a price pay what it costs at `at`. Unpriceable if it has none then either, or
    none for cached tokens.
    """
    moment = np.full(trace.requests, _us(at))
    when = trace.at_us if dated else moment
    prompt = trace.prompt
    cards = book.cards(sku)
    of = np.full(trace.requests, -1, np.int64)
    undated = 0
    for times in (when, moment):
        for number, card in enumerate(cards):
            inside = (_us(card.starts) <= times) & (times < _us(card.ends))
            fits = inside & (card.prompt_from <= prompt) & (prompt < card.prompt_to)
            of[(of < 0) & fits & card.cached] = number
        if dated and times is when:
            undated = int((of < 0).sum())
    if trace.requests and (of < 0).any():
        found = book.find(sku, at, int(prompt[of < 0][0]), cached=True)
        raise Unpriceable(found.reason if isinstance(found, Unpriced) else f"no price for {sku}")
    used = np.unique(of)
    rates = tuple(cards[number].rates for number in used)
    return Cards(rates, np.searchsorted(used, of).astype(np.int64)), undated


def _us(at: datetime) -> int:
    return round((at.astimezone(UTC) - EPOCH).total_seconds()) * 1_000_000


def compare(trace: Trace, cards: Cards, minimum: int, semantics: Semantics = DOCUMENTED) -> Comparison:
    """All of them. Where a policy that only places breakpoints is cheaper than the plan, it is the plan."""
    merged = radix(trace)
    # What a policy does hangs on how its rates compare, which is the same on all cards of a model.
    online = {
        name: cards.price(simulate(trace, policy, cards.rates[0], minimum, semantics).each)
        for name, policy in POLICIES.items()
    }
    planned = cards.price(replay(merged, plan(merged, minimum, cards), minimum, semantics))
    plain = [name for name, policy in POLICIES.items() if not (policy.pings or policy.pads or policy.waits)]
    return Comparison(
        none=uncached(trace, cards),
        bound=bound(merged, minimum, cards),
        plan=min(planned, *(online[name] for name in plain)),
        bound_with_pings=bound(merged, minimum, cards, pings=True),
        online=online,
        best_online=BEST if online[BEST] <= online["none"] else "none",
    )


def warm() -> None:
    """Compile what is compiled (numba keeps it beside these files), so that the first question is not a slow one."""
    three = np.arange(3, dtype=np.int64)
    trace = Trace(
        at_us=three, namespace=three * 0, output=three, plain=three, starts=np.arange(4, dtype=np.int64),
        nodes=three * 0, sizes=np.array([2_000], dtype=np.int64), system=three * 0, kinds=three * 0,
    )  # fmt: skip
    cards = Cards((Vector(3, 15, 1, 4, 6),), three * 0)
    compare(trace, cards, minimum=1_000)
    hybrid(trace, 1_000, cards, Vector(2, 7), three > 0)
