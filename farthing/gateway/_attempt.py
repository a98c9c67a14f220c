"""One request on its way to the service, as hooks see it, and its answer as it is read."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import msgspec

from farthing.gateway._skim import Reader, skimmed
from farthing.gateway.live import Call
from farthing.wire import Answer, Answers, Route, route

ACTIONS = {
    "InvokeModel": "invoke",
    "InvokeModelWithResponseStream": "invoke-with-response-stream",
    "Converse": "converse",
    "ConverseStream": "converse-stream",
}
_REGION = re.compile(r"(?:bedrock-runtime|bedrock-mantle)(?:-fips)?\.([a-z]{2}[a-z-]*-\d)\.")


@lru_cache(maxsize=512)  # few models are called again and again
def route_of(path: str) -> Route | None:
    return route("POST", path)


class Attempt:
    """One request on its way, and its answer as it is read. Its methods never raise.

    `path`, `body` and `metadata` (the header of InvokeModel) are what to send; `model` is "" unless it is another.
    """

    settled = False

    def __init__(self, hook: Any, call: Call, asked: Route, body: bytes, model: str) -> None:
        self.hook = hook
        self.call = call
        self.route = asked
        self.body = body
        self.changed = False
        self.model = model
        self.metadata = ""
        self._answers: Answers | None = None
        self._said: Answer | None = None
        self._started = time.monotonic()
        self._first_ms: int | None = None
        self.sent = True
        self._reader = self._seen = _UNREAD
        self._once = iter((True,))  # next() on it is one step: of threads that settle, one does
        self.process = hook.process

    @property
    def path(self) -> str:
        return f"/model/{quote(self.route.model, safe='')}/{ACTIONS[self.route.operation]}"

    def answered(self, status: int, headers: Mapping[str, str], url: str = "", region: str = "") -> None:
        """Its answer begins. The headers do not mind how their names are written."""
        try:
            if url:
                self._place(url, region)
            self._answers = Answers(self.route, status, headers)
            self._reader = skimmed(self.call.intent.operation, self._answers)
            if not self.call.holds:  # else each chunk is a sign of life
                self._seen = self._reader
        except Exception as fault:  # noqa: BLE001 - the caller's call goes on
            self.hook.fault(fault)

    def _place(self, url: str, region: str) -> None:
        """The address tells the region, and which API it is, to who did not know."""
        host, _, path = url.partition("://")[2].partition("/")
        found = _REGION.match(host)
        taken = route_of("/" + path.partition("?")[0])
        told: dict[str, str] = {}
        if found or region:
            told = {
                "platform": "bedrock",
                "region": self.call.intent.region or region or (found[1] if found else ""),
            }
        if taken:
            told["operation"] = taken.operation
        self.call.intent = msgspec.structs.replace(self.call.intent, **told)

    @property
    def skips(self) -> Callable[[bytes], bool]:
        """Of a chunk: whether it need not be fed. It is the same from when the answer begins."""
        return self._seen.skips

    def along(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        return self._seen.along(chunks, self)

    def feed(self, chunk: bytes) -> None:
        try:
            if self._first_ms is None:
                self._first_ms = round((time.monotonic() - self._started) * 1000)
            self._reader.feed(chunk)
            if self.call.holds:
                self.hook.live.renew(self.call)
        except Exception as fault:  # noqa: BLE001
            self.hook.fault(fault)

    def said(self, answer: Answer) -> None:
        """It is over, and this is what it came to."""
        self._said = answer
        self.end()

    def failed(self, *, sent: bool) -> None:
        """No answer came; `sent`: the request may have arrived all the same."""
        self.sent = sent
        self.end()

    def end(self) -> None:
        """It is over: settle. The first time counts."""
        if next(self._once, False):
            self.settled = True
            if self.hook.settle_now:
                self.hook.settle(self)
            else:
                self.hook.later(self)

    def left(self) -> None:
        """The same from where nothing may wait: an event loop, or the garbage collector, which may be anywhere."""
        if next(self._once, False):
            self.settled = True
            self.hook.later(self)

    def __del__(self) -> None:
        if not self.settled:
            try:  # noqa: SIM105 - the interpreter may be going down, and contextlib with it
                self.left()
            except Exception:  # noqa: BLE001, S110
                pass

    def answer(self) -> Answer:
        answers = self._answers
        if self._said is not None or answers is None:
            return self._said or Answer(0)
        if self._first_ms is None and not answers.streamed:
            answers.feed(b"{}")  # nobody read it: the headers tell the counts
        return answers.done()

    @property
    def first_token_ms(self) -> int | None:
        return self._first_ms if self.call.intent.stream else None


_UNREAD = Reader(lambda _: None)  # before it is known what is answered
