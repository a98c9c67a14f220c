"""OpenTelemetry spans of calls to Claude (gen_ai), as OTLP JSON of a collector or as spans line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from farthing.importers import _telemetry
from farthing.importers._read import Item, Lines, objects

_LIST = re.compile(rb'\s*\[\s*\{.*"spanId"', re.DOTALL)


def sniff(head: bytes) -> bool:
    return bool(_LIST.match(head[:4096])) or any(
        "resourceSpans" in keys or keys.keys() >= {"traceId", "spanId", "name"} for keys in objects(head)
    )


def read(lines: Lines, path: str = "") -> Iterator[Item]:
    return _telemetry.read(lines)
