"""The emulator as real clients see it: boto3 and the anthropic SDK."""

import asyncio
import base64
import json
import os
import struct
import urllib.error
import urllib.request
from contextlib import ExitStack, nullcontext
from http.client import HTTPConnection
from typing import Any

import anthropic
import boto3
import pytest

from farthing import wire
from farthing.emulator import Identity, running

SONNET = "eu.anthropic.claude-sonnet-4-6"
ASKED = [{"role": "user", "content": [{"text": "Where is order 7?"}]}]
SAID: list[Any] = [{"role": "user", "content": "Where is order 7?"}]
TWO_HOURS = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "2h"}}
TOKENS = 5  # of that question: 17 bytes


OPEN = ExitStack()  # clients of the anthropic SDK want to be closed


@pytest.fixture(scope="module")
def emulated():
    with running() as found:
        yield found
        OPEN.close()


@pytest.fixture
def client(emulated):
    emulated.fail()
    return emulated.client(region="eu-central-1")


def invoke(client, **more):
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100, "messages": SAID, **more}
    answer = client.invoke_model(modelId=SONNET, body=json.dumps(body))
    return json.loads(answer["body"].read()), answer["ResponseMetadata"]["HTTPHeaders"]


# --- boto3 -----------------------------------------------------------------------------------------------------------


def test_invoke_tells_its_usage_in_body_and_headers(client):
    message, headers = invoke(client)
    assert message["usage"]["input_tokens"] == TOKENS
    assert message["content"][0]["type"] == "text"
    assert message["id"].startswith("msg_bdrk_")
    assert message["model"] == "claude-sonnet-4-6"
    assert headers["x-amzn-bedrock-input-token-count"] == str(TOKENS)
    assert headers["x-amzn-bedrock-output-token-count"] == str(message["usage"]["output_tokens"])
    assert {"x-amzn-requestid", "x-amzn-bedrock-invocation-latency"} <= headers.keys()


def test_the_same_request_gets_the_same_answer_under_another_id(client):
    (first, one), (second, other) = invoke(client), invoke(client)
    assert first["content"] == second["content"]
    assert first["id"] != second["id"]
    assert one["x-amzn-requestid"] != other["x-amzn-requestid"]
    assert invoke(client, temperature=0)[0]["content"] != first["content"]


def test_an_answer_has_as_many_tokens_as_it_says(client):
    for most in (1, 7, 5_000):
        message, _ = invoke(client, max_tokens=most)
        text = message["content"][0]["text"]
        assert -(-len(text) // 4) == message["usage"]["output_tokens"] <= most
        assert message["stop_reason"] == ("max_tokens" if most < 16 else "end_turn")


def test_a_stop_sequence_ends_it(client):
    text = invoke(client)[0]["content"][0]["text"]
    word = text.split()[3]
    message, _ = invoke(client, stop_sequences=[word])
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", word)
    assert word not in message["content"][0]["text"]


def test_a_tool_is_used_if_it_must(client):
    schema = {
        "type": "object",
        "properties": {
            "order": {"type": "integer"},
            "how": {"enum": ["fast", "slow"]},
            "why": {"type": "string"},
        },
        "required": ["order", "how"],
    }
    tools = [{"name": "find", "description": "Find an order", "input_schema": schema}]
    message, _ = invoke(client, tools=tools, tool_choice={"type": "any"})
    assert message["stop_reason"] == "tool_use"
    assert message["content"][-1]["name"] == "find"
    assert message["content"][-1]["input"] == {"order": 7, "how": "fast"}
    definition = len(json.dumps(tools[0], separators=(",", ":")))
    assert message["usage"]["input_tokens"] == TOKENS + -(-definition // 4) + 16


def test_thinking_is_part_of_the_output(client):
    message, _ = invoke(client, max_tokens=2_000, thinking={"type": "enabled", "budget_tokens": 1_024})
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    thought = message["usage"]["output_tokens_details"]["thinking_tokens"]
    assert 0 < thought < message["usage"]["output_tokens"]


def test_converse_is_the_same_call_in_another_form(client):
    answer = client.converse(modelId=SONNET, messages=ASKED, inferenceConfig={"maxTokens": 9})
    assert answer["usage"]["inputTokens"] == TOKENS
    assert answer["usage"]["totalTokens"] == TOKENS + 9
    assert answer["stopReason"] == "max_tokens"
    assert len(answer["output"]["message"]["content"][0]["text"].split()) == 9


def test_converse_uses_tools_and_thinks(client):
    tool = {"toolSpec": {"name": "find", "inputSchema": {"json": {"type": "object"}}}}
    config = {"tools": [tool], "toolChoice": {"tool": {"name": "find"}}}
    more = {"thinking": {"type": "enabled", "budget_tokens": 1_024}}
    how = {"modelId": SONNET, "messages": ASKED, "toolConfig": config, "additionalModelRequestFields": more,
           "inferenceConfig": {"maxTokens": 4_000}}  # fmt: skip
    answer = client.converse(**how)
    first, second = answer["output"]["message"]["content"]
    assert first["reasoningContent"]["reasoningText"]["signature"]
    assert second["toolUse"]["name"] == "find"
    assert answer["stopReason"] == "tool_use"
    streamed = list(client.converse_stream(**how)["stream"])
    assert streamed[-1]["metadata"]["usage"] == answer["usage"]
    starts = [event["contentBlockStart"]["start"] for event in streamed if "contentBlockStart" in event]
    assert [start["toolUse"]["name"] for start in starts] == ["find"]


def test_a_stream_says_what_the_answer_says(client):
    message, _ = invoke(client)
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100, "messages": SAID}
    asked = client.invoke_model_with_response_stream(modelId=SONNET, body=json.dumps(body))
    events = [json.loads(event["chunk"]["bytes"]) for event in asked["body"]]
    kinds = [event["type"] for event in events]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert text == message["content"][0]["text"]
    assert events[0]["message"]["usage"]["output_tokens"] == 1  # a placeholder, as in the service
    assert events[-2]["usage"]["output_tokens"] == message["usage"]["output_tokens"]
    metrics = events[-1]["amazon-bedrock-invocationMetrics"]
    assert metrics["inputTokenCount"] == TOKENS
    assert metrics["outputTokenCount"] == message["usage"]["output_tokens"]


def test_converse_stream_ends_with_its_counts(client):
    events = list(client.converse_stream(modelId=SONNET, messages=ASKED)["stream"])
    assert list(events[0]) == ["messageStart"]
    assert list(events[-2]) == ["messageStop"]
    usage = events[-1]["metadata"]["usage"]
    text = "".join(e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e)
    assert usage["outputTokens"] == len(text.split())


def test_tokens_are_counted_as_they_are_billed(client):
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 1, "messages": SAID}
    for given in ({"converse": {"messages": ASKED}}, {"invokeModel": {"body": json.dumps(body).encode()}}):
        assert (
            client.count_tokens(modelId="anthropic.claude-sonnet-4-6", input=given)["inputTokens"] == TOKENS
        )


def png(width, height):
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02\0\0\0"


@pytest.mark.parametrize(("size", "tokens"), [((280, 56), 20), ((29, 28), 2), ((9_000, 9_000), 1_568)])
def test_a_picture_counts_by_its_pixels(client, size, tokens):
    picture = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png(*size)).decode()}
    message, _ = invoke(
        client, messages=[{"role": "user", "content": [{"type": "image", "source": picture}]}]
    )
    assert message["usage"]["input_tokens"] == tokens
    asked = [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": png(*size)}}}]}]
    assert client.converse(modelId=SONNET, messages=asked)["usage"]["inputTokens"] == tokens


def test_a_pdf_counts_by_its_pages(client):
    data = base64.b64encode(b"%PDF-1.7 <</Type /Pages>> <</Type /Page>> <</Type/Page>>").decode()
    document = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": data},
    }
    message, _ = invoke(client, messages=[{"role": "user", "content": [document]}])
    assert message["usage"]["input_tokens"] == 2 * (1_500 + 1_568)


RULES = {"type": "text", "text": "a rule. " * 900, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
BODY = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100, "messages": SAID, "system": [RULES]}
DIRECT = BODY | {"model": "claude-sonnet-4-6"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"/model/{SONNET}/invoke", BODY),
        (f"/model/{SONNET}/invoke-with-response-stream", BODY),
        (f"/model/{SONNET}/converse", {"messages": ASKED}),
        (f"/model/{SONNET}/converse-stream", {"messages": ASKED}),
        ("/v1/messages", DIRECT),
        ("/v1/messages", DIRECT | {"stream": True}),
        ("/anthropic/v1/messages", DIRECT | {"model": "anthropic.claude-opus-4-8", "stream": True}),
    ],
)
def test_what_a_gateway_meters_is_what_was_billed(emulated, client, path, body):
    """farthing's own reading of a response, of the bytes as they come."""
    _, headers, data = post(emulated, path, json.dumps(body).encode(), {"anthropic-version": "2023-06-01"})
    asked = wire.route("POST", path)
    assert asked
    answers = wire.Answers(asked, 200, {name.lower(): value for name, value in headers.items()})
    for at in range(0, len(data), 7):
        answers.feed(data[at : at + 7])
    done, call = answers.done(), emulated.calls()[-1]
    assert (done.final, done.error, done.fault) == (True, "", "")
    assert [part.tokens._asdict() for part in done.parts] == [call["tokens"]]
    assert done.request_id == call["request_id"]
    if "converse" not in path:
        assert done.message_id == call["message_id"]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("anthropic.claude-sonnet-4-6", "with on-demand throughput isn’t supported"),
        ("anthropic.claude-sonnet-9", "The provided model identifier is invalid"),
        ("sa.anthropic.claude-sonnet-4-6", "The provided model identifier is invalid"),
        ("claude-sonnet-4-6", "The provided model identifier is invalid"),
        ("meta.llama3-8b-instruct-v1:0", "The provided model identifier is invalid"),
    ],
)
def test_ids_that_are_not_taken(client, model, told):
    with pytest.raises(client.exceptions.ValidationException, match=told):
        client.converse(modelId=model, messages=ASKED)


def test_older_models_are_called_by_their_own_id(client):
    assert client.converse(modelId="anthropic.claude-3-haiku-20240307-v1:0", messages=ASKED)["usage"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"stream": True}, r"extraneous key \[stream\] is not permitted"),
        ({"model": SONNET}, r"extraneous key \[model\] is not permitted"),
        ({"messages": []}, "at least one message is required"),
        ({"messages": [{"role": "user", "content": ""}]}, "must have non-empty content"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "Input should be 'user' or 'assistant'"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "must be non-empty"),
        ({"messages": "hi"}, "messages: Input should be a valid list"),
        ({"cache_control": {"type": "ephemeral"}}, "cache_control: Extra inputs are not permitted"),
        ({"system": [TWO_HOURS]}, "'5m' or '1h'"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1_024}}, "must be greater than"),
        ({"messages": [{"role": "user", "content": "x" * 4_000_004}]}, "prompt is too long: 1000001 tokens"),
    ],
)  # fmt: skip
def test_requests_that_are_refused(client, more, told):
    with pytest.raises(client.exceptions.ValidationException, match=told):
        invoke(client, **more)


def test_a_body_without_limit_or_version_is_refused(client):
    for missing in ("max_tokens", "anthropic_version"):
        body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 1, "messages": SAID}
        del body[missing]
        with pytest.raises(
            client.exceptions.ValidationException, match=rf"required key \[{missing}\] not found"
        ):
            client.invoke_model(modelId=SONNET, body=json.dumps(body))


def test_converse_starts_with_the_user(client):
    with pytest.raises(client.exceptions.ValidationException, match="must start with a user message"):
        client.converse(modelId=SONNET, messages=[{"role": "assistant", "content": [{"text": "yes"}]}])


def post(emulated, path, body=b"{}", headers=None):
    request = urllib.request.Request(
        emulated.url + path, body, {"content-type": "application/json"} | (headers or {})
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_malformed_json_is_refused(emulated, body):
    status, headers, told = post(emulated, f"/model/{SONNET}/invoke", body)
    assert status == 400
    assert headers["x-amzn-errortype"].startswith("ValidationException")
    assert "message" in json.loads(told)


def test_paths_that_lead_nowhere(emulated):
    assert post(emulated, "/model/..%2F..%2Fetc/invoke")[0] == 400
    assert post(emulated, "/model/x%0d%0aset-cookie:%20a/invoke")[0] == 400
    assert post(emulated, f"/model/{SONNET}/dance")[0] == 400
    assert post(emulated, "/nowhere")[0] == 404
    status, _, told = post(emulated, "/v1/nowhere")
    assert (status, json.loads(told)["error"]["type"]) == (404, "not_found_error")


def test_huge_bodies_are_refused_before_they_are_read_as_json(emulated):
    status, headers, _ = post(emulated, f"/model/{SONNET}/invoke", b"x" * 25_000_001)
    assert (status, headers["x-amzn-errortype"].partition(":")[0]) == (413, "RequestEntityTooLargeException")


def test_a_body_that_is_shorter_than_it_says_is_not_billed(emulated):
    before = emulated.world.billed
    host, port = emulated.url.removeprefix("http://").split(":")
    connection = HTTPConnection(host, int(port))
    connection.putrequest("POST", f"/model/{SONNET}/invoke")
    connection.putheader("content-length", "500")
    connection.endheaders(b'{"max_tokens": 1')
    connection.close()
    invoke(emulated.client())
    assert emulated.world.billed == before + 1


def test_a_body_that_does_not_come_is_given_up(emulated, monkeypatch):
    monkeypatch.setattr("farthing.emulator._http.BODY_S", 0.2)
    host, port = emulated.url.removeprefix("http://").split(":")
    connection = HTTPConnection(host, int(port), timeout=20)
    connection.putrequest("POST", f"/model/{SONNET}/invoke")
    connection.putheader("content-length", "500")
    connection.endheaders(b'{"max_tokens": 1')
    assert connection.getresponse().status == 408
    connection.close()


# --- the anthropic SDK -----------------------------------------------------------------------------------------------


def direct(emulated, **more):
    return OPEN.enter_context(
        anthropic.Anthropic(base_url=emulated.url, api_key="made up", max_retries=0, **more)
    )


def of_bedrock(emulated, key="EMULATED", secret="made up"):
    return OPEN.enter_context(
        anthropic.AnthropicBedrock(
            base_url=emulated.url,
            aws_access_key=key,
            aws_secret_key=secret,
            aws_region="eu-central-1",
            max_retries=0,
        )
    )


def of_mantle(emulated):
    return OPEN.enter_context(
        anthropic.AnthropicBedrockMantle(
            base_url=f"{emulated.url}/anthropic", api_key="made up", aws_region="us-east-1", max_retries=0
        )
    )


CLIENTS = [(direct, "claude-sonnet-4-6"), (of_bedrock, SONNET), (of_mantle, "anthropic.claude-opus-4-8")]
names = pytest.mark.parametrize(("make", "model"), CLIENTS, ids=["direct", "bedrock", "mantle"])


@names
def test_sdk(emulated, client, make, model):
    message = make(emulated).messages.create(model=model, max_tokens=20, messages=SAID)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (TOKENS, 20)
    call = emulated.calls()[-1]
    assert (call["tokens"]["input"], call["tokens"]["output"]) == (TOKENS, 20)
    assert call["message_id"] == message.id


@names
def test_sdk_streams(emulated, client, make, model):
    whole = make(emulated).messages.create(model=model, max_tokens=100, messages=SAID)
    with make(emulated).messages.stream(model=model, max_tokens=100, messages=SAID) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text
    assert len(text.split()) == final.usage.output_tokens
    assert final.usage.input_tokens == whole.usage.input_tokens == TOKENS


def test_sdk_async(emulated, client):
    async def ask():
        async with (
            anthropic.AsyncAnthropicBedrock(
                base_url=emulated.url,
                aws_access_key="EMULATED",
                aws_secret_key="made up",
                aws_region="eu-central-1",
            ) as asked,
            anthropic.AsyncAnthropic(base_url=emulated.url, api_key="made up") as other,
        ):
            one = asked.messages.create(model=SONNET, max_tokens=9, messages=SAID)
            two = other.messages.create(model="claude-haiku-4-5", max_tokens=8, messages=SAID, stream=True)
            return await one, [event async for event in await two]

    message, events = asyncio.run(ask())
    assert message.usage.output_tokens == 9
    assert [event.usage.output_tokens for event in events if event.type == "message_delta"] == [8]


def test_sdk_errors(emulated, client):
    with pytest.raises(anthropic.NotFoundError, match="claude-sonnet-9"):
        direct(emulated).messages.create(model="claude-sonnet-9", max_tokens=9, messages=SAID)
    with pytest.raises(anthropic.NotFoundError, match=r"eu\.anthropic"):
        of_mantle(emulated).messages.create(model=SONNET, max_tokens=9, messages=SAID)
    with pytest.raises(anthropic.BadRequestError, match="on-demand throughput"):
        of_bedrock(emulated).messages.create(model="anthropic.claude-sonnet-4-6", max_tokens=9, messages=SAID)


def test_sdk_counts_tokens_and_lists_models(emulated, client):
    counted = direct(emulated).messages.count_tokens(model="claude-sonnet-4-6", messages=SAID)
    assert counted.input_tokens == TOKENS
    listed = [model.id for model in direct(emulated).models.list(limit=5)]
    assert "claude-sonnet-4-6" in listed
    assert len(listed) == len(set(listed)) > 20
    assert direct(emulated).models.retrieve("claude-sonnet-4-6").id == "claude-sonnet-4-6"


def test_callers_are_known_by_their_access_key(emulated, client):
    status, _, _ = post(emulated, "/_farthing/identities")
    assert status == 405
    arn = "arn:aws:sts::444455556666:assumed-role/blue/ada"
    request = urllib.request.Request(
        f"{emulated.url}/_farthing/identities",
        json.dumps({"EMULATED": ["444455556666", arn]}).encode(),
        method="PUT",
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    invoke(client)
    call = emulated.calls()[-1]
    emulated.world.identities.clear()
    assert (call["account"], call["principal"], call["auth"]) == ("444455556666", arn, "sigv4")
    assert call["region"] == "eu-central-1"


def test_signatures_are_checked_where_the_secret_is_known(emulated):
    """By botocore's own signatures, of paths with everything in them that is encoded."""
    arn = "arn:aws:iam::444455556666:user/ada"
    emulated.world.identities["ADA"] = Identity("444455556666", arn, "her secret")
    try:
        for secret, works in (("her secret", True), ("another", False)):
            keys = {
                "aws_access_key_id": "ADA",
                "aws_secret_access_key": secret,
                "region_name": "eu-central-1",
            }
            client = boto3.client("bedrock-runtime", endpoint_url=emulated.url, **keys)
            control = boto3.client("bedrock", endpoint_url=emulated.url, **keys)
            sdk = of_bedrock(emulated, "ADA", secret)
            profile = f"arn:aws:bedrock:eu-central-1:444455556666:inference-profile/{SONNET}"
            for ask in (
                lambda: client.converse(modelId=profile, messages=ASKED),  # noqa: B023 - called in this round
                lambda: list(client.converse_stream(modelId=SONNET, messages=ASKED)["stream"]),  # noqa: B023
                lambda: control.list_inference_profiles(maxResults=3, typeEquals="SYSTEM_DEFINED"),  # noqa: B023
                lambda: sdk.messages.create(model=SONNET, max_tokens=9, messages=SAID),  # noqa: B023
            ):
                with (
                    nullcontext() if works else pytest.raises(Exception, match="does not match the signature")
                ):
                    ask()
    finally:
        emulated.world.identities.clear()


# --- the control plane -----------------------------------------------------------------------------------------------


def test_profiles_and_models(emulated):
    control = emulated.client("bedrock")
    found = control.get_inference_profile(inferenceProfileIdentifier=SONNET)
    assert found["type"] == "SYSTEM_DEFINED"
    assert found["models"][0]["modelArn"].endswith("foundation-model/anthropic.claude-sonnet-4-6")
    listed = control.list_inference_profiles(typeEquals="SYSTEM_DEFINED")["inferenceProfileSummaries"]
    assert SONNET in {one["inferenceProfileId"] for one in listed}
    models = {one["modelId"] for one in control.list_foundation_models()["modelSummaries"]}
    assert {"anthropic.claude-sonnet-4-6", "anthropic.claude-haiku-4-5-20251001-v1:0"} <= models
    with pytest.raises(control.exceptions.ResourceNotFoundException):
        control.get_inference_profile(inferenceProfileIdentifier="eu.anthropic.claude-sonnet-9")


def test_an_application_profile_is_called_by_its_arn(emulated, client):
    control = emulated.client("bedrock", region="eu-central-1")
    source = f"arn:aws:bedrock:eu-central-1:111122223333:inference-profile/{SONNET}"
    made = control.create_inference_profile(inferenceProfileName="shop", modelSource={"copyFrom": source})
    arn = made["inferenceProfileArn"]
    assert control.get_inference_profile(inferenceProfileIdentifier=arn)["type"] == "APPLICATION"
    assert client.converse(modelId=arn, messages=ASKED)["usage"]["inputTokens"] == TOKENS
    call = emulated.calls()[-1]
    assert (call["model_id"], call["model"]) == (arn, "claude-sonnet-4-6")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.converse(modelId=arn[:-4] + "ffff", messages=ASKED)


def test_agreement_offers_are_read_by_farthing(emulated):
    from farthing.aws import Access
    from farthing.book import default_book
    from farthing.pricelist import live_offers

    access = Access(region="us-east-1", endpoint_url=emulated.url)
    os.environ |= {"AWS_ACCESS_KEY_ID": "EMULATED", "AWS_SECRET_ACCESS_KEY": "made up"}
    try:
        found = live_offers(
            default_book(), access, ["anthropic.claude-opus-5", "anthropic.claude-haiku-4-5-20251001-v1:0"]
        )
    finally:
        del os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    assert not found.unmatched
    assert len(found.quotes) == 2 * 2 * (5 + 2)  # models, endpoints; meters on demand and in batch
