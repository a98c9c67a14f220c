"""Whose usage it is: tags in the bill and in the ledger put profiles, principals and accounts to teams."""

import csv
import json
import tomllib
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest

from farthing import cli
from farthing.cells import Question, cells
from farthing.config import Account, Config, Team, load
from farthing.ledger import Ledger
from farthing.statement import Statement
from farthing.teach import suggest_teams, teams_toml
from farthing.usage import Facts, Usage
from tests import bills

OURS, THEIRS = "111122223333", "444455556666"
PROFILE = f"arn:aws:bedrock:us-east-1:{OURS}:application-inference-profile/a1b2c3d4e5f6"
MODEL = "global.anthropic.claude-opus-5"
MONTH = Question()


def session(role: str, account: str = OURS) -> str:
    return f"arn:aws:sts::{account}:assumed-role/{role}/pod-1"


def role(name: str, account: str = OURS) -> str:
    return f"arn:aws:iam::{account}:role/{name}"


# --- a ledger --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """Calls of somebody: input tokens at five dollars a million."""

    usd: int
    principal: str = ""
    account: str = OURS
    model: str = MODEL
    tags: tuple[tuple[str, str], ...] = ()


def facts(use: Use) -> Facts:
    return Facts(
        "bedrock_log", "bedrock", use.model, "claude-opus-5", "us-east-1", use.account, use.principal
    )


def ledger_of(folder, *uses: Use) -> Ledger:
    ledger = Ledger(folder / "ledger")
    ledger.append(
        [
            Usage(1_788_220_800_000_000 + n, f"r{n}", "", ((facts(use), (use.usd * 200_000, 0, 0, 0, 0)),), use.tags)
            for n, use in enumerate(uses)
        ]
    )  # fmt: skip
    return ledger


def tagged(team: str, key: str = "team"):
    return ((key, team),)


def found_in(folder, *uses: Use, config: Config | None = None, tag: str = ""):
    return suggest_teams(None, ledger_of(folder, *uses), Question(config=config or Config()), tag)


def members(found) -> dict[str, list[tuple[str, str]]]:
    return {team: [(one.kind, one.name) for one in of_team] for team, of_team in found.teams.items()}


def in_dollars(sums) -> dict[str, int]:
    return {name: picos // 10**12 for name, picos in sums.items()}


def test_a_role_goes_where_its_tagged_calls_are(tmp_path):
    """Half of it is tagged, all of that search: the rest is taken to be search's too."""
    found = found_in(
        tmp_path,
        Use(60, session("rag"), tags=tagged("search")),
        Use(40, session("rag")),
        Use(10, session("nightly", THEIRS), THEIRS),
    )
    assert members(found) == {
        "search": [("tags", "team=search"), ("principals", role("rag")), ("accounts", OURS)]
    }
    assert in_dollars(found.claims) == {"search": 100, "unassigned": 10}
    assert found.unassigned == [(role("nightly", THEIRS), 10 * 10**12)]


def test_a_shared_role_is_a_conflict_and_is_left_out(tmp_path):
    shared = session("gateway")
    found = found_in(
        tmp_path, Use(60, shared, tags=tagged("search")), Use(30, shared, tags=tagged("ads")), Use(10, shared)
    )
    assert all(kind == "tags" for of_team in members(found).values() for kind, _ in of_team)
    assert [(c.kind, c.name, c.why) for c in found.conflicts] == [
        ("principals", role("gateway"), "the ledger has tags of search $60.00, ads $30.00"),
        ("accounts", OURS, "the ledger has tags of search $60.00, ads $30.00"),
    ]
    assert in_dollars(found.claims) == {"search": 60, "ads": 30, "unassigned": 10}


def test_a_little_that_is_tagged_does_not_speak_for_the_rest(tmp_path):
    found = found_in(tmp_path, Use(5, session("rag"), tags=tagged("search")), Use(95, session("rag")))
    assert members(found) == {"search": [("tags", "team=search")]}
    assert found.conflicts[0].why == "only search $5.00 of $100.00 is tagged in the ledger"


def test_a_mistaken_tag_does_not_keep_a_role_away(tmp_path):
    found = found_in(
        tmp_path,
        Use(97, session("rag"), tags=tagged("search")),
        Use(3, session("rag"), tags=tagged("serach")),
    )
    assert ("principals", role("rag")) in members(found)["search"]


def test_a_role_named_after_a_team_is_its(tmp_path):
    found = found_in(
        tmp_path,
        Use(50, session("rag"), tags=tagged("search")),
        Use(20, session("SearchIndexer", THEIRS), THEIRS),
        Use(10, session("research", THEIRS), THEIRS),
    )
    assert ("principals", role("SearchIndexer", THEIRS)) in members(found)["search"]
    assert ("principals", role("research", THEIRS)) not in members(found)[
        "search"
    ]  # a word, not a part of one
    assert "by its name alone" in teams_toml(found)


def test_an_account_named_after_a_team_is_its(tmp_path):
    config = Config(accounts={THEIRS: Account(name="search-production")})
    found = found_in(tmp_path, Use(50, tags=tagged("search")), Use(20, "", THEIRS), config=config)
    assert ("accounts", THEIRS) in members(found)["search"]


def test_another_tag_can_name_teams(tmp_path):
    uses = (Use(50, session("rag"), tags=(("cc", "4711"), ("project", "atlas"))),)
    assert set(members(found_in(tmp_path / "a", *uses))) == {
        "atlas"
    }  # the first of the usual names that is there
    assert set(members(found_in(tmp_path / "b", *uses, tag="cc"))) == {"4711"}


def test_what_farthing_toml_has_is_not_said_again(tmp_path):
    config = Config(teams={"search": Team(tags=("team=search",), principals=(role("rag"),))})
    uses = [Use(60, session("rag"), tags=tagged("search")), Use(9, session("two"), tags=tagged("search"))]
    found = found_in(tmp_path, *uses, config=config)
    assert members(found) == {"search": [("principals", role("two")), ("accounts", OURS)]}
    assert "farthing.toml has the team: add these members" in teams_toml(found)


def test_claims_are_what_reports_will_show(tmp_path):
    """The suggested tables, as farthing.toml, share the ledger out as they said they would."""
    uses = [
        Use(60, session("rag"), tags=tagged("search")), Use(40, session("rag")),
        Use(30, session("ads-bidder"), THEIRS, tags=tagged("Ads & more")),
        Use(7, session("nobody", "777788889999"), "777788889999"),
        Use(3, "", THEIRS, PROFILE, tags=tagged("search")), Use(1, "", THEIRS, PROFILE),
    ]  # fmt: skip
    found = found_in(tmp_path, *uses)
    (tmp_path / "farthing.toml").write_text(teams_toml(found))
    config = load(tmp_path / "farthing.toml")
    sums: dict[str, int] = {}
    for cell in cells(Ledger(tmp_path / "ledger"), Question(config=config), ("team",)):
        sums[cell.keys[0]] = sums.get(cell.keys[0], 0) + cell.cost
    assert sums == found.claims
    tenth_dearer = sum(
        use.usd for use in uses if use.model == PROFILE
    )  # regional, as far as a profile's name tells
    assert sum(sums.values()) * 10 == (sum(use.usd for use in uses) * 10 + tenth_dearer) * 10**12


def test_without_any_tag_everything_is_nobodys(tmp_path):
    found = found_in(tmp_path, Use(60, session("rag")), Use(2, "", THEIRS))
    assert (found.teams, found.tag) == ({}, "")
    assert found.unassigned == [(role("rag"), 60 * 10**12), (THEIRS, 2 * 10**12)]
    assert "no tag tells teams: name one with --tag" in teams_toml(found)


# --- a bill ----------------------------------------------------------------------------------------------------------


def told(tags: str = "{}", principal: str = "", resource: str = "", categories: str = "{}"):
    """CUR 2.0 with what tells whose a line is."""

    def form(line, number=0):
        return bills.cur2(line, number) | {
            "line_item_resource_id": resource, "line_item_iam_principal": principal, "resource_tags": tags,
            "tags": categories,
        }  # fmt: skip

    return form


def bill_of(folder, *forms) -> Statement:
    """One line of five dollars a form."""
    base = bills.Line(
        "", OURS, "us-east-1", "claude-opus-5", "global", "on_demand", "input", False, 10**6, Decimal(5)
    )
    path = folder / "cur2.csv"
    folder.mkdir(exist_ok=True)
    rows = [form(replace(base, day=f"2026-09-{n + 1:02}"), n) for n, form in enumerate(forms)]
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)
    return Statement([path])


def test_tags_of_an_application_profile_put_it_to_a_team(tmp_path):
    found = suggest_teams(bill_of(tmp_path, told('{"user_team": "search"}', resource=PROFILE)), None, MONTH)
    assert members(found) == {"search": [("profiles", PROFILE), ("accounts", OURS)]}
    assert in_dollars(found.claims) == {"search": 5}


def test_tags_of_a_principal_put_it_to_a_team(tmp_path):
    """CUR 2.0 has them under iamPrincipal/, and the caller in a column of its own."""
    tags = '{"iamPrincipal/team": "ads"}'
    found = suggest_teams(bill_of(tmp_path, told(categories=tags, principal=session("bidder"))), None, MONTH)
    assert members(found) == {"ads": [("principals", role("bidder")), ("accounts", OURS)]}


def test_a_bill_and_a_ledger_that_disagree_are_a_conflict(tmp_path):
    statement = bill_of(tmp_path, told('{"user_team": "search"}', principal=session("rag")))
    ledger = ledger_of(tmp_path, Use(5, session("rag"), tags=tagged("ads")))
    found = suggest_teams(statement, ledger, MONTH)
    assert {one.kind for of_team in found.teams.values() for one in of_team} == {"tags"}
    (conflict, _) = found.conflicts
    assert conflict.name == role("rag")
    assert "search: all of it is tagged so in the bill" in conflict.why
    assert "ads: all of it is tagged so in the ledger" in conflict.why


def test_the_bills_tags_speak_for_calls_that_have_none(tmp_path):
    """Logs rarely have tags; the profile that a call went by has, in the bill."""
    statement = bill_of(tmp_path, told('{"user_team": "search"}', resource=PROFILE))
    ledger = ledger_of(
        tmp_path, Use(5, session("rag"), model=PROFILE), Use(2, session("other", THEIRS), THEIRS)
    )
    found = suggest_teams(statement, ledger, MONTH)
    assert ("profiles", PROFILE) in members(found)["search"]
    assert in_dollars(found.claims) == {"search": 5, "unassigned": 2}


def test_the_command_suggests_and_writes_nothing_of_yours(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FARTHING_LEDGER", str(tmp_path / "none"))
    bill_of(tmp_path, told('{"user_team": "search"}', resource=PROFILE), told(principal=session("bidder")))
    with pytest.raises(SystemExit) as exit_:
        cli.main(["learn", "--statement", "cur2.csv", "--json"])
    assert not exit_.value.code
    said = json.loads(capsys.readouterr().out)["teams"]
    assert said["claims"] == {"search": "10"}  # half of the account's is tagged, and all of that is search's
    assert tomllib.loads(said["toml"])["teams"]["search"]["profiles"] == [PROFILE]
    assert not (tmp_path / "farthing.toml").exists()
