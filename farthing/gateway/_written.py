"""A call by its id from the outbox: of another process of this gateway, or of one that is gone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from farthing.gateway._ceiling import Ceiling
from farthing.gateway.live import Call, Live, Settled
from farthing.gateway.protocol import State
from farthing.gateway.proxy import Recent
from farthing.meters import Vector
from farthing.outbox import Intent, Record, Result, Tokens, decode
from farthing.usage import Part, Rejected

MOST_BYTES = 256 * 1024 * 1024  # that are looked through, newest files first
_ID = re.compile(r"fa-[0-9a-f]{24}")


def written(live: Live, call_id: str) -> Recent | None:
    """None if no line among the newest is of it. Reads files: for a thread."""
    if not _ID.fullmatch(call_id):
        return None
    intent: Intent | None = None
    result: Result | None = None
    for record in _records(live.outbox.folder, call_id):
        if isinstance(record, Intent):
            intent = record
        else:
            result = record
        if intent and result:
            break
    said = intent or (result and _intent(result))
    return _recent(live, said, result) if said else None


def _records(folder: Path, call_id: str) -> Iterator[Record]:
    wanted, left = b'"gateway_id":"%b"' % call_id.encode(), MOST_BYTES
    for file in sorted(folder.glob("*.jsonl"), key=_changed, reverse=True):
        try:
            text = file.read_bytes()
        except OSError:  # imported and removed meanwhile
            continue
        at = text.find(wanted)
        while at >= 0:
            end = text.find(b"\n", at)
            if end < 0:
                break
            with contextlib.suppress(Rejected, msgspec.MsgspecError):
                yield decode(text[text.rfind(b"\n", 0, at) + 1 : end])
            at = text.find(wanted, end)
        left -= len(text)
        if left <= 0:
            return


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0


def _intent(result: Result) -> Intent:
    """What it must have been, of a result whose intent lies elsewhere."""
    shared = {name: getattr(result, name) for name in Intent.__struct_fields__ if hasattr(result, name)}
    return Intent(**shared, expected=Tokens())


def _recent(live: Live, intent: Intent, result: Result | None) -> Recent:
    resolved = live.book.resolve(
        intent.model, platform=intent.platform, region=intent.region, mode=intent.mode,
        inference_geo=intent.inference_geo, profiles=live.profiles, assume=live.assume,
    )  # fmt: skip
    resolved = live.book.by_terms(resolved, intent.account)
    most = Vector(*intent.expected.five)
    call = Call(intent.gateway_id, intent, 0, resolved, Ceiling(most, None))
    if any(most):
        call.ceiling = Ceiling(most, live.price(call, (Part(most),))[0])
    return Recent(call, intent.tags.get("key", ""), _settled(live, call, result) if result else None)


def _settled(live: Live, call: Call, result: Result) -> Settled:
    if result.status:
        return Settled(State.VOIDED, 0)
    parts = (
        Part(Vector(*result.tokens.five)),
        *(Part(Vector(*each.tokens.five), each.model) for each in result.passes),
    )
    picos, unpriced = live.price(call, parts)
    return Settled(State.POSTED, picos, parts, unpriced)
