"""What single records explain of tokens billed beyond ours: passes that others do not tell, writes, failures."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.reconcile import reconcile
from farthing.statement import Statement
from farthing.usage import EPOCH, Facts, Usage
from tests import bills, faults

ACCOUNT = "111122223333"
SONNET, OPUS = "anthropic.claude-sonnet-4-6", "anthropic.claude-opus-4-6-v1"
NAMES = {SONNET: "claude-sonnet-4-6", OPUS: "claude-opus-4-6"}
MESSAGE = (100, 50, 0, 0, 0)
COMPACTION = (2_000, 800, 0, 6_000, 0)
HIDDEN = (1_901, 701, 0, 5_903, 0)  # such a pass, which no record tells
CAUSE = "compaction or fallback attempts"


@pytest.fixture(scope="module")
def rates(shared):
    return bills.Rates(shared / "facts" / "rates.json")


class Days:
    """A ledger and its bill, made call by call."""

    def __init__(self, rates) -> None:
        self.rates = rates
        self.usages: list[Usage] = []
        self.calls: list[bills.Call] = []

    def call(
        self, day: int, *parts, source="bedrock_log", served=True, status="", hidden=(), seen=True
    ) -> None:
        """One of parts (model, tokens). The bill has the hidden ones too, and none of a call that failed."""
        at = datetime(2026, 9, day, tzinfo=UTC) + timedelta(seconds=len(self.usages))
        made = tuple(
            (
                Facts(source, "bedrock", model, NAMES[model] * served, "us-east-1", ACCOUNT, status=status),
                tokens,
            )
            for model, tokens in parts
        )
        name = f"r{len(self.usages)}"
        if seen:
            self.usages.append(Usage((at - EPOCH) // timedelta(microseconds=1), name, "", made))
        for model, tokens in () if status else (*parts, *hidden):
            self.bill(day, model, tokens)

    def bill(self, day: int, model: str, tokens) -> None:
        at = datetime(2026, 9, day, tzinfo=UTC)
        made = bills.Call(at, ACCOUNT, "us-east-1", NAMES[model], "regional", "on_demand", tokens)
        self.calls.append(made)

    def compared(self, folder):
        ledger = Ledger(folder / "ledger")
        ledger.append(self.usages)
        bill = bills.write_csv(folder / "cur.csv", bills.lines(self.calls, self.rates))
        return reconcile(Statement([bill]), ledger, Question(date(2026, 9, 1), date(2026, 9, 30)))

    def usd(self, model: str, tokens) -> Decimal:
        named = zip(bills.METERS, tokens, strict=True)
        return sum((n * self.rates.of(NAMES[model], "regional", "on_demand", m) for m, n in named), Decimal())


@pytest.fixture
def days(rates):
    return Days(rates)


def usd_of(causes) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for cause in causes:
        found[cause.name] = found.get(cause.name, Decimal()) + Decimal(cause.picos) / 10**12
    return found


def test_passes_that_a_record_without_its_answer_does_not_tell(days, tmp_path):
    days.call(3, (SONNET, COMPACTION), (SONNET, MESSAGE))
    days.call(3, (SONNET, MESSAGE), served=False, hidden=[(SONNET, HIDDEN)])
    found = days.compared(tmp_path)
    assert (usd_of(found.explained), found.unexplained) == ({CAUSE: days.usd(SONNET, HIDDEN)}, [])
    (where,) = {cause.where for cause in found.explained}
    assert where == (
        "111122223333 claude-sonnet-4-6 regional 2026-09-03: 1 calls whose records tell no passes; 1 of 1 that "
        "would tell have 8,800 tokens in them"
    )


def test_attempts_that_fell_back_are_billed_at_a_model_that_answered_nothing(days, tmp_path):
    attempt = (2_999, 37, 0, 0, 0)
    days.call(3, (OPUS, (3_000, 40, 0, 0, 0)), (SONNET, MESSAGE))
    days.call(3, (SONNET, MESSAGE), served=False, hidden=[(OPUS, attempt)])
    found = days.compared(tmp_path)
    assert (usd_of(found.explained), found.unexplained) == ({CAUSE: days.usd(OPUS, attempt)}, [])


def test_an_advisor_between_two_passes_of_an_answer(days, tmp_path):
    """The counts at the top are those of both passes of the model that was called."""
    advice = (2_500, 60, 0, 0, 0)
    days.call(3, (SONNET, MESSAGE), (OPUS, advice), (SONNET, MESSAGE))
    days.call(
        3,
        (SONNET, tuple(2 * n for n in MESSAGE)),
        served=False,
        hidden=[(OPUS, advice), (SONNET, (7, 7, 0, 0, 0))],
    )
    found = days.compared(tmp_path)
    assert usd_of(found.explained) == {CAUSE: days.usd(OPUS, advice)}
    assert usd_of(found.unexplained) == {"more billed than seen": days.usd(SONNET, (7, 7, 0, 0, 0))}


def test_an_outbox_has_the_counts_at_the_top_first(days, tmp_path):
    days.call(3, (SONNET, MESSAGE), (SONNET, COMPACTION), source="outbox")
    days.call(3, (SONNET, MESSAGE), served=False, hidden=[(SONNET, HIDDEN)])
    assert usd_of(days.compared(tmp_path).explained) == {CAUSE: days.usd(SONNET, HIDDEN)}


def test_the_day_beside_shows_what_passes_come_to(days, tmp_path):
    days.call(3, (SONNET, COMPACTION), (SONNET, MESSAGE))
    days.call(4, (SONNET, MESSAGE), served=False, hidden=[(SONNET, HIDDEN)])
    assert usd_of(days.compared(tmp_path).explained) == {CAUSE: days.usd(SONNET, HIDDEN)}


def test_another_day_shows_nothing(days, tmp_path):
    days.call(3, (SONNET, COMPACTION), (SONNET, MESSAGE))
    days.call(5, (SONNET, MESSAGE), served=False, hidden=[(SONNET, HIDDEN)])
    found = days.compared(tmp_path)
    assert (found.explained, len(found.unexplained)) == ([], 1)


def test_no_more_is_named_than_was_seen(days, tmp_path):
    """Twenty calls may have had such passes, and one shows what they come to: one is named."""
    days.call(3, (SONNET, COMPACTION), (SONNET, MESSAGE))
    for _ in range(20):
        days.call(3, (SONNET, MESSAGE), served=False, hidden=[(SONNET, HIDDEN)])
    found = days.compared(tmp_path)
    assert usd_of(found.explained) == {CAUSE: days.usd(SONNET, COMPACTION)}
    assert usd_of(found.unexplained) == {
        "more billed than seen": 20 * days.usd(SONNET, HIDDEN) - days.usd(SONNET, COMPACTION)
    }


def test_calls_that_tell_that_they_had_none_count_too(days, tmp_path):
    """One of four that would tell had a pass, so a fourth of it is named for one that does not."""
    days.call(3, (SONNET, COMPACTION), (SONNET, MESSAGE))
    for _ in range(3):
        days.call(3, (SONNET, MESSAGE))
    days.call(3, (SONNET, MESSAGE), served=False, hidden=[(SONNET, HIDDEN)])
    found = days.compared(tmp_path)
    fourth = tuple(n // 4 for n in COMPACTION)
    assert usd_of(found.explained) == {CAUSE: days.usd(SONNET, fourth)}


def test_where_every_record_tells_its_passes_none_is_missing(days, tmp_path):
    days.call(3, (SONNET, COMPACTION), (SONNET, MESSAGE))
    days.call(3, (SONNET, MESSAGE), hidden=[(SONNET, (2_000, 800, 0, 0, 0))])
    found = days.compared(tmp_path)
    assert (found.explained, len(found.unexplained)) == ([], 1)


def test_prompts_alone_are_no_pass(days, tmp_path):
    """Each pass answers something."""
    days.call(3, (SONNET, COMPACTION), (SONNET, MESSAGE))
    days.call(3, (SONNET, MESSAGE), served=False, hidden=[(SONNET, (1_500, 0, 0, 0, 0))])
    found = days.compared(tmp_path)
    assert (found.explained, len(found.unexplained)) == ([], 1)


def test_a_better_record_that_took_the_passes_back_shows_none(days, tmp_path):
    """A gateway told of passes, then its own result of none: what was written again with a minus is not there."""
    days.call(3, (SONNET, COMPACTION), (SONNET, MESSAGE), source="claude_code")
    first = days.usages[0]
    days.usages.append(first._replace(parts=((first.parts[0][0]._replace(source="outbox"), MESSAGE),)))
    days.call(3, (SONNET, MESSAGE), served=False)
    found = days.compared(tmp_path)
    assert found.explained == []
    assert usd_of(found.unexplained) == {"more billed than seen": days.usd(SONNET, COMPACTION)}


# --- cache writes ----------------------------------------------------------------------------------------------------


def test_a_write_as_large_as_one_of_ours_is_billed_again(days, tmp_path):
    days.call(3, (SONNET, (10, 20, 0, 7_001, 0)))
    days.call(3, (SONNET, (10, 20, 0, 9_500, 0)))
    days.bill(3, SONNET, (0, 0, 0, 7_001, 0))
    found = days.compared(tmp_path)
    assert usd_of(found.explained) == {
        "cache writes billed more than once": days.usd(SONNET, (0, 0, 0, 7_001, 0))
    }
    assert found.explained[0].where.endswith("2026-09-03: 1 of 7,001 tokens, which 1 calls of ours wrote")
    assert found.unexplained == []


@pytest.mark.parametrize("size", [7_002, 2 * 7_001, 500])
def test_a_write_of_no_call_of_ours_stays_unexplained(size, days, tmp_path):
    """Or more of them than calls wrote, or too few tokens to tell."""
    days.call(3, (SONNET, (10, 20, 0, 7_001, 0)))
    days.call(3, (SONNET, (10, 20, 0, 500, 0)))
    days.bill(3, SONNET, (0, 0, 0, size, 0))
    found = days.compared(tmp_path)
    assert found.explained == []
    assert usd_of(found.unexplained) == {
        "more billed than seen: cache writes without reads": days.usd(SONNET, (0, 0, 0, size, 0))
    }


def test_of_many_sizes_one_fits_by_chance(days, tmp_path):
    for more in range(20):
        days.call(3, (SONNET, (10, 20, 0, 7_001 + more, 0)))
    days.bill(3, SONNET, (0, 0, 0, 7_003, 0))
    assert days.compared(tmp_path).explained == []


# --- calls that failed -----------------------------------------------------------------------------------------------


def test_prompts_of_calls_that_failed_are_told_and_not_explained(days, tmp_path):
    """No record has their counts, and nothing says that AWS bills them."""
    days.call(3, (SONNET, MESSAGE))
    days.call(3, (SONNET, (0, 0, 0, 0, 0)), status="ModelStreamErrorException")
    days.bill(3, SONNET, (4_444, 0, 0, 0, 0))
    found = days.compared(tmp_path)
    assert found.explained == []
    assert usd_of(found.unexplained) == {
        "more billed than seen: prompts of calls that failed (see farthing faults)": days.usd(
            SONNET, (4_444, 0, 0, 0, 0)
        )
    }


def test_hidden_passes_are_named_with_their_exact_amount_within_a_month(rates, tmp_path):
    """The generator's fault with all of it within what is shown, and then with more than that."""
    import random

    month = faults.month(random.Random(11), rates, date(2026, 9, 1))
    faults.hidden_passes(month, random.Random(11), rates)
    hidden = [one for one in month.used if one.seen and not one.told]
    expected = month.causes()[CAUSE]
    assert expected == sum(one.list_usd for one in hidden)
    month.used += [replace(one, tokens=9 * one.tokens, list_usd=9 * one.list_usd) for one in hidden]
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(month.usages())
    found = reconcile(
        Statement([month.write(tmp_path / "cur.csv")]), ledger, Question(month.first, date(2026, 9, 30))
    )
    named = usd_of(found.explained)[CAUSE]
    assert expected < named < 10 * expected
    assert usd_of(found.unexplained) == {"more billed than seen": 10 * expected - named}


# --- what AWS bills later --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "name"), [(7, "not billed yet"), (2, "account not in the bill")])
def test_an_account_that_began_when_the_bill_ends_is_not_missing_from_it(first, name, days, tmp_path):
    """All its days are young; one older day that AWS would have billed makes it an account of another bill."""
    for day in range(1, 9):
        days.call(day, (SONNET, MESSAGE))
    days.usages += [
        usage._replace(
            request_id=f"other {usage.request_id}",
            parts=tuple((facts._replace(account="444455556666"), tokens) for facts, tokens in usage.parts),
        )
        for usage in days.usages[first - 1 :]
    ]
    bill = bills.write_csv(tmp_path / "cur.csv", bills.lines(days.calls, days.rates), not_invoiced)
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(days.usages)
    found = reconcile(Statement([bill]), ledger, Question(date(2026, 9, 1), date(2026, 9, 30)))
    assert {cause.name for cause in found.explained} == {name}
    assert found.unexplained == []


def not_invoiced(line, number=0):
    return bills.legacy(line, number) | {"bill/InvoiceId": ""}
