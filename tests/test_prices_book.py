"""`farthing prices`: the book listed, explained, compared and taken along; from an offer file to an overlay in use."""

import csv
import io
import json
import re
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from farthing import cli
from farthing.book import default_book
from farthing.ledger import Ledger
from farthing.pricelist import SCHEMA, as_csv, as_json, at_risk, differences, history, load_book
from farthing.usage import Facts, Usage
from tests.price_lists import Listed, all_meters, offer, written

ROOT = Path(__file__).parent.parent
BOOK = default_book()
TODAY = date(2026, 11, 22)

OVERLAY = """
[[claude-opus-5.price]]
from = 2026-11-20
platforms = ["bedrock"]
endpoints = ["regional"]
input = 6
output = 27.5
"""


@pytest.fixture
def farthing(capsys, monkeypatch, tmp_path):
    """farthing("prices", "list") -> (exit code, stdout, stderr), away from this machine's own files."""
    for name in ("FARTHING_LEDGER", "FARTHING_BOOK", "CLAUDE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(SystemExit) as ended:
            cli.main(["prices", *map(str, words)])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


def answer(farthing, *words):
    code, out, err = farthing(*words, "--json")
    assert code == 0, err
    return json.loads(out)


# --- the book ------------------------------------------------------------------------------------------------------


def test_list_has_the_rates_of_a_day(farthing):
    rows = answer(
        farthing, "list", "--model", "claude-sonnet-5-5", "--platform", "anthropic", "--at", "2026-10-06"
    )["rows"]
    reads = {(row["endpoint"], row["mode"]): row["cache_read"] for row in rows}
    assert reads == {
        ("global", "on_demand"): "0.2", ("global", "batch"): "0.1",
        ("geo_us", "on_demand"): "0.22", ("geo_us", "batch"): "0.11",
    }  # fmt: skip


def test_show_by_the_id_of_a_profile_shows_its_endpoint(farthing):
    rows = answer(farthing, "show", "eu.anthropic.claude-haiku-5-5", "--at", "2026-11-22")["rows"]
    assert [(row["endpoint"], row["mode"], row["above"], row["input"]) for row in rows] == [
        ("regional", "on_demand", 0, "0.11"), ("regional", "on_demand", 100_000, "0.55"),
        ("regional", "batch", 0, "0.055"), ("regional", "batch", 100_000, "0.275"),
    ]  # fmt: skip
    assert rows[2]["cache_read"] is None  # not published: never 0
    assert "GENAI" in rows[0]["source"]


def test_show_says_when_it_ends(farthing):
    code, out, _ = farthing("show", "claude-sonnet-4-5", "--platform", "bedrock")
    assert code == 0
    assert "Claude Sonnet 4.5, released 2025-09-29" in out
    assert "bedrock: eol 2027-04-08, source LITELLM" in out


def test_history_has_each_change_once(farthing):
    changes = history(BOOK, "claude-sonnet-5-5", "anthropic")
    days = [(str(change.day), change.sku.endpoint, change.sku.mode) for change in changes]
    assert len(days) == len(set(days)) == 8
    rows = answer(farthing, "history", "claude-sonnet-5-5", "--platform", "bedrock")["rows"]
    assert [row["change"] for row in rows if row["day"] == "2026-10-07" and row["endpoint"] == "global"] == [
        "cache_read 0.2 -> 0.1"
    ]


def test_a_band_that_ends_is_a_change(farthing):
    rows = answer(farthing, "history", "claude-sonnet-4-6", "--platform", "anthropic")["rows"]
    assert {row["change"] for row in rows if row["day"] == "2026-03-13"} == {
        "prompts up to 200,000 -> any prompt"
    }


def test_diff_of_books(farthing, tmp_path):
    (tmp_path / "overlay.toml").write_text(OVERLAY)
    rows = answer(farthing, "diff", "shipped", "overlay.toml")["rows"]
    assert [(row["kind"], row["endpoint"], row["change"].split(",")[0]) for row in rows] == [
        ("changed", "regional", "without end -> until 2026-11-20"),
        ("new", "regional", "begins"),
    ]
    assert differences(BOOK, BOOK) == []


def test_an_unknown_model_names_the_nearest(farthing):
    code, _, err = farthing("show", "claude-opus-55")
    assert code == 2
    assert "claude-opus-5-5" in err


# --- at risk -------------------------------------------------------------------------------------------------------


def test_what_ends_soon_of_what_is_used():
    used = [
        ("bedrock", "claude-opus-4-1"),
        ("anthropic", "claude-sonnet-4-5"),
        ("bedrock", "claude-opus-5-5"),
    ]
    found = at_risk(BOOK, TODAY, timedelta(days=90), used)
    assert [(risk.model, risk.stage, risk.day, risk.days, risk.source) for risk in found] == [
        ("claude-sonnet-4-5", "retired", date(2026, 11, 30), 8, "A_SDK"),
        ("claude-opus-4-1", "end of life", date(2027, 1, 8), 47, "LITELLM"),
    ]
    assert [risk.days for risk in at_risk(BOOK, TODAY, timedelta(days=20), used)] == [8]


def test_extended_access_is_a_risk_of_its_price():
    found = at_risk(BOOK, date(2026, 5, 1), timedelta(days=90), [("bedrock", "claude-sonnet-4")])
    assert [(risk.stage, risk.days) for risk in found] == [
        ("legacy", -17),
        ("extended access: a higher price may follow", 74),
    ]


def test_where_no_day_is_published_the_price_tells_or_the_maker():
    """As `farthing migrate` does: Sonnet 3.5 costs twice since 2025-12-01, and Opus 3 has no news but Anthropic's."""
    pairs = [("bedrock", "claude-3-5-sonnet-v2"), ("bedrock", "claude-3-opus"), ("bedrock", "claude-opus-5")]
    found = at_risk(BOOK, TODAY, timedelta(days=90), pairs)
    assert [(risk.model, risk.stage, risk.day) for risk in found] == [
        ("claude-3-5-sonnet-v2", "extended access: a higher price in some regions", date(2025, 12, 1)),
        ("claude-3-opus", "retired by its maker", date(2026, 1, 5)),
    ]
    assert found[0].source


def test_a_bound_that_has_passed_says_nothing():
    pair = [("anthropic", "claude-opus-4-6")]
    assert [risk.bound for risk in at_risk(BOOK, TODAY, timedelta(days=90), pair)] == ["not before"]
    assert at_risk(BOOK, date(2027, 3, 1), timedelta(days=90), pair) == []


def test_at_risk_of_a_ledger_has_its_calls_and_cost(farthing, tmp_path):
    at_us = int(datetime(2026, 7, 1, tzinfo=UTC).timestamp() * 1_000_000)
    facts = Facts("bedrock_log", "bedrock", "us.anthropic.claude-opus-4-1-20250805-v1:0", region="us-east-1")
    ledger = Ledger(tmp_path / "ledger")
    ledger.append([Usage(at_us, "one", "", ((facts, (1_000_000, 0, 0, 0, 0)),))])
    # far enough ahead to hold whatever the day of the test
    rows = answer(farthing, "at-risk", "--within", "9000d", "--ledger", tmp_path / "ledger")["rows"]
    assert {(row["model"], row["calls"], row["usd"]) for row in rows} == {("claude-opus-4-1", 1, "15")}


# --- updates -------------------------------------------------------------------------------------------------------


def test_update_writes_an_overlay_and_changes_nothing(farthing, tmp_path):
    rows = [*all_meters("Claude Opus 5", "6 27.5 0.55 6.875 11"), Listed("Claude Opus 9", "input", "9")]
    place = written(tmp_path / "index.json", offer(rows))
    told = answer(farthing, "update", "--from", "aws-price-list", place)
    assert (told["lines"], told["quotes"], told["rates"], told["equal"]) == (6, 5, 5, 4)
    assert [(row["meter"], row["ours"], row["theirs"]) for row in told["changed"]] == [("input", "5.5", "6")]
    assert [row["of"] for row in told["unmatched"]] == ["Claude Opus 9 (Amazon Bedrock Edition)"]
    assert told["overlay"] == "prices-2026-11-20.toml"
    assert default_book().digest == BOOK.digest
    shown = answer(
        farthing, "show", "us.anthropic.claude-opus-5", "--at", "2026-11-21", "--book", told["overlay"]
    )
    assert next(row["input"] for row in shown["rows"] if row["mode"] == "on_demand") == "6"


def test_an_overlay_is_not_overwritten(farthing, tmp_path):
    place = written(tmp_path / "index.json", offer(all_meters("Claude Opus 5", "6 27.5")))
    words = ("update", "--from", "aws-price-list", place)
    assert farthing(*words, "--dry-run")[0] == 0
    assert not list(tmp_path.glob("prices-*"))
    assert farthing(*words)[0] == 0
    code, _, err = farthing(*words)
    assert (code, err) == (2, "farthing: prices-2026-11-20.toml: is there already; --force overwrites it\n")
    assert farthing(*words, "--force")[0] == 0


def test_update_tells_a_person(farthing, tmp_path):
    rows = [*all_meters("Claude Opus 5", "6 27.5"), Listed("Claude Opus 5", "input", "1", unit="Hours")]
    code, out, _ = farthing(
        "update", "--from", "aws-price-list", written(tmp_path / "index.json", offer(rows))
    )
    assert code == 0
    assert "3 lines = 2 rates of Claude + 0 passed over + 1 unmatched" in out
    assert "2 rates, 1 equal; 0 new, 1 changed" in out
    assert "the unit 'Hours' is not known" in out
    assert re.search(r"changed +bedrock/claude-opus-5/regional/on_demand +input 5.5 -> 6 ", out)


def test_the_book_of_the_environment(farthing, tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text(OVERLAY)
    monkeypatch.setenv("FARTHING_BOOK", "mine.toml")
    told = answer(farthing, "list", "--model", "claude-opus-5", "--mode", "on_demand", "--at", "2026-11-21")
    assert told["book"] == load_book("mine.toml").digest != BOOK.digest
    assert {row["input"] for row in told["rows"] if row["endpoint"] == "regional"} == {"6"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("update", "--from", "aws-price-list"), "name an offer file"),
        (("update", "--from", "aws-price-list", "none.json"), "none.json: No such file"),
        (("check", "none.json"), "none.json: No such file"),
        (("list", "--at", "soon"), "'soon' is no day"),
        (("list", "--model", "gpt-*"), "no price of gpt-*"),
        (("list", "--book", "none.toml"), "none.toml: no such book"),
        (("at-risk", "--all", "--within", "soon"), "write days, as 90d"),
        (("export",), "choose one of"),
    ],
)
def test_bad_words_are_one_line(farthing, words, says):
    code, out, err = farthing(*words)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


# --- the book as data ----------------------------------------------------------------------------------------------


def test_export_has_every_card_of_the_book(farthing):
    code, out, _ = farthing("export", "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["schema"], told["book"]) == (SCHEMA, BOOK.digest)
    assert [card["id"] for card in told["cards"]] == [card.id for card in BOOK.cards()]
    uncached = [card for card in told["cards"] if card["platform"] == "bedrock" and card["mode"] == "batch"]
    assert {card["cache_read"] for card in uncached} == {None}
    named = {key for card in told["cards"] for key in card["source"].split(", ")}
    assert named <= told["sources"].keys()


def test_csv_and_json_say_the_same():
    rows = list(csv.DictReader(io.StringIO(as_csv(BOOK))))
    cards = as_json(BOOK)["cards"]
    assert len(rows) == len(cards) > 300
    for row, card in zip(rows, cards, strict=True):
        assert row == {
            key: " ".join(value) if isinstance(value, list) else "" if value is None else str(value)
            for key, value in card.items()
        }


def test_every_field_of_the_schema_is_documented():
    page = (ROOT / "docs" / "prices-schema.md").read_text(encoding="utf-8")
    told = as_json(BOOK)
    fields = {
        *told,
        *(key for model in told["models"] for key in model),
        *(key for card in told["cards"] for key in card),
    }
    assert SCHEMA in page
    assert sorted(field for field in fields if f"`{field}`" not in page) == []


def test_export_to_a_file(farthing, tmp_path):
    assert farthing("export", "--litellm", "--at", "2026-11-22", "--out", tmp_path / "out.json")[0] == 0
    row = json.loads((tmp_path / "out.json").read_text())["us.anthropic.claude-opus-5"]
    assert row["input_cost_per_token"] == 5.5e-6
    assert row["output_cost_per_token_batches"] == 13.75e-6
