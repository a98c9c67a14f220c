"""What there is to tell: anomalies, budgets, dates ahead, sources that failed; each under a key that it keeps."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.money import show, usd
from farthing.reports.anomalies import (
    CAUSES,
    KEYS,
    SILENT,
    Anomaly,
    at_hour,
    find,
    see,
)
from farthing.reports.budgets import Standing, standings
from farthing.reports.forecast import coming
from farthing.sync import Synced

RECENT_HOURS = 24  # before the end of what is known: older anomalies are no news
AHEAD_DAYS = 14
MINIMUM = 5  # dollars an hour


@dataclass(frozen=True)
class Event:
    """One thing to tell, once, as long as it lasts."""

    key: str
    kind: str  # of config.EventKind
    title: str
    lines: tuple[tuple[str, str], ...]
    team: str = ""
    facts: dict[str, Any] = field(default_factory=dict)  # for programs; amounts are exact dollars


Check = Callable[[], Iterable[Event]]


def checks(ledger: Ledger, question: Question, now: datetime, minimum: int) -> dict[str, Check]:
    """What to look for, by name: each for itself, so that one that fails is no fault of the rest."""
    return {
        "anomalies": lambda: anomalous(ledger, question, now, minimum),
        "budgets": lambda: over_budget(ledger, question, now),
        "prices": lambda: ahead(ledger, question, now),
    }


def failed_sources(results: Iterable[Synced]) -> Iterator[Event]:
    for path, done in results:
        if done.errors:
            more = f", and {len(done.errors) - 1:,} more lines" if len(done.errors) > 1 else ""
            lines = (("why", done.errors[0] + more), ("run", "farthing sync"))
            yield Event(
                f"sync/{path.path}",
                "sync",
                f"importing {path.path} failed",
                lines,
                facts={"source": path.path},
            )


def failed_check(name: str, error: Exception) -> Event:
    why = " ".join(str(error).split())
    return Event(f"check/{name}", "sync", f"{name} could not be looked at", (("why", why),))


# --- anomalies ------------------------------------------------------------------------------------


def anomalous(ledger: Ledger, question: Question, now: datetime, minimum: int = MINIMUM) -> Iterator[Event]:
    found, _, end = find(ledger, question, KEYS.split(","), minimum, now)
    for one in found:
        latest = at_hour(one.window.end)
        known = now if one.cause == SILENT else end
        if known and (known - latest).total_seconds() < RECENT_HOURS * 3600:
            yield _anomaly(one, question, going_on=(known - latest).total_seconds() < 3600)


def _anomaly(one: Anomaly, question: Question, *, going_on: bool) -> Event:
    hours = one.window.end - one.window.start
    silent = one.cause == SILENT
    cause = CAUSES.get(one.cause, "a change of price")
    span = f"{hours} hour{'s' if hours > 1 else ''}"
    lines = [
        (
            "since",
            f"{_local(at_hour(one.window.start), question.zone)}, {span}{', and it goes on' if going_on else ''}",
        )
    ]
    if silent:
        title = f"{one.subject}: no calls for {span}"
        lines.append(("usual", f"{one.expected_calls:,} calls, {show(one.usual)} in these hours"))
    else:
        hourly = one.extra // hours
        title = f"{one.subject} costs {show(hourly)} an hour more than usual: {cause}"
        lines.append(("cost", f"{show(one.cost)} instead of {show(one.usual)}: {show(one.extra)} more"))
        if going_on:
            lines.append(("if it goes on", f"up to {show(hourly * 24)} a day"))
    lines += [("why", one.detail), *_prices(question), ("run", see(one))]
    facts = {
        "subject": str(one.subject),
        "since": at_hour(one.window.start).isoformat(),
        "hours": hours,
        "cause": one.cause,
        "usd": usd(one.cost),
        "usual_usd": usd(one.usual),
        "steps": [{"name": step.name, "usd": usd(step.picos)} for step in one.steps],
    }
    team = one.subject.value if one.subject.key == "team" else ""
    key = f"{'silent' if silent else 'anomaly'}/{one.subject}"
    return Event(key, "anomaly", title, tuple(lines), team, facts=facts)


# --- budgets --------------------------------------------------------------------------------------


def over_budget(ledger: Ledger, question: Question, now: datetime) -> Iterator[Event]:
    """The highest mark that is reached, and, before the last of them, that the budget is going to be exceeded."""
    for standing in standings(ledger, question, now):
        begins, name = f"budget/{standing.budget.name}/{standing.first}", f"budget {standing.budget.name}"
        today, limit = now.astimezone(question.zone).date(), show(standing.limit)
        if standing.reached:
            over = " exceeded" if standing.over else ""
            title = f"{name}{over}: {show(standing.spent)} of {limit} ({standing.percent} %) spent"
            yield _budget(f"{begins}/{standing.reached}", title, standing, today, question)
        if standing.exceeded_on:
            title = f"{name}: {limit} will be exceeded on {standing.exceeded_on:%a %Y-%m-%d}"
            yield _budget(f"{begins}/forecast", title, standing, today, question)


def _budget(key: str, title: str, standing: Standing, today: date, question: Question) -> Event:
    days = (standing.last - today).days
    left = standing.limit - standing.spent
    rest = f"{show(left)} left" if left >= 0 else f"{show(-left)} over"
    lines = [("period", f"{standing.first} to {standing.last}, {days} day{'' if days == 1 else 's'} to go")]
    lines.append(("spent", f"{show(standing.spent)} of {show(standing.limit)}, {rest}"))
    if standing.forecast and standing.forecast.rest:
        ahead = standing.forecast
        lines.append(("forecast", f"{show(ahead.total)}, between {show(ahead.low)} and {show(ahead.high)}"))
    if standing.unpriced_calls:
        lines.append(("unpriced", f"{standing.unpriced_calls:,} calls have no price and are in no figure"))
    lines += _prices(question)
    where = "".join(f" --where {shlex.quote(text)}" for text in standing.budget.where)
    lines.append(("run", f"farthing by model,operation{where} --since {standing.first}"))
    facts = {
        "budget": standing.budget.name,
        "spent_usd": usd(standing.spent),
        "limit_usd": usd(standing.limit),
        "percent": standing.percent,
        "forecast_usd": usd(standing.forecast.total) if standing.forecast else None,
        "exceeded_on": standing.exceeded_on.isoformat() if standing.exceeded_on else None,
    }
    teams = [text.removeprefix("team=") for text in standing.budget.where if text.startswith("team=")]
    return Event(key, "budget", title, tuple(lines), teams[0] if len(teams) == 1 else "", facts=facts)


# --- dates ahead ----------------------------------------------------------------------------------


def ahead(ledger: Ledger, question: Question, now: datetime) -> Iterator[Event]:
    for one in coming(ledger, question, now, AHEAD_DAYS):
        lines = (
            ("what", one.says),
            ("when", f"{one.day:%a %Y-%m-%d}, in {(one.day - now.date()).days} days"),
        )
        run = (("run", f"farthing by team,operation --where model={one.model}"),)
        title = f"{one.model}: {one.says} {one.day:%a %Y-%m-%d}"
        yield Event(
            f"price/{one.model}/{one.day}/{one.says}", "price", title, lines + run, facts={"model": one.model}
        )


def _prices(question: Question) -> list[tuple[str, str]]:
    """By which prices the amounts are, where not by the list."""
    names = ", ".join(offer.name for offer in question.book.offers)
    return [("prices", f"by private offers: {names}")] if names else []


def _local(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%a %Y-%m-%d %H:%M %Z}"
