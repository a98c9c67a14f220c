"""A proxy on loopback that goes wrong before a real S3 server: 500, 503, an answer that is slow, half or none."""

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("500", "503", "slow", "half", "cut", "lost")
BODY = (
    b"<?xml version='1.0'?><Error><Code>%b</Code><Message>We encountered an internal error.</Message></Error>"
)


class Proxy:
    """`rate` of requests go wrong; `met` counts how."""

    def __init__(self, upstream: str, chance: random.Random) -> None:
        self.upstream, self.chance, self.rate, self.url = upstream, chance, 0.0, ""
        self.met: Counter[str] = Counter()
        self._lock = threading.Lock()

    def fault(self) -> str:
        with self._lock:
            found = self.chance.choice(FAULTS) if self.chance.random() < self.rate else ""
            self.met[found] += 1
            return found


def handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one class, closed over its proxy
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing."""

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            fault = proxy.fault()
            if fault in ("500", "503"):
                code = b"InternalError" if fault == "500" else b"SlowDown"
                return self.give(int(fault), [], BODY % code)
            if fault == "cut":  # the request never arrives
                self.close_connection = True
                return None
            if fault == "slow":
                time.sleep(0.05)
            there = http.client.HTTPConnection(urlsplit(proxy.upstream).netloc, timeout=20)
            there.request(self.command, self.path, body, dict(self.headers))
            answer = there.getresponse()
            data, told = answer.read(), answer.getheaders()
            there.close()
            if fault == "lost":  # done, and nobody is told
                self.close_connection = True
                return None
            return self.give(answer.status, told, data, half=fault == "half")

        def give(self, status: int, told: list[tuple[str, str]], data: bytes, *, half: bool = False) -> None:
            self.send_response_only(status)
            length = next((value for name, value in told if name.lower() == "content-length"), str(len(data)))
            for name, value in told:
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("content-length", length)
            self.end_headers()
            if half:
                self.close_connection = True
                data = data[: len(data) // 2]
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on  # noqa: N815

    return Handler


@contextmanager
def going_wrong(upstream: str, chance: random.Random) -> Iterator[Proxy]:
    proxy = Proxy(upstream, chance)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(proxy))
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
