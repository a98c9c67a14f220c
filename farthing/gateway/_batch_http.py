"""One request over HTTP, its body as it is: signed for Bedrock, with a key for Anthropic.

Through botocore, which finds credentials as everywhere. Nothing is tried again here: each attempt has an intent of its
own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from farthing.gateway._batch_queue import Group
from farthing.gateway._batch_settings import Settings

CONNECT_S, READ_S = 10, 900
VERSION = "2023-06-01"
METADATA_HEADER = "X-Amzn-Bedrock-Request-Metadata"
_ACTIONS = {"InvokeModel": "invoke", "Converse": "converse"}


class Said(NamedTuple):
    """An answer. `status` 0: none came; then `sent` tells whether the request may have arrived."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent: bool = True
    fault: str = ""


class Http:
    """Safe for threads."""

    def __init__(self, settings: Settings, connections: int = 10) -> None:
        from botocore.httpsession import URLLib3Session
        from botocore.session import Session

        self._settings = settings
        self._session = Session(profile=settings.profile or None)
        self.region = settings.region or self._session.get_config_variable("region") or "us-east-1"
        self._http = URLLib3Session(timeout=(CONNECT_S, READ_S), max_pool_connections=connections)

    def send(self, group: Group, body: bytes, metadata: Mapping[str, str] = {}) -> Said:
        """A request by itself. The invocation log keeps its metadata, where a header takes it."""
        if group.platform == "anthropic":
            return self.anthropic("POST", "/v1/messages", body)
        said = self._settings.runtime or self._settings.bedrock
        base = said.rstrip("/") or f"https://bedrock-runtime.{self.region}.amazonaws.com"
        url = f"{base}/model/{quote(group.model, safe='')}/{_ACTIONS[group.kind]}"
        headers = {"content-type": "application/json"}
        if metadata and group.kind == "InvokeModel":
            headers[METADATA_HEADER] = msgspec.json.encode(metadata).decode()
        return self._request("POST", url, body, headers, signed=True)

    def anthropic(self, method: str, path: str, body: bytes = b"") -> Said:
        headers = {"anthropic-version": VERSION, "x-api-key": os.environ.get("ANTHROPIC_API_KEY", "")}
        if body:
            headers["content-type"] = "application/json"
        return self._request(method, self._settings.anthropic.rstrip("/") + path, body, headers)

    def _request(
        self, method: str, url: str, body: bytes, headers: dict[str, str], *, signed: bool = False
    ) -> Said:
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError, ConnectTimeoutError, EndpointConnectionError

        request = AWSRequest(method, url, headers, body)
        try:
            if signed:
                self._sign(request)
            answer = self._http.send(request.prepare())
            told = {name.lower(): value for name, value in answer.headers.items()}
            return Said(answer.status_code, told, answer.content)
        except (EndpointConnectionError, ConnectTimeoutError) as error:
            return Said(0, {}, b"", sent=False, fault=_line(error))
        except BotoCoreError as error:  # no credentials are found before anything is sent
            sent = "Credentials" not in type(error).__name__
            return Said(0, {}, b"", sent=sent, fault=_line(error))

    def _sign(self, request: Any) -> None:
        from botocore.auth import SigV4Auth
        from botocore.exceptions import NoCredentialsError

        token = os.environ.get("AWS_BEARER_TOKEN_BEDROCK")
        if token:
            request.headers["authorization"] = f"Bearer {token}"
            return
        credentials = self._session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        SigV4Auth(credentials.get_frozen_credentials(), "bedrock", self.region).add_auth(request)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
