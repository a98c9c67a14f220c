"""An estimate as one page; its charts are SVG in the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from farthing.book import Book
from farthing.estimate._article import Claim, say
from farthing.estimate._scenarios import Scenario, cheapest, ruled_out
from farthing.estimate._workload import Workload
from farthing.money import show
from farthing.reports import Table
from farthing.reports import _draw as draw
from farthing.reports._page import card, cards, document

_TITLE, _ARTICLE = "Estimate: Claude on Amazon Bedrock", "The article, worked out anew"
_SHOWN = 15  # rows of the table of ways
_PLACES = {"bedrock": "Bedrock", "anthropic": "Anthropic API", "claude_aws": "Claude Platform on AWS"}


def to_html(
    works: dict[str, Workload],
    found: dict[str, list[Scenario]],
    notes: Iterable[str],
    book: Book,
    at: datetime,
) -> str:
    """The page of one or more workloads."""
    firsts = [first for ways in found.values() if (first := cheapest(ways))]
    total = sum(first.monthly or 0 for first in firsts)
    missing = len(found) - len(firsts)
    under = _ways_said(firsts) + (f"; without {missing} that nothing fits" if firsts and missing else "")
    figures = [("Cheapest, a month", show(total) if firsts else "nothing fits", under)]
    body = [cards(figures)]
    for name, work in works.items():
        body += _workload(name, work, found[name])
    body.append(card("What this rests on", "", draw.notes(notes)))
    return document(_TITLE, _TITLE, [f"{at:%Y-%m-%d}, price book {book.digest}"], body)


def table(ways: Sequence[Scenario], book: Book) -> Table:
    """What can be had, cheapest first; the rest is counted by its reasons."""
    rows = [
        {
            "model": way.model,
            "platform": _PLACES[way.platform],
            "endpoint": way.endpoint,
            "way": _how(way),
            "request_usd": way.per_request,
            "month_usd": way.monthly,
        }
        for way in ways
        if way.feasible
    ]
    counted = [{"why": why, "ways": count} for why, count in ruled_out(ways)]
    columns = ("model", "platform", "endpoint", "way", "request_usd", "month_usd")
    heads = {"request_usd": "a request", "month_usd": "a month"}
    under = f"list prices, price book {book.digest}"
    empty = "nothing of what is sold fits"
    return Table("Ways to run it", under, columns, rows, {}, {"ruled_out": counted}, heads=heads, empty=empty)


def article_html(claims: Sequence[Claim], under: str) -> str:
    """The page of the article's claims."""
    tickets = next(claim for claim in claims if claim.name == "tickets")
    bars = [(figure.when, int(figure.value * 10**12), figure.agrees) for figure in tickets.figures]
    body = [card(tickets.says, tickets.why, draw.compare(bars, show))]
    for claim in claims:
        rows = [
            (figure.when, say(figure), "as said" if figure.agrees else "not so") for figure in claim.figures
        ]
        rows += [(f"break-even: {figure.when}", say(figure), "") for figure in claim.break_even]
        body.append(
            card(
                f"{claim.says}: {claim.verdict}", claim.why, draw.table(("", "the book's", ""), rows, {1, 2})
            )
        )
    return document(_ARTICLE, _ARTICLE, [under], body)


def _workload(name: str, work: Workload, ways: Sequence[Scenario]) -> Iterator[str]:
    said = (
        f"{work.requests:,} requests a {work.per}, {work.input_tokens:,} tokens in ({work.prefix_tokens:,} of them "
        f"stable), {work.output_tokens:,} out"
    )
    good = [way for way in ways if way.feasible]
    if not good:
        yield card(name or "Your workload", said, "<p>Nothing of what is sold fits: see below.</p>")
    else:
        firsts: dict[str, Scenario] = {}
        for way in good:
            firsts.setdefault(way.model, way)
        by_model = [
            (f"{way.model}, {_how(way)}", way.monthly or 0, way is good[0]) for way in firsts.values()
        ]
        yield card(
            name or "Your workload",
            f"{said}. Each model's cheapest way, a month",
            draw.compare(by_model[:12], show),
        )
        own = [way for way in good if way.model == good[0].model and way.platform == good[0].platform]
        bars = [(f"{way.endpoint}, {_how(way)}", way.monthly or 0, way is own[0]) for way in own]
        yield card(
            f"{good[0].model} on {_PLACES[good[0].platform]}",
            "Its ways, a month",
            draw.compare(bars[:12], show),
        )
        rows = [
            (
                way.model,
                _PLACES[way.platform],
                way.endpoint,
                _how(way),
                show(way.monthly or 0),
                show(way.per_request or 0, 6),
            )
            for way in good[:_SHOWN]
        ]
        heads = ("model", "platform", "endpoint", "way", "a month", "a request")
        more = f"The cheapest {len(rows)} of {len(good)} that can be had"
        yield card("Ways", more, draw.table(heads, rows, {4, 5}))
    counted = ruled_out(ways)
    if counted:
        table = draw.table(("why", "ways"), [(why, f"{count:,}") for why, count in counted[:_SHOWN]], {1})
        yield card(
            "Ruled out", f"{len(ways) - len(good):,} ways cannot be had; some for several reasons", table
        )


def _how(way: Scenario) -> str:
    return way.mode.replace("_", " ") + (f", {way.cache} cache" if way.cache != "none" else "")


def _ways_said(firsts: Iterable[Scenario]) -> str:
    return "; ".join(
        f"{one.workload + ': ' if one.workload else ''}{one.model}, {_PLACES[one.platform]}, {_how(one)}"
        for one in firsts
    )
