"""A month on one page: what the dashboard's pages say, in a file that needs no server, for mail, paper and PDF."""

from __future__ import annotations

import calendar
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from farthing.fx import amount
from farthing.meters import METERS
from farthing.reports import _draw as draw
from farthing.reports import _shown as shown
from farthing.reports import footer_lines
from farthing.reports._page import card, cards, document
from farthing.web._drawn import cost_of, daily, figure, flows, rows, steps
from farthing.web._page import DAY, Page, Row, Sheet, View, as_json
from farthing.web._proof import prices, reconcile
from farthing.web._saving import savings
from farthing.web._usage import bill, rates

MOST_ROWS = 12  # of teams, models, advice, rates: Gmail shows no more than 100 kB of a mail


@dataclass(frozen=True)
class Month:
    """The pages of it; `billed` is there where an AWS bill was named, `savings` where they were wanted."""

    view: View
    bill: Page
    rates: Sheet
    prices: Page
    savings: Page | None
    billed: Page | None


def month(view: View, *, advised: bool = True) -> Month:
    """`advised` tells whether savings are looked for: of all that is here they take longest."""
    billed = None if view.statement() is None else reconcile(view)
    made = bill(view)
    if view.scope:  # which files were rejected, and how much was read, is of all teams
        priced = made.footer["priced"] + made.footer["unpriced"]
        made.footer = {**made.footer, "read": priced, "rejected": 0, "rejected_reasons": []}
    return Month(view, made, rates(view), prices(view), savings(view) if advised else None, billed)


def to_html(made: Month) -> str:
    """The page. The same usage, prices and day make the same bytes."""
    view = made.view
    what = title(view)
    said = [made.bill.heading, f"in {view.currency}", f"days of {view.question.tz}"]
    said += [f"{where.key}{'!' * where.negated}={','.join(where.values)}" for where in view.question.where]
    said += [f"{name} taken to be {value}" for name, value in view.question.assume.items()]
    under = ["; ".join(said), f"Price book {view.question.book.digest}; made on {view.now:%Y-%m-%d}"]
    under += [_warning(made.bill.footer)]
    return document(what, what, under, _body(made))


def _warning(footer: Mapping[str, Any]) -> str:
    """On top, before any figure."""
    said = [
        f"{amount(footer['assumed_usd'])} of it is assumed" if footer["assumed_usd"] else "",
        f"{footer['unpriced']:,} calls have no price and are in no figure" if footer["unpriced"] else "",
        f"{footer['rejected']:,} lines could not be read" if footer["rejected"] else "",
    ]
    return "; ".join(filter(None, said)) or "Nothing is assumed, and nothing is without a price"


def title(view: View) -> str:
    """Of the window, and on top."""
    whose = f"{', '.join(view.scope)}: " if view.scope else ""
    return f"{whose}Claude on Amazon Bedrock, {days(view)}"


def days(view: View) -> str:
    """The days in words: a month by its name."""
    first, last = view.question.since, view.question.until
    assert first
    assert last
    if first.day == 1 and (last + DAY).day == 1 and (first.year, first.month) == (last.year, last.month):
        return f"{calendar.month_name[first.month]} {first.year}"
    return f"{first} to {last}"


def _body(made: Month) -> Iterator[str]:
    view, tables = made.view, made.bill.tables
    yield cards([figure(kpi, view.currency) for kpi in made.bill.kpis])
    yield card("How the bill was made", "From list price to what it comes to", steps(tables["waterfall"]))
    yield card("Daily cost by model", "At the prices in force on each day", daily(tables["daily"]))
    yield card(
        "Where the money went", "From models to kinds of tokens", flows(tables["flows"], tables["models"])
    )
    columns = ("team", "calls", "tokens", "output", "cache_read", cost_of(tables["teams"]))
    yield card("By team", _by_claim(made.bill), rows(tables["teams"], columns, most=MOST_ROWS))
    if made.savings:
        yield from _savings(made.savings)
    if made.billed:
        yield _reconciled(made.billed)
    yield _doubts(made.bill.footer)
    yield card(
        "Prices at risk", "What is known to change, of models in use", _ahead(made.prices.tables["ahead"])
    )
    yield card("Day by day", "The figures of the chart above", _by_day(tables["daily"]), breaks=True)
    under = "Rates are dollars per million tokens; each times its tokens is a part of the cost"
    yield card("Where the rates are from", under, _rates(made.rates))
    yield card("What this rests on", "", draw.notes([*footer_lines(made.bill.footer), *made.bill.notes]))


def _doubts(footer: Mapping[str, Any]) -> str:
    """What is no part of the figures, or rests on an assumption."""
    rows = [
        (f"Assumed {one['name']}", shown.say("usd", one["usd"]), f"{one['calls']:,} calls; {one['settle']}")
        for one in footer["assumed"]
    ]
    rows += [
        ("Unpriced", "unknown", f"{count:,} calls: {reason}")
        for reason, count in footer["unpriced_reasons"].items()
    ]
    if footer["rejected"]:
        rows.append(("Rejected", "unknown", f"{footer['rejected']:,} lines could not be read"))
    if not rows:
        return card(
            "What is not certain", "Nothing is assumed, and every call that was read is in the figures", ""
        )
    return card(
        "What is not certain", "Assumed money is in the figures; what has no price is in none of them",
        draw.table(("", "cost", ""), rows, {1}),
    )  # fmt: skip


def _by_claim(page: Page) -> str:
    return next(
        (note for note in page.notes if note.startswith("no teams")), "As farthing.toml says whose calls are"
    )


# --- money over days, and from models to meters ----------------------------------------------------------------------


def _by_day(sheet: Sheet) -> str:
    """A row a day, a column for each band of the chart."""
    cost, places = cost_of(sheet), sorted({row["day"] for row in sheet.rows})
    sums: dict[str, dict[str, int]] = {}
    for row in sheet.rows:
        sums.setdefault(row["model"], {})[row["day"]] = row[cost] or 0
    series = draw.fold(sums, places)
    show = [[amount(value, sheet.currency) for value in values] for _, values in series]
    sums_of = [sum(values[at] for _, values in series) for at in range(len(places))]
    rows = [
        (place, *(column[at] for column in show), amount(sums_of[at], sheet.currency))
        for at, place in enumerate(places)
    ]
    total = [amount(sum(values), sheet.currency) for _, values in series]
    heads = ("day", *(name.removeprefix("claude-") for name, _ in series), "cost")
    bars = [draw.bar(value, max(sums_of)) for value in sums_of]
    return draw.table(
        heads,
        rows,
        range(1, len(heads)),
        total=("in all", *total, amount(sum(sums_of), sheet.currency)),
        bars=bars,
    )


def _ahead(sheet: Sheet) -> str:
    columns = ("model", "what", "starts", "calls", "usd", "source")
    found = sorted(sheet.rows, key=lambda row: (row["starts"], row["model"], row["what"]))
    return shown.rows(columns, found, heads=sheet.titles, most=MOST_ROWS, summed=False, empty=sheet.empty)


def _rates(sheet: Sheet) -> str:
    """A row a card, with those of its rates that were used."""
    cards: dict[str, Row] = {}
    for row in sheet.rows:
        card = cards.setdefault(row["card"], {"card": row["card"], "source": row["source"], "usd": 0})
        card[row["meter"]] = row["usd_per_million"]
        card["usd"] += row["usd"]
    rows = sorted(cards.values(), key=lambda card: (-card["usd"], card["card"]))
    return shown.rows(
        ("card", *METERS, "usd", "source"), rows, most=MOST_ROWS, summed=False, empty=sheet.empty
    )


# --- savings and the bill --------------------------------------------------------------------------------------------


def _savings(page: Page) -> Iterator[str]:
    yield card(
        "Savings found", "From now to all that the owners of workloads allow; in USD",
        cards([figure(kpi, "USD") for kpi in page.kpis[:3]]) + steps(page.tables["waterfall"]) + draw.notes(page.notes),
    )  # fmt: skip
    advice = page.tables["advice"]
    rows = [row | {"advice": row["says"]} for row in advice.rows]
    columns = ("workload", "model", "advice", "permitted", "saved_usd")
    text = shown.rows(
        columns,
        rows,
        heads={"permitted": "allowed", "saved_usd": "saves"},
        most=MOST_ROWS,
        empty=advice.empty,
    )
    yield card("Advice", "Each alone: they overlap, so they do not add up", text)


def _reconciled(page: Page) -> str:
    if page.missing:
        return card("Against the AWS bill", "", draw.notes([": ".join(page.missing)]))
    state = "Not every dollar is explained" if page.failed else "Every dollar is explained"
    compared = page.extra["span_compared"]
    causes, columns = page.tables["causes"], ("cause", "where", "lines", "explained", "usd")
    return card(
        "Against the AWS bill", f"{state}; {compared['since']} to {compared['until']}, in USD",
        cards([figure(kpi, "USD") for kpi in page.kpis])
        + shown.rows(columns, _by_name(causes.rows), heads=causes.titles, most=MOST_ROWS, empty=causes.empty)
        + draw.notes(page.notes),
    )  # fmt: skip


def _by_name(causes: list[Row]) -> list[Row]:
    """A row a cause: of what shows it, the place where it is dearest; the dashboard has all of them."""
    named: dict[tuple[str, bool], list[Row]] = {}
    for row in causes:
        named.setdefault((row["cause"], row["explained"]), []).append(row)
    return [
        max(rows, key=lambda row: abs(row["usd"]))
        | {"lines": sum(row["lines"] for row in rows), "usd": sum(row["usd"] for row in rows)}
        | ({"where": f"{rows[0]['where']} and {len(rows) - 1:,} more"} if len(rows) > 1 else {})
        for rows in named.values()
    ]


def to_json(made: Month) -> Row:
    """Each of its pages, as the dashboard has it."""
    pages = {"bill": made.bill, "savings": made.savings, "reconcile": made.billed, "prices": made.prices}
    return {"title": title(made.view)} | {
        name: as_json(name, page, made.view) for name, page in pages.items() if page is not None
    }
