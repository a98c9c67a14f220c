"""Files that are not what they were: an outbox torn by a loss of power, links that lead elsewhere from one moment on.

After each: nothing lost, nothing twice, the ledger verifies.
"""

import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from farthing.api import import_paths
from farthing.gateway import _outbox
from farthing.gateway._outbox import Outbox
from farthing.ledger import Ledger, verify
from farthing.outbox import Intent, Result, Tokens
from tests.crash.test_kill import totals
from tests.crash.work import NOW
from tests.torture.good import TIMES, Good
from tests.torture.work import AT, MODEL

PAGE_BYTES = 4096
ASKED, USED = (9, 60), (7, 30)  # input and output: of an intent at most, of its call in truth


def write(outbox: Outbox, number: int) -> None:
    """A call as a gateway tells it; of one in five the answer never came."""
    said: dict[str, Any] = dict(
        gateway_id=f"g{number}", at=AT, model=MODEL, platform="bedrock", operation="InvokeModel"
    )
    outbox.intent(Intent(**said, expected=Tokens(input=ASKED[0], output=ASKED[1])))
    if number % 5 != 4:
        outbox.result(Result(**said, request_id=f"q{number}", tokens=Tokens(input=USED[0], output=USED[1])))


def log(number: int) -> str:
    """What Bedrock's invocation log says of the same call."""
    # fmt: off
    line = {"schemaType": "ModelInvocationLog", "schemaVersion": "1.0", "timestamp": AT.isoformat(),
            "region": "eu-west-1", "accountId": "111122223333", "requestId": f"q{number}",
            "operation": "InvokeModel", "modelId": MODEL, "requestMetadata": {"farthing_id": f"g{number}"},
            "input": {"inputTokenCount": USED[0]}, "output": {"outputTokenCount": USED[1]}}
    # fmt: on
    return json.dumps(line)


def after_a_loss_of_power(data: bytes, chance: random.Random) -> bytes:
    """Cut short, with pages that were given to the file and never written at its end or within it."""
    synced = chance.randrange(len(data))
    match chance.randrange(4):
        case 0:
            return data[:synced]
        case 1:
            return data[:synced] + bytes(-synced % PAGE_BYTES + PAGE_BYTES * chance.randrange(3))
        case 2:  # the line before is whole
            kept = data[: data.rfind(b"\n", 0, synced) + 1]
            return kept + bytes(PAGE_BYTES)
    start = synced // PAGE_BYTES * PAGE_BYTES
    return (data[:start] + bytes(min(PAGE_BYTES, len(data) - start)) + data[start + PAGE_BYTES :])[
        : len(data)
    ]


def said(data: bytes) -> Iterator[tuple[str, str]]:
    """Which lines are whole: of which call, and whether it is asked or answered there."""
    for line in data.split(b"\n")[:-1]:
        with suppress(ValueError):
            told = json.loads(line)
            yield told["gateway_id"], told["kind"]


def test_an_outbox_after_a_loss_of_power(again: Any, tmp_path: Path) -> None:
    """What is whole counts, what is not is no call of its own, and the invocation log has the rest."""
    for number, chance in enumerate(again(2)):
        folder, ledger = tmp_path / f"outbox-{number}", tmp_path / f"ledger-{number}"
        outbox, calls = Outbox(folder, fsync="os"), chance.randrange(20, 60, 5)
        for call in range(calls):
            write(outbox, call)
        outbox.close()
        (path,) = folder.iterdir()
        path.write_bytes(after_a_loss_of_power(path.read_bytes(), chance))
        whole = list(said(path.read_bytes()))
        restarted = Outbox(folder, fsync="os")
        write(restarted, calls)
        restarted.close()
        done = import_paths(Ledger(ledger), [folder], now=NOW, workers=0)
        assert done.read == done.imported + done.superseded + done.duplicates + done.rejected
        assert all("loss of power" in line for line in done.errors)
        answered = 1 + sum(kind == "result" for _, kind in whole)
        still = len({call for call, _ in whole}) + 1 - answered
        assert totals(ledger)[:3] == tuple(
            answered * used + still * asked for used, asked in zip((1, *USED), (1, *ASKED), strict=True)
        )
        assert verify(Ledger(ledger)) == []
        (tmp_path / "log.jsonl").write_text("".join(log(call) + "\n" for call in range(calls + 1)))
        for _ in range(2):
            import_paths(Ledger(ledger), [tmp_path / "log.jsonl", folder], now=NOW, workers=0)
            assert totals(ledger)[:3] == tuple((calls + 1) * each for each in (1, *USED))
        assert verify(Ledger(ledger)) == []


# --- links ---------------------------------------------------------------------------------------------------------


@contextmanager
def led_elsewhere(link: Path, places: list[Path], chance: random.Random) -> Iterator[None]:
    """The link leads to one place, then to the other, at any moment; it is never missing."""
    over = threading.Event()
    link.symlink_to(places[0])

    def turn() -> None:
        while not over.wait(chance.uniform(0, 0.01)):
            draft = link.with_name("draft")
            draft.symlink_to(chance.choice(places))
            draft.replace(link)

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_an_outbox_whose_link_leads_elsewhere(
    again: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_outbox, "MOST_BYTES", 2_000)  # many files
    for number, chance in enumerate(again(1)):
        places = [tmp_path / f"outbox-{number}-{name}" for name in "ab"]
        for place in places:
            place.mkdir()
        link, ledger = tmp_path / f"link-{number}", tmp_path / f"ledger-{number}"
        with led_elsewhere(link, places, chance):
            outbox = Outbox(link, fsync="os")
            for call in range(120):
                write(outbox, call)
                if call % 40 == 20:
                    import_paths(Ledger(ledger), [link], now=NOW, workers=0)
                    assert verify(Ledger(ledger)) == []
            outbox.close()
        import_paths(Ledger(ledger), places, now=NOW, workers=0)
        assert totals(ledger)[:3] == (120, 96 * USED[0] + 24 * ASKED[0], 96 * USED[1] + 24 * ASKED[1])
        assert verify(Ledger(ledger)) == []


def test_a_ledger_whose_link_leads_elsewhere(good: Good, again: Any, tmp_path: Path) -> None:
    """Each of the two is whole, whichever an import was at."""
    for number, chance in enumerate(again(1)):
        places = [good.copied("blue"), good.copied("green")]
        link = tmp_path / f"link-{number}"
        with led_elsewhere(link, places, chance):
            import_paths(Ledger(link), chance.sample(good.paths, 12), now=NOW, workers=0)
        for place in places:
            good.holds(place)


# --- memory --------------------------------------------------------------------------------------------------------


def workers() -> list[int]:
    """Processes that read for this one."""
    children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    named = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, name in named.items() if b"importers._worker" in name]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds its children in /proc")
def test_workers_that_the_kernel_takes(good: Good, again: Any) -> None:
    """Where memory is short it kills the largest: the import names the files that it cost, and the next reads them."""
    told: list[str] = []
    for chance in again(1):
        ledger, left = good.copied("workers"), [chance.randrange(1, 12)]

        def progress(_: int, __: int, chance: random.Random = chance, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0 and (found := workers()):
                os.kill(chance.choice(found), signal.SIGKILL)

        done = import_paths(Ledger(ledger), good.paths, now=NOW, workers=2, progress=progress)
        assert all("import it again" in line for line in done.errors)
        told += done.errors
        good.holds(ledger)
    assert told or TIMES < 10, "no worker had anything to lose"  # a single one may have read it all
