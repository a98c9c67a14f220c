"""Bills where AWS and people put them: deliveries in buckets and folders, in archives, under wrong names."""

import gzip
import json
import logging
import os
import zipfile
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from farthing import cli
from farthing.aws import Access
from farthing.statement import Statement, StatementError
from tests import bills
from tests.s3_server import Bucket, Fault, serving
from tests.test_statement import summed, wanted

LINE = bills.Line("2026-09-05", "111122223333", "us-east-1", "claude-opus-4-6", "global", "on_demand", "input", False,
                  1_500_000, Decimal("7.5"))  # fmt: skip
OTHER = replace(LINE, account="444455556666", tokens=1_000_000, cost=Decimal(5))
LATER = replace(LINE, tokens=3_000_000, cost=Decimal(15))  # the same line, when more of the day was billed
OCTOBER = replace(LINE, day="2026-10-05")
SINCE, UNTIL = date(2026, 9, 1), date(2026, 9, 30)


def newer(*paths):
    """Each of these files newer than those before."""
    for when, path in enumerate(paths, 1):
        os.utime(path, (when, when))
    return paths


def manifest(path, *keys, name="reportKeys"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"assemblyId": "any", name: list(keys), "billingPeriod": {"start": "20260901"}})
    )
    return path


# --- which delivery holds ------------------------------------------------------------------------------------------


def test_the_manifest_of_a_legacy_report_names_the_assembly_that_holds(tmp_path):
    period = tmp_path / "report" / "20260901-20261001"
    old = bills.write_csv(period / "aaa" / "report-00001.csv.gz", [LINE, OTHER])
    new = bills.write_csv(period / "bbb" / "report-00001.csv.gz", [LATER])
    newer(new, old)  # as a copy of the bucket may have it
    key = "pre/report/20260901-20261001/{}/report-00001.csv.gz"
    manifest(period / "aaa" / "report-Manifest.json", key.format("aaa"))
    manifest(period / "report-Manifest.json", key.format("bbb"))
    found = Statement([tmp_path])
    assert summed(found) == wanted([LATER])  # OTHER is in the earlier assembly alone, and was taken back
    assert "1 files of earlier deliveries" in found.loaded.notes[0]


def test_the_manifest_of_a_data_export_is_beside_its_data(tmp_path):
    data = tmp_path / "cur2" / "data" / "BILLING_PERIOD=2026-09"
    for run, lines in (("2026-09-20T00:00-aa", [LINE, OTHER]), ("2026-09-21T00:00-bb", [LATER])):
        (data / run).mkdir(parents=True)
        bills.write_parquet(data / run / "cur2-00001.snappy.parquet", lines)
        told = tmp_path / "cur2" / "metadata" / "BILLING_PERIOD=2026-09" / run / "cur2-Manifest.json"
        url = f"s3://bills/cur2/data/BILLING_PERIOD=2026-09/{run}/cur2-00001.snappy.parquet"
        manifest(told, url, name="dataFiles")
        os.utime(told, (len(run), 10 + ord(run[-1])))
    assert summed(Statement([tmp_path])) == wanted([LATER])


def test_a_delivery_that_is_not_whole_is_said(tmp_path):
    period = tmp_path / "20260901-20261001"
    bills.write_csv(period / "report-00001.csv", [LINE])
    manifest(
        period / "report-Manifest.json",
        "r/20260901-20261001/report-00001.csv",
        "r/20260901-20261001/report-00002.csv",
    )
    found = Statement([tmp_path])
    assert summed(found) == wanted([LINE])
    assert "names 2 files, of which 1 are here: the bill is not whole" in found.loaded.notes[0]


@pytest.mark.parametrize("text", ['{"reportKeys": ["elsewhere.csv"]}', "{", '{"reportKeys": []}'])
def test_a_manifest_that_names_nothing_here_leaves_what_is_here(text, tmp_path):
    bills.write_csv(tmp_path / "report-00001.csv", [LINE])
    (tmp_path / "report-Manifest.json").write_text(text)
    assert summed(Statement([tmp_path])) == wanted([LINE])


@pytest.mark.parametrize(
    "place",
    ["data/BILLING_PERIOD={0}-{1}", "{0}{1}01-{0}{2:02}01", "year={0}/month={3}"],
    ids=["exports", "legacy", "athena"],
)
def test_a_month_is_read_without_the_others(place, tmp_path):
    """What lies in the folder of another month is not so much as opened."""
    bills.write_csv(tmp_path / place.format(2026, "09", 10, 9) / "cur.csv", [LINE])
    other = bills.write_csv(tmp_path / place.format(2026, "10", 11, 10) / "cur.csv", [OCTOBER])
    other.write_text("no bill at all")
    assert summed(Statement([tmp_path], since=SINCE, until=UNTIL)) == wanted([LINE])
    nothing = Statement([tmp_path], since=date(2027, 1, 1), until=date(2027, 1, 31))
    assert not nothing.billed
    assert "no billing period in it" in nothing.loaded.notes[0]


def test_lines_told_again_with_other_amounts_are_the_same_lines(tmp_path):
    """Line ids are unique in one delivery: two files that share them are two deliveries."""
    newer(
        bills.write_csv(tmp_path / "of monday.csv", [LINE, OTHER]),
        bills.write_csv(
            tmp_path / "of friday.csv", [LATER, replace(OTHER, cost=Decimal(6), tokens=1_200_000)]
        ),
    )
    found = Statement([tmp_path])
    assert sum(line.billed_picos for line in found.billed) == 21 * 10**12
    assert found.loaded.notes == [
        f"{tmp_path}/of monday.csv: has the lines of {tmp_path}/of friday.csv with other amounts; the newer counts"
    ]


def test_where_nothing_tells_deliveries_apart_it_is_said(tmp_path):
    for name, lines in (("a", [LINE]), ("b", [LATER])):
        bills.write_csv(tmp_path / f"{name}.csv", lines, bills.focus)
    found = Statement([tmp_path])
    assert sum(line.billed_picos for line in found.billed) == 22_500_000_000_000
    assert "both count; leave one out if they are two deliveries" in found.loaded.notes[0]


def test_numbered_files_are_parts(tmp_path):
    """One line id may come twice in them, as in the parts that Athena splits for itself."""
    bills.write_csv(tmp_path / "cur-00001.csv.gz", [LINE])
    bills.write_csv(tmp_path / "cur-00002.csv.gz", [LATER])
    found = Statement([tmp_path])
    assert sum(line.billed_picos for line in found.billed) == 22_500_000_000_000
    assert found.loaded.notes == []


# --- under whatever name -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [bills.legacy, bills.cur2, bills.focus])
def test_zipped(form, tmp_path):
    csv = bills.write_csv(tmp_path / "in" / "cur-1.csv", [LINE], form)
    with zipfile.ZipFile(tmp_path / "cur-1.csv.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(csv, "cur-1.csv")
        packed.writestr("README.txt", "hello")
    csv.unlink()
    assert summed(Statement([tmp_path])) == wanted([LINE])
    assert summed(Statement([tmp_path / "cur-1.csv.zip"])) == wanted([LINE])


def test_a_fault_in_a_zip_names_the_line_in_it(tmp_path):
    csv = bills.write_csv(tmp_path / "cur.csv", [LINE, OTHER])
    with zipfile.ZipFile(tmp_path / "cur.zip", "w") as packed:
        packed.writestr("cur.csv", csv.read_text().replace(",7.5,", ",seven,"))
    found = Statement([tmp_path / "cur.zip"])
    assert found.loaded.bad == [f"{tmp_path}/cur.zip/cur.csv:2: not a number: cost 'seven', amount '1.5'"]
    assert summed(found) == wanted([OTHER])


@pytest.mark.parametrize(
    ("data", "says"), [(b"PK\3\4broken", "cannot be unpacked"), (None, "no CSV, Parquet or JSON file")]
)
def test_an_archive_that_is_none(data, says, tmp_path):
    path = tmp_path / "cur.zip"
    if data:
        path.write_bytes(data)
    else:
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("a.txt", "")
    with pytest.raises(StatementError, match=f"cur.zip: {says}"):
        Statement([path])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("packed.csv", gzip.compress),
        ("plain.csv.gz", bytes),
        ("report", bytes),
        ("bom.csv", lambda text: b"\xef\xbb\xbf" + text),
        ("bom.csv.gz", lambda text: gzip.compress(b"\xef\xbb\xbf" + text)),
    ],
)
def test_names_that_are_wrong_and_marks_before_the_text(name, change, tmp_path):
    text = bills.write_csv(tmp_path / "in.csv", [LINE]).read_bytes()
    (tmp_path / "in.csv").unlink()
    (tmp_path / name).write_bytes(change(text))
    assert summed(Statement([tmp_path / name])) == wanted([LINE])


def test_text_in_utf_16_is_refused_with_the_mend(tmp_path):
    (tmp_path / "cur.csv").write_text("a,b\n", encoding="utf-16")
    with pytest.raises(StatementError, match="iconv -f UTF-16"):
        Statement([tmp_path / "cur.csv"])


def dated(first, start):
    return lambda line, number=0: (
        bills.focus(line, number) | {"BillingPeriodStart": first, "ChargePeriodStart": start}
    )


@pytest.mark.parametrize(
    ("first", "start"),
    [("9/1/26", "9/5/26"), ("9/1/2026 0:00", "9/5/2026 13:00"), ("09/01/2026", "09/05/2026 13:00:00")],
)
def test_dates_of_the_us(first, start, tmp_path):
    path = bills.write_csv(tmp_path / "focus.csv", [LINE], dated(first, start))
    assert summed(Statement([path])) == wanted([LINE])


def test_dates_with_the_day_first_are_not_taken_for_dates_of_the_us(tmp_path):
    path = bills.write_csv(tmp_path / "focus.csv", [LINE], dated("1/9/2026", "5/9/2026"))
    with pytest.raises(StatementError, match="1/9/2026 are no month/day/year"):
        Statement([path])


# --- Cost Explorer -------------------------------------------------------------------------------------------------


def explored(path, keys, *groups, **more):
    metrics = {
        "UnblendedCost": {"Amount": "7.5", "Unit": "USD"},
        "UsageQuantity": {"Amount": "1.5", "Unit": "N/A"},
    }
    said = {
        "GroupDefinitions": [{"Type": kind, "Key": key} for kind, key in keys],
        "ResultsByTime": [{"TimePeriod": {"Start": "2026-09-01", "End": "2026-10-01"},
                           "Groups": [{"Keys": list(one), "Metrics": metrics} for one in groups]}],
    } | more  # fmt: skip
    path.write_text(json.dumps(said))
    return path


def test_cost_explorer_by_account_alone_cannot_be_decoded(tmp_path):
    path = explored(tmp_path / "ce.json", [("DIMENSION", "LINKED_ACCOUNT")], ["111122223333"])
    with pytest.raises(
        StatementError, match="grouped by LINKED_ACCOUNT, which does not tell what was bought"
    ):
        Statement([path])


def test_cost_explorer_by_service_alone_tells_money_and_no_tokens(tmp_path):
    keys = [("DIMENSION", "SERVICE"), ("DIMENSION", "LINKED_ACCOUNT")]
    path = explored(tmp_path / "ce.json", keys, ["Claude Opus 4.6 (Amazon Bedrock Edition)", "111122223333"])
    found = Statement([path])
    assert (found.billed, [line.picos for line in found.undecoded]) == ([], [7_500_000_000_000])
    assert "neither tokens nor meters" in found.loaded.notes[0]


def test_a_page_of_several_is_said(tmp_path):
    keys = [("DIMENSION", "SERVICE"), ("DIMENSION", "USAGE_TYPE")]
    path = explored(tmp_path / "ce.json", keys, ["Amazon Bedrock Service", "USE1-Claude4.6Sonnet-input-tokens"],
                    NextPageToken="x")  # fmt: skip
    found = Statement([path])
    assert "the bill is not whole" in found.loaded.notes[0]


def test_cost_explorer_by_tag(tmp_path):
    keys = [("DIMENSION", "USAGE_TYPE"), ("TAG", "team")]
    groups = [["USE1-Claude4.6Sonnet-input-tokens", f"team${team}"] for team in ("ads", "search", "")]
    found = Statement([explored(tmp_path / "ce.json", keys, *groups)])
    assert {group.values: group.picos for group in found.grouped(("tag:team",))} == dict.fromkeys(
        [("ads",), ("search",), ("",)], 7_500_000_000_000
    )


# --- buckets -------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(moto, monkeypatch):
    """A client of an emulated AWS with the empty bucket `bills`, which is the AWS of the environment."""
    import boto3

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="bills")
    yield client
    for found in client.list_objects_v2(Bucket="bills").get("Contents", ()):
        client.delete_object(Bucket="bills", Key=found["Key"])


def test_a_data_export_in_a_bucket(stored, tmp_path):
    path = tmp_path / "cur2-00001.snappy.parquet"
    bills.write_parquet(path, [LINE, OTHER])
    top = "exports/cur2"
    stored.put_object(
        Bucket="bills", Key=f"{top}/data/BILLING_PERIOD=2026-09/{path.name}", Body=path.read_bytes()
    )
    stored.put_object(
        Bucket="bills", Key=f"{top}/data/BILLING_PERIOD=2026-10/{path.name}", Body=b"not opened"
    )
    stored.put_object(Bucket="bills", Key=f"{top}-old/data/x.csv", Body=b"not listed")
    named = json.dumps({"dataFiles": [f"s3://bills/{top}/data/BILLING_PERIOD=2026-09/{path.name}"]})
    stored.put_object(
        Bucket="bills", Key=f"{top}/metadata/BILLING_PERIOD=2026-09/cur2-Manifest.json", Body=named.encode()
    )
    told = []
    found = Statement(
        [f"s3://bills/{top}/"],
        since=SINCE,
        until=UNTIL,
        progress=lambda done, whole: told.append((done, whole)),
    )
    assert summed(found) == wanted([LINE, OTHER])
    assert found.loaded.notes == []
    assert found.loaded.parts[0].source.name == f"s3://bills/{top}/data/BILLING_PERIOD=2026-09/{path.name}"
    assert told[-1][0] == told[-1][1] == 2 * path.stat().st_size  # brought here, then read
    (copy,) = (part.source.path for part in found.loaded.parts)
    assert copy.exists()
    del found
    assert not copy.exists()


def test_a_new_delivery_in_a_bucket_replaces_the_month(stored, tmp_path):
    """The later holds by its time in the bucket, with and without a manifest that says so."""
    import time

    for run, lines in (("zz", [LINE, OTHER]), ("aa", [LATER])):
        path = bills.write_csv(tmp_path / run / "cur-00001.csv.gz", lines)
        stored.put_object(
            Bucket="bills", Key=f"p/cur/20260901-20261001/{run}/{path.name}", Body=path.read_bytes()
        )
        time.sleep(1.1)  # S3 tells whole seconds
    found = Statement(["s3://bills/p"])
    assert summed(found) == wanted([LATER, OTHER])
    key = "p/cur/20260901-20261001/aa/cur-00001.csv.gz"
    named = json.dumps({"assemblyId": "aa", "reportKeys": [key]})
    stored.put_object(Bucket="bills", Key="p/cur/20260901-20261001/cur-Manifest.json", Body=named.encode())
    assert summed(Statement(["s3://bills/p"])) == wanted([LATER])


def test_only_what_may_be_a_bill_is_fetched(tmp_path):
    body = bills.write_csv(tmp_path / "cur.csv.gz", [LINE]).read_bytes()
    objects = {
        "p/cur.csv.gz": body, "p/crawler-cfn.yml": b"x", "p/notes.txt": b"x", "p/empty.csv": b"",
        "p/cost_and_usage_data_status/cost_and_usage_data_status.parquet": b"x",
    }  # fmt: skip
    with serving(Bucket(objects=objects)) as bucket:
        found = Statement(["s3://logs/p"], access=reach(bucket))
        assert [said for said in bucket.asked if said.startswith("GET")] == ["GET p/cur.csv.gz"]
    assert summed(found) == wanted([LINE])


def reach(bucket):
    return Access(endpoint_url=bucket.url, region="us-east-1")


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAXXXXXXXXEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def test_a_bucket_that_refuses_says_what_to_allow(tmp_path):
    with serving(Bucket(objects={"p/cur.csv": b"x"}, faults={"p/cur.csv": Fault()})) as bucket:
        with pytest.raises(
            StatementError, match=r"s3://logs/p: access denied: allow s3:GetObject on arn:aws:s3:::logs/\*"
        ):
            Statement(["s3://logs/p"], access=reach(bucket))
        with pytest.raises(StatementError, match="s3://logs/q: no CSV, Parquet or JSON file of a bill in it"):
            Statement(["s3://logs/q"], access=reach(bucket))


def test_the_command_reaches_a_bucket_as_it_is_told_or_as_its_source_is(tmp_path, capsys, monkeypatch):
    body = bills.write_csv(tmp_path / "cur.csv", [LINE]).read_bytes()

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main(["statement", "s3://logs/p", "--json", *words])
        return ended.value.code, json.loads(capsys.readouterr().out or "{}")

    monkeypatch.chdir(tmp_path)
    with serving(Bucket(objects={"p/cur.csv": body})) as bucket:
        code, said = run("--endpoint-url", bucket.url, "--region", "us-east-1")
        assert (code, said["rows"][0]["billed_usd"]) == (0, "7.5")
        toml = f'[[sources]]\npath = "s3://logs/logs"\nregion = "us-east-1"\nendpoint_url = "{bucket.url}"\n'
        (tmp_path / "farthing.toml").write_text(toml)
        assert run()[0] == 0
