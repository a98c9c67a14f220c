"""Budgets with many at once, with what people change, and with stores that fail: in SQLite and PostgreSQL alike."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farthing.config import Config
from farthing.gateway import _budget_store
from farthing.gateway.budgets import Budgets, Held, StoreError, default_url, open_budgets
from tests.held import ADA, DAY, HOUR, MINUTE, NOW, SECOND, SOON, USD, hard, holds, spends, stands

ROOT = Path(__file__).resolve().parent.parent

# --- many at once ----------------------------------------------------------------------------------------------------


def test_of_1000_calls_at_once_exactly_as_many_pass_as_fit(opened):
    budgets = opened(hard(usd=100), hard("agents", 1, each="key"))

    def asks(number):
        scope = ADA._replace(key=f"key-{number % 500}")
        return holds(budgets, 0.3, f"call-{number}", scope)

    with ThreadPoolExecutor(8) as threads:
        passed = list(threads.map(asks, range(1000)))
    assert sum(passed) == 333  # at 30 cents a call, of $100; no key asks for more than its own
    spent, held = stands(budgets)["day"]
    assert (spent, held) == (0, 99.9)


_PROCESS = """
import sys
from farthing.config import Budget, Config
from farthing.gateway.budgets import Held, Scope, open_budgets
store, name, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
budgets = open_budgets(Config(budgets=(Budget("day", 100, period="day", hold="hard"),)), store)
print("ready", flush=True)
sys.stdin.readline()
ids = [f"{name}-{n}" for n in range(250)]
passed = [call for call in ids if isinstance(budgets.hold(call, Scope(), 3 * 10**11, at, at + 10**9), Held)]
print(len(passed), flush=True)
sys.stdin.readline()
for call in passed:
    budgets.post(call, 10**11, at)
budgets.close()
"""


def test_of_1000_calls_of_four_processes_exactly_as_many_pass_as_fit(opened, store):
    budgets = opened(hard(usd=100))
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _PROCESS, store]
    processes = [
        subprocess.Popen(
            [*command, str(number), str(NOW)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            text=True,
        )
        for number in range(4)
    ]

    def each_says() -> list[str]:
        return [process.stdout.readline().strip() for process in processes if process.stdout]

    def tell_each() -> None:
        for process in processes:
            if process.stdin:
                process.stdin.write("\n")
                process.stdin.flush()

    try:
        assert each_says() == ["ready"] * 4
        tell_each()
        passed = each_says()
        assert sum(map(int, passed)) == 333
        assert stands(budgets) == {"day": (0, 99.9)}
        tell_each()
        assert [process.wait(60) for process in processes] == [0] * 4
        assert stands(budgets) == {"day": (33.3, 0)}
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_process_that_dies_with_its_call_leaves_a_hold_that_expires(opened, store):
    budgets = opened(hard())
    code = (
        "import os, sys\n"
        "from farthing.config import Budget, Config\n"
        "from farthing.gateway.budgets import Scope, open_budgets\n"
        "budgets = open_budgets(Config(budgets=(Budget('day', 10, period='day', hold='hard'),)), sys.argv[1])\n"
        "budgets.hold('a', Scope(), 4 * 10**12, int(sys.argv[2]), int(sys.argv[3]))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, store, str(NOW), str(SOON)], env=env, check=False)
    assert done.returncode == -9
    assert stands(budgets) == {"day": (0, 4)}
    assert budgets.expire(SOON + 1) == 1
    assert stands(budgets) == {"day": (4, 0)}


_WORKS = """
import os, sys
from farthing.config import Budget, Config
from farthing.gateway.budgets import Scope, open_budgets
both = (Budget("day", 10**6, period="day", hold="hard"), Budget("month", 10**6, hold="hard"))
budgets, at = open_budgets(Config(budgets=both), sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
for number in range(10**9):
    call = f"{os.getpid()}-{number}"
    budgets.hold(call, Scope(), 10**12, at, at + 1)
    (budgets.post, budgets.void, lambda *_: None)[number % 3](*((call, 10**11, at), (call, at), ())[number % 3])
"""


@pytest.mark.parametrize("after_ms", [1, 7, 60])
def test_a_process_killed_at_any_moment_leaves_whole_transactions(opened, store, after_ms):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", _WORKS, store, str(NOW)], stdout=subprocess.PIPE, env=env, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(after_ms / 1000)
        process.kill()
    budgets = opened(hard("day", 10**6), hard("month", 10**6, period="month"))
    with budgets._store.transaction() as work:
        open_calls = work.open()
    held = {row.budget: row.held for row in budgets.state(NOW)}
    assert held == {
        name: sum(each.amount for each in open_calls if each.budget == name) for name in ("day", "month")
    }
    assert held["day"] == held["month"]
    budgets.expire(NOW + 2)
    assert {row.held for row in budgets.state(NOW)} == {0}


def test_budgets_in_any_order_never_wait_for_each_other(opened):
    """Two calls that take the same windows, and expiries between them: a deadlock would raise or hang."""
    budgets = opened(*(hard(name, 10_000, period="month") for name in "cabd"))
    failed: list[Exception] = []

    def works(worker: int) -> None:
        draws = random.Random(worker)
        try:
            for number in range(40):
                name = f"{worker}-{number}"
                assert isinstance(budgets.hold(name, ADA, USD, NOW, NOW + draws.randrange(3)), Held)
                budgets.expire(NOW + 2)
                budgets.post(name, USD // 2, NOW)
        except Exception as error:  # noqa: BLE001 - of any kind
            failed.append(error)

    threads = [threading.Thread(target=works, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert stands(budgets) == dict.fromkeys("abcd", (120, 0))


def walk(budgets: Budgets, seed: int, steps: int, usd: int) -> int:
    """Calls that fail in every way, in any order, beside a plain account of what must be held and spent.

    Answers with how many did not fit.
    """
    draws = random.Random(seed)
    scopes = [ADA._replace(key=f"key-{number}") for number in range(5)]
    open_calls: dict[str, tuple[int, int, int]] = {}  # call -> (key, ceiling, until)
    lapsed: dict[str, tuple[int, int]] = {}
    spent, now, denied = [0] * 5, NOW, 0
    for number in range(steps):
        now += draws.randrange(SECOND)
        what, call = draws.random(), draws.choice(list(open_calls)) if open_calls else ""
        if what < 0.5 or not call:
            call, key, most = f"walk-{seed}-{number}", draws.randrange(5), draws.randrange(2 * USD)
            under_way = sum(other[1] for other in open_calls.values() if other[0] == key)
            until = now + draws.randrange(20 * SECOND)
            fits = spent[key] + under_way + most <= usd * USD
            denied += not fits
            answer = budgets.hold(call, scopes[key], most, now, until)
            assert isinstance(answer, Held) is fits
            if fits:
                open_calls[call] = (key, most, until)
        elif what < 0.65:
            key, most, _ = open_calls.pop(call)
            cost = draws.randrange(most // 20 + 1)
            budgets.post(call, cost, now)
            spent[key] += cost
        elif what < 0.9:
            budgets.void(call, now)
            open_calls.pop(call)
        elif what < 0.95:
            key, most, _ = open_calls[call]
            budgets.renew(call, now + MINUTE)
            open_calls[call] = (key, most, now + MINUTE)
        elif what < 0.99 or not lapsed:
            over = {name: each for name, each in open_calls.items() if each[2] < now}
            assert budgets.expire(now) == len(over)
            for name, (key, most, _) in over.items():
                del open_calls[name]
                spent[key] += most
                lapsed[name] = (key, most)
        else:
            call, (key, most) = lapsed.popitem()
            budgets.void(call, now)
            spent[key] -= most
    held = [sum(each[1] for each in open_calls.values() if each[0] == key) for key in range(5)]
    _check(budgets, spent, held)
    with budgets._store.transaction() as work:
        assert sum(each.amount for each in work.open()) == sum(held)
    budgets.expire(now + DAY)
    _check(budgets, [a + b for a, b in zip(spent, held, strict=True)], [0] * 5)
    return denied


def _check(budgets: Budgets, spent: list[int], held: list[int]) -> None:
    found = {row.value: (row.spent, row.held) for row in budgets.state(NOW)}
    for key in range(5):
        assert found.get(f"key-{key}", (0, 0)) == (spent[key], held[key])


def test_nothing_leaks_however_calls_fail(opened):
    assert walk(opened(hard(usd=30, each="key", period="month")), 1, 2_000, 30) > 50


@pytest.mark.fuzz
def test_nothing_leaks_in_100_000_random_failures(opened):
    budgets = opened(hard(usd=3_000, each="key", period="month"))
    walk(budgets, 2, 30_000 if budgets.waits else 300_000, 3_000)


# --- raised, reset, audited ------------------------------------------------------------------------------------------


def test_a_raise_holds_until_its_end_and_is_seen_by_others(opened):
    budgets, others = opened(hard("agents", 10, each="key")), opened(hard("agents", 10, each="key"))
    assert not holds(others, 12)
    budgets.raise_limit("agents/ada", 15 * USD, NOW + HOUR, "bea", "the launch", NOW)
    others._looked -= 2  # a second has gone by
    assert holds(others, 12, "a")
    assert not holds(budgets, 12, scope=ADA._replace(key="ben"))
    assert [(row.limit, row.raised_until_us) for row in budgets.state(NOW)] == [(15 * USD, NOW + HOUR)]
    others.void("a", NOW)
    assert not holds(others, 12, at=NOW + HOUR)
    assert [tuple(change) for change in budgets.audit()] == [
        (NOW, "bea", "raise", "agents", "ada", 15 * USD, NOW + HOUR, "the launch")
    ]


def test_a_raise_of_all_values_and_the_highest_of_several(opened):
    budgets = opened(hard("agents", 10, each="key"))
    budgets.raise_limit("agents", 20 * USD, NOW + HOUR, "bea", "the launch", NOW)
    budgets.raise_limit("agents/ada", 12 * USD, NOW + HOUR, "bea", "less", NOW)
    assert holds(budgets, 20)
    assert holds(budgets, 20, scope=ADA._replace(key="ben"))


def test_marks_are_told_anew_of_a_raised_limit(opened):
    budgets = opened(hard())
    assert spends(budgets, 8) == [75]
    budgets.raise_limit("day", 20 * USD, NOW + HOUR, "bea", "the launch", NOW)
    assert spends(budgets, 1) == []
    assert spends(budgets, 7) == [75]


@pytest.mark.parametrize(
    ("key", "usd", "until", "by", "says"),
    [
        ("nowhere", 20, HOUR, "bea", "no budget 'nowhere'; there are agents, day"),
        ("day", 10, HOUR, "bea", r"day is \$10.00 a day already: raise it to more than that"),
        ("day", 20, 0, "bea", "--until is over already"),
        ("day", 20, HOUR, " ", "say by whom and for what reason"),
    ],
)
def test_a_raise_that_cannot_be_is_one_line(opened, key, usd, until, by, says):
    budgets = opened(hard(), hard("agents", each="key"))
    with pytest.raises(ValueError, match=says):
        budgets.raise_limit(key, usd * USD, NOW + until, by, "because", NOW)
    assert budgets.audit() == []


def test_a_reset_leaves_what_is_held_and_an_entry_in_the_audit(opened):
    budgets = opened(hard())
    spends(budgets, 8)
    holds(budgets, 2, "a")
    (change,) = budgets.reset("day", "bea", "a test gone wild", NOW)
    assert (change.action, change.amount) == ("reset", 8 * USD)
    assert stands(budgets) == {"day": (0, 2)}
    budgets.post("a", 1 * USD, NOW)
    assert stands(budgets) == {"day": (1, 0)}
    assert budgets.audit() == [change]


def test_what_the_ledger_knows_more_is_taken_over(opened):
    budgets = opened(hard())
    spends(budgets, 2)
    assert budgets.floor("day", "", 5 * USD, "sync", NOW).reason == (
        "the ledger has $5.00, of which $2.00 was known"
    )
    assert budgets.floor("day", "", 3 * USD, "sync", NOW) is None
    assert stands(budgets) == {"day": (5, 0)}


def test_the_audit_is_only_added_to(opened, store):
    budgets = opened(hard())
    budgets.raise_limit("day", 20 * USD, NOW + HOUR, "bea", "the launch", NOW)
    for sql in ("UPDATE budget_audit SET who = 'eve'", "DELETE FROM budget_audit"):
        with (
            pytest.raises(StoreError, match="the audit is only added to"),
            budgets._store.transaction() as work,
        ):
            work._do(sql)
    assert [change.by for change in budgets.audit()] == ["bea"]


# --- the store -------------------------------------------------------------------------------------------------------


def test_what_is_held_outlives_the_process(opened):
    first = opened(hard())
    holds(first, 4, "a")
    assert stands(opened(hard())) == {"day": (0, 4)}


def test_a_budget_that_left_the_file_still_settles(opened):
    holds(opened(hard("old"), hard("new")), 4, "a")
    budgets = opened(hard("new"))
    budgets.post("a", 1 * USD, NOW)
    assert stands(budgets) == {"new": (1, 0)}
    assert stands(opened(hard("old"))) == {"old": (1, 0)}


def test_a_store_of_a_newer_version_is_left_alone(opened, store):
    with opened(hard())._store.transaction() as work:
        work._do("INSERT INTO budget_version (version) VALUES (99)")
    with pytest.raises(StoreError, match="is of version 99; this farthing writes 1: update it"):
        opened(hard())


def test_in_an_event_loop_a_store_that_waits_is_asked_from_a_thread(opened):
    budgets = opened(hard())
    asked_in: list[int] = []

    def asks() -> object:
        asked_in.append(threading.get_ident())
        return budgets.hold("a", ADA, USD, NOW, SOON)

    assert isinstance(asyncio.run(budgets.run(asks)), Held)
    assert (asked_in[0] != threading.get_ident()) is budgets.waits


def test_a_connection_that_breaks_is_made_anew(postgres):
    """The server ends every connection, as it does when it starts again."""
    import psycopg

    name = "broken"
    with psycopg.connect(postgres, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
        address = postgres.replace("/postgres?", f"/{name}?")
        budgets = open_budgets(Config(budgets=(hard(),)), address)
        assert holds(budgets, 4, "a")
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
    assert "not settled yet" in budgets.post("a", 3 * USD, NOW)[0].says
    assert holds(budgets, 1, "b")
    assert stands(budgets) == {"day": (3, 1)}
    budgets.close()


@pytest.fixture
def blocked(tmp_path, monkeypatch) -> Iterator[object]:
    """A SQLite store that another program keeps to itself, as long as `blocked.begin` was called."""
    monkeypatch.setattr(_budget_store, "BUSY_S", 0.01)
    path = tmp_path / "blocked.sqlite"
    other = sqlite3.connect(path, isolation_level=None)
    yield path, lambda: other.execute("BEGIN IMMEDIATE"), lambda: other.execute("ROLLBACK")
    other.close()


@pytest.mark.parametrize("when_down", ["refuse", "pass"])
def test_while_the_store_is_out_of_reach_calls_are_refused_or_passed_by_choice(blocked, when_down):
    path, block, free = blocked
    budgets = open_budgets(Config(budgets=(hard(),)), str(path), when_down=when_down)
    holds(budgets, 4, "a")
    block()
    answer = budgets.hold("b", ADA, 4 * USD, NOW, SOON)
    if isinstance(answer, Held):
        assert when_down == "pass"
        assert answer.holds == ()
        assert "not held against any budget" in answer.warnings[0].says
    else:
        assert (answer.budget, answer.reason) == ("", "the budget store is out of reach; try again")
    assert "database is locked" in budgets.post("a", 3 * USD, NOW)[0].says
    assert not budgets.renew("a", SOON)
    free()
    assert holds(budgets, 1, "c")  # and what could not be posted is
    assert stands(budgets) == {"day": (3, 1)}
    budgets.close()


def test_a_store_that_takes_long_to_fail_is_left_alone_for_a_while(blocked, monkeypatch):
    monkeypatch.setattr(_budget_store, "BUSY_S", 0.2)
    path, block, free = blocked
    budgets = open_budgets(Config(budgets=(hard(),)), str(path))
    holds(budgets, 4, "a")
    block()
    assert not holds(budgets, 1)
    start = time.monotonic()
    assert not any(holds(budgets, 1) for _ in range(50))
    budgets.post("a", 3 * USD, NOW)
    assert time.monotonic() - start < 0.2
    free()
    budgets._again = 0  # a second has gone by
    assert holds(budgets, 1)
    assert stands(budgets) == {"day": (3, 1)}
    budgets.close()


def test_what_is_no_store_is_left_alone(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("not a database at all" * 100)
    with pytest.raises(StoreError, match=r"notes.txt: no budget store can be opened there"):
        open_budgets(Config(), str(file))
    assert file.read_text().startswith("not a database")
    with pytest.raises(StoreError, match="the PostgreSQL budget store"):
        open_budgets(Config(), f"postgresql://user:secret@/none?host={tmp_path}")
    with pytest.raises(ValueError, match="write refuse or pass"):
        open_budgets(Config(), str(tmp_path / "x"), when_down="maybe")


def test_an_address_with_a_password_is_never_told(tmp_path):
    with pytest.raises(StoreError) as told:
        open_budgets(Config(), f"postgresql://user:secret@/none?host={tmp_path}")
    assert "secret" not in str(told.value)


def test_the_filenames_the_store(tmp_path, monkeypatch):
    assert default_url(Config(budget_store="postgresql:///costs")) == "postgresql:///costs"
    assert default_url(Config()).endswith("budgets.sqlite")


@pytest.mark.bench
def test_a_hold_and_a_post_take_microseconds(tmp_path):
    budgets = open_budgets(Config(budgets=(hard(usd=10**6),)), str(tmp_path / "b.sqlite"))
    took = []
    for number in range(5_000):
        start = time.perf_counter_ns()
        budgets.hold(f"call-{number}", ADA, USD, NOW, SOON)
        budgets.post(f"call-{number}", USD, NOW)
        took.append(time.perf_counter_ns() - start)
    assert sorted(took)[2_500] < 80_000
    budgets.close()


def test_many_may_open_a_new_file_at_once(tmp_path):
    """As a gateway's workers do."""
    for number in range(10):
        together = threading.Barrier(6)

        def opened(together=together, file=tmp_path / f"{number}.sqlite"):
            together.wait()
            _budget_store.Sqlite(file).close()

        with ThreadPoolExecutor(6) as threads:
            for each in [threads.submit(opened) for _ in range(6)]:
                each.result()
