"""FOCUS 1.2: one row a day, account, region, SKU and meter.

ListCost is by the public book, ContractedCost by the offers that the account has. What Bedrock charges is billed as
it is used, so BilledCost and EffectiveCost are the contracted cost. What is no token (sessions, searches, code run)
has rows of its own, whose PricingQuantity is what is left to pay of the ConsumedQuantity. What a commitment or volume
tiers come to is a row of the day on which their period ends: an adjustment, or a credit. Days are UTC, as AWS's are.
Claude Platform on AWS is paid in CCU, a virtual currency: its usage rows carry EffectiveCost, its purchase rows
BilledCost, and the two are never added (FOCUS 1.2, virtual currency examples).
"""

from __future__ import annotations

import calendar
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from farthing.book import Book, Card, Unpriced, midnight
from farthing.cells import Cell, Question, at_list, cells
from farthing.costs import HOUR_MS, Due, Period, Rates, due_entries, periods
from farthing.exporters._regions import REGIONS
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.money import usd

VERSION = "1.2"
COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency",
    "ChargePeriodEnd", "ChargePeriodStart", "CommitmentDiscountStatus", "ConsumedQuantity", "ConsumedUnit",
    "ContractedCost", "ContractedUnitPrice", "EffectiveCost", "InvoiceId", "InvoiceIssuerName", "ListCost",
    "ListUnitPrice", "PricingCategory", "PricingCurrency", "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice", "PricingQuantity", "PricingUnit",
    "ProviderName", "PublisherName", "RegionId", "RegionName", "ResourceId", "ServiceCategory", "ServiceName",
    "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName",
    "Tags", "x_UsageType",
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
    """`picos` is the effective cost of all in the file. What has no price is not: its calls and entries are told."""

    rows: int
    picos: int
    unpriced_calls: int
    unpriced_entries: int = 0


def export(ledger: Ledger, question: Question, path: Path, tags: Sequence[str] = ()) -> Exported:
    """Write the costs to a .csv or .parquet file; `tags` are the tag keys that rows are told apart by."""
    question = replace(question, tz="UTC")
    keys = ("day", "account", "region", *(f"tag:{name}" for name in tags))
    found = cells(ledger, at_list(question), keys)
    entries = due_entries(ledger, question, keys)
    priced = [*_rows(found, entries, tags, question), *_terms(ledger, question, datetime.now(UTC).date())]
    rows = [row for row, _ in priced]
    if path.suffix == ".parquet":
        _write_parquet(path, rows)
    else:
        _write_csv(path, rows)
    unpriced = sum(cell.calls for cell in found if isinstance(cell.price, Unpriced))
    lacking = sum(due.picos is None for due in entries)
    return Exported(len(rows), sum(picos for _, picos in priced), unpriced, lacking)


def _rows(
    found: Iterable[Cell], entries: Iterable[Due], tags: Sequence[str], question: Question
) -> Iterator[tuple[Row, int]]:
    """Rows, each with its effective cost."""
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
        day, account, *_ = keys
        rate = _contracted(question.book, account, card, day, meter)
        yield _usage(keys, card, meter, tokens, rate, tags, question), tokens * rate
        if card.sku.platform == "claude_aws":
            bought[day[:7], account] = bought.get((day[:7], account), 0) + tokens * rate
    for group in _alike(entries):
        picos = sum(due.picos or 0 for due in group)
        yield _entry(group, picos, tags, question), picos
        if group[0].entry.facts.platform == "claude_aws":
            day, account, *_ = group[0].keys
            bought[day[:7], account] = bought.get((day[:7], account), 0) + picos
    for (month, account), paid in sorted(bought.items()):
        yield _purchase(month, account, paid, question), 0


def _alike(entries: Iterable[Due]) -> Iterator[list[Due]]:
    """Those with a price that have keys, platform, kind and price in common."""
    groups: dict[tuple[Any, ...], list[Due]] = {}
    for due in entries:
        if due.picos is not None:
            groups.setdefault((due.keys, due.entry.facts.platform, due.entry.kind, due.why), []).append(due)
    for _, group in sorted(groups.items()):
        yield group


def _entry(group: Sequence[Due], picos: int, tags: Sequence[str], question: Question) -> Row:
    """What is no token: consumed in full, priced without what is free. Offers are for tokens: one price in all."""
    day, account, region, *values = group[0].keys
    one = group[0].entry
    rates = Rates.of(question.book, date.fromisoformat(day))
    name, rate, unit, per = {
        "session": ("Managed Agents session runtime", rates.session_hour, "Hours", HOUR_MS),
        "web_search": ("Web search", rates.search * 1000, "1000 Requests", 1000),
        "code_execution": ("Code execution", rates.container_hour, "Hours", HOUR_MS),
    }[one.kind]
    used = sum(due.entry.quantity for due in group)
    in_ccu = one.facts.platform == "claude_aws"
    money = _ccu if in_ccu else usd
    sku = f"{one.facts.platform or 'anthropic'}/{one.kind}"
    prices = {"ListUnitPrice": usd(rate), "ContractedUnitPrice": usd(rate)}
    prices |= {f"PricingCurrency{column}": money(rate) for column in prices}
    return _row(day, account, question) | prices | {
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{name}, {group[0].why}",
        "ChargeFrequency": "Usage-Based",
        "BilledCost": "0" if in_ccu else usd(picos),
        "ContractedCost": usd(picos),
        "EffectiveCost": usd(picos),
        "ListCost": usd(picos),
        "ConsumedQuantity": _quotient(used, 1 if one.kind == "web_search" else 1000),
        "ConsumedUnit": "Requests" if one.kind == "web_search" else "Seconds",
        "PricingQuantity": _quotient(sum(due.billed for due in group), per),
        "PricingUnit": unit,
        "PricingCategory": "Standard",
        "PricingCurrency": "CCU" if in_ccu else "USD",
        "PricingCurrencyEffectiveCost": money(picos),
        "PublisherName": "Anthropic",
        "RegionId": region,
        "RegionName": REGIONS.get(region, region),
        "ServiceName": "Claude Platform on AWS" if in_ccu else "Claude API",
        "SkuId": sku,
        "SkuMeter": one.kind,
        "SkuPriceId": sku,
        "Tags": _tags(tags, values),
    }  # fmt: skip


def _quotient(above: int, below: int) -> str:
    """To twelve places, as FOCUS's decimals have them here."""
    return f"{round(Decimal(above) / below, 12).normalize():f}"


def _terms(ledger: Ledger, question: Question, today: date) -> Iterator[tuple[Row, int]]:
    """The shortfalls and rebates of periods that ended in the question's days; of all usage, so not under a filter."""
    if question.where:
        return
    since, until = question.span()
    for volume, category, sign in ((False, "Adjustment", 1), (True, "Credit", -1)):
        for period in periods(ledger, question, volume=volume, until=today):
            picos = sign * (period.rebate if volume else period.shortfall)
            if picos and period.ends <= today and since < midnight(period.ends) <= until:
                yield _term(period, category, picos, question), picos


def _term(period: Period, category: str, picos: int, question: Question) -> Row:
    """An amount of a period. It is of no call and no price, so nothing is in those columns, and each cost is the
    billed one: FOCUS 1.2 says so of charges unrelated to others.
    """
    said = "volume tiers" if category == "Credit" else "shortfall of the commitment"
    account = min(period.offer.accounts) if len(period.offer.accounts) == 1 else ""
    return _row((period.ends - timedelta(days=1)).isoformat(), account, question) | {
        "ChargeCategory": category,
        "ChargeDescription": f"{period.offer.name}: {said}, {period.starts} to {period.ends}",
        "ChargeFrequency": "Recurring",
        "BilledCost": usd(picos),
        "ContractedCost": usd(picos),
        "EffectiveCost": usd(picos),
        "ListCost": usd(picos),
        "PricingCurrencyEffectiveCost": usd(picos),
        "PublisherName": _PUBLISHER[min(period.offer.platforms)],
        "ServiceName": "Amazon Bedrock" if "bedrock" in period.offer.platforms else "Claude Platform on AWS",
        "Tags": "{}",
    }


def _contracted(book: Book, account: str, card: Card, day: str, meter: str) -> int:
    """The rate that the account pays on that day for what the card sells."""
    at = datetime.combine(date.fromisoformat(day), time(), UTC)
    own = book.find(card.sku._replace(terms=book.terms.get(account, "")), at, card.prompt_from)
    return int(getattr(card.rates if isinstance(own, Unpriced) else own.rates, meter))


def _usage(
    keys: tuple[str, ...],
    card: Card,
    meter: str,
    tokens: int,
    contracted: int,
    tags: Sequence[str],
    question: Question,
) -> Row:
    day, account, region, *values = keys
    rate = int(getattr(card.rates, meter))
    cost = tokens * contracted
    name = str(question.book.models[card.sku.model].data.get("name", card.sku.model))
    in_ccu = card.sku.platform == "claude_aws"
    money = _ccu if in_ccu else usd  # of the currency that prices are in
    return _row(day, account, question) | {
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{name}, {meter.replace('_', ' ')}, {card.sku.endpoint}, {card.sku.mode}",
        "ChargeFrequency": "Usage-Based",
        "BilledCost": "0" if in_ccu else usd(cost),
        "ContractedCost": usd(cost),
        "EffectiveCost": usd(cost),
        "ListCost": usd(tokens * rate),
        "ConsumedQuantity": str(tokens),
        "ConsumedUnit": "Tokens",
        "PricingQuantity": str(tokens),
        "PricingUnit": "Tokens",
        "PricingCategory": "Standard",
        "ListUnitPrice": usd(rate),
        "ContractedUnitPrice": usd(contracted),
        "PricingCurrency": "CCU" if in_ccu else "USD",
        "PricingCurrencyEffectiveCost": money(cost),
        "PricingCurrencyListUnitPrice": money(rate),
        "PricingCurrencyContractedUnitPrice": money(contracted),
        "PublisherName": _PUBLISHER[card.sku.platform],
        "RegionId": region,
        "RegionName": REGIONS.get(region, region),
        "ServiceName": _service(card, name),
        "SkuId": str(card.sku),
        "SkuMeter": meter,
        "SkuPriceId": card.id,
        "SkuPriceDetails": json.dumps({"x_Endpoint": card.sku.endpoint, "x_Mode": card.sku.mode}),
        "Tags": _tags(tags, values),
        "x_UsageType": _usage_type(card, meter),
    }


def _purchase(month: str, account: str, paid: int, question: Question) -> Row:
    """What a month's CCU cost, in arrears. A discount is taken off before it is counted in them."""
    return _row(f"{month}-01", account, question) | {
        "ChargeCategory": "Purchase",
        "ChargeDescription": "Claude Consumption Units of the month",
        "ChargeFrequency": "Recurring",
        "BilledCost": usd(paid),
        "ContractedCost": usd(paid),
        "EffectiveCost": "0",
        "ListCost": usd(paid),
        "ListUnitPrice": usd(CCU_PICOS),
        "ContractedUnitPrice": usd(CCU_PICOS),
        "PricingQuantity": _ccu(paid),
        "PricingUnit": "CCU",
        "PricingCategory": "Standard",
        "PricingCurrency": "USD",
        "PricingCurrencyEffectiveCost": "0",
        "PricingCurrencyListUnitPrice": usd(CCU_PICOS),
        "PricingCurrencyContractedUnitPrice": usd(CCU_PICOS),
        "PublisherName": "Anthropic",
        "ServiceName": "Claude Platform on AWS",
        "SkuId": "claude_aws/ccu",
        "SkuMeter": "CCU",
        "SkuPriceId": "claude_aws/ccu",
        "Tags": "{}",
    }


def _row(day: str, account: str, question: Question) -> Row:
    """What every row has. Empty columns are told to be empty, which rules of other columns ask for."""
    at = date.fromisoformat(day)
    days = calendar.monthrange(at.year, at.month)[1]
    first = at.replace(day=1)
    known = question.config.accounts.get(account)
    name = (known and known.name) or account
    return dict.fromkeys(COLUMNS, "") | {
        "BillingAccountId": account or "unknown",
        "BillingAccountName": name or "unknown",
        "SubAccountId": account,
        "SubAccountName": name,
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
