"""Samples of what is no token: our own format, and searches in usage blocks."""

import runpy
from pathlib import Path

HERE = Path(__file__).parent
MAKE = runpy.run_path(str(HERE / "generate.py"))
lines, said, usage = MAKE["lines"], MAKE["said"], MAKE["usage"]


def month():
    """Everything that a use may say; the same line twice is one use."""
    yield {"kind": "session", "at": "2026-03-01T09:00:00Z", "state": "running", "ms": 5_400_000}
    yield {"kind": "session", "at": "2026-03-01T10:30:00Z", "state": "idle", "ms": 600_000}
    for _ in range(2):
        yield {"kind": "web_search", "at": "2026-03-01T09:10:00Z", "searches": 12}
    yield {"kind": "web_search", "at": "2026-03-01T09:12:00Z", "searches": 1, "failed": True}
    yield {"kind": "code_execution", "at": "2026-03-01T09:20:00Z", "ms": 42_000, "with_web_tools": False}
    yield {"kind": "code_execution", "at": "2026-03-01T10:20:00+01:00", "ms": 1_000, "with_web_tools": True}
    yield {
        "kind": "session", "at": "2026-03-02T09:00:00Z", "state": "running", "ms": 1, "id": "sesn_1",
        "platform": "claude_aws", "account": "111122223333", "principal": "ann", "session": "sesn_1",
        "project": "shop", "model": "claude-opus-4-8",
    }  # fmt: skip


def broken():
    good = {"kind": "session", "at": "2026-03-01T09:00:00Z", "state": "running", "ms": 1}
    yield good
    yield b'{"kind": "session", "at": "2026-03-0'
    yield good | {"kind": "sesion"}
    yield good | {"at": "soon"}
    yield good | {"at": "2027-03-01T09:00:00Z"}
    yield good | {"ms": -1}
    yield good | {"ms": 1.5}
    yield {name: value for name, value in good.items() if name != "state"}
    yield good | {"platform": "vertex"}
    yield good | {"user": "ann"}
    yield {"kind": "web_search", "at": "2026-03-01T09:00:00Z", "searches": 1, "failed": "no"}
    yield [good]


def searches():
    """A call is written as it grows, and copied to another session: its searches count once."""

    def tools(count):
        return usage(service_tier="standard") | {
            "server_tool_use": {"web_search_requests": count, "web_fetch_requests": 1}
        }

    yield said(1, tools(1))
    yield said(1, tools(3), copy=1)
    yield said(1, tools(3), copy=2, sessionId="session-2", isSidechain=True)
    yield said(2, tools(0))
    yield said(3, usage(service_tier="standard") | {"server_tool_use": {"web_search_requests": -1}})


def results():
    block = usage(service_tier="batch") | {"server_tool_use": {"web_search_requests": 2}}
    answer = MAKE["message"](7, **block) | {"id": "msg_0107"}
    yield {"custom_id": "row-7", "result": {"type": "succeeded", "message": answer}}


def samples():
    """The name and the content of every file."""
    for make in (month, broken):
        yield f"uses.{make.__name__}.jsonl", lines(make())
    yield "claude_code.searches.jsonl", lines(searches())
    yield "bedrock_batch.searches.jsonl", lines(results())
