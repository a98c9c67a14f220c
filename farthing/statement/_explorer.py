"""Cost Explorer's answers, as `aws ce get-cost-and-usage` prints them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from farthing.statement._columns import TEXT
from farthing.statement._files import Source, StatementError

_ASK = "--group-by Type=DIMENSION,Key=SERVICE Type=DIMENSION,Key=USAGE_TYPE"
_METRICS = "--metrics UnblendedCost UsageQuantity"
_BY = {"account": "LINKED_ACCOUNT", "product_name": "SERVICE", "region": "REGION", "entity": "BILLING_ENTITY",
       "usage_type": "USAGE_TYPE"}  # fmt: skip


class Explored(NamedTuple):
    """Rows with the values of our columns by name; `by_month` where it tells no days."""

    rows: list[dict[str, Any]]
    by_month: bool
    notes: list[str]


def explore(source: Source) -> Explored:
    """The groups of the answer. StatementError where they tell neither what was bought nor what it cost."""
    try:
        raw = source.path.read_bytes()
        said = json.loads((gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig"))
        groups = [(one.get("Type", "DIMENSION"), one["Key"]) for one in said.get("GroupDefinitions", [])]
        periods = said["ResultsByTime"]
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise StatementError(
            f"{source.name}: no answer of Cost Explorer's GetCostAndUsage ({error})"
        ) from None
    names = {key for kind, key in groups if kind == "DIMENSION"}
    if not names & {"USAGE_TYPE", "SERVICE"}:
        by = ", ".join(key for _, key in groups) or "nothing"
        raise StatementError(
            f"{source.name}: grouped by {by}, which does not tell what was bought: no Claude spend can be decoded "
            f"from it; ask for {_ASK}"
        )
    try:
        rows = [row for period in periods for row in _rows(period, groups)]
        by_month = any(_days(period) > 1 for period in periods)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise StatementError(
            f"{source.name}: a group without its keys, or without the metrics UnblendedCost and UsageQuantity as "
            f"numbers ({type(error).__name__}: {error}): ask for {_METRICS}"
        ) from None
    return Explored(rows, by_month, list(_notes(source, said, names)))


def _notes(source: Source, said: dict[str, Any], names: set[str]) -> Iterator[str]:
    if "USAGE_TYPE" not in names:
        yield (
            f"{source.name}: grouped by SERVICE without USAGE_TYPE: it tells what each model cost, and neither tokens "
            f"nor meters; ask for {_ASK}"
        )
    elif "SERVICE" not in names:
        yield (
            f"{source.name}: grouped by USAGE_TYPE without SERVICE: Marketplace usage types do not name the model, "
            f"and such lines are not decoded; ask for {_ASK}"
        )
    if said.get("NextPageToken"):
        yield f"{source.name}: a page of several, and more follow it (NextPageToken): the bill is not whole"


def _days(period: dict[str, Any]) -> int:
    start, end = (date.fromisoformat(period["TimePeriod"][name][:10]) for name in ("Start", "End"))
    return (end - start).days


def _rows(period: dict[str, Any], groups: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    day = period["TimePeriod"]["Start"][:10]
    for group in period.get("Groups", []):
        keys = dict(zip(groups, group["Keys"], strict=True))
        metrics = group["Metrics"]
        cost, quantity = metrics["UnblendedCost"], metrics["UsageQuantity"]
        net = metrics.get("NetUnblendedCost", {}).get("Amount")
        amount = Decimal(cost["Amount"])
        tags = {key: value.removeprefix(f"{key}$") for (kind, key), value in keys.items() if kind == "TAG"}
        told = {name: keys.get(("DIMENSION", key), "") for name, key in _BY.items()}
        yield {
            **dict.fromkeys(TEXT, ""),
            **told,
            "unit": quantity.get("Unit", "") if quantity.get("Unit") != "N/A" else "",
            "currency": cost.get("Unit", ""),
            "line_type": keys.get(("DIMENSION", "RECORD_TYPE"), "Usage"),
            "day": day,
            "month": f"{day[:7]}-01",
            "quantity": Decimal(quantity["Amount"]),
            "unblended": amount,
            "net": None if net is None else Decimal(net),
            "negative": amount < 0,
            "lines": 1,
            "tags": json.dumps(tags),
        }
