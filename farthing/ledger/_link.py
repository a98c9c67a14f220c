"""Calls that are one and were not seen to be: copies from more than a day apart that came in different imports."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from farthing.ledger._calls import Calls
from farthing.ledger._tables import BETWEEN_IDS
from farthing.usage import Facts, Usage

if TYPE_CHECKING:
    from farthing.ledger._ledger import Ledger


def doubles(ledger: Ledger) -> Iterator[tuple[str, list[Usage], int]]:
    """Ids under which a call is there more than once: the id, the calls without their counts, how many too many.

    Calls that share an id and contradict each other are two, and rightly so.
    """
    con = ledger.connection
    con.register("kept_usage", ledger.rows())
    con.register("kept_contexts", ledger.contexts())
    each = "".join(
        f" UNION ALL SELECT {name} AS id, calls, place FROM calls_ WHERE {name} <> ''"
        for name in ("request_id", "message_id", "gateway_id")
    )
    others = f"unnest(string_split(also, chr({ord(BETWEEN_IDS)})))"
    named = f"SELECT {others} AS id, calls, place FROM calls_ WHERE also <> ''{each}"
    con.execute(f"""CREATE OR REPLACE TEMP TABLE shared_ids AS
        WITH calls_ AS (SELECT request_id, message_id, gateway_id, also, calls, 0 AS place FROM kept_usage
                        WHERE calls <> 0)
        SELECT hash(id) AS code FROM ({named}) GROUP BY ALL HAVING sum(calls) > 1""")
    shared = con.execute(f"""
        WITH rows_ AS (SELECT *, row_number() OVER () AS place FROM kept_usage WHERE calls <> 0
                       AND (hash(request_id) IN (FROM shared_ids) OR hash(message_id) IN (FROM shared_ids)
                            OR hash(gateway_id) IN (FROM shared_ids) OR also <> '')),
             calls_ AS (SELECT request_id, message_id, gateway_id, also, "at", sidechain, ctx,
                               sum(calls) AS calls, min(place) AS place FROM rows_
                        GROUP BY ALL HAVING sum(calls) > 0),
             named AS (SELECT DISTINCT id, place FROM ({named}) WHERE hash(id) IN (FROM shared_ids))
        SELECT id, request_id, message_id, gateway_id, also, epoch_us("at"), sidechain, source, account
        FROM named JOIN calls_ USING (place) JOIN kept_contexts USING (ctx) ORDER BY ALL""")
    met: set[tuple[Usage, ...]] = set()
    for name, rows in groupby(_streamed(shared), key=lambda row: row[0]):
        calls = Calls()
        records = [_call(*row[1:]) for row in rows]
        calls.extend(records)
        too_many = len(records) - len(calls.best)
        if too_many and tuple(records) not in met:  # under another of their ids
            met.add(tuple(records))
            yield name, records, too_many


def link(ledger: Ledger) -> int:
    """Make them one, as if they had come together; how many there were too many."""
    found = list(doubles(ledger))
    for _, records, _ in found:
        ledger.append(list(ledger.known(records)))
    return sum(count for *_, count in found)


def _streamed(result: Any) -> Iterator[tuple[Any, ...]]:
    while rows := result.fetchmany(10_000):
        yield from rows


def _call(
    request: str, message: str, gateway: str, also: str, at_us: int, side: bool, source: str, account: str
) -> Usage:
    part = (Facts(source, account=account), (0, 0, 0, 0, 0))
    others = tuple(also.split(BETWEEN_IDS)) if also else ()
    return Usage(at_us, request, message, (part,), (), None, side, gateway, others)
