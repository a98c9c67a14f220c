"""Claims of docs/security.md that no other test holds: bombs, ways out of a folder, who listens, who may do what."""

import gzip
import inspect
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing import cli
from farthing.book import default_book
from farthing.cells import Question
from farthing.cli._app import EXTRAS
from farthing.cli.emulating import emulate
from farthing.cli.gatewaying import Serving
from farthing.cli.serving import web
from farthing.gateway import _serve
from farthing.gateway._keys import Key, add
from farthing.gateway._openapi import openapi
from farthing.gateway._running import running
from farthing.gateway._settings import SettingError, Settings
from farthing.gateway.batch import Queue
from farthing.gateway.proxy import _is_local
from farthing.importers import formats, read_paths
from farthing.ledger import Ledger
from farthing.ledger._place import _inside
from farthing.render import to_csv
from farthing.reports import REPORTS
from farthing.statement import Statement, StatementError
from farthing.usage import Facts, Usage
from tests.gateways import BODY, INVOKE, answered, message, reply, request, until_closed, upstream

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROOT = Path(__file__).resolve().parent.parent
NOW = datetime(2026, 11, 22, tzinfo=UTC)
AT_US = int(NOW.timestamp()) * 1_000_000


# --- bombs ------------------------------------------------------------------------------------------------------------

BOMBS = (
    "[" * 4000 + "]" * 4000, '{"a":' * 4000 + "1" + "}" * 4000, "1e400", "-1e400", "1e999999999", "9" * 5000, "-1",
    str(2**63), str(2**127), "NaN", "0.5", "true", '"\\ud800"', '"\\u0000"', '"99999-01-01T00:00:00Z"',
    '"0001-01-01T00:00:00+23:59"',
    "[" + "0," * 2000 + "0]", '{"' + "k" * 20_000 + '":1}', '"' + "x" * 20_000 + '"',
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a record has a value, however deep; of a list the first entry."""
    inner = (
        value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    )
    for name, one in inner:
        yield from places(one, (*path, name))
    yield path


def put(value: Any, path: tuple[Any, ...], mark: str) -> Any:
    if not path:
        return mark
    if isinstance(value, dict):
        return {name: put(one, path[1:], mark) if name == path[0] else one for name, one in value.items()}
    return [put(one, path[1:], mark) if at == path[0] else one for at, one in enumerate(value)]


def first_record(name: str) -> Any:
    sample = next(path for path in sorted((ROOT / "tests/importers").glob(f"{name}.*.json*"))
                  if path.suffix in (".json", ".jsonl") and ".broken" not in path.name)  # fmt: skip
    text = sample.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(text.splitlines()[0])


@pytest.mark.parametrize("name", formats())
def test_a_bomb_in_any_place_of_a_record_costs_that_record(name, tmp_path):
    """Too deep, too wide, too large a number, no text at all: whatever a field holds, each record is accounted for."""
    record = first_record(name)
    whole = [json.dumps(put(record, path, "BOMB")) for path in places(record)][:24]
    lines = [line.replace('"BOMB"', bomb) for line in whole for bomb in BOMBS]
    (tmp_path / "bombs.jsonl").write_text("\n".join([*lines, json.dumps(record)]) + "\n")
    batches = list(read_paths([str(tmp_path / "bombs.jsonl")], format=name, now=NOW, workers=0))
    read = sum(batch.read for batch in batches)
    assert read == sum(len(b.usages) + b.superseded + b.duplicates + b.rejected for b in batches)
    assert sum(batch.rejected for batch in batches) > len(whole)
    for reject in (reject for batch in batches for file in batch.files for reject in file.rejects):
        assert len(reject.reason) < 300


def test_what_unpacks_to_a_thousand_times_its_size_fills_no_memory(tmp_path):
    """Half a gigabyte of one line, in half a megabyte."""
    piece = b"x" * (1 << 20)
    with gzip.open(tmp_path / "a.jsonl.gz", "wb", 1) as packed:
        for _ in range(256):
            packed.write(piece)
    (tmp_path / "b.jsonl.zst").write_bytes(zstd.compress(piece * 256))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 << 20
    script = (
        "import sys, datetime; from farthing.importers import read_paths\n"
        "now = datetime.datetime.now(datetime.UTC)\n"
        "for batch in read_paths(sys.argv[1:], format='bedrock_log', now=now, workers=0):\n"
        "    print(*(said for file in batch.files for said in (file.error, *(one.reason for one in file.rejects))))\n"
        "if sys.platform == 'linux': print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, *map(str, tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.split()
    assert " ".join(said).count("a line over 64 MiB") == 2
    assert sys.platform != "linux" or int(said[-1]) < 200_000  # kB


def test_a_zip_that_would_fill_the_disk_is_not_unpacked(tmp_path):
    """Its directory says how large its files become, and no more than that is ever unpacked."""
    path = tmp_path / "cur.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("cur.csv", b"0" * 5000)
    content = path.read_bytes()
    assert content.count((5000).to_bytes(4, "little")) == 2
    path.write_bytes(content.replace((5000).to_bytes(4, "little"), (3 << 30).to_bytes(4, "little")))
    with pytest.raises(StatementError, match=r"cur\.zip: would unpack to 3 GiB"):
        Statement([path])


# --- ways out ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x.parquet", "month=2026-10/../../../x", "/etc/cron.d/x", ".."])
def test_a_log_in_a_bucket_cannot_name_a_file_of_this_machine(tmp_path, name):
    """Who can write a ledger's bucket says which files it has; copies of them lie below the cache."""
    with pytest.raises(OSError, match="leads out of it"):
        _inside(tmp_path, name)
    assert _inside(tmp_path, "month=2026-10/a..b.parquet").parent.parent == tmp_path


def test_a_request_goes_to_the_upstream_that_was_named_and_nowhere_else(tmp_path):
    """Whatever it says of another: an absolute target, a Host, headers of proxies, a model that is an address."""
    with (
        upstream(lambda _: [reply(message())]) as other,
        upstream(lambda _: [reply(message())]) as up,
        running(
            Settings(tmp_path / "outbox", bedrock=up.url, auth=False, region="us-east-1"), default_book()
        ) as url,
    ):
        host = other.url.removeprefix("http://")
        names = (
            "x-forwarded-host",
            "x-farthing-upstream",
            "x-farthing-endpoint",
            "x-original-url",
            "forwarded",
        )
        model = f"http:%2F%2F{host.replace(':', '%3A')}%2Fx"
        for target, headers in (
            (INVOKE, [(name, host) for name in names]),
            (f"http://{host}{INVOKE}", []),
            (f"//{host}{INVOKE}", []),
            (f"/model/{model}/invoke", []),
            ("/model/arn:aws:bedrock:us-east-1:111122223333:inference-profile%2F..%2F..%2Fx/invoke", []),
        ):
            sent = request("POST", target, BODY, headers).replace(b"Host: gateway", b"Host: " + host.encode())
            assert answered(raw(url, sent)).status in (200, 400, 403, 404)
        assert other.asked == []
        assert up.asked
        assert {dict(one.headers)["Host"] for one in up.asked} == {up.url.removeprefix("http://")}


def raw(url: str, sent: bytes) -> bytes:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(sent)
        return until_closed(client)


# --- who listens, and who may -----------------------------------------------------------------------------------------


def test_servers_listen_on_loopback_unless_told():
    assert Serving().host == Settings(Path("x")).host == "127.0.0.1"
    assert inspect.signature(web).parameters["host"].default == "127.0.0.1"
    assert "host" not in inspect.signature(emulate).parameters  # it has no other; mcp has stdio alone


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "127.0.0.1.example.com", "127.evil", "localhost.evil"]
)
def test_nobody_beyond_loopback_calls_without_a_key(host, tmp_path):
    """A name that begins with 127 is no address of this machine: pages there may not spend either."""
    with pytest.raises(SettingError, match="whoever reaches it would spend your money"):
        _serve.check(Settings(tmp_path, bedrock="http://127.0.0.1:1", auth=False, host=host))
    assert not _is_local(f"http://[{host}]" if ":" in host else f"http://{host}")
    assert _is_local("http://127.0.0.1:8080")
    assert _is_local("http://[::1]:8080")


def test_every_route_of_the_gateway_but_health_wants_its_key(tmp_path):
    """The matrix: each route of its OpenAPI, for nobody, for a key that is over, for a team's key, for an admin."""
    keys, at = tmp_path / "keys.json", datetime.now(UTC)
    rights: dict[str, dict[str, Any]] = {
        "team": {"team": "red"},
        "admin": {"admin": True},
        "over": {"expires": at - timedelta(days=1), "admin": True},
    }
    who = {
        name: add(keys, Key(name=name, shown="", created=at, **said), at).token
        for name, said in rights.items()
    }
    with (
        upstream(lambda _: [reply(message())]) as up,
        running(
            Settings(tmp_path / "outbox", bedrock=up.url, keys=keys, region="us-east-1"), default_book()
        ) as url,
    ):
        for path, operations in openapi()["paths"].items():
            for method in operations.keys() & {"get", "post", "delete"}:
                place = url + re.sub(r"\{\w+\}", "x", path)
                got = {name: status(place, method, token) for name, token in {**who, "nobody": ""}.items()}
                if operations[method].get("security") == []:
                    assert set(got.values()) <= {200, 503}, path
                    continue
                assert (got["nobody"], got["over"]) == (401, 401), (method, path)
                assert got["team"] == (404 if path.startswith("/v1/calls/") else 403), (method, path)
                assert got["admin"] not in (401, 403), (method, path)
        assert up.asked == []


def status(url: str, method: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    asked = urllib.request.Request(url, b"{}" if method == "post" else None, headers, method=method.upper())
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_what_has_secrets_or_prompts_is_its_owners_alone(tmp_path, monkeypatch):
    """Also where everything else is written for all: the umask is 0 here."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    before = os.umask(0)
    try:
        run("gateway", "key", "add", "ci", "--sigv4", "--keys", tmp_path / "keys.json")
        run("web", "key", "add", "vic", "--keys", tmp_path / "web-keys.json")
        Queue(tmp_path / "queue").close()
        cli.batching._write("an answer\n", tmp_path / "answers.jsonl")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 4
    assert [str(path) for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    assert stat.S_IMODE((tmp_path / "queue").stat().st_mode) == 0o700


def run(*argv: object) -> Any:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(arg) for arg in argv])
    return ended.value.code


# --- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1", '=cmd|"/c calc"!A1']
)
def test_no_cell_of_a_report_is_a_formula(tmp_path, name):
    facts = Facts(
        "claude_code", "bedrock", "global.anthropic.claude-sonnet-4-6", region="us-east-1", project=name
    )
    ledger = Ledger(tmp_path / "ledger")
    ledger.append([Usage(AT_US, "r", "", ((facts, (9, 1, 0, 0, 0)),), (("team", name),))])
    for keys in (["project"], ["tag:team"]):
        text = to_csv(REPORTS["by"].make(ledger, Question(), keys=keys))
        cell = text.split("\n", 1)[1].lstrip('"')
        assert cell.startswith(f"'{name[0]}"), text


# --- what ships -------------------------------------------------------------------------------------------------------


def test_the_version_is_one_and_is_told_at_once():
    said = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert farthing.__version__ == said
    resource = pytest.importorskip("resource", reason="this system does not count processor time")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    for _ in range(3):
        told = subprocess.run(
            [sys.executable, "-m", "farthing", "--version"], capture_output=True, text=True, check=True
        )
        assert told.stdout == f"{said}\n"
    assert (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before) / 3 < 0.1


def test_what_an_extra_lacks_is_one_line_with_the_mend(tmp_path, monkeypatch, capsys):
    for name in ("boto3", "botocore", "botocore.config", "botocore.exceptions", "obstore"):
        monkeypatch.setitem(sys.modules, name, None)
    for command in (["by", "model", "--ledger", "s3://x/y"], ["doctor", "--config", tmp_path / "none.toml"]):
        assert run(*command) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
    assert run("import", "s3://x/y", "--ledger", tmp_path / "ledger") == 2
    assert "pip install 'farthing[aws]'" in capsys.readouterr().err


def test_every_extra_is_known_to_the_message():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS.values()) == set(project["optional-dependencies"])
