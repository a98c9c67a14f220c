"""The machine against a slow one written from the documentation in another style, over thousands of small cases.

The slow one keeps a list of entries and a list of segments, each with its whole prefix, and works on token counts A, B
and C as the documentation does. The compiled machine, its pure front and plain Python must all agree with it.
"""

import itertools
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest

from farthing.cache import FIVE_US, HOUR_US, Refused, Request, Semantics, State, Trace, bill, replay
from farthing.meters import Vector

SECOND = 1_000_000


@dataclass(frozen=True)
class Thing:
    """An entry, or a segment: the tokens between a prefix and the one before it."""

    prefix: str
    ttl: int
    ready: int
    expires: int

    def found(self, now):
        return self.ready <= now <= self.expires


class Slow:
    """A prompt is text of one-letter blocks, so its prefixes are its first letters."""

    def __init__(self, sizes, minimum, rules):
        self.sizes, self.minimum, self.rules = sizes, minimum, rules
        self.entries, self.segments = [], []

    def length(self, prefix):
        return sum(self.sizes[prefix[: n + 1]] for n in range(len(prefix)))

    def bill(self, now, prompt, breakpoints):
        marked = {
            prompt[: at + 1]: ttl for at, ttl in breakpoints if self.length(prompt[: at + 1]) >= self.minimum
        }
        hit = self.best_hit(now, prompt, marked)
        behind = [prefix for prefix in marked if len(prefix) > len(hit)]
        hours = [prefix for prefix in behind if marked[prefix] == HOUR_US]
        a = self.length(hit)
        b = max([a, *map(self.length, hours)])
        c = max([b, *map(self.length, behind)])
        self.refresh(now, hit)
        for n in range(len(hit), len(prompt)):
            prefix = prompt[: n + 1]
            if self.length(prefix) <= c:
                ttl = HOUR_US if self.length(prefix) <= b else FIVE_US
                self.segments = self.put(self.segments, prefix, ttl, now)
        for prefix, ttl in marked.items():
            if prefix in behind:
                self.entries = self.put(self.entries, prefix, ttl, now)
            elif self.rules.marks_inside_a_hit and not any(
                e.prefix == prefix and now <= e.expires for e in self.entries
            ):
                (segment,) = (s for s in self.segments if s.prefix == prefix)
                self.entries = self.put(self.entries, prefix, segment.ttl, now)
        return Vector(self.length(prompt) - c, 0, a, c - b, b - a)

    def best_hit(self, now, prompt, marked):
        window = {
            prefix[: len(prefix) - back]
            for prefix in marked
            for back in range(self.rules.lookback)
            if len(prefix) > back
        }
        whole = {s.prefix for s in self.segments if s.found(now)}
        readable = [
            entry.prefix
            for entry in self.entries
            if entry.found(now)
            and entry.prefix in window
            and (
                self.rules.entries_stand_alone
                or all(entry.prefix[: n + 1] in whole for n in range(len(entry.prefix)))
            )
        ]
        return max(readable, key=len, default="")

    def refresh(self, now, hit):
        def again(thing):
            return Thing(thing.prefix, thing.ttl, thing.ready, now + thing.ttl)

        self.segments = [again(s) if s.prefix and hit.startswith(s.prefix) else s for s in self.segments]
        self.entries = [
            again(e)
            if (e.prefix == hit)
            or (self.rules.refreshes_shorter and hit.startswith(e.prefix) and now <= e.expires)
            else e
            for e in self.entries
        ]

    def put(self, things, prefix, ttl, now):
        new = Thing(prefix, ttl, now + self.rules.delay_us, now + ttl)
        for old in things:
            if old.prefix == prefix and now <= old.expires:
                new = Thing(prefix, ttl, min(old.ready, new.ready), new.expires)
                if self.rules.keeps_the_longer and old.expires > new.expires:
                    new = Thing(prefix, old.ttl, new.ready, old.expires)
        return [thing for thing in things if thing.prefix != prefix] + [new]


class Case(NamedTuple):
    rules: Semantics
    minimum: int
    sizes: dict
    requests: list  # (at_us, prompt, breakpoints)


def case(seed):
    """Few letters, so that prompts share prefixes; times around the ends of lifetimes."""
    luck = random.Random(seed)
    choices = [luck.random() < 0.5 for _ in range(4)]
    rules = Semantics._make([*choices, luck.choice((1, 2, 3, 20)), luck.choice((0, 0, 2, 40)) * SECOND])
    prompts = ["".join(luck.choices("ab", k=luck.randint(1, 7))) for _ in range(2)]
    at, requests = 0, []
    for _ in range(luck.randint(4, 12)):
        at += luck.choice(
            (0, 1, 1, 30, 60, 120, 299, 300, 301, 600, 2_000, 3_600, 3_601)
        ) * SECOND + luck.choice((0, 0, 1))
        prompt = luck.choice(prompts)[: luck.randint(1, 7)] + luck.choice(("", "", "a", "bb"))
        places = sorted(luck.sample(range(len(prompt)), luck.randint(0, min(4, len(prompt)))))
        hours = luck.randint(0, len(places))
        requests.append((at, prompt, [(p, HOUR_US if n < hours else FIVE_US) for n, p in enumerate(places)]))
    every = sorted({prompt[: n + 1] for _, prompt, _ in requests for n in range(len(prompt))})
    sizes = {prefix: luck.choice((1, 10, 300, 700)) for prefix in every}
    return Case(rules, luck.choice((1, 300, 1_000)), sizes, requests)


def slowly(found):
    slow = Slow(found.sizes, found.minimum, found.rules)
    return [slow.bill(*each) for each in found.requests]


def one_by_one(found):
    state: State = {}
    bills = []
    for at, prompt, breakpoints in found.requests:
        path = [(prompt[: n + 1], found.sizes[prompt[: n + 1]]) for n in range(len(prompt))]
        outcome, state = bill(state, Request(at, path, breakpoints), found.minimum, found.rules)
        bills.append(outcome.tokens)
    return bills


class Breakpoints(NamedTuple):
    starts: np.ndarray
    positions: np.ndarray
    ttl_us: np.ndarray


def arrays(found):
    """A case as a trace and breakpoints."""
    number = {prefix: n for n, prefix in enumerate(found.sizes)}
    paths = [[number[prompt[: n + 1]] for n in range(len(prompt))] for _, prompt, _ in found.requests]
    marks = [breakpoints for *_, breakpoints in found.requests]
    zero = np.zeros(len(paths), np.int64)
    trace = Trace(
        np.array([at for at, *_ in found.requests], np.int64),
        zero,
        zero,
        zero,
        np.cumsum([0, *map(len, paths)]),
        np.array(list(itertools.chain(*paths)), np.int64),
        np.array(list(found.sizes.values()), np.int64),
        zero,
        zero,
    )
    flat = list(itertools.chain(*marks))
    return trace, Breakpoints(
        np.cumsum([0, *map(len, marks)]),
        np.array([at for at, _ in flat], np.int64),
        np.array([ttl for _, ttl in flat], np.int64),
    )


def at_once(found):
    trace, marks = arrays(found)
    columns = replay(trace, marks, found.minimum, found.rules)
    return [Vector(*map(int, row)) for row in zip(*columns, strict=True)]


def test_all_agree_with_the_slow_one():
    reads = writes = 0
    for seed in range(4_000):
        found = case(seed)
        expected = slowly(found)
        assert at_once(found) == expected, f"case({seed}) = {found}"
        if seed % 8 == 0:
            assert one_by_one(found) == expected, f"case({seed}) = {found}"
        reads += sum(tokens.cache_read > 0 for tokens in expected)
        writes += sum(tokens.cache_write_1h > 0 < tokens.cache_write_5m for tokens in expected)
    assert reads > 5_000 and writes > 500  # noqa: PT018 - the cases are worth something


def test_what_is_billed_adds_up_to_the_prompt():
    for seed in range(500):
        found = case(seed)
        prompts = [
            sum(found.sizes[prompt[: n + 1]] for n in range(len(prompt))) for _, prompt, _ in found.requests
        ]
        bills = at_once(found)
        assert [tokens.prompt for tokens in bills] == prompts
        assert min(min(tokens) for tokens in bills) >= 0


def test_the_same_without_a_compiler(tmp_path):
    """Where numba is missing, the same functions run as plain Python."""
    script = (
        "import sys; sys.modules['numba'] = None\n"
        "sys.path.insert(0, 'tests')\n"
        "import test_cache_brute as brute\n"
        "from farthing.cache._engine import serve\n"
        "assert type(serve).__name__ == 'function'\n"
        "assert all(brute.at_once(brute.case(n)) == brute.slowly(brute.case(n)) for n in range(300))\n"
    )
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=where, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("positions", "ttls", "why"),
    [
        ([0, 1, 2, 3, 4], [FIVE_US] * 5, "request 0: 5 breakpoints"),
        ([0, 1], [FIVE_US, HOUR_US], "request 0: a 1h breakpoint comes after a 5m one"),
        ([1, 0], [FIVE_US] * 2, "request 0: breakpoints are not in the order"),
        ([1, 1], [FIVE_US] * 2, "request 0: breakpoints are not in the order"),
        ([6], [FIVE_US], "request 0: a breakpoint lies outside the prompt"),
        ([0], [1], "request 0: a breakpoint lives for"),
    ],
)
def test_a_trace_is_refused_as_its_requests_would_be(positions, ttls, why):
    found = Case(Semantics(), 1, {"aaaaaa"[:n]: 5 for n in range(1, 7)}, [(0, "aaaaaa", [])])
    marks = Breakpoints(np.array([0, len(positions)]), np.array(positions), np.array(ttls))
    with pytest.raises(Refused, match=why):
        replay(arrays(found)[0], marks, 1)
