"""A deadline in a header: the gateway takes the call, and its answer is fetched, or waited for."""

import json
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from farthing.book import default_book
from farthing.gateway._keys import Key, add
from farthing.gateway._running import running
from farthing.gateway._settings import Settings
from farthing.gateway.batch import Queue
from tests import batches
from tests.batches import DIRECT, SONNET, finish, request, working

INVOKE = f"/model/{SONNET}/invoke"


class Got(NamedTuple):
    status: int
    headers: Any
    said: Any


credentials, found, there = batches.credentials, batches.found, batches.there


@pytest.fixture
def gateway(there, tmp_path):
    said = Settings(
        tmp_path / "outbox", bedrock=there.emulator.url, anthropic=there.emulator.url, region="us-east-1",
        auth=False, queue=tmp_path / "queue",
    )  # fmt: skip
    with running(said, default_book()) as made:
        yield made


def call(url, body=None, method="POST", **headers):
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = urllib.request.Request(url, data, named, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            text = answer.read()
            return Got(answer.status, answer.headers, json.loads(text) if text else None)
    except urllib.error.HTTPError as error:
        return Got(error.code, error.headers, json.loads(error.read()))


def test_it_is_taken_and_its_answer_is_there_later(gateway, there, tmp_path):
    before = len(there.calls())
    taken = call(gateway + INVOKE, request(1)["body"], x_farthing_deadline="6h", x_farthing_team="night")
    assert taken.status == 202
    assert taken.headers["location"] == taken.said["result"]
    assert taken.said["due_in_s"] > 6 * 3600 - 60
    place = gateway + taken.said["result"]
    assert call(place, method="GET").said["status"] == "waiting"
    assert len(there.calls()) == before
    with working(tmp_path / "queue", there) as runner:
        finish(runner, there)
    answer = call(place, method="GET")
    assert answer.status == 200
    assert answer.said["usage"]["output_tokens"] == 30
    assert answer.headers["x-farthing-mode"] == "on_demand"
    assert answer.headers["x-farthing-cost-usd"]
    (intent,) = {
        line["gateway_id"]: line
        for file in (tmp_path / "queue/outbox").iterdir()
        for line in map(json.loads, file.read_text().splitlines())
    }.values()
    assert intent["tags"]["team"] == "night"
    assert call(place, method="DELETE").status == 204
    assert call(place, method="GET").status == 404


def test_the_wait_may_be_held_open(gateway, there, tmp_path):
    ends = time.monotonic() + 30

    def works():
        while not (tmp_path / "queue/queue.sqlite").exists() and time.monotonic() < ends:
            time.sleep(0.01)
        with working(tmp_path / "queue", there) as runner:
            while not runner.queue.counts() and time.monotonic() < ends:
                time.sleep(0.01)
            finish(runner, there)

    worker = threading.Thread(target=works)
    worker.start()
    body = request(1, DIRECT)["body"] | {"model": DIRECT}
    got = call(
        f"{gateway}/v1/messages", body, x_farthing_deadline="2h", prefer="wait=20", anthropic_version="2023-06-01"
    )  # fmt: skip
    worker.join()
    assert (got.status, got.headers["x-farthing-mode"]) == (200, "batch")
    assert got.said["usage"]["service_tier"] == "batch"


def test_sent_again_under_its_key_it_is_one(gateway, tmp_path):
    how = {"x_farthing_deadline": "6h", "idempotency_key": "night-7"}
    first, second = (call(gateway + INVOKE, request(1)["body"], **how) for _ in range(2))
    assert first.said["id"] == second.said["id"]
    other = call(gateway + INVOKE, request(2)["body"], **how)
    assert (other.status, "idempotency-key" in str(other.said)) == (400, True)
    assert Queue(tmp_path / "queue").counts() == {"waiting": 1}


@pytest.mark.parametrize(
    ("path", "body", "deadline", "says"),
    [
        (INVOKE, request(1)["body"], "soon", "30m, 6h"),
        (INVOKE, {"messages": [], "anthropic_version": "x"}, "6h", 'no \\"messages\\"'),
        (f"{INVOKE}-with-response-stream", request(1)["body"], "6h", "cannot wait"),
        ("/v1/messages", request(1, DIRECT)["body"] | {"model": DIRECT, "stream": True}, "6h", "stream"),
    ],
)  # fmt: skip
def test_what_cannot_wait_is_refused(gateway, tmp_path, path, body, deadline, says):
    got = call(gateway + path, body, x_farthing_deadline=deadline)
    assert got.status == 400
    assert says in json.dumps(got.said)
    assert Queue(tmp_path / "queue").counts() == {}


def test_a_failed_one_says_why(gateway, tmp_path):
    place = call(gateway + INVOKE, request(1)["body"], x_farthing_deadline="6h").said["result"]
    held = Queue(tmp_path / "queue")
    held.cancel()
    got = call(gateway + place, method="GET")
    assert (got.status, "cancelled" in str(got.said)) == (502, True)


def test_only_the_key_that_asked_is_told(there, tmp_path):
    file, now = tmp_path / "keys.json", datetime.now(UTC)
    tokens = [add(file, Key(name=name, shown="", created=now), now).token for name in ("one", "two")]
    said = Settings(
        tmp_path / "outbox",
        bedrock=there.emulator.url,
        region="us-east-1",
        keys=file,
        queue=tmp_path / "queue",
    )
    with running(said, default_book()) as made:
        one, two = ({"authorization": f"Bearer {token}"} for token in tokens)
        place = call(made + INVOKE, request(1)["body"], "POST", x_farthing_deadline="6h", **one).said[
            "result"
        ]
        assert [call(made + place, None, "GET", **who).status for who in (one, two, {})] == [
            202,
            404,
            401,
        ]


def test_without_a_queue_the_header_means_nothing(there, tmp_path):
    said = Settings(tmp_path / "outbox", bedrock=there.emulator.url, region="us-east-1", auth=False)
    with running(said, default_book()) as made:
        assert call(made + INVOKE, request(1)["body"], x_farthing_deadline="6h").status == 200
