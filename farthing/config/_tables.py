"""The tables of farthing.toml: one class each, one field a key."""

from __future__ import annotations

import msgspec

UNASSIGNED = "unassigned"  # the team of calls that no team claims


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


MEMBERS = ("tags", "profiles", "principals", "accounts")  # of a team, in the order in which they decide


class Team(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Who pays. A call is a team's by its tags, else by profile, else by principal, else by account.

    Members take `*` and `?`. Where several teams fit, a name comes before a pattern, and then the team that
    stands first in the file.
    """

    owner: str = ""
    email: str = ""
    cost_centre: str = ""
    tags: tuple[str, ...] = ()  # KEY=VALUE
    profiles: tuple[str, ...] = ()  # application inference profiles, by ARN or by id
    principals: tuple[str, ...] = ()  # a role stands for all its sessions
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
