"""Edges of usage records: each test notices a change that others let pass."""

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from types import MappingProxyType

import pytest

from farthing.book import default_book
from farthing.meters import Vector
from farthing.usage import (
    MAX_TOKENS,
    Entry,
    Facts,
    ModelId,
    Rejected,
    Sku,
    Total,
    Usage,
    check_region,
    parse_model_id,
    quoted,
    read_usage,
    split_writes,
)

INSTANT_US = 1_780_056_000_000_001
INSTANT = datetime(2026, 5, 29, 12, 0, 0, 1, tzinfo=UTC)


def test_the_name_of_a_sku_leaves_out_the_terms_of_an_account():
    sku = Sku("bedrock", "claude-opus-5", "regional", "", "batch", "ours")
    assert str(sku) == "bedrock/claude-opus-5/regional/batch"
    assert sku.named() == {
        "platform": "bedrock",
        "model": "claude-opus-5",
        "endpoint": "regional",
        "zone": "",
        "mode": "batch",
    }


def test_instants_are_counted_from_1970():
    assert Usage(INSTANT_US, "r", "m", ()).at == INSTANT
    assert Entry("e", INSTANT_US, "session", 1, Facts("x")).at == INSTANT


def test_an_arn_tells_region_and_account():
    arn = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-opus-5"
    assert parse_model_id(arn) == ModelId(
        "anthropic.claude-opus-5",
        "geo:eu",
        "eu-west-1",
        "123456789012",
        "eu.anthropic.claude-opus-5",
        "model",
    )


@pytest.mark.parametrize("digits", [19, 20, 21])
def test_a_reason_repeats_a_number_but_no_text(digits):
    """A number of up to 20 digits; what is longer may be anything."""
    assert quoted("1" * digits) == (repr("1" * digits) if digits <= 20 else "text")


def test_a_block_may_be_any_mapping():
    block = {"input_tokens": 1, "cache_creation_input_tokens": 5}
    split = {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3}
    read = read_usage(MappingProxyType({**block, "cache_creation": MappingProxyType(split)}))
    assert read == read_usage({**block, "cache_creation": split})
    assert read.parts[0].tokens == Vector(1, 0, 0, 2, 3)


def test_a_region_has_the_form_of_one_or_is_not_said():
    assert [check_region(region) for region in ("", "eu-west-1", "us-gov-west-1")] == [
        "",
        "eu-west-1",
        "us-gov-west-1",
    ]
    for wrong in ("eu-west", "eu-west-1.evil.example", "nowhere-1"):
        with pytest.raises(Rejected, match=f"unknown region '{wrong}'"):
            check_region(wrong)


def test_one_token_of_untold_lifetime_marks_the_call():
    assert split_writes(1, 0, 0) == (1, 0, True)
    assert split_writes(3, 1, 1) == (2, 1, True)
    assert split_writes(2, 1, 1) == (1, 1, False)


def test_of_what_is_no_usage_block_six_keys_are_told():
    with pytest.raises(Rejected, match=r"\(keys: a, b, c, d, e, f\)"):
        read_usage(dict.fromkeys("hgfedcba"))
    with pytest.raises(Rejected, match=r"\(keys: none\)"):
        read_usage({})


def test_a_part_stays_as_it_was_read():
    (part,) = read_usage({"input": 1}).parts
    with pytest.raises(FrozenInstanceError):
        part.model = "another"  # type: ignore[misc]


def test_a_record_is_of_the_main_chain_unless_it_says_otherwise():
    assert not Usage(0, "r", "m", ()).sidechain


def test_totals_of_two_platforms_are_two():
    """What was said of a total is all but its period and its value."""
    said = {Total("x", start, start + 1, "input", value, platform).said
            for start in (0, 1) for value in (2, 3) for platform in ("bedrock", "anthropic")}  # fmt: skip
    assert len(said) == 2


def test_the_dearest_record_fits_a_column():
    dearest = max(rate for card in default_book().cards() for rate in card.rates)
    assert MAX_TOKENS > 10**9  # beyond all that a call or a batch's record has
    assert MAX_TOKENS * dearest < 2**63
