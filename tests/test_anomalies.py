"""Anomalies: each planted fault is found within the hour, under its own cause; quiet months raise no alarm."""

import shlex
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from farthing.cells import Question, QuestionError, parse_where
from farthing.ledger import Ledger
from farthing.money import PICOS_PER_USD
from farthing.reports import as_json
from farthing.reports._alarms import DAY, WEEK, Window, long_days, same_hours, silences, spikes
from farthing.reports.anomalies import KEYS, Anomaly, Subject, anomalies, find, see
from farthing.usage import EPOCH
from tests.traffic import COMPANY, HOUR, MONDAY, dearer_haiku, nothing, since, usages

BUSY = [replace(work, calls=work.calls * 16) for work in COMPANY]
NINE = MONDAY + 5 * timedelta(weeks=1) + timedelta(days=1, hours=9)  # a Tuesday, after five quiet weeks
NOW = NINE + timedelta(hours=1, minutes=10)


@pytest.fixture(scope="module")
def quiet_weeks(tmp_path_factory):
    """A ledger until the hour in which faults are planted."""
    folder = tmp_path_factory.mktemp("quiet") / "ledger"
    Ledger(folder).append(list(usages(BUSY, hours=(NINE - MONDAY) // HOUR)))
    return folder


@pytest.fixture
def books(quiet_weeks, tmp_path):
    """One of its own for a test: books(calls) has these too."""

    def make(*more):
        folder = shutil.copytree(quiet_weeks, tmp_path / "ledger")
        made = Ledger(folder)
        made.append([call for calls in more for call in calls])
        return made

    return make


def day_of(change, hours=2):
    """The planted hours, as they come after the quiet weeks."""
    after = (NINE - MONDAY) // HOUR
    return list(usages(BUSY, hours=after + hours, first=after, change=change))


def found(ledger, now=NOW, by=KEYS, minimum=5, **asked):
    return find(ledger, Question(**asked), by.split(","), minimum, now)[0]


# --- what is planted is found ---------------------------------------------------------------------

PLANTED = {
    "volume": (since("ads", NINE, calls=lambda calls: 4 * calls), "team ads", "volume", "calls"),
    "cache": (since("search", NINE, read=0), "team search", "cache", "80 % to 0 % of prompt tokens"),
    "prompt": (since("search", NINE, prompt=240_000), "team search", "prompt size", "prompt tokens a call"),
    "output": (since("ads", NINE, output=18_000), "team ads", "output size", "output tokens a call"),
    "model": (
        since("ads", NINE, model="eu.anthropic.claude-opus-4-6-v1"),
        "team ads",
        "model mix",
        "claude-opus-4-6 from 0 % to 100 % of tokens",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_within_the_hour_with_its_cause(planted, books):
    change, subject, cause, detail = PLANTED[planted]
    (one,) = found(books(day_of(change, 3)), NOW + 2 * HOUR)
    assert str(one.subject) == subject
    assert one.cause == cause
    assert detail in one.detail
    assert one.window.start == (NINE - EPOCH) // HOUR
    assert sum(step.picos for step in one.steps) == one.cost - one.usual
    assert max(one.steps, key=lambda step: step.picos).name == cause


def test_batch_that_is_none_any_more_is_found_after_a_week(tmp_path):
    """Twice the price shows only where there are many calls; and days of the same kind stand for weeks."""
    nightly = [replace(COMPANY[3], calls=130)]
    eight = 8 * 24 + 9
    ledger = Ledger(tmp_path)
    change = since("nightly", MONDAY + eight * HOUR, mode="on_demand")
    ledger.append(list(usages(nightly, hours=eight + 5, change=change)))
    (one,) = found(ledger, MONDAY + (eight + 5) * HOUR)
    assert (str(one.subject), one.cause) == ("team nightly", "batch and mode")
    assert "batch from 100 % to 0 % of calls" in one.detail


def test_nothing_planted_nothing_found(books):
    table = anomalies(books(day_of(nothing)), Question(until=NINE.date()))
    assert table.rows == []
    assert not table.failed


def test_the_cost_is_that_of_the_hours_and_the_usual_that_of_a_week(books):
    planted = day_of(since("ads", NINE, calls=lambda calls: 4 * calls))
    calls = [*usages(BUSY, hours=(NINE - MONDAY) // HOUR), *planted]
    (one,) = found(books(planted))
    assert one.compared
    assert (one.window.start - one.compared.start) % WEEK == 0
    sums = []
    for window in (one.window, one.compared):
        low, high = ((EPOCH + at * HOUR).timestamp() * 10**6 for at in window)
        hours = [call.parts[0] for call in calls if low <= call.at_us < high]
        # haiku 4.5 by an EU profile: $1.10 and $5.50 a million
        sums.append(
            sum(t[0] * 1_100_000 + t[1] * 5_500_000 for facts, t in hours if "haiku" in facts.model_id)
        )
    assert [one.cost, one.usual] == sums


def test_a_team_that_stops_is_silent_and_nothing_else(books):
    (one,) = found(books(day_of(since("nightly", NINE, calls=None), 5)), NINE + 5 * HOUR)
    assert (str(one.subject), one.cause) == ("team nightly", "silent")
    assert one.window.start == (NINE - EPOCH) // HOUR
    assert one.expected_calls > 100


def test_when_everything_stops_it_is_one_silence(books):
    ledger = books()
    (one,) = found(ledger, NINE + 6 * HOUR)
    assert (str(one.subject), one.cause) == ("all usage", "silent")
    assert found(ledger, NINE + timedelta(days=30)) == []  # long known


def test_what_every_team_does_is_one_anomaly_of_all(books):
    def change(work, at):
        return replace(work, calls=work.calls * 3) if at >= NINE else work

    (one,) = found(books(day_of(change)))
    assert (str(one.subject), one.cause) == ("all usage", "volume")
    assert "ads, legal, nightly, search" in one.detail


def test_a_model_that_is_new_is_found_where_no_team_is_asked_for(books):
    change = since("ads", NINE, model="eu.anthropic.claude-opus-4-6-v1", account="777788889999")
    one, *others = found(books(day_of(change)), by="account")
    assert (one.subject.value, one.usual, one.cause) == ("777788889999", 0, "volume")
    assert "where there were none" in one.detail
    assert [str(other.subject) for other in others] == []


def test_a_leak_too_small_for_any_hour_is_found_by_its_day(tmp_path):
    slow = [replace(work, calls=3.0, nights=1.0, weekends=1.0) for work in COMPANY[:1]]
    leak = since("search", NINE.replace(hour=0), prompt=420_000)
    calls = usages(slow, hours=(NINE - MONDAY) // HOUR + 15, change=leak)
    ledger = Ledger(tmp_path)
    ledger.append(list(calls))
    (one,) = found(ledger, NINE + 15 * HOUR, minimum=2)
    assert one.window.end - one.window.start == DAY
    assert one.cause == "prompt size"


def test_filters_hold(books):
    ledger = books(day_of(since("search", NINE, read=0)))
    assert found(ledger, where=(parse_where("team=ads"),)) == []
    assert len(found(ledger, where=(parse_where("team=search"),))) == 1


def test_a_change_of_price_is_named_by_its_day(books, tmp_path):
    book = dearer_haiku(tmp_path / "prices", "2026-10-13")
    (one,) = found(books(day_of(nothing)), book=book)
    assert one.cause == "price"
    assert "price of claude-haiku-4-5 of 2026-10-13" in one.detail
    assert sum(step.picos for step in one.steps) == one.extra


# --- rows and refusals ----------------------------------------------------------------------------


def test_a_row_says_what_how_much_since_when_why_and_what_to_run(books):
    table = anomalies(
        books(day_of(since("search", NINE, read=0))), Question(until=NINE.date(), tz="Europe/Berlin")
    )
    assert table.failed
    (row,) = as_json(table)["rows"]
    assert row["what"] == "team search"
    assert row["since"] == "2026-10-13 11:00"  # summer time
    assert row["cause"] == "cache broken"
    see = (
        "farthing by model,principal,meter --where team=search --since 2026-10-13 --until 2026-10-13 --tz UTC"
    )
    assert row["see"] == see
    assert float(row["usd"]) - float(row["usual_usd"]) == pytest.approx(float(row["extra_usd"]))
    assert [step["name"] for step in row["steps"]].count("cache") == 1


def test_a_name_cannot_put_commands_into_the_one_that_is_shown():
    window = Window(500_000, 500_002)
    one = Anomaly(Subject("team", "x'; rm -rf ~ #"), window, window, 2, 1, "volume", "", ())
    assert shlex.split(see(one))[4] == "team=x'; rm -rf ~ #"


@pytest.mark.parametrize("by", ["day", "meter", "nonsense"])
def test_what_cannot_be_looked_at_is_refused(by, tmp_path):
    with pytest.raises(QuestionError, match=by):
        anomalies(Ledger(tmp_path), Question(), by=by)


def test_ledgers_with_nothing_or_one_day_or_a_future(tmp_path, books):
    assert anomalies(Ledger(tmp_path / "empty"), Question()).rows == []
    first_day = list(usages(BUSY, hours=20))
    ledger = Ledger(tmp_path / "day")
    ledger.append(first_day)
    assert found(ledger, MONDAY + timedelta(hours=20)) == []
    ahead = [
        call._replace(at_us=call.at_us + 10**6 * 86_400 * 365 * 50, request_id=f"f{call.request_id}")
        for call in first_day
    ]
    ledger = Ledger(tmp_path / "future")
    ledger.append(ahead)
    assert found(ledger) == []
    assert [one.cause for one in found(books(day_of(since("search", NINE, read=0)), ahead))] == ["cache"]


# --- series ---------------------------------------------------------------------------------------


def flat(weeks=6, usd=10.0, calls=50):
    hours = range(1, weeks * WEEK)
    return dict.fromkeys(hours, usd), dict.fromkeys(hours, calls)


def test_an_hour_is_compared_with_that_hour_of_weeks_then_of_days():
    assert same_hours(5 * WEEK, 0) == [4 * WEEK, 3 * WEEK, 2 * WEEK, WEEK]
    monday = (datetime(2026, 9, 7, tzinfo=UTC) - EPOCH) // HOUR
    begun = monday - 6 * DAY  # the Tuesday before
    assert same_hours(monday, begun) == [
        monday - DAY * days for days in (3, 4, 5)
    ]  # Friday, Thursday, Wednesday
    assert same_hours(monday - DAY, begun) == []  # a Sunday, and one Saturday is not enough


def test_one_high_hour_must_be_very_high_and_two_need_not():
    costs, calls = flat()
    at = 5 * WEEK
    assert spikes(costs | {at: 22.0}, calls, 0, range(at - 9, at + 9), 5) == []
    assert spikes(costs | {at: 90.0}, calls, 0, range(at - 9, at + 9), 5) == [Window(at, at + 1)]
    assert spikes(costs | {at: 45.0, at + 2: 45.0}, calls, 0, range(at - 9, at + 9), 5) == [
        Window(at, at + 3)
    ]


def test_less_than_the_minimum_is_no_news():
    costs, calls = flat(usd=0.1)
    at = 5 * WEEK
    assert spikes(costs | {at: 4.0, at + 1: 4.0}, calls, 0, range(at, at + 9), 5) == []
    assert spikes(costs | {at: 4.0, at + 1: 4.0}, calls, 0, range(at, at + 9), 1) != []


def test_one_bad_week_does_not_hide_the_next():
    costs, calls = flat()
    bad = {hour: 200.0 for week in (4, 5) for hour in range(week * WEEK, week * WEEK + 3)}
    assert len(spikes(costs | bad, calls, 0, range(5 * WEEK, 5 * WEEK + 9), 5)) == 1


def test_silence_is_judged_where_there_always_was_something():
    _, calls = flat()
    at = 5 * WEEK
    for hour in range(at, at + 4):
        del calls[hour]
    assert silences(calls, 0, range(at - 5, at + 9)) == [Window(at, at + 4)]
    assert silences(calls, 0, range(at - 5, at + 2)) == []  # two hours are no silence yet
    del calls[at - WEEK + 1], calls[at - WEEK + 2]
    assert silences(calls, 0, range(at - 5, at + 9)) == []


@pytest.mark.parametrize("growth", [0.0, 0.01, 0.02])
def test_quiet_months_raise_no_alarm(growth):
    """Two months of four workloads with the noise of calls, growing by up to a fifth a week."""
    raised = 0
    company = [replace(work, growth=growth, calls=work.calls * 3) for work in COMPANY]
    for seed in range(2):
        costs: dict[int, dict[int, float]] = {}
        calls: dict[int, dict[int, int]] = {}
        for call in usages(company, hours=9 * WEEK, seed=seed):
            place, hour = int(call.request_id.split("-")[1]), int(call.request_id.split("-")[2])
            usd = (call.parts[0][1][0] * 3 + call.parts[0][1][1] * 15) / 10**6
            costs.setdefault(place, {})[hour] = costs.setdefault(place, {}).get(hour, 0.0) + usd
            calls.setdefault(place, {})[hour] = calls.setdefault(place, {}).get(hour, 0) + 1
        for place, series in costs.items():
            raised += len(spikes(series, calls[place], 0, range(5 * WEEK, 9 * WEEK), 1))
            raised += len(long_days(series, calls[place], 0, range(35, 63), 4))
            raised += len(silences(calls[place], 0, range(5 * WEEK, 9 * WEEK)))
    assert raised <= 1  # of 8 workload-months


def test_amounts_are_exact(books):
    for one in found(books(day_of(since("search", NINE, read=0)))):
        assert isinstance(one.cost, int)
        assert one.cost > PICOS_PER_USD


def test_days_asked_for_are_looked_at(books):
    ledger = books(day_of(since("search", NINE, read=0)))
    early = date(2026, 10, 1)
    assert found(ledger, since=early, until=early + timedelta(days=3)) == []
