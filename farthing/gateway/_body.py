"""A request's blocks and where they stand, and changes to them, spliced into its bytes.

Bytes that are not changed stay the same, also white space and the way numbers are written: so a prefix that was
cached before stays cached.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from json import JSONDecoder, decoder
from typing import Any, NamedTuple

import msgspec

from farthing.usage import Rejected

MEDIA_BYTES = 6_000  # what a picture weighs: as in the traces
_MEDIA = {"image", "document", "video"}
_BEARS_NONE = {"thinking", "redacted_thinking", "reasoningContent"}
_GAP = re.compile(r"[ \t\n\r]*")
# Value or name, and where it ends: C code, which the standard library does not document and has had since 2.7.
_scan: Callable[[str, int], tuple[Any, int]] = getattr(JSONDecoder(), "scan_once")  # noqa: B009
_scan_name: Callable[[str, int], tuple[str, int]] = getattr(decoder, "scanstring")  # noqa: B009

Path = tuple[str | int, ...]


class Spot(NamedTuple):
    """A block behind which a cache point may stand. `bears`: the service takes one there.

    `plain`: the block is a text in place of a list. `mark` is the lifetime of the client's own, at `mark_path`.
    """

    path: Path
    tier: str  # tools, system, messages
    size: int  # bytes
    bears: bool
    plain: bool = False
    native: bool = False  # of Converse: a cache point is a block of its own
    mark: str = ""
    mark_path: Path = ()


class Mark(NamedTuple):
    """Put a cache point behind a block."""

    spot: Spot
    ttl: str


class Retime(NamedTuple):
    """Change how long the client's cache point at the path lives."""

    path: Path
    ttl: str


class Set(NamedTuple):
    """Set a field of the body to a text or an object."""

    name: str
    value: Any


Edit = Mark | Retime | Set
_Where = tuple[Path, str]


# --- where things stand ----------------------------------------------------------------------------------------------


def spots(body: Mapping[str, Any]) -> list[Spot]:
    """The blocks in the order of the prompt: tools, system, messages. Rejected if there are no messages."""
    messages = body.get("messages")
    if not isinstance(messages, list | tuple) or not messages:
        raise Rejected("no messages in the body")
    native = _is_converse(body)
    config = body.get("toolConfig")
    if isinstance(config, Mapping):
        found = _spots(config.get("tools"), (("toolConfig", "tools"), "tools"), native)
    else:
        found = _spots(body.get("tools"), (("tools",), "tools"), native)
    found += _spots(body.get("system"), (("system",), "system"), native)
    for at, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise Rejected(f"messages[{at}] is no object")
        found += _spots(message.get("content"), (("messages", at, "content"), "messages"), native)
    return found


def top_mark(body: Mapping[str, Any]) -> str:
    """The lifetime of automatic caching, which is asked for at the top of the body."""
    point = body.get("cache_control")
    return _ttl(point) if point else ""


def _is_converse(body: Mapping[str, Any]) -> bool:
    """Its blocks have no `type`, its contents are no plain texts."""
    if body.keys() & {"toolConfig", "inferenceConfig", "additionalModelRequestFields", "modelId"}:
        return True
    contents = [each.get("content") for each in body["messages"] if isinstance(each, Mapping)]
    blocks = [each for content in contents if isinstance(content, list | tuple) for each in content]
    return bool(blocks) and not any(isinstance(each, Mapping) and "type" in each for each in blocks)


def _spots(content: Any, where: _Where, native: bool) -> list[Spot]:
    path, tier = where
    if isinstance(content, str):
        return [Spot(path, tier, len(content.encode("utf-8", "replace")), bool(content), plain=True)]
    found: list[Spot] = []
    for at, block in enumerate(content if isinstance(content, list | tuple) else ()):
        if not isinstance(block, Mapping):
            raise Rejected("a content block that is no object")
        here = (*path, at)
        if "cachePoint" in block:
            if found:
                mark = _ttl(block["cachePoint"])
                found[-1] = found[-1]._replace(mark=mark, mark_path=(*here, "cachePoint"))
            continue
        point = block.get("cache_control")
        mark, mark_path = (_ttl(point), (*here, "cache_control")) if point else ("", ())
        found.append(
            Spot(here, tier, _size(block), _bears(block), native=native, mark=mark, mark_path=mark_path)
        )
    return found


def _ttl(point: Any) -> str:
    return "1h" if isinstance(point, Mapping) and point.get("ttl") == "1h" else "5m"


def _size(block: Mapping[str, Any]) -> int:
    if str(block.get("type")) in _MEDIA or not _MEDIA.isdisjoint(block):
        return MEDIA_BYTES
    text = block.get("text")
    return len(text.encode("utf-8", "replace")) if isinstance(text, str) else len(msgspec.json.encode(block))


def _bears(block: Mapping[str, Any]) -> bool:
    if str(block.get("type")) in _BEARS_NONE or not _BEARS_NONE.isdisjoint(block) or not block:
        return False
    return block.get("text") != "" and not block.get("defer_loading") and "cache_control" not in block


# --- into bytes ------------------------------------------------------------------------------------------------------


class _Put(NamedTuple):
    """New text in place of what is from `start` to `end`: an insertion where they are equal."""

    start: int
    end: int
    text: str


def splice(body: bytes, edits: Sequence[Edit]) -> bytes:
    """The body with the edits put in, and every other byte as it was. Rejected where a name on the way comes twice."""
    found = _Places(body.decode())
    puts = [put for edit in edits for put in _puts(found, edit)]
    text, at, parts = found.text, 0, []
    for put in sorted(puts):
        parts += [text[at : put.start], put.text]
        at = put.end
    return "".join([*parts, text[at:]]).encode()


def _puts(found: _Places, edit: Edit) -> list[_Put]:
    match edit:
        case Mark(spot, ttl):
            return _points(found, spot, ttl)
        case Retime(path, ttl):
            start, end = found.span(path)
            if "ttl" in (inside := found.members(start)):
                return [_Put(*inside["ttl"], f'"{ttl}"')]
            return [_Put(end - 1, end - 1, f'{"," if inside else ""}"ttl":"{ttl}"')]
        case Set(name, value):
            start, _ = found.span(())
            quoted = msgspec.json.encode(value).decode()
            if name in (inside := found.members(start)):
                return [_Put(*inside[name], quoted)]
            return [_Put(start + 1, start + 1, f'"{name}":{quoted}{"," if inside else ""}')]


def _points(found: _Places, spot: Spot, ttl: str) -> list[_Put]:
    lives = ',"ttl":"1h"' if ttl == "1h" else ""
    start, end = found.span(spot.path)
    point = f',"cache_control":{{"type":"ephemeral"{lives}}}'
    if spot.native:
        return [_Put(end, end, f',{{"cachePoint":{{"type":"default"{lives}}}}}')]
    if spot.plain:
        return [_Put(start, start, '[{"type":"text","text":'), _Put(end, end, point + "}]")]
    return [_Put(end - 1, end - 1, point)]


class _Places:
    """Where the values of a JSON text stand. The text has been decoded before, so it is well formed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._known: dict[int, dict[str | int, tuple[int, int]]] = {}

    def span(self, path: Path) -> tuple[int, int]:
        start = self._past(0)
        end = len(self.text)
        for step in path:
            start, end = self.members(start)[step]
        return start, end

    def members(self, at: int) -> dict[str | int, tuple[int, int]]:
        """Of the object or list that begins here: the spans of its values, by name or number."""
        if at not in self._known:
            self._known[at] = self._read(at)
        return self._known[at]

    def _read(self, at: int) -> dict[str | int, tuple[int, int]]:
        text, found = self.text, dict[str | int, tuple[int, int]]()
        named, closing = (True, "}") if text[at] == "{" else (False, "]")
        at = self._past(at + 1)
        while text[at] != closing:
            name: str | int = len(found)
            if named:
                name, at = _scan_name(text, at + 1)
                at = self._past(self._past(at) + 1)
            if name in found:
                raise Rejected(f"{str(name)[:40]} comes twice in an object")
            _, end = _scan(text, at)
            found[name] = at, end
            at = self._past(end)
            if text[at] == ",":
                at = self._past(at + 1)
        return found

    def _past(self, at: int) -> int:
        """Past white space."""
        found = _GAP.match(self.text, at)
        return found.end() if found else at
