"""A bill by any keys: all of its money, in rows that sum to it exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.statement._columns import AMOUNTS, DETAILS, IS_BAD, detail_column, place, projection, snake
from farthing.statement._files import opened
from farthing.statement._usage_type import TOKENS, UNDECODED

if TYPE_CHECKING:
    import duckdb

    from farthing.statement._bill import Bill
    from farthing.statement._same import Part

ACCOUNT = "coalesce(nullif(account, ''), payer)"
CLASS_BY = ("usage_type", "product_code", "product_name", "unit", "description", "region")
LINES = f"statement_lines JOIN statement_classes USING ({', '.join(CLASS_BY)})"
PLACE = ("usage_type", "day", ACCOUNT, "negative", "unit", "invoice", "entity", "currency", "line_type")
_OF_CLASS = ("platform", "model", "endpoint", "mode", "meter", "region")  # as the line was understood
_OF_LINE = {
    "day": "CAST(day AS VARCHAR)", "month": "strftime(day, '%Y-%m')", "usage_type": "usage_type",
    "account": ACCOUNT, "payer": "payer", "invoice": "invoice", "entity": "entity",
    "currency": "currency", "product": "product_name", "line_type": "line_type",
}  # fmt: skip
CORRECTION = "correction"  # of usage, whose tokens it does not tell
_CORRECTED = "usage_correction"
KEYS = (*_OF_CLASS, *_OF_LINE, *DETAILS)


class Group(NamedTuple):
    """What lines with these values of the keys come to. `kind` is tokens, undecoded, a class beside tokens
    (guardrail ...) or a type of line (credit, tax ...). None is what the bill, or the book, does not tell.
    """

    values: tuple[str, ...]
    kind: str
    tokens: int
    lines: int
    picos: int  # of the cost that was asked for
    unblended_picos: int
    net_picos: int | None
    list_picos: int | None


def is_usage(line_type: str) -> bool:
    return snake(line_type) in ("usage", "discounted_usage", "savings_plan_covered_usage", _CORRECTED)


def is_correction(line_type: str) -> bool:
    """Whether a line of FOCUS corrects usage that was invoiced before."""
    return snake(line_type) == _CORRECTED


def sums(cost: str) -> str:
    """Cost, unblended, net (NULL if it is not told), amount, lines."""
    return (
        f"sum(coalesce({cost}, unblended, 0)), sum(coalesce(unblended, 0)), "
        "if(count(net) = 0, NULL, sum(coalesce(net, unblended, 0))), sum(coalesce(quantity, 0)), sum(lines)"
    )


def grouped(statement: Bill, keys: Sequence[str]) -> list[Group]:
    """All the money of the bill, by these keys and by kind; the largest first."""
    for key in keys:
        if key not in KEYS and not (key.startswith("tag:") and key[4:]):
            raise ValueError(f"{key!r} is no key of a bill: choose of {', '.join(KEYS)}, tag:NAME")
    found: dict[tuple[tuple[str, ...], str], _Sum] = {}
    for number, line_type, is_far, rate, *told, cost, unblended, net, quantity, lines in _rows(
        statement, keys
    ):
        of = statement.classes[number]
        usage = is_usage(line_type)
        kind = (UNDECODED if is_far else of.kind) if usage else snake(line_type) or "untyped"
        if kind == UNDECODED and is_correction(line_type):
            kind = CORRECTION
        if not of.kind or (not usage and statement.is_in_net(kind)):
            continue
        values = iter(told)
        place = tuple(getattr(of, key) if key in _OF_CLASS else next(values) for key in keys)
        tokens = quantity * of.scale if kind == TOKENS else Decimal()
        listed = None if rate is None else tokens * int(rate)
        total = found.setdefault((place, kind), _Sum())
        total.add(tokens, lines, cost, unblended, net, listed if kind == TOKENS else None)
    groups = [total.group(*key) for key, total in found.items()]
    return sorted(groups, key=lambda group: (-group.picos, group.values, group.kind))


class _Sum:
    """Amounts as the bill writes them, so that nothing is rounded before the end."""

    def __init__(self) -> None:
        self._totals: list[Any] = [Decimal(), 0, Decimal(), Decimal(), Decimal(), Decimal()]

    def add(self, *amounts: Any) -> None:
        """None is unknown, and makes the whole unknown."""
        for i, amount in enumerate(amounts):
            known = amount is not None and self._totals[i] is not None
            self._totals[i] = self._totals[i] + amount if known else None

    def group(self, values: tuple[str, ...], kind: str) -> Group:
        tokens, lines, *money, listed = self._totals
        cost, unblended, net = (None if amount is None else int(amount.scaleb(12)) for amount in money)
        whole = None if listed is None else int(listed.to_integral_value())
        return Group(
            values, kind, int(tokens.to_integral_value()), lines, cost or 0, unblended or 0, net, whole
        )


def _rows(statement: Bill, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Class, type, far?, rate, the keys that lines tell, and `sums`. Files are read again for keys that are details."""
    _prepare(statement)
    con = statement.connection
    told = [key for key in keys if key not in _OF_CLASS]
    details = [key for key in told if key not in _OF_LINE]
    base = f"class, line_type, {_IS_FAR} AS is_far, rate"
    lines = f"{LINES} LEFT JOIN statement_rates USING (class, day)"
    if not details:
        columns = ", ".join([base, *(_OF_LINE[key] for key in told), sums(statement.cost)])
        yield from con.execute(f"SELECT {columns} FROM {lines} GROUP BY ALL").fetchall()
        return
    known = "".join(f", {_OF_LINE[key]} AS k{i}" for i, key in enumerate(told) if key in _OF_LINE)
    for number, part in enumerate(statement.loaded.parts):
        names = [f"k{i}" if key in _OF_LINE else _detail(details, key) for i, key in enumerate(told)]
        columns = ", ".join(["class, line_type, is_far, rate", *names, sums(statement.cost)])
        its = f"SELECT place, {base}{known} FROM {lines} WHERE part = {number}"
        con.execute(f"CREATE OR REPLACE TEMP TABLE statement_places AS {its}")
        again = f"({_again(con, number, part, details)}) JOIN statement_places USING (place)"
        yield from con.execute(f"SELECT {columns} FROM {again} GROUP BY ALL").fetchall()


def _again(con: duckdb.DuckDBPyConnection, number: int, part: Part, details: Sequence[str]) -> str:
    """The lines of a part with their details, amounts and the place of the line that they were summed to."""
    told = ", ".join(["place", *map(detail_column, range(len(details))), *AMOUNTS, "lines"])
    if part.export == "cost_explorer":
        tags = ", ".join(f"{_explored(key)} AS {_detail(details, key)}" for key in details)
        return f"SELECT {told} FROM (SELECT *, {tags} FROM statement_lines WHERE part = {number})"
    relation = opened(con, part.source)
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    con.register("statement_file", relation)
    file = f"SELECT {projection(part.export, types, details)} FROM statement_file"
    return f"SELECT {told} FROM (SELECT *, 1 AS lines, {place(number)} AS place FROM ({file}) WHERE NOT {IS_BAD})"


def _detail(details: Sequence[str], key: str) -> str:
    return detail_column(details.index(key))


def _explored(key: str) -> str:
    """A tag of Cost Explorer's answer; it tells no other details."""
    name = json.dumps(key.removeprefix("tag:")).replace("'", "''")
    return f"coalesce(json_extract_string(tags, '$.{name}'), '')" if key.startswith("tag:") else "''"


_IS_FAR = (
    f"({', '.join(PLACE)}) IN (SELECT {', '.join(f'c{i}' for i in range(len(PLACE)))} FROM statement_far)"
)


def _prepare(statement: Bill) -> None:
    """The rate of each class on each day, and the places of lines whose amount was not understood."""
    con = statement.connection
    con.execute("CREATE OR REPLACE TEMP TABLE statement_rates (class INTEGER, day DATE, rate BIGINT)")
    rates = ", ".join(
        f"({number}, DATE '{day}', {'NULL' if rate is None else rate})"
        for number, day, rate in statement.rates
    )
    if rates:
        con.execute(f"INSERT INTO statement_rates VALUES {rates}")
    names = ", ".join(f"c{i}" for i in range(len(PLACE)))
    nothing = ", ".join(f"{expression} AS c{i}" for i, expression in enumerate(PLACE))
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE statement_far AS SELECT {nothing} FROM statement_lines LIMIT 0"
    )
    if far := statement.far:
        marks = ", ".join("?" * len(PLACE))
        con.executemany(f"INSERT INTO statement_far ({names}) VALUES ({marks})", far)
