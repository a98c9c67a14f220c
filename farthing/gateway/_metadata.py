"""What a call takes along into the invocation log: the client's own requestMetadata, our id, tags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from farthing.gateway._body import Set, splice
from farthing.outbox import METADATA_KEY

MOST_METADATA = 16  # pairs, as Bedrock takes them
_METADATA = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,\-.]{1,256}")


def metadata_of(given: Mapping[str, str], tags: Mapping[str, str], call_id: str) -> dict[str, str]:
    """The client's own pairs, our id, and as many tags as there is room for; {} where there is none for the id."""
    if len(given) >= MOST_METADATA and METADATA_KEY not in given:
        return {}
    made = {**given, METADATA_KEY: call_id}
    for name, value in tags.items():
        if len(made) < MOST_METADATA and name not in made and _takes(name, value):
            made[name] = value
    return made


@lru_cache(maxsize=512)  # the same tags again and again
def _takes(name: str, value: str) -> bool:
    return bool(_METADATA.fullmatch(name) and _METADATA.fullmatch(value))


def told(body: bytes, metadata: Mapping[str, str]) -> bytes:
    """The body with this `requestMetadata`: put in front where there is none, which needs no search."""
    if body[:1] != b"{" or b'"requestMetadata"' in body:
        return splice(body, [Set("requestMetadata", metadata)])
    return b'{"requestMetadata":' + msgspec.json.encode(metadata) + b"," + body[1:]


def bytes_of(body: Any) -> bytes | None:
    """A body as the caller gave it; None where it cannot be read without using it up."""
    match body:
        case bytes():
            return body
        case bytearray() | memoryview():
            return bytes(body)
        case str():
            return body.encode()
    if not hasattr(body, "seek") or not hasattr(body, "read"):
        return None
    at = body.tell()
    data = body.read()
    body.seek(at)
    return data if isinstance(data, bytes) else None
