"""A bucket in memory, on the loopback: as much of S3 as a batch job needs. It is gone with the demo."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

NAME = "demo"
_ENVELOPE = "<?xml version='1.0'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>{}</ListBucketResult>"
_MISSING = (
    b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>There is no such key.</Message></Error>"
)


class Bucket:
    """`url` is its endpoint; `objects` are by key."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.objects: dict[str, bytes] = {}

    def listed(self, prefix: str) -> bytes:
        """A page with all keys: there are few."""
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        rows = (
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size></Contents>"
            for key in keys
        )
        return _ENVELOPE.format("<IsTruncated>false</IsTruncated>" + "".join(rows)).encode()


@contextmanager
def bucket() -> Iterator[Bucket]:
    """Until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing: the demo has its own progress."""

        @property
        def key(self) -> str:
            return unquote(urlsplit(self.path).path).removeprefix(f"/{NAME}").lstrip("/")

        def answer(self, status: int, body: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            made.objects[self.key] = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(200)

        def do_GET(self) -> None:
            if not self.key:
                asked = parse_qs(urlsplit(self.path).query)
                self.answer(200, made.listed(asked.get("prefix", [""])[0]))
            elif self.key in made.objects:
                self.answer(200, made.objects[self.key])
            else:
                self.answer(404, _MISSING)

        def do_DELETE(self) -> None:
            made.objects.pop(self.key, None)
            self.answer(204)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Bucket("http://{}:{}".format(*server.server_address[:2]))
    thread = threading.Thread(target=server.serve_forever, name="farthing demo bucket")
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
