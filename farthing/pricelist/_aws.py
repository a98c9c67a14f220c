"""The AWS Price List of Bedrock, of one region or of all, from a file or from its address.

Bulk offer files, as JSON or CSV, and what GetProducts answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any
from urllib.parse import urljoin

from farthing.book import Book
from farthing.pricelist._lines import PriceListError, Quote, Reading, Unmatched, read_line
from farthing.pricelist._open import is_url
from farthing.pricelist._shapes import read_document
from farthing.statement._usage_type import Name, by_name

_OFFERS = "AmazonBedrock, AmazonBedrockFoundationModels and AmazonBedrockService"


def read_price_lists(places: Iterable[str], book: Book) -> Reading:
    """All of the offer files as one reading; an index of regions by address stands for the files it names."""
    names = by_name(book)
    whole = Reading("")
    said: list[str] = []
    days: list[date] = []
    for place, document in _documents(places):
        code = _offer_code(place, document)
        before = whole.lines - whole.skipped.total()
        try:
            for line in _lines(document, code, book, names):
                whole.add(line)
        except (AttributeError, TypeError) as error:
            raise PriceListError(f"{place}: not as AWS writes its offer files: {error}") from error
        if whole.lines - whole.skipped.total() == before and not whole.skipped:
            raise PriceListError(f"{place}: no products in it: is it the whole file?")
        said.append(code)
        if day := _published(place, document):
            days.append(day)
    if not (whole.quotes or whole.unmatched):
        raise PriceListError(f"{', '.join(places)}: no price of Claude's tokens in it; they are in {_OFFERS}")
    whole.name = ", ".join(dict.fromkeys(said))
    whole.published = max(days, default=None)
    return whole


def _documents(places: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for place in places:
        document = read_document(place)
        regions = document.get("regions") if isinstance(document, dict) else None
        if not isinstance(regions, dict):
            yield place, document
        elif not is_url(place):
            raise PriceListError(
                f"{place}: an index of regions, no prices: give the files that it names, or its address"
            )
        else:
            for region in regions.values():
                url = urljoin(place, str(region.get("currentVersionUrl", "")))
                yield url, read_document(url)


def _offer_code(place: str, document: Any) -> str:
    products = document.get("products") if isinstance(document, dict) else None
    terms = document.get("terms") if isinstance(document, dict) else None
    if not isinstance(products, dict) or not isinstance(terms, dict):
        raise PriceListError(
            f"{place}: no offer file of the AWS Price List: it has no `products` and `terms`"
        )
    code = str(document.get("offerCode") or "AmazonBedrock")
    if not code.startswith("AmazonBedrock"):
        raise PriceListError(f"{place}: the price list of {code}; Claude's prices are in {_OFFERS}")
    return code


def _published(place: str, document: Mapping[str, Any]) -> date | None:
    said = document.get("publicationDate")
    try:
        return date.fromisoformat(str(said)[:10]) if said else None
    except ValueError as error:
        raise PriceListError(f"{place}: publicationDate {said!r} is no day") from error


def _lines(document: Mapping[str, Any], code: str, book: Book, names: Mapping[Name, str]) -> Iterator[Any]:
    """Each product as `read_line` tells it."""
    terms = document["terms"]
    on_demand, reserved = terms.get("OnDemand") or {}, terms.get("Reserved") or {}
    for sku in sorted({*on_demand, *reserved} - document["products"].keys()):
        yield Unmatched(str(sku), "", "a price without its product")
    for sku, product in document["products"].items():
        said = product.get("attributes") if isinstance(product, dict) else None
        if not isinstance(said, dict) or not said.get("usagetype"):
            yield Unmatched(str(sku), "", "a product without a usage type")
        elif sku not in on_demand and sku in reserved:
            yield "reserved"
        else:
            priced = on_demand.get(sku)
            try:
                yield _line(said, priced, code, book, names)
            except (AttributeError, TypeError) as error:
                yield Unmatched(
                    str(said["usagetype"]),
                    str(said.get("servicename") or ""),
                    f"not as AWS writes it: {error}",
                )


def _line(
    said: Mapping[str, Any], terms: Any, code: str, book: Book, names: Mapping[Name, str]
) -> Quote | Unmatched | str:
    steps = list(_dimensions(terms))
    first = steps[0] if steps else {}
    tier = str(said.get("service_tier") or "")
    line = read_line(
        book,
        names,
        usage_type=said["usagetype"] + (f"-{tier}" if tier else ""),
        product=str(said.get("model") or said.get("servicename") or ""),
        unit=str(first.get("unit") or ""),
        price=str((first.get("pricePerUnit") or {}).get("USD") or ""),
        code=str(said.get("servicecode") or code),
        description=str(first.get("description") or ""),
        region=str(said.get("regionCode") or ""),
    )
    prices = {(str(step.get("unit")), str(step.get("pricePerUnit"))) for step in steps}
    if len(prices) != 1 and not isinstance(line, str):
        why = f"has {len(prices)} prices, by steps" if prices else "its terms have no price"
        return Unmatched(said["usagetype"], str(said.get("servicename") or ""), why)
    return line


def _dimensions(terms: Any) -> Iterator[Mapping[str, Any]]:
    for term in (terms or {}).values():
        yield from (term.get("priceDimensions") or {}).values()
