"""farthing: what Claude on Amazon Bedrock costs, proved, explained and brought down.

`rate` prices one call, `read` turns usage files into records, `Ledger` keeps them, `Book` holds the prices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farthing.api import read
    from farthing.book import Book
    from farthing.ledger import Ledger
    from farthing.rating import rate

__version__ = "0.1.0"
__all__ = ["Book", "Ledger", "__version__", "rate", "read"]

_HOMES = {
    "Book": "farthing.book",
    "Ledger": "farthing.ledger",
    "rate": "farthing.rating",
    "read": "farthing.api",
}


def __getattr__(name: str) -> Any:  # loaded when first used: `import farthing` stays quick
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'farthing' has no attribute {name!r}")
