"""LiteLLM's callback, in LiteLLM itself, which is no dependency: `pip install litellm` beside the tests runs them."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing.config import Budget, Config
from farthing.gateway.budgets import open_budgets
from tests.hooked import FIVE, MODEL, error, intents, results, upstream

litellm: Any = pytest.importorskip("litellm", reason="LiteLLM is not installed: pip install litellm")

pytestmark = pytest.mark.filterwarnings("ignore")  # LiteLLM's own
TURN = [{"role": "user", "content": "a secret question"}]


@pytest.fixture
def up(monkeypatch):
    for name, value in {"AWS_ACCESS_KEY_ID": "AKIAMADEUP", "AWS_SECRET_ACCESS_KEY": "made-up",
                        "AWS_REGION": "eu-west-1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with upstream() as server:
        yield server
    litellm.logging_callback_manager._reset_all_callbacks()


def asked(up, **more: Any) -> dict[str, Any]:
    return {"model": f"bedrock/{MODEL}", "messages": TURN, "max_tokens": 9, "num_retries": 0,
            "aws_region_name": "eu-west-1", "aws_bedrock_runtime_endpoint": up.url} | more  # fmt: skip


def logged(out: Path, count: int) -> None:
    """LiteLLM logs from a thread of its own."""
    until = time.monotonic() + 20
    while time.monotonic() < until and (not out.exists() or len(results(out)) < count):
        time.sleep(0.01)
    assert len(results(out)) == count


async def streamed(up) -> None:
    async for _ in await litellm.acompletion(stream=True, **asked(up)):
        pass


def test_calls_are_metered_to_the_token(up, tmp_path):
    callback = farthing.LiteLLMCallback(outbox=tmp_path, settle="now", tags={"team": "search"})
    litellm.callbacks = [callback]
    litellm.completion(**asked(up))
    logged(tmp_path, 1)
    list(litellm.completion(stream=True, **asked(up)))
    logged(tmp_path, 2)
    asyncio.run(_twice(up, tmp_path))
    assert [each.tokens.five for each in results(tmp_path)] == [FIVE] * 4
    assert [each.stream for each in results(tmp_path)] == [False, True, False, True]
    assert {(each.model, each.platform, each.region) for each in results(tmp_path)} == {
        (MODEL, "bedrock", "eu-west-1")
    }
    assert {each.request_id for each in results(tmp_path)} >= {"req-1"}
    assert callback.hook.faults == 0
    assert not callback._open


async def _twice(up, out: Path) -> None:
    await litellm.acompletion(**asked(up))
    await asyncio.to_thread(logged, out, 3)
    await streamed(up)
    await asyncio.to_thread(logged, out, 4)


def test_an_error_is_not_billed(up, tmp_path):
    litellm.callbacks = [farthing.LiteLLMCallback(outbox=tmp_path, settle="now")]
    up.script.append(error(400, "ValidationException"))
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**asked(up))
    logged(tmp_path, 1)
    assert results(tmp_path)[0].status == "BadRequestError"


def test_a_budget_stops_async_calls_and_watches_others(up, tmp_path):
    config = Config(budgets=(Budget("all", calls=1, period="day", hold="hard"),))
    budgets = open_budgets(config, str(tmp_path / "budgets.sqlite"))
    litellm.callbacks = [farthing.LiteLLMCallback(outbox=tmp_path / "out", settle="now", budgets=budgets)]
    litellm.completion(**asked(up))
    logged(tmp_path / "out", 1)
    with pytest.raises(farthing.BudgetExceeded, match="budget all"):
        asyncio.run(litellm.acompletion(**asked(up)))
    assert len(up.requests) == 1
    litellm.completion(**asked(up))  # of its sync API, callbacks can refuse nothing
    logged(tmp_path / "out", 2)
    assert len(intents(tmp_path / "out")) == 2
    budgets.close()


def test_other_vendors_are_left_alone(up, tmp_path):
    litellm.callbacks = [farthing.LiteLLMCallback(outbox=tmp_path / "out", settle="now")]
    litellm.completion(model="gpt-4o", messages=TURN, mock_response="hi")
    assert not (tmp_path / "out").exists()
