"""Agent traces with the text of their prompts (LMCache's agent traces): a line a call, `input` a text or messages.

A text falls into blocks where lines are left blank, which is where these agents put one message behind another. Where
a record has no token counts, four bytes are taken for a token, and that is marked as assumed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from farthing.traces._lines import LATEST_US, decoded, instant_us, reason
from farthing.traces._log import Call, Item, Left, Reject, Source
from farthing.traces._prompt import Block, blocks_of, prompt_of
from farthing.usage import Rejected, read_usage

DATED = True
ASSUMED = ("tokens",)
BYTES_PER_TOKEN = 4

_BLANK = re.compile(r"(?<!\n)(?=\n\n)")
_PROMPTS = ("input", "messages", "prompt")


class _Line(msgspec.Struct, gc=False):
    timestamp: Any = None
    input: Any = None
    messages: Any = None
    prompt: Any = None
    system: Any = None
    tools: Any = None
    output: Any = None
    usage: Any = None
    model: str | None = None


_decoder = msgspec.json.Decoder(_Line)


def sniff(head: bytes) -> bool:
    keys = b'"timestamp"' in head and b'"output"' in head and b'"hash_ids"' not in head
    return keys and b'"session_id"' in head and b'"schemaType"' not in head


def read(source: Source, key: bytes) -> Iterator[Item]:
    for number, line in source.lines:
        for record in decoded([(number, line)], _decoder):
            if isinstance(record, Reject):
                yield record
                continue
            try:
                yield _call(record, key)
            except Rejected as error:
                yield Reject(number, reason(error))


def _call(record: _Line, key: bytes) -> Item:
    blocks = _blocks(record)
    if not blocks:
        return Left("no prompt")
    found = prompt_of(blocks, key)
    if isinstance(record.usage, dict):
        billed = read_usage(record.usage).parts[0].tokens
        anchors: tuple[tuple[int, int], ...] = ()
        prompt, output = billed.prompt, billed.output
    else:
        size = 0
        ends = [size := size + weight for weight in found.weights]
        anchors = tuple((at, -(-end // BYTES_PER_TOKEN)) for at, end in enumerate(ends, 1))
        prompt, output = anchors[-1][1], -(-len(_text(record.output)) // BYTES_PER_TOKEN)
    return Call(
        _at_us(record.timestamp),
        ("", record.model or ""),
        found.hashes,
        found.weights,
        prompt,
        output,
        found.system,
        anchors=anchors,
        marks=found.marks,
        model=record.model or "",
    )


def _blocks(record: _Line) -> list[Block]:
    prompt = next((value for name in _PROMPTS if (value := getattr(record, name)) is not None), None)
    if isinstance(prompt, str):
        pieces = [piece.encode() for piece in _BLANK.split(prompt) if piece]
        return [Block(piece, len(piece), system=False) for piece in pieces]
    body = prompt if isinstance(prompt, dict) else {"messages": prompt}
    return blocks_of({"system": record.system, "tools": record.tools, **body})


def _text(output: Any) -> bytes:
    return output.encode() if isinstance(output, str) else msgspec.json.encode(output or "")


def _at_us(value: Any) -> int:
    """A time as text, or as a number of seconds or of their thousandths, millionths or billionths since 1970."""
    if isinstance(value, str):
        return instant_us(value)
    if not isinstance(value, int | float) or not 0 <= value < LATEST_US * 1000:
        raise Rejected("no timestamp")
    for least, us in ((10**17, -1000), (10**14, 1), (10**11, 1000)):
        if value >= least:
            return round(value * us) if us > 0 else int(value) // -us
    return round(value * 1_000_000)
