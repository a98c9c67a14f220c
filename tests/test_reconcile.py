"""Every planted fault is named with its exact amount, alone and beside every other; and what a person is told."""

import json
import random
from calendar import monthrange
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing import cli
from farthing.book import default_book
from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.offers import load_offers
from farthing.reconcile import KEYS, by, reconcile, total
from farthing.statement import Statement
from farthing.usage import EPOCH, Total
from tests import bills, faults

FIRSTS = [date(2026, 1, 1), date(2026, 3, 1), date(2026, 8, 1), date(2026, 9, 1), date(2026, 11, 1)]
SEPTEMBER = Question(date(2026, 9, 1), date(2026, 9, 30))


@pytest.fixture(scope="module")
def rates(shared):
    return bills.Rates(shared / "facts" / "rates.json")


@pytest.fixture
def month(rates):
    return faults.month(random.Random(5), rates, date(2026, 9, 1))


def question(found: faults.Month) -> Question:
    return Question(found.first, found.first.replace(day=monthrange(found.first.year, found.first.month)[1]))


def compared(folder, found: faults.Month, *totals: Total, usages=None):
    """The bill of the month against a ledger of what we saw."""
    ledger = Ledger(folder / "ledger")
    ledger.append(found.usages() if usages is None else usages)
    ledger.note_totals(list(totals), datetime(2026, 12, 1, tzinfo=UTC))
    return reconcile(Statement([found.write(folder / "cur.csv")]), ledger, question(found))


def named(found) -> dict[str, Decimal]:
    """The dollars under each name; what is unexplained is told apart."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for known, causes in ((True, found.explained), (False, found.unexplained)):
        for cause in causes:
            sums[cause.name if known else f"unexplained: {cause.name}"] += Decimal(cause.picos) / 10**12
    assert sum(sums.values(), Decimal()) == Decimal(found.difference_picos) / 10**12
    return {name: usd for name, usd in sums.items() if usd}


# --- faults ----------------------------------------------------------------------------------------------------------


def planted(folder, rates, seed: str, some) -> tuple[dict[str, Decimal], dict[str, Decimal]]:
    """What reconcile names in a month with these faults, and what it must."""
    choose = random.Random(seed)
    made = faults.month(choose, rates, choose.choice(FIRSTS))
    for plant in some:
        plant(made, choose, rates)
    return named(compared(folder, made)), made.causes()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.fuzz) for seed in range(1, 9))])
@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_named_with_its_exact_amount(fault, seed, rates, tmp_path):
    found, expected = planted(tmp_path, rates, f"{seed}", [fault])
    assert found == expected


@pytest.mark.parametrize(
    "pair", list(combinations(faults.FAULTS, 2)), ids=lambda pair: "+".join(fault.__name__ for fault in pair)
)
def test_two_faults_are_told_apart(pair, rates, tmp_path):
    found, expected = planted(tmp_path, rates, "pair", pair)
    assert found == expected


@given(seed=st.integers(0, 10**9), some=st.sets(st.sampled_from(faults.FAULTS), max_size=4))
@settings(max_examples=20, deadline=None)
def test_causes_come_to_the_difference_whatever_is_wrong(seed, some, rates, tmp_path_factory):
    """`named` asserts it, and reconcile does; where four faults meet, names may be others, sums never."""
    planted(
        tmp_path_factory.mktemp("month"), rates, f"{seed}", sorted(some, key=lambda fault: fault.__name__)
    )


def test_nothing_is_named_where_nothing_is_wrong(month, tmp_path):
    found = compared(tmp_path, month)
    assert (named(found), found.notes, found.control) == ({}, [], [])
    assert found.ours_picos == found.billed_picos > 0


# --- traffic that we did not see -------------------------------------------------------------------------------------

ONE, OTHER = faults.ACCOUNTS[:2]


def usd(used) -> Decimal:
    return sum((one.list_usd for one in used), Decimal())


def without_log(found, account, *, source):
    """The account's calls, told of by another source than the log, and only every other of them."""
    kept = [u for i, u in enumerate(found.usages()) if u.parts[0][0].account != account or i % 2]
    return [
        u._replace(
            parts=tuple((f._replace(source=source) if f.account == account else f, t) for f, t in u.parts)
        )
        for u in kept
    ]


@pytest.mark.parametrize(
    ("source", "name"), [("outbox", "gateway bypass"), ("claude_code", "logging off in the account")]
)
def test_what_passes_by_a_gateway_or_a_client_where_nothing_logs(source, name, month, tmp_path):
    month.used = [one for one in month.used if one.mode != "batch"]
    found = compared(tmp_path, month, usages=without_log(month, ONE, source=source))
    assert set(named(found)) == {name}
    assert {cause.where for cause in found.explained} == {ONE}


def test_logging_off_in_one_region_of_an_account(month, rates, tmp_path):
    """Logging is switched on region by region."""
    there = [
        replace(
            one, region="ap-northeast-1", seen=False, tokens=1_000, list_usd=one.list_usd / one.tokens * 1_000
        )
        for one in month.used
        if one.account == ONE and one.mode != "batch" and one.model != faults.ZONED
    ]
    month.used += there
    found = compared(tmp_path, month)
    assert named(found) == {"logging off in the region": usd(there)}
    assert found.explained[0].where == f"{ONE} ap-northeast-1"


def test_batches_seen_tell_nothing_of_the_log(month, tmp_path):
    """Batch outputs of an account are here; its log is not."""
    month.change(lambda one: one.account == ONE and one.mode != "batch", seen=False)
    if not any(one.account == ONE and one.mode == "batch" for one in month.used):
        pytest.fail("the month has no batch in that account: choose another seed")
    unseen = usd(one for one in month.used if not one.seen)
    assert named(compared(tmp_path, month)) == {"logging off in the account": unseen}


def test_a_model_that_no_call_of_ours_names(month, rates, tmp_path):
    """Attempts that fell back, or advisors: billed at a model that nobody called."""
    made = replace(month.used[0], model="claude-opus-4-8", endpoint="global", mode="on_demand", meter="output",
                   tokens=5_000, list_usd=Decimal("0.125"), seen=False)  # fmt: skip
    month.grammar["claude-opus-4-8"] = "snake"
    month.used.append(made)
    (cause,) = compared(tmp_path, month).unexplained
    assert "fallback" in cause.name
    assert cause.picos == 125_000_000_000


def test_cache_writes_without_reads(month, tmp_path):
    write = next(one for one in month.used if one.meter == "cache_write_1h")
    place = (write.day, write.account, write.model, write.endpoint, write.mode, write.meter)
    month.change(
        lambda one: (one.day, one.account, one.model, one.endpoint, one.mode, one.meter) == place, seen=False
    )
    (cause,) = compared(tmp_path, month).unexplained
    assert "cache writes without reads" in cause.name
    assert Decimal(cause.picos) == write.list_usd * 10**12


def test_lines_that_bill_a_day_under_the_next(month, tmp_path):
    def moved(one):
        if (one.day.day, one.account, one.mode) != (3, ONE, "on_demand") or one.model == faults.ZONED:
            return one
        return replace(one, day=date(2026, 9, 4))

    usages = month.usages()
    billed = replace(month, used=[moved(one) for one in month.used])
    found = compared(tmp_path, billed, usages=usages)
    assert named(found) == {}
    assert sum(side.ours != side.theirs for side in found.sides.values()) > 0


def test_a_line_that_is_not_decoded_is_not_missing(month, tmp_path):
    """Its name is new: AWS bills as much, under a usage type that says nothing."""
    one = next(one for one in month.used if one.model != faults.ZONED)
    month.used = [replace(other, times=0) if other is one else other for other in month.used]
    month.not_decoded.append(
        bills.Line(f"{one.day}", one.account, one.region, one.model, one.endpoint, one.mode, one.meter, False, 3,
                   one.list_usd, usage_type="USE1-MP:USE1_NewName-Units",
                   product=f"{faults.MODELS[one.model][0]} (Amazon Bedrock Edition)")
    )  # fmt: skip
    assert named(compared(tmp_path, month)) == {
        "unknown SKU, not decoded": one.list_usd, "counted by us, and not decoded in the bill": -one.list_usd,
    }  # fmt: skip


def test_too_much_here_does_not_make_up_for_too_little_there(month, tmp_path):
    few = [
        one for one in month.used if one.mode == "on_demand" and one.meter == "input" and one.tokens > 3_000
    ][:2]

    def counted(one, tokens):
        return replace(one, tokens=tokens, list_usd=one.list_usd / one.tokens * tokens)

    usages = month.usages()
    month.used = [
        counted(one, one.tokens - 7)
        if one is few[0]
        else counted(one, one.tokens + 7)
        if one is few[1]
        else one
        for one in month.used
    ]
    found = compared(tmp_path, month, usages=usages)
    assert abs(found.unexplained_picos) < found.unexplained_gross_picos


# --- prices ----------------------------------------------------------------------------------------------------------


def test_a_discount_that_begins_within_the_month(month, tmp_path):
    month.change(lambda one: one.account == ONE and one.day.day > 4, discount=Decimal("0.9"))
    found = named(compared(tmp_path, month))
    assert found == month.causes()
    assert set(found) == {"discount of 10 %"}


def test_agreed_rates_are_no_difference(month, tmp_path, capsys):
    """One account has an offer from the 5th on; with its file, ours is what AWS bills, by the command too."""
    month.change(lambda one: one.account == ONE and one.day.day > 4, discount=Decimal("0.9"))
    first = month.first
    (tmp_path / "offer.toml").write_text(
        f'[[offers]]\nname = "ten"\naccounts = ["{ONE}"]\nsigned = {first}\nstarts = {first.replace(day=5)}\n'
        '[[offers.rates]]\npercent_off = "10"\n'
    )
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(month.usages())
    bill = month.write(tmp_path / "cur.csv")
    offers = load_offers([tmp_path / "offer.toml"])
    found = reconcile(Statement([bill]), ledger, question(month), offers)
    assert found.billed_picos == found.ours_picos > 0
    assert not found.explained
    assert not found.unexplained
    argv = [
        "reconcile", "--statement", bill, "--ledger", tmp_path / "ledger", "--month", f"{first:%Y-%m}",
        "--contract", tmp_path / "offer.toml", "--json",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        cli.main(list(map(str, argv)))
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["difference_usd"] == "0"


@pytest.mark.parametrize("still", ["0.9", "1"])
def test_extended_access_that_begins_under_a_discount(still, tmp_path):
    """All rates double at once, so none is at the discount any more: it goes on, unless list was paid since."""
    name = "claude-sonnet-4"
    rates = {"input": "3", "output": "15", "cache_read": "0.3", "cache_write_5m": "3.75"}
    used = [
        faults.Used(date(2026, 9, day), ONE, "us-east-1", name, "regional", "on_demand", meter,
                    1_000_000, Decimal(rate))
        for day in range(1, 25) for meter, rate in rates.items()
    ]  # fmt: skip
    month = faults.Month(date(2026, 9, 1), {name: "native"}, used)
    month.change(lambda one: one.day.day < 10, discount=Decimal("0.9"))
    month.change(
        lambda one: one.day.day > 14, discount=Decimal(still), factor=2, factor_name="extended access"
    )
    month.change(lambda one: 10 <= one.day.day <= 14, discount=Decimal(still))
    assert named(compared(tmp_path, month)) == month.causes()


def test_a_price_that_falls_within_a_month_that_the_bill_tells_no_days_of(rates, tmp_path):
    """Reads of Sonnet 5.5 fell on 2026-10-07; Cost Explorer by month has one sum of both."""
    name = "claude-sonnet-5-5"
    days = [(date(2026, 10, 3), "0.2"), (date(2026, 10, 20), "0.1")]
    used = [
        faults.Used(day, ONE, "us-east-1", name, "global", "on_demand", "cache_read", 30_000_000,
                    Decimal(rate) * 30)
        for day, rate in days
    ]  # fmt: skip
    usages = faults.Month(date(2026, 10, 1), {}, used).usages()
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(usages)
    group = {"Keys": [ONE, "USE1-Claude5.5Sonnet-cache-read-input-token-count-cross-region-global"],
             "Metrics": {"UnblendedCost": {"Amount": "9", "Unit": "USD"},
                         "UsageQuantity": {"Amount": "60000", "Unit": "N/A"}}}  # fmt: skip
    keys = [{"Type": "DIMENSION", "Key": key} for key in ("LINKED_ACCOUNT", "USAGE_TYPE")]
    periods = [{"TimePeriod": {"Start": "2026-10-01", "End": "2026-11-01"}, "Groups": [group]}]
    (tmp_path / "ce.json").write_text(json.dumps({"GroupDefinitions": keys, "ResultsByTime": periods}))
    found = reconcile(
        Statement([tmp_path / "ce.json"]), ledger, Question(date(2026, 10, 1), date(2026, 10, 31))
    )
    assert (found.ours_picos, found.billed_picos, named(found)) == (9 * 10**12, 9 * 10**12, {})


# --- CloudWatch ------------------------------------------------------------------------------------------------------

METRICS = {"cache_write_5m": "cache_write", "cache_write_1h": "cache_write"}


def cloudwatch(used) -> list[Total]:
    """What CloudWatch counts of this usage by model and day: no batches, no lifetimes of writes."""
    sums: dict[tuple, int] = defaultdict(int)
    for one in used:
        if one.mode != "batch":
            named = next(
                name for name in default_book().models[one.model].ids if name.startswith("anthropic.")
            )
            model = ("global." if one.endpoint == "global" else "") + named
            sums[one.day, one.account, one.region, model, METRICS.get(one.meter, one.meter)] += one.tokens
    day_us = 86_400_000_000
    return [
        Total("cloudwatch", at, at + day_us, meter, tokens, platform="bedrock", account=account, region=region,
              model_id=model, scope="runtime:model period=86400")
        for (day, account, region, model, meter), tokens in sums.items()
        for at in [(datetime.combine(day, datetime.min.time(), UTC) - EPOCH) // timedelta(microseconds=1)]
    ]  # fmt: skip


def a_third(used, which):
    """A third of the tokens of some: lines or logs that are short."""
    return [
        replace(one, tokens=one.tokens // 3, list_usd=one.list_usd / one.tokens * (one.tokens // 3)) if which(one)
        else one
        for one in used
    ]  # fmt: skip


def some(one) -> bool:
    return (one.day.day, one.account, one.mode) == (3, ONE, "on_demand")


def test_cloudwatch_says_that_our_logs_are_short(month, tmp_path):
    ours = replace(month, used=a_third(month.used, some))
    lost = usd(month.used) - usd(ours.used)
    found = compared(tmp_path, month, *cloudwatch(month.used), usages=ours.usages())
    assert named(found) == {"our logs are short (CloudWatch agrees with the bill)": lost}
    counts = {(count.model, count.meter): count for count in found.control}
    short = counts[faults.ZONED, "output"]
    assert (short.cloudwatch, short.agrees_with) == (short.billed, "bill")
    assert short.ours < short.billed


def test_cloudwatch_says_that_the_bill_is_short(month, tmp_path):
    usages, totals = month.usages(), cloudwatch(month.used)
    billed = replace(month, used=a_third(month.used, some))
    found = compared(tmp_path, billed, *totals, usages=usages)
    assert named(found) == {
        "the bill is short (CloudWatch agrees with us)": usd(billed.used) - usd(month.used)
    }
    assert {count.agrees_with for count in found.control} == {"both", "ours"}


def test_without_cloudwatch_neither_is_believed(month, tmp_path):
    ours = replace(month, used=a_third(month.used, some))
    found = named(compared(tmp_path, month, usages=ours.usages()))
    assert list(found) == ["unexplained: more billed than seen"]


def test_twice_our_tokens_are_no_duplicates_where_cloudwatch_counts_them(month, tmp_path):
    even = [replace(one, tokens=2 * one.tokens, list_usd=2 * one.list_usd) for one in month.used]
    ours, billed = replace(month), replace(month, used=even)
    assert set(named(compared(tmp_path / "a", billed, usages=ours.usages()))) == {
        "billed more than once (duplicate delivery)"
    }
    found = named(compared(tmp_path / "b", billed, *cloudwatch(even), usages=ours.usages()))
    assert set(found) == {
        "our logs are short (CloudWatch agrees with the bill)",
        "unexplained: more billed than seen",  # batches, which it does not count
    }


def test_days_that_cloudwatch_does_not_tell_of_are_not_held_against_it(month, tmp_path):
    found = compared(tmp_path, month, *cloudwatch(one for one in month.used if one.day.day == 2))
    assert {count.agrees_with for count in found.control} == {"both"}
    assert 0 < sum(count.billed for count in found.control) < sum(one.tokens for one in month.used)


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [["day"], ["account", "model"], ["meter"], list(KEYS)])
def test_rows_split_the_difference_into_quantity_and_price(keys, month, tmp_path):
    month.change(
        lambda one: one.meter == "output", factor=Decimal("1.2"), factor_name="rate other than the book's"
    )
    month.change(lambda one: one.day.day == 2, times=0)
    found = compared(tmp_path, month)
    rows = by(found.sides, keys)
    assert all(row.billed_picos - row.ours_picos == row.quantity_picos + row.price_picos for row in rows)
    whole = total(rows)
    causes = month.causes()
    assert Decimal(whole.price_picos) / 10**12 == causes["rate other than the book's"]
    assert Decimal(whole.quantity_picos) / 10**12 == causes["day missing from the bill"]
    assert whole.billed_picos == found.billed_picos


# --- the command -----------------------------------------------------------------------------------------------------


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["reconcile", *map(str, words)])
    return ended.value.code, *capsys.readouterr()


@pytest.fixture
def asked(month, tmp_path):
    """Words that reconcile a month with a credit, a tax and a fifth of a day lost."""
    Ledger(tmp_path / "ledger").append(month.usages())
    month.apart += [bills.apart("Credit", "-50"), bills.apart("Tax", "3.25")]
    return (
        "--statement",
        month.write(tmp_path / "cur.csv"),
        "--ledger",
        tmp_path / "ledger",
        "--month",
        "2026-09",
    )


def test_json_ties_to_each_invoice_tax_apart(asked, capsys):
    code, out, _ = run(capsys, *asked, "--json", "--by", "day,meter")
    said = json.loads(out)
    assert code == 0
    assert {(row["kind"], row["usd"]) for row in said["invoices"][0]["apart"]} == {
        ("credit", "-50"),
        ("tax", "3.25"),
    }
    (invoice,) = said["invoices"]
    assert Decimal(invoice["total_usd"]) == Decimal(said["billed_usd"])
    assert sum(Decimal(row["billed_usd"]) for row in said["rows"]) == Decimal(invoice["tokens_usd"])
    assert {"day", "meter", "ours", "billed", "quantity_usd", "price_usd"} <= said["rows"][0].keys()


def test_for_people(asked, capsys):
    code, out, _ = run(capsys, *asked, "--by", "model")
    assert code == 0
    assert "invoice INV-1: " in out
    assert "tax $3.25" in out
    assert "-$50.00  apart: credit" in out
    assert "claude-3-5-sonnet-v2" in out


def test_a_month_half_delivered(month, capsys, tmp_path):
    Ledger(tmp_path / "ledger").append(month.usages())
    month.used = [one for one in month.used if one.day.day <= 4]
    bill = month.write(tmp_path / "cur.csv")
    code, out, _ = run(capsys, "--statement", bill, "--ledger", tmp_path / "ledger", "--month", "2026-09")
    assert code == 0
    assert "not billed yet" in out
    assert "the bill ends on 2026-09-04, the ledger on 2026-09-08" in out


def test_a_bill_of_other_services_is_a_no(month, capsys, tmp_path):
    Ledger(tmp_path / "ledger").append(month.usages())
    line = replace(month.lines()[0], usage_type="BoxUsage:m5.large", product="Amazon Elastic Compute Cloud")
    bill = bills.write_csv(
        tmp_path / "cur.csv",
        [line],
        lambda made, i: bills.legacy(made, i) | {"lineItem/ProductCode": "AmazonEC2"},
    )
    code, out, _ = run(capsys, "--statement", bill, "--ledger", tmp_path / "ledger", "--month", "2026-09")
    assert code == 1
    assert "none of its 1 lines is of Claude or Bedrock" in out


def test_a_ledger_without_the_month_is_a_no(month, capsys, tmp_path):
    Ledger(tmp_path / "ledger").append(
        [u._replace(at_us=u.at_us - 60 * 86_400_000_000) for u in month.usages()]
    )
    bill = month.write(tmp_path / "cur.csv")
    code, out, _ = run(capsys, "--statement", bill, "--ledger", tmp_path / "ledger", "--month", "2026-09")
    assert code == 1
    assert (
        "the ledger has nothing of Bedrock of 2026-09-01 to 2026-09-30: its usage is of 2026-07-03 to" in out
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--tolerance", "-1"), "--tolerance '-1': write dollars from 0 up"),
        (("--by", "team"), "--by 'team': keys are day, account, model"),
    ],
)
def test_what_cannot_be_is_one_line(words, says, asked, capsys):
    code, _, err = run(capsys, *asked, *words)
    assert code == 2
    assert says in err


# --- a bill beside the report of a ledger --------------------------------------------------------------------------


def report(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main([*map(str, words)])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_waterfall_has_both_columns(month, capsys, tmp_path):
    Ledger(tmp_path / "ledger").append(month.usages())
    ours = usd(month.used)
    month.change(lambda _: True, discount=Decimal("0.9"))
    bill = month.write(tmp_path / "cur.csv")
    said = json.loads(report(capsys, "bill", "--ledger", tmp_path / "ledger", "--statement", bill, "--json"))
    steps = {row["step"]: row for row in said["waterfall"]}
    assert Decimal(steps["total"]["usd"]) == ours
    assert Decimal(steps["total"]["billed_usd"]) == ours * Decimal("0.9")
    assert (steps["beyond_list"]["usd"], Decimal(steps["beyond_list"]["billed_usd"])) == (
        "0",
        ours * Decimal("-0.1"),
    )
    for column in ("usd", "billed_usd"):
        assert sum(Decimal(row[column]) for name, row in steps.items() if name != "total") == Decimal(
            steps["total"][column]
        )
    assert all(Decimal(row["billed_usd"]) == Decimal(row["usd"]) * Decimal("0.9") for row in said["rows"])
    out = report(capsys, "bill", "--ledger", tmp_path / "ledger", "--statement", bill)
    assert "computed" in out
    assert "billed beside it" in out


def test_a_bill_without_a_ledger_is_headed_billed(month, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("FARTHING_LEDGER", str(tmp_path / "none"))
    month.apart.append(bills.apart("Tax", "3.25"))
    bill = month.write(tmp_path / "cur.csv")
    said = json.loads(report(capsys, "bill", "--statement", bill, "--json"))
    assert said["heading"] == "billed"
    assert Decimal(said["waterfall"][-1]["usd"]) == usd(month.used)
    assert Decimal(said["billed_in_all_usd"]) == usd(month.used) + Decimal("3.25")
    assert "billed" in report(capsys, "levers", "--statement", bill)


def test_levers_have_both_columns(month, capsys, tmp_path):
    Ledger(tmp_path / "ledger").append(month.usages())
    words = ("--ledger", tmp_path / "ledger", "--statement", month.write(tmp_path / "cur.csv"), "--json")
    rows = {row["lever"]: row for row in json.loads(report(capsys, "levers", *words))["rows"]}
    endpoint = rows["endpoint"]  # exact by either
    assert endpoint["missing_usd"] == endpoint["billed_missing_usd"] != "0"
