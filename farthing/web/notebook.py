"""The dashboard's pages for those who write Python: `farthing.page("why", ledger, to="2026-10")` in a notebook."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.policy import default_path
from farthing.web import _proof, _saving, _usage  # noqa: F401 - they bring the pages
from farthing.web._page import PAGES, Page, PageError, View

if TYPE_CHECKING:
    from farthing.statement import Statement


def page(
    name: str,
    ledger: Ledger,
    question: Question | None = None,
    *,
    now: datetime | None = None,
    statement: Statement | None = None,
    **own: str,
) -> Page:
    """A page of the dashboard: bill, explore, why, reconcile, savings, cache, endpoints, batch, budgets or prices.

    `own` are the page's own parameters, as in its links; `from_` is from, which Python keeps for itself.
    """
    if name not in PAGES:
        raise PageError(f"no page {name!r}: there are {', '.join(sorted(PAGES))}")
    asked = question or Question()
    said = {key.removesuffix("_"): value for key, value in own.items()}
    known = ("from", "to") if name == "why" else PAGES[name].own
    if strange := [key for key in said if key not in known]:
        raise PageError(f"no parameter {strange[0]!r} here: there are {', '.join(known) or 'none'}")
    view = View(
        ledger,
        asked,
        now or datetime.now(UTC),
        statement=lambda: statement,
        policy=str(default_path(asked.config)),
    )
    return PAGES[name].make(view, **said)
