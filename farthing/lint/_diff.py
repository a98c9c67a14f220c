"""Two sets of requests beside each other: what each costs by the rules of the cache, and what changed between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from farthing.book import Card
from farthing.cache import Refused
from farthing.lint._billing import Play, Terms, billed
from farthing.lint._files import Other, Unread
from farthing.lint._lint import How, terms_of
from farthing.lint._pairs import difference
from farthing.lint._request import Sent
from farthing.lint._rules import RULES, SEVERITIES, changing, faults, scenario
from farthing.meters import Vector
from farthing.traces._volatile import SUSPECT
from farthing.usage import EPOCH

DAY_US = 86_400_000_000
MOST_SHARE = 10_000  # of hits, in parts of ten thousand


class Cost(NamedTuple):
    """A request on average: tokens by meter and picodollars, both of so many calls together."""

    tokens: Vector
    picos: int | None  # None where there is no price, or the API refuses the request
    calls: int
    why: str = ""

    @property
    def hit(self) -> int:
        """Reads among the prompt, in parts of ten thousand."""
        return self.tokens.cache_read * MOST_SHARE // self.tokens.prompt if self.tokens.prompt else 0

    @property
    def each(self) -> int | None:
        return None if self.picos is None else self.picos // self.calls


class Row(NamedTuple):
    """A request of both sets, or of one of them."""

    name: str
    base: Cost | None
    head: Cost | None
    changes: tuple[str, ...]


@dataclass
class Compared:
    """Two sets; `replayed` says whether as they were sent, or each request over and over."""

    rows: list[Row] = field(default_factory=list)
    replayed: bool = False
    spaced: bool = False  # replayed, in the order of the file
    unread: list[Unread] = field(default_factory=list)
    assumed: tuple[str, ...] = ()
    gap_s: int = 0
    output_known: bool = True

    def whole(self, side: str) -> Cost:
        """One call on average of all that were replayed; else of those that are in both sets, and priced."""
        rows = self.rows if self.replayed else self.comparable
        costs = [cost for row in rows if (cost := getattr(row, side)) and cost.picos is not None]
        tokens = Vector(*map(sum, zip(*(cost.tokens for cost in costs), strict=True))) if costs else Vector()
        return Cost(tokens, sum(cost.picos for cost in costs), max(1, sum(cost.calls for cost in costs)))

    @property
    def comparable(self) -> list[Row]:
        return [
            row
            for row in self.rows
            if row.base and row.head and row.base.picos is not None and row.head.picos is not None
        ]

    def risen(self, percent: int) -> bool:
        """Whether a call costs more than so many percent above what it did, or is refused now and was not."""
        base, head = self.whole("base"), self.whole("head")
        refused = any(
            row.head and row.head.why and row.head.picos is None and (row.base is None or not row.base.why)
            for row in self.rows
        )
        dearer = (head.picos or 0) * base.calls * 100 > (base.picos or 0) * head.calls * (100 + percent)
        return refused or dearer


def compare(
    base: Iterable[Sent | Unread | Other],
    head: Iterable[Sent | Unread | Other],
    how: How,
    output: int | None = None,
) -> Compared:
    """Both sets, matched by name where all have one and no two the same, else by their order."""
    done = Compared(gap_s=how.gap_s)
    sides = [_kept(each, done.unread) for each in (base, head)]
    named = all(_unique(side) for side in sides)
    keyed = [{(sent.name if named else f"{at}"): sent for at, sent in enumerate(side, 1)} for side in sides]
    sets = _with_outputs(keyed[0], keyed[1], output, done)
    timed = all(sent.at_us is not None for side in sets for sent in side.values())
    if not timed and any(_goes_on(list(side.values())) for side in sets):
        sets = [_spaced(side, how) for side in sets]
        done.spaced = True
    done.replayed = timed or done.spaced
    held: dict[str, None] = {}
    costs = [_costs(side, how, held, replayed=done.replayed) for side in sets]
    done.assumed = tuple(held)
    for name in dict.fromkeys((*sets[0], *sets[1])):
        old, new = sets[0].get(name), sets[1].get(name)
        shown = name if named else f"request {name}"
        done.rows.append(Row(shown, costs[0].get(name), costs[1].get(name), _changes(old, new, how)))
    return done


def _kept(requests: Iterable[Sent | Unread | Other], unread: list[Unread]) -> list[Sent]:
    found = []
    for each in requests:
        if isinstance(each, Unread):
            unread.append(each)
        elif isinstance(each, Sent):
            found.append(each)
    return found


def _unique(side: Sequence[Sent]) -> bool:
    names = [sent.name for sent in side]
    return all(names) and len(set(names)) == len(names)


def _goes_on(side: Sequence[Sent]) -> bool:
    """Whether some request has all of the one before it, and more: the set is a conversation."""
    return any(
        len(new.parts) > len(old.parts)
        and all(a.data == b.data for a, b in zip(old.parts, new.parts, strict=False))
        for old, new in pairwise(side)
    )


def _spaced(side: dict[str, Sent], how: How) -> dict[str, Sent]:
    """In their order, on the day whose prices hold, so many seconds apart."""
    start = (how.day - EPOCH.date()).days * DAY_US
    step = how.gap_s * 1_000_000
    return {name: sent._replace(at_us=start + at * step) for at, (name, sent) in enumerate(side.items())}


def _with_outputs(
    base: dict[str, Sent], head: dict[str, Sent], output: int | None, done: Compared
) -> list[dict[str, Sent]]:
    """Each request with the answer's tokens: its own, those of its match, else those asked for."""
    sets = []
    for side, other in ((base, head), (head, base)):
        filled = {}
        for name, sent in side.items():
            match = other.get(name)
            known = sent.usage or (match.usage if match else None)
            tokens = known.output if known else output
            done.output_known = done.output_known and tokens is not None
            usage = sent.usage._replace(output=tokens or 0) if sent.usage else Vector(0, tokens or 0)
            filled[name] = sent._replace(usage=usage)
        sets.append(filled)
    return sets


# --- costs -----------------------------------------------------------------------------------------------------------


def _costs(side: dict[str, Sent], how: How, assumed: dict[str, None], *, replayed: bool) -> dict[str, Cost]:
    found: dict[str, Cost] = {}
    spaces: dict[tuple[str, ...], list[tuple[str, Sent, Terms]]] = {}
    for name, sent in side.items():
        held = terms_of(sent, how, "batch" if sent.batch else "")
        assumed |= dict.fromkeys(held.assumed)
        if not sent.usage or not sent.usage.prompt:
            assumed["tokens (four bytes each)"] = None
        if not isinstance(held.card, Card):
            found[name] = Cost(Vector(input=sum(sent.sizes)), None, 1, held.reason)
        else:
            spaces.setdefault((sent.account, sent.region, sent.model, str(sent.batch)), []).append(
                (name, sent, held)
            )
    for each in spaces.values():
        if replayed:
            found |= _in_order(each)
        else:
            found |= {name: _repeated(sent, held, how, assumed) for name, sent, held in each}
    return found


def _marks(sent: Sent, held: Terms) -> tuple[tuple[int, str], ...]:
    """Breakpoints that are looked at: none in a batch on Bedrock, none where the model does not cache."""
    return () if not held.caches or held.minimum is None or sent.batch else sent.marks


def _in_order(requests: list[tuple[str, Sent, Terms]]) -> dict[str, Cost]:
    """As they were sent. One that the API refuses is left out of what the others find."""
    found: dict[str, Cost] = {}
    good = []
    for name, sent, held in sorted(requests, key=lambda each: each[1].at_us or 0):
        path = list(zip(sent.names(), sent.sizes, strict=True))
        play = Play(sent.at_us or 0, path, _marks(sent, held), sent.usage.output if sent.usage else 0)
        try:
            billed([play], held.minimum or 0)
            good.append((name, play, held))
        except Refused as why:
            found[name] = Cost(Vector(input=sum(sent.sizes)), None, 1, f"refused: {_short(why)}")
    minimum = next((held.minimum or 0 for _, _, held in good), 0)
    for (name, _, held), tokens in zip(good, billed([play for _, play, _ in good], minimum), strict=True):
        found[name] = Cost(tokens, tokens @ held.card.rates if held.card else None, 1)
    return found


def _repeated(sent: Sent, held: Terms, how: How, assumed: dict[str, None]) -> Cost:
    """Over and over: each time with another last message, or a conversation's next turn."""
    if held.card is None:
        return Cost(Vector(), None, 1, held.reason)
    calls = max(2, min(how.calls, 200_000 // max(1, len(sent.parts))))
    varying = frozenset(at for at, _, _, _ in changing(sent))
    if varying:
        assumed["that times and ids in a system prompt change from call to call"] = None
    shaped = scenario(sent, varying)
    keep = dict(_marks(sent, held))
    shaped = shaped._replace(
        pieces=tuple(piece._replace(mark=keep.get(at, "")) for at, piece in enumerate(shaped.pieces))
    )
    output = sent.usage.output if sent.usage else 0
    plays = [play._replace(output=output) for play in shaped.play(calls, how.gap_s * 1_000_000)]
    try:
        tokens = Vector(*map(sum, zip(*billed(plays, held.minimum or 0), strict=True)))
    except Refused as why:
        return Cost(Vector(input=sum(sent.sizes)), None, 1, f"refused: {_short(why)}")
    return Cost(tokens, tokens @ held.card.rates, calls)


def _short(why: Refused) -> str:
    return str(why).removeprefix("request 0: ")


# --- changes ---------------------------------------------------------------------------------------------------------


def _changes(old: Sent | None, new: Sent | None, how: How) -> tuple[str, ...]:
    """What is other in the later set: the model, where the prompt parts, settings, and faults that it did not have."""
    if old is None or new is None:
        return ("new",) if old is None else ("gone",)
    said = [f"model: {old.model}, then {new.model}"] if old.model != new.model else []
    apart = next(
        (at for at, (a, b) in enumerate(zip(old.parts, new.parts, strict=False)) if a.data != b.data), None
    )
    if apart is not None:
        parting = difference(old, new, apart)
        said.append(f"{parting.path}: {parting.what}")
    if len(old.parts) != len(new.parts):
        said.append(f"{len(old.parts)} blocks, then {len(new.parts)}")
    if old.marks != new.marks:
        said.append(f"breakpoints: {_told(old)}, then {_told(new)}")
    said += [
        f"{name}: changed"
        for name in {**old.settings, **new.settings}
        if old.settings.get(name) != new.settings.get(name)
    ]
    before = {found.rule for found in faults(old, terms_of(old, how))}
    for found in faults(new, terms_of(new, how)):
        severity = found.severity or RULES[found.rule].severity
        if found.rule not in before and (SEVERITIES.index(severity) or found.rule in SUSPECT):
            said.append(f"{severity}: {found.rule}: {found.where}: {found.what}")
    return tuple(said)


def _told(sent: Sent) -> str:
    return ", ".join(f"{sent.parts[at].path} ({ttl})" for at, ttl in sent.marks) or "none"
