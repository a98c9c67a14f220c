"""Sessions, searches and code run: entries of the ledger, priced when asked, in the bill beside tokens."""

import csv
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing import cli
from farthing.api import import_paths
from farthing.billed import bill_beside
from farthing.book import default_book
from farthing.cells import Question, parse_where
from farthing.config import Config, Privacy, Team
from farthing.costs import HOUR_MS, Rates, due_entries, priced_entries
from farthing.exporters.focus import export
from farthing.fx import load
from farthing.ledger import Ledger, compact, find_named, forget, older, retain, verify
from farthing.ledger._tables import TABLES, transposed
from farthing.privacy import share
from farthing.render import to_csv
from farthing.reports import REPORTS, as_json, footer_lines, in_currency
from farthing.statement import Statement
from farthing.usage import ENTRY_UNITS, EPOCH, Entry, Facts, Usage
from tests import bills, closing
from tests.test_focus import MANDATORY

BOOK = default_book()
USD = 10**12
CENT = USD // 100
NOON = datetime(2026, 9, 10, 12, tzinfo=UTC)
NOW = datetime(2026, 11, 20, tzinfo=UTC)
DIRECT = Facts(
    "claude_code", "anthropic", "claude-opus-5", session="s1", project="/home/ann/shop", principal="ann"
)


def micros(at):
    return (at - EPOCH) // timedelta(microseconds=1)


def use(kind, quantity, at=NOON, name="", free="", facts=DIRECT, **said):
    name = name or f"{kind}-{quantity}-{at}-{said}-{free}"
    return Entry(name, micros(at), kind, quantity, facts._replace(**said), free)


def search(count, at=NOON, **said):
    return use("web_search", count, at, **said)


def call(at=NOON, tokens=(1_000_000, 0, 0, 0, 0), facts=DIRECT):
    """A million tokens of input: $5 of Opus 5."""
    return Usage(micros(at), f"req-{at}", "", ((facts, tokens),))


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger")


def ask(ledger, name="bill", question=None, **values):
    return as_json(REPORTS[name].make(ledger, question or Question(), **values))


# --- what they come to -----------------------------------------------------------------------------------------------


def picos(*entries, book=BOOK):
    return {due.entry.id: due.picos for due in priced_entries(entries, book)}


def test_sessions_cost_while_they_run_to_the_millisecond():
    hour, idle, least = (
        use("session", HOUR_MS), use("session", 9 * HOUR_MS, free="not_running"), use("session", 1),
    )  # fmt: skip
    assert picos(hour, idle, least) == {hour.id: 8 * CENT, idle.id: 0, least.id: 22_222}  # $0.08 an hour


def test_a_session_that_always_runs_is_57_60_a_month():
    (cost,) = picos(use("session", 720 * HOUR_MS)).values()
    assert cost == 57 * USD + 60 * CENT


def test_searches_are_a_cent_each_and_failed_ones_free():
    assert list(picos(search(1_000), search(7, free="failed")).values()) == [10 * USD, 0]


def test_a_container_is_five_minutes_at_least_and_1550_hours_are_free():
    most = use("code_execution", 1_550 * HOUR_MS - 60_000)
    short = use("code_execution", 1, NOON + timedelta(hours=1))
    free, paid = priced_entries([short, most], BOOK)
    assert (free.picos, free.billed) == (0, 0)
    assert (paid.picos, paid.billed) == (round(USD // 20 * 4 / 60), 4 * 60_000)  # four of its five, at $0.05
    (tools,) = priced_entries([replace_free(most, 9_999 * HOUR_MS)], BOOK)
    assert tools.picos == 0


def replace_free(entry, ms):
    return entry._replace(quantity=ms, free="with_web_tools")


def test_free_hours_begin_anew_each_month_and_are_each_organizations_own():
    used_up = use("code_execution", 1_550 * HOUR_MS)
    later = use("code_execution", HOUR_MS, datetime(2026, 10, 1, tzinfo=UTC))
    elsewhere = use("code_execution", HOUR_MS, NOON + timedelta(hours=1), platform="claude_aws")
    over = use("code_execution", HOUR_MS, NOON + timedelta(hours=2))
    assert picos(used_up, later, elsewhere, over) == {
        used_up.id: 0, later.id: 0, elsewhere.id: 0, over.id: 5 * CENT,
    }  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 700 * HOUR_MS), st.integers(0, 59)), max_size=12), st.randoms())
def test_what_a_month_of_containers_costs_hangs_on_no_order(runs, random):
    entries = [
        use("code_execution", ms, NOON + timedelta(minutes=minute), name=str(i))
        for i, (ms, minute) in enumerate(runs)
    ]
    shuffled = random.sample(entries, len(entries))
    assert priced_entries(entries, BOOK) == priced_entries(shuffled, BOOK)
    billed = sum(due.billed for due in priced_entries(entries, BOOK))
    assert billed == max(0, sum(max(ms, 5 * 60_000) for ms, _ in runs) - 1_550 * HOUR_MS)


@pytest.mark.parametrize("kind", ENTRY_UNITS)
def test_on_bedrock_nothing_of_it_is_sold_so_it_is_unpriced_and_not_free(kind):
    (due,) = priced_entries([use(kind, 5, platform="bedrock")], BOOK)
    assert due.picos is None
    assert due.why.endswith("is not sold on Amazon Bedrock")


def test_a_price_holds_from_its_day_on():
    """A book that has a search at $8 per 1,000 from October."""
    later = {"from": date(2026, 10, 1), "source": "A_PRICE_HIST", "web_search_per_1000": 8}
    book = replace(BOOK, defaults={**BOOK.defaults, "addons_later": [later]})
    before, after = priced_entries([search(100), search(100, datetime(2026, 10, 1, tzinfo=UTC))], book)
    assert (before.picos, after.picos) == (100 * CENT, 80 * CENT)
    assert before.why == "$10 per 1,000 (A_PRICE_2608, 2026-08-21)"
    assert after.why == "$8 per 1,000 (A_PRICE_HIST, 2026-08-21)"
    assert Rates.of(book).search == CENT * 8 // 10


# --- in the ledger ---------------------------------------------------------------------------------------------------


def test_an_entry_counts_once_and_the_most_that_was_told_holds(ledger):
    """A stream tells a growing count, and copies of it arrive in any order, in any import."""
    assert ledger.note_entries([search(1, name="a"), search(3, name="a"), search(2, name="a")], NOW) == 1
    assert ledger.note_entries([search(2, name="a"), search(3, name="a", session="s2")], NOW) == 0
    assert ledger.entries() == [search(3, name="a")]
    assert Ledger(ledger.folder).note_entries([search(4, name="a")], NOW) == 1
    compact(ledger)
    assert [entry.quantity for entry in ledger.entries()] == [4]
    assert verify(ledger) == []


TOLD = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=12)


@settings(max_examples=20)
@given(TOLD, st.randoms())
def test_the_same_entries_come_of_any_order(tmp_path_factory, told, random):
    check_any_order(tmp_path_factory, told, random)


@pytest.mark.fuzz
@settings(max_examples=500)
@given(TOLD, st.randoms())
def test_the_same_entries_come_of_any_order_at_length(tmp_path_factory, told, random):
    check_any_order(tmp_path_factory, told, random)


def check_any_order(tmp_path_factory, told, random):
    entries = [search(count, name=name) for name, count in told]
    found = []
    for order in (entries, random.sample(entries, len(entries))):
        ledger = Ledger(tmp_path_factory.mktemp("ledger"))
        for i in range(0, len(order), 5):
            ledger.note_entries(order[i : i + 5], NOW)
        found.append(ledger.entries())
    assert found[0] == found[1]


def test_verify_finds_an_entry_that_cannot_be(ledger):
    row = (0, "a", micros(NOON), "web_search", 1, "ms", "", *DIRECT)
    ledger.commit("entries", transposed([row], TABLES["entries"]))
    assert [(fault.table, fault.what) for fault in verify(ledger)] == [("entries", "1 rows that cannot be")]


def test_forget_puts_a_pseudonym_into_entries_too(ledger):
    ledger.note_entries([search(1), search(2, principal="bob", session="s2", project="/home/bob/x")], NOW)
    found = find_named(ledger, "ann")
    assert (found.names, found.sessions, found.entries) == (["ann"], ["s1"], 1)
    forget(ledger, "ann", NOW)
    ledger.note_entries([search(5, NOON + timedelta(hours=1))], NOW)
    facts = {entry.facts for entry in Ledger(ledger.folder).entries()}
    assert not any("ann" in said or said == "s1" for one in facts for said in one)
    assert {one.project for one in facts} == {"/home/forgotten/shop", "/home/bob/x"}
    assert verify(ledger) == []


def test_retain_drops_old_entries_with_old_usage(ledger):
    ledger.append([call()])
    ledger.note_entries([search(1), search(2, NOON + timedelta(days=9))], NOW)
    day = (NOON - EPOCH).days + 1
    assert older(ledger, day).entries == retain(ledger, day).entries == 1
    assert [entry.quantity for entry in ledger.entries()] == [2]


# --- imported --------------------------------------------------------------------------------------------------------

USES = """
{"kind": "session", "at": "2026-09-10T09:00:00Z", "state": "running", "ms": 3600000, "account": "111122223333"}
{"kind": "web_search", "at": "2026-09-10T10:00:00Z", "searches": 3}
"""


def transcript(searches):
    block = {
        "input_tokens": 1_000_000,
        "output_tokens": 0,
        "server_tool_use": {"web_search_requests": searches},
    }
    return json.dumps(
        {
            "type": "assistant", "sessionId": "s1", "requestId": "req_1", "timestamp": "2026-09-10T12:00:00Z",
            "message": {"id": "msg_1", "model": "claude-opus-5", "usage": block},
        }
    )  # fmt: skip


def test_importing_twice_is_importing_once(ledger, tmp_path):
    (tmp_path / "uses.jsonl").write_text(USES)
    (tmp_path / "session.jsonl").write_text(f"{transcript(1)}\n{transcript(2)}\n")
    (tmp_path / "copy").mkdir()
    done = import_paths(ledger, [tmp_path / "uses.jsonl", tmp_path / "session.jsonl"], now=NOW)
    assert (done.entries, done.imported, done.as_json()["entries"]) == (3, 1, 3)
    assert "3 entries beside tokens" in done.sentence()
    for name in ("uses.jsonl", "session.jsonl"):
        (tmp_path / "copy" / name).write_text((tmp_path / name).read_text())
    again = import_paths(ledger, [tmp_path / "copy"], now=NOW)
    assert (again.entries, again.imported, "entries" in again.as_json()) == (0, 0, False)
    assert ask(ledger)["footer"]["usd"] == "5.13"  # 5 of tokens, 0.08 of running, 5 searches


# --- in reports ------------------------------------------------------------------------------------------------------


@pytest.fixture
def used(ledger):
    """$5 of tokens with 3 searches; an hour of a session in another account; a search that Bedrock does not sell."""
    ledger.append([call()])
    ledger.note_entries(
        [
            search(3),
            use("session", HOUR_MS, NOON + timedelta(days=1), facts=Facts("uses", account="111122223333")),
            search(2, platform="bedrock", model_id="global.anthropic.claude-opus-5"),
        ],
        NOW,
    )
    return ledger


def test_the_bill_is_tokens_and_entries(used):
    bill = ask(used)
    assert [(step["step"], step["usd"]) for step in bill["waterfall"]] == [
        ("list", "5"), ("entries", "0.11"), ("total", "5.11"),
    ]  # fmt: skip
    assert [(row["model"], row["usd"], row["entries_usd"]) for row in bill["rows"]] == [
        ("claude-opus-5", "5.03", "0.03"), ("", "0.08", "0.08"),
    ]  # fmt: skip
    foot = bill["footer"]
    assert (foot["usd"], foot["entries_usd"]) == ("5.11", "0.11")
    assert (foot["read"], foot["priced"], foot["unpriced"]) == (4, 3, 1)
    assert foot["unpriced_reasons"] == {"web search is not sold on Amazon Bedrock": 1}


def test_each_says_its_rate_source_and_day(used):
    said = {row["why"]: row for row in ask(used)["entries"]}
    session = said["$0.08 an hour of running (A_PRICE_2608, 2026-08-21)"]
    assert (session["quantity"], session["billed"], session["unit"], session["usd"]) == (
        HOUR_MS,
        HOUR_MS,
        "ms",
        "0.08",
    )
    assert said["web search is not sold on Amazon Bedrock"]["usd"] is None
    assert said["$10 per 1,000 (A_PRICE_2608, 2026-08-21)"]["quantity"] == 3


@pytest.mark.parametrize(
    ("keys", "rows"),
    [
        (["day"], {"2026-09-10": "5.03", "2026-09-11": "0.08"}),
        (["month"], {"2026-09": "5.11"}),
        (["account"], {"": "5.03", "111122223333": "0.08"}),
        (["team"], {"shop": "5.03", "unassigned": "0.08"}),
        (["session"], {"s1": "5.03", "": "0.08"}),
        (["meter"], {"input": "5", "session": "0.08", "web_search": "0.03"}),
        (["platform"], {"anthropic": "5.03", "": "0.08", "bedrock": None}),
    ],
)
def test_by_keys_that_entries_have(used, keys, rows):
    question = Question(config=Config(teams={"shop": Team(projects=("/home/*/shop",))}))
    table = ask(used, "by", question, keys=keys)
    assert {row[keys[0]]: row["usd"] for row in table["rows"]} == rows
    assert table["footer"]["usd"] == "5.11"


@pytest.mark.parametrize(
    ("where", "total"),
    [
        ("account=111122223333", "0.08"),
        ("model=claude-opus-*", "5.03"),
        ("model!=claude-opus-*", "0.08"),
        ("project=*/shop", "5.03"),
        ("platform=bedrock", "0"),
    ],
)
def test_filters_hold_for_entries(used, where, total):
    assert ask(used, question=Question(where=(parse_where(where),)))["footer"]["usd"] == total


def test_days_of_a_zone(used):
    """18:30 and 12:00 UTC are the next day, and the same, in Kiritimati (UTC+14)."""
    asked = Question(tz="Pacific/Kiritimati", since=date(2026, 9, 12))
    assert ask(used, question=asked)["footer"]["usd"] == "0.08"
    assert [due.keys for due in due_entries(used, asked, ("day", "week"))] == [("2026-09-12", "2026-09-07")]


def test_free_hours_that_were_used_up_before_the_days_asked_for(ledger):
    ledger.note_entries(
        [use("code_execution", 1_550 * HOUR_MS), use("code_execution", HOUR_MS, NOON + timedelta(days=1))],
        NOW,
    )
    assert ask(ledger, question=Question(since=date(2026, 9, 11)))["footer"]["usd"] == "0.05"


def test_a_report_without_them_says_what_it_leaves_out(used):
    table = REPORTS["levers"].make(used, Question())
    assert table.footer["left_out"] == {"entries": 3, "usd": 11 * CENT}
    assert any(
        "not in this report: $0.11 of 3 sessions, searches" in line for line in footer_lines(table.footer)
    )
    assert "left_out" not in REPORTS["bill"].make(used, Question()).footer


def test_a_ledger_without_any_says_nothing_of_them(ledger):
    ledger.append([call()])
    table = ask(ledger)
    assert "entries" not in table
    assert not {"entries_usd", "left_out"} & (table["footer"].keys() | table["rows"][0].keys())


def test_what_people_read(used, capsys):
    with pytest.raises(SystemExit):
        cli.main(["bill", "--ledger", str(used.folder)])
    out, _ = capsys.readouterr()
    assert "Sessions, searches and code run" in out
    assert "Comes to" in out
    assert "$10 per 1,000 (A_PRICE_2608, 2026-08-21)" in out
    assert "read 4 = priced 3 + unpriced 1 + rejected 0" in out


def test_for_others_to_read_there_are_no_names_and_no_small_groups(used, tmp_path, monkeypatch):
    """Of bob nothing is known but an entry."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    used.note_entries([use("session", HOUR_MS, principal="bob", session="bobs", project="/home/bob/x")], NOW)
    for key in ("principal", "session", "project"):
        for least in (1, 2):
            question = Question(config=Config(privacy=Privacy(minimum_group=least)))
            made = REPORTS["by"].make(used, question, keys=[key])
            said = json.dumps(as_json(share(made, used, question)))
            assert not any(name in said for name in ("bob", "bobs", '"ann"', "/home/"))
            assert ("fewer than 2" in said) == (least == 2)


def test_offers_are_for_tokens_and_entries_cost_the_same_by_each(used, tmp_path, capsys):
    offer = tmp_path / "offer.toml"
    offer.write_text(
        '[[offers]]\nname = "x"\nsigned = 2026-09-01\nstarts = 2026-09-01\n'
        '[[offers.rates]]\nplatform = "anthropic"\npercent_off = "10"\n'
    )
    bill = ask(used, question=Question(config=Config(contracts=(str(offer),))))
    assert [bill[f"{name}_usd"] for name in ("list", "contracted", "effective")] == ["5.11", "4.61", "4.61"]
    row = bill["rows"][0]
    assert (row["usd"], row["contracted_usd"], row["entries_usd"]) == ("5.03", "4.53", "0.03")
    assert bill["waterfall"][-1]["usd"] == "4.61"
    with pytest.raises(SystemExit):
        cli.main(["by", "model", "--ledger", str(used.folder), "--contract", str(offer)])
    (heads,) = (line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("model"))
    assert heads.split()[-5:] == ["not", "tokens", "list", "contracted", "effective"]


def test_beside_a_bill_the_steps_still_end_in_the_total(used, tmp_path):
    day = bills.Line("2026-09-10", closing.A, "us-east-1", closing.SONNET, "global", "on_demand", "input", False,
                     1_000_000, Decimal(3))  # fmt: skip
    statement = Statement([bills.write_csv(tmp_path / "cur.csv", [day])])
    table = bill_beside(REPORTS["bill"].make(used, Question()), statement)
    *steps, total = table.parts["waterfall"]
    assert sum(step["usd"] for step in steps) == total["usd"] == 5 * USD + 11 * CENT
    assert {row["model"]: (row["usd"], row["entries_usd"], row["billed_usd"]) for row in table.rows} == {
        "claude-opus-5": (5 * USD + 3 * CENT, 3 * CENT, 0), "": (8 * CENT, 8 * CENT, 0),
        closing.SONNET: (0, 0, 3 * USD),
    }  # fmt: skip
    assert to_csv(table)


def test_another_currency(used, tmp_path):
    rates = tmp_path / "fx.csv"
    rates.write_text("date,currency,per_usd\n2026-09-08,EUR,0.5\n2026-09-11,EUR,0.25\n")
    table = in_currency(REPORTS["bill"], used, Question(), load(rates), "EUR")
    assert table.footer["eur"] == (5 * USD + 3 * CENT) // 2 + 8 * CENT // 4


def test_a_closing_says_what_it_leaves_out(used):
    made = closing.shut(used, "2026-09")
    assert made.said["months"]["2026-09"]["left_out"] == {"entries": 3, "usd": "0.11"}
    assert verify(used) == []


# --- exported --------------------------------------------------------------------------------------------------------


def focus_rows(folder):
    return list(csv.DictReader((folder / "focus.csv").read_text().splitlines()))


def test_focus_has_them_as_rows_of_their_own(used, tmp_path):
    done = export(used, Question(), tmp_path / "focus.csv")
    assert (done.picos, done.unpriced_entries) == (5 * USD + 11 * CENT, 1)
    rows = {row["SkuMeter"]: row for row in focus_rows(tmp_path)}
    session, searches = rows["session"], rows["web_search"]
    assert (session["ConsumedQuantity"], session["ConsumedUnit"]) == ("3600", "Seconds")
    assert (session["PricingQuantity"], session["PricingUnit"], session["ListUnitPrice"]) == (
        "1",
        "Hours",
        "0.08",
    )
    assert (searches["PricingQuantity"], searches["ListCost"], searches["BilledCost"]) == (
        "0.003",
        "0.03",
        "0.03",
    )
    assert sum(Decimal(row["EffectiveCost"]) for row in rows.values()) == Decimal("5.11")


def test_focus_rows_have_what_is_mandatory_and_are_read_back(used, tmp_path):
    done = export(used, Question(), tmp_path / "focus.csv")
    for row in focus_rows(tmp_path):
        assert all(row[name] for name in MANDATORY)
        assert Decimal(row["ListUnitPrice"]) * Decimal(row["PricingQuantity"]) == Decimal(row["ListCost"])
    read = Statement([tmp_path / "focus.csv"])
    assert read.billed_picos + sum(entry.picos for entry in read.apart) == done.picos
    assert not read.undecoded


def test_focus_counts_them_in_ccu_on_claude_platform_on_aws(ledger, tmp_path):
    ledger.note_entries([search(3, platform="claude_aws")], NOW)
    export(ledger, Question(), tmp_path / "focus.csv")
    used, bought = focus_rows(tmp_path)
    assert (used["BilledCost"], used["EffectiveCost"], used["PricingCurrencyEffectiveCost"]) == (
        "0",
        "0.03",
        "3",
    )
    assert (bought["ChargeCategory"], bought["BilledCost"], bought["PricingQuantity"]) == (
        "Purchase",
        "0.03",
        "3",
    )
