"""Reading traces: every format to the prefix access log, nothing lost in silence, no text kept."""

import base64
import gzip
import json
import pickle

import numpy as np
import pytest

from farthing.cache import faults, radix
from farthing.outbox import prefix_hashes
from farthing.traces import Call, Source, TraceError, formats, read_traces, rows
from farthing.traces._log import Gather

KEY = b"a key"
SECOND = 1_000_000


def source(text, path="trace.jsonl", beside=None):
    data = text if isinstance(text, bytes) else text.encode()
    lines = ((number, line) for number, line in enumerate(data.split(b"\n"), 1))
    return Source(path, data[:65_536], lines, (beside or {}).get)


def lines(*records):
    return "\n".join(json.dumps(record) for record in records)


def read(*records, name="", key=KEY, beside=None):
    return read_traces([source(lines(*records), beside=beside)], key, name)


def paths(log):
    """The nodes of each request with their sizes, and what is plain behind them; chains made one."""
    trace = radix(log.trace)
    assert faults(trace) == faults(log.trace) == []
    return [
        (
            [(node, int(trace.sizes[node])) for node in trace.nodes[begin:end].tolist()],
            int(plain),
        )
        for begin, end, plain in zip(trace.starts, trace.starts[1:], trace.plain, strict=False)
    ]


def sizes(log):
    return [([size for _, size in path], plain) for path, plain in paths(log)]


# --- mooncake ------------------------------------------------------------------------------------------------------


def asked(at, tokens, *hashes, output=7):
    return {"timestamp": at, "input_length": tokens, "output_length": output, "hash_ids": list(hashes)}


def test_mooncake_blocks_are_shared_by_all_and_the_last_is_not_full():
    log = read(asked(0, 1_100, 1, 2, 3), asked(2_500, 1_024, 1, 9), asked(3_000, 40, 4))
    assert (log.format, log.read, log.trace.requests, log.dated) == ("mooncake", 3, 3, False)
    assert sizes(log) == [([512, 512], 76), ([512, 512], 0), ([], 40)]
    (first, _), (second, _), _ = paths(log)
    assert first[0] == second[0]  # the shared block
    assert log.trace.at_us.tolist() == [0, 2_500_000, 3_000_000]
    assert log.trace.prompt.tolist() == [1_100, 1_024, 40]
    assert log.trace.output.tolist() == [7, 7, 7]


def test_read_is_used_and_left_out():
    log = read(
        asked(0, 1_024, 1, 2),
        asked(1, 800),
        {"timestamp": 2, "input_length": -3, "output_length": 0, "hash_ids": [1]},
    )
    assert log.trace.requests == 1
    assert log.left == {"no hashes": 1, "unreadable": 1}
    assert log.read == 3
    assert [(line, "input_length" in why) for _, line, why in log.rejects] == [(3, True)]


def test_hashes_of_blocks_alone_are_chained():
    """Block 5 stands behind 1 and behind 2, so it is no prefix: the prefixes are (1, 5) and (2, 5)."""
    log = read(asked(0, 1_024, 1, 5), asked(1, 1_024, 2, 5), asked(2, 1_024, 1, 5))
    assert log.mended == {"hashes are not of prefixes: chained": 3}
    first, second, third = (path for path, _ in paths(log))
    assert first == third != second
    assert not {node for node, _ in first} & {node for node, _ in second}


def test_a_block_that_comes_twice_in_a_prompt_is_chained():
    log = read(asked(0, 1_536, 1, 2, 1), asked(1, 512, 1))
    assert log.mended == {"hashes are not of prefixes: chained": 2}
    assert sizes(log) == [([512, 1_024], 0), ([512], 0)]


def test_clocks_that_run_back_are_sorted_and_counted():
    log = read(asked(5_000, 512, 1), asked(1_000, 512, 2), asked(3_000, 512, 1))
    assert log.trace.at_us.tolist() == [1_000_000, 3_000_000, 5_000_000]
    assert log.mended == {"clocks run back: sorted": 1}
    (one,), (two,), (three,) = (path for path, _ in paths(log))
    assert two == three != one


@pytest.mark.parametrize("wide", [2**62, 2**80])
def test_hashes_may_be_any_numbers(wide):
    log = read(asked(0, 1_024, wide, wide + 1), asked(1, 1_024, wide, 3))
    assert sizes(log) == [([512, 512], 0), ([512, 512], 0)]
    assert not log.mended


# --- sessions of kv-cache-tester -----------------------------------------------------------------------------------


def session(*requests, name="trace_1", **more):
    head = {"id": name, "models": ["m"], "block_size": 64, "hash_id_scope": "local"}
    return head | {"tool_tokens": 100, "system_tokens": 60, "requests": list(requests)} | more


def turn(at, tokens, *hashes, model="m", stop="tool_use"):
    return {
        "t": at,
        "type": "n",
        "model": model,
        "in": tokens,
        "out": 5,
        "hash_ids": list(hashes),
        "stop": stop,
    }


def test_kv_trace_sessions_and_models_share_nothing():
    log = read(
        session(turn(0, 200, 1, 2, 3), turn(9.5, 192, 1, 2, 3, model="n")),
        session(turn(0, 200, 1, 2, 3, stop="end_turn"), name="trace_2"),
    )
    assert log.format == "kv_trace"
    assert sorted(log.trace.namespaces) == ["trace_1 m", "trace_1 n", "trace_2 m"]
    assert (
        len({node for path, _ in paths(log) for node, _ in path}) == 6
    )  # each with its system prompt and the rest
    assert log.models == {"m": 2, "n": 1}
    assert [log.trace.kind_names[kind] for kind in log.trace.kinds] == ["tool_use", "end_turn", "tool_use"]
    assert log.trace.at_us.tolist() == [0, 0, 9_500_000]


def test_kv_trace_knows_where_the_system_prompt_ends():
    trace = radix(read(session(turn(0, 256, 1, 2, 3, 4), turn(1, 64, 1))).trace)
    ends = [
        int(trace.sizes[trace.nodes[begin : begin + system]].sum())
        for begin, system in zip(trace.starts, trace.system, strict=False)
    ]
    assert ends == [128, 64]  # 160 tokens are two whole blocks; a shorter prompt has fewer


def test_kv_trace_leaves_out_subagents_and_what_has_no_hashes():
    agent = {"t": 3, "type": "subagent", "agent_id": "a", "requests": [turn(0, 64, 7), turn(1, 64, 7)]}
    log = read(session(turn(0, 64, 1), agent, {"t": 4, "type": "n", "in": 100, "out": 1}))
    assert log.left == {"of a subagent": 2, "no hashes": 1}
    assert (log.read, log.trace.requests) == (4, 1)


def test_kv_trace_printed_over_lines_is_one_session():
    text = json.dumps(session(turn(0, 64, 1), turn(2, 128, 1, 2)), indent=1)
    log = read_traces([source(text)], KEY)
    assert (log.trace.requests, log.rejects) == (2, [])


# --- prompts with text ---------------------------------------------------------------------------------------------


def agent(at, prompt, output="done", **more):
    return {"timestamp": at, "input": prompt, "output": output, "session_id": "s"} | more


def test_agent_trace_shares_what_was_said_before():
    first, more = "You are an agent.\n\nDo the thing.", "\n\n<output>\nit is done\n</output>"
    log = read(agent(1_760_428_258_635_837, first), agent(1_760_428_261_149_286, first + more))
    assert (log.format, log.assumed, log.dated) == ("agent_trace", ("tokens",), True)
    (one, _), (two, _) = paths(log)
    assert two[: len(one)] == one
    assert len(two) == len(one) + 1
    assert log.trace.prompt.tolist() == [-(-len(first) // 4), -(-len(first + more) // 4)]
    assert log.trace.at_us[0] == 1_760_428_258_635_837


def test_agent_trace_takes_counts_where_there_are_some():
    messages = [{"role": "system", "content": "s" * 300}, {"role": "user", "content": "u" * 100}]
    log = read(agent("2026-03-01T00:00:00Z", messages, usage={"input_tokens": 500, "output_tokens": 9}))
    assert log.trace.prompt.tolist() == [500]
    assert log.trace.output.tolist() == [9]
    assert log.trace.system.tolist() == [1]


@pytest.mark.parametrize(
    "at", [1_760_428_258, 1_760_428_258_000, 1_760_428_258_000_000, 1_760_428_258_000_000_000]
)
def test_times_may_be_in_any_unit(at):
    assert read(agent(at, "hello")).trace.at_us.tolist() == [1_760_428_258_000_000]


def test_no_text_is_kept():
    secret = "the quick brown fox of the prompt"
    for record in (agent(1, secret + "\n\n" + secret), logged(invoke(secret, system=secret))):
        log = read(record)
        assert log.trace.requests == 1
        assert b"quick" not in pickle.dumps(log)


def test_hashes_are_keyed():
    """Without the key nobody can test a guess: the hash is not that of the text, and changes with the key."""
    blocks = [b"user\0hello"]
    assert prefix_hashes(b"one", blocks) != prefix_hashes(b"two", blocks)
    gather = Gather()
    calls = list(formats()["agent_trace"].read(source(lines(agent(1, "hello"))), b"one"))
    gather.add("a", calls)
    assert [call.hashes for call in calls if isinstance(call, Call)] == [prefix_hashes(b"one", [b"hello"])]


# --- invocation logs -----------------------------------------------------------------------------------------------


def invoke(*said, system="be brief", tools=(), mark=None, **more):
    """A body of InvokeModel: turns one after the other; the cache point is behind the last."""
    content = [[{"type": "text", "text": text}] for text in said]
    if mark:
        content[-1][-1]["cache_control"] = {"type": "ephemeral", **({"ttl": mark} if mark == "1h" else {})}
    roles = ["user", "assistant"] * len(said)
    messages = [{"role": role, "content": blocks} for role, blocks in zip(roles, content, strict=False)]
    return {
        "anthropic_version": "bedrock-2023-05-31",
        "system": system,
        "tools": list(tools),
        "messages": messages,
    } | more


def logged(body, tokens=(1_000, 0, 0), output=50, at="2026-10-01T12:00:00Z", **more):
    plain, cached, written = tokens
    return {
        "schemaType": "ModelInvocationLog",
        "timestamp": at,
        "accountId": "111122223333",
        "region": "us-east-1",
        "requestId": f"request-{at}-{tokens}",
        "operation": "InvokeModel",
        "modelId": "global.anthropic.claude-sonnet-4-6",
        "input": {
            "inputBodyJson": body,
            "inputTokenCount": plain,
            "cacheReadInputTokenCount": cached,
            "cacheWriteInputTokenCount": written,
        },
        "output": {"outputTokenCount": output},
    } | more


def test_bedrock_log_shares_the_bill_out_among_blocks():
    log = read(
        logged(invoke("a" * 400), (1_000, 0, 0)),
        logged(invoke("a" * 400, "b" * 200, "c" * 400), (1_600, 0, 0), at="2026-10-01T12:01:00Z"),
    )
    assert log.trace.prompt.tolist() == [1_000, 1_600]
    assert log.trace.plain.tolist() == [0, 0]
    (one, _), (two, _) = paths(log)
    assert (
        sum(size for _, size in one) == 1_000
    )  # what was billed for the first prompt, in the second one too
    assert two[: len(one)] == one
    assert log.billed == (2_600, 100, 0, 0, 0)
    assert log.assumed == ("tokens of blocks",)


def test_bedrock_log_knows_the_depth_of_a_cache_point_by_what_was_billed():
    log = read(logged(invoke("a" * 400, "b" * 10, mark="1h"), (30, 900, 100)), name="bedrock_log")
    # The point is behind the last block, so its prefix is what was read and written; the rest is no block's.
    assert int(log.trace.sizes.sum()) == 1_000
    assert log.trace.plain.tolist() == [30]


def test_bedrock_log_moving_a_cache_point_changes_no_prefix():
    marked = logged(invoke("hello", "world", mark="5m"))
    bare = logged(invoke("hello", "world"), at="2026-10-01T12:01:00Z")
    (one, _), (two, _) = paths(read(marked, bare))
    assert one == two


def test_bedrock_log_reads_converse_as_well():
    body = {
        "system": [{"text": "be brief"}, {"cachePoint": {"type": "default", "ttl": "1h"}}],
        "toolConfig": {"tools": [{"toolSpec": {"name": "look"}}, {"cachePoint": {"type": "default"}}]},
        "messages": [{"role": "user", "content": [{"text": "hello"}, {"cachePoint": {"type": "default"}}]}],
    }
    calls = list(formats()["bedrock_log"].read(source(lines(logged(body, operation="Converse"))), KEY))
    assert [(call.system, call.marks, len(call.hashes)) for call in calls if isinstance(call, Call)] == [
        (2, ((1, "5m"), (2, "1h"), (3, "5m")), 3)
    ]


@pytest.mark.parametrize("change", [{"thinking": {"type": "enabled"}}, {"tool_choice": {"type": "any"}}])
def test_bedrock_log_settings_change_messages_and_not_the_system_prompt(change):
    one = logged(invoke("hello"))
    two = logged(invoke("hello", **change), at="2026-10-01T12:01:00Z")
    (one, _), (two, _) = paths(read(one, two))
    assert one[0] == two[0]
    assert one[1] != two[1]


def test_bedrock_log_namespaces_are_of_an_account_and_a_model():
    body = invoke("hello")
    log = read(
        logged(body),
        logged(body, at="2026-10-01T12:01:00Z", accountId="444455556666"),
        logged(body, at="2026-10-01T12:02:00Z", modelId="global.anthropic.claude-opus-4-6-v1"),
    )
    assert len({node for path, _ in paths(log) for node, _ in path}) == 6  # each with its system prompt


def test_bedrock_log_body_beside_the_log():
    record = logged(None)
    record["input"] |= {"inputBodyS3Path": "s3://logs/AWSLogs/x/data/big_input.json.gz"}
    there = json.dumps(invoke("hello")).encode()
    log = read(record, beside={"data/big_input.json.gz": there})
    assert log.trace.requests == 1
    assert read(record, logged(invoke("hello"))).left == {
        "its body is in S3, and not beside the log (data/)": 1
    }


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (None, "no body: logging of text is off"),
        ('{"messages": [{"role": "user", "con', "its body is cut short"),
        ({"inputText": "hello"}, "no messages in the body"),
        ([1, 2], "its body is no object"),
    ],
)
def test_bedrock_log_bodies_that_tell_nothing_are_counted(body, why):
    log = read(logged(body), logged(invoke("hello"), at="2026-10-01T12:01:00Z"))
    assert log.left == {why: 1}
    assert log.trace.requests == 1


def test_bedrock_log_other_models_and_errors_are_left_out():
    log = read(
        logged(invoke("hello"), modelId="amazon.nova-lite-v1:0"),
        logged(invoke("hello"), errorCode="ThrottlingException"),
        logged(invoke("hello"), (0, 0, 0)),
    )
    assert log.left == {
        "not a Claude model": 1,
        "not billed (an error, or a count of tokens)": 1,
        "no token counts": 1,
    }


def test_bedrock_log_inside_cloudwatch_events():
    inner = [
        {"message": json.dumps(logged(invoke(word), at=f"2026-10-01T12:00:0{i}Z"))}
        for i, word in enumerate("ab")
    ]
    assert read({"messageType": "DATA_MESSAGE", "logEvents": inner}, name="bedrock_log").trace.requests == 2


def test_bedrock_log_after_a_time_stamp_and_with_times_inside():
    record = logged(invoke("at 2026-10-01T12:00:00Z {so}"))
    plain, spaced = json.dumps(record, separators=(",", ":")), json.dumps(record, separators=(", ", ": "))
    for line in (plain, spaced, f"2026-10-01T12:00:01Z {plain}"):
        assert read_traces([source(line)], KEY, "bedrock_log").trace.requests == 1


def test_a_block_of_an_odd_type_costs_no_more_than_its_record():
    odd = invoke("a")
    odd["messages"][0]["content"].append({"type": ["text"], "text": "b"})
    log = read(logged(odd), logged(invoke("b"), at="2026-10-01T12:01:00Z"), name="bedrock_log")
    assert log.trace.requests == 2


def test_a_picture_weighs_what_it_costs_and_not_what_its_file_does():
    picture = {
        "type": "image",
        "source": {"type": "base64", "data": base64.b64encode(b"p" * 900_000).decode()},
    }
    bodies = [invoke(letter * 6_000, system="") for letter in "xy"]
    for body in bodies:
        body["messages"][0]["content"].insert(0, dict(picture))
    one, two = (logged(body, (3_000, 0, 0), at=f"2026-10-01T12:0{i}:00Z") for i, body in enumerate(bodies))
    (first, _), (second, _) = paths(read(one, two))
    assert first[0] == second[0]
    assert 1_400 < first[0][1] < 1_600  # half of the prompt, and not all but a little


# --- Claude Code ---------------------------------------------------------------------------------------------------


def said(at, plain, cached, written, number, **more):
    usage = {"input_tokens": plain, "cache_read_input_tokens": cached, "cache_creation_input_tokens": written}
    usage |= {"output_tokens": 10, "cache_creation": {"ephemeral_5m_input_tokens": written}}
    message = {"id": f"msg_{number}", "model": "claude-opus-4-6", "usage": usage}
    record = {
        "type": "assistant",
        "sessionId": "s",
        "timestamp": f"2026-02-11T10:{at:02}:00Z",
        "requestId": f"r{number}",
    }
    return record | {"message": message} | more


def test_claude_code_contexts_grow():
    log = read(said(0, 3, 0, 10_000, 1), said(1, 3, 10_000, 2_000, 2), said(2, 3, 12_000, 500, 3))
    assert log.format == "claude_code"
    assert sizes(log) == [([10_003], 0), ([10_003, 2_000], 0), ([10_003, 2_000, 500], 0)]
    assert log.billed == (9, 30, 22_000, 12_500, 0)


def test_claude_code_after_a_compaction_only_what_was_read_is_shared():
    log = read(said(0, 3, 0, 50_000, 1), said(1, 3, 15_000, 4_000, 2), said(2, 3, 19_000, 1_000, 3))
    assert sizes(log) == [([15_000, 35_003], 0), ([15_000, 4_003], 0), ([15_000, 4_003, 1_000], 0)]


def test_claude_code_a_prefix_that_changed_is_not_shared():
    """A minute after 20,000 tokens were written, 8,000 of them are read: the prompt parts there from the one before."""
    log = read(said(0, 0, 0, 20_000, 1), said(1, 0, 8_000, 14_000, 2))
    assert sizes(log) == [([8_000, 12_000], 0), ([8_000, 14_000], 0)]


def test_claude_code_an_expired_cache_says_nothing_of_the_prefix():
    log = read(said(0, 0, 0, 20_000, 1), said(30, 0, 0, 21_000, 2))
    assert sizes(log) == [([20_000], 0), ([20_000, 1_000], 0)]


def test_claude_code_lines_of_one_call_count_once():
    first = said(0, 3, 0, 900, 1)
    again = said(1, 3, 0, 900, 1)
    again["message"]["usage"]["output_tokens"] = 80
    log = read_traces([source(lines(first, again), "a"), source(lines(first), "b")], KEY)
    assert log.trace.requests == 1
    assert log.trace.output.tolist() == [80]
    assert log.left == {"copies": 1}


def test_claude_code_subagents_are_apart_but_a_compaction_reads_the_session():
    log = read(
        said(0, 0, 0, 9_000, 1),
        said(1, 0, 0, 3_000, 2, isSidechain=True, agentId="a1"),
        said(2, 10, 9_000, 0, 3, isSidechain=True, agentId="acompact-1"),
    )
    assert sizes(log) == [([9_000], 0), ([3_000], 0), ([9_000, 10], 0)]
    assert len(log.trace.namespaces) == 2


# --- the outbox ----------------------------------------------------------------------------------------------------


def result(number, *blocks, **more):
    tokens = {"input": sum(block[1] for block in blocks)}
    record = {
        "kind": "result",
        "v": 1,
        "gateway_id": f"gw-{number}",
        "at": f"2026-03-02T09:30:0{number}Z",
        "model": "m",
    }
    return record | {"tokens": tokens, "prefixes": {"key_id": "k", "blocks": list(blocks)}} | more


def test_outbox_hashes():
    a, b, c = (letter * 32 for letter in "abc")
    log = read(
        result(1, [a, 1_000, "1h"], [b, 200]),
        result(2, [a, 1_000], [c, 50]),
        result(3, [a, 990], [c, 60], [b, 5]),
    )
    assert log.format == "outbox"
    assert [sum(size for size in path) + plain for path, plain in sizes(log)] == [1_200, 1_050, 1_055]
    assert all(path[0] == paths(log)[0][0][0] for path, _ in paths(log))


def test_outbox_lines_without_hashes_are_counted():
    bare = result(1)
    del bare["prefixes"]
    log = read(bare, result(2, ["a" * 32, 5]))
    assert log.left == {"no hashes": 1}


# --- all of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_shares_always_add_up(seed):
    """Whatever a log says of prompts that share blocks: no node is negative, and every prompt is what was billed."""
    chance = np.random.default_rng(seed)
    records = []
    for i in range(12):
        words = [f"{chance.integers(3)}" * int(chance.integers(1, 400)) for _ in range(chance.integers(1, 6))]
        counts = tuple(int(n) for n in chance.integers(0, 900, 3))
        records.append(
            logged(invoke(*words, mark="5m" if i % 2 else None), counts, at=f"2026-10-01T12:00:{i:02}Z")
        )
    log = read(*records)
    assert faults(log.trace) == []
    billed = [sum(v for k, v in record["input"].items() if k.endswith("Count")) for record in records]
    assert log.trace.prompt.tolist() == [tokens for tokens in billed if tokens]


def test_rows_are_the_log():
    table = rows(radix(read(asked(0, 1_100, 1, 2, 3), asked(2_500, 1_024, 1, 9)).trace))
    assert {name: table[name].to_pylist() for name in table.column_names} == {
        "namespace": [0, 0, 0, 0],
        "prefix": [0, 1, 0, 2],
        "tokens": [512, 512, 512, 512],
        "depth": [512, 1_024, 512, 1_024],
        "at_us": [0, 0, 2_500_000, 2_500_000],
    }


def test_torn_lines_and_other_files():
    good = lines(asked(0, 512, 1))
    log = read_traces([source(good + '\n{"timestamp": 1, "inp'), source("hello", "notes.txt")], KEY)
    assert [(path, line, why) for path, line, why in log.rejects] == [
        ("trace.jsonl", 2, "not JSON: the line is cut short")
    ]
    assert log.trace.requests == 1


@pytest.mark.parametrize(
    ("text", "name"), [("hello", ""), (lines(asked(0, 512, 1)), "kv_trace"), ("", "nonsense")]
)
def test_what_is_no_trace_is_said_in_one_line(text, name):
    with pytest.raises(TraceError, match=r"no (kv_trace )?trace"):
        read_traces([source(text)], KEY, name)


def test_each_format_knows_its_own_alone():
    samples = {
        "mooncake": lines(asked(0, 512, 1)),
        "kv_trace": lines(session(turn(0, 64, 1))),
        "agent_trace": lines(agent(1, "hello")),
        "bedrock_log": lines(logged(invoke("hello"))),
        "claude_code": lines(said(0, 1, 2, 3, 1)),
        "outbox": lines(result(1, ["a" * 32, 5])),
    }
    assert samples.keys() == formats().keys()
    for name, text in samples.items():
        assert [each for each, form in formats().items() if form.sniff(text.encode())] == [name]


def test_packed_is_read_as_it_is(tmp_path):
    from farthing.cli._opened import sources as _sources

    (tmp_path / "trace.jsonl.gz").write_bytes(gzip.compress(lines(asked(0, 512, 1)).encode()))
    found: list[str] = []
    assert read_traces(_sources(str(tmp_path), found), KEY).trace.requests == 1
    assert found == []
