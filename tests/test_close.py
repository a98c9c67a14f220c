"""Closing: a month is frozen with its proof, and what is learnt later is booked, never written over."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest

from farthing.book import PRICES, Book
from farthing.cells import Question
from farthing.close import Asked, Refused, audit, bookings, open_corrections, period_of, standing
from farthing.config import Config, Pool, Team
from farthing.exporters.journal import journal
from farthing.ledger import Ledger, arrow, closings, compact, forget, in_full, retain, verify
from farthing.ledger._tables import CLOSINGS
from farthing.usage import EPOCH
from tests import bills
from tests.closing import (
    ASKED,
    CENT,
    CONFIG,
    DOLLAR,
    NOVEMBER,
    OCTOBER,
    SONNET,
    TEAMS,
    UNKNOWN,
    A,
    B,
    billed,
    booked,
    by,
    call,
    delivered,
    listed,
    shut,
)  # fmt: skip

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def bill(tmp_path):
    return partial(delivered, tmp_path)


# --- closing -------------------------------------------------------------------------------------------------------


def test_a_month_without_a_bill_is_booked_as_it_is_computed(ledger):
    ledger.append([*OCTOBER, call("other", "2026-11-01")])
    made = shut(ledger, by="Ada", note="first")
    assert (made.id, made.said["by"], made.said["note"]) == ("2026-10.1", "Ada", "first")
    assert booked(ledger) == listed(*OCTOBER)
    assert by(ledger, "team") == {
        "search": listed(OCTOBER[0], OCTOBER[3]), "unassigned": listed(OCTOBER[1]), "chat": listed(OCTOBER[2])
    }  # fmt: skip
    kept = in_full(ledger, "2026-10.1")
    assert sorted(kept.lines) == sorted(made.lines)
    assert made == kept._replace(said=made.said, lines=made.lines)


def test_a_month_with_a_bill_is_booked_as_it_was_billed(ledger, bill):
    ledger.append(OCTOBER)
    tax, credit = bills.apart("Tax", "12.5", "2026-10-31"), bills.apart("Credit", "-0.01", "2026-10-05")
    shut(ledger, given=bill(*billed(*OCTOBER, share="0.9"), tax, credit))
    assert by(ledger, "kind") == {
        "usage": listed(*OCTOBER) * 9 // 10, "tax": 12_500_000_000_000, "credit": -CENT
    }  # fmt: skip
    assert by(ledger, "invoice") == {"EUINV26-1": booked(ledger)}
    assert by(ledger, "team")["chat"] == listed(OCTOBER[2]) * 9 // 10


def test_what_nobody_here_used_is_of_the_team_that_claims_the_account_or_of_none(ledger, bill):
    ledger.append(OCTOBER)
    more = [
        call("5", "2026-10-30", account=B),
        call("6", "2026-10-04", account=UNKNOWN),
        call("7", "2026-10-01"),
    ]
    shut(ledger, given=bill(*billed(*OCTOBER, *more)), allow_unexplained=True)
    teams = by(ledger, "team")
    assert teams["search"] == listed(OCTOBER[0], OCTOBER[3])  # beside an unseen call of the same place
    assert teams["chat"] == listed(OCTOBER[2], more[0])
    assert teams["unassigned"] == listed(OCTOBER[1], more[1], more[2])


def test_a_pool_shares_the_tax_among_teams(ledger, bill):
    ledger.append(OCTOBER)
    config = Config(
        teams=TEAMS, pools=(Pool("tax", kinds=("tax",)), Pool("rest", kinds=("credit",), split="even"))
    )
    tax, credit = bills.apart("Tax", "10", "2026-10-31"), bills.apart("Credit", "-1", "2026-10-05")
    shut(ledger, given=bill(*billed(*OCTOBER), tax, credit), question=replace(ASKED, config=config))
    used = {"search": listed(OCTOBER[0], OCTOBER[3]), "chat": listed(OCTOBER[2])}
    teams = by(ledger, "team")
    for team, picos in used.items():
        assert abs(teams[team] - picos - 10 * DOLLAR * picos // sum(used.values()) + DOLLAR // 2) <= 1
    assert teams["unassigned"] == listed(OCTOBER[1])
    assert booked(ledger) == listed(*OCTOBER) + 9 * DOLLAR


def test_what_aws_does_not_bill_is_booked_beside_its_bill(ledger, bill):
    direct = call("d", "2026-10-09", platform="anthropic", account="")
    ledger.append([*OCTOBER, direct])
    shut(ledger, given=bill(*billed(*OCTOBER)))
    assert by(ledger, "platform") == {"bedrock": listed(*OCTOBER), "anthropic": listed(direct)}


@pytest.mark.parametrize(
    ("asked", "now", "says"),
    [
        ({}, datetime(2026, 10, 31, 23, 59, tzinfo=UTC), "2026-10 is not over before 2026-11-01 UTC"),
        ({"again": True, "reason": "x"}, NOVEMBER, "was never closed"),
    ],
)
def test_refused(ledger, asked, now, says):
    ledger.append(OCTOBER)
    with pytest.raises(Refused, match=says):
        shut(ledger, now=now, **asked)
    assert closings(ledger) == []


def test_nothing_known_is_refused(ledger, bill):
    with pytest.raises(Refused, match="no usage in the ledger"):
        shut(ledger)
    ledger.append(OCTOBER)
    empty = {"2026-10": bill(*billed(call("n", "2026-11-02")))["2026-10"]}
    with pytest.raises(Refused, match="the bill has nothing of 2026-10"):
        shut(ledger, given=empty)
    shut(ledger, given=empty, accrue=True)
    assert by(ledger, "what") == {"accrual": listed(*OCTOBER)}


def test_too_much_unexplained_is_refused(ledger, bill):
    ledger.append(OCTOBER)
    given = bill(*billed(*OCTOBER, call("5", "2026-10-01", (0, 900_001, 0, 0, 0))))
    with pytest.raises(Refused, match=r"\$13.50 is unexplained"):
        shut(ledger, given=given)
    made = shut(ledger, given=given, allow_unexplained=True)
    assert made.said["months"]["2026-10"]["bill"]["unexplained_usd"] == "13.500015"


def test_closed_twice_is_closed_once(ledger):
    ledger.append(OCTOBER)
    shut(ledger, by="Ada")
    with pytest.raises(Refused, match=r"closed already: 2026-10.1, 2026-11-03 09:00 UTC, by Ada"):
        shut(ledger)
    assert len(closings(ledger)) == 1


def test_closed_again_is_another_version_beside_the_old_one(ledger):
    ledger.append(OCTOBER)
    first = shut(ledger)
    ledger.append([late := call("late", "2026-10-20")])
    with pytest.raises(Refused, match="say why with --reason"):
        shut(ledger, again=True)
    second = shut(ledger, again=True, reason="a log was missing")
    assert [it.id for it in closings(ledger)] == ["2026-10.1", "2026-10.2"]
    assert sorted(in_full(ledger, "2026-10.1").lines) == sorted(first.lines)
    assert booked(ledger, "2026-10") == listed(*OCTOBER, late)
    third = shut(ledger, again=True, reason="once more")
    assert booked(ledger, "2026-10") == listed(*OCTOBER, late)
    assert {period_of(name) for name in standing(bookings([first, second, third]), "2026-10")} == {"2026-10"}


def test_closed_again_without_its_bills_it_keeps_those_it_was_closed_on(ledger, bill):
    ledger.append([*OCTOBER, november := call("n", "2026-11-02")])
    shut(ledger)
    october, own = (
        bill(*billed(*OCTOBER, share="0.5")),
        bill(*billed(november, share="0.25"), month="2026-11"),
    )
    december = datetime(2026, 12, 4, tzinfo=UTC)
    shut(ledger, "2026-11", october | own, december)
    held = listed(*OCTOBER) // 2, listed(november) // 4
    assert (booked(ledger, "2026-10"), booked(ledger, "2026-11")) == held
    shut(ledger, "2026-11", now=december, again=True, reason="a note was missing")
    assert (booked(ledger, "2026-10"), booked(ledger, "2026-11")) == held
    assert audit(ledger, "2026-10", ASKED, october["2026-10"]).comes_out
    assert audit(ledger, "2026-11", ASKED, own["2026-11"]).comes_out


# --- accruals ------------------------------------------------------------------------------------------------------


def test_days_without_a_bill_are_accrued_and_taken_back_when_it_comes(ledger, bill):
    late = call("n", "2026-11-05")
    begun = [*OCTOBER[:2], call("b", "2026-10-02", account=B)]
    ledger.append([*begun, *OCTOBER[2:], late])
    early = bill(*billed(*begun), invoice="")
    shut(ledger, given=early, accrue=True)
    assert by(ledger, "what") == {"actual": listed(*begun), "accrual": listed(*OCTOBER[2:])}
    whole = bill(*billed(*begun, *OCTOBER[2:], share="0.5"))
    total = listed(*begun, *OCTOBER[2:]) // 2
    november = bill(*billed(late), month="2026-11")
    shut(ledger, "2026-11", {**whole, **november}, now=datetime(2026, 12, 4, tzinfo=UTC))
    assert by(ledger, "what") == {
        "actual": listed(*begun),
        "accrual": listed(*OCTOBER[2:]),
        "reversal": -listed(*OCTOBER[2:]),
        "correction": total - listed(*begun),
    }
    assert booked(ledger, "2026-10") == total
    assert by(ledger, "team")["chat"] == listed(begun[2], OCTOBER[2]) // 2
    assert audit(ledger, "2026-10", ASKED, whole["2026-10"]).comes_out


def test_a_whole_month_is_accrued_where_there_is_no_bill(ledger, bill):
    ledger.append(OCTOBER)
    shut(ledger, accrue=True, now=datetime(2026, 10, 31, tzinfo=UTC))
    ledger.append([late := call("5", "2026-10-31"), after := call("6", "2026-11-01")])
    shut(ledger, "2026-11", accrue=True)  # no bill yet: the accrual grows
    assert booked(ledger, "2026-10") == listed(*OCTOBER, late)
    assert sum(
        it.picos for it in standing(bookings(closings(ledger)), "2026-10").values() if it.what == "accrual"
    )
    given = bill(*billed(*OCTOBER, late, share="0.9"))
    ledger.append([december := call("7", "2026-12-01")])
    shut(ledger, "2026-12", given, now=datetime(2027, 1, 4, tzinfo=UTC))
    assert {it.what for it in standing(bookings(closings(ledger)), "2026-10").values()} == {"actual"}
    assert booked(ledger, "2026-10") == listed(*OCTOBER, late) * 9 // 10
    assert booked(ledger) == booked(ledger, "2026-10") + listed(after, december)


# --- what is learnt later ------------------------------------------------------------------------------------------


def test_usage_that_comes_after_the_close_is_an_entry_of_the_open_month(ledger):
    ledger.append([*OCTOBER, call("told", "2026-10-07", (10, 10, 0, 0, 0), source="claude_code")])
    shut(ledger)
    frozen = in_full(ledger, "2026-10.1")
    before = booked(ledger, "2026-10")
    better = call("told", "2026-10-07", (10, 5_000, 0, 0, 0))
    ledger.append([late := call("late", "2026-10-20", account=B), better, call("n", "2026-11-02")])
    found = audit(ledger, "2026-10", ASKED)
    assert not found.comes_out
    assert {part.name for part in found.parts if part.verdict == "no"} == {"usage", "tokens", "list cost"}
    moved = [(it.day, it.account, it.model, it.tokens, it.picos) for it in found.changes]
    assert moved == [
        ("2026-10-07", A, SONNET, 4_990, 4_990 * 15 * 10**6), ("2026-10-20", B, SONNET, 3_000, listed(late)),
    ]  # fmt: skip
    opened, corrections, skipped = open_corrections(ledger, ASKED, {}, Asked())
    assert (opened, [it.picos for it in corrections], skipped) == (
        "2026-11",
        [4_990 * 15 * 10**6 + listed(late)],
        [],
    )
    assert "+1 calls, +7,990 tokens" in corrections[0].reason
    assert booked(ledger, "2026-10") == before
    shut(ledger, "2026-11", now=datetime(2026, 12, 2, tzinfo=UTC))
    assert in_full(ledger, "2026-10.1") == frozen
    assert booked(ledger, "2026-10") == before + corrections[0].picos
    found = audit(ledger, "2026-10", ASKED)
    assert found.comes_out
    assert [(name, it.what) for name, it in found.later] == [("2026-11.1/2", "correction")]
    assert open_corrections(ledger, ASKED, {}, Asked())[1] == []


def test_a_month_with_later_entries_is_not_closed_again(ledger):
    ledger.append(OCTOBER)
    shut(ledger)
    ledger.append([call("late", "2026-10-20"), call("n", "2026-11-02")])
    shut(ledger, "2026-11", now=datetime(2026, 12, 2, tzinfo=UTC))
    with pytest.raises(Refused, match=r"2026-10 has entries in 2026-11 \(2026-11.1\)"):
        shut(ledger, again=True, reason="no")
    shut(ledger, "2026-11", now=datetime(2026, 12, 2, tzinfo=UTC), again=True, reason="yes")
    assert booked(ledger) == listed(*OCTOBER, call("late", "2026-10-20"), call("n", "2026-11-02"))


def test_logs_found_after_a_bill_move_money_between_teams_and_add_none(ledger, bill):
    hidden = call("h", "2026-10-09", account=UNKNOWN, team="search")
    ledger.append(OCTOBER)
    shut(ledger, given=bill(*billed(*OCTOBER, hidden)))
    total, teams = booked(ledger, "2026-10"), by(ledger, "team")
    ledger.append([hidden, call("n", "2026-11-02")])
    shut(ledger, "2026-11", now=datetime(2026, 12, 2, tzinfo=UTC))
    assert booked(ledger, "2026-10") == total
    after = by(ledger, "team")
    assert after["search"] - teams["search"] == listed(hidden) == teams["unassigned"] - after["unassigned"]


def test_another_delivery_of_the_bill_is_a_correction(ledger, bill):
    ledger.append([*OCTOBER, call("n", "2026-11-02")])
    first = bill(*billed(*OCTOBER))
    shut(ledger, given=first)
    assert audit(ledger, "2026-10", ASKED, first["2026-10"]).comes_out
    second = bill(*billed(*OCTOBER), bills.apart("Credit", "-3", "2026-10-05"))
    found = audit(ledger, "2026-10", ASKED, second["2026-10"])
    assert {part.name for part in found.parts if part.verdict == "no"} == {"statement", "apart"}
    shut(ledger, "2026-11", second, now=datetime(2026, 12, 2, tzinfo=UTC))
    (made,) = [
        it for it in bookings(closings(ledger)).values() if it.of == "2026-10" and it.what == "correction"
    ]
    assert (made.picos, made.reason) == (-3 * DOLLAR, "another delivery of the bill")


def test_teams_made_up_anew_leave_closed_months_as_they_are(ledger):
    ledger.append(OCTOBER)
    shut(ledger)
    others = replace(ASKED, config=Config(teams={"all": Team(accounts=("*",))}))
    assert open_corrections(ledger, others, {}, Asked())[1] == []
    found = audit(ledger, "2026-10", others)
    assert found.comes_out
    assert "stays as it was closed" in next(part.note for part in found.parts if part.name == "teams")
    ledger.append([late := call("late", "2026-10-20", team="search")])
    (made,) = open_corrections(ledger, others, {}, Asked())[1]
    assert made.picos == listed(late)
    assert {line.team for line in made.entries} == {"all"}
    ledger.append([november := call("n", "2026-11-02")])
    shut(ledger, "2026-11", now=datetime(2026, 12, 2, tzinfo=UTC), question=others)
    assert open_corrections(ledger, others, {}, Asked())[1] == []
    teams = by(ledger, "team")
    assert (teams["all"], teams["chat"]) == (listed(late), listed(OCTOBER[2]))
    assert booked(ledger) == listed(*OCTOBER, late, november)


def test_a_rate_that_the_book_has_otherwise_since_is_named(ledger, tmp_path):
    ledger.append(OCTOBER)
    shut(ledger)
    folder = shutil.copytree(PRICES, tmp_path / "prices")
    path = next(path for path in folder.glob("*.toml") if f"[{SONNET}]" in path.read_text())
    text = path.read_text()
    start = text.index("from = 2026-03-13", text.index(f"[{SONNET}]"))
    path.write_text(text[:start] + text[start:].replace("output = 15", "output = 16", 1))
    other = replace(ASKED, book=Book.load(folder))
    assert other.book.digest != ASKED.book.digest
    found = audit(ledger, "2026-10", other)
    assert {part.name: part.verdict for part in found.parts if part.verdict == "no"} == {"book": "no"}
    output = sum(usage.parts[0][1][1] for usage in OCTOBER)
    assert [(it.meter, it.closed, it.now, it.picos) for it in found.rates] == [
        ("output", 15_000_000, 16_000_000, output * 10**6)
    ]
    (made,) = open_corrections(ledger, other, {}, Asked())[1]
    assert made.picos == output * 10**6
    assert made.reason == f"price book {ASKED.book.digest} became {other.book.digest}"


def test_a_book_with_another_model_more_changes_nothing(ledger, tmp_path):
    ledger.append(OCTOBER)
    shut(ledger)
    folder = shutil.copytree(PRICES, tmp_path / "prices")
    with (folder / "_book.toml").open("a") as file:
        file.write("\n# another edition\n")
    other = replace(ASKED, book=Book.load(folder))
    assert other.book.digest != ASKED.book.digest
    assert audit(ledger, "2026-10", other).comes_out
    assert open_corrections(ledger, other, {}, Asked())[1] == []


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.fuzz) for seed in range(1, 20))])
def test_after_each_close_the_books_hold_what_is_known_of_every_closed_month(ledger, bill, seed):
    """Usage and bills in any order, months closed once or twice: booked of a month is its last bill, or its cost."""
    rng = random.Random(seed)
    months = ["2026-07", "2026-08", "2026-09", "2026-10"]
    used: dict[str, list] = defaultdict(list)
    paid: dict[str, int] = {}
    given: dict = {}
    for number, month in enumerate(months):
        for of in (*rng.choices(months[: number + 1], k=4), month):
            used[of].append(call(f"{len(used[of])} {of} {month}", f"{of}-{rng.randint(1, 28):02}",
                                 (*(rng.randrange(10_000) for _ in range(4)), 0),
                                 rng.choice([A, B]), rng.choice(["search", ""])))  # fmt: skip
        ledger.append([usage for calls in used.values() for usage in calls])
        for of in rng.sample(months[: number + 1], k=min(number + 1, 2)):
            share = rng.choice(["1", "0.9", "0.75"])
            given |= bill(*billed(*used[of], share=share), month=of)
            paid[of] = given[of].billed_picos
        fresh = {of: given[of] for of in given if of <= month}
        again = rng.random() < 0.5
        now = datetime(2026, number + 8, 5, tzinfo=UTC)
        asked = {"accrue": rng.random() < 0.5, "allow_unexplained": True}
        shut(ledger, month, fresh, now, **asked)
        if again:
            shut(ledger, month, fresh, now, again=True, reason="again", **asked)
        for of in months[: number + 1]:
            assert booked(ledger, of) == paid.get(of, listed(*used[of])), (of, month)
            assert audit(ledger, of, ASKED, fresh.get(of)).comes_out
        cents: dict[str, Decimal] = defaultdict(Decimal)
        for closed in months[: number + 1]:
            for line in journal(closings(ledger), closed, CONFIG):
                cents[line.of] += Decimal(line.amount) if line.kind else 0
        for of in months[: number + 1]:
            assert cents[of] == Decimal(round(Fraction(booked(ledger, of), CENT))).scaleb(-2)
    assert verify(ledger) == []


# --- kept ----------------------------------------------------------------------------------------------------------


def test_what_is_done_to_the_ledger_leaves_a_closing_as_it_is(ledger):
    for usage in OCTOBER:
        ledger.append([usage])
    shut(ledger)
    before = in_full(ledger, "2026-10.1")
    ledger.append(list(reversed(OCTOBER)))  # read again
    compact(ledger)
    assert in_full(ledger, "2026-10.1") == before
    assert verify(ledger) == []
    assert audit(ledger, "2026-10", ASKED).comes_out
    forget(ledger, "search", NOVEMBER)  # the tag's value, and so the team's name
    teams = {line.team for line in closings(ledger)[0].entries}
    assert "search" not in teams
    assert any(team.startswith("forgotten-") for team in teams)
    assert verify(ledger) == []
    assert audit(ledger, "2026-10", ASKED).comes_out
    retain(ledger, (datetime(2026, 11, 1, tzinfo=UTC) - EPOCH).days)
    assert (len(closings(ledger)), verify(ledger)) == (1, [])
    found = audit(ledger, "2026-10", ASKED)
    assert {part.name: part.verdict for part in found.parts}["usage"] == "gone"
    assert not found.comes_out
    _, made, skipped = open_corrections(ledger, ASKED, {}, Asked())
    assert made == []
    assert "no longer in the ledger" in skipped[0]


def test_a_ledger_that_has_closed_nothing_opens_and_is_whole(ledger):
    ledger.append(OCTOBER)
    assert closings(Ledger(ledger.folder)) == []
    assert verify(ledger) == []


def test_a_closing_that_was_tampered_with_is_found(ledger):
    from deltalake import write_deltalake

    ledger.append(OCTOBER)
    shut(ledger)
    names = ", ".join(f'"{name}"' for name in CLOSINGS if name != "picos")
    changed = ledger.table("closings").project(
        f"{names}, CASE part WHEN 'entry' THEN '1' ELSE picos END AS picos"
    )
    write_deltalake(ledger.delta("closings"), arrow(changed.arrow(), CLOSINGS), mode="overwrite")
    assert [(fault.table, "2026-10.1" in fault.what) for fault in verify(ledger)] == [("closings", True)]
    found = audit(ledger, "2026-10", ASKED)
    assert {part.name for part in found.parts if part.verdict == "no"} == {"closing", "entries"}


SCRIPT = """
import sys
from datetime import UTC, datetime
from farthing.cells import Question
from farthing.close import Asked, Refused, close
from farthing.ledger import Ledger
try:
    close(Ledger(sys.argv[1]), "2026-10", Question(), {}, Asked(by=sys.argv[2]), datetime(2026, 11, 3, tzinfo=UTC))
except Refused as refused:
    sys.exit(f"refused: {refused}")
"""


def closer(ledger, who):
    command = [sys.executable, "-c", SCRIPT, str(ledger.folder), who]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def test_of_two_who_close_at_once_one_does(ledger):
    ledger.append(OCTOBER)
    both = [closer(ledger, who) for who in ("one", "other")]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], errors
    assert "closed already" in "".join(errors)
    assert [it.id for it in closings(ledger)] == ["2026-10.1"]
    assert verify(ledger) == []


def test_killed_at_any_moment_there_is_no_closing_or_a_whole_one(ledger):
    ledger.append(OCTOBER)
    rng = random.Random(5)
    for _ in range(4):
        process = closer(ledger, "killed")
        time.sleep(rng.uniform(0.2, 1.5))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        assert len(closings(ledger)) in (0, 1)
        assert verify(ledger) == []
    if not closings(ledger):
        shut(ledger, question=Question())
    assert booked(ledger) == listed(*OCTOBER)
