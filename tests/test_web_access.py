"""Who may see what of the dashboard: keys, teams, forged requests, guessing, the record; advice applied and undone."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from farthing import cli
from farthing.gateway._keys import Key, Keys, add, revoke
from farthing.ledger import Ledger
from farthing.policy import load
from farthing.usage import Facts, Usage
from farthing.web._access import TRIES, Access
from farthing.web._books import ORDER
from tests.agents import role, sessions, singles
from tests.traffic import usages
from tests.web_server import NOW, Site, site

CONFIG = f"""
[[budgets]]
name = "search"
usd = 5000
where = ["team=search"]

[[budgets]]
name = "the secret plans of legal"
usd = 4000
where = ["team=legal"]

[[budgets]]
name = "everything"
usd = 1000000

[workloads.agents]
owner = "Grace"
principals = ["{role("agents")}"]
allow = ["global"]
"""
SONNET = "us.anthropic.claude-sonnet-4-6"
OTHERS = re.compile(r"\bads\b|legal|nightly|agents|opus|haiku|444455556666|everything|secret")


def key(file: Path, name: str, **rights) -> str:
    return add(
        file, Key(name=name, shown="", created=NOW - timedelta(days=1), **rights), NOW - timedelta(days=1)
    ).token


POLICY = """
[workloads.legal]
tags = ["team=legal"]

[[entries]]
workload = "legal"
lever = "endpoint"
endpoint = "global"
approver = "Ada"
approved_at = "2026-10-20"
expires = "2027-02-01"
"""


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("access")
    ledger = Ledger(folder / "ledger")
    ledger.append(list(usages(hours=24 * 5)))
    ledger.append(
        [
            *sessions("agents", "us.anthropic.claude-sonnet-4-6", (1, 20), 30),
            *singles("nightly", "us.anthropic.claude-sonnet-4-6", 50),
        ]
    )
    (folder / "farthing.toml").write_text(CONFIG)
    return folder


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guarded(place, tmp_path, clock):
    """With keys: an admin's, a viewer's of all, one of the team search."""
    yield from opened(place, tmp_path, clock)


@pytest.fixture(scope="module")
def read_only(place, tmp_path_factory):
    """The same for tests that change nothing, with a policy that names everybody."""
    folder = tmp_path_factory.mktemp("read")
    (folder / "policy.toml").write_text(POLICY)
    yield from opened(place, folder, Clock())


def opened(place: Path, tmp_path: Path, clock: Clock) -> Iterator[Site]:
    file = tmp_path / "keys.json"
    tokens = {
        "admin": key(file, "ada", admin=True),
        "viewer": key(file, "vic"),
        "search": key(file, "sam", teams=("search",)),
        "over": key(file, "old", expires=NOW - timedelta(hours=1)),
    }
    access = Access(Keys(file), audit=tmp_path / "audit.jsonl")
    more: dict[str, Any] = {
        "config": place / "farthing.toml",
        "policy": tmp_path / "policy.toml",
        "clock": clock,
    }
    with site(place / "ledger", access, **more) as made:
        made.tokens, made.keys_file, made.audit = tokens, file, tmp_path / "audit.jsonl"
        yield made


def audited(made: Site) -> list[dict[str, str]]:
    return [json.loads(line) for line in made.audit.read_text().splitlines()]


# --- who gets in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [*(f"/{name}.json" for name in ORDER), "/bill.csv", "/session.json", "/live/events", "/x"]
)
def test_nobody_gets_in_without_a_key(guarded: Site, path):
    assert guarded.get(path).status == 401
    assert guarded.get(path, authorization="Bearer ftg_guess").status in (401, 429)
    assert guarded.get(path, cookie="farthing=guess").status == 401


def test_a_person_is_led_to_the_form(guarded: Site):
    answer = guarded.get("/bill", accept="text/html")
    assert (answer.status, answer.headers["location"]) == (303, "/login")
    form = guarded.get("/login")
    assert form.status == 200
    assert b'type="password"' in form.body
    assert b"<script" not in form.body


def test_a_key_opens_a_session(guarded: Site):
    answer = guarded.login(guarded.tokens["viewer"])
    assert answer.headers["location"] == "/bill"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert guarded.get("/bill.json").status == 200
    assert guarded.get("/session.json").json["name"] == "vic"
    assert guarded.post("/logout").status == 200
    assert guarded.get("/bill.json").status == 401


def test_with_tls_the_cookie_goes_no_other_way(place, tmp_path):
    file = tmp_path / "keys.json"
    token = key(file, "vic")
    with site(place / "ledger", Access(Keys(file), secure=True)) as made:
        answer = made.login(token)
    assert answer.headers["set-cookie"].startswith("__Host-farthing=")
    assert "secure" in answer.headers["set-cookie"].lower()
    assert "strict-transport-security" in answer.headers


def test_a_program_sends_its_key(guarded: Site):
    assert guarded.get("/bill.json", authorization=f"Bearer {guarded.tokens['viewer']}").status == 200
    assert guarded.get("/bill.json", authorization=f"Basic {guarded.tokens['viewer']}").status == 401
    assert guarded.get("/bill.json", authorization=f"Bearer {guarded.tokens['over']}").status == 401


def test_a_session_ends(guarded: Site, clock):
    guarded.login(guarded.tokens["viewer"])
    clock.now = NOW + timedelta(hours=11)
    assert guarded.get("/bill.json").status == 200
    clock.now = NOW + timedelta(hours=13)
    assert guarded.get("/bill.json").status == 401


def test_a_revoked_key_ends_its_sessions(guarded: Site):
    guarded.login(guarded.tokens["viewer"])
    assert guarded.get("/session.json").status == 200
    revoke(guarded.keys_file, "vic", NOW)
    assert guarded.get("/session.json").status == 401


def test_guessing_is_slow(guarded: Site, clock):
    for _ in range(TRIES):
        assert guarded.login("ftg_guess").headers["location"] == "/login?problem=wrong"
    answer = guarded.login(guarded.tokens["admin"])  # even the right one
    assert answer.status == 429
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert guarded.get("/bill.json", authorization="Bearer ftg_guess").status == 429
    clock.now = NOW + timedelta(seconds=61)
    assert guarded.login(guarded.tokens["admin"]).headers["location"] == "/bill"


def test_another_sites_form_does_not_log_in(guarded: Site):
    body = f"key={guarded.tokens['viewer']}".encode()
    assert guarded.post("/login", body, sec_fetch_site="cross-site").status == 403
    assert guarded.post("/login", body, origin="https://evil.example").status == 403


# --- whose money -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORDER)
@pytest.mark.parametrize(
    "query",
    [
        [],
        [("where", "team=legal")],
        [("where", "team!=search")],
        [("keys", "team,model,account,workload"), ("calls", "50")],
    ],
)
def test_a_team_sees_its_own_alone(read_only: Site, name, query):
    """In pages, JSON and CSV alike, whatever is asked."""
    query = [pair for pair in query if pair[0] == "where" or name == "explore"]
    bearer = f"Bearer {read_only.tokens['search']}"
    read_only.access._tries.clear()
    answer = read_only.get(f"/{name}.json", query, authorization=bearer)
    assert answer.status == 200
    said = answer.json
    said["question"].pop("where"), said.pop("rows_from")  # what was asked is said again
    for table in said["tables"].values():
        for row in table["rows"]:
            row.pop("_rows", "")
    said["title"] = ""
    text = json.dumps(said)
    text = text.replace("claude-haiku-4-5", "") if name == "savings" else text  # which is advised
    assert not OTHERS.search(text)
    for table in said["tables"]:
        found = read_only.get(f"/{name}.csv", [*query, ("table", table)], authorization=bearer)
        assert not OTHERS.search(found.body.decode().replace("haiku", "" if name == "savings" else "haiku"))


def test_days_are_those_of_the_team(read_only: Site, tmp_path):
    """When others began, and when they were last at work, is theirs."""
    facts = Facts("bedrock_log", "bedrock", SONNET, region="us-east-1")
    days = {"legal": (1, 20), "search": (5, 9)}
    Ledger(tmp_path / "ledger").append([
        Usage(int(datetime(2026, 10, day, 12, tzinfo=UTC).timestamp()) * 10**6, f"{team}{day}", "",
              ((facts, (1_000, 10, 0, 0, 0)),), (("team", team),))
        for team, both in days.items() for day in both
    ])  # fmt: skip
    with site(tmp_path / "ledger", read_only.access) as made:
        bearer, missing = f"Bearer {read_only.tokens['search']}", {}
        for name in ORDER:
            said = made.get(f"/{name}.json", authorization=bearer).json
            assert said["span"] == {"since": "2026-10-05", "until": "2026-10-09"}
            assert not re.search(r"2026-10-(01|20)", json.dumps(said["kpis"] + said["notes"]))
            missing[name] = said.get("missing", {})
        whole = made.get("/bill.json", authorization=f"Bearer {read_only.tokens['viewer']}").json
    assert whole["span"] == {"since": "2026-10-01", "until": "2026-10-20"}
    assert missing["reconcile"]["mend"] == "ask somebody who sees all teams"
    assert missing["budgets"]["why"] == "no budget is of your teams alone"


def test_the_others_are_there_to_be_seen(read_only: Site):
    bearer = f"Bearer {read_only.tokens['viewer']}"
    for name in ("bill", "explore", "endpoints", "batch", "budgets", "savings", "cache", "prices"):
        assert OTHERS.search(read_only.get(f"/{name}.json", authorization=bearer).body.decode())


def test_the_teams_add_up(guarded: Site):
    whole = guarded.get(
        "/bill.json?where=team%3Dsearch", authorization=f"Bearer {guarded.tokens['viewer']}"
    ).json
    own = guarded.get("/bill.json", authorization=f"Bearer {guarded.tokens['search']}").json
    assert own["kpis"] == whole["kpis"]
    assert own["choices"]["team"] == ["search"]
    assert len(whole["choices"]["team"]) > 1
    assert own["rejected"] == {"lines": 0, "reasons": []}


def test_what_one_has_seen_another_is_not_shown(guarded: Site):
    """Pages are kept for all who ask the same: not for whom may not see them."""
    for name in ("bill", "savings", "prices"):
        whole = guarded.get(f"/{name}.json", authorization=f"Bearer {guarded.tokens['viewer']}").json
        own = guarded.get(f"/{name}.json", authorization=f"Bearer {guarded.tokens['search']}").json
        assert own["footer"]["usd"] != whole["footer"]["usd"]


# --- what changes something ------------------------------------------------------------------------------------------


def test_viewers_change_nothing(guarded: Site):
    for name in ("viewer", "search"):
        guarded.login(guarded.tokens[name])
        assert guarded.post("/savings/apply", {"names": ["x"]}).status == 403
        assert guarded.post("/savings/undo").status == 403
    assert not guarded.books.policy.exists()


def test_a_forged_request_changes_nothing(guarded: Site):
    guarded.login(guarded.tokens["admin"])
    token = guarded.headers.pop("x-csrf-token")
    for path in ("/savings/apply", "/savings/undo", "/logout"):
        assert guarded.post(path, {"names": []}).status == 403
        assert guarded.post(path, {"names": []}, x_csrf_token="x" + token).status == 403
    assert guarded.get("/session.json").status == 200


def test_a_program_applies_with_its_key_alone(guarded: Site):
    """What no page of another site can send needs no token; what a viewer may not, its key may not either."""
    advice = guarded.get("/savings.json", authorization=f"Bearer {guarded.tokens['admin']}").json["tables"][
        "advice"
    ]
    names = [row["name"] for row in advice["rows"] if row["counts"] and row["lever"] == "endpoint"][:1]
    for name, status in (("viewer", 403), ("search", 403), ("admin", 200)):
        bearer = f"Bearer {guarded.tokens[name]}"
        assert guarded.post("/savings/apply", {"names": names}, authorization=bearer).status == status
        assert guarded.books.policy.exists() == (status == 200)


def test_loopback_needs_the_token_too(place, tmp_path):
    with site(place / "ledger", policy=tmp_path / "policy.toml") as made:
        assert made.post("/savings/undo").status == 403


def test_advice_is_applied_and_undone_by_whoever_is_logged_in(guarded: Site):
    guarded.login(guarded.tokens["admin"])
    advice = guarded.get("/savings.json").json["tables"]["advice"]["rows"]
    endpoint = next(
        row for row in advice if row["workload"] == "agents" and row["lever"] == "endpoint" and row["counts"]
    )
    done = guarded.post("/savings/apply", {"names": [endpoint["name"]], "reason": "cheaper"})
    assert done.status == 200, done.json
    assert done.json["written"]
    (entry,) = load(guarded.books.policy).entries
    assert (entry.lever, entry.workload, entry.approver, entry.state) == ("endpoint", "agents", "ada", "on")
    (shown,) = guarded.get("/savings.json").json["tables"]["policy"]["rows"]
    assert (shown["approver"], shown["now"]) == ("ada", "in force")
    assert guarded.post("/savings/undo", {"what": entry.name}).json["written"]
    (shown,) = guarded.get("/savings.json").json["tables"]["policy"]["rows"]
    assert shown["now"] == "off"
    versions = guarded.get("/savings.json").json["tables"]["versions"]["rows"]
    assert [(row["by"], row["what"].split()[0]) for row in versions] == [("ada", "undo"), ("ada", "apply")]
    assert [line["what"] for line in audited(guarded) if line["who"] == "ada" and line["what"] != "read"] == [
        "login", "apply", "apply done", "undo", "undo done",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/savings/apply", {"names": ["nothing of that name"]}, 404),
        ("/savings/apply", {"names": "all"}, 400),
        ("/savings/apply", b"not json", 400),
        ("/savings/apply", b"x" * 70_000, 413),
        ("/savings/undo", {"what": "nothing"}, 409),
    ],
)
def test_a_change_that_cannot_be_says_why(guarded: Site, path, body, status):
    guarded.login(guarded.tokens["admin"])
    answer = guarded.post(path, body)
    assert answer.status == status
    assert answer.json["error"]


def test_what_cannot_be_recorded_is_not_done(guarded: Site):
    guarded.login(guarded.tokens["admin"])
    guarded.audit.unlink()
    guarded.audit.mkdir()
    assert guarded.post("/savings/undo", {"what": "1"}).status == 503
    assert not guarded.books.policy.exists()


def test_all_is_recorded_without_secrets(guarded: Site):
    guarded.login("ftg_wrong")
    guarded.login(guarded.tokens["viewer"])
    guarded.get("/bill.json?where=team%3Dsearch")
    guarded.get("/bill.csv")
    lines = audited(guarded)
    assert [(line["who"], line["what"]) for line in lines] == [
        ("", "login failed"), ("vic", "login"), ("vic", "read"), ("vic", "read"),
    ]  # fmt: skip
    assert lines[2]["query"] == "where=team%3Dsearch"
    text = guarded.audit.read_text()
    assert not [token for token in (*guarded.tokens.values(), "ftg_wrong") if token in text]
    assert guarded.audit.stat().st_mode & 0o777 == 0o600


# --- the command line ------------------------------------------------------------------------------------------------


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(["web", *words])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_beyond_loopback_a_key_is_needed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Ledger(tmp_path / "ledger")
    code, _, err = run(capsys, "--host", "0.0.0.0", "--ledger", "ledger", "--no-open")
    assert code == 2
    assert "farthing web key add" in err


def test_keys_are_made_listed_and_revoked(capsys, tmp_path):
    file = str(tmp_path / "keys.json")
    code, out, _ = run(capsys, "key", "add", "sam", "--team", "search", "--keys", file, "--json")
    token = json.loads(out)["token"]
    assert code == 0
    assert token not in Path(file).read_text()
    made = Keys(file).of_token(token, datetime.now(UTC))
    assert made is not None
    assert made.teams == ("search",)
    assert "sees search" in run(capsys, "key", "list", "--keys", file)[1]
    assert run(capsys, "key", "revoke", "sam", "--keys", file)[0] == 0
    assert Keys(file).of_token(token, datetime.now(UTC)) is None


@pytest.mark.parametrize("words", [("--team", "a*"), ("--team", "a", "--admin"), ("--expires", "soon")])
def test_a_key_that_makes_no_sense_is_not_made(capsys, tmp_path, words):
    file = tmp_path / "keys.json"
    code, _, err = run(capsys, "key", "add", "sam", *words, "--keys", str(file))
    assert code == 2
    assert len(err.splitlines()) == 1
    assert not file.exists()
