"""Every report: a function from a ledger and a question to a Table, which prints, and is JSON and CSV.

To add one, write one function under `@report`: it is then a command, and its name is in `farthing --help`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import narwhals.stable.v2 as nw

from farthing.book import Book, Card, Resolved, Unpriced
from farthing.cells import TIME_KEYS, Cell, Question, cells, check_key
from farthing.frames import Frame
from farthing.ledger import Ledger
from farthing.levers import LEVERS, Lever
from farthing.meters import METERS, Vector
from farthing.money import usd
from farthing.rating import TOKENS
from farthing.usage import Sku

COMPUTED = "computed, unproven"
LIST_VALUE = "list value, not billed"  # of a subscription's transcripts: nothing says which are billed


@dataclass
class Table:
    """Rows of a finished report. Amounts are picodollars under names that end in `usd`; None is unpriced."""

    title: str
    heading: str
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    footer: dict[str, Any]
    parts: dict[str, Any] = field(default_factory=dict)  # further tables, by name
    failed: bool = False  # the answer is no: the command exits 1

    def frame(self) -> Frame:
        """The rows, for Arrow, Polars or pandas."""
        return Frame(self.columns, self.rows)


@dataclass(frozen=True, slots=True)
class Report:
    name: str
    says: str
    make: Callable[..., Table]


REPORTS: dict[str, Report] = {}


def report(says: str) -> Callable[[Callable[..., Table]], Callable[..., Table]]:
    def register(make: Callable[..., Table]) -> Callable[..., Table]:
        REPORTS[make.__name__] = Report(make.__name__, says, make)
        return make

    return register


# --- what every report shares --------------------------------------------------------------------------------------


def _heading(found: Iterable[Cell]) -> str:
    """How far the money is to be believed: transcripts of the direct API may be a subscription's."""
    kinds = {cell.source == "claude_code" and not _on_bedrock(cell) for cell in found}
    if kinds == {True}:
        return LIST_VALUE
    return COMPUTED if kinds <= {False} else f"{COMPUTED}; Claude Code on Anthropic: {LIST_VALUE}"


def _on_bedrock(cell: Cell) -> bool:
    return isinstance(cell.sku, Resolved) and cell.sku.sku.platform == "bedrock"


def footer(ledger: Ledger, question: Question, found: Sequence[Cell]) -> dict[str, Any]:
    """What stands under every report: read = priced + unpriced + rejected, and money that was assumed."""
    files = ledger.files()
    reasons: dict[str, int] = {}
    priced = 0
    for cell in found:
        if isinstance(cell.price, Card):
            priced += cell.calls
        else:
            reasons[cell.price.reason] = reasons.get(cell.price.reason, 0) + cell.calls
    unpriced = sum(reasons.values())
    rejected = sum(file.rejected for file in files)
    return {
        "usd": sum([cell.cost for cell in found]),
        "read": priced + unpriced + rejected,
        "priced": priced,
        "unpriced": unpriced,
        "unpriced_reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "rejected": rejected,
        "rejected_reasons": [f"{file.path}:{reason}" for file in files for reason in file.reasons][:20],
        "assumed_usd": sum(_hanging(cell) for cell in found if cell.assumed),
        "assumed": _assumptions(found),
        "book": question.book.digest,
        "tz": question.tz,
        "currency": "USD",
    }


_SETTLE = {
    "endpoint": "--assume endpoint=global (or us, eu, ... for a geography), or --profiles FILE",
    "region": "--assume region=REGION",
    "ttl": "--assume ttl=1h, or log response bodies",
    "batch_rate": "no flag: no batch SKU of the model has been seen in the price list yet",
    "input_includes_cache": "no flag: the instrumentation did not say",
}


def _assumptions(found: Sequence[Cell]) -> list[dict[str, Any]]:
    """Each assumption: the money that hangs on it, and what would settle it. Of `ttl` only the writes hang on it."""
    money: dict[str, list[int]] = {}
    for cell in (cell for cell in found if cell.assumed):
        for name in dict.fromkeys(cell.assumed):
            total = money.setdefault(name, [0, 0, 0])
            total[0] += cell.calls
            total[1] += _writes_5m(cell) if name == "ttl" else cell.cost
            total[2] += _writes_5m(cell, "cache_write_1h") if name == "ttl" else 0
    return [
        {"name": name, "calls": calls, "usd": cost, "settle": _SETTLE.get(name, "")}
        | ({"upper_usd": upper} if name == "ttl" else {})
        for name, (calls, cost, upper) in sorted(money.items())
    ]


def _hanging(cell: Cell) -> int:
    """What of the cell's cost hangs on any of its assumptions."""
    return _writes_5m(cell) if set(cell.assumed) == {"ttl"} else cell.cost


def _writes_5m(cell: Cell, at_rate_of: str = "cache_write_5m") -> int:
    """What the cell's 5-minute writes cost, at the rate of one meter or another."""
    if isinstance(cell.price, Unpriced):
        return 0
    return int(cell.tokens.cache_write_5m * getattr(cell.price.rates, at_rate_of))


def _grouped(found: Iterable[Cell], names: Sequence[str]) -> list[dict[str, Any]]:
    """Cells with equal keys as one row each: calls, tokens by meter and in all, dollars, calls without a price."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in found:
        groups.setdefault(cell.keys, []).append(cell)
    return [dict(zip(names, keys, strict=True)) | _total(group) for keys, group in groups.items()]


def _total(group: Sequence[Cell]) -> dict[str, Any]:
    tokens = [sum(counts) for counts in zip(*[cell.tokens for cell in group], strict=True)]
    calls = sum([cell.calls for cell in group])
    unpriced = [cell.calls for cell in group if isinstance(cell.price, Unpriced)]
    cost = sum([cell.cost for cell in group])
    return {
        "calls": calls,
        "tokens": sum(tokens),
        **dict(zip(METERS, tokens, strict=True)),
        "usd": None if len(unpriced) == len(group) else cost,  # without any price: unknown is not nothing
        "unpriced_calls": sum(unpriced),
    }


# --- the reports ---------------------------------------------------------------------------------------------------


@report("Spend by any keys.")
def by(ledger: Ledger, question: Question, keys: Sequence[str]) -> Table:
    """One row a group, dearest first; groups of time in order of time."""
    keys = tuple(dict.fromkeys(check_key(key) for key in keys))
    stored = tuple(key for key in keys if key != "meter")
    found = cells(ledger, question, stored, by_meter="meter" in keys)
    rows = _by_meter(found, keys) if "meter" in keys else _grouped(found, keys)
    if keys and keys[0] in TIME_KEYS:
        rows.sort(key=lambda row: (row[keys[0]], -(row["usd"] or 0), *(str(row[key]) for key in keys)))
    else:
        rows.sort(key=lambda row: (-(row["usd"] or 0), *(str(row[key]) for key in keys)))
    columns = (*keys, "calls", "tokens") + (() if "meter" in keys else METERS) + ("usd",)
    return Table(
        f"Spend by {', '.join(keys)}", _heading(found), columns, rows, footer(ledger, question, found)
    )


def _by_meter(found: Iterable[Cell], keys: Sequence[str]) -> list[dict[str, Any]]:
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    at = keys.index("meter")
    for cell in found:
        for i, meter in enumerate(METERS):
            count = list(cell.tokens)[i]
            if not count:
                continue
            names = (*cell.keys[:at], meter, *cell.keys[at:])
            row = rows.setdefault(
                names,
                dict(zip(keys, names, strict=True)) | {"calls": 0, "tokens": 0, "usd": None},
            )
            row["calls"] += list(cell.meter_calls)[i]
            row["tokens"] += count
            if isinstance(cell.price, Card):
                row["usd"] = (row["usd"] or 0) + count * list(cell.price.rates)[i]
    return list(rows.values())


Order = Literal["asc", "desc"]


@report("Spend by day.")
def daily(ledger: Ledger, question: Question, breakdown: bool = False, order: Order = "asc") -> Table:
    return _over_time(ledger, question, ("day",), breakdown, order)


@report("Spend by week, from Monday.")
def weekly(ledger: Ledger, question: Question, breakdown: bool = False, order: Order = "asc") -> Table:
    return _over_time(ledger, question, ("week",), breakdown, order)


@report("Spend by month.")
def monthly(ledger: Ledger, question: Question, breakdown: bool = False, order: Order = "asc") -> Table:
    return _over_time(ledger, question, ("month",), breakdown, order)


@report("Spend by session, dearest first.")
def session(ledger: Ledger, question: Question, breakdown: bool = False, order: Order = "asc") -> Table:
    return _over_time(ledger, question, ("session", "project"), breakdown, order)


def _over_time(
    ledger: Ledger, question: Question, keys: tuple[str, ...], breakdown: bool, order: Order
) -> Table:
    table = by(ledger, question, (*keys, "model") if breakdown else keys)
    if order == "desc" and keys[0] in TIME_KEYS:
        table.rows.sort(key=lambda row: str(row[keys[0]]), reverse=True)
    elif order == "desc":
        table.rows.reverse()
    return table


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


@report("The bill: from list price to what it comes to, layer by layer; then by model.")
def bill(ledger: Ledger, question: Question) -> Table:
    """The steps sum to the total exactly. Rows are models; `waterfall` has the steps."""
    found = cells(ledger, question, ("model",))
    steps = dict.fromkeys((name for name, _ in STEPS), 0)
    for cell in found:
        if isinstance(cell.price, Card):
            for name, cost in layers(question.book, cell, cell.price).items():
                steps[name] += cost
    total = sum(cell.cost for cell in found)
    waterfall = [{"step": name, "label": label, "usd": steps[name]} for name, label in STEPS]
    waterfall = [step for step in waterfall if step["usd"] or step["step"] == "list"]
    waterfall.append({"step": "total", "label": "Comes to", "usd": total})
    rows = sorted(_grouped(found, ("model",)), key=lambda row: (-(row["usd"] or 0), row["model"]))
    columns = ("model", "calls", "tokens", *METERS, "usd")
    return Table(
        "The bill", _heading(found), columns, rows, footer(ledger, question, found), {"waterfall": waterfall}
    )


def layers(book: Book, cell: Cell, card: Card) -> dict[str, int]:
    """The cell's cost as the steps that lead to it, in the order of STEPS; they sum to it exactly.

    Each step re-rates the same tokens with one more layer in place. A model never sold at a global endpoint
    starts from the price it has.
    """
    tokens = cell.tokens
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


# --- levers --------------------------------------------------------------------------------------------------------

_CACHEABLE = TOKENS.prompt.abs() >= nw.col("cache_minimum")
_BATCH_PAYS = (
    sum(
        ((nw.col(meter) * nw.col(f"saves_{meter}")) for meter in METERS[1:]),
        nw.col("input") * nw.col("saves_input"),
    )
    * nw.when(nw.col("reversal")).then(nw.lit(-1)).otherwise(nw.lit(1))
    > 0
)


@report("The four levers: dollars eligible, already saved, still to be saved.")
def levers(ledger: Ledger, question: Question) -> Table:
    """Each lever alone, on the usage as it was; their savings overlap and do not add up."""
    used = ledger.days()
    last = used[1] - timedelta(microseconds=1) if used else None

    def extra(place: Resolved | Unpriced) -> dict[str, int]:
        return _lever_facts(question.book, place, last)

    flags = (_CACHEABLE, _BATCH_PAYS)
    found = cells(ledger, question, ("model",), flags=flags, extra=extra, beside=_rewritten)
    rows = [_score(question.book, made, found) for made in LEVERS.values()]
    columns = ("lever", "eligible_usd", "applied_usd", "missing_usd", "label")
    return Table("Levers", _heading(found), columns, rows, footer(ledger, question, found))


def _rewritten(sku: Sku) -> list[Sku]:
    """Every SKU that a lever makes of this one, or that this one is made from."""
    probe = Vector(1, 1, 1, 1, 1)
    moves = (rewrite(sku, probe) for made in LEVERS.values() for rewrite in (made.rewrite, made.undo))
    return [moved[0] for moved in moves if moved]


def _lever_facts(book: Book, place: Resolved | Unpriced, at: datetime | None) -> dict[str, int]:
    """For each SKU: the least prefix that caches, and what a token of each meter saves when sent as a batch."""
    nothing = {"cache_minimum": 2**62, **{f"saves_{meter}": 0 for meter in METERS}}
    if isinstance(place, Unpriced) or at is None:
        return nothing
    sku = place.sku
    minimum = book.models[sku.model].cache_minimum(sku.platform, at.date())
    card = book.find(sku, at)
    facts = nothing | {"cache_minimum": 1_024 if minimum is None else minimum}
    for meter in METERS:
        moved = LEVERS["batch"].rewrite(sku, Vector(**{meter: 1}))
        batch = book.find(moved[0], at) if moved else None
        if moved and isinstance(card, Card) and isinstance(batch, Card):
            facts[f"saves_{meter}"] = Vector(**{meter: 1}) @ card.rates - moved[1] @ batch.rates
    return facts


def _score(book: Book, made: Lever, found: Sequence[Cell]) -> dict[str, Any]:
    eligible = missing = applied = 0
    for cell in found:
        if isinstance(cell.price, Unpriced):
            continue
        now = cell.cost
        saved = _difference(book, cell, made.rewrite)
        if saved is not None and not _may(made, cell):
            saved = None
        if saved is not None:
            eligible += now
            missing += max(saved, 0)
        without = _difference(book, cell, made.undo)
        if without is not None:
            applied -= without
            eligible += now if saved is None else 0
    return {
        "lever": made.name,
        "eligible_usd": eligible,
        "applied_usd": applied,
        "missing_usd": missing,
        "label": "exact, same tokens" if made.exact else "upper limit",
        "says": made.says,
    }


def _may(made: Lever, cell: Cell) -> bool:
    """Caching wants prompts past the minimum, batch wants calls that it would make cheaper."""
    cacheable, batch_pays = cell.flags
    return {"caching": cacheable, "batch": batch_pays}.get(made.name, True)


def _difference(
    book: Book, cell: Cell, rewrite: Callable[[Sku, Vector], tuple[Sku, Vector] | None]
) -> int | None:
    """What the cell costs more than it would rewritten; None where the rewrite or its price does not exist."""
    assert isinstance(cell.price, Card)
    moved = rewrite(cell.price.sku, cell.tokens)
    if moved is None:
        return None
    sku, tokens = moved
    card = book.find(sku, cell.at, cell.prompt, cached=tokens.cached > 0)
    return cell.cost - tokens @ card.rates if isinstance(card, Card) else None


def as_json(table: Table) -> dict[str, Any]:
    """The table as JSON-ready values: amounts as exact dollar strings, None where unpriced."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: _dollars(k, plain(v)) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list) else value

    return {
        "title": table.title,
        "heading": table.heading,
        "rows": plain(table.rows),
        **plain(table.parts),
        "footer": plain(table.footer),
    }


def _dollars(name: str, value: Any) -> Any:
    return usd(value) if name.endswith("usd") and isinstance(value, int) else value
