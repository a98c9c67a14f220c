"""The policy of the second run: the four rules, each where it is allowed, and what each workload may do by it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

NAME = "farthing-policy.toml"
APPS = ("triage", "chat", "nightly", "agents", "people")
KEPT = "people"  # in Europe, by the residency, whatever the policy says
VERDICT = "made up for the demo: not worse on 40 of 40 tickets"
WORLD = 'endpoint = "global"\nwas = "regional"'
_APPROVED = (
    'approver = "Ada"\napproved_at = "2026-11-01"\nexpires = "2100-01-01"\nreason = "farthing demo live"\n'
)


def write(path: Path) -> None:
    """As a person would write it; docs/policy.md describes the format."""
    path.write_text(workloads() + "\n".join(_entries()), encoding="utf-8")


def settings() -> str:
    """farthing.toml: the workloads, and who may not leave Europe."""
    team = f'[teams.{KEPT}]\ntags = ["team={KEPT}"]\n\n'
    return f'{workloads()}{team}[[residency]]\nteams = ["{KEPT}"]\nallow = ["geo:eu"]\n'


def workloads() -> str:
    """Whose calls are whose."""
    return "".join(f'[workloads.{app}]\ntags = ["team={app}"]\n\n' for app in APPS)


def _entries() -> list[str]:
    cached = f'cache_policy = "{cache_policy()}"'
    return [
        _entry("triage", "model", f'use = "claude-haiku-4-5"\nverdict = "{VERDICT}"', "claude-sonnet-4-6"),
        _entry("triage", "cache", 'markers = [{at = "system", ttl = "1h"}]'),
        _entry("triage", "endpoint", WORLD),
        _entry("chat", "cache", cached),
        _entry("chat", "endpoint", WORLD),
        _entry("nightly", "batch", 'deadline = "24h"\nwas = "on_demand"'),
        _entry("nightly", "endpoint", WORLD),
        _entry("agents", "ttl", 'ttl = "1h"\nwas = "system_end_5m"'),
        _entry("agents", "endpoint", WORLD),
        _entry(KEPT, "endpoint", WORLD),
    ]


def _entry(app: str, lever: str, says: str, model: str = "") -> str:
    of = f'model = "{model}"\n' if model else ""
    return f'[[entries]]\nworkload = "{app}"\nlever = "{lever}"\n{of}{says}\n{_APPROVED}'


def cache_policy() -> str:
    """The best that can run live; the best at fixed places, where nothing compiles it."""
    return "adaptive" if importlib.util.find_spec("numba") else "guarded_5m"
