"""AWS Signature Version 4: made for what goes to AWS, checked on what comes from clients.

botocore signs a request in a tenth of a millisecond, most of it for keys that hold for a day. Here they are kept; the
tests hold every signature against botocore's.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = timedelta(minutes=5)  # as AWS allows
_STAMP = "%Y%m%dT%H%M%SZ"
_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} +Credential=([^/,]+)/(\d{{8}})/([^/,]+)/([^/,]+)/aws4_request, *"
    r"SignedHeaders=([a-z0-9;_-]+), *Signature=([0-9a-f]{64})"
)

Headers = Sequence[tuple[str, str]]


class Credentials(NamedTuple):
    key_id: str
    secret: str
    token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.key_id!r})"


class Forged(Exception):
    """Why a signature does not count."""


def sign(
    method: str, path: str, query: str, signed: Headers, body: bytes, credentials: Credentials, region: str,
    service: str, at: datetime,
) -> list[tuple[str, str]]:  # fmt: skip
    """The headers to add. `path` as it will be sent, percent-encoded; `signed`: lower-case names, host among them."""
    stamp = _stamp(at.replace(microsecond=0))
    headers = [*signed, ("x-amz-date", stamp)]
    added = [("x-amz-date", stamp)]
    if credentials.token:
        headers.append(("x-amz-security-token", credentials.token))
        added.append(("x-amz-security-token", credentials.token))
    names, text = _canonical(method, path, query, headers, sha256(body).hexdigest())
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    signature = _signature(credentials.secret, stamp, scope, text)
    said = (
        f"{ALGORITHM} Credential={credentials.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return [*added, ("authorization", said)]


def verify(
    method: str, path: str, query: str, headers: Headers, body: bytes, secret_of: Callable[[str], str | None],
    now: datetime,
) -> str:  # fmt: skip
    """The access key id that signed this request; Forged if none did. Names of headers are in small letters."""
    said: dict[str, list[str]] = {}
    for name, value in headers:
        said.setdefault(name, []).append(value)
    found = _AUTHORIZATION.fullmatch(said.get("authorization", [""])[0])
    if found is None:
        raise Forged("no signature of version 4")
    key_id, day, region, service, names, signature = found.groups()
    stamp = said.get("x-amz-date", [""])[0]
    _check_time(stamp, day, now)
    signed = names.split(";")
    missing = {"host", "x-amz-date", *({"x-amz-security-token"} & said.keys())}.difference(signed)
    if missing:
        raise Forged(f"{', '.join(sorted(missing))} is not signed")
    digest = sha256(body).hexdigest()
    if said.get("x-amz-content-sha256", [digest])[0] != digest:
        raise Forged("the body is not the one that was signed, or was not signed")
    secret = secret_of(key_id)
    chosen = [(name, value) for name in signed for value in said.get(name, ())]
    _, text = _canonical(method, path, query, chosen, digest)
    expected = _signature(secret or "none", stamp, f"{day}/{region}/{service}/aws4_request", text)
    if not hmac.compare_digest(expected, signature) or secret is None:
        raise Forged("the signature is not of a key known here")
    return key_id


def _check_time(stamp: str, day: str, now: datetime) -> None:
    try:
        at = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        raise Forged("no x-amz-date") from None
    if abs(at - now) > SKEW or stamp[:8] != day:
        raise Forged(f"signed at {stamp}: too far from this clock")


def _canonical(method: str, path: str, query: str, headers: Headers, digest: str) -> tuple[str, str]:
    """The names signed, and the text: each header once, in order of names, its values joined and trimmed."""
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(" ".join(value.split()))
    lines = [f"{name}:{','.join(values[name])}" for name in sorted(values)]
    names = ";".join(sorted(values))
    if query:
        pairs = sorted(pair.partition("=")[::2] for pair in query.split("&"))
        query = "&".join(f"{key}={value}" for key, value in pairs)
    return names, "\n".join((method, _path(path), query, *lines, "", names, digest))


@lru_cache(maxsize=4096)
def _path(path: str) -> str:
    """Encoded once more, as every service but S3 wants it, without dots and doubled slashes."""
    if "//" in path or "/." in path:
        kept: list[str] = []
        for part in path.split("/"):
            if part == "..":
                kept[-1:] = []
            elif part not in ("", "."):
                kept.append(part)
        path = "/" + "/".join(kept) + ("/" if path.endswith("/") and kept else "")
    return quote(path, safe="/~")


def _signature(secret: str, stamp: str, scope: str, text: str) -> str:
    day, region, service, _ = scope.split("/")
    digest = sha256(text.encode()).hexdigest()
    signed = f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}"
    return hmac.digest(_key(secret, day, region, service), signed.encode(), "sha256").hex()


@lru_cache(maxsize=4)
def _stamp(second: datetime) -> str:
    return second.strftime(_STAMP)


@lru_cache(maxsize=256)
def _key(secret: str, day: str, region: str, service: str) -> bytes:
    """Derived once a day."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), sha256).digest()
    return key
