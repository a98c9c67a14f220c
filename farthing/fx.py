"""Exchange rates: from a dated file of the user's own, never fetched, never guessed.

Read are a CSV of one rate a line (`date,currency,per_usd`, or `in_usd` for what one unit is worth in dollars), a CSV
of one day a line (`Date,USD,GBP,...`, against the euro, as the ECB publishes it), and TOML:

[EUR]                   # units for one dollar
2026-10-01 = 0.9213
2026-11 = 0.92          # a month's rate is that of each of its days

A day has its own rate, else its month's, else the last one before it of at most a week ago: markets keep weekends.
"""

from __future__ import annotations

import csv
import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from farthing.money import show

LOOK_BACK_DAYS = 7
_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}
_WHOLE = ("JPY", "KRW", "CLP", "ISK", "VND")  # they have no smaller unit
_WAYS = ("per_usd", "in_usd")
_HEADS = "write date,currency,per_usd (units for a dollar), or Date,USD,GBP,... (units for a euro)"
_MONTH = re.compile(r"\d{4}-\d\d")
_NO_RATE = ("", "N/A", "-")


class FxError(ValueError):
    """The file cannot be used, or says nothing of a day: one line with file and line, or day, and the mend."""


class Rate(NamedTuple):
    """How many units of a currency a dollar was, and the day (or month) the file says so of."""

    currency: str
    date: str
    per_usd: Fraction

    def convert(self, picodollars: int) -> int:
        """The amount in 10^-12 units of the currency, rounded half-even once: sums of such ints are exact.

        >>> Rate("EUR", "2026-10-01", Fraction("0.92")).convert(1_500_000_000_000)
        1380000000000
        """
        return round(picodollars * self.per_usd)


@dataclass(frozen=True)
class Rates:
    """The rates of a file. `digest` names its content."""

    path: str
    digest: str
    dated: Mapping[str, Mapping[str, Fraction]]  # currency -> day or month -> units for one dollar

    def at(self, day: date, currency: str) -> Rate:
        """The rate that holds on a day; FxError where the file has none."""
        if currency == "USD":
            return Rate("USD", day.isoformat(), Fraction(1))
        if currency not in self.dated:
            known = ", ".join(sorted(self.dated)) or "no currency"
            raise FxError(f"{self.path}: no rates of {currency}; it has {known}")
        dated = self.dated[currency]
        back = (day - timedelta(days=days) for days in range(1, LOOK_BACK_DAYS + 1))
        for said in (day.isoformat(), f"{day:%Y-%m}", *map(date.isoformat, back)):
            if said in dated:
                return Rate(currency, said, dated[said])
        first, last = self._span[currency]
        raise FxError(
            f"{self.path}: no rate of {currency} for {day}, nor for the {LOOK_BACK_DAYS} days before it "
            f"(its rates are of {first} to {last}): add one"
        )

    def convert(self, picodollars: int, day: date, currency: str) -> tuple[int, Rate]:
        """Picodollars of a day in 10^-12 units of a currency, and the rate that made them so."""
        rate = self.at(day, currency)
        return rate.convert(picodollars), rate

    @cached_property
    def _span(self) -> dict[str, tuple[str, str]]:
        return {currency: (min(dated), max(dated)) for currency, dated in self.dated.items()}


def amount(units: int, currency: str = "USD") -> str:
    """10^-12 units of a currency, for people.

    >>> amount(-1_234_567_890_000_000, "EUR"), amount(1_500_000_000, "CHF")
    ('-€1,234.57', 'CHF 0.0015')
    """
    sign = _SIGNS.get(currency, f"{currency} ")
    return show(units, 0 if currency in _WHOLE else 2).replace("$", sign)


def load(path: Path | str) -> Rates:
    """The rates of a CSV or TOML file; FxError where it is none."""
    file = Path(path)
    try:
        raw = file.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise FxError(f"{file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FxError(f"{file}: not text: write CSV or TOML in UTF-8") from error
    found = _toml(text, file) if file.suffix.lower() == ".toml" else _csv(text, file)
    dated: dict[str, dict[str, Fraction]] = {}
    for place, currency, day, per_usd in found:
        if dated.setdefault(currency, {}).setdefault(day, per_usd) != per_usd:
            raise FxError(
                f"{place}: a second rate of {currency} for {day}, other than the first: take one away"
            )
    if not dated:
        raise FxError(f"{file}: no rates in it: {_HEADS}")
    return Rates(str(file), hashlib.sha256(raw).hexdigest()[:12], dated)


_Said = tuple[str, str, str, Fraction]  # file and line, currency, day, units for one dollar


def _toml(text: str, file: Path) -> Iterator[_Said]:
    try:
        tables = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError, ArithmeticError) as error:  # which names line and column
        raise FxError(f"{file}: {error}") from error
    for currency, rates in tables.items():
        place = f"{file}: {currency}"
        if not isinstance(rates, dict):
            raise FxError(f"{place}: not a table: write [{currency}], then lines such as 2026-10-01 = 0.92")
        for day, value in rates.items():
            here = f"{place}.{day}"
            yield here, _currency(currency, here), _day(day, here), _number(str(value), here)


def _csv(text: str, file: Path) -> Iterator[_Said]:
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    heads = [head.strip() for head in next(rows, [])]
    lines = ((f"{file}:{rows.line_num}", [cell.strip() for cell in row]) for row in rows if any(row))
    names = [head.lower() for head in heads]
    way = next((name for name in _WAYS if name in names), "")
    if "date" in names and "currency" in names:
        if not way:
            raise FxError(
                f"{file}:1: which way round are its rates? call the column per_usd (units for one dollar) "
                "or in_usd (dollars for one unit)"
            )
        return _long(lines, [names.index(name) for name in ("date", "currency", way)], way)
    if names[:1] == ["date"] and "USD" in heads and "EUR" not in heads:
        return _wide(lines, heads)
    raise FxError(f"{file}:1: not a table of rates: {_HEADS}")


def _long(lines: Iterable[tuple[str, list[str]]], columns: list[int], way: str) -> Iterator[_Said]:
    for place, row in lines:
        if len(row) <= max(columns):
            raise FxError(
                f"{place}: {len(row)} columns, where the first line names {max(columns) + 1} or more"
            )
        day, currency, value = (row[column] for column in columns)
        rate = _number(value, place)
        yield place, _currency(currency, place), _day(day, place), rate if way == "per_usd" else 1 / rate


def _wide(lines: Iterable[tuple[str, list[str]]], heads: list[str]) -> Iterator[_Said]:
    """Units for one euro, a column each: over those of the dollar they are units for one dollar."""
    for place, row in lines:
        said = {
            head: value
            for head, value in zip(heads[1:], row[1:], strict=False)
            if head and value not in _NO_RATE
        }
        if not said:
            continue  # a holiday
        if "USD" not in said:
            raise FxError(f"{place}: no rate of USD on that line, by which the others are found")
        day = _day(row[0], place)
        dollars = _number(said.pop("USD"), place)
        yield place, "EUR", day, 1 / dollars
        for currency, value in said.items():
            yield place, _currency(currency, place), day, _number(value, place) / dollars


def _currency(text: str, place: str) -> str:
    if not re.fullmatch("[A-Z]{3}", text):
        raise FxError(f"{place}: {text!r} is no currency: write three letters, as EUR")
    return text


def _day(text: str, place: str) -> str:
    if _MONTH.fullmatch(text) and 1 <= int(text[5:]) <= 12:
        return text
    for read in (date.fromisoformat, _written_out):
        try:
            return read(text).isoformat()
        except ValueError:
            continue
    raise FxError(f"{place}: {text!r} is no day: write 2026-10-01, or 2026-10 for a month's rate")


def _written_out(text: str) -> date:
    """As in the ECB's file of one day."""
    return datetime.strptime(text, "%d %B %Y").date()  # noqa: DTZ007 - a day, not an instant


def _number(text: str, place: str) -> Fraction:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal(0)
    if not value.is_finite() or value <= 0:
        raise FxError(f"{place}: {text!r} is no rate: write a number above 0, with a point: 0.9213")
    return Fraction(value)
