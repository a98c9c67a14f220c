"""Work of a fixed size whose instructions are counted: `python bench/counted.py NAME TIMES`. All of it is made up.

Only what a release keeps is used: the same script counts the instructions of an older farthing.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

Work = Callable[[int], None]

AT = datetime(2026, 6, 1, tzinfo=UTC)
MODEL = "eu.anthropic.claude-sonnet-4-6"


def rate(times: int) -> None:
    """farthing.rate of usage blocks, each another."""
    import farthing

    for n in range(times):
        farthing.rate(
            MODEL, AT, {"input_tokens": 400 + n, "output_tokens": 650, "cache_read_input_tokens": 18_000 + n}
        )


def logs(times: int) -> None:
    """Reading records of an invocation log."""
    from farthing import read

    with TemporaryDirectory() as folder:
        file = Path(folder) / "log.jsonl"
        file.write_bytes(b"".join(_record(n) for n in range(times)))
        read(file)


def _record(n: int) -> bytes:
    said = {
        "schemaType": "ModelInvocationLog", "schemaVersion": "1.0", "timestamp": "2026-06-01T09:30:00Z",
        "accountId": "111122223333", "region": "eu-west-1", "requestId": f"{n:08d}-0000-4000-8000-000000000000",
        "operation": "InvokeModel", "modelId": MODEL,
        "input": {
            "inputContentType": "application/json", "inputTokenCount": 400 + n,
            "inputBodyJson": {"messages": [{"role": "user", "content": "lorem ipsum " * 200}]},
        },
        "output": {
            "outputContentType": "application/json", "outputTokenCount": 650,
            "outputBodyJson": {"usage": {"input_tokens": 400 + n, "output_tokens": 650}},
        },
    }  # fmt: skip
    return json.dumps(said).encode() + b"\n"


def outbox(times: int) -> None:
    """The two lines of a call, encoded."""
    from farthing.outbox import Intent, Result, Tokens, encode

    for n in range(times):
        name = f"fa-{n:024x}"
        encode(Intent(gateway_id=name, at=AT, model=MODEL, platform="bedrock", expected=Tokens(input=n)))
        encode(
            Result(gateway_id=name, at=AT, model=MODEL, platform="bedrock", tokens=Tokens(input=n, output=9))
        )


def begin(times: int) -> None:
    """The command line as it starts: `farthing rate`."""
    from farthing import cli

    for _ in range(times):
        with redirect_stdout(io.StringIO()):
            try:
                cli.main(["rate", MODEL, "--input", "12000", "--output", "800"])
            except SystemExit as ended:
                if ended.code:
                    raise


WORK: dict[str, tuple[Work, int]] = {
    "rate": (rate, 400),
    "logs": (logs, 400),
    "outbox": (outbox, 400),
    "begin": (begin, 1),
}

if __name__ == "__main__":
    WORK[sys.argv[1]][0](int(sys.argv[2]))
