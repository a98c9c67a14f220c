"""One call counts once: records that share an id are one call, and the best of them is kept.

The law of it: whatever order records arrive in, and however they are split over imports, the same calls come of
them, with the same ids, times, counts and prices, and each again adds nothing. It holds where records link without
doubt (none fits two calls that contradict each other; and what shares a gateway's id alone names one request, or none),
and where the records of a call that tell who asked, where, and how long its cache writes live tell
the same. Where they tell otherwise of who asked, the first to be told stays; the rest is decided by rank and content.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from farthing.meters import METERS
from farthing.usage import Facts, Usage

# Which source to believe of one call: who sent it, then who served it, then who was told, then who kept accounts.
RANK = {
    "outbox": 7,
    "bedrock_log": 6,
    "bedrock_batch": 6,
    "anthropic_batch": 6,
    "claude_code": 5,
    "claude_code_events": 4,
    "otel": 3,
    "langfuse": 2,
    "litellm": 1,
}
MAY_LACK_CACHE = ("claude_code_events", "langfuse", "litellm", "otel")  # and say 0 where they do not know
_WHO = tuple(Facts._fields.index(name) for name in ("session", "project", "account", "region", "principal"))
_SAID = tuple(i for i, name in enumerate(Facts._fields) if i not in _WHO and name != "assumed")
_5M, _1H = METERS.index("cache_write_5m"), METERS.index("cache_write_1h")


class Calls:
    """Records gathered by call, the best of each kept.

    Two records are one call if they share an id, and contradict each other in neither account, message nor request.
    A side-chain copy, or another source, may name another request of the same message; but what shares no more than
    a gateway's id, under two requests, are two attempts. What the best record does not say (ids, who
    asked, how long cache writes live) it takes from the others.
    """

    def __init__(self, known: Iterable[Usage] = ()) -> None:
        """`known` calls keep their places in `kept`, whatever they have in common."""
        self.kept: list[Usage | None] = []  # None: found to be the same call as another
        self.superseded = 0  # records that a better one of the same call replaced
        self.duplicates = (
            0  # records that another one of the same call was better than, or that said nothing new
        )
        self._places: dict[str, list[int]] = {}  # id -> where in `kept` its calls are
        for usage in known:
            self._name(len(self.kept), usage)
            self.kept.append(usage)
        self._known = len(self.kept)

    @property
    def best(self) -> list[Usage]:
        return [usage for usage in self.kept if usage is not None]

    def add(self, usage: Usage) -> None:
        places = self._matching(usage)
        if not places:
            self._name(len(self.kept), usage)
            self.kept.append(usage)
            return
        place = places[0]
        if len(places) > 1:  # one that tells all of this has seen it before
            place = next((p for p in places if _merged(self._at(p), usage)[0] == self._at(p)), place)
        if self._merge(place, usage):
            self.superseded += 1
        else:
            self.duplicates += 1
        for other in places:
            if other != place:
                place = self._join(place, other)

    def extend(self, usages: Iterable[Usage]) -> None:
        places, kept = self._places, self.kept
        for usage in usages:
            _, request, message, _, _, _, _, gateway, also = usage
            if gateway or also or request in places or message in places:
                self.add(usage)
                continue
            if request:  # the usual call is met once
                places[request] = [len(kept)]
            if message:
                places[message] = [len(kept)]
            kept.append(usage)

    def _at(self, place: int) -> Usage:
        usage = self.kept[place]
        assert usage is not None
        return usage

    def _matching(self, usage: Usage) -> list[int]:
        found: set[int] = set()
        for name in usage.ids:
            found.update(place for place in self._places.get(name, ()) if self._is(place, usage, name))
        return sorted(found)

    def _is(self, place: int, usage: Usage, name: str) -> bool:
        """Whether a record is of the call at this place, with which it shares this id."""
        known = self.kept[place]
        if known is None or _differ(known.message_id, usage.message_id):
            return False
        if _differ(known.parts[0][0].account, usage.parts[0][0].account):
            return False
        if not _differ(known.request_id, usage.request_id) or name == usage.request_id or name in usage.also:
            return True
        return name == usage.message_id and not _one_request(known, usage)

    def _join(self, one: int, two: int) -> int:
        """Make one of what looked like two calls until a record had ids of both; the place of the one, or `one`."""
        first, second = sorted((one, two))
        twin = self.kept[second]
        if twin is None or self.kept[first] is None:
            return one
        shared = (name for name in twin.ids if first in self._places.get(name, ()))
        if not any(self._is(first, twin, name) for name in shared):
            return one
        self._merge(first, twin)
        self.kept[second] = None
        self.superseded += second >= self._known
        return first

    def _merge(self, place: int, usage: Usage) -> bool:
        """Keep what two records of a call tell; whether the new one is the better."""
        if usage.ids != self._at(place).ids:
            self._name(place, usage)
        self.kept[place], wins = _merged(self._at(place), usage)
        return wins

    def _name(self, place: int, usage: Usage) -> None:
        for name in usage.ids:
            places = self._places.get(name)
            if places is None:
                self._places[name] = [place]
            elif place not in places:
                places.append(place)


def _one_request(a: Usage, b: Usage) -> bool:
    """Whether two records of one message must name the same request."""
    return not (a.sidechain or b.sidechain) and a.parts[0][0].source == b.parts[0][0].source


def _differ(a: str, b: str) -> bool:
    return a != b and bool(a) and bool(b)


# --- two records of one call --------------------------------------------------------------------------------------


def _merged(old: Usage, new: Usage) -> tuple[Usage, bool]:
    """The better of two records of a call, with the ids of both and what only the other tells; whether it is `new`.

    The same object if there is nothing to add.
    """
    wins = better(new, old)
    best, other = (new, old) if wins else (old, new)
    request, side = best.request_id, best.sidechain
    if best.parts[0][0].source == other.parts[0][0].source:
        if side and not other.sidechain:  # a copy, however much it tells, leaves the call its request
            request, side = other.request_id, False
        elif not request and not other.sidechain:
            request = other.request_id
    message, gateway = best.message_id or other.message_id, max(best.gateway_id, other.gateway_id)
    also = best.also
    if best.ids != other.ids:
        also = tuple(sorted({*best.ids, *other.ids} - {request, message, gateway}))
    parts, tags, latency_ms = _told(best, other)
    whole = best._replace(
        request_id=request, message_id=message, parts=parts, tags=tags,
        latency_ms=latency_ms, sidechain=side, gateway_id=gateway, also=also,
    )  # fmt: skip
    return (best if whole == best else whole), wins


def _told(best: Usage, other: Usage) -> tuple[Any, Any, int | None]:
    """Parts, tags and latency of `best`, with what only `other` tells of them.

    Copies of one source's record differ in their tags for a reason, so these are the best one's.
    """
    facts, more = best.parts[0][0], other.parts[0][0]
    parts, tags = best.parts, best.tags
    if facts is not more:
        if who := {i: more[i] for i in _WHO if more[i] and not facts[i]}:
            parts = tuple((_with(said, who), tokens) for said, tokens in parts)
        if len(parts) == len(other.parts) == 1:
            parts = (_split(*parts[0], *other.parts[0]),)
        if other.tags and facts.source != more.source:
            tags = tuple(sorted((dict(other.tags) | dict(best.tags)).items()))
    return parts, tags, other.latency_ms if best.latency_ms is None else best.latency_ms


def _with(facts: Facts, changes: dict[int, str]) -> Facts:
    return Facts(*(changes.get(i, said) for i, said in enumerate(facts)))


Tokens = tuple[int, int, int, int, int]


def _split(facts: Facts, tokens: Tokens, more: Facts, counted: Tokens) -> tuple[Facts, Tokens]:
    """The lifetimes of cache writes from the record that knows them, where both count the same writes."""
    assumed, known = facts.assumed.split(","), more.assumed.split(",")
    written = tokens[_5M] + tokens[_1H]
    if "ttl" not in assumed or "ttl" in known or written != counted[_5M] + counted[_1H]:
        return facts, tokens
    left = facts._replace(assumed=",".join(name for name in assumed if name != "ttl"))
    return left, (tokens[0], tokens[1], tokens[2], counted[_5M], counted[_1H])


def better(new: Usage, old: Usage) -> bool:
    """Whether `new` tells more of the call: source first, then output (streams repeat a call as it grows).

    A source that may not know the cache, and tells of none, gives way to one of its kind that does.

    Of two that tell as much, one wins whatever order they come in: the earlier, if their counts are the same. What
    a record may take from another (lifetimes, who asked) decides last, between records that are otherwise the same:
    else it would matter when it was taken.
    """
    a, b = _worth(new), _worth(old)
    return a > b or (a == b and new is not old and _tie(new) > _tie(old))


def _worth(usage: Usage) -> tuple[bool, bool, int, int, int]:
    source = usage.parts[0][0].source
    rank = RANK.get(source, 0)
    counted = sum(sum(tokens) for _, tokens in usage.parts)
    lacks = source in MAY_LACK_CACHE and counted > 0 and not any(sum(tokens[2:]) for _, tokens in usage.parts)
    return rank > 0, not lacks, rank, sum(tokens[1] for _, tokens in usage.parts), counted


def _tie(usage: Usage) -> tuple[Any, ...]:
    facts = usage.parts[0][0]
    return (
        [(*tokens[:3], tokens[_5M] + tokens[_1H]) for _, tokens in usage.parts],
        "at" not in facts.assumed.split(","),
        -usage.at_us,
        not usage.sidechain,
        [said[i] for said, _ in usage.parts for i in _SAID],
        "ttl" not in facts.assumed,
        [tokens for _, tokens in usage.parts],
        [facts[i] for i in _WHO],
        usage.request_id,
    )
