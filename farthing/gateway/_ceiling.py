"""The ceiling of a call: what it cannot cost more than, told from its body before it is sent.

Nothing is counted as tokens here. A token of text stands for at least one byte of it, and JSON never writes a text in
fewer bytes than it has, so a body has no more tokens of text than bytes. What weighs more than its bytes (pictures,
PDFs, the prompts that tools bring along) goes by the published caps; the context window bounds all of it, since what
is longer is refused and not billed. docs/budgets.md says it for users.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import msgspec

from farthing.book import Book, Card, Resolved, Unpriced
from farthing.meters import Vector
from farthing.usage import Sku

WINDOW = 1_000_000  # the largest there is
_SHORT_WINDOW = 200_000
MOST_OUTPUT = 128_000  # of current models (their pages, 2026-11); what is lower is below
_LOWER_OUTPUT = {
    "claude-3-haiku": 4_096,
    "claude-3-opus": 4_096,
    "claude-3-sonnet": 4_096,
    "claude-3-5-haiku": 8_192,
    "claude-3-5-sonnet-v1": 8_192,
    "claude-3-5-sonnet-v2": 8_192,
    "claude-opus-4": 32_000,
    "claude-opus-4-1": 32_000,
    "claude-sonnet-4": 64_000,
    "claude-sonnet-4-5": 64_000,
    "claude-haiku-4-5": 64_000,
    "claude-opus-4-5": 64_000,
}
MOST_BATCH_OUTPUT = 300_000  # a beta of the direct API

# Tokens, PRICES: ceil(w/28) x ceil(h/28), with a cap by the size pictures are scaled down to.
IMAGE = {"v1": 1_568, "v2": 4_784}
PAGE = 3_000  # of text a page of a PDF: the upper figure published; each is shown as a picture, too
MOST_PAGES = {
    False: 100,
    True: 600,
}  # of PDF a request may have; more where prompts may be long, but not on Bedrock
TOOL_PROMPT = 804  # the longest published system prompt of tool use; no newer model's is published
# A built-in tool brings its own description; of memory none is published, so it has the longest that is.
TOOLS = {"bash": 325, "text_editor": 700, "computer": 4_500, "browser": 6_600, "memory": 6_600}

# What makes a call weigh more than its bytes. Names alone: in a text the quotes would be escaped.
_NAMES = re.compile(
    rb'"(image"|document"|tools"|toolConfig"|tool_addition"|edits"|mcp_servers"|fallbacks"|container"'
    rb'|cache_control"|cachePoint"|1h"|max_tokens"|additionalModelRequestFields")'
)
_ENDLESS = {b'mcp_servers"', b'fallbacks"', b'container"'}  # they may take further passes, or other models
_MORE_OUTPUT = {b'additionalModelRequestFields"', b'max_tokens"'}  # Converse may be told there once more
_OF_TEXT = {b'max_tokens"', b'1h"'}  # what a request of text alone may have
_TOOLED = {b'tools"', b'toolConfig"', b'tool_addition"', b'edits"'}
_TYPE = re.compile(rb'"type"\s*:\s*"(?:([a-z_]+)_20\d{6}|(tool_search_tool)_(?:bm25|regex))"')
_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_COUNT = re.compile(rb"/Count\s+(\d+)")


class Ceiling(NamedTuple):
    """`tokens` are put on the dearest meters they could be billed on. `picos` is None where nobody can say.

    `reasons` tell what beside the bytes went into it, or why there is none.
    """

    tokens: Vector
    picos: int | None
    reasons: tuple[str, ...] = ()


class _Limits(NamedTuple):
    """Of a model: the context window, the tokens of a picture, the pages of PDF, the tokens of output at most."""

    window: int
    image: int
    pages: int
    output: int


class _Limited(Protocol):
    @property
    def max_tokens(self) -> int | None: ...


def ceiling(asked: _Limited, body: bytes, book: Book, resolved: Resolved | Unpriced, at: datetime) -> Ceiling:
    """Of the request that will be sent, all levers applied. Linear in its bytes; microseconds for usual ones."""
    limits = _limits(book, resolved)
    output = limits.output
    plain = body if b"\\u00" not in body else _plain(body)
    names = set(_NAMES.findall(plain))
    reasons: list[str] = []
    prompt, endless, write = len(body), "", ""
    if not names <= _OF_TEXT:
        prompt, endless, reasons, write = _weighed(body, plain, names, limits)
    if asked.max_tokens is None or names >= _MORE_OUTPUT:
        reasons.append(f"no certain max_tokens: {output:,}, which is the most there is")
    else:
        output = min(asked.max_tokens, max(limits.window, MOST_BATCH_OUTPUT))
    prompt = min(prompt, limits.window)
    if isinstance(resolved, Unpriced):
        return Ceiling(_on(write or "input", prompt, output), None, (resolved.reason,))
    return _priced(book, resolved, at, prompt, output, write, endless, reasons)


def _weighed(
    body: bytes, plain: bytes, names: set[bytes], limits: _Limits
) -> tuple[int, str, list[str], str]:
    """(tokens of the prompt, why there is no ceiling, what went into it, the meter of what may be cached)."""
    prompt, reasons = len(body), []
    if b'image"' in names or b'document"' in names:
        prompt, media = _media(body, plain, limits)
        reasons.append(media)
    endless = next((f'"{name.decode()} may take further passes' for name in sorted(names & _ENDLESS)), "")
    if names & _TOOLED:
        tools, runs = _tools(plain)
        prompt, endless = prompt + tools, endless or runs
    marked = b'cache_control"' in names or b'cachePoint"' in names
    write = "" if not marked else "cache_write_1h" if b'1h"' in names else "cache_write_5m"
    return prompt, endless, reasons, write


def _priced(
    book: Book,
    resolved: Resolved,
    at: datetime,
    prompt: int,
    output: int,
    write: str,
    endless: str,
    reasons: list[str],
) -> Ceiling:
    card = book.find(resolved.sku, at, prompt, cached=bool(write))
    if not isinstance(card, Card):
        return Ceiling(_on(write or "input", prompt, output), None, (card.reason,))
    meter = write if write and getattr(card.rates, write) > card.rates.input else "input"
    tokens = _on(meter, prompt, output)
    if endless:
        return Ceiling(tokens, None, (endless,))
    if card.prompt_from:
        reasons.append(f"may be a long prompt: the rates beyond {card.prompt_from - 1:,} tokens")
    return Ceiling(tokens, tokens @ card.rates, tuple(reasons))


def _on(meter: str, prompt: int, output: int) -> Vector:
    if meter == "input":
        return Vector(prompt, output)
    return Vector(output=output, **{meter: prompt})


def _limits(book: Book, resolved: Resolved | Unpriced) -> _Limits:
    if isinstance(resolved, Unpriced):
        return _Limits(WINDOW, max(IMAGE.values()), MOST_PAGES[True], MOST_OUTPUT)
    sku = resolved.sku
    key = book.digest, sku.model, sku.platform, sku.mode
    if key not in _known:
        _known[key] = _limits_of(sku, book.models[sku.model].data)
    return _known[key]


_known: dict[tuple[str, ...], _Limits] = {}  # of the few models that are called


def _limits_of(sku: Sku, data: Mapping[str, Any]) -> _Limits:
    window = int(data["context_tokens"])
    if any(band["over"] >= window for row in data["price"] for band in row.get("bands", ())):
        window = WINDOW  # prices beyond the window: a beta lets prompts be longer
    bedrock = sku.platform == "bedrock"
    batch = sku.mode == "batch" and not bedrock
    output = MOST_BATCH_OUTPUT if batch else _LOWER_OUTPUT.get(sku.model, MOST_OUTPUT)
    pages = MOST_PAGES[window > _SHORT_WINDOW and not bedrock]
    return _Limits(window, IMAGE[data["tokenizer"]], pages, min(output, window))


def _plain(body: bytes) -> bytes:
    """The same JSON with names written as everyone writes them, so that they are found: `"im\\u0061ge"` is one."""
    try:
        return msgspec.json.encode(msgspec.json.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body


def _tools(plain: bytes) -> tuple[int, str]:
    """(the tokens that tools bring along, why there is no ceiling with them)."""
    tokens = TOOL_PROMPT
    for dated, search in _TYPE.findall(plain):
        name = (dated or search).decode()
        own = TOOLS.get(name.removesuffix("_toolset"))
        if own is not None:
            tokens += own
        elif not name.startswith("clear_"):  # edits of the context, which only shorten it
            return tokens, f"{name}: the service runs it itself, as often as the model wants"
    return tokens, ""


# --- pictures and documents ------------------------------------------------------------------------------------------


def _media(body: bytes, plain: bytes, limits: _Limits) -> tuple[int, str]:
    """(tokens of the prompt, how they were told). A body whose media cannot be told counts as a full window."""
    try:
        said = msgspec.json.decode(body)
        again = msgspec.json.encode(said)
        found = list(_blocks([said.get("system"), said.get("messages")])) if isinstance(said, dict) else []
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return limits.window, "its JSON cannot be read: a full window"
    # A name that stands twice in an object hides what stood under the first.
    if any(again.count(name) != plain.count(name) for name in (b'"image"', b'"document"')):
        return limits.window, "a name stands twice in its JSON: a full window"
    tokens, images, pages = len(body), 0, 0
    for kind, source in found:
        data = source.get("data", source.get("bytes"))
        length = 0 if kind == "image" else _pages(kind, source, data, limits.pages)
        if length is None:
            return limits.window, "a document of unknown length: a full window"
        images += kind == "image"
        pages += length
        if isinstance(data, str) and (kind == "image" or length):
            tokens -= len(data)
    pages = min(pages, limits.pages)
    tokens += images * limits.image + pages * (PAGE + limits.image)
    return tokens, f"{images} pictures, {pages} pages of PDF, at their caps"


def _blocks(said: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every picture and document: ("image", its source) or (the document's format, its source).

    What a tool was given is text, whatever it looks like.
    """
    if isinstance(said, list):
        for entry in said:
            yield from _blocks(entry)
    if not isinstance(said, dict):
        return
    kind, source = said.get("type"), said.get("source")
    if kind in ("image", "document") and isinstance(source, dict):
        yield ("image" if kind == "image" else str(source.get("media_type", ""))), source
    for name, value in said.items():
        inner = value.get("source") if name in ("image", "document") and isinstance(value, dict) else None
        if isinstance(inner, dict):
            yield ("image" if name == "image" else str(value.get("format", ""))), inner
        elif name not in ("input", "json"):
            yield from _blocks(value)


def _pages(kind: str, source: Mapping[str, Any], data: Any, most: int) -> int | None:
    """Of a document: 0 where its text stands in the body, None where nobody can say."""
    if source.get("type") in ("text", "content") or "text" in source or "content" in source:
        return 0
    if kind in ("txt", "md", "csv", "html", "text/plain"):
        return 0 if isinstance(data, str) else None
    if kind not in ("pdf", "application/pdf") or not isinstance(data, str):
        return None
    try:
        pdf = binascii.a2b_base64(data)
    except (binascii.Error, ValueError):
        return most
    if b"/ObjStm" in pdf or b"/Encrypt" in pdf:  # its pages may be packed away
        return most
    counts = [int(digits[:6]) for digits in _COUNT.findall(pdf)]
    return min(max([len(_PAGE.findall(pdf)), *counts]) or most, most)
