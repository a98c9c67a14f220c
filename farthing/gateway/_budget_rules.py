"""Which budgets a call falls under: those of farthing.toml that have `hold`, made ready to be asked for every call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import timedelta
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo

from farthing.config import Budget, Config
from farthing.gateway._budget_types import Scope
from farthing.gateway._budget_windows import Window, window
from farthing.money import show
from farthing.usage import EPOCH

_MOST_VALUE = 200  # characters of a value as it is kept
_MOST_SCOPES = 10_000  # kept matched, for a program that meets runs without end

Part = tuple[str, str, int]  # of the store: a budget's name, its value, the start of its window
_Test = Callable[[Scope], bool]


class Rule:
    """A budget and how it is asked. Its window is kept until it ends, since working it out takes a while."""

    def __init__(self, budget: Budget, zone: str) -> None:
        self.name, self.limit, self.period, self.each = budget.name, budget.limit, budget.period, budget.each
        self.hard, self.passes_unpriced = budget.hold == "hard", budget.unpriced == "pass"
        self.unit = "usd" if budget.usd else "calls" if budget.calls else "tokens"
        self.zone = ZoneInfo(budget.timezone or zone)
        self.where = budget.where
        self.tests = [_test(text) for text in budget.where]
        self._window = Window(0, 0)

    def window(self, at_us: int) -> Window:
        found = self._window
        if not found.start_us <= at_us < found.end_us:
            found = self._window = window(self.period, self.zone, at_us)
        return found

    def value(self, scope: Scope) -> str:
        """Whose budget it is, where there is one of each value; calls that name none share one."""
        return clean(_value(scope, self.each)) if self.each else ""

    def amount(self, picos: int | None, tokens: int | None) -> int | None:
        """What a call takes of it; None where nobody knows."""
        return picos if self.unit == "usd" else tokens if self.unit == "tokens" else 1

    def said(self, amount: int) -> str:
        return show(amount) if self.unit == "usd" else f"{amount:,} {self.unit}"

    def ends(self, at_us: int) -> str:
        """When its window ends, on the clock of its zone."""
        end = (EPOCH + timedelta(microseconds=self.window(at_us).end_us)).astimezone(self.zone)
        return f"{end:%Y-%m-%d %H:%M} {self.zone.key}"


class Rules:
    """All of them. Who asks twice for the same scope is answered from memory."""

    def __init__(self, config: Config) -> None:
        held = [budget for budget in config.budgets if budget.hold]
        self.all = [Rule(budget, config.timezone) for budget in sorted(held, key=lambda each: each.name)]
        self.named = {rule.name: rule for rule in self.all}
        self._known: dict[Scope, list[tuple[Rule, str]]] = {}

    def of(self, scope: Scope) -> list[tuple[Rule, str]]:
        """The budgets that a call falls under with their values, in the order in which they are locked."""
        found = self._known.get(scope)
        if found is None:
            if len(self._known) >= _MOST_SCOPES:
                self._known.clear()
            matching = (rule for rule in self.all if all(test(scope) for test in rule.tests))
            found = self._known[scope] = [(rule, rule.value(scope)) for rule in matching]
        return found

    def find(self, key: str) -> tuple[Rule, str | None] | None:
        """NAME, or NAME/VALUE of a budget with `each`; None where there is no such budget."""
        if key in self.named:
            return self.named[key], None if self.named[key].each else ""
        fitting = [rule for rule in self.all if rule.each and key.startswith(f"{rule.name}/")]
        if not fitting:
            return None
        rule = max(fitting, key=lambda each: len(each.name))
        return rule, key[len(rule.name) + 1 :]


def shown(name: str, value: str | None) -> str:
    """agents/key-7, as `budget raise` takes it."""
    return f"{name}/{value}" if value else name


def clean(value: str) -> str:
    """A value as every store can keep it: printable and short. What is longer keeps apart by its digest."""
    if not value.isprintable():
        value = ascii(value)
    if len(value) <= _MOST_VALUE:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:32]
    return f"{value[: _MOST_VALUE - 33]}~{digest}"


def _value(scope: Scope, key: str) -> str:
    if key.startswith("tag:"):
        return dict(scope.tags).get(key[4:], "")
    return str(getattr(scope, key))


def _test(text: str) -> _Test:
    """A filter as for --where: KEY=VALUE[,VALUE...] or KEY!=VALUE; `*` and `?` match."""
    key, _, values = text.partition("=")
    negated, key = key.endswith("!"), key.removesuffix("!").strip()
    patterns = [value.strip() for value in values.split(",")]

    def fits(scope: Scope) -> bool:
        return _any(_value(scope, key), patterns) is not negated

    return fits


def _any(value: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)
