"""Every figure of a ledger is the same on Spark as on DuckDB, to the picodollar: random ledgers, questions, keys."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cells import Question, cells, parse_where
from farthing.ledger import Ledger, compact
from farthing.reports import REPORTS, as_json
from farthing.usage import Usage
from tests.test_cells import traffic
from tests.test_web_cube import TEAMS, WHERE, ZONES, counted, keys, questions

DOTTED = "tag:cost.centre`s"  # no name for a column of Spark
HARD = [
    # every kind of key and filter that reaches the engine: contexts, tags, claims, zones, days
    (Question(), ()),
    (Question(config=TEAMS), ("team", "week", "routing")),
    (Question(tz="America/St_Johns"), ("day", "model", "tag:env")),
    (Question(where=(*map(parse_where, (f"{DOTTED}=a*", WHERE[2])),)), (DOTTED, "session")),
    (Question(where=tuple(map(parse_where, WHERE[4:6])), config=TEAMS), ("account", "workload")),
    (Question(where=(parse_where("workload=project:*"),), assume={"ttl": "1h"}), ("workload", "month")),
]


def random_ledger(folder: Path, count: int, seed: int) -> Path:
    """Calls in several commits; some first seen otherwise, so that rows are taken back; some with odd tags."""
    rng = random.Random(seed)
    made = Ledger(folder)
    calls = [tagged(call, rng) for call in traffic(count, seed)]
    worse = [
        call._replace(parts=((call.parts[0][0]._replace(source="claude_code"), (9, 0, rng.randrange(400_000), 0, 9)),))
        for call in rng.sample(calls, count // 3)
    ]
    for some in (worse, calls[: count // 2], calls[count // 2 :]):
        made.append(some)
    if seed % 2:
        compact(made)
    return folder


def tagged(call: Usage, rng: random.Random) -> Usage:
    return call._replace(tags=(*call.tags, ("cost.centre`s", rng.choice("abc")))) if rng.random() < 0.5 else call


@pytest.fixture(scope="module")
def both(tmp_path_factory, spark) -> tuple[Ledger, Ledger]:
    folder = random_ledger(tmp_path_factory.mktemp("a ledger"), 300, 4)
    return Ledger(folder), Ledger(folder, engine=spark)


@pytest.mark.parametrize("number", range(len(HARD)))
def test_cells_are_the_same(both, number):
    question, by = HARD[number]
    here, there = (cells(ledger, question, by, by_meter=number % 2 == 0) for ledger in both)
    assert counted(there) == counted(here)
    assert here


@pytest.mark.parametrize("name", ["bill", "daily", "levers"])
def test_reports_are_the_same(both, name):
    here, there = (as_json(REPORTS[name].make(ledger, Question(config=TEAMS))) for ledger in both)
    assert there == here
    assert here["rows"]
