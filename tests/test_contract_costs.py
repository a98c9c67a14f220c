"""List, contracted and effective cost side by side: each by its own rates, and rebates shared out to the picodollar."""

import csv
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing import cli
from farthing.book import Book, Card, default_book
from farthing.cells import Question, parse_where
from farthing.config import Config
from farthing.costs import costed, periods
from farthing.exporters.focus import export
from farthing.ledger import Ledger
from farthing.meters import Vector
from farthing.money import from_usd
from farthing.offers import OfferError, Volume, contracted, months_later, read_offers
from farthing.reports import REPORTS
from farthing.usage import EPOCH, Facts, Usage
from tests import bills
from tests.closing import OCTOBER, billed, listed

OURS, THEIRS = "111122223333", "444455556666"
OPUS, SONNET = "global.anthropic.claude-opus-5", "global.anthropic.claude-sonnet-4-6"
USD = 10**12
BOOK = default_book()
BOOK_OF = {name: Book({name: model}, BOOK.defaults, name) for name, model in BOOK.models.items()}
ONE = 1_000 * 5_000_000 + 200 * 25_000_000 + 9_000 * 500_000  # Opus 5: $5, $25 and $0.50 a million

OFFER = f"""
[[offers]]
name = "ours"
accounts = ["{OURS}"]
signed = 2026-08-20
starts = 2026-09-01
ends = 2026-12-01
"""
TEN_OFF = """
[[offers.rates]]
model = "claude-opus-5"
percent_off = "10"
"""


def calls(day: str, count: int, model: str = OPUS, account: str = OURS, tokens=(1_000, 200, 9_000, 0, 0)):
    facts = Facts("bedrock_log", "bedrock", model, region="us-east-1", account=account)
    start = (datetime.fromisoformat(day).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    name = f"{day}-{model}-{account}-{tokens}"
    return [Usage(start + i, f"{name}-{i}", "", ((facts, tokens),)) for i in range(count)]


@pytest.fixture
def asked(tmp_path):
    """asked(offer, *calls): a ledger of these calls, and a question that knows of the offer."""

    def make(offer: str, *usages, **how) -> tuple[Ledger, Question]:
        ledger = Ledger(tmp_path / "ledger")
        ledger.append([usage for some in usages for usage in some])
        file = tmp_path / "offers.toml"
        file.write_text(offer)
        return ledger, Question(config=Config(contracts=(str(file),)), **how)

    return make


def amounts(table, *names) -> list[tuple]:
    return [tuple(row[name] for name in names) for row in table.rows]


THREE = ("list_usd", "contracted_usd", "effective_usd")


def test_each_account_and_day_has_its_own_rates(asked):
    """The offer is of one account, one model and from its first day; all else is at list."""
    made = asked(
        OFFER + TEN_OFF,
        calls("2026-08-31T23:59", 2),
        calls("2026-09-01T00:00", 3),
        calls("2026-09-01", 5, account=THEIRS),
    )
    table = REPORTS["by"].make(*made, ("account", "day"))
    assert amounts(table, "account", "day", *THREE) == [
        (THEIRS, "2026-09-01", 5 * ONE, 5 * ONE, 5 * ONE),
        (OURS, "2026-09-01", 3 * ONE, 3 * ONE * 9 // 10, 3 * ONE * 9 // 10),
        (OURS, "2026-08-31", 2 * ONE, 2 * ONE, 2 * ONE),
    ]
    assert table.footer["usd"] == 10 * ONE  # the book is the public one
    assert table.footer["book"] == BOOK.digest
    assert table.footer["offers"] == {
        "names": ["ours"], "book": made[1].book.digest, "list_usd": 10 * ONE, "off_usd": 3 * ONE // 10,
    }  # fmt: skip
    paid = 10 * ONE - 3 * ONE // 10
    assert table.parts == {
        "list_usd": 10 * ONE, "contracted_usd": paid, "effective_usd": paid, "billed_usd": paid,
    }  # fmt: skip


def test_the_days_of_another_zone_do_not_move_the_first_day_of_an_offer(asked):
    made = asked(
        OFFER + TEN_OFF, calls("2026-08-31T23:00", 1), calls("2026-09-01T01:00", 1), tz="Europe/Berlin"
    )
    (row,) = REPORTS["by"].make(*made, ("day",)).rows
    assert (row["day"], row["contracted_usd"]) == ("2026-09-01", ONE + ONE * 9 // 10)


def test_meters_have_their_own_rates(asked):
    rates = '[[offers.rates]]\nmodel = "claude-opus-5"\nmeter = "output"\nendpoint = "global"\n'
    made = asked(OFFER + rates + 'mode = "on_demand"\nusd_per_million = "20"\n', calls("2026-09-02", 1))
    table = REPORTS["by"].make(*made, ("meter",))
    assert dict(amounts(table, "meter", "contracted_usd")) == {
        "input": 1_000 * 5_000_000, "output": 200 * 20_000_000, "cache_read": 9_000 * 500_000,
    }  # fmt: skip


def test_what_has_no_price_has_no_contracted_one_either(asked):
    made = asked(OFFER + TEN_OFF, calls("2026-09-02", 1, "anthropic.claude-from-tomorrow"))
    assert amounts(REPORTS["by"].make(*made, ("model",)), *THREE) == [(None, None, None)]


def test_calls_that_an_offer_may_be_meant_for_are_told(asked):
    made = asked(OFFER + TEN_OFF, calls("2026-09-02", 1, account=""), calls("2026-09-02", 1, account=THEIRS))
    table = REPORTS["bill"].make(*made)
    assert table.parts["contracted_usd"] == table.parts["list_usd"]
    assert table.parts["notes"] == [
        "offer 'ours': the ledger has no calls of its accounts",
        "calls of no known account are at list price where an offer names accounts",
    ]


def test_without_offers_nothing_is_beside(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(calls("2026-09-02", 1))
    table = REPORTS["by"].make(ledger, Question(), ("model",))
    assert "contracted_usd" not in table.columns
    assert not table.parts


VOLUME = """
[offers.volume]
every = "month"
tiers = [{ from_usd = "1", percent_off = "10" }, { from_usd = "3", percent_off = "50" }]
"""


def test_volume_tiers_give_back_a_share_of_what_is_above_them(asked):
    """$5.80 in September: $2 of it at 10 %, $2.80 at 50 %. October is below the first tier, and not over in it.

    What comes back is a credit of the month and lowers no call's cost.
    """
    made = asked(OFFER + VOLUME, calls("2026-09-10", 400), calls("2026-10-10", 60))
    table = REPORTS["monthly"].make(*made)
    spent = 400 * ONE
    assert spent == Decimal("5.8") * USD
    back = 2 * USD // 10 + (spent - 3 * USD) // 2
    assert amounts(table, "month", *THREE) == [
        ("2026-09", spent, spent, spent),
        ("2026-10", 60 * ONE, 60 * ONE, 60 * ONE),
    ]
    assert table.parts["rebate_usd"] == back
    assert table.parts["effective_usd"] == table.parts["billed_usd"] == 460 * ONE - back


def test_a_part_of_the_usage_has_no_part_of_a_rebate(asked):
    """It falls due on the last day of its period, whatever part of the usage is asked for."""
    made = asked(OFFER + VOLUME, calls("2026-09-10", 200), calls("2026-09-20", 200))
    back = 2 * USD // 10 + (400 * ONE - 3 * USD) // 2
    for since, until, less in (
        (None, date(2026, 9, 15), 0),
        (date(2026, 9, 15), None, back),
        (date(2026, 9, 15), date(2026, 9, 29), 0),
    ):
        half = REPORTS["monthly"].make(made[0], replace(made[1], since=since, until=until))
        assert half.parts["effective_usd"] == 200 * ONE - less


def test_the_bill_ends_in_what_is_effective_with_the_shortfall_that_fell_due(asked):
    commitment = '[offers.commitment]\nusd = "30"\nevery = "month"\n'
    made = asked(OFFER + commitment + VOLUME + TEN_OFF, calls("2026-09-10", 400))
    table = REPORTS["bill"].make(*made[:1], Question(config=made[1].config, until=date(2026, 9, 30)))
    steps = {step["step"]: step["usd"] for step in table.parts["waterfall"]}
    contracted = 400 * ONE * 9 // 10
    back = 2 * USD // 10 + (contracted - 3 * USD) // 2
    assert steps["contract"] == contracted - 400 * ONE
    assert steps["volume"] == -back
    assert steps["shortfall"] == 30 * USD - contracted
    assert steps["total"] == sum(usd for name, usd in steps.items() if name != "total")
    assert table.parts["effective_usd"] == table.parts["billed_usd"] == steps["total"] == 30 * USD - back
    assert table.parts["shortfall_usd"] == steps["shortfall"]
    table = REPORTS["bill"].make(made[0], Question(config=made[1].config, where=(parse_where("account=1*"),)))
    assert table.parts["billed_usd"] is None  # a commitment is of all usage


def test_a_commitment_counts_all_that_its_accounts_spend_by_period(asked):
    commitment = '[offers.commitment]\nusd = "9"\nevery = "month"\n'
    ledger, question = asked(
        OFFER + commitment + TEN_OFF,
        calls("2026-08-31", 7),
        calls("2026-09-10", 10),
        calls("2026-10-01", 20, SONNET),
        calls("2026-10-02", 5, account=THEIRS),
    )
    sonnet = 20 * (1_000 * 3_000_000 + 200 * 15_000_000 + 9_000 * 300_000)
    found = periods(ledger, question)
    assert [(p.starts.isoformat(), p.spent) for p in found] == [
        ("2026-09-01", 10 * ONE * 9 // 10),
        ("2026-10-01", sonnet),
    ]
    assert [p.shortfall for p in found] == [9 * USD - p.spent for p in found]


def test_the_command_takes_a_file_of_offers(asked, tmp_path, capsys):
    asked(OFFER + TEN_OFF, calls("2026-09-02", 10))
    words = ["--ledger", str(tmp_path / "ledger"), "--contract", str(tmp_path / "offers.toml"), "--json"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["by", "model", *words])
    assert ended.value.code == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["list_usd"], row["contracted_usd"], row["effective_usd"]) == ("0.145", "0.1305", "0.1305")
    with pytest.raises(SystemExit) as ended:
        cli.main(["levers", *words])
    assert ended.value.code == 2
    assert "--contract" in capsys.readouterr().err  # what is at list price does not take it and ignore it


# --- laws ------------------------------------------------------------------------------------------------------------

dollars = st.integers(0, 50)


@st.composite
def volumes(draw) -> Volume:
    bounds = sorted(draw(st.sets(st.integers(0, 20 * USD), min_size=1, max_size=4)))
    shares = sorted(draw(st.sets(st.integers(1, 10_000), min_size=len(bounds), max_size=len(bounds))))
    return Volume("month", tuple(zip(bounds, (Fraction(share, 10_000) for share in shares), strict=True)))


@given(volumes(), st.integers(0, 50 * USD), st.integers(0, 50 * USD))
def test_tiers_are_monotone(volume, one, other):
    """Who spends more pays no less, and gets no less back; nothing below the first tier, never more than all."""
    less, more = sorted((one, other))
    assert 0 <= volume.rebate(less) <= volume.rebate(more)
    assert less - volume.rebate(less) <= more - volume.rebate(more)
    assert volume.rebate(volume.tiers[0][0]) == 0
    assert volume.rebate(more) <= more


@given(st.dates(date(2024, 1, 1), date(2027, 1, 1)), st.sampled_from(("month", "quarter", "year", "term")))
def test_periods_are_without_gap_or_overlap(starts, every):
    head = (
        f'[[offers]]\nname = "x"\nsigned = {starts}\nstarts = {starts}\nends = {months_later(starts, 36)}\n'
    )
    (offer,) = read_offers(head + f'[offers.commitment]\nusd = "1"\nevery = "{every}"\n', "x")
    found = list(offer.periods(every, date.max))
    assert (found[0][0], found[-1][1]) == (offer.starts, offer.ends)
    assert [ends for _, ends in found[:-1]] == [begins for begins, _ in found[1:]]
    assert len(found) == {"month": 36, "quarter": 12, "year": 3, "term": 1}[every]


def test_however_it_is_grouped_the_rows_are_what_counts_to_the_tiers(asked):
    """Amounts that no share divides: the rows sum to the period's spend, by every key."""
    tiers = '[offers.volume]\nevery = "month"\ntiers = [{ from_usd = "0.01", percent_off = "3.3333" }]\n'
    usages = [
        calls(f"2026-09-{10 + n % 7}", 1, (OPUS, SONNET)[n % 2], tokens=(1_000 + n, 7 * n, 13, 0, 0))
        for n in range(40)
    ]
    ledger, question = asked(OFFER + tiers + TEN_OFF, *usages)
    (period,) = periods(ledger, question, volume=True)
    for keys in ((), ("model",), ("day",), ("model", "day"), ("region",)):
        found = costed(ledger, question, keys)
        listed = sum(made.cell.cost for made in found)
        contracted = sum(sum(made.contracted) for made in found)
        assert contracted == period.spent < listed


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('[offers.commitment]\nusd = "0"', "usd: a commitment is more than nothing"),
        ('[offers.commitment]\nusd = "much"', "usd: 'much' is no number"),
        ('[offers.commitment]\nusd = "-5"', "usd: is below 0"),
        ('[offers.commitment]\nevery = "month"', "usd: is missing"),
        ('[offers.commitment]\nusd = "5"\nevery = "week"', "every: 'week' is none: known are month, quarter"),
        ('[offers.commitment]\nusd = "5"\nevery = "year"', "every: the offer's days are no whole number of years"),
        ('[offers.commitment]\nusd = "5"\nevry = "year"', "evry: unknown key; did you mean `every`?"),
        ("[offers.volume]\ntiers = []", "tiers: write"),
        ('[offers.volume]\ntiers = [{ from_usd = "5", percent_off = "101" }]', "tiers: percent_off 101"),
        ('[offers.volume]\ntiers = [{ from_usd = "5", percent_off = "2" }, { from_usd = "5", percent_off = "3" }]',
         "tiers: each tier begins above the one before"),
        ('[offers.volume]\ntiers = [{ from_usd = "5", percent_off = "3" }, { from_usd = "6", percent_off = "2" }]',
         "tiers: each tier begins above the one before, and gives more"),
    ],
)  # fmt: skip
def test_terms_that_cannot_be(table, says):
    with pytest.raises(OfferError) as refused:
        read_offers(OFFER + table + "\n", "offer.toml")
    line = str(refused.value)
    assert "\n" not in line
    assert line.startswith(("offer.toml:8: ", "offer.toml:9: ", "offer.toml:10: "))
    assert says in line


def test_a_term_without_an_end_is_refused():
    with pytest.raises(OfferError, match="term of an offer without an end"):
        read_offers(
            OFFER.replace("ends = 2026-12-01\n", "") + '[offers.commitment]\nusd = "5"\n', "offer.toml"
        )


# --- FOCUS -----------------------------------------------------------------------------------------------------------


def test_a_focus_file_has_shortfalls_and_rebates_on_the_day_their_period_ends(asked, tmp_path):
    commitment = '[offers.commitment]\nusd = "30"\nevery = "month"\n'
    ledger, question = asked(OFFER + commitment + VOLUME + TEN_OFF, calls("2026-09-10", 400))
    export(ledger, replace(question, until=date(2026, 9, 30)), tmp_path / "focus.csv")
    with (tmp_path / "focus.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    contracted = 400 * ONE * 9 // 10
    back = 2 * USD // 10 + (contracted - 3 * USD) // 2
    terms = {row["ChargeCategory"]: row for row in rows if row["ChargeCategory"] != "Usage"}
    assert {name: from_usd(row["BilledCost"]) for name, row in terms.items()} == {
        "Adjustment": 30 * USD - contracted, "Credit": -back,
    }  # fmt: skip
    same = {
        "BilledCost",
        "EffectiveCost",
        "ContractedCost",
        "ListCost",
    }  # of what is unrelated to other charges
    assert all(len({row[name] for name in same}) == 1 for row in terms.values())
    assert {row["ChargePeriodStart"] for row in terms.values()} == {"2026-09-30T00:00:00Z"}
    assert {row["SubAccountId"] for row in terms.values()} == {OURS}
    assert sum(from_usd(row["BilledCost"]) for row in rows) == 30 * USD - back  # as the bill has it
    export(ledger, replace(question, until=date(2026, 9, 29)), tmp_path / "before.csv")
    assert "Credit" not in (tmp_path / "before.csv").read_text()


# --- beside a bill ---------------------------------------------------------------------------------------------------


def test_beside_a_bill_both_columns_end_in_their_totals(tmp_path, capsys):
    """An offer of 10 % that AWS bills by: computed and billed come to the same, each by its own steps."""
    Ledger(tmp_path / "ledger").append(OCTOBER)
    cur = bills.write_csv(tmp_path / "cur.csv", billed(*OCTOBER, share="0.9"))
    (tmp_path / "offers.toml").write_text(
        '[[offers]]\nname = "x"\nsigned = 2026-09-01\nstarts = 2026-09-01\n[[offers.rates]]\npercent_off = "10"\n'
    )
    with pytest.raises(SystemExit) as ended:
        cli.main(["bill", "--ledger", str(tmp_path / "ledger"), "--contract", str(tmp_path / "offers.toml"),
                  "--statement", str(cur), "--json"])  # fmt: skip
    assert ended.value.code == 0
    *steps, total = json.loads(capsys.readouterr().out)["waterfall"]
    for column in ("usd", "billed_usd"):
        assert sum(from_usd(step[column]) for step in steps) == from_usd(total[column])
    assert from_usd(total["usd"]) == from_usd(total["billed_usd"]) == listed(*OCTOBER) * 9 // 10
    by_name = {step["step"]: step for step in steps}
    assert by_name["contract"]["usd"] == by_name["beyond_list"]["billed_usd"]


# --- a discount is one -----------------------------------------------------------------------------------------------


@given(
    st.integers(1, 10**6),
    st.sampled_from(BOOK.cards()),
    st.lists(st.integers(0, 2**35), min_size=5, max_size=5),
)
def test_a_discounted_cost_is_between_nothing_and_list(ten_thousandths, card, counts):
    """And where the share gives whole picodollars, it is that share exactly."""
    percent = Decimal(ten_thousandths) / 10**4
    rules = f'[[offers.rates]]\nplatform = "{card.sku.platform}"\npercent_off = "{percent}"\n'
    head = "[[offers]]\nname = 'x'\nsigned = 2020-01-01\nstarts = 2020-01-01\n"
    book = contracted(BOOK_OF[card.sku.model], read_offers(head + rules, "x", BOOK_OF[card.sku.model]))
    at = max(card.starts, datetime(2020, 1, 1, tzinfo=UTC))
    own = book.find(card.sku, at, card.prompt_from)
    assert isinstance(own, Card)
    tokens = Vector(*counts) if card.cached else Vector(*counts[:2])
    assert 0 <= tokens @ own.rates <= tokens @ card.rates
    share = 1 - Fraction(percent) / 100
    if all((rate * share).denominator == 1 for rate in card.rates):
        assert tokens @ own.rates == (tokens @ card.rates) * share
