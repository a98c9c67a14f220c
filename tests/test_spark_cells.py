"""Every figure of a ledger is the same on Spark as on DuckDB, to the picodollar: random ledgers, questions, keys."""

import json
import random
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from deltalake import DeltaTable, TableFeatures
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing import cli
from farthing.cells import Question, cells, parse_where
from farthing.ledger import Ledger, LedgerError, _spark, compact
from farthing.reports import REPORTS, as_json
from farthing.usage import Usage
from tests import old_ledger
from tests.test_cells import traffic
from tests.test_web_cube import TEAMS, WHERE, counted, keys, questions

DOTTED = "tag:cost.centre`s"  # no name for a column of Spark
TO_SPARK = ("--engine", "spark")
HARD = [
    # every kind of key and filter that reaches the engine: contexts, tags, claims, zones, days
    (Question(config=TEAMS), ("team", "week", "routing")),
    (Question(date(2026, 3, 1), date(2026, 9, 30), "America/St_Johns"), ("day", "model", "tag:env")),
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
        call._replace(
            parts=((call.parts[0][0]._replace(source="claude_code"), (9, 0, rng.randrange(400_000), 0, 9)),)
        )
        for call in rng.sample(calls, count // 3)
    ]
    for some in (worse, calls[: count // 2], calls[count // 2 :]):
        made.append(some)
    if seed % 2:
        compact(made)
    return folder


def tagged(call: Usage, rng: random.Random) -> Usage:
    return (
        call._replace(tags=(*call.tags, ("cost.centre`s", rng.choice("abc")))) if rng.random() < 0.5 else call
    )


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


@pytest.mark.parametrize("name", ["bill", "levers"])
def test_reports_are_the_same(both, name):
    here, there = (as_json(REPORTS[name].make(ledger, Question(config=TEAMS))) for ledger in both)
    assert there == here
    assert here["rows"]


def test_a_command_takes_the_session_that_is_there(both, spark, capsys, monkeypatch):
    asked = []

    def rows(*given, read=_spark.rows):
        asked.append(given)
        return read(*given)

    monkeypatch.setattr(_spark, "rows", rows)
    said = [
        ran(capsys, "by", "model", "--ledger", both[0].folder, "--json", *more) for more in ((), TO_SPARK)
    ]
    assert said[1] == said[0]
    assert len(asked) == 1
    assert spark.range(3).count() == 3  # the caller's session is left running


def ran(capsys, *words) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    return int(ended.value.code or 0), capsys.readouterr().out


def test_files_of_an_old_ledger_lack_columns(tmp_path, spark):
    """They were made without some, later ones have them: both are read."""
    folder = tmp_path / "ledger"
    old_ledger.write(folder, [[old_ledger.call(number) for number in range(4)]])
    Ledger(folder).append([old_ledger.call(number) for number in range(4, 9)])
    here, there = (cells(ledger, Question()) for ledger in (Ledger(folder), Ledger(folder, engine=spark)))
    assert counted(there) == counted(here)
    assert sum(cell.calls for cell in there) == 9


def test_rows_that_files_alone_do_not_tell_are_refused(tmp_path, spark):
    ledger = Ledger(tmp_path, engine=spark)
    ledger.append(traffic(3, 1))
    usage = DeltaTable(tmp_path / "usage")
    usage.alter.add_feature(TableFeatures.DeletionVectors, allow_protocol_versions_increase=True)
    with pytest.raises(LedgerError, match="cannot read usage: the table has deletion vectors"):
        cells(ledger, Question())


@pytest.mark.spark_long
@pytest.mark.parametrize("seed", range(20, 26))
def test_random_ledgers_come_to_the_same(tmp_path, spark, seed):
    folder = random_ledger(tmp_path / "ledger", 400, seed)
    here, there = Ledger(folder), Ledger(folder, engine=spark)

    @settings(max_examples=15)
    @given(question=questions, keys=keys, by_meter=st.booleans())
    def same(question, keys, by_meter):
        wanted = counted(cells(here, question, keys, by_meter=by_meter))
        assert counted(cells(there, question, keys, by_meter=by_meter)) == wanted

    same()


@pytest.mark.spark_long
def test_executors_of_their_own_come_to_the_same(tmp_path, spark):
    """Spark has one master a process: these executors are of another program."""
    folder = random_ledger(tmp_path / "ledger", 400, 30)
    wanted = as_json(REPORTS["by"].make(Ledger(folder), Question(), keys=("model", "month")))
    code = f"""
import json
from pyspark.sql import SparkSession
from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.reports import REPORTS, as_json
asked = SparkSession.builder.master("local-cluster[2,1,1024]").config("spark.ui.enabled", "false")
session = asked.getOrCreate()
ledger = Ledger({str(folder)!r}, engine=session)
print(json.dumps(as_json(REPORTS["by"].make(ledger, Question(), keys=("model", "month")))))
session.stop()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == json.loads(json.dumps(wanted))
