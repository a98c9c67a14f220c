"""Budgets at the gateway: what does not fit is refused in the caller's dialect, once, and told when it will fit."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal

import anthropic
import boto3
import pytest
from botocore.exceptions import ClientError

from farthing.gateway.budgets import Denied
from farthing.gateway.live import Refused
from farthing.gateway.proxy import _refusal
from tests.gateways import (
    BODY,
    INVOKE,
    MODEL,
    STREAM,
    STREAM_HEAD,
    answered,
    gateway,
    message,
    reply,
    request,
    upstream,
)
from tests.postgres_server import postgres_server

CONFIG = """
[[budgets]]
name = "little"
usd = 0.01
period = "day"
hold = "hard"
where = ["team=little"]

[[budgets]]
name = "watched"
usd = 0.0002
period = "day"
hold = "soft"
where = ["team=watched"]

[[budgets]]
name = "parallel"
usd = 0.01
period = "month"
hold = "hard"
where = ["team=parallel"]
"""
DEAR = BODY.replace(b'"max_tokens":9', b'"max_tokens":90000')  # at most $1.48: more than there is
LITTLE = [("X-Farthing-Team", "little")]


@pytest.fixture(scope="module")
def told():
    return {"answer": lambda _: [reply(message())]}


@pytest.fixture(scope="module")
def up(told):
    with upstream(lambda asked: told["answer"](asked)) as made:  # noqa: PLW0108 - looked up at each request
        yield made


@pytest.fixture(scope="module")
def within(up, tmp_path_factory):
    folder = tmp_path_factory.mktemp("budgets")
    (folder / "farthing.toml").write_text(CONFIG)
    flags = (
        "--bedrock",
        up.url,
        "--anthropic",
        up.url,
        "--no-auth",
        "--config",
        str(folder / "farthing.toml"),
    )
    with gateway(
        folder / "outbox", *flags, "--budgets", str(folder / "budgets.sqlite"), "--fsync", "os"
    ) as made:
        yield made


@pytest.fixture(autouse=True)
def plain(told, up):
    told["answer"] = lambda _: [reply(message())]
    up.asked.clear()


def held(made) -> dict[str, tuple[str, str]]:
    rows = answered(made.raw(request("GET", "/admin/budgets"))).json()["data"]
    return {row["budget"]: (row["spent"], row["held"]) for row in rows}


def test_what_fits_passes_and_is_posted(within):
    before, _ = held(within)["little"]
    got = within.post(INVOKE, BODY, LITTLE)
    assert got.status == 200
    after, on_hold = held(within)["little"]
    assert Decimal(after) - Decimal(before) == Decimal(got["x-farthing-cost-usd"])
    assert on_hold == "0"


def test_what_does_not_fit_is_refused_and_told_when_it_will(up, within):
    got = within.post(INVOKE, DEAR, LITTLE)
    assert got.status == 429
    said = got.json()
    assert (said["budget"], said["period"], said["limit"]) == ("little", "day", "0.01")
    assert said["resets_at"].endswith("Z")
    assert int(got["retry-after"]) > 0
    assert up.asked == []
    assert got["x-farthing-call-id"] not in {each.gateway_id for each in within.records()}
    direct = within.post("/v1/messages", DEAR.replace(b"{", b'{"model":"claude-sonnet-4-6",', 1), LITTLE)
    assert (direct.status, direct["x-should-retry"]) == (429, "false")
    assert direct.json()["error"]["type"] == "rate_limit_error"
    assert direct.json()["error"]["budget"] == "little"


def test_sdks_do_not_try_again(within):
    """Each would: botocore five times, the anthropic SDK twice. A budget is not freed by that."""
    started, before = time.monotonic(), denials(within)
    client = boto3.client(
        "bedrock-runtime", endpoint_url=within.url, region_name="us-east-1", aws_access_key_id="A",
        aws_secret_access_key="B",
    )  # fmt: skip
    client.meta.events.register("before-send", lambda request, **_: request.headers.update(LITTLE))
    with closing(client):
        for call in (
            lambda: client.invoke_model(modelId=MODEL, body=DEAR),
            lambda: client.converse(modelId=MODEL, messages=[{"role": "user", "content": [{"text": "hi"}]}]),
            lambda: client.converse_stream(
                modelId=MODEL, messages=[{"role": "user", "content": [{"text": "hi"}]}]
            ),
        ):
            with pytest.raises(ClientError) as caught:
                call()
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
            assert "little" in caught.value.response["Error"]["Message"]
            assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 0
    with (
        anthropic.Anthropic(base_url=within.url, api_key="x", default_headers=dict(LITTLE)) as client,
        pytest.raises(anthropic.RateLimitError),
    ):
        client.messages.create(
            model="claude-sonnet-4-6", max_tokens=8000, messages=[{"role": "user", "content": "hi"}]
        )
    assert denials(within) == before + 4
    assert time.monotonic() - started < 5


def denials(made) -> int:
    lines = made.raw(request("GET", "/metrics")).decode().splitlines()
    return next(
        (int(line.split()[1]) for line in lines if line.startswith('farthing_denied_total{reason="budget"}')),
        0,
    )


def test_warnings_come_with_the_answer(within):
    got = [within.post(INVOKE, BODY, [("X-Farthing-Team", "watched")]) for _ in range(4)]
    told = [dict(each.headers).get("x-farthing-budget", "") for each in got]
    assert all(each.status == 200 for each in got)  # a soft budget only tells
    assert any("watched" in each for each in told)


def test_errors_give_the_money_back(told, within):
    before = held(within)["little"]
    told["answer"] = lambda _: [reply(b"{}", "500 Oops")]
    assert within.post(INVOKE, BODY, LITTLE).status == 500
    assert held(within)["little"] == before


def test_stream_that_is_cut_counts_as_its_ceiling(told, within):
    before = float(held(within)["little"][0])
    told["answer"] = lambda _: [STREAM_HEAD, "close"]
    within.post(STREAM, BODY, LITTLE)
    spent, on_hold = held(within)["little"]
    assert float(spent) > before
    assert on_hold == "0"


def test_of_many_at_once_as_many_pass_as_fit(told, up, within):
    """Each may cost up to about $0.0025, so some of 16 fit into a cent, whatever they come to."""
    told["answer"] = lambda _: [0.5, reply(message())]
    body = BODY.replace(b'"max_tokens":9', b'"max_tokens":120')
    with ThreadPoolExecutor(16) as pool:
        got = list(
            pool.map(lambda _: within.post(INVOKE, body, [("X-Farthing-Team", "parallel")]).status, range(16))
        )
    passed = got.count(200)
    assert got.count(429) == 16 - passed
    ceiling = json.loads(within.raw(request("GET", "/admin/budgets")).partition(b"\r\n\r\n")[2])
    assert 0 < passed == len(up.asked) < 16
    assert next(row for row in ceiling["data"] if row["budget"] == "parallel")["held"] == "0"


def test_unknown_price_does_not_pass_a_cap(up, within):
    got = within.post("/model/us.anthropic.claude-unheard-of/invoke", BODY, LITTLE)
    assert got.status == 429
    assert up.asked == []
    assert within.post("/model/us.anthropic.claude-unheard-of/invoke", BODY).status == 200  # under no cap


def test_store_that_is_out_of_reach_is_another_matter():
    """What a budget refuses is final; this is not."""
    gone = _refusal(Refused("", Denied("", "", 0, 5, 0, 0, 0, "the budget store is out of reach; try again")))
    assert gone.kind == "busy"
    assert _refusal(Refused("", Denied("b", "day", 0, 5, 1, 1, 0, "spent"))).kind == "budget"


def test_hosts_share_budgets_in_postgresql(tmp_path):
    """Two gateways, one store over a network: their calls are counted together, and neither stands still for it."""
    (tmp_path / "farthing.toml").write_text(CONFIG)
    with postgres_server() as store, upstream(lambda _: [reply(message())]) as up:
        flags = (
            "--bedrock",
            up.url,
            "--no-auth",
            "--config",
            str(tmp_path / "farthing.toml"),
            "--budgets",
            store,
        )
        with gateway(tmp_path / "one", *flags) as one, gateway(tmp_path / "two", *flags) as two:
            with ThreadPoolExecutor(8) as pool:
                got = list(pool.map(lambda n: (one, two)[n % 2].post(INVOKE, BODY, LITTLE).status, range(20)))
            assert got == [200] * 20
            assert held(one)["little"] == held(two)["little"] == ("0.002112", "0")  # 20 times $0.0001056
            assert two.post(INVOKE, DEAR, LITTLE).status == 429
            assert one.end() == 0
            assert two.end() == 0
