"""`farthing savings` as a user meets it: the JSON that others rely on, the screen, bills, bodies, bad input."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from farthing import cli, demo
from farthing.api import import_paths
from farthing.ledger import Ledger
from tests import bills
from tests.agents import role, sessions, singles

CONFIG = f"""
[workloads.agents]
owner = "Grace"
principals = ["{role("agents")}"]
allow = ["global"]

[workloads.nightly]
principals = ["{role("nightly")}"]
deadline = "2d"
"""
SONNET = "us.anthropic.claude-sonnet-4-6"


@pytest.fixture
def place(tmp_path):
    made = Ledger(tmp_path / "ledger")
    made.append([*sessions("agents", SONNET, (1, 20), 40), *singles("nightly", SONNET, 600)])
    (tmp_path / "farthing.toml").write_text(CONFIG)
    return tmp_path


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["savings", *map(str, words)])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def asked(capsys, place, *words):
    options = ("--ledger", place / "ledger", "--config", place / "farthing.toml", "--json", *words)
    code, out, err = run(capsys, *options)
    assert code == 0, err
    return json.loads(out)


def dollars(ends):
    return [Decimal(ends[name]) for name in ("low", "mid", "high")]


def test_the_contract(place, capsys):
    said = asked(capsys, place)
    assert list(said)[:6] == ["billed_usd", "replayed_usd", "advised_usd", "bound_usd", "levers", "workloads"]
    billed, bound = Decimal(said["billed_usd"]), Decimal(said["bound_usd"])
    low, mid, high = dollars(said["advised_usd"])
    assert bound <= low <= mid <= high < billed
    assert abs(Decimal(said["replayed_usd"]) - billed) <= billed * 3 / 100
    counted = [one for one in said["levers"] if one["counts"]]
    assert billed - mid == sum(dollars(one["saved_usd"])[1] for one in counted)
    assert {(one["workload"], one["lever"]) for one in counted} == {
        ("agents", "cache"), ("agents", "endpoint"), ("nightly", "channel")
    }  # fmt: skip
    assert sum(Decimal(one["billed_usd"]) for one in said["workloads"]) == billed
    assert {one["change"]["kind"] for one in counted} == {"ttl", "profile", "batch"}
    assert [rule["rule"] for rule in said["rules"]] == [
        "batch",
        "caching",
        "global endpoint",
        "right-sized model",
    ]
    assert "which is not" in said["quarter"]


def test_the_same_question_has_the_same_answer(place, capsys):
    assert asked(capsys, place) == asked(capsys, place)


def test_the_bill_of_the_ledgers_days_is_what_savings_are_measured_by(place, capsys):
    first = asked(capsys, place)
    day, other = "2026-09-07", "2026-09-29"
    lines = [
        bills.Line(date, "111122223333", "us-east-1", "claude-sonnet-4-6", "regional", "on_demand", "input", False,
                   2 * 10**7, Decimal(cost))
        for date, cost in ((day, "60"), (other, "66"))
    ]  # fmt: skip
    bill = bills.write_csv(place / "cur.csv", lines)
    said = asked(capsys, place, "--statement", bill)
    assert Decimal(said["billed_usd"]) == 60
    assert said["computed_usd"] == first["computed_usd"]
    share = [Decimal(one["advised_usd"]["mid"]) / Decimal(one["billed_usd"]) for one in (first, said)]
    assert abs(share[0] - share[1]) < Decimal("0.000001")
    assert sum(Decimal(one["billed_usd"]) for one in said["workloads"]) == 60


@pytest.mark.parametrize("billed", ["60.000000000001", "47.123456789012", "0.000000000007"])
def test_the_steps_add_up_to_the_picodollar_in_billed_money_too(place, capsys, billed):
    line = bills.Line("2026-09-07", "111122223333", "us-east-1", "claude-sonnet-4-6", "regional", "on_demand",
                      "input", False, 2 * 10**7, Decimal(billed))  # fmt: skip
    said = asked(capsys, place, "--statement", bills.write_csv(place / "cur.csv", [line]))
    steps = sum(dollars(one["saved_usd"])[1] for one in said["waterfall"])
    assert Decimal(said["billed_usd"]) - steps == dollars(said["advised_usd"])[1]


def test_a_bill_and_a_filter_do_not_go_together(place, capsys):
    code, _, err = run(
        capsys, "--ledger", place / "ledger", "--statement", place / "cur.csv", "--where", "model=claude-*"
    )
    assert code == 2
    assert "leave one of them out" in err


def test_the_screen_begins_with_the_money_and_fits(place, capsys):
    code, out, _ = run(capsys, "--ledger", place / "ledger", "--config", place / "farthing.toml")
    lines = out.splitlines()
    assert code == 0
    assert lines[2].endswith("now")
    assert "with all that is allowed" in lines[3]
    assert len(lines) <= 45
    assert "global.anthropic.claude-sonnet-4-6" in out
    assert "--bodies" in out
    _, whole, _ = run(capsys, "--ledger", place / "ledger", "--config", place / "farthing.toml", "--all")
    assert "farthing by day,endpoint --where workload=nightly --where model=claude-sonnet-4-6" in whole
    assert "create_model_invocation_job" in whole


def test_what_has_no_price_is_left_out_and_said(tmp_path, capsys):
    Ledger(tmp_path / "ledger").append(list(singles("x", "us.anthropic.claude-unknown-9", 3)))
    code, out, _ = run(capsys, "--ledger", tmp_path / "ledger", "--json")
    assert code == 0
    said = json.loads(out)
    assert said["billed_usd"] == "0"
    assert said["notes"] == ["3 calls without a price are left out"]
    assert run(capsys, "--ledger", tmp_path / "ledger")[0] == 0


# --- bodies ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logged")
    demo.write_logs(folder / "logs", calls=2_500, seed=7)
    ledger = Ledger(folder / "ledger")
    import_paths(ledger, [folder / "logs"], now=datetime(2026, 11, 1, tzinfo=UTC))
    return folder


def test_bodies_tell_which_prefixes_repeat(logged, capsys):
    (logged / "farthing.toml").write_text('[workloads.rag]\nprincipals = ["*:assumed-role/search-rag/*"]')
    without, with_ = asked(capsys, logged), asked(capsys, logged, "--bodies", logged / "logs")
    caching = [
        [one for one in said["levers"] if one["workload"] == "rag" and one["lever"] == "cache"]
        for said in (without, with_)
    ]
    assert caching[0] == []
    assert "no prefixes known" in json.dumps(without["workloads"])
    (cache,) = caching[1]
    assert cache["counts"]
    assert cache["change"]["kind"] == "cache_markers"
    assert cache["change"]["before"] == "no markers"
    assert "cachePoint" in cache["change"]["after"]
    assert Decimal(cache["bound_usd"]) <= Decimal(cache["advised_usd"]["low"])
    (batch,) = (one for one in with_["levers"] if (one["workload"], one["lever"]) == ("rag", "channel"))
    assert re.search(r"\d % over the proved optimum", batch["risk"])


def test_a_line_of_a_body_that_cannot_be_read_is_named_and_the_rest_counts(logged, capsys):
    bad = logged / "bad.json"
    bad.write_text('{"schemaType":"ModelInvocationLog","modelId":\n')
    code, out, err = run(capsys, "--ledger", logged / "ledger", "--bodies", bad, "--json")
    assert code == 2
    assert "bad.json:1" in err
    assert Decimal(json.loads(out)["billed_usd"]) > 0


def test_bodies_that_are_not_there_are_said_in_one_line(logged, capsys):
    code, _, err = run(capsys, "--ledger", logged / "ledger", "--bodies", logged / "nothing", "--json")
    assert code == 2
    assert "nothing" in err
    code, _, err = run(capsys, "--ledger", logged / "ledger", "--bodies", "gs://b/logs")
    assert code == 2
    assert "copy it here first" in err
