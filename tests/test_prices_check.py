"""Other catalogues against the book: each in its own form, made up here; and the real ones where they are installed."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farthing.book import default_book
from farthing.pricelist import (
    Checked,
    PriceListError,
    as_genai,
    as_litellm,
    check,
    read_catalogue,
)

BOOK = default_book()
AT = datetime(2026, 11, 22, tzinfo=UTC)


def checked(tmp_path: Path, document: Any, at: datetime = AT) -> Checked:
    path = tmp_path / "catalogue.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return check(BOOK, read_catalogue(str(path), BOOK, at), at)


def differing(done: Checked) -> dict[str, tuple[str, str]]:
    """Theirs and ours, by what was compared."""
    return {
        f"{found.name} {found.meter} >{found.above}": (
            f"{found.theirs.normalize():f}",
            f"{Decimal(found.ours) / 10**6:f}",
        )
        for found in done.different
    }


# --- litellm -------------------------------------------------------------------------------------------------------


def litellm(usd: str, provider: str = "bedrock_converse", **more: Any) -> dict[str, Any]:
    """A row, from dollars per million tokens."""
    keys = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost",
            "cache_creation_input_token_cost", "cache_creation_input_token_cost_above_1hr")  # fmt: skip
    costs = {key: float(Decimal(value) / 10**6) for key, value in zip(keys, usd.split(), strict=False)}
    return {"litellm_provider": provider, "mode": "chat", **costs, **more}


def test_litellm_prices_a_bare_id_as_global(tmp_path: Path):
    """As in its issue 42679: AWS bills the region's price, a tenth more."""
    done = checked(
        tmp_path,
        {
            "sample_spec": {"litellm_provider": "one of"},
            "gpt-6": litellm("1 2", "openai"),
            "anthropic.claude-sonnet-4-6": litellm("3 15"),
            "global.anthropic.claude-sonnet-4-6": litellm("3 15 0.3 3.75 6"),
            "jp.anthropic.claude-sonnet-4-6": litellm("3.3 16.5 0.33 4.125 6.6"),
        },
    )
    assert done.kind == "litellm"
    assert differing(done) == {
        "anthropic.claude-sonnet-4-6 input >0": ("3", "3.3"),
        "anthropic.claude-sonnet-4-6 output >0": ("15", "16.5"),
    }
    assert done.different[0].card.source == "A_PRICE_2608, GENAI, LITELLM, APL_2608"
    assert (done.equal, done.unmatched, done.rows) == (10, [], 12)


def test_a_litellm_row_may_leave_its_seller_to_its_name(tmp_path: Path):
    """As in the list of prices that somebody keeps for a proxy."""
    rates = {"input_cost_per_token": 5.5e-06, "output_cost_per_token": 27.5e-06}
    names = (
        "us.anthropic.claude-opus-5",
        "claude-opus-5",
        "bedrock/eu.anthropic.claude-opus-5",
        "vertex_ai/claude-opus-5",
    )
    done = checked(tmp_path, dict.fromkeys(names, rates))
    assert (done.equal, done.skipped) == (4, {"vertex_ai": 1})
    assert differing(done) == {
        "claude-opus-5 input >0": ("5.5", "5"), "claude-opus-5 output >0": ("27.5", "25"),
    }  # fmt: skip


def test_litellm_batch_bands_regions_and_other_sellers(tmp_path: Path):
    over = {"input_cost_per_token_above_100k_tokens": 5e-7, "output_cost_per_token_above_100k_tokens": 2.5e-6}
    done = checked(
        tmp_path,
        {
            "claude-haiku-5-5": litellm("0.1 0.5", "anthropic", input_cost_per_token_batches=5e-8, **over),
            "bedrock/us-gov-west-1/anthropic.claude-opus-5": litellm("6 30", "bedrock"),
            "bedrock/claude_platform/claude-opus-5": litellm("5 25", "bedrock"),
            "claude-opus-5": litellm("5 25", "anthropic", provider_specific_entry={"us": 1.1, "fast": 2}),
            "vertex_ai/claude-opus-5": litellm("5 25", "vertex_ai-anthropic_models"),
            "bedrock/us-east-1/1-month-commitment/anthropic.claude-v2:1": litellm("5 25", "bedrock"),
        },
    )
    # batch has our band above 100,000 tokens, which their row lacks: it prices those too low
    assert differing(done) == {"claude-haiku-5-5 (batch) input >100000": ("0.05", "0.25")}
    assert done.equal == 4 + 1 + 2 + 2 + 6
    assert done.skipped == {"vertex_ai-anthropic_models": 1, "provisioned": 1}


def test_what_the_book_cannot_price_is_unmatched_with_the_reason(tmp_path: Path):
    done = checked(
        tmp_path,
        {
            "anthropic.claude-opus-99": litellm("5 25"),
            "anthropic.claude-opus-5": litellm("5.5 27.5", cache_read_input_token_cost_batches=2.75e-7),
        },
    )
    assert [(row.name, row.meter, row.why.split(";")[0]) for row in done.unmatched] == [
        ("anthropic.claude-opus-99", "input", "unknown model 'anthropic.claude-opus-99'"),
        ("anthropic.claude-opus-99", "output", "unknown model 'anthropic.claude-opus-99'"),
        ("anthropic.claude-opus-5 (batch)", "cache_read", "AWS publishes no rate for cached tokens in a Bedrock batch"),
    ]  # fmt: skip
    assert done.rows == done.equal + 3


# --- genai-prices --------------------------------------------------------------------------------------------------


def provider(name: str, *models: Any) -> dict[str, Any]:
    return {"id": name, "name": name, "models": list(models)}


def test_genai_prices_by_day_tier_and_variant(tmp_path: Path):
    sonnet = {
        "id": "claude-sonnet-5-5",
        "match": {"or": [{"equals": "claude-sonnet-5-5"}, {"starts_with": "claude-sonnet-5-5@"}]},
        "prices": [
            {"prices": {"input_mtok": 2, "output_mtok": 10, "cache_read_mtok": 0.2}},
            {"constraint": {"start_date": "2026-10-07"}, "prices": {"input_mtok": 2, "cache_read_mtok": 0.1}},
        ],
        "price_variants": [{"when": {"processing": "batch"}, "prices": {"input_mtok": 1}}],
    }
    haiku = {
        "id": "regional.claude-haiku-5-5",
        "match": {"ends_with": "us.anthropic.claude-haiku-5-5"},
        "prices": {"input_mtok": {"base": 0.11, "tiers": [{"start": 100_000, "price": 0.5}]}},
    }
    document = [provider("anthropic", sonnet), provider("aws", haiku), provider("google", {"id": "claude-x"})]
    done = checked(tmp_path, document)
    assert differing(done) == {
        "claude-sonnet-5-5 (batch) cache_read >0": (
            "0.1",
            "0.05",
        ),  # their variant leaves it at the standard price
        "regional.claude-haiku-5-5 input >100000": ("0.5", "0.55"),
    }
    assert (done.equal, done.rows, done.skipped) == (4, 6, {"google": 1})
    before = checked(tmp_path, document, datetime(2026, 10, 6, tzinfo=UTC))
    assert not any("claude-sonnet-5-5 cache_read" in name for name in differing(before))


def test_an_id_of_theirs_that_no_call_has_is_unmatched(tmp_path: Path):
    row = {"id": "claude-v9", "match": {"regex": "^claude-v9$"}, "prices": {"input_mtok": 2}}
    done = checked(tmp_path, [provider("anthropic", row)])
    assert [row.why for row in done.unmatched] == ["no id of the book is one that it matches"]


# --- langfuse ------------------------------------------------------------------------------------------------------


def test_langfuse_has_one_price_for_every_endpoint(tmp_path: Path):
    row = {
        "modelName": "claude-sonnet-4-6",
        "matchPattern": r"(?i)^((eu\.|global\.)?anthropic\.)?claude-sonnet-4-6$",
        "pricingTiers": [
            {"isDefault": True, "conditions": [], "prices": {"input": 3e-6, "output": 15e-6, "input_cache_read": 3e-7}},
            {"isDefault": False, "prices": {"input": 6e-6},
             "conditions": [{"usageDetailPattern": "input", "operator": "gt", "value": 200_000}]},
        ],
    }  # fmt: skip
    done = checked(tmp_path, [row, {"modelName": "gpt-6", "matchPattern": "x", "prices": {"input": 1}}])
    by_sku = {(str(found.sku), found.meter, found.above) for found in done.different}
    long = {(f"{sku}/on_demand", "input", 200_000)
            for sku in ("bedrock/claude-sonnet-4-6/global", "bedrock/claude-sonnet-4-6/regional",
                        "anthropic/claude-sonnet-4-6/global")}  # fmt: skip
    regional = "bedrock/claude-sonnet-4-6/regional/on_demand"
    assert by_sku == long | {
        (regional, meter, above) for meter in ("input", "output", "cache_read") for above in (0, 200_000)
    }
    assert done.rows == 3 * 6


# --- round trips, and the real ones --------------------------------------------------------------------------------


def test_what_we_export_as_litellm_checks_against_the_book(tmp_path: Path):
    done = checked(tmp_path, as_litellm(BOOK, AT))
    assert (done.different, done.unmatched) == ([], [])
    assert done.rows > 2000


@pytest.mark.parametrize("day", [datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 10, 6, tzinfo=UTC), AT])
def test_what_we_export_as_genai_prices_checks_against_the_book(tmp_path: Path, day: datetime):
    """On any day; but their form cannot say that cached tokens in a Bedrock batch have no price."""
    done = checked(tmp_path, as_genai(BOOK), day)
    assert done.different == []
    reasons = {row.why for row in done.unmatched if "has no price before" not in row.why}
    assert reasons <= {"AWS publishes no rate for cached tokens in a Bedrock batch"}
    assert done.equal > 400


def test_the_real_genai_prices_reads_our_export_and_prices_as_we_do():
    """Their own code on our data: one call of each meter."""
    types = pytest.importorskip("genai_prices.types")
    providers = types._providers_from_raw(json.loads(json.dumps(as_genai(BOOK))))
    aws = next(provider for provider in providers if provider.id == "aws")
    model = next(model for model in aws.models if model.is_match("eu.anthropic.claude-sonnet-5-5"))
    rates = model.get_prices(AT)
    assert [rates.input_mtok, rates.output_mtok, rates.cache_read_mtok, rates.cache_write_mtok] == [
        Decimal("2.2"), Decimal(11), Decimal("0.11"), Decimal("2.75"),
    ]  # fmt: skip


def test_the_real_genai_prices():
    pytest.importorskip("genai_prices.data")
    done = check(BOOK, read_catalogue("genai-prices", BOOK, AT), AT)
    assert done.rows == done.equal + len(done.different) + len(done.unmatched) > 400
    assert done.equal > 400
    # a price of extended access that no catalogue but AWS's page has
    assert "claude-3-5-sonnet-v2" in {found.sku.model for found in done.different}


def test_the_real_litellm():
    bench = Path(__file__).parent.parent / ".venv-bench"
    path = next(
        bench.glob("lib/python*/site-packages/litellm/model_prices_and_context_window_backup.json"), None
    )
    if path is None:
        pytest.skip("litellm is not installed: `make bench` puts it into .venv-bench")
    done = check(BOOK, read_catalogue(str(path), BOOK, AT), AT)
    assert done.equal > 1000


# --- what is no catalogue ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "none of the catalogues known here: litellm, genai-prices, langfuse"),
        ('{"a": {"litellm_provider": "bedrock"', ":1: the file ends in the middle"),
        ('{"a": {"litellm_provider": "bedrock"}}', "no price of Claude in this litellm catalogue"),
        ('[{"id": "aws", "models": [{"id": "claude"}]}]', "not as genai-prices writes it"),
        ('{"claude-opus-5": {"litellm_provider": "anthropic", "input_cost_per_token": "much"}}', "not as litellm"),
    ],
)  # fmt: skip
def test_a_bad_catalogue_is_one_line(tmp_path: Path, text: str, says: str):
    path = tmp_path / "catalogue.json"
    path.write_text(text)
    with pytest.raises(PriceListError) as error:
        read_catalogue(str(path), BOOK, AT)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", ["two", -3e-06, "NaN", [1], True])
def test_a_price_that_is_none_is_unmatched_and_the_others_count(tmp_path: Path, bad: Any):
    """Never an error of the whole file, and never a difference."""
    done = checked(
        tmp_path,
        {
            "claude-opus-5": {"litellm_provider": "anthropic", "input_cost_per_token": bad,
                              "output_cost_per_token": 25e-6},
            "claude-sonnet-5": ["no row"],
            "claude-haiku-4-5": litellm("1 6", "anthropic"),
        },
    )  # fmt: skip
    assert [row[:3] for row in done.unmatched] == [("claude-sonnet-5", "", 0), ("claude-opus-5", "input", 0)]
    assert (done.rows, done.equal, differing(done)) == (5, 2, {"claude-haiku-4-5 output >0": ("6", "5")})


def test_rows_that_are_none_stand_beside_good_ones(tmp_path: Path):
    """In the two catalogues that are lists, as in litellm's."""
    good = {"id": "claude-opus-5", "match": {"equals": "claude-opus-5"}, "prices": {"input_mtok": 5}}
    genai = [
        {"id": "anthropic", "models": ["x", {"id": "claude-x"}, good | {"prices": {"input_mtok": "?"}}, good]}
    ]
    done = checked(tmp_path, genai)
    assert [row[:2] for row in done.unmatched][:2] == [("anthropic: 'x'", ""), ("anthropic: claude-x", "")]
    assert ("claude-opus-5", "input") in [row[:2] for row in done.unmatched]
    assert done.equal
    row = {"modelName": "claude-haiku-4-5", "matchPattern": "^claude-haiku-4-5$", "prices": {"input": 1e-6}}
    done = checked(tmp_path, [row, "x", {"modelName": "claude-y"}, {"matchPattern": "z"}])
    assert [row[:2] for row in done.unmatched] == [("'x'", ""), ("claude-y", ""), ("None", "")]
    assert done.equal


def test_a_pattern_that_is_none_is_unmatched(tmp_path: Path):
    done = checked(tmp_path, [{"modelName": "claude-x", "matchPattern": "(", "prices": {"input": 1e-6}}])
    assert [row.why[:22] for row in done.unmatched] == ["its pattern is none: m"]


def test_check_on_the_command_line(tmp_path: Path):
    """The contract of its JSON."""
    path = tmp_path / "prices.json"
    path.write_text(
        json.dumps({"anthropic.claude-opus-5": litellm("5 27.5"), "claude-x": litellm("1", "anthropic")})
    )
    words = [sys.executable, "-m", "farthing", "prices", "check", str(path), "--at", "2026-11-22", "--json"]
    answer = json.loads(subprocess.run(words, capture_output=True, check=True, text=True).stdout)
    assert (answer["rows"], answer["equal"]) == (3, 1)
    (row,) = answer["different"]
    assert row | {"card": ""} == {
        "id": "anthropic.claude-opus-5", "platform": "bedrock", "model": "claude-opus-5", "endpoint": "regional",
        "zone": "", "mode": "on_demand", "meter": "input", "above": 0, "theirs": "5", "ours": "5.5", "card": "",
        "source": "A_PRICE_2608, GENAI, LITELLM, APL_2608", "accessed": "2026-11-22", "confidence": "high",
    }  # fmt: skip
    assert [row["id"] for row in answer["unmatched"]] == ["claude-x"]
