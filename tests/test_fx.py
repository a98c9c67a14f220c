"""Exchange rates: read exactly from three shapes of file, dated, and never made up."""

from datetime import date, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.fx import FxError, Rate, load

DAY = date(2026, 10, 1)  # a Thursday


def rates(folder, text, name="rates.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return load(path)


def test_a_rate_a_line_either_way_round(tmp_path):
    per_usd = rates(tmp_path, "date,currency,per_usd\n2026-10-01,EUR,0.8\n2026-10-01,JPY,150.25\n")
    in_usd = rates(tmp_path, "date,currency,in_usd\n2026-10-01,EUR,1.25\n")
    assert per_usd.at(DAY, "EUR").per_usd == in_usd.at(DAY, "EUR").per_usd == Fraction("0.8")
    assert per_usd.convert(2 * 10**12, DAY, "JPY") == (
        300_500_000_000_000,
        Rate("JPY", "2026-10-01", Fraction("150.25")),
    )


def test_the_table_of_the_ecb(tmp_path):
    """Units for a euro, newest first, N/A where there was no trade, and a comma at the end of each line."""
    text = "Date,USD,JPY,GBP,\n2026-10-02,1.10,160.0,0.88,\n2026-10-01,1.08,N/A,0.84,\n"
    found = rates(tmp_path, text)
    assert found.at(DAY, "EUR").per_usd == Fraction(1) / Fraction("1.08")
    assert found.at(DAY, "GBP").per_usd == Fraction("0.84") / Fraction("1.08")
    assert found.at(date(2026, 10, 2), "JPY").per_usd == Fraction(160) / Fraction("1.10")
    with pytest.raises(FxError, match="no rate of JPY for 2026-10-01"):
        found.at(DAY, "JPY")


def test_the_ecb_file_of_one_day(tmp_path):
    found = rates(tmp_path, "Date, USD, GBP, \n20 November 2026, 1.10, 0.88, \n")
    assert found.at(date(2026, 11, 20), "GBP").per_usd == Fraction("0.8")


def test_toml_has_days_and_months(tmp_path):
    found = rates(tmp_path, "[EUR]\n2026-10-05 = 0.91\n2026-10 = 0.92\n", "rates.toml")
    assert found.at(date(2026, 10, 5), "EUR") == Rate("EUR", "2026-10-05", Fraction("0.91"))
    assert found.at(date(2026, 10, 6), "EUR") == Rate("EUR", "2026-10", Fraction("0.92"))
    assert found.at(date(2026, 10, 31), "EUR").per_usd == Fraction("0.92")
    with pytest.raises(FxError, match="2026-11-20"):
        found.at(date(2026, 11, 20), "EUR")


def test_a_weekend_has_the_rate_before_it_for_a_week_and_no_longer(tmp_path):
    found = rates(tmp_path, "date,currency,per_usd\n2026-10-02,EUR,0.9\n2026-10-30,EUR,0.8\n")
    friday = date(2026, 10, 2)
    held = [found.at(friday + timedelta(days=days), "EUR").date for days in range(8)]
    assert held == ["2026-10-02"] * 8
    for day in (friday - timedelta(days=1), friday + timedelta(days=8)):  # never a later one, nor one too old
        with pytest.raises(FxError) as raised:
            found.at(day, "EUR")
        assert str(day) in str(raised.value)
        assert "rates.csv" in str(raised.value)


def test_dollars_need_no_rate(tmp_path):
    found = rates(tmp_path, "date,currency,per_usd\n2026-10-02,EUR,0.9\n")
    assert found.convert(7, date(1999, 1, 1), "USD")[0] == 7


def test_the_digest_names_the_content(tmp_path):
    text = "date,currency,per_usd\n2026-10-02,EUR,0.9\n"
    first, same = rates(tmp_path, text), rates(tmp_path, text, "copy.csv")
    assert first.digest == same.digest != rates(tmp_path, text.replace("0.9", "0.91")).digest


@given(st.lists(st.integers(-(10**15), 10**15), max_size=20))
def test_a_conversion_is_off_by_at_most_half_a_millionth_of_a_millionth(amounts):
    rate = Rate("EUR", "2026-10-01", Fraction(10_000, 10_842))
    for picos in amounts:
        assert abs(rate.convert(picos) - picos * rate.per_usd) <= Fraction(1, 2)
        assert rate.convert(-picos) == -rate.convert(picos)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a table of rates"),
        ("date,currency,per_usd\n", "no rates in it"),
        ("date,currency,rate\n2026-10-01,EUR,0.9\n", "which way round"),
        ("date,currency,usd_rate\n2026-10-01,EUR,0.9\n", "which way round"),
        ("Date,EUR,GBP\n2026-10-01,0.9,0.8\n", "not a table of rates"),
        ("Date,EUR,USD\n2026-10-01,0.9,1\n", "not a table of rates"),  # against neither
        ("date,currency,per_usd\n2026-10-01,EUR,0.9\n2026-10-01,EUR,0.91\n", "rates.csv:3: a second rate"),
        ("date,currency,per_usd\n01/10/2026,EUR,0.9\n", "rates.csv:2: '01/10/2026' is no day"),
        ("date,currency,per_usd\n2026-13,EUR,0.9\n", "'2026-13' is no day"),
        ("date,currency,per_usd\n2026-10-01,euro,0.9\n", "'euro' is no currency"),
        ('date,currency,per_usd\n2026-10-01,EUR,"0,9"\n', "'0,9' is no rate"),
        ("date,currency,per_usd\n2026-10-01,EUR,0\n", "'0' is no rate"),
        ("date,currency,per_usd\n2026-10-01,EUR,-1\n", "'-1' is no rate"),
        ("date,currency,per_usd\n2026-10-01,EUR,NaN\n", "'NaN' is no rate"),
        ("date,currency,per_usd\n2026-10-01,EUR\n", "rates.csv:2: 2 columns"),
        ("Date,USD,GBP\n2026-10-01,N/A,0.8\n", "no rate of USD on that line"),
    ],
)
def test_what_is_no_table_of_rates_is_refused_in_one_line(tmp_path, text, says):
    with pytest.raises(FxError, match=says) as raised:
        rates(tmp_path, text)
    assert "\n" not in str(raised.value)
    assert "rates.csv" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("EUR = 0.9", r"write \[EUR\]"),
        ('[EUR]\n2026-10-01 = "a"', "'a' is no rate"),
        ("[EUR]\nnow = 0.9", "'now' is no day"),
        ("[EUR", "rates.toml"),
    ],
)
def test_toml_that_is_no_table_of_rates(tmp_path, text, says):
    with pytest.raises(FxError, match=says):
        rates(tmp_path, text, "rates.toml")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FxError, match="No such file"):
        load(tmp_path / "none.csv")
