"""What records of gateways and of tracing tools share: whose Claude it was, times, labels, fields of loose types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from farthing.importers._documents import Fields, decoded
from farthing.importers._open import UNREADABLE
from farthing.importers._read import instant
from farthing.usage import Rejected, check_region, parse_model_id

_any = msgspec.json.Decoder()
_SECOND_US = 1_000_000
_BEDROCK = ("bedrock", "amazon_bedrock", "amazon-bedrock", "aws.bedrock", "aws_bedrock")
_ROUTES = ("bedrock", "bedrock_converse", "converse", "invoke", "anthropic")
MOST_LABEL_CHARACTERS = 128


def field(fields: Fields, *names: str) -> Any:
    """The first of these fields that says something; None if none does."""
    for name in names:
        raw = fields.get(name)
        if raw is not None and (value := decoded(_any, bytes(raw))) not in (None, "", [], {}):
            return value
    return None


class _Answer(msgspec.Struct, gc=False):
    """What is wanted of an answer; its text is not."""

    id: Any = None
    usage: Any = None


_answers = msgspec.json.Decoder(_Answer)


def answer(fields: Fields, name: str) -> tuple[str, Mapping[str, Any]]:
    """The id and the usage block of the answer in a field, also where it was written as text."""
    raw = bytes(fields.get(name, b""))
    try:
        if raw.startswith(b'"'):
            raw = decoded(_any, raw).encode()
        found = decoded(_answers, raw) if raw.startswith(b"{") else _Answer()
    except UNREADABLE:
        found = _Answer()
    return text(found.id), mapping(found.usage)


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def mapping(value: Any) -> Mapping[str, Any]:
    """An object, or one that was written as text; empty if it is neither."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = decoded(_any, value.encode())
        except UNREADABLE:
            return {}
    return value if isinstance(value, dict) else {}


def moment(value: Any) -> int:
    """Microseconds since 1970 of an ISO time, or of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(Decimal(str(value)) * _SECOND_US)
    return instant(value)


def latency_ms(start_us: int, end: Any) -> int | None:
    """How long it took, where the end is told and comes after the start."""
    try:
        took_us = moment(end) - start_us
    except (Rejected, ArithmeticError, ValueError):
        return None
    return took_us // 1000 if 0 <= took_us < 2**40 else None


def claude(model: str, provider: str) -> tuple[str, str, str] | None:
    """(platform, model id, region) of a model as gateways write it; None if it is no Claude of Bedrock or Anthropic.

    >>> claude("bedrock/eu-west-1/anthropic.claude-v2", "bedrock")
    ('bedrock', 'anthropic.claude-v2', 'eu-west-1')
    """
    region = ""
    arn = model.find("arn:aws")
    if arn >= 0:
        model = model[arn:]
    else:
        *route, model = model.split("/")
        for step in route:
            if step not in _ROUTES:
                region = _region(step)
                if not region:
                    return None  # another vendor's
            provider = provider or step
    named = parse_model_id(model)
    if named.base and "claude" not in named.base:
        return None
    if not named.base or named.base.startswith("anthropic.") or provider.lower().startswith(_BEDROCK):
        return "bedrock", model, region or named.region
    if provider.lower() in ("", "anthropic"):
        return provider.lower(), model, ""
    return None


def _region(step: str) -> str:
    try:
        return check_region(step)
    except Rejected:
        return ""


def labels(given: Any) -> Iterable[tuple[str, str]]:
    """Tags that are a list of words, as pairs: `team:search` has a value, and any other is just set."""
    if isinstance(given, str) and given.startswith("["):
        given = decoded(_any, given.encode())
    for word in given if isinstance(given, list) else ():
        if isinstance(word, str) and word and len(word) <= MOST_LABEL_CHARACTERS:
            name, colon, value = word.partition(":")
            yield (name.strip(), value.strip()) if colon and name.strip() else (word, "set")


def tags(*sources: Iterable[tuple[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Names with short values; what is said twice is as the first says."""
    found: dict[str, str] = {}
    for source in sources:
        for name, value in source:
            if isinstance(value, bool) or not isinstance(value, str | int):
                continue
            if value != "" and len(shown := str(value)) <= MOST_LABEL_CHARACTERS and "\n" not in shown:
                found.setdefault(name, shown)
    return tuple(sorted(found.items()))
