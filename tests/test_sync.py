"""farthing init writes farthing.toml by looking and asking; farthing sync imports all that it names."""

import io
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing import cli, demo
from farthing.cli import _init
from farthing.config import Account, Config, Privacy, Residency, Source, Team, load

COUNTS = ("files", "skipped", "read", "imported", "superseded", "duplicates", "rejected", "unpriced")
ACCOUNT = "123456789012"  # moto's


class Terminal(io.StringIO):
    """A person who types these lines, and then nothing."""

    def isatty(self):
        return True


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, and a user who has nothing yet."""
    for name in ("FARTHING_CONFIG", "FARTHING_LEDGER", "CLAUDE_CONFIG_DIR", "AWS_PROFILE", "TZ"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "conf"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "home" / ".aws" / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def farthing(here, capsys, monkeypatch):
    """farthing("sync", "--json", stdin=...) -> (exit code, stdout, stderr)."""

    def run(*words, stdin=None):
        monkeypatch.setattr(sys, "stdin", stdin or io.TextIOWrapper(io.BytesIO()))
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Forty calls as Bedrock logs them."""
    folder = tmp_path_factory.mktemp("logs")
    demo.write_logs(folder, calls=40, seed=3)
    return folder


def transcripts(folder: Path) -> Path:
    """A transcript of one call."""
    usage = {"input_tokens": 5, "output_tokens": 7}
    message = {"id": "msg_1", "model": "claude-sonnet-5", "role": "assistant", "usage": usage}
    line = {"type": "assistant", "timestamp": "2026-10-02T10:00:00Z", "sessionId": "s", "requestId": "req_1"}
    folder.mkdir(parents=True)
    (folder / "s.jsonl").write_text(json.dumps({**line, "uuid": "u", "message": message}) + "\n")
    return folder


# --- sync ------------------------------------------------------------------------------------------


def test_every_source_is_imported_and_twice_adds_nothing(farthing, here, logs):
    transcripts(here / "laptops")
    Path("farthing.toml").write_text(
        f'ledger = "kept"\n[[sources]]\npath = "{logs}"\nformat = "bedrock_log"\n[[sources]]\npath = "laptops"\n'
    )
    code, out, err = farthing("sync", "--json")
    said = json.loads(out)
    assert (code, err) == (0, "")
    first, second = said["sources"]
    assert (first["path"], second["path"]) == (str(logs), "laptops")
    assert (first["imported"], second["imported"]) == (40, 1)
    assert {name: said[name] for name in COUNTS} == {name: first[name] + second[name] for name in COUNTS}
    assert "error" not in first
    assert (here / "kept" / "farthing.json").exists()
    code, out, _ = farthing("bill", "--json")  # reports look where sync put it
    assert json.loads(out)["footer"]["read"] == 41

    code, out, _ = farthing("sync", "--json")
    again = json.loads(out)
    assert (code, again["imported"], again["read"], again["duplicates"]) == (0, 0, 41, 41)
    assert again["files"] == said["files"]
    assert farthing("sync")[1].splitlines()[-1].startswith("in all: ")


def test_one_that_fails_is_one_line_and_the_rest_goes_on(farthing, here, logs):
    (here / "broken.jsonl").write_text(
        '{"schemaType":"ModelInvocationLog","schemaVersion":"1.0","requestId":1\n'
    )
    Path("farthing.toml").write_text(
        '[[sources]]\npath = "none/of/these"\n'
        '[[sources]]\npath = "broken.jsonl"\n'
        '[[sources]]\npath = "other"\nformat = "morse"\n'
        '[[sources]]\npath = "*.nothing"\n'
        f'[[sources]]\npath = "{logs}"\n'
    )
    code, out, err = farthing("sync", "--json", "--ledger", "elsewhere")
    said = json.loads(out)
    gone, broken, morse, nothing, good = said["sources"]
    assert code == 2
    assert good["imported"] == said["imported"] == 40
    assert "error" not in good
    assert gone["error"] == "none/of/these: No such file or directory"
    assert broken["error"].startswith("broken.jsonl")
    assert "morse" in morse["error"]
    assert "matches no file" in nothing["error"]
    assert len(err.splitlines()) == 4
    assert all(line.startswith("farthing: ") for line in err.splitlines())
    assert (here / "elsewhere").is_dir()


def test_without_a_file_it_says_how_to_begin(farthing, here):
    code, out, err = farthing("sync")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "farthing init" in err
    Path("farthing.toml").write_text('timezone = "UTC"')
    code, _, err = farthing("sync", "--json")
    assert code == 2
    assert "no sources" in err
    code, _, err = farthing("sync", "--config", "none.toml")
    assert code == 2
    assert err == "farthing: none.toml: No such file or directory\n"
    Path("farthing.toml").write_text("sauces = []")
    code, _, err = farthing("sync")
    assert code == 2
    assert err == "farthing: farthing.toml:1: sauces: unknown key; did you mean `sources`?\n"


def test_the_file_holds_for_reports_where_no_option_says_otherwise(farthing, here, logs, monkeypatch):
    Path("costs.toml").write_text(
        'ledger = "kept"\ntimezone = "Asia/Tokyo"\n'
        f'[[sources]]\npath = "{logs}"\n'
        '[teams.everyone]\naccounts = ["*"]\n'
    )
    code, _, err = farthing("bill", "--config", "costs.toml")
    assert (code, err) == (2, "farthing: no ledger at kept: run `farthing sync` first\n")
    assert farthing("sync", "--config", "costs.toml")[0] == 0
    monkeypatch.setenv("FARTHING_CONFIG", "costs.toml")
    code, out, err = farthing("by", "team", "--json")
    said = json.loads(out)
    assert (code, err, said["footer"]["tz"]) == (0, "", "Asia/Tokyo")
    assert [row["team"] for row in said["rows"]] == ["everyone"]
    assert json.loads(farthing("bill", "--json", "--tz", "UTC")[1])["footer"]["tz"] == "UTC"
    assert farthing("bill", "--ledger", "none")[0] == 2
    monkeypatch.delenv("FARTHING_CONFIG")
    code, out, err = farthing("by", "team", "--json", "--ledger", "kept")
    assert "the tag `team`" in err  # no teams here
    assert {row["team"] for row in json.loads(out)["rows"]} > {"search-rag", "coding-agents"}
    shared = farthing("by", "principal", "--json", "--ledger", "kept", "--shared")[1]
    assert "arn:aws" not in shared
    assert len(json.loads(shared)["rows"]) > 5


def test_nothing_new_is_soon_over(farthing, here):
    """Two thousand files that are known, in five sources: most of the two seconds allowed are left."""
    for number in range(2_000):
        folder = here / "logs" / str(number % 5)
        folder.mkdir(parents=True, exist_ok=True)
        record = {"schemaType": "ModelInvocationLog", "schemaVersion": "1.0", "requestId": f"r{number}",
                  "timestamp": "2026-10-02T10:00:00Z", "modelId": "anthropic.claude-opus-5", "region": "eu-west-1",
                  "input": {"inputTokenCount": 3}, "output": {"outputTokenCount": 4}}  # fmt: skip
        (folder / f"{number}.json").write_text(json.dumps(record) + "\n")
    Path("farthing.toml").write_text("".join(f'[[sources]]\npath = "logs/{i}"\n' for i in range(5)))
    assert json.loads(farthing("sync", "--json")[1])["imported"] == 2_000
    start = time.perf_counter()
    assert json.loads(farthing("sync", "--json")[1])["imported"] == 0
    assert time.perf_counter() - start < 2


# --- from AWS --------------------------------------------------------------------------------------


class Bedrock(BaseHTTPRequestHandler):
    """Where calls are logged, by region; application profiles, in two pages. What moto does not know of Bedrock."""

    def do_GET(self):
        region = self.headers["Authorization"].split("/")[2]
        code = 200
        answer: dict = {}
        if self.path.startswith("/inference-profiles"):
            first = "nextToken" not in self.path
            name = "search1" if first else "ads2"
            arn = f"arn:aws:bedrock:{region}:{ACCOUNT}:application-inference-profile/{name}"
            model = f"arn:aws:bedrock:{region}::foundation-model/anthropic.claude-sonnet-4-6"
            summary = {"inferenceProfileArn": arn, "type": "APPLICATION", "models": [{"modelArn": model}]}
            summary |= {"inferenceProfileName": name, "inferenceProfileId": name, "status": "ACTIVE"}
            answer = {"inferenceProfileSummaries": [summary]} | ({"nextToken": "more"} if first else {})
        elif region == "eu-west-1":
            answer = {"loggingConfig": {"s3Config": {"bucketName": "logs-eu", "keyPrefix": "bedrock/"}}}
        elif region == "us-west-2":
            answer = {"loggingConfig": {"cloudWatchConfig": {"logGroupName": "g", "roleArn": "r"}}}
        elif region == "us-east-2":
            code, answer = 403, {"message": "User: me is not authorized to perform that"}
        body = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code == 403:
            self.send_header("x-amzn-ErrorType", "AccessDeniedException")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def bedrock():
    server = HTTPServer(("127.0.0.1", 0), Bedrock)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def aws(here, moto, monkeypatch):
    """Credentials that moto takes, and nothing that leads out of this machine."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    return moto


def test_a_bucket_is_a_source_beside_folders(farthing, here, aws, logs):
    boto3 = pytest.importorskip("boto3")
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket="sync-logs")
    for file in sorted(path for path in logs.rglob("*") if path.is_file()):
        s3.put_object(Bucket="sync-logs", Key=str(file.relative_to(logs)), Body=file.read_bytes())
    transcripts(here / "laptops")
    Path("farthing.toml").write_text(
        f'[[sources]]\npath = "s3://sync-logs"\nregion = "us-east-1"\nendpoint_url = "{aws}"\n'
        f'[[sources]]\npath = "s3://no-such-bucket/x"\nendpoint_url = "{aws}"\n'
        '[[sources]]\npath = "laptops"\n'
    )
    code, out, err = farthing("sync", "--json")
    said = json.loads(out)
    assert code == 2
    assert [source["imported"] for source in said["sources"]] == [40, 0, 1]
    assert "no-such-bucket" in said["sources"][1]["error"]
    assert len(err.splitlines()) == 1
    s3.create_bucket(Bucket="sync-ledger")
    for _ in range(2):
        assert farthing("sync", "--ledger", "s3://sync-ledger/kept")[0] == 2
        code, out, err = farthing("by", "team", "--json", "--shared", "--ledger", "s3://sync-ledger/kept")
        assert out, err
        assert (code, json.loads(out)["footer"]["read"]) == (0, 41)
    code, out, err = farthing("bill", "--ledger", "s3://sync-ledger/none")
    assert (code, out) == (2, "")
    assert err == "farthing: no ledger at s3://sync-ledger/none: run `farthing sync` first\n"
    for words in ((), ("--full",)):
        said = json.loads(farthing("sync", "--json", *words)[1])
        assert (said["imported"], said["sources"][0]["duplicates"]) == (0, said["sources"][0]["read"])


def test_init_asks_aws_for_what_it_may_see(farthing, here, aws, bedrock, monkeypatch):
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", bedrock)
    aws_file = here.parent / "home" / ".aws" / "config"
    aws_file.parent.mkdir(parents=True)
    aws_file.write_text(
        "[default]\nregion = eu-west-1\n[profile other]\nrole_arn = mars\nsource_profile = none\n"
    )
    regions = ("us-west-2", "us-east-1", "us-east-2")
    code, out, err = farthing(
        "init", "--aws", "--yes", *(word for name in regions for word in ("--region", name))
    )
    assert code == 2  # something could not be seen
    assert out.splitlines()[-1] == "next: farthing sync"
    config = load()
    assert config.accounts == {ACCOUNT: Account("default", ("eu-west-1", *regions))}
    assert config.sources == (
        Source(f"s3://logs-eu/bedrock/AWSLogs/{ACCOUNT}/BedrockModelInvocationLogs/eu-west-1"),
    )
    assert len(config.profiles) == 6
    assert set(config.profiles.values()) == {"anthropic.claude-sonnet-4-6"}
    notes = err.splitlines()
    assert len(notes) == 4
    for line, says in zip(
        sorted(notes),
        (
            "us-east-1: calls are not logged: see farthing setup aws",
            "bedrock:GetModelInvocationLoggingConfiguration",
            "us-west-2: calls are logged to CloudWatch only",
            "profile other: ",
        ),
        strict=True,
    ):
        assert says in line


def test_init_with_moto_s_own_bedrock(farthing, here, aws):
    boto3 = pytest.importorskip("boto3")
    bedrock = boto3.client("bedrock", region_name="eu-west-1")
    logging = {"s3Config": {"bucketName": "of-moto"}}
    bedrock.put_model_invocation_logging_configuration(loggingConfig=logging)
    farthing("init", "--aws", "--yes")
    path = f"s3://of-moto/AWSLogs/{ACCOUNT}/BedrockModelInvocationLogs/eu-west-1"
    assert load().sources == (Source(path),)
    assert load().accounts == {ACCOUNT: Account(regions=("eu-west-1",))}


def test_init_without_an_answer_from_aws_still_writes(farthing, here, aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    code, _, err = farthing("init", "--aws", "--yes")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert err.startswith("farthing: profile default: ")
    assert load().path == "farthing.toml"


# --- init ------------------------------------------------------------------------------------------


def test_init_takes_what_this_machine_has(farthing, here, logs):
    home = here.parent / "home"
    transcripts(home / ".claude" / "projects")
    transcripts(here / "exports")
    (home / ".aws").mkdir()
    (home / ".aws" / "config").write_text(
        "[default]\nregion = eu-west-1\n"
        "[profile audit]\nrole_arn = arn:aws:iam::444455556666:role/audit\nregion = us-east-1\n"
        "[profile dev]\nsso_account_id = 111122223333\nsso_session = x\n"
        "[sso-session x]\nsso_region = eu-west-1\n"
    )
    (home / ".aws" / "credentials").write_text("[default]\naws_secret_access_key = never-to-be-read\n")
    words = ("init", "--yes", "exports", "s3://logs-eu/bedrock", logs)
    code, out, err = farthing(*words)
    assert (code, err) == (0, "")
    assert out.splitlines() == ["wrote farthing.toml: 4 sources, 2 accounts, 0 teams", "next: farthing sync"]
    config = load()
    assert [source.path for source in config.sources] == [
        str(home / ".claude" / "projects"), "exports", "s3://logs-eu/bedrock", str(logs),
    ]  # fmt: skip
    assert config.accounts == {
        "111122223333": Account("dev", profile="dev"),
        "444455556666": Account("audit", ("us-east-1",), "audit"),
    }
    written = Path("farthing.toml").read_text()
    assert '"~/.claude/projects"' in written
    assert "never-to-be-read" not in written

    code, _, err = farthing(*words)  # never over another
    assert code == 2
    assert "--force" in err
    assert farthing(*words, "--force")[0] == 0
    assert Path("farthing.toml").read_text() == written  # the same for the same answers
    assert [path.name for path in here.iterdir() if path.name.startswith(".")] == []


def test_init_with_nothing_to_find_writes_examples(farthing, here):
    code, out, _ = farthing("init", "--config", "deep/costs.toml")  # no terminal, so nobody is asked
    assert code == 0
    assert "next: add [[sources]]" in out
    assert load("deep/costs.toml") == Config(path="deep/costs.toml")
    text = Path("deep/costs.toml").read_text()
    shown = "\n".join(line.removeprefix("# ") for line in text.splitlines() if "=" in line or "# [" in line)
    examples = Path("examples.toml")
    examples.write_text(shown)
    assert load(examples).teams["search"].owner == "Ada"  # what is shown can be used as it is


def test_init_asks_at_a_terminal(farthing, here, monkeypatch):
    home = here.parent / "home"
    transcripts(home / ".claude" / "projects")
    lines = ["kept", "Nowhere/Else", "Europe/Berlin", "no", "s3://logs-eu/a", "",
             "search", "team=search, arn:aws:sts::*:assumed-role/search-*, 111122223333", "", ""]  # fmt: skip
    terminal = Terminal("\n".join(lines))
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    code, *_ = farthing("init", stdin=terminal)
    assert code == 0
    asked = screen.getvalue()
    assert "Import ~/.claude/projects? [yes]: " in asked
    assert "unknown time zone 'Nowhere/Else'" in asked
    config = load()
    assert (config.ledger, config.timezone) == ("kept", "Europe/Berlin")
    assert config.sources == (Source("s3://logs-eu/a"),)
    assert config.teams == {
        "search": Team(
            tags=("team=search",),
            principals=("arn:aws:sts::*:assumed-role/search-*",),
            accounts=("111122223333",),
        )
    }


def test_init_at_a_terminal_that_says_nothing_more_ends(farthing, here, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert farthing("init", stdin=Terminal(""))[0] == 0
    assert load().path == "farthing.toml"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none"], "none: no such file or folder"),
        (["s3:/x"], "s3:/x: no such file"),
        (["s3://UPPER/x"], "a bucket is written s3://BUCKET/PREFIX"),
        (["gs://x/y"], "a bucket is written s3://BUCKET/PREFIX"),
        (["--config", "/proc/none/farthing.toml"], "/proc/none/farthing.toml: "),
    ],
)
def test_init_refuses_what_it_cannot_use(farthing, here, words, says):
    code, out, err = farthing("init", "--yes", *words)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert says in err
    assert list(here.iterdir()) == []


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NAME = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=9)


@given(
    owner=TEXT,
    name=NAME.filter(lambda text: text.strip() not in ("", "unassigned")),
    member=NAME.filter(lambda text: "\\" not in text).map(lambda text: f"x={text}y"),
    path=NAME.map(lambda text: f"s3://b/{text}"),
    pseudonyms=st.booleans(),
    least=st.integers(0, 99),
)
def test_what_is_written_is_what_is_read(tmp_path_factory, owner, name, member, path, pseudonyms, least):
    config = Config(
        ledger="/kept",
        timezone="Europe/Berlin",
        profiles={"a1": "anthropic.claude-opus-5"},
        sources=(
            Source(path),
            Source("/logs", "bedrock_log", "p", "arn:aws:iam::111122223333:role/r", "e", "eu-west-1"),
        ),
        accounts={"111122223333": Account(owner, ("eu-west-1",)), "444455556666": Account()},
        teams={name: Team(owner=owner, tags=(member,), accounts=("1*",))},
        residency=(Residency(("geo:eu",), teams=(name,), since="2026-10-01"),),
        privacy=Privacy(pseudonyms, least),
    )
    file = tmp_path_factory.mktemp("written") / "farthing.toml"
    file.write_text(_init.as_toml(config), encoding="utf-8", newline="\n")
    assert load(file) == Config(
        **{n: getattr(config, n) for n in Config.__struct_fields__} | {"path": str(file)}
    )
