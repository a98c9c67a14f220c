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
OF_BATCH = 60  # as tests/crash/test_batch.py has it


class Table:
    """Counts what was made and what was found, of this process' tests or its workers'; each test says what it made."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.skipped: dict[str, str] = {}
        self.kills = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said = {name: str(value) for name, value in report.user_properties}
        name = report.nodeid.rpartition("::")[2].partition("[")[0]
        fault = said.get("fault") or name.removeprefix("test_").replace("_", " ")
        if report.skipped:
            self.skipped[fault] = "skipped: " + str(report.longrepr).rpartition("Skipped: ")[2][:60]
        if report.when == "call":
            self.kills += int(said.get("kills", "0"))
            self.times[fault] += int(said.get("times") or said.get("kills") or not report.skipped)
        if report.failed:
            self.found[fault] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        tell = terminalreporter.write_line
        tell("")
        tell(f"{'fault':70} {'made':>6} {'wrong after it':>15}")
        for fault in sorted({*self.times, *self.found, *self.skipped}):
            tell(f"{fault:70} {self.times[fault]:6,} {self.found[fault]:15,}  {self.skipped.get(fault, '')}")
        tell(f"{f'in all, {self.kills:,} of them kills':70} {self.times.total():6,} {self.found.total():15,}")


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
    return int(pytest.main([*asked, *argv], plugins=[Table()]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
