"""Two sets of requests as a table for a person, as Markdown for a pull request, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from farthing.lint._diff import MOST_SHARE, Compared, Cost
from farthing.money import show, usd

DAYS = 30  # of a month
MOST_ROWS = 50  # of a comment


def heading(done: Compared, calls_per_day: int) -> str:
    """The verdict in a line."""
    base, head = done.whole("base"), done.whole("head")
    if not done.comparable:
        return "Cost: nothing to compare"
    old, new = base.each or 0, head.each or 0
    month = ""
    if calls_per_day:
        delta = (new - old) * calls_per_day * DAYS
        month = f", {'+' if delta >= 0 else ''}{show(delta)} a month at {calls_per_day:,} calls a day"
    return f"Cost per call {show(old, 4)} → {show(new, 4)} ({_change(old, new)}){month}"


def _change(old: int, new: int) -> str:
    if not old:
        return "was nothing"
    tenths = (new - old) * 1_000 // old
    return f"{'+' if tenths > 0 else ''}{tenths / 10:.1f} %"


def _share(cost: Cost | None) -> str:
    return f"{cost.hit * 100 / MOST_SHARE:.1f} %" if cost else "–"


def _prompt(cost: Cost | None) -> str:
    return f"{cost.tokens.prompt // cost.calls:,}" if cost else "–"


def _each(cost: Cost | None) -> str:
    if cost is None:
        return "–"
    return cost.why if cost.each is None else show(cost.each, 4)


def basis(done: Compared) -> str:
    """How the figures came about."""
    how = (
        "replayed in the order and at the times in which they were sent"
        if done.replayed
        else f"each request over and over, {done.gap_s:,} s apart, with another last message each time"
    )
    if done.spaced:
        how = f"a conversation: replayed in its order, {done.gap_s:,} s from call to call"
    said = [how, "billed by the documented rules of prompt caching"]
    left = sum(1 for row in done.rows if row.base and row.head) - len(done.comparable)
    if left:
        said.append(f"without {left:,} that {'has' if left == 1 else 'have'} no cost in one of the sets")
    if not done.output_known:
        said.append("answers are not counted (give --output)")
    if done.assumed:
        said.append(f"assumed: {', '.join(done.assumed)}")
    return "; ".join(said)


def as_markdown(done: Compared, calls_per_day: int = 0) -> str:
    """A comment for a pull request: paths and counts, no text of a prompt."""
    out = ["<!-- farthing diff -->", f"### {heading(done, calls_per_day)}", ""]
    out += ["| request | prompt tokens | read from cache | cost per call |", "|---|--:|--:|--:|"]
    rows = [*done.rows[:MOST_ROWS]]
    for row in rows:
        cells = [_both(name(row.base), name(row.head)) for name in (_prompt, _share, _each)]
        out.append(f"| {_cell(row.name)} | {' | '.join(map(_cell, cells))} |")
    if len(done.rows) > 1 and done.comparable:
        base, head = done.whole("base"), done.whole("head")
        cells = [_both(name(base), name(head)) for name in (_prompt, _share, _each)]
        out.append(f"| **all, on average** | {' | '.join(f'**{cell}**' for cell in cells)} |")
    if len(done.rows) > len(rows):
        out.append(f"\n{len(done.rows) - len(rows):,} requests more are in the average.")
    if changed := [row for row in rows if row.changes]:
        out += ["", "<details><summary>What changed</summary>", ""]
        for row in changed:
            out.append(f"- {_cell(row.name)}")
            out += [f"  - {_cell(change)}" for change in row.changes]
        out += ["", "</details>"]
    return "\n".join([*out, "", f"_{basis(done)}_", ""])


def _both(old: str, new: str) -> str:
    return new if old == new else f"{old} → {new}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def table(done: Compared, calls_per_day: int = 0) -> Iterator[str]:
    """What a person reads in a terminal."""
    yield heading(done, calls_per_day)
    for row in done.rows:
        cells = [_both(name(row.base), name(row.head)) for name in (_prompt, _share, _each)]
        yield f"  {row.name}: {cells[0]} prompt tokens, {cells[1]} read from cache, a call {cells[2]}"
        yield from (f"    {change}" for change in row.changes)
    yield f"  {basis(done)}"


def as_json(done: Compared, calls_per_day: int = 0) -> dict[str, Any]:
    """Everything, exact: of calls together, so that nothing is rounded."""
    base, head = done.whole("base"), done.whole("head")
    month = None
    if calls_per_day and done.comparable:
        month = {
            side: usd((cost.each or 0) * calls_per_day * DAYS)
            for side, cost in (("base", base), ("head", head))
        }
    return {
        "base": _cost(base),
        "head": _cost(head),
        "month_usd": month,
        "calls_per_day": calls_per_day or None,
        "replayed": done.replayed,
        "output_counted": done.output_known,
        "assumed": list(done.assumed),
        "requests": [
            {"name": row.name, "base": _cost(row.base), "head": _cost(row.head), "changes": list(row.changes)}
            for row in done.rows
        ],
        "unread": [each._asdict() for each in done.unread],
    }


def _cost(cost: Cost | None) -> dict[str, Any] | None:
    if cost is None:
        return None
    return {
        "calls": cost.calls,
        "tokens": cost.tokens._asdict(),
        "cache_hit": cost.hit / MOST_SHARE,
        "usd": None if cost.picos is None else usd(cost.picos),
        "usd_per_call": None if cost.each is None else usd(cost.each),
        "unpriced": cost.why or None,
    }
