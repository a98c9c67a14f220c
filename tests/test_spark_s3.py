"""Spark and buckets, without Hadoop's jar for them: executors read logs and ledgers with the keys of the driver.

A small S3 of ours gives, counts and fails; ledgers that are written are in moto.
"""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from pyarrow import record_batch

from farthing import cli
from farthing.api import import_paths
from farthing.aws import Access, Keys, keys
from farthing.cells import Question, cells
from farthing.importers import _reading, _spark
from farthing.importers._pool import here as in_this_process
from farthing.importers._task import Range, Task
from farthing.ledger import Ledger, _objects
from farthing.ledger._tables import USAGE
from farthing.reports import REPORTS
from tests import faults, old_ledger
from tests.s3_server import Bucket, Fault, serving
from tests.test_s3 import NOW, hour, lines, nobody_else, packed, rows_of  # noqa: F401  a fixture of all tests here
from tests.test_spark_calls import a_month, logs, rates, worked  # noqa: F401  the rates, too
from tests.test_spark_cells import HARD, ran, random_ledger
from tests.test_web_cube import counted

PLACE = "s3://costs/a team/ledger"
SECRET = "made-up-secret"
BUSY = (Fault(503, "SlowDown", "Please reduce your request rate."), Fault(500, "InternalError", "Try again."))


@dataclass
class Flaky(Bucket):
    """A bucket that answers each first request for some keys with an error of its own."""

    busy: dict[str, Fault] = field(default_factory=dict)

    def answer(self, method: str, target: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        key = unquote(target.partition("?")[0]).partition(f"/{self.name}/")[2]
        if fault := self.busy.pop(key, None):
            self.asked.append(f"GET {key}")
            return self.refuse(fault)
        return super().answer(method, target, headers)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A ledger in a folder."""
    return random_ledger(tmp_path_factory.mktemp("kept"), 200, 4)


@pytest.fixture
def bucket(kept, monkeypatch):
    """The same ledger in a bucket."""
    files = {f"a team/ledger/{path.relative_to(kept)}": path for path in kept.rglob("*") if path.is_file()}
    held = {key: path.read_bytes() for key, path in files.items()}
    with serving(Flaky("costs", objects=held)) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
        yield made


def no_usage_here(tmp_path: Path) -> bool:
    """Whether this machine has fetched no row."""
    return not list((tmp_path / "cache").rglob("usage"))


def usage_read(bucket: Bucket) -> set[str]:
    return {asked for asked in bucket.asked if asked.endswith(".parquet") and "/usage/" in asked}


# --- a ledger in a bucket ------------------------------------------------------------------------------------------


def test_cells_are_the_same_and_files_of_other_days_are_not_opened(bucket, kept, spark, tmp_path):
    here, there = Ledger(kept), Ledger(PLACE, engine=spark)
    question, by = HARD[1]
    assert counted(cells(there, question, by)) == counted(cells(here, question, by)) != {}
    assert 0 < len(usage_read(bucket)) < len(here.delta("usage").file_uris())
    assert no_usage_here(tmp_path)


def test_single_calls_are_the_same_though_s3_is_busy(bucket, kept, spark, tmp_path):
    columns = tuple(name for name in USAGE if name != "month")
    bucket.busy = dict(zip([key for key in bucket.objects if "/usage/month=" in key], BUSY, strict=False))
    query = """SELECT * REPLACE (epoch_us("at") AS "at") FROM sifted"""
    rows = []
    for ledger in (Ledger(kept), Ledger(PLACE, engine=spark)):
        used = ledger.days()
        assert used
        rows.append(sorted(ledger.sift("sifted", query, columns, used).fetchall(), key=str))
    assert rows[1] == rows[0] != []
    assert not bucket.busy
    assert no_usage_here(tmp_path)


def test_a_file_of_an_old_ledger_lacks_columns(bucket, tmp_path):
    old_ledger.write(tmp_path / "old", [[old_ledger.call(number) for number in range(4)]])
    (path,) = (tmp_path / "old" / "usage").rglob("*.parquet")
    bucket.objects["old"] = path.read_bytes()
    shares = SimpleNamespace(value=[[], [_objects.Object("old", path.stat().st_size)]])
    kinds = {"also": "string", "input": "int64", "at": "timestamp"}
    (read,) = _objects._read(keys(Access(), "costs"), shares, kinds, iter([record_batch({"id": [1]})]))
    assert read.schema.names == list(kinds)
    assert read.select(["also", "input"]).to_pylist() == [
        {"also": "", "input": old_ledger.call(number).parts[0][1][0]} for number in range(4)
    ]


def test_files_are_shared_out_once_each():
    files = [_objects.Object(f"{n}", n << 16) for n in range(300)] + [_objects.Object("large", 1 << 30)]
    shares = _objects._shares(files, 4)
    assert sorted(file for share in shares for file in share) == sorted(files)
    assert shares[0] == [files[-1]]
    assert all(sum(file.size for file in share) <= _objects.SHARE_BYTES for share in shares[1:])
    assert len(_objects._shares(files[:8], 4)) in (4, 5)  # for every slot one, with so little in each


def test_what_executors_may_not_read_is_told_in_one_line(bucket, spark, capfd):
    key = next(key for key in bucket.objects if "/usage/month=" in key)
    bucket.faults[key] = Fault()
    asked = ["by", "model", "--ledger", PLACE, "--engine", "spark"]
    with pytest.raises(SystemExit) as ended:
        cli.main(asked)
    assert ended.value.code == 2
    denied = "access denied: allow s3:GetObject on arn:aws:s3:::costs/*"
    assert capfd.readouterr().err.splitlines()[-1] == f"farthing: {PLACE}: cannot read usage: {denied}"


def test_keys_are_in_nothing_that_spark_shows_or_writes(bucket, spark):
    there = Ledger(PLACE, engine=spark)
    used = there.days()
    assert used
    plan = there.rows_to_sum(*used)._jdf.queryExecution().toString()
    assert "MapInArrow" in plan
    held = Keys("logs", "us-east-1", bucket.url, "AKIDEXAMPLE", SECRET, "")
    spread = repr(_spark._packed(0, Task(1, [Range("s3://logs/a")], "", 0, held)))
    for told in (plan, spread, str(spark.sparkContext.getConf().getAll())):
        assert SECRET not in told
        assert "AKIDEXAMPLE" not in told


def test_a_cluster_that_has_s3a_reads_by_it(bucket, spark):
    there = Ledger(PLACE, engine=spark)
    for name, value in {
        "fs.s3a.impl": "org.apache.hadoop.fs.LocalFileSystem",  # of files alone, so it says what it was asked for
        "fs.s3a.impl.disable.cache": "true",
    }.items():
        there.engine.conf.set(name, value)
    with pytest.raises(Exception, match=r"Wrong FS: s3a://costs/a team/ledger/usage/month="):
        cells(there, Question())


# --- imports -------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_executors(monkeypatch):
    """Executors read, however little there is."""
    for name, most in {"SMALL_BYTES": 1, "TASK_FILES": 2}.items():
        monkeypatch.setattr(_reading, name, most)
    monkeypatch.setattr(_reading, "here", None)  # nothing is parsed in this process


@pytest.fixture
def delivered():
    """A log with calls that other objects have too, and a bad line."""
    objects = {f"{hour(n)}a.json.gz": packed(*range(10 * n, 10 * n + 15)) for n in range(6)}
    objects[f"{hour(7)}bad.json"] = lines(200) + b"{torn\n" + lines(201)
    with serving(Flaky(objects=objects)) as made:
        yield made


@pytest.fixture
def costs(moto, monkeypatch):
    """An empty bucket for ledgers."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    client = boto3.client("s3")
    client.create_bucket(Bucket="costs")
    yield client
    for found in client.list_objects_v2(Bucket="costs").get("Contents", ()):
        client.delete_object(Bucket="costs", Key=found["Key"])


def brought(place: Path | str, bucket: Bucket, **how) -> tuple[Any, ...]:
    """What an import told, and the rows and files of its ledger; another import adds nothing."""
    ledger, access = Ledger(place), Access(endpoint_url=bucket.url)
    done = import_paths(ledger, ["s3://logs/p"], now=NOW, access=access, **how)
    again = import_paths(ledger, ["s3://logs/p"], now=NOW, access=access, full=True, **how)
    assert (again.imported, again.superseded) == (0, 0)
    told = done.as_json() | {"duplicates": done.duplicates + done.superseded}
    return told, done.errors, Counter(rows_of(ledger)), ledger.files(), ledger.read_until()


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_executors_read_a_bucket_as_this_machine_does(
    delivered, costs, spark, tmp_path, place, on_executors, monkeypatch
):
    delivered.busy = {f"{hour(n)}a.json.gz": fault for n, fault in zip((1, 4), BUSY, strict=True)}
    there = brought(tmp_path / "there" if place == "folder" else "s3://costs/there", delivered, engine=spark)
    assert not delivered.busy
    monkeypatch.setattr(_reading, "here", in_this_process)
    assert there == brought(tmp_path / "here", delivered, workers=0)
    assert there[0]["imported"] == 65 + 2
    assert there[1] == [f"s3://logs/{hour(7)}bad.json:2: not JSON: object keys must be strings (byte 1)"]


def test_the_command_names_object_and_line(delivered, costs, spark, tmp_path, capsys, on_executors):
    asked = ["import", "s3://logs/p", "--endpoint-url", delivered.url, "--ledger", str(tmp_path / "ledger")]
    with pytest.raises(SystemExit) as ended:
        cli.main([*asked, "--engine", "spark"])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert "67 calls imported" in out
    assert err.startswith(f"farthing: s3://logs/{hour(7)}bad.json:2: not JSON")


WRITER = """
import sys
from datetime import UTC, datetime
from farthing.api import import_paths
from farthing.importers import _reading
from farthing.ledger import Ledger, _objects
from farthing.ledger._tables import USAGE

engine = None
if sys.argv[1] != "here":
    from pyspark.sql import SparkSession

    _reading.SMALL_BYTES, _reading.here = 1, None
    asked = SparkSession.builder.master(sys.argv[1]).config("spark.ui.enabled", "false")
    engine = asked.getOrCreate()
print("begun", flush=True)
sys.stdin.readline()
for path in sys.argv[2:]:
    ledger = Ledger("s3://costs/both")
    done = import_paths(ledger, [path], now=datetime(2026, 3, 3, tzinfo=UTC), workers=0, engine=engine)
    assert not done.errors, done.errors
"""


def writing(*words: str) -> subprocess.Popen[str]:
    """A program that imports objects into one ledger, once it is told to."""
    command = [sys.executable, "-c", WRITER, *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def objects_of(client) -> list[str]:
    """Six objects; each has calls of its own, and some that the one after it has too."""
    client.create_bucket(Bucket="logs")
    for n in range(6):
        client.put_object(Bucket="logs", Key=f"p/{n}.json.gz", Body=packed(*range(10 * n, 10 * n + 15)))
    return [f"s3://logs/p/{n}.json.gz" for n in range(6)]


def nothing_is_lost_or_twice() -> None:
    ledger = Ledger("s3://costs/both")
    assert ledger.rows().aggregate("sum(calls), count(DISTINCT request_id)").fetchall() == [(65, 65)]
    assert len(ledger.files()) == 6


def test_spark_and_another_writer_at_once_lose_nothing(costs, spark, on_executors):
    paths = objects_of(costs)
    with writing("here", *paths[1::2]) as other:
        assert other.stdout
        assert other.stdin
        assert other.stdout.readline() == "begun\n"
        print("now", file=other.stdin, flush=True)
        for path in paths[0::2]:
            assert not import_paths(Ledger("s3://costs/both"), [path], now=NOW, engine=spark).errors
    assert other.returncode == 0
    nothing_is_lost_or_twice()


# --- a cluster -----------------------------------------------------------------------------------------------------


@pytest.mark.spark_long
def test_two_clusters_at_once_lose_nothing(costs, spark):
    paths = objects_of(costs)
    writers = [writing("local-cluster[2,1,1024]", *mine) for mine in (paths[0::2], paths[1::2])]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "begun\n"
    for writer in writers:
        assert writer.stdin
        print("now", file=writer.stdin, flush=True)
    for writer in writers:
        with writer:
            assert writer.wait(300) == 0
    nothing_is_lost_or_twice()


CLUSTER = """
import json, sys
from pyspark.sql import SparkSession
from farthing import cli
from farthing.importers import _reading

_reading.SMALL_BYTES, _reading.here = 1, None
asked = SparkSession.builder.master("local-cluster[2,1,1024]").config("spark.ui.enabled", "false")
for name in ("enabled", "dir"):
    asked = asked.config(f"spark.eventLog.{name}", "true" if name == "enabled" else sys.argv[2])
session = asked.config("spark.eventLog.compress", "false").config("spark.log.level", "INFO").getOrCreate()
for words in json.loads(sys.argv[1]):
    try:
        cli.main([*words, "--engine", "spark"])
    except SystemExit as ended:
        print(int(ended.code or 0), flush=True)
session.stop()
"""


def copied(folder: Path, client, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            client.put_object(
                Bucket="costs", Key=f"{prefix}{path.relative_to(folder)}", Body=path.read_bytes()
            )


@pytest.mark.spark_long
def test_the_commands_on_executors_of_their_own(costs, spark, tmp_path, rates, capsys):  # noqa: F811
    """Imports, every report, reconcile, savings and a bound; nothing that Spark writes of them has the keys."""
    place = "s3://costs/work"
    copied(worked(tmp_path / "worked", 5), costs, "work/")
    month = list(map(str, a_month(tmp_path / "month", rates, 6, faults.FAULTS[:-1])))
    copied(tmp_path / "month" / "ledger", costs, "month/")
    month[month.index("--ledger") + 1] = "s3://costs/month"
    costs.create_bucket(Bucket="traces")
    for path in logs(tmp_path, 4).iterdir():
        costs.put_object(Bucket="traces", Key=f"t/{path.name}", Body=path.read_bytes())
    objects_of(costs)
    reports = [[name, *(("model",) if name == "by" else ())] for name in REPORTS]
    asked = [
        *([*words, "--ledger", place] for words in (*reports, ["savings"])),
        month,
        ["cache", "bound", "s3://traces/t", "--model", "claude-sonnet-4-6", "--at", "2026-11-01"],
    ]
    given = [["import", "s3://logs/p", "--ledger", place], *asked]
    given = [[*words, "--json"] for words in given]
    (tmp_path / "events").mkdir()
    command = [sys.executable, "-c", CLUSTER, json.dumps(given), f"file://{tmp_path / 'events'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]

    written = [path.read_text() for path in (tmp_path / "events").rglob("events*")]
    assert any("MapInArrow" in text for text in written)
    for text in (*written, done.stderr):
        assert SECRET not in text
    imported, _, rest = done.stdout.partition("\n0\n")
    assert json.loads(imported)["imported"] == 65
    answers = [ran(capsys, *words) for words in given[1:]]
    assert rest == "".join(f"{out}{code}\n" for code, out in answers)
    (again,) = [ran(capsys, *given[0])]
    assert json.loads(again[1])["imported"] == 0
