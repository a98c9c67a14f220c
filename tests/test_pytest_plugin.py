"""The pytest plugin: calls of a real boto3 client are recorded and priced, limits fail tests, replays call nobody."""

import json
import threading
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest

from farthing.pytest_plugin import Cost, Dollars, replay
from tests.prompts import FIVE, MODEL, SENTENCE, body, with_

pytest_plugins = ("pytester",)

AT = datetime(2026, 11, 22, tzinfo=UTC)
RUN = ("-p", "no:farthing", "-p", "farthing.pytest_plugin", "-p", "no:cacheprovider")
USAGE = {"inputTokens": 1_000, "outputTokens": 100, "totalTokens": 1_100, "cacheReadInputTokens": 9_000}


class Bedrock(BaseHTTPRequestHandler):
    """Converse and InvokeModel on the loopback, streamed or not: 9,000 of 10,000 tokens are read from the cache."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/invoke"):
            answer = {
                "content": [{"type": "text", "text": "yes"}],
                "usage": {"input_tokens": 1_000, "output_tokens": 100, "cache_read_input_tokens": 9_000},
            }
        else:
            answer = {
                "output": {"message": {"role": "assistant", "content": [{"text": "yes"}]}},
                "stopReason": "end_turn", "metrics": {"latencyMs": 5}, "usage": USAGE,
            }  # fmt: skip
        refused = "refuse" in json.dumps(asked)
        data, kind = json.dumps({"message": "no"} if refused else answer).encode(), "application/json"
        if self.path.endswith("-stream"):
            data, kind = (
                event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 5}}),
                "application/vnd.amazon.eventstream",
            )
        self.send_response(400 if refused else 200)
        if refused:
            self.send_header("x-amzn-ErrorType", "ValidationException")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def event(kind, payload):
    """One event of an AWS event stream."""
    import binascii
    import struct

    headers = b""
    for name, value in (
        (":event-type", kind),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ):
        headers += (
            bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        )
    data = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(data), len(headers))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + data
    return message + struct.pack(">I", binascii.crc32(message))


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bedrock)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(endpoint):
    made = boto3.client(
        "bedrock-runtime", region_name="us-east-1", endpoint_url=endpoint,
        aws_access_key_id="test", aws_secret_access_key="test",
    )  # fmt: skip
    yield made
    made.close()


ASK = [{"role": "user", "content": [{"text": "hi"}]}]
# 1,000 x $3 + 100 x $15 + 9,000 x $0.30, in millionths
ONE = "0.0072"


# --- calls of a client -----------------------------------------------------------------------------------------------


def test_calls_of_boto3_are_recorded_and_answers_stay_as_they_were(client):
    cost = Cost(at=AT)
    cost.watch(client)
    assert client.converse(modelId=MODEL, messages=ASK)["output"]["message"]["content"] == [{"text": "yes"}]
    assert cost.usd == ONE
    answer = client.invoke_model(modelId=MODEL, body=json.dumps(body()))
    assert json.loads(answer["body"].read())["content"][0]["text"] == "yes"
    assert cost.usd == "0.0144"
    assert (cost.cache_hit, cost.tokens.output) == (0.9, 200)


def test_a_stream_is_recorded_when_it_ends(client):
    cost = Cost(at=AT)
    cost.watch(client)
    events = list(client.converse_stream(modelId=MODEL, messages=ASK)["stream"])
    assert events[-1]["metadata"]["usage"]["cacheReadInputTokens"] == 9_000
    assert cost.usd == ONE


def test_a_refused_call_costs_nothing(client):
    cost = Cost(at=AT)
    cost.watch(client)
    with pytest.raises(client.exceptions.ValidationException):
        client.converse(modelId=MODEL, messages=[{"role": "user", "content": [{"text": "refuse"}]}])
    assert cost.calls == []


def test_after_it_stopped_nothing_is_recorded(client):
    cost = Cost(at=AT)
    cost.watch(client)
    cost.stop()
    client.converse(modelId=MODEL, messages=ASK)
    assert cost.calls == []


# --- usage in hand ---------------------------------------------------------------------------------------------------


def test_usage_of_an_sdk_is_added_as_a_block_as_an_answer_or_as_an_object():
    block = {"input_tokens": 1_000, "output_tokens": 100, "cache_read_input_tokens": 9_000}

    class Message:
        def model_dump(self):
            return {"model": MODEL, "usage": block}

    cost = Cost(at=AT)
    cost.add(block, MODEL)
    cost.add({"model": MODEL, "usage": block})
    cost.add(Message())
    assert cost.usd == "0.0216"
    assert str(cost.usd) == "$0.0216"


def test_what_has_no_price_is_not_free():
    cost = Cost(at=AT)
    cost.add({"input_tokens": 1}, "anthropic.claude-nobody")
    with pytest.raises(AssertionError, match="unknown model"):
        assert cost.usd < "1"


def test_dollars_are_exact():
    cents = Dollars(20_000_000_000)
    assert "0.019" < cents < "0.0200000001"
    assert cents == "0.02" == cents
    assert cents <= Decimal("0.02")
    assert cents < 1
    with pytest.raises(TypeError, match="no exact amount"):
        assert cents < 0.02


# --- without a call --------------------------------------------------------------------------------------------------


def test_replay_bills_bodies_by_the_rules_of_the_cache():
    """A minute apart, the second reads what the first wrote; six minutes apart, it writes again."""
    asks = [body("a?"), body("b?")]
    warm = replay(asks, model=MODEL, at=AT)
    first, second = (call.tokens for call in warm.calls)
    assert first.cache_write_5m == second.cache_read > 1_500
    assert warm.cache_hit > 0.49
    cold = replay(asks, model=MODEL, at=AT, gap_s=360)
    assert cold.tokens.cache_read == 0
    assert warm.usd < cold.usd


def test_replay_finds_the_clock():
    asks = [body("a?", f"Now 2026-11-22T10:00:0{at}Z. " + SENTENCE * 60) for at in range(5)]
    assert replay(asks, model=MODEL, at=AT).cache_hit == 0


def test_replay_says_what_would_be_refused():
    bad = body()
    for each in (*bad["tools"], *bad["messages"][0]["content"]):
        each["cache_control"] = FIVE
    with pytest.raises(ValueError, match="request 2: the API would refuse it: 5 breakpoints"):
        replay([body(), bad], model=MODEL, at=AT)
    with pytest.raises(ValueError, match="no model is named"):
        replay([body()], at=AT)


def test_a_model_without_cache_reads_nothing():
    cost = replay([with_(body(), model="anthropic.claude-3-haiku-20240307-v1:0")] * 2, at=AT)
    assert cost.cache_hit == 0
    assert cost.usd > 0


# --- in pytest -------------------------------------------------------------------------------------------------------


def test_the_fixture_and_the_marker(pytester, endpoint):
    pytester.makepyfile(f"""
        import boto3, pytest

        @pytest.fixture
        def bedrock():
            made = boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url={endpoint!r},
                                aws_access_key_id="test", aws_secret_access_key="test")
            yield made
            made.close()

        def ask(bedrock):
            bedrock.converse(modelId={MODEL!r}, messages=[{{"role": "user", "content": [{{"text": "hi"}}]}}])

        def test_cheap(farthing_cost, bedrock):
            with farthing_cost(bedrock) as cost:
                ask(bedrock)
            ask(bedrock)  # outside: not counted
            assert cost.usd < "0.02"
            assert cost.usd == "0.0072"
            assert cost.cache_hit >= 0.9

        @pytest.mark.max_usd("0.01")
        def test_within(farthing_cost, bedrock):
            with farthing_cost(bedrock):
                ask(bedrock)

        @pytest.mark.max_usd("0.01")
        def test_beyond(farthing_cost, bedrock):
            with farthing_cost(bedrock):
                ask(bedrock)
            with farthing_cost(bedrock):
                ask(bedrock)

        @pytest.mark.max_usd("0.01")
        def test_unmeasured():
            pass

        @pytest.mark.max_usd("0.01")
        def test_nothing_called(farthing_cost):
            pass
    """)
    done = pytester.runpytest_inprocess(*RUN, "--strict-markers")
    done.assert_outcomes(passed=2, failed=3)
    done.stdout.fnmatch_lines(
        [
            "*2 calls cost $0.0144, more than max_usd $0.01*",
            "*max_usd wants the fixture farthing_cost*",
            "*max_usd: no call was recorded*",
        ],
        consecutive=False,
    )
