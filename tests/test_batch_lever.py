"""A policy's batch lever on live calls: who waits and how, who does not, and what stands in the records."""

import http.client
import json
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import anthropic
import boto3
import pytest
import urllib3
from botocore.config import Config

from farthing.book import default_book
from farthing.gateway._batch_lock import RUNNER_LOCK, only
from farthing.gateway._running import running
from farthing.gateway._settings import Limits, Settings
from farthing.gateway.batch import Queue
from farthing.gateway.hooks import attach, open_hook
from farthing.outbox import Intent, decode
from tests import batches
from tests.batches import (
    DIRECT,
    HAIKU,
    SONNET,
    finish,
    imported,
    request,
    until,
    working,
)
from tests.piloted import HEAD, entry

US = f"us.{SONNET.removeprefix('global.')}"
INVOKE = f"/model/{US}/invoke"
SUPPORT = {"x-amzn-bedrock-request-metadata": '{"app":"support","ticket":"7"}'}
NIGHT = 'deadline = "6h"'


credentials, found, there = batches.credentials, batches.found, batches.there


@contextmanager
def gateway(there, folder, policy=NIGHT, *more, **settings):
    """With a policy that batches what is tagged app=support, and a queue."""
    file = folder / "policy.toml"
    file.write_text(HEAD + entry("batch", policy) + "".join(more))
    said = Settings(
        folder / "outbox", bedrock=there.emulator.url, anthropic=there.emulator.url, region="us-east-1", auth=False,
        queue=folder / "queue", policy=file, **settings,
    )  # fmt: skip
    with running(said, default_book()) as url:
        yield url


@contextmanager
def at_work(folder, there):
    """A runner that answers what is in the queue, one round after another."""
    ended = threading.Event()

    def works():
        with working(folder / "queue", there) as runner, only(folder / "queue" / RUNNER_LOCK):
            begun.set()
            while not ended.is_set():
                if runner.queue.counts().keys() & {"waiting", "sync"}:
                    finish(runner, there)
                time.sleep(0.02)

    begun, thread = threading.Event(), threading.Thread(target=works)
    thread.start()
    begun.wait(10)
    try:
        yield
    finally:
        ended.set()
        thread.join()


def call(url, number=1, path=INVOKE, **headers):
    body = (
        request(number)["body"]
        if path.startswith("/model")
        else request(number, DIRECT)["body"] | {"model": DIRECT}
    )
    named = SUPPORT | {name.replace("_", "-"): value for name, value in headers.items()}
    return post(url + path, body, named)


def post(url, body, headers):
    return urllib3.request("POST", url, json=body, headers=headers, timeout=30, retries=False)


def get(url):
    return urllib3.request("GET", url, timeout=30, retries=False)


def intents(folder):
    lines = [line for file in folder.glob("*.jsonl") for line in file.read_bytes().splitlines()]
    return [made for made in map(decode, lines) if isinstance(made, Intent)]


def refused(folder):
    """Why the call of a gateway's outbox was not batched."""
    (said,) = [each.reason for each in intents(folder / "outbox")[-1].decisions if each.lever == "batch"]
    assert said.startswith("refused: ")
    return said.removeprefix("refused: ")


# --- how clients are answered -----------------------------------------------------------------------------------------


def test_who_takes_202_is_told_where_the_answer_will_be(there, tmp_path):
    with gateway(there, tmp_path) as url:
        told = call(url, prefer="respond-async")
        assert told.status == 202
        assert told.json()["due_in_s"] > 6 * 3600 - 60
        with working(tmp_path / "queue", there) as runner:
            finish(runner, there)
        assert get(url + told.headers["location"]).json()["usage"]["output_tokens"] == 30


def test_who_has_not_said_so_waits_and_sees_nothing_of_it(there, tmp_path):
    with gateway(there, tmp_path) as url, at_work(tmp_path, there):
        direct = call(url, path="/v1/messages", anthropic_version="2023-06-01")
        alone = call(url)  # of Bedrock, where one is no job
    assert (direct.status, direct.headers["x-farthing-mode"]) == (200, "batch")
    assert direct.json()["usage"]["service_tier"] == "batch"
    assert (alone.status, alone.headers["x-farthing-mode"]) == (200, "on_demand")
    assert Queue(tmp_path / "queue").counts() == {}, "what was answered is not kept"


def test_an_entry_may_say_that_its_clients_take_202(there, tmp_path):
    with gateway(there, tmp_path, f'{NIGHT}\nwait = "none"') as url:
        assert call(url).status == 202


@pytest.mark.parametrize(
    ("headers", "wait", "says"),
    [
        ({"x_stainless_timeout": "600"}, "", "its client waits 9 min, and a batch takes 50 min"),
        ({"x_stainless_timeout": "600"}, "6h", "its client waits 9 min, and a batch takes 50 min"),
        ({"amz_sdk_invocation_id": "7"}, "", "its client waits 54 s, and a batch takes 50 min"),
        ({}, "30m", "its client waits 27 min, and a batch takes 50 min"),
    ],
)
def test_nobody_waits_for_longer_than_it_is_known_to(there, tmp_path, headers, wait, says):
    with (
        gateway(there, tmp_path, f'{NIGHT}\nwait = "{wait}"' if wait else NIGHT) as url,
        at_work(tmp_path, there),
    ):
        assert call(url, **headers).status == 200
    assert refused(tmp_path) == says


def test_boto3_and_anthropic_with_a_batch_policy_are_answered_as_ever(there, tmp_path):
    with gateway(there, tmp_path) as url, at_work(tmp_path, there):
        client = boto3.client("bedrock-runtime", endpoint_url=url, region_name="us-east-1")
        body = request(1, HAIKU)["body"]
        said = client.converse(modelId=HAIKU, requestMetadata={"app": "support"}, **body)
        assert said["usage"]["outputTokens"] > 0
        assert refused(tmp_path).startswith("its client waits 54 s")
        direct = anthropic.AnthropicBedrock(base_url=url, aws_region="us-east-1")
        message = direct.messages.create(
            model=US, max_tokens=30, messages=[{"role": "user", "content": "?"}], extra_headers=SUPPORT
        )
        assert message.usage.output_tokens == 30
        assert refused(tmp_path).startswith("its client waits 9 min")


def test_nobody_waits_where_nobody_works(there, tmp_path):
    with gateway(there, tmp_path) as url:
        assert call(url).status == 200
    assert refused(tmp_path) == "its client waits, and nobody works on the queue: farthing batch run"


def test_a_stream_is_never_batched(there, tmp_path):
    with gateway(there, tmp_path) as url:
        told = call(url, path=f"{INVOKE}-with-response-stream", prefer="respond-async")
        assert (told.status, told.headers["content-type"]) == (200, "application/vnd.amazon.eventstream")
    assert refused(tmp_path) == "its answer is streamed"


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"x_amzn_bedrock_guardrailidentifier": "g"}, "a batch has no x-amzn-bedrock-guardrailidentifier"),
        ({"x_amzn_bedrock_service_tier": "flex"}, "a batch has no x-amzn-bedrock-service-tier"),
    ],
)
def test_what_a_batch_would_drop_is_not_batched(there, tmp_path, headers, says):
    with gateway(there, tmp_path) as url:
        assert call(url, prefer="respond-async", **headers).status == 200
        assert refused(tmp_path) == says
        by_header = call(url, x_farthing_deadline="6h", **headers)
        assert (by_header.status, says in by_header.data.decode()) == (400, True)


def test_an_sdk_that_asks_again_goes_on_waiting(there, tmp_path):
    """A minute is over, it says, and asks the same: it is the same request, and is paid once."""
    folder = _made(tmp_path / "queue")
    client = Config(read_timeout=1, retries={"mode": "standard", "total_max_attempts": 4})
    with gateway(there, tmp_path, f'{NIGHT}\nwait = "6h"') as url:
        done = {}

        def asks():
            runtime = boto3.client(
                "bedrock-runtime", endpoint_url=url, region_name="us-east-1", config=client
            )
            body = request(1, HAIKU)["body"]
            done["said"] = runtime.converse(modelId=HAIKU, requestMetadata={"app": "support"}, **body)

        with only(folder / RUNNER_LOCK):
            asking = threading.Thread(target=asks)
            asking.start()
            queue, seen = Queue(folder), set()
            end = time.monotonic() + 2.5  # into its third attempt
            while time.monotonic() < end:
                seen |= {row.id for row in queue.waiting()}
                time.sleep(0.05)
        with at_work(tmp_path, there):
            asking.join()
    assert done["said"]["usage"]["outputTokens"] > 0
    assert len(seen) == 1
    assert len(there.calls()) == 1


def test_who_goes_away_takes_the_request_along(there, tmp_path):
    with gateway(there, tmp_path) as url, only(_made(tmp_path / "queue") / RUNNER_LOCK):
        client = http.client.HTTPConnection(urlsplit(url).netloc)
        client.request("POST", INVOKE, json.dumps(request(1)["body"]), SUPPORT)
        queue = Queue(tmp_path / "queue")
        _until(lambda: queue.counts() == {"waiting": 1})
        client.close()
        _until(lambda: queue.counts() == {})
    assert there.calls() == []


def _made(folder):
    folder.mkdir(exist_ok=True)
    return folder


def _until(done, seconds=10):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_is_in_a_job_when_its_client_goes_is_there_when_it_asks_again(there, tmp_path):
    """The anthropic SDK numbers its attempts: what asks the same again is the same."""
    there.jobs.step_s = 0.2
    path, said = "/v1/messages", SUPPORT | {"anthropic-version": "2023-06-01"}
    body = request(1, DIRECT)["body"] | {"model": DIRECT}
    with (
        gateway(there, tmp_path) as url,
        working(tmp_path / "queue", there) as runner,
        only(tmp_path / "queue" / RUNNER_LOCK),
    ):
        client = http.client.HTTPConnection(urlsplit(url).netloc)
        client.request("POST", path, json.dumps(body), said)
        until(runner, lambda: runner.queue.jobs("created"))
        client.close()
        again = []
        asking = threading.Thread(
            target=lambda: again.append(post(url + path, body, said | {"x-stainless-retry-count": "1"}))
        )
        asking.start()
        finish(runner, there)
        asking.join()
    assert (again[0].status, again[0].headers["x-farthing-mode"]) == (200, "batch")
    assert len(there.calls()) == 1


def test_a_gateway_that_ends_lets_nobody_wait(there, tmp_path):
    told = []
    with only(_made(tmp_path / "queue") / RUNNER_LOCK):
        with gateway(there, tmp_path) as url:
            waits = threading.Thread(target=lambda: told.append(call(url)), daemon=True)
            waits.start()
            _until(lambda: Queue(tmp_path / "queue").counts() == {"waiting": 1})
        waits.join()
    assert (told[0].status, told[0].headers["retry-after"]) == (503, "1")
    assert Queue(tmp_path / "queue").counts() == {"waiting": 1}


def test_waiting_clients_leave_room_for_others(there, tmp_path):
    with (
        only(_made(tmp_path / "queue") / RUNNER_LOCK),
        gateway(there, tmp_path, limits=Limits(calls=2)) as url,
    ):
        waits = threading.Thread(target=call, args=(url,), daemon=True)
        waits.start()
        _until(lambda: Queue(tmp_path / "queue").counts() == {"waiting": 1})
        assert call(url, 2).status == 200
        assert refused(tmp_path) == "its client waits, and as many as may do so already: --max-calls"
    waits.join()


def test_a_missed_deadline_is_504_with_the_place(there, tmp_path):
    Queue(_made(tmp_path / "queue"), speed=36_000).close()  # ten hours a second
    with gateway(there, tmp_path) as url, only(tmp_path / "queue" / RUNNER_LOCK):
        told = call(url)
        assert told.status == 504
        assert get(url + told.headers["location"]).status == 202


# --- what it is worth -------------------------------------------------------------------------------------------------


def test_a_job_of_many_is_billed_as_a_batch_and_the_records_say_why(there, tmp_path):
    """Canary, endpoint lever, tags and decisions as with every other lever; the ledger has a batch at `global`."""
    with gateway(there, tmp_path, f'{NIGHT}\nwait = "none"', entry("endpoint", 'endpoint = "global"')) as url:
        places = [call(url, number).headers["location"] for number in range(100)]
        with working(tmp_path / "queue", there) as runner:
            finish(runner, there)
            rows = imported(tmp_path / "ledger", runner.settings.outbox_of(runner.queue))
        assert get(url + places[7]).headers["x-farthing-mode"] == "batch"
    assert {(row["mode"], row["calls"]) for row in rows} == {("batch", 1)}
    assert len(rows) == 100
    assert {(call["mode"], call["model_id"]) for call in there.calls()} == {("batch", SONNET)}
    for made in intents(tmp_path / "queue/outbox"):
        assert made.tags == {"app": "support", "ticket": "7"}
        assert (made.model, made.mode) == (SONNET, "batch")
        assert [(each.lever, each.reason) for each in made.decisions] == [
            ("batch", "support/batch: a batch within 6h"), ("endpoint", f"support/endpoint: calls {SONNET}"),
        ]  # fmt: skip


def test_by_its_header_it_takes_the_other_levers_too_but_no_cache(there, tmp_path):
    more = entry("endpoint", 'endpoint = "global"') + entry("cache", 'markers = [{at = "end"}]')
    with gateway(there, tmp_path, 'deadline = "6h"\nstate = "off"', more) as url:
        assert call(url, x_farthing_deadline="40m").status == 202
        with working(tmp_path / "queue", there) as runner:
            ends = finish(runner, there)
    (made,) = {each.gateway_id: each for each in intents(tmp_path / "queue/outbox")}.values()
    assert (made.model, made.tags["ticket"], [end.mode for end in ends.values()]) == (
        SONNET,
        "7",
        ["on_demand"],
    )
    assert [(each.lever, each.reason.partition(":")[0]) for each in made.decisions] == [
        ("cache", "refused"), ("endpoint", "support/endpoint"),
    ]  # fmt: skip
    assert "cache_control" not in json.dumps(there.calls())


def test_what_is_sent_by_itself_after_all_says_that_it_was_no_batch(there, tmp_path):
    with gateway(there, tmp_path) as url:
        call(url, prefer="respond-async")
        with working(tmp_path / "queue", there) as runner:
            finish(runner, there)
    (made,) = {each.gateway_id: each for each in intents(tmp_path / "queue/outbox")}.values()
    assert there.calls()[0]["metadata"] == {"app": "support", "ticket": "7", "farthing_id": made.gateway_id}
    assert made.decisions[0].reason == (
        "refused: too near its deadline for a batch: support/batch: a batch within 6h"
    )


def test_what_is_cheaper_cached_is_sent_at_once_and_says_so(there, tmp_path):
    """A session whose client caches: first nobody knows, then it is known."""
    body = request(1)["body"] | {
        "system": [{"type": "text", "text": "a rule. " * 3_000, "cache_control": {"type": "ephemeral"}}]
    }
    with gateway(there, tmp_path, f'{NIGHT}\nwait = "none"') as url:

        def ask():
            return post(url + INVOKE, body, SUPPORT).status

        assert ask() == 200
        assert refused(tmp_path) == "its client places cache points, and what they read is not known yet"
        assert {ask() for _ in range(21)} == {200}
        assert "cached and at once it costs $0.0" in refused(tmp_path)
        body["system"] = []
        body["messages"][0]["content"] = "Once only."
        assert ask() == 200, "what such calls use is known of the workload"


def test_shadow_and_undo(there, tmp_path):
    with gateway(there, tmp_path, f'{NIGHT}\nwait = "none"\nstate = "shadow"') as url:
        assert call(url).status == 200
        (said,) = intents(tmp_path / "outbox")[-1].decisions
        assert (said.reason, said.shadow) == ("support/batch: a batch within 6h", True)
        file = tmp_path / "policy.toml"
        file.write_text(file.read_text().replace('"shadow"', '"on"'))
        assert call(url).status == 202
        file.write_text(file.read_text().replace('"on"', '"off"'))
        assert call(url).status == 200


def test_hooks_cannot_batch_and_say_so(there, tmp_path):
    (tmp_path / "policy.toml").write_text(HEAD + entry("batch", NIGHT))
    hook = open_hook(
        outbox=tmp_path / "outbox", policy=tmp_path / "policy.toml", tags={"app": "support"}, settle="now"
    )
    client = there.emulator.client(region="us-east-1")
    attach(client.meta.events, hook)
    assert client.converse(modelId=HAIKU, **request(1, HAIKU)["body"])["usage"]["outputTokens"] > 0
    client.close()
    hook.close()
    assert refused(tmp_path) == "not applied: hooks cannot batch"


# --- two gateways on one queue ----------------------------------------------------------------------------------------


def test_two_gateways_on_one_queue(there, tmp_path):
    """What one has taken the other tells; the same request at both is one; each is paid once."""
    (tmp_path / "b").mkdir()
    how = {"x_farthing_deadline": "6h"}
    queue = tmp_path / "queue"
    with gateway(there, tmp_path) as one, gateway(there, tmp_path / "b") as other:
        said = Settings(
            tmp_path / "b/outbox", bedrock=there.emulator.url, region="us-east-1", auth=False, queue=queue,
        )  # fmt: skip
        with running(said, default_book()) as two:
            asks = [threading.Thread(target=call, args=(url, n), kwargs=how | {"idempotency_key": f"k{n}"})
                    for n in range(10) for url in (one, two)]  # fmt: skip
            for each in asks:
                each.start()
            for each in asks:
                each.join()
            places = [call(two, n, **how, idempotency_key=f"k{n}").headers["location"] for n in range(10)]
            with working(queue, there) as runner:
                assert runner.queue.counts() == {"waiting": 10}
                finish(runner, there)
            answers = [get(url + place).json()["id"] for place in places for url in (one, two)]
        assert other
    assert len(set(answers)) == len(there.calls()) == 10
