"""What a month will come to."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from farthing.cells import TIME_KEYS, Question, QuestionError, check_key
from farthing.ledger import Ledger
from farthing.reports._ahead import COVERED, ENOUGH_DAYS, smoothing
from farthing.reports._spending import (
    DAY,
    Event,
    Forecast,
    Spending,
    by_name,
    forecasts,
    known_until,
    period_of,
    price_events,
    spending,
    unpriced_calls,
)
from farthing.reports._table import Table, footer, heading, report

FURTHEST_DAYS = 92  # ahead
_SILENT = timedelta(hours=36)  # after which it is said that nothing was heard


@report(
    "What a month will come to, with an interval and the errors of earlier forecasts; --by team, --month 2026-12."
)
def forecast(ledger: Ledger, question: Question, month: str = "", by: str = "") -> Table:
    """Of the present month, if none is named. `--until` asks what would have been forecast on that day.

    The groups share out the forecast of everything, so they sum to it.
    """
    keys = tuple(check_key(key) for key in by.split(",") if key)
    if wrong := next((key for key in keys if key in (*TIME_KEYS, "meter")), ""):
        raise QuestionError(f"cannot forecast by {wrong!r}: name what spends, such as team or model")
    now = datetime.now(UTC)
    end = known_until(ledger, question, now)
    title = "Forecast"
    columns = (
        *(keys or ("month",)),
        "spent_usd",
        "forecast_usd",
        "low_usd",
        "high_usd",
        "method",
        "error",
        "run_rate_error",
    )
    if end is None:
        return Table(title, heading(()), columns, [], footer(ledger, question, ()))
    first, last = _month(month, end.astimezone(question.zone).date())
    made = spending(ledger, question, keys, end, first)
    found = forecasts(made, first, last, made.charged)
    rows = [_row(dict(zip(keys, group, strict=True)), found[group]) for group in by_name(found)]
    whole = _row({"month": f"{first:%Y-%m}"}, found[()])
    parts: dict[str, Any] = {"total": [whole]} if keys else {}
    parts["price_events"] = [_event(event) for event in price_events(made, last)]
    parts["notes"] = _notes(made, found[()], first, last, now)
    told = f"{heading(made.cells)}; {COVERED} % interval; usage until {end.astimezone(question.zone):%Y-%m-%d %H:%M}"
    under = footer(ledger, question, made.cells)
    return Table(f"{title} of {first:%Y-%m}", told, columns, rows if keys else [whole], under, parts)


class Coming(NamedTuple):
    """Something of a model used recently that has a date."""

    day: date
    model: str
    says: str


def coming(ledger: Ledger, question: Question, now: datetime, days: int) -> list[Coming]:
    """Changes of price, and ends of models, in the days ahead."""
    end = known_until(ledger, question, now)
    if end is None:
        return []
    made = spending(ledger, question, (), end)
    today = now.astimezone(UTC).date()
    last = today + days * DAY
    found = [Coming(event.day, event.model, _event(event)["change"]) for event in price_events(made, last)]
    for platform, name in sorted({(box.sku.platform, box.sku.model) for box in made.recent.get((), {})}):
        cycle = question.book.models[name].platform(platform).get("lifecycle", {})
        found += [
            Coming(day, name, f"{_STAGES[what]} on {platform}")
            for what, day in cycle.items()
            if what in _STAGES
        ]
    return [one for one in sorted(found) if today < one.day <= last]


_STAGES = {
    "retirement": "retired, and no longer answers,",
    "retirement_not_before": "may be retired from then",
    "legacy": "legacy from then",
    "legacy_by": "legacy by then",
    "extended_access": "in extended access, where a higher price may follow,",
    "eol": "end of life, and no longer answers,",
    "eol_by": "end of life by then, and no longer answers,",
    "eol_not_before": "may end from then",
}


def _month(text: str, today: date) -> tuple[date, date]:
    if not text:
        return period_of("month", today)
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text):
        raise QuestionError(f"--month {text!r} is no month: write 2026-12")
    first, last = period_of("month", date(int(text[:4]), int(text[5:]), 1))
    if (last - today).days > FURTHEST_DAYS:
        raise QuestionError(f"--month {text} is too far ahead of {today}: {FURTHEST_DAYS} days at most")
    return first, last


def _row(names: dict[str, Any], made: Forecast) -> dict[str, Any]:
    rest = made.rest
    return names | {
        "spent_usd": made.spent,
        "forecast_usd": made.total,
        "low_usd": made.low,
        "high_usd": made.high,
        "method": rest.method + ("" if rest.tried else ", wide interval") if rest else "it is over",
        "error": _percent(rest.error if rest else None),
        "run_rate_error": _percent(rest.run_rate_error if rest else None),
        "intervals_held": rest.held if rest else 0,
        "intervals_tried": rest.tried if rest else 0,
        "days_known": made.known_days,
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.1f} %"


def _event(event: Event) -> dict[str, Any]:
    if event.after is None:
        change = "no price is known from then: counted at the last one"
    else:
        change = f"{(event.after - event.before) / event.before * 100:+.1f} % of what is used of it now"
        change += f" by {event.offers}" if event.offers else ""
    return {"day": event.day.isoformat(), "model": event.model, "change": change}


def _notes(made: Spending, whole: Forecast, first: date, last: date, now: datetime) -> list[str]:
    """What a reader must know to believe the figures as far as they go, and no further."""
    notes = []
    rest = whole.rest
    if rest and rest.tried:
        notes.append(
            f"{rest.held} of {rest.tried} earlier sums lay in the interval that the others make; the error is the "
            f"mean of theirs; the run-rate ({'used' if rest.method == 'run-rate' else 'the last seven days again'}) "
            f"was wrong by {_percent(rest.run_rate_error)}"
        )
    elif rest:
        notes.append(
            f"{whole.known_days} whole days known: too few to measure errors (from {ENOUGH_DAYS}); wide interval"
        )
    if rest and whole.known_days >= ENOUGH_DAYS and not smoothing():
        notes.append("run-rate only: better forecasts need statsmodels: pip install 'farthing[forecast]'")
    if made.end < now - _SILENT and not made.question.until and last >= made.today:
        notes.append(
            f"no usage since {made.end:%Y-%m-%d %H:%M} UTC: the days since are forecast; farthing sync"
        )
    if lacking := unpriced_calls(made.cells, first, last):
        notes.append(f"{lacking:,} calls of these days have no price and are in no figure: farthing coverage")
    if any(made.today + DAY <= event.day for event in price_events(made, last)):
        notes.append("the changes of price above are counted from their day")
    return notes
