"""One call counts once: records that share an id are one call, and the best of them is kept."""

from __future__ import annotations

from collections.abc import Iterable

from farthing.meters import METERS
from farthing.usage import Facts, Usage

# Which source to believe of one call: who sent it, then who served it, then who was told, then who kept accounts.
RANK = {
    "outbox": 7,
    "bedrock_log": 6,
    "bedrock_batch": 6,
    "claude_code": 5,
    "claude_code_events": 4,
    "otel": 3,
    "langfuse": 2,
    "litellm": 1,
}
_WHO = tuple(Facts._fields.index(name) for name in ("account", "region", "principal", "session", "project"))
_5M, _1H = METERS.index("cache_write_5m"), METERS.index("cache_write_1h")


class Calls:
    """Records gathered by call, the best of each kept.

    Two records are one call if they share a request id, a message id or a gateway's id, and contradict each
    other in neither account, message nor request. A side-chain copy, or another source, may name another
    request of the same message. What the best record does not say (ids, who asked, how long cache writes live)
    it takes from the others.
    """

    def __init__(self, known: Iterable[Usage] = ()) -> None:
        """`known` calls keep their places in `kept`, whatever they have in common."""
        self.kept: list[Usage | None] = []  # None: found to be the same call as another
        self.superseded = 0  # records that a better one of the same call replaced
        self.duplicates = 0  # records that said nothing new
        self._places: dict[str, list[int]] = {}  # id -> where in `kept` its calls are
        for usage in known:
            self._name(len(self.kept), usage)
            self.kept.append(usage)

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
        if self._merge(place, usage):
            self.superseded += 1
        else:
            self.duplicates += 1
        for other in places[1:]:  # this record shows that what looked like two calls is one
            twin, merged = self.kept[other], self.kept[place]
            if twin and merged and self._is(other, merged):
                self._merge(place, twin)
                self.kept[other] = None
                self.superseded += 1

    def extend(self, usages: Iterable[Usage]) -> None:
        places, kept = self._places, self.kept
        for usage in usages:
            ids = usage.ids
            if not places.keys().isdisjoint(ids):
                self.add(usage)
                continue
            for name in ids:  # the usual call is met once
                places[name] = [len(kept)]
            kept.append(usage)

    def _matching(self, usage: Usage) -> list[int]:
        found: list[int] = []
        for name in usage.ids:
            for place in self._places.get(name, ()):
                if place not in found and self._is(place, usage):
                    found.append(place)
        return found

    def _merge(self, place: int, usage: Usage) -> bool:
        """Keep the better of two records of a call, under the ids of both; whether it is the new one.

        A copy on a side chain, however much it tells, leaves the call the request it was made by.
        """
        old = self.kept[place]
        assert old is not None
        wins = better(usage, old)
        best, other = (usage, old) if wins else (old, usage)
        if usage.ids != old.ids:
            self._name(place, usage)
        main, copy = (other, best) if best.sidechain and not other.sidechain else (best, other)
        request, message = main.request_id, best.message_id or other.message_id
        if not request and _one_request(main, copy):
            request = copy.request_id
        gateway = best.gateway_id or other.gateway_id
        named = (request, message, gateway, main.sidechain)
        if named != (best.request_id, best.message_id, best.gateway_id, best.sidechain):
            best = best._replace(
                request_id=request, message_id=message, gateway_id=gateway, sidechain=main.sidechain
            )
        self.kept[place] = _told(best, other)
        return wins

    def _name(self, place: int, usage: Usage) -> None:
        for name in usage.ids:
            places = self._places.get(name)
            if places is None:
                self._places[name] = [place]
            elif place not in places:
                places.append(place)

    def _is(self, place: int, usage: Usage) -> bool:
        known = self.kept[place]
        if known is None or _differ(known.message_id, usage.message_id):
            return False
        if _differ(known.parts[0][0].account, usage.parts[0][0].account):
            return False
        return not (_differ(known.request_id, usage.request_id) and _one_request(known, usage))


def _one_request(a: Usage, b: Usage) -> bool:
    """Whether two records of one message must name the same request."""
    return not (a.sidechain or b.sidechain) and a.parts[0][0].source == b.parts[0][0].source


def _differ(a: str, b: str) -> bool:
    return a != b and bool(a) and bool(b)


def _told(best: Usage, other: Usage) -> Usage:
    """`best` with what only `other` tells: who asked, tags, latency, how long the cache writes live.

    The same object if there is nothing.
    """
    facts, more = best.parts[0][0], other.parts[0][0]
    if facts.source == more.source:
        return best  # copies of a record differ in their counts, and were chosen by them
    who = {i: more[i] for i in _WHO if more[i] and not facts[i]}
    parts = best.parts
    if who:
        parts = tuple((_with(facts, who), tokens) for facts, tokens in parts)
    if len(parts) == len(other.parts) == 1:
        parts = (_split(*parts[0], *other.parts[0]),)
    tags = tuple(sorted((dict(other.tags) | dict(best.tags)).items())) if other.tags else best.tags
    latency_ms = other.latency_ms if best.latency_ms is None else best.latency_ms
    told = (parts, tags, latency_ms)
    if told == (best.parts, best.tags, best.latency_ms):
        return best
    return best._replace(parts=parts, tags=tags, latency_ms=latency_ms)


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

    Of two that tell as much, one wins whatever order they come in: the earlier, if their counts are the same.
    """
    a, b = _worth(new), _worth(old)
    return a > b or (a == b and _tie(new) > _tie(old))


def _tie(usage: Usage) -> tuple[list[tuple[int, ...]], int]:
    return [tokens for _, tokens in usage.parts], -usage.at_us


def _worth(usage: Usage) -> tuple[int, int, bool, bool, int]:
    facts = usage.parts[0][0]
    return (
        RANK.get(facts.source, 0),
        sum(tokens[1] for _, tokens in usage.parts),
        not usage.sidechain,
        "ttl" not in facts.assumed,
        sum(sum(tokens) for _, tokens in usage.parts),
    )
