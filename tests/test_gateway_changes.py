"""What the gateway changes, where it is asked to: levers of a policy, and Messages for Bedrock."""

import json
from base64 import b64decode, b64encode
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.book import default_book
from farthing.gateway._reply import Failure
from farthing.gateway._translate import Events, error_body, model_for_bedrock, to_count_tokens, to_invoke
from farthing.usage import Rejected
from farthing.wire import Events as Sse
from farthing.wire import encode
from tests.gateways import (
    BODY,
    INVOKE,
    LAST,
    MODEL,
    STREAM_HEAD,
    chunk,
    frames,
    gateway,
    message,
    reply,
    upstream,
)

# --- policies ---------------------------------------------------------------------------------------------------------


def policy(**entry) -> str:
    now = datetime.now(UTC)
    said = {
        "workload": "support", "approver": "Ada", "approved_at": f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
        "expires": f"{now + timedelta(days=9):%Y-%m-%d}", **entry,
    }  # fmt: skip
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in said.items())
    return f'[workloads.support]\ntags = ["app=support"]\n\n[[entries]]\n{lines}\n'


SUPPORT = [("X-Amzn-Bedrock-Request-Metadata", '{"app":"support"}'), ("X-Farthing-Run", "r")]


@pytest.mark.parametrize(
    ("entry", "path", "changed"),
    [
        (
            {"lever": "endpoint", "endpoint": "global", "was": "regional"},
            INVOKE.replace("us.", "global.", 1),
            False,
        ),
        ({"lever": "endpoint", "endpoint": "global", "state": "shadow"}, INVOKE, False),
        ({"lever": "batch", "deadline": "24h"}, INVOKE, False),
    ],
)
def test_levers_of_the_policy(tmp_path, entry, path, changed):
    (tmp_path / "policy.toml").write_text(policy(**entry))
    flags = ("--no-auth", "--policy", str(tmp_path / "policy.toml"))
    with (
        upstream(lambda _: [reply(message())]) as up,
        gateway(tmp_path / "outbox", "--bedrock", up.url, *flags) as made,
    ):
        got = made.post(INVOKE, BODY, SUPPORT)
        assert got.status == 200
        record = made.results()[got["x-farthing-call-id"]]
        (decision,) = record.decisions
        assert decision.lever == entry["lever"]
        assert record.model == path.split("/")[2].replace("%3A", ":")
        made.post(INVOKE, BODY)  # of another workload
    assert [asked.line.split()[1] for asked in up.asked] == [path, INVOKE]
    assert [asked.body for asked in up.asked] == [BODY, BODY]


# --- Messages for Bedrock ---------------------------------------------------------------------------------------------

BOOK = default_book()


@pytest.mark.parametrize(
    ("model", "routing", "region", "called"),
    [
        ("claude-sonnet-4-6", "", "eu-central-1", "eu.anthropic.claude-sonnet-4-6"),
        ("claude-sonnet-4-6", "global", "eu-central-1", "global.anthropic.claude-sonnet-4-6"),
        ("claude-haiku-4-5-20251001", "", "us-west-2", "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("claude-haiku-4-5", "jp", "", "jp.anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("anthropic.claude-opus-5", "", "", "anthropic.claude-opus-5"),
        ("mine", "", "", "arn:x"),
        ("claude-sonnet-4-6", "in_region", "", "anthropic.claude-sonnet-4-6"),
    ],
)
def test_model_names(model, routing, region, called):
    assert model_for_bedrock(model, BOOK, {"mine": "arn:x"}, routing, region) == called


@pytest.mark.parametrize(
    ("model", "routing", "region", "says"),
    [
        ("claude-unheard-of", "us", "", "none of this name"),
        ("claude-sonnet-4-6", "", "sa-east-1", "--routing"),
        ("claude-sonnet-5-5", "in", "", "no profile"),
    ],
)
def test_model_names_that_are_not_guessed(model, routing, region, says):
    with pytest.raises(Failure, match=says):
        model_for_bedrock(model, BOOK, {}, routing, region)


def test_request_as_invoke_model():
    prompt = b'[ {"role":"user","content":"\\u00fc \xc3\xbc 1.50"} ]'
    said = b'{"model":"m", "stream": true, "max_tokens":5,"messages": ' + prompt + b"}"
    headers = [
        ("anthropic-beta", "a-1, b-2"),
        ("anthropic-version", "2023-06-01"),
        ("X-Stainless-Lang", "python"),
    ]
    sent = to_invoke("us.x:0", said, headers, stream=True)
    assert sent.path == "/model/us.x%3A0/invoke-with-response-stream"
    assert prompt in sent.body  # byte for byte
    assert json.loads(sent.body) == {
        "anthropic_version": "bedrock-2023-05-31", "anthropic_beta": ["a-1", "b-2"], "max_tokens": 5,
        "messages": json.loads(said)["messages"],
    }  # fmt: skip
    assert [name for name, _ in sent.headers] == ["X-Stainless-Lang", "accept"]


def test_count_as_count_tokens():
    sent = to_count_tokens("us.x", b'{"model":"m","messages":[1]}', [])
    inner = json.loads(b64decode(json.loads(sent.body)["input"]["invokeModel"]["body"]))
    assert inner == {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 1, "messages": [1]}


@given(st.binary(max_size=60))
def test_what_is_no_request_is_rejected(body):
    with suppress(Rejected):  # and nothing else is raised
        assert json.loads(to_invoke("m", body, [], stream=False).body)["anthropic_version"]


@settings(max_examples=30)
@given(st.lists(st.integers(1, 400), max_size=12))
def test_stream_as_sse_however_it_is_cut(cuts):
    whole, turn, at, told = b"".join(frames()), Events(), 0, b""
    for size in (*cuts, len(whole)):
        told += turn.feed(whole[at : at + size])
        at += size
    events = [json.loads(data)["type"] for data in Sse().feed(told)]
    assert events == ["message_start", "content_block_start", "content_block_delta", "content_block_stop",
                      "message_delta", "message_stop"]  # fmt: skip
    assert told.startswith(b'event: message_start\ndata: {"type": "message_start"')


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (encode({":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message":"slow"}'),
         "rate_limit_error"),
        (encode({":message-type": "exception", ":exception-type": "modelStreamErrorException"}, b"{}"), "api_error"),
        (encode({":message-type": "error", ":error-code": "InternalFailure"}, b""), "api_error"),
        (b"\x00" * 40, "api_error"),
        (encode({":message-type": "event", ":event-type": "chunk"}, b'{"bytes":"!"}'), "api_error"),
    ],
)  # fmt: skip
def test_errors_in_a_stream(frame, kind):
    turn = Events()
    first = turn.feed(frames()[0])
    (said,) = [json.loads(data) for data in Sse().feed(turn.feed(frame))]
    assert said["error"]["type"] == kind
    assert first
    assert turn.feed(frames()[1]) == b""  # nothing comes after


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_frame_fuzzer(noise, at):
    """Whatever a broken upstream sends: events, or one error event, and never a fault of ours."""
    whole = b"".join(frames())
    broken = whole[:at] + noise + whole[at + len(noise) // 2 :]
    told = b"".join(Events().feed(broken[start : start + 64]) for start in (0,)) + Events().feed(broken)
    for data in Sse().feed(told):
        assert json.loads(data)["type"]


def test_errors_in_anthropics_shape():
    said = json.loads(error_body(400, "ValidationException:http://x", b'{"message":"no"}', "req-1"))
    assert said == {
        "type": "error", "error": {"type": "invalid_request_error", "message": "no"}, "request_id": "req-1"
    }  # fmt: skip
    assert json.loads(error_body(418, "", b"<html>", ""))["error"] == {
        "type": "api_error",
        "message": "<html>",
    }


def test_translated_answer_has_bedrocks_usage_and_request_id(tmp_path):
    data = b64encode(b'{"type":"ping"}').decode()
    ping = encode({":event-type": "chunk", ":message-type": "event"}, json.dumps({"bytes": data}).encode())
    head = [("Content-Type", "application/json"), ("X-Amzn-RequestId", "req-1")]
    streamed = [STREAM_HEAD, chunk(ping), *(chunk(each) for each in frames()), LAST]
    with (
        upstream(
            lambda asked: streamed if "stream" in asked.line else [reply(message(), headers=head)]
        ) as up,
        gateway(tmp_path, "--bedrock", up.url, "--no-auth", "--routing", "us") as made,
    ):
        said = {"model": "claude-sonnet-4-6", "max_tokens": 5, "messages": []}
        whole = made.post("/v1/messages", json.dumps(said).encode())
        stream = made.post("/v1/messages", json.dumps({**said, "stream": True}).encode())
        assert made.post("/v1/messages/batches", b"{}").status == 404
        records = made.results()
    assert whole.body == message()
    assert whole["request-id"] == "req-1"
    assert stream["content-type"].startswith("text/event-stream")
    assert stream["request-id"] == "req-1"
    for got in (whole, stream):
        record = records[got["x-farthing-call-id"]]
        assert (record.tokens.input, record.tokens.output, record.model) == (7, 5, MODEL)
    assert [asked.line.split()[1] for asked in up.asked] == [INVOKE, INVOKE + "-with-response-stream"]
