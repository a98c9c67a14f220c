"""Reports for people: terminal tables with Rich, and CSV. JSON is `reports.as_json`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from farthing.money import show, usd
from farthing.reports import Table

if TYPE_CHECKING:
    from rich.console import Console

_HEADS = {
    "cache_read": "read", "cache_write_5m": "write 5m", "cache_write_1h": "write 1h", "usd": "USD",
    "eligible_usd": "eligible", "applied_usd": "saved already", "missing_usd": "still missing",
    "upper_usd": "at most",
}  # fmt: skip
_BAR = 24


def to_csv(table: Table) -> str:
    """The rows as CSV, amounts in exact dollars, empty where unpriced."""
    out = io.StringIO()
    writer = csv.DictWriter(out, table.columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        writer.writerow({name: _csv(name, row[name]) for name in table.columns})
    return out.getvalue()


def _csv(name: str, value: Any) -> Any:
    if value is None:
        return ""
    return usd(value) if name.endswith("usd") else value


def print_table(table: Table, console: Console) -> None:
    """Title, heading, further parts, rows, footer. A number is never cut: a narrow terminal wraps text columns."""
    from rich.text import Text

    console.print(Text.assemble((table.title, "bold"), ("  " + table.heading, "dim italic")))
    if "waterfall" in table.parts:
        _print_waterfall(table.parts["waterfall"], console)
    if table.rows:
        _print_rows(table.columns, table.rows, console)
    else:
        console.print(f"  {table.empty}")
    for name, part in table.parts.items():
        _print_part(name, part, console)
    for line in footer_lines(table.footer):
        console.print(Text(line, "dim"))


def _print_rows(columns: Iterable[str], rows: list[dict[str, Any]], console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    shown = [name for name in columns if not _dull(name, rows)]
    out = RichTable(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in shown:
        number = bool(rows) and _is_number(name, rows)
        out.add_column(
            _HEADS.get(name, name), justify="right" if number else "left", no_wrap=number, overflow="fold"
        )
    for row in rows:
        out.add_row(*(_shown(name, row[name]) for name in shown))
    if "usd" in shown and len(rows) > 1:
        out.add_section()
        skip = {"calls"} if "meter" in shown else set()  # a call uses several meters
        totals = (
            "total" if i == 0 else "" if name in skip else _total(name, rows) for i, name in enumerate(shown)
        )
        out.add_row(*totals, style="bold")
    console.print(out)


def _print_part(name: str, part: Any, console: Console) -> None:
    """A further table of a report, or an amount; what is empty is left out, and so is what is printed elsewhere."""
    from rich.text import Text

    title = name.removesuffix("_usd").replace("_", " ")
    if name.endswith("usd"):
        console.print(f"{title}: {'not told under these filters' if part is None else show(part)}")
    elif name != "waterfall" and part:
        console.print(Text(title, "bold"))
        columns = dict.fromkeys(column for row in part for column in row)
        ranged = any(row.get("upper_usd") != row.get("usd") for row in part)
        shown = [column for column in columns if ranged or column != "upper_usd"]
        _print_rows(shown, [{column: row.get(column, "") for column in shown} for row in part], console)


def _dull(name: str, rows: list[dict[str, Any]]) -> bool:
    """A meter that nobody used is not shown."""
    return name.startswith("cache_") and not any(row[name] for row in rows)


def _is_number(name: str, rows: list[dict[str, Any]]) -> bool:
    return (
        name.endswith("usd")
        or name == "share"
        or all(row[name] is None or isinstance(row[name], int) for row in rows)
    )


def _total(name: str, rows: list[dict[str, Any]]) -> str:
    if not _is_number(name, rows) or name == "share":
        return ""
    return _shown(name, sum(row[name] or 0 for row in rows))


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "unpriced" if name.endswith("usd") else "-"
    if name == "share":
        return percent(value)
    if name.endswith("usd"):
        return show(value)
    if isinstance(value, int):
        return f"{value:,}"
    return "…" + value.rsplit(":", 1)[-1] if str(value).startswith("arn:") else str(value) or "-"


def percent(share: str) -> str:
    """An exact share for people, who want to see that something is more than nothing and less than all.

    >>> percent("0.123456"), percent("0.00004"), percent("0.99996"), percent("1")
    ('12.3 %', '<0.1 %', '>99.9 %', '100.0 %')
    """
    of_100 = Decimal(share) * 100
    rounded = of_100.quantize(Decimal("0.1"))
    if rounded == 0 < of_100:
        return "<0.1 %"
    return ">99.9 %" if rounded == 100 > of_100 else f"{rounded} %"


def _print_waterfall(steps: list[dict[str, Any]], console: Console) -> None:
    from rich.table import Table as RichTable

    out = RichTable(box=None, show_header=False, pad_edge=False)
    out.add_column(no_wrap=True)
    out.add_column(justify="right", no_wrap=True)
    out.add_column(no_wrap=True)
    reached = peak = 0
    for step in steps[:-1]:
        reached += step["usd"]
        peak = max(peak, reached)
    reached = 0
    for i, step in enumerate(steps):
        amount = step["usd"]
        ends = i == 0 or i == len(steps) - 1
        start = 0 if ends else min(reached, reached + amount)
        style = "cyan" if ends else ("red" if amount > 0 else "green")
        text = show(amount) if ends or amount < 0 else "+" + show(amount)
        out.add_row(
            step["label"], text, f"[{style}]{_bar(start, abs(amount), peak)}[/]", style="bold" if ends else ""
        )
        reached = amount if i == 0 else reached + amount
    console.print()
    console.print(out)


def _bar(start: int, length: int, peak: int) -> str:
    """A bar in half cells; anything above nothing is at least a half."""
    if peak <= 0 or not length:
        return ""
    halves = max(1, length * _BAR * 2 // peak)
    return " " * (start * _BAR // peak) + "█" * (halves // 2) + "▌" * (halves % 2)


def footer_lines(footer: Mapping[str, Any]) -> list[str]:
    """What stands under a report, a line each."""
    read, priced, unpriced, rejected = (footer[name] for name in ("read", "priced", "unpriced", "rejected"))
    lines = [f"read {read:,} = priced {priced:,} + unpriced {unpriced:,} + rejected {rejected:,}"]
    lines += [
        f"  unpriced {count:,}: {reason}" for reason, count in list(footer["unpriced_reasons"].items())[:8]
    ]
    hidden = len(footer["unpriced_reasons"]) - 8
    lines += [f"  and {hidden} more reasons (--json has all)"] if hidden > 0 else []
    lines += [f"  rejected {reason}" for reason in footer["rejected_reasons"][:5]]
    for entry in footer["assumed"]:
        upper = f" (up to {show(entry['upper_usd'])} at the 1h price)" if "upper_usd" in entry else ""
        lines.append(f"assumed {entry['name']}: {show(entry['usd'])}{upper} of {entry['calls']:,} calls; "
                     f"settle it by {entry['settle']}")  # fmt: skip
    lines.append(f"USD, days of {footer['tz']}, price book {footer['book']}")
    return lines
