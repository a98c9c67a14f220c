"""Batches of the emulator: Bedrock's jobs over a real S3 API, Anthropic's message batches; read, and billed."""

import gzip
import json
import time
from datetime import UTC, date, datetime

import anthropic
import boto3
import pytest
from botocore.exceptions import ClientError

from farthing import cli
from farthing.book import default_book
from farthing.cells import Question, cells
from farthing.emulator import Clock, Logs, World, running
from farthing.ledger import Ledger
from farthing.reconcile import reconcile
from farthing.statement import Statement

SONNET = "us.anthropic.claude-sonnet-4-6"
ROLE = "arn:aws:iam::111122223333:role/batch"
BODY = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 30,
    "messages": [{"role": "user", "content": "Where?"}],
}
CONVERSE = {
    "messages": [{"role": "user", "content": [{"text": "Where?"}]}],
    "inferenceConfig": {"maxTokens": 30},
}


@pytest.fixture
def s3(moto):
    client = boto3.client(
        "s3",
        endpoint_url=moto,
        aws_access_key_id="EMULATED",
        aws_secret_access_key="x",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="jobs")
    yield client
    for found in client.list_objects_v2(Bucket="jobs").get("Contents", ()):
        client.delete_object(Bucket="jobs", Key=found["Key"])
    client.delete_bucket(Bucket="jobs")


@pytest.fixture
def emulated(s3):
    world = World(default_book(), Clock(datetime(2026, 10, 1, 8, tzinfo=UTC), 0))
    with running(world, s3=s3, step_ms=20) as found:
        yield found


def put(s3, bodies, name="in/a.jsonl"):
    lines = [json.dumps({"recordId": f"r{n:03d}", "modelInput": body}) for n, body in enumerate(bodies)]
    s3.put_object(Bucket="jobs", Key=name, Body="\n".join(lines).encode())


def create(emulated, name="night", model=SONNET, uri="s3://jobs/in/a.jsonl", **more):
    return emulated.client("bedrock").create_model_invocation_job(
        jobName=name, roleArn=ROLE, modelId=model, inputDataConfig={"s3InputDataConfig": {"s3Uri": uri}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://jobs/out/"}}, **more,
    )["jobArn"]  # fmt: skip


def ended(emulated, arn):
    """The job when it has ended, and the states that were seen of it."""
    seen = []
    for _ in range(500):
        job = emulated.client("bedrock").get_model_invocation_job(jobIdentifier=arn)
        seen += [job["status"]] if job["status"] not in seen else []
        if job["status"] in ("Completed", "Failed", "Stopped"):
            return job, seen
        time.sleep(0.01)
    raise AssertionError(f"still {seen}")


def results(s3, arn, name="a.jsonl.out"):
    key = f"out/{arn.rpartition('/')[2]}/{name}"
    return [json.loads(line) for line in s3.get_object(Bucket="jobs", Key=key)["Body"].read().splitlines()]


def test_a_job_runs_through_its_states(emulated, s3):
    put(s3, [BODY] * 100)
    arn = create(emulated)
    job, seen = ended(emulated, arn)
    order = ["Submitted", "Validating", "Scheduled", "InProgress", "Completed"]
    assert seen == [state for state in order if state in seen]
    assert len(seen) > 2
    assert (job["totalRecordCount"], job["successRecordCount"], job["errorRecordCount"]) == (100, 100, 0)
    records = results(s3, arn)
    assert {record["recordId"] for record in records} == {f"r{n:03d}" for n in range(100)}
    assert {record["modelOutput"]["usage"]["output_tokens"] for record in records} <= set(range(1, 31))
    assert results(s3, arn, "manifest.json.out")[0]["inputTokenCount"] == 200
    listed = emulated.client("bedrock").list_model_invocation_jobs(statusEquals="Completed")
    assert [one["jobArn"] for one in listed["invocationJobSummaries"]] == [arn]


def test_converse_records_and_bad_ones(emulated, s3):
    put(s3, [CONVERSE] * 99 + [{"messages": []}])
    arn = create(emulated, modelInvocationType="Converse")
    job, _ = ended(emulated, arn)
    assert (job["status"], job["successRecordCount"], job["errorRecordCount"]) == ("Completed", 99, 1)
    records = results(s3, arn)
    assert records[0]["modelOutput"]["usage"]["inputTokens"] == 2
    assert records[-1]["error"]["errorCode"] == 400
    assert emulated.world.billed == 99


def test_breakpoints_do_nothing_in_a_job(emulated, s3):
    system = [{"type": "text", "text": "a rule. " * 900, "cache_control": {"type": "ephemeral"}}]
    put(s3, [BODY | {"system": system}] * 100)
    arn = create(emulated)
    ended(emulated, arn)
    for record in results(s3, arn):
        usage = record["modelOutput"]["usage"]
        assert (usage["input_tokens"], usage["cache_creation_input_tokens"]) == (1_802, 0)
        assert usage["cache_read_input_tokens"] == 0


def test_less_than_a_hundred_records_fail(emulated, s3):
    put(s3, [BODY] * 99)
    job, _ = ended(emulated, create(emulated))
    assert job["status"] == "Failed"
    assert "99 records" in job["message"]
    assert emulated.world.billed == 0


def test_an_input_that_is_not_there_fails(emulated, s3):
    job, _ = ended(emulated, create(emulated, uri="s3://jobs/none.jsonl"))
    assert (job["status"], "cannot be used" in job["message"]) == ("Failed", True)


def test_a_job_is_stopped(emulated, s3):
    put(s3, [BODY] * 100)
    emulated._server.jobs.step_s = 0.3
    arn = create(emulated)
    control = emulated.client("bedrock")
    control.stop_model_invocation_job(jobIdentifier=arn)
    job, seen = ended(emulated, arn)
    assert (job["status"], "Completed" in seen) == ("Stopped", False)
    with pytest.raises(control.exceptions.ConflictException):
        control.stop_model_invocation_job(jobIdentifier=arn)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (
            {"model": "us.anthropic.claude-opus-4-8"},
            "ValidationException",
        ),  # the price list has no batch of it
        ({"model": "us.anthropic.claude-sonnet-9"}, "ValidationException"),
        ({"uri": "jobs/in"}, "ValidationException"),
    ],
)
def test_jobs_that_are_refused(emulated, s3, more, code):
    with pytest.raises(ClientError) as refused:
        create(emulated, **more)
    assert refused.value.response["Error"]["Code"] == code


def test_an_unknown_job(emulated, s3):
    control = emulated.client("bedrock")
    with pytest.raises(control.exceptions.ResourceNotFoundException):
        control.get_model_invocation_job(
            jobIdentifier="arn:aws:bedrock:us-east-1:1:model-invocation-job/none"
        )


def test_bill_and_results_come_to_the_same(emulated, s3, tmp_path):
    """The results and the description of the job are imported; the bill is of rates.json."""
    put(s3, [BODY, BODY | {"max_tokens": 7}] * 60)
    arn = create(emulated)
    job, _ = ended(emulated, arn)
    folder = tmp_path / "results" / arn.rpartition("/")[2]
    folder.mkdir(parents=True)
    for name in ("a.jsonl.out", "manifest.json.out"):
        (folder / name).write_text("\n".join(map(json.dumps, results(s3, arn, name))))
    del job["ResponseMetadata"]
    (folder / "job.json").write_text(json.dumps(job, default=lambda at: at.isoformat()))
    place = str(tmp_path / "ledger")
    with pytest.raises(SystemExit) as ended_with:
        cli.main(["import", str(folder), "--ledger", place])
    assert ended_with.value.code == 0
    (tmp_path / "cur").mkdir()
    (tmp_path / "cur" / "cur.csv.gz").write_bytes(gzip.compress(emulated.cur()))
    bill, october = Statement([tmp_path / "cur"]), Question(date(2026, 10, 1), date(2026, 10, 31))
    found = reconcile(bill, Ledger(place), october)
    assert {line.mode for line in bill.billed} == {"batch"}
    assert found.difference_picos == 0
    assert found.ours_picos > 0
    assert sum(cell.calls for cell in cells(Ledger(place), october, ("model",))) == 120


def test_logs_go_to_a_bucket(s3, moto):
    world = World(default_book(), logs=Logs(bucket="s3://jobs/deep/logs", client=s3))
    with running(world) as emulated:
        emulated.client().converse(modelId=SONNET, messages=[{"role": "user", "content": [{"text": "hi"}]}])
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket="jobs")["Contents"]]
    assert len(keys) == 1
    assert keys[0].startswith("deep/logs/AWSLogs/111122223333/BedrockModelInvocationLogs/us-east-1/")
    record = json.loads(gzip.decompress(s3.get_object(Bucket="jobs", Key=keys[0])["Body"].read()))
    assert record["operation"] == "Converse"


# --- Anthropic -------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(emulated):
    with anthropic.Anthropic(base_url=emulated.url, api_key="made up", max_retries=0) as found:
        yield found


def requests(count, **more):
    params = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Where?"}],
    } | more
    return [{"custom_id": f"c{n}", "params": params} for n in range(count)]


def until_ended(client, name):
    for _ in range(500):
        batch = client.messages.batches.retrieve(name)
        if batch.processing_status == "ended":
            return batch
        time.sleep(0.01)
    raise AssertionError("the batch does not end")


def test_a_message_batch(client, emulated):
    made = client.messages.batches.create(
        requests=[*requests(3), *[one | {"custom_id": "bad"} for one in requests(1, model="none")]]
    )
    assert made.processing_status == "in_progress"
    assert made.request_counts.processing == 4
    batch = until_ended(client, made.id)
    assert (batch.request_counts.succeeded, batch.request_counts.errored) == (3, 1)
    found = {one.custom_id: one.result for one in client.messages.batches.results(made.id)}
    assert found["c0"].message.usage.service_tier == "batch"
    assert found["c0"].message.usage.output_tokens == 9
    assert found["bad"].type == "errored"
    assert {call["mode"] for call in emulated.calls() if not call["status"]} == {"batch"}
    assert made.id in [one.id for one in client.messages.batches.list(limit=1)]


def test_a_message_batch_is_cancelled_and_deleted(client, emulated):
    emulated._server.jobs.step_s = 0.2
    made = client.messages.batches.create(requests=requests(2))
    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.delete(made.id)
    assert client.messages.batches.cancel(made.id).processing_status == "canceling"
    assert until_ended(client, made.id).request_counts.canceled == 2
    assert emulated.world.billed == 0
    assert client.messages.batches.delete(made.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(made.id)


def test_ids_of_a_batch_are_unique(client):
    with pytest.raises(anthropic.BadRequestError, match="unique"):
        client.messages.batches.create(requests=requests(1) * 2)
