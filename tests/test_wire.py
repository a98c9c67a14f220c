"""The wire: frames as botocore reads them, answers metered however they are cut, paths that lead nowhere else."""

import json
import sys
import zlib
from base64 import b64encode
from itertools import pairwise
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from farthing.meters import Vector
from farthing.usage import Rejected
from farthing.wire import Answers, FrameError, Frames, Route, ask, encode, event, route, safe_model_id

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

INVOKE = route("POST", "/model/global.anthropic.claude-sonnet-4-6/invoke") or pytest.fail("no route")
STREAM = route(
    "POST", "/model/global.anthropic.claude-sonnet-4-6/invoke-with-response-stream"
) or pytest.fail("no route")
CONVERSE = route("POST", "/model/global.anthropic.claude-sonnet-4-6/converse-stream") or pytest.fail(
    "no route"
)
MESSAGES = route("POST", "/v1/messages") or pytest.fail("no route")

START = {"input_tokens": 12, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 40, "output_tokens": 1,
         "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 30}}  # fmt: skip
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "msg_1", "model": "claude-sonnet-4-6", "usage": START}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 'he said "usage"'}},
    {"type": "ping"},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 321}},
    {"type": "message_stop"},
]
USED = Vector(12, 321, 900, 10, 30)


def chunk(body: dict[str, Any]) -> bytes:
    packed = json.dumps({"bytes": b64encode(json.dumps(body).encode()).decode(), "p": "abc"}).encode()
    return encode(
        {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}, packed
    )


FRAMED = b"".join(map(chunk, EVENTS))
SENT = b"".join(event(body["type"], json.dumps(body).encode()) for body in EVENTS)


def metered(where: Route, kind: str, *chunks: bytes, status: int = 200, **headers: str) -> Answers:
    answers = Answers(
        where, status, {"content-type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}
    )
    for each in chunks:
        answers.feed(each)
    return answers


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


# --- frames ------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.dictionaries(st.text("abc:-", min_size=1), st.text(max_size=20)), st.binary(max_size=90))
    ),
    st.lists(st.integers(0, 5000)),
)
def test_frames_come_back_however_the_stream_is_cut(
    frames: list[tuple[dict[str, str], bytes]], places: list[int]
) -> None:
    reader = Frames()
    stream = b"".join(encode(headers, payload) for headers, payload in frames)
    assert [tuple(frame) for piece in cut(stream, places) for frame in reader.feed(piece)] == frames
    assert not reader.partial


@given(st.dictionaries(st.text("abc:-", min_size=1), st.text(max_size=20)), st.binary(max_size=90))
def test_botocore_reads_our_frames(headers: dict[str, str], payload: bytes) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(encode(headers, payload))
    (message,) = list(buffer)
    assert (message.headers, message.payload) == (headers, payload)


@given(st.integers(0, len(FRAMED) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_seen_or_waits_for_more(at: int, flip: int) -> None:
    broken = bytearray(FRAMED)
    broken[at] ^= flip
    reader = Frames()
    with pytest.raises(FrameError):
        reader.feed(bytes(broken))


def test_other_kinds_of_headers_are_passed_over() -> None:
    typed = [
        (b"a", 0, b""),
        (b"b", 4, b"\0\0\0\7"),
        (b"c", 6, b"\0\2xy"),
        (b"d", 9, bytes(16)),
        (b"e", 8, bytes(8)),
    ]
    text = encode({"f": "told"}, b"")[12:-4]
    packed = b"".join(bytes((len(n),)) + n + bytes((k,)) + v for n, k, v in typed) + text
    prelude = (16 + len(packed)).to_bytes(4, "big") + len(packed).to_bytes(4, "big")
    checked = prelude + zlib.crc32(prelude).to_bytes(4, "big") + packed
    (frame,) = Frames().feed(checked + zlib.crc32(checked).to_bytes(4, "big"))
    assert frame.headers == {"f": "told"}


# --- answers -----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5000)))
@pytest.mark.parametrize(
    ("where", "kind", "stream"),
    [
        (STREAM, "application/vnd.amazon.eventstream", FRAMED),
        (MESSAGES, "text/event-stream; charset=utf-8", SENT),
    ],
)
def test_a_stream_is_metered_however_it_is_cut(
    where: Route, kind: str, stream: bytes, places: list[int]
) -> None:
    answer = metered(where, kind, *cut(stream, places)).done()
    assert [part.tokens for part in answer.parts] == [USED]
    assert (answer.model, answer.message_id, answer.final, answer.error) == (
        "claude-sonnet-4-6",
        "msg_1",
        True,
        "",
    )


def test_carriage_returns_end_events_too() -> None:
    for places in range(0, len(SENT), 7):
        answer = metered(MESSAGES, "text/event-stream", *cut(SENT.replace(b"\n", b"\r\n"), [places])).done()
        assert [part.tokens for part in answer.parts] == [USED]


def test_a_stream_that_broke_says_so() -> None:
    answer = metered(MESSAGES, "text/event-stream", SENT[: SENT.index(b"event: message_delta") + 30]).done()
    assert not answer.final
    assert answer.parts[0].tokens.cache_read == 900


def test_an_error_in_the_middle_has_its_code() -> None:
    wrong = encode({":message-type": "exception", ":exception-type": "throttlingException"}, b"{}")
    answer = metered(STREAM, "application/vnd.amazon.eventstream", chunk(EVENTS[0]), wrong).done()
    assert (answer.error, answer.final) == ("throttlingException", False)
    overloaded = event("error", b'{"type":"error","error":{"type":"overloaded_error"}}')
    assert metered(MESSAGES, "text/event-stream", overloaded).done().error == "overloaded_error"


def test_converse_tells_its_usage_at_the_end() -> None:
    usage = {"inputTokens": 5, "outputTokens": 7, "cacheWriteInputTokens": 9, "totalTokens": 21,
             "cacheDetails": [{"ttl": "1h", "inputTokens": 9}]}  # fmt: skip
    said = encode(
        {":event-type": "metadata", ":message-type": "event"}, json.dumps({"usage": usage}).encode()
    )
    answer = metered(CONVERSE, "application/vnd.amazon.eventstream", said).done()
    assert [part.tokens for part in answer.parts] == [Vector(5, 7, 0, 0, 9)]


def test_an_answer_in_one_piece() -> None:
    body = json.dumps({"id": "msg_1", "model": "m", "usage": START}).encode()
    for encoding, sent in [
        ("", body),
        ("gzip", zlib.compress(body, wbits=31)),
        ("deflate", zlib.compress(body)),
        ("zstd", zstd.compress(body)),
    ]:
        answer = metered(
            INVOKE, "application/json", sent, content_encoding=encoding, x_amzn_requestid="r"
        ).done()
        assert (answer.parts[0].tokens.cached, answer.request_id, answer.final) == (940, "r", True)


def test_brotli_is_read_where_it_is_installed() -> None:
    brotli = pytest.importorskip("brotli", reason="an answer in brotli counts as its ceiling without brotli")
    sent = brotli.compress(json.dumps({"id": "msg_1", "model": "m", "usage": START}).encode())
    for cut in (1, 40, len(sent)):
        answers = metered(INVOKE, "application/json", sent[:cut], sent[cut:], content_encoding="br")
        assert answers.done().parts[0].tokens.cached == 940


def test_headers_tell_the_tokens_where_the_body_does_not() -> None:
    told = {"x_amzn_bedrock_input_token_count": "3", "x_amzn_bedrock_output_token_count": "4"}
    answers = metered(INVOKE, "application/json", b'{"completion":"x"}', **told)  # type: ignore[arg-type]
    answer = answers.done()
    assert [part.tokens for part in answer.parts] == [Vector(3, 4)]


KINDS = ["application/json", "application/vnd.amazon.eventstream", "text/event-stream", "text/plain", ""]


@given(
    st.binary(max_size=300),
    st.sampled_from(KINDS),
    st.sampled_from([200, 400, 503]),
    st.sampled_from(["", "gzip", "zstd", "br"]),
)
def test_no_answer_makes_metering_fail(data: bytes, kind: str, status: int, encoding: str) -> None:
    answer = metered(INVOKE, kind, data, status=status, content_encoding=encoding).done()
    assert answer.parts == () or answer.usage
    assert bool(answer.error) == (status >= 400)


def test_an_errors_code_is_found_where_each_platform_puts_it() -> None:
    aws = {"x_amzn_errortype": "ThrottlingException:http://internal.amazon.com/coral/"}
    assert metered(INVOKE, "application/json", b"{}", status=429, **aws).done().error == "ThrottlingException"
    said = b'{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}'
    assert metered(MESSAGES, "application/json", said, status=429).done().error == "rate_limit_error"
    assert metered(MESSAGES, "text/html", b"<html>", status=502).done().error == "http_502"


# --- requests ----------------------------------------------------------------------------------------------------


def test_what_requests_ask() -> None:
    body = (
        b'{"max_tokens":9,"stream":true,"messages":[],"metadata":{"user_id":"u"},"model":"claude-sonnet-4-6"}'
    )
    asked = ask(MESSAGES, body)
    assert (asked.model, asked.stream, asked.max_tokens, asked.user) == ("claude-sonnet-4-6", True, 9, "u")
    asked = ask(
        CONVERSE, b'{"inferenceConfig":{"maxTokens":5},"requestMetadata":{"team":"a"},"x":{"cachePoint":1}}'
    )
    assert (asked.max_tokens, asked.metadata, asked.marked, asked.stream) == (5, {"team": "a"}, True, True)
    asked = ask(INVOKE, b"{}", {"x-amzn-bedrock-request-metadata": '{"run":"7"}'})
    assert (asked.metadata, asked.stream) == ({"run": "7"}, False)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"max_tokens":"x"}', b'{"max_tokens":-1}', b"\xff{}", b'{"model":1}']
)
def test_what_is_no_request_is_rejected_in_one_line(body: bytes) -> None:
    with pytest.raises(Rejected) as raised:
        ask(MESSAGES, body)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("model", ["../admin", "a/../b", "", "a\nb", "a\0", "//x", "x" * 3000, "a b", "é"])
def test_a_models_id_leads_nowhere_else(model: str) -> None:
    from urllib.parse import quote

    assert not safe_model_id(model)
    assert route("POST", f"/model/{quote(model, safe='')}/invoke") is None


def test_an_arn_keeps_its_slashes() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    for sent in (arn, arn.replace("/", "%2F"), arn.replace(":", "%3A").replace("/", "%2F")):
        found = route("POST", f"/model/{sent}/converse")
        assert found is not None
        assert found.model == arn
