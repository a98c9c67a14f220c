"""Spans of calls to Claude: their counts, and which spans are one call seen by two instrumentations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from farthing.importers._block import ZERO, Tokens
from farthing.importers._otlp import (
    Plain,
    Scope,
    Span,
    largest,
    micros,
    number,
    plain,
    platform,
    principal,
    tags,
    text,
)
from farthing.usage import OPAQUE, Facts, Usage, parse_model_id

MOST_HELD = 50_000  # spans whose kin may still come; of more, the oldest traces are settled

_CALLS = ("chat", "text_completion", "generate_content")  # not invoke_agent, execute_tool: sums, and no calls
_OLD_TYPES = {
    "chat": "chat",
    "completion": "text_completion",
}  # llm.request.type, before there was a convention
_CLAUDE_CODE = "com.anthropic.claude_code"
_HOST = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_FAILED = (2, "2", "STATUS_CODE_ERROR", "ERROR", "Error")

# Whether `gen_ai.usage.input_tokens` has the cached tokens in it, where that has been seen in the code (FORMATS.md
# 8): up to which version of a scope. Of later ones nothing is known; the convention says they should include them.
_INCLUDES = {
    "opentelemetry.instrumentation.botocore.bedrock-runtime": ((0, 67), False),
    "opentelemetry.instrumentation.bedrock": ((0, 63), False),
    "opentelemetry.instrumentation.anthropic": ((1, 0), True),
}


class _Call(NamedTuple):
    """A span that is a call. `reported_input` is as the span has it, whatever it includes."""

    usage: Usage
    reported_input: int

    @property
    def tokens(self) -> Tokens:
        return self.usage.parts[0][1]


class _Node(NamedTuple):
    parent: str
    call: _Call | None


class Spans:
    """Spans by trace, held until their parents and children can be compared.

    One call is often two spans: of a framework, and of the SDK below it. Of two in line, with no call between,
    that give the same response id, or the same counts, the inner one is the call; so is it where what is below a
    span adds up to the span's counts. A call takes from the spans above it who asked, and the fuller counts.
    """

    def __init__(self, most_held: int = MOST_HELD) -> None:
        self._most_held = most_held
        self._held = 0
        self._traces: dict[str, dict[str, _Node]] = {}
        self._facts: dict[Facts, Facts] = {}

    def add(self, span: Span, scope: Scope | None, resource: Plain) -> Iterator[Usage]:
        """What it settles is older. Rejected if the span is a call and cannot be read."""
        nodes = self._traces.setdefault(span.traceId or "", {})
        name = span.spanId or f"no id {self._held}"
        if name in nodes:  # exported twice
            return
        self._held += 1
        nodes[name] = _Node(span.parentSpanId or "", None)
        call = _call(span, scope or Scope(), resource, self._facts)
        if call:
            nodes[name] = nodes[name]._replace(call=call)
        while self._held > self._most_held:
            oldest = next(iter(self._traces))
            settled = self._traces.pop(oldest)
            self._held -= len(settled)
            yield from _settled(settled)

    def rest(self) -> Iterator[Usage]:
        for nodes in self._traces.values():
            yield from _settled(nodes)
        self._traces.clear()


# --- one call, two spans -------------------------------------------------------------------------------------------


def _settled(nodes: dict[str, _Node]) -> Iterator[Usage]:
    """The calls of a trace; once more for each span that is the same call again, so that it counts as a duplicate."""
    calls = {name: node.call for name, node in nodes.items() if node.call}
    kept = {name: call.usage for name, call in calls.items()}
    below: dict[str, list[str]] = {}  # the nearest calls below a span
    same: dict[str, str] = {}  # a span -> the call below it that it is
    depths = {name: sum(1 for _ in _above(nodes, name)) for name in calls}
    for name in sorted(calls, key=lambda name: -depths[name]):
        call, inner = calls[name], below.get(name, [])
        twin = next(
            (one for one in inner if any(_one_call(call, calls[it]) for it in (one, same.get(one, one)))), ""
        )
        if twin:
            same[name] = twin = same.get(twin, twin)
            kept[twin] = _told(kept[twin], kept.pop(name))
        elif _adds_up(call, [calls[one] for one in inner]):
            for one in inner:
                part = same.get(one, one)
                kept[part] = _asked(kept[part], call.usage)
            same[name] = same.get(inner[0], inner[0])
            del kept[name]
        outer = next((one for one in _above(nodes, name) if one in calls), "")
        below.setdefault(outer, []).append(name)
    again = Counter(same.values())
    for name, usage in kept.items():
        for _ in range(1 + again[name]):
            yield usage


def _above(nodes: Mapping[str, _Node], name: str) -> Iterator[str]:
    """The spans around a span, from the inside; each once, should they run in a circle."""
    seen = {name}
    while (name := nodes[name].parent) in nodes and name not in seen:
        seen.add(name)
        yield name


def _one_call(outer: _Call, inner: _Call) -> bool:
    a, b = outer.usage, inner.usage
    for x, y in ((a.message_id, b.message_id), (a.request_id, b.request_id)):
        if x and y:
            return x == y
    if not sum(outer.tokens) or not sum(inner.tokens):
        return not sum(
            outer.tokens
        )  # it failed with the call below, or after it; a call below may be tried again
    inputs = {outer.reported_input, _prompt(outer)} & {inner.reported_input, _prompt(inner)}
    return outer.tokens[1] == inner.tokens[1] and bool(inputs)


def _adds_up(outer: _Call, inner: list[_Call]) -> bool:
    """Whether a span gives the sum of several calls below it."""
    if len(inner) < 2 or not outer.tokens[1]:
        return False
    sums = {sum(one.reported_input for one in inner), sum(map(_prompt, inner))}
    inputs = {outer.reported_input, _prompt(outer)}
    return outer.tokens[1] == sum(one.tokens[1] for one in inner) and not sums.isdisjoint(inputs)


def _prompt(call: _Call) -> int:
    return sum(call.tokens) - call.tokens[1]


_WHO = ("region", "account", "principal", "session", "project")


def _asked(inner: Usage, outer: Usage) -> Usage:
    """A call, with what only a span around it says of who asked."""
    (facts, tokens), (more, _) = inner.parts[0], outer.parts[0]
    facts = facts._replace(**{name: getattr(facts, name) or getattr(more, name) for name in _WHO})
    tags = tuple(sorted((dict(outer.tags) | dict(inner.tags)).items()))
    return inner._replace(parts=((facts, tokens),), tags=tags)


def _told(inner: Usage, outer: Usage) -> Usage:
    """A call with all that only its other span says; and its counts, if those tell of more tokens."""
    request, message = inner.request_id or outer.request_id, inner.message_id or outer.message_id
    told = _asked(inner, outer)._replace(request_id=request, message_id=message)
    (facts, tokens), (more, counted) = told.parts[0], outer.parts[0]
    if sum(counted) > sum(tokens):
        told = told._replace(parts=((facts._replace(assumed=more.assumed), counted),))
    return told


# --- one span ------------------------------------------------------------------------------------------------------


def _call(span: Span, scope: Scope, resource: Plain, known: dict[Facts, Facts]) -> _Call | None:
    """The call that a span is; None if it is something else, or a call of another vendor's model."""
    said = plain(span.attributes)
    model = text(said, "gen_ai.request.model", "gen_ai.response.model")
    served = text(said, "gen_ai.response.model")
    ours = (scope.name or "").startswith(_CLAUDE_CODE) and text(said, "span.type") == "llm_request"
    operation = text(said, "gen_ai.operation.name") or _OLD_TYPES.get(text(said, "llm.request.type"), "")
    if not model or not _of_claude(model, served) or (operation and operation not in _CALLS):
        return None
    counts = _claude_code(said) if ours else _counts(said, scope)
    failed = span.status is not None and span.status.code in _FAILED
    if counts is None and not (failed and (operation or ours)):
        return None
    tokens, assumed, reported_input = counts or (ZERO, (), 0)
    at_us = micros(span.startTimeUnixNano)
    request_id, message_id = _ids(said)
    facts = Facts(
        source="otel",
        platform=platform(model, text(said, "gen_ai.provider.name", "gen_ai.system")),
        model_id=model,
        served_model=served if served != model else "",
        region=_region(said),
        account=text(said, "cloud.account.id"),
        principal=principal(said, resource),
        mode="fast" if said.get("speed") == "fast" else "",
        session=text(said, "session.id", "gen_ai.conversation.id") or text(resource, "session.id"),
        project=text(resource, "service.name"),
        operation=operation or ("chat" if ours else ""),
        status=_status(said) if failed else "",
        assumed=",".join(assumed),
    )
    usage = Usage(
        at_us,
        request_id,
        message_id,
        ((known.setdefault(facts, facts), tokens),),
        tags(resource),
        max(micros(span.endTimeUnixNano) - at_us, 0) // 1000 if span.endTimeUnixNano else None,
        gateway_id=span.spanId or "",
    )
    return _Call(usage, reported_input)


def _of_claude(model: str, served: str) -> bool:
    """An opaque id (an application's inference profile) may be any model's, unless the answer named it."""
    if "claude" in f"{model} {served}".lower():
        return True
    return not served.removeprefix(model) and parse_model_id(model).kind in OPAQUE


def _status(said: Plain) -> str:
    code = said.get("status_code") or said.get("http.response.status_code")
    return text(said, "error.type") or (str(code) if isinstance(code, str | int) else "") or "error"


def _ids(said: Plain) -> tuple[str, str]:
    """(request, message). The response's id is of the message, or of the request: Claude Code gives `req_...`."""
    response = text(said, "gen_ai.response.id")
    message = response if response.startswith("msg_") else ""
    request = text(said, "aws.request_id", "request_id")
    if not request and (response.startswith("req_") or _UUID.fullmatch(response)):
        request = response
    return request, message


def _region(said: Plain) -> str:
    """The caller's region, as the span itself has it: a resource's is where a program runs."""
    host = _HOST.fullmatch(text(said, "server.address", "net.peer.name"))
    return text(said, "cloud.region", "aws.region") or (host[1] if host else "")


# --- counts --------------------------------------------------------------------------------------------------------

_INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
_READ = ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens")
_WRITTEN = (
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "gen_ai.usage.cache_write_input_tokens",
)
_Counts = tuple[Tokens, tuple[str, ...], int]  # what is assumed of them, and the input as reported


def _counts(said: Plain, scope: Scope) -> _Counts | None:
    """The five counts, by the convention's names; None if there are none."""
    if not any(name in said for name in _INPUT + _OUTPUT):
        return None
    prompt, output = largest(said, *_INPUT), largest(said, *_OUTPUT)
    read, written = largest(said, *_READ), largest(said, *_WRITTEN)
    cached = read + written
    total = number(said.get("gen_ai.usage.total_tokens"), "gen_ai.usage.total_tokens")
    includes = _includes(scope)
    assumed: tuple[str, ...] = ("ttl",) if written else ()
    if prompt < cached or (cached and total == prompt + cached + output):
        includes = False  # whatever is known of the scope, this span's own sums decide
    elif includes is None:
        includes = True
        assumed += ("input_includes_cache",) if cached else ()
    fresh = prompt - cached if includes else prompt
    return (fresh, output, read, written, 0), assumed, prompt


def _includes(scope: Scope) -> bool | None:
    """Whether this version of a scope counts cached tokens as input; None if that is not known."""
    known = _INCLUDES.get(scope.name or "")
    version = re.match(r"(\d+)\.(\d+)", scope.version or "")
    if known is None or version is None:
        return None
    before, includes = known
    return includes if (int(version[1]), int(version[2])) < before else None


def _claude_code(said: Plain) -> _Counts | None:
    """Claude Code's own spans have Anthropic's counts, in which the cached tokens are apart."""
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")
    if not any(name in said for name in names):
        return None
    prompt, output, read, written = (number(said.get(name), name) for name in names)
    return (prompt, output, read, written, 0), ("ttl",) if written else (), prompt
