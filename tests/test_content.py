"""What changes from call to call, moved behind what stays: conserved, worth what it comes to, only where it pays."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from farthing.api import import_paths
from farthing.cells import Question
from farthing.config import Config, Workload
from farthing.ledger import Ledger
from farthing.optimise import LEVERS_IN_ORDER, savings
from farthing.optimise._replay import Stage
from farthing.optimise._traffic import from_bodies
from farthing.traces import Source
from farthing.traces._volatile import Memory, settled
from farthing.usage import Sku
from tests.agents import START, role

MODEL = "us.anthropic.claude-sonnet-4-6"
RULES = "Answer in English. Be brief, and name your source. " * 200
TOOLS = [
    {"name": name, "description": "Looks something up.", "input_schema": {"type": "object"}} for name in "cab"
]
WRITTEN, ASKED, ANSWER = 2_600, 400, 100  # tokens
CALLS, EVERY = 400, timedelta(minutes=2)


def body(at, number, *, clock=True, system=RULES, tools=None, mark=True):
    """A question under rules that begin with the time, marked behind them."""
    text = f"It is {at:%Y-%m-%dT%H:%M:%SZ}. {system}" if clock else system
    block = {"type": "text", "text": text} | ({"cache_control": {"type": "ephemeral"}} if mark else {})
    return {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 500,
        **({"tools": tools} if tools else {}),
        "system": [block],
        "messages": [{"role": "user", "content": f"Question {number:05}? " + "please " * 200}],
    }


def record(number, sent, read=0, written=WRITTEN, asked=ASKED):
    at = START + number * EVERY
    counts = {"cacheReadInputTokenCount": read, "cacheWriteInputTokenCount": written}
    return {
        "schemaType": "ModelInvocationLog", "schemaVersion": "1.0", "timestamp": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "accountId": "111122223333", "region": "us-east-1", "requestId": f"r-{number}", "operation": "InvokeModel",
        "modelId": MODEL, "identity": {"arn": role("clocked")},
        "input": {"inputContentType": "application/json", "inputBodyJson": sent, "inputTokenCount": asked, **counts},
        "output": {"outputContentType": "application/json", "outputTokenCount": ANSWER,
                   "outputBodyJson": {"usage": {
                       "input_tokens": asked, "output_tokens": ANSWER, "cache_read_input_tokens": read,
                       "cache_creation_input_tokens": written}}},
    }  # fmt: skip


def sources(records):
    lines = [json.dumps(each).encode() for each in records]
    return [Source("log", lines[0], list(enumerate(lines, 1)))]


def plan_of(folder, records, **said):
    folder.mkdir(exist_ok=True)
    (folder / "log.json").write_text("".join(json.dumps(each) + "\n" for each in records))
    ledger = Ledger(folder / "ledger")
    import_paths(ledger, [folder / "log.json"], now=datetime(2026, 11, 1, tzinfo=UTC))
    config = Config(workloads={"clocked": Workload(principals=(role("clocked"),), **said)})
    question = Question(config=config)
    return savings(ledger, question, bodies=sources(records), key=b"key"), ledger, question


def at(number):
    return START + number * EVERY


@pytest.fixture(scope="module")
def clocked(tmp_path_factory):
    records = [record(n, body(at(n), n)) for n in range(CALLS)]
    return plan_of(tmp_path_factory.mktemp("clocked"), records), records


def test_content_comes_first():
    assert LEVERS_IN_ORDER == ("content", "model", "channel", "schedule", "cache", "endpoint")


def test_a_clock_in_the_prefix_costs_what_is_written_instead_of_read(clocked):
    (plan, _, _), _ = clocked
    one = next(each for each in plan.advice if each.lever == "content")
    assert one.counts
    assert one.calibration == "0.0 %"
    # regional: 3.30, written at 4.125, read at 0.33 dollars a million. The first call does not show that the clock
    # changes, the second writes, 398 read; a clock of 20 letters of 11,000 is sent plain, of 3,000 tokens: some five.
    least, most = ((CALLS - 2) * (WRITTEN - tail) * 3_795_000 - CALLS * tail * 3_300_000 for tail in (9, 1))
    assert one.saved is not None
    assert least <= one.saved.mid <= most
    assert plan.billed - sum(step.saved.mid for step in plan.waterfall) == plan.advised.mid
    assert next(step.lever for step in plan.waterfall) == "content"
    assert plan.bound <= plan.advised.low
    assert one.change.kind == "content"
    assert one.change.data["places"] == [
        {"path": "system[0].text", "kind": "clock", "calls": CALLS - 1, "different": CALLS - 1}
    ]
    assert "system[0].text: a time" in one.change.before
    assert "2026-" not in one.change.before + one.change.after  # of a prompt no text is told


def test_no_token_is_made_or_lost(clocked):
    (_, ledger, question), records = clocked
    found, bad, _ = from_bodies(ledger, question, sources(records), b"key")
    (traffic,) = found.values()
    assert not bad
    assert traffic.settled is not None
    assert np.array_equal(traffic.settled.prompt, traffic.trace.prompt)
    assert np.array_equal(traffic.settled.at_us, traffic.trace.at_us)
    assert traffic.settled.plain.sum() > traffic.trace.plain.sum()
    assert len(np.unique(traffic.trace.nodes[traffic.trace.starts[:-1]])) == CALLS
    assert (
        len(np.unique(traffic.settled.nodes[traffic.settled.starts[:-1]])) == 2
    )  # the first call is as it was


def test_it_needs_the_owner_and_enough_hours(tmp_path, clocked):
    _, records = clocked
    for name, some, said, kind in (
        ("owner", records, {"cache": False}, "permitted"),
        ("hours", records[:90], {}, "resolved"),
    ):
        plan, _, _ = plan_of(tmp_path / name, some, **said)
        one = next(each for each in plan.advice if each.lever == "content")
        assert not one.counts
        assert not getattr(one, kind)
        assert one.saved is not None
        assert one.saved.mid > 0


def test_an_order_on_few_hours_is_not_resolved(tmp_path):
    """Twenty calls, six minutes apart: held and sent together they would write their rules once."""
    records = [record(3 * n, body(at(3 * n), n, clock=False)) for n in range(20)]
    plan, _, _ = plan_of(tmp_path, records, deadline="6h")
    one = next(each for each in plan.advice if each.lever == "schedule")
    assert one.saved.mid > 0
    assert not one.resolved
    assert not one.counts
    assert "not resolved" in one.why_not


def test_where_nothing_changes_nothing_is_moved(tmp_path):
    records = [
        record(n, body(START, n), *((WRITTEN, 0) if n else (0, WRITTEN))) for n in range(60)
    ]  # the same time in every call
    plan, ledger, question = plan_of(tmp_path, records)
    assert "content" not in {step for each in plan.advice for step in each.lever.split(" + ")}
    (traffic,) = from_bodies(ledger, question, sources(records), b"key")[0].values()
    assert traffic.settled is None


def test_without_markers_it_pays_together_with_them(tmp_path):
    records = [record(n, body(at(n), n, mark=False), 0, 0, ASKED + WRITTEN) for n in range(CALLS)]
    plan, _, _ = plan_of(tmp_path, records)
    one = next(each for each in plan.advice if "content" in each.lever)
    assert one.lever == "content + cache"
    assert one.counts
    assert one.saved is not None
    assert one.saved.mid > (CALLS - 2) * (WRITTEN - 200) * 2_970_000 - 10**9 * 20


def test_a_system_prompt_a_little_short_is_lengthened_where_reading_it_pays(tmp_path):
    """900 tokens of rules that are never cached; 1,024 would be, at a tenth."""
    sent = [body(START, n, clock=False, system=RULES[:3_600]) for n in range(CALLS)]
    plan, _, _ = plan_of(tmp_path / "often", [record(n, one, 0, 0, 1_300) for n, one in enumerate(sent)])
    one = next(each for each in plan.advice if each.lever.startswith("content"))
    assert one.counts
    assert one.change.data["minimum"] == 1_024
    rare = [record(45 * n, one, 0, 0, 1_300) for n, one in enumerate(sent)]  # every ninety minutes
    plan, _, _ = plan_of(tmp_path / "rare", rare)
    assert not any(each.lever.startswith("content") for each in plan.advice)


# --- batch or cache ---------------------------------------------------------------------------------------------------


def test_a_batch_says_how_far_it_is_from_what_could_be_proved(tmp_path):
    """Bursts that a cache serves, and calls every half hour that it does not: some of them belong in a batch."""
    records, minute = [], 0
    for n in range(600):
        minute += 1 if n % 40 < 20 else 30
        sent = body(START, n, clock=False)
        warm = n and n % 40 < 20
        counts = (WRITTEN, 0) if warm else (0, WRITTEN)
        when = START + timedelta(minutes=minute)
        records.append(record(n, sent, *counts) | {"timestamp": f"{when:%Y-%m-%dT%H:%M:%SZ}"})
    plan, ledger, question = plan_of(tmp_path, records, deadline="2d", cache=False)
    one = next(each for each in plan.advice if each.lever == "channel")
    assert one.counts
    (traffic,) = from_bodies(ledger, question, sources(records), b"key")[0].values()
    sku = Sku("bedrock", "claude-sonnet-4-6", "regional", "", "on_demand")
    made = Stage(question.book, traffic, sku, datetime(2026, 9, 10, tzinfo=UTC))
    assert one.optimum is not None
    assert abs(one.optimum - made.optimum().bound) <= 1  # all of it is traced, so nothing is scaled
    assert one.bound <= one.optimum <= one.advised.mid < one.billed
    share = (one.billed - one.advised.mid) * 1_000 / (one.billed - one.optimum)
    assert one.captured_of_optimum == f"{share / 10:.1f} %"
    others = [each for each in plan.advice if each.lever != "channel"]
    assert all(each.optimum is None and each.captured_of_optimum == "" for each in others)


# --- what is moved ---------------------------------------------------------------------------------------------------


def words(value):
    """Every text in a body, markers and all, as a bag of characters: what may not change."""
    if isinstance(value, dict):
        return sum((words(each) for each in value.values()), Counter())
    if isinstance(value, list):
        return sum((words(each) for each in value), Counter())
    return Counter(str(value))


def test_what_is_cut_out_and_what_is_left_make_the_prompt():
    memory: Memory = {}
    orders = [TOOLS, TOOLS[::-1], [TOOLS[1], TOOLS[0], TOOLS[2]]]
    for number in range(6):
        sent = body(at(number), number, tools=orders[number % 3])
        made = settled(sent, memory)
        if number == 0:
            assert made is None
            continue
        assert made is not None
        assert [tool["name"] for tool in made.body["tools"]] == ["a", "b", "c"]
        texts = [cut.text for cut in made.cuts if cut.kind != "tool-order"]
        assert texts == [f"{at(number):%Y-%m-%dT%H:%M:%SZ}"]
        assert words(made.body) + words(texts) == words(sent)
        assert made.body["system"][0]["cache_control"] == {"type": "ephemeral"}
        assert made.body["messages"] == sent["messages"]


def test_markers_keep_their_places_among_tools_whose_order_changes():
    memory: Memory = {}
    made = None
    point = {"cachePoint": {"type": "default"}}
    specs = [{"toolSpec": {"name": name}} for name in "cab"]
    for tools in (specs, specs[::-1]):
        made = settled({"toolConfig": {"tools": [*tools, point]}, "messages": []}, memory)
    assert made is not None
    assert made.body["toolConfig"]["tools"] == [*sorted(specs, key=str), point]
    marked = [{"name": name} for name in "cab"]
    marked[2]["cache_control"] = {"type": "ephemeral"}  # type: ignore[assignment]
    settled({"tools": marked, "messages": []}, memory)
    made = settled({"tools": [marked[1], marked[0], marked[2]], "messages": []}, memory)
    assert made is not None
    assert made.body["tools"] == [
        {"name": "a"},
        {"name": "b"},
        {"name": "c", "cache_control": {"type": "ephemeral"}},
    ]


def test_an_id_that_stays_stays():
    memory: Memory = {}
    made = None
    for number in range(3):
        text = f"Tenant id_a1b2c3d4, request req_{number:08}. {RULES}"
        made = settled({"system": text, "messages": []}, memory)
    assert made is not None
    assert [cut.text for cut in made.cuts] == ["req_00000002"]
    assert "id_a1b2c3d4" in made.body["system"]
