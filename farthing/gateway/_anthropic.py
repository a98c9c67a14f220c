"""The middleware of the anthropic SDK: runs once for each attempt, of sync and async clients, of every platform.

The request that it sees is the client's: on Bedrock the client makes of it a call of InvokeModel after us, and signs.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import quote

import anthropic
import httpx2
import msgspec
from anthropic import APIConnectionError

from farthing.gateway._tapped import Watch
from farthing.usage import parse_model_id

METADATA_HEADER = "X-Amzn-Bedrock-Request-Metadata"
_SCOPE = re.compile(r"Credential=[^/,]+/\d{8}/([a-z0-9-]+)/bedrock")  # whom AWS is told to ask: a region
_encode = msgspec.json.Encoder(
    enc_hook=lambda each: each.to_dict()
).encode  # answers that go back as messages


class FarthingMiddleware(anthropic.Middleware):
    """`hook` is a farthing.gateway.hooks.Hook, which guards itself: nothing of ours raises but a budget's denial."""

    def __init__(self, hook: Any) -> None:
        self.hook = hook

    def handle(self, request: Any, call_next: Any) -> Any:
        attempt, request = self._begun(request)
        if attempt is None:
            return call_next(request)
        try:
            response = call_next(request)
        except BaseException as error:
            attempt.failed(sent=_sent(error))
            raise
        self.hook.guarded(self._answered, attempt, response, attempt.end)
        return response

    async def handle_async(self, request: Any, call_next: Any) -> Any:
        attempt, request = await self.hook.run(self._begun, request) or (None, request)
        if attempt is None:
            return await call_next(request)
        try:
            response = await call_next(request)
        except BaseException as error:
            attempt.failed(sent=_sent(error))
            raise
        self.hook.guarded(self._answered, attempt, response, attempt.left)
        return response

    def _begun(self, request: Any) -> tuple[Any, Any]:
        """The attempt, None where it is not metered, and the request to send."""
        return self.hook.guarded(self._begin, request) or (None, request)

    def _begin(self, request: Any) -> tuple[Any, Any] | None:
        path, body = request.url.partition("?")[0], request.json
        if request.method.upper() != "POST" or path != "/v1/messages" or not isinstance(body, dict):
            return None
        model = str(body.get("model") or "")
        platform = self.hook.who.platform or ("bedrock" if is_of_bedrock(model) else "anthropic")
        if is_of_bedrock(model):  # the client will make this of it, unless it is mantle's
            action = "invoke-with-response-stream" if body.get("stream") else "invoke"
            path = f"/model/{quote(model, safe='')}/{action}"
        headers = {
            name.lower(): value for name, value in (request.headers or {}).items() if isinstance(value, str)
        }
        attempt = self.hook.begin(path, _encode(body), headers, platform=platform)
        return (attempt, self._dressed(request, attempt)) if attempt else None

    def _dressed(self, request: Any, attempt: Any) -> Any:
        new: dict[str, Any] = {}
        if attempt.changed or attempt.model:
            body = msgspec.json.decode(attempt.body) if attempt.changed else dict(request.json)
            new["body"] = body | ({"model": attempt.model} if attempt.model else {})
        if attempt.metadata:
            new["headers"] = {**(request.headers or {}), METADATA_HEADER: attempt.metadata}
        return request.copy(**new) if new else request

    def _answered(self, attempt: Any, response: Any, end: Callable[[], None]) -> None:
        http = response.http_response
        headers = http.headers
        if http.is_closed and "content-encoding" in headers:
            headers = headers.copy()
            del headers["content-encoding"]  # it has been unpacked
        signed = _SCOPE.search(http.request.headers.get("authorization", ""))
        attempt.answered(http.status_code, headers, str(http.request.url), signed[1] if signed else "")
        if http.is_closed:
            attempt.feed(http.content)
            end()
        elif isinstance(http.stream, httpx2.AsyncByteStream):
            http.stream = AsyncStream(http.stream, attempt)
        else:
            http.stream = SyncStream(http.stream, attempt)


def is_of_bedrock(model: str) -> bool:
    """By its id: an ARN, or of AWS's form."""
    parsed = parse_model_id(model)
    return not parsed.base or parsed.base.startswith("anthropic.")


def _sent(error: BaseException) -> bool:
    """Whether the request may have reached the service. A connection that could not be made sent nothing."""
    if isinstance(error, APIConnectionError):
        return not isinstance(
            error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout
        )
    return True


class SyncStream(httpx2.SyncByteStream):
    def __init__(self, body: Any, watch: Watch) -> None:
        self._body, self._watch = body, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def __iter__(self) -> Iterator[bytes]:
        return self._watch.along(self._body)

    def close(self) -> None:
        try:
            self._body.close()
        finally:
            self._watch.left()


class AsyncStream(httpx2.AsyncByteStream):
    def __init__(self, body: Any, watch: Watch) -> None:
        self._body, self._watch = body, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        watch, skips = self._watch, self._watch.skips
        try:
            async for chunk in self._body:
                if not skips(chunk):
                    watch.feed(chunk)
                yield chunk
        except Exception:
            watch.left()
            raise
        watch.left()

    async def aclose(self) -> None:
        try:
            await self._body.aclose()
        finally:
            self._watch.left()
