"""The way to the upstream: which headers go on and come back, and one HTTP client for all calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import aiohttp
from yarl import URL

from farthing.gateway._credentials import AUTH_HEADERS
from farthing.gateway._guard import RAW
from farthing.gateway._reply import Failure, Scope
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
_MOST_HEADERS = 2_000  # of an answer: what a client takes is for the client to say
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
        max_headers=_MOST_HEADERS,
    )


def timeouts(limits: Limits) -> tuple[aiohttp.ClientTimeout, aiohttp.ClientTimeout]:
    """Of an answer in one piece, and of a stream."""
    return tuple(  # type: ignore[return-value]
        aiohttp.ClientTimeout(total=None, connect=None, sock_connect=limits.connect_s, sock_read=silence)
        for silence in (limits.silence_s, limits.stream_silence_s)
    )


def url(base: str, path: str, query: str) -> URL:
    """As the caller wrote it: nothing is decoded, encoded or normalized."""
    return URL(f"{base}{path}?{query}" if query else base + path, encoded=True)


def arrived(scope: Scope) -> tuple[Pairs, dict[str, str]]:
    """A request's headers with their names as sent, and by their names in small letters.

    As text that encodes to the same bytes: Failure where there is none.
    """
    headers, said = [], {}
    try:
        for (name, value), (lower, _) in zip(
            scope.get(RAW) or scope["headers"], scope["headers"], strict=True
        ):
            text = value.decode()
            headers.append((name.decode("ascii"), text))
            said[lower.decode("ascii")] = text
    except UnicodeDecodeError:
        raise Failure("invalid", "a header is not UTF-8") from None
    return headers, said


def sent_on(headers: Iterable[tuple[str, str]], connection: str) -> Pairs:
    """What of a request's headers goes upstream, in order and with the names as sent.

    Of one name in two spellings the first: aiohttp would keep the last of them alone.
    """
    named = {token.strip().lower() for token in connection.split(",")}
    spelt: dict[str, str] = {}
    kept = []
    for name, value in headers:
        lower = name.lower()
        if lower not in _NOT_SENT_ON and lower not in named and not lower.startswith(OURS):
            kept.append((spelt.setdefault(lower, name), value))
    return kept


def caller_auth(headers: Iterable[tuple[str, str]]) -> Pairs:
    return [(name, value) for name, value in headers if name.lower() in AUTH_HEADERS]


def come_back(raw: Sequence[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], dict[str, str]]:
    """Of an answer's headers those that go to the caller, all but the connection's; and all, to be looked up."""
    told: dict[str, str] = {}
    headers = []
    for pair in raw:
        lower = pair[0].lower()
        told[lower.decode("latin-1")] = pair[1].decode("latin-1")
        if lower not in _NOT_SENT_BACK:
            headers.append(pair)
    if "," in (named := told.get("connection", "")) or named.lower() not in ("", "close", "keep-alive"):
        tokens = {token.strip().lower().encode("latin-1") for token in named.split(",")}
        headers = [pair for pair in headers if pair[0].lower() not in tokens]
    return headers, told


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """In seconds, if it says so in seconds."""
    said = headers.get("retry-after", "").strip()
    return float(said) if said.isdecimal() and len(said) < 7 else None
