"""What an endpoint saves by its rates, less what it loses at the cache: calls that go there beside those that may not.

Only the calls of keys outside a canary's share tell what the other side would be. Those that a session's cache or a
refusal keeps are others than those that go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from math import sqrt

from farthing.meters import Vector

SOME = 20  # calls on each side before shares are told
ENOUGH, FEWEST_KEYS = 200, 8  # calls and keys on each side before an entry is judged by them
SURE = 4.0  # standard errors
MOST_KEYS = 2_000


@dataclass
class _Arm:
    calls: int = 0
    prompt: int = 0
    read: int = 0
    cost: int = 0  # of prompts, in picodollars
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)  # cost and prompt tokens of each

    def add(self, key: str, billed: Vector, rates: Vector) -> None:
        cost, prompt = billed._replace(output=0) @ rates, billed.prompt
        before = self.keys.get(key, (0, 0))
        if before == (0, 0) and len(self.keys) >= MOST_KEYS:
            return
        self.keys[key] = before[0] + cost, before[1] + prompt
        self.calls += 1
        self.prompt, self.read, self.cost = (
            self.prompt + prompt,
            self.read + billed.cache_read,
            self.cost + cost,
        )

    @property
    def variance(self) -> float:
        """Of the cost of a token. It is keys that were drawn by lot, so they are what varies, and not their calls."""
        each, count = self.cost / self.prompt, len(self.keys)
        off = sum((cost - each * prompt) ** 2 for cost, prompt in self.keys.values())
        return off * count / (count - 1) / self.prompt**2


@dataclass
class Arms:
    """By entry and model, without and with it."""

    known: dict[tuple[str, str], tuple[_Arm, _Arm]] = field(default_factory=dict)

    def count(
        self, entry: str, model: str, key: str, billed: Vector, rates: Vector, *, applied: bool
    ) -> None:
        if billed.prompt:
            self.known.setdefault((entry, model), (_Arm(), _Arm()))[applied].add(key, billed, rates)

    def shares(self, entry: str, model: str) -> str:
        """For the reason of a decision; "" where too little is known."""
        without, with_ = self.known.get((entry, model), (_Arm(), _Arm()))
        if min(without.calls, with_.calls) < SOME:
            return ""
        there, here = (Decimal(1000 * arm.read // arm.prompt) / 10 for arm in (with_, without))
        less = 1000 - 1000 * with_.cost * without.prompt // (without.cost * with_.prompt)
        saved = f"{Decimal(abs(less)) / 10} % {'less' if less >= 0 else 'more'}"
        return (
            f"; {there} % of prompts is read from the cache there, {here} % here: a token costs {saved} there"
        )

    def dearer(self, entry: str, model: str) -> str:
        """Why an entry costs more than it saves; "" as long as that may be chance. Then it is counted anew."""
        without, with_ = self.known.get((entry, model), (_Arm(), _Arm()))
        if min(without.calls, with_.calls) < ENOUGH or min(len(without.keys), len(with_.keys)) < FEWEST_KEYS:
            return ""
        more = with_.cost / with_.prompt - without.cost / without.prompt
        if more <= SURE * sqrt(with_.variance + without.variance):
            return ""
        said = self.shares(entry, model).removeprefix("; ")
        del self.known[entry, model]
        return said
