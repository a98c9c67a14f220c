"""Money: exact coming in, exact going out, and rounded only for a person's eyes."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.book import default_book
from farthing.money import from_usd, mtok_usd, per_mtok, show, usd

picos = st.one_of(st.integers(-(10**30), 10**30), st.integers(-(10**13), 10**13))


@given(picos)
def test_dollars_round_trip(amount):
    text = usd(amount)
    assert from_usd(text) == amount
    assert Fraction(text) == Fraction(amount, 10**12)


@given(picos)
def test_machine_readable_dollars_are_plain(amount):
    text = usd(amount)
    assert set(text) <= set("-0123456789.")
    assert not text.endswith(".")
    assert "." not in text or not text.endswith("0")
    assert text != "-0"


@given(st.integers(0, 10**12))
def test_rates_round_trip(rate):
    assert per_mtok(Decimal(mtok_usd(rate))) == rate


def test_a_dollar_per_million_tokens_is_a_million_picodollars_a_token():
    million = 1_000_000
    for published in ("15", "0.1375", "3.3", "0.01", "0.000001"):
        assert per_mtok(Decimal(published)) * million == from_usd(published)
    assert per_mtok(3) * million == from_usd("3")


def test_every_rate_of_the_book_is_shown_exactly():
    for card in default_book().cards():
        for rate in card.rates:
            assert Decimal(mtok_usd(rate)) * 10**6 == rate


@pytest.mark.parametrize("text", ["0.0000001", "1E-7", "0.13750001", "NaN", "sNaN", "Infinity", "-Infinity"])
def test_a_rate_that_is_no_whole_number_is_refused(text):
    with pytest.raises(ValueError, match=r"picodollars a token|exact amount"):
        per_mtok(Decimal(text))


@pytest.mark.parametrize(
    "text", ["", "abc", "1,5", "$5", "0.0000000000001", "1e-13", "NaN", "sNaN", "inf", "-inf"]
)
def test_an_amount_that_is_no_whole_number_of_picodollars_is_refused(text):
    with pytest.raises(ValueError, match=r"picodollars|exact amount"):
        from_usd(text)


@given(st.integers(1, 10**12 - 1))
def test_nothing_finer_than_a_picodollar_comes_in(part):
    amount = Decimal(part).scaleb(-24)
    with pytest.raises(ValueError, match="no whole number of picodollars"):
        from_usd(amount)


@given(st.integers(1, 10**18), st.integers(0, 6))
def test_something_is_never_shown_as_nothing(amount, places):
    shown = show(amount, places)
    assert shown == "<$0.0001" or any(digit in shown for digit in "123456789")
    assert show(-amount, places) == "-" + shown


@given(st.integers(10**10, 10**20))
def test_a_shown_amount_is_within_half_a_cent(amount):
    shown = Decimal(show(amount).removeprefix("$").replace(",", ""))
    assert abs(shown * 10**12 - amount) <= 5 * 10**9


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "$0.00"),
        ("1234567.891", "$1,234,567.89"),
        ("-1234.5", "-$1,234.50"),
        ("0.125", "$0.12"),  # a half goes to the even neighbour,
        ("0.135", "$0.14"),  # on both sides
        ("0.01", "$0.01"),
        ("0.0099", "$0.0099"),
        ("0.0001", "$0.0001"),
        ("0.00009", "<$0.0001"),
        ("0.000000000001", "<$0.0001"),
    ],
)
def test_shown(amount, shown):
    assert show(from_usd(amount)) == shown


def test_shown_in_whole_dollars_small_change_keeps_its_cents():
    assert show(from_usd("1234.4"), 0) == "$1,234"
    assert show(from_usd("0.4"), 0) == "$0.40"
    assert show(from_usd("0.004"), 0) == "$0.0040"
