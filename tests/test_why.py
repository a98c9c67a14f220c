"""Why the cost moved: each factor alone moves its own step, and the steps always sum to the difference."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing import cli
from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.usage import EPOCH, Facts, Usage
from farthing.why import why

AUGUST, SEPTEMBER = ((date(2026, m, 1), date(2026, m, 30)) for m in (8, 9))
OPUS, SONNET = "anthropic.claude-opus-4-6-v1", "anthropic.claude-sonnet-4-6"
CACHED = (100, 50, 900, 0, 0)
PLAIN = (1_000, 50, 0, 0, 0)


def calls(
    month: int, count: int, model: str = f"global.{SONNET}", tokens=CACHED, mode: str = "", day: int = 10
):
    at = datetime(2026, month, day, tzinfo=UTC)
    facts = Facts("bedrock_log", "bedrock", model, region="us-east-1", mode=mode)
    name = f"{month}-{day}-{model}-{mode}-{tokens}"
    start = (at - EPOCH) // timedelta(microseconds=1)
    return [Usage(start + i, f"{name}-{i}", "", ((facts, tokens),)) for i in range(count)]


def moved(folder, *usages, earlier=AUGUST, later=SEPTEMBER) -> dict[str, int]:
    ledger = Ledger(folder)
    ledger.append([usage for some in usages for usage in some])
    found = why(ledger, Question(), earlier, later)
    assert sum(step.picos for step in found.steps) == found.to_picos - found.from_picos
    return {step.name: step.picos for step in found.steps}


def test_nothing_moved(tmp_path):
    assert moved(tmp_path, calls(8, 10), calls(9, 10)) == {}


def test_twice_the_calls_is_volume_alone(tmp_path):
    one = 100 * 3_000_000 + 50 * 15_000_000 + 900 * 300_000
    assert moved(tmp_path, calls(8, 10), calls(9, 20)) == {"volume": 10 * one}


def test_longer_answers_are_output_size_alone(tmp_path):
    longer = (100, 80, 900, 0, 0)
    assert moved(tmp_path, calls(8, 10), calls(9, 10, tokens=longer)) == {"output size": 10 * 30 * 15_000_000}


def test_another_endpoint_is_endpoint_mix_alone(tmp_path):
    one = 100 * 3_000_000 + 50 * 15_000_000 + 900 * 300_000
    assert moved(tmp_path, calls(8, 10), calls(9, 10, SONNET)) == {
        "endpoint mix": one
    }  # a tenth of ten calls


def test_a_broken_cache_is_cache_alone(tmp_path):
    assert moved(tmp_path, calls(8, 10), calls(9, 10, tokens=PLAIN)) == {"cache": 10 * 900 * 2_700_000}


def test_batch_is_batch_alone(tmp_path):
    half = -10 * (1_000 * 1_500_000 + 50 * 7_500_000)
    assert moved(tmp_path, calls(8, 10, tokens=PLAIN), calls(9, 10, tokens=PLAIN, mode="batch")) == {
        "batch and mode": half
    }


def test_another_model_is_model_mix_alone(tmp_path):
    dearer = 10 * (1_000 * 2_000_000 + 50 * 10_000_000)
    found = moved(tmp_path, calls(8, 10, tokens=PLAIN), calls(9, 10, f"global.{OPUS}", tokens=PLAIN))
    assert found == {"model mix": dearer}


def test_a_dated_price_is_named_by_its_date(tmp_path):
    model = "global.anthropic.claude-sonnet-5-5"  # reads fell from 0.20 to 0.10 on 2026-10-07
    before, after = (date(2026, 10, 1), date(2026, 10, 6)), (date(2026, 10, 7), date(2026, 10, 31))
    made = calls(10, 10, model, day=5) + calls(10, 10, model, day=20)
    found = moved(tmp_path, made, earlier=before, later=after)
    assert found == {"price of claude-sonnet-5-5 of 2026-10-07": -10 * 900 * 100_000}


def test_from_nothing_all_is_volume(tmp_path):
    found = moved(tmp_path, calls(9, 10))
    assert set(found) == {"volume"}


FIVE = st.tuples(*[st.integers(0, 300_000)] * 5)
MODELS = [
    f"global.{SONNET}",
    SONNET,
    f"global.{OPUS}",
    "anthropic.claude-haiku-5-5",
    "anthropic.claude-from-tomorrow",
]
SOME = st.lists(st.tuples(st.sampled_from(MODELS), FIVE, st.integers(1, 3)), max_size=5)


@given(SOME, SOME)
@settings(max_examples=25, deadline=None)
def test_steps_sum_to_the_difference(tmp_path_factory, august, september):
    made = [calls(8, n, model, tokens) for model, tokens, n in august]
    made += [calls(9, n, model, tokens) for model, tokens, n in september]
    moved(tmp_path_factory.mktemp("ledger"), *made)


def test_command(capsys, tmp_path):
    Ledger(tmp_path / "ledger").append(calls(8, 10) + calls(9, 20))
    asked = ["why", "--ledger", str(tmp_path / "ledger"), "--from", "2026-08"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*asked, "--to", "2026-09", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    assert sum(Decimal(step["usd"]) for step in said["steps"]) == Decimal(said["to_usd"]) - Decimal(
        said["from_usd"]
    )
    assert [step["name"] for step in said["steps"]] == ["volume"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*asked, "--to", "soon"])
    assert ended.value.code == 2
    assert "--to 'soon'" in capsys.readouterr().err
