"""Which calls are turns of conversations, where no session says so: their prompts show it.

A prompt that goes on from all that an earlier call asked, with an answer next, was not written before that answer came.
Other prompts that begin alike, such as one document with many questions, or the same examples, hang on nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from farthing.traces import Call


class Said(NamedTuple):
    """What links a call with others: keyed hashes of parts of its prompt."""

    id: str
    at_us: int
    ends: tuple[str, ...]  # all of it; and up to its last question, where the answer to that is begun already
    answered: tuple[str, ...]  # up to each answer that a question follows
    begun: tuple[str, ...]  # up to each answer at its end


class Turns(NamedTuple):
    """Of calls by their ids: the turns of conversations; and those whose prompts hold answers of calls unknown."""

    known: frozenset[str]
    doubtful: frozenset[str]  # examples, or turns whose earlier calls are not in the logs


def said(call: Call) -> Said:
    """Of a call whose hashes are names."""
    hashes = [str(name) for name in call.hashes]
    answers = set(call.answers)
    asked = len(hashes)
    while asked and asked - 1 in answers:
        asked -= 1
    before = [(at, hashes[at - 1]) for at in call.answers if at]
    return Said(
        call.id,
        call.at_us,
        tuple(hashes[at - 1] for at in dict.fromkeys((len(hashes), asked)) if at),
        tuple(name for at, name in before if at < asked),
        tuple(name for at, name in before if at >= asked),
    )


def turns(calls: Sequence[Said]) -> Turns:
    """The calls that another goes on from, and those that go on from another."""
    first: dict[str, int] = {}  # when a prompt that ends so was first sent
    whole: dict[str, int] = {}  # the same, of whole prompts
    last: dict[str, int] = defaultdict(int)  # when an answer to a prompt that ends so was last sent on
    for one in calls:
        for name in one.ends:
            first[name] = min(first.get(name, one.at_us), one.at_us)
        for name in one.ends[:1]:
            whole[name] = min(whole.get(name, one.at_us), one.at_us)
    for one in calls:
        for name in (*one.answered, *(name for name in one.begun if name in whole)):
            last[name] = max(last[name], one.at_us)
    known = frozenset(one.id for one in calls if _goes_on(one, first, whole) or _is_answered(one, last))
    return Turns(known, frozenset(one.id for one in calls if one.answered and one.id not in known))


def _goes_on(one: Said, first: dict[str, int], whole: dict[str, int]) -> bool:
    return any(
        ends[name] <= one.at_us
        for ends, names in ((first, one.answered), (whole, one.begun))
        for name in names
        if name in ends
    )


def _is_answered(one: Said, last: dict[str, int]) -> bool:
    return any(last.get(name, -1) >= one.at_us for name in one.ends)
