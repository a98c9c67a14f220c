"""Claude Code session transcripts (~/.claude/projects/**/*.jsonl), of sessions and of their subagents.

A call is written once for each block of its answer, with the same ids and a growing output count; the ledger
keeps the best copy. Every line is decoded whole: skipping what is not wanted costs no more than looking for
the word "usage" does, and finds damaged lines too.
"""

# ruff: noqa: N815 - fields are named as in the JSON

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from farthing.importers._batch import Reject
from farthing.importers._block import ZERO, Block, Tokens, counts, five, geography, mode, passes, searches
from farthing.importers._open import UNREADABLE, Bad, Numbered
from farthing.importers._read import Item, Lines, digest, instant, objects, reason, record_of, whole
from farthing.usage import Facts, Rejected, Usage

SYNTHETIC = "<synthetic>"  # the model of texts that Claude Code wrote itself


class _Message(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: Block | None = None
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
        if "type" in keys and not _NOT_SUMMARIES.isdisjoint(keys) and "traceId" not in keys:  # of Langfuse
            return True
        if "type" in keys and keys.get("message") == "{" and not _OF_MESSAGES.isdisjoint(keys):
            return True
    return False


def read(lines: Lines, path: str = "") -> Iterator[Item]:
    lines = Numbered.of(lines)
    reader = _Reader(path, lines)
    for found in lines.decoded(_decoder):
        if isinstance(found, Bad):
            try:
                record = _mended(found.line, found.error)
            except UNREADABLE as error:
                yield Reject(lines.number, reason(error))
                continue
        else:
            record = found
        data = record.data
        if data.__class__ is _Data and data.message is not None:
            record = _embedded(record, data)
        message = record.message
        if message.__class__ is not _Message:
            continue
        block = message.usage
        if block is None or message.model == SYNTHETIC:
            continue
        try:
            usage = reader.usage(record, message, block)
        except Rejected as error:
            yield Reject(lines.number, reason(error))
            continue
        yield usage
        if block.server_tool_use is not None:
            yield from searches(block, usage)


def _embedded(record: _Line, data: _Data) -> _Line:
    """The record that a progress record holds, in the session of that."""
    inner = data.message
    if not isinstance(inner, _Embedded) or not isinstance(inner.message, _Message):
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
        if (
            isinstance(message, dict)
            and message.get("usage") is not None
            and message.get("model") != SYNTHETIC
        ):
            raise error
    return _Line()


class _Reader:
    """Lines of one file to usage, with one Facts object for all that are equal."""

    def __init__(self, path: str, lines: Numbered) -> None:
        self._lines = lines
        self._path = path
        self._facts: dict[tuple[object, ...], Facts] = {}
        self._last_key: tuple[object, ...] = ()  # most records are like the one before them
        self._last = Facts("")

    def usage(self, record: _Line, message: _Message, block: Block) -> Usage:
        message_id = message.id or ""
        request_id = record.requestId or ""
        if not message_id and not request_id:
            request_id = digest(self._lines.line)
        at_us = instant(record.timestamp)
        if block.iterations:
            parts = self._passes(record, message, block)
        else:
            tokens, untold = counts(block)
            status = ""
            if message.stop_reason == "refusal" and not tokens[1]:
                tokens, untold, status = ZERO, False, "refusal"  # counts are reported, not billed
            facts = self._fact(record, message, block, message.model, "ttl" if untold else "", status)
            parts = ((facts, tokens),)
        return record_of((at_us, request_id, message_id, parts, (), None, record.isSidechain is True, "", ()))

    def _passes(self, record: _Line, message: _Message, block: Block) -> tuple[tuple[Facts, Tokens], ...]:
        """One part a sampling pass: the counts of the whole leave out compaction and advisors."""
        read = passes(block)
        assumed = ",".join(read.assumed)
        return tuple(
            (self._fact(record, message, block, part.model or message.model, assumed), five(part.tokens))
            for part in read.parts
        )

    def _fact(
        self,
        record: _Line,
        message: _Message,
        block: Block,
        model: str | None,
        assumed: str,
        status: str = "",
    ) -> Facts:
        service = message.id[4:9] if message.id else ""  # of msg_bdrk_...
        key = (
            model,
            block.service_tier,
            block.speed,
            block.inference_geo,
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
            facts = self._facts[key] = Facts(
                source="claude_code",
                platform=_PLATFORMS.get(service, "anthropic"),
                model_id=model or "",
                mode=mode(block),
                inference_geo=geography(block),
                session=record.sessionId or "",
                project=record.cwd or _folder(self._path),
                status=status,
                assumed=assumed,
            )
        self._last_key, self._last = key, facts
        return facts


_PLATFORMS = {"bdrk_": "bedrock", "vrtx_": "vertex"}  # by what follows msg_ in the message's id


def _folder(path: str) -> str:
    """The project, as the folder that the transcripts of its sessions are in says it."""
    if path in ("", "-"):
        return ""
    folder = Path(path).absolute().parent
    if folder.name == "subagents":  # {project}/{session}/subagents/agent-*.jsonl
        folder = folder.parent.parent
    return os.fsencode(folder.name).decode(errors="replace")
