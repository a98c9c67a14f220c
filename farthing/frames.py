"""Results as frames: an Arrow table that pyarrow, Polars, pandas and DuckDB all take, made without any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from farthing.money import usd

_SHOWN = 20  # rows in a notebook


class Frame:
    """Columns of a finished result.

    It speaks Arrow's own protocol, so `pyarrow.table(frame)`, `polars.DataFrame(frame)` and DuckDB read it;
    `to_arrow`, `to_polars` and `to_pandas` do so where that library is installed. Amounts are exact dollars,
    decimal(38, 12); None is unpriced.
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        from arro3.core import Table

        self.columns = tuple(columns)
        self.rows = list(rows)
        self._table = Table.from_pydict(
            {name: _column(name, [row[name] for row in rows]) for name in columns}
        )

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<Frame of {len(self):,} rows: {', '.join(self.columns)}>"

    def _repr_html_(self) -> str:
        """For notebooks: the first rows, amounts exact."""
        heads = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join(
            f"<tr>{''.join(_cell(name, row[name]) for name in self.columns)}</tr>"
            for row in self.rows[:_SHOWN]
        )
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table><p>{len(self):,} rows</p>"

    def to_arrow(self) -> Any:
        import pyarrow as pa

        return pa.table(self)

    def to_polars(self) -> Any:
        import polars as pl

        return pl.DataFrame(self)

    def to_pandas(self) -> Any:
        return self.to_arrow().to_pandas()


def _cell(name: str, value: Any) -> str:
    number = isinstance(value, int)
    text = usd(value) if number and name.endswith("usd") else "" if value is None else str(value)
    return f'<td style="text-align:{"right" if number else "left"}">{escape(text)}</td>'


def _column(name: str, values: list[Any]) -> Any:
    from arro3.core import Array, DataType

    if name.endswith("usd"):
        text = [None if value is None else usd(value) for value in values]
        return Array(text, DataType.string()).cast(DataType.decimal128(38, 12))
    if name == "at_us":
        return Array(values, DataType.int64()).cast(DataType.timestamp("us", tz="UTC"))
    if all(value is None or isinstance(value, int) for value in values):
        return Array(values, DataType.int64())
    return Array([None if value is None else str(value) for value in values], DataType.string())
