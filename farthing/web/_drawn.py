"""Pages of the dashboard drawn without a browser: pieces for a file, and whole for a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from farthing.fx import amount
from farthing.reports import _draw as draw
from farthing.reports import _shown as shown
from farthing.reports import footer_lines, like, percent
from farthing.reports._said import escape
from farthing.web._page import Kpi, Page, Row, Sheet

_WRITES = ("cache_write_5m", "cache_write_1h")
_ADVICE = 12  # rows in a notebook


def cost_of(sheet: Sheet) -> str:
    """The column of what it cost, in the page's currency."""
    also = like("usd", sheet.currency)
    return also if also in sheet.columns else "usd"


def figure(kpi: Kpi, currency: str = "USD") -> tuple[str, str, str]:
    """What, how much, and a word on it."""
    value = kpi.value
    if isinstance(value, int):
        text = {"usd": amount(value), "money": amount(value, currency)}.get(kpi.kind, f"{value:,}")
    else:
        text = percent(value) if kpi.kind == "share" and value else str(value or "–")
    return kpi.title, text, kpi.note


def rows(sheet: Sheet, columns: Sequence[str] = (), *, summed: bool = True, most: int = shown.MOST) -> str:
    """As they are, or some columns of them."""
    return shown.rows(
        columns or sheet.columns, sheet.rows, currency=sheet.currency, heads=sheet.titles, most=most,
        empty=sheet.empty, summed=summed,
    )  # fmt: skip


def steps(sheet: Sheet) -> str:
    """From the first row to the last, which are sums."""
    cost, ends = cost_of(sheet), (0, len(sheet.rows) - 1)
    label = sheet.columns[0]
    found = [draw.Step(str(row[label]), row[cost], at in ends) for at, row in enumerate(sheet.rows)]
    return draw.waterfall(found, lambda value: amount(value, sheet.currency if cost != "usd" else "USD"))


def daily(sheet: Sheet) -> str:
    """Days in bands of models."""
    if not sheet.rows:
        return shown.rows((), (), empty=sheet.empty)
    return shown.over_time(
        sheet.rows, "day", "model", cost_of(sheet), lambda value: amount(value, sheet.currency)
    )


def flows(sheet: Sheet, models: Sheet) -> str:
    """A drawing, and the same as a table: models down, kinds of tokens across."""
    cost = cost_of(sheet)
    found: dict[tuple[str, str], int] = {}
    for row in sheet.rows:
        meter = "cache write" if row["meter"] in _WRITES else row["meter"].replace("_", " ")
        pair = (str(row["model"]), meter)
        found[pair] = found.get(pair, 0) + (row[cost] or 0)
    meters = [
        name
        for name in ("input", "output", "cache read", "cache write")
        if any(pair[1] == name for pair in found)
    ]
    meters += sorted({meter for _, meter in found} - set(meters))  # what is no token
    listed: list[Row] = [
        {"model": row["model"], "calls": row["calls"], "tokens": row["tokens"], cost: row[cost]}
        | {
            f"{meter}_{cost}": None if row[cost] is None else found.get((str(row["model"]), meter), 0)
            for meter in meters
        }
        for row in models.rows
    ]
    columns = ("model", "calls", "tokens", *(f"{meter}_{cost}" for meter in meters), cost)
    whole = amount(sum(found.values()), sheet.currency)
    table = shown.rows(columns, listed, currency=sheet.currency, empty=sheet.empty)
    return draw.flows(found, f"{whole} from models to kinds of tokens; the table has the figures") + table


# --- a page in a notebook ------------------------------------------------------------------------------------------


def to_html(page: Page) -> str:
    """All of a page: its figures, its tables with their charts, and what stands under it."""
    parts = [f"<p><b>{escape(page.title)}</b> <i>{escape(page.heading)}</i></p>"]
    if page.missing:
        parts.append(f"<p>{escape(': '.join(page.missing))}</p>")
    if page.kpis:
        found = [figure(kpi) for kpi in page.kpis]
        parts.append(
            draw.table([kpi[0] for kpi in found], [[kpi[1] for kpi in found], [kpi[2] for kpi in found]])
        )
    for name, sheet in page.tables.items():
        parts.append(f"<p><b>{escape(sheet.title)}</b></p>{_drawn(page, name, sheet)}")
    under = "<br>".join(map(escape, footer_lines(page.footer))) if page.footer else ""
    parts += [draw.notes(page.notes), f'<p style="font-size:85%">{under}</p>']
    return f'<div style="max-width:60rem">{"".join(parts)}</div>'


def _drawn(page: Page, name: str, sheet: Sheet) -> str:
    if sheet.rows and name in ("waterfall", "steps"):
        return steps(sheet)
    if name == "daily":
        return daily(sheet)
    if name == "flows":
        return flows(sheet, page.tables["models"])
    if name == "advice":
        found = [row | {"advice": row["says"]} for row in sheet.rows]  # what to do, and what is in its way
        columns = ("workload", "model", "advice", "saved_usd", "why_not")
        return shown.rows(columns, found, heads=sheet.titles, most=_ADVICE, empty=sheet.empty, summed=False)
    return rows(sheet, summed=name not in ("sides", "ahead"))


def bundle(page: Page) -> dict[str, str]:
    """What notebooks show of a page: HTML, and its figures in a line where that cannot be."""
    said = ", ".join(f"{what} {value}" for what, value, _ in map(figure, page.kpis))
    return {"text/html": to_html(page), "text/plain": f"{page.title}: {said}" if said else page.title}
