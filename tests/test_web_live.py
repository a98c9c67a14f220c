"""The page Live: each call once as it is written, also to a browser that was away; to each team its own."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from farthing.gateway._keys import Key, Keys, add
from farthing.gateway._outbox import Outbox
from farthing.importers.outbox import read
from farthing.ledger import Ledger
from farthing.outbox import Intent, Result, Tokens, encode
from farthing.usage import Usage
from farthing.web._access import Access
from farthing.web._live import Place, end_of, follow
from tests.web_server import Site, site

AT = datetime(2026, 11, 1, 8, tzinfo=UTC)
MODEL = "global.anthropic.claude-sonnet-4-6"


def result(name: str, team: str = "search", **said: Any) -> Result:
    facts: dict[str, Any] = {
        "model": MODEL,
        "platform": "bedrock",
        "region": "us-east-1",
        "tags": {"team": team},
    }
    counts: dict[str, Any] = {"tokens": Tokens(input=1_000, output=100), "latency_ms": 420}
    return Result(gateway_id=name, at=AT, request_id=f"r-{name}", **(facts | counts | said))


@pytest.fixture
def outbox(tmp_path) -> Iterator[Outbox]:
    made = Outbox(tmp_path / "outbox", fsync="os")
    yield made
    made.close()


@pytest.fixture
def served(tmp_path, outbox):
    Ledger(tmp_path / "ledger")
    with site(tmp_path / "ledger", outbox=str(outbox.folder)) as made:
        yield made


@contextmanager
def events(made: Site, **headers: str) -> Iterator[HTTPResponse]:
    con = HTTPConnection("127.0.0.1", made.port, timeout=10)
    con.request(
        "GET", "/live/events", headers=made.headers | {k.replace("_", "-"): v for k, v in headers.items()}
    )
    answer = con.getresponse()
    assert answer.headers["content-type"].startswith("text/event-stream")
    try:
        yield answer
    finally:
        con.close()


def following(stream: HTTPResponse, kind: str = "call") -> tuple[str, dict]:
    """The next event of the kind: its id and what it says."""
    said: dict[str, str] = {}
    while True:
        line = stream.readline().decode().rstrip("\n")
        if not line:
            if said.get("event") == kind:
                return said["id"], json.loads(said["data"])
            said = {}
            continue
        name, _, value = line.partition(": ")
        said[name] = value


def test_a_call_appears_within_a_second(served: Site, outbox):
    with events(served) as stream:
        following(stream, "place")
        begun = time.monotonic()
        outbox.result(result("g1"))
        _, said = following(stream)
        assert time.monotonic() - begun < 2
    assert (said["id"], said["model"], said["team"]) == ("r-g1", "claude-sonnet-4-6", "search")
    assert said["usd"] == "0.0045"  # a thousand tokens at $3 a million, a hundred at $15
    assert said["latency_ms"] == 420


def test_intents_are_no_calls_yet(served: Site, outbox):
    with events(served) as stream:
        following(stream, "place")
        outbox.intent(
            Intent(gateway_id="g1", at=AT, model=MODEL, platform="bedrock", expected=Tokens(input=5))
        )
        outbox.result(result("g2"))
        assert following(stream)[1]["id"] == "r-g2"


def test_who_was_away_misses_nothing_and_sees_nothing_twice(served: Site, outbox, tmp_path):
    with events(served) as stream:
        following(stream, "place")
        outbox.result(result("g1"))
        last, _ = following(stream)
    outbox.result(result("g2"))
    another = Outbox(outbox.folder, fsync="os", name="hooks")  # a process that began meanwhile
    another.result(result("g3"))
    another.close()
    with (
        site(tmp_path / "ledger", outbox=str(outbox.folder)) as other,
        events(other, last_event_id=last) as stream,
    ):
        seen = [following(stream)[1]["id"] for _ in range(2)]
        outbox.result(result("g4"))
        seen.append(following(stream)[1]["id"])
    assert sorted(seen[:2]) == ["r-g2", "r-g3"]
    assert seen[2] == "r-g4"


@pytest.mark.parametrize("wrong", ["", "x", "12~file", "-1", "9999999999~../../etc/passwd:0"])
def test_an_id_that_is_not_ours_begins_at_the_end(served: Site, outbox, wrong):
    outbox.result(result("before"))
    with events(served, last_event_id=wrong) as stream:
        following(stream, "place")
        outbox.result(result("after"))
        assert following(stream)[1]["id"] == "r-after"


def test_a_line_half_written_waits_for_its_end(tmp_path):
    file = tmp_path / "gateway-1.jsonl"
    line = encode(result("g1"))
    file.write_bytes(line[:40])
    place = end_of(tmp_path)
    assert list(follow(tmp_path, place)) == []
    file.write_bytes(line)
    ((usage, after),) = follow(tmp_path, place)
    assert usage.request_id == "r-g1"
    assert list(follow(tmp_path, after)) == []


def test_an_id_says_where_it_was():
    place = Place(7, {"gateway-20261101T080000Z-12-ab:c.jsonl": 12, "b.jsonl": 0})
    assert Place.of(place.id) == place


def test_it_stays_awake(served: Site):
    served.web.heartbeat_s = 0.2
    with events(served) as stream:
        following(stream, "place")
        while not stream.readline().startswith(b": still here"):
            pass


def test_the_last_calls_stand_on_the_page(served: Site, outbox):
    for number in range(60):
        outbox.result(result(f"g{number}", latency_ms=number))
    said = served.get("/live.json").json
    rows = said["tables"]["recent"]["rows"]
    assert len(rows) == 50
    assert Place.of(said["place"]) is not None
    assert served.get("/live.csv").body.decode().count("r-g") == 50


def test_each_team_follows_its_own(tmp_path, outbox):
    Ledger(tmp_path / "ledger")
    file = tmp_path / "keys.json"
    made = add(file, Key(name="sam", shown="", created=AT, teams=("search",)), AT - timedelta(days=1))
    with site(tmp_path / "ledger", Access(Keys(file)), outbox=str(outbox.folder)) as there:
        there.headers["authorization"] = f"Bearer {made.token}"
        with events(there) as stream:
            following(stream, "place")
            outbox.result(result("g1", "legal"))
            outbox.result(result("g2", "search"))
            assert following(stream)[1]["id"] == "r-g2"
        assert [row["id"] for row in there.get("/live.json").json["tables"]["recent"]["rows"]] == ["r-g2"]


@pytest.mark.parametrize(
    ("where", "fit"),
    [
        ("team=search", True), ("team!=search", False), ("model=claude-sonnet-*", True), ("endpoint=regional", False),
        ("tag:team=search", True), ("tag:env=prod", False), ("region=us-east-1", True), ("routing=global", True),
        ("status=", True), ("workload=nobody", False), ("mode=on_demand", True),
    ],
)  # fmt: skip
def test_filters_hold_as_on_other_pages(tmp_path, outbox, where, fit):
    """The page, and the same call in a ledger."""
    ledger = Ledger(tmp_path / "ledger")
    (usage,) = read([(1, encode(result("g1")).rstrip())])
    assert isinstance(usage, Usage)
    ledger.append([usage])
    outbox.result(result("g1"))
    with site(tmp_path / "ledger", outbox=str(outbox.folder)) as made:
        for path, table in (("/live.json", "recent"), ("/explore.json?calls=5", "calls")):
            query = [("where", where), *([("calls", "5")] if "?" in path else [])]
            rows = made.get(path.partition("?")[0], query).json["tables"][table]["rows"]
            assert [row["usd"] for row in rows] == (["0.0045"] if fit else [])


def test_without_an_outbox_it_says_how_to_follow_one(tmp_path):
    Ledger(tmp_path / "ledger")
    with site(tmp_path / "ledger") as made:
        assert "--outbox" in made.get("/live.json").json["missing"]["mend"]
        assert made.get("/live/events").status == 404


def test_an_outbox_that_is_not_there_yet_is_waited_for(tmp_path):
    Ledger(tmp_path / "ledger")
    folder: Path = tmp_path / "later"
    with site(tmp_path / "ledger", outbox=str(folder)) as made, events(made) as stream:
        following(stream, "place")
        late = Outbox(folder, fsync="os")
        late.result(result("g1"))
        assert following(stream)[1]["id"] == "r-g1"
        late.close()
