"""Hooks before the emulator: what they wrote is what was billed, however calls end; with the log nothing is twice."""

import contextlib
import gc
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.config import Config as BotoConfig

import farthing
from farthing.api import import_paths
from farthing.book import default_book
from farthing.cells import Question, cells
from farthing.emulator import Fault, Logs, World, running
from farthing.gateway.hooks import attach, open_hook
from farthing.ledger import Ledger
from farthing.meters import METERS
from tests import hooked
from tests.hooked import intents, results

anthropic = pytest.importorskip(
    "anthropic", reason="the anthropic SDK is not installed: pip install anthropic"
)

pytestmark = hooked.UNCLOSED
collected = hooked.collected
MODEL = "eu.anthropic.claude-sonnet-4-6"
LONG = "a rule of this house. " * 500
POINT = {"cachePoint": {"type": "default", "ttl": "1h"}}
ONCE = BotoConfig(retries={"total_max_attempts": 1})


@pytest.fixture
def emulated(tmp_path: Path):
    with running(World(default_book(), logs=Logs(tmp_path / "logs"))) as found:
        yield found


def turn(text: str) -> list[dict]:
    return [{"role": "user", "content": [{"text": text}]}]


def traffic(client, number: int) -> None:
    """A call of each kind; some of their answers are left."""
    system = [{"text": LONG}, POINT]
    client.converse(modelId=MODEL, system=system, messages=turn(f"Where is order {number}?"))
    list(client.converse_stream(modelId=MODEL, system=system, messages=turn("And the next?"))["stream"])
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 60,
            "system": [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": f"Is order {number} paid?"}]}  # fmt: skip
    client.invoke_model(modelId=MODEL, body=json.dumps(body))["body"].read()
    list(client.invoke_model_with_response_stream(modelId=MODEL, body=json.dumps(body))["body"])
    client.invoke_model(modelId=MODEL, body=json.dumps(body))  # nobody reads it
    with contextlib.suppress(client.exceptions.ValidationException):
        client.invoke_model(modelId=MODEL, body=json.dumps(body | {"max_tokens": -1}))


def imported(ledger: Ledger, *paths: Path) -> tuple[int, tuple[int, ...]]:
    """Calls and tokens by meter, when these were read too."""
    import_paths(ledger, paths, now=datetime.now(UTC))
    found = cells(ledger, Question(), ())
    return sum(cell.calls for cell in found), tuple(
        sum(getattr(cell.tokens, meter) for cell in found) for meter in METERS
    )


def billed(emulated) -> tuple[int, ...]:
    return tuple(
        sum(call["tokens"][meter] for call in emulated.calls() if "tokens" in call) for meter in METERS
    )


def test_what_hooks_wrote_is_what_was_billed(emulated, tmp_path):
    hook = open_hook(outbox=tmp_path / "outbox", tags={"team": "search"})
    client = emulated.client(region="eu-west-1", config=ONCE)
    attach(client.meta.events, hook)
    for number in range(3):
        traffic(client, number)
    sdk = anthropic.AnthropicBedrock(
        aws_access_key="EMULATED", aws_secret_key="made up", aws_region="eu-west-1", base_url=emulated.url,
        middleware=[farthing.Middleware(outbox=tmp_path / "outbox")],
    )  # fmt: skip
    with sdk.messages.stream(
        model=MODEL, max_tokens=50, system=LONG, messages=[{"role": "user", "content": "hi"}]
    ) as stream:
        stream.get_final_message()
    gc.collect()
    hook.flush()
    sdk._middleware[0].hook.flush()
    by_id = {call["metadata"]["farthing_id"]: call for call in emulated.calls() if not call["status"]}
    written = results(tmp_path / "outbox")
    wrote = {result.gateway_id: result for result in written if not result.status}
    assert wrote.keys() == by_id.keys()
    assert len(written) == len(wrote)  # what the service was bound to refuse was left alone
    for name, call in by_id.items():
        if wrote[name].assumed:  # by its headers, which tell no lifetimes
            assert wrote[name].tokens.prompt == sum(call["tokens"].values()) - call["tokens"]["output"]
        else:
            assert wrote[name].tokens.five == tuple(call["tokens"][meter] for meter in METERS)
        assert (wrote[name].request_id, wrote[name].region) == (call["request_id"], "eu-west-1")
    assert hook.faults == 0


def test_the_outbox_and_the_log_together_count_each_call_once(emulated, tmp_path):
    """Also those whose stream broke: the log knows what the intent could only assume."""
    hook = open_hook(outbox=tmp_path / "outbox", settle="now")
    client = emulated.client(region="eu-west-1", config=ONCE)
    attach(client.meta.events, hook)
    traffic(client, 1)
    for fault in (Fault("exception", after=3), Fault("cut", after=2), Fault("throttle"), Fault("close")):
        emulated.fail(fault)
        with contextlib.suppress(Exception):
            list(client.converse_stream(modelId=MODEL, messages=turn("Is it there?"))["stream"])
    emulated.fail()
    traffic(client, 2)
    gc.collect()
    hook.flush()
    emulated.write()
    assert len(intents(tmp_path / "outbox")) > len(results(tmp_path / "outbox"))
    ledger = Ledger(tmp_path / "ledger")
    attempts = len(intents(tmp_path / "outbox"))
    calls, _ = imported(ledger, tmp_path / "outbox")
    assert calls == attempts
    assert imported(ledger, tmp_path / "logs") == (len(emulated.calls()), billed(emulated))
    other = Ledger(tmp_path / "other")  # and the other way round
    assert imported(other, tmp_path / "logs", tmp_path / "outbox") == (
        len(emulated.calls()),
        billed(emulated),
    )
