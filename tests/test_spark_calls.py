"""What looks at single calls comes to the same on Spark: reconcile, copies, savings, what-ifs, traces and bounds."""

import gzip
import json
import random
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from farthing import cli
from farthing.aws import Access
from farthing.cache import Cards, compare, saved, uncached
from farthing.cells import Question
from farthing.cli import _opened
from farthing.ledger import Ledger, compact
from farthing.levers import LEVERS
from farthing.meters import Vector
from farthing.optimise import Scenario, _traffic, whatif
from farthing.reconcile._writes import Writes
from farthing.reports import REPORTS, as_json
from farthing.reports._pairs import find_copies
from farthing.traces import Log, Spread, TraceError, read_traces, read_traces_on
from farthing.usage import EPOCH, Usage
from tests import bills, faults
from tests.agents import START, sessions, singles
from tests.test_cells import traffic
from tests.test_spark_cells import random_ledger

SONNET = "us.anthropic.claude-sonnet-4-6"
RATES = Vector(3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000)
KEY = b"a key"


@pytest.fixture(autouse=True)
def no_rows_here(monkeypatch):
    """A ledger on Spark has none for this process to look at."""
    held = Ledger.rows
    monkeypatch.setattr(Ledger, "rows", lambda self: held(self).limit(0) if self.engine else held(self))


def both(folder: Path, spark) -> tuple[Ledger, Ledger]:
    return Ledger(folder), Ledger(folder, engine=spark)


def ran(capsys, *words: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(map(str, words)))
    return int(ended.value.code or 0), capsys.readouterr().out


def same_said(capsys, *words: object) -> str:
    """What a command says, without Spark and on the session that is there."""
    answer = ran(capsys, *words, "--json")
    assert ran(capsys, *words, "--json", "--engine", "spark") == answer
    return answer[1]


# --- the ledger ----------------------------------------------------------------------------------------------------


def a_month(folder: Path, rates, seed: int, some) -> list[object]:
    """A month with these faults in its bill, some calls of which were first seen otherwise: how to ask for it."""
    rng = random.Random(seed)
    made = faults.month(rng, rates, date(2026, 9, 1), size=8_000)
    for plant in some:
        plant(made, rng, rates)
    usages = made.usages()
    Ledger(folder / "ledger").append([poorer(call) for call in usages[::7]])
    Ledger(folder / "ledger").append(usages)
    bill = made.write(folder / "cur.csv")
    return ["reconcile", "--ledger", folder / "ledger", "--statement", bill, "--month", "2026-09"]


def poorer(call: Usage) -> Usage:
    """The record of a client that saw a part of the call."""
    facts, tokens = call.parts[0]
    return call._replace(parts=((facts._replace(source="claude_code"), (tokens[0] // 2, *tokens[1:])),))


@pytest.fixture(scope="module")
def rates(shared):
    return bills.Rates(shared / "facts" / "rates.json")


def test_reconcile_names_the_same(tmp_path, spark, rates, capsys):
    said = same_said(capsys, *a_month(tmp_path, rates, 3, [faults.hidden_passes]))
    assert '"compaction or fallback attempts"' in said


def test_sizes_of_cache_writes_are_the_same(tmp_path, spark):
    here, there = both(worked(tmp_path, 3, 4), spark)
    day = (START.date() - EPOCH.date()).days
    sizes = Writes(here, Question())._sizes(day)
    assert Writes(there, Question())._sizes(day) == sizes != {}


@pytest.mark.spark_long
@pytest.mark.parametrize("seed", range(40, 46))
def test_reconcile_names_the_same_in_many_months(tmp_path, spark, rates, capsys, seed):
    some = faults.FAULTS[:-1]  # the last leaves nothing to see
    same_said(capsys, *a_month(tmp_path, rates, seed, some), "--by", "day,model,meter")


def twice_told(folder: Path, seed: int, count: int = 150) -> Path:
    """A ledger in which some calls are told of by a client, too, without a common id; some of these were replaced."""
    rng = random.Random(seed)
    random_ledger(folder, count, seed)
    found = [call for call in traffic(count, seed) if len(call.parts) == 1]
    again = [
        call._replace(
            at_us=call.at_us + rng.randrange(3_000_000), request_id="", message_id="", gateway_id=f"again-{n}", also=(),
            parts=((facts._replace(source=rng.choice(("litellm", "claude_code_events"))), tokens),),
        )
        for n, call in enumerate(rng.sample(found, len(found) // 2))
        for facts, tokens in call.parts
    ]  # fmt: skip
    Ledger(folder).append([poorer(call) for call in again[::3]])
    Ledger(folder).append(again)
    if seed % 2:
        compact(Ledger(folder))
    return folder


def same_copies(folder: Path, spark, seed: int) -> int:
    here, there = both(twice_told(folder, seed), spark)
    found = find_copies(here, Question(), 2)
    assert find_copies(there, Question(), 2) == found
    return len(found)


def test_copies_are_the_same(tmp_path, spark):
    assert same_copies(tmp_path, spark, 5) > 10


@pytest.mark.spark_long
@pytest.mark.parametrize("seed", range(50, 58))
def test_copies_and_reports_of_them_are_the_same_in_many_ledgers(tmp_path, spark, seed):
    same_copies(tmp_path, spark, seed)
    here, there = both(tmp_path, spark)
    for name in ("duplicates", "coverage"):
        wanted, found = (as_json(REPORTS[name].make(ledger, Question())) for ledger in (here, there))
        assert found == wanted


def worked(folder: Path, seed: int, count: int = 12) -> Path:
    """Sessions and single calls of three workloads and two models, some of them seen in two ways."""
    haiku = SONNET.replace("sonnet-4-6", "haiku-4-5-20251001-v1:0")
    calls = [
        *sessions("agents", SONNET, (1, 20), count, seed=seed),
        *sessions("coders", haiku, (1, 2, 9), count // 2, seed=seed + 1, ttl="1h"),
        *singles("nightly", SONNET, 60),
    ]
    Ledger(folder).append([poorer(call) for call in calls[::5]])
    Ledger(folder).append(calls)
    return folder


def test_savings_are_the_same(tmp_path, spark, capsys):
    said = json.loads(same_said(capsys, "savings", "--ledger", worked(tmp_path, 1)))
    assert {one["lever"] for one in said["levers"]} >= {"cache", "channel"}


def test_of_many_sessions_the_same_are_taken(tmp_path, spark, monkeypatch):
    monkeypatch.setattr(_traffic, "MOST_ROWS", 60)
    here, there = (_traffic._session_rows(ledger, Question()) for ledger in both(worked(tmp_path, 2), spark))
    assert here[0] == there[0] > 1
    assert list(there[1]()) == list(here[1]()) != []


@pytest.mark.spark_long
@pytest.mark.parametrize("seed", range(60, 64))
def test_savings_are_the_same_of_much_traffic(tmp_path, spark, capsys, seed):
    same_said(capsys, "savings", "--ledger", worked(tmp_path, seed, 60))


def test_what_ifs_are_the_same(tmp_path, spark):
    here, there = both(random_ledger(tmp_path, 200, 7), spark)
    asked = [
        Scenario(" ".join(names), names) for names in (("endpoint",), ("batch", "endpoint"), tuple(LEVERS))
    ]
    outcomes = whatif(here, Question(), asked)
    assert whatif(there, Question(), asked) == outcomes
    assert any(one.moved for one in outcomes)


# --- traces --------------------------------------------------------------------------------------------------------


def said(name: str, at_s: int, model: str, body: dict, counts: tuple[int, int, int]) -> dict:
    """A record of an invocation log with its body."""
    fresh, read, written = counts
    usage = {"input_tokens": fresh, "cache_read_input_tokens": read, "cache_creation_input_tokens": written}
    at = datetime.fromtimestamp(1_790_000_000 + at_s, UTC)
    return {
        "schemaType": "ModelInvocationLog", "schemaVersion": "1.0", "timestamp": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "accountId": "111122223333", "region": "us-east-1", "requestId": name, "operation": "InvokeModel",
        "modelId": model,
        "input": {"inputTokenCount": fresh, "cacheReadInputTokenCount": read, "cacheWriteInputTokenCount": written,
                  "inputBodyJson": body},
        "output": {"outputTokenCount": 90, "outputBodyJson": {"usage": usage | {"output_tokens": 90}}},
    }  # fmt: skip


def logs(folder: Path, seed: int, files: int = 4, each: int = 20) -> Path:
    """Logs of agents that share tools: with copies in other files, clocks that run back, and all that can be bad."""
    rng, folder = random.Random(seed), folder / "logs"
    folder.mkdir()
    tools = [{"name": "find", "description": "Finds things. " * 400, "input_schema": {"type": "object"}}]
    models = [f"us.anthropic.claude-{name}" for name in ("sonnet-4-6", "opus-4-6-v1")]
    told: list[dict] = []
    for number in range(files):
        records = []
        for at in range(each):
            agent, turn = rng.randrange(6), rng.randrange(1, 5)
            messages = [
                {"role": ("user", "assistant")[n % 2], "content": f"{agent} asks {n}: " + "word " * 300}
                for n in range(2 * turn - 1)
            ]
            system = "" if agent == 5 else "You are an agent. " * 200
            body = {"tools": tools, "system": system, "messages": messages, "max_tokens": 100}
            counts = rng.choice([(3_000, 0, 0), (200, 2_000 * turn, 0), (100, 1_500, 900)])
            when = 40_000 * number + 200 * at - rng.choice([0, 0, 0, 500])
            records.append(said(f"r{number}-{at}", when, rng.choice(models), body, counts))
        records += rng.sample(told, min(4, len(told)))
        told += records
        lines = [json.dumps(record) for record in records]
        lines.insert(7, '{"schemaType": "ModelInvocationLog", "requestId": 3}')
        (folder / f"{number}.json.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (folder / "notes.txt").write_text("hello")
    (folder / "torn.json.gz").write_bytes((folder / "0.json.gz").read_bytes()[:-99])
    return folder


def same_of(folder: Path, spark) -> Log:
    """The log of a folder, which executors read to the same, with the same bounds."""
    wrong: list[str] = []
    here = read_traces(_opened.sources(str(folder), wrong), KEY)
    _, places = _opened.reached(str(folder), [])
    spread = Spread(spark, list(places), partial(_opened.opened, Access()), KEY)
    there = spread.log()
    assert there
    for name in ("at_us", "namespace", "output", "plain", "starts", "nodes", "sizes", "system", "kinds"):
        assert np.array_equal(getattr(there.trace, name), getattr(here.trace, name)), name
    assert there.trace.namespaces == here.trace.namespaces
    assert (replace(there, trace=here.trace), spread.faults) == (here, wrong)

    cards = Cards.one(RATES, here.trace)
    wanted = compare(here.trace, cards, 1_024)
    assert compare(here.trace, cards, 1_024, parts=7) == wanted
    ((picos,),) = saved(spread.rows(), RATES, 1_024).collect()  # of rows that stay on the executors
    assert uncached(here.trace, cards) - int(picos) == wanted.bound
    spread.forget()
    assert len(wrong) == 1
    return here


def test_a_trace_is_the_same_and_what_it_could_cost(tmp_path, spark):
    log = same_of(logs(tmp_path, 1), spark)
    assert {"copies", "unreadable"} <= set(log.left)
    assert log.mended["clocks run back: sorted"]
    assert (log.others, len(log.trace.namespaces), log.billed is not None) == (1, 2, True)


def test_the_bound_is_the_same(tmp_path, spark, capsys):
    asked = ("cache", "bound", logs(tmp_path, 3, 2), "--model", "claude-sonnet-4-6", "--at", "2026-11-01")
    assert json.loads(same_said(capsys, *asked))["requests"] == 40


@pytest.mark.spark_long
@pytest.mark.parametrize("seed", range(70, 76))
def test_traces_and_bounds_are_the_same_of_many_logs(tmp_path, spark, capsys, seed):
    same_of(logs(tmp_path, seed, 12, 80), spark)
    same_said(capsys, "cache", "bound", tmp_path / "logs", "--model", "claude-opus-5-5")


@pytest.mark.parametrize("name", ["kv_trace", ""])
def test_no_trace_is_told_as_it_is_without_spark(tmp_path, spark, name):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(TraceError) as here:
        read_traces(_opened.sources(str(tmp_path), []), KEY, name)
    opened = partial(_opened.opened, Access())
    with pytest.raises(TraceError, match=f"^{re.escape(str(here.value))}$"):
        read_traces_on(spark, [str(tmp_path / "notes.txt")], opened, KEY, name)


# --- a cluster -----------------------------------------------------------------------------------------------------


@pytest.mark.spark_long
def test_the_commands_on_executors_of_their_own(tmp_path, rates, capsys):
    """Spark has one master a process: these executors are of another program."""
    asked = [
        ["cache", "bound", logs(tmp_path, 4), "--model", "claude-sonnet-4-6", "--at", "2026-11-01"],
        ["savings", "--ledger", worked(tmp_path / "worked", 5)],
        a_month(tmp_path, rates, 6, faults.FAULTS[:-1]),
        ["duplicates", "--ledger", twice_told(tmp_path / "twice", 7)],
    ]
    given = [[*map(str, words), "--json"] for words in asked]
    code = """
import json, sys
from pyspark.sql import SparkSession
from farthing import cli
asked = SparkSession.builder.master("local-cluster[2,1,1024]").config("spark.ui.enabled", "false")
session = asked.getOrCreate()
for words in json.loads(sys.argv[1]):
    try:
        cli.main([*words, "--engine", "spark"])
    except SystemExit as ended:
        print(int(ended.code or 0), flush=True)
session.stop()
"""
    command = [sys.executable, "-c", code, json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = [ran(capsys, *words) for words in given]
    assert done.stdout == "".join(f"{out}{code}\n" for code, out in answers)
