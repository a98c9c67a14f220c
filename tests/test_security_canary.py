"""A canary in the place of every text: it goes through each door, and then all of the disk and output is searched for it."""

import base64
import gzip
import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from farthing.cli import main
from farthing.ledger import Ledger
from farthing.web._page import PAGES
from tests.gateways import BODY, INVOKE, MODEL, STREAM, STREAM_HEAD, LAST, chunk, gateway, message, reply, upstream
from tests.prompts import body, converse
from tests.web_server import site

HERE = Path(__file__).parent / "importers"
CANARY = "canary-Zq7Xw9Kv"
# Names under which the formats have texts; what is there already as a number or a fact stays.
TEXTS = (
    "messages", "system", "prompt", "completion", "content", "text", "body", "response", "arguments", "thinking",
    "signature", "toolUseResult", "tool_input", "file_content", "instructions", "reasoning", "query", "choices",
)  # fmt: skip


def hidden() -> list[bytes]:
    """The canary as it is, and in base64 at each of its three places."""
    coded = [base64.b64encode(b"x" * at + CANARY.encode())[4:-4] for at in range(3)]
    return [CANARY.encode(), *coded]


def traces(folder: Path) -> list[str]:
    """The files below the folder in which the canary is; Parquet and gzip are unpacked first."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and told(path))


def told(path: Path) -> bool:
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    if content.startswith(b"PAR1"):
        content = repr(duckdb.sql(f"FROM read_parquet('{path}')").fetchall()).encode()
    return any(form in content for form in hidden()) or CANARY in path.name


def planted(value: Any) -> Any:
    """The same record, with the canary under every name of a text, in every object, and among all attributes."""
    if isinstance(value, list):
        attribute = {"key": "gen_ai.prompt.0.content", "value": {"stringValue": CANARY}}
        more = [attribute] if any(isinstance(one, dict) and "key" in one for one in value) else []
        return [planted(one) for one in value] + more
    if not isinstance(value, dict):
        return value
    kept = {key: CANARY if key in TEXTS and isinstance(one, str) else planted(one) for key, one in value.items()}
    return {key: CANARY for key in TEXTS} | kept


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
    assert sum(1 for _ in Ledger(imported).rows()) > 100
    run("import", samples, "--ledger", imported, "--json")  # which names what was rejected, and why
    for report in (["by", "model,session,project"], ["bill"], ["coverage"], ["session"], ["ledger", "verify"]):
        run(*report, "--ledger", imported, "--json")
    said = capfd.readouterr()
    assert "not JSON: the line is cut short" in said.out
    assert CANARY not in said.out + said.err
    assert traces(home) == []


def test_no_page_has_a_text(home, imported):
    with site(imported) as made:
        for name in PAGES:
            assert CANARY.encode() not in made.get(f"/{name}.json").body
            assert CANARY.encode() not in made.get(f"/{name}.csv").body
    assert traces(home) == []
