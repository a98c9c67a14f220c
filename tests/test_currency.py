"""Reports in another currency: each day's dollars at that day's rate, or no conversion at all."""

import csv
import io
import json
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from farthing.cells import Question, cells
from farthing.cli import main
from farthing.fx import FxError, Rates
from farthing.ledger import Ledger
from farthing.reports import REPORTS, ConvertError, Table, as_json, in_currency
from farthing.reports._table import Report
from farthing.usage import EPOCH, Facts, Usage

FIRST = date(2026, 10, 1)
MODELS = ("global.anthropic.claude-opus-5", "anthropic.claude-sonnet-4-6", "anthropic.claude-unheard-of")
CONVERTED = [made for made in REPORTS.values() if made.adds_up]
RATES = {f"{FIRST + timedelta(days=i)}": Fraction(9_000 + 13 * i, 10_000) for i in range(0, 31, 3)}


def made_calls():
    """Some a day over a month, at 23:30 UTC, when it is the next day in Berlin."""
    for i in range(60):
        at = datetime(2026, 10, 1 + i % 30, 23, 30, tzinfo=UTC) - EPOCH
        facts = Facts(
            "bedrock_log", "bedrock", MODELS[i % 7 % 3], "", "us-east-1", "111122223333", session=f"s{i % 4}"
        )
        yield Usage(
            at // timedelta(microseconds=1), f"r{i}", "", ((facts, (1000 + i, 100, 7000, 2000 * (i % 2), 0)),)
        )


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    made = Ledger(tmp_path_factory.mktemp("ledger"))
    made.append(list(made_calls()))
    return made


@pytest.fixture
def rates():
    return Rates("made.csv", "abc", {"EUR": RATES})


def by_hand(ledger, question, rates, keys):
    """Euros by the keys, from cells a day each."""
    euros: dict[tuple, Fraction] = defaultdict(Fraction)
    for cell in cells(ledger, question, (*keys, "day")):
        *names, day = cell.keys
        euros[tuple(names)] += cell.cost * rates.at(date.fromisoformat(day), "EUR").per_usd / 10**12
    return euros


@pytest.mark.parametrize("tz", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("keys", [("model",), ("day",), ("session", "model"), ("week",), ("meter",)])
def test_rows_are_the_sums_of_their_days(keys, tz, ledger, rates):
    question = Question(tz=tz)
    table = in_currency(REPORTS["by"], ledger, question, rates, "EUR", keys=keys)
    shown = as_json(table)
    if keys != ("meter",):
        euros = by_hand(ledger, question, rates, keys)
        for row in shown["rows"]:
            want = euros[tuple(row[key] for key in keys)]
            assert (
                row["eur"] is None
                if row["usd"] is None
                else abs(Fraction(row["eur"]) - want) < Fraction(1, 10**9)
            )
    total = by_hand(ledger, question, rates, ())[()]
    known = sum(Fraction(row["eur"] or 0) for row in shown["rows"])
    assert abs(known - total) < Fraction(1, 10**9)
    assert abs(Fraction(shown["footer"]["eur"]) - total) < Fraction(1, 10**9)
    assert shown["footer"]["currency"] == "EUR"
    assert shown["footer"]["fx"]["rates"]["2026-10-01"] == "0.9"


@pytest.mark.parametrize("made", CONVERTED, ids=lambda made: made.name)
def test_dollars_stay_as_they_are(made, ledger, rates):
    values = {"keys": ("model",)} if made.name == "by" else {}
    plain = as_json(made.make(ledger, Question(), **values))
    both = as_json(in_currency(made, ledger, Question(), rates, "EUR", **values))

    def without(value):
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if k != "eur" and not k.endswith("_eur")}
        return [without(v) for v in value] if isinstance(value, list) else value

    stripped = without(both)
    del stripped["footer"]["fx"]
    stripped["footer"]["currency"] = "USD"
    assert stripped == plain
    assert both != plain


def test_the_steps_of_the_bill_still_sum(ledger, rates):
    steps = in_currency(REPORTS["bill"], ledger, Question(), rates, "EUR").parts["waterfall"]
    assert abs(sum(step["eur"] for step in steps[:-1]) - steps[-1]["eur"]) < 10**4  # of 10^-12 euros
    assert 0 < steps[-1]["eur"] < steps[-1]["usd"]


def test_a_report_whose_amounts_do_not_add_up_is_never_half_converted(ledger, rates):
    def greatest(ledger, question):
        most = max((cell.cost for cell in cells(ledger, question, ("day",))), default=0)
        return Table("Greatest", "", ("usd",), [{"usd": most}], {})

    for adds_up in (True, False):
        with pytest.raises(ConvertError, match="greatest is in USD only"):
            in_currency(Report("greatest", "", greatest, adds_up), ledger, Question(), rates, "EUR")


def test_a_day_without_a_rate_is_named(ledger):
    rates = Rates("made.csv", "abc", {"EUR": {"2026-10-01": Fraction(9, 10)}})
    with pytest.raises(FxError, match=r"made.csv: no rate of EUR for 2026-10-09"):
        in_currency(REPORTS["monthly"], ledger, Question(), rates, "EUR")
    part = in_currency(REPORTS["monthly"], ledger, Question(until=date(2026, 10, 8)), rates, "EUR")
    assert part.footer["eur"] * 10 == part.footer["usd"] * 9


def test_nothing_used_needs_no_rates(tmp_path):
    table = in_currency(
        REPORTS["bill"], Ledger(tmp_path / "l"), Question(), Rates("x", "y", {"EUR": {}}), "EUR"
    )
    assert table.footer["eur"] == 0


# --- commands ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(ledger, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [
        "date,currency,per_usd",
        *(f"{day},EUR,{rate.numerator / rate.denominator}" for day, rate in RATES.items()),
    ]
    (tmp_path / "rates.csv").write_text("\n".join(lines))
    monkeypatch.setenv("FARTHING_LEDGER", str(ledger.folder))

    def command(*argv):
        with pytest.raises(SystemExit) as done:
            main(list(argv))
        said = capsys.readouterr()
        return done.value.code, said.out, said.err

    return command


EURO = ("--currency", "EUR", "--fx", "rates.csv")


def test_asked_for_on_the_command_line(run):
    code, out, _ = run("bill", *EURO)
    assert code == 0
    assert "€" in out
    assert "$" not in out
    assert "each day's dollars at its own rate, of 2026-10-01 to 2026-10-28 in rates.csv" in out
    rows = list(csv.DictReader(io.StringIO(run("monthly", "--csv", *EURO)[1])))
    assert Decimal(rows[0]["eur"]) < Decimal(rows[0]["usd"])
    assert json.loads(run("levers", "--json", *EURO)[1])["rows"][0]["eligible_eur"]


def test_asked_for_in_the_file(run, tmp_path):
    (tmp_path / "farthing.toml").write_text('currency = "EUR"\nfx = "rates.csv"\n')
    code, out, err = run("by", "model")
    assert (code, err) == (0, "")
    assert "€" in out
    assert "$" in run("by", "model", "--currency", "USD")[1]
    code, out, err = run("coverage")
    assert code == 0
    assert "€" not in out
    assert "coverage is in USD only" in err


def test_what_cannot_be(run, tmp_path):
    assert run("bill", "--currency", "EUR")[2].startswith("farthing: --currency EUR needs rates")
    code, _, err = run("bill", "--currency", "CHF", "--fx", "rates.csv")
    assert (code, err) == (2, "farthing: rates.csv: no rates of CHF; it has EUR\n")
    assert (
        run("bill", "--currency", "EUR", "--fx", "none.csv")[2]
        == "farthing: none.csv: No such file or directory\n"
    )
