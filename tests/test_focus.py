"""FOCUS out: every rule of a column, and what is written is what is read back."""

import csv
import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import duckdb
import pytest

from farthing import cli
from farthing.cells import Question
from farthing.config import Account, Config
from farthing.exporters.focus import COLUMNS, export
from farthing.ledger import Ledger
from farthing.statement import Statement
from farthing.usage import EPOCH, Facts, Usage

IDS = (
    "global.anthropic.claude-opus-4-6-v1",
    "anthropic.claude-sonnet-4-6",
    "eu.anthropic.claude-haiku-4-5-20251001-v1:0",
    "anthropic.claude-from-tomorrow",
)
MANDATORY = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost", "EffectiveCost",
    "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "PricingCurrency", "ProviderName",
    "PublisherName", "ServiceCategory", "ServiceName", "SkuMeter",
)  # fmt: skip


@pytest.fixture(scope="module")
def ledger(tmp_path_factory) -> Ledger:
    made = Ledger(tmp_path_factory.mktemp("focus") / "ledger")
    at = datetime(2026, 9, 30, 22, tzinfo=UTC)
    usages = [
        Usage(
            (at + timedelta(minutes=20 * i) - EPOCH) // timedelta(microseconds=1), f"r{i}", "",
            ((Facts("bedrock_log", "bedrock", IDS[i % 4], region="eu-central-1", account="111122223333",
                    mode="batch" if i % 8 == 1 else ""),
              (1_000 + i, 7 * i, 0, 0, 0) if i % 8 == 1 else (1_000 + i, 7 * i, 90_000, 11, i)),),
            (("team", "search" if i % 3 else "ads"),),
        )
        for i in range(40)
    ]  # fmt: skip
    usages += [
        Usage((at - EPOCH) // timedelta(microseconds=1), f"c{i}", "",
              ((Facts("litellm", "claude_aws", "claude-opus-5", account="111122223333"), (10, 20, 0, 0, 0)),))
        for i in range(3)
    ]  # fmt: skip
    made.append(usages)
    return made


def rows(path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_written_is_what_is_read_back(ledger, tmp_path):
    for name in ("focus.csv", "focus.parquet"):
        done = export(ledger, Question(), tmp_path / name, ("team",))
        read = Statement([tmp_path / name])
        ccu = sum(entry.picos for entry in read.apart)
        assert read.billed_picos + ccu == done.picos > ccu > 0
        assert all(line.list_picos == line.billed_picos for line in read.billed)
        assert not read.undecoded
        assert done.unpriced_calls == 10


# --- the rules of the columns -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(ledger, tmp_path_factory):
    """Rows of usage and of purchases, by an account that has a name and an offer, and by one that has neither."""
    folder = tmp_path_factory.mktemp("rules")
    (folder / "offer.toml").write_text(OFFER)
    config = Config(accounts={"111122223333": Account(name="Main")}, contracts=(str(folder / "offer.toml"),))
    export(ledger, Question(config=config, tz="Asia/Tokyo"), folder / "focus.csv", ("team",))
    return rows(folder / "focus.csv")


OFFER = """
[[offers]]
name = "ours"
signed = 2026-01-01
starts = 2026-01-01
accounts = ["111122223333"]

[[offers.rates]]
model = "claude-opus-4-6"
percent_off = "10"
"""


def test_columns_are_those_of_the_specification_and_extra_ones_say_so(found):
    assert tuple(found[0]) == COLUMNS
    assert len(set(COLUMNS)) == len(COLUMNS)
    official = re.compile(r"[A-Z][A-Za-z]+|x_[A-Z][A-Za-z]+")
    assert all(official.fullmatch(name) for name in COLUMNS)


@pytest.mark.parametrize("name", MANDATORY)
def test_what_must_not_be_null(found, name):
    assert all(row[name] for row in found)


@pytest.mark.parametrize(
    "name",
    ["BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "ListUnitPrice", "ContractedUnitPrice",
     "PricingQuantity", "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice",
     "PricingCurrencyContractedUnitPrice"],
)  # fmt: skip
def test_amounts_are_plain_numbers(found, name):
    """No exponent, no sign of a currency, no grouping."""
    assert all(re.fullmatch(r"\d+(\.\d+)?", row[name]) for row in found)


def test_periods_are_half_open_hours_of_utc_within_their_month(found):
    for row in found:
        for name in ("ChargePeriodStart", "ChargePeriodEnd", "BillingPeriodStart", "BillingPeriodEnd"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT00:00:00Z", row[name])
        starts, ends = (datetime.fromisoformat(row[f"ChargePeriod{end}"]) for end in ("Start", "End"))
        first, beyond = (datetime.fromisoformat(row[f"BillingPeriod{end}"]) for end in ("Start", "End"))
        assert first <= starts < ends <= beyond
        assert ends - starts == timedelta(days=1)
        assert (first.day, beyond.day, (beyond - first).days) in ((1, 1, 30), (1, 1, 31))
    days = {row["ChargePeriodStart"][:10] for row in found if row["ChargeCategory"] == "Usage"}
    assert days == {"2026-09-30", "2026-10-01"}  # though the question was of Tokyo, where all of it is later


def test_words_that_are_given(found):
    for row in found:
        assert row["ChargeCategory"] in ("Usage", "Purchase")
        assert (
            row["ChargeFrequency"] == {"Usage": "Usage-Based", "Purchase": "Recurring"}[row["ChargeCategory"]]
        )
        assert row["ChargeClass"] == ""  # nothing is a correction
        assert row["PricingCategory"] == "Standard"
        assert (row["ServiceCategory"], row["ServiceSubcategory"]) == (
            "AI and Machine Learning",
            "Generative AI",
        )
        assert row["BillingCurrency"] == "USD"
        assert row["InvoiceId"] == row["CommitmentDiscountStatus"] == ""
        assert len(row["BillingCurrency"]) == 3


def test_unit_price_times_quantity_is_cost(found):
    for row in found:
        quantity = Decimal(row["PricingQuantity"])
        assert Decimal(row["ListUnitPrice"]) * quantity == Decimal(row["ListCost"])
        assert Decimal(row["ContractedUnitPrice"]) * quantity == Decimal(row["ContractedCost"])
        if row["ChargeCategory"] == "Usage":
            price = Decimal(row["PricingCurrencyContractedUnitPrice"])
            assert price * quantity == Decimal(row["PricingCurrencyEffectiveCost"])


def test_consumed_is_told_of_usage_alone(found):
    for row in found:
        used = row["ChargeCategory"] == "Usage"
        assert bool(row["ConsumedQuantity"]) == bool(row["ConsumedUnit"]) == used
        assert not used or row["ConsumedQuantity"] == row["PricingQuantity"]


def test_names_go_with_their_ids(found):
    assert {(row["SubAccountId"], row["SubAccountName"]) for row in found} == {("111122223333", "Main")}
    regions = {(row["RegionId"], row["RegionName"]) for row in found}
    assert regions == {("eu-central-1", "Europe (Frankfurt)"), ("", "")}
    for row in found:
        assert bool(row["SkuId"]) == bool(row["SkuPriceId"]) == bool(row["SkuMeter"])
    by_price: dict[str, str] = {}
    for row in found:
        assert by_price.setdefault(row["SkuPriceId"], row["SkuId"]) == row["SkuId"]


def test_tags_and_details_are_json(found):
    for row in found:
        assert set(json.loads(row["Tags"])) <= {"team"}
        assert all(name.startswith("x_") for name in json.loads(row["SkuPriceDetails"] or "{}"))
    assert {json.loads(row["Tags"]).get("team") for row in found} == {"search", "ads", None}


def test_an_offer_is_the_contracted_cost_of_its_account(found):
    for row in found:
        share = Decimal("0.9") if row["SkuId"].startswith("bedrock/claude-opus-4-6/") else 1
        assert Decimal(row["ContractedCost"]) == Decimal(row["ListCost"]) * share
    assert any(row["ContractedCost"] != row["ListCost"] for row in found)


def test_parquet_has_types(ledger, tmp_path):
    export(ledger, Question(), tmp_path / "focus.parquet")
    read = duckdb.read_parquet(str(tmp_path / "focus.parquet"))
    for name, kind in zip(read.columns, map(str, read.types), strict=True):
        if name.endswith(("Cost", "Quantity", "UnitPrice")):
            assert kind == "DECIMAL(38,12)", name
        elif name.endswith(("PeriodStart", "PeriodEnd")):
            assert kind == "TIMESTAMP WITH TIME ZONE", name
        else:
            assert kind == "VARCHAR", name
    con = duckdb.execute(
        f"SELECT count(*) FROM '{tmp_path / 'focus.parquet'}' WHERE InvoiceId = '' OR RegionId = ''"
    )
    assert con.fetchall() == [(0,)]  # empty is null


def test_a_virtual_currency_is_bought_and_used_but_never_added(ledger, tmp_path):
    export(ledger, Question(), tmp_path / "focus.csv")
    ccu = [row for row in rows(tmp_path / "focus.csv") if row["ServiceName"] == "Claude Platform on AWS"]
    bought = [row for row in ccu if row["ChargeCategory"] == "Purchase"]
    used = [row for row in ccu if row["ChargeCategory"] == "Usage"]
    assert len(bought) == 1
    assert {row["EffectiveCost"] for row in bought} == {"0"}
    assert {row["BilledCost"] for row in used} == {"0"}
    assert {row["PricingCurrency"] for row in used} == {"CCU"}
    assert sum(Decimal(row["EffectiveCost"]) for row in used) == Decimal(bought[0]["BilledCost"])
    assert Decimal(bought[0]["PricingQuantity"]) / 100 == Decimal(bought[0]["BilledCost"])


def test_command(ledger, tmp_path, capsys):
    def run(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main([*map(str, words), "--ledger", str(ledger.folder)])
        return ended.value.code, capsys.readouterr()

    code, said = run("export", "focus", tmp_path / "out.csv", "--json")
    assert (code, json.loads(said.out)["rows"]) == (0, len(rows(tmp_path / "out.csv")))
    assert run("export", "focus", tmp_path / "out.xlsx")[0] == 2
    assert run("export", "focus", tmp_path / "none" / "out.csv")[0] == 2


# --- the validator, and who reads it -------------------------------------------------------------------------------


def test_the_reader_of_the_validator_lets_only_known_faults_pass(monkeypatch, tmp_path, capsys):
    """The validator itself ends with 0 in all of these cases."""
    from tools import focus_validate

    monkeypatch.setattr(focus_validate, "_pythons", lambda: iter(["python3.12"]))
    monkeypatch.setattr(focus_validate, "_installed", lambda python: tmp_path / python)
    said = "Total: 3 | Pass: {} | Fail: {} | Skipped: 1\n"
    known = "❌ InvoiceId-C-005-C: FAIL  (violations=3)\n"
    for answer, code in (
        (said.format(2, 0), 0),
        (said.format(1, 1) + known, 0),
        (
            said.format(0, 2)
            + known
            + "❌ SkuMeter-C-005-C: FAIL  (violations=1, msg=SkuMeter SHOULD NOT be NULL.)\n",
            1,
        ),
        (said.format(1, 1), 1),
        ("Traceback: no such file", 1),
    ):
        monkeypatch.setattr(focus_validate, "_validated", lambda *_, answer=answer: answer)
        assert focus_validate.main([str(tmp_path / "focus.parquet")]) == code, answer
    monkeypatch.setattr(focus_validate, "_pythons", lambda: iter(()))
    assert focus_validate.main([]) == 0
    assert "skipped" in capsys.readouterr().out
