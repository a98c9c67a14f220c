"""`farthing estimate`: a month's cost before the first call, and the article's claims worked out anew."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Json
from farthing.cli._shared import OUTPUT, book_of, console, write_json
from farthing.cli._workload import WORK, Said, TextList, instant, number, workloads
from farthing.money import show, usd

if TYPE_CHECKING:
    from farthing.book import Book
    from farthing.estimate import Claim, Figure, Scenario, Workload

_SHOWN = 20  # ways that a person sees of a workload
_REASONS = 12
_Named = Annotated[
    TextList,
    Parameter(group=WORK, negative="", consume_multiple=False, help="Only this model; may be repeated."),
]


@app.command
def estimate(
    file: Annotated[Path | None, Parameter(help="TOML with [workloads.NAME] tables.")] = None,
    *,
    said: Said = Said(),  # noqa: B008 - it is not changed
    model: _Named = None,
    at: Annotated[str, Parameter(help="Day whose prices hold, YYYY-MM-DD; today if left out.")] = "",
    prices: Annotated[
        Path | None, Parameter(name="--book", help="A folder of prices, or a TOML file of your offers.")
    ] = None,
    article: Annotated[bool, Parameter(negative="", help="The article's claims, worked out anew.")] = False,
    output_share: Annotated[
        str, Parameter(help="With --article: the share of a ticket that is output.")
    ] = "0",
    html: Annotated[Path | None, Parameter(group=OUTPUT, help="Write a page with charts there.")] = None,
    every: Annotated[
        bool, Parameter(name="--all", negative="", group=OUTPUT, help="Show every way.")
    ] = False,
    json: Json = False,
) -> int:
    """Before the first call: a month's cost of every way to run a workload, and what rules the others out.

    Every model, platform, endpoint, cache (none, 5m, 1h) and mode, cheapest first; exit 1 if nothing can be had.
    """
    from farthing import estimate as estimates

    book = book_of(prices or "")
    if article:
        return _article(book, output_share, at, html, json=json)
    now = instant(at)
    works, faults = workloads(file, said, model or [], book)
    found = {name: estimates.scenarios(work, book, now, name) for name, work in works.items()}
    notes = _notes(works.values(), found.values(), prices)
    for fault in faults:
        print(f"farthing: {fault}", file=sys.stderr)
    if html:
        _write(html, estimates.to_html(works, found, notes, book, now))
    if json:
        write_json(_estimate_json(works, found, notes, book, now))
    else:
        for name, work in works.items():
            _print_ways(name, work, found[name], every=every)
        _print_sum(found)
        for note in notes:
            print(f"  {note}")
    if faults:
        return 2
    return int(any(estimates.cheapest(ways) is None for ways in found.values()))


_ASSUMED = {
    "deadline": "no deadline was given, so a batch is taken to be allowed: --deadline HOURS",
    "batch_rate": "batch rates of models whose batch SKU nobody has seen yet are taken to be half",
    "batch_hits": "inside a batch, caching is best effort: a share of --batch-hits reads, the others write",
    "cache_minimum": "of some models nobody has published the least prefix; 4,096 tokens are taken to be enough",
    "tokenizer": "text is taken to be 1.3 tokens of the newer tokenizer for one of the older (1.0 to 1.35)",
    "tool_prompt": "of some models nobody has published what using tools adds: that of the latest known is taken",
    "pdf_pages": "pages of PDF are taken at the upper end: 3,000 tokens of text and the largest image each",
    "profile": "some geographies of a model are named by one source only",
    "availability": "whether a model can be called in the region itself is not known here: see its card",
}


def _notes(works: Iterable[Workload], found: Iterable[Sequence[Scenario]], prices: Path | None) -> list[str]:
    """What the figures rest on, said once."""
    from farthing.estimate import arrivals

    works, found = list(works), list(found)
    assumed = {name for ways in found for way in ways if way.feasible for name in way.assumed}
    days = ", ".join(map(str, sorted({work.days for work in works})))
    notes = [
        f"a month has {days} days here; computed from {'the rates of --book' if prices else 'list prices'}"
    ]
    for how in sorted({arrivals(work) for work in works if work.prefix_tokens}):
        said = (
            "each gap is as long" if how == "fixed" else "gaps are Poisson's: some are longer than their mean"
        )
        notes.append(f"{said}; the prefix is written at first and after each gap beyond the TTL, else read")
    if any(way.platform == "claude_aws" and way.feasible for ways in found for way in ways):
        notes.append("Claude Platform on AWS bills the same dollars in units of $0.01, metered by the hour")
    if not any(work.counted_by for work in works):
        notes.append(
            "tokens are taken as counted by each model's own tokenizer: --counted-by MODEL says whose they are"
        )
    return notes + [said for name, said in _ASSUMED.items() if name in assumed]


def _estimate_json(
    works: Mapping[str, Workload],
    found: Mapping[str, Sequence[Scenario]],
    notes: Sequence[str],
    book: Book,
    now: datetime,
) -> dict[str, Any]:
    from farthing.estimate import cheapest

    firsts = [cheapest(ways) for ways in found.values()]
    total = None if None in firsts else usd(sum(first.monthly or 0 for first in firsts if first))
    return {
        "scenarios": [_scenario_json(way) for ways in found.values() for way in ways],
        "cheapest_monthly_usd": total,
        "workloads": [
            {"name": name, "days": work.days, "requests_per_month": work.monthly}
            for name, work in works.items()
        ],
        "notes": list(notes),
        "book": book.digest,
        "at": f"{now:%Y-%m-%d}",
    }


def _scenario_json(way: Scenario) -> dict[str, Any]:
    return {
        "workload": way.workload,
        "model": way.model,
        "endpoint": way.endpoint,
        "cache": way.cache,
        "mode": way.mode,
        "platform": way.platform,
        "feasible": way.feasible,
        "why_not": way.why_not,
        "monthly_usd": None if way.monthly is None else usd(way.monthly),
        "per_request_usd": None if way.per_request is None else usd(way.per_request),
        "assumed": list(way.assumed),
        "ends": way.ends.isoformat() if way.ends and way.feasible else None,
    }


def _print_ways(name: str, work: Workload, ways: Sequence[Scenario], *, every: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from farthing.estimate import ruled_out

    out = console()
    good = [way for way in ways if way.feasible]
    shown = good if every else good[:_SHOWN]
    out.print(
        f"[bold]{escape(name) or 'Estimate'}[/bold]  {work.requests:,} requests a {work.per}, "
        f"{work.input_tokens:,} tokens in, {work.prefix_tokens:,} of them stable, {work.output_tokens:,} out"
    )
    table = Table(box=None, pad_edge=True, header_style="dim")
    for head in ("model", "platform", "endpoint", "mode", "cache"):
        table.add_column(head)
    table.add_column("a month", justify="right", no_wrap=True)
    table.add_column("a request", justify="right", no_wrap=True)
    table.add_column("")
    for way in shown:
        said = f"ends {way.ends}" if way.ends else ""
        cost = show(way.monthly or 0), show(way.per_request or 0, 6)
        table.add_row(way.model, way.platform, way.endpoint, way.mode, way.cache, *cost, said)
    if shown:
        out.print(table)
    if len(shown) < len(good):
        print(f"  {len(good) - len(shown)} more can be had: --all")
    out_of = len(ways) - len(good)
    print(
        f"  {out_of:,} ways are ruled out, some for several reasons"
        if good
        else "  nothing that is sold fits"
    )
    counted = ruled_out(ways)
    for reason, count in counted if every else counted[:_REASONS]:
        print(f"  {count:>5}  {reason}")
    if len(counted) > _REASONS and not every:
        print(f"         and {len(counted) - _REASONS} more reasons: --all")


def _print_sum(found: Mapping[str, Sequence[Scenario]]) -> None:
    from farthing.estimate import cheapest

    firsts = [first for ways in found.values() if (first := cheapest(ways))]
    if len(found) > 1 and firsts:
        without = (
            f"; without {len(found) - len(firsts)} that nothing fits" if len(firsts) < len(found) else ""
        )
        print(
            f"  {show(sum(first.monthly or 0 for first in firsts))} a month, each in its cheapest way{without}"
        )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--html {path}: {error.strerror}") from error
    print(f"written to {path}", file=sys.stderr)


# --- estimate --article -----------------------------------------------------------------------------------------------


def _article(book: Book, share: str, at: str, html: Path | None, *, json: bool) -> int:
    from farthing.estimate import article, article_html

    day = instant(at).date() if at else None
    part = number(share, "--output-share")
    claims = article(book, part) if day is None else article(book, part, day)
    under = f"With {share} of a ticket's tokens as output; price book {book.digest}"
    if html:
        _write(html, article_html(claims, under))
    if json:
        write_json(
            {
                "output_share": str(part),
                "claims": [_claim_json(claim) for claim in claims],
                "book": book.digest,
            }
        )
    else:
        _print_claims(claims, under)
    return 0


def _claim_json(claim: Claim) -> dict[str, Any]:
    return {
        "name": claim.name,
        "says": claim.says,
        "verdict": claim.verdict,
        "figures": [_figure_json(figure) | {"agrees": figure.agrees} for figure in claim.figures],
        "break_even": [_figure_json(figure) for figure in claim.break_even],
        "why": claim.why,
    }


def _figure_json(figure: Figure) -> dict[str, Any]:
    from farthing.estimate import decimal

    return {"when": figure.when, "unit": figure.unit, "value": decimal(figure.value, 12)}


def _print_claims(claims: Iterable[Claim], under: str) -> None:
    from farthing.estimate import say

    print(under)
    for claim in claims:
        print(f"\n{claim.says}: {claim.verdict}")
        for figure in claim.figures:
            print(f"  {say(figure):>16}  {figure.when}{'' if figure.agrees else ': not so'}")
        for figure in claim.break_even:
            print(f"  {say(figure):>16}  break-even: {figure.when}")
        print(f"  {claim.why}")
