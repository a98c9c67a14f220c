"""What the emulator says: the same request gets the same answer, of a length that can be foretold.

A word of three letters and the space behind it are four bytes, which is a token: an answer of n tokens is n words.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from farthing.emulator._prompt import tokens_of_text

_WORDS = (  # noqa: SIM905 - of three letters each
    "ale ant arc ash bay bee bow box bud cap cod cup dew dog dye ear eel elm fen fig fir fox gem gig hat hay "
    "hen hop ice ink ivy jam jar jay keg key kid lad lap log map mew mud net nut oak oar oat owl pan pea pie "
    "pin ram ray rod rye sap sea sky tea toe yew"
).split()
_LONG = 4_096  # words of the text that answers are cut from
PIECE = 8  # tokens in an event of a stream


class Said(NamedTuple):
    """A message's content in Anthropic's form, how it ended, and its tokens; thinking is among them."""

    content: list[dict[str, Any]]
    stop_reason: str
    stop_sequence: str | None
    tokens: int
    thinking: int = 0


def _long() -> str:
    words, at = [], 7
    for _ in range(_LONG):
        at = (at * 1_103_515_245 + 12_345) % 2**31
        words.append(_WORDS[(at >> 12) % len(_WORDS)])
    return " ".join(words) + " "


_TEXT = _long() * 2


def text_of(tokens: int, seed: int) -> str:
    """So many tokens of text."""
    start = 4 * (seed % _LONG)
    text = _TEXT[start : start + 4 * min(tokens, _LONG)]
    while len(text) < 4 * tokens:
        text += _TEXT[: 4 * tokens - len(text)]
    return text[:-1]


def say(body: Mapping[str, Any], raw: bytes, output_tokens: int = 0) -> Said:
    """The answer to a request; `output_tokens` is how long it is if nothing forbids: 16 to 64 if 0."""
    seed = int.from_bytes(blake2b(raw, digest_size=8).digest(), "big")
    most = body.get("max_tokens")
    most = most if isinstance(most, int) else 32_000
    if most <= 0:
        return Said([], "max_tokens", None, 0)
    thought = _think(body, seed, most)
    thinking = tokens_of_text(thought["thinking"]) if thought else 0
    before = [thought] if thought else []
    tool = _tool(body)
    if tool:
        used = {
            "type": "tool_use",
            "id": f"toolu_bdrk_{seed:020d}",
            "name": tool["name"],
            "input": _input(tool),
        }
        tokens = thinking + tokens_of_text(tool["name"]) + (len(msgspec.json.encode(used["input"])) + 3 >> 2)
        stop = "tool_use" if tokens <= most else "max_tokens"
        return Said([*before, used], stop, None, min(tokens, most), thinking)
    text, stop = _text(body, seed, most - thinking, output_tokens)
    sequence = None
    for each in _list(body.get("stop_sequences")):
        at = text.find(each) if isinstance(each, str) and each else -1
        if at >= 0:
            text, stop, sequence = text[:at], "stop_sequence", each
    content = [*before, {"type": "text", "text": text}]
    return Said(content, stop, sequence, thinking + (tokens_of_text(text) or 1), thinking)


def _text(body: Mapping[str, Any], seed: int, most: int, output_tokens: int) -> tuple[str, str]:
    config = body.get("output_config")
    form = (config.get("format") if isinstance(config, dict) else None) or body.get("output_format")
    if isinstance(form, dict) and isinstance(form.get("schema"), dict):
        text = msgspec.json.encode(_made(form["schema"])).decode()
        return (text, "end_turn") if tokens_of_text(text) <= most else (text[: 4 * most], "max_tokens")
    wanted = output_tokens or 16 + seed % 49
    return text_of(min(wanted, most), seed), "end_turn" if wanted <= most else "max_tokens"


def _think(body: Mapping[str, Any], seed: int, most: int) -> dict[str, Any] | None:
    asked = body.get("thinking")
    if not isinstance(asked, dict) or asked.get("type") not in ("enabled", "adaptive") or most < 2:
        return None
    tokens = min(16 + seed % 17, most - 1)
    return {"type": "thinking", "thinking": text_of(tokens, seed >> 8), "signature": f"{seed:032x}"}


def _tool(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The tool that must be used."""
    choice, tools = body.get("tool_choice"), body.get("tools")
    if not isinstance(choice, dict) or not isinstance(tools, list):
        return None
    named = [tool for tool in tools if isinstance(tool, dict) and isinstance(tool.get("name"), str)]
    if choice.get("type") == "any":
        return named[0] if named else None
    if choice.get("type") == "tool":
        return next((tool for tool in named if tool["name"] == choice.get("name")), None)
    return None


def _input(tool: Mapping[str, Any]) -> Any:
    schema = tool.get("input_schema")
    made = _made(schema) if isinstance(schema, dict) else {}
    return made if isinstance(made, dict) else {}


def _made(schema: Mapping[str, Any], depth: int = 0) -> Any:
    """The least that a JSON schema allows."""
    if _list(schema.get("enum")):
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "array":
        items = schema.get("items")
        return (
            [_made(items, depth + 1)]
            if schema.get("minItems") and isinstance(items, dict) and depth < 9
            else []
        )
    if kind in ("object", None) and depth < 9:
        given = schema.get("properties")
        inner = given if isinstance(given, dict) else {}
        wanted = [name for name in _list(schema.get("required")) if isinstance(name, str)]
        return {name: _made(inner[name], depth + 1) for name in wanted if isinstance(inner.get(name), dict)}
    return {"string": "oak", "integer": 7, "number": 7, "boolean": True}.get(str(kind))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
