"""Batch results: of Bedrock's model invocation jobs, with their manifest, and of Anthropic's message batches.

A result tells neither its time nor, in part, its model: the job does. Its description is looked for in the folder of
the results, and in the one above: what `aws bedrock get-model-invocation-job` or `list-model-invocation-jobs`
prints, or Anthropic's batch object, in a file whose name has `job` or `batch` in it, or is the job's id.
"""

# ruff: noqa: N815 - fields are named as in the JSON

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from farthing.importers._batch import Reject
from farthing.importers._block import (
    ZERO,
    Block,
    Count,
    Tokens,
    five,
    geography,
    passes,
    says_something,
    searches,
)
from farthing.importers._documents import decoded, documents, first_keys
from farthing.importers._open import UNREADABLE, Cut, Source
from farthing.importers._read import Item, Lines, digest, instant, reason
from farthing.usage import Entry, Facts, Rejected, Total, Usage, is_own

# --- what is read of a line ----------------------------------------------------------------------------------------


class _Answer(msgspec.Struct, gc=False):
    """Of InvokeModel, Converse, or Messages."""

    id: Any = None
    model: Any = None
    usage: Block | None = None
    stop_reason: Any = None
    stopReason: Any = None


class _Error(msgspec.Struct, gc=False):
    """Bedrock's; or Anthropic's, which is the inner one of two."""

    errorCode: Any = None
    type: Any = None
    error: _Error | None = None


class _Result(msgspec.Struct, gc=False):
    type: str = ""
    message: _Answer | None = None
    error: _Error | None = None


class _Requests(msgspec.Struct, gc=False):
    succeeded: Count = 0
    errored: Count = 0
    canceled: Count = 0
    expired: Count = 0


class _Line(msgspec.Struct, gc=False):
    """A result, a manifest, a description of a job or of a batch, or a list of those."""

    recordId: str | None = None
    modelOutput: _Answer | None = None
    error: _Error | None = None
    custom_id: str | None = None
    result: _Result | None = None
    jobArn: str = ""
    modelId: str = ""
    roleArn: str = ""
    submitTime: str | None = None
    lastModifiedTime: str | None = None
    endTime: str | None = None
    processedRecordCount: Count | None = None
    errorRecordCount: Count | None = None
    inputTokenCount: Count | None = None
    outputTokenCount: Count | None = None
    invocationJobSummaries: list[_Line] | None = None
    id: str | None = None
    created_at: str | None = None
    ended_at: str | None = None
    request_counts: _Requests | None = None
    data: list[_Line] | None = None


_decoder: msgspec.json.Decoder[_Line | list[_Line]] = msgspec.json.Decoder(_Line | list[_Line])
_OUTCOMES = {"modelOutput", "error", "result"}
_DESCRIBES = (
    {"jobArn", "modelId"},
    {"invocationJobSummaries"},
    {"processedRecordCount", "totalRecordCount"},
    {"request_counts", "processing_status"},
)


def sniff(head: bytes) -> bool:
    keys = first_keys(head)
    if any(keys.keys() >= of for of in _DESCRIBES):
        return True
    if _OUTCOMES.isdisjoint(keys):
        # A prompt that fills the head hides what comes after it. The input of a job has no outcome.
        return "modelInput" in keys and b"\n" not in head.strip() and not head.rstrip().endswith(b"}")
    return {"recordId", "modelInput"} <= keys.keys() or ("custom_id" in keys and keys.get("result") == "{")


def read(lines: Lines, path: str = "") -> Iterator[Item]:
    reader = _Reader(path)
    for number, text in documents(lines):
        try:
            if isinstance(text, str):
                raise Rejected(text)
            for line in _flat(decoded(_decoder, text)):
                yield from reader.items(line, text)
        except (Rejected, *UNREADABLE) as error:
            yield Reject(number, reason(error))


def _flat(found: _Line | list[_Line]) -> Iterator[_Line]:
    if isinstance(found, list):
        for one in found:
            yield from _flat(one)
        return
    yield found
    for one in found.invocationJobSummaries or found.data or ():
        yield from _flat(one)


# --- the job -------------------------------------------------------------------------------------------------------


class _Job(NamedTuple):
    """Of Bedrock, or a batch of Anthropic's. "" is what is not known."""

    platform: str
    id: str
    start_us: int
    end_us: int
    model_id: str = ""
    region: str = ""
    account: str = ""
    role: str = ""
    assumed: str = ""


_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:([a-z0-9-]+):(\d{12}):model-invocation-job/(\w+)")
_JOB_ID = re.compile(r"[a-z0-9]{12}")
_OURS = re.compile(r"fa-[0-9a-f]{24}")
_BATCH_ID = re.compile(r"msgbatch_[A-Za-z0-9]+")
_DESCRIPTION = re.compile(r"(?:.*(?:job|batch).*|[a-z0-9]{12})\.json(?:\.gz)?", re.IGNORECASE)


def _described(line: _Line) -> _Job | None:
    """What a line says of a job, if it is a description of one."""
    arn = _ARN.fullmatch(line.jobArn)
    if arn:
        region, account, name = arn.groups()
        end_us = instant(line.endTime or line.lastModifiedTime or line.submitTime)
        start_us = min(end_us, instant(line.submitTime)) if line.submitTime else end_us
        return _Job("bedrock", name, start_us, end_us, line.modelId, region, account, line.roleArn)
    if line.id and _BATCH_ID.fullmatch(line.id) and line.created_at:
        start_us = instant(line.created_at)
        return _Job("anthropic", line.id, start_us, max(start_us, instant(line.ended_at or line.created_at)))
    return None


NO_TIME = (
    "results tell no time: put the description of their job beside them, as job.json, or copy them to a disk"
)


def _find(path: str, platform: str) -> _Job:
    """The job that the file at `path` is a result of: by a description of it, else by the names and the file's time."""
    folder, file = os.path.split(path)
    if platform == "bedrock":
        job_id = _JOB_ID.fullmatch(os.path.basename(folder))  # noqa: PTH119 - it may be s3://
    else:
        job_id = _BATCH_ID.search(file) or _BATCH_ID.search(folder)
    name = job_id[0] if job_id else ""
    for place in (folder, os.path.dirname(folder)) if file else ():  # noqa: PTH120
        jobs = [
            job for job in _in_folder(place or ".", name, _changed(place or ".")) if job.platform == platform
        ]
        if not name and len({job.id for job in jobs}) == 1:
            return jobs[0]
        for job in jobs:
            if job.id == name:
                return job
    at_us = _changed(path) // 1000
    if not at_us:
        raise Rejected(NO_TIME)
    return _Job(platform, name, at_us, at_us, assumed="at")


def _changed(path: str) -> int:
    """When a file or a folder was last another, in nanoseconds; 0 where nobody says."""
    try:
        return 0 if path == "-" else Path(path).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=8)  # the folder above many jobs is asked for each of them
def _in_folder(folder: str, job_id: str, changed_ns: int) -> list[_Job]:
    """The jobs that files in the folder describe."""
    try:
        names = [f"{name}.json" for name in (job_id, "job", "batch") if name]
        if changed_ns:  # it is on a disk
            names = sorted(file.name for file in Path(folder).iterdir() if _DESCRIPTION.fullmatch(file.name))
        return [job for name in names for job in _in_file(os.path.join(folder, name))]  # noqa: PTH118
    except OSError:
        return []


def _in_file(path: str) -> list[_Job]:
    try:
        source = Source(path)
        try:
            data = b"".join(source.chunks())
        finally:
            source.close()
        return [job for line in _flat(decoded(_decoder, data)) if (job := _described(line))]
    except (OSError, Cut, Rejected, *UNREADABLE):
        return []  # it is read by itself too, and says then what is wrong


# --- results -------------------------------------------------------------------------------------------------------


class _Reader:
    """Lines of one file to usage, with one Facts object for all that are equal."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: dict[str, _Job] = {}  # by platform
        self._facts: dict[tuple[str, ...], Facts] = {}
        self._model = ""  # of the last answer: errors do not name it, and a job has one

    def items(self, line: _Line, text: bytes) -> Iterator[Usage | Total | Entry]:
        if line.recordId is not None or line.modelOutput or line.error:
            if line.modelOutput or line.error:  # the input of a job has neither
                yield from self._usage(
                    self._job("bedrock"), line.recordId, line.modelOutput, line.error, text
                )
        elif line.result is not None:
            error = line.result.error or _Error(type=line.result.type)
            answer = line.result.message if line.result.type == "succeeded" else None
            if line.result.type == "succeeded" and not answer:
                raise Rejected("a result without its message")
            yield from self._usage(self._job("anthropic"), line.custom_id, answer, error, text)
        elif line.processedRecordCount is not None or line.request_counts:
            yield from _totals(_described(line) or self._job("bedrock"), line)

    def _job(self, platform: str) -> _Job:
        if platform not in self._found:
            self._found[platform] = _find(self._path, platform)
        return self._found[platform]

    def _usage(
        self, job: _Job, name: str | None, answer: _Answer | None, error: _Error | None, text: bytes
    ) -> Iterator[Usage | Entry]:
        gateway_id = f"{job.id}/{name}" if job.id and name else ""
        if name and _OURS.fullmatch(name):
            gateway_id = name  # sent by farthing's batches, whose outbox knows the call by this id
        message_id = answer.id if answer and isinstance(answer.id, str) else ""
        request_id = "" if gateway_id or message_id else digest(text)
        parts = self._answered(job, answer) if answer else self._failed(job, error or _Error())
        if parts:
            usage = Usage(job.end_us, request_id, message_id, parts, gateway_id=gateway_id)
            yield usage
            yield from searches(answer.usage if answer else None, usage)

    def _failed(self, job: _Job, error: _Error) -> tuple[tuple[Facts, Tokens], ...]:
        """A call that was not billed."""
        while error.error is not None:
            error = error.error
        return ((self._fact(job, "", "", str(error.errorCode or error.type or "error")), ZERO),)

    def _answered(self, job: _Job, answer: _Answer) -> tuple[tuple[Facts, Tokens], ...]:
        model = answer.model if isinstance(answer.model, str) else ""
        self._model = model or self._model
        block = answer.usage
        if block is None or not says_something(block):
            if job.model_id and "claude" not in job.model_id and ":application-" not in job.model_id:
                return ()  # another vendor's
            raise Rejected("no token counts in the answer")
        read = passes(block)
        stops = (answer.stop_reason, answer.stopReason)
        if "refusal" in stops and not any(part.tokens.output for part in read.parts):
            return ((self._fact(job, model, "", "refusal"), ZERO),)  # counts are reported, not billed
        status = "guardrail_intervened" if "guardrail_intervened" in stops else ""
        geo = geography(block)
        return tuple(
            (
                self._fact(job, model, geo, status, read.assumed, part.model),
                five(part.tokens),
            )
            for part in read.parts
        )

    def _fact(
        self, job: _Job, served: str, geo: str, status: str, assumed: tuple[str, ...] = (), named: str = ""
    ) -> Facts:
        """`named` is the model of one pass, if it says one."""
        own = "" if is_own(named, job.model_id, served) else named
        model = own or job.model_id or served or self._model
        key = (job.platform, model, served, geo, status, *assumed)
        facts = self._facts.get(key)
        if facts is None:
            facts = self._facts[key] = Facts(
                source=f"{job.platform}_batch",
                platform=job.platform,
                model_id=model,
                served_model=own or served,
                region=job.region,
                account=job.account,
                principal=job.role,
                mode="batch",
                inference_geo=geo,
                operation="CreateModelInvocationJob" if job.platform == "bedrock" else "",
                status=status,
                assumed=",".join(filter(None, (*assumed, job.assumed))),
            )
        return facts


def _totals(job: _Job, line: _Line) -> Iterator[Total]:
    """What the job counted in all."""
    counted = {
        "calls": line.processedRecordCount,
        "errors": line.errorRecordCount,
        "input": line.inputTokenCount,
        "output": line.outputTokenCount,
    }
    if line.request_counts:
        succeeded, *failed = msgspec.structs.astuple(line.request_counts)
        counted |= {"calls": succeeded + sum(failed), "errors": sum(failed)}
    for name, value in counted.items():
        if value is not None:
            yield Total(
                f"{job.platform}_batch",
                job.start_us,
                job.end_us + 1,
                name,
                value,
                platform=job.platform,
                account=job.account,
                region=job.region,
                model_id=job.model_id,
                mode="batch",
                principal=job.role,
                scope=f"job: {job.id}",
            )
