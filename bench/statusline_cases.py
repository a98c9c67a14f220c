"""What Claude Code waits for after each message."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.cases import FARTHING, Result, Sizes, Target, case, ccusage, made
from bench.measure import middle, run, take_turns

_GROWN = {
    "input_tokens": 4, "output_tokens": 300, "cache_read_input_tokens": 60_000, "cache_creation_input_tokens": 900,
}  # fmt: skip


@case
def statusline(sizes: Sizes) -> Result:
    """`farthing statusline`, from start to end, in a session that has grown by a message since the line before.

    The rival is `ccusage statusline --offline` with the same input. The floor is Python doing nothing.
    """
    folder, _ = made("transcripts", min(sizes.transcript_bytes, 16_000_000))
    largest = max(folder.glob("projects/*/*.jsonl"), key=lambda path: path.stat().st_size)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        copy = home / ".claude" / "projects" / "-home-dev-project" / largest.name
        copy.parent.mkdir(parents=True)
        copy.write_bytes(largest.read_bytes())
        env = {
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
            "CLAUDE_CONFIG_DIR": str(home / ".claude"),
        }
        asked = home / "stdin.json"
        asked.write_text(json.dumps(_told(copy)), encoding="utf-8")

        def line(*words: object) -> Callable[[], Any]:
            program = ["sh", "-c", 'exec "$@" < "$0"', str(asked), *map(str, words)]

            def grown() -> Any:
                _grow(copy)
                return run(program, env)

            return grown

        runners = {"farthing": line(*FARTHING, "statusline"), "floor": line(sys.executable, "-c", "pass")}
        if rival := ccusage():
            runners["ccusage"] = line(rival, "statusline", "--offline")
        runners["farthing"]()  # what is there is read once
        taken = take_turns(sizes.starts, runners, sizes.tries)
        size = {"calls": copy.read_bytes().count(b'"usage"'), "bytes": copy.stat().st_size}
    ms = {name: 1_000 * middle(runs, "seconds") for name, runs in taken.items()}
    cpu_ms = 1_000 * middle(taken["farthing"], "cpu_s")
    result = Result(
        "statusline", "ms", ms["farthing"], floor=ms["floor"], rounds=sizes.starts, others=taken.others, size=size
    )  # fmt: skip
    result.peers = {name: ms[name] for name in ms if name == "ccusage"}
    result.targets = [Target("at most 50 ms", ms["farthing"], 50)]
    result.notes = [
        f"{cpu_ms:.0f} ms of a processor. The sums of other sessions are made by a process behind it."
    ]
    return result


def _told(transcript: Path) -> dict[str, Any]:
    """As Claude Code says it."""
    here = "/home/dev/project"
    return {
        "session_id": transcript.stem, "transcript_path": str(transcript), "cwd": here, "version": "2.1.39",
        "hook_event_name": "Status", "model": {"id": "claude-opus-4-6", "display_name": "Opus 4.6"},
        "workspace": {"current_dir": here, "project_dir": here},
        "cost": {"total_cost_usd": 1.5, "total_duration_ms": 45_000, "total_api_duration_ms": 2_300,
                 "total_lines_added": 1, "total_lines_removed": 1},
    }  # fmt: skip


def _grow(transcript: Path) -> None:
    now = datetime.now(UTC)
    number = f"{now:%H%M%S%f}"
    message = {"id": f"msg_{number}", "role": "assistant", "model": "claude-opus-4-6", "usage": _GROWN}
    line = {
        "type": "assistant", "sessionId": transcript.stem, "requestId": f"req_{number}", "version": "2.1.39",
        "timestamp": f"{now:%Y-%m-%dT%H:%M:%S.000Z}", "message": message,
    }  # fmt: skip
    with transcript.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
