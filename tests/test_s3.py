"""Buckets as sources and as the place of the ledger: real clients against moto, and against a small S3 that refuses."""

import gzip
import itertools
import logging
import os
import runpy
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from farthing import aws
from farthing.api import import_paths
from farthing.aws import Access
from farthing.importers import holds, read_paths
from farthing.importers._open import RANGE_BYTES
from farthing.ledger import Ledger, LedgerError
from tests.s3_server import Bucket, Fault, serving

MAKE = runpy.run_path(str(Path(__file__).parent / "importers/generate.py"))
NOW = datetime(2026, 3, 3, tzinfo=UTC)
CLOCK = (NOW + timedelta(seconds=n) for n in itertools.count())  # of two notes on a file the later one holds
EU = "p/AWSLogs/111122223333/BedrockModelInvocationLogs/eu-west-1/"
US = "p/AWSLogs/111122223333/BedrockModelInvocationLogs/us-east-1/"


def lines(*numbers):
    return MAKE["lines"]([MAKE["log"](n, MAKE["message"](n)) for n in numbers])


def packed(*numbers):
    return gzip.compress(lines(*numbers), mtime=0)


def hour(number, series=EU):
    """The key prefix of the hour: the hours of March are numbered through."""
    return f"{series}2026/03/{1 + number // 24:02}/{number % 24:02}/"


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch, tmp_path):
    """No credentials, settings or cache of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "made-up-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    for held in (aws._session, aws._client):
        held.cache_clear()
    aws._REGIONS.clear()


@pytest.fixture
def bucket():
    with serving(Bucket()) as bucket:
        yield bucket


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger")


def bring(ledger, bucket, *paths, **options):
    access = options.pop("access", Access(endpoint_url=bucket.url))
    return import_paths(ledger, paths or ["s3://logs/p"], now=next(CLOCK), access=access, **options)


def rows_of(ledger):
    return sorted(ledger.rows().project('* EXCLUDE ("at"), epoch_us("at")').fetchall(), key=str)


def look(bucket, *paths, **access):
    """(calls, errors, how far), without a ledger."""
    access = {"endpoint_url": bucket.url} | access
    batches = list(read_paths(paths or ["s3://logs/p"], now=NOW, workers=0, access=Access(**access)))
    errors = [f"{file.path}: {file.error}" for batch in batches for file in batch.files if file.error]
    rejected = [
        f"{file.path}:{reject.line}: {reject.reason}"
        for batch in batches
        for file in batch.files
        for reject in file.rejects
    ]
    return sum(len(batch.usages) for batch in batches), errors + rejected, batches[-1].read_until


def fetched(bucket):
    return [asked.removeprefix("GET ") for asked in bucket.asked if asked.startswith("GET ")]


# --- what is read ---------------------------------------------------------------------------------


def test_a_prefix_is_read_like_a_folder(bucket, ledger):
    bucket.objects = {
        hour(1) + "a.json.gz": packed(1, 2),
        hour(2) + "b.json.gz": packed(3),
        hour(2, US) + "c.json.gz": packed(4),
        hour(2) + "data/1_output.json.gz": gzip.compress(b"{}"),
        "p/AWSLogs/111122223333/BedrockModelInvocationLogs/amazon-bedrock-logs-permission-check": b"x",
        "p/": b"",
        "p/notes.txt": b"no log",
        "prefix-of-another/x.json.gz": packed(5),
    }
    done = bring(ledger, bucket)
    assert (done.files, done.imported, done.skipped, done.errors) == (3, 4, 1, [])
    assert [file.path for file in ledger.files()] == [
        f"s3://logs/{hour(1)}a.json.gz",
        f"s3://logs/{hour(2)}b.json.gz",
        f"s3://logs/{hour(2, US)}c.json.gz",
    ]
    assert not [key for key in fetched(bucket) if "data/" in key or "permission-check" in key]


@pytest.mark.parametrize(
    ("path", "calls"),
    [
        ("s3://logs/p/AWSLogs", 3),
        ("s3://logs", 4),
        ("s3://logs/", 4),
        (f"s3://logs/{EU}2026/03/01/01/a.json.gz", 1),
        ("s3://logs/p/AWSLogs/*/BedrockModelInvocationLogs/us-*", 1),
        ("s3://logs/p/**/a.json.gz", 2),
        ("s3://logs/p//AWSLogs", 1),  # a prefix given to Bedrock with its slash
    ],
)
def test_what_a_path_names(bucket, path, calls):
    bucket.objects = {
        hour(1) + "a.json.gz": packed(1),
        hour(1, US) + "a.json.gz": packed(2),
        hour(30) + "b.json.gz": packed(3),
        "p//AWSLogs/x y+%20é.json": lines(4),
    }
    assert look(bucket, path)[:2] == (calls, [])


def test_a_body_that_was_too_large_for_its_record_is_found_beside_it(bucket, ledger):
    named = f"s3://logs/{hour(9)}data/1_output.json.gz"
    record = MAKE["top"](1, written=50, output__outputBodyJson=None, output__outputBodyS3Path=named)
    answer = MAKE["lines"]([MAKE["message"](1, **MAKE["usage"](100, 20, 0, 0, 50))])
    bucket.objects = {
        hour(9) + "a.json.gz": gzip.compress(MAKE["lines"]([record])),
        hour(9) + "data/1_output.json.gz": gzip.compress(answer),
    }
    assert bring(ledger, bucket).errors == []
    sums = ledger.rows().aggregate("sum(cache_write_5m), sum(cache_write_1h)").fetchall()
    assert sums == [(0, 50)]  # the record alone does not say how long the 50 live


def test_workers_read_what_one_process_reads_and_large_objects_in_ranges(bucket, tmp_path):
    noise = os.urandom(300_000)
    record = lines(7).rstrip(b"}\n") + b', "padding": "' + b"x" * 2_000_000 + b'"}\n'
    large = b"".join(record.replace(b"00000007", b"%08d" % n) for n in range(100, 120))
    bucket.objects = {hour(1) + f"{n:03}.json.gz": packed(*range(3 * n, 3 * n + 3)) for n in range(300)}
    bucket.objects |= {hour(2) + "large.jsonl": large, hour(3) + "noise.bin": noise}
    assert len(large) > 32 << 20
    read = {}
    for workers in (0, 2):
        bucket.signed_by.clear()
        access = Access(endpoint_url=bucket.url)
        batches = list(read_paths(["s3://logs/p"], now=NOW, workers=workers, access=access))
        read[workers] = sorted(usage for batch in batches for usage in batch.usages)
        assert sum(batch.skipped for batch in batches) == 1
        assert [file.error for batch in batches for file in batch.files if file.error] == []
        assert set(bucket.signed_by) == {"AKIDEXAMPLE"}
    assert read[0] == read[2]
    assert len(read[0]) > 900


def test_keys_do_not_show():
    keys = aws.Keys("logs", "us-east-1", "", "AKIDEXAMPLE", "made-up-secret", "made-up-token")
    assert "made-up" not in repr([keys])
    assert "made-up" not in f"{keys}"


# --- what is not read again -----------------------------------------------------------------------


def test_a_later_import_lists_from_some_hours_before(bucket, ledger):
    bucket.objects = {hour(n, at) + "a.json.gz": packed(n, 100 + n) for n in range(48) for at in (EU, US)}
    assert bring(ledger, bucket).files == 96
    assert ledger.read_until() == {f"s3://logs/{at}": "2026/03/02/23" for at in (EU, US)}

    bucket.asked.clear()
    again = bring(ledger, bucket)
    assert (again.imported, again.files) == (0, 2 * 7)  # of the last six hours, and the hour they count from
    assert fetched(bucket) == []
    listed = [asked.partition(" p/ ")[2] for asked in bucket.asked]
    assert listed == ["", f"{EU}2026/03/02/17", f"{US}2026/03/02/17"]

    bucket.objects |= {hour(46) + "late.json.gz": packed(500), hour(3) + "too-late.json.gz": packed(501)}
    bucket.objects[hour(47) + "a.json.gz"] = packed(502)  # written over: another ETag
    assert bring(ledger, bucket).imported == 2
    assert bring(ledger, bucket, full=True).imported == 1
    assert bring(ledger, bucket, full=True).imported == 0


def test_a_part_that_was_read_does_not_stand_for_the_whole(bucket, ledger):
    bucket.objects = {hour(n) + "a.json.gz": packed(n) for n in (1, 2, 30, 31)}
    assert bring(ledger, bucket, f"s3://logs/{EU}2026/03/02").imported == 2
    assert bring(ledger, bucket, f"s3://logs/{EU}2026/03/*/00").errors == [
        f"s3://logs/{EU}2026/03/*/00: the pattern matches no object"
    ]
    assert ledger.read_until() == {}
    assert bring(ledger, bucket).imported == 2


def test_what_failed_is_listed_again(bucket, ledger):
    bucket.objects = {hour(n) + "a.json.gz": packed(n) for n in range(48)}
    bucket.faults[hour(2) + "a.json.gz"] = Fault()
    done = bring(ledger, bucket)
    assert (done.imported, len(done.errors)) == (47, 1)
    assert ledger.read_until() == {f"s3://logs/{EU}": "2026/03/01/02"}
    bucket.faults.clear()
    assert bring(ledger, bucket).imported == 1
    assert ledger.read_until() == {f"s3://logs/{EU}": "2026/03/02/23"}


def test_a_local_file_is_known_by_its_content(ledger, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(1, 2))
    os.utime(path, ns=(1, 1))
    assert import_paths(ledger, [path], now=next(CLOCK)).imported == 2
    (noted,) = ledger.files()
    assert noted.digest.startswith("crc32:")

    os.utime(path, ns=(2, 2))  # touched, or copied anew
    assert import_paths(ledger, [path], now=next(CLOCK)).duplicates == 2
    assert ledger.files() == [noted._replace(mtime_ns=2)]

    path.write_bytes(lines(1, 3))  # as long as before
    os.utime(path, ns=(3, 3))
    assert path.stat().st_size == noted.size
    assert import_paths(ledger, [path], now=next(CLOCK)).imported == 1


@pytest.mark.parametrize("more", [-1, 0, 1])  # than three whole ranges
def test_the_content_of_a_file_read_in_ranges(tmp_path, more):
    path = tmp_path / "large.jsonl"
    record = lines(7).rstrip(b"}\n") + b', "padding": "' + b"x" * 2_000_000 + b'"}\n'
    size = 3 * RANGE_BYTES + more
    path.write_bytes((record * 26)[: size - 1] + b"\n")
    batches = list(read_paths([str(path)], now=NOW, workers=2 if more else 0))
    (file,) = [file for batch in batches for file in batch.files]
    assert file.digest.endswith("-4" if more > 0 else "-3")
    for at in (0, RANGE_BYTES - 1, RANGE_BYTES, size - 2):
        with path.open("r+b") as opened:
            opened.seek(at)
            was = opened.read(1)
            for byte in (b"?", was):
                opened.seek(at)
                opened.write(byte)
                opened.flush()
                assert holds(str(path), file.digest) is (byte == was)


# --- what goes wrong ------------------------------------------------------------------------------

DENIED = (
    "User: arn:aws:sts::1:assumed-role/r/s is not authorized to perform: {} on resource: {} because no policy"
)
LISTING = [
    (Fault(), "access denied: allow s3:ListBucket on arn:aws:s3:::logs"),
    (
        Fault(message=DENIED.format("s3:ListBucket", '"arn:aws:s3:::logs"')),
        "access denied: allow s3:ListBucket on arn:aws:s3:::logs",
    ),
    (
        Fault(400, "ExpiredToken", "The provided token has expired."),
        "the AWS credentials have expired: sign in",
    ),
    (Fault(403, "InvalidAccessKeyId", "not in our records"), "AWS does not know these credentials: check"),
    (Fault(403, "SignatureDoesNotMatch", "does not match"), "AWS does not know these credentials: check"),
    (Fault(403, "RequestTimeTooSkewed", "too large"), "the clock of this machine is wrong"),
    (Fault(301, "PermanentRedirect", "must be addressed"), "in us-east-1: give --region us-east-1"),
]


@pytest.mark.parametrize(("fault", "line"), LISTING, ids=lambda value: getattr(value, "code", ""))
def test_a_listing_that_is_refused(bucket, tmp_path, fault, line):
    bucket.faults[""] = fault
    good = tmp_path / "good.jsonl"
    good.write_bytes(lines(1))
    calls, (error,), _ = look(bucket, "s3://logs/p", str(good))
    assert calls == 1  # the rest goes on
    assert error.startswith("s3://logs/p: ")
    assert line in error
    assert "\n" not in error


OBJECT = [
    (Fault(), "access denied: allow s3:GetObject on arn:aws:s3:::logs/*"),
    (
        Fault(message=DENIED.format("kms:Decrypt", "arn:aws:kms:eu-west-1:1:key/abc")),
        "access denied: allow kms:Decrypt on arn:aws:kms:eu-west-1:1:key/abc",
    ),
    (Fault(404, "NoSuchKey", "The specified key does not exist."), "gone since it was listed"),
    (Fault(412, "PreconditionFailed", "did not hold"), "changed since it was listed"),
    (Fault(403, "InvalidObjectState", "not valid"), "in an archive storage class: restore it first"),
    (Fault(400, "ExpiredToken", "The provided token has expired."), "the AWS credentials have expired"),
    (Fault(cut=40), "reading it broke off"),
]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(("fault", "line"), OBJECT, ids=lambda value: getattr(value, "code", ""))
def test_an_object_that_cannot_be_read(bucket, fault, line, large):
    padding = os.urandom(1_200_000).hex().encode() if large else b""
    bad = gzip.compress(lines(1) + b'{"padding": "' + padding + b'"}\n')
    bucket.objects = {hour(1) + "bad.json.gz": bad, hour(2) + "good.json.gz": packed(2)}
    bucket.faults[hour(1) + "bad.json.gz"] = fault
    calls, errors, read_until = look(bucket)
    assert calls == 1
    assert any(line in error for error in errors), errors
    assert all("\n" not in error and "Debug" not in error for error in errors)
    assert read_until == {f"s3://logs/{EU}": "2026/03/01/01"}


def test_a_half_uploaded_object_counts_as_far_as_it_goes(bucket, ledger):
    whole = packed(*range(200))
    bucket.objects = {hour(1) + "a.json.gz": whole[: len(whole) // 2]}
    done = bring(ledger, bucket)
    assert 0 < done.imported < 200
    [line] = done.errors
    assert "the file was cut short; copy it again" in line
    bucket.objects[hour(1) + "a.json.gz"] = whole
    assert done.imported + bring(ledger, bucket).imported == 200


def test_objects_that_fail_alike_are_told_once(bucket):
    bucket.objects = {hour(1) + f"{n:03}.json.gz": packed(n) for n in range(50)}
    bucket.faults = {key: Fault() for key in bucket.objects}
    _, errors, _ = look(bucket)
    assert len(errors) == 4
    assert (
        errors[-1] == "s3://logs/p: 47 more objects: access denied: allow s3:GetObject on arn:aws:s3:::logs/*"
    )


def test_no_such_bucket_and_nothing_in_one(bucket):
    _, errors, _ = look(bucket, "s3://lost/p", "s3://logs/p", "s3://B_/p")
    assert errors[0] == "s3://lost/p: no such bucket: lost; check its name"
    assert errors[1].startswith("s3://logs/p: no objects below this prefix: check it")
    assert errors[2] == "s3://B_/p: no such bucket: B_; check its name"


def test_no_credentials_and_no_such_profile(bucket, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    _, (error,), _ = look(bucket)
    assert error.startswith("s3://logs/p: no AWS credentials: name a profile (--profile)")
    _, (error,), _ = look(bucket, profile="absent")
    assert error.startswith("s3://logs/p: no AWS profile of this name: ")


def test_nobody_at_the_endpoint(bucket):
    _, (error,), _ = look(bucket, endpoint_url="http://127.0.0.1:9")
    assert error.startswith("s3://logs/p: cannot reach http://127.0.0.1:9: check the network")


def test_a_bucket_in_another_region_is_followed(bucket):
    bucket.region = "eu-west-1"
    bucket.objects = {hour(1) + "a.json.gz": packed(1), hour(1) + "x//b.json.gz": packed(2)}
    assert look(bucket)[:2] == (2, [])


def test_a_role_that_cannot_be_assumed(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", bucket.url)
    role = "arn:aws:iam::111122223333:role/farthing-read"
    bucket.role = Fault(
        message=f"User: arn:aws:iam::9:user/me is not authorized to perform: sts:AssumeRole on resource: {role}"
    )
    _, (error,), _ = look(bucket, role_arn=role)
    assert error == (
        f"s3://logs/p: the role cannot be assumed: allow sts:AssumeRole on {role}, and let the role's trust policy "
        "name this caller (and the external id, if it asks for one)"
    )


# --- with moto ------------------------------------------------------------------------------------


@pytest.fixture
def moto(monkeypatch):
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="costs")
    yield client
    for found in client.list_objects_v2(Bucket="costs").get("Contents", ()):
        client.delete_object(Bucket="costs", Key=found["Key"])
    server.stop()


def test_a_role_is_assumed_once_and_its_keys_reach_the_bucket(bucket, ledger, moto):
    bucket.objects = {hour(1) + f"{n}.json.gz": packed(n) for n in range(20)}
    access = Access(
        role_arn="arn:aws:iam::111122223333:role/farthing-read",
        external_id="for-farthing",
        endpoint_url=bucket.url,
    )
    for _ in range(2):
        assert bring(ledger, bucket, access=access).errors == []
    (key_id,) = set(bucket.signed_by)
    assert key_id.startswith("ASIA")  # of the role: it would be another had it been assumed again


def test_the_real_clients_agree_with_moto(ledger, moto):
    for n in range(30):
        moto.put_object(Bucket="costs", Key=f"{hour(n)}a.json.gz", Body=packed(n))
    done = import_paths(ledger, ["s3://costs/p"], now=next(CLOCK))
    assert (done.imported, done.errors) == (30, [])
    assert import_paths(ledger, ["s3://costs/p"], now=next(CLOCK), full=True).duplicates == 30
    assert {file.digest for file in ledger.files()} == {
        moto.head_object(Bucket="costs", Key=f"{hour(n)}a.json.gz")["ETag"].strip('"') for n in range(30)
    }


def test_a_ledger_in_a_bucket(moto, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(*range(9)))
    local, there = Ledger(tmp_path / "ledger"), Ledger("s3://costs/team/ledger")
    for ledger in (local, there):
        assert import_paths(ledger, [path], now=NOW).imported == 9
    again = Ledger("s3://costs/team/ledger/")
    assert again.folder == "s3://costs/team/ledger"
    for ledger in (there, again):
        assert ledger.files() == local.files()
        assert ledger.days() == local.days()
        assert rows_of(ledger) == rows_of(local)
        assert sorted(ledger.contexts().fetchall()) == sorted(local.contexts().fetchall())
    assert import_paths(again, [path], now=NOW).imported == 0
    command = [sys.executable, "-m", "farthing", "by", "model", "--json", "--ledger"]
    shown = [
        subprocess.run([*command, str(ledger.folder)], capture_output=True, text=True, check=True).stdout
        for ledger in (local, there)
    ]
    assert shown[0] == shown[1]


def test_copies_of_its_files_are_checked_and_dropped(moto, tmp_path):
    ledger = Ledger("s3://costs/team/ledger")
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(*range(9)))
    import_paths(ledger, [path], now=NOW)
    rows = rows_of(ledger)
    (copy,) = (tmp_path / "cache").rglob("usage/**/*.parquet")
    assert copy.parents[2].stat().st_mode & 0o077 == 0  # principals' names are in it
    left = copy.with_name("left.parquet")  # of a table that has been compacted
    left.write_bytes(b"left")
    os.utime(left, (1, 1))
    copy.write_bytes(b"cut")
    assert rows_of(Ledger("s3://costs/team/ledger")) == rows
    assert not left.exists()


WRITER = """
import sys
from datetime import UTC, datetime
from farthing.api import import_paths
from farthing.ledger import Ledger
for path in sys.argv[1:]:
    done = import_paths(Ledger("s3://costs/team/ledger"), [path], now=datetime(2026, 3, 3, tzinfo=UTC))
    assert not done.errors, done.errors
"""


def test_several_writers_at_once_lose_nothing(moto, tmp_path):
    paths = []
    for n in range(6):  # each has calls of its own, and some that the one after it has too
        paths.append(tmp_path / f"{n}.jsonl")
        paths[-1].write_bytes(lines(*range(10 * n, 10 * n + 15)))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, *mine], stderr=subprocess.PIPE, text=True)
        for mine in (paths[0::2], paths[1::2])
    ]
    for writer in writers:
        assert writer.communicate(timeout=120)[1] == ""
        assert writer.returncode == 0
    ledger = Ledger("s3://costs/team/ledger")
    assert ledger.rows().aggregate("sum(calls), count(DISTINCT request_id)").fetchall() == [(65, 65)]
    assert len(ledger.files()) == 6


def test_a_ledger_that_cannot_be(moto):
    with pytest.raises(LedgerError, match=r"^s3://absent/ledger: no such bucket: absent; check its name$"):
        Ledger("s3://absent/ledger")
    moto.put_object(Bucket="costs", Key="other/x", Body=b"x")
    with pytest.raises(LedgerError, match=r"^s3://costs/other: not empty and no farthing ledger"):
        Ledger("s3://costs/other")
    moto.put_object(Bucket="costs", Key="odd/farthing.json", Body=b"{")
    with pytest.raises(LedgerError, match=r"^s3://costs/odd/farthing.json is damaged"):
        Ledger("s3://costs/odd")


def test_a_ledger_that_may_not_be_read_or_written(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.url)
    bucket.faults["team/farthing.json"] = Fault()
    with pytest.raises(
        LedgerError, match=r"^s3://logs/team: access denied: allow s3:PutObject on arn:aws:s3:::logs/\*$"
    ):
        Ledger("s3://logs/team")
    bucket.objects["team/farthing.json"] = b"{}"
    with pytest.raises(
        LedgerError, match=r"^s3://logs/team: access denied: allow s3:GetObject on arn:aws:s3:::logs/\*$"
    ):
        Ledger("s3://logs/team")
    bucket.faults[""] = Fault()
    with pytest.raises(
        LedgerError, match=r"^s3://logs/team: access denied: allow s3:ListBucket on arn:aws:s3:::logs$"
    ):
        Ledger("s3://logs/team")
