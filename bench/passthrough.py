"""A bare pass-through that meters nothing, by which a gateway is measured: raw ASGI on uvicorn, an aiohttp client.

`python bench/passthrough.py PORT UPSTREAM`
"""

from __future__ import annotations

import sys
from typing import Any

import aiohttp
import uvicorn

HOP = {b"connection", b"host", b"content-length", b"transfer-encoding"}


class PassThrough:
    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if self.session is None:
            self.session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = [(k.decode(), v.decode()) for k, v in scope["headers"] if k not in HOP]
        url = self.upstream + scope["raw_path"].decode()
        async with self.session.request(scope["method"], url, data=body, headers=headers) as answer:
            kept = [(k, v) for k, v in answer.raw_headers if k.lower() not in HOP]
            await send({"type": "http.response.start", "status": answer.status, "headers": kept})
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvicorn.run(
        PassThrough(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False,
        lifespan="off",
    )  # fmt: skip
