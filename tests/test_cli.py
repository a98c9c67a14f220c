"""The command line's contract: what goes in, what comes out, and with which exit code."""

import gzip
import io
import json
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from farthing import cli, demo
from farthing.meters import METERS

CALL = {
    "model": "jp.anthropic.claude-sonnet-4-6",
    "at": "2026-05-29T09:14:05Z",
    "usage": {"input": 412, "output": 650, "cache_read": 18_000, "cache_write_5m": 1_200},
}


@pytest.fixture
def farthing(capsys, monkeypatch, tmp_path):
    """farthing("bill", "--json", stdin=...) -> (exit code, stdout, stderr), away from this machine's own files."""
    for name in ("FARTHING_LEDGER", "CLAUDE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def run(*words, stdin: bytes | None = b""):
        monkeypatch.setattr(sys, "stdin", stdin if stdin is None else io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


def rate_lines(farthing, *calls):
    lines = (
        b"\n".join(call if isinstance(call, bytes) else json.dumps(call).encode() for call in calls) + b"\n"
    )
    code, out, _ = farthing("rate", "--json", stdin=lines)
    return code, [json.loads(line) for line in out.splitlines()]


# --- rate ------------------------------------------------------------------------------------------


def test_rate_gives_the_exact_price_and_its_lines(farthing):
    code, (answer,) = rate_lines(farthing, CALL)
    regional = dict(zip(METERS, ("3.3", "16.5", "0.33", "4.125", "6.6"), strict=True))
    assert code == 0
    assert answer["cost_usd"] == "0.0229746"
    assert answer["picodollars"] == 22_974_600_000
    assert answer["card"] == "bedrock/claude-sonnet-4-6/regional/on_demand@2026-03-13"
    assert answer["assumed"] == []
    assert set(answer["lines"]) == set(METERS)
    for meter, line in answer["lines"].items():
        assert line["usd_per_mtok"] == regional[meter]
        assert Decimal(line["usd"]) == line["tokens"] * Decimal(regional[meter]) / 1_000_000


def test_one_line_out_for_each_line_in_and_in_order(farthing):
    calls = [
        CALL,
        b"",
        b"not json",
        {**CALL, "model": "claude-sonnet-9-9"},
        {**CALL, "usage": {"input": -1}},
        CALL,
    ]
    code, answers = rate_lines(farthing, *calls)
    assert code == 2
    assert [next(iter(answer)) for answer in answers] == [
        "cost_usd", "rejected", "rejected", "unpriced", "rejected", "cost_usd",
    ]  # fmt: skip
    assert "claude-sonnet-" in answers[3]["unpriced"].split("nearest")[1]


def test_an_unpriced_line_alone_is_no_bad_input(farthing):
    code, (answer,) = rate_lines(farthing, {**CALL, "at": "2026-01-01"})
    assert code == 0
    assert "before 2026-02-17" in answer["unpriced"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"at": None}, "`at`"),
        ({"at": "yesterday"}, "`at`"),
        ({"at": "9999-12-31T00:00:00Z"}, "year ahead"),
        ({"at": 1_760_000_000}, "`at`"),
        ({"model": ""}, "`model`"),
        ({"model": 4}, "`model`"),
        ({"usage": None}, "`usage`"),
        ({"usage": {}}, "usage"),
        ({"usage": {"input": 1.5}}, "whole"),
        ({"usage": {"input": True}}, "whole"),
        ({"usage": {"tokens": 5}}, "usage"),
        ({"platform": "azure"}, "platform"),
        ({"mode": "turbo"}, "mode"),
        ({"region": "mars-north-1"}, "region"),
    ],
)
def test_rate_rejects(farthing, change, says):
    code, (answer,) = rate_lines(farthing, {**CALL, **change})
    assert code == 2
    assert says in answer["rejected"]


def test_a_date_in_year_one_is_before_every_launch(farthing):
    _, (answer,) = rate_lines(farthing, {**CALL, "at": "0001-01-01T00:00:00Z"})
    assert "no price before" in answer["unpriced"]


def test_what_is_no_text_is_not_taken_for_absent(farthing):
    modes: list[object] = [[], {}, 0, False, None, ""]
    code, answers = rate_lines(farthing, *({**CALL, "mode": mode} for mode in modes))
    assert code == 2
    assert ["rejected" in answer for answer in answers] == [True] * 4 + [False] * 2


def test_any_number_of_tokens_is_exact(farthing):
    _, (answer,) = rate_lines(farthing, {**CALL, "usage": {"input": 2**70}})
    assert answer["picodollars"] == 2**70 * 3_300_000


def test_iterations_are_rated_at_their_own_models(farthing):
    usage = {
        "input_tokens": 180,
        "output_tokens": 8,
        "iterations": [
            {"type": "message", "input_tokens": 100, "output_tokens": 10},
            {
                "type": "advisor_message",
                "model": "claude-opus-4-8",
                "input_tokens": 2_000,
                "output_tokens": 20,
            },
        ],
    }
    call = {"model": "claude-sonnet-5", "at": "2026-09-01", "usage": usage}
    _, (answer,) = rate_lines(farthing, call)
    sonnet, opus = (100 * 2 + 10 * 10), (2_000 * 5 + 20 * 25)
    assert answer["picodollars"] == (sonnet + opus) * 1_000_000
    assert answer["lines"]["input"]["tokens"] == 2_100
    assert answer["lines"]["input"]["usd_per_mtok"] is None  # two rates
    assert len(answer["parts"]) == 2


def test_one_call_by_flags_and_why(farthing):
    counts = ("--input", 412, "--output", 650, "--cache-read", 18_000, "--cache-write-5m", 1_200)
    code, out, _ = farthing("rate", CALL["model"], "--at", CALL["at"], *counts, "--explain")
    assert code == 0
    assert "exactly $0.0229746" in out
    for said in ("factors", "1.1 regional", "source", "2026-11-22", "confidence"):
        assert said in out
    code, out, _ = farthing("rate", "claude-sonnet-9-9", "--input", 1)
    assert code == 1
    assert out.startswith("unpriced")


def test_rate_takes_a_profile_map_and_assumptions(farthing, tmp_path):
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"
    at = ("--at", "2026-06-01", "--input", 1_000_000)
    assert "--profiles" in farthing("rate", arn, *at)[1]
    mapping = tmp_path / "profiles.json"
    mapping.write_text(json.dumps({arn: "global.anthropic.claude-sonnet-4-6"}))
    assert "exactly $3)" in farthing("rate", arn, *at, "--profiles", mapping)[1]
    bare = ("rate", "claude-sonnet-4-6", "--platform", "bedrock", *at)
    assert "assumed: endpoint" in farthing(*bare)[1]
    settled = farthing(*bare, "--assume", "endpoint=global")[1]
    assert "exactly $3)" in settled
    assert "assumed" not in settled


# --- import and reports -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    demo.write_logs(folder, calls=600, seed=3)
    return folder


def imported(farthing, *words):
    code, out, err = farthing("import", *words, "--json")
    return code, json.loads(out), err


def test_import_twice_adds_nothing(farthing, logs, tmp_path):
    ledger = ("--ledger", tmp_path / "ledger")
    code, first, _ = imported(farthing, logs, *ledger)
    assert code == 0
    assert set(first) == {
        "files",
        "skipped",
        "read",
        "imported",
        "superseded",
        "duplicates",
        "rejected",
        "unpriced",
    }
    assert first["read"] == first["imported"] == 600
    assert first["skipped"] >= 3  # permission checks and offloaded bodies
    before = farthing("by", "model", *ledger, "--json")[1]
    code, second, _ = imported(farthing, logs, *ledger)
    assert (code, second["imported"], second["read"], second["duplicates"]) == (0, 0, 600, 600)
    assert farthing("by", "model", *ledger, "--json")[1] == before


def test_reports_agree_with_each_other(farthing, logs, tmp_path):
    ledger = ("--ledger", tmp_path / "ledger")
    imported(farthing, logs, *ledger)
    bill = json.loads(farthing("bill", *ledger, "--json")[1])
    total = Decimal(bill["footer"]["usd"])
    assert total > 0
    *steps, last = (Decimal(step["usd"]) for step in bill["waterfall"])
    assert sum(steps) == last == total
    for keys in (
        "model",
        "model,endpoint",
        "account,region",
        "tag:team",
        "meter",
        "day,principal",
        "routing,mode",
    ):
        table = json.loads(farthing("by", keys, *ledger, "--json")[1])
        assert sum(Decimal(row["usd"] or 0) for row in table["rows"]) == total, keys
        for row in table["rows"]:
            assert set(keys.split(",")) | {"calls", "tokens", "usd"} <= set(row)
    footer = bill["footer"]
    assert footer["read"] == footer["priced"] + footer["unpriced"] + footer["rejected"] == 600
    assert footer["unpriced"] == sum(footer["unpriced_reasons"].values())


def test_what_ccusage_users_type(farthing, logs, tmp_path):
    ledger = ("--ledger", tmp_path / "ledger")
    imported(farthing, logs, *ledger)
    for words in (
        ("daily", "--since", "20261005", "--until", "20261010", "--breakdown"),
        ("monthly", "--json", "--timezone", "Asia/Tokyo"),
        ("weekly", "-j"),
        ("session", "-j"),
        ("daily", "--mode", "calculate", "--offline", "--order", "desc", "--json"),
    ):
        assert farthing(*words, *ledger)[0] == 0, words
    days = [row["day"] for row in json.loads(farthing("daily", "--order", "desc", "-j", *ledger)[1])["rows"]]
    assert days == sorted(days, reverse=True)


def test_a_closed_question_is_bad_input(farthing, logs, tmp_path):
    ledger = ("--ledger", tmp_path / "ledger")
    imported(farthing, logs, *ledger)
    for words in (
        ("by", "bogus"),
        ("by", "tag:"),
        ("daily", "--since", "soon"),
        ("daily", "--tz", "Mars/Base"),
        ("bill", "--where", "colour=red"),
        ("bill", "--assume", "luck=good"),
        ("bill", "--profiles", tmp_path / "none.json"),
        ("bil",),
    ):
        code, out, err = farthing(*words, *(() if words == ("bil",) else ledger))
        assert code == 2, words
        assert out == ""
        assert len(err.strip().splitlines()) == 1, err


def test_bad_files_are_one_line_each_and_good_rows_stay(farthing, logs, tmp_path):
    good = next(path for path in sorted(logs.rglob("*.json.gz")) if "data" not in path.parts)
    lines = gzip.decompress(good.read_bytes()).splitlines(keepends=True)
    mixed = tmp_path / "mixed.json"
    mixed.write_bytes(b"".join([*lines, b'{"schemaType": "ModelInvocationLog", \n', b"\x00\x00\n"]))
    code, done, err = imported(farthing, mixed, "--ledger", tmp_path / "ledger")
    assert code == 2
    assert (done["imported"], done["rejected"]) == (len(lines), 2)
    assert f"{mixed}:{len(lines) + 1}:" in err
    table = json.loads(farthing("bill", "--ledger", tmp_path / "ledger", "--json")[1])
    assert table["footer"]["rejected"] == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        b"hello\nworld\n",
        b'[{"schemaType": "ModelInvocationLog"}]',
    ],
)
def test_a_named_file_that_is_no_log(farthing, tmp_path, content):
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    code, done, err = imported(farthing, path, "--ledger", tmp_path / "ledger")
    assert code == 2
    assert done["imported"] == 0
    assert len(err.strip().splitlines()) == 1
    assert str(path) in err


def test_other_bad_input_of_import(farthing, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    ledger = ("--ledger", tmp_path / "ledger")
    for words in ((), (tmp_path / "nowhere",), (empty,), (tmp_path / "*.none",)):
        code, _, err = farthing("import", *words, *ledger)
        assert code == 2, words
        assert len(err.strip().splitlines()) == 1, err
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "farthing.json").write_text('{"format": 99}')
    code, _, err = farthing("bill", "--ledger", tmp_path / "later")
    assert code == 2
    assert "format 99" in err


def test_import_from_stdin(farthing, logs, tmp_path):
    good = next(path for path in sorted(logs.rglob("*.json.gz")) if "data" not in path.parts)
    ledger = ("--ledger", tmp_path / "ledger")
    code, out, _ = farthing("import", "-", *ledger, "--json", stdin=good.read_bytes())
    done = json.loads(out)
    assert code == 0
    assert done["imported"] == done["read"] > 0


def test_a_closed_standard_input_is_told(farthing, tmp_path):
    """`<&-` leaves None."""
    for words in (("rate", "--json"), ("import", "-", "--ledger", tmp_path / "ledger")):
        code, _, err = farthing(*words, stdin=None)
        assert code == 2
        assert "standard input is closed" in err


# --- alone ----------------------------------------------------------------------------------------------


def test_alone_without_transcripts_it_says_what_to_do(farthing):
    code, out, _ = farthing()
    assert code == 0
    assert "farthing demo" in out


def test_alone_it_prices_this_machines_transcripts(farthing, tmp_path):
    folder = tmp_path / "home" / ".claude" / "projects" / "-home-me-app"
    folder.mkdir(parents=True)
    usage = {"input_tokens": 10, "output_tokens": 100, "cache_read_input_tokens": 50_000}
    message = {"id": "msg_1", "model": "claude-opus-4-6", "role": "assistant", "usage": usage}
    record = {
        "type": "assistant", "timestamp": "2026-05-01T10:00:00.000Z", "sessionId": "s1", "requestId": "req_1",
        "cwd": "/home/me/app", "message": message,
    }  # fmt: skip
    (folder / "s1.jsonl").write_text(json.dumps(record) + "\n")
    code, out, _ = farthing()
    expected = (10 * 5 + 100 * 25 + 50_000 * Decimal("0.5")) / 1_000_000
    assert code == 0
    assert "list value, not billed" in out
    assert f"${expected:.2f}" in out
    assert farthing("daily", "--json")[0] == 0
