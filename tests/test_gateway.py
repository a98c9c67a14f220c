"""Real clients through the gateway to the emulator: they work unchanged, and what was metered is what was billed."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, closing, suppress
from typing import Any

import anthropic
import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from urllib3.exceptions import ProtocolError

from farthing.emulator import Fault, running
from farthing.meters import METERS
from tests.gateways import MODEL, OF_THE_MACHINE, answered, gateway, request

SAID: Any = [{"role": "user", "content": "tell me of the sea"}]
CONVERSED = [{"role": "user", "content": [{"text": "tell me of the sea"}]}]


@pytest.fixture(scope="module")
def emulator():
    with running() as made:
        yield made


OPENED = ExitStack()  # clients of the test that runs


@pytest.fixture(autouse=True)
def well(emulator):
    emulator.fail()
    yield
    OPENED.close()


@pytest.fixture(scope="module")
def passing(emulator, tmp_path_factory):
    """Bedrock behind it, and no other: Messages are translated."""
    outbox = tmp_path_factory.mktemp("gateway") / "outbox"
    with gateway(outbox, "--bedrock", emulator.url, "--no-auth", "--routing", "us", "--fsync", "os") as made:
        yield made


@pytest.fixture(scope="module")
def direct(emulator, tmp_path_factory):
    """Anthropic's API behind it, too."""
    outbox = tmp_path_factory.mktemp("direct") / "outbox"
    flags = ("--bedrock", emulator.url, "--anthropic", emulator.url, "--no-auth", "--fsync", "os")
    with gateway(outbox, *flags) as made:
        yield made


def bedrock(made, service="bedrock-runtime"):
    client = boto3.client(
        service, endpoint_url=made.url, region_name="us-east-1", aws_access_key_id="A", aws_secret_access_key="B",
        config=Config(retries={"total_max_attempts": 2}),
    )  # fmt: skip
    return OPENED.enter_context(closing(client))


def claude(made, kind=anthropic.Anthropic, **how):
    how = {"api_key": "x"} if kind is anthropic.Anthropic else how
    return OPENED.enter_context(kind(base_url=made.url, max_retries=0, **how))


def body(**more) -> str:
    return json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 20, "messages": SAID, **more})


def metered(made, answer) -> tuple[int, int]:
    """Tokens in and out by the gateway's record of a call of boto3."""
    record = made.results()[answer["ResponseMetadata"]["HTTPHeaders"]["x-farthing-call-id"]]
    return record.tokens.input, record.tokens.output


def test_boto3_converse(passing):
    got = bedrock(passing).converse(modelId=MODEL, messages=CONVERSED, inferenceConfig={"maxTokens": 20})
    assert metered(passing, got) == (got["usage"]["inputTokens"], got["usage"]["outputTokens"])
    assert got["output"]["message"]["content"][0]["text"]


def test_boto3_converse_stream(passing):
    got = bedrock(passing).converse_stream(modelId=MODEL, messages=CONVERSED)
    events = list(got["stream"])
    usage = events[-1]["metadata"]["usage"]
    assert metered(passing, got) == (usage["inputTokens"], usage["outputTokens"])


def test_boto3_invoke(passing):
    got = bedrock(passing).invoke_model(modelId=MODEL, body=body())
    usage = json.loads(got["body"].read())["usage"]
    assert metered(passing, got) == (usage["input_tokens"], usage["output_tokens"])


def test_boto3_invoke_stream(passing):
    got = bedrock(passing).invoke_model_with_response_stream(modelId=MODEL, body=body())
    events = [json.loads(event["chunk"]["bytes"]) for event in got["body"]]
    usage = events[-1]["amazon-bedrock-invocationMetrics"]
    assert metered(passing, got) == (usage["inputTokenCount"], usage["outputTokenCount"])


def run_against(made, command, tmp_path, **more):
    """What a program prints whose endpoint is the gateway, and the result of its last call."""
    before = set(made.results())
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith((*OF_THE_MACHINE, "CLAUDE"))
    }
    env = kept | {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B", "AWS_REGION": "us-east-1"}
    env |= {"AWS_DEFAULT_REGION": "us-east-1", "HOME": str(tmp_path), **more}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    new = [each for name, each in made.results().items() if name not in before]
    return json.loads(done.stdout), new


def test_aws_cli(passing, tmp_path):
    command = os.environ.get("AWS_CLI") or shutil.which("aws")
    if not command:
        pytest.skip("no AWS CLI: pip install awscli in an environment of its own, and set AWS_CLI to its aws")
    asked = ["bedrock-runtime", "converse", "--model-id", MODEL, "--messages", json.dumps(CONVERSED)]
    told, (result,) = run_against(passing, [command, *asked, "--endpoint-url", passing.url], tmp_path)
    assert (result.tokens.input, result.tokens.output) == (
        told["usage"]["inputTokens"],
        told["usage"]["outputTokens"],
    )


@pytest.mark.parametrize("platform", ["direct", "bedrock"])
def test_claude_code(direct, tmp_path, platform):
    command = os.environ.get("CLAUDE_CODE") or shutil.which("claude")
    if not command:
        pytest.skip(
            "no Claude Code: npm install @anthropic-ai/claude-code, and set CLAUDE_CODE to its claude"
        )
    to = {
        "direct": {"ANTHROPIC_BASE_URL": direct.url, "ANTHROPIC_API_KEY": "made up"},
        "bedrock": {"CLAUDE_CODE_USE_BEDROCK": "1", "ANTHROPIC_BEDROCK_BASE_URL": direct.url, "ANTHROPIC_MODEL": MODEL},
    }[platform]  # fmt: skip
    quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}
    asked = [command, "-p", "Where is order 7?", "--output-format", "json"]
    told, results = run_against(direct, asked, tmp_path, **quiet, **to)
    assert not told["is_error"]
    (streamed,) = (each for each in results if each.stream)
    assert streamed.tokens.output == told["usage"]["output_tokens"]
    assert streamed.tokens.cache_write_5m + streamed.tokens.cache_write_1h > 1_000  # its system prompt


def test_boto3_other_operations(passing):
    client = bedrock(passing)
    counted = client.count_tokens(modelId=MODEL, input={"converse": {"messages": CONVERSED}})
    assert counted["inputTokens"] > 0
    control = bedrock(passing, "bedrock")
    assert control.get_inference_profile(inferenceProfileIdentifier=MODEL)["inferenceProfileId"] == MODEL


def test_errors_come_as_the_service_gives_them(passing, emulator):
    with pytest.raises(ClientError) as caught:
        bedrock(passing).invoke_model(modelId="us.anthropic.claude-unheard-of", body=body())
    assert caught.value.response["Error"]["Code"] in ("ValidationException", "ResourceNotFoundException")
    emulator.fail(Fault("throttle"))
    with pytest.raises(ClientError) as caught:
        bedrock(passing).invoke_model(modelId=MODEL, body=body())
    assert caught.value.response["Error"]["Code"] == "ThrottlingException"


def test_all_that_was_billed_was_metered(tmp_path):
    """The emulator's own log, call by call, against the gateway's records."""
    with running() as emulator, gateway(tmp_path, "--bedrock", emulator.url, "--no-auth") as made:
        client = bedrock(made)
        emulator.fail(Fault("throttle", every=4), Fault("cut", every=5), Fault("exception", every=7))
        for turn in range(40):
            said = [{"role": "user", "content": [{"text": f"word {turn}"}]}]
            with suppress(ClientError, EventStreamError, ProtocolError):
                if turn % 2:
                    with closing(client.converse_stream(modelId=MODEL, messages=said)["stream"]) as stream:
                        list(stream)
                else:
                    client.converse(modelId=MODEL, messages=said)
        billed = {call["request_id"]: call["tokens"] for call in emulator.calls() if call.get("tokens")}
        results = made.results()
        metered = {
            result.request_id: dict(zip(METERS, result.tokens.five, strict=True))
            for result in results.values()
            if not result.status
        }
        still_open = {each.gateway_id for each in made.records()} - results.keys()
    assert len(billed) > 25
    assert metered.items() <= billed.items()  # to the token
    assert len(billed) == len(metered) + len(still_open)  # what was cut off is there as an open intent
    assert still_open


# --- the anthropic SDK ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["passing", "direct"])
def test_anthropic_messages(where, request):
    made = request.getfixturevalue(where)
    client = claude(made)
    got = client.messages.with_raw_response.create(model="claude-sonnet-4-6", max_tokens=20, messages=SAID)
    usage = got.parse().usage
    record = made.results()[got.headers["x-farthing-call-id"]]
    assert (record.tokens.input, record.tokens.output) == (usage.input_tokens, usage.output_tokens)
    assert record.model == (MODEL if where == "passing" else "claude-sonnet-4-6")
    assert record.platform == ("bedrock" if where == "passing" else "anthropic")


@pytest.mark.parametrize("where", ["passing", "direct"])
def test_anthropic_streams(where, request):
    made = request.getfixturevalue(where)
    client = claude(made)
    with client.messages.stream(model="claude-sonnet-4-6", max_tokens=20, messages=SAID) as stream:
        text = "".join(stream.text_stream)
        whole = stream.get_final_message()
        call_id = stream.response.headers["x-farthing-call-id"]
    assert text == whole.content[0].text
    record = made.results()[call_id]
    assert (record.tokens.input, record.tokens.output) == (
        whole.usage.input_tokens,
        whole.usage.output_tokens,
    )
    told = answered(made.raw(request_of(f"/v1/calls/{call_id}"))).json()
    assert told["settled"]
    assert float(told["cost_usd"]) > 0


def request_of(path: str) -> bytes:
    return request("GET", path)


@pytest.mark.parametrize("where", ["passing", "direct"])
def test_anthropic_async_and_many_at_once(where, request):
    made = request.getfixturevalue(where)

    async def many():
        async with anthropic.AsyncAnthropic(base_url=made.url, api_key="x", max_retries=0) as client:
            return await asyncio.gather(*(
                client.messages.create(model="claude-sonnet-4-6", max_tokens=8, messages=SAID) for _ in range(20)
            ))  # fmt: skip

    before = len(made.results())
    assert len(asyncio.run(many())) == 20
    assert len(made.results()) == before + 20


@pytest.mark.parametrize("where", ["passing", "direct"])
def test_anthropic_counts_tokens(where, request):
    client = claude(request.getfixturevalue(where))
    assert client.messages.count_tokens(model="claude-sonnet-4-6", messages=SAID).input_tokens > 0


@pytest.mark.parametrize("where", ["passing", "direct"])
def test_anthropic_errors(where, request, emulator):
    client = claude(request.getfixturevalue(where))
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="claude-unheard-of", max_tokens=8, messages=SAID)
    emulator.fail(Fault("throttle"))
    with pytest.raises(anthropic.RateLimitError):
        client.messages.create(model="claude-sonnet-4-6", max_tokens=8, messages=SAID)


def test_anthropic_bedrock_client(passing):
    client = claude(
        passing, anthropic.AnthropicBedrock, aws_region="us-east-1", aws_access_key="A", aws_secret_key="B"
    )
    got = client.messages.create(model=MODEL, max_tokens=20, messages=SAID)
    assert got.usage.output_tokens
    with client.messages.stream(model=MODEL, max_tokens=20, messages=SAID) as stream:
        assert stream.get_final_message().usage.output_tokens


def test_mantle_client(passing):
    client = OPENED.enter_context(anthropic.AnthropicBedrockMantle(
        base_url=f"{passing.url}/anthropic", aws_region="us-east-1", api_key="x", max_retries=0
    ))  # fmt: skip
    got = client.messages.create(model="anthropic.claude-sonnet-4-6", max_tokens=20, messages=SAID)
    assert got.usage.output_tokens


def test_prompt_and_keys_are_nowhere_in_the_records(passing):
    bedrock(passing).converse(
        modelId=MODEL, messages=[{"role": "user", "content": [{"text": "the secret word is xyzzy"}]}]
    )
    kept = b"".join(file.read_bytes() for file in passing.outbox.iterdir())
    assert b"xyzzy" not in kept


# --- beginning and ending ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_ends_with_exit_code_0(emulator, tmp_path, how):
    with gateway(tmp_path, "--bedrock", emulator.url, "--no-auth") as made:
        made.process.send_signal(how)
        assert made.process.wait(20) == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "no upstream"),
        (("--bedrock", "nonsense"), "is no upstream"),
        (("--bedrock", "http://127.0.0.1:1", "--host", "0.0.0.0", "--no-auth"), "only on loopback"),
        (("--bedrock", "http://127.0.0.1:1", "--keys", "/nowhere/keys.json"), "no keys at"),
        (("--bedrock", "https://me:pw@example.com"), "password"),
        (("--anthropic", "https://api.example.com", "--no-auth", "--port", "99999"), "99999"),
    ],
)
def test_refuses_settings_that_make_no_sense(tmp_path, flags, says):
    command = [sys.executable, "-m", "farthing", "gateway", "--outbox", str(tmp_path), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert "pw" not in done.stderr.replace("password", "")
