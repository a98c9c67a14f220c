"""What usage comes to beside its list price: by an account's offers, and with what is no token."""

from __future__ import annotations

from farthing.costs._entries import HOUR_MS, SOLD_ON, Due, Rates, due_entries, priced_entries
from farthing.costs._offers import (
    Costed,
    Period,
    by_offers,
    costed,
    due,
    notes,
    off_list,
    off_sentence,
    periods,
    taken_off,
)

__all__ = [
    "HOUR_MS",
    "SOLD_ON",
    "Costed",
    "Due",
    "Period",
    "Rates",
    "by_offers",
    "costed",
    "due",
    "due_entries",
    "notes",
    "off_list",
    "off_sentence",
    "periods",
    "priced_entries",
    "taken_off",
]
