"""A dashboard on 127.0.0.1 for tests, and a client of it."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn

from farthing.cli.serving import _Asking
from farthing.web._access import Access
from farthing.web._books import Books
from farthing.web._serve import listen
from farthing.web.app import Web

NOW = datetime(2026, 11, 1, 9, tzinfo=UTC)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Site:
    """`cookie` and `csrf` go along once there are some."""

    port: int
    books: Books
    access: Access
    web: Web
    cookie: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)  # the keys there are
    keys_file: Path = Path()
    audit: Path = Path()

    def get(self, path: str, query: Sequence[tuple[str, str]] = (), **headers: str) -> Answer:
        return self.ask("GET", f"{path}?{urlencode(query)}" if query else path, b"", headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        return self.ask("POST", path, data, headers)

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        said = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie:
            said["cookie"] = self.cookie
        con = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            con.request(method, path, body or None, said)
            answer = con.getresponse()
            return Answer(
                answer.status, {k.lower(): str(answer.getheader(k)) for k in answer.headers}, answer.read()
            )
        finally:
            con.close()

    def login(self, key: str) -> Answer:
        answer = self.ask("POST", "/login", urlencode({"key": key}).encode(), {})
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
            self.headers["x-csrf-token"] = self.get("/session.json").json["csrf"]
        return answer


@contextmanager
def site(
    ledger: Path, access: Access | None = None, config: Path | None = None, **more: Any
) -> Iterator[Site]:
    """Served by uvicorn on a port that is free, until left."""
    given: dict[str, Any] = {"policy": ledger.parent / "farthing-policy.toml", "clock": lambda: NOW} | more
    given |= {"config": str(config or "")}
    books = Books(str(ledger), _Asking(config, ""), **given)
    access = access or Access(None, audit=ledger.parent / "audit.jsonl")
    web = Web(books, access, ("127.0.0.1", "localhost"))
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(web.app(), ws="none", lifespan="off", log_config=None, access_log=False)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield Site(listening.getsockname()[1], books, access, web)
    finally:
        server.should_exit = True
        web.ending.set()
        thread.join(timeout=20)
        listening.close()
