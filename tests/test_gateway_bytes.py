"""The gateway changes nothing it was not asked to: requests arrive, and answers come back, byte for byte."""

import json
import re
import socket
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateways import (
    BODY,
    INVOKE,
    LAST,
    MODEL,
    STREAM,
    STREAM_HEAD,
    Asked,
    Upstream,
    answered,
    chunk,
    frames,
    gateway,
    message,
    reply,
    request,
    until_closed,
    upstream,
)  # fmt: skip

COST = "0.0001056"  # 7 tokens in at 3.3, 5 out at 16.5 dollars a million: Sonnet 4.6 at a regional endpoint
HOP = {"host", "connection", "content-length"}
SIGNED = {"x-amzn-bedrock-request-metadata"}  # the id, for the invocation log


@pytest.fixture(scope="module")
def told():
    """What the upstream answers: tests set it."""
    return {"answer": lambda _: [reply(message())]}


@pytest.fixture(scope="module")
def up(told):
    with upstream(lambda asked: told["answer"](asked)) as made:  # noqa: PLW0108 - looked up at each request
        yield made


@pytest.fixture(scope="module")
def passing(up, tmp_path_factory):
    flags = ("--bedrock", up.url, "--anthropic", up.url, "--no-auth", "--fsync", "os", "--drain-s", "2")
    with gateway(tmp_path_factory.mktemp("gateway") / "outbox", *flags) as made:
        yield made


@pytest.fixture(autouse=True)
def plain(told, up: Upstream):
    told["answer"] = lambda _: [reply(message())]
    up.asked.clear()


def sent_on(asked: Asked, *, without: set[str] = HOP | SIGNED) -> list[tuple[str, str]]:
    return [(name, value) for name, value in asked.headers if name.lower() not in without]


def test_request_arrives_as_it_was_sent(up, passing):
    headers = [
        ("X-Custom", "a"),
        ("aCCept", "*/*"),
        ("X-Custom", "b"),
        ("User-Agent", "me/1"),
        ("X-Utf", "Zürich"),
    ]
    got = passing.post(INVOKE + "?a=%20b&a=/?", BODY, headers)
    assert got.status == 200
    (asked,) = up.asked
    assert asked.line == f"POST {INVOKE}?a=%20b&a=/? HTTP/1.1"
    assert asked.body == BODY
    assert sent_on(asked) == headers
    assert dict(asked.headers)["Host"] in up.url


def test_path_is_not_decoded_or_encoded(up, passing):
    arn = "arn%3Aaws%3Abedrock%3Aus-east-1%3A111122223333%3Aapplication-inference-profile%2Fabc"
    passing.post(f"/model/{arn}/invoke")
    passing.post(f"/model/{arn.replace('%3A', ':')}/invoke")
    assert [asked.line.split()[1] for asked in up.asked] == [
        f"/model/{arn}/invoke", f"/model/{arn.replace('%3A', ':')}/invoke"
    ]  # fmt: skip


NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ-_0123456789", min_size=1, max_size=20).map(
    lambda name: "X-" + name
)
VALUES = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_characters="\x7f"), max_size=40
).filter(lambda text: text == text.strip() and not re.search("[\x7f-\x9f]", text))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@settings(max_examples=40)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=8), TEXTS, st.sampled_from(["invoke", "converse"]))
def test_any_request_arrives_as_it_was_sent(up, passing, headers, text, action):
    up.asked.clear()
    body = json.dumps(
        {"messages": [{"role": "user", "content": [{"text": text}]}], "max_tokens": 5}, ensure_ascii=False
    ).encode()
    headers = [each for each in headers if not each[0].lower().startswith("x-amz")]
    passing.post(f"/model/{MODEL}/{action}", body, headers)
    assert up.asked[0].body == body
    spelt: dict[str, str] = {}  # one name in two spellings arrives in the first
    assert sent_on(up.asked[0]) == [(spelt.setdefault(name.lower(), name), value) for name, value in headers]


@settings(max_examples=25)
@given(
    st.sampled_from(
        ["200 OK", "400 Bad Request", "403 Forbidden", "429 Too Many Requests", "500 Oops", "529 Busy"]
    ),
    st.lists(st.tuples(NAMES, VALUES), max_size=6),
    st.binary(max_size=300),
)
def test_any_answer_comes_back_as_it_was_given(told, passing, status, headers, body):
    told["answer"] = lambda _: [reply(body, status, headers)]
    got = passing.post(INVOKE)
    assert got.status == int(status[:3])
    assert got.body == body
    kept = [(name, value) for name, value in got.headers if not name.startswith("x-farthing-")]
    assert kept == [*((name.lower(), value) for name, value in headers), ("content-length", str(len(body))),
                    ("connection", "close")]  # fmt: skip


def test_an_answer_of_many_headers(told, passing):
    many = [(f"X-{number}", "v" * 30) for number in range(500)]
    told["answer"] = lambda _: [reply(message(), headers=many)]
    got = passing.post(INVOKE)
    assert got.status == 200
    assert dict(got.headers)["x-499"] == "v" * 30


def test_each_answer_names_its_call_and_its_cost(passing):
    got = passing.post(INVOKE)
    assert got["x-farthing-cost-usd"] == COST
    assert got["x-farthing-endpoint"] == "regional"
    result = passing.results()[got["x-farthing-call-id"]]
    assert (result.tokens.input, result.tokens.output, result.status) == (7, 5, "")


def test_log_is_told_the_calls_id_in_a_header_alone(up, passing):
    got = passing.post(INVOKE)
    told = dict(up.asked[0].headers)["x-amzn-bedrock-request-metadata"]
    assert json.loads(told) == {"farthing_id": got["x-farthing-call-id"]}
    passing.post(INVOKE, headers=[("X-Amzn-Bedrock-Request-Metadata", '{"team":"a"}')])
    name, merged = next(each for each in up.asked[1].headers if each[0].lower() in SIGNED)
    assert name == "X-Amzn-Bedrock-Request-Metadata"
    assert json.loads(merged).keys() == {"team", "farthing_id"}
    passing.post(f"/model/{MODEL}/converse", b'{"messages":[]}')
    assert not SIGNED & {name.lower() for name, _ in up.asked[2].headers}


def test_headers_of_the_connection_and_ours_stay_here(up, passing):
    headers = [
        ("TE", "trailers"),
        ("Proxy-Authorization", "Basic x"),
        ("X-Farthing-Run", "7"),
        ("Keep-Alive", "9"),
    ]
    passing.post(INVOKE, BODY, headers)
    assert sent_on(up.asked[0]) == []


def test_without_auth_of_its_own_the_callers_goes_on(up, passing):
    passing.post(INVOKE, BODY, [("Authorization", "Bearer theirs")])
    assert ("Authorization", "Bearer theirs") in up.asked[0].headers


# --- streams ----------------------------------------------------------------------------------------------------------


def test_stream_comes_back_byte_for_byte(told, passing):
    sent = frames()
    told["answer"] = lambda _: [STREAM_HEAD, *(chunk(each) for each in sent), LAST]
    got = passing.post(STREAM)
    assert got.body == b"".join(sent)
    result = passing.results()[got["x-farthing-call-id"]]
    assert (result.tokens.input, result.tokens.output, result.stream) == (7, 5, True)


def test_stream_is_not_held_back(told, passing):
    """Each frame is there before the next one is sent."""
    gates = [threading.Event() for _ in frames()]
    steps = [step for frame, gate in zip(frames(), gates, strict=True) for step in (chunk(frame), gate)]
    told["answer"] = lambda _: [STREAM_HEAD, *steps, LAST]
    with socket.create_connection(passing.address, timeout=10) as client:
        client.sendall(request("POST", STREAM, BODY))
        seen = b""
        for frame, gate in zip(frames(), gates, strict=True):
            while frame not in seen:
                seen += client.recv(65536)
            gate.set()
        assert seen.count(b"\r\n\r\n") >= 1
        assert until_closed(client).endswith(LAST)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 900), max_size=8))
def test_stream_is_metered_however_it_is_cut(told, passing, cuts):
    whole, parts, at = b"".join(frames()), [], 0
    for size in cuts:
        parts.append(whole[at : at + size])
        at += size
    parts = [part for part in (*parts, whole[at:]) if part]
    told["answer"] = lambda _: [STREAM_HEAD, *(chunk(part) for part in parts), LAST]
    got = passing.post(STREAM)
    assert got.body == whole
    assert passing.results()[got["x-farthing-call-id"]].tokens.output == 5


def test_frames_that_cannot_be_read_are_passed_on_all_the_same(told, passing):
    broken = b"\x00\x00\x00\x20 this is no event frame at all" * 9
    told["answer"] = lambda _: [STREAM_HEAD, chunk(broken), LAST]
    got = passing.post(STREAM)
    assert got.body == broken
    assert (
        got["x-farthing-call-id"] not in passing.results()
    )  # its intent stays open: what it used is assumed


@settings(max_examples=20)
@given(st.lists(st.binary(min_size=1, max_size=120), max_size=6), st.integers(0, 700), st.booleans())
def test_frame_fuzzer(told, passing, noise, at, sse):
    """Whatever comes, among good frames or alone, is passed on, and the gateway is there for the next call."""
    whole = b"".join(frames())
    parts = [whole[:at], *noise, whole[at:]]
    head = (
        STREAM_HEAD.replace(b"application/vnd.amazon.eventstream", b"text/event-stream")
        if sse
        else STREAM_HEAD
    )
    told["answer"] = lambda _: [head, *(chunk(part) for part in parts if part), LAST]
    assert passing.post(STREAM).body == b"".join(parts)
    told["answer"] = lambda _: [reply(message())]
    assert passing.post(INVOKE)["x-farthing-cost-usd"] == COST


def test_stream_that_the_upstream_cuts_is_cut_for_the_client(told, passing):
    told["answer"] = lambda _: [STREAM_HEAD, *(chunk(each) for each in frames()[:3]), "close"]
    raw = passing.raw(request("POST", STREAM, BODY))
    assert not raw.endswith(LAST)
    assert answered(raw).body == b"".join(frames()[:3])
    assert answered(raw)["x-farthing-call-id"] not in passing.results()


def test_client_that_goes_away_is_metered_to_the_end(told, passing):
    gate = threading.Event()
    told["answer"] = lambda _: [
        STREAM_HEAD,
        chunk(frames()[0]),
        gate,
        *(chunk(each) for each in frames()[1:]),
        LAST,
    ]
    with socket.create_connection(passing.address, timeout=10) as client:
        client.sendall(request("POST", STREAM, BODY))
        head = client.recv(65536)
    call_id = answered(head)["x-farthing-call-id"]
    time.sleep(0.1)
    gate.set()
    assert waited(lambda: passing.results().get(call_id)).tokens.output == 5


def test_client_that_goes_away_before_its_answer_is_metered(told, passing):
    gate = threading.Event()
    told["answer"] = lambda _: [gate, reply(message(output_tokens=3))]
    before = set(passing.results())
    with socket.create_connection(passing.address, timeout=10) as client:
        client.sendall(request("POST", INVOKE, BODY))
        time.sleep(0.2)
    gate.set()
    (new,) = waited(lambda: passing.results().keys() - before)
    assert passing.results()[new].tokens.output == 3


def waited(see):
    """What `see` sees, as soon as it does."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if found := see():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


# --- failures ---------------------------------------------------------------------------------------------------------


def test_upstream_that_closes_without_an_answer(told, up, passing):
    told["answer"] = lambda _: ["close"]
    got = passing.post(INVOKE)
    assert (got.status, got["x-amzn-errortype"]) == (502, "InternalServerException")
    assert len(up.asked) == 1  # it may have been billed: it is not sent again
    assert got["x-farthing-call-id"] not in passing.results()


def test_errors_are_not_billed_and_not_changed(told, passing):
    body = b'{"message":"Too many tokens"}'
    told["answer"] = lambda _: [
        reply(
            body,
            "429 Too Many Requests",
            [("x-amzn-ErrorType", "ThrottlingException:http://x"), ("Retry-After", "3")],
        )
    ]
    got = passing.post(INVOKE)
    assert (got.status, got.body, got["retry-after"]) == (429, body, "3")
    assert passing.results()[got["x-farthing-call-id"]].status == "ThrottlingException"


def test_not_billed_operations_pass(told, up, passing):
    told["answer"] = lambda _: [reply(b'{"inputTokens":3}')]
    assert passing.post(f"/model/{MODEL}/count-tokens", b'{"input":{}}').json() == {"inputTokens": 3}
    got = answered(passing.raw(request("GET", "/inference-profiles/us.anthropic.claude-sonnet-4-6?x=1")))
    assert got.status == 200
    assert up.asked[1].line == "GET /inference-profiles/us.anthropic.claude-sonnet-4-6?x=1 HTTP/1.1"
    assert not {each.gateway_id for each in passing.records()} & {got["x-farthing-call-id"]}


def test_unreachable_upstream_is_tried_again_and_not_metered(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with gateway(tmp_path, "--bedrock", f"http://127.0.0.1:{port}", "--no-auth") as made:
        got = made.post(INVOKE)
        assert got.status == 502
        records = made.records()
        assert [record.status for record in made.results().values()] == ["void"] * 3
        assert len(records) == 6  # each attempt has its own intent and result


def test_throttled_calls_are_tried_again_if_asked(tmp_path):
    answers = [reply(b"{}", "429 Too Many Requests", [("Retry-After", "0")]), reply(message())]
    with (
        upstream(lambda _: [answers.pop(0)]) as up,
        gateway(tmp_path, "--bedrock", up.url, "--no-auth", "--retries", "1") as made,
    ):
        got = made.post(INVOKE)
        assert got.status == 200
        assert sorted(record.status for record in made.results().values()) == ["", "http_429"]
        assert made.results()[got["x-farthing-call-id"]].tokens.output == 5


def test_anthropic_messages_pass_as_they_are(told, up, passing):
    body = b'{"model": "claude-sonnet-4-6", "max_tokens":5,"messages":[],  "stream":false}'
    got = passing.post(
        "/v1/messages?beta=true", body, [("x-api-key", "theirs"), ("anthropic-version", "2023-06-01")]
    )
    assert got.status == 200
    assert up.asked[0].line == "POST /v1/messages?beta=true HTTP/1.1"
    assert up.asked[0].body == body
    assert ("x-api-key", "theirs") in up.asked[0].headers
    assert not SIGNED & {name.lower() for name, _ in up.asked[0].headers}


def test_server_sent_events_pass_as_they_are(told, passing):
    events = (
        b"event: message_start\r\n"
        b'data: {"type":"message_start","message":{"id":"m","usage":{"input_tokens":7}}}\r\n\r\n'
        b": a comment\n\n"
        b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":5}}\n\nevent: message_stop\n'
        b'data: {"type":"message_stop"}\n\n'
    )
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    told["answer"] = lambda _: [
        head,
        *(chunk(events[at : at + 7]) for at in range(0, len(events), 7)),
        LAST,
    ]
    body = b'{"model":"claude-sonnet-4-6","max_tokens":5,"messages":[],"stream":true}'
    got = passing.post("/v1/messages", body)
    assert got.body == events
    result = passing.results()[got["x-farthing-call-id"]]
    assert (result.tokens.input, result.tokens.output, result.platform) == (7, 5, "anthropic")


def test_a_client_of_http_1_0_gets_its_stream_without_chunks(passing, told):
    sent = frames()
    told["answer"] = lambda _: [STREAM_HEAD, *(chunk(each) for each in sent), LAST]
    old = (
        request("POST", STREAM, BODY)
        .replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        .replace(b"Connection: close\r\n", b"")
    )
    head, _, body = passing.raw(old).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body == b"".join(sent)
