"""Telemetry and the outbox: one call told many times is one call, and what is only a control is never usage."""

import json
import random
import re
import runpy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing import outbox
from farthing.importers import _otlp, _otlp_spans, claude_code_events, otel, read_paths
from farthing.importers import outbox as outbox_
from farthing.importers._open import Numbered
from farthing.ledger import RANK, Ledger
from farthing.usage import MAX_TOKENS, Rejected, Usage

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MAKE = runpy.run_path(str(HERE / "generate_telemetry.py"))
LOGS = runpy.run_path(str(HERE / "generate.py"))
NOW = datetime(2026, 3, 3, tzinfo=UTC)


def read(tmp_path, *contents):
    """(usages, totals, rejects) of files with these contents, read in one go."""
    paths = []
    for n, content in enumerate(contents):
        paths.append(tmp_path / f"{n}.jsonl")
        paths[-1].write_bytes(content if isinstance(content, bytes) else MAKE["lines"](content))
    batches = list(read_paths([str(path) for path in paths], now=NOW, workers=0))
    assert not [file.error for batch in batches for file in batch.files if file.error]
    rejects = [reject.reason for batch in batches for file in batch.files for reject in file.rejects]
    usages = [usage for batch in batches for usage in batch.usages]
    return usages, [total for batch in batches for total in batch.totals], rejects


def present(folder):
    """The calls of a ledger as they stand, each as it has its facts and its first part's tokens."""
    ledger = Ledger(folder)
    con = ledger.connection
    con.register("r", ledger.rows())
    con.register("c", ledger.contexts())
    return con.execute("""
        SELECT source, principal, session, status, sum(calls), sum(input), sum(output), sum(cache_read),
               sum(cache_write_5m), sum(cache_write_1h), max(assumed)
        FROM r JOIN c USING (ctx) GROUP BY ALL HAVING sum(calls) <> 0 ORDER BY ALL""").fetchall()


# --- spans ---------------------------------------------------------------------------------------------------------


def a_call(tmp_path, prompt, read_, written, scope, version, **more):
    said = MAKE["call"](prompt, 20, read_, written) | more
    (usage,), _, rejects = read(
        tmp_path, [MAKE["spans"](MAKE["span"](1, said), scope=scope, version=version)]
    )
    assert not rejects
    ((facts, tokens),) = usage.parts
    return tokens[0], tokens[2:], facts.assumed


@pytest.mark.parametrize(
    ("scope", "version", "fresh", "assumed"),
    [
        (MAKE["BOTOCORE"], "0.66b2", 5000, "ttl"),
        (MAKE["BOTOCORE"], "0.67b0", 3700, "ttl,input_includes_cache"),
        ("opentelemetry.instrumentation.bedrock", "0.62.3", 5000, "ttl"),
        (MAKE["ANTHROPIC"], "0.62.4", 3700, "ttl"),
        ("opentelemetry.instrumentation.anthropic", None, 3700, "ttl,input_includes_cache"),
        ("unheard.of", "1.0", 3700, "ttl,input_includes_cache"),
    ],
)
def test_the_scope_says_whether_input_includes_the_cache(tmp_path, scope, version, fresh, assumed):
    assert a_call(tmp_path, 5000, 1000, 300, scope, version) == (fresh, (1000, 300, 0), assumed)


@pytest.mark.parametrize("scope", [MAKE["BOTOCORE"], MAKE["ANTHROPIC"], "unheard.of"])
def test_a_span_s_own_sums_come_before_what_is_known_of_its_scope(tmp_path, scope):
    assert a_call(tmp_path, 12, 1000, 300, scope, "0.62.0") == (12, (1000, 300, 0), "ttl")
    total = {"gen_ai.usage.total_tokens": 5000 + 1300 + 20}
    assert a_call(tmp_path, 5000, 1000, 300, scope, "0.62.0", **total)[0] == 5000


@pytest.mark.parametrize("name", ["cache_creation.input", "cache_write.input", "cache_creation_input"])
def test_cache_writes_by_any_spelling(tmp_path, name):
    said = {f"gen_ai.usage.{name}_tokens": 300}
    assert a_call(tmp_path, 12, 1000, None, "unheard.of", "1", **said) == (12, (1000, 300, 0), "ttl")


def nested_calls(order):
    """Framework, graph and SDK around one call, exported in some order and batch by batch."""
    made = MAKE["span"], MAKE["call"]
    span, call = made
    some = [
        span(1, call(12, 20, 1000) | MAKE["aws"](1), parent=2),
        span(2, {"http.method": "POST"}, parent=3),
        span(3, call(1012, 20, 1000, user__id="ann"), parent=4),
        span(4, call(12, 20, session__id="s-1"), parent=5),
        span(5, call(12, 20) | {"gen_ai.operation.name": "invoke_agent"}),
        span(6, call(12, 20, 1000) | MAKE["aws"](6), parent=5),  # the next turn, by chance as long
    ]
    return [MAKE["spans"](some[n], scope="unheard.of") for n in order]


def test_nested_spans_are_one_call_in_any_order(tmp_path):
    for seed in range(20):
        order = random.Random(seed).sample(range(6), 6)
        usages, _, _ = read(tmp_path, nested_calls(order))
        assert sorted(usage.request_id[-1] for usage in usages) == ["1", "6"], order
        told = next(usage for usage in usages if usage.request_id.endswith("1"))
        ((facts, tokens),) = told.parts
        assert (tokens, facts.principal, facts.session) == ((12, 20, 1000, 0, 0), "ann", "s-1")
        assert told.gateway_id == f"{1:016x}"


def test_spans_that_are_held_are_bounded():
    spans = _otlp_spans.Spans(most_held=10)
    settled: list[Usage] = []
    for n in range(100):
        found = msgspec.convert(MAKE["span"](n, MAKE["call"](n, 5), trace=str(n // 2)), _otlp.Span)
        settled += spans.add(found, None, {})
        assert n + 1 - len(settled) <= 10
    assert [usage.parts[0][1][0] for usage in (*settled, *spans.rest())] == list(range(100))


def test_a_span_and_the_log_of_its_request_are_one_call(tmp_path):
    span = MAKE["span"](1, MAKE["call"](12, 20) | MAKE["aws"](1) | {"session.id": "s-1"})
    usages, _, _ = read(tmp_path, [MAKE["spans"](span)], [LOGS["top"](1, None, read=1000)])
    Ledger(tmp_path / "ledger").append(usages)
    (row,) = present(tmp_path / "ledger")
    assert row[0] == "bedrock_log"
    assert row[2:8] == ("s-1", "", 1, 100, 20, 1000)


# --- Claude Code ---------------------------------------------------------------------------------------------------


def outputs(folder):
    """What the ledger's control totals say of output, in all."""
    found = Ledger(folder).totals().filter("name = 'output' AND source = 'claude_code_metrics'")
    return found.aggregate("coalesce(sum(value), 0)::BIGINT").fetchall()[0][0]


def test_metrics_and_events_of_a_session_are_not_both_usage(tmp_path):
    usages, totals, _ = read(tmp_path, MAKE["mixed"]())
    Ledger(tmp_path / "ledger").append(usages)
    Ledger(tmp_path / "ledger").note_totals(totals, NOW)
    (row,) = present(tmp_path / "ledger")  # the event and the span share their request
    assert row[0] == "claude_code_events"
    assert row[4:9] == (1, 3, 50, 20000, 800)
    assert outputs(tmp_path / "ledger") == 50


POINTS = [(0, 60, 100), (0, 120, 250), (0, 180, 400), (600, 660, 30), (600, 720, 70)]


@pytest.mark.parametrize("seed", range(8))
def test_cumulative_series_over_files_in_any_order_count_once(tmp_path, seed):
    """Each file has some of the points; files come in any order, and one comes again."""
    rng = random.Random(seed)
    points = rng.sample(POINTS, len(POINTS))
    cuts = sorted(rng.sample(range(1, len(points)), 2))
    files = [points[: cuts[0]], points[cuts[0] : cuts[1]], points[cuts[1] :]]
    for n, some in enumerate([*files, files[0]]):
        _, totals, rejects = read(tmp_path, [MAKE["growing"](point) for point in sorted(some)])
        assert not rejects
        Ledger(tmp_path / "ledger").note_totals(totals, NOW + timedelta(minutes=n))
    assert outputs(tmp_path / "ledger") == 400 + 70


def test_deltas_count_once_however_often_a_batch_is_delivered(tmp_path):
    minutes = [
        MAKE["metrics"](
            MAKE["metric"]("token.usage", (n * 60, n * 60 + 60, n + 1, MAKE["counted"]("output")))
        )
        for n in range(5)
    ]
    for again in (minutes, minutes[2:] + minutes[:3], minutes[:1]):
        _, totals, _ = read(tmp_path, again)
        Ledger(tmp_path / "ledger").note_totals(totals, NOW)
    assert outputs(tmp_path / "ledger") == 1 + 2 + 3 + 4 + 5


def test_a_total_s_dollars_are_exact(tmp_path):
    costs = ["0.1", "0.2", "0.0210788", "1e-07"]
    usd = MAKE["counted"](None)
    points = [(0, 60, float(cost), usd | {"effort": cost}) for cost in costs]
    _, (total,), _ = read(tmp_path, [MAKE["metrics"](MAKE["metric"]("cost.usage", *points))])
    assert (total.name, total.value) == ("usd", 321_078_900_000)


def test_an_event_and_the_transcript_of_its_request_are_one_call(tmp_path):
    said = LOGS["said"](1, LOGS["usage"](3, 50, 20000, 300, 500), requestId="req_010001")
    usages, _, _ = read(tmp_path, [MAKE["events"](MAKE["request"](1))], [said])
    Ledger(tmp_path / "ledger").append(usages)
    (row,) = present(tmp_path / "ledger")
    assert row == ("claude_code", "ann@example.com", "session-1", "", 1, 3, 50, 20000, 300, 500, "")


def test_tags_are_the_operator_s_words_and_no_machine_s(tmp_path):
    (usage,), _, _ = read(tmp_path, [MAKE["events"](MAKE["request"](1))])
    names = {name for name, _ in usage.tags}
    assert names == {"team", "cost_center", "query_source", "organization.id"}


# --- the examples --------------------------------------------------------------------------------------------------

# code.claude.com/docs/en/monitoring-usage, read 2026-11-23.
VARIABLES = {
    "CLAUDE_CODE_ENABLE_TELEMETRY", "CLAUDE_CODE_ENHANCED_TELEMETRY_BETA",
    "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER", "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "OTEL_METRIC_EXPORT_INTERVAL", "OTEL_LOGS_EXPORT_INTERVAL",
    "OTEL_METRICS_INCLUDE_SESSION_ID", "OTEL_METRICS_INCLUDE_ACCOUNT_UUID",
    "OTEL_METRICS_INCLUDE_RESOURCE_ATTRIBUTES", "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_LOG_USER_PROMPTS", "OTEL_LOG_ASSISTANT_RESPONSES", "OTEL_LOG_TOOL_DETAILS", "OTEL_LOG_TOOL_CONTENT",
    "OTEL_LOG_RAW_API_BODIES",
}  # fmt: skip
# The components of the collector's contrib distribution that are asked for, and the settings of the two exporters
# (github.com/open-telemetry/opentelemetry-collector-contrib, exporter/*/README.md).
COMPONENTS = {
    "extensions": {"bearertokenauth"},
    "receivers": {"otlp"},
    "processors": {"memory_limiter", "filter", "attributes", "batch"},
    "exporters": {"awss3", "file"},
}
SETTINGS = {
    "awss3": {"marshaler", "s3uploader", "sending_queue", "timeout", "encoding", "resource_attrs_to_s3"},
    "file": {"path", "format", "rotation", "append", "flush_interval", "group_by"},
}
UPLOADER = {
    "region", "s3_bucket", "s3_prefix", "s3_base_prefix", "s3_partition_format", "compression", "role_arn",
    "unique_key_func_name", "file_prefix", "storage_class",
}  # fmt: skip


def settings():
    return json.loads((ROOT / "examples/claude-code/managed-settings.json").read_text())["env"]


def test_the_settings_name_only_variables_that_exist_and_log_no_text():
    env = settings()
    assert set(env) <= VARIABLES
    assert all(isinstance(said, str) for said in env.values())
    assert {name for name in env if name.startswith("OTEL_LOG_")} >= {
        "OTEL_LOG_USER_PROMPTS",
        "OTEL_LOG_ASSISTANT_RESPONSES",
    }
    assert {said for name, said in env.items() if name.startswith("OTEL_LOG_")} == {"0"}
    assert env["OTEL_LOGS_EXPORTER"] == env["OTEL_METRICS_EXPORTER"] == "otlp"
    assert " " not in env["OTEL_RESOURCE_ATTRIBUTES"]


def test_the_settings_attributes_are_those_that_the_importer_reads(tmp_path):
    said = dict(pair.split("=") for pair in settings()["OTEL_RESOURCE_ATTRIBUTES"].split(","))
    laptop = {"service.name": "claude-code"} | said
    record = MAKE["request"](1, **MAKE["BEDROCK"] | {"who": {"user.id": "f00d", "session.id": "s"} | said})
    (usage,), _, _ = read(tmp_path, [MAKE["events"](record, resource=laptop)])
    facts = usage.parts[0][0]
    assert (facts.principal, facts.account, facts.region) == ("jdoe@example.com", "111122223333", "eu-west-1")
    assert dict(usage.tags) | {"team": "checkout", "cost_center": "eng-123"} == dict(usage.tags)


def test_the_collector_is_made_of_components_that_exist():
    yaml = pytest.importorskip("yaml")
    config = yaml.safe_load((ROOT / "examples/claude-code/collector.yaml").read_text())
    assert set(config) == {*COMPONENTS, "service"}
    for kind, names in COMPONENTS.items():
        assert {name.partition("/")[0] for name in config[kind]} <= names
    for name, exporter in config["exporters"].items():
        assert set(exporter) <= SETTINGS[name]
    assert set(config["exporters"]["awss3"]["s3uploader"]) <= UPLOADER
    assert config["exporters"]["awss3"]["marshaler"] == "otlp_json"
    assert config["exporters"]["file"]["format"] == "json"
    assert config["processors"]["batch"]["send_batch_max_size"] == 0
    assert set(config["service"]["pipelines"]) == {"logs", "metrics"}
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(config[kind])
    assert set(config["service"]["extensions"]) == set(config["extensions"])


def test_the_collector_keeps_what_the_importer_reads():
    yaml = pytest.importorskip("yaml")
    config = yaml.safe_load((ROOT / "examples/claude-code/collector.yaml").read_text())
    kept = config["processors"]["filter/calls"]
    ((events,),) = (re.findall(r'"(\^.*)"', one) for one in kept["logs"]["log_record"])
    ((metrics,),) = (re.findall(r'"(\^.*)"', one) for one in kept["metrics"]["metric"])
    assert [name for name in ("api_request", "api_error", "api_refusal") if not re.search(events, name)] == []
    texts = ("user_prompt", "assistant_response", "api_request_body", "api_response_body", "tool_result")
    assert [name for name in texts if re.search(events, name)] == []
    names = [f"claude_code.{name}" for name in ("token.usage", "cost.usage", "session.count")]
    assert [name for name in names if re.search(metrics, name)] == names[:2]
    assert {"key": "error", "action": "delete"} in config["processors"]["attributes/texts"]["actions"]


def test_the_page_names_variables_that_exist():
    page = (ROOT / "docs/claude-code-fleet.md").read_text()
    named = set(re.findall(r"\b(?:OTEL|CLAUDE_CODE)_[A-Z_]+\b", page))
    assert named
    assert named <= VARIABLES


# --- the outbox: its lines -----------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COUNTS = st.integers(0, MAX_TOKENS)
TOKENS = st.builds(outbox.Tokens, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
TIMES = st.integers(0, 10**6).map(
    lambda n: datetime(2023, 1, 2, tzinfo=UTC) + timedelta(minutes=n, microseconds=n)
)
COMMON = {
    "gateway_id": NAMES.filter(bool),
    "at": TIMES,
    "model": NAMES.filter(bool),
    "platform": st.sampled_from(["", "bedrock", "anthropic", "claude_aws"]),
    **dict.fromkeys(("region", "account", "principal", "session", "project", "operation", "mode"), NAMES),
    "tags": st.dictionaries(NAMES, NAMES, max_size=3),
    "stream": st.booleans(),
    "decisions": st.lists(st.builds(outbox.Decision, NAMES, NAMES, st.booleans()), max_size=2).map(tuple),
    "holds": st.lists(NAMES, max_size=2).map(tuple),
}
INTENTS = st.builds(outbox.Intent, **COMMON, expected=TOKENS)


@st.composite
def results(draw):
    """With prefixes that add up, or without any."""
    tokens = draw(TOKENS)
    blocks = draw(st.lists(st.tuples(st.binary(max_size=9), st.sampled_from(["", "5m", "1h"])), max_size=5))
    prefixes = None
    if blocks:
        texts = [text for text, _ in blocks]
        shares = outbox.apportion([len(text) for text in texts], tokens.prompt)
        hashes = outbox.prefix_hashes(b"key", texts)
        rows = zip(hashes, shares, [ttl for _, ttl in blocks], strict=True)
        prefixes = outbox.Prefixes("k", tuple(outbox.Prefix(*row) for row in rows))
    more = {
        **COMMON,
        **dict.fromkeys(("request_id", "message_id", "served_model", "status"), NAMES),
        **dict.fromkeys(("latency_ms", "first_token_ms"), st.none() | COUNTS),
        "passes": st.lists(st.builds(outbox.Pass, NAMES, TOKENS), max_size=2).map(tuple),
    }
    return draw(st.builds(outbox.Result, **more, tokens=st.just(tokens), prefixes=st.just(prefixes)))


@given(st.lists(INTENTS | results(), max_size=4))
def test_lines_come_back_as_they_were_written(records):
    lines = b"".join(map(outbox.encode, records))
    assert [outbox.decode(line) for line in lines.splitlines()] == records
    assert lines.count(b"\n") == len(records)  # whatever a name holds, a record is one line


@given(results())
def test_the_importer_reads_what_the_writer_wrote(tmp_path_factory, result):
    folder = tmp_path_factory.mktemp("outbox")
    (folder / "o.jsonl").write_bytes(outbox.encode(result))
    (batch,) = read_paths([str(folder / "o.jsonl")], now=datetime(2200, 1, 2, tzinfo=UTC), workers=0)
    if batch.rejected:  # by what is checked of every format: a region, the size of a call
        assert result.region or max(sum(part.five) for part in _all(result)) > MAX_TOKENS
        return
    (usage,) = batch.usages
    assert (usage.at, usage.gateway_id, usage.request_id) == (result.at, result.gateway_id, result.request_id)
    assert [tokens for _, tokens in usage.parts] == [part.five for part in _all(result)]
    assert dict(usage.tags) == result.tags


def test_a_pass_of_the_calls_own_model_ran_where_the_call_did(tmp_path):
    passes = [outbox.Pass(model, outbox.Tokens(5)) for model in ("claude-sonnet-4-6", "claude-opus-5")]
    result = MAKE["result"](4, model="global.anthropic.claude-sonnet-4-6", passes=tuple(passes))
    ((usage,), _, rejects) = read(tmp_path, outbox.encode(result))
    assert not rejects
    own, again, other = (facts for facts, _ in usage.parts)
    assert own.model_id == "global.anthropic.claude-sonnet-4-6"
    assert again == own
    assert other.model_id == "claude-opus-5"


def _all(result):
    return [result.tokens, *(one.tokens for one in result.passes)]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30), st.integers(0, 10**7))
def test_shares_of_a_prompt_add_up(sizes, tokens):
    shares = outbox.apportion(sizes, tokens)
    assert sum(shares) == tokens
    assert len(shares) == len(sizes)
    whole = sum(sizes)
    if whole:
        assert all(
            abs(share * whole - tokens * size) < whole for share, size in zip(shares, sizes, strict=True)
        )


@given(st.lists(st.binary(max_size=5), max_size=5), st.lists(st.binary(max_size=5), max_size=5))
def test_hashes_are_equal_as_far_as_prompts_are(a, b):
    same = 0
    while same < min(len(a), len(b)) and a[same] == b[same]:
        same += 1
    x, y = outbox.prefix_hashes(b"key", a), outbox.prefix_hashes(b"key", b)
    assert x[:same] == y[:same]
    assert set(x[same:]).isdisjoint(y[same:])
    assert set(x).isdisjoint(outbox.prefix_hashes(b"another", a))


def test_prefix_hashes_are_as_the_page_says():
    """Computed with the standard library alone, so that other writers can do it too."""
    import hashlib
    import hmac

    prompt = (3).to_bytes(8, "big") + b"abc" + (1).to_bytes(8, "big") + b"d"
    wanted = hmac.new(b"key", prompt, hashlib.sha256).hexdigest()[:32]
    assert outbox.prefix_hashes(b"key", [b"abc", b"d"])[1] == wanted


@pytest.mark.parametrize(
    "change",
    [
        {"gateway_id": ""},
        {"model": ""},
        {"platform": "moon"},
        {"at": NOW.replace(tzinfo=None)},
        {"tokens": outbox.Tokens(-1)},
        {"session": "x" * 2049},
        {"tags": {"why": MAKE["TEXT"] * 20}},
        {"session": "\udc00"},
        {"v": 2},
        {"prefixes": outbox.Prefixes("k", (outbox.Prefix("0" * 32, 7),))},
        {"prefixes": outbox.Prefixes("k", (outbox.Prefix("a prompt's text", 0),))},
    ],
)
def test_a_writer_cannot_write_what_a_reader_refuses(change):
    good = outbox.Result(gateway_id="g", at=NOW, model="m", tokens=outbox.Tokens())
    assert outbox.decode(outbox.encode(good)) == good
    with pytest.raises(Rejected):
        outbox.encode(msgspec.structs.replace(good, **change))


# --- the outbox: its files -----------------------------------------------------------------------------------------


def test_a_torn_last_line_is_left_for_the_next_import(tmp_path):
    whole = b"".join(MAKE["encode"](MAKE["result"](n)) for n in (1, 2))
    for cut in range(whole.index(b"\n") + 1, len(whole) - 1, 7):
        usages, _, rejects = read(tmp_path, whole[:cut])
        assert (len(usages), rejects) == (1, []), cut
        assert len(read(tmp_path, whole[:cut] + b"\n")[2]) == (whole[:cut][-1:] != b"\n"), (
            cut
        )  # ended: damaged
    assert len(read(tmp_path, whole)[0]) == 2
    assert len(read(tmp_path, whole[:-1])[0]) == 2  # all of it is there but the newline


def test_the_second_import_has_what_the_torn_line_was_to_say(tmp_path):
    call = [MAKE["encode"](MAKE["intent"](1)), MAKE["encode"](MAKE["result"](1))]
    for content, wanted in (
        (call[0] + call[1][:100], ("outbox_intent", 1400, 600, "open_intent")),
        (call[0] + call[1], ("outbox", 100, 20, "")),
        (call[0], ("outbox", 100, 20, "")),  # an older copy of the file comes later
    ):
        usages, _, rejects = read(tmp_path, content)
        assert not rejects
        Ledger(tmp_path / "ledger").append(usages)
        (row,) = present(tmp_path / "ledger")
        assert (row[0], row[5], row[6], row[10]) == wanted
        assert row[4] == 1


def test_an_open_intent_gives_way_to_any_other_record_of_the_call(tmp_path):
    assert "outbox_intent" not in RANK
    metadata = {outbox.METADATA_KEY: "gw-0001", "team": "checkout"}
    log = LOGS["top"](9, None, read=77, requestMetadata=metadata)
    usages, _, _ = read(tmp_path, MAKE["encode"](MAKE["intent"](1)), [log])
    assert [dict(usage.tags) for usage in usages] == [{"team": "checkout"}] * 2
    Ledger(tmp_path / "ledger").append(usages)
    (row,) = present(tmp_path / "ledger")
    assert (row[0], *row[4:8], row[10]) == ("bedrock_log", 1, 100, 20, 77, "")


def test_a_failed_call_is_not_what_was_expected_of_it(tmp_path):
    failed = MAKE["result"](1, outbox.Tokens(), status="void", request_id="", message_id="")
    for content in (MAKE["encode"](MAKE["intent"](1)), MAKE["encode"](failed)):
        Ledger(tmp_path / "ledger").append(read(tmp_path, content)[0])
    (row,) = present(tmp_path / "ledger")
    assert (row[0], row[3], *row[4:7]) == ("outbox", "void", 1, 0, 0)


@pytest.mark.parametrize("seed", range(6))
def test_one_call_that_five_sources_saw_is_one_call(tmp_path, seed):
    """The outbox's counts win, and who asked is taken from the others, in whatever order they come."""
    request, message = "00000000-0000-4000-8000-000000000001", "msg_bdrk_0001"
    sent = MAKE["result"](1, outbox.Tokens(100, 21, 5000, 300, 200), session="", principal="", project="")
    event = MAKE["request"](
        1, **MAKE["BEDROCK"] | {"request_id": request}, prompt=100, answer=20, read=5000, written=500
    )
    said = LOGS["said"](1, LOGS["usage"](100, 20, 5000, 500), requestId=None, message__id=message)
    span = MAKE["span"](1, MAKE["call"](100, 20) | MAKE["aws"](1))
    logged = LOGS["top"](1, LOGS["message"](1), read=5000, written=500)
    contents = [MAKE["encode"](sent), [MAKE["events"](event)], [said], [MAKE["spans"](span)], [logged]]
    order = random.Random(seed).sample(contents, 5)
    for content in order:
        usages, _, rejects = read(tmp_path, content)
        assert (len(usages), rejects) == (1, [])
        Ledger(tmp_path / "ledger").append(usages)
    (row,) = present(tmp_path / "ledger")
    source, principal, session, status, *counts, assumed = row
    assert (source, counts, assumed, status) == ("outbox", [1, 100, 21, 5000, 300, 200], "", "")
    assert session in ("session-1", "session-2")
    assert principal in ("arn:aws:sts::111122223333:assumed-role/app/ann", "bob@example.com")


# --- whatever comes ------------------------------------------------------------------------------------------------

SAMPLES = b"".join(content for _, content in MAKE["samples"]()).splitlines()
MUTATED = st.tuples(
    st.sampled_from(SAMPLES), st.integers(0, 2000), st.integers(0, 40), st.binary(max_size=12)
).map(lambda t: t[0][: t[1]] + t[3] + t[0][t[1] + t[2] :])


@given(
    st.lists(MUTATED | st.binary(max_size=80), max_size=9),
    st.sampled_from([otel, claude_code_events, outbox_]),
)
def test_no_line_can_stop_a_format(lines, form):
    data = b"\n".join(lines)
    yields = list(form.read(Numbered(iter([data])), "x"))
    assert yields == list(form.read(Numbered(iter([data[:99], data[99:]])), "x"))
    assert MAKE["TEXT"] not in repr(yields)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3), st.booleans()), min_size=1, max_size=8))
def test_spans_in_any_tangle_lose_no_output(some):
    """Whatever spans say of each other, circles too: what is left is some of the calls, and never none of them."""
    spans = _otlp_spans.Spans()
    outputs = []
    for n, (parent, count, is_call) in enumerate(some):
        said = MAKE["call"](9, count + 1) if is_call else {}
        made = MAKE["span"](n, said, parent=parent)
        assert list(spans.add(msgspec.convert(made, _otlp.Span), None, {})) == []
        outputs += [count + 1] if is_call else []
    kept = {usage.gateway_id: usage.parts[0][1][1] for usage in spans.rest()}
    assert set(kept.values()) <= set(outputs)
    assert bool(kept) == bool(outputs)
