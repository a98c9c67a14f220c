"""`farthing emulate` as a program, the AWS CLI and Claude Code against it, and the pytest fixture."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from http.client import HTTPConnection
from pathlib import Path

import pytest

from farthing import cli

pytest_plugins = ("pytester",)

SONNET = "eu.anthropic.claude-sonnet-4-6"
ASKED = [{"role": "user", "content": [{"text": "Where is order 7?"}]}]
SAID = [{"role": "user", "content": "Where is order 7?"}]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """`farthing emulate` by itself: its address, and its logs."""
    folder = tmp_path_factory.mktemp("program")
    command = [sys.executable, "-m", "farthing", "emulate", "--port", "0", "--log-dir", str(folder / "logs"),
               "--cur-dir", str(folder / "cur"), "--output-tokens", "11"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield json.loads(process.stdout.readline())["listening"], folder
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")


def environment(url, **more):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "ANTHROPIC_", "CLAUDE"))
    }
    return kept | {
        "AWS_ACCESS_KEY_ID": "EMULATED", "AWS_SECRET_ACCESS_KEY": "made up", "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": url, **more,
    }  # fmt: skip


def test_it_says_where_it_listens(program):
    url, _ = program
    assert url.startswith("http://127.0.0.1:")
    host, port = url.removeprefix("http://").split(":")
    connection = HTTPConnection(host, int(port))
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "messages": SAID}
    connection.request("POST", f"/model/{SONNET}/invoke", json.dumps(body))
    assert json.loads(connection.getresponse().read())["usage"]["output_tokens"] == 11
    connection.close()


def test_aws_cli(program, tmp_path):
    command = os.environ.get("AWS_CLI") or shutil.which("aws")
    if not command:
        pytest.skip("no AWS CLI: pip install awscli in an environment of its own, and set AWS_CLI to its aws")
    asked = [command, "bedrock-runtime", "converse", "--model-id", SONNET, "--messages", json.dumps(ASKED)]
    done = subprocess.run(asked, env=environment(program[0]), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["usage"]["outputTokens"] == 11
    asked = [command, "bedrock", "get-inference-profile", "--inference-profile-identifier", SONNET]
    done = subprocess.run(asked, env=environment(program[0]), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["type"] == "SYSTEM_DEFINED"


@pytest.mark.parametrize("platform", ["direct", "bedrock"])
def test_claude_code(program, tmp_path, platform):
    command = os.environ.get("CLAUDE_CODE") or shutil.which("claude")
    if not command:
        pytest.skip(
            "no Claude Code: npm install @anthropic-ai/claude-code, and set CLAUDE_CODE to its claude"
        )
    url = program[0]
    more = (
        {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "made up"}
        if platform == "direct"
        else {"CLAUDE_CODE_USE_BEDROCK": "1", "ANTHROPIC_BEDROCK_BASE_URL": url, "ANTHROPIC_MODEL": SONNET}
    )
    quiet = {
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [command, "-p", "Where is order 7?", "--output-format", "json"], cwd=tmp_path, stdin=subprocess.DEVNULL,
        env=environment(url, AWS_REGION="eu-central-1", **quiet, **more), capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["is_error"] is False
    with urllib.request.urlopen(f"{url}/_farthing/calls") as answer:
        calls = json.loads(answer.read())["calls"]
    call = next(call for call in reversed(calls) if call["streamed"])
    assert call["tokens"]["cache_write_5m"] + call["tokens"]["cache_write_1h"] > 1_000  # its system prompt
    assert told["usage"]["output_tokens"] == call["tokens"]["output"] >= 11


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--clock", "yesterday"], "'yesterday' is no time"),
        (["--faults", "none.json"], "none.json"),
        (["--faults", '{"plan": [{"do": "sing"}]}'], "faults: "),
        (["--account", "me"], "twelve digits"),
        (["--port", "70000"], "65535"),
        (["--log-bucket", "s3://logs"], "--s3-endpoint"),
    ],
)
def test_wrong_flags_are_told_in_one_line(flags, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.main(["emulate", *flags])
    out, err = capsys.readouterr()
    assert (ended.value.code, out, len(err.splitlines())) == (2, "", 1)
    assert told in err


def test_the_fixture(pytester_emulator):
    pytester_emulator.makepyfile("""
        import json

        def test_it(bedrock_emulator, farthing_cost):
            with farthing_cost(client := bedrock_emulator.client(), region="us-east-1") as cost:
                client.converse(modelId="us.anthropic.claude-opus-5",
                                messages=[{"role": "user", "content": [{"text": "Where is it?"}]}])
            assert cost.tokens.input == 3
            assert bedrock_emulator.calls()[0]["tokens"]["output"] == cost.tokens.output
    """)
    pytester_emulator.runpytest(
        "-p", "no:farthing", "-p", "farthing.pytest_plugin", "-p", "no:cacheprovider"
    ).assert_outcomes(passed=1)


@pytest.fixture
def pytester_emulator(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    return pytester


def test_calls_that_never_end_are_in_the_log_when_it_stops(tmp_path):
    command = [sys.executable, "-m", "farthing", "emulate", "--log-dir", str(tmp_path), "--faults",
               '{"plan": [{"do": "hang", "on": ["ConverseStream"]}]}']  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        host, port = json.loads(process.stdout.readline())["listening"].removeprefix("http://").split(":")
        connection = HTTPConnection(host, int(port))
        connection.request("POST", f"/model/{SONNET}/converse-stream", json.dumps({"messages": ASKED}))
        assert connection.getresponse().read(50)  # it has begun
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60) == ("", "")
        connection.close()
    assert process.returncode == 0
    (log,) = tmp_path.rglob("*.json.gz")
    record = json.loads(gzip.decompress(log.read_bytes()))
    assert (record["operation"], record["output"]["outputTokenCount"]) == ("ConverseStream", 8)
