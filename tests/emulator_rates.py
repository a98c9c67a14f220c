"""farthing/emulator/rates.json, made of the file of public rates: what Bedrock bills, row by row.

`python -m tests.emulator_rates RATES_JSON > farthing/emulator/rates.json` writes it anew. No code is shared with the
book, so that a bill of the emulator is another witness than it.
"""

import json
import sys
from decimal import Decimal
from pathlib import Path

METERS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
LONG = (("over_200k", 200_000),)
# AWS's page names the regions of extended access for 3.5 Sonnet: US East and West; of the first version four more.
_AMERICA = ["us-east-1", "us-east-2", "us-west-1", "us-west-2"]
EXTENDED = {
    "claude-3-5-sonnet-v2": _AMERICA,
    "claude-3-5-sonnet-v1": [*_AMERICA, "eu-central-1", "eu-central-2", "eu-west-1", "eu-west-3"],
}


def condensed(rates: dict) -> dict:
    """The rows of Bedrock alone."""
    return {
        "about": "USD per million tokens that Amazon Bedrock bills, as the emulator's bills have them",
        "as_of": rates["as_of"],
        "sources": rates["sources"],
        "models": [one for model in rates["models"] if (one := _model(model))],
    }


def _model(model: dict) -> dict | None:
    bedrock = model.get("bedrock")
    if not bedrock:
        return None
    rows = list(_rows(model["id"], bedrock))
    return {
        "id": model["id"],
        "name": model["name"],
        "source": ", ".join(model["sources"]),
        "mantle": bool(bedrock.get("mantle_model_id")),
        "rows": rows,
    }


def _rows(name: str, bedrock: dict):
    for endpoint, factor in (("global", "1"), ("regional", "1.1"), ("govcloud", "1.2")):
        base = bedrock.get(endpoint)
        if not base:
            continue
        if "periods" in bedrock:
            yield from _periods(name, endpoint, bedrock["periods"])
        elif "periods_global" in bedrock:
            for period in bedrock["periods_global"]:
                yield _row(endpoint, "on_demand", period, period, factor)
                for key, over in LONG:
                    if period.get(key):
                        yield _row(endpoint, "on_demand", period[key], period, factor, over)
        else:
            yield _row(endpoint, "on_demand", base)
            for tier in bedrock.get("tiers_global", ()):
                yield _row(endpoint, "on_demand", tier, factor=factor, over=tier["over_prompt_tokens"])
        yield from _batch(endpoint, bedrock, factor)


def _periods(name: str, endpoint: str, periods: list[dict]):
    """3.5 Sonnet: dearer from a day on, in some regions."""
    usual, extended = periods
    yield _row(endpoint, "on_demand", usual, {"from": None, "to": None})
    yield _row(endpoint, "on_demand", extended, extended) | {"regions": EXTENDED[name]}
    for period, where in ((usual, None), (extended, EXTENDED[name])):
        half = {meter: period[meter] for meter in ("input", "output")}
        dates = {"from": None, "to": None} if where is None else period
        yield _row(endpoint, "batch", half, dates, "0.5") | ({"regions": where} if where else {})


def _batch(endpoint: str, bedrock: dict, factor: str):
    """Where a batch SKU was seen, or nobody has looked: not where the price list had none."""
    batch = bedrock.get("batch") or {}
    rates = batch.get(endpoint)
    if not rates or str(batch.get("price_list_sku_seen", "")).startswith("no") or "periods" in bedrock:
        return
    yield _row(endpoint, "batch", rates)
    both = str(Decimal(factor) / 2)
    for tier in bedrock.get("tiers_global", ()):
        half = {meter: tier[meter] for meter in ("input", "output")}
        yield _row(endpoint, "batch", half, factor=both, over=tier["over_prompt_tokens"])
    for period in bedrock.get("periods_global", ()):
        for key, over in LONG:
            if period.get(key):
                half = {meter: period[key][meter] for meter in ("input", "output")}
                yield _row(endpoint, "batch", half, period, both, over)


def _row(
    endpoint: str, mode: str, rates: dict, dates: dict | None = None, factor: str = "1", over: int = 0
) -> dict:
    row: dict = {"endpoint": endpoint, "mode": mode}
    for key in ("from", "to"):
        if dates and dates.get(key):
            row[key] = dates[key]
    if over:
        row["over"] = over
    usd = {
        meter: f"{(Decimal(rates[meter]) * Decimal(factor)).normalize():f}"
        for meter in METERS
        if rates.get(meter) is not None
    }
    return row | {"usd": usd}


def written(table: dict) -> str:
    """One row a line, so that a difference can be read."""
    heads = {name: value for name, value in table.items() if name != "models"}
    models = []
    for model in table["models"]:
        rows = ",\n".join("    " + json.dumps(row) for row in model["rows"])
        head = json.dumps({name: value for name, value in model.items() if name != "rows"})
        models.append(f'  {head[:-1]}, "rows": [\n{rows}\n  ]}}')
    return json.dumps(heads, indent=1)[:-2] + ',\n "models": [\n' + ",\n".join(models) + "\n ]\n}\n"


if __name__ == "__main__":
    sys.stdout.write(written(condensed(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
