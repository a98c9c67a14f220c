"""The way to the upstream: which headers go on and come back, and one HTTP client for all calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import aiohttp
from yarl import URL

from farthing.gateway._credentials import AUTH_HEADERS
from farthing.gateway._reply import Failure
from farthing.gateway._settings import Limits

OURS = "x-farthing-"
_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)  # fmt: skip
_NOT_SENT_ON = _HOP | AUTH_HEADERS | {"host", "expect"}
_NOT_SENT_BACK = frozenset(name.encode() for name in _HOP)
_POOL_S = 15.0  # that a connection waits for its next call: shorter than any server's patience
_READ_BYTES = 64 * 1024
_AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")  # that aiohttp would add

Pairs = list[tuple[str, str]]


def session(limits: Limits) -> aiohttp.ClientSession:
    """Made in the event loop. It unpacks nothing, keeps no cookies, follows nothing and adds no header."""
    connector = aiohttp.TCPConnector(limit=limits.calls, keepalive_timeout=_POOL_S, ttl_dns_cache=30)
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_AUTOMATIC,
        read_bufsize=_READ_BYTES,
        requote_redirect_url=False,
        max_line_size=64 * 1024,
        max_field_size=64 * 1024,
    )


def timeout(limits: Limits, *, stream: bool) -> aiohttp.ClientTimeout:
    silence = limits.stream_silence_s if stream else limits.silence_s
    return aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_s, connect=None, sock_read=silence)


def url(base: str, path: str, query: str) -> URL:
    """As the caller wrote it: nothing is decoded, encoded or normalized."""
    return URL(f"{base}{path}?{query}" if query else base + path, encoded=True)


def texts(raw: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """Header names and values as text that encodes to the same bytes. Failure where there is none."""
    try:
        return [(name.decode("ascii"), value.decode()) for name, value in raw]
    except UnicodeDecodeError:
        raise Failure("invalid", "a header is not UTF-8") from None


def sent_on(headers: Iterable[tuple[str, str]]) -> Pairs:
    """What of a request's headers goes upstream, in order and with the names as sent."""
    kept = [(name, value) for name, value in headers if name.lower() not in _NOT_SENT_ON]
    named = {
        token.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for token in value.split(",")
    }
    return [
        (name, value)
        for name, value in kept
        if not name.lower().startswith(OURS) and name.lower() not in named
    ]


def alike(headers: Pairs) -> Pairs:
    """Headers of one name in the spelling of the first: of several spellings aiohttp would keep the last alone."""
    spelt: dict[str, str] = {}
    return [(spelt.setdefault(name.lower(), name), value) for name, value in headers]


def caller_auth(headers: Iterable[tuple[str, str]]) -> Pairs:
    return [(name, value) for name, value in headers if name.lower() in AUTH_HEADERS]


def sent_back(raw: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What of an answer's headers goes to the caller: all but those of the connection."""
    named: set[bytes] = set()
    for name, value in raw:
        if name.lower() == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
    return [
        (name, value)
        for name, value in raw
        if (lower := name.lower()) not in _NOT_SENT_BACK and lower not in named
    ]


def lowered(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """An answer's headers to be looked up."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """In seconds, if it says so in seconds."""
    said = headers.get("retry-after", "").strip()
    return float(said) if said.isdecimal() and len(said) < 7 else None
