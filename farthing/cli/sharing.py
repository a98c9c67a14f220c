"""The bill shared out: what each team bears, what each is told of it, and by mail."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Reached, faults
from farthing.cli._currency import InCurrency
from farthing.cli._offered import beside_calls
from farthing.cli._shared import Asked, default_ledger, is_ledger, ledger_to_read, write_json
from farthing.cli._sharing import Bill, Month, Teams, question_of, statements

if TYPE_CHECKING:
    from farthing.allocate import TeamStatement
    from farthing.config import Smtp
    from farthing.ledger import Ledger

send = App(name="send", help="Messages that leave the machine.")
app.command(send)


@app.command
def allocate(
    *,
    month: Month,
    bill: Bill | None = None,
    money: InCurrency | None = None,
    asked: Asked | None = None,
    reached: Reached | None = None,
) -> int:
    """The bill shared out: each team's own calls and part of each pool, and what is nobody's. It sums to the bill."""
    from farthing.allocate import allocate as share
    from farthing.allocate import table

    asked, money, bill = asked or Asked(), money or InCurrency(), bill or Bill()
    question = question_of(asked, month)
    exchange = money.exchange(question.config)
    statement = bill.read(month, reached)
    with ledger_to_read(asked.ledger, question.config) as ledger:
        made = share(ledger, question, statement, exchange)
        if not statement:
            made.notes += beside_calls(ledger, question)
        code = asked.answer(table(made, ledger, question), ledger, question)
    return (faults(statement) if statement else 0) or code


# --- statements ----------------------------------------------------------------------------------------------------

Form = Literal["terminal", "csv", "html"]


@app.command(name="team-statements")
def team_statements(
    *,
    month: Month,
    team: Teams = None,
    format_: Annotated[
        Form, Parameter(name="--format", help="Of what is printed, or written to --out.")
    ] = "terminal",
    out: Annotated[Path | None, Parameter(help="A folder for one file a team.")] = None,
    bill: Bill | None = None,
    money: InCurrency | None = None,
    asked: Asked | None = None,
    reached: Reached | None = None,
) -> int:
    """What each team bears of a month, and why: a statement each. It names no people."""
    from farthing.allocate import to_json

    asked, money, bill = asked or Asked(), money or InCurrency(), bill or Bill()
    question = question_of(asked, month)
    form = "csv" if asked.csv else format_
    if form == "html" and not out and len(team or ()) != 1:
        raise BadInput("--format html: name the folder for the pages, --out DIR, or one --team")
    exchange = money.exchange(question.config)
    statement = bill.read(month, reached)
    with ledger_to_read(asked.ledger, question.config) as ledger:
        _, found = statements(ledger, question, statement, exchange, team)
    if asked.json:
        write_json({"month": month, "statements": [to_json(made) for made in found]})
    elif out:
        _write(found, form, out)
    else:
        sys.stdout.write(_rendered(found, form))
    if not found:
        print(f"farthing: no team bears anything of {month}", file=sys.stderr)
    return faults(statement) if statement else 0


def _rendered(found: Sequence[TeamStatement], form: Form) -> str:
    from farthing.allocate import to_csv, to_html, together

    return {"csv": to_csv, "html": lambda made: "".join(map(to_html, made)), "terminal": together}[form](
        found
    )


def _write(found: Sequence[TeamStatement], form: Form, folder: Path) -> None:
    from farthing.allocate import name_of

    suffix = {"csv": ".csv", "html": ".html", "terminal": ".txt"}[form]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for made in found:
            path = folder / name_of(made.team, made.month, made.version, suffix)
            path.write_text(_rendered([made], form), encoding="utf-8")
            print(f"{path}: {made.show(made.money)}")
    except OSError as error:
        raise BadInput(f"{error.filename or folder}: {error.strerror or error}") from error


# --- by mail -------------------------------------------------------------------------------------------------------


@send.command(name="statements")
def send_statements(
    *,
    month: Month,
    team: Teams = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Say who would get what; send nothing.")] = False,
    again: Annotated[bool, Parameter(negative="", help="Also to who has it already.")] = False,
    bill: Bill | None = None,
    money: InCurrency | None = None,
    asked: Asked | None = None,
    reached: Reached | None = None,
) -> int:
    """Each team's statement to the `email` of its team, by [smtp] of farthing.toml, once a month and closing.

    Exit 1 if a team that bears something has no email, 2 if a mail did not go.
    """
    from farthing.config import UNASSIGNED

    asked, money, bill = asked or Asked(), money or InCurrency(), bill or Bill()
    question = question_of(asked, month)
    if asked.json or asked.csv:
        raise BadInput("--json, --csv: `farthing team-statements` writes them; this sends them")
    smtp = question.config.smtp
    if not smtp.host and not dry_run:
        raise BadInput("no mail server: add [smtp] with host and sender to farthing.toml")
    named = asked.ledger or default_ledger(question.config)
    if not is_ledger(named):
        raise BadInput(f"no ledger at {named}: run `farthing sync` first")
    exchange = money.exchange(question.config)
    statement = bill.read(month, reached)
    codes = [faults(statement) if statement else 0]
    with ledger_to_read(named, question.config) as ledger:
        _, found = statements(ledger, question, statement, exchange, team)
        for made in found:
            if made.team == UNASSIGNED:
                print(f"{made.team}: {made.show(made.money)} is nobody's, so nobody is told")
            else:
                codes.append(_send(ledger, made, smtp, dry_run=dry_run, again=again))
    return max(codes)


def _send(ledger: Ledger, made: TeamStatement, smtp: Smtp, *, dry_run: bool, again: bool) -> int:
    from farthing.allocate import SENT, Record, month_name, name_of, to_csv, to_html, to_text
    from farthing.notify import NotifyError, mail

    to = [address.strip() for address in made.said.email.split(",") if address.strip()]
    if not to:
        print(
            f"farthing: {made.team}: has no email in farthing.toml; {made.show(made.money)} untold",
            file=sys.stderr,
        )
        return 1
    what = f"{made.team}: {made.show(made.money)} to {', '.join(to)}"
    record = Record(ledger, made.team, made.month, made.version)
    state, at = record.read()
    if state and not again:
        print(f"{what}: {_was(state == SENT, at)}")
        return 0 if state == SENT else 2
    subject = f"Claude on Bedrock, {month_name(made.month)}: {made.show(made.money)} ({made.team})"
    if dry_run:
        print(f"{what}: would be sent, as {subject!r}")
        return 0
    if not record.begin(datetime.now(UTC), again=again):
        print(f"{what}: {_was(False, 'now, by another process')}")
        return 0
    attached = {name_of(made.team, made.month, made.version, ".csv"): to_csv([made]).encode()}
    try:
        mail(smtp, to, subject, to_text(made), to_html(made), attached)
    except NotifyError as error:
        record.failed()
        print(f"farthing: {made.team}: {error}", file=sys.stderr)
        return 2
    record.done(datetime.now(UTC))
    print(f"{what}: sent")
    return 0


def _was(is_sent: bool, at: str) -> str:
    return (
        f"was sent at {at}"
        if is_sent
        else f"was being sent at {at}, and may have arrived: --again sends it again"
    )
