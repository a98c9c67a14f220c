"""An estimate as one page; its charts are SVG in the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from html import escape

from farthing.book import Book
from farthing.estimate._article import Claim, say
from farthing.estimate._scenarios import Scenario, cheapest, ruled_out
from farthing.estimate._workload import Workload
from farthing.money import show
from farthing.reports._page import card, document

_TITLE, _ARTICLE = "Estimate: Claude on Amazon Bedrock", "The article, worked out anew"
_SHOWN = 15  # rows of the table of ways
_WIDTH, _LABEL, _ROW = 800, 330, 26  # pixels of a bar chart, its labels, each bar
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
    cards = [("Cheapest, a month", show(total) if firsts else "nothing fits", under)]
    body = [_cards(cards)]
    for name, work in works.items():
        body += _workload(name, work, found[name])
    body.append(card("What this rests on", "", _list(notes)))
    return document(_TITLE, _TITLE, [f"{at:%Y-%m-%d}, price book {book.digest}"], body)


def article_html(claims: Sequence[Claim], under: str) -> str:
    """The page of the article's claims."""
    tickets = next(claim for claim in claims if claim.name == "tickets")
    bars = [(figure.when, int(figure.value * 10**12), figure.agrees) for figure in tickets.figures]
    body = [card(tickets.says, tickets.why, _bars(bars))]
    for claim in claims:
        rows = [
            (figure.when, say(figure), "as said" if figure.agrees else "not so") for figure in claim.figures
        ]
        rows += [(f"break-even: {figure.when}", say(figure), "") for figure in claim.break_even]
        body.append(
            card(f"{claim.says}: {claim.verdict}", claim.why, _table(("", "the book's", ""), rows, {1, 2}))
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
            name or "Your workload", f"{said}. Each model's cheapest way, a month", _bars(by_model[:12])
        )
        own = [way for way in good if way.model == good[0].model and way.platform == good[0].platform]
        bars = [(f"{way.endpoint}, {_how(way)}", way.monthly or 0, way is own[0]) for way in own]
        yield card(f"{good[0].model} on {_PLACES[good[0].platform]}", "Its ways, a month", _bars(bars[:12]))
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
        yield card("Ways", more, _table(heads, rows, {4, 5}))
    counted = ruled_out(ways)
    if counted:
        table = _table(("why", "ways"), [(why, f"{count:,}") for why, count in counted[:_SHOWN]], {1})
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


# --- pieces of a page ------------------------------------------------------------------------------------------------


def _cards(cards: Iterable[tuple[str, str, str]]) -> str:
    return "".join(
        f'<section class="card"><p class="dim">{escape(title)}</p><div class="big">{escape(big)}</div>'
        f'<p class="dim">{escape(under)}</p></section>'
        for title, big, under in cards
    )


def _list(notes: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: set[int]) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if at in numbers else ''}>{escape(text)}</{tag}>"
            for at, text in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', heads)}</tr></thead><tbody>{body}</tbody></table>"


def _bars(bars: Sequence[tuple[str, int, bool]]) -> str:
    """A bar chart of amounts, its figures beside the bars; those that are marked stand out."""
    most = max((amount for _, amount, _ in bars), default=0) or 1
    room = _WIDTH - _LABEL - 110
    drawn = []
    for row, (label, amount, marked) in enumerate(bars):
        y, wide = row * _ROW, max(1, amount * room // most)
        fill = ' class="best"' if marked else ""
        drawn.append(
            f'<text x="{_LABEL - 8}" y="{y + 16}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="{_LABEL}" y="{y + 5}" width="{wide}" height="14" rx="2"{fill}/>'
            f'<text x="{_LABEL + wide + 6}" y="{y + 16}">{escape(show(amount))}</text>'
        )
    height = len(bars) * _ROW + 4
    said = "; ".join(f"{label} {show(amount)}" for label, amount, _ in bars)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(said)}">'
        + "".join(drawn)
        + "</svg>"
    )
