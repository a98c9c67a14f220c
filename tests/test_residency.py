"""Residency: a call is inside a rule only with evidence, and one that is outside is an answer of no."""

from datetime import UTC, datetime, timedelta
from itertools import count

import msgspec
import pytest

from farthing.cells import Question, QuestionError
from farthing.config import Account, Config, Residency, Team
from farthing.ledger import Ledger
from farthing.reports import REPORTS
from farthing.usage import EPOCH, Facts, Usage

NOON = datetime(2026, 6, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
A, B = "111122223333", "444455556666"
EU, US = "eu-west-1", "us-east-1"
LOG = Facts("bedrock_log", "bedrock", "eu.anthropic.claude-sonnet-4-6", region=EU, account=A)
GLOBAL = "global.anthropic.claude-sonnet-4-6"
NUMBERS = count(1)


def call(facts, tokens=(1_000, 200, 0, 0, 0), at=NOON, **more):
    at_us = (at - EPOCH) // timedelta(microseconds=1)
    return Usage(at_us, f"r{next(NUMBERS)}", "", ((facts, tokens),), **more)


@pytest.fixture
def told(tmp_path):
    def make(usages, name, **asked):
        ledger = Ledger(tmp_path / "ledger")
        ledger.append(list(usages))
        return REPORTS[name].make(ledger, Question(**asked))

    return make


def judged(told, usages, *rules, **more):
    config = Config(residency=tuple(rules), **more)
    return told(usages, name="residency", config=config)


ROUTED = {
    "geo:eu": LOG,
    "global": LOG._replace(model_id=GLOBAL),
    "geo:us": LOG._replace(model_id="us.anthropic.claude-sonnet-4-6", region=US),
    "in_region:eu-west-1": LOG._replace(model_id="anthropic.claude-sonnet-4-6"),
    "in_region:us-east-1": LOG._replace(model_id="anthropic.claude-sonnet-4-6", region=US),
    "in_region": LOG._replace(model_id="anthropic.claude-sonnet-4-6", region=""),
    "opaque": LOG._replace(model_id=f"arn:aws:bedrock:{EU}:{A}:application-inference-profile/abc"),
}


@pytest.mark.parametrize(
    ("allow", "outside", "unknown"),
    [
        (("geo:eu",), 4 + 1, 1),
        (("geo:eu", "in_region:eu-*"), 3, 2),
        (("geo:eu", "in_region"), 2, 1),
        (("global", "geo:*", "in_region"), 0, 1),
        (("*",), 0, 0),
    ],
)
def test_calls_outside_and_calls_nothing_is_known_of(told, allow, outside, unknown):
    table = judged(told, [call(facts) for facts in ROUTED.values()], Residency(allow=allow))
    (rule,) = table.parts["rules"]
    assert (rule["outside_calls"], rule["unknown_calls"]) == (outside, unknown)
    assert rule["inside_calls"] == len(ROUTED) - outside - unknown
    assert table.failed == bool(outside)
    assert sum(row["calls"] for row in table.rows) == outside + unknown


def test_a_rule_is_for_whom_and_when_it_says(told):
    usages = [
        call(ROUTED["global"]),
        call(ROUTED["global"], at=NOON - DAY),
        call(LOG._replace(principal="role/app")),
    ]
    production = {A: Account(name="production")}
    strict = Residency(allow=("in_region",))
    rules = (
        msgspec.structs.replace(strict, accounts=("production",)),
        msgspec.structs.replace(strict, accounts=(B,)),
        msgspec.structs.replace(strict, principals=("role/*",)),
        msgspec.structs.replace(strict, since="2026-06-10"),
    )
    table = judged(told, usages, *rules, accounts=production)
    assert [rule["outside_calls"] for rule in table.parts["rules"]] == [3, 0, 1, 2]
    assert table.rows[0]["usd"] == max(row["usd"] for row in table.rows if row["rule"] == 1)


def test_a_call_that_was_refused_ran_nowhere(told):
    refused = call(ROUTED["global"]._replace(status="AccessDeniedException"), (0, 0, 0, 0, 0))
    table = judged(told, [refused, call(LOG)], Residency(allow=("geo:eu",)))
    assert (table.failed, table.rows, table.parts["rules"][0]["failed_calls"]) == (False, [], 1)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Config(), "no residency policy: add [[residency]]"),
        (Config(residency=(Residency(allow=("europe",)),)), "'europe' is no routing"),
        (Config(residency=(Residency(allow=("global",), since="May"),)), "'May' is no day"),
    ],
)
def test_a_policy_that_is_none(told, config, said):
    with pytest.raises(QuestionError, match=said.replace("[", r"\[")):
        told([call(LOG)], name="residency", config=config)


def test_a_rule_is_for_teams(told):
    usages = [call(LOG._replace(principal="ann")), call(LOG._replace(principal="bob"))]
    teams = {"search": Team(principals=("ann",))}
    table = judged(told, usages, Residency(allow=("in_region",), teams=("search",)), teams=teams)
    assert [row["principal"] for row in table.rows] == ["ann"]
