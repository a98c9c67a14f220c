"""One run of the day: the emulator, the gateway before it, and a client that sends each request at its moment.

The clock of both stands at the moment of the request, and moves on to the next: a day takes seconds, and what is
cached lives as long as it does on a day. What the policy batches, its job hands to farthing.gateway.batch.
"""

from __future__ import annotations

import http.client
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
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
LONGEST = (
    10_000  # tokens of an answer, which is as long as its request allows: the same whatever is done with it
)
QUEUE_SPEED = 60
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
    with _nobody(), bucket() as store, emulated(world, s3=_s3(store), cur_folder=places.cur) as emulator:
        settings = Settings(
            outbox=places.outbox, bedrock=emulator.url, region=REGION, account=ACCOUNT, auth=False, policy=policy,
            config=policy.with_name("farthing.toml"), fsync="os",
        )  # fmt: skip
        with gateway(settings, book, world.clock.now_us) as running:
            _Client(running.url, emulator, store, places, decider(load(policy), book)).send(asks, progress)
    for key, body in store.objects.items():
        path = places.logs / "batch" / key.removeprefix("out/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


class _Client:
    """Who sends the day's requests."""

    def __init__(self, url: str, emulator: Emulator, store: Bucket, places: Places, decide: Decide) -> None:
        self._emulator, self._store, self._places, self._decide = emulator, store, places, decide
        self._http = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def send(self, asks: Sequence[Ask], progress: Progress) -> None:
        waiting: list[tuple[Ask, str]] = []
        for number, ask in enumerate([*asks, None]):
            if waiting and (ask is None or ask.at_us > waiting[-1][0].at_us + QUIET_US):
                self._batch(waiting)
                waiting = []
            if ask is None:
                break
            self._emulator.clock(_moment(ask.at_us).isoformat())
            model = self._batched(ask)
            if model:
                waiting.append((ask, model))
            else:
                self._call(ask)
            progress(number + 1, len(asks))
        self._http.close()

    def _call(self, ask: Ask) -> None:
        tags, body = {"app": ask.app, "ask": ask.name}, ask.body
        headers = {"content-type": "application/json"}
        if ask.operation == "Converse":
            body = {**body, "requestMetadata": tags}
        else:
            headers[_METADATA] = json.dumps(tags)
        if ask.session:
            headers["x-claude-code-session-id"] = ask.session
        path = f"/model/{quote(ask.model, safe='')}/{_ACTION[ask.operation]}"
        self._http.request("POST", path, msgspec.json.encode(body), headers)
        answer = self._http.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise DemoError(f"{ask.name}: {answer.status} {said[:200].decode('utf-8', 'replace')}")

    # --- what may wait

    def _batched(self, ask: Ask) -> str:
        """The model to batch it with; "" if it is not batched."""
        request = Request(ask.model, "bedrock", REGION, ACCOUNT, tags={"app": ask.app}, session=ask.session)
        made = [each for each in self._decide(request, _moment(ask.at_us)) if each.outcome == APPLIED]
        if all(each.lever != "batch" for each in made):
            return ""
        return next(
            (str(each.change["model_id"]) for each in reversed(made) if "model_id" in each.change), ask.model
        )

    def _batch(self, waiting: Sequence[tuple[Ask, str]]) -> None:
        """One job, on a queue whose clock begins when the job hands it in."""
        asked = [
            {"id": ask.name, "model": model, "body": ask.body, "tags": {"app": ask.app, "ask": ask.name}}
            for ask, model in waiting
        ]
        with tempfile.TemporaryDirectory(prefix="farthing-demo-") as folder:
            held = batch.Queue(folder)
            start = Anchor(boot_id(), waiting[-1][0].at_us, steady_us(), speed=QUEUE_SPEED)
            held.set_meta("clock", msgspec.json.encode(start).decode())
            held.close()
            ends = batch.run(
                asked, "24h", queue=folder, s3=f"s3://{NAME}", role_arn=f"arn:aws:iam::{ACCOUNT}:role/batch",
                region=REGION, account=ACCOUNT, bedrock=self._emulator.url, s3_endpoint=self._store.url,
                outbox=str(self._places.outbox), size=len(asked), poll_s=5,
            )  # fmt: skip
        failed = [end for end in ends if end.error or end.mode != "batch"]
        if failed:
            raise DemoError(f"{failed[0].id}: {failed[0].error or failed[0].reason}")
        self._describe()

    def _describe(self) -> None:
        """Beside the results of a job stands what it was: they name neither model nor time."""
        jobs = self._emulator.client("bedrock", REGION)
        for key in list(self._store.objects):
            folder, _, file = key.rpartition("/")
            if file == "manifest.json.out":
                told = jobs.get_model_invocation_job(jobIdentifier=folder.rpartition("/")[2])
                del told["ResponseMetadata"]
                text = json.dumps(told, default=datetime.isoformat, indent=1)
                self._store.objects[f"{folder}/job.json"] = text.encode()


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
