"""What CloudWatch counted in a region: calls and tokens by model, and what these come to at list price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from farthing.book import Unpriced, default_book
from farthing.meters import Vector
from farthing.rating import find

RUNTIME, MANTLE = "AWS/Bedrock", "AWS/BedrockMantle"
DAY_SECONDS = 86_400
FAILURES = "ModelInvocationLogsS3DeliveryFailure"
_CALLS = "Invocations"
_METERS = {  # both names of the cache metrics have been seen; a model has one of them
    "input": ("InputTokenCount",),
    "output": ("OutputTokenCount",),
    "cache_read": ("CacheReadInputTokens", "CacheReadInputTokenCount"),
    "cache_write_5m": ("CacheWriteInputTokens", "CacheWriteInputTokenCount"),
}
_MANTLE_METERS = {
    "input": ("TotalInputTokens", "InputTokens"),
    "output": ("TotalOutputTokens", "OutputTokens"),
}
_PER_REQUEST = 500  # metrics that GetMetricData takes at once

Daily = dict[str, dict[str, list[int]]]  # model -> metric -> a sum a day, oldest first


def used(cloudwatch: Any, since: datetime, until: datetime) -> Daily:
    """Calls and tokens a day of each model called through bedrock-runtime."""
    names = [_CALLS, *(name for names in _METERS.values() for name in names)]
    return _daily(
        cloudwatch, RUNTIME, "ModelId", _models(cloudwatch, RUNTIME, _CALLS, "ModelId"), names, since, until
    )


def used_by_mantle(cloudwatch: Any, since: datetime, until: datetime) -> Daily:
    """The same of bedrock-mantle, whose counts lie at four levels: only that of models is read."""
    names = ["Inferences", *(name for names in _MANTLE_METERS.values() for name in names)]
    models = _models(cloudwatch, MANTLE, "Inferences", "Model")
    return _daily(cloudwatch, MANTLE, "Model", models, names, since, until)


def total(cloudwatch: Any, metric: str, since: datetime, until: datetime, period: int = 3600) -> int:
    """A metric of bedrock-runtime summed over time, and over models where it has them."""
    found = cloudwatch.get_paginator("list_metrics").paginate(Namespace=RUNTIME, MetricName=metric)
    levels = [
        tuple((d["Name"], d["Value"]) for d in m["Dimensions"]) for page in found for m in page["Metrics"]
    ]
    by_model = [level for level in levels if [name for name, _ in level] == ["ModelId"]]
    asked = {f"m{i}": (RUNTIME, metric, level) for i, level in enumerate(by_model or levels)}
    return sum(sum(values) for values in _ask(cloudwatch, asked, since, until, period).values())


def calls(daily: Daily, metric: str = _CALLS) -> int:
    return sum(sum(counts.get(metric, ())) for counts in daily.values())


def worth(daily: Daily, region: str, since: datetime, profiles: Mapping[str, str]) -> int | None:
    """List price of what was counted, day by day; None if anything of Claude has no price, or nothing told which.

    A day's prompts are priced at their mean size, and cache writes as of five minutes.
    """
    amounts = [
        _price(model, counts, day, region, since, profiles)
        for model, counts in daily.items()
        if _is_claude(model)
        for day in range(max(map(len, counts.values()), default=0))
    ]
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


def worth_of_mantle(daily: Daily, region: str, since: datetime) -> int | None:
    """At most: CloudWatch counts cached tokens of mantle as input, and so they are priced here."""
    renamed = {
        model if "." in model else f"anthropic.{model}": {
            _CALLS: counts.get("Inferences", []),
            "InputTokenCount": _best(counts, _MANTLE_METERS["input"]),
            "OutputTokenCount": _best(counts, _MANTLE_METERS["output"]),
        }
        for model, counts in daily.items()
    }
    return worth(renamed, region, since, {})


def _price(
    model: str,
    counts: Mapping[str, list[int]],
    day: int,
    region: str,
    since: datetime,
    profiles: Mapping[str, str],
) -> int | None:
    def count(meter: str) -> int:
        values = _best(counts, _METERS[meter])
        return values[day] if day < len(values) else 0

    tokens = Vector(**{meter: count(meter) for meter in _METERS})
    if not tokens.total:
        return 0
    number = max(counts.get(_CALLS, [])[day : day + 1] or [1])
    book = default_book()
    resolved = book.resolve(model, platform="bedrock", region=region, profiles=profiles)
    if isinstance(resolved, Unpriced):
        return None
    mean = Vector(*(-(-entry // max(number, 1)) for entry in tokens))
    card = find(book, resolved.sku, since + timedelta(days=day), mean)
    return None if isinstance(card, Unpriced) else int(tokens @ card.rates)


def _is_claude(model: str) -> bool:
    """Or may be: an application profile's id tells no model."""
    return "claude" in model or "inference-profile" in model or "." not in model


def _best(counts: Mapping[str, list[int]], names: Iterable[str]) -> list[int]:
    return max((counts.get(name, []) for name in names), key=sum)


def _models(cloudwatch: Any, namespace: str, metric: str, dimension: str) -> list[str]:
    pages = cloudwatch.get_paginator("list_metrics").paginate(Namespace=namespace, MetricName=metric)
    found = (m["Dimensions"] for page in pages for m in page["Metrics"])
    return sorted({d[0]["Value"] for d in found if len(d) == 1 and d[0]["Name"] == dimension})


def _daily(
    cloudwatch: Any,
    namespace: str,
    dimension: str,
    models: Sequence[str],
    names: Sequence[str],
    since: datetime,
    until: datetime,
) -> Daily:
    pairs = [(model, name) for model in models for name in names]
    asked = {f"m{i}": (namespace, name, ((dimension, model),)) for i, (model, name) in enumerate(pairs)}
    answers = _ask(cloudwatch, asked, since, until, DAY_SECONDS)
    daily: Daily = {}
    for key, (model, name) in zip(asked, pairs, strict=True):
        daily.setdefault(model, {})[name] = answers.get(key, [])
    return daily


def _ask(
    cloudwatch: Any,
    asked: Mapping[str, tuple[str, str, tuple[tuple[str, str], ...]]],
    since: datetime,
    until: datetime,
    period: int,
) -> dict[str, list[int]]:
    """Sums a period from `since` on, with zeros where nothing was counted."""
    from botocore.utils import parse_timestamp

    slots = -(-int((until - since).total_seconds()) // period)
    answers = {key: [0] * slots for key in asked}
    keys = list(asked)
    for start in range(0, len(keys), _PER_REQUEST):
        queries = [_query(key, *asked[key], period) for key in keys[start : start + _PER_REQUEST]]
        pages = cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=queries, StartTime=since, EndTime=until
        )
        for answer in (answer for page in pages for answer in page["MetricDataResults"]):
            for at, value in zip(answer["Timestamps"], answer["Values"], strict=True):
                slot = int((parse_timestamp(str(at)) - since).total_seconds()) // period
                if 0 <= slot < slots:
                    answers[answer["Id"]][slot] += round(value)
    return answers


def _query(
    key: str, namespace: str, name: str, dimensions: tuple[tuple[str, str], ...], period: int
) -> dict[str, Any]:
    said = [{"Name": name_, "Value": value} for name_, value in dimensions]
    metric = {"Namespace": namespace, "MetricName": name, "Dimensions": said}
    return {"Id": key, "MetricStat": {"Metric": metric, "Period": period, "Stat": "Sum"}}
