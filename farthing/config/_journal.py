"""Values of [journal] that cannot be."""

from __future__ import annotations

import re
from collections.abc import Iterator

from farthing.config._shape import Fault
from farthing.config._tables import Config

_KIND = re.compile(r"(\w+/)?\w+")


def check_journal(config: Config) -> Iterator[Fault]:
    """Cost centres that are not in the list, where there is one; GL codes that are empty, or by no kind."""
    said = config.journal
    if said.debit and not said.credit:
        yield Fault(
            ("journal", "debit"),
            "`credit` is missing: the account that the other side of a line is booked on",
        )
    for kind, code in said.codes.items():
        if not _KIND.fullmatch(kind):
            yield Fault(
                ("journal", "codes", kind), f"{kind!r} is no kind: write usage, tax, or anthropic/usage"
            )
        if not code.strip():
            yield Fault(("journal", "codes", kind), "is empty: write a GL code")
    if not said.cost_centres:
        return
    known = ", ".join(said.cost_centres)
    named: dict[tuple[str, ...], str] = {("journal", "cost_centre"): said.cost_centre}
    named |= {("teams", name, "cost_centre"): team.cost_centre for name, team in config.teams.items()}
    for place, centre in named.items():
        if centre and centre not in said.cost_centres:
            yield Fault(place, f"unknown cost centre {centre!r}: known are {known} (journal.cost_centres)")
