"""Reports in another currency: each day's dollars at that day's rate, then summed.

A report is made once in all, and once for each run of days with one rate; its amounts are found again in these by the
words that stand beside them. Those of the days must sum to the whole, to the picodollar, or nothing is converted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from itertools import groupby
from typing import Any

from farthing.cells import Question, cells
from farthing.costs import due_entries
from farthing.fx import Rate, Rates
from farthing.ledger import Ledger
from farthing.money import PICOS_PER_USD, usd
from farthing.reports._table import Report, Table

Place = tuple[Any, ...]  # the keys, and the words of rows, that lead to an amount
_NO_NAMES = ("share", "says", "settle")  # texts that do not say which row it is


class ConvertError(ValueError):
    """Why a report cannot be had in another currency: one line."""


def in_currency(
    made: Report, ledger: Ledger, question: Question, rates: Rates, currency: str, **values: Any
) -> Table:
    """The report, with each amount in the currency beside it. FxError where a day has no rate."""
    if not made.adds_up:
        raise ConvertError(f"{made.name} is in USD only: its amounts are not sums of those of days")
    whole = made.make(ledger, question, **values)
    dollars: dict[Place, int] = defaultdict(int)
    others: dict[Place, int] = defaultdict(int)
    used: dict[str, Rate] = {}
    for first, last, rate in spans(ledger, question, rates, currency):
        part = made.make(ledger, replace(question, since=first, until=last), **values)
        used[rate.date] = rate
        for place, picos in _amounts(part):
            dollars[place] += picos
            others[place] += rate.convert(picos)
    for place, picos in _amounts(whole):
        if dollars[place] != picos:
            raise ConvertError(f"{made.name} is in USD only: {place[-1]} is not the sum of its days")
    beside = _beside(whole, currency, others)
    beside.footer |= {"currency": currency, "fx": described(rates, used)}
    return beside


def spans(
    ledger: Ledger, question: Question, rates: Rates, currency: str
) -> Iterator[tuple[date, date, Rate]]:
    """First and last day of each run of days with one rate, of the days that have usage or entries."""
    used = {cell.keys[0] for cell in cells(ledger, question, ("day",))}
    days = sorted(used | {due.keys[0] for due in due_entries(ledger, question, ("day",))})
    for rate, run in groupby(map(date.fromisoformat, days), key=lambda day: rates.at(day, currency)):
        first, *others = run
        yield first, others[-1] if others else first, rate


def described(rates: Rates, used: Mapping[str, Rate]) -> dict[str, Any]:
    """Where the rates are from, and which of them were used."""
    return {
        "file": rates.path,
        "digest": rates.digest,
        "rates": {day: _shown(rate) for day, rate in sorted(used.items())},
    }


def _shown(rate: Rate) -> str:
    """Units for a dollar, to twelve places."""
    return usd(round(rate.per_usd * PICOS_PER_USD))


def _amounts(table: Table) -> Iterator[tuple[Place, int]]:
    """Every amount of dollars that is known, and its place."""
    for name, value in (("rows", table.rows), ("parts", table.parts), ("footer", table.footer)):
        yield from _within(value, (name,))


def _within(value: Any, place: Place) -> Iterator[tuple[Place, int]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name.endswith("usd") and isinstance(inner, int):
                yield (*place, name), inner
            else:
                yield from _within(inner, (*place, name))
    elif isinstance(value, list):
        for row in value:
            yield from _within(row, (*place, _words(row)))


def _words(row: Any) -> Place:
    """What tells a row from the others: its texts."""
    if not isinstance(row, dict):
        return ()
    return tuple((k, v) for k, v in row.items() if isinstance(v, str) and k not in _NO_NAMES)


def _beside(table: Table, currency: str, amounts: Mapping[Place, int]) -> Table:
    """The table with amounts of the currency beside those of dollars."""

    def name_of(name: str) -> str:
        return f"{name[:-3]}{currency.lower()}"

    def doubled(value: Any, place: Place) -> Any:
        if isinstance(value, list):
            return [doubled(row, (*place, _words(row))) for row in value]
        if not isinstance(value, dict):
            return value
        found: dict[str, Any] = {}
        for name, inner in value.items():
            found[name] = doubled(inner, (*place, name))
            if name.endswith("usd"):  # None is unknown in any currency
                found[name_of(name)] = None if inner is None else amounts[*place, name]
        return found

    columns = [
        also
        for name in table.columns
        for also in (name, name_of(name))
        if name.endswith("usd") or also == name
    ]
    return replace(
        table,
        columns=tuple(columns),
        rows=doubled(table.rows, ("rows",)),
        parts=doubled(table.parts, ("parts",)),
        footer=doubled(table.footer, ("footer",)),
        currency=currency,
    )
