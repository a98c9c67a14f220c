"""The bound: how little the day could have cost with the levers that were switched on, however they had been used.

Workloads share no prefix, so each has a bound of its own. Its requests pay, meter by meter, the least rate of all SKUs
that its levers may choose, and cache from the least minimum of their models: no choice among these goes below that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from farthing.book import Book, Unpriced
from farthing.cache import Cards, Trace, Unpriceable, bound, hybrid, radix
from farthing.emulator._prompt import prompt_of
from farthing.emulator._runtime import messages_of
from farthing.levers import batch, endpoint
from farthing.livedemo._day import DAY, Ask
from farthing.meters import Vector
from farthing.outbox import prefix_hashes
from farthing.policy import Entry
from farthing.usage import Sku
from farthing.wire import Route

CACHING = {"cache", "ttl"}


class Floor(NamedTuple):
    """A workload's bound in picodollars, and what it was worked out of. `rates` are picodollars a token."""

    app: str
    picos: int
    requests: int
    levers: tuple[str, ...]
    skus: tuple[Sku, ...]
    rates: Vector
    minimum: int


class Spent(NamedTuple):
    """What a request came to, and at which SKU."""

    sku: Sku
    tokens: Vector


def floors(
    asks: Sequence[Ask], off: Mapping[str, Spent], entries: Iterable[Entry], book: Book
) -> list[Floor]:
    """Of each workload. `off` is what its requests came to with no lever at all, by their names."""
    on = [entry for entry in entries if entry.state == "on"]
    apps = sorted({ask.app for ask in asks})
    return [
        _floor(
            app,
            [ask for ask in asks if ask.app == app],
            off,
            [each for each in on if each.workload == app],
            book,
        )
        for app in apps
    ]


def _floor(
    app: str, asks: Sequence[Ask], off: Mapping[str, Spent], entries: Sequence[Entry], book: Book
) -> Floor:
    levers = {entry.lever for entry in entries}
    skus = {off[ask.name].sku for ask in asks}
    for entry in entries:
        if entry.lever == "model":
            skus |= {sku._replace(model=entry.use, zone="") for sku in skus if sku.model == entry.model}
        elif entry.lever == "endpoint":
            skus |= {made[0] for sku in skus if (made := endpoint.rewrite(sku, Vector())) is not None}
    rates = _least(_rates(book, sku) for sku in skus)
    minimum = min(_minimum(book, sku) for sku in skus)
    if "batch" in levers:
        picos = _hybrid(asks, off, rates, minimum, skus, book)
    elif levers & CACHING:
        trace = _trace(asks, off)
        picos = bound(radix(trace), minimum, Cards.one(rates, trace))
    else:
        picos = sum(off[ask.name].tokens @ rates for ask in asks)
    return Floor(app, picos, len(asks), tuple(sorted(levers)), tuple(sorted(skus)), rates, minimum)


def _hybrid(
    asks: Sequence[Ask],
    off: Mapping[str, Spent],
    rates: Vector,
    minimum: int,
    skus: Iterable[Sku],
    book: Book,
) -> int:
    """Each request in a batch, which has no cache, or by itself, whichever is cheaper for all of them together."""
    batched = [made[0] for sku in skus if (made := batch.rewrite(sku, Vector())) is not None]
    half = _least(_rates(book, sku) for sku in batched)
    trace = _trace(asks, off)
    return hybrid(trace, minimum, Cards.one(rates, trace), half, np.ones(trace.requests, bool)).bound


def _rates(book: Book, sku: Sku) -> Vector:
    card = book.find(sku, DAY)
    if isinstance(card, Unpriced):
        raise Unpriceable(f"{sku}: {card.reason}")
    return card.rates


def _least(rates: Iterable[Vector]) -> Vector:
    return Vector(*map(min, zip(*rates, strict=True)))


def _minimum(book: Book, sku: Sku) -> int:
    found = book.models[sku.model].cache_minimum(sku.platform, DAY.date())
    return found or 0  # nobody has published it: then nothing is too short


# --- the requests as a trace -----------------------------------------------------------------------------------------


def _trace(asks: Sequence[Ask], off: Mapping[str, Spent]) -> Trace:
    """Blocks and their tokens are as the emulator counts them: by a rule, so they are known exactly."""
    numbers: dict[str, int] = {}
    sizes: list[int] = []
    nodes: list[int] = []
    starts = [0]
    for ask in asks:
        prompt = prompt_of(_messages(ask), marked=True, automatic=False)
        if prompt.tokens != off[ask.name].tokens.prompt:
            raise AssertionError(f"{ask.name}: {prompt.tokens} tokens, billed {off[ask.name].tokens.prompt}")
        for name, block in zip(
            prefix_hashes(b"demo", (b.data for b in prompt.blocks)), prompt.blocks, strict=True
        ):
            if name not in numbers:
                numbers[name] = len(sizes)
                sizes.append(block.tokens)
            nodes.append(numbers[name])
        starts.append(len(nodes))
    zero = np.zeros(len(asks), np.int64)
    return Trace(
        _ints(ask.at_us for ask in asks), zero, _ints(off[ask.name].tokens.output for ask in asks), zero,
        _ints(starts), _ints(nodes), _ints(sizes), zero, zero,
    )  # fmt: skip


def _messages(ask: Ask) -> dict[str, Any]:
    return messages_of(Route(ask.operation, "bedrock", ask.model), ask.body, {})


def _ints(values: Iterable[int]) -> Any:
    return np.fromiter(values, np.int64)
