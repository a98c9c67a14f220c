"""An upstream that streams event-stream frames, the first after DELAY seconds: `... PORT DELAY EVENTS GAP`

Each answer carries, in its first event, when it was sent (CLOCK_MONOTONIC), so that whoever reads it on this machine
knows how long it was on its way.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import uvicorn

from farthing.wire import encode

HEADERS = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
START = {"input_tokens": 400, "output_tokens": 1}


def frame(event: dict[str, Any]) -> bytes:
    packed = base64.b64encode(json.dumps(event).encode()).decode()
    return encode(HEADERS, json.dumps({"bytes": packed, "sent": time.monotonic()}).encode())


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    _, delay, events, gap = (float(text) for text in sys.argv[1:5])
    kind = [(b"content-type", b"application/vnd.amazon.eventstream"), (b"x-amzn-requestid", b"r")]
    await send({"type": "http.response.start", "status": 200, "headers": kind})
    await asyncio.sleep(delay)
    start = {
        "type": "message_start",
        "message": {"id": "msg_1", "model": "claude-sonnet-4-6", "usage": START},
    }
    await send({"type": "http.response.body", "body": frame(start), "more_body": True})
    delta = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "a few words more "},
    }
    for _ in range(int(events)):
        await asyncio.sleep(gap)
        await send({"type": "http.response.body", "body": frame(delta), "more_body": True})
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 300}}
    await send({"type": "http.response.body", "body": frame(end)})


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="error",
        access_log=False,
        lifespan="off",
        backlog=4096,
    )
