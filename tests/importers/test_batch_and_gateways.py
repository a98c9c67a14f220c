"""Batch results and gateways: jobs found beside their results, documents of any layout, one call under many records."""

import gzip
import json
import os
import runpy
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.aws import Access
from farthing.importers import (
    Reject,
    _open,
    _reading,
    _task,
    bedrock_batch,
    bedrock_log,
    langfuse,
    litellm,
    read_paths,
)
from farthing.importers._documents import Record, records
from farthing.importers._gateway import claude
from farthing.importers._open import Numbered, in_lines
from farthing.ledger import Ledger
from tests.s3_server import Bucket, serving

HERE = Path(__file__).parent
LOG = runpy.run_path(str(HERE / "generate.py"))
MAKE = runpy.run_path(str(HERE / "generate_batch.py"))
NOW = datetime(2026, 3, 3, tzinfo=UTC)
END_US = 1772443800_500_000  # of the job that MAKE describes


def imported(*paths, **options):
    """(usages, totals, files by name)"""
    batches = list(read_paths([str(path) for path in paths], **{"now": NOW, "workers": 0, **options}))
    files = {Path(file.path).name: file for batch in batches for file in batch.files}
    return [u for b in batches for u in b.usages], [t for b in batches for t in b.totals], files


def facts(usage):
    return usage.parts[0][0]


def tokens(usage):
    return usage.parts[0][1]


def read(form, *documents):
    """What a format makes of records, one a line."""
    return list(form.read(Numbered(iter([MAKE["lines"](documents)])), "-"))


def call(form, document):
    return read(form, document)[0]


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


# --- batches -------------------------------------------------------------------------------------------------------


def output(folder, job_id="a1b2c3d4e5f6", results=None, name="prompts.jsonl.out"):
    """The results of a job, as old as they would be."""
    path = written(folder / job_id / name, MAKE["lines"](results or MAKE["invoke"]()))
    os.utime(path, (1772400000, 1772400000))
    return path


@pytest.mark.parametrize(
    "place", ["a1b2c3d4e5f6/job.json", "a1b2c3d4e5f6.json", "my-jobs.json", "a1b2c3d4e5f6/job.json.gz"]
)
def test_a_job_is_described_beside_its_results(tmp_path, place):
    other = MAKE["job"](jobArn=MAKE["JOB"].replace("a1b2", "ffff"), endTime="2026-01-01T00:00:00Z")
    described = {"invocationJobSummaries": [other, MAKE["job"]()]} if "jobs" in place else MAKE["job"]()
    content = json.dumps(described, indent=4).encode()
    path = output(tmp_path / "out")
    written(tmp_path / "out" / place, gzip.compress(content) if place.endswith(".gz") else content)
    usages, _, _ = imported(path)
    assert {usage.at_us for usage in usages} == {END_US}
    assert {(facts(usage).account, facts(usage).region, facts(usage).assumed) for usage in usages} == {
        ("111122223333", "eu-west-1", "")
    }
    assert usages[0].gateway_id == "a1b2c3d4e5f6/CALL0000001"


def test_without_a_description_the_time_is_the_files_and_assumed(tmp_path):
    usages, _, _ = imported(output(tmp_path))
    assert {(usage.at_us, facts(usage).assumed) for usage in usages} == {(1772400000_000_000, "at")}
    assert facts(usages[0]).model_id == "claude-sonnet-4-6"
    assert facts(usages[2]).model_id == "claude-sonnet-4-6"  # of an error: the model of the answer before it


def test_a_copy_with_another_time_and_a_description_that_comes_later_are_the_same_calls(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    path = output(tmp_path / "out")
    assert ledger.append(imported(path)[0]).imported == 8
    os.utime(path, (1771000000, 1771000000))
    assert ledger.append(imported(path)[0]).imported == 0
    written(
        path.parent / "job.json",
        MAKE["job"](endTime="2026-03-01T00:00:00Z", submitTime="2026-03-01T00:00:00Z"),
    )
    assert ledger.append(imported(path)[0]).imported == 0
    assert ledger.rows().aggregate("sum(input), sum(output)").fetchall() == [(400, 74)]
    (kept, *_) = ledger.known(imported(path)[0][:1])
    assert (facts(kept).model_id, facts(kept).assumed) == ("anthropic.claude-sonnet-4-6", "")
    assert f"{kept.at:%Y-%m-%d}" == "2026-03-01"


def test_a_description_of_another_job_is_not_taken(tmp_path):
    path = output(tmp_path, "ffffffffffff")
    written(path.parent / "job.json", MAKE["job"]())
    assert facts(imported(path)[0][0]).assumed == "at"


def test_results_without_a_file_have_no_time():
    rejected = read(bedrock_batch, *MAKE["invoke"]())
    assert len(rejected) == 8
    assert "as job.json" in rejected[0].reason


def test_a_job_in_a_bucket_is_described_there(tmp_path, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "made-up-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    results = MAKE["lines"](MAKE["conversed"]())
    with serving(Bucket()) as bucket:
        bucket.objects["out/a1b2c3d4e5f6/prompts.jsonl.out"] = results
        bucket.objects["out/a1b2c3d4e5f6/job.json"] = json.dumps(MAKE["job"]()).encode()
        bucket.objects["out/ffffffffffff/other.jsonl.out"] = results
        access = Access(endpoint_url=bucket.url)
        usages, _, files = imported("s3://logs/out", access=access)
    assert {usage.at_us for usage in usages} == {END_US}
    assert len(usages) == 5
    assert {name: file.rejected for name, file in files.items() if file.rejected} == {"other.jsonl.out": 5}


def test_records_of_two_jobs_are_two_calls_and_a_copy_is_none(tmp_path):
    """Answers of Converse have no id of their own, and people number their records alike."""
    for job_id in ("a1b2c3d4e5f6", "ffffffffffff"):
        output(tmp_path / "out", job_id, list(MAKE["conversed"]()))
        arn = MAKE["JOB"].replace("a1b2c3d4e5f6", job_id)
        written(tmp_path / "out" / job_id / "job.json", MAKE["job"](jobArn=arn))
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.append(imported(tmp_path / "out")[0]).imported == 10
    (tmp_path / "out").rename(tmp_path / "copy")
    again = ledger.append(imported(tmp_path / "copy")[0])
    assert (again.imported, again.duplicates) == (0, 10)


def test_a_folder_of_a_job_is_read_without_its_input(tmp_path):
    path = output(tmp_path)
    written(path.parent / "manifest.json.out", MAKE["MANIFEST"])
    written(path.parent / "job.json", MAKE["job"]())
    given = [{"recordId": "CALL0000001", "modelInput": {"messages": MAKE["PROMPT"]}}]
    written(path.parent / "prompts.jsonl", MAKE["lines"](given))
    usages, totals, files = imported(tmp_path)
    assert set(files) == {"prompts.jsonl.out", "manifest.json.out", "job.json"}
    assert len(usages) == 8
    assert {(total.name, total.value) for total in totals} == {
        ("calls", 6), ("errors", 2), ("input", 330), ("output", 65)
    }  # fmt: skip
    ledger = Ledger(tmp_path / "ledger")
    ledger.note_totals(totals, NOW)
    assert ledger.totals().shape[0] == 4  # what the job and its manifest both say is said once
    # Answers of other vendors' models, whose counts have other names, are none of ours.
    nova = written(tmp_path / "a0a0a0a0a0a0/x.jsonl.out", MAKE["result"](1, {"results": [{"tokenCount": 3}]}))
    arn = MAKE["JOB"].replace("a1b2c3d4e5f6", "a0a0a0a0a0a0")
    written(nova.parent / "job.json", MAKE["job"](jobArn=arn, modelId="amazon.titan-text-v1"))
    assert imported(nova)[0] == []


def test_passes_of_other_models_are_parts(tmp_path):
    advisor = LOG["usage"](2518, 22) | {"type": "advisor_message", "model": "claude-opus-5"}
    block = LOG["usage"](iterations=[LOG["usage"]() | {"type": "message"}, advisor])
    path = output(tmp_path, results=[MAKE["result"](1, LOG["message"](1, **block))])
    written(path.parent / "job.json", MAKE["job"]())
    (usage,), _, _ = imported(path)
    assert [(said.model_id, counted[:2]) for said, counted in usage.parts] == [
        ("anthropic.claude-sonnet-4-6", (100, 20)),
        ("claude-opus-5", (2518, 22)),
    ]


def test_a_long_prompt_does_not_hide_a_result():
    long = json.dumps({"modelInput": {"text": "x" * 100_000}, "modelOutput": {}}).encode()
    assert _task.recognise(long[: _open.HEAD_BYTES]) == "bedrock_batch"


# --- documents -----------------------------------------------------------------------------------------------------


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text('{}[]",:\\ \n\u2028x', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab{", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
ROWS = st.lists(st.fixed_dictionaries({"n": st.integers(0, 9), "v": VALUES}), min_size=1, max_size=4)
LAYOUTS: dict[str, Callable[[list[object]], str]] = {
    "lines": lambda rows: "\n".join(map(json.dumps, rows)),
    "spaced": lambda rows: "\n\n".join(json.dumps(row) for row in rows) + "\r\n",
    "array": json.dumps,
    "array, one a line": lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
    "array, begun at once": lambda rows: "[" + ",\n".join(map(json.dumps, rows)) + "]",
    "printed": lambda rows: json.dumps(rows, indent=2),
    "printed flat": lambda rows: json.dumps(rows, indent=0),
    "printed, one after another": lambda rows: "\n".join(json.dumps(row, indent=4) for row in rows),
    "page": lambda rows: json.dumps({"data": rows, "meta": {"page": 1}}),
    "page, printed": lambda rows: json.dumps({"data": rows, "meta": {"page": 1}}, indent=4),
    "pages": lambda rows: "\n".join(json.dumps({"data": [row], "has_more": True}) for row in rows),
}


def found(text):
    """The rows, and how many rejections."""
    items = list(records(Numbered(iter([text.encode()]))))
    rows = [
        {name: json.loads(bytes(raw)) for name, raw in r.fields.items()}
        for r in items
        if isinstance(r, Record)
    ]
    return rows, sum(isinstance(item, Reject) for item in items)


@given(ROWS, st.sampled_from(list(LAYOUTS)))
def test_records_are_found_in_any_layout(rows, layout):
    assert found(LAYOUTS[layout](rows)) == (rows, 0)


@given(ROWS, st.sampled_from(list(LAYOUTS)), st.integers(1, 400))
def test_what_is_cut_short_loses_its_end_alone(rows, layout, cut):
    """Half an upload: what comes before the cut counts, and the cut is told unless it falls between records."""
    text = LAYOUTS[layout](rows)
    left, rejects = found(text[:-cut])
    assert left == rows[: len(left)]
    assert (
        rejects
        or len(left) == len(rows)
        or text[:-cut].rstrip().endswith(("}", "},", "["))
        or not text[:-cut].strip()
    )


def test_a_record_cut_short_takes_none_with_it():
    for torn in ('{"n": 1, "v": "x', '{"n": 1, "v": {', '{"n": 1, "v": ['):
        assert found(f'{{"n": 0}}\n{torn}\n{{"n": 2}}\n') == ([{"n": 0}, {"n": 2}], 1)


def test_a_document_that_is_too_long_is_one_rejection(monkeypatch):
    monkeypatch.setattr("farthing.importers._documents.MAX_LINE_BYTES", 60)
    long = json.dumps({"n": [list(range(40))]}, indent=1)
    assert found(f'{long}\n{{"n": 1}}\n') == ([{"n": 1}], 1)


def test_large_documents_are_read_whole(tmp_path, monkeypatch):
    """Files of lines are read in ranges; documents over many lines, and tables with their header, are not."""
    monkeypatch.setattr(_reading, "SPLIT_BYTES", 1000)
    monkeypatch.setattr(_reading, "RANGE_BYTES", 700)
    rows = [MAKE["spent"](n) for n in range(40)]
    seen = [MAKE["observation"](n) for n in range(40)]
    written(tmp_path / "rows.json", json.dumps(rows, indent=2).encode())
    written(tmp_path / "rows.csv", MAKE["table"](rows))
    written(tmp_path / "seen.json", json.dumps({"data": seen}, indent=2).encode())
    for path in tmp_path.iterdir():
        usages, _, _ = imported(path)
        assert len(usages) == 40, path
    written(tmp_path / "rows.jsonl", MAKE["lines"](rows))
    assert len(imported(tmp_path / "rows.jsonl")[0]) == 40


@pytest.mark.parametrize(("head", "wanted"), [
    (b'{"a": 1}\n{', True), (b'2026-03-02T09:30:00Z {"a": 1}\n', True), (b'\n{"a": 1', True),
    (b"[\n{", False), (b'[{"a": 1}, {', False), (b"{\n", False), (b'{"data": [\n', False), (b"a,b\n1,2\n", False),
])  # fmt: skip
def test_in_lines(head, wanted):
    assert in_lines(head) is wanted


# --- gateways ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "provider", "wanted"), [
    ("bedrock/eu.anthropic.claude-sonnet-4-6", "bedrock", ("bedrock", "eu.anthropic.claude-sonnet-4-6", "")),
    ("bedrock/converse/us-east-1/anthropic.claude-v2", "", ("bedrock", "anthropic.claude-v2", "us-east-1")),
    ("claude-sonnet-4-6", "aws.bedrock", ("bedrock", "claude-sonnet-4-6", "")),
    ("anthropic/claude-opus-4-8", "", ("anthropic", "claude-opus-4-8", "")),
    ("claude-opus-4-8", "anthropic", ("anthropic", "claude-opus-4-8", "")),
    ("claude-opus-4-8", "", ("", "claude-opus-4-8", "")),
    ("openrouter/anthropic/claude-opus-4-8", "openrouter", None),
    ("claude-opus-4-8", "vertex_ai", None),
    ("amazon.nova-pro-v1:0", "bedrock", None),
    ("gpt-5.6", "openai", None),
])  # fmt: skip
def test_whose_claude_it_was(model, provider, wanted):
    assert claude(model, provider) == wanted


def test_a_prompt_that_is_smaller_than_what_was_cached_excludes_it():
    used = MAKE["counted"](100, 20, 5000, 300, 200) | {"prompt_tokens": 100}
    assert tokens(call(litellm, MAKE["spent"](1, used))) == (100, 20, 5000, 300, 200)


def test_no_key_is_kept():
    row = MAKE["spent"](1, api_key="sk-secret", metadata__user_api_key="sk-secret")
    assert "sk-secret" not in repr(read(litellm, row))
    assert "88dc28d0" not in repr(read(litellm, MAKE["spent"](1)))
    seen = MAKE["observation"](1, metadata__user_api_key="sk-secret", metadata__authToken="sk-secret")
    assert "sk-secret" not in repr(read(langfuse, seen))


def test_what_litellm_spent_is_exact():
    rows = [MAKE["spent"](n, spend=0.1) for n in range(3)]
    *_, total = read(litellm, *rows)
    assert (total.name, total.value) == ("usd", 3 * 10**11)
    assert total.end_us - total.start_us == 2_000_001


LINES = [
    json.dumps(one).encode()
    for make in (
        "invoke",
        "conversed",
        "anthropic",
        "spend_logs",
        "callbacks",
        "observations",
        "scheduled",
        "traces",
    )
    for one in MAKE[make]()
]
MUTATED = st.tuples(
    st.sampled_from(LINES), st.integers(0, 2000), st.integers(0, 40), st.binary(max_size=12)
).map(lambda t: t[0][: t[1]] + t[3] + t[0][t[1] + t[2] :])


@given(
    st.lists(MUTATED | st.binary(max_size=80), max_size=9),
    st.sampled_from([bedrock_batch, litellm, langfuse]),
)
def test_no_line_can_stop_a_format(lines, form):
    data = b"\n".join(lines)
    items = list(form.read(Numbered(iter([data])), str(HERE / "bedrock_batch.x")))
    assert not any(LOG["TEXT"] in repr(item) for item in items)


# --- one call, seen by several -------------------------------------------------------------------------------------

REQUEST = "00000000-0000-4000-8000-000000000001"


def logged():
    """The invocation log of a call whose id is `REQUEST` and whose message is msg_bdrk_0001."""
    answer = LOG["message"](1, **LOG["usage"](100, 20, 5000, 300, 200))
    return call(bedrock_log, LOG["top"](1, answer, read=5000, written=500))


SEEN = {
    "spend log of a message": lambda: call(
        litellm, MAKE["spent"](1, MAKE["counted"](90, 19, 5000, 500, split=False), request_id="msg_bdrk_0001")
    ),
    "callback with the request's id": lambda: call(litellm, MAKE["payload"](1, {}, MAKE["counted"](90, 19))),
    "callback with the message": lambda: call(
        litellm, MAKE["payload"](1, LOG["message"](1), hidden_params=None, metadata__usage_object=None)
    ),
    "generation of a message": lambda: call(
        langfuse, MAKE["observation"](1, id="time-09-30-01-125000_msg_bdrk_0001")
    ),
    "generation with its answer": lambda: call(
        langfuse, MAKE["observation"](1, output={"id": "msg_bdrk_0001"})
    ),
    "generation with the request's id": lambda: call(
        langfuse, MAKE["observation"](1, metadata__attributes={"aws.request_id": REQUEST})
    ),
}


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("log_first", [True, False])
def test_a_gateways_record_and_the_log_are_one_call(tmp_path, seen, log_first):
    """The counts are the log's, whichever came first; who it was for is the gateway's."""
    theirs, ours = SEEN[seen](), logged()
    assert tokens(theirs) != tokens(ours)
    ledger = Ledger(tmp_path)
    for one in (ours, theirs) if log_first else (theirs, ours):
        ledger.append([one])
    (kept,) = ledger.known([ours, theirs])
    assert facts(kept).source == "bedrock_log"
    assert tokens(kept) == (100, 20, 5000, 300, 200)
    assert dict(kept.tags)["user"] == "ann"
    assert {name for one in (ours, theirs) for name in one.ids} == set(kept.ids)
    net = ledger.rows().aggregate("sum(input), sum(CASE WHEN reversal THEN -1 ELSE 1 END)").fetchall()
    assert net == [(100, 1)]


def rows_of_one_call():
    """What LiteLLM's database and callback, and Langfuse behind them, say of a call that shares no id with a log."""
    return [
        call(litellm, MAKE["spent"](1, metadata__litellm_call_id="call-1")),
        call(
            litellm,
            MAKE["payload"](1, {}, startTime=1772443801.125, hidden_params={"litellm_call_id": "call-1"}),
        ),
        call(langfuse, MAKE["observation"](1, id="time-09-30-01-125000_chatcmpl-0001")),
    ]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_gateways_records_of_a_call_are_one(tmp_path, order):
    given_ = rows_of_one_call()
    ledger = Ledger(tmp_path)
    for i in order:
        ledger.append([given_[i]])
    (kept,) = ledger.known(given_)
    assert facts(kept).source == "langfuse"
    assert tokens(kept) == (100, 20, 0, 0, 0)


def test_what_was_not_sent_is_not_the_call_it_repeats(tmp_path):
    """LiteLLM's own cache gives the old answer's id, and a call's attempts share an id of theirs."""
    first = MAKE["payload"](1, {"id": "chatcmpl-0001"})
    hit = MAKE["payload"](1, {"id": "chatcmpl-0001"}, cache_hit=True, startTime=1772443900.0)
    failed = MAKE["payload"](
        1, None, id="call-1", status="failure", startTime=1772443700.0, hidden_params=None
    )
    ledger = Ledger(tmp_path)
    assert ledger.append([call(litellm, one) for one in (first, hit, failed)]).imported == 3
    (calls, prompt) = ledger.rows().aggregate("count(*), sum(input)").fetchall()[0]
    assert (calls, prompt) == (3, 100)
