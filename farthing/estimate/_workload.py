"""A workload to estimate: how many requests of what size, how they come, and what may be done to them."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec

from farthing.book import Book, Unpriced
from farthing.usage import GEOGRAPHIES

DAYS = 30  # of a month, unless told
DAY_S = 86_400
BATCH_HITS = (
    "0.3"  # of a batch's reads that find the cache: the low end of the 30 to 98 % that A_PRICE's pages tell
)
_SIZES = ("input_tokens", "output_tokens", "prefix_tokens", "thinking_tokens", "tool_tokens", "pdf_pages")
_IMAGE = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})")
_REGION = re.compile(r"(us-gov|[a-z]{2})-[a-z]+-\d")


class WorkloadError(ValueError):
    """What is wrong with a workload, and the mend: one line."""


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Requests that are alike. `input_tokens` is the whole prompt's text, `prefix_tokens` what of it never changes.

    `counted_by` is the model whose tokenizer the counts are of; without it they are taken for every model's own.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    per: Literal["day", "month"] = "month"
    prefix_tokens: int = 0
    gap_seconds: Decimal | None = None
    arrivals: Literal["", "fixed", "poisson"] = ""
    model: str | tuple[str, ...] = ()
    residency: str = ""
    deadline_hours: Decimal | None = None
    counted_by: str = ""
    thinking_tokens: int = 0
    images: tuple[str, ...] = ()
    pdf_pages: int = 0
    tools: tuple[Literal["bash", "text_editor", "computer", "browser"], ...] = ()
    tool_choice: Literal["", "auto", "any"] = ""
    tool_tokens: int = 0
    batch_hits: Decimal = Decimal(BATCH_HITS)
    days: int = DAYS

    @property
    def monthly(self) -> int:
        return self.requests * (self.days if self.per == "day" else 1)

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model,) if isinstance(self.model, str) else self.model

    @property
    def region(self) -> str:
        """The one region that residency names, if it does."""
        said = self.residency.lower().removeprefix("in_region:")
        return said if _REGION.fullmatch(said) else ""

    @property
    def kept_in(self) -> str:
        """Where calls may run: "" for anywhere, in_region, or a geography."""
        said = self.residency.lower().removeprefix("geo:")
        if said in ("", "any", "global"):
            return ""
        return "in_region" if self.region or said == "in_region" else said


class Read(NamedTuple):
    """The workloads of a file, by name, and a line for each that is none."""

    workloads: dict[str, Workload]
    faults: list[str]


def make(said: Mapping[str, Any], book: Book) -> Workload:
    """A workload of plain values. WorkloadError names the key and the mend."""
    try:
        work = msgspec.convert(said, Workload)
    except msgspec.ValidationError as error:
        raise WorkloadError(_plain(str(error))) from error
    for fault in _faults(work, book):
        raise WorkloadError(fault)
    return work


def _plain(fault: str) -> str:
    """msgspec's sentence, with the key in front."""
    text, _, place = fault.partition(" - at `$.")
    key = place.rstrip("`")
    if unknown := re.fullmatch(r"Object contains unknown field `(.+)`", text):
        near = difflib.get_close_matches(unknown[1], Workload.__struct_fields__, n=1)
        return f"{unknown[1]} is no key of a workload" + (f"; did you mean {near[0]}?" if near else "")
    if missing := re.fullmatch(r"Object missing required field `(.+)`", text):
        return f"{missing[1]} is missing"
    if text == "Invalid decimal string":
        return f"{key}: it is no number; write one as 60 or 0.3"
    if text.startswith("Invalid enum value "):
        hint = get_type_hints(Workload)[key.partition("[")[0]]
        known = get_args(get_args(hint)[0] if "[" in key else hint)
        return (
            f"{key}: {text.removeprefix('Invalid enum value ')} is none of {', '.join(filter(None, known))}"
        )
    return f"{key}: {text[:1].lower()}{text[1:]}" if key else text


def _faults(work: Workload, book: Book) -> Iterator[str]:
    if work.requests < 1:
        yield f"requests: {work.requests} is none; write how many there are a {work.per}"
    for name in _SIZES:
        if getattr(work, name) < 0:
            yield f"{name}: {getattr(work, name)} is less than none"
    if work.prefix_tokens > work.input_tokens:
        yield (
            f"prefix_tokens: the prefix ({work.prefix_tokens:,}) is a part of input_tokens ({work.input_tokens:,}), "
            "and cannot be longer"
        )
    if not 1 <= work.days <= 31:
        yield f"days: a month has 1 to 31 days here, not {work.days}"
    yield from _bad_times(work)
    yield from _bad_names(work, book)


def _bad_times(work: Workload) -> Iterator[str]:
    for name in ("gap_seconds", "deadline_hours"):
        value = getattr(work, name)
        if value is not None and not (value.is_finite() and 0 <= value <= 10**9):
            yield f"{name}: {value} is no time; write a number from 0 up"
    if work.gap_seconds == 0:
        yield "gap_seconds: requests at one moment do not read each other's cache; write a number above 0"
    if not (work.batch_hits.is_finite() and 0 <= work.batch_hits <= 1):
        yield f"batch_hits: {work.batch_hits} is no share; write 0 to 1"


def _bad_names(work: Workload, book: Book) -> Iterator[str]:
    for image in work.images:
        if not _IMAGE.fullmatch(image):
            yield f"images: {image!r} is no size; write WIDTHxHEIGHT in pixels, such as 1568x1045"
    for name in (*work.models, *filter(None, [work.counted_by])):
        if isinstance(found := book.resolve(name), Unpriced):
            yield found.reason
    if work.kept_in not in ("", "in_region", *GEOGRAPHIES):
        yield (
            f"residency: {work.residency!r} is no place; write global, in_region, a region, or one of "
            f"{', '.join(GEOGRAPHIES)}"
        )


def model_of(name: str, book: Book) -> str:
    """The book's name of a model, of any id it goes by."""
    found = book.resolve(name)
    if isinstance(found, Unpriced):
        raise WorkloadError(found.reason)
    return found.sku.model


def image_sizes(work: Workload) -> list[tuple[int, int]]:
    return [(int(width), int(height)) for width, height in (image.split("x") for image in work.images)]


def read_file(path: Path, book: Book) -> Read:
    """The [workloads.NAME] tables of a TOML file; a good one beside a bad one still counts.

    WorkloadError if the file cannot be read as TOML at all.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text, parse_float=Decimal)
    except OSError as error:
        raise WorkloadError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise WorkloadError(f"{path}: {error}") from error
    named = tables.get("workloads")
    if not isinstance(named, dict) or not named:
        raise WorkloadError(
            f"{path}: no [workloads.NAME] table; write one with requests, per, input_tokens, output_tokens"
        )
    found = Read({}, [])
    for name, table in named.items():
        try:
            if not isinstance(table, dict):
                raise WorkloadError("this is no table")
            found.workloads[name] = make(table, book)
        except WorkloadError as error:
            found.faults.append(f"{path}:{_line(text, name, str(error))}: workload {name}: {error}")
    return found


def _line(text: str, name: str, fault: str) -> int:
    """The line of the key that a fault begins with, else of its table."""
    key = re.match(r"(\w+)", fault)
    heading = re.compile(rf"\s*\[workloads\.[\"']?{re.escape(name)}[\"']?\]")
    began = 0
    for number, line in enumerate(text.splitlines(), 1):
        if heading.match(line):
            began = number
        elif began and line.lstrip().startswith("["):
            break
        elif began and key and re.match(rf"\s*{key[1]}\s*=", line):
            return number
    return began or 1
