"""farthing: what Claude on Amazon Bedrock costs, proved, explained and brought down.

`rate` prices one call, `read` turns usage files into records, `Ledger` keeps them, `Book` holds the prices.
`instrument` meters a boto3 client, `Middleware` one of the anthropic SDK, `LiteLLMCallback` LiteLLM.
`batch.run` answers what may wait at half price. `page` answers as the dashboard does, and shows itself in notebooks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farthing.api import import_paths, read
    from farthing.book import Book
    from farthing.cells import Question
    from farthing.gateway import batch
    from farthing.gateway.hooks import BudgetExceeded, LiteLLMCallback, Middleware, instrument
    from farthing.ledger import Ledger
    from farthing.rating import rate
    from farthing.web.notebook import page

__version__ = "0.1.0"
__all__ = [
    "Book",
    "BudgetExceeded",
    "Ledger",
    "LiteLLMCallback",
    "Middleware",
    "Question",
    "__version__",
    "batch",
    "import_paths",
    "instrument",
    "page",
    "rate",
    "read",
]

_HOMES = {
    "Book": "farthing.book",
    "BudgetExceeded": "farthing.gateway.hooks",
    "LiteLLMCallback": "farthing.gateway.hooks",
    "Middleware": "farthing.gateway.hooks",
    "instrument": "farthing.gateway.hooks",
    "Ledger": "farthing.ledger",
    "Question": "farthing.cells",
    "import_paths": "farthing.api",
    "page": "farthing.web.notebook",
    "rate": "farthing.rating",
    "read": "farthing.api",
}


def __getattr__(name: str) -> Any:  # loaded when first used: `import farthing` stays quick
    import importlib

    if name == "batch":
        return importlib.import_module("farthing.gateway.batch")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'farthing' has no attribute {name!r}")
