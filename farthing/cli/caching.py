"""`farthing cache`: what prompt caching costs on a trace, and how little it could."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._engine import OnEngine
from farthing.cli._opened import hashing_key, opened, reached, sources
from farthing.cli._shared import book_of, console, write_json
from farthing.money import mtok_usd, show, usd

if TYPE_CHECKING:
    from farthing.book import Book, Model
    from farthing.cache import Cards, Comparison
    from farthing.traces import Log
    from farthing.usage import Sku

MOST_TOLD = 5  # lines that could not be read

group = App(name="cache", help="What prompt caching costs on real traffic, and how little it could cost.")
app.command(group)


@group.command
def bound(
    trace: Annotated[str, Parameter(help="A trace: a file, plain or gz, a folder, or s3://.")],
    *,
    format: Annotated[  # noqa: A002 - as the option is called
        str,
        Parameter(help="kv_trace, mooncake, agent_trace, bedrock_log, claude_code, outbox; else guessed."),
    ] = "",
    model: Annotated[str, Parameter(help="The model to price it by.")],
    endpoint: Literal["global", "regional", "govcloud"] = "global",
    platform: Literal["bedrock", "anthropic", "claude_aws"] = "bedrock",
    at: Annotated[str, Parameter(help="A day whose prices hold; else each request's own, or today's.")] = "",
    minimum: Annotated[
        int | None, Parameter(help="Tokens that a prefix must have to be cached; else the model's.")
    ] = None,
    engine: OnEngine = OnEngine(),  # noqa: B008 - it is not changed
    json: Annotated[bool, Parameter(name=["--json", "-j"], negative="", help="One line of JSON.")] = False,
) -> int:
    """What a trace costs without caching, under policies that can run live, planned with hindsight, and at the least.

    The bound holds for every way to place breakpoints and lifetimes without pings, output tokens included.
    """
    from farthing.cache import Unpriceable, cards_for
    from farthing.traces import TraceError

    moment = _moment(at)
    if minimum is not None and minimum < 0:
        raise BadInput(f"--minimum {minimum} is no number of tokens")
    book = book_of()
    sku = _sku(book, model, platform, endpoint)
    faults: list[str] = []
    with engine.session() as session:
        try:
            log = _read(trace, format, faults, session)
            dated = log.dated and not at
            cards, undated = cards_for(book, sku, log.trace, moment, dated=dated)
        except (TraceError, Unpriceable) as error:
            raise BadInput("; ".join([f"{trace}: {error}", *faults])) from error
        if not log.trace.requests:
            left = ", ".join(f"{count:,} {why}" for why, count in log.left.items()) or "it is empty"
            why = [f"{path}:{number}: {why}" for path, number, why in log.rejects[:1]]
            raise BadInput("; ".join([f"{trace}: no request of it can be used: {left}", *faults, *why]))
        least = minimum
        if least is None:
            least = _minimum(book.models[sku.model], platform, log, moment, dated=dated)
        found = _compared(log, cards, least, session)
    told = {
        "model": str(sku),
        "rates": [_rates(rates) for rates in cards.rates],
        "priced_at": "request" if dated and not undated else f"{moment:%Y-%m-%d}",
        "priced_as_of_day": undated if dated else log.trace.requests,
        "minimum_tokens": least,
    }
    if json:
        write_json(_answer(log, found) | told)
    else:
        _print(log, found, told)
    for line in [*faults, *(f"{path}:{number}: {why}" for path, number, why in log.rejects[:MOST_TOLD])]:
        print(f"farthing: {line}", file=sys.stderr)
    if len(log.rejects) > MOST_TOLD:
        print(f"farthing: and {len(log.rejects) - MOST_TOLD:,} lines more", file=sys.stderr)
    return 2 if faults or log.rejects else 0


def _read(trace: str, name: str, faults: list[str], session: Any) -> Log:
    from farthing.traces import read_traces, read_traces_on

    if session is None:
        return read_traces(sources(trace, faults), hashing_key(), name)
    access, places = reached(trace, faults)
    log, wrong = read_traces_on(session, list(places), partial(opened, access), hashing_key(), name)
    faults += wrong
    return log


def _compared(log: Log, cards: Cards, minimum: int, session: Any) -> Comparison:
    from farthing.cache import compare
    from farthing.ledger import on_executors

    if session is None:
        return compare(log.trace, cards, minimum)
    each = partial(on_executors, session)
    return compare(log.trace, cards, minimum, each=each, parts=session.sparkContext.defaultParallelism)


# --- what to price by ----------------------------------------------------------------------------------------------


def _moment(day: str) -> datetime:
    if not day:
        return datetime.now(UTC)
    try:
        return datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    except ValueError as error:
        raise BadInput(f"--at {day!r} is no day: write 2026-11-22") from error


def _sku(book: Book, model: str, platform: str, endpoint: str) -> Sku:
    from farthing.book import Unpriced

    if platform != "bedrock" and endpoint != "global":
        raise BadInput(f"--endpoint {endpoint} is one of Bedrock's")
    found = book.resolve(model, platform=platform, assume={"endpoint": endpoint})
    if isinstance(found, Unpriced):
        raise BadInput(f"--model {model}: {found.reason}")
    return found.sku


def _minimum(model: Model, platform: str, log: Log, moment: datetime, *, dated: bool) -> int:
    """The smallest that held while the trace ran: with a larger one the bound would be none."""
    from datetime import timedelta

    from farthing.usage import EPOCH

    days = {moment.date()}
    if dated:
        ends = (int(log.trace.at_us[0]), int(log.trace.at_us[-1]))
        days = {(EPOCH + timedelta(microseconds=us)).date() for us in ends}
    known = [least for day in days if (least := model.cache_minimum(platform, day)) is not None]
    known = known or [least for least in [model.cache_minimum(platform, moment.date())] if least is not None]
    if not known:
        raise BadInput(f"nobody has published from how many tokens {model.id} caches: give --minimum")
    return min(known)


def _rates(rates: Any) -> dict[str, str]:
    from farthing.meters import METERS

    return {meter: mtok_usd(rate) for meter, rate in zip(METERS, rates, strict=True)}


# --- what to say ---------------------------------------------------------------------------------------------------


def _answer(log: Log, found: Comparison) -> dict[str, Any]:
    from farthing.cache import DOCUMENTED

    costs = _costs(found)
    return {
        "requests": log.trace.requests,
        "input_tokens": int(log.trace.prompt.sum()),
        "usd": {name: usd(picos) for name, picos in costs.items()},
        "best_online_policy": found.best_online,
        "policies_usd": {name: usd(picos) for name, picos in found.online.items()},
        "output_tokens": int(log.trace.output.sum()),
        "format": log.format,
        "read": log.read,
        "left_out": dict(log.left),
        "other_files": log.others,
        "mended": dict(log.mended),
        "assumed": list(log.assumed),
        "namespaces": len(log.trace.namespaces),
        "billed_tokens": log.billed._asdict() if log.billed else None,
        "semantics": {"survival": "segment", **DOCUMENTED._asdict()},
    }


def _costs(found: Comparison) -> dict[str, int]:
    return {
        "none": found.none,
        "bound": found.bound,
        "plan": found.plan,
        "bound_with_pings": found.bound_with_pings,
        "end_5m": found.online["end_5m"],
        "end_1h": found.online["end_1h"],
        "system_end_1h": found.online["system_end_1h"],
        "best_online": found.online[found.best_online],
    }


_NAMES = {
    "none": "no caching",
    "end_5m": "end of the prompt, 5m",
    "end_1h": "end of the prompt, 1h",
    "system_end_1h": "system prompt and end, 1h",
    "plan": "plan made with hindsight",
    "bound": "bound",
    "bound_with_pings": "bound with keep-alive pings",
}
_SHOWN = ("none", "end_5m", "end_1h", "system_end_1h", "best_online", "plan", "bound", "bound_with_pings")


def _print(log: Log, found: Comparison, told: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    out = console()
    out.print(
        f"{log.trace.requests:,} requests, {int(log.trace.prompt.sum()):,} prompt tokens ({log.format})"
    )
    if log.others:
        out.print(f"  not read: {log.others:,} files of another format, or of none")
    for what, counts in (("left out", log.left), ("put right", log.mended)):
        for why, count in counts.items():
            out.print(f"  {what}: {count:,} {why}")
    rates = told["rates"][0]
    out.print(
        f"  {told['model']}, ${rates['input']} in and ${rates['output']} out per million; from "
        f"{told['minimum_tokens']:,} tokens; prices of {told['priced_at']}"
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in ("policy", "usd", "saved", "over the bound"):
        table.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    costs = _costs(found)
    names = _NAMES | {"best_online": f"advised, can run live: {found.best_online}"}
    for name in _SHOWN:
        cost = costs[name]
        saved = _percent(found.none - cost, found.none)
        over = "" if name == "bound" else _percent(cost - found.bound, found.bound)
        table.add_row(names[name], show(cost), "" if name == "none" else saved, over)
    out.print(table)
    if log.assumed:
        out.print(f"  assumed: {', '.join(log.assumed)}")


def _percent(part: int, whole: int) -> str:
    """With one place, rounded half up; integers all the way."""
    if not whole:
        return ""
    tenths = (abs(part) * 2000 + whole) // (2 * whole)
    return f"{'-' if part < 0 and tenths else ''}{tenths // 10}.{tenths % 10} %"
