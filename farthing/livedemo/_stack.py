"""One run of the day: the emulator, the gateway before it, and a client that sends each request at its moment.

The clock of both stands at the moment of the request, and moves on to the next: a day takes seconds, and what is
cached lives as long as it does on a day. What the policy batches is sent with a deadline and fetched when it is there.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from farthing.book import Book
from farthing.emulator import Clock, Emulator, Logs, World
from farthing.emulator import running as emulated
from farthing.gateway import batch
from farthing.gateway._batch_clock import Anchor, boot_id, steady_us
from farthing.gateway._running import running as gateway
from farthing.gateway._settings import Settings
from farthing.livedemo._bucket import NAME, Bucket, bucket
from farthing.livedemo._day import ACCOUNT, DAY, REGION, Ask
from farthing.policy import APPLIED, Decide, Request, decider, load
from farthing.usage import EPOCH

Progress = Callable[[int, int], None]
LONGEST = 10_000  # tokens of an answer: as long as its request allows, the same whatever is done with it
QUEUE_SPEED = 60
ENDED = {"done", "failed"}  # states of requests in the queue
QUIET_US = 600_000_000  # after the last of its requests, a job hands in what may wait
_METADATA = "x-amzn-bedrock-request-metadata"
_ACTION = {
    "InvokeModel": "invoke", "InvokeModelWithResponseStream": "invoke-with-response-stream", "Converse": "converse",
}  # fmt: skip
_OF_THE_MACHINE = ("AWS_", "ANTHROPIC_", "OTEL_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


class Places(NamedTuple):
    """Folders of a run."""

    logs: Path
    cur: Path
    outbox: Path

    @classmethod
    def of(cls, folder: Path, run: str) -> Places:
        return cls(folder / run, folder / "cur" / run, folder / "outbox" / run)


class DemoError(RuntimeError):
    """What went wrong, in one line."""


def run(places: Places, policy: Path, asks: Sequence[Ask], book: Book, progress: Progress) -> None:
    """The day, once. Its logs, bill and records are on disk when it returns."""
    world = World(book, Clock(DAY, 0), ACCOUNT, REGION, LONGEST, Logs(places.logs), seed=b"farthing demo")
    with (
        _nobody(),
        tempfile.TemporaryDirectory(prefix="farthing-demo-") as queue,
        bucket() as store,
        emulated(world, s3=_s3(store), cur_folder=places.cur) as emulator,
    ):
        settings = Settings(
            outbox=places.outbox, bedrock=emulator.url, region=REGION, account=ACCOUNT, auth=False, policy=policy,
            config=policy.with_name("farthing.toml"), fsync="os", queue=Path(queue),
        )  # fmt: skip
        jobs = batch.Settings(
            s3=f"s3://{NAME}", role_arn=f"arn:aws:iam::{ACCOUNT}:role/batch", region=REGION, account=ACCOUNT,
            bedrock=emulator.url, s3_endpoint=store.url, outbox=str(places.outbox), poll_s=5,
        )  # fmt: skip
        with gateway(settings, book, world.clock.now_us) as url:
            client = _Client(url, emulator, decider(load(policy), book), Path(queue), jobs)
            with contextlib.closing(client.http):
                client.send(asks, progress)
        _describe(emulator, store)
    for key, body in store.objects.items():
        path = places.logs / "batch" / key.removeprefix("out/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


class _Client:
    """Who sends the day's requests, and who works on the queue of those that wait."""

    def __init__(
        self, url: str, emulator: Emulator, decide: Decide, queue: Path, jobs: batch.Settings
    ) -> None:
        self._emulator, self._decide, self._queue, self._jobs = emulator, decide, queue, jobs
        self.http = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._places: list[str] = []  # where answers will be

    def send(self, asks: Sequence[Ask], progress: Progress) -> None:
        until_us = 0
        for number, ask in enumerate(asks):
            if self._places and ask.at_us > until_us:
                self._collect()
            self._emulator.clock(_moment(ask.at_us).isoformat())
            model, deadline = self._batched(ask)
            if deadline and not self._places:
                self._begin(ask.at_us)
            self._call(ask, model, deadline)
            if deadline:
                until_us = ask.at_us + QUIET_US
            progress(number + 1, len(asks))
        if self._places:
            self._collect()

    def _call(self, ask: Ask, model: str, deadline: str) -> None:
        tags, body = {"app": ask.app, "ask": ask.name}, ask.body
        headers = {"content-type": "application/json", "x-farthing-team": ask.app, "x-farthing-run": ask.name}
        if ask.operation == "Converse":
            body = {**body, "requestMetadata": tags}
        else:
            headers[_METADATA] = json.dumps(tags)
        if ask.session:
            headers["x-claude-code-session-id"] = ask.session
        if deadline:
            headers["x-farthing-deadline"] = deadline
        path = f"/model/{quote(model, safe='')}/{_ACTION[ask.operation]}"
        told = self._asked("POST", path, msgspec.json.encode(body), headers, 202 if deadline else 200)
        if deadline:
            self._places.append(told["location"])

    def _asked(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], status: int
    ) -> Mapping[str, str]:
        self.http.request(method, path, body, dict(headers))
        answer = self.http.getresponse()
        said = answer.read()
        if answer.status != status:
            raise DemoError(f"{path}: {answer.status} {said[:200].decode('utf-8', 'replace')}")
        return {name.lower(): value for name, value in answer.getheaders()}

    # --- what may wait

    def _batched(self, ask: Ask) -> tuple[str, str]:
        """As which model, and by when: "" if it is not batched. The job reads the policy, as the gateway does."""
        request = Request(ask.model, "bedrock", REGION, ACCOUNT, tags={"team": ask.app}, session=ask.session)
        made = [each for each in self._decide(request, _moment(ask.at_us)) if each.outcome == APPLIED]
        deadline = next((str(each.change["deadline"]) for each in made if each.lever == "batch"), "")
        models = [str(each.change["model_id"]) for each in made if "model_id" in each.change]
        return (models[-1] if deadline and models else ask.model), deadline

    def _begin(self, at_us: int) -> None:
        """The queue's clock begins now: before the gateway looks at it."""
        held = batch.Queue(self._queue)
        start = Anchor(boot_id(), at_us, steady_us(), speed=QUEUE_SPEED)
        held.set_meta("clock", msgspec.json.encode(start).decode())
        held.close()

    def _collect(self) -> None:
        """What `farthing batch run` does, and then the answers, from where the gateway said that they will be."""
        held = batch.Queue(self._queue)
        jobs = msgspec.structs.replace(self._jobs, size=len(self._places))
        live = batch.open_live(held, batch.kept(held, msgspec.structs.asdict(jobs)))
        try:
            batch.Runner(held, jobs, live).run(lambda: held.counts().keys() <= ENDED)
        finally:
            live.close()
            held.close()
        for place in self._places:
            mode = self._asked("GET", place, b"", {}, 200)["x-farthing-mode"]
            if mode != "batch":
                raise DemoError(f"{place}: sent as {mode}, and not in a batch")
        self._places = []


def _describe(emulator: Emulator, store: Bucket) -> None:
    """Beside the results of a job stands what it was: they name neither model nor time."""
    jobs = emulator.client("bedrock", REGION)
    for key in list(store.objects):
        folder, _, file = key.rpartition("/")
        if file == "manifest.json.out":
            told = jobs.get_model_invocation_job(jobIdentifier=folder.rpartition("/")[2])
            del told["ResponseMetadata"]
            store.objects[f"{folder}/job.json"] = json.dumps(
                told, default=datetime.isoformat, indent=1
            ).encode()


def _moment(at_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=at_us)


def _s3(store: Bucket) -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=store.url, region_name=REGION)


@contextmanager
def _nobody() -> Iterator[None]:
    """Made-up credentials, and no settings of this machine: nothing of the user's signs anything."""
    before = dict(os.environ)
    for name in before:
        if name.upper().startswith(_OF_THE_MACHINE):
            del os.environ[name]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "DEMO", "AWS_SECRET_ACCESS_KEY": "made up", "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
