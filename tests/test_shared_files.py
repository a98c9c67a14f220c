"""SQLite files that several processes open at once: the queue of batches and the store of budgets."""

import subprocess
import sys
import time

import pytest

from farthing.gateway._batch_clock import HOUR
from farthing.gateway._batch_queue import Group, New, Queue

PROCESSES, FILES, APART_S = 4, 25, 0.03
OPENED = {
    "queue": "from farthing.gateway._batch_queue import Queue as opened",
    "budgets": "from farthing.gateway._budget_store import Sqlite as opened",
}
OPENS = """
import sys, time
from pathlib import Path
{opened}

begins = float(sys.argv[2])
for number in range({files}):
    time.sleep(max(0, begins + number * {apart} - time.time()))
    opened(Path(sys.argv[1], str(number))).close()
"""


@pytest.mark.parametrize("what", OPENED)
def test_a_new_file_may_be_opened_by_many_at_once(what, tmp_path):
    script = OPENS.format(opened=OPENED[what], files=FILES, apart=APART_S)
    begins = time.time() + 2  # when all have started
    words = [sys.executable, "-c", script, str(tmp_path), str(begins)]
    running = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(PROCESSES)]
    assert [each.communicate(timeout=60)[1] for each in running] == [""] * PROCESSES


def test_a_queue_opened_twice_in_a_process_is_still_held(tmp_path):
    """Else another process that closes it takes the log away, and what is written from then on with it."""
    queue = Queue(tmp_path)
    Queue(tmp_path).close()
    elsewhere = f"from farthing.gateway._batch_queue import Queue\nqueue = Queue({str(tmp_path)!r})\n"
    subprocess.run([sys.executable, "-c", elsewhere + "queue.close()"], check=True, timeout=60)
    queue.accept([New("one", Group("bedrock", "m", "Converse"), b"{}", queue.now_us() + HOUR)])
    said = subprocess.check_output([sys.executable, "-c", elsewhere + "print(queue.counts())"], timeout=60)
    assert said.decode().strip() == "{'waiting': 1}"
