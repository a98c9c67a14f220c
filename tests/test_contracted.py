"""Where farthing.toml names offers, whatever prints dollars is by their rates, or says that it is not: all of it."""

import csv
import inspect
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from farthing import cli
from farthing.book import default_book
from farthing.cells import Question, at_list, cells, parse_where
from farthing.config import Budget, load
from farthing.exporters.focus import export
from farthing.ledger import Ledger
from farthing.money import from_usd, show, usd
from farthing.reports import REPORTS, as_json
from farthing.usage import EPOCH, Facts, Usage
from farthing.watch._events import over_budget
from farthing.why import why
from tests import bills
from tests.closing import billed
from tools.docs import commands

OURS, THEIRS = "111122223333", "444455556666"
OPUS, SONNET = "anthropic.claude-opus-4-8", "global.anthropic.claude-sonnet-4-6"
TOKENS = (200_000, 40_000, 100_000, 0, 0)
NAME = "Half of October"
OFFER = f"""
[[offers]]
name = "{NAME}"
accounts = ["{OURS}"]
signed = 2026-09-20
starts = 2026-10-01

[[offers.rates]]
percent_off = "50"
"""
SETTINGS = """
ledger = "ledger"
contracts = ["offers.toml"]

[[budgets]]
name = "all"
usd = 1000

[[residency]]
allow = ["geo:us"]

[teams.search]
accounts = ["111122223333"]
cost_centre = "4711"

[teams.chat]
accounts = ["444455556666"]
cost_centre = "4712"

[journal]
debit = "6100"
credit = "2100"
accrued = "2190"
"""


def calls(first: str, days: int, account: str, model: str, tokens=TOKENS) -> list[Usage]:
    """A call an hour."""
    facts = Facts("bedrock_log", "bedrock", model, region="us-east-1", account=account)
    start = datetime.fromisoformat(first).replace(tzinfo=UTC)
    hours = [start + timedelta(hours=n) for n in range(24 * days)]
    return [
        Usage((at - EPOCH) // timedelta(microseconds=1), f"{account}-{model}-{at}", "", ((facts, tokens),))
        for at in hours
    ]


USAGES = [
    *calls("2026-09-01", 45, OURS, SONNET),
    *calls("2026-09-01", 45, OURS, OPUS),
    *calls("2026-09-01", 45, THEIRS, SONNET),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with farthing.toml, offers to one of two accounts, and the ledger of six weeks."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "offers.toml").write_text(OFFER)
    (folder / "farthing.toml").write_text(SETTINGS)
    Ledger(folder / "ledger").append(USAGES)
    bills.write_csv(folder / "cur.csv", billed(*calls("2026-10-01", 5, OURS, SONNET), share="0.5"))
    return folder


@pytest.fixture
def ledger(project):
    return Ledger(project / "ledger")


@pytest.fixture
def question(project):
    return Question(config=load(project / "farthing.toml"), until=date(2026, 10, 15))


@pytest.fixture
def run(project, monkeypatch, capsys):
    """run(*words): exit code, stdout and stderr of a command in the project's folder."""

    def command(*words) -> tuple[int, str, str]:
        monkeypatch.chdir(project)
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(str(ended.value.code)), out, err

    return command


# --- the prices of a question ----------------------------------------------------------------------------------------


def test_each_call_has_the_price_of_its_account_and_day(ledger, question):
    """Half for one account from October on; what the offer saves is what halves."""
    paid = {cell.keys: cell.cost for cell in cells(ledger, question, ("account", "month", "model"))}
    listed = {
        cell.keys: cell.cost for cell in cells(ledger, at_list(question), ("account", "month", "model"))
    }
    assert paid.keys() == listed.keys()
    for key, cost in paid.items():
        half = key[0] == OURS and key[1] == "2026-10"
        assert cost * (2 if half else 1) == listed[key]


def test_a_question_by_list_has_the_public_book(question):
    assert at_list(question).book is default_book()
    assert question.book.listed is default_book()
    assert question.book.digest != default_book().digest


def test_what_if_stays_within_the_terms_of_the_account(question):
    """The batch of an account with an offer costs half of the batch of one without."""
    book, at = question.book, datetime(2026, 10, 5, tzinfo=UTC)
    ours, theirs = (
        book.place(Facts("bedrock_log", "bedrock", SONNET, region="us-east-1", account=account))
        for account in (OURS, THEIRS)
    )
    batch = [book.find(place.sku._replace(mode="batch"), at).rates.input for place in (ours, theirs)]
    assert batch[0] * 2 == batch[1]


# --- reports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPORTS)
def test_no_report_forgets_the_offers(name, ledger, question):
    """Its dollars are contracted, or it has contracted beside list; and its footer names the offer."""
    extra = {"keys": ("model",)} if "keys" in inspect.signature(REPORTS[name].make).parameters else {}
    table = REPORTS[name].make(ledger, question, **extra)
    said = as_json(table)
    taken = table.footer["offers"]
    assert taken["names"] == [NAME]
    assert said["footer"]["offers"]["off_usd"] == str(Decimal(said["footer"]["offers"]["off_usd"]))
    beside = "contracted_usd" in table.columns
    if table.footer["usd"]:
        assert table.footer["usd"] == taken["list_usd"] - (0 if beside else taken["off_usd"])
    assert (table.footer["book"] == default_book().digest) is beside


def test_a_budget_counts_what_is_paid(ledger, question):
    """The first half of October: list less half of ours."""
    (row,) = REPORTS["budgets"].make(ledger, question).rows
    october = [
        (cell.keys[0], cell.cost) for cell in cells(ledger, at_list(question), ("account", "month"))
        if cell.keys[1] == "2026-10"
    ]  # fmt: skip
    paid = sum(cost // (2 if account == OURS else 1) for account, cost in october)
    assert row["spent_usd"] == paid < sum(cost for _, cost in october)


def test_a_forecast_made_before_the_offer_counts_its_rates_from_its_day(ledger, question):
    """Its first day is a change of price ahead, as any other."""
    table = REPORTS["forecast"].make(
        ledger, Question(config=question.config, until=date(2026, 9, 20)), month="2026-10"
    )
    assert {event["day"] for event in table.parts["price_events"]} == {"2026-10-01"}
    assert all(event["change"].startswith("-") for event in table.parts["price_events"])
    assert all(event["change"].endswith(f" by {NAME}") for event in table.parts["price_events"])


def test_what_watch_tells_says_by_which_prices(ledger, question):
    """A budget of little: over at the rates of the offer, and its event names it."""
    budget = Budget("little", 1)
    config = msgspec.structs.replace(question.config, budgets=(budget,))
    (event, *_) = over_budget(
        ledger, replace(question, config=config), datetime(2026, 10, 15, 12, tzinfo=UTC)
    )
    assert ("prices", f"by private offers: {NAME}") in event.lines


def test_levers_are_worth_what_they_save_at_the_rates_of_the_offer(ledger, question):
    """Of ours in October alone: half of what they would be at list."""
    asked = replace(question, since=date(2026, 10, 1), where=(parse_where(f"account={OURS}"),))
    ours, listed = (
        {row["lever"]: row["missing_usd"] for row in REPORTS["levers"].make(ledger, one).rows}
        for one in (asked, at_list(asked))
    )
    assert {name: 2 * worth for name, worth in ours.items()} == listed
    assert listed["batch"] > 0


def test_the_first_day_of_an_offer_is_a_price_step_with_its_name(ledger, question):
    september, october = (date(2026, 9, 1), date(2026, 9, 15)), (date(2026, 10, 1), date(2026, 10, 15))
    moved = why(ledger, question, september, october)
    steps = {step.name: step.picos for step in moved.steps}
    assert steps.keys() == {
        f"price of claude-opus-4-8 of 2026-10-01 by {NAME}",
        f"price of claude-sonnet-4-6 of 2026-10-01 by {NAME}",
    }
    assert sum(steps.values()) == moved.to_picos - moved.from_picos < 0
    back = {step.name for step in why(ledger, question, october, september).steps}
    assert all(NAME not in name for name in back)  # nothing began in September


def test_the_same_usage_by_another_book_differs_in_prices_alone(run, project):
    """Though the offers of farthing.toml tell accounts apart, and the other book is everyone's."""
    head = '[[offers]]\nname = "Tenth"\nsigned = 2026-01-01\nstarts = 2026-01-01\n'
    (project / "tenth.toml").write_text(head + '[[offers.rates]]\npercent_off = "10"\n')
    for side in ("--to-book", "--from-book"):
        words = ("why", "--from", "2026-10", "--to", "2026-10", side, "tenth.toml", "--json")
        code, out, err = run(*words)
        assert code == 0, err
        said = json.loads(out)
        moved = [step["name"] for step in said["steps"] if from_usd(step["usd"])]
        assert moved
        assert all(name.startswith("price of ") for name in moved)
        assert sum(from_usd(step["usd"]) for step in said["steps"]) == (
            from_usd(said["to_usd"]) - from_usd(said["from_usd"])
        )


# --- FOCUS and reports -----------------------------------------------------------------------------------------------


VOLUME = (
    OFFER
    + """
[offers.volume]
every = "month"
tiers = [{ from_usd = "10", percent_off = "3.3333" }]

[offers.commitment]
usd = "100000"
every = "month"
"""
)


@pytest.mark.parametrize("keys", [("day",), ("account",), ("model",)])
def test_effective_cost_is_the_same_in_reports_and_in_focus(keys, ledger, tmp_path):
    """By row of usage, and in all: with the credit of the tiers, and the shortfall, of October."""
    (tmp_path / "offers.toml").write_text(
        VOLUME.replace("starts = 2026-10-01", "starts = 2026-10-01\nends = 2026-11-01")
    )
    (tmp_path / "farthing.toml").write_text('contracts = ["offers.toml"]')
    asked = Question(config=load(tmp_path / "farthing.toml"), until=date(2026, 10, 31))
    table = REPORTS["by"].make(ledger, asked, keys)
    export(ledger, asked, tmp_path / "focus.csv")
    with (tmp_path / "focus.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told: dict[tuple[str, ...], int] = {}
    for row in rows:
        if row["ChargeCategory"] == "Usage":
            _, model, *_ = row["SkuId"].split("/")
            names = {"day": row["ChargePeriodStart"][:10], "account": row["SubAccountId"], "model": model}
            key = tuple(names[name] for name in keys)
            told[key] = told.get(key, 0) + from_usd(row["EffectiveCost"])
    assert told == {tuple(row[key] for key in keys): row["effective_usd"] for row in table.rows}
    assert table.parts["rebate_usd"] > 0
    assert table.parts["shortfall_usd"] > 0
    assert sum(from_usd(row["EffectiveCost"]) for row in rows) == table.parts["effective_usd"]
    assert sum(from_usd(row["BilledCost"]) for row in rows) == table.parts["billed_usd"]


# --- commands --------------------------------------------------------------------------------------------------------

SAYS = {
    "allocate": ("allocate", "--month", "2026-10"),
    "close": ("close", "2026-09", "--dry-run", "--accrue"),
    "contract": ("contract",),
    "export": ("export", "focus", "focus.csv"),
    "migrate": ("migrate", "--from", "claude-opus-4-8"),
    "platform": ("platform", "compare"),
    "report": ("report", "--out", "-"),
    "reconcile": ("reconcile", "--statement", "cur.csv", "--month", "2026-10"),
    "savings": ("savings",),
    "sql": ("sql", "model"),
    "why": ("why", "--from", "2026-09", "--to", "2026-10"),
}
# What prints no dollars of a ledger, or is at list by the rule of docs/contracts.md.
OTHERS = {
    "audit", "batch", "budget", "cache", "closings", "completion", "count", "demo", "diff", "doctor",
    "emulate", "estimate", "evaluate", "faults", "gateway", "import", "init", "learn", "ledger", "lint",
    "man", "mcp", "policy", "prices", "profiles", "rate", "reprice", "send", "setup", "statement",
    "statusline", "sync", "team-statements", "watch", "web",
}  # fmt: skip


def test_every_command_says_by_which_prices_or_needs_not():
    """A new command stands in one of the two lists. Of reports the footer tells."""
    known = {name.split(" ")[0] for name in commands()}
    assert known - OTHERS - SAYS.keys() - REPORTS.keys() == set()


@pytest.mark.parametrize("name", [*SAYS, *REPORTS])
def test_no_command_forgets_the_offers(name, run):
    words = SAYS.get(name) or ((name, "model") if name == "by" else (name,))
    code, out, err = run(*words)
    assert code in (0, 1), err
    assert NAME in out
    code, out, err = run(*words, "--json")
    assert code in (0, 1), err
    assert NAME in out
    json.loads(out)


def test_a_month_is_closed_with_the_offers_that_held(run, project):
    """Closed and audited with the offer; once its file says otherwise, the book no longer comes out."""
    code, out, err = run("close", "2026-10", "--accrue", "--json")
    assert code == 0, err
    said = json.loads(out)
    off, listed = (Decimal(said["offers"][name]) for name in ("off_usd", "list_usd"))
    assert Decimal(said["computed_usd"]) == listed - off == Decimal(said["booked_usd"])
    assert off > 0
    assert run("audit", "2026-10")[0] == 0
    offers = project / "offers.toml"
    try:
        offers.write_text(OFFER.replace('"50"', '"40"'))
        code, out, _ = run("audit", "2026-10")
        assert (code, "book" in out) == (1, True)
    finally:
        offers.write_text(OFFER)


@pytest.mark.parametrize("where", ["option", "environment"])
def test_a_book_of_offers_holds_instead_of_those_of_the_file(where, run, project, monkeypatch):
    """For everyone, and not on top of the others."""
    head = '[[offers]]\nname = "Tenth"\nsigned = 2026-01-01\nstarts = 2026-01-01\n'
    (project / "tenth.toml").write_text(head + '[[offers.rates]]\npercent_off = "10"\n')
    if where == "environment":
        monkeypatch.setenv("FARTHING_BOOK", "tenth.toml")
    book = ("--book", "tenth.toml") if where == "option" else ()
    for words in (("levers",), ("migrate",), ("savings",)):
        code, out, err = run(*words, *book, "--json")
        assert code == 0, err
        said = json.loads(out)
        offers = said.get("offers") or said["footer"]["offers"]
        assert offers["names"] == ["Tenth"]
        assert Decimal(offers["off_usd"]) * 10 == Decimal(offers["list_usd"])


def test_an_estimate_is_of_no_account_and_so_of_no_offer(run):
    words = ("migrate", "--from", "claude-opus-4-8", "--requests", "1000", "--input-tokens", "1000")
    code, out, err = run(*words, "--output-tokens", "100", "--json")
    assert code == 0, err
    listed = json.loads(out)
    assert "offers" not in listed
    code, out, err = run(
        *words, "--output-tokens", "100", "--book", "offers.toml", "--at", "2026-11-01", "--json"
    )
    assert code == 0, err
    assert Decimal(json.loads(out)["from_usd"]) * 2 == Decimal(listed["from_usd"])


def test_what_migrate_says_of_offers_is_of_the_model_that_is_left(run, ledger, question):
    """Not of all the ledger, whose other model is in no figure of the answer."""
    code, out, err = run("migrate", "--from", "claude-sonnet-4-6", "--to", "claude-sonnet-5-5", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["legacy"] == []
    held = cells(ledger, at_list(question), ("model",))
    listed = sum(cell.cost for cell in held if cell.keys == ("claude-sonnet-4-6",))
    assert from_usd(said["offers"]["list_usd"]) == listed
    assert from_usd(said["offers"]["list_usd"]) - from_usd(said["offers"]["off_usd"]) == from_usd(
        said["from_usd"]
    )


def test_what_is_of_no_call_is_told_where_calls_are_shared_out_and_closed(run, question, tmp_path):
    """A commitment's shortfall is in `bill`, and in no call: allocate and close have it beside."""
    commitment = '\n[offers.commitment]\nusd = "100000"\nevery = "month"\n'
    (tmp_path / "offers.toml").write_text(OFFER + commitment)
    (tmp_path / "farthing.toml").write_text(SETTINGS)
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(USAGES)
    october = replace(at_list(question), since=date(2026, 10, 1))
    listed = sum(cell.cost for cell in cells(ledger, october, ("account",)) if cell.keys == (OURS,))
    owed = 100_000 * 10**12 - listed // 2

    def told(*words) -> str:
        code, out, err = run(*words, "--config", tmp_path / "farthing.toml", "--ledger", tmp_path / "ledger")
        assert code == 0, err
        return out

    bill = told("bill", "--since", "2026-10-01", "--until", "2026-10-31", "--json")
    assert from_usd(json.loads(bill)["shortfall_usd"]) == owed
    assert f"{show(owed)} of shortfalls fell due" in told("allocate", "--month", "2026-10")
    assert "shortfalls" not in told("allocate", "--month", "2026-09")  # no period ends in it
    closing = ("close", "2026-10", "--accrue", "--dry-run")
    assert "shortfalls less rebates" in told(*closing)
    said = json.loads(told(*closing, "--json"))
    assert said["terms"] == {"rebate_usd": "0", "shortfall_usd": usd(owed)}
    assert said["booked_usd"] == said["computed_usd"]
