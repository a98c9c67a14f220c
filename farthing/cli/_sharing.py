"""Team statements, as the commands that print them and that send them make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from farthing.cli._app import BadInput
from farthing.cli._bills import Cost, Reached, parse_month, read_statement
from farthing.cli._shared import Asked

if TYPE_CHECKING:
    from farthing.allocate import Allocated, Exchange, Moved, TeamStatement
    from farthing.cells import Question
    from farthing.ledger import Ledger
    from farthing.statement import Statement

Month = Annotated[str, Parameter(help="2026-10.")]
Teams = Annotated[list[str] | None, Parameter(negative="", help="Only this team; may be repeated.")]


@Parameter(name="*")
@dataclass
class Bill:
    """Which bill is shared out."""

    statement: Annotated[
        list[str] | None,
        Parameter(negative="", help="The AWS bill: files, folders, s3://. Left out: what we computed."),
    ] = None
    cost: Cost = "unblended"

    def read(self, month: str, reached: Reached | None) -> Statement | None:
        return read_statement(self.statement, self.cost, month, reached=reached) if self.statement else None


def question_of(asked: Asked, month: str) -> Question:
    """The question of a whole month."""
    first, last = parse_month(month)
    if asked.since or asked.until:
        raise BadInput("--since, --until: a bill is shared out by --month")
    return replace(asked.question(), since=first, until=last)


def statements(
    ledger: Ledger,
    question: Question,
    bill: Statement | None,
    exchange: Exchange | None,
    teams: Sequence[str] | None,
) -> tuple[Allocated, list[TeamStatement]]:
    """The month shared out, and the statement of each team that bears something or made a call."""
    from farthing.allocate import allocate, team_statement
    from farthing.config import UNASSIGNED

    made = allocate(ledger, question, bill, exchange)
    known = set(made.teams) | {UNASSIGNED}
    if unknown := [team for team in teams or () if team not in known]:
        raise BadInput(f"--team {unknown[0]!r}: no such team; there are {', '.join(made.teams)}")
    wanted = list(teams or ()) or [team for team in made.teams if _is_told(made, team)]
    moved = changes(ledger, question)
    version = closed_as(ledger, question)
    return made, [
        team_statement(made, question, team, version=version, moved=moved.get(team)) for team in wanted
    ]


def _is_told(made: Allocated, team: str) -> bool:
    facts = made.usage.teams.get(team)
    return any(share.team == team for share in made.shares) or bool(facts and facts.calls)


def changes(ledger: Ledger, question: Question) -> dict[str, Moved]:
    """Why each team's calls cost another amount than the month before; of those that had some then."""
    from farthing.allocate import Moved, main_steps
    from farthing.why import Scenario, between_by

    first, last = question.since, question.until
    assert first
    assert last
    before = (first - timedelta(days=1)).replace(day=1), first - timedelta(days=1)
    asked = replace(question, since=None, until=None)
    found = between_by(Scenario(ledger, asked, before), Scenario(ledger, asked, (first, last)), ["team"])
    return {
        team: Moved(
            moved.from_picos, moved.to_picos, main_steps([(step.name, step.picos) for step in moved.steps])
        )
        for (team,), moved in found.items()
        if moved.from_picos
    }


def closed_as(ledger: Ledger, question: Question) -> str:
    """The month's newest closing; "" while it is open."""
    from farthing.ledger import closings

    assert isinstance(question.since, date)
    month = f"{question.since:%Y-%m}"
    own = [closing for closing in closings(ledger) if closing.period == month]
    return max(own, key=lambda closing: closing.version).id if own else ""
