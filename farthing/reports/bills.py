"""The bill, and the layers it is made of."""

from __future__ import annotations

from farthing.book import Book, Card
from farthing.cells import Cell, Question, at_list
from farthing.costs import due_entries
from farthing.ledger import Ledger
from farthing.meters import METERS, Vector
from farthing.offers import made_by
from farthing.reports._contract import beside, priced
from farthing.reports._entries import include
from farthing.reports._table import Table, amount_of, footer, grouped, heading, report

STEPS = (
    ("list", "List price, global endpoint, nothing cached"),
    ("endpoint_premium", "Endpoint premium"),
    ("extended_access", "Extended access of legacy models"),
    ("cache_writes", "Cache writes, over plain input"),
    ("cache_reads", "Cache reads saved"),
    ("batch", "Batch saved"),
    ("long_prompt", "Long prompts"),
    ("fast", "Fast mode"),
)
OFFER_STEPS = (  # from list price on, where there are private offers
    ("contract", "Private offers saved"),
    ("volume", "Volume tiers saved"),
    ("shortfall", "Shortfall of commitments"),
)

ENTRIES = ("entries", "Sessions, searches and code run")  # what is no token


@report("The bill: from list price to what it comes to, layer by layer; then by model.", adds_up=True)
def bill(ledger: Ledger, question: Question) -> Table:
    """The steps sum to the total exactly. Rows are models; `waterfall` has the steps."""
    found, costs = priced(ledger, question, ("model",))
    steps = dict.fromkeys((name for name, _ in STEPS + OFFER_STEPS), 0)
    for cell in found:
        if isinstance(cell.price, Card):
            for name, cost in layers(question.book.listed, cell, cell.price).items():
                steps[name] += cost
    entries = due_entries(ledger, question, ("model",))
    rows = grouped(found, ("model",))
    columns = ("model", "calls", "tokens", *METERS, "usd")
    table = Table(
        "The bill", heading(found), columns, rows, footer(ledger, at_list(question), found, entries)
    )
    table = beside(table, costs, ("model",), ledger, question)
    if costs:
        steps["contract"] = table.parts["contracted_usd"] - table.parts["list_usd"]
        steps["volume"] = -table.parts.get("rebate_usd", 0)
        steps["shortfall"] = table.parts.get("shortfall_usd", 0)
    steps["entries"] = amount_of(entries)
    total = sum(cell.cost for cell in found) + sum(steps[name] for name, _ in (*OFFER_STEPS, ENTRIES))
    shown = (*STEPS, *OFFER_STEPS, ENTRIES)
    waterfall = [{"step": name, "label": label, "usd": steps[name]} for name, label in shown]
    waterfall = [step for step in waterfall if step["usd"] or step["step"] == "list"]
    waterfall.append({"step": "total", "label": "Comes to", "usd": total})
    table = include(table, entries, ("model",))
    rows.sort(key=lambda row: (-(row["usd"] or 0), row["model"]))
    table.parts = {"waterfall": waterfall, **table.parts}
    return table


def layers(book: Book, cell: Cell, card: Card) -> dict[str, int]:
    """The cell's cost as the steps that lead to it, in the order of STEPS; they sum to it exactly.

    Each step re-rates the same tokens with one more layer in place; what private offers took off comes last. A model
    never sold at a global endpoint starts from the price it has.
    """
    tokens = cell.tokens
    if made_by(card):
        public = book.listed.find(card.sku, cell.at, cell.prompt, cached=tokens.cached > 0)
        assert isinstance(public, Card)  # an offer changes a card, and adds none
        public_steps = layers(book.listed, cell, public)
        return public_steps | {"contract": tokens @ card.rates - tokens @ public.rates}
    plain = Vector(input=tokens.prompt, output=tokens.output)
    at_home = card.sku._replace(mode="on_demand")
    ladder = (
        ("list", at_home._replace(endpoint="global", zone="")),
        ("endpoint_premium", at_home._replace(zone="")),
        ("extended_access", at_home),
    )
    found = ((name, book.find(sku, cell.at)) for name, sku in ladder)
    base = [(name, rung) for name, rung in found if isinstance(rung, Card)]
    steps: dict[str, int] = {}
    reached = 0
    if not base:
        return {"list": cell.cost}
    for i, (name, rung) in enumerate(base):
        cost = plain @ rung.rates
        steps["list" if i == 0 else name] = cost - reached
        reached = cost
    home = base[-1][1]
    steps["cache_writes"] = tokens.cache_write_5m * (home.rates.cache_write_5m - home.rates.input) + (
        tokens.cache_write_1h * (home.rates.cache_write_1h - home.rates.input)
    )
    steps["cache_reads"] = tokens.cache_read * (home.rates.cache_read - home.rates.input)
    reached += steps["cache_writes"] + steps["cache_reads"]
    climb = [("batch", card.sku, 0), ("long_prompt", card.sku, cell.prompt)]
    if card.sku.mode == "fast":
        climb = [("long_prompt", at_home, cell.prompt), ("fast", card.sku, cell.prompt)]
    for name, sku, size in climb:
        higher = book.find(sku, cell.at, size, cached=tokens.cached > 0)
        if isinstance(higher, Card):
            steps[name] = tokens @ higher.rates - reached
            reached += steps[name]
    return steps
