"""Claude Code's own telemetry of many machines: its OTLP events and metrics, as a collector writes them."""

from __future__ import annotations

from collections.abc import Iterator

from farthing.importers import _telemetry
from farthing.importers._read import Item, Lines, objects


def sniff(head: bytes) -> bool:
    return any(
        "resourceLogs" in keys or "resourceMetrics" in keys for keys in objects(head)
    )  # no spans: those are read as otel, and what else such a file holds is read all the same


def read(lines: Lines, path: str = "") -> Iterator[Item]:
    return _telemetry.read(lines)
