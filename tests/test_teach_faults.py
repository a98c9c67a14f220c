"""Faults of the provider: each that is planted is found with its exact amount, and a clean bill has none."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from farthing import cli
from farthing.book import default_book
from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.offers import load_offers
from farthing.statement import Statement
from farthing.teach import Fault, find_faults, name_requests, support_case
from farthing.usage import EPOCH, Facts, Usage
from tests import bills
from tests.bills import Call, Line

OURS, THEIRS = "111122223333", "444455556666"
DAY = "2026-09-03"

IDS = {
    model.id: next(name for name in model.ids if name.startswith("anthropic."))
    for model in default_book().models.values()
    if any(name.startswith("anthropic.") for name in model.ids)
}
ANY_BILL = settings(
    max_examples=6,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def rates(shared):
    return bills.Rates(shared / "facts" / "rates.json")


@dataclass
class Planted:
    """Calls as they were, the bill of them, and what must be found: kind to dollars."""

    calls: list[Call]
    lines: list[Line]
    expected: dict[str, Decimal] = field(default_factory=dict)
    status: dict[int, str] = field(default_factory=dict)  # of calls, by number
    counted: bool = True  # whether the logs have counts of those that ended badly


def seen(planted: Planted) -> list[Usage]:
    """The calls as a log has them, with ids as AWS gives them."""
    found = []
    for number, call in enumerate(planted.calls):
        status = planted.status.get(number, "")
        tokens = call.tokens if planted.counted or not status else (0, 0, 0, 0, 0)
        prefix = "global." if call.endpoint == "global" else ""
        facts = Facts(
            "bedrock_log", "bedrock", prefix + IDS[call.model], region=call.region, account=call.account,
            mode="batch" if call.mode == "batch" else "", status=status,
        )  # fmt: skip
        at_us = (call.at - EPOCH) // timedelta(microseconds=1)
        found.append(Usage(at_us, str(uuid.UUID(int=number + 1)), "", ((facts, tokens),)))
    return found


def faults_of(tmp_path, planted: Planted, offers=()) -> list[Fault]:
    statement = Statement([bills.write_csv(tmp_path / "cur.csv", planted.lines)])
    ledger = Ledger(tmp_path / f"ledger-{uuid.uuid4()}")
    ledger.append(seen(planted))
    return find_faults(statement, ledger, None, offers)


def is_of(call: Call) -> bool:
    """One account, model and day, at the global endpoint: what faults are planted in."""
    return (call.account, call.model, call.endpoint, f"{call.at:%Y-%m-%d}") == (
        OURS,
        "claude-opus-5",
        "global",
        DAY,
    )


def cost(lines) -> Decimal:
    return sum((line.cost for line in lines), Decimal(0))


# --- planting --------------------------------------------------------------------------------------------------------


def rewritten(change: Callable[[Call], Call], kind: str):
    """The bill is of calls that were not made so."""

    def plant(calls: list[Call], rates) -> Planted:
        before = bills.lines(calls, rates)
        after = bills.lines([change(call) for call in calls], rates)
        assert before != after
        return Planted(calls, after, {kind: cost(after) - cost(before)})

    return plant


def longer_lived(call: Call) -> Call:
    asked, output, read, five, hour = call.tokens
    return replace(call, tokens=(asked, output, read, 0, five + hour)) if is_of(call) else call


def regional(call: Call) -> Call:
    return replace(call, endpoint="regional") if is_of(call) else call


def on_demand(call: Call) -> Call:
    ours = call.account == OURS and f"{call.at:%Y-%m-%d}" == DAY
    return replace(call, mode="on_demand") if ours and call.mode == "batch" else call


def batch_at_on_demand(calls, rates) -> Planted:
    lines = [
        bills.dearer(line, "2") if line.mode == "batch" and line.account == OURS else line
        for line in bills.lines(calls, rates)
    ]
    return Planted(calls, lines, {"batch_rate": cost(lines) - cost(bills.lines(calls, rates))})


def twice(calls, rates) -> Planted:
    lines = bills.lines(calls, rates)
    again = [
        line for line in lines if line.day == DAY and line.model == "claude-opus-5" and line.tokens >= 1_000
    ]
    return Planted(calls, lines + again, {"duplicate_lines": cost(again)})


def storm(calls, rates) -> Planted:
    """On one day nothing is read; both the logs and the bill say so."""

    def written(call: Call) -> Call:
        asked, output, read, five, hour = call.tokens
        return replace(call, tokens=(asked, output, 0, read + five, hour)) if is_of(call) else call

    calls = [written(call) for call in calls]
    five, hour = (sum(call.tokens[i] for call in calls if is_of(call)) for i in (3, 4))
    beyond = five * Decimal("1.25") + hour * Decimal(5)  # of 5 dollars a million for input: 6.25 and 10
    return Planted(calls, bills.lines(calls, rates), {"cache_storm": beyond / 10**6})


def failed(calls, rates) -> Planted:
    """Calls of three kinds of ends, with counts in the log and on the bill."""
    numbers = [number for number, call in enumerate(calls) if is_of(call)][:2]
    status = dict(zip(numbers, ("ModelErrorException", "ServiceUnavailableException"), strict=True))
    kept = bills.lines([call for number, call in enumerate(calls) if number not in status], rates)
    lines = bills.lines(calls, rates)
    return Planted(calls, lines, {"failed_calls": cost(lines) - cost(kept)}, status)


def refused(calls, rates) -> Planted:
    """A refusal, whose counts a log does not have as usage; its prompt is on the bill."""
    number = next(number for number, call in enumerate(calls) if is_of(call))
    calls = [
        replace(c, tokens=(c.tokens[0], 0, *c.tokens[2:])) if n == number else c for n, c in enumerate(calls)
    ]
    lines = bills.lines(calls, rates)
    kept = bills.lines([call for n, call in enumerate(calls) if n != number], rates)
    return Planted(calls, lines, {"refusals": cost(lines) - cost(kept)}, {number: "refusal"}, counted=False)


def wrong_rate(calls, rates) -> Planted:
    lines = bills.lines(calls, rates)
    one = next(
        line for line in lines if line.day == DAY and line.model == "claude-opus-5" and line.meter == "output"
    )
    dearer = [bills.dearer(line, "1.3") if line is one else line for line in lines]
    return Planted(calls, dearer, {"above_list": one.cost * 3 / 10})


def native(day: str, usage_type: str, thousands: int, usd: str, region: str = "us-east-1") -> Line:
    """A line as AWS writes models of its own."""
    return Line(day, OURS, region, "", "", "", "", False, thousands, Decimal(usd), usage_type=usage_type,
                product="Amazon Bedrock Service")  # fmt: skip


def alone(kind: str, beyond: str, *lines: Line):
    """Lines that no call of the month has anything to do with, but for their fault."""

    def plant(calls, rates) -> Planted:
        return Planted([], list(lines), {kind: Decimal(beyond)})

    return plant


def long_prompts(calls, rates) -> Planted:
    """Prompts of 50,000 tokens to Haiku 5.5, which costs five times as much beyond 100,000."""
    at = bills.MONTH + timedelta(days=40)
    calls = [
        Call(at, OURS, "us-east-1", "claude-haiku-5-5", "regional", "on_demand", (50_000, 1_000, 0, 0, 0))
    ] * 2
    lines = [
        native("2026-10-11", "USE1-Claude5.5Haiku-input-tokens-long-context", 100, "0.055"),  # 0.55, not 0.11
        native("2026-10-11", "USE1-Claude5.5Haiku-output-tokens", 2, "0.0011"),
    ]
    return Planted(calls, lines, {"long_prompt": Decimal("0.044")})


FAULTS = {
    "writes asked for five minutes, billed for an hour": rewritten(longer_lived, "cache_lifetime"),
    "global profile at the regional rate": rewritten(regional, "endpoint"),
    "batch records as on demand": rewritten(on_demand, "batch_as_on_demand"),
    "batch at the rate of on demand": batch_at_on_demand,
    "lines twice": twice,
    "a day without reads": storm,
    "failed calls": failed,
    "refusals": refused,
    "a wrong rate": wrong_rate,
    "long prompts": long_prompts,
    "long prompts where there is one rate": alone(
        "long_prompt_flat", "3.30",
        native("2026-09-04", "USE1-Claude4.6Sonnet-input-tokens-long-context", 1_000, "6.60")
    ),
    "extended access before its day": alone(
        "early_price", "3", native("2025-11-28", "USE1-Claude3.5Sonnetv2-input-tokens", 1_000, "6")
    ),
    "the old rate after a cut": alone(
        "late_price", "0.10",
        native("2026-10-09", "USE1-Claude5.5Sonnet-cache-read-input-token-count-cross-region-global", 1_000, "0.20"),
    ),
    "extended access in another region": alone(
        "extended_access", "3",
        native("2026-09-09", "APN1-Claude3.5Sonnetv2-input-tokens", 1_000, "6", "ap-northeast-1"),
    ),
    "after the end of life": alone(
        "after_end_of_life", "3", native("2026-10-20", "USE1-Claude4Sonnet-input-tokens", 1_000, "3")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_planted_is_found_to_the_picodollar(name, rates, tmp_path):
    planted = FAULTS[name](bills.traffic(days=6, a_day=60), rates)
    found = faults_of(tmp_path, planted)
    sums: dict[str, int] = {}
    for fault in found:
        sums[fault.kind] = sums.get(fault.kind, 0) + fault.picos
    assert sums == {kind: int(usd * 10**12) for kind, usd in planted.expected.items()}
    assert all(fault.account == OURS or name == "lines twice" for fault in found)


@ANY_BILL
@given(st.integers(0, 10_000))
def test_a_clean_bill_has_no_faults(rates, tmp_path, seed):
    calls = bills.traffic(days=6, a_day=40, seed=seed)
    assert faults_of(tmp_path, Planted(calls, bills.lines(calls, rates))) == []


@ANY_BILL
@given(st.integers(0, 10_000), st.sampled_from(["0.5", "0.8", "0.875", "0.97"]))
def test_a_discount_is_no_fault(rates, tmp_path, seed, factor):
    calls = bills.traffic(days=4, a_day=40, seed=seed)
    lines = [bills.dearer(line, factor) for line in bills.lines(calls, rates)]
    assert faults_of(tmp_path, Planted(calls, lines)) == []


@ANY_BILL
@given(st.integers(0, 10_000))
def test_logging_that_is_off_is_no_fault_of_aws(rates, tmp_path, seed):
    """A day and an account that no log tells of are more billed than seen, and reconcile says why."""
    calls = bills.traffic(days=4, a_day=40, seed=seed)
    logged = [call for call in calls if call.account == OURS and f"{call.at:%Y-%m-%d}" != DAY]
    assert faults_of(tmp_path, Planted(logged, bills.lines(calls, rates))) == []


def test_failed_calls_that_are_not_billed_are_no_fault(rates, tmp_path):
    planted = failed(bills.traffic(days=6, a_day=60), rates)
    kept = [call for number, call in enumerate(planted.calls) if number not in planted.status]
    assert faults_of(tmp_path, replace(planted, lines=bills.lines(kept, rates))) == []


def test_throttled_calls_and_missing_logs_together_accuse_nobody(rates, tmp_path):
    """Answers that no log has are billed too, so what is missing is no prompt of a failed call."""
    calls = bills.traffic(days=6, a_day=60)
    ours = [number for number, call in enumerate(calls) if is_of(call)]
    logged = [replace(c, tokens=(0, 0, 0, 0, 0)) if n == ours[0] else c for n, c in enumerate(calls)]
    planted = Planted(logged, bills.lines(calls, rates), {}, {ours[0]: "ThrottlingException"}, counted=False)
    assert faults_of(tmp_path, planted) == []


def test_writes_of_unknown_lifetime_accuse_nobody(rates, tmp_path):
    planted = FAULTS["writes asked for five minutes, billed for an hour"](
        bills.traffic(days=6, a_day=60), rates
    )
    statement = Statement([bills.write_csv(tmp_path / "cur.csv", planted.lines)])
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(
        [u._replace(parts=tuple((f._replace(assumed="ttl"), t) for f, t in u.parts)) for u in seen(planted)]
    )
    assert find_faults(statement, ledger) == []


def test_what_is_in_our_favour_is_told_with_its_sign(rates, tmp_path):
    def shorter(call: Call) -> Call:
        asked, output, read, five, hour = call.tokens
        return replace(call, tokens=(asked, output, read, five + hour, 0)) if is_of(call) else call

    calls = bills.traffic(days=6, a_day=60)
    lines = bills.lines([shorter(call) for call in calls], rates)
    (fault,) = faults_of(tmp_path, Planted(calls, lines))
    assert fault.detail == "asked for an hour, billed for 5 minutes"
    assert fault.picos == int((cost(lines) - cost(bills.lines(calls, rates))) * 10**12) < 0


def test_under_a_discount_a_fault_is_worth_what_was_paid(rates, tmp_path):
    planted = FAULTS["global profile at the regional rate"](bills.traffic(days=6, a_day=60), rates)
    lines = [bills.dearer(line, "0.9") for line in planted.lines]
    found = faults_of(tmp_path, replace(planted, lines=lines))
    assert sum(fault.picos for fault in found) == int(planted.expected["endpoint"] * 9 / 10 * 10**12)


CONTRACT = """[[offers]]
name = "Ten off"
accounts = ["111122223333"]
signed = 2026-08-01
starts = 2026-09-01
[[offers.rates]]
percent_off = "10"
"""


def test_a_private_offer_that_was_not_applied(rates, tmp_path):
    (tmp_path / "offer.toml").write_text(CONTRACT)
    calls = bills.traffic(days=6, a_day=40)
    lines = bills.lines(calls, rates)
    paid = [bills.dearer(line, "0.9") if line.account == OURS and line.day != DAY else line for line in lines]
    forgotten = cost(line for line in lines if line.account == OURS and line.day == DAY)
    offers = load_offers([tmp_path / "offer.toml"])
    found = faults_of(tmp_path, Planted(calls, paid), offers)
    assert {fault.kind for fault in found} == {"contract"}
    assert sum(fault.picos for fault in found) == int(forgotten / 10 * 10**12)
    kept = [bills.dearer(line, "0.9") if line.account == OURS else line for line in lines]
    assert faults_of(tmp_path, Planted(calls, kept), offers) == []


# --- what is sent ----------------------------------------------------------------------------------------------------


def run(capsys, *argv) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return int(exit_.value.code or 0), out, err


@pytest.fixture
def at_regional(rates, tmp_path, monkeypatch):
    """A bill with a fault, and its ledger."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FARTHING_LEDGER", str(tmp_path / "none"))
    planted = FAULTS["global profile at the regional rate"](bills.traffic(days=6, a_day=60), rates)
    Ledger(tmp_path / "ledger").append(seen(planted))
    return bills.write_csv(tmp_path / "cur.csv", planted.lines), tmp_path / "ledger", planted


def test_the_case_has_what_support_asks_for(at_regional, capsys):
    bill, ledger, planted = at_regional
    code, out, err = run(capsys, "faults", "--statement", bill, "--ledger", ledger)
    assert (code, err) == (1, "")
    usd = f"{planted.expected['endpoint'].normalize():f}"
    billed = f"{(planted.expected['endpoint'] * 11).normalize():f}"  # a tenth of list is an eleventh of what was billed
    case = out[out.index("--- to send to AWS support: 1 ---") :]
    for part in (
        "Subject: Amazon Bedrock, claude-opus-5: calls to a global inference profile were billed at the regional rate",
        f"Account: {OURS}. Model: claude-opus-5. Days (UTC): {DAY}.",
        f"Amount: USD {usd} of the USD {billed} that ",
        "USE1-MP:USE1_input_tokens_standard-Units",
        "Request ids, for example: 00000000-",
        "Please check these charges and credit the difference.",
    ):
        assert part in case
    assert "arn:" not in case


def test_request_ids_are_of_the_calls_and_of_aws(at_regional, capsys):
    bill, ledger, planted = at_regional
    code, out, _ = run(capsys, "faults", "--statement", bill, "--ledger", ledger, "--json")
    (fault,) = json.loads(out)["faults"]
    ids = {str(uuid.UUID(int=n + 1)) for n, call in enumerate(planted.calls) if is_of(call)}
    assert code == 1
    assert fault["request_ids"]
    assert set(fault["request_ids"]) <= ids
    assert Decimal(fault["usd"]) == planted.expected["endpoint"]
    assert (fault["fault"], fault["certain"], fault["days"]) == ("endpoint", True, [DAY])
    assert fault["case"]


def test_names_that_are_no_ids_of_aws_are_not_sent(rates, tmp_path):
    planted = FAULTS["global profile at the regional rate"](bills.traffic(days=6, a_day=60), rates)
    ledger = Ledger(tmp_path / "ledger")
    ledger.append([usage._replace(request_id=f"order-of-ada-{n}") for n, usage in enumerate(seen(planted))])
    statement = Statement([bills.write_csv(tmp_path / "cur.csv", planted.lines)])
    (fault,) = find_faults(statement, ledger)
    name_requests([fault], ledger, Question())
    assert fault.request_ids == []
    assert "ada" not in support_case(fault)


def test_a_clean_bill_exits_0_and_says_so(rates, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FARTHING_LEDGER", str(tmp_path / "none"))
    bill = bills.write_csv(tmp_path / "cur.csv", bills.lines(bills.traffic(days=3), rates))
    code, out, _ = run(capsys, "faults", "--statement", bill)
    assert code == 0
    assert out.endswith("no ledger beside it, which tells more\nno faults found\n")
