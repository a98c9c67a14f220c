"""Budgets that hold calls: how they stand, raised, reset, and what was done to them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

from cyclopts import App, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._shared import Asked, ledger_to_read, load_config, write_json

if TYPE_CHECKING:
    from farthing import config as settings
    from farthing.cells import Question
    from farthing.gateway._budget_rules import Rule
    from farthing.gateway.budgets import Budgets, Change, State
    from farthing.ledger import Ledger

group = App(name="budget", help="Budgets that gateway and hooks hold calls against (docs/budgets.md).")
app.command(group)

Store = Annotated[
    str, Parameter(help="Where they are kept: a file, or postgresql://...; else as farthing.toml says.")
]
Config = Annotated[Path | None, Parameter(help="farthing.toml.")]
Json = Annotated[bool, Parameter(name=["--json", "-j"], negative="", help="One line of JSON, exact.")]
Key = Annotated[str, Parameter(help="NAME of a budget, or NAME/VALUE of one with `each`.")]
By = Annotated[str, Parameter(help="Who does it; kept as given.")]
Reason = Annotated[str, Parameter(help="Why; kept as given.")]


@group.command(name="list")
def list_(*, store: Store = "", config: Config = None, json: Json = False) -> int:
    """Every budget in its window that is now: its limit, what is spent, what is held for calls under way."""
    with _opened(store, config) as (budgets, _, now_us):
        states = budgets.state(now_us)
        rules = budgets.rules.named
    if json:
        write_json({"budgets": [_state_json(state) for state in states]})
        return 0
    if not rules:
        print('no budgets hold calls: add [[budgets]] with hold = "hard" to farthing.toml (docs/budgets.md)')
    for state in states:
        rule, name = rules[state.budget], _name(state.budget, state.value)
        raised = f", raised until {_time(state.raised_until_us, rule.zone)}" if state.raised_until_us else ""
        held = f", {rule.said(state.held)} held" if state.held else ""
        print(
            f"{name:24}  {rule.said(state.spent)} of {rule.said(state.limit)} a {state.period}{held} "
            f"({state.mode}{raised}; until {_time(state.reset_us, rule.zone)})"
        )
    return 0


@group.command(name="raise")
def raise_(
    key: Key,
    /,
    *,
    to: Annotated[str, Parameter(help="The limit that holds meanwhile: dollars, or calls or tokens.")],
    until: Annotated[str, Parameter(help="2026-11-30, 2026-11-30T18:00, or so long from now: 90m, 4h, 2d.")],
    by: By,
    reason: Reason,
    store: Store = "",
    config: Config = None,
    json: Json = False,
) -> int:
    """Let a budget go higher for a while. Gateways see it within a second."""
    with _opened(store, config) as (budgets, said, now_us):
        found = budgets.rules.find(key)
        amount = _amount(to, found[0] if found else None)
        change = _tried(
            budgets.raise_limit, key, amount, _until(until, said.timezone, now_us), by, reason, now_us
        )
        _told([change], budgets, json=json)
    return 0


@group.command
def reset(
    key: Key, /, *, by: By, reason: Reason, store: Store = "", config: Config = None, json: Json = False
) -> int:
    """Count the running window from nothing. What is held for calls under way stays. Exit 1 if nothing was spent."""
    with _opened(store, config) as (budgets, _, now_us):
        changes = _tried(budgets.reset, key, by, reason, now_us)
        _told(changes, budgets, json=json)
    return int(not changes)


@group.command
def audit(*, store: Store = "", config: Config = None, json: Json = False) -> int:
    """What was raised, reset and synced: by whom, when and why."""
    with _opened(store, config) as (budgets, _, _now):
        _told(budgets.audit(), budgets, json=json)
    return 0


@group.command
def sync(*, store: Store = "", asked: Asked | None = None) -> int:
    """Take over what the ledger knows more than the store: calls that passed by no gateway, or before there was one.

    For budgets of dollars by day, week or month. Where the store knows more, it stays.
    """
    from farthing.cells import QuestionError

    asked = asked or Asked()
    with (
        _opened(store, asked.config) as (budgets, said, now_us),
        ledger_to_read(asked.ledger, said) as ledger,
    ):
        changes = []
        try:
            for rule in budgets.rules.all:
                for value, spent in _known(ledger, asked.question(), rule, now_us):
                    changes.append(budgets.floor(rule.name, value, spent, "budget sync", now_us))
        except QuestionError as error:
            raise BadInput(str(error)) from error
        _told([change for change in changes if change], budgets, json=asked.json)
    return 0


def _known(ledger: Ledger, question: Question, rule: Rule, now_us: int) -> Iterator[tuple[str, int]]:
    """Of each value: what the ledger has of the running window. Nothing where it does not know whose calls were."""
    from dataclasses import replace

    from farthing.cells import cells, parse_where
    from farthing.config import UNASSIGNED
    from farthing.gateway._budget_rules import clean

    keys = [rule.each, *(text.partition("=")[0].removesuffix("!").strip() for text in rule.where)]
    if rule.unit != "usd" or rule.period not in ("day", "week", "month") or {"key", "run"} & {*keys}:
        return
    window = rule.window(now_us)
    first, last = (_local(at, rule.zone).date() for at in (window.start_us, window.end_us - 1))
    where = (*question.where, *(parse_where(text) for text in rule.where))
    asked = replace(question, since=first, until=last, tz=rule.zone.key, where=where)
    spent: dict[str, int] = {}
    for cell in cells(ledger, asked, (rule.each,) if rule.each else ()):
        name = cell.keys[0] if rule.each else ""
        value = "" if name == UNASSIGNED else clean(name)
        spent[value] = spent.get(value, 0) + cell.cost
    yield from spent.items()


# --- shared ----------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(store: str, config: Path | None) -> Iterator[tuple[Budgets, settings.Config, int]]:
    from farthing.gateway.budgets import StoreError, open_budgets

    said = load_config(config)
    try:
        budgets = open_budgets(said, store)
        try:
            yield budgets, said, time.time_ns() // 1000
        finally:
            budgets.close()
    except StoreError as error:
        raise BadInput(str(error)) from error


def _tried(function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except ValueError as error:
        raise BadInput(str(error)) from error


def _amount(text: str, rule: Rule | None) -> int:
    """In the unit of the budget; of one that is not there, anything: it will be said that it is not."""
    from farthing.money import from_usd

    try:
        if rule is None or rule.unit == "usd":
            return from_usd(text.removeprefix("$"))
        return int(text)
    except ValueError as error:
        unit = "dollars" if rule is None or rule.unit == "usd" else rule.unit
        raise BadInput(f"--to {text!r} is no number of {unit}") from error


def _until(text: str, zone: str, now_us: int) -> int:
    if found := re.fullmatch(r"(\d{1,6})([mhd])", text):
        units = {"m": "minutes", "h": "hours", "d": "days"}
        return now_us + timedelta(**{units[found[2]]: int(found[1])}) // timedelta(microseconds=1)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(
            f"--until {text!r} is no time: write 2026-11-30, 2026-11-30T18:00, 90m, 4h or 2d"
        ) from error
    at = at if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone))
    return int(at.timestamp()) * 10**6


def _told(changes: list[Change], budgets: Budgets, *, json: bool) -> None:
    if json:
        write_json({"changes": [_change_json(change, budgets) for change in changes]})
        return
    for change in changes:
        rule = budgets.rules.named.get(change.budget)
        amount = rule.said(change.amount) if rule else str(change.amount)
        does = {"raise": f"raised to {amount}", "reset": f"reset; {amount} was spent", "sync": f"at {amount}"}
        zone = rule.zone if rule else ZoneInfo("UTC")
        until = f" until {_time(change.until_us, zone)}" if change.until_us else ""
        print(
            f"{_time(change.at_us, zone)}  {_name(change.budget, change.value)} {does[change.action]}{until}, "
            f"by {change.by}: {change.reason}"
        )


def _name(budget: str, value: str | None) -> str:
    from farthing.gateway._budget_rules import shown

    return shown(budget, value)


def _local(at_us: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at_us // 10**6, UTC).astimezone(zone)


def _time(at_us: int, zone: ZoneInfo) -> str:
    return f"{_local(at_us, zone):%Y-%m-%d %H:%M}"


def _iso(at_us: int) -> str | None:
    return _local(at_us, ZoneInfo("UTC")).isoformat() if at_us else None


def _state_json(state: State) -> dict[str, Any]:
    return {
        "budget": state.budget,
        "value": state.value,
        "mode": state.mode,
        "period": state.period,
        "start": _iso(state.start_us),
        "reset": _iso(state.reset_us),
        "unit": state.unit,
        **{name: _exact(getattr(state, name), state.unit) for name in ("limit", "spent", "held")},
        "left": _exact(state.limit - state.spent - state.held, state.unit),
        "raised_until": _iso(state.raised_until_us),
    }


def _change_json(change: Change, budgets: Budgets) -> dict[str, Any]:
    rule = budgets.rules.named.get(change.budget)
    unit = rule.unit if rule else ""
    return {
        "at": _iso(change.at_us),
        "by": change.by,
        "action": change.action,
        "budget": change.budget,
        "value": change.value,
        "unit": unit,
        "amount": _exact(change.amount, unit),
        "until": _iso(change.until_us),
        "reason": change.reason,
    }


def _exact(amount: int, unit: str) -> str | int:
    """Dollars as exact text, as everywhere in JSON."""
    from farthing.money import usd

    return usd(amount) if unit == "usd" else amount
