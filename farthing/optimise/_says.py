"""What an advice says, and what could go wrong with it."""

from __future__ import annotations

from farthing.book import Book, Card, Resolved
from farthing.cache import BEST, POLICIES, Policy
from farthing.money import show
from farthing.optimise._choose import Taken, percent, unproved
from farthing.optimise._cold import ALONE
from farthing.optimise._lots import MOVED, PADDED, Load, kappas, losses, traced, way_of
from farthing.optimise._replay import Way
from farthing.optimise._scenarios import find

_POLICY = {
    "none": "place no markers",
    "end_5m": "mark the end of each prompt, for five minutes",
    "end_1h": "mark the end of each prompt, for an hour",
    "guarded_5m": "let the gateway mark each prompt with guards, for five minutes",
    "guarded_1h": "let the gateway mark each prompt with guards, for an hour",
    "adaptive": "let the gateway decide call by call what to mark, for how long, and what to keep warm",
    "adaptive_unpinged": "let the gateway decide call by call what to mark and for how long",
    "system_5m": "mark system alone, for five minutes",
    "system_1h": "mark system alone, for an hour",
    "system_1h_end_5m": "mark system for an hour and the end of each prompt for five minutes",
    "system_end_5m": "mark system and the end of each prompt, for five minutes",
    "system_end_1h": "mark system and the end of each prompt, for an hour",
}


def sentence(load: Load, one: Taken) -> str:
    """What to do, in a line."""
    parts = {
        "content": "write what changes from call to call last, so that what stays can be cached"
        if one.after.content == MOVED
        else "lengthen system prompts to the least that is cached",
        "model": f"use {one.after.model} for {load.lot.model}",
        "channel": "send what can wait as a batch"
        + (", where that costs less than the cache" if _mixed(load, one) else ""),
        "schedule": "send what can wait in the order of its prefixes",
        "cache": _POLICY.get(one.after.policy, one.after.policy),
        "endpoint": "call the global endpoint",
    }
    return ", and ".join(parts[lever] for lever in one.levers)


def risk(book: Book, load: Load, one: Taken) -> str:
    """What it may cost otherwise: quality, tokens, cache hits, waiting."""
    parts = {
        "content": _content,
        "model": _model,
        "channel": _batch,
        "schedule": _order,
        "cache": _cache,
        "endpoint": _endpoint,
    }
    said = [parts[lever](book, load, one) for lever in one.levers]
    if {"channel", "schedule"} & set(one.levers):
        said.append(_turns(load))
    return " ".join(filter(None, said))


def _content(book: Book, load: Load, one: Taken) -> str:
    if one.after.content == PADDED:
        return "Prompts get longer; what is added is counted as sent and cached. Answers may change: check a sample."
    return (
        "The model reads the same words in another place: check a sample of answers. `farthing lint` on the same logs "
        "shows each place, with --text what stood there."
    )


def _model(book: Book, load: Load, one: Taken) -> str:
    least, _, most = kappas(book, load.lot.model, one.after.model)
    missing = unproved(book, load, load.workload, one.after.model)
    said = [
        "Quality: a verdict of `farthing evaluate` is wanted." if missing else "Quality: proved not inferior."
    ]
    if least != most:
        said.append(
            f"Its tokenizer makes {least[0] / least[1]:g} to {most[0] / most[1]:g} tokens of one; how "
            "long answers get is not known."
        )
    _, mean, worst = losses(book, load, one.after)
    if worst:
        said.append(
            f"Caches are per model: what is alive when it changes is written anew, {show(mean)} at a mean moment and "
            f"{show(worst)} at the worst, which is taken off."
        )
    if load.lent != ALONE:
        said.append(
            "It shares prefixes with other workloads: what either kept alive for the other is in that."
        )
    minimum = book.models[one.after.model].cache_minimum(load.lot.platform, load.parts[0].cell.at.date())
    if minimum:
        said.append(
            f"It caches from {minimum:,} tokens on; prompts below that are counted here as sent plain."
        )
    return " ".join(said)


def _order(book: Book, load: Load, one: Taken) -> str:
    return "Answers come when the deadline allows; the first of each prefix is to be answered before the next is sent."


def _turns(load: Load) -> str:
    """How far it is known that no next turn hangs on what may wait."""
    may = sum(part.cell.calls for part in load.synchronous if part.deferrable)
    blind = may + len(load.waiting.turns) - load.waiting.calls
    said = []
    if blind > 0:
        said.append(
            f"{blind:,} of the {may:,} calls that may wait have no session id and no body: whether they are turns of "
            "conversations, each of which hangs on the answer before, cannot be told; give the logs with bodies "
            "(--bodies PATH)."
        )
    if load.waiting.doubtful:
        said.append(
            f"{load.waiting.doubtful:,} of them hold answers in their prompts, to calls that are not in the bodies: "
            "examples may wait, turns of a conversation may not."
        )
    return " ".join(said)


def _mixed(load: Load, one: Taken) -> bool:
    return one.after.batch and traced(load, one.after)


def _batch(book: Book, load: Load, one: Taken) -> str:
    said = "Answers come within 24 hours, and a batch on Bedrock has no cache." + _proved(load, one)
    model = one.after.model or load.lot.model
    for part in load.parts:
        if isinstance(part.cell.sku, Resolved):
            sku = part.cell.sku.sku._replace(model=model, mode="batch")
            card = find(book, sku, part.cell.at, part.cell.prompt, cached=False)
            if card and "batch_rate" in card.assumed:
                return (
                    f"{said} No batch price of {model} has been seen in the price list yet: half is assumed."
                )
    return said


def _proved(load: Load, one: Taken) -> str:
    """How far the choice of calls is from what no choice goes below, whatever its markers."""
    stage = load.stages.get(one.after.model)
    if stage is None or stage.batched is None or not traced(load, one.after):
        return ""
    way = way_of(load, one.after, stage.traffic)
    cost, least = stage.play(way).cost, stage.optimum(way.window_us, settled=way.settled).bound
    return (
        f" Replayed, it is {percent(cost - least, least)} over the proved optimum: the least that batch or cache, "
        "chosen call by call with hindsight, could cost with any markers and without pings."
    )


def _cache(book: Book, load: Load, one: Taken) -> str:
    stage = load.stages[one.after.model]
    today, after = stage.today().cost, stage.play(way_of(load, one.after, stage.traffic)).cost
    adaptive = stage.play(Way(POLICIES[BEST])).cost
    said = []
    if one.after.policy != "none" and stage.traffic.today != Policy():
        losing = _losing(load, one)
        if losing:
            said.append(losing)
    if adaptive < after and one.after.policy != BEST:
        said.append(
            f"Decided call by call ({BEST}) it would be {percent(today - adaptive, today)} less than today instead of "
            f"{percent(today - after, today)}: that needs a gateway."
        )
    return " ".join(said)


def _losing(load: Load, one: Taken) -> str:
    """How many sessions come to more, and by how much the worst of them does."""
    import numpy as np

    stage = load.stages[one.after.model]
    before = np.bincount(stage.traffic.cluster, weights=stage.today().each)
    after = np.bincount(
        stage.traffic.cluster, weights=stage.play(way_of(load, one.after, stage.traffic)).each
    )
    more = after - before
    worse = int((more > 0).sum())
    if not worse:
        return ""
    return f"{worse:,} of {len(more):,} sessions come to more, the worst by {show(int(more.max()))}."


def _endpoint(book: Book, load: Load, one: Taken) -> str:
    """By how many points the share of prompts that is read from a cache may fall before nothing is saved."""
    moved = [
        part
        for part in load.parts
        if isinstance(part.cell.price, Card) and part.cell.price.sku.endpoint != "global"
    ]
    reads = sum(part.cell.tokens.cache_read for part in moved)
    prompt = sum(part.cell.tokens.prompt for part in moved)
    rates = next((part.cell.price.rates for part in moved if isinstance(part.cell.price, Card)), None)
    if not reads or rates is None or rates.cache_write_5m <= rates.cache_read:
        return "It may run in any region."
    regional = sum(part.cell.cost for part in moved)
    # a tenth more for regional: 1/11 of it is saved, and each token written instead of read takes some of that
    tokens = regional // 11 // (10 * (rates.cache_write_5m - rates.cache_read) // 11)
    return (
        "It may run in any region, and caches may be met less often there: if reads fall from "
        f"{percent(reads, prompt)} of the prompt by {percent(tokens, prompt).removesuffix(' %')} points, "
        "nothing is saved."
    )
