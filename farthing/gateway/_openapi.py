"""What the gateway answers itself, as OpenAPI: for clients, and for the fuzzer that holds the answers against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_FLAG = {"type": "boolean"}
_NAME = {"name": "name", "in": "path", "required": True, "schema": _TEXT}
_ERROR = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": _TEXT, "message": _TEXT},
        },
    },
}
_KEY = {
    "type": "object",
    "required": ["name", "shown", "created", "in_force"],
    "properties": {"name": _TEXT, "shown": _TEXT, "created": _TEXT, "in_force": _FLAG},
}
_NEW = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {
            "type": "string",
            "pattern": "^[A-Za-z0-9][A-Za-z0-9_.@-]*$",
            "minLength": 1,
            "maxLength": 100,
        },
        **{name: {"type": "string", "maxLength": 300} for name in ("team", "project")},
        "upstream": {"enum": ["", "bedrock", "anthropic", "claude_aws"]},
        **dict.fromkeys(("teams", "models", "endpoints"), _TEXTS),
        "tags": {"type": "object", "additionalProperties": _TEXT},
        "expires": {"type": ["string", "null"], "format": "date-time"},
        **dict.fromkeys(("pinned", "batches", "admin", "sigv4"), _FLAG),
    },
}
_ROTATION = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"until": {"type": ["string", "null"], "format": "date-time"}},
}


def openapi() -> dict[str, Any]:
    """The document at /openapi.json."""
    listing = {"type": "object", "required": ["data"], "properties": {"data": {"type": "array"}}}
    issued = {**_KEY, "properties": {**_KEY["properties"], "token": _TEXT, "secret": _TEXT}}  # type: ignore[dict-item]
    call = {"type": "object", "required": ["id", "state", "settled", "cost_usd"]}
    status = {"type": "object", "required": ["status"]}
    call_id = {"name": "id", "in": "path", "required": True, "schema": _TEXT}
    return {
        "openapi": "3.1.0",
        "info": {"title": "farthing gateway", "version": "1"},
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
        "paths": {
            "/healthz": {"get": _operation("whether the process lives", {"200": status}, open=True)},
            "/readyz": {
                "get": _operation("whether it can take calls", {"200": status, "503": status}, open=True)
            },
            "/openapi.json": {"get": _operation("this document", {"200": {"type": "object"}}, open=True)},
            "/metrics": {"get": _operation("Prometheus' text", {"200": None})},
            "/v1/calls/{id}": {
                "parameters": [call_id],
                "get": _operation("a call and its cost", {"200": call, "404": _ERROR}),
            },
            "/v1/organizations/spend_limits": {
                "get": _operation("budgets in Anthropic's shape", {"200": listing, "400": _ERROR})
            },
            "/v1/organizations/spend_limits/effective": {
                "get": _operation("the limit that each key comes to first", {"200": listing, "400": _ERROR})
            },
            "/v1/organizations/spend_limits/{id}": {
                "parameters": [call_id],
                "get": _operation("one of them", {"200": {"type": "object"}, "404": _ERROR}),
            },
            "/admin/budgets": {"get": _operation("budgets in their windows", {"200": listing})},
            "/admin/keys": {
                "get": _operation("keys, without secrets", {"200": listing, "400": _ERROR, "404": _ERROR}),
                "post": _operation("a new key", {"201": issued, **_REFUSED}, body=_NEW),
            },
            "/admin/keys/{name}/rotate": {
                "parameters": [_NAME],
                "post": _operation("a fresh secret", {"201": issued, **_REFUSED}, body=_ROTATION),
            },
            "/admin/keys/{name}": {
                "parameters": [_NAME],
                "delete": _operation(
                    "end it at once", {"200": {"type": "object"}, "400": _ERROR, "404": _ERROR}
                ),
            },
        },
    }


_REFUSED = {"400": _ERROR, "404": _ERROR, "409": _ERROR, "413": _ERROR}


def _operation(
    says: str,
    answers: Mapping[str, Any],
    *,
    body: Mapping[str, Any] | None = None,
    open: bool = False,  # noqa: A002
) -> dict[str, Any]:
    told: dict[str, Any] = {"summary": says, "responses": {}}
    if open:
        told["security"] = []
    else:
        answers = {**answers, "401": _ERROR, "403": _ERROR}
    for status, schema in answers.items():
        kind = "text/plain" if schema is None else "application/json"
        content = {kind: {"schema": _TEXT if schema is None else schema}}
        told["responses"][status] = {"description": status, "content": content}
    if body is not None:
        told["requestBody"] = {
            "required": "required" in body,
            "content": {"application/json": {"schema": body}},
        }
    return told
