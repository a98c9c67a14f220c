"""Agreement offers: the rates an account has agreed to, as Bedrock's ListFoundationModelAgreementOffers tells them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from farthing.aws import Access, AwsError, client
from farthing.book import Book
from farthing.pricelist._lines import PriceListError, Reading, Unmatched, read_line
from farthing.pricelist._open import read_json
from farthing.statement._usage_type import by_name

NAME = "agreement offers"


def read_agreements(places: Iterable[str], book: Book) -> Reading:
    """Files of answers: one, a list of them, or `{"offers": {MODEL: answer}}`."""
    return _read(((place, answer) for place in places for answer in _answers(place, read_json(place))), book)


def live_offers(book: Book, access: Access, region: str, models: Iterable[str] = ()) -> Reading:
    """Asked of the account, in one region; of every model of the book that Bedrock offers, if none is named."""
    bedrock = client(access, "bedrock", region)
    wanted = list(models) or [
        name for model in book.models.values() for name in model.ids if name.startswith("anthropic.")
    ]
    return _read(((name, _ask(bedrock, name)) for name in wanted), book)
