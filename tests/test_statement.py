"""Bills decoded and reconciled: made of usage and public rates, with faults planted in them."""

import gzip
import json
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from farthing import cli
from farthing.billed import levers, waterfall
from farthing.book import default_book
from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.reconcile import reconcile
from farthing.reports import bill
from farthing.statement import Statement, StatementError
from farthing.statement._usage_type import about, by_name
from farthing.usage import EPOCH, Facts, Usage
from tests import bills

NAMES = by_name(default_book())
SEPTEMBER = Question(date(2026, 9, 1), date(2026, 9, 30))


@pytest.fixture(scope="module")
def rates(shared):
    return bills.Rates(shared / "facts" / "rates.json")


@pytest.fixture(scope="module")
def calls():
    return bills.traffic()


@pytest.fixture(scope="module")
def billed(calls, rates):
    return bills.lines(calls, rates)


# --- usage types ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage_type", "product", "expected"),
    [
        ("USE1-MP:USE1_CacheWrite1hInputTokenCount_Global-Units", "Claude Haiku 4.5 (Amazon Bedrock Edition)",
         ("tokens", "claude-haiku-4-5", "global", "on_demand", "cache_write_1h", 1_000_000)),
        ("USE1-MP:USE1_CacheReadInputTokenCount-Units", "Claude Opus 4.6 (Amazon Bedrock Edition)",
         ("tokens", "claude-opus-4-6", "regional", "on_demand", "cache_read", 1_000_000)),
        ("APN1-MP:APN1_output_tokens_batch-Units", "Claude Opus 4.7 (Amazon Bedrock Edition)",
         ("tokens", "claude-opus-4-7", "regional", "batch", "output", 1_000_000)),
        ("USE1-Claude4.6Sonnet-cache-write-1h-input-token-count-cross-region-global", "Amazon Bedrock Service",
         ("tokens", "claude-sonnet-4-6", "global", "on_demand", "cache_write_1h", 1_000)),
        ("USW2-anthropic.claude-opus-4-8-mantle-cache-write-tokens-global-standard", "Amazon Bedrock Service",
         ("tokens", "claude-opus-4-8", "global", "on_demand", "cache_write_5m", 1_000)),
        ("USE1-Claude3.5Sonnetv2-output-tokens", "Amazon Bedrock",
         ("tokens", "claude-3-5-sonnet-v2", "regional", "on_demand", "output", 1_000)),
        ("UGW1-Claude4.5Sonnet-input-tokens", "Amazon Bedrock",
         ("tokens", "claude-sonnet-4-5", "govcloud", "on_demand", "input", 1_000)),
        ("USE1-MP:USE1_Reserved_1Month_InputTPM_Geo-Units", "Claude Opus 4.6 (Amazon Bedrock Edition)",
         ("reserved", "claude-opus-4-6", "", "", "", 0)),
        ("USE1-MP:USE1_ProvisionedThroughput_6Month_ModelUnits-Units", "Claude Opus 4.6 (Amazon Bedrock Edition)",
         ("provisioned", "claude-opus-4-6", "", "", "", 0)),
        ("USE1-Claude3.5Haiku-output-tokens-latency-optimized", "Amazon Bedrock",
         ("tokens", "claude-3-5-haiku", "regional", "latency_optimized", "output", 1_000)),
        ("USE1-Guardrail-ContentPolicyUnitsConsumed", "Amazon Bedrock", ("guardrail", "", "", "", "", 0)),
        ("USE1-NovaLite-input-tokens", "Amazon Bedrock", ("other_model", "", "", "", "", 0)),
        ("BoxUsage:m5.large", "Amazon Elastic Compute Cloud", ("", "", "", "", "", 0)),
        ("USE1-MP:USE1_InputTokenCount-Units", "Claude Opus 9.9 (Amazon Bedrock Edition)",
         ("undecoded", "", "", "", "", 0)),
    ],
)  # fmt: skip
def test_usage_types_of_every_grammar(usage_type, product, expected):
    found = about(NAMES, usage_type, product_name=product)
    assert (found.kind, found.model, found.endpoint, found.mode, found.meter, found.scale) == expected


@pytest.mark.parametrize(
    "usage_type",
    [
        "USE1-MP:USE1_InputTokenCount_LCtx_Global-Units",
        "USE1-MP:USE1_CacheWrite1hInputTokenCount_Global_LongContext-Units",
        "APN1-MP:APN1_cache_read_tokens_long_ctx_global_standard-Units",
        "USE1-Claude4.5Sonnet-output-tokens-long-context-cross-region-global",
    ],
)
def test_long_prompts_in_every_grammar(usage_type):
    found = about(NAMES, usage_type, product_name="Claude Sonnet 4.5 (Amazon Bedrock Edition)")
    assert (found.kind, found.model, found.endpoint, found.long_prompt) == (
        "tokens", "claude-sonnet-4-5", "global", True,
    )  # fmt: skip
    assert not about(NAMES, "USE1-MP:USE1_InputTokenCount_Global-Units").long_prompt


def test_every_model_of_the_book_is_known_by_its_name():
    for model in default_book().models.values():
        product = f"{model.data.get('name', model.id)} (Amazon Bedrock Edition)"
        found = about(NAMES, "USE1-MP:USE1_output_tokens_standard-Units", product_name=product)
        assert found.model == model.id or (model.id, found.model) == ("claude-2.1", "claude-2.1"), product


# Quoted in public; quantities are rounded, so list cost is near what was billed, not at it.
REAL = [
    ("USW2-anthropic.claude-opus-5-mantle-output-tokens-global-standard", "10666.36", "266.6590"),
    ("USW2-anthropic.claude-opus-5-mantle-cache-read-tokens-global-standard", "3564377.45", "1782.1887"),
    ("USW2-anthropic.claude-opus-4-8-mantle-cache-write-tokens-standard", "1629.5", "11.2029"),
    ("USE1-Claude4.6Sonnet-output-tokens", "68.579", "1.131"),
    ("USE1-Claude4.6Sonnet-cache-write-input-token-count", "831.74", "3.4309"),
    ("USE1-Claude4.6Sonnet-input-tokens", "17.33", "0.0572"),
    ("USE1-Claude4.6Sonnet-cache-read-input-token-count", "5372.659", "1.77297747"),
    ("USE1-Claude4.5Sonnet-input-tokens", "29.481", "0.0972873"),
    ("USE1-Claude4.5Sonnet-output-tokens", "31.102", "0.513183"),
    ("USE1-Claude4.5Sonnet-cache-write-input-token-count", "433.893", "1.789808625"),
]


def test_real_rows_have_their_list_cost(tmp_path):
    head = "lineItem/UsageAccountId,lineItem/LineItemType,product/ProductName,lineItem/UsageType,"
    head += "lineItem/UsageStartDate,lineItem/UsageAmount,lineItem/UnblendedCost,pricing/unit,lineItem/CurrencyCode"
    rows = [
        f"111122223333,Usage,Amazon Bedrock Service,{usage},2026-08-10T00:00:00Z,{amount},{cost},1K tokens,USD"
        for usage, amount, cost in REAL
    ]
    (tmp_path / "cur.csv").write_text("\n".join([head, *rows]))
    found = Statement([tmp_path / "cur.csv"])
    assert len(found.billed) == len(REAL)
    for line in found.billed:
        assert line.list_picos is not None
        assert abs(line.list_picos - line.billed_picos) * 1_000 <= line.billed_picos, line
    assert found.decoded_share == 1


def test_samples_of_others_have_no_claude_lines(shared):
    files = [*(shared / "data" / "cur").glob("*.csv"), *(shared / "data" / "focus").rglob("*.csv")]
    assert files
    for file in files:
        found = Statement([file])
        assert found.loaded.lines
        assert (found.billed, found.undecoded, found.apart, found.decoded_share) == ([], [], [], None), file


# --- exports -------------------------------------------------------------------------------------------------------


def summed(found: Statement) -> dict[tuple, tuple[int, ...]]:
    sums: dict[tuple, list[int]] = defaultdict(lambda: [0, 0])
    for line in found.billed:
        total = sums[f"{line.day}", line.account, line.model, line.endpoint, line.mode, line.meter]
        total[0] += line.tokens
        total[1] += line.billed_picos
    return {key: tuple(total) for key, total in sums.items()}


def wanted(billed) -> dict[tuple, tuple[int, ...]]:
    sums: dict[tuple, list[int]] = defaultdict(lambda: [0, 0])
    for line in billed:
        total = sums[line.day, line.account, line.model, line.endpoint, line.mode, line.meter]
        total[0] += line.tokens
        total[1] += int(line.cost * 10**12)
    return {key: tuple(total) for key, total in sums.items()}


WRITERS = {
    "legacy.csv": bills.write_csv,
    "legacy.csv.gz": bills.write_csv,
    "two.csv": lambda path, found: bills.write_csv(path, found, bills.cur2),
    "two.parquet": bills.write_parquet,
    "focus.csv": lambda path, found: bills.write_csv(path, found, bills.focus),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_export_says_the_same(name, billed, tmp_path):
    found = Statement([WRITERS[name](tmp_path / name, billed)])
    assert summed(found) == wanted(billed)
    assert all(line.list_picos == line.billed_picos for line in found.billed)
    assert not found.undecoded


def test_cost_explorer_too_where_usage_types_tell_the_model(billed, tmp_path):
    native = [line for line in billed if line.model == "claude-sonnet-4-6"]
    found = Statement([bills.write_explorer(tmp_path / "ce.json", native)])
    assert summed(found) == wanted(native)


def test_exports_that_overlap_are_the_same_money(billed, tmp_path):
    bills.write_csv(tmp_path / "a" / "legacy.csv", billed)
    bills.write_csv(tmp_path / "b" / "focus.csv", billed, bills.focus)
    bills.write_parquet(tmp_path / "two.parquet", billed)
    found = Statement([tmp_path])
    assert summed(found) == wanted(billed)
    assert sum("same money" in note for note in found.loaded.notes) == 4  # of two accounts, two exports each


def test_a_later_delivery_replaces_its_month(billed, tmp_path):
    import os

    old = bills.write_csv(
        tmp_path / "20260901-1" / "cur-00001.csv.gz", [bills.dearer(line, "2") for line in billed]
    )
    os.utime(old, (1, 1))
    bills.write_csv(tmp_path / "20260901-2" / "cur-00001.csv.gz", billed)
    found = Statement([tmp_path])
    assert summed(found) == wanted(billed)
    assert any("earlier delivery of 2026-09" in note for note in found.loaded.notes)


def test_the_same_file_twice_counts_once(billed, tmp_path):
    one = bills.write_csv(tmp_path / "one.csv", billed)
    (tmp_path / "two.csv").write_bytes(one.read_bytes())
    assert summed(Statement([tmp_path])) == wanted(billed)


def test_what_is_no_usage_is_apart(billed, tmp_path):
    extra = [bills.apart("Credit", "-50"), bills.apart("Tax", "12.5"), bills.apart("EdpDiscount", "-7.25")]
    path = bills.write_csv(tmp_path / "cur.csv", billed + extra)
    found = Statement([path])
    assert summed(found) == wanted(billed)
    assert {entry.kind: entry.picos for entry in found.apart} == {
        "credit": -50 * 10**12, "tax": 12_500_000_000_000, "edp_discount": -7_250_000_000_000,
    }  # fmt: skip
    net = Statement([path], cost="net")  # which has the discount in it
    assert {entry.kind for entry in net.apart} == {"credit", "tax"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "no bill that is known here"),
        ("lineItem/UsageType,lineItem/LineItemType\nx,Usage\n", "lacks line_item_usage_start_date"),
        ("", "empty: fetch it again"),
    ],
)
def test_what_is_no_bill_is_refused_in_one_line(text, says, tmp_path):
    (tmp_path / "cur.csv").write_text(text)
    with pytest.raises(StatementError, match=says) as refused:
        Statement([tmp_path / "cur.csv"])
    assert "\n" not in str(refused.value)
    assert "cur.csv" in str(refused.value)


def test_a_line_that_is_no_number_is_told_and_the_rest_counts(billed, tmp_path):
    path = bills.write_csv(tmp_path / "cur.csv", billed)
    text = path.read_text().splitlines()
    text[3] = text[3].replace(f"{billed[2].cost:f}", "twelve")
    path.write_text("\n".join(text))
    found = Statement([path])
    assert len(found.loaded.bad) == 1
    assert "cur.csv:4: not a number" in found.loaded.bad[0]
    assert summed(found).items() < wanted(billed).items() | summed(found).items()
    assert len(found.billed) == len(billed) - 1


@pytest.mark.parametrize("compress", [False, True])
def test_of_a_file_cut_in_a_row_the_rows_before_it_count(billed, tmp_path, compress):
    path = bills.write_csv(tmp_path / "cur.csv", billed)
    lines = path.read_text().splitlines()
    text = "\n".join([*lines[:9], lines[9][:70]])
    path.write_bytes(gzip.compress(text.encode()) if compress else text.encode())
    found = Statement([path])
    assert summed(found) == wanted(billed[:8])
    assert found.loaded.lines == 9
    assert [bad.partition(" (")[0] for bad in found.loaded.bad] == [f"{path}:10: no whole row"]


def test_rows_of_too_many_and_too_few_cells_are_told_with_their_lines(billed, tmp_path):
    path = bills.write_csv(tmp_path / "cur.csv", billed)
    lines = path.read_text().splitlines()
    lines[3], lines[6] = lines[3][:40], lines[6] + ",more,cells"
    path.write_text("\n".join(lines))
    found = Statement([path])
    assert [bad.split(":")[1] for bad in found.loaded.bad] == ["4", "7"]
    assert summed(found) == wanted(billed[:2] + billed[3:5] + billed[6:])
    again = found.grouped(["account", "principal"])  # which reads the file again
    assert sum(group.picos for group in again) == found.billed_picos


def test_two_currencies_are_refused(billed, tmp_path):
    path = bills.write_csv(tmp_path / "cur.csv", billed)
    path.write_text(path.read_text().replace(",USD,", ",EUR,", 1))
    with pytest.raises(StatementError, match="amounts in EUR, USD"):
        Statement([path])


# --- a bill alone ---------------------------------------------------------------------------------------------------


def test_the_waterfall_of_a_bill_is_that_of_the_usage(calls, billed, tmp_path):
    """The bill shows the same steps as the ledger's own report of the same calls."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(seen(calls))
    ours = bill(ledger, SEPTEMBER).parts["waterfall"]
    theirs = waterfall(Statement([bills.write_csv(tmp_path / "cur.csv", billed)]))
    assert [(row["step"], row["usd"]) for row in theirs] == [(row["step"], row["usd"]) for row in ours]


def test_a_discount_is_a_step_of_its_own(billed, tmp_path):
    lines = [bills.dearer(line, "0.9") for line in billed]
    steps = {
        row["step"]: row["usd"]
        for row in waterfall(Statement([bills.write_csv(tmp_path / "cur.csv", lines)]))
    }
    assert steps["beyond_list"] == int((cost(lines) - cost(billed)) * 10**12)
    assert (
        sum(picos for step, picos in steps.items() if step != "total")
        == steps["total"]
        == int(cost(lines) * 10**12)
    )


def test_the_endpoint_lever_of_a_bill_is_exact(calls, billed, rates, tmp_path):
    found = {row["lever"]: row for row in levers(Statement([bills.write_csv(tmp_path / "cur.csv", billed)]))}
    at_global = bills.lines([replace(call, endpoint="global") for call in calls], rates)
    assert found["endpoint"]["missing_usd"] == int((cost(billed) - cost(at_global)) * 10**12) > 0


# --- reconcile -----------------------------------------------------------------------------------------------------


def seen(calls) -> list[Usage]:
    """The calls as a log has them."""
    prefix = {"global": "global.", "regional": ""}
    ids = {
        model.id: next(name for name in model.ids if name.startswith("anthropic."))
        for model in default_book().models.values()
        if any(name.startswith("anthropic.") for name in model.ids)
    }
    return [
        Usage(
            (call.at - EPOCH) // timedelta(microseconds=1), f"r{i}", "",
            ((Facts("bedrock_log", "bedrock", prefix[call.endpoint] + ids[call.model], region=call.region,
                    account=call.account, mode="batch" if call.mode == "batch" else ""), call.tokens),),
        )
        for i, call in enumerate(calls)
    ]  # fmt: skip


@pytest.fixture
def against(tmp_path):
    """What a bill and calls come to: the causes, in dollars."""

    def compare(lines, calls):
        ledger = Ledger(tmp_path / "ledger")
        ledger.append(seen(calls))
        found = reconcile(
            Statement([bills.write_csv(tmp_path / "bill" / "cur.csv", lines)]), ledger, SEPTEMBER
        )
        parts = sum(cause.picos for cause in (*found.explained, *found.unexplained))
        assert parts == found.difference_picos == found.billed_picos - found.ours_picos
        return found

    return compare


def named(found) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for cause in found.explained:
        sums[cause.name] += Decimal(cause.picos) / 10**12
    assert not found.unexplained, found.unexplained
    return dict(sums)


def cost(lines) -> Decimal:
    return sum((line.cost for line in lines), Decimal())


def test_a_bill_of_what_we_saw_leaves_nothing(against, calls, billed):
    found = against(billed, calls)
    assert (found.difference_picos, found.explained, found.unexplained) == (0, [], [])
    assert found.ours_picos == int(cost(billed) * 10**12) > 0


def test_a_wrong_rate(against, calls, billed):
    wrong = [
        bills.dearer(line, "1.2") if (line.model, line.meter) == ("claude-opus-5", "output") else line
        for line in billed
    ]
    assert named(against(wrong, calls)) == {"rate other than the book's": cost(wrong) - cost(billed)}


def test_logging_off_in_one_account(against, calls, billed):
    blind = [call for call in calls if call.account != "444455556666"]
    unseen = cost(line for line in billed if line.account == "444455556666" and line.mode != "batch")
    batch = cost(line for line in billed if line.account == "444455556666" and line.mode == "batch")
    assert named(against(billed, blind)) == {
        "logging off in the account": unseen,
        "batch, which logs do not have": batch,
    }


def test_a_day_without_logs(against, calls, billed):
    kept = [call for call in calls if call.at.day != 4]
    assert named(against(billed, kept)) == {
        "no logs on the day": cost(line for line in billed if line.day == "2026-09-04")
    }


def test_a_day_that_the_bill_lacks_and_days_not_billed_yet(against, calls, billed):
    partly = [line for line in billed if line.day not in ("2026-09-04", "2026-09-10")]
    assert named(against(partly, calls)) == {
        "day missing from the bill": -cost(line for line in billed if line.day == "2026-09-04"),
        "not billed yet": -cost(line for line in billed if line.day == "2026-09-10"),
    }


def test_mantle_traffic(against, calls, billed, rates):
    hidden = [replace(call, mantle=True) for call in calls if call.model == "claude-opus-5"][:40]
    mantle = bills.lines(hidden, rates)
    assert named(against(billed + mantle, calls)) == {"mantle traffic, never logged": cost(mantle)}


def test_credit_discount_tax_and_what_is_not_decoded(against, calls, billed):
    extra = [bills.apart("Credit", "-50"), bills.apart("EdpDiscount", "-7"), bills.apart("Tax", "3")]
    odd = replace(
        billed[0],
        usage_type="USE1-MP:USE1_SomethingNew-Units",
        product="Claude Opus 4.6 (Amazon Bedrock Edition)",
        cost=Decimal("1.25"),
        tokens=3,
    )
    assert named(against([*billed, *extra, odd], calls)) == {
        "apart: credit": Decimal(-50), "apart: edp_discount": Decimal(-7), "apart: tax": Decimal(3),
        "unknown SKU, not decoded": Decimal("1.25"),
    }  # fmt: skip


def test_an_endpoint_misread(against, calls, billed):
    ours = [replace(call, endpoint="global") if call.model == "claude-opus-4-8" else call for call in calls]
    found = against(billed, ours)
    assert set(named(found)) == {"endpoint misread"}


def test_an_hour_billed_as_five_minutes(against, calls, billed, rates):
    shorter = [replace(call, tokens=(*call.tokens[:3], call.tokens[3] + call.tokens[4], 0)) for call in calls]
    assert named(against(bills.lines(shorter, rates), calls)) == {
        "cache lifetime misread": cost(bills.lines(shorter, rates)) - cost(billed)
    }


def test_more_than_we_saw_is_unexplained(against, calls, billed):
    found = against(billed, [call for i, call in enumerate(calls) if i % 7])
    assert found.unexplained
    assert {cause.name for cause in found.unexplained} == {"more billed than seen"}


# --- commands ------------------------------------------------------------------------------------------------------


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    return ended.value.code, capsys.readouterr().out


def test_commands(capsys, tmp_path, calls, billed):
    bill = bills.write_csv(tmp_path / "cur.csv", [*billed, bills.apart("Credit", "-50")])
    Ledger(tmp_path / "ledger").append(seen(calls))
    code, out = run(capsys, "statement", bill, "--json")
    said = json.loads(out)
    assert (code, said["decoded_share"], said["undecoded"]) == (0, 1.0, [])
    assert sum(Decimal(row["billed_usd"]) for row in said["rows"]) == cost(billed)
    assert said["apart"][0]["kind"] == "credit"
    asked = ("reconcile", "--statement", bill, "--ledger", tmp_path / "ledger", "--month", "2026-09")
    code, out = run(capsys, *asked, "--json")
    said = json.loads(out)
    assert (code, Decimal(said["difference_usd"]), Decimal(said["unexplained_usd"])) == (
        0,
        Decimal(-50),
        Decimal(0),
    )
    assert [(cause["cause"], Decimal(cause["usd"])) for cause in said["explained"]] == [
        ("apart: credit", Decimal(-50))
    ]
    code, out = run(capsys, *asked)
    assert code == 0
    assert "apart: credit" in out
    assert run(capsys, "statement", bill)[0] == 0
    assert (
        run(capsys, "reconcile", "--statement", bill, "--ledger", tmp_path / "ledger", "--month", "2026-13")[
            0
        ]
        == 2
    )
    assert datetime(2026, 9, 1, tzinfo=UTC) == bills.MONTH


def test_too_much_unexplained_is_a_no(capsys, tmp_path, calls, billed):
    bill = bills.write_csv(tmp_path / "cur.csv", billed)
    Ledger(tmp_path / "ledger").append(seen(calls[::2]))
    asked = ("reconcile", "--statement", bill, "--ledger", tmp_path / "ledger", "--month", "2026-09")
    assert run(capsys, *asked)[0] == 1
    assert run(capsys, *asked, "--tolerance", "1000000")[0] == 0
