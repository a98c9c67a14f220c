"""A canary in the place of every text goes through each door; then all of the disk and output is searched for it."""

import base64
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from farthing.cli import main
from farthing.ledger import Ledger
from farthing.wire import encode
from tests.gateways import (
    INVOKE,
    LAST,
    MODEL,
    STREAM,
    STREAM_HEAD,
    USAGE,
    Asked,
    chunk,
    gateway,
    reply,
    upstream,
)
from tests.prompts import body, converse, save

HERE = Path(__file__).parent / "importers"
CANARY = "canary-Zq7Xw9Kv"
# Names under which the formats have texts; what is there already as a number or a fact stays.
TEXTS = (
    "messages", "system", "prompt", "completion", "content", "text", "body", "response", "arguments", "thinking",
    "signature", "toolUseResult", "tool_input", "file_content", "instructions", "reasoning", "query", "choices",
)  # fmt: skip
# What people write there is kept, since they asked for it.
TAGS = (
    "requestMetadata",
    "metadata",
    "tags",
    "request_tags",
    "labels",
    "label",
    "Label",
    "Dimensions",
    "dimensions",
)


def hidden() -> list[bytes]:
    """The canary as it is, and in base64 at each of its three places."""
    coded = [base64.b64encode(b"x" * at + CANARY.encode())[4:-4] for at in range(3)]
    return [CANARY.encode(), *coded]


def traces(folder: Path) -> list[str]:
    """The files below the folder in which the canary is; Parquet and gzip are unpacked first."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and told(path)
    )


def told(path: Path) -> bool:
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    if content.startswith(b"PAR1"):
        rows = duckdb.execute(f"SELECT columns(*)::VARCHAR FROM read_parquet('{path}')").fetchall()
        content = repr(rows).encode()
    return any(form in content for form in hidden()) or CANARY in path.name


def planted(value: Any) -> Any:
    """The same record, with the canary under every name of a text, in every object, and among all attributes."""
    if isinstance(value, list):
        attribute = {"key": "gen_ai.prompt.0.content", "value": {"stringValue": CANARY}}
        more = [attribute] if any(isinstance(one, dict) and "key" in one for one in value) else []
        return [planted(one) for one in value] + more
    if not isinstance(value, dict):
        return value
    return dict.fromkeys(TEXTS, CANARY) | {
        key: one if key in TAGS else CANARY if key in TEXTS and isinstance(one, str) else planted(one)
        for key, one in value.items()
    }


def records(content: bytes) -> Iterator[Any]:
    """One document, or one a line."""
    try:
        yield json.loads(content)
    except ValueError:
        for line in content.splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue


def spoiled(line: str) -> Iterator[str]:
    """The line as programs break it: cut within a text, and with a text where a count should be."""
    yield line[: line.find(CANARY) + len(CANARY)]
    for count in ('"input_tokens": ', '"inputTokens": ', '"inputTokenCount": ', '"prompt_tokens": '):
        if count in line:
            yield line.replace(count, f'{count}"{CANARY}", "was": ', 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Path]:
    """All that farthing writes by itself goes below this folder: configuration, data, cache, temporary files."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name, below in {
            "HOME": "", "XDG_CONFIG_HOME": "config", "XDG_DATA_HOME": "data", "XDG_CACHE_HOME": "cache",
            "XDG_STATE_HOME": "state", "TMPDIR": "tmp",
        }.items():  # fmt: skip
            (folder / below).mkdir(exist_ok=True)
            patch.setenv(name, str(folder / below))
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    """A sample of every format with the canary in it, and behind its records some broken ones."""
    folder = tmp_path_factory.mktemp("samples")
    for path in sorted(HERE.iterdir()):
        if path.suffix not in (".json", ".jsonl", ".gz") or ".broken." in path.name:
            continue
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        lines = [json.dumps(planted(record)) for record in records(content)]
        bad = [] if path.suffix == ".json" else [spoilt for line in lines[:3] for spoilt in spoiled(line)]
        (folder / path.name.removesuffix(".gz")).write_text("\n".join([*lines, *bad]) + "\n")
    return folder


def run(*argv: object) -> None:
    with pytest.raises(SystemExit):
        main([str(arg) for arg in argv])


def test_the_search_finds_a_canary_wherever_it_hides(tmp_path):
    for at in range(3):
        (tmp_path / f"coded-{at}").write_bytes(base64.b64encode(b"x" * at + CANARY.encode() + b"more"))
    (tmp_path / "log.gz").write_bytes(gzip.compress(CANARY.encode()))
    duckdb.sql(f"COPY (SELECT '{CANARY}' AS a, 1 AS b) TO '{tmp_path / 'rows.parquet'}' (COMPRESSION zstd)")
    (tmp_path / "well").write_text("canary")
    assert traces(tmp_path) == ["coded-0", "coded-1", "coded-2", "log.gz", "rows.parquet"]


@pytest.fixture(scope="module")
def imported(home, samples) -> Path:
    ledger = home / "ledger"
    run("import", samples, "--ledger", ledger)
    return ledger


def test_no_text_of_any_format_is_kept_or_said(home, samples, imported, capfd):
    assert len(traces(samples)) > 40
    assert len(Ledger(imported).rows()) > 80
    run("import", samples, "--ledger", imported, "--json")  # which names what was rejected, and why
    for report in (
        ["by", "model,session,project"],
        ["bill"],
        ["coverage"],
        ["session"],
        ["ledger", "verify"],
    ):
        run(*report, "--ledger", imported, "--json")
    said = capfd.readouterr()
    assert "not JSON: the line is cut short" in said.out
    assert CANARY not in said.out + said.err
    assert traces(home) == []


# --- the gateway ------------------------------------------------------------------------------------------------------

SAID = {"type": "message", "id": "msg_1", "role": "assistant", "model": "claude-sonnet-4-6", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": CANARY}, {"type": "tool_use", "id": "t", "name": "f",
                                                       "input": {"a": CANARY}}], "usage": USAGE}  # fmt: skip
CONVERSED = {"output": {"message": {"role": "assistant", "content": [{"text": CANARY}]}}, "stopReason": "end_turn",
             "usage": {"inputTokens": 7, "outputTokens": 5, "totalTokens": 12}}  # fmt: skip


def answer(asked: Asked) -> list[bytes]:
    """What Bedrock and Anthropic answer; the canary is in every text, of refusals too."""
    path = asked.line.split()[1]
    if b"refuse" in asked.body:
        return [reply(json.dumps({"message": CANARY}).encode(), "400 Bad Request")]
    if path.endswith("-stream"):
        return [STREAM_HEAD, *map(chunk, streamed()), LAST]
    return [reply(json.dumps(CONVERSED if path.endswith("converse") else SAID).encode())]


def streamed() -> Iterator[bytes]:
    said = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    delta = {"type": "text_delta", "text": CANARY}
    for event in (
        {"type": "message_start", "message": SAID | {"content": [], "usage": {"input_tokens": 7}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ):
        yield encode(
            said, json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode()}).encode()
        )


LIMITS = """
[[budgets]]
name = "all"
usd = 100
period = "month"
"""


def asked(text: str = CANARY) -> bytes:
    """A body with the canary as system prompt, tool, tool input, file and question."""
    made = body(question=text, system=CANARY)
    made["tools"][0]["description"] = CANARY
    file = {"type": "base64", "media_type": "text/plain", "data": base64.b64encode(CANARY.encode()).decode()}
    made["messages"] += [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "search", "input": {"q": CANARY}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": CANARY},
                                     {"type": "document", "source": file}]},
    ]  # fmt: skip
    return json.dumps(made).encode()


def test_no_text_of_a_call_is_kept_or_said(home):
    """Passed on, translated, streamed, refused by the upstream, refused here, cut short; with budgets and metrics."""
    (home / "farthing.toml").write_text(LIMITS)
    messages = json.dumps({**json.loads(asked()), "model": "claude-sonnet-4-6"}).encode()
    streaming = json.dumps({**json.loads(messages), "stream": True}).encode()
    secret = [("Authorization", f"Bearer {CANARY}"), ("X-Api-Key", CANARY)]
    flags = ["--no-auth", "--config", str(home / "farthing.toml"), "--budgets", str(home / "budgets.sqlite")]
    with (
        upstream(answer) as up,
        gateway(home / "outbox", "--bedrock", up.url, *flags, env=dict(os.environ)) as made,
    ):
        for path, sent, status in (
            (INVOKE, asked(), 200),
            (STREAM, asked(), 200),
            (f"/model/{MODEL}/converse", json.dumps(converse(CANARY, CANARY)).encode(), 200),
            ("/v1/messages", messages, 200),
            ("/v1/messages", streaming, 200),
            (INVOKE, asked("refuse"), 400),
            (INVOKE, asked()[:-9], 400),
            (INVOKE, asked().replace(b"500", json.dumps(CANARY).encode(), 1), 400),
            (f"/model/{CANARY}", asked(), 404),
        ):
            got = made.post(path, sent, secret)
            assert got.status == status, got
        assert sum(CANARY.encode() in one.body for one in up.asked) == 6  # it went through, and came back
        assert CANARY.encode() not in made.raw(
            b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert len(made.results()) == 6
        assert made.end() == 0
        said = made.process.communicate()
    assert CANARY not in "".join(said)
    assert (home / "budgets.sqlite").exists()
    assert traces(home) == []


# --- commands that read requests --------------------------------------------------------------------------------------


def test_no_text_of_a_request_is_kept_or_said(home, tmp_path, capfd):
    """Each of these reads whole prompts. `lint --show` alone shows some, where a person asks for it."""
    first, second = json.loads(asked()), json.loads(asked(f"{CANARY} again"))
    one = save(tmp_path / "one.jsonl", first)
    two = save(
        tmp_path / "two.jsonl",
        second | {"system": [{"type": "text", "text": f"{CANARY} 2026-11-22T10:00:00Z"}]},
    )
    run("lint", one, two, "--model", MODEL, "--json", "--sarif", home / "lint.sarif")
    run("lint", one, two, "--model", MODEL)
    run("diff", one, two, "--model", MODEL)
    run("count", one, "--model", MODEL, "--json")
    said = capfd.readouterr()
    assert "breakpoints" in said.out or "clock" in said.out
    assert CANARY not in said.out + said.err
    assert traces(home) == []
    run("lint", one, two, "--model", MODEL, "--show")
    assert CANARY in capfd.readouterr().out
