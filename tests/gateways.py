"""What tests of the gateway need: the gateway as a process, and an upstream that records and does as told."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from farthing.outbox import Intent, Result, decode
from farthing.wire import encode

OF_THE_MACHINE = ("AWS_", "ANTHROPIC_", "FARTHING_", "OTEL_")  # whose variables tests do without
MODEL = "us.anthropic.claude-sonnet-4-6"
INVOKE = f"/model/{MODEL}/invoke"
STREAM = f"/model/{MODEL}/invoke-with-response-stream"
BODY = (
    b'{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
)
USAGE = {"input_tokens": 7, "output_tokens": 5}


# --- the gateway ------------------------------------------------------------------------------------------------------


@dataclass
class Running:
    """A gateway. `outbox` is its folder."""

    url: str
    outbox: Path
    process: subprocess.Popen

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    def records(self) -> list[Intent | Result]:
        lines = [
            line for file in sorted(self.outbox.glob("*.jsonl")) for line in file.read_bytes().splitlines()
        ]
        return [decode(line) for line in lines]

    def results(self) -> dict[str, Result]:
        return {each.gateway_id: each for each in self.records() if isinstance(each, Result)}

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def raw(self, sent: bytes, *, wait_s: float = 10.0) -> bytes:
        """What comes back for these bytes until the gateway closes the connection."""
        with socket.create_connection(self.address, timeout=wait_s) as client:
            client.sendall(sent)
            return until_closed(client)

    def post(self, path: str, body: bytes = BODY, headers: Sequence[tuple[str, str]] = ()) -> "Answered":
        return answered(self.raw(request("POST", path, body, headers)))


@contextmanager
def gateway(outbox: Path, *flags: str, env: dict[str, str] | None = None) -> Iterator[Running]:
    """`farthing gateway` on a free port until the end of the block."""
    command = [sys.executable, "-m", "farthing", "gateway", "--port", "0", "--outbox", str(outbox), *flags]
    here = {name: value for name, value in os.environ.items() if not name.startswith(OF_THE_MACHINE)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**here, "AWS_REGION": "us-east-1", "AWS_CONFIG_FILE": os.devnull, **(env or {})},
    )  # fmt: skip
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise AssertionError(
                f"the gateway did not start: {process.stderr.read() if process.stderr else ''}"
            )
        yield Running(json.loads(line)["listening"], outbox, process)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()


# --- raw HTTP ---------------------------------------------------------------------------------------------------------


@dataclass
class Answered:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        return {each.lower(): value for each, value in self.headers}[name]

    def json(self):
        return json.loads(self.body)


def request(method: str, path: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()) -> bytes:
    said = "".join(f"{name}: {value}\r\n" for name, value in headers)
    length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: gateway\r\n{said}{length}Connection: close\r\n\r\n".encode()
        + body
    )


def answered(raw: bytes) -> Answered:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    if ("transfer-encoding", "chunked") in headers:
        body = dechunked(body)
    return Answered(int(status.split()[1]), headers, body)


def dechunked(body: bytes) -> bytes:
    """As far as it goes."""
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        found, body = found + body[:length], body[length + 2 :]
    return found


def until_closed(client: socket.socket) -> bytes:
    chunks = []
    try:
        while chunk := client.recv(65536):
            chunks.append(chunk)
    except ConnectionResetError:
        pass
    return b"".join(chunks)


# --- the upstream -----------------------------------------------------------------------------------------------------


@dataclass
class Asked:
    """A request as it arrived, byte by byte."""

    head: bytes
    body: bytes

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n")[0].decode()

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.head.decode().split("\r\n")[1:]
        return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines if line)]


Step = bytes | float | threading.Event | str  # to send, to wait, or "close", "reset"


@dataclass
class Upstream:
    """Answers each request with the steps that `answer` gives."""

    answer: Callable[[Asked], Sequence[Step]]
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                asked = Asked(head[:-4], b"")
                sizes = [value for name, value in asked.headers if name.lower() == "content-length"]
                asked.body = await reader.readexactly(int(sizes[0])) if sizes else b""
                self.asked.append(asked)
                if await self.act(self.answer(asked), writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def act(self, steps: Sequence[Step], writer: asyncio.StreamWriter) -> bool:
        for step in steps:
            match step:
                case bytes():
                    writer.write(step)
                    await writer.drain()
                case float():
                    await asyncio.sleep(step)
                case threading.Event():
                    await asyncio.to_thread(step.wait, 20)
                case "reset":
                    writer.transport.abort()
                    return True
                case _:
                    return True
        return False


@contextmanager
def upstream(answer: Callable[[Asked], Sequence[Step]]) -> Iterator[Upstream]:
    made, ready, loop = Upstream(answer), threading.Event(), asyncio.new_event_loop()

    async def run() -> None:
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0, limit=2**22)
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        async with server:
            await stop.wait()

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    ready.wait(10)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def reply(
    body: bytes,
    status: str = "200 OK",
    headers: Sequence[tuple[str, str]] = (("Content-Type", "application/json"),),
) -> bytes:
    said = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status}\r\n{said}Content-Length: {len(body)}\r\n\r\n".encode() + body


def message(**usage: int) -> bytes:
    """An answer of InvokeModel."""
    said = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [],
    }
    return json.dumps({**said, "usage": {**USAGE, **usage}}).encode()


def frames() -> list[bytes]:
    """The event stream of an answer, frame by frame."""
    from base64 import b64encode

    events = [
        {"type": "message_start", "message": {"id": "msg_1", "model": "claude-sonnet-4-6", "type": "message",
                                              "role": "assistant", "content": [], "usage": {"input_tokens": 7}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
         "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]  # fmt: skip
    said = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    return [
        encode(said, json.dumps({"bytes": b64encode(json.dumps(event).encode()).decode()}).encode())
        for event in events
    ]


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\nX-Amzn-RequestId: req-1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST = b"0\r\n\r\n"
