"""Bedrock model invocation logs: S3 objects, or CloudWatch exports, query results and deliveries of them.

The counts at the top of a record decide, since bodies may be absent or elsewhere. What only the answer's body
tells is taken from there: how long cache writes live, the model that answered, passes of other models, latency.
"""

from __future__ import annotations

import base64
import binascii
import os.path
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from farthing.importers._open import Bad, Cut, Numbered, Source
from farthing.importers._read import Lines, Reject, digest, instant, mode, objects, reading, reason, whole
from farthing.usage import Facts, Reading, Rejected, Usage, parse_model_id, split_writes

Count = Annotated[int, msgspec.Meta(ge=0)]
Tokens = tuple[int, int, int, int, int]
ZERO: Tokens = (0, 0, 0, 0, 0)
RECORD = "ModelInvocationLog"
MOST_BODY_BYTES = 1 << 26


# --- what is read of a line ----------------------------------------------------------------------------------------


class _Body(msgspec.Struct, gc=False):
    """An answer of InvokeModel or Converse, or the message that begins a stream."""

    id: Any = None
    model: Any = None
    usage: dict[str, Any] | None = None
    stop_reason: Any = None
    stopReason: Any = None
    metrics: Any = None
    serviceTier: Any = None
    performanceConfig: Any = None
    guardrail: Any = msgspec.field(default=None, name="amazon-bedrock-guardrailAction")


class _Delta(msgspec.Struct, gc=False):
    stop_reason: Any = None


class _Event(msgspec.Struct, gc=False):
    """One of a streamed answer. Anything in it but these is a piece of text, or a ping."""

    message: _Body | None = None
    usage: dict[str, Any] | None = None
    delta: _Delta | None = None
    metrics: dict[str, Any] | None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")
    guardrail: Any = msgspec.field(default=None, name="amazon-bedrock-guardrailAction")


Answer = _Body | list[_Event | str] | str | None


class _Input(msgspec.Struct, gc=False):
    inputTokenCount: Count | None = None
    cacheReadInputTokenCount: Count | None = None
    cacheWriteInputTokenCount: Count | None = None


class _Output(msgspec.Struct, gc=False):
    outputTokenCount: Count | None = None
    outputBodyJson: Answer = None
    outputBodyS3Path: str | None = None


class _OutputAlone(msgspec.Struct, gc=False):
    outputTokenCount: Count | None = None
    outputBodyS3Path: str | None = None


class _Identity(msgspec.Struct, gc=False):
    arn: str | None = None


class _Message(msgspec.Struct, gc=False):
    """An event of CloudWatch, which holds a record as text."""

    message: str | None = None


class _Field(msgspec.Struct, gc=False):
    """A cell of a Logs Insights result."""

    field: str | None = None
    value: str | None = None


class _Line(msgspec.Struct, gc=False):
    """A record, or what CloudWatch wraps records in."""

    schemaType: str | None = None
    timestamp: str | int | float | None = None
    accountId: str | None = None
    identity: _Identity | None = None
    region: str | None = None
    requestId: str | None = None
    operation: str | None = None
    modelId: str | None = None
    errorCode: str | None = None
    requestMetadata: dict[str, Any] | None = None
    serviceTier: Any = None
    performanceConfig: Any = None
    input: _Input | None = None
    message: str | None = None
    insight: str | dict[str, Any] | None = msgspec.field(default=None, name="@message")
    events: list[_Message] | None = None
    logEvents: list[_Message] | None = None
    results: list[list[_Field]] | None = None


class _Whole(_Line, gc=False):
    output: _Output | None = None


class _Bodiless(_Line, gc=False):
    """A record whose answer is like none that we know: its counts are at its top all the same."""

    output: _OutputAlone | None = None


_Record = _Whole | _Bodiless
_decoder = msgspec.json.Decoder(_Whole)
_decode_bodiless = msgspec.json.Decoder(_Bodiless).decode
_decode_answer: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
_decode_event = msgspec.json.Decoder(_Event).decode


class _Told(NamedTuple):
    """What an answer says of its call."""

    usage: Mapping[str, Any] | None = None
    model: str = ""
    id: str = ""
    stop: str = ""
    mode: str = ""
    latency_ms: int | None = None


_NOTHING = _Told()


# --- lines ---------------------------------------------------------------------------------------------------------


_OF_RECORDS = {"schemaType", "accountId", "identity", "requestId", "operation", "modelId", "input", "inferenceRegion"}
_WRAPPERS = {("events", "["), ("logEvents", "["), ("results", "["), ("message", '"'), ("@message", '"'), ("@message", "{")}
_PRETTY = re.compile(rb"\s*\{[ \t]*\r?\n")


def sniff(head: bytes) -> bool:
    wraps = bool(_PRETTY.match(head))
    for keys in objects(head):
        if len(_OF_RECORDS & keys.keys()) > 3 or "schemaType" in keys:
            return True
        wraps = wraps or not _WRAPPERS.isdisjoint(keys.items())
    return wraps and (RECORD.encode() in head or b'\\"modelId\\"' in head)


def read(lines: Lines, path: str = "") -> Iterator[Usage | Reject]:
    lines = Numbered.of(lines)
    reader = _Reader(path)
    for record in lines.decoded(_decoder):
        number = lines.number
        if record.__class__ is Bad:
            try:
                yield from reader.text(number, _bare(record.line))
            except ValueError as error:
                yield Reject(number, reason(error))
        else:
            yield from reader.record(number, record, lines)


_STAMPED = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+Z\s+")  # of an export task, before each message
_QUOTED = rb'"(?:[^"\\]++|\\.)*+"'
_CELL = re.compile(rb'"(?:message|value|@message)"\s*:\s*(' + _QUOTED + rb"),?", re.DOTALL)
_PIECE = re.compile(
    rb"[{}\[\]]+,?|(?:" + _QUOTED + rb"\s*:\s*)?(?:" + _QUOTED + rb"|[-+.\w]+|\[\]?|\{\}?),?", re.DOTALL
)
_PROBE = b"Permissions are correctly set for Amazon Bedrock logs"


def _bare(line: bytes) -> bytes:
    """The JSON of a record in a line: after a time stamp, or as text inside a result that is printed over lines."""
    text = line.strip()
    if text[0] == 123 and len(text) > 2:
        return text
    stamp = _STAMPED.match(text)
    if stamp or _PROBE in text:
        return text[stamp.end() :] if stamp and _PROBE not in text else b""
    if text[0] in b"{}[]" or line[0] in b" \t":
        if text.startswith(b'"schemaType"'):
            raise Rejected("a record over several lines, where it needs its own: `jq -c . FILE` mends it")
        cell = _CELL.fullmatch(text)
        if cell:
            message = msgspec.json.decode(cell[1])
            return message.encode() if message.lstrip().startswith("{") else b""
        if _PIECE.fullmatch(text):
            return b""
    return text


class _Reader:
    """Lines of one file to usage, with one Facts object for all that are equal."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._facts: dict[tuple[str, ...], Facts] = {}

    def text(self, number: int, text: bytes) -> Iterator[Usage | Reject]:
        """What a text holds that should be a record, or a CloudWatch result or delivery."""
        if not text:
            return
        try:
            record = _decoder.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            several = text.split(b'}{"messageType"')
            if len(several) > 1:  # Firehose puts deliveries next to each other, with nothing between
                yield from self.text(number, several[0] + b"}")
                for one in several[1:-1]:
                    yield from self.text(number, b'{"messageType"' + one + b"}")
                yield from self.text(number, b'{"messageType"' + several[-1])
                return
            try:
                record = _mended(text, error)
            except (msgspec.DecodeError, RecursionError) as fault:
                yield Reject(number, reason(fault))
                return
        yield from self.record(number, record, text)

    def record(self, number: int, record: _Record, line: bytes | Numbered) -> Iterator[Usage | Reject]:
        """`line` is where the record is from, for one without ids."""
        if record.schemaType == RECORD or (record.schemaType is None and record.modelId is not None):
            try:
                yield self._usage(record, line)
            except Rejected as error:
                yield Reject(number, reason(error))
        elif record.schemaType is None:
            for text in _wrapped(record):
                if text.lstrip().startswith("{"):
                    yield from self.text(number, text.encode())

    def _usage(self, record: _Record, line: bytes | Numbered) -> Usage:
        told = self._told(record)
        at_us = instant(record.timestamp)
        if not record.modelId:
            raise Rejected("no modelId")
        request_id = record.requestId or ""
        if not request_id and not told.id:
            request_id = digest(line if isinstance(line, bytes) else line.line)
        metadata = record.requestMetadata or {}
        status, billed = _status(record, told)
        if billed:
            read = _reading(told)
            counts, assumed = _counts(record, read)
            if told.stop == "refusal" and not counts[1]:
                status, counts, assumed, read = "refusal", ZERO, "", None
        else:
            read, counts, assumed = None, ZERO, ""
        base = (
            record.modelId,
            told.model,
            record.region or "",
            record.accountId or "",
            (record.identity.arn if record.identity else "") or "",
            _mode(record, told, read),
            read.inference_geo if read else "",
            _session(metadata),
            record.operation or "",
            status,
        )
        parts: tuple[tuple[Facts, Tokens], ...] = ((self._fact(base, assumed), counts),)
        if read and _tells_more(read, counts):
            assumed = ",".join(read.assumed)
            parts = tuple((self._fact(base, assumed, part.model), _five(part.tokens)) for part in read.parts)
        return Usage(at_us, request_id, told.id, parts, _tags(metadata), told.latency_ms)

    def _fact(self, base: tuple[str, ...], assumed: str, model: str = "") -> Facts:
        """`model` is that of one pass, if it is another than the call's."""
        key = (*base, assumed, model)
        facts = self._facts.get(key)
        if facts is None:
            called, served, region, account, arn, mode_, geo, session, operation, status = base
            if model and model not in (served, called, parse_model_id(called).base):
                called = served = model
            facts = self._facts[key] = Facts(
                source="bedrock_log",
                platform="bedrock",
                model_id=called,
                served_model=served,
                region=region,
                account=account,
                principal=arn,
                mode=mode_,
                inference_geo=geo,
                session=session,
                operation=operation,
                status=status,
                assumed=assumed,
            )
        return facts

    def _told(self, record: _Record) -> _Told:
        output = record.output
        if output is None:
            return _NOTHING
        answer = output.outputBodyJson if isinstance(output, _Output) else None
        if answer is None and output.outputBodyS3Path:
            answer = self._delivered(output.outputBodyS3Path)
        return _told(answer)

    def _delivered(self, s3_path: str) -> Answer:
        """An answer that was too large for its record, if its file is where S3 had it: in data/, beside the log."""
        if self._path in ("", "-"):
            return None
        path = os.path.join(os.path.dirname(self._path), "data", os.path.basename(s3_path))
        try:
            source = Source(path)
        except OSError:
            return None
        body = bytearray()
        try:
            for chunk in source.chunks():
                body += chunk
                if len(body) > MOST_BODY_BYTES:
                    return None
        except (Cut, OSError):
            return None
        finally:
            source.close()
        return _answer(bytes(body))


def _mended(line: bytes, error: Exception) -> _Record:
    if isinstance(error, msgspec.ValidationError):
        return _decode_bodiless(whole(line))
    return _decoder.decode(whole(line))


def _wrapped(record: _Line) -> Iterator[str]:
    """The records in a CloudWatch event, a list of them, or Logs Insights' rows."""
    if record.message:
        yield record.message
    if isinstance(record.insight, str):
        yield record.insight
    elif record.insight:
        yield msgspec.json.encode(record.insight).decode()
    for event in (*(record.events or ()), *(record.logEvents or ())):
        yield event.message or ""
    for row in record.results or ():
        yield from (cell.value or "" for cell in row if cell.field == "@message")


# --- the answer ----------------------------------------------------------------------------------------------------


def _answer(text: bytes) -> Answer:
    """JSON that should be an answer; None if it is none."""
    try:
        return _decode_answer.decode(whole(text))
    except (msgspec.DecodeError, RecursionError):
        return None


def _told(answer: Answer) -> _Told:
    if isinstance(answer, str):
        text = answer.strip().encode()
        if text[:1] not in (b"{", b"["):
            try:
                text = base64.b64decode(text, validate=True)
            except binascii.Error:
                return _NOTHING
        answer = _answer(text)
    if isinstance(answer, list):
        return _streamed(answer)
    return _body(answer, answer.usage) if isinstance(answer, _Body) else _NOTHING


def _streamed(events: Iterable[_Event | str]) -> _Told:
    """The message that begins a stream has the cache's split, the delta the final counts: cumulative, so not added."""
    body = _Body()
    usage: dict[str, Any] = {}
    for event in events:
        if isinstance(event, str):  # "[DONE]", or the event as text
            try:
                event = _decode_event(event)
            except (msgspec.DecodeError, RecursionError):
                continue
        if event.message is not None:
            body = event.message
            usage |= {name: value for name, value in (body.usage or {}).items() if value is not None}
        if event.usage is not None:
            usage |= {name: value for name, value in event.usage.items() if value is not None}
        if event.delta is not None and event.delta.stop_reason is not None:
            body.stop_reason = event.delta.stop_reason
        if event.metrics is not None:
            body.metrics = event.metrics
        body.guardrail = event.guardrail or body.guardrail
    if not usage and isinstance(body.metrics, dict):
        usage = body.metrics
    return _body(body, usage)


def _body(body: _Body, usage: Mapping[str, Any] | None) -> _Told:
    metrics = body.metrics if isinstance(body.metrics, dict) else {}
    latency_ms = metrics.get("latencyMs", metrics.get("invocationLatency"))
    stop = _text(body.stop_reason) or _text(body.stopReason)
    return _Told(
        usage=usage,
        model=_text(body.model),
        id=_text(body.id) if _text(body.id).startswith("msg_") else "",
        stop="guardrail_intervened" if body.guardrail == "INTERVENED" else stop,
        mode=mode(_inner(body.serviceTier, "type"), _inner(body.performanceConfig, "latency")),
        latency_ms=latency_ms if latency_ms.__class__ is int and 0 <= latency_ms < 2**40 else None,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _inner(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else value


# --- counts --------------------------------------------------------------------------------------------------------


_DIALECTS = frozenset(
    {
        *("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
        *("inputTokens", "outputTokens", "inputTokenCount", "outputTokenCount", "prompt_tokens", "completion_tokens"),
    }
)


def _reading(told: _Told) -> Reading | None:
    """The answer's own counts. Those of other vendors' models may be in no dialect that is known."""
    if not told.usage or _DIALECTS.isdisjoint(told.usage):
        return None
    return reading(told.usage)


def _status(record: _Line, told: _Told) -> tuple[str, bool]:
    """What became of the call, and whether it can have a price."""
    if record.errorCode:
        return record.errorCode, False
    if record.operation == "CountTokens":
        return "count_tokens", False  # free of charge
    return ("guardrail_intervened" if told.stop == "guardrail_intervened" else ""), True


def _counts(record: _Record, read: Reading | None) -> tuple[Tokens, str]:
    """The counts at the top, with what they leave out from the answer; and what is assumed."""
    top = record.input or _Input()
    output = record.output.outputTokenCount if record.output else None
    if read is None:
        if top.inputTokenCount is None and output is None:
            _expect_none(record.modelId or "")
        written = top.cacheWriteInputTokenCount or 0
        cached = top.cacheReadInputTokenCount or 0
        return (top.inputTokenCount or 0, output or 0, cached, written, 0), "ttl" if written else ""
    said = [sum(counts) for counts in zip(*(part.tokens for part in read.parts), strict=True)]
    short, long = said[3], said[4]
    assumed = ",".join(read.assumed)
    written = top.cacheWriteInputTokenCount
    if written is not None and written > short + long:
        short, long, _ = split_writes(written, short, long)
        assumed = "ttl"
    elif written is not None and written < short + long:
        long = min(long, written)
        short = written - long
        assumed = "ttl" if written else ""
    first = (top.inputTokenCount, output, top.cacheReadInputTokenCount)
    prompt, answer, cached = (b if a is None else a for a, b in zip(first, said[:3], strict=True))
    return (prompt, answer, cached, short, long), assumed


def _expect_none(model_id: str) -> None:
    """A record without counts is one of a model that makes pictures, or it is incomplete."""
    base = parse_model_id(model_id).base
    if not base or "claude" in base:
        raise Rejected("no token counts, neither at its top nor in the answer")


def _tells_more(read: Reading, counts: Tokens) -> bool:
    """Whether the answer lists passes that the counts at the top may leave out."""
    if len(read.parts) == 1 and not read.parts[0].model:
        return False
    return (
        sum(part.tokens.input for part in read.parts) >= counts[0]
        and sum(part.tokens.output for part in read.parts) >= counts[1]
    )


def _five(tokens: Iterable[int]) -> Tokens:
    return tuple(tokens)  # type: ignore[return-value]  # a Vector has five


def _mode(record: _Line, told: _Told, read: Reading | None) -> str:
    tier = told.usage.get("service_tier") if told.usage else None
    return mode(
        read.mode if read else "",
        told.mode,
        tier,
        _inner(record.serviceTier, "type"),
        _inner(record.performanceConfig, "latency"),
    )


# --- who asked -----------------------------------------------------------------------------------------------------


def _session(metadata: Mapping[str, Any]) -> str:
    return _text(metadata.get("session")) or _text(metadata.get("session_id"))


def _tags(metadata: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(
        sorted(
            (name, value if isinstance(value, str) else msgspec.json.encode(value).decode())
            for name, value in metadata.items()
        )
    )
