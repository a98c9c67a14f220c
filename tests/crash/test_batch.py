"""kill -9 of the batch runner at any moment: no request is late, none is lost, none is paid twice.

`make crash` takes 5,000 requests with mixed deadlines through a clock that runs 60 times as fast, and slower where the
machine is: a minute of the queue is as much work on any load. `make test` takes a few hundred. The emulator's own log
says what was paid; every request asks another question, so that it tells them apart.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest

from farthing.gateway._batch_accept import Usual
from farthing.gateway._batch_clock import SECOND, Anchor, steady_us
from farthing.gateway._batch_lock import RUNNER_LOCK, is_held
from farthing.gateway.batch import Queue, kept, submit
from farthing.meters import METERS
from tests.batches import DIRECT, ENVIRONMENT, HAIKU, SONNET, Service, imported, lines, request, service

SEED = int(os.environ.get("CRASH_SEED", "1"))
SPEED = 60  # a second is a minute
MIXED = {SONNET: ("2h", "150m", "3h"), HAIKU: ("3h", "4h"), DIRECT: ("200m",)}
SHORT = {SONNET: ("95m", "105m"), HAIKU: ("100m",), DIRECT: ("90m",)}


# What a little work and a write to the disk take just now, in percent of what they take alone.
PROBE = """
import os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
while True:
    began, used = time.monotonic_ns(), time.thread_time_ns()
    while time.thread_time_ns() - used < 5_000_000:
        pass
    os.pwrite(file, b"x", 0)
    os.fsync(file)
    print((time.monotonic_ns() - began) * 100 // 15_000_000, flush=True)
    time.sleep(0.2)
"""


@contextmanager
def paced(queue: Queue, scratch: Path) -> Iterator[None]:
    """The queue's clock goes as fast as the machine: work that waits for a processor or the disk takes no longer."""

    def beats(lines: IO[bytes]) -> None:
        last: deque[int] = deque(maxlen=4)
        for line in lines:
            last.append(int(line))
            speed = max(2, min(SPEED, SPEED * 100 // max(last)))
            now = Anchor(queue.clock.boot, queue.now_us(), steady_us(), speed)
            queue.set_meta("clock", msgspec.json.encode(now).decode())

    argv = [sys.executable, "-c", PROBE, str(scratch)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as probe:
        assert probe.stdout is not None
        beat = threading.Thread(target=beats, args=(probe.stdout,))
        beat.start()
        try:
            yield
        finally:
            probe.kill()
            beat.join()


class Lives:
    """A runner that is started again whenever it is killed, until nothing is left to do."""

    def __init__(self, queue: Queue, chance: random.Random) -> None:
        folder, self.queue = queue.folder, queue
        self.argv = [sys.executable, "-m", "farthing", "batch", "run", "--queue", str(folder), "--until-done"]
        self.lock, self.chance, self.kills, self.code = folder / RUNNER_LOCK, chance, 0, -1
        self.all_there = threading.Event()

    def run(self, most: int) -> None:
        """`most` kills: the last life is as long as it needs."""
        while True:
            last = self.all_there.is_set()
            child = subprocess.Popen(self.argv, env=os.environ | ENVIRONMENT)
            at_work = self.chance.random() < 0.85  # most die at work, some before it
            while at_work and not is_held(self.lock) and child.poll() is None:
                time.sleep(0.02)
            slowly = SPEED / self.queue.clock.speed
            try:
                lives = self.chance.uniform(0.05, 0.5 if self.kills < most // 2 else 2.5) * slowly
                code = child.wait(lives if self.kills < most else 3_600)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                child.wait()
                self.kills += 1
            else:
                self.code = code
                if last or code > 1:
                    return


@pytest.mark.parametrize(
    ("count", "kills"),
    [pytest.param(5_000, 60, marks=pytest.mark.crash), (500, 5)],
)
def test_in_time_whole_and_paid_once(
    tmp_path: Path, moto: str, monkeypatch: pytest.MonkeyPatch, count: int, kills: int, record_property: Any
) -> None:
    record_property("fault", "kill -9 of the batch runner")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    chance, waves = random.Random(SEED), 4 if count > 1_000 else 2
    folder = tmp_path / "queue"
    queue = Queue(folder, speed=SPEED)
    with service(moto, SPEED, step_ms=150) as found, paced(queue, tmp_path / "probe"):
        kept(queue, found.settings | {"margin_s": 32 * 60, "size": 400})
        lives = Lives(queue, chance)
        runner = threading.Thread(target=lives.run, args=(kills,))
        asked = asked_for(count, MIXED if count > 1_000 else SHORT, chance)
        for wave in range(waves):
            accepted = submit(queue, lines(asked[wave::waves]), Usual(queue.now_us()))
            assert (accepted[0], accepted[2]) == (len(asked[wave::waves]), [])
            if wave == 0:
                runner.start()
            then = queue.now_us() + kills * SPEED * SECOND // 15
            while queue.now_us() < then:
                time.sleep(0.05)
        lives.all_there.set()
        runner.join()
        record_property("kills", lives.kills)
        assert queue.counts().keys() <= {"done"}, f"{queue.counts()} after {lives.kills} kills"
        ends = queue.ends()
        check(found, asked, ends, tmp_path, folder)
        assert lives.code == 0
        assert lives.kills >= kills // 3
        print(f"{count} requests, {lives.kills} kills, {dict(Counter(end.mode for end in ends))}")


def asked_for(count: int, deadlines: Any, chance: random.Random) -> list[dict[str, Any]]:
    models = chance.choices([SONNET, HAIKU, DIRECT], (5, 4, 1), k=count)
    asked = [request(n, model, chance.choice(deadlines[model])) for n, model in enumerate(models)]
    for each in asked[:: len(asked) // 20]:  # these are cheaper cached, and so are sent by themselves
        if each["model"] == SONNET:
            each["usage"] = {"input": 10, "output": 10, "cache_read": 5_000}
    return asked


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
