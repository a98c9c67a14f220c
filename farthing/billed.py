"""A bill as the ledger's own reports show usage, alone or beside them: the waterfall and the levers.

Lines of one day, account, SKU and prompt band are a cell; what was billed beyond the book's rates (a discount, mostly)
is a step of its own.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, time
from typing import Any

from farthing.book import Card, Resolved
from farthing.cells import Cell
from farthing.levers import LEVERS
from farthing.meters import CACHE_METERS, METERS, Vector
from farthing.reports import Table
from farthing.reports.bills import ENTRIES, OFFER_STEPS, STEPS, layers
from farthing.reports.levers import score
from farthing.statement import Billed, Statement

_BEYOND = "Billed other than the list says (discounts, other rates)"
_NO_RATE = "Billed at rates the book does not have"
_BEYOND_STEP, _NO_RATE_STEP = "beyond_list", "no_rate"
_EMPTY = "no tokens of Claude in this bill"
BILLED = "billed"


def waterfall(statement: Statement) -> list[dict[str, Any]]:
    """Steps from list price at global to what was billed for tokens; they sum to it exactly."""
    cells = as_cells(statement)
    steps = dict.fromkeys((name for name, _ in STEPS), 0)
    for cell in cells:
        assert isinstance(cell.price, Card)
        for name, cost in layers(statement.book, cell, cell.price).items():
            steps[name] += cost
    rated = sum(line.billed_picos for line in statement.billed if line.list_picos is not None)
    rows = [{"step": name, "label": label, "usd": steps[name]} for name, label in STEPS]
    rows = [row for row in rows if row["usd"] or row["step"] == "list"]
    for name, label, picos in (
        (_BEYOND_STEP, _BEYOND, rated - sum(steps.values())),
        (_NO_RATE_STEP, _NO_RATE, statement.billed_picos - rated),
    ):
        if picos:
            rows.append({"step": name, "label": label, "usd": picos})
    return [*rows, {"step": "total", "label": "Billed for tokens", "usd": statement.billed_picos}]


def levers(statement: Statement) -> list[dict[str, Any]]:
    """Each lever on what was billed, at list prices. A bill tells no prompt sizes: caching, batch are upper limits."""
    cells = as_cells(statement)
    return [score(statement.book, made, cells) for made in LEVERS.values()]


def as_cells(statement: Statement) -> list[Cell]:
    """The billed tokens that have a card, as cells."""
    groups: dict[tuple[Any, ...], list[Billed]] = defaultdict(list)
    for line in statement.billed:
        if line.list_picos is not None:
            place = (
                line.day,
                line.account,
                line.model,
                line.endpoint,
                line.mode,
                line.region,
                line.long_prompt,
            )
            groups[place].append(line)
    return [cell for place, lines in groups.items() for cell in _cells(statement, place, lines)]


def _cells(statement: Statement, place: tuple[Any, ...], lines: list[Billed]) -> list[Cell]:
    day, _, model, endpoint, mode, region, long_prompt = place
    counts: dict[bool, dict[str, int]] = {}
    for line in lines:
        # in a batch only what is not cached has a rate: those lines may lie beside others in one place
        cached = mode == "batch" and line.meter in CACHE_METERS
        of = counts.setdefault(cached, {})
        of[line.meter] = of.get(line.meter, 0) + line.tokens
    found = []
    for cached, tokens in counts.items():
        card = statement.card(model, endpoint, mode, region, day, long_prompt, cached)
        assert isinstance(card, Card)  # its lines have a list price
        vector = Vector(**tokens)
        at = datetime.combine(day, time(), UTC)
        sku = Resolved(card.sku, endpoint, ())
        found.append(
            Cell((model,), sku, at, card.prompt_from, card, vector, 0, Vector(), vector @ card.rates, (),
                 "statement", (True, mode != "batch"))
        )  # fmt: skip
    return found


# --- as reports ----------------------------------------------------------------------------------------------------


def bill_alone(statement: Statement) -> Table:
    """`farthing bill`, of a bill without a ledger."""
    rows = sorted(_by_model(statement).values(), key=lambda row: (-row["usd"], row["model"]))
    columns = ("model", "tokens", *METERS, "usd")
    parts = {"waterfall": waterfall(statement), **_rest(statement)}
    return Table("The bill", BILLED, columns, rows, _footer(statement), parts, empty=_EMPTY)


def bill_beside(computed: Table, statement: Statement) -> Table:
    """`farthing bill` of a ledger, with what was billed for the same days beside it."""
    billed = {row["step"]: row for row in waterfall(statement)}
    ours = {row["step"]: row for row in computed.parts["waterfall"]}
    known = (*dict((*STEPS, *OFFER_STEPS, ENTRIES)), _BEYOND_STEP, _NO_RATE_STEP, "total")
    order = [name for name in known if name in billed | ours]
    steps = [
        {
            "step": name,
            "label": (ours.get(name) or billed[name])["label"],
            "usd": ours[name]["usd"] if name in ours else 0,
            "billed_usd": billed[name]["usd"] if name in billed else 0,
        }
        for name in order
    ]
    of_model = _by_model(statement)
    rows = [row | {"billed_usd": of_model.pop(row["model"], {"usd": 0})["usd"]} for row in computed.rows]
    nothing = dict.fromkeys((*computed.columns, "unpriced_calls"), 0)
    rows += [nothing | {"model": model, "billed_usd": row["usd"]} for model, row in sorted(of_model.items())]
    return replace(
        computed,
        heading=f"{computed.heading}; {BILLED} beside it",
        columns=(*computed.columns, "billed_usd"),
        rows=rows,
        parts=computed.parts | {"waterfall": steps} | _rest(statement),
    )


def levers_alone(statement: Statement) -> Table:
    shown = ("lever", "eligible_usd", "applied_usd", "missing_usd", "label")
    return Table("Levers", BILLED, shown, levers(statement), _footer(statement), empty=_EMPTY)


def levers_beside(computed: Table, statement: Statement) -> Table:
    billed = {row["lever"]: row for row in levers(statement)}
    names = ("eligible_usd", "applied_usd", "missing_usd")
    rows = [row | {f"billed_{name}": billed[row["lever"]][name] for name in names} for row in computed.rows]
    shown = ("lever", *(name for one in names for name in (one, f"billed_{one}")), "label")
    return replace(computed, heading=f"{computed.heading}; {BILLED} beside it", columns=shown, rows=rows)


BESIDE = {"bill": (bill_alone, bill_beside), "levers": (levers_alone, levers_beside)}


def _by_model(statement: Statement) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for line in statement.billed:
        nothing = {"model": line.model, "tokens": 0, **dict.fromkeys(METERS, 0), "usd": 0}
        row = found.setdefault(line.model, nothing)
        row["tokens"] += line.tokens
        row[line.meter] += line.tokens
        row["usd"] += line.billed_picos
    return found


def _rest(statement: Statement) -> dict[str, Any]:
    """The money beside the tokens, and what all of it comes to."""
    sums: dict[str, int] = defaultdict(int)
    for entry in statement.apart:
        sums[entry.kind] += entry.picos
    unknown = sum(line.picos for line in statement.undecoded)
    parts: dict[str, Any] = {"apart": [{"kind": kind, "usd": picos} for kind, picos in sums.items()]}
    if unknown:
        parts["not_decoded_usd"] = unknown
    return parts | {"billed_in_all_usd": statement.billed_picos + sum(sums.values()) + unknown}


def _footer(statement: Statement) -> dict[str, Any]:
    """As under every report, of the bill's lines."""
    priced = sum(line.list_picos is not None for line in statement.billed)
    reasons: dict[str, int] = defaultdict(int)
    for line in statement.billed:
        if line.list_picos is None:
            reasons["no rate in the book"] += 1
    for unknown in statement.undecoded:
        reasons[unknown.why] += 1
    unpriced, bad = sum(reasons.values()), statement.loaded.bad
    return {
        "usd": statement.billed_picos,
        "read": priced + unpriced + len(bad),
        "priced": priced,
        "unpriced": unpriced,
        "unpriced_reasons": dict(reasons),
        "rejected": len(bad),
        "rejected_reasons": bad[:20],
        "assumed_usd": 0,
        "assumed": [],
        "book": statement.book.digest,
        "tz": "UTC",
        "currency": "USD",
    }
