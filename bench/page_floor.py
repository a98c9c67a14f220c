"""The floor of a page: answers that are there already, from memory, by a bare ASGI app on the dashboard's own server.

`python bench/page_floor.py FOLDER`, whose answers.json has their texts by path and query. Its first line says where it
listens. No sums, no JSON made, no login, no headers but the type.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import uvicorn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from farthing.web._serve import line_of, listen

HEADERS = [(b"content-type", b"application/json")]


class Ready:
    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = {asked.encode(): text.encode() for asked, text in answers.items()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = self.answers[scope["raw_path"] + b"?" + scope["query_string"]]
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, length]})
        await send({"type": "http.response.body", "body": body})


def main(folder: Path) -> None:
    socket = listen("127.0.0.1", 0)
    print(line_of(f"http://127.0.0.1:{socket.getsockname()[1]}"), flush=True)
    config = uvicorn.Config(
        Ready(json.loads((folder / "answers.json").read_text())), ws="none", lifespan="off", log_config=None,
        log_level="critical", access_log=False, server_header=False, proxy_headers=False,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[socket])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
