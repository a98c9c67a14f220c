"""What a person reads: every report, printed, over a small made-up month. `make golden` accepts a change."""

import inspect
import io
import re
from dataclasses import replace
from datetime import date

import pytest
from rich.console import Console

from farthing import demo, render
from farthing.api import import_paths
from farthing.cells import Question
from farthing.config import Budget, Config, Residency
from farthing.ledger import Ledger
from farthing.reports import REPORTS
from farthing.usage import EPOCH

KEYS = ("model", "endpoint")
POLICY = Residency(allow=("geo:us", "global", "in_region:us-*"), accounts=("111122223333",))
LABS = Budget("labs", 40, where=("account=777788889999",))
ASKED = Question(tz="Europe/Berlin", config=Config(residency=(POLICY,), budgets=(Budget("all", 20), LABS)))
ON_A_DAY = dict.fromkeys(
    ("anomalies", "budgets", "forecast"), date(2026, 10, 20)
)  # or they would ask the clock


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("month")
    demo.write_logs(folder / "logs", calls=1_500, seed=11)
    made = Ledger(folder / "ledger")
    done = import_paths(made, [folder / "logs"], now=EPOCH.replace(year=2026, month=11))
    assert done.imported == 1_500
    return made


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_reads_as_it_did(name, ledger, golden):
    extra = {"keys": KEYS} if "keys" in inspect.signature(REPORTS[name].make).parameters else {}
    table = REPORTS[name].make(ledger, replace(ASKED, until=ON_A_DAY.get(name)), **extra)
    out = io.StringIO()
    render.print_table(table, Console(file=out, width=150, highlight=False, color_system=None))
    text = re.sub(r"price book \w{12}", "price book ...", out.getvalue())
    text = "\n".join(line.rstrip() for line in text.splitlines()).strip() + "\n"
    golden(f"tests/golden/reports/{name}.txt", text)
    golden(f"tests/golden/reports/{name}.csv", render.to_csv(table))
