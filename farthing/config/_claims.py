"""Whose a call is: the team that claims its tags, profile, principal or account."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache

from farthing.config._tables import MEMBERS, Team

WILD = re.compile(r"[*?]")
Claim = tuple[int, str]  # how good it is, the least being the best; and the team
_SESSION = re.compile(r"(arn:aws[a-z-]*):sts::(\d{12}):assumed-role/([^/]+)/.+")


def claims(teams: Mapping[str, Team], kind: str) -> Callable[[str], Claim | None]:
    """Which team claims a value among its members of one kind; tags are given as KEY=VALUE."""
    names: dict[str, Claim] = {}
    patterns: list[tuple[Claim, re.Pattern[str]]] = []
    for rank, (team, made) in enumerate(teams.items()):
        for member in getattr(made, kind):
            text = re.sub("(:role/).*/", r"\1", member) if kind == "principals" else member
            if WILD.search(text):
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
