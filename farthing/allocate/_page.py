"""A team's statement as a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from farthing.allocate._divide import Money
from farthing.allocate._team import TeamStatement
from farthing.allocate._text import month_name, status
from farthing.fx import amount
from farthing.reports import _draw as draw
from farthing.reports._page import card, cards, document


def to_html(made: TeamStatement) -> str:
    title = f"{made.team}: Claude on Amazon Bedrock, {month_name(made.month)}"
    known = [("for", made.said.owner), ("cost centre", made.said.cost_centre)]
    under = "; ".join([status(made), *(f"{name} {value}" for name, value in known if value)])
    return document(
        title, made.team, [f"Claude on Amazon Bedrock, {month_name(made.month)}", under], _body(made)
    )


def _body(made: TeamStatement) -> Iterator[str]:
    yield _cards(made)
    yield card("What it is made of", "Your own calls, and your part of what teams share", _parts(made))
    if made.models:
        yield card("By model", "Your own calls", _models(made))
    if made.days:
        yield card("By day", f"Your own calls, {made.currency}", _days(made))
    if made.layers:
        rows = [(label, made.show(money), "") for label, money in made.layers]
        yield card(
            "How the cost came about", "Your own calls, computed from list price on", _two(rows, last=True)
        )
    if made.moved:
        yield card("Against the month before", "Your calls, computed, in USD", _moved(made))
    notes = "".join(f"<li>{escape(note)}</li>" for note in made.notes)
    yield card("Notes", "", f"<ul>{notes}</ul>")


def _cards(made: TeamStatement) -> str:
    found = [("In all", made.show(made.money), made.currency, "")]
    saved = sum((money for _, money in made.avoided), Money())
    if any(saved):
        by = ", ".join(label.partition(",")[0].lower() for label, _ in made.avoided)
        kind = "good" if made.size(saved) > 0 else "more"
        found.append(
            (
                "Avoided already",
                made.show(saved),
                f"by {by}: the same calls would have cost so much more",
                kind,
            )
        )
    if made.moved and made.moved.before:
        change = made.moved.after - made.moved.before
        kind = "more" if change > 0 else "good"
        sign = "+" if change > 0 else ""
        found.append(("Against the month before", f"{sign}{amount(change)}", "your calls, computed", kind))
    return cards(found)


def _parts(made: TeamStatement) -> str:
    rows = []
    for part in made.parts:
        of = f", of {made.show(part.whole)} of all teams" if part.whole != part.money else ""
        says = f'<div class="dim">{escape(part.says + of)}</div>'
        rows.append(
            f'<tr><td>{escape(part.name)}{says}</td><td class="n">{escape(made.show(part.money))}</td></tr>'
        )
    if len(rows) > 1:
        total = escape(made.show(made.money))
        rows.append(f'<tr class="sum"><td>In all</td><td class="n">{total}</td></tr>')
    return f"<table>{''.join(rows)}</table>"


def _models(made: TeamStatement) -> str:
    most = max((made.size(model.money) for model in made.models), default=0)
    rows = [
        (model.name, f"{model.calls:,}", f"{model.tokens:,}", made.show(model.money)) for model in made.models
    ]
    bars = [draw.bar(made.size(model.money), most) for model in made.models]
    return draw.table(("Model", "Calls", "Tokens", made.currency), rows, {1, 2, 3}, bars=bars)


def _days(made: TeamStatement) -> str:
    most = max(made.size(money) for _, money in made.days)
    bars = "".join(
        f'<div style="height:{_percent(made.size(money), most)}%" title="{day} {escape(made.show(money))}"></div>'
        for day, money in made.days
    )
    ends = f"<span>{made.days[0][0]}</span><span>at most {escape(made.show(_dearest(made)))} a day</span>"
    return f'<div class="days">{bars}</div><p class="dim ends">{ends}<span>{made.days[-1][0]}</span></p>'


def _dearest(made: TeamStatement) -> Money:
    return max((money for _, money in made.days), key=made.size)


def _percent(size: int, most: int) -> int:
    return max(1, size * 100 // most) if size > 0 and most > 0 else 0


def _moved(made: TeamStatement) -> str:
    assert made.moved
    rows = [("The month before", amount(made.moved.before), "")]
    for name, picos in made.moved.steps:
        rows.append((name, f"{'+' if picos > 0 else ''}{amount(picos)}", "more" if picos > 0 else "good"))
    return _two([*rows, ("This month", amount(made.moved.after), "")], last=True)


def _two(rows: Iterable[tuple[str, str, str]], *, last: bool = False) -> str:
    """Names and amounts; the last row is the sum."""
    listed = list(rows)
    cells = []
    for i, (name, shown, kind) in enumerate(listed):
        is_sum = ' class="sum"' if last and i == len(listed) - 1 else ""
        cells.append(f'<tr{is_sum}><td>{escape(name)}</td><td class="n {kind}">{escape(shown)}</td></tr>')
    return f"<table>{''.join(cells)}</table>"
