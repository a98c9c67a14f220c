"""The middleware in the anthropic SDK's clients, of every platform, sync and async, streamed and not."""

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing.config import Budget, Config
from farthing.gateway.budgets import open_budgets
from tests import hooked
from tests.hooked import (
    FIVE,
    MESSAGE,
    MODEL,
    SSE,
    Said,
    error,
    intents,
    packed,
    results,
    sse_events,
)

anthropic = pytest.importorskip(
    "anthropic", reason="the anthropic SDK is not installed: pip install anthropic"
)

pytestmark = hooked.UNCLOSED
collected, up = hooked.collected, hooked.up
DIRECT = "claude-sonnet-4-6"
KEYS = {"aws_access_key": "AKIAMADEUP", "aws_secret_key": "made-up", "aws_region": "eu-west-1"}
CLIENTS: dict[str, tuple[str, dict[str, str], str, str]] = {  # its settings, the model, and the platform it is of
    "Anthropic": ("Anthropic", {"api_key": "k"}, DIRECT, "anthropic"),
    "Bedrock": ("AnthropicBedrock", KEYS, MODEL, "bedrock"),
    "Mantle": ("AnthropicBedrockMantle", {"api_key": "k", "aws_region": "eu-west-1"}, "anthropic.claude-sonnet-4-6",
               "bedrock"),
}  # fmt: skip


def ask(model: str = MODEL) -> dict[str, Any]:
    return {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": "a secret question"}]}


def made(
    up, out: Path, name: str = "Bedrock", *, asynchronous: bool = False, retries: int = 0, **settings: Any
):
    """A client, and the hook of its middleware."""
    kind, keys, _, _ = CLIENTS[name]
    middleware = farthing.Middleware(**{"outbox": out, "tags": {"team": "search"}} | settings)
    client = getattr(anthropic, f"{'Async' * asynchronous}{kind}")(
        base_url=up.url, middleware=[middleware], max_retries=retries, **keys
    )
    return client, middleware.hook


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", CLIENTS)
def test_a_message_is_metered_to_the_token(up, tmp_path, name, streamed):
    client, hook = made(up, tmp_path, name)
    _, _, model, platform = CLIENTS[name]
    if streamed:
        with client.messages.stream(**ask(model)) as stream:
            assert "".join(stream.text_stream) == "t0t1t2"
    else:
        assert client.messages.create(**ask(model)).content[0].text == "a secret answer"
    hook.flush()
    (intent,), (result,) = intents(tmp_path), results(tmp_path)
    assert result.tokens.five == FIVE
    assert (result.platform, result.model, result.stream) == (platform, model, streamed)
    assert result.tags == {"team": "search"}
    assert result.served_model == MESSAGE["model"]
    assert intent.gateway_id == result.gateway_id
    assert hook.faults == 0


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", CLIENTS)
def test_so_it_is_by_an_async_client(up, tmp_path, name, streamed):
    client, hook = made(up, tmp_path, name, asynchronous=True)
    model = CLIENTS[name][2]

    async def call() -> str:
        async with client:
            if streamed:
                async with client.messages.stream(**ask(model)) as stream:
                    return "".join([text async for text in stream.text_stream])
            return (await client.messages.create(**ask(model))).content[0].text

    assert asyncio.run(call()) == ("t0t1t2" if streamed else "a secret answer")
    hook.flush()
    assert [each.tokens.five for each in results(tmp_path)] == [FIVE]
    assert hook.faults == 0


@pytest.mark.parametrize("name", CLIENTS)
def test_the_request_and_its_answer_stay_as_they_were(up, tmp_path, name):
    client, hook = made(up, tmp_path, name)
    model = CLIENTS[name][2]
    answer = client.messages.with_raw_response.create(**ask(model))
    plain = client.with_options(middleware=[]).messages.with_raw_response.create(**ask(model))
    assert answer.http_response.content == plain.http_response.content
    assert answer.parse() == plain.parse()
    (path, headers, body), (path_plain, headers_plain, body_plain) = up.requests
    assert (path, body) == (path_plain, body_plain)
    assert headers.keys() - headers_plain.keys() == (
        {"x-amzn-bedrock-request-metadata"} if name == "Bedrock" else headers.keys() & set(_METADATA)
    )
    hook.flush()
    if name == "Bedrock":
        told = json.loads(headers["x-amzn-bedrock-request-metadata"])
        assert told == {"farthing_id": results(tmp_path)[0].gateway_id, "team": "search"}
        assert "x-amzn-bedrock-request-metadata" in headers["authorization"]


_METADATA = ("x-amzn-bedrock-request-metadata",)  # mantle is sent it too, and lets it be


def test_each_attempt_is_a_call_of_its_own(up, tmp_path):
    client, _ = made(up, tmp_path, retries=2, settle="now")
    hasty = {"retry-after-ms": "1"}
    up.script += [
        error(529, "overloaded")._replace(headers=error(529, "overloaded").headers | hasty),
        error(429, "slow")._replace(headers=error(429, "slow").headers | hasty),
    ]
    client.messages.create(**ask())
    assert [each.status for each in results(tmp_path)] == ["overloaded", "slow", ""]
    assert len({each.gateway_id for each in intents(tmp_path)}) == 3


def test_an_error_is_the_callers_and_is_not_billed(up, tmp_path):
    client, _ = made(up, tmp_path, "Anthropic", settle="now")
    told = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
    up.script.append(Said(400, {"content-type": "application/json"}, [packed(told)]))
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**ask(DIRECT))
    assert [each.status for each in results(tmp_path)] == ["invalid_request_error"]


def test_no_connection_voids_it_and_no_answer_leaves_it_open(up, tmp_path):
    client, hook = made(up, tmp_path, settle="now")
    up.script.append(Said(0, {}, []))
    with pytest.raises(anthropic.APIConnectionError):
        client.messages.create(**ask())
    assert (len(intents(tmp_path)), results(tmp_path)) == (1, [])
    with pytest.raises(anthropic.APIConnectionError):
        client.with_options(base_url="http://127.0.0.1:9").messages.create(**ask())
    assert [each.status for each in results(tmp_path)] == ["void"]
    assert hook.faults == 0


@pytest.mark.parametrize("before_usage", [True, False])
def test_a_stream_that_is_left(up, tmp_path, before_usage):
    client, hook = made(up, tmp_path, "Anthropic")
    events = sse_events()
    up.script.append(
        Said(200, {"content-type": SSE}, [b"".join(events[:3])] if before_usage else [b"".join(events)])
    )
    stream = client.messages.create(stream=True, **ask(DIRECT))
    next(iter(stream))
    stream.close()
    del stream
    gc.collect()
    hook.flush()
    assert len(intents(tmp_path)) == 1
    assert [each.tokens.five for each in results(tmp_path)] == ([] if before_usage else [FIVE])


def test_an_error_within_a_stream_reaches_the_caller(up, tmp_path):
    client, hook = made(up, tmp_path, "Anthropic")
    broken = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"no"}}\n\n'
    up.script.append(Said(200, {"content-type": SSE}, [*sse_events()[:2], broken]))
    with pytest.raises(anthropic.APIStatusError):
        list(client.messages.create(stream=True, **ask(DIRECT)))
    hook.flush()
    assert (len(intents(tmp_path)), results(tmp_path)) == (1, [])


def test_a_task_that_is_cancelled_leaves_its_call_open(up, tmp_path):
    client, hook = made(up, tmp_path, asynchronous=True)

    async def call() -> None:
        async with client:
            stream = await client.messages.create(stream=True, **ask())
            async for _ in stream:
                raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(call())
    hook.flush()
    assert len(intents(tmp_path)) == 1
    assert hook.faults == 0


def test_many_tasks_share_a_middleware(up, tmp_path):
    client, hook = made(up, tmp_path, asynchronous=True)

    async def call() -> None:
        async with client:
            await asyncio.gather(*(client.messages.create(**ask()) for _ in range(30)))

    asyncio.run(call())
    hook.flush()
    assert len({each.gateway_id for each in results(tmp_path)}) == 30


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_denial_is_raised_once_and_nothing_is_sent(up, tmp_path, asynchronous):
    config = Config(budgets=(Budget("all", calls=1, period="day", hold="hard"),))
    budgets = open_budgets(config, str(tmp_path / "budgets.sqlite"))
    client, _ = made(
        up, tmp_path / "out", asynchronous=asynchronous, budgets=budgets, settle="now", retries=3
    )

    async def call() -> None:
        await client.messages.create(**ask())

    def again() -> None:
        if asynchronous:
            asyncio.run(call())
        else:
            client.messages.create(**ask())

    again()
    with pytest.raises(farthing.BudgetExceeded, match="all") as denied:
        again()
    assert denied.value.retry_after > 0
    assert len(up.requests) == 1
    budgets.close()


def test_budgets_that_break_do_not_break_an_async_call(up, tmp_path, monkeypatch):
    budgets = open_budgets(Config(), str(tmp_path / "budgets.sqlite"))
    client, hook = made(up, tmp_path / "out", asynchronous=True, budgets=budgets)
    monkeypatch.setattr(hook.live, "budgets", object())  # nothing that can be asked; but closed at exit

    async def call() -> str:
        async with client:
            return (await client.messages.create(**ask())).content[0].text

    assert asyncio.run(call()) == "a secret answer"
    assert hook.faults > 0
    budgets.close()


def test_a_policy_is_applied_before_the_client_signs(up, tmp_path):
    file = tmp_path / "farthing-policy.toml"
    said = 'approver = "Ada"\napproved_at = "2020-01-01"\nexpires = "2099-01-01"\n'
    file.write_text(
        '[workloads.search]\ntags = ["team=search"]\n'
        f'[[entries]]\nworkload = "search"\nlever = "endpoint"\nendpoint = "global"\n{said}'
        f'[[entries]]\nworkload = "search"\nlever = "cache"\nmarkers = [{{at = "system", ttl = "1h"}}]\n{said}'
    )
    client, hook = made(up, tmp_path / "out", policy=file)
    given = ask() | {"system": "s" * 9000}
    before = json.dumps(given)
    client.messages.create(**given)
    ((path, headers, body),) = up.requests
    assert path == "/model/global.anthropic.claude-sonnet-4-6/invoke"
    assert json.loads(body)["system"] == [
        {"type": "text", "text": "s" * 9000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]
    assert json.dumps(given) == before
    hook.flush()
    assert results(tmp_path / "out")[0].model == "global.anthropic.claude-sonnet-4-6"
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256")
    assert hook.faults == 0


def test_other_calls_are_left_alone(up, tmp_path):
    client, _ = made(up, tmp_path / "out", "Anthropic")
    up.script.append(Said(200, {"content-type": "application/json"}, [b'{"input_tokens":4}']))
    counted = client.messages.count_tokens(model=DIRECT, messages=ask()["messages"])
    assert counted.input_tokens == 4
    assert not (tmp_path / "out").exists()
