"""Prompt caches that live with the server: each request is billed by the rules of farthing.cache, one after another.

A prefix is known by the hash of all that comes before its end, the name of its cache among it, so that one table
holds the caches of all accounts, regions and models. It is bounded: what has expired goes first, then what was used
longest ago.
"""

from __future__ import annotations

from collections.abc import Hashable

from farthing.cache import DOCUMENTED, FIVE_US, HOUR_US, Kept, Refused, Request, bill
from farthing.emulator._prompt import Block, Prompt
from farthing.meters import Vector
from farthing.outbox import prefix_hashes

MOST_PREFIXES = 200_000
_TTL_US = {"5m": FIVE_US, "1h": HOUR_US}


class Cache:
    """What is cached now."""

    def __init__(self, most: int = MOST_PREFIXES) -> None:
        self._kept: dict[Hashable, Kept] = {}
        self._most = most

    def warm(self) -> None:
        """Compile what is compiled, so that the first request with breakpoints is not a slow one."""
        blocks = [Block(b"a", 2_000, "1h"), Block(b"b", 10, "5m")]
        Cache().bill("", 0, Prompt(blocks, 2_010), 1_024, 0)

    def __len__(self) -> int:
        return len(self._kept)

    def bill(
        self,
        space: str,
        at_us: int,
        prompt: Prompt,
        minimum: int,
        delay_us: int,
        *,
        hour_as_five: bool = False,
    ) -> Vector:
        """The prompt's tokens by meter. What it writes can be read `delay_us` later: at its first token."""
        marks = prompt.marks
        last = marks[-1][0] if marks else -1
        sizes = [block.tokens for block in prompt.blocks[: last + 1]]
        depth = sum(sizes)
        if not marks or depth < minimum:
            return Vector(prompt.tokens)
        names = prefix_hashes(space.encode(), (block.data for block in prompt.blocks[: last + 1]))
        breakpoints = [(at, FIVE_US if hour_as_five else _TTL_US[ttl]) for at, ttl in marks]
        request = Request(at_us, list(zip(names, sizes, strict=True)), breakpoints, 0, prompt.tokens - depth)
        known: dict[Hashable, Kept] = {name: self._kept.pop(name) for name in names if name in self._kept}
        try:
            billed, kept = bill(known, request, minimum, DOCUMENTED._replace(delay_us=delay_us))
        except Refused:
            self._kept |= known
            raise
        self._kept |= kept
        if len(self._kept) > self._most:
            self._shrink(at_us)
        return billed.tokens

    def _shrink(self, now_us: int) -> None:
        self._kept = {
            name: kept
            for name, kept in self._kept.items()
            if max(kept.expires_us, kept.entry_expires_us) >= now_us
        }
        for name in list(self._kept)[: max(0, len(self._kept) - self._most * 9 // 10)]:
            del self._kept[name]
