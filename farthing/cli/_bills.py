"""What the commands over AWS bills share: reading a bill, months and spans of days, exit codes."""

from __future__ import annotations

import calendar
import re
import sys
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from farthing.cli._app import BadInput

if TYPE_CHECKING:
    from farthing.statement import Statement

Cost = Annotated[
    Literal["unblended", "net", "public"],
    Parameter(help="Which amount of a line counts; net has an EDP in it."),
]
Json = Annotated[bool, Parameter(name=["--json", "-j"], negative="")]


def read_statement(files: Any, cost: Any, month: str) -> Statement:
    from farthing.statement import Statement

    since, until = parse_month(month) if month else (None, None)
    return Statement(list(files), cost=cost, since=since, until=until)


def parse_month(text: str) -> tuple[date, date]:
    match = re.fullmatch(r"(\d{4})-(\d\d)", text)
    if not match or not 1 <= int(match[2]) <= 12:
        raise BadInput(f"--month {text!r}: write 2026-10")
    year, month = int(match[1]), int(match[2])
    return date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])


def faults(found: Statement) -> int:
    for line in found.loaded.bad:
        print(f"farthing: {line}", file=sys.stderr)
    return 2 if found.loaded.bad else 0


def parse_days(text: str, option: str) -> tuple[date, date]:
    first, is_span, last = text.partition("..")
    try:
        if not is_span:
            return parse_month(text)
        days = date.fromisoformat(first), date.fromisoformat(last)
    except (BadInput, ValueError) as error:
        raise BadInput(
            f"{option} {text!r}: write a month, 2026-09, or days, 2026-09-01..2026-09-15"
        ) from error
    if days[0] > days[1]:
        raise BadInput(f"{option} {text!r}: the first day is after the last")
    return days
