"""Rewrites that plans are made of: what they conserve, and when a batch pays, in exact integers."""

from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st

from farthing.book import default_book
from farthing.levers import KAPPA, SAME, batch_pays, family, to_model, to_platform
from farthing.meters import Vector
from farthing.usage import PLATFORMS, Sku

BOOK = default_book()
SONNET = Sku("bedrock", "claude-sonnet-4-6", "regional", "", "on_demand")
tokens_ = st.builds(Vector, *[st.integers(0, 10**9)] * 5)
models = st.sampled_from(sorted(BOOK.models))


def rewritten(tokens, *model, **how):
    moved = to_model(*model, **how)(SONNET, tokens)
    assert moved is not None
    return moved


@given(tokens_, models)
def test_another_model_is_called_with_the_same_tokens(tokens, model):
    assume(model != SONNET.model)
    sku, moved = rewritten(tokens, model)
    assert moved == tokens
    assert sku == SONNET._replace(model=model)


@given(tokens_, st.sampled_from(KAPPA))
def test_a_newer_tokenizer_makes_more_tokens_of_the_text_on_each_meter_and_not_one_too_few(tokens, kappa):
    above, below = kappa
    _, moved = rewritten(tokens, "claude-sonnet-5", kappa)
    assert all(0 <= now * below - before * above < below for now, before in zip(moved, tokens, strict=True))


@given(tokens_)
def test_prompts_under_the_minimum_lose_the_cache_and_no_token(tokens):
    _, moved = rewritten(tokens, "claude-haiku-4-5", cacheable=False)
    assert moved == Vector(input=tokens.prompt, output=tokens.output)


def test_a_model_is_not_changed_for_itself_nor_in_fast_mode():
    assert to_model(SONNET.model)(SONNET, Vector(1)) is None
    assert to_model("claude-sonnet-5")(SONNET._replace(mode="fast"), Vector(1)) is None


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 10**6))
def test_a_batch_pays_as_the_rule_says(read, plain, output):
    """phi < 0.556 + 2.78 O/I, with the thresholds as they are before rounding: 5/9 and 25/9."""
    prompt = read + plain
    calls = Vector(input=plain, output=output, cache_read=read)
    on_demand, batched = Vector(10, 50, 1, 12, 20), Vector(5, 25)
    rule = Fraction(read, prompt) < Fraction(5, 9) + Fraction(25, 9) * Fraction(output, prompt)
    assert batch_pays(calls, on_demand, batched) == rule


def test_families_are_told_from_names():
    assert {family(name) for name in ("claude-3-5-sonnet-v2", "claude-sonnet-5-5")} == {"sonnet"}
    assert family("claude-haiku-4-5") == "haiku"


def test_the_tokenizer_interval_begins_at_the_same():
    assert KAPPA[0] == SAME
    assert [above / below for above, below in KAPPA] == sorted(above / below for above, below in KAPPA)


@given(tokens_, st.sampled_from(sorted({card.sku for card in BOOK.cards()})), st.sampled_from(PLATFORMS))
def test_another_platform_is_sent_the_same_tokens(tokens, sku, platform):
    moved = to_platform(platform)(sku, tokens)
    if moved is None:
        assert sku.platform == platform
        return
    assert sum(moved[1]) == sum(tokens)
    assert (moved[0].platform, moved[0].model, moved[0].mode) == (platform, sku.model, sku.mode)
    forfeits = platform == "bedrock" and sku.mode == "batch"
    assert moved[1] == (Vector(input=tokens.prompt, output=tokens.output) if forfeits else tokens)
    assert moved[0].endpoint in (("global", "regional") if platform == "bedrock" else ("global", "geo_us"))
