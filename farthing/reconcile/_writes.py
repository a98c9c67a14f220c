"""Cache writes that the bill has more often than our records: which call's they are, if their sizes tell."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import NamedTuple

from farthing.book import Resolved
from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.reconcile._sides import Place
from farthing.usage import EPOCH, Facts

_WRITES = ("cache_write_5m", "cache_write_1h")
_BY_CHANCE = 1_000  # a size tells a call only where at most one number in as many is the size of one


class Again(NamedTuple):
    """So many writes of this size are in the bill beyond those that our calls made."""

    writes: int
    tokens: int
    calls: int  # of ours that wrote as many


class Writes:
    """The sizes of single cache writes; a day's are asked for when the first place of it is."""

    def __init__(self, ledger: Ledger, question: Question) -> None:
        self._ledger = ledger
        self._question = question
        self._days: dict[int, dict[tuple[str, ...], dict[int, int]]] = {}

    def again(self, place: Place, more: int) -> Again | None:
        """The one size of which `more` tokens are whole writes, no more of them than calls of ours wrote it."""
        day = (place.day - EPOCH.date()).days
        if day not in self._days:
            self._days[day] = self._sizes(day)
        key = (place.account, place.model, place.endpoint, place.zone, place.mode, place.meter)
        sizes = self._days[day].get(key, {})
        if len(sizes) * _BY_CHANCE > more:
            return None
        found = [
            Again(more // size, size, calls)
            for size, calls in sizes.items()
            if size >= _BY_CHANCE and more % size == 0 and more // size <= calls
        ]
        return found[0] if len(found) == 1 else None

    def _sizes(self, day: int) -> dict[tuple[str, ...], dict[int, int]]:
        facts = ", ".join(f"c.{name}" for name in Facts._fields)
        since = EPOCH + timedelta(days=day)
        sizes = self._ledger.sift(
            "write_rows",
            f"""SELECT abs({_WRITES[0]}) AS short, abs({_WRITES[1]}) AS long,
                       sum(CASE WHEN reversal THEN -1 ELSE 1 END)::BIGINT AS calls, {facts}
                FROM write_rows JOIN write_contexts c USING (ctx)
                WHERE {_WRITES[0]} <> 0 OR {_WRITES[1]} <> 0 GROUP BY ALL""",
            ("at", "ctx", "reversal", *_WRITES),
            (since, since + timedelta(days=1)),
            write_contexts=self._ledger.contexts(),
        ).aggregate(f"short, long, sum(calls)::BIGINT, {', '.join(Facts._fields)}")
        found: dict[tuple[str, ...], dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for short, long, calls, *said in sizes.fetchall():
            of = Facts(*said)
            place = self._question.book.place(of, self._question.profiles, self._question.assume)
            if isinstance(place, Resolved) and calls > 0:
                sku = place.sku
                for meter, size in zip(_WRITES, (short, long), strict=True):
                    if size:
                        found[of.account, sku.model, sku.endpoint, sku.zone, sku.mode, meter][size] += calls
        return found
