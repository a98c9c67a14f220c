"""Four rules of thumb: what each alone would save on this traffic, and whether it comes to under a quarter."""

from __future__ import annotations

from collections.abc import Sequence

from farthing.book import Book
from farthing.optimise._advice import Interval, Rule
from farthing.optimise._choose import Option, percent
from farthing.optimise._lots import Load, cost

_SAYS = {
    "channel": ("batch", "Send what can wait as a batch."),
    "cache": ("caching", "Cache what repeats."),
    "endpoint": ("global endpoint", "Call the global endpoint."),
    "model": ("right-sized model", "Use the smallest model that does."),
}
_NOTES = {
    "channel": "half price; on Bedrock a batch forfeits the cache, so only calls that it makes cheaper are counted",
    "cache": "on top of today's caching, and only where prefixes are known",
    "endpoint": "1 - 1/1.1 is 9.1 %, not 10 %",
    "model": "the tier below or a cheaper successor, for the same text: its quality is to be proved",
}


def rules(book: Book, found: Sequence[tuple[Load, Sequence[Option]]]) -> list[Rule]:
    """What each lever alone is worth, each lot at its best setting: they overlap, and do not add up."""
    made = []
    for lever, (name, says) in _SAYS.items():
        worth, permitted = [0, 0, 0], [0, 0, 0]
        for load, options in found:
            # a setting may pay only together with another lever
            mine = [
                one for one in options
                if one.lever == lever and cost(book, load, one.choice, forced=True) < load.billed
            ]  # fmt: skip
            for sums, some in (
                (worth, [one for one in mine if not _withheld(one)]),
                (permitted, [one for one in mine if not one.doubts]),
            ):
                if some:
                    best = min(some, key=lambda one: cost(book, load, one.choice, forced=sums is worth))
                    for at in range(3):
                        sums[at] += load.billed - cost(book, load, best.choice, at, forced=sums is worth)
        made.append(Rule(name, says, _interval(worth), _interval(permitted), _NOTES[lever]))
    return made


def _withheld(one: Option) -> bool:
    return any(doubt.kind == "calibrated" for doubt in one.doubts)


def _interval(ends: Sequence[int]) -> Interval:
    return Interval(min(ends), ends[1], max(ends))


def quarter(billed: int, advised: Interval, worth: Interval) -> str:
    """Whether "less than a quarter" holds here."""
    if not billed:
        return "nothing was billed"

    def said(level: int) -> str:
        return f"{percent(level, billed)}{'' if level * 4 < billed else ', which is not'}"

    return f"the plan comes to {said(advised.mid)}; with all that owners could allow to {said(worth.mid)}"
