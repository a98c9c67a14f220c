"""Private offers: read with one-line faults, and a book whose cards have their rates on their days, and no others."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.book import FOREVER, Unpriced, default_book, midnight
from farthing.meters import METERS, Vector
from farthing.offers import (
    ENDPOINTS,
    Offer,
    OfferError,
    Rule,
    books,
    contracted,
    load_offers,
    meters_of,
    read_offers,
)
from farthing.rating import rate

BOOK = default_book()
OFFER = """
[[offers]]
name = "Example 2026"
signed = 2026-08-20
starts = 2026-09-01
ends = 2026-10-01
"""
CALL = {"input": 1_000, "output": 200, "cache_read": 5_000}
OPUS = "global.anthropic.claude-opus-5"


def table(**keys) -> str:
    """A rate of an offer."""
    return "[[offers.rates]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


def offer_of(rates: str, head: str = OFFER) -> Offer:
    (found,) = read_offers(head + rates, "offer.toml")
    return found


def cost(book, day: str, model: str = OPUS, **how) -> int:
    charge = rate(model, datetime.fromisoformat(day).replace(tzinfo=UTC), CALL, book=book, **how)
    assert charge.cost is not None, charge.unpriced
    return charge.cost


# --- the two books ---------------------------------------------------------------------------------------------------


def test_list_and_contract_are_two_books():
    """Rated with each, a call has its list cost and its contracted cost; the charge names the book."""
    book = contracted(BOOK, [offer_of(table(percent_off="12.5"))])
    listed = 1_000 * 5_000_000 + 200 * 25_000_000 + 5_000 * 500_000  # $5, $25 and $0.50 a million
    assert cost(BOOK, "2026-09-15") == listed
    assert cost(book, "2026-09-15") == listed * 7 // 8
    assert book.digest != BOOK.digest
    line = rate(OPUS, datetime(2026, 9, 15, tzinfo=UTC), CALL, book=book).lines[0]
    assert (line.card.id, line.card.confidence) == (
        "bedrock/claude-opus-5/global/on_demand@2026-09-01 by Example 2026",
        "contract",
    )
    assert line.card.factors.endswith("Example 2026: input 12.5 % off; output 12.5 % off; cache_read 12.5 % off; "
                                      "cache_write_5m 12.5 % off; cache_write_1h 12.5 % off")  # fmt: skip


@pytest.mark.parametrize(
    ("day", "off"), [("2026-08-31", 0), ("2026-09-01", 10), ("2026-09-30", 10), ("2026-10-01", 0)]
)
def test_it_holds_from_its_first_day_until_its_last(day, off):
    book = contracted(BOOK, [offer_of(table(percent_off="10"))])
    assert cost(book, day) * 100 == cost(BOOK, day) * (100 - off)


def test_the_last_microsecond_is_in_it():
    book = contracted(BOOK, [offer_of(table(percent_off="10"))])
    last = datetime(2026, 10, 1, tzinfo=UTC) - timedelta(microseconds=1)
    assert rate(OPUS, last, CALL, book=book).cost == cost(BOOK, "2026-09-30") * 9 // 10


def test_without_an_end_it_holds_for_good():
    head = OFFER.replace("ends = 2026-10-01\n", "")
    book = contracted(BOOK, [offer_of(table(percent_off="10"), head)])
    assert cost(book, "2035-01-01") == cost(BOOK, "2035-01-01") * 9 // 10


def test_what_is_sold_by_others_has_list_prices():
    """An offer is AWS's, unless it says of which platform it is."""
    book = contracted(BOOK, [offer_of(table(percent_off="10"))])
    assert cost(book, "2026-09-15", "claude-opus-5") == cost(BOOK, "2026-09-15", "claude-opus-5")
    own = contracted(BOOK, [offer_of(table(platform="anthropic", percent_off="10"))])
    assert cost(own, "2026-09-15", "claude-opus-5") == cost(BOOK, "2026-09-15", "claude-opus-5") * 9 // 10
    assert cost(own, "2026-09-15") == cost(BOOK, "2026-09-15")


def test_accounts_that_are_not_named_have_list_prices():
    head = OFFER + 'accounts = ["111122223333", "444455556666"]\n'
    of = books(BOOK, [offer_of(table(percent_off="10"), head)])
    assert of("777788889999") is BOOK
    assert of("") is BOOK
    assert of("111122223333") is of("444455556666")
    assert cost(of("111122223333"), "2026-09-15") == cost(BOOK, "2026-09-15") * 9 // 10


def test_an_offer_to_an_account_comes_before_one_to_all():
    whole = offer_of(table(percent_off="5"))
    own = offer_of(
        table(percent_off="20"),
        OFFER.replace("Example", "Own") + 'accounts = ["111122223333"]\n',
    )
    of = books(BOOK, [whole, own])
    assert cost(of("111122223333"), "2026-09-15") * 5 == cost(BOOK, "2026-09-15") * 4
    assert cost(of("777788889999"), "2026-09-15") * 20 == cost(BOOK, "2026-09-15") * 19


def test_a_percentage_is_rounded_half_even_once_and_says_so():
    book = contracted(
        BOOK,
        [
            offer_of(
                table(model="claude-haiku-5-5", percent_off="7.77"),
                OFFER.replace("ends = 2026-10-01\n", ""),
            )
        ],
    )
    at = datetime(2026, 11, 1, tzinfo=UTC)
    card = book.find(
        next(c.sku for c in BOOK.cards() if str(c.sku) == "bedrock/claude-haiku-5-5/regional/batch"), at
    )
    assert not isinstance(card, Unpriced)
    assert card.rates.input == 50_726  # 55,000 x 0.9223 = 50,726.5
    assert "input 7.77 % off, rounded from 50726.5 picodollars" in card.factors
    assert card.rates.output == 253_632  # 253,632.5, to the even one


# --- which rule wins -------------------------------------------------------------------------------------------------


SPECIFIC = """
[[offers.rates]]
percent_off = "1"
[[offers.rates]]
model = "claude-opus-*"
percent_off = "2"
[[offers.rates]]
model = "claude-opus-5"
percent_off = "4"
[[offers.rates]]
model = "claude-opus-5"
mode = "batch"
percent_off = "5"
[[offers.rates]]
model = "claude-opus-5"
meter = "output"
percent_off = "8"
[[offers.rates]]
model = "claude-opus-5"
meter = "output"
endpoint = "regional"
percent_off = "10"
[[offers.rates]]
model = "claude-opus-5"
meter = "output"
endpoint = "regional"
mode = "on_demand"
usd_per_million = "20"
"""


@pytest.mark.parametrize(
    ("model", "endpoint", "mode", "meter", "expected"),
    [
        ("claude-haiku-4-5", "global", "on_demand", "input", "0.99"),  # of 1
        ("claude-opus-4-6", "global", "on_demand", "input", "4.90"),  # of 5: the pattern
        ("claude-opus-5", "global", "on_demand", "input", "4.80"),  # the model
        ("claude-opus-5", "global", "batch", "input", "2.375"),  # of 2.50: the mode too
        ("claude-opus-5", "global", "on_demand", "output", "23"),  # of 25: the meter
        ("claude-opus-5", "global", "batch", "output", "11.5"),  # of 12.50: a meter comes before a mode
        ("claude-opus-5", "regional", "batch", "output", "12.375"),  # of 13.75: the endpoint too
        ("claude-opus-5", "regional", "on_demand", "output", "20"),  # the whole of it
    ],
)
def test_the_most_specific_rule_wins(model, endpoint, mode, meter, expected):
    book = contracted(BOOK, [offer_of(SPECIFIC)])
    sku = next(
        c.sku
        for c in BOOK.cards()
        if (c.sku.platform, c.sku.model, c.sku.endpoint, c.sku.mode) == ("bedrock", model, endpoint, mode)
    )
    card = book.find(sku, datetime(2026, 9, 15, tzinfo=UTC))
    assert not isinstance(card, Unpriced)
    assert getattr(card.rates, meter) == Decimal(expected) * 10**6


def test_an_absolute_rate_beats_a_percentage():
    both = '[[offers.rates]]\nmodel = "claude-opus-5"\nmeter = "output"\nmode = "on_demand"\n{}\n'
    rules = [both.format('percent_off = "50"'), both.format('usd_per_million = "20"')]
    for order in (rules, rules[::-1]):
        book = contracted(BOOK, [offer_of("".join(order))])
        assert rate(OPUS, datetime(2026, 9, 15, tzinfo=UTC), {"output": 1}, book=book).cost == 20_000_000


# --- laws ------------------------------------------------------------------------------------------------------------


models = st.sampled_from(sorted(BOOK.models))
rules = st.builds(
    Rule,
    model=st.one_of(st.just(""), models, st.sampled_from(["claude-opus-*", "claude-?-5-sonnet*"])),
    meter=st.sampled_from(["", *METERS]),
    endpoint=st.sampled_from(["", *ENDPOINTS]),
    mode=st.sampled_from(["", "on_demand", "batch"]),
    long_prompt=st.sampled_from([None, False, True]),
    share=st.integers(0, 9_999).map(lambda n: Fraction(n, 10_000)),
)
spans = st.tuples(st.integers(0, 700), st.integers(1, 300)).map(
    lambda span: (date(2025, 6, 1) + timedelta(span[0]), date(2025, 6, 1) + timedelta(span[0] + span[1]))
)
days = st.integers(-30, 1_100).map(lambda n: datetime(2025, 6, 1, tzinfo=UTC) + timedelta(n))


@st.composite
def offers(draw, name="A"):
    starts, ends = draw(spans)
    return Offer(
        name,
        frozenset(),
        starts,
        starts,
        draw(st.sampled_from([ends, None])),
        tuple(draw(st.lists(rules, max_size=4))),
    )


@given(st.lists(offers(), max_size=2))
def test_no_two_cards_overlap(made):
    contracted(BOOK, made).check()


@given(offers(), days, st.sampled_from(BOOK.cards()))
def test_outside_its_days_and_rules_a_price_is_list(offer, at, card):
    listed, paid = (
        BOOK.find(card.sku, at, card.prompt_from),
        contracted(BOOK, [offer]).find(card.sku, at, card.prompt_from),
    )
    if isinstance(listed, Unpriced):
        assert paid == listed  # an offer sells nothing that has no price
        return
    assert not isinstance(paid, Unpriced)
    starts, ends = midnight(offer.starts), midnight(offer.ends) if offer.ends else FOREVER
    for meter, rate_listed, rate_paid in zip(METERS, listed.rates, paid.rates, strict=True):
        fits = [rule for rule in offer.rules if rule.fits(listed, meter)]
        if not starts <= at < ends or not fits or meter not in meters_of(listed):
            assert rate_paid == rate_listed
        else:
            shares = [Fraction(rate_listed) * rule.share for rule in fits if rule.share is not None]
            assert any(abs(rate_paid - exact) <= Fraction(1, 2) for exact in shares)


@given(offers(), st.sampled_from(BOOK.cards()))
def test_the_days_of_a_price_stay_the_same(offer, card):
    """Split, its cards still cover just the days they did."""
    own = [c for c in contracted(BOOK, [offer]).cards(card.sku) if c.prompt_from == card.prompt_from]
    inside = sorted((c.starts, c.ends) for c in own if card.starts <= c.starts < card.ends)
    assert (inside[0][0], inside[-1][1]) == (card.starts, card.ends)
    assert all(before[1] == after[0] for before, after in pairwise(inside))
    assert len({c.id for c in own}) == len(own)


def test_no_offer_is_the_same_book():
    assert contracted(BOOK, []) is BOOK


def test_the_digest_is_of_the_rates_and_not_of_the_file(tmp_path):
    text = OFFER + table(percent_off="10")
    (tmp_path / "one.toml").write_text(text)
    (tmp_path / "two.toml").write_text("# a comment\n" + text)
    (tmp_path / "other.toml").write_text(text.replace('"10"', '"11"'))
    one, two, other = (
        contracted(BOOK, load_offers([tmp_path / f"{name}.toml"])) for name in ("one", "two", "other")
    )
    assert one.digest == two.digest != other.digest


# --- files -----------------------------------------------------------------------------------------------------------


FAULTS = {
    "no toml": ("\n[[offers", "offer.toml:2: no TOML: "),
    "nothing": ("", r"offer.toml:1: offers: write each offer as a table \[\[offers\]\]"),
    "a word": ('offers = "none"', r"offer.toml:1: offers: write each offer as a table \[\[offers\]\]"),
    "a sheet": ("model,percent\nclaude-opus-5,5\n", "offer.toml:1: no TOML: .*docs/contracts.md shows the form"),
    "cut in half": (OFFER + '[[offers.rates]]\npercent_off = "5', "offer.toml:8: no TOML: "),
    "one bracket": ('\n[offers]\nname = "x"\n', r"offer.toml:2: offers: write each offer as a table \[\[offers\]\]"),
    "another head": ('\n[[offer]]\nname = "x"\n', "offer.toml:2: offer: unknown key; did you mean `offers`"),
    "in a line": (OFFER + 'rates = [{ percent_off = "5" },\n  { percent_off = "500" }]\n',
                  "offer.toml:7: percent_off: 500"),
    "no name": (OFFER.replace('name = "Example 2026"\n', ""), "offer.toml:2: name: an offer needs a name"),
    "no signature": (OFFER.replace("signed = 2026-08-20\n", ""), "offer.toml:2: signed: is missing"),
    "retroactive": (OFFER.replace("08-20", "09-02"), "offer.toml:5: starts: 2026-09-01 is before it was signed"),
    "backwards": (OFFER.replace("2026-10-01", "2026-09-01"), "offer.toml:6: ends: 2026-09-01 is not after"),
    "a quoted day": (OFFER.replace("2026-08-20", '"2026-08-20"'), "offer.toml:4: signed: 2026-08-20 is no day"),
    "a time": (OFFER.replace("2026-08-20", "2026-08-20T00:00:00Z"), "offer.toml:4: signed: .* without a time"),
    "no rates": (OFFER, r"offer.toml:2: rates: an offer needs \[\[offers.rates\]\]"),
    "an account": (OFFER + 'accounts = ["42"]\n', "offer.toml:7: accounts: '42' is no account: an account id has 12"),
    "one account": (OFFER + 'accounts = "111122223333"\n', "offer.toml:7: accounts: not a list"),
    "a key": (OFFER + "start = 1\n", "offer.toml:7: start: unknown key; did you mean `starts`?"),
    "neither": (OFFER + "[[offers.rates]]\n", "offer.toml:7: a rate is either percent_off or usd_per_million"),
    "both": (OFFER + table(percent_off="1", usd_per_million="1"), "offer.toml:7: a rate is either"),
    "above 100": (OFFER + table(percent_off="101"), "offer.toml:8: percent_off: 101 is no discount"),
    "negative": (OFFER + "[[offers.rates]]\npercent_off = -5\n", "offer.toml:8: percent_off: -5 is no discount"),
    "a half": (OFFER + table(percent_off="half"), "offer.toml:8: percent_off: 'half' is no number"),
    "infinite": (OFFER + table(percent_off="inf"), "offer.toml:8: percent_off: 'inf' is no number"),
    "too fine": (OFFER + table(model="claude-opus-5", usd_per_million="0.0000001"),
                 "offer.toml:9: usd_per_million: .* no whole number of picodollars"),
    "a model": (OFFER + table(model="claude-opus-55", percent_off="1"),
                "offer.toml:8: model: unknown model 'claude-opus-55'; the nearest known are claude-opus-5"),
    "a pattern": (OFFER + table(model="gpt-*", percent_off="1"), r"offer.toml:8: model: unknown model 'gpt-\*'"),
    "a meter": (OFFER + table(meter="cache", percent_off="1"), "offer.toml:8: meter: 'cache' is none: known are input"),
    "a switch": (OFFER + table(long_prompt="yes", percent_off="1"), "offer.toml:8: long_prompt: write true or false"),
    "not on sale": (OFFER + table(model="claude-haiku-5-5", percent_off="1"),
                    "offer.toml:7: holds for nothing that has a list price in its dates"),
    "twice": (OFFER + table(percent_off="1") + table(percent_off="2"), "offer.toml:9: another rate of the offer"),
    "dearer": (OFFER + table(model="claude-opus-5", meter="input", usd_per_million="4"),
               "offer.toml:10: usd_per_million: 4 is above the list rate of bedrock/claude-opus-5/global/batch"),
    "two sizes": (OFFER.replace("2026-10-01", "2027-10-01")
                  + table(model="claude-haiku-5-5", meter="input", mode="on_demand", usd_per_million="0.05"),
                  "offer.toml:7: claude-haiku-5-5 costs more beyond 100,000 prompt tokens: say which"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_with_its_place(fault, tmp_path):
    text, says = FAULTS[fault]
    (tmp_path / "offer.toml").write_text(text)
    with pytest.raises(OfferError, match=says) as told:
        load_offers([tmp_path / "offer.toml"])
    assert "\n" not in str(told.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(OfferError, match=r"gone.toml: No such file"):
        load_offers([tmp_path / "gone.toml"])


def two(tmp_path, one: str, other: str):
    (tmp_path / "one.toml").write_text(one)
    (tmp_path / "two.toml").write_text(other)
    return load_offers([tmp_path / "one.toml", tmp_path / "two.toml"])


def test_overlapping_offers_are_refused(tmp_path):
    text = OFFER + table(model="claude-opus-5", percent_off="10")
    later = (
        text.replace("Example", "Later")
        .replace("starts = 2026-09-01", "starts = 2026-09-30")
        .replace("2026-10-01", "2026-12-01")
    )
    says = r"two.toml:2: overlaps 'Example 2026' \(.*one.toml:2\): both have a rate of bedrock/claude-opus-5/"
    says += ".* from 2026-09-30; end one where the other starts"
    with pytest.raises(OfferError, match=says):
        two(tmp_path, text, later)
    # the day one ends is the day another may start; other models, other accounts are no overlap
    assert len(two(tmp_path, text, later.replace("2026-09-30", "2026-10-01"))) == 2
    assert len(two(tmp_path, text, later.replace("claude-opus-5", "claude-opus-4-6"))) == 2
    accounts = [
        text.replace("signed", f'accounts = ["{n}"]\nsigned') for n in ("111122223333", "444455556666")
    ]
    assert len(two(tmp_path, accounts[0], accounts[1].replace("Example", "Other"))) == 2


def test_two_of_one_name_are_refused(tmp_path):
    text = OFFER + table(model="claude-opus-5", percent_off="10")
    with pytest.raises(OfferError, match=r"two.toml:2: name: .*one.toml has an offer 'Example 2026' too"):
        two(tmp_path, text, text.replace("claude-opus-5", "claude-opus-4-6"))


def test_ids_as_bedrock_writes_them_name_the_model():
    found = offer_of(table(model="anthropic.claude-opus-5", percent_off="10"))
    assert found.rules[0].model == "claude-opus-5"


def test_a_later_price_cut_may_go_below_an_absolute_rate():
    """What was agreed on holds as it is written; only at its first day must it be below list."""
    head = (
        OFFER.replace("2026-10-01", "2027-10-01")
        .replace("2026-09-01", "2026-09-28")
        .replace("2026-08-20", "2026-09-28")
    )
    text = table(
        model="claude-sonnet-5-5",
        meter="cache_read",
        endpoint="global",
        mode="on_demand",
        usd_per_million="0.15",
    )
    book = contracted(BOOK, [offer_of(text, head)])
    sku = next(c.sku for c in BOOK.cards() if str(c.sku) == "bedrock/claude-sonnet-5-5/global/on_demand")
    for day in (
        datetime(2026, 9, 30, tzinfo=UTC),
        datetime(2026, 11, 1, tzinfo=UTC),
    ):  # list: 0.20, then 0.10
        card = book.find(sku, day)
        assert not isinstance(card, Unpriced)
        assert card.rates.cache_read == 150_000


def test_tables_and_records_agree():
    """What the frame's grid says is what a single record is rated at."""
    from farthing.rating import grid

    book = contracted(BOOK, [offer_of(table(percent_off="12.5"))])
    lines = grid(book, [c.sku for c in BOOK.cards() if c.sku.model == "claude-opus-5"])
    tokens = Vector(1_000, 200, 5_000, 0, 0)
    for day in ("2026-08-31", "2026-09-01", "2026-10-01"):
        at = datetime.fromisoformat(day).replace(tzinfo=UTC)
        charge = rate(OPUS, at, CALL, book=book)
        cell = lines.at(at, tokens)
        place = ("bedrock", "global", "on_demand", *cell)
        names = ("platform", "endpoint", "mode", "era", "band", "cached")
        (row,) = [row for row in lines.rows if tuple(row[name] for name in names) == place]
        assert (row["card"], sum(t * row[f"rate_{m}"] for m, t in zip(METERS, tokens, strict=True))) == (
            charge.lines[0].card.id, charge.cost,
        )  # fmt: skip
