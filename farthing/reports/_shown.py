"""Rows as people read them on a page or in a notebook: which columns, under which heads, and how each value is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from farthing.fx import amount
from farthing.meters import METERS
from farthing.money import usd
from farthing.reports import _draw as draw
from farthing.reports._said import escape
from farthing.reports._table import Table, is_amount
from farthing.reports._under import footer_lines, like, percent

Rows = Sequence[Mapping[str, Any]]
_HEADS = {
    "usd": "cost", "cache_read": "cache reads", "cache_write_5m": "writes 5m", "cache_write_1h": "writes 1h",
    "eligible_usd": "eligible", "applied_usd": "saved already", "missing_usd": "still missing", "upper_usd": "at most",
    "usd_per_million": "$ per million", "unpriced_calls": "unpriced",
}  # fmt: skip
_SKIPPED = ("says", "_rows")
MOST = 31  # rows; JSON and CSV have all


def rows(
    columns: Sequence[str],
    found: Rows,
    *,
    currency: str = "USD",
    heads: Mapping[str, str] | None = None,
    most: int = MOST,
    summed: bool = True,
    empty: str = "nothing",
) -> str:
    """A table with bars beside what it cost, where that is what its rows are about, and their sum."""
    if not found:
        return f'<p class="dim">{escape(empty)}</p>'
    names = [name for name in columns if not _dull(name, found)]
    names = [name for name in names if name == like(name, currency) or like(name, currency) not in names]
    numbers = {at for at, name in enumerate(names) if _is_number(name, found, currency)}
    cost = like("usd", currency) if like("usd", currency) in names else "usd"
    shown = found[:most]
    bars: list[str] = []
    total: list[str] = []
    if summed and cost in names and len(found) > 1:
        costs = [row.get(cost) or 0 for row in found]
        if min(costs) >= 0 and names[-1] == cost:
            bars = [draw.bar(value, max(costs)) for value in costs[:most]]
        sums = {name for name in names if is_amount(name, currency)} | {"calls", "tokens", *METERS} & set(
            names
        )
        sums -= {"calls"} if "meter" in names else set()  # a call uses several meters
        total = [_sum(name, found, currency) if name in sums else "" for name in names]
        total[0] = total[0] or "in all"
    text = [[say(name, row.get(name), currency) for name in names] for row in shown]
    made = draw.table(
        [_head(name, currency, heads or {}) for name in names], text, numbers, total=total, bars=bars
    )
    more = f'<p class="dim">the first {most:,} of {len(found):,} rows</p>' if len(found) > most else ""
    return made + more


def _dull(name: str, found: Rows) -> bool:
    """A meter that nobody used, and what is for other readers."""
    return name in _SKIPPED or (name in METERS[2:] and not any(row.get(name) for row in found))


def _is_number(name: str, found: Rows, currency: str) -> bool:
    if is_amount(name, currency) or name in ("share", "usd_per_million", *METERS):
        return True
    values = [row.get(name) for row in found]
    return all(value is None or (isinstance(value, int) and value is not True) for value in values)


def _head(name: str, currency: str, heads: Mapping[str, str]) -> str:
    if is_amount(name, currency) and not name.endswith("usd"):
        name = f"{name[: -len(currency)]}usd"
    if said := heads.get(name) or _HEADS.get(name):
        return said
    return name.removesuffix("_usd").replace("_", " ")


def _sum(name: str, found: Rows, currency: str) -> str:
    known = [row[name] for row in found if row.get(name) is not None]
    return say(name, sum(known) if known else None, currency)


def say(name: str, value: Any, currency: str = "USD") -> str:
    """A value of the column of this name, as people read it."""
    if value is None:
        if not is_amount(name, currency):
            return "–"
        return "unpriced" if name in ("usd", like("usd", currency)) else "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "share":
        return percent(value) if value else "–"
    if is_amount(name, currency) and isinstance(value, int):
        return amount(value, "USD" if name.endswith("usd") else currency)
    if isinstance(value, int):
        return tokens(value) if name == "tokens" or name in METERS else f"{value:,}"
    text = str(value)
    return "…" + text.rsplit(":", 1)[-1] if text.startswith("arn:") else text or "–"


def tokens(count: int) -> str:
    """Rounded to three or four digits, as the dashboard does: nobody reads the others.

    >>> tokens(2_912_345_678), tokens(75_450_000), tokens(-12_345), tokens(9_999), tokens(999_950)
    ('2.9B', '75.5M', '-12.3K', '9,999', '1.0M')
    """
    size = abs(count)
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if size >= max(unit - unit // 20_000, 10_000):
            tenths = (size * 10 + unit // 2) // unit
            return f"{'-' * (count < 0)}{tenths // 10:,}.{tenths % 10}{name}"
    return f"{count:,}"


# --- a report in a notebook ------------------------------------------------------------------------------------------


def to_html(table: Table) -> str:
    """All of a report: its chart, its rows, its further parts, and what stands under it."""
    parts = [f"<p><b>{escape(table.title)}</b> <i>{escape(table.heading)}</i></p>"]
    parts.append(f'<div style="margin:0 0 14px">{chart(table)}</div>')
    parts.append(
        rows(table.columns, table.rows, currency=table.currency, heads=table.heads, empty=table.empty)
    )
    for name, part in table.parts.items():
        also = like(name, table.currency)
        if name != "waterfall" and (also == name or also not in table.parts):
            parts.append(_part(name, part, table))
    under = "<br>".join(escape(line) for line in footer_lines(table.footer)) if table.footer else ""
    return f'<div style="max-width:60rem">{"".join(parts)}<p style="font-size:85%">{under}</p></div>'


def _part(name: str, part: Any, table: Table) -> str:
    title = escape(name.removesuffix("_usd").replace("_", " "))
    if name == "notes":
        return draw.notes(part)
    if isinstance(part, list) and part and isinstance(part[0], dict):
        columns = list(dict.fromkeys(column for row in part for column in row))
        return f"<p><b>{title}</b></p>{rows(columns, part, currency=table.currency, heads=table.heads)}"
    if is_amount(name, table.currency) and isinstance(part, int):
        return f"<p>{title}: {escape(say(name, part, table.currency))}</p>"
    return ""


def chart(table: Table) -> str:
    """Steps as a waterfall, what goes over days as bars; "" where the rows are chart enough."""

    def show(value: int) -> str:
        return amount(value, table.currency)

    cost = like("usd", table.currency)
    if steps := table.parts.get("waterfall"):
        ends = {0, len(steps) - 1}
        return draw.waterfall(
            [
                draw.Step(step["label"], step.get(cost, step["usd"]), at in ends)
                for at, step in enumerate(steps)
            ],
            show,
        )
    time = next((key for key in ("day", "week", "month") if key in table.columns[:1]), "")
    if not time or cost not in table.columns or len({row[time] for row in table.rows}) < 2:
        return ""
    by = next((key for key in table.columns[1:] if key in ("model", "team", "meter", "endpoint")), "")
    return over_time(table.rows, time, by, cost, show)


def over_time(found: Rows, time: str, by: str, cost: str, show: draw.Show) -> str:
    """Days and what they cost, in bands of what is dearest, with a legend where there is more than one."""
    places = sorted({str(row[time]) for row in found})
    sums: dict[str, dict[str, int]] = {}
    for row in found:
        band = sums.setdefault(str(row[by]) if by else "cost", {})
        band[str(row[time])] = band.get(str(row[time]), 0) + (row[cost] or 0)
    series = draw.fold(sums, places)
    whole = sum(sum(values) for _, values in series)
    says = f"Cost by {time}, {places[0]} to {places[-1]}: {show(whole)} in all"
    return (draw.legend(series, show) if by else "") + draw.stack(places, series, show, says)


def bundle(table: Table) -> dict[str, str]:
    """What notebooks show of a report: HTML, and a line where that cannot be."""
    cost = table.footer.get("usd")
    line = f"{table.title}: {len(table.rows):,} rows" + (f", ${usd(cost)}" if isinstance(cost, int) else "")
    return {"text/html": to_html(table), "text/plain": line}
