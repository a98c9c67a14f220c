"""Budgets in the shape of Anthropic's Spend Limits API, so that what reads that can read these.

GET /v1/organizations/spend_limits is `listed`, /{id} `found`, /effective `effective`. Limits are set in farthing.toml
and raised by `farthing budget raise`, which leaves an audit: nothing here writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

from farthing.gateway._budget_rules import Rule, Rules
from farthing.gateway._budget_types import Change, Scope, State

PERIODS = {"day": "daily", "week": "weekly", "month": "monthly"}
# What of a call a budget is of, and how a limit of that is named there. The rest is a service of the organization.
_SCOPES = {
    "key": ("user", "user_id"),
    "team": ("rbac_group", "rbac_group_id"),
    "project": ("workspace", "workspace_id"),
}
_PICOS_PER_CENT = 10**10
_USUAL, _MOST = 20, 1000


class Budgets(Protocol):
    """What is asked of them."""

    @property
    def rules(self) -> Rules: ...
    def state(self, now_us: int) -> list[State]: ...
    def audit(self) -> list[Change]: ...
    def limit(self, rule: Rule, value: str, now_us: int) -> int: ...


Query = Mapping[str, Sequence[str]]  # as parse_qs gives it


def listed(budgets: Budgets, now_us: int, written: datetime, query: Query) -> dict[str, Any]:
    """A page of the dollar limits of days, weeks and months. `written` is when farthing.toml was. ValueError: 400."""
    wanted = _all(query, "scope_type")
    rows = [
        limit for limit in _limits(budgets, now_us, written) if not wanted or limit["scope"]["type"] in wanted
    ]
    return _page(rows, query)


def found(budgets: Budgets, now_us: int, written: datetime, limit_id: str) -> dict[str, Any] | None:
    return next((limit for limit in _limits(budgets, now_us, written) if limit["id"] == limit_id), None)


def effective(budgets: Budgets, scopes: Iterable[Scope], now_us: int, query: Query) -> dict[str, Any]:
    """For each key (of `scopes`, which say its team and so on) and period: the limit it comes to first."""
    stands = {(row.budget, row.value): row for row in budgets.state(now_us)}
    members, periods = _all(query, "user_ids"), _all(query, "period")
    rows = []
    for scope in scopes:
        if members and scope.key not in members:
            continue
        for period, name in PERIODS.items():
            if not periods or name in periods:
                rows += _tightest(budgets, scope, period, stands, now_us)
    return _page(rows, query)


def _tightest(
    budgets: Budgets, scope: Scope, period: str, stands: Mapping[tuple[str, str], State], now_us: int
) -> list[dict[str, Any]]:
    """The row of a key in a period; none where no hard limit holds for it."""
    fitting = []
    for rule, value in budgets.rules.of(scope):
        if rule.period == period and rule.unit == "usd" and rule.hard:
            row = stands.get((rule.name, value))
            limit, spent = budgets.limit(rule, value, now_us), row.spent if row else 0
            fitting.append((limit - spent, limit, spent, rule, value))
    if not fitting:
        return []
    _, limit, spent, rule, value = min(fitting, key=lambda each: each[:3])
    return [
        {
            "scope": {"type": "user", "user_id": scope.key},
            "actor": {
                "type": "user_actor", "user_id": scope.key, "name": scope.key, "email_address": None, "deleted": False,
            },
            "amount": str(limit // _PICOS_PER_CENT),
            "currency": "USD",
            "period": PERIODS[period],
            "period_to_date_spend": _cents(spent),
            "source": _scope(rule, value),
            "spend_limit_id": _id(rule.name, value),
        }
    ]  # fmt: skip


def _limits(budgets: Budgets, now_us: int, written: datetime) -> list[dict[str, Any]]:
    changed = {(change.budget, change.value): change.at_us for change in budgets.audit()}
    limits = []
    for row in budgets.state(now_us):
        if row.unit != "usd" or row.period not in PERIODS:
            continue
        raised = changed.get((row.budget, row.value), changed.get((row.budget, None), 0))
        since = written.astimezone(UTC)
        at = max(datetime.fromtimestamp(raised // 10**6, UTC), since)
        limits.append(
            {
                "type": "spend_limit",
                "id": _id(row.budget, row.value),
                "scope": _scope(budgets.rules.named[row.budget], row.value),
                "amount": str(row.limit // _PICOS_PER_CENT),
                "currency": "USD",
                "period": PERIODS[row.period],
                "is_enabled": row.mode == "hard",
                "created_at": _time(since),
                "updated_at": _time(at),
            }
        )
    return limits


def _scope(rule: Rule, value: str) -> dict[str, str]:
    """Of whom the limit is: of one value of what it divides or selects, else of all."""
    key = rule.each
    if not key:
        if not rule.where:
            return {"type": "organization"}
        key, _, value = rule.where[0].partition("=")
        if len(rule.where) > 1 or any(mark in f"{key}{value}" for mark in "!*?,["):
            return {"type": "organization_service", "service": " ".join(rule.where)}
    if key in _SCOPES:
        kind, name = _SCOPES[key]
        return {"type": kind, name: value}
    return {"type": "organization_service", "service": f"{key}={value}"}


def _id(name: str, value: str) -> str:
    return "spl_" + hashlib.sha256(f"{name}\0{value}".encode()).hexdigest()[:24]


def _cents(picos: int) -> str:
    """To a thousandth of a cent, downwards, as that API tells spend."""
    text = format(Decimal(picos // (_PICOS_PER_CENT // 1000)).scaleb(-3), "f")
    return text.rstrip("0").rstrip(".")


def _time(at: datetime) -> str:
    return at.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _all(query: Query, name: str) -> Sequence[str]:
    """A list of the query, in either way of writing it."""
    return query.get(f"{name}[]") or query.get(name) or ()


def _page(rows: list[dict[str, Any]], query: Query) -> dict[str, Any]:
    limit = _number(query, "limit", _USUAL)
    if not 1 <= limit <= _MOST:
        raise ValueError(f"limit is {limit}: from 1 to {_MOST}")
    start = _number(query, "page", 0)
    end = start + limit
    return {"data": rows[start:end], "next_page": str(end) if end < len(rows) else None}


def _number(query: Query, name: str, usual: int) -> int:
    text = (query.get(name) or [""])[-1]
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{name} is {text[:20]!r}, which is none")
    return int(text) if text else usual
