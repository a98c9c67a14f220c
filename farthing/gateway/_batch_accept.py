"""Requests as they are handed in: a line of JSON each, checked before any of it costs something."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from farthing.book import Book, Unpriced
from farthing.gateway._batch_clock import SECOND
from farthing.gateway._batch_plan import choose, with_hits
from farthing.gateway._batch_queue import Group, New, digest
from farthing.meters import Vector
from farthing.usage import Rejected
from farthing.wire import Route, ask, safe_model_id

KINDS = ("InvokeModel", "Converse", "Messages")
MOST_BODY = 25_000_000  # bytes: what Bedrock takes of one call
_ID = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_SPAN = re.compile(r"([1-9]\d{0,5})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MOST_S = 30 * 86_400
_WHO = ("key", "team", "project", "run", "session")


class _Usage(msgspec.Struct, forbid_unknown_fields=True):
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0


class _Line(msgspec.Struct):
    """Ours, or an input line of Bedrock's or Anthropic's batches."""

    id: str = ""
    recordId: str = ""  # noqa: N815
    custom_id: str = ""
    model: str = ""
    operation: str = ""
    deadline: str = ""
    body: msgspec.Raw = msgspec.Raw()
    modelInput: msgspec.Raw = msgspec.Raw()  # noqa: N815
    params: msgspec.Raw = msgspec.Raw()
    usage: _Usage | None = None  # as such a call is billed today, when it is sent at once
    key: str = ""
    team: str = ""
    project: str = ""
    run: str = ""
    session: str = ""
    tags: dict[str, str] = {}


_line = msgspec.json.Decoder(_Line)


class Usual(NamedTuple):
    """What holds where a line does not say it. `now_us` is of the queue's clock."""

    now_us: int
    deadline: str = "24h"
    model: str = ""
    operation: str = ""
    region: str = ""
    hits: int = 0
    tags: Mapping[str, str] = {}


def due_us(text: str, now_us: int) -> int:
    """A deadline: so long from now (90s, 30m, 6h, 2d), or a time with its zone. Rejected if it is neither.

    >>> due_us("6h", 0)
    21600000000
    """
    left_s = seconds(text)
    if left_s < 0:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            at = None
        if at is not None and at.tzinfo is not None:
            left_s = int((at - datetime.now(UTC)).total_seconds())
    if not 0 < left_s <= _MOST_S:
        raise Rejected(
            f"deadline {text[:40]!r}: write 90s, 30m, 6h or 2d (30d at most), or 2026-11-24T06:00:00Z"
        )
    return now_us + left_s * SECOND


def seconds(text: str) -> int:
    """Of a span (90s, 30m, 6h, 2d); -1 if it is none."""
    span = _SPAN.fullmatch(text.strip())
    return int(span[1]) * _SECONDS[span[2]] if span else -1


def read_line(line: bytes, usual: Usual, book: Book) -> New:
    """Rejected says what is wrong with it."""
    try:
        said = _line.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"no request: {error}"[:300]) from None
    name = said.id or said.recordId or said.custom_id
    if not _ID.fullmatch(name):
        raise Rejected('no "id": a text of up to 200 characters, which names the request')
    body = bytes(said.body) or bytes(said.modelInput) or bytes(said.params)
    if not body:
        raise Rejected('no "body": the request as the API takes it')
    group, body = _group(said, body, usual)
    who = {each: value for each in _WHO if (value := getattr(said, each))} | {
        "tags": {**usual.tags, **said.tags}
    }
    usage = Vector(*msgspec.structs.astuple(said.usage)) if said.usage else None
    usual = usual._replace(deadline=said.deadline or usual.deadline)
    return checked(name, group, body, usual, book, msgspec.json.encode(who), usage)


def checked(
    name: str,
    group: Group,
    body: bytes,
    usual: Usual,
    book: Book,
    who: bytes,
    usage: Vector | None = None,
) -> New:
    """A request that can be put into a queue; Rejected if it cannot. `usage` is what such a call is billed today."""
    inner = _object(body)
    if len(body) > MOST_BODY:
        raise Rejected(f"its body has {len(body):,} bytes; {MOST_BODY:,} are taken")
    if inner.get("stream"):
        raise Rejected('"stream" cannot be waited for: take it out of the body')
    if not isinstance(inner.get("messages"), list) or not inner["messages"]:
        raise Rejected('no "messages" in its body')
    if group.kind == "InvokeModel" and "anthropic_version" not in inner:
        raise Rejected('no "anthropic_version" in its body: "bedrock-2023-05-31"')
    ask(route_of(group), body)
    body = b" ".join(body.splitlines())  # it becomes a line of the job's file
    deadline = due_us(usual.deadline, usual.now_us)
    known = digest(group, msgspec.json.encode(inner, order="sorted"))
    return New(name, group, body, deadline, who, alone(group, body, usage, usual, book), known)


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"its body is no object of JSON: {error}"[:300]) from None


def _group(said: _Line, body: bytes, usual: Usual) -> tuple[Group, bytes]:
    """Where it goes, and the body as it goes there."""
    inner = _object(body)
    own = inner.get("model")
    model = said.model or (own if isinstance(own, str) else "") or usual.model
    if not model or not safe_model_id(model):
        raise Rejected('no "model": an id of Bedrock, or of Anthropic\'s API')
    kind = said.operation or usual.operation or _kind(model, inner)
    if kind not in KINDS:
        raise Rejected(f"operation {kind[:40]!r}: write {', '.join(KINDS)}")
    platform = "anthropic" if kind == "Messages" else "bedrock"
    if kind == "Messages" and own != model:
        body = msgspec.json.encode({**inner, "model": model})
    return Group(platform, model, kind), body


def _kind(model: str, body: Mapping[str, Any]) -> str:
    if model.startswith("claude-"):
        return "Messages"
    return "InvokeModel" if "anthropic_version" in body or "max_tokens" in body else "Converse"


def route_of(group: Group) -> Route:
    if group.kind == "Messages":
        return Route(group.kind, "anthropic")
    return Route(group.kind, "bedrock", group.model)


def alone(group: Group, body: bytes, usage: Vector | None, usual: Usual, book: Book) -> str:
    """Why it is sent by itself; "" where a batch is the cheaper way, as far as it can be told."""
    if group.kind == "Converse" and b'"toolConfig"' in body:
        return "jobs of Converse take no tools: write it for InvokeModel"
    resolved = book.resolve(group.model, platform=group.platform, region=usual.region)
    if isinstance(resolved, Unpriced):
        return ""
    tokens = usage
    if tokens is None:
        most = ask(route_of(group), body).max_tokens or 1024
        tokens = with_hits(len(body) // 4, most, usual.hits)
    return choose(book, resolved.sku, tokens, datetime.now(UTC)).reason
