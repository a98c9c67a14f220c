"""Batches of both kinds: Bedrock's model invocation jobs, over a bucket, and Anthropic's message batches.

Each runs by itself in steps that take `step_ms` of real time. Records are answered like calls, at batch rates; Bedrock
does not cache in them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from farthing.emulator._errors import Refused
from farthing.emulator._moments import iso
from farthing.emulator._runtime import VERSION, answer_of, messages_of
from farthing.emulator._world import Caller, World
from farthing.wire import Route

INVOKE = Route("InvokeModel", "bedrock")
CONVERSE = Route("Converse", "bedrock")
MESSAGES = Route("Messages", "anthropic")
MINIMUM = 100  # records of a job
STEP_MS = 50
SLICE = 50  # records between two looks at whether to stop
_ENDED = ("Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired")
_decode, _encode = msgspec.json.decode, msgspec.json.Encoder().encode


@dataclass
class Job:
    """A model invocation job."""

    arn: str
    asked: dict[str, Any]
    caller: Caller
    submitted_us: int
    status: str = "Submitted"
    message: str = ""
    changed_us: int = 0
    ended_us: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.arn.rpartition("/")[2]

    def told(self) -> dict[str, Any]:
        """As GetModelInvocationJob has it."""
        names = (
            "jobName", "clientRequestToken", "roleArn", "modelId", "inputDataConfig", "outputDataConfig",
            "timeoutDurationInHours", "modelInvocationType",
        )  # fmt: skip
        told = {name: self.asked[name] for name in names if self.asked.get(name) is not None}
        told |= {
            "jobArn": self.arn,
            "status": self.status,
            "submitTime": iso(self.submitted_us),
            **self.counts,
        }
        told["lastModifiedTime"] = iso(self.changed_us or self.submitted_us)
        if self.message:
            told["message"] = self.message
        if self.ended_us:
            told["endTime"] = iso(self.ended_us)
        return told


class Jobs:
    """The jobs and batches of an emulator; `s3` is a client of boto3, None where no bucket can be reached."""

    def __init__(
        self, world: World, s3: Any = None, *, minimum: int = MINIMUM, step_ms: int = STEP_MS
    ) -> None:
        self.world, self.s3 = world, s3
        self.minimum, self.step_s = minimum, step_ms / 1000
        self.jobs: dict[str, Job] = {}
        self.batches: dict[str, Batch] = {}
        self.ends: deque[tuple[str, int]] = deque()  # how the next jobs end, and after so many records
        self._tasks: set[asyncio.Task[None]] = set()

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # or it could be forgotten while it runs
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """With the server."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- Bedrock -----------------------------------------------------------------------------------------------------

    def create(self, asked: dict[str, Any], caller: Caller, at_us: int) -> Job:
        """CreateModelInvocationJob."""
        for name in ("jobName", "roleArn", "modelId", "inputDataConfig", "outputDataConfig"):
            if not asked.get(name):
                raise Refused("invalid", f"{name} is required")
        token = asked.get("clientRequestToken")
        for job in self.jobs.values():
            if token and token == job.asked.get("clientRequestToken"):
                return job
        if any(
            job.asked["jobName"] == asked["jobName"] and job.status not in _ENDED
            for job in self.jobs.values()
        ):
            raise Refused("conflict", f"A job with the name {asked['jobName']} is already running.")
        _split(_place(asked, "input"))
        _split(_place(asked, "output"))
        called = self.world.models.called(str(asked["modelId"]), "batch", caller.region)
        if not self.world.offered(called, caller.region, "batch", at_us):
            raise Refused("invalid", f"Batch inference is not supported for the model {asked['modelId']}.")
        if self.s3 is None:
            raise Refused("invalid", "The emulator has no S3: start it with --s3-endpoint")
        digest = self.world.new_ids()[1]
        arn = f"arn:aws:bedrock:{caller.region}:{caller.account}:model-invocation-job/{digest[:12]}"
        job = self.jobs[arn] = Job(arn, asked, caller, at_us)
        self._start(self._run(job))
        return job

    def job(self, name: str) -> Job:
        for job in self.jobs.values():
            if name in (job.arn, job.id):
                return job
        raise Refused("not_found", f"The provided job identifier {name} was not found.")

    def stop_job(self, name: str) -> None:
        """StopModelInvocationJob."""
        job = self.job(name)
        if job.status in _ENDED:
            raise Refused("conflict", f"The job is {job.status} already.")
        self._now(job, "Stopping")

    def _now(self, job: Job, status: str, message: str = "") -> None:
        job.status, job.message, job.changed_us = status, message, self.world.clock.now_us()
        if status in _ENDED:
            job.ended_us = job.changed_us

    async def _run(self, job: Job) -> None:
        end, most = self.ends.popleft() if self.ends else ("Completed", None)
        try:
            files: dict[str, list[bytes]] = {}
            for status in ("Validating", "Scheduled", "InProgress"):
                await asyncio.sleep(self.step_s)
                if job.status == "Stopping":
                    break
                self._now(job, status)
                if status == "Validating":
                    files = await asyncio.to_thread(self._inputs, job)
                    self._validate(job, files)
            else:
                await self._process(job, files, most)
            self._now(job, "Stopped" if job.status == "Stopping" else end)
        except Refused as refused:
            self._now(job, "Failed", refused.message)
        except Exception as error:  # noqa: BLE001 - the bucket's, of which there are many
            self._now(job, "Failed", f"The input or output location cannot be used: {error}")

    def _inputs(self, job: Job) -> dict[str, list[bytes]]:
        """The lines of each input file, by its name."""
        bucket, key = _split(_place(job.asked, "input"))
        keys = [key]
        if not key or key.endswith("/"):
            listed = self.s3.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents", ())
            keys = [one["Key"] for one in listed if one["Key"].endswith(".jsonl")]
        read = {one: self.s3.get_object(Bucket=bucket, Key=one)["Body"].read() for one in keys}
        return {
            one.rpartition("/")[2]: [line for line in data.split(b"\n") if line.strip()]
            for one, data in read.items()
        }

    def _validate(self, job: Job, files: Mapping[str, list[bytes]]) -> None:
        total = sum(map(len, files.values()))
        if total < self.minimum:
            raise Refused(
                "invalid",
                f"The input contains {total} records, less than the minimum of {self.minimum} records per job.",
            )
        job.counts = dict.fromkeys(
            ("totalRecordCount", "processedRecordCount", "successRecordCount", "errorRecordCount"), 0
        )
        job.counts["totalRecordCount"] = total

    async def _process(self, job: Job, files: Mapping[str, list[bytes]], most: int | None = None) -> None:
        done: dict[str, list[bytes]] = {}
        tokens = [0, 0]
        for name, all_lines in files.items():
            out, lines = done.setdefault(name, []), all_lines[:most]
            for at in range(0, len(lines), SLICE):
                if job.status == "Stopping":
                    break
                out += [self._record(job, line, tokens) for line in lines[at : at + SLICE]]
                await asyncio.sleep(0)
        await asyncio.to_thread(self._write, job, done, tokens)

    def _record(self, job: Job, line: bytes, sums: list[int]) -> bytes:
        """A line of the output. Only what was answered is billed."""
        job.counts["processedRecordCount"] += 1
        record: Any = None
        try:
            record = _decode(line)
            sent = record["modelInput"]
            route = CONVERSE if job.asked.get("modelInvocationType") == "Converse" else INVOKE
            request = messages_of(route, sent, {})
            at_us = self.world.clock.now_us()
            call = self.world.take(
                route, str(job.asked["modelId"]), request, _encode(sent), job.caller, at_us, mode="batch"
            )
        except (Refused, msgspec.DecodeError, KeyError, TypeError) as error:
            job.counts["errorRecordCount"] += 1
            message = error.message if isinstance(error, Refused) else "Malformed record"
            told = {
                name: record[name]
                for name in ("recordId", "modelInput")
                if isinstance(record, dict) and name in record
            }
            return _encode(
                told
                | {"error": {"errorCode": 400, "errorMessage": message, "expired": False, "retryable": False}}
            )
        self.world.settle(call)
        job.counts["successRecordCount"] += 1
        tokens = call.tokens()
        sums[0], sums[1] = sums[0] + tokens.input, sums[1] + tokens.output
        output = msgspec.Raw(answer_of(call, 1))
        return _encode({"recordId": record.get("recordId", ""), "modelInput": sent, "modelOutput": output})

    def _write(self, job: Job, done: Mapping[str, list[bytes]], tokens: list[int]) -> None:
        bucket, key = _split(_place(job.asked, "output"))
        prefix = "/".join(part for part in (key.strip("/"), job.id) if part)
        for name, lines in done.items():
            self.s3.put_object(Bucket=bucket, Key=f"{prefix}/{name}.out", Body=b"\n".join(lines) + b"\n")
        manifest = job.counts | {"inputTokenCount": tokens[0], "outputTokenCount": tokens[1]}
        self.s3.put_object(Bucket=bucket, Key=f"{prefix}/manifest.json.out", Body=_encode(manifest))

    # --- Anthropic ---------------------------------------------------------------------------------------------------

    def batch(self, requests: Any, caller: Caller, at_us: int) -> Batch:
        """CreateMessageBatch."""
        if not isinstance(requests, list) or not requests:
            raise Refused("invalid", "requests: List should have at least 1 item after validation, not 0")
        names = [one.get("custom_id") if isinstance(one, dict) else None for one in requests]
        if not all(isinstance(name, str) and name for name in names):
            raise Refused("invalid", "requests.0.custom_id: Field required")
        if len(set(names)) < len(names):
            raise Refused("invalid", "requests: custom_id must be unique within a batch")
        made = Batch(f"msgbatch_{self.world.new_ids()[1]}", requests, caller, at_us)
        self.batches[made.id] = made
        self._start(self._run_batch(made))
        return made

    def found(self, name: str) -> Batch:
        if name not in self.batches:
            raise Refused("not_found", f"Message batch not found: {name}")
        return self.batches[name]

    async def _run_batch(self, batch: Batch) -> None:
        await asyncio.sleep(self.step_s)
        for at in range(0, len(batch.requests), SLICE):
            for one in batch.requests[at : at + SLICE]:
                batch.results.append(self._answer(batch, one))
            await asyncio.sleep(self.step_s if at + SLICE < len(batch.requests) else 0)
        batch.ended_us = self.world.clock.now_us()

    def _answer(self, batch: Batch, one: Mapping[str, Any]) -> tuple[str, bytes]:
        """How one of them ended, and its line among the results."""
        result: dict[str, Any]
        if batch.cancelled_us:
            result = {"type": "canceled"}
        else:
            try:
                params = dict(one.get("params") or {})
                request = messages_of(MESSAGES, params, {"anthropic-version": VERSION})
                if request.get("stream") or not request["max_tokens"]:
                    raise Refused("invalid", "stream and max_tokens of 0 are not supported in batches")
                raw = _encode(params)
                at_us = self.world.clock.now_us()
                call = self.world.take(
                    MESSAGES, params["model"], request, raw, batch.caller, at_us, mode="batch"
                )
                self.world.settle(call)
                result = {"type": "succeeded", "message": msgspec.Raw(answer_of(call, 1))}
            except (Refused, TypeError, ValueError) as error:
                told = {"type": "invalid_request_error", "message": str(error)}
                result = {"type": "errored", "error": {"type": "error", "error": told}}
        return result["type"], _encode({"custom_id": one["custom_id"], "result": result})


@dataclass
class Batch:
    """A message batch."""

    id: str
    requests: list[dict[str, Any]]
    caller: Caller
    created_us: int
    cancelled_us: int = 0
    ended_us: int = 0
    results: list[tuple[str, bytes]] = field(default_factory=list)

    def told(self, base_url: str) -> dict[str, Any]:
        """As the API has it."""
        ended = [kind for kind, _ in self.results] if self.ended_us else []  # told only when all have ended
        counts = {"processing": 0 if self.ended_us else len(self.requests)}
        counts |= {kind: ended.count(kind) for kind in ("succeeded", "errored", "canceled", "expired")}
        status = "ended" if self.ended_us else "canceling" if self.cancelled_us else "in_progress"
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": counts,
            "created_at": iso(self.created_us),
            "expires_at": iso(self.created_us + 86_400_000_000),
            "ended_at": iso(self.ended_us) if self.ended_us else None,
            "cancel_initiated_at": iso(self.cancelled_us) if self.cancelled_us else None,
            "archived_at": None,
            "results_url": f"{base_url}/v1/messages/batches/{self.id}/results" if self.ended_us else None,
        }


def _place(asked: Mapping[str, Any], side: str) -> str:
    config = asked[f"{side}DataConfig"]
    inner = config.get(f"s3{side.capitalize()}DataConfig") if isinstance(config, dict) else None
    return str(inner.get("s3Uri") or "") if isinstance(inner, dict) else ""


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise Refused("invalid", f"{uri!r} is no s3:// location")
    return bucket, key
