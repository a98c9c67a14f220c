"""Langfuse: observations and traces as its API, its scheduled exports and its page export them (JSON).

Generations are calls; anything else has no usage of its own. In `usageDetails` the kinds of token do not overlap,
as Langfuse prices them; where its `total` shows that a tool sent overlapping ones, the cached tokens are taken out
of `input`, and that is marked as assumed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import msgspec

from farthing.importers._batch import Reject
from farthing.importers._block import ZERO, Tokens
from farthing.importers._documents import Fields, Record, decoded, first_keys, records
from farthing.importers._gateway import answer, claude, field, labels, latency_ms, mapping, moment, tags, text
from farthing.importers._open import UNREADABLE
from farthing.importers._read import Item, Lines, digest, reason
from farthing.usage import Facts, Rejected, Usage, check_region, count, split_writes

_OF_OBSERVATIONS = ({"traceId", "type", "startTime"}, {"trace_id", "type", "start_time"})
_OF_TRACES = ({"projectId", "timestamp", "bookmarked"}, {"observations", "timestamp"})
_nested = msgspec.json.Decoder(list[Fields | str])


def sniff(head: bytes) -> bool:
    keys = first_keys(head).keys()
    return any(keys >= of for of in (*_OF_OBSERVATIONS, *_OF_TRACES))


def read(lines: Lines, path: str = "") -> Iterator[Item]:
    facts: dict[tuple[str, ...], Facts] = {}
    for record in records(lines):
        if isinstance(record, Reject):
            yield record
            continue
        for observation, trace in _observations(record):
            try:
                usage = _usage(observation, trace, facts)
            except (Rejected, *UNREADABLE) as error:
                yield Reject(record.number, record.place + reason(error))
            else:
                if usage:
                    yield usage


def _observations(record: Record) -> Iterator[tuple[Fields, Fields]]:
    """An observation by itself, which may name its trace's user and tags; or those in a trace."""
    fields = record.fields
    if "observations" not in fields:
        yield fields, fields
        return
    for inner in decoded(_nested, bytes(fields["observations"])):
        if isinstance(inner, dict):  # a list of traces has their ids only
            yield inner, fields


# --- a call --------------------------------------------------------------------------------------------------------


_SYSTEMS = ("ls_provider", "gen_ai.system", "gen_ai.provider.name", "custom_llm_provider")
_OWN_ID = re.compile(r"time-\d\d-\d\d-\d\d-\d{6}_(.+)")  # LiteLLM puts the time in front of its own id
_OF_A_MESSAGE = re.compile(r"msg_\w+")


def _usage(row: Fields, trace: Fields, known: dict[tuple[str, ...], Facts]) -> Usage | None:
    """None if it is no call, or none of Claude's."""
    model = text(field(row, "model", "providedModelName", "provided_model_name"))
    if field(row, "type") != "GENERATION" or not model:
        return None
    metadata = mapping(field(row, "metadata"))
    seen = _attributes(metadata)
    found = claude(model, next((text(seen[name]) for name in _SYSTEMS if name in seen), ""))
    if found is None:
        return None
    platform, model_id, region = found
    request_id, message_id, gateway_id = _ids(row, seen)
    if message_id.startswith("msg_vrtx_"):
        return None
    at_us = moment(field(row, "startTime", "start_time"))
    status = _status(row, seen)
    tokens, assumed = (ZERO, ()) if status else _counts(row)
    said = (
        platform or ("bedrock" if message_id.startswith("msg_bdrk_") else ""),
        model_id,
        region or _region(text(seen.get("aws_region_name") or seen.get("cloud.region"))),
        text(field(row, "userId", "user_id") or field(trace, "userId", "user_id")),
        text(field(row, "sessionId", "session_id") or field(trace, "sessionId", "session_id")),
        status,
        ",".join(assumed),
    )
    facts = known.get(said) or known.setdefault(said, _facts(said))
    took_ms = latency_ms(at_us, field(row, "endTime", "end_time"))
    tagged = _tags(row, trace, metadata)
    return Usage(at_us, request_id, message_id, ((facts, tokens),), tagged, took_ms, False, gateway_id)


def _facts(said: tuple[str, ...]) -> Facts:
    platform, model_id, region, user, session, status, assumed = said
    return Facts(
        source="langfuse",
        platform=platform,
        model_id=model_id,
        region=region,
        principal=user,
        session=session,
        status=status,
        assumed=assumed,
    )


def _attributes(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metadata with what instrumentations nest in it."""
    hidden = mapping(metadata.get("hidden_params"))
    nested = [mapping(metadata.get(name)) for name in ("attributes", "resourceAttributes")]
    return dict(
        chain.from_iterable(
            one.items() for one in (mapping(hidden.get("additional_headers")), *nested, metadata)
        )
    )


def _region(name: str) -> str:
    try:
        return check_region(name)
    except Rejected:
        return ""


def _status(row: Fields, seen: Mapping[str, Any]) -> str:
    """Why nothing was billed; "" where something was."""
    if str(seen.get("cache_hit")).lower() == "true":
        return "litellm_cache_hit"
    failed = field(row, "level") == "ERROR" and not any(mapping(field(row, *_USAGE)).values())
    return "error" if failed else ""


def _ids(row: Fields, seen: Mapping[str, Any]) -> tuple[str, str, str]:
    """The platform's own id of the request, the message's, and the observation's."""
    gateway_id = text(field(row, "id"))
    own = _OWN_ID.fullmatch(gateway_id)
    gateway_id = own[1] if own else gateway_id
    named = (gateway_id, text(seen.get("gen_ai.response.id")), answer(row, "output")[0])
    message_id = next((one for one in named if _OF_A_MESSAGE.fullmatch(one)), "")
    request_id = text(seen.get("aws.request_id")) or text(seen.get("llm_provider-x-amzn-requestid"))
    if gateway_id == message_id:
        gateway_id = ""
    if not (request_id or message_id or gateway_id):
        request_id = digest(msgspec.json.encode(dict(sorted(row.items()))))
    return request_id, message_id, gateway_id


# --- counts --------------------------------------------------------------------------------------------------------


_USAGE = ("usageDetails", "usage_details", "usage")
_INPUT = ("input", "input_tokens", "prompt_tokens", "inputTokens", "promptTokens")
_OUTPUT = ("output", "output_tokens", "completion_tokens", "outputTokens", "completionTokens")
_THOUGHT = ("output_reasoning", "output_reasoning_tokens")
_READ = ("input_cached_tokens", "cache_read_input_tokens", "input_cache_read", "cacheReadInputTokens")
_WRITTEN = (
    "input_cache_creation",
    "cache_creation_input_tokens",
    "input_cache_write",
    "cacheWriteInputTokens",
)
_SHORT = ("input_cache_creation_5m", "ephemeral_5m_input_tokens")
_LONG = ("input_cache_creation_1h", "ephemeral_1h_input_tokens")


def _counts(row: Fields) -> tuple[Tokens, tuple[str, ...]]:
    """The five counts, and what of them is assumed."""
    details = mapping(field(row, "usageDetails", "usage_details"))
    block = details or mapping(field(row, "usage"))

    def most(names: Iterable[str]) -> int:  # several names of one kind are copies
        return max(_count(block.get(name), name) for name in names)

    prompt, output, read, total = most(_INPUT), most(_OUTPUT), most(_READ), most(("total", "totalTokens"))
    if not (prompt or output or read) and not any(name in block for name in _INPUT + _OUTPUT):
        raise Rejected("no token counts")
    short, long = most(_SHORT), most(_LONG)
    written = max(most(_WRITTEN), short + long)
    short, long, untold = split_writes(written, short, long)
    sums = {prompt + read + written + output - part: part for part in (read + written, read, written, 0)}
    if total not in sums and (thought := most(_THOUGHT)):  # Langfuse takes it out of the output
        output += thought
        sums = {sum_ + thought: part for sum_, part in sums.items()}
    assumed = ["ttl"] if untold else []
    if 0 < (overlap := sums.get(total, 0)) <= prompt:
        prompt -= overlap
        assumed.append("input_includes_cache")
    if not (details or read or written):
        assumed.append("cached")
    return (prompt, output, read, short, long), tuple(assumed)


def _count(value: Any, name: str) -> int:
    """A count, also one that a database wrote as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return count(int(value), name)
    return count(value, name)


# --- who asked -----------------------------------------------------------------------------------------------------


_ALIASES = {"user_api_key_alias": "key", "user_api_key_team_alias": "team", "user_api_key_team_id": "team_id"}
_PRIVATE = {
    *("key", "secret", "token", "tokens", "password", "auth", "authorization", "cookie", "header", "headers"),
    *(
        "address",
        "ip",
        "email",
        "hash",
        "prompt",
        "query",
        "question",
        "message",
        "messages",
        "content",
        "text",
    ),
    *("input", "output"),
}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


def _tags(row: Fields, trace: Fields, metadata: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Who and what it was for. Of metadata, short values whose names do not look like secrets or like text."""
    named = {
        "user": field(row, "userId", "user_id") or field(trace, "userId", "user_id"),
        "environment": field(row, "environment"),
        "trace_name": field(row, "traceName", "trace_name")
        or (field(trace, "name") if trace is not row else None),
    }
    words = field(row, "tags", "traceTags", "trace_tags") or field(trace, "tags")
    of_call = ((_ALIASES.get(name, name), value) for name, value in metadata.items() if _kept(name))
    of_trace = mapping(field(trace, "metadata")).items() if trace is not row else ()
    return tags(named.items(), labels(words), of_call, (pair for pair in of_trace if _kept(pair[0])))


def _kept(name: str) -> bool:
    private = any(word.lower() in _PRIVATE for word in _WORD.findall(name))
    return name in _ALIASES or not (private or name in _SYSTEMS or name == "cache_hit")
