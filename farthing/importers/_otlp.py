"""OTLP JSON, as a collector writes it: what is decoded of a line, and what its attributes say.

Types are loose on purpose: a line is a whole batch, and one odd value in it costs the record that holds it.
"""

# ruff: noqa: N815 - fields are named as in the JSON

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from farthing.usage import OPAQUE, Rejected, parse_model_id, quoted


class Value(msgspec.Struct, gc=False):
    """Lists and maps are left out: nothing that is kept comes from one, and prompts come in them."""

    stringValue: Any = None
    intValue: Any = None
    doubleValue: Any = None
    boolValue: Any = None


class KeyValue(msgspec.Struct, gc=False):
    key: str = ""
    value: Value | None = None


Attributes = list[KeyValue] | dict[str, Any] | None  # a plain object is how CloudWatch writes them


class Resource(msgspec.Struct, gc=False):
    attributes: Attributes = None


class Scope(msgspec.Struct, gc=False):
    name: str | None = None
    version: str | None = None


class Status(msgspec.Struct, gc=False):
    code: Any = None


class Span(msgspec.Struct, gc=False):
    """`scope` and `resource` are its own where spans stand alone; in OTLP they stand around it."""

    traceId: str | None = None
    spanId: str | None = None
    parentSpanId: str | None = None
    name: str | None = None
    startTimeUnixNano: Any = None
    endTimeUnixNano: Any = None
    attributes: Attributes = None
    status: Status | None = None
    scope: Scope | None = None
    resource: Resource | None = None


class LogRecord(msgspec.Struct, gc=False):
    timeUnixNano: Any = None
    eventName: str | None = None
    body: Value | str | None = None
    attributes: Attributes = None


class Point(msgspec.Struct, gc=False):
    startTimeUnixNano: Any = None
    timeUnixNano: Any = None
    asInt: Any = None
    asDouble: Any = None
    attributes: Attributes = None


class Sum(msgspec.Struct, gc=False):
    dataPoints: list[Point] | None = None
    aggregationTemporality: Any = None


class Metric(msgspec.Struct, gc=False):
    name: str | None = None
    sum: Sum | None = None


class ScopeSpans(msgspec.Struct, gc=False):
    scope: Scope | None = None
    spans: list[Span] | None = None


class ScopeLogs(msgspec.Struct, gc=False):
    scope: Scope | None = None
    logRecords: list[LogRecord] | None = None


class ScopeMetrics(msgspec.Struct, gc=False):
    scope: Scope | None = None
    metrics: list[Metric] | None = None


class ResourceSpans(msgspec.Struct, gc=False):
    resource: Resource | None = None
    scopeSpans: list[ScopeSpans] | None = None


class ResourceLogs(msgspec.Struct, gc=False):
    resource: Resource | None = None
    scopeLogs: list[ScopeLogs] | None = None


class ResourceMetrics(msgspec.Struct, gc=False):
    resource: Resource | None = None
    scopeMetrics: list[ScopeMetrics] | None = None


class Line(Span, gc=False):
    """A batch of one signal, or a span on a line of its own."""

    resourceSpans: list[ResourceSpans] | None = None
    resourceLogs: list[ResourceLogs] | None = None
    resourceMetrics: list[ResourceMetrics] | None = None


decoder: msgspec.json.Decoder[Line | list[Span]] = msgspec.json.Decoder(Line | list[Span])


# --- values --------------------------------------------------------------------------------------------------------

Plain = dict[str, Any]
_WHOLE = re.compile(r"-?[0-9]{1,19}")


def plain(attributes: Attributes) -> Plain:
    """Attributes by name: texts, numbers and truths."""
    if attributes is None or isinstance(attributes, dict):
        return attributes or {}
    found = {}
    for pair in attributes:
        value = pair.value
        if value is None:
            continue
        for said in (value.stringValue, value.intValue, value.doubleValue, value.boolValue):
            if said is not None:
                found[pair.key] = said
                break
    return found


def text(said: Mapping[str, Any], *names: str) -> str:
    """The first of these that is a text with something in it."""
    for name in names:
        value = said.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def number(value: Any, name: str) -> int:
    """A whole number, which JSON may hold as text (all 64-bit ones of OTLP) or with a point; 0 where it is absent."""
    if value is None:
        return 0
    if isinstance(value, str):
        value = int(value) if _WHOLE.fullmatch(value) else value
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if value.__class__ is not int:
        raise Rejected(f"{name} is no whole number ({quoted(value)})")
    if value < 0:
        raise Rejected(f"{name} is negative ({value})")
    found: int = value
    return found


def largest(said: Mapping[str, Any], *names: str) -> int:
    """The count that goes by one of these names; where two give it, they are copies."""
    return max(number(said.get(name), name) for name in names)


def micros(nanos: Any) -> int:
    """Microseconds since 1970, or Rejected."""
    if nanos in (None, "", 0, "0"):
        raise Rejected("no time")
    return number(nanos, "a time") // 1000


# --- who, and where ------------------------------------------------------------------------------------------------

# `enduser.id` is what Claude Code's manual says to set where users have no Claude account, as on Bedrock; there
# `user.id` is a random number of the installation.
_PRINCIPALS = ("user.email", "enduser.id", "user.account_uuid", "user.account_id", "user.id")
_NO_TAGS = (
    "service.", "host.", "os.", "wsl.", "process.", "telemetry.", "cloud.", "container.", "k8s.", "faas.", "aws.",
    "device.", "gen_ai.", "user.", "enduser.", "session.", "organization.", "identity.", "app.", "terminal.", "otel.",
)  # fmt: skip
MOST_TAG_CHARACTERS = 200


def principal(*saids: Mapping[str, Any]) -> str:
    """Who asked, by the surest name there is."""
    return next((found for name in _PRINCIPALS for said in saids if (found := text(said, name))), "")


def tags(resource: Mapping[str, Any], also: Iterable[tuple[str, str]] = ()) -> tuple[tuple[str, str], ...]:
    """What an operator said of the resource (a team, a cost centre), without what instrumentation says of itself."""
    found = {
        name: str(value)
        for name, value in resource.items()
        if not name.startswith(_NO_TAGS) and isinstance(value, str | int) and value != ""
    }
    found |= {name: value for name, value in also if value}
    return tuple(sorted((name, value) for name, value in found.items() if len(value) <= MOST_TAG_CHARACTERS))


def platform(model: str, provider: str = "") -> str:
    """Who sold the call: the form of the model's id says it, and where that is plain, what calls itself provider.

    An SDK of Anthropic's that is pointed at Bedrock is instrumented as "anthropic" all the same.
    """
    read = parse_model_id(model)
    provider = provider.lower()
    if read.routing or read.kind in OPAQUE or "bedrock" in provider or provider == "aws":
        return "bedrock"
    if "@" in model or "vertex" in provider or provider.startswith("gcp"):
        return "vertex"
    return "anthropic" if provider in ("", "anthropic") else ""
