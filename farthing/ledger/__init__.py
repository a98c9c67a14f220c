"""The ledger: what was used, appended and never changed, each call counted once.

A folder of Delta tables. `usage` holds one row a part of a call; when a better record of a known call
arrives, the old row is reversed (the same row, counts negated) and the new one added, so that a plain SUM
over all rows is always right. `contexts` and `tags` hold what rows share, under a code made from their
content; `files` holds what was read, so that an unchanged file is not read again and a report can say how
many rows were rejected and why. `totals` holds what sources counted over periods, to compare with.
"""

from __future__ import annotations

from farthing.ledger._calls import MAY_LACK_CACHE, RANK, Calls, better
from farthing.ledger._closings import Closing, Line, add_closing, closings, faulty, in_full
from farthing.ledger._intents import settle_open
from farthing.ledger._keep import compact, find_named, forget, info, older, retain, shapes
from farthing.ledger._ledger import Added, Ledger, SourceFile
from farthing.ledger._spark import on_executors
from farthing.ledger._store import FORMAT, LedgerError
from farthing.ledger._tables import arrow, content_code, transposed
from farthing.ledger._verify import verify

__all__ = [
    "FORMAT",
    "MAY_LACK_CACHE",
    "RANK",
    "Added",
    "Calls",
    "Closing",
    "Ledger",
    "LedgerError",
    "Line",
    "SourceFile",
    "add_closing",
    "arrow",
    "better",
    "closings",
    "compact",
    "content_code",
    "faulty",
    "find_named",
    "forget",
    "in_full",
    "info",
    "older",
    "on_executors",
    "retain",
    "settle_open",
    "shapes",
    "transposed",
    "verify",
]
