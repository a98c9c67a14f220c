"""Lines of OTLP JSON to usage and totals, whichever signals they hold: collectors mix them in one file."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from farthing.importers._batch import Reject
from farthing.importers._open import UNREADABLE, Bad, Numbered
from farthing.importers._otlp import (
    Line,
    Plain,
    Resource,
    ResourceLogs,
    ResourceMetrics,
    ResourceSpans,
    Scope,
    Span,
    decoder,
    plain,
    text,
)
from farthing.importers._otlp_fleet import Events, Series, event
from farthing.importers._otlp_spans import Spans
from farthing.importers._read import Item, Lines, reason, whole
from farthing.usage import Rejected

Batches = Iterator[Item | Rejected]


def read(lines: Lines) -> Iterator[Item]:
    """A format's `read`. What needs to be compared over lines comes last: the rest of spans, cumulative series."""
    lines = Numbered.of(lines)
    signals = _Signals()
    for found in lines.decoded(decoder):
        number = lines.number
        try:
            record = _mended(found) if isinstance(found, Bad) else found
        except UNREADABLE as fault:
            yield Reject(number, reason(fault))
            continue
        for item in signals.line(record):
            yield Reject(number, reason(item)) if isinstance(item, Rejected) else item
    yield from signals.rest()


def _mended(bad: Bad) -> Line | list[Span]:
    if isinstance(bad.error, msgspec.ValidationError):
        raise bad.error
    return decoder.decode(whole(bad.line))


class _Signals:
    def __init__(self) -> None:
        self._spans = Spans()
        self._series = Series()
        self._events = Events()

    def line(self, record: Line | list[Span]) -> Batches:
        if isinstance(record, list):
            for span in record:
                yield from self._span(span, span.scope, _said(span.resource))
            return
        for spans in record.resourceSpans or ():
            yield from self._spans_of(spans)
        for logs in record.resourceLogs or ():
            yield from self._logs_of(logs)
        for metrics in record.resourceMetrics or ():
            yield from self._metrics_of(metrics)
        if record.spanId:
            yield from self._span(record, record.scope, _said(record.resource))

    def rest(self) -> Iterator[Item]:
        yield from self._spans.rest()
        yield from self._series.rest()

    def _span(self, span: Span, scope: Scope | None, resource: Plain) -> Batches:
        try:
            yield from self._spans.add(span, scope, resource)
        except Rejected as fault:  # so that one bad span does not end its batch
            yield fault

    def _spans_of(self, batch: ResourceSpans) -> Batches:
        resource = _said(batch.resource)
        for group in batch.scopeSpans or ():
            for span in group.spans or ():
                yield from self._span(span, group.scope, resource)

    def _logs_of(self, batch: ResourceLogs) -> Batches:
        resource = _said(batch.resource)
        for group in batch.scopeLogs or ():
            found = [(event(record, group.scope, resource), record) for record in group.logRecords or ()]
            refused = {text(said, "request_id") for (name, said), _ in found if name == "api_refusal"}
            for (name, said), record in found:
                if name in ("api_request", "api_error"):
                    gone = text(said, "request_id") in refused
                    try:
                        yield self._events.usage(name, said, record, resource, refused=gone)
                    except Rejected as fault:
                        yield fault

    def _metrics_of(self, batch: ResourceMetrics) -> Batches:
        for group in batch.scopeMetrics or ():
            yield from self._series.line(group.metrics or [])


def _said(resource: Resource | None) -> Plain:
    return plain(resource.attributes) if resource else {}
