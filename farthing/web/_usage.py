"""Pages of what was used and what it cost: bill, explore, why, endpoints, batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

from farthing.book import Card
from farthing.cells import Where, cells
from farthing.meters import METERS
from farthing.money import mtok_usd, show
from farthing.reports import footer, heading
from farthing.web._calls import MOST_CALLS, last_calls
from farthing.web._page import DAY, Kpi, Page, PageError, Row, Sheet, View, page, sheet, total
from farthing.why import why as moved

COMPARED_DAYS = 30
MOST_GROUPS = 5_000  # rows of explore in a browser

# --- bill ------------------------------------------------------------------------------------------------------------


@page("What it comes to, how that was made, and where the money went.")
def bill(view: View) -> Page:
    made = view.report("bill")
    daily, flows, teams = (
        view.report("by", keys=keys) for keys in (("day", "model"), ("model", "meter"), ("team",))
    )
    unit = made.currency.lower()
    also = () if unit == "usd" else (unit,)
    columns = ("label", "usd", *also)
    steps = Sheet("How the bill was made", columns, made.parts["waterfall"], currency=made.currency)
    for row in steps.rows:
        row["_rows"] = view.link()
    tables = {
        "waterfall": steps,
        "daily": sheet(
            daily, "Daily cost by model", ("day", "model"), ("day", "model", "calls", "usd", *also)
        ),
        "flows": sheet(flows, "Where the money went", ("model",), ("model", "meter", "tokens", "usd", *also)),
        "teams": sheet(teams, "Teams", ("team",)),
        "models": sheet(made, "Models", ("model",)),
    }
    for table in (tables["teams"], tables["models"]):
        table.total = total(table.rows, "calls", "tokens", *METERS, "usd", *also)
    notes = [] if view.question.config.teams else ["no teams in farthing.toml: taken from the tag `team`"]
    notes += [] if view.scope else made.parts.get("notes", [])  # they are of all that was agreed
    return Page(
        "The bill",
        tables,
        _bill_kpis(view, made.rows, made.parts["waterfall"], made.currency),
        made.heading,
        made.footer,
        notes,
    )


def _bill_kpis(view: View, rows: Sequence[Row], steps: Sequence[Row], currency: str) -> list[Kpi]:
    by_name = {step["step"]: step["usd"] for step in steps}
    cost, calls = by_name["total"], sum(row["calls"] for row in rows)
    saved = -by_name.get("cache_reads", 0) - by_name.get("cache_writes", 0)
    read = sum(row["cache_read"] for row in rows)
    prompt = sum(row["tokens"] - row["output"] for row in rows)
    days = _days(view)
    also = (
        []
        if currency == "USD"
        else [Kpi("bill_money", f"Bill in {currency}", "money", steps[-1][currency.lower()])]
    )
    return [
        *also,
        Kpi("bill", "Bill", "usd", cost, f"{show(cost // days)} a day" if days else ""),
        Kpi("calls", "Calls", "count", calls, f"{show(cost * 1000 // calls)} per 1,000" if calls else ""),
        Kpi("saved_by_caching", "Saved by caching", "usd", saved,
            f"{_percent(saved, cost + saved)} of what it would have been" if cost + saved > 0 else ""),
        Kpi("hit_rate", "Cache hit rate", "share", share(read, prompt), "of prompt tokens"),
    ]  # fmt: skip


def _days(view: View) -> int:
    """Of the question, as far as there is usage."""
    if view.days is None:
        return 0
    first, last = view.days
    return max(
        0, (min(view.question.until or last, last) - max(view.question.since or first, first)).days + 1
    )


def share(part: int, whole: int) -> str:
    """An exact-enough share as text, from 0 to 1; "" of nothing."""
    return f"{part / whole:.6f}" if whole else ""


def _percent(part: int, whole: int) -> str:
    """Rounded towards nothing, whichever way it goes."""
    size = abs(part) * 100 // whole if whole else 0
    return f"{'−' if part < 0 and size else ''}{size} %" if whole else ""


# --- explore ---------------------------------------------------------------------------------------------------------


@page("Grouped and filtered by anything, down to single calls.")
def explore(view: View, keys: str = "model", calls: str = "", after: str = "") -> Page:
    named = tuple(key.strip() for key in keys.split(",") if key.strip())
    if calls and not (calls.isdecimal() and 0 < int(calls) <= MOST_CALLS):
        raise PageError(f"calls {calls!r}: write a number from 1 to {MOST_CALLS}")
    made = view.report("by", keys=named or ("model",))
    groups = sheet(made, made.title, [key for key in named if key != "meter"])
    groups.total = total(
        groups.rows,
        *(() if "meter" in named else ("calls",)),
        *(name for name in ("tokens", *METERS) if name in groups.columns),
        "usd",
    )
    notes = []
    if len(groups.rows) > MOST_GROUPS:
        groups.most = MOST_GROUPS
        notes.append(f"the first {MOST_GROUPS:,} of {len(groups.rows):,} groups; the CSV has all")
    tables = {"groups": groups, "rates": rates(view)}
    extra: Row = {"keys": list(named)}
    if calls:
        tables["calls"], following = last_calls(view, int(calls), after)
        extra["next"] = view.link(keys=",".join(named), calls=calls, after=following) if following else None
    return Page(made.title, tables, [], made.heading, made.footer, notes, extra=extra)


def rates(view: View) -> Sheet:
    """Every rate that made the cost of the selection: tokens times rate is dollars."""
    rows: dict[tuple[str, str], Row] = {}
    for cell in cells(view.ledger, view.question):
        card = cell.price
        if not isinstance(card, Card):
            continue
        for meter, count, rate in zip(METERS, cell.tokens, card.rates, strict=True):
            if not count:
                continue
            row = rows.setdefault((card.id, meter), {
                "card": card.id, "meter": meter, "tokens": 0, "usd_per_million": mtok_usd(rate), "usd": 0,
                "source": f"{card.source}, read {card.accessed}", "starts": f"{card.starts:%Y-%m-%d}",
                "assumed": ", ".join(card.assumed),
            })  # fmt: skip
            row["tokens"] += count
            row["usd"] += count * rate
    found = sorted(rows.values(), key=lambda row: (-row["usd"], row["card"], row["meter"]))
    columns = ("card", "meter", "tokens", "usd_per_million", "usd", "starts", "source", "assumed")
    return Sheet("The rates that made it", columns, found, total=total(found, "tokens", "usd"))


# --- why it moved ----------------------------------------------------------------------------------------------------


@page("Why the cost moved from one span of days to another.")
def why(view: View, **days: str) -> Page:
    spans = _spans(view, days.get("from", ""), days.get("to", ""))
    if spans is None:
        return Page("Why it moved", missing=("no usage yet", "import some, or run `farthing web --demo`"))
    earlier, later = spans
    question = replace(view.question, since=None, until=None)
    found = moved(view.ledger, question, earlier, later)
    rows: list[Row] = [{"name": _span(earlier), "usd": found.from_picos, "step": "from"}]
    rows += [
        {
            "name": step.name,
            "usd": step.picos,
            "least_usd": step.least_picos,
            "most_usd": step.most_picos,
            "step": "",
        }
        for step in found.steps
    ]
    rows.append({"name": _span(later), "usd": found.to_picos, "step": "to"})
    bare = replace(view, query=tuple(pair for pair in view.query if pair[0] not in ("since", "until")))
    for row, span in ((rows[0], earlier), (rows[-1], later)):
        row["_rows"] = replace(bare, question=replace(question, since=span[0], until=span[1])).link()
    under = cells(view.ledger, replace(question, since=earlier[0], until=later[1]))
    difference = found.to_picos - found.from_picos
    kpis = [
        Kpi("from", _span(earlier), "usd", found.from_picos),
        Kpi("to", _span(later), "usd", found.to_picos),
        Kpi("moved", "Moved by", "usd", difference, _percent(difference, found.from_picos)),
    ]
    notes = [f"{found.unpriced_calls:,} calls without a price are in neither"] if found.unpriced_calls else []
    if all(spans[i] == default for i, default in enumerate(_spans(view, "", "") or ())):
        notes.append(_by_itself(view, earlier, later))
    tables = {"steps": Sheet("From one to the other", ("name", "usd", "least_usd", "most_usd"), rows)}
    return Page(
        "Why it moved", tables, kpis, heading(under), footer(view.ledger, view.question, under), notes,
        extra={"from": _span(earlier), "to": _span(later)},
    )  # fmt: skip


def _by_itself(view: View, earlier: tuple[date, date], later: tuple[date, date]) -> str:
    """How the days came to be that nobody chose, and where others are chosen."""
    days = (later[1] - later[0]).days + 1
    used = view.days
    whole = (
        f"the last {days} days"
        if not (view.question.since or view.question.until)
        else f"the {days} days of the filter"
    )
    note = (
        f"no days were chosen: {whole} are compared with the {days} before; Earlier and Later choose others"
    )
    if used and earlier[0] < used[0]:
        note += f"; the ledger begins on {used[0]}, within the earlier days, which are short for that"
    return note


def _spans(view: View, earlier: str, later: str) -> tuple[tuple[date, date], tuple[date, date]] | None:
    """The days compared: as asked, else those of the page's filter or the last thirty, and as many before them."""
    if view.days is None:
        return None
    begins, ends = view.days
    last = view.question.until or ends
    half = ((last - begins).days + 1) // 2  # so that the days before are in the ledger too
    first = view.question.since or last - (max(1, min(COMPARED_DAYS, half)) - 1) * DAY
    to = parse_span(later, "to") if later else (first, last)
    if earlier:
        return parse_span(earlier, "from"), to
    length = to[1] - to[0] + DAY
    return (to[0] - length, to[0] - DAY), to


def parse_span(text: str, name: str) -> tuple[date, date]:
    """A month, or days with two dots between them."""
    first, is_span, last = text.partition("..")
    try:
        if not is_span:
            start = date.fromisoformat(f"{text}-01")
            return start, (start + timedelta(days=31)).replace(day=1) - DAY
        days = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError as error:
        raise PageError(
            f"{name} {text!r}: write a month, 2026-09, or days, 2026-09-01..2026-09-15"
        ) from error
    if days[0] > days[1]:
        raise PageError(f"{name} {text!r}: the first day is after the last; turn them round")
    return days


def _span(days: tuple[date, date]) -> str:
    return f"{days[0]}..{days[1]}"


# --- endpoints and batch ---------------------------------------------------------------------------------------------


@page("What each model costs at each endpoint, and what the endpoint adds.")
def endpoints(view: View) -> Page:
    made = view.report("endpoints")
    table = sheet(made, "Models by endpoint", made.columns[:4])
    table.total = total(made.rows, "calls", "tokens", "usd", "premium_usd")
    cost, premium = table.total["usd"] or 0, table.total["premium_usd"]
    at_global = sum(row["usd"] or 0 for row in made.rows if row["endpoint"] == "global")
    of_cost = "" if premium is None else f"{_percent(premium, cost)} of the cost"
    kpis = [
        Kpi("premium", "Endpoint premium", "usd", premium, of_cost),
        Kpi("global", "At global endpoints", "share", share(at_global, cost), "of the cost"),
    ]
    unknown = sum(row["premium_usd"] is None for row in made.rows)
    why = "they have no price, or their model has none at a global endpoint"
    notes = [f"the premium of {unknown} rows is unknown: {why}"] if unknown else []
    return Page("Endpoints", {"endpoints": table}, kpis, made.heading, made.footer, notes)


@page("What went as batches, and what the rest would save if it could wait.")
def batch(view: View) -> Page:
    made = view.report("batching")
    table = sheet(made, "By workload", made.columns[:4])
    table.total = total(made.rows, "calls", "tokens", "usd", "saved_usd")
    cost, done = table.total["usd"] or 0, sum(row["usd"] or 0 for row in made.rows if row["mode"] == "batch")
    kpis = [
        Kpi("batched", "Sent as batches", "usd", done, f"{_percent(done, cost)} of the cost"),
        Kpi("saved", "At most to be saved", "usd", table.total["saved_usd"] or 0, "if every call could wait"),
    ]
    notes = [
        "what would be saved is an upper limit: each group alone, as if nothing of it had to be answered at once"
    ]
    return Page("Batch", {"batch": table}, kpis, made.heading, made.footer, notes)


def choices(view: View, keys: Sequence[str]) -> dict[str, list[str]]:
    """The values there are of each key, dearest first, whatever the filters say."""
    bounds = (Where("team", view.scope),) if view.scope else ()
    whole = replace(view.question, since=None, until=None, where=bounds)
    found: dict[str, list[str]] = {}
    for key in keys:
        sums: dict[str, int] = defaultdict(int)
        for cell in cells(view.ledger, whole, (key,)):
            sums[cell.keys[0]] += cell.cost
        found[key] = sorted((value for value in sums if value), key=lambda value: (-sums[value], value))[:200]
    return found
