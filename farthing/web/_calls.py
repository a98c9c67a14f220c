"""Single calls: what a figure is made of in the end. Ids, counts, cost and card; no text of anything."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from farthing.book import Card, Resolved, Unpriced
from farthing.cells import CLAIMED, KEYS, Contexts, cells
from farthing.meters import METERS, Vector
from farthing.rating import find
from farthing.usage import EPOCH, settle_ttl
from farthing.web._page import DAY, PageError, Row, Sheet, View

MOST_CALLS = 500
_SHOWN = (
    "model",
    "endpoint",
    "mode",
    "team",
    "account",
    "principal",
    "session",
    "project",
    "region",
    "status",
)
COLUMNS = ("at", "id", *_SHOWN, *METERS, "usd", "card", "assumed")
_IDS = ("request_id", "message_id", "gateway_id")


def last_calls(view: View, count: int, after: str = "") -> tuple[Sheet, str]:
    """The newest calls of the view, a row a part of one; and what to go on after, "" at the end.

    Their days are found from the sums, so that of a large ledger only those are read.
    """
    before_us, skipped = _cursor(after)
    wanted = _days(view, count + skipped + 1, before_us)
    rows: list[tuple[Any, ...]] = []
    listed: list[Row] = []
    if wanted:
        found, contexts = selected(view, *wanted)
        rows = _rows(view, found, before_us, count + skipped + 1)[skipped:]
        listed = _named(view, contexts, rows[:count])
    following = ""
    if len(rows) > count:
        last = rows[count - 1][0]
        same = sum(1 for row in rows[:count] if row[0] == last) + (skipped if last == before_us else 0)
        following = f"{last}.{same}"
    return Sheet("Calls, newest first", COLUMNS, listed, empty="no calls in this selection"), following


def _cursor(after: str) -> tuple[int | None, int]:
    """The microsecond to go on from, and how many of its calls were shown already."""
    if not after:
        return None, 0
    at, _, shown = after.partition(".")
    if not (at.isdecimal() and shown.isdecimal()):
        raise PageError(f"after {after[:40]!r}: take it from the page before")
    return int(at), int(shown)


def _days(view: View, count: int, before_us: int | None) -> tuple[date, date] | None:
    """The last days that have so many calls between them."""
    calls: dict[date, int] = {}
    for cell in cells(view.ledger, view.question, ("day",)):
        day = date.fromisoformat(cell.keys[0])
        calls[day] = calls.get(day, 0) + cell.calls
    last = date.max
    if before_us is not None:
        last = (EPOCH + timedelta(microseconds=before_us)).astimezone(view.question.zone).date()
    found, first, until = 0, None, None
    for day in sorted((day for day in calls if day <= last), reverse=True):
        first, until = day, until or day
        found += calls[day] if day < last else 0  # of that day some were shown
        if found >= count:
            break
    return (first, until) if first and until else None


def selected(view: View, since: date, until: date) -> tuple[Any, Contexts]:
    """The ledger's rows of these days that the view's filters leave, and what their contexts say."""
    import narwhals.stable.v2 as nw

    question = replace(view.question, since=since, until=until)
    first, last = question.span()
    contexts = Contexts(view.ledger, question, (first, last), [*CLAIMED, *KEYS])
    frame = nw.from_native(view.ledger.rows()).filter(
        nw.col("day") >= (first - EPOCH) // DAY,
        nw.col("day") <= (last - EPOCH) // DAY,
        nw.col("at") >= nw.lit(first),
        nw.col("at") < nw.lit(last),
    )
    coded, _ = contexts.coded([])
    frame = frame.join(nw.from_native(coded), on="ctx")
    for number, where in enumerate(question.where):
        if contexts.hangs_on_tags(where.key):
            frame = contexts.keep(frame, number, where)
    return frame.to_native(), contexts


def _rows(view: View, rows: Any, before_us: int | None, count: int) -> list[tuple[Any, ...]]:
    """at_us, ctx, tags, part, the ids, latency, the meters: of calls that nothing took back, newest first."""
    con = view.ledger.connection
    con.register("page_rows", rows)
    ids, meters = ", ".join(_IDS), ", ".join(f"CAST(sum({meter}) AS BIGINT) AS {meter}" for meter in METERS)
    upto = "" if before_us is None else f"WHERE at_us <= {before_us}"
    return con.execute(
        f"""SELECT * FROM (
                SELECT epoch_us("at") AS at_us, ctx, tags, part, {ids}, latency_ms, {meters}
                FROM page_rows GROUP BY ALL HAVING sum(CASE WHEN reversal THEN -1 ELSE 1 END) > 0
            ) {upto} ORDER BY at_us DESC, {ids}, part LIMIT {count}"""
    ).fetchall()


def _named(view: View, contexts: Contexts, rows: list[tuple[Any, ...]]) -> list[Row]:
    question = view.question
    codes = {row[1] for row in rows}
    tagsets = {row[2] for row in rows}
    named: dict[int, Row] = {}
    if codes:
        found = contexts.named.filter(f"ctx IN ({', '.join(map(str, codes))})")
        named = {row[0]: dict(zip(found.columns, row, strict=True)) for row in found.fetchall()}
    claimed: dict[str, dict[int, str]] = {}
    for key in CLAIMED:
        if contexts.hangs_on_tags(key) and tagsets:
            wanted = contexts.claiming[key].filter(f"tags IN ({', '.join(map(str, tagsets))})")
            claimed[key] = dict(wanted.project("tags, value").fetchall())
    ttl = question.assume.get("ttl", "")
    return [_row(view, row, named[row[1]], claimed, contexts.places, ttl) for row in rows]


def _row(
    view: View, row: tuple[Any, ...], said: Row, claimed: dict[str, dict[int, str]], places: Any, ttl: str
) -> Row:
    at_us, _, tags, part, *ids = row[:7]
    at = EPOCH + timedelta(microseconds=at_us)
    place: Resolved | Unpriced = places[said["place"]]
    assumed = tuple(filter(None, str(said["assumed"] or "").split(",")))
    tokens, assumed = settle_ttl(Vector._make(row[8:13]), assumed, ttl)
    price = place if isinstance(place, Unpriced) else find(view.question.book, place.sku, at, tokens)
    made: Row = {"at": _instant(at), "id": next(filter(None, ids), ""), "part": part}
    for key in _SHOWN:
        made[key] = claimed.get(key, {}).get(tags) or said[key]
    made |= dict(zip(METERS, tokens, strict=True))
    made |= {name: value for name, value in zip(_IDS, ids, strict=True) if value} | {"latency_ms": row[7]}
    priced = isinstance(price, Card)
    made["usd"] = tokens @ price.rates if isinstance(price, Card) else None
    made["card"] = price.id if isinstance(price, Card) else ""
    if not priced:
        made["why"] = price.reason if isinstance(price, Unpriced) else ""
    if isinstance(place, Resolved):
        assumed += place.assumed + (price.assumed if isinstance(price, Card) else ())
    made["assumed"] = ", ".join(dict.fromkeys(assumed))
    return made


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
