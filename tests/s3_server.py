"""A small S3 on loopback: lists, gives objects, and refuses in AWS's own words. Faults are planted by key.

moto is the witness for everything it can do; this is for what it cannot: errors by IAM and KMS, other regions,
bodies that break off, and many requests a second.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

PAGE = 1000
MODIFIED = datetime(2026, 11, 22, tzinfo=UTC)


@dataclass
class Fault:
    """An answer that is an error, as S3 words it; with `cut`, the object breaks off after so many bytes."""

    status: int = 403
    code: str = "AccessDenied"
    message: str = "Access Denied"
    more: str = ""  # further elements
    cut: int | None = None


@dataclass
class Bucket:
    """One bucket and what happened to it. `faults` are by key; "" is the listing."""

    name: str = "logs"
    region: str = "us-east-1"
    objects: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # "GET key", "LIST prefix after"
    signed_by: list[str] = field(default_factory=list)  # access key ids
    url: str = ""
    delay: float = 0.0  # seconds, before each answer
    open: set[asyncio.Transport] = field(default_factory=set)
    role: Fault | None = None  # what STS, which is here too, says to who would assume one

    def answer(self, method: str, target: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        path, _, query = target.partition("?")
        if method == "POST":
            self.asked.append("STS")
            return self.refuse(self.role or Fault(), "ErrorResponse")
        name, _, key = unquote(path).lstrip("/").partition("/")
        signed = re.search(r"Credential=([^/]+)/\d+/([^/]+)/", headers.get("authorization", ""))
        self.signed_by.append(signed[1] if signed else "")
        self.asked.append(f"GET {key}" if key else "LIST {} {}".format(*_wanted(query)))
        if name != self.name:
            return self.refuse(Fault(404, "NoSuchBucket", "The specified bucket does not exist"))
        if signed and signed[2] != self.region:
            told = f"the region '{signed[2]}' is wrong; expecting '{self.region}'"
            more = f"<Region>{self.region}</Region>"
            fault = Fault(
                400, "AuthorizationHeaderMalformed", f"The authorization header is malformed; {told}", more
            )
            return self.refuse(fault)
        planted = self.faults.get(key)
        if planted and planted.cut is None:
            return self.refuse(planted)
        return self.give(key, headers) if key else self.list(query)

    def refuse(self, fault: Fault, around: str = "") -> tuple[int, dict[str, str], bytes]:
        body = (
            f"<Error><Code>{fault.code}</Code><Message>{escape(fault.message)}</Message>{fault.more}</Error>"
        )
        body = f"<{around}>{body}</{around}>" if around else body
        return fault.status, {"x-amz-bucket-region": self.region}, f"<?xml version='1.0'?>{body}".encode()

    def give(self, key: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        body = self.objects.get(key)
        if body is None:
            return self.refuse(Fault(404, "NoSuchKey", "The specified key does not exist."))
        etag = _etag(body)
        if headers.get("if-match", etag).strip('"') != etag:
            return self.refuse(
                Fault(412, "PreconditionFailed", "At least one of the pre-conditions did not hold")
            )
        said = {"ETag": f'"{etag}"', "Last-Modified": format_datetime(MODIFIED, usegmt=True)}
        ranged = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        if ranged:
            start, end = int(ranged[1]), int(ranged[2] or len(body) - 1)
            said["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
            return 206, said, body[start : end + 1]
        return 200, said, body

    def list(self, query: str) -> tuple[int, dict[str, str], bytes]:
        prefix, after = _wanted(query)
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        keys = keys[bisect_right(keys, after) if after else 0 :]
        page, more = keys[:PAGE], len(keys) > PAGE
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{MODIFIED:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            f"<ETag>&quot;{_etag(self.objects[key])}&quot;</ETag><Size>{len(self.objects[key])}</Size></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        body = f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{items}"
        body = f"<ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>{body}</ListBucketResult>"
        return 200, {"x-amz-bucket-region": self.region}, body.encode()


def _wanted(query: str) -> tuple[str, str]:
    """Prefix, and the key after which to begin."""
    said = {name: values[0] for name, values in parse_qs(query).items()}
    return said.get("prefix", ""), said.get("continuation-token", said.get("start-after", ""))


_ETAGS: dict[int, tuple[bytes, str]] = {}


def _etag(body: bytes) -> str:
    """Made once for each object."""
    held = _ETAGS.get(id(body))
    if held is None or held[0] is not body:
        held = _ETAGS[id(body)] = body, hashlib.md5(body).hexdigest()
    return held[1]


class _Connection(asyncio.Protocol):
    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.bucket.open.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.bucket.open.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            first, *lines = self.data[:end].decode("latin-1").split("\r\n")
            body_bytes = next(
                (int(line[15:]) for line in lines if line.lower().startswith("content-length:")), 0
            )
            if len(self.data) < end + 4 + body_bytes:
                return
            self.data = self.data[end + 4 + body_bytes :]
            method, target, _ = first.split(" ")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            if self.bucket.delay:
                loop = asyncio.get_running_loop()
                loop.call_later(self.bucket.delay, self.reply, method, target, headers)
            else:
                self.reply(method, target, headers)

    def reply(self, method: str, target: str, headers: dict[str, str]) -> None:
        status, said, body = self.bucket.answer(method, target, headers)
        said["Content-Length"] = str(len(body))
        key = unquote(target.partition("?")[0]).lstrip("/").partition("/")[2]
        fault = self.bucket.faults.get(key)
        head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
        self.transport.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode())
        if fault and fault.cut is not None:
            self.transport.write(body[: fault.cut])
            self.transport.close()
        elif method != "HEAD":
            self.transport.write(body)


@contextmanager
def serving(bucket: Bucket) -> Iterator[Bucket]:
    """The bucket at `bucket.url`, served by a thread until the end of the block."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: _Connection(bucket), "127.0.0.1", 0))
    bucket.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield bucket
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(_end(server, bucket))
        loop.close()


async def _end(server: asyncio.Server, bucket: Bucket) -> None:
    server.close()
    for transport in list(bucket.open):
        transport.abort()
    await asyncio.sleep(0.01)  # for their last call
