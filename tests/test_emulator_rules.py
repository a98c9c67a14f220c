"""What the emulator caches, delays and spoils: each by real clients on a clock that the test sets."""

import json
import threading
import time
import urllib.request
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection, IncompleteRead
from typing import Any

import anthropic
import boto3
import pytest
from botocore.exceptions import ClientError, EventStreamError
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.book import default_book
from farthing.cache import FIVE_US, HOUR_US, Request, State, bill
from farthing.emulator import Clock, Fault, World, running
from farthing.emulator._cache import Cache
from farthing.emulator._prompt import Block, Prompt

SONNET = "eu.anthropic.claude-sonnet-4-6"  # caches from 1,024 tokens on
HAIKU = "eu.anthropic.claude-haiku-4-5-20251001-v1:0"  # from 4,096
RULES = "a rule of this house. " * 300  # 1,650 tokens
ASKED = [{"role": "user", "content": [{"text": "Where is order 7?"}]}]


@pytest.fixture
def direct(emulated):
    """A client of Anthropic's API."""
    with anthropic.Anthropic(base_url=emulated.url, api_key="sk-secret", max_retries=0) as found:
        yield found


@pytest.fixture
def emulated():
    with running(World(default_book(), Clock(datetime(2026, 10, 1, 8, tzinfo=UTC), 0))) as found:
        yield found


def once(emulated, **how):
    """A client that does not try again."""
    retries = boto3.session.Config(retries={"total_max_attempts": 1}, **how)
    return emulated.client(region="eu-central-1", config=retries)


def streamed(client):
    """The events of ConverseStream, whose connection is closed when they are no longer wanted."""
    return closing(client.converse_stream(modelId=SONNET, messages=ASKED)["stream"])


def cached(emulated, *texts, model=SONNET, ttl="5m", region="eu-central-1", client=None):
    """Tokens read, and written for five minutes and an hour, of a call with a breakpoint after each text."""
    system = [
        part for text in texts for part in ({"text": text}, {"cachePoint": {"type": "default", "ttl": ttl}})
    ]
    client = client or emulated.client(region=region)
    usage = client.converse(modelId=model, system=system, messages=ASKED)["usage"]
    details = {one["ttl"]: one["inputTokens"] for one in usage.get("cacheDetails", ())}
    assert sum(details.values()) == usage["cacheWriteInputTokens"]
    return usage["cacheReadInputTokens"], details.get("5m", 0), details.get("1h", 0)


# --- caching ---------------------------------------------------------------------------------------------------------


def test_what_was_written_is_read_until_it_expires(emulated):
    assert cached(emulated, RULES) == (0, 1_650, 0)
    for _ in range(3):  # each read begins the five minutes again
        emulated.clock(advance_s=299)
        assert cached(emulated, RULES) == (1_650, 0, 0)
    emulated.clock(advance_s=301)
    assert cached(emulated, RULES) == (0, 1_650, 0)


def test_an_hour_lasts_an_hour(emulated):
    assert cached(emulated, RULES, ttl="1h") == (0, 0, 1_650)
    emulated.clock(advance_s=3_599)
    assert cached(emulated, RULES, ttl="1h") == (1_650, 0, 0)
    emulated.clock(advance_s=3_601)
    assert cached(emulated, RULES, ttl="1h") == (0, 0, 1_650)


def test_an_hour_may_be_kept_for_five_minutes_without_a_word(emulated):
    emulated.fail(downgrade_1h=True)
    assert cached(emulated, RULES, ttl="1h") == (0, 1_650, 0)
    emulated.clock(advance_s=301)
    assert cached(emulated, RULES, ttl="1h") == (0, 1_650, 0)


def test_short_prefixes_are_not_cached_and_nothing_is_said(emulated):
    assert cached(emulated, "x" * 4_092) == (0, 0, 0)  # 1,023 tokens
    assert cached(emulated, "x" * 4_096) == (0, 1_024, 0)
    assert cached(emulated, RULES, model=HAIKU) == (0, 0, 0)


def test_caches_are_of_one_model_region_account_and_routing(emulated):
    assert cached(emulated, RULES) == (0, 1_650, 0)
    assert cached(emulated, RULES, model="eu.anthropic.claude-sonnet-4-5-20250929-v1:0") == (0, 1_650, 0)
    assert cached(emulated, RULES, region="eu-west-1") == (0, 1_650, 0)
    assert cached(emulated, RULES, model="global.anthropic.claude-sonnet-4-6") == (0, 1_650, 0)
    other = f"arn:aws:bedrock:eu-central-1:444455556666:inference-profile/{SONNET}"
    assert cached(emulated, RULES, model=other) == (0, 1_650, 0)
    assert cached(emulated, RULES) == (1_650, 0, 0)


def test_converse_and_invoke_share_a_cache(emulated):
    assert cached(emulated, RULES) == (0, 1_650, 0)
    body = {
        "anthropic_version": "bedrock-2023-05-31", "max_tokens": 9,
        "system": [{"type": "text", "text": RULES, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "Where is order 8?"}],
    }  # fmt: skip
    answer = emulated.client(region="eu-central-1").invoke_model(modelId=SONNET, body=json.dumps(body))
    assert json.loads(answer["body"].read())["usage"]["cache_read_input_tokens"] == 1_650


def test_the_longest_prefix_is_read_and_the_rest_written(emulated):
    assert cached(emulated, RULES) == (0, 1_650, 0)
    assert cached(emulated, RULES, "and this. " * 10) == (1_650, 25, 0)
    assert cached(emulated, RULES, "and this. " * 10, "and that") == (1_675, 2, 0)


def test_a_breakpoint_looks_back_over_twenty_blocks(emulated):
    client = emulated.client(region="eu-central-1")
    point = {"cachePoint": {"type": "default"}}

    def read(more):
        blocks = [{"text": f"step {at}"} for at in range(more)]
        content = [{"text": RULES}, *([point] if not more else []), *blocks, *([point] if more else [])]
        usage = client.converse(modelId=SONNET, messages=[{"role": "user", "content": content}])["usage"]
        return usage["cacheReadInputTokens"]

    assert read(0) == 0
    emulated.clock(advance_s=1)
    assert read(20) == 0  # the breakpoint is one of the twenty
    emulated.clock(advance_s=301)
    assert read(0) == 0
    assert read(19) == 1_650


def test_more_than_four_breakpoints_are_refused(emulated):
    client = once(emulated)
    with pytest.raises(
        ClientError, match=r"A maximum of 4 blocks with cache_control may be provided\. Found 5"
    ):
        cached(emulated, *(RULES + str(at) for at in range(5)), client=client)
    assert cached(emulated, *(RULES + str(at) for at in range(4)), client=client)[1] > 0


def test_an_hour_comes_before_five_minutes(emulated):
    points = [{"cachePoint": {"type": "default", "ttl": ttl}} for ttl in ("5m", "1h")]
    client = once(emulated)
    system = [{"text": RULES}, points[0], {"text": RULES}, points[1]]
    with pytest.raises(ClientError, match="must not come after a ttl='5m'"):
        client.converse(modelId=SONNET, system=system, messages=ASKED)
    system = [{"text": RULES}, points[1], {"text": RULES}, points[0]]
    usage = client.converse(modelId=SONNET, system=system, messages=ASKED)["usage"]
    assert usage["cacheDetails"] == [{"ttl": "1h", "inputTokens": 1_650}, {"ttl": "5m", "inputTokens": 1_650}]


def test_a_write_can_be_read_from_its_first_token_on(emulated):
    """Calls at once all write; the clock runs as fast as the real one, so that the delay is one of its own time."""
    emulated.clock(speed=1)
    emulated.fail(first_token_ms=400)
    body = {
        "anthropic_version": "bedrock-2023-05-31", "max_tokens": 9,
        "system": [{"type": "text", "text": RULES, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "Where?"}],
    }  # fmt: skip

    def asked():
        client = emulated.client(region="eu-central-1")
        answer = client.invoke_model_with_response_stream(modelId=SONNET, body=json.dumps(body))
        assert list(answer["body"])

    threads = [threading.Thread(target=asked) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asked()
    tokens = [call["tokens"] for call in emulated.calls()]
    assert [one["cache_write_5m"] for one in tokens] == [1_650, 1_650, 1_650, 0]
    assert tokens[-1]["cache_read"] == 1_650


def test_a_call_may_say_when_it_is_made(emulated):
    """For replays: a header sets the time of one call."""

    def at(moment):
        request = urllib.request.Request(
            f"{emulated.url}/model/{SONNET}/converse",
            json.dumps(
                {"system": [{"text": RULES}, {"cachePoint": {"type": "default"}}], "messages": ASKED}
            ).encode(),
            {"x-farthing-at": moment},
        )
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read())["usage"]["cacheReadInputTokens"]

    assert [at(f"2026-09-01T10:0{minute}:00Z") for minute in (0, 4, 9)] == [0, 1_650, 1_650]
    assert at("2026-09-01T10:15:00Z") == 0
    assert emulated.calls()[0]["at_us"] == 1_788_256_800_000_000


def test_automatic_caching_is_of_anthropic_and_mantle(emulated, direct):
    asked: dict[str, Any] = {"max_tokens": 9, "cache_control": {"type": "ephemeral"}, "system": RULES}
    messages: list[Any] = [{"role": "user", "content": "Where is it?"}]
    first = direct.messages.create(model="claude-sonnet-4-6", messages=messages, **asked)
    second = direct.messages.create(model="claude-sonnet-4-6", messages=messages, **asked)
    assert first.usage.cache_creation_input_tokens == second.usage.cache_read_input_tokens == 1_653


parts = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 900)), min_size=1, max_size=6)
calls = st.lists(
    st.tuples(
        st.integers(0, 4_000_000_000), parts, st.sets(st.integers(0, 5), max_size=4), st.integers(0, 4)
    ),
    max_size=8,
)


@given(calls)
@settings(max_examples=100)
def test_a_cache_that_lives_on_bills_as_the_machine_does(traffic):
    """One request after another in a bounded table, or all of them in one state: the same tokens."""
    cache, now = Cache(), 0
    state: State = {}
    for gap, blocks, places, hours in traffic:
        now += gap
        marks = sorted(place for place in places if place < len(blocks))
        ttl = {at: "1h" if number < hours else "5m" for number, at in enumerate(marks)}
        made = [Block(bytes([kind]), size, ttl.get(at, "")) for at, (kind, size) in enumerate(blocks)]
        # A prefix has one size: what is hashed must say it.
        made = [block._replace(data=b"%d/%d" % (block.tokens, block.data[0])) for block in made]
        names = [tuple(block.data for block in made[: at + 1]) for at in range(len(made))]
        path = [(name, block.tokens) for name, block in zip(names, made, strict=True)]
        points = [(at, HOUR_US if ttl[at] == "1h" else FIVE_US) for at in marks]
        expected, state = bill(state, Request(now, path, points), 1_024)
        prompt = Prompt(made, sum(block.tokens for block in made))
        assert cache.bill("here", now, prompt, 1_024, 0) == expected.tokens


def test_the_table_is_bounded():
    cache = Cache(most=100)
    prompts = [Prompt([Block(b"%d" % number, 2_000, "5m")], 2_000) for number in range(1_000)]
    for number, prompt in enumerate(prompts):
        cache.bill("here", number, prompt, 1_024, 0)
        assert len(cache) <= 100
    assert cache.bill("here", 1_000, prompts[-1], 1_024, 0).cache_read == 2_000  # the last is there
    assert cache.bill("here", 1_001, prompts[0], 1_024, 0).cache_read == 0  # the first had to go


# --- what goes wrong -------------------------------------------------------------------------------------------------


def codes(client, count):
    """How so many calls end, and after which time each may be tried again."""
    found = []
    for _ in range(count):
        try:
            client.converse(modelId=SONNET, messages=ASKED)
            found.append(("", ""))
        except ClientError as error:
            told = error.response
            found.append(
                (told["Error"]["Code"], told["ResponseMetadata"]["HTTPHeaders"].get("retry-after", ""))
            )
    return found


def test_every_third_call_is_throttled(emulated):
    emulated.fail(Fault("throttle", every=3), retry_after_s=7)
    assert codes(once(emulated), 6) == [("", ""), ("", ""), ("ThrottlingException", "7")] * 2
    assert [call["status"] for call in emulated.calls()] == ["", "", "ThrottlingException"] * 2
    assert emulated.world.billed == 4


def test_a_rate_is_a_limit(emulated):
    emulated.fail(rate_per_s=5)
    refused = codes(once(emulated), 20).count(("ThrottlingException", ""))
    assert 0 < refused < 20
    assert emulated.world.billed == 20 - refused


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (500, "InternalServerException", anthropic.InternalServerError),
        (503, "ServiceUnavailableException", anthropic.ServiceUnavailableError),
        (529, "ServiceUnavailableException", anthropic.OverloadedError),
        (429, "ThrottlingException", anthropic.RateLimitError),
        (403, "AccessDeniedException", anthropic.PermissionDeniedError),
    ],
)
def test_errors_are_those_of_each_api(emulated, direct, status, code, error):
    emulated.fail(Fault("error", status=status, on=("Converse", "Messages")))
    with pytest.raises(ClientError) as refused:
        once(emulated).converse(modelId=SONNET, messages=ASKED)
    assert refused.value.response["Error"]["Code"] == code
    with pytest.raises(error) as told:
        direct.messages.create(
            model="claude-sonnet-4-6", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        )
    assert told.value.status_code == status
    assert emulated.world.billed == 0


def test_a_fault_happens_so_many_times(emulated):
    emulated.fail(Fault("error", status=503, times=2))
    client = emulated.client(
        config=boto3.session.Config(retries={"mode": "standard", "total_max_attempts": 3})
    )
    assert client.converse(modelId="us.anthropic.claude-sonnet-4-6", messages=ASKED)["usage"]
    assert [call["status"] for call in emulated.calls()] == ["ServiceUnavailableException"] * 2 + [""]


NAMES = ["throttlingException", "modelStreamErrorException", "internalServerException"]


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_may_end_in_an_exception(emulated, name):
    emulated.fail(Fault("exception", exception=name, after=3, message="no more"))
    client = once(emulated)
    with streamed(client) as stream, pytest.raises(EventStreamError, match=f"{name}.*no more") as told:
        list(stream)
    assert told.value.response["Error"]["Code"] == name
    call = _settled(emulated, 1)
    assert (call["status"], call["tokens"]["output"]) == ("exception", 16)  # two pieces of eight


@pytest.mark.parametrize("do", ["cut", "corrupt", "close"])
def test_a_stream_may_end_in_the_middle_of_a_frame(emulated, do):
    emulated.fail(Fault(do, after=3))
    broken = pytest.raises(Exception, match=r"Checksum|IncompleteRead|Connection broken|ended prematurely")
    with streamed(once(emulated)) as stream, broken:
        list(stream)
    call = _settled(emulated, 1)
    assert (call["status"], call["tokens"]["output"]) == (do, 16)


def test_a_stream_of_sse_may_end_in_an_error(emulated, direct):
    emulated.fail(Fault("exception", exception="throttlingException", after=3))
    asked: dict[str, Any] = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "hi"}],
    }
    with pytest.raises(anthropic.APIStatusError, match="rate_limit_error"):
        list(direct.messages.create(stream=True, **asked))
    assert _settled(emulated, 1)["status"] == "exception"


def test_an_answer_may_be_cut_off_and_is_billed(emulated):
    """boto3 would take half an answer for an empty one."""
    emulated.fail(Fault("close"))
    body = json.dumps({"messages": ASKED}).encode()
    request = urllib.request.Request(f"{emulated.url}/model/{SONNET}/converse", body)
    with urllib.request.urlopen(request) as answer, pytest.raises(IncompleteRead):
        answer.read()
    assert _settled(emulated, 1)["status"] == "close"
    assert emulated.world.billed == 1


def test_a_stream_may_hang(emulated):
    emulated.fail(Fault("hang", after=2))
    client = once(emulated, read_timeout=1)
    with streamed(client) as stream, pytest.raises(Exception, match=r"[Tt]imed out|Read timeout"):
        list(stream)
    call = _settled(emulated, 1)
    assert (call["status"], call["tokens"]["output"]) == ("hang", 8)


def _settled(emulated, billed):
    """The last call, once so many are billed."""
    for _ in range(100):
        if emulated.world.billed >= billed:
            return emulated.calls()[-1]
        time.sleep(0.02)
    raise AssertionError(f"{emulated.world.billed} calls billed, not {billed}")


def test_who_goes_away_pays_for_what_was_said(emulated):
    emulated.fail(event_ms=50)
    host, port = emulated.url.removeprefix("http://").split(":")
    connection = HTTPConnection(host, int(port))
    connection.request("POST", f"/model/{SONNET}/converse-stream", json.dumps({"messages": ASKED}))
    answer = connection.getresponse()
    assert answer.read(60)
    answer.close()
    connection.close()
    call = _settled(emulated, 1)
    assert call["status"] == "client gone"
    assert call["tokens"]["input"] == 5
    assert call["tokens"]["output"] < 16  # the least that an answer has


def test_delays_are_real_ones(emulated):
    emulated.fail(latency_ms=120, first_token_ms=150, event_ms=10)
    client = emulated.client(region="eu-central-1")
    began = time.monotonic()
    told = client.converse(modelId=SONNET, messages=ASKED)
    assert time.monotonic() - began >= 0.12
    assert told["metrics"]["latencyMs"] == 120
    began = time.monotonic()
    events = iter(client.converse_stream(modelId=SONNET, messages=ASKED)["stream"])
    next(events)
    assert time.monotonic() - began >= 0.15
    rest = list(events)
    assert time.monotonic() - began >= 0.15 + 0.01 * len(rest)


# --- /_farthing/ -----------------------------------------------------------------------------------------------------


def ask(emulated, path, told=None, method="PUT"):
    data = None if told is None else json.dumps(told).encode()
    request = urllib.request.Request(
        f"{emulated.url}/_farthing/{path}", data, method=method if data else "GET"
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_faults_are_set_and_told(emulated):
    wanted = {"latency_ms": 5, "plan": [{"do": "throttle", "every": 2, "on": ["Converse"]}]}
    assert ask(emulated, "faults", wanted)[0] == 200
    told = json.loads(ask(emulated, "faults")[1])
    assert (told["latency_ms"], told["plan"][0]["every"], told["plan"][0]["on"]) == (5, 2, ["Converse"])
    assert ask(emulated, "faults", told)[0] == 200  # as it was told


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("faults", {"latency": 5}),
        ("faults", {"plan": [{"do": "dance"}]}),
        ("faults", {"plan": [{"do": "error", "status": 299}]}),
        ("faults", {"event_ms": -1}),
        ("faults", [1]),
        ("clock", {"now": "soon"}),
        ("clock", {"speed": -1}),
        ("clock", {"today": "2026-10-01"}),
        ("identities", {"A": ["1"]}),
    ],
)
def test_what_cannot_be_set_is_refused(emulated, path, told):
    status, answer = ask(emulated, path, told)
    assert status == 400
    assert json.loads(answer)["error"]


def test_the_clock_is_set(emulated):
    told = json.loads(ask(emulated, "clock", {"now": "2026-11-01T00:00:00Z", "advance_s": 90})[1])
    assert (told["now"], told["speed"]) == ("2026-11-01T00:01:30Z", 0)


def test_its_own_log_is_told_page_by_page(emulated):
    client = emulated.client(region="eu-central-1")
    for number in range(5):
        client.converse(modelId=SONNET, messages=ASKED, requestMetadata={"run": str(number)})
    seen, since = [], 0
    while True:
        page = json.loads(ask(emulated, f"calls?since={since}&limit=2")[1])
        if not page["calls"]:
            break
        seen += page["calls"]
        since = page["next"]
    assert [call["metadata"]["run"] for call in seen] == list("01234")
    assert {call["operation"] for call in seen} == {"Converse"}
    totals = json.loads(ask(emulated, "totals")[1])
    assert totals["billed"] == 5
    assert totals["tokens"]["output"] == sum(call["tokens"]["output"] for call in seen)
    assert ask(emulated, "calls?since=x")[0] == 400


def test_no_secret_and_no_prompt_is_told(emulated, direct):
    direct.messages.create(
        model="claude-sonnet-4-6",
        max_tokens=9,
        messages=[{"role": "user", "content": "a word in confidence"}],
    )
    told = ask(emulated, "calls")[1] + ask(emulated, "totals")[1]
    assert b"secret" not in told
    assert b"confidence" not in told
