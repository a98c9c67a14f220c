"""What a report is, and what all of them share: the table, its heading and its footer, rows out of cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from farthing.book import Card, Resolved, Unpriced
from farthing.cells import Cell, Question
from farthing.costs import Due, due_entries, taken_off
from farthing.frames import Frame
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.money import usd

COMPUTED = "computed, unproven"
LIST_VALUE = "list value, not billed"  # of a subscription's transcripts: nothing says which are billed


@dataclass
class Table:
    """Rows of a finished report. Amounts are picodollars under names that end in `usd`; None is unpriced.

    Where `currency` is another, each amount has its like beside it, in 10^-12 units, under a name that ends in that.
    """

    title: str
    heading: str
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    footer: dict[str, Any]
    parts: dict[str, Any] = field(default_factory=dict)  # further tables, by name
    failed: bool = False  # the answer is no: the command exits 1
    empty: str = "no usage in this selection"  # what stands where rows would
    currency: str = "USD"
    heads: dict[str, str] = field(
        default_factory=dict
    )  # of columns that people should see under another name

    def frame(self) -> Frame:
        """The rows, for Arrow, Polars or pandas."""
        return Frame(self.columns, self.rows)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """For Jupyter and marimo."""
        from farthing.reports._shown import bundle

        return bundle(self)


@dataclass(frozen=True, slots=True)
class Report:
    name: str
    says: str
    make: Callable[..., Table]
    adds_up: bool = (
        False  # of each amount, those of the days sum to that of the month: so it can be converted
    )


REPORTS: dict[str, Report] = {}


def report(says: str, *, adds_up: bool = False) -> Callable[[Callable[..., Table]], Callable[..., Table]]:
    def register(make: Callable[..., Table]) -> Callable[..., Table]:
        REPORTS[make.__name__] = Report(make.__name__, says, make, adds_up)
        return make

    return register


# --- what every report shares --------------------------------------------------------------------------------------


def heading(found: Iterable[Cell]) -> str:
    """How far the money is to be believed: transcripts of the direct API may be a subscription's."""
    kinds = {cell.source == "claude_code" and not _on_bedrock(cell) for cell in found}
    if kinds == {True}:
        return LIST_VALUE
    return COMPUTED if kinds <= {False} else f"{COMPUTED}; Claude Code on Anthropic: {LIST_VALUE}"


def _on_bedrock(cell: Cell) -> bool:
    return isinstance(cell.sku, Resolved) and cell.sku.sku.platform == "bedrock"


def footer(
    ledger: Ledger, question: Question, found: Sequence[Cell], entries: Sequence[Due] | None = None
) -> dict[str, Any]:
    """What stands under every report: read = priced + unpriced + rejected, and money that was assumed.

    `entries` are those that the report has in its sums; one that has none says what it leaves out.
    """
    files = ledger.files()
    reasons: dict[str, int] = {}
    priced = 0
    for cell in found:
        if isinstance(cell.price, Card):
            priced += cell.calls
        else:
            reasons[cell.price.reason] = reasons.get(cell.price.reason, 0) + cell.calls
    for due in entries or ():
        if due.picos is None:
            reasons[due.why] = reasons.get(due.why, 0) + 1
        else:
            priced += 1
    unpriced = sum(reasons.values())
    rejected = sum(file.rejected for file in files)
    return {
        "usd": sum([cell.cost for cell in found]) + amount_of(entries or ()),
        "read": priced + unpriced + rejected,
        "priced": priced,
        "unpriced": unpriced,
        "unpriced_reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "rejected": rejected,
        "rejected_reasons": [f"{file.path}:{reason}" for file in files for reason in file.reasons][:20],
        "assumed_usd": sum(hanging(cell) for cell in found if cell.assumed),
        "assumed": _assumptions(found),
        "book": question.book.digest,
        "tz": question.tz,
        "currency": "USD",
        **_beside_tokens(ledger, question, entries),
        **({"offers": taken} if (taken := taken_off(question.book, found)) else {}),
    }


def amount_of(entries: Iterable[Due]) -> int:
    """What they come to, of which a price is known."""
    return sum(due.picos or 0 for due in entries)


def _beside_tokens(ledger: Ledger, question: Question, entries: Sequence[Due] | None) -> dict[str, Any]:
    if entries:
        return {"entries_usd": amount_of(entries)}
    left = due_entries(ledger, question) if entries is None else []
    return {"left_out": {"entries": len(left), "usd": amount_of(left)}} if left else {}


_SETTLE = {
    "endpoint": "--assume endpoint=global (or us, eu, ... for a geography), or --profiles FILE",
    "region": "--assume region=REGION",
    "ttl": "--assume ttl=1h, or log response bodies",
    "batch_rate": "no flag: no batch SKU of the model has been seen in the price list yet",
    "input_includes_cache": "no flag: the instrumentation did not say",
    "at": "no flag: put the job's description beside its results (docs/importing-gateways.md)",
    "cached": "no flag: the record does not say what of its prompt was cached; import the invocation log",
    "open_intent": "no flag: import the outbox again, or the invocation log",
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


def hanging(cell: Cell) -> int:
    """What of the cell's cost hangs on any of its assumptions."""
    return _writes_5m(cell) if set(cell.assumed) == {"ttl"} else cell.cost


def _writes_5m(cell: Cell, at_rate_of: str = "cache_write_5m") -> int:
    """What the cell's 5-minute writes cost, at the rate of one meter or another."""
    if isinstance(cell.price, Unpriced):
        return 0
    return int(cell.tokens.cache_write_5m * getattr(cell.price.rates, at_rate_of))


def grouped(found: Iterable[Cell], names: Sequence[str]) -> list[dict[str, Any]]:
    """Cells with equal keys as one row each: calls, tokens by meter and in all, dollars, calls without a price."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in found:
        groups.setdefault(cell.keys, []).append(cell)
    return [dict(zip(names, keys, strict=True)) | _total(group) for keys, group in groups.items()]


def _total(group: Sequence[Cell]) -> dict[str, Any]:
    tokens = list(map(sum, zip(*[cell.tokens for cell in group], strict=True)))
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


def as_json(table: Table) -> dict[str, Any]:
    """The table as JSON-ready values: amounts as exact decimal strings, None where unpriced."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: _exact(table, k, plain(v)) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list) else value

    return {
        "title": table.title,
        "heading": table.heading,
        "rows": plain(table.rows),
        **plain(table.parts),
        "footer": plain(table.footer),
    }


def inert(value: Any) -> Any:
    """A cell of a CSV that no spreadsheet takes for a formula: names come from logs, and anybody may be called so.

    Numbers stay what they are, those below zero too.

    >>> inert("=HYPERLINK(1)"), inert("-3.5"), inert("search")
    ("'=HYPERLINK(1)", '-3.5', 'search')
    """
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return value
    return value if value[1:].replace(".", "", 1).isdecimal() else f"'{value}"


def is_amount(name: str, currency: str = "USD") -> bool:
    """Whether what has this name is money, of dollars or of a table's other currency."""
    return name.endswith("usd") or (currency != "USD" and name.rpartition("_")[2] == currency.lower())


def _exact(table: Table, name: str, value: Any) -> Any:
    return usd(value) if is_amount(name, table.currency) and isinstance(value, int) else value
