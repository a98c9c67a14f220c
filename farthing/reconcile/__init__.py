"""Ours against AWS's, to the picodollar: every dollar of the difference has a name.

For each day, account, model, endpoint, mode, prompt band and meter: billed - ours = (their tokens - our tokens) at the
book's rate, plus what their tokens cost beyond that rate. The first part is quantity, the second is price; both are
then given causes, and what has none is unexplained. Days are UTC, as AWS bills them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from farthing.cells import Question, at_list
from farthing.ledger import Ledger
from farthing.offers import Offer
from farthing.reconcile._causes import Cause, Causes
from farthing.reconcile._control import Control, Count
from farthing.reconcile._prices import name_prices
from farthing.reconcile._quantities import Bill, Quantities
from farthing.reconcile._sides import Grain, Place, Seen, Side, both_sides
from farthing.reconcile._tables import KEYS, Row, by, check_keys, total
from farthing.statement import Statement

__all__ = [
    "KEYS",
    "Cause",
    "Count",
    "Place",
    "Reconciled",
    "Row",
    "Side",
    "by",
    "check_keys",
    "reconcile",
    "total",
]


@dataclass
class Reconciled:
    """billed - ours = sum of explained + unexplained, exactly. `control` has CloudWatch's tokens beside both."""

    ours_picos: int
    billed_picos: int
    explained: list[Cause]
    unexplained: list[Cause]
    control: list[Count]
    notes: list[str]
    sides: dict[Place, Side] = field(repr=False)

    @property
    def difference_picos(self) -> int:
        return self.billed_picos - self.ours_picos

    @property
    def unexplained_picos(self) -> int:
        return sum(cause.picos for cause in self.unexplained)

    @property
    def unexplained_gross_picos(self) -> int:
        """Too much here does not make up for too little there."""
        return sum(abs(cause.picos) for cause in self.unexplained)


def reconcile(
    statement: Statement, ledger: Ledger, question: Question, offers: Sequence[Offer] = ()
) -> Reconciled:
    """The bill against the ledger, both of the same days. The parts sum to the difference, or this raises.

    With `offers`, which are those of the question's book if left out, ours is what the tokens cost at the rates agreed
    with each account.
    """
    offers, question = offers or question.book.offers, at_list(question)
    grain = Grain(statement)
    sides, seen = both_sides(statement, ledger, question, grain, offers)
    causes = Causes()
    name_prices(sides, statement.book, causes)
    control = Control(sides, ledger, question, grain)
    bill = Bill.of(sides, statement, grain)
    Quantities(sides, seen, bill, control, causes).name(ledger, question, grain)
    billed = sum(side.theirs_picos for side in sides.values())
    for unknown in statement.undecoded:
        causes.add("unknown SKU, not decoded", f"{unknown.usage_type}: {unknown.why}", unknown.picos, 1)
        billed += unknown.picos
    for entry in statement.apart:
        causes.add(f"apart: {entry.kind}", entry.account, entry.picos, entry.lines)
        billed += entry.picos
    ours = sum(side.ours_picos for side in sides.values())
    assert causes.picos == billed - ours, (causes.picos, billed - ours)
    notes = list(_notes(ledger, question, bill, seen))
    return Reconciled(ours, billed, causes.explained, causes.unexplained, control.counts(), notes, sides)


def _notes(ledger: Ledger, question: Question, bill: Bill, seen: Seen) -> Iterator[str]:
    """What a reader should know of how far each side reaches."""
    span = f"of {question.since} to {question.until}" if question.since else "in it"
    if seen.last is None:
        used = ledger.days()
        days = [f"{used[0]:%Y-%m-%d}", f"{used[1] - timedelta(days=1):%Y-%m-%d}"] if used else []
        holds = f"its usage is of {' to '.join(days)}" if days else "it is empty"
        yield f"the ledger has nothing of Bedrock {span}: {holds}"
    elif bill.last and bill.last < seen.last:
        yield (
            f"the bill ends on {bill.last}, the ledger on {seen.last}: what is later is not billed yet, "
            "or a newer delivery has it"
        )
