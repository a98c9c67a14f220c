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
    whole: tuple[str, ...]
    asked: tuple[str, ...]  # up to its last question, where the answer to that is begun already
    answered: tuple[str, ...]  # up to each answer that a question follows
    begun: tuple[str, ...]  # up to each answer at its end


class Turns(NamedTuple):
    """Of calls by their ids: the turns of conversations; and those whose prompts hold answers of calls unknown."""

    known: frozenset[str]
    doubtful: frozenset[str]  # examples, or turns whose earlier calls are not in the logs


def said(call: Call) -> Said:
    """Of a call whose hashes are names. What changes from call to call, such as a clock in its system prompt, hides
    what it goes on from: so it is looked at without that too."""
    whole, asked, answered, begun = set[str](), set[str](), set[str](), set[str]()
    for prompt in (call, call.settled):
        names = [str(name) for name in prompt.hashes] if prompt else []
        answers = set(prompt.answers) if prompt else ()
        end = len(names)
        while end and end - 1 in answers:
            end -= 1
        whole |= set(names[-1:])
        asked |= set(names[end - 1 : end])
        answered |= {names[at - 1] for at in answers if 0 < at < end}
        begun |= {names[at - 1] for at in answers if at and at >= end}
    return Said(call.id, call.at_us, tuple(whole), tuple(asked), tuple(answered), tuple(begun))


def turns(calls: Sequence[Said]) -> Turns:
    """The calls that another goes on from, and those that go on from another.

    A prompt with an answer begun at its end goes on from another only if that one was sent without it.
    """
    first: dict[str, int] = {}  # when a prompt that ends so was first sent
    last: dict[str, int] = defaultdict(int)  # when an answer to a prompt that ends so was last sent on
    for one in calls:
        for name in (*one.whole, *one.asked):
            first[name] = min(first.get(name, one.at_us), one.at_us)
    whole = {name for one in calls for name in one.whole}
    for one in calls:
        for name in (*one.answered, *(name for name in one.begun if name in whole)):
            last[name] = max(last[name], one.at_us)
    known = frozenset(one.id for one in calls if _goes_on(one, first) or _is_answered(one, last))
    return Turns(known, frozenset(one.id for one in calls if one.answered and one.id not in known))


def _goes_on(one: Said, first: dict[str, int]) -> bool:
    return any(first[name] <= one.at_us for name in one.answered if name in first)


def _is_answered(one: Said, last: dict[str, int]) -> bool:
    return any(last.get(name, -1) >= one.at_us for name in (*one.whole, *one.asked))
