"""Plans: cheapest among what owners allow, adding up to the picodollar, and never claimed beyond the evidence."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farthing.book import Card, Resolved
from farthing.cells import Question, cells
from farthing.config import Config, Residency, Workload
from farthing.ledger import Ledger
from farthing.levers import LEVERS, to_model
from farthing.optimise import LEVERS_IN_ORDER, Scenario, _traffic, savings, whatif
from tests.agents import MINUTE, role, sessions, singles

SONNET, HAIKU = "us.anthropic.claude-sonnet-4-6", "us.anthropic.claude-haiku-4-5-20251001-v1:0"
PAUSES = (0.5, 1, 2, 20)  # a third of the turns come when five minutes are over, and within the hour


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    made = Ledger(tmp_path_factory.mktemp("plans") / "ledger")
    made.append(list(sessions("agents", SONNET, PAUSES, 120)))
    made.append(list(singles("nightly", SONNET, 900)))
    made.append(list(singles("chat", HAIKU, 400, operation="ConverseStream")))
    return made


def allowing(**workloads):
    return Question(config=Config(workloads={
        name: Workload(principals=(role(name),), **said) for name, said in workloads.items()
    }))  # fmt: skip


ALL = {"allow": ("global",), "deadline": "2d"}


def of(plan, workload, lever):
    return next(one for one in plan.advice if (one.workload, one.lever) == (workload, lever))


# --- what always holds -----------------------------------------------------------------------------------------------


said = st.fixed_dictionaries(
    {
        "allow": st.sampled_from([(), ("global",), ("geo:us",)]),
        "deadline": st.sampled_from(["", "6h", "24h", "3d"]),
        "models": st.sampled_from([(), ("claude-haiku-4-5",), ("claude-sonnet-5", "claude-haiku-4-5")]),
        "cache": st.booleans(),
    }
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries({}, optional={"agents": said, "nightly": said, "chat": said}), st.integers(1, 3))
def test_every_plan_adds_up_and_costs_no_more_than_today(ledger, workloads, factor):
    question = allowing(**workloads)
    computed = sum(cell.cost for cell in cells(ledger, question))
    plan = savings(ledger, question, billed=computed * factor // 2 + factor)
    assert plan.billed == sum(one.billed for one in plan.workloads)
    assert plan.billed - sum(step.saved.mid for step in plan.waterfall) - plan.advised.mid in range(-9, 10)
    assert plan.bound <= plan.advised.low <= plan.advised.mid <= plan.advised.high
    assert plan.advised.mid <= plan.billed
    assert all(one.saved and one.saved.mid >= 0 for one in plan.advice if one.counts)
    assert all(step.saved.mid >= 0 for step in plan.waterfall)
    for one in plan.advice:
        assert one.counts == (one.permitted and one.resolved and one.final)
        assert one.counts or one.why_not
        assert not one.counts or one.workload in workloads
    for name, allowed in workloads.items():
        found = {
            lever
            for one in plan.advice
            if one.workload == name and one.counts
            for lever in one.lever.split(" + ")
        }
        assert "endpoint" not in found or "global" in allowed["allow"]
        assert "channel" not in found or allowed["deadline"] in ("24h", "3d")
        assert "cache" not in found or allowed["cache"]
        assert "model" not in found  # nobody has proved one


def test_the_waterfall_is_exact_where_money_is_computed(ledger):
    plan = savings(ledger, allowing(agents=ALL, nightly=ALL, chat=ALL))
    assert plan.billed - sum(step.saved.mid for step in plan.waterfall) == plan.advised.mid
    order = [step.lever for step in plan.waterfall]
    assert order == [lever for lever in LEVERS_IN_ORDER if lever in order] == ["channel", "cache", "endpoint"]


def test_no_step_takes_more_than_all_that_could_be_saved(ledger):
    plan = savings(ledger, Question())
    beyond = [one for one in plan.advice if one.saved and one.saved.mid > one.billed - one.bound]
    assert beyond  # another model, which nobody allowed
    assert not any(one.captured or one.counts for one in beyond)
    assert of(plan, "role:agents", "cache").captured


# --- what may be done ------------------------------------------------------------------------------------------------


def test_what_nobody_named_is_only_shown_with_what_it_would_be_worth(ledger):
    plan = savings(ledger, Question())
    assert plan.advised.mid == plan.billed
    batch = of(plan, "role:nightly", "channel")
    assert not batch.permitted
    assert batch.saved.mid * 2 == batch.billed  # nothing of it is cached: half price
    assert 'deadline = "24h"' in next(one.allow for one in plan.workloads if one.workload == "role:nightly")


def test_the_global_endpoint_saves_an_eleventh_and_residency_forbids_it(ledger):
    question = allowing(chat=ALL)
    endpoint = of(savings(ledger, question), "chat", "endpoint")
    assert endpoint.counts
    assert endpoint.exact
    assert endpoint.saved.mid * 11 == endpoint.billed
    assert endpoint.change.after == f'modelId="{HAIKU.replace("us.", "global.")}"'
    rules = (Residency(allow=("geo:us",), principals=(role("chat"),)),)
    strict = replace(question, config=Config(workloads=question.config.workloads, residency=rules))
    forbidden = of(savings(ledger, strict), "chat", "endpoint")
    assert not forbidden.counts
    assert "residency" in forbidden.why_not


def test_a_batch_needs_a_day_and_calls_that_nobody_watches(ledger):
    short = of(savings(ledger, allowing(nightly={"deadline": "6h"})), "nightly", "channel")
    assert not short.counts
    assert "24 hours" in short.why_not
    assert of(savings(ledger, allowing(nightly={"deadline": "1d"})), "nightly", "channel").counts
    plan = savings(ledger, allowing(chat={"deadline": "1d"}, agents={"deadline": "1d"}))
    assert not [one for one in plan.advice if "channel" in one.lever and one.workload in ("chat", "agents")]


def test_another_model_is_final_only_with_a_verdict_on_just_these_two(ledger, tmp_path):
    gate = tmp_path / "verdict.json"
    question = allowing(nightly={"models": ("claude-haiku-4-5",), "gate": str(gate)})

    def advice(**verdict):
        gate.write_text(json.dumps(verdict))
        return of(savings(ledger, question), "nightly", "model")

    good = {"from": "claude-sonnet-4-6", "to": HAIKU, "workload": "nightly", "verdict": "not inferior"}
    proved = advice(**good)
    assert proved.counts
    assert proved.saved.mid * 3 == proved.billed * 2  # Haiku 4.5 is a third of Sonnet 4.6
    for wrong in ({"verdict": "inferior"}, {"to": "claude-haiku-5-5"}, {"workload": "chat"}):
        refused = advice(**(good | wrong))
        assert refused.permitted
        assert not refused.final
        assert not refused.counts
    gate.write_text("[")
    assert not of(savings(ledger, question), "nightly", "model").final


# --- caching: replayed, calibrated, resolved ----------------------------------------------------------------------


def test_an_hour_is_advised_where_turns_come_after_twenty_minutes(ledger):
    cache = of(savings(ledger, allowing(agents={})), "agents", "cache")
    assert cache.counts
    assert cache.change.data["end_ttl"] == "1h"
    assert cache.change.kind == "ttl"
    assert cache.calibration in ("0.0 %", "-0.0 %")
    assert cache.sessions == 120
    assert 0 < cache.saved.low < cache.saved.mid < cache.saved.high
    assert cache.bound <= cache.advised.low


def test_nothing_is_advised_where_an_hour_would_cost_more(tmp_path):
    quick = Ledger(tmp_path / "ledger")
    quick.append(list(sessions("agents", SONNET, (0.5, 1, 2), 120)))
    plan = savings(quick, allowing(agents={}))
    assert not [one for one in plan.advice if one.lever == "cache"]
    assert plan.advised.mid == plan.billed


def test_no_markers_are_advised_where_caching_loses_money(tmp_path):
    slow = Ledger(tmp_path / "ledger")
    slow.append(list(sessions("agents", SONNET, (70, 90), 120)))
    cache = of(savings(slow, allowing(agents={})), "agents", "cache")
    assert cache.counts
    assert cache.change.data["policy"] == "none"
    assert cache.saved.mid > 0


def test_a_replay_that_is_off_the_bill_withholds_the_dollars_and_says_what_would_mend_it(tmp_path):
    odd = Ledger(tmp_path / "ledger")
    odd.append(  # written for five minutes, and yet read after twenty
        [
            usage._replace(at_us=usage.at_us + (number % 12) * 20 * MINUTE)
            for number, usage in enumerate(sessions("agents", SONNET, (0.5,), 120))
        ]
    )
    plan = savings(odd, allowing(agents={}))
    withheld = [one for one in plan.advice if one.lever == "cache"]
    assert withheld[0].saved is None
    assert "--bodies" in withheld[0].why_not
    assert plan.advised.mid == plan.billed


def test_what_passes_the_gateway_may_be_decided_call_by_call(tmp_path):
    """Some sessions never pause and some always do: whoever marks all alike pays too much for one of them."""
    both = Workload(principals=(role("quick"), role("slow")))
    asked = Question(config=Config(workloads={"agents": both}))
    plans = {}
    for source in ("bedrock_log", "outbox"):
        made = Ledger(tmp_path / source)
        made.append(list(sessions("quick", SONNET, (0.5, 1), 120, turns=30, source=source)))
        made.append(list(sessions("slow", SONNET, (20, 30), 120, turns=5, source=source)))
        plans[source] = of(savings(made, asked), "agents", "cache")
    logged, passed = plans["bedrock_log"], plans["outbox"]
    assert passed.counts
    assert passed.saved.mid > logged.saved.mid
    assert passed.change.data["policy"].startswith("adaptive")
    assert passed.change.after == f'cache_policy = "{passed.change.data["policy"]}"'


def test_few_sessions_resolve_nothing(tmp_path):
    few = Ledger(tmp_path / "ledger")
    few.append(list(sessions("agents", SONNET, PAUSES, 4)))
    cache = of(savings(few, allowing(agents={})), "agents", "cache")
    assert not cache.resolved
    assert "not resolved" in cache.why_not
    assert cache.saved.low <= cache.saved.mid <= cache.saved.high


def test_the_user_of_claude_code_gets_settings(tmp_path):
    coded = Ledger(tmp_path / "ledger")
    coded.append(list(sessions("agents", SONNET, PAUSES, 120, source="claude_code")))
    change = of(savings(coded, allowing(agents={})), "agents", "cache").change
    assert change.kind == "settings"
    assert json.loads(change.after) == {"env": {"ENABLE_PROMPT_CACHING_1H": "1"}}


def test_of_many_sessions_some_stand_for_all(ledger, monkeypatch):
    question = allowing(agents={})
    whole = of(savings(ledger, question), "agents", "cache")
    monkeypatch.setattr(_traffic, "MOST_ROWS", 800)  # of 1,440: every other session
    part = of(savings(ledger, question), "agents", "cache")
    assert 30 < part.sessions < 90
    assert part.saved is not None
    assert whole.saved is not None
    assert part.saved.mid == pytest.approx(whole.saved.mid, rel=0.3)  # not half of it


def test_without_prefixes_the_limit_is_shown_and_how_to_know_more(ledger):
    found = next(one for one in savings(ledger, Question()).workloads if one.workload == "role:nightly")
    (note,) = found.notes
    assert "no prefixes known" in note
    assert "--bodies" in note


# --- what if ---------------------------------------------------------------------------------------------------------


def test_scenarios_come_to_what_rating_each_cell_anew_gives(ledger):
    question = Question()
    scenarios = [
        Scenario("today"), Scenario("global", ("endpoint",)), Scenario("batch", ("batch",)),
        Scenario("both", ("endpoint", "batch")), Scenario("haiku", (to_model("claude-haiku-4-5"),)),
    ]  # fmt: skip
    found = {outcome.name: outcome.cost for outcome in whatif(ledger, question, scenarios)}
    today = cells(ledger, question)
    assert found["today"] == sum(cell.cost for cell in today)

    def rated(name):
        total = 0
        for cell in today:
            assert isinstance(cell.sku, Resolved)
            sku, tokens = LEVERS[name].rewrite(cell.sku.sku, cell.tokens) or (cell.sku.sku, cell.tokens)
            card = question.book.find(sku, cell.at, cell.prompt, cached=tokens.cached > 0)
            total += tokens @ card.rates if isinstance(card, Card) else cell.cost
        return total

    assert found["global"] == rated("endpoint")
    assert found["batch"] == rated("batch")
    assert found["both"] * 11 == found["batch"] * 10
    assert found["haiku"] < found["today"]


def test_a_scenario_may_have_its_own_book_and_an_empty_ledger_costs_nothing(ledger, tmp_path):
    (one,) = whatif(ledger, Question(), [Scenario("same book", (), Question().book)])
    assert one.cost == sum(cell.cost for cell in cells(ledger, Question()))
    assert one.moved == 0
    assert whatif(Ledger(tmp_path / "empty"), Question(), [Scenario("nothing")])[0].cost == 0
