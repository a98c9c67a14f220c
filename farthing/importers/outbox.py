"""farthing's own outbox, which hooks and the gateway write: a line before each call and a line after it."""

from __future__ import annotations

from collections.abc import Iterator

from farthing.importers._batch import Reject
from farthing.importers._block import web_searches
from farthing.importers._open import UNREADABLE, Numbered
from farthing.importers._read import MICROSECOND, Item, Lines, objects, reason
from farthing.outbox import Intent, Record, Result, decode
from farthing.usage import EPOCH, Facts, Usage, is_own

OPEN = "outbox_intent"  # the source of what no result was written for: any other source's record is better
LOST = "zeros, as a loss of power leaves them: the calls that stood here are in the invocation log alone"


def sniff(head: bytes) -> bool:
    return any(keys.keys() >= {"v", "kind", "gateway_id"} for keys in objects(head))


def read(lines: Lines, path: str = "") -> Iterator[Item]:
    """Results as they come, and at the end the intents without one: calls that crashed, or that are under way.

    A last line that no newline ends is still being written, or never will be: it is left for the next import.
    """
    lines = Numbered.of(lines)
    waiting: dict[str, Usage] = {}
    facts: dict[Facts, Facts] = {}
    for number, line in lines:
        try:
            record = decode(line)
        except UNREADABLE as error:
            if not lines.unended:
                yield Reject(number, LOST if b"\0" in line else reason(error))
            continue
        usage = _usage(record, facts)
        if isinstance(record, Intent):
            waiting[record.gateway_id] = usage
        else:
            waiting.pop(record.gateway_id, None)
            yield usage
            if record.web_searches:
                yield web_searches(usage, record.web_searches)
    yield from waiting.values()


def _usage(record: Record, known: dict[Facts, Facts]) -> Usage:
    done = isinstance(record, Result)
    facts = Facts(
        source="outbox" if done else OPEN,
        platform=record.platform,
        model_id=record.model,
        served_model=record.served_model if isinstance(record, Result) else "",
        region=record.region,
        account=record.account,
        principal=record.principal,
        mode=record.mode,
        inference_geo=record.inference_geo,
        session=record.session,
        project=record.project,
        operation=record.operation,
        status=record.status if isinstance(record, Result) else "",
        assumed=record.assumed if isinstance(record, Result) else "open_intent",
    )
    facts = known.setdefault(facts, facts)
    at_us = (record.at - EPOCH) // MICROSECOND
    tags = tuple(sorted(record.tags.items()))
    if isinstance(record, Intent):
        return Usage(at_us, "", "", ((facts, record.expected.five),), tags, gateway_id=record.gateway_id)
    parts = ((facts, record.tokens.five),)
    passes = tuple(
        (
            facts
            if is_own(one.model, facts.model_id, facts.served_model)
            else facts._replace(model_id=one.model, served_model=one.model),
            one.tokens.five,
        )
        for one in record.passes
    )
    return Usage(
        at_us,
        record.request_id,
        record.message_id,
        (*parts, *passes),
        tags,
        record.latency_ms,
        gateway_id=record.gateway_id,
    )
