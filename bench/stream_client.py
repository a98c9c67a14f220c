"""Opens COUNT streams at once through URL and reads them to the end. `stream_client.py URL COUNT [ROUNDS]`

Prints how long the first event was on its way (median, in ms) and how many streams came whole.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aiohttp

from farthing.wire import Frames

BODY = json.dumps(
    {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 300,
        "messages": [{"role": "user", "content": "x" * 1900}],
    }
).encode()


async def stream(session: aiohttp.ClientSession, url: str) -> tuple[float, bool]:
    frames, first, seen = Frames(), 0.0, 0
    async with session.post(url, data=BODY, headers={"content-type": "application/json"}) as answer:
        async for chunk in answer.content.iter_any():
            now = time.monotonic()
            for frame in frames.feed(chunk):
                if not seen:
                    first = now - json.loads(frame.payload)["sent"]
                seen += 1
    return first, seen > 1 and not frames.partial


async def main(url: str, count: int, rounds: int) -> None:
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        await stream(session, url)
        taken = []
        for _ in range(rounds):
            taken += await asyncio.gather(*(stream(session, url) for _ in range(count)))
    print(
        json.dumps({"first_ms": median(first for first, _ in taken) * 1e3, "whole": sum(w for _, w in taken)})
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1))
