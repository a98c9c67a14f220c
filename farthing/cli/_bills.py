"""What the commands over AWS bills share: reading a bill, months and spans of days, exit codes."""

from __future__ import annotations

import calendar
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from farthing.cli._app import BadInput
from farthing.cli._shared import book_of, load_config, progress

if TYPE_CHECKING:
    from farthing.aws import Access
    from farthing.statement import Statement

Cost = Annotated[
    Literal["unblended", "net", "public"],
    Parameter(help="Which amount of a line counts; net has an EDP in it."),
]
Days = tuple[date | None, date | None]  # the first and the last; None leaves an end open
Json = Annotated[bool, Parameter(name=["--json", "-j"], negative="")]


@Parameter(name="*", group=Group("Buckets", sort_key=1))
@dataclass
class Reached:
    """How s3:// paths are reached; what is left out is found as the AWS command line finds it."""

    profile: Annotated[str, Parameter(help="Named profile of the AWS configuration.")] = ""
    role_arn: Annotated[str, Parameter(help="Role to assume, in this account or another.")] = ""
    external_id: Annotated[str, Parameter(help="What the role's trust policy asks for.")] = ""
    region: Annotated[str, Parameter(help="Region of the bucket, where it is not told.")] = ""
    endpoint_url: Annotated[str, Parameter(help="Another S3 endpoint.")] = ""


def read_statement(
    files: Any, cost: Any, month: str, *, reached: Reached | None = None, days: Days | None = None
) -> Statement:
    """The bill, with a bar while a person waits for it."""
    from farthing.aws import Access
    from farthing.statement import Statement

    since, until = parse_month(month) if month else days or (None, None)
    access = Access(**vars(reached)) if reached else Access()
    if access == Access():
        access = configured(list(map(str, files)))
    with progress("decoding") as advance:
        return Statement(
            list(files), cost=cost, book=book_of(), since=since, until=until, access=access, progress=advance
        )


def configured(paths: Sequence[str]) -> Access:
    """As farthing.toml reaches the bucket, if one of its sources is in it."""
    from farthing.aws import Access, is_s3, split

    buckets = {split(path)[0] for path in paths if is_s3(path)}
    sources = load_config().sources if buckets else ()
    found = next((one for one in sources if is_s3(one.path) and split(one.path)[0] in buckets), None)
    return Access(*(getattr(found, name) for name in Access._fields)) if found else Access()


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
