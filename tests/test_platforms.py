"""Bedrock, direct and CCU for the same usage; CCU rounding that loses no more than it says; what is no token."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing import cli
from farthing.api import import_paths
from farthing.book import Card, default_book
from farthing.cells import Question
from farthing.config import Config
from farthing.costs import Rates
from farthing.ledger import Ledger
from farthing.platforms import (
    CCU_PICOS,
    PLATFORMS,
    Side,
    breakeven,
    ccu_lines,
    compare,
    metered,
)
from farthing.usage import EPOCH, Facts, Sku, Usage

BOOK = default_book()
RATES = Rates.of(BOOK)
USD = 10**12
OURS = "111122223333"
TOKENS = (100_000, 20_000, 300_000, 0, 0)
OPUS = 100_000 * 5_000_000 + 20_000 * 25_000_000 + 300_000 * 500_000  # Opus 5 at $5, $25, $0.50: $1.15
NOON = datetime(2026, 9, 10, 12, 30, tzinfo=UTC)


def call(model: str, at: datetime = NOON, tokens=TOKENS, platform: str = "bedrock", **facts) -> Usage:
    said = Facts("bedrock_log", platform, model, account=OURS, **{"region": "us-east-1", **facts})
    name = f"{at}-{model}-{tokens}-{facts}"
    return Usage((at - EPOCH) // timedelta(microseconds=1), name, "", ((said, tuple(tokens)),))


@pytest.fixture
def sides(tmp_path):
    def make(*usages: Usage, **asked) -> dict[str, Side]:
        ledger = Ledger(tmp_path / "ledger")
        ledger.append(list(usages))
        return {side.platform: side for side in compare(ledger, Question(**asked))}

    return make


# --- the same usage --------------------------------------------------------------------------------------------------


def test_global_costs_the_same_everywhere(sides):
    found = sides(call("global.anthropic.claude-opus-5"))
    assert {side.listed for side in found.values()} == {OPUS}
    assert all((side.calls, side.unconfined, side.unpriced) == (1, 0, {}) for side in found.values())


def test_an_older_model_goes_to_its_one_endpoint_on_bedrock(sides):
    """Opus 4.1 has no global endpoint there, and costs the same."""
    found = sides(
        call("claude-opus-4-1-20250805", datetime(2025, 11, 3, tzinfo=UTC), platform="anthropic", region="")
    )
    assert found["bedrock"].listed == found["anthropic"].listed == 3 * OPUS
    assert not found["bedrock"].unpriced


def test_us_geography_is_a_tenth_more_everywhere(sides):
    found = sides(call("us.anthropic.claude-opus-5"))
    assert {side.listed * 10 for side in found.values()} == {OPUS * 11}
    assert not any(side.unconfined for side in found.values())


def test_other_geographies_are_lost_elsewhere_and_it_says_so(sides):
    """Direct and Claude Platform on AWS know the US or the world: a call of the EU would be global there."""
    found = sides(call("eu.anthropic.claude-opus-5", region="eu-central-1"))
    assert (found["bedrock"].listed * 10, found["bedrock"].unconfined) == (OPUS * 11, 0)
    for name in ("anthropic", "claude_aws"):
        assert (found[name].listed, found[name].unconfined) == (OPUS, 1)


def test_govcloud_has_no_like(sides):
    found = sides(call("us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", region="us-gov-west-1"))
    assert found["bedrock"].alone > 0
    assert found["bedrock"].alone_calls == 1
    assert found["claude_aws"].unpriced == {"GovCloud has no like on Claude Platform on AWS": 1}
    assert {side.listed for side in found.values()} == {0}  # sums are of what all have a price for


def test_fast_mode_is_direct_alone(sides):
    found = sides(call("claude-opus-5", platform="anthropic", mode="fast", region=""))
    assert (found["anthropic"].alone, found["anthropic"].calls) == (2 * OPUS, 0)
    assert [sum(found[name].unpriced.values()) for name in PLATFORMS] == [1, 0, 1]


def test_a_model_that_is_retired_elsewhere_cannot_move_there(sides):
    found = sides(call("us.anthropic.claude-3-5-sonnet-20241022-v2:0"))
    assert found["bedrock"].alone_calls == 1
    assert found["anthropic"].unpriced == {"claude-3-5-sonnet-v2 was retired on Claude API on 2025-10-28": 1}


def test_a_batch_loses_its_cache_on_bedrock(sides):
    found = sides(call("claude-opus-5", platform="anthropic", mode="batch", region=""))
    assert found["anthropic"].listed * 2 == OPUS
    assert found["bedrock"].listed * 2 == 400_000 * 5_000_000 + 20_000 * 25_000_000
    assert (found["bedrock"].uncached, found["anthropic"].uncached) == (1, 0)


def test_the_discount_is_taken_off_before_ccu(sides, tmp_path):
    offer = tmp_path / "offers.toml"
    offer.write_text(
        '[[offers]]\nname = "x"\nsigned = 2026-09-10\nstarts = 2026-09-10\n'
        '[[offers.rates]]\nplatform = "claude_aws"\npercent_off = "20"\n'
    )
    before = NOON - timedelta(days=1)
    found = sides(call("global.anthropic.claude-opus-5"), call("global.anthropic.claude-opus-5", before),
                  config=Config(contracts=(str(offer),)))  # fmt: skip
    assert found["bedrock"].discounted == found["anthropic"].discounted == 2 * OPUS
    assert (found["claude_aws"].listed, found["claude_aws"].discounted) == (2 * OPUS, OPUS + OPUS * 8 // 10)
    assert found["claude_aws"].hourly == {
        (OURS, before.replace(minute=0)): OPUS, (OURS, NOON.replace(minute=0)): OPUS * 8 // 10,
    }  # fmt: skip


def test_every_hour_of_the_day_is_its_own(sides):
    hours = [datetime(2026, 9, 10, hour, 59, 59, tzinfo=UTC) for hour in range(24)]
    found = sides(*(call("global.anthropic.claude-opus-5", at) for at in hours), tz="Asia/Kolkata")
    assert found["claude_aws"].hourly == {(OURS, at.replace(minute=0, second=0)): OPUS for at in hours}


# --- CCU -------------------------------------------------------------------------------------------------------------

picos = st.lists(st.integers(0, 10**14), max_size=60)


@given(picos)
def test_rounding_loses_no_more_than_it_says(hours):
    exact = sum(hours)
    carried, up, nearest = (sum(metered(hours, rule)) * CCU_PICOS for rule in ("carry", "up", "nearest"))
    assert 0 <= exact - carried < CCU_PICOS  # less than a cent in all
    assert 0 <= up - exact <= max(0, (CCU_PICOS - 1) * len(hours))  # less than a cent an hour
    assert abs(nearest - exact) * 2 <= CCU_PICOS * len(hours)  # half a cent an hour
    assert carried <= up


@given(picos)
def test_no_hour_is_less_than_nothing(hours):
    for rule in ("carry", "up", "nearest"):
        assert len(metered(hours, rule)) == len(hours)
        assert min(metered(hours, rule), default=0) >= 0


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(("a", "b")), st.integers(0, 2_000)), st.integers(0, 10**12), max_size=40
    )
)
def test_the_lines_of_the_months_sum_to_what_was_metered(spent):
    hourly = {
        (who, datetime(2026, 9, 1, tzinfo=UTC) + timedelta(hours=n)): cost for (who, n), cost in spent.items()
    }
    lines = ccu_lines(hourly)
    assert sum(line.usage_picos for line in lines) == sum(hourly.values())
    assert sum(line.hours for line in lines) == len(hourly)
    for who in {line.account for line in lines}:
        exact = sum(cost for (account, _), cost in hourly.items() if account == who)
        assert sum(line.ccu for line in lines if line.account == who) == exact // CCU_PICOS
    assert all(line.least <= line.ccu <= line.most for line in lines)


def test_rounding_by_hand():
    """Three hours of $0.014: one CCU each, and the rest of three makes a fourth only when carried."""
    hours = [14 * 10**9] * 3
    assert metered(hours) == [1, 1, 2]
    assert metered(hours, "up") == [2, 2, 2]
    assert metered(hours, "nearest") == [1, 1, 1]


# --- what is no token ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "percent", "tokens"), [("claude-haiku-4-5", 0, 80_000), ("claude-opus-5", 20, 8_888)]
)
def test_below_so_many_tokens_an_hour_the_runtime_dominates(model, percent, tokens):
    """Haiku 4.5 at $1: 80,000. Opus 5 with a fifth output: 0.08 / (0.8 x $5 + 0.2 x $25) a million, 8,888."""
    card = BOOK.find(Sku("claude_aws", model, "global", "", "on_demand"), NOON)
    assert isinstance(card, Card)
    assert breakeven(RATES, card, percent) == tokens


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, capsys):
    def call_it(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["platform", *words])
        out, err = capsys.readouterr()
        return int(str(ended.value.code)), out, err

    return call_it


USES = """
{"kind": "session", "at": "2026-09-10T09:00:00Z", "state": "running", "ms": 3600000}
{"kind": "session", "at": "2026-09-10T10:00:00Z", "state": "idle", "ms": 3600000}
{"kind": "web_search", "at": "2026-09-10T10:00:00Z", "searches": 3}
"""


def test_compare_has_one_ccu_line_a_month_and_says_what_bedrock_lacks(run, tmp_path):
    folder = tmp_path / "ledger"
    Ledger(folder).append([call("global.anthropic.claude-opus-5", tokens=(100_001, 0, 0, 0, 0))])
    (tmp_path / "uses.jsonl").write_text(USES)
    code, out, err = run("compare", "--ledger", str(folder), "--uses", str(tmp_path / "uses.jsonl"), "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    totals = {row["platform"]: row["total_usd"] for row in said["platforms"]}
    assert totals == {
        "bedrock": None,
        "anthropic": "0.610005",
        "claude_aws": "0.61",
    }  # 0.500005 + 0.08 + 0.03
    assert {row["platform"]: row["lacks_entries"] for row in said["platforms"]}["bedrock"] is True
    assert [(line["month"], line["account"], line["quantity"], line["usd"]) for line in said["ccu"]["lines"]] == [
        ("2026-09", "", 11, "0.11"), ("2026-09", OURS, 50, "0.5"),
    ]  # fmt: skip
    assert sum(Decimal(entry["usd"]) for entry in said["entries"]) == Decimal("0.11")
    assert {"name", *PLATFORMS} == set(said["features"][0])


def test_entries_of_the_ledger_count_and_once_beside_the_file_they_are_from(run, tmp_path):
    folder = tmp_path / "ledger"
    (tmp_path / "uses.jsonl").write_text(USES)
    ledger = Ledger(folder)
    import_paths(ledger, [tmp_path / "uses.jsonl"], now=datetime(2026, 11, 20, tzinfo=UTC))
    ledger.append([call("global.anthropic.claude-opus-5")])
    alone, beside = (
        json.loads(run("compare", "--ledger", str(folder), *more, "--json")[1])
        for more in ((), ("--uses", str(tmp_path / "uses.jsonl")))
    )
    assert alone == beside
    assert sum(Decimal(entry["usd"]) for entry in alone["entries"]) == Decimal("0.11")
    assert {row["platform"]: row["lacks_entries"] for row in alone["platforms"]}["bedrock"]
    assert run("compare", "--ledger", str(folder), "--uses", str(tmp_path / "none.jsonl"))[0] == 2


def test_what_people_read(run, tmp_path):
    folder = tmp_path / "ledger"
    Ledger(folder).append([call("eu.anthropic.claude-opus-5", region="eu-central-1")])
    code, out, _ = run("compare", "--ledger", str(folder))
    assert code == 0
    assert "Amazon Bedrock                      $1.26  1 calls, tokens $1.26" in out
    assert "1 calls that stay in a geography today would be global" in out
    assert "invoice 2026-09, 111122223333: 115 CCU at $0.01 = $1.15, metered in 1 hours" in out
    assert "usage and cost by API" in out


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON: the line is cut short"),
        ('{"kind": "sesion"}', "kind is none of session, web_search, code_execution"),
        ('{"kind": "session", "at": "soon", "state": "running", "ms": 1}', "not a time: 'soon'"),
        ('{"kind": "session", "at": "2026-09-10T09:00:00Z", "ms": 1}', "a session wants its state"),
        ('{"kind": "web_search", "at": "2026-09-10T09:00:00Z", "searches": -1}', "searches is no count"),
        ('{"kind": "web_search", "at": "2026-09-10T09:00:00Z", "number": 1}', "unknown key 'number'"),
    ],
)
def test_a_bad_line_is_told_and_a_good_one_beside_it_counts(run, tmp_path, line, says):
    folder = tmp_path / "ledger"
    Ledger(folder).append([call("global.anthropic.claude-opus-5")])
    (tmp_path / "uses.jsonl").write_text(USES + line + "\n")
    code, out, err = run("compare", "--ledger", str(folder), "--uses", str(tmp_path / "uses.jsonl"), "--json")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "uses.jsonl:5: " in err
    assert says in err
    assert len(json.loads(out)["entries"]) == 3


def test_runtime(run):
    code, out, _ = run("runtime", "--model", "claude-haiku-4-5", "--json")
    assert code == 0
    assert json.loads(out) == {
        "session_hour_usd": "0.08", "always_on_month_usd": "57.6", "output_percent": 0,
        "models": [{"model": "claude-haiku-4-5", "tokens_per_hour": 80_000}],
    }  # fmt: skip
    assert "claude-haiku-4-5" in run("runtime")[1]
    assert run("runtime", "--output-percent", "101")[0] == 2
    assert "nearest known" in run("runtime", "--model", "claude-haiku-45")[2]
