"""Windows of budgets lie on the calendar of their zone, end to end, and know when the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.config import ConfigError, load
from farthing.gateway._budget_windows import window
from farthing.usage import EPOCH

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Africa/Cairo",
    "America/Havana",
    "Asia/Tokyo",
]
MICRO = timedelta(microseconds=1)


def micros(text):
    return (datetime.fromisoformat(text).astimezone(UTC) - EPOCH) // MICRO


@pytest.mark.parametrize(
    ("period", "zone", "at", "start", "end"),
    [
        ("minute", "UTC", "2026-11-18T10:30:15+00:00", "2026-11-18T10:30+00:00", "2026-11-18T10:31+00:00"),
        (
            "hour",
            "Asia/Kolkata",
            "2026-11-18T10:40+05:30",
            "2026-11-18T10:00+05:30",
            "2026-11-18T11:00+05:30",
        ),
        ("day", "Asia/Tokyo", "2026-11-18T15:00+00:00", "2026-11-19T00:00+09:00", "2026-11-20T00:00+09:00"),
        ("week", "UTC", "2026-11-22T23:59+00:00", "2026-11-16T00:00+00:00", "2026-11-23T00:00+00:00"),
        ("month", "UTC", "2026-12-31T23:59+00:00", "2026-12-01T00:00+00:00", "2027-01-01T00:00+00:00"),
        (
            "month",
            "Europe/Berlin",
            "2026-10-31T23:30+01:00",
            "2026-10-01T00:00+02:00",
            "2026-11-01T00:00+01:00",
        ),
        # 23 and 25 hours
        (
            "day",
            "Europe/Berlin",
            "2026-03-29T12:00+02:00",
            "2026-03-29T00:00+01:00",
            "2026-03-30T00:00+02:00",
        ),
        (
            "day",
            "Europe/Berlin",
            "2026-10-25T12:00+01:00",
            "2026-10-25T00:00+02:00",
            "2026-10-26T00:00+01:00",
        ),
        # the hour that comes twice is two windows
        (
            "hour",
            "Europe/Berlin",
            "2026-10-25T02:30+02:00",
            "2026-10-25T02:00+02:00",
            "2026-10-25T03:00+02:00",
        ),
        (
            "hour",
            "Europe/Berlin",
            "2026-10-25T02:30+01:00",
            "2026-10-25T02:00+01:00",
            "2026-10-25T03:00+01:00",
        ),
        # clocks that skip midnight, and that show it twice
        ("day", "Africa/Cairo", "2026-04-24T12:00+03:00", "2026-04-24T01:00+03:00", "2026-04-25T00:00+03:00"),
        (
            "day",
            "America/Havana",
            "2026-11-01T12:00-05:00",
            "2026-11-01T00:00-04:00",
            "2026-11-02T00:00-05:00",
        ),
        (
            "day",
            "America/Havana",
            "2026-11-01T00:30-05:00",
            "2026-11-01T00:00-04:00",
            "2026-11-02T00:00-05:00",
        ),
    ],
)
def test_a_window_is_of_the_calendar(period, zone, at, start, end):
    assert window(period, ZoneInfo(zone), micros(at)) == (micros(start), micros(end))


@given(
    st.sampled_from(["minute", "hour", "day", "week", "month"]),
    st.sampled_from(ZONES),
    st.integers(micros("2024-01-01T00:00+00:00"), micros("2030-01-01T00:00+00:00")),
)
def test_windows_cover_time_without_gap_or_overlap(period, zone, at):
    found = window(period, ZoneInfo(zone), at)
    assert found.start_us <= at < found.end_us
    assert window(period, ZoneInfo(zone), found.start_us) == found
    assert window(period, ZoneInfo(zone), found.end_us - 1) == found
    assert window(period, ZoneInfo(zone), found.end_us).start_us == found.end_us


# --- what farthing.toml may say --------------------------------------------------------------------------------------


def written(tmp_path, text):
    file = tmp_path / "farthing.toml"
    file.write_text(f'[[budgets]]\nname = "x"\n{text}\n')
    return file


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ('usd = 50\nhold = "hard"', 50 * 10**12),
        ('usd = 0.1\nhold = "hard"\nperiod = "hour"', 10**11),
        ('calls = 100\nhold = "hard"\nperiod = "minute"', 100),
        ('tokens = 5\nhold = "soft"\neach = "tag:env"\ntimezone = "Asia/Tokyo"', 5),
    ],
)
def test_a_budget_of_the_file(tmp_path, text, limit):
    (budget,) = load(written(tmp_path, text)).budgets
    assert budget.limit == limit


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('hold = "hard"', "usd: 0 is no budget: write dollars above 0"),
        ("usd = -1", "usd: -1 is no budget"),
        ("usd = nan", "usd: NaN is no budget"),
        ("usd = inf", "usd: Infinity is no budget"),
        ("usd = 1e-13", "usd: 1E-13 is finer than a picodollar"),
        ('usd = "5"', 'usd: "5" is text: write a number, without quotes'),
        ("usd = true", "usd: True is not a number"),
        ('usd = 1\ncalls = 2\nhold = "hard"', "calls: and usd are both given; write two budgets"),
        ("calls = 2", 'calls: is for budgets that hold: add hold = "hard"'),
        (
            'usd = 1\nperiod = "hour"',
            "period: 'hour' is none of month, week, day; of an hour or a minute wants `hold",
        ),
        ('usd = 1\nhold = "hard"\nperiod = "year"', "'year' is none of month, week, day, hour, minute"),
        ('usd = 1\nhold = "firm"', "hold: 'firm' is none of hard, soft"),
        ('usd = 1\nhold = "hard"\nunpriced = "maybe"', "'maybe' is none of refuse, pass"),
        ('usd = 1\neach = "key"', "each: is for budgets that hold"),
        ('usd = 1\nhold = "hard"\neach = "region"', "each: 'region' is not known before a call is made"),
        ('usd = 1\nhold = "hard"\nwhere = ["endpoint=global"]', r"where[1]: 'endpoint' is not known before"),
        ('usd = 1\nhold = "hard"\ntimezone = "Berlin"', "timezone: 'Berlin' is no time zone"),
    ],
)
def test_a_budget_that_cannot_be_is_one_line_with_its_place(tmp_path, text, says):
    with pytest.raises(ConfigError) as told:
        load(written(tmp_path, text))
    (line,) = str(told.value).splitlines()
    assert says in line
    assert "farthing.toml:" in line


def test_reports_take_the_budgets_that_they_can_answer_for(tmp_path):
    held = [
        'usd = 5\nhold = "hard"',
        'usd = 5\nhold = "hard"\neach = "team"',
        'usd = 5\nhold = "hard"\nwhere = ["key=ada"]',
        'usd = 5\nhold = "hard"\nperiod = "hour"',
        'calls = 5\nhold = "hard"',
    ]
    reported = [load(written(tmp_path, text)).budgets[0].reported for text in held]
    assert reported == [True, False, False, False, False]
