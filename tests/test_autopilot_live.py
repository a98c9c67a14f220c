"""Policies live: cache points that pay, sessions that stay where their cache is, and a guard that believes the bill."""

import json
import logging
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import farthing
from farthing.config import Config, Residency
from farthing.emulator._prompt import prompt_of
from farthing.gateway._autopilot_crew import NO_HOUR
from farthing.meters import Vector
from farthing.policy import draw, load, undo
from tests.piloted import ADAPTIVE, HEAD, MODEL, cloud, entry, turn, words

SYSTEM = words(9_000, "system")
FIVE_MINUTES, HOUR = 301, 3_601
MARK = re.compile(rb',"cache_control":\{"type":"ephemeral"(,"ttl":"1h")?\}')


@pytest.fixture
def made(tmp_path):
    """Makes a cloud with a policy."""
    return lambda policy=ADAPTIVE, **how: cloud(tmp_path, policy, **how)


def talk(sky, turns, *, wait_s=40, system=SYSTEM, name="", **who):
    """A conversation that grows by a question and an answer each time."""
    said, sent = [], []
    for k in range(turns):
        said.append(words(300, f"{name} question {k}"))
        sent.append(sky.send(turn(*said, system=system), wait_s=wait_s, **who))
        said.append(words(500, f"{name} answer {k}"))
    return sent


def settle_files():
    """Wait for what the guard does beside the calls."""
    for thread in threading.enumerate():
        if thread.name == "farthing-guard":
            thread.join(10)


# --- cache points ----------------------------------------------------------------------------------------------------


def test_a_conversation_is_cached_once_it_is_seen_to_go_on(made):
    first, *others = talk(made(), 6)
    assert first.marks == []
    assert "no cache point pays here" in first.said
    assert others[0].billed.cache_read == 0
    for sent in others[1:]:
        assert sent.billed.input == 0
        assert sent.billed.cache_read > 10_000
        assert "tokens read" in sent.said


def test_cache_points_are_all_that_is_put_in(made):
    said = turn(*[words(400, f"b{k}") for k in range(7)], system=SYSTEM)
    sky = made()
    for _ in range(4):
        sent = sky.send(said, wait_s=20)
        assert MARK.sub(b"", sent.body.replace(b', "cache_control"', b',"cache_control"')) == said


def test_what_is_sent_once_costs_what_it_costs_without_a_cache(made):
    sky = made()
    for k in range(60):
        sky.send(turn(words(3_000, f"only {k}"), system=words(900, f"mine {k}")), wait_s=7)
    assert sky.total.cached == 0


def test_the_cache_points_of_a_client_are_the_clients(made):
    sky = made()
    said = [
        turn(*[words(2_000, f"{n} {k}") for k in range(3)], system=SYSTEM, marks={2: "1h", 0: "1h"})
        for n in "ab"
    ]
    for body in [*said, *said]:
        sent = sky.send(body, wait_s=30)
        assert sent.body is body  # byte for byte
        assert "the client places cache points of its own" in sent.said


def test_below_the_minimum_nothing_is_marked(made):
    sky = made()
    for _ in range(5):
        assert sky.send(turn(words(900), system=""), wait_s=10).marks == []


def test_a_shadow_says_what_it_would_do_and_does_nothing(made):
    sent = talk(made(ADAPTIVE.replace("cache_policy", 'state = "shadow"\ncache_policy')), 5)
    assert all(each.marks == [] for each in sent)
    assert all(each.decisions[0].shadow for each in sent)
    assert "about 10" in sent[3].said
    assert "tokens read" in sent[3].said  # it goes by what it would have written


def test_lifetimes_follow_the_pauses(made):
    """Turns that come every four minutes live for five; those that come every twenty live for an hour."""
    often, seldom = made(), made()
    assert {mark for sent in talk(seldom, 14, wait_s=1_200)[-5:] for mark in sent.marks} == {"1h"}
    one_shots = [often.send(turn(words(4_000, f"o{k}"), system=SYSTEM), wait_s=2) for k in range(400)]
    assert one_shots[-1].billed.cache_read == 9_000
    assert one_shots[-1].billed.input == 4_000  # what is behind the system prompt is never read again


blocks = st.lists(st.integers(1, 1_500), min_size=1, max_size=9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(blocks, st.booleans(), st.integers(1, 2_000)), min_size=1, max_size=12))
def test_whatever_comes_the_service_takes_it_and_the_prompt_is_the_same(tmp_path_factory, calls):
    sky = cloud(tmp_path_factory.mktemp("walk"), ADAPTIVE)
    for sizes, systems, wait_s in calls:
        body = turn(
            *[words(size, str(at)) for at, size in enumerate(sizes)], system=SYSTEM if systems else ""
        )
        sent = sky.send(body, wait_s=wait_s)  # the emulator refuses a fifth cache point, and 1h behind 5m
        before, after = (
            prompt_of(json.loads(each), marked=True, automatic=False) for each in (body, sent.body)
        )
        assert [block.data for block in before.blocks] == [block.data for block in after.blocks]


# --- the client's own, for another time ------------------------------------------------------------------------------


def test_ttl_changes_the_time_and_nothing_else(made):
    sky = made(HEAD + entry("ttl", 'ttl = "1h"'))
    said = [words(2_000, "a"), words(3_000, "b"), words(500, "c")]
    body = turn(*said, system=SYSTEM, marks={0: "", 2: "5m"})
    sent = sky.send(body)
    assert sent.marks == ["1h", "1h"]
    bare = re.compile(rb',? ?"ttl": ?"(1h|5m)"')
    assert bare.sub(b"", sent.body) == bare.sub(b"", body)
    assert sky.send(body, wait_s=3_000).billed.cache_read == 14_500


def test_an_hour_that_is_billed_as_five_minutes_is_not_asked_for_again(made, caplog):
    sky = made(HEAD + entry("ttl", 'ttl = "1h"'), hour_as_five=True)
    sent = [
        sky.send(turn(words(2_000, f"t{k}"), system=SYSTEM, marks={0: "5m"}), wait_s=20) for k in range(4)
    ]
    assert [each.marks for each in sent] == [["1h"], ["1h"], ["5m"], ["5m"]]
    assert "is billed as five minutes" in sent[2].said
    assert [alarm.kind for alarm in sky.live.autopilots.alarms] == ["downgraded"]
    assert "billed for five minutes" in caplog.text


def test_models_without_an_hour_are_those_without_a_rate_for_it():
    listed = json.loads((Path(farthing.__file__).parent / "emulator/rates.json").read_text())["models"]
    cached = [model for model in listed if "cache_read" in str(model)]
    without = {model["id"] for model in cached if "cache_write_1h" not in str(model)}
    assert without | {"claude-3-5-sonnet-v2"} == NO_HOUR  # which is listed without rates of a cache


def test_no_hour_is_asked_of_a_model_that_has_none(made):
    sky = made(HEAD + entry("ttl", 'ttl = "1h"') + entry("cache", 'markers = [{at = "end", ttl = "1h"}]'))
    old = "eu.anthropic.claude-3-7-sonnet-20250219-v1:0"
    assert sky.send(turn(words(3_000)), model=old).marks == ["5m"]
    assert sky.send(turn(words(3_000), marks={0: "5m"}), model=old).marks == ["5m"]
    assert {mark for sent in talk(made(), 8, model=old) for mark in sent.marks} == {"5m"}


def test_a_pilot_plans_for_five_minutes_where_an_hour_is_not_to_be_had(made):
    sky = made(hour_as_five=True)
    sent = talk(sky, 8)
    assert "1h" in sent[1].marks
    assert {mark for each in sent[-3:] for mark in each.marks} == {"5m"}
    assert sent[-1].billed.cache_read > 10_000


@pytest.mark.parametrize(("wait_s", "ttl"), [(60, "5m"), (400, "1h"), (1_800, "1h"), (4_000, "")])
def test_single_questions_are_cached_up_to_their_stem_by_its_pauses(made, wait_s, ttl):
    """What is read again is the system prompt, by whoever asks next. Nobody waits for a next turn."""
    sky = made()
    sent = [sky.send(turn(words(200, f"ticket {k}"), system=SYSTEM), wait_s=wait_s) for k in range(20)]
    assert sent[-1].marks == ([ttl] if ttl else [])
    assert (sky.total.cache_write_5m + sky.total.cache_write_1h) == (9_000 if ttl else 0)
    assert sent[-1].billed.cache_read == (9_000 if ttl else 0)


def test_pauses_that_change_change_the_lifetime(made):
    sky = made()
    waits = [20] * 10 + [900] * 12
    sent = [
        sky.send(turn(words(200, f"{n}"), system=SYSTEM), wait_s=wait_s) for n, wait_s in enumerate(waits)
    ][-1]
    assert sent.marks == ["1h"]
    assert sent.billed.cache_read == 9_000


def test_a_document_that_many_ask_about_is_read_with_its_stem(made):
    sky, read = made(), 0
    for k in range(8):
        body = json.loads(turn("", system=SYSTEM))
        texts = [words(3_000, "the document"), words(100, f"question {k}")]
        body["messages"][0]["content"] = [{"type": "text", "text": each} for each in texts]
        read = sky.send(json.dumps(body).encode(), wait_s=30).billed.cache_read
    assert read == 12_000


# --- the guard -------------------------------------------------------------------------------------------------------


def test_a_cache_that_is_never_read_is_given_up_within_minutes(made, caplog):
    sky = made(reads=False)
    file = sky.live.policy
    sent = talk(sky, 40, wait_s=10)
    settle_files()
    alarm = next(each for each in sky.live.autopilots.alarms if each.kind == "reverted")
    assert (alarm.at_us - sent[1].call.at_us) < 10 * 60 * 1_000_000
    assert sent[-1].marks == []
    assert load(file).entries[0].state == "off"
    assert load(file).by == "the cache guard"
    assert any("the cache guard took it back" in each.said for each in sent)  # in the outbox, too
    assert "the cache guard took it back" in " ".join(
        decision.reason for each in sent for decision in each.call.intent.decisions
    )
    assert "reverted: support/cache" in caplog.text


def test_cache_points_that_the_service_ignores_are_given_up(made):
    sky = made(ignores=True)
    sent = talk(sky, 40, wait_s=10)
    settle_files()
    assert sky.total.cached == 0
    assert sum(bool(each.marks) for each in sent) == 10
    assert "tokens were read or written where" in sky.live.autopilots.alarms[0].says


def test_a_file_that_cannot_be_written_does_not_keep_the_guard_from_it(made):
    sky = made(reads=False)
    (sky.live.policy.parent / "farthing-policy.history").write_text("in the way")
    sent = talk(sky, 40, wait_s=10)
    settle_files()
    assert sent[-1].marks == []
    assert "refused: the cache guard took it back" in sent[-1].said
    # who writes it anew means it
    sky.live.policy.write_text(ADAPTIVE.replace("Ada", "Bea"))
    assert "guard" not in sky.send(turn("hello")).said


def test_cache_points_that_cost_more_than_they_save_are_taken_back(made):
    sky = made(HEAD + entry("cache", 'markers = [{at = "end"}]'))
    sent = [sky.send(turn(words(4_000, f"once {k}")), wait_s=30) for k in range(60)]
    assert sent[0].marks == ["5m"]
    assert sent[-1].marks == []
    assert [each.kind for each in sky.live.autopilots.alarms] == ["reverted"]


def test_a_cache_that_works_is_let_alone(made):
    sky = made()
    for n in range(8):
        talk(sky, 12, name=f"n{n}", wait_s=25)
    assert not sky.live.autopilots.alarms
    assert load(sky.live.policy).entries[0].state == "on"


# --- a broken cache --------------------------------------------------------------------------------------------------

WATCHED = HEAD + entry("ttl", 'state = "shadow"\nttl = "1h"')  # looks on, and changes nothing


def test_the_block_that_breaks_a_cache_is_named(made):
    sky = made(WATCHED)
    for k in range(12):
        body = json.loads(turn(words(300, f"q{k}"), system=SYSTEM, marks={0: "5m"}))
        body["system"].insert(0, {"type": "text", "text": f"It is {k} o'clock."})
        sky.send(json.dumps(body).encode(), wait_s=30)
    (alarm,) = sky.live.autopilots.alarms
    assert alarm.kind == "broken"
    assert alarm.says.startswith("system[0] changed in ")
    assert "an hour" in alarm.says
    # each call writes 9,000 tokens and more that it could have read, two a minute
    lost = 9_300 * 3_795_000  # picodollars: 4.125 - 0.33 a million
    assert alarm.picos == pytest.approx(120 * lost, rel=0.3)


def test_a_block_changed_in_the_middle_of_a_conversation_is_named(made):
    sky = made(WATCHED)
    for k in range(16):
        said = [words(400, f"m{n}") for n in range(9 + 2 * k)]
        said[2] = words(400, f"rewritten {k}")
        sky.send(turn(*said, system=SYSTEM, marks={len(said) - 1: "5m"}), wait_s=30, session="s")
    assert any("messages[2].content[0] changed" in alarm.says for alarm in sky.live.autopilots.alarms)


def test_agents_of_one_session_break_nothing(made):
    sky = made(WATCHED)
    said: dict[str, list[str]] = {name: [] for name in ("main", "search", "title")}
    for k in range(10):
        for at, (name, blocks) in enumerate(said.items()):
            blocks += [words(300, f"{name} {k}"), words(300, f"{name} {k} answer")]
            system = words(5_000 + 2_000 * at, name)
            sky.send(turn(*blocks[:-1], system=system, marks={2 * k: "5m"}), wait_s=15, session="one")
    assert not sky.live.autopilots.alarms


def test_conversations_that_begin_and_end_break_nothing(made):
    sky = made(WATCHED)
    for n in range(12):
        said = []
        for k in range(6):
            said += [words(300, f"{n} {k}"), words(300, f"{n} {k} answer")]
            sky.send(turn(*said[:-1], system=SYSTEM, marks={2 * k: "5m"}), wait_s=20, session=f"s{n}")
    assert not sky.live.autopilots.alarms


def test_reads_that_stop_are_told_though_no_block_changed(made):
    sky = made(WATCHED)
    said = turn(words(2_000, "q"), system=SYSTEM, marks={0: "5m"})
    for _ in range(60):
        sky.send(said, wait_s=30)
    assert not sky.live.autopilots.alarms
    sky.reads = False
    for _ in range(30):
        sky.send(said, wait_s=30)
    (alarm,) = sky.live.autopilots.alarms
    assert "tokens were read from the cache where" in alarm.says
    assert "no block of the prompts changed" in alarm.says
    assert alarm.picos > 0


def test_pauses_that_grow_longer_than_the_cache_lives_are_told(made):
    sky = made(WATCHED)
    said = turn(words(2_000, "q"), system=SYSTEM, marks={0: "5m"})
    for _ in range(60):
        sky.send(said, wait_s=30)
    for _ in range(5):
        for n in range(4):
            sky.send(turn(words(2_000, f"q{n}"), system=words(9_000, f"other {n}"), marks={0: "5m"}))
        sky.clock.now_us += 301_000_000
    (alarm,) = sky.live.autopilots.alarms
    assert re.match(r"\d+ % of prompts is read from the cache, 7\d % before: no block", alarm.says)


# --- endpoint and model ----------------------------------------------------------------------------------------------

GLOBAL = entry("endpoint", 'endpoint = "global"')
HAIKU = entry("model", 'model = "claude-sonnet-4-6"\nuse = "claude-haiku-4-5"\nverdict = "v.json"')


@pytest.mark.parametrize(
    ("lever", "called"),
    [
        (GLOBAL, "global.anthropic.claude-sonnet-4-6"),
        (HAIKU, "eu.anthropic.claude-haiku-4-5-20251001-v1:0"),
        (GLOBAL + HAIKU, "global.anthropic.claude-haiku-4-5-20251001-v1:0"),
    ],
)
def test_a_session_moves_when_its_cache_has_expired(made, lever, called):
    sky = made(HEAD)
    said = turn(words(2_000, "q"), system=SYSTEM, marks={0: "5m"})
    sky.send(said, session="old")
    sky.live.policy.write_text(HEAD + lever)
    stays = sky.send(said, session="old", wait_s=60)
    assert stays.model == MODEL
    assert "its session has 11,000 tokens cached at claude-sonnet-4-6 regional" in stays.said
    assert "$0." in stays.said
    assert sky.send(said, session="new").model == called  # nothing to lose
    for wait_s in (FIVE_MINUTES, 30, 30):  # and then it stays there
        assert sky.send(said, session="old", wait_s=wait_s).model == called


def test_an_hour_is_waited_for_as_an_hour(made):
    sky = made(HEAD)
    said = turn(words(2_000, "q"), system=SYSTEM, marks={0: "1h"})
    sky.send(said, session="s")
    sky.live.policy.write_text(HEAD + GLOBAL)
    assert sky.send(said, session="s", wait_s=FIVE_MINUTES).model == MODEL
    assert sky.send(said, session="s", wait_s=HOUR).model.startswith("global.")


@pytest.mark.parametrize(
    ("rule", "who", "leaves"),
    [
        (Residency(("geo:eu",)), {}, False),
        (Residency(("geo:eu", "global")), {}, True),
        (Residency(("geo:eu",), teams=("legal",)), {"team": "search"}, True),
        (Residency(("geo:eu",), teams=("legal",)), {"team": "legal"}, False),
        (Residency(("geo:eu",), teams=("legal",)), {}, False),  # nobody knows whose it is: it stays
        (Residency(("in_region:eu-*",), accounts=("4711*",)), {"account": "471100000000"}, False),
        (Residency(("geo:eu",), since="2026-12-01"), {}, True),
    ],
)
def test_who_may_not_leave_stays(made, rule, who, leaves):
    sky = made(HEAD + GLOBAL)
    sky.live.config = Config(residency=(rule,))
    sent = sky.send(turn("hello"), **who)
    assert sent.model.startswith("global.") == leaves
    assert ("refused: residency keeps it to" in sent.said) != leaves


def test_the_verdict_is_in_the_reason(made):
    sent = made(HEAD + HAIKU).send(turn("hello"))
    assert "calls eu.anthropic.claude-haiku-4-5-20251001-v1:0 by the verdict v.json" in sent.said


def test_a_model_in_shadow_is_priced_beside_the_one_that_is_called(made):
    sky = made(HEAD + HAIKU.replace("use =", 'state = "shadow"\nuse ='))
    sent = sky.send(turn(words(2_000)))
    assert sent.model == MODEL
    assert sent.decisions[0].shadow
    ((name, called, other),) = sky.live.autopilots.shadows
    assert name == "support/claude-sonnet-4-6/model"
    assert called == 2_000 * 3_300_000 + 20 * 16_500_000
    assert other == 2_000 * 1_100_000 + 20 * 5_500_000


def test_a_throttled_endpoint_is_left_for_the_one_that_was_asked_for(made):
    sky = made(HEAD + GLOBAL)
    assert sky.send(turn("hello"), status=429).model.startswith("global.")
    back = sky.send(turn("hello"))
    assert back.model == MODEL
    assert "the global endpoint throttles" in back.said
    assert sky.send(turn("hello"), wait_s=61).model.startswith("global.")


def test_what_the_other_cache_reads_is_told(made):
    sky = made(HEAD + GLOBAL.replace("endpoint =", "share = 50\nendpoint =", 1))
    said = turn(words(2_000, "q"), system=SYSTEM, marks={0: "5m"})
    sent = [sky.send(said, key=f"k{n % 10}", wait_s=20) for n in range(200)]
    models = {each.model for each in sent}
    assert len(models) == 2
    told = next(each.said for each in reversed(sent) if each.model != MODEL)
    assert re.search(r"; \d+(\.\d)? % of prompts is read from the cache there, \d+(\.\d)? % here", told)


@pytest.mark.parametrize(("routed", "state"), [(True, "off"), (False, "on")])
def test_an_endpoint_whose_cache_loses_more_than_its_rates_save_is_taken_back(made, routed, state):
    """Half of the keys go to the world, where calls may land in regions that have no cache of theirs."""
    sky = made(HEAD + GLOBAL.replace("endpoint =", "share = 50\nendpoint =", 1))
    (canary,) = load(sky.live.policy).entries
    said = turn(words(2_000, "q"), system=SYSTEM, marks={0: "5m"})
    for n in range(600):
        key = f"k{n % 40}"
        sky.reads = not routed or draw(canary, key) >= 50
        sky.send(said, key=key, wait_s=20)
    settle_files()
    assert load(sky.live.policy).entries[0].state == state
    if routed:
        assert re.search(r"a token costs [\d.]+ % more there", load(sky.live.policy).what)
        assert sky.send(turn("hello"), key="k0").model == sky.send(turn("hello"), key="k1").model == MODEL


# --- the file --------------------------------------------------------------------------------------------------------


def test_what_is_undone_is_over_with_the_next_call(made):
    sky = made(HEAD + GLOBAL)
    assert sky.send(turn("hello")).model.startswith("global.")
    undo(sky.live.policy, "endpoint", by="Ada", now=datetime.now(UTC))
    assert sky.send(turn("hello")).model == MODEL


@pytest.mark.parametrize(
    "half", ["[[entries]\nworkload", "\x00", '[[entries]]\nworkload = "support"\nlever = "endpo']
)
def test_half_a_file_is_not_applied_and_that_is_said_once(made, half, caplog):
    sky = made(HEAD + GLOBAL)
    sky.send(turn("hello"))
    sky.live.policy.write_text(half)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert sky.send(turn("hello")).model.startswith("global.")
    assert (
        len([record for record in caplog.records if "what was in force before stays so" in record.message])
        == 1
    )
    assert str(sky.live.policy) in sky.live.fault
    sky.live.policy.write_text(HEAD)
    assert sky.send(turn("hello")).model == MODEL
    assert sky.live.fault == ""


def test_a_clock_that_steps_does_no_harm(made):
    sky = made()
    said = turn(words(2_000, "q"), system=SYSTEM)
    sent = [sky.send(said, wait_s=wait_s) for wait_s in (30, 30, -7_200, 30, 30, 90_000, 30, 30)]
    assert sent[-1].billed.cache_read == 11_000


# --- whatever is sent ------------------------------------------------------------------------------------------------

text = st.integers(1, 2_500).map(lambda tokens: {"type": "text", "text": words(tokens, str(tokens))})
used = st.just({"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "here"}})
told = st.integers(1, 900).map(
    lambda n: {"type": "tool_result", "tool_use_id": "t1", "content": words(n, "r")}
)
thought = st.just({"type": "thinking", "thinking": "hm", "signature": "s"})
tool = st.integers(1, 5_000).map(
    lambda n: {"name": "look", "description": words(n), "input_schema": {"type": "object"}}
)
parts = st.one_of(text, used, told, thought)
bodies = st.fixed_dictionaries(
    {"messages": st.lists(
        st.fixed_dictionaries({
            "role": st.sampled_from(["user", "assistant"]),
            "content": st.one_of(st.just("hello"), st.lists(parts, min_size=1, max_size=4)),
        }), min_size=1, max_size=6)},
    optional={"system": st.one_of(st.just("be brief"), st.lists(text, min_size=1, max_size=3)),
              "tools": st.lists(tool, min_size=1, max_size=3)},
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(bodies, min_size=1, max_size=3), st.integers(2, 5))
def test_tools_thoughts_and_plain_texts_are_taken_as_they_come(tmp_path_factory, said, times):
    """Requests that grow, and come again: the emulator refuses what the service would."""
    sky = cloud(tmp_path_factory.mktemp("walk"), ADAPTIVE)
    for _ in range(times):
        messages: list[object] = []
        for each in said:
            messages += each["messages"]
            body = json.dumps({"max_tokens": 9, **each, "messages": messages}).encode()
            sent = sky.send(body, wait_s=30)
            before, after = (
                prompt_of(json.loads(one), marked=True, automatic=False) for one in (body, sent.body)
            )
            assert [block.data for block in before.blocks] == [block.data for block in after.blocks]
            assert len(after.marks) <= 4


def test_a_call_that_was_throttled_and_made_again_is_learned_from(made):
    sky = made()
    again = made()
    for each in (sky, again):
        each.attempts = 2 if each is again else 1
    assert [sent.billed for sent in talk(again, 8)] == [sent.billed for sent in talk(sky, 8)]


def test_a_lever_that_is_always_refused_is_given_up(made):
    """Under hooks, where nobody sends the same again."""
    sky = made(HEAD + GLOBAL)
    sent = [sky.send(turn("hello"), status=403) for _ in range(5)]
    assert [each.model == MODEL for each in sent] == [False, False, False, True, True]
    assert "the service refuses what it changes" in sent[-1].said


def test_refusals_of_requests_that_are_wrong_are_not_the_levers(made):
    sky = made(HEAD + GLOBAL)
    sky.send(turn("hello"))
    assert [sky.send(turn("hello"), status=400).model == MODEL for _ in range(9)] == [False] * 9


def test_one_request_that_is_refused_as_changed_does_not_end_a_lever_that_works(made):
    """The gateway sends it as it came, and that is taken. Three in a row, and it is the lever."""
    sky = made(HEAD + GLOBAL)

    def slip():
        sent = sky.send(turn("too long for it"), status=400)
        sent.applied.flight.suspected().landed(Vector(5), split=True)
        return sent.model

    def moves():
        return sky.send(turn("hello")).model != MODEL

    assert moves()
    assert [slip() != MODEL, moves(), slip() != MODEL, slip() != MODEL, moves()] == [True] * 5
    assert [slip() != MODEL for _ in range(3)] == [True] * 3
    assert not moves()


def test_threads_may_send_at_once(made):
    sky = made()
    faults: list[BaseException] = []

    def agent(name: str) -> None:
        try:
            talk(sky, 12, wait_s=3, name=name, session=name)
        except BaseException as error:  # noqa: BLE001
            faults.append(error)

    threads = [threading.Thread(target=agent, args=(f"agent {n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert sky.total.cache_read > sky.total.prompt // 2
