"""Which calls broke the policy on where they may run ([[residency]] of farthing.toml)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from farthing.book import Unpriced
from farthing.cells import Cell, Question, QuestionError, Where, cells
from farthing.config import Residency
from farthing.ledger import Ledger
from farthing.reports._control import matches
from farthing.reports._table import Table, footer, heading, report
from farthing.usage import GEOGRAPHIES

INSIDE, OUTSIDE, UNKNOWN, FAILED = "inside", "outside", "unknown", "failed"
_KEYS = ("account", "principal", "region", "routing", "model", "status")
_ALLOWED = re.compile(r"\*|global|in_region(?::[a-z0-9*?-]+)?|geo:(?:" + "|".join(GEOGRAPHIES) + r"|\*)")


@dataclass
class _Found:
    calls: int = 0
    usd: int = 0
    priced: bool = field(default=False)

    def add(self, cell: Cell) -> None:
        self.calls += cell.calls
        self.usd += cell.cost
        self.priced |= not isinstance(cell.price, Unpriced)


@report("Calls that broke the residency policy of farthing.toml; exit 1 if there are any.")
def residency(ledger: Ledger, question: Question) -> Table:
    """Calls outside, and calls of which nothing says where they may have run, by rule; `rules` has the sums."""
    policy = question.config.residency
    if not policy:
        name = question.config.path or "farthing.toml"
        raise QuestionError(
            f'no residency policy: add [[residency]] with allow = ["geo:eu"] or the like to {name}'
        )
    rows: list[dict[str, Any]] = []
    sums: list[dict[str, Any]] = []
    for number, rule in enumerate(policy, 1):
        told = {"rule": number, "allow": ", ".join(rule.allow)}
        judged = _judged(ledger, question, rule)
        for (verdict, *keys), some in judged.items():
            if verdict in (OUTSIDE, UNKNOWN):
                names = ("account", "principal", "region", "routing", "model")
                usd = some.usd if some.priced else None
                rows.append(
                    told
                    | dict(zip(names, keys, strict=True))
                    | {"verdict": verdict, "calls": some.calls, "usd": usd}
                )
        sums.append(told | _sums(judged))
    rows.sort(key=lambda row: (row["rule"], row["verdict"], -(row["usd"] or 0), *map(str, row.values())))
    found = cells(ledger, question)
    broke = any(row["verdict"] == OUTSIDE for row in rows)
    columns = ("rule", "verdict", "account", "principal", "region", "model", "routing", "calls", "usd")
    table = Table(
        "Residency", heading(found), columns, rows, footer(ledger, question, found), {"rules": sums}, broke
    )
    table.empty = "no call is outside, and of none it is unknown"
    return table


def _judged(ledger: Ledger, question: Question, rule: Residency) -> dict[tuple[str, ...], _Found]:
    """The calls a rule is for, by verdict, account, principal, region, routing and model."""
    _check(rule)
    if rule.since:
        since = date.fromisoformat(rule.since)
        question = replace(question, since=max(since, question.since) if question.since else since)
    keys = (*_KEYS, "team") if rule.teams else _KEYS
    judged: dict[tuple[str, ...], _Found] = {}
    for cell in cells(ledger, question, keys):
        said = dict(zip(keys, cell.keys, strict=True))
        if _selected(rule, said, question):
            shown = (said["account"], said["principal"], said["region"], said["routing"], said["model"])
            judged.setdefault((_verdict(rule, said, cell), *shown), _Found()).add(cell)
    return judged


def _check(rule: Residency) -> None:
    for allowed in rule.allow:
        if not _ALLOWED.fullmatch(allowed):
            raise QuestionError(
                f"residency: {allowed!r} is no routing: write global, geo:eu, in_region or in_region:eu-*"
            )
    try:
        date.fromisoformat(rule.since or "2000-01-01")
    except ValueError as error:
        raise QuestionError(f"residency: since = {rule.since!r} is no day: write 2026-11-22") from error


def _selected(rule: Residency, said: Mapping[str, str], question: Question) -> bool:
    """An empty selector means all. Accounts go by their number or by their name in farthing.toml."""
    account = question.config.accounts.get(said["account"])
    names = [said["account"], *([account.name] if account and account.name else [])]
    return (
        _any(rule.accounts, names)
        and _any(rule.principals, [said["principal"]])
        and _any(rule.teams, [said.get("team", "")])
    )


def _any(patterns: Sequence[str], values: Sequence[str]) -> bool:
    return not patterns or any(matches(Where("", tuple(patterns)), value) for value in values)


def _verdict(rule: Residency, said: Mapping[str, str], cell: Cell) -> str:
    """Inside only with evidence. A call that failed before it used a token ran nowhere."""
    if said["status"] and not any(cell.tokens):
        return FAILED
    routing, region = said["routing"], said["region"]
    if "*" in rule.allow:
        return INSIDE
    if routing in ("", "unknown"):
        return UNKNOWN
    if _any(rule.allow, [routing, f"{routing}:{region}"] if region else [routing]):
        return INSIDE
    regional = any(allowed.startswith("in_region:") for allowed in rule.allow)
    return UNKNOWN if routing == "in_region" and not region and regional else OUTSIDE


def _sums(judged: Mapping[tuple[str, ...], _Found]) -> dict[str, Any]:
    totals: dict[str, Any] = {}
    for verdict in (INSIDE, OUTSIDE, UNKNOWN, FAILED):
        some = [found for (said, *_), found in judged.items() if said == verdict]
        totals[f"{verdict}_calls"] = sum(found.calls for found in some)
        if verdict != FAILED:
            totals[f"{verdict}_usd"] = sum(found.usd for found in some)
    return totals
