"""`farthing statusline`: the sum of `farthing session` on the same transcript, read on from where it was, at once."""

import io
import json
import os
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from farthing import cli
from farthing.api import import_paths
from farthing.cells import Question
from farthing.cli import _statusline, _statusline_slow
from farthing.ledger import Ledger
from farthing.money import usd
from farthing.reports import by

NOW = datetime(2026, 10, 14, 15, 30, tzinfo=UTC)  # a Wednesday
NOW_US = int(NOW.timestamp()) * 1_000_000
SESSION = "0f1e2d3c-0000-4000-8000-00000000abcd"
MODELS = ("claude-opus-4-8", "claude-sonnet-4-6", "claude-haiku-4-5-20251001", "claude-nobody-knows")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's folders, with one project's transcripts; no settings of farthing's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("CLAUDE_CONFIG_DIR", "FARTHING_BOOK", "FARTHING_CONFIG", "FARTHING_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / ".claude" / "projects" / "-home-ada-shop"
    folder.mkdir(parents=True)
    return SimpleNamespace(
        path=tmp_path, transcript=folder / f"{SESSION}.jsonl", agents=folder / SESSION / "subagents"
    )


def usage(random: Random) -> dict:
    short, long = random.choice([(0, 0), (random.randrange(9_000), 0), (0, random.randrange(9_000))])
    return {
        "input_tokens": random.randrange(5_000),
        "output_tokens": random.randrange(1, 3_000),
        "cache_read_input_tokens": random.choice([0, random.randrange(250_000)]),
        "cache_creation_input_tokens": short + long + random.choice([0, 0, 500]),
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "service_tier": "standard",
    }


def record(random: Random, number: int, at: datetime, side: bool = False) -> list[dict[str, Any]]:
    """The lines of one call: a line for each block of its answer, whose output grows; some of them odd."""
    block = usage(random)
    odd = random.random()
    if odd < 0.1:
        block["iterations"] = [usage(random), usage(random) | {"model": "claude-haiku-4-5"}]
    elif odd < 0.2:
        block["server_tool_use"] = {"web_search_requests": random.randrange(1, 4)}
    elif odd < 0.25:
        block |= {"speed": "fast", "inference_geo": "us"}
    elif odd < 0.3:
        block["inference_geo"] = "not_available"
    message: dict[str, Any] = {
        "id": f"msg_{random.choice(['bdrk_', '01'])}{number:08d}",
        "model": random.choices(MODELS, (6, 4, 2, 1))[0],
        "stop_reason": "refusal" if odd > 0.95 else "end_turn",
        "usage": block,
    }
    if odd > 0.95:
        block["output_tokens"] = 0
    line: dict[str, Any] = {
        "type": "assistant", "sessionId": SESSION, "cwd": "/home/ada/shop", "isSidechain": side,
        "requestId": f"req_{number:08d}", "timestamp": f"{at:%Y-%m-%dT%H:%M:%S.123Z}", "message": message,
        "uuid": f"{number}",
    }  # fmt: skip
    lines = [line]
    for _ in range(random.randrange(3)):
        last = lines[-1]["message"]
        grown = last["usage"] | {"output_tokens": last["usage"]["output_tokens"] + random.randrange(50)}
        lines.append(line | {"message": last | {"usage": grown}})
    random.shuffle(lines)
    return lines


def made(seed: int, calls: int = 60) -> tuple[list[bytes], list[bytes]]:
    """Lines of a session and of one of its subagents, whose calls stand in the session's progress records too."""
    random = Random(seed)
    start = NOW - timedelta(days=3)
    main: list[dict] = []
    side: list[dict] = []
    for number in range(calls):
        at = start + timedelta(hours=number * 72 / calls)
        lines = record(random, number, at, side=number % 5 == 0)
        if number % 5:
            main += lines
            main.append({"type": "user", "sessionId": SESSION, "message": {"content": 'of "usage", a word'}})
        else:
            side += lines
            inner = {"message": lines[0]["message"], "requestId": lines[0]["requestId"]}
            outer = {"type": "progress", "sessionId": SESSION, "timestamp": lines[0]["timestamp"]}
            main.append(outer | {"data": {"message": inner | {"timestamp": lines[0]["timestamp"]}}})
    bad = [b'{"type":"assistant","message":{"usage":{"input_tokens":-5}},"timestamp":"2026-10-13T10:00:00Z"}',
           b'{"type":"assistant","message":{"usage":{"input_tokens":5}}', b'"usage"', b"", b'\xff"usage"']  # fmt: skip
    texts = [json.dumps(line).encode() for line in main]
    texts[20:20] = bad
    return texts, [json.dumps(line).encode() for line in side]


def written(path: Path, lines: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))


def seen(home, now_us=NOW_US) -> dict:
    folder = _statusline.cache_folder()
    Path(folder).mkdir(parents=True, exist_ok=True)
    state = _statusline.of_transcript(str(home.transcript), folder, now_us)
    return _statusline.summed(state, {}, SESSION, now_us)


def reported(home, name="ledger") -> tuple[int, int]:
    """Picodollars and calls without a price, as `farthing session` has them."""
    ledger = Ledger(home.path / name)
    import_paths(ledger, [home.transcript.parent], now=NOW, workers=1)
    rows = by(ledger, Question(), ("session", "project")).rows
    return sum(row["usd"] or 0 for row in rows), sum(row["unpriced_calls"] for row in rows)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_is_the_sum_of_the_session_report(home, seed):
    """Though the transcript is read in pieces, with a line cut in the middle when it is looked at."""
    main, side = made(seed)
    random = Random(seed)
    third = len(main) // 3
    written(home.transcript, main[:third])
    seen(home)
    written(home.agents / "agent-1.jsonl", side)
    cut = random.randrange(1, len(main[third]))
    with home.transcript.open("ab") as file:
        file.write(main[third][:cut])
    seen(home)
    with home.transcript.open("ab") as file:
        file.write(main[third][cut:] + b"\n")
    written(home.transcript, main[third + 1 :])
    found = seen(home)
    assert (found["session"], found["unpriced_calls"] > 0) == (reported(home)[0], reported(home)[1] > 0)
    assert found["session"] > 0
    assert found["calls"] == 60


def test_it_is_the_sum_of_a_recorded_session(home, shared):
    """With two subagents and progress records; read in place."""
    folder = shared / "data/claude_code/marot_spotter/test/fixtures/transcripts"
    name = "ae4a77f8-aedd-4bc1-888f-c94edc91af04"
    if not (folder / name).is_dir():
        pytest.skip("no recorded session")
    ledger = Ledger(home.path / "ledger")
    import_paths(ledger, [folder / f"{name}.jsonl", folder / name], now=NOW, workers=1)
    expected = sum(row["usd"] for row in by(ledger, Question(), ("session",)).rows)
    home.transcript = folder / f"{name}.jsonl"
    assert seen(home)["session"] == expected > 0


def test_what_was_read_is_not_read_again(home, monkeypatch):
    main, _ = made(4)
    written(home.transcript, main)
    first = seen(home)
    monkeypatch.setattr(_statusline, "_call", lambda *_: pytest.fail("an old line was read"))
    assert seen(home) == first
    kept = "".join(path.read_text() for path in (home.path / "cache").rglob("*.json"))
    assert "a word" not in kept


def test_a_transcript_that_was_cut_or_replaced_is_read_anew(home):
    main, _ = made(5)
    written(home.transcript, main)
    seen(home)
    home.transcript.unlink()
    written(home.transcript, main[:25])
    assert seen(home)["session"] == reported(home)[0]


def test_other_prices_are_asked_anew(home, monkeypatch):
    main, _ = made(6)
    written(home.transcript, main)
    before = seen(home)["session"]
    dear = home.path / "dear.toml"
    head = '[[offers]]\nname = "Half"\nsigned = 2026-01-01\nstarts = 2026-01-01\n'
    dear.write_text(head + '[[offers.rates]]\npercent_off = "50"\n')
    monkeypatch.setenv("FARTHING_BOOK", str(dear))
    state = _statusline._book_state()
    seen(home)
    assert len(list((home.path / "cache").rglob("rates-*.json"))) == 2
    monkeypatch.delenv("FARTHING_BOOK")
    assert _statusline._book_state() != state
    assert seen(home)["session"] == before


@pytest.fixture
def line(home, monkeypatch, capsys):
    """line(told): what is printed at NOW; a refresh runs at once, in this process."""
    monkeypatch.setattr(time, "time_ns", lambda: NOW_US * 1000)
    monkeypatch.setattr(_statusline, "_begin_refresh", lambda: _statusline_slow.refresh(NOW))

    def run(told, **how):
        text = told if isinstance(told, bytes) else json.dumps(told).encode()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
        _statusline.say(**how)
        return capsys.readouterr().out.strip()

    return run


def test_today_and_the_week_are_of_all_sessions_and_as_fresh_as_this_one(home, line):
    """After the refresh this session goes on: its new calls are in all three sums."""
    told = {"session_id": SESSION, "transcript_path": str(home.transcript)}
    main, side = made(7)
    written(home.transcript, main[:150])
    written(home.agents / "agent-1.jsonl", side)
    other = json.dumps(record(Random(1), 999, NOW - timedelta(hours=2))[0] | {"sessionId": "another"})
    written(home.transcript.with_name("another.jsonl"), [other.encode()])
    assert "today" not in line(told)  # the refresh has begun
    written(home.transcript, main[150:])
    found = json.loads(line(told, json=True))
    ledger = Ledger(home.path / "all")
    import_paths(ledger, [home.transcript.parent], now=NOW, workers=1)
    days = {row["day"]: row["usd"] or 0 for row in by(ledger, Question(), ("day",)).rows}
    assert found["today_usd"] == usd(days["2026-10-14"])
    assert found["week_usd"] == usd(sum(cost for day, cost in days.items() if day >= "2026-10-12"))
    assert 0 < float(found["session_usd"]) < float(found["week_usd"]) + sum(days.values())


def test_the_budget_left_stands_where_there_is_one(home, line):
    main, _ = made(8)
    written(home.transcript, main)
    ledger = Ledger(home.path / "own")
    import_paths(ledger, [home.transcript.parent], now=NOW, workers=1)
    (home.path / "farthing.toml").write_text('ledger = "own"\n[[budgets]]\nname = "October"\nusd = 1000\n')
    told = {"session_id": SESSION, "transcript_path": str(home.transcript)}
    line(told)
    rows = by(ledger, Question(), ("model",)).rows
    spent = sum((row["usd"] or 0) - (row.get("entries_usd") or 0) for row in rows)  # budgets are of tokens
    left = 1000 * 10**12 - spent
    assert json.loads(line(told, json=True))["budget"]["spent_usd"] == usd(spent)
    assert f"${left / 1e12:.2f} left of October" in line(told)


def one(home, at, **block):
    """A session of one call on the direct API."""
    counts = {"input_tokens": 1_000, "output_tokens": 100} | block
    message = {"id": "msg_01x", "model": "claude-sonnet-4-6", "usage": counts}
    text = {"type": "assistant", "requestId": "r", "sessionId": SESSION, "message": message}
    written(home.transcript, [json.dumps(text | {"timestamp": f"{at:%Y-%m-%dT%H:%M:%SZ}"}).encode()])
    return {"session_id": SESSION, "transcript_path": str(home.transcript)}


@pytest.mark.parametrize(
    ("ago_s", "split", "says"),
    [
        (60, "ephemeral_5m_input_tokens", "cache 90 %, warm 4 min"),
        (270, "ephemeral_5m_input_tokens", "cache 90 %, warm 30 s"),
        (301, "ephemeral_5m_input_tokens", "cache 90 %, cold"),
        (301, "ephemeral_1h_input_tokens", "cache 90 %, warm 54 min"),
    ],
)
def test_the_cache_is_warm_for_as_long_as_its_entries_live(home, line, ago_s, split, says):
    writes = {"cache_creation_input_tokens": 1_000, "cache_creation": {split: 1_000}}
    told = one(home, NOW - timedelta(seconds=ago_s), cache_read_input_tokens=18_000, **writes)
    said = line(told)
    assert said.endswith(says)
    assert said.startswith("$0.0")
    assert " session (list value) · " in said


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (b"", "farthing: Claude Code told no session on stdin"),
        (b"[1]", "farthing: Claude Code told no session on stdin"),
        ({}, "farthing: no calls yet"),
        ({"transcript_path": 5, "cost": 7}, "farthing: no calls yet"),
        ({"transcript_path": "/nowhere/x.jsonl", "cost": {"total_cost_usd": 0.5}}, "Claude Code says $0.50"),
        ({"transcript_path": "/", "cost": {"total_cost_usd": "much"}}, "farthing: no"),
    ],
)
def test_whatever_is_wrong_is_one_short_line(line, told, says):
    said = line(told)
    assert says in said
    assert len(said.splitlines()) == 1


def test_a_cache_folder_that_cannot_be_written_is_one_short_line(home, line, monkeypatch):
    (home.path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home.path / "file"))
    assert line(one(home, NOW)).startswith("farthing: no cost just now (NotADirectoryError")


def processor_s(words: list[str], told: bytes) -> float:
    """The least that the whole process takes, of some runs: the wall's time depends on others."""
    took = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = subprocess.run(words, input=told, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert not said.stderr
    return min(took)


def test_the_program_takes_little_and_loads_nothing_heavy(home):
    """No more than a few times as much as Python that does nothing; and all that it loads is light."""
    told = json.dumps(one(home, datetime.now(UTC) - timedelta(seconds=5))).encode()
    folder = _statusline.cache_folder()
    Path(folder).mkdir(parents=True)
    current = {
        "v": 1,
        "day": [0, 2**60],
        "week_days": [0],
        "today": 0,
        "week": 0,
        "sessions": {},
        "took_s": 9_999,
    }
    _statusline.save(_statusline.totals_path(folder), current)  # so that no refresh is begun
    Path(_statusline.totals_path(folder) + ".asked").touch()
    words = [sys.executable, "-m", "farthing", "statusline"]
    assert subprocess.run(words, input=told, capture_output=True, check=True).stdout.startswith(b"$0.0")
    assert processor_s(words, told) < 6 * processor_s([sys.executable, "-c", "pass"], b"")
    loads = [sys.executable, "-X", "importtime", *words[1:]]
    loaded = subprocess.run(loads, input=told, capture_output=True, check=True).stderr.decode()
    names = {line.rpartition("|")[2].strip() for line in loaded.splitlines()}
    assert names.isdisjoint(
        {"cyclopts", "duckdb", "msgspec", "rich", "farthing.book", "pathlib", "subprocess"}
    )
    assert "farthing.money" in names


def test_the_process_behind_the_line_leaves_the_sums(home):
    at = datetime.now(UTC) - timedelta(seconds=5)
    one(home, at)
    folder = _statusline.cache_folder()
    Path(folder).mkdir(parents=True)
    _, status = os.waitpid(_statusline._begin_refresh(), 0)
    found = json.loads(Path(_statusline.totals_path(folder)).read_text())
    assert status == 0
    assert found["week"] == seen(home, int(datetime.now(UTC).timestamp()) * 1_000_000)["session"] > 0


def test_settings_keep_what_is_there(home, capsys, monkeypatch):
    path = home.path / ".claude" / "settings.json"

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main(["statusline", *words])
        return ended.value.code, capsys.readouterr()

    code, said = run("--install")
    assert (code, path.exists()) == (0, False)
    assert '"type": "command"' in said.out
    path.write_text('{"model": "opus", "hooks": {"Stop": []}}')
    assert run("--install", "--yes")[0] == 0
    settings = json.loads(path.read_text())
    assert settings.pop("statusLine")["command"].endswith("statusline")
    assert settings == {"model": "opus", "hooks": {"Stop": []}}
    assert "has it already" in run("--install", "--yes")[1].out
    for text, fault in (
        ('{"statusLine": {"command": "mine.sh"}}', "mine.sh"),
        ("{", "no JSON"),
        ("[]", "no object"),
    ):
        path.write_text(text)
        code, said = run("--install", "--yes")
        assert (code, path.read_text()) == (2, text)
        assert fault in said.err
        assert len(said.err.splitlines()) == 1
    assert run("--yes")[0] == 2
