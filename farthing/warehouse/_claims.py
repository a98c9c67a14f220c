"""Who claims a call, as expressions: what `farthing.config.claims` says of a value at hand, for an engine elsewhere.

A test holds the two to each other on the same ledgers. They are Ibis's own, whose cases stand side by side: those of
narwhals stand in one another, which a hundred teams make too deep.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from farthing.config import MEMBERS, UNASSIGNED, Members

WILD = re.compile(r"[*?]")
# of a role, whose ARN has a path that its sessions' leave out
SESSION = r"^(arn:aws[a-z-]*):sts::(\d{12}):assumed-role/([^/]+)/.+"
_COLUMNS = {
    "profiles": ("named", "named_short"), "principals": ("principal", "role"), "projects": ("project",),
    "accounts": ("account",),
}  # fmt: skip
_CALLED = {
    "profile": "named_short", "project": "project", "role": "role_name", "principal": "principal", "account": "account",
}  # fmt: skip


def ranked(claimants: Mapping[str, Members], kind: str) -> dict[int, tuple[str, list[str]]]:
    """By rank, the least being the best: a claimant and its members of one kind. Names come before patterns."""
    found: dict[int, tuple[str, list[str]]] = {}
    for rank, (claimant, members) in enumerate(claimants.items()):
        for member in getattr(members, kind):
            text = re.sub("(:role/).*/", r"\1", member) if kind == "principals" else member
            better = 0 if not WILD.search(text) else len(claimants)
            found.setdefault(rank + better, (claimant, []))[1].append(text)
    return dict(sorted(found.items()))


def whole(pattern: str) -> str:
    """A regular expression for all of a value, in what RE2, Java and Trino's own have in common."""
    return rf"(?s)^(?:{pattern})\z"


def fits(value: Any, members: Sequence[str]) -> Any:
    """Whether a value is as one of the members of a rank has it: all of them names, or patterns with `*` and `?`."""
    if not WILD.search(members[0]):
        return value.isin(members)
    patterns = (re.escape(member).replace(r"\*", ".*").replace(r"\?", ".") for member in members)
    return (value != "") & value.re_search(whole("|".join(patterns)))


def _case(branches: Sequence[tuple[Any, Any]], otherwise: Any) -> Any:
    import ibis

    return ibis.cases(*branches, else_=otherwise) if branches else otherwise


def by_facts(table: Any, claimants: Mapping[str, Members], key: str) -> Any:
    """Who claims a context by its profile (`named`), principal, project or account; or what it is called."""
    import ibis

    branches = [
        (fits(table[column], members), claimant)
        for kind in MEMBERS[1:]
        for claimant, members in ranked(claimants, kind).values()
        for column in _COLUMNS[kind]
    ]
    if key == "workload":
        branches += [
            (table[column] != "", ibis.literal(f"{kind}:") + table[column])
            for kind, column in _CALLED.items()
        ]
    return _case(branches, ibis.literal(UNASSIGNED))


def by_tags(tags: Any, claimants: Mapping[str, Members]) -> Any:
    """Who claims each tag set, as `said`, by the best of its pairs. None where nobody goes by tags."""
    import ibis

    found = ranked(claimants, "tags")
    if not found:
        return None
    keys = sorted({member.partition("=")[0] for _, members in found.values() for member in members})
    named = tags.filter(tags.key.isin(keys))
    pair = named.key + "=" + named.value
    rank = _case(
        [(fits(pair, members), number) for number, (_, members) in found.items()], ibis.null("int64")
    )
    best = named.mutate(rank=rank).filter(lambda row: row["rank"].notnull()).group_by("tags")
    least = best.aggregate(rank=lambda row: row["rank"].min())
    who = [(least["rank"] == number, claimant) for number, (claimant, _) in found.items()]
    return least.mutate(said=_case(who, ibis.null("string"))).select("tags", "said")


def session(principal: Any) -> dict[str, Any]:
    """The role that a session is of, as its ARN without a path, and by its name; "" for what is no session."""
    is_session = principal.re_search(SESSION)
    partition, account, role = (principal.re_extract(SESSION, i) for i in (1, 2, 3))
    return {
        "role": is_session.ifelse(partition + ":iam::" + account + ":role/" + role, ""),
        "role_name": is_session.ifelse(role, ""),
    }
