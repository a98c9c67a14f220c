"""A request taken apart, in the order in which a cache matches it: tools, system, messages.

Bytes are as they were sent, the order of keys too, since that is what a cache compares. Markers are taken off first,
so that moving one changes no prefix; what cached messages hang on besides (thinking, the choice of a tool) goes
before the first of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from farthing.meters import Vector
from farthing.outbox import prefix_hashes
from farthing.traces._prompt import as_sent
from farthing.usage import Rejected

CONVERSE, INVOKE, MESSAGES = "Converse", "InvokeModel", "Messages"
MARKS = ("5m", "1h")
MEDIA_BYTES = 6_000  # what a picture weighs: as in the traces
_MEDIA = {"image", "document", "video"}
_SETTINGS = ("tool_choice", "thinking", "output_config", "speed", "additionalModelRequestFields")


class Part(NamedTuple):
    """A block that a breakpoint may stand on. `mark` is its lifetime, "" without one."""

    path: str  # tools[3], system[0], messages[2].content[1]
    tier: str  # tools, system, messages
    value: Any  # without the marker
    data: bytes
    weight: int
    mark: str = ""
    mark_path: str = ""
    role: str = ""


class Sent(NamedTuple):
    """A request, and what stood beside it. `at_us` and `usage` are None where nothing said so."""

    place: str  # file:line
    name: str  # by which two sets are matched; "" for none
    form: str
    parts: tuple[Part, ...]
    settings: Mapping[str, Any]
    automatic: str = ""  # lifetime of a top-level cache_control
    model: str = ""
    at_us: int | None = None
    region: str = ""
    account: str = ""
    batch: bool = False
    usage: Vector | None = None

    @property
    def marks(self) -> tuple[tuple[int, str], ...]:
        """Breakpoints as positions and lifetimes. Automatic caching puts one at the end."""
        found = tuple((at, part.mark) for at, part in enumerate(self.parts) if part.mark)
        last = len(self.parts) - 1
        if self.automatic and (not found or found[-1][0] != last):
            return (*found, (last, self.automatic))
        return found

    @property
    def sizes(self) -> tuple[int, ...]:
        """Tokens of the parts. The same prefix has the same size in all requests that have the same `scale`."""
        return sizes(self.parts, *self.scale)

    @property
    def scale(self) -> tuple[int, int]:
        """So many tokens to so many bytes: what was billed for the prompt, else one to four, which is assumed."""
        weight = sum(part.weight for part in self.parts)
        return (self.usage.prompt, weight) if self.usage and self.usage.prompt and weight else (1, 4)

    def names(self, salt: str = "") -> list[str]:
        """What each prefix is called: equal where a cache would take one for the other."""
        before = as_sent(self.settings) if self.settings else b""
        first = next((at for at, part in enumerate(self.parts) if part.tier == "messages"), -1)
        blocks = [
            (salt.encode() if not at else b"") + (before if at == first else b"") + part.data
            for at, part in enumerate(self.parts)
        ]
        return prefix_hashes(b"farthing lint", blocks)


def sizes(parts: tuple[Part, ...], tokens: int, weight: int) -> tuple[int, ...]:
    """Tokens of parts, in proportion to their bytes."""
    done = size = 0
    found = []
    for part in parts:
        size += part.weight
        share = -(-size * tokens // weight) - done
        found.append(share)
        done += share
    return tuple(found)


def parts_of(body: Mapping[str, Any]) -> tuple[Part, ...]:
    """The parts of a body. Rejected if it has no messages, or blocks that are none."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Rejected("no `messages` in it: is this the body of a request?")
    config = body.get("toolConfig")
    converse = isinstance(config, dict)
    tools = config.get("tools") if isinstance(config, dict) else body.get("tools")
    found = [
        *_parts(tools, "toolConfig.tools" if converse else "tools", "tools"),
        *_parts(body.get("system"), "system", "system"),
    ]
    for at, message in enumerate(messages):
        if not isinstance(message, dict):
            raise Rejected(f"messages[{at}] is no object")
        role = str(message.get("role", ""))
        found += _parts(message.get("content"), f"messages[{at}].content", "messages", role)
    return tuple(found)


def _parts(content: Any, path: str, tier: str, role: str = "") -> Iterator[Part]:
    """A text, or a list of blocks; the cache point of Converse is a block of its own behind the one that it marks."""
    if isinstance(content, str):
        if content:
            yield _part({"type": "text", "text": content}, path, tier, role)
        return
    held: Part | None = None
    for at, one in enumerate(content if isinstance(content, list) else ()):
        here = f"{path}[{at}]"
        if isinstance(one, str):
            one = {"type": "text", "text": one}
        if not isinstance(one, dict):
            raise Rejected(f"{here} is no object")
        if "cachePoint" in one:
            if held:
                held = held._replace(mark=ttl(one["cachePoint"]), mark_path=here)
            continue
        if held:
            yield held
        held = _part(one, here, tier, role)
    if held:
        yield held


def _part(block: dict[str, Any], path: str, tier: str, role: str) -> Part:
    bare = {name: value for name, value in block.items() if name != "cache_control"}
    data = f"{tier}\0{role}\0".encode() + as_sent(bare)
    media = str(block.get("type")) in _MEDIA or not _MEDIA.isdisjoint(block)
    mark = ttl(block["cache_control"]) if block.get("cache_control") else ""
    return Part(
        path,
        tier,
        bare,
        data,
        MEDIA_BYTES if media else len(data),
        mark,
        f"{path}.cache_control" if mark else "",
        role,
    )


def ttl(point: Any) -> str:
    """The lifetime that a marker asks for."""
    return "1h" if isinstance(point, dict) and point.get("ttl") == "1h" else "5m"


def settings_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the messages tier hangs on besides its bytes."""
    found = {name: body[name] for name in _SETTINGS if body.get(name) is not None}
    config = body.get("toolConfig")
    if isinstance(config, dict) and config.get("toolChoice") is not None:
        found["tool_choice"] = config["toolChoice"]
    return found


def form_of(body: Mapping[str, Any]) -> str:
    """By which call a body is sent."""
    if body.keys() & {"toolConfig", "inferenceConfig", "additionalModelRequestFields", "modelId"}:
        return CONVERSE
    if "anthropic_version" in body:
        return INVOKE
    messages = body.get("messages")
    contents = (
        [each.get("content") for each in messages or () if isinstance(each, dict)]
        if isinstance(messages, list)
        else []
    )
    typed = [
        "type" in block
        for content in contents
        if isinstance(content, list)
        for block in content
        if isinstance(block, dict)
    ]
    return CONVERSE if typed and not any(typed) else MESSAGES


def leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every text of a part, with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        each = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in each:
            if name != "type":
                yield from leaves(inner, below(path, name))


def below(path: str, name: Any) -> str:
    """The path of something inside; the text of a prompt that is only a text is the prompt."""
    if isinstance(name, int):
        return f"{path}[{name}]"
    return path if name == "text" and not path.endswith("]") else f"{path}.{name}"
