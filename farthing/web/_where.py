"""Filters asked of values in memory, as the engine asks them of columns."""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache

from farthing.cells import Where, glob


def fits(where: Where, value: str | None) -> bool:
    """`*` and `?` stand for anything, `[*]` and `[?]` for themselves; what is not there is ""."""
    found = any(_pattern(text).fullmatch(value or "") for text in where.values)
    return found != where.negated


@lru_cache(maxsize=1000)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(translate(glob(text)))
