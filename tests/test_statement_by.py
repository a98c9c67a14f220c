"""A bill by any keys, and what was bought ahead: exact sums, and nothing that the bill does not tell."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from farthing import cli
from farthing.ledger import Ledger
from farthing.statement import Commitment, Statement
from farthing.usage import EPOCH, Facts, Usage
from tests import bills

LINE = bills.Line("2026-09-05", "111122223333", "us-east-1", "claude-opus-4-6", "global", "on_demand", "input", False,
                  1_500_000, Decimal("7.5"))  # fmt: skip
OPUS = "Claude Opus 4.6 (Amazon Bedrock Edition)"
PICOS = 10**12


@pytest.fixture(scope="module")
def rates(shared):
    return bills.Rates(shared / "facts" / "rates.json")


@pytest.fixture(scope="module")
def billed(rates):
    return bills.lines(bills.traffic(days=6, a_day=40), rates)


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    return ended.value.code, capsys.readouterr()


def picos(lines) -> int:
    return int(sum((line.cost for line in lines), Decimal()) * PICOS)


# --- by any keys ---------------------------------------------------------------------------------------------------


def owner(line):
    """A principal and tags that follow from the line, so that a test can work them out again."""
    team = {"claude-opus-5": "search", "claude-haiku-4-5": "ads"}.get(line.model, "")
    return team, f"arn:aws:sts::{line.account}:assumed-role/{line.meter}/s", f"arn:profile/{line.endpoint}"


def _legacy(line):
    team, _, resource = owner(line)
    return {"resourceTags/user:team": team, "lineItem/ResourceId": resource}


def _cur2(line):
    team, principal, resource = owner(line)
    tags = {"user_team": team} if team else {}
    return {
        "resource_tags": json.dumps(tags),
        "line_item_iam_principal": principal,
        "line_item_resource_id": resource,
    }


def _cur2_tags(line):
    team, principal, resource = owner(line)
    told = {"iamPrincipal/team": team} if team else {"iamPrincipal/other": "x"}
    return {"tags": json.dumps(told), "line_item_iam_principal": principal, "line_item_resource_id": resource}


def _focus(line):
    team, _, resource = owner(line)
    return {"Tags": json.dumps({"team": team} if team else {}), "ResourceId": resource}


FORMS = {
    "legacy": bills.with_columns(bills.legacy, _legacy),
    "cur2": bills.with_columns(bills.cur2, _cur2),
    "cur2, tags": bills.with_columns(bills.cur2, _cur2_tags),
    "focus": bills.with_columns(bills.focus, _focus),
}


@pytest.mark.parametrize("name", FORMS)
def test_tags_resources_and_principals_sum_to_the_bill(name, billed, tmp_path):
    keys = ("tag:team", "resource", "model")
    path = bills.write_csv(tmp_path / "bill.csv", [*billed, bills.apart("Credit", "-50")], FORMS[name])
    found = Statement([path])
    groups = found.grouped(keys)
    expected: dict = {}
    for line in billed:
        team, _, resource = owner(line)
        tokens, cost = expected.get((team, resource, line.model), (0, 0))
        expected[team, resource, line.model] = tokens + line.tokens, cost + int(line.cost * PICOS)
    assert {g.values: (g.tokens, g.picos) for g in groups if g.kind == "tokens"} == expected
    assert all(g.list_picos == g.picos == g.unblended_picos for g in groups if g.kind == "tokens")
    assert sum(g.picos for g in groups) == picos(billed) - 50 * PICOS
    assert sum(g.lines for g in groups) == len(billed) + 1


def test_tags_of_a_map_in_parquet(billed, tmp_path):
    import duckdb

    path = bills.write_parquet(tmp_path / "plain.parquet", billed)
    duckdb.sql(f"""
        COPY (SELECT *, map(['user_cost_centre'], [line_item_usage_account_id]) AS resource_tags,
                     line_item_usage_type AS line_item_iam_principal FROM '{path}')
        TO '{tmp_path / "tagged.parquet"}' (FORMAT parquet)""")
    keys = ("tag:Cost Centre", "account", "principal", "usage_type")
    groups = Statement([tmp_path / "tagged.parquet"]).grouped(keys)
    assert all(g.values[0] == g.values[1] and g.values[2] == g.values[3] for g in groups)
    assert sum(g.picos for g in groups) == picos(billed)


@pytest.mark.parametrize(
    "keys", [("account", "model"), ("day", "meter", "mode"), ("invoice", "entity", "currency"), ()]
)
def test_any_keys_sum_to_the_same(keys, billed, tmp_path):
    found = Statement([bills.write_csv(tmp_path / "bill.csv", billed)])
    groups = found.grouped(keys)
    assert sum(g.picos for g in groups) == found.billed_picos == picos(billed)
    assert sum(g.tokens for g in groups) == sum(line.tokens for line in billed)
    assert len({(g.values, g.kind) for g in groups}) == len(groups)
    if keys == ("invoice", "entity", "currency"):
        assert {g.values for g in groups} == {("INV-1", "AWS Marketplace", "USD"), ("INV-1", "AWS", "USD")}


def test_every_kind_of_money_is_in_it(tmp_path):
    odd = replace(LINE, usage_type="USE1-MP:USE1_Odd-Units", product=OPUS, cost=Decimal("0.5"))
    guard = replace(
        LINE, usage_type="USE1-Guardrail-TopicPolicyUnitsConsumed", product="Amazon Bedrock", cost=Decimal(2)
    )
    far = replace(LINE, meter="output", cost=Decimal(100_000))  # no such price: its unit is another
    lines = [LINE, odd, guard, far, bills.apart("EdpDiscount", "-1"), bills.apart("Tax", "3")]
    path = bills.write_csv(tmp_path / "bill.csv", lines)
    found = Statement([path])
    kinds = {g.kind: g.picos for g in found.grouped(("account",)) if g.kind != "undecoded"}
    assert kinds == {
        "tokens": 7_500_000_000_000,
        "guardrail": 2 * PICOS,
        "edp_discount": -PICOS,
        "tax": 3 * PICOS,
    }
    whole = found.billed_picos + sum(e.picos for e in found.apart) + sum(u.picos for u in found.undecoded)
    assert sum(g.picos for g in found.grouped(("model",))) == whole == picos(lines)
    assert "edp_discount" not in {g.kind for g in Statement([path], cost="net").grouped(("account",))}


def test_a_rate_that_the_book_lacks_is_unknown_for_the_whole_group(billed, tmp_path):
    fast = replace(
        LINE, usage_type="USE1-Claude4.6Sonnet-input-tokens-flex", product="Amazon Bedrock Service", tokens=5
    )
    found = Statement([bills.write_csv(tmp_path / "bill.csv", [*billed, fast])])
    by_mode = {g.values: g.list_picos for g in found.grouped(("mode",))}
    assert by_mode["flex",] is None
    assert by_mode["on_demand",] == picos(line for line in billed if line.mode == "on_demand")
    (whole,) = found.grouped(("platform",))
    assert whole.list_picos is None


def test_net_cost_beside_unblended(tmp_path):
    form = bills.with_columns(bills.legacy, {"lineItem/NetUnblendedCost": "6.75"})
    found = Statement([bills.write_csv(tmp_path / "a.csv", [LINE], form)], cost="net")
    (line,) = found.billed
    assert (line.billed_picos, line.unblended_picos, line.net_picos) == (
        6_750_000_000_000,
        7_500_000_000_000,
        6_750_000_000_000,
    )
    (group,) = found.grouped(("invoice",))
    assert (group.picos, group.unblended_picos, group.net_picos) == (
        line.billed_picos,
        line.unblended_picos,
        line.net_picos,
    )
    untold = bills.with_columns(bills.legacy, {"lineItem/NetUnblendedCost": ""})
    (line,) = Statement([bills.write_csv(tmp_path / "b.csv", [LINE], untold)]).billed
    assert line.net_picos is None


def test_the_command_by_keys(capsys, billed, tmp_path):
    path = bills.write_csv(tmp_path / "bill.csv", billed, FORMS["legacy"])
    code, said = run(capsys, "statement", path, "--by", "account,tag:team", "--json")
    rows = json.loads(said.out)["by"]
    assert (code, sum(Decimal(row["usd"]) for row in rows)) == (0, sum(line.cost for line in billed))
    assert {row["tag:team"] for row in rows} == {"ads", "search", ""}
    assert {"kind", "tokens", "lines", "unblended_usd", "net_usd", "list_usd", "account"} < rows[0].keys()
    code, said = run(capsys, "statement", path, "--by", "principal")
    assert code == 0
    assert "no line of the bill tells its principal: CUR 2.0 has it" in said.out
    code, said = run(capsys, "statement", path, "--by", "colour")
    assert (code, said.err.count("\n")) == (2, 1)
    assert "'colour' is no key of a bill" in said.err


def test_rows_have_invoice_entity_and_currency(capsys, billed, tmp_path):
    _, said = run(capsys, "statement", bills.write_csv(tmp_path / "bill.csv", billed), "--json")
    for row in json.loads(said.out)["rows"]:
        assert (row["invoice"], row["currency"], row["unblended_usd"]) == ("INV-1", "USD", row["billed_usd"])
        assert row["entity"] in ("AWS", "AWS Marketplace")


def told(one: Commitment, *names: str) -> list[object]:
    """Of a commitment; amounts as text, which tells unknown from nothing."""
    values = (getattr(one, name) for name in names)
    return [f"{value.normalize():f}" if isinstance(value, Decimal) else value for value in values]


# --- bought ahead --------------------------------------------------------------------------------------------------

RESERVED = replace(LINE, usage_type="USE1-MP:USE1_Reserved_1Month_InputTPM_Geo-Units", product=OPUS,
                   tokens=2_400, cost=Decimal(792))  # fmt: skip
RAN = replace(
    LINE, usage_type="USE1-MP:USE1_input_tokens_reserved-Units", product=OPUS, tokens=60, cost=Decimal(0)
)
MODEL_UNITS = replace(LINE, usage_type="USE1-MP:USE1_ProvisionedThroughput_6Month_ModelUnits-Units", product=OPUS,
                      tokens=24, cost=Decimal(500))  # fmt: skip


def with_unit(unit):
    def columns(line):
        return {"pricing/unit": unit if "TPM" in line.usage_type else "Units"}

    return bills.with_columns(bills.legacy, columns)


def test_tokens_that_ran_in_reserved_capacity(tmp_path):
    """100,000 tokens a minute for a day hold 144 million; 60 million ran."""
    path = bills.write_csv(tmp_path / "bill.csv", [LINE, RESERVED, RAN], with_unit("1K TPM-Hours"))
    found = Statement([path])
    (one,) = found.commitments
    assert (one.kind, one.meter, one.model, one.account) == (
        "reserved",
        "input",
        "claude-opus-4-6",
        LINE.account,
    )
    assert told(one, "capacity", "used", "idle") == ["2400", "1000", "1400"]
    assert (one.picos, one.idle_picos) == (792 * PICOS, 462 * PICOS)
    assert found.billed_picos == 7_500_000_000_000  # what ran in it is no token of the price list
    assert sum(entry.picos for entry in found.apart) == 792 * PICOS


@pytest.mark.parametrize(
    ("unit", "lines", "why"),
    [
        ("1K TPM-Hours", [RESERVED], "no line tells what ran in it"),
        (
            "Units",
            [RESERVED, RAN],
            "60,000,000 tokens ran in it, but its unit (Units) does not tell how many it holds",
        ),
        (
            "1K TPM",
            [RESERVED, RAN],
            "60,000,000 tokens ran in it, but its unit (1K TPM) does not tell how many it holds",
        ),
    ],
)
def test_what_the_bill_does_not_tell_is_unknown(unit, lines, why, tmp_path):
    (one,) = Statement([bills.write_csv(tmp_path / "bill.csv", lines, with_unit(unit))]).commitments
    assert (one.used, one.idle, one.idle_picos, one.utilisation, one.why) == (None, None, None, None, why)
    assert told(one, "capacity", "picos") == ["2400", 792 * PICOS]


def test_no_more_is_used_than_there_is(tmp_path):
    ran = replace(RAN, tokens=200)
    path = bills.write_csv(tmp_path / "bill.csv", [RESERVED, ran], with_unit("1K TPM-Hours"))
    (one,) = Statement([path]).commitments
    assert told(one, "utilisation", "idle", "idle_picos") == ["1", "0", 0]


def test_units_of_a_provisioned_model(tmp_path):
    arn = "arn:aws:bedrock:us-east-1:111122223333:provisioned-model/x1"
    form = bills.with_columns(bills.legacy, {"lineItem/ResourceId": arn, "pricing/unit": "Hours"})
    (one,) = Statement([bills.write_csv(tmp_path / "bill.csv", [MODEL_UNITS], form)]).commitments
    assert told(one, "kind", "name", "unit", "capacity") == ["provisioned", arn, "Hours", "24"]
    assert (one.used, one.idle_picos) == (None, None)


def test_a_reservation_in_cur_tells_its_unused_units(tmp_path):
    fee = replace(RESERVED, line_type="RIFee", cost=Decimal(600))
    covered = replace(RESERVED, line_type="DiscountedUsage", tokens=1_500, cost=Decimal(0))

    def columns(line):
        is_fee = line.line_type == "RIFee"
        return {
            "reservation/ReservationARN": "arn:reservation/r1", "reservation/TotalReservedUnits": "2000" * is_fee,
            "reservation/UnusedQuantity": "500" * is_fee, "reservation/UnusedRecurringFee": "150" * is_fee,
            "reservation/UnusedAmortizedUpfrontFeeForBillingPeriod": "50" * is_fee,
            "reservation/EffectiveCost": "" if is_fee else "600",
        }  # fmt: skip

    path = bills.write_csv(tmp_path / "bill.csv", [fee, covered], bills.with_columns(bills.legacy, columns))
    (one,) = Statement([path]).commitments
    assert told(one, "name", "capacity", "used", "idle") == ["arn:reservation/r1", "2000", "1500", "500"]
    assert (one.picos, one.idle_picos) == (800 * PICOS, 200 * PICOS)  # with its share of what was paid before


@pytest.mark.parametrize("column", ["CommitmentDiscount", "CapacityReservation"])
def test_focus_marks_what_was_used(column, tmp_path):
    used, unused = (
        replace(RESERVED, tokens=1_800, cost=Decimal(600)),
        replace(RESERVED, tokens=600, cost=Decimal(200)),
    )

    def columns(line):
        return {
            f"{column}Id": "arn:r1",
            f"{column}Status": "Used" if line is used else "Unused",
            "BilledCost": "0",
        }

    path = bills.write_csv(tmp_path / "bill.csv", [used, unused], bills.with_columns(bills.focus, columns))
    (one,) = Statement([path]).commitments
    assert told(one, "name", "capacity", "used", "utilisation") == ["arn:r1", "2400", "1800", "0.75"]
    assert (one.picos, one.idle_picos) == (800 * PICOS, 200 * PICOS)


def test_credits_and_taxes_are_no_cost_of_a_commitment(tmp_path):
    credit = replace(RESERVED, line_type="Credit", cost=Decimal(-92), tokens=0)
    (one,) = Statement([bills.write_csv(tmp_path / "bill.csv", [RESERVED, credit])]).commitments
    assert one.picos == 792 * PICOS


def test_the_ledger_tells_what_ran_where_the_bill_does_not(capsys, tmp_path):
    at = (datetime(2026, 9, 5, 12, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    facts = Facts(
        "bedrock_log", "bedrock", "anthropic.claude-opus-4-6-v1", region="us-east-1", account=LINE.account
    )
    Ledger(tmp_path / "ledger").append([
        Usage(at, "r1", "", ((facts._replace(mode="reserved"), (30_000_000, 5, 9_000_000, 6_000_000, 0)),)),
        Usage(at, "r2", "", ((facts, (30_000_000, 5, 0, 0, 0)),)),
    ])  # fmt: skip
    path = bills.write_csv(tmp_path / "bill.csv", [RESERVED], with_unit("1K TPM-Hours"))
    code, said = run(capsys, "statement", path, "--ledger", tmp_path / "ledger", "--json")
    (one,) = json.loads(said.out)["commitments"]
    assert (code, one["used"], one["idle"], one["utilisation"]) == (
        0,
        "600",
        "1800",
        0.25,
    )  # 36 million, reads apart
    assert one["idle_usd"] == "594"
    _, said = run(capsys, "statement", path, "--json")
    (one,) = json.loads(said.out)["commitments"]
    assert (one["used"], one["idle_usd"]) == (None, None)


def test_what_a_person_reads(capsys, tmp_path):
    guard = replace(LINE, usage_type="USE1-Guardrail-TopicPolicyUnitsConsumed", product="Amazon Bedrock",
                    tokens=1_234, cost=Decimal("0.93"))  # fmt: skip
    odd = replace(LINE, usage_type="USE1-MP:USE1_Odd-Units", product=OPUS, cost=Decimal("0.5"))
    lines = [LINE, guard, MODEL_UNITS, odd, bills.apart("Credit", "-50")]
    path = bills.write_csv(tmp_path / "bill.csv", lines)
    code, said = run(capsys, "statement", path)
    text = " ".join(said.out.split())
    assert code == 0
    assert "guardrail USE1-Guardrail-TopicPolicyUnitsConsumed Units 1,234 $0.93" in text
    assert "unknown unknown unknown $500.00 unknown" in text
    assert "credit 111122223333 -$50.00 1" in text
    assert "no meter in its usage type $0.50" in text
    words = ("tokens", "beside tokens", "bought ahead", "apart from", "not decoded")
    headings = [said.out.index(f"\n{word}") for word in words]
    assert headings == sorted(headings)
    assert "\x1b" not in said.err + said.out
