"""farthing.toml: where usage is read from, whose it is, and what holds for it. Every table may be left out.

ledger = "s3://costs/ledger"            # or a folder; the default place if left out
timezone = "Europe/Berlin"
currency = "USD"

[[sources]]
path = "s3://logs-eu/bedrock"           # or a folder, file or pattern
role_arn = "arn:aws:iam::111122223333:role/farthing-read"

[accounts.111122223333]
name = "production"

[teams.search]
owner = "Ada"
principals = ["arn:aws:sts::*:assumed-role/search-*"]
tags = ["team=search"]

[[residency]]
accounts = ["111122223333"]
allow = ["in_region:eu-*", "geo:eu"]
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from farthing.config._claims import claim_by_facts, claims, fingerprint
from farthing.config._shape import (
    NAME,
    ConfigError,
    Fault,
    Overrides,
    check_shape,
    line_of,
    overrides,
    shown,
)
from farthing.config._tables import (
    MEMBERS,
    UNASSIGNED,
    Account,
    Budget,
    Channel,
    Config,
    Journal,
    Members,
    Oidc,
    Pool,
    Privacy,
    Residency,
    Rights,
    Smtp,
    Source,
    Team,
    Workload,
)
from farthing.config._values import check_values

__all__ = [
    "MEMBERS",
    "NAME",
    "UNASSIGNED",
    "Account",
    "Budget",
    "Channel",
    "Config",
    "ConfigError",
    "Journal",
    "Members",
    "Oidc",
    "Pool",
    "Privacy",
    "Residency",
    "Rights",
    "Smtp",
    "Source",
    "Team",
    "Workload",
    "claim_by_facts",
    "claims",
    "fingerprint",
    "load",
]


def load(path: Path | str | None = None) -> Config:
    """The file at `path`, or $FARTHING_CONFIG, or farthing.toml here; an empty Config where there is none of these.

    Relative paths in it count from the file's own folder. FARTHING_X and FARTHING_X__Y of the environment come
    before what the file says of `x` and `x.y`. ConfigError names the file, the place in it and the mend.
    """
    named = path or os.environ.get("FARTHING_CONFIG") or ""
    file = Path(named or NAME)
    text, said = "", {}
    found = bool(named) or file.exists()
    if found:
        try:
            text = file.read_text(encoding="utf-8-sig")
            said = tomllib.loads(text)
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror or error}") from error
        except ValueError as error:  # which names line and column
            raise ConfigError(f"{file}: {error}") from error
        except RecursionError as error:
            raise ConfigError(f"{file}: nested too deeply") from error
    told = dict(overrides(os.environ))
    try:
        return _convert(said, str(file) if found else "", told)
    except Faulty as error:
        fault: Fault = error.args[0]
        if variable := told.get(fault.place, ("", ""))[0]:
            raise ConfigError(f"${variable}: {fault.says}") from error
        line = line_of(text, fault.place)
        raise ConfigError(
            f"{file}{f':{line}' if line else ''}: {shown(fault.place)}: {fault.says}"
        ) from error


class Faulty(Exception):
    """Carries the first fault out to where file and text are known."""


def _convert(said: dict[str, Any], file: str, told: Overrides) -> Config:
    for fault in check_shape(said, Config, ()):
        raise Faulty(fault)
    _anchor(said, os.path.dirname(file))  # noqa: PTH120 - Path would say "." where there is nothing
    for place, (_, text) in told.items():
        *tables, name = place
        table: Any = said
        for key in tables:
            table = table.setdefault(key, {})
        table[name] = text
    try:
        config = msgspec.convert({**said, "path": file}, Config, strict=False)  # variables are text
    except msgspec.ValidationError as error:
        at = next((place for place in told if shown(place) in str(error)), next(iter(told), ()))
        raise Faulty(Fault(at, str(error))) from error
    for fault in check_values(config):
        raise Faulty(fault)
    return config


def _anchor(said: dict[str, Any], folder: str) -> None:
    """Relative paths count from the folder of the file."""

    def anchored(path: str) -> str:
        return path if not path or "://" in path else os.path.join(folder, os.path.expanduser(path))  # noqa: PTH111, PTH118

    for name in ("ledger", "fx", "budget_store"):
        if name in said:
            said[name] = anchored(said[name])
    for source in said.get("sources", ()):
        source["path"] = anchored(source["path"])
    for workload in said.get("workloads", {}).values():
        if "gate" in workload:
            workload["gate"] = anchored(workload["gate"])
    if "contracts" in said:
        said["contracts"] = [anchored(path) for path in said["contracts"]]
