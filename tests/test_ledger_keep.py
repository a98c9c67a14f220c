"""A ledger kept in shape: upgraded, looked into, checked, compacted, cut short, made to forget; others at work."""

import json
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from farthing import aws
from farthing.cli import main
from farthing.ledger import Ledger, LedgerError, SourceFile, compact, find_named, forget, info, retain, verify
from farthing.ledger import _keep as keep
from farthing.ledger._tables import TABLES, arrow, transposed
from farthing.meters import METERS
from farthing.usage import EPOCH, Total, Usage
from tests import old_ledger
from tests.old_ledger import call

NOW = datetime(2026, 11, 22, tzinfo=UTC)
FIRST_DAY = 20_717  # of call(): 2026-09-21, counted from 1970
ADA, BOB = "arn:aws:sts::111122223333:assumed-role/dev/ada", "arn:aws:sts::111122223333:assumed-role/dev/bob"


def totals(ledger: Ledger) -> tuple[int, ...]:
    sums = ", ".join(f"coalesce(sum({name}), 0)::BIGINT" for name in ("calls", *METERS))
    return ledger.rows().aggregate(sums).fetchall()[0]


def by(ledger: Ledger, key: str) -> dict[str, int]:
    """Output tokens by what a context says."""
    ledger.connection.register("r", ledger.rows())
    ledger.connection.register("c", ledger.contexts())
    return dict(
        ledger.connection.execute(
            f"SELECT {key}, sum(output) FROM r JOIN c USING (ctx) GROUP BY 1"
        ).fetchall()
    )


def grown(usage: Usage, output: int = 1000) -> Usage:
    facts, tokens = usage.parts[0]
    return usage._replace(parts=((facts, (tokens[0], output, *tokens[2:])),))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Ledger:
    """Forty calls of two people over five days, in eight imports, some of them grown since."""
    made = Ledger(tmp_path_factory.mktemp("made") / "ledger")
    people = [(ADA, "s-ada"), (BOB, "s-bob")]
    for start in range(0, 40, 5):
        made.append([
            call(i, day=i // 8, principal=people[i % 2][0], session=f"{people[i % 2][1]}-{i % 4}",
                 project=f"/home/{people[i % 2][1]}/work", tags=(("n", str(i % 3)), ("user", people[i % 2][0])))
            for i in range(start, start + 5)
        ])  # fmt: skip
    made.append([grown(call(i, day=i // 8, principal=people[i % 2][0])) for i in (3, 30)])
    made.note_files([SourceFile("a.jsonl", 1, 1, "claude_code", 40, 0)], NOW)
    return made


@pytest.fixture
def ledger(made, tmp_path) -> Ledger:
    """That, to be changed."""
    return Ledger(shutil.copytree(made.folder, tmp_path / "ledger"))


def said(capsys, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `farthing ledger ...`."""
    with pytest.raises(SystemExit) as ended:
        main(["ledger", *arguments])
    return ended.value.code, capsys.readouterr().out  # type: ignore[return-value]


# --- upgrade ---------------------------------------------------------------------------------------


def test_an_old_ledger_is_upgraded_and_says_the_same(tmp_path):
    folder = tmp_path / "ledger"
    calls = [call(i, tags=(("a", "b"),), session=f"s{i % 3}") for i in range(30)]
    old_ledger.write(folder, [calls[:10], calls[10:20], calls[20:]], ["a.jsonl"])
    data = sorted(folder.rglob("*.parquet"))
    ledger = Ledger(folder)
    assert json.loads((folder / "farthing.json").read_text()) == {"format": 2}
    assert totals(ledger) == (30, 30, *[sum(range(30))] * 4)
    assert [(file.path, file.digest) for file in ledger.files()] == [("a.jsonl", "")]
    assert sorted(folder.rglob("*.parquet")) == data  # nothing was written anew
    assert verify(ledger) == []
    assert (ledger.append(calls).duplicates, ledger.append([call(30)]).imported) == (30, 1)
    ledger.append([call(i)._replace(gateway_id=f"g{i}") for i in range(5)])
    assert ledger.append([call(99)._replace(request_id="", message_id="", gateway_id="g3")]).imported == 0
    assert (totals(ledger)[0], verify(ledger)) == (31, [])
    compact(ledger)
    assert (totals(Ledger(folder))[0], verify(Ledger(folder))) == (31, [])
    assert Ledger(folder).rows().filter("gateway_id IS NULL OR also IS NULL").project("part").fetchall() == []


def test_an_upgrade_that_was_interrupted_is_ended_by_the_next(tmp_path):
    folder = tmp_path / "ledger"
    old_ledger.write(folder, [[call(1)]])
    marker = (folder / "farthing.json").read_text()
    Ledger(folder)
    (folder / "farthing.json").write_text(marker)  # killed before its last step
    (folder / "farthing.json.0123").write_text("")  # and in it
    assert Ledger(folder).append([call(1), call(2)]).imported == 1
    assert json.loads((folder / "farthing.json").read_text()) == {"format": 2}


def test_processes_that_upgrade_at_once(tmp_path):
    folder = tmp_path / "ledger"
    old_ledger.write(folder, [[call(i)] for i in range(5)])
    with ThreadPoolExecutor(6) as pool:
        added = pool.map(lambda number: Ledger(folder).append([call(number), call(3)]).imported, range(4, 10))
    assert sum(added) == 5
    assert (totals(Ledger(folder))[0], verify(Ledger(folder))) == (10, [])


def test_an_old_ledger_of_nothing(tmp_path):
    (tmp_path / "farthing.json").write_text('{"format": 1}')
    ledger = Ledger(tmp_path)
    assert (totals(ledger)[0], ledger.append([call(1)]).imported) == (0, 1)


# --- info and verify -------------------------------------------------------------------------------


def test_info(ledger, capsys):
    found = info(ledger)
    assert (found["calls"], found["days"], found["format"]) == (40, ["2026-09-21", "2026-09-25"], 2)
    assert (found["sources"], found["formats"]) == ({"claude_code": 40}, {"claude_code": 1})
    assert (found["last_import"], found["forgotten"]) == ("2026-11-22T00:00:00Z", 0)
    assert (found["tables"]["usage"]["rows"], found["tables"]["usage"]["files"]) == (44, 9)
    assert json.loads(said(capsys, "info", "--ledger", str(ledger.folder), "--json")[1]) == found
    code, shown = said(capsys, "info", "--ledger", str(ledger.folder))
    assert (code, "40 calls, days 2026-09-21 to 2026-09-25" in shown) == (0, True)


def test_an_empty_ledger_is_whole(tmp_path, capsys):
    empty = Ledger(tmp_path / "ledger")
    assert (info(empty)["calls"], info(empty)["days"], verify(empty)) == (0, [], [])
    assert (compact(empty).after, retain(empty, FIRST_DAY).calls) == (0, 0)
    assert said(capsys, "verify", "--ledger", str(empty.folder)) == (0, f"{empty.folder}: whole\n")


def test_commands_name_a_ledger_that_is_not_there(tmp_path, capsys):
    assert said(capsys, "info", "--ledger", str(tmp_path / "none"))[0] == 2


def add_rows(ledger: Ledger, name: str, *rows: dict) -> None:
    """Rows as they are, past all that append does."""
    columns = TABLES[name]
    given = [tuple(row[column] for column in columns) for row in rows]
    write_deltalake(str(ledger.folder / name), arrow(transposed(given, columns), columns), mode="append")


def a_row(ledger: Ledger, **changes) -> dict:
    """A row of usage, as it is but for these changes."""
    names = [name for name in TABLES["usage"] if name not in ("month", "at")]
    row = (
        ledger.rows().filter("NOT reversal").project(f'{", ".join(names)}, epoch_us("at") AS at_us').limit(1)
    )
    found = dict(zip([*names, "at"], row.fetchall()[0], strict=True))
    return {"month": "2026-09", **found, **changes}


DAMAGE = {
    "is missing": lambda it: next((it.folder / "usage").rglob("*.parquet")).unlink(),
    "bytes and not": lambda it: next((it.folder / "contexts").glob("*.parquet")).write_bytes(b"PAR1"),
    "reversals of rows that are not there": lambda it: add_rows(
        it, "usage", a_row(it, reversal=True, calls=-1, latency_ms=5, **dict.fromkeys(METERS, -7))
    ),
    "rows that are there twice": lambda it: add_rows(it, "usage", a_row(it)),
    "rows whose day or month": lambda it: add_rows(it, "usage", a_row(it, request_id="x", message_id="x", day=7)),
    "rows that count their call": lambda it: add_rows(it, "usage", a_row(it, request_id="x", message_id="x", calls=2)),
    "rows with counts of the wrong sign": lambda it: add_rows(
        it, "usage", a_row(it, request_id="x", message_id="x", output=-5)
    ),
    "a part is missing": lambda it: add_rows(
        it, "usage", a_row(it, request_id="x", message_id="x", part=1, calls=0)
    ),
    "codes of usage have no row": lambda it: add_rows(it, "usage", a_row(it, request_id="x", message_id="x", ctx=5)),
    "codes mean two things": lambda it: add_rows(
        it, "contexts", dict.fromkeys(TABLES["contexts"], "") | {"ctx": a_row(it)["ctx"]}
    ),
    "counted twice under a shared id": lambda it: add_rows(it, "usage", a_row(it, request_id="", latency_ms=9)),
    "the counts of 1 files disagree": lambda it: it.note_files([SourceFile("b", 1, 1, "x", 1, 2)], NOW),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_verify_names_the_fault(ledger, what, capsys):
    assert verify(ledger) == []
    DAMAGE[what](ledger)
    code, shown = said(capsys, "verify", "--ledger", str(ledger.folder))
    assert code == 1
    assert [line for line in shown.splitlines() if what in line]
    faults = json.loads(said(capsys, "verify", "--ledger", str(ledger.folder), "--json")[1])["faults"]
    assert all(fault["mend"] for fault in faults)


def test_verify_is_content_with_calls_that_share_an_id_and_are_two(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    attempts = [call(i)._replace(message_id="", gateway_id="g") for i in (1, 2)]
    ledger.append([*attempts, call(3, account="1"), call(3, account="2")])
    assert (totals(ledger)[0], verify(ledger)) == (4, [])


# --- compact ---------------------------------------------------------------------------------------


def test_compacting_changes_no_row(ledger):
    everything = [name for name in TABLES["usage"] if name not in ("month", "at")]
    rows = sorted(ledger.rows().project(", ".join(everything)).fetchall(), key=repr)
    done = compact(ledger)
    assert (done.before > 10, done.after, done.left) == (True, 4, ())
    again = Ledger(ledger.folder)
    assert sorted(again.rows().project(", ".join(everything)).fetchall(), key=repr) == rows
    assert (verify(again), again.files(), again.days()) == ([], ledger.files(), ledger.days())
    assert compact(again).after == 4
    assert again.append([call(1, day=0)]).imported == 0


def test_copies_from_days_apart_become_one(ledger):
    """An import looks for a call a day around; what came further apart, and in two imports, is found here."""
    first, other = call(300, session="s"), call(301)
    late = grown(call(300, day=9, source="bedrock_log"), 77)
    ledger.append([first, other])
    before = totals(ledger)
    assert ledger.append([late, call(302, day=9)]).imported == 2
    assert "farthing ledger compact" in verify(ledger)[0].mend
    assert compact(ledger).linked == 1
    assert (totals(ledger)[0], totals(ledger)[2]) == (before[0] + 1, before[2] - 300 + 77 + 302)
    assert (verify(ledger), by(ledger, "session")["s"], compact(ledger).linked) == ([], 77, 0)


def test_a_reader_from_before_is_not_disturbed(ledger):
    rows = ledger.rows()
    compact(Ledger(ledger.folder))
    assert rows.aggregate("sum(calls)::BIGINT").fetchall() == [(40,)]


def test_an_append_from_before_is_neither_lost_nor_refused(ledger, monkeypatch):
    """Compaction lands between an append's look at the ledger and its commit."""
    known = Ledger.known

    def meanwhile(self, usages):
        if not done:
            done.append(compact(Ledger(ledger.folder)))
        return known(self, usages)

    done: list = []
    monkeypatch.setattr(Ledger, "known", meanwhile)
    assert ledger.append([call(77), call(1)]).imported == 1
    assert (totals(ledger)[0], verify(ledger), len(done)) == (41, [], 1)


def test_compaction_gives_way_to_one_who_keeps_writing(ledger, monkeypatch):
    table, numbers = Ledger.table, iter(range(100, 200))

    def meanwhile(self, name, delta=None, month=""):
        if month and name == "usage":
            Ledger(ledger.folder).append([call(next(numbers))])
        return table(self, name, delta, month)

    monkeypatch.setattr(Ledger, "table", meanwhile)
    assert compact(ledger).left == ("usage 2026-09",)
    monkeypatch.undo()
    assert (totals(ledger)[0], verify(ledger)) == (45, [])


def test_two_who_compact_at_once_double_nothing(ledger):
    def work(_: int) -> tuple[str, ...]:
        return compact(Ledger(ledger.folder)).left

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert (totals(Ledger(ledger.folder))[0], verify(ledger)) == (40, [])


def age(folder: Path) -> None:
    """Let all that lies there be from long ago."""
    for path in folder.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))


def test_what_killed_processes_left_is_removed_a_day_later(ledger):
    draft, orphan = (
        ledger.folder / "farthing.json.0123",
        ledger.folder / "usage" / "month=2026-09" / "part-x.parquet",
    )
    for path in (draft, orphan):
        path.write_bytes(b"x")
    age(ledger.folder)
    young = ledger.folder / "usage" / "month=2026-09" / "part-y.parquet"
    young.write_bytes(b"x")
    assert compact(ledger).removed >= 2
    assert [path.exists() for path in (draft, orphan, young)] == [False, False, True]


def test_codes_that_a_killed_process_dropped_come_back(ledger):
    before = by(ledger, "principal")
    version = (DeltaTable(str(ledger.folder / "contexts")).transaction_version("farthing") or 0) + 1
    properties = CommitProperties(app_transactions=[Transaction("farthing", version)])
    nothing = arrow(transposed([], TABLES["contexts"]), TABLES["contexts"])
    write_deltalake(str(ledger.folder / "contexts"), nothing, mode="overwrite", commit_properties=properties)
    assert "farthing ledger compact" in verify(ledger)[0].mend
    assert compact(ledger).restored == len(ledger.contexts().project("ctx").fetchall()) > 0
    assert (by(ledger, "principal"), verify(ledger)) == (before, [])


# --- retain ----------------------------------------------------------------------------------------


def anywhere(folder: Path, *words: str) -> list[str]:
    """Files that hold one of these words, in the clear or in Parquet."""
    import duckdb

    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_bytes()
            if path.suffix == ".parquet" and "_delta_log" not in path.parts:
                text += repr(
                    duckdb.execute(f"SELECT COLUMNS(*)::VARCHAR FROM read_parquet('{path}')").fetchall()
                ).encode()
            found += [f"{path}: {word}" for word in words if word.encode() in text]
    return found


def test_retain_drops_whole_days_from_every_version(ledger):
    ledger.append([call(500, day=1, principal="early-bird", session="s-early")])
    total = Total("cloudwatch", 0, (FIRST_DAY + 1) * 86_400_000_000, "calls", 7, session="s-total")
    ledger.note_totals([total], NOW)
    before = totals(ledger)
    old = keep.older(ledger, FIRST_DAY + 2)
    assert (old.calls, old.days) == (17, 2)
    dropped = retain(ledger, FIRST_DAY + 2)
    assert (dropped.calls, dropped.days, dropped.totals) == (17, 2, 0)
    assert (totals(ledger)[0], verify(ledger)) == (before[0] - 17, [])
    assert ledger.days()[0] == EPOCH + timedelta(days=FIRST_DAY + 2)
    assert anywhere(ledger.folder, "early-bird", "s-early", "m7") == []
    assert ledger.totals().aggregate("count(*)").fetchall() == [(1,)]
    assert retain(ledger, FIRST_DAY + 2, totals=True).totals == 1
    assert anywhere(ledger.folder, "s-total") == []
    assert Ledger(ledger.folder).append([call(39, day=4), call(1, day=3)]).imported == 1


def test_retain_asks_first(ledger, capsys):
    code, shown = said(capsys, "retain", "--days", "10", "--ledger", str(ledger.folder))
    assert (code, shown.startswith("would drop 40 calls of 5 days before ")) == (0, True)
    assert totals(ledger)[0] == 40
    code, shown = said(capsys, "retain", "--days", "10", "--ledger", str(ledger.folder), "--yes", "--json")
    assert (code, json.loads(shown)["done"], totals(ledger)[0]) == (0, True, 0)
    assert said(capsys, "retain", "--days", "0", "--ledger", str(ledger.folder))[0] == 2


def test_a_reversal_of_what_was_dropped_meanwhile_is_none(ledger, monkeypatch):
    """An append has found a call to be replaced; before it commits, the call is dropped."""
    known = Ledger.known

    def meanwhile(self, usages):
        found = list(known(self, usages))
        if not done:
            done.append(retain(Ledger(ledger.folder), FIRST_DAY + 1))
        return iter(found)

    done: list = []
    monkeypatch.setattr(Ledger, "known", meanwhile)
    ledger.append([grown(call(1))])
    assert (verify(ledger), totals(ledger)[0]) == ([], 40 - done[0].calls + 1)


def test_a_context_that_is_used_again_while_it_is_dropped_stays(ledger, monkeypatch):
    rewrite = keep._rewrite

    def meanwhile(it, name, query, month="", attempts=20):
        if name == "contexts" and not done:
            done.append(1)
            assert other.append([call(800, day=4, principal="early", session="s-early")]).imported == 1
        return rewrite(it, name, query, month, attempts)

    done: list = []
    other = Ledger(ledger.folder)
    other.append([call(801, principal="early", session="s-early")])  # it knows the code
    monkeypatch.setattr(keep, "_rewrite", meanwhile)
    retain(ledger, FIRST_DAY + 4)
    assert (verify(ledger), by(ledger, "session")["s-early"], done) == ([], 800, [1])


# --- forget ----------------------------------------------------------------------------------------


def test_a_forgotten_name_is_nowhere_and_costs_stay(ledger):
    ledger.note_totals(
        [Total("claude_code_metrics", 0, 1, "input", 7, principal=ADA, session="s-ada-9")], NOW
    )
    before, by_person = totals(ledger), by(ledger, "principal")
    found = forget(ledger, ADA, NOW)
    assert (found.names, found.sessions) == ([ADA], ["s-ada-0", "s-ada-2", "s-ada-9"])
    assert (totals(ledger), verify(ledger)) == (before, [])
    assert anywhere(ledger.folder, ADA, "s-ada") == []
    assert anywhere(ledger.folder, BOB, "s-bob") != []
    after = by(ledger, "principal")
    (pseudonym,) = after.keys() - by_person.keys()
    assert (after[pseudonym], after[BOB]) == (by_person[ADA], by_person[BOB])
    assert set(by(ledger, "project")) == {"/home/forgotten/work", "/home/s-bob/work"}


def test_a_later_import_does_not_bring_the_name_back(ledger):
    forget(ledger, ADA, NOW)
    before = totals(ledger)
    again = [
        call(i, day=i // 8, principal=ADA, session=f"s-ada-{i % 4}", tags=(("user", ADA),))
        for i in range(0, 40, 2)
    ]
    for writer in (ledger, Ledger(ledger.folder)):
        assert writer.append(again).imported == 0
        assert writer.append([grown(again[2], 5000), call(700, principal=ADA)]).imported == (writer is ledger)
        writer.note_totals([Total("x", 0, 1, "input", 7, principal=ADA)], NOW)
    assert (totals(ledger)[0], verify(ledger)) == (before[0] + 1, [])
    assert anywhere(ledger.folder, ADA, "s-ada") == []


def test_a_name_that_is_not_there_yet_is_forgotten_before_it_comes(ledger):
    forget(ledger, "carol", NOW)
    ledger.append([call(600, principal="carol")])
    assert anywhere(ledger.folder, "carol") == []
    assert len([name for name in by(ledger, "principal") if name.startswith("forgotten-")]) == 1


def test_a_pattern_forgets_all_whom_it_fits(ledger):
    assert find_named(ledger, "*/dev/???").names == [ADA, BOB]
    assert find_named(ledger, "*/dev/??").names == find_named(ledger, "ada").names == []
    forget(ledger, "*/dev/*", NOW)
    assert anywhere(ledger.folder, ADA, BOB) == []
    assert len(by(ledger, "principal")) == 2
    assert verify(ledger) == []


def test_an_import_under_way_does_not_bring_the_name_back(ledger, monkeypatch):
    """It has looked at the names before they were forgotten, and commits after."""
    known = Ledger.known

    def meanwhile(self, usages):
        if not done:
            done.append(forget(Ledger(ledger.folder), ADA, NOW))
        return known(self, usages)

    done: list = []
    monkeypatch.setattr(Ledger, "known", meanwhile)
    assert ledger.append([call(900, principal=ADA, session="s-ada-0", operation="Converse")]).imported == 1
    assert (totals(ledger)[0], verify(ledger)) == (41, [])
    assert {ADA, "s-ada-0"}.isdisjoint(by(ledger, "principal") | by(ledger, "session"))
    age(ledger.folder)  # what it was writing, and could not commit, goes a day later
    compact(ledger)
    assert anywhere(ledger.folder, ADA, "s-ada") == []


def test_forgetting_that_was_interrupted_is_ended_by_the_next(ledger, monkeypatch):
    before = totals(ledger)
    steps = ["_note_forgotten", "_renaming", "_erase"]
    for step in steps:
        folder = ledger.folder.with_name(step)
        shutil.copytree(ledger.folder, folder)

        def killed(*_, step=step):
            raise KeyboardInterrupt(step)

        with monkeypatch.context() as patched:
            patched.setattr(keep, step, killed)
            with pytest.raises(KeyboardInterrupt):
                forget(Ledger(folder), ADA, NOW)
        again = Ledger(folder)
        assert (totals(again), verify(again)) == (before, [])
        forget(again, ADA, NOW)
        assert (totals(again), verify(again)) == (before, [])
        assert anywhere(folder, ADA, "s-ada") == [], step


def test_forget_asks_first(ledger, capsys):
    code, shown = said(capsys, "forget", ADA, "--ledger", str(ledger.folder))
    assert (code, shown.partition(";")[0]) == (
        0,
        "would forget 1 names, 2 sessions, 20 calls, 0 control totals",
    )
    assert anywhere(ledger.folder, ADA)
    code, shown = said(capsys, "forget", ADA, "--ledger", str(ledger.folder), "--yes", "--json")
    answer = {"done": True, "names": 1, "sessions": 2, "calls": 20, "totals": 0, "entries": 0}
    assert (code, json.loads(shown)) == (0, answer)
    assert anywhere(ledger.folder, ADA) == []


def test_a_ledger_that_cannot_be_written_is_one_line(ledger, monkeypatch):
    def refuse(*_, **__):
        raise OSError("Permission denied")

    monkeypatch.setattr("deltalake.write_deltalake", refuse)
    with pytest.raises(LedgerError, match="cannot write: Permission denied"):
        compact(ledger)


# --- in a bucket -----------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """moto's S3 on loopback, with one bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "made",
        "AWS_SECRET_ACCESS_KEY": "up",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    for held in (aws._session, aws._client):
        held.cache_clear()  # of another test's server
    aws._REGIONS.clear()
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="costs")
    yield client
    for found in client.list_objects_v2(Bucket="costs")["Contents"]:
        client.delete_object(Bucket="costs", Key=found["Key"])
    server.stop()


def test_all_of_it_in_a_bucket(bucket, tmp_path):
    ledger = Ledger("s3://costs/ledger")
    for i in range(6):
        ledger.append(
            [call(10 * i + n, day=i, principal=(ADA, BOB)[n % 2], session=f"s{n}") for n in range(5)]
        )
    before = totals(ledger)
    assert compact(ledger).after < compact(ledger).before + 1 < 18
    assert (info(ledger)["calls"], totals(ledger), verify(ledger)) == (30, before, [])
    forget(ledger, ADA, NOW)
    assert (totals(Ledger("s3://costs/ledger")), verify(ledger)) == (before, [])
    assert retain(ledger, FIRST_DAY + 2).calls == 10
    assert (totals(ledger)[0], verify(ledger)) == (20, [])
    for found in bucket.list_objects_v2(Bucket="costs")["Contents"]:
        copy = tmp_path / "copies" / found["Key"]
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(bucket.get_object(Bucket="costs", Key=found["Key"])["Body"].read())
    assert anywhere(tmp_path / "copies", BOB)
    assert anywhere(tmp_path / "copies", ADA) == []


def test_an_old_ledger_in_a_bucket_is_upgraded(bucket, tmp_path):
    old_ledger.write(tmp_path / "old", [[call(1), call(2)]], ["a.jsonl"])
    for path in (tmp_path / "old").rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), "costs", f"ledger/{path.relative_to(tmp_path / 'old').as_posix()}")
    ledger = Ledger("s3://costs/ledger")
    assert (totals(ledger)[0], ledger.append([call(2), call(3)]).imported, verify(ledger)) == (2, 1, [])
    body = bucket.get_object(Bucket="costs", Key="ledger/farthing.json")["Body"].read()
    assert json.loads(body) == {"format": 2}
