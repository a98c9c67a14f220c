"""What a team is told of its month: what it bears and why. No names of people are in it, in any form."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from farthing.allocate._bill import NOT_SEEN
from farthing.allocate._divide import Exchange, Money
from farthing.allocate._pools import DIRECT, Share
from farthing.config import Pool, Team
from farthing.fx import amount
from farthing.money import usd
from farthing.reports import OFFER_STEPS, STEPS, inert

_AVOIDED = (
    ("Prompt caching, after what its writes cost more", ("cache_writes", "cache_reads")),
    ("Batch", ("batch",)),
)
_MAIN_STEPS = 6


class Part(NamedTuple):
    """Something that the team pays for: how much of how much, and by which rule."""

    name: str
    says: str
    money: Money
    whole: Money


class Model(NamedTuple):
    name: str
    calls: int
    tokens: int
    money: Money


class Moved(NamedTuple):
    """The team's calls of the month before, and why this month's cost another amount; in dollars."""

    before: int
    after: int
    steps: list[tuple[str, int]]


@dataclass
class TeamStatement:
    team: str
    month: str
    said: Team
    version: str  # of the month's closing; "" while it is open
    is_billed: bool
    money: Money
    parts: list[Part]
    models: list[Model]
    days: list[tuple[str, Money]]
    layers: list[tuple[str, Money]]
    avoided: list[tuple[str, Money]]  # above 0: it was saved
    moved: Moved | None
    notes: list[str]
    shares: list[Share] = field(repr=False)
    exchange: Exchange | None = None

    @property
    def currency(self) -> str:
        return self.exchange.currency if self.exchange else "USD"

    def show(self, money: Money) -> str:
        """An amount in the statement's currency."""
        return amount(money.other, self.currency) if self.exchange else amount(money.picos)

    def size(self, money: Money) -> int:
        return money.other if self.exchange else money.picos


def parts_of(
    team: str, shares: Sequence[Share], wholes: Mapping[str, Money], pools: Sequence[tuple[Pool, str]]
) -> list[Part]:
    """The team's parts, its own calls first, then pools in their order, then the rest of the bill."""
    sums: dict[str, Money] = defaultdict(Money)
    for share in shares:
        if share.team == team:
            sums[share.part] += share.money
    says = {DIRECT: "your own calls"} | {pool.name: said for pool, said in pools}
    says[NOT_SEEN] = "billed to the accounts of your team, and in none of our logs"
    order = [*says, *sorted(set(sums) - set(says))]
    rest = "on the bill, for the accounts of your team"
    return [
        Part(name.replace("_", " "), says.get(name, rest), sums[name], wholes[name])
        for name in order
        if name in sums
    ]


def layers_of(said: Mapping[str, Money]) -> list[tuple[str, Money]]:
    """From list price to what the team's own calls were computed to cost."""
    found = [
        (label, said[step]) for step, label in (*STEPS, *OFFER_STEPS) if step in said and any(said[step])
    ]
    return [*found, ("Comes to", sum(said.values(), Money()))] if found else []


def avoided_of(said: Mapping[str, Money]) -> list[tuple[str, Money]]:
    """What its own calls would have cost more, had they not been cached and not been sent as a batch."""
    found = []
    for label, steps in _AVOIDED:
        total = sum((said[step] for step in steps if step in said), Money())
        if any(total):
            found.append((label, Money(-total.picos, -total.other)))
    return found


def main_steps(steps: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """The largest steps in their order, and the sum of the rest."""
    largest = sorted(steps, key=lambda step: -abs(step[1]))[:_MAIN_STEPS]
    rest = sum(picos for name, picos in steps if (name, picos) not in largest)
    return [step for step in steps if step in largest] + ([("all else", rest)] if rest else [])


_COLUMNS = ("team", "month", "cost_centre", "part", "day", "model", "usd")


def to_csv(statements: Sequence[TeamStatement]) -> str:
    """A line a team, part, day and model, exact; they sum to what each team bears."""
    exchange = statements[0].exchange if statements else None
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_COLUMNS, *([exchange.currency.lower()] if exchange else [])])
    for made in statements:
        for share in sorted(made.shares, key=lambda share: (share.part != DIRECT, *share[:4])):
            amounts = [usd(share.money.picos), *([usd(share.money.other)] if exchange else [])]
            words = (made.team, made.month, made.said.cost_centre, share.part, share.day, share.model)
            writer.writerow([*map(inert, words), *amounts])
    return out.getvalue()


def to_json(made: TeamStatement) -> dict[str, Any]:
    """The statement, amounts exact."""

    def both(money: Money) -> dict[str, str]:
        dollars = {"usd": usd(money.picos)}
        return dollars | ({made.currency.lower(): usd(money.other)} if made.exchange else {})

    moved = made.moved
    return {
        "team": made.team,
        "month": made.month,
        "owner": made.said.owner,
        "cost_centre": made.said.cost_centre,
        "closing": made.version,
        "billed": made.is_billed,
        **both(made.money),
        "parts": [{"part": part.name, "says": part.says, **both(part.money)} for part in made.parts],
        "models": [
            {"model": model.name, "calls": model.calls, "tokens": model.tokens, **both(model.money)}
            for model in made.models
        ],
        "days": [{"day": day, **both(money)} for day, money in made.days],
        "layers": [{"step": label, **both(money)} for label, money in made.layers],
        "avoided": [{"by": label, **both(money)} for label, money in made.avoided],
        "change": moved
        and {
            "from_usd": usd(moved.before),
            "to_usd": usd(moved.after),
            "steps": [{"name": name, "usd": usd(picos)} for name, picos in moved.steps],
        },
        "notes": made.notes,
    }
