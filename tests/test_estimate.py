"""Estimates: every way to run a workload, at the published rates; and what rules the others out."""

import json
import math
import random
import re
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.book import Card, default_book
from farthing.cache import FIVE_US, HOUR_US, Plan, Trace, replay
from farthing.cli import main
from farthing.estimate import WorkloadError, cheapest, hits, image_tokens, make, pdf_tokens, scenarios, sizes
from farthing.meters import Vector
from farthing.money import from_usd

BOOK = default_book()
NOW = datetime(2026, 11, 23, tzinfo=UTC)
SONNET, HAIKU = "claude-sonnet-4-6", "claude-haiku-4-5"
TICKETS = {"requests": 1_000, "per": "day", "input_tokens": 5_000, "output_tokens": 300}
CACHED = TICKETS | {"prefix_tokens": 4_500, "gap_seconds": 60}


def work(**said):
    return make(TICKETS | said, BOOK)


def ways(**said):
    return scenarios(work(**said), BOOK, NOW)


def way(endpoint="global", cache="none", mode="on_demand", platform="bedrock", **said):
    said.setdefault("model", SONNET)
    wanted = (said["model"], platform, endpoint, cache, mode)
    (found,) = [
        one for one in ways(**said) if wanted == (one.model, one.platform, one.endpoint, one.cache, one.mode)
    ]
    return found


def dollars(found):
    assert found.monthly is not None, found.why_not
    return Fraction(found.monthly, 10**12)


# --- prices ----------------------------------------------------------------------------------------------------------


def test_a_month_is_requests_times_tokens_times_the_published_rates():
    """30,000 requests of 5,000 tokens at $3 and 300 at $15 a million."""
    assert dollars(way()) == 30_000 * (5_000 * 3 + 300 * 15) / Fraction(10**6) == 585
    assert dollars(way("regional")) == Fraction("643.5")
    assert dollars(way(mode="batch")) == Fraction("292.5")
    assert way().per_request == from_usd("0.0195")


def test_a_month_given_as_such_has_no_days_in_it():
    assert dollars(way(requests=30_000, per="month")) == 585
    assert dollars(way(days=31)) == Fraction("604.5")


def test_a_prompt_beyond_the_cliff_costs_five_times_on_every_token():
    haiku = {"model": "claude-haiku-5-5", "requests": 1, "per": "month", "output_tokens": 1_000}
    assert dollars(way(input_tokens=100_000, **haiku)) == Fraction("0.0105")
    assert dollars(way(input_tokens=100_001, **haiku)) == Fraction("0.0525005")


def test_the_cheapest_comes_first_and_what_has_no_price_is_last():
    found = ways(**CACHED)
    feasible = [one for one in found if one.feasible]
    assert found[: len(feasible)] == feasible
    assert [one.monthly for one in feasible] == sorted(one.monthly for one in feasible)
    assert cheapest(found) == found[0]
    assert {one.monthly for one in found[len(feasible) :]} == {None}
    assert all(one.why_not for one in found[len(feasible) :])


def test_fast_mode_is_twice_the_price_and_direct_alone():
    opus = {"model": "claude-opus-5"}
    plain, fast = (
        way(mode=mode, platform="anthropic", endpoint="global", **opus) for mode in ("on_demand", "fast")
    )
    assert fast.monthly == 2 * plain.monthly
    assert (
        way(mode="fast", platform="bedrock", **opus).why_not
        == "fast mode of claude-opus-5 has no price on bedrock"
    )


def test_capacity_without_a_published_price_says_what_to_ask_for():
    """30,000 requests a month of 43,200 minutes: of 5,000 tokens in, 3,473 a minute; of 300 out, 209."""
    for mode, words in (("reserved", "100,000 in and 10,000 out at least"), ("provisioned", "model unit")):
        found = [one for one in ways() if one.mode == mode]
        assert {(one.platform, one.monthly) for one in found} == {("bedrock", None)}
        assert all("3,473 tokens in and 209 out a minute" in one.why_not for one in found)
        assert all(words in one.why_not for one in found)
    assert "global" not in {one.endpoint for one in ways() if one.mode == "provisioned"}


# --- caching ---------------------------------------------------------------------------------------------------------


def test_a_prefix_read_within_its_ttl_is_written_once_and_read_from_then_on():
    """600 a day at every minute leave the rest of the day, so each day begins with a write."""
    found = hits(work(**CACHED | {"requests": 600}), "5m")
    assert found.writes == 30
    assert found.reads == 17_970
    assert hits(work(**CACHED | {"requests": 18_000, "per": "month"}), "5m").writes == 1


def test_gaps_beyond_the_ttl_write_every_time_and_cost_more_than_no_cache():
    slow = CACHED | {"gap_seconds": 301, "requests": 287}
    assert hits(work(**slow), "5m").reads == 0
    assert hits(work(**slow), "1h").writes == 1
    assert hits(work(**slow | {"gap_seconds": 300, "requests": 288}), "5m").writes == 1
    assert dollars(way(cache="5m", **slow)) > dollars(way(**slow)) > dollars(way(cache="1h", **slow))


def test_the_price_of_a_cached_month():
    """Of 18,000 requests one writes 4,500 tokens at 3.75, the others read them at 0.30; 500 are plain."""
    each = CACHED | {"requests": 18_000, "per": "month"}
    expected = Fraction(4_500) * (Fraction("3.75") + 17_999 * Fraction("0.30")) + 18_000 * (
        500 * 3 + 300 * 15
    )
    assert dollars(way(cache="5m", **each)) == expected / 10**6
    expected += Fraction(4_500) * (6 - Fraction("3.75"))
    assert dollars(way(cache="1h", **each)) == expected / 10**6


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 400), st.integers(1, 4_000), st.integers(1, 31), st.sampled_from(["5m", "1h"]))
def test_writes_are_those_of_a_clock_that_starts_anew_each_day(count, gap, days, ttl):
    """Requests at every gap from midnight on, as many as there are; a cache entry lives from its last use."""
    count = min(count, 86_400 // gap or 1)
    seconds, writes, last = {"5m": 300, "1h": 3_600}[ttl], 0, -(10**9)
    for at in (day * 86_400 + i * gap for day in range(days) for i in range(count)):
        writes += at - last > seconds
        last = at
    said = {"requests": count, "days": days, "prefix_tokens": 4_500, "gap_seconds": gap}
    assert hits(work(**said), ttl).writes == writes


@pytest.mark.parametrize("mean", [60, 300, 1_800])
@pytest.mark.parametrize(("ttl", "seconds"), [("5m", 300), ("1h", 3_600)])
def test_poisson_arrivals_miss_as_often_as_drawn_ones(mean, ttl, seconds):
    count = 28 * 86_400 // mean
    found = hits(work(requests=count, per="month", prefix_tokens=4_500, days=28), ttl)
    assert float(found.writes) == pytest.approx(1 + (count - 1) * math.exp(-seconds / mean), rel=1e-3)
    random_ = random.Random(5)
    drawn = sum(random_.expovariate(1 / mean) > seconds for _ in range(20_000)) / 20_000
    assert float(found.writes) / count == pytest.approx(drawn, abs=0.012)


def replayed(seconds, ttl_us):
    """The tokens of requests at these seconds, by the machine that knows the rules: a prefix of 4,500, and 500 more."""
    count = len(seconds)
    ones, zeros = np.ones(count, np.int64), np.zeros(count, np.int64)
    at_us = (np.asarray(seconds) * 1_000_000).astype(np.int64)
    every = np.arange(count + 1, dtype=np.int64)
    trace = Trace(at_us, zeros, ones * 300, ones * 500, every, zeros, np.array([4_500]), zeros, zeros)
    billed = replay(trace, Plan(every, zeros, ones * ttl_us), 1_024)
    return Vector(*(int(np.sum(column)) for column in billed))


@pytest.mark.parametrize(("cache", "ttl_us"), [("5m", FIVE_US), ("1h", HOUR_US)])
@pytest.mark.parametrize(
    ("count", "gap"), [(600, 60), (288, 300), (287, 301), (20, 3_600), (20, 3_700), (1, 60)]
)
def test_an_estimate_is_what_the_cache_machine_bills(cache, ttl_us, count, gap):
    seconds = [day * 86_400 + i * gap for day in range(30) for i in range(count)]
    found = way(cache=cache, **CACHED | {"requests": count, "gap_seconds": gap})
    assert found.tokens == replayed(seconds, ttl_us)


@pytest.mark.parametrize(("cache", "ttl_us"), [("5m", FIVE_US), ("1h", HOUR_US)])
def test_an_estimate_of_poisson_arrivals_is_about_what_the_machine_bills(cache, ttl_us):
    seconds = np.cumsum(np.random.default_rng(7).exponential(600, 20_000))
    found = way(
        cache=cache, requests=20_000, per="month", prefix_tokens=4_500, gap_seconds=600, arrivals="poisson"
    )
    card = BOOK.find(found.sku, NOW, cached=True)
    assert isinstance(card, Card)
    assert found.monthly == pytest.approx(replayed(seconds, ttl_us) @ card.rates, rel=0.01)


def test_mean_gaps_from_which_a_cache_stops_to_pay_are_those_of_the_closed_form():
    """5m beats none below a mean of 20.4 minutes, 1h beats none below 80.3 (CACHING.md 2d)."""

    def extra(cache, minutes):
        said = {
            "requests": 40_320,
            "per": "month",
            "days": 28,
            "prefix_tokens": 5_000,
            "output_tokens": 0,
            "arrivals": "poisson",
            "gap_seconds": Decimal(str(minutes)) * 60,
        }
        # Several prefixes are interleaved, so that their first writes weigh little.
        return way(cache=cache, **said).monthly - way(**said).monthly

    assert extra("5m", 20) < 0 < extra("5m", 21)
    assert extra("1h", 79) < 0 < extra("1h", 82)


def test_requests_too_many_for_their_gap_are_of_several_prefixes():
    assert hits(work(**CACHED | {"requests": 14_400}), "5m").writes == 10


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"model": SONNET, "prefix_tokens": 1_000}, "under the 1,024 of claude-sonnet-4-6 on bedrock"),
        ({"model": HAIKU, "prefix_tokens": 4_095}, "under the 4,096 of claude-haiku-4-5 on bedrock"),
        ({"model": SONNET}, "no stable prefix"),
        ({"model": "claude-fable-5-2", "prefix_tokens": 4_000}, "nobody has published"),
    ],
)
def test_what_rules_a_cache_out(said, reason):
    assert reason in way(cache="5m", **said).why_not


def test_a_prefix_of_the_minimum_is_cached():
    assert way(cache="5m", model=SONNET, prefix_tokens=1_024, gap_seconds=60).feasible
    assert way(cache="5m", model="claude-fable-5-2", prefix_tokens=4_096).assumed == ("cache_minimum",)


# --- batch -----------------------------------------------------------------------------------------------------------


def test_batch_forfeits_the_cache_on_bedrock_alone():
    assert way(cache="1h", mode="batch", **CACHED).why_not == "batch forfeits caching on Bedrock"
    direct = way(cache="1h", mode="batch", platform="anthropic", **CACHED | {"batch_hits": 1})
    expected = 30_000 * (4_500 * Fraction("0.15") + 500 * Fraction("1.5") + 300 * Fraction("7.5")) / 10**6
    assert dollars(direct) == expected
    assert "batch_hits" in direct.assumed


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"model": "claude-opus-4-7"}, "has no batch SKU on bedrock"),
        ({"model": SONNET, "deadline_hours": 23}, "a batch may take 24 h"),
        ({"model": SONNET, "requests": 99, "per": "month"}, "at least 100 records"),
        ({"model": SONNET, "requests": 99, "per": "day", "deadline_hours": 24}, "only 99 requests"),
    ],
)
def test_what_rules_a_batch_out(said, reason):
    found = way(mode="batch", **said)
    assert reason in found.why_not
    assert found.monthly is None


def test_a_batch_that_may_take_a_day_is_priced_and_one_of_which_nothing_is_known_marked():
    assert way(mode="batch", deadline_hours=24).assumed == ()
    assert way(mode="batch").assumed == ("deadline",)
    assert "batch_rate" in way(mode="batch", model="claude-sonnet-5-5").assumed


# --- residency, and what is sold --------------------------------------------------------------------------------------


def test_residency_leaves_what_keeps_to_it():
    feasible = [one for one in ways(residency="eu") if one.feasible]
    assert {(one.platform, one.endpoint) for one in feasible} == {("bedrock", "regional")}
    places = {(one.platform, one.endpoint) for one in ways(residency="us") if one.feasible}
    assert places == {("bedrock", "regional"), ("anthropic", "geo_us"), ("claude_aws", "geo_us")}
    assert "no jp profile" in way("regional", model="claude-fable-5", residency="jp").why_not


def test_govcloud_is_only_for_those_who_ask():
    assert "partition" in way("govcloud", model=HAIKU).why_not
    asked = [one for one in ways(residency="us-gov") if one.feasible]
    assert {one.endpoint for one in asked} == {"govcloud"}
    assert dollars(way("govcloud", model=HAIKU, residency="us-gov")) == dollars(way(model=HAIKU)) * Fraction(
        "1.2"
    )


def test_the_region_decides_where_the_price_hangs_on_it():
    old = {
        "model": "claude-3-5-sonnet-v2",
        "requests": 10**6,
        "per": "month",
        "output_tokens": 0,
        "input_tokens": 1,
    }
    assert dollars(way("regional", residency="us-east-1", **old)) == 6
    assert dollars(way("regional", residency="ap-northeast-1", **old)) == 3


def test_models_that_ended_or_that_nobody_may_begin_with():
    assert "has ended on bedrock (2026-10-14)" in way(model="claude-sonnet-4").why_not
    every = {one.model: one.why_not for one in ways() if one.platform == "bedrock"}
    assert "name it with --model" in every["claude-3-opus"]
    assert "invited" in every["claude-mythos-5-2"]
    assert way(model="claude-mythos-5-2").feasible
    early = scenarios(work(model="claude-fable-5-2"), BOOK, datetime(2026, 11, 1, tzinfo=UTC))
    assert all("is released on 2026-11-09" in one.why_not for one in early)


def test_a_prompt_that_no_context_holds():
    assert "exceed its context of 200,000" in way(model=HAIKU, input_tokens=199_900).why_not


# --- what is no text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "tokenizer", "tokens"),
    [(28, 28, "v1", 1), (29, 28, "v1", 2), (200, 200, "v1", 64), (1_000, 1_000, "v1", 1_296),
     (1_568, 1_568, "v1", 1_568), (2_000, 1_500, "v2", 3_888), (4_000, 1_000, "v1", 784), (5_000, 5_000, "v2", 4_784)],
)  # fmt: skip
def test_images_cost_their_patches_up_to_a_cap(width, height, tokenizer, tokens):
    assert image_tokens(width, height, tokenizer) == tokens


def test_pages_are_text_and_an_image():
    assert pdf_tokens(3, "v1") == (4_500, 3 * (3_000 + 1_568))


def test_tools_images_and_thinking_join_the_request():
    said = {
        "images": ["28x28", "56x28"],
        "tool_choice": "any",
        "tools": ["bash"],
        "tool_tokens": 100,
        "pdf_pages": 1,
    }
    found = sizes(work(thinking_tokens=700, prefix_tokens=2_000, **said), BOOK.models[SONNET], BOOK)
    assert found.parts == {
        "text": 5_000,
        "tool definitions": 100,
        "tool use": 589 + 244,
        "images": 3,
        "pdf": 4_568,
    }
    assert found.prompt == sum(found.parts.values())
    assert found.prefix == 2_000 + 100 + 833
    assert found.output == 1_000


def test_tokens_counted_by_the_older_tokenizer_are_more_by_the_newer():
    found = sizes(work(counted_by=SONNET), BOOK.models["claude-opus-5-5"], BOOK)
    assert (found.prompt, found.output, found.assumed) == (6_500, 390, ("tokenizer",))
    assert sizes(work(counted_by=SONNET), BOOK.models[HAIKU], BOOK).prompt == 5_000
    assert sizes(work(counted_by="claude-opus-5-5"), BOOK.models[SONNET], BOOK).prompt == 3_847


def test_a_model_goes_by_any_of_its_ids():
    assert {one.model for one in ways(model=["eu.anthropic.claude-sonnet-4-6", SONNET])} == {SONNET}


# --- laws ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 10**6),
    st.integers(0, 150_000),
    st.integers(0, 30_000),
    st.integers(0, 100),
    st.integers(1, 10_000),
    st.sampled_from(["fixed", "poisson"]),
)
def test_tokens_are_conserved_and_reads_never_cost_more_than_writes(count, size, output, percent, gap, how):
    said = {"requests": count, "per": "month", "input_tokens": size, "output_tokens": output, "arrivals": how}
    found = ways(model="claude-sonnet-5-5", prefix_tokens=size * percent // 100, gap_seconds=gap, **said)
    for one in found:
        if one.feasible:
            assert one.tokens.prompt == count * size
            assert one.tokens.output == count * output
            assert all(entry >= 0 for entry in one.tokens)
            assert 0 <= one.monthly <= 10**30
    by = {
        (one.endpoint, one.cache, one.mode): one.monthly
        for one in found
        if one.platform == "bedrock" and one.feasible
    }
    for (endpoint, cache, mode), cost in by.items():
        if endpoint == "global":
            assert abs(by["regional", cache, mode] * 10 - cost * 11) <= 20


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"requests": 0}, "requests: 0 is none"),
        ({"output_tokens": -1}, "output_tokens: -1 is less than none"),
        ({"prefix_tokens": 5_001}, "cannot be longer"),
        ({"gap_seconds": 0}, "write a number above 0"),
        ({"gap_seconds": "soon"}, "gap_seconds"),
        ({"deadline_hours": "NaN"}, "deadline_hours: NaN is no time"),
        (
            {"model": "claude-sonet-4-6"},
            "unknown model 'claude-sonet-4-6'; the nearest known ids are claude-sonnet-4-6",
        ),
        ({"residency": "mars"}, "residency: 'mars' is no place"),
        ({"images": ["big"]}, "write WIDTHxHEIGHT"),
        ({"batch_hits": 2}, "batch_hits: 2 is no share"),
        ({"prefix_token": 5}, "prefix_token is no key of a workload; did you mean prefix_tokens?"),
        ({"per": "week"}, "per: 'week' is none of day, month"),
        ({"tools": ["bsh"]}, "tools[0]: 'bsh' is none of bash, text_editor, computer, browser"),
        ({"arrivals": "bus"}, "arrivals: 'bus' is none of fixed, poisson"),
        ({"gap_seconds": "abc"}, "gap_seconds: it is no number; write one as 60 or 0.3"),
        ({"days": 0}, "days: "),
    ],
)
def test_a_workload_that_cannot_be_says_why(said, fault):
    with pytest.raises(WorkloadError, match=re.escape(fault)):
        work(**said)


# --- the command -----------------------------------------------------------------------------------------------------


def run(capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        main(["estimate", *map(str, argv)])
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


WAY = ("global", "on_demand", "none")
FLAGS = (
    "--requests",
    1_000,
    "--per",
    "day",
    "--input-tokens",
    5_000,
    "--output-tokens",
    300,
    "--at",
    "2026-11-23",
)


def test_the_contract(capsys):
    more = (
        "--prefix-tokens",
        4_500,
        "--gap-seconds",
        60,
        "--model",
        SONNET,
        "--residency",
        "eu",
        "--deadline",
        12,
    )
    code, out, _ = run(capsys, *FLAGS, *more, "--json")
    answer = json.loads(out)
    assert code == 0
    keys = (
        "model",
        "endpoint",
        "cache",
        "mode",
        "platform",
        "feasible",
        "why_not",
        "monthly_usd",
        "per_request_usd",
    )
    assert all(key in one for one in answer["scenarios"] for key in keys)
    assert (
        answer["scenarios"][0] | {"model": SONNET, "endpoint": "regional", "cache": "5m"}
        == answer["scenarios"][0]
    )
    assert {one["monthly_usd"] for one in answer["scenarios"] if not one["feasible"]} == {None}
    assert answer["workloads"] == [{"name": "", "days": 30, "requests_per_month": 30_000}]
    plain = next(one for one in answer["scenarios"] if one["feasible"] and one["cache"] == "none")
    assert (plain["monthly_usd"], plain["per_request_usd"]) == ("643.5", "0.02145")


def test_offers_take_the_place_of_list_prices(capsys, tmp_path):
    """A tenth off Bedrock, and nothing elsewhere: $585 becomes $526.50 there."""
    path = tmp_path / "offers.toml"
    path.write_text(
        '[[offers]]\nname = "Example"\naccounts = ["111122223333"]\nsigned = 2026-08-20\nstarts = 2026-09-01\n'
        'sources = ["made up"]\n\n[[offers.rates]]\npercent_off = "10"\n',
        encoding="utf-8",
    )
    code, out, err = run(capsys, *FLAGS, "--model", SONNET, "--book", path, "--json")
    assert code == 0, err
    plain = [
        one for one in json.loads(out)["scenarios"] if (one["endpoint"], one["mode"], one["cache"]) == WAY
    ]
    assert {one["platform"]: one["monthly_usd"] for one in plain} == {
        "bedrock": "526.5",
        "anthropic": "585",
        "claude_aws": "585",
    }
    assert "a month has 30 days here; computed from the rates of --book" in json.loads(out)["notes"]


def test_for_a_person_the_month_is_said_and_the_reasons_are(capsys):
    code, out, _ = run(capsys, *FLAGS, "--residency", "eu")
    assert code == 0
    assert "a month has 30 days here" in out
    assert "residency eu: a global endpoint may run the call anywhere" in out


def test_nothing_that_fits_is_an_answer_of_no(capsys):
    assert run(capsys, *FLAGS, "--model", SONNET, "--residency", "us-gov")[0] == 1


def test_a_good_workload_beside_a_bad_one_still_counts(capsys, tmp_path):
    path = tmp_path / "workloads.toml"
    path.write_text(
        "[workloads.tickets]\nrequests = 1000\nper = 'day'\ninput_tokens = 5000\noutput_tokens = 300\n"
        "model = 'claude-sonnet-4-6'\n\n[workloads.bad]\nrequests = 5\ninput_tokens = 10\noutput_tokens = 1\n"
        "prefix_tokens = 11\n",
        encoding="utf-8",
    )
    code, out, err = run(capsys, path, "--json", "--at", "2026-11-23")
    assert code == 2
    assert f"{path}:12: workload bad: prefix_tokens: " in err
    assert {one["workload"] for one in json.loads(out)["scenarios"]} == {"tickets"}
    assert json.loads(out)["cheapest_monthly_usd"] == "292.5"


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        ((), "a workload needs --requests, --input-tokens, --output-tokens"),
        ((*FLAGS, "--deadline", "soon"), "--deadline: "),
        ((*FLAGS, "--model", "gpt"), "unknown model 'gpt'"),
        ((*FLAGS[:-2], "--at", "tomorrow"), "--at 'tomorrow' is no day"),
        (("nowhere.toml",), "nowhere.toml: "),
        (("nowhere.toml", "--requests", 3), "in a file or in options, not in both"),
    ],
)
def test_bad_input_is_one_line(capsys, argv, fault):
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert fault in err
    assert err.count("\n") == 1


def test_the_page_asks_for_nothing_and_runs_nothing(capsys, tmp_path):
    page = tmp_path / "page.html"
    code, _, err = run(capsys, *FLAGS, "--prefix-tokens", 4_500, "--html", page)
    text = page.read_text(encoding="utf-8")
    assert code == 0
    assert str(page) in err
    charts = re.findall(r'<td class="steps".*?</section>', text, re.DOTALL)
    assert len(charts) == 2
    for chart in charts:
        assert chart.count("bgcolor=") > 1
    assert not re.search(r"<script|src=|href=|@import|url\(|https?:", text)
    assert "claude-haiku-5-5" in text
    assert "Ruled out" in text


def test_a_page_of_what_nothing_fits_has_no_price(capsys, tmp_path):
    page = tmp_path / "page.html"
    assert run(capsys, *FLAGS, "--model", SONNET, "--residency", "us-gov", "--html", page)[0] == 1
    assert "nothing fits" in page.read_text(encoding="utf-8")
    assert "$" not in page.read_text(encoding="utf-8")


def test_a_page_shows_names_as_they_are(capsys, tmp_path):
    path, page = tmp_path / "w.toml", tmp_path / "page.html"
    path.write_text(
        '[workloads."<b>x"]\nrequests = 10\ninput_tokens = 10\noutput_tokens = 1\n', encoding="utf-8"
    )
    assert run(capsys, path, "--html", page)[0] == 0
    assert "&lt;b&gt;x" in page.read_text(encoding="utf-8")
    assert "<b>" not in page.read_text(encoding="utf-8")
