"""What Spark's executors read is what this machine reads: the same calls, files, rejects and lines."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from farthing.api import import_paths
from farthing.cli._app import BadInput
from farthing.cli._engine import spark_session
from farthing.importers import _reading
from farthing.importers._pool import here as in_this_process
from farthing.ledger import Ledger
from farthing.meters import METERS
from tests.test_importers import MAKE, NOW


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Logs with calls that other files have too, a bad line, a file that is read in ranges, and one of no format."""
    folder = tmp_path_factory.mktemp("logs")
    for part in range(4):
        log = [MAKE["log"](n, MAKE["message"](n)) for n in range(part * 100, part * 100 + 130)]
        (folder / f"{part}.json.gz").write_bytes(gzip.compress(MAKE["lines"](log)))
    said = [MAKE["said"](n // 3, MAKE["usage"](3, n), copy=n % 3) for n in range(300)]
    lines = MAKE["lines"](said).splitlines(keepends=True)
    lines[133] = b"{torn\n"
    (folder / "long.jsonl").write_bytes(b"".join(lines))
    (folder / "notes.txt").write_bytes(b"notes")
    return folder


def imported(logs, folder, **how):
    """What the import said, and the ledger's rows and files."""
    ledger = Ledger(folder)
    done = import_paths(ledger, [logs], now=NOW, **how)
    assert import_paths(ledger, [logs], now=NOW, **how).imported == 0
    ledger.connection.register("imported", ledger.rows())
    rows = ledger.connection.execute(
        f"""SELECT request_id, message_id, epoch_us("at"), ctx, tags, {", ".join(METERS)}, sum(calls)
            FROM imported GROUP BY ALL HAVING sum(calls) > 0 ORDER BY ALL"""
    ).fetchall()
    return {**done.as_json(), "duplicates": 0, "superseded": 0}, done.errors, rows, ledger.files()


def test_executors_read_what_is_read_here(logs, tmp_path, spark, monkeypatch):
    for name, most in {
        "SMALL_BYTES": 1,
        "SPLIT_BYTES": 10_000,
        "RANGE_BYTES": 8_000,
        "TASK_FILES": 2,
    }.items():
        monkeypatch.setattr(_reading, name, most)
    monkeypatch.setattr(_reading, "here", None)  # nothing is parsed in this process
    there = imported(logs, tmp_path / "there", engine=spark)
    monkeypatch.setattr(_reading, "here", in_this_process)
    here = imported(logs, tmp_path / "here", workers=0)
    assert there == here
    assert here[0]["imported"] == 430 + 100
    assert [error.startswith(f"{logs / 'long.jsonl'}:134: not JSON") for error in here[1]] == [True]


def test_what_executors_lack_is_told_in_one_line(spark):
    with (
        pytest.raises(
            BadInput, match=r"^Spark's executors have no absent: install farthing\[spark,aws\] there"
        ),
        spark_session() as there,
    ):
        there.sparkContext.parallelize([1], 1).map(lambda _: __import__("absent")).collect()


@pytest.mark.spark_long
def test_a_command_alone_runs_on_its_own_python(logs, tmp_path, spark):
    """Whichever comes first on the path; and Spark's own log does not drown what it says."""
    imported(logs, tmp_path / "ledger", workers=0)
    command = [sys.executable, "-m", "farthing", "duplicates", "--ledger", str(tmp_path / "ledger"), "--json"]
    alone = {name: value for name, value in os.environ.items() if name != "PYSPARK_PYTHON"}
    mine = Path(sys.executable).parent
    alone["PATH"] = os.pathsep.join(name for name in os.get_exec_path() if Path(name) != mine)
    here, there = (
        subprocess.run([*command, *more], capture_output=True, text=True, check=True, env=alone, timeout=300)
        for more in ((), ("--engine", "spark"))
    )
    assert there.stdout == here.stdout
    assert "FutureWarning" not in there.stderr
