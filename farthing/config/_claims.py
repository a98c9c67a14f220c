"""Whose a call is: the team, or the workload, that claims its tags, profile, principal, project or account."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache

from farthing.config._tables import MEMBERS, UNASSIGNED, Members

WILD = re.compile(r"[*?]")
Claim = tuple[int, str]  # how good it is, the least being the best; and the claimant
_SESSION = re.compile(r"(arn:aws[a-z-]*):sts::(\d{12}):assumed-role/([^/]+)/.+")


def claims(claimants: Mapping[str, Members], kind: str) -> Callable[[str], Claim | None]:
    """Who claims a value among their members of one kind; tags are given as KEY=VALUE."""
    names: dict[str, Claim] = {}
    patterns: list[tuple[Claim, re.Pattern[str]]] = []
    for rank, (claimant, made) in enumerate(claimants.items()):
        for member in getattr(made, kind):
            text = re.sub("(:role/).*/", r"\1", member) if kind == "principals" else member
            if WILD.search(text):
                regex = re.escape(text).replace(r"\*", ".*").replace(r"\?", ".")
                patterns.append(((len(claimants) + rank, claimant), re.compile(regex, re.DOTALL)))
            else:
                names.setdefault(text, (rank, claimant))

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


def claim_by_facts(claimants: Mapping[str, Members]) -> Callable[[Mapping[str, str]], str]:
    """Who claims a call by its `profiles`, `principals`, `projects`, `accounts`, where no tag decides; "" if nobody."""
    kinds = {kind: claims(claimants, kind) for kind in MEMBERS[1:]}

    def claimant(values: Mapping[str, str]) -> str:
        found = (claim(values[kind]) for kind, claim in kinds.items())
        return next((made[1] for made in found if made), "")

    return claimant


def fingerprint(values: Mapping[str, str]) -> str:
    """What a workload that nobody named is called: by its profile, else project, else role, else account."""
    if values["profiles"]:
        return "profile:" + values["profiles"].rpartition("/")[2]
    if values["projects"]:
        return "project:" + values["projects"]
    if values["principals"]:
        session = _SESSION.fullmatch(values["principals"])
        return f"role:{session[3]}" if session else f"principal:{values['principals']}"
    return "account:" + values["accounts"] if values["accounts"] else UNASSIGNED
