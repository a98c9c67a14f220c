"""What the emulator writes is read by farthing, and comes to the same: logs and bill, to the picodollar.

The bill is made of rates.json and the tokens that the emulator billed, ours of the log and the book: two witnesses.
"""

import gzip
import json
import threading
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import EventStreamError

from farthing import cli
from farthing.book import default_book
from farthing.cells import Question, cells
from farthing.emulator import Clock, Fault, Logs, World, moment, running
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.reconcile import reconcile
from farthing.statement import Statement
from tests.emulator_rates import condensed

TABLE = Path(__file__).parent.parent / "farthing" / "emulator" / "rates.json"
LONG = "a rule of this house. " * 500  # 11,000 bytes: above every minimum but that of Opus 4.5 and the like
PICTURE = "x" * 120_000  # a body that is delivered beside its record


def test_rates_are_those_of_the_public_file(shared):
    rates = json.loads((shared / "facts" / "rates.json").read_text(encoding="utf-8"))
    assert json.loads(TABLE.read_text(encoding="utf-8")) == condensed(rates)


# --- traffic ---------------------------------------------------------------------------------------------------------


def body(text="Where is order 7?", system=LONG, ttl="5m", **more):
    point = {"type": "ephemeral", "ttl": ttl}
    return {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 60,
        "system": [{"type": "text", "text": system, "cache_control": point}],
        "messages": [{"role": "user", "content": text}],
        **more,
    }


def invoke(client, model, asked, **more):
    assert client.invoke_model(modelId=model, body=json.dumps(asked), **more)["body"].read()


def send(emulated, region, model, number):
    """One call of each kind, on a clock that goes on meanwhile."""
    client = emulated.client(region=region)
    system = [{"text": LONG}, {"cachePoint": {"type": "default", "ttl": "1h"}}]
    messages = [{"role": "user", "content": [{"text": f"Where is order {number}?"}]}]
    client.converse(modelId=model, system=system, messages=messages, requestMetadata={"team": "blue"})
    for event in client.converse_stream(modelId=model, messages=messages)["stream"]:
        assert event
    client.invoke_model(
        modelId=model,
        body=json.dumps(body()),
        requestMetadata=json.dumps({"team": "red", "run": str(number)}),
    )
    asked = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body(ttl="1h")))
    assert list(asked["body"])
    invoke(client, model, body(text=PICTURE + str(number)))
    with pytest.raises(client.exceptions.ValidationException):
        invoke(client, model, body() | {"max_tokens": -1})


@pytest.fixture(scope="module")
def month(tmp_path_factory):
    """A month of traffic over models, regions and hours; its logs in a folder, its bill in two forms."""
    folder = tmp_path_factory.mktemp("emulated")
    world = World(default_book(), Clock(moment("2026-10-06T22:10:00Z"), 0), logs=Logs(folder / "logs"))
    with running(world) as emulated:
        for number, (region, model) in enumerate([
            ("eu-central-1", "eu.anthropic.claude-sonnet-4-6"),
            ("us-east-1", "global.anthropic.claude-opus-5"),
            ("us-east-1", "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
            ("eu-west-1", "global.anthropic.claude-sonnet-5-5"),  # its cache reads got cheaper in between
            ("eu-central-1", "eu.anthropic.claude-sonnet-4-6"),
            ("eu-west-1", "global.anthropic.claude-sonnet-5-5"),
            ("us-east-1", "arn:aws:bedrock:us-east-1:444455556666:inference-profile/us.anthropic.claude-opus-4-8"),
            ("us-east-1", "global.anthropic.claude-haiku-5-5"),
        ]):  # fmt: skip
            send(emulated, region, model, number)
            emulated.clock(advance_s=47 * 60)
            if model.endswith("haiku-5-5"):  # five times the price above 100,000 tokens
                invoke(emulated.client(), model, body(text="long " * 90_000))
        emulated.fail(Fault("exception", after=3), Fault("throttle", on=("Converse",)))
        client = emulated.client(config=boto3.session.Config(retries={"total_max_attempts": 1}))
        messages = [{"role": "user", "content": [{"text": "Is it there?"}]}]
        model = "us.anthropic.claude-sonnet-4-6"
        with pytest.raises(client.exceptions.ThrottlingException):
            client.converse(modelId=model, messages=messages)
        stream = client.converse_stream(modelId=model, messages=messages)["stream"]
        with closing(stream), pytest.raises(EventStreamError, match="throttlingException"):
            list(stream)
        emulated.write()
        for form in ("cur2", "legacy"):
            path = folder / form / "BILLING_PERIOD=2026-10" / "emulated-00001.csv.gz"
            path.parent.mkdir(parents=True)
            path.write_bytes(gzip.compress(emulated.cur(form)))
        yield folder, emulated.calls()


def ledger_of(folder, *paths) -> Ledger:
    place = str(folder / "ledger")
    with pytest.raises(SystemExit) as ended:
        cli.main(["import", *map(str, paths), "--ledger", place])
    assert ended.value.code == 0
    return Ledger(place)


@pytest.fixture(scope="module")
def ledger(month, tmp_path_factory):
    return ledger_of(tmp_path_factory.mktemp("read"), month[0] / "logs")


OCTOBER = Question(date(2026, 10, 1), date(2026, 10, 31))


def test_the_log_counts_exactly(month, ledger):
    """Every call once, by model and meter; those that failed too, with nothing to pay."""
    _, calls = month
    told: Counter = Counter()
    for call in calls:
        for meter, count in call.get("tokens", {}).items():
            told[call["model"], meter] += count
    found: Counter = Counter()
    counted = 0
    for cell in cells(ledger, OCTOBER, ("model",)):
        counted += cell.calls
        found.update({(cell.keys[0], meter): getattr(cell.tokens, meter) for meter in METERS})
    assert {key: count for key, count in found.items() if count} == {k: c for k, c in told.items() if c}
    assert sum(told.values()) > 100_000
    assert counted == len(calls)


def test_calls_that_failed_are_told_by_their_code(month):
    folder, calls = month
    codes = Counter(call["status"] for call in calls)
    assert codes["ValidationException"] == 8
    assert codes["ThrottlingException"] == 1
    assert codes["exception"] == 1  # in mid-stream: billed as far as it went
    cut = next(call for call in calls if call["status"] == "exception")
    assert 0 < cut["tokens"]["output"] < 64
    logged = [
        json.loads(line)
        for path in (folder / "logs").rglob("*.json.gz")
        if "/data/" not in path.as_posix()
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]
    assert Counter(row["errorCode"] for row in logged if "errorCode" in row) == {
        "ValidationException": 8,
        "ThrottlingException": 1,
    }
    assert {row["requestId"] for row in logged} == {call["request_id"] for call in calls}


@pytest.mark.parametrize("form", ["cur2", "legacy"])
def test_bill_and_log_come_to_the_same(form, month, ledger):
    bill = Statement([month[0] / form])
    assert (bill.undecoded, [line for line in bill.billed if not line.model]) == ([], [])
    found = reconcile(bill, ledger, OCTOBER)
    assert found.difference_picos == 0
    assert found.ours_picos == found.billed_picos > 10**9
    assert (found.explained, found.unexplained) == ([], [])


def test_the_command_line_agrees(month, tmp_path, capsys):
    ledger_of(tmp_path, month[0] / "logs")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["reconcile", "--statement", str(month[0] / "cur2"), "--month", "2026-10", "--ledger",
                  str(tmp_path / "ledger"), "--tolerance", "0", "--json"])  # fmt: skip
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["difference_usd"] == "0"


def test_the_bill_of_an_earlier_run_stays(tmp_path):
    """Logs of both runs are there, so both must be on the bill."""
    for _ in range(2):
        clock = Clock(datetime(2026, 10, 8, tzinfo=UTC), 0)
        world = World(default_book(), clock, logs=Logs(tmp_path / "logs"))
        with running(world, cur_folder=tmp_path / "cur") as emulated:
            for _ in range(2):
                invoke(emulated.client(), "us.anthropic.claude-sonnet-4-6", body())
                emulated.write()
    bill = Statement([tmp_path / "cur"])
    found = reconcile(bill, ledger_of(tmp_path, tmp_path / "logs"), OCTOBER)
    assert found.difference_picos == 0
    assert sum(line.tokens for line in bill.billed if line.meter == "input") == 4 * 5


def test_logs_lie_as_in_s3(month):
    names = [path.relative_to(month[0] / "logs").as_posix() for path in (month[0] / "logs").rglob("*.gz")]
    assert all(name.startswith("AWSLogs/") and "/BedrockModelInvocationLogs/" in name for name in names)
    hours = {"/".join(name.split("/")[4:8]) for name in names}
    assert {"2026/10/06/22", "2026/10/07/00"} <= hours
    assert any("/data/" in name for name in names)
    assert {name.split("/")[1] for name in names} == {"111122223333", "444455556666"}


def test_metadata_becomes_tags(month, ledger):
    keys = {cell.keys[0] for cell in cells(ledger, OCTOBER, ("tag:team",))}
    assert {"blue", "red"} <= keys


def test_mantle_is_billed_and_in_no_log(tmp_path):
    import anthropic

    world = World(default_book(), Clock(datetime(2026, 10, 8, tzinfo=UTC), 0), logs=Logs(tmp_path / "logs"))
    with running(world) as emulated:
        asked: dict[str, Any] = {"max_tokens": 9, "messages": [{"role": "user", "content": "Where is it?"}]}
        with anthropic.AnthropicBedrockMantle(
            base_url=f"{emulated.url}/anthropic", api_key="made up", aws_region="us-east-1", max_retries=0
        ) as client:
            message = client.messages.create(model="anthropic.claude-opus-4-8", **asked)
        emulated.write()
        path = tmp_path / "cur" / "cur.csv"
        path.parent.mkdir()
        path.write_bytes(emulated.cur())
        assert message.usage.output_tokens == 9
    assert not list(tmp_path.rglob("*.json.gz"))
    lines = Statement([path]).billed
    assert {line.mantle for line in lines} == {True}
    assert {line.meter: line.tokens for line in lines} == {"input": message.usage.input_tokens, "output": 9}


def test_every_model_at_every_endpoint(tmp_path):
    """Wherever a model is sold: rates.json and the book, usage types and what decodes them, to the picodollar."""
    world = World(default_book(), Clock(moment("2026-11-10T12:00:00Z"), 0), logs=Logs(tmp_path / "logs"))
    with running(world) as emulated:
        for model in default_book().models.values():
            for region, name in callable_as(model):
                client = emulated.client(region=region)
                for ttl in ("5m", "1h", "1h"):
                    invoke(client, name, body(ttl=ttl))
        emulated.write()
        (tmp_path / "cur").mkdir()
        (tmp_path / "cur" / "cur.csv").write_bytes(emulated.cur())
    bill = Statement([tmp_path / "cur"])
    assert {line.model for line in bill.billed} == set(default_book().models)
    assert {line.endpoint for line in bill.billed} == {"global", "regional", "govcloud"}
    november = Question(date(2026, 11, 1), date(2026, 11, 30))
    found = reconcile(bill, ledger_of(tmp_path, tmp_path / "logs"), november)
    assert (found.difference_picos, found.explained, found.unexplained, bill.undecoded) == (0, [], [], [])


def test_its_end_loses_nothing_that_was_about_to_be_written(tmp_path):
    """Logs were taken to be written, and no thread is free yet that writes them."""
    world = World(default_book(), Clock(moment("2026-11-10T12:00:00Z"), 0), logs=Logs(tmp_path))
    free = threading.Event()
    with running(world) as emulated:
        loop = emulated._server._loop
        assert loop is not None
        for _ in range(40):  # more than there are threads
            loop.call_soon_threadsafe(lambda: loop.run_in_executor(None, free.wait))
        invoke(emulated.client(region="eu-central-1"), "eu.anthropic.claude-sonnet-4-6", body())
        while world.logs._held:
            time.sleep(0.02)
        threading.Timer(0.5, free.set).start()
    (written,) = tmp_path.rglob("*.json.gz")
    assert len(gzip.decompress(written.read_bytes()).splitlines()) == 1


def callable_as(model):
    """Each region and id that a model can be called by on the runtime."""
    name = max((name for name in model.ids if name.startswith("anthropic.")), key=len)
    places = {"eu": "eu-central-1", "jp": "ap-northeast-1", "us-gov": "us-gov-west-1"}
    bedrock = model.platform("bedrock")
    prefixes = (
        *bedrock.get("profiles", ()),
        *(p for p in bedrock.get("profiles_claimed", ()) if p == "us-gov"),
    )
    found = [(places.get(prefix, "us-east-1"), f"{prefix}.{name}") for prefix in prefixes]
    return found or [("us-east-1", name)]
