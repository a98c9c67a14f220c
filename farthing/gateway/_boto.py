"""Two events of botocore, by which each attempt of a call is seen: before it is signed, and when its answer begins.

Handlers that answer a call themselves (Stubber) come before these: what is not sent is not metered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farthing.gateway._tapped import Tapped

UNIQUE = "farthing"  # under which botocore knows our handlers: instrumented twice is instrumented once
METADATA_HEADER = "X-Amzn-Bedrock-Request-Metadata"


class Boto:
    """The handlers. `hook` is a farthing.gateway.hooks.Hook."""

    def __init__(self, hook: Any) -> None:
        self.hook = hook

    def created(self, request: Any, **_: Any) -> None:
        found = self.hook.guarded(self._asked, request)
        if found:
            url, at, said = found
            region = str(request.context.get("client_region") or "")
            attempt = self.hook.begin(url[at:], request.data, said, region)
            if attempt is not None:
                self.hook.guarded(self._dressed, request, attempt, url[:at], said)

    def _asked(self, request: Any) -> tuple[str, int, dict[str, str]] | None:
        """Its address, where the path begins in it, and those headers that say what is asked for."""
        request.context.pop(UNIQUE, None)  # of the attempt before, which was settled when its answer came
        url = request.url
        at = url.find("/model/", url.find("://") + 3)
        if at < 0 or request.method != "POST":
            return None
        headers = request.headers  # a search in them goes through all of them
        said = {name.lower(): headers[name] for name in headers if name[:7].lower() == "x-amzn-"}
        return url, at, said

    def _dressed(self, request: Any, attempt: Any, base: str, said: Mapping[str, str]) -> None:
        request.context[UNIQUE] = attempt
        if attempt.changed:
            request.data = attempt.body
        if attempt.model:
            request.url = base + attempt.path
        if attempt.metadata:
            if METADATA_HEADER.lower() in said:
                del request.headers[METADATA_HEADER]
            request.headers[METADATA_HEADER] = attempt.metadata

    def received(self, context: Any, **answer: Any) -> None:
        self.hook.guarded(self._received, context, answer)

    def _received(self, context: Any, answer: Mapping[str, Any]) -> None:
        attempt = context.pop(UNIQUE, None)
        if attempt is None:
            return
        response, parsed = answer["response_dict"], answer["parsed_response"]
        if response is None:
            attempt.failed(sent=not _is_unsent(answer["exception"]))
            return
        attempt.answered(response["status_code"], response["headers"])
        body = response["body"]
        if isinstance(body, bytes):
            attempt.feed(body)
            attempt.end()
            return
        stream = parsed.get("stream") or parsed.get("body")
        stream._raw_stream = Tapped(stream._raw_stream, attempt)  # noqa: SLF001 - its class and methods stay


def _is_unsent(error: Any) -> bool:
    """Whether it failed before a byte went out."""
    from botocore.exceptions import (
        ConnectTimeoutError,
        EndpointConnectionError,
        ProxyConnectionError,
        SSLError,
    )

    return isinstance(error, ConnectTimeoutError | EndpointConnectionError | ProxyConnectionError | SSLError)
