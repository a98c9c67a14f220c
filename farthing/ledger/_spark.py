"""A ledger's usage as a frame of Spark: the columns that DuckDB sees, for the expressions that it is asked.

Spark reads the Parquet files that the Delta log names, so a cluster needs no jar that it has not. The log, and
what rows share (contexts, tag sets), is read here.

What looks at single calls is SQL of DuckDB's (`Ledger.sift`): executors ask their own DuckDBs, of shares of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from farthing.ledger._tables import USAGE
from farthing.ledger._upgrade import late_columns

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")
R = TypeVar("R")
_TYPES = {
    "string": "string", "timestamp": "timestamp", "bool": "boolean",
    "int8": "tinyint", "int16": "smallint", "int32": "int", "int64": "bigint",
}  # fmt: skip
_OF_DUCK = {
    "BIGINT": "long", "INTEGER": "integer", "SMALLINT": "short", "TINYINT": "byte", "BOOLEAN": "boolean",
    "VARCHAR": "string", "TIMESTAMP WITH TIME ZONE": "timestamp",
}  # fmt: skip
_UNREAD = "deletionVectors"  # a feature of Delta tables that hides rows of a file; no writer of ours uses it


def own_session(session: Any) -> Any:
    """A session beside the caller's, with its settings: but days are of UTC, and a sum that overflows is an error."""
    from pyspark.errors import PySparkException

    own = session.newSession()
    for name, value in session.conf.getAll.items():
        with suppress(PySparkException):  # those of the whole cluster hold anyhow, and cannot be set
            own.conf.set(name, value)
    own.conf.set("spark.sql.session.timeZone", "UTC")
    own.conf.set("spark.sql.ansi.enabled", "true")
    return own


def rows(session: Any, delta: Any, since: datetime, until: datetime) -> Any:
    """The usage of the months of [since, until). ValueError if its files alone do not say what the rows are."""
    if _UNREAD in (delta.protocol().reader_features or ()):
        raise ValueError("the table has deletion vectors, which Spark reads by Delta's own jar only")
    months = [("month", ">=", f"{since:%Y-%m}"), ("month", "<=", f"{until:%Y-%m}")]
    paths = [_address(uri) for uri in delta.file_uris(file_pruning_predicate=months)]
    columns = {name: _TYPES[kind] for name, kind in USAGE.items() if name != "month"}  # that is in the paths
    schema = ", ".join(f"`{name}` {kind}" for name, kind in columns.items())
    late = late_columns(delta)
    if not paths:
        return session.createDataFrame([], schema)
    found = session.read.schema(schema).parquet(*paths)
    return found.fillna("", subset=late) if late else found


def between(usage: Any, since: datetime, until: datetime) -> Any:
    """The rows of [since, until) of a frame."""
    return usage.filter((usage["at"] >= since) & (usage["at"] < until))


def lifted(session: Any, relation: duckdb.DuckDBPyRelation) -> Any:
    """A small relation for every executor to have: rows are joined to it where they lie, and no hot key is moved."""
    from pyspark.sql.functions import broadcast

    return broadcast(session.createDataFrame(relation.fetchall(), _schema(relation)))


def _schema(relation: duckdb.DuckDBPyRelation) -> Any:
    from pyspark.sql.types import StructType

    schema = StructType()
    for name, kind in zip(relation.columns, relation.types, strict=True):
        schema.add(name, _OF_DUCK[str(kind)])
    return schema


def sifted(
    usage: Any,
    name: str,
    query: str,
    together: Sequence[str],
    beside: Mapping[str, duckdb.DuckDBPyRelation],
    like: duckdb.DuckDBPyRelation,
) -> Any:
    """What the executors' DuckDBs find with the query, where shares of a frame have the name; as an Arrow table.

    `like` is an answer of the same columns; `together` are expressions that rows of one share have alike.
    """
    from pyspark.sql.functions import expr

    given = {name: relation.to_arrow_table() for name, relation in beside.items()}
    shares = usage.repartition(*map(expr, together)) if together else usage
    return shares.mapInArrow(partial(_sift, name, query, given), _schema(like)).toArrow()


def _sift(name: str, query: str, beside: Mapping[str, Any], batches: Iterator[Any]) -> Iterator[Any]:
    """On an executor: the query over one share."""
    first = next(batches, None)
    if first is None:
        return
    import duckdb
    from pyarrow import RecordBatchReader

    def given() -> Iterator[Any]:
        yield first
        yield from batches

    con = duckdb.connect(config={"threads": 1})  # as many as Spark gives a task
    con.execute("SET TimeZone = 'UTC'")
    for view, table in beside.items():
        con.register(view, table)
    con.register("share", RecordBatchReader.from_batches(first.schema, given()))
    con.execute(f"CREATE TABLE {name} AS FROM share")  # a query may look twice
    yield from con.sql(query).to_arrow_reader()


def on_executors(session: Any, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What `map` gives, made by the session's executors: a task an item. They need farthing."""
    given = list(items)
    context = session.sparkContext
    return list(context.parallelize(given, len(given)).map(function).collect()) if given else []


def _address(uri: str) -> str:
    """A file as Spark calls it, whatever its default file system is."""
    from urllib.parse import unquote

    if uri.startswith("s3://"):
        return f"s3a://{uri.removeprefix('s3://')}"
    return uri if "://" in uri else f"file://{unquote(uri)}"
