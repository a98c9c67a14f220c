"""Bedrock model invocation logs with request bodies: tools, system and messages of InvokeModel and of Converse.

A body that was too large for its record lies beside the log, in data/. Records without a body, or with a part of one,
are counted and left out. A block's tokens are its share, by bytes, of what was billed for the prompt.
"""

# ruff: noqa: N815 - fields are named as in the JSON

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from farthing.meters import Vector
from farthing.outbox import prefix_hashes
from farthing.traces._lines import Count, instant_us, reason
from farthing.traces._log import Call, Item, Left, Moved, Reject, Source
from farthing.traces._prompt import Prompt, as_sent, blocks_of, prompt_of
from farthing.traces._volatile import Memory, settled
from farthing.usage import Rejected, parse_model_id, read_usage

DATED = True
ASSUMED = ("tokens of blocks",)
_STAMP = re.compile(rb"\A\d{4}-\d\d-\d\dT\S+\s+(?:\S+\s+)?(?=\{)")  # of a CloudWatch export


class _Side(msgspec.Struct, gc=False):
    """What was sent, or what came back."""

    inputTokenCount: Count | None = None
    cacheReadInputTokenCount: Count | None = None
    cacheWriteInputTokenCount: Count | None = None
    outputTokenCount: Count | None = None
    inputBodyJson: Any = None
    inputBodyS3Path: str | None = None
    outputBodyJson: Any = None


class _Event(msgspec.Struct, gc=False):
    message: str | None = None


class _Line(msgspec.Struct, gc=False):
    schemaType: str | None = None
    timestamp: Any = None
    accountId: str | None = None
    region: str | None = None
    requestId: str | None = None
    operation: str | None = None
    modelId: str | None = None
    errorCode: str | None = None
    input: _Side | None = None
    output: _Side | None = None
    message: str | None = None
    events: list[_Event] = []
    logEvents: list[_Event] = []


_decoder = msgspec.json.Decoder(_Line)


def sniff(head: bytes) -> bool:
    return b"ModelInvocationLog" in head or (b"modelId" in head and b"inputTokenCount" in head)


def read(source: Source, key: bytes, memory: Memory | None = None) -> Iterator[Item]:
    """With a memory, which grows as it is read, the calls also have the prompts that they would send settled."""
    for number, line in source.lines:
        if line.strip():
            yield from _read(_STAMP.sub(b"", line.strip(), 1), number, source, key, memory)


def _read(text: bytes, number: int, source: Source, key: bytes, memory: Memory | None) -> Iterator[Item]:
    try:
        record = _decoder.decode(text)
        if record.modelId:
            yield _call(record, source, key, memory)
    except (msgspec.DecodeError, Rejected, ValueError, RecursionError) as error:
        yield Reject(number, reason(error))
        return
    for event in (_Event(record.message), *record.events, *record.logEvents):
        if not record.modelId and event.message and event.message.lstrip().startswith("{"):
            yield from _read(event.message.encode(), number, source, key, memory)


def _call(record: _Line, source: Source, key: bytes, memory: Memory | None) -> Item:
    model = record.modelId or ""
    base = parse_model_id(model).base
    if base and "claude" not in base:
        return Left("not a Claude model")
    if record.errorCode or record.operation == "CountTokens":
        return Left("not billed (an error, or a count of tokens)")
    body = _body(record.input, source)
    if isinstance(body, Left):
        return body
    try:
        found = prompt_of(blocks_of(body), key)
    except Rejected as error:
        return Left(str(error))
    billed = _billed(record)
    if billed is None or not billed.prompt:
        return Left("no token counts")
    return Call(
        instant_us(record.timestamp),
        (record.accountId or "", record.region or "", model),
        found.hashes,
        found.weights,
        billed.prompt,
        billed.output,
        found.system,
        _stop(record.output),
        _anchors(found, billed),
        found.marks,
        billed,
        model,
        record.requestId or "",
        None if memory is None else _settled(body, billed, key, memory),
        found.answers,
    )


def _settled(body: dict[str, Any], billed: Vector, key: bytes, memory: Memory) -> Moved | None:
    """The prompt with what changes last: as many tokens, of which those that were moved are in no block."""
    made = settled(body, memory)
    if made is None:
        return None
    found = prompt_of(blocks_of(made.body), key)
    moved = sum(len(as_sent(cut.text)) - 2 for cut in made.cuts if cut.kind != "tool-order")
    rest = sum(found.weights)
    tail = billed.prompt * moved // (rest + moved)
    anchors = [(len(found.hashes), billed.prompt - tail)]
    if (before := _anchors(found, billed)) and 0 < before[0][1] - tail <= billed.prompt - tail:
        blocks, tokens = before[0]
        anchors = [(blocks, tokens - tail), *(anchors if blocks < len(found.hashes) else [])]
    cuts = tuple((cut.path, cut.kind, prefix_hashes(key, [cut.text.encode()])[0]) for cut in made.cuts)
    return Moved(found.hashes, found.weights, anchors, found.system, cuts, found.answers)


def _anchors(found: Prompt, billed: Vector) -> tuple[tuple[int, int], ...]:
    """What was read and written reaches to the last cache point, whose depth is thereby known."""
    cached = billed.cached
    return ((found.marks[-1][0], cached),) if found.marks and cached else ()


def _body(sent: _Side | None, source: Source) -> dict[str, Any] | Left:
    body = sent.inputBodyJson if sent else None
    if body is None and sent and sent.inputBodyS3Path:
        name = re.split(r"[/\\]", sent.inputBodyS3Path)[-1]
        body = source.beside(f"data/{name}")
        if body is None:
            return Left("its body is in S3, and not beside the log (data/)")
    if isinstance(body, bytes | str):
        try:
            body = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Left("its body is cut short")
    if body is None:
        return Left("no body: logging of text is off")
    return body if isinstance(body, dict) else Left("its body is no object")


# --- what was billed -----------------------------------------------------------------------------------------------


def _billed(record: _Line) -> Vector | None:
    """The counts at the top of the record; the answer's own, where they are not there or say less."""
    told = _usage(record.output.outputBodyJson if record.output else None)
    sent, back = record.input, record.output
    if sent is None or sent.inputTokenCount is None:
        return told
    written = sent.cacheWriteInputTokenCount or 0
    hour = min(told.cache_write_1h, written) if told else 0
    return Vector(
        sent.inputTokenCount,
        (back.outputTokenCount if back else None) or (told.output if told else 0),
        sent.cacheReadInputTokenCount or 0,
        written - hour,
        hour,
    )


def _usage(answer: Any) -> Vector | None:
    """The usage block of an answer; of a streamed one, that of its beginning with the count of its end."""
    events = answer if isinstance(answer, list) else [answer]
    found: Vector | None = None
    for event in events:
        if not isinstance(event, dict):
            continue
        message = event.get("message")
        block = event.get("usage") or (message.get("usage") if isinstance(message, dict) else None)
        if not isinstance(block, dict):
            continue
        try:
            reading = read_usage(block)
        except Rejected:
            continue
        tokens = reading.parts[0].tokens
        if found and "ttl" in reading.assumed:  # a stream's end does not say for how long, its beginning does
            written = tokens.cache_write_5m + tokens.cache_write_1h
            hour = min(found.cache_write_1h, written)
            tokens = tokens._replace(cache_write_5m=written - hour, cache_write_1h=hour)
        if found is None or tokens.prompt:
            found = tokens._replace(output=max(tokens.output, found.output if found else 0))
        else:
            found = found._replace(output=max(tokens.output, found.output))
    return found


def _stop(back: _Side | None) -> str:
    answer = back.outputBodyJson if back else None
    for event in reversed(answer if isinstance(answer, list) else [answer]):
        if isinstance(event, dict):
            delta = event.get("delta")
            inner = delta if isinstance(delta, dict) else event
            stop = inner.get("stop_reason") or event.get("stopReason")
            if isinstance(stop, str):
                return stop
    return ""
