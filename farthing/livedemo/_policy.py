"""The policy of the second run: what `farthing savings` advises on the first, put into force as `--apply` does it.

Beside it stands one entry by hand, which the residency refuses: what people wrote stays.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from farthing.cells import Question
from farthing.config import load as load_config
from farthing.ledger import Ledger
from farthing.livedemo._day import DAY
from farthing.policy import write

if TYPE_CHECKING:
    from farthing.traces import Source

NAME = "farthing-policy.toml"
VERDICT = "verdict.json"
APPS = ("triage", "chat", "nightly", "agents", "people")
KEPT = "people"  # in Europe, by the residency, whatever the policy says
APPROVER, EXPIRES = "Ada", "2100-01-01"
_ALLOWED = {  # by their owners, in farthing.toml
    "triage": f'models = ["claude-haiku-4-5"]\ngate = "{VERDICT}"\nallow = ["global"]\n',
    "chat": 'allow = ["global"]\n',
    "nightly": 'deadline = "24h"\nallow = ["global"]\n',
    "agents": 'allow = ["global"]\n',
}
_BY_HAND = f"""[workloads.{KEPT}]
tags = ["team={KEPT}"]

[[entries]]
workload = "{KEPT}"
lever = "endpoint"
endpoint = "global"
was = "regional"
approver = "{APPROVER}"
approved_at = "2026-11-01"
expires = "{EXPIRES}"
reason = "by hand, and not thought of the residency"
"""


def begin(folder: Path) -> None:
    """What a person has written: farthing.toml, a verdict on another model, and an entry of the policy."""
    (folder / "farthing.toml").write_text(settings(), encoding="utf-8")
    (folder / NAME).write_text(_BY_HAND, encoding="utf-8")
    verdict = {
        "from": "claude-sonnet-4-6", "to": "claude-haiku-4-5", "workload": "triage", "verdict": "not inferior",
        "says": "made up for the demo, as all of it is: what levers do to a bill, not how good answers are",
    }  # fmt: skip
    (folder / VERDICT).write_text(json.dumps(verdict, indent=2) + "\n", encoding="utf-8")


def settings() -> str:
    """farthing.toml: the workloads with what is allowed to be done to them, and who may not leave Europe."""
    workloads = "".join(
        f'[workloads.{app}]\ntags = ["team={app}"]\n{_ALLOWED.get(app, "")}\n' for app in APPS
    )
    team = f'[teams.{KEPT}]\ntags = ["team={KEPT}"]\n\n'
    return f'{workloads}{team}[[residency]]\nteams = ["{KEPT}"]\nallow = ["geo:eu"]\n'


def apply(folder: Path, ledger: Ledger, asked: Question) -> None:
    """`farthing savings --bodies off --apply`, at the beginning of the day."""
    from farthing.optimise import savings

    config = load_config(folder / "farthing.toml")
    plan = savings(ledger, replace(asked, config=config), bodies=_logs(folder / "off"), key=b"farthing demo")
    write(
        [advice for advice in plan.advice if advice.counts], folder / NAME, APPROVER, EXPIRES, now=DAY,
        config=config, book=asked.book.digest,
    )  # fmt: skip


def _logs(folder: Path) -> Iterator[Source]:
    """The first run's invocation logs, with the bodies of its requests."""
    from farthing.traces import Source

    for path in sorted(folder.rglob("AWSLogs/**/*.json.gz")):
        lines = gzip.decompress(path.read_bytes()).splitlines()
        if lines:
            yield Source(str(path), lines[0], enumerate(lines, 1), lambda _: None)
