"""The journal: cost centres, codes, both sides; and no cent is lost, however many closings there were."""

from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.close import apportion
from farthing.config import Config, Journal, Team
from farthing.exporters.journal import JournalError, journal, to_cents
from farthing.fx import load
from farthing.ledger import Closing, Ledger, Line, closings
from tests import bills
from tests.closing import CENT, CONFIG, OCTOBER, B, billed, call, delivered, listed, shut


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def bill(tmp_path):
    return partial(delivered, tmp_path)


# --- exact ---------------------------------------------------------------------------------------------------------

AMOUNTS = st.integers(-(10**18), 10**18)


@given(AMOUNTS, st.lists(st.integers(0, 10**15), min_size=1, max_size=8).filter(any))
def test_parts_sum_to_what_is_shared_out(total, weights):
    parts = apportion(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - total * weight) < sum(weights)


@given(st.lists(AMOUNTS, max_size=12), st.sampled_from([10**9, CENT, 10**12]), st.booleans())
def test_cents_sum_to_the_rounded_total(amounts, unit, up):
    exact = Fraction(sum(amounts), unit)
    target = -(-exact // 1) if up else exact // 1
    cents = to_cents(amounts, target, unit)
    assert sum(cents) == target
    assert all(abs(cent * unit - amount) < unit for cent, amount in zip(cents, amounts, strict=True))
    assert to_cents([-amount for amount in amounts], -target, unit) == [-cent for cent in cents]


@st.composite
def histories(draw):
    """Closings of some months: each books for its own and for earlier ones, and takes back what some of them booked."""
    made: list[Closing] = []
    names: list[str] = []
    for number in range(1, draw(st.integers(1, 5)) + 1):
        period = f"2026-{number:02}"
        per_usd = draw(st.sampled_from(["1", "9213/10000", "15023/100", "1/3"]))
        currency = {"1": "USD", "15023/100": "JPY"}.get(per_usd, "EUR")
        fx = (
            None
            if currency == "USD"
            else {"currency": currency, "date": "d", "per_usd": per_usd, "source": "s"}
        )
        lines = []
        for booking in range(1, draw(st.integers(1, 4)) + 1):
            name, back = f"{period}.1/{booking}", draw(st.sampled_from([*names, None]))
            if back:
                names.remove(back)
                taken = [line for it in made for line in it.entries if line.booking == back]
                lines += [
                    line._replace(booking=name, what="reversal", ref=back, picos=-line.picos)
                    for line in taken
                ]
                continue
            names.append(name)
            of = f"2026-{draw(st.integers(1, number)):02}"
            for team, picos in draw(st.lists(st.tuples(st.sampled_from(["search", "chat", "unassigned"]), AMOUNTS),
                                             min_size=1, max_size=4)):  # fmt: skip
                kind = draw(st.sampled_from(["usage", "tax"]))
                what = draw(st.sampled_from(["actual"]))
                lines.append(Line("entry", of, name, what, "", kind, team=team, picos=picos))
        said = {"fx": fx, "ends": f"{period}-28"}
        made.append(Closing(f"{period}.1", number, 0, said, tuple(lines)))
        names = [name for name in names if any(line.booking == name for it in made for line in it.entries)]
    return made


@given(histories())
@settings(max_examples=60)
def test_a_journal_loses_no_cent_however_many_closings_there_were(made):
    exact: dict[tuple, int] = defaultdict(int)
    cents: dict[tuple, Decimal] = defaultdict(Decimal)
    for it in made:
        lines = journal(made, it.period, CONFIG)
        assert lines == journal(made[: it.number], it.period, CONFIG)  # what comes later changes nothing
        owed: dict[str, Decimal] = defaultdict(Decimal)
        for line in lines:
            owed[line.reference] += Decimal(line.debit) - Decimal(line.credit)
            assert Decimal(line.amount) == Decimal(line.debit) - Decimal(line.credit)
            if line.kind:
                cents[line.of, line.currency] += Decimal(line.amount)
        assert set(owed.values()) <= {Decimal(0)}
    rates: dict[str, dict | None] = {}
    for it in made:
        for line in it.entries:
            fx = rates[line.ref] if line.ref else it.said["fx"]
            rates[line.booking] = fx
            exact[line.of, fx["currency"] if fx else "USD"] += round(
                line.picos * Fraction(fx["per_usd"] if fx else 1)
            )
    for (of, currency), units in exact.items():
        digits = 0 if currency == "JPY" else 2
        assert cents[of, currency] == Decimal(round(Fraction(units, 10 ** (12 - digits)))).scaleb(-digits)


# --- the journal ---------------------------------------------------------------------------------------------------


def test_a_journal_has_cost_centres_codes_and_both_sides(ledger, bill, tmp_path):
    ledger.append(
        [*OCTOBER, direct := call("d", "2026-10-09", (10**6, 0, 0, 0, 0), platform="anthropic", account="")]
    )
    ledger.append([begun := call("b", "2026-10-02", account=B)])
    fx = tmp_path / "fx.toml"
    fx.write_text("[EUR]\n2026-10-30 = 0.9\n")
    tax = bills.apart("Tax", "100", "2026-10-31")
    shut(
        ledger,
        given=bill(*billed(*OCTOBER[:2], begun), tax, invoice=""),
        accrue=True,
        rates=load(fx),
        currency="EUR",
    )
    lines = journal(closings(ledger), "2026-10", CONFIG)
    found = {(it.cost_centre, it.gl_code, it.team, it.kind, it.reference): it.amount for it in lines}
    assert found["9000", "1576", "unassigned", "tax", "2026-10.1/1"] == "90.00"
    assert (
        found["9000", "6110", "unassigned", "usage", "2026-10.1/1"]
        == f"{Decimal(listed(direct)) * 9 / 10**13:.2f}"
    )
    assert found["4711", "6100", "search", "usage", "2026-10.1/1"] == "0.03"
    assert found["4712", "6100", "chat", "usage", "2026-10.1/2"] == "0.03"
    assert {it.gl_code for it in lines if not it.kind} == {"2100", "2190"}
    assert {(it.currency, it.fx_rate, it.fx_date, it.fx_source) for it in lines} == {
        ("EUR", "0.9", "2026-10-30", "fx.toml")
    }
    assert {(it.date, it.period, it.of) for it in lines} == {("2026-10-31", "2026-10", "2026-10")}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (Config(), "no GL code for usage"),
        (
            Config(journal=Journal(debit="61", credit="21")),
            "no cost centre for search: write cost_centre under",
        ),
        (
            Config(teams={"search": Team(tags=("team=search",))}, journal=Journal(debit="61", credit="21")),
            r"write cost_centre under \[teams.search\], or cost_centre under \[journal\]|no cost centre for unassigned",
        ),
        (Config(journal=Journal(codes={"usage": "61"}, cost_centre="9")), "no account to credit"),
    ],
)
def test_a_journal_without_accounts_says_where_to_write_them(ledger, config, says):
    ledger.append(OCTOBER)
    shut(ledger)
    with pytest.raises(JournalError, match=says):
        journal(closings(ledger), "2026-10", config)
