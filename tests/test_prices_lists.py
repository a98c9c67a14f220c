"""Price lists of AWS against the book: what differs, what is passed over, and what is never guessed."""

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from farthing.aws import Access
from farthing.book import default_book
from farthing.pricelist import (
    Comparison,
    PriceListError,
    Reading,
    compare,
    live_offers,
    read_agreements,
    read_price_lists,
)
from farthing.usage import Sku
from tests.price_lists import (
    OPUS_4_6,
    OPUS_5,
    Listed,
    agreement,
    all_meters,
    changed,
    of_rates,
    offer,
    written,
)

BOOK = default_book()
AT = datetime(2026, 11, 20, tzinfo=UTC)
READ = date(2026, 11, 22)

HAIKU_3 = [  # of the older offer, by the thousand tokens
    Listed("Claude 3 Haiku", "input", "0.00025", grammar="native", unit="1K tokens"),
    Listed("Claude 3 Haiku", "output", "0.00125", grammar="native", unit="1K tokens"),
]


def read(tmp_path: Path, *rows: Listed, code: str = "AmazonBedrockFoundationModels") -> Reading:
    return read_price_lists([written(tmp_path / "index.json", offer(rows, code))], BOOK)


def found(tmp_path: Path, *rows: Listed) -> Comparison:
    return compare(BOOK, read(tmp_path, *rows), AT)


def opus(endpoint: str = "regional", mode: str = "on_demand") -> Sku:
    return Sku("bedrock", "claude-opus-5", endpoint, "", mode)


# --- reading -------------------------------------------------------------------------------------------------------


def test_both_grammars_and_the_older_offer_agree_with_the_book(tmp_path: Path):
    places = [
        written(tmp_path / "models.json", offer(OPUS_5 + OPUS_4_6)),
        written(tmp_path / "older.json", offer(HAIKU_3, "AmazonBedrock", "2026-10-01")),
    ]
    reading = read_price_lists(places, BOOK)
    comparison = compare(BOOK, reading, AT)
    assert (reading.lines, len(reading.quotes), reading.unmatched) == (30, 30, [])
    assert (reading.published, reading.name) == (
        date(2026, 11, 20),
        "AmazonBedrockFoundationModels, AmazonBedrock",
    )
    assert (comparison.rates, comparison.equal) == (30, 30)
    assert comparison.of("new", "changed", "undecided") == []


def test_the_published_rates_of_every_model_are_the_books(tmp_path: Path, shared: Path):
    """Of rates.json, made into a list: only batch where no batch was seen is new."""
    comparison = found(tmp_path, *of_rates(shared / "facts" / "rates.json"))
    assert comparison.rates > 300
    assert comparison.absent == []
    assert {change.sku.mode for change in comparison.of("new")} == {"batch"}
    assert comparison.of("changed") == []
    assert {change.sku.zone for change in comparison.of("undecided")} == {"extended"}


@pytest.mark.parametrize(
    ("unit", "usd"),
    [
        ("1M tokens", "5.5"),
        ("Units", "5.5"),
        ("1K tokens", "0.0055"),
        ("1,000 tokens", "0.0055"),
        ("tokens", "0.0000055"),
    ],
)
def test_every_unit_comes_to_the_same_rate(tmp_path: Path, unit: str, usd: str):
    (quote,) = read(tmp_path, Listed("Claude Opus 5", "input", usd, unit=unit)).quotes
    assert quote.rate == 5_500_000


def test_classes_that_are_no_price_of_tokens_are_counted_by_name(tmp_path: Path):
    code = "USE1-MP:USE1_"
    reading = read(
        tmp_path,
        OPUS_5[0],
        Listed("Claude Haiku 4.5", "input", "0.066", usage_type=f"{code}Reserved_1Month_InputTPM_Geo-Units"),
        Listed("Claude 3.7 Sonnet", "input", "158.4", unit="hour",
               usage_type=f"{code}ProvisionedThroughput_1MonthCommit_ModelUnits_Usage-Units"),
        Listed("Claude 3 Haiku", "input", "1.95", usage_type="USE1-Customization-Storage", unit="Month"),
        Listed("Claude 3.5 Haiku", "input", "1", usage_type=f"{code}InputTokenCount_LatencyOptimized-Units"),
        Listed("Llama 4", "input", "1", usage_type=f"{code}InputTokenCount-Units"),
    )  # fmt: skip
    assert reading.skipped == {
        "reserved": 1, "provisioned": 1, "customization": 1, "latency_optimized": 1, "other_model": 1,
    }  # fmt: skip
    assert (len(reading.quotes), reading.unmatched) == (1, [])


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (Listed("Claude Opus 9", "input", "9"), "no model that the book knows"),
        (Listed("Claude Opus 5", "input", "9", usage_type="USE1-MP:USE1_PromptUnits-Units"), "no meter"),
        (
            Listed("Claude Opus 5", "input", "9", usage_type="USE1-MP:USE1_input_tokens_turbo-Units"),
            "'turbo'",
        ),
        (
            Listed("Claude Opus 5", "input", "9", usage_type="USE1-MP:USE1_cache_write_tokens_30m-Units"),
            "'30m'",
        ),
        (Listed("Claude Opus 5", "input", "9", unit="Hours"), "the unit 'Hours'"),
        (Listed("Claude Opus 5", "input", "0"), "unknown is not free"),
        (Listed("Claude Opus 5", "input", "0.0000000001", unit="1M tokens"), "finer than a picodollar"),
    ],
)
def test_what_is_not_understood_is_unmatched_and_never_guessed(tmp_path: Path, row: Listed, why: str):
    reading = read(tmp_path, *OPUS_5, row)
    (line,) = reading.unmatched
    assert why in line.why
    assert len(reading.quotes) == len(OPUS_5)
    assert reading.lines == len(OPUS_5) + 1


def test_a_price_by_steps_is_unmatched(tmp_path: Path):
    document = offer(OPUS_5[:2])
    (term,) = document["terms"]["OnDemand"]["SKU00000"].values()
    (step,) = term["priceDimensions"].values()
    term["priceDimensions"]["more"] = step | {"beginRange": "1000", "pricePerUnit": {"USD": "4"}}
    reading = read_price_lists([written(tmp_path / "index.json", document)], BOOK)
    assert [line.why for line in reading.unmatched] == ["has 2 prices, by steps"]


# --- comparing -----------------------------------------------------------------------------------------------------


def test_changed_new_and_gone(tmp_path: Path):
    rows = [
        row for row in changed(OPUS_5, "0.6", meter="cache_read", endpoint="regional") if row.mode != "batch"
    ]
    rows += all_meters("Claude Opus 4.8", "5.5 27.5 0.55 6.875 11")
    rows += all_meters("Claude Opus 4.8", "2.75 13.75", mode="batch")  # no batch SKU had been seen
    comparison = found(tmp_path, *rows)
    (change,) = comparison.of("changed")
    assert (change.sku, change.meter, change.ours, change.theirs) == (opus(), "cache_read", 550_000, 600_000)
    assert [(c.sku.model, c.sku.mode, c.meter) for c in comparison.of("new")] == [
        ("claude-opus-4-8", "batch", "input"), ("claude-opus-4-8", "batch", "output"),
    ]  # fmt: skip
    gone = {(change.sku.model, change.sku.endpoint, change.sku.mode) for change in comparison.of("gone")}
    assert gone == {
        ("claude-opus-5", "global", "batch"),
        ("claude-opus-5", "regional", "batch"),
        ("claude-opus-4-8", "global", "on_demand"),
    }
    assert "claude-sonnet-4-6" in comparison.absent


def test_what_the_book_only_assumes_is_confirmed_by_a_list(tmp_path: Path):
    comparison = found(tmp_path, *all_meters("Claude Opus 5.5", "2.2 11", mode="batch"))
    assert [change.meter for change in comparison.of("confirmed")] == ["input", "output"]
    assert comparison.equal == 2


def test_regions_that_disagree_are_left_to_a_person(tmp_path: Path):
    rows = [
        *all_meters("Claude Opus 5", "5.5 27.5"),
        Listed("Claude Opus 5", "input", "6", region="eu-west-1"),
    ]
    (change,) = found(tmp_path, *rows).of("undecided")
    assert change.why == "the list disagrees with itself: $5.5 in us-east-1; $6 in eu-west-1"


def test_a_unit_that_was_mistaken_is_left_to_a_person(tmp_path: Path):
    (change,) = found(tmp_path, Listed("Claude Opus 5", "input", "5.5", unit="1K tokens")).of("undecided")
    assert "is the unit right?" in change.why


def test_a_long_prompt_without_a_band_is_left_to_a_person(tmp_path: Path):
    rows = [Listed("Claude Sonnet 4.6", "input", "6.6", long_prompt=True, grammar="camel")]
    (change,) = found(tmp_path, *rows).of("undecided")
    assert "above how many prompt tokens" in change.why


def test_long_prompts_are_compared_with_their_band(tmp_path: Path):
    rows = all_meters("Claude Haiku 5.5", "0.11 0.55 0.011 0.1375 0.22")
    rows += [replace(row, usd=f"{float(row.usd) * 5:.4f}", long_prompt=True) for row in rows]
    assert found(tmp_path, *rows).equal == 10


def test_extended_access_is_not_taken_back_by_a_list_that_lacks_it(tmp_path: Path):
    """Sonnet 3.5 has cost 6 and 30 in these regions since 2025-12-01, and AWS's list still has 3 and 15."""
    comparison = found(tmp_path, *all_meters("Claude 3.5 Sonnet v2", "3 15", grammar="camel"))
    assert comparison.of("changed") == []
    assert {change.why for change in comparison.of("undecided")} == {
        "it is the price of other regions, and the book's is from AWS_PEA"
    }


# --- agreements ----------------------------------------------------------------------------------------------------

HAIKU_ID = "anthropic.claude-haiku-4-5-20251001-v1:0"
HAIKU = all_meters("Claude Haiku 4.5", "1.1 5.5 0.11 1.375 2.2", grammar="camel")


def test_rates_that_an_account_agreed_to(tmp_path: Path):
    cheaper = changed(HAIKU, "4.95", meter="output")
    place = written(tmp_path / "offers.json", agreement(HAIKU_ID, cheaper))
    comparison = compare(BOOK, read_agreements([place], BOOK), AT)
    (change,) = comparison.of("changed")
    assert (change.sku.model, change.meter, change.theirs) == ("claude-haiku-4-5", "output", 4_950_000)
    assert change.said == ("USE1_OutputTokenCount",)
    assert comparison.equal == 4


@contextmanager
def serving(answers: dict[str, bytes], error: str = "ValidationException") -> Iterator[str]:
    """A server of these paths; what it lacks is an error as Bedrock words it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.get(self.path.partition("?")[0])
            self.send_response(200 if body is not None else 400)
            if body is None:
                self.send_header("x-amzn-ErrorType", error)
                body = json.dumps({"message": f"said {error}"}).encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_agreements_are_asked_of_aws(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "made-up")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up")
    path = f"/list-foundation-model-agreement-offers/{HAIKU_ID.replace(':', '%3A')}"
    with serving({path: json.dumps(agreement(HAIKU_ID, HAIKU)).encode()}) as url:
        access = Access(region="us-east-1", endpoint_url=url)
        reading = live_offers(BOOK, access, [HAIKU_ID, "anthropic.claude-opus-5"])
    assert (len(reading.quotes), reading.unmatched) == (5, [])


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("AccessDeniedException", "bedrock:ListFoundationModelAgreementOffers"),
        ("ThrottlingException", "said ThrottlingException"),
    ],
)
def test_a_refusal_of_aws_is_one_line(monkeypatch: pytest.MonkeyPatch, code: str, says: str):
    pytest.importorskip("boto3")
    for name, value in (
        ("ACCESS_KEY_ID", "made-up"),
        ("SECRET_ACCESS_KEY", "made-up"),
        ("MAX_ATTEMPTS", "1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    with serving({}, code) as url, pytest.raises(PriceListError) as error:
        live_offers(BOOK, Access(region="us-east-1", endpoint_url=url), [HAIKU_ID])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_region_must_be_known(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("boto3")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    with pytest.raises(PriceListError, match="give --region"):
        live_offers(BOOK, Access(), [HAIKU_ID])


# --- bad files -----------------------------------------------------------------------------------------------------


def test_an_address_is_read_and_an_index_of_regions_followed():
    listed = {
        "/offers/us-east-1.json": offer(OPUS_5),
        "/offers/eu-west-1.json": offer([replace(row, region="eu-west-1") for row in OPUS_5]),
    }
    index = {"regions": {path[8:-5]: {"currentVersionUrl": path} for path in listed}}
    answers = {path: json.dumps(document).encode() for path, document in listed.items()}
    with serving(answers | {"/region_index.json": gzip.compress(json.dumps(index).encode())}) as url:
        reading = read_price_lists([f"{url}/region_index.json"], BOOK)
    assert {quote.region for quote in reading.quotes} == {"us-east-1", "eu-west-1"}
    assert compare(BOOK, reading, AT).equal == len(OPUS_5)


def test_an_address_that_does_not_answer():
    with serving({}) as url:
        pass
    with pytest.raises(PriceListError, match=r"index\.json: not reached: .*refused"):
        read_price_lists([f"{url}/index.json"], BOOK)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (json.dumps(offer(OPUS_5))[:900].encode(), "the file ends in the middle"),
        (gzip.compress(json.dumps(offer(OPUS_5)).encode())[:200], "cut short"),
        (b"", "no JSON"),
        (b"<html>", "no JSON"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        (b"[1, 2]", "it has no `products` and `terms`"),
        (json.dumps(offer([], "AmazonEC2")).encode(), "the price list of AmazonEC2"),
        (json.dumps(offer([])).encode(), "no products in it"),
        (json.dumps({"regions": {}}).encode(), "an index of regions, no prices"),
        (json.dumps(offer([Listed("Llama 4", "input", "1")])).encode(), "no price of Claude's tokens"),
        (b'{"products": {"a": {}}, "terms": {}, "publicationDate": "soon"}', "is no day"),
        (b'{"products": {"a": {"attributes": {"usagetype": 5}}}, "terms": {"OnDemand": "x"}}', "not as AWS writes its"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "index.json"
    path.write_bytes(content)
    with pytest.raises(PriceListError) as error:
        read_price_lists([str(path)], BOOK)
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "it has no `offers`"),
        ({"offers": []}, "without modelId"),
        ({"modelId": "x", "offers": []}, "no rate of Claude's tokens"),
        ({"modelId": "x", "offers": ["x"]}, "not as Bedrock answers"),
    ],
)
def test_a_bad_agreement_is_one_line(tmp_path: Path, document: object, says: str):
    with pytest.raises(PriceListError, match=says):
        read_agreements([written(tmp_path / "offers.json", document)], BOOK)


def test_a_bad_row_of_a_rate_card_stands_beside_good_ones(tmp_path: Path):
    answer = agreement("anthropic.claude-opus-5", all_meters("Claude Opus 5", "5 25", endpoint="global"))
    answer["offers"][0]["termDetails"]["usageBasedPricingTerm"]["rateCard"][:0] = [{}, "x"]
    reading = read_agreements([written(tmp_path / "offers.json", answer)], BOOK)
    assert (len(reading.quotes), reading.lines) == (2, 4)
    assert [line.said for line in reading.unmatched] == ["{}", "'x'"]


@pytest.mark.parametrize("bad", [["x"], {"a": "x"}, {"a": {"priceDimensions": {"b": {"pricePerUnit": "3"}}}}])
def test_a_bad_product_of_an_offer_stands_beside_good_ones(tmp_path: Path, bad: object):
    document = offer(OPUS_5)
    document["terms"]["OnDemand"]["SKU00000"] = bad
    reading = read_price_lists([written(tmp_path / "index.json", document)], BOOK)
    assert (len(reading.quotes), reading.lines) == (len(OPUS_5) - 1, len(OPUS_5))
    (line,) = reading.unmatched
    assert line.why.startswith("not as AWS writes it: ")


def test_a_file_that_is_not_there():
    with pytest.raises(PriceListError, match="No such file"):
        read_price_lists(["nowhere.json"], BOOK)
