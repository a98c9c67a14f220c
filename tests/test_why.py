"""Why the cost moved: each factor alone moves its own step, and the steps always sum to the difference."""

import io
import json
from contextlib import redirect_stdout
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing import cli
from farthing.cells import Question, parse_where
from farthing.ledger import Ledger
from farthing.usage import EPOCH, Facts, Usage
from farthing.why import Scenario, between, between_by, why

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


# --- the tokenizer --------------------------------------------------------------------------------------------------

SONNET_5 = "global.anthropic.claude-sonnet-5"  # of the newer tokenizer; 2 and 10 dollars a million


def test_the_same_text_on_the_newer_tokenizer_is_the_tokenizer_and_the_model_mix(tmp_path):
    """As many calls of the same text: 1,000 tokens of the older tokenizer are 1,300 of the newer."""
    now = calls(9, 10, SONNET_5, tokens=(1_300, 65, 0, 0, 0))
    found = moved(tmp_path, calls(8, 10, tokens=PLAIN), now)
    assert found == {
        "tokenizer": 10 * (300 * 3_000_000 + 15 * 15_000_000),
        "model mix": -10 * (1_300 * 1_000_000 + 65 * 5_000_000),
    }


def test_as_many_tokens_of_the_newer_tokenizer_are_less_text(tmp_path):
    found = moved(tmp_path, calls(8, 10, tokens=PLAIN), calls(9, 10, SONNET_5, tokens=PLAIN))
    sizes = found["prompt size"] + found["output size"]
    assert sizes == -found["tokenizer"] < 0
    assert found["model mix"] == -10 * (1_000 * 1_000_000 + 50 * 5_000_000)


def test_the_tokenizers_step_tells_its_range_and_can_be_measured(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append(calls(8, 10, tokens=PLAIN) + calls(9, 10, SONNET_5, tokens=(1_200, 60, 0, 0, 0)))
    (step,) = [s for s in why(ledger, Question(), AUGUST, SEPTEMBER).steps if s.name == "tokenizer"]
    assert step.most_picos is not None
    assert step.least_picos == 0  # as many tokens
    assert 0 < step.picos < step.most_picos
    measured = why(ledger, Question(), AUGUST, SEPTEMBER, Fraction(12, 10))
    assert [s.name for s in measured.steps] == ["tokenizer", "model mix"]


def test_within_one_tokenizer_there_is_no_such_step(tmp_path):
    found = moved(tmp_path, calls(8, 10), calls(9, 20, f"global.{OPUS}", tokens=PLAIN))
    assert "tokenizer" not in found


# --- any two scenarios ----------------------------------------------------------------------------------------------


def of_team(team, usages):
    return [
        usage._replace(tags=(("team", team),), request_id=f"{team}-{usage.request_id}") for usage in usages
    ]


def test_by_team_every_team_sums_and_all_sum_to_the_whole(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append(
        of_team("search", calls(8, 10)) + of_team("search", calls(9, 20)) + of_team("ads", calls(8, 5))
        + of_team("ads", calls(9, 5, f"global.{OPUS}")) + of_team("new", calls(9, 3))
    )  # fmt: skip
    sides = Scenario(ledger, Question(), AUGUST), Scenario(ledger, Question(), SEPTEMBER)
    whole, teams = between(*sides), between_by(*sides, ["team"])
    assert {name: [step.name for step in moved.steps] for (name,), moved in teams.items()} == {
        "search": ["volume"], "ads": ["model mix"], "new": ["volume"],
    }  # fmt: skip
    for moved_team in teams.values():
        assert sum(s.picos for s in moved_team.steps) == moved_team.to_picos - moved_team.from_picos
    assert sum(m.from_picos for m in teams.values()) == whole.from_picos
    assert sum(m.to_picos for m in teams.values()) == whole.to_picos


def test_two_filters_of_one_month(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append(calls(9, 10) + calls(9, 10, SONNET))
    at_global, regional = (
        Scenario(ledger, Question(where=(parse_where(f"endpoint={name}"),)), SEPTEMBER)
        for name in ("global", "regional")
    )
    assert [step.name for step in between(at_global, regional).steps] == ["endpoint mix"]


def test_two_ledgers(tmp_path):
    one, other = Ledger(tmp_path / "one"), Ledger(tmp_path / "other")
    one.append(calls(9, 10))
    other.append(calls(9, 30))
    found = between(Scenario(one, Question(), SEPTEMBER), Scenario(other, Question(), SEPTEMBER))
    assert [step.name for step in found.steps] == ["volume"]
    assert found.to_picos == 3 * found.from_picos


def test_two_books(tmp_path):
    """The same usage at list and at a private offer of a tenth off."""
    offer = tmp_path / "offer.toml"
    offer.write_text(
        '[[offers]]\nname = "tenth"\nsigned = 2026-01-01\nstarts = 2026-01-01\n[[offers.rates]]\npercent_off = 10\n'
    )
    ledger = tmp_path / "ledger"
    Ledger(ledger).append(calls(9, 10))
    said = run_json("--ledger", ledger, "--from", "2026-09", "--to", "2026-09", "--to-book", offer)
    assert [step["name"] for step in said["steps"]] == ["price of claude-sonnet-4-6 in the other book"]
    assert Decimal(said["to_usd"]) == Decimal(said["from_usd"]) * Decimal("0.9")


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


@given(SOME, SOME)
@settings(max_examples=15, deadline=None)
def test_teams_come_to_the_whole(tmp_path_factory, august, september):
    made = [of_team(f"t{n}", calls(8, n, model, tokens)) for model, tokens, n in august]
    made += [of_team(f"t{n}", calls(9, n, model, tokens)) for model, tokens, n in september]
    ledger = Ledger(tmp_path_factory.mktemp("ledger"))
    ledger.append([usage for some in made for usage in some])
    sides = Scenario(ledger, Question(), AUGUST), Scenario(ledger, Question(), SEPTEMBER)
    whole, teams = between(*sides), between_by(*sides, ["team"]).values()
    assert all(sum(s.picos for s in m.steps) == m.to_picos - m.from_picos for m in teams)
    assert sum(m.to_picos - m.from_picos for m in teams) == whole.to_picos - whole.from_picos


def run_json(*words):
    """What `farthing why` says, as a program hears it."""
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as ended:
        cli.main(["why", *map(str, words), "--json"])
    assert ended.value.code == 0
    return json.loads(out.getvalue())


def test_command_by_team_and_by_side(tmp_path):
    ledger = tmp_path / "ledger"
    Ledger(ledger).append(of_team("search", calls(9, 10)) + of_team("ads", calls(9, 20)))
    asked = ("--ledger", ledger, "--from", "2026-09", "--to", "2026-09")
    said = run_json(
        *asked, "--from-where", "tag:team=search", "--to-where", "tag:team=ads", "--by", "team,model"
    )
    assert [(row["team"], row["model"]) for row in said["by"]] == [
        ("ads", "claude-sonnet-4-6"), ("search", "claude-sonnet-4-6"),
    ]  # fmt: skip
    moves = sum(Decimal(row["to_usd"]) - Decimal(row["from_usd"]) for row in said["by"])
    assert moves == Decimal(said["to_usd"]) - Decimal(said["from_usd"]) > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--by", "day"), "--by day: two sides are compared by what both have"),
        (("--by", "colour"), "cannot group by 'colour'"),
        (("--tokenizer", "much"), "--tokenizer 'much': write a number"),
        (("--tokenizer", "0"), "above 0"),
        (("--to-book", "nowhere.toml"), "nowhere.toml: no such book"),
        (("--to-ledger", "nowhere"), "no ledger at nowhere"),
    ],
)
def test_what_cannot_be_is_one_line(words, says, capsys, tmp_path):
    Ledger(tmp_path / "ledger").append(calls(9, 1))
    with pytest.raises(SystemExit) as ended:
        cli.main(
            ["why", "--ledger", str(tmp_path / "ledger"), "--from", "2026-08", "--to", "2026-09", *words]
        )
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


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
