"""A ledger that has read a part of its logs, and what all of them come to: what every fault is measured by."""

import os
import shutil
from pathlib import Path
from typing import Any

from farthing.api import import_paths
from farthing.ledger import Ledger, verify
from tests.crash.test_kill import totals, write_logs
from tests.crash.work import NOW

SEED = int(os.environ.get("TORTURE_SEED", "1"))
TIMES = int(os.environ.get("TORTURE", "0"))  # how often each fault is made; 0: as its test has it


class Good:
    """Logs, a ledger that read some of them, and what all of them come to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.logs, self.base = folder, folder / "logs", folder / "base"
        write_logs(self.logs)
        self.paths = sorted(self.logs.iterdir())
        import_paths(Ledger(self.base), self.paths[:6], now=NOW, workers=0)
        whole = folder / "whole"
        import_paths(Ledger(whole), self.paths, now=NOW, workers=0)
        self.expected = totals(whole)

    def copied(self, name: str) -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.base, folder)
        return folder

    def holds(self, ledger: Path | str, *, now: Any = NOW) -> None:
        """Whole as it stands, and after another import as if nothing had happened."""
        assert verify(Ledger(ledger)) == []
        done = import_paths(Ledger(ledger), self.paths, now=now, workers=0)
        assert done.read == done.imported + done.superseded + done.duplicates + done.rejected
        assert totals(ledger) == self.expected  # type: ignore[arg-type]
        assert verify(Ledger(ledger)) == []
