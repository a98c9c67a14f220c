"""`farthing budget`: what it prints, keeps and refuses."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest

from farthing import cli
from farthing.config import load
from farthing.gateway.budgets import Scope, open_budgets
from farthing.ledger import Ledger
from farthing.usage import Facts, Usage

USD = 10**12
FILE = """
budget_store = "held.sqlite"
ledger = "ledger"
[[budgets]]
name = "agents"
usd = 10
period = "month"
hold = "hard"
each = "team"
[[budgets]]
name = "all"
usd = 0.5
hold = "soft"
where = ["model=claude-haiku-*"]
[[budgets]]
name = "keys"
usd = 5
hold = "hard"
each = "key"
[[budgets]]
name = "pace"
calls = 100
period = "minute"
hold = "hard"
[[budgets]]
name = "watched"
usd = 7
"""
RAISE = ("--until", "4h", "--by", "bea", "--reason", "the launch")


@pytest.fixture
def farthing(capsys, monkeypatch, tmp_path):
    """farthing("budget", "list") -> (exit code, stdout, stderr), where a farthing.toml with budgets is."""
    (tmp_path / "farthing.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


def now_us():
    return time.time_ns() // 1000


def spend(tmp_path, usd, **scope):
    """A call that was held and posted."""
    budgets, now = open_budgets(load(tmp_path / "farthing.toml")), now_us()
    budgets.hold(f"{usd}-{scope}", Scope(**scope), int(usd * USD), now, now + USD)
    budgets.post(f"{usd}-{scope}", int(usd * USD), now)
    budgets.close()


def test_a_list_tells_what_is_spent_of_what(farthing, tmp_path):
    spend(tmp_path, 4, team="search", key="ada")
    code, out, _ = farthing("budget", "list")
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    assert code == 0
    assert list(lines) == ["agents/search", "all", "keys/ada", "pace"]  # what does not hold is not among them
    assert "$4.00 of $10.00 a month (hard; until " in lines["agents/search"]
    assert "$0.00 of $0.50 a month (soft; until " in lines["all"]
    assert (
        "1 calls of 100 calls a minute" in lines["pace"] or "0 calls" in lines["pace"]
    )  # a minute may be over


def test_a_list_as_json_is_exact(farthing, tmp_path):
    spend(tmp_path, 0.25, team="search", model="claude-haiku-4-5")
    rows = json.loads(farthing("budget", "list", "--json")[1])["budgets"]
    told = {row["budget"]: row for row in rows}
    assert (told["all"]["limit"], told["all"]["spent"], told["all"]["left"]) == ("0.5", "0.25", "0.25")
    assert told["agents"]["value"] == "search"
    assert told["pace"]["limit"] == 100
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert told["all"]["start"] == month.isoformat()


def test_a_raise_is_kept_with_who_and_why(farthing):
    code, out, _ = farthing("budget", "raise", "agents/search", "--to", "15.50", *RAISE)
    assert code == 0
    assert "agents/search raised to $15.50 until " in out
    assert out.endswith("by bea: the launch\n")
    (change,) = json.loads(farthing("budget", "audit", "--json")[1])["changes"]
    assert (change["by"], change["action"], change["value"], change["amount"], change["reason"]) == (
        "bea", "raise", "search", "15.5", "the launch",
    )  # fmt: skip
    (row,) = [
        row
        for row in json.loads(farthing("budget", "list", "--json")[1])["budgets"]
        if row["value"] == "search"
    ]
    assert (row["limit"], row["raised_until"]) == ("15.5", change["until"])


def test_a_reset_is_kept_too(farthing, tmp_path):
    spend(tmp_path, 4, team="search")
    assert farthing("budget", "reset", "agents/search", "--by", "bea", "--reason", "a test")[0] == 0
    (row,) = [
        row
        for row in json.loads(farthing("budget", "list", "--json")[1])["budgets"]
        if row["value"] == "search"
    ]
    assert row["spent"] == "0"
    assert "agents/search reset; $4.00 was spent, by bea: a test" in farthing("budget", "audit")[1]
    assert farthing("budget", "reset", "keys", "--by", "bea", "--reason", "nothing there")[0] == 0
    assert farthing("budget", "reset", "keys", "--by", "bea", "--reason", "nothing there")[0] == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nowhere", "--to", "20", *RAISE), "no budget 'nowhere'; there are agents, all, keys, pace"),
        (("watched", "--to", "20", *RAISE), "no budget 'watched'"),
        (("all", "--to", "much", *RAISE), "--to 'much' is no number of dollars"),
        (("pace", "--to", "1.5", *RAISE), "--to '1.5' is no number of calls"),
        (("all", "--to", "0.4", *RAISE), "all is $0.50 a month already: raise it to more than that"),
        (("all", "--to", "1", "--until", "soon", *RAISE[2:]), "--until 'soon' is no time: write 2026-11-30"),
        (("all", "--to", "1", "--until", "2020-01-01", *RAISE[2:]), "--until is over already"),
        (("all", "--to", "1", *RAISE[:4], "--reason", ""), "say by whom and for what reason"),
        (("all", "--to", "1", *RAISE, "--store", "/dev/null/x"), "no budget store can be opened there"),
    ],
)
def test_what_cannot_be_raised_is_one_line(farthing, words, says):
    code, out, err = farthing("budget", "raise", *words)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_an_until_without_a_zone_is_in_the_file_s(farthing, tmp_path):
    (tmp_path / "farthing.toml").write_text('timezone = "Asia/Tokyo"\n' + FILE)
    _, out, _ = farthing(
        "budget", "raise", "all", "--to", "1", "--until", "2999-01-01T09:00", *RAISE[2:], "--json"
    )
    assert json.loads(out)["changes"][0]["until"] == "2999-01-01T00:00:00+00:00"


def called(team, dollars, name, at):
    facts = Facts("bedrock_log", "bedrock", "global.anthropic.claude-haiku-4-5", region="us-east-1")
    tokens = (int(dollars * 10**6), 0, 0, 0, 0)  # $1 a million
    return Usage(at, name, "", ((facts, tokens),), (("team", team),))


def test_a_sync_takes_over_what_the_ledger_knows_more(farthing, tmp_path):
    spend(tmp_path, 4, team="search")
    spend(tmp_path, 3, team="ads", key="ben")
    at = now_us()
    Ledger(tmp_path / "ledger").append([called("search", 6, "a", at), called("ads", 2, "b", at)])
    code, out, _ = farthing("budget", "sync", "--json")
    assert code == 0
    told = {(change["budget"], change["value"]): change["amount"] for change in json.loads(out)["changes"]}
    assert told == {("agents", "search"): "6", ("all", ""): "8"}
    listed = json.loads(farthing("budget", "list", "--json")[1])["budgets"]
    rows = {(row["budget"], row["value"]): row["spent"] for row in listed}
    assert (rows["agents", "search"], rows["agents", "ads"], rows["all", ""]) == ("6", "3", "8")
    assert json.loads(farthing("budget", "sync", "--json")[1]) == {"changes": []}


def test_the_environment_may_name_the_store(farthing, tmp_path, monkeypatch):
    """Which is where an address with a password belongs."""
    monkeypatch.setenv("FARTHING_BUDGET_STORE", str(tmp_path / "elsewhere.sqlite"))
    farthing("budget", "raise", "all", "--to", "1", *RAISE)
    assert (tmp_path / "elsewhere.sqlite").exists()
    assert not (tmp_path / "held.sqlite").exists()


def test_without_budgets_a_list_says_how_to_have_some(farthing, tmp_path):
    (tmp_path / "farthing.toml").write_text("")
    code, out, _ = farthing("budget", "list", "--store", tmp_path / "other.sqlite")
    assert code == 0
    assert 'add [[budgets]] with hold = "hard" to farthing.toml' in out
