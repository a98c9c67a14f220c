"""Importers on real data, read in place: transcripts, recorded answers, a log record (see SOURCES.md there)."""

import gzip
import json
import re
import runpy
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from farthing.importers import read_paths
from farthing.importers._block import Block, counts, says_something
from farthing.ledger import Calls
from farthing.usage import read_usage

MAKE = runpy.run_path(str(Path(__file__).parent / "importers" / "generate.py"))
NOW = datetime(2026, 11, 22, tzinfo=UTC)
MAROT = "data/claude_code/marot_spotter/test/fixtures/transcripts"
SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


def read_all(path, **options):
    """(batches, calls) of a path, after the ledger's rule."""
    batches = list(read_paths([str(path)], now=NOW, **options))
    calls = Calls()
    for batch in batches:
        calls.extend(batch.usages)
    return batches, calls


def written(tmp_path, lines):
    path = tmp_path / "log.json.gz"
    path.write_bytes(gzip.compress(MAKE["lines"](lines)))
    return path


@pytest.fixture(scope="module")
def marot(shared):
    return read_all(shared / MAROT)


# --- transcripts ---------------------------------------------------------------------------------------------------


def rows(folder):
    """The lines of the marot set that hold usage, read the slow way."""
    for path in sorted(folder.rglob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            record = json.loads(line)
            inner = record.get("data", {}).get("message") if record["type"] == "progress" else record
            message = inner.get("message") if isinstance(inner, dict) else None
            if isinstance(message, dict) and message.get("usage"):
                yield record["type"], inner, message


def test_marot_calls(shared, marot):
    """1,824 rows are 899 calls; five more are seen only in progress records (FORMATS.md 6)."""
    batches, calls = marot
    kinds = Counter(kind for kind, _, _ in rows(shared / MAROT))
    assert kinds["assistant"] == 1824
    assert sum(batch.read for batch in batches) == kinds.total()
    assert sum(batch.rejected for batch in batches) == 0
    in_rows = {message["id"] for kind, _, message in rows(shared / MAROT) if kind == "assistant"}
    only = [usage for usage in calls.best if usage.message_id not in in_rows]
    assert (len(in_rows), len(only), len(calls.best)) == (899, 5, 904)
    assert all(usage.sidechain for usage in only)


def test_marot_tokens(shared, marot):
    """Each call has the counts of its fullest copy."""
    _, calls = marot
    best: dict[str, dict] = {}
    in_rows = set()
    for kind, _, message in rows(shared / MAROT):
        block = message["usage"]
        fuller = block["output_tokens"] > best.get(message["id"], block)["output_tokens"]
        best[message["id"]] = block if fuller else best.get(message["id"], block)
        in_rows |= {message["id"]} if kind == "assistant" else set()
    wanted = {name: tuple(read_usage(block).parts[0].tokens) for name, block in best.items()}
    assert {usage.message_id: usage.parts[0][1] for usage in calls.best} == wanted
    sums = [sum(column) for column in zip(*(wanted[name] for name in in_rows), strict=True)]
    assert sums[1] == 195_794
    assert round(sums[2] / 1e6, 1) == 77.3


def test_marot_facts(marot):
    _, calls = marot
    facts = {usage.parts[0][0] for usage in calls.best}
    assert {fact.source for fact in facts} == {"claude_code"}
    assert {fact.platform for fact in facts} == {"anthropic"}
    assert {fact.mode for fact in facts} == {""}
    assert {fact.model_id for fact in facts} == {
        "claude-opus-4-6",
        "claude-haiku-4-5-20251001",
        "claude-sonnet-4-5-20250929",
    }
    assert all(fact.session and fact.project.startswith("/home/") for fact in facts)
    assert all(len(usage.parts) == 1 and not usage.tags for usage in calls.best)


def test_marot_is_the_same_by_file_and_by_workers(shared, marot, monkeypatch):
    from farthing.importers import _reading

    monkeypatch.setattr(_reading, "SPLIT_BYTES", 1 << 20)
    monkeypatch.setattr(_reading, "RANGE_BYTES", 1 << 20)
    batches, calls = read_all(shared / MAROT, workers=2)
    assert {u.message_id: u.parts for u in calls.best} == {u.message_id: u.parts for u in marot[1].best}
    assert sum(batch.read for batch in batches) == sum(batch.read for batch in marot[0])
    files = [file for batch in batches for file in batch.files]
    assert len(files) == len(list((shared / MAROT).rglob("*.jsonl")))


def test_every_version_of_the_samples(shared):
    """One line of each kind, v1.0.31 to 2.0.42: twenty have usage. JSON over several lines is skipped in folders."""
    folder = shared / "data/claude_code/claude_code_log_samples"
    batches, calls = read_all(folder)
    files = [file for batch in batches for file in batch.files]
    assert sum(batch.read for batch in batches) == 20
    assert not [file for file in files if file.error or file.rejected]
    assert {file.format for file in files} == {"claude_code"}
    lines = list(folder.rglob("*.jsonl"))
    assert len(files) == len(lines)
    others = [path for path in folder.rglob("*") if path.is_file() and path not in lines]
    assert sum(batch.skipped for batch in batches) == len(others)
    assert 0 < len(calls.best) <= 20


def test_a_transcript_without_usage_is_no_error(shared):
    batches, _ = read_all(shared / "data/claude_code/simonw/tests/sample_session.jsonl")
    (file,) = [file for batch in batches for file in batch.files]
    assert (file.format, file.read, file.error) == ("claude_code", 0, "")


@pytest.mark.parametrize(
    "folder", ["mooncake", "lmcache_agent_traces", "azure_llm", "focus", "cur", "usage_objects"]
)
def test_other_data_is_not_taken_for_usage(shared, folder):
    batches, _ = read_all(shared / "data" / folder)
    (file,) = [file for batch in batches for file in batch.files]
    assert "has a known format" in file.error
    assert sum(batch.read for batch in batches) == 0
    assert sum(batch.skipped for batch in batches) == sum(
        path.is_file() for path in (shared / "data" / folder).rglob("*")
    )


# --- answers of Bedrock, put into log records ----------------------------------------------------------------------


def usages(shared):
    for one in json.loads((shared / "data/usage_objects/usages.json").read_bytes()):
        block = one["body"].get("usage")
        if isinstance(block, dict):
            yield one["body"], block


def test_real_blocks_count_as_read_usage_does(shared):
    seen = 0
    for _, block in usages(shared):
        try:
            typed = msgspec.convert(block, Block)
        except msgspec.ValidationError:
            continue
        if says_something(typed) and "prompt_tokens" not in block and not typed.iterations:
            read = read_usage(block)
            assert counts(typed) == (tuple(read.parts[0].tokens), "ttl" in read.assumed)
            seen += 1
    assert seen > 400


@pytest.mark.parametrize("at_top", [True, False])
def test_converse_answers(shared, tmp_path, at_top):
    """`totalTokens` is the sum of the disjoint counts, in every recorded answer (FORMATS.md 1.3)."""
    blocks = [block for _, block in usages(shared) if "inputTokens" in block]
    records = []
    for n, block in enumerate(blocks):
        told = {
            "input__inputTokenCount": block["inputTokens"],
            "output__outputTokenCount": block["outputTokens"],
        }
        absent = {"input__inputTokenCount": None, "output__outputTokenCount": None}
        records.append(MAKE["log"](n, {"usage": block}, operation="Converse", **(told if at_top else absent)))
    _, calls = read_all(written(tmp_path, records))
    assert len(calls.best) == len(blocks) > 100
    for usage in calls.best:
        block = blocks[int(usage.request_id[-12:])]
        assert sum(usage.parts[0][1]) == block["totalTokens"]
        assert usage.parts[0][1][2] == block.get("cacheReadInputTokens", 0)


def recorded(shared):
    """(operation, model, usage) of the exchanges with Bedrock Runtime that were kept as text."""
    for path in sorted((shared / "data/api_responses").rglob("*.yaml")):
        for exchange in re.split(r"^- request:", path.read_text(), flags=re.MULTILINE)[1:]:
            called = re.search(r"uri: https://bedrock-runtime.*/model/(\S+)/(converse|invoke)\s", exchange)
            block = re.search(r"^      usage:\n((?:        .*\n)+)", exchange, re.MULTILINE)
            if called and block:
                yield called[2], called[1].replace("%3A", ":"), indented(block[1].splitlines())


def indented(lines):
    """Of YAML, as much as a usage block needs: numbers, words, an object or a list of objects inside."""
    block: dict = {}
    name = ""
    for line in lines:
        item = line.strip().startswith("- ")
        key, _, value = line.strip().removeprefix("- ").partition(":")
        if item:
            block[name] = [*block[name], {}]
        holder: dict = block
        if item or line.startswith(" " * 9):
            holder = block[name][-1] if isinstance(block[name], list) else block[name]
        else:
            name = key
        text = value.strip()
        holder[key] = int(text) if text.isdigit() else {} if text in ("", "{}") else text
    return block


def test_recorded_exchanges(shared, tmp_path):
    exchanges = list(recorded(shared))
    assert {operation for operation, _, _ in exchanges} == {"converse", "invoke"}
    records = [
        MAKE["log"](
            n,
            {"usage": block},
            modelId=model,
            operation={"converse": "Converse", "invoke": "InvokeModel"}[operation],
            input__inputTokenCount=None,
            output__outputTokenCount=None,
        )
        for n, (operation, model, block) in enumerate(exchanges)
    ]
    batches, calls = read_all(written(tmp_path, records))
    assert sum(batch.rejected for batch in batches) == 0
    assert len(calls.best) == len(exchanges) > 15
    cached = 0
    for usage in calls.best:
        _, model, block = exchanges[int(usage.request_id[-12:])]
        ((facts, tokens),) = usage.parts
        assert facts.model_id == model
        assert tokens == tuple(read_usage(block).parts[0].tokens)
        assert sum(tokens) == block.get("totalTokens", sum(tokens))
        cached += tokens[2] + tokens[3] + tokens[4]
    assert cached > 10_000


def test_the_real_log_record(shared, tmp_path):
    """A ConverseStream call of Nova, as AWS wrote it: printed over lines, so it is put on one first."""
    text = (shared / "data/bedrock_invocation_logs/other/dheerajoruganty_setup.md").read_text()
    record = json.loads(text[text.index("{") :])
    _, calls = read_all(written(tmp_path, [record]))
    (usage,) = calls.best
    ((facts, tokens),) = usage.parts
    assert tokens == (4, 38, 0, 0, 0)
    assert (facts.model_id, facts.region, facts.operation) == (
        "amazon.nova-lite-v1:0",
        "us-east-1",
        "ConverseStream",
    )
    assert facts.principal.endswith(":user/dheeraj")
    assert (usage.request_id, usage.latency_ms) == ("ff4b6c63-5561-4431-93b8-06a817275900", 302)
    assert f"{usage.at:%Y-%m-%d %H:%M:%S}" == "2025-03-11 00:38:02"


@pytest.mark.parametrize("streamed", [True, False])
def test_passes_of_real_calls(shared, tmp_path, streamed):
    """Compaction and advisors are billed beyond what the counts at the top say (FORMATS.md 5)."""
    bodies = [body for body, block in usages(shared) if block.get("iterations")]
    records = []
    for n, body in enumerate(bodies):
        answer = {"id": f"msg_bdrk_{n}", "model": body["model"], "usage": body["usage"]}
        events = [
            {"type": "message_start", "message": answer | {"usage": {"input_tokens": 1, "output_tokens": 1}}},
            {"type": "message_delta", "usage": body["usage"]},
        ]
        records.append(
            MAKE["log"](
                n,
                events if streamed else answer,
                modelId=SONNET,
                input__inputTokenCount=body["usage"]["input_tokens"],
                output__outputTokenCount=body["usage"]["output_tokens"],
            )
        )
    _, calls = read_all(written(tmp_path, records))
    assert len(calls.best) == len(bodies) == 8
    for usage in calls.best:
        body = bodies[int(usage.request_id[-12:])]
        passes = body["usage"]["iterations"]
        assert len(usage.parts) == len(passes)
        assert sum(tokens[0] for _, tokens in usage.parts) == sum(one["input_tokens"] for one in passes)
        models = [one.get("model", SONNET) for one in passes]
        assert [facts.model_id for facts, _ in usage.parts] == models
        if "compaction" in [one["type"] for one in passes] and "with_cache" in body["file"]:
            assert sum(tokens[3] + tokens[4] for _, tokens in usage.parts) == 55_096
