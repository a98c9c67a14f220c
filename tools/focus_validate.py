"""An export of a made-up ledger before the official FOCUS validator, which lives in a .venv-focus of its own.

    python tools/focus_validate.py [FILE.parquet]

The validator needs Python 3.12 and half a gigabyte, ends with 0 whatever it finds, and finds fault with the official
sample too. So its words are read, and rules beyond KNOWN make this end with 1. Without Python 3.12 it is skipped.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-focus"
UV = ROOT / ".venv" / "bin" / "uv"
PACKAGES = ("focus-validator==2.2.1", "pyarrow==17.0.0")  # a newer pyarrow and its numpy do not fit together
RULES = "1.2.0.1"  # what it brings along: others it would fetch

# What holds of Claude on AWS. Of the others (zones, reservations, kinds of accounts) an export has no columns.
CRITERIA = (
    "ACCOUNT_NAMING_SUPPORTED", "MULTIPLE_PRICING_CATEGORIES_SUPPORTED", "NEGOTIATED_PRICING_SUPPORTED",
    "PUBLIC_PRICE_LIST_SUPPORTED", "USAGE_MEASUREMENT_SUPPORTED", "UNIT_PRICING_SUPPORTED", "SUB_ACCOUNT_SUPPORTED",
    "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED", "VIRTUAL_CURRENCY_SUPPORTED", "REGION_SUPPORTED",
    "TAGGING_SUPPORTED",
)  # fmt: skip
KNOWN = {
    "InvoiceId-C-005-C": "holds of charges on an invoice, and ours are on none; the validator asks it of all. "
    "The official sample fails it too",
}


def main(arguments: list[str]) -> int:
    python = next(_pythons(), None)
    if python is None:
        print("skipped: focus-validator needs Python 3.12, and none is here")
        return 0
    validator = _installed(python)
    with tempfile.TemporaryDirectory(prefix="farthing-focus-") as folder:
        file = Path(arguments[0]).resolve() if arguments else _exported(Path(folder))
        said = _validated(validator, file)
    total = re.search(r"Total: (\d+) \| Pass: (\d+) \| Fail: (\d+) \| Skipped: (\d+)", said)
    if not total:
        print(said[-2000:])
        print("the validator did not come to an end")
        return 1
    failed = dict(re.findall(r"❌ (\S+): FAIL +(.*)", said))
    if len(failed) != int(total[3]):
        print(f"{total[3]} rules failed, and {len(failed)} of them could be read")
        return 1
    for rule, why in failed.items():
        print(f"{'known' if rule in KNOWN else 'FAILED'}  {rule}: {KNOWN.get(rule, why)}")
    print(
        f"FOCUS {RULES}: {total[2]} rules hold, {total[3]} fail, {total[4]} do not apply or are not looked at"
    )
    return int(bool(failed.keys() - KNOWN.keys()))


def _pythons() -> Iterator[str]:
    """Interpreters of 3.12 that start: a version manager's shim may not."""
    folders = [
        *os.environ.get("PATH", "").split(os.pathsep),
        *map(str, Path.home().glob(".pyenv/versions/3.12*/bin")),
    ]
    for folder in folders:
        path = Path(folder or ".") / "python3.12"
        asked = [str(path), "-c", "import ensurepip, venv"]
        if path.exists() and not subprocess.run(asked, capture_output=True, check=False).returncode:
            yield str(path)


def _installed(python: str) -> Path:
    """The validator's program, installed on the first run."""
    done = VENV / ".done"
    if not done.exists() or done.read_text() != "\n".join(PACKAGES):
        subprocess.run([UV, "venv", "--quiet", "--clear", "--python", python, VENV], check=True)
        subprocess.run(
            [UV, "pip", "install", "--quiet", "--python", VENV / "bin" / "python", *PACKAGES], check=True
        )
        done.write_text("\n".join(PACKAGES))
    return VENV / "bin" / "focus-validator"


def _validated(validator: Path, file: Path) -> str:
    """What it says; it looks for files of its own in the working directory, which must be site-packages."""
    (packages,) = VENV.glob("lib/python3.12/site-packages")
    words = [str(validator), "--data-file", str(file), "--block-download", "--validate-version", RULES,
             "--applicability-criteria", ",".join(CRITERIA)]  # fmt: skip
    ran = subprocess.run(words, cwd=packages, capture_output=True, text=True, check=False, timeout=600)
    return ran.stdout + ran.stderr


def _exported(folder: Path) -> Path:
    """The demo's month, with some use of Claude Platform on AWS, as FOCUS."""
    from farthing.api import import_paths
    from farthing.cells import Question
    from farthing.demo import write_logs
    from farthing.exporters.focus import export
    from farthing.ledger import Ledger
    from farthing.usage import EPOCH, Facts, Usage

    write_logs(folder / "logs", calls=3_000, seed=7)
    ledger = Ledger(folder / "ledger")
    import_paths(ledger, [str(folder / "logs")], now=datetime.now(UTC))
    at = (datetime(2026, 9, 5, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    facts = Facts("litellm", "claude_aws", "claude-opus-5", account="111122223333")
    ledger.append([Usage(at + i, f"c{i}", "", ((facts, (10, 20, 0, 0, 0)),)) for i in range(3)])
    export(ledger, Question(), folder / "focus.parquet", ("team",))
    return folder / "focus.parquet"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
