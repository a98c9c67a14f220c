"""Requests from files: bodies of Messages, InvokeModel and Converse, alone, a line each, or inside log records.

A folder is read in the order of names. What cannot be read is told and left out; the rest counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from farthing.aws import Access, is_s3, keys, split
from farthing.importers import _s3
from farthing.importers._find import Fault, find
from farthing.importers._open import Cut, Numbered, Source
from farthing.lint._request import CONVERSE, Sent, form_of, parts_of, settings_of, ttl
from farthing.meters import Vector
from farthing.traces._lines import UNREADABLE, instant_us, reason
from farthing.traces.bedrock_log import _STAMP
from farthing.usage import Rejected, parse_model_id, read_usage

MOST_LINE_BYTES = 1 << 30  # a body may be one line
_BLANK = re.compile(r"(?<!\n)(?=\n\n)")
_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*[\[{]|" + _STAMP.pattern)
_PROMPT_FILES = (".md", ".txt", ".prompt")
_TIMES = ("timestamp", "at", "time", "created_at")
_NAMES = ("recordId", "custom_id", "name", "id")


class Unread(NamedTuple):
    """What could not be read, and why."""

    place: str
    reason: str


class Other(NamedTuple):
    """A file of a folder that is not of JSON, or a request to a model that is not Claude."""

    path: str


def read_requests(paths: list[str], model: str = "") -> Iterator[Sent | Unread | Other]:
    """The requests of these files and folders. `model` is that of bodies which name none."""
    for found in find(paths):
        if isinstance(found, Fault):
            yield Unread(found.path, found.reason)
            continue
        try:
            if is_s3(found.path):
                _s3.use(keys(Access(), split(found.path)[0]))
            source = Source(found.path)
        except OSError as error:
            yield Unread(found.path, error.strerror or str(error))
            continue
        try:
            if found.path not in paths and not _JSON.match(source.head()):
                yield Other(found.path)
                continue
            for each in _of_file(found.path, source):
                if isinstance(each, Sent):
                    each = each._replace(
                        model=each.model or model, name=each.name or _base(paths, found.path)
                    )
                yield each
        finally:
            source.close()


def _base(paths: list[str], path: str) -> str:
    """The name of a file inside the folder that was named; "" for a file named itself."""
    inside = [root for root in paths if path != root and os.path.isdir(root)]  # noqa: PTH112
    return os.path.relpath(path, inside[0]) if inside else ""


def _of_file(path: str, source: Source) -> Iterator[Sent | Unread | Other]:
    if path.endswith(_PROMPT_FILES):
        try:
            yield _prompt(path, b"".join(source.chunks()))
        except (Cut, UnicodeDecodeError) as error:
            yield Unread(path, str(error) if isinstance(error, Cut) else "not UTF-8")
        return
    whole = source.head().lstrip().partition(b"\n")[0].strip() in (b"{", b"[")
    try:
        lines = Numbered(source.chunks(), MOST_LINE_BYTES)
        for number, line in [(1, b"\n".join(line for _, line in lines))] if whole else lines:
            yield from _of_line(line, path, number, _beside(path))
    except Cut as cut:
        yield Unread(path, str(cut))


def _of_line(
    line: bytes, path: str, number: int, beside: Callable[[str], Any]
) -> Iterator[Sent | Unread | Other]:
    place = f"{path}:{number}"
    try:
        record = msgspec.json.decode(_bare(line))
    except UNREADABLE as error:
        yield Unread(place, reason(error))
        return
    for at, one in enumerate(record if isinstance(record, list) else [record]):
        here = f"{place}[{at}]" if isinstance(record, list) else place
        try:
            sent = _sent(one, here, beside)
            yield sent if _is_claude(sent.model) else Other(here)
        except Rejected as error:
            yield Unread(here, str(error))


def _is_claude(model: str) -> bool:
    """Whether it may be one: an id that names no model may."""
    base = parse_model_id(model).base
    return not base or "claude" in base


def _bare(line: bytes) -> bytes:
    """Without the mark of its encoding, and the time that a CloudWatch export writes before each line."""
    line = line.strip().removeprefix(b"\xef\xbb\xbf")
    stamp = _STAMP.match(line)
    return line[stamp.end() :] if stamp else line


def _beside(path: str) -> Callable[[str], Any]:
    """A body that was too large for its log record: it lies in data/."""

    def read(name: str) -> Any:
        place = os.path.join(os.path.dirname(path), "data", re.split(r"[/\\]", name)[-1])  # noqa: PTH118, PTH120
        try:
            source = Source(place)
            try:
                return msgspec.json.decode(b"".join(source.chunks()))
            finally:
                source.close()
        except (OSError, Cut, *UNREADABLE):
            raise Rejected("its body is in S3, and not beside the log (data/)") from None

    return read


def sent_of(
    body: Mapping[str, Any], place: str = "", *, model: str = "", form: str = "", usage: Any = None
) -> Sent:
    """A body as a request. Rejected if it is none."""
    named = body.get("modelId") or body.get("model") or model
    control = body.get("cache_control")
    return Sent(
        place,
        "",
        form or form_of(body),
        parts_of(body),
        settings_of(body),
        ttl(control) if control else "",
        str(named or ""),
        usage=_usage(usage),
    )


def _usage(block: Any) -> Vector | None:
    if isinstance(block, Vector):
        return block
    if not isinstance(block, dict):
        return None
    try:
        tokens = [part.tokens for part in read_usage(block).parts]
    except Rejected:
        return None
    return tokens[0] if len(tokens) == 1 else None


def _sent(record: Any, place: str, beside: Callable[[str], Any]) -> Sent:
    """A body, or a record that holds one: of an invocation log, a batch, an agent's trace."""
    if not isinstance(record, dict):
        raise Rejected("no object: a request is one")
    if isinstance(record.get("message"), str) and record["message"].lstrip().startswith("{"):
        return _sent(_decoded(record["message"]), place, beside)
    if "modelId" in record and isinstance(record.get("input"), dict) and "messages" not in record:
        return _logged(record, place, beside)
    batch = next((record[name] for name in ("modelInput", "params") if name in record), None)
    inner = batch if batch is not None else record.get("body", record.get("request", record))
    if isinstance(inner, str):
        inner = _decoded(inner)
    if not isinstance(inner, dict):
        raise Rejected("its body is no object")
    if isinstance(record.get("input"), str | list) and "messages" not in inner:
        inner = {**record, "messages": _turns(record["input"])}
    told = next((record[name] for name in _NAMES if isinstance(record.get(name), str)), "")
    found = sent_of(inner, place, model=str(record.get("model") or ""), usage=record.get("usage"))
    return found._replace(
        name=told,
        at_us=_at_us(record),
        region=str(record.get("region") or ""),
        account=str(record.get("accountId") or record.get("account") or ""),
        batch=batch is not None,
    )


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except UNREADABLE:
        raise Rejected("its body is cut short, or no JSON") from None


def _turns(prompt: Any) -> Any:
    """An agent's prompt: a text falls into blocks where lines are left blank, as in its trace."""
    if isinstance(prompt, list):
        return prompt
    return [{"role": "user", "content": [piece for piece in _BLANK.split(prompt) if piece]}]


def _logged(record: dict[str, Any], place: str, beside: Callable[[str], Any]) -> Sent:
    side = record["input"]
    body = side.get("inputBodyJson")
    if body is None and side.get("inputBodyS3Path"):
        body = beside(str(side["inputBodyS3Path"]))
    if isinstance(body, str):
        body = _decoded(body)
    if not isinstance(body, dict):
        raise Rejected("no body: logging of text is off" if body is None else "its body is no object")
    form = CONVERSE if "Converse" in str(record.get("operation")) else ""
    found = sent_of(body, place, form=form, usage=_counts(record))
    return found._replace(
        model=str(record["modelId"]),
        at_us=_at_us(record),
        region=str(record.get("region") or ""),
        account=str(record.get("accountId") or ""),
    )


def _counts(record: dict[str, Any]) -> dict[str, Any]:
    """The counts of a record; writes count as 5m, which changes no size."""
    sides = (record.get("input"), record.get("output"))
    return {
        name: value
        for side in sides
        if isinstance(side, dict)
        for name, value in side.items()
        if name.endswith("TokenCount")
    }


def _at_us(record: dict[str, Any]) -> int | None:
    said = next((record[name] for name in _TIMES if record.get(name) is not None), None)
    if isinstance(said, str):
        return instant_us(said)
    if isinstance(said, int) and said > 0:
        for least, us in ((10**17, 0), (10**14, 1), (10**11, 1_000)):
            if said >= least:
                return said * us if us else said // 1_000
        return said * 1_000_000
    return None


def _prompt(path: str, data: bytes) -> Sent:
    """A prompt file: a system prompt with a marker behind it, and a question that is new each time."""
    text = data.decode()
    body = {
        "system": [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "?"}],
    }
    return sent_of(body, path)
