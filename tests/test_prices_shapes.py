"""One price list in three shapes: an offer file as JSON or CSV, and what GetProducts answers. All read alike."""

import csv
import io
import json
from pathlib import Path

import pytest

from farthing.book import default_book
from farthing.pricelist import PriceListError, Reading, read_price_lists
from tests.price_lists import OPUS_4_6, OPUS_5, Listed, offer

BOOK = default_book()
ROWS = [
    *OPUS_5,
    *OPUS_4_6,
    Listed("Claude Opus 5", "input", "9", usage_type="USE1-MP:USE1_strange_tokens-Units"),
    Listed("Claude Opus 5", "input", "9", usage_type="USE1-ProvisionedThroughput_ModelUnits_Usage"),
]
COLUMNS = {
    "usageType": "usagetype", "operation": "operation", "Region Code": "regionCode", "serviceName": "servicename",
    "serviceCode": "servicecode", "Location": "location",
}  # fmt: skip


def as_csv(document: dict) -> str:
    """As AWS writes index.csv: five lines of what it is, the columns, a line a price."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    for name, value in (
        ("FormatVersion", "v1.0"), ("Disclaimer", "For information only, until..."),
        ("Publication Date", document["publicationDate"]), ("Version", document["version"]),
        ("OfferCode", document["offerCode"]),
    ):  # fmt: skip
        writer.writerow([name, value])
    prices = (
        "SKU",
        "OfferTermCode",
        "RateCode",
        "TermType",
        "PriceDescription",
        "Unit",
        "PricePerUnit",
        "Currency",
    )
    writer.writerow([*prices, *COLUMNS])
    for sku, terms in document["terms"]["OnDemand"].items():
        attributes = document["products"][sku]["attributes"]
        for code, term in terms.items():
            for rate, price in term["priceDimensions"].items():
                said = [price["description"], price["unit"], price["pricePerUnit"]["USD"], "USD"]
                writer.writerow(
                    [sku, code, rate, "OnDemand", *said, *(attributes[name] for name in COLUMNS.values())]
                )
    return out.getvalue()


def as_products(document: dict, *, text: bool = True) -> dict:
    """As GetProducts answers, whose products are texts of JSON."""
    listed = [
        {
            "product": product, "serviceCode": document["offerCode"], "version": document["version"],
            "publicationDate": document["publicationDate"], "terms": {"OnDemand": document["terms"]["OnDemand"][sku]},
        }
        for sku, product in document["products"].items()
    ]  # fmt: skip
    return {"FormatVersion": "aws_v1", "PriceList": [json.dumps(one) if text else one for one in listed]}


def read(path: Path, content: str) -> Reading:
    path.write_text(content, encoding="utf-8")
    return read_price_lists([str(path)], BOOK)


@pytest.mark.parametrize(
    "shape",
    [as_csv, lambda it: json.dumps(as_products(it)), lambda it: json.dumps(as_products(it, text=False))],
)
def test_every_shape_reads_as_the_offer_file_does(tmp_path, shape):
    document = offer(ROWS)
    wanted = read(tmp_path / "index.json", json.dumps(document))
    assert (len(wanted.quotes), len(wanted.unmatched), wanted.skipped.total()) == (
        len(OPUS_5 + OPUS_4_6),
        1,
        1,
    )
    assert read(tmp_path / "other", shape(document)) == wanted


def test_steps_of_a_price_are_steps_in_csv_too(tmp_path):
    document = offer([Listed("Claude Opus 5", "input", "5.5")])
    (term,) = document["terms"]["OnDemand"]["SKU00000"].values()
    (step,) = term["priceDimensions"].values()
    term["priceDimensions"]["second"] = step | {"pricePerUnit": {"USD": "4.0"}}
    (line,) = read(tmp_path / "index.csv", as_csv(document)).unmatched
    assert line.why == "has 2 prices, by steps"


def test_a_price_without_its_product_is_counted(tmp_path):
    document = offer(OPUS_5)
    del document["products"]["SKU00000"]
    document["terms"]["Reserved"] = {"SKU99999": {}}
    reading = read(tmp_path / "index.json", json.dumps(document))
    assert [(line.said, line.why) for line in reading.unmatched] == [
        ("SKU00000", "a price without its product"), ("SKU99999", "a price without its product"),
    ]  # fmt: skip
    assert reading.lines == len(OPUS_5) + 1


CSV = as_csv(offer(OPUS_5))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (CSV[: len(CSV) // 2], "cut"),
        (CSV.replace(',"Unit"', ',"Units"', 1), "no column 'unit'"),
        (CSV.replace("AmazonBedrockFoundationModels", "AmazonEC2"), "the price list of AmazonEC2"),
        ("\n".join(CSV.splitlines()[:6]), "no products in it"),
        (json.dumps(as_products(offer(OPUS_5)) | {"NextToken": "x"}), "one page of several"),
        (json.dumps({"PriceList": ["{"]}), "product 1:1: the file ends in the middle"),
        (json.dumps({"PriceList": [{"serviceCode": "AmazonBedrock"}]}), "it has no `product`"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line(tmp_path, content, says):
    with pytest.raises(PriceListError, match=says) as error:
        read(tmp_path / "index.csv", content)
    assert str(error.value).startswith(str(tmp_path / "index.csv"))
    assert "\n" not in str(error.value)
