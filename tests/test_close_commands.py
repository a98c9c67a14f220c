"""Closing by command: what a person reads, what a program reads, and what is refused in one line."""

import csv
import json
import zipfile
from decimal import Decimal

import pytest

from farthing import cli
from farthing.ledger import Ledger, closings
from tests import bills
from tests.closing import OCTOBER, SONNET, A, billed, call, listed
from tests.s3_server import Bucket, serving

SETTINGS = """
ledger = "ledger"
currency = "EUR"
fx = "fx.toml"
[teams.search]
cost_centre = "4711"
tags = ["team=search"]
[journal]
debit = "6100"
credit = "2100"
cost_centre = "9000"
"""


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def run(capsys, monkeypatch, tmp_path, ledger):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "farthing.toml").write_text(SETTINGS)
    (tmp_path / "fx.toml").write_text("[EUR]\n2026-10 = 1\n2026-11 = 0.9\n")
    ledger.append(OCTOBER)

    def command(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        return ended.value.code, *capsys.readouterr()

    return command


CLOSED_AT = ("--at", "2026-11-03T09:00:00Z")


def test_a_month_is_not_closed_on_the_bill_of_another(run, tmp_path, ledger):
    """Bills of September are not booked as October's, whether anything is closed already or not."""
    path = bills.write_csv(tmp_path / "cur.csv", billed(call("0", "2026-09-20")))
    code, out, err = run("close", "--corrections", "--statement", path)
    assert (code, out, "no month is closed yet" in err) == (1, "", True)
    code, out, err = run("close", "2026-10", "--statement", path, *CLOSED_AT)
    assert (code, out, "the bill has nothing of 2026-10" in err) == (1, "", True)
    assert closings(ledger) == []


def test_a_month_by_command(run, tmp_path):
    path = bills.write_csv(tmp_path / "cur.csv", [*billed(*OCTOBER), bills.apart("Tax", "1", "2026-10-31")])
    code, out, _ = run("close", "2026-10", "--statement", path, "--fx", "fx.toml", "--by", "Ada", *CLOSED_AT)
    assert code == 0
    assert "2026-10 is closed: 2026-10.1, 2026-11-03 09:00 UTC, by Ada" in out
    assert "invoice INV-1" in out
    code, out, _ = run("audit", "2026-10", "--statement", path, "--fx", "fx.toml")
    assert (code, "comes out as closed" in out) == (0, True)
    code, out, _ = run("audit", "2026-10", "--statement", path, "--fx", "fx.toml", "--json")
    said = json.loads(out)
    assert said["comes_out"] is True
    assert {part["verdict"] for part in said["parts"]} == {"ok"}
    assert {part["name"] for part in said["parts"]} > {
        "usage",
        "tokens",
        "list cost",
        "book",
        "statement",
        "billed",
        "fx",
    }
    code, out, _ = run("audit")
    assert (code, out) == (0, "2026-10  2026-10.1   comes out as closed\n")
    code, out, _ = run("closings", "show", "2026-10", "--by", "team,kind", "--json")
    rows = {(row["team"], row["kind"]): row["booked_usd"] for row in json.loads(out)["rows"]}
    assert rows["unassigned", "tax"] == "1"
    computed = sum(Decimal(row["computed_usd"]) for row in json.loads(out)["rows"])
    code, out, _ = run("closings", "show", "2026-10", "--json")
    assert computed == Decimal(json.loads(out)["computed_usd"])
    assert Decimal(rows["search", "usage"]) == Decimal(listed(OCTOBER[0], OCTOBER[3])).scaleb(-12)
    code, out, _ = run("closings", "list", "--json")
    assert [row["closing"] for row in json.loads(out)["closings"]] == ["2026-10.1"]
    assert run("closings", "list")[0] == run("closings", "show", "2026-10.1")[0] == 0


def test_a_journal_by_command_in_three_forms(run, tmp_path):
    import duckdb

    run("close", "2026-10", *CLOSED_AT)
    for name in ("j.csv", "j.json", "j.parquet"):
        code, out, _ = run("export", "journal", "2026-10", "--out", name)
        assert (code, "debits equal credits" in out) == (0, True)
    with (tmp_path / "j.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(Decimal(row["debit"]) for row in rows) == sum(Decimal(row["credit"]) for row in rows)
    total = Decimal(listed(*OCTOBER)).scaleb(-12).quantize(Decimal("0.01"))
    assert sum(Decimal(row["amount"]) for row in rows if row["kind"]) == total
    assert json.loads((tmp_path / "j.json").read_text())["lines"] == rows
    sums = "sum(debit), sum(credit), count(*)"
    (found,) = duckdb.execute(f"SELECT {sums} FROM '{tmp_path / 'j.parquet'}'").fetchall()
    assert found == (total, total, len(rows))


def test_corrections_by_command(run, ledger):
    run("close", "2026-10", *CLOSED_AT)
    assert run("close", "--corrections")[1].startswith("nothing to correct")
    ledger.append([late := call("late", "2026-10-20", team="search")])
    code, out, _ = run("close", "--corrections", "--json")
    (booking,) = json.loads(out)["bookings"]
    assert (code, booking["of"], Decimal(booking["usd"])) == (0, "2026-10", Decimal(listed(late)).scaleb(-12))
    code, out, _ = run("audit", "2026-10")
    assert code == 1
    assert f"+3,000 tokens  2026-10-20 {A} {SONNET}" in out
    assert run("audit")[0] == 1
    code, out, _ = run("close", "2026-11", "--accrue", "--dry-run", *CLOSED_AT)
    assert (code, "would be closed" in out, "correction of 2026-10" in out) == (0, True, True)
    assert len(closings(ledger)) == 1


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["close", "october"], 2, "'october' is no month: write 2026-10"),
        (["close"], 2, "a month, as 2026-10, or --corrections"),
        (["close", "2026-10", "--at", "now"], 2, "--at 'now'"),
        (["close", "2026-10", "--tolerance", "some"], 2, "--tolerance 'some'"),
        (["close", "2026-10", "--fx", "old.toml", *CLOSED_AT], 2, "no rate of EUR for 2026-10-31"),
        (["close", "2026-10", "--at", "2026-10-15T00:00:00Z"], 1, "is not over"),
        (["close", "2026-09", *CLOSED_AT], 1, "no usage in the ledger"),
        (["close", "2026-10", "--statement", "none.csv"], 2, "none.csv"),
        (["audit", "2026-10"], 1, "is not closed"),
        (["audit", "2026-1"], 2, "'2026-1' is no month"),
        (["closings", "show", "2026-10"], 2, "'2026-10' is not closed"),
        (["export", "journal", "2026-10", "--out", "j.csv"], 1, "is not closed"),
        (["export", "journal", "2026-10", "--out", "j.doc"], 2, "j.doc"),
        (["export", "journal", "2026-10", "--out", "no/j.csv"], 2, "there is no folder no"),
    ],
)
def test_what_cannot_be_is_one_line(run, tmp_path, words, code, says):
    (tmp_path / "old.toml").write_text("[EUR]\n2026-09-01 = 0.9\n")
    found, out, err = run(*words)
    assert (found, out) == (code, "")
    assert says in err
    assert err.count("\n") == 1


def test_an_unknown_cost_centre_is_one_line(run, tmp_path):
    text = SETTINGS.replace('"4711"', '"4771"') + 'cost_centres = ["4711", "9000"]\n'
    (tmp_path / "farthing.toml").write_text(text)
    code, _, err = run("close", "2026-10")
    assert code == 2
    assert "teams.search.cost_centre: unknown cost centre '4771': known are 4711, 9000" in err


# --- bills that are not plain files ----------------------------------------------------------------------------------


def held(run, month, *words):
    """What the audit says of the bill's files."""
    code, out, _ = run("audit", month, *words, "--fx", "fx.toml", "--json")
    return code, {part["name"]: part["verdict"] for part in json.loads(out)["parts"]}["statement"]


def test_a_bill_in_an_archive_is_held_against_what_is_in_it(run, tmp_path):
    """Packed anew it is the same bill; the digests are of the files within."""
    files = [
        bills.write_csv(tmp_path / f"cur-{number}.csv", lines)
        for number, lines in enumerate((billed(*OCTOBER[:2]), billed(*OCTOBER[2:])))
    ]
    for name, level in (("bill.zip", 1), ("again.zip", 9), ("other.zip", 9)):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
            for file in files[: 1 if name == "other.zip" else 2]:
                archive.write(file, file.name)
    assert run("close", "2026-10", "--statement", "bill.zip", "--fx", "fx.toml", *CLOSED_AT)[0] == 0
    assert held(run, "2026-10", "--statement", "bill.zip") == (0, "ok")
    assert held(run, "2026-10", "--statement", "again.zip") == (0, "ok")
    assert held(run, "2026-10", "--statement", "other.zip") == (1, "no")


def test_a_bill_in_a_bucket_that_is_reached_as_it_is_told(run, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAXXXXXXXXEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    body = bills.write_csv(tmp_path / "cur.csv", billed(*OCTOBER)).read_bytes()
    with serving(Bucket(objects={"p/cur.csv": body})) as bucket:
        words = ("--statement", "s3://logs/p", "--endpoint-url", bucket.url, "--region", "us-east-1")
        code, out, _ = run("close", "2026-10", *words, "--fx", "fx.toml", *CLOSED_AT)
        assert (code, "2026-10 is closed: 2026-10.1" in out) == (0, True)
        assert held(run, "2026-10", *words) == (0, "ok")
    assert held(run, "2026-10", "--statement", "cur.csv") == (0, "ok")
