"""Price lists of AWS and rate cards of agreements, made of rates alone: no code is shared with what reads them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

METERS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
CODES = {"us-east-1": "USE1", "us-west-2": "USW2", "eu-west-1": "EU", "eu-central-1": "EUC1",
         "ap-northeast-1": "APN1", "us-gov-west-1": "UGW1"}  # fmt: skip
CAMEL = {"input": "InputTokenCount", "output": "OutputTokenCount", "cache_read": "CacheReadInputTokenCount",
         "cache_write_5m": "CacheWriteInputTokenCount", "cache_write_1h": "CacheWrite1hInputTokenCount"}  # fmt: skip
SNAKE = {"input": "input_tokens", "output": "output_tokens", "cache_read": "cache_read_tokens",
         "cache_write_5m": "cache_write_tokens", "cache_write_1h": "cache_write_tokens_1h"}  # fmt: skip


@dataclass(frozen=True)
class Listed:
    """A rate of a list, in dollars per million tokens."""

    product: str  # Claude Opus 5
    meter: str
    usd: str
    endpoint: str = "regional"
    mode: str = "on_demand"
    region: str = "us-east-1"
    grammar: str = "snake"
    long_prompt: bool = False
    unit: str = "1M tokens"
    usage_type: str = ""  # instead of the one that the grammar gives
    description: str = ""


def all_meters(product: str, rates: str, **of: str) -> list[Listed]:
    """The rates of the five meters, or of the first two, as "5.5 27.5 0.55 6.875 11"."""
    return [
        Listed(product, meter, usd, **of)  # type: ignore[arg-type]
        for meter, usd in zip(METERS, rates.split(), strict=False)
    ]


# Opus 5 and Opus 4.6 as published (PRICES 1.1), in the grammar of each.
OPUS_5 = [
    *all_meters("Claude Opus 5", "5 25 0.5 6.25 10", endpoint="global"),
    *all_meters("Claude Opus 5", "5.5 27.5 0.55 6.875 11"),
    *all_meters("Claude Opus 5", "2.5 12.5", endpoint="global", mode="batch"),
    *all_meters("Claude Opus 5", "2.75 13.75", mode="batch"),
]
OPUS_4_6 = [
    *all_meters("Claude Opus 4.6", "5 25 0.5 6.25 10", endpoint="global", grammar="camel"),
    *all_meters("Claude Opus 4.6", "5.5 27.5 0.55 6.875 11", grammar="camel"),
    *all_meters("Claude Opus 4.6", "2.5 12.5", endpoint="global", mode="batch", grammar="camel"),
    *all_meters("Claude Opus 4.6", "2.75 13.75", mode="batch", grammar="camel"),
]


def changed(rows: list[Listed], usd: str, **of: str) -> list[Listed]:
    """The rows with another price where they are as `of` says."""
    return [
        replace(row, usd=usd) if all(getattr(row, k) == v for k, v in of.items()) else row for row in rows
    ]


def usage_type(row: Listed) -> str:
    code, world, batch = CODES[row.region], row.endpoint == "global", row.mode == "batch"
    if row.usage_type:
        return row.usage_type
    if row.grammar == "native":  # of the AmazonBedrock offer
        model = row.product.replace(" ", "")
        return f"{code}-{model}-{row.meter.replace('_', '-')}-tokens{'-batch' * batch}"
    if row.grammar == "camel":
        name = f"{CAMEL[row.meter]}{'_LCtx' * row.long_prompt}{'_Global' * world}{'_Batch' * batch}"
    else:
        tier = "batch" if batch else "standard"
        name = f"{SNAKE[row.meter]}{'_long_ctx' * row.long_prompt}{'_global' * world}_{tier}"
    return f"{code}-MP:{code}_{name}-Units"


def offer(
    rows: Iterable[Listed], code: str = "AmazonBedrockFoundationModels", published: str = "2026-11-20"
) -> dict:
    """An offer file, as the bulk API gives it."""
    products, terms = {}, {}
    for number, row in enumerate(rows):
        sku = f"SKU{number:05}"
        attributes = {
            "servicecode": code,
            "location": row.region,
            "locationType": "AWS Region",
            "usagetype": usage_type(row),
            "operation": "",
            "regionCode": row.region,
            "servicename": "Amazon Bedrock"
            if row.grammar == "native"
            else f"{row.product} (Amazon Bedrock Edition)",
        }
        if row.grammar == "native":
            attributes |= {"provider": "Anthropic", "model": row.product, "feature": "On-demand Inference"}
        products[sku] = {"sku": sku, "productFamily": "Amazon Bedrock", "attributes": attributes}
        dimension = {"rateCode": f"{sku}.1", "unit": row.unit, "beginRange": "0", "endRange": "Inf",
                     "description": row.description, "pricePerUnit": {"USD": f"{Decimal(row.usd):.10f}"}}  # fmt: skip
        term = {
            "sku": sku,
            "effectiveDate": f"{published}T00:00:00Z",
            "priceDimensions": {f"{sku}.1": dimension},
        }
        terms[sku] = {f"{sku}.T": term}
    return {
        "formatVersion": "v1.0",
        "offerCode": code,
        "version": published.replace("-", ""),
        "publicationDate": f"{published}T16:44:18Z",
        "products": products,
        "terms": {"OnDemand": terms},
    }


def agreement(model_id: str, rows: Iterable[Listed], *, unit: str = "Units") -> dict:
    """An answer of ListFoundationModelAgreementOffers."""
    card = [
        {
            "dimension": usage_type(row).split(":")[1].removesuffix("-Units"),
            "price": row.usd,
            "unit": unit,
            "description": "Million Tokens",
        }
        for row in rows
    ]
    offered = {"offerId": "offer-1", "termDetails": {"usageBasedPricingTerm": {"rateCard": card}}}
    return {"modelId": model_id, "offers": [offered]}


def written(path: Path, document: object) -> str:
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


def of_rates(path: Path) -> list[Listed]:
    """What AWS would list, by the file of public rates: two regions of each model that Bedrock sells."""
    rows = []
    for model in json.loads(path.read_text(encoding="utf-8"))["models"]:
        bedrock = model.get("bedrock") or {}
        for mode, tables in (("on_demand", bedrock), ("batch", bedrock.get("batch") or {})):
            for endpoint in ("global", "regional"):
                rates = tables.get(endpoint) if isinstance(tables, dict) else None
                for meter in METERS if isinstance(rates, dict) else ():
                    if rates and isinstance(rates.get(meter), str):
                        row = Listed(model["name"], meter, rates[meter], endpoint, mode)
                        rows += [row, replace(row, region="eu-central-1")]
    return rows
