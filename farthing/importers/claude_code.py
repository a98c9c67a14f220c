"""Claude Code session transcripts (~/.claude/projects/**/*.jsonl), of sessions and of their subagents.

A call is written once for each block of its answer, with the same ids and a growing output count; the ledger
keeps the best copy. Every line is decoded whole: skipping what is not wanted costs no more than looking for
the word "usage" does, and finds damaged lines too.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from farthing.importers._open import Bad, Numbered
from farthing.importers._read import Lines, Reject, digest, instant, mode, objects, reading, reason, whole
from farthing.usage import Facts, Rejected, Usage, split_writes

Count = Annotated[int, msgspec.Meta(ge=0)]
Tokens = tuple[int, int, int, int, int]

SYNTHETIC = "<synthetic>"  # the model of texts that Claude Code wrote itself


class _Split(msgspec.Struct, gc=False):
    ephemeral_5m_input_tokens: Count | None = None
    ephemeral_1h_input_tokens: Count | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation: _Split | None = None
    iterations: list[dict[str, Any]] | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None


class _Message(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: _Usage | None = None
    stop_reason: str | None = None


class _Embedded(msgspec.Struct, gc=False):
    """A subagent's record, inside the progress record of the session that waits for it."""

    message: _Message | str | None = None
    requestId: str | None = None
    timestamp: str | None = None


class _Data(msgspec.Struct, gc=False):
    message: _Embedded | str | None = None


class _Line(msgspec.Struct, gc=False):
    message: _Message | str | None = None
    requestId: str | None = None
    timestamp: str | None = None
    sessionId: str | None = None
    cwd: str | None = None
    isSidechain: bool | None = None
    data: _Data | str | None = None


_decoder = msgspec.json.Decoder(_Line)


_NOT_SUMMARIES = frozenset({"sessionId", "parentUuid", "leafUuid", "isSidechain", "isSnapshotUpdate"})
_OF_MESSAGES = frozenset({"uuid", "requestId", "timestamp"})


def sniff(head: bytes) -> bool:
    for keys in objects(head):
        if "type" in keys and not _NOT_SUMMARIES.isdisjoint(keys):
            return True
        if "type" in keys and keys.get("message") == "{" and not _OF_MESSAGES.isdisjoint(keys):
            return True
    return False


def read(lines: Lines, path: str = "") -> Iterator[Usage | Reject]:
    lines = Numbered.of(lines)
    reader = _Reader(path, lines)
    for record in lines.decoded(_decoder):
        if record.__class__ is Bad:
            try:
                record = _mended(record.line, record.error)
            except (msgspec.DecodeError, RecursionError) as error:
                yield Reject(lines.number, reason(error))
                continue
        if record.data.__class__ is _Data:
            record = _embedded(record)
        message = record.message
        if message.__class__ is _Message and message.usage is not None and message.model != SYNTHETIC:
            try:
                yield reader.usage(record, message)
            except Rejected as error:
                yield Reject(lines.number, reason(error))


def _embedded(record: _Line) -> _Line:
    """The record that a progress record holds, in the session of that."""
    inner = record.data.message
    if inner.__class__ is not _Embedded or inner.message.__class__ is not _Message:
        return record
    at = inner.timestamp or record.timestamp
    return _Line(inner.message, inner.requestId, at, record.sessionId, record.cwd, isSidechain=True)


def _mended(line: bytes, error: Exception) -> _Line:
    """What to make of a line that did not fit: an empty record if it is none of ours, else the error again."""
    line = whole(line)
    if not isinstance(error, msgspec.ValidationError):
        return _decoder.decode(line)
    # Types are other than expected, somewhere. That matters only where there is usage.
    record = msgspec.json.decode(line)
    if not isinstance(record, dict):
        raise error
    data = record.get("data")
    inner = data.get("message") if isinstance(data, dict) else None
    for one in (record, inner):
        message = one.get("message") if isinstance(one, dict) else None
        if isinstance(message, dict) and message.get("usage") is not None and message.get("model") != SYNTHETIC:
            raise error
    return _Line()


class _Reader:
    """Lines of one file to usage, with one Facts object for all that are equal."""

    def __init__(self, path: str, lines: Numbered) -> None:
        self._lines = lines
        self._folder = _folder(path)
        self._facts: dict[tuple[object, ...], Facts] = {}
        self._last_key: tuple[object, ...] = ()  # most records are like the one before them
        self._last: Facts | None = None

    def usage(self, record: _Line, message: _Message) -> Usage:
        usage = message.usage
        message_id = message.id or ""
        request_id = record.requestId or ""
        if not message_id and not request_id:
            request_id = digest(self._lines.line)
        at_us = instant(record.timestamp)
        if usage.iterations:
            parts = self._iterations(record, message)
        else:
            tokens, untold = _tokens(usage)
            status = ""
            if message.stop_reason == "refusal" and not tokens[1]:
                tokens, untold, status = (0, 0, 0, 0, 0), False, "refusal"  # counts are reported, not billed
            parts = ((self._fact(record, message, message.model, "ttl" if untold else "", status), tokens),)
        return Usage(at_us, request_id, message_id, parts, (), None, record.isSidechain is True)

    def _iterations(self, record: _Line, message: _Message) -> tuple[tuple[Facts, Tokens], ...]:
        """One part a sampling pass: the counts of the whole leave out compaction and advisors."""
        read = reading(msgspec.to_builtins(message.usage))
        assumed = ",".join(read.assumed)
        return tuple(
            (self._fact(record, message, part.model or message.model, assumed), tuple(part.tokens))
            for part in read.parts
        )

    def _fact(self, record: _Line, message: _Message, model: str | None, assumed: str, status: str = "") -> Facts:
        usage = message.usage
        service = message.id[4:9] if message.id else ""  # of msg_bdrk_...
        key = (
            model,
            usage.service_tier,
            usage.speed,
            usage.inference_geo,
            service if service in _PLATFORMS else "",
            assumed,
            status,
            record.sessionId,
            record.cwd,
        )
        if key == self._last_key:
            return self._last
        facts = self._facts.get(key)
        if facts is None:
            geo = usage.inference_geo or ""
            facts = self._facts[key] = Facts(
                source="claude_code",
                platform=_PLATFORMS.get(service, "anthropic"),
                model_id=model or "",
                mode=mode("fast" if usage.speed == "fast" else "", usage.service_tier),
                inference_geo="" if geo == "not_available" else geo,
                session=record.sessionId or "",
                project=record.cwd or self._folder,
                status=status,
                assumed=assumed,
            )
        self._last_key, self._last = key, facts
        return facts


_PLATFORMS = {"bdrk_": "bedrock", "vrtx_": "vertex"}  # by what follows msg_ in the message's id


def _tokens(usage: _Usage) -> tuple[Tokens, bool]:
    """usage.read_usage for the common block, which the tests hold to the same result; a tenth of the time."""
    written = usage.cache_creation_input_tokens
    if usage.input_tokens is None and usage.output_tokens is None and written is None:
        reading(msgspec.to_builtins(usage) if usage.cache_read_input_tokens is not None else {})
    split = usage.cache_creation
    short = split and split.ephemeral_5m_input_tokens or 0
    long = split and split.ephemeral_1h_input_tokens or 0
    short, long, untold = split_writes(written or 0, short, long)
    return (usage.input_tokens or 0, usage.output_tokens or 0, usage.cache_read_input_tokens or 0, short, long), untold


def _folder(path: str) -> str:
    """The project, as the folder that the transcripts of its sessions are in says it."""
    if path in ("", "-"):
        return ""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.basename(folder) == "subagents":  # {project}/{session}/subagents/agent-*.jsonl
        folder = os.path.dirname(os.path.dirname(folder))
    return os.path.basename(folder)
