"""Calls that may wait, handed to the gateway: `x-farthing-deadline` puts one into the queue of batches.

The answer is 202 with the place where its own will be; or, with `Prefer: wait=SECONDS`, its own if it comes by then.
`farthing batch run` works on the queue.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from farthing.book import Book
from farthing.gateway._batch_accept import KINDS, Usual, checked, due_us
from farthing.gateway._batch_queue import DONE, FAILED, End, Group, Queue
from farthing.gateway._reply import Failure, Send, answer
from farthing.money import usd
from farthing.usage import Rejected
from farthing.wire import Route

HEADER = "x-farthing-deadline"
PATH = "/v1/farthing/batch/"
_WHO = ("key", "team", "project", "run", "session", "tags")  # of the caller, kept with its request
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,5})\b")
_MOST_WAIT_S, _LOOK_S = 3600, 0.5
_OURS = "fb-"  # how the ids of these begin: what others put into the queue is not told here
_JSON = (b"content-type", b"application/json")
Whole = tuple[int, list[tuple[bytes, bytes]], bytes]


class Deferred:
    """The queue behind a gateway. What touches the disk does so in a thread."""

    def __init__(self, folder: Path, book: Book, region: str = "") -> None:
        self._folder, self._book, self._region = folder, book, region
        self._queue: Queue | None = None

    @property
    def queue(self) -> Queue:
        self._queue = self._queue or Queue(self._folder)
        return self._queue

    async def serve(self, send: Send, method: str, path: str, key: str) -> None:
        """GET tells the answer, DELETE forgets it."""
        ask = self.forget if method == "DELETE" else self.result
        await answer(send, *await ask(path.removeprefix(PATH), key))

    async def take(
        self,
        send: Send,
        who: Mapping[str, Any],
        route: Route,
        model: str,
        body: bytes,
        said: Mapping[str, str],
    ) -> None:
        """Accept a call, and say so."""
        kept = {name: who[name] for name in _WHO}
        await answer(send, *await self.accept(kept, route, model, body, said))

    async def accept(
        self, who: Mapping[str, Any], route: Route, model: str, body: bytes, said: Mapping[str, str]
    ) -> Whole:
        """Durable when it answers. Failure if the request cannot wait. With `idempotency-key`, twice is once."""
        platform = "anthropic" if route.dialect == "anthropic" else "bedrock"
        if route.operation not in KINDS or route.mantle:
            raise Failure("invalid", f"{HEADER}: {route.operation} cannot wait; send {', '.join(KINDS)}")
        once = said.get("idempotency-key", "")
        text = f"{who.get('key', '')}\0{once}"
        name = f"{_OURS}{sha256(text.encode()).hexdigest()[:32] if once else secrets.token_hex(16)}"
        try:
            due_us(said[HEADER], 0)
            clashes = await asyncio.to_thread(
                self._accept, name, Group(platform, model, route.operation), body, said[HEADER], who
            )
        except Rejected as error:
            raise Failure("invalid", f"{HEADER}: {error}") from None
        if clashes:
            raise Failure("invalid", "another request has this idempotency-key already")
        wait_s = min(_MOST_WAIT_S, int(found[1])) if (found := _WAIT.search(said.get("prefer", ""))) else 0
        return await self._wait(name, str(who.get("key", "")), wait_s)

    def _accept(
        self, name: str, group: Group, body: bytes, deadline: str, who: Mapping[str, Any]
    ) -> list[str]:
        usual = Usual(self.queue.now_us(), deadline, region=self._region)
        new = checked(name, group, body, usual, self._book, msgspec.json.encode(who))
        return self.queue.accept([new])[2]

    async def _wait(self, name: str, key: str, wait_s: int) -> Whole:
        looks = int(wait_s / _LOOK_S)
        while True:
            found = await self.result(name, key)
            if found[0] != 202 or looks <= 0:
                return found
            looks -= 1
            await asyncio.sleep(_LOOK_S)

    async def result(self, name: str, key: str) -> Whole:
        """The answer as the API gives it, once it is there; 202 until then. Only to the key that asked."""
        found = await asyncio.to_thread(self.queue.end, name) if name.startswith(_OURS) else None
        if found is None or msgspec.json.decode(found[1]).get("key", "") != key:
            raise Failure("not_found", f"no request {name[:60]!r} waits here, or has: it may be collected")
        state, _, end = found
        if state == FAILED:
            kind = "invalid" if end.error.startswith("4") else "upstream"
            raise Failure(kind, end.error)
        if state != DONE:
            place = f"{PATH}{name}"
            left = max(0, (end.deadline_us - self.queue.now_us()) // 1_000_000)
            told = {"id": name, "status": state, "result": place, "due_in_s": left}
            headers = [_JSON, (b"location", place.encode()), (b"retry-after", b"60")]
            return 202, headers, msgspec.json.encode(told)
        return 200, [_JSON, *_told(end)], end.output

    async def forget(self, name: str, key: str) -> Whole:
        """What was fetched need not be kept."""
        await self.result(name, key)
        await asyncio.to_thread(self.queue.forget, [name])
        return 204, [], b""


def _told(end: End) -> list[tuple[bytes, bytes]]:
    cost = [(b"x-farthing-cost-usd", usd(end.picos).encode())] if end.picos is not None else []
    return [*cost, (b"x-farthing-mode", end.mode.encode())]
