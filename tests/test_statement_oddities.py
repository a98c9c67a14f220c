"""Bills as AWS and people really leave them lying about, and the rarer causes of a difference."""

import gzip
import json
import os
from collections import defaultdict
from dataclasses import replace
from datetime import date
from decimal import Decimal

import duckdb
import pytest

from farthing.billed import waterfall
from farthing.statement import Statement, StatementError
from tests import bills
from tests.test_statement import SEPTEMBER, against, cost, named, seen, summed, wanted  # noqa: F401

CODE = "3xk2fjw9qd0v7b6m1n8p5t4r2"
LINE = bills.Line("2026-09-05", "111122223333", "us-east-1", "claude-opus-4-6", "global", "on_demand", "input", False,
                  1_500_000, Decimal("7.5"))  # fmt: skip
OTHER = replace(LINE, account="444455556666", tokens=1_000_000, cost=Decimal(5))
OLD = replace(LINE, region="ap-northeast-1", model="claude-3-5-sonnet-v2", endpoint="regional",
              usage_type="APN1-Claude3.5Sonnetv2-input-tokens", product="Amazon Bedrock Service",
              tokens=10_000)  # fmt: skip


@pytest.fixture(scope="module")
def rates(shared):
    return bills.Rates(shared / "facts" / "rates.json")


@pytest.fixture(scope="module")
def calls():
    return bills.traffic(days=6, a_day=40)


@pytest.fixture(scope="module")
def billed(calls, rates):
    return bills.lines(calls, rates)


def changed(**values):
    """A form of line in legacy CUR, with these columns (by their last name) otherwise."""

    def form(line, number=0):
        row = bills.legacy(line, number)
        by_name = {name.partition("/")[2]: name for name in row}
        return row | {by_name[name]: value for name, value in values.items()}

    return form


def write(path, *rows):
    """Lines, each with its own changed columns."""
    made = [changed(**values)(line, i) for i, (line, values) in enumerate(rows)]
    return bills.write_csv(path, [line for line, _ in rows], lambda _, number: made[number])


def newer(*paths):
    """Each of these files newer than those before."""
    for when, path in enumerate(paths, 1):
        os.utime(path, (when, when))
    return paths


# --- lines ---------------------------------------------------------------------------------------------------------


def test_a_tax_that_names_no_more_than_a_product_code_is_of_that_product(tmp_path):
    bare = {"UsageType": "", "ProductName": "", "LineItemType": "Tax"}
    path = write(
        tmp_path / "cur.csv",
        (LINE, {}),
        (LINE, bare | {"UnblendedCost": "0.75", "LineItemDescription": f"Tax for product code {CODE}"}),
        (LINE, bare | {"UnblendedCost": "9", "LineItemDescription": "Tax for product code AmazonS3",
                       "ProductCode": "AmazonS3"}),
    )  # fmt: skip
    assert [(entry.kind, entry.picos) for entry in Statement([path]).apart] == [("tax", 750_000_000_000)]


def test_tokens_of_no_named_product_are_listed(tmp_path):
    path = write(tmp_path / "cur.csv", (LINE, {"ProductName": "", "LineItemDescription": ""}))
    found = Statement([path])
    assert [(line.picos, line.why) for line in found.undecoded] == [
        (7_500_000_000_000, "no product name that tells the model")
    ]
    assert found.decoded_share == 0


@pytest.mark.parametrize(
    ("start", "day"),
    [
        ("2026-09-06T01:00:00+02:00", date(2026, 9, 5)),
        ("2026-09-05 23:30:00-05:00", date(2026, 9, 6)),
        ("2026-09-05T23:30:00.000Z", date(2026, 9, 5)),
    ],
)
def test_days_are_utc(start, day, tmp_path):
    found = Statement([write(tmp_path / "cur.csv", (LINE, {"UsageStartDate": start}))])
    assert [line.day for line in found.billed] == [day]


def test_amounts_with_an_exponent(tmp_path):
    path = write(tmp_path / "cur.csv", (LINE, {"UsageAmount": "3.0E-6", "UnblendedCost": "1.5E-5"}))
    (line,) = Statement([path]).billed
    assert (line.tokens, line.billed_picos, line.list_picos) == (3, 15_000_000, 15_000_000)


def test_an_amount_that_cannot_be_in_its_unit_is_not_decoded(tmp_path):
    found = Statement([write(tmp_path / "cur.csv", (LINE, {"UsageAmount": "1500000"}))])
    assert not found.billed
    assert (found.decoded_share, found.undecoded[0].picos) == (Decimal(0), 7_500_000_000_000)
    assert "unit" in found.undecoded[0].why


def test_the_decoded_share_of_money_that_cancels_out(tmp_path):
    odd = {"UsageType": "USE1-MP:USE1_Odd-Units", "UnblendedCost": "-7.5"}
    assert Statement([write(tmp_path / "cur.csv", (LINE, {}), (LINE, odd))]).decoded_share == Decimal("0.5")


def test_claude_that_is_not_of_bedrock_keeps_its_money(tmp_path):
    seats = {"UsageType": "Seats", "ProductName": "Claude for Enterprise", "LineItemDescription": ""}
    assert [e.kind for e in Statement([write(tmp_path / "cur.csv", (LINE, seats))]).apart] == ["other"]


# --- the same money ------------------------------------------------------------------------------------------------


def test_a_delivery_in_two_forms_counts_once(billed, tmp_path):
    one = bills.write_csv(tmp_path / "one.csv", billed)
    (tmp_path / "one.csv.gz").write_bytes(gzip.compress(one.read_bytes()))
    assert summed(Statement([tmp_path])) == wanted(billed)


def test_a_later_delivery_beside_the_earlier(billed, tmp_path):
    newer(
        bills.write_csv(tmp_path / "z.csv", billed[:-20]),
        bills.write_csv(tmp_path / "a.csv", list(reversed(billed))),
    )
    found = Statement([tmp_path])
    assert summed(found) == wanted(billed)
    assert any("same money" in note for note in found.loaded.notes)


def test_parts_of_one_delivery_are_added(billed, tmp_path):
    bills.write_csv(tmp_path / "1.csv", billed[::2])
    bills.write_csv(tmp_path / "2.csv", billed[1::2])
    assert summed(Statement([tmp_path])) == wanted(billed)


@pytest.mark.parametrize("folders", [("", ""), ("payer", "member")])
@pytest.mark.parametrize("last", ["payer", "member"])
def test_a_members_export_beside_the_payers(folders, last, tmp_path):
    paths = {
        "payer": bills.write_csv(tmp_path / folders[0] / "payer.csv", [LINE, OTHER]),
        "member": bills.write_csv(tmp_path / folders[1] / "member.csv", [LINE]),
    }
    newer(*sorted(paths.values(), key=lambda path: path.stem == last))
    assert summed(Statement([tmp_path])) == wanted([LINE, OTHER])


def test_several_payers_are_added(tmp_path):
    bills.write_csv(tmp_path / "a.csv", [LINE])
    bills.write_csv(tmp_path / "b.csv", [OTHER], changed(PayerAccountId="888877776666"))
    assert summed(Statement([tmp_path])) == wanted([LINE, OTHER])


def test_deliveries_that_tell_no_billing_period(tmp_path):
    for name in ("a", "b"):
        path = bills.write_csv(tmp_path / name / "cur.csv", [LINE])
        path.write_text(path.read_text().replace("BillingPeriodStartDate", "Period") + "\n" * (name == "b"))
    assert summed(Statement([tmp_path])) == wanted([LINE])


# --- other shapes --------------------------------------------------------------------------------------------------


def test_parquet_with_doubles_and_zoned_times(billed, tmp_path):
    path = bills.write_parquet(tmp_path / "two.parquet", billed)
    duckdb.sql(f"""
        COPY (SELECT * REPLACE (CAST(line_item_usage_amount AS DOUBLE) AS line_item_usage_amount,
                                CAST(line_item_unblended_cost AS DOUBLE) AS line_item_unblended_cost,
                                CAST(line_item_usage_start_date || 'Z' AS TIMESTAMPTZ) AS line_item_usage_start_date)
              FROM '{path}') TO '{tmp_path / "double.parquet"}' (FORMAT parquet)""")
    assert summed(Statement([tmp_path / "double.parquet"])) == wanted(billed)


def explorer(path, found, *, monthly=False):
    """Cost Explorer grouped as it mostly is: by service and usage type, of no account."""
    groups: dict[str, dict] = defaultdict(lambda: defaultdict(lambda: [Decimal(), Decimal()]))
    for line in found:
        said = bills.written(line)
        total = groups["2026-09-01" if monthly else line.day][said["product"], said["usage_type"]]
        total[0] += line.cost
        total[1] += Decimal(said["amount"])
    document = {
        "GroupDefinitions": [{"Type": "DIMENSION", "Key": key} for key in ("SERVICE", "USAGE_TYPE")],
        "ResultsByTime": [
            {"TimePeriod": {"Start": day, "End": "2026-10-01" if monthly else day}, "Groups": [
                {"Keys": list(keys), "Metrics": {"UnblendedCost": {"Amount": f"{cost}", "Unit": "USD"},
                                                 "UsageQuantity": {"Amount": f"{amount}", "Unit": "N/A"}}}
                for keys, (cost, amount) in rows.items()]}
            for day, rows in groups.items()
        ],
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("monthly", [False, True])
def test_cost_explorer_without_accounts_reconciles(monthly, calls, billed, tmp_path):
    from farthing.ledger import Ledger
    from farthing.reconcile import reconcile

    ledger = Ledger(tmp_path / "ledger")
    ledger.append(seen(calls))
    found = reconcile(Statement([explorer(tmp_path / "ce.json", billed, monthly=monthly)]), ledger, SEPTEMBER)
    assert (found.difference_picos, found.explained, found.unexplained) == (0, [], [])
    assert found.billed_picos == int(cost(billed) * 10**12)


def test_cost_explorer_without_accounts_beside_a_cur(billed, tmp_path):
    explorer(tmp_path / "ce.json", billed)
    bills.write_csv(tmp_path / "cur.csv", billed)
    assert summed(Statement([tmp_path])) == wanted(billed)


@pytest.mark.parametrize(
    "metrics", [{"BlendedCost": {"Amount": "1"}}, None, {"UnblendedCost": {"Amount": "x"}}]
)
def test_cost_explorer_without_what_is_needed(metrics, tmp_path):
    group = {"Keys": ["a", "b"], "Metrics": metrics}
    keys = [{"Key": "SERVICE"}, {"Key": "USAGE_TYPE"}]
    period = {"TimePeriod": {"Start": "2026-09-01", "End": "2026-09-02"}, "Groups": [group]}
    (tmp_path / "ce.json").write_text(json.dumps({"GroupDefinitions": keys, "ResultsByTime": [period]}))
    with pytest.raises(StatementError, match="--metrics UnblendedCost UsageQuantity"):
        Statement([tmp_path / "ce.json"])


def test_a_bill_without_the_month_says_so(tmp_path):
    path = bills.write_csv(tmp_path / "cur.csv", [LINE])
    found = Statement([path], since=date(2026, 10, 1), until=date(2026, 10, 31))
    assert found.loaded.notes == [
        "nothing of 2026-10-01 to 2026-10-31 is in it: its lines are of 2026-09-05 to 2026-09-05"
    ]
    assert waterfall(found)[-1]["usd"] == 0


# --- causes --------------------------------------------------------------------------------------------------------


def test_a_discount_is_named_with_its_percentage(against, calls, billed):  # noqa: F811
    lines = [bills.dearer(line, "0.88") if line.account == "111122223333" else line for line in billed]
    assert named(against(lines, calls)) == {"discount of 12 %": cost(lines) - cost(billed)}


def test_one_cheap_rate_is_no_discount(against, calls, billed):  # noqa: F811
    lines = [
        bills.dearer(line, "0.5") if (line.model, line.meter) == ("claude-opus-5", "output") else line
        for line in billed
    ]
    assert named(against(lines, calls)) == {"rate other than the book's": cost(lines) - cost(billed)}


def test_extended_access_is_named(against):  # noqa: F811
    call = bills.Call(bills.MONTH, "111122223333", "ap-northeast-1", OLD.model, "regional", "on_demand",
                      (10_000_000, 0, 0, 0, 0))  # fmt: skip
    line = replace(OLD, day="2026-09-01", cost=Decimal(60))  # where the book has 3 dollars a million
    assert named(against([line], [call])) == {"extended access": Decimal(30)}


def test_two_zones_of_one_model_in_an_account(against):  # noqa: F811
    call = bills.Call(bills.MONTH, "111122223333", "ap-northeast-1", OLD.model, "regional", "on_demand",
                      (10_000_000, 0, 0, 0, 0))  # fmt: skip
    line = replace(OLD, day="2026-09-01", cost=Decimal(30))
    there = replace(
        line, region="us-east-1", usage_type=OLD.usage_type.replace("APN1", "USE1"), cost=Decimal(60)
    )
    assert against([line, there], [call, replace(call, region="us-east-1")]).difference_picos == 0


def test_lines_twice_in_one_file(against, calls, billed):  # noqa: F811
    assert named(against(billed + billed, calls)) == {
        "billed more than once (duplicate delivery)": cost(billed)
    }


def test_late_lines(against, calls, billed):  # noqa: F811
    late = [line for line in billed if (line.day, line.model) == ("2026-09-02", "claude-opus-5")]
    assert named(against([line for line in billed if line not in late], calls)) == {
        "line missing from the bill, or late": -cost(late)
    }


def test_usage_taken_back(against, calls, billed):  # noqa: F811
    first = billed[0]
    back = replace(first, tokens=-first.tokens, cost=-first.cost)
    found = named(against([*billed, back], calls))
    assert found == {"usage taken back by negative lines": -first.cost}


def test_possible_duplicates_of_ours(tmp_path, calls, billed):
    from farthing.ledger import Ledger
    from farthing.reconcile import reconcile

    some = [usage for usage in seen(calls) if usage.parts[0][0].mode != "batch"][:20]
    again = [
        usage._replace(request_id=f"other-{i}", parts=tuple((f._replace(source="litellm"), t) for f, t in usage.parts))
        for i, usage in enumerate(some)
    ]  # fmt: skip
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(seen(calls) + again)
    found = reconcile(Statement([bills.write_csv(tmp_path / "bill.csv", billed)]), ledger, SEPTEMBER)
    assert set(named(found)) == {"possible duplicates of ours"}
    assert found.difference_picos < 0


def test_calls_that_have_no_price_here(tmp_path, calls, billed):
    from farthing.ledger import Ledger
    from farthing.reconcile import reconcile

    opaque = "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/abc123def456"
    usages = [
        usage._replace(parts=tuple((f._replace(model_id=opaque), tokens) for f, tokens in usage.parts))
        for usage in seen(calls)
    ]
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(usages)
    found = reconcile(Statement([bills.write_csv(tmp_path / "bill.csv", billed)]), ledger, SEPTEMBER)
    assert named(found) == {"calls that we could not price": cost(billed)}


def test_a_ledger_that_names_no_accounts(tmp_path, calls, billed):
    from farthing.ledger import Ledger
    from farthing.reconcile import reconcile

    usages = [
        usage._replace(parts=tuple((f._replace(account=""), tokens) for f, tokens in usage.parts))
        for usage in seen(calls)
    ]
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(usages)
    found = reconcile(Statement([bills.write_csv(tmp_path / "bill.csv", billed)]), ledger, SEPTEMBER)
    assert (found.difference_picos, named(found)) == (0, {})


# --- corrections -----------------------------------------------------------------------------------------------------


def corrected(tmp_path, **values):
    """A line of usage, and one of FOCUS that corrects it after it was invoiced."""
    back = replace(LINE, tokens=-500_000, cost=Decimal("-2.5"))
    rows = [bills.focus(LINE), bills.focus(back) | {"ChargeClass": "Correction"} | values]
    return Statement([bills.write_csv(tmp_path / "focus.csv", [LINE, back], lambda _, i: rows[i])])


def test_a_correction_that_tells_its_tokens_is_usage_taken_back(tmp_path):
    found = corrected(tmp_path)
    assert sorted((line.tokens, line.billed_picos) for line in found.billed) == [
        (-500_000, -2_500_000_000_000), (1_500_000, 7_500_000_000_000),
    ]  # fmt: skip
    assert (found.apart, found.undecoded, found.decoded_share) == ([], [], 1)


@pytest.mark.parametrize(
    "values",
    [
        {"PricingQuantity": "NULL", "PricingUnit": "NULL"},  # FOCUS asks for none of a correction
        {"PricingQuantity": "1"},  # a refund, once
        {"x_UsageType": "NULL"},
        {"x_UsageType": "USE1-MP:USE1_Refund-Units"},
    ],
)
def test_a_correction_without_tokens_is_apart(values, tmp_path):
    found = corrected(tmp_path, **values)
    assert [(line.tokens, line.billed_picos) for line in found.billed] == [(1_500_000, 7_500_000_000_000)]
    assert [(one.kind, one.picos, one.lines) for one in found.apart] == [
        ("correction", -2_500_000_000_000, 1)
    ]
    assert (found.undecoded, found.decoded_share) == ([], 1)
    groups = {(group.kind, group.picos) for group in found.grouped(["account"])}
    assert groups == {("tokens", 7_500_000_000_000), ("correction", -2_500_000_000_000)}


# --- months that are left out ----------------------------------------------------------------------------------------


def test_lines_of_other_months_that_are_left_out_are_counted(tmp_path):
    august, september = replace(LINE, day="2026-08-31"), LINE
    path = bills.write_csv(tmp_path / "cur.csv", [august, replace(august, day="2026-08-02"), september])
    found = Statement([path], since=date(2026, 9, 1), until=date(2026, 9, 30))
    assert found.loaded.notes == [
        "2 lines of Claude or Bedrock are of 2026-08-02 to 2026-08-31, not of 2026-09-01 to 2026-09-30, and left out"
    ]
    assert Statement([path]).loaded.notes == []
