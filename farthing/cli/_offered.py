"""Private offers in commands: the option of those that have them beside list, and what every command says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farthing.cli._shared import OUTPUT
from farthing.money import usd

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


def taken_off(ledger: Ledger, question: Question) -> dict[str, Any]:
    """What offers took off the list price of the question's usage, in picodollars; empty where there are none.

    Of a command that is no report, which has it in its footer.
    """
    from farthing import costs
    from farthing.cells import cells

    return costs.taken_off(question.book, cells(ledger, question) if question.book.offers else ()) or {}


def offers_json(taken: Mapping[str, Any]) -> dict[str, Any]:
    """To put beside the rest of an answer."""
    if not taken:
        return {}
    return {"offers": {**taken, "list_usd": usd(taken["list_usd"]), "off_usd": usd(taken["off_usd"])}}


def print_offers(taken: Mapping[str, Any], before: str = "") -> None:
    from farthing.costs import off_sentence

    if taken:
        print(f"{before}{off_sentence(taken)}")
