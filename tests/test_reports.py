"""Reports: their rows sum to their total, each step of the bill is what it is called, and nothing unknown is $0."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.book import ANY_PROMPT, Card, Resolved, default_book
from farthing.cells import Cell, Question, QuestionError, parse_where
from farthing.config import Config, Residency
from farthing.ledger import Ledger, SourceFile
from farthing.levers import BELOW, LEVERS
from farthing.meters import METERS, Vector
from farthing.rating import rate
from farthing.reports import COMPUTED, LIST_VALUE, REPORTS, STEPS, Table, as_json, layers
from farthing.usage import EPOCH, Facts, Usage

BOOK = default_book()
ANYWHERE_IN_THE_EU = Config(residency=(Residency(allow=("geo:eu", "in_region:eu-*")),))
AUTUMN = datetime(2026, 10, 20, 12, tzinfo=UTC)
LOG = Facts("bedrock_log", "bedrock", region="us-east-1")
CODE = Facts("claude_code")
GLOBAL_SONNET, US_SONNET = "global.anthropic.claude-sonnet-4-6", "us.anthropic.claude-sonnet-4-6"
PROFILE = "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/a1b2c3d4e5f6"


def call(*parts: tuple[Facts, Vector], at: datetime = AUTUMN, **more) -> Usage:
    return Usage(
        (at - EPOCH) // timedelta(microseconds=1), "", "", tuple((f, tuple(v)) for f, v in parts), **more
    )


def on(model_id: str, tokens: Vector, at: datetime = AUTUMN, **facts) -> Usage:
    """A call of one part, from a Bedrock log if its id is Bedrock's."""
    bedrock = "anthropic." in model_id or model_id.startswith("arn:")
    return call(((LOG if bedrock else CODE)._replace(model_id=model_id, **facts), tokens), at=at)


@pytest.fixture
def report(tmp_path):
    """report(name, calls, question ...): that report, of a ledger of these calls."""
    folders = iter(range(100))

    def make(name: str, calls: list[Usage], *args, files=(), **asked) -> Table:
        ledger = Ledger(tmp_path / str(next(folders)))
        ledger.append([made._replace(request_id=f"r{i}", message_id=f"m{i}") for i, made in enumerate(calls)])
        ledger.note_files(list(files), AUTUMN)
        question = Question(**{"config": ANYWHERE_IN_THE_EU, **asked})
        return REPORTS[name].make(ledger, question, *args)

    return make


def picos(usd_per_mtok: str, tokens: int) -> int:
    """What the tokens come to at a published rate."""
    amount = Decimal(usd_per_mtok) * 10**6 * tokens
    assert amount == int(amount)
    return int(amount)


def total(tokens: Vector, *usd_per_mtok: str) -> int:
    return sum(picos(rate, count) for rate, count in zip(usd_per_mtok, tokens, strict=False))


MIXED = [
    on(US_SONNET, Vector(1_000, 200, 3_000, 40, 5)),
    on(GLOBAL_SONNET, Vector(1_000, 200, 3_000, 40, 5), assumed="ttl"),
    on("anthropic.claude-from-tomorrow", Vector(7, 8)),
    on("global.anthropic.claude-haiku-5-5", Vector(100_001, 5), AUTUMN - timedelta(days=2)),
    on(PROFILE, Vector(600, 5, 0, 30), served_model="claude-opus-5"),
    on("claude-opus-5-5", Vector(10, 20, 30, 40, 50), session="s1", project="/p"),
    on(
        "claude-sonnet-5-5",
        Vector(10, 20, 30, 40, 50),
        AUTUMN - timedelta(days=50),
        session="s1",
        project="/p",
    ),
]


# --- every report ----------------------------------------------------------------------------------


def args_of(name: str) -> tuple:
    return (("model", "day"),) if name == "by" else ()


# Those that ask for budgets, or look at the last days alone, are in test_watch.py and test_anomalies.py.
OF_ANY_USAGE = [name for name in REPORTS if name not in ("anomalies", "budgets")]


@pytest.mark.parametrize("name", OF_ANY_USAGE)
def test_every_report_has_its_rows_and_its_footer(report, name):
    table = report(name, MIXED, *args_of(name))
    assert table.rows or name == "duplicates"
    for row in table.rows:
        assert set(table.columns) <= row.keys()
    foot = table.footer
    priced = [
        rate(f.model_id, c.at, dict(zip(METERS, v, strict=True)))
        for c in MIXED
        for f, v in c.parts
        if f.model_id != PROFILE
    ]
    opus = total(Vector(600, 5, 0, 30), "5.5", "27.5", "0.55", "6.875")
    assert foot["usd"] == sum(charge.cost or 0 for charge in priced) + opus
    assert (foot["priced"], foot["unpriced"], foot["rejected"]) == (
        5,
        2,
        0,
    )  # Sonnet 5.5 was not out 50 days before
    assert foot["read"] == foot["priced"] + foot["unpriced"] + foot["rejected"] == len(MIXED)
    assert sum(foot["unpriced_reasons"].values()) == 2
    assert (foot["book"], foot["tz"], foot["currency"]) == (BOOK.digest, "UTC", "USD")
    json.dumps(as_json(table))


@pytest.mark.parametrize("name", OF_ANY_USAGE)
def test_every_report_of_an_empty_ledger(report, name):
    table = report(name, [], *args_of(name))
    assert table.footer["usd"] == table.footer["read"] == 0
    assert sum(row.get("usd", 0) for row in table.rows) == 0
    json.dumps(as_json(table))


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("by", "model"),
        ("daily", "day"),
        ("weekly", "week"),
        ("monthly", "month"),
        ("session", "session"),
        ("bill", "model"),
    ],
)
def test_rows_sum_to_the_footer(report, name, column):
    table = report(name, MIXED, *args_of(name))
    assert column in table.columns
    assert sum(row["usd"] or 0 for row in table.rows) == table.footer["usd"]
    assert sum(row["calls"] for row in table.rows) == len(MIXED)
    assert sum(row["unpriced_calls"] for row in table.rows) == table.footer["unpriced"]
    for meter in METERS:
        assert sum(row[meter] for row in table.rows) == sum(
            getattr(Vector(*c.parts[0][1]), meter) for c in MIXED
        )


def test_json_amounts_are_exact_strings_and_unknown_is_null(report):
    answer = as_json(report("by", MIXED, ("model",)))
    amounts = {row["model"]: row["usd"] for row in answer["rows"]}
    assert amounts["anthropic.claude-from-tomorrow"] is None
    assert amounts["claude-haiku-5-5"] == "0.050013"  # 100,001 x 0.50 and 5 x 2.50, each a million
    assert all(amount is None or amount.__class__ is str for amount in amounts.values())
    assert sum(Decimal(amount) for amount in amounts.values() if amount) == Decimal(answer["footer"]["usd"])
    steps = as_json(report("bill", MIXED))["waterfall"]
    assert all(step["usd"].__class__ is str for step in steps)
    assert sum(Decimal(step["usd"]) for step in steps[:-1]) == Decimal(steps[-1]["usd"])
    for row in as_json(report("levers", MIXED))["rows"]:
        assert {row[name].__class__ for name in ("eligible_usd", "applied_usd", "missing_usd")} == {str}


def test_footer_counts_what_was_rejected_when_read(report):
    files = [
        SourceFile(
            "a.jsonl", 1, 1, "claude_code", 9, 2, ("3: not JSON", "5: output_tokens is negative (-1)")
        ),
        SourceFile("b.jsonl", 1, 1, "claude_code", 9, 1, ("1: no timestamp",)),
    ]
    foot = report("daily", MIXED, files=files).footer
    assert foot["read"] == len(MIXED) + 3 == foot["priced"] + foot["unpriced"] + foot["rejected"]
    assert foot["rejected_reasons"] == [
        "a.jsonl:3: not JSON",
        "a.jsonl:5: output_tokens is negative (-1)",
        "b.jsonl:1: no timestamp",
    ]


@pytest.mark.parametrize(
    ("calls", "heading"),
    [
        ([on(US_SONNET, Vector(1))], COMPUTED),
        ([on("claude-opus-5", Vector(1))], LIST_VALUE),
        ([on("claude-opus-5", Vector(1), platform="bedrock")], COMPUTED),
        (
            [on("claude-opus-5", Vector(1)), on(US_SONNET, Vector(1))],
            f"{COMPUTED}; Claude Code on Anthropic: {LIST_VALUE}",
        ),
    ],
)
def test_the_heading_says_how_far_to_believe_it(report, calls, heading):
    assert report("daily", calls).heading == heading


# --- unknown is not nothing ------------------------------------------------------------------------


def test_a_group_without_any_price_has_none(report):
    unknown = on("anthropic.claude-from-tomorrow", Vector(7, 8), session="a")
    known = on(US_SONNET, Vector(7, 8), session="b")
    both = [
        on("anthropic.claude-from-tomorrow", Vector(7, 8), session="c"),
        on(US_SONNET, Vector(7, 8), session="c"),
    ]
    rows = {row["session"]: row for row in report("session", [unknown, known, *both]).rows}
    cost = total(Vector(7, 8), "3.3", "16.5")
    assert [rows[name]["usd"] for name in "abc"] == [None, cost, cost]
    assert [rows[name]["unpriced_calls"] for name in "abc"] == [1, 0, 1]
    by_meter = {row["meter"]: row["usd"] for row in report("by", [unknown], ("meter",)).rows}
    assert by_meter == {"input": None, "output": None}


def test_an_advisor_without_a_price_is_not_free_because_it_is_no_call_of_its_own(report):
    advisor = (LOG._replace(model_id="anthropic.claude-from-tomorrow"), Vector(50, 60))
    table = report("by", [call((LOG._replace(model_id=US_SONNET), Vector(1, 2)), advisor)], ("model",))
    rows = {row["model"]: row for row in table.rows}
    assert rows["anthropic.claude-from-tomorrow"]["usd"] is None
    assert rows["claude-sonnet-4-6"]["usd"] == total(Vector(1, 2), "3.3", "16.5")
    assert "unknown model" in "".join(table.footer["unpriced_reasons"])


def test_nothing_used_of_a_known_model_costs_nothing(report):
    (row,) = report("by", [on(US_SONNET, Vector())], ("model",)).rows
    assert (row["calls"], row["usd"], row["unpriced_calls"]) == (1, 0, 0)


# --- by --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys", [("meter",), ("meter", "model"), ("day", "meter"), ("model", "meter", "tag:team")]
)
def test_by_meter_sums_to_the_same(report, keys):
    table = report("by", MIXED, keys)
    assert sum(row["usd"] or 0 for row in table.rows) == table.footer["usd"]
    assert sum(row["tokens"] for row in table.rows) == sum(sum(c.parts[0][1]) for c in MIXED)
    assert set(table.columns) == {*keys, "calls", "tokens", "usd"}


def test_a_meter_costs_its_own_rate(report):
    tokens = Vector(1_000, 200, 3_000, 40, 5)
    rates = dict(zip(METERS, ("3.3", "16.5", "0.33", "4.125", "6.6"), strict=True))
    rows = {row["meter"]: row for row in report("by", [on(US_SONNET, tokens)] * 2, ("meter",)).rows}
    assert {name: row["usd"] for name, row in rows.items()} == {
        name: 2 * picos(rates[name], getattr(tokens, name)) for name in METERS
    }
    assert {row["calls"] for row in rows.values()} == {2}


def test_groups_come_dearest_first_and_times_in_order(report):
    models = [row["model"] for row in report("by", MIXED, ("model",)).rows]
    assert models[-2:] == ["anthropic.claude-from-tomorrow", "claude-sonnet-5-5"]
    costs = [row["usd"] or 0 for row in report("by", MIXED, ("model",)).rows]
    assert costs == sorted(costs, reverse=True)
    days = [row["day"] for row in report("daily", MIXED).rows]
    assert days == sorted(days) == ["2026-08-31", "2026-10-18", "2026-10-20"]
    assert [row["day"] for row in report("daily", MIXED, False, "desc").rows] == days[::-1]
    assert [row["week"] for row in report("weekly", MIXED).rows] == ["2026-08-31", "2026-10-12", "2026-10-19"]
    assert [row["month"] for row in report("monthly", MIXED).rows] == ["2026-08", "2026-10"]


def test_a_breakdown_adds_models(report):
    for name, keys in (
        ("daily", ("day",)),
        ("weekly", ("week",)),
        ("monthly", ("month",)),
        ("session", ("session", "project")),
    ):
        table = report(name, MIXED, True)
        assert table.columns[: len(keys) + 1] == (*keys, "model")
        assert len({tuple(row[key] for key in (*keys, "model")) for row in table.rows}) == len(table.rows)


def test_by_takes_tags_and_repeats_and_refuses_what_it_does_not_know(report):
    calls = [on(US_SONNET, Vector(1))._replace(tags=(("team", "a"),)), on(US_SONNET, Vector(2))]
    table = report("by", calls, ("tag:team", "tag:team"))
    assert {row["tag:team"]: row["input"] for row in table.rows} == {"a": 1, "": 2}
    with pytest.raises(QuestionError, match="cannot group by 'colour'"):
        report("by", calls, ("colour",))


def test_a_report_of_a_part_of_the_ledger(report):
    table = report(
        "by", MIXED, ("model",), where=(parse_where("model=claude-sonnet-4-6"),), since=date(2026, 10, 20)
    )
    assert [row["model"] for row in table.rows] == ["claude-sonnet-4-6"]
    assert (table.footer["read"], table.footer["unpriced_reasons"]) == (2, {})


# --- assumed money ---------------------------------------------------------------------------------


def test_money_that_hangs_on_the_ttl_is_that_of_the_writes(report):
    tokens = Vector(1_000, 200, 3_000, 400)
    call_ = on(US_SONNET, tokens, assumed="ttl")
    foot = report("daily", [call_, on(US_SONNET, tokens)]).footer
    (entry,) = foot["assumed"]
    assert (entry["name"], entry["calls"]) == ("ttl", 1)
    assert entry["usd"] == foot["assumed_usd"] == picos("4.125", 400)
    assert entry["upper_usd"] == picos("6.6", 400)
    settled = report("daily", [call_, on(US_SONNET, tokens)], assume={"ttl": "1h"}).footer
    assert settled["assumed"] == []
    assert settled["assumed_usd"] == 0
    assert settled["usd"] - foot["usd"] == entry["upper_usd"] - entry["usd"]
    by_meter = {row["meter"]: row for row in report("by", [call_], ("meter",), assume={"ttl": "1h"}).rows}
    assert "cache_write_5m" not in by_meter
    assert (by_meter["cache_write_1h"]["tokens"], by_meter["cache_write_1h"]["calls"]) == (400, 1)


def test_money_that_hangs_on_the_endpoint_is_all_of_the_call(report):
    opaque = on(PROFILE, Vector(600, 5), served_model="claude-opus-5")
    open_ = report("daily", [opaque, on(US_SONNET, Vector(1))]).footer
    (entry,) = open_["assumed"]
    assert (entry["name"], entry["calls"], "upper_usd" in entry) == ("endpoint", 1, False)
    assert entry["usd"] == open_["assumed_usd"] == total(Vector(600, 5), "5.5", "27.5")
    for asked, rates in (
        ({"assume": {"endpoint": "global"}}, ("5", "25")),
        ({"assume": {"endpoint": "eu"}}, ("5.5", "27.5")),
        ({"profiles": {PROFILE: "global.anthropic.claude-opus-5"}}, ("5", "25")),
    ):
        foot = report("daily", [opaque], **asked).footer
        assert (foot["assumed_usd"], foot["usd"]) == (0, total(Vector(600, 5), *rates))


def test_money_that_hangs_on_two_assumptions_counts_once(report):
    both = on(PROFILE, Vector(600, 5, 0, 30), served_model="claude-opus-5", assumed="ttl")
    foot = report("daily", [both]).footer
    assert {entry["name"]: entry["usd"] for entry in foot["assumed"]} == {
        "endpoint": foot["usd"],
        "ttl": picos("6.875", 30),
    }
    assert foot["assumed_usd"] == foot["usd"]


def test_a_batch_rate_nobody_has_seen_is_assumed(report):
    foot = report("daily", [on("global.anthropic.claude-opus-5-5", Vector(100, 10), mode="batch")]).footer
    assert [(entry["name"], entry["usd"]) for entry in foot["assumed"]] == [
        ("batch_rate", total(Vector(100, 10), "2", "10"))
    ]


# --- the bill --------------------------------------------------------------------------------------


def steps(table: Table) -> dict[str, int]:
    return {step["step"]: step["usd"] for step in table.parts["waterfall"]}


def plain(tokens: Vector, rates: tuple[str, str]) -> int:
    return picos(rates[0], tokens.prompt) + picos(rates[1], tokens.output)


BILLS: Mapping[str, tuple[Usage, dict[str, int]]] = {
    "global, nothing cached": (
        on(GLOBAL_SONNET, Vector(1_000, 100)),
        {"list": total(Vector(1_000, 100), "3", "15")},
    ),
    "regional": (
        on(US_SONNET, Vector(1_000, 100)),
        {
            "list": total(Vector(1_000, 100), "3", "15"),
            "endpoint_premium": total(Vector(1_000, 100), "0.3", "1.5"),
        },
    ),
    "cached": (
        on(GLOBAL_SONNET, Vector(1_000, 100, 10_000, 400, 50)),
        {
            "list": plain(Vector(1_000, 100, 10_000, 400, 50), ("3", "15")),
            "cache_writes": picos("0.75", 400) + picos("3", 50),
            "cache_reads": -picos("2.7", 10_000),
        },
    ),
    "a batch at a regional endpoint": (
        on(US_SONNET, Vector(1_000, 100), mode="batch"),
        {
            "list": total(Vector(1_000, 100), "3", "15"),
            "endpoint_premium": total(Vector(1_000, 100), "0.3", "1.5"),
            "batch": -total(Vector(1_000, 100), "1.65", "8.25"),
        },
    ),
    "a cached batch, direct": (
        on("claude-sonnet-4-6", Vector(0, 0, 1_000), mode="batch"),
        {"list": picos("3", 1_000), "cache_reads": -picos("2.7", 1_000), "batch": -picos("0.15", 1_000)},
    ),
    "past the cliff of Haiku 5.5": (
        on("global.anthropic.claude-haiku-5-5", Vector(100_001, 100)),
        {
            "list": total(Vector(100_001, 100), "0.10", "0.50"),
            "long_prompt": total(Vector(100_001, 100), "0.40", "2"),
        },
    ),
    "fast": (
        on("claude-opus-5", Vector(1_000, 100), mode="fast"),
        {"list": total(Vector(1_000, 100), "5", "25"), "fast": total(Vector(1_000, 100), "5", "25")},
    ),
    "in the US, direct": (
        on("claude-opus-5", Vector(1_000, 100), inference_geo="us"),
        {
            "list": total(Vector(1_000, 100), "5", "25"),
            "endpoint_premium": total(Vector(1_000, 100), "0.5", "2.5"),
        },
    ),
    "extended access": (
        on("us.anthropic.claude-3-5-sonnet-20241022-v2:0", Vector(1_000, 100)),
        {
            "list": total(Vector(1_000, 100), "3", "15"),
            "extended_access": total(Vector(1_000, 100), "3", "15"),
        },
    ),
    "never sold at a global endpoint": (
        on("us.anthropic.claude-opus-4-1-20250805-v1:0", Vector(1_000, 100)),
        {"list": total(Vector(1_000, 100), "15", "75")},
    ),
}


@pytest.mark.parametrize("case", BILLS)
def test_the_steps_of_a_plain_bill(report, case):
    made, expected = BILLS[case]
    assert steps(report("bill", [made])) == expected | {"total": sum(expected.values())}


def test_a_regional_premium_is_an_eleventh_of_the_regional_price(report):
    found = steps(report("bill", [on(US_SONNET, Vector(1_000, 100))]))
    assert found["endpoint_premium"] * 11 == found["total"]


def test_the_bill_of_everything(report):
    table = report("bill", [made for made, _ in BILLS.values()] + MIXED)
    found = steps(table)
    ending = found.pop("total")
    assert sum(found.values()) == ending == table.footer["usd"]
    assert [step["step"] for step in table.parts["waterfall"][:-1]] == [
        name for name, _ in STEPS
    ]  # each is there
    assert found["cache_reads"] < 0
    assert found["batch"] < 0
    assert min(amount for name, amount in found.items() if name not in ("cache_reads", "batch")) > 0


CARDS = BOOK.cards()
counts = st.integers(0, 2**35)


@settings(max_examples=400)
@given(st.sampled_from(CARDS), st.data())
def test_the_steps_of_any_card_sum_to_the_cost(card: Card, data):
    tokens = Vector(*[data.draw(counts) for _ in range(5 if card.cached else 2)])
    prompt = data.draw(st.sampled_from((card.prompt_from, min(card.prompt_to, ANY_PROMPT) - 1)))
    at = data.draw(st.sampled_from((card.starts, card.ends - timedelta(microseconds=1))))
    place = Resolved(card.sku, "", ())
    cell = Cell((), place, at, prompt, card, tokens, 1, Vector(), tokens @ card.rates, (), "bedrock_log", ())
    found = layers(BOOK, cell, card)
    assert sum(found.values()) == cell.cost
    assert list(found) == [name for name, _ in STEPS if name in found]
    assert found["list"] >= 0
    assert found.get("cache_reads", 0) <= 0 <= found.get("cache_writes", 0)
    assert found.get("batch", 0) <= 0
    assert min(found.get(name, 0) for name in ("endpoint_premium", "extended_access", "long_prompt")) >= 0


# --- levers ----------------------------------------------------------------------------------------


def lever(table: Table, name: str) -> dict[str, int]:
    (row,) = (row for row in table.rows if row["lever"] == name)
    return {key.removesuffix("_usd"): row[key] for key in ("eligible_usd", "applied_usd", "missing_usd")}


def test_every_lever_has_a_row_and_says_whether_it_is_exact(report):
    table = report("levers", MIXED)
    assert [row["lever"] for row in table.rows] == list(LEVERS)
    labels = {row["lever"]: row["label"] for row in table.rows}
    assert (labels["tier"], labels["batch"]) == ("exact, same tokens", "upper limit")
    assert set(labels.values()) == {"exact, same tokens", "upper limit"}


def test_the_endpoint_lever_is_regional_minus_global_on_the_same_tokens(report):
    tokens = Vector(1_000, 200, 3_000, 40, 5)
    regional = total(tokens, "3.3", "16.5", "0.33", "4.125", "6.6")
    everywhere = total(tokens, "3", "15", "0.30", "3.75", "6")
    table = report("levers", [on(US_SONNET, tokens), on(GLOBAL_SONNET, tokens)])
    assert lever(table, "endpoint") == {
        "eligible": regional + everywhere,
        "applied": regional - everywhere,
        "missing": regional - everywhere,
    }
    v2 = on("us.anthropic.claude-3-5-sonnet-20241022-v2:0", tokens)  # never sold at a global endpoint
    assert set(lever(report("levers", [v2]), "endpoint").values()) == {0}
    gov = on("us-gov.anthropic.claude-opus-5", tokens, region="us-gov-west-1")  # which cannot leave
    assert set(lever(report("levers", [gov]), "endpoint").values()) == {0}


def test_the_tier_lever_keeps_the_tokens(report):
    tokens = Vector(1_000, 200, 3_000, 40, 5)
    opus, sonnet = "global.anthropic.claude-opus-5", "global.anthropic.claude-sonnet-5"
    now, below = total(tokens, "5", "25", "0.5", "6.25", "10"), total(tokens, "2", "10", "0.2", "2.5", "4")
    assert lever(report("levers", [on(opus, tokens)]), "tier")["missing"] == now - below
    applied = lever(report("levers", [on(sonnet, tokens)]), "tier")["applied"]
    assert applied == now - below


def test_a_tier_is_compared_at_its_own_price_for_that_day_and_that_prompt(report):
    """Haiku 5.5 has a cliff and a first day that Sonnet 5 does not have."""
    sonnet = "global.anthropic.claude-sonnet-5"
    short, long = Vector(100_000, 100), Vector(100_001, 100)
    before = on(sonnet, short, datetime(2026, 9, 1, tzinfo=UTC))
    after = [on(sonnet, tokens, datetime(2026, 10, 8, tzinfo=UTC)) for tokens in (short, long)]
    saved = total(short, "1.9", "9.5") + total(long, "1.5", "7.5")
    found = lever(report("levers", [before, *after]), "tier")
    assert found["missing"] == saved
    assert found["eligible"] == total(short, "2", "10") * 2 + total(
        long, "2", "10"
    )  # it has Opus above it, too


def test_a_tier_below_that_would_cost_more_saves_nothing(report):
    v2 = "anthropic.claude-3-5-sonnet-20241022-v2:0"
    cheap = on(v2, Vector(1_000, 200), region="eu-central-1")  # 3 / 15, and Sonnet 4.6 is at 3.30 / 16.50
    found = lever(report("levers", [cheap]), "tier")
    assert (found["eligible"], found["missing"]) == (total(Vector(1_000, 200), "3", "15"), 0)


def test_every_tier_below_is_a_model_of_the_book():
    for high, low in BELOW.items():
        assert {high, low} <= BOOK.models.keys()
        assert high != low


def test_the_caching_lever_is_an_upper_limit_past_the_minimum(report):
    enough, too_little = Vector(1_024, 10), Vector(1_023, 10)  # Sonnet 4.6 caches from 1,024 tokens
    found = lever(report("levers", [on(GLOBAL_SONNET, enough), on(GLOBAL_SONNET, too_little)]), "caching")
    assert found == {"eligible": total(enough, "3", "15"), "applied": 0, "missing": picos("2.7", 1_024)}
    cached = Vector(0, 10, 1_024, 100)
    now = total(cached, "3", "15", "0.30", "3.75")
    found = lever(report("levers", [on(GLOBAL_SONNET, cached)]), "caching")
    assert found == {"eligible": now, "applied": plain(cached, ("3", "15")) - now, "missing": 0}


def test_the_batch_lever(report):
    tokens = Vector(1_000, 200)
    now = total(tokens, "3", "15")
    found = lever(
        report("levers", [on(GLOBAL_SONNET, tokens), on(GLOBAL_SONNET, tokens, mode="batch")]), "batch"
    )
    assert found == {"eligible": now + now // 2, "applied": now // 2, "missing": now // 2}
    none = on("global.anthropic.claude-sonnet-5", tokens)  # no batch SKU on Bedrock
    assert set(lever(report("levers", [none]), "batch").values()) == {0}


def test_a_batch_on_bedrock_forfeits_the_cache(report):
    pays, does_not = Vector(1_000, 200, 100), Vector(10, 20, 10_000)
    found = lever(report("levers", [on(GLOBAL_SONNET, tokens) for tokens in (pays, does_not)]), "batch")
    now = total(pays, "3", "15", "0.30")
    assert found["eligible"] == now
    assert found["missing"] == now - plain(pays, ("1.5", "7.5"))
    direct = lever(
        report("levers", [on("claude-sonnet-4-6", tokens) for tokens in (pays, does_not)]), "batch"
    )
    assert direct["missing"] * 2 == direct["eligible"] == now + total(does_not, "3", "15", "0.30")


@settings(max_examples=8)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([name for model in BOOK.models.values() for name in model.ids]),
            st.sampled_from(("", "global.", "us.")),
            st.sampled_from(("", "batch")),
            st.tuples(*[st.integers(0, 300_000)] * 5),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_what_levers_could_save_is_never_less_than_nothing_nor_more_than_was_spent(tmp_path_factory, asked):
    ledger = Ledger(tmp_path_factory.mktemp("ledger"))
    made = [
        on(prefix + name if "anthropic." in name else name, Vector(*tokens), mode=mode)
        for name, prefix, mode, tokens in asked
    ]
    ledger.append([one._replace(request_id=f"r{i}", message_id=f"m{i}") for i, one in enumerate(made)])
    table = REPORTS["levers"].make(ledger, Question())
    for row in table.rows:
        assert 0 <= row["missing_usd"] <= row["eligible_usd"] <= table.footer["usd"]
