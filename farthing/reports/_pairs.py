"""Calls that two sources may both have told of without sharing an id: alike in model, tokens and time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cmp_to_key
from typing import NamedTuple

from farthing.book import FOREVER, START, Resolved, Unpriced
from farthing.cells import FACT_KEYS, SKU_KEYS, Question, QuestionError
from farthing.ledger import MAY_LACK_CACHE, Calls, Ledger, arrow, better
from farthing.ledger._tables import BETWEEN_IDS
from farthing.meters import METERS, Vector
from farthing.rating import find
from farthing.reports._control import matches
from farthing.usage import EPOCH, Facts, Usage, settle_ttl

SECONDS = 2
_BUCKET_US = 16_000_000
_LONGEST_US = 900_000_000  # of a call, as far as its latency is believed
_IDS = "request_id, message_id, gateway_id, also"


class Copy(NamedTuple):
    """A call (`kept`) and what may be another record of it. Settled, the ledger would come to `usd` less."""

    kept: Usage
    copy: Usage
    usd: int
    bridge: Usage | None  # a record with the ids of both, which makes them one; None where they cannot be one


def find_copies(ledger: Ledger, question: Question, seconds: int) -> list[Copy]:
    """Every possible duplicate: each record in one set, no two of one source in it, the nearest in time first."""
    if not _several(ledger, question):
        return []
    pairs, calls = _pairs(ledger, question, seconds)
    cost = _Cost(question)
    copies = [copy for group in _groups(pairs, calls) for copy in _copies([calls[n] for n in group], cost)]
    return sorted(copies, key=lambda copy: (copy.kept.at_us, copy.kept.ids, copy.copy.ids))


# --- candidates, by the engine -------------------------------------------------------------------------------------


def _several(ledger: Ledger, question: Question) -> bool:
    """Gives the engine a code for the model of each context; whether there are two sources at all."""
    for where in question.where:
        if where.key not in (*FACT_KEYS, *SKU_KEYS, "routing"):
            raise QuestionError(f"possible duplicates cannot be filtered by {where.key}: leave it out")
    models: dict[str, int] = {}
    rows = []
    for ctx, *said in ledger.contexts().fetchall():
        facts = Facts(*said)
        place = question.book.place(facts, question.profiles, question.assume)
        told = facts._asdict()
        name = facts.served_model or facts.model_id
        if isinstance(place, Resolved):
            name = place.sku.model
            told |= {**place.sku.named(), "routing": place.routing}
        asked = all(matches(where, str(told.get(where.key, ""))) for where in question.where)
        code = models.setdefault(name, len(models))
        rows.append((ctx, code, asked, told["platform"], facts.source, facts.account, facts.region))
    types = {"ctx": "int64", "model": "int64", "asked": "bool"}
    types |= dict.fromkeys(("platform", "source", "account", "region"), "string")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(types)}
    con = ledger.connection
    con.register("pair_places", arrow(columns, types))
    con.register("pair_contexts", ledger.contexts())
    con.register("pair_tags", ledger.table("tags").distinct())
    return len(con.execute("SELECT DISTINCT source FROM pair_contexts").fetchall()) > 1


# Calls of several parts: no pair is made of them.
_SEVERAL = f"""SELECT DISTINCT {_IDS}, "at" FROM pair_parts WHERE part > 0"""

# Calls of one part as they stand, whose model and counts more than one source tells of. Those with a reversal are
# summed; the rest, nearly all, need not be. A reversal has the counts of what it takes back, but for their signs.
_ALIKE = f"""
WITH odd AS (SELECT {_IDS}, "at" FROM pair_rows WHERE reversal UNION FROM pair_several),
summed AS (
    SELECT {_IDS}, "at", ctx, tags, latency_ms, sidechain, {", ".join(f"abs({m}) AS {m}" for m in METERS)},
           sum(CASE WHEN reversal THEN -1 ELSE 1 END) AS net
    FROM pair_rows SEMI JOIN odd USING ({_IDS}, "at") ANTI JOIN pair_several USING ({_IDS}, "at") GROUP BY ALL
), standing AS (
    SELECT {_IDS}, "at", ctx, tags, latency_ms, sidechain, {", ".join(METERS)}
    FROM pair_rows ANTI JOIN odd USING ({_IDS}, "at")
    UNION ALL BY NAME
    SELECT * EXCLUDE net FROM summed WHERE net > 0
), told AS (
    SELECT s.*, m.model, m.asked, m.platform, m.source, m.account, m.region, epoch_us(s."at") AS starts,
           starts + least(1000 * coalesce(latency_ms, 0), {_LONGEST_US}) AS ends,
           cache_write_5m + cache_write_1h AS writes
    FROM standing s JOIN pair_models m USING (ctx)
    WHERE input + output + cache_read + writes > 0
)
SELECT * FROM told SEMI JOIN (
    SELECT model, input, output FROM told GROUP BY ALL HAVING count(DISTINCT source) > 1
) USING (model, input, output)
"""
_COLUMNS = (*_IDS.split(", "), "at", "part", "ctx", "tags", "latency_ms", "sidechain", "reversal", *METERS)

# `n` numbers them.
_CANDIDATES = """
CREATE OR REPLACE TEMP TABLE pair_calls AS
SELECT *, row_number() OVER (ORDER BY starts, source, request_id, message_id, gateway_id, also) AS n FROM pair_alike
"""

# The time of one lies within the other's call, give or take. A call lies in all buckets that it touches.
_NEAR = f"""
WITH long AS (
    SELECT *, unnest(range((starts - $slack) // {_BUCKET_US}, (ends + $slack) // {_BUCKET_US} + 1)) AS bucket
    FROM pair_calls
), short AS (SELECT *, starts // {_BUCKET_US} AS bucket FROM pair_calls)
SELECT DISTINCT least(a.n, b.n) AS one, greatest(a.n, b.n) AS other,
       greatest(a.starts - b.ends, b.starts - a.ends, 0) AS apart, abs(a.starts - b.starts) AS begun
FROM short a JOIN long b USING (model, input, output, bucket)
WHERE a.source <> b.source AND a.starts BETWEEN b.starts - $slack AND b.ends + $slack
AND ((a.cache_read = b.cache_read AND a.writes = b.writes)
     OR (a.cache_read + a.writes = 0 AND a.source IN {MAY_LACK_CACHE})
     OR (b.cache_read + b.writes = 0 AND b.source IN {MAY_LACK_CACHE}))
AND (a.account = b.account OR a.account = '' OR b.account = '')
AND (a.region = b.region OR a.region = '' OR b.region = '')
AND (a.platform = b.platform OR a.platform = '' OR b.platform = '')
AND (a.message_id = b.message_id OR a.message_id = '' OR b.message_id = '')
AND (a.asked OR b.asked) AND (a.starts BETWEEN $since AND $until - 1 OR b.starts BETWEEN $since AND $until - 1)
ORDER BY apart, begun, one, other
"""


def _pairs(
    ledger: Ledger, question: Question, seconds: int
) -> tuple[list[tuple[int, int]], dict[int, Usage]]:
    """Pairs by number, the nearest first, and the calls they are of."""
    con = ledger.connection
    ever = START, FOREVER
    several = ledger.sift("pair_parts", _SEVERAL, (*_IDS.split(", "), "at", "part"), ever)
    none = f"{' + '.join(METERS)} = 0"  # of no use here, and too many to be in one share
    alike = ["abs(input)", "abs(output)", f"CASE WHEN {none} THEN request_id END"]
    beside = {"pair_several": several, "pair_models": con.table("pair_places")}
    con.register("pair_alike", ledger.sift("pair_rows", _ALIKE, _COLUMNS, ever, alike, **beside))
    con.execute(_CANDIDATES)
    since, until = ((at - EPOCH) // timedelta(microseconds=1) for at in question.span())
    asked = {"slack": seconds * 1_000_000, "since": since, "until": until}
    pairs = [(one, other) for one, other, *_ in con.execute(_NEAR, asked).fetchall()]
    con.register("pair_wanted", arrow({"n": sorted({n for pair in pairs for n in pair})}, {"n": "int64"}))
    rows = con.execute(
        f"""WITH sets AS (SELECT tags, list([key, value] ORDER BY key, value) AS pairs FROM pair_tags GROUP BY tags)
            SELECT n, starts, {_IDS}, pairs, latency_ms, sidechain, {", ".join(METERS)},
                   {", ".join(f"f.{name}" for name in Facts._fields)}
            FROM pair_calls SEMI JOIN pair_wanted USING (n)
            JOIN pair_contexts f USING (ctx) LEFT JOIN sets USING (tags)"""
    ).fetchall()
    calls = {}
    for n, at_us, request, message, gateway, also, tags, latency, side, *rest in rows:
        tokens, facts = tuple(rest[: len(METERS)]), Facts(*rest[len(METERS) :])
        told = tuple((key, value) for key, value in tags or ())
        others = tuple(also.split(BETWEEN_IDS)) if also else ()
        calls[n] = Usage(at_us, request, message, ((facts, tokens),), told, latency, side, gateway, others)
    return pairs, calls


# --- sets of records of one call -----------------------------------------------------------------------------------


def _groups(pairs: Sequence[tuple[int, int]], calls: Mapping[int, Usage]) -> list[list[int]]:
    """Pairs joined to sets, nearest first. No source is in a set twice: its records are of different calls."""
    group: dict[int, list[int]] = {n: [n] for n in calls}
    for one, other in pairs:
        a, b = group[one], group[other]
        sources = [_source(calls[n]) for n in (*a, *b)]
        if a is b or len(set(sources)) < len(sources):
            continue
        a += b
        for n in b:
            group[n] = a
    found = {id(members): members for members in group.values() if len(members) > 1}
    return list(found.values())


def _source(usage: Usage) -> str:
    return usage.parts[0][0].source


def _copies(members: list[Usage], cost: _Cost) -> Iterator[Copy]:
    """The best record, and each of the others with what the sum falls by when it becomes one with it."""
    kept, *others = sorted(members, key=cmp_to_key(_best_first))
    for copy in others:
        bridge = _bridge(kept, copy)
        merged = bridge and _merged([kept, copy], bridge)
        if merged is None:
            yield Copy(kept, copy, cost(copy), None)
            continue
        yield Copy(kept, copy, cost(kept) + cost(copy) - cost(merged), bridge)
        kept = merged


def _best_first(a: Usage, b: Usage) -> int:
    return -1 if better(a, b) else 1


def _bridge(kept: Usage, copy: Usage) -> Usage | None:
    """The kept record under the ids of the copy as well; None if that has none."""
    also = {*kept.also, *copy.ids} - {kept.request_id, kept.message_id, kept.gateway_id}
    return kept._replace(also=tuple(sorted(also))) if copy.ids else None


def _merged(records: list[Usage], bridge: Usage) -> Usage | None:
    """What the ledger makes of them; None if they would not be one, or not stay one when they are read again."""
    calls = Calls(records)
    calls.add(bridge)
    calls.extend(records)
    return calls.best[0] if len(calls.best) == 1 else None


class _Cost:
    """What a record costs by the question's book; 0 without a price."""

    def __init__(self, question: Question) -> None:
        self._question = question

    def __call__(self, usage: Usage) -> int:
        total = 0
        for facts, counts in usage.parts:
            place = self._question.book.place(facts, self._question.profiles, self._question.assume)
            said = tuple(filter(None, facts.assumed.split(",")))
            tokens, _ = settle_ttl(Vector(*counts), said, self._question.assume.get("ttl", ""))
            card = (
                place
                if isinstance(place, Unpriced)
                else find(self._question.book, place.sku, usage.at, tokens)
            )
            total += 0 if isinstance(card, Unpriced) else tokens @ card.rates
        return total
