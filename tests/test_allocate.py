"""The bill shared out: by the rules as the page states them, and summing to the bill to the picodollar."""

import json
import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.allocate import Exchange, allocate, apportion, table
from farthing.book import default_book
from farthing.cells import Question, QuestionError, cells
from farthing.cli import main
from farthing.config import Config, ConfigError, Pool, Team, load
from farthing.fx import FxError, Rates
from farthing.ledger import Ledger
from farthing.reports import as_json
from farthing.statement import Statement
from farthing.usage import EPOCH, Facts, Usage
from tests import bills

FIRST, LAST = date(2026, 9, 1), date(2026, 9, 30)
SHARED_ACCOUNT, SEARCH_ACCOUNT = "111122223333", "444455556666"
MODEL = "anthropic.claude-opus-5"
RATE = {
    "input": 5_500_000,
    "output": 27_500_000,
    "read": 550_000,
    "write": 6_875_000,
}  # picodollars, at a region
TEAMS = {
    "search": Team(tags=("team=search",), accounts=(SEARCH_ACCOUNT,)),
    "ads": Team(tags=("team=ads",)),
    "data": Team(tags=("team=data",)),
}


def call(
    number, team="", tokens=(1000, 0, 0, 0, 0), day=1, account=SHARED_ACCOUNT, model=MODEL, **tags
) -> Usage:
    at = datetime(2026, 9, day, 12, tzinfo=UTC) - EPOCH
    facts = Facts("bedrock_log", "bedrock", model, "", "us-east-1", account)
    tags |= {"team": team} if team else {}
    return Usage(
        at // timedelta(microseconds=1), f"r{number}", "", ((facts, tokens),), tuple(sorted(tags.items()))
    )


def ledger_of(folder, *calls) -> Ledger:
    ledger = Ledger(folder / "ledger")
    ledger.append([made._replace(request_id=f"r{i}") for i, made in enumerate(calls)])
    return ledger


def question(*pools, teams=TEAMS) -> Question:
    return Question(FIRST, LAST, config=Config(teams=teams, pools=tuple(pools)))


def borne(made) -> dict[str, int]:
    """Team to picodollars; and what is always true."""
    found = {team: made.of(team).picos for team in made.teams}
    assert sum(found.values()) == made.total.picos == made.of("").picos
    assert made.teams[-1] == "unassigned"
    return found


# --- the division ---------------------------------------------------------------------------------------


@given(st.integers(-(10**20), 10**20), st.lists(st.integers(0, 10**12), min_size=1, max_size=9).filter(any))
def test_parts_sum_to_the_whole_and_are_within_one_of_their_share(total, weights):
    parts = apportion(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - Fraction(total * weight, sum(weights))) < 1
        assert part == 0 or weight


# --- each rule ------------------------------------------------------------------------------------------


def test_a_call_is_its_team_s_and_what_nobody_claims_is_shown(tmp_path):
    ledger = ledger_of(tmp_path, call(0, "ads"), call(1, "data", (3000, 0, 0, 0, 0)), call(2))
    made = allocate(ledger, question())
    cost = 1000 * RATE["input"]
    assert borne(made) == {"data": 3 * cost, "ads": cost, "search": 0, "unassigned": cost}
    (note,) = made.notes
    assert note.startswith("$0.0055 of calls that no team claims: add members to teams")


def test_without_teams_the_tag_says_them(tmp_path):
    ledger = ledger_of(tmp_path, call(0, "ads"), call(1, "night"), call(2))
    pool = Pool(name="rest", where=("team=unassigned",), split="even")
    cost = 1000 * RATE["input"]
    assert borne(allocate(ledger, question(pool, teams={}))) == {
        "ads": cost + cost // 2, "night": cost + cost // 2, "unassigned": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "parts"),
    [
        ({"split": "proportion"}, {"ads": Fraction(1, 4), "data": Fraction(3, 4)}),
        ({"split": "even"}, {"search": Fraction(1, 3), "ads": Fraction(1, 3), "data": Fraction(1, 3)}),
        (
            {"split": "fixed", "shares": {"search": 2, "ads": 3}},
            {"search": Fraction(2, 5), "ads": Fraction(3, 5)},
        ),
        ({"split": "proportion", "among": ("ads", "search")}, {"ads": Fraction(1)}),
        (
            {"split": "even", "among": ("ads", "unassigned")},
            {"ads": Fraction(1, 2), "unassigned": Fraction(1, 2)},
        ),
        (
            {"split": "proportion", "among": ("search",)},
            {"search": Fraction(1)},
        ),  # it spent nothing: in equal parts
    ],
)
def test_a_pool_is_split_as_its_rule_says(rule, parts, tmp_path):
    ledger = ledger_of(
        tmp_path,
        call(0, "ads"),
        call(1, "data", (3000, 0, 0, 0, 0)),
        call(2, "data", (7, 0, 0, 0, 0), shared="yes"),
    )
    made = allocate(ledger, question(Pool(name="platform", where=("tag:shared=yes",), **rule)))
    borne(made)
    pool = 7 * RATE["input"]
    assert made.of("", "platform").picos == pool
    for team in made.teams:
        assert abs(made.of(team, "platform").picos - pool * parts.get(team, 0)) < 1


def test_the_first_pool_takes_a_call_and_what_is_in_a_pool_is_no_measure(tmp_path):
    ledger = ledger_of(
        tmp_path, call(0, "ads"), call(1, "data"), call(2, "data", (5000, 0, 0, 0, 0), x="1", y="1")
    )
    pools = (
        Pool(name="one", where=("tag:x=1",)),  # in proportion: 1 to 1, for the 5,000 tokens are in a pool
        Pool(name="two", where=("tag:y=1",), split="even"),
    )
    made = allocate(ledger, question(*pools))
    assert made.of("", "two").picos == 0
    assert made.of("ads", "one") == made.of("data", "one")
    assert made.of("", "one").picos == 5000 * RATE["input"]


def test_all_filters_of_a_pool_must_fit_and_patterns_are_those_of_where(tmp_path):
    other = call(1, "ads", model="anthropic.claude-sonnet-5")
    ledger = ledger_of(tmp_path, call(0, "ads"), other, call(2, "data"))
    pool = Pool(
        name="p", where=("model=claude-*[5],claude-op*", "team!=data"), split="fixed", shares={"search": 1}
    )
    made = allocate(ledger, question(pool))
    assert made.of("search", "p").picos == 1000 * RATE["input"]  # [5] is no set: the sonnet call fits nothing
    assert borne(made)["data"] == 1000 * RATE["input"]


def test_cache_writes_go_to_the_readers_of_that_day_account_and_model(tmp_path):
    """Ads writes 4,000 tokens; data reads three times as much of the prefix as ads; search reads on another day."""
    prefix = {"prefix": "handbook"}
    ledger = ledger_of(
        tmp_path,
        call(0, "ads", (10, 5, 0, 4000, 0), **prefix),
        call(1, "ads", (0, 0, 2000, 0, 0), **prefix),
        call(2, "data", (0, 0, 6000, 0, 0), **prefix),
        call(3, "data", (0, 0, 90_000, 0, 0)),  # of a prefix of its own
        call(4, "search", (0, 0, 8000, 0, 0), day=2, **prefix),
        call(5, "ads", (0, 0, 0, 1000, 0), day=3, **prefix),  # nobody read it
    )
    made = allocate(ledger, question(Pool(name="handbook", where=("tag:prefix=handbook",), split="reads")))
    write = 4000 * RATE["write"]
    assert made.of("ads", "handbook").picos == write // 4 + 1000 * RATE["write"]
    assert made.of("data", "handbook").picos == write * 3 // 4
    assert made.of("search", "handbook").picos == 0
    assert made.of("ads", "direct").picos == 10 * RATE["input"] + 5 * RATE["output"] + 2000 * RATE["read"]
    borne(made)


def test_what_reads_leave_of_a_call_may_fall_in_the_next_pool(tmp_path):
    ledger = ledger_of(
        tmp_path, call(0, "ads", (10, 0, 0, 4000, 0), warm="1"), call(1, "data", (0, 0, 8, 0, 0), warm="1")
    )
    pools = (
        Pool(name="prefix", where=("tag:warm=1",), split="reads"),
        Pool(name="warmer", where=("tag:warm=1", "team=ads"), split="fixed", shares={"search": 1}),
    )
    made = allocate(ledger, question(*pools))
    assert made.of("data", "prefix").picos == 4000 * RATE["write"]
    assert made.of("search", "warmer").picos == 10 * RATE["input"]
    assert borne(made)["ads"] == 0


# --- laws -----------------------------------------------------------------------------------------------

TAGS = ("search", "ads", "data", "nobody", "")


def random_pools(rng: random.Random) -> list[Pool]:
    pools = []
    for i in range(rng.randrange(4)):
        where = rng.sample(
            [
                "team=unassigned",
                "tag:shared=yes",
                "model=claude-opus-*",
                f"account!={SEARCH_ACCOUNT}",
                "team=a*,data",
            ],
            rng.choice([1, 1, 2]),
        )
        split = rng.choice(["proportion", "even", "fixed", "reads"])
        kinds = split != "reads" and rng.random() < 0.4
        pools.append(
            Pool(
                name=f"pool {i}",
                where=() if kinds else tuple(where),
                kinds=tuple(rng.sample(["tax", "cred*", "not_seen"], 2)) if kinds else (),
                split=split,
                shares={"ads": rng.randrange(1, 5), "data": rng.randrange(4)} if split == "fixed" else {},
                among=tuple(rng.sample(["ads", "data", "unassigned"], 2))
                if split != "fixed" and i % 2
                else (),
            )
        )
    return pools


def random_calls(rng: random.Random, count: int = 60) -> list[bills.Call]:
    return bills.traffic(days=4, a_day=count // 4, seed=rng.randrange(10**6))


class BookRates(bills.Rates):
    """Dollars a token by the book; what is tested here is whose they are."""

    def __init__(self):
        pass

    def of(self, model, endpoint, mode, meter) -> Decimal:
        cards = [card for card in default_book().cards() if card.sku[:2] == ("bedrock", model)]
        card = next(
            card for card in cards
            if (card.sku.endpoint, card.sku.mode, card.sku.zone) == (endpoint, mode, "")
            and card.starts <= bills.MONTH < card.ends and card.prompt_from == 0
        )  # fmt: skip
        return Decimal(getattr(card.rates, meter)) / 10**12


def seen(calls, rng) -> list[Usage]:
    prefix = {"global": "global.", "regional": ""}
    ids = {
        model.id: next(name for name in model.ids if name.startswith("anthropic."))
        for model in default_book().models.values()
        if any(name.startswith("anthropic.") for name in model.ids)
    }
    found = []
    for i, one in enumerate(calls):
        facts = Facts("bedrock_log", "bedrock", prefix[one.endpoint] + ids[one.model], "", one.region, one.account,
                      mode="batch" if one.mode == "batch" else "")  # fmt: skip
        tags = {"team": rng.choice(TAGS), "shared": rng.choice(["yes", "no"])}
        pairs = tuple((key, value) for key, value in sorted(tags.items()) if value)
        found.append(
            Usage((one.at - EPOCH) // timedelta(microseconds=1), f"r{i}", "", ((facts, one.tokens),), pairs)
        )
    return found


def daily_rates() -> Rates:
    days = [FIRST + timedelta(days=i) for i in range(30)]
    return Rates(
        "made.csv", "0", {"EUR": {f"{day}": Fraction(9_000 + 7 * i, 10_000) for i, day in enumerate(days)}}
    )


@pytest.mark.parametrize("seed", range(12))
def test_everything_sums_to_the_cost(seed, tmp_path):
    rng = random.Random(seed)
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(seen(random_calls(rng), rng))
    asked = question(*random_pools(rng), teams=TEAMS if seed % 3 else {})
    rates = daily_rates()
    made = allocate(ledger, asked, exchange=Exchange(rates, "EUR"))
    by_day: dict[str, int] = defaultdict(int)
    for cell in cells(ledger, asked, ("day",)):
        by_day[cell.keys[0]] += cell.cost
    assert sum(borne(made).values()) == sum(by_day.values())
    assert made.total.picos > 0
    euros = Fraction(0)
    for day, picos in by_day.items():
        euros += picos * rates.at(date.fromisoformat(day), "EUR").per_usd
    assert made.of("").other == made.total.other
    assert abs(made.total.other - euros) < 10**4  # of 10^-12 euros: each amount is rounded once


@pytest.mark.parametrize("seed", range(12))
def test_everything_sums_to_the_bill(seed, tmp_path):
    """Our logs lack some of the calls, a model is billed below list, and there are a credit and tax."""
    rng = random.Random(seed)
    calls = random_calls(rng)
    usages = seen(calls, rng)
    kept = [one for one in usages if rng.random() < 0.8]
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(kept)
    lines = bills.lines(calls, BookRates())
    lines = [bills.dearer(line, "0.8613") if line.model == "claude-opus-5" else line for line in lines]
    lines += [bills.apart("Credit", "-5"), bills.apart("Tax", "12.5", account=SEARCH_ACCOUNT)]
    bill = Statement([bills.write_csv(tmp_path / "cur.csv", lines)])
    made = allocate(ledger, question(*random_pools(rng)), bill, Exchange(daily_rates(), "EUR"))
    rest = sum(entry.picos for entry in bill.apart) + sum(unknown.picos for unknown in bill.undecoded)
    assert sum(borne(made).values()) == bill.billed_picos + rest
    billed = int(sum(line.cost for line in lines) * 10**12)
    assert abs(made.total.picos - billed) <= len(lines)  # finer than a picodollar
    assert made.of("").other == made.total.other > 0


# --- a bill ---------------------------------------------------------------------------------------------


@pytest.fixture
def billed(tmp_path):
    """What teams bear of a bill for some of the calls and some more lines."""

    def share(calls, lines, *pools):
        ledger = ledger_of(tmp_path, *calls)
        bill = Statement([bills.write_csv(tmp_path / "cur.csv", lines)])
        return allocate(ledger, question(*pools), bill)

    return share


def line(meter, tokens, usd, day=1, account=SHARED_ACCOUNT, endpoint="regional", **kwargs) -> bills.Line:
    return bills.Line(f"2026-09-{day:02}", account, "us-east-1", "claude-opus-5", endpoint, "on_demand", meter, False,
                      tokens, Decimal(usd), **kwargs)  # fmt: skip


def test_billed_dollars_follow_the_tokens_at_the_price_that_was_billed(billed):
    calls = [call(0, "ads", (1000, 40, 0, 0, 0)), call(1, "data", (3000, 0, 0, 0, 0))]
    made = billed(calls, [line("input", 4000, "0.02"), line("output", 40, "0.0011")])
    assert made.is_billed
    assert borne(made) == {
        "data": 15 * 10**9, "ads": 5 * 10**9 + 11 * 10**8, "search": 0, "unassigned": 0
    }  # fmt: skip


def test_nobody_pays_for_calls_that_the_logs_do_not_show_but_who_claims_the_account(billed):
    calls = [call(0, "ads"), call(1, "ads", account=SEARCH_ACCOUNT)]
    lines = [line("input", 4000, "0.04"), line("input", 4000, "0.04", account=SEARCH_ACCOUNT)]
    made = billed(calls, lines)
    assert made.of("ads", "direct").picos == 2 * 10**10
    assert made.of("unassigned", "not_seen").picos == made.of("search", "not_seen").picos == 3 * 10**10
    assert any("not_seen is nobody's" in note for note in made.notes)


def test_an_endpoint_billed_otherwise_is_still_the_teams(billed):
    calls = [call(0, "ads"), call(1, "data", (500, 0, 0, 0, 0), model=f"us.{MODEL}")]
    made = billed(calls, [line("input", 1500, "0.03", endpoint="global")])
    assert borne(made) == {"ads": 2 * 10**10, "data": 10**10, "search": 0, "unassigned": 0}


def test_what_is_taken_back_is_so_from_those_who_had_it(billed):
    calls = [call(0, "ads"), call(1, "data", (3000, 0, 0, 0, 0))]
    made = billed(calls, [line("input", 4000, "0.04"), line("input", -400, "-0.004")])
    assert borne(made)["data"] == 27 * 10**9
    assert borne(made)["ads"] == 9 * 10**9


def test_tax_and_credits_go_by_their_pools_or_stay_in_sight(billed):
    calls = [call(0, "ads"), call(1, "data", (3000, 0, 0, 0, 0))]
    lines = [line("input", 4000, "0.04"), bills.apart("Tax", "0.008"), bills.apart("Credit", "-0.01")]
    made = billed(calls, lines, Pool(name="vat", kinds=("tax",)))
    assert made.of("ads", "vat").picos == 2 * 10**9
    assert made.of("data", "vat").picos == 6 * 10**9
    assert made.of("unassigned", "credit").picos == -(10**10)
    assert sum(borne(made).values()) == 38 * 10**9


def test_a_bill_without_any_call_of_ours_is_all_there(billed):
    made = billed([], [line("input", 4000, "0.04"), bills.apart("Tax", "0.8", account=SEARCH_ACCOUNT)])
    assert borne(made) == {"search": 8 * 10**11, "ads": 0, "data": 0, "unassigned": 4 * 10**10}


# --- said -----------------------------------------------------------------------------------------------


def test_the_table_sums_by_row_and_by_column(tmp_path):
    ledger = ledger_of(tmp_path, call(0, "ads"), call(1, "data", (3001, 0, 0, 0, 0)), call(2))
    asked = question(Pool(name="rest", where=("team=unassigned",)))
    made = allocate(ledger, asked, exchange=Exchange(daily_rates(), "EUR"))
    shown = as_json(table(made, ledger, asked))
    for unit in ("usd", "eur"):
        parts = [name for name in shown["rows"][0] if name.endswith(f"_{unit}")]
        assert parts == [f"direct_{unit}", f"rest_{unit}"]
        for row in shown["rows"]:
            assert sum(Decimal(row[name]) for name in parts) == Decimal(row[unit])
        assert sum(Decimal(row[unit]) for row in shown["rows"]) == Decimal(shown[f"cost_{unit}"])
    assert shown["footer"]["fx"]["rates"] == {"2026-09-01": "0.9"}


def test_a_day_without_a_rate_is_an_error(tmp_path):
    ledger = ledger_of(tmp_path, call(0, "ads", day=20))
    rates = Rates("made.csv", "0", {"EUR": {"2026-09-01": Fraction(9, 10)}})
    with pytest.raises(FxError, match=r"made.csv: no rate of EUR for 2026-09-20"):
        allocate(ledger, question(), exchange=Exchange(rates, "EUR"))


def test_a_part_of_the_usage_cannot_be_shared_out(tmp_path):
    ledger = ledger_of(tmp_path, call(0, "ads"))
    bad = question(Pool(name="odd", where=("colour=red",)))
    with pytest.raises(QuestionError, match="pool odd: cannot filter by 'colour=red'"):
        allocate(ledger, bad)


FILE = """
[teams.ads]
tags = ["team=ads"]
[[pools]]
name = "rest"
where = ["team=unassigned"]
"""


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ledger_of(tmp_path, call(0, "ads"), call(1))
    (tmp_path / "farthing.toml").write_text('ledger = "ledger"\n' + FILE)
    with pytest.raises(SystemExit) as done:
        main(["allocate", "--month", "2026-09", "--json"])
    assert done.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert [(row["team"], row["usd"]) for row in said["rows"]] == [("ads", "0.011"), ("unassigned", "0")]
    assert said["cost_usd"] == said["footer"]["usd"] == "0.011"
    for wrong, says in (
        (["--month", "2026"], "write 2026-10"),
        (["--month", "2026-09", "--since", "2026-09-02"], "--month"),
    ):
        with pytest.raises(SystemExit) as done:
            main(["allocate", *wrong])
        assert done.value.code == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ('name = ""', "cannot be its name"),
        ('name = "direct"\nkinds = ["tax"]', "cannot be its name"),
        ('name = "a"', "write one of them"),
        ('name = "a"\nwhere = ["team=ads"]\nkinds = ["tax"]', "write one of them"),
        ('name = "a"\nwhere = ["ads"]', "'ads' is no filter"),
        ('name = "a"\nkinds = ["Sales Tax"]', "'Sales Tax' is no kind"),
        ('name = "a"\nkinds = ["tax"]\nsplit = "fair"', "none of proportion, even, fixed, reads"),
        ('name = "a"\nkinds = ["tax"]\nsplit = "reads"', "reads is for calls"),
        ('name = "a"\nkinds = ["tax"]\nsplit = "fixed"', "parts of each team"),
        ('name = "a"\nkinds = ["tax"]\nshares = { ads = 1 }', "parts of each team"),
        ('name = "a"\nkinds = ["tax"]\nsplit = "fixed"\nshares = { ads = 0 }', "one above"),
        ('name = "a"\nkinds = ["tax"]\nsplit = "fixed"\nshares = { ads = 0.5 }', "whole number"),
        ('name = "a"\nkinds = ["tax"]\nsplit = "fixed"\nshares = { sales = 1 }', "no team 'sales'"),
        ('name = "a"\nkinds = ["tax"]\namong = ["sales"]', "no team 'sales'"),
        ('name = "a"\nkinds = ["tax"]\namong = ["ads", "ads"]', "twice"),
        ('name = "a"\nkinds = ["tax"]\n[[pools]]\nname = "a"\nkinds = ["credit"]', "a name is used once"),
        ('name = "a"\nkind = ["tax"]', "did you mean `kinds`"),
    ],
)
def test_a_pool_that_cannot_be_is_refused_with_its_place(rule, says, tmp_path):
    path = tmp_path / "farthing.toml"
    path.write_text(f'[teams.ads]\ntags = ["team=ads"]\n[[pools]]\n{rule}\n')
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert says in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_currency_wants_its_rates(tmp_path):
    path = tmp_path / "farthing.toml"
    path.write_text('currency = "EUR"\n')
    with pytest.raises(ConfigError, match="EUR needs rates: add fx"):
        load(path)
