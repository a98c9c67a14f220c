"""FOCUS out: every rule of a column, and what is written is what is read back."""

import csv
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from farthing import cli
from farthing.cells import Question
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
    "BillingAccountId", "BillingCurrency", "ChargeCategory", "ChargeDescription", "ServiceName", "ProviderName",
    "PublisherName", "InvoiceIssuerName", "PricingUnit", "ServiceCategory",
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


def test_the_rules_of_the_columns(ledger, tmp_path):
    export(ledger, Question(), tmp_path / "focus.csv", ("team",))
    found = rows(tmp_path / "focus.csv")
    assert tuple(found[0]) == COLUMNS
    for row in found:
        for name in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "PricingQuantity"):
            assert Decimal(row[name]) >= 0, name  # in dollars
        for name in MANDATORY:
            assert row[name], name
        starts, ends = (datetime.fromisoformat(row[f"ChargePeriod{end}"]) for end in ("Start", "End"))
        first, beyond = (datetime.fromisoformat(row[f"BillingPeriod{end}"]) for end in ("Start", "End"))
        assert first <= starts < ends <= beyond
        assert (first.day, beyond.day) == (1, 1)
        assert row["BillingCurrency"] == "USD"
        if row["ChargeCategory"] == "Usage":
            assert Decimal(row["ListUnitPrice"]) * Decimal(row["PricingQuantity"]) == Decimal(row["ListCost"])
            assert row["ConsumedQuantity"] == row["PricingQuantity"]
            assert set(json.loads(row["Tags"])) <= {"team"}


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
