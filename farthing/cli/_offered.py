"""The option of reports that private offers stand beside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from farthing.cli._shared import OUTPUT

if TYPE_CHECKING:
    from farthing.cells import Question


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
        return replace(question, config=msgspec.structs.replace(question.config, contracts=contracts))
