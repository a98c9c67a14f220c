"""What is wrong with us stays with us: every call of ours fails in turn, and the application notices nothing."""

import gc
import logging
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing.book import default_book
from farthing.config import Budget, Config, ConfigError
from farthing.gateway import _attempt, hooks
from farthing.gateway._outbox import Outbox
from farthing.gateway.budgets import StoreError, open_budgets
from farthing.gateway.hooks import Hook, attach, open_hook
from farthing.gateway.live import Live, Who
from farthing.importers import read_paths
from farthing.policy import load as load_policy
from farthing.wire import Answer, ask, route
from tests import hooked
from tests.hooked import MODEL, bedrock, intents, results
from tests.test_hooks import BODY, CALLS, TAGS, TURN

pytestmark = hooked.UNCLOSED
collected, up = hooked.collected, hooked.up
ROOT = Path(__file__).resolve().parent.parent


class Injected(Exception):
    """A fault of ours; its text could be a prompt's."""


class Breaking:
    """Stands for a thing of ours, one of whose functions fails."""

    def __init__(self, whole: Any, name: str, fault: Exception) -> None:
        self._whole, self._name, self._fault = whole, name, fault

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            raise self._fault
        return getattr(self._whole, name)


PLACES = {
    "Live": ("decide", "begin", "settle", "outbox", "policy", "clock_us"),
    "Outbox": ("intent", "result", "sync", "fsync"),
    "Budgets": ("hold", "post", "void", "renew", "waits", "run"),
    "Book": ("resolve", "find", "place"),
}


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in PLACES.items() for name in names])
def test_every_call_of_ours_may_fail(up, tmp_path, part, name):
    budgets = open_budgets(
        Config(budgets=(Budget("all", calls=9, period="day", hold="hard"),)), str(tmp_path / "b.sqlite")
    )
    whole = open_hook(outbox=tmp_path / "out", budgets=budgets, policy=tmp_path / "no-policy.toml").live
    live: Any = whole
    if part == "Live":
        live = Breaking(whole, name, Injected("a secret question"))
    else:
        setattr(
            whole, part.lower(), Breaking(getattr(whole, part.lower()), name, Injected("a secret question"))
        )
    hook = Hook(live, tags=TAGS, settle_now=True)
    client = bedrock(up.url)
    attach(client.meta.events, hook)
    for call in CALLS.values():
        assert call(client) == call(bedrock(up.url))
    assert len(up.requests) == 2 * len(CALLS)
    budgets.close()


def _tags() -> dict[str, str]:
    raise Injected


def test_a_denial_that_the_application_raises_ends_nothing(up, tmp_path):
    """The thread that settles goes on: also the second call has its result."""

    def denies(*_: Any) -> None:
        raise hooks.BudgetExceeded(hooks._unasked())

    client = bedrock(up.url)
    hook = open_hook(outbox=tmp_path, on_settled=denies)
    attach(client.meta.events, hook)
    for _ in range(2):
        assert CALLS["Converse"](client)
        hook.flush()
    assert hook.faults == 2
    assert b"".join(file.read_bytes() for file in tmp_path.glob("*.jsonl")).count(b'"kind":"result"') == 2


@pytest.mark.parametrize("settings", [{"tags": _tags}, {"on_settled": lambda *_: 1 / 0}, {"tags": lambda: {1: None}}],
                         ids=["tags", "on_settled", "odd tags"])  # fmt: skip
def test_so_may_what_the_application_gives_us(up, tmp_path, settings):
    client = farthing.instrument(bedrock(up.url), outbox=tmp_path, settle="now", **settings)
    assert CALLS["Converse"](client)


def test_every_step_of_an_attempt_may_fail(up, tmp_path, monkeypatch):
    """Also those that only our own code calls: each is made to raise, one after the other."""
    ours = ("hashed", "prefixes", "metadata_of", "told", "bytes_of", "ask", "route_of")
    for module, name in [(_attempt, "Answers"), (_attempt, "skimmed"), *((hooks, name) for name in ours)]:
        with monkeypatch.context() as patched:

            def broken(*_: Any, **__: Any) -> Any:
                raise Injected

            patched.setattr(module, name, broken)
            (tmp_path / "key").write_bytes(b"0123456789abcdef")
            hook = open_hook(outbox=tmp_path / name, key=tmp_path / "key", settle="now", tags=TAGS)
            client = bedrock(up.url)
            attach(client.meta.events, hook)
            for operation, call in CALLS.items():
                assert call(client) == call(bedrock(up.url)), (name, operation)
            assert hook.faults > 0, name


def test_faults_are_counted_said_once_a_minute_and_quote_nothing(up, tmp_path, caplog):
    live = Breaking(open_hook(outbox=tmp_path).live, "begin", Injected("a secret question"))
    hook = Hook(live)  # type: ignore[arg-type]
    client = bedrock(up.url)
    attach(client.meta.events, hook)
    with caplog.at_level(logging.WARNING, "farthing.hooks"):
        for _ in range(5):
            client.converse(modelId=MODEL, messages=TURN)
    assert hook.faults == 5
    (said,) = [record.getMessage() for record in caplog.records]
    assert "Injected" in said
    assert "test_hooks_faults.py" in said
    assert "secret" not in said


def test_no_text_of_a_prompt_is_kept(up, tmp_path):
    client = farthing.instrument(bedrock(up.url), outbox=tmp_path, settle="now")
    for call in CALLS.values():
        call(client)
    text = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"secret" not in text
    assert b"t0" not in text.replace(b"tokens", b"")


# --- faults as they happen --------------------------------------------------------------------------------------------


def test_an_outbox_that_goes_away(up, tmp_path):
    out = tmp_path / "outbox"
    client = farthing.instrument(bedrock(up.url), outbox=out, settle="now")
    client.converse(modelId=MODEL, messages=TURN)
    shutil.rmtree(out)
    client.converse(modelId=MODEL, messages=TURN)  # which makes the folder anew
    shutil.rmtree(out)
    out.write_text("a file where the folder was")
    client.converse(modelId=MODEL, messages=TURN)
    never = farthing.instrument(bedrock(up.url), outbox=out, settle="now")
    never.converse(modelId=MODEL, messages=TURN)
    assert len(up.requests) == 4


def full(folder: str, url: str) -> None:
    """In a process of its own: nothing of more than 600 bytes can be written."""
    hook = open_hook(outbox=folder, settle="now")
    client = bedrock(url)
    attach(client.meta.events, hook)
    client.converse(modelId=MODEL, messages=TURN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
    for _ in range(20):
        assert client.converse(modelId=MODEL, messages=TURN)["usage"]["inputTokens"] == 12
    assert hook.live.unmetered > 0
    assert hook.faults == 0  # it is said by the outbox


def test_a_full_disk(up, tmp_path):
    script = f"from tests.test_hooks_faults import full; full({str(tmp_path / 'out')!r}, {up.url!r})"
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(up.requests) == 21
    for file in (tmp_path / "out").iterdir():
        assert file.read_bytes().endswith(b"\n")  # whole lines


def test_a_policy_that_breaks_leaves_the_last_one_in_force(up, tmp_path):
    file = tmp_path / "farthing-policy.toml"
    file.write_text(
        '[workloads.support]\ntags = ["app=support"]\n[[entries]]\nworkload = "support"\nlever = "endpoint"\n'
        'endpoint = "global"\napprover = "Ada"\napproved_at = "2020-01-01"\nexpires = "2099-01-01"\n'
    )
    load_policy(file)
    hook = open_hook(outbox=tmp_path / "out", policy=file, tags=TAGS, settle="now")
    client = bedrock(up.url)
    attach(client.meta.events, hook)
    client.converse(modelId=MODEL, messages=TURN)
    file.write_bytes(b"\xff nonsense [[")
    client.converse(modelId=MODEL, messages=TURN)
    assert [path for path, _, _ in up.requests] == ["/model/global.anthropic.claude-sonnet-4-6/converse"] * 2


@pytest.mark.parametrize(("fail", "passes"), [("open", True), ("closed", False)])
def test_budgets_out_of_reach_pass_or_refuse_by_choice(up, tmp_path, fail, passes):
    config = tmp_path / "farthing.toml"
    config.write_text('[[budgets]]\nname = "all"\ncalls = 100\nperiod = "day"\nhold = "hard"\n')
    file = tmp_path / "budgets.sqlite"
    hook = open_hook(outbox=tmp_path / "out", config=config, budgets=str(file), fail=fail, settle="now")
    client = bedrock(up.url)
    attach(client.meta.events, hook)
    client.converse(modelId=MODEL, messages=TURN)
    with sqlite3.connect(file) as other:
        for (table,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            other.execute(f"DROP TABLE IF EXISTS [{table}]")
    other.close()
    if passes:
        client.converse(modelId=MODEL, messages=TURN)
    else:
        with pytest.raises(farthing.BudgetExceeded) as denied:
            client.converse(modelId=MODEL, messages=TURN)
        assert denied.value.period == ""
    assert len(up.requests) == 1 + passes


def test_what_cannot_be_opened_is_said_at_once(tmp_path):
    (tmp_path / "budgets.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError):
        open_hook(outbox=tmp_path, budgets=str(tmp_path / "budgets.sqlite"))
    with pytest.raises(ConfigError):
        open_hook(outbox=tmp_path, config=tmp_path / "no.toml")
    with pytest.raises(TypeError):
        open_hook(outbox=tmp_path, colour="red")  # type: ignore[call-arg]


def test_an_answer_may_end_within_our_own_code(up, tmp_path):
    """The collector may close a stream while the outbox is locked by the same thread: that must not wait for itself."""
    hook = open_hook(outbox=tmp_path)
    client = bedrock(up.url)
    attach(client.meta.events, hook)
    response = client.converse_stream(modelId=MODEL, messages=TURN)
    for _ in response["stream"]:
        pass
    left = client.invoke_model(modelId=MODEL, body=BODY)
    assert isinstance(hook.live.outbox, Outbox)
    with hook.live.outbox._lock:
        cycle: list[Any] = [left]
        cycle.append(cycle)
        del left, cycle
        gc.collect()
    hook.flush()
    assert len(results(tmp_path)) == 2
    assert len(intents(tmp_path)) == 2


# --- denials while others are settled ---------------------------------------------------------------------------------

PATH, ASKED = f"/model/{MODEL}/invoke", BODY.encode()
ANSWERED = Answer(200, {"input_tokens": 50, "output_tokens": 10}, "", "msg_1", "req-1", final=True)


def test_a_pass_of_the_calls_own_model_is_priced_as_the_call(tmp_path):
    """Answers name models bare, wherever they ran."""
    costs = []
    for model in ("global.anthropic.claude-opus-5", "us.anthropic.claude-opus-5"):
        asked: Any = route("POST", f"/model/{model}/invoke")
        live = Live(default_book(), Outbox(tmp_path / model))
        call: Any = live.begin(Who(region="us-east-1"), asked, ask(asked, ASKED), ASKED)
        own = {"input_tokens": 1_000, "output_tokens": 100}
        usage = own | {"iterations": [own | {"type": "message", "model": "claude-opus-5"}]}
        costs.append(live.settle(call, ANSWERED._replace(usage=usage)).picos)
    assert costs == [7_500_000_000, 8_250_000_000]


def test_a_call_that_fell_back_is_told_at_the_model_that_answered(tmp_path):
    asked: Any = route("POST", "/model/us.anthropic.claude-fable-5/invoke")
    live = Live(default_book(), Outbox(tmp_path / "outbox"))
    call: Any = live.begin(Who(region="us-east-1"), asked, ask(asked, ASKED), ASKED)
    refused = {"type": "message", "model": "claude-fable-5", "input_tokens": 900, "output_tokens": 0}
    made = {"type": "fallback_message", "model": "claude-opus-4-8", "input_tokens": 900, "output_tokens": 9}
    answer = ANSWERED._replace(
        model="claude-opus-4-8", usage={"input_tokens": 900, "iterations": [refused, made]}
    )
    cost = live.settle(call, answer).picos
    assert cost == (900 * 55 + 9 * 275) * 10**5
    live.outbox.close()
    batches = read_paths([str(tmp_path / "outbox")], now=datetime.now(UTC), workers=0)
    (usage,) = [usage for batch in batches for usage in batch.usages if usage.message_id]
    told = [(facts.model_id, tokens) for facts, tokens in usage.parts if any(tokens)]
    assert told == [("claude-opus-4-8", (900, 9, 0, 0, 0))]


def hook_for(folder: Path, calls: str, **more: Any) -> Hook:
    """With a budget in which so many calls fit at their ceiling."""
    asked: Any = route("POST", PATH)
    who = Who(region="us-east-1")
    first: Any = Live(default_book(), Outbox(folder / "first")).begin(who, asked, ask(asked, ASKED), ASKED)
    usd = Decimal(calls) * first.ceiling.picos / 10**12
    budgets = open_budgets(
        Config(budgets=(Budget("all", usd=usd, period="day", hold="hard"),)), str(folder / "b.sqlite")
    )
    return Hook(Live(default_book(), Outbox(folder / "out"), budgets), who=who, **more)


def test_none_is_denied_by_a_call_that_is_being_settled(tmp_path, monkeypatch):
    hook = hook_for(tmp_path, "1.5")
    inside, goes_on, whole = threading.Event(), threading.Event(), hook.settle

    def slow(*attempts):
        if attempts:
            inside.set()
            goes_on.wait(5)
        whole(*attempts)

    monkeypatch.setattr(hook, "settle", slow)  # the thread has taken it from the queue
    first: Any = hook.begin(PATH, ASKED, {})
    first.said(ANSWERED)
    assert inside.wait(5)
    threading.Timer(0.1, goes_on.set).start()
    second: Any = hook.begin(PATH, ASKED, {})
    second.failed(sent=False)
    hook.close()


def test_an_application_that_calls_when_it_is_told_of_a_call_may_be_denied(tmp_path):
    said: list[Any] = []

    def on_settled(_call_id, _settled):
        if not said:
            said.append("called")
            others[0].said(ANSWERED)
            try:
                while True:
                    others.append(hook.begin(PATH, ASKED, {}))
            except farthing.BudgetExceeded as denied:
                said.append(denied)

    hook = hook_for(tmp_path, "2.9", on_settled=on_settled)
    one: Any = hook.begin(PATH, ASKED, {})
    others: list[Any] = [hook.begin(PATH, ASKED, {})]
    one.said(ANSWERED)
    hook.flush()
    assert [type(each).__name__ for each in said] == ["str", "BudgetExceeded"]
    assert len(others) == 3  # what had ended denied none
    for each in others[1:]:
        each.failed(sent=False)
    hook.close()
