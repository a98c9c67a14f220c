"""Closing: a month is frozen, what is learnt later is booked, and a journal loses no cent."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing import cli
from farthing.book import PRICES, Book
from farthing.cells import Question
from farthing.close import (
    Asked,
    Refused,
    apportion,
    audit,
    bookings,
    close,
    open_corrections,
    period_of,
    standing,
)
from farthing.config import Config, Journal, Team
from farthing.exporters.journal import JournalError, journal, to_cents
from farthing.fx import load
from farthing.ledger import Closing, Ledger, Line, arrow, closings, compact, forget, retain, verify
from farthing.ledger._tables import CLOSINGS
from farthing.statement import Statement
from farthing.usage import EPOCH, Facts, Usage
from tests import bills

ROOT = Path(__file__).resolve().parent.parent
SONNET = "claude-sonnet-4-6"
RATES = {
    "input": "3",
    "output": "15",
    "cache_read": "0.3",
    "cache_write_5m": "3.75",
}  # global, dollars a million
DOLLAR, CENT = 10**12, 10**10
A, B, UNKNOWN = "111122223333", "444455556666", "777788889999"
TEAMS = {
    "search": Team(cost_centre="4711", tags=("team=search",)),
    "chat": Team(cost_centre="4712", accounts=(B,)),
}
JOURNAL = Journal(
    debit="6100",
    credit="2100",
    accrued="2190",
    cost_centre="9000",
    codes={"tax": "1576", "anthropic/usage": "6110"},
)
CONFIG = Config(teams=TEAMS, journal=JOURNAL)
ASKED = Question(config=CONFIG)
NOVEMBER = datetime(2026, 11, 3, 9, tzinfo=UTC)


def call(
    name, day, tokens=(1_000, 2_000, 0, 0, 0), account=A, team="", source="bedrock_log", platform="bedrock"
):
    """A call of Sonnet 4.6 at the global endpoint."""
    at = datetime.fromisoformat(f"{day}T12:00:00+00:00")
    model = f"global.anthropic.{SONNET}" if platform == "bedrock" else SONNET
    facts = Facts(source, platform, model, region="us-east-1", account=account)
    tags = (("team", team),) if team else ()
    return Usage((at - EPOCH) // timedelta(microseconds=1), name, "", ((facts, tokens),), tags)


def listed(*usages) -> int:
    """What they cost by the published rates, in picodollars."""
    rates = [
        int(Decimal(RATES[meter]) * 10**6) for meter in ("input", "output", "cache_read", "cache_write_5m")
    ]
    return sum(
        count * rate
        for usage in usages
        for _, tokens in usage.parts
        for count, rate in zip(tokens[:4], rates, strict=True)
    )


def billed(*usages, share="1"):
    """The lines that AWS would bill for these calls."""
    sums = defaultdict(int)
    for usage in usages:
        ((facts, tokens),) = usage.parts
        day = f"{EPOCH + timedelta(microseconds=usage.at_us):%Y-%m-%d}"
        for meter, count in zip(bills.METERS, tokens, strict=True):
            sums[day, facts.account, meter] += count
    return [
        bills.Line(day, account, "us-east-1", SONNET, "global", "on_demand", meter, False, count,
                   count * Decimal(RATES[meter]) / 10**6 * Decimal(share))
        for (day, account, meter), count in sums.items() if count
    ]  # fmt: skip


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def bill(tmp_path):
    """A delivery of a bill: for each month that it has lines of."""

    def deliver(*lines, month="2026-10", invoice="EUINV26-1"):
        number = len(list(tmp_path.glob("bill-*")))
        path = bills.write_csv(tmp_path / f"bill-{number}" / "cur.csv", list(lines))
        path.write_text(path.read_text().replace("INV-1", invoice))
        year, number = map(int, month.split("-"))
        last = date(year + number // 12, number % 12 + 1, 1) - timedelta(days=1)
        return {month: Statement([path], since=date(year, number, 1), until=last)}

    return deliver


def booked(ledger, month="") -> int:
    """What the entries of all closings sum to, of a month or of all."""
    return sum(line.picos for it in closings(ledger) for line in it.entries if month in ("", line.of))


def by(ledger, name, month="2026-10"):
    sums = defaultdict(int)
    for it in closings(ledger):
        for line in it.entries:
            if line.of == month:
                sums[getattr(line, name)] += line.picos
    return {key: picos for key, picos in sums.items() if picos}


def shut(ledger, month="2026-10", given=None, now=NOVEMBER, question=ASKED, **asked):
    return close(ledger, month, question, given or {}, Asked(**asked), now)


OCTOBER = [
    call("1", "2026-10-01", team="search"),
    call("2", "2026-10-02", (500, 100, 9_000, 300, 0)),
    call("3", "2026-10-30", account=B),
    call("4", "2026-10-31", (7, 7, 7, 7, 0), team="search"),
]


# --- closing -------------------------------------------------------------------------------------------------------


def test_a_month_without_a_bill_is_booked_as_it_is_computed(ledger):
    ledger.append([*OCTOBER, call("other", "2026-11-01")])
    made = shut(ledger, by="Ada", note="first")
    assert (made.id, made.said["by"], made.said["note"]) == ("2026-10.1", "Ada", "first")
    assert booked(ledger) == listed(*OCTOBER)
    assert by(ledger, "team") == {
        "search": listed(OCTOBER[0], OCTOBER[3]), "unassigned": listed(OCTOBER[1]), "chat": listed(OCTOBER[2])
    }  # fmt: skip
    assert closings(ledger) == [made._replace(said=closings(ledger)[0].said, lines=closings(ledger)[0].lines)]
    assert sorted(closings(ledger)[0].lines) == sorted(made.lines)


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
    assert sorted(closings(ledger)[0].lines) == sorted(first.lines)
    assert booked(ledger, "2026-10") == listed(*OCTOBER, late)
    third = shut(ledger, again=True, reason="once more")
    assert booked(ledger, "2026-10") == listed(*OCTOBER, late)
    assert {period_of(name) for name in standing(bookings([first, second, third]), "2026-10")} == {"2026-10"}


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
    frozen = sorted(closings(ledger)[0].lines)
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
    assert sorted(closings(ledger)[0].lines) == frozen
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


# --- kept ----------------------------------------------------------------------------------------------------------


def test_what_is_done_to_the_ledger_leaves_a_closing_as_it_is(ledger):
    for usage in OCTOBER:
        ledger.append([usage])
    shut(ledger)
    before = closings(ledger)
    ledger.append(list(reversed(OCTOBER)))  # read again
    compact(ledger)
    assert (closings(ledger), verify(ledger)) == (before, [])
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
    assert closings(Ledger(ledger.folder)) == verify(ledger) == []


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


# --- exact ---------------------------------------------------------------------------------------------------------

AMOUNTS = st.integers(-(10**18), 10**18)


@given(AMOUNTS, st.lists(st.integers(0, 10**15), min_size=1, max_size=8).filter(any))
def test_parts_sum_to_what_is_shared_out(total, weights):
    parts = apportion(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - total * weight) < sum(weights)


@given(st.lists(AMOUNTS, max_size=12), st.sampled_from([10**9, CENT, 10**12]), st.booleans())
def test_cents_sum_to_the_rounded_total(amounts, unit, up):
    exact = Fraction(sum(amounts), unit)
    target = -(-exact // 1) if up else exact // 1
    cents = to_cents(amounts, target, unit)
    assert sum(cents) == target
    assert all(abs(cent * unit - amount) < unit for cent, amount in zip(cents, amounts, strict=True))
    assert to_cents([-amount for amount in amounts], -target, unit) == [-cent for cent in cents]


@st.composite
def histories(draw):
    """Closings of some months: each books for its own and for earlier ones, and takes back what some of them booked."""
    made, names = [], []
    for number in range(1, draw(st.integers(1, 5)) + 1):
        period = f"2026-{number:02}"
        per_usd = draw(st.sampled_from(["1", "9213/10000", "15023/100", "1/3"]))
        currency = {"1": "USD", "15023/100": "JPY"}.get(per_usd, "EUR")
        fx = (
            None
            if currency == "USD"
            else {"currency": currency, "date": "d", "per_usd": per_usd, "source": "s"}
        )
        lines = []
        for booking in range(1, draw(st.integers(1, 4)) + 1):
            name, back = f"{period}.1/{booking}", draw(st.sampled_from([*names, None]))
            if back:
                names.remove(back)
                taken = [line for it in made for line in it.entries if line.booking == back]
                lines += [
                    line._replace(booking=name, what="reversal", ref=back, picos=-line.picos)
                    for line in taken
                ]
                continue
            names.append(name)
            of = f"2026-{draw(st.integers(1, number)):02}"
            for team, picos in draw(st.lists(st.tuples(st.sampled_from(["search", "chat", "unassigned"]), AMOUNTS),
                                             min_size=1, max_size=4)):  # fmt: skip
                kind = draw(st.sampled_from(["usage", "tax"]))
                what = draw(st.sampled_from(["actual"]))
                lines.append(Line("entry", of, name, what, "", kind, team=team, picos=picos))
        said = {"fx": fx, "ends": f"{period}-28"}
        made.append(Closing(f"{period}.1", number, 0, said, tuple(lines)))
        names = [name for name in names if any(line.booking == name for it in made for line in it.entries)]
    return made


@given(histories())
@settings(max_examples=60)
def test_a_journal_loses_no_cent_however_many_closings_there_were(made):
    exact, cents = defaultdict(int), defaultdict(Decimal)
    for it in made:
        lines = journal(made, it.period, CONFIG)
        assert lines == journal(made[: it.number], it.period, CONFIG)  # what comes later changes nothing
        owed = defaultdict(Decimal)
        for line in lines:
            owed[line.reference] += Decimal(line.debit) - Decimal(line.credit)
            assert Decimal(line.amount) == Decimal(line.debit) - Decimal(line.credit)
            if line.kind:
                cents[line.of, line.currency] += Decimal(line.amount)
        assert set(owed.values()) <= {Decimal(0)}
    rates = {}
    for it in made:
        for line in it.entries:
            fx = rates[line.ref] if line.ref else it.said["fx"]
            rates[line.booking] = fx
            exact[line.of, fx["currency"] if fx else "USD"] += round(
                line.picos * Fraction(fx["per_usd"] if fx else 1)
            )
    for (of, currency), units in exact.items():
        digits = 0 if currency == "JPY" else 2
        assert cents[of, currency] == Decimal(round(Fraction(units, 10 ** (12 - digits)))).scaleb(-digits)


# --- the journal ---------------------------------------------------------------------------------------------------


def test_a_journal_has_cost_centres_codes_and_both_sides(ledger, bill, tmp_path):
    ledger.append(
        [*OCTOBER, direct := call("d", "2026-10-09", (10**6, 0, 0, 0, 0), platform="anthropic", account="")]
    )
    ledger.append([begun := call("b", "2026-10-02", account=B)])
    fx = tmp_path / "fx.toml"
    fx.write_text("[EUR]\n2026-10-30 = 0.9\n")
    tax = bills.apart("Tax", "100", "2026-10-31")
    shut(
        ledger,
        given=bill(*billed(*OCTOBER[:2], begun), tax, invoice=""),
        accrue=True,
        rates=load(fx),
        currency="EUR",
    )
    lines = journal(closings(ledger), "2026-10", CONFIG)
    found = {(it.cost_centre, it.gl_code, it.team, it.kind, it.reference): it.amount for it in lines}
    assert found["9000", "1576", "unassigned", "tax", "2026-10.1/1"] == "90.00"
    assert (
        found["9000", "6110", "unassigned", "usage", "2026-10.1/1"]
        == f"{Decimal(listed(direct)) * 9 / 10**13:.2f}"
    )
    assert found["4711", "6100", "search", "usage", "2026-10.1/1"] == "0.03"
    assert found["4712", "6100", "chat", "usage", "2026-10.1/2"] == "0.03"
    assert {it.gl_code for it in lines if not it.kind} == {"2100", "2190"}
    assert {(it.currency, it.fx_rate, it.fx_date, it.fx_source) for it in lines} == {
        ("EUR", "0.9", "2026-10-30", "fx.toml")
    }
    assert {(it.date, it.period, it.of) for it in lines} == {("2026-10-31", "2026-10", "2026-10")}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (Config(), "no GL code for usage"),
        (
            Config(journal=Journal(debit="61", credit="21")),
            "no cost centre for search: write cost_centre under",
        ),
        (
            Config(teams={"search": Team(tags=("team=search",))}, journal=Journal(debit="61", credit="21")),
            r"write cost_centre under \[teams.search\], or cost_centre under \[journal\]|no cost centre for unassigned",
        ),
        (Config(journal=Journal(codes={"usage": "61"}, cost_centre="9")), "no account to credit"),
    ],
)
def test_a_journal_without_accounts_says_where_to_write_them(ledger, config, says):
    ledger.append(OCTOBER)
    shut(ledger)
    with pytest.raises(JournalError, match=says):
        journal(closings(ledger), "2026-10", config)


# --- commands ------------------------------------------------------------------------------------------------------

SETTINGS = """
ledger = "ledger"
currency = "EUR"
fx = "fx.toml"
[teams.search]
cost_centre = "4711"
tags = ["team=search"]
[journal]
debit = "6100"
credit = "2100"
cost_centre = "9000"
"""


@pytest.fixture
def run(capsys, monkeypatch, tmp_path, ledger):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "farthing.toml").write_text(SETTINGS)
    (tmp_path / "fx.toml").write_text("[EUR]\n2026-10 = 1\n2026-11 = 0.9\n")
    ledger.append(OCTOBER)

    def command(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        return ended.value.code, *capsys.readouterr()

    return command


CLOSED_AT = ("--at", "2026-11-03T09:00:00Z")


def test_a_month_by_command(run, tmp_path):
    path = bills.write_csv(tmp_path / "cur.csv", [*billed(*OCTOBER), bills.apart("Tax", "1", "2026-10-31")])
    code, out, _ = run("close", "2026-10", "--statement", path, "--fx", "fx.toml", "--by", "Ada", *CLOSED_AT)
    assert code == 0
    assert "2026-10 is closed: 2026-10.1, 2026-11-03 09:00 UTC, by Ada" in out
    assert "invoice INV-1" in out
    code, out, _ = run("audit", "2026-10", "--statement", path, "--fx", "fx.toml")
    assert (code, "comes out as closed" in out) == (0, True)
    code, out, _ = run("audit", "2026-10", "--statement", path, "--fx", "fx.toml", "--json")
    said = json.loads(out)
    assert said["comes_out"] is True
    assert {part["verdict"] for part in said["parts"]} == {"ok"}
    assert {part["name"] for part in said["parts"]} > {
        "usage",
        "tokens",
        "list cost",
        "book",
        "statement",
        "billed",
        "fx",
    }
    code, out, _ = run("audit")
    assert (code, out) == (0, "2026-10  2026-10.1   comes out as closed\n")
    code, out, _ = run("closings", "show", "2026-10", "--by", "team,kind", "--json")
    rows = {(row["team"], row["kind"]): row["booked_usd"] for row in json.loads(out)["rows"]}
    assert rows["unassigned", "tax"] == "1"
    assert Decimal(rows["search", "usage"]) == Decimal(listed(OCTOBER[0], OCTOBER[3])).scaleb(-12)
    code, out, _ = run("closings", "list", "--json")
    assert [row["closing"] for row in json.loads(out)["closings"]] == ["2026-10.1"]
    assert run("closings", "list")[0] == run("closings", "show", "2026-10.1")[0] == 0


def test_a_journal_by_command_in_three_forms(run, tmp_path):
    import duckdb

    run("close", "2026-10", *CLOSED_AT)
    for name in ("j.csv", "j.json", "j.parquet"):
        code, out, _ = run("export", "journal", "2026-10", "--out", name)
        assert (code, "debits equal credits" in out) == (0, True)
    with (tmp_path / "j.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(Decimal(row["debit"]) for row in rows) == sum(Decimal(row["credit"]) for row in rows)
    total = Decimal(listed(*OCTOBER)).scaleb(-12).quantize(Decimal("0.01"))
    assert sum(Decimal(row["amount"]) for row in rows if row["kind"]) == total
    assert json.loads((tmp_path / "j.json").read_text())["lines"] == rows
    sums = "sum(debit), sum(credit), count(*)"
    (found,) = duckdb.sql(f"SELECT {sums} FROM '{tmp_path / 'j.parquet'}'").fetchall()
    assert found == (total, total, len(rows))


def test_corrections_by_command(run, ledger):
    run("close", "2026-10", *CLOSED_AT)
    assert run("close", "--corrections")[1].startswith("nothing to correct")
    ledger.append([late := call("late", "2026-10-20", team="search")])
    code, out, _ = run("close", "--corrections", "--json")
    (booking,) = json.loads(out)["bookings"]
    assert (code, booking["of"], Decimal(booking["usd"])) == (0, "2026-10", Decimal(listed(late)).scaleb(-12))
    code, out, _ = run("audit", "2026-10")
    assert code == 1
    assert f"+3,000 tokens  2026-10-20 {A} {SONNET}" in out
    assert run("audit")[0] == 1
    code, out, _ = run("close", "2026-11", "--accrue", "--dry-run", *CLOSED_AT)
    assert (code, "would be closed" in out, "correction of 2026-10" in out) == (0, True, True)
    assert len(closings(ledger)) == 1


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["close", "october"], 2, "'october' is no month: write 2026-10"),
        (["close"], 2, "a month, as 2026-10, or --corrections"),
        (["close", "2026-10", "--at", "now"], 2, "--at 'now'"),
        (["close", "2026-10", "--tolerance", "some"], 2, "--tolerance 'some'"),
        (["close", "2026-10", "--fx", "old.toml", *CLOSED_AT], 2, "no rate of EUR for 2026-10-31"),
        (["close", "2026-10", "--at", "2026-10-15T00:00:00Z"], 1, "is not over"),
        (["close", "2026-09", *CLOSED_AT], 1, "no usage in the ledger"),
        (["close", "2026-10", "--statement", "none.csv"], 2, "none.csv"),
        (["audit", "2026-10"], 1, "is not closed"),
        (["audit", "2026-1"], 2, "'2026-1' is no month"),
        (["closings", "show", "2026-10"], 2, "'2026-10' is not closed"),
        (["export", "journal", "2026-10", "--out", "j.csv"], 1, "is not closed"),
        (["export", "journal", "2026-10", "--out", "j.doc"], 2, "j.doc"),
        (["export", "journal", "2026-10", "--out", "no/j.csv"], 2, "there is no folder no"),
    ],
)
def test_what_cannot_be_is_one_line(run, tmp_path, words, code, says):
    (tmp_path / "old.toml").write_text("[EUR]\n2026-09-01 = 0.9\n")
    found, out, err = run(*words)
    assert (found, out) == (code, "")
    assert says in err
    assert err.count("\n") == 1


def test_an_unknown_cost_centre_is_one_line(run, tmp_path):
    text = SETTINGS.replace('"4711"', '"4771"') + 'cost_centres = ["4711", "9000"]\n'
    (tmp_path / "farthing.toml").write_text(text)
    code, _, err = run("close", "2026-10")
    assert code == 2
    assert "teams.search.cost_centre: unknown cost centre '4771': known are 4711, 9000" in err
