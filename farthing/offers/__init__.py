"""Private offers: negotiated rates as TOML, and the book that has them. docs/contracts.md describes the file.

List and contract are two books. `contracted` gives a book whose cards are split at an offer's dates and have its rates
between them, so that rating twice gives the two costs. An offer holds for the accounts it names and from its first day
until its last, half-open, and never from before the day it was signed.

Of several rules that hold for a rate the most specific wins: one that names a model before one that names it by a
pattern, and that before one that names none; then, in the same way, by meter, endpoint, mode and prompt size; of two
that are equally specific an absolute rate wins over a percentage.

Beside rates an offer may have a commitment, whose shortfall is paid, and volume tiers, which give back a share of
what a period's spend has above them. They are of money and not of tokens, so on no card: `farthing.costs` counts them.
"""

from farthing.offers._book import books, contract_book, contracted, made_by, meters_of, split, told_apart
from farthing.offers._offer import (
    ENDPOINTS,
    MONTHS,
    Committed,
    Offer,
    OfferError,
    Rule,
    Volume,
    months_later,
    plain,
)
from farthing.offers._read import load_offers, read_offers

__all__ = [
    "ENDPOINTS",
    "MONTHS", "Committed", "Offer", "OfferError", "Rule", "Volume", "books", "contract_book", "contracted",
    "load_offers", "made_by", "meters_of", "months_later", "plain", "read_offers", "split", "told_apart",
]  # fmt: skip
