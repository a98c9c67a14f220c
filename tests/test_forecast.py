"""Forecasts: what is known to come is counted, what is not has an interval, and the errors of the past are told."""

import importlib.util
import json
import random
import sys
from datetime import UTC, date, datetime, timedelta

import pytest

from farthing.cells import Question, QuestionError
from farthing.config import Budget, Config
from farthing.ledger import Ledger
from farthing.money import PICOS_PER_USD, usd
from farthing.reports import as_json
from farthing.reports._ahead import CLEARLY, COVERED, RUN_RATE, ahead, run_rate
from farthing.reports.budgets import budgets, standings
from farthing.reports.forecast import coming, forecast
from farthing.usage import Facts, Usage
from tests.traffic import COMPANY, MONDAY, changed_prices, dearer_haiku, usages

needs_statsmodels = pytest.mark.skipif(
    importlib.util.find_spec("statsmodels") is None, reason="pip install 'farthing[forecast]'"
)
DAY_US = 86_400_000_000
HAIKU = "global.anthropic.claude-haiku-4-5"  # $1 and $5 a million


def spend(day, dollars, team="search", model=HAIKU, hour=12):
    """One call of so many dollars of input on that day."""
    at = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
    facts = Facts("bedrock_log", "bedrock", model, region="us-east-1")
    tokens = (round(dollars * 10**6), 0, 0, 0, 0)
    name = f"{day}-{team}-{model}-{hour}"
    return Usage(int(at.timestamp()) * 10**6, name, "", ((facts, tokens),), (("team", team),))


def steady(first, days, dollars=10, **more):
    return [spend(first + timedelta(days=n), dollars, **more) for n in range(days)]


def ledger_of(folder, *calls):
    made = Ledger(folder)
    made.append([call for some in calls for call in some])
    return made


def rows(table, *names):
    return [tuple(row[name] for name in names) for row in as_json(table)["rows"]]


# --- the report -----------------------------------------------------------------------------------


def test_what_is_steady_goes_on(tmp_path):
    """$10 a day, the last call on the 20th at noon: 20 x 10 are spent, half of the 20th and ten days are to come."""
    books = ledger_of(tmp_path, steady(date(2026, 8, 1), 51))
    table = forecast(books, Question(until=date(2026, 9, 20)))
    (row,) = as_json(table)["rows"]
    assert row["month"] == "2026-09"
    assert row["spent_usd"] == "200"
    assert float(row["forecast_usd"]) == pytest.approx(200 + 5 + 100, abs=0.05)
    assert float(row["low_usd"]) == pytest.approx(float(row["high_usd"]), abs=0.5)
    assert row["error"] == "0.0 %"
    assert row["intervals_held"] == row["intervals_tried"] > 0


def test_the_parts_sum_to_the_whole(tmp_path):
    calls = list(usages(hours=24 * 45))
    table = as_json(forecast(ledger_of(tmp_path, calls), Question(), by="team"))
    (whole,) = table["total"]
    for name in ("spent_usd", "forecast_usd"):
        assert sum(float(row[name]) for row in table["rows"]) == pytest.approx(float(whole[name]), abs=0.03)
    assert {row["team"] for row in table["rows"]} == {work.team for work in COMPANY}
    for row in table["rows"]:
        assert float(row["low_usd"]) <= float(row["forecast_usd"]) <= float(row["high_usd"])


def test_a_price_that_will_change_is_counted_from_its_day(tmp_path):
    """From the 25th haiku costs four times as much: of $10 a day, six of the ten days to come are $40."""
    book = dearer_haiku(tmp_path / "prices", "2026-09-25")
    books = ledger_of(tmp_path / "ledger", steady(date(2026, 8, 1), 51))
    question = Question(until=date(2026, 9, 20), book=book)
    table = as_json(forecast(books, question))
    assert float(table["rows"][0]["forecast_usd"]) == pytest.approx(200 + 5 + 4 * 10 + 6 * 40, abs=0.1)
    assert table["price_events"] == [
        {"day": "2026-09-25", "model": "claude-haiku-4-5", "change": "+300.0 % of what is used of it now"}
    ]
    told = coming(books, question, datetime(2026, 9, 20, 15, tzinfo=UTC), 14)
    assert [(one.day, one.model) for one in told] == [(date(2026, 9, 25), "claude-haiku-4-5")]


def test_a_price_that_has_changed_is_no_trend(tmp_path):
    """Usage went on as ever while the price rose fourfold on the 10th: the days to come cost what they do now."""
    book = dearer_haiku(tmp_path / "prices", "2026-09-10")
    books = ledger_of(tmp_path / "ledger", steady(date(2026, 8, 1), 51))
    (row,) = as_json(forecast(books, Question(until=date(2026, 9, 20), book=book)))["rows"]
    assert row["spent_usd"] == "530"  # 9 x 10 + 11 x 40
    assert float(row["forecast_usd"]) == pytest.approx(530 + 20 + 10 * 40, abs=0.2)
    assert row["error"] == "0.0 %"


def test_an_end_of_a_model_is_told(tmp_path):
    book = changed_prices(
        tmp_path / "prices",
        "haiku.toml",
        "lifecycle = { retirement_not_before = 2026-10-15",
        "lifecycle = { retirement = 2026-09-30",
    )
    direct = [
        Usage(call.at_us, call.request_id, "", ((Facts("x", "anthropic", "claude-haiku-4-5"), (1, 1, 0, 0, 0)),))
        for call in steady(date(2026, 9, 1), 20)
    ]  # fmt: skip
    told = coming(
        ledger_of(tmp_path / "l", direct), Question(book=book), datetime(2026, 9, 20, 15, tzinfo=UTC), 14
    )
    assert [(one.day, one.says) for one in told] == [
        (date(2026, 9, 30), "retired, and no longer answers, on anthropic")
    ]


@pytest.mark.parametrize("days", [1, 2, 6, 13, 27])
def test_little_history_is_a_wide_interval_and_says_so(days, tmp_path):
    books = ledger_of(tmp_path, steady(date(2026, 9, 1), days))
    table = as_json(forecast(books, Question(until=date(2026, 9, days))))
    (row,) = table["rows"]
    assert row["method"] == "run-rate, wide interval"
    assert float(row["low_usd"]) < float(row["forecast_usd"]) < float(row["high_usd"])
    assert any("too few" in note for note in table["notes"])


def test_another_month(tmp_path):
    books = ledger_of(tmp_path, steady(date(2026, 8, 1), 51))
    question = Question(until=date(2026, 9, 20))
    assert rows(forecast(books, question, month="2026-08"), "forecast_usd", "method") == [
        ("310", "it is over")
    ]
    ((ahead_,),) = rows(forecast(books, question, month="2026-10"), "forecast_usd")
    assert float(ahead_) == pytest.approx(310, abs=0.1)
    with pytest.raises(QuestionError, match="no month"):
        forecast(books, question, month="2026-13")
    with pytest.raises(QuestionError, match="too far ahead"):
        forecast(books, question, month="2027-12")
    with pytest.raises(QuestionError, match="'day'"):
        forecast(books, question, by="day")


def test_what_has_no_price_is_told(tmp_path):
    books = ledger_of(
        tmp_path,
        steady(date(2026, 8, 1), 51),
        steady(date(2026, 9, 1), 20, team="new", model="anthropic.claude-unheard-of-9"),
    )
    table = as_json(forecast(books, Question(until=date(2026, 9, 20))))
    assert table["rows"][0]["spent_usd"] == "200"
    assert any(note.startswith("20 calls of these days have no price") for note in table["notes"])


def test_a_ledger_with_nothing_or_a_future(tmp_path):
    assert forecast(Ledger(tmp_path / "empty"), Question()).rows == []
    books = ledger_of(tmp_path / "future", steady(date(2099, 1, 1), 3))
    assert forecast(books, Question()).rows == []
    books = ledger_of(tmp_path / "both", steady(date(2026, 8, 1), 51), steady(date(2099, 1, 1), 3))
    ((spent,),) = rows(forecast(books, Question(), month="2026-09"), "spent_usd")
    assert spent == "200"


def test_without_the_library_the_run_rate_still_stands(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.tsa.exponential_smoothing.ets", None)
    books = ledger_of(tmp_path, usages(hours=24 * 45))
    table = as_json(forecast(books, Question()))
    assert table["rows"][0]["method"] == RUN_RATE
    assert any("pip install 'farthing[forecast]'" in note for note in table["notes"])


# --- the ways of forecasting ----------------------------------------------------------------------


def made_history(days, seed, growth=0.0):
    """Weeks with quiet weekends, and noise."""
    rng = random.Random(seed)
    return [
        100 * (0.3 if day % 7 > 4 else 1) * (1 + growth) ** day * rng.lognormvariate(0, 0.12)
        for day in range(days)
    ]


def test_the_run_rate_is_the_last_week_again():
    assert run_rate([1, 2, 3, 4, 5, 6, 7], 9) == [1, 2, 3, 4, 5, 6, 7, 1, 2]
    assert run_rate([2, 4], 3) == [3, 3, 3]
    assert run_rate([], 2) == [0, 0]


@needs_statsmodels
def test_what_grows_is_smoothed_better_than_run_on():
    history = made_history(75, 1, growth=0.02)
    found = ahead(history[:60], 0, 15)
    assert found.method != RUN_RATE
    assert found.error is not None
    assert found.run_rate_error is not None
    assert found.error < found.run_rate_error
    assert abs(sum(found.days) - sum(history[60:])) < abs(sum(run_rate(history[:60], 15)) - sum(history[60:]))


def test_the_interval_holds_as_often_as_it_says():
    held = []
    for seed in range(60):
        history = made_history(80, seed)
        found = ahead(history[:60], 0, 20, library=False)
        held.append(found.low <= sum(history[60:]) <= found.high)
    assert 100 * sum(held) / len(held) >= COVERED - 12


@pytest.mark.parametrize("history", [[], [0.0] * 40, [5.0], [0.0] * 39 + [7.0], [1e9] * 30])
def test_odd_histories_have_an_answer(history):
    found = ahead(history, 0, 10)
    assert len(found.days) == 10
    assert 0 <= found.low <= sum(found.days) <= found.high


@needs_statsmodels
@pytest.mark.parametrize("seed", range(4))
def test_the_run_rate_is_used_unless_another_was_clearly_better(seed):
    history = made_history(45, seed)
    found = ahead(history, 0, 9)
    assert found.error is not None
    assert found.run_rate_error is not None
    assert found.method == RUN_RATE or found.error * CLEARLY < found.run_rate_error


# --- budgets --------------------------------------------------------------------------------------


def budget_config(*made):
    return Config(budgets=made)


def test_budgets_tell_what_is_spent_left_and_to_come(tmp_path):
    """By the 20th search has spent $200; $305 to come by the end: over $250 on the 25th."""
    books = ledger_of(
        tmp_path, steady(date(2026, 8, 1), 51), steady(date(2026, 8, 1), 51, dollars=1, team="ads")
    )
    config = budget_config(
        Budget("search", 250, where=("team=search",)),
        Budget("ads", 250, where=("team=ads",)),
        Budget("all", 210),
        Budget("a week", 80, period="week"),
        Budget("a day", 1000, period="day"),
    )
    table = budgets(books, Question(until=date(2026, 9, 20), config=config))
    assert rows(table, "budget", "spent_usd", "left_usd", "percent", "state") == [
        ("search", "200", "50", 80, "over on 2026-09-25"),
        ("ads", "20", "230", 8, "ok"),
        ("all", "220", "-10", 104, "over"),
        ("a week", "77", "3", 96, "over on 2026-09-20"),
        ("a day", "11", "989", 1, "ok"),
    ]
    assert table.failed
    assert not budgets(
        books, Question(until=date(2026, 9, 20), config=budget_config(Budget("ads", 900)))
    ).failed


def test_a_budget_begins_anew(tmp_path):
    books = ledger_of(tmp_path, steady(date(2026, 8, 1), 31))
    question = Question(config=budget_config(Budget("all", 100)))
    (august,) = standings(books, question, datetime(2026, 8, 31, 23, tzinfo=UTC))
    assert august.over
    (september,) = standings(books, question, datetime(2026, 9, 2, tzinfo=UTC))
    assert (september.spent, september.over) == (0, False)
    assert september.exceeded_on == date(2026, 9, 11)  # ten days are the limit to the cent
    assert september.state == "over on 2026-09-11"
    (later,) = standings(books, question, datetime(2026, 9, 20, tzinfo=UTC))  # and nothing was imported since
    assert later.state == "over since 2026-09-11, if it went on"


def test_a_budget_s_month_is_that_of_the_zone(tmp_path):
    late = [spend(date(2026, 8, 31), 50, hour=23)]  # 01:00 on 1 September in Berlin
    config = budget_config(Budget("all", 100))
    at = datetime(2026, 9, 1, 12, tzinfo=UTC)
    for tz, spent in (("UTC", 0), ("Europe/Berlin", 50)):
        question = Question(tz=tz, config=config)
        (standing,) = standings(ledger_of(tmp_path / tz.replace("/", "-"), late), question, at)
        assert usd(standing.spent) == str(spent)


def test_a_budget_is_not_blind_to_what_has_no_price(tmp_path):
    books = ledger_of(tmp_path, steady(date(2026, 9, 1), 20, model="anthropic.claude-unheard-of-9"))
    table = budgets(books, Question(until=date(2026, 9, 20), config=budget_config(Budget("all", 100))))
    assert rows(table, "spent_usd", "state") == [("0", "ok; 20 calls unpriced")]


def test_budgets_over_a_ledger_with_nothing(tmp_path):
    question = Question(config=budget_config(Budget("all", 100)))
    (row,) = as_json(budgets(Ledger(tmp_path), question))["rows"]
    assert (row["spent_usd"], row["forecast_usd"], row["state"]) == ("0", None, "ok")


def test_budgets_that_cannot_be_are_one_line(tmp_path):
    with pytest.raises(QuestionError, match=r"add \[\[budgets\]\]"):
        budgets(Ledger(tmp_path), Question())
    question = Question(config=budget_config(Budget("odd", 100, where=("colour=red",))))
    with pytest.raises(QuestionError, match=r"budget 'odd': cannot filter by 'colour=red'"):
        budgets(Ledger(tmp_path), question)


def test_marks_are_reached_in_turn(tmp_path):
    books = ledger_of(tmp_path, steady(date(2026, 9, 1), 20))
    made = [Budget(f"{limit}", limit, alert_at=(50, 80, 100)) for limit in (1000, 400, 240, 200, 199)]
    question = Question(until=date(2026, 9, 20), config=budget_config(*made))
    found = standings(books, question, datetime(2026, 9, 20, 20, tzinfo=UTC))
    assert [standing.reached for standing in found] == [0, 50, 80, 100, 100]
    assert [standing.over for standing in found] == [False] * 4 + [True]
    assert found[0].spent == 200 * PICOS_PER_USD


def test_json_is_exact_and_whole(tmp_path):
    calls = [call._replace(tags=()) for call in usages(hours=24 * 9, start=MONDAY)]
    table = as_json(forecast(ledger_of(tmp_path, calls), Question(), by="team"))
    json.dumps(table)
    assert all(isinstance(row["spent_usd"], str) for row in table["rows"])
