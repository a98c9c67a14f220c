"""Values of farthing.toml that cannot be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from farthing.config._alerts import check_alerts
from farthing.config._allocation import check_allocation
from farthing.config._journal import check_journal
from farthing.config._shape import Fault
from farthing.config._tables import (
    MEMBERS,
    UNASSIGNED,
    Account,
    Config,
    Members,
    Residency,
    Source,
    Workload,
)
from farthing.config._web import check_web
from farthing.usage import Rejected, check_region

_ACCOUNT = re.compile(r"\d{12}")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/.+")
_ROUTING = re.compile(r"\*|global|geo:[a-z*?-]+|in_region(:[a-z0-9*?-]+)?")
_DEADLINE = re.compile(r"\d+[mhd]")
_WILD = re.compile(r"[*?]")


def check_values(config: Config) -> Iterator[Fault]:
    """Values that cannot be."""
    try:
        ZoneInfo(config.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield Fault(("timezone",), f"unknown time zone {config.timezone!r}: use a name such as Europe/Berlin")
    for number, source in enumerate(config.sources):
        yield from _access(source, ("sources", number), (source.region,))
        if not source.path.strip():
            yield Fault(
                ("sources", number, "path"), "is empty: write a folder, file, pattern or s3:// prefix"
            )
    for name, account in config.accounts.items():
        if not _ACCOUNT.fullmatch(name):
            yield Fault(("accounts", name), "an account id has 12 digits")
        yield from _access(account, ("accounts", name), account.regions)
    yield from _claimants("teams", config.teams)
    yield from _claimants("workloads", config.workloads)
    for name, workload in config.workloads.items():
        yield from _workload(workload, ("workloads", name))
    for number, rule in enumerate(config.residency):
        yield from _residency(rule, config, ("residency", number))
    if config.privacy.minimum_group < 0:
        yield Fault(("privacy", "minimum_group"), "is below 0")
    yield from check_alerts(config)
    yield from check_journal(config)
    yield from check_allocation(config)
    yield from check_web(config)


def _access(
    given: Source | Account, place: tuple[str | int, ...], regions: tuple[str, ...]
) -> Iterator[Fault]:
    if given.role_arn and not _ROLE.fullmatch(given.role_arn):
        yield Fault(
            (*place, "role_arn"), f"{given.role_arn!r} is no role: write arn:aws:iam::ACCOUNT:role/NAME"
        )
    for region in regions:
        try:
            check_region(region)
        except Rejected as error:
            name = "regions" if isinstance(given, Account) else "region"
            yield Fault((*place, name), f"{error}: write a name such as eu-west-1")


def _claimants(table: str, claimants: Mapping[str, Members]) -> Iterator[Fault]:
    what = table.removesuffix("s")
    claimed: dict[tuple[str, str], str] = {}
    for name, made in claimants.items():
        place = (table, name)
        if name.strip() in ("", UNASSIGNED):
            yield Fault(place, f"{name!r} is the {what} of what no {what} claims; take another name")
        if not any(getattr(made, kind) for kind in MEMBERS):
            yield Fault(place, f"has no members: name some by {', '.join(MEMBERS)}")
        for kind in MEMBERS:
            for number, member in enumerate(getattr(made, kind)):
                if says := bad_member(kind, member):
                    yield Fault((*place, kind, number), says)
                other = claimed.setdefault((kind, member), name)
                if other != name:
                    yield Fault(
                        (*place, kind, number), f"{member!r} is claimed by {what} {other} too; take one away"
                    )


def bad_member(kind: str, member: str) -> str:
    """What is wrong with it; "" if nothing."""
    key, is_pair, value = member.partition("=")
    if member != member.strip() or not member:
        return f"{member!r} is empty, or has blanks about it"
    if member[0] == "^" or member[-1] == "$" or ("\\" in member and kind != "projects"):
        return f"{member!r} is a regular expression: only * and ? stand for others here, as in a shell"
    if kind == "tags" and not (is_pair and key and value and not _WILD.search(key)):
        return f"{member!r} is no tag: write KEY=VALUE; VALUE takes * and ?"
    if kind == "accounts" and not re.fullmatch(r"\d{12}|(?=.*[*?])[\d*?]+", member):
        return f"{member!r} is no account: an account id has 12 digits"
    return ""


def _workload(workload: Workload, place: tuple[str | int, ...]) -> Iterator[Fault]:
    yield from _routings(workload.allow, place)
    if workload.deadline and not _DEADLINE.fullmatch(workload.deadline):
        yield Fault((*place, "deadline"), f"{workload.deadline!r} is no time to wait: write 30m, 6h or 2d")
    if workload.gate and not workload.models:
        yield Fault((*place, "gate"), "is the verdict on a model: name it in `models`")


def _routings(routings: Iterable[str], place: tuple[str | int, ...]) -> Iterator[Fault]:
    for number, routing in enumerate(routings):
        if not _ROUTING.fullmatch(routing):
            says = f"{routing!r} is no routing: write global, geo:eu, in_region or in_region:eu-*"
            yield Fault((*place, "allow", number), says)


def _residency(rule: Residency, config: Config, place: tuple[str | int, ...]) -> Iterator[Fault]:
    yield from _routings(rule.allow, place)
    for number, team in enumerate(rule.teams):
        if team != UNASSIGNED and team not in config.teams:
            yield Fault((*place, "teams", number), f"no team {team!r} in this file")
    for kind in ("accounts", "principals"):
        for number, member in enumerate(getattr(rule, kind)):
            if says := bad_member(kind, member):
                yield Fault((*place, kind, number), says)
    if rule.since:
        try:
            date.fromisoformat(rule.since)
        except ValueError:
            yield Fault((*place, "since"), f"{rule.since!r} is no day: write 2026-11-22")
