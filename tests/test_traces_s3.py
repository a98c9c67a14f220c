"""Traces and requests in a bucket, read by the real clients from moto; and one way to write a prompt's bytes."""

import gzip
import json
import os

import pytest

from farthing import aws, cli
from farthing.cli._opened import sources
from farthing.lint import read_requests
from farthing.lint._request import Sent, parts_of
from farthing.traces import Call, Source, bedrock_log, read_traces
from farthing.traces._prompt import blocks_of, prompt_of
from farthing.traces._volatile import Memory
from tests.test_content import at, body, record


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    from moto.server import ThreadedMotoServer

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "made-up", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for held in (aws._session, aws._client):
        held.cache_clear()
    client = aws._client(aws.Access())
    client.create_bucket(Bucket="logs")
    yield client
    server.stop()
    for held in (aws._session, aws._client):
        held.cache_clear()


@pytest.fixture
def logged(bucket):
    """Two hours of a log; one body was too large for its record, and lies in data/."""
    records = [record(n, body(at(n), n)) for n in range(6)]
    large = records[5]["input"].pop("inputBodyJson")
    records[5]["input"]["inputBodyS3Path"] = "s3://logs/p/2026/09/07/08/data/r-5.json.gz"
    for hour, some in (("08", [0, 1, 5]), ("09", [2, 3, 4])):
        lines = "".join(json.dumps(records[n]) + "\n" for n in some).encode()
        bucket.put_object(Bucket="logs", Key=f"p/2026/09/07/{hour}/a.json.gz", Body=gzip.compress(lines))
    bucket.put_object(
        Bucket="logs", Key="p/2026/09/07/08/data/r-5.json.gz", Body=gzip.compress(json.dumps(large).encode())
    )


def test_a_log_in_a_bucket_is_a_trace(logged, capsys):
    faults: list[str] = []
    log = read_traces(sources("s3://logs/p", faults), b"key")
    assert (log.format, log.trace.requests, log.left, faults) == ("bedrock_log", 6, {}, [])
    with pytest.raises(SystemExit) as ended:
        cli.main(["cache", "bound", "s3://logs/p", "--model", "claude-sonnet-4-6", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["requests"] == 6


def test_requests_in_a_bucket_are_linted(logged):
    found = list(read_requests(["s3://logs/p"]))
    assert [isinstance(one, Sent) for one in found] == [True] * 6


@pytest.mark.parametrize(
    ("path", "says"), [("s3://logs/none", "no objects below"), ("s3://nobody/x", "no such bucket: nobody")]
)
def test_a_bucket_that_says_nothing_is_one_line(bucket, path, says, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["cache", "bound", path, "--model", "claude-sonnet-4-6"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1


# --- the bytes of a prompt -------------------------------------------------------------------------------------------


def hashes(sent):
    return prompt_of(blocks_of(sent), b"key").hashes


def names(sent):
    return Sent("", "", "", parts_of(sent), {}).names()


@pytest.mark.parametrize("told", [hashes, names])
def test_the_order_of_keys_counts_in_traces_as_in_lint_since_it_does_in_the_cache(told):
    first, second = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    one, other = (
        {"system": "Be brief.", "messages": [{"role": "user", "content": [
            {"type": "text", "text": "Look."}, {"type": "tool_use", "name": "look", "input": given},
            {"type": "text", "text": "And again."}]}]}
        for given in (first, second)
    )  # fmt: skip
    a, b = told(one), told(other)
    assert a[:2] == b[:2]
    assert all(x != y for x, y in zip(a[2:], b[2:], strict=True))
    assert told(json.loads(json.dumps(one))) == a


def test_a_memory_changes_nothing_of_what_was_sent():
    lines = [json.dumps(record(n, body(at(n), n))).encode() for n in range(4)]
    source = Source("log", lines[0], list(enumerate(lines, 1)))
    plain, known = ([one for one in bedrock_log.read(source, b"key", memory) if isinstance(one, Call)]
                    for memory in (None, Memory()))  # fmt: skip
    assert len(plain) == len(known) == 4
    assert [one.settled is None for one in known] == [True, False, False, False]
    assert [one._replace(settled=None) for one in known] == plain
