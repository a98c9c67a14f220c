"""`farthing report`: a month on one page, as a file that mails and prints, or as PDF."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Reached, faults, parse_month, read_statement
from farthing.cli._currency import InCurrency
from farthing.cli._shared import OUTPUT, Asked, ledger_to_read, write_json

if TYPE_CHECKING:
    from farthing.cells import Question
    from farthing.ledger import Ledger
    from farthing.statement import Statement
    from farthing.web._page import View

_DAY = timedelta(days=1)


@app.command
def report(
    *,
    html: Annotated[
        bool, Parameter(negative="", group=OUTPUT, help="One page of HTML; what is made if nothing is said.")
    ] = False,
    pdf: Annotated[
        bool, Parameter(negative="", group=OUTPUT, help="PDF, where Chromium is installed.")
    ] = False,
    month: Annotated[str, Parameter(help="2026-10; the last that has usage, if no days are said.")] = "",
    team: Annotated[
        list[str] | None, Parameter(negative="", help="Of this team alone; may be repeated.")
    ] = None,
    statement: Annotated[
        list[str] | None, Parameter(negative="", help="The AWS bill, to tell what of it is explained.")
    ] = None,
    savings: Annotated[
        bool, Parameter(help="Look for savings too: of all that is there it takes longest.")
    ] = True,
    out: Annotated[
        str,
        Parameter(
            group=OUTPUT,
            allow_leading_hyphen=True,
            help="The file; - is stdout. Else farthing-MONTH.html, or .pdf, here.",
        ),
    ] = "",
    money: InCurrency | None = None,
    asked: Asked | None = None,
    reached: Reached | None = None,
) -> int:
    """A month on one page: bill, days, teams, savings, what is not certain. It runs nothing and asks for nothing."""
    from farthing.cells import cells
    from farthing.web import _report

    asked, money = asked or Asked(), money or InCurrency()
    _check(asked, month, out, pdf=pdf)
    question = asked.question()
    with ledger_to_read(asked.ledger, question.config) as ledger:
        question = _of_days(ledger, question, month)
        bill = read_statement(statement, "unblended", "", reached=reached, days=(question.since, question.until)) \
            if statement else None  # fmt: skip
        view = _view(ledger, question, team or (), bill, money)
        if not cells(ledger, view.question):
            raise BadInput(f"no usage in {_report.days(view)} that fits: the ledger has {_used(ledger)}")
        made = _report.month(view, advised=savings)
        code = faults(bill) if bill else 0
        if asked.json:
            write_json(_report.to_json(made))
            return code
        page = _report.to_html(made)
    name = re.sub(r"[^\w.-]+", "-", "-".join(["farthing", _span(question), *(team or ())]))
    for form in ["html"] * (html or not pdf) + ["pdf"] * pdf:
        path = Path(out or f"{name}.{form}")
        _write(path.with_suffix(f".{form}") if html and pdf else path, page, form)
    return code


def _check(asked: Asked, month: str, out: str, *, pdf: bool) -> None:
    """What cannot be, told before anything is read."""
    if asked.csv or asked.shared:
        raise BadInput(
            "--csv: each report has its own, as `farthing bill --csv`" if asked.csv
            else "--shared: advice names the roles that call; share single reports, as `farthing by team --shared`"
        )  # fmt: skip
    if month and (asked.since or asked.until):
        raise BadInput("--month, --since, --until: say the month or the days")
    if pdf:
        from farthing.cli._pdf import browser

        browser()
        if out == "-":
            raise BadInput("--out -: a PDF goes into a file; name it")


def _of_days(ledger: Ledger, question: Question, month: str) -> Question:
    """The question of a month, or of the days that were said; BadInput where there is nothing in them."""
    used = ledger.days()
    if used is None:
        raise BadInput("no usage in the ledger: run `farthing import PATH` first")
    first, last = used[0].date(), used[1].date() - _DAY
    if month:
        since, until = parse_month(month)
    elif question.since or question.until:
        since, until = question.since or first, question.until or max(last, question.since or last)
    else:
        since, until = parse_month(f"{last:%Y-%m}")
    if since > until:
        raise BadInput(f"--since {since} is after --until {until}: turn them round")
    return replace(question, since=since, until=until)


def _used(ledger: Ledger) -> str:
    used = ledger.days()
    return f"{used[0]:%Y-%m-%d} to {used[1] - _DAY:%Y-%m-%d}" if used else "none"


def _view(
    ledger: Ledger,
    question: Question,
    teams: tuple[str, ...] | list[str],
    bill: Statement | None,
    money: InCurrency,
) -> View:
    from farthing.cells import Where, cells
    from farthing.policy import default_path
    from farthing.web._page import View

    if teams:
        known = sorted({str(cell.keys[0]) for cell in cells(ledger, question, ("team",))})
        if unknown := [team for team in teams if team not in known]:
            raise BadInput(f"--team {unknown[0]!r}: no usage of it; there are {', '.join(known)}")
        question = replace(question, where=(*question.where, Where("team", tuple(teams))))
    rates, currency = money.rates(question.config) or (None, "USD")
    return View(
        ledger, question, datetime.now(UTC), rates=rates, currency=currency, statement=lambda: bill,
        policy=str(default_path(question.config)), scope=tuple(teams),
    )  # fmt: skip


def _span(question: Question) -> str:
    """The days, in the name of a file."""
    first, last = question.since, question.until
    assert isinstance(first, date)
    assert isinstance(last, date)
    return f"{first:%Y-%m}" if parse_month(f"{first:%Y-%m}") == (first, last) else f"{first}..{last}"


def _write(path: Path, page: str, form: str) -> None:
    from farthing.cli._pdf import to_pdf

    if str(path) == "-":
        sys.stdout.write(page)
        return
    data = to_pdf(page) if form == "pdf" else page.encode()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise BadInput(f"--out {path}: {error.strerror}") from error
    print(f"written to {path}", file=sys.stderr)
