"""The ledger: each call once, whatever comes in, in whatever order, from however many writers, killed or not."""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.ledger import FORMAT, Calls, Ledger, LedgerError, SourceFile, better
from farthing.meters import METERS
from farthing.usage import EPOCH, Facts, Usage

ROOT = Path(__file__).resolve().parent.parent
NOON = datetime(2026, 9, 30, 12, tzinfo=UTC)
OPUS, SONNET = "anthropic.claude-opus-5", "anthropic.claude-sonnet-5"


def call(
    message="m1", request="r1", output=10, *, at=NOON, source="claude_code", side=False, tags=(), **facts
) -> Usage:
    """A call of one part: 1 token in, `output` out, 3 read, 4 and 5 written."""
    part = (Facts(source, model_id=OPUS, **facts), (1, output, 3, 4, 5))
    return Usage((at - EPOCH) // timedelta(microseconds=1), request, message, (part,), tags, None, side)


def log(message="m1", request="r1", output=10, **more) -> Usage:
    return call(message, request, output, source="bedrock_log", **more)


def totals(ledger: Ledger) -> tuple[int, ...]:
    """(calls, input, output, ...): the plain sum over all rows."""
    sums = ", ".join(f"coalesce(sum({name}), 0)" for name in ("calls", *METERS))
    return ledger.rows().aggregate(sums).fetchall()[0]


def each(*usages: Usage) -> tuple[int, ...]:
    """What `totals` should be for these calls."""
    tokens = [tokens for usage in usages for _, tokens in usage.parts]
    return (len(usages), *map(sum, zip(*tokens, strict=True))) if tokens else (0,) * 6


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger(tmp_path / "ledger")


# --- one call, many records ------------------------------------------------------------------------


def test_a_new_ledger_is_empty(ledger):
    assert totals(ledger) == each()
    assert ledger.span() is None
    assert ledger.files() == []
    assert ledger.append([]) == ([], 0, 0)


def test_appending_twice_adds_nothing(ledger):
    calls = [call(f"m{i}", f"r{i}", i, tags=(("team", "a"),)) for i in range(50)]
    assert ledger.append(calls).imported == 50
    for again in (ledger, Ledger(ledger.folder)):
        assert again.append(calls) == ([], 0, 50)
        assert totals(again) == each(*calls)
        assert again.rows().aggregate("count(*)").fetchall() == [(50,)]


def test_a_growing_stream_is_one_call_at_all_times_and_a_shorter_copy_a_duplicate(ledger):
    for output in (1, 28, 400):
        added = ledger.append([call(output=output, at=NOON + timedelta(seconds=output))])
        assert (added.imported, added.superseded) == ((1, 0) if output == 1 else (0, 1))
        assert totals(ledger) == each(call(output=output))
    assert ledger.append([call(output=28), call(output=1)]) == ([], 0, 2)
    assert ledger.rows().aggregate("count(*)").fetchall() == [(5,)]  # three records, two reversals


def test_a_reversal_is_its_row_with_counts_negated(ledger):
    ledger.append([call(output=1, tags=(("team", "a"),))])
    ledger.append([call(output=2, tags=(("team", "a"),))])
    counts = ", ".join(f"abs({meter})" for meter in METERS)
    columns = f'epoch_us("at"), ctx, tags, part, request_id, message_id, {counts}'
    row = f"SELECT {columns} FROM rows WHERE output = 1"
    reversal = f"SELECT {columns} FROM rows WHERE reversal"
    ledger.connection.register("rows", ledger.rows())
    assert ledger.connection.execute(row).fetchall() == ledger.connection.execute(reversal).fetchall() != []
    signs = "SELECT calls, reversal, output FROM rows ORDER BY calls, output"
    assert ledger.connection.execute(signs).fetchall() == [(-1, True, -1), (1, False, 1), (1, False, 2)]


SAME_CALL = {
    "the same ids": (call(), call()),
    "no request id": (call("m1", "r1"), call("m1", "")),
    "no message id": (call("m1", "r1"), call("", "r1")),
    "a side-chain copy by another request": (call("m1", "r1"), call("m1", "r2", side=True)),
    "two side-chain copies": (call("m1", "r1", side=True), call("m1", "r2", side=True)),
    "another source's request": (call("m1", "r1"), log("m1", "r2")),
}
TWO_CALLS = {
    "other ids": (call("m1", "r1"), call("m2", "r2")),
    "other messages of one request": (call("m1", "r1"), call("m2", "r1")),
    "other requests of one message": (call("m1", "r1"), call("m1", "r2")),
    "other messages of one request, on a side chain": (call("m1", "r1"), call("m2", "r1", side=True)),
    "other messages of one request, from another source": (call("m1", "r1"), log("m2", "r1")),
    "no id in common": (call("m1", ""), call("", "r1")),
}


@pytest.mark.parametrize("case", SAME_CALL)
@pytest.mark.parametrize("batches", [1, 2])
def test_two_records_of_one_call(ledger, case, batches):
    for records in (SAME_CALL[case], SAME_CALL[case][::-1]):
        folder = Ledger(ledger.folder.with_name(f"ledger{records is SAME_CALL[case]}"))
        for batch in [records] if batches == 1 else [[record] for record in records]:
            folder.append(batch)
        assert totals(folder) == each(call())


@pytest.mark.parametrize("case", TWO_CALLS)
@pytest.mark.parametrize("batches", [1, 2])
def test_two_calls(ledger, case, batches):
    records = TWO_CALLS[case]
    for batch in [records] if batches == 1 else [[record] for record in records]:
        ledger.append(batch)
    assert totals(ledger) == each(*records)
    assert ledger.append(records).duplicates == 2


@pytest.mark.parametrize(
    ("worse", "best"),
    [
        (call(output=400), log(output=10)),  # the log is what is billed
        (call(output=10), call(output=11)),
        (call(output=10, side=True), call(output=10)),
        (call(output=10, side=True), call(output=11, side=True)),
        (log(assumed="ttl"), log()),
        (call(at=NOON + timedelta(seconds=1)), call()),
    ],
)
def test_which_record_is_better(worse, best):
    assert better(best, worse)
    assert not better(worse, best)
    assert not better(best, best)


def test_a_record_that_shows_two_calls_to_be_one(ledger):
    """A log without bodies names no message; only a later export tells which transcript line it is."""
    ledger.append([log("", "aws-1"), call("m1", "r1")])
    assert totals(ledger)[0] == 2  # nothing tells yet
    ledger.append([call("m2", "r2"), log("m1", "aws-1")])
    assert totals(ledger) == each(log("m1", "aws-1"), call("m2", "r2"))
    assert ledger.append([call("m1", "r1"), log("", "aws-1")]).duplicates == 2
    assert totals(ledger)[0] == 2


def test_a_call_is_found_by_every_id_it_was_seen_under(ledger):
    ledger.append([log("", "r1")])
    ledger.append([call("m1", "r1")])  # adds nothing but the message's name
    assert ledger.append([call("m1", "")]).duplicates == 1
    assert ledger.append([call("m1", "r9", side=True)]).duplicates == 1
    assert totals(ledger) == each(log())


def test_two_that_were_taken_for_two_calls_become_one(ledger):
    """A call is looked for within a day of a record: a copy from later looks like another call, until one between."""
    other = call("m9", "r9", 100)
    ledger.append([call(output=5)])
    ledger.append([call(output=6, at=NOON + timedelta(hours=36))])
    assert totals(ledger)[0] == 2
    assert ledger.append([call(output=5, at=NOON + timedelta(hours=18)), other]).imported == 1
    assert totals(ledger) == each(call(output=6), other)


def test_a_fuller_side_chain_copy_leaves_the_call_its_request(ledger):
    first, second = call("m1", "r1", 5), call("m1", "r2", 6)
    ledger.append([first, second])
    ledger.append([call("m1", "r1", 9, side=True)])
    other = call("m3", "r3", 100)
    assert ledger.append([first, other]).imported == 1
    assert totals(ledger) == each(call(output=9), second, other)


def test_parts_are_reversed_together(ledger):
    def parts(*counts: int) -> Usage:
        models = (SONNET, OPUS, SONNET)
        facts = [Facts("claude_code", model_id=model) for model in models]
        return call()._replace(parts=tuple((facts[i], (1, count, 0, 0, 0)) for i, count in enumerate(counts)))

    def by_model() -> Counter:
        con = ledger.connection
        con.register("r", ledger.rows())
        con.register("c", ledger.contexts())
        found = con.execute("SELECT model_id, sum(output) FROM r JOIN c USING (ctx) GROUP BY ALL").fetchall()
        return Counter(dict(found))

    ledger.append([parts(5, 6)])
    assert (totals(ledger)[0], by_model()) == (1, {SONNET: 5, OPUS: 6})
    ledger.append([parts(5, 6, 7)])
    assert (totals(ledger)[0], by_model()) == (1, {SONNET: 12, OPUS: 6})
    ledger.append([parts(100)])
    assert totals(ledger)[0] == 1
    assert +by_model() == {SONNET: 100}
    assert ledger.append([parts(100), parts(5, 6, 7)]).duplicates == 2


def test_equal_parts_are_kept_apart(ledger):
    twice = call()._replace(parts=call().parts * 2)
    ledger.append([twice])
    assert ledger.append([twice]).duplicates == 1
    ledger.append([call(output=50)])
    assert totals(ledger) == each(call(output=50))


def test_tags_go_with_their_record(ledger):
    first = (("env", "prod"), ("team", "search"))
    second = (("team", "ads; x=\"é'\u2028"),)
    ledger.append([call(tags=first), call("m2", "r2", tags=first)])
    ledger.append([call(output=20, tags=second), call("m3", "r3")])

    def output_of(key: str, value: str) -> int:
        con = ledger.connection
        con.register("r", ledger.rows())
        con.register("t", ledger.table("tags"))
        query = "SELECT coalesce(sum(output), 0) FROM r JOIN t USING (tags) WHERE key = ? AND value = ?"
        return con.execute(query, [key, value]).fetchall()[0][0]

    assert output_of("team", "search") == output_of("env", "prod") == 10
    assert output_of(*second[0]) == 20
    assert totals(ledger) == each(call(output=20), call(), call())


def test_appends_across_months(ledger):
    midnight = datetime(2026, 10, 1, tzinfo=UTC)
    times = [midnight - timedelta(microseconds=1), midnight, datetime(2026, 12, 31, 23, tzinfo=UTC)]
    for i, at in enumerate(times):
        ledger.append([call(f"m{i}", f"r{i}", at=at)])
    ledger.append([call("m0", "r0", 99, at=midnight)])  # the end of its stream came after midnight
    assert totals(ledger) == each(call(output=99), call(), call())
    assert ledger.span() == (times[0], times[-1])
    months = {path.name for path in (ledger.folder / "usage").glob("month=*")}
    assert months == {"month=2026-09", "month=2026-10", "month=2026-12"}


def test_the_same_code_for_the_same_facts_from_two_writers(ledger):
    first, second = Ledger(ledger.folder), Ledger(ledger.folder)
    for writer in (first, second):
        assert writer.append([call("m0", "r0")]).imported == (writer is first)
    first.append([call("m1", "r1", session="s", tags=(("a", "b"),))])
    second.append([call("m2", "r2", session="s", tags=(("a", "b"),))])
    assert len(ledger.contexts().fetchall()) == 2
    assert ledger.table("tags").distinct().aggregate("count(*)").fetchall() == [(1,)]


# --- any order, any batches ------------------------------------------------------------------------


@st.composite
def worlds(draw):
    """Records of a few calls as sources tell them, and what the calls come to: (calls, output)."""
    records, outputs = [], []
    for i in range(draw(st.integers(1, 4))):
        message, request = f"m{i}", f"r{draw(st.sampled_from((i, 0)))}"  # some calls share a request id
        final = draw(st.integers(1, 9))
        grown = draw(st.lists(st.integers(0, final), max_size=3))
        records += [
            call(message, request, output, at=NOON + timedelta(seconds=output)) for output in (*grown, final)
        ]
        records += [call(message, "", output) for output in grown if draw(st.booleans())]
        records += [
            call(message, f"s{i}", min(final, output), side=True) for output in grown if draw(st.booleans())
        ]
        if draw(st.booleans()):
            billed = draw(st.integers(1, 9))
            records.append(log(message, f"aws{i}", billed))
            records += [log("", f"aws{i}", billed)] * draw(st.integers(0, 1))
            final = billed
        outputs.append(final)
    return draw(st.permutations(records)), (len(outputs), sum(outputs))


@settings(max_examples=300)
@given(worlds())
def test_any_order_gives_the_same_calls(world):
    records, expected = world
    calls = Calls()
    calls.extend(records)
    assert (len(calls.best), sum(usage.parts[0][1][1] for usage in calls.best)) == expected
    assert len(calls.best) + calls.superseded + calls.duplicates >= len(records)


@settings(max_examples=10)
@given(worlds(), st.lists(st.integers(0, 20), max_size=3))
def test_any_order_and_any_batches_give_the_same_totals(world, cuts):
    records, expected = world
    edges = [0, *sorted(min(cut, len(records)) for cut in cuts), len(records)]
    with tempfile.TemporaryDirectory() as folder:
        for start, end in pairwise(edges):
            Ledger(folder).append(records[start:end])
        calls, _, output, *_ = totals(Ledger(folder))
        assert (calls, output) == expected
        assert Ledger(folder).append(records).imported == 0


# --- several writers -------------------------------------------------------------------------------


class Meanwhile(list):
    """Records whose writer is held up, just when it has looked at the ledger, while something else happens."""

    def __init__(self, records, happens, times=1):
        super().__init__(records)
        self.happens, self.times = happens, times

    def __iter__(self):
        if self.times:
            self.times -= 1
            self.happens()
        return super().__iter__()


@pytest.mark.parametrize("before", [[], [call("m0", "r0")]], ids=["at the first commit", "later"])
@pytest.mark.parametrize("session", ["", "another"])
def test_a_writer_who_was_overtaken_looks_again(ledger, before, session):
    ledger.append(before)
    other = Ledger(ledger.folder)
    held = Meanwhile([call(), call("m2", "r2")], lambda: other.append([call(output=50, session=session)]))
    added = Ledger(ledger.folder).append(held)
    assert (added.imported, added.duplicates) == (1, 1)
    assert totals(ledger) == each(*before, call(output=50), call("m2", "r2"))
    assert len(ledger.contexts().fetchall()) == (2 if session else 1)


def test_a_writer_who_is_overtaken_again_and_again_gives_up_in_one_line(ledger):
    numbers = iter(range(100))
    other = Ledger(ledger.folder)
    other.append([call("m", "r")])
    busy = Meanwhile([call()], lambda: other.append([call(f"n{next(numbers)}", "")]), times=100)
    with pytest.raises(LedgerError, match="3 commits in a row met another writer's; try again"):
        ledger.append(busy, attempts=3)
    assert "m1" not in {row[0] for row in ledger.rows().project("message_id").fetchall()}


WRITER = """
import sys
from farthing.ledger import Ledger
from farthing.usage import Facts, Usage

folder, name, first, last, step = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
sys.stdin.readline()  # the starting gun
ledger = Ledger(folder)
for start in range(first, last, step):
    ledger.append([
        Usage(
            1_790_000_000_000_000 + i, f"r{i}", f"m{i}",
            ((Facts("claude_code", session=f"{name if i % 3 else ''}{i % 5}"), (1, i, 0, 0, 0)),),
            (("n", str(i % 4)),),
        )
        for i in range(start, min(start + step, last))
    ])
    print(start, flush=True)
"""


def writer(folder: Path, name: str, first: int, last: int, step: int) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(folder), name, *map(str, (first, last, step))]
    pipe, env = subprocess.PIPE, os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=env, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def whole(ledger: Ledger, known: range) -> None:
    """Each call of `known` once, and every row with its context and its tags."""
    ledger.connection.register("r", ledger.rows())
    ledger.connection.register("c", ledger.contexts())
    ledger.connection.register("t", ledger.table("tags").distinct())
    query = "SELECT message_id, sum(calls), sum(output) FROM r JOIN c USING (ctx) JOIN t USING (tags) GROUP BY ALL"
    found = {name: (calls, output) for name, calls, output in ledger.connection.execute(query).fetchall()}
    assert found == {f"m{i}": (1, i) for i in known}


def test_processes_that_append_the_same_calls_at_the_same_time(tmp_path):
    folder = tmp_path / "ledger"
    writers = [
        writer(folder, name, *span, 15)
        for name, span in {"a": (0, 90), "b": (30, 120), "c": (0, 120)}.items()
    ]
    for process in writers:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in writers:
        _, said = process.communicate(timeout=120)
        assert (process.returncode, said) == (0, "")
    whole(Ledger(folder), range(120))


def test_a_killed_writer_loses_nothing_and_doubles_nothing(tmp_path):
    folder, moments = tmp_path / "ledger", random.Random(7)
    for _ in range(5):
        process = writer(folder, "a", 0, 400, 4)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        for _ in range(moments.randrange(0, 12)):
            process.stdout.readline()
        try:
            process.wait(timeout=moments.uniform(0, 0.03))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        kept = totals(Ledger(folder))[0]
        whole(Ledger(folder), range(kept))
    process = writer(folder, "a", 0, 400, 100)
    _, said = process.communicate("\n", timeout=120)
    assert (process.returncode, said) == (0, "")
    whole(Ledger(folder), range(400))


def test_threads_that_open_a_new_ledger_at_once(tmp_path):
    def work(number: int) -> None:
        records = [call(f"m{number}", f"r{number}", session=str(number)), call()]
        Ledger(tmp_path / "ledger").append(records)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(2, 8)))
    assert totals(Ledger(tmp_path / "ledger"))[0] == 7


# --- folders ---------------------------------------------------------------------------------------


def one_line(refused) -> str:
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    "found", [{"format": FORMAT + 1}, {"format": "1"}, {}, [FORMAT], None, "x"], ids=repr
)
def test_a_ledger_of_another_format_is_refused(ledger, found):
    (ledger.folder / "farthing.json").write_text(json.dumps(found))
    with pytest.raises(LedgerError, match=f"this farthing reads format {FORMAT}") as refused:
        Ledger(ledger.folder)
    assert str(ledger.folder) in one_line(refused)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"{'format': 1}"], ids=repr)
def test_a_damaged_mark_says_how_to_mend_it(ledger, content):
    ledger.append([call()])
    marker = ledger.folder / "farthing.json"
    marker.write_bytes(content)
    with pytest.raises(LedgerError, match="is damaged: it should hold") as refused:
        Ledger(ledger.folder)
    marker.write_text(one_line(refused).partition("hold ")[2])
    assert totals(Ledger(ledger.folder)) == each(call())


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(LedgerError, match="not empty and no farthing ledger; name another folder") as refused:
        Ledger(tmp_path)
    assert str(tmp_path) in one_line(refused)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_or_a_strange_mark_is_no_ledger(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder" / "farthing.json").mkdir(parents=True)
    for name in ("file", "file/below", "folder"):
        with pytest.raises(LedgerError, match=name) as refused:
            Ledger(tmp_path / name)
        one_line(refused)


def test_an_empty_folder_and_one_whose_maker_was_killed_become_ledgers(tmp_path):
    (tmp_path / "farthing.json.1234").write_text("")
    Ledger(tmp_path).append([call()])
    assert totals(Ledger(str(tmp_path))) == each(call())


@pytest.mark.parametrize(
    "name", ["my ledger", "Übung", "it's", 'a "b"', "#1 + 2 & 3", "a;b,c=d", "~x", ".hidden", "a:b"]
)
def test_a_folder_may_have_any_usual_name(tmp_path, name):
    for output in (1, 2):
        Ledger(tmp_path / name).append([call(output=output)])
    assert totals(Ledger(tmp_path / name)) == each(call(output=2))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a[b]", "a*", "what?", "100%", "a|b", "a^b", "a\\b", "{a}"])
def test_a_folder_that_the_tables_cannot_live_in_is_refused(tmp_path, name):
    with pytest.raises(LedgerError, match="name another folder") as refused:
        Ledger(tmp_path / name / "ledger")
    one_line(refused)
    assert not (tmp_path / name).exists()


def test_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ledger = Ledger("here")
    ledger.append([call()])
    assert totals(Ledger(tmp_path / "here")) == totals(ledger) == each(call())


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [("*.parquet", Path.unlink), ("*.json", lambda path: path.write_text("{"))],
    ids=["a file is gone", "the history is damaged"],
)
def test_a_damaged_table_is_one_line(ledger, pattern, damage):
    ledger.append([call()])
    for path in (ledger.folder / "usage").rglob(pattern):
        damage(path)
    for use in (lambda it: it.rows(), lambda it: it.append([call("m2", "r2")])):
        with pytest.raises(LedgerError, match="cannot read usage") as refused:
            use(Ledger(ledger.folder))
        assert str(ledger.folder) in one_line(refused)


def test_an_unwritable_folder_is_one_line(ledger):
    ledger.append([call()])
    folders = [path for path in (ledger.folder, *ledger.folder.rglob("*")) if path.is_dir()]
    for path in folders:
        path.chmod(0o555)
    try:
        if os.access(ledger.folder, os.W_OK):
            pytest.skip("this user may write anywhere")
        with pytest.raises(LedgerError, match="cannot write") as refused:
            Ledger(ledger.folder).append([call("m2", "r2")])
        one_line(refused)
        assert totals(Ledger(ledger.folder)) == each(call())
        with pytest.raises(LedgerError, match="Permission denied"):
            Ledger(ledger.folder / "another")
    finally:
        for path in folders:
            path.chmod(0o755)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no mount here: {error}")
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_the_ledger_stays_whole(small_disk):
    folder, known = small_disk / "ledger", []

    def fill() -> None:
        for number in range(10_000):
            tags = tuple((f"{number}-{i}", os.urandom(20).hex()) for i in range(50))
            Ledger(folder).append([call(f"m{number}", f"r{number}", number, tags=tags)])
            known.append(number)

    with pytest.raises(LedgerError, match="cannot write") as refused:
        fill()
    assert str(folder) in one_line(refused)
    assert len(known) > 2
    calls, _, output, *_ = totals(Ledger(folder))
    assert (calls, output) == (len(known), sum(known))
    with pytest.raises(LedgerError) as refused:  # no room for another ledger either
        Ledger(small_disk / "another").append([call(tags=(("a", os.urandom(100_000).hex()),))])
    one_line(refused)


# --- files -----------------------------------------------------------------------------------------


def test_a_file_read_again_replaces_what_was_noted(ledger):
    first = SourceFile("a.jsonl", 100, 1, "claude_code", 10, 2, ("3: not JSON", "7: negative"))
    second = SourceFile("b.jsonl", 50, 2, "bedrock_log", 5, 0)
    ledger.note_files([second, first], NOON)
    assert ledger.files() == [first, second]
    grown = first._replace(size=120, mtime_ns=9, read=12, rejected=0, reasons=())
    ledger.note_files([grown], NOON + timedelta(microseconds=1))
    ledger.note_files([], NOON + timedelta(days=1))
    assert Ledger(ledger.folder).files() == [grown, second]


def test_a_note_keeps_the_first_hundred_reasons(ledger):
    reasons = tuple(f'{line}: a reason with "quotes" and ü' for line in range(150))
    ledger.note_files([SourceFile("a.jsonl", 1, 1, "claude_code", 150, 150, reasons)], NOON)
    assert [(found.rejected, found.reasons) for found in ledger.files()] == [(150, reasons[:100])]
