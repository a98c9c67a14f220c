"""The gateway's beginnings and ends: roles it assumes, streams it lets finish, processes that share the work."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from farthing.gateway._keys import Key, add
from farthing.outbox import Intent
from tests.gateways import (
    BODY,
    INVOKE,
    LAST,
    MODEL,
    STREAM,
    STREAM_HEAD,
    answered,
    chunk,
    dechunked,
    frames,
    gateway,
    message,
    reply,
    request,
    until_closed,
    upstream,
)  # fmt: skip
from tests.test_gateway_bytes import waited

NOW = datetime(2026, 11, 22, tzinfo=UTC)
MESSAGES = b'{"model":"claude-sonnet-4-6","max_tokens":9,"messages":[]}'
OWN = {"AWS_ACCESS_KEY_ID": "AKIDGATEWAY", "AWS_SECRET_ACCESS_KEY": "gateway's own"}


# --- rights upstream --------------------------------------------------------------------------------------------------


def authorization(asked) -> str:
    return {name.lower(): value for name, value in asked.headers}.get("authorization", "")


def test_signs_with_its_own_credentials(tmp_path):
    with upstream(lambda _: [reply(message())]) as up:
        with gateway(tmp_path, "--bedrock", up.url, "--no-auth", "--region", "eu-central-1", env=OWN) as made:
            assert made.post(INVOKE, BODY, [("Authorization", "Bearer theirs")]).status == 200
        said = authorization(up.asked[0])
        assert said.startswith("AWS4-HMAC-SHA256 Credential=AKIDGATEWAY/")
        assert "/eu-central-1/bedrock/aws4_request" in said
        assert "theirs" not in up.asked[0].head.decode()


def test_has_a_bearer_of_its_own(tmp_path):
    env = {"AWS_BEARER_TOKEN_BEDROCK": "ours", "ANTHROPIC_API_KEY": "sk-ours"}
    with upstream(lambda _: [reply(message())]) as up:
        with gateway(tmp_path, "--bedrock", up.url, "--anthropic", up.url, "--no-auth", env=env) as made:
            made.post(INVOKE, BODY, [("Authorization", "Bearer theirs")])
            made.post("/v1/messages", b'{"model":"claude-opus-5","messages":[]}', [("x-api-key", "theirs")])
        assert authorization(up.asked[0]) == "Bearer ours"
        assert ("x-api-key", "sk-ours") in up.asked[1].headers
        assert not any("theirs" in asked.head.decode() for asked in up.asked)


def test_claude_platform_on_aws_is_signed_for(tmp_path):
    with (
        upstream(lambda _: [reply(message())]) as up,
        gateway(tmp_path, "--claude-aws", f"{up.url}/base", "--no-auth", env=OWN) as made,
    ):
        got = made.post("/v1/messages", MESSAGES)
        assert made.results()[got["x-farthing-call-id"]].platform == "claude_aws"
        assert made.post(INVOKE).status == 404  # there is no Bedrock behind it
    assert up.asked[0].line == "POST /base/v1/messages HTTP/1.1"
    assert up.asked[0].body == MESSAGES
    assert "/us-east-1/aws-external-anthropic/aws4_request" in authorization(up.asked[0])


def test_key_says_where_its_messages_go(tmp_path):
    keys = tmp_path / "keys.json"
    tokens = {
        name: add(keys, Key(name=name, shown="", created=NOW, upstream=name), NOW).token
        for name in ("bedrock", "anthropic", "claude_aws")
    }
    with upstream(lambda _: [reply(message())]) as up:
        flags = ("--bedrock", f"{up.url}/b", "--anthropic", f"{up.url}/a", "--claude-aws", f"{up.url}/c")
        with gateway(tmp_path / "outbox", *flags, "--keys", str(keys), "--routing", "us") as made:
            for token in tokens.values():
                assert made.post("/v1/messages", MESSAGES, [("X-Api-Key", token)]).status == 200
    paths = [asked.line.split()[1] for asked in up.asked]
    assert paths == [f"/b{INVOKE}", "/a/v1/messages", "/c/v1/messages"]


def test_each_key_has_a_session_of_its_own(tmp_path, moto):
    """AWS's bill tells keys apart by the session's name, and teams by its tags."""
    keys = tmp_path / "keys.json"
    tokens = [
        add(keys, Key(name=name, shown="", created=NOW, team="red"), NOW).token for name in ("one", "two")
    ]
    env = {**OWN, "AWS_ENDPOINT_URL_STS": moto}
    role = ("--role-arn", "arn:aws:iam::123456789012:role/claude")
    with (
        upstream(lambda _: [reply(message())]) as up,
        gateway(tmp_path / "outbox", "--bedrock", up.url, "--keys", str(keys), *role, env=env) as made,
    ):
        for token in (*tokens, *tokens):
            assert made.post(INVOKE, BODY, [("Authorization", f"Bearer {token}")]).status == 200
    used = [authorization(asked).partition("Credential=")[2].partition("/")[0] for asked in up.asked]
    assert used[:2] == used[2:]  # kept
    assert len(set(used)) == 2
    assert all(name.startswith("ASIA") for name in used)
    assert all("x-amz-security-token" in authorization(asked) for asked in up.asked)


ASSUMED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIATEAM</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>
<Expiration>{}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


def test_session_is_tagged_with_key_team_and_project(tmp_path):
    keys = tmp_path / "keys.json"
    arn = "arn:aws:iam::123456789012:role/red"
    token = add(
        keys, Key(name="ci@x", shown="", created=NOW, team="réd", project="p", role_arn=arn), NOW
    ).token
    ends = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    answer = reply(ASSUMED.format(ends).encode(), headers=[("Content-Type", "text/xml")])
    with upstream(lambda _: [answer]) as sts, upstream(lambda _: [reply(message())]) as up:
        env = {**OWN, "AWS_ENDPOINT_URL_STS": sts.url}
        with gateway(tmp_path / "outbox", "--bedrock", up.url, "--keys", str(keys), env=env) as made:
            assert made.post(INVOKE, BODY, [("Authorization", f"Bearer {token}")]).status == 200
    (asked,) = sts.asked
    said = parse_qs(asked.body.decode())
    assert said["RoleArn"] == [arn]
    assert said["RoleSessionName"] == ["farthing-ci@x"]
    tags = {said[f"Tags.member.{n}.Key"][0]: said[f"Tags.member.{n}.Value"][0] for n in (1, 2, 3)}
    assert tags == {"farthing:key": "ci@x", "team": "réd", "project": "p"}
    assert "Credential=ASIATEAM/" in authorization(up.asked[0])


def test_role_that_cannot_be_assumed_sends_nothing(tmp_path):
    env = {**OWN, "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"}
    role = ("--role-arn", "arn:aws:iam::123456789012:role/claude")
    with upstream(lambda _: [reply(message())]) as up:
        with gateway(tmp_path, "--bedrock", up.url, "--no-auth", *role, env=env) as made:
            got = made.post(INVOKE)
            assert got.status == 502
            assert [result.status for result in made.results().values()] == ["void"]
            ready = answered(made.raw(request("GET", "/readyz")))
            assert ready.status == 503
            assert "AssumeRole" in ready.json()["faults"][0]
        assert up.asked == []


# --- the end ----------------------------------------------------------------------------------------------------------


def streaming(gate: threading.Event):
    return lambda _: [
        STREAM_HEAD,
        chunk(frames()[0]),
        gate,
        *(chunk(each) for each in frames()[1:]),
        LAST,
    ]


def test_streams_finish_before_it_ends(tmp_path):
    gate = threading.Event()
    with upstream(streaming(gate)) as up, gateway(tmp_path, "--bedrock", up.url, "--no-auth") as made:
        with socket.create_connection(made.address, timeout=20) as client:
            client.sendall(request("POST", STREAM, BODY))
            first = client.recv(65536)
            made.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(OSError, match="refused"):  # it takes no new ones
                socket.create_connection(made.address, timeout=5)
            gate.set()
            raw = first + until_closed(client)
        assert dechunked(raw.partition(b"\r\n\r\n")[2]) == b"".join(frames())
        assert made.process.wait(20) == 0
        assert [result.tokens.output for result in made.results().values()] == [5]


def test_streams_without_end_are_cut_and_kept_as_intents(tmp_path):
    gate = threading.Event()
    with (
        upstream(streaming(gate)) as up,
        gateway(tmp_path, "--bedrock", up.url, "--no-auth", "--drain-s", "1") as made,
    ):
        with socket.create_connection(made.address, timeout=20) as client:
            client.sendall(request("POST", STREAM, BODY))
            client.recv(65536)
            made.process.send_signal(signal.SIGTERM)
            assert made.process.wait(20) == 0
        gate.set()
        assert made.results() == {}
        assert len(made.records()) == 1


def test_kill_leaves_an_intent(tmp_path):
    gate = threading.Event()
    with upstream(streaming(gate)) as up, gateway(tmp_path, "--bedrock", up.url, "--no-auth") as made:
        with socket.create_connection(made.address, timeout=20) as client:
            client.sendall(request("POST", STREAM, BODY))
            client.recv(65536)
            made.process.kill()
            made.process.wait(10)
        gate.set()
        (intent,) = made.records()
        assert isinstance(intent, Intent)
        assert intent.expected.output == 9


def test_upstream_that_falls_silent_is_given_up(tmp_path):
    gate = threading.Event()
    flags = ("--no-auth", "--silence-s", "1", "--stream-silence-s", "1")
    with upstream(lambda _: [gate]) as up, gateway(tmp_path, "--bedrock", up.url, *flags) as made:
        got = made.post(INVOKE)
        assert (got.status, got["x-amzn-errortype"]) == (504, "ModelTimeoutException")
        assert made.results() == {}  # it may be billed all the same
        assert made.post(STREAM).status == 504
        gate.set()


def test_client_that_takes_nothing_is_cut_off_and_metered(tmp_path):
    """Its answer is larger than all buffers on the way; the upstream is read to its end without it."""
    body = b'{"usage":{"input_tokens":7,"output_tokens":5},"content":"' + b"x" * 30_000_000 + b'"}'
    flags = ("--bedrock", "--no-auth", "--client-s", "1")
    with (
        upstream(lambda _: [reply(body)]) as up,
        gateway(tmp_path, flags[0], up.url, *flags[1:]) as made,
        socket.socket() as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(made.address)
        client.sendall(request("POST", INVOKE, BODY))
        assert waited(lambda: list(made.results().values()))[0].tokens.output == 5
        assert waited(lambda: b"farthing_open_calls 0" in made.raw(request("GET", "/metrics")))


# --- an outbox that cannot be written ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "status"), [("refuse", 503), ("pass", 200)])
def test_outbox_that_cannot_be_written(tmp_path, how, status):
    (tmp_path / "outbox").write_text("a file where the folder should be")
    with (
        upstream(lambda _: [reply(message())]) as up,
        gateway(tmp_path / "outbox", "--bedrock", up.url, "--no-auth", "--on-full", how) as made,
    ):
        assert made.post(INVOKE).status == status
        assert len(up.asked) == (how == "pass")
        assert answered(made.raw(request("GET", "/readyz"))).status == 503
        told = made.raw(request("GET", "/metrics")).decode()
        assert ("farthing_unmetered_calls_total 1" in told) == (how == "pass")


def test_client_that_waits_to_be_asked_for_its_body(tmp_path):
    with (
        upstream(lambda _: [reply(message())]) as up,
        gateway(tmp_path, "--bedrock", up.url, "--no-auth") as made,
    ):
        head, _, body = request("POST", INVOKE, BODY, [("Expect", "100-continue")]).partition(b"\r\n\r\n")
        with socket.create_connection(made.address, timeout=10) as client:
            client.sendall(head + b"\r\n\r\n")
            assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(body)
            assert until_closed(client).startswith(b"HTTP/1.1 200")
        assert "expect" not in {name.lower() for name, _ in up.asked[0].headers}


# --- spans ------------------------------------------------------------------------------------------------------------


def test_each_attempt_is_a_span(tmp_path):
    env = {"OTEL_TRACES_EXPORTER": "console", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with (
        upstream(lambda _: [reply(message())]) as up,
        gateway(tmp_path, "--bedrock", up.url, "--no-auth", env=env) as made,
    ):
        got = made.post(INVOKE, BODY.replace(b'"hi"', b'"xyzzy"'))
        time.sleep(0.5)
        assert made.end() == 0
        out, _ = made.process.communicate()
    (span,) = json.loads(f"[{out.strip()}]")
    assert span["name"] == f"chat {MODEL}"
    said = span["attributes"]
    assert said["gen_ai.usage.output_tokens"] == 5
    assert said["farthing.call.id"] == got["x-farthing-call-id"]
    assert said["farthing.cost.usd"] == got["x-farthing-cost-usd"]
    assert "xyzzy" not in out


# --- several processes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    (folder / "farthing.toml").write_text(
        '[[budgets]]\nname = "all"\nusd = 100\nperiod = "day"\nhold = "hard"\n', encoding="utf-8"
    )
    flags = ("--no-auth", "--workers", "2", "--config", str(folder / "farthing.toml"), "--fsync", "os")
    with upstream(lambda _: [0.05, reply(message())]) as up:
        store = ("--budgets", str(folder / "budgets.sqlite"))
        with gateway(folder / "outbox", "--bedrock", up.url, *flags, *store) as made:
            yield made


def spent(gateways):
    rows = json.loads(gateways.raw(request("GET", "/admin/budgets")).partition(b"\r\n\r\n")[2])["data"]
    return rows[0]["spent"]


def test_workers_share_budgets_and_each_has_its_outbox(several):
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: several.post(INVOKE), range(60)))
    assert {each.status for each in got} == {200}
    assert len(several.results()) == 60
    assert len(list(several.outbox.glob("*.jsonl"))) == 2
    until = (
        time.monotonic() + 1
    )  # what one worker has settled the other sees within 2 ms, if the machine lets it
    while spent(several) != "0.006336" and time.monotonic() < until:  # 60 times $0.0001056
        time.sleep(0.002)
    assert spent(several) == "0.006336"
    time.sleep(1.5)
    told = several.raw(request("GET", "/metrics")).decode()
    assert 'state="posted"} 60' in told


def test_worker_that_dies_is_replaced(several):
    before = children(several.process.pid)
    os.kill(before[0], signal.SIGKILL)
    assert waited(lambda: len(set(children(several.process.pid)) - set(before)) == 1)
    assert {several.post(INVOKE).status for _ in range(10)} == {200}


def test_workers_end_together(several):
    before = children(several.process.pid)
    assert several.end() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)


@pytest.mark.parametrize("after_s", [0.0, 0.4, 1.2])
@pytest.mark.parametrize(
    "command",
    [["emulate"], ["gateway", "--bedrock", "http://127.0.0.1:9", "--no-auth", "--outbox", "OUT", "--workers", "3"]],
    ids=["emulate", "gateway"],
)  # fmt: skip
def test_ends_with_exit_code_0_before_it_listens(tmp_path, command, after_s):
    said = [word.replace("OUT", str(tmp_path)) for word in command]
    process = subprocess.Popen([sys.executable, "-m", "farthing", *said], stdout=subprocess.DEVNULL)
    assert waited(lambda: catches(process.pid, signal.SIGTERM))
    time.sleep(after_s)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def catches(pid, number):
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1


def test_workers_that_cannot_begin_are_bad_input(tmp_path):
    flags = ("--bedrock", "http://127.0.0.1:9", "--no-auth", "--workers", "2", "--profile", "nobody")
    with pytest.raises(AssertionError, match="nobody"), gateway(tmp_path, *flags) as made:
        made.end()


def test_nobody_waits_in_line_while_workers_end(tmp_path):
    gate = threading.Event()
    flags = ("--no-auth", "--workers", "2")
    with upstream(streaming(gate)) as up, gateway(tmp_path, "--bedrock", up.url, *flags) as made:
        with socket.create_connection(made.address, timeout=20) as client:
            client.sendall(request("POST", STREAM, BODY))
            client.recv(65536)
            made.process.send_signal(signal.SIGTERM)
            assert waited(lambda: refused(made.address))
            gate.set()
            assert until_closed(client).endswith(LAST)
        assert made.process.wait(20) == 0


def refused(address):
    try:
        socket.create_connection(address, timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_workers_do_not_outlive_their_parent(tmp_path):
    with (
        upstream(lambda _: [reply(message())]) as up,
        gateway(tmp_path, "--bedrock", up.url, "--no-auth", "--workers", "2") as made,
    ):
        left = children(made.process.pid)
        made.process.kill()
        made.process.wait(10)
        assert waited(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))


def test_second_signal_cuts_off_what_is_still_open(tmp_path):
    gate = threading.Event()
    with upstream(streaming(gate)) as up, gateway(tmp_path, "--bedrock", up.url, "--no-auth") as made:
        with socket.create_connection(made.address, timeout=20) as client:
            client.sendall(request("POST", STREAM, BODY))
            client.recv(65536)
            made.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert made.process.poll() is None
            assert made.end() == 0
        gate.set()
        assert made.results() == {}


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
