"""The queue where it hurts: killed between an answer and its noting, a bucket that fails, jobs that end halfway."""

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
from botocore.exceptions import ReadTimeoutError

from farthing.gateway._batch_clock import SECOND
from farthing.gateway._batch_far import Fault
from farthing.gateway._batch_messages import Messages
from farthing.gateway.batch import Queue, kept
from tests import batches
from tests.batches import (
    DIRECT,
    SONNET,
    Storm,
    accept,
    finish,
    imported,
    paid_once,
    request,
    until,
    working,
)

DIES = """
import os, signal, sys
from farthing import cli
from farthing.gateway._batch_bedrock import Bedrock
from farthing.gateway._batch_messages import Messages

def dying(begin):
    def begins(*args):
        begin(*args)  # it is there, and its answer has come
        os.kill(os.getpid(), signal.SIGKILL)
    return begins

Bedrock.begin, Messages.begin = dying(Bedrock.begin), dying(Messages.begin)
cli.main(["batch", "run", "--queue", sys.argv[1], "--until-done"])
"""


credentials, found, there, worker = batches.credentials, batches.found, batches.there, batches.worker


def begun(there):
    return len(there.jobs.jobs) + len(there.jobs.batches)


@pytest.mark.parametrize("model", [SONNET, DIRECT])
def test_killed_between_the_answer_and_its_noting(there, tmp_path, model):
    """kill -9: of Bedrock the job is found by its name, of Anthropic by what its results are called."""
    folder = tmp_path / "queue"
    Queue(folder, speed=400).close()
    with working(folder, there, 400) as runner:
        kept(runner.queue, there.settings)
        accept(runner, [request(n, model) for n in range(100)])
        first = subprocess.run(
            [sys.executable, "-c", DIES, str(folder)], check=False, timeout=60, env=os.environ
        )
        assert first.returncode == -signal.SIGKILL
        assert begun(there) == 1
        assert [job.remote for job in runner.queue.jobs("ready")] == [""], "nobody has noted it"
        argv = [sys.executable, "-m", "farthing", "batch", "run", "--queue", str(folder), "--until-done"]
        subprocess.run(argv, check=True, timeout=60, env=os.environ, stderr=subprocess.DEVNULL)
        ends = {end.id: end for end in runner.queue.ends()}
    assert {end.mode for end in ends.values()} == {"batch"}
    assert begun(there) == 1
    assert len(there.calls()) == len(ends) == 100
    paid_once(there, ends)
    rows = imported(tmp_path / "ledger", folder / "outbox")
    assert {(row["mode"], row["calls"]) for row in rows} == {("batch", 1)}
    assert len(rows) == 100


def test_a_batch_that_arrives_after_its_sender_died_is_not_begun_twice(worker, there, monkeypatch):
    """It was on its way when nobody found it: what was sent and not answered has two minutes to arrive."""
    begin, late = Messages.begin, []

    def lost(*args):
        late.append(args)
        raise Fault("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(Messages, "begin", lost)
        accept(worker, [request(n, DIRECT, deadline="12h") for n in range(10)])
        until(worker, lambda: late)
    begin(*late[0])
    ends = finish(worker, there)
    assert len(there.jobs.batches) == 1
    assert {end.mode for end in ends.values()} == {"batch"}
    paid_once(there, ends)


def test_a_batch_that_never_arrived_is_begun_anew(worker, there, monkeypatch):
    def lost(*_):
        raise Fault("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(Messages, "begin", lost)
        accept(worker, [request(n, DIRECT, deadline="12h") for n in range(10)])
        until(worker, lambda: [job for job in worker.queue.jobs("ready") if job.tried])
        tried = worker.queue.jobs("ready")[0].tried
    ends = finish(worker, there)
    (job,) = worker.queue.jobs("collected")
    assert job.created_us > tried + 120 * SECOND
    assert {end.mode for end in ends.values()} == {"batch"}
    paid_once(there, ends)


class Slow:
    """A client that hears nothing, for so many requests: what it asked may be done all the same."""

    def __init__(self, client, times):
        self.left = times
        client.meta.events.register("before-send", self._answer)

    def _answer(self, request, **_):
        if self.left:
            self.left -= 1
            raise ReadTimeoutError(endpoint_url=request.url)


@pytest.mark.parametrize(
    "storm",
    [
        lambda s3: Storm(s3, 500, "InternalError", 4),
        lambda s3: Storm(s3, 503, "SlowDown", 2, before=False),
        lambda s3: Slow(s3, 4),
    ],
)
def test_a_bucket_that_fails_while_results_are_read_only_costs_time(worker, there, storm):
    far = worker.far("bedrock")
    accept(worker, [request(n, deadline="12h") for n in range(100)])
    until(worker, lambda: worker.queue.jobs("created"))
    (job,) = worker.queue.jobs("created")
    made = storm(far._s3)
    ends = finish(worker, there)
    assert made.left == 0
    assert {end.mode for end in ends.values()} == {"batch"}
    assert [each.name for each in worker.queue.jobs("collected")] == [job.name]
    paid_once(there, ends)


def test_a_batch_of_anthropic_that_is_stopped_halfway(there, tmp_path):
    there.jobs.step_s = 0.3
    with working(tmp_path / "queue", there, margin_s=3600) as worker:
        accept(worker, [request(n, DIRECT, deadline="3h") for n in range(100)])
        ends = finish(worker, there, minutes=10)
        assert set(Counter(end.mode for end in ends.values())) <= {"batch", "on_demand"}
        assert [job.stopping for job in worker.queue.jobs("collected")] == [1]
        assert {end.mode for end in ends.values()} >= {"on_demand"}
        paid_once(there, ends)
