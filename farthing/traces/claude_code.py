"""Claude Code transcripts: of each call they tell how many tokens it sent, not which.

The context of a session grows: a call sends what the one before sent, and more. That is taken so unless the bill says
otherwise. If the context is smaller than before, it was compacted or begun anew, and what the call read from the cache
is all that it has in common with the past. If it read less than the call before had just put there, the prefix changed,
and again what was read is what it shares. Sessions, models and subagents have contexts of their own; the tools and the
system prompt that they share are not seen.
"""

# ruff: noqa: N815 - fields are named as in the JSON

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec

from farthing.traces._lines import instant_us, reason
from farthing.traces._log import Call, Item, Left, Reject, Source
from farthing.usage import Rejected, read_usage

DATED = True
ASSUMED = ("prefixes",)
SYNTHETIC = "<synthetic>"  # the model of texts that Claude Code wrote itself
COMPACTION = "acompact"  # the agent that sums a session up reads its context
_LIVES_US = {"5m": 300_000_000, "1h": 3_600_000_000}


class _Message(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    stop_reason: str | None = None


class _Line(msgspec.Struct, gc=False):
    message: _Message | str | None = None
    requestId: str | None = None
    timestamp: str | None = None
    sessionId: str | None = None
    agentId: str | None = None
    isSidechain: bool | None = None


_decoder = msgspec.json.Decoder(_Line)


def sniff(head: bytes) -> bool:
    return b'"sessionId"' in head and b'"type"' in head and b'"schemaType"' not in head


def read(source: Source, key: bytes) -> Iterator[Item]:
    """A call is written once for each block of its answer: the first tells when, the last how much."""
    calls: dict[str, Call] = {}
    for number, line in source.lines:
        if b'"usage"' not in line:
            continue
        try:
            record = _decoder.decode(line)
            found = _call(record)
        except (msgspec.DecodeError, Rejected, ValueError) as error:
            yield Reject(number, reason(error))
            continue
        if found:
            name = found.id or f"line {number}"
            first = calls.get(name, found)
            calls[name] = found._replace(at_us=first.at_us, output=max(first.output, found.output))
    for call in calls.values():
        yield call if call.prompt else Left("no prompt tokens")


def _call(record: _Line) -> Call | None:
    message = record.message
    if not isinstance(message, _Message) or not message.usage or message.model == SYNTHETIC:
        return None
    tokens = read_usage(message.usage).parts[0].tokens
    agent = record.agentId or ("sidechain" if record.isSidechain else "")
    return Call(
        instant_us(record.timestamp),
        (record.sessionId or "", message.model or "", "" if agent.startswith(COMPACTION) else agent),
        (),
        (),
        tokens.prompt,
        tokens.output,
        kind=message.stop_reason or "",
        billed=tokens,
        model=message.model or "",
        id=message.id or record.requestId or "",
    )


# --- contexts that grow --------------------------------------------------------------------------------------------


@dataclass
class _Stretch:
    """A run of text that grows at its end; it begins where it parts from another, `after` tokens into the prompt."""

    before: int  # which stretch it parts from; -1: none
    after: int
    cuts: set[int] = field(
        default_factory=set
    )  # depths at which a prompt ends in it, or another stretch begins


def chain(calls: Sequence[Call]) -> list[Call]:
    """The calls of one context in order of time, with the nodes that the counts speak for."""
    stretches: list[_Stretch] = []
    placed: list[int] = []
    for at, call in enumerate(calls):
        if not at or (shared := _shared(calls[at - 1], call)) == 0:
            stretches.append(_Stretch(-1, 0))
            here = len(stretches) - 1
        elif shared < calls[at - 1].prompt:
            before = placed[-1]
            while shared <= stretches[before].after:
                before = stretches[before].before
            stretches[before].cuts.add(shared)
            stretches.append(_Stretch(before, shared))
            here = len(stretches) - 1
        else:
            here = placed[-1]
        if call.prompt > stretches[here].after:
            stretches[here].cuts.add(call.prompt)
        placed.append(here)
    names: dict[tuple[int, int], int] = defaultdict(lambda: len(names))
    return [_with_nodes(call, stretches, here, names) for call, here in zip(calls, placed, strict=True)]


def _shared(before: Call, call: Call) -> int:
    """How many tokens the call has in common with the one before it."""
    assert before.billed is not None
    assert call.billed is not None
    read: int = min(call.billed.cache_read, before.prompt, call.prompt)
    if call.prompt < before.prompt:
        return read
    lives_us = _LIVES_US["1h" if before.billed.cache_write_1h else "5m"]
    there = before.prompt - before.billed.input
    changed = call.at_us - before.at_us <= lives_us and call.billed.cache_read < there
    return read if changed else before.prompt


def _with_nodes(
    call: Call, stretches: Sequence[_Stretch], here: int, names: dict[tuple[int, int], int]
) -> Call:
    ends: list[tuple[int, int]] = []
    depth = call.prompt
    while here >= 0:
        stretch = stretches[here]
        ends += [(here, cut) for cut in sorted(stretch.cuts, reverse=True) if cut <= depth]
        here, depth = stretch.before, stretch.after
    ends.reverse()
    depths = [0, *(cut for _, cut in ends)]
    return call._replace(
        hashes=[names[end] for end in ends],
        weights=[end - begin for begin, end in pairwise(depths)],
    )
