"""Importers: samples beside what they come to, laws of lines and ranges, bad input, and the seam itself."""

import gzip
import io
import json
import os
import re
import runpy
import subprocess
import sys
import threading
import time
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path

import pytest

from farthing.importers import (
    Reject,
    _open,
    _pool,
    _reading,
    _task,
    _wire,
    formats,
    read_paths,
)
from farthing.usage import Facts, Total, Usage

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HERE = Path(__file__).parent / "importers"
MAKE = runpy.run_path(str(HERE / "generate.py"))
GENERATED = {
    name: content
    for script in sorted(HERE.glob("generate*.py"))
    for name, content in runpy.run_path(str(script))["samples"]()
}
NOW = datetime(2026, 3, 3, tzinfo=UTC)
LOG = MAKE["lines"]([MAKE["log"](n, MAKE["message"](n)) for n in range(9)])
TRANSCRIPT = MAKE["lines"]([MAKE["said"](n) for n in range(9)])
KEPT = {path.name for path in HERE.iterdir() if path.suffix in (".json", ".jsonl", ".gz")}
SAMPLES = sorted(KEPT | {name for name in GENERATED if "/" not in name})


def read_all(*paths, **options):
    """(usages, files by name, totals) of everything in the paths."""
    batches = list(read_paths([str(path) for path in paths], **{"now": NOW, "workers": 0, **options}))
    usages = [usage for batch in batches for usage in batch.usages]
    files = {Path(file.path).name: file for batch in batches for file in batch.files}
    total = {
        name: sum(getattr(batch, name) for batch in batches)
        for name in ("read", "superseded", "duplicates", "rejected", "skipped", "unchanged")
    }
    assert total["read"] == len(usages) + total["superseded"] + total["duplicates"] + total["rejected"]
    return usages, files, total


def errors(files):
    return {name: file.error for name, file in files.items() if file.error}


# --- samples -------------------------------------------------------------------------------------------------------


def show(usage):
    """A usage record, for people: facts that it has, and parts below it."""
    flags = f" {usage.latency_ms} ms" if usage.latency_ms is not None else ""
    flags += " sidechain" if usage.sidechain else ""
    tags = "".join(f" {name}={value}" for name, value in usage.tags)
    yield f"{usage.at:%Y-%m-%d %H:%M:%S.%f} [{usage.request_id}] [{usage.message_id}]{flags}{tags}"
    for facts, tokens in usage.parts:
        said = " ".join(f"{name}={value}" for name, value in facts._asdict().items() if value)
        yield f"    {' '.join(map(str, tokens)):24} {said}"


def show_total(total):
    """A control total, for people."""
    start, end = (datetime.fromtimestamp(at // 1_000_000, UTC) for at in (total.start_us, total.end_us))
    said = " ".join(f"{name}={value}" for name, value in total._asdict().items() if value and name in _SAID)
    return f"{start:%Y-%m-%d %H:%M:%S} for {(end - start).total_seconds():.0f} s: {total.name} {total.value} {said}"


_SAID = Total._fields[5:]


def show_entry(entry):
    """A use of what is no token, for people."""
    said = " ".join(f"{name}={value}" for name, value in entry.facts._asdict().items() if value)
    free = f", free: {entry.free}" if entry.free else ""
    return f"{entry.at:%Y-%m-%d %H:%M:%S} [{entry.id}] {entry.kind} {entry.quantity}{free} {said}"


def is_kept(name, content):
    path = HERE / name
    found = path.read_bytes() if path.is_file() else b""
    return content == (gzip.decompress(found) if found and name.endswith(".gz") else found)


def test_a_converse_stream_written_as_events_has_its_cache(tmp_path):
    """AWS writes one object; who forwards what a client met has events."""
    whole = MAKE["converse"](100, 20, 50, 30, [("1h", 10), ("5m", 20)])
    end = {"usage": whole["usage"], "metrics": {"latencyMs": 812}}
    events = [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"delta": {"text": "x"}, "contentBlockIndex": 0}},
        {"messageStop": {"stopReason": "end_turn"}},
        {"metadata": end},
    ]
    record = MAKE["log"](1, events, operation="ConverseStream")
    (tmp_path / "log.json").write_bytes(MAKE["lines"]([record]))
    ((usage,), _, _) = read_all(tmp_path)
    assert (usage.parts[0][1], usage.latency_ms) == ((100, 20, 50, 20, 10), 812)


def test_a_call_that_fell_back_is_of_the_model_that_answered(tmp_path):
    counts = {"input_tokens": 900, "output_tokens": 9}
    refused = counts | {"type": "message", "model": "claude-fable-5", "output_tokens": 0}
    made = counts | {"type": "fallback_message", "model": "claude-opus-4-8"}
    body = MAKE["message"](1, **counts, iterations=[refused, made]) | {"model": "claude-opus-4-8"}
    top = {"input__inputTokenCount": 900, "output__outputTokenCount": 9}
    record = MAKE["log"](1, body, modelId="us.anthropic.claude-fable-5", **top)
    (tmp_path / "log.json").write_bytes(MAKE["lines"]([record]))
    ((usage,), _, _) = read_all(tmp_path)
    assert [(facts.model_id, tokens[:2]) for facts, tokens in usage.parts] == [("claude-opus-4-8", (900, 9))]


def test_samples_are_as_generated(accepts):
    """No sample without its generator; `make golden` writes what is new or differs."""
    assert KEPT - GENERATED.keys() == set(), "no generate*.py beside them yields these"
    changed = [name for name, content in GENERATED.items() if not is_kept(name, content)]
    for name in changed if accepts else ():
        content = GENERATED[name]
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    assert accepts or not changed, f"make golden writes {changed}"


@pytest.mark.parametrize("name", SAMPLES)
def test_sample(name, golden):
    """`make golden` writes the expected files; read them before you keep them."""
    usages, files, total = read_all(HERE / name)
    batches = list(read_paths([str(HERE / name)], now=NOW, workers=0))
    controls = [one for batch in batches for one in batch.totals]
    entries = [one for batch in batches for one in batch.entries]
    file = files[name]
    assert file.format == name.partition(".")[0]
    assert file.read == total["read"]
    text = [line for usage in usages for line in show(usage)]
    text += map(show_total, controls)
    text += map(show_entry, entries)
    text += [f"line {reject.line}: {reject.reason}" for reject in file.rejects]
    text.append(", ".join(f"{name} {count}" for name, count in total.items() if count))
    golden(f"tests/importers/{name}.expected", "\n".join(text) + "\n")
    assert MAKE["TEXT"] not in repr((usages, controls, entries, files))


def test_every_format_has_a_sentence_and_a_sample():
    assert all(sentence.endswith(".") and len(sentence) < 120 for sentence in formats().values())
    assert set(formats()) == {name.partition(".")[0] for name in SAMPLES}


def test_a_format_is_told_by_its_beginning_alone():
    for name in SAMPLES:
        content = GENERATED[name]
        wanted = name.partition(".")[0]
        for head in (content, content[:700], b"\n\n" + content):
            assert _task.recognise(head) == wanted, name
    assert not any(
        map(_task.recognise, (b"", b"{}", b"[{}]", b"{\n", b'{"type":"log","message":"text"}', b"\0\1"))
    )
    body = json.dumps({"messages": [{"content": LOG.decode()}], "type": "x"}).encode()
    assert _task.recognise(body) == ""


def test_a_format_is_told_before_a_first_line_that_is_too_long_to_see():
    for keys in (None, sorted):
        record = MAKE["log"](1, MAKE["message"](1), input__inputBodyJson={"text": "x" * 200_000})
        record = {key: record[key] for key in keys(record)} if keys else record
        assert _task.recognise(json.dumps(record).encode()[: _open.HEAD_BYTES]) == "bedrock_log"


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        zstd.compress,
        lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]) + bytes(512),
        lambda data: zstd.compress(data[:100]) + zstd.compress(data[100:]),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.rstrip(),
    ],
)
def test_packed_by_its_bytes_whatever_its_name(tmp_path, pack):
    path = tmp_path / "log.txt"
    path.write_bytes(pack(LOG))
    usages, files, _ = read_all(path)
    assert len(usages) == files["log.txt"].read == 9
    assert not errors(files)


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
@pytest.mark.parametrize("named", [True, False])
def test_cut_short(tmp_path, pack, named):
    """What came before the cut counts, and the cut is a rejected line."""
    log = MAKE["lines"]([MAKE["log"](n, os.urandom(9000).hex()) for n in range(90)])
    path = tmp_path / "log.gz"
    path.write_bytes(pack(log)[:-400_000])
    usages, files, _ = read_all(path if named else tmp_path)
    file = files["log.gz"]
    assert 20 < len(usages) < 89
    assert file.rejects == [Reject(len(usages) + 1, file.rejects[0].reason)]
    assert "cut short; copy it again" in file.rejects[0].reason
    assert file.error == f"read no further than line {len(usages) + 1}"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (gzip.compress(LOG, mtime=0)[:9], "cut short"),
        (gzip.compress(LOG, mtime=0)[:3], "cut short"),
        (b"\x1f\x8b" + b"x" * 99, "damaged"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "binary"),
        (b"PK\x03\x04" + bytes(30), "zip"),
        (b"PAR1" + bytes(30), "Parquet"),
        ("\ufeffx".encode("utf-16-le"), "iconv"),
        (b'[{"schemaType":"ModelInvocationLog"}]', r"array.*jq -c '\.\[\]'"),
        (b'{\n  "a": 1\n}', r"several lines.*jq -c \."),
        (b"# A title\n", r"no format known here \(.*bedrock_log, claude_code, .*\)"),
        (b'{"a": 1}\n', "no format known"),
    ],
)
def test_a_named_file_that_cannot_be_read_says_why(tmp_path, content, why):
    path = tmp_path / "given"
    path.write_bytes(content)
    for given_as in (path, str(path)[:-2] + "*"):
        _, files, total = read_all(given_as)
        assert re.search(why, errors(files)["given"])
        assert total["skipped"] == 0
    (tmp_path / "log.jsonl").write_bytes(LOG)
    usages, files, total = read_all(tmp_path)
    lost = "cut short" in why or "damaged" in why  # in a folder too that is not for skipping
    assert (len(usages), total["skipped"], len(errors(files))) == (9, not lost, lost)


def test_what_follows_packed_data(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(LOG) + b"and more")
    (tmp_path / "b").write_bytes(gzip.compress(LOG)[:-6] + b"\0" * 6)
    usages, files, total = read_all(tmp_path / "a", tmp_path / "b")
    assert "no gzip data follows" in files["a"].rejects[0].reason
    assert "damaged" in files["b"].error
    assert (len(usages), total["rejected"]) == (9, 1)


def test_forced_format(tmp_path):
    (tmp_path / "t").write_bytes(TRANSCRIPT)
    (tmp_path / "odd").write_bytes(b'{"x": 1}\n' * 20 + LOG)
    (tmp_path / "none").write_bytes(b'{"x": 1}\n' * 20)
    _, files, _ = read_all(tmp_path / "t", tmp_path / "none", format="bedrock_log")
    assert "looks like claude_code" in errors(files)["t"]
    assert errors(files)["none"] == "no line of it is a bedrock_log record"
    assert len(read_all(tmp_path / "odd", format="bedrock_log")[0]) == 9
    _, files, total = read_all(tmp_path, format="bedrock_log")
    assert (total["skipped"], list(errors(files))) == (3, [tmp_path.name])
    with pytest.raises(ValueError, match="bedrock_log, claude_code"):
        read_paths([], format="csv", now=NOW)


def test_folder(tmp_path):
    """Hidden ones count; what is no log is skipped; loops end; pipes are not opened."""
    hour = tmp_path / ".hidden/AWSLogs/1/BedrockModelInvocationLogs/eu-west-1/2026/03/02/09"
    (hour / "data").mkdir(parents=True)
    (hour / ".a.json.gz").write_bytes(gzip.compress(LOG))
    (hour / "data/1_input.json.gz").write_bytes(gzip.compress(b'{"messages":[]}'))
    (tmp_path / "amazon-bedrock-logs-permission-check").write_bytes(b"")
    (tmp_path / "README.md").write_bytes(b"# Logs")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    usages, files, total = read_all(tmp_path)
    assert (len(usages), total["skipped"], errors(files)) == (9, 4, {})
    assert list(files) == [".a.json.gz"]


def test_paths_that_lead_nowhere(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_bytes(b"a")
    _, files, _ = read_all(
        tmp_path / "gone", tmp_path / "*.gz", tmp_path / "empty", tmp_path / "notes", "gs://b/p"
    )
    assert errors(files) == {
        "gone": "No such file or directory",
        "*.gz": "the pattern matches no file",
        "empty": "no files in it",
        "notes": f"none of the 1 files in it has a known format ({', '.join(formats())})",
        "p": "no local path, and no s3:// one: copy it here first",
    }


def test_a_name_that_looks_like_a_pattern(tmp_path):
    (tmp_path / "a[1].jsonl").write_bytes(LOG)
    (tmp_path / "a1.jsonl").write_bytes(LOG.replace(b"00000000-", b"10000000-").replace(b"msg_", b"msg_x"))
    assert len(read_all(tmp_path / "a[1].jsonl")[0]) == 9
    assert len(read_all(tmp_path / "*.jsonl")[0]) == 18
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/loop").symlink_to(tmp_path)
    (tmp_path / "deep/b.jsonl").write_bytes(TRANSCRIPT)
    assert read_all(tmp_path / "**")[2]["read"] == 27


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_name_that_is_no_text(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(_reading, "SMALL_BYTES", 1)
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.jsonl")).write_bytes(json.dumps(MAKE["said"](1, cwd=None)).encode())
    (usage,), files, _ = read_all(tmp_path, workers=workers)
    assert usage.parts[0][0].project == "caf\ufffd"
    assert list(files) == ["\\xff.jsonl"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read anything")
def test_no_permission(tmp_path):
    (tmp_path / "log").write_bytes(LOG)
    (tmp_path / "log").chmod(0)
    assert errors(read_all(tmp_path)[1]) == {"log": "Permission denied"}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input_and_pipes(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pack(LOG))))
    assert len(read_all("-")[0]) == 9
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(pack(TRANSCRIPT),), daemon=True)
    writer.start()
    assert len(read_all(tmp_path / "pipe")[0]) == 9
    writer.join()


def test_project_is_the_folder_where_no_line_names_it(tmp_path):
    line = json.dumps(MAKE["said"](1, cwd=None)).encode()
    for name in ("-home-ann-shop/s.jsonl", "-home-ann-shop/s/subagents/agent-1.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(line)
        assert read_all(tmp_path / name)[0][0].parts[0][0].project == "-home-ann-shop"


# --- bad lines -----------------------------------------------------------------------------------------------------


def test_a_line_of_200_megabytes(tmp_path):
    """It is rejected by its number, and never held."""
    path = tmp_path / "log.jsonl"
    first, *rest = LOG.splitlines(keepends=True)
    with path.open("wb") as file:
        file.write(first + b'{"schemaType":"')
        for _ in range(200):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n' + b"".join(rest) + b"{\n")
    usages, files, _ = read_all(path)
    assert len(usages) == 9
    long, cut = files["log.jsonl"].rejects
    assert (long, cut) == (Reject(2, "a line over 64 MiB"), Reject(11, "not JSON: the line is cut short"))
    if sys.platform == "linux":
        script = "import sys, datetime; from farthing.importers import read_paths\n"
        script += "list(read_paths(sys.argv[1:], now=datetime.datetime.now(datetime.UTC), workers=0))\n"
        script += "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
        assert int(python(script, str(path))) < 200_000  # kB


def python(script, *arguments):
    """What a program of its own prints."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, check=True, timeout=120, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def test_many_bad_lines_are_counted_and_some_told(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(LOG + b"{\n" * 1000 + LOG)
    usages, files, total = read_all(path)
    assert (len(usages), total["duplicates"], total["rejected"], len(files["log.jsonl"].rejects)) == (
        9,
        9,
        1000,
        100,
    )
    assert files["log.jsonl"].rejects[0].line == 10


def test_the_future_is_a_day_away(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(LOG)  # of 2026-03-02 09:30
    assert len(read_all(path, now=datetime(2026, 3, 1, 9, 31, tzinfo=UTC))[0]) == 9
    _, files, total = read_all(path, now=datetime(2026, 3, 1, 9, 29, tzinfo=UTC))
    assert total["rejected"] == 9
    assert "future" in files["log.jsonl"].rejects[0].reason


class Careless:
    """A third party's format."""

    def sniff(self, head):
        return head.startswith(b"careless")

    def read(self, lines, path=""):
        for _number, line in lines:
            if line != b"careless":
                yield Usage(
                    int(line), "r" + line.decode(), "", ((Facts("mine"), (int(line[:1]), 1, 0, 0, 0)),)
                )


def test_an_exception_costs_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(_task, "formats", lambda: {"careless": Careless()})
    path = tmp_path / "mine"
    path.write_bytes(
        b"careless\n1700000000000000\nx\n1700000000000000\n\n-700000000000000\n1800000000000000\n"
    )
    usages, files, total = read_all(path)
    assert (len(usages), total["duplicates"]) == (1, 1)
    assert [reject.line for reject in files["mine"].rejects] == [3, 6, 7]


# --- the seam ------------------------------------------------------------------------------------------------------


@pytest.fixture
def much(tmp_path, monkeypatch):
    """Logs and transcripts, some in ranges, that workers are started for."""
    monkeypatch.setattr(_reading, "SMALL_BYTES", 1)
    monkeypatch.setattr(_reading, "SPLIT_BYTES", 100_000)
    monkeypatch.setattr(_reading, "RANGE_BYTES", 30_000)
    monkeypatch.setattr(_reading, "TASK_FILES", 3)
    monkeypatch.setattr(_reading, "BATCH_RECORDS", 100)
    for part in range(6):
        log = [MAKE["log"](n, MAKE["message"](n)) for n in range(part * 100, part * 100 + 130)]
        (tmp_path / f"{part}.json.gz").write_bytes(gzip.compress(MAKE["lines"](log)))
    said = [MAKE["said"](n // 3, MAKE["usage"](3, n), copy=n % 3) for n in range(900)]
    lines = MAKE["lines"](said).splitlines(keepends=True)
    lines[333] = b"{torn\n"
    lines.insert(700, b"\n")
    lines[850] = b"{torn\n"
    (tmp_path / "long.jsonl").write_bytes(b"".join(lines))
    (tmp_path / "notes.txt").write_bytes(b"notes")
    return tmp_path


def calls(usages):
    """Of each call, the fullest record: pieces of work may have one each."""
    best = {}
    for usage in sorted(usages, key=lambda usage: usage.parts[0][1][1]):
        best[usage.request_id, usage.message_id] = usage
    return best


@pytest.mark.parametrize("ahead_bytes", [1, _pool.AHEAD_BYTES], ids=["asked", "told ahead"])
def test_workers_say_what_one_process_says(much, monkeypatch, ahead_bytes):
    monkeypatch.setattr(_pool, "AHEAD_BYTES", ahead_bytes)
    usages, files, total = read_all(much, workers=3)
    alone, files_alone, total_alone = read_all(much, workers=0)
    assert calls(usages) == calls(alone)
    assert {name: astuple(file) for name, file in files.items()} == {
        name: astuple(file) for name, file in files_alone.items()
    }
    assert (total["read"], total["rejected"], total["skipped"]) == (6 * 130 + 900, 2, 1)
    assert total_alone["read"] == total["read"]
    assert [reject.line for reject in files["long.jsonl"].rejects] == [334, 851]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_comes_after_its_usage(much, workers):
    seen = done = 0
    batches = 0
    for batch in read_paths([str(much)], now=NOW, workers=workers):
        seen += batch.read
        done += sum(file.read for file in batch.files)
        batches += 1
        assert done <= seen
        assert len(batch.usages) < 100 + _task.FRAME_RECORDS
    assert done == seen
    assert batches > 3


def test_progress_and_known_files(much):
    told = []
    asked = []
    threads = set()

    def known(path, size, mtime_ns, _digest):
        asked.append((Path(path).name, size, mtime_ns))
        return path.endswith(".gz")

    def progress(*both):
        told.append(both)
        threads.add(threading.get_ident())

    usages, _, total = read_all(much, workers=2, known=known, progress=progress)
    assert threads == {threading.get_ident()}
    assert (total["unchanged"], total["skipped"]) == (6, 1)
    assert all(usage.parts[0][0].source == "claude_code" for usage in usages)
    status = (much / "0.json.gz").stat()
    assert ("0.json.gz", status.st_size, status.st_mtime_ns) in asked
    size = sum(path.stat().st_size for path in much.iterdir())
    assert told[-1] == (size, size)
    assert told == sorted(told)
    assert read_all(much, known=lambda *_: True)[1] == {}


def children():
    return len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_closing_ends_the_workers(much):
    before = children()
    batches = read_paths([str(much)], now=NOW, workers=2)
    next(batches)
    assert children() > before
    batches.close()
    assert children() == before


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_worker_that_dies_costs_its_files_and_says_so(much, monkeypatch, at):
    """Its files are reported, a new worker goes on, with what the old one had been told of too; nothing hangs."""
    alone = read_all(much)[1]
    send = _wire.send
    sent = []

    def deadly(pipe, data):
        sent.append(data)
        send(pipe, b"no task" if len(sent) == at else data)

    monkeypatch.setattr(_pool, "send", deadly)
    _, files, total = read_all(much, workers=2)
    assert 1 <= len(errors(files)) <= 3
    assert all("ended early" in error for error in errors(files).values())
    assert files.keys() == alone.keys()
    whole = {name: file.read for name, file in files.items() if not file.error}
    assert whole == {name: alone[name].read for name in whole}
    assert total["read"] > 500


def test_without_workers_it_is_done_here(much, monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    assert len(read_all(much, workers=2)[0]) > 500


def test_a_caller_needs_no_guard_and_may_have_threads(much):
    script = "import sys, threading\nfrom datetime import datetime, UTC\nimport farthing.importers as i\n"
    script += "import farthing.importers._reading\ni._reading.SMALL_BYTES = 1\n"
    script += "threading.Thread(target=lambda: None).start()\n"
    script += "print(sum(b.read for b in i.read_paths(sys.argv[1:], now=datetime.now(UTC), workers=2)))"
    assert python(script, str(much)) == f"{6 * 130 + 900}\n"


def test_a_module_in_the_working_folder_is_not_taken_for_ours(much, monkeypatch):
    (much / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(much)
    assert read_all(".", workers=2)[2]["read"] == 6 * 130 + 900


def test_importing_is_quick():
    """`import farthing` loads none of this, and the front of this little."""
    script = "import sys, {}; own = ('farthing.importers._', 'msgspec');"
    script += "print([name for name in sys.modules if name.startswith(own)])"
    assert python(script.format("farthing")) == "[]\n"
    assert python(script.format("farthing.importers")) == "['farthing.importers._batch']\n"


@pytest.mark.bench
def test_speed(tmp_path):
    """A record of 8 kB takes less than 100 microseconds, on whatever machine this is."""
    record = MAKE["log"](1, MAKE["message"](1), input__inputBodyJson={"text": "word " * 1600})
    (tmp_path / "log.jsonl").write_bytes(MAKE["lines"]([record] * 5000))
    begun = time.perf_counter()
    read_all(tmp_path)
    assert time.perf_counter() - begun < 0.5
