"""What tests of hooks share: an upstream on this machine that answers by a script, clients for it, and its outbox."""

import base64
import gc
import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.config import Config as BotoConfig

from farthing.outbox import Intent, Result, decode
from farthing.wire import encode, event

MODEL = "eu.anthropic.claude-sonnet-4-6"
USAGE = {"input_tokens": 12, "output_tokens": 7, "cache_read_input_tokens": 100,
         "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 40},
         "cache_creation_input_tokens": 70}  # fmt: skip
FIVE = (12, 7, 100, 30, 40)
CONVERSED = {"inputTokens": 12, "outputTokens": 7, "totalTokens": 189,
             "cacheReadInputTokens": 100, "cacheWriteInputTokens": 70,
             "cacheDetails": [{"ttl": "5m", "inputTokens": 30}, {"ttl": "1h", "inputTokens": 40}]}  # fmt: skip
MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "model": "claude-sonnet-4-6",
           "content": [{"type": "text", "text": "a secret answer"}], "stop_reason": "end_turn",
           "usage": USAGE}  # fmt: skip
ASK = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50,
       "messages": [{"role": "user", "content": "a secret question"}]}  # fmt: skip
COUNTS = {"x-amzn-bedrock-input-token-count": "12", "x-amzn-bedrock-output-token-count": "7",
          "x-amzn-bedrock-cache-read-input-token-count": "100",
          "x-amzn-bedrock-cache-write-input-token-count": "70"}  # fmt: skip
FRAMES, SSE = "application/vnd.amazon.eventstream", "text/event-stream"


def packed(value: Any) -> bytes:
    """As the services write JSON: without white space."""
    return json.dumps(value, separators=(",", ":")).encode()


class Said(NamedTuple):
    """An answer. `cut`: the connection closes before the promised end."""

    status: int
    headers: dict[str, str]
    chunks: list[bytes]
    cut: bool = False


def error(status: int, kind: str) -> Said:
    return Said(status, {"content-type": "application/json", "x-amzn-errortype": kind}, [b'{"message":"no"}'])


def text_events(deltas: int = 3) -> list[dict[str, Any]]:
    """A streamed message, as Anthropic's events."""
    return [
        {"type": "message_start", "message": MESSAGE | {"content": [], "usage": USAGE | {"output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"t{at}"}}
          for at in range(deltas)),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]  # fmt: skip


def invoke_frames(deltas: int = 3) -> list[bytes]:
    return [
        frame("chunk", {"bytes": base64.b64encode(packed(each)).decode()}) for each in text_events(deltas)
    ]


def converse_frames(deltas: int = 3) -> list[bytes]:
    return [
        frame("messageStart", {"role": "assistant"}),
        *(
            frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": f"t{at}"}})
            for at in range(deltas)
        ),
        frame("contentBlockStop", {"contentBlockIndex": 0}),
        frame("messageStop", {"stopReason": "end_turn"}),
        frame("metadata", {"usage": CONVERSED, "metrics": {"latencyMs": 5}}),
    ]


def frame(kind: str, payload: dict[str, Any], message: str = "event") -> bytes:
    name = ":event-type" if message == "event" else ":exception-type"
    headers = {name: kind, ":content-type": "application/json", ":message-type": message}
    return encode(headers, packed(payload))


def sse_events(deltas: int = 3) -> list[bytes]:
    return [event(each["type"], packed(each)) for each in text_events(deltas)]


def usual(path: str, body: dict[str, Any]) -> Said:
    """What the service says when all is well."""
    told = {"content-type": "application/json", "x-amzn-requestid": "req-1", "request-id": "req-1"}
    if path.endswith("/invoke"):
        return Said(200, told | COUNTS, [json.dumps(MESSAGE).encode()])
    if path.endswith("/invoke-with-response-stream"):
        return Said(200, told | {"content-type": FRAMES}, invoke_frames())
    if path.endswith("/converse"):
        answer = {"output": {"message": {"role": "assistant", "content": [{"text": "a"}]}}, "stopReason": "end_turn",
                  "usage": CONVERSED, "metrics": {"latencyMs": 5}}  # fmt: skip
        return Said(200, told, [json.dumps(answer).encode()])
    if path.endswith("/converse-stream"):
        return Said(200, told | {"content-type": FRAMES}, converse_frames())
    if body.get("stream"):
        return Said(200, told | {"content-type": SSE}, sse_events())
    return Said(200, told, [json.dumps(MESSAGE).encode()])


@dataclass
class Upstream:
    url: str
    script: deque[Said] = field(default_factory=deque)  # what to say next; then the usual
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, _, body in self.requests]


@contextmanager
def upstream() -> Iterator[Upstream]:
    said: Upstream

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            said.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            answer = (
                said.script.popleft() if said.script else usual(self.path.partition("?")[0], json.loads(body))
            )
            if answer.status == 0:  # it hangs up
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            sized = "stream" not in answer.headers["content-type"]
            size = sum(map(len, answer.chunks)) + (1 if answer.cut else 0)
            self.send_header(*(("content-length", str(size)) if sized else ("transfer-encoding", "chunked")))
            self.end_headers()
            for chunk in answer.chunks:
                self.wfile.write(chunk if sized else b"%x\r\n%b\r\n" % (len(chunk), chunk))
                self.wfile.flush()
            if answer.cut:
                self.close_connection = True
            elif not sized:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request, client_address):
            """A client that goes away is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    said = Upstream(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield said
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# What such a module says at its head: `pytestmark = UNCLOSED`, and the fixtures by name.
UNCLOSED = pytest.mark.filterwarnings(  # the SDKs' own sockets, where a test leaves a stream or an answer
    "ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a test leaves is collected within it, and not in another one's time."""
    yield
    gc.collect()


@pytest.fixture
def up() -> Iterator[Upstream]:
    with upstream() as server:
        yield server


def bedrock(url: str, retries: int = 1, **how: Any) -> Any:
    """A boto3 client. Each of `retries` is an attempt in all."""
    config = BotoConfig(retries={"total_max_attempts": retries, "mode": "standard"}, read_timeout=5, **how)
    return boto3.Session("AKIAMADEUP", "made-up", region_name="eu-west-1").client(
        "bedrock-runtime", endpoint_url=url, config=config
    )


def lines(folder: Path) -> list[Intent | Result]:
    """Of the outbox: intents and results in the order in which they were written."""
    return [
        decode(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().splitlines()
    ]


def intents(folder: Path) -> list[Intent]:
    return [each for each in lines(folder) if isinstance(each, Intent)]


def results(folder: Path) -> list[Result]:
    return [each for each in lines(folder) if isinstance(each, Result)]
