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

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from farthing.usage import Rejected, check_region

NAME = "farthing.toml"
UNASSIGNED = "unassigned"  # the team of calls that no team claims


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


# --- reading -------------------------------------------------------------------------------------------------------


class _Fault(NamedTuple):
    place: tuple[str | int, ...]  # keys, and numbers of list entries from 0
    says: str


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
    overrides = dict(_overrides(os.environ))
    try:
        return _convert(said, str(file) if found else "", overrides)
    except _Faulty as error:
        fault: _Fault = error.args[0]
        if variable := overrides.get(fault.place, ("", ""))[0]:
            raise ConfigError(f"${variable}: {fault.says}") from error
        line = _line(text, fault.place)
        raise ConfigError(
            f"{file}{f':{line}' if line else ''}: {_shown(fault.place)}: {fault.says}"
        ) from error


class _Faulty(Exception):
    """Carries the first fault out to where file and text are known."""


def _convert(said: dict[str, Any], file: str, overrides: _Overrides) -> Config:
    for fault in _shape(said, Config, ()):
        raise _Faulty(fault)
    _anchor(said, os.path.dirname(file))  # noqa: PTH120 - Path would say "." where there is nothing
    for place, (_, text) in overrides.items():
        *tables, name = place
        table: Any = said
        for key in tables:
            table = table.setdefault(key, {})
        table[name] = text
    try:
        config = msgspec.convert({**said, "path": file}, Config, strict=False)  # variables are text
    except msgspec.ValidationError as error:
        at = next((place for place in overrides if _shown(place) in str(error)), next(iter(overrides), ()))
        raise _Faulty(_Fault(at, str(error))) from error
    for fault in _values(config):
        raise _Faulty(fault)
    return config


def _anchor(said: dict[str, Any], folder: str) -> None:
    """Relative paths count from the folder of the file."""

    def anchored(path: str) -> str:
        return path if not path or "://" in path else os.path.join(folder, os.path.expanduser(path))  # noqa: PTH111, PTH118

    if "ledger" in said:
        said["ledger"] = anchored(said["ledger"])
    for source in said.get("sources", ()):
        source["path"] = anchored(source["path"])
    if "contracts" in said:
        said["contracts"] = [anchored(path) for path in said["contracts"]]


_Overrides = dict[tuple[str | int, ...], tuple[str, str]]  # place -> variable, text


def _overrides(environ: Mapping[str, str]) -> Iterator[tuple[tuple[str | int, ...], tuple[str, str]]]:
    """What variables say of single values; ConfigError for one that names a list or a table."""
    for variable, text in sorted(environ.items()):
        place = tuple(variable.removeprefix("FARTHING_").lower().split("__"))
        if (
            not variable.startswith("FARTHING_")
            or place[0] not in Config.__struct_fields__
            or place == ("path",)
        ):
            continue
        kind: Any = Config
        for key in place:
            fields = (
                {field.name: field.type for field in msgspec.structs.fields(kind)} if _is_table(kind) else {}
            )
            kind = get_args(kind)[1] if get_origin(kind) is dict else fields.get(key)
        if kind not in (str, int, bool):
            raise ConfigError(f"${variable}: {_shown(place)} is no single value; write it in {NAME}")
        yield place, (variable, text)


def _line(text: str, place: tuple[str | int, ...]) -> int:
    """The line that says it, or the table it is missing from; 0 where the text is laid out in some other way."""
    header: tuple[str | int, ...] = ()
    counts: dict[str, int] = {}
    best, at = 0, 0
    for number, line in enumerate(text.splitlines(), 1):
        if table := re.fullmatch(r"\s*(\[\[?)([^\[\]]+)\]\]?\s*(#.*)?", line):
            header = _keys(table[2])
            if table[1] == "[[":
                counts[table[2]] = counts.get(table[2], -1) + 1
                header += (counts[table[2]],)
            here = header
        else:
            here = header + _keys(line.partition("=")[0]) if "=" in line else ()
        if len(here) > best and place[: len(here)] == here:
            best, at = len(here), number
    return at


def _keys(text: str) -> tuple[str | int, ...]:
    """The parts of a dotted key; none where it is no key."""
    try:
        found: Any = tomllib.loads(f"{text} = 0")
    except ValueError:
        return ()
    keys = []
    while isinstance(found, dict) and found:
        ((key, found),) = found.items()
        keys.append(key)
    return tuple(keys)


def _shown(place: tuple[str | int, ...]) -> str:
    """teams.search.tags[1]; entries of lists are counted from 1, as people do."""
    text = "".join(f"[{key + 1}]" if isinstance(key, int) else f".{key}" for key in place)
    return text.removeprefix(".")


# --- the shape: keys and types -------------------------------------------------------------------------------------

_TYPES = {str: "text: write it in quotes", int: "a whole number", bool: "true or false"}


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _shape(value: Any, kind: Any, place: tuple[str | int, ...]) -> Iterator[_Fault]:
    """Keys that are not known or missing, and values of another type."""
    if _is_table(kind) or get_origin(kind) is dict:
        if not isinstance(value, dict):
            yield _Fault(place, f"not a table: write [{_shown(place)}]")
        elif _is_table(kind):
            yield from _table(value, kind, place)
        else:
            for key, inner in value.items():
                yield from _shape(inner, get_args(kind)[1], (*place, key))
    elif get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        if not isinstance(value, list):
            is_word = isinstance(value, str)
            mend = f'["{value}"]' if is_word else f"[[{_shown(place)}]]" if _is_table(inner) else "[...]"
            yield _Fault(place, f"not a list: write {mend}")
            return
        for number, entry in enumerate(value):
            yield from _shape(entry, inner, (*place, number))
    elif type(value) is not kind:
        yield _Fault(place, f"{value!s} is not {_TYPES[kind]}")


def _table(value: dict[str, Any], kind: Any, place: tuple[str | int, ...]) -> Iterator[_Fault]:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    if not place:
        del fields["path"]  # which is ours
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            mend = f"did you mean `{near[0]}`?" if near else f"known here are {', '.join(fields)}"
            yield _Fault((*place, key), f"unknown key; {mend}")
    for name, field in fields.items():
        if name in value:
            yield from _shape(value[name], field.type, (*place, name))
        elif field.required:
            yield _Fault(place, f"`{name}` is missing")


# --- the values ----------------------------------------------------------------------------------------------------

_ACCOUNT = re.compile(r"\d{12}")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/.+")
_ROUTING = re.compile(r"\*|global|geo:[a-z*?-]+|in_region(:[a-z0-9*?-]+)?")
_WILD = re.compile(r"[*?]")


def _values(config: Config) -> Iterator[_Fault]:
    """Values that cannot be."""
    try:
        ZoneInfo(config.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield _Fault(
            ("timezone",), f"unknown time zone {config.timezone!r}: use a name such as Europe/Berlin"
        )
    if not re.fullmatch("[A-Z]{3}", config.currency):
        yield _Fault(("currency",), f"{config.currency!r} is no currency: write three letters, as USD")
    for number, source in enumerate(config.sources):
        yield from _access(source, ("sources", number), (source.region,))
        if not source.path.strip():
            yield _Fault(
                ("sources", number, "path"), "is empty: write a folder, file, pattern or s3:// prefix"
            )
    for name, account in config.accounts.items():
        if not _ACCOUNT.fullmatch(name):
            yield _Fault(("accounts", name), "an account id has 12 digits")
        yield from _access(account, ("accounts", name), account.regions)
    yield from _teams(config)
    for number, rule in enumerate(config.residency):
        yield from _residency(rule, config, ("residency", number))
    if config.privacy.minimum_group < 0:
        yield _Fault(("privacy", "minimum_group"), "is below 0")


def _access(
    given: Source | Account, place: tuple[str | int, ...], regions: tuple[str, ...]
) -> Iterator[_Fault]:
    if given.role_arn and not _ROLE.fullmatch(given.role_arn):
        yield _Fault(
            (*place, "role_arn"), f"{given.role_arn!r} is no role: write arn:aws:iam::ACCOUNT:role/NAME"
        )
    for region in regions:
        try:
            check_region(region)
        except Rejected as error:
            name = "regions" if isinstance(given, Account) else "region"
            yield _Fault((*place, name), f"{error}: write a name such as eu-west-1")


def _teams(config: Config) -> Iterator[_Fault]:
    claimed: dict[tuple[str, str], str] = {}
    for name, team in config.teams.items():
        place = ("teams", name)
        if name.strip() in ("", UNASSIGNED):
            yield _Fault(place, f"{name!r} is the team of what no team claims; take another name")
        if not any(getattr(team, kind) for kind in MEMBERS):
            yield _Fault(place, f"has no members: name some by {', '.join(MEMBERS)}")
        for kind in MEMBERS:
            for number, member in enumerate(getattr(team, kind)):
                if says := _bad_member(kind, member):
                    yield _Fault((*place, kind, number), says)
                other = claimed.setdefault((kind, member), name)
                if other != name:
                    yield _Fault(
                        (*place, kind, number), f"{member!r} is claimed by team {other} too; take one away"
                    )


def _bad_member(kind: str, member: str) -> str:
    """What is wrong with it; "" if nothing."""
    key, is_pair, value = member.partition("=")
    if member != member.strip() or not member:
        return f"{member!r} is empty, or has blanks about it"
    if member[0] == "^" or member[-1] == "$" or "\\" in member:
        return f"{member!r} is a regular expression: only * and ? stand for others here, as in a shell"
    if kind == "tags" and not (is_pair and key and value and not _WILD.search(key)):
        return f"{member!r} is no tag: write KEY=VALUE; VALUE takes * and ?"
    if kind == "accounts" and not re.fullmatch(r"\d{12}|(?=.*[*?])[\d*?]+", member):
        return f"{member!r} is no account: an account id has 12 digits"
    return ""


def _residency(rule: Residency, config: Config, place: tuple[str | int, ...]) -> Iterator[_Fault]:
    for number, routing in enumerate(rule.allow):
        if not _ROUTING.fullmatch(routing):
            says = f"{routing!r} is no routing: write global, geo:eu, in_region or in_region:eu-*"
            yield _Fault((*place, "allow", number), says)
    for number, team in enumerate(rule.teams):
        if team != UNASSIGNED and team not in config.teams:
            yield _Fault((*place, "teams", number), f"no team {team!r} in this file")
    for kind in ("accounts", "principals"):
        for number, member in enumerate(getattr(rule, kind)):
            if says := _bad_member(kind, member):
                yield _Fault((*place, kind, number), says)
    if rule.since:
        try:
            date.fromisoformat(rule.since)
        except ValueError:
            yield _Fault((*place, "since"), f"{rule.since!r} is no day: write 2026-11-22")


# --- whose a call is -----------------------------------------------------------------------------------------------

Claim = tuple[int, str]  # how good it is, the least being the best; and the team
_SESSION = re.compile(r"(arn:aws[a-z-]*):sts::(\d{12}):assumed-role/([^/]+)/.+")


def claims(teams: Mapping[str, Team], kind: str) -> Callable[[str], Claim | None]:
    """Which team claims a value among its members of one kind; tags are given as KEY=VALUE."""
    names: dict[str, Claim] = {}
    patterns: list[tuple[Claim, re.Pattern[str]]] = []
    for rank, (team, made) in enumerate(teams.items()):
        for member in getattr(made, kind):
            text = re.sub("(:role/).*/", r"\1", member) if kind == "principals" else member
            if _WILD.search(text):
                regex = re.escape(text).replace(r"\*", ".*").replace(r"\?", ".")
                patterns.append(((len(teams) + rank, team), re.compile(regex, re.DOTALL)))
            else:
                names.setdefault(text, (rank, team))

    @cache
    def claim(value: str) -> Claim | None:
        known_as = _known_as(kind, value)
        if exact := [names[name] for name in known_as if name in names]:
            return min(exact)
        fits = (made for made, regex in patterns if any(map(regex.fullmatch, known_as)))
        return next(fits, None)

    return claim


def _known_as(kind: str, value: str) -> tuple[str, ...]:
    """The names that members may write a value by; none for what was not said."""
    if kind == "profiles":
        return (value, value.rpartition("/")[2]) if value else ()
    if kind == "principals" and (session := _SESSION.fullmatch(value)):
        partition, account, role = session.groups()  # a session's ARN leaves the role's path out
        return value, f"{partition}:iam::{account}:role/{role}"
    return (value,) if value else ()


def team_by_facts(teams: Mapping[str, Team]) -> Callable[[str, str, str], str]:
    """The team of (profile, principal, account), where no tag decides; "" if none claims any of them."""
    kinds = [claims(teams, kind) for kind in MEMBERS[1:]]

    def team(*values: str) -> str:
        found = (claim(value) for claim, value in zip(kinds, values, strict=True))
        return next((made[1] for made in found if made), "")

    return team
