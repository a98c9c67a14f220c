"""Keyed hashes of a request's prefixes, for the outbox: made before it is sent, given tokens when it is answered.

HMAC takes about a microsecond a kilobyte, and taking the body apart as much again: without a key nothing is done.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from farthing.outbox import Prefix, Prefixes, apportion
from farthing.usage import Rejected

VARIABLE = "FARTHING_KEY"  # names the file that holds the key
LEAST_BYTES = 16


class Key(NamedTuple):
    """The organisation's secret, and the name by which its hashes are told from those of another."""

    secret: bytes
    id: str


class Hashed(NamedTuple):
    """The prompt up to the end of each block, as hashes; the blocks' weights, and lifetimes of their cache points."""

    key_id: str
    hashes: list[str]
    weights: list[int]
    ttls: list[str]


def key_of(path: Path | str | None = None) -> Key | None:
    """The key in the file that is named, or that FARTHING_KEY names; None if neither does. OSError, ValueError."""
    name = str(path or os.environ.get(VARIABLE, ""))
    if not name:
        return None
    secret = Path(name).read_bytes().strip()
    if len(secret) < LEAST_BYTES:
        raise ValueError(
            f"{name}: {len(secret)} bytes are no key: write at least {LEAST_BYTES} random ones into it"
        )
    return Key(secret, hmac.digest(secret, b"farthing key id", hashlib.sha256).hex()[:8])


def hashed(body: bytes, key: Key) -> Hashed | None:
    """None where the body has no prompt that can be taken apart."""
    from farthing.traces import blocks_of, prompt_of

    try:
        prompt = prompt_of(blocks_of(msgspec.json.decode(body)), key.secret)
    except (Rejected, msgspec.MsgspecError, UnicodeDecodeError, RecursionError, AttributeError):
        return None
    ttls = [""] * len(prompt.hashes)
    for blocks, ttl in prompt.marks:
        ttls[blocks - 1] = ttl
    return Hashed(key.id, prompt.hashes, prompt.weights, ttls)


def prefixes(made: Hashed, tokens: int) -> Prefixes:
    """With the billed tokens of the prompt shared out among the blocks; they add up."""
    shares = apportion(made.weights, tokens)
    return Prefixes(
        made.key_id,
        tuple(Prefix(*each) for each in zip(made.hashes, shares, made.ttls, strict=True)),  # type: ignore[arg-type]
    )
