"""The floor of what hooks add to a call: `python bench/hook_floor.py CALLS`. Its last line is JSON.

Two handlers of botocore at the events where ours are, of which the first puts the intent's line into an open file, in
one write, and the other does nothing. The line is one that our hooks wrote: here nobody makes it, nobody reads the
request or the answer, nothing is priced, and no thread is told. The result's line is no part of it, since no caller
waits for it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.hook_work import ANSWER, Client, client, invoke
from farthing.gateway.hooks import open_hook

KIND = "application/json"
CALL = invoke(2_000)


def intent(folder: Path) -> bytes:
    """The line that is in the outbox before a call is sent."""
    hook = open_hook(outbox=folder, tags={"team": "search"})
    CALL(client(KIND, ANSWER, hook))
    hook.close()
    return next(folder.glob("*.jsonl")).read_bytes().splitlines(keepends=True)[0]


def least(line: bytes, file: int) -> Client:
    made = client(KIND, ANSWER, None)

    def created(**_: Any) -> None:
        os.write(file, line)

    def received(**_: Any) -> None:
        pass

    made.meta.events.register_first("request-created.bedrock-runtime", created)
    made.meta.events.register("response-received.bedrock-runtime", received)
    return made


def main(calls: int) -> dict[str, float]:
    gc.freeze()
    with tempfile.TemporaryDirectory() as name:
        line = intent(Path(name) / "outbox")
        file = os.open(Path(name) / "lines", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        plain, noted = client(KIND, ANSWER, None), least(line, file)
        differences = []
        for number in range(calls + 20):
            took = {}
            for which in (noted, plain) if number % 2 else (plain, noted):
                start = time.perf_counter_ns()
                CALL(which)
                took[which] = time.perf_counter_ns() - start
            if number >= 20:
                differences.append(took[noted] - took[plain])
        os.close(file)
    return {"us": median(differences) / 1000, "bytes": len(line)}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
