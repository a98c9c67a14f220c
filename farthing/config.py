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

import msgspec

NAME = "farthing.toml"


class ConfigError(ValueError):
    """The file cannot be used: one line that names it, the place in it, and the mend."""


class Source(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Usage to be imported. `path` is a folder, file, pattern or s3:// prefix."""

    path: str
    format: str = ""  # guessed where left out
    profile: str = ""  # of the AWS configuration
    role_arn: str = ""
    external_id: str = ""
    region: str = ""  # of the bucket
    endpoint_url: str = ""


class Account(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str = ""
    regions: tuple[str, ...] = ()  # in which Claude is called
    profile: str = ""
    role_arn: str = ""
    external_id: str = ""


class Team(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Who pays. A call is a team's by its tags, else by profile, else by principal, else by account.

    Patterns take `*` and `?`.
    """

    owner: str = ""
    email: str = ""
    cost_centre: str = ""
    tags: tuple[str, ...] = ()  # KEY=VALUE
    profiles: tuple[str, ...] = ()  # application inference profiles
    principals: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()


class Residency(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where calls may run: `allow` holds routings (global, geo:eu, in_region:eu-*). Empty selectors mean all."""

    allow: tuple[str, ...]
    accounts: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    since: str = ""  # a day


class Privacy(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pseudonyms: bool = True  # for principals, in reports that are shared
    minimum_group: int = 0  # fewer principals than that are not told apart


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    ledger: str = ""
    timezone: str = "UTC"
    currency: str = "USD"
    profiles: dict[str, str] = {}  # application inference profile -> what it was made from
    sources: tuple[Source, ...] = ()
    accounts: dict[str, Account] = {}
    teams: dict[str, Team] = {}
    contracts: tuple[str, ...] = ()  # files of private offers
    residency: tuple[Residency, ...] = ()
    privacy: Privacy = Privacy()
    path: str = ""  # of the file it is from


def load(path: Path | str | None = None) -> Config:
    """The file at `path`, or $FARTHING_CONFIG, or farthing.toml here; an empty Config where there is none of these.

    ConfigError if it cannot be read, or says what is not known.
    """
    named = path or os.environ.get("FARTHING_CONFIG") or ""
    file = Path(named or NAME)
    if not named and not file.exists():
        return Config()
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
        return msgspec.convert({**said, "path": str(file)}, Config)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigError(f"{file}: {error}") from error
