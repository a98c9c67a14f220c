"""Closings: months as they were closed, kept beside the usage and never changed.

A closing is the rows of one commit: a head, the entries it books, and what was known of each month that it books
for (usage, bill, causes, cards). What the rows mean is `farthing.close`'s; here they are kept and read back whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.ledger._tables import CLOSINGS

if TYPE_CHECKING:
    from farthing.ledger._ledger import Ledger

HEAD, ENTRY = "head", "entry"  # parts; the others tell what was known


class Line(NamedTuple):
    """A row of a closing, under the names of its columns; what a part has no use for is empty."""

    part: str
    of: str  # the month whose money or tokens these are
    booking: str = ""  # of an entry: closing/number
    what: str = ""  # usage, accrual, reversal, correction
    ref: str = ""  # the booking that it takes back; of usage the pool that it falls in
    kind: str = ""  # usage, or as the bill has it: credit, tax ...
    day: str = ""
    account: str = ""
    team: str = ""
    platform: str = ""
    model: str = ""
    endpoint: str = ""
    zone: str = ""
    mode: str = ""
    meter: str = ""
    invoice: str = ""
    card: str = ""
    said: str = ""
    tokens: int = 0
    picos: int = 0


class Closing(NamedTuple):
    """One closing. `id` is the month and the version, as 2026-10.1; `number` counts all of a ledger in their order."""

    id: str
    number: int
    at_us: int
    said: dict[str, Any]
    lines: tuple[Line, ...]

    @property
    def period(self) -> str:
        return self.id.partition(".")[0]

    @property
    def version(self) -> int:
        return int(self.id.partition(".")[2])

    @property
    def entries(self) -> list[Line]:
        return [line for line in self.lines if line.part == ENTRY]


def digest(closing: Closing) -> str:
    """Of all that it says, in whatever order, but for teams: one may be named after somebody to be forgotten."""
    rows = sorted(_as_json(line._replace(team="")) for line in closing.lines)
    said = {key: value for key, value in closing.said.items() if key != "digest"}
    head = [closing.id, closing.number, closing.at_us, said]
    return hashlib.sha256("\n".join([_as_json(head), *rows]).encode()).hexdigest()


def closings(ledger: Ledger) -> list[Closing]:
    """All of a ledger's closings, in their order, with their entries alone."""
    return _read(ledger, f"part IN ('{HEAD}', '{ENTRY}')")


def in_full(ledger: Ledger, name: str) -> Closing:
    """One closing, with all that was known."""
    (found,) = _read(ledger, "closing = ?", name)
    return found


def _read(ledger: Ledger, test: str, *values: str) -> list[Closing]:
    if ledger.delta("closings") is None:
        return []
    names = ", ".join(f'"{name}"' for name in Line._fields[:-2])
    ledger.connection.register("all_closings", ledger.table("closings"))
    rows = ledger.connection.execute(
        f"""SELECT closing, number, epoch_us("at"), {names}, tokens, picos FROM all_closings
            WHERE {test} ORDER BY number""",
        values,
    ).fetchall()
    heads: dict[str, tuple[int, int, dict[str, Any]]] = {}
    lines: dict[str, list[Line]] = {}
    for name, number, at_us, *told in rows:
        line = Line._make([*told[:-1], int(told[-1])])
        if line.part == HEAD:
            heads[name] = number, at_us, json.loads(line.said)
        else:
            lines.setdefault(name, []).append(line)
    return [Closing(name, *head, tuple(sorted(lines.get(name, ())))) for name, head in heads.items()]


def add_closing(ledger: Ledger, closing: Closing, seen: Sequence[str]) -> bool:
    """Keep a closing, in one commit. False, and nothing kept, if the closings are no longer those it was made from."""

    def rows() -> list[tuple[Any, ...]]:
        if [found.id for found in _read(ledger, f"part = '{HEAD}'")] != list(seen):
            return []
        hidden = ledger.forgotten()  # asked for after the table was looked at: see forget
        head = Line(HEAD, closing.period, said=_as_json({**closing.said, "digest": digest(closing)}))
        lines = (line._replace(team=hidden.name(line.team)) for line in (head, *closing.lines))
        return [(closing.id, closing.number, closing.at_us, *line[:-1], str(line.picos)) for line in lines]

    return bool(ledger.add("closings", rows))


def faulty(ledger: Ledger, names: Iterable[str]) -> list[str]:
    """The closings of these names that are not as they were written."""
    found = (in_full(ledger, name) for name in names)
    return [closing.id for closing in found if digest(closing) != closing.said.get("digest")]


_as_json = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode
assert list(CLOSINGS)[3:] == list(Line._fields)
