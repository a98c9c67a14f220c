"""Bedrock model invocation logs: S3 objects, or CloudWatch exports, query results and deliveries of them.

The counts at the top of a record decide, since bodies may be absent or elsewhere. What only the answer's body
tells is taken from there: how long cache writes live, the model that answered, passes of other models, latency.
"""

# ruff: noqa: N815 - fields are named as in the JSON

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from farthing.importers._batch import Reject
from farthing.importers._block import (
    ZERO,
    Block,
    Count,
    Tokens,
    counts,
    five,
    geography,
    mode,
    passes,
    says_something,
    searches,
    update,
)
from farthing.importers._open import UNREADABLE, Bad, Cut, Numbered, Source
from farthing.importers._read import Item, Lines, digest, facts_of, instant, objects, reason, record_of, whole
from farthing.outbox import METADATA_KEY
from farthing.usage import Facts, Reading, Rejected, Usage, is_own, parse_model_id, split_writes

RECORD = "ModelInvocationLog"
MOST_BODY_BYTES = 1 << 26


# --- what is read of a line ----------------------------------------------------------------------------------------


class _Metrics(Block, gc=False):
    """Of Converse, or at the end of a stream."""

    latencyMs: Any = None
    invocationLatency: Any = None


class _Body(msgspec.Struct, gc=False):
    """An answer of InvokeModel or Converse, or the message that begins a stream."""

    id: Any = None
    model: Any = None
    usage: Block | None = None
    stop_reason: Any = None
    stopReason: Any = None
    metrics: _Metrics | None = None
    serviceTier: Any = None
    performanceConfig: Any = None
    guardrail: Any = msgspec.field(default=None, name="amazon-bedrock-guardrailAction")


class _Delta(msgspec.Struct, gc=False):
    stop_reason: Any = None


class _Event(msgspec.Struct, gc=False):
    """One of a streamed answer. Anything in it but these is a piece of text, or a ping."""

    message: _Body | None = None
    usage: Block | None = None
    delta: _Delta | None = None
    metrics: _Metrics | None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")
    guardrail: Any = msgspec.field(default=None, name="amazon-bedrock-guardrailAction")
    messageStop: _Body | str | None = None  # the end of a ConverseStream, where it was written as events
    metadata: _Body | str | None = None


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
_event_decoder = msgspec.json.Decoder(_Event)


# --- lines ---------------------------------------------------------------------------------------------------------


_OF_RECORDS = {"accountId", "identity", "requestId", "operation", "modelId", "input"}
_FIRST_OF_SORTED = {"accountId", "identity", "input"}  # before an input that fills the head
_WRAPPERS = {
    *(("events", "["), ("logEvents", "["), ("results", "[")),
    *(("message", '"'), ("@message", '"'), ("@message", "{")),
}
_PRETTY = re.compile(rb"\s*\{[ \t]*\r?\n")
_USUAL = b'{"schemaType":"'  # what follows decides nothing: the first key is enough


def sniff(head: bytes) -> bool:
    if head.startswith(_USUAL):
        return True
    wraps = bool(_PRETTY.match(head))
    for keys in objects(head):
        if "schemaType" in keys or len(_OF_RECORDS & keys.keys()) > 3 or keys.keys() >= _FIRST_OF_SORTED:
            return True
        wraps = wraps or not _WRAPPERS.isdisjoint(keys.items())
    return wraps and (RECORD.encode() in head or b'\\"modelId\\"' in head)


def read(lines: Lines, path: str = "") -> Iterator[Item]:
    lines = Numbered.of(lines)
    reader = _Reader(path)
    for found in lines.decoded(_decoder):
        if found.__class__ is _Whole and found.schemaType == RECORD:
            try:
                usage = reader.usage(found, lines)
                yield usage
                if reader.block is not None and reader.block.server_tool_use is not None:
                    yield from searches(reader.block, usage)
            except Rejected as error:
                yield Reject(lines.number, reason(error))
        elif isinstance(found, Bad):
            number = lines.number
            try:
                yield from reader.text(number, _bare(found.line, first=number == 1))
            except ValueError as error:
                yield Reject(number, reason(error))
        else:
            yield from reader.record(lines.number, found, lines)


_STAMPED = re.compile(rb"\d{4}-\d\d-\d\dT\S+\s+(?:\S+\s+)?(?=\{)")  # of an export, or `aws logs tail`
_QUOTED = rb'"(?:[^"\\]++|\\.)*+"'
_CELL = re.compile(rb'"(?:message|value|@message)"\s*:\s*(' + _QUOTED + rb"),?", re.DOTALL)
_PIECE = re.compile(
    rb"[{}\[\]]+,?|(?:" + _QUOTED + rb"\s*:\s*)?(?:" + _QUOTED + rb"|[-+.\w]+|\[\]?|\{\}?),?", re.DOTALL
)
_PROBE = b"Permissions are correctly set for Amazon Bedrock logs."  # the first event of a log group


def _bare(line: bytes, *, first: bool) -> bytes:
    """The JSON of a record in a line: after a time stamp, or as text inside a result that is printed over lines."""
    text = line.strip()
    if text[0] == 123 and len(text) > 2:
        return text
    stamp = _STAMPED.match(text)
    if stamp or text.endswith(_PROBE):
        return text[stamp.end() :] if stamp else b""
    if text[0] in b"}]" or line[0] in b" \t" or (first and text == b"{"):
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
        self._facts: dict[tuple[tuple[str, ...], str, str], Facts] = {}
        self.block: Block | None = None  # the usage block of the last call

    def text(self, number: int, text: bytes) -> Iterator[Item]:
        """What a text holds that should be a record, or a CloudWatch result or delivery."""
        if not text:
            return
        try:
            record: _Record = _decoder.decode(text)
        except UNREADABLE as error:
            several = text.split(b'}{"messageType"')
            if len(several) > 1:  # Firehose puts deliveries next to each other, with nothing between
                yield from self.text(number, several[0] + b"}")
                for one in several[1:-1]:
                    yield from self.text(number, b'{"messageType"' + one + b"}")
                yield from self.text(number, b'{"messageType"' + several[-1])
                return
            try:
                record = _mended(text, error)
            except UNREADABLE as fault:
                yield Reject(number, reason(fault))
                return
        yield from self.record(number, record, text)

    def record(self, number: int, record: _Record, line: bytes | Numbered) -> Iterator[Item]:
        """`line` is where the record is from, for one without ids."""
        if record.schemaType == RECORD or (record.schemaType is None and record.modelId is not None):
            try:
                usage = self.usage(record, line)
                yield usage
                yield from searches(self.block, usage)
            except Rejected as error:
                yield Reject(number, reason(error))
        elif record.schemaType is None:
            for text in _wrapped(record):
                if text.lstrip().startswith("{"):
                    yield from self.text(number, text.encode())

    def usage(self, record: _Record, line: bytes | Numbered) -> Usage:
        at_us = instant(record.timestamp)
        called = record.modelId
        if not called:
            raise Rejected("no modelId")
        body = self._body(record.output)
        named, served = body.id, body.model
        message_id = named if isinstance(named, str) and named.startswith("msg_") else ""
        request_id = record.requestId or ""
        if not request_id and not message_id:
            request_id = digest(line if isinstance(line, bytes) else line.line)
        status, block = _status(record, body), body.usage
        if block is not None and block.input_tokens is None and not says_something(block):
            block = None
        self.block = block
        tokens, untold = ZERO, False
        read: Reading | None = None
        if not status or status in _BILLED:
            read = passes(block) if block is not None and block.iterations else None
            tokens, untold = _counts(record, block, read)
            if not tokens[1] and "refusal" in (body.stop_reason, body.stopReason):
                status, tokens, untold, read = "refusal", ZERO, False, None  # counts are reported, not billed
        metadata, identity = record.requestMetadata, record.identity
        gateway_id = str(metadata.pop(METADATA_KEY, "")) if metadata else ""
        call = (
            called,
            served if isinstance(served, str) else "",
            record.region or "",
            record.accountId or "",
            (identity.arn if identity is not None else "") or "",
            _mode(record, body, block),
            geography(block),
            _session(metadata) if metadata else "",
            record.operation or "",
            status,
        )
        parts: tuple[tuple[Facts, Tokens], ...] = ((self._fact(call, "ttl" if untold else ""), tokens),)
        if read and _tells_more(read, tokens):
            assumed = ",".join(read.assumed)
            parts = tuple((self._fact(call, assumed, part.model), five(part.tokens)) for part in read.parts)
        tags = _tags(metadata) if metadata else ()
        latency_ms = None if body.metrics is None else _latency_ms(body.metrics)
        return record_of((at_us, request_id, message_id, parts, tags, latency_ms, False, gateway_id, ()))

    def _fact(self, call: tuple[str, ...], assumed: str, model: str = "") -> Facts:
        """`model` is that of one pass, if it is another than the call's."""
        key = (call, assumed, model)
        facts = self._facts.get(key)
        if facts is None:
            called, served, region, account, arn, sent, geo, session, operation, status = call
            if not is_own(model, called, served):
                called = served = model
            where = ("bedrock_log", "bedrock", called, served, region, account, arn)
            said = (sent, geo, session, "", operation, status, assumed)
            facts = self._facts[key] = facts_of((*where, *said))  # by name takes as long as all else here
        return facts

    def _body(self, output: _Output | _OutputAlone | None) -> _Body:
        """The answer, wherever and however it was written; empty if there is none."""
        answer = output.outputBodyJson if isinstance(output, _Output) else None
        if answer.__class__ is _Body:
            return answer
        if answer is None and output is not None and output.outputBodyS3Path:
            answer = self._delivered(output.outputBodyS3Path)
        if isinstance(answer, str):
            answer = _unquoted(answer)
        if isinstance(answer, list):
            return _streamed(answer)
        return answer if isinstance(answer, _Body) else _Body()

    def _delivered(self, s3_path: str) -> Answer:
        """An answer that was too large for its record, if its file is where S3 had it: in data/, beside the log."""
        if self._path in ("", "-"):
            return None
        path = os.path.join(os.path.dirname(self._path), "data", re.split(r"[/\\]", s3_path)[-1])  # noqa: PTH118, PTH120 - it may be s3://
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
    """A second look. An answer that is like none we know is left alone, but one with impossible counts is not."""
    if isinstance(error, msgspec.ValidationError):
        if ".usage." in str(error):
            raise error
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
    except UNREADABLE:
        return None


def _unquoted(text: str) -> Answer:
    """An answer that was written as text: JSON, or base64 of it."""
    data = text.strip().encode()
    if data[:1] not in (b"{", b"["):
        try:
            data = base64.b64decode(data, validate=True)
        except binascii.Error:
            return None
    return _answer(data)


def _streamed(events: list[_Event | str]) -> _Body:
    """The message that begins a stream has the cache's split, the end has the final counts: cumulative ones."""
    body = _Body()
    usage: Block | None = None
    for found in _of_interest(events):
        if isinstance(found, str):  # "[DONE]", or the event as text
            try:
                event = _event_decoder.decode(found)
            except UNREADABLE:
                continue
        else:
            event = found
        if event.message is not None:
            body = event.message
            if body.usage is not None:
                usage = update(usage, body.usage)
        if event.usage is not None:
            usage = update(usage, event.usage)
        if event.delta is not None and event.delta.stop_reason is not None:
            body.stop_reason = event.delta.stop_reason
        if isinstance(event.messageStop, _Body):
            body.stopReason = event.messageStop.stopReason
        if isinstance(event.metadata, _Body):
            end = event.metadata
            usage = update(usage, end.usage) if end.usage is not None else usage
            body.metrics, body.serviceTier, body.performanceConfig = (
                end.metrics, end.serviceTier, end.performanceConfig
            )  # fmt: skip
        body.metrics = event.metrics or body.metrics
        body.guardrail = event.guardrail or body.guardrail
    body.usage = body.metrics if usage is None else usage
    return body


def _of_interest(events: list[_Event | str]) -> list[_Event | str]:
    """Without the pieces of text in the middle, if the ends have what they should."""
    if len(events) > 8:
        first, last = events[0], events[-5:]
        if isinstance(first, _Event) and first.message is not None:
            for event in last:
                if isinstance(event, _Event) and event.usage is not None:
                    return [first, *last]
    return events


def _latency_ms(metrics: _Metrics | None) -> int | None:
    if metrics is None:
        return None
    latency_ms = metrics.invocationLatency if metrics.latencyMs is None else metrics.latencyMs
    return latency_ms if latency_ms.__class__ is int and 0 <= latency_ms < 2**40 else None


# --- counts --------------------------------------------------------------------------------------------------------


_STOPPED = "guardrail_intervened"
_BILLED = {_STOPPED}  # as far as its counts say


def _status(record: _Record, body: _Body) -> str:
    """What became of the call, if it has not simply succeeded."""
    if record.errorCode:
        return record.errorCode
    if record.operation == "CountTokens":
        return "count_tokens"  # free of charge
    if _STOPPED in (body.stop_reason, body.stopReason) or body.guardrail == "INTERVENED":
        return _STOPPED
    return ""


_NO_INPUT = _Input()


def _counts(record: _Record, block: Block | None, read: Reading | None) -> tuple[Tokens, bool]:
    """The counts at the top, with what they leave out from the answer; and whether lifetimes are assumed."""
    top = record.input or _NO_INPUT
    prompt, cached, written = top.inputTokenCount, top.cacheReadInputTokenCount, top.cacheWriteInputTokenCount
    answer = record.output.outputTokenCount if record.output else None
    if block is None:
        if prompt is None and answer is None:
            _expect_none(record.modelId or "")
        return (prompt or 0, answer or 0, cached or 0, written or 0, 0), bool(written)
    if read is None:
        tokens, untold = counts(block)
    else:
        tokens = five(map(sum, zip(*(part.tokens for part in read.parts), strict=True)))
        untold = "ttl" in read.assumed
    _, _, _, short, long = tokens
    if written is not None and written != short + long:
        if written > short + long:
            short, long, untold = split_writes(written, short, long)
        else:
            long = min(long, written)
            short, untold = written - long, written > 0
    return (
        tokens[0] if prompt is None else prompt,
        tokens[1] if answer is None else answer,
        tokens[2] if cached is None else cached,
        short,
        long,
    ), untold


def _expect_none(model_id: str) -> None:
    """A record without counts is one of a model that makes pictures, or it is incomplete."""
    base = parse_model_id(model_id).base
    if not base or "claude" in base:
        raise Rejected("no token counts, neither at its top nor in the answer")


def _tells_more(read: Reading, tokens: Tokens) -> bool:
    """Whether the answer lists passes that the counts at the top may leave out."""
    if len(read.parts) == 1 and not read.parts[0].model:
        return False
    prompt = sum(part.tokens.input for part in read.parts)
    answer = sum(part.tokens.output for part in read.parts)
    return bool(prompt >= tokens[0] and answer >= tokens[1])


def _mode(record: _Record, body: _Body, block: Block | None) -> str:
    if record.serviceTier is body.serviceTier is record.performanceConfig is body.performanceConfig is None:
        return mode(block)
    tiers = (body.serviceTier, body.performanceConfig, record.serviceTier, record.performanceConfig)
    return mode(block, *(_setting(tier) for tier in tiers))


def _setting(value: Any) -> Any:
    """A tier or a latency, as the word or in its object."""
    return (value.get("type") or value.get("latency")) if isinstance(value, dict) else value


# --- who asked -----------------------------------------------------------------------------------------------------


def _session(metadata: Mapping[str, Any]) -> str:
    for name in ("session", "session_id"):
        session = metadata.get(name)
        if isinstance(session, str):
            return session
    return ""


def _tags(metadata: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    pairs = sorted(metadata.items())
    for _, value in pairs:
        if value.__class__ is not str:
            break
    else:
        return tuple(pairs)
    return tuple(
        (name, value if isinstance(value, str) else msgspec.json.encode(value).decode())
        for name, value in pairs
    )
