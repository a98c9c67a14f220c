"""FOCUS 1.2: one row a day, account, region, SKU and meter.

What Bedrock charges is billed as it is used, so BilledCost, ContractedCost and EffectiveCost are one amount until a
contract says otherwise. Claude Platform on AWS is paid in CCU, a virtual currency: its usage rows carry EffectiveCost,
its purchase rows BilledCost, and the two are never added (FOCUS 1.2, virtual currency examples).
"""

from __future__ import annotations

import calendar
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from farthing.book import Card, Unpriced
from farthing.cells import Cell, Question, cells
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.money import usd

VERSION = "1.2"
COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart",
    "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice", "EffectiveCost", "InvoiceId",
    "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory", "PricingCurrency",
    "PricingCurrencyContractedUnitPrice", "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice",
    "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "RegionId", "RegionName", "ResourceId",
    "ServiceCategory", "ServiceName", "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId",
    "SubAccountId", "Tags", "x_UsageType",
)  # fmt: skip
CCU_PICOS = 10**10  # a Claude Consumption Unit is a cent
_METER = {
    "input": "InputTokenCount",
    "output": "OutputTokenCount",
    "cache_read": "CacheReadInputTokenCount",
    "cache_write_5m": "CacheWriteInputTokenCount",
    "cache_write_1h": "CacheWrite1hInputTokenCount",
}
_PUBLISHER = {"bedrock": "Amazon Web Services", "claude_aws": "Anthropic", "anthropic": "Anthropic"}

Row = dict[str, str]


class Exported(NamedTuple):
    """`picos` is the effective cost of all usage in the file. Usage without a price is not: its calls are told."""

    rows: int
    picos: int
    unpriced_calls: int


def export(ledger: Ledger, question: Question, path: Path, tags: Sequence[str] = ()) -> Exported:
    """Write the costs to a .csv or .parquet file; `tags` are the tag keys that rows are told apart by."""
    keys = ("day", "account", "region", *(f"tag:{name}" for name in tags))
    found = cells(ledger, question, keys)
    rows = list(_rows(found, tags, question))
    if path.suffix == ".parquet":
        _write_parquet(path, rows)
    else:
        _write_csv(path, rows)
    priced = [cell for cell in found if isinstance(cell.price, Card)]
    unpriced = sum(cell.calls for cell in found if isinstance(cell.price, Unpriced))
    return Exported(len(rows), sum(cell.cost for cell in priced), unpriced)


def _rows(found: Iterable[Cell], tags: Sequence[str], question: Question) -> Iterator[Row]:
    sums: dict[tuple[tuple[str, ...], Card, str], int] = {}
    for cell in found:
        if isinstance(cell.price, Unpriced):
            continue
        for meter, count in zip(METERS, cell.tokens, strict=True):
            if count:
                key = (cell.keys, cell.price, meter)
                sums[key] = sums.get(key, 0) + count
    bought: dict[tuple[str, str], int] = {}
    for (keys, card, meter), tokens in sorted(
        sums.items(), key=lambda item: (item[0][0], item[0][1].id, item[0][2])
    ):
        row, cost = _usage(keys, card, meter, tokens, tags, question)
        if card.sku.platform == "claude_aws":
            paid_in = (keys[0][:7], keys[1])
            bought[paid_in] = bought.get(paid_in, 0) + cost
        yield row
    for (month, account), picos in sorted(bought.items()):
        yield _purchase(month, account, picos)


def _usage(
    keys: tuple[str, ...], card: Card, meter: str, tokens: int, tags: Sequence[str], question: Question
) -> tuple[Row, int]:
    day, account, region, *values = keys
    rate = int(getattr(card.rates, meter))
    cost = tokens * rate
    name = str(question.book.models[card.sku.model].data.get("name", card.sku.model))
    in_ccu = card.sku.platform == "claude_aws"
    row = _row(day, account) | {
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{name}, {meter.replace('_', ' ')}, {card.sku.endpoint}, {card.sku.mode}",
        "ChargeFrequency": "Usage-Based",
        "BilledCost": "0" if in_ccu else usd(cost),
        "ContractedCost": usd(cost),
        "EffectiveCost": usd(cost),
        "ListCost": usd(cost),
        "ConsumedQuantity": str(tokens),
        "ConsumedUnit": "Tokens",
        "PricingQuantity": str(tokens),
        "PricingUnit": "Tokens",
        "PricingCategory": "Standard",
        "ListUnitPrice": usd(rate),
        "ContractedUnitPrice": usd(rate),
        "PublisherName": _PUBLISHER[card.sku.platform],
        "RegionId": region,
        "ServiceName": _service(card, name),
        "SkuId": str(card.sku),
        "SkuMeter": meter,
        "SkuPriceId": card.id,
        "SkuPriceDetails": f'{{"x_Endpoint": "{card.sku.endpoint}", "x_Mode": "{card.sku.mode}"}}',
        "Tags": _tags(tags, values),
        "x_UsageType": _usage_type(card, meter),
    }
    if in_ccu:
        row |= {
            "PricingCurrency": "CCU",
            "PricingCurrencyEffectiveCost": _ccu(cost),
            "PricingCurrencyListUnitPrice": _ccu(rate),
            "PricingCurrencyContractedUnitPrice": _ccu(rate),
        }
    return row, cost


def _purchase(month: str, account: str, picos: int) -> Row:
    """What a month's CCU cost, in arrears."""
    return _row(f"{month}-01", account) | {
        "ChargeCategory": "Purchase",
        "ChargeDescription": "Claude Consumption Units of the month",
        "ChargeFrequency": "Recurring",
        "BilledCost": usd(picos),
        "ContractedCost": usd(picos),
        "EffectiveCost": "0",
        "ListCost": usd(picos),
        "PricingQuantity": _ccu(picos),
        "PricingUnit": "CCU",
        "PricingCategory": "Standard",
        "PricingCurrency": "USD",
        "PublisherName": "Anthropic",
        "ServiceName": "Claude Platform on AWS",
        "SkuId": "claude_aws/ccu",
        "SkuPriceId": "claude_aws/ccu",
        "Tags": "{}",
    }


def _row(day: str, account: str) -> Row:
    at = date.fromisoformat(day)
    days = calendar.monthrange(at.year, at.month)[1]
    first = at.replace(day=1)
    return dict.fromkeys(COLUMNS, "") | {
        "BillingAccountId": account or "unknown",
        "BillingAccountName": account or "unknown",
        "SubAccountId": account,
        "BillingCurrency": "USD",
        "PricingCurrency": "USD",
        "BillingPeriodStart": f"{first}T00:00:00Z",
        "BillingPeriodEnd": f"{first + timedelta(days=days)}T00:00:00Z",
        "ChargePeriodStart": f"{at}T00:00:00Z",
        "ChargePeriodEnd": f"{at + timedelta(days=1)}T00:00:00Z",
        "InvoiceIssuerName": "Amazon Web Services",
        "ProviderName": "Amazon Web Services",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
    }


def _service(card: Card, name: str) -> str:
    named = {"bedrock": f"{name} (Amazon Bedrock Edition)", "claude_aws": "Claude Platform on AWS"}
    return named.get(card.sku.platform, "Claude API")


def _usage_type(card: Card, meter: str) -> str:
    """As AWS's own are written, without a region: whoever reads bills reads it too."""
    world = "_Global" if card.sku.endpoint == "global" else ""
    mode = {"on_demand": "", "batch": "_Batch"}.get(card.sku.mode, f"_{card.sku.mode}")
    band = "_LongContext" if card.prompt_from else ""
    return f"MP:{_METER[meter]}{band}{world}{mode}-Units"


def _ccu(picos: int) -> str:
    return f"{(Decimal(picos) / CCU_PICOS).normalize():f}"


def _tags(names: Sequence[str], values: Sequence[str]) -> str:
    return json.dumps({name: value for name, value in zip(names, values, strict=True) if value})


def _write_csv(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, COLUMNS)
        out.writeheader()
        out.writerows(rows)


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    """Amounts as decimals, times as timestamps, empty as null."""
    import duckdb
    from arro3.core import Array, DataType, Table

    text = DataType.string()
    table = Table.from_pydict({name: Array([row[name] or None for row in rows], text) for name in COLUMNS})
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.register("focus_rows", table)
    columns = ", ".join(_typed(name) for name in COLUMNS)
    target = str(path).replace("'", "''")
    con.execute(f"COPY (SELECT {columns} FROM focus_rows) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")


def _typed(name: str) -> str:
    if name.endswith(("Cost", "Quantity", "UnitPrice")):
        return f'CAST("{name}" AS DECIMAL(38, 12)) AS "{name}"'
    if name.endswith(("PeriodStart", "PeriodEnd")):
        return f'CAST("{name}" AS TIMESTAMPTZ) AS "{name}"'
    return f'"{name}"'
