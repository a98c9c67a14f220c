"""Private offers in commands: the option of those that have them beside list, and what every command says of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farthing.cli._shared import OUTPUT
from farthing.money import show, usd

if TYPE_CHECKING:
    from farthing.cells import Question
    from farthing.ledger import Ledger


@Parameter(name="*")
@dataclass
class ByOffers:
    """Which private offers hold."""

    contract: Annotated[
        list[Path] | None,
        Parameter(
            group=OUTPUT, negative="", help="Private offers, TOML; those of farthing.toml if left out."
        ),
    ] = None

    def asked(self, question: Question) -> Question:
        """The question, with these offers instead of those of farthing.toml."""
        import msgspec

        if not self.contract:
            return question
        contracts = tuple(map(str, self.contract))
        config = msgspec.structs.replace(question.config, contracts=contracts)
        return replace(question, book=question.book.listed, config=config)


def taken_off(ledger: Ledger, question: Question, models: Collection[str] = ()) -> dict[str, Any]:
    """What offers took off the list price of the question's usage, in picodollars; empty where there are none.

    Of a command that is no report, which has it in its footer. `models` leaves out the usage of others.
    """
    from farthing import costs
    from farthing.book import Resolved
    from farthing.cells import cells

    found = cells(ledger, question) if question.book.offers else ()
    if models:
        found = [one for one in found if isinstance(one.sku, Resolved) and one.sku.sku.model in models]
    return costs.taken_off(question.book, found) or {}


def beside_calls(ledger: Ledger, question: Question) -> list[str]:
    """A note of what commitments and volume tiers came to in the days asked for, where a command has calls alone."""
    from farthing import costs

    back, short = costs.due(ledger, question, datetime.now(UTC).date())
    if not back and not short:
        return []
    said = f"{show(short)} of shortfalls fell due and {show(back)} came back by volume tiers"
    return [f"of private offers {said}: of no call, and not in it; farthing contract"]


def offers_json(taken: Mapping[str, Any]) -> dict[str, Any]:
    """To put beside the rest of an answer."""
    if not taken:
        return {}
    return {"offers": {**taken, "list_usd": usd(taken["list_usd"]), "off_usd": usd(taken["off_usd"])}}


def print_offers(taken: Mapping[str, Any], before: str = "") -> None:
    from farthing.costs import off_sentence

    if taken:
        print(f"{before}{off_sentence(taken)}")
