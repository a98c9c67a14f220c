"""A bill by any keys: all of its money, in rows that sum to it exactly."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.statement._columns import DETAILS, detail_column, snake
from farthing.statement._usage_type import TOKENS, UNDECODED

if TYPE_CHECKING:
    from farthing.statement import Statement

ACCOUNT = "coalesce(nullif(account, ''), payer)"
PLACE = ("usage_type", "day", ACCOUNT, "negative", "unit", "invoice", "entity", "currency")
_OF_CLASS = ("platform", "model", "endpoint", "mode", "meter", "region")  # as the line was understood
_OF_LINE = {
    "day": "CAST(day AS VARCHAR)", "month": "strftime(day, '%Y-%m')", "usage_type": "usage_type",
    "account": ACCOUNT, "payer": "payer", "invoice": "invoice", "entity": "entity",
    "currency": "currency", "product": "product_name", "line_type": "line_type",
}  # fmt: skip
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


def details_of(keys: Sequence[str]) -> tuple[str, ...]:
    """The columns to be kept for these keys beside the usual ones. ValueError if one of them is none."""
    for key in keys:
        if key not in KEYS and not (key.startswith("tag:") and key[4:]):
            raise ValueError(f"{key!r} is no key of a bill: choose of {', '.join(KEYS)}, tag:NAME")
    return tuple(dict.fromkeys(key for key in keys if key in DETAILS or key.startswith("tag:")))


def grouped(statement: Statement, keys: Sequence[str]) -> list[Group]:
    """All the money of the bill, by these keys and by kind; the largest first."""
    if lacking := set(details_of(keys)) - set(statement.details):
        raise ValueError(f"the bill was read without {', '.join(sorted(lacking))}: name it in `by`")
    _prepare(statement)
    columns = [_expression(statement, key) for key in keys if key not in _OF_CLASS]
    by = ", ".join(["line_type", _IS_FAR, "rate", *columns])
    sums: dict[tuple[tuple[str, ...], str], _Sum] = {}
    for usage in (True, False):
        for number, line_type, is_far, rate, *told, cost, unblended, net, quantity, lines in statement.summed(
            by, usage=usage, joined="LEFT JOIN statement_rates USING (class, day)"
        ):
            of = statement.classes[number]
            kind = (UNDECODED if is_far else of.kind) if usage else snake(line_type) or "untyped"
            if not of.kind or (not usage and statement.is_in_net(kind)):
                continue
            values = iter(told)
            place = tuple(getattr(of, key) if key in _OF_CLASS else next(values) for key in keys)
            tokens = quantity * of.scale if kind == TOKENS else Decimal()
            listed = None if rate is None else tokens * int(rate)
            total = sums.setdefault((place, kind), _Sum())
            total.add(tokens, lines, cost, unblended, net, listed if kind == TOKENS else None)
    found = [total.group(*key) for key, total in sums.items()]
    return sorted(found, key=lambda group: (-group.picos, group.values, group.kind))


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


def _expression(statement: Statement, key: str) -> str:
    return _OF_LINE[key] if key in _OF_LINE else detail_column(statement.details.index(key))


_IS_FAR = (
    f"({', '.join(PLACE)}) IN (SELECT {', '.join(f'c{i}' for i in range(len(PLACE)))} FROM statement_far)"
)


def _prepare(statement: Statement) -> None:
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
