"""What one process alone wrote into a ledger that was empty: what is not among that need not be looked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

from farthing.usage import Facts, Usage

MOST_IDS = 400_000  # which take 30 MB; beyond that the ledger is asked
_EACH_ID = tuple(map(itemgetter, (1, 2, 7)))  # request, message and gateway: as in Usage.ids, but in C
_ALSO = itemgetter(8)
_NONE = hash("")


class Ids(NamedTuple):
    """Hashes of every id in some records, and of those among them that are met more than once."""

    every: set[int]
    repeated: set[int]


def ids_of(usages: Sequence[Usage]) -> Ids:
    ids = chain(*(map(one, usages) for one in _EACH_ID), chain.from_iterable(map(_ALSO, usages)))
    found = list(map(hash, ids))
    every = set(found) - {_NONE}
    if len(every) + found.count(_NONE) == len(found):
        return Ids(every, set())
    return Ids(every, {name for name, times in Counter(found).items() if times > 1 and name != _NONE})


def parted(usages: Sequence[Usage], ids: set[int]) -> tuple[Sequence[Usage], Sequence[Usage]]:
    """The records that have one of these ids, and all others."""
    if not ids:
        return (), usages
    having: list[Usage] = []
    others: list[Usage] = []
    for usage in usages:
        _, request, message, _, _, _, _, gateway, also = usage
        names = (hash(request), hash(message), hash(gateway), *map(hash, also))
        (others if ids.isdisjoint(names) else having).append(usage)
    return having, others


class Own:
    """Ids and sources of all records, as of a transaction; of no use once another writer came between."""

    def __init__(self) -> None:
        self._transaction = 0
        self._ids: set[int] = set()
        self._sources: set[str] = set()

    def met(self, ids: set[int], transaction: int) -> set[int] | None:
        """Those of these ids that records as of this transaction may have; None if that is not known."""
        if not transaction:
            return set()  # nothing was ever written
        return self._ids & ids if transaction == self._transaction else None

    def lacks_source(self, source: str, transaction: int) -> bool:
        """Whether it is certain that no record as of this transaction is of this source."""
        return transaction == self._transaction and source not in self._sources

    def note(self, ids: set[int], facts: Iterable[Facts], transaction: int) -> None:
        """These were committed by us, after this transaction."""
        if transaction == self._transaction and len(self._ids) + len(ids) <= MOST_IDS:
            self._ids |= ids
            self._sources.update(said.source for said in facts)
            self._transaction += 1  # last: another thread may look meanwhile
        else:
            self._ids = set()
