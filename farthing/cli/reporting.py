"""Every report as a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import faults, read_statement
from farthing.cli._completing import keys
from farthing.cli._currency import InCurrency
from farthing.cli._engine import OnEngine
from farthing.cli._offered import ByOffers
from farthing.cli._shared import OUTPUT, Asked, default_ledger, is_ledger, ledger_to_read

if TYPE_CHECKING:
    from farthing.reports import Report

_CCUSAGE = Group("Accepted for those who come from ccusage", sort_key=3)


# --- reports: one command each --------------------------------------------------------------------


@Parameter(name="*")
@dataclass
class FromCcusage:
    """Options that ccusage users type. What they ask for is so already, or there is nothing to choose."""

    mode: Annotated[
        Literal["auto", "calculate", "display"], Parameter(group=_CCUSAGE, help="Always calculated.")
    ] = "auto"
    offline: Annotated[bool, Parameter(name=["--offline", "-O"], group=_CCUSAGE, help="Always offline.")] = (
        True
    )
    compact: Annotated[bool, Parameter(negative="", group=_CCUSAGE, help="Tables fit the terminal.")] = False
    locale: Annotated[str, Parameter(name=["--locale", "-l"], group=_CCUSAGE, help="Dates are ISO.")] = ""
    project: Annotated[
        str,
        Parameter(name=["--project", "-p"], group=_CCUSAGE, help="Only this project, as --where project=..."),
    ] = ""


_HINTS: dict[str, Any] = {
    "keys": Annotated[list[str], Parameter(help="KEY[,KEY...]: what to group by.", completer=keys)],
    "breakdown": Annotated[
        bool, Parameter(name=["--breakdown", "-b"], negative="", group=OUTPUT, help="Rows by model too.")
    ],
    "order": Annotated[
        Literal["asc", "desc"], Parameter(name=["--order", "-o"], group=OUTPUT, help="Of the rows.")
    ],
    "month": Annotated[str, Parameter(help="The month, 2026-12; the present one if left out.")],
    "by": Annotated[str, Parameter(help="KEY[,KEY...]: what to tell apart.")],
    "minimum": Annotated[int, Parameter(help="Dollars an hour; less than that is no news.")],
    "seconds": Annotated[int, Parameter(group=OUTPUT, help="How far apart in time two records may be.")],
    "teams": Annotated[bool, Parameter(negative="", group=OUTPUT, help="What saw each team's calls too.")],
    "settle": Annotated[
        bool, Parameter(negative="", group=OUTPUT, help="Make each pair one call, now and for later imports.")
    ],
}
_STATEMENT = Annotated[
    list[str] | None,
    Parameter(
        group=OUTPUT,
        negative="",
        help="An AWS bill: what was billed stands beside, or alone where no ledger is.",
    ),
]
BESIDE_A_BILL = ("bill", "levers")
_OVER_TIME = ("daily", "weekly", "monthly", "session")
WITH_CONTRACTS = ("bill", "by", *_OVER_TIME)  # whose costs private offers stand beside


def _command(made: Report) -> Callable[..., int]:
    """A report as a command: its own parameters, then those that all reports share."""
    own = [
        p for p in inspect.signature(made.make).parameters.values() if p.name not in ("ledger", "question")
    ]

    def run(
        *args: Any,
        asked: Asked | None = None,
        ccusage: FromCcusage | None = None,
        statement: list[str] | None = None,
        money: InCurrency | None = None,
        offers: ByOffers | None = None,
        engine: OnEngine | None = None,
        **kwargs: Any,
    ) -> int:
        asked, money, engine = asked or Asked(), money or InCurrency(), engine or OnEngine()
        if statement and engine.engine != "duckdb":
            raise BadInput("--engine: a bill stands beside what this process sums; leave one of them out")
        if statement and money.currency:
            raise BadInput("--currency: a bill stands beside the report in USD only; leave one of them out")
        if statement:
            return _beside_a_bill(made, asked, statement, offers or ByOffers())
        values = dict(zip((p.name for p in own), args, strict=False)) | kwargs
        if "keys" in values:
            values["keys"] = [key for text in values["keys"] for key in text.split(",") if key]
        if ccusage and ccusage.project:
            asked = replace(asked, where=[*(asked.where or ()), f"project=*{ccusage.project}*"])
        question = (offers or ByOffers()).asked(asked.question())
        with ledger_to_read(asked.ledger, question.config) as ledger, engine.summing(ledger):
            return asked.answer(money.table(made, ledger, question, values), ledger, question)

    parameters = [
        inspect.Parameter(
            p.name,
            p.POSITIONAL_OR_KEYWORD if p.default is p.empty else p.KEYWORD_ONLY,
            annotation=_HINTS.get(p.name, p.annotation),
            default=p.default,
        )
        for p in own
    ]
    shared: dict[str, Any] = {"asked": Asked | None, "engine": OnEngine | None}
    shared |= {"money": InCurrency | None} if made.adds_up else {}
    shared |= {"offers": ByOffers | None} if made.name in WITH_CONTRACTS else {}
    shared |= {"ccusage": FromCcusage | None} if made.name in _OVER_TIME else {}
    shared |= {"statement": _STATEMENT} if made.name in BESIDE_A_BILL else {}
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=None)
        for name, kind in shared.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__ = made.says
    return run


def _beside_a_bill(made: Report, asked: Asked, files: list[str], offers: ByOffers) -> int:
    """The report of what was billed, beside that of the ledger's usage of the same UTC days if there is a ledger."""
    from farthing.billed import BESIDE

    if asked.where or asked.shared:
        raise BadInput("--statement compares whole accounts and names them: leave out --where and --shared")
    question = offers.asked(asked.question())
    billed = read_statement(files, "unblended", "", days=(question.since, question.until))
    alone, beside = BESIDE[made.name]
    if not is_ledger(asked.ledger or default_ledger(question.config)) and not asked.ledger:
        return asked.answer(alone(billed)) or faults(billed)
    days = [line.day for line in billed.billed]
    question = replace(
        question,
        tz="UTC",
        since=question.since or min(days, default=None),
        until=question.until or max(days, default=None),
    )
    with ledger_to_read(asked.ledger, question.config) as ledger:
        return asked.answer(beside(made.make(ledger, question), billed), ledger, question) or faults(billed)


def _add_reports() -> None:
    from farthing.reports import REPORTS

    for made in REPORTS.values():
        app.command(_command(made), name=made.name)


_add_reports()
