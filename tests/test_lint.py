"""`farthing lint`: each fault is found, named with its place, priced and mended; what is well is left alone."""

import copy
import io
import json
import random
from typing import Any

import pytest

from farthing.cli import main
from tests.prompts import DAY, FIVE, HOUR, MODEL, SENTENCE, body, converse, results, save, with_


def run(*argv):
    with pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in argv])
    return ended.value.code


@pytest.fixture
def lint(tmp_path, capsys):
    """lint(body, ...): the exit code and the findings; two bodies are a pair, a list is one file."""

    def check(*bodies, more=(), model=MODEL):
        paths = [
            save(tmp_path / f"{at}.jsonl", *(each if isinstance(each, list) else [each]))
            for at, each in enumerate(bodies)
        ]
        chosen = ["--model", model] if model else []
        code = run("lint", *paths, *chosen, "--at", DAY, "--json", *more)
        return code, json.loads(capsys.readouterr().out)["findings"]

    return check


def rules(found):
    return [each["rule"] for each in found[1]]


# --- one request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", [body(), converse(), results(10), body(mark=HOUR)])
def test_a_request_that_caches_well_is_left_alone(lint, good):
    if good["system"][0].get("text") and len(good["messages"]) > 1:
        good["system"][0]["cache_control"] = FIVE
    assert lint(good) == (0, [])


def test_a_fifth_breakpoint_is_an_error_and_the_idle_ones_go(lint):
    bad = body()
    for each in (*bad["tools"], *bad["messages"][0]["content"]):
        each["cache_control"] = FIVE
    code, found = lint(bad)
    assert (code, found[0]["rule"], found[0]["severity"]) == (1, "breakpoints", "error")
    assert found[0]["mend"] == ["- tools[0].cache_control"]  # 104 tokens deep: it never did anything
    assert found[0]["refused"]
    assert found[0]["usd"] is None  # refused is not $0


def test_an_hour_after_five_minutes_is_an_error(lint):
    bad = body()
    bad["messages"][0]["content"][0]["cache_control"] = HOUR
    _, found = lint(bad)
    assert (found[0]["rule"], found[0]["where"]) == ("ttl-order", "system[0].cache_control")
    assert found[0]["mend"][1] == '+ system[0].cache_control = {"type": "ephemeral", "ttl": "1h"}'


def test_a_breakpoint_on_nothing_or_on_thinking_is_refused(lint):
    bad = body()
    bad["messages"] += [
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "hm", "signature": "x", "cache_control": FIVE}],
        },
        {"role": "user", "content": [{"type": "text", "text": "", "cache_control": FIVE}]},
    ]
    found = [each for each in lint(bad)[1] if each["rule"] == "empty-marker"]
    assert [each["count"] for each in found] == [2]


def test_automatic_caching_is_refused_by_invokemodel_and_by_no_other(lint):
    assert rules(lint(with_(body(mark=None), cache_control=FIVE))) == ["automatic"]
    direct = with_(body(mark=None), cache_control=FIVE, model="claude-sonnet-4-6")
    del direct["anthropic_version"]
    assert rules(lint(direct, model="")) == []


def test_under_the_minimum_the_breakpoint_moves_further_or_the_prefix_grows(lint):
    early = body(mark=None)
    early["tools"][2]["cache_control"] = FIVE
    _, found = lint(early)
    assert [each["rule"] for each in found] == ["under-minimum"]
    assert found[0]["mend"] == [
        "- tools[2].cache_control",
        '+ system[0].cache_control = {"type": "ephemeral"}',
    ]
    short = with_(body(system=SENTENCE * 10), tools=[])
    assert "tokens more that never change" in lint(short)[1][0]["mend"][0]


def test_padding_that_costs_more_than_it_saves_is_not_advised(lint):
    tiny = with_(body(system="Be brief."), tools=[])
    code, found = lint(tiny)
    assert (code, found[0]["severity"], found[0]["mend"]) == (0, "note", ["- system[0].cache_control"])


def test_the_minimum_is_that_of_the_model(lint):
    haiku = "global.anthropic.claude-haiku-4-5-20251001-v1:0"  # caches from 4,096 tokens on
    assert rules(lint(body())) == []
    assert rules(lint(body(), model=haiku)) == ["under-minimum"]


def test_batches_on_bedrock_forfeit_the_cache(lint):
    code, found = lint({"recordId": "r", "modelInput": body()})
    assert (code, found[0]["rule"]) == (1, "batch")
    assert found[0]["mend"][0] == "- system[0].cache_control"


def test_a_long_prefix_without_breakpoint_is_priced(lint):
    """Fifty calls a minute apart: one write and 49 reads of the prefix, instead of 50 times in full."""
    _, found = lint(body(mark=None), more=("--calls", "50"))
    (one,) = found
    assert (one["rule"], one["mend"]) == ("unmarked", ['+ system[0].cache_control = {"type": "ephemeral"}'])
    prefix = int(one["what"].split()[0].replace(",", ""))
    saved = 50 * prefix * 3_000_000 - prefix * (3_750_000 + 49 * 300_000)
    assert one["usd"]["lost"] == f"{saved / 10**12:.12f}".rstrip("0")


def test_a_breakpoint_is_advised_for_an_hour_or_not_at_all_where_calls_are_rare(lint):
    _, (every_ten_minutes,) = lint(body(mark=None), more=("--gap", "600"))
    assert every_ten_minutes["mend"] == ['+ system[0].cache_control = {"type": "ephemeral", "ttl": "1h"}']
    assert float(every_ten_minutes["usd"]["lost"]) > 0
    code, (every_two_hours,) = lint(body(mark=None), more=("--gap", "7200"))
    assert (code, every_two_hours["severity"], every_two_hours["mend"]) == (0, "note", [])


def test_a_turn_of_many_blocks_loses_the_prefix(lint):
    """The breakpoint at the end looks back over 20 blocks, and the one before it stands 26 away."""
    assert rules(lint(results(12))) == []
    code, found = lint(results(25))
    assert (code, found[0]["rule"]) == (1, "lookback")
    assert found[0]["mend"] == ['+ messages[2].content[17].cache_control = {"type": "ephemeral"}']
    lost = found[0]["usd"]
    assert float(lost["mended"]) < 0.2 * float(lost["with_fault"])


def test_a_model_without_cache(lint):
    assert rules(lint(body(), model="anthropic.claude-3-haiku-20240307-v1:0")) == ["no-caching"]


def test_a_clock_in_one_request_is_a_suspicion(lint):
    code, found = lint(body(system="Now 2026-11-22T10:11:12Z. " + SENTENCE * 60))
    assert (code, found[0]["rule"], found[0]["severity"]) == (0, "clock", "note")
    assert "that the time changes" in found[0]["assumed"]
    assert lint(body(system="Now 2026-11-22T10:11:12Z. " + SENTENCE * 60), more=("--fail-on", "note"))[0] == 1


# --- two requests ----------------------------------------------------------------------------------------------------


def twice(first, second):
    return tuple(body(question, text + SENTENCE * 60) for question, text in (("a?", first), ("b?", second)))


@pytest.mark.parametrize(
    ("rule", "first", "second"),
    [
        ("clock", "Now: 2026-11-22T10:00:01Z. ", "Now: 2026-11-22T10:00:09Z. "),
        ("clock", "At 9:59 am. ", "At 10:01 am. "),
        ("clock", "ts=1763805601 ", "ts=1763805664 "),
        ("date", "Today is 2026-11-21. ", "Today is 2026-11-22. "),
        ("id", "Session 3f2b8c1e-9d4a-4c7b-8e21-0a1b2c3d4e5f. ", "Session 9a1b2c3d-1111-4c7b-8e21-0a1b2c3d4e00. "),
        ("id", "req_011CSHoEeqs5C35K2UUqR7Fy ", "req_019CSHoEeqs5C35K2UUqR7Fz "),
        ("counter", "Request number 41. ", "Request number 42. "),
        ("whitespace", "Be  kind. ", "Be kind. "),
        ("text", "You help Ann. ", "You help Bob. "),
    ],
)  # fmt: skip
def test_what_differs_in_the_prefix_is_named(lint, rule, first, second):
    _, found = lint(*twice(first, second))
    (one,) = found
    assert (one["rule"], one["where"]) == (rule, "system[0].text")
    assert first.strip() not in json.dumps(found)  # no text of a prompt, unless it is asked for
    _, shown = lint(*twice(first, second), more=("--show",))
    assert shown[0]["shown"]


def test_a_clock_costs_a_write_where_a_read_could_be(lint):
    """Ten calls: with it ten writes; without, one write and nine reads."""
    _, (one,) = lint(
        *twice("Now: 2026-11-22T10:00:01Z. ", "Now: 2026-11-22T10:00:09Z. "), more=("--calls", "10")
    )
    with_fault, mended = (round(float(one["usd"][name]) * 10**12) for name in ("with_fault", "mended"))
    question = 10 * 3_000_000 * _last_tokens()
    prefix, left = divmod(with_fault - question, 10 * 3_750_000)
    assert left == 0
    assert mended == question + prefix * (3_750_000 + 9 * 300_000)


def _last_tokens():
    """Tokens of the last message of the pair, as lint counts them: its share of the whole, rounded up."""
    from farthing.lint import sent_of

    return sent_of(twice("Now: 2026-11-22T10:00:01Z. ", "Now: 2026-11-22T10:00:09Z. ")[1]).sizes[-1]


def test_a_day_changes_once_a_day_and_is_a_note(lint):
    assert lint(*twice("Today is 2026-11-21. ", "Today is 2026-11-22. "))[1][0]["usd"] is None


def test_behind_the_last_breakpoint_anything_may_differ(lint):
    pair = [body("a?"), body("b?")]
    for at, each in enumerate(pair):
        each["system"].append({"type": "text", "text": f"Now: 2026-11-22T10:00:0{at}Z"})
    assert lint(*pair) == (0, [])


def test_tools_in_another_order(lint):
    other = body("b?")
    other["tools"].reverse()
    code, found = lint(body("a?"), other)
    assert (code, found[0]["rule"], found[0]["where"]) == (1, "tool-order", "tools")


def test_keys_in_another_order(lint):
    other = body("b?")
    other["tools"][1] = dict(reversed(other["tools"][1].items()))
    assert [(each["rule"], each["where"]) for each in lint(body("a?"), other)[1]] == [
        ("key-order", "tools[1]")
    ]


def test_the_description_of_a_tool_is_named_with_its_path(lint):
    other = body("b?")
    other["tools"][2]["description"] += " Build 2026-11-22T10:00:09Z"
    first = body("a?")
    first["tools"][2]["description"] += " Build 2026-11-21T10:00:09Z"
    (one,) = lint(first, other)[1]
    assert (one["rule"], one["where"]) == ("clock", "tools[2].description")


def test_a_tool_that_comes_and_goes(lint):
    other = body("b?")
    other["tools"].pop()
    assert rules(lint(body("a?"), other)) == ["tools-changed"]


def chat(turns, **more):
    """A conversation of so many turns, a breakpoint at its end."""
    found = body()
    found["messages"] = [
        {"role": ("user", "assistant")[at % 2], "content": [{"type": "text", "text": f"{at} {SENTENCE * 3}"}]}
        for at in range(turns)
    ]
    found["messages"][-1]["content"][0]["cache_control"] = FIVE
    return found | more


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        ("tool-choice", {}, {"tool_choice": {"type": "any"}}),
        ("thinking", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, {}),
        ("speed", {}, {"speed": "fast"}),
    ],
)
def test_what_cached_messages_hang_on_must_stay(lint, rule, before, after):
    assert rules(lint(chat(3, **before), chat(5, **after))) == [rule]
    assert rules(lint(chat(3, **before), chat(5, **before))) == []


def test_a_conversation_that_grows_by_many_blocks(lint):
    """A fault of the second call, though its own last turn is short: 24 blocks came since the first's breakpoint."""
    assert rules(lint(chat(3), chat(21))) == []
    code, found = lint(chat(3), chat(27))
    assert (code, found[0]["rule"]) == (1, "lookback")
    assert found[0]["mend"] == ['+ messages[21].content[0].cache_control = {"type": "ephemeral"}']


def test_the_first_image(lint):
    later = chat(5)
    later["messages"][4]["content"].insert(0, {"type": "image", "source": {"type": "base64", "data": "aGk="}})
    assert rules(lint(chat(3), later)) == ["images"]


def test_a_turn_that_is_changed_afterwards(lint):
    later = chat(5)
    later["messages"][1]["content"][0]["text"] = "summed up"
    code, found = lint(chat(3), later)
    assert (code, found[0]["rule"], found[0]["where"]) == (1, "history", "messages[1].content[0].text")


def test_another_model_in_a_conversation(lint):
    models = [chat(3, model="anthropic.claude-opus-5"), chat(5, model="anthropic.claude-sonnet-5")]
    assert rules(lint(*models, model="")) == ["model"]


# --- many requests ---------------------------------------------------------------------------------------------------


def test_requests_of_a_file_are_put_beside_those_of_their_workload(lint):
    asks = [body(f"{at}?", f"Call {at}. " + SENTENCE * 60) for at in range(20)]
    others = [with_(body(f"{at}?", "You sort mail. " + SENTENCE * 60), tools=[]) for at in range(20)]
    mixed = [each for pair in zip(asks, others, strict=True) for each in pair]
    _, found = lint(mixed)
    assert [(each["rule"], each["count"]) for each in found] == [("counter", 19)]


def record(sent, at, prompt):
    return {
        "schemaType": "ModelInvocationLog",
        "timestamp": f"2026-11-22T10:00:{at:02}Z",
        "accountId": "111122223333",
        "region": "eu-central-1",
        "requestId": f"r{at}",
        "operation": "InvokeModel",
        "modelId": "eu.anthropic.claude-sonnet-4-6",
        "input": {"inputBodyJson": sent, "inputTokenCount": prompt, "cacheWriteInputTokenCount": 0},
        "output": {"outputTokenCount": 5},
    }


def test_log_records_have_billed_tokens_so_none_are_assumed(lint):
    asks = [record(body("a?", f"Call {at}. " + SENTENCE * 60), at, 2_000) for at in (1, 2)]
    _, (one,) = lint(asks, model="")
    assert one["rule"] == "counter"
    assert "tokens (four bytes each)" not in one["assumed"]


@pytest.fixture
def ledger(tmp_path, capsys):
    """Ten calls of 1,500 tokens: 1,400 of them written to the cache, none read."""
    calls = []
    for at in range(10):
        call = record(None, at, 100) | {"modelId": MODEL}
        call["input"] = {"inputTokenCount": 100, "cacheWriteInputTokenCount": 1_400}
        calls.append(call)
    assert run("import", save(tmp_path / "log.jsonl", *calls), "--ledger", tmp_path / "ledger") == 0
    capsys.readouterr()
    return tmp_path / "ledger"


def test_the_ledger_says_what_it_was_worth_at_most(lint, ledger):
    """A clock over a thousand calls: 999 times the prefix of 1,586 tokens could have been read, so nearly all of the
    ledger's prompts: the 14,000 written tokens at $3.75 and the 1,000 others at $3 would have been $0.30."""
    pair = twice("Now: 2026-11-22T10:00:01Z. ", "Now: 2026-11-22T10:00:09Z. ")
    _, (one,) = lint(*pair, more=("--ledger", ledger, "--calls", "1000"))
    assert one["ledger"]["calls"] == 10
    assert one["ledger"]["tokens"] == 15_000  # no more than were sent
    assert one["ledger"]["at_most_usd"] == "0.051"  # (14,000 x 3.45 + 1,000 x 2.70) / 1M
    assert one["ledger"]["assumed"] == ["all calls of the model are of this workload"]


def test_of_the_ledger_only_what_is_asked_for(lint, ledger):
    pair = twice("Now: 2026-11-22T10:00:01Z. ", "Now: 2026-11-22T10:00:09Z. ")
    _, (one,) = lint(*pair, more=("--ledger", ledger, "--where", "account=999999999999"))
    assert one["ledger"]["calls"] == 0


def test_sarif_for_a_code_host(lint, tmp_path):
    out = tmp_path / "out.sarif"
    lint(*twice("Now: 2026-11-22T10:00:01Z. ", "Now: 2026-11-22T10:00:09Z. "), more=("--sarif", out))
    said = json.loads(out.read_text())
    (result,) = said["runs"][0]["results"]
    assert (said["version"], result["ruleId"], result["level"]) == ("2.1.0", "clock", "warning")
    assert [rule["id"] for rule in said["runs"][0]["tool"]["driver"]["rules"]] == ["clock"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"].endswith("1.jsonl")
    assert place["region"] == {"startLine": 1}


# --- what is no request ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{oops", ":1: not JSON"),
        ('{"a": 1}', ":1: no `messages` in it"),
        ('{"messages": [3]}', "messages[0] is no object"),
        ('{"messages": [{"role": "user", "content": [null]}]}', "messages[0].content[0] is no object"),
        ("[1]", ":1[0]: no object"),
        ("[" * 100_000, "not JSON"),
        ('{"modelId": "x", "input": {"inputTokenCount": 5}}', "no body: logging of text is off"),
        ('{"modelId": "x", "input": {"inputBodyJson": "{\\"mess"}}', "cut short"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, text, says):
    (tmp_path / "x.jsonl").write_text(text)
    assert run("lint", tmp_path / "x.jsonl") == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_good_request_beside_a_bad_one_still_counts(tmp_path, capsys):
    good = save(tmp_path / "x.jsonl", body(mark=None))
    good.write_text("{oops\n" + good.read_text())
    assert run("lint", good, "--model", MODEL, "--json") == 2
    assert [each["rule"] for each in json.loads(capsys.readouterr().out)["findings"]] == ["unmarked"]


def test_without_a_model_lengths_are_not_checked_and_that_is_said(tmp_path, capsys):
    assert run("lint", save(tmp_path / "x.json", body(mark=None))) == 0
    assert "not checked in 1 request: lengths of prefixes (no model is named" in capsys.readouterr().out


def test_files_of_a_folder_that_hold_no_json_are_counted(tmp_path, capsys):
    save(tmp_path / "x.json", body())
    (tmp_path / "LICENSE").write_text("MIT")
    assert run("lint", tmp_path, "--model", MODEL) == 0
    assert "left out: 1 (files without JSON, models that are not Claude)" in capsys.readouterr().out


def test_requests_to_other_models_are_left_out(lint):
    assert lint(with_(body(mark=None), model="amazon.nova-pro-v1:0")) == (0, [])


def test_two_files_of_many_requests_are_no_pair(lint):
    agent, sorter = body(), with_(body(system="You sort mail. " + SENTENCE * 60), tools=[])
    assert lint([agent, agent], [sorter, sorter]) == (0, [])
    assert rules(lint(agent, sorter)) == ["tools-changed"]  # but two requests are what they are named as


def test_from_standard_input(monkeypatch, capsys):
    data = io.TextIOWrapper(io.BytesIO(json.dumps(body(mark=None)).encode()))
    monkeypatch.setattr("sys.stdin", data)
    assert run("lint", "-", "--model", MODEL, "--json") == 1
    assert [each["place"] for each in json.loads(capsys.readouterr().out)["findings"]] == ["-:1"]


def test_unknown_fields_and_large_bodies_do_no_harm(tmp_path):
    large = with_(body(), strange={"x": [1, None]})
    large["messages"][0]["content"][0]["text"] = "word " * 3_000_000
    other = copy.deepcopy(large)
    other["messages"][0]["content"][0]["text"] += "more"
    assert (
        run("lint", save(tmp_path / "a.json", large), save(tmp_path / "b.json", other), "--model", MODEL) == 0
    )


WEIRD: list[Any] = [
    None,
    0,
    1.5,
    "",
    [],
    {},
    [None],
    [[]],
    {"cachePoint": None},
    {"text": 5},
    {"type": []},
    True,
    {"cache_control": 1},
]


def mutated(value, chance):
    """A value in which some things are missing, and others are something else."""
    if chance.random() < 0.03:
        return copy.deepcopy(chance.choice(WEIRD))
    if isinstance(value, dict):
        return {name: mutated(each, chance) for name, each in value.items() if chance.random() > 0.015}
    if isinstance(value, list):
        return [mutated(each, chance) for each in value if chance.random() > 0.015]
    return value


def test_whatever_is_in_a_body_it_is_read_or_rejected(tmp_path):
    chance = random.Random(7)
    good = [
        body(),
        converse(),
        results(23),
        chat(5),
        record(body(), 3, 2_000),
        {"recordId": "r", "modelInput": body()},
    ]
    save(tmp_path / "x.jsonl", *(mutated(chance.choice(good), chance) for _ in range(400)))
    assert run("lint", tmp_path / "x.jsonl", "--model", MODEL, "--calls", "3") in (1, 2)


def test_real_agent_traces_share_prefixes_that_nothing_marks(shared, capsys):
    traces = shared / "data/lmcache_agent_traces"
    if not traces.is_dir():
        pytest.skip("no lmcache_agent_traces among the sample data")
    one = min((traces / "miniswe").glob("*.jsonl"))
    assert run("lint", one, "--model", MODEL, "--at", DAY, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [each["rule"] for each in found["findings"]] == ["unmarked"]
    assert found["findings"][0]["count"] == found["pairs"]
