"""What a bill teaches of rates: planted discounts come back as the offers they were, and nothing else does."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from farthing import cli
from farthing.book import default_book
from farthing.offers import load_offers, read_offers
from farthing.statement import Statement
from farthing.teach import as_toml, learn, rerate, summed
from tests import bills
from tests.bills import Line

OURS, THEIRS = "111122223333", "444455556666"
BOOK = default_book()

READS = Line(  # nine million at 0.10 a million, which holds from 2026-10-07; before it was 0.20
    "2026-10-05", OURS, "us-east-1", "claude-sonnet-5-5", "global", "on_demand", "cache_read", False, 9_000_000,
    Decimal("0.9"),
)  # fmt: skip


ANY_BILL = settings(
    max_examples=10,
    phases=[Phase.explicit, Phase.generate],  # each example reads a bill: a failing one is small enough
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def sonnet(monkeypatch):
    """A name for the model whose price moved."""
    monkeypatch.setitem(bills.MODELS, "claude-sonnet-5-5", ("Claude Sonnet 5.5", "snake"))


@pytest.fixture(scope="module")
def rates(shared):
    return bills.Rates(shared / "facts" / "rates.json")


@pytest.fixture(scope="module")
def at_list(rates):
    return bills.lines(bills.traffic(days=12, a_day=60), rates)


def at_rate(line: Line, usd_per_million: str) -> Line:
    return replace(line, cost=line.tokens * Decimal(usd_per_million) / 10**6)


def where(test: Callable[[Line], bool], factor: str) -> Callable[[Line], Line]:
    return lambda line: bills.dearer(line, factor) if test(line) else line


def taught(tmp_path, lines) -> tuple[list[dict], Statement]:
    """The offers as read back from what was written, plainly; re-rating by them leaves nothing of what they are of."""
    statement = Statement([bills.write_csv(tmp_path / "cur.csv", lines)])
    found = learn(statement)
    toml = as_toml(found, BOOK)
    again = rerate(found, BOOK, toml)
    assert again.off == 0
    assert again.billed_picos - again.contracted_picos == sum(again.beyond.values())
    for kind in ("discounted", "at_list"):  # but for rates that are no whole picodollars
        assert abs(again.beyond.get(kind, 0)) * 100_000 <= summed(found.lines[kind])[0]
    return [plainly(offer) for offer in tomllib.loads(toml).get("offers", [])], statement


def plainly(offer: dict) -> dict:
    said = {"accounts": offer["accounts"], "starts": f"{offer['starts']}", "rates": offer["rates"]}
    return said | ({"ends": f"{offer['ends']}"} if "ends" in offer else {})


def test_a_percentage_over_everything_from_a_day(at_list, tmp_path):
    lines = list(map(where(lambda line: line.account == OURS and line.day >= "2026-09-05", "0.875"), at_list))
    found, _ = taught(tmp_path, lines)
    assert found == [{"accounts": [OURS], "starts": "2026-09-05", "rates": [{"percent_off": "12.5"}]}]


def test_accounts_with_the_same_discount_have_one_offer(at_list, tmp_path):
    found, _ = taught(tmp_path, [bills.dearer(line, "0.93") for line in at_list])
    assert found == [{"accounts": [OURS, THEIRS], "starts": "2026-09-01", "rates": [{"percent_off": "7"}]}]


def test_a_discount_of_a_model(at_list, tmp_path):
    found, _ = taught(tmp_path, list(map(where(lambda line: line.model == "claude-opus-5", "0.8"), at_list)))
    rates = [{"model": "claude-opus-5", "percent_off": "20"}]
    assert found == [{"accounts": [OURS, THEIRS], "starts": "2026-09-01", "rates": rates}]


def test_a_discount_of_a_meter(at_list, tmp_path):
    found, _ = taught(tmp_path, list(map(where(lambda line: line.meter == "cache_read", "0.5"), at_list)))
    assert [offer["rates"] for offer in found] == [[{"meter": "cache_read", "percent_off": "50"}]]


def test_a_discount_of_batch_alone(at_list, tmp_path):
    found, _ = taught(tmp_path, list(map(where(lambda line: line.mode == "batch", "0.9"), at_list)))
    assert [offer["rates"] for offer in found] == [[{"mode": "batch", "percent_off": "10"}]]


def test_models_with_discounts_of_their_own(at_list, tmp_path):
    factors = {"claude-opus-5": "0.8", "claude-haiku-4-5": "0.95"}
    found, _ = taught(tmp_path, [bills.dearer(line, factors.get(line.model, "1")) for line in at_list])
    expected = [
        {"model": model, "percent_off": off}
        for model, off in (("claude-haiku-4-5", "5"), ("claude-opus-5", "20"))
    ]
    assert [sorted(offer["rates"], key=lambda rate: rate["model"]) for offer in found] == [expected]


def test_an_absolute_rate_is_one_at_every_endpoint(at_list, tmp_path):
    """Regional list is a tenth dearer, so one rate for both is no one percentage."""
    of = lambda line: (line.model, line.meter, line.mode) == ("claude-opus-5", "output", "on_demand")  # noqa: E731
    found, _ = taught(tmp_path, [at_rate(line, "20") if of(line) else line for line in at_list])
    rate = {"model": "claude-opus-5", "meter": "output", "mode": "on_demand", "usd_per_million": "20"}
    assert [sorted(offer["rates"], key=lambda r: r["endpoint"]) for offer in found] == [
        [rate | {"endpoint": "global"}, rate | {"endpoint": "regional"}]
    ]


def test_a_discount_that_ends(at_list, tmp_path):
    within = lambda line: "2026-09-03" <= line.day < "2026-09-09"  # noqa: E731
    found, _ = taught(tmp_path, list(map(where(within, "0.9"), at_list)))
    assert [(offer["starts"], offer["ends"], offer["rates"]) for offer in found] == [
        ("2026-09-03", "2026-09-09", [{"percent_off": "10"}])
    ]


def test_a_discount_that_grows(at_list, tmp_path):
    grown = [bills.dearer(line, "0.9" if line.day < "2026-09-06" else "0.85") for line in at_list]
    found, _ = taught(tmp_path, grown)
    assert [(offer["starts"], offer.get("ends"), offer["rates"][0]["percent_off"]) for offer in found] == [
        ("2026-09-01", "2026-09-06", "10"), ("2026-09-06", None, "15"),
    ]  # fmt: skip


def test_a_price_cut_of_list_leaves_an_absolute_rate_as_it_is(sonnet, tmp_path):
    """Reads of Sonnet 5.5 fell from 0.20 to 0.10 on 2026-10-07; who pays 0.08 is 60 % off, then 20 %."""
    found, _ = taught(
        tmp_path, [replace(READS, day=f"2026-10-{day:02}", cost=Decimal("0.72")) for day in range(4, 12)]
    )
    rate = {"model": "claude-sonnet-5-5", "meter": "cache_read", "endpoint": "global", "mode": "on_demand"}
    assert [offer["rates"] for offer in found] == [[rate | {"usd_per_million": "0.08"}]]


def test_a_price_event_at_the_wrong_time_is_no_discount(sonnet, tmp_path):
    """The cut of Sonnet 5.5's reads, billed a day early, looks like a discount of 50 % on them."""
    lines = [replace(READS, day=f"2026-10-0{day}") for day in range(1, 7)]
    found = learn(Statement([bills.write_csv(tmp_path / "cur.csv", lines)]))
    assert found.offers == []
    assert summed(found.lines["other_rate"])[0] == 6 * 900_000_000_000
    assert found.notes == [
        (
            f"{OURS} claude-sonnet-5-5 global on_demand cache_read: 6 days from 2026-10-01 on at $0.1 a million, the "
            "list rate of 2026-10-07; a discount of 50 % would look the same"
        )
    ]


def test_extended_access_is_no_discount(tmp_path):
    """3.5 Sonnet in us-east-1 at the rate that other regions have: half of list there, and no discount."""
    head = "lineItem/UsageAccountId,lineItem/LineItemType,product/ProductName,lineItem/UsageType,"
    head += "lineItem/UsageStartDate,lineItem/UsageAmount,lineItem/UnblendedCost,pricing/unit,lineItem/CurrencyCode"
    rows = [
        f"{OURS},Usage,Amazon Bedrock,USE1-Claude3.5Sonnetv2-{meter}-tokens,2026-09-0{day},5000,{cost},1K tokens,USD"
        for day in range(1, 5)
        for meter, cost in (("input", "15"), ("output", "75"))
    ]
    (tmp_path / "cur.csv").write_text("\n".join([head, *rows]))
    found = learn(Statement([tmp_path / "cur.csv"]))
    assert found.offers == []
    assert "in zone standard" in found.notes[0]
    assert summed(found.lines["other_rate"])[:2] == (360 * 10**12, 720 * 10**12)


def test_credits_and_an_edp_are_apart(at_list, tmp_path):
    extra = [bills.apart("EdpDiscount", "-7.25"), bills.apart("Credit", "-50"), bills.apart("Refund", "-3")]
    found, statement = taught(tmp_path, at_list + extra)
    assert found == []
    assert {entry.kind for entry in statement.apart} == {"edp_discount", "credit", "refund"}


def test_what_is_free_and_what_is_taken_back_is_no_rate(at_list, tmp_path):
    one = next(line for line in at_list if line.meter == "input")
    free = replace(one, cost=Decimal(0), description="$0.00 for the first tokens (free tier)")
    back = replace(one, tokens=-one.tokens, cost=-one.cost, description="adjustment")
    statement = Statement([bills.write_csv(tmp_path / "cur.csv", [*at_list, free, back])])
    found = learn(statement)
    assert found.offers == []
    listed = int(one.cost * 10**12)
    assert summed(found.lines["free"])[:2] == (0, listed)
    assert summed(found.lines["taken_back"])[0] == -listed


@pytest.mark.parametrize("day", ["2026-09-01", "2026-09-06", "2026-09-12"])
def test_one_line_at_an_odd_price_is_no_discount(day, at_list, tmp_path):
    """A day is no rate: it is told as unclear, and the days about it stay as they are."""
    one = max((line for line in at_list if line.day == day), key=lambda line: line.cost)
    lines = [bills.dearer(line, "0.6") if line is one else line for line in at_list]
    statement = Statement([bills.write_csv(tmp_path / "cur.csv", lines)])
    found = learn(statement)
    assert found.offers == []
    (unclear,) = found.lines["unclear"]
    assert unclear.picos == int(one.cost * 6 / 10 * 10**12)
    assert rerate(found, BOOK, "").beyond == {"unclear": -int(one.cost * 4 / 10 * 10**12)}


def test_amounts_rounded_to_ten_digits_tell_the_same(at_list, tmp_path):
    rounded = [
        replace(line, cost=(line.cost * Decimal("0.875")).quantize(Decimal("1e-10"))) for line in at_list
    ]
    found, _ = taught(tmp_path, rounded)
    assert [offer["rates"] for offer in found] == [[{"percent_off": "12.5"}]]


@ANY_BILL
@given(
    st.sampled_from(["0.5", "2", "7.25", "12.5", "18", "33"]),
    st.sampled_from(["everything", "claude-opus-5", "claude-sonnet-4-6"]),
    st.integers(1, 9),
    st.integers(0, 1_000),
)
def test_what_was_planted_is_found(rates, tmp_path, off, what, day, seed):
    """Any percentage, of everything or of a model, from any day, in one account of two."""
    lines = bills.lines(bills.traffic(days=12, a_day=40, seed=seed), rates)
    factor = str(1 - Decimal(off) / 100)

    def planted(line: Line) -> bool:
        return line.account == OURS and line.day >= f"2026-09-{day:02}" and what in (line.model, "everything")

    found, _ = taught(tmp_path, list(map(where(planted, factor), lines)))
    rate = {"percent_off": off} if what == "everything" else {"model": what, "percent_off": off}
    assert [(offer["accounts"], offer["rates"]) for offer in found] == [([OURS], [rate])]
    before = [
        line.day
        for line in lines
        if line.account == OURS and what in (line.model, "everything") and not planted(line)
    ]
    first = min(line.day for line in lines if planted(line))
    assert max(before, default="") < found[0]["starts"] <= first  # what was not used yet tells no day


@ANY_BILL
@given(st.integers(0, 1_000))
def test_a_bill_at_list_teaches_no_discount(rates, tmp_path, seed):
    found, _ = taught(tmp_path, bills.lines(bills.traffic(days=8, a_day=30, seed=seed), rates))
    assert found == []


# --- the command -----------------------------------------------------------------------------------------------------


def run(capsys, *argv) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return int(exit_.value.code or 0), out, err


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """Where no farthing.toml and no ledger is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FARTHING_LEDGER", str(tmp_path / "none"))
    return tmp_path


def test_the_command_prints_a_contract_book_for_review(at_list, alone, capsys):
    lines = [bills.dearer(line, "0.875") if line.day >= "2026-09-05" else line for line in at_list]
    lines.append(bills.apart("EdpDiscount", "-7.25"))
    bill = bills.write_csv(alone / "cur.csv", lines)
    code, out, err = run(capsys, "learn", "--statement", bill, "--month", "2026-09")
    assert (code, err) == (0, "")
    assert "as it was billed" in out
    assert "edp_discount" in out
    text = out[out.index("# Offers as the bill") : out.index("# Teams")]
    (offer,) = read_offers(text, "printed")
    assert (offer.starts, offer.accounts) == (date(2026, 9, 5), frozenset({OURS, THEIRS}))
    assert "lines on 8 days" in text


def test_json_has_the_same_exactly(at_list, alone, capsys):
    bill = bills.write_csv(alone / "cur.csv", [bills.dearer(line, "0.9") for line in at_list])
    code, out, _ = run(capsys, "learn", "--statement", bill, "--json")
    said = json.loads(out)
    assert code == 0
    assert said["difference_usd"] == "0"
    assert Decimal(said["billed_usd"]) == sum(line.cost for line in at_list) * 9 / 10
    assert Decimal(said["listed_usd"]) == sum(line.cost for line in at_list)
    assert [rate["percent_off"] for offer in said["offers"] for rate in offer["rates"]] == ["10"]
    assert tomllib.loads(said["contract_toml"])["offers"]


def test_files_are_written_once(at_list, alone, capsys):
    bill = bills.write_csv(alone / "cur.csv", [bills.dearer(line, "0.9") for line in at_list])
    asked = ("learn", "--statement", bill, "--out", "contract.toml", "--teams-out", "teams.toml")
    assert run(capsys, *asked)[0] == 0
    assert load_offers(["contract.toml"])
    assert "[[offers]]" not in run(capsys, *asked, "--force")[1]
    Path("contract.toml").write_text("mine")
    code, _, err = run(capsys, *asked)
    assert (code, err) == (2, "farthing: contract.toml: is there already; --force overwrites it\n")
    assert Path("contract.toml").read_text() == "mine"


def test_a_bill_of_others_teaches_nothing(alone, capsys):
    line = Line("2026-09-01", OURS, "us-east-1", "", "", "", "", False, 5, Decimal(3), usage_type="BoxUsage:m5.large",
                product="Amazon Elastic Compute Cloud")  # fmt: skip
    bill = bills.write_csv(alone / "cur.csv", [line])
    code, out, _ = run(capsys, "learn", "--statement", bill)
    assert code == 0
    assert out.startswith("no tokens of Claude in it\n")
