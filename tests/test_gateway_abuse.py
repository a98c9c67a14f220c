"""What a hostile or broken client sends: refused at once, in its own dialect, and never passed on."""

import json
import socket
import time
from contextlib import suppress

import pytest

from tests.gateways import (
    BODY,
    INVOKE,
    MODEL,
    answered,
    gateway,
    message,
    reply,
    request,
    until_closed,
    upstream,
)


@pytest.fixture(scope="module")
def up():
    with upstream(lambda _: [reply(message())]) as made:
        yield made


@pytest.fixture(scope="module")
def passing(up, tmp_path_factory):
    outbox = tmp_path_factory.mktemp("gateway") / "outbox"
    with gateway(outbox, "--bedrock", up.url, "--no-auth", "--fsync", "os", "--max-body-mb", "1") as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_yet(up):
    up.asked.clear()


HEAD = f"POST {INVOKE} HTTP/1.1\r\nHost: x\r\n".encode()
CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + CHUNKED,
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        HEAD + b"Content-Length: 5, 6\r\n\r\nhello",
        HEAD + b"Content-Length: +5\r\n\r\nhello",
        HEAD + b"Content-Length: -5\r\n\r\nhello",
        HEAD + b"Content-Length: 0x5\r\n\r\nhello",
        HEAD + b"Content-Length : 5\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKED,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        HEAD + b"X-A: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"X\x00A: b\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"X-A: b\x00c\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"X-A: b\nEvil: c\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"X-A: " + b"a" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"POST /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"".join([HEAD, *(b"X-%d: y\r\n" % number for number in range(9_000)), b"\r\n"]),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
        b"GET http://evil/ HTTP/9.9\r\n\r\n",
    ],
)
def test_smuggling_shapes_are_refused_and_not_passed_on(up, passing, sent):
    raw = passing.raw(sent + b"GET /foundation-models HTTP/1.1\r\nHost: x\r\n\r\n")
    assert raw == b"" or raw.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
    assert raw.count(b"HTTP/1.1 ") <= 1  # what came behind was not taken for a request
    assert up.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "/model/..%2F..%2Fadmin/invoke",
        "/model/../model/x/invoke",
        "/model/a%2F..%2F..%2Fb/invoke",
        "/model/a%0d%0aX-Evil:%20b/invoke",
        "/model/a%00b/invoke",
        "/model/%C0%AE%C0%AE/invoke",
        "/model//invoke",
        "/model/" + "a" * 3000 + "/invoke",
        "/model/x/delete",
        "/admin/../model/x/invoke",
        "/v1/messages/../../model",
        "//evil.example.com/model/x/invoke",
        "/",
    ],
)
def test_paths_that_lead_elsewhere_are_not_found(up, passing, path):
    got = passing.post(path)
    assert got.status == 404
    assert "x-farthing-call-id" in dict(got.headers) or path.startswith("/admin")
    assert up.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/../organizations/api_keys",
        "/v1/models/..%2Forganizations",
        "/v1/models/%2e%2e/x",
        "/v1/models/%252e%252e%252fx",
        "/v1/modelsX/../../admin",
    ],
)
def test_models_cannot_be_a_way_to_the_rest_of_the_api(path, tmp_path):
    """The upstream is asked with the gateway's own right."""
    with (
        upstream(lambda _: [reply(b"{}")]) as up,
        gateway(tmp_path, "--anthropic", up.url, "--no-auth") as made,
    ):
        assert answered(made.raw(request("GET", path))).status == 404
        assert answered(made.raw(request("GET", "/v1/models/claude-sonnet-4-6?limit=1"))).status == 200
        assert [asked.line for asked in up.asked] == ["GET /v1/models/claude-sonnet-4-6?limit=1 HTTP/1.1"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"{" * 100_000, b'{"max_tokens": -1}',
                                  b'{"max_tokens": 1e400}', b'{"max_tokens": true}', b"null"])  # fmt: skip
@pytest.mark.parametrize(("path", "dialect"), [(INVOKE, "bedrock"), ("/v1/messages", "anthropic")])
def test_bodies_that_are_no_request_are_refused_in_the_dialect(up, passing, path, dialect, body):
    got = passing.post(path, body)
    assert got.status == 400
    if dialect == "bedrock":
        assert got["x-amzn-errortype"] == "ValidationException"
        assert got.json()["message"]
    else:
        assert got.json()["error"]["type"] == "invalid_request_error"
    assert up.asked == []


def test_refusals_repeat_nothing_of_the_prompt(passing):
    got = passing.post(INVOKE, b'{"max_tokens": "xyzzy", "messages": [{"content": "plugh"}]}')
    assert got.status == 400
    assert b"plugh" not in got.body


def test_body_that_is_too_large(up, passing):
    raw = passing.raw(HEAD + b"Content-Length: 2000000\r\n\r\n")
    assert answered(raw).status == 413
    sent = (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join([b"10000\r\n" + b"a" * 65536 + b"\r\n"] * 20)
    )
    with socket.create_connection(passing.address, timeout=10) as client:
        with suppress(BrokenPipeError, ConnectionResetError):  # it is closed in the middle
            client.sendall(sent)
        assert until_closed(client)[:12] in (b"HTTP/1.1 413", b"")
    assert up.asked == []


def test_body_shorter_than_it_said(up, passing):
    with socket.create_connection(passing.address, timeout=10) as client:
        client.sendall(HEAD + b"Content-Length: 500\r\n\r\nhello")
        client.shutdown(socket.SHUT_WR)
        until_closed(client)
    assert up.asked == []


def test_body_longer_than_it_said(up, passing):
    """What is too much is another request, and none."""
    raw = passing.raw(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY + b"and more\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 ")
    time.sleep(0.3)  # the first may still be on its way
    assert [asked.body for asked in up.asked] in ([], [BODY])


def test_header_cannot_be_injected_by_metadata_or_names(up, passing):
    got = passing.post(
        INVOKE,
        BODY,
        [("X-Farthing-Team", "a\u2028b"), ("X-Amzn-Bedrock-Request-Metadata", '{"a":"\\r\\nX: y"}')],
    )
    assert got.status == 200
    (asked,) = up.asked
    assert "X: y" not in [f"{name}: {value}" for name, value in asked.headers]
    assert json.loads(dict(asked.headers)["X-Amzn-Bedrock-Request-Metadata"])["a"] == "\r\nX: y"


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://evil.example", 403), ("null", 403), ("http://[", 403), ("http://localhost:3000", 200)],
)
def test_pages_of_other_sites_may_not_spend_without_a_key(up, passing, origin, status):
    """A browser on this machine sends such a request to any loopback port, whatever page it shows."""
    assert passing.post(INVOKE, BODY, [("Origin", origin), ("Content-Type", "text/plain")]).status == status
    assert len(up.asked) == (status == 200)


def test_pipelined_requests_are_answered_in_order(up, passing):
    one = request("POST", INVOKE, BODY).replace(b"Connection: close\r\n", b"")
    raw = passing.raw(one + one + request("POST", INVOKE, BODY))
    assert raw.count(b"HTTP/1.1 200") == 3
    assert len(up.asked) == 3


def test_slow_head_is_cut_off(tmp_path, up):
    with gateway(tmp_path, "--bedrock", up.url, "--no-auth", "--head-s", "1") as made:
        kept_alive = request("POST", INVOKE, BODY).replace(b"Connection: close\r\n", b"")
        for begun in (b"", b"POST ", HEAD, kept_alive):
            with socket.create_connection(made.address, timeout=10) as client:
                client.sendall(begun)
                started = time.monotonic()
                if begun == kept_alive:
                    assert client.recv(65536).startswith(b"HTTP/1.1 200")
                    client.sendall(b"\r\n")
                until_closed(client)
                assert 0.5 < time.monotonic() - started < 5


def test_slow_body_is_cut_off(tmp_path, up):
    with gateway(tmp_path, "--bedrock", up.url, "--no-auth", "--body-s", "1") as made:
        raw = made.raw(HEAD + b"Content-Length: 500\r\n\r\nhello")
        assert answered(raw).status == 408


def test_too_many_calls_at_once(tmp_path):
    with (
        upstream(lambda _: [1.5, reply(message())]) as up,
        gateway(tmp_path, "--bedrock", up.url, "--no-auth", "--max-calls", "2") as made,
    ):
        waiting = []
        for _ in range(2):
            client = socket.create_connection(made.address, timeout=10)
            client.sendall(request("POST", INVOKE, BODY))
            waiting.append(client)
        time.sleep(0.5)
        got = made.post(INVOKE)
        assert (got.status, got["x-amzn-errortype"]) == (503, "ServiceUnavailableException")
        for client in waiting:
            assert until_closed(client).startswith(b"HTTP/1.1 200")
            client.close()


def test_nothing_is_logged_of_keys_and_prompts(tmp_path, up):
    with gateway(tmp_path, "--bedrock", up.url, "--no-auth") as made:
        made.post(INVOKE, BODY.replace(b'"hi"', b'"xyzzy"'), [("Authorization", "Bearer s3cret")])
        made.post(INVOKE, b'{"messages": "xyzzy", "max_tokens": "xyzzy"')
        made.post(f"/model/{MODEL}/converse", b'{"messages": [{"content": "xyzzy"', [("X-Api-Key", "s3cret")])
        assert made.end() == 0
        out, err = made.process.communicate()
        assert "xyzzy" not in out + err
        assert "s3cret" not in out + err
