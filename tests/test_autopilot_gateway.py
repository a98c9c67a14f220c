"""Policies live where requests pass: in the gateway with an emulator behind it, and in boto3's hook."""

import http.client
import json
import threading
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import pytest

from farthing.book import default_book
from farthing.config import Channel, Config
from farthing.emulator import running as emulating
from farthing.gateway._autopilot_tell import tell
from farthing.gateway._guard_cache import Alarm
from farthing.gateway._keys import Key, add
from farthing.gateway._running import running
from farthing.gateway._settings import Settings
from farthing.gateway.hooks import attach, open_hook
from farthing.meters import Vector
from farthing.money import usd
from farthing.outbox import Result, decode
from farthing.policy import load
from tests.gateways import INVOKE, gateway, message, reply, upstream
from tests.piloted import ADAPTIVE, HEAD, MODEL, NOON, SECOND, Clock, entry, turn, words
from tests.replayed import MODEL as SONNET
from tests.replayed import RATES, SESSIONS, calls, figures, sessions
from tools.autopilot import TTL, play

GLOBAL = HEAD + entry("endpoint", 'endpoint = "global"')
SUPPORT = [("X-Amzn-Bedrock-Request-Metadata", '{"app":"support"}')]
BODY = turn("hello")


def policed(folder, text):
    file = folder / "policy.toml"
    file.write_text(text)
    return "--no-auth", "--policy", str(file)


def test_a_throttled_endpoint_is_left_within_the_call(tmp_path):
    def answer(asked):
        if "global." in asked.line:
            return [reply(b'{"message":"slow"}', "429 Too Many Requests")]
        return [reply(message())]

    with (
        upstream(answer) as up,
        gateway(tmp_path / "outbox", "--bedrock", up.url, *policed(tmp_path, GLOBAL)) as made,
    ):
        first, second = (made.post(INVOKE, BODY, SUPPORT) for _ in range(2))
        assert (first.status, second.status) == (200, 200)
        records = made.results()
        text = made.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").decode()
    assert [asked.line.split()[1] for asked in up.asked] == [INVOKE.replace("us.", "global."), INVOKE, INVOKE]
    assert [asked.body for asked in up.asked] == [BODY] * 3
    assert "the global endpoint throttles" in records[first["x-farthing-call-id"]].decisions[0].reason
    assert sorted(record.status for record in records.values())[:2] == ["", ""]
    assert 'farthing_decisions_total{lever="endpoint",outcome="applied"} 1' in text
    assert 'farthing_decisions_total{lever="endpoint",outcome="refused"} 2' in text
    assert "farthing_policy_fault 0" in text


def test_a_throttled_endpoint_is_told_if_the_other_is_throttled_too(tmp_path):
    slow = reply(b'{"message":"slow"}', "429 Too Many Requests")
    with (
        upstream(lambda _: [slow]) as up,
        gateway(tmp_path / "outbox", "--bedrock", up.url, *policed(tmp_path, GLOBAL)) as made,
    ):
        got = made.post(INVOKE, BODY, SUPPORT)
    assert (got.status, got.body) == (429, b'{"message":"slow"}')
    assert len(up.asked) == 2


def test_what_the_service_refuses_as_changed_goes_as_it_came(tmp_path):
    """A model without 1h answers 400: the client never hears of it, and the entry is not applied again."""

    def answer(asked):
        refused = b'"ttl":"1h"' in asked.body or b"bad" in asked.body
        return [reply(b'{"message":"no"}', "400 Bad Request")] if refused else [reply(message())]

    text = HEAD + entry("cache", 'markers = [{at = "end", ttl = "1h"}]')
    bodies = [*[turn(words(3_000, "bad"))] * 4, turn(words(3_000)), turn(words(3_000, "b"))]
    with (
        upstream(answer) as up,
        gateway(tmp_path / "outbox", "--bedrock", up.url, *policed(tmp_path, text)) as made,
    ):
        got = [made.post(INVOKE, body, SUPPORT) for body in bodies]
        records = made.results()
    assert [each.status for each in got] == [400] * 4 + [200, 200]
    assert [b'"ttl":"1h"' in asked.body for asked in up.asked] == [True, False] * 5 + [False]
    assert [up.asked[at].body for at in (1, 3, 5, 7, 9, 10)] == bodies
    first, second = (records[each["x-farthing-call-id"]].decisions[0].reason for each in got[4:])
    assert first.startswith("refused: with 400, by the service: support/cache")
    assert "the service refuses what it changes" in second


def test_a_profile_that_is_not_allowed_is_left_within_the_call(tmp_path):
    def answer(asked):
        if "global." in asked.line:
            return [reply(b'{"message":"not authorized"}', "403 Forbidden")]
        return [reply(message())]

    with (
        upstream(answer) as up,
        gateway(tmp_path / "outbox", "--bedrock", up.url, *policed(tmp_path, GLOBAL)) as made,
    ):
        assert [made.post(INVOKE, BODY, SUPPORT).status for _ in range(2)] == [200, 200]
    assert ["global." in asked.line for asked in up.asked] == [True, False, False]


def test_half_a_policy_file_is_told_by_metrics(tmp_path):
    with (
        upstream(lambda _: [reply(message())]) as up,
        gateway(tmp_path / "outbox", "--bedrock", up.url, *policed(tmp_path, GLOBAL)) as made,
    ):
        made.post(INVOKE, BODY, SUPPORT)
        (tmp_path / "policy.toml").write_text(GLOBAL[: len(GLOBAL) // 2])
        made.post(INVOKE, BODY, SUPPORT)
        text = made.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").decode()
    assert all("global." in asked.line for asked in up.asked)
    assert "farthing_policy_fault 1" in text


@pytest.mark.parametrize(("events", "told"), [((), 1), (("anomaly",), 1), (("budget",), 0)])
def test_channels_that_take_anomalies_are_told_of_alarms(events, told):
    alarm = Alarm("reverted", "support/cache", "0 tokens were read", NOON, 1_500_000_000_000)
    with upstream(lambda _: [reply(b"ok")]) as up:
        tell(Config(notify=(Channel("ops", "webhook", up.url + "/hook", events=events),)), alarm)
    assert [json.loads(asked.body) for asked in up.asked] == told * [
        {
            "text": "cache reverted: support/cache: 0 tokens were read",
            "kind": "cache_reverted",
            "entry": "support/cache",
            "at": "2026-11-23T12:00:00+00:00",
            "usd_an_hour": "1.5",
        }
    ]


def test_a_channel_that_cannot_be_reached_is_in_the_log(caplog, monkeypatch):
    monkeypatch.delenv("NO_SUCH_HOOK", raising=False)
    tell(
        Config(notify=(Channel("ops", "slack", url_env="NO_SUCH_HOOK"),)),
        Alarm("broken", "a/cache", "x", NOON),
    )
    assert "channel ops: $NO_SUCH_HOOK is not set" in caplog.text


# --- with an emulator behind it --------------------------------------------------------------------------------------


class Line:
    """A connection to a gateway; time is moved along with the calls."""

    def __init__(self, url, emulator, clock):
        self.http = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self.emulator, self.clock = emulator, clock
        self.emulator.clock(datetime.fromtimestamp(NOON // SECOND, UTC).isoformat(), speed=0)

    def post(self, body, *, model=MODEL, session="", at_us=0):
        step = max(0, (NOON + at_us - self.clock.now_us) // SECOND)
        self.clock.now_us += step * SECOND
        self.emulator.clock(advance_s=step)
        headers = {"X-Amzn-Bedrock-Request-Metadata": '{"app":"support"}', "Content-Type": "application/json"}
        if session:
            headers["X-Claude-Code-Session-Id"] = session
        self.http.request("POST", f"/model/{model}/invoke", body, headers)
        answered = self.http.getresponse()
        said = answered.read()
        assert answered.status == 200, said
        return json.loads(said)["usage"]

    def metrics(self):
        self.http.request("GET", "/metrics")
        return self.http.getresponse().read().decode()


def guards_done():
    """What the guard does beside the calls is done."""
    for thread in threading.enumerate():
        if thread.name == "farthing-guard":
            thread.join(10)


@pytest.fixture
def line(tmp_path):
    """From a policy to a gateway with an emulator behind it."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def made(policy, config=""):
            file = tmp_path / "policy.toml"
            file.write_text(policy)
            (tmp_path / "farthing.toml").write_text(config)
            emulator = stack.enter_context(emulating())
            where = Settings(
                tmp_path / "outbox", bedrock=emulator.url, region="eu-west-1", auth=False, policy=file,
                config=tmp_path / "farthing.toml",
            )  # fmt: skip
            clock = Clock()
            url = stack.enter_context(running(where, default_book(), clock))
            found = Line(url, emulator, clock)
            stack.callback(found.http.close)
            return found

        yield made


def results(folder):
    lines = [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().splitlines()]
    return [record for record in map(decode, lines) if isinstance(record, Result)]


def test_a_conversation_through_the_gateway_is_cached(line, tmp_path):
    made, said, used = line(ADAPTIVE), [], []
    for k in range(5):
        said += [words(300, f"q{k}"), words(400, f"a{k}")]
        used.append(made.post(turn(*said[:-1], system=words(9_000)), session="s", at_us=40 * k * SECOND))
    assert used[0]["cache_creation_input_tokens"] == 0
    assert used[-1]["cache_read_input_tokens"] > 10_000
    record = results(tmp_path / "outbox")[-1]
    assert record.decisions[0].lever == "cache"
    assert "adaptive_unpinged: messages[" in record.decisions[0].reason


def test_an_hour_that_the_service_does_not_keep_is_found_out(line, tmp_path):
    made = line(HEAD + entry("ttl", 'ttl = "1h"'))
    made.emulator.fail(downgrade_1h=True)
    used = [
        made.post(turn(words(3_000, f"q{k}"), system=words(2_000), marks={0: "5m"}), at_us=20 * k * SECOND)
        for k in range(4)
    ]
    bills = made.emulator.calls()
    assert all(each["cache_creation_input_tokens"] for each in used)
    assert [bill["tokens"].get("cache_write_1h", 0) for bill in bills] == [0] * 4
    said = [record.decisions[0].reason for record in results(tmp_path / "outbox")]
    assert ["billed as five minutes" in each for each in said] == [False, False, True, True]
    assert 'farthing_cache_alarms_total{kind="downgraded",entry="support/ttl"} 1' in made.metrics()


def test_a_cache_that_nobody_reads_is_given_up_within_minutes(line, tmp_path):
    """Markers behind what changes each time: the service bills writes, and half an hour later there are none."""
    made = line(HEAD + entry("cache", 'markers = [{at = "end"}]'))
    once = [made.post(turn(words(3_000, f"once {k}")), at_us=30 * k * SECOND) for k in range(40)]
    guards_done()
    written = [used["cache_creation_input_tokens"] for used in once]
    assert (written[0], written[-1]) == (3_000, 0)
    last = load(tmp_path / "policy.toml")
    assert (last.entries[0].state, last.by) == ("off", "the cache guard")
    assert last.what.startswith("undo support/cache: prompts cost $")
    assert 'farthing_cache_alarms_total{kind="reverted",entry="support/cache"} 1' in made.metrics()


def test_a_broken_cache_is_told_with_its_block_and_dollars(line):
    with upstream(lambda _: [reply(b"ok")]) as ops:
        told = f'[[notify]]\nname = "ops"\nkind = "webhook"\nurl = "{ops.url}/hook"\nevents = ["anomaly"]\n'
        made = line(HEAD + entry("ttl", 'state = "shadow"\nttl = "1h"'), told)
        for k in range(12):
            body = json.loads(turn(words(300, f"q{k}"), system=words(9_000), marks={0: "5m"}))
            body["system"].insert(0, {"type": "text", "text": f"It is {k} o'clock."})
            made.post(json.dumps(body).encode(), at_us=30 * k * SECOND)
        guards_done()
        (asked,) = ops.asked
    said = json.loads(asked.body)
    assert (said["kind"], said["entry"]) == ("cache_broken", "support/ttl")
    assert "system[0] changed in 5 of 6 calls" in said["text"]
    assert float(said["usd_an_hour"]) == pytest.approx(120 * 9_300 * 3_795_000 / 1e12, rel=0.3)


def test_what_may_not_go_to_the_world_goes_as_it_came(tmp_path):
    """A pinned key, capacity that is provisioned, a model without a global profile."""
    keys = tmp_path / "keys.json"
    now = datetime.now(UTC)
    free, kept = (
        add(keys, Key(name=name, shown="", created=now, pinned=name == "kept"), now)
        for name in ("free", "kept")
    )
    capacity = quote("arn:aws:bedrock:eu-west-1:111122223333:provisioned-model/p1", safe="")
    old = "anthropic.claude-3-haiku-20240307-v1:0"
    with (
        upstream(lambda _: [reply(message())]) as up,
        gateway(
            tmp_path / "outbox", "--bedrock", up.url, "--keys", str(keys), *policed(tmp_path, GLOBAL)[1:]
        ) as made,
    ):
        for key, model in ((free, MODEL), (kept, MODEL), (free, capacity), (free, old)):
            made.post(f"/model/{model}/invoke", BODY, [*SUPPORT, ("x-api-key", key.token)])
        said = [record.decisions[0].reason for record in made.results().values()]
    assert ["global." in asked.line for asked in up.asked] == [True, False, False, False]
    assert said[1:] == [
        "refused: the key is pinned to its region",
        "refused: provisioned throughput is billed by the hour, not by the token",
        "refused: claude-3-haiku has no global profile",
    ]  # fmt: skip


def through(line, trace, marked="") -> int:
    """Picodollars of whole sessions, each call over HTTP at its moment: to the gateway, and from it to the emulator."""
    billed = Vector()
    for call in calls(trace, marked=marked):
        at_us = call.at_us // SECOND * SECOND
        used = line.post(call.body, model=SONNET, session=call.session, at_us=at_us)
        written = used["cache_creation"]
        billed += Vector(
            used["input_tokens"], call.output, used["cache_read_input_tokens"],
            written["ephemeral_5m_input_tokens"], written["ephemeral_1h_input_tokens"],
        )  # fmt: skip
    return billed @ RATES


def test_short_sessions_through_the_gateway(line, shared):
    """What the gateway's HTTP does is what its decisions do: to the picodollar."""
    trace = sessions(shared / "data" / SESSIONS, shortest=14)
    assert trace.requests > 50
    assert through(line(ADAPTIVE), trace) == play(trace, ADAPTIVE)[0]


@pytest.mark.fuzz
@pytest.mark.filterwarnings(
    "ignore:Sending a large body"
)  # of some MB: aiohttp would rather have it in pieces
@pytest.mark.parametrize(
    ("policy", "marked", "shortest"), [(ADAPTIVE, "", 150), (TTL, "5m", 100)], ids=["autopilot", "ttl"]
)
def test_sessions_through_the_gateway(line, shared, policy, marked, shortest):
    """8,074 of 9,523 calls without markers, 3,081 with their own: to the picodollar as in this process. Minutes."""
    trace = sessions(shared / "data" / SESSIONS, shortest=shortest)
    found, figure = through(line(policy), trace, marked), figures(trace)
    print(f"{trace.requests} calls: {usd(found)}, { ({name: usd(picos) for name, picos in figure.items()}) }")
    assert found == play(trace, policy, marked)[0]
    assert found == figure["end_1h"] if marked else found * 100 <= figure["bound"] * 116
    assert found <= figure["end_5m"]


# --- in a hook -------------------------------------------------------------------------------------------------------


def test_a_conversation_through_boto3_is_cached(tmp_path):
    (tmp_path / "policy.toml").write_text(ADAPTIVE)
    with emulating() as emulator:
        hook = open_hook(
            outbox=tmp_path / "outbox", policy=tmp_path / "policy.toml", tags={"app": "support"}, settle="now"
        )
        hook.live.autopilots.warmth.wait()
        client = emulator.client(region="eu-west-1")
        attach(client.meta.events, hook)
        used, said, messages = [], [], []
        for k in range(5):
            said += [words(300, f"q{k}"), words(400, f"a{k}")]
            messages = [
                {"role": ("user", "assistant")[at % 2], "content": [{"text": text}]}
                for at, text in enumerate(said[:-1])
            ]
            answered = client.converse(modelId=MODEL, messages=messages, system=[{"text": words(9_000)}])
            used.append(answered["usage"])
        client.close()
        hook.close()
    assert "cachePoint" not in json.dumps(messages)  # the caller's own stay as they were
    assert used[-1]["cacheReadInputTokens"] > 10_000
    assert len(results(tmp_path / "outbox")) == 5
