"""Request bodies on the machine of the cache, as a test plays them: no call, and no answer but its length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from farthing.book import Card
from farthing.cache import Refused
from farthing.lint._billing import Play, billed
from farthing.lint._lint import How, terms_of
from farthing.lint._request import Sent
from farthing.meters import Vector


class NoReplay(ValueError):
    """Why requests cannot be billed without a call, in one line."""


def replayed(requests: Sequence[Sent], how: How, output: int = 0) -> Iterator[tuple[Sent, Vector, int]]:
    """Each with its tokens and picodollars, in order, `how.gap_s` apart. NoReplay where one has neither."""
    spaces: dict[tuple[str, ...], list[int]] = {}
    cards: list[Card] = []
    least: list[int] = []
    caches: list[bool] = []
    for sent in requests:
        held = terms_of(sent, how)
        if held.card is None or (held.caches and held.minimum is None):
            raise NoReplay(f"{sent.place}: {held.reason or 'no minimum is published for its model'}")
        cards.append(held.card)
        least.append(held.minimum or 0)
        caches.append(held.caches)
        spaces.setdefault((sent.model, sent.region), []).append(len(cards) - 1)
    tokens: dict[int, Vector] = {}
    for numbers in spaces.values():
        plays = [
            Play(
                number * how.gap_s * 1_000_000,
                list(zip(requests[number].names(), requests[number].sizes, strict=True)),
                requests[number].marks if caches[number] else (),
                output,
            )
            for number in numbers
        ]
        try:
            found = billed(plays, least[numbers[0]])
        except Refused as why:
            refused, _, reason = str(why).removeprefix("request ").partition(": ")
            place = requests[numbers[int(refused)]].place
            raise NoReplay(f"{place}: the API would refuse it: {reason}") from None
        tokens |= dict(zip(numbers, found, strict=True))
    for number, sent in enumerate(requests):
        yield sent, tokens[number], tokens[number] @ cards[number].rates
