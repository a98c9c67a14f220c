"""Cache points as traffic comes: a prompt as a path of hashed blocks, and a pilot for each entry and SKU.

No text is kept. Blocks are known by hashes under a key that is made at the start and never leaves the process, and by
their weights; how many tokens a byte is, is learned from what was billed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.gateway._body import Spot, spots, top_mark
from farthing.meters import Vector
from farthing.usage import Rejected

if TYPE_CHECKING:
    from farthing.cache import Autopilot, Marked

FIVE_US, HOUR_US = 300_000_000, 3_600_000_000
TTL_US = {"5m": FIVE_US, "1h": HOUR_US}
TTL_OF = {FIVE_US: "5m", HOUR_US: "1h"}
BYTES_A_TOKEN = 4  # before anything was billed
TRUST = 2_000  # tokens that are believed to be so
FORGET = 20_000_000  # tokens after which what was learned counts half
MOST_STEMS = 4_096  # and first blocks behind stems, of single questions
FORGET_GAPS = 64  # after so many what was learned of a stem counts half
MOST_ACCESSES = 1 << 19  # of a pilot: 120 bytes each
MOST_REQUESTS = 1 << 14


class Prompt(NamedTuple):
    """Positions are of blocks that can bear a cache point; `spots` says at which of all blocks each of them stands.

    `names` are hashes of all up to there and `weights` bytes since the one before; `rest` are those behind the last.
    `blocks` are hashes of every block by itself and `places` say where it stands; of these `stem` are tools and system.
    """

    names: tuple[str, ...]
    weights: tuple[int, ...]
    spots: tuple[int, ...]
    system: int
    marks: tuple[tuple[int, str], ...]
    rest: int
    blocks: tuple[bytes, ...]
    sizes: tuple[int, ...]
    places: tuple[str, ...]
    stem: int
    solid: tuple[int, ...]  # by position, among all blocks that are not empty

    @property
    def weight(self) -> int:
        return sum(self.sizes)

    @property
    def goes_on(self) -> bool:
        """Whether it looks like an agent's: with tools, or with messages of more than two blocks."""
        return len(self.blocks) - self.stem > 2 or any(place.startswith("tool") for place in self.places[:1])

    def place(self, position: int) -> str:
        """Of a block that can bear a cache point, as a person finds it in the body."""
        return self.places[self.solid[position]]


def prompt_seen(body: Mapping[str, Any], key: bytes) -> Prompt:
    """Rejected where the blocks of the body are laid out in a way that is not known here."""
    from farthing.traces import blocks_of, prompt_of

    found = spots(body)
    solid = [(at, spot) for at, spot in enumerate(found) if spot.size or not spot.plain]
    blocks = blocks_of(dict(body))
    if len(blocks) != len(solid):
        raise Rejected("its blocks are laid out in a way that is not known")
    hashes = prompt_of(blocks, key).hashes
    bearing = [number for number, (_, spot) in enumerate(solid) if spot.bears or spot.mark]
    sizes = [spot.size for _, spot in solid]
    ends = [-1, *bearing]
    marks = [
        (position, solid[number][1].mark) for position, number in enumerate(bearing) if solid[number][1].mark
    ]
    if (automatic := top_mark(body)) and bearing and (not marks or marks[-1][0] != len(bearing) - 1):
        marks.append((len(bearing) - 1, automatic))
    stem = sum(spot.tier != "messages" for _, spot in solid)
    return Prompt(
        tuple(hashes[number] for number in bearing),
        tuple(sum(sizes[a + 1 : b + 1]) for a, b in zip(ends, bearing, strict=False)),
        tuple(solid[number][0] for number in bearing),
        sum(number < stem for number in bearing),
        tuple(marks),
        sum(sizes[ends[-1] + 1 :]),
        tuple(hashlib.blake2b(block.data, digest_size=8, key=key[:64]).digest() for block in blocks),
        tuple(sizes),
        tuple(_place(spot) for _, spot in solid),
        stem,
        tuple(bearing),
    )


def _place(spot: Spot) -> str:
    """As a person finds it in the body: tools[3], system, messages[4].content[0]."""
    text = ""
    for step in spot.path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


class Sighting(NamedTuple):
    """A prompt as a pilot has seen it. `marked.expected` is in the pilot's own tokens: `billed_share` compares."""

    pilot: Pilot
    prompt: Prompt
    marked: Marked


class Stems:
    """How long after each other single questions come that stand behind the same tools and system prompt.

    A policy waits for the next turn of a conversation, which a single question has none of: what is read again is its
    stem, by anybody's. So for how long that is written, if at all, is what would have cost least so far.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[tuple[str, ...], str], tuple[int, list[int]]] = OrderedDict()

    def ttl(self, space: tuple[str, ...], name: str, at_us: int, rates: Vector) -> int | None:
        """Of a breakpoint behind this stem, 0 for none; None where it is seen for the first time."""
        last, gaps = self._seen.pop((space, name), (None, [0, 0, 0]))
        if last is not None:
            gap = at_us - last
            gaps[(gap > FIVE_US) + (gap > HOUR_US)] += 1
            if sum(gaps) > FORGET_GAPS:
                gaps = [count // 2 for count in gaps]
        self._seen[space, name] = max(at_us, last or at_us), gaps
        if len(self._seen) > MOST_STEMS:
            self._seen.popitem(last=False)
        if last is None:
            return None
        soon, later, never = gaps
        costs = {
            FIVE_US: soon * rates.cache_read + (later + never) * rates.cache_write_5m,
            HOUR_US: (soon + later) * rates.cache_read + never * rates.cache_write_1h,
            0: sum(gaps) * rates.input,
        }
        return min(costs, key=lambda ttl: costs[ttl])


class Pilot:
    """The cache of one entry's calls at one SKU, as the rules have it, and the policy that marks them."""

    def __init__(self, policy: str, rates: Vector, minimum: int) -> None:
        self.policy = running(policy)
        self.rates, self.minimum = rates, minimum
        self.auto = _autopilot(self.policy, rates, minimum)
        self.stems = Stems()
        self._short = False
        self._bytes, self._tokens = BYTES_A_TOKEN * TRUST, TRUST

    def plan(self, *, short: bool) -> None:
        """`short`: nothing is marked for an hour, since it is billed as five minutes."""
        self._short = short
        self.auto.policy = _policy(self.policy, short=short)

    def see(
        self,
        prompt: Prompt,
        at_us: int,
        space: tuple[str, ...],
        marks: Sequence[tuple[int, str]] = (),
        session: str = "",
    ) -> Sighting:
        """What is to be marked; with `marks` of its own, what these are expected to do.

        A policy trusts long prompts of agents, which have a system prompt, before it has seen one come back; those
        whose client names no session if they are very long. What names none and looks like a single question is no
        agent's: of it the stem alone is marked, by its pauses.
        """
        from farthing.cache import Request

        path, done, before = [], 0, 0
        for name, weight in zip(prompt.names, prompt.weights, strict=True):
            done += weight
            depth = done * self._tokens // self._bytes
            path.append((name, depth - before))
            before = depth
        talks = bool(session) or prompt.goes_on
        breakpoints = [(position, TTL_US[ttl]) for position, ttl in marks]
        policy = self.auto.policy
        if not talks and not marks and (ttl := self._of_stem(prompt, at_us, space, path)) is not None:
            breakpoints = [(prompt.system - 1, ttl)] if ttl else []
            self.auto.policy = policy if ttl else _policy("none", short=False)
        asked = Request(at_us, path, breakpoints, plain=prompt.rest * self._tokens // self._bytes)
        try:
            system = prompt.system if talks else 0
            marked = self.auto.observe(asked, system=system, namespace=space, named=bool(session))
        finally:
            self.auto.policy = policy
        return Sighting(self, prompt, marked)

    def _of_stem(
        self, prompt: Prompt, at_us: int, space: tuple[str, ...], path: Sequence[tuple[str, int]]
    ) -> int | None:
        """For how long the stem of a single question is written, 0 for not at all; None: as the policy has it.

        That is so where the stem is new or too short, and where what is behind it was asked about before, too.
        """
        stem = prompt.system
        if not stem or not _policy(self.policy, short=False).lives:
            return None
        if sum(tokens for _, tokens in path[:stem]) < self.minimum:
            return None
        ttl = self.stems.ttl(space, prompt.names[stem - 1], at_us, self.rates)
        if len(path) > stem and self.stems.ttl(space, prompt.names[stem], at_us, self.rates):
            return None
        return min(ttl, FIVE_US) if ttl and self._short else ttl

    def settle(self, seen: Sighting, billed: Vector | None, *, split: bool = True) -> None:
        """What it was billed; None: not told. `split`: the bill says which writes live for an hour."""
        if billed is None or not billed.prompt:
            self.auto.settle(seen.marked.number)
            return
        self.auto.settle(seen.marked.number, _believed(seen.marked.expected, billed, split=split))
        self._bytes += seen.prompt.weight
        self._tokens += billed.prompt
        if self._tokens > FORGET:
            self._bytes, self._tokens = self._bytes // 2, self._tokens // 2

    def withdraw(self, seen: Sighting) -> None:
        self.auto.withdraw(seen.marked.number)


def _believed(expected: Vector, billed: Vector, *, split: bool) -> Vector:
    """The bill in the pilot's tokens: a difference of two percent of the prompt is one of counting."""
    whole, slack = expected.prompt, expected.prompt // 50 + 1

    def scaled(tokens: int, most: int) -> int:
        mine = tokens * whole // billed.prompt
        return most if abs(mine - most) <= slack or mine > most else mine

    read = scaled(billed.cache_read, expected.cache_read)
    written = scaled(billed.cached, expected.cached) - read
    hour = bool(billed.cache_write_1h) if split else bool(expected.cache_write_1h)
    return Vector(whole - read - written, 0, read, 0 if hour else written, written if hour else 0)


def share(expected: Vector, prompt: int) -> Vector:
    """What was expected, in the tokens of a bill of so long a prompt."""
    whole = max(1, expected.prompt)
    parts = [tokens * prompt // whole for tokens in (expected[2], expected[3], expected[4])]
    return Vector(prompt - sum(parts), 0, *parts)


# --- farthing.cache, which is compiled when it is first used ---------------------------------------------------------


def running(policy: str) -> str:
    """The policy that is run where another is named. Nobody pings here: the prompt would have to be kept for it."""
    return "adaptive_unpinged" if policy == "adaptive" else policy


@lru_cache
def _policy(name: str, *, short: bool) -> Any:
    from farthing.cache import POLICIES

    made = POLICIES[name]._replace(pings=0, waits=False, pads=False)
    if short:
        made = made._replace(
            lives=0, system_ttl_us=min(made.system_ttl_us, FIVE_US), end_ttl_us=min(made.end_ttl_us, FIVE_US)
        )
    return made


def _autopilot(name: str, rates: Vector, minimum: int) -> Autopilot:
    from farthing.cache import Autopilot

    return Autopilot(
        _policy(name, short=False), rates, minimum, most_requests=MOST_REQUESTS, most_accesses=MOST_ACCESSES
    )


@lru_cache
def compiled() -> bool:
    """Whether it runs as machine code: else a request would wait for it."""
    return importlib.util.find_spec("numba") is not None


class Warmth:
    """Compiling takes seconds, and no request waits for it: a thread does it, once."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._begun = False

    @property
    def there(self) -> bool:
        """Begins it, if nobody has."""
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._warm, name="farthing-autopilot", daemon=True).start()
        return self._done.is_set()

    def wait(self) -> None:
        """Until it is there, or will never be."""
        if compiled() and not self.there:
            self._done.wait(120)

    def _warm(self) -> None:
        rates = Vector(1000, 5000, 100, 1250, 2000)
        blocks = [("a", 2_000), ("b", 2_000)]
        for name in ("adaptive_unpinged", "none"):
            pilot = _autopilot(name, rates, 1_024)
            from farthing.cache import Request

            for at_us in (0, FIVE_US // 2, 3 * FIVE_US):
                made = pilot.observe(Request(at_us, blocks), system=1)
                pilot.settle(made.number, made.expected)
            pilot.withdraw(pilot.observe(Request(4 * FIVE_US, blocks, [(1, FIVE_US)])).number)
        self._done.set()
