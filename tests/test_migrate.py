"""Migration: a range from what the tokenizer may make of the text, its causes, and what it may come to at most."""

import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest

from farthing.book import default_book
from farthing.cells import Question, parse_where
from farthing.cli import main
from farthing.ledger import Ledger
from farthing.migrate import MigrationError, from_ledger, legacy, migrate, plan, successor
from farthing.usage import EPOCH, Facts, Usage
from tests.counting import serve

BOOK = default_book()
NOW = datetime(2026, 11, 23, tzinfo=UTC)
OLD, NEW = "claude-sonnet-4-6", "claude-sonnet-5-5"


def calls(count, tokens=(1_000, 100, 0, 0, 0), model=f"global.anthropic.{OLD}", mode="", name="", **facts):
    start = (datetime(2026, 11, 10, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    said = Facts("bedrock_log", "bedrock", model, region="us-east-1", mode=mode, **facts)
    return [Usage(start + i, f"{model}{mode}{tokens}{name}{i}", "", ((said, tokens),)) for i in range(count)]


def ledger_of(folder, *usages):
    made = Ledger(folder)
    made.append([usage for some in usages for usage in some])
    return made


def moved(folder, *usages, to=NEW, source=OLD, **how):
    books = ledger_of(folder, *usages)
    move = plan(BOOK, source, to, **how)
    parts, unpriced = from_ledger(books, Question(), move, NOW)
    return migrate(move, parts, BOOK, NOW, unpriced)


def dollars(picos):
    return Fraction(picos, 10**12)


def step(found, name):
    return dollars(dict(found.steps)[name])


# --- the range -------------------------------------------------------------------------------------------------------


def test_the_range_is_what_the_tokenizer_may_make_of_the_text(tmp_path):
    """$3/$15 to $2/$10: two thirds of the price, times 1.0, 1.3, 1.35."""
    found = moved(tmp_path, calls(1_000))
    assert dollars(found.paid) == Fraction("4.5")
    assert [dollars(end) for end in (found.low, found.mid, found.high)] == [
        3,
        Fraction("3.9"),
        Fraction("4.05"),
    ]
    assert found.break_even == Fraction(3, 2)
    assert step(found, "price of the model") == Fraction("-1.5")
    assert step(found, "tokenizer") == Fraction("0.9")


def test_steps_sum_to_the_difference(tmp_path):
    cached = (500, 100, 400, 300, 0)
    found = moved(tmp_path, calls(7), calls(5, cached), calls(3, mode="batch"), calls(2, (99_000, 5, 0, 0, 0)),
                  to="claude-haiku-5-5", endpoint="regional")  # fmt: skip
    assert sum(picos for _, picos in found.steps) == found.mid - found.paid
    assert found.low <= found.mid <= found.high


def test_back_to_the_older_tokenizer_there_are_fewer_tokens(tmp_path):
    found = moved(tmp_path, calls(1_000, model=f"global.anthropic.{NEW}"), source=NEW, to=OLD)
    assert dollars(found.paid) == 3
    assert dollars(found.high) == Fraction("4.5")
    assert found.mid == round(Fraction(45 * 10**11) / Fraction("1.3"))
    assert found.low == round(Fraction(45 * 10**11) / Fraction("1.35"))


def test_within_one_tokenizer_the_length_of_answers_is_what_is_open(tmp_path):
    found = moved(tmp_path, calls(1_000), to="claude-haiku-4-5")
    assert [dollars(end) for end in (found.low, found.mid, found.high)] == [
        Fraction("1.45"),
        Fraction("1.5"),
        Fraction("1.55"),
    ]
    assert any("--output-factor" in note for note in found.notes)


def test_what_is_measured_or_told_is_taken(tmp_path):
    three = (Fraction(1), Fraction("1.1"), Fraction("1.2"))
    half = (Fraction(1, 2),) * 3
    found = moved(tmp_path, calls(1_000), inflation=three, output=half)
    assert [dollars(end) for end in (found.low, found.mid, found.high)] == [
        Fraction("2.5"),
        Fraction("2.75"),
        Fraction(3),
    ]
    assert step(found, "length of answers") == Fraction("-0.55")


def test_something_is_always_open(tmp_path):
    """Where the inflation is one number, the length of answers: $1.25 of the $3.75 is output."""
    found = moved(tmp_path, calls(1_000), inflation=(Fraction(5, 4),) * 3)
    assert [dollars(end) for end in (found.low, found.mid, found.high)] == [
        Fraction("3.625"),
        Fraction("3.75"),
        Fraction("3.875"),
    ]


# --- effects ---------------------------------------------------------------------------------------------------------


def test_a_prefix_under_the_new_minimum_is_no_longer_cached(tmp_path):
    """Sonnet 4.6 caches from 1,024 tokens, Haiku 4.5 from 4,096: at $1 the read of 0.1 becomes an input of 1."""
    found = moved(tmp_path, calls(1_000, (0, 0, 2_000, 0, 0)), to="claude-haiku-4-5")
    assert step(found, "cache minimum") == Fraction(2_000 * 1_000 * 9, 10**7)
    assert dollars(found.mid) == 2
    assert any("1,000 calls cache less" in note for note in found.notes)
    assert moved(tmp_path / "b", calls(1_000, (0, 0, 4_096, 0, 0)), to="claude-haiku-4-5").mid < found.mid


def test_the_minimum_is_met_by_the_tokens_of_the_new_tokenizer(tmp_path):
    """3,200 tokens are under the 4,096 of Opus 4.7 on Bedrock; 1.3 times as many are not."""
    found = moved(tmp_path, calls(10, (0, 0, 3_200, 0, 0)), to="claude-opus-4-7")
    assert step(found, "cache minimum") == 0
    assert dollars(found.high) == Fraction(3_200 * 10 * 5, 10**6)  # at 1.0 plain, and so dearer than at 1.35
    assert found.low == found.mid < found.high


def test_a_prompt_grows_over_the_cliff(tmp_path):
    """80,000 tokens become 104,000 of Haiku 5.5's, which cost five times as much each; of 70,000 none does."""
    found = moved(
        tmp_path, calls(1, (80_000, 0, 0, 0, 0)), calls(1, (70_000, 0, 0, 0, 0)), to="claude-haiku-5-5"
    )
    assert step(found, "long prompts") == Fraction(4 * 104_000, 10**7)
    assert dollars(found.low) == Fraction(150_000, 10**7)
    assert any(note.startswith("0 to 1 calls are long prompts") for note in found.notes)


def test_extended_access_is_found_by_its_price_where_no_day_is_published(tmp_path):
    old = "anthropic.claude-3-5-sonnet-20241022-v2:0"
    books = ledger_of(tmp_path, calls(3, model=f"us.{old}"), calls(1, model=f"apac.{old}"))
    (found,) = legacy(books, Question(), NOW)
    assert (found.model, found.status, f"{found.day}", found.calls) == (
        "claude-3-5-sonnet-v2",
        "extended access since",
        "2025-12-01",
        4,
    )


def test_the_endpoint_is_kept_unless_another_is_asked_for(tmp_path):
    regional = calls(1_000, model=f"eu.anthropic.{OLD}")
    kept = moved(tmp_path / "a", regional)
    assert dollars(kept.low) == Fraction("3.3")
    assert "on the global endpoint it would be $3.90: --endpoint global" in kept.notes
    found = moved(tmp_path / "b", regional, endpoint="global")
    assert dollars(found.low) == 3
    assert step(found, "endpoint") == Fraction("-0.3")


def test_batched_calls_go_on_demand_where_no_batch_is_sold(tmp_path):
    found = moved(tmp_path, calls(1_000, mode="batch"), to="claude-sonnet-5")
    assert dollars(found.paid) == Fraction("2.25")
    assert dollars(found.low) == 3
    assert any("1,000 batched calls" in note for note in found.notes)


def test_calls_that_may_not_fit_are_counted(tmp_path):
    found = moved(
        tmp_path, calls(2, (190_000, 0, 0, 0, 0)), calls(1, (250_000, 0, 0, 0, 0)), to="claude-opus-4-5"
    )
    assert any(note.startswith("1 calls may not fit") for note in found.notes)


@pytest.mark.parametrize(
    ("source", "target", "how", "fault"),
    [
        (OLD, OLD, {}, "is no move"),
        (OLD, "claude-sonnet-9", {}, "unknown model"),
        (OLD, NEW, {"endpoint": "geo_us"}, "has no geo_us endpoint on bedrock"),
        (OLD, "claude-sonnet-4", {}, r"claude-sonnet-4 has ended on bedrock \(2026-10-14\): name a model"),
    ],
)
def test_moves_that_there_are_not(tmp_path, source, target, how, fault):
    with pytest.raises(MigrationError, match=fault):
        moved(tmp_path, calls(1), source=source, to=target, **how)


# --- models that end -------------------------------------------------------------------------------------------------


def test_models_that_end_are_found_with_what_follows(tmp_path):
    books = ledger_of(
        tmp_path,
        calls(10, model="us.anthropic.claude-opus-4-1-20250805-v1:0"),
        calls(20, model="us.anthropic.claude-sonnet-4-20250514-v1:0"),
        calls(5, model=f"global.anthropic.{NEW}"),
    )
    found = legacy(books, Question(), NOW)
    assert [(one.model, one.status, f"{one.day}", one.calls, one.successor) for one in found] == [
        ("claude-opus-4-1", "ends", "2027-01-08", 10, "claude-opus-5-5"),
        ("claude-sonnet-4", "ended", "2026-10-14", 20, "claude-sonnet-5-5"),
    ]
    asked = Question(where=(parse_where("model=claude-sonnet-4"),))
    assert [one.model for one in legacy(books, asked, NOW)] == ["claude-sonnet-4"]
    assert successor(BOOK, "claude-opus-5-5", "bedrock", NOW) == ""


# --- the command -----------------------------------------------------------------------------------------------------


def run(capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        main(["migrate", *map(str, argv)])
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


def test_the_contract_on_a_ledger_shows_legacy_models_unasked(capsys, tmp_path):
    ledger_of(tmp_path, calls(1_000), calls(10, model="us.anthropic.claude-opus-4-1-20250805-v1:0"))
    code, out, err = run(
        capsys, "--from", OLD, "--to", NEW, "--ledger", tmp_path, "--at", "2026-11-23", "--json"
    )
    answer = json.loads(out)
    assert code == 0, err
    assert answer["from_usd"] == "4.5"
    assert answer["to_usd"] == {"low": "3", "mid": "3.9", "high": "4.05"}
    assert answer["break_even_inflation"] == 1.5
    (old,) = answer["legacy"]
    assert (old["model"], old["successor"], old["move"]["to"]) == (
        "claude-opus-4-1",
        *["claude-opus-5-5"] * 2,
    )
    code, out, _ = run(capsys, "--from", OLD, "--ledger", tmp_path, "--at", "2026-11-23")
    assert "as claude-sonnet-5-5; between $3.00 and $4.05" in out
    assert "claude-opus-4-1 on bedrock: ends 2027-01-08; 10 calls, $0.22" in out
    code, out, _ = run(capsys, "--ledger", tmp_path, "--at", "2026-11-23")
    assert (code, "Models in this ledger that end" in out) == (0, True)


def test_an_estimate_is_moved_too(capsys):
    work = ("--requests", 1_000, "--per", "day", "--input-tokens", 5_000, "--output-tokens", 300)
    code, out, err = run(capsys, "--from", OLD, "--to", NEW, *work, "--json", "--at", "2026-11-23")
    answer = json.loads(out)
    assert code == 0, err
    assert (answer["from_usd"], answer["to_usd"]["low"], answer["to_usd"]["mid"]) == ("585", "390", "507")


def test_a_model_that_has_ended_can_be_left(capsys):
    """Sonnet 4 ended on 2026-10-14 at $3 / $15: that is what a month of it cost, and the answer says of when."""
    work = ("--requests", 1_000, "--per", "day", "--input-tokens", 5_000, "--output-tokens", 300)
    move = ("--from", "claude-sonnet-4", "--to", "claude-sonnet-5-5")
    code, out, err = run(capsys, *move, *work, "--json", "--at", "2026-11-23")
    answer = json.loads(out)
    assert (code, answer["from_usd"], answer["to_usd"]["low"]) == (0, "585", "390"), err
    assert "claude-sonnet-4 ended on Bedrock on 2026-10-14: as it was sold the day before" in answer["notes"]
    code, out, _ = run(capsys, *move, *work, "--json", "--at", "2026-10-13")
    assert (code, "ended" in out) == (0, False)


def test_a_model_that_ends_soon_says_so_as_a_target(capsys):
    work = ("--requests", 1_000, "--input-tokens", 5_000, "--output-tokens", 300)
    _, out, _ = run(capsys, "--from", OLD, "--to", "claude-opus-4-1", *work, "--at", "2026-11-23")
    assert "claude-opus-4-1 ends on bedrock on 2027-01-08 itself" in out


def test_an_inflation_that_aws_measures(capsys, tmp_path, monkeypatch):
    ledger_of(tmp_path / "ledger", calls(1_000))
    sample = tmp_path / "sample.txt"
    sample.write_text("".join(f"{'word ' * 4}\n" for _ in range(16)), encoding="utf-8")
    with serve(monkeypatch) as url:
        where = ("--ledger", tmp_path / "ledger", "--measure", sample, "--endpoint-url", url)
        code, out, err = run(capsys, "--from", OLD, "--to", NEW, *where, "--json")
    answer = json.loads(out)
    assert code == 0, err
    assert answer["inflation"] == [1.5, 1.5, 1.5]
    assert answer["to_usd"]["mid"] == "4.5"
    assert "inflation measured: 8 pieces, 64 tokens, by CountTokens" in answer["notes"]


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        (("--to", NEW), "--to needs --from"),
        (("--from", OLD, "--to", "claude-9"), "unknown model"),
        (("--from", "claude-opus-5-5"), "nothing newer"),
        (("--from", OLD, "--inflation", "1.3,1.0,1.2"), "LOW,MID,HIGH"),
        (("--from", OLD, "--output-factor", "0"), "above 0"),
        (("--from", "claude-opus-4-6", "--to", NEW), "the ledger has no priced call to claude-opus-4-6"),
        (("--from", OLD, "--measure", "nowhere.txt"), "nowhere.txt"),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, argv, fault):
    ledger_of(tmp_path, calls(1))
    code, out, err = run(capsys, *argv, "--ledger", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert fault in err
