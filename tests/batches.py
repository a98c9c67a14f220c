"""What tests of batches share: an emulator over an S3 API, a queue that works on it, what the ledger makes of both."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from farthing.api import import_paths
from farthing.book import default_book
from farthing.emulator import Clock, Emulator, World, running
from farthing.gateway._batch_accept import Usual
from farthing.gateway._batch_clock import SECOND
from farthing.gateway._batch_lock import only
from farthing.gateway._batch_queue import OPEN, End
from farthing.gateway._batch_sender import SENDER_LOCK, Sender
from farthing.gateway.batch import Queue, Runner, kept, open_live, submit
from farthing.ledger import Ledger
from farthing.meters import METERS

SONNET, HAIKU = "global.anthropic.claude-sonnet-4-6", "us.anthropic.claude-haiku-4-5-20251001-v1:0"
DIRECT = "claude-sonnet-4-6"
BUCKET = "jobs"
ROLE = "arn:aws:iam::111122223333:role/batch"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "EMULATED", "AWS_SECRET_ACCESS_KEY": "made up", "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true", "ANTHROPIC_API_KEY": "made up",
}  # fmt: skip


def bucket(url: str) -> Any:
    """A client, with an empty bucket."""
    s3 = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="EMULATED", aws_secret_access_key="x", region_name="us-east-1"
    )  # fmt: skip
    s3.create_bucket(Bucket=BUCKET)
    for found in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        s3.delete_object(Bucket=BUCKET, Key=found["Key"])
    return s3


@dataclass
class Service:
    """An emulator, and the settings with which a queue finds it."""

    emulator: Emulator
    settings: dict[str, Any]

    @property
    def jobs(self) -> Any:
        return self.emulator._server.jobs

    def busy(self) -> bool:
        """Whether a job or a batch is under way."""
        jobs = any(job.ended_us == 0 for job in self.jobs.jobs.values())
        return jobs or any(batch.ended_us == 0 for batch in self.jobs.batches.values())

    def calls(self) -> list[dict[str, Any]]:
        """What was paid, by the emulator's own log."""
        return [call for call in self.emulator.calls() if call.get("tokens")]


@contextmanager
def service(s3_url: str, speed: int = 1, **how: Any) -> Iterator[Service]:
    """`speed` makes the emulator's clock run faster, as the queue's."""
    s3 = bucket(s3_url)
    with running(World(default_book(), Clock(None, speed)), s3=s3, **how) as emulator:
        settings = {
            "s3": f"s3://{BUCKET}/night", "role_arn": ROLE, "region": "us-east-1", "bedrock": emulator.url,
            "s3_endpoint": s3_url, "anthropic": emulator.url, "margin_s": 1200,
        }  # fmt: skip
        yield Service(emulator, settings)


# Fixtures of a module that names them (`there = batches.there`): imported by name, they would look used up to linters.


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def found(moto: str) -> Iterator[Service]:
    """The service of all tests of a module."""
    with service(moto, step_ms=5) as served:
        yield served


@pytest.fixture
def there(found: Service) -> Service:
    """The same, as new."""
    found.emulator.world.calls.clear()
    found.emulator.fail()
    found.jobs.ends.clear()
    found.jobs.jobs.clear()
    found.jobs.batches.clear()
    found.jobs.step_s = 0.005
    return found


@pytest.fixture
def worker(there: Service, tmp_path: Path) -> Iterator[Runner]:
    with working(tmp_path / "queue", there) as runner:
        yield runner


def request(number: int, model: str = SONNET, deadline: str = "6h", **more: Any) -> dict[str, Any]:
    """A request whose question nobody else asks."""
    body: dict[str, Any] = {
        "max_tokens": 30,
        "messages": [{"role": "user", "content": f"Question {number}?"}],
    }
    if model == SONNET:
        body["anthropic_version"] = "bedrock-2023-05-31"
    elif model == HAIKU:
        messages = [{"role": "user", "content": [{"text": f"Question {number}?"}]}]
        body = {"messages": messages, "inferenceConfig": {"maxTokens": 30}}
    return {"id": f"r{number}", "model": model, "deadline": deadline, "body": body | more}


def lines(requests: Any) -> list[bytes]:
    return [json.dumps(each).encode() for each in requests]


class Hand:
    """A clock that only a test moves."""

    speed = 1

    def __init__(self) -> None:
        self.at_us = time.time_ns() // 1000

    def now_us(self) -> int:
        return self.at_us


@contextmanager
def working(folder: Path, services: Service, speed: int = 0, **settings: Any) -> Iterator[Runner]:
    """A runner that has not made a step yet. Without a speed its clock is moved by hand, and its sender is `finish`."""
    queue = Queue(folder, speed=max(1, speed))
    if not speed:
        queue.clock = Hand()  # type: ignore[assignment]
    said = kept(queue, services.settings | settings)
    live = open_live(queue, said)
    runner = Runner(queue, said, live)
    try:
        with only(folder / SENDER_LOCK):
            yield runner
    finally:
        live.close()
        queue.close()


def pass_(runner: Runner, seconds: int) -> None:
    """Time, on a clock that is moved by hand."""
    clock: Any = runner.queue.clock
    if isinstance(clock, Hand):
        clock.at_us += seconds * SECOND


def over(runner: Runner) -> bool:
    return not sum(runner.queue.counts().get(state, 0) for state in OPEN)


def finish(runner: Runner, services: Service, *, minutes: int = 5) -> dict[str, End]:
    """Step by step until all is over: time passes quickly, but for the service while it has a job to do."""
    for _ in range(2_000):
        if over(runner):
            return {end.id: end for end in runner.queue.ends()}
        runner.step()
        if runner.queue.to_send(1) or runner.queue.sending():
            Sender(runner.queue, runner.settings, runner.live).run(idle_s=0.02)
        busy = services.busy()
        if busy:
            time.sleep(0.005)
        slowly = busy and (minutes == 5 or any(job.stopping for job in runner.queue.jobs("created")))
        pass_(runner, 5 if slowly else 60 * minutes)
    raise AssertionError((runner.queue.counts(), runner.queue.jobs("planned", "ready", "created", "ended")))


def until(runner: Runner, done: Callable[[], Any], seconds: int = 20) -> None:
    """Steps while nothing but the service's own time passes."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        runner.step()
        pass_(runner, 1)
        time.sleep(0.01)


def paid_once(there: Service, ends: dict[str, End]) -> None:
    """Every answer of ours was paid, once, and nothing else was."""
    calls = there.calls()
    answered = [end for end in ends.values() if not end.error]
    assert Counter(call["mode"] for call in calls) == Counter(end.mode for end in answered)
    assert not [end.id for end in answered if end.late]


def accept(runner: Runner, requests: Any, **usual: Any) -> None:
    taken = submit(runner.queue, lines(requests), Usual(runner.queue.now_us(), **usual))
    assert not taken[2], taken[2]


def imported(folder: Path, *paths: Path) -> list[dict[str, Any]]:
    """What the ledger holds of calls that cost something or were tried, one row a call."""
    ledger = Ledger(folder)
    import_paths(ledger, [str(path) for path in paths], now=datetime.now(UTC))
    ledger.rows().create_view("usage", replace=True)
    ledger.contexts().create_view("contexts", replace=True)
    sums = ", ".join(f"sum({meter})::BIGINT AS {meter}" for meter in METERS)
    found = ledger.connection.execute(
        f"SELECT gateway_id, mode, source, status, sum(calls)::BIGINT AS calls, {sums} FROM usage "
        "JOIN contexts USING (ctx) GROUP BY ALL HAVING sum(calls) <> 0"
    )
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


class Storm:
    """Answers the calls of a client of boto3 itself, for as long as it lasts."""

    def __init__(self, client: Any, status: int, code: str, times: int, *, before: bool = True) -> None:
        self.left, self.status, self.code, self.before = times, status, code, before
        client.meta.events.register("before-send", self._answer)

    def _answer(self, request: Any, **_: Any) -> Any:
        if not self.left:
            return None
        self.left -= 1
        if not self.before:  # it is done, and its answer is lost
            from botocore.httpsession import URLLib3Session

            URLLib3Session().send(request)
        body = json.dumps({"__type": self.code, "message": "no"}).encode()
        if "s3" in request.url or request.method in ("PUT", "DELETE") or "list-type" in request.url:
            body = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>".encode()
        return AWSResponse(request.url, self.status, {"x-amzn-errortype": self.code}, Raw(body))


class Raw:
    def __init__(self, body: bytes) -> None:
        self.body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.body
