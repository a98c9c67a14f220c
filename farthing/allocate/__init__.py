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
from farthing.allocate._divide import Exchange, Money, apportion
from farthing.allocate._page import to_html
from farthing.allocate._pools import DIRECT, Share, in_words, shares, takes, weights
from farthing.allocate._sent import SENDING, SENT, Record, name_of
from farthing.allocate._taken import Taking, Wanted
from farthing.allocate._team import (
    Model,
    Moved,
    TeamStatement,
    avoided_of,
    layers_of,
    main_steps,
    parts_of,
    to_csv,
    to_json,
)
from farthing.allocate._text import month_name, to_text, together
from farthing.allocate._usage import Facts, Filters, Usage, usage_of
from farthing.cells import Question, QuestionError
from farthing.config import UNASSIGNED, Team
from farthing.fx import amount
from farthing.ledger import Ledger
from farthing.money import show
from farthing.reports import Table, described, footer, heading
from farthing.statement import Statement

__all__ = [
    "DIRECT",
    "NOT_SEEN",
    "SENDING",
    "SENT",
    "Allocated",
    "Exchange",
    "Facts",
    "Filters",
    "Money",
    "Moved",
    "Record",
    "Share",
    "Taking",
    "TeamStatement",
    "Wanted",
    "allocate",
    "apportion",
    "in_words",
    "main_steps",
    "month_name",
    "name_of",
    "table",
    "takes",
    "team_statement",
    "to_csv",
    "to_html",
    "to_json",
    "to_text",
    "together",
    "weights",
]


@dataclass
class Allocated:
    """`shares` sum to `total` exactly."""

    total: Money
    shares: list[Share]
    parts: list[str]  # in the order of their columns
    teams: list[str]  # dearest first, and last what is nobody's
    is_billed: bool
    exchange: Exchange | None
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
    exchange: Exchange | None = None,
) -> Allocated:
    """Share out the usage asked for, or a statement of the same days, by the teams and pools of question.config.

    Days of a statement are UTC.
    """
    if question.where:
        raise QuestionError("--where: all of the bill is shared out, or its parts would not sum to it")
    if statement:
        question = replace(question, tz="UTC")
    config = question.config
    usage = usage_of(ledger, question, config.pools, exchange)
    rest: dict[Other, Money] = {}
    money, notes = usage.money, []
    if statement:
        money, rest = billed(statement, usage, exchange)
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
    named = {share.team for share in found} | {cell.keys[0] for cell in usage.cells} | set(config.teams)
    made = Allocated(
        total, found, [DIRECT, *pools, *kinds], [], statement is not None, exchange, usage, notes
    )
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


def table(made: Allocated, ledger: Ledger, question: Question) -> Table:
    """One row a team, `unassigned` last and always there. The last column sums to the bill."""
    exchange = made.exchange
    units = ("usd", exchange.currency.lower()) if exchange else ("usd",)
    shown = [part for part in made.parts if part == DIRECT or any(made.of("", part))]

    def amounts(team: str, part: str, prefix: str = "") -> dict[str, int]:
        return {f"{prefix}{unit}": amount for unit, amount in zip(units, made.of(team, part), strict=False)}

    rows = []
    for team in made.teams:
        row: dict[str, Any] = {"team": team, "cost_centre": _cost_centre(question, team)}
        for part in (*shown, ""):
            row |= amounts(team, part, f"{part}_" if part else "")
        rows.append(row)
    says = {pool.name: in_words(pool) for pool in question.config.pools}
    parts = {
        "pools": [{"pool": part, "says": says[part], **amounts("", part)} for part in shown if part in says],
        **amounts("", "", "bill_" if made.is_billed else "cost_"),
        "notes": made.notes,
    }
    columns = ["team", *(["cost_centre"] if any(row["cost_centre"] for row in rows) else [])]
    columns += [name for name in rows[0] if name not in ("team", "cost_centre")]
    foot = footer(ledger, question, made.usage.cells)
    if exchange:
        foot |= {"currency": exchange.currency, "fx": described(exchange.rates, exchange.used)}
    return Table(
        "The bill, shared out" if made.is_billed else "The cost, shared out",
        "billed" if made.is_billed else heading(made.usage.cells),
        tuple(columns),
        rows,
        foot,
        parts,
        currency=exchange.currency if exchange else "USD",
        heads={f"{part}_usd": part.replace("_", " ") for part in shown} | {"cost_centre": "cost centre"},
    )


def _cost_centre(question: Question, team: str) -> str:
    named = question.config.teams.get(team)
    return named.cost_centre if named else ""


def team_statement(
    made: Allocated, question: Question, team: str, *, version: str = "", moved: Moved | None = None
) -> TeamStatement:
    """A team's part of it, for a question of one month. `version` is that of the month's closing."""
    assert question.since
    config, facts = question.config, made.usage.teams.get(team, Facts())
    mine = [share for share in made.shares if share.team == team]
    own = [DIRECT, *(pool.name for pool in config.pools if pool.split == "reads")]
    by_model: dict[str, Money] = defaultdict(Money)
    by_day: dict[str, Money] = defaultdict(Money)
    for share in mine:
        if share.part in own:
            by_model[share.model] += share.money
            by_day[share.day] += share.money
    models = [
        Model(name, facts.calls.get(name, 0), facts.tokens.get(name, 0), by_model.get(name, Money()))
        for name in dict.fromkeys((*by_model, *facts.calls))
    ]
    return TeamStatement(
        team=team,
        month=f"{question.since:%Y-%m}",
        said=config.teams.get(team, Team()),
        version=version,
        is_billed=made.is_billed,
        money=made.of(team),
        parts=parts_of(
            team,
            mine,
            {part: made.of("", part) for part in made.parts},
            [(pool, in_words(pool)) for pool in config.pools],
        ),
        models=sorted(models, key=lambda model: (-model.money.picos, model.name)),
        days=sorted(by_day.items()),
        layers=layers_of(facts.computed),
        avoided=avoided_of(facts.computed),
        moved=moved,
        notes=list(_notes(made, question, facts)),
        shares=mine,
        exchange=made.exchange,
    )


def _notes(made: Allocated, question: Question, facts: Facts) -> Iterator[str]:
    for reason, calls in sorted(facts.unpriced_calls.items()):
        yield f"{calls:,} calls have no price and are in no amount: {reason}"
    for name, money in sorted(facts.assumed.items()):
        shown = amount(money.other, made.exchange.currency) if made.exchange else show(money.picos)
        yield f"{shown} of the computed cost hangs on an assumption: {name}"
    if made.is_billed:
        yield "Amounts are what AWS billed; a line of the bill is yours by the tokens that our logs show to be yours."
    yield f"Days are {'UTC' if made.is_billed else question.tz}. Computed by price book {question.book.digest}."
    if exchange := made.exchange:
        dates = sorted(exchange.used)
        yield (
            f"Each day's dollars at its own rate: {exchange.rates.path} ({exchange.rates.digest}), "
            f"rates of {dates[0]} to {dates[-1]}."
            if dates
            else f"Rates: {exchange.rates.path}."
        )
