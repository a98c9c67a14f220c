"""A team's statement as plain text: for the terminal, and for mail that shows no HTML."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import date

from farthing.allocate._divide import Money
from farthing.allocate._team import TeamStatement
from farthing.fx import amount

_WIDE = 78
_BAR = 30


def month_name(month: str) -> str:
    """
    >>> month_name("2026-10")
    'October 2026'
    """
    return f"{date.fromisoformat(f'{month}-01'):%B %Y}"


def status(made: TeamStatement) -> str:
    """How far the amounts are to be believed."""
    source = "billed by AWS" if made.is_billed else "computed from our logs, not yet held against the bill"
    closed = f"closed ({made.version})" if made.version else "not closed: it may change"
    return f"{source}; {closed}"


def to_text(made: TeamStatement) -> str:
    return "\n".join(_lines(made)) + "\n"


def _lines(made: TeamStatement) -> Iterator[str]:
    total = made.show(made.money)
    title = f"{made.team}: Claude on Amazon Bedrock, {month_name(made.month)}"
    yield f"{title}{total:>{max(_WIDE - len(title), len(total) + 2)}}"
    known = [("for", made.said.owner), ("cost centre", made.said.cost_centre)]
    yield from textwrap.wrap(
        "; ".join([status(made), *(f"{name} {value}" for name, value in known if value)]), _WIDE
    )
    yield from _section("What it is made of")
    yield from _amounts(made, ((part.name, part.money) for part in made.parts), "in all")
    for part in made.parts:
        of = f", of {made.show(part.whole)} of all teams" if part.whole != part.money else ""
        yield from textwrap.wrap(
            f"{part.name}: {part.says}{of}", _WIDE - 2, initial_indent="  ", subsequent_indent="    "
        )
    if made.models:
        yield from _section("Your own calls, by model")
        yield from _models(made)
    if made.days:
        yield from _section("Your own calls, by day")
        yield from _days(made)
    if made.layers:
        yield from _section("How their cost came about, computed")
        yield from _amounts(made, made.layers, "")
    if made.avoided:
        yield from _section("Avoided already")
        yield from _amounts(made, made.avoided, "")
    if made.moved:
        yield from _section("Your calls against the month before, computed, in USD")
        rows = [("the month before", made.moved.before), *made.moved.steps, ("this month", made.moved.after)]
        yield from _two((name, _signed(picos, 0 < i < len(rows) - 1)) for i, (name, picos) in enumerate(rows))
    yield from _section("Notes")
    for note in made.notes:
        yield from textwrap.wrap(note, _WIDE - 2, initial_indent="  ", subsequent_indent="    ")


def _section(title: str) -> Iterator[str]:
    yield ""
    yield title


def _signed(picos: int, is_step: bool) -> str:
    return ("+" if is_step and picos > 0 else "") + amount(picos)


def _amounts(made: TeamStatement, rows: Iterable[tuple[str, Money]], total: str) -> Iterator[str]:
    listed = list(rows)
    if total and len(listed) > 1:
        listed.append((total, made.money))
    yield from _two((name, made.show(money)) for name, money in listed)


def _two(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, shown in rows:
        yield f"  {name:<{_WIDE - 20}}{shown:>18}"


def _models(made: TeamStatement) -> Iterator[str]:
    yield _columns("model", "calls", "tokens", made.currency)
    for model in made.models:
        yield _columns(model.name, f"{model.calls:,}", f"{model.tokens:,}", made.show(model.money))


def _columns(*cells: str) -> str:
    name, *numbers = cells
    short = name if len(name) <= 32 else f"…{name[-31:]}"
    return f"  {short:<32}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(numbers, (9, 17, 18), strict=True)
    )


def _days(made: TeamStatement) -> Iterator[str]:
    most = max(made.size(money) for _, money in made.days)
    for day, money in made.days:
        yield f"  {day}  {bar(made.size(money), most):<{_BAR}}{made.show(money):>{_WIDE - _BAR - 14}}"


def bar(size: int, most: int) -> str:
    """A bar in half cells; anything above nothing is at least a half."""
    if size <= 0 or most <= 0:
        return ""
    halves = max(1, size * _BAR * 2 // most)
    return "█" * (halves // 2) + "▌" * (halves % 2)


def together(statements: Sequence[TeamStatement]) -> str:
    """Several, one after another."""
    return ("\n" + "─" * _WIDE + "\n\n").join(map(to_text, statements))
