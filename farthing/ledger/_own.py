"""What one process alone wrote into a ledger that was empty: what is not among that need not be looked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter

from farthing.usage import Facts, Usage

MOST_IDS = 400_000  # which take 30 MB; beyond that the ledger is asked
_EACH_ID = tuple(map(itemgetter, (1, 2, 7)))  # request, message and gateway: as in Usage.ids, but in C


def ids_of(usages: Sequence[Usage]) -> set[int]:
    """Hashes of every id in these records."""
    found = set(map(hash, chain.from_iterable(map(one, usages) for one in _EACH_ID)))
    found.update(map(hash, chain.from_iterable(map(itemgetter(8), usages))))
    found.discard(hash(""))
    return found


class Own:
    """Ids and sources of all records, as of a transaction; of no use once another writer came between."""

    def __init__(self) -> None:
        self._transaction = 0
        self._ids: set[int] = set()
        self._sources: set[str] = set()

    def lacks(self, ids: set[int], transaction: int) -> bool:
        """Whether it is certain that no record as of this transaction has one of these ids."""
        if not transaction:
            return True  # nothing was ever written
        return transaction == self._transaction and self._ids.isdisjoint(ids)

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
