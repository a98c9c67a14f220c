"""`farthing cache bound`: what it says of traces that can be reckoned by hand, and of files that it cannot read."""

import gzip
import json

import pytest

from farthing.cli import main

HEAD = {"block_size": 64, "hash_id_scope": "local", "tool_tokens": 64, "system_tokens": 0}


def asked(at, tokens, *hashes):
    return {"timestamp": at, "input_length": tokens, "output_length": 100, "hash_ids": list(hashes)}


@pytest.fixture
def bound(capsys):
    """Run it; the exit code, stdout and stderr. The answer as JSON unless told otherwise."""

    def run(path, *options, model="claude-sonnet-4-6", text=False):
        with pytest.raises(SystemExit) as exit_:
            main(["cache", "bound", str(path), "--model", model, *([] if text else ["--json"]), *options])
        out, err = capsys.readouterr()
        return exit_.value.code, out if text or not out else json.loads(out), err

    return run


@pytest.fixture
def trace(tmp_path):
    def write(*records, name="trace.jsonl"):
        path = tmp_path / name
        data = "".join(json.dumps(record) + "\n" for record in records).encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def test_three_prompts_by_hand(bound, trace):
    """2,048 tokens in common, sent at 0, 1 and 20 minutes; 100 tokens of output each, 52 that no block holds."""
    path = trace(*(asked(minute * 60_000, 2_100, 1, 2, 3, 4) for minute in (0, 1, 20)))
    code, answer, err = bound(path)
    assert (code, err) == (0, "")
    assert answer["requests"] == 3
    assert answer["input_tokens"] == 6_300
    apart = 3 * (52 * 3 + 100 * 15)  # millionths of a dollar
    assert {name: float(usd) * 1e6 for name, usd in answer["usd"].items()} == pytest.approx(
        {
            "none": apart + 3 * 2_048 * 3,
            "end_5m": apart + 2_048 * (3.75 + 0.3 + 3.75),
            "end_1h": apart + 2_048 * (6 + 0.3 + 0.3),
            "system_end_1h": apart + 2_048 * (6 + 0.3 + 0.3),
            "plan": apart + 2_048 * (6 + 0.3 + 0.3),
            "bound": apart + 2_048 * (6 + 0.3 + 0.3),
            "bound_with_pings": apart + 2_048 * (3.75 + 0.3 + 3 * 0.3 + 0.3),
            "best_online": float(answer["usd"]["best_online"]) * 1e6,
        }
    )
    assert answer["usd"]["none"] == "0.0234"
    assert answer["usd"]["best_online"] == answer["policies_usd"][answer["best_online_policy"]]
    assert answer["minimum_tokens"] == 1_024
    assert answer["read"] == 3


def test_regional_costs_a_tenth_more(bound, trace):
    path = trace(asked(0, 2_100, 1, 2, 3, 4), asked(5_000, 2_100, 1, 2, 3, 4))
    plain, dearer = (bound(path, "--endpoint", name)[1]["usd"] for name in ("global", "regional"))
    for name in plain:
        assert float(dearer[name]) == pytest.approx(1.1 * float(plain[name]))


def test_a_model_of_other_factors_and_another_minimum(bound, trace):
    path = trace(asked(0, 600, 1), asked(5_000, 600, 1))
    assert (
        bound(path)[1]["usd"]["bound"] == bound(path)[1]["usd"]["none"]
    )  # 512 tokens: too short for Sonnet 4.6
    _, answer, _ = bound(path, model="claude-opus-5-5")  # caches from 512, and reads at a twentieth
    assert answer["minimum_tokens"] == 512
    rates = {name: float(rate) for name, rate in answer["rates"][0].items()}
    assert rates["cache_read"] == pytest.approx(rates["input"] / 20)
    pair = 512 * (rates["cache_write_5m"] + rates["cache_read"]) + 2 * (
        88 * rates["input"] + 100 * rates["output"]
    )
    assert float(answer["usd"]["bound"]) * 1e6 == pytest.approx(pair)


def test_prompts_beyond_a_price_cliff_pay_their_own_rates(bound, trace):
    """Haiku 5.5 costs five times as much beyond 100,000 tokens of prompt, each request by its own."""
    short, long = [*range(1, 101)], [*range(1, 301)]
    path = trace(asked(0, 51_200, *short), asked(5_000, 153_600, *long))
    _, answer, _ = bound(path, model="claude-haiku-5-5")
    assert len(answer["rates"]) == 2
    none = 51_200 * 0.1 + 100 * 0.5 + 153_600 * 0.5 + 100 * 2.5
    assert float(answer["usd"]["none"]) * 1e6 == pytest.approx(none)
    written = 51_200 * 0.125 + 100 * 0.5 + 51_200 * 0.05 + 102_400 * 0.5 + 100 * 2.5
    assert float(answer["usd"]["bound"]) * 1e6 == pytest.approx(written)
    assert answer["usd"]["plan"] == answer["usd"]["bound"]


def test_days_have_their_prices(bound, trace):
    """Sonnet 5.5 reads at 0.20 dollars until 2026-10-07 and at 0.10 after; a dated trace pays what held then."""
    records = [
        {"timestamp": f"2026-10-{day}T00:00:0{i}Z", "input": "x" * 8_000, "output": "", "session_id": "s"}
        for day in ("01", "20")
        for i in range(2)
    ]
    _, answer, _ = bound(trace(*records), model="claude-sonnet-5-5")
    assert answer["priced_at"] == "request"
    assert {rates["cache_read"] for rates in answer["rates"]} == {"0.2", "0.1"}
    assert float(answer["usd"]["bound"]) * 1e6 == pytest.approx(2_000 * (2.5 + 0.2 + 2.5 + 0.1))
    _, then, _ = bound(trace(*records), "--at", "2026-10-02", model="claude-sonnet-5-5")
    assert float(then["usd"]["bound"]) * 1e6 == pytest.approx(2_000 * (2.5 + 0.2) * 2)


def test_requests_older_than_the_model_pay_what_holds_now(bound, trace):
    record = {"timestamp": "2025-10-14T00:00:00Z", "input": "x" * 8_000, "output": "", "session_id": "s"}
    _, answer, _ = bound(trace(record))
    assert answer["priced_as_of_day"] == 1
    assert answer["priced_at"] != "request"


def test_one_request(bound, trace):
    _, answer, _ = bound(trace(asked(0, 5_120, *range(10))))
    assert len({answer["usd"][name] for name in ("none", "bound", "plan", "bound_with_pings")}) == 1
    assert float(answer["usd"]["end_5m"]) > float(answer["usd"]["none"])  # what was written is never read


def test_packed_folder_format_guessed(bound, trace):
    requests = [{"t": i, "type": "n", "in": 1_300, "out": 1, "hash_ids": list(range(20))} for i in range(3)]
    path = trace(HEAD | {"id": "a", "requests": requests}, name="a.jsonl.gz")
    trace(HEAD | {"id": "b", "requests": requests}, name="b.json")
    (path.parent / "notes.txt").write_text("no trace")
    code, answer, _ = bound(path.parent)
    assert (code, answer["format"], answer["requests"], answer["other_files"]) == (0, "kv_trace", 6, 1)
    assert answer["namespaces"] == 2


def test_a_table_for_people(bound, trace):
    path = trace(*(asked(at * 1_000, 2_100, 1, 2, 3, 4) for at in range(9)), asked(9_000, 5))
    code, out, _ = bound(path, text=True)
    assert code == 0
    assert "9 requests, 18,900 prompt tokens (mooncake)" in out
    assert "left out: 1 no hashes" in out
    row = next(line for line in out.splitlines() if "end of the prompt, 1h" in line).split()
    # None is 9 * (2,100 * 3 + 1,500), the bound 9 * (52 * 3 + 1,500) + 2,048 * (3.75 + 8 * 0.3); 1h writes at 6.
    assert row[-5:] == ["$0.03", "54.3", "%", "16.8", "%"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--format", "nonsense"), "no trace format 'nonsense'"),
        (("--format", "kv_trace"), "no kv_trace trace in 1 files"),
        (("--at", "yesterday"), "--at 'yesterday' is no day"),
        (("--platform", "anthropic", "--endpoint", "regional"), "--endpoint regional is one of Bedrock's"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(bound, trace, options, told):
    code, out, err = bound(trace(asked(0, 2_100, 1, 2, 3, 4)), *options)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


def test_unknown_models_and_missing_files(bound, trace, tmp_path):
    code, _, err = bound(trace(asked(0, 2_100, 1)), model="claude-sonnet-4-7")
    assert code == 2
    assert "claude-sonnet-4-6" in err
    code, _, err = bound(tmp_path / "gone.jsonl")
    assert code == 2
    assert "gone.jsonl" in err


def test_bad_lines_are_named_and_the_good_ones_count(bound, trace):
    path = trace(asked(0, 2_100, 1, 2, 3, 4), asked(5_000, 2_100, 1, 2, 3, 4))
    path.write_bytes(path.read_bytes() + b'{"timestamp": 9, "hash\n')
    code, answer, err = bound(path)
    assert (code, answer["requests"], answer["left_out"]) == (2, 2, {"unreadable": 1})
    assert err == f"farthing: {path}:3: not JSON: the line is cut short\n"


def test_a_file_that_was_cut_short(bound, trace):
    path = trace(*(asked(i, 2_100, i, i + 1) for i in range(5_000)), name="trace.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-2_000])
    code, answer, err = bound(path)
    assert code == 2
    assert 0 < answer["requests"] < 5_000
    assert "ends here, too early" in err


def test_nothing_usable(bound, trace):
    code, _, err = bound(trace(asked(0, 100)))
    assert code == 2
    assert "no request of it can be used: 1 no hashes" in err


@pytest.mark.parametrize("at", [-5, 1e300])
def test_a_time_that_is_none_is_named_with_its_line(bound, trace, at):
    good, bad = asked(0, 2_100, 1, 2, 3, 4), asked(at, 2_100, 1, 2, 3, 4)
    code, answer, err = bound(trace(good, bad))
    assert (code, answer["requests"]) == (2, 1)
    assert "trace.jsonl:2: Expected `float`" in err
    code, _, err = bound(trace(bad))
    assert code == 2
    assert "1 unreadable" in err
    assert "trace.jsonl:1: Expected `float`" in err


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", 10**25, 1e300])
def test_a_day_that_no_calendar_has_is_named_with_its_line(bound, trace, at):
    lines = [
        {"session_id": "a", "timestamp": t, "input": "hello", "output": "x"} for t in (at, 1_760_000_000)
    ]
    code, answer, err = bound(trace(*lines), "--format", "agent_trace")
    assert (code, answer["requests"]) == (2, 1)
    assert "trace.jsonl:1: " in err


def test_no_caching_is_advised_where_the_policy_would_lose(bound, trace):
    """Sent twice a minute apart, then never again: a second sighting is written for nothing."""
    _, answer, _ = bound(trace(*(asked(at * 1_000, 5_120, *range(10)) for at in (0, 60))))
    usd = {name: float(picos) for name, picos in (answer["usd"] | answer["policies_usd"]).items()}
    assert usd["adaptive"] > usd["none"]
    assert (answer["best_online_policy"], usd["best_online"]) == ("none", usd["none"])


def test_a_minimum_below_nothing(bound, trace):
    code, _, err = bound(trace(asked(0, 600, 1)), "--minimum=-1")
    assert (code, err) == (2, "farthing: --minimum -1 is no number of tokens\n")


def test_the_real_sessions(bound, shared):
    """Figures known from an earlier program: the policies, the bound and the plan, to the cent."""
    code, answer, _ = bound(shared / "data/claude_code_kv_traces/sessions.jsonl.gz", "--format", "kv_trace")
    usd = {name: round(float(picos), 2) for name, picos in answer["usd"].items()}
    assert (code, answer["requests"], answer["left_out"]) == (0, 9_523, {"of a subagent": 143})
    assert (usd["none"], usd["bound"], usd["bound_with_pings"]) == (3_363.48, 593.22, 569.08)
    assert (usd["end_5m"], usd["end_1h"], usd["system_end_1h"]) == (774.20, 688.47, 679.19)
    assert usd["bound"] <= usd["plan"] <= usd["bound"] * 1.001
    assert usd["best_online"] <= usd["bound"] * 1.14


def test_the_real_mooncake_trace(bound, shared):
    _, answer, _ = bound(shared / "data/mooncake")
    usd = {name: round(float(picos), 2) for name, picos in answer["usd"].items()}
    assert (answer["requests"], usd["none"], usd["end_5m"], usd["bound"]) == (3_993, 192.52, 139.78, 99.46)
    assert usd["best_online"] <= usd["bound"] * 1.28


@pytest.mark.parametrize(
    ("path", "form", "requests"),
    [("lmcache_agent_traces", "agent_trace", 402), ("claude_code", "claude_code", 918)],
)
def test_other_real_traces(bound, shared, path, form, requests):
    _, answer, _ = bound(shared / "data" / path, "--endpoint", "global")
    assert (answer["format"], answer["requests"]) == (form, requests)
    usd = {name: float(picos) for name, picos in answer["usd"].items()}
    assert usd["bound_with_pings"] <= usd["bound"] <= usd["plan"] <= 1.001 * usd["bound"]
    assert usd["plan"] <= usd["best_online"] <= usd["none"]
