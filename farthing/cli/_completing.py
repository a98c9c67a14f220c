"""What a shell offers for values that are no fixed choice: keys to group and filter by, models of the book.

Asked for at the press of a key, so neither a ledger nor anything heavy is opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts.completion._engine import CompletionContext


def keys(context: CompletionContext) -> list[str]:
    """After what was typed up to the last comma: every key that is not there yet."""
    from farthing.cells import KEYS, TIME_KEYS

    return _after_comma(context.incomplete, (*KEYS, *TIME_KEYS, "meter", "tag:"))


def filters(context: CompletionContext) -> list[str]:
    from farthing.cells import KEYS

    return [] if "=" in context.incomplete else [f"{key}=" for key in (*KEYS, "tag:")]


def models(_: CompletionContext) -> list[str]:
    from farthing.book import default_book

    return sorted(default_book().models)


def _after_comma(typed: str, names: Iterable[str]) -> list[str]:
    before, comma, _ = typed.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name not in before.split(",")]
