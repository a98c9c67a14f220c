"""Turns of conversations that no session id tells of may not wait; and caching with another model asks its sample."""

import json
import random
from datetime import UTC, datetime, timedelta

import pytest

from farthing.api import import_paths
from farthing.cells import Question, cells
from farthing.config import Config, Workload
from farthing.ledger import Ledger
from farthing.optimise import savings
from farthing.optimise._choose import Option, best, unresolved
from farthing.optimise._lots import Choice, cost, load_ratio, loads
from farthing.optimise._savings import _set_stage
from farthing.optimise._traffic import from_bodies, from_counts
from farthing.optimise._turns import said, turns
from farthing.traces import Call, Source, bedrock_log
from farthing.traces._volatile import Memory
from farthing.usage import Facts, Usage
from tests.agents import MINUTE, START, role

MODEL = "us.anthropic.claude-sonnet-4-6"
SYSTEM = "You answer questions on invoices, in one sentence. " * 120
EXAMPLES = [("What is due?", "Nothing."), ("And when?", "Never.")]


def user(*texts):
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


def answer(text):
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def conversation(name, count, luck, *, before=()):
    """The messages of each turn: all of the turn before, its answer, and a question."""
    sent = [*before, user(f"{name} asks", "please " * luck.randint(5, 200))]
    for turn in range(count):
        yield list(sent)
        sent += [
            answer(f"{name} hears {turn} " + "so " * luck.randint(5, 100)),
            user(f"{name} asks on {turn}"),
        ]


def record(name, at, messages, *, system=SYSTEM, who="desk", operation="InvokeModel", model=MODEL):
    """A call as the log has it, of as many tokens as it has bytes by four, with no session."""
    sent = {"max_tokens": 300, "system": system, "messages": messages}
    tokens = len(json.dumps(sent)) // 4
    return {
        "schemaType": "ModelInvocationLog", "schemaVersion": "1.0", "timestamp": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "accountId": "111122223333", "region": "us-east-1", "requestId": name, "operation": operation,
        "modelId": model, "identity": {"arn": role(who)},
        "input": {"inputContentType": "application/json", "inputBodyJson": sent, "inputTokenCount": tokens},
        "output": {"outputContentType": "application/json", "outputTokenCount": 90,
                   "outputBodyJson": {"usage": {"input_tokens": tokens, "output_tokens": 90}}},
    }  # fmt: skip


def talks(count, turns_, *, who="desk", seed=3, start=START, **said_):
    """Conversations that overlap, a turn every minute or three."""
    luck = random.Random(seed)
    for number in range(count):
        at = start + timedelta(minutes=20 * number)
        for turn, messages in enumerate(conversation(f"{who} {number}", turns_, luck)):
            yield record(f"{who}-{number}-{turn}", at, messages, who=who, **said_)
            at += timedelta(minutes=luck.choice((1, 3)))


def document(count, *, who="desk", start=START):
    """One document, sent once alone so that it is cached, and then with a question behind it: they hang on nothing."""
    paper = "Invoice 4711, of which nothing is known. " * 100
    yield record(f"{who}-paper", start, [user(paper)], who=who)
    for number in range(count):
        at = start + timedelta(minutes=5 * number + 5)
        yield record(f"{who}-asked-{number}", at, [user(paper, f"Question {number}?")], who=who)


def sources(records):
    lines = [json.dumps(each).encode() for each in records]
    return [Source("log", lines[0], list(enumerate(lines, 1)))]


def ledger_of(folder, records):
    folder.mkdir(exist_ok=True)
    (folder / "log.json").write_text("".join(json.dumps(each) + "\n" for each in records))
    ledger = Ledger(folder / "ledger")
    import_paths(ledger, [folder / "log.json"], now=datetime(2026, 11, 1, tzinfo=UTC))
    return ledger


def question(**said_):
    named = {"desk": Workload(principals=(role("desk"),), **({"deadline": "24h"} | said_))}
    return Question(config=Config(workloads=named))


def linked(records):
    memory: Memory = {}
    (source,) = sources(records)
    read = bedrock_log.read(source, b"key", memory)
    return turns([said(call) for call in read if isinstance(call, Call)])


# --- which calls are turns -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_all_turns_are_found_in_any_order_and_nothing_else(seed):
    luck = random.Random(seed)
    records = [
        *talks(6, 4, seed=seed),
        *document(20),
        *(record(f"alone-{n}", START, [user("What is due?", f"{n}")]) for n in range(5)),
        *(
            record(f"shown-{n}", START + n * timedelta(minutes=1), [*shots(), user(f"And {n}?")])
            for n in range(5)
        ),
        *talks(3, 1, who="once"),
    ]
    luck.shuffle(records)
    found = linked(records)
    assert found.known == {f"desk-{n}-{turn}" for n in range(6) for turn in range(4)}
    assert found.doubtful == {f"shown-{n}" for n in range(5)}  # examples, or turns of what was not logged


def shots():
    return [message for asked, told in EXAMPLES for message in (user(asked), answer(told))]


def test_a_conversation_goes_on_over_models_and_across_a_clock_in_its_system_prompt():
    luck = random.Random(1)
    records = [record("first", START, [user("Hello")], system=f"It is 2026-09-07T07:00:00Z. {SYSTEM}")]
    for turn, messages in enumerate(conversation("one", 5, luck)):
        at = START + timedelta(minutes=turn + 1)
        model = (MODEL, MODEL.replace("us.", "global."))[turn % 2]
        system = f"It is {at:%Y-%m-%dT%H:%M:%SZ}. {SYSTEM}"
        records.append(record(f"turn-{turn}", at, messages, system=system, model=model))
    assert linked(records).known >= {f"turn-{turn}" for turn in range(1, 5)}
    assert "first" not in linked(records).known


def test_an_answer_that_was_begun_is_no_turn_and_going_on_from_one_is():
    begun = [user("As JSON?"), answer("{")]
    again = [record(f"again-{n}", START + n * timedelta(minutes=1), begun) for n in range(3)]
    assert linked(again).known == frozenset()
    later = record("later", START + timedelta(hours=1), [begun[0], answer('{"a": 1}'), user("And now?")])
    assert linked([*again, later]).known == {"again-0", "again-1", "again-2", "later"}
    cut = record("cut", START, [user("At length?")])
    on = record("on", START + timedelta(minutes=1), [user("At length?"), answer("It is")])
    assert linked([cut, on]).known == {"cut", "on"}


def test_a_prompt_that_was_sent_after_what_is_longer_hangs_on_nothing():
    """Another one opens as a conversation did that is over."""
    first, second = (messages for messages in conversation("one", 2, random.Random(1)))
    found = linked(
        [
            record("second", START, second),
            record("opens", START + timedelta(hours=1), first),
        ]
    )
    assert found.known == frozenset()
    assert found.doubtful == {"second"}


# --- in a plan -------------------------------------------------------------------------------------------------------


def test_turns_are_neither_batched_nor_held(tmp_path):
    records = list(talks(40, 5))
    ledger = ledger_of(tmp_path, records)
    plan = savings(ledger, question(), bodies=sources(records), key=b"key")
    assert not [one for one in plan.advice if {"channel", "schedule"} & set(one.lever.split(" + "))]
    (worked,) = plan.workloads
    assert any("200 calls" in note and "turns of conversations" in note for note in worked.notes)
    (traffic,) = from_bodies(ledger, question(), sources(records), b"key")[0].values()
    assert not traffic.deferrable.any()


def test_what_hangs_on_nothing_is_batched_beside_conversations_and_no_dollar_more(tmp_path):
    turning, single = list(talks(40, 5)), list(document(250))
    records = [*turning, *single]
    ledger = ledger_of(tmp_path / "all", records)
    alone = ledger_of(tmp_path / "single", single)
    most = sum(cell.cost for cell in cells(alone, question())) // 2  # nothing is cached: half price
    told = savings(ledger, question(cache=False), bodies=sources(records), key=b"key")
    (batch,) = (one for one in told.advice if one.lever == "channel")
    assert batch.counts
    assert batch.saved is not None
    assert abs(batch.saved.mid - most) <= 1
    assert "cannot be told" not in batch.risk


def test_turns_not_shown_by_a_trace_are_split_from_the_rest_where_it_cannot_be_believed(tmp_path):
    """A log that is off its bill says nothing of money, and yet which calls are turns."""
    records = [*talks(40, 5), *document(250)]
    ledger = ledger_of(tmp_path, records)
    told = {f"desk-{n}-{turn}" for n in range(40) for turn in range(5)}
    ((load,), (apart,)) = (loads(ledger, question(), names)[0] for names in ((), told))
    assert load.billed == apart.billed
    assert load.calls == apart.calls == 451
    assert sum(part.cell.calls for part in load.parts if part.deferrable) == 451
    assert sum(part.cell.calls for part in apart.parts if part.deferrable) == 251
    assert all(len(part.cell.flags) == 3 for part in apart.parts)
    book = question().book
    halves = [each.billed - cost(book, each, Choice(batch=True)) for each in (load, apart)]
    assert 0 < halves[1] < halves[0]
    assert abs(halves[1] - sum(p.cell.cost for p in apart.parts if p.deferrable) // 2) <= 1


def test_without_bodies_and_sessions_the_risk_says_that_turns_cannot_be_told(tmp_path):
    records = list(talks(40, 5))
    ledger = ledger_of(tmp_path, records)
    (batch,) = (one for one in savings(ledger, question()).advice if one.lever == "channel")
    assert batch.counts
    assert "200 of the 200 calls that may wait have no session id and no body" in batch.risk
    assert "--bodies" in batch.risk


def test_with_some_bodies_the_risk_counts_the_calls_that_have_none(tmp_path):
    single = list(document(250))
    ledger = ledger_of(tmp_path, single)
    plan = savings(ledger, question(cache=False), bodies=sources(single[:201]), key=b"key")
    (batch,) = (one for one in plan.advice if one.lever == "channel")
    assert "50 of the 251 calls that may wait" in batch.risk


def test_answers_of_calls_that_are_not_logged_are_said_too(tmp_path):
    records = [
        record(f"shown-{n}", START + n * timedelta(minutes=5), [*shots(), user(f"And {n}?")])
        for n in range(200)
    ]
    plan = savings(ledger_of(tmp_path, records), question(cache=False), bodies=sources(records), key=b"key")
    (batch,) = (one for one in plan.advice if one.lever == "channel")
    assert batch.counts
    assert "200 of them hold answers in their prompts" in batch.risk


def test_turns_before_the_days_asked_for_tell_of_those_in_them(tmp_path):
    """Each conversation has two turns: one before midnight, and one after it."""
    midnight = datetime(2026, 9, 8, tzinfo=UTC)
    records = []
    for number in range(30):
        one, two = conversation(f"late {number}", 2, random.Random(number))
        near = timedelta(minutes=number + 1)
        records += [
            record(f"eve-{number}", midnight - near, one),
            record(f"day-{number}", midnight + near, two),
        ]
    ledger = ledger_of(tmp_path, records)
    asked = Question(since=midnight.date(), config=question().config)
    (traffic,) = from_bodies(ledger, asked, sources(records), b"key")[0].values()
    assert traffic.trace.requests == 30
    assert not traffic.deferrable.any()
    assert traffic.waiting.turns == {f"day-{number}" for number in range(30)}


# --- another model and caching together ------------------------------------------------------------------------------


HAIKU = "claude-haiku-4-5"
SONNET = "us.anthropic.claude-sonnet-4-6"


def grown(name, prompt, pauses, turns_=6):
    """A session whose every prompt begins with all of the last, which is read if it came within five minutes."""
    facts = Facts(
        "bedrock_log", "bedrock", SONNET, region="us-east-1", account="111122223333", principal=role("desk"),
        session=name, operation="InvokeModelWithResponseStream",
    )  # fmt: skip
    at = round(START.timestamp()) * 1_000_000 + int(name.rpartition("-")[2]) * 67 * MINUTE
    depth = 0
    for turn in range(turns_):
        pause = pauses[turn % len(pauses)] if turn else 0
        at += pause * MINUTE
        fresh = prompt if not turn else 100
        read = depth if turn and pause <= 5 else 0
        yield Usage(at, f"{name}-{turn}", "", ((facts, (0, 60, read, depth + fresh - read, 0)),))
        depth += fresh


@pytest.fixture
def mixed(tmp_path):
    """Small sessions pause, and an hour is worth it; they are under Haiku's minimum. Of the large ones, which are few,
    two pause and the rest does not: of them alone it cannot be told."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.append([use for n in range(80) for use in grown(f"small-{n}", 2_500, (20,))])
    ledger.append([use for n in range(80, 82) for use in grown(f"large-{n}", 20_000, (20,))])
    ledger.append([use for n in range(82, 94) for use in grown(f"quick-{n}", 20_000, (1,))])
    gate = {"verdict": "not inferior", "from": "claude-sonnet-4-6", "to": HAIKU}
    (tmp_path / "gate.json").write_text(json.dumps(gate))
    return ledger, question(models=(HAIKU,), gate=str(tmp_path / "gate.json"))


def load_of(ledger, asked):
    (load,), _ = loads(ledger, asked)
    days = ledger.days()
    _set_stage(asked, load, [from_counts(ledger, asked, {"desk"})], days[1])
    load.span_us = (days[1] - days[0]) // timedelta(microseconds=1)
    return load


def test_what_the_own_model_resolves_another_may_not(mixed):
    ledger, asked = mixed
    load = load_of(ledger, asked)
    own, other = (load_ratio(load, Choice(model, policy="end_1h")) for model in ("", HAIKU))
    assert own.high < own.whole
    assert other.mid < other.whole <= other.high
    assert not unresolved(load, Choice(policy="end_1h"))  # of the own model the option says it
    (doubt,) = unresolved(load, Choice(HAIKU, policy="end_1h"))
    assert doubt.kind == "resolved"
    assert HAIKU in doubt.why
    sure = [Option("model", Choice(HAIKU), ()), Option("cache", Choice(policy="end_1h"), ())]
    book = asked.book
    assert cost(book, load, Choice(HAIKU, policy="end_1h")) < cost(book, load, Choice(HAIKU))
    assert best(book, load, sure) == Choice(HAIKU)
    assert best(book, load, sure, forced=True) == Choice(HAIKU)


def test_it_is_told_and_does_not_count(mixed):
    ledger, asked = mixed
    plan = savings(ledger, asked)
    advice = {one.lever: one for one in plan.advice}
    assert advice["model"].counts
    cache = advice["cache"]
    assert not cache.counts
    assert not cache.resolved
    assert cache.permitted
    assert f"with {HAIKU}" in cache.why_not
    assert cache.saved is not None
    assert cache.saved.low < 0 < cache.saved.mid
    assert plan.billed - sum(step.saved.mid for step in plan.waterfall) == plan.advised.mid
