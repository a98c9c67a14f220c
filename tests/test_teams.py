"""Teams: a call is a team's by its tags, else by profile, principal, account; what nobody claims is unassigned."""

import random
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase

import msgspec
import pytest

from farthing.cells import Question, cells, parse_where
from farthing.config import MEMBERS, Config, Members, Team, Workload
from farthing.ledger import Ledger
from farthing.meters import Vector
from farthing.usage import Facts, Usage, parse_model_id

DAY_US = 86_400_000_000
START = int(datetime(2026, 10, 1, tzinfo=UTC).timestamp()) * 1_000_000
ACCOUNTS = ("111122223333", "444455556666", "")
PROFILE = "arn:aws:bedrock:eu-west-1:111122223333:application-inference-profile/"
MODELS = ("eu.anthropic.claude-sonnet-5", f"{PROFILE}search1", f"{PROFILE}ads2", f"{PROFILE}nobody")
SESSION = "arn:aws:sts::111122223333:assumed-role/"
PROJECTS = ("", "", "/home/ann/shop", "/home/bob/ads", "C:\\work\\ads")
PRINCIPALS = (
    "",
    f"{SESSION}search-api/pod-1",
    f"{SESSION}search-api/pod-2",
    f"{SESSION}search-batch/pod-1",
    f"{SESSION}ads/ada@example.com",
    "arn:aws:iam::444455556666:user/ada",
)
TAGS = (
    (),
    (("team", "search"),),
    (("team", "ads"),),
    (("team", ""),),
    (("cost", "ads-eu"), ("team", "nobody's")),
    (("cost", "search-eu"), ("team", "ads")),
    (("env", "test"),),
)
MADE_MEMBERS = {
    "tags": ("team=search", "team=ads", "cost=*-eu", "cost=ads-*", "team=nobody's", "env=t?st", "none=x"),
    "profiles": (f"{PROFILE}search1", "ads2", "*search1", "arn:*", "*"),
    "principals": (
        f"{SESSION}search-api/pod-1",
        f"{SESSION}search-*",
        "arn:aws:iam::111122223333:role/services/search-api",
        "arn:aws:iam::111122223333:role/search-*",
        "*/ada",
        "*ada@example.com",
    ),
    "projects": ("/home/ann/shop", "/home/*", "C:\\work\\ads"),
    "accounts": ("111122223333", "444455556666", "4*", "1111????3333"),
}


def made_calls(seed: int) -> list[Usage]:
    rng = random.Random(seed)
    calls = []
    for i in range(120):
        account, principal, project = rng.choice(ACCOUNTS), rng.choice(PRINCIPALS), rng.choice(PROJECTS)
        models = (rng.choice(MODELS) for _ in range(rng.choice([1, 1, 2])))
        parts = tuple(
            (
                Facts("bedrock_log", "bedrock", model, "", "eu-west-1", account, principal, project=project),
                (rng.randrange(1, 999), rng.randrange(99), 0, 0, 0),
            )
            for model in models
        )
        at_us = START + rng.randrange(3) * DAY_US
        calls.append(Usage(at_us, f"r{i}", f"m{i}", parts, rng.choice(TAGS)))
    return calls


def made_teams(seed: int, *kinds: str) -> dict[str, Team]:
    """Random members, none of them given to two teams."""
    rng = random.Random(seed)
    members: dict[str, dict[str, list[str]]] = {
        name: defaultdict(list) for name in rng.sample(["search", "ads", "data", "ops"], 3)
    }
    for kind in kinds or MEMBERS:
        for member in rng.sample(MADE_MEMBERS[kind], rng.randrange(1, len(MADE_MEMBERS[kind]) + 1)):
            members[rng.choice(list(members))][kind].append(member)
    return {name: msgspec.convert(listed, Team) for name, listed in members.items()}


# --- the same, one call at a time: the rules as the pages state them ----------------------------------------------


def fits(member: str, value: str) -> bool:
    return bool(value) and fnmatchcase(value, member)


def names(kind: str, facts: Facts) -> list[str]:
    if kind in ("accounts", "projects"):
        return [facts.account if kind == "accounts" else facts.project]
    if kind == "profiles":
        arn = parse_model_id(facts.model_id).profile
        return [arn, arn.rpartition("/")[2]] if arn.startswith("arn:") else []
    if not facts.principal.startswith(SESSION):
        return [facts.principal]
    role = facts.principal.removeprefix(SESSION).partition("/")[0]
    return [facts.principal, f"arn:aws:iam::111122223333:role/{role}"]


def team_of(call: Usage, facts: Facts, teams: Mapping[str, Members]) -> str:
    if not teams:
        return dict(call.tags).get("team") or "unassigned"
    for kind in MEMBERS:
        values = [f"{key}={value}" for key, value in call.tags] if kind == "tags" else names(kind, facts)
        for is_pattern in (False, True):
            for name, team in teams.items():
                for member in getattr(team, kind):
                    member = member.replace("role/services/", "role/")
                    if ("*" in member or "?" in member) == is_pattern and any(
                        fits(member, value) for value in values
                    ):
                        return name
    return "unassigned"


def one_by_one(calls, teams, keep=bool):
    sums: dict[tuple, list] = defaultdict(lambda: [0, Vector()])
    for call in calls:
        for part, (facts, counts) in enumerate(call.parts):
            team = team_of(call, facts, teams)
            if keep(team):
                sums[team, facts.account][0] += part == 0
                sums[team, facts.account][1] += Vector(*counts)
    return {keys: tuple(total) for keys, total in sums.items()}


def grouped(ledger, teams, *where, keys=("team", "account")):
    question = Question(config=Config(teams=teams), where=tuple(map(parse_where, where)))
    sums: dict[tuple, list] = defaultdict(lambda: [0, Vector()])
    for cell in cells(ledger, question, keys):
        sums[cell.keys][0] += cell.calls
        sums[cell.keys][1] += cell.tokens
    return {keys: tuple(total) for keys, total in sums.items()}


@pytest.fixture(scope="module")
def calls():
    return made_calls(1)


@pytest.fixture(scope="module")
def ledger(calls, tmp_path_factory):
    made = Ledger(tmp_path_factory.mktemp("ledger"))
    made.append(calls[::2])
    made.append(calls)
    return made


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kinds", [(), ("tags",), ("accounts", "principals"), ("profiles",)], ids="+".join)
def test_teams_are_those_of_the_calls_one_by_one(ledger, calls, seed, kinds):
    teams = made_teams(seed, *kinds)
    assert grouped(ledger, teams) == one_by_one(calls, teams)
    first = next(iter(teams))
    for said, keep in (
        (f"team={first}", lambda team: team == first),
        (f"team!={first}", lambda team: team != first),
        ("team=unassigned", lambda team: team == "unassigned"),
        ("team=*a*,ops", lambda team: "a" in team or team == "ops"),
    ):
        assert grouped(ledger, teams, said) == one_by_one(calls, teams, keep)


def test_without_teams_the_tag_says_it(ledger, calls):
    found = grouped(ledger, {})
    assert found == one_by_one(calls, {})
    assert {team for team, _ in found} == {"search", "ads", "nobody's", "unassigned"}
    assert grouped(ledger, {}, "team!=ads") == one_by_one(calls, {}, lambda team: team != "ads")


def test_teams_beside_other_keys_and_filters(ledger, calls):
    teams = made_teams(3)
    both = grouped(
        ledger, teams, "team!=unassigned", "tag:team=ads", keys=("day", "team", "tag:team", "team")
    )
    kept = [call for call in calls if dict(call.tags).get("team") == "ads"]
    alone = one_by_one(kept, teams, lambda team: team != "unassigned")
    assert sum(calls for calls, _ in both.values()) == sum(calls for calls, _ in alone.values()) > 0
    assert {keys[1] for keys in both} == {team for team, _ in alone}
    assert all(keys[1] == keys[3] and keys[2] == "ads" for keys in both)


def test_a_name_comes_before_a_pattern_and_the_first_team_before_the_next(ledger):
    teams = {
        "all": Team(accounts=("*",)),
        "first": Team(tags=("team=*",)),
        "second": Team(tags=("team=s*",)),
        "named": Team(tags=("team=search",)),
    }
    by_tag = {keys[1:]: keys[0] for keys in grouped(ledger, teams, keys=("team", "tag:team"))}
    assert by_tag["search",] == "named"
    assert by_tag["ads",] == "first"


def test_a_call_that_nobody_claims_is_not_lost(ledger, calls):
    teams = {"nobody": Team(principals=("arn:aws:iam::999999999999:user/nobody",))}
    assert {keys[0] for keys in grouped(ledger, teams)} == {"unassigned"}
    total = grouped(ledger, teams, keys=("team",))["unassigned",]
    assert total == (len(calls), sum((Vector(*t) for c in calls for _, t in c.parts), Vector()))


# --- workloads are claimed in the same way -------------------------------------------------------------------------


def workload_of(call: Usage, facts: Facts, workloads: dict[str, Workload]) -> str:
    named = team_of(call, facts, workloads) if workloads else "unassigned"
    if named != "unassigned":
        return named
    profile = names("profiles", facts)
    if profile:
        return f"profile:{profile[1]}"
    if facts.project:
        return f"project:{facts.project}"
    if facts.principal:
        *_, role = names("principals", facts)
        return f"role:{role.rpartition('/')[2]}" if ":role/" in role else f"principal:{facts.principal}"
    return f"account:{facts.account}" if facts.account else "unassigned"


@pytest.mark.parametrize("seed", range(6))
def test_workloads_are_named_by_their_owner_or_by_what_they_are(ledger, calls, seed):
    made = {
        name: Workload(**{kind: getattr(team, kind) for kind in MEMBERS})
        for name, team in made_teams(seed).items()
    }
    workloads = {} if seed == 0 else made
    teams = made_teams(seed + 50)
    expected: dict[tuple, Vector] = defaultdict(Vector)
    for call in calls:
        for facts, counts in call.parts:
            keys = (workload_of(call, facts, workloads), facts.account, team_of(call, facts, teams))
            expected[keys] += Vector(*counts)
    question = Question(config=Config(teams=teams, workloads=workloads))
    found: dict[tuple, Vector] = defaultdict(Vector)
    for cell in cells(ledger, question, ("workload", "account", "team")):
        found[cell.keys] += cell.tokens
    assert found == expected


def test_workloads_can_be_filtered_by(ledger, calls):
    workloads = {"shop": Workload(projects=("/home/ann/shop",), tags=("team=search",))}
    question = Question(config=Config(workloads=workloads), where=(parse_where("workload=shop"),))
    counted = sum(workload_of(call, call.parts[0][0], workloads) == "shop" for call in calls)
    assert sum(cell.calls for cell in cells(ledger, question, ("day",))) == counted > 0
