"""What a change of model loses in the cache: held against machines that are started cold, moment by moment."""

import random
from datetime import timedelta

import numpy as np
import pytest

from farthing.cache import FIVE_US, HOUR_US, Cards, Policy, cold, radix, select, simulate
from farthing.cells import Question
from farthing.config import Config, Workload
from farthing.ledger import Ledger
from farthing.meters import Vector
from farthing.optimise import savings
from farthing.optimise._lent import Lot, Sharer, lent
from tests.agents import MINUTE, role, sessions, singles
from tests.test_cache_policies import MINIMUM, SECOND, SONNET, trace_of

SONNET_ID, OPUS_ID = "us.anthropic.claude-sonnet-4-6", "us.anthropic.claude-opus-4-6-v1"
GATE = '{"verdict": "not inferior", "from": "claude-opus-4-6", "to": "claude-sonnet-4-6"}'


def conversations(seed):
    """Some with a system prompt in common; pauses within a life, and beyond it."""
    luck = random.Random(seed)
    asked = []
    for session in range(4):
        at, path = luck.randint(0, 300), ["shared 1", "shared 2"]
        for turn in range(luck.randint(2, 5)):
            path = [*path, f"{session}.{turn}"]
            asked.append((at, 0, path, 2))
            at += luck.choice((20, 100, 280, 400, 900))
    return trace_of(asked, size=2_000)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("policy", [Policy(end_ttl_us=FIVE_US), Policy(HOUR_US, HOUR_US), Policy(FIVE_US)])
def test_it_is_what_machines_that_start_cold_are_billed_more(policy, seed):
    trace = radix(conversations(seed))
    warm = simulate(trace, policy, SONNET, MINIMUM).each
    first, last = int(trace.at_us[0]), int(trace.at_us[-1])
    lost = []
    for moment in range(first + SECOND, last + SECOND, SECOND):
        rest = trace.at_us >= moment
        anew = simulate(select(trace, rest), policy, SONNET, MINIMUM).cost
        lost.append(anew - Vector(*(int(column[rest].sum()) for column in warm)) @ SONNET)
    found = cold(trace, policy, Cards.one(SONNET, trace), MINIMUM)
    assert found.mean == sum(lost) // len(lost)
    assert found.most == max(lost) > 0
    # over twice the days it happens to hit as much half as often, and no worse
    longer = cold(trace, policy, Cards.one(SONNET, trace), MINIMUM, 2 * (last - first))
    assert longer == (sum(lost) // (2 * len(lost)), found.most)


def test_without_markers_there_is_nothing_to_lose():
    trace = conversations(1)
    assert cold(trace, Policy(), Cards.one(SONNET, trace), MINIMUM) == (0, 0)
    assert cold(
        select(trace, np.zeros(trace.requests, bool)), Policy(0, FIVE_US), Cards.one(SONNET, trace), 1
    ) == (0, 0)


# --- what workloads keep alive for each other ------------------------------------------------------------------------


def test_what_only_another_workload_kept_alive_is_borrowed():
    """Two ask by turns, every eight minutes each: a prefix of both is always alive, and neither alone would keep it."""
    own, other = Lot("a", "bedrock", "m"), Lot("b", "bedrock", "m")
    calls, both = [], []
    alone: dict[Lot, list[tuple[int, int, list[str], int]]] = {own: [], other: []}
    for n in range(30):
        lot = (own, other)[n % 2]
        path = [("tools", 3_000), ("system", 1_000), (f"question {n}", 500)]
        both.append((240 * n, 0, [name for name, _ in path], 2))
        alone[lot].append(both[-1])
        tokens = Vector(500, 9, 4_000) if n else Vector(500, 9, 0, 4_000)
        calls.append(Sharer(lot, 240 * n * SECOND, ("account",), path, tokens))
    found = lent(calls)

    def reads(asked):
        made = trace_of(asked, size=2_000)  # a prefix of 4,000 tokens too
        return simulate(made, Policy(FIVE_US), SONNET, MINIMUM).tokens.cache_read

    assert sum(map(reads, alone.values())) == 0
    assert found == {own: {other: 14 * 4_000}, other: {own: 15 * 4_000}}
    assert reads(both) == 29 * 4_000
    elsewhere = [one._replace(space=(one.lot.workload,)) for one in calls]
    assert lent(elsewhere) == {}


def test_of_three_workloads_nobody_is_missed_alone():
    lots = [Lot(name, "bedrock", "m") for name in "abc"]
    calls = [
        Sharer(lots[n % 3], 120 * n * SECOND, (), [("", 4_000)], Vector(0, 9, 4_000 * (n > 0)))
        for n in range(30)
    ]
    found = lent(calls)
    assert found[lots[0]] == {None: 9 * 4_000}
    assert (
        lent([one._replace(lot=lots[n % 3]._replace(model=str(n % 3))) for n, one in enumerate(calls)]) == {}
    )


# --- in a plan -------------------------------------------------------------------------------------------------------


def plan_of(tmp_path, usages, names, models=("claude-sonnet-4-6",)):
    """All of these workloads may go to these models, and their quality is proved."""
    (tmp_path / "gate.json").write_text(GATE)
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(usages)
    config = Config(workloads={
        name: Workload(principals=(role(name),), models=models, gate=str(tmp_path / "gate.json"), cache=False)
        for name in names
    })  # fmt: skip
    days = ledger.days()
    assert days is not None
    return savings(ledger, Question(config=config)), (days[1] - days[0]) // timedelta(microseconds=1)


def test_a_change_of_model_is_worth_less_by_what_is_written_anew(tmp_path):
    usages = list(sessions("agents", OPUS_ID, (0.5, 2, 20), 30))
    plan, span_us = plan_of(tmp_path, usages, ["agents"])
    one = next(each for each in plan.advice if each.lever == "model")
    assert one.counts
    alive = 0  # tokens and microseconds: each read ends a gap in which a switch would have lost it
    before: dict[str, int] = {}
    opus = sonnet = Vector()
    for usage in usages:
        ((facts, tokens),) = usage.parts
        alive += tokens[2] * (usage.at_us - before.get(facts.session, usage.at_us))
        before[facts.session] = usage.at_us
        opus += Vector(*tokens)
    sonnet = opus  # both count tokens alike
    # regional: 1.1 times 5 and 25 dollars, and 3 and 15; written at 1.25, read at 0.1
    rates = [Vector(*(11 * rate // 10 for rate in (base, 5 * base, base // 10, base * 5 // 4, 2 * base)))
             for base in (5_000_000, 3_000_000)]  # fmt: skip
    lost = alive * (rates[1].cache_write_5m - rates[1].cache_read) // span_us
    assert lost > 0
    assert one.cold_cache == lost
    assert one.saved is not None
    assert one.saved.mid == opus @ rates[0] - sonnet @ rates[1] - lost
    assert one.saved.low < one.saved.mid < one.saved.high == one.saved.mid + lost
    assert plan.billed - sum(step.saved.mid for step in plan.waterfall) == plan.advised.mid
    assert "written anew" in one.risk


def test_who_leaves_a_shared_cache_loses_it_unless_all_leave(tmp_path):
    """Two workloads begin sessions by turns, each reading the prompt that the other one has kept alive."""
    usages = []
    for n in range(240):
        name = ("agents", "helpers")[n % 2]
        (made,) = sessions(name, OPUS_ID, (1,), 1, turns=1)
        ((facts, counts),) = made.parts
        tokens = (60_000, counts[1], 8_000, 0, 0) if n else (60_000, counts[1], 0, 8_000, 0)
        parts = ((facts._replace(session=f"{name} {n}"), tokens),)
        usages.append(made._replace(at_us=made.at_us + 4 * MINUTE * n, request_id=f"{name}-{n}", parts=parts))
    leaving = {}
    for names in (["agents"], ["agents", "helpers"]):
        (tmp_path / str(len(names))).mkdir()
        plan, _ = plan_of(tmp_path / str(len(names)), usages, names)
        leaving[len(names)] = next(
            each for each in plan.advice if (each.workload, each.lever) == ("agents", "model")
        )
        assert plan.billed - sum(step.saved.mid for step in plan.waterfall) == plan.advised.mid
    # 119 calls write at 3.45 dollars a million more than they read, and 120 of the other at 5.75: regional, times 1.1
    lost = 8_000 * (119 * 345 + 120 * 575) * 11_000
    alone, together = leaving[1], leaving[2]
    assert alone.counts
    assert together.counts
    assert (alone.cold_cache, together.cold_cache) == (lost, 0)
    assert alone.saved.mid == together.saved.mid - lost
    assert "shares prefixes" in alone.risk
    assert "shares prefixes" not in together.risk


def test_where_no_prefixes_are_known_it_is_at_most_a_life_for_each_read(tmp_path):
    """Calls of no session: each read shows that something was alive for five minutes before it, and no more."""
    usages = list(singles("agents", OPUS_ID, 200, prompt=60_000, read=4_000, apart_minutes=4))
    plan, span_us = plan_of(tmp_path, usages, ["agents"])
    one = next(each for each in plan.advice if each.lever == "model")
    assert one.cold_cache == 200 * 4_000 * 3_795_000 * FIVE_US // span_us
    assert one.saved is not None
    assert one.saved.high - one.saved.low == one.saved.high - one.saved.mid == one.cold_cache
    assert not one.exact
