"""What a move to another model would cost: a range, and the inflation of tokens at which it stops to pay.

The text is the same, its tokens are not: the tokenizer of the models from 4.7 on makes 1.0 to 1.35 tokens of one, and
nobody knows how many without counting. A new model also answers at its own length, caches from its own minimum, and may
charge long prompts otherwise. What was paid is as it was; the new model is rated at the prices of today.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from farthing.book import ANY_PROMPT, Book, Card, Resolved, Unpriced
from farthing.cells import Question, Where, cells
from farthing.ledger import Ledger
from farthing.levers import KAPPA, family
from farthing.meters import Vector
from farthing.money import show
from farthing.rating import columns
from farthing.usage import Sku

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

SOON_DAYS = 180  # before its end, a model is shown unasked
OUTPUT = (
    Fraction(9, 10),
    Fraction(1),
    Fraction(11, 10),
)  # answers of another model, where nothing else is open
_ONE = (Fraction(1), Fraction(1), Fraction(1))
_ENDS = ("retirement", "eol", "eol_by")
_PHASES = {
    "extended_access": "extended access since",
    "legacy": "legacy since",
    "legacy_by": "legacy by",
}
_NO_MINIMUM = 0
Three = tuple[Fraction, Fraction, Fraction]


class MigrationError(ValueError):
    """Why there is no such move: one line."""


class Part(NamedTuple):
    """Usage that is rated alike. `over`, at each of the three inflations, is how many of the new model's prompt sizes a
    call is beyond; `short` whether what it caches is less than the new model asks for."""

    sku: Sku
    paid: int
    tokens: Vector
    calls: int
    over: tuple[int, int, int]
    short: tuple[bool, bool, bool]
    too_long: bool


class Move(NamedTuple):
    """From a model to another. `inflation` is tokens of the new for one of the old, `output` the length of answers."""

    source: str
    target: str
    inflation: Three
    output: Three
    endpoint: str = ""
    measured: str = ""


class Migration(NamedTuple):
    """`steps` lead from what was paid to `mid`, exactly. `break_even` None: the new model costs nothing, or there is
    nothing to move."""

    move: Move
    paid: int
    low: int
    mid: int
    high: int
    break_even: Fraction | None
    calls: int
    unpriced_calls: int
    steps: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]


class Legacy(NamedTuple):
    """A model in the ledger that ends, or has begun to, and the model that follows it."""

    model: str
    platform: str
    status: str
    day: date
    calls: int
    paid: int
    successor: str


# --- the range -------------------------------------------------------------------------------------------------------


def plan(
    book: Book,
    source: str,
    target: str,
    *,
    inflation: Three | None = None,
    output: Three | None = None,
    endpoint: str = "",
    measured: str = "",
) -> Move:
    """A move with the range that is known of it; what is given is taken instead."""
    old, new = (_model(book, name) for name in (source, target))
    if old == new:
        raise MigrationError(f"{old} to {new} is no move")
    same = book.models[old].data["tokenizer"] == book.models[new].data["tokenizer"]
    known = tuple(Fraction(*kappa) for kappa in KAPPA)
    if book.models[new].data["tokenizer"] == "v1":  # back to the older: fewer tokens
        known = tuple(1 / kappa for kappa in reversed(known))
    chosen: Three = inflation or (_ONE if same else (known[0], known[1], known[2]))
    length = output or (OUTPUT if chosen[0] == chosen[2] else _ONE)  # something is always open
    return Move(old, new, chosen, length, endpoint, measured)


def _model(book: Book, name: str) -> str:
    found = book.resolve(name)
    if isinstance(found, Unpriced):
        raise MigrationError(found.reason)
    return found.sku.model


def migrate(
    move: Move, parts: Sequence[Part], book: Book, now: datetime, unpriced_calls: int = 0
) -> Migration:
    """The parts, moved: at both ends of what is known and between."""
    paid = sum(part.paid for part in parts)
    rater = _Rater(move, parts, book, now)
    for platform, end in _target_ends(move, parts, book):
        if end <= now.date():
            raise MigrationError(
                f"{move.target} has ended on {platform} ({end}): name a model that is sold there"
            )
    ends = [rater.cost(at) for at in range(3)]
    plain = rater.cost(1, inflation=Fraction(1), output=Fraction(1), over=False, short=False)
    steps = rater.steps(paid, ends[1])
    return Migration(
        move,
        paid,
        round(min(ends)),
        round(ends[1]),
        round(max(ends)),
        Fraction(paid) / plain if plain and paid else None,
        sum(part.calls for part in parts),
        unpriced_calls,
        steps,
        tuple(_notes(move, parts, rater)),
    )


def _target_ends(move: Move, parts: Sequence[Part], book: Book) -> list[tuple[str, date]]:
    """Where the new model ends, and when, of the platforms that it would be called on."""
    days = {
        platform: ending(book, move.target, platform) for platform in {part.sku.platform for part in parts}
    }
    return sorted((platform, end) for platform, end in days.items() if end)


class _Rater:
    """The parts under the new model's rates, with any of the effects left out."""

    def __init__(self, move: Move, parts: Sequence[Part], book: Book, now: datetime) -> None:
        self.move, self.parts, self.book, self.now = move, parts, book, now
        self.edges = _edges(book, move.target, now)
        self.no_batch = 0  # calls
        for part in parts:
            moved = self._sku(part.sku, move.endpoint)
            self.no_batch += part.calls * (moved.mode != part.sku.mode)
            self._card(moved, 0, cached=False)  # one that is not sold is said at once

    def cost(
        self,
        at: int,
        *,
        inflation: Fraction | None = None,
        output: Fraction | None = None,
        over: bool = True,
        short: bool = True,
        endpoint: str | None = None,
    ) -> Fraction:
        kappa = self.move.inflation[at] if inflation is None else inflation
        length = self.move.output[at] if output is None else output
        chosen = self.move.endpoint if endpoint is None else endpoint
        total = Fraction(0)
        for part in self.parts:
            sku = self._sku(part.sku, chosen)
            tokens = Vector.of(lambda meter, part=part: getattr(part.tokens, meter) * kappa)  # type: ignore[misc]
            tokens = tokens._replace(output=tokens.output * length)
            size = ([0, *self.edges])[part.over[at]] if over else 0
            rates = self._card(sku, size, cached=tokens.cached > 0)
            if (short and part.short[at]) or rates is None:
                tokens = Vector(input=tokens.prompt, output=tokens.output)
                rates = self._card(sku, size, cached=False)
            total += tokens @ rates  # type: ignore[operator]
        return total

    def steps(self, paid: int, mid: Fraction) -> tuple[tuple[str, int], ...]:
        """What each effect adds, one after the other; the last begins where the one before ended."""
        one = Fraction(1)
        totals = [
            (
                "price of the model",
                self.cost(1, inflation=one, output=one, over=False, short=False, endpoint=""),
            ),
            ("endpoint", self.cost(1, inflation=one, output=one, over=False, short=False)),
            ("tokenizer", self.cost(1, output=one, over=False, short=False)),
            ("length of answers", self.cost(1, over=False, short=False)),
            ("long prompts", self.cost(1, short=False)),
            ("cache minimum", mid),
        ]
        before, found = paid, []
        for name, total in totals:
            found.append((name, round(total) - before))
            before = round(total)
        return tuple(found)

    def worldwide(self) -> Fraction | None:
        """The middle on the global endpoint, where some calls are not on it and nothing was asked."""
        if self.move.endpoint or all(part.sku.endpoint == "global" for part in self.parts):
            return None
        try:
            return self.cost(1, endpoint="global")
        except MigrationError:
            return None

    def _sku(self, sku: Sku, endpoint: str) -> Sku:
        """The new model at the same kind of endpoint, else at the one it has; batch only where it is sold."""
        offered = self.book.models[self.move.target].platform(sku.platform)
        ends = offered.get("endpoints", {})
        if endpoint and endpoint not in ends:
            raise MigrationError(f"{self.move.target} has no {endpoint} endpoint on {sku.platform}")
        chosen = endpoint or (sku.endpoint if sku.endpoint in ends else next(iter(ends), sku.endpoint))
        moved = sku._replace(model=self.move.target, endpoint=chosen, zone="")
        if sku.mode != "on_demand" and isinstance(self.book.find(moved, self.now), Unpriced):
            moved = moved._replace(mode="on_demand")
        return moved

    def _card(self, sku: Sku, size: int, *, cached: bool) -> Vector | None:
        """The rates; None where cached tokens have none."""
        card = self.book.find(sku, self.now, size, cached=cached)
        if isinstance(card, Card):
            return card.rates
        if cached:
            return None
        raise MigrationError(card.reason)


def _edges(book: Book, target: str, now: datetime) -> list[int]:
    """The prompt sizes from which the new model costs more."""
    sizes = {
        card.prompt_from
        for sku in {card.sku for card in book.cards() if card.sku.model == target}
        for card in book.cards(sku)
        if card.starts <= now < card.ends and 0 < card.prompt_from < ANY_PROMPT
    }
    return sorted(sizes)


def _notes(move: Move, parts: Sequence[Part], rater: _Rater) -> Iterable[str]:
    old, new = (rater.book.models[name].data["tokenizer"] for name in (move.source, move.target))
    if move.measured:
        yield f"inflation measured: {move.measured}"
    elif old != new:
        yield "the tokenizer's inflation is what its maker has said of it, not measured: --measure FILE counts a sample"
    if move.output == OUTPUT:
        yield "the length of the new answers is open, and assumed within 10 % of today's: --output-factor"
    elif move.output == _ONE:
        yield "answers are taken to be as long as today's: --output-factor says otherwise"
    if (worldwide := rater.worldwide()) is not None:
        yield f"on the global endpoint it would be {show(round(worldwide))}: --endpoint global"
    if rater.no_batch:
        yield f"{move.target} has no such batch SKU: {rater.no_batch:,} batched calls are taken to go on demand"
    short = [sum(part.calls for part in parts if part.short[at]) for at in range(3)]
    if any(short):
        yield f"{max(short):,} calls cache less than {move.target} asks for: their prompts are taken to be plain"
    longer = [sum(part.calls for part in parts if part.over[at]) for at in range(3)]
    if any(longer):
        yield f"{longer[0]:,} to {longer[2]:,} calls are long prompts, which cost {move.target} more"
    for platform, end in _target_ends(move, parts, rater.book):
        yield f"{move.target} ends on {platform} on {end} itself"
    if beyond := sum(part.calls for part in parts if part.too_long):
        yield f"{beyond:,} calls may not fit the context of {move.target}: they are priced as if they did"


# --- from a ledger ---------------------------------------------------------------------------------------------------


def from_ledger(ledger: Ledger, question: Question, move: Move, now: datetime) -> tuple[list[Part], int]:
    """The ledger's calls to the old model, told apart by what the move does to them; and calls without a price."""
    book = question.book
    edges, context = _edges(book, move.target, now), book.models[move.target].data["context_tokens"]

    def extra(place: Resolved | Unpriced) -> dict[str, int]:
        platform = place.sku.platform if isinstance(place, Resolved) else "bedrock"
        return {"least_cached": _minimum(book, move.target, platform, now)}

    asked = replace(question, where=(*question.where, Where("model", (move.source,))))
    found = cells(ledger, asked, flags=_flags(move, edges, context), extra=extra)
    parts, unpriced = [], 0
    for cell in found:
        if not isinstance(cell.price, Card):
            unpriced += cell.calls
            continue
        flags = list(cell.flags)
        each = len(edges) + 1
        over = [sum(flags[at * each : at * each + len(edges)]) for at in range(3)]
        short = [flags[at * each + len(edges)] for at in range(3)]
        parts.append(
            Part(
                cell.price.sku,
                cell.cost,
                cell.tokens,
                cell.calls,
                (over[0], over[1], over[2]),
                (short[0], short[1], short[2]),
                flags[-1],
            )
        )
    return parts, unpriced


def _flags(move: Move, edges: Sequence[int], context: int) -> list[nw.Expr]:
    """For each inflation: beyond each prompt size? cached, but too little? And at the highest: beyond the context?"""
    import narwhals.stable.v2 as nw

    prompt, cached = columns().prompt.abs(), columns().cached.abs()
    flags = []
    for kappa in move.inflation:
        above, below = kappa.numerator, kappa.denominator
        flags += [prompt * above >= edge * below for edge in edges]
        flags.append((cached > 0) & (cached * above < nw.col("least_cached") * below))
    most = move.inflation[2]
    total = prompt + columns().output.abs()
    return [*flags, total * most.numerator > context * most.denominator]


def _minimum(book: Book, model: str, platform: str, now: datetime) -> int:
    """0 where it is not published: then nothing is taken to be too short."""
    least = book.models[model].cache_minimum(platform, now.date())
    return _NO_MINIMUM if least is None else least


def part_of(
    move: Move,
    book: Book,
    now: datetime,
    *,
    sku: Sku,
    paid: int,
    tokens: Vector,
    calls: int,
    prompt: int,
    prefix: int,
) -> Part:
    """A part of calls that are all alike: what an estimate is made of."""
    edges, least = _edges(book, move.target, now), _minimum(book, move.target, sku.platform, now)
    over = [sum(prompt * kappa >= edge for edge in edges) for kappa in move.inflation]
    short = [bool(tokens.cached) and prefix * kappa < least for kappa in move.inflation]
    context = book.models[move.target].data["context_tokens"]
    return Part(
        sku,
        paid,
        tokens,
        calls,
        (over[0], over[1], over[2]),
        (short[0], short[1], short[2]),
        prompt * move.inflation[2] > context,
    )


# --- models that end -------------------------------------------------------------------------------------------------


def legacy(ledger: Ledger, question: Question, now: datetime) -> list[Legacy]:
    """The ledger's models that have ended, are legacy, or end within SOON_DAYS: dearest first."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for cell in cells(ledger, question):
        if isinstance(cell.sku, Resolved):
            sku = cell.sku.sku
            pair = sums.setdefault((sku.model, sku.platform, sku.zone), [0, 0])
            pair[0] += cell.calls
            pair[1] += cell.cost
    found: dict[tuple[str, str], Legacy] = {}
    for (model, platform, zone), (calls, paid) in sums.items():
        status = _status(question.book, Sku(platform, model, "regional", zone, "on_demand"), now.date())
        if status and calls:
            one = Legacy(
                model, platform, *status, calls, paid, successor(question.book, model, platform, now)
            )
            if other := found.get((model, platform)):  # of another zone: the dearer tells its status
                one = max(one, other, key=lambda each: each.paid)._replace(
                    calls=calls + other.calls, paid=paid + other.paid
                )
            found[model, platform] = one
    return sorted(found.values(), key=lambda one: (-one.paid, one.model, one.platform))


def _status(book: Book, sku: Sku, day: date) -> tuple[str, date] | None:
    """How far a model is on its way out, and since or until when.

    Where its platform publishes no day, a price of extended access tells, or that its maker has retired it.
    """
    model = book.models[sku.model]
    cycle = model.platform(sku.platform).get("lifecycle", {})
    end = ending(book, sku.model, sku.platform)
    if end and end <= day:
        return "ended", end
    if end and (end - day).days <= SOON_DAYS:
        return "ends", end
    for name, said in _PHASES.items():
        if name in cycle and cycle[name] <= day:
            return said, cycle[name]
    if sku.zone == "extended":
        starts = max(card.starts.date() for card in book.cards(sku))
        return _PHASES["extended_access"], starts
    retired = model.platform("anthropic").get("lifecycle", {}).get("retirement")
    return ("retired by its maker on", retired) if retired and retired <= day else None


def ending(book: Book, model: str, platform: str) -> date | None:
    """The day from which the model is no longer there, where one is published."""
    cycle = book.models[model].platform(platform).get("lifecycle", {})
    return next((cycle[name] for name in _ENDS if name in cycle), None)


def successor(book: Book, model: str, platform: str, now: datetime) -> str:
    """The newest model of the family that is sold there to everyone; "" where there is none."""
    sold = [
        other
        for other in book.models.values()
        if family(other.id) == family(model)
        and other.id != model
        and other.platform(platform)
        and not other.data.get("limited")
        and book.models[model].released < other.released <= now.date()
    ]
    return max(sold, key=lambda other: other.released).id if sold else ""
