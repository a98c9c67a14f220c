"""Advice as entries of the policy file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from farthing.config import Config
from farthing.money import usd
from farthing.policy._file import FIXED, LIVE, Entry, Estimate, Marker, entry_faults

_LEVER_OF = {
    "profile": "endpoint",
    "model": "model",
    "batch": "batch",
    "cache_markers": "cache",
    "ttl": "ttl",
}


class Advised(Protocol):
    """What is asked of an advice: farthing.optimise.Advice has it."""

    @property
    def workload(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def lever(self) -> str: ...
    @property
    def counts(self) -> bool: ...
    @property
    def why_not(self) -> str: ...
    @property
    def advised(self) -> Any: ...  # low, mid, high; or None
    @property
    def saved(self) -> Any: ...  # low, mid, high; or None
    @property
    def calibration(self) -> str: ...
    @property
    def change(self) -> Any: ...  # kind, says, data


class Skipped(NamedTuple):
    """An advice that no entry was made of, and why."""

    name: str
    why: str


class _No(Exception):
    """Why no entry is made of an advice."""


def entries_of(
    advices: Iterable[Advised],
    config: Config | None = None,
    *,
    approver: str,
    expires: str,
    now: datetime,
    reason: str = "",
    state: str = "on",
    share: int = 100,
    keys: Sequence[str] = (),
    book: str = "",
) -> tuple[list[Entry], list[Skipped]]:
    """An entry for each advice that counts; the others, and what no policy can change, with the reason."""
    at = f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    common = {
        "state": state, "share": share, "keys": tuple(keys), "approver": approver,
        "approved_at": at if approver else "", "expires": expires if approver else "", "book": book,
    }  # fmt: skip
    entries: dict[str, Entry] = {}
    skipped = []
    for advice in advices:
        try:
            entry = _entry(advice, config or Config(), common, reason)
            if entry.name in entries:
                raise _No("an advice of the same name stands before it")
            entries[entry.name] = entry
        except _No as why:
            name = "/".join(filter(None, (advice.workload, advice.model, advice.lever)))
            skipped.append(Skipped(name, str(why)))
    return list(entries.values()), skipped


def _entry(advice: Advised, config: Config, common: Mapping[str, Any], reason: str) -> Entry:
    if not advice.counts:
        raise _No(advice.why_not or "it does not count")
    lever = _LEVER_OF.get(advice.change.kind, "")
    if not lever:
        raise _No(f"no policy does that, it is done by hand: {advice.change.says}")
    if " + " in advice.lever:
        raise _No(f"{advice.lever} pay only together, which a policy does not promise: change them by hand")
    entry = Entry(
        advice.workload, lever, advice.model, **common, **_SAID[lever](advice, config),
        reason=reason or advice.change.says, estimate=_estimate(advice), calibration=advice.calibration,
        evidence=digest(advice),
    )  # fmt: skip
    for key, says in entry_faults(entry):
        raise _No(f"{key} {says}")
    return entry


# --- what the change of an advice says, as the keys of an entry ------------------------------------------------------


def _endpoint(advice: Advised, config: Config) -> dict[str, Any]:
    return {"endpoint": advice.change.data.get("routing", "")}


def _model(advice: Advised, config: Config) -> dict[str, Any]:
    workload = config.workloads.get(advice.workload)
    gate = Path(workload.gate) if workload and workload.gate else None
    if gate is None:
        raise _No("no verdict of the quality gate is named in farthing.toml: docs/evaluate.md")
    try:
        verdict = hashlib.sha256(gate.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise _No(f"{gate}: {error.strerror or error}") from error
    return {"use": advice.change.data.get("to_model", ""), "verdict": f"{gate.name} sha256:{verdict}"}


def _batch(advice: Advised, config: Config) -> dict[str, Any]:
    return {"deadline": advice.change.data.get("deadline", "")}


def _cache(advice: Advised, config: Config) -> dict[str, Any]:
    data = advice.change.data
    name, was = data.get("policy", ""), data.get("was", "")
    if name == "none":
        raise _No("only the client can take its cache points away")
    if name in LIVE and name not in FIXED:
        return {"cache_policy": name, "was": was}
    # what marks the same places always is better read as markers
    ttls = {place: ttl for place in ("system", "end") if (ttl := data.get(f"{place}_ttl", ""))}
    return {"markers": tuple(Marker(place, ttl) for place, ttl in ttls.items()), "was": was}


def _ttl(advice: Advised, config: Config) -> dict[str, Any]:
    data = advice.change.data
    lives = {ttl for key in ("system_ttl", "end_ttl") if (ttl := data.get(key, ""))}
    if len(lives) > 1:
        raise _No("its cache points live for different times by place: only the client can tell them apart")
    return {"ttl": "".join(lives), "was": data.get("was", "")}


_SAID = {"endpoint": _endpoint, "model": _model, "batch": _batch, "cache": _cache, "ttl": _ttl}


def _estimate(advice: Advised) -> Estimate:
    """What the step saves, of what the calls come to with the steps before it and without this one."""
    if advice.saved is None or advice.advised is None:
        return Estimate()
    low, mid, high = (usd(picos) for picos in (advice.saved.low, advice.saved.mid, advice.saved.high))
    return Estimate(low, mid, high, usd(advice.advised.mid + advice.saved.mid))


def digest(advice: Advised) -> str:
    """Twelve characters that name what an advice said."""
    return hashlib.sha256(msgspec.json.encode(advice, order="deterministic")).hexdigest()[:12]
