"""Months closed, held against what comes out now, and listed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Cost, Json, Reached, faults, parse_month, read_statement
from farthing.cli._shared import (
    book_of,
    default_ledger,
    is_ledger,
    load_config,
    parse_assume,
    read_profiles,
    write_json,
)
from farthing.money import from_usd, show, usd

if TYPE_CHECKING:
    from farthing.cells import Question
    from farthing.close import Asked
    from farthing.config import Config
    from farthing.fx import Rates
    from farthing.ledger import Closing, Ledger
    from farthing.statement import Statement

_Month = Annotated[str, Parameter(help="2026-10.")]
_Bill = Annotated[
    list[str] | None,
    Parameter(negative="", help="The bill: files, folders or s3:// prefixes, of any months."),
]
_Fx = Annotated[Path | None, Parameter(help="Dated exchange rates; else those that farthing.toml names.")]


@Parameter(name="*")
@dataclass
class _Of:
    """Which ledger, and how its usage is read."""

    ledger: Annotated[str, Parameter(help="Ledger: a folder, or s3://BUCKET/PREFIX.")] = ""
    config: Annotated[Path | None, Parameter(help="farthing.toml: teams, currency, journal.")] = None
    assume: Annotated[list[str] | None, Parameter(negative="", help="As in reports.")] = None
    profiles: Annotated[Path | None, Parameter(help="As in reports.")] = None
    cost: Cost = "unblended"

    def settings(self) -> Config:
        return load_config(self.config)

    def opened(self) -> Ledger:
        from farthing.ledger import Ledger

        place = self.ledger or default_ledger(self.settings())
        if not is_ledger(place):
            raise BadInput(f"no ledger at {place}: run `farthing import PATH --ledger {place}` first")
        return Ledger(place)

    def question(self) -> Question:
        from farthing.cells import Question

        config = self.settings()
        return Question(
            assume=parse_assume(self.assume or ()),
            profiles={**config.profiles, **read_profiles(self.profiles)},
            book=book_of(),
            config=config,
        )

    def bills(self, files: list[str] | None, wanted: set[str], reached: Reached) -> dict[str, Statement]:
        """The bill of each of these months that the files tell of. BadInput where some of it is no number."""
        if not files:
            return {}
        whole = read_statement(files, self.cost, "", reached=reached)
        if faults(whole):
            raise BadInput("a month is not closed on a bill with such lines: mend them, or get it again")
        days = "SELECT DISTINCT strftime(day, '%Y-%m') FROM statement_lines"
        months = {month for (month,) in whole.connection.execute(days).fetchall()}
        told = sorted(months & wanted) or sorted(wanted)[-1:]  # of the last it has nothing, if of none
        return {month: read_statement(files, self.cost, month, reached=reached) for month in told}


@app.command
def close(
    month: _Month = "",
    /,
    *,
    statement: _Bill = None,
    fx: _Fx = None,
    tolerance: Annotated[str, Parameter(help="Dollars that may stay unexplained.")] = "0.01",
    allow_unexplained: Annotated[
        bool, Parameter(negative="", help="Close it whatever is unexplained.")
    ] = False,
    accrue: Annotated[
        bool,
        Parameter(negative="", help="Book what has no bill yet as it is computed, until its bill comes."),
    ] = False,
    again: Annotated[
        bool, Parameter(negative="", help="A new version of a closed month; the old one is kept.")
    ] = False,
    reason: Annotated[str, Parameter(help="Why it is closed again.")] = "",
    by: Annotated[str, Parameter(help="Who closes it; kept as given.")] = "",
    note: Annotated[str, Parameter(help="Kept as given.")] = "",
    at: Annotated[str, Parameter(help="When it is closed, 2026-11-05T09:00:00Z; else now.")] = "",
    corrections: Annotated[
        bool, Parameter(negative="", help="Show what the next close books for closed months; close nothing.")
    ] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="Show the closing, and keep nothing.")] = False,
    reached: Reached = Reached(),  # noqa: B008 - it is not changed
    of: _Of | None = None,
    json: Json = False,
) -> int:
    """Freeze a month: totals, digests, FX, residuals. What is learnt later is booked, never written over."""
    from farthing.close import Asked, Refused
    from farthing.close import close as freeze
    from farthing.ledger import closings

    of = of or _Of()
    if bool(month) == corrections:
        raise BadInput("name one: a month, as 2026-10, or --corrections")
    if month:
        _month(month)
    now = _instant(at)
    config = of.settings()
    asked = Asked(
        accrue=accrue, again=again, reason=reason, by=by, note=note, tolerance_picos=_dollars(tolerance),
        allow_unexplained=allow_unexplained, rates=_rates(fx, config), currency=config.currency,
    )  # fmt: skip
    ledger, question = of.opened(), of.question()
    closed = {closing.period for closing in closings(ledger)}
    bills = of.bills(statement, closed | ({month} if month else set()), reached)
    try:
        if corrections:
            return _corrections(ledger, question, bills, asked, json=json)
        made = freeze(ledger, month, question, bills, asked, now, dry_run=dry_run)
    except Refused as refused:
        return _refused(refused)
    _show(made, closings(ledger), done=not dry_run, json=json)
    return 0


def _corrections(
    ledger: Ledger, question: Question, bills: dict[str, Statement], asked: Asked, *, json: bool
) -> int:
    from farthing.cli._closings import booking_json, print_corrections
    from farthing.close import open_corrections

    told = replace(asked, allow_unexplained=True)
    opened, found, skipped = open_corrections(ledger, question, bills, told)
    if json:
        made = [booking_json(booking, entries=True) for booking in found]
        write_json({"month": opened, "bookings": made, "skipped": skipped})
    else:
        print_corrections(opened, found, skipped)
    return 0


def _show(closing: Closing, seen: list[Closing], *, done: bool, json: bool) -> None:
    from farthing.cli._closings import closing_json, print_closing

    if json:
        write_json({**closing_json(closing, seen), "done": done})
        return
    print_closing(closing, seen, done=done)
    if done:
        print(f"farthing export journal {closing.period} --out journal.csv")


@app.command
def audit(
    month: _Month = "",
    /,
    *,
    statement: _Bill = None,
    fx: _Fx = None,
    reached: Reached = Reached(),  # noqa: B008 - it is not changed
    of: _Of | None = None,
    json: Json = False,
) -> int:
    """Derive a closed month again, or all of them: exit code 1 where one no longer comes out, with what moved."""
    from farthing.cli._closings import audit_json, print_audit, verdict
    from farthing.close import Refused
    from farthing.close import audit as derive
    from farthing.ledger import closings

    of = of or _Of()
    if month:
        _month(month)
    ledger, question = of.opened(), of.question()
    seen = closings(ledger)
    wanted = [month] if month else sorted({closing.period for closing in seen})
    bills = of.bills(statement, set(wanted), reached) if wanted else {}
    try:
        rates = _rates(fx, of.settings())
        found = [derive(ledger, one, question, bills.get(one), rates, seen) for one in wanted]
    except Refused as refused:
        return _refused(refused)
    if json:
        write_json(audit_json(found[0]) if month else {"months": [audit_json(one) for one in found]})
    elif month:
        print_audit(found[0])
    else:
        for one in found:
            print(f"{one.month}  {one.closing:<12}{verdict(one)}")
        if not found:
            print("no month is closed yet: farthing close 2026-10")
    return int(not all(one.comes_out for one in found))


group = App(name="closings", help="The months that were closed.")
app.command(group)


@group.command(name="list")
def list_(*, of: _Of | None = None, json: Json = False) -> int:
    """Every closing: its month and version, when and by whom, computed, billed and booked."""
    from farthing.cli._closings import headline
    from farthing.ledger import closings

    seen = closings((of or _Of()).opened())
    rows = [headline(closing, seen) for closing in seen]
    if json:
        write_json({"closings": rows})
        return 0
    print(f"{'closing':<12}{'closed':<22}{'computed':>16}{'billed':>16}{'booked':>16}  by")
    for row in rows:
        amounts = "".join(
            f"{'-' if row[name] is None else show(from_usd(row[name])):>16}"
            for name in ("computed_usd", "billed_usd", "booked_usd")
        )
        accrued = "  (accrued in part or whole)" if row["accrued"] else ""
        print(f"{row['closing']:<12}{row['closed_at']:<22}{amounts}  {row['by']}{accrued}".rstrip())
    return 0


@group.command(name="show")
def show_(
    name: Annotated[str, Parameter(help="A month, 2026-10, or one version of it, 2026-10.1.")],
    /,
    *,
    keys: Annotated[
        str, Parameter(name="--by", help="KEY[,KEY...]: the closed month by team, model ...")
    ] = "",
    of: _Of | None = None,
    json: Json = False,
) -> int:
    """One closing as it was made; with --by, its tokens, list cost and what is booked."""
    from farthing.cli._closings import KEYS, summed_by
    from farthing.ledger import closings, in_full

    ledger = (of or _Of()).opened()
    seen = closings(ledger)
    names = [closing.id for closing in seen if name in (closing.id, closing.period)]
    if not names:
        known = ", ".join(closing.id for closing in seen) or "no month"
        raise BadInput(f"{name!r} is not closed; closed are {known}")
    found = in_full(ledger, names[-1])
    if not keys:
        _show(found, seen, done=True, json=json)
        return 0
    by = keys.split(",")
    if unknown := [key for key in by if key not in KEYS]:
        raise BadInput(f"--by {unknown[0]!r}: keys are {', '.join(KEYS)}")
    rows = summed_by(found, seen, by)
    if json:
        write_json({"closing": found.id, "rows": [_exact(row) for row in rows]})
        return 0
    widths = [max(len(key), *(len(row[key]) for row in rows)) + 2 for key in by]
    heads = "".join(f"{key:<{width}}" for key, width in zip(by, widths, strict=True))
    print(f"{heads}{'tokens':>18}{'computed':>18}{'booked':>18}")
    for row in rows:
        values = "".join(f"{row[key]:<{width}}" for key, width in zip(by, widths, strict=True))
        print(f"{values}{row['tokens']:>18,}{show(row['computed']):>18}{show(row['booked']):>18}")
    return 0


def _exact(row: dict[str, Any]) -> dict[str, Any]:
    amounts = {f"{name}_usd": usd(row[name]) for name in ("computed", "booked")}
    return {**{key: value for key, value in row.items() if key not in ("computed", "booked")}, **amounts}


# --- what the options mean ------------------------------------------------------------------------------------------


def _refused(refused: Exception) -> int:
    import sys

    print(f"farthing: {refused}", file=sys.stderr)
    return 1


def _month(text: str) -> None:
    try:
        parse_month(text)
    except BadInput as error:
        raise BadInput(f"{text!r} is no month: write 2026-10") from error


def _instant(text: str) -> datetime:
    if not text:
        return datetime.now(UTC)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"--at {text!r}: write 2026-11-05T09:00:00Z") from error
    return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)


def _dollars(text: str) -> int:
    try:
        return from_usd(Decimal(text))
    except (InvalidOperation, ValueError) as error:
        raise BadInput(f"--tolerance {text!r}: write dollars, such as 0.50") from error


def _rates(path: Path | None, config: Config) -> Rates | None:
    """The file of rates, where another currency than the dollar is wanted."""
    if config.currency == "USD":
        if path:
            raise BadInput(f'{path}: into which currency? write currency = "EUR" in farthing.toml')
        return None
    from farthing.fx import load

    return load(path or config.fx)
