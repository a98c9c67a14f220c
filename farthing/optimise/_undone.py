"""Levers taken back: calls rated again under the SKU, and with the cached tokens, that they would have had without.

Levers are taken back in the reverse of the order in which they are decided, as a waterfall is walked up again: each is
seen with those before it in place, as its estimate was made, and what all save adds up to what they save together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from farthing.book import Card, Unpriced
from farthing.cells import Cell, Question, cells
from farthing.ledger import Ledger
from farthing.meters import Vector
from farthing.optimise._advice import Interval
from farthing.outbox import apportion
from farthing.policy import LEVERS, Entry, Period, Span
from farthing.usage import EPOCH, Sku
from farthing.why import KAPPA, KAPPA_RANGE

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

SLICES = 48
_NEWER = "v2"  # the tokenizer that makes more tokens of a text


class Adopted(NamedTuple):
    """An entry with the priced cells of its calls. `later` are the levers that are taken back before it.

    `mix` are the tokens of as long a time before the adoption, as far as they did not go the entry's way `already`, of
    all `prompts`; None if there were none. `number` is the flag that tells cells of while it was in force.
    """

    made: Period
    number: int
    cells: tuple[Cell, ...]
    unpriced: int  # calls
    mix: Vector | None
    already: int
    prompts: int
    later: tuple[Adopted, ...] = ()

    @property
    def entry(self) -> Entry:
        return self.made.entry

    @property
    def replayed(self) -> bool:
        """Whether only a trace tells what would have been: another cache policy takes the place of one."""
        return self.entry.lever == "ttl" or (
            self.entry.lever == "cache" and self.entry.was not in ("", "none")
        )


class Worth(NamedTuple):
    """What calls come to `with_` the entry and without it, the later levers taken back, and what that rests on."""

    with_: int
    without: Interval
    treated: int
    sessions: int = 0
    calibration: str = ""
    notes: tuple[str, ...] = ()
    unresolved: str = ""


def was(entry: Entry, sku: Sku) -> Sku | None:
    """The SKU that a call would have had without the entry; None where it did not go its way."""
    if entry.lever == "endpoint" and sku.endpoint == "global":
        return sku._replace(endpoint=entry.was or ("regional" if sku.platform == "bedrock" else "geo_us"))
    if entry.lever == "model" and sku.model == entry.use:
        return sku._replace(model=entry.model, zone="")
    if entry.lever == "batch" and sku.mode == "batch":
        return sku._replace(mode="on_demand")
    return sku if entry.lever == "cache" else None


def before_later(adopted: Adopted, cell: Cell) -> tuple[Sku, Vector]:
    """A cell's SKU and tokens with the later levers taken back."""
    assert isinstance(cell.price, Card)
    sku, tokens = cell.price.sku, cell.tokens
    for one in adopted.later:
        back = was(one.entry, sku) if cell.flags[one.number] and not one.replayed else None
        if back is not None:
            sku, tokens = back, _tokens(one, tokens)
    return sku, tokens


def _tokens(adopted: Adopted, tokens: Vector) -> Vector:
    """The same prompt as it would have been cached without the lever, as far as the lever decides that."""
    if adopted.entry.lever == "cache":
        return Vector(tokens.prompt, tokens.output)
    if adopted.entry.lever == "batch" and adopted.mix is not None:
        return _like(adopted.mix, tokens)
    return tokens


def costs(question: Question, adopted: Adopted) -> int:
    """What all its calls come to, the later levers taken back; where there is no price for that, as they were."""
    found = ((cell, _cost(question, cell, *before_later(adopted, cell))) for cell in adopted.cells)
    return sum(cell.cost if cost is None else cost for cell, cost in found)


def _cost(question: Question, cell: Cell, sku: Sku, tokens: Vector) -> int | None:
    card = question.book.find(sku, cell.at, cell.prompt, cached=tokens.cached > 0)
    cost: int | None = tokens @ card.rates if isinstance(card, Card) else None
    return cost


def rated(question: Question, adopted: Adopted) -> Worth | str:
    """By rating the same calls again; or why that cannot be."""
    entry, mix = adopted.entry, adopted.mix
    sums, treated = [0, 0, 0], 0
    for cell in adopted.cells:
        sku, tokens = before_later(adopted, cell)
        back = was(entry, sku)
        if back is None or (entry.lever == "cache" and not tokens.cached):
            continue
        same = Vector(tokens.prompt, tokens.output) if entry.lever == "cache" else tokens
        again = same if entry.lever == "cache" or mix is None else _like(mix, tokens)
        found = [_cost(question, cell, *each) for each in ((sku, tokens), (back, same), (back, again))]
        if None in found:
            return f"without it there is no price: {back} has none on {cell.at:%Y-%m-%d}"
        sums = [total + (cost or 0) for total, cost in zip(sums, found, strict=True)]
        treated += cell.calls
    if not treated:
        calls = sum(cell.calls for cell in adopted.cells)
        return f"none of {calls:,} calls went its way: do they pass the gateway or the hooks?"
    now, as_is, as_before = sums
    without, notes = _without(question, entry, as_is, as_before, has_mix=mix is not None)
    if adopted.already:  # what went this way before it was asked for is not its doing
        share = 100 * adopted.already // adopted.prompts
        notes = (*notes, f"{share} % of the tokens went this way before, and are not counted")
        fresh = adopted.prompts - adopted.already
        without = Interval(*(now + (each - now) * fresh // adopted.prompts for each in ends(without)))
    return Worth(now, without, treated, notes=notes)


def ends(interval: Interval) -> tuple[int, int, int]:
    return interval.low, interval.mid, interval.high


def _like(mix: Vector, tokens: Vector) -> Vector:
    """The prompt on the meters that prompts were on before."""
    sizes = (mix.input, mix.cache_read, mix.cache_write_5m, mix.cache_write_1h)
    plain, *cached = apportion(sizes, tokens.prompt)
    return Vector(plain, tokens.output, *cached)


def _without(
    question: Question, entry: Entry, as_is: int, as_before: int, *, has_mix: bool
) -> tuple[Interval, tuple[str, ...]]:
    """The same tokens under the SKU of before; what the cache and the tokenizer may have to do with it as an interval.

    If less is read from the cache than before, that may be the entry's doing (a new endpoint, a new model: a cold
    cache), so the least counts it. A batch of Bedrock has no cache, so what would have been is taken from before.
    """
    low, mid, high = min(as_is, as_before), as_is, as_is
    if entry.lever == "batch":
        if has_mix:
            low, mid, high = min(as_is, as_before), as_before, max(as_is, as_before)
            return Interval(low, mid, high), (
                "cached, without it, as much as before",
            ) if mid != as_is else ()
        return Interval(low, mid, high), (
            "without it nothing would have been cached: no calls before to tell",
        )
    notes: tuple[str, ...] = ("less is read from the cache than before",) if low < mid else ()
    if entry.lever == "model":
        low, mid, high, said = _retold(question, entry, low, mid, high)
        notes += said
    return Interval(low, mid, high), notes


def _retold(
    question: Question, entry: Entry, low: int, mid: int, high: int
) -> tuple[int, int, int, tuple[str, ...]]:
    """The same text in tokens of the model of before; how long its answers would have been is not known."""
    newer = [question.book.models[name].data.get("tokenizer") == _NEWER for name in (entry.model, entry.use)]
    least, most = KAPPA_RANGE
    notes: tuple[str, ...] = ("answers are taken to be as long",)
    if newer[0] == newer[1]:
        return low, mid, high, notes
    notes += ("the two models count tokens differently: 1 to 1.35",)
    if newer[1]:  # the same text was fewer tokens
        return int(low / most), int(mid / KAPPA), int(high / least), notes
    return int(low * least), int(mid * KAPPA), int(high * most), notes


# --- the traffic -----------------------------------------------------------------------------------------------------


def adopted(
    ledger: Ledger,
    question: Question,
    live: Sequence[Period],
    known: Iterable[Entry],
    slices: Sequence[Span] = (),
) -> list[Adopted]:
    """Entries that are or were in force, each with its workload's cells; one pass over the ledger for all.

    `known` are all entries: to what models the tier lever moves calls. The last flags of a cell are of the `slices`.
    """
    if not live:
        return []
    entries = [made.entry for made in live]
    spans = [made.spans for made in live]
    distinct = list(dict.fromkeys([*spans, *map(_before, spans)]))
    asked = replace(question, since=None, until=None)

    def beside(sku: Sku) -> Iterable[Sku]:
        found = {sku}
        for entry in entries:
            found |= {back for one in found if (back := was(entry, one)) is not None}
        return found

    by_workload: dict[str, list[Cell]] = {}
    flags = [_within(each) for each in (*distinct, *((one,) for one in slices))]
    for cell in cells(ledger, asked, ("workload",), flags=flags, beside=beside):
        by_workload.setdefault(cell.keys[0], []).append(cell)
    moved = [entry for entry in known if entry.lever == "model"]
    made = []
    for period in live:
        models = _models(period.entry, moved)
        mine = [cell for cell in by_workload.get(period.entry.workload, ()) if _is_of(cell, models)]
        numbers = distinct.index(period.spans), distinct.index(_before(period.spans))
        made.append(_made(period, mine, *numbers))
    return [one._replace(later=_later(one, made)) for one in made]


def slices_of(ledger: Ledger, spans: Sequence[Span]) -> list[Span]:
    """The time from the first call to the last, as far as it is in these spans: in parts of an hour at least."""
    used = ledger.days()
    if used is None:
        return []
    start, end = max(spans[0][0], used[0]), min(spans[-1][1], used[1] + timedelta(microseconds=1))
    count = min(SLICES, int((end - start) / timedelta(hours=1)))
    edges = [start + (end - start) * number / max(1, count) for number in range(count + 1)]
    return list(pairwise(edges))


def sliced(one: Adopted, count: int) -> Iterator[Adopted]:
    """The same with the cells of each slice."""
    for number in range(count):
        mine = tuple(cell for cell in one.cells if cell.flags[number - count])
        if mine:
            yield one._replace(cells=mine)


def _made(period: Period, mine: Sequence[Cell], inside: int, earlier: int) -> Adopted:
    after = [cell for cell in mine if cell.flags[inside]]
    mix = _mix(period.entry, [cell for cell in mine if cell.flags[earlier]])
    unpriced = sum(cell.calls for cell in after if isinstance(cell.price, Unpriced))
    priced = tuple(cell for cell in after if isinstance(cell.price, Card))
    return Adopted(period, inside, priced, unpriced, *mix)


def _later(one: Adopted, made: Sequence[Adopted]) -> tuple[Adopted, ...]:
    """The levers after this one on the same calls, the last first."""
    mine = one.entry
    found = [
        each for each in made
        if each.entry.workload == mine.workload and mine.model in ("", each.entry.model or mine.model)
        and LEVERS.index(each.entry.lever) > LEVERS.index(mine.lever)
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda each: -LEVERS.index(each.entry.lever)))


def _models(entry: Entry, moved: Iterable[Entry]) -> frozenset[str]:
    """The models that an entry's calls run on: its own, and what the tier lever puts in its place."""
    into = {one.use for one in moved if (one.workload, one.model) == (entry.workload, entry.model)}
    return frozenset({entry.model, *into}) if entry.model else frozenset()


def _is_of(cell: Cell, models: frozenset[str]) -> bool:
    return not isinstance(cell.sku, Unpriced) and (not models or cell.sku.sku.model in models)


def _mix(entry: Entry, before: Iterable[Cell]) -> tuple[Vector | None, int, int]:
    """The prompts of before by meter, those of them that went the entry's way already, and all: tokens."""
    mix, already, prompts = Vector(), 0, 0
    for cell in before:
        if not isinstance(cell.price, Card):
            continue
        prompts += cell.tokens.prompt
        if entry.lever == "cache":
            already += cell.tokens.cached
        elif was(entry, cell.price.sku) is not None:
            already += cell.tokens.prompt
        else:
            mix += cell.tokens
    return mix if mix.prompt else None, already, prompts


def _before(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    start = spans[0][0]
    length = sum((end - begin for begin, end in spans), timedelta())
    return ((max(start - length, EPOCH), start),)


def _within(spans: tuple[Span, ...]) -> nw.Expr:
    import narwhals.stable.v2 as nw

    tests = [
        (nw.col("at") >= nw.lit(start.astimezone(UTC))) & (nw.col("at") < nw.lit(end.astimezone(UTC)))
        for start, end in spans
    ]
    return nw.any_horizontal(*tests, ignore_nulls=False)
