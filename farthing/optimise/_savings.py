"""All of it put together: the ledger's lots, their traces, the plan of each, and the sums."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from farthing.book import Book, Resolved
from farthing.cache import DOCUMENTED
from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.money import show
from farthing.optimise import _replay, _rules
from farthing.optimise._advice import LEVERS_IN_ORDER, Advice, Interval, Plan, Step, Worked
from farthing.optimise._changes import change
from farthing.optimise._choose import (
    TODAY,
    Doubt,
    Option,
    Taken,
    best,
    canonical,
    floor,
    interval,
    options,
    percent,
    saved,
    steps,
    unresolved,
    with_,
)
from farthing.optimise._cold import ALONE, split
from farthing.optimise._lent import Lot
from farthing.optimise._lots import (
    Choice,
    Load,
    cost,
    limit,
    loads,
    losses,
    main_sku,
    optimum,
    suggested,
    traced,
)
from farthing.optimise._says import risk, sentence
from farthing.optimise._scenarios import find
from farthing.optimise._traffic import Traffic, from_bodies, from_counts
from farthing.traces import Source

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
    optimum: int | None = None  # of batch or cache, in billed money

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
    heading: str = "",
) -> Plan:
    """The cheapest plan that the owners of workloads allow. `billed` is what a statement says that all of it cost."""
    found, unpriced = loads(ledger, question)
    notes = [f"{unpriced:,} calls without a price are left out"] if unpriced else []
    faults: list[str] = []
    traffic = [from_counts(ledger, question, {load.lot.workload for load in found})]
    if bodies:
        told, bad, left = from_bodies(
            ledger, question, bodies, key, {load.lot for load in found}.__contains__
        )
        traffic.append(told)
        if turns := frozenset().union(*(one.waiting.turns for one in told.values())):
            found, _ = loads(ledger, question, turns)
        for load in found:
            load.waiting = told[load.lot].waiting if load.lot in told else load.waiting
        notes += [f"{count:,} requests of --bodies left out: {why}" for why, count in left.most_common()]
        faults += bad
    used = ledger.days()
    since, until = question.span()
    since, until = (max(since, used[0]), min(until, used[1])) if used else (since, until)
    last = until - timedelta(microseconds=1)
    days = max(1, -(-(until - since) // timedelta(days=1)))
    for load in found:
        load.span_us = (until - since) // timedelta(microseconds=1)
        load.lent = max(split(load.lot, told) for told in traffic)
    lots = [(load, [{load.lot: told[load.lot]} for told in traffic if load.lot in told]) for load in found]
    plans = ledger.mapped(partial(_of_lot, question, last, days), lots)
    _together(question, plans, days)
    computed = sum(load.billed for load in found)
    _scale(plans, computed, computed if billed is None else billed)
    for planned in plans:
        _advise(question, planned)
    return _plan(question, plans, computed, billed, heading, (since, last), notes, faults)


def _of_lot(
    question: Question, last: datetime, days: int, lot: tuple[Load, Sequence[Mapping[Lot, Traffic]]]
) -> Planned:
    """A lot by itself: what it comes to under each policy and model, and the plan of it."""
    load, traffic = lot
    _set_stage(question, load, traffic, last)
    return _planned(question, load, days)


def _planned(question: Question, load: Load, days: int) -> Planned:
    tried = options(question.book, load, question, days)
    chosen = best(question.book, load, tried)
    return Planned(load, tried, chosen, steps(question.book, load, chosen))


def _together(question: Question, plans: list[Planned], days: int) -> None:
    """Lots that share prefixes lose nothing by it if all of them go to the same model."""
    lots: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, planned in enumerate(plans):
        lots[planned.load.lot.platform, planned.load.lot.model].append(at)
    for group in lots.values():
        load = plans[group[0]].load
        if not plans[group[0]].chosen.model or len({plans[at].chosen.model for at in group}) > 1:
            continue
        for at in group:
            load = plans[at].load
            if load.lent != ALONE:
                load.lent = ALONE
                load.costs.clear()
                load.losses.clear()
                plans[at] = _planned(question, load, days)


def _set_stage(
    question: Question, load: Load, traffic: Sequence[Mapping[Lot, Traffic]], last: datetime
) -> None:
    """The lot's trace under the rates of its own model, and of those that it could be moved to.

    Of two traces it is the one whose replay is nearer to the bill.
    """
    book, sku = question.book, main_sku(load)._replace(mode="on_demand", zone="")

    def play(told: Traffic, model: str) -> _replay.Stage | None:
        of = sku._replace(model=model or sku.model)
        made = _replay.stage(book, told, of, last)
        return made or _replay.stage(book, told, of._replace(endpoint="global"), last)

    found = [play(told[load.lot], "") for told in traffic if load.lot in told]
    played = [stage for stage in found if stage]
    if not played:
        return
    own = load.stages[""] = min(played, key=_replay.off)
    for model in dict.fromkeys((*canonical(book, load.workload, sku), *suggested(book, sku))):
        if made := play(own.traffic, model):
            load.stages[model] = made
    whole = 0
    for part in load.parts:
        cell = part.cell
        if isinstance(cell.sku, Resolved) and cell.sku.sku.mode == "on_demand":
            card = find(book, sku, cell.at, cell.prompt, cell.tokens.cached > 0)
            whole += cell.tokens @ card.rates if card else cell.cost
    traced = own.billed().cost * own.traffic.every
    load.share = (min(traced, whole), whole) if whole else (0, 1)


def _scale(plans: Sequence[Planned], computed: int, billed: int) -> None:
    """Each lot's part of what was billed, so that they sum to it."""
    before = 0
    for planned in plans:
        after = before + planned.load.billed
        if computed:
            planned.billed = after * billed // computed - before * billed // computed
        planned.scale = (billed, computed)
        before = after


# --- the advice of a lot -------------------------------------------------------------------------------------------


def _advise(question: Question, planned: Planned) -> None:
    book, load = question.book, planned.load
    found = interval(book, load, planned.chosen)
    planned.bound = max(
        0, planned.billed - planned.money(load.billed - min(floor(book, load, planned.options), found.mid))
    )
    planned.advised = _less(planned, found)
    everything = best(book, load, planned.options, forced=True)
    planned.worth = _less(planned, interval(book, load, everything, forced=True), 0)
    for one in planned.taken:
        planned.advice.append(_taken(question, planned, one))
    planned.advice += _not_taken(question, planned)


def _less(planned: Planned, found: Interval, least: int | None = None) -> Interval:
    """A level in billed money: what was billed, less what is saved. No end of what is allowed is below the bound."""
    computed, bound = planned.load.billed, planned.bound if least is None else least
    low, mid, high = (
        max(bound, planned.billed - planned.money(computed - level))
        for level in (found.low, found.mid, found.high)
    )
    return Interval(low, mid, high)


def _taken(question: Question, planned: Planned, one: Taken) -> Advice:
    load = planned.load
    step = _step(question.book, planned, one)
    advised = _less(planned, interval(question.book, load, one.after))
    return _made(question, planned, one, step, advised, ())


def _step(book: Book, planned: Planned, one: Taken) -> Interval:
    """What a step saves in billed money: the levels before and after it are rounded, so that the steps add up."""
    load = planned.load
    found = planned.spread(saved(book, load, one))
    before, after = (
        planned.money(load.billed - cost(book, load, choice)) for choice in (one.before, one.after)
    )
    mid = after - before
    return Interval(min(found.low, mid), mid, max(found.high, mid))


def _not_taken(question: Question, planned: Planned) -> Iterator[Advice]:
    """What each other lever would be worth on top of the plan, at its best setting; none that is worth nothing."""
    book, load, plan = question.book, planned.load, planned.chosen
    done = {lever for one in planned.taken for lever in one.levers}
    for lever in LEVERS_IN_ORDER:
        found = [one for one in planned.options if one.lever == lever and lever not in done]
        settings = [(after := with_(plan, one.choice, lever), _doubts(load, one, after)) for one in found]
        priced = [
            (cost(book, load, plan) - cost(book, load, after, forced=True), at, after, doubts)
            for at, (after, doubts) in enumerate(settings)
            if doubts and (not after.replayed or after.model in load.stages)
        ]
        if not priced:
            continue
        worth, _, after, doubts = max(priced, key=lambda each: (each[0], -each[1]))
        if worth > 0:
            taken = Taken((lever,), plan, after)
            withheld = any(doubt.kind == "calibrated" for doubt in doubts)
            step = None if withheld else planned.spread(saved(book, load, taken, forced=True))
            advised = None if withheld else _less(planned, interval(book, load, after, forced=True), 0)
            yield _made(question, planned, taken, step, advised, doubts)


def _doubts(load: Load, one: Option, after: Choice) -> tuple[Doubt, ...]:
    """What stands against a lever on top of the plan: what does anyway, and with the plan's model."""
    if one.lever not in ("content", "schedule", "cache"):
        return one.doubts
    known = {doubt.kind for doubt in one.doubts}
    return (*one.doubts, *(doubt for doubt in unresolved(load, after) if doubt.kind not in known))


def _made(
    question: Question,
    planned: Planned,
    one: Taken,
    step: Interval | None,
    advised: Interval | None,
    doubts: Sequence[Doubt],
) -> Advice:
    load, lot = planned.load, planned.load.lot
    kinds = {doubt.kind for doubt in doubts}
    stage = load.stages.get("")
    replayed = bool({"content", "cache", "schedule"} & set(one.levers)) or (
        "channel" in one.levers and traced(load, one.after)
    )
    room = planned.billed - planned.bound
    found = optimum(question.book, load, one.after) if "channel" in one.levers else None
    could = cost(question.book, load, one.before) - found if found is not None else 0
    return Advice(
        workload=lot.workload,
        model=lot.model,
        lever=" + ".join(one.levers),
        says=sentence(load, one),
        billed=planned.billed,
        replayed=planned.money(_replayed(load)) if replayed and stage and stage.calibrated() else None,
        advised=advised,
        saved=step,
        bound=planned.bound,
        captured=percent(step.mid, room) if step and step.mid <= room else "",
        calibration=percent(*stage.error()) if replayed and stage else "",
        resolved=not kinds & {"resolved", "calibrated"},
        permitted="permitted" not in kinds,
        final="final" not in kinds,
        counts=not doubts,
        why_not="; ".join(doubt.why for doubt in doubts),
        exact=not replayed and (step is None or step.low == step.high),
        semantics=SEMANTICS if replayed else "",
        evidence=f"farthing by day,endpoint --where workload={_quoted(lot.workload)} --where model={lot.model}",
        sessions=stage.traffic.sessions if replayed and stage else 0,
        risk=risk(question.book, load, one),
        change=change(question.book, load, one.levers[0], one.before, one.after),
        cold_cache=planned.money(
            losses(question.book, load, one.after)[1] - losses(question.book, load, one.before)[1]
        ),
        optimum=None if found is None else planned.billed - planned.money(load.billed - found),
        captured_of_optimum=percent(step.mid, planned.money(could)) if step and could > 0 else "",
    )


def _quoted(name: str) -> str:
    return f"'{name}'" if set(name) & set(" *?()&;$") else name


def _replayed(load: Load) -> int:
    """Today's configuration: what its trace comes to when replayed. What has none that can be believed, as billed."""
    stage = load.stages.get("")
    if stage is None or not stage.calibrated():
        return load.billed
    part, whole = load.share
    off, of = stage.error()
    sync = sum(one.cell.cost for one in load.synchronous)
    return load.billed + (sync * part * off // (whole * of) if of else 0)


# --- sums ----------------------------------------------------------------------------------------------------------


def _plan(
    question: Question,
    plans: Sequence[Planned],
    computed: int,
    billed: int | None,
    heading: str,
    span: tuple[datetime, datetime],
    notes: list[str],
    faults: list[str],
) -> Plan:
    advice = sorted(
        (one for planned in plans for one in planned.advice),
        key=lambda one: (not one.counts, -(one.saved.mid if one.saved else 0), one.workload, one.model),
    )
    whole = computed if billed is None else billed
    rules = _rules.rules(question.book, [(planned.load, planned.options) for planned in plans])
    return Plan(
        heading=heading
        or _heading(plans, "the rates of your offers" if question.book.offers else "list prices"),
        billed=whole,
        computed=computed,
        replayed=sum(planned.money(_replayed(planned.load)) for planned in plans),
        advised=_sum(planned.advised for planned in plans),
        bound=sum(planned.bound for planned in plans),
        waterfall=_waterfall(advice),
        advice=advice,
        workloads=_workloads(question, plans),
        rules=rules,
        quarter=_rules.quarter(
            whole, _sum(planned.advised for planned in plans), _sum(p.worth for p in plans)
        ),
        semantics=SEMANTICS,
        since=f"{span[0]:%Y-%m-%d}",
        until=f"{span[1]:%Y-%m-%d}",
        notes=notes,
        faults=faults,
    )


def _heading(plans: Sequence[Planned], prices: str) -> str:
    """How far the money is to be believed: transcripts of the direct API may be a subscription's."""
    listed = {
        planned.load.sources() == {"claude_code"} and planned.load.lot.platform == "anthropic"
        for planned in plans
    }
    return (
        "list value, not billed" if listed == {True} else f"computed at {prices}, not proved against a bill"
    )


def _sum(found: Iterable[Interval]) -> Interval:
    each = list(found)
    return Interval(sum(one.low for one in each), sum(one.mid for one in each), sum(one.high for one in each))


def _waterfall(advice: Iterable[Advice]) -> list[Step]:
    """In the order of the levers; what pays only together stands under the first of them."""
    steps_: dict[str, list[Interval]] = defaultdict(list)
    for one in advice:
        if one.counts and one.saved:
            steps_[one.lever].append(one.saved)
    order = {name: at for at, name in enumerate(LEVERS_IN_ORDER)}
    return [
        Step(lever, _sum(found))
        for lever, found in sorted(
            steps_.items(), key=lambda item: [order[name] for name in item[0].split(" + ")]
        )
    ]


def _workloads(question: Question, plans: Sequence[Planned]) -> list[Worked]:
    groups: dict[str, list[Planned]] = defaultdict(list)
    for planned in plans:
        groups[planned.load.lot.workload].append(planned)
    return sorted(
        (_worked(question, name, found) for name, found in groups.items()),
        key=lambda one: (-one.billed, one.workload),
    )


def _worked(question: Question, name: str, found: Sequence[Planned]) -> Worked:
    named = question.config.workloads.get(name)
    traced = sum(planned.load.billed * planned.load.share[0] // planned.load.share[1] for planned in found)
    untraced = [planned for planned in found if not planned.load.stages]
    notes = []
    if untraced:
        most = sum(
            planned.billed - planned.money(planned.load.billed - _read(question, planned))
            for planned in untraced
        )
        notes.append(
            f"cache: not resolved: no prefixes known of {', '.join(p.load.lot.model for p in untraced)}; were every "
            f"prompt read from a cache, it would come to {show(most)}: give the logs with bodies, --bodies PATH"
        )
    notes += [
        f"{len(turns):,} calls without a session id are turns of conversations: one prompt goes on from all of another "
        "and its answer; they may not wait, so none of them is batched or held"
        for planned in found
        if (turns := planned.load.waiting.turns)
    ]
    notes += [
        note
        for planned in found
        for stage in [planned.load.stages.get("")]
        if stage
        for note in stage.traffic.notes
    ]
    return Worked(
        workload=name,
        owner=named.owner if named else "",
        named=named is not None,
        calls=sum(planned.load.calls for planned in found),
        models=[planned.load.lot.model for planned in found],
        billed=sum(planned.billed for planned in found),
        replayed=sum(planned.money(_replayed(planned.load)) for planned in found),
        advised=_sum(planned.advised for planned in found),
        bound=sum(planned.bound for planned in found),
        worth=_sum(planned.worth for planned in found),
        traced=percent(traced, sum(planned.load.billed for planned in found)),
        notes=notes,
        allow=_allow(question, name, found),
    )


def _read(question: Question, planned: Planned) -> int:
    return limit(question.book, planned.load, TODAY, free=True)


def _allow(question: Question, name: str, found: Sequence[Planned]) -> str:
    """The lines of farthing.toml that permit what is not permitted."""
    wanted: dict[str, Advice] = {}
    models = []
    for planned in found:
        for one in planned.advice:
            if not one.permitted or not one.final:
                wanted.setdefault(one.lever, one)
                if one.lever == "model":
                    models.append(one.change.data["to_model"])
    if not wanted:
        return ""
    lines = []
    if name not in question.config.workloads:
        kind, _, member = name.partition(":")
        members = {
            "profile": "profiles",
            "project": "projects",
            "role": "principals",
            "principal": "principals",
        }
        member = f"*:assumed-role/{member}/*" if kind == "role" else member
        lines.append(f"[workloads.{_bare(member or kind)}]")
        lines.append(f'{members.get(kind, "accounts")} = ["{member}"]')
    else:
        lines.append(f"[workloads.{_bare(name)}]")
    lines += ['deadline = "24h"'] if "channel" in wanted else []
    lines += ['allow = ["global"]'] if "endpoint" in wanted else []
    if models:
        lines += [f"models = {json.dumps(sorted(set(models)))}", 'gate = "verdict.json"']
    return "\n".join(lines)


def _bare(name: str) -> str:
    """A key of TOML: the last word of a name."""
    short = re.sub(
        r"[^A-Za-z0-9_-]+", "-", name.replace("*", "").strip("/").rpartition("/")[2] or name
    ).strip("-")
    return short or "unnamed"
