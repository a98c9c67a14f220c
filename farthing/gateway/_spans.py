"""Spans of calls by OpenTelemetry's GenAI conventions, where its SDK is installed and told where to send them.

Nothing is exported unless one of the OTEL_ variables below says where to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from farthing.gateway.live import Call, Settled
from farthing.money import usd
from farthing.wire import Answer

Observer = Callable[[Call, Settled, Answer], None]
_PROVIDERS = {"bedrock": "aws.bedrock", "anthropic": "anthropic", "claude_aws": "anthropic"}
_TOLD_BY = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
_NONE: tuple[None, Callable[[], object]] = (None, lambda: None)


def observer() -> tuple[Observer | None, Callable[[], object]]:
    """What records an attempt, and what sends the last spans; none where nobody asks, or OpenTelemetry is not there."""
    if not any(os.environ.get(name) for name in _TOLD_BY) or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return _NONE
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
    except ImportError:
        return _NONE
    exporter: SpanExporter
    if os.environ.get("OTEL_TRACES_EXPORTER") == "console":
        exporter = ConsoleSpanExporter()
    else:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError:
            return _NONE
        exporter = OTLPSpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return recorder(provider.get_tracer("farthing.gateway")), provider.shutdown


def recorder(tracer: object) -> Observer:
    """Each attempt a span, made when it is over. It names no content."""
    from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

    assert isinstance(tracer, Tracer)

    def record(call: Call, settled: Settled, answer: Answer) -> None:
        intent = call.intent
        span = tracer.start_span(
            f"chat {intent.model}",
            kind=SpanKind.CLIENT,
            start_time=call.at_us * 1000,
            attributes=_said(call, settled),
        )
        for name, value in (
            ("gen_ai.response.model", answer.model),
            ("gen_ai.response.id", answer.message_id),
        ):
            if value:
                span.set_attribute(name, value)
        if answer.error:
            span.set_attribute("error.type", answer.error)
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    return record


def _said(call: Call, settled: Settled) -> dict[str, str | int | Sequence[str]]:
    intent = call.intent
    said: dict[str, str | int | Sequence[str]] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _PROVIDERS.get(intent.platform, intent.platform),
        "gen_ai.request.model": intent.model,
        "farthing.call.id": call.id,
        "farthing.call.state": settled.state.value,
    }
    if settled.parts:
        tokens = [part.tokens for part in settled.parts]
        said |= {
            "gen_ai.usage.input_tokens": sum(
                each.prompt for each in tokens
            ),  # the convention counts cached ones in
            "gen_ai.usage.output_tokens": sum(each.output for each in tokens),
            "gen_ai.usage.cache_read.input_tokens": sum(each.cache_read for each in tokens),
            "gen_ai.usage.cache_creation.input_tokens": sum(
                each.cache_write_5m + each.cache_write_1h for each in tokens
            ),
        }
    if settled.picos is not None:
        said["farthing.cost.usd"] = usd(settled.picos)
    return said
