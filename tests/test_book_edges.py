"""Edges of the book that no real price has reached: each test notices a change that others let pass."""

import re
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from farthing import book as module
from farthing.book import ANY_PROMPT, PRICES, START, Book, Card, Resolved, Unpriced, default_book
from farthing.meters import CACHE_METERS
from farthing.usage import Facts, Sku

BOOK = default_book()
M = Sku("anthropic", "m", "global", "", "on_demand")
OPUS = "claude-opus-5"
YEAR = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MODEL = """
[m]
released = 2026-01-01
ids = ["m"]
sources = ["GENERAL"]
accessed = 2026-11-22
confidence = "high"
price = [{}]
[m.anthropic]
endpoints = {{ global = 1 }}
"""


def made(folder, text: str) -> Book:
    (folder / "_book.toml").write_text((PRICES / "_book.toml").read_text())
    (folder / "m.toml").write_text(text)
    return Book.load(folder)


def resolved(*asked, **said) -> Resolved:
    found = BOOK.resolve(*asked, **said)
    assert isinstance(found, Resolved), found
    return found


# --- boxes -----------------------------------------------------------------------------------------


def test_time_begins_before_all_prices_and_prompts_end_with_what_a_column_holds():
    assert datetime.min.replace(tzinfo=UTC) == START
    assert np.iinfo(np.int64).max == ANY_PROMPT


def test_a_prompt_may_have_any_size(tmp_path):
    book = made(
        tmp_path, MODEL.format("{ input = 3, output = 15, bands = [{ over = 0, input = 6, output = 30 }] }")
    )
    none, some = book.cards(M)
    assert book.find(M, YEAR) == book.find(M, YEAR, 0) == none
    for size in (1, ANY_PROMPT - 1, ANY_PROMPT, ANY_PROMPT + 1, 10**30):
        assert book.find(M, YEAR, size) == some
    assert some.id == f"{M}@2026-01-01>0"


def test_three_bands_tile(tmp_path):
    bands = "{ over = 10, input = 6, output = 30 }, { over = 20, input = 9, output = 45 }"
    cards = made(tmp_path, MODEL.format(f"{{ input = 3, output = 15, bands = [{bands}] }}")).cards(M)
    assert [(card.prompt_from, card.prompt_to) for card in cards] == [(0, 11), (11, 21), (21, ANY_PROMPT)]


def box(days: tuple[int, int], prompts: tuple[int, int]) -> Card:
    card = BOOK.cards()[0]
    starts, ends = (YEAR + day * DAY for day in days)
    return replace(
        card,
        id=f"{days} {prompts}",
        sku=M,
        starts=starts,
        ends=ends,
        prompt_from=prompts[0],
        prompt_to=prompts[1],
    )


def of(*cards: Card) -> Book:
    return replace(BOOK, models={"m": BOOK.models[OPUS]}, _ids={}, _cards={"m": {M: [*cards]}})


ONE = box((10, 20), (100, 200))


@pytest.mark.parametrize(
    "beside", [((0, 10), (100, 200)), ((20, 30), (100, 200)), ((10, 20), (0, 100)), ((10, 20), (200, 300))]
)
def test_boxes_that_touch_do_not_overlap(beside):
    of(ONE, box(*beside)).check()


@pytest.mark.parametrize(
    "other", [((9, 11), (0, 101)), ((19, 21), (199, 300)), ((12, 13), (120, 130)), ((0, 30), (0, 300))]
)
def test_boxes_with_a_common_corner_overlap(other):
    far = box((40, 50), (0, 10))
    for cards in ((ONE, box(*other)), (ONE, far, box(*other)), (far, ONE, box(*other))):
        with pytest.raises(ValueError, match="overlap"):
            of(*cards).check()


@pytest.mark.parametrize("empty", [((10, 10), (100, 200)), ((10, 20), (100, 100))])
def test_a_box_without_a_day_or_a_size_is_empty(empty):
    with pytest.raises(ValueError, match="empty box"):
        of(box(*empty)).check()


def test_a_card_tells_of_no_factor_that_changes_nothing(tmp_path):
    (card,) = made(tmp_path, MODEL.format("{ input = 3, output = 15 }")).cards(M)
    assert (
        card.factors == "list input 3 / output 15 / cache_read 0.3 / cache_write_5m 3.75 / cache_write_1h 6"
    )


def test_a_price_that_ended_is_told_from_one_between_prices(tmp_path):
    first = "{ to = 2026-02-01, input = 3, output = 15 }"
    second = "{ from = 2026-03-01, to = 2026-04-01, input = 4, output = 20 }"
    book = made(tmp_path, MODEL.format(f"{first}, {second}"))
    assert book.find(M, YEAR - DAY) == Unpriced(f"{M} has no price before 2026-01-01")
    assert book.find(M, YEAR + 40 * DAY) == Unpriced(f"{M} has no price on 2026-02-10")
    for late in (0, 1):
        said = book.find(M, datetime(2026, 4, 1, tzinfo=UTC) + late * DAY)
        assert said == Unpriced(f"{M} has had no price since 2026-04-01")


def test_what_all_calls_share_cannot_be_changed():
    for shared in (BOOK.cards()[0], BOOK.models[OPUS]):
        with pytest.raises(FrozenInstanceError):
            setattr(shared, "id", "another")  # noqa: B010 - mypy knows that it is frozen


def test_what_has_no_rate_for_cached_tokens_has_none_on_its_card():
    cards = [card for card in BOOK.cards() if not card.cached]
    assert cards
    assert {getattr(card.rates, meter) for card in cards for meter in CACHE_METERS} == {0}
    assert all("cache" not in card.factors for card in cards)


# --- ids -------------------------------------------------------------------------------------------


def test_an_account_with_terms_of_its_own_has_a_sku_of_its_own():
    public = BOOK.place(Facts("x", model_id=OPUS, account="1"))
    book = replace(BOOK, terms={"1": "ours"}, public=BOOK)
    ours = book.place(Facts("x", model_id=OPUS, account="1"))
    assert isinstance(public, Resolved)
    assert ours == public._replace(sku=public.sku._replace(terms="ours"))
    assert book.place(Facts("x", model_id=OPUS, account="2")) == public
    assert isinstance(book.place(Facts("x", model_id="claude-9", account="1")), Unpriced)
    assert book.listed is BOOK
    assert BOOK.listed is BOOK


def test_terms_have_prices_of_their_own_where_the_book_knows_them():
    public, ours = box((0, 30), (0, 300)), replace(box((0, 30), (0, 300)), sku=M._replace(terms="ours"))
    book = of(public)
    book._cards["m"][ours.sku] = [ours]
    assert [book.find(M._replace(terms=terms), YEAR) for terms in ("", "ours", "theirs")] == [
        public,
        ours,
        public,
    ]
    assert book.cards(ours.sku) == [ours]


def test_ids_without_end_fill_no_memory(monkeypatch):
    monkeypatch.setattr(module, "MOST_RESOLVED", 3)
    book = replace(BOOK, _resolved={})
    for i in range(8):
        book.resolve(f"claude-{i}")
        assert len(book._resolved) <= 3
    assert book.resolve("claude-7") is book.resolve("claude-7")


def test_an_answer_is_worked_out_once():
    book = replace(BOOK, _resolved={})
    assert book.resolve(OPUS) is book.resolve(OPUS)


def test_who_asks_for_nothing_special_gets_what_the_id_says():
    assert resolved("eu.anthropic.claude-opus-5", assume={"endpoint": "global"}).sku.endpoint == "regional"
    assert resolved("anthropic.claude-opus-5", region="us-gov-west-1").sku.endpoint == "govcloud"
    assert resolved("us-gov.anthropic.claude-opus-5").sku.endpoint == "govcloud"
    direct = resolved(OPUS, assume={"inference_geo": "us"})
    assert (direct.sku.platform, direct.sku.endpoint) == ("anthropic", "geo_us")
    assert resolved(OPUS, inference_geo="global", assume={"inference_geo": "us"}).sku.endpoint == "global"
    assert resolved(OPUS, platform="bedrock", assume={"endpoint": "eu"}).routing == "geo:eu"
    assert resolved(OPUS, platform="bedrock", mode="batch").sku.mode == "batch"
    assert resolved(OPUS, platform="bedrock").routing == "unknown"


@pytest.mark.parametrize("asked", [{"assume": {"region": "eu-north-1"}}, {"region": "eu-north-1"}])
def test_a_region_settles_the_zone_whoever_tells_it(asked):
    found = resolved("eu.anthropic.claude-3-5-sonnet-20240620-v1:0", **asked)
    assert (found.sku.zone, found.assumed) == ("", ())


def test_of_the_near_ids_three_are_named():
    said = BOOK.resolve("claude-opus-9")
    assert isinstance(said, Unpriced)
    assert len(said.reason.partition("nearest known ids are ")[2].split(", ")) == 3


def test_what_a_mode_lacks_is_not_blamed_on_batch():
    """No batch SKU is a reason for a batch alone."""
    without = [model.id for model in BOOK.models.values() if model.platform("bedrock").get("batch") == "none"]
    assert without
    for name in without:
        said = BOOK.find(Sku("bedrock", name, "geo_eu", "", "on_demand"), YEAR)
        assert said == Unpriced(f"{name} has no geo_eu price on bedrock")
    said = BOOK.find(Sku("anthropic", OPUS, "geo_eu", "", "batch"), YEAR)
    assert said == Unpriced(f"{OPUS} has no geo_eu price on anthropic in batch mode")


def test_a_model_that_a_platform_does_not_have(tmp_path):
    book = made(tmp_path, MODEL.format("{ input = 3, output = 15 }"))
    for platform in ("bedrock", "vertex"):
        assert book.find(M._replace(platform=platform), YEAR) == Unpriced(f"m has no price on {platform}")


# --- TOML ------------------------------------------------------------------------------------------


def test_a_digest_is_short():
    assert re.fullmatch("[0-9a-f]{12}", BOOK.digest)


@pytest.mark.parametrize(
    ("price", "says"),
    [
        ("{ output = 15 }", "a price without `input`, from the release"),
        ("{ from = 2026-02-01, input = 3 }", "a price without `output`, from 2026-02-01"),
        ("{}", "a price without `input`, from the release"),
        ("{ input = 3 }]\nfactors = { output = 5", "a price without `output`, from the release"),
    ],
)
def test_a_price_has_input_and_output(tmp_path, price, says):
    with pytest.raises(ValueError, match=says):
        made(tmp_path, MODEL.format(price).replace("5]", "5}")).cards()


def test_a_meter_that_no_multiple_is_known_of_is_not_free(tmp_path):
    book = made(tmp_path, MODEL.format("{ input = 3, output = 15 }"))
    usual = {name: by for name, by in book.defaults["factors"]["meter"].items() if name != "cache_read"}
    factors = {**book.defaults["factors"], "meter": usual}
    with pytest.raises(ValueError, match="a price without `cache_read`, from the release"):
        replace(book, defaults={**book.defaults, "factors": factors}, _cards={}).cards()


def test_a_rate_of_parts_of_a_picodollar_is_told_as_it_was_written(tmp_path):
    with pytest.raises(
        ValueError, match="@2026-01-01: 30000001/10000000 is no whole number of picodollars a token"
    ):
        made(tmp_path, MODEL.format("{ input = 3.0000001, output = 15 }")).cards()


@pytest.mark.parametrize(
    ("text", "line"),
    [("[m", 1), ("a = [", 1), ("\n\na = [", 3), ("\na = 1\nb = = 2\n", 3), ("a = " + "[" * 5_000, 1)],
)
def test_where_toml_breaks_is_told(tmp_path, text, line):
    with pytest.raises(ValueError, match=re.escape(f"m.toml:{line}: ")):
        made(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# of m\n[x]\nname = 'nmae = '\n[m]\nnmae = 'x'\n", 5),
        ("# nmae = 1\n[m]\nnmae = 'x'\n", 3),
        ("m = { nmae = 'x' }\n", 1),
    ],
)
def test_the_line_of_a_key_is_looked_for_under_its_model(tmp_path, text, line):
    """Not in a comment above, nor at another model's."""
    with pytest.raises(ValueError, match=f"m.toml:{line}: m: unknown key 'nmae'; did you mean `name`"):
        made(tmp_path, text)


def test_the_minimum_to_cache_is_that_of_the_day():
    model = BOOK.models["claude-opus-4-8"]
    assert model.cache_minimum("bedrock", date(2026, 8, 31)) != model.cache_minimum(
        "bedrock", date(2026, 9, 1)
    )
