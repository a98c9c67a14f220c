"""The ledger as Prometheus' metrics, for node_exporter's textfile collector: cost by model, endpoint and team, budgets,
what has no price, what was assumed, and how old it is. OpenMetrics text, which the older parsers read as well.

Sums are gauges that begin anew with each day or month of the question's zone. Labels are names of the book, of teams
and of budgets; beyond MOST_SERIES the cheapest are told as "other", so that tags cannot flood a server. What has no
price is no amount of nothing: it is in no sum, and its calls are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import NamedTuple

from farthing.book import Card
from farthing.cells import Cell, Question, cells
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.money import usd

MOST_SERIES = 300
_KEYS = ("model", "endpoint", "team")
Labels = tuple[tuple[str, str], ...]

METRICS = {
    "farthing_ledger_info": "1, with the price book, the zone of days, and the version in labels.",
    "farthing_ledger_day_cost_usd": "Cost of today's calls so far, in dollars.",
    "farthing_ledger_month_cost_usd": "Cost of this month's calls so far, in dollars.",
    "farthing_ledger_month_tokens": "Tokens of this month's calls, by meter.",
    "farthing_ledger_month_calls": "Calls of this month.",
    "farthing_ledger_month_unpriced_calls": "Calls of this month that have no price, and so are in no sum.",
    "farthing_ledger_month_assumed_usd": "What of this month's cost hangs on assumptions.",
    "farthing_ledger_rejected_lines": "Lines of source files that could not be read.",
    "farthing_ledger_last_call_timestamp_seconds": "When the last call in the ledger was made.",
    "farthing_ledger_last_import_timestamp_seconds": "When a source file was last read.",
    "farthing_ledger_export_timestamp_seconds": "When this was written.",
    "farthing_budget_limit_usd": "A budget of farthing.toml.",
    "farthing_budget_spent_usd": "What is spent of it in its period.",
    "farthing_budget_used_ratio": "Spent by limit: 1 is all of it.",
}


class Budget(NamedTuple):
    name: str
    limit: int  # picodollars
    spent: int


def text(ledger: Ledger, question: Question, now: datetime, budgets: Iterable[Budget], version: str) -> str:
    """All of METRICS, as of now."""
    today = now.astimezone(question.zone).date()
    month = _since(ledger, question, today.replace(day=1), today)
    told: dict[str, list[tuple[Labels, str]]] = {name: [] for name in METRICS}
    info = (("book", question.book.digest), ("tz", question.tz), ("version", version))
    told["farthing_ledger_info"] = [(info, "1")]
    told["farthing_ledger_day_cost_usd"] = _costs(_since(ledger, question, today, today))
    told["farthing_ledger_month_cost_usd"] = _costs(month)
    told["farthing_ledger_month_tokens"] = [
        ((("meter", meter),), str(sum(list(cell.tokens)[i] for cell in month)))
        for i, meter in enumerate(METERS)
    ]
    assumed = sum(cell.cost for cell in month if cell.assumed)
    single = {
        "farthing_ledger_month_calls": str(sum(cell.calls for cell in month)),
        "farthing_ledger_month_unpriced_calls": str(
            sum(cell.calls for cell in month if not isinstance(cell.price, Card))
        ),
        "farthing_ledger_month_assumed_usd": usd(assumed) if assumed else "0",
        "farthing_ledger_rejected_lines": str(sum(file.rejected for file in ledger.files())),
        "farthing_ledger_export_timestamp_seconds": str(int(now.timestamp())),
    }
    single |= _last(ledger)
    for name, value in single.items():
        told[name] = [((), value)]
    for budget in budgets:
        label = (("budget", budget.name),)
        told["farthing_budget_limit_usd"].append((label, usd(budget.limit)))
        told["farthing_budget_spent_usd"].append((label, usd(budget.spent) if budget.spent else "0"))
        if budget.limit:
            told["farthing_budget_used_ratio"].append((label, f"{budget.spent / budget.limit:.6f}"))
    return _written(told)


def _since(ledger: Ledger, question: Question, first: date, last: date) -> list[Cell]:
    return cells(ledger, replace(question, since=first, until=last), _KEYS)


def _costs(found: Sequence[Cell]) -> list[tuple[Labels, str]]:
    """By the keys, the dearest first; the rest as "other", so that the sum stays the sum."""
    sums: dict[tuple[str, ...], int] = {}
    for cell in found:
        if isinstance(cell.price, Card):
            keys = tuple(str(key or "") for key in cell.keys)
            sums[keys] = sums.get(keys, 0) + cell.cost
    ranked = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    kept, rest = ranked[:MOST_SERIES], ranked[MOST_SERIES:]
    if rest:
        kept.append((("other",) * len(_KEYS), sum(cost for _, cost in rest)))
    return [(tuple(zip(_KEYS, keys, strict=True)), usd(cost) if cost else "0") for keys, cost in kept]


def _last(ledger: Ledger) -> dict[str, str]:
    """The times of the last call and the last import, where there was one."""
    found: dict[str, str] = {}
    if ledger.days() is not None:
        ((call_s,),) = ledger.rows().aggregate('epoch(max("at"))').fetchall()
        found["farthing_ledger_last_call_timestamp_seconds"] = str(int(call_s))
    if ledger.delta("files") is not None:
        ledger.connection.register("files", ledger.table("files"))
        ((read_s,),) = ledger.connection.execute('SELECT epoch(max("at")) FROM files').fetchall()
        found["farthing_ledger_last_import_timestamp_seconds"] = str(int(read_s))
    return found


def _written(told: Mapping[str, Sequence[tuple[Labels, str]]]) -> str:
    lines = []
    for name, series in told.items():
        lines += [f"# HELP {name} {METRICS[name]}", f"# TYPE {name} gauge"]
        lines += [
            f"# UNIT {name} {unit}" for unit in ("usd", "seconds", "ratio") if name.endswith(f"_{unit}")
        ]
        lines += [f"{name}{_shown(labels)} {value}" for labels, value in series]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _shown(labels: Labels) -> str:
    said = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{said}}}" if said else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
