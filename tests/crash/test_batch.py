"""kill -9 of the batch runner at any moment: no request is late, none is lost, none is paid twice.

`make crash` takes 5,000 requests with mixed deadlines through a clock that runs 240 times as fast; `make test` a few
hundred. The emulator's own log says what was paid; every request asks another question, so that it tells them apart.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from farthing.gateway._batch_accept import Usual
from farthing.gateway._batch_lock import is_held
from farthing.gateway.batch import RUNNER_LOCK, Queue, kept, submit
from farthing.meters import METERS
from tests.batches import DIRECT, ENVIRONMENT, HAIKU, SONNET, Service, imported, lines, request, service

SEED = int(os.environ.get("CRASH_SEED", "1"))
SPEED = 240  # a second is four minutes
MIXED = {SONNET: ("2h", "3h", "5h", "8h"), HAIKU: ("3h", "6h", "9h"), DIRECT: ("4h", "7h")}
SHORT = {SONNET: ("95m", "105m"), HAIKU: ("100m",), DIRECT: ("90m",)}


class Lives:
    """A runner that is started again whenever it is killed, until nothing is left to do."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.argv = [sys.executable, "-m", "farthing", "batch", "run", "--queue", str(folder), "--until-done"]
        self.lock, self.chance, self.kills = folder / RUNNER_LOCK, chance, 0

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            child = subprocess.Popen(self.argv, env=os.environ | ENVIRONMENT)
            while self.chance.random() < 0.99 and not is_held(self.lock) and child.poll() is None:
                time.sleep(0.02)  # most die at work, some before it
            try:
                code = child.wait(self.chance.uniform(0.05, 1.5))
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                child.wait()
                self.kills += 1
            else:
                assert code in (0, 1), code
                return


@pytest.mark.parametrize(("count", "seconds"), [pytest.param(5_000, 240, marks=pytest.mark.crash), (360, 60)])
def test_in_time_whole_and_paid_once(
    tmp_path: Path, moto: str, monkeypatch: pytest.MonkeyPatch, count: int, seconds: int
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    chance = random.Random(SEED)
    folder = tmp_path / "queue"
    with service(moto, SPEED, step_ms=150) as found:
        queue = Queue(folder, speed=SPEED)
        kept(queue, found.settings | {"margin_s": 32 * 60, "size": 400})
        lives = Lives(folder, chance)
        runner = threading.Thread(target=lives.run, args=(time.monotonic() + seconds,))
        asked = asked_for(count, MIXED if count > 1_000 else SHORT, chance)
        for part in range(4):  # they come in waves
            accepted = submit(queue, lines(asked[part::4]), Usual(queue.now_us()))
            assert (accepted[0], accepted[2]) == (len(asked[part::4]), [])
            if part == 0:
                runner.start()
            time.sleep(seconds / 150)
        runner.join()
        assert queue.counts().keys() <= {"done"}, f"{queue.counts()} after {lives.kills} kills"
        ends = queue.ends()
        check(found, asked, ends, tmp_path, folder)
        assert lives.kills >= (10 if count > 1_000 else 2)
        print(f"{count} requests, {lives.kills} kills, {dict(Counter(end.mode for end in ends))}")


def asked_for(count: int, deadlines: Any, chance: random.Random) -> list[dict[str, Any]]:
    models = chance.choices([SONNET, HAIKU, DIRECT], (5, 4, 1), k=count)
    return [request(n, model, chance.choice(deadlines[model])) for n, model in enumerate(models)]


def check(found: Service, asked: list[Any], ends: list[Any], tmp_path: Path, folder: Path) -> None:
    late = [((end.done_us - end.deadline_us) // 60_000_000, end.mode, end.reason) for end in ends if end.late]
    assert not late, f"{len(late)} late, by minutes: {sorted(late)[-5:]}"
    assert sorted(end.id for end in ends) == sorted(each["id"] for each in asked)
    assert [end.error for end in ends if end.error] == []
    paid = Counter(json.loads(end.output)["id"] for end in ends if b'"msg_' in end.output)
    assert not [name for name, times in paid.items() if times > 1]
    billed = found.calls()
    assert len(billed) == len(asked), (
        "the service was paid for another number of calls than there are requests"
    )
    assert Counter(call["mode"] for call in billed) == Counter(end.mode for end in ends)
    assert sum(end.mode == "batch" for end in ends) > len(ends) // 2
    counted = imported(tmp_path / "ledger", folder / "outbox")
    assert not [row for row in counted if row["calls"] != 1]
    assert not [row for row in counted if row["source"] != "outbox" and row["status"] == ""]
    for meter in METERS:
        assert sum(row[meter] for row in counted) == sum(call["tokens"][meter] for call in billed)
