"""The demo's logs: as many as asked for, the same each time, in the layout and with the sums of real ones."""

import gzip
import json
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from farthing.demo import Summary, model_on, write_logs

CALLS = 6_000
KEY = re.compile(
    r"AWSLogs/(?P<account>\d{12})/BedrockModelInvocationLogs/(?P<region>[a-z]+-[a-z]+-\d)/"
    r"(?P<day>\d{4}/\d\d/\d\d)/(?P<hour>\d\d)/(?P<stamp>\d{8}T\d{9}Z)_[0-9a-f]{16}\.json\.gz"
)
BODY = re.compile(r"AWSLogs/\d{12}/.+/\d{4}/\d\d/\d\d/\d\d/data/[0-9a-f-]{36}_(input|output)\.json\.gz")
ORDER = (
    *("schemaType", "schemaVersion", "timestamp", "accountId", "identity", "region", "requestId"),
    *("operation", "modelId", "errorCode", "input", "output", "inferenceRegion", "requestMetadata"),
)
CHECK = "amazon-bedrock-logs-permission-check"


def objects(folder: Path) -> dict[str, bytes]:
    """Every file by its key."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def by_object(folder: Path) -> dict[str, list[dict]]:
    """The records of each log object; not the moved bodies, nor the permission checks."""
    found = {key: content for key, content in objects(folder).items() if KEY.fullmatch(key)}
    return {key: list(map(json.loads, gzip.decompress(found[key]).splitlines())) for key in found}


def records(folder: Path) -> list[dict]:
    return [line for lines in by_object(folder).values() for line in lines]


@pytest.fixture(scope="module")
def month(tmp_path_factory) -> tuple[Path, Summary]:
    folder = tmp_path_factory.mktemp("month")
    return folder, write_logs(folder, CALLS, processes=1)


@pytest.fixture(scope="module")
def lines(month) -> list[dict]:
    return records(month[0])


@pytest.fixture(scope="module")
def answered(lines) -> list[dict]:
    return [line for line in lines if "errorCode" not in line]


def team(line: dict) -> str:
    return line.get("requestMetadata", {}).get("team", "")


def counts(line: dict) -> tuple[int, int, int, int]:
    """Input, output, cache read and cache write, as the top level of a record tells them."""
    asked = line["input"]
    read, written = asked.get("cacheReadInputTokenCount", 0), asked.get("cacheWriteInputTokenCount", 0)
    return asked["inputTokenCount"], line["output"]["outputTokenCount"], read, written


# --- how many, and the same each time --------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2])
def test_same_arguments_same_bytes(tmp_path, processes):
    first = write_logs(tmp_path / "first", 300, seed=3, processes=1)
    again = write_logs(tmp_path / "again", 300, seed=3, processes=processes)
    assert first == again
    assert objects(tmp_path / "first") == objects(tmp_path / "again")


def test_another_seed_is_another_month(tmp_path):
    write_logs(tmp_path / "a", 50, seed=1)
    write_logs(tmp_path / "b", 50, seed=2)
    ids = [{line["requestId"] for line in records(tmp_path / name)} for name in "ab"]
    assert ids[0].isdisjoint(ids[1])


@pytest.mark.parametrize("calls", [1, 10, 500])
@pytest.mark.parametrize("name", ["2026-10", "2026-02", "2024-02", "2031-12"])
def test_exactly_as_many_as_asked_for(tmp_path, calls, name):
    summary = write_logs(tmp_path, calls, month=name)
    written = records(tmp_path)
    assert len(written) == len({line["requestId"] for line in written}) == summary.records == calls
    assert {line["timestamp"][:7] for line in written} == {name}


def test_summary_is_what_is_there(month, lines):
    folder, summary = month
    found = objects(folder)
    size = sum(len(gzip.decompress(content)) for key, content in found.items() if KEY.fullmatch(key))
    errors = sum("errorCode" in line for line in lines)
    assert summary == Summary(len(found), CALLS, errors, size)
    assert 0.003 < errors / CALLS < 0.012
    assert 1_000 < size / CALLS < 2_000


def test_progress_ends_with_all(tmp_path):
    told: list[tuple[int, int]] = []
    write_logs(tmp_path, 100, progress=lambda *counts: told.append(counts))
    assert told == sorted(told)
    assert len(told) == 31
    assert told[-1] == (100, 100)


@pytest.mark.parametrize("name", ["2026-13", "2026-1", "october", "0000-01", "2026-10-01", ""])
def test_refuses_what_is_no_month(tmp_path, name):
    with pytest.raises(ValueError, match="is no month"):
        write_logs(tmp_path, 10, month=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("calls", [0, -1])
def test_refuses_no_calls(tmp_path, calls):
    with pytest.raises(ValueError, match="at least 1"):
        write_logs(tmp_path, calls)


def test_refuses_to_mix_two_months(tmp_path):
    write_logs(tmp_path, 10)
    before = objects(tmp_path)
    with pytest.raises(FileExistsError, match="AWSLogs exists"):
        write_logs(tmp_path, 10, seed=8)
    assert objects(tmp_path) == before


# --- layout ----------------------------------------------------------------------------------------


def test_keys(month):
    found = objects(month[0])
    checks = [key for key in found if key.endswith(CHECK)]
    assert [key for key in found if not (KEY.fullmatch(key) or BODY.fullmatch(key) or key in checks)] == []
    assert [found[key] for key in checks] == [b"", b"", b""]
    assert all(content[4:8] == bytes(4) for key, content in found.items() if key.endswith(".gz"))


def test_a_record_lies_where_its_key_says(month):
    places = set()
    for key, lines in by_object(month[0]).items():
        told = KEY.fullmatch(key)
        assert told
        times = [line["timestamp"] for line in lines]
        assert times == sorted(times)
        assert {(line["accountId"], line["region"]) for line in lines} == {(told["account"], told["region"])}
        assert {time[:10] for time in times} == {told["day"].replace("/", "-")}
        assert times[-1][11:13] == told["hour"]
        assert re.sub("[-:]", "", times[-1])[:-1] == told["stamp"][:15]
        places.add((told["account"], told["region"]))
    assert len({account for account, _ in places}) == 3
    assert {region for _, region in places} == {"us-east-1", "us-west-2", "eu-central-1", "ap-northeast-1"}


def test_moved_bodies_are_where_the_record_says(month, answered):
    folder, _ = month
    told = {
        line[side][f"{side}BodyS3Path"].removeprefix("s3://example-bedrock-logs/"): line
        for line in answered
        for side in ("input", "output")
        if f"{side}BodyS3Path" in line[side]
    }
    found = objects(folder)
    assert set(told) == {key for key in found if BODY.fullmatch(key)}
    assert told
    for key, line in told.items():
        assert line["requestId"] in key
        assert f"/{line['timestamp'][11:13]}/data/" in key
        side = "input" if key.endswith("_input.json.gz") else "output"
        assert f"{side}BodyJson" not in line[side]
        body = json.loads(gzip.decompress(found[key]))
        assert body["messages"] if side == "input" else body
    large = [line for line in answered if counts(line)[0] > 100_000]
    assert large
    assert all("inputBodyS3Path" in line["input"] for line in large)


def test_keys_of_a_record_stand_in_the_order_of_s3(lines):
    assert all([key for key in ORDER if key in line] == list(line) for line in lines)


# --- tokens ----------------------------------------------------------------------------------------


def test_converse_bodies_add_up(answered):
    details, blocked = set(), 0
    for line in answered:
        if not line["operation"].startswith("Converse") or "outputBodyJson" not in line["output"]:
            continue
        body = line["output"]["outputBodyJson"]
        usage, (fresh, output, read, written) = body["usage"], counts(line)
        assert (usage["inputTokens"], usage["outputTokens"]) == (fresh, output)
        assert usage["totalTokens"] == fresh + output + read + written
        assert usage["cacheReadInputTokens"] == usage["cacheReadInputTokenCount"] == read
        assert usage["cacheWriteInputTokens"] == usage["cacheWriteInputTokenCount"] == written
        assert sum(entry["inputTokens"] for entry in usage["cacheDetails"]) == written
        details |= {entry["ttl"] for entry in usage["cacheDetails"]}
        if body["stopReason"] == "guardrail_intervened":
            blocked += 1
            assert usage["totalTokens"] == 0
    assert details == {"5m", "1h"}
    assert blocked > 0


def test_invoke_bodies_add_up(answered):
    operations, long = set(), 0
    for line in answered:
        body = line["output"].get("outputBodyJson")
        if not line["operation"].startswith("Invoke") or body is None:
            continue
        operations.add(line["operation"])
        fresh, output, read, written = counts(line)
        if isinstance(body, list):
            events = {event["type"]: event for event in body if event != "[DONE]"}
            metrics = events["message_stop"]["amazon-bedrock-invocationMetrics"]
            assert (metrics["inputTokenCount"], metrics["outputTokenCount"]) == (fresh, output)
            assert metrics["cacheReadInputTokenCount"] == read
            assert metrics["cacheWriteInputTokenCount"] == written
            start = events["message_start"]["message"]["usage"]
            assert start["output_tokens"] == 1
            usage = start | events["message_delta"]["usage"]
        else:
            usage = body["usage"]
        assert (usage["input_tokens"], usage["output_tokens"]) == (fresh, output)
        assert usage.get("cache_read_input_tokens", 0) == read
        assert usage.get("cache_creation_input_tokens", 0) == written
        assert sum(usage.get("cache_creation", {}).values()) == written
        long += usage.get("cache_creation", {}).get("ephemeral_1h_input_tokens", 0)
    assert operations == {"InvokeModel", "InvokeModelWithResponseStream"}
    assert long > 0


def test_every_operation_and_some_without_bodies(answered):
    seen = defaultdict(set)
    for line in answered:
        path = "outputBodyS3Path" in line["output"]
        seen[line["operation"]].add("outputBodyJson" in line["output"] or path)
    assert set(seen) == {"InvokeModel", "InvokeModelWithResponseStream", "Converse", "ConverseStream"}
    silent = [line for line in answered if not {"outputBodyJson", "outputBodyS3Path"} & set(line["output"])]
    assert {(line["accountId"], line["region"]) for line in silent} == {("777788889999", "us-east-1")}
    assert all("inputBodyJson" not in line["input"] for line in silent)
    assert any(counts(line)[3] for line in silent)


def test_failed_calls_have_neither_counts_nor_answer(lines):
    failed = [line for line in lines if "errorCode" in line]
    assert {line["errorCode"] for line in failed} >= {"ThrottlingException", "ValidationException"}
    assert all("output" not in line and "inferenceRegion" not in line for line in failed)
    assert all(set(line["input"]) <= {"inputContentType", "inputBodyJson"} for line in failed)


def test_old_models_say_nothing_of_the_cache(answered):
    legal = [line for line in answered if team(line) == "legal-legacy"]
    assert {line["region"] for line in legal} == {"us-east-1", "ap-northeast-1"}
    for line in legal:
        assert set(line["output"]["outputBodyJson"]["usage"]) == {"input_tokens", "output_tokens"}
        assert "cacheReadInputTokenCount" not in line["input"]


# --- the company -----------------------------------------------------------------------------------


def test_sessions_obey_the_cache(answered):
    """Within the TTL all of the last context is read, or its start after a compaction; later nothing."""
    sessions = defaultdict(list)
    for line in answered:
        if team(line) == "coding-agents":
            sessions[line["requestMetadata"]["session"]].append(line)
    hits = misses = 0
    for calls in sessions.values():
        assert len({(line["modelId"], line["identity"]["arn"]) for line in calls}) == 1
        calls.sort(key=lambda line: line["timestamp"])
        assert counts(calls[0])[2] == 0
        for before, line in pairwise(calls):
            ttl = before["input"]["inputBodyJson"]["system"][0]["cache_control"]["ttl"]
            gap = second(line) - second(before)
            _, _, read, _ = counts(line)
            assert read in ({sum(counts(before)[2:]), 17_000} if gap < {"5m": 300, "1h": 3600}[ttl] else {0})
            hits, misses = hits + (read > 0), misses + (read == 0)
    assert hits > 10 * misses > 0


def second(line: dict) -> int:
    hour, minute, second = map(int, line["timestamp"][11:19].split(":"))
    return (hour * 60 + minute) * 60 + second


@pytest.mark.parametrize(
    ("name", "region", "ttl"), [("support-chat", "ap-northeast-1", 300), ("eu-claims", "eu-central-1", 3600)]
)
def test_shared_prefix_obeys_the_cache(answered, name, region, ttl):
    chat = [
        line for line in answered if team(line) == name and line["region"] == region and any(counts(line))
    ]
    chat.sort(key=lambda line: line["timestamp"])
    for before, line in pairwise(chat):
        warm = before["timestamp"][:10] == line["timestamp"][:10] and second(line) - second(before) < ttl
        assert (counts(line)[2] > 0, counts(line)[3] > 0) == (warm, not warm)


def test_search_repeats_a_prefix_that_it_does_not_cache(answered):
    search = [line for line in answered if team(line) == "search-rag"]
    assert not any(counts(line)[2] or counts(line)[3] for line in search)
    bodies = [line["input"]["inputBodyJson"] for line in search]
    [prefix] = {body["system"][0]["text"] for body in bodies}
    for body, line in zip(bodies, search, strict=True):
        asked = body["messages"][0]["content"][0]["text"]
        share = len(prefix) / len(prefix + asked)
        assert share == pytest.approx(9_000 / counts(line)[0], abs=0.03)
    assert len({body["messages"][0]["content"][0]["text"] for body in bodies}) == len(bodies)


def test_nightly_documents_come_at_night(lines):
    hours = {line["timestamp"][11:13] for line in lines if team(line) == "doc-nightly"}
    assert hours == {"01", "02", "03"}


def test_weekends_are_quiet(lines):
    days: defaultdict[str, int] = defaultdict(int)
    for line in lines:
        if team(line) == "coding-agents":
            days[line["timestamp"][:10]] += 1
    assert days["2026-10-10"] + days["2026-10-11"] < days["2026-10-08"]


def test_an_application_profile_hides_the_model_from_converse(answered):
    hidden = [line for line in answered if ":application-inference-profile/" in line["modelId"]]
    told = defaultdict(set)
    for line in hidden:
        told[line["operation"]].add(line["output"]["outputBodyJson"].get("model"))
    assert told == {"InvokeModel": {"claude-sonnet-4-6"}, "Converse": {None}}
    assert "claude" not in json.dumps([line for line in hidden if line["operation"] == "Converse"])


def test_ids_in_every_form(lines):
    forms = {re.sub(r"anthropic\.claude.*|(?<=profile/)\w+$", "", line["modelId"]) for line in lines}
    full = {form.split(":")[-1] for form in forms if form.startswith("arn:")}
    assert full == {"inference-profile/us.", "application-inference-profile/"}
    assert {form for form in forms if ":" not in form} == {"", "us.", "eu.", "jp.", "global."}


@pytest.mark.parametrize("name", ["2025-11", "2026-05", "2026-10"])
def test_no_call_to_a_model_that_was_not_there(tmp_path, shared, name):
    released: dict[str, str] = {}
    for model in json.loads((shared / "facts/rates.json").read_text())["models"]:
        bedrock = model["bedrock"]
        ids = [bedrock["base_model_id"], *bedrock["profiles"]]
        released |= dict.fromkeys(ids, model["released"])
    write_logs(tmp_path, 2_000, month=name)
    for line in records(tmp_path):
        if ":application-inference-profile/" not in line["modelId"]:
            assert released[line["modelId"].split("/")[-1]] <= line["timestamp"][:10]


def test_a_model_has_its_elder_until_it_is_released():
    assert model_on("haiku-5-5", "2026-10-06") == "anthropic.claude-haiku-4-5-20251001-v1:0"
    assert model_on("haiku-5-5", "2026-10-07") == "anthropic.claude-haiku-5-5"
    assert model_on("haiku-5-5", "2024-02-01") == "anthropic.claude-haiku-4-5-20251001-v1:0"
