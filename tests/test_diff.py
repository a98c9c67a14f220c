"""`farthing diff`: what a change of requests does to cost, as a table, a pull-request comment and an exit code."""

import json

import pytest

from farthing.cli import main
from tests.prompts import DAY, FIVE, MODEL, SENTENCE, body, converse, save, with_


def run(*argv):
    with pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in argv])
    return ended.value.code


@pytest.fixture
def diff(tmp_path, capsys):
    """diff(base, head, ...): the exit code and the answer; a dict of bodies is a folder."""

    def place(name, bodies):
        if not isinstance(bodies, dict):
            return save(tmp_path / f"{name}.jsonl", *bodies)
        (tmp_path / name).mkdir()
        for each, sent in bodies.items():
            save(tmp_path / name / each, sent)
        return tmp_path / name

    def check(base, head, *more):
        code = run(
            "diff", place("base", base), place("head", head), "--model", MODEL, "--at", DAY, "--json", *more
        )
        return code, json.loads(capsys.readouterr().out)

    return check


def test_the_same_requests_cost_the_same(diff):
    code, found = diff({"a.json": body()}, {"a.json": body()})
    assert code == 0
    assert found["base"] == found["head"]
    assert found["requests"][0]["changes"] == []


def test_a_breakpoint_pays(diff):
    """A hundred calls a minute apart: one write, then reads at a tenth; the question is always new."""
    code, found = diff({"a.json": body(mark=None)}, {"a.json": body()}, "--output", "200")
    assert code == 0
    head = found["requests"][0]["head"]
    tokens = head["tokens"]
    assert tokens["cache_read"] == 99 * tokens["cache_write_5m"]
    assert tokens["output"] == 100 * 200
    rates = {"input": 3_000_000, "output": 15_000_000, "cache_read": 300_000, "cache_write_5m": 3_750_000,
             "cache_write_1h": 6_000_000}  # fmt: skip
    picos = sum(rates[meter] * tokens[meter] for meter in rates)
    assert head["usd"] == f"{picos / 10**12:.12f}".rstrip("0")
    assert found["requests"][0]["changes"] == ["breakpoints: none, then system[0] (5m)"]
    assert found["base"]["cache_hit"] == 0


def test_a_clock_in_the_prompt_fails_the_build(diff):
    clock = body(system="Now 2026-11-22T10:11:12Z. " + SENTENCE * 60)
    code, found = diff({"a.json": body()}, {"a.json": clock})
    assert code == 1
    assert found["head"]["cache_hit"] == 0
    assert any("a time" in change for change in found["requests"][0]["changes"])
    assert "that times and ids in a system prompt change from call to call" in found["assumed"]


def test_a_longer_prompt_fails_only_above_the_limit(diff):
    longer = body(system=SENTENCE * 63)  # five in a hundred longer, all of it read from the cache
    assert diff({"a.json": body()}, {"a.json": longer}, "--fail-above", "10%")[0] == 0


def test_a_longer_prompt_fails_at_zero(diff):
    assert diff({"a.json": body()}, {"a.json": body(system=SENTENCE * 63)}, "--fail-above", "0")[0] == 1


def test_a_request_that_is_refused_fails_and_is_not_free(diff):
    bad = body()
    for each in (*bad["tools"], *bad["messages"][0]["content"]):
        each["cache_control"] = FIVE
    code, found = diff({"a.json": body(), "b.json": converse()}, {"a.json": bad, "b.json": converse()})
    assert code == 1
    assert found["requests"][0]["head"]["usd"] is None
    assert found["requests"][0]["head"]["unpriced"].startswith("refused: 5 breakpoints")


def test_requests_without_names_are_matched_by_order(diff):
    _, found = diff([body("a?"), body("b?")], [body("a?"), body("b?", mark=None)])
    assert [each["name"] for each in found["requests"]] == ["request 1", "request 2"]
    assert [bool(each["changes"]) for each in found["requests"]] == [False, True]


def test_what_came_and_went(diff):
    _, found = diff({"a.json": body(), "old.json": body()}, {"a.json": body(), "new.json": body()})
    assert {each["name"]: each["changes"] for each in found["requests"]} == {
        "a.json": [],
        "old.json": ["gone"],
        "new.json": ["new"],
    }


def record(sent, minute, answer=40):
    return {
        "modelId": MODEL, "timestamp": f"2026-11-22T10:{minute:02}:00Z", "requestId": f"r{minute}", "operation": "x",
        "input": {"inputBodyJson": sent, "inputTokenCount": 2_000}, "output": {"outputTokenCount": answer},
    }  # fmt: skip


def test_requests_with_times_are_replayed_as_they_were_sent(diff):
    """Two calls four minutes apart: a write and a read; ten minutes apart: two writes."""
    _, found = diff([record(body(), 0), record(body(), 4)], [record(body(), 0), record(body(), 10)])
    assert found["replayed"]
    assert found["base"]["tokens"]["cache_read"] > 0
    assert found["head"]["tokens"]["cache_read"] == 0
    assert found["head"]["tokens"]["output"] == 80
    assert found["assumed"] == []


def test_a_conversation_is_replayed_in_its_order(diff):
    """The second call goes on with the first, whose end was marked: it reads all that the first wrote."""

    def turn(count):
        found = body()
        found["messages"] = [
            {"role": ("user", "assistant")[at % 2], "content": [{"type": "text", "text": f"{at} {SENTENCE}"}]}
            for at in range(count)
        ]
        found["messages"][-1]["content"][0]["cache_control"] = FIVE
        return found

    _, found = diff([turn(1), turn(3)], [turn(1), turn(3)], "--gap", "400")
    assert found["base"]["tokens"]["cache_read"] == 0
    _, found = diff([turn(1), turn(3)], [turn(1), turn(3)])
    first, second = (each["base"]["tokens"] for each in found["requests"])
    assert second["cache_read"] == first["cache_write_5m"] > 1_500
    assert found["assumed"] == ["tokens (four bytes each)"]


def test_without_a_price_nothing_passes(tmp_path, capsys):
    place = save(tmp_path / "a.json", body())
    assert run("diff", place, place) == 2
    assert "nothing can be compared: no model is named: give --model" in capsys.readouterr().err


def test_another_model_is_another_price(diff):
    opus = {"a.json": with_(body(), model="global.anthropic.claude-opus-4-5-20251101-v1:0")}
    code, found = diff({"a.json": with_(body(), model=MODEL)}, opus)
    assert code == 1
    assert found["requests"][0]["changes"][0].startswith(
        f"model: {MODEL}, then global.anthropic.claude-opus-4-5"
    )


def test_prompt_files_stand_for_a_system_prompt(tmp_path, capsys):
    for name, text in (("old.md", SENTENCE * 60), ("new.md", SENTENCE * 120)):
        (tmp_path / name).write_text(text)
    assert run("diff", tmp_path / "old.md", tmp_path / "new.md", "--model", MODEL, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["head"]["tokens"]["cache_read"] > 1.9 * found["base"]["tokens"]["cache_read"]


def test_the_comment(tmp_path, capsys, diff):
    out = tmp_path / "comment.md"
    diff({"a|b.json": body(mark=None)}, {"a|b.json": body()}, "--markdown", out, "--calls-per-day", "1000")
    said = out.read_text()
    heading = "Cost per call $0.0048 → $0.0006 (-88.1 %), -$126.10 a month at 1,000 calls a day"
    assert said.startswith(f"<!-- farthing diff -->\n### {heading}\n")
    assert "| a\\|b.json |" in said
    assert "0.0 % → 9" in said
    assert "quick agent" not in said  # no text of a prompt


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--fail-above", "much"), "whole percents"),
        (("--at", "soon"), "is no day"),
        (("--gap", "-1"), "--gap"),
    ],
)
def test_bad_options_are_one_line(tmp_path, capsys, more, says):
    place = save(tmp_path / "a.json", body())
    assert run("diff", place, place, *more) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert run("diff", tmp_path / "no", save(tmp_path / "a.json", body()), "--model", MODEL) == 2
    assert "No such file" in capsys.readouterr().err


def test_calls_a_day_come_from_the_ledger(tmp_path, capsys, diff):
    log = save(tmp_path / "log.jsonl", *(record(None, minute) for minute in range(6)))
    assert run("import", log, "--ledger", tmp_path / "ledger") == 0
    capsys.readouterr()
    _, found = diff({"a.json": body()}, {"a.json": body()}, "--ledger", tmp_path / "ledger")
    assert found["calls_per_day"] == 6


# --- settings of Claude Code -----------------------------------------------------------------------------------------


def settings(tmp_path, name, **content):
    return save(tmp_path / name, content)


def session(*minutes):
    """A session whose context grows by its answers, a call at each of these minutes."""
    read, records = 0, []
    for at in minutes:
        written = 20_000 if not read else 2_000
        records.append(
            {
                "type": "assistant", "sessionId": "s", "requestId": f"r{at}", "uuid": f"u{at}",
                "timestamp": f"2026-11-22T10:{at:02}:00Z",
                "message": {
                    "id": f"m{at}", "model": "claude-sonnet-4-6", "role": "assistant", "content": [],
                    "usage": {
                        "input_tokens": 10, "output_tokens": 500, "cache_read_input_tokens": read,
                        "cache_creation_input_tokens": written,
                    },
                },
            }
        )  # fmt: skip
        read += written
    return records


def test_the_hour_pays_where_people_pause(tmp_path, capsys):
    """Calls eight minutes apart: five minutes' cache is gone each time, an hour's is there."""
    trace = save(tmp_path / "trace.jsonl", *session(0, 8, 16, 24, 32))
    old = settings(tmp_path, "a.json", model=MODEL)
    new = settings(tmp_path, "b.json", env={"ANTHROPIC_MODEL": MODEL, "ENABLE_PROMPT_CACHING_1H": "1"})
    assert run("diff", old, new, "--trace", trace, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["requests"][0]["changes"] == ["ENABLE_PROMPT_CACHING_1H: off, then on"]
    assert found["base"]["tokens"]["cache_read"] == 0
    assert found["head"]["tokens"]["cache_read"] > 80_000
    assert run("diff", new, old, "--trace", trace) == 1


def test_settings_want_a_model(tmp_path, capsys):
    trace = save(tmp_path / "trace.jsonl", *session(0, 1))
    bare = settings(tmp_path, "a.json", env={})
    assert run("diff", bare, bare, "--trace", trace) == 2
    assert "the settings name no model: give --model" in capsys.readouterr().err
    assert run("diff", bare, bare, "--trace", trace, "--model", MODEL) == 0


def test_settings_on_real_sessions(shared, tmp_path, capsys):
    """Mind the reference of the trace: $774.20 with five minutes, $688.47 with an hour."""
    trace = shared / "data/claude_code_kv_traces/sessions.jsonl.gz"
    if not trace.is_file():
        pytest.skip("no claude_code_kv_traces among the sample data")
    old = settings(tmp_path, "a.json", model=MODEL)
    new = settings(tmp_path, "b.json", model=MODEL, env={"ENABLE_PROMPT_CACHING_1H": "1"})
    assert run("diff", old, new, "--trace", trace, "--at", DAY, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (round(float(found["base"]["usd"]), 2), round(float(found["head"]["usd"]), 2)) == (774.20, 688.47)
