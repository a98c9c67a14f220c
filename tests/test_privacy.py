"""Shared reports: nobody is named, small groups are one row, and every total is what it was."""

import io
import json
import random
import stat
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from rich.console import Console

from farthing import render
from farthing.cells import Question
from farthing.config import Config, Privacy, Team
from farthing.ledger import Ledger, SourceFile
from farthing.privacy import share
from farthing.reports import REPORTS, as_json, footer_lines
from farthing.usage import Facts, Usage

NOW = datetime(2026, 11, 1, tzinfo=UTC)
START = int(datetime(2026, 10, 1, tzinfo=UTC).timestamp()) * 1_000_000
DAY_US = 86_400_000_000
NAMES = ("ada", "Grace Hopper", "bjørn", "o'neill", "zoë+bedrock")


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """A user whose own configuration is empty."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def people(count: int, seed: int) -> list[str]:
    """Principals of every form that sources tell."""
    rng = random.Random(seed)
    forms = (
        "arn:aws:sts::111122223333:assumed-role/search/{}",
        "arn:aws:iam::444455556666:user/{}",
        "{}@example.com",
        "api-key {}",
        "{}",
    )
    return [rng.choice(forms).format(f"{rng.choice(NAMES)}-{i}") for i in range(count)]


def made_ledger(folder, seed: int, count: int = 9) -> tuple[Ledger, list[str], list[str]]:
    rng = random.Random(seed)
    who = people(count, seed)
    sessions = [f"{rng.getrandbits(64):016x}-{i}" for i in range(12)]
    calls = []
    for i in range(150):
        person = rng.choice(who)
        facts = Facts(
            rng.choice(["bedrock_log", "claude_code"]),
            "bedrock",
            rng.choice(["eu.anthropic.claude-sonnet-5", "anthropic.claude-opus-5", "anthropic.claude-next"]),
            region="eu-west-1",
            account="111122223333",
            principal=person,
            session=rng.choice(sessions),
            project=rng.choice([f"/home/{rng.choice(NAMES)}/src/search", f"runs of {person}", "/srv/app"]),
        )
        tags = rng.choice([(), (("team", "search"),), (("owner", person), ("team", "ads"))])
        counts = (rng.randrange(9_999), rng.randrange(999), 0, 0, 0)
        calls.append(Usage(START + rng.randrange(9) * DAY_US, f"r{i}", f"m{i}", ((facts, counts),), tags))
    ledger = Ledger(folder)
    ledger.append(calls)
    reasons = (f"7: cannot read what {who[0]} wrote, in {sessions[1]}",)
    file = SourceFile(
        f"/home/ada lovelace/.claude/projects/x/{sessions[0]}.jsonl", 1, 1, "claude_code", 9, 1, reasons
    )
    ledger.note_files([file], NOW)
    return ledger, who, sessions


def printed(table) -> str:
    """Everything that any form of the report says."""
    out = io.StringIO()
    render.print_table(table, Console(file=out, width=400))
    said = json.dumps(as_json(table), ensure_ascii=False)
    return "\n".join([said, render.to_csv(table), out.getvalue(), *footer_lines(table.footer)])


def amounts(table) -> dict[str, int]:
    names = {name for row in table.rows for name, value in row.items() if isinstance(value, int)}
    return {name: sum(row[name] or 0 for row in table.rows) for name in names}


ASKED: tuple[tuple[str, dict], ...] = (
    ("by", {"keys": ["principal"]}),
    ("by", {"keys": ["session", "principal", "day"]}),
    ("by", {"keys": ["project", "model"]}),
    ("by", {"keys": ["tag:owner"]}),
    ("by", {"keys": ["team", "meter"]}),
    ("daily", {"breakdown": True}),
    ("session", {}),
    ("bill", {}),
    ("levers", {}),
)


@pytest.mark.parametrize("least", [0, 3, 99])
@pytest.mark.parametrize("seed", range(2))
def test_nobody_is_named_and_totals_stay(tmp_path, seed, least):
    ledger, who, sessions = made_ledger(tmp_path / "ledger", seed)
    question = Question(config=Config(privacy=Privacy(minimum_group=least)))
    for name, extra in ASKED:
        table = REPORTS[name].make(ledger, question, **extra)
        shared = share(table, ledger, question)
        said = printed(shared)
        assert any(person in printed(table) for person in (*who, *sessions)), name
        assert [text for text in (*who, *sessions, *NAMES[1:], "lovelace") if text in said] == [], name
        assert amounts(shared) == amounts(table), name
        same = ("usd", "read", "priced", "unpriced", "rejected", "assumed_usd", "tz", "book")
        assert {key: shared.footer[key] for key in same} == {key: table.footer[key] for key in same}
        assert shared.columns == table.columns
        if least == 99 and name not in ("bill", "levers"):
            firsts = {next(iter(row.values())) for row in shared.rows}
            assert firsts <= {"fewer than 99 principals", *table.columns}


def test_a_pseudonym_is_one_person_s_and_stays(tmp_path):
    ledger, who, _ = made_ledger(tmp_path / "ledger", 5)

    def names(ledger):
        table = REPORTS["by"].make(ledger, Question(), keys=["principal"])
        shared = share(table, ledger, Question())
        return {row["principal"]: new["principal"] for row, new in zip(table.rows, shared.rows, strict=True)}

    first = names(ledger)
    assert len(set(first.values())) == len(first) == len(set(who))
    assert all(name.startswith("principal-") for name in first.values())
    assert names(Ledger(tmp_path / "ledger")) == first
    other, *_ = made_ledger(tmp_path / "other", 5)
    assert names(other) == first
    (key,) = (tmp_path / "config").rglob("pseudonyms.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.unlink()
    assert not set(names(ledger).values()) & set(first.values())  # without the key nobody can make them again


def test_groups_of_few_are_one_row(tmp_path):
    """Three teams: of three people, of two, of one."""
    ledger = Ledger(tmp_path / "ledger")
    calls = []
    for i, (person, team) in enumerate(pairwise("aXbXcXdYeYfZ")):
        if team.isupper():
            facts = Facts(
                "bedrock_log",
                "bedrock",
                "anthropic.claude-opus-5",
                region="eu-west-1",
                principal=f"user/{person}",
            )
            calls.append(Usage(START, f"r{i}", f"m{i}", ((facts, (10**i, 0, 0, 0, 0)),), (("team", team),)))
    ledger.append(calls)

    def rows(least):
        question = Question(config=Config(privacy=Privacy(minimum_group=least)))
        table = share(REPORTS["by"].make(ledger, question, keys=["team", "model"]), ledger, question)
        return {row["team"]: (row["model"], row["calls"], row["input"]) for row in table.rows}

    x, y, z = 1 + 10**2 + 10**4, 10**6 + 10**8, 10**10
    alone = {"X": ("claude-opus-5", 3, x), "Y": ("claude-opus-5", 2, y), "Z": ("claude-opus-5", 1, z)}
    assert rows(0) == rows(1) == alone
    assert rows(2) == {"X": alone["X"], "Y": alone["Y"], "fewer than 2 principals": ("", 1, z)}
    assert rows(3) == {"X": alone["X"], "fewer than 3 principals": ("", 3, y + z)}
    assert rows(4) == {"fewer than 4 principals": ("", 6, x + y + z)}


def test_what_has_no_price_is_still_unknown_when_added_up(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    facts = [
        Facts("bedrock_log", "bedrock", f"anthropic.claude-none-{i}", principal=f"user/{i}") for i in range(2)
    ]
    ledger.append(
        [Usage(START, f"r{i}", f"m{i}", ((said, (5, 0, 0, 0, 0)),)) for i, said in enumerate(facts)]
    )
    question = Question(config=Config(privacy=Privacy(minimum_group=5)))
    (row,) = share(REPORTS["by"].make(ledger, question, keys=["model"]), ledger, question).rows
    assert (row["model"], row["calls"], row["usd"]) == ("fewer than 5 principals", 2, None)


def test_a_team_of_the_file_may_keep_its_names_to_itself(tmp_path):
    """pseudonyms = false: whoever reads it may know the people; small groups stay together."""
    ledger, who, _ = made_ledger(tmp_path / "ledger", 2)
    teams = {"all": Team(principals=("*",))}
    question = Question(config=Config(teams=teams, privacy=Privacy(pseudonyms=False, minimum_group=2)))
    table = REPORTS["by"].make(ledger, question, keys=["team", "project"])
    shared = share(table, ledger, question)
    assert 0 < len(shared.rows) < len(table.rows)
    assert amounts(shared) == amounts(table)
    assert any(
        person in printed(share(table, ledger, Question(config=Config(privacy=Privacy(False)))))
        for person in who
    )
