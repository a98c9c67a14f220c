"""farthing's own outbox: results with the hashes of their prompts' prefixes (docs/outbox.md)."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from farthing.meters import Vector
from farthing.outbox import Result, decode
from farthing.traces._lines import reason
from farthing.traces._log import Call, Item, Left, Reject, Source
from farthing.usage import EPOCH, Rejected

DATED = True
ASSUMED: tuple[str, ...] = ()


def sniff(head: bytes) -> bool:
    return b'"gateway_id"' in head and b'"kind"' in head


def read(source: Source, key: bytes) -> Iterator[Item]:
    for number, line in source.lines:
        if not line.strip():
            continue
        try:
            record = decode(line)
        except (msgspec.MsgspecError, Rejected, ValueError) as error:
            yield Reject(number, reason(error))
            continue
        if not isinstance(record, Result):
            continue  # the result says all of it again
        if record.prefixes is None or not record.prefixes.blocks:
            yield Left("no hashes")
            continue
        blocks = record.prefixes.blocks
        yield Call(
            round((record.at - EPOCH).total_seconds() * 1_000_000),
            (
                record.platform,
                record.account,
                record.region,
                record.model,
                record.mode,
                record.prefixes.key_id,
            ),
            [block.hash for block in blocks],
            [block.tokens for block in blocks],
            record.tokens.prompt,
            record.tokens.output,
            marks=tuple((at, block.ttl) for at, block in enumerate(blocks, 1) if block.ttl),
            billed=Vector(*record.tokens.five),
            model=record.model,
            id=record.gateway_id,
        )
