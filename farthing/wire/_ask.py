"""What a request's body wants: only what metering, budgets and policies ask. No text of it is kept."""

# ruff: noqa: N815 - fields are named as in the JSON

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from farthing.usage import Rejected
from farthing.wire._route import Route

METADATA_HEADER = "x-amzn-bedrock-request-metadata"
MOST_OUTPUT = 10_000_000  # tokens: what asks for more is no request
MOST_NAME = 256


class Asked(NamedTuple):
    """`max_tokens` is None where the model's own limit holds; `marked` tells that the client has cache points."""

    model: str
    stream: bool
    max_tokens: int | None = None
    metadata: Mapping[str, str] = {}  # requestMetadata, which the invocation log keeps
    user: str = ""  # metadata.user_id of Anthropic's API
    service_tier: str = ""
    latency: str = ""  # performanceConfig
    inference_geo: str = ""
    speed: str = ""
    marked: bool = False


class _Metadata(msgspec.Struct, gc=False):
    user_id: str | None = None


class _Messages(msgspec.Struct, gc=False):
    """InvokeModel, and Messages."""

    model: str | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    metadata: _Metadata | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    speed: str | None = None
    anthropic_version: str | None = None


class _Inference(msgspec.Struct, gc=False):
    maxTokens: int | None = None


class _Performance(msgspec.Struct, gc=False):
    latency: str | None = None


class _Tier(msgspec.Struct, gc=False):
    type: str | None = None


class _Converse(msgspec.Struct, gc=False):
    inferenceConfig: _Inference | None = None
    performanceConfig: _Performance | None = None
    serviceTier: _Tier | None = None
    requestMetadata: dict[str, str] | None = None


_messages: msgspec.json.Decoder[_Messages] = msgspec.json.Decoder(_Messages)
_converse: msgspec.json.Decoder[_Converse] = msgspec.json.Decoder(_Converse)
_texts: msgspec.json.Decoder[dict[str, str]] = msgspec.json.Decoder(dict[str, str])


def ask(route: Route, body: bytes, headers: Mapping[str, str] = {}) -> Asked:
    """A billed operation's request. Rejected, with what is wrong, if it is none. Header names are in small letters."""
    try:
        if route.operation.startswith("Converse"):
            return _of_converse(route, _converse.decode(body), body)
        return _of_messages(route, _messages.decode(body), body, headers)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"the body is no request of {route.operation}: {error}"[:300]) from None


def _of_converse(route: Route, body: _Converse, raw: bytes) -> Asked:
    return Asked(
        route.model,
        route.streamed,
        _limit(body.inferenceConfig.maxTokens if body.inferenceConfig else None),
        body.requestMetadata or {},
        service_tier=_name(body.serviceTier.type if body.serviceTier else None),
        latency=_name(body.performanceConfig.latency if body.performanceConfig else None),
        marked=b'"cachePoint"' in raw,
    )


def _of_messages(route: Route, body: _Messages, raw: bytes, headers: Mapping[str, str]) -> Asked:
    if not route.model and not body.model:
        raise Rejected("the body names no model")
    return Asked(
        route.model or body.model or "",
        route.streamed or bool(body.stream and not route.model),
        _limit(body.max_tokens),
        _told(headers.get(METADATA_HEADER, "")),
        _name(body.metadata.user_id if body.metadata else None),
        _name(body.service_tier or headers.get("x-amzn-bedrock-service-tier")),
        _name(headers.get("x-amzn-bedrock-performanceconfig-latency")),
        _name(body.inference_geo),
        _name(body.speed),
        b'"cache_control"' in raw,
    )


def _told(header: str) -> Mapping[str, str]:
    try:
        return _texts.decode(header) if header else {}
    except msgspec.MsgspecError:
        return {}  # the service says what is wrong with it


def _name(text: Any) -> str:
    return text[:MOST_NAME] if isinstance(text, str) else ""


def _limit(tokens: int | None) -> int | None:
    if tokens is not None and not 0 <= tokens <= MOST_OUTPUT:
        raise Rejected(f"max_tokens of {tokens}")
    return tokens
