"""The cheapest plan of a lot among all that its owner allows, and the steps that lead to it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from farthing.book import Book, Resolved, Unpriced
from farthing.cells import Question
from farthing.config import Workload
from farthing.money import show
from farthing.optimise import _replay
from farthing.optimise._advice import LEVERS_IN_ORDER, Interval
from farthing.optimise._lots import (
    BATCH_HOURS,
    BATCH_RECORDS,
    MOVED,
    PADDED,
    Choice,
    Load,
    cost,
    halves,
    kappas,
    limit,
    load_ratio,
    losses,
    main_sku,
    minutes,
    suggested,
)
from farthing.optimise._traffic import Traffic
from farthing.usage import Sku

NOT_NAMED = "nobody has named this workload in farthing.toml, and said what may be done to it"
TODAY = Choice()
GATEWAY = "outbox"  # the source of what passed it
FIELDS = dict(zip(LEVERS_IN_ORDER, ("content", "model", "batch", "ordered", "policy", "globe"), strict=True))


class Doubt(NamedTuple):
    """Why a lever is not in the plan, and of which kind: `permitted`, `resolved`, `final` or `calibrated`."""

    kind: str
    why: str


class Option(NamedTuple):
    """One lever at one setting; without doubts it may be part of a plan."""

    lever: str
    choice: Choice  # with that alone
    doubts: tuple[Doubt, ...]


class Taken(NamedTuple):
    """A step of the plan: the levers it takes, and the lot's choice after it."""

    levers: tuple[str, ...]
    before: Choice
    after: Choice


def options(book: Book, load: Load, question: Question, days: int) -> list[Option]:
    """Every lever at every setting that could be worth something here, with what stands against it."""
    found = [
        *_contents(load),
        *_models(book, load),
        *_batches(book, load, days),
        *_schedules(load),
        *_policies(load),
        *_endpoints(book, load),
    ]
    return [
        one
        for one in found
        if one.doubts or one.lever in ("content", "schedule") or cost(book, load, one.choice) != load.billed
    ]


def best(book: Book, load: Load, found: Sequence[Option], *, forced: bool = False) -> Choice:
    """The cheapest of all combinations; of equals the one that changes least. `forced` passes doubts of owners over."""
    usable = [one for one in found if not _against(one, forced=forced)]
    by_lever: dict[str, list[Choice]] = {name: [] for name in LEVERS_IN_ORDER}
    for one in usable:
        by_lever[one.lever].append(one.choice)
    chosen, least = TODAY, load.billed
    for content, model, batch, order, policy, globe in itertools.product(
        *([TODAY, *choices] for choices in by_lever.values())
    ):
        choice = Choice(model.model, batch.batch, order.ordered, policy.policy, globe.globe, content.content)
        if choice.replayed and choice.model not in load.stages:
            continue
        picos = cost(book, load, choice, forced=forced)
        if picos < least and not unresolved(load, choice):
            chosen, least = choice, picos
    return chosen


def _against(one: Option, *, forced: bool) -> list[Doubt]:
    return [doubt for doubt in one.doubts if not (forced and doubt.kind in ("permitted", "final"))]


# --- steps ---------------------------------------------------------------------------------------------------------


def steps(book: Book, load: Load, chosen: Choice) -> list[Taken]:
    """The plan in the order of the levers. A step that saves nothing by itself is taken with the next."""
    taken: list[Taken] = []
    before = TODAY
    for lever in LEVERS_IN_ORDER:
        after = with_(before, chosen, lever)
        if after != before:
            taken.append(Taken((lever,), before, after))
        before = after
    while len(taken) > 1:
        at = next((i for i, one in enumerate(taken) if _loses(book, load, one)), None)
        if at is None:
            break
        first = min(at, len(taken) - 2)
        one, two = taken[first : first + 2]
        taken[first : first + 2] = [Taken(one.levers + two.levers, one.before, two.after)]
    return taken


def with_(plan: Choice, choice: Choice, lever: str) -> Choice:
    """The plan with one lever as in the choice."""
    name = FIELDS[lever]
    return plan._replace(**{name: getattr(choice, name)})


def _loses(book: Book, load: Load, one: Taken) -> bool:
    return cost(book, load, one.after) >= cost(book, load, one.before)


def interval(book: Book, load: Load, choice: Choice, *, forced: bool = False) -> Interval:
    """What the lot comes to: no end is below its bound."""
    low, mid, high = (cost(book, load, choice, at, forced=forced) for at in range(3))
    return Interval(min(low, mid), mid, max(mid, high))


def saved(book: Book, load: Load, one: Taken, *, forced: bool = False) -> Interval:
    """By how much a step makes it less, at both ends of what is not certain."""
    each = [
        cost(book, load, one.before, at, forced=forced) - cost(book, load, one.after, at, forced=forced)
        for at in range(3)
    ]
    return Interval(min(each), each[1], max(each))


def floor(book: Book, load: Load, found: Sequence[Option]) -> int:
    """The least that any plan could cost: with any markers, and the models, channels and endpoints that are allowed."""
    usable = [one for one in found if not _against(one, forced=False)]
    models = ["", *(one.choice.model for one in usable if one.lever == "model")]
    batch = any(one.lever == "channel" for one in usable)
    globe = any(one.lever == "endpoint" for one in usable)
    order = any(one.lever == "schedule" for one in usable)
    contents = ["", *(one.choice.content for one in usable if one.lever == "content")]
    return min(
        _least(book, load, Choice(model, batch, globe=globe, content=content), order=order)
        for model in models
        for content in contents
    )


def _least(book: Book, load: Load, choice: Choice, *, order: bool) -> int:
    """The better of two bounds: one of counts alone, one of the trace as far as it goes."""
    least = limit(book, load, choice, free=True)
    stage = load.stages.get(choice.model)
    if (
        stage
        and not order
        and choice.content != PADDED
        and load.stages[""].calibrated()
        and (today := stage.today().cost)
    ):
        part, whole = load.share
        sync, rest = halves(book, load, choice._replace(batch=False, content=""), 0)
        bound = stage.least(batch=choice.batch, settled=choice.content == MOVED)
        traced = sync * part * bound // (whole * today)
        least = max(least, traced + rest + max(0, least - rest) * (whole - part) // whole)
    if choice.replayed and stage is None:
        return least
    return min(least, cost(book, load, choice, 0))


# --- levers at their settings --------------------------------------------------------------------------------------


def _contents(load: Load) -> Iterator[Option]:
    """Prompts written so that more of them can be cached, where bodies tell what keeps them from it."""
    stage = load.stages.get("")
    if stage is None or stage.traffic.told_by != "bodies":
        return
    for content in (MOVED, PADDED):
        if content == MOVED and stage.traffic.settled is None:
            continue
        alone = load_ratio(load, Choice(content=content))
        marked = min(
            ((load_ratio(load, Choice(policy=name, content=content)), name) for name in _replay.BY_CLIENT),
            key=lambda each: each[0].mid,
        )[0]
        unmoved = min(load_ratio(load, Choice(policy=name)).mid for name in _replay.BY_CLIENT)
        if alone.mid >= alone.whole and marked.mid >= min(unmoved, alone.whole):
            continue  # neither as it is marked today nor marked otherwise
        ratio = alone if alone.mid < alone.whole else marked
        yield Option("content", Choice(content=content), tuple(_of_replay(load, ratio)))


def _models(book: Book, load: Load) -> Iterator[Option]:
    sku = main_sku(load)
    named = load.workload
    allowed = canonical(book, named, sku)
    for model in dict.fromkeys([*allowed, *suggested(book, sku)]):
        if model == load.lot.model or model not in book.models:
            continue
        choice = Choice(model)
        doubts = []
        if named is None:
            doubts.append(Doubt("permitted", NOT_NAMED))
        elif model not in allowed:
            doubts.append(Doubt("permitted", f"`models` of the workload does not name {model}"))
        if why := unproved(book, load, named, model):
            doubts.append(Doubt("final", why))
        spread = [load.billed - cost(book, load, choice, at) for at in range(3)]
        if spread[1] <= 0 and model not in allowed:
            continue
        if min(spread) < 0:
            doubts.append(Doubt("resolved", _either(book, load, choice)))
        yield Option("model", choice, tuple(doubts))


def _either(book: Book, load: Load, choice: Choice) -> str:
    """Why a model may save or lose."""
    least, _, most = kappas(book, load.lot.model, choice.model)
    if least != most:
        return (
            f"it saves or loses, by how many tokens its tokenizer makes of a text ({least[0] / least[1]:g} to "
            f"{most[0] / most[1]:g} for one): count a sample with CountTokens"
        )
    return (
        f"it saves or loses, by the moment: at the worst {show(losses(book, load, choice)[2])} of cached prompts are "
        "written anew; change it when few sessions are open"
    )


def canonical(book: Book, named: Workload | None, sku: Sku) -> list[str]:
    found = []
    for name in named.models if named else ():
        place = book.resolve(name, platform=sku.platform)
        if not isinstance(place, Unpriced):
            found.append(place.sku.model)
    return found


def unproved(book: Book, load: Load, named: Workload | None, model: str) -> str:
    """Why a change to this model is not final: "" if a verdict says that it is as good."""
    own, workload = load.lot.model, load.lot.workload
    ask = (
        f"farthing evaluate run QUESTIONS --from {own} --to {model} --workload {workload} --out verdict.json"
    )
    if named is None or not named.gate:
        return f"its quality is not proved: {ask}"
    try:
        verdict: Mapping[str, Any] = json.loads(Path(named.gate).read_text(encoding="utf-8"))
        said = str(verdict.get("verdict"))
    except (OSError, ValueError, AttributeError):
        return f"{named.gate} is no verdict: {ask}"
    if verdict.get("workload") and verdict["workload"] != workload:
        return f"{named.gate} is of the workload {verdict['workload']}: {ask}"
    for side, wanted in (("from", own), ("to", model)):
        place = book.resolve(str(verdict.get(side) or ""), platform=load.lot.platform)
        if not isinstance(place, Resolved) or place.sku.model != wanted:
            return f"{named.gate} does not compare {own} with {model}: {ask}"
    return "" if said == "not inferior" else f"{named.gate} says: {said}"


def _batches(book: Book, load: Load, days: int) -> Iterator[Option]:
    choice = Choice(batch=True)
    if cost(book, load, choice) >= load.billed:
        return
    named = load.workload
    doubts = []
    if named is None:
        doubts.append(Doubt("permitted", NOT_NAMED))
    elif minutes(named.deadline) < BATCH_HOURS * 60:
        had = f"is {named.deadline}" if named.deadline else "says at once"
        doubts.append(
            Doubt(
                "permitted",
                f"`deadline` of the workload {had}: AWS gives a batch {BATCH_HOURS} hours at least",
            )
        )
    eligible = sum(part.cell.calls for part in load.parts if part.deferrable)
    window = max(BATCH_HOURS * 60, minutes(named.deadline) if named else 0)
    if eligible * window < BATCH_RECORDS * days * 1440:
        doubts.append(
            Doubt(
                "resolved",
                f"a job has {BATCH_RECORDS} records at least, and it makes "
                f"{eligible * window // (days * 1440):,} calls in {window // 60} hours",
            )
        )
    yield Option("channel", choice, tuple(doubts))


def _policies(load: Load) -> Iterator[Option]:
    if "" not in load.stages:
        return
    contents = ["", *(choice.choice.content for choice in _contents(load))]
    own = load.sources() == {"claude_code"}
    passed = sum(part.cell.calls for part in load.parts if part.cell.source == GATEWAY)
    live = _replay.BY_GATEWAY if 10 * passed >= 9 * load.calls else ()
    for name in (*(_replay.BY_SETTINGS if own else _replay.BY_CLIENT), *live):
        choice = Choice(policy=name)
        each = (load_ratio(load, choice._replace(content=content)) for content in contents)
        ratio = min(each, key=lambda found: found.mid)
        if ratio.mid >= ratio.whole:  # today's own, or worse
            continue
        yield Option("cache", choice, tuple(_of_replay(load, ratio)))


def _of_replay(load: Load, ratio: _replay.Ratio) -> Iterator[Doubt]:
    """What stands against a lever of caching that was replayed."""
    stage, named = load.stages[""], load.workload
    if named is None:
        yield Doubt("permitted", NOT_NAMED)
    elif not named.cache:
        yield Doubt("permitted", "`cache = false` in the workload")
    if not stage.calibrated():
        part, whole = stage.error()
        yield Doubt(
            "calibrated",
            f"the replay of today's caching is {percent(part, whole)} off what was billed, and 3 % is allowed: "
            + mend(stage.traffic.told_by),
        )
    yield from _of_sample(stage.traffic, ratio)


def _of_sample(traffic: Traffic, ratio: _replay.Ratio, of: str = "") -> Iterator[Doubt]:
    """Whether there are enough sessions, and all that they may stand for comes to less."""
    clusters = len(set(traffic.cluster.tolist()))
    if clusters < _replay.FEWEST or ratio.high >= ratio.whole:
        seen = f"{traffic.sessions:,} sessions" if traffic.sessions else f"{clusters:,} hours"
        why = "tell too little" if clusters < _replay.FEWEST else "show that it may as well cost more"
        yield Doubt("resolved", f"not resolved: {seen} {why}{of}; {_replay.ENOUGH} would tell more")


def unresolved(load: Load, choice: Choice) -> tuple[Doubt, ...]:
    """What stands against caching together with another model: its minimum and its rates may turn what pays at the
    own one, so that the sample is asked again, under the rates of both."""
    stage = load.stages.get(choice.model)
    if not choice.model or not choice.replayed or stage is None:
        return ()
    return tuple(
        _of_sample(stage.traffic, load_ratio(load, choice._replace(batch=False)), f" with {choice.model}")
    )


def _schedules(load: Load) -> Iterator[Option]:
    """Calls that may wait, sent in the order of their prefixes: worth something only with markers."""
    stage = load.stages.get("")
    if stage is None or not stage.traffic.deferrable.any() or not stage.calibrated():
        return
    choice = Choice(ordered=True)
    ways = (choice._replace(policy=name) for name in (TODAY.policy, *_replay.BY_CLIENT))
    doubts = list(_of_replay(load, min((load_ratio(load, way) for way in ways), key=lambda found: found.mid)))
    if load.workload and not minutes(load.workload.deadline):
        doubts.append(Doubt("permitted", "`deadline` of the workload says at once"))
    yield Option("schedule", choice, tuple(doubts))


def mend(told_by: str) -> str:
    """What would bring a replay nearer to the bill."""
    if told_by == "counts":
        return "counts alone do not tell the prefixes here; give the logs with bodies (--bodies PATH)"
    return "some calls are not in the bodies, or are cached in several ways: give all logs, or name its parts"


def _endpoints(book: Book, load: Load) -> Iterator[Option]:
    choice = Choice(globe=True)
    if cost(book, load, choice, forced=True) >= load.billed:
        return
    doubts = []
    if load.workload is None:
        doubts.append(Doubt("permitted", NOT_NAMED))
    elif not any(part.globe for part in load.parts):
        named = {"global", "*"} & set(load.workload.allow)
        doubts.append(
            Doubt(
                "permitted",
                "[[residency]] keeps these calls where they are"
                if named
                else "`allow` of the workload does not name global",
            )
        )
    yield Option("endpoint", choice, tuple(doubts))


def percent(part: int, whole: int) -> str:
    """With one place, rounded half up, in integers."""
    if not whole:
        return ""
    tenths = (abs(part) * 2000 + whole) // (2 * whole)
    return f"{'-' if part < 0 and tenths else ''}{tenths // 10}.{tenths % 10} %"
