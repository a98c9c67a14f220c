"""The price book by itself: boxes, dated events, sources. Its ids: test_book_ids.py; its rates: test_book_facts.py.

Prices expected here are worked out from published dollars and published multiples.
"""

import csv
import io
import re
import tomllib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.book import ANY_PROMPT, FOREVER, PRICES, Book, Card, Unpriced, default_book, midnight
from farthing.meters import CACHE_METERS, METERS, Vector
from farthing.money import mtok_usd, per_mtok
from farthing.usage import GEOGRAPHIES, MODES, PLATFORMS, Sku

BOOK = default_book()
CARDS = BOOK.cards()
SKUS = sorted({card.sku for card in CARDS})
NOW = datetime(2026, 11, 22, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)

# Prices start with the release; these two start when all prices were cut, as the earlier ones have no source.
PRICED_LATER = {"claude-2.0": date(2023, 11, 21), "claude-instant-1.2": date(2023, 11, 21)}


def sku(path: str) -> Sku:
    """bedrock/claude-opus-5/regional/on_demand, with the zone before the mode where there is one."""
    platform, model, endpoint, *zone, mode = path.split("/")
    return Sku(platform, model, endpoint, zone[0] if zone else "", mode)


def on(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


def found(path: str, at: datetime, prompt: int = 0) -> Card:
    card = BOOK.find(sku(path), at, prompt)
    assert isinstance(card, Card), card.reason
    return card


def reason(path: str, at: datetime = NOW, *, cached: bool = False) -> str:
    found = BOOK.find(sku(path), at, cached=cached)
    assert isinstance(found, Unpriced), f"{path} has a price"
    return found.reason


def dollars(card: Card | Unpriced) -> tuple[Decimal, ...] | None:
    """(input, output, cache read) in dollars per million tokens; None without a price."""
    if isinstance(card, Unpriced):
        return None
    return tuple(
        Decimal(mtok_usd(rate)) for rate in (card.rates.input, card.rates.output, card.rates.cache_read)
    )


def write_book(folder, **files: str) -> Book:
    (folder / "_book.toml").write_text((PRICES / "_book.toml").read_text())
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    return Book.load(folder)


MODEL = """
[{name}]
released = 2026-01-01
ids = [{ids}]
sources = ["GENERAL"]
accessed = 2026-11-22
confidence = "high"
price = [{price}]
[{name}.anthropic]
endpoints = {{ global = 1 }}
"""


def a_model(name: str = "m", ids: str = '"m"', price: str = "{ input = 3, output = 15 }") -> str:
    return MODEL.format(name=name, ids=ids, price=price)


# --- boxes -----------------------------------------------------------------------------------------


def test_cards_never_overlap():
    BOOK.check()


def test_overlaps_and_empty_boxes_are_found(tmp_path):
    overlap = "{ input = 3, output = 15 }, { from = 2026-03-01, input = 4, output = 20 }"
    with pytest.raises(ValueError, match="overlap"):
        write_book(tmp_path, m=a_model(price=overlap)).check()
    with pytest.raises(ValueError, match="empty box"):
        write_book(tmp_path, m=a_model(price="{ to = 2026-01-01, input = 3, output = 15 }")).check()


@pytest.mark.parametrize("one", SKUS, ids=str)
def test_boxes_tile_from_release_for_ever(one: Sku):
    """No gap in time, none in prompt sizes; only fast mode ends."""
    eras = [
        (span, list(cards)) for span, cards in groupby(BOOK.cards(one), lambda card: (card.starts, card.ends))
    ]
    first = PRICED_LATER.get(one.model, BOOK.models[one.model].released)
    assert eras[0][0][0] == midnight(first)
    assert all(before[0][1] == after[0][0] for before, after in pairwise(eras))
    assert eras[-1][0][1] == FOREVER or one.mode == "fast"
    for _, cards in eras:
        assert (cards[0].prompt_from, cards[-1].prompt_to) == (0, ANY_PROMPT)
        assert all(before.prompt_to == after.prompt_from for before, after in pairwise(cards))


@pytest.mark.parametrize("one", SKUS, ids=str)
def test_nothing_has_a_price_before_its_launch(one: Sku):
    starts = BOOK.cards(one)[0].starts
    assert isinstance(BOOK.find(one, starts), Card)
    early = BOOK.find(one, starts - INSTANT)
    assert early == Unpriced(f"{one} has no price before {starts:%Y-%m-%d}")


@given(st.sampled_from(SKUS), st.integers(0, 2_500), st.integers(0, 2_000_000))
def test_a_card_found_is_the_only_one_that_holds(one: Sku, day: int, prompt: int):
    at = on("2023-01-01") + timedelta(days=day)
    holding = [
        card
        for card in CARDS
        if card.sku == one and card.starts <= at < card.ends and card.prompt_from <= prompt < card.prompt_to
    ]
    assert holding in ([BOOK.find(one, at, prompt)], [])


def test_retired_models_keep_their_price():
    retired = [
        m for m in BOOK.models.values() if "retirement" in m.platform("anthropic").get("lifecycle", {})
    ]
    assert len(retired) > 10
    for model in retired:
        assert found(f"anthropic/{model.id}/global/on_demand", on("2030-01-01")).ends == FOREVER


# --- dated events ----------------------------------------------------------------------------------

# SKU, prompt, the day, then (input, output, cache read) before it and from it on; None where there is no price.
EVENTS = [
    ("bedrock/claude-3-5-sonnet-v2/regional/extended/on_demand", 0, "2025-12-01", (3, 15, 0.3), (6, 30, 0.6)),
    ("bedrock/claude-3-5-sonnet-v2/regional/on_demand", 0, "2025-12-01", (3, 15, 0.3), (3, 15, 0.3)),
    ("bedrock/claude-3-5-sonnet-v1/regional/extended/on_demand", 0, "2025-12-01", (3, 15, 0), (6, 30, 0)),
    ("bedrock/claude-3-5-sonnet-v1/regional/extended/batch", 0, "2025-12-01", (1.5, 7.5, 0), (3, 15, 0)),
    ("anthropic/claude-3-5-sonnet-v2/global/on_demand", 0, "2025-12-01", (3, 15, 0.3), (3, 15, 0.3)),
    ("anthropic/claude-sonnet-4/global/on_demand", 200_001, "2025-08-12", (3, 15, 0.3), (6, 22.5, 0.6)),
    ("anthropic/claude-sonnet-4/global/on_demand", 200_001, "2026-04-30", (6, 22.5, 0.6), (3, 15, 0.3)),
    ("anthropic/claude-sonnet-4-5/global/on_demand", 200_001, "2026-04-30", (6, 22.5, 0.6), (3, 15, 0.3)),
    (
        "bedrock/claude-sonnet-4-5/regional/on_demand",
        200_001,
        "2026-04-30",
        (6.6, 24.75, 0.66),
        (3.3, 16.5, 0.33),
    ),
    (
        "anthropic/claude-sonnet-4-6/geo_us/on_demand",
        200_001,
        "2026-03-13",
        (6.6, 24.75, 0.66),
        (3.3, 16.5, 0.33),
    ),
    ("anthropic/claude-sonnet-4-6/global/batch", 200_001, "2026-03-13", (3, 11.25, 0.3), (1.5, 7.5, 0.15)),
    ("claude_aws/claude-opus-4-6/global/on_demand", 200_001, "2026-03-13", (10, 37.5, 1), (5, 25, 0.5)),
    ("bedrock/claude-opus-4-6/global/on_demand", 200_000, "2026-03-13", (5, 25, 0.5), (5, 25, 0.5)),
    ("anthropic/claude-opus-4-6/global/fast", 200_001, "2026-03-13", (60, 225, 6), (30, 150, 3)),
    ("anthropic/claude-opus-4-6/global/fast", 0, "2026-06-29", (30, 150, 3), (5, 25, 0.5)),
    ("anthropic/claude-opus-4-7/global/fast", 0, "2026-07-24", (30, 150, 3), None),
    ("anthropic/claude-opus-4-8/global/fast", 0, "2026-11-30", (10, 50, 1), None),
    ("anthropic/claude-opus-4-8/geo_us/fast", 0, "2026-11-30", (11, 55, 1.1), None),
    ("anthropic/claude-opus-4-8/global/on_demand", 0, "2026-11-30", (5, 25, 0.5), (5, 25, 0.5)),
    ("anthropic/claude-sonnet-5/global/on_demand", 0, "2026-09-01", (2, 10, 0.2), (2, 10, 0.2)),
    ("anthropic/claude-sonnet-5-5/global/on_demand", 0, "2026-10-07", (2, 10, 0.2), (2, 10, 0.1)),
    ("bedrock/claude-sonnet-5-5/regional/on_demand", 0, "2026-10-07", (2.2, 11, 0.22), (2.2, 11, 0.11)),
    ("bedrock/claude-sonnet-5-5/govcloud/on_demand", 0, "2026-10-07", (2.4, 12, 0.24), (2.4, 12, 0.12)),
    ("bedrock/claude-haiku-5-5/global/on_demand", 0, "2026-10-07", None, (0.1, 0.5, 0.01)),
    ("bedrock/claude-fable-5-2/regional/on_demand", 0, "2026-11-09", None, (8.8, 44, 0.22)),
]


@pytest.mark.parametrize(("path", "prompt", "day", "before", "after"), EVENTS)
def test_event(path, prompt, day, before, after):
    """A price holds up to the instant before midnight UTC of the day, the next from that midnight on."""
    for at, expected in ((on(day) - INSTANT, before), (on(day), after)):
        rates = dollars(BOOK.find(sku(path), at, prompt))
        assert rates == (expected and tuple(Decimal(str(rate)) for rate in expected))


@pytest.mark.parametrize(
    ("path", "at", "limit", "below", "above"),
    [
        ("bedrock/claude-haiku-5-5/regional/on_demand", NOW, 100_000, "0.11", "0.55"),
        ("bedrock/claude-haiku-5-5/global/on_demand", NOW, 100_000, "0.10", "0.50"),
        ("anthropic/claude-haiku-5-5/global/batch", NOW, 100_000, "0.05", "0.25"),
        ("anthropic/claude-opus-4-6/global/on_demand", on("2026-03-01"), 200_000, "5", "10"),
        ("anthropic/claude-opus-4-6/global/fast", on("2026-03-01"), 200_000, "30", "60"),
    ],
)
def test_prompt_bands_count_cached_tokens(path, at, limit, below, above):
    """The last token below the limit may be of any kind; one more moves every token of the call, output too."""
    for meter in ("input", *CACHE_METERS):
        small = Vector(
            input=limit - 900, cache_read=300, cache_write_5m=300, cache_write_1h=300, output=10**6
        )
        large = small + Vector(**{meter: 1})
        assert (small.prompt, large.prompt) == (limit, limit + 1)
        assert found(path, at, small.prompt).rates.input == per_mtok(Decimal(below))
        assert found(path, at, large.prompt).rates.input == per_mtok(Decimal(above))


def test_the_cliff_of_haiku_5_5_is_five_times_every_meter():
    for one in (one for one in SKUS if one.model == "claude-haiku-5-5"):
        below, above = (card for card in BOOK.cards(one) if card.starts <= NOW < card.ends)
        assert list(above.rates) == [5 * rate for rate in below.rates]


def test_availability_never_unprices_what_was_billed():
    """A 1h write on a model for which AWS lists 5m writes only."""
    card = found("bedrock/claude-opus-4-1/regional/on_demand", NOW)
    assert card.rates.cache_write_1h == 2 * card.rates.input == 2 * per_mtok(15)


def test_reasons():
    assert reason("bedrock/claude-opus-4-7/global/batch") == (
        "claude-opus-4-7 has no batch SKU on bedrock (price list of 2026-08-20)"
    )
    assert (
        reason("bedrock/claude-opus-5/regional/fast") == "fast mode of claude-opus-5 has no price on bedrock"
    )
    assert "no price on claude_aws" in reason("claude_aws/claude-opus-5/global/fast")
    assert "fast mode of claude-haiku-4-5" in reason("anthropic/claude-haiku-4-5/global/fast")
    assert "since 2026-07-24" in reason("anthropic/claude-opus-4-7/global/fast")
    assert reason("bedrock/claude-opus-4/global/on_demand") == "claude-opus-4 has no global price on bedrock"
    assert reason("bedrock/claude-opus-4-7/govcloud/on_demand").startswith(
        "claude-opus-4-7 has no govcloud price"
    )
    assert (
        reason("anthropic/claude-opus-4-5/geo_us/on_demand")
        == "claude-opus-4-5 has no geo_us price on anthropic"
    )
    assert reason("vertex/claude-opus-5/global/on_demand") == "claude-opus-5 has no price on vertex"
    assert reason("bedrock/claude-opus-5/global/flex") == "no price is published for Claude in mode 'flex'"
    assert "Bedrock batch" in reason("bedrock/claude-sonnet-4-6/global/batch", cached=True)
    assert "cached tokens of claude-3-haiku" in reason(
        "bedrock/claude-3-haiku/regional/on_demand", cached=True
    )
    assert "nearest known ids are claude-opus-5" in reason("bedrock/claude-opus-55/global/on_demand")


# --- sources ---------------------------------------------------------------------------------------

SOURCES = BOOK.defaults["sources"]
DISPUTES = tomllib.loads((PRICES / "_disputed.toml").read_text(encoding="utf-8"))["dispute"]


def test_every_source_says_what_it_is():
    for key, source in SOURCES.items():
        assert source.keys() == {"what", "date", "trust"}, key
        assert source["trust"] in ("primary", "good", "secondary"), key
        assert source["date"] <= max(card.accessed for card in CARDS), key


def test_every_card_reaches_its_source():
    for card in CARDS:
        assert set(card.source.split(", ")) <= SOURCES.keys(), card.id
        assert isinstance(card.accessed, date), card.id
        assert card.accessed >= min(SOURCES[key]["date"] for key in card.source.split(", ")), card.id
        assert card.confidence in ("high", "medium", "disputed"), card.id


@pytest.mark.parametrize("model", BOOK.models.values(), ids=lambda model: model.id)
def test_every_model_is_whole(model):
    data = model.data
    assert data["name"].startswith("Claude ")
    assert data["tokenizer"] in ("v1", "v2")
    assert data["context_tokens"] in (100_000, 200_000, 1_000_000)
    assert model.id in model.ids
    assert data["confidence"] in ("high", "medium", "disputed")
    sources = {*data["sources"], data.get("released_source", "GENERAL")}
    for platform in ("anthropic", "bedrock"):
        offered = data[platform]
        assert offered["batch"] in ("sku", "unknown", "none")
        assert offered.get("batch_source") or offered["batch"] == "sku"
        rows = offered.get("min_cacheable", [])
        starts = [row.get("from", model.released) for row in rows]
        assert starts == sorted({model.released, *starts})[: len(rows)]
        sources |= {row["source"] for row in rows}
        sources |= {text for key, text in offered.get("lifecycle", {}).items() if key == "source"}
    assert sources <= SOURCES.keys()
    profiles, claimed = data["bedrock"]["profiles"], data["bedrock"].get("profiles_claimed", [])
    assert len({*profiles, *claimed}) == len(profiles) + len(claimed)
    assert {*profiles, *claimed} <= {"global", *GEOGRAPHIES}
    assert ("global" in profiles) == ("global" in data["bedrock"]["endpoints"])


def test_disputes_are_told():
    for dispute in DISPUTES:
        assert dispute.keys() == {"question", "models", "says", "chosen", "why"}
        assert dispute["says"].keys() <= SOURCES.keys(), dispute["question"]
        assert set(dispute["models"]) <= BOOK.models.keys(), dispute["question"]
    told = {model for dispute in DISPUTES for model in dispute["models"]}
    assert {card.sku.model for card in CARDS if card.confidence == "disputed"} <= told
    assert {model.id for model in BOOK.models.values() if model.data["bedrock"]["batch"] == "unknown"} <= told


def test_govcloud_rests_on_one_source():
    assert {card.confidence for card in CARDS if card.sku.endpoint == "govcloud"} == {"medium"}


@pytest.mark.parametrize(
    "model",
    ["claude-sonnet-4", "claude-sonnet-4-5", "claude-sonnet-4-6", "claude-opus-4-6", "claude-sonnet-5-5"],
)
def test_dates_taken_over_from_the_direct_api_are_less_certain_on_bedrock(model):
    for one in (one for one in SKUS if one.model == model and one.mode != "fast"):
        *ended, current = [card for card in BOOK.cards(one) if card.starts >= on("2025-08-12")]
        assert {card.confidence for card in ended} == {"medium" if one.platform == "bedrock" else "high"}
        assert current.confidence == ("medium" if one.endpoint == "govcloud" else "high")


def test_assumed_batch_rates():
    assumed = {(card.sku.platform, card.sku.model) for card in CARDS if "batch_rate" in card.assumed}
    unknown = {
        (platform, model.id)
        for model in BOOK.models.values()
        for platform in PLATFORMS
        if model.platform(platform).get("batch") == "unknown"
    }
    govcloud = {
        (c.sku.platform, c.sku.model) for c in CARDS if (c.sku.endpoint, c.sku.mode) == ("govcloud", "batch")
    }
    assert assumed == unknown | govcloud
    assert ("anthropic", "claude-mythos-preview") in unknown
    assert {card.sku.mode for card in CARDS if card.assumed} == {"batch"}


# --- what else the catalogue knows -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "platform", "day", "tokens"),
    [
        ("claude-opus-4-8", "bedrock", "2026-08-31", 4096),
        ("claude-opus-4-8", "bedrock", "2026-09-01", 1024),
        ("claude-opus-4-8", "anthropic", "2026-05-28", 1024),
        ("claude-sonnet-4-5", "bedrock", "2026-08-31", 4096),
        ("claude-sonnet-4-5", "bedrock", "2026-09-01", 1024),
        ("claude-sonnet-4-6", "anthropic", "2026-02-26", 1024),
        ("claude-sonnet-4-6", "anthropic", "2026-02-27", 2048),
        ("claude-sonnet-4-6", "claude_aws", "2026-05-13", 2048),
        ("claude-sonnet-4-6", "claude_aws", "2026-05-14", 1024),
        ("claude-opus-4-7", "anthropic", "2026-06-08", 4096),
        ("claude-opus-4-7", "anthropic", "2026-06-09", 2048),
        ("claude-opus-4-7", "bedrock", "2026-11-22", 4096),
        ("claude-fable-5", "bedrock", "2026-06-09", 1024),
        ("claude-fable-5", "bedrock", "2026-08-31", 1024),
        ("claude-fable-5", "bedrock", "2026-09-01", 512),
        ("claude-mythos-5", "bedrock", "2026-08-31", 1024),
        ("claude-mythos-5", "bedrock", "2026-09-01", 512),
        ("claude-mythos-preview", "anthropic", "2026-06-08", 4096),
        ("claude-mythos-preview", "anthropic", "2026-06-09", 2048),
        ("claude-fable-5-2", "bedrock", "2026-11-22", None),
        ("claude-opus-4-8", "bedrock", "2026-05-27", None),
    ],
)
def test_cache_minimum(model, platform, day, tokens):
    assert BOOK.models[model].cache_minimum(platform, date.fromisoformat(day)) == tokens


def test_fast_is_sold_by_anthropic_alone():
    assert {one.platform for one in SKUS if one.mode == "fast"} == {"anthropic"}
    assert {one.mode for one in SKUS} == set(MODES)


def test_the_card_tells_how_it_came_about():
    card = found("bedrock/claude-haiku-4-5/regional/batch", NOW)
    assert card.factors == "list input 1 / output 5 x 1.1 regional x 0.5 batch"
    fast = found("anthropic/claude-opus-5-5/global/fast", NOW)
    assert fast.factors.startswith("list input 8 / output 40 / cache_read 0.4 / cache_write_5m 10")


# --- a book of one's own ---------------------------------------------------------------------------


def test_a_models_own_multiples_and_a_band_that_overrules(tmp_path):
    price = "{ input = 3, output = 15, bands = [{ over = 10, input = 6, output = 20, cache_read = 1 }] }"
    text = a_model(price=price) + "[m.factors]\ncache_read = 0.5\n"
    book = write_book(tmp_path, m=text)
    low, high = book.cards(Sku("anthropic", "m", "global", "", "on_demand"))
    assert (low.rates.cache_read, low.rates.cache_write_5m) == (per_mtok(3) // 2, per_mtok(Decimal("3.75")))
    assert (high.rates.cache_read, high.rates.cache_write_5m) == (per_mtok(1), per_mtok(Decimal("7.5")))
    assert book.digest != BOOK.digest


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no _book\.toml"):
        Book.load(tmp_path)
    with pytest.raises(ValueError, match="claimed by m and n"):
        write_book(tmp_path, m=a_model(), n=a_model(name="n"))
    (tmp_path / "n.toml").write_text(a_model(ids='"o"'))
    with pytest.raises(ValueError, match="m is in another file already"):
        Book.load(tmp_path)
    (tmp_path / "n.toml").write_text("[m\n")
    with pytest.raises(ValueError, match=r"n\.toml"):
        Book.load(tmp_path)
    (tmp_path / "n.toml").unlink()
    with pytest.raises(ValueError, match="no whole number of picodollars"):
        write_book(tmp_path, m=a_model(price="{ input = 3.0000001, output = 15 }")).cards()


# --- the whole book, to be read --------------------------------------------------------------------


def flat() -> str:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["sku", "starts", "ends", "prompt_from", "prompt_to", *METERS, "confidence", "source"])
    for card in CARDS:
        rates = [
            mtok_usd(r) if card.cached or m not in CACHE_METERS else ""
            for m, r in zip(METERS, card.rates, strict=True)
        ]
        ends = "" if card.ends == FOREVER else f"{card.ends:%Y-%m-%d}"
        prompt_to = "" if card.prompt_to == ANY_PROMPT else card.prompt_to
        starts = f"{card.starts:%Y-%m-%d}"
        rows.writerow(
            [card.sku, starts, ends, card.prompt_from, prompt_to, *rates, card.confidence, card.source]
        )
    return out.getvalue()


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[[m.price]]\ninput = 3\noutput = 15\ncache_raed = 0.3\n", 4, "'cache_raed'; did you mean `cache_read`?"),
        ("[[m.price]]\ninput = 3\n\nbands = [{ over = 1, inputs = 2 }]\n", 4, "'inputs'; did you mean `input`?"),
        ("[m.bedrock.endpoints]\nglobal = 1\nregionl = 1\n", 3, "'regionl'; did you mean `regional`?"),
        ("[m]\ntokenzier = 'v1'\n", 2, "did you mean `tokenizer`?"),
        ("[m.bedrock.zones.west]\nregoins = []\n", 2, "did you mean `regions`?"),
        ("[m.vertex]\n", 1, "unknown key 'vertex'; known here are "),
    ],
)  # fmt: skip
def test_a_key_that_nobody_reads_is_an_error_and_its_line_is_told(tmp_path, text, line, says):
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"m.toml:{line}: m: ")) as error:
        Book.load(tmp_path)
    assert says in str(error.value)


def test_the_whole_book(golden):
    golden("tests/golden/book.csv", flat())
