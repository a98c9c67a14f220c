"""The ledger's tables, and usage records as their columns."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from operator import getitem, itemgetter
from typing import Any

from farthing.meters import METERS
from farthing.usage import Facts, Total, Usage

USAGE = {
    "month": "string", "at": "timestamp", "day": "int32", "calls": "int8", "reversal": "bool", "part": "int16",
    "ctx": "int64", "tags": "int64", **dict.fromkeys(METERS, "int64"),
    "latency_ms": "int64", "request_id": "string", "message_id": "string", "gateway_id": "string",
    "sidechain": "bool", "also": "string",
}  # fmt: skip
CONTEXTS = {"ctx": "int64", **dict.fromkeys(Facts._fields, "string")}
TAGS = {"tags": "int64", "key": "string", "value": "string"}
FILES = {
    "path": "string", "size": "int64", "mtime_ns": "int64", "format": "string", "at": "timestamp",
    "read": "int64", "rejected": "int64", "reasons": "string", "digest": "string",
}  # fmt: skip
TOTALS = {
    "read_at": "timestamp", "start": "timestamp", "end": "timestamp", "value": "int64",
    **dict.fromkeys(("source", "name", *Total._fields[5:]), "string"),
}  # fmt: skip
ENTRIES = {
    "read_at": "timestamp", "id": "string", "at": "timestamp", "kind": "string", "quantity": "int64",
    "unit": "string", "free": "string", **dict.fromkeys(Facts._fields, "string"),
}  # fmt: skip
FORGOTTEN = {"at": "timestamp", "kind": "string", "digest": "string"}
CLOSINGS = {
    "closing": "string", "number": "int64", "at": "timestamp",
    **dict.fromkeys(("part", "of", "booking", "what", "ref", "kind", "day", "account", "team"), "string"),
    **dict.fromkeys(("platform", "model", "endpoint", "zone", "mode", "meter", "invoice", "card", "said"), "string"),
    "tokens": "int64", "picos": "string",  # a month's tax may not fit 64 bits
}  # fmt: skip
ALERTS = {"at": "timestamp", "event": "string", "channel": "string", "state": "string"}  # what watch has told
TABLES = {
    "totals": TOTALS, "usage": USAGE, "contexts": CONTEXTS, "tags": TAGS, "files": FILES, "forgotten": FORGOTTEN,
    "entries": ENTRIES, "closings": CLOSINGS, "alerts": ALERTS,
}  # fmt: skip
DUCK = {
    "string": "VARCHAR", "timestamp": "TIMESTAMPTZ", "bool": "BOOLEAN",
    "int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
}  # fmt: skip
_NUMBERS = {name for name, kind in USAGE.items() if kind in ("int64", "timestamp") and name != "latency_ms"}
DAY_US = 86_400_000_000
WRITER = "farthing"  # whose transactions writers count, so that of two who commit at once one looks again
_UNLIKE = ("request_id", "message_id")  # hardly any two rows say the same
BETWEEN_IDS = "\n"  # in the column `also`


def statistics(name: str) -> dict[str, str]:
    """The property by which a table's log tells between what times its files lie, and of other columns nothing.

    So it is short, and holds no names.
    """
    if name == "usage":
        return {"delta.dataSkippingStatsColumns": "at,day"}
    return {"delta.dataSkippingNumIndexedCols": "0"}


def written(name: str) -> Any:
    """How a table's data files are written: statistics of texts are most of the work, and no query asks for them."""
    from deltalake import ColumnProperties, WriterProperties

    texts = [column for column, kind in TABLES[name].items() if kind == "string" and column != "month"]
    said = {
        column: ColumnProperties(dictionary_enabled=column not in _UNLIKE, statistics_enabled="NONE")
        for column in texts
    }
    return WriterProperties(compression="ZSTD", column_properties=said)


def arrow(columns: Any, types: dict[str, str]) -> Any:
    """Columns as an Arrow table that DuckDB and Delta read: `timestamp` columns hold microseconds.

    What is no dict of columns speaks Arrow already.
    """
    from arro3.core import Array, DataType, Table

    if not isinstance(columns, dict):
        return Table.from_arrow(columns)

    kinds = {
        "string": DataType.string(), "bool": DataType.bool(), "int8": DataType.int8(),
        "int16": DataType.int16(), "int32": DataType.int32(), "int64": DataType.int64(),
    }  # fmt: skip

    def build(values: Any, kind: str) -> Any:
        if isinstance(values, array):
            built = Array.from_buffer(values)
            return built if kind == "int64" else built.cast(DataType.timestamp("us", tz="UTC"))
        if kind == "timestamp":
            return Array(values, DataType.int64()).cast(DataType.timestamp("us", tz="UTC"))
        return Array(values, kinds[kind])

    return Table.from_pydict({name: build(columns[name], kind) for name, kind in types.items()})


def transposed(rows: Iterable[tuple[Any, ...]], types: dict[str, str]) -> dict[str, Any]:
    """Rows as columns under the names of a table."""
    columns = list(zip(*rows, strict=True)) or [()] * len(types)
    return dict(zip(types, columns, strict=True))


_PARTS = itemgetter(Usage._fields.index("parts"))


class Rows:
    """Usage records as columns of the `usage` table, with the contexts and tag sets they need."""

    def __init__(self) -> None:
        self.columns: dict[str, Any] = {name: array("q") if name in _NUMBERS else [] for name in USAGE}
        self.contexts: dict[Facts, int] = _Codes()
        self.tagsets: dict[tuple[tuple[str, str], ...], int] = _Codes()

    def extend(self, usages: Iterable[Usage], sign: int = 1) -> None:
        """A column at a time, which takes a third of the time of a row at a time."""
        owners = list(usages)
        if not owners:
            return
        places = [0] * len(owners)
        if max(map(len, map(_PARTS, owners))) > 1:
            spread = [(usage, place) for usage in owners for place in range(len(usage.parts))]
            owners, places = map(list, zip(*spread, strict=True))
        at_us, request_ids, message_ids, parts, tags, latency_ms, sidechain, gateway_ids, also = zip(
            *owners, strict=True
        )
        facts, tokens = zip(*map(getitem, parts, places), strict=True)
        days = [at // DAY_US for at in at_us]
        columns = {
            "month": map({day: _month(day) for day in set(days)}.__getitem__, days),
            "at": at_us,
            "day": days,
            "calls": [0 if place else sign for place in places],  # a call is counted once, on its first part
            "reversal": [sign < 0] * len(parts),
            "part": places,
            "ctx": map(self.contexts.__getitem__, facts),
            "tags": [self.tagsets[pairs] if pairs else 0 for pairs in tags],
            "latency_ms": latency_ms,
            "request_id": request_ids,
            "message_id": message_ids,
            "gateway_id": gateway_ids,
            "sidechain": sidechain,
            "also": map(BETWEEN_IDS.join, also),
        }
        for meter, counts in zip(METERS, zip(*tokens, strict=True), strict=True):
            columns[meter] = counts if sign > 0 else [-count for count in counts]
        for name, values in columns.items():
            # Of a list or a tuple an array is made in half the time that it takes to be extended by one.
            self.columns[name].extend(array("q", list(values)) if name in _NUMBERS else values)


class _Codes(dict[Any, int]):
    def __missing__(self, value: Any) -> int:
        code = self[value] = content_code(value)
        return code


_as_json = json.JSONEncoder(ensure_ascii=False).encode


@lru_cache(1 << 15)  # batches of an import share most of their contexts
def content_code(value: Any) -> int:
    """A 63-bit code made from what it stands for, so that writers need not agree on one; never 0."""
    digest = hashlib.blake2b(_as_json(value).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big") >> 1 or 1


def _month(day: int) -> str:
    return f"{datetime.fromtimestamp(day * 86_400, UTC):%Y-%m}"
