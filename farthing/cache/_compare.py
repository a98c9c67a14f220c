"""What a trace costs in every way: without a cache, under each policy, planned with hindsight, and at the least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from farthing.book import Book, Unpriced
from farthing.meters import Vector
from farthing.usage import EPOCH, Sku

from ._engine import DOCUMENTED, Semantics
from ._hybrid import hybrid
from ._machine import replay
from ._plan import plan
from ._player import FIXED, LIKELY, Policy
from ._policies import BEST, POLICIES, simulate
from ._trace import Ints, Trace, radix, select
from ._values import Cards, bound, uncached

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
_HINDSIGHT = ""


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


def compare(
    trace: Trace,
    cards: Cards,
    minimum: int,
    semantics: Semantics = DOCUMENTED,
    each: Each = map,
    parts: int = 1,
) -> Comparison:
    """All of them. Where a policy that only places breakpoints is cheaper than the plan, it is the plan.

    `each` maps what is played, and may do so elsewhere. It is played in so many `parts` at most: requests whose prompts
    begin alike are in one. But policies that learn do so from all requests, and are played whole.
    """
    asked = [
        (name, part, count)
        for name in (_HINDSIGHT, *POLICIES)
        for count in (1 if name in POLICIES and _learns(POLICIES[name]) else parts,)
        for part in range(count)
    ]
    sums: Counter[str] = Counter()
    for found in each(partial(_played, trace, cards, minimum, semantics), asked):
        sums.update(found)
    online = {name: sums[name] for name in POLICIES}
    plain = [name for name, policy in POLICIES.items() if not (policy.pings or policy.pads or policy.waits)]
    return Comparison(
        none=sums["uncached"],
        bound=sums["bound"],
        plan=min(sums["plan"], *(online[name] for name in plain)),
        bound_with_pings=sums["bound_with_pings"],
        online=online,
        best_online=BEST if online[BEST] <= sums["uncached"] else "none",
    )


def _played(
    trace: Trace, cards: Cards, minimum: int, semantics: Semantics, asked: tuple[str, int, int]
) -> dict[str, int]:
    """What a part of the trace comes to under a policy; or uncached, planned and at the least."""
    name, part, count = asked
    if count > 1:
        chosen = _begins(trace) % count == part
        if not chosen.any():
            return {}
        trace, cards = select(trace, chosen), cards._replace(of=cards.of[chosen])
    # What a policy does hangs on how its rates compare, which is the same on all cards of a model.
    if name in POLICIES:
        return {name: cards.price(simulate(trace, POLICIES[name], cards.rates[0], minimum, semantics).each)}
    merged = radix(trace)
    return {
        "uncached": uncached(trace, cards),
        "bound": bound(merged, minimum, cards),
        "plan": cards.price(replay(merged, plan(merged, minimum, cards), minimum, semantics)),
        "bound_with_pings": bound(merged, minimum, cards, pings=True),
    }


def _learns(policy: Policy) -> bool:
    """Whether what it does hangs on other requests than those whose prompts begin alike."""
    return policy.writes == LIKELY or policy.lives != FIXED or policy.pings > 0


def _begins(trace: Trace) -> Ints:
    """The first node of each request, 0 where it has none: what does not begin alike has nothing in common."""
    first = np.zeros(trace.requests, np.int64)
    some = np.diff(trace.starts) > 0
    first[some] = trace.nodes[trace.starts[:-1][some]]
    return first


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
