"""A ledger's usage as a frame of Spark: the columns that DuckDB sees, for the expressions that it is asked.

Spark reads the Parquet files that the Delta log names, so a cluster needs no jar that it has not; without Hadoop's
s3a, executors read a bucket themselves (_objects.py). The log, and what rows share (contexts, tag sets), is read here.

What looks at single calls is SQL of DuckDB's (`Ledger.sift`): executors ask their own DuckDBs, of shares of the rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from farthing.aws import SCHEME, AwsError
from farthing.ledger import _objects
from farthing.ledger._objects import Object
from farthing.ledger._tables import USAGE
from farthing.ledger._upgrade import late_columns
from farthing.usage import EPOCH

if TYPE_CHECKING:
    import duckdb

    from farthing.aws import Keys

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
_SAID = re.compile(r"^(?:\w+\.)*AwsError: (.+)$", re.MULTILINE)  # an executor's, in what Spark makes of it


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


def rows(
    session: Any,
    delta: Any,
    since: datetime,
    until: datetime,
    columns: Sequence[str] = (),
    opened: tuple[Keys, str] | None = None,
) -> Any:
    """Usage of the days of [since, until): these columns, or all. ValueError if its files alone do not tell its rows.

    `opened` is what opens a bucket, and how the keys of the table begin.
    """
    if _UNREAD in (delta.protocol().reader_features or ()):
        raise ValueError("the table has deletion vectors, which Spark reads by Delta's own jar only")
    within = [
        ("month", ">=", f"{since:%Y-%m}"), ("month", "<=", f"{until:%Y-%m}"),
        ("day", ">=", (since - EPOCH).days), ("day", "<=", (until - EPOCH).days),
    ]  # fmt: skip
    paths = delta.file_uris(file_pruning_predicate=within)
    wanted = columns or [name for name in USAGE if name != "month"]  # that is in the paths
    kinds = {name: USAGE[name] for name in wanted}
    schema = ", ".join(f"`{name}` {_TYPES[kind]}" for name, kind in kinds.items())
    if not paths:
        return session.createDataFrame([], schema)
    if opened and not _has_s3a(session):
        return _objects.frame(session, opened[0], _files(delta, paths, *opened), kinds, schema)
    found = session.read.schema(schema).parquet(*map(_address, paths))
    late = [name for name in late_columns(delta) if name in kinds]
    return found.fillna("", subset=late) if late else found


def _has_s3a(session: Any) -> bool:
    """Whether Hadoop's jar for S3 is there, or another way under its name. Spark would log a stack of failing."""
    from py4j.protocol import Py4JJavaError

    try:
        settings = session._jsparkSession.sessionState().newHadoopConf()  # noqa: SLF001 - nothing else tells
        session._jvm.org.apache.hadoop.fs.FileSystem.getFileSystemClass("s3a", settings)  # noqa: SLF001
    except Py4JJavaError:
        return False
    except AttributeError:  # a client of Spark Connect, which has no JVM to ask, and runs none of our code
        return True
    return True


def _files(delta: Any, paths: Sequence[str], held: Keys, prefix: str) -> list[Object]:
    """These files of a bucket, with their sizes."""
    actions = delta.get_add_actions(flatten=True)
    sizes = dict(zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True))
    whole = {f"{prefix}{unquote(path)}": size for path, size in sizes.items()}
    keys = [unquote(path).removeprefix(f"{SCHEME}{held.bucket}/") for path in paths]
    return [Object(key, whole[key]) for key in keys]


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
    with _told():
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


def fetched(frame: Any) -> list[tuple[Any, ...]]:
    """The rows of a small frame. OSError if executors cannot read what it is made of."""
    with _told():
        return [tuple(row) for row in frame.collect()]


@contextmanager
def _told() -> Iterator[None]:
    """What S3 said to an executor is one line, without the stacks of three languages."""
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        if said := _SAID.search(str(error)):
            raise AwsError(said[1]) from None
        raise


def _address(uri: str) -> str:
    """A file as Spark calls it, whatever its default file system is."""
    name = unquote(uri)
    if name.startswith(SCHEME):
        return f"s3a://{name.removeprefix(SCHEME)}"
    return name if "://" in name else f"file://{name}"
