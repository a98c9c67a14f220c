"""The outbox: one line before each call and one after, as hooks and the gateway write it and the importer reads it.

docs/outbox.md fixes the format. Writers encode with this module and the importer decodes with it, so that they
cannot disagree. Nothing here holds text of a prompt: texts are names, of bounded length.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from farthing.usage import PLATFORMS, Rejected

VERSION = 1
METADATA_KEY = "farthing_id"  # under which requestMetadata takes the gateway's id into the invocation log
HASH_BYTES = 16

Count = Annotated[int, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(max_length=2048)]  # an ARN may have as many characters
Note = Annotated[str, msgspec.Meta(max_length=300)]
Time = Annotated[datetime, msgspec.Meta(tz=True)]
Hash = Annotated[str, msgspec.Meta(pattern=rf"^[0-9a-f]{{{2 * HASH_BYTES}}}$")]


class Tokens(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The five meters."""

    input: Count = 0
    output: Count = 0
    cache_read: Count = 0
    cache_write_5m: Count = 0
    cache_write_1h: Count = 0

    @property
    def prompt(self) -> int:
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def five(self) -> tuple[int, int, int, int, int]:
        return self.input, self.output, self.cache_read, self.cache_write_5m, self.cache_write_1h


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a lever did with the call, or in shadow would have done, and why."""

    lever: Name
    reason: Note = ""
    shadow: bool = False


class Pass(msgspec.Struct, frozen=True):
    """A further sampling pass of the call, by a model of its own (an advisor, a compaction)."""

    model: Name
    tokens: Tokens


class Prefix(msgspec.Struct, frozen=True, array_like=True):
    """The prompt up to the end of a block: its keyed hash, the block's tokens, its cache point ("", "5m", "1h")."""

    hash: Hash
    tokens: Count
    ttl: Literal["", "5m", "1h"] = ""


class Prefixes(msgspec.Struct, frozen=True):
    """Blocks in the prompt's order. Hashes compare only under the same key."""

    key_id: Name
    blocks: tuple[Prefix, ...]


def _version() -> int:
    return VERSION


class _Call(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """What is known before the call. A result says it again: it may lie in another file than its intent."""

    v: int = msgspec.field(default_factory=_version)  # a factory, so that it is never left out
    gateway_id: Annotated[Name, msgspec.Meta(min_length=1)]
    at: Time  # when the request was sent on
    model: Annotated[Name, msgspec.Meta(min_length=1)]  # as called
    platform: Name = ""
    region: Name = ""
    account: Name = ""
    principal: Name = ""
    session: Name = ""
    project: Name = ""
    operation: Name = ""
    mode: Name = ""
    inference_geo: Name = ""
    tags: dict[Note, Note] = {}
    stream: bool = False
    decisions: tuple[Decision, ...] = ()
    holds: tuple[Name, ...] = ()  # of the budgets that set money aside


class Intent(_Call, frozen=True, kw_only=True, omit_defaults=True, tag="intent"):
    """Written and synced before the request leaves."""

    expected: Tokens  # what the call is assumed to have used, should its result never be written


class Result(_Call, frozen=True, kw_only=True, omit_defaults=True, tag="result"):
    """Written when the answer has been passed on, or will not come."""

    request_id: Name = ""
    message_id: Name = ""
    served_model: Name = ""
    tokens: Tokens = Tokens()
    passes: tuple[Pass, ...] = ()
    web_searches: Count = 0
    status: Name = ""  # "" is success; "void": never sent; else an error code
    assumed: Name = ""  # what the answer left open, as in every usage record: ttl
    latency_ms: Count | None = None
    first_token_ms: Count | None = None
    prefixes: Prefixes | None = None


class _Version(msgspec.Struct):
    v: int = 0


Record = Intent | Result
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
_encode = msgspec.json.Encoder().encode


def encode(record: Record) -> bytes:
    """Its line, newline included. Rejected if a reader would not have the same record of it."""
    try:
        line = _encode(record)
        back = _decoder.decode(line)
        if back == record and record.v == VERSION:
            _check(back)
            return line + b"\n"
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Rejected(str(error)) from None
    raise Rejected("the record does not come back as it was")


def decode(line: bytes) -> Record:
    """The record of a line. Rejected, or msgspec's error, if it is none."""
    version = msgspec.json.decode(line, type=_Version).v
    if version != VERSION:
        raise Rejected(f"an outbox line of version {version}; this farthing reads {VERSION}: update it")
    record = _decoder.decode(line)
    _check(record)
    return record


def _check(record: Record) -> None:
    """Rejected, if the record cannot be."""
    if record.platform and record.platform not in PLATFORMS:
        raise Rejected(f"unknown platform {record.platform[:20]!r} (there are {', '.join(PLATFORMS)})")
    if isinstance(record, Result) and record.prefixes is not None:
        apportioned = sum(block.tokens for block in record.prefixes.blocks)
        if apportioned != record.tokens.prompt:
            raise Rejected(f"prefixes sum to {apportioned} tokens; the prompt has {record.tokens.prompt}")


def apportion(sizes: Sequence[int], tokens: int) -> list[int]:
    """Share the prompt's billed tokens among blocks by their sizes; the shares add up exactly.

    >>> apportion([1, 1, 1], 100)
    [33, 33, 34]
    """
    whole = sum(sizes)
    shares = []
    done = size = 0
    for each in sizes:
        size += each
        share = tokens * size // whole - done if whole else 0
        shares.append(share)
        done += share
    if shares:
        shares[-1] += tokens - done
    return shares


def prefix_hashes(key: bytes, blocks: Iterable[bytes]) -> list[str]:
    """For the end of each block, the keyed hash of the prompt so far: HMAC-SHA256, its first 16 bytes in hex.

    Each block goes in after its length, so that other blocks with the same bytes give other hashes.
    """
    running = hmac.new(key, digestmod="sha256")
    hashes = []
    for block in blocks:
        running.update(len(block).to_bytes(8, "big"))
        running.update(block)
        hashes.append(running.copy().digest()[:HASH_BYTES].hex())
    return hashes
