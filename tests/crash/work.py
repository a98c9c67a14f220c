"""What a test kills: an import whose batches are small, so that it makes many commits, or a compaction.

python work.py import|compact|both LEDGER LOGS
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from farthing.api import import_paths
from farthing.importers import _reading
from farthing.ledger import Ledger, compact

BATCH_RECORDS = 40
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def main(task: str, folder: str, logs: str) -> None:
    _reading.BATCH_RECORDS, _reading.TASK_FILES = BATCH_RECORDS, 1
    print("ready", flush=True)
    ledger = Ledger(folder)
    if task in ("compact", "both"):
        compact(ledger)
    if task in ("import", "both"):
        done = import_paths(ledger, sorted(Path(logs).iterdir()), now=NOW, workers=0)
        assert not done.errors, done.errors
    if task == "both":
        compact(ledger)
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
