"""Claude Code's own telemetry: an event for each call, and metrics that count tokens and dollars over time.

Events are usage. Metrics count the same calls again, so they are control totals and never usage.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from farthing.importers._block import ZERO
from farthing.importers._otlp import (
    LogRecord,
    Metric,
    Plain,
    Point,
    Scope,
    micros,
    number,
    plain,
    platform,
    principal,
    tags,
    text,
)
from farthing.importers._read import digest, instant
from farthing.usage import Facts, Rejected, Total, Usage, quoted

SCOPE = "com.anthropic.claude_code"
EVENTS = "claude_code_events"
METRICS = "claude_code_metrics"
_PREFIX = "claude_code."

# --- events --------------------------------------------------------------------------------------------------------

_TAGGED = ("query_source", "agent.name", "skill.name", "plugin.name", "organization.id")


def event(record: LogRecord, scope: Scope | None, resource: Plain) -> tuple[str, Plain]:
    """The name of an event of Claude Code's, without its prefix, and its attributes; "" for other programs'."""
    said = plain(record.attributes)
    body = record.body if isinstance(record.body, str) else getattr(record.body, "stringValue", None)
    name = next(
        (one for one in (body, record.eventName) if isinstance(one, str) and one.startswith(_PREFIX)), ""
    )
    named = (scope is not None and (scope.name or "").startswith(SCOPE)) or text(
        resource, "service.name"
    ).startswith("claude-code")
    if not name and named:
        name = text(said, "event.name")
    return name.removeprefix(_PREFIX), said


class Events:
    """Records of calls, with one Facts object for all that are equal."""

    def __init__(self) -> None:
        self._facts: dict[Facts, Facts] = {}

    def usage(self, name: str, said: Plain, record: LogRecord, resource: Plain, *, refused: bool) -> Usage:
        """A call that was answered or that failed. Rejected if it cannot be read."""
        duration_ms = number(said.get("duration_ms"), "duration_ms")
        stamp = text(said, "event.timestamp")
        logged_us = instant(stamp) if stamp else micros(record.timeUnixNano)  # when the call was over
        tokens, assumed, status = ZERO, "", ""
        if name == "api_error":
            status = str(number(said["status_code"], "status_code")) if "status_code" in said else "no answer"
        else:
            counts = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")
            if not any(count in said for count in counts):
                raise Rejected("no token counts")
            prompt, output, read, written = (number(said.get(count), count) for count in counts)
            if refused and not output:
                status = "refusal"  # counts are reported, not billed
            else:
                tokens, assumed = (prompt, output, read, written, 0), "ttl" if written else ""
        model = text(said, "model")
        if not model:
            raise Rejected("no model")
        request_id, client_id = text(said, "request_id"), text(said, "client_request_id")
        session = text(said, "session.id") or text(resource, "session.id")
        if not request_id and not client_id:  # on Bedrock: a name for it that every copy has
            said_of_it = (session, stamp or logged_us, said.get("event.sequence"), model, *tokens, status)
            request_id = digest("\0".join(map(str, said_of_it)).encode())
        facts = Facts(source=EVENTS, session=session, status=status, assumed=assumed, **_who(said, model))
        found = [(tag, text(said, tag)) for tag in _TAGGED]
        return Usage(
            logged_us - duration_ms * 1000,
            request_id,
            "",
            ((self._facts.setdefault(facts, facts), tokens),),
            tags(resource, found),
            duration_ms if "duration_ms" in said else None,
            gateway_id=client_id,
        )


def _who(said: Plain, model: str) -> dict[str, str]:
    """What events and metrics say alike. Region and account only from the record's own attributes, where Claude Code
    repeats what the operator set: on the resource, a collector may have added those of its own machine."""
    sold_by = platform(model)
    on_bedrock = sold_by == "bedrock"
    return {
        "platform": sold_by,
        "model_id": model,
        "region": text(said, "cloud.region") if on_bedrock else "",
        "account": text(said, "cloud.account.id") if on_bedrock else "",
        "principal": principal(said),
        "mode": "fast" if said.get("speed") == "fast" else "",
    }


# --- metrics -------------------------------------------------------------------------------------------------------

_TOKENS = {"input": "input", "output": "output", "cacheRead": "cache_read", "cacheCreation": "cache_write"}
_DELTA = (1, "1", "AGGREGATION_TEMPORALITY_DELTA")
_CUMULATIVE = (2, "2", "AGGREGATION_TEMPORALITY_CUMULATIVE")
PICOS = Decimal(10**12)


class Series:
    """Points to control totals.

    A delta is a total of its own period; points of one batch that differ only in what a Total does not have (effort,
    agent, skill) are added up, and a batch that is delivered again says the same again. Of a cumulative series only
    the last point counts, as a total from the series' start: the ledger takes the longest of those that begin
    together, so that it does not matter how points are spread over files.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[Any, ...], Total] = {}
        self._over: list[Total] = []  # series that fell back without saying so, up to where they did

    def line(self, metrics: list[Metric]) -> Iterator[Total | Rejected]:
        """The deltas of one batch; cumulative points are kept for `rest`."""
        deltas: dict[Total, int] = {}
        for metric in metrics:
            if metric.name not in (f"{_PREFIX}token.usage", f"{_PREFIX}cost.usage") or metric.sum is None:
                continue
            temporality = metric.sum.aggregationTemporality
            for point in metric.sum.dataPoints or ():
                try:
                    said = plain(point.attributes)
                    total = _total(metric.name, point, said)
                    if temporality in _DELTA:
                        key = total._replace(value=0)
                        deltas[key] = deltas.get(key, 0) + total.value
                    elif temporality in _CUMULATIVE:
                        self._keep(total, said)
                    else:
                        raise Rejected(f"{metric.name} is neither delta nor cumulative ({temporality!r})")
                except Rejected as fault:
                    yield fault
        for total, value in deltas.items():
            yield total._replace(value=value)

    def _keep(self, total: Total, said: Plain) -> None:
        if total.start_us == total.end_us:
            raise Rejected("a cumulative point does not say since when it counts")
        key = (total._replace(end_us=0, value=0), tuple(sorted(map(str, said.items()))))
        known = self._running.get(key)
        if known is None or total.end_us > known.end_us:
            if known and total.value < known.value:
                self._over.append(known)
                total = total._replace(start_us=known.end_us)
            elif known:
                total = total._replace(start_us=known.start_us)
            self._running[key] = total

    def rest(self) -> Iterator[Total]:
        sums: dict[Total, tuple[int, int]] = {}
        for total in (*self._over, *self._running.values()):
            key = total._replace(end_us=0, value=0)
            end_us, value = sums.get(key, (0, 0))
            sums[key] = (max(end_us, total.end_us), value + total.value)
        for key, (end_us, value) in sums.items():
            yield key._replace(end_us=end_us, value=value)


def _total(metric: str, point: Point, said: Plain) -> Total:
    end_us = micros(point.timeUnixNano)
    start = point.startTimeUnixNano
    if metric.endswith("cost.usage"):
        name, value = "usd", _picos(point.asDouble if point.asDouble is not None else point.asInt)
    else:
        kind = text(said, "type")
        if kind not in _TOKENS:
            raise Rejected(f"an unknown type of tokens: {kind[:20]!r}")
        name = _TOKENS[kind]
        value = number(point.asInt if point.asInt is not None else point.asDouble, metric)
    return Total(
        source=METRICS,
        start_us=end_us if start in (None, "", 0, "0") else micros(start),
        end_us=end_us,
        name=name,
        value=value,
        session=text(said, "session.id"),
        **_who(said, text(said, "model")),
    )


def _picos(usd: Any) -> int:
    """Dollars that were reckoned in floating point; their shortest decimal form is what was meant."""
    if usd.__class__ not in (int, float) or not 0 <= usd < 1_000_000:
        raise Rejected(f"a cost is no amount ({quoted(usd)})")
    return int((Decimal(repr(usd)) * PICOS).to_integral_value(ROUND_HALF_EVEN))
