"""Batches from queue to ledger, on an emulated service: what goes wrong costs nothing twice and loses nothing."""

import json
import time
from collections import Counter

import pytest

from farthing.config import Budget, Config
from farthing.emulator import Fault
from farthing.gateway import batch
from farthing.gateway._batch_accept import Usual
from farthing.gateway._batch_bedrock import Bedrock
from farthing.gateway._batch_clock import HOUR, SECOND, anchor
from farthing.gateway._batch_messages import Messages
from farthing.gateway._batch_queue import Queue
from farthing.gateway.budgets import open_budgets
from farthing.meters import METERS
from farthing.outbox import Intent, decode
from tests import batches
from tests.batches import (
    DIRECT,
    HAIKU,
    ROLE,
    SONNET,
    Storm,
    accept,
    finish,
    imported,
    over,
    paid_once,
    request,
    until,
    working,
)

credentials, found, there, worker = batches.credentials, batches.found, batches.there, batches.worker


def ledger_of(runner, tmp_path):
    return imported(tmp_path / "ledger", runner.settings.outbox_of(runner.queue))


# --- the main path ---------------------------------------------------------------------------------------------------


def test_a_job_answers_everybody_at_half_price(worker, there, tmp_path):
    accept(worker, [request(n) for n in range(120)])
    ends = finish(worker, there)
    assert {end.mode for end in ends.values()} == {"batch"}
    assert json.loads(ends["r7"].output)["usage"]["service_tier"] == "batch"
    calls = there.calls()
    assert [end.picos for end in ends.values()] == [
        call["tokens"]["input"] * 1_500_000 + call["tokens"]["output"] * 7_500_000 for call in calls
    ]  # $1.50 and $7.50 a million
    rows = ledger_of(worker, tmp_path)
    assert {(row["source"], row["mode"], row["calls"]) for row in rows} == {("outbox", "batch", 1)}
    assert sum(row["output"] for row in rows) == sum(call["tokens"]["output"] for call in calls)


@pytest.mark.parametrize("model", [SONNET, HAIKU])
def test_the_results_of_a_job_are_not_counted_beside_the_outbox(worker, there, tmp_path, model):
    """Also of Converse, whose answers have no id of their own."""
    accept(worker, [request(n, model) for n in range(100)])
    finish(worker, there)
    far = worker.far("bedrock")
    (job,) = worker.queue.jobs("collected")
    folder = tmp_path / job.remote.rpartition("/")[2]
    folder.mkdir()
    prefix = f"night/out/{job.name}/"
    for key in far._s3.list_objects_v2(Bucket="jobs", Prefix=prefix)["Contents"]:
        body = far._s3.get_object(Bucket="jobs", Key=key["Key"])["Body"].read()
        (folder / key["Key"].rpartition("/")[2]).write_bytes(body)
    told = far._jobs.get_model_invocation_job(jobIdentifier=job.remote)
    told.pop("ResponseMetadata")
    (folder / "job.json").write_text(json.dumps(told, default=lambda at: at.isoformat()))
    outbox = worker.settings.outbox_of(worker.queue)
    for paths in ([outbox, folder], [folder, outbox]):
        rows = imported(tmp_path / f"ledger {paths.index(outbox)}", *paths)
        assert (len(rows), {row["calls"] for row in rows}) == (100, {1})
        assert sum(row["input"] for row in rows) == sum(call["tokens"]["input"] for call in there.calls())


def test_models_and_operations_do_not_mix(worker, there):
    accept(worker, [request(n) for n in range(100)] + [request(n, HAIKU) for n in range(100, 200)])
    finish(worker, there)
    jobs = worker.queue.jobs("collected")
    assert {(job.group.model, job.group.kind, job.records) for job in jobs} == {
        (SONNET, "InvokeModel", 100), (HAIKU, "Converse", 100),
    }  # fmt: skip


def test_too_few_are_sent_by_themselves_before_their_deadline(worker, there):
    accept(worker, [request(n, deadline="45m") for n in range(12)])
    ends = finish(worker, there)
    assert {(end.mode, end.late) for end in ends.values()} == {("on_demand", False)}
    assert all("too near" in end.reason for end in ends.values())
    paid_once(there, ends)


def test_anthropic_has_no_least_number(worker, there):
    accept(worker, [request(n, DIRECT) for n in range(5)])
    ends = finish(worker, there)
    assert {end.mode for end in ends.values()} == {"batch"}
    paid_once(there, ends)


def test_the_body_goes_with_the_answer_and_the_answer_when_collected(worker, there, tmp_path):
    accept(worker, [request(n, DIRECT) | {"id": f"secret-{n}"} for n in range(3)])
    finish(worker, there)
    assert worker.queue.rows("SELECT count(*) FROM requests WHERE body IS NOT NULL") == [(0,)]
    worker.queue.forget([end.id for end in worker.queue.ends()])
    kept = b"".join(file.read_bytes() for file in (tmp_path / "queue").glob("queue.sqlite*"))
    assert b"Question 1?" not in kept
    assert b"end_turn" not in kept
    assert not (tmp_path / "queue").stat().st_mode & 0o077
    assert not [file for file in (tmp_path / "queue").glob("queue.*") if file.stat().st_mode & 0o077]


# --- records and jobs that fail --------------------------------------------------------------------------------------


def test_a_bad_record_fails_alone(worker, there):
    bad = request(99)
    bad["body"]["thinking"] = {"type": "enabled", "budget_tokens": 7}
    accept(worker, [request(n) for n in range(99)] + [bad])
    ends = finish(worker, there)
    assert ends["r99"].error.startswith("400")
    assert [end.error for end in ends.values()].count("") == 99
    paid_once(there, ends)


@pytest.mark.parametrize("status", ["Expired", "PartiallyCompleted", "Failed"])
def test_of_a_job_that_ends_early_what_it_did_is_kept(worker, there, status, tmp_path):
    there.jobs.ends.append((status, 60))
    accept(worker, [request(n, deadline="2h") for n in range(150)])
    ends = finish(worker, there)
    assert Counter(end.mode for end in ends.values()) == {"batch": 60, "on_demand": 90}
    paid_once(there, ends)
    rows = ledger_of(worker, tmp_path)
    assert sum(sum(row[meter] for meter in METERS) for row in rows) == sum(
        sum(call["tokens"].values()) for call in there.calls()
    )


def test_what_a_job_leaves_goes_into_another_while_there_is_time(worker, there):
    there.jobs.ends.append(("Expired", 50))
    accept(worker, [request(n, deadline="6h") for n in range(150)])
    ends = finish(worker, there)
    assert {end.mode for end in ends.values()} == {"batch"}
    assert sorted(job.records for job in worker.queue.jobs("collected")) == [100, 150]
    paid_once(there, ends)


def test_a_job_that_fails_is_tried_once_more(worker, there):
    there.jobs.ends.extend([("Failed", 0)] * 2)
    accept(worker, [request(n, deadline="12h") for n in range(100)])
    ends = finish(worker, there)
    assert {end.mode for end in ends.values()} == {"on_demand"}
    assert all("the job ended Failed" in end.reason for end in ends.values())
    assert len(there.jobs.jobs) == 2
    paid_once(there, ends)


def test_a_job_that_takes_too_long_is_stopped_and_the_rest_sent(there, tmp_path):
    there.jobs.step_s = 0.3
    with working(tmp_path / "queue", there, margin_s=3600) as worker:
        accept(worker, [request(n, deadline="3h") for n in range(100)])
        ends = finish(worker, there, minutes=10)
        assert {end.mode for end in ends.values()} == {"on_demand"}
        assert [job.stopping for job in worker.queue.jobs("collected")] == [1]
        paid_once(there, ends)


def test_answers_that_were_paid_and_not_delivered_are_not_paid_again(worker, there):
    there.jobs.step_s = 0.3
    accept(worker, [request(n, deadline="2h") for n in range(100)])
    until(worker, lambda: worker.queue.jobs("created"))
    far = worker.far("bedrock")
    (job,) = worker.queue.jobs("created")
    until(worker, lambda: far.status(job).ended)
    for key in far._s3.list_objects_v2(Bucket="jobs", Prefix=f"night/out/{job.name}/")["Contents"]:
        body = far._s3.get_object(Bucket="jobs", Key=key["Key"])["Body"].read()
        if worker.queue.jobs("created"):  # it is not collected yet: a third of its results is lost
            far._s3.put_object(
                Bucket="jobs", Key=key["Key"], Body=b"\n".join(body.splitlines()[:70]) + b'\n{"rec'
            )
    ends = finish(worker, there)
    errors = [end for end in ends.values() if end.error]
    assert len(there.calls()) == 100
    assert all("perhaps paid" in end.error and end.picos is None for end in errors)


# --- the services are out of order -----------------------------------------------------------------------------------


def test_a_storm_of_throttling_only_costs_time(worker, there):
    far = worker.far("bedrock")
    storm = Storm(far._jobs, 429, "ThrottlingException", 5)
    accept(worker, [request(n, deadline="12h") for n in range(100)])
    ends = finish(worker, there)
    assert storm.left == 0
    assert {end.mode for end in ends.values()} == {"batch"}
    paid_once(there, ends)


def test_a_job_whose_answer_was_lost_is_found_and_not_begun_again(worker, there):
    far = worker.far("bedrock")
    Storm(far._jobs, 500, "InternalServerException", 3, before=False)
    accept(worker, [request(n, deadline="12h") for n in range(100)])
    ends = finish(worker, there)
    assert len(there.jobs.jobs) == 1
    paid_once(there, ends)


def test_errors_of_s3_only_cost_time(worker, there):
    far = worker.far("bedrock")
    storm = Storm(far._s3, 503, "SlowDown", 4)
    accept(worker, [request(n, deadline="12h") for n in range(100)])
    ends = finish(worker, there)
    assert storm.left == 0
    assert {end.mode for end in ends.values()} == {"batch"}
    paid_once(there, ends)


def test_if_no_job_can_be_begun_everything_is_sent_in_time(worker, there, tmp_path):
    Storm(worker.far("bedrock")._s3, 403, "AccessDenied", 10_000)
    accept(worker, [request(n, deadline="1h") for n in range(100)])
    ends = finish(worker, there)
    assert {end.mode for end in ends.values()} == {"on_demand"}
    assert [job.state for job in worker.queue.jobs("dissolved")] != []
    paid_once(there, ends)
    voided = [row for row in ledger_of(worker, tmp_path) if row["status"]]
    assert {sum(row[meter] for meter in METERS) for row in voided} == {0}


def test_a_throttled_service_is_asked_again_until_it_answers(worker, there):
    there.emulator.fail(Fault("throttle", every=2), Fault("error", every=5, status=503))
    accept(worker, [request(n, deadline="50m") for n in range(40)])
    ends = finish(worker, there)
    assert {(end.mode, end.error) for end in ends.values()} == {("on_demand", "")}
    paid_once(there, ends)


def test_what_is_cut_off_on_its_way_is_not_paid_twice(worker, there):
    there.emulator.fail(Fault("close", every=1, times=1))
    accept(worker, [request(n, deadline="40m") for n in range(3)])
    ends = finish(worker, there)
    cut = [end for end in ends.values() if end.error]
    assert len(cut) == 1
    assert "perhaps paid" in cut[0].error
    assert len(there.calls()) == 3


def test_unless_that_is_wanted(there, tmp_path):
    with working(tmp_path / "queue", there, again=True) as runner:
        there.emulator.fail(Fault("close", every=1, times=1))
        accept(runner, [request(n, deadline="40m") for n in range(3)])
        assert {end.error for end in finish(runner, there).values()} == {""}
        assert len(there.calls()) == 4


# --- crashes, two runners, clocks ------------------------------------------------------------------------------------


STEPS = ("planned", "ready", "created", "ended")


@pytest.mark.parametrize("model", [SONNET, DIRECT])
@pytest.mark.parametrize("at", ["begin", "create", "note", "settle", "commit"])
def test_a_death_between_any_two_steps_costs_nothing(there, tmp_path, monkeypatch, model, at):
    """The runner dies before or after it writes intents, begins the job, notes it, writes results, or commits them."""

    class Death(BaseException):
        pass

    def dies(*_, **__):
        raise Death

    far = Bedrock if model == SONNET else Messages
    begin = far.begin

    def begun(*args):
        begin(*args)
        raise Death

    with monkeypatch.context() as dying, working(tmp_path / "queue", there) as runner:
        accept(runner, [request(n, model, deadline="12h") for n in range(100)])
        if at == "begin":
            dying.setattr(runner.live.outbox, "sync", dies)
        elif at == "create":
            dying.setattr(far, "begin", dies)
        elif at == "note":
            dying.setattr(far, "begin", begun)
        elif at == "settle":
            dying.setattr(runner.live, "settle", dies)
        else:
            dying.setattr(runner.queue, "finish", dies)
        with pytest.raises(Death):
            finish(runner, there)
    with working(tmp_path / "queue", there) as runner:
        ends = finish(runner, there)
        assert {end.mode for end in ends.values()} == {"batch"}
        assert len(ends) == 100
        paid_once(there, ends)
        rows = ledger_of(runner, tmp_path)
        assert {(row["source"], row["calls"]) for row in rows} == {("outbox", 1)}
        assert len(rows) == 100


def test_a_sender_that_died_has_cut_off_what_it_sent(worker, there, tmp_path):
    accept(worker, [request(n, deadline="40m") for n in range(2)])
    worker.queue.set_request("r0", state="sending", attempt="fa-0", tries=1)
    ends = finish(worker, there)
    assert ["perhaps paid" in ends[name].error for name in ("r0", "r1")] == [True, False]
    assert len(there.calls()) == 1


def test_of_two_runners_one_works_and_the_other_takes_over(there, tmp_path):
    import threading

    folder = tmp_path / "queue"
    with working(folder, there, 200) as first, working(folder, there, 200) as second:
        accept(first, [request(n) for n in range(200)])
        ended = threading.Event()
        other = threading.Thread(target=second.run, args=(ended.is_set,), daemon=True)
        first_ends = threading.Thread(target=first.run, args=(lambda: bool(first.queue.jobs("created")),))
        other.start()
        first_ends.start()
        first_ends.join()
        deadline = time.monotonic() + 20
        while not over(second) and time.monotonic() < deadline:
            time.sleep(0.05)
        ended.set()
        other.join()
        ends = {end.id: end for end in second.queue.ends()}
        assert len(ends) == 200
        paid_once(there, ends)


def test_steps_of_the_clock_move_no_deadline(tmp_path, monkeypatch):
    with_clock = Queue(tmp_path)
    before = with_clock.now_us()
    real = time.time_ns
    for step_h in (-30, 30):
        monkeypatch.setattr(time, "time_ns", lambda step_h=step_h: real() + step_h * 3600 * 10**9)
        again = Queue(tmp_path)
        assert 0 <= again.now_us() - before < 10 * SECOND
        again.close()
    with_clock.close()


def test_after_another_boot_time_does_not_go_back():
    before = anchor()._replace(boot="another", wall_us=2**60)
    assert anchor(1, before).now_us() >= 2**60


# --- budgets, and what is better not batched -------------------------------------------------------------------------


def test_every_record_holds_its_ceiling_at_the_batch_price(worker, there, tmp_path):
    config = Config(budgets=(Budget("night", usd=1, period="day", hold="hard"),))
    worker.live.budgets = open_budgets(config, str(tmp_path / "budgets.sqlite"))
    accept(worker, [request(n) for n in range(100)])
    until(worker, lambda: worker.queue.jobs("created"))
    intents = [
        decode(line)
        for file in (tmp_path / "queue/outbox").iterdir()
        for line in file.read_bytes().splitlines()
    ]
    most = sum(
        each.expected.input * 1_500_000 + each.expected.output * 7_500_000
        for each in intents
        if isinstance(each, Intent)
    )
    (state,) = worker.live.budgets.state(worker.queue.now_us())
    assert state.held == most > 0
    ends = finish(worker, there)
    (state,) = worker.live.budgets.state(worker.queue.now_us())
    assert (state.held, state.spent) == (0, sum(end.picos or 0 for end in ends.values()))


def test_what_a_budget_refuses_is_not_sent(worker, there, tmp_path):
    toml = tmp_path / "farthing.toml"
    toml.write_text('[[budgets]]\nname = "night"\nusd = 0.0001\nperiod = "month"\nhold = "hard"\n')
    worker.settings = batch.kept(
        worker.queue, {"config": str(toml), "budgets": str(tmp_path / "budgets.sqlite")}
    )
    live = batch.open_live(worker.queue, worker.settings)
    worker.live, old = live, worker.live
    accept(worker, [request(n, deadline="45m") for n in range(100)])
    ends = finish(worker, there)
    worker.live = old
    live.close()
    assert all("night" in end.error for end in ends.values())
    assert there.calls() == []


def test_what_is_cheaper_cached_is_sent_at_once_and_says_so(worker, there):
    usage = {"input": 100, "cache_read": 9_000, "output": 60}
    accept(worker, [request(1, deadline="12h") | {"usage": usage}])
    ends = finish(worker, there)
    assert ends["r1"].mode == "on_demand"
    assert "cached and at once it costs $0.0039, in a batch, which has no cache, $0.0141" in ends["r1"].reason


def test_tools_of_converse_go_by_themselves(worker, there):
    accept(worker, [request(1, HAIKU, toolConfig={"tools": []})])
    assert "no tools" in worker.queue.rows("SELECT reason FROM requests")[0][0]


def test_a_request_that_is_taken_back(worker, there):
    there.jobs.step_s = 0.5
    accept(worker, [request(n, deadline="24h") for n in range(101)])
    until(worker, lambda: worker.queue.jobs("created"))
    assert worker.queue.cancel() == 101
    ends = finish(worker, there)
    assert {end.error for end in ends.values()} == {"cancelled"}
    assert there.calls() == []


def test_handed_in_again_it_is_known(worker, there):
    accept(worker, [request(1)])
    queue = worker.queue
    usual = Usual(queue.now_us())
    same, other = json.dumps(request(1)).encode(), json.dumps(request(2) | {"id": "r1"}).encode()
    assert batch.submit(queue, [same], usual)[:2] == (0, 1)
    assert batch.submit(queue, [other], usual)[2] == [(1, "id 'r1' is another request's in the queue")]


# --- for programs ----------------------------------------------------------------------------------------------------


def test_run_answers_in_order_and_goes_on_after_a_crash(there, tmp_path):
    requests = [request(n) for n in range(110)]
    folder = tmp_path / "queue"
    with working(folder, there, 200) as runner:
        accept(runner, requests)
        until(runner, lambda: runner.queue.jobs("created"))
    seen = []
    answers = batch.run(requests, queue=folder, progress=lambda *at: seen.append(at))
    assert [answer.id for answer in answers] == [each["id"] for each in requests]
    assert {(answer.mode, answer.error, answer.late) for answer in answers} == {("batch", "", False)}
    assert answers[0].output["usage"]["service_tier"] == "batch"
    assert seen[-1] == (110, 110)
    assert len(there.calls()) == 110


def test_run_for_an_event_loop_and_its_name(there, tmp_path):
    import asyncio

    import farthing

    with working(tmp_path / "queue", there, 200):
        pass
    answers = asyncio.run(farthing.batch.arun([request(1, DIRECT)], "2h", queue=tmp_path / "queue"))
    assert answers[0].mode == "batch"


def test_a_request_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match='request 2: no "messages"'):
        batch.run(
            [request(1, DIRECT), {"id": "b", "model": DIRECT, "body": {"max_tokens": 1}}], queue=tmp_path
        )


def test_the_deadline_of_the_service_and_ours(worker, there):
    accept(worker, [request(n) for n in range(100)])
    until(worker, lambda: worker.queue.jobs("created"))
    (job,) = worker.queue.jobs("created")
    told = worker.far("bedrock")._jobs.get_model_invocation_job(jobIdentifier=job.remote)
    assert (told["timeoutDurationInHours"], told["roleArn"], told["clientRequestToken"]) == (
        24,
        ROLE,
        job.name,
    )
    assert batch.standing(worker.queue)["requests"]["placed"] == 100
    assert 0 < batch.standing(worker.queue)["next_deadline_s"] <= 6 * HOUR // SECOND
