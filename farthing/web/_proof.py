"""Pages that hold the figures against something: the AWS bill, budgets, prices."""

from __future__ import annotations

import calendar
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from farthing.book import Card, Resolved
from farthing.cells import QuestionError, cells
from farthing.meters import METERS
from farthing.money import mtok_usd
from farthing.reports import footer, heading
from farthing.web._page import DAY, Kpi, Page, Row, Sheet, View, narrowed, page, sheet

if TYPE_CHECKING:
    from farthing.reconcile import Cause, Reconciled

AHEAD_DAYS = 180

# --- reconcile -------------------------------------------------------------------------------------------------------


@page("Ours against AWS's: every dollar of the difference by its cause.", slow=True)
def reconcile(view: View) -> Page:
    from farthing.reconcile import reconcile as compare

    title = "Reconcile"
    if view.days is None:
        return Page(title, missing=("no usage yet", "import some first"))
    if view.scope:
        mend = "ask somebody who sees all teams"
        return Page(title, missing=("a bill is of all teams, and compared as a whole", mend))
    if view.question.where:
        mend = "take the filters away: a bill has all calls of its days"
        return Page(title, missing=("a bill is compared as a whole", mend))
    billed = view.statement()
    if billed is None:
        return Page(
            title, missing=("no AWS bill was given", "start with `farthing web --statement cur.parquet`")
        )
    first, last = _month(view)
    question = replace(view.question, since=first, until=last)
    found = compare(billed, view.ledger, question)
    sides = [
        {"side": "ours", "usd": found.ours_picos},
        {"side": "AWS's", "usd": found.billed_picos},
        {"side": "difference", "usd": found.difference_picos},
        {"side": "unexplained", "usd": found.unexplained_picos},
    ]
    bare = replace(view, question=question)
    sides[0]["_rows"] = bare.link()
    tables = {
        "sides": Sheet("Ours and AWS's", ("side", "usd"), sides),
        "causes": _causes(found),
        **{name: _sides(found, keys, label, bare) for name, keys, label in (
            ("models", ("model", "endpoint", "mode"), "By model"), ("days", ("day",), "By day"),
            ("meters", ("meter",), "By meter"))},
    }  # fmt: skip
    gross = found.unexplained_gross_picos
    kpis = [
        Kpi("ours", "Ours", "usd", found.ours_picos),
        Kpi("billed", "Billed by AWS", "usd", found.billed_picos),
        Kpi("difference", "Difference", "usd", found.difference_picos),
        Kpi(
            "unexplained", "Unexplained", "usd", gross, "too much here does not make up for too little there"
        ),
    ]
    under = cells(view.ledger, question)
    return Page(
        title, tables, kpis, heading(under), footer(view.ledger, question, under), found.notes,
        failed=gross > 10**10, extra={"span_compared": {"since": first.isoformat(), "until": last.isoformat()}},
    )  # fmt: skip


def _month(view: View) -> tuple[date, date]:
    """The days asked for, else the last month of usage that is whole, else the last."""
    question, used = view.question, view.days
    assert used
    if question.since and question.until:
        return question.since, question.until
    last = question.until or used[1]
    days = calendar.monthrange(last.year, last.month)[1]
    before = last.replace(day=1) - DAY
    if not question.until and last.day < days and before >= used[0]:
        last = before
    end = date(last.year, last.month, calendar.monthrange(last.year, last.month)[1])
    return question.since or last.replace(day=1), question.until or end


def _causes(found: Reconciled) -> Sheet:
    def rows(causes: list[Cause], *, known: bool) -> list[Row]:
        return [
            {
                "cause": cause.name,
                "where": cause.where,
                "usd": cause.picos,
                "lines": cause.lines,
                "explained": known,
            }
            for cause in causes
        ]

    listed = rows(found.explained, known=True) + rows(found.unexplained, known=False)
    kinds, titles = {"explained": "flag"}, {"where": "shown by"}
    columns = ("cause", "where", "usd", "lines", "explained")
    empty = "no difference: nothing to explain"
    return Sheet("The difference by its causes", columns, listed, kinds=kinds, titles=titles, empty=empty)


def _sides(found: Reconciled, keys: tuple[str, ...], title: str, view: View) -> Sheet:
    from farthing.reconcile import by

    columns = (*keys, "ours", "billed", "ours_usd", "billed_usd", "quantity_usd", "price_usd")
    rows = [
        {**{key: str(value) for key, value in zip(keys, row.keys, strict=True)}, "ours": row.ours, "billed": row.billed,
         "ours_usd": row.ours_picos, "billed_usd": row.billed_picos, "quantity_usd": row.quantity_picos,
         "price_usd": row.price_picos}
        for row in by(found.sides, keys)
    ]  # fmt: skip
    linked = tuple(key for key in keys if key != "meter")
    return Sheet(title, columns, rows, linked, kinds={"ours": "count", "billed": "count"})


# --- budgets ---------------------------------------------------------------------------------------------------------


@page("What is spent of each budget, what is left and what is to come.", slow=True)
def budgets(view: View) -> Page:
    today = view.now.astimezone(view.question.zone).date()
    asked = narrowed(view, until=min(view.question.until or today, today))
    try:
        made = asked.report("budgets")
    except QuestionError as error:
        why, _, mend = str(error).partition(": ")
        if view.scope and not view.question.config.budgets:
            why, mend = "no budget is of your teams alone", "ask whoever writes farthing.toml for one"
        return Page("Budgets", missing=(why, mend))
    table = sheet(made, "Budgets")
    table.kinds = {"percent": "count"}
    over = sum(row["left_usd"] < 0 for row in made.rows)
    near = sum(row["left_usd"] >= 0 and row["exceeded_on"] != "" for row in made.rows)
    kpis = [
        Kpi("over", "Over", "count", over, f"of {len(made.rows)} budgets"),
        Kpi("ahead", "Will be over", "count", near, "before their period ends, as it goes on now"),
    ]
    return Page("Budgets", {"budgets": table}, kpis, made.heading, made.footer, failed=made.failed)


# --- prices ----------------------------------------------------------------------------------------------------------


@page("The rates in force, how they came to be, where they are from, and what changes soon.")
def prices(view: View, model: str = "") -> Page:
    book = view.question.book.listed if view.scope else view.question.book  # offers are of other accounts too
    used: dict[tuple[str, str], list[int]] = {}
    for cell in cells(view.ledger, view.question):
        if isinstance(cell.sku, Resolved):
            sums = used.setdefault((cell.sku.sku.platform, cell.sku.sku.model), [0, 0])
            sums[0] += cell.calls
            sums[1] += cell.cost
    dearest = dict.fromkeys(name for _, name in sorted(used, key=lambda pair: -used[pair][1]))
    wanted = [name for name in model.split(",") if name] or list(dearest)
    cards = [
        card
        for card in book.cards()
        if card.sku.model in wanted and card.sku.platform in {p for p, _ in used}
    ]
    cards = cards or [card for card in book.cards() if card.sku.model in wanted]
    now = [_card(card) for card in cards if card.starts <= view.now < card.ends]
    sku = ("platform", "model", "endpoint", "zone", "mode")
    rates = dict.fromkeys(METERS, "rate")
    columns = (*sku, "above", *METERS, "starts", "source")
    tables = {
        "now": Sheet("Rates now, $ per million tokens", columns, now, kinds=rates, empty="no such model"),
        "history": _history(view, wanted),
        "sources": _sources(cards),
        "ahead": _ahead(view, used),
    }
    coming = [row for row in tables["ahead"].rows if row["state"] == "ahead"]
    kpis = [
        Kpi("models", "Models in use", "count", len(dearest)),
        Kpi("ahead", "Changes ahead", "count", len(coming), f"within {AHEAD_DAYS} days"),
    ]
    found = cells(view.ledger, view.question)
    extra: Row = {"models": list(dearest)}
    under = footer(view.ledger, view.question, found)
    return Page("Prices", tables, kpis, f"price book {book.digest}", under, extra=extra)


def _card(card: Card) -> Row:
    sku = {name: str(value) for name, value in card.sku.named().items()}
    rates = {meter: mtok_usd(rate) for meter, rate in zip(METERS, card.rates, strict=True)}
    above = card.prompt_from - 1 if card.prompt_from else 0
    said = f"{card.source}, read {card.accessed}, {card.confidence}"
    starts = f"{card.starts:%Y-%m-%d}"
    return {**sku, "above": above, **rates, "starts": starts, "source": said, "card": card.id}


def _history(view: View, models: list[str]) -> Sheet:
    """A row a rate that began: of on-demand calls, at each endpoint."""
    from farthing.pricelist import history

    rows: list[Row] = []
    for model in models:
        if model not in view.question.book.models:
            continue
        for change in history(view.question.book, model):
            if change.sku.mode != "on_demand" or change.sku.zone:
                continue
            for meter, rate in zip(METERS, change.card.rates, strict=True):
                before = change.before and getattr(change.before.rates, meter)
                if rate != before and rate:
                    rows.append({
                        "model": model, "platform": change.sku.platform, "endpoint": change.sku.endpoint,
                        "meter": meter, "starts": str(change.day), "usd_per_million": mtok_usd(rate),
                        "card": change.card.id,
                    })  # fmt: skip
    columns = ("model", "platform", "endpoint", "meter", "starts", "usd_per_million", "card")
    return Sheet("How rates came to be", columns, rows)


def _sources(cards: list[Card]) -> Sheet:
    counts: dict[tuple[str, str, str], int] = {}
    for card in cards:
        key = (card.source, str(card.accessed), card.confidence)
        counts[key] = counts.get(key, 0) + 1
    columns = ("source", "accessed", "confidence", "cards")
    rows = [dict(zip(columns, (*key, count), strict=True)) for key, count in sorted(counts.items())]
    return Sheet("Where they are from", columns, rows, kinds={"accessed": "day", "cards": "count"})


def _ahead(view: View, used: dict[tuple[str, str], list[int]]) -> Sheet:
    """Stages of models' lives and changes of price to come, of models in use."""
    from farthing.pricelist import at_risk

    book, today = view.question.book, view.now.date()
    rows: list[dict[str, Any]] = []
    for risk in at_risk(book, today, timedelta(days=AHEAD_DAYS), used):
        calls, cost = used[risk.platform, risk.model]
        rows.append({
            "model": risk.model, "platform": risk.platform, "what": f"{risk.stage} {risk.bound}".strip(),
            "starts": str(risk.day), "calls": calls, "usd": cost, "source": risk.source,
        })  # fmt: skip
    for card in book.cards():
        pair = (card.sku.platform, card.sku.model)
        if pair in used and view.now < card.starts <= view.now + AHEAD_DAYS * DAY:
            rows.append({
                "model": pair[1], "platform": pair[0], "what": f"new rates, {card.sku.endpoint}",
                "starts": f"{card.starts:%Y-%m-%d}", "calls": used[pair][0], "usd": used[pair][1],
                "source": card.source,
            })  # fmt: skip
    for row in rows:
        row["state"] = "ahead" if row["starts"] > str(today) else "in force"
    rows.sort(key=lambda row: (row["state"], row["starts"], row["model"], row["what"]))
    columns = ("model", "platform", "what", "state", "starts", "calls", "usd", "source")
    return Sheet(
        "What changes soon, and what has",
        columns,
        rows,
        ("model",),
        empty=f"nothing known within {AHEAD_DAYS} days",
    )
