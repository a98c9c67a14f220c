"""What the live cache autopilot makes of recorded sessions: its bill, beside the bound and fixed policies.

    python tools/autopilot.py shared/data/claude_code_kv_traces/sessions.jsonl.gz [--sessions N]

Bodies go through the decisions of gateway and hooks and are billed by the emulator's cache, both in this process.
Amounts are of prompts and answers at the list price of Claude Sonnet 4.6, global.
"""

import argparse
import json
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from farthing.cache import Trace
from tests.piloted import ADAPTIVE, HEAD, SECOND, Cloud, cloud, entry
from tests.replayed import MODEL, RATES, calls, figures, sessions

TTL = HEAD + entry("ttl", 'ttl = "1h"')


def play(
    trace: Trace, policy: str, marked: str = "", most: int = 0, *, named: bool = True
) -> tuple[int, Cloud]:
    """Picodollars of all calls, or of so many. `named`: their client says which session they are of."""
    with tempfile.TemporaryDirectory() as folder:
        sky = cloud(Path(folder), policy)
        start, output = sky.clock.now_us, 0
        for call in islice(calls(trace, marked=marked), most or None):
            sky.clock.now_us = start + call.at_us // SECOND * SECOND
            sky.send(call.body, model=MODEL, session=call.session if named else "")
            output += call.output
        sky.live.close()
        return sky.total._replace(output=output) @ RATES, sky


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("file", type=Path)
    asked.add_argument("--sessions", type=int, default=0)
    said = asked.parse_args()
    trace = sessions(said.file, said.sessions)
    least = figures(trace)
    rows: dict[str, Any] = {
        "calls": trace.requests,
        **{name: round(picos / 1e12, 2) for name, picos in least.items()},
    }
    for name, policy, marked in (
        ("autopilot", ADAPTIVE, ""), ("nameless", ADAPTIVE, ""), ("own_5m", HEAD, "5m"), ("ttl_1h", TTL, "5m"),
    ):  # fmt: skip
        began = time.perf_counter()
        picos, sky = play(trace, policy, marked, named=name != "nameless")
        rows[name] = round(picos / 1e12, 2)
        rows[f"{name}_over"] = round(picos / least["bound"] - 1, 4)
        rows[f"{name}_ms"] = round((time.perf_counter() - began) * 1000 / trace.requests, 1)
        rows[f"{name}_alarms"] = [alarm.says for alarm in sky.live.autopilots.alarms]
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
