"""uvicorn's HTTP protocol with what a gateway needs beside it: limits of headers in size and time, and names as sent.

uvicorn bounds neither: a client that sends a byte of a header a minute holds its connection for ever.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MOST_HEADER_BYTES = 64 * 1024
RAW, PROTOCOL = "farthing.headers", "farthing.protocol"  # in the scope


class Guarded(HttpToolsProtocol):
    """Per connection. The limit of time is of one request's head, from its first byte (or the connection's start)."""

    head_s = 20.0
    _timer: asyncio.TimerHandle | None = None
    _raw: list[tuple[bytes, bytes]]
    _size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        if self._timer is None and (cycle is None or cycle.response_complete):
            self._start_timer()
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._raw, self._size = [], 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        self._raw.append((name, value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope[RAW], scope[PROTOCOL] = self._raw, self
        super().on_headers_complete()

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > MOST_HEADER_BYTES:
            raise ValueError("the head of the request is too large")

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.head_s, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        self.transport.close()


def unframed(scope: Mapping[str, Any]) -> Callable[[], None]:
    """A client of HTTP/1.0 knows no chunks: its stream ends with the connection. Call it before the last piece."""
    cycle = scope[PROTOCOL].cycle
    if scope["http_version"] != "1.0" or cycle.scope is not scope:
        return lambda: None
    cycle.chunked_encoding, cycle.keep_alive, cycle.expected_content_length = False, False, sys.maxsize

    def ends() -> None:
        cycle.expected_content_length = 0

    return ends


class _Corked:
    """A transport that writes once what is written while it stands in another's place."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport, self.held = transport, list[bytes]()

    def write(self, data: bytes) -> None:
        self.held.append(data)

    def flush(self) -> None:
        held, self.held = b"".join(self.held), []
        if held:
            self.transport.write(held)

    def close(self) -> None:
        self.flush()
        self.transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


@contextmanager
def corked(send: Callable[..., Any]) -> Iterator[None]:
    """What is sent in the block, an answer's head and body, leaves in one piece: a call to the kernel less."""
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle):
        yield
        return
    cork = _Corked(cycle.transport)
    cycle.transport = cork  # type: ignore[assignment]
    try:
        yield
    finally:
        cycle.transport = cork.transport
        cork.flush()
