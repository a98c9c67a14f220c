"""The budgets of farthing.toml: what is spent of each, what is left, and when it will be exceeded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from farthing.cells import Question, QuestionError, cells, parse_where
from farthing.config import Budget
from farthing.ledger import Ledger
from farthing.money import PICOS_PER_USD
from farthing.reports._spending import (
    DAY,
    Forecast,
    Spending,
    forecasts,
    known_until,
    period_of,
    spending,
    unpriced_calls,
)
from farthing.reports._table import Table, footer, heading, report

_AHEAD = ("forecast_usd", "low_usd", "high_usd")


class Standing(NamedTuple):
    """How a budget stands in the period that is now. What has no price is in no figure, so its calls are told."""

    budget: Budget
    first: date
    last: date
    spent: int
    limit: int
    forecast: Forecast | None  # None where nothing is known yet
    exceeded_on: date | None  # the day on which it will be, if the forecast is right
    reached: int  # the highest percentage of alert_at that is reached; 0 if none
    unpriced_calls: int
    now: date  # the last day asked for

    @property
    def over(self) -> bool:
        return self.spent > self.limit

    @property
    def percent(self) -> int:
        return self.spent * 100 // self.limit

    @property
    def state(self) -> str:
        if self.over:
            return "over"
        if self.exceeded_on and self.exceeded_on < self.now:  # what was used since is not here yet
            return f"over since {self.exceeded_on}, if it went on"
        if self.exceeded_on:
            return f"over on {self.exceeded_on}"
        return f"{self.reached} % reached" if self.reached else "ok"


@report(
    "What is spent of each budget of farthing.toml, what is left and what is to come. Exit code 1 if one is over."
)
def budgets(ledger: Ledger, question: Question) -> Table:
    """As of now, or of the last day asked for."""
    if not any(budget.reported for budget in question.config.budgets):
        raise QuestionError(
            "no budgets: add [[budgets]] with a name and usd to farthing.toml (docs/watch.md)"
        )
    found = standings(ledger, question, datetime.now(UTC))
    under = cells(ledger, replace(question, since=min(standing.first for standing in found)))
    return Table(
        "Budgets",
        heading(under),
        ("budget", "period", "limit_usd", "spent_usd", "percent", "left_usd", *_AHEAD, "state"),
        [_row(standing) for standing in found],
        footer(ledger, question, under),
        failed=any(standing.over for standing in found),
    )


def standings(ledger: Ledger, question: Question, now: datetime) -> list[Standing]:
    """Every budget, in the order of the file."""
    today = min(now.astimezone(question.zone).date(), question.until or date.max)
    found = []
    for budget in filter(lambda each: each.reported, question.config.budgets):
        asked = replace(question, since=None, where=(*question.where, *_where(budget)))
        first, last = period_of(budget.period, today)
        end = known_until(ledger, asked, now)
        made = spending(ledger, asked, (), end, first) if end else None
        found.append(_standing(budget, made, first, last, today))
    return found


def _where(budget: Budget) -> Iterable[Any]:
    for text in budget.where:
        try:
            yield parse_where(text)
        except QuestionError as error:
            raise QuestionError(f"budget {budget.name!r}: {error}") from error


def _standing(budget: Budget, made: Spending | None, first: date, last: date, now: date) -> Standing:
    limit = budget.limit
    if made is None:
        return Standing(budget, first, last, 0, limit, None, None, 0, 0, now)
    forecast = forecasts(made, first, last, ())[()]
    spent = forecast.spent
    reached = max((percent for percent in budget.alert_at if spent * 100 >= percent * limit), default=0)
    exceeded_on = _exceeded_on(forecast, limit, spent) if budget.forecast else None
    lacking = unpriced_calls(made.cells, first, last)
    return Standing(budget, first, last, spent, limit, forecast, exceeded_on, reached, lacking, now)


def _exceeded_on(forecast: Forecast, limit: int, spent: int) -> date | None:
    """The day on which what is spent and what is to come pass the limit; None if they do not, or have."""
    if spent > limit or forecast.total <= limit:
        return None
    left = (limit - spent) / PICOS_PER_USD
    for day, usd in sorted(forecast.by_day.items()):
        left -= usd
        if left < 0:
            return day
    return max(forecast.by_day, default=None)


def _row(found: Standing) -> dict[str, Any]:
    forecast = found.forecast
    return {
        "budget": found.budget.name,
        "period": f"{found.first:%Y-%m}"
        if found.budget.period == "month"
        else f"{found.budget.period} {found.first}",
        "where": ", ".join(found.budget.where),
        "limit_usd": found.limit,
        "spent_usd": found.spent,
        "percent": found.percent,
        "left_usd": found.limit - found.spent,
        "forecast_usd": forecast.total if forecast else None,
        "low_usd": forecast.low if forecast else None,
        "high_usd": forecast.high if forecast else None,
        "method": forecast.rest.method if forecast and forecast.rest else "",
        "exceeded_on": found.exceeded_on.isoformat() if found.exceeded_on else "",
        "days_left": max(0, (found.last - found.first) // DAY) if not forecast else len(forecast.by_day),
        "unpriced_calls": found.unpriced_calls,
        "state": found.state + (f"; {found.unpriced_calls:,} calls unpriced" if found.unpriced_calls else ""),
    }
