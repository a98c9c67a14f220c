"""Every report: a function from a ledger and a question to a Table, which prints, and is JSON and CSV.

To add one, write one function under `@report` in a file of this folder: it is then a command, and its name is in
`farthing --help`. Files without an underscore in front are found by listing.
"""

from __future__ import annotations

import importlib
import pkgutil

from farthing.reports._convert import ConvertError, described, in_currency
from farthing.reports._table import (
    COMPUTED,
    LIST_VALUE,
    REPORTS,
    Report,
    Table,
    as_json,
    footer,
    hanging,
    heading,
    inert,
    is_amount,
    report,
)
from farthing.reports._under import footer_lines, like, percent
from farthing.reports.bills import OFFER_STEPS, STEPS, bill, layers  # isort: split

from farthing.reports.levers import levers
from farthing.reports.spend import by, daily, monthly, session, weekly  # isort: split - listed in this order

__all__ = [
    "COMPUTED",
    "LIST_VALUE",
    "OFFER_STEPS",
    "REPORTS",
    "STEPS",
    "ConvertError",
    "Report",
    "Table",
    "as_json",
    "bill",
    "by",
    "daily",
    "described",
    "footer",
    "footer_lines",
    "hanging",
    "heading",
    "in_currency",
    "inert",
    "is_amount",
    "layers",
    "levers",
    "like",
    "monthly",
    "percent",
    "report",
    "session",
    "weekly",
]

for _found in sorted(found.name for found in pkgutil.iter_modules(__path__)):
    if _found[0] != "_":
        importlib.import_module(f"{__name__}.{_found}")
