"""A ledger asked where it lies: SQL for Athena, Trino, Spark or DuckDB, which comes to what `cells` comes to.

The expressions are those that run here, over tables of Ibis, which writes them in the dialect. Nothing is connected to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from farthing.cells import Question, QuestionError, check_key
from farthing.ledger import Ledger
from farthing.ledger._tables import CONTEXTS, TAGS, USAGE
from farthing.warehouse._asked import COUNTS, WHY, asked
from farthing.warehouse._boxes import Boxes, Values, boxes
from farthing.warehouse._claims import session
from farthing.warehouse._ddl import DIALECTS, READ, statements

__all__ = ["DIALECTS", "READ", "Query", "query", "statements"]

_OWN = ("places", "boxes", "cards")  # tables that a query brings along


class Query(NamedTuple):
    """A statement, and the names of its columns: one for each key, then counts and picodollars."""

    sql: str
    columns: tuple[str, ...]


def query(
    ledger: Ledger, question: Question, keys: Sequence[str], dialect: str, database: str = "farthing"
) -> Query:
    """The question by these keys, as one SELECT over the tables of `statements`.

    QuestionError if the ledger is empty. ImportError if Ibis is not there.
    """
    import ibis

    keys = tuple(dict.fromkeys(check_key(key) for key in keys))
    if "meter" in keys:
        raise QuestionError("meter is no key of a query: it has a column for each meter")
    if ledger.days() is None:
        raise QuestionError(f"{ledger.folder} has no usage: nothing tells which models to price")
    made = boxes(ledger, question)
    table = asked(_tables(made, database), question, keys, made)
    names = _names(keys)
    table = table.rename({name: f"key_{i}" for i, name in enumerate(names)})
    table = table.order_by([ibis.desc("picos", nulls_first=True), *names])
    sql = str(ibis.to_sql(table, dialect=DIALECTS[dialect]))
    return Query(_heading(question) + _with_values(sql, made, dialect), (*names, *COUNTS, WHY))


def _heading(question: Question) -> str:
    """What the amounts are, and by which prices: a query is read by those who did not print it."""
    offers = ", ".join(" ".join(offer.name.split()) for offer in question.book.offers)
    return (
        "-- picos: 10^-12 USD, exact. NULL where no call has a price; calls without one: unpriced_calls.\n"
        f"-- Prices: book {question.book.digest}{f'; private offers: {offers}' if offers else ''}\n"
        "-- Of tokens alone: sessions, searches and code run are in `farthing by`.\n"
    )


def _tables(made: Boxes, database: str) -> dict[str, Any]:
    """The ledger's tables and our own, as Ibis knows them by name and types."""
    import ibis

    catalog, _, schema = database.rpartition(".")
    kinds = {"timestamp": "timestamp('UTC', 6)", "bool": "boolean"}

    def stored(name: str, types: dict[str, str]) -> Any:
        schema_ = {column: kinds.get(kind, kind) for column, kind in types.items()}
        return ibis.table(schema_, name=name, catalog=catalog or None, database=schema or None)

    contexts = stored("contexts", CONTEXTS).distinct()  # two writers may both have added one
    own = {name: ibis.table(getattr(made, name).types, name=name) for name in _OWN}
    return {
        "usage": stored("usage", USAGE),
        "contexts": contexts.mutate(**session(contexts.principal)),
        "tags": stored("tags", TAGS).distinct(),
        **own,
    }


def _names(keys: Iterable[str]) -> tuple[str, ...]:
    """Names that every engine takes for a column's: `tag:cost-centre` is tag_cost_centre."""
    names: list[str] = []
    for key in keys:
        plain = re.sub(r"\W", "_", key)
        names.append(plain if plain not in names else f"{plain}_{len(names)}")
    return tuple(names)


def _with_values(sql: str, made: Boxes, dialect: str) -> str:
    """The statement with our tables in front of it, as common table expressions."""
    import sqlglot

    to = {"pyspark": "spark"}.get(DIALECTS[dialect], DIALECTS[dialect])
    parsed = sqlglot.parse_one(sql, read=to)
    there = parsed.args.get("with_")
    parsed.set("with_", None)
    tables = [_cte(name, getattr(made, name), to) for name in _OWN]
    tables += [table.sql(dialect=to, pretty=True) for table in (there.expressions if there else ())]
    return f"WITH {', '.join(tables)}\n{parsed.sql(dialect=to, pretty=True)}"


def _cte(name: str, values: Values, dialect: str) -> str:
    """A table of literals, a line each row. Their types are told: those of literals differ between engines."""
    from sqlglot import exp

    types = {"string": "VARCHAR", "int64": "BIGINT"}
    columns = [
        exp.cast(exp.column(column), types.get(kind, kind)).as_(column).sql(dialect=dialect)
        for column, kind in values.types.items()
    ]
    rows = [exp.tuple_(*map(exp.convert, row)).sql(dialect=dialect) for row in values.rows]
    lines = ",\n".join(rows)
    return (
        f"{name} AS (\nSELECT {', '.join(columns)} FROM (VALUES\n{lines}\n) AS v({', '.join(values.types)}))"
    )
