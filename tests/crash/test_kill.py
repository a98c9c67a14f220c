"""kill -9 at any moment of imports, compactions and upgrades: nothing is lost, nothing is there twice.

`make crash` does it 200 times, `make test` a few times. CRASHES and CRASH_SEED choose others.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from farthing.api import import_paths
from farthing.ledger import Ledger, verify
from farthing.meters import METERS
from tests import old_ledger
from tests.crash.work import NOW

WORK = Path(__file__).with_name("work.py")
SEED = int(os.environ.get("CRASH_SEED", "1"))
CRASHES = int(os.environ.get("CRASHES", "200"))
TASKS = ("import", "compact", "both", "upgrade", "pair")
START = datetime(2026, 10, 1, tzinfo=UTC)


def write_logs(folder: Path) -> None:
    """Transcripts whose lines repeat and grow, over several files and two months, and logs of a part of the calls."""
    folder.mkdir()
    for session in range(10):
        lines, logs = [], []
        for number in range(40):
            name, at = f"{session}-{number}", (START + timedelta(hours=session * 100 + number)).isoformat()
            lines += [
                transcript_line(name, at, output) for output in ((1, number) if number % 3 else (number,))
            ]
            if number % 4 == 0:
                logs.append(log_line(name, at, number + 1))
        for kind, text in (("", lines), ("-copy", lines[::3]), ("-log", logs)):
            (folder / f"{session}{kind}.jsonl").write_text("\n".join(text) + "\n")


def transcript_line(name: str, at: str, output: int) -> str:
    lives = {"ephemeral_1h_input_tokens": 5, "ephemeral_5m_input_tokens": 4}
    usage = {
        "input_tokens": 2,
        "output_tokens": output,
        "cache_creation_input_tokens": 9,
        "cache_creation": lives,
    }
    message = {"id": f"msg_{name}", "model": "claude-opus-5", "usage": usage}
    line = {
        "type": "assistant",
        "requestId": f"q{name}",
        "timestamp": at,
        "sessionId": f"s{name[0]}",
        "cwd": "/p",
    }
    return json.dumps(line | {"message": message})


def log_line(name: str, at: str, output: int) -> str:
    usage = {"input_tokens": 2, "output_tokens": output, "cache_creation_input_tokens": 9}
    # fmt: off
    line = {"schemaType": "ModelInvocationLog", "schemaVersion": "1.0", "timestamp": at, "accountId": "111122223333",
            "region": "eu-west-1", "requestId": f"aws{name}", "operation": "InvokeModel",
            "modelId": "anthropic.claude-opus-5", "input": {"inputTokenCount": 2, "cacheWriteInputTokenCount": 9},
            "output": {"outputTokenCount": output, "outputBodyJson": {"id": f"msg_{name}", "usage": usage}}}
    # fmt: on
    return json.dumps(line)


def totals(folder: Path) -> tuple[int, ...]:
    sums = ", ".join(f"sum({name})::BIGINT" for name in ("calls", *METERS))
    return Ledger(folder).rows().aggregate(sums).fetchall()[0]


class World:
    """Logs; a ledger that has read some of them, in many commits; one of format 1; and what all logs come to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.logs = folder, folder / "logs"
        write_logs(self.logs)
        some = folder / "some"
        some.mkdir()
        for path in sorted(self.logs.iterdir())[:12]:
            shutil.copy(path, some)
        self.base, self.old, whole = folder / "base", folder / "old", folder / "whole"
        ended(work("import", self.base, some))
        ended(work("import", whole, self.logs))
        calls = [call for call in Ledger(self.base).known(everything(self.base))]  # noqa: C416
        old_ledger.write(self.old, [calls[start : start + 20] for start in range(0, len(calls), 20)])
        timed = work("import", folder / "timed", self.logs)
        ready(timed)
        began = time.monotonic()
        ended(timed)
        self.seconds = time.monotonic() - began
        self.expected = totals(whole)
        assert verify(Ledger(whole)) == []


def everything(folder: Path):
    """A record for each id in a ledger, to find all of its calls by."""
    rows = Ledger(folder).rows().project('epoch_us("at"), request_id, message_id').distinct().fetchall()
    return [old_ledger.call(1)._replace(at_us=at, request_id=one, message_id=two) for at, one, two in rows]


def work(task: str, ledger: Path, logs: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(WORK), task, str(ledger), str(logs)], stdout=subprocess.PIPE, text=True
    )


def ready(process: subprocess.Popen) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def ended(process: subprocess.Popen) -> None:
    process.communicate(timeout=300)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("crash"))


@pytest.fixture
def killed(record_property) -> None:
    """For the table of `make torture`."""
    record_property("fault", "kill -9 of imports, compactions, upgrades")
    record_property("kills", 1)


def crash(world: World, number: int) -> None:
    """One kill at a random moment after the work began, then all that must hold."""
    seed, task = SEED * 1000 + number, TASKS[number % len(TASKS)]
    moments = random.Random(seed)
    ledger = world.folder / f"ledger-{seed}"
    shutil.copytree(world.old if task == "upgrade" else world.base, ledger)
    tasks = {"upgrade": ["import"], "pair": ["import", "compact"]}.get(task, [task])
    delay = moments.uniform(0, world.seconds * (0.3 if task == "compact" else 0.9))
    print(f"seed {seed}: {task}, killed after {delay:.3f} s")
    processes = [work(one, ledger, world.logs) for one in tasks]
    for process in processes:
        ready(process)
    time.sleep(delay)
    victim = moments.choice(processes)
    victim.kill()
    victim.communicate()
    for process in processes:
        if process is not victim:
            ended(process)
    assert verify(Ledger(ledger)) == [], f"seed {seed}"
    import_paths(Ledger(ledger), sorted(world.logs.iterdir()), now=NOW, workers=0)
    assert totals(ledger) == world.expected, f"seed {seed}"
    assert verify(Ledger(ledger)) == [], f"seed {seed}"
    shutil.rmtree(ledger)


@pytest.mark.parametrize("number", range(6))
def test_killed_at_a_random_moment(world, number, killed):
    crash(world, number)


@pytest.mark.crash
@pytest.mark.parametrize("number", range(6, CRASHES))
def test_killed_at_many_random_moments(world, number, killed):
    crash(world, number)


def test_four_writers_an_upgrade_and_two_compactions_at_once(world):
    ledger = world.folder / "busy"
    shutil.copytree(world.old, ledger)
    processes = [work(task, ledger, world.logs) for task in ("import", "both", "import", "both")]
    for process in processes:
        ended(process)
    assert verify(Ledger(ledger)) == []
    assert totals(ledger) == world.expected
