"""Sessions of coding agents in the form of kv-cache-tester: a JSON object a session, hashes of prefixes by 64 tokens.

Hashes are numbers local to a session, shared with the subagents in it. Times count from the session's start. A
subagent is an entry of its own, with requests inside; when they ran beside those of the session is not told well
enough to bill them together, so they are left out, and so are requests without hashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from farthing.traces._lines import LATEST_US, Count, decoded, whole_documents
from farthing.traces._log import Call, Item, Left, Source

DATED = False
ASSUMED: tuple[str, ...] = ()


class _Request(msgspec.Struct, gc=False):
    t: Annotated[float, msgspec.Meta(ge=0, lt=LATEST_US // 1_000_000)]  # seconds
    type: str = ""
    model: str = ""
    prompt: Count = msgspec.field(default=0, name="in")
    out: Count = 0
    hash_ids: list[int] | None = None
    stop: str | None = None
    requests: list[msgspec.Raw] = []  # of a subagent


class _Session(msgspec.Struct, gc=False):
    requests: list[_Request]
    id: Any = ""
    block_size: Annotated[int, msgspec.Meta(gt=0)] = 64
    tool_tokens: Count | None = 0
    system_tokens: Count | None = 0


_decoder = msgspec.json.Decoder(_Session)


def sniff(head: bytes) -> bool:
    return b'"requests"' in head and (b'"block_size"' in head or b'"hash_id_scope"' in head)


def read(source: Source, key: bytes) -> Iterator[Item]:
    for session in decoded(whole_documents(source), _decoder):
        if isinstance(session, _Session):
            yield from _calls(session, source.path)
        else:
            yield session


def _calls(session: _Session, path: str) -> Iterator[Item]:
    size = session.block_size
    system = ((session.tool_tokens or 0) + (session.system_tokens or 0)) // size
    for request in session.requests:
        if request.type == "subagent":
            yield Left("of a subagent", max(len(request.requests), 1))
        elif not request.hash_ids:
            yield Left("no hashes")
        else:
            full = request.hash_ids[: request.prompt // size]
            yield Call(
                round(request.t * 1_000_000),
                (str(session.id) or path, request.model),  # caches are of a model
                full,
                size,
                request.prompt,
                request.out,
                system,
                request.stop or "",
                model=request.model,
            )
