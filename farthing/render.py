"""Reports for people: terminal tables with Rich, and CSV. JSON is `reports.as_json`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from farthing.costs import off_sentence
from farthing.fx import amount
from farthing.money import usd
from farthing.reports import Table, is_amount

if TYPE_CHECKING:
    from rich.console import Console

_HEADS = {
    "cache_read": "read", "cache_write_5m": "write 5m", "cache_write_1h": "write 1h",
    "eligible_usd": "eligible", "applied_usd": "saved already", "missing_usd": "still missing",
    "upper_usd": "at most", "billed_usd": "billed", "billed_eligible_usd": "billed",
    "billed_applied_usd": "billed", "billed_missing_usd": "billed",
}  # fmt: skip
_BAR = 24


def to_csv(table: Table) -> str:
    """The rows as CSV, amounts exact, empty where unpriced."""
    out = io.StringIO()
    writer = csv.DictWriter(out, table.columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        writer.writerow({name: _csv(name, row[name], table.currency) for name in table.columns})
    return out.getvalue()


def _csv(name: str, value: Any, currency: str) -> Any:
    if value is None:
        return ""
    return usd(value) if is_amount(name, currency) else value


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
        console.print(Text(line, "dim"))


def _print_rows(
    columns: Iterable[str],
    rows: list[dict[str, Any]],
    console: Console,
    currency: str,
    heads: Mapping[str, str] = _HEADS,
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    shown = [name for name in columns if not _dull(name, rows)]
    shown = [name for name in shown if name == _like(name, currency) or _like(name, currency) not in shown]
    out = RichTable(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in shown:
        number = bool(rows) and _is_number(name, rows, currency)
        out.add_column(
            _head(name, currency, heads),
            justify="right" if number else "left",
            no_wrap=number,
            overflow="fold",
        )
    for row in rows:
        out.add_row(*(_shown(name, row[name], currency) for name in shown))
    if _like("usd", currency) in shown and len(rows) > 1:
        out.add_section()
        skip = {"calls"} if "meter" in shown else set()  # a call uses several meters
        skip |= {"quantity", "billed"} if "unit" in shown else set()
        totals = (
            "total" if i == 0 else "" if name in skip else _total(name, rows, currency)
            for i, name in enumerate(shown)
        )
        out.add_row(*totals, style="bold")
    console.print(out)


def _print_part(name: str, part: Any, console: Console, currency: str) -> None:
    """A further table of a report, or an amount; what is empty is left out, and so is what is printed elsewhere."""
    from rich.text import Text

    title = (name[:-4] if is_amount(name, currency) else name).replace("_", " ")
    if is_amount(name, currency):
        said = "not told under these filters" if part is None else _shown(name, part, currency)
        console.print(f"{title}: {said}")
    elif name == "notes":
        for line in part:
            console.print(Text(f"note: {line}"))
    elif name != "waterfall" and part:
        console.print(Text(title, "bold"))
        columns = dict.fromkeys(column for row in part for column in row)
        ranged = any(row.get("upper_usd") != row.get("usd") for row in part)
        shown = [column for column in columns if ranged or column != "upper_usd"]
        _print_rows(
            shown, [{column: row.get(column, "") for column in shown} for row in part], console, currency
        )


def _like(name: str, currency: str) -> str:
    """The name of the same amount in the table's currency; other names as they are."""
    return f"{name[:-3]}{currency.lower()}" if name.endswith("usd") else name


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
        return "unpriced" if is_amount(name, currency) else "-"
    if name == "share":
        return percent(value)
    if is_amount(name, currency):
        return amount(value, "USD" if name.endswith("usd") else currency)
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


def _print_waterfall(steps: list[dict[str, Any]], console: Console, currency: str) -> None:
    from rich.table import Table as RichTable

    unit = currency.lower()
    beside = ["billed_usd"] if "billed_usd" in steps[0] else []
    out = RichTable(box=None, show_header=bool(beside), pad_edge=False, header_style="")
    out.add_column(no_wrap=True)
    for head in ("computed", *("billed" for _ in beside)):
        out.add_column(head, justify="right", no_wrap=True)
    out.add_column(no_wrap=True)
    reached = peak = 0
    for step in steps[:-1]:
        reached += step[unit]
        peak = max(peak, reached)
    reached = 0
    for i, step in enumerate(steps):
        picos = step[unit]
        ends = i == 0 or i == len(steps) - 1
        start = 0 if ends else min(reached, reached + picos)
        style = "cyan" if ends else ("red" if picos > 0 else "green")
        text = ("" if ends or picos < 0 else "+") + amount(picos, currency)
        bar = f"[{style}]{_bar(start, abs(picos), peak)}[/]"
        out.add_row(
            step["label"], text, *(amount(step[name]) for name in beside), bar, style="bold" if ends else ""
        )
        reached = picos if i == 0 else reached + picos
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
    currency = footer["currency"]
    for entry in footer["assumed"]:
        upper = (
            f" (up to {_either(entry, 'upper_usd', currency)} at the 1h price)"
            if "upper_usd" in entry
            else ""
        )
        lines.append(f"assumed {entry['name']}: {_either(entry, 'usd', currency)}{upper} of {entry['calls']:,} calls; "
                     f"settle it by {entry['settle']}")  # fmt: skip
    lines.append(f"{currency}, days of {footer['tz']}, price book {footer['book']}")
    if left := footer.get("left_out"):
        lines.append(f"not in this report: {_either(left, 'usd', currency)} of {left['entries']:,} sessions, searches "
                     "and code run (`farthing bill` has them)")  # fmt: skip
    if offers := footer.get("offers"):
        lines.append(off_sentence(offers))
    if fx := footer.get("fx"):
        dates = list(fx["rates"])
        span = f"{dates[0]} to {dates[-1]}" if len(dates) > 1 else "".join(dates)
        lines.append(f"each day's dollars at its own rate, of {span} in {fx['file']} ({fx['digest']})")
    return lines


def _either(entry: Mapping[str, Any], name: str, currency: str) -> str:
    """An amount in the currency, or in dollars where it is not there."""
    like = _like(name, currency)
    return amount(entry[like], currency) if like in entry else amount(entry[name])
