"""`make torture`: all faults and KILLS kills, and a table of what each found.  python -m tests.torture.run

KILLS (1000) are of imports, compactions and upgrades, of the gateway, and 60 of the batch runner. TORTURE (20) is how
often each other fault is made; TORTURE_SEED chooses the moments, and is told.
"""

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
KILLED = {"test_kill": "kill -9 of imports, compactions, upgrades", "test_gateway": "kill -9 of the gateway",
          "test_batch": "kill -9 of the batch runner"}  # fmt: skip
OF_BATCH = 60  # as tests/crash/test_batch.py has it


class Table:
    """Counts what was made and what was found, of this process' tests or its workers'."""

    def __init__(self, crashes: int) -> None:
        self.crashes = crashes
        self.times: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.skipped: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said = dict(report.user_properties)
        module = report.nodeid.partition("::")[0].rpartition("/")[2].removesuffix(".py")
        fault = str(said.get("fault") or KILLED.get(module) or report.nodeid)
        if report.skipped:
            self.skipped[fault] = str(report.longrepr).rpartition("Skipped: ")[2][:60]
        if report.when == "call":
            self.times[fault] += int(str(said.get("times") or self._kills(module, report.nodeid)))
        self.found[fault] += report.failed

    def _kills(self, module: str, name: str) -> int:
        many = {"test_gateway": self.crashes // 2, "test_batch": OF_BATCH}.get(module, 1)
        few = {"test_gateway": 3, "test_batch": 5}.get(module, 1)
        return few if f"[{few}-" in name or name.endswith((f"-{few}]", f"-{few}-5]")) else many

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        tell = terminalreporter.write_line
        tell("")
        tell(f"{'fault':58} {'times':>6} {'found':>6}")
        for fault in self.times | self.found:
            tell(f"{fault:58} {self.times[fault]:6} {self.found[fault]:6}  {self.skipped.get(fault, '')}")
        tell(f"{'in all':58} {self.times.total():6} {self.found.total():6}")


def main(argv: list[str]) -> int:
    kills, seed = int(os.environ.get("KILLS", "1000")), os.environ.get("TORTURE_SEED", "1")
    crashes = max(2, (kills - OF_BATCH) // 2)
    os.environ |= {"CRASHES": str(crashes), "CRASH_SEED": seed, "TORTURE_SEED": seed}
    os.environ.setdefault("TORTURE", "20")
    print(f"KILLS={kills} TORTURE={os.environ['TORTURE']} TORTURE_SEED={seed}", flush=True)
    asked = [
        str(HERE),
        str(HERE.parent / "crash"),
        "-q",
        "-m",
        "crash or not crash",
        "-p",
        "no:cacheprovider",
    ]
    return int(pytest.main([*asked, *argv], plugins=[Table(crashes)]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
