"""Signature Version 4, checked as AWS does it, where the emulator was told the secret of an access key."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote

from farthing.emulator._errors import Refused

_HEADER = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,\s]{1,128})"
    r"/(?P<scope>(?P<day>\d{8})/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)/aws4_request),"
    r"\s*SignedHeaders=(?P<names>[a-z0-9;-]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)
_WRONG = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)


class Request(NamedTuple):
    """What is signed. `path` and `query` are as they were sent; header names are in small letters."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


def check(request: Request, secret: str) -> None:
    """Refused unless the request was signed with this secret."""
    signed = _HEADER.match(request.headers.get("authorization", ""))
    stamp = request.headers.get("x-amz-date", "")
    if signed is None or not stamp.startswith(signed["day"]):
        raise Refused(
            "denied", "The Authorization header is not of Signature Version 4, or has another date."
        )
    told = request.headers.get("x-amz-content-sha256") or sha256(request.body).hexdigest()
    if told not in ("UNSIGNED-PAYLOAD", sha256(request.body).hexdigest()):
        raise Refused("denied", _WRONG)
    names = signed["names"].split(";")
    lines = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names)
    query = "&".join(sorted(part if "=" in part else f"{part}=" for part in request.query.split("&") if part))
    canonical = "\n".join(
        (request.method, quote(request.path, safe="/~"), query, lines, signed["names"], told)
    )
    digest = sha256(canonical.encode()).hexdigest()
    text = "\n".join(("AWS4-HMAC-SHA256", stamp, signed["scope"], digest))
    key = f"AWS4{secret}".encode()
    for part in (signed["day"], signed["region"], signed["service"], "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    if not hmac.compare_digest(key.hex(), signed["signature"]):
        raise Refused("denied", _WRONG)
