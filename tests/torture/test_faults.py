"""Faults of machines; after each: nothing lost, nothing twice, the ledger verifies, budgets balance.

`make torture` repeats each so often as TORTURE says, `make test` a few times. TORTURE_SEED chooses other moments.
"""

import gzip
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from farthing import aws
from farthing.api import import_paths
from farthing.ledger import Ledger, LedgerError, verify
from farthing.outbox import Result, decode
from tests.crash.test_kill import totals
from tests.crash.work import NOW
from tests.torture import work
from tests.torture.good import SEED, TIMES, Good
from tests.torture.half_s3 import going_wrong

WORK = Path(__file__).with_name("work.py")


# --- the disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """disk("size=4m") mounts a small disk, or again with other options, at tmp_path/disk."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> None:
        said = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(said, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a small disk (only root may): {done.stderr.strip()}")

    if shutil.which("mount") is None:
        pytest.skip("no mount here")
    mount("size=16m")
    yield mount
    subprocess.run(["umount", "-l", str(folder)], check=True)


def one_line(error: Exception) -> None:
    assert "\n" not in str(error), error


def refused(ledger: Path, paths: list[Path]) -> bool:
    """Whether an import said in one line that it cannot write."""
    try:
        import_paths(Ledger(ledger), paths, now=NOW, workers=0)
    except LedgerError as error:
        one_line(error)
        return True
    return False


def test_a_full_disk(good: Good, disk: Any, tmp_path: Path, again: Any) -> None:
    met = 0
    for chance in again(3):
        ledger = tmp_path / "disk/ledger"
        shutil.rmtree(ledger, ignore_errors=True)
        shutil.copytree(good.base, ledger)
        used = sum(path.stat().st_blocks * 512 for path in ledger.rglob("*")) // 1024
        disk(f"remount,size={used + chance.randrange(8, 250)}k")
        met += refused(ledger, good.paths)
        assert verify(Ledger(ledger)) == []
        disk("remount,size=16m")
        good.holds(ledger)
    assert met


def test_a_disk_that_may_not_be_written(good: Good, disk: Any, tmp_path: Path, again: Any) -> None:
    for chance in again(1):
        ledger = tmp_path / "disk/ledger"
        shutil.rmtree(ledger, ignore_errors=True)
        shutil.copytree(good.base, ledger)
        refused(ledger, good.paths[: chance.randrange(len(good.paths))])
        disk("remount,ro")
        before = totals(ledger)
        assert refused(ledger, good.paths) or before == good.expected
        assert (totals(ledger), verify(Ledger(ledger))) == (before, [])
        disk("remount,rw")
        good.holds(ledger)


def told(argv: list[str], *others: int) -> tuple[int, str]:
    """How a command ended: done, or refused in one line; or in a way that is not ours, of those named."""
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 2, *others), done.stderr
    if done.returncode == 2:
        assert done.stderr.startswith("farthing: ")
        assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.returncode, done.stderr


ABORTED = (-signal.SIGABRT,)  # Rust ends a process that gets no memory (decision 0141), as a kill would


def starved(kind: str, good: Good, ledger: Path, bound: int, command: str = "import") -> int:
    before = ledger.with_name(f"{ledger.name}-before")
    shutil.rmtree(before, ignore_errors=True)
    shutil.copytree(good.base, before)
    logs = [str(good.logs)] if command == "import" else []
    words = [str(WORK), kind, str(bound), str(ledger), *command.split(), *logs]
    return told(words, *ABORTED if kind == "memory" else ())[0]


def test_files_that_may_not_grow(good: Good, again: Any) -> None:
    ends: list[int] = []
    for chance in again(1):
        ledger = good.copied("bounded")
        ends.append(starved("files", good, ledger, chance.randrange(50, 150_000 if ends else 90_000)))
        good.holds(ledger)
    assert 2 in ends, "no import was refused a byte"


def test_no_memory_left(good: Good, again: Any) -> None:
    ends: list[int] = []
    for chance in again(12):
        if 2 in ends and not TIMES:
            break  # until one is refused in words: an import may be aborted as well
        ledger = good.copied("hungry")
        few = not TIMES or not ends
        command = "import" if few else chance.choice(("import", "bill", "by model,day", "ledger verify"))
        ends.append(starved("memory", good, ledger, chance.randrange(1, 2 if few else 20) << 20, command))
        good.holds(ledger)
    assert 2 in ends, "every command had all the memory it wanted"


def test_less_memory_than_libraries_begin_with(good: Good, again: Any) -> None:
    """They abort, crash or hang, and say nothing of use: so none is begun."""
    limit = "import os, resource, sys; n = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_AS, (n, n)); "
    limit += "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    for chance in again(1):
        ledger, most = good.copied("small"), chance.randrange(250 << 20, 1 << 30)
        argv = ["-m", "farthing", "import", str(good.logs), "--ledger", str(ledger)]
        code, line = told(["-c", limit, str(most), *argv])
        assert code == 2
        assert "MB of memory are allowed here: `ulimit -v" in line
        good.holds(ledger)


# --- torn files ----------------------------------------------------------------------------------------------------


def test_a_torn_file_of_the_ledger(good: Good, again: Any) -> None:
    """It is named by verify or makes no difference; when it is whole again, so is the ledger."""
    named = 0
    for chance in again(8):
        ledger = good.copied("torn")
        path = chance.choice([path for path in sorted(ledger.rglob("*")) if path.is_file()])
        whole, before = path.read_bytes(), totals(ledger)
        path.write_bytes(whole[: chance.randrange(len(whole))] if whole else b"")
        faults = verify(Ledger(ledger))
        assert all("\n" not in fault.what for fault in faults)
        assert faults or totals(ledger) == before, f"{path} was torn and nobody noticed"
        named += bool(faults)
        path.write_bytes(whole)
        assert (verify(Ledger(ledger)), totals(ledger)) == ([], before)
    assert named


def test_a_torn_source(good: Good, again: Any, tmp_path: Path) -> None:
    """What stood before the tear counts, plain and packed; when the rest has come, all of it once."""
    for chance in again(1):
        ledger = good.folder / "sources"
        shutil.rmtree(ledger, ignore_errors=True)
        folder = tmp_path / "sources"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in good.paths:
            data, packs = path.read_bytes(), chance.random() < 0.5
            data = gzip.compress(data, mtime=0) if packs else data
            size = chance.randrange(len(data) + 1) if chance.random() < 0.5 else len(data)
            (folder / (path.name + ".gz" * packs)).write_bytes(data[:size])
            if not packs and chance.random() < 0.2 and data[:size].count(b"\n"):
                import_paths(Ledger(ledger), [folder / path.name], now=NOW, workers=0)
        done = import_paths(Ledger(ledger), sorted(folder.iterdir()), now=NOW, workers=0)
        assert done.read == done.imported + done.superseded + done.duplicates + done.rejected
        assert verify(Ledger(ledger)) == []
        later = iter(range(1, 99))
        for path in good.paths:
            packed = folder / f"{path.name}.gz"
            plain = path.read_bytes()
            (packed if packed.exists() else folder / path.name).write_bytes(
                gzip.compress(plain, mtime=next(later)) if packed.exists() else plain
            )
        import_paths(Ledger(ledger), sorted(folder.iterdir()), now=NOW, workers=0)
        assert totals(ledger) == good.expected


def test_clock_steps(good: Good, again: Any) -> None:
    """The clock of the importing machine goes back and forth by weeks between imports."""
    for chance in again(1):
        ledger = good.copied("clock")
        for _ in range(4):
            some = chance.sample(good.paths, chance.randrange(1, len(good.paths)))
            now = NOW + timedelta(hours=chance.randrange(-300, 2_000))
            import_paths(Ledger(ledger), sorted(some), now=now, workers=0)
            assert verify(Ledger(ledger)) == []
        good.holds(ledger, now=NOW + timedelta(days=chance.randrange(-10, 10)))


# --- budgets -------------------------------------------------------------------------------------------------------


def test_budgets_of_a_gateway_that_is_killed(tmp_path: Path, again: Any, record_property: Any) -> None:
    """Spent and held are what the outbox says: at once within a call, and exactly when results were posted again."""
    record_property("kills", TIMES or 3)
    for chance in again(3):
        folder = tmp_path / f"{chance.random()}"
        folder.mkdir()
        with subprocess.Popen(
            [sys.executable, str(WORK), "budget", str(folder)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(chance.uniform(0.001, 0.15))
            child.kill()
        lines = [
            decode(line) for path in (folder / "outbox").glob("*.jsonl")
            for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")
        ]  # fmt: skip
        answered = {line.gateway_id for line in lines if isinstance(line, Result)}
        asked = {line.gateway_id for line in lines}
        budgets, minute = work.budgets_of(folder), 60_000_000
        for state in budgets.state(work.AT_US):
            least = len(answered) * work.COST + len(asked - answered) * work.CEILING
            assert 0 <= state.spent + state.held - least <= 2 * work.CEILING, "more than one call apart"
        for name in sorted(answered):
            budgets.post(name, work.COST, work.AT_US)  # as who starts again does; twice is once
        spent = len(answered) * work.COST
        for state in budgets.state(work.AT_US):
            assert state.spent == spent
            # a hold whose intent was not written yet
            assert 0 <= state.held - len(asked - answered) * work.CEILING <= work.CEILING
        held = budgets.state(work.AT_US)[0].held
        budgets.expire(work.AT_US + minute)
        assert {(one.spent, one.held) for one in budgets.state(work.AT_US)} == {(spent + held, 0)}
        budgets.close()


# --- S3 ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def faulty_s3(moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A bucket behind a proxy that goes wrong when it is told to."""
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with going_wrong(moto, random.Random(SEED)) as proxy:
        for name, value in {
            "AWS_ENDPOINT_URL": proxy.url, "AWS_ACCESS_KEY_ID": "made", "AWS_SECRET_ACCESS_KEY": "up",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": str(tmp_path / "none"),
            "AWS_EC2_METADATA_DISABLED": "true", "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        for held in (aws._session, aws._client):
            held.cache_clear()
        aws._REGIONS.clear()
        client = boto3.client("s3", endpoint_url=moto)
        client.create_bucket(Bucket="torture")
        yield proxy, client
        for held in (aws._session, aws._client):
            held.cache_clear()
        aws._REGIONS.clear()


def test_a_bucket_that_goes_wrong(good: Good, faulty_s3: Any, again: Any) -> None:
    """Sources and ledger in it: what an import could not do is told in lines, and the next one does it."""
    proxy, client = faulty_s3
    some = good.paths[: 12 if TIMES else 4]
    for path in some:
        client.upload_file(str(path), "torture", f"logs/{path.name}")
    expected, met = None, 0
    for number, chance in enumerate(again(1)):
        ledger = f"s3://torture/ledger-{number}"
        for rate in (0.5, 0.25, 0.1) if TIMES else (0.4,):
            proxy.rate = rate * chance.random()
            try:
                done = import_paths(Ledger(ledger), ["s3://torture/logs/"], now=NOW, workers=0)
                assert done.read == done.imported + done.superseded + done.duplicates + done.rejected
            except (LedgerError, OSError) as error:
                one_line(error)
        proxy.rate = 0
        assert verify(Ledger(ledger)) == []
        import_paths(Ledger(ledger), ["s3://torture/logs/"], now=NOW, workers=0)
        if expected is None:
            import_paths(Ledger(good.folder / "some"), some, now=NOW, workers=0)
            expected = totals(good.folder / "some")
        assert totals(ledger) == expected  # type: ignore[arg-type]
        assert verify(Ledger(ledger)) == []
        met = proxy.met.total() - proxy.met[""]
    assert met, "nothing went wrong"
