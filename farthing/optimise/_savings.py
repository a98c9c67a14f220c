"""All of it put together: the ledger's lots, their traces, the plan of each, and the sums."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from farthing.cache import BEST, DOCUMENTED
from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.optimise import _replay, _rules
from farthing.optimise._advice import LEVERS_IN_ORDER, Advice, Interval, Plan, Step, Worked
from farthing.optimise._changes import change
from farthing.optimise._choose import (
    TODAY,
    Doubt,
    Option,
    Taken,
    best,
    floor,
    interval,
    options,
    percent,
    saved,
    steps,
)
from farthing.optimise._lots import Choice, Load, cost, loads, suggested
from farthing.optimise._traffic import Lot, Traffic, from_bodies, from_counts
from farthing.traces import Source
from farthing.usage import Sku

SEMANTICS = (
    "as documented: entries last from the start of the request that writes or reads them, a read refreshes them free, "
    f"survival by segment, {DOCUMENTED.delay_us // 1_000_000} s until an entry can be read"
)
NOTHING = Interval(0, 0, 0)


@dataclass
class Planned:
    """A lot with its plan. `scale` turns computed money into billed."""

    load: Load
    options: list[Option]
    chosen: Choice
    taken: list[Taken]
    billed: int = 0  # after scaling
    scale: tuple[int, int] = (1, 1)
    bound: int = 0
    advised: Interval = NOTHING
    worth: Interval = NOTHING
    advice: list[Advice] = field(default_factory=list)

    def money(self, picos: int) -> int:
        part, whole = self.scale
        return picos * part // whole if whole else picos

    def spread(self, found: Interval) -> Interval:
        return Interval(*map(self.money, (found.low, found.mid, found.high)))


def savings(
    ledger: Ledger,
    question: Question,
    *,
    bodies: Iterable[Source] = (),
    key: bytes = b"",
    billed: int | None = None,
    heading: str = "computed, unproven",
) -> Plan:
    """The cheapest plan that the owners of workloads allow. `billed` is what a statement says that all of it cost."""
    found, unpriced = loads(ledger, question)
    notes = [f"{unpriced:,} calls without a price are left out"] if unpriced else []
    traffic = from_counts(ledger, question, {load.lot.workload for load in found})
    bodies = list(bodies)
    if bodies:
        told, bad, left = from_bodies(ledger, question, bodies, key)
        traffic |= told
        notes += [f"{count:,} requests of --bodies left out: {why}" for why, count in left.most_common()]
        notes += bad
    used = ledger.days()
    since, until = question.span()
    since, until = (max(since, used[0]), min(until, used[1])) if used else (since, until)
    last = until - timedelta(microseconds=1)
    days = max(1, -(-(until - since) // timedelta(days=1)))
    plans = []
    for load in found:
        _set_stage(question, load, traffic, last)
        tried = options(question.book, load, question, days)
        chosen = best(question.book, load, tried)
        plans.append(Planned(load, tried, chosen, steps(question.book, load, chosen)))
    computed = sum(load.billed for load in found)
    _scale(plans, computed, computed if billed is None else billed)
    for planned in plans:
        _advise(question, planned)
    return _plan(question, plans, computed, billed, heading, (since, last), notes)


def _set_stage(question: Question, load: Load, traffic: Mapping[Lot, Traffic], last: datetime) -> None:
    """The lot's trace under the rates of its own model, and of those that it could be moved to."""
    told = traffic.get(load.lot)
    if told is None:
        return
    endpoint = "global"
    for model in ("", *suggested(question.book, Sku(load.lot.platform, load.lot.model, "global", "", "on_demand"))):
        sku = Sku(load.lot.platform, model or load.lot.model, endpoint, "", "on_demand")
        made = _replay.stage(question.book, told, sku, last)
        if made is None:
            made = _replay.stage(question.book, told, sku._replace(endpoint="regional"), last)
        if made is not None:
            load.stages[model] = made
    own = load.stages.get("")
    if own is None:
        load.stages.clear()
        return
    sync = Load(load.lot, None, [part for part in load.parts if part.cell.price.sku.mode == "on_demand"])
    billed = own.billed().cost
    ours = sum(_at_global(question, part) for part in sync.parts)
    load.share = (min(billed, ours), ours) if ours else (0, 1)


def _at_global(question: Question, part: object) -> int:
    return 0


def _scale(plans: Sequence[Planned], computed: int, billed: int) -> None:
    """Each lot's part of what was billed, so that they sum to it."""
    before = 0
    for planned in plans:
        after = before + planned.load.billed
        if computed:
            planned.billed = after * billed // computed - before * billed // computed
        planned.scale = (billed, computed)
        before = after
