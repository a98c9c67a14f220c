"""The live demo: one day twice, and every figure of it worked out again from what the runs left on disk.

Costs are made here of the logs and of the public rates beside the emulator, without farthing's book or importers.
"""

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from farthing import cli
from farthing.book import default_book
from farthing.cache import POLICIES, Cards, simulate
from farthing.cells import Question
from farthing.cli._opened import sources
from farthing.config import load as load_config
from farthing.emulator._rates import rates
from farthing.ledger import Ledger
from farthing.levers import endpoint
from farthing.livedemo import DemoError, Outcome, _floor, _stack, _sums, live
from farthing.livedemo._day import Ask, requests
from farthing.livedemo._policy import NAME
from farthing.meters import METERS, Vector
from farthing.money import from_usd
from farthing.optimise._realised import realised
from farthing.optimise._traffic import from_bodies
from farthing.outbox import Result, decode
from farthing.policy import LEVERS, load, periods

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
REGION = "eu-central-1"
MODELS = {"claude-sonnet-4-6": "sonnet-4-6", "claude-opus-4-8": "opus-4-8", "claude-haiku-4-5": "haiku-4-5"}


def said(capsys, *command: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(command))
    assert isinstance(ended.value.code, int)
    return ended.value.code, *capsys.readouterr()


# --- the day, by the command line ------------------------------------------------------------------------------------


class Shown(NamedTuple):
    folder: Path
    told: dict[str, Any]


@pytest.fixture(scope="module")
def day(tmp_path_factory) -> Shown:
    folder = tmp_path_factory.mktemp("demo") / "out"
    command = [
        sys.executable,
        "-m",
        "farthing",
        "demo",
        "live",
        "--out",
        "out",
        "--json",
    ]  # where it is asked for
    theirs = {**os.environ, "AWS_ACCESS_KEY_ID": "NOTOURS", "AWS_SECRET_ACCESS_KEY": "either"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=theirs, cwd=folder.parent
    )
    assert (done.returncode, done.stderr) == (0, "")
    return Shown(folder, json.loads(done.stdout))


def test_it_says_what_was_asked_for(day):
    assert {"off_usd", "on_usd", "bound_usd", "reconciled", "levers"} <= day.told.keys()
    assert day.told["reconciled"] is True
    assert {"off", "on", "bound.json"} <= {path.name for path in day.folder.iterdir()}
    off, on, bound = (Decimal(day.told[f"{name}_usd"]) for name in ("off", "on", "bound"))
    assert 0 < bound <= on < off
    assert sum(map(Decimal, day.told["levers"].values())) == off - on
    assert {name for name, usd in day.told["levers"].items() if Decimal(usd) > 0} == set(LEVERS)
    assert json.loads((day.folder / "bound.json").read_text())["bound_usd"] == day.told["bound_usd"]


# --- costs, from the logs and the public rates alone -----------------------------------------------------------------


class Call(NamedTuple):
    name: str
    app: str
    model_id: str
    mode: str
    tokens: Vector
    body: dict[str, Any]


def logged(folder: Path) -> list[Call]:
    """The calls of the invocation logs."""
    found = []
    for path in folder.rglob("AWSLogs/**/*.json.gz"):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            record = json.loads(line)
            sent, tags = record["input"], record["requestMetadata"]
            written = sent["cacheWriteInputTokenCount"]
            hour = in_an_hour(record["output"]["outputBodyJson"])
            tokens = Vector(sent["inputTokenCount"], record["output"]["outputTokenCount"],
                            sent["cacheReadInputTokenCount"], written - hour, hour)  # fmt: skip
            call = Call(
                tags["ask"], tags["app"], record["modelId"], "on_demand", tokens, sent["inputBodyJson"]
            )
            found.append(call)
    return found


def in_an_hour(answer: Any) -> int:
    """How many tokens were written for an hour, as the answer's usage says in any of its forms."""
    usages = []
    for event in answer if isinstance(answer, list) else [answer]:
        usages += [
            part["usage"]
            for part in (event, event.get("message", {}), event.get("metadata", {}))
            if "usage" in part
        ]
    for usage in usages:
        if "cache_creation" in usage:
            return usage["cache_creation"]["ephemeral_1h_input_tokens"]
        if "cacheDetails" in usage:
            return sum(each["inputTokens"] for each in usage["cacheDetails"] if each["ttl"] == "1h")
    return 0


def batched(folder: Path) -> list[Call]:
    """The results of batches, with the model that their job names."""
    found = []
    for path in folder.rglob("*.jsonl.out"):
        model_id = json.loads((path.parent / "job.json").read_text())["modelId"]
        for line in path.read_text().splitlines():
            record = json.loads(line)
            usage = record["modelOutput"]["usage"]
            tokens = Vector(usage["input_tokens"], usage["output_tokens"])
            found.append(Call(record["recordId"], "nightly", model_id, "batch", tokens, record["modelInput"]))
    return found


def cost(call: Call) -> Decimal:
    prefix, _, base = call.model_id.partition(".anthropic.")
    model = next(name for name in MODELS if base.startswith(name))
    place = "global" if prefix == "global" else "regional"
    usd = rates(model, place, call.mode, REGION, date(2026, 11, 16))[0].usd
    picked = zip(METERS, call.tokens, strict=True)
    return sum((tokens * usd[meter] for meter, tokens in picked if tokens), Decimal(0)) / 1_000_000


def dollars(calls: list[Call]) -> Decimal:
    return sum(map(cost, calls), Decimal(0))


def test_costs_follow_from_the_logs(day):
    off, on = logged(day.folder / "off"), logged(day.folder / "on")
    jobs = batched(day.folder / "on")
    assert batched(day.folder / "off") == []
    assert dollars(off) == Decimal(day.told["off_usd"])
    assert dollars(jobs) == Decimal(day.told["on_batch_usd"])
    assert dollars(on) + dollars(jobs) == Decimal(day.told["on_usd"])
    assert len(off) == len(on) + len(jobs) == len(requests())


@pytest.mark.parametrize("run", ["off", "on"])
def test_the_bill_is_the_same(day, run):
    billed = Decimal(0)
    for path in (day.folder / "cur" / run).rglob("*.csv.gz"):
        for row in csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())):
            billed += Decimal(row["line_item_unblended_cost"])
    assert billed == Decimal(day.told[f"{run}_usd"]) == Decimal(day.told["billed_usd"][run])


def bare(body: Any) -> Any:
    """A body without its cache points and metadata."""
    if isinstance(body, dict):
        return {
            key: bare(value) for key, value in body.items() if key not in ("cache_control", "requestMetadata")
        }
    if isinstance(body, list):
        return [bare(one) for one in body if not (isinstance(one, dict) and "cachePoint" in one)]
    return body


def test_both_runs_send_the_same_day(day):
    """The saving is of the levers: no prompt and no answer is another, and nothing is left out."""
    off, on = logged(day.folder / "off"), [*logged(day.folder / "on"), *batched(day.folder / "on")]

    def sent(calls: list[Call]) -> Counter:
        return Counter(
            (json.dumps(bare(call.body)), call.tokens.prompt, call.tokens.output) for call in calls
        )

    assert sent(off) == sent(on)


def marks(body: Any, place: str = "") -> dict[str, Any]:
    """The cache points of a body, by their places."""
    found = {place: body["cache_control"]} if isinstance(body, dict) and "cache_control" in body else {}
    parts = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for key, value in parts:
        found |= marks(value, f"{place}.{key}")
    return found


def test_the_policy_does_what_it_says_and_no_more(day):
    off = {call.name: call for call in logged(day.folder / "off")}
    on = logged(day.folder / "on")
    called: dict[str, set[str]] = defaultdict(set)
    for call in on:
        called[call.app].add(call.model_id)
        before = marks(off[call.name].body)
        if (
            call.app == "agents"
        ):  # where the client's own stand is the client's business; how long they live is not
            assert marks(call.body) == {place: {"type": "ephemeral", "ttl": "1h"} for place in before}
        if call.app == "people":  # pinned: nothing is changed
            assert call == off[call.name]
    assert called == {
        "triage": {"global.anthropic.claude-haiku-4-5-20251001-v1:0"},
        "chat": {"global.anthropic.claude-sonnet-4-6"},
        "agents": {"global.anthropic.claude-opus-4-8"},
        "people": {"eu.anthropic.claude-sonnet-4-6"},
    }
    assert {call.model_id for call in batched(day.folder / "on")} == {"global.anthropic.claude-sonnet-4-6"}


def test_nothing_of_this_machine_signs(day):
    lines = [
        line
        for path in day.folder.rglob("AWSLogs/**/*.json.gz")
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]
    assert lines
    assert {json.loads(line)["identity"]["arn"] for line in lines} == {"arn:aws:iam::111122223333:user/DEMO"}


def test_the_gateway_recorded_every_decision(day):
    levers: dict[str, set[str]] = defaultdict(set)
    refused: set[str] = set()
    for path in (day.folder / "outbox" / "on").glob("*.jsonl"):
        for record in map(decode, path.read_bytes().splitlines()):
            if isinstance(record, Result):
                levers[record.tags["team"]] |= {made.lever for made in record.decisions}
                if record.tags["team"] == "people":
                    refused |= {made.reason for made in record.decisions}
    assert levers == {
        "triage": {"model", "cache", "endpoint"}, "chat": {"cache", "endpoint"}, "agents": {"ttl", "endpoint"},
        "nightly": {"batch", "endpoint"}, "people": {"endpoint"},
    }  # fmt: skip
    assert refused == {"refused: residency keeps it to geo:eu"}


@pytest.mark.parametrize("run", ["off", "on"])
def test_the_logs_alone_come_to_the_same(day, tmp_path, capsys, run):
    """Whoever imports a run's folder has its bill, the batch with its time and model among it."""
    assert said(capsys, "import", str(day.folder / run), "--ledger", str(tmp_path / "ledger"))[0] == 0
    code, out, _ = said(capsys, "bill", "--ledger", str(tmp_path / "ledger"), "--json")
    footer = json.loads(out)["footer"]
    assert (code, footer["usd"], footer["assumed_usd"]) == (0, day.told[f"{run}_usd"], "0")
    assert footer["priced"] == len(requests())


def test_what_was_realised_is_the_waterfall(day):
    """`farthing savings report` has the second run alone, and works the levers back out of it: the same dollars."""
    folder = day.folder
    question = Question(config=load_config(folder / "farthing.toml"))
    ledger = Ledger(folder / "ledger" / "on")
    traces, bad, _ = from_bodies(ledger, question, sources(str(folder / "on"), []), b"key")
    found = realised(ledger, question, periods(folder / NAME, NOW), NOW, None, traces)
    assert not bad
    saved: Counter = Counter()
    for one in found:
        if one.entry.workload == "people":
            assert one.verdict == "not in use"
            continue
        assert one.saved is not None
        assert one.estimated is not None  # the entries are what `farthing savings --apply` wrote
        assert one.verdict == "delivers"
        assert one.estimated.low <= one.saved.mid <= one.estimated.high  # of the same day
        if one.entry.lever != "ttl":
            saved[one.entry.lever] += one.saved.mid
            assert one.saved.low == one.saved.high
    told = {lever: from_usd(usd) for lever, usd in day.told["levers"].items()}
    ttl = next(one for one in found if one.entry.lever == "ttl")
    assert ttl.saved
    assert ttl.saved.low < told["ttl"] < ttl.saved.high  # by replay: to half a percent
    assert abs(ttl.saved.mid - told.pop("ttl")) * 200 <= ttl.saved.mid
    assert saved == told


# --- a shorter day, in this process ----------------------------------------------------------------------------------


def some() -> list[Ask]:
    """A job that is as small as one can be, and some of each of the others."""
    most = {"triage": 60, "chat": 40, "nightly": 100, "agents": 30, "people": 5}
    taken: Counter = Counter()
    found = []
    for ask in requests():
        taken[ask.app] += 1
        found += [ask] if taken[ask.app] <= most[ask.app] else []
    return found


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("short")
    return folder, live(folder, default_book(), NOW, asks=some())


def test_the_same_every_time(short, tmp_path):
    told = []
    again = live(tmp_path, default_book(), NOW, lambda *step: told.append(step), asks=some())
    assert again.as_json() == short[1].as_json()
    assert again.floors == short[1].floors
    assert told[-1] == ("on", len(some()), len(some()))
    people = [ask for ask in some() if ask.app == "people"]
    assert (
        live(tmp_path, default_book(), NOW, asks=people).on.picos == again.floors[-2].picos
    )  # in the other's place


def test_no_policy_of_caching_goes_below_the_bound(short):
    """Whatever caching does, at the cheapest SKU that the levers may choose."""
    _, made = short
    entries = load(short[0] / NAME).entries
    for floor in made.floors:
        asks = [ask for ask in some() if ask.app == floor.app]
        trace = _floor._trace(asks, made.off.spent)
        cards = Cards.one(floor.rates, trace)
        costs = {
            name: cards.price(simulate(trace, policy, floor.rates, floor.minimum).each)
            for name, policy in POLICIES.items()
            if name in ("none", "end_5m", "guarded_1h", "second_sighting", "adaptive_unpinged")
        }
        if _floor.CACHING.intersection(floor.levers):
            assert floor.picos <= min(costs.values()), floor.app
        spent = sum(price(made.on.spent[ask.name]) for ask in asks)
        assert floor.picos <= spent, floor.app
    assert made.bound <= made.on.picos
    switched_off = _floor.floors(some(), made.off.spent, (), default_book())
    assert sum(floor.picos for floor in switched_off) == made.off.picos  # no lever, nothing to save
    for entry in entries:  # and each can only lower it
        assert (
            sum(f.picos for f in _floor.floors(some(), made.off.spent, [entry], default_book()))
            < made.off.picos
        )


def price(spent: _floor.Spent) -> int:
    return _sums._cost(spent, default_book())


def test_levers_are_told_apart_request_by_request(short):
    """From one call of each workload: who moved to the world alone has saved by the endpoint alone."""
    _, made = short
    name = next(iter(made.off.spent))
    moved = endpoint.rewrite(*made.off.spent[name])
    assert moved
    on = made.on._replace(spent={**made.off.spent, name: _floor.Spent(*moved)})
    saved = _sums.waterfall(made.off, on, {}, default_book())
    assert {lever for lever, picos in saved.items() if picos} == {"endpoint"}
    assert saved["endpoint"] == price(made.off.spent[name]) - price(on.spent[name]) > 0


def test_a_call_that_is_missing_is_told(short, tmp_path):
    """The bill has it, logs and records do not."""
    folder, made = short
    places = _stack.Places.of(folder, "off")
    log = max((places.logs / "AWSLogs").rglob("*.json.gz"), key=lambda path: path.as_posix())
    lines = gzip.decompress(log.read_bytes()).splitlines()
    gone = json.loads(lines[-1])["requestMetadata"]["ask"]
    kept = _stack.Places(tmp_path / "logs", places.cur, tmp_path / "outbox")
    for source, target in ((places.logs, kept.logs), (places.outbox, kept.outbox)):
        for path in source.rglob("*"):
            if path.is_file():
                to = target / path.relative_to(source)
                to.parent.mkdir(parents=True, exist_ok=True)
                data = path.read_bytes()
                if path == log:
                    data = gzip.compress(b"\n".join(lines[:-1]))
                elif path.suffix == ".jsonl":
                    data = b"\n".join(line for line in data.splitlines() if gone.encode() not in line)
                to.write_bytes(data)
    found = _sums.read(kept, Ledger(tmp_path / "ledger"), len(some()), default_book(), NOW)
    assert not found.reconciled
    assert found.picos < found.billed == made.off.picos


# --- where it writes -------------------------------------------------------------------------------------------------


def test_what_is_not_the_demos_is_left_alone(tmp_path, capsys):
    (tmp_path / "off").mkdir()
    (tmp_path / "off" / "mine.txt").write_text("mine")
    code, out, err = said(capsys, "demo", "live", "--out", str(tmp_path), "--json")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "name another folder" in err
    assert (tmp_path / "off" / "mine.txt").read_text() == "mine"
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DemoError, match="is a file"):
        live(file, default_book(), NOW)


def test_the_month_is_still_there(tmp_path, capsys):
    code, out, _ = said(capsys, "demo", "--write-logs", str(tmp_path / "logs"), "--calls", "300")
    assert code == 0
    assert "300" in out
