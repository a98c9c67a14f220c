"""What the parts of a statement ask of the whole."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

from farthing.statement._load import Loaded
from farthing.statement._usage_type import About

if TYPE_CHECKING:
    import duckdb


class Bill(Protocol):
    """A bill that is loaded and whose lines have their classes: a Statement."""

    connection: duckdb.DuckDBPyConnection
    loaded: Loaded
    classes: list[About]

    @property
    def cost(self) -> str: ...
    @property
    def rates(self) -> list[tuple[int, date, int | None]]: ...
    @property
    def far(self) -> list[tuple[Any, ...]]: ...
    def is_in_net(self, kind: str) -> bool: ...
    def classed(self, columns: str, where: str, *values: Any) -> list[tuple[Any, ...]]: ...
