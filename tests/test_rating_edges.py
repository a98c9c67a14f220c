"""Edges of rating: each test notices a change that others let pass."""

from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta

import narwhals.stable.v2 as nw
import polars as pl
import pytest

from farthing.book import default_book
from farthing.meters import METERS, Vector
from farthing.rating import Grid, grid, rate, rate_frame, unpriced_frame
from farthing.usage import EPOCH, Sku

BOOK = default_book()
WHOLE = grid(BOOK)
TICK = timedelta(microseconds=1)
AT = datetime(2026, 9, 1, tzinfo=UTC)


@pytest.mark.parametrize(("prefix", "routing"), [("", "in_region"), ("jp.", "geo:jp"), ("global.", "global")])
def test_a_charge_tells_where_its_call_may_have_run(prefix, routing):
    assert rate(f"{prefix}anthropic.claude-sonnet-4-6", AT, {"input": 1}).routing == routing


def test_a_call_of_several_models_ran_where_its_first_did():
    block = {
        "input_tokens": 5,
        "iterations": [{"input_tokens": 5}, {"input_tokens": 7, "model": "claude-opus-5"}],
    }
    charge = rate("eu.anthropic.claude-sonnet-4-6", AT, block)
    assert (charge.routing, len(charge.lines)) == ("geo:eu", 2)


@pytest.mark.parametrize(
    ("model", "card"),
    [
        ("us.anthropic.claude-opus-5", "bedrock/claude-opus-5/regional/"),
        ("global.anthropic.claude-opus-5", "bedrock/claude-opus-5/global/"),
        ("us-gov.anthropic.claude-opus-5", "bedrock/claude-opus-5/govcloud/"),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc", "bedrock/claude-opus-5/global/"),
        ("claude-opus-5", "anthropic/claude-opus-5/global/"),
    ],
)  # fmt: skip
def test_a_pass_of_the_calls_own_model_costs_what_the_call_does(model, card):
    profiles = {"abc": "global.anthropic.claude-opus-5"}
    own = {"input_tokens": 1_000, "output_tokens": 100}
    block = own | {"iterations": [own | {"type": "message", "model": "claude-opus-5"}]}
    charge = rate(model, AT, block, profiles=profiles)
    assert charge == rate(model, AT, own, profiles=profiles)
    assert charge.lines[0].card.id.startswith(card)


def test_a_pass_of_another_model_ran_where_the_call_did_but_its_endpoint_is_not_told():
    block = {"iterations": [{"input_tokens": 7, "model": "claude-opus-4-8"}], "input_tokens": 7}
    charge = rate("global.anthropic.claude-sonnet-5", AT, block)
    assert charge.lines[0].card.id.startswith("bedrock/claude-opus-4-8/regional/")
    assert charge.assumed == ("endpoint",)
    settled = rate("global.anthropic.claude-sonnet-5", AT, block, assume={"endpoint": "global"})
    assert settled.lines[0].card.id.startswith("bedrock/claude-opus-4-8/global/")


def test_a_call_that_has_no_price_gets_none_from_its_passes():
    made = {"input_tokens": 7, "model": "claude-opus-5"}
    block = {"iterations": [made], "input_tokens": 7}
    arn = "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abc"
    assert "by the hour" in rate(arn, AT, block).unpriced
    assert "fast mode" in rate("us.anthropic.claude-opus-5", AT, block, mode="fast").unpriced
    made["model"] = "claude-opus-55"
    assert "unknown model 'claude-opus-55'" in rate("us.anthropic.claude-opus-5", AT, block).unpriced


@pytest.mark.parametrize("region", ["US-EAST-1", "mars-1", "zz-nowhere-9"])
def test_a_region_that_cannot_be_has_no_price(region):
    model = "anthropic.claude-3-5-sonnet-20241022-v2:0"
    arn = f"arn:aws:bedrock:{region.lower()}::foundation-model/{model}"
    assert rate(model, AT, {"input": 1}, region=region).unpriced == f"unknown region {region!r}"
    if region != "US-EAST-1":
        assert "unknown region" in rate(arn, AT, {"input": 1}).unpriced


def test_a_tier_without_a_price_has_none():
    block = {"input_tokens": 1, "service_tier": "priority"}
    assert "'priority'" in rate("us.anthropic.claude-sonnet-5", AT, block).unpriced


def test_a_charge_stays_as_it_was_made():
    charge = rate("claude-opus-5", AT, {"input": 1})
    for made, name in ((charge, "unpriced"), (charge.lines[0], "card")):
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, "")


def test_one_cached_token_is_enough_to_ask_for_its_rate():
    haiku = "anthropic.claude-3-haiku-20240307-v1:0"
    assert rate(haiku, AT, {"input": 1}).cost == 250_000
    for tokens in ({"cache_read": 1}, {"cache_write_1h": 1}):
        assert "cached tokens of claude-3-haiku" in rate(haiku, AT, tokens).unpriced
        assert WHOLE.at(AT, Vector(**tokens))[2] == 1
    assert WHOLE.at(AT, Vector(1))[2] == 0


# --- the grid --------------------------------------------------------------------------------------

SONNET = Sku(
    "bedrock", "claude-sonnet-4-6", "global", "", "on_demand"
)  # one price, and from 2026-03-13 another
CUT = datetime(2026, 3, 13, tzinfo=UTC)
BEFORE = CUT - timedelta(days=1)


def ids(lines: Grid) -> set[str]:
    return {row["card"] for row in lines.rows}


def test_a_grid_has_what_holds_between_two_instants_and_no_more():
    cards = BOOK.cards(SONNET)
    old, new = (
        {card.id for card in cards if card.ends == CUT},
        {card.id for card in cards if card.starts == CUT},
    )
    assert old
    assert new
    for lines, held in ((grid(BOOK, [SONNET], CUT), new), (grid(BOOK, [SONNET], BEFORE, CUT), old)):
        assert (lines.dates, ids(lines)) == ((), held)
    assert grid(BOOK, [SONNET], CUT - TICK, CUT + TICK).dates == (CUT,)
    assert ids(grid(BOOK, [SONNET])) == old | new
    assert grid(BOOK, [SONNET]).dates == (cards[0].starts, CUT)


def test_a_grid_has_the_sizes_that_its_cards_differ_by():
    assert grid(BOOK, [SONNET], CUT).prompts == ()
    assert grid(BOOK, [SONNET], BEFORE, CUT).prompts == (200_001,)


def test_rates_for_cached_tokens_split_a_grid_only_where_some_have_none():
    batch = SONNET._replace(mode="batch")
    assert [row["cached"] for row in grid(BOOK, [SONNET], CUT).rows] == [0]
    assert [row["cached"] for row in grid(BOOK, [batch], CUT).rows] == [0]
    both = grid(BOOK, [SONNET, batch], CUT)
    assert sorted((row["mode"], row["cached"]) for row in both.rows) == [
        ("batch", 0), ("on_demand", 0), ("on_demand", 1)]  # fmt: skip


def test_terms_are_no_column_of_usage():
    card = BOOK.cards(SONNET)[0]
    ours = replace(card, sku=SONNET._replace(terms="ours"))
    book = replace(BOOK, _cards={"claude-sonnet-4-6": {SONNET: [card], ours.sku: [ours]}})
    assert ids(grid(book, [SONNET, ours.sku])) == {card.id}
    assert len(grid(book, [SONNET, ours.sku]).rows) == len(grid(book, [SONNET]).rows) == 1


def cells(lines: Grid, at: list[datetime], sizes: list[int], **how) -> list[tuple]:
    frame = pl.DataFrame({"at": at, "day": [(each - EPOCH).days for each in at]})
    frame = frame.with_columns(**{meter: pl.lit(0) for meter in METERS}).with_columns(input=pl.Series(sizes))
    return nw.from_native(frame).select(**lines.cell(**how)).rows()


def test_a_cell_by_days_is_the_cell_by_instants():
    at = [CUT - TICK, CUT, CUT + TICK]
    found = [(1, 0, 0), (2, 0, 0), (2, 1, 0)]
    lines = grid(BOOK, [SONNET])
    sizes = [200_000, -200_000, 200_001]
    for how in ({}, {"days": True}):
        assert cells(lines, at, sizes, **how) == found
    assert [lines.at(*call) for call in zip(at, map(Vector, map(abs, sizes)), strict=True)] == found
    noon = lines._replace(dates=(CUT + timedelta(hours=12),))
    assert [cell[0] for cell in cells(noon, [CUT, noon.dates[0]], [1, 1], days=True)] == [0, 1]


def test_a_cell_may_leave_out_what_is_the_same_for_every_row():
    assert grid(BOOK, [SONNET], CUT).cell(varying=True) == {}
    assert grid(BOOK, [SONNET], BEFORE, CUT).cell(varying=True).keys() == {"band"}
    assert grid(BOOK, [SONNET]).cell(varying=True).keys() == {"era", "band"}
    assert (
        WHOLE.cell(varying=True).keys()
        == grid(BOOK, [SONNET], CUT).cell().keys()
        == {"era", "band", "cached"}
    )


def test_rows_may_bring_their_sizes_along():
    lines = grid(BOOK, [SONNET], CUT)
    assert [cell[1] for cell in cells(lines, [CUT] * 3, [9, 10, -11], prompts=[10, 11])] == [0, 1, 2]
    assert lines.cell(varying=True, prompts=[10]).keys() == {"band"}
    assert cells(WHOLE, [CUT], [10**6], prompts=())[0][1] == 0


def test_a_band_may_be_of_the_empty_prompt_alone():
    card = BOOK.cards(SONNET)[-1]
    none, some = replace(card, prompt_to=1), replace(card, id="some", prompt_from=1)
    lines = grid(replace(BOOK, _cards={"claude-sonnet-4-6": {SONNET: [none, some]}}), [SONNET])
    assert lines.prompts == (1,)
    assert {(row["card"], row["band"]) for row in lines.rows} == {(none.id, 0), ("some", 1)}


def test_usage_needs_no_column_for_terms():
    lines = grid(BOOK, [SONNET], CUT)
    usage = pl.DataFrame([{**SONNET.named(), "at": CUT, **Vector(cache_read=1)._asdict()}])
    cards = pl.DataFrame(lines.rows)
    assert rate_frame(usage, cards, lines)["cost"].to_list() == [300_000]
    assert unpriced_frame(usage, cards, lines).height == 0
