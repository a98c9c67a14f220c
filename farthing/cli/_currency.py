"""Reports in another currency than dollars: the options, and what holds where they are left out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farthing.cli._app import BadInput
from farthing.cli._shared import OUTPUT

if TYPE_CHECKING:
    from farthing.allocate import Exchange
    from farthing.cells import Question
    from farthing.config import Config
    from farthing.fx import Rates
    from farthing.ledger import Ledger
    from farthing.reports import Report, Table


@Parameter(name="*")
@dataclass
class InCurrency:
    """Which currency amounts are shown in, and by which rates."""

    currency: Annotated[str, Parameter(group=OUTPUT, help="As EUR; by the rates of --fx.")] = ""
    fx: Annotated[Path | None, Parameter(group=OUTPUT, help="Dated rates: CSV or TOML.")] = None

    def rates(self, config: Config) -> tuple[Rates, str] | None:
        """The rates and the currency; None for dollars. What is not said is as farthing.toml says."""
        from farthing.fx import load

        currency = self.currency or config.currency
        path = self.fx or config.fx
        if currency == "USD":
            return None
        if not path:
            raise BadInput(
                f'--currency {currency} needs rates: add --fx FILE, or fx = "..." to farthing.toml'
            )
        return load(path), currency

    def exchange(self, config: Config) -> Exchange | None:
        from farthing.allocate import Exchange

        wanted = self.rates(config)
        return Exchange(*wanted) if wanted else None

    def table(self, made: Report, ledger: Ledger, question: Question, values: dict[str, Any]) -> Table:
        """A report, in the currency if it can be."""
        from farthing.reports import ConvertError, in_currency

        wanted = self.rates(question.config)
        if wanted:
            try:
                return in_currency(made, ledger, question, *wanted, **values)
            except ConvertError as error:
                if self.currency:
                    raise BadInput(str(error)) from error
                print(f"farthing: {error}", file=sys.stderr)
        return made.make(ledger, question, **values)
