"""What commands share that work before the first call: the options of a workload, asking AWS to count, texts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from farthing.cli._app import BadInput

if TYPE_CHECKING:
    from farthing.book import Book
    from farthing.estimate import Workload

TextList = list[str] | None
WORK = Group("Workload", sort_key=1)
_AWS = Group("AWS", sort_key=3)
Online = Annotated[
    bool,
    Parameter(
        negative="", group=_AWS, help="Ask AWS's CountTokens; free of charge, and the text goes to AWS."
    ),
]
Region = Annotated[str, Parameter(group=_AWS, help="Region to ask in.")]
Endpoint = Annotated[str, Parameter(group=_AWS, help="Another endpoint of bedrock-runtime.")]
Profile = Annotated[str, Parameter(group=_AWS, help="Named profile of the AWS configuration.")]


@Parameter(name="*", group=WORK)
@dataclass
class Said:
    """The options that make a workload; they are the keys of a [workloads.NAME] table, but for deadline."""

    requests: Annotated[int | None, Parameter(help="How many requests there are a day, or a month.")] = None
    per: Annotated[Literal["day", "month"], Parameter(help="Of what --requests is the number.")] = "month"
    days: Annotated[int | None, Parameter(help="Days of a month; 30.")] = None
    input_tokens: Annotated[int | None, Parameter(help="Tokens of text sent, the prefix among them.")] = None
    output_tokens: Annotated[int | None, Parameter(help="Tokens of an answer.")] = None
    prefix_tokens: Annotated[int | None, Parameter(help="Of the tokens sent, those that never change.")] = (
        None
    )
    gap_seconds: Annotated[str, Parameter(help="From one request to the next of the same prefix.")] = ""
    arrivals: Annotated[
        Literal["", "fixed", "poisson"],
        Parameter(
            help="Whether each gap is as long, or that is their mean; fixed if --gap-seconds is given."
        ),
    ] = ""
    residency: Annotated[
        str, Parameter(help="Where calls may run: eu, us, jp ..., in_region or a region.")
    ] = ""
    deadline: Annotated[str, Parameter(help="Hours that an answer may take; a batch may take 24.")] = ""
    counted_by: Annotated[str, Parameter(help="Model by whose tokenizer the tokens were counted.")] = ""
    thinking_tokens: Annotated[
        int | None, Parameter(help="Tokens of thinking; billed as output, shown or not.")
    ] = None
    image: Annotated[
        TextList, Parameter(negative="", help="WIDTHxHEIGHT of an image sent; may be repeated.")
    ] = None
    pdf_pages: Annotated[int | None, Parameter(help="Pages of PDF sent.")] = None
    tool: Annotated[
        list[Literal["bash", "text_editor", "computer", "browser"]] | None,
        Parameter(negative="", help="A tool of Anthropic's that is offered; may be repeated."),
    ] = None
    tool_choice: Annotated[
        Literal["", "auto", "any"], Parameter(help="With tools: the prompt that is added.")
    ] = ""
    tool_tokens: Annotated[int | None, Parameter(help="Tokens of your own tool definitions.")] = None
    batch_hits: Annotated[str, Parameter(help="Share of a batch's requests that find the cache; 0.3.")] = ""

    def given(self) -> dict[str, Any]:
        """What was said, under the names of a workload."""
        hours = self.deadline.removesuffix("h")
        renamed = {"image": "images", "tool": "tools", "deadline": "deadline_hours"}
        said = {renamed.get(one.name, one.name): getattr(self, one.name) for one in fields(self)}
        said["deadline_hours"] = hours
        return {name: value for name, value in said.items() if value not in (None, "")}


def workloads(
    file: Path | None, said: Said, models: Sequence[str], book: Book
) -> tuple[dict[str, Workload], list[str]]:
    """By name, and what is wrong with others of the file."""
    from farthing.estimate import WorkloadError, make, read_file

    given = said.given()
    if file:
        if given.keys() - {"per"} or models:
            raise BadInput(f"{file}: a workload is in a file or in options, not in both")
        found = read_file(file, book)
        if not found.workloads:
            raise BadInput("; ".join(found.faults))
        return found.workloads, found.faults
    if missing := [name for name in ("requests", "input_tokens", "output_tokens") if name not in given]:
        options = ", ".join("--" + name.replace("_", "-") for name in missing)
        raise BadInput(f"a workload needs {options}; or name a TOML file of workloads")
    try:
        return {"": make(given | ({"model": list(models)} if models else {}), book)}, []
    except WorkloadError as error:
        raise BadInput(_option(str(error))) from error


def _option(fault: str) -> str:
    """A fault that begins with a key, as of the option."""
    key, colon, rest = fault.partition(": ")
    names = {"deadline_hours": "deadline", "images": "image", "tools": "tool"}
    return f"--{names.get(key, key).replace('_', '-')}{colon}{rest}" if colon and " " not in key else fault


# --- values of options ------------------------------------------------------------------------------------------------


def instant(text: str) -> datetime:
    if not text:
        return datetime.now(UTC)
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"--at {text!r} is no day: write 2026-11-22") from error
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def number(text: str, option: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise BadInput(f"{option} {text!r} is no number") from error
    if not number.is_finite():
        raise BadInput(f"{option} {text!r} is no number")
    return number


def read_text(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: no UTF-8 text at byte {error.start}; only text can be counted") from error


def client(online: bool, region: str, endpoint_url: str, profile: str) -> Any:
    """A client where AWS may be asked: by --online, or by naming an endpoint."""
    if not (online or endpoint_url):
        return None
    from farthing.aws import Access, AwsError
    from farthing.count import runtime

    try:
        return runtime(Access(profile=profile, region=region, endpoint_url=endpoint_url))
    except AwsError as error:
        raise BadInput(str(error)) from error
