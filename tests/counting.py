"""CountTokens of Bedrock Runtime on this machine: a token a word, and half as many again for the newer tokenizer."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

NEWER = "anthropic.claude-sonnet-5-5"
REFUSED = "anthropic.claude-opus-4-8"


class Counter(BaseHTTPRequestHandler):
    """Answers as the service does, and keeps what it was asked."""

    asked: ClassVar[list[tuple[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = self.path.split("/")[2]
        self.asked.append((model, body))
        words = len(body["input"]["converse"]["messages"][0]["content"][0]["text"].split())
        if model == REFUSED:
            status = 400
            answer: dict[str, Any] = {"message": "The provided model doesn't support counting tokens."}
        else:
            status, answer = 200, {"inputTokens": words * 3 // 2 if model == NEWER else words}
        said = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 400:
            self.send_header("x-amzn-ErrorType", "ValidationException")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of one, with credentials that nobody else would take."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    Counter.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Counter)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
