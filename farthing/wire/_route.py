"""Which operation a path asks for: Bedrock Runtime, mantle, Anthropic's API, and Bedrock's control of batch jobs."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

BEDROCK, ANTHROPIC = "bedrock", "anthropic"
MOST_ID_CHARACTERS = 2048
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]*")
_RUNTIME = {
    "invoke": "InvokeModel",
    "invoke-with-response-stream": "InvokeModelWithResponseStream",
    "converse": "Converse",
    "converse-stream": "ConverseStream",
    "count-tokens": "CountTokens",
}
_STREAMED = ("InvokeModelWithResponseStream", "ConverseStream")
_MESSAGES = {("POST", ""): "Messages", ("POST", "/count_tokens"): "CountTokens"}
_BATCHES = {
    ("POST", ""): "CreateMessageBatch",
    ("GET", ""): "ListMessageBatches",
    ("GET", "/ID"): "GetMessageBatch",
    ("GET", "/ID/results"): "GetMessageBatchResults",
    ("POST", "/ID/cancel"): "CancelMessageBatch",
    ("DELETE", "/ID"): "DeleteMessageBatch",
}
_CONTROL = (
    ("POST", re.compile(r"/model-invocation-job/?"), "CreateModelInvocationJob"),
    ("GET", re.compile(r"/model-invocation-jobs/?"), "ListModelInvocationJobs"),
    ("POST", re.compile(r"/model-invocation-job/(.+)/stop"), "StopModelInvocationJob"),
    ("GET", re.compile(r"/model-invocation-job/(.+)"), "GetModelInvocationJob"),
    ("GET", re.compile(r"/inference-profiles/?"), "ListInferenceProfiles"),
    ("GET", re.compile(r"/inference-profiles/(.+)"), "GetInferenceProfile"),
    ("GET", re.compile(r"/foundation-models/?"), "ListFoundationModels"),
    ("GET", re.compile(r"/foundation-models/(.+)"), "GetFoundationModel"),
    (
        "GET",
        re.compile(r"/list-foundation-model-agreement-offers/(.+)"),
        "ListFoundationModelAgreementOffers",
    ),
)
BILLED = frozenset({*_RUNTIME.values(), "Messages"} - {"CountTokens"})


class Route(NamedTuple):
    """An operation. `model` is of Bedrock's paths, decoded; Messages name theirs in the body.

    `dialect` is how the caller is spoken to: bedrock (event stream, `x-amzn-errortype`), anthropic (SSE, `error`).
    `streamed` is of Bedrock's operations; Messages say it in the body. `mantle`: under Bedrock's `/anthropic`.
    """

    operation: str
    dialect: str
    model: str = ""
    streamed: bool = False
    mantle: bool = False

    @property
    def billed(self) -> bool:
        return self.operation in BILLED


def route(method: str, raw_path: str) -> Route | None:
    """What a path as sent (percent-encoded, without its query) asks for; None: nothing known here.

    >>> route("POST", "/model/global.anthropic.claude-sonnet-4-6/converse")
    Route(operation='Converse', dialect='bedrock', model='global.anthropic.claude-sonnet-4-6', streamed=False, \
mantle=False)
    >>> route("POST", "/model/..%2F..%2Fadmin/invoke") is None
    True
    """
    if raw_path.startswith("/model/"):
        model, _, action = raw_path[7:].rpartition("/")
        operation, model = _RUNTIME.get(action, ""), unquote(model)
        if method != "POST" or not operation or not safe_model_id(model):
            return None
        return Route(operation, BEDROCK, model, operation in _STREAMED)
    if raw_path.startswith(("/v1/", "/anthropic/v1/")):
        return _anthropic(method, raw_path)
    path = unquote(raw_path)
    for verb, pattern, operation in _CONTROL:
        if verb == method and (found := pattern.fullmatch(path)):
            named = found[1] if pattern.groups else ""
            return Route(operation, BEDROCK, named) if not named or safe_model_id(named) else None
    return None


def safe_model_id(text: str) -> bool:
    """Whether it can be the id or ARN of a model or a job: no control characters, no way up a path."""
    return (
        len(text) <= MOST_ID_CHARACTERS
        and bool(_MODEL.fullmatch(text))
        and ".." not in text
        and "//" not in text
    )


def _anthropic(method: str, raw_path: str) -> Route | None:
    mantle = raw_path.startswith("/anthropic/")
    path = raw_path.removeprefix("/anthropic").removeprefix("/v1")
    if path.startswith("/messages/batches"):
        parts = path.removeprefix("/messages/batches").split("/")
        if len(parts) > 1 and not safe_model_id(parts[1]):
            return None
        operation = _BATCHES.get(
            (method, "/".join((parts[0], "ID", *parts[2:])) if len(parts) > 1 else parts[0])
        )
    elif path.startswith("/messages"):
        operation = _MESSAGES.get((method, path.removeprefix("/messages").rstrip("/")))
    elif method == "GET" and path.rstrip("/") == "/models":
        operation = "ListModels"
    elif method == "GET" and path.startswith("/models/") and safe_model_id(unquote(path[8:])):
        operation = "GetModel"
    else:
        operation = None
    return Route(operation, ANTHROPIC, mantle=mantle) if operation else None
