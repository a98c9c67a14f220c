"""`farthing contract`: drawdown, forecast shortfall, and what a month of waiting cost."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from farthing import cli
from farthing.ledger import Ledger
from farthing.usage import EPOCH, Facts, Usage

OURS, THEIRS = "111122223333", "444455556666"
OPUS = "global.anthropic.claude-opus-5"
ONE = Decimal(10)  # a call of two million input tokens, at $5
OFFER = f"""
[[offers]]
name = "ours"
accounts = ["{OURS}"]
signed = 2026-09-01
starts = 2026-09-01
ends = 2026-12-01

[offers.commitment]
usd = "1000"

[[offers.rates]]
model = "claude-opus-5"
percent_off = "20"
"""


def daily(first: str, days: int, account: str = OURS, model: str = OPUS) -> list[Usage]:
    """A call a day at noon."""
    facts = Facts("bedrock_log", "bedrock", model, region="us-east-1", account=account)
    at = datetime.fromisoformat(first).replace(tzinfo=UTC, hour=12)
    return [
        Usage((at + timedelta(days=n) - EPOCH) // timedelta(microseconds=1), f"{account}-{first}-{n}", "",
              ((facts, (2_000_000, 0, 0, 0, 0)),))
        for n in range(days)
    ]  # fmt: skip


@pytest.fixture
def contract(tmp_path, capsys):
    """contract(offers, usages, *words): exit code, stdout, stderr."""

    def run(offers: str, usages: list[Usage], *words: str) -> tuple[int, str, str]:
        Ledger(tmp_path / "ledger").append(usages)
        (tmp_path / "offers.toml").write_text(offers)
        with pytest.raises(SystemExit) as ended:
            cli.main(["contract", "--contract", str(tmp_path / "offers.toml"), "--ledger", str(tmp_path / "ledger"),
                      *words])  # fmt: skip
        out, err = capsys.readouterr()
        return int(str(ended.value.code)), out, err

    return run


def answer(said: tuple[int, str, str]) -> dict:
    assert said[0] == 0, said[2]
    (offer,) = json.loads(said[1])["offers"]
    return dict(offer)


def test_drawdown_forecast_and_a_month_earlier(contract):
    """$8 a day of 91, of which the last was known until noon: $732 of $1,000. August cost 20 % of $310 too much."""
    usages = [*daily("2026-08-01", 71), *daily("2026-09-01", 5, THEIRS)]  # ours until 10 October
    offer = answer(contract(OFFER, usages, "--until", "2026-10-10", "--json"))
    assert (offer["list_usd"], offer["contracted_usd"], offer["saved_usd"]) == ("400", "320", "80")
    (period,) = offer["commitment"]
    assert (period["spent_usd"], period["missing_usd"], period["over"]) == ("320", "680", False)
    assert (period["days"], period["days_passed"]) == (91, 39)
    assert period["forecast_usd"]["mid"] == "732"
    assert period["forecast_shortfall_usd"]["mid"] == "268"
    low, high = (Decimal(period["forecast_usd"][end]) for end in ("low", "high"))
    assert low <= 732 <= high
    assert Decimal(period["forecast_shortfall_usd"]["high"]) == max(Decimal(0), 1000 - low)
    assert offer["earlier"] == {
        "since": "2026-08-01", "until": "2026-09-01", "saved_usd": "62", "by_usage_of": ["2026-08-01", "2026-09-01"],
        "stands_in": False,
    }  # fmt: skip


def test_as_of_a_day_nothing_after_it_is_known(contract):
    """The same answer on that day as later of that day."""
    then = contract(OFFER, daily("2026-08-01", 71), "--until", "2026-10-10", "--json")
    since = contract(OFFER, daily("2026-10-11", 30), "--until", "2026-10-10", "--json")
    assert answer(then) == answer(since)


def test_an_offer_that_has_not_begun_has_cost_nothing_and_is_told_by_the_last_days(contract):
    offer = answer(contract(OFFER, daily("2026-07-24", 33), "--until", "2026-08-25", "--json"))
    assert (offer["list_usd"], offer["saved_usd"], offer["commitment"]) == ("0", "0", [])
    assert offer["earlier"]["stands_in"] is True
    assert offer["earlier"]["by_usage_of"] == ["2026-07-26", "2026-08-26"]
    assert offer["earlier"]["saved_usd"] == "62"


def test_when_it_is_over_nothing_is_forecast(contract):
    offer = answer(contract(OFFER, daily("2026-09-01", 91), "--until", "2026-12-05", "--json"))
    (period,) = offer["commitment"]
    assert (period["over"], period["spent_usd"], period["missing_usd"]) == (True, "728", "272")
    assert period["forecast_usd"] is None


def test_days_before_the_ledger_are_told_by_others(contract):
    """No usage of August is known: the last 31 days stand in for it, and it says so."""
    said = contract(OFFER, daily("2026-09-01", 40), "--until", "2026-10-10", "--json")
    earlier = answer(said)["earlier"]
    assert earlier["by_usage_of"] == ["2026-09-10", "2026-10-11"]
    assert (earlier["stands_in"], earlier["saved_usd"]) == (True, "62")


def test_an_offer_before_it_ends_where_the_new_one_would_have_begun(contract):
    """Worth is against what was paid in that month, and not against list."""
    before = OFFER.replace('"ours"', '"before"').replace('[offers.commitment]\nusd = "1000"\n', "")
    before = (
        before.replace("2026-12-01", "2026-09-01 ")
        .replace("= 2026-09-01\n", "= 2026-07-01\n")
        .replace('"20"', '"5"')
    )
    code, out, err = contract(before + OFFER, daily("2026-08-01", 60), "--until", "2026-09-29", "--json")
    assert code == 0, err
    *_, ours = json.loads(out)["offers"]
    assert ours["name"] == "ours"
    assert Decimal(ours["earlier"]["saved_usd"]) == 31 * ONE * 15 / 100


def test_what_people_read(contract):
    volume = '\n[offers.volume]\nevery = "month"\ntiers = [{ from_usd = "100", percent_off = "50" }]\n'
    code, out, _ = contract(OFFER + volume, daily("2026-08-01", 71), "--until", "2026-10-10")
    assert code == 0
    assert "ours: 2026-09-01 to 2026-12-01, 111122223333" in out
    assert "list $400.00, contracted $320.00: $80.00 saved so far" in out
    assert "commitment 2026-09-01 to 2026-12-01: $320.00 of $1,000.00 spent (32.0 %), day 39 of 91" in out
    assert "forecast shortfall $268.00" in out
    assert "volume 2026-09-01 to 2026-10-01: $240.00 spent, $70.00 comes back" in out
    assert "from 2026-08-01 it would have saved $62.00 more" in out


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            '"claude-opus-5"',
            '"claude-opus-55"',
            "model: unknown model 'claude-opus-55'; the nearest known are",
        ),
        ('"20"', '"120"', "percent_off: 120 is no discount"),
        ("starts = 2026-09-01", "starts = 2026-08-01", "no offer is retroactive"),
    ],
)
def test_an_offer_that_cannot_be_is_one_line(contract, old, new, says):
    code, out, err = contract(OFFER.replace(old, new), daily("2026-09-01", 1))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "offers.toml:" in err
    assert says in err


def test_overlapping_dates_are_one_line(contract):
    code, _, err = contract(OFFER + OFFER.replace('"ours"', '"also"'), daily("2026-09-01", 1))
    assert (code, len(err.splitlines())) == (2, 1)
    assert "overlaps 'ours'" in err


def test_without_offers_it_says_where_to_name_them(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["contract"])
    assert ended.value.code == 2
    assert "no private offers: name a file by --contract" in capsys.readouterr().err


def test_an_empty_ledger_has_nothing_to_forecast_by(contract):
    offer = answer(contract(OFFER, daily("2026-09-01", 3, THEIRS), "--until", "2026-09-10", "--json"))
    assert offer["commitment"][0]["forecast_usd"] is None
    assert offer["commitment"][0]["missing_usd"] == "1000"
    assert date.fromisoformat(offer["starts"]) == date(2026, 9, 1)
