"""Reports for people: terminal tables with Rich, and CSV. JSON is `reports.as_json`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from farthing.fx import amount
from farthing.meters import METERS
from farthing.money import usd
from farthing.reports import Table, footer_lines, inert, is_amount, percent
from farthing.reports import like as _like

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_HEADS = {
    "cache_read": "read", "cache_write_5m": "write 5m", "cache_write_1h": "write 1h",
    "eligible_usd": "eligible", "applied_usd": "saved already", "missing_usd": "still missing",
    "upper_usd": "at most", "billed_usd": "billed", "billed_eligible_usd": "billed",
    "billed_applied_usd": "billed", "billed_missing_usd": "billed",
}  # fmt: skip
_BAR = 24  # cells; fewer in a narrow terminal
_FOLDED = 14  # cells that a column of text has at least, if it needs them


def to_csv(table: Table) -> str:
    """The rows as CSV, amounts exact, empty where unpriced. What a spreadsheet would run is quoted."""
    out = io.StringIO()
    writer = csv.DictWriter(out, table.columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        writer.writerow({name: _csv(name, row[name], table.currency) for name in table.columns})
    return out.getvalue()


def _csv(name: str, value: Any, currency: str) -> Any:
    if value is None:
        return ""
    return usd(value) if is_amount(name, currency) else inert(value)


def print_table(table: Table, console: Console) -> None:
    """Title, heading, further parts, rows, footer. A number is never cut: a narrow terminal wraps text columns.

    Of amounts that are there in another currency too, those are shown.
    """
    from rich.text import Text

    console.print(Text.assemble((table.title, "bold"), ("  " + table.heading, "dim italic")))
    if "waterfall" in table.parts:
        _print_waterfall(table.parts["waterfall"], console, table.currency)
    if table.rows:
        _print_rows(table.columns, table.rows, console, table.currency, _HEADS | table.heads)
    else:
        console.print(f"  {table.empty}")
    for name, part in table.parts.items():
        if _like(name, table.currency) == name or _like(name, table.currency) not in table.parts:
            _print_part(name, part, console, table.currency)
    for line in footer_lines(table.footer):
        console.print(_text(line, "dim"))


def _print_rows(
    columns: Iterable[str],
    rows: list[dict[str, Any]],
    console: Console,
    currency: str,
    heads: Mapping[str, str] = _HEADS,
) -> None:
    """As a table; where that is wider than the terminal without the meters; where that is too, row by row."""
    shown = [name for name in columns if not _dull(name, rows)]
    shown = [name for name in shown if name == _like(name, currency) or _like(name, currency) not in shown]
    body = [{name: _shown(name, row[name], currency) for name in shown} for row in rows]
    totals = _totals(shown, rows, currency)
    numbers = {name for name in shown if _is_number(name, rows, currency)}
    named = {name: _head(name, currency, heads) for name in shown}
    told = [named, *body, totals] if totals else [named, *body]
    narrow = [name for name in shown if name not in METERS] if "tokens" in shown else shown
    for kept in (shown, narrow):
        if _width(kept, numbers, told) <= console.width:
            _print_table([(named[name], name, name in numbers) for name in kept], body, totals, console)
            break
    else:
        _print_one_by_one(named, numbers, body, totals, console)
        return
    if kept != shown:
        left = ", ".join(named[name] for name in shown if name not in kept)
        console.print(_text(f"{left}: in a wider terminal, --json and --csv", "dim"))


def _width(columns: Iterable[str], numbers: set[str], told: Iterable[Mapping[str, str]]) -> int:
    """The least that a table of these takes: text may be folded, a number may not."""
    from rich.cells import cell_len

    rows = list(told)
    widths = {name: max(cell_len(row[name]) for row in rows) for name in columns}
    return sum(w if name in numbers else min(w, _FOLDED) for name, w in widths.items()) + 3 * len(widths)


def _print_table(
    columns: list[tuple[str, str, bool]], body: list[dict[str, str]], totals: dict[str, str], console: Console
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.table import Table as RichTable

    out = RichTable(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for head, name, number in columns:
        widest = max([cell_len(head), *(cell_len(row[name]) for row in body)])
        out.add_column(
            _text(head),
            justify="right" if number else "left",
            no_wrap=number,
            overflow="fold",
            min_width=widest if number else min(widest, _FOLDED),
        )
    for row in body:
        out.add_row(*(_text(row[name]) for _, name, _ in columns))
    if totals:
        out.add_section()
        out.add_row(*(_text(totals[name]) for _, name, _ in columns), style="bold")
    console.print(out)


def _print_one_by_one(
    named: Mapping[str, str],
    numbers: set[str],
    body: list[dict[str, str]],
    totals: dict[str, str],
    console: Console,
) -> None:
    """A line of each number, under the words of its row: nothing is cut, however narrow it is."""
    wide = max((len(named[name]) for name in numbers), default=0)
    for row in [*body, totals] if totals else body:
        console.print()
        console.print(_text("  ".join(row[name] for name in named if name not in numbers and row[name])))
        for name in named:
            if name in numbers and row[name]:
                console.print(_text(f"  {named[name]:<{wide}}  {row[name]}"), overflow="fold")


def _text(said: str, style: str = "") -> Text:
    """As it is: names of others hold no markup and no escape sequences."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else "\ufffd" for c in said), style)


def _totals(shown: list[str], rows: list[dict[str, Any]], currency: str) -> dict[str, str]:
    """The last row, where there is something to add up."""
    if _like("usd", currency) not in shown or len(rows) < 2:
        return {}
    skip = {"calls"} if "meter" in shown else set()  # a call uses several meters
    skip |= {"quantity", "billed"} if "unit" in shown else set()
    return {
        name: "total" if i == 0 else "" if name in skip else _total(name, rows, currency)
        for i, name in enumerate(shown)
    }


def _print_part(name: str, part: Any, console: Console, currency: str) -> None:
    """A further table of a report, or an amount; what is empty is left out, and so is what is printed elsewhere."""
    from rich.text import Text

    title = (name[:-4] if is_amount(name, currency) else name).replace("_", " ")
    if is_amount(name, currency):
        said = "not told under these filters" if part is None else _shown(name, part, currency)
        console.print(f"{title}: {said}")
    elif name == "notes":
        for line in part:
            console.print(_text(f"note: {line}"))
    elif name != "waterfall" and part:
        console.print(Text(title, "bold"))
        columns = dict.fromkeys(column for row in part for column in row)
        ranged = any(row.get("upper_usd") != row.get("usd") for row in part)
        shown = [column for column in columns if ranged or column != "upper_usd"]
        _print_rows(
            shown, [{column: row.get(column, "") for column in shown} for row in part], console, currency
        )


def _head(name: str, currency: str, heads: Mapping[str, str]) -> str:
    if not is_amount(name, currency):
        return heads.get(name, name)
    of = name[:-3]  # without the currency
    return heads.get(f"{of}usd", name if of else name.upper())


def _dull(name: str, rows: list[dict[str, Any]]) -> bool:
    """A meter that nobody used is not shown."""
    return name.startswith("cache_") and not any(row[name] for row in rows)


def _is_number(name: str, rows: list[dict[str, Any]], currency: str) -> bool:
    return (
        is_amount(name, currency)
        or name == "share"
        or all(row[name] is None or isinstance(row[name], int) for row in rows)
    )


def _total(name: str, rows: list[dict[str, Any]], currency: str) -> str:
    if not _is_number(name, rows, currency) or name == "share":
        return ""
    return _shown(name, sum(row[name] or 0 for row in rows), currency)


def _shown(name: str, value: Any, currency: str) -> str:
    if value is None:
        if not is_amount(name, currency):
            return "-"
        return "unpriced" if name == _like("usd", currency) or name == "usd" else "unknown"
    if name == "share":
        return percent(value)
    if is_amount(name, currency):
        return amount(value, "USD" if name.endswith("usd") else currency)
    if isinstance(value, int):
        return f"{value:,}"
    return "…" + value.rsplit(":", 1)[-1] if str(value).startswith("arn:") else str(value) or "-"


def _print_waterfall(steps: list[dict[str, Any]], console: Console, currency: str) -> None:
    from rich.cells import cell_len
    from rich.table import Table as RichTable

    unit = currency.lower()
    beside = ["billed_usd"] if "billed_usd" in steps[0] else []
    ends = {0, len(steps) - 1}
    signed = [i not in ends and step[unit] >= 0 for i, step in enumerate(steps)]
    told = [
        [("+" if plus else "") + amount(step[unit], currency), *(amount(step[name]) for name in beside)]
        for plus, step in zip(signed, steps, strict=True)
    ]
    widths = [max(cell_len(row[i]) for row in told) for i in range(len(told[0]))]
    left = console.width - sum(max(width, len("computed")) + 2 for width in widths) - 2
    labels = min(max(cell_len(step["label"]) for step in steps), max(left - _BAR, _FOLDED))
    room = max(0, min(_BAR, left - labels))
    out = RichTable(box=None, show_header=bool(beside), pad_edge=False, header_style="")
    out.add_column(width=labels, overflow="fold")
    for head, width in zip(("computed", *("billed" for _ in beside)), widths, strict=True):
        out.add_column(head, justify="right", no_wrap=True, min_width=width)
    out.add_column(no_wrap=True)
    heights = [0]
    for step in steps[:-1]:
        heights.append(heights[-1] + step[unit])
    for i, step in enumerate(steps):
        picos = step[unit]
        start = 0 if i in ends else min(heights[i], heights[i + 1])
        style = "cyan" if i in ends else ("red" if picos > 0 else "green")
        bar = _text(_bar(start, abs(picos), max(heights), room), style)
        out.add_row(_text(step["label"]), *map(_text, told[i]), bar, style="bold" if i in ends else "")
    console.print()
    console.print(out)


def _bar(start: int, length: int, peak: int, room: int) -> str:
    """A bar in half cells; anything above nothing is at least a half."""
    if peak <= 0 or not length or not room:
        return ""
    halves = max(1, length * room * 2 // peak)
    return " " * (start * room // peak) + "█" * (halves // 2) + "▌" * (halves % 2)
