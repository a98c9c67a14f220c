"""The AWS bill of what went through the emulator: hourly lines, as CUR 2.0 or with the legacy names of columns.

Tokens times the rates of rates.json, exactly. Usage types are in the grammar that the model's are in: camel case up to
Claude 4.6 and Haiku 4.5, snake case since; of mantle, its own.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from farthing.emulator._moments import hour
from farthing.emulator._rates import Rates, models, rates
from farthing.meters import METERS, Vector

if TYPE_CHECKING:
    from farthing.emulator._world import Call

Form = Literal["cur2", "legacy"]
PAYER = "999988887777"
_PRINCIPAL = "line_item_iam_principal"  # CUR 2.0 alone
_CAMEL_UNTIL = date(2026, 3, 1)  # released before
_CODES = {
    "us-east-1": "USE1", "us-east-2": "USE2", "us-west-1": "USW1", "us-west-2": "USW2", "ca-central-1": "CAN1",
    "sa-east-1": "SAE1", "eu-west-1": "EU", "eu-west-2": "EUW2", "eu-west-3": "EUW3", "eu-central-1": "EUC1",
    "eu-central-2": "EUC2", "eu-north-1": "EUN1", "eu-south-1": "EUS1", "eu-south-2": "EUS2",
    "ap-northeast-1": "APN1", "ap-northeast-2": "APN2", "ap-northeast-3": "APN3", "ap-southeast-1": "APS1",
    "ap-southeast-2": "APS2", "ap-south-1": "APS3", "ap-southeast-3": "APS4", "ap-south-2": "APS5",
    "ap-southeast-4": "APS6", "ap-east-1": "APE1", "me-south-1": "MES1", "me-central-1": "MEC1",
    "af-south-1": "AFS1", "il-central-1": "ILC1", "us-gov-west-1": "UGW1", "us-gov-east-1": "UGE1",
}  # fmt: skip
_CAMEL = {
    "input": "InputTokenCount", "output": "OutputTokenCount", "cache_read": "CacheReadInputTokenCount",
    "cache_write_5m": "CacheWriteInputTokenCount", "cache_write_1h": "CacheWrite1hInputTokenCount",
}  # fmt: skip
_SNAKE = {
    "input": "input_tokens", "output": "output_tokens", "cache_read": "cache_read_tokens",
    "cache_write_5m": "cache_write_tokens", "cache_write_1h": "cache_write_tokens_1h",
}  # fmt: skip
_MANTLE = {
    "input": "input-tokens", "output": "output-tokens", "cache_read": "cache-read-tokens",
    "cache_write_5m": "cache-write-tokens", "cache_write_1h": "cache-write-tokens-1h",
}  # fmt: skip


class _Line(NamedTuple):
    """What a line is of; its tokens are summed."""

    hour: str
    account: str
    region: str
    model: str
    endpoint: str
    mode: str
    over: int
    mantle: bool
    streamed: bool
    resource: str
    principal: str
    camel: bool


class Bills:
    """Tokens by hour and by all that a bill tells apart."""

    def __init__(self) -> None:
        self._tokens: dict[_Line, list[int]] = defaultdict(lambda: [0] * len(METERS))
        self._before: dict[Path, list[bytes]] = {}  # a delivery's lines as an earlier run left them

    def add(self, call: Call, tokens: Vector) -> None:
        """A call that was billed."""
        called, caller = call.called, call.caller
        line = _Line(
            hour(call.at_us), caller.account, caller.region, called.model.id, called.endpoint, call.mode, call.over,
            call.door == "mantle", call.streamed, called.profile or _resource(called.id, caller.region, caller.account),
            caller.arn, called.model.released < _CAMEL_UNTIL,
        )  # fmt: skip
        sums = self._tokens[line]
        for at, count in enumerate(tokens):
            sums[at] += count

    def months(self) -> list[str]:
        """Months with usage, as 2026-11."""
        return sorted({line.hour[:7] for line in list(self._tokens)})

    def cur(self, form: Form = "cur2", month: str = "", first: int = 0) -> bytes:
        """The bill as CSV, of one month or of all. Its lines are numbered from `first`."""
        names = (
            dict(_LEGACY) if form == "legacy" else {name: name for name in (*_LEGACY.values(), _PRINCIPAL)}
        )
        text = io.StringIO(newline="")
        out = csv.writer(text)
        out.writerow(list(names))
        for number, row in enumerate(self._rows(month), first):
            row["identity_line_item_id"] = f"line{number:08d}"
            if form == "legacy":
                row["product"] = row["line_item_line_item_description"].partition(" - ")[0]
            out.writerow([row[name] for name in names.values()])
        return text.getvalue().encode()

    def write(self, folder: Path, form: Form = "cur2") -> list[Path]:
        """One delivery a month, each in place of the one before, with what earlier runs were billed in this form."""
        written = []
        for month in self.months():
            path = folder / f"BILLING_PERIOD={month}" / "emulated-00001.csv.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            if path not in self._before:
                self._before[path] = (
                    gzip.decompress(path.read_bytes()).splitlines(True) if path.exists() else []
                )
            before = self._before[path]
            names, *lines = self.cur(form, month, max(0, len(before) - 1)).splitlines(True)
            kept = before[1:] if before[:1] == [names] else []
            part = path.with_name(f".{path.name}.part")
            part.write_bytes(gzip.compress(b"".join([names, *kept, *lines]), mtime=0))
            written.append(part.replace(path))
        return written

    def _rows(self, month: str) -> Iterator[dict[str, Any]]:
        for line, tokens in sorted((line, tuple(sums)) for line, sums in list(self._tokens.items())):
            if month and not line.hour.startswith(month):
                continue
            held = rates(
                line.model, line.endpoint, line.mode, line.region, date.fromisoformat(line.hour[:10])
            )
            usd = next(one.usd for one in held if one.over == line.over)
            for meter, count in zip(METERS, tokens, strict=True):
                if count:
                    yield _row(line, meter, count, usd[meter])


def _row(line: _Line, meter: str, count: int, rate: Decimal) -> dict[str, Any]:
    """Columns by their names in CUR 2.0."""
    usage_type = _usage_type(line, meter)
    market = "-MP:" in usage_type
    amount = Decimal(count) / (1_000_000 if market else 1_000)
    cost = Decimal(count) * rate / 1_000_000
    name = f"{models()[line.model].name} (Amazon Bedrock Edition)"
    product = name if market else "Amazon Bedrock Service"
    end = f"{datetime.fromisoformat(line.hour) + timedelta(hours=1):%Y-%m-%dT%H:00:00Z}"
    return {
        "identity_time_interval": f"{line.hour}/{end}",
        "bill_invoice_id": "",
        "bill_billing_entity": "AWS Marketplace" if market else "AWS",
        "bill_bill_type": "Anniversary",
        "bill_payer_account_id": PAYER,
        "bill_billing_period_start_date": f"{line.hour[:7]}-01T00:00:00Z",
        "line_item_usage_account_id": line.account,
        "line_item_line_item_type": "Usage",
        "line_item_usage_start_date": line.hour,
        "line_item_usage_end_date": end,
        "line_item_product_code": "3xk2fjw9qd0v7b6m1n8p5t4r2" if market else "AmazonBedrockService",
        "line_item_usage_type": usage_type,
        "line_item_operation": "InvokeModelStreamingInference" if line.streamed else "InvokeModelInference",
        "line_item_resource_id": line.resource,
        "line_item_iam_principal": line.principal,
        "line_item_usage_amount": f"{amount:f}",
        "line_item_currency_code": "USD",
        "line_item_unblended_rate": f"{rate if market else rate / 1000:f}",
        "line_item_unblended_cost": f"{cost:f}",
        "line_item_net_unblended_cost": f"{cost:f}",
        "line_item_line_item_description": f"{product} - {usage_type}",
        "product": json.dumps({"product_name": product}),
        "product_region_code": line.region,
        "pricing_unit": "Units" if market else "1K tokens",
        "pricing_public_on_demand_cost": "0" if market else f"{cost:f}",
    }


def _usage_type(line: _Line, meter: str) -> str:
    code = _code(line.region)
    if line.mantle:
        tail = f"{'-long-ctx' * bool(line.over)}{'-global' * (line.endpoint == 'global')}-standard"
        return f"{code}-anthropic.{line.model}-mantle-{_MANTLE[meter]}{tail}"
    dimension = _dimension(
        line.region, meter, line.endpoint, line.mode, camel=line.camel, long=bool(line.over)
    )
    return f"{code}-MP:{dimension}-Units"


def _code(region: str) -> str:
    return _CODES.get(region, region.replace("-", "").upper())


def _dimension(region: str, meter: str, endpoint: str, mode: str, *, camel: bool, long: bool) -> str:
    """What of a usage type is a dimension of the price list."""
    code, world, batch = _code(region), endpoint == "global", mode == "batch"
    if camel:
        return f"{code}_{_CAMEL[meter]}{'_LCtx' * long}{'_Global' * world}{'_Batch' * batch}"
    return f"{code}_{_SNAKE[meter]}{'_long_ctx' * long}{'_global' * world}_{'batch' if batch else 'standard'}"


def dimensions(
    region: str, released: date, endpoint: str, mode: str, held: Rates
) -> Iterator[tuple[str, Decimal]]:
    """The rate of each meter under its name in the price list."""
    camel, long = released < _CAMEL_UNTIL, bool(held.over)
    for meter, usd in held.usd.items():
        yield _dimension(region, meter, endpoint, mode, camel=camel, long=long), usd


def _resource(model: str, region: str, account: str) -> str:
    if model.startswith("arn:"):
        return model
    if model.startswith("anthropic."):
        return f"arn:aws:bedrock:{region}::foundation-model/{model}"
    return f"arn:aws:bedrock:{region}:{account}:inference-profile/{model}"


_LEGACY = {  # legacy name: name in CUR 2.0
    "identity/LineItemId": "identity_line_item_id",
    "identity/TimeInterval": "identity_time_interval",
    "bill/InvoiceId": "bill_invoice_id",
    "bill/BillingEntity": "bill_billing_entity",
    "bill/BillType": "bill_bill_type",
    "bill/PayerAccountId": "bill_payer_account_id",
    "bill/BillingPeriodStartDate": "bill_billing_period_start_date",
    "lineItem/UsageAccountId": "line_item_usage_account_id",
    "lineItem/LineItemType": "line_item_line_item_type",
    "lineItem/UsageStartDate": "line_item_usage_start_date",
    "lineItem/UsageEndDate": "line_item_usage_end_date",
    "lineItem/ProductCode": "line_item_product_code",
    "lineItem/UsageType": "line_item_usage_type",
    "lineItem/Operation": "line_item_operation",
    "lineItem/ResourceId": "line_item_resource_id",
    "lineItem/UsageAmount": "line_item_usage_amount",
    "lineItem/CurrencyCode": "line_item_currency_code",
    "lineItem/UnblendedRate": "line_item_unblended_rate",
    "lineItem/UnblendedCost": "line_item_unblended_cost",
    "lineItem/NetUnblendedCost": "line_item_net_unblended_cost",
    "lineItem/LineItemDescription": "line_item_line_item_description",
    "product/ProductName": "product",
    "product/regionCode": "product_region_code",
    "pricing/unit": "pricing_unit",
    "pricing/publicOnDemandCost": "pricing_public_on_demand_cost",
}
