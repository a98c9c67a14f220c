"""A request in Anthropic's form, taken apart: blocks with their tokens and breakpoints; and what is wrong with it.

How many tokens something has is a rule that a client can work out beforehand (docs/emulator.md): four bytes are a
token, each block by itself; a picture counts by its pixels, a PDF by its pages.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from farthing.emulator._errors import Refused

TOOL_TOKENS = 16  # of each tool, beside its definition
PAGE_TOKENS = 1_500  # of the text of a PDF's page, beside its picture
LARGEST_PICTURE = 1_568  # tokens
BREAKPOINTS = 4
_SETTINGS = ("tool_choice", "thinking", "output_config", "speed")
_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
_ORDER = "Note that blocks are processed in the following order: `tools`, `system`, `messages`."
_encoder = msgspec.json.Encoder()


class Block(NamedTuple):
    """`data` is what a cache compares; empty in a request without breakpoints."""

    data: bytes
    tokens: int
    mark: str = ""


class Prompt(NamedTuple):
    blocks: list[Block]
    tokens: int

    @property
    def marks(self) -> list[tuple[int, str]]:
        """Breakpoints as position and lifetime."""
        return [(at, block.mark) for at, block in enumerate(self.blocks) if block.mark]


def prompt_of(body: Mapping[str, Any], *, marked: bool, automatic: bool) -> Prompt:
    """The prompt of a body. Refused where the service would. `automatic`: a top-level `cache_control` is taken."""
    blocks: list[Block] = []
    places: list[str] = []
    total = 0
    before = b""
    if marked:
        settings = {name: body[name] for name in _SETTINGS if body.get(name) is not None}
        before = _encoder.encode(settings) if settings else b""
    for place, tier, block in _blocks(body):
        tokens = tokens_of(block) + (TOOL_TOKENS if tier == "tools" else 0)
        total += tokens
        if not marked:
            continue
        mark = _mark(block, place)
        bare = {name: value for name, value in block.items() if name != "cache_control"}
        data = tier.encode() + b"\0" + _encoder.encode(bare)
        if before and tier not in ("tools", "system"):
            data, before = before + data, b""
        blocks.append(Block(data, tokens, mark))
        places.append(place)
    point = body.get("cache_control")
    if point is not None:
        if not automatic:
            raise Refused("invalid", "cache_control: Extra inputs are not permitted")
        if blocks and not blocks[-1].mark:
            blocks[-1] = blocks[-1]._replace(mark=_ttl(point, "cache_control"))
    prompt = Prompt(blocks, total)
    _check_marks(prompt, places)
    return prompt


def _check_marks(prompt: Prompt, places: list[str]) -> None:
    marks = prompt.marks
    if len(marks) > BREAKPOINTS:
        raise Refused(
            "invalid",
            f"A maximum of {BREAKPOINTS} blocks with cache_control may be provided. Found {len(marks)}.",
        )
    short = False
    for at, ttl in marks:
        if ttl == "1h" and short:
            raise Refused(
                "invalid",
                f"{places[at]}.cache_control.ttl: a ttl='1h' cache_control block must not come after a "
                f"ttl='5m' cache_control block. {_ORDER}",
            )
        short = short or ttl == "5m"


# --- blocks ----------------------------------------------------------------------------------------------------------


def _blocks(body: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Place, tier and block, in the order of the prompt. Of a message, its role is the tier."""
    for at, tool in enumerate(_list(body.get("tools"), "tools")):
        yield f"tools.{at}", "tools", _object(tool, f"tools.{at}")
    system = body.get("system")
    yield from _content(system, "system", "system")
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise Refused(
            "invalid",
            "messages: Field required" if messages is None else "messages: Input should be a valid list",
        )
    if not messages:
        raise Refused("invalid", "messages: at least one message is required")
    for at, message in enumerate(messages):
        place = f"messages.{at}"
        role = _object(message, place).get("role")
        if role not in ("user", "assistant", "system"):
            raise Refused("invalid", f"{place}.role: Input should be 'user' or 'assistant'")
        content = message.get("content")
        if content is None:
            raise Refused("invalid", f"{place}.content: Field required")
        if not content and (role != "assistant" or at < len(messages) - 1):
            raise Refused("invalid", f"{place}: {role} messages must have non-empty content")
        yield from _content(content, f"{place}.content", role)


def _content(content: Any, place: str, tier: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if content is None:
        return
    if isinstance(content, str):
        if content:
            yield place, tier, {"type": "text", "text": content}
        return
    for at, block in enumerate(_list(content, place)):
        here = f"{place}.{at}"
        if _object(block, here).get("type") == "text":
            text = block.get("text")
            if not isinstance(text, str):
                raise Refused("invalid", f"{here}.text.text: Input should be a valid string")
            if not text:
                raise Refused(
                    "invalid",
                    f"{here}.text: cache_control cannot be set for empty text blocks"
                    if block.get("cache_control")
                    else f"{place.removesuffix('.content')}: text content blocks must be non-empty",
                )
        elif not isinstance(block.get("type"), str):
            raise Refused("invalid", f"{here}.type: Field required")
        yield here, tier, block


def _list(value: Any, place: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Refused("invalid", f"{place}: Input should be a valid list")
    return value


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused("invalid", f"{place}: Input should be a valid dictionary")
    return value


def _mark(block: Mapping[str, Any], place: str) -> str:
    point = block.get("cache_control")
    if point is None:
        return ""
    if block.get("type") in ("thinking", "redacted_thinking"):
        raise Refused("invalid", f"{place}.{block['type']}.cache_control: Extra inputs are not permitted")
    return _ttl(point, f"{place}.cache_control")


def _ttl(point: Any, place: str) -> str:
    if not isinstance(point, dict) or point.get("type") != "ephemeral":
        raise Refused("invalid", f"{place}.type: Input should be 'ephemeral'")
    ttl = point.get("ttl", "5m")
    if ttl not in ("5m", "1h"):
        raise Refused("invalid", f"{place}.ttl: Input should be '5m' or '1h'")
    return str(ttl)


# --- tokens ----------------------------------------------------------------------------------------------------------


def tokens_of_text(text: str) -> int:
    """Four bytes are a token, and a part of four is one too.

    >>> tokens_of_text("Hello")
    2
    """
    return (len(text) if text.isascii() else len(text.encode())) + 3 >> 2


def tokens_of(block: Mapping[str, Any]) -> int:
    """Of a block: its text, its picture, its pages; of anything else its JSON, without the breakpoint."""
    kind = block.get("type")
    if kind == "text" and isinstance(block.get("text"), str):
        return tokens_of_text(block["text"])
    if kind == "image":
        return picture_tokens(_data(block))
    if kind == "document":
        source = block.get("source")
        if isinstance(source, dict) and source.get("type") == "text":
            return tokens_of_text(str(source.get("data", "")))
        pages = len(_PAGE.findall(_data(block))) or 1
        return pages * (PAGE_TOKENS + LARGEST_PICTURE)
    if kind == "tool_result" and isinstance(block.get("content"), list):
        inner = block["content"]
        return sum(tokens_of(one) for one in inner if isinstance(one, dict)) if inner else 1
    bare = {name: value for name, value in block.items() if name != "cache_control"}
    return len(_encoder.encode(bare)) + 3 >> 2


def _data(block: Mapping[str, Any]) -> bytes:
    source = block.get("source")
    data = source.get("data") if isinstance(source, dict) else None
    if not isinstance(data, str):
        return b""
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("invalid", "image: the source's data is no base64") from None


def picture_tokens(data: bytes) -> int:
    """A token for each 28 by 28 pixels begun, up to the largest picture; that where the size cannot be read."""
    width, height = _pixels(data)
    if not width or not height:
        return LARGEST_PICTURE
    return min(-(-width // 28) * -(-height // 28), LARGEST_PICTURE)


def _pixels(data: bytes) -> tuple[int, int]:
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    if data[:4] == b"GIF8" and len(data) >= 10:
        width, height = struct.unpack("<HH", data[6:10])
        return width, height
    if data[:2] == b"\xff\xd8":
        return _jpeg(data)
    return 0, 0


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        kind, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + size
    return 0, 0
