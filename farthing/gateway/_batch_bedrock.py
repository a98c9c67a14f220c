"""Bedrock's batch jobs: a file in a bucket, a job that reads it, files in a bucket.

A job is named after its plan, and its token is its name: begun twice, it is one job, and one that nobody noted is
found by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from farthing.gateway._batch_far import Fault, Outcome, Status
from farthing.gateway._batch_queue import Job
from farthing.gateway._batch_settings import Settings

T = TypeVar("T")
ENDED = ("Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired")
_ATTEMPTS = 3  # of each call, by botocore; the runner comes back later


class _Error(msgspec.Struct):
    errorCode: int | str | None = None  # noqa: N815 - as in the JSON
    errorMessage: str = ""  # noqa: N815
    retryable: bool | None = None


class _Line(msgspec.Struct):
    recordId: str = ""  # noqa: N815
    modelOutput: msgspec.Raw = msgspec.Raw()  # noqa: N815
    error: _Error | None = None


_line = msgspec.json.Decoder(_Line)


class Bedrock:
    """Jobs of one account and region."""

    def __init__(self, settings: Settings, region: str) -> None:
        import boto3
        from botocore.config import Config

        session = boto3.Session(profile_name=settings.profile or None, region_name=region)
        config = Config(
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS}, connect_timeout=10, read_timeout=60
        )
        self._jobs = session.client("bedrock", endpoint_url=settings.bedrock or None, config=config)
        self._s3 = session.client("s3", endpoint_url=settings.s3_endpoint or None, config=config)
        self._quotas = session.client("service-quotas", config=config)
        self.quotas: list[Any] | None = [] if settings.bedrock else None  # None: to be asked
        self._role = settings.role_arn
        bucket, _, prefix = settings.s3.removeprefix("s3://").strip("/").partition("/")
        self.bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""

    def begin(self, job: Job, records: Sequence[tuple[str, bytes]]) -> str:
        """The job's ARN. `records` are (attempt, body)."""
        key = self._input(job)
        lines = [
            b'{"recordId":"%b","modelInput":%b}\n' % (attempt.encode(), body) for attempt, body in records
        ]
        _tried(self._s3.put_object, Bucket=self.bucket, Key=key, Body=b"".join(lines))
        made = _tried(
            self._jobs.create_model_invocation_job,
            jobName=job.name,
            clientRequestToken=job.name,
            roleArn=self._role,
            modelId=job.group.model,
            modelInvocationType=job.group.kind,
            inputDataConfig={"s3InputDataConfig": {"s3Uri": f"s3://{self.bucket}/{key}"}},
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"s3://{self.bucket}/{self._output(job)}"}},
            timeoutDurationInHours=24,
        )
        return str(made["jobArn"])

    def find(self, job: Job, attempts: Sequence[str], known: Sequence[str], now_us: int) -> str:
        """The ARN of a job that may have been begun; "" if it was not."""
        asked: dict[str, Any] = {"nameContains": job.name, "maxResults": 100}
        while True:
            page = _tried(self._jobs.list_model_invocation_jobs, **asked)
            for one in page.get("invocationJobSummaries", ()):
                if one["jobName"] == job.name:
                    return str(one["jobArn"])
            if not page.get("nextToken"):
                return ""
            asked["nextToken"] = page["nextToken"]

    def status(self, job: Job) -> Status:
        told = _tried(self._jobs.get_model_invocation_job, jobIdentifier=job.remote)
        ended = told.get("endTime") or told.get("lastModifiedTime")
        return Status(
            told["status"],
            told["status"] in ENDED,
            told.get("processedRecordCount") or 0,
            told.get("successRecordCount"),
            " ".join(str(told.get("message") or "").split())[:300],
            int(ended.timestamp()) * 1_000_000 if ended else 0,
        )

    def stop(self, job: Job) -> None:
        _tried(self._jobs.stop_model_invocation_job, jobIdentifier=job.remote)

    def results(self, job: Job) -> Iterator[Outcome]:
        """Of what the job has written, in any order."""
        prefix = f"{self._output(job)}{job.remote.rpartition('/')[2]}/"
        found = _tried(self._s3.list_objects_v2, Bucket=self.bucket, Prefix=prefix).get("Contents", ())
        for key in (one["Key"] for one in found if one["Key"].endswith(".jsonl.out")):
            body = _tried(self._s3.get_object, Bucket=self.bucket, Key=key)["Body"]
            for line in _tried(body.read).splitlines():
                outcome = _outcome(line)
                if outcome is not None:
                    yield outcome

    def clean(self, job: Job) -> None:
        """The file of prompts, which nobody needs any more. What the job wrote stays: an import may read it."""
        _tried(self._s3.delete_object, Bucket=self.bucket, Key=self._input(job))

    def ask_quotas(self, ask: Callable[[Any], list[Any]]) -> list[Any]:
        if self.quotas is None:
            self.quotas = ask(self._quotas)
        return self.quotas

    def _input(self, job: Job) -> str:
        return f"{self._prefix}in/{job.name}.jsonl"

    def _output(self, job: Job) -> str:
        return f"{self._prefix}out/{job.name}/"


def _outcome(line: bytes) -> Outcome | None:
    try:
        said = _line.decode(line)
    except msgspec.MsgspecError:
        return None  # a torn line of a job that was cut off: its record has no result
    if said.error is not None:
        final = str(said.error.errorCode) == "400" and not said.error.retryable
        return Outcome(
            said.recordId, error=f"{said.error.errorCode}: {said.error.errorMessage}"[:300], final=final
        )
    return Outcome(said.recordId, bytes(said.modelOutput)) if bytes(said.modelOutput) else None


def _tried(function: Callable[..., T], **asked: Any) -> T:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return function(**asked)
    except (BotoCoreError, ClientError, OSError) as error:
        raise Fault(" ".join(str(error).split())[:300]) from error
