"""Calls that come together: budgets answer as they would one after the other, and nobody's money stays held."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace as replace_struct

from farthing.book import default_book
from farthing.config import Config
from farthing.gateway._admin import _told
from farthing.gateway._aio import Syncs
from farthing.gateway._metrics import Metrics
from farthing.gateway._outbox import Outbox, OutboxError
from farthing.gateway._shadow import Shadows
from farthing.gateway._together import Together
from farthing.gateway._written import written
from farthing.gateway.budgets import Denied, Held, Holding, Settling, StoreError, open_budgets
from farthing.gateway.live import Call, Live, Refused, Who
from farthing.gateway.protocol import State
from farthing.gateway.proxy import Exchange, Gateway, Recent
from farthing.outbox import Intent, decode
from farthing.usage import Rejected
from farthing.wire import Answer, ask, route
from tests.held import ADA, NOW, SOON, USD, hard, stands

WHERE: Any = route("POST", "/model/global.anthropic.claude-sonnet-4-6/invoke")
BODY = json.dumps({"max_tokens": 100, "messages": [{"role": "user", "content": "x" * 200}]}).encode()
USAGE = {"input_tokens": 50, "output_tokens": 10}
ANSWERED = Answer(200, USAGE, "claude-sonnet-4-6", "msg_1", "req-1", final=True)


def opened(tmp_path, *budgets, name="one"):
    return open_budgets(Config(budgets=budgets), str(tmp_path / f"{name}.sqlite"))


@pytest.mark.parametrize("seed", range(20))
def test_answers_are_those_of_one_after_the_other(tmp_path, seed):
    rules = hard(usd=20), hard("agents", 6, each="key"), hard("calls", None, calls=25)
    draws = random.Random(seed)
    asked: list[Any] = []
    known: list[str] = []
    for number in range(60):
        if known and draws.random() < 0.5:  # some of them twice, and some that were denied
            posts, cost = draws.random() < 0.6, draws.choice([None, draws.randrange(USD)])
            asked.append(Settling(draws.choice(known), posts, cost, NOW + number))
        else:
            scope = ADA._replace(key=f"key-{draws.randrange(3)}")
            known.append(f"call-{draws.randrange(40)}")
            asked.append(Holding(known[-1], scope, draws.randrange(2 * USD), NOW + number, SOON))
    one, other = opened(tmp_path, *rules), opened(tmp_path, *rules, name="other")
    told = []
    for at in range(0, 60, 12):
        told += one.together(asked[at : at + 12])
    assert told == [answer for each in asked for answer in other.together([each])]
    assert stands(one) == stands(other)
    assert {type(each) for each in told} == {Held, Denied, tuple}


def test_a_transaction_that_fails_is_made_of_each_alone(tmp_path, monkeypatch):
    budgets = opened(tmp_path, hard(usd=3))
    whole = budgets._transaction
    failing = iter([True])

    def once_failing(**how):
        if next(failing, False):
            raise StoreError("busy")
        return whole(**how)

    budgets._look(NOW)
    monkeypatch.setattr(budgets, "_transaction", once_failing)
    told = budgets.together([Holding(f"c{n}", ADA, 2 * USD, NOW, SOON) for n in range(2)])
    assert [type(each) for each in told] == [Held, Denied]
    assert stands(budgets) == {"day": (0, 2)}


@pytest.fixture
def live(tmp_path):
    made = Live(default_book(), Outbox(tmp_path / "outbox"), opened(tmp_path, hard(usd=1)))
    yield made
    made.close()


def lines(live):
    live.outbox.sync()
    return [
        decode(line)
        for file in sorted(live.outbox.folder.glob("*.jsonl"))
        for line in file.read_bytes().splitlines()
    ]


def begun(together):
    return together.begin(Who(region="us-east-1"), WHERE, ask(WHERE, BODY), BODY)


def transactions(live, monkeypatch):
    """Counts those that write."""
    budgets, made = live.budgets, []
    whole = budgets._transaction

    def counted(**how):
        made.extend([] if how else [1])
        return whole(**how)

    monkeypatch.setattr(budgets, "_transaction", counted)
    return made


def test_calls_that_come_together_share_a_transaction(live, monkeypatch):
    async def run():
        together = Together(live)
        made = transactions(live, monkeypatch)
        calls = await asyncio.gather(*(begun(together) for _ in range(20)))
        assert all(isinstance(call, Call) for call in calls)
        assert len(made) == 1
        settled = await asyncio.gather(*(together.settle(call, ANSWERED) for call in calls))
        assert len(made) == 2
        assert {each.state for each in settled} == {State.POSTED}
        return sum(each.picos for each in settled)

    spent = asyncio.run(run())
    assert stands(live.budgets, live.clock_us()) == {"day": (spent / USD, 0)}
    assert len(lines(live)) == 40


def test_of_calls_that_come_together_as_many_pass_as_fit(tmp_path, live):
    async def run():
        return await asyncio.gather(*(begun(together) for _ in range(2_000)))

    together = Together(live)
    found = asyncio.run(run())
    passed = [each for each in found if isinstance(each, Call)]
    assert 0 < len(passed) < 2_000
    assert len(passed) == USD // (passed[0].ceiling.picos or 0)
    assert all(each.denied for each in found if isinstance(each, Refused))


def test_who_is_cut_off_before_its_grant_gives_it_back(live):
    async def run():
        together = Together(live)
        waiting = [asyncio.ensure_future(begun(together)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        found: list[Any] = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in found] == [Call, asyncio.CancelledError, Call]
        together.close()
        return found[0].ceiling.picos

    most = asyncio.run(run())
    assert stands(live.budgets, live.clock_us()) == {"day": (0, 2 * most / USD)}
    told = lines(live)
    assert sum(isinstance(each, Intent) for each in told) == 3
    assert [each.status for each in told if not isinstance(each, Intent)] == ["void"]


def test_what_ended_is_settled_though_nobody_waits(live):
    async def run():
        together = Together(live)
        call = await begun(together)
        waiting = asyncio.ensure_future(together.settle(call, ANSWERED))
        await asyncio.sleep(0)
        waiting.cancel()
        together.close()  # as at the gateway's end

    asyncio.run(run())
    assert [type(each).__name__ for each in lines(live)] == ["Intent", "Result"]
    assert stands(live.budgets, live.clock_us())["day"][1] == 0


def test_none_of_them_leaves_if_the_disk_refuses(live, monkeypatch):
    def refused(positions, **_how):
        futures = [asyncio.get_running_loop().create_future() for _ in positions]
        for future in futures:
            future.set_exception(OutboxError("no space left on device"))
        return futures

    monkeypatch.setattr(live.outbox, "syncing", refused)

    async def run():
        together = Together(live)
        calls = await asyncio.gather(*(begun(together) for _ in range(5)))
        return await asyncio.gather(*(together.durable(call) for call in calls))

    found = asyncio.run(run())
    assert {type(each) for each in found} == {Refused}
    assert stands(live.budgets, live.clock_us()) == {"day": (0, 0)}
    assert [each.status for each in lines(live) if not isinstance(each, Intent)] == ["void"] * 5


@pytest.mark.parametrize("kernel", [True, False])
def test_a_call_alone_is_on_disk_without_a_thread(live, monkeypatch, kernel):
    if not kernel:
        monkeypatch.setattr("farthing.gateway._outbox.syncs", lambda _loop: None)

    async def run():
        together = Together(live, lambda: True)
        return await together.durable(await begun(together))

    call = asyncio.run(run())
    assert live.outbox._synced >= call.position
    assert live.outbox._thread is None


def test_intents_are_on_their_way_to_the_disk_before_budgets_answer(live, monkeypatch):
    order: list[str] = []

    def noted(name, function):
        def noting(*args, **how):
            order.append(name)
            return function(*args, **how)

        return noting

    monkeypatch.setattr(live.outbox, "syncing", noted("sync", live.outbox.syncing))
    monkeypatch.setattr(live, "told", noted("budgets", live.told))

    async def run():
        await begun(Together(live))

    asyncio.run(run())
    assert order == ["sync", "budgets"]


def test_who_is_denied_has_its_intent_taken_back_and_then_writes_none(live):
    async def run():
        together = Together(live, lambda: True)
        last = found = await begun(together)
        while isinstance(found, Call):
            last, found = found, await begun(together)
        again = await begun(together)
        assert isinstance(again, Refused)
        settled = await together.settle(last, Answer(0), sent=False)
        assert settled.state is State.VOIDED
        return found, await begun(together)  # there is room for one again

    refused, passed = asyncio.run(run())
    assert (refused.denied.budget, type(passed)) == ("day", Call)
    told = lines(live)
    assert [each.status for each in told if not isinstance(each, Intent)] == ["void"]
    intents = [each.gateway_id for each in told if isinstance(each, Intent)]
    assert len(intents) == USD // passed.ceiling.picos + 1  # near its end the budget was asked first


def test_a_budget_that_was_spent_elsewhere_denies_what_is_written_already(tmp_path, live):
    async def run():
        together = Together(live, lambda: True)
        await together.settle(await begun(together), ANSWERED)
        together.catch_up()
        other = opened(tmp_path, hard(usd=1))
        now = live.clock_us()
        assert isinstance(other.hold("spender", ADA, USD * 998 // 1000, now, now + 10**9), Held)
        other.close()
        return await begun(together)

    found = asyncio.run(run())
    assert found.denied.budget == "day"
    told = lines(live)
    last = [each for each in told if isinstance(each, Intent)][-1]
    assert [(each.gateway_id, each.status) for each in told if not isinstance(each, Intent)][-1] == (
        last.gateway_id, "void",
    )  # fmt: skip
    assert len(told) == 4


def test_an_intent_that_is_no_record_fails_alone(live, monkeypatch):
    async def run():
        together = Together(live)
        good, bad = live.prepare(*asked), live.prepare(*asked)
        bad.call.intent = replace_struct(bad.call.intent, gateway_id="")
        return await asyncio.gather(together._in_turn(good), together._in_turn(bad), return_exceptions=True)

    asked = Who(region="us-east-1"), WHERE, ask(WHERE, BODY), BODY
    good, bad = asyncio.run(run())
    assert (type(good), type(bad)) == (Call, Rejected)


def test_budgets_hear_of_a_call_alone_after_its_answer(live, monkeypatch):
    async def run():
        together = Together(live, lambda: True)
        call = await together.durable(await begun(together))
        made = transactions(live, monkeypatch)
        settled = await together.settle(call, ANSWERED)  # type: ignore[arg-type]
        assert (settled.state, made) == (State.POSTED, [])
        assert stands(live.budgets, live.clock_us())["day"][0] == 0
        await asyncio.sleep(0.05)
        assert made == [1]
        return settled.picos

    spent = asyncio.run(run())
    assert stands(live.budgets, live.clock_us()) == {"day": (spent / USD, 0)}


def test_a_budget_without_room_for_another_such_call_hears_of_its_end_at_once(tmp_path):
    """Another process may be asked next."""
    first: Any = Live(default_book(), Outbox(tmp_path / "first"))
    call = first.begin(Who(region="us-east-1"), WHERE, ask(WHERE, BODY), BODY)
    most = Decimal(call.ceiling.picos * 3 // 2) / USD
    made: Any = Live(default_book(), Outbox(tmp_path / "outbox"), opened(tmp_path, hard(usd=most)))

    async def run():
        together = Together(made, lambda: True)
        await together.settle(await begun(together), ANSWERED)

    asyncio.run(run())
    assert stands(made.budgets, made.clock_us())["day"][1] == 0
    made.close()


def test_none_is_denied_for_what_a_call_that_has_ended_still_holds(tmp_path):
    first: Any = Live(default_book(), Outbox(tmp_path / "first"))
    call = first.begin(Who(region="us-east-1"), WHERE, ask(WHERE, BODY), BODY)
    enough = 20 * first.settle(call, ANSWERED).picos + call.ceiling.picos
    budgets = opened(tmp_path, hard(usd=str(Decimal(enough) / USD)))
    made: Any = Live(default_book(), Outbox(tmp_path / "outbox"), budgets)

    async def run():
        together = Together(made, lambda: True)
        for _ in range(20):
            call: Any = await begun(together)
            assert isinstance(call, Call)
            await together.durable(call)
            call.near = False  # else the budget hears of it at once
            await together.settle(call, ANSWERED)
        together.close()

    asyncio.run(run())
    made.close()


# --- who is cut off, and disks that refuse ---------------------------------------------------------------------------


def refusing(positions, **_how):
    """In the place of Outbox.syncing: the disk says no a little later."""
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in positions]
    for future in futures:
        loop.call_later(0.01, _refuse, future)
    return futures


def _refuse(future):
    if not future.done():
        future.set_exception(OutboxError("no space left on device"))


def test_a_sync_that_nobody_waits_for_fails_in_silence(tmp_path, monkeypatch):
    live: Any = Live(default_book(), Outbox(tmp_path / "outbox"), opened(tmp_path, hard(usd="0.01")))
    monkeypatch.setattr(live.outbox, "syncing", refusing)
    said: list[Any] = []

    async def run():
        asyncio.get_running_loop().set_exception_handler(lambda _, told: said.append(told))
        together = Together(live)
        found = await asyncio.gather(*(begun(together) for _ in range(20)))
        assert {type(each) for each in found} == {Call, Refused}
        for each in found:
            if isinstance(each, Call):
                await together.settle(each, Answer(0), sent=False)
        await asyncio.sleep(0.05)
        gc.collect()
        assert together._syncs == {}

    asyncio.run(run())
    gc.collect()
    assert said == []


def test_who_is_cut_off_in_the_very_turn_of_its_grant_gives_it_back(live):
    async def run():
        together = Together(live)
        waiting = [asyncio.ensure_future(begun(together)) for _ in range(2)]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(waiting[0].cancel)
        cut, other = cast("list[Any]", await asyncio.gather(*waiting, return_exceptions=True))
        assert (type(cut), type(other)) == (asyncio.CancelledError, Call)
        assert together._syncs.keys() == {other.id}
        return other.ceiling.picos

    most = asyncio.run(run())
    assert stands(live.budgets, live.clock_us()) == {"day": (0, most / USD)}
    assert sorted(type(each).__name__ for each in lines(live)) == ["Intent", "Intent", "Result"]


def test_who_is_cut_off_while_a_thread_asks_gives_it_back(live, monkeypatch):
    """As with PostgreSQL."""
    whole, begins = live.begin, threading.Event()

    def slow(*args, **more):
        begins.set()
        time.sleep(0.05)
        return whole(*args, **more)

    monkeypatch.setattr(live.budgets, "waits", True)
    monkeypatch.setattr(live.budgets, "_threads", ThreadPoolExecutor(1))
    monkeypatch.setattr(live, "begin", slow)

    async def run():
        together = Together(live)
        waiting = asyncio.ensure_future(begun(together))
        await asyncio.to_thread(begins.wait)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.gather(*together._beside)

    asyncio.run(run())
    assert stands(live.budgets, live.clock_us()) == {"day": (0, 0)}
    assert [type(each).__name__ for each in lines(live)] == ["Intent", "Result"]


def test_budgets_that_fail_take_back_what_was_written(live, monkeypatch):
    def fails(_asked):
        raise RuntimeError("no answer")

    async def run():
        together = Together(live)
        monkeypatch.setattr(live, "told", fails)
        found = await asyncio.gather(*(begun(together) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in found] == [RuntimeError] * 3
        assert together._syncs == {}

    asyncio.run(run())
    assert [each.status for each in lines(live) if not isinstance(each, Intent)] == ["void"] * 3


def test_a_budget_at_its_end_writes_nothing_for_those_it_denies_whoever_they_are(tmp_path):
    live: Any = Live(default_book(), Outbox(tmp_path / "outbox"), opened(tmp_path, hard(usd="0.001")))
    asked = ask(WHERE, BODY)

    async def run():
        together = Together(live, lambda: True)
        for number in range(50):
            told = asked._replace(metadata={"trace": str(number)})
            assert isinstance(await together.begin(Who(region="us-east-1"), WHERE, told, BODY), Refused)

    asyncio.run(run())
    assert [type(each).__name__ for each in lines(live)] == ["Intent", "Result"]


def test_a_call_that_passes_though_the_disk_refused_has_its_result(live, monkeypatch):
    live.on_full = "pass"
    monkeypatch.setattr(live.outbox, "syncing", refusing)

    async def run():
        together = Together(live)
        call: Any = await together.durable(await begun(together))
        assert not call.metered
        await together.settle(call, ANSWERED)

    asyncio.run(run())
    assert [type(each).__name__ for each in lines(live)] == ["Intent", "Result"]


def test_a_copy_that_the_disk_refuses_was_never_there(live, monkeypatch):
    monkeypatch.setattr(live.outbox, "syncing", refusing)

    async def run():
        made: Any = SimpleNamespace(live=live, together=Together(live), metrics=Metrics())

        async def send_on(x, *_):
            await Gateway._on_disk(made, x, x.call)

        made.send_on = send_on
        nobody: Any = None
        case: Any = SimpleNamespace(exchange=Exchange({}, nobody, nobody, WHERE, 0.0))
        copied: Any = SimpleNamespace(route=WHERE, asked=ask(WHERE, BODY), body=BODY)
        return await Shadows(made)._sent(case, copied, Who(region="us-east-1"), "fa-copy")

    said, heard = asyncio.run(run())
    assert (str(said).startswith("refused: "), heard) == (True, None)
    assert stands(live.budgets, live.clock_us()) == {"day": (0, 0)}
    assert [each.status for each in lines(live) if not isinstance(each, Intent)] == ["void"]


# --- the kernel's syncs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linux_uring", "linux_aio"])
def test_a_sync_that_is_done_at_once_is_told_when_its_caller_has_let_go(tmp_path, kind):
    lock, said = threading.Lock(), []

    def told(fault):
        assert lock.acquire(blocking=False)
        lock.release()
        said.append(fault)
        if len(said) == 3:
            all_said.set()

    async def run(file):
        try:
            made = Syncs(asyncio.get_running_loop(), kind)
        except OSError as error:
            pytest.skip(f"this machine allows no {kind}: {error}")
        for _ in range(3):
            file.write(b"x")
            file.flush()
            with lock:
                made.begin(file.fileno(), told)
                time.sleep(0.02)  # noqa: ASYNC251 - it is done: the next one's begin meets its answer
        await all_said.wait()

    all_said = asyncio.Event()
    with (tmp_path / "file").open("wb") as file:
        asyncio.run(asyncio.wait_for(run(file), 5))
    assert said == ["", "", ""]


def test_money_that_cannot_be_settled_is_settled_later(live, monkeypatch):
    async def run():
        together = Together(live)
        calls = await asyncio.gather(*(begun(together) for _ in range(3)))
        with monkeypatch.context() as patch:
            patch.setattr(live.budgets, "_transaction", _down)
            told = await asyncio.gather(*(together.settle(call, ANSWERED) for call in calls))
        assert {each.state for each in told} == {State.POSTED}
        assert all("not settled yet" in each.warnings[0].says for each in told)
        return (await begun(together)).ceiling.picos

    most = asyncio.run(run())
    spent, held = stands(live.budgets, live.clock_us())["day"]
    assert (spent > 0, held) == (True, most / USD)


def _down(**_how):
    raise StoreError(str(sqlite3.OperationalError("disk I/O error")))


# --- a call by its id, from the outbox ------------------------------------------------------------------------------


def test_what_another_process_is_told_of_a_call(live):
    def told(call, settled=None):
        return _told(Recent(call, "", settled), "book")

    def elsewhere(call):
        found: Any = written(live, call.id)
        return _told(found, "book")

    who, asked = Who(region="us-east-1"), ask(WHERE, BODY)
    call = live.begin(who, WHERE, asked, BODY)
    assert elsewhere(call) == told(call)
    settled = live.settle(call, ANSWERED)
    assert elsewhere(call) == told(call, settled)
    failed = live.begin(who, WHERE, asked, BODY)
    settled = live.settle(failed, Answer(429, error="throttled"))
    assert elsewhere(failed) == told(failed, settled)
    free = replace(live, budgets=None)  # for budgets refuse what has no price
    unknown = free.begin(who, WHERE, asked._replace(model="claude-none-1"), BODY)
    settled = free.settle(unknown, ANSWERED)
    assert elsewhere(unknown) == told(unknown, settled)


@pytest.mark.parametrize("call_id", ["fa-" + "0" * 24, "", "../..", 'fa-"', "fa-" + "0" * 25])
def test_who_asks_for_no_call_finds_none(live, call_id):
    live.begin(Who(region="us-east-1"), WHERE, ask(WHERE, BODY), BODY)
    assert written(live, call_id) is None
