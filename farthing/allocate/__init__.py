"""The bill shared out: every picodollar of it is some team's, or shown as nobody's.

What is shared out is the computed cost of the ledger's calls, or a statement, in which case the ledger says whose each
line is. docs/allocation.md states the rules in the order in which they hold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from farthing.allocate._bill import NOT_SEEN, Other, billed, not_billed
from farthing.allocate._divide import Money, apportion
from farthing.allocate._pools import DIRECT, Share, in_words, shares
from farthing.allocate._usage import Convert, Facts, Usage, usage_of
from farthing.cells import Question, QuestionError
from farthing.config import UNASSIGNED
from farthing.ledger import Ledger
from farthing.money import show
from farthing.reports import Table, footer
from farthing.reports._table import heading
from farthing.statement import Statement

__all__ = [
    "DIRECT",
    "NOT_SEEN",
    "Allocated",
    "Convert",
    "Facts",
    "Money",
    "Share",
    "allocate",
    "apportion",
    "in_words",
    "table",
]


@dataclass
class Allocated:
    """`shares` sum to `total` exactly."""

    total: Money
    shares: list[Share]
    parts: list[str]  # in the order of their columns
    teams: list[str]  # dearest first, and last what is nobody's
    is_billed: bool
    usage: Usage = field(repr=False)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def sums(self) -> dict[tuple[str, str], Money]:
        """By team and part, of which "" is all."""
        found: dict[tuple[str, str], Money] = defaultdict(Money)
        for share in self.shares:
            for team in (share.team, ""):
                for part in (share.part, ""):
                    found[team, part] += share.money
        return found

    def of(self, team: str, part: str = "") -> Money:
        """What a team bears, or all do (""), of one part or in all ("")."""
        return self.sums.get((team, part), Money())


def allocate(
    ledger: Ledger,
    question: Question,
    statement: Statement | None = None,
    convert: Convert | None = None,
) -> Allocated:
    """Share out the usage asked for, or a statement of the same days, by the teams and pools of question.config.

    `convert` gives an amount of a day in another currency. Days of a statement are UTC.
    """
    if question.where:
        raise QuestionError("--where: all of the bill is shared out, or its parts would not sum to it")
    if statement:
        question = replace(question, tz="UTC")
    config = question.config
    usage = usage_of(ledger, question, config.pools, convert)
    rest: dict[Other, Money] = {}
    money, notes = usage.money, []
    if statement:
        money, rest = billed(statement, usage, convert)
        beyond = not_billed(usage, {line.platform for line in statement.billed})
        if beyond.picos:
            notes.append(
                f"{show(beyond.picos)} of usage of other platforms is not on this bill, nor shared out"
            )
    found = shares(money, rest, usage, config)
    total = sum((*money.values(), *rest.values()), Money())
    assert sum((share.money for share in found), Money()) == total
    pools = [pool.name for pool in config.pools]
    kinds = sorted({share.part for share in found} - {DIRECT, *pools})
    named = {share.team for share in found} | set(usage.teams) | set(config.teams)
    made = Allocated(total, found, [DIRECT, *pools, *kinds], [], statement is not None, usage, notes)
    spent = {team: made.of(team).picos for team in named}
    made.teams = [*sorted(named - {UNASSIGNED}, key=lambda team: (-spent[team], team)), UNASSIGNED]
    made.notes += _hints(made, kinds)
    return made


def _hints(made: Allocated, kinds: Sequence[str]) -> Iterator[str]:
    """What is nobody's, and how to share it."""
    for part in (DIRECT, *kinds):
        if picos := made.of(UNASSIGNED, part).picos:
            if part == DIRECT:
                mend = 'add members to teams, or a pool with where = ["team=unassigned"]'
                yield f"{show(picos)} of calls that no team claims: {mend}"
            else:
                yield f'{show(picos)} of {part} is nobody\'s: a pool with kinds = ["{part}"] shares it'


def table(made: Allocated, ledger: Ledger, question: Question, currency: str = "USD") -> Table:
    """One row a team, `unassigned` last and always there. The last column sums to the bill."""
    units = ("usd", currency.lower()) if currency != "USD" else ("usd",)
    shown = [part for part in made.parts if part == DIRECT or any(made.of("", part))]

    def amounts(team: str, part: str) -> dict[str, int]:
        name = f"{part}_" if part else ""
        return {f"{name}{unit}": amount for unit, amount in zip(units, made.of(team, part), strict=False)}

    rows = []
    for team in made.teams:
        row: dict[str, Any] = {"team": team, "cost_centre": _cost_centre(question, team)}
        for part in (*shown, ""):
            row |= amounts(team, part)
        rows.append(row)
    says = {pool.name: in_words(pool) for pool in question.config.pools}
    parts = {
        "pools": [{"pool": part, "says": says[part], **amounts("", part)} for part in shown if part in says],
        "notes": made.notes,
    } | {f"bill_{unit}": amount for unit, amount in zip(units, made.total, strict=False)}
    columns = ["team", *(["cost_centre"] if any(row["cost_centre"] for row in rows) else [])]
    columns += [name for name in rows[0] if name not in ("team", "cost_centre")]
    return Table(
        "The bill, shared out" if made.is_billed else "The cost, shared out",
        "billed" if made.is_billed else heading(made.usage.cells),
        tuple(columns),
        rows,
        footer(ledger, question, made.usage.cells),
        parts,
        currency=currency,
    )


def _cost_centre(question: Question, team: str) -> str:
    named = question.config.teams.get(team)
    return named.cost_centre if named else ""
