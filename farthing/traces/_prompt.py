"""Prompts of InvokeModel, Converse and chat messages, as blocks in the order in which a cache matches them.

The bytes of a block are only hashed and measured. Cache points are taken off first, so that moving one changes no
prefix; what invalidates cached messages (thinking, the choice of a tool) goes into the first of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from farthing.outbox import prefix_hashes
from farthing.usage import Rejected

MEDIA_BYTES = 6_000  # what a picture weighs: about as many tokens as so much text, whatever its file weighs
_MEDIA = {"image", "document", "video"}
_SETTINGS = ("tool_choice", "thinking", "toolChoice", "additionalModelRequestFields")


class Block(NamedTuple):
    """A content block: its bytes, its weight beside others, its part of the prompt, the cache point behind it, and
    whether it is an answer of the model."""

    data: bytes
    weight: int
    system: bool
    mark: str = ""
    answer: bool = False


class Prompt(NamedTuple):
    """What a Call says of a prompt."""

    hashes: list[str]
    weights: list[int]
    system: int
    marks: tuple[tuple[int, str], ...]
    answers: tuple[int, ...] = ()  # the blocks that are answers, from 0 on


def as_sent(value: Any) -> bytes:
    """A part of a body as a cache compares it: in the order in which its keys were sent, since that counts."""
    return msgspec.json.encode(value)


def prompt_of(blocks: Sequence[Block], key: bytes, salt: bytes = b"") -> Prompt:
    """Keyed hashes of the prefixes that end with each block; `salt` goes before all of them."""
    first = [salt + blocks[0].data] if blocks else []
    return Prompt(
        prefix_hashes(key, [*first, *(block.data for block in blocks[1:])]),
        [block.weight for block in blocks],
        sum(block.system for block in blocks),
        tuple((at, block.mark) for at, block in enumerate(blocks, 1) if block.mark),
        tuple(at for at, block in enumerate(blocks) if block.answer),
    )


def blocks_of(body: dict[str, Any]) -> list[Block]:
    """The blocks of a request body. Rejected if it has no messages."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Rejected("no messages in the body")
    config = body.get("toolConfig")
    tools = config.get("tools") if isinstance(config, dict) else body.get("tools")
    found = [*_blocks(tools, b"tool", system=True), *_blocks(body.get("system"), b"system", system=True)]
    settings = {name: body[name] for name in _SETTINGS if name in body}
    if isinstance(config, dict) and "toolChoice" in config:
        settings["toolChoice"] = config["toolChoice"]
    before = first = as_sent(settings) if settings else b""
    for message in messages:
        if not isinstance(message, dict):
            raise Rejected("a message that is no object")
        role = str(message.get("role", ""))
        leading = role in ("system", "developer") and before == first
        for block in _blocks(message.get("content"), role.encode(), system=leading):
            found.append(block._replace(data=before + block.data, answer=role == "assistant"))
            if not leading:
                before = b""
    return found


def _blocks(content: Any, role: bytes, *, system: bool) -> Iterator[Block]:
    """A text, or a list of blocks; the cache point of Converse is a block of its own and belongs to the one before."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}] if content else []
    held: Block | None = None
    for each in content if isinstance(content, list) else ():
        one = {"type": "text", "text": each} if isinstance(each, str) else each
        if not isinstance(one, dict):
            raise Rejected("a content block that is no object")
        if "cachePoint" in one:
            if held:
                held = held._replace(mark=_ttl(one["cachePoint"]))
            continue
        if held:
            yield held
        mark = _ttl(one["cache_control"]) if one.get("cache_control") else ""
        bare = {name: value for name, value in one.items() if name != "cache_control"}
        data = role + b"\0" + as_sent(bare)
        held = Block(data, _weight(bare, data), system, mark)
    if held:
        yield held


def _ttl(point: Any) -> str:
    return "1h" if isinstance(point, dict) and point.get("ttl") == "1h" else "5m"


def _weight(block: dict[str, Any], data: bytes) -> int:
    return MEDIA_BYTES if str(block.get("type")) in _MEDIA or not _MEDIA.isdisjoint(block) else len(data)
