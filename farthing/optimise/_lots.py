"""Lots: the cells of one workload and model, with what may be done to them and what they cost under a choice."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from farthing.book import Book, Card, Model, Resolved
from farthing.cells import Cell, Question, Where, cells
from farthing.config import Config, Residency, Workload
from farthing.ledger import Ledger
from farthing.levers import BELOW, KAPPA, LEVERS, Ratio, Rewrite, batch_pays, family, to_model
from farthing.meters import Vector
from farthing.optimise import _cold, _replay
from farthing.optimise._lent import Lot
from farthing.optimise._replay import AS_IS
from farthing.optimise._scenarios import find, rated
from farthing.optimise._traffic import UNTOLD, Traffic, Waiting
from farthing.reports._control import matches
from farthing.usage import Sku

THRESHOLDS = (1_024, 2_048, 4_096)  # of prompts: what models want before they cache
BATCH_HOURS = 24  # AWS gives a batch at least so long
BATCH_RECORDS = 100  # and takes no job with fewer
_KEYS = ("workload", "routing", "account", "operation", "region")
_SELECTORS = {"accounts": "account", "teams": "team", "principals": "principal"}
_WAIT = {"m": 1, "h": 60, "d": 1440}


# What changes from call to call behind what stays; the system prompt as long as the model wants it to be cached.
MOVED, PADDED = "moved", "padded"


class Choice(NamedTuple):
    """What to do with a lot; the default is what is done today."""

    model: str = ""  # instead of its own
    batch: bool = False
    ordered: bool = False  # what may wait is held, and sent in the order of its prefixes
    policy: str = AS_IS
    globe: bool = False
    content: str = ""  # MOVED or PADDED

    @property
    def replayed(self) -> bool:
        """Whether only a trace tells what it costs."""
        return bool(self.policy or self.ordered or self.content)


@dataclass(frozen=True)
class Part:
    """A cell of a lot. `globe` says whether its owner and the residency policy let it run anywhere."""

    cell: Cell
    said: Mapping[str, str]
    deferrable: bool  # nobody waits for it word by word, and no next turn hangs on it, as far as is known
    globe: bool


@dataclass
class Load:
    """A lot with its parts. `stages` has its trace under the rates of each model, "" for its own."""

    lot: Lot
    workload: Workload | None  # None where nobody named it
    parts: list[Part]
    stages: dict[str, _replay.Stage] = field(default_factory=dict)
    share: Ratio = (0, 1)  # of its synchronous cost, what the trace has
    span_us: int = 1  # of the days asked for
    lent: _cold.Lent = _cold.ALONE  # shared with other lots that stay
    waiting: Waiting = UNTOLD  # what bodies tell of the calls that may wait
    costs: dict[tuple[object, ...], int] = field(default_factory=dict)
    ratios: dict[tuple[str, _replay.Way], _replay.Ratio] = field(default_factory=dict)
    losses: dict[tuple[str, ...], tuple[int, int, int]] = field(default_factory=dict)

    @property
    def billed(self) -> int:
        return sum(part.cell.cost for part in self.parts)

    @property
    def synchronous(self) -> list[Part]:
        """What no batch and no faster mode has: only that is replayed."""
        return [part for part in self.parts if part.cell.price.sku.mode == "on_demand"]  # type: ignore[union-attr]

    @property
    def calls(self) -> int:
        return sum(part.cell.calls for part in self.parts)

    def sources(self) -> set[str]:
        return {part.cell.source for part in self.parts}


# --- out of the ledger ---------------------------------------------------------------------------------------------


def loads(ledger: Ledger, question: Question, turns: Collection[str] = ()) -> tuple[list[Load], int]:
    """Every lot of the ledger, and how many calls have no price. Two passes: calls in sessions, and the others.

    `turns` are request ids of calls without a session that may wait no more than those with one.
    """
    import narwhals.stable.v2 as nw

    from farthing.rating import columns

    selectors = {
        key for rule in question.config.residency for name, key in _SELECTORS.items() if getattr(rule, name)
    }
    keys = tuple(dict.fromkeys((*_KEYS, *sorted(selectors))))
    prompt = columns().prompt.abs()
    flags = [prompt >= nw.lit(least) for least in THRESHOLDS]
    found: dict[Lot, Load] = {}
    unpriced = 0
    for where, in_session in (
        (Where("session", ("",), negated=True), True),
        (Where("session", ("",)), False),
    ):
        asked = replace(question, where=(*question.where, where))
        apart = [nw.col("request_id").is_in(sorted(turns))] if turns and not in_session else []
        for made in cells(
            ledger, asked, keys, flags=[*flags, *apart], beside=lambda sku: _beside(question.book, sku)
        ):
            cell = made._replace(flags=made.flags[: len(flags)])
            hangs = in_session or any(made.flags[len(flags) :])
            if not isinstance(cell.price, Card) or not isinstance(cell.sku, Resolved):
                unpriced += cell.calls
                continue
            said = dict(zip(keys, cell.keys, strict=True))
            sku = cell.sku.sku
            lot = Lot(said["workload"], sku.platform, sku.model)
            workload = question.config.workloads.get(lot.workload)
            load = found.setdefault(lot, Load(lot, workload, []))
            streamed = "Stream" in said["operation"]
            globe = _may_go(said, workload, question.config)
            load.parts.append(Part(cell, said, not hangs and not streamed, globe))
    return sorted(found.values(), key=lambda load: (-load.billed, load.lot)), unpriced


def _beside(book: Book, sku: Sku) -> Iterable[Sku]:
    """What a plan may make of it, so that a cell lies in one box of each."""
    for model in (sku.model, *suggested(book, sku)):
        for endpoint in (sku.endpoint, "global"):
            for mode in (sku.mode, "batch"):
                if (other := sku._replace(model=model, endpoint=endpoint, mode=mode)) != sku and book.cards(
                    other
                ):
                    yield other


def _may_go(said: Mapping[str, str], workload: Workload | None, config: Config) -> bool:
    """Whether a call may run at the global endpoint. No residency rule that is for it may say otherwise."""
    if workload is None or not {"global", "*"} & set(workload.allow):
        return False
    return all({"global", "*"} & set(rule.allow) for rule in config.residency if _is_for(rule, said, config))


def _is_for(rule: Residency, said: Mapping[str, str], config: Config) -> bool:
    account = config.accounts.get(said["account"])
    for name, key in _SELECTORS.items():
        patterns = getattr(rule, name)
        values = [said.get(key, "")] + ([account.name] if name == "accounts" and account else [])
        if patterns and not any(matches(Where("", tuple(patterns)), value) for value in values):
            return False
    return True


def minutes(deadline: str) -> int:
    """30m, 6h, 2d; 0 for at once."""
    found = re.fullmatch(r"(\d+)([mhd])", deadline)
    return int(found[1]) * _WAIT[found[2]] if found else 0


# --- models --------------------------------------------------------------------------------------------------------


def suggested(book: Book, sku: Sku) -> list[str]:
    """The tier below, and the newest model of the same family that costs less: what an owner may want to allow."""
    own = book.models.get(sku.model)
    below = BELOW.get(sku.model)
    found = [below] if below else []
    if own is None:
        return found
    newer = [
        model
        for model in book.models.values()
        if family(model.id) == family(own.id)
        and model.released > own.released
        and not model.data.get("limited")
    ]
    cheaper = [model for model in newer if _cheaper(book, sku, model)]
    if cheaper:
        found.append(max(cheaper, key=lambda model: model.released).id)
    return list(dict.fromkeys(found))


def _cheaper(book: Book, sku: Sku, model: Model) -> bool:
    """Whether the successor costs less even at the most tokens that its tokenizer may make."""
    ours, theirs = (
        _last(book, sku._replace(mode="on_demand", zone="")),
        _last(book, sku._replace(model=model.id, mode="on_demand", zone="")),
    )
    above, below = kappas(book, sku.model, model.id)[2]
    return bool(ours and theirs and theirs.rates.input * above < ours.rates.input * below)


def _last(book: Book, sku: Sku) -> Card | None:
    found = [card for card in book.cards(sku) if card.prompt_from == 0]
    return max(found, key=lambda card: card.starts) if found else None


def kappas(book: Book, own: str, other: str) -> tuple[Ratio, Ratio, Ratio]:
    """Tokens of the other model for one of this one's, at the least, as a rule and at the most."""
    made = [book.models[name].data.get("tokenizer") if name in book.models else "" for name in (own, other)]
    return KAPPA if made == ["v1", "v2"] else (KAPPA[0],) * 3


# --- what a choice costs -------------------------------------------------------------------------------------------


def cost(book: Book, load: Load, choice: Choice, at: int = 1, *, forced: bool = False) -> int:
    """What the lot comes to, at the low, middle or high end (0, 1, 2) of what is not certain.

    `forced` moves also calls that may not go to the global endpoint: to say what that would be worth.
    """
    asked = (choice, at, forced)
    if asked not in load.costs:
        apart = [_part(book, load, part, choice, at, forced) for part in load.parts]
        load.costs[asked] = sum(apart)
        if choice.batch and traced(load, choice):
            mixed = [_part(book, load, part, choice, at, forced, mixed=True) for part in load.parts]
            load.costs[asked] = min(sum(apart), sum(mixed))
        load.costs[asked] += losses(book, load, choice)[at]
    return load.costs[asked]


def losses(book: Book, load: Load, choice: Choice) -> tuple[int, int, int]:
    """What another model loses in the cache: at the low end at a moment when nothing is alive, else on average, or at
    the worst moment; and with each, for good, what was shared with lots that stay."""
    if not choice.model:
        return _cold.NOTHING
    asked = choice.model, choice.policy, choice.content
    if asked not in load.losses:
        ratios = kappas(book, load.lot.model, choice.model)
        once = [
            mean * above // below
            for mean, (above, below) in zip(_once(book, load, choice), ratios, strict=True)
        ]
        sku = main_sku(load)._replace(mode="on_demand", zone="")
        old, new = (_last(book, sku._replace(model=model)) for model in (sku.model, choice.model))
        good = _cold.apart(load.lent, old.rates, new.rates, ratios) if old and new else _cold.NOTHING
        load.losses[asked] = once[0] + good[0], once[1] + good[1], once[2] + good[2]
    return load.losses[asked]


def _once(book: Book, load: Load, choice: Choice) -> tuple[int, int, int]:
    stage, (part, whole) = load.stages.get(choice.model), load.share
    if stage is None or not part:
        most = _cold.at_most(book, (one.cell for one in load.synchronous), choice.model, load.span_us)
        return 0, most, most
    way = way_of(load, choice, stage.traffic)
    found = stage.cold(way.policy, load.span_us, settled=way.settled)
    scale = stage.traffic.every * whole
    return 0, found.mean * scale // part, found.most * scale // part


def optimum(book: Book, load: Load, choice: Choice) -> int | None:
    """What the lot would come to if batch or cache were chosen call by call with hindsight: proved, where traced."""
    stage = load.stages.get(choice.model)
    if not choice.batch or stage is None or stage.batched is None or not traced(load, choice):
        return None
    way = way_of(load, choice, stage.traffic)
    least, today = stage.optimum(way.window_us, settled=way.settled).bound, stage.today().cost
    sync, rest = halves(book, load, Choice(choice.model, globe=choice.globe), 1)
    part, whole = load.share
    found = sync * part * least // (whole * today) + sync * (whole - part) // whole + rest
    return min(found + losses(book, load, choice)[1], cost(book, load, choice))


def main_sku(load: Load) -> Sku:
    """That of most of the money."""
    most = max(load.parts, key=lambda part: (part.cell.cost, str(part.cell.sku)))
    assert isinstance(most.cell.sku, Resolved)
    return most.cell.sku.sku


def halves(book: Book, load: Load, choice: Choice, at: int) -> tuple[int, int]:
    """The lot's cost under a choice: of what is synchronous, and replayed as far as it is traced; and of the rest."""
    sync = sum(_part(book, load, part, choice, at, False) for part in load.synchronous)
    whole = sum(_part(book, load, part, choice, at, False) for part in load.parts)
    return sync, whole - sync


def traced(load: Load, choice: Choice) -> bool:
    """Whether a trace says, call by call, which ones a batch makes cheaper."""
    stage = load.stages.get(choice.model)
    return stage is not None and load.stages[""].calibrated() and bool(stage.traffic.deferrable.any())


def _part(
    book: Book, load: Load, part: Part, choice: Choice, at: int, forced: bool, *, mixed: bool = False
) -> int:
    """What a part comes to. `mixed`: which of its calls are batched the trace has said, else it is all that may be."""
    cell = part.cell
    assert isinstance(cell.sku, Resolved)
    rewrites: list[Rewrite] = []
    if choice.model:
        model = book.models[choice.model]
        kappa = kappas(book, load.lot.model, choice.model)[at]
        rewrites.append(to_model(choice.model, kappa, cacheable=_cacheable(model, cell)))
    if choice.globe and (part.globe or forced):
        rewrites.append(LEVERS["endpoint"].rewrite)
    sync = rated(book, cell.sku.sku, cell.tokens, cell.at, cell.prompt, rewrites)
    if sync is None:
        return cell.cost
    picos, sku, tokens = sync
    if sku.mode == "on_demand":
        picos = _replayed(load, choice if mixed else choice._replace(batch=False), at, picos)
    if choice.batch and not mixed and part.deferrable and sku.mode == "on_demand":
        batched = find(book, sku._replace(mode="batch"), cell.at, cell.prompt, cached=False)
        own = find(book, sku, cell.at, cell.prompt, tokens.cached > 0)
        if batched and own and batch_pays(tokens, own.rates, batched.rates):
            moved = LEVERS["batch"].rewrite(sku, tokens)
            assert moved is not None
            picos = min(picos, moved[1] @ batched.rates)
    return int(picos)


def _replayed(load: Load, choice: Choice, at: int, picos: int) -> int:
    """A synchronous cost of today with the trace's part of it sent in another way."""
    stage = load.stages.get(choice.model)
    if stage is None or not (choice.replayed or choice.batch):
        return picos
    ratio = load_ratio(load, choice)
    part, whole = load.share
    return picos - picos * part * (ratio.whole - ratio[at]) // (whole * ratio.whole)


def load_ratio(load: Load, choice: Choice) -> _replay.Ratio:
    """The cost of the trace over today's, sent as chosen."""
    stage = load.stages[choice.model]
    way = way_of(load, choice, stage.traffic)
    if (choice.model, way) not in load.ratios:
        load.ratios[choice.model, way] = stage.ratio(way)
    return load.ratios[choice.model, way]


def way_of(load: Load, choice: Choice, traffic: Traffic) -> _replay.Way:
    """The choice as a replay takes it."""
    waits = minutes(load.workload.deadline) if load.workload else 0
    window_us = (waits or BATCH_HOURS * 60) * 60_000_000 if choice.ordered else 0
    policy = _replay.policy_of(choice.policy, traffic)._replace(pads=choice.content == PADDED)
    return _replay.Way(policy, choice.batch, window_us, choice.content == MOVED)


def _cacheable(model: Model, cell: Cell) -> bool:
    """Whether prompts of the cell reach the model's minimum; where that is not published, 1,024 is assumed."""
    least = model.cache_minimum(
        cell.price.sku.platform if isinstance(cell.price, Card) else "", cell.at.date()
    )
    flags: Sequence[bool] = cell.flags
    return all(flag for flag, size in zip(flags, THRESHOLDS, strict=True) if size <= (least or 1_024))


def limit(book: Book, load: Load, choice: Choice, *, free: bool) -> int:
    """A floor where no prefixes are known: every prompt read from a cache or batched, whichever is less.

    `free` is whether markers may change.
    """
    total = 0
    for part in load.parts:
        cell = part.cell
        assert isinstance(cell.sku, Resolved)
        rewrites = [to_model(choice.model)] if choice.model else []
        rewrites += [LEVERS["endpoint"].rewrite] if choice.globe and part.globe else []
        made = rated(book, cell.sku.sku, cell.tokens, cell.at, cell.prompt, rewrites)
        if made is None:
            total += cell.cost
            continue
        picos, sku, tokens = made
        card = find(book, sku, cell.at, cell.prompt, cached=True) or find(
            book, sku, cell.at, cell.prompt, cached=False
        )
        batched = (
            find(book, sku._replace(mode="batch"), cell.at, cell.prompt, cached=False)
            if choice.batch and part.deferrable and sku.mode == "on_demand"
            else None
        )
        if card is None or sku.mode != "on_demand":
            total += picos
            continue
        rates = card.rates
        if free and card.cached:
            least = min(rates.input, rates.cache_read)
            rates = Vector(least, rates.output, least, least, least)
        if batched:
            plain = batched.rates.input
            rates = Vector(*map(min, rates, (plain, batched.rates.output, plain, plain, plain)))
        total += min(tokens @ rates, picos)
    return total
