"""A question as one expression over the ledger's tables in a warehouse: sums by keys, priced where they lie.

The expressions are those of `farthing.cells` and `farthing.rating`: a row lies in an era and a band of its place, sums
are made by box, and a box costs its tokens @ its card's rates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from farthing.book import FOREVER, START
from farthing.cells import CLAIMED, SKU_KEYS, TIME_KEYS, Question, Where, glob, offsets
from farthing.config import Members
from farthing.meters import METERS
from farthing.rating import columns
from farthing.usage import EPOCH
from farthing.warehouse._boxes import ALL, CERTAIN, TTL, WRITES, Boxes
from farthing.warehouse._claims import by_facts, by_tags, whole

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

COUNTS = ("calls", *METERS, "unpriced_calls", "picos", "assumed_picos")
WHY = "unpriced"  # the last column: why calls of a row have no price
_UNKNOWN = "this query does not know it yet: print it again"
# Between these days a zone's offsets are followed. Claude came to Bedrock in 2023.
_FIRST, _LAST = datetime(2023, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)


def asked(tables: Mapping[str, Any], question: Question, keys: Sequence[str], made: Boxes) -> Any:
    """A frame with a column `key_0`, `key_1` ... for each key, then COUNTS and WHY.

    `tables` are `usage`, `contexts`, `tags` (each distinct), `places`, `boxes`, `cards` as frames of one engine.
    """
    import narwhals.stable.v2 as nw

    frames = {name: nw.from_native(table) for name, table in tables.items()}
    frame = _summed(_rows(frames, question, keys, made), question, keys, made)
    frame = nw.from_native(_dated(frame.to_native(), keys))
    frame = frame.join(frames["boxes"], on=["place", "era", "band", "cached"], how="left")
    frame = _priced(frame.join(frames["cards"], on="number", how="left"))
    names = [f"key_{i}" for i in range(len(keys))] or ["all"]
    sums = {name: nw.col(name).sum() for name in (*COUNTS, "priced")}
    found = frame.group_by(*names).agg(**sums, **{WHY: nw.col(WHY).max()})
    for name in ("picos", "assumed_picos"):  # without any price: unknown is not nothing
        found = found.with_columns(**{name: nw.when(nw.col("priced") > 0).then(nw.col(name))})
    return found.select(*(names if keys else ()), *COUNTS, WHY).to_native()


def _rows(frames: Mapping[str, Any], question: Question, keys: Sequence[str], made: Boxes) -> Any:
    """The rows that are asked for, each with its place, what its context says of the keys, and what its tags do."""
    import narwhals.stable.v2 as nw

    tagged = {key: _by_tags(frames["tags"], question, key) for key in _of_tags(question, keys)}
    tagged = {key: frame for key, frame in tagged.items() if frame is not None}
    frame = _span(frames["usage"], question).join(
        _contexts(frames, question, keys, made, tagged), on="ctx", how="inner"
    )
    for i, (key, tags) in enumerate(tagged.items()):
        name = f"tag_{i}"
        said = nw.col(f"claim_{key}") if key in CLAIMED else nw.lit("")
        frame = frame.join(tags.rename({"said": name}), on="tags", how="left")
        frame = frame.with_columns(**{name: nw.coalesce(nw.col(name), said)})
        for where in (where for where in question.where if where.key == key):
            frame = frame.filter(matches(nw.col(name), where))
        if key in keys:
            frame = frame.with_columns(**{f"key_{keys.index(key)}": nw.col(name)})
    return frame


def _of_tags(question: Question, keys: Sequence[str]) -> list[str]:
    """Keys that a row's tags may say something of."""
    found = (*keys, *(where.key for where in question.where))
    return [key for key in dict.fromkeys(found) if key in CLAIMED or key.startswith("tag:")]


def _by_tags(tags: Any, question: Question, key: str) -> Any:
    """What each tag set says under a key, as `said`; None where tags say nothing of it."""
    import narwhals.stable.v2 as nw

    claimants = _claimants(question, key)
    if key.startswith("tag:") or (key == "team" and not claimants):
        named = tags.filter(nw.col("key") == nw.lit(key[4:] if key.startswith("tag:") else "team"))
        found = named.group_by("tags").agg(said=nw.col("value").min())
        return found if key != "team" else found.filter(nw.col("said") != nw.lit(""))
    found = by_tags(tags.to_native(), claimants)
    return None if found is None else nw.from_native(found)


def _contexts(
    frames: Mapping[str, Any], question: Question, keys: Sequence[str], made: Boxes, tagged: Mapping[str, Any]
) -> Any:
    """The contexts that fit the question, each with its place and what it says of the keys."""
    import narwhals.stable.v2 as nw

    frame = frames["contexts"].join(frames["places"], on=list(made.on), how="left")
    said = {name: nw.coalesce(nw.col(name), nw.lit("")) for name in ("profile", "named", "named_short")}
    table = frame.with_columns(**said).to_native()
    used = (*keys, *(where.key for where in question.where))
    claims = {
        f"claim_{key}": by_facts(table, _claimants(question, key), key) for key in CLAIMED if key in used
    }
    frame = nw.from_native(table.mutate(**claims))
    for where in question.where:
        if where.key not in tagged and not where.key.startswith("tag:"):
            frame = frame.filter(matches(_said(where.key), where))
    ttl = _has_ttl() & nw.lit(question.assume.get("ttl") == "1h")
    values = {f"key_{i}": _said(key) for i, key in enumerate(keys) if _of_contexts(key)}
    values |= {f"claim_{key}": _said(key) for key in tagged if key in CLAIMED}
    return frame.select("ctx", "place", *made.edges, hangs_ctx=_hangs(question), moves=ttl, **values)


def _claimants(question: Question, key: str) -> Mapping[str, Members]:
    return question.config.teams if key == "team" else question.config.workloads


def _of_contexts(key: str) -> bool:
    return key not in TIME_KEYS and not key.startswith("tag:")


def _said(key: str) -> nw.Expr:
    """What a context says of a key; of a place that the book does not know, what the source said."""
    import narwhals.stable.v2 as nw

    if key in CLAIMED:
        return nw.col(f"claim_{key}")
    if key in SKU_KEYS:
        mode = chosen([(nw.col("mode") == nw.lit(""), nw.lit("on_demand"))], nw.col("mode"))
        source = {"platform": nw.col("platform"), "model": nw.col("model_id"), "mode": mode}
        return nw.coalesce(nw.col(f"sku_{key}"), source.get(key, nw.lit("")))
    if key == "routing":
        return nw.coalesce(nw.col("routing"), nw.lit("unknown"))
    return nw.col(key)


def chosen(cases: Iterable[tuple[nw.Expr, nw.Expr]], otherwise: nw.Expr | None = None) -> nw.Expr:
    """The value of the first case that holds; NULL if none does and nothing is said of that."""
    import narwhals.stable.v2 as nw

    made = nw.lit(None) if otherwise is None else otherwise
    for case, value in reversed(list(cases)):
        made = nw.when(case).then(value).otherwise(made)
    return made


def matches(value: nw.Expr, where: Where) -> nw.Expr:
    """Whether a value is one of those of a filter, in which `[*]` and `[?]` are these signs."""
    import narwhals.stable.v2 as nw

    value = nw.coalesce(value, nw.lit(""))
    found = reduce(or_, (_glob(value, text) for text in where.values))
    return ~found if where.negated else found


def _glob(value: nw.Expr, text: str) -> nw.Expr:
    import narwhals.stable.v2 as nw

    parts = re.split(r"(\[[*?\[]\]|[*?])", glob(text))
    if not any(part in ("*", "?") for part in parts):
        return value == nw.lit("".join(part[1] if part[:1] == "[" else part for part in parts))
    wild = {"*": ".*", "?": ".", "[*]": r"\*", "[?]": r"\?", "[[]": r"\["}
    return value.str.contains(whole("".join(wild.get(part) or re.escape(part) for part in parts)))


def _span(usage: Any, question: Question) -> Any:
    """The rows of the days asked for. Trino rounds times, so where a UTC day will do, its number is looked at."""
    import narwhals.stable.v2 as nw

    usage = usage.select("month", "at", "day", "ctx", "tags", "calls", *METERS)
    since, until = question.span()
    if since > START:
        day = since.time() == time.min
        usage = usage.filter(nw.col("month") >= nw.lit(f"{since:%Y-%m}"))
        usage = usage.filter(nw.col("day") >= (since - EPOCH).days if day else nw.col("at") >= nw.lit(since))
    if until < FOREVER:
        day = until.time() == time.min
        usage = usage.filter(nw.col("month") <= nw.lit(f"{until:%Y-%m}"))
        usage = usage.filter(nw.col("day") < (until - EPOCH).days if day else nw.col("at") < nw.lit(until))
    return usage


def _has_ttl() -> nw.Expr:
    import narwhals.stable.v2 as nw

    return nw.col("assumed").str.contains(rf"(^|,){TTL}(,|\z)")


def _hangs(question: Question) -> nw.Expr:
    """What of the cost hangs on what the source left open, and nobody settled."""
    import narwhals.stable.v2 as nw

    settled = question.assume.get("ttl", "") != ""
    cases = [
        (nw.col("assumed") == nw.lit(""), nw.lit(CERTAIN)),
        (nw.col("assumed") == nw.lit(TTL), nw.lit(CERTAIN if settled else WRITES)),
    ]
    return chosen(cases, nw.lit(ALL))


def _summed(frame: Any, question: Question, keys: Sequence[str], made: Boxes) -> Any:
    """Calls and tokens by keys, place and cell of the book; what was taken back whole is left out."""
    import narwhals.stable.v2 as nw

    frame = frame.with_columns(**made.lines.cell(days=True, prompts=[nw.col(name) for name in made.edges]))
    if question.assume.get("ttl") == "1h":
        moved = nw.when(nw.col("moves")).then(nw.col("cache_write_5m")).otherwise(nw.lit(0))
        frame = frame.with_columns(
            cache_write_5m=nw.col("cache_write_5m") - moved, cache_write_1h=nw.col("cache_write_1h") + moved
        )
    names = [f"key_{i}" for i in range(len(keys))]
    days = {f"key_{i}": _local_day(question) for i, key in enumerate(keys) if key in TIME_KEYS}
    frame = frame.with_columns(all=nw.lit(0), **days)
    by = (*names, "all", "place", "hangs_ctx", "era", "band", "cached")
    found = frame.group_by(*by).agg(**{name: nw.col(name).sum() for name in ("calls", *METERS)})
    return found.filter(reduce(or_, (nw.col(name) != 0 for name in ("calls", *METERS))))


def _local_day(question: Question) -> nw.Expr:
    """`local_day`, but that Ibis adds no interval below zero."""
    import narwhals.stable.v2 as nw

    since, until = question.span()
    found = offsets(question.zone, max(since, _FIRST), min(until, _LAST))
    if not any(offset for _, offset in found):
        return nw.col("day")
    at = nw.col("at")
    cases = [
        (at >= nw.lit(instant), at + nw.lit(offset) if offset >= timedelta(0) else at - nw.lit(-offset))
        for instant, offset in reversed(found)
    ]
    return chosen(cases[:-1], cases[-1][1]).dt.date()


def _dated(table: Any, keys: Sequence[str]) -> Any:
    """Days, weeks and months as `cells` calls them; a UTC day is counted from 1970."""
    import ibis

    for i, key in enumerate(keys):
        if key not in TIME_KEYS:
            continue
        day = table[f"key_{i}"]
        if not day.type().is_date():
            day = ibis.date("1970-01-01") + day.as_interval("D")
        if key == "week":
            day = day.truncate("W")
        table = table.mutate(**{f"key_{i}": day.cast("string").substr(0, 7 if key == "month" else 10)})
    return table


def _priced(frame: Any) -> Any:
    """Each box with what it comes to, in decimals: sums of years do not fit 64 bits."""
    import narwhals.stable.v2 as nw

    wide = {f"wide_{meter}": nw.col(meter).cast(nw.Decimal(38, 0)) for meter in METERS}
    priced = nw.coalesce(nw.col("card"), nw.lit("")) != nw.lit("")
    why = nw.coalesce(nw.col("unpriced"), nw.lit(_UNKNOWN))
    frame = frame.with_columns(**wide).with_columns(picos=columns("wide_") @ columns("rate_"))
    writes = nw.col("wide_cache_write_5m") * nw.col("rate_cache_write_5m")
    hangs = [
        ((nw.col("hangs") == how) | (nw.col("hangs_ctx") == how), cost)
        for how, cost in ((ALL, nw.col("picos")), (WRITES, writes))
    ]
    return frame.with_columns(
        assumed_picos=chosen(hangs),
        unpriced_calls=nw.when(priced).then(nw.lit(0)).otherwise(nw.col("calls")),
        priced=priced.cast(nw.Int64()),
        **{WHY: nw.when(~priced).then(why)},
    )
