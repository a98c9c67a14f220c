"""Agreement offers: the rates an account has agreed to, as Bedrock's ListFoundationModelAgreementOffers tells them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from farthing.aws import Access, AwsError, explained, session
from farthing.book import Book
from farthing.pricelist._lines import PriceListError, Quote, Reading, Unmatched, read_line
from farthing.pricelist._open import read_json
from farthing.statement._usage_type import by_name

NAME = "agreement offers"
_CODE = re.compile(r"[A-Z]{2,3}\d?(?=_)")
_NONE = (
    "ValidationException",
    "ResourceNotFoundException",
)  # no agreement for this model, or none in this region


def read_agreements(places: Iterable[str], book: Book) -> Reading:
    """Files of answers: one each, or a list of them."""
    found = Reading(NAME)
    for place in places:
        for answer in _answers(place):
            try:
                _add(found, answer, book)
            except (AttributeError, TypeError) as error:
                raise PriceListError(f"{place}: not as Bedrock answers: {error}") from error
    if not (found.quotes or found.unmatched):
        raise PriceListError(f"{', '.join(places)}: no rate of Claude's tokens in its rate cards")
    return found


def live_offers(book: Book, access: Access, models: Iterable[str] = ()) -> Reading:
    """Asked of the account, in one region; of every model of the book that Bedrock offers, if none is named."""
    wanted = list(models) or [
        name for model in book.models.values() for name in model.ids if name.startswith("anthropic.")
    ]
    found = Reading(NAME)
    try:
        bedrock = _client(access)
        for name in wanted:
            _add(found, _ask(bedrock, name, access), book)
    except AwsError as error:
        raise PriceListError(str(error)) from error
    if not (found.quotes or found.unmatched):
        raise PriceListError(
            f"no agreement offers in {access.region or 'this region'} for {len(wanted)} models"
        )
    return found


def _client(access: Access) -> Any:
    made = session(access)
    region = access.region or made.region_name
    if not region:
        raise AwsError("no region to ask for agreement offers in: give --region us-east-1")
    return made.client("bedrock", region_name=region, endpoint_url=access.endpoint_url or None)


def _ask(bedrock: Any, model: str, access: Access) -> Mapping[str, Any]:
    """The answer, without offers where the account has none for the model."""
    try:
        answer: Mapping[str, Any] = bedrock.list_foundation_model_agreement_offers(
            modelId=model, offerType="ALL"
        )
    except Exception as error:
        told = explained(error, "bedrock:ListFoundationModelAgreementOffers", model, access)
        if told.code in _NONE:
            return {"modelId": model, "offers": []}
        raise told from error
    return answer


def _answers(place: str) -> Iterator[Mapping[str, Any]]:
    document = read_json(place)
    answers = document if isinstance(document, list) else [document]
    for answer in answers:
        if not isinstance(answer, dict) or not isinstance(answer.get("offers"), list):
            raise PriceListError(
                f"{place}: no answer of ListFoundationModelAgreementOffers: it has no `offers`"
            )
        if not answer.get("modelId"):
            raise PriceListError(
                f"{place}: an answer without modelId: which model its rates are of is not told"
            )
        yield answer


def _add(found: Reading, answer: Mapping[str, Any], book: Book) -> None:
    """Every rate of every offer; of the same rate in two offers, `compare` sees whether they agree."""
    names = by_name(book)
    for offer in answer["offers"]:
        term = (offer.get("termDetails") or {}).get("usageBasedPricingTerm") or {}
        for row in term.get("rateCard") or ():
            if not isinstance(row, dict) or not row.get("dimension"):
                why = "a row of a rate card without its dimension"
                found.add(Unmatched(repr(row)[:60], str(answer["modelId"]), why))
                continue
            found.add(_line(row, str(answer["modelId"]), book, names))


def _line(row: Mapping[str, Any], model: str, book: Book, names: Any) -> Quote | Unmatched | str:
    dimension = str(row["dimension"])
    code = _CODE.match(dimension)
    line = read_line(
        book,
        names,
        usage_type=f"{code[0]}-MP:{dimension}" if code else f"MP:{dimension}",
        product=model,
        unit=str(row.get("unit") or "Units"),  # it counts millions, with the unit or without
        price=str(row.get("price") or ""),
        description=str(row.get("description") or ""),
    )
    return line if isinstance(line, str) else line._replace(said=dimension)
