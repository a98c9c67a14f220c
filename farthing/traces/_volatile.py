"""What changes from call to call in the beginning of a prompt: times and ids, and the order of tools.

`settled` makes of a body the one that would be sent if such things came last: what is cut out of tools and system goes
behind the last block, where no cache entry ends. Nothing is added and nothing left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

TOKENS: dict[str, re.Pattern[str]] = {
    "clock": re.compile(
        r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"
        r"|\b(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?(?:\s?[AaPp][Mm]\b)?"
        r"|\b1[6-9]\d{8}(?:\d{3}|\d{6}|\d{9})?\b"
    ),
    "date": re.compile(
        r"\b\d{4}-\d\d-\d\d\b|\b\d{1,2}[./]\d{1,2}[./]\d{4}\b"
        r"|\b(?:\d{1,2} )?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* (?:\d{1,2},? )?\d{4}\b"
    ),
    "id": re.compile(
        r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"
        r"|\b(?:req|request|trace|session|sess|msg|toolu|run|job|call|conv|tx|id)[-_][0-9A-Za-z]{6,}\b"
        r"|\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{12,64}\b"
        r"|\b(?=[0-9A-Z]*\d)[0-9A-HJKMNP-TV-Z]{26}\b"
    ),
    "counter": re.compile(r"\d+"),
}
SUSPECT = ("clock", "id")
KINDS = {
    "clock": "a time",
    "date": "a day",
    "id": "an id",
    "counter": "a number",
    "tool-order": "the order of tools",
}
MOST_SEARCHED = 1 << 20  # characters of one text


class Cut(NamedTuple):
    """Something that was moved: where it stood, what it is, and its text."""

    path: str
    kind: str
    text: str


class Settled(NamedTuple):
    """The body without what was cut out of it; the texts of that follow behind its last block."""

    body: dict[str, Any]
    cuts: tuple[Cut, ...]


# By place, by the text around it and by its number there: what stood there first, or CHANGES. No longer than MOST_HELD.
Memory = dict[tuple[Any, ...], Any]
CHANGES = object()
MOST_HELD = 100_000


def settled(body: Mapping[str, Any], memory: Memory) -> Settled | None:
    """The body with what changes last; None where nothing in it was seen to.

    One request does not show what changes, so what was never seen to be otherwise stays where it is.
    """
    made, cuts = dict(body), list[Cut]()
    system = body.get("system")
    if isinstance(system, str):
        made["system"] = _cut(system, "system", memory, cuts)
    elif isinstance(system, list):
        made["system"] = [_block(one, f"system[{at}]", memory, cuts) for at, one in enumerate(system)]
    config = body.get("toolConfig")
    if isinstance(config, dict) and isinstance(config.get("tools"), list):
        made["toolConfig"] = {**config, "tools": _tools(config["tools"], "toolConfig.tools", memory, cuts)}
    elif isinstance(body.get("tools"), list):
        made["tools"] = _tools(body["tools"], "tools", memory, cuts)
    return Settled(made, tuple(cuts)) if cuts else None


def _changes(key: tuple[Any, ...], value: Any, memory: Memory) -> bool:
    first = memory.setdefault(key, value)
    if first is CHANGES or first != value:
        memory[key] = CHANGES
    elif len(memory) > MOST_HELD:
        del memory[next(iter(memory))]
    return memory.get(key) is CHANGES


def _block(block: Any, path: str, memory: Memory, cuts: list[Cut]) -> Any:
    if isinstance(block, str):
        return _cut(block, path, memory, cuts)
    if not isinstance(block, dict) or not isinstance(block.get("text"), str):
        return block
    return {**block, "text": _cut(block["text"], f"{path}.text", memory, cuts)}


def _cut(text: str, path: str, memory: Memory, cuts: list[Cut]) -> str:
    """A text without those of its times and ids that change."""
    spans, around = _suspects(text)
    rest, done = [], 0
    for number, (begin, end, kind) in enumerate(spans):
        if _changes((path, around, number), hash(text[begin:end]), memory):
            cuts.append(Cut(path, kind, text[begin:end]))
            rest.append(text[done:begin])
            done = end
    return "".join([*rest, text[done:]])


@lru_cache(maxsize=256)
def _suspects(text: str) -> tuple[tuple[tuple[int, int, str], ...], int]:
    """Where the times and ids of a text stand, and a number for the text around them."""
    if len(text) > MOST_SEARCHED:
        return (), 0
    found = [(*match.span(), kind) for kind in SUSPECT for match in TOKENS[kind].finditer(text)]
    spans: list[tuple[int, int, str]] = []
    around, done = [], 0
    for begin, end, kind in sorted(found, key=lambda one: (one[0], -one[1])):
        if begin >= done:
            spans.append((begin, end, kind))
            around.append(text[done:begin])
            done = end
    return tuple(spans), hash((*around, text[done:]))


def _tools(tools: list[Any], path: str, memory: Memory, cuts: list[Cut]) -> list[Any]:
    """Tools by name, if their order changes. As many of them stand before each marker as did."""
    bare = [_without_mark(one) for one in tools if not _is_point(one)]
    names = [(_name(one), str(one)) for one in bare]
    if not _changes((path, hash(tuple(sorted(names)))), hash(tuple(names)), memory):
        return tools
    cuts.append(Cut(path, "tool-order", " ".join(name for name, _ in names)))
    places = iter(one for _, one in sorted(zip(names, bare, strict=True), key=lambda each: each[0]))
    made = []
    for one in tools:
        mark = one.get("cache_control") if isinstance(one, dict) else None
        tool = one if _is_point(one) else next(places)
        made.append({**tool, "cache_control": mark} if mark and isinstance(tool, dict) else tool)
    return made


def _is_point(tool: Any) -> bool:
    return isinstance(tool, dict) and "cachePoint" in tool


def _without_mark(tool: Any) -> Any:
    if not isinstance(tool, dict):
        return tool
    return {name: value for name, value in tool.items() if name != "cache_control"}


def _name(tool: Any) -> str:
    if not isinstance(tool, dict):
        return ""
    spec = tool.get("toolSpec")
    inner = spec if isinstance(spec, dict) else tool
    return str(inner.get("name") or inner.get("type") or "")
