"""What Bedrock bills, by rates.json: condensed from the file of public rates, and not from the book.

A bill that is made of it is another witness than what farthing prices by; a test holds it to the file it is from.
"""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple


class Rates(NamedTuple):
    """USD per million tokens by meter, of prompts longer than `over`."""

    over: int
    usd: dict[str, Decimal]


class Priced(NamedTuple):
    name: str
    mantle: bool
    rows: tuple[dict[str, Any], ...]


@cache
def models() -> dict[str, Priced]:
    """Every model that Bedrock bills, by farthing's name of it."""
    table = json.loads(Path(__file__).with_name("rates.json").read_text(encoding="utf-8"))
    return {one["id"]: Priced(one["name"], one["mantle"], tuple(one["rows"])) for one in table["models"]}


@lru_cache(maxsize=10_000)
def rates(model: str, endpoint: str, mode: str, region: str, day: date) -> tuple[Rates, ...]:
    """What holds on that day there, by length of prompt; none where Bedrock does not sell it so."""
    found: dict[int, Rates] = {}
    for row in models()[model].rows if model in models() else ():
        if (row["endpoint"], row["mode"]) != (endpoint, mode) or region not in row.get("regions", (region,)):
            continue
        if row.get("from", "") <= day.isoformat() < row.get("to", "9999"):
            over = row.get("over", 0)
            usd = {meter: Decimal(text) for meter, text in row["usd"].items()}
            found[over] = Rates(over, usd)  # of two, the later holds
    return tuple(found[over] for over in sorted(found))
