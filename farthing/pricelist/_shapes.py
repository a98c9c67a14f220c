"""The shapes in which AWS hands out one price list: an offer file as JSON or CSV, and what GetProducts answers.

All become the document that the JSON offer file is: `products` and `terms`, by SKU.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from farthing.pricelist._lines import PriceListError
from farthing.pricelist._open import parse_json, read_text

_BEGINS = (
    "formatversion",
    "disclaimer",
    "publicationdate",
    "version",
    "offercode",
)  # of a CSV, before its columns
_NAMES = {"regioncode": "regionCode", "servicetier": "service_tier"}  # of columns that JSON writes otherwise
_TERMS = ("OnDemand", "Reserved")
Document = dict[str, Any]


def read_document(place: str) -> Any:
    """A file or an address, in any of the shapes. PriceListError names the place, the line and the mend."""
    text = read_text(place)
    if text.lstrip().lstrip('"').startswith("FormatVersion"):
        return _of_csv(place, text)
    document = parse_json(place, text)
    if isinstance(document, dict) and isinstance(document.get("PriceList"), list):
        return _of_products(place, document)
    return document


def _of_csv(place: str, text: str) -> Document:
    """Five lines of what the file is, the columns, then a line for each price."""
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    head: dict[str, str] = {}
    columns: list[str] = []
    products: Document = {}
    terms: dict[str, Document] = {name: {} for name in _TERMS}
    try:
        for row in lines:
            if not columns:
                name = row[0].replace(" ", "").lower() if row else ""
                if name in _BEGINS:
                    head[name] = row[-1]
                else:
                    columns = [cell.replace(" ", "").lower() for cell in row]
            elif len(row) != len(columns):
                raise PriceListError(
                    f"{place}:{lines.line_num}: {len(row)} cells for {len(columns)} columns: is it cut?"
                )
            else:
                _add_price(dict(zip(columns, row, strict=True)), lines.line_num, products, terms)
    except (csv.Error, KeyError) as error:
        says = f"no column {error}" if isinstance(error, KeyError) else f"no CSV, or cut short: {error}"
        raise PriceListError(f"{place}:{lines.line_num}: {says}; get it again") from error
    return {
        "offerCode": head.get("offercode"),
        "publicationDate": head.get("publicationdate"),
        "products": products,
        "terms": terms,
    }


def _add_price(
    row: Mapping[str, str], number: int, products: Document, terms: Mapping[str, Document]
) -> None:
    sku = row["sku"]
    said = {_NAMES.get(name, name): value for name, value in row.items() if value}
    products.setdefault(sku, {"attributes": said})
    price = {"unit": row["unit"], "pricePerUnit": {row["currency"]: row["priceperunit"]}}
    price["description"] = row.get("pricedescription", "")
    if (kind := row["termtype"]) in terms:
        term = (
            terms[kind].setdefault(sku, {}).setdefault(row.get("offertermcode", ""), {"priceDimensions": {}})
        )
        term["priceDimensions"][row.get("ratecode") or str(number)] = price


def _of_products(place: str, document: Document) -> Document:
    """Each product is a text of JSON, or JSON already, with its own terms."""
    if document.get("NextToken"):
        raise PriceListError(
            f"{place}: one page of several (it has a NextToken): `aws pricing get-products` asks for all of them"
        )
    whole: Document = {"products": {}, "terms": {name: {} for name in _TERMS}}
    for number, text in enumerate(document["PriceList"], 1):
        said = parse_json(f"{place}: product {number}", text) if isinstance(text, str) else text
        product = said.get("product") if isinstance(said, dict) else None
        if not isinstance(product, dict) or not product.get("sku"):
            raise PriceListError(
                f"{place}: product {number}: not as GetProducts writes it: it has no `product`"
            )
        whole["products"][product["sku"]] = product
        for name in _TERMS:
            if priced := (said.get("terms") or {}).get(name):
                whole["terms"][name][product["sku"]] = priced
        whole["offerCode"] = said.get("serviceCode") or whole.get("offerCode")
        days = [day for day in (said.get("publicationDate"), whole.get("publicationDate")) if day]
        whole["publicationDate"] = max(days, default=None)
    return whole
