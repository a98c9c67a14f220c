"""Prices kept true: what AWS lists against the book, the book against other catalogues, and the book as data.

Nothing here changes the catalogue. A price list gives an overlay to review: TOML that is laid on a book by whoever
has read it. docs/prices.md tells what each command does with what it cannot read.
"""

from __future__ import annotations

from farthing.pricelist._agreement import live_offers, read_agreements
from farthing.pricelist._aws import read_price_lists
from farthing.pricelist._book import History, Risk, at_risk, differences, history
from farthing.pricelist._catalogues import KINDS, read_catalogue
from farthing.pricelist._check import Checked, check
from farthing.pricelist._compare import Change, Comparison, compare
from farthing.pricelist._export import SCHEMA, as_csv, as_genai, as_json, as_litellm
from farthing.pricelist._lines import PriceListError, Quote, Reading, Unmatched
from farthing.pricelist._overlay import load_book, overlaid
from farthing.pricelist._write import overlay_text

__all__ = [
    "KINDS", "SCHEMA", "Change", "Checked", "Comparison", "History", "PriceListError", "Quote", "Reading", "Risk",
    "Unmatched", "as_csv", "as_genai", "as_json", "as_litellm", "at_risk", "check", "compare", "differences",
    "history", "live_offers", "load_book", "overlaid", "overlay_text", "read_agreements", "read_catalogue",
    "read_price_lists",
]  # fmt: skip
