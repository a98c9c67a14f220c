"""Writing the outbox: each line whole or not there, durable by the policy, and read back by the importer."""

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from farthing.gateway import _outbox
from farthing.gateway._aio import Syncs, Told, syncs
from farthing.gateway._outbox import Fsync, Outbox, OutboxError
from farthing.outbox import Intent, Record, Result, Tokens, decode

AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
MODEL = "global.anthropic.claude-sonnet-4-6"


def intent(name: str) -> Intent:
    return Intent(
        gateway_id=name, at=AT, model=MODEL, platform="bedrock", expected=Tokens(input=10, output=5)
    )


async def durable(outbox: Outbox, position: int) -> None:
    (waiting,) = outbox.syncing([position])
    if waiting is not None:
        await waiting


def result(name: str) -> Result:
    return Result(gateway_id=name, at=AT, model=MODEL, platform="bedrock", tokens=Tokens(input=9, output=3))


def lines(folder: Path) -> list[Record]:
    return [
        decode(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().splitlines()
    ]


@pytest.mark.parametrize("fsync", ["call", "second", "os"])
def test_what_is_written_is_there_for_another_process_at_once(tmp_path: Path, fsync: Fsync) -> None:
    outbox = Outbox(tmp_path / "new" / "folder", fsync=fsync)
    outbox.sync(outbox.intent(intent("a")))
    outbox.result(result("a"))
    assert lines(tmp_path / "new" / "folder") == [intent("a"), result("a")]
    outbox.close()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system whose kernel does not sync by itself."""
    monkeypatch.setattr(_outbox, "syncs", lambda _: None)


@pytest.mark.usefixtures("threads")
def test_many_who_wait_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    real = os.fdatasync

    def slow(fd: int) -> None:
        synced.append(fd)
        time.sleep(0.01)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", slow)
    outbox = Outbox(tmp_path)

    async def call(number: int) -> None:
        await durable(outbox, outbox.intent(intent(f"c{number}")))
        assert synced

    async def calls() -> None:
        await asyncio.gather(*map(call, range(50)))

    asyncio.run(calls())
    assert len(lines(tmp_path)) == 50
    assert 1 <= len(synced) <= 3
    outbox.close()


def by_the_kernel() -> bool:
    async def tried() -> bool:
        return syncs(asyncio.get_running_loop()) is not None

    return asyncio.run(tried())


@pytest.mark.skipif(not by_the_kernel(), reason="no Linux AIO here: pip install caio, on Linux")
def test_the_kernel_syncs_by_itself_for_all_who_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    real = Syncs.begin

    def counted(made: Syncs, fd: int, told: Told) -> None:
        begun.append(fd)
        real(made, fd, told)

    monkeypatch.setattr(Syncs, "begin", counted)
    monkeypatch.setattr(os, "fdatasync", None)  # nobody else does
    outbox = Outbox(tmp_path)

    async def calls() -> None:
        positions = [outbox.intent(intent(f"c{number}")) for number in range(50)]
        await asyncio.gather(*(durable(outbox, position) for position in positions))
        assert outbox._thread is None
        await durable(outbox, outbox.intent(intent("one more")))

    asyncio.run(calls())
    asyncio.run(calls())  # in another loop
    assert len(lines(tmp_path)) == 102
    assert len(begun) <= 6
    monkeypatch.undo()
    outbox.close()


@pytest.mark.skipif(not by_the_kernel(), reason="no Linux AIO here: pip install caio, on Linux")
def test_what_the_kernel_does_not_take_is_for_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe cannot be synced by anybody: threads say so."""
    outbox = Outbox(tmp_path)

    async def wait() -> None:
        await durable(outbox, outbox.intent(intent("first")))
        position, file = outbox.intent(intent("second")), outbox._fd
        reads, outbox._fd = os.pipe()
        with pytest.raises(OutboxError, match="Invalid argument"):
            await durable(outbox, position)
        os.close(reads)
        os.close(file)
        await durable(outbox, outbox.intent(intent("third")))

    asyncio.run(wait())
    outbox.close()


@pytest.mark.skipif(not by_the_kernel(), reason="no Linux AIO here: pip install caio, on Linux")
def test_where_no_file_is_left_threads_sync() -> None:
    """caio says SystemError then."""
    script = """
import asyncio, os, resource
from importlib import import_module
from farthing.gateway._aio import syncs
for kind in ("linux_uring", "linux_aio"):
    import_module(f"caio.{kind}")
async def tried():
    loop = asyncio.get_running_loop()
    assert syncs(loop) is not None
    top = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (top, top))
    os.close(top)
    found = [syncs(loop) for _ in range(50)]
    assert found[-1] is None, found
asyncio.run(tried())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("way", ["alone", "thread", "waits"])
def test_what_could_not_be_synced_once_is_not_taken_for_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Linux tells a fault of the disk to one sync, and the next of the same bytes succeeds."""
    real, faults = os.fdatasync, iter([True])

    def once_broken(fd: int) -> None:
        if next(faults, False):
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(_outbox, "syncs", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", once_broken)
    outbox = Outbox(tmp_path)
    first, second = outbox.intent(intent("first")), outbox.intent(intent("second"))

    async def wait() -> None:
        (waiting,) = outbox.syncing([first], alone=way == "alone")
        assert waiting is not None
        with pytest.raises(OutboxError):
            await waiting
        with pytest.raises(OutboxError, match="a sync failed"):
            await durable(outbox, second)
        await durable(outbox, outbox.intent(intent("third")))

    if way == "thread":
        for position in (first, second):
            with pytest.raises(OutboxError):
                outbox.sync(position)
        outbox.sync(outbox.intent(intent("third")))
    else:
        asyncio.run(wait())
    outbox.close()
    assert [len(file.read_bytes().splitlines()) for file in tmp_path.iterdir()] in ([2, 1], [1, 2])


@pytest.mark.usefixtures("threads")
def test_a_disk_that_refuses_to_sync_is_told_to_all_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    outbox = Outbox(tmp_path)
    outbox.sync(outbox.intent(intent("first")))
    monkeypatch.setattr(os, "fdatasync", broken)

    async def wait() -> None:
        with pytest.raises(OutboxError, match="Input/output error"):
            await durable(outbox, outbox.intent(intent("second")))

    asyncio.run(wait())
    with pytest.raises(OutboxError, match="Input/output error"):
        outbox.sync(outbox.intent(intent("third")))
    monkeypatch.undo()
    outbox.close()


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, fsync="os")
    threads = [
        threading.Thread(target=lambda n=n: [outbox.intent(intent(f"{n}-{i}")) for i in range(200)])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outbox.close()
    assert len({line.gateway_id for line in lines(tmp_path)}) == 1600


def test_a_file_is_followed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outbox, "MOST_BYTES", 1000)
    outbox = Outbox(tmp_path)
    for number in range(30):
        outbox.intent(intent(f"i{number}"))
    outbox.close()
    files = list(tmp_path.glob("*.jsonl"))
    assert len(files) > 3
    assert all(file.stat().st_size < 1500 and file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert len(lines(tmp_path)) == 30


def test_a_child_writes_a_file_of_its_own(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, fsync="second")
    outbox.intent(intent("parent"))
    child = os.fork()
    if not child:
        outbox.intent(intent("child"))
        outbox.sync()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    outbox.intent(intent("parent again"))
    outbox.close()
    assert sorted(len(file.read_bytes().splitlines()) for file in tmp_path.glob("*.jsonl")) == [1, 2]


def fill(outbox: Outbox) -> None:
    for number in range(10):
        outbox.intent(intent(f"i{number}"))


def test_a_full_disk_refuses_intents_and_keeps_results_until_there_is_room(tmp_path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    outbox = Outbox(tmp_path, fsync="os")
    outbox.intent(intent("before"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, before[1]))
    try:
        with pytest.raises(OutboxError):
            fill(outbox)
        outbox.result(result("before"))
        assert not outbox.writable
        assert all(line.gateway_id != "" for line in lines(tmp_path)), "a torn line"
        assert result("before") not in lines(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    outbox.intent(intent("after"))
    assert not outbox.waiting
    assert lines(tmp_path)[-2:] == [result("before"), intent("after")]
    outbox.close()


def test_a_folder_that_was_removed_is_begun_anew(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    outbox.sync(outbox.intent(intent("a")))
    shutil.rmtree(tmp_path / "outbox")
    outbox.result(result("a"))
    outbox.sync(outbox.intent(intent("b")))
    assert lines(tmp_path / "outbox") == [result("a"), intent("b")]
    outbox.close()


def test_results_that_wait_at_the_end_are_written_if_there_is_room_then(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.intent(intent("a"))
    outbox.waiting.append(b"")
    outbox.close()
    with pytest.raises(OutboxError, match="closed"):
        outbox.intent(intent("b"))


WRITER = """
import sys
from tests.test_outbox_writer import intent, result
from farthing.gateway._outbox import Outbox
outbox = Outbox(sys.argv[1], fsync="os")
for number in range(10**9):
    outbox.intent(intent(f"k{number}"))
    outbox.result(result(f"k{number}"))
    if number == 50:
        print("going", flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_file_that_reads(tmp_path: Path) -> None:
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"going\n"
            writer.kill()
    results = sum(isinstance(line, Result) for line in lines(tmp_path))
    intents = sum(isinstance(line, Intent) for line in lines(tmp_path))
    assert intents - 3 <= results <= intents
