"""CloudWatch metrics of Bedrock (GetMetricData, GetMetricStatistics, metric streams): control totals.

A `scope` begins with the level that a series sums at (`runtime:model`, `runtime:all`, `mantle:project+model`):
series of one level and period are disjoint, those of two count the same tokens twice. Which labels are read says
docs/coverage.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple

from farthing.importers._batch import Reject
from farthing.importers._read import Item, Lines, instant, objects
from farthing.importers._totals import listed, mapped, text, values, whole
from farthing.usage import Rejected, Total, parse_model_id

_SECOND_US = 1_000_000
_STREAM_S = 60  # what a record of a metric stream sums over
_FAULTS = {
    "InvocationClientErrors": "client",
    "InvocationServerErrors": "server",
    "InferenceClientErrors": "client",
    "InferenceServerErrors": "server",
}
_NAMES = {
    "InputTokenCount": "input",
    "OutputTokenCount": "output",
    "CacheReadInputTokenCount": "cache_read",
    "CacheReadInputTokens": "cache_read",
    "CacheWriteInputTokenCount": "cache_write",
    "CacheWriteInputTokens": "cache_write",
    "Invocations": "calls",
    "InvocationThrottles": "throttles",
    "Inferences": "calls",
    "TotalInputTokens": "input",
    "TotalOutputTokens": "output",
    "InputTokens": "input",
    "OutputTokens": "output",
    **dict.fromkeys(_FAULTS, "errors"),
}
_OF_MANTLE = {"Inferences", "TotalInputTokens", "TotalOutputTokens", "InputTokens", "OutputTokens",
              "InferenceClientErrors", "InferenceServerErrors"}  # fmt: skip
_BY_LOWER = {name.lower(): name for name in _NAMES}
_NAMESPACES = {"AWS/Bedrock": "runtime", "AWS/BedrockMantle": "mantle"}
_STATISTICS = {"Sum", "Average", "Minimum", "Maximum", "SampleCount"}
_METRIC = re.compile(r"[A-Z][a-zA-Z]+")
_REGION = re.compile(r"[a-z]{2,3}(?:-[a-z]+)+-\d")
_OPENS = re.compile(
    rb'\s*(?:\xef\xbb\xbf)?\[?\s*\{\s*(?:"Messages"\s*:\s*\[\s*\]\s*,\s*)?'
    rb'(?:"MetricDataResults"\s*:\s*\[|"Label"\s*:\s*"[^"]*"\s*,\s*"Datapoints"\s*:|'
    rb'"Datapoints"\s*:\s*\[\s*(?:\]|\{\s*"(?:Timestamp|Sum|Unit)"))'
)


class _Series(NamedTuple):
    """What a metric is of."""

    metric: str
    namespace: str = ""
    account: str = ""
    region: str = ""
    dimensions: tuple[tuple[str, str], ...] = ()  # sorted
    period_s: int = 0
    statistic: str = ""
    named: bool = True  # whether the source says what the dimensions are


def sniff(head: bytes) -> bool:
    if _OPENS.match(head):
        return True
    return any({"metric_name", "namespace", "dimensions"} <= keys.keys() for keys in objects(head))


def read(lines: Lines, path: str = "") -> Iterator[Item]:
    for found in values(lines):
        if isinstance(found, Reject):
            yield found
            continue
        number, document = found
        try:
            yield from _read(number, mapped(document, "the document"))
        except Rejected as fault:
            yield Reject(number, str(fault))


def _read(number: int, document: dict[str, Any]) -> Iterator[Item]:
    if "metric_name" in document:
        yield from _of_stream(document)
    elif "MetricDataResults" in document:
        yield from _of_data(number, listed(document["MetricDataResults"], "MetricDataResults"))
    elif "Datapoints" in document:
        yield from _of_statistics(document)
    else:
        raise Rejected("no metric: MetricDataResults, Datapoints or metric_name is expected")


# --- the three forms -------------------------------------------------------------------------------------------------


def _of_stream(record: dict[str, Any]) -> Iterator[Total]:
    metric, namespace = text(record.get("metric_name")), text(record.get("namespace"))
    if metric not in _NAMES or namespace not in _NAMESPACES:
        return
    said = mapped(record.get("dimensions"), "dimensions")
    dimensions = tuple(sorted((name, str(value)) for name, value in said.items()))
    series = _Series(
        metric, namespace, text(record.get("account_id")), text(record.get("region")), dimensions
    )
    start_us = whole(record.get("timestamp"), "timestamp") * 1_000
    total = mapped(record.get("value"), "value").get("sum")
    yield from _totals(series, [(start_us, whole(total, "value.sum"))], _STREAM_S)


def _of_data(number: int, results: list[Any]) -> Iterator[Item]:
    """GetMetricData: of a series only its label says what it is; how long its periods are, too, or else the others."""
    read: list[tuple[_Series, list[tuple[int, int]]]] = []
    for i, entry in enumerate(results):
        try:
            result = mapped(entry, "the entry")
            if text(result.get("StatusCode")) == "Forbidden":
                raise Rejected("CloudWatch refused it: cloudwatch:GetMetricData is needed")
            series = _labelled(text(result.get("Label")), text(result.get("Id")))
            if series:
                read.append((series, _points(result)))
        except Rejected as fault:
            yield Reject(number, f"MetricDataResults[{i}]: {fault}")
    times = sorted({at for _, points in read for at, _ in points})
    gap_s = min((b - a for a, b in pairwise(times)), default=0) // _SECOND_US
    for series, points in read:
        if points and not (series.period_s or gap_s):
            yield Reject(number, f"nothing says how long a period of {series.metric} is: add ${{PROP('Period')}} "
                                 "to the label (docs/coverage.md)")  # fmt: skip
            continue
        yield from _totals(series, points, series.period_s or gap_s)


def _points(result: Mapping[str, Any]) -> list[tuple[int, int]]:
    times = listed(result.get("Timestamps"), "Timestamps")
    counts = listed(result.get("Values"), "Values")
    if len(times) != len(counts):
        raise Rejected(f"{len(times)} timestamps and {len(counts)} values")
    return [(_time(at), whole(count, "a value")) for at, count in zip(times, counts, strict=True)]


def _of_statistics(document: dict[str, Any]) -> Iterator[Total]:
    """GetMetricStatistics names neither dimensions nor place nor period: these are a check, and have no price."""
    series = _labelled(text(document.get("Label")), "")
    if series is None:
        return
    entries = [mapped(entry, "a datapoint") for entry in listed(document["Datapoints"], "Datapoints")]
    if any("Sum" not in entry for entry in entries):
        raise Rejected("a datapoint without Sum: ask for --statistics Sum")
    points = [(_time(entry.get("Timestamp")), whole(entry["Sum"], "Sum")) for entry in entries]
    times = sorted({at for at, _ in points})
    gap_s = min((b - a for a, b in pairwise(times)), default=0) // _SECOND_US
    if points and not gap_s:
        raise Rejected(
            "a single datapoint does not say how long its period is: use get-metric-data (docs/coverage.md)"
        )
    yield from _totals(series._replace(named=bool(series.dimensions)), points, series.period_s or gap_s)


# --- what they share -------------------------------------------------------------------------------------------------


def _time(value: Any) -> int:
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return int(value * _SECOND_US)
    return instant(value)


def _labelled(label: str, query: str) -> _Series | None:
    """The words of a label by their shape, in any order; None for a metric that counts nothing we know.

    The id of the query stands in for the metric's name, where the label has none.
    """
    said: dict[str, str] = {}
    dimensions: dict[str, str] = {}
    for word in label.split():
        name = _shape(word)
        if name == "dimension":
            key, _, value = word.partition("=")
            dimensions[key] = value
        elif name in said:
            raise Rejected(f"the label has two words for the {name}: write it as in docs/coverage.md")
        elif name:
            said[name] = word
    metric = said.get("metric") or _BY_LOWER.get(query.lower(), "")
    if not metric:
        raise Rejected("the label names no metric: write it as in docs/coverage.md")
    if metric not in _NAMES:
        return None
    if said.get("statistic", "Sum") != "Sum":
        raise Rejected(f"{said['statistic']} of {metric}, where its Sum is needed")
    if "model" in said:
        mantle = metric in _OF_MANTLE
        dimensions["Model" if mantle else "ModelId"] = said["model"]
    return _Series(
        metric,
        said.get("namespace", ""),
        said.get("account", ""),
        said.get("region", ""),
        tuple(sorted(dimensions.items())),
        int(said.get("period", 0)),
    )


def _shape(word: str) -> str:
    """What a word of a label is."""
    if word == "-":
        return ""
    if word.isdigit():
        return "account" if len(word) == 12 else "period"
    if word in _STATISTICS:
        return "statistic"
    if word in _NAMESPACES:
        return "namespace"
    if _REGION.fullmatch(word):
        return "region"
    if "=" in word:
        return "dimension"
    return "metric" if _METRIC.fullmatch(word) else "model"


_MODEL = ("ModelId", "Model")


def _totals(series: _Series, points: list[tuple[int, int]], period_s: int) -> Iterator[Total]:
    """What the periods of a series come to; nothing for models of other makers."""
    told = dict(series.dimensions)
    model = next((told.pop(name) for name in _MODEL if name in told), "")
    base = parse_model_id(model).base if model else ""
    if base and "claude" not in base:
        return
    service = "mantle" if series.metric in _OF_MANTLE else "runtime"
    names = sorted(
        {"model" if name in _MODEL else name.lower() for name, _ in series.dimensions}, reverse=True
    )
    level = f"{service}:{'+'.join(names) or ('all' if series.named else 'unnamed')}"
    fault = _FAULTS.get(series.metric)
    more = {**told, "period": str(period_s), **({"fault": fault} if fault else {})}
    scope = " ".join([level, *(f"{name}={value}" for name, value in sorted(more.items()))])
    for start_us, value in points:
        yield Total(
            "cloudwatch",
            start_us,
            start_us + period_s * _SECOND_US,
            _NAMES[series.metric],
            value,
            platform="bedrock",
            account=series.account,
            region=series.region,
            model_id=model,
            scope=scope,
        )
