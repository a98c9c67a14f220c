"""The policy file: what it holds, and what cannot be in it. docs/policy.md shows one."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec

from farthing.config import MEMBERS, Members
from farthing.config._shape import Fault, check_shape, line_of, shown
from farthing.config._values import bad_member
from farthing.money import from_usd

NAME = "farthing-policy.toml"
LEVERS = ("model", "batch", "cache", "ttl", "endpoint")  # in the order in which they are decided
STATES = ("on", "shadow", "off")
TTLS = ("5m", "1h")
MOST_MARKERS = 4
# The policies of farthing.cache that can run live; a test holds the two lists together.
LIVE = (
    "none", "end_5m", "end_1h", "system_end_5m", "system_end_1h", "guarded_5m", "guarded_1h", "second_sighting",
    "likely_5m", "fitted_ttl", "pinged_5m", "padded_5m", "first_alone_5m", "adaptive_unpinged", "adaptive",
)  # fmt: skip
_PLACE = re.compile(r"tools|system|end(-[1-9]\d?)?")
_DEADLINE = re.compile(r"[1-9]\d*[mhd]")
_OWN = {  # what an entry of each lever says, besides what all do
    "model": ("use", "verdict", "shadow"),
    "batch": ("deadline", "wait"),
    "cache": ("cache_policy", "markers"),
    "ttl": ("ttl",),
    "endpoint": ("endpoint",),
}
_LATER = ("shadow",)  # keys that entries had not from the beginning: those without keep their sign
# Of them those that mark the same places always; and what clients may have done beside.
FIXED = ("end_5m", "end_1h", "system_end_5m", "system_end_1h")
_CACHED = (*LIVE, "system_5m", "system_1h", "system_1h_end_5m")
_WAS = {"endpoint": ("regional", "geo_us"), "batch": ("on_demand",), "cache": _CACHED, "ttl": _CACHED}


class PolicyError(ValueError):
    """The file cannot be used: one line that names it, the place in it, and the mend."""


class Marker(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A cache point: `at` is tools, system, end, or end-N for so many blocks before the end."""

    at: str
    ttl: str = "5m"


class Estimate(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Dollars that the advice said it saves `of` what the calls came to, in nineteen cases of twenty."""

    low: str = ""
    mid: str = ""
    high: str = ""
    of: str = ""


class Shadow(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """While an entry is in shadow, `sample` percent of its calls are put to the model that it would call, too."""

    sample: int = 0
    budget_usd: str = ""  # that all copies together may cost
    per_minute: int = 6

    def __bool__(self) -> bool:
        return self != Shadow()


class Entry(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One lever on one workload's calls of one model ("" for all). `made` is farthing's sign; people leave it out."""

    workload: str
    lever: str
    model: str = ""
    state: str = "on"
    share: int = 100  # percent of the client keys
    keys: tuple[str, ...] = ()  # client keys that have it whatever the share is
    endpoint: str = ""
    use: str = ""  # the model to call instead
    verdict: str = ""  # of the quality gate on it
    shadow: Shadow = Shadow()
    deadline: str = ""
    wait: str = ""  # of a batch: so long clients wait on an open line; none: they take 202; "": as they say
    cache_policy: str = ""  # of farthing.cache, which decides on markers as traffic comes
    markers: tuple[Marker, ...] = ()
    ttl: str = ""  # of the markers that the client has placed
    was: str = ""  # what calls did before: an endpoint, a model, on_demand, a policy of farthing.cache
    approver: str = ""
    approved_at: str = ""
    expires: str = ""
    reason: str = ""
    estimate: Estimate = Estimate()
    calibration: str = ""  # percent that the replay of then was off
    evidence: str = ""
    book: str = ""
    made: str = ""

    @property
    def name(self) -> str:
        return "/".join(part for part in (self.workload, self.model, self.lever) if part)


class Selectors(Members, forbid_unknown_fields=True, frozen=True):
    """What calls are the workload's, as farthing.toml says it."""

    made: str = ""


class Policy(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A policy file. `version` counts its writings by farthing, of which `by`, `at` and `what` are the last."""

    version: int = 0
    at: str = ""
    by: str = ""
    what: str = ""
    workloads: dict[str, Selectors] = {}
    entries: tuple[Entry, ...] = ()
    path: str = ""

    @property
    def digest(self) -> str:
        """Names what it says, whoever wrote it."""
        said = [self.workloads, self.entries]
        return hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:12]


def load(path: Path | str) -> Policy:
    """The policy of a file; an empty one where there is none. PolicyError names the file, the line and the mend."""
    file = Path(path)
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return Policy(path=str(file))
    except OSError as error:
        raise PolicyError(f"{file}: {error.strerror or error}") from error
    return parse(text, str(file))


def parse(raw: bytes, path: str) -> Policy:
    """The policy of a file's bytes."""
    try:
        text = raw.decode("utf-8-sig")
        said: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        mend = "mend it, or `farthing savings undo` brings the version before it back"
        raise PolicyError(f"{path}: {' '.join(str(error).split())}: {mend}") from error
    fault = next(check_shape(said, Policy, ()), None)
    if fault is None:
        policy = msgspec.convert({**said, "path": path}, Policy)
        fault = next(_values(policy), None)
        if fault is None:
            return policy
    line = line_of(text, fault.place)
    where = f"{shown(fault.place)}: " if fault.place else ""
    raise PolicyError(f"{path}{f':{line}' if line else ''}: {where}{fault.says}")


def instant(text: str) -> datetime:
    """2026-11-23T05:00:00Z, or a day, which stands for its beginning in UTC. ValueError if it is neither."""
    at = datetime.fromisoformat(text)
    if len(text) <= len("2026-11-23"):
        day = date.fromisoformat(text)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    return at.astimezone(UTC)


def sign(made: Entry | Selectors) -> str:
    """What farthing puts into `made`: as long as it fits, nobody has changed the entry."""
    said = msgspec.to_builtins(msgspec.structs.replace(made, made=""))
    for key in _LATER:
        if not getattr(made, key, ""):
            said.pop(key, None)
    return hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:12]


def is_ours(made: Entry | Selectors) -> bool:
    """Whether farthing wrote it, and nobody has changed it since."""
    return bool(made.made) and made.made == sign(made)


# --- values that cannot be -------------------------------------------------------------------------------------------


def _values(policy: Policy) -> Iterator[Fault]:
    if policy.version < 0:
        yield Fault(("version",), "is below 0: leave it out")
    for name, selectors in policy.workloads.items():
        for kind in MEMBERS:
            for number, member in enumerate(getattr(selectors, kind)):
                if says := bad_member(kind, member):
                    yield Fault(("workloads", name, kind, number), says)
    named: dict[str, int] = {}
    for number, entry in enumerate(policy.entries):
        place = ("entries", number)
        for key, says in entry_faults(entry):
            yield Fault((*place, key), says)
        first = named.setdefault(entry.name, number)
        if first != number:
            yield Fault(place, f"{entry.name} is entry {first + 1} too: take one away")


def entry_faults(entry: Entry) -> Iterator[tuple[str, str]]:
    """What is wrong with an entry: the key, and the mend."""
    if not entry.workload.strip():
        yield "workload", "is empty: name one of [workloads], or a fingerprint such as role:NAME"
    if entry.lever not in LEVERS:
        yield "lever", f"{entry.lever!r} is no lever: write {', '.join(LEVERS)}"
        return
    if entry.state not in STATES:
        yield "state", f"{entry.state!r} is no state: write {', '.join(STATES)}"
    if not 0 <= entry.share <= 100:
        yield "share", f"{entry.share} is no share: write percent of the keys, 0 to 100"
    others = {key: lever for lever, keys in _OWN.items() for key in keys if lever != entry.lever}
    for key, lever in others.items():
        if getattr(entry, key):
            yield key, f"belongs to the lever {lever}, not {entry.lever}: take it away"
    known = _WAS.get(entry.lever)
    if entry.was and known and entry.was not in known:
        yield "was", f"{entry.was!r} is not what it can have been: write one of {', '.join(known)}"
    yield from _OF_LEVER[entry.lever](entry)
    yield from _approval(entry)
    yield from _amounts(entry)


def _endpoint(entry: Entry) -> Iterator[tuple[str, str]]:
    if entry.endpoint != "global":
        yield "endpoint", f'{entry.endpoint!r} is no endpoint to go to: write "global"'


def _model(entry: Entry) -> Iterator[tuple[str, str]]:
    if not entry.use:
        yield "use", "is missing: name the model to call instead"
    if not entry.model:
        yield "model", "is missing: name the model that is called now"
    if entry.use and entry.use == entry.model:
        yield "use", "is the model that is called already"
    if entry.state == "on" and not entry.verdict:
        yield "verdict", 'is missing: no model is changed without one (docs/evaluate.md); or state = "shadow"'
    if entry.shadow:
        yield from _shadow(entry.shadow)


def _shadow(shadow: Shadow) -> Iterator[tuple[str, str]]:
    if not 1 <= shadow.sample <= 100:
        yield "shadow", f"sample = {shadow.sample}: write percent of the calls, 1 to 100"
    if not 1 <= shadow.per_minute <= 600:
        yield "shadow", f"per_minute = {shadow.per_minute}: write copies a minute at most, 1 to 600"
    try:
        spends = from_usd(shadow.budget_usd) > 0
    except ValueError:
        spends = False
    if not spends:
        yield "shadow", f'budget_usd = {shadow.budget_usd!r}: write what copies may cost in all, such as "10"'


def _batch(entry: Entry) -> Iterator[tuple[str, str]]:
    if not _DEADLINE.fullmatch(entry.deadline):
        yield "deadline", f"{entry.deadline!r} is no time to wait: write 30m, 6h or 2d"
    if entry.wait not in ("", "none") and not _DEADLINE.fullmatch(entry.wait):
        yield "wait", f"{entry.wait!r} is no time to wait: write 30m or 6h, or none"


def _ttl(entry: Entry) -> Iterator[tuple[str, str]]:
    if entry.ttl not in TTLS:
        yield "ttl", f"{entry.ttl!r} is no lifetime: write {' or '.join(TTLS)}"


def _cache(entry: Entry) -> Iterator[tuple[str, str]]:
    if bool(entry.cache_policy) == bool(entry.markers):
        yield "markers", "write either `markers` or `cache_policy`"
    if entry.cache_policy and entry.cache_policy not in LIVE:
        yield "cache_policy", f"{entry.cache_policy!r} is no cache policy: write one of {', '.join(LIVE)}"
    if len(entry.markers) > MOST_MARKERS:
        yield "markers", f"{len(entry.markers)} cache points: a request has at most {MOST_MARKERS}"
    for marker in entry.markers:
        if not _PLACE.fullmatch(marker.at):
            yield (
                "markers",
                f"{marker.at!r} is no place: write tools, system, end, or end-2 for two blocks before it",
            )
            return
        if marker.ttl not in TTLS:
            yield "markers", f"{marker.ttl!r} is no lifetime: write {' or '.join(TTLS)}"
    depths = [depth(marker.at) for marker in entry.markers]
    if sorted(set(depths)) != depths:
        yield "markers", "are not in the order of the prompt: tools, system, end-2, end, each once"
    if sorted(marker.ttl for marker in entry.markers) != [marker.ttl for marker in entry.markers]:
        yield "markers", "a 1h cache point comes after a 5m one: the longer must be first"


def depth(place: str) -> int:
    """Places by this are in the order of the prompt."""
    first = {"tools": -1000, "system": -999, "end": 0}
    return first[place] if place in first else int(place.removeprefix("end"))


_OF_LEVER = {"model": _model, "batch": _batch, "cache": _cache, "ttl": _ttl, "endpoint": _endpoint}


def _approval(entry: Entry) -> Iterator[tuple[str, str]]:
    for key in ("approved_at", "expires"):
        if text := getattr(entry, key):
            try:
                instant(text)
            except ValueError:
                yield key, f"{text!r} is no time: write 2026-11-23T05:00:00Z, or 2026-11-23"
                return
    if entry.approver and not entry.approved_at:
        yield "approved_at", "is missing: write when it was approved"
    if entry.approver and not entry.expires:
        yield "expires", "is missing: write the day from which it no longer holds"
    if entry.approved_at and entry.expires and instant(entry.expires) <= instant(entry.approved_at):
        yield "expires", f"{entry.expires} is not after {entry.approved_at}, when it was approved"


def _amounts(entry: Entry) -> Iterator[tuple[str, str]]:
    for key in Estimate.__struct_fields__:
        if text := getattr(entry.estimate, key):
            try:
                from_usd(text)
            except ValueError:
                yield "estimate", f'{key} = {text!r} is no amount of dollars: write "12.5"'
                return
