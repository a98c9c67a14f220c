"""Traces in Mooncake's form: a line a request, with hashes of prefixes by blocks of 512 tokens, shared by all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec

from farthing.traces._lines import LATEST_US, Count, decoded
from farthing.traces._log import Call, Item, Left, Source

DATED = False
ASSUMED: tuple[str, ...] = ()
BLOCK_TOKENS = 512


class _Line(msgspec.Struct, gc=False):
    timestamp: Annotated[
        float, msgspec.Meta(ge=0, lt=LATEST_US // 1000)
    ]  # milliseconds from the start of the trace
    input_length: Count
    output_length: Count
    hash_ids: list[int] = []


_decoder = msgspec.json.Decoder(_Line)


def sniff(head: bytes) -> bool:
    return b'"hash_ids"' in head and b'"input_length"' in head


def read(source: Source, key: bytes) -> Iterator[Item]:
    for line in decoded(source.lines, _decoder):
        if not isinstance(line, _Line):
            yield line
        elif not line.hash_ids:
            yield Left("no hashes")
        else:
            full = line.hash_ids[: line.input_length // BLOCK_TOKENS]  # the last block is seldom full
            at_us = round(line.timestamp * 1000)
            yield Call(at_us, (), full, BLOCK_TOKENS, line.input_length, line.output_length)
