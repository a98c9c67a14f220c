"""A callback for LiteLLM, for teams that run its proxy already: its calls of Claude in the outbox and the budgets.

LiteLLM shows a callback what it is about to send and the usage it was told, so both are metered as it tells them. A
denial stops calls of its proxy, its router and its async API; what its sync API sends, callbacks can only watch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec
from litellm.integrations.custom_logger import CustomLogger

from farthing.usage import parse_model_id
from farthing.wire import Answer

MOST_OPEN = 10_000  # calls that LiteLLM never told the end of, before the oldest is let go
_VENDORS = ("bedrock", "anthropic")
_BARE = ("bedrock/", "anthropic/", "converse/", "invoke/", "converse_like/")
_encode = msgspec.json.Encoder(enc_hook=str).encode


class FarthingLogger(CustomLogger):  # type: ignore[misc]
    """`hook` is a farthing.gateway.hooks.Hook. Nothing of ours raises but a budget's denial."""

    def __init__(self, hook: Any) -> None:
        super().__init__()
        self.hook = hook
        self._open: OrderedDict[str, Any] = OrderedDict()  # attempts, by LiteLLM's id of the call

    # --- before

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
        """Of async calls, once LiteLLM knows the model: a denial is raised here."""
        attempt = await self.hook.run(self._begin, str(kwargs.get("model")), kwargs)
        self._keep(str(kwargs.get("litellm_call_id") or ""), attempt)

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: dict[str, Any]) -> None:
        """Just before it is sent; whoever is denied here is sent all the same, and counted."""
        call_id = str(kwargs.get("litellm_call_id") or "")
        if call_id in self._open:
            return
        sent = kwargs.get("optional_params") or {}
        asked = {"messages": messages, **sent}
        begin = partial(self.hook.guarded, self._begin, str(model), asked)
        try:
            attempt = begin()
        except self.hook.denial:  # LiteLLM sends it whatever we raise here
            attempt = begin(held=False)
        self._keep(call_id, attempt)

    def _begin(self, model: str, asked: Mapping[str, Any], *, held: bool = True) -> Any:
        """As a request of InvokeModel: LiteLLM's own differs in form, and little in length."""
        for prefix in _BARE:
            model = model.removeprefix(prefix)
        parsed = parse_model_id(model)
        if "claude" not in model and not model.startswith("arn:"):
            return None
        most = asked.get("max_tokens") or asked.get("maxTokens") or asked.get("max_completion_tokens")
        body = {"messages": asked.get("messages"), "tools": asked.get("tools")}
        body |= {"max_tokens": most} if isinstance(most, int) else {}
        action = "invoke-with-response-stream" if asked.get("stream") else "invoke"
        bedrock = not parsed.base or parsed.base.startswith("anthropic.")
        path = f"/model/{quote(model, safe='')}/{action}"
        region = str(asked.get("aws_region_name") or "")
        return self.hook.begin(
            path, _encode(body), {}, region, "bedrock" if bedrock else "anthropic", held=held, rewrites=False
        )

    def _keep(self, call_id: str, attempt: Any) -> None:
        if attempt is None or not call_id:
            return
        self._open[call_id] = attempt
        while len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)[1].left()

    # --- after

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.hook.guarded(self._succeeded, kwargs, response_obj)

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self.hook.guarded(self._succeeded, kwargs, response_obj)

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.hook.guarded(self._failed, kwargs)

    async def async_log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self.hook.guarded(self._failed, kwargs)

    def _succeeded(self, kwargs: Mapping[str, Any], response: Any) -> None:
        attempt = self._open.pop(str(kwargs.get("litellm_call_id") or ""), None)
        if attempt is None:
            return
        if kwargs.get("cache_hit"):  # LiteLLM's own cache answered: nothing was sent
            attempt.failed(sent=False)
            return
        usage = response.get("usage") if hasattr(response, "get") else None
        dump = getattr(usage, "model_dump", None)
        told = dump(exclude_none=True) if dump else usage
        headers = _headers(response)
        attempt.said(
            Answer(
                200, _counted(told), "", str(getattr(response, "id", "") or ""),
                headers.get("x-amzn-requestid") or headers.get("request-id") or "", bool(told),
            )
        )  # fmt: skip

    def _failed(self, kwargs: Mapping[str, Any]) -> None:
        attempt = self._open.pop(str(kwargs.get("litellm_call_id") or ""), None)
        if attempt is None:
            return
        error = kwargs.get("exception")
        status = getattr(error, "status_code", None)
        attempt.said(Answer(status if isinstance(status, int) else 0, error=type(error).__name__))


def _counted(usage: Any) -> dict[str, Any] | None:
    """The five meters: LiteLLM's prompt_tokens has cached ones in it, and details their lifetimes."""
    if not isinstance(usage, Mapping):
        return None
    read = int(usage.get("cache_read_input_tokens") or 0)
    written = int(usage.get("cache_creation_input_tokens") or 0)
    details = usage.get("prompt_tokens_details") or {}
    lives = details.get("cache_creation_token_details") or {} if isinstance(details, Mapping) else {}
    made: dict[str, Any] = {
        "input_tokens": max(0, int(usage.get("prompt_tokens") or 0) - read - written),
        "output_tokens": int(usage.get("completion_tokens") or 0),
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
    }
    if isinstance(lives, Mapping) and lives:
        made["cache_creation"] = {name: int(lives.get(name) or 0) for name in _LIVES}
    return made


_LIVES = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")


def _headers(response: Any) -> Mapping[str, str]:
    hidden = getattr(response, "_hidden_params", None) or {}
    told = hidden.get("additional_headers") or {}
    return {
        str(name).lower().removeprefix("llm_provider-"): str(value)
        for name, value in told.items()
        if isinstance(told, Mapping)
    }
