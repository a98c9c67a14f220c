"""What decided levers change of a request's bytes, which else stay as they were.

`look` tells a policy what it asks of a body, `rewrite` does what was decided. Cache points go only where the client has
none, four at most, the longer-lived first, none on a prefix too short to be cached. What cannot be done is refused
with its reason, and the request stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from farthing.book import Book, Unpriced
from farthing.gateway._body import Mark, Retime, Set, Spot, splice, spots, top_mark
from farthing.outbox import Decision
from farthing.policy import APPLIED, REFUSED, Decided, Marker
from farthing.usage import Facts, Rejected
from farthing.wire import Route

MOST_MARKERS = 4
BYTES_A_TOKEN = 4  # assumed, as wherever a prompt is not counted
_ENDS = ("end", *(f"end-{back}" for back in range(1, 100)))
_SYSTEM = {"5m": (Marker("system", "5m"),), "1h": (Marker("system", "1h"),)}
_FIXED = {  # cache policies that mark the same places always
    "none": (),
    "end_5m": (Marker("end", "5m"),),
    "end_1h": (Marker("end", "1h"),),
    "system_end_5m": (*_SYSTEM["5m"], Marker("end", "5m")),
    "system_end_1h": (*_SYSTEM["1h"], Marker("end", "1h")),
    "guarded_5m": (*_SYSTEM["5m"], *(Marker(at, "5m") for at in ("end-4", "end-1", "end"))),
    "guarded_1h": (*_SYSTEM["1h"], *(Marker(at, "1h") for at in ("end-4", "end-1", "end"))),
}

Body = Mapping[str, Any]
Least = Callable[[str], int | None]  # tokens from which a model caches; None: nobody has published it
Placed = tuple[tuple[int, str], ...]  # positions among the blocks of a body, and lifetimes
_Edits = list[Mark | Retime | Set]


class Seen(NamedTuple):
    """What a policy asks of a body: the client's own cache points, and where one could be put."""

    markers: tuple[Marker, ...]
    places: tuple[str, ...]


class Rewritten(NamedTuple):
    """`body` is the one that was given where nothing changed. `model` is what to call instead, "" for the same.

    `deadline` asks for a batch, which is the driver's to send. `decisions` are as the outbox keeps them.
    """

    body: Any
    model: str = ""
    deadline: str = ""
    decisions: tuple[Decision, ...] = ()


class _No(Exception):
    """Why a lever is not applied after all."""


def look(body: Body) -> Seen:
    """Rejected if it is no request."""
    found = spots(body)
    messages = [spot for spot in found if spot.tier == "messages"]
    first = len(found) - len(messages)
    marked = [(at, spot.mark) for at, spot in enumerate(found) if spot.mark]
    if (automatic := top_mark(body)) and (not marked or marked[-1][0] != len(found) - 1):
        marked.append((len(found) - 1, automatic))
    markers = tuple(
        Marker(found[at].tier if at < first else _ENDS[min(len(found) - 1 - at, 99)], ttl)
        for at, ttl in marked
    )
    tiers = {spot.tier for spot in found}
    return Seen(markers, (*(tier for tier in ("tools", "system") if tier in tiers), *_ENDS[: len(messages)]))


def least_of(book: Book, platform: str, region: str, at: datetime) -> Least:
    """From how many tokens on a model, by any of its ids, caches a prefix at a time."""

    def least(model_id: str) -> int | None:
        place = book.place(Facts("", platform=platform, model_id=model_id, region=region))
        if isinstance(place, Unpriced):
            return None
        return book.models[place.sku.model].cache_minimum(place.sku.platform, at.date())

    return least


def rewrite(route: Route, body: bytes, decided: Sequence[Decided], least: Least) -> Rewritten:
    """A body of InvokeModel, Converse or Messages: what is put in is put in, and all other bytes stay."""
    if not any(made.change and made.outcome == APPLIED for made in decided):
        return Rewritten(body, decisions=_recorded(decided))
    try:
        read: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        read = None
    edits: _Edits = []
    model = deadline = ""
    done: list[Decided] = []
    for made in decided:
        if made.outcome == APPLIED:
            try:
                if not isinstance(read, Mapping):
                    raise _No("its body could not be read")
                edits += _edits(made, read, least, model or _model(route, read))
                model = str(made.change.get("model_id", model))
                deadline = str(made.change.get("deadline", deadline))
            except (_No, Rejected) as why:
                made = made._replace(outcome=REFUSED, reason=str(why), change={})
        done.append(made)
    if model and not route.model and "model" in read:
        edits.append(Set("model", model))
    try:
        new = splice(body, edits) if edits else body
    except (
        Rejected,
        ValueError,
        RecursionError,
        LookupError,
    ) as why:  # a body that only a client understands
        reason = f"its body could not be changed: {why}"[:200]
        kept = [each._replace(outcome=REFUSED, reason=reason) if each.change else each for each in done]
        return Rewritten(body, decisions=_recorded(kept))
    return Rewritten(new, model, deadline, _recorded(done))


def _recorded(decided: Sequence[Decided]) -> tuple[Decision, ...]:
    return tuple(made.recorded() for made in decided)


def _model(route: Route, body: Body) -> str:
    return route.model or str(body.get("model") or body.get("modelId") or "")


def _edits(made: Decided, body: Body, least: Least, model: str) -> _Edits:
    """What one lever changes in the body."""
    change = made.change
    if made.lever == "ttl" or "ttl_override" in change:
        return _retimed(body, str(change.get("ttl_override") or change["markers"][0].ttl))
    if "placed" in change:  # by whom decides as traffic comes: positions of blocks
        found = spots(body)
        return [Mark(found[at], ttl) for at, ttl in change["placed"]]
    if "markers" in change or "cache_policy" in change:
        return _marked(body, _markers(change), least, model)
    if "inference_geo" in change:
        return [Set("inference_geo", change["inference_geo"] or "global")]
    return []


def is_fixed(change: Mapping[str, Any]) -> bool:
    """Whether it marks the same places always, and nothing has to be known of other calls."""
    return "cache_policy" not in change or change["cache_policy"] in _FIXED


def _markers(change: Mapping[str, Any]) -> Sequence[Marker]:
    if "markers" in change:
        return tuple(change["markers"])
    name = change["cache_policy"]
    if name not in _FIXED:
        raise _No(f"{name} decides as traffic comes, which is not done here")
    return _FIXED[name]


def placed(
    body: Body, change: Mapping[str, Any], least: Least, model: str, *, short: bool = False
) -> Placed | str:
    """Where the cache points of a lever that marks the same places always will stand; or why there are none.

    `short`: none of them lives for an hour.
    """
    try:
        markers = _markers(change)
        if short:
            markers = [Marker(marker.at, "5m") for marker in markers]
        return tuple(_places(body, markers, least, model))
    except (_No, Rejected) as why:
        return str(why)


def _retimed(body: Body, ttl: str) -> _Edits:
    found: _Edits = [Retime(spot.mark_path, ttl) for spot in spots(body) if spot.mark and spot.mark != ttl]
    if top_mark(body) not in ("", ttl):
        found.append(Retime(("cache_control",), ttl))
    return found


def _marked(body: Body, markers: Sequence[Marker], least: Least, model: str) -> _Edits:
    found = spots(body)
    return [Mark(found[at], ttl) for at, ttl in _places(body, markers, least, model)]


def _places(body: Body, markers: Sequence[Marker], least: Least, model: str) -> list[tuple[int, str]]:
    """Cache points, each at its place or the last one before it that can bear one."""
    found = spots(body)
    if top_mark(body) or any(spot.mark for spot in found):
        raise _No("the client places cache points of its own")
    if not markers:
        return []
    minimum = least(model)
    if minimum is None:
        raise _No(f"nobody has published from how many tokens {model} caches")
    wanted: dict[int, str] = {}
    for marker in markers[:MOST_MARKERS]:
        at = _place(found, marker.at)
        if at is not None and at not in wanted:
            wanted[at] = marker.ttl
    size, depths = 0, []
    for spot in found:
        size += spot.size
        depths.append(size // BYTES_A_TOKEN)
    long_enough = {at: ttl for at, ttl in wanted.items() if depths[at] >= minimum}
    if not long_enough:
        raise _No(
            f"about {max((depths[at] for at in wanted), default=0):,} tokens, and it caches from {minimum:,}"
        )
    return _ordered(long_enough)


def _ordered(placed: Mapping[int, str]) -> list[tuple[int, str]]:
    """In the prompt's order. A longer-lived one behind a shorter is shortened: the service refuses that order."""
    ordered, short = [], False
    for at in sorted(placed):
        short = short or placed[at] == "5m"
        ordered.append((at, "5m" if short else "1h"))
    return ordered


def _place(found: Sequence[Spot], place: str) -> int | None:
    """The position of the block that a place means."""
    tier = place if place in ("tools", "system") else "messages"
    at = [at for at, spot in enumerate(found) if spot.tier == tier]
    back = int(place.removeprefix("end-")) if place.startswith("end-") else 0
    bearing = [each for each in at[: len(at) - back] if found[each].bears]
    return bearing[-1] if bearing else None
