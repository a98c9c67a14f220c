"""What teams share of a closed month: pools of calls, in the entries and in the journal, as allocate shares them."""

import random
from collections import defaultdict
from dataclasses import replace
from datetime import date

import pytest

from farthing.allocate import allocate
from farthing.close import audit
from farthing.config import Config, Pool
from farthing.exporters.journal import journal
from farthing.ledger import Ledger, closings
from tests import bills
from tests.closing import (
    ASKED,
    JOURNAL,
    OCTOBER,
    TEAMS,
    A,
    B,
    billed,
    booked,
    by,
    call,
    delivered,
    listed,
    shut,
)

FEW = 10_000  # picodollars that whole parts may be off by


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger")


def asked(*pools):
    return replace(ASKED, config=Config(teams=TEAMS, pools=pools, journal=JOURNAL))


def test_calls_of_a_pool_are_shared_by_its_rule_with_a_bill_and_without(ledger, tmp_path):
    ledger.append(OCTOBER)
    nobodys = Pool("nobody's", where=("team=unassigned",), split="fixed", shares={"search": 3, "chat": 1})
    shared = listed(OCTOBER[1])
    wanted = {
        "search": listed(OCTOBER[0], OCTOBER[3]) + shared * 3 // 4,
        "chat": listed(OCTOBER[2]) + shared // 4,
    }
    shut(ledger, question=asked(nobodys))
    found = by(ledger, "team")
    assert found.keys() == wanted.keys()
    assert all(abs(found[team] - picos) <= FEW for team, picos in wanted.items())
    shut(
        ledger,
        again=True,
        reason="its bill",
        question=asked(nobodys),
        given=delivered(tmp_path, *billed(*OCTOBER)),
    )
    assert all(abs(by(ledger, "team")[team] - picos) <= FEW for team, picos in wanted.items())
    assert booked(ledger) == listed(*OCTOBER)
    lines = journal(closings(ledger), "2026-10", asked().config)
    assert {line.team for line in lines if line.kind == "usage"} == {"search", "chat"} | {"unassigned"} - {
        "unassigned"
    }


def test_a_shared_prefix_is_paid_for_by_who_reads_it(ledger):
    write = call("w", "2026-10-05", (0, 0, 0, 8_000, 0), team="search")
    reads = [
        call("r1", "2026-10-05", (0, 0, 6_000, 0, 0), team="search"),
        call("r2", "2026-10-05", (0, 0, 2_000, 0, 0), account=A),
        call("other day", "2026-10-06", (0, 0, 9_000, 0, 0), account=A),
    ]
    ledger.append([write, *reads])
    shut(ledger, question=asked(Pool("handbook", where=(f"account={A}",), split="reads")))
    assert by(ledger, "team") == {
        "search": listed(write) * 3 // 4 + listed(reads[0]),
        "unassigned": listed(write) // 4 + listed(*reads[1:]),
    }


def test_pools_made_up_anew_leave_closed_money_where_it_is(ledger):
    ledger.append(OCTOBER)
    shut(ledger, question=asked())
    before = by(ledger, "team")
    even = Pool("even", where=("team=*",), split="even")
    assert audit(ledger, "2026-10", asked(even)).comes_out
    ledger.append([call("late", "2026-10-20", account=B)])
    shut(ledger, "2026-11", question=asked(even), accrue=True)
    after = by(ledger, "team")
    assert sum(after.values()) == listed(*OCTOBER, call("late", "2026-10-20", account=B))
    assert all(after[team] >= picos for team, picos in before.items())


@pytest.mark.parametrize("seed", range(6))
def test_teams_bear_what_allocate_says(seed, ledger, tmp_path):
    """Random calls and pools: but for what nobody here used, which is on no bill here, the two agree."""
    rng = random.Random(seed)
    calls = [
        call(f"c{i}", f"2026-10-{rng.randrange(1, 6):02}", (*(rng.randrange(5_000) for _ in range(4)), 0),
             account=rng.choice([A, B]), team=rng.choice(["", "search"]))
        for i in range(40)
    ]  # fmt: skip
    ledger.append(calls)
    rules = ("proportion", "even", "fixed", "reads")
    pools = []
    for i in range(rng.randrange(1, 4)):
        split = rng.choice(rules)
        where = rng.choice(
            [(f"account={A}",), ("team=unassigned",), (f"account={B}", "team!=search"), ("tag:team=*",)]
        )
        shares = {"search": rng.randrange(1, 9), "chat": 2} if split == "fixed" else {}
        pools.append(Pool(f"p{i}", where=where, split=split, shares=shares))
    pools.append(Pool("tax", kinds=("tax",), split=rng.choice(["even", "proportion"])))
    lines = [*billed(*calls, share="0.9"), bills.apart("Tax", "7", "2026-10-31")]
    given = delivered(tmp_path, *lines)
    question = asked(*pools)
    shut(ledger, question=question, given=given, allow_unexplained=True)
    month = replace(question, since=date(2026, 10, 1), until=date(2026, 10, 31))
    wanted: dict[str, int] = defaultdict(int)
    for share in allocate(ledger, month, given["2026-10"]).shares:
        wanted[share.team] += share.money.picos
    found = by(ledger, "team")
    assert found.keys() == {team for team, picos in wanted.items() if abs(picos) > FEW}
    assert all(abs(picos - wanted[team]) <= FEW for team, picos in found.items())
    assert sum(found.values()) == sum(wanted.values())
