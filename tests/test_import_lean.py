"""What an import leaves out, because it is certain that it would change nothing: queries, commands, waiting."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from farthing.api import import_paths
from farthing.importers import _begin, _reading, begin, read_paths
from farthing.ledger import Ledger, _own
from farthing.outbox import Intent, Tokens, encode
from farthing.usage import EPOCH, Facts, Usage

AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
NOW = datetime(2026, 3, 3, tzinfo=UTC)
MODEL = "global.anthropic.claude-sonnet-4-6"


def call(number: int, output: int = 10, **ids) -> Usage:
    part = (Facts("bedrock_log", model_id=MODEL), (1, output, 0, 0, 0))
    said = {"request_id": f"r{number}", "message_id": ""} | ids
    return Usage((AT - EPOCH) // timedelta(microseconds=1), parts=(part,), **said)


def log(number: int) -> bytes:
    return json.dumps({
        "schemaType": "ModelInvocationLog", "timestamp": f"{AT:%Y-%m-%dT%H:%M:%SZ}", "requestId": f"r{number}",
        "region": "eu-west-1", "operation": "Converse", "modelId": MODEL,
        "input": {"inputTokenCount": 90}, "output": {"outputTokenCount": 20},
    }).encode() + b"\n"  # fmt: skip


# --- what is known of one's own records ------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """How many records the ledger was asked for, each time it was."""
    times: list[int] = []
    known = Ledger.known

    def count(ledger, usages):
        times.append(len(usages))
        return known(ledger, usages)

    monkeypatch.setattr(Ledger, "known", count)
    return times


def test_a_ledger_is_not_asked_for_what_its_only_writer_never_wrote(tmp_path, asked):
    ledger = Ledger(tmp_path / "ledger")
    for start in (0, 10, 20):
        assert ledger.append([call(start + n) for n in range(10)]).imported == 10
    assert asked == []
    assert Ledger(tmp_path / "ledger").append([call(30)]).imported == 1  # another one has to ask
    assert asked == [1]


@pytest.mark.parametrize(
    "again",
    [
        call(3, 20),
        call(99, 20, request_id="", gateway_id="r3"),
        call(99, 20, request_id="new", also=("r3",)),
    ],
    ids=["request", "gateway", "also"],
)
def test_a_call_is_found_by_any_id_that_it_was_written_under(tmp_path, asked, again):
    ledger = Ledger(tmp_path / "ledger")
    ledger.append([call(n, gateway_id=f"r{n}", also=(f"r{n}",)) for n in range(5)])
    added = ledger.append([again])
    assert asked == [1]
    assert (added.imported, added.superseded) == (0, 1)


def test_what_another_writer_wrote_meanwhile_is_looked_for(tmp_path):
    ours, theirs = Ledger(tmp_path / "ledger"), Ledger(tmp_path / "ledger")
    assert ours.append([call(1)]).imported == 1
    assert theirs.append([call(2)]).imported == 1
    assert ours.append([call(2)]) == ([], 0, 1)
    assert ours.append([call(1), call(2)]) == ([], 0, 2)


def test_only_records_that_share_an_id_are_looked_for(tmp_path, asked):
    """Two records of one call in a batch are compared with each other, not with the ledger."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.append([call(n) for n in range(10)])
    again = [call(3, 20), call(11), call(12), call(12, 20), *(call(n) for n in range(20, 30))]
    added = ledger.append(again)
    assert asked == [1]
    assert (added.imported, added.superseded, added.duplicates) == (12, 2, 0)
    assert ledger.rows().aggregate("sum(calls), sum(output)").fetchall() == [(22, 22 * 10 + 2 * 10)]


def test_copies_of_known_calls_are_known_however_often_a_file_is_read(tmp_path):
    """A file with a rejected line is read at each import. Of the copies in it one is the best, and known as well."""
    grown = log(1).replace(b'"outputTokenCount": 20', b'"outputTokenCount": 30')
    (tmp_path / "log.jsonl").write_bytes(log(1) + grown + b'{"schemaType": "ModelInvocationLog"}\n')
    ledger = Ledger(tmp_path / "ledger")
    counts = []
    for _ in range(2):
        done = import_paths(ledger, [tmp_path / "log.jsonl"], now=NOW)
        counts.append((done.imported, done.superseded, done.duplicates, done.rejected))
    assert counts == [(1, 1, 0, 1), (0, 0, 2, 1)]


def test_beyond_so_many_ids_the_ledger_is_asked(tmp_path, asked, monkeypatch):
    monkeypatch.setattr(_own, "MOST_IDS", 3)
    ledger = Ledger(tmp_path / "ledger")
    assert [ledger.append([call(n), call(n + 100)]).imported for n in range(3)] == [2, 2, 2]
    assert asked == [2]  # the third time
    assert ledger.append([call(0), call(1), call(2)]) == ([], 0, 3)


def test_intents_of_another_writer_are_settled(tmp_path):
    """Whoever is sure that there are none, because all records are its own, has to see that they no longer are."""
    (tmp_path / "outbox.jsonl").write_bytes(
        encode(Intent(gateway_id="g", at=AT, model=MODEL, platform="bedrock", region="eu-west-1",
                      operation="Converse", expected=Tokens(400, 100)))
    )  # fmt: skip
    (tmp_path / "one.jsonl").write_bytes(log(1).replace(b"Converse", b"InvokeModel"))
    (tmp_path / "two.jsonl").write_bytes(log(2))
    ours = Ledger(tmp_path / "ledger")
    assert import_paths(ours, [tmp_path / "one.jsonl"], now=NOW).settled == 0
    assert ours.lacks_source("outbox_intent")
    import_paths(Ledger(tmp_path / "ledger"), [tmp_path / "outbox.jsonl"], now=NOW)
    assert not ours.lacks_source("outbox_intent")
    assert import_paths(ours, [tmp_path / "two.jsonl"], now=NOW).settled == 1


# --- commands and batches --------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["import", "--help"], []], ids=["import", "none"])
def test_only_the_file_of_the_command_is_loaded(words, tmp_path):
    look = "import atexit; atexit.register(lambda: print(sorted(m for m in sys.modules if '.cli.' in m)))"
    program = f"import sys; sys.argv = ['farthing', *{words}]; {look}; from farthing.cli import main; main()"
    env = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    loaded = ran.stdout.splitlines()[-1]
    assert "'farthing.cli.importing'" in loaded
    assert "'farthing.cli.reporting'" not in loaded


def test_once_all_work_is_given_out_batches_are_small(tmp_path, monkeypatch):
    """So that little is left to write when the last file has been read."""
    for file in range(6):
        (tmp_path / f"{file}.jsonl").write_bytes(b"".join(log(file * 10 + n) for n in range(10)))
    monkeypatch.setattr(_reading, "SMALL_BYTES", 1)
    monkeypatch.setattr(_reading, "TASK_FILES", 1)
    for last, most in ((_reading.BATCH_RECORDS, 60), (10, 20)):
        monkeypatch.setattr(_reading, "LAST_RECORDS", last)
        sizes = [len(batch.usages) for batch in read_paths([str(tmp_path)], now=NOW, workers=2)]
        assert sum(sizes) == 60
        assert max(sizes) <= most
        assert (len(sizes) == 1) == (most == 60)


# --- workers, and what is done while they work -----------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that is worth two workers."""
    (tmp_path / "log.jsonl").write_bytes(b"".join(map(log, range(20))))
    monkeypatch.setattr(_reading, "SMALL_BYTES", 1)
    monkeypatch.setattr(_begin, "WORTH_BYTES", 1)
    monkeypatch.setattr(_begin, "usual_count", lambda: 2)
    return str(tmp_path)


def test_workers_begun_ahead_read_the_next_import(folder, monkeypatch):
    begin([folder])
    begun = list(_begin._ahead)
    assert [worker.poll() for worker in begun] == [None, None]
    monkeypatch.setattr(_begin, "_started", lambda: pytest.fail("there are workers already"))
    told = []
    batches = read_paths([folder], now=NOW, workers=2, meanwhile=lambda: told.append(begun[0].poll()))
    assert sum(len(batch.usages) for batch in batches) == 20
    assert told == [None], "once, while they work"
    assert not _begin._ahead
    assert None not in [worker.returncode for worker in begun]


def test_workers_begun_in_vain_end_with_the_program(folder):
    begin([folder])
    begun = list(_begin._ahead)
    _begin._end_ahead()
    assert [worker.returncode for worker in begun] == [-9, -9]


@pytest.mark.parametrize("path", ["s3://bucket/logs", "--json", "-", "nothing/here", "{}/log.jsonl"])
def test_none_are_begun_where_too_little_is_to_be_seen(folder, path, monkeypatch):
    monkeypatch.setattr(_begin, "WORTH_BYTES", 1 << 20)
    begin([path.format(folder)])
    assert not _begin._ahead
