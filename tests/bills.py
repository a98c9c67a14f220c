"""AWS bills made of usage and the public rates alone: no code is shared with the book or with what reads bills."""

import csv
import gzip
import io
import json
import random
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

METERS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
CODES = {"us-east-1": "USE1", "eu-central-1": "EUC1", "ap-northeast-1": "APN1"}
MODELS = {  # id: name, the grammar its usage types are in
    "claude-opus-4-6": ("Claude Opus 4.6", "camel"),
    "claude-haiku-4-5": ("Claude Haiku 4.5", "camel"),
    "claude-sonnet-4-6": ("Claude Sonnet 4.6", "native"),
    "claude-opus-4-8": ("Claude Opus 4.8", "snake"),
    "claude-opus-5": ("Claude Opus 5", "snake"),
}
MONTH = datetime(2026, 9, 1, tzinfo=UTC)
PAYER = "999988887777"


@dataclass(frozen=True)
class Call:
    at: datetime
    account: str
    region: str
    model: str
    endpoint: str
    mode: str
    tokens: tuple[int, int, int, int, int]
    mantle: bool = False


@dataclass(frozen=True)
class Line:
    """A line of the bill: tokens of one meter on one day."""

    day: str
    account: str
    region: str
    model: str
    endpoint: str
    mode: str
    meter: str
    mantle: bool
    tokens: int
    cost: Decimal
    line_type: str = "Usage"
    usage_type: str = ""
    product: str = ""
    description: str = ""


class Rates:
    """Dollars a token, by the file of public rates."""

    def __init__(self, path: Path) -> None:
        self._models = {model["id"]: model["bedrock"] for model in json.loads(path.read_text())["models"]}

    def of(self, model: str, endpoint: str, mode: str, meter: str) -> Decimal:
        table = self._models[model]
        rates = table["batch"][endpoint] if mode == "batch" else table[endpoint]
        return Decimal(rates[meter]) / 1_000_000


def traffic(
    days: int = 10,
    a_day: int = 60,
    seed: int = 3,
    accounts: tuple[str, ...] = ("111122223333", "444455556666"),
) -> list[Call]:
    """Calls of some accounts over the first days of the month."""
    rng = random.Random(seed)
    made = []
    for day in range(days):
        for _ in range(a_day):
            at = MONTH + timedelta(days=day, seconds=rng.randrange(86_400))
            mode = rng.choice(["on_demand"] * 5 + ["batch"])
            model = rng.choice(
                ["claude-opus-4-6", "claude-haiku-4-5", "claude-sonnet-4-6"]
                if mode == "batch"
                else list(MODELS)
            )
            cached = (
                (rng.randrange(90_000), rng.randrange(9_000), rng.randrange(9_000))
                if mode != "batch"
                else (0, 0, 0)
            )
            tokens = (rng.randrange(1, 5_000), rng.randrange(1, 3_000), *cached)
            account = rng.choice(accounts)
            region = {"111122223333": "us-east-1", "444455556666": "eu-central-1"}.get(
                account, "ap-northeast-1"
            )
            made.append(Call(at, account, region, model, rng.choice(["global", "regional"]), mode, tokens))
    return made


def lines(calls: list[Call], rates: Rates) -> list[Line]:
    """What AWS would bill for these calls, each meter and day a line."""
    sums: dict[tuple, int] = defaultdict(int)
    for call in calls:
        place = (f"{call.at:%Y-%m-%d}", call.account, call.region, call.model, call.endpoint, call.mode)
        for meter, count in zip(METERS, call.tokens, strict=True):
            sums[place, meter, call.mantle] += count
    return [
        Line(*(*place, meter, mantle, tokens, tokens * rates.of(place[3], place[4], place[5], meter)))
        for (place, meter, mantle), tokens in sorted(sums.items())
        if tokens
    ]


CAMEL = {"input": "InputTokenCount", "output": "OutputTokenCount", "cache_read": "CacheReadInputTokenCount",
         "cache_write_5m": "CacheWriteInputTokenCount", "cache_write_1h": "CacheWrite1hInputTokenCount"}  # fmt: skip
SNAKE = {"input": "input_tokens", "output": "output_tokens", "cache_read": "cache_read_tokens",
         "cache_write_5m": "cache_write_tokens", "cache_write_1h": "cache_write_tokens_1h"}  # fmt: skip
NATIVE = {"input": "input-tokens", "output": "output-tokens", "cache_read": "cache-read-input-token-count",
          "cache_write_5m": "cache-write-input-token-count",
          "cache_write_1h": "cache-write-1h-input-token-count"}  # fmt: skip
MANTLE = {"input": "input-tokens", "output": "output-tokens", "cache_read": "cache-read-tokens",
          "cache_write_5m": "cache-write-tokens", "cache_write_1h": "cache-write-tokens-1h"}  # fmt: skip


def written(line: Line) -> dict[str, str]:
    """How AWS names the line: usage type, product, unit, amount in that unit."""
    if line.usage_type:
        return {"usage_type": line.usage_type, "product": line.product, "unit": "Units", "entity": "AWS",
                "code": "AmazonBedrockService", "amount": f"{line.tokens}"}  # fmt: skip
    code = CODES[line.region]
    name, grammar = MODELS[line.model]
    world, batch = line.endpoint == "global", line.mode == "batch"
    if line.mantle:
        text = f"{code}-anthropic.{line.model}-mantle-{MANTLE[line.meter]}{'-global' * world}-standard"
    elif grammar == "camel":
        text = f"{code}-MP:{code}_{CAMEL[line.meter]}{'_Global' * world}{'_Batch' * batch}-Units"
    elif grammar == "snake":
        text = f"{code}-MP:{code}_{SNAKE[line.meter]}{'_global' * world}_{'batch' if batch else 'standard'}-Units"
    else:
        words = name.split()
        text = f"{code}-Claude{words[2]}{words[1]}-{NATIVE[line.meter]}{'-batch' * batch}"
        text += "-cross-region-global" * world
    market = "-MP:" in text
    scale = 1_000_000 if market else 1_000
    return {
        "usage_type": text,
        "product": f"{name} (Amazon Bedrock Edition)" if market else "Amazon Bedrock Service",
        "code": "3xk2fjw9qd0v7b6m1n8p5t4r2" if market else "AmazonBedrockService",
        "entity": "AWS Marketplace" if market else "AWS",
        "unit": "Units" if market else "1K tokens",
        "amount": f"{Decimal(line.tokens) / scale}",
    }


LEGACY = ("identity/LineItemId", "identity/TimeInterval", "bill/InvoiceId", "bill/BillingEntity", "bill/BillType",
          "bill/PayerAccountId", "bill/BillingPeriodStartDate", "lineItem/UsageAccountId", "lineItem/LineItemType",
          "lineItem/UsageStartDate", "lineItem/ProductCode", "lineItem/UsageType", "lineItem/Operation",
          "lineItem/UsageAmount", "lineItem/CurrencyCode", "lineItem/UnblendedCost", "lineItem/NetUnblendedCost",
          "lineItem/LineItemDescription", "product/ProductName", "product/regionCode", "pricing/unit",
          "pricing/publicOnDemandCost")  # fmt: skip


def legacy(line: Line, number: int = 0) -> dict[str, str]:
    said = written(line)
    values = (
        f"id{number}", f"{line.day}T00:00:00Z/{line.day}T23:59:59Z", "INV-1", said["entity"], "Anniversary", PAYER,
        f"{line.day[:7]}-01T00:00:00Z", line.account, line.line_type, f"{line.day}T00:00:00Z", said["code"],
        said["usage_type"], "InvokeModelInference", said["amount"], "USD", f"{line.cost:f}", f"{line.cost:f}",
        line.description or said["product"], said["product"], line.region, said["unit"], "0",
    )  # fmt: skip
    return dict(zip(LEGACY, values, strict=True))


def cur2(line: Line, number: int = 0) -> dict[str, str]:
    from farthing.statement._columns import snake  # names of columns only

    row = {snake(name): value for name, value in legacy(line, number).items()}
    row["product"] = json.dumps({"product_name": row.pop("product_product_name")})
    return row


def focus(line: Line, number: int = 0) -> dict[str, str]:
    said = written(line)
    kind = {"Usage": "Usage", "Credit": "Credit", "Tax": "Tax"}.get(line.line_type, "Adjustment")
    return {
        "BilledCost": f"{line.cost:f}", "BillingAccountId": PAYER, "BillingCurrency": "USD",
        "BillingPeriodStart": f"{line.day[:7]}-01 00:00:00", "ChargeCategory": kind, "ChargeClass": "NULL",
        "ChargeDescription": line.description or said["product"], "ChargePeriodStart": f"{line.day} 00:00:00",
        "EffectiveCost": f"{line.cost:f}", "ListCost": f"{line.cost:f}", "InvoiceIssuerName": "AWS",
        "PricingQuantity": said["amount"], "PricingUnit": said["unit"], "ProviderName": "AWS", "RegionId": line.region,
        "ResourceId": "NULL", "ServiceName": said["product"], "SubAccountId": line.account,
        "x_UsageType": said["usage_type"], "x_ServiceCode": said["code"], "Tags": "{}",
    }  # fmt: skip


def with_columns(form, columns):
    """Lines in a form, with these columns too, or with what `columns` gives of each line."""
    return lambda line, number=0: form(line, number) | (columns(line) if callable(columns) else columns)


def write_csv(path: Path, found: list[Line], form=legacy) -> Path:
    rows = [form(line, number) for number, line in enumerate(found)]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    out = csv.DictWriter(text, list(rows[0]))
    out.writeheader()
    out.writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_parquet(path: Path, found: list[Line]) -> Path:
    """CUR 2.0 as Data Exports writes it: amounts as doubles, `product` as a map."""
    import duckdb

    text = write_csv(path.with_suffix(".csv"), found, cur2)
    duckdb.sql(f"""
        COPY (SELECT * REPLACE (CAST(line_item_usage_amount AS DECIMAL(38, 12)) AS line_item_usage_amount,
                                CAST(line_item_unblended_cost AS DECIMAL(38, 12)) AS line_item_unblended_cost,
                                CAST(line_item_usage_start_date AS TIMESTAMP) AS line_item_usage_start_date,
                                map(['product_name'], [json_extract_string(product, '$.product_name')]) AS product)
              FROM read_csv('{text}', all_varchar = true)) TO '{path}' (FORMAT parquet)""")
    text.unlink()
    return path


def write_explorer(path: Path, found: list[Line]) -> Path:
    groups: dict[str, list] = defaultdict(list)
    for line in found:
        said = written(line)
        groups[line.day].append({
            "Keys": [line.account, said["usage_type"]],
            "Metrics": {"UnblendedCost": {"Amount": f"{line.cost:f}", "Unit": "USD"},
                        "UsageQuantity": {"Amount": said["amount"], "Unit": "N/A"}},
        })  # fmt: skip
    document = {
        "GroupDefinitions": [{"Type": "DIMENSION", "Key": key} for key in ("LINKED_ACCOUNT", "USAGE_TYPE")],
        "ResultsByTime": [
            {"TimePeriod": {"Start": day, "End": day}, "Total": {}, "Groups": rows, "Estimated": False}
            for day, rows in groups.items()
        ],
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


def apart(line_type: str, cost: str, day: str = "2026-09-05", account: str = "111122223333") -> Line:
    """A line that is no usage: a credit, a discount, a tax."""
    return Line(day, account, "us-east-1", "claude-opus-4-6", "global", "on_demand", "input", False, 0, Decimal(cost),
                line_type, description=f"{line_type} for Claude Opus 4.6 (Amazon Bedrock Edition)")  # fmt: skip


def dearer(line: Line, factor: str) -> Line:
    return replace(line, cost=line.cost * Decimal(factor))
