"""Hooks in boto3: what an application sends and gets stays what it was, and each attempt is in the outbox."""

import gc
import io
import json
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError, EventStreamError, ReadTimeoutError
from botocore.stub import Stubber

import farthing
from farthing.config import Budget, Config
from farthing.gateway.budgets import open_budgets
from farthing.gateway.hooks import attach, open_hook
from farthing.importers.outbox import read
from farthing.outbox import Intent, Result, prefix_hashes
from farthing.policy import load as load_policy
from farthing.traces import blocks_of, prompt_of
from farthing.usage import Usage
from tests import hooked as shared
from tests.hooked import (
    ASK,
    FIVE,
    FRAMES,
    MODEL,
    Said,
    bedrock,
    converse_frames,
    error,
    frame,
    intents,
    invoke_frames,
    lines,
    results,
    usual,
)

pytestmark = shared.UNCLOSED
collected, up = shared.collected, shared.up
BODY = json.dumps(ASK)
TURN = [{"role": "user", "content": [{"text": "a secret question"}]}]
TAGS = {"team": "search", "app": "support"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "outbox"


def hooked(up, out: Path, *, retries: int = 1, **settings):
    """A client, and its hook; what is left of answers is settled at once unless told otherwise."""
    hook = open_hook(outbox=out, **{"settle": "now", "tags": TAGS} | settings)
    client = bedrock(up.url, retries)
    attach(client.meta.events, hook)
    return client, hook


# --- what is metered -------------------------------------------------------------------------------------------------


CALLS = {
    "InvokeModel": lambda client: json.loads(client.invoke_model(modelId=MODEL, body=BODY)["body"].read()),
    "InvokeModelWithResponseStream": lambda client: list(
        client.invoke_model_with_response_stream(modelId=MODEL, body=BODY)["body"]
    ),
    "Converse": lambda client: client.converse(modelId=MODEL, messages=TURN)["output"],
    "ConverseStream": lambda client: list(client.converse_stream(modelId=MODEL, messages=TURN)["stream"]),
}


@pytest.mark.parametrize("operation", CALLS)
def test_an_answer_is_metered_to_the_token_and_is_the_same(up, out, operation):
    client, hook = hooked(up, out)
    assert CALLS[operation](client) == CALLS[operation](bedrock(up.url))
    intent, result = lines(out)
    assert isinstance(intent, Intent)
    assert isinstance(result, Result)
    assert result.tokens.five == FIVE
    assert (result.operation, result.stream) == (operation, "Stream" in operation)
    assert (result.region, result.platform, result.model) == ("eu-west-1", "bedrock", MODEL)
    assert result.tags == TAGS
    assert result.request_id == "req-1"
    assert (result.first_token_ms is not None) == result.stream
    assert intent.gateway_id == result.gateway_id
    assert intent.expected.prompt > 0
    assert hook.faults == 0


@pytest.mark.parametrize("operation", CALLS)
def test_a_request_stays_as_it_was_but_for_the_metadata(up, out, operation):
    client, _ = hooked(up, out)
    CALLS[operation](bedrock(up.url))
    CALLS[operation](client)
    (path, plain, before), (path_hooked, headers, after) = up.requests
    assert path == path_hooked
    (result,) = results(out)
    told = {"farthing_id": result.gateway_id, **TAGS}
    if operation.startswith("Converse"):
        assert json.loads(after) == {**json.loads(before), "requestMetadata": told}
        assert after.endswith(before[1:])
    else:
        assert after == before
        assert json.loads(headers["x-amzn-bedrock-request-metadata"]) == told
        assert "x-amzn-bedrock-request-metadata" in headers["authorization"]  # it is signed
    assert plain.keys() <= headers.keys()


def test_metadata_of_the_client_stands_and_what_the_service_would_refuse_is_left_out(up, out):
    client, _ = hooked(up, out, tags={"app": "ours", "team": "süß", "mail": "a@b.c", "x" * 300: "y"})
    client.converse(modelId=MODEL, messages=TURN, requestMetadata={"app": "theirs"})
    client.converse(modelId=MODEL, messages=TURN, requestMetadata={str(at): "x" for at in range(16)})
    first, second = (json.loads(body)["requestMetadata"] for body in up.bodies)
    assert first == {"app": "theirs", "mail": "a@b.c", "farthing_id": intents(out)[0].gateway_id}
    assert second == {str(at): "x" for at in range(16)}  # full: it is joined by its request id alone
    assert len(results(out)) == 2


def test_the_callers_objects_are_not_touched(up, out):
    client, _ = hooked(up, out)
    given = {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    before = json.dumps(given)
    client.converse(**given)
    assert json.dumps(given) == before
    body = io.BytesIO(BODY.encode())
    client.invoke_model(modelId=MODEL, body=body)["body"].read()
    assert up.bodies[-1] == BODY.encode()
    assert [each.tokens.five for each in results(out)] == [FIVE, FIVE]


def test_instrumented_twice_is_metered_once_and_a_session_is_metered_whole(up, out):
    session = boto3.Session("AKIAMADEUP", "made-up", region_name="eu-west-1")
    assert farthing.instrument(session, outbox=out, settle="now") is session
    client = session.client("bedrock-runtime", endpoint_url=up.url)
    assert farthing.instrument(client, outbox=out, settle="now") is client
    client.converse(modelId=MODEL, messages=TURN)
    assert len(intents(out)) == len(results(out)) == 1


def test_what_a_stub_answers_was_not_sent_and_is_not_metered(up, out):
    client, _ = hooked(up, out)
    with Stubber(client) as stub:
        stub.add_response("converse", json.loads(usual("/converse", {}).chunks[0]))
        client.converse(modelId=MODEL, messages=TURN)
    assert lines(out) == [] if out.exists() else not out.exists()


def test_other_operations_are_left_alone(up, out):
    client, _ = hooked(up, out)
    up.script.append(Said(200, {"content-type": "application/json"}, [b'{"inputTokens":4}']))
    counted = client.count_tokens(modelId=MODEL, input={"converse": {"messages": TURN}})
    assert counted["inputTokens"] == 4
    assert b"farthing" not in up.bodies[0]
    assert not out.exists()


def test_what_aiobotocore_makes_is_refused_with_what_to_do():
    made = type("BedrockRuntime", (), {"__module__": "aiobotocore.client"})()
    with pytest.raises(TypeError, match="gateway"):
        farthing.instrument(made)
    with pytest.raises(TypeError, match="no boto3 client"):
        farthing.instrument("bedrock-runtime")


def test_the_outbox_is_what_the_importer_counts(up, out):
    client, _ = hooked(up, out)
    for call in CALLS.values():
        call(client)
    (file,) = out.iterdir()
    with file.open("rb") as opened:
        usages = [each for each in read(enumerate(opened, 1), str(file)) if isinstance(each, Usage)]
    assert [(usage.parts[0][1], usage.parts[0][0].source) for usage in usages] == [(FIVE, "outbox")] * 4


def test_the_price_is_known_when_it_is_settled(up, out):
    told = []
    client, _ = hooked(up, out, on_settled=lambda call_id, settled: told.append((call_id, settled.picos)))
    client.converse(modelId=MODEL, messages=TURN)
    (result,) = results(out)
    usage = {"inputTokens": 12, "outputTokens": 7, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 70,
             "cacheDetails": [{"ttl": "5m", "inputTokens": 30}, {"ttl": "1h", "inputTokens": 40}]}  # fmt: skip
    assert told == [(result.gateway_id, farthing.rate(MODEL, result.at, usage, region="eu-west-1").cost)]


# --- bodies that are read late, in pieces, or not ---------------------------------------------------------------------


def _readinto(body):
    buffer = bytearray(1000)
    return bytes(buffer[: body.readinto(buffer)]) + (b"" if body.readinto(buffer) == 0 else b"?")


READS = {
    "whole": lambda body: body.read(),
    "pieces": lambda body: b"".join(iter(lambda: body.read(10), b"")),
    "chunks": lambda body: b"".join(body.iter_chunks(7)),
    "lines": lambda body: b"\n".join(body.iter_lines()),
    "readlines": lambda body: b"".join(body.readlines()),
    "readinto": _readinto,
    "iteration": b"".join,
    "with": lambda body: body.__enter__().read(),
}


@pytest.mark.parametrize("way", READS)
def test_a_body_may_be_read_in_any_way(up, out, way):
    client, hook = hooked(up, out)
    body = client.invoke_model(modelId=MODEL, body=BODY)["body"]
    assert results(out) == []
    assert READS[way](body) == usual("/invoke", {}).chunks[0]
    body.close()
    hook.flush()
    assert [each.tokens.five for each in results(out)] == [FIVE]


def test_a_body_that_nobody_reads_is_metered_by_its_headers(up, out):
    client, hook = hooked(up, out)
    client.invoke_model(modelId=MODEL, body=BODY)
    gc.collect()
    hook.flush()
    (result,) = results(out)
    assert result.tokens.five == (12, 7, 100, 70, 0)  # the headers do not tell lifetimes
    assert result.assumed


def test_a_body_that_is_cut_fails_as_ever_and_its_headers_count(up, out):
    client, hook = hooked(up, out)
    up.script.append(usual("/invoke", {})._replace(cut=True))
    body = client.invoke_model(modelId=MODEL, body=BODY)["body"]
    with pytest.raises(Exception, match=r"IncompleteRead|broken"):
        body.read()
    hook.flush()
    assert [each.tokens.prompt for each in results(out)] == [182]


# --- streams ----------------------------------------------------------------------------------------------------------


def _close(response):
    next(iter(response["stream"]))
    response["stream"].close()


def _break(response):
    for _ in response["stream"]:
        break


@pytest.mark.parametrize("leave", [_close, _break, len], ids=["close", "break", "unread"])
def test_a_stream_that_is_left_before_its_usage_stays_an_open_intent(up, out, leave):
    """It was billed, and nobody knows how much: the intent's ceiling counts until the log says better."""
    client, hook = hooked(up, out)
    up.script.append(Said(200, {"content-type": FRAMES}, converse_frames()[:-1]))
    leave(client.converse_stream(modelId=MODEL, messages=TURN))
    gc.collect()
    hook.flush()
    assert len(intents(out)) == 1
    assert results(out) == []
    assert hook.faults == 0


def test_a_stream_that_is_left_after_its_usage_is_settled_with_it(up, out):
    client, hook = hooked(up, out)
    response = client.converse_stream(modelId=MODEL, messages=TURN)
    stream = iter(response["stream"])
    for _ in range(7):
        next(stream)
    del stream, response
    gc.collect()
    hook.flush()
    assert [each.tokens.five for each in results(out)] == [FIVE]


def test_an_error_within_a_stream_reaches_the_caller_and_leaves_the_intent(up, out):
    client, hook = hooked(up, out)
    broken = [*converse_frames()[:2], frame("throttlingException", {"message": "slow"}, "exception")]
    up.script.append(Said(200, {"content-type": FRAMES}, broken))
    response = client.converse_stream(modelId=MODEL, messages=TURN)
    with pytest.raises(EventStreamError, match="throttlingException"):
        list(response["stream"])
    del response
    gc.collect()
    hook.flush()
    assert (len(intents(out)), results(out)) == (1, [])


def test_a_frame_that_is_broken_is_the_callers_to_hear_of(up, out):
    client, hook = hooked(up, out)
    frames = converse_frames()
    frames[1] = frames[1][:-1] + bytes((frames[1][-1] ^ 1,))
    up.script.append(Said(200, {"content-type": FRAMES}, frames))
    with pytest.raises(Exception, match=r"[Cc]hecksum"):
        list(client.converse_stream(modelId=MODEL, messages=TURN)["stream"])
    assert hook.faults == 0


def test_frames_may_come_in_any_pieces(up, out):
    client, _ = hooked(up, out)
    data = b"".join(invoke_frames(20))
    for size in (1, 13, 100, 1000, len(data)):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        up.script.append(Said(200, {"content-type": FRAMES}, chunks))
        list(client.invoke_model_with_response_stream(modelId=MODEL, body=BODY)["body"])
    assert [each.tokens.five for each in results(out)] == [FIVE] * 5


def _interrupted(response):
    for _ in response["stream"]:
        raise KeyboardInterrupt


def test_an_interrupt_goes_through_and_the_call_is_settled(up, out):
    client, hook = hooked(up, out)
    with pytest.raises(KeyboardInterrupt):
        _interrupted(client.converse_stream(modelId=MODEL, messages=TURN))
    gc.collect()
    hook.flush()
    assert len(intents(out)) == 1
    CALLS["Converse"](client)
    assert len(results(out)) == 1
    assert hook.faults == 0


# --- attempts ---------------------------------------------------------------------------------------------------------


def test_each_attempt_is_a_call_of_its_own(up, out):
    client, _ = hooked(up, out, retries=3)
    up.script += [error(503, "ServiceUnavailableException"), error(429, "ThrottlingException")]
    client.converse(modelId=MODEL, messages=TURN)
    assert [each.status for each in results(out)] == [
        "ServiceUnavailableException",
        "ThrottlingException",
        "",
    ]
    sent = [json.loads(body)["requestMetadata"]["farthing_id"] for body in up.bodies]
    assert sent == [each.gateway_id for each in intents(out)] == [each.gateway_id for each in results(out)]
    assert len(set(sent)) == 3


def test_an_error_is_the_callers_and_is_not_billed(up, out):
    client, _ = hooked(up, out)
    up.script.append(error(400, "ValidationException"))
    with pytest.raises(ClientError, match="ValidationException"):
        client.invoke_model(modelId=MODEL, body=BODY)
    assert [(each.status, each.tokens.five) for each in results(out)] == [("ValidationException", (0,) * 5)]


def test_no_answer_leaves_the_intent_and_no_connection_voids_it(up, out):
    client, hook = hooked(up, out)
    up.script.append(Said(0, {}, []))  # it takes the request and hangs up: that may be billed
    with pytest.raises(Exception, match="closed"):
        client.converse(modelId=MODEL, messages=TURN)
    hook.flush()
    assert results(out) == []
    nobody = bedrock("http://127.0.0.1:9")
    attach(nobody.meta.events, hook)
    with pytest.raises(Exception, match="connect"):
        nobody.converse(modelId=MODEL, messages=TURN)
    assert [each.status for each in results(out)] == ["void"]
    assert not issubclass(
        ReadTimeoutError, ConnectionError
    )  # else a slow answer would be taken for one not sent


# --- policies ---------------------------------------------------------------------------------------------------------


POLICY = """
[workloads.support]
tags = ["app=support"]
{}
"""
ENTRY = """
[[entries]]
workload = "support"
lever = "{}"
{}
approver = "Ada"
approved_at = "2020-01-01"
expires = "2099-01-01"
"""


def policy(tmp_path: Path, *entries: tuple[str, str]) -> Path:
    file = tmp_path / "farthing-policy.toml"
    file.write_text(POLICY.format("".join(ENTRY.format(*entry) for entry in entries)))
    load_policy(file)
    return file


def test_the_policy_in_force_is_applied_before_it_is_signed(up, out, tmp_path):
    markers = 'markers = [{at = "system", ttl = "1h"}, {at = "end"}]'
    file = policy(
        tmp_path, ("endpoint", 'endpoint = "global"'), ("cache", markers), ("batch", 'deadline = "6h"')
    )
    client, hook = hooked(up, out, policy=file)
    system = [{"text": "s" * 9000}]
    client.converse(modelId=MODEL, messages=TURN, system=system)
    client.invoke_model(modelId=MODEL, body=json.dumps({**ASK, "system": "s" * 9000}))["body"].read()
    assert {path for path, _, _ in up.requests} == {
        "/model/global.anthropic.claude-sonnet-4-6/converse", "/model/global.anthropic.claude-sonnet-4-6/invoke"
    }  # fmt: skip
    conversed, invoked = (json.loads(body) for body in up.bodies)
    assert conversed["system"] == [*system, {"cachePoint": {"type": "default", "ttl": "1h"}}]
    assert conversed["messages"][0]["content"][-1] == {"cachePoint": {"type": "default"}}
    assert invoked["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    for result in results(out):
        assert result.model == "global.anthropic.claude-sonnet-4-6"
        reasons = {made.lever: made.reason for made in result.decisions}
        assert reasons.keys() == {"batch", "cache", "endpoint"}
        assert reasons["batch"].startswith("refused: ")
    assert hook.faults == 0


def test_a_policy_that_cannot_be_read_leaves_calls_as_they_are(up, out, tmp_path):
    file = tmp_path / "farthing-policy.toml"
    file.write_text("[[entries\n")
    client, _ = hooked(up, out, policy=file)
    client.converse(modelId=MODEL, messages=TURN)
    assert len(results(out)) == 1


# --- prefixes ---------------------------------------------------------------------------------------------------------


def test_prefixes_are_hashed_under_the_key_as_traces_hash_them(up, out, tmp_path, monkeypatch):
    secret = b"0123456789abcdef0123456789abcdef"
    (tmp_path / "key").write_bytes(secret + b"\n")
    monkeypatch.setenv("FARTHING_KEY", str(tmp_path / "key"))
    client, _ = hooked(up, out)
    system = [{"text": "s" * 40}, {"cachePoint": {"type": "default", "ttl": "1h"}}]
    client.converse(modelId=MODEL, messages=TURN, system=system)
    (result,) = results(out)
    assert result.prefixes
    prompt = prompt_of(blocks_of({"system": system, "messages": TURN}), secret)
    assert [block.hash for block in result.prefixes.blocks] == prompt.hashes
    assert [block.ttl for block in result.prefixes.blocks] == ["1h", ""]
    assert sum(block.tokens for block in result.prefixes.blocks) == 182
    assert secret.decode() not in (text := next(out.iterdir()).read_text())
    assert prefix_hashes(b"other key", [b"x"])[0] not in text


def test_without_a_key_nothing_is_hashed_and_a_short_one_is_refused(up, out, tmp_path, monkeypatch):
    monkeypatch.delenv("FARTHING_KEY", raising=False)
    client, _ = hooked(up, out)
    CALLS["Converse"](client)
    assert results(out)[0].prefixes is None
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(ValueError, match="at least 16"):
        open_hook(outbox=out, key=tmp_path / "key")


# --- budgets ----------------------------------------------------------------------------------------------------------


def held(tmp_path: Path, **limits):
    config = Config(budgets=(Budget("search", period="day", hold="hard", **limits),))
    return open_budgets(config, str(tmp_path / "budgets.sqlite"))


def test_a_hard_budget_denies_before_anything_is_sent(up, out, tmp_path):
    budgets = held(tmp_path, calls=2)
    client, _ = hooked(up, out, budgets=budgets, retries=3)
    for _ in range(2):
        client.converse(modelId=MODEL, messages=TURN)
    with pytest.raises(farthing.BudgetExceeded, match="search") as denied:
        client.converse(modelId=MODEL, messages=TURN)
    assert len(up.requests) == len(intents(out)) == 2
    assert denied.value.budget == "search"
    assert denied.value.period
    assert denied.value.reset > results(out)[0].at
    assert denied.value.retry_after > 0
    assert str(pickle.loads(pickle.dumps(denied.value))) == str(denied.value)
    budgets.close()


def test_money_is_held_while_a_call_is_under_way_and_settled_at_what_it_came_to(up, out, tmp_path):
    budgets = held(tmp_path, usd=10)
    client, hook = hooked(up, out, budgets=budgets)
    response = client.invoke_model(modelId=MODEL, body=BODY)
    (state,) = budgets.state(hook.live.clock_us())
    assert (state.spent, state.held > 0) == (0, True)
    response["body"].read()
    (state,) = budgets.state(hook.live.clock_us())
    (result,) = results(out)
    usage = json.loads(usual("/invoke", {}).chunks[0])["usage"]
    assert state.held == 0
    assert state.spent == farthing.rate(MODEL, result.at, usage, region="eu-west-1").cost
    assert result.holds
    up.script.append(error(400, "ValidationException"))
    with pytest.raises(ClientError):
        client.invoke_model(modelId=MODEL, body=BODY)
    assert budgets.state(hook.live.clock_us())[0][-3:-1] == (state.spent, 0)
    budgets.close()


# --- threads and processes --------------------------------------------------------------------------------------------


def test_threads_share_a_hook(up, out):
    client, hook = hooked(up, out, settle="soon")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda at: list(CALLS.values())[at % 4](client), range(80)))
    hook.flush()
    assert len({each.gateway_id for each in results(out)}) == 80
    assert {each.tokens.five for each in results(out)} == {FIVE}
    assert hook.faults == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_writes_a_file_of_its_own_and_leaves_the_parents_calls_to_it(up, out, tmp_path):
    config = tmp_path / "farthing.toml"
    config.write_text('[[budgets]]\nname = "all"\ncalls = 100\nperiod = "day"\nhold = "hard"\n')
    client, hook = hooked(up, out, config=config, budgets=str(tmp_path / "budgets.sqlite"), settle="soon")
    client.converse(modelId=MODEL, messages=TURN)
    waiting = client.invoke_model(modelId=MODEL, body=BODY)["body"]
    child = os.fork()
    if not child:
        ended = 99
        try:
            waiting.read()
            bedrock_child = bedrock(up.url)
            attach(bedrock_child.meta.events, hook)
            bedrock_child.converse(modelId=MODEL, messages=TURN)
            hook.flush(60)
            ended = hook.faults
        finally:
            os._exit(ended)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    hook.flush(60)
    assert len(list(out.iterdir())) == 2
    assert (len(intents(out)), len(results(out))) == (3, 2)
    assert hook.live.budgets
    (state,) = hook.live.budgets.state(hook.live.clock_us())
    assert (state.spent, state.held) == (2, 1)
    waiting.close()
    hook.close()


def test_ours_is_one_thread_whatever_the_load(up, out):
    before = threading.active_count()
    client, hook = hooked(up, out, settle="soon")
    for _ in range(5):
        CALLS["Converse"](client)
    hook.flush()
    ours = [thread.name for thread in threading.enumerate() if thread.name.startswith("farthing")]
    assert set(ours) <= {"farthing-autopilot", "farthing-outbox", "farthing-settle"}
    assert threading.active_count() <= before + 4
