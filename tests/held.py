"""What tests of budgets share: a day, a caller, and a call's way through budgets."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count

from farthing.config import Budget
from farthing.gateway.budgets import Held, Scope

USD = 10**12
SECOND = 10**6
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
NOW = int(datetime(2026, 11, 18, 10, 30, 15, tzinfo=UTC).timestamp()) * SECOND  # a Wednesday
SOON = NOW + 15 * MINUTE
ADA = Scope(key="ada", team="search", project="web", run="run-1", model="claude-sonnet-4-6")
names = count()


def hard(name="day", usd=10, **more):
    return Budget(name, usd, **{"period": "day", "hold": "hard", **more})


def stands(budgets, at=NOW):
    """{budget or budget/value: (spent, held) in dollars}"""
    return {
        f"{row.budget}/{row.value}".rstrip("/"): (row.spent / USD, row.held / USD)
        for row in budgets.state(at)
    }


def holds(budgets, usd, call_id="", scope=ADA, at=NOW, until=SOON):
    """Whether a call with this ceiling may be sent."""
    return isinstance(budgets.hold(call_id or f"call-{next(names)}", scope, int(usd * USD), at, until), Held)


def spends(budgets, usd, at=NOW):
    """The marks that are told when so much is spent."""
    name = f"call-{next(names)}"
    held = budgets.hold(name, ADA, int(usd * USD), at, at + HOUR)
    return [notice.percent for notice in (*held.warnings, *budgets.post(name, int(usd * USD), at))]
