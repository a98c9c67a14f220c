"""Whose usage it is: profiles, principals and accounts to teams, from tags in the bill and in the ledger, and names.

Where a tag names a team (`team`, or what comes next in TEAM_TAGS) on part of what a member used, it speaks for the rest
of it too, if nearly all of what is tagged is of one team and at least half is tagged. Where nothing is tagged, a role
named after a known team is taken to be its. What speaks for two teams is a conflict, and is told instead.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec

from farthing.cells import Question, cells
from farthing.config import UNASSIGNED, Config, Team, claims
from farthing.ledger import Ledger
from farthing.money import show
from farthing.statement import Statement

TEAM_TAGS = (
    "team", "Team", "squad", "owner", "cost_center", "CostCenter", "department", "project", "application", "app",
)  # fmt: skip
_PERCENT_OF_ONE = 95  # of what is tagged: the rest may be a mistake
_MOST_UNASSIGNED = 15
_SESSION = re.compile(r"(?:arn:(aws[a-z-]*):sts::(\d{12}):)?assumed-role/([^/]+)(?:/.*)?")


class Used(NamedTuple):
    """What was used by whom. `team` is what a tag says; "" where none does."""

    source: str  # bill or ledger
    profile: str
    principal: str
    account: str
    team: str
    picos: int


class Member(NamedTuple):
    kind: str
    name: str
    picos: int
    why: str


class Conflict(NamedTuple):
    kind: str
    name: str
    picos: int
    why: str


@dataclass
class Suggested:
    """`claims` are dollars by team, as the suggested tables would share them out; they sum to the whole."""

    tag: str  # by which teams were known
    teams: dict[str, list[Member]] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)
    claims: dict[str, int] = field(default_factory=dict)
    unassigned: list[tuple[str, int]] = field(default_factory=list)
    known: frozenset[str] = frozenset()  # teams that farthing.toml has already


def suggest_teams(
    statement: Statement | None, ledger: Ledger | None, question: Question, tag: str = ""
) -> Suggested:
    """Teams as tags tell them, with members for what is not tagged.

    `tag` is the one that names teams; the first of TEAM_TAGS that is there, if left out.
    """
    config = question.config
    names = (tag,) if tag else TEAM_TAGS
    told = [_of_bill(statement, names)] if statement else []
    told += [_of_ledger(ledger, question, names)] if ledger else []
    chosen = tag or next((name for name in TEAM_TAGS if any(_says(rows, name) for rows in told)), "")
    same = [name for name in names if chosen and _plain(name) == _plain(chosen)]
    used = [row for rows in told for row in _merged(rows, same)]
    found = Suggested(chosen, known=frozenset(config.teams))
    if ledger:
        for name in same:
            _tagged(found, _says(told[-1], name), name, config)
    teams = [*dict.fromkeys(row.team for row in used if row.team), *config.teams]
    claimed = _claimant(config.teams)
    for kind, name_of in _NAMES.items():
        votes: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        for row in used:
            votes[name_of(row)][row.source][row.team] += row.picos
        for name, by_source in sorted(votes.items()):
            if name and not claimed({kind: name}):
                _decide(found, kind, name, by_source, teams, config)
    _share_out(found, used, ledger, question)
    return found


def _tagged(found: Suggested, rows: Iterable[Used], name: str, config: Config) -> None:
    """The tags themselves as members: calls that have them are decided by them."""
    sums: Counter[str] = Counter()
    for row in rows:
        sums[row.team] += row.picos
    for team, picos in sorted(sums.items()):
        if f"{name}={team}" not in getattr(config.teams.get(team), "tags", ()):
            found.teams.setdefault(team, []).append(Member("tags", f"{name}={team}", picos, "so tagged"))


# --- evidence ------------------------------------------------------------------------------------------------------


def _of_bill(statement: Statement, names: Sequence[str]) -> dict[str, list[Used]]:
    """By each name of a tag, what was used and of which team it says that it was."""
    found: dict[str, list[Used]] = {name: [] for name in names}
    for group in statement.grouped(("account", "resource", "principal", *(f"tag:{name}" for name in names))):
        if group.kind == "tokens":
            account, resource, principal, *said = group.values
            for name, team in zip(names, said, strict=True):
                found[name].append(Used("bill", resource, principal, account, team, group.picos))
    return found


def _of_ledger(ledger: Ledger, question: Question, names: Sequence[str]) -> dict[str, list[Used]]:
    """The same of calls, by the tags that any of them has."""
    con = ledger.connection
    con.register("teach_tags", ledger.table("tags"))
    there = {key for (key,) in con.execute("SELECT DISTINCT key FROM teach_tags").fetchall()}
    asked = [name for name in names if name in there]
    found: dict[str, list[Used]] = {name: [] for name in asked or names[:1]}
    keys = ("profile", "principal", "account", *(f"tag:{name}" for name in asked))
    for cell in cells(ledger, question, keys):
        profile, principal, account, *said = cell.keys
        for name, team in zip(found, said or [""], strict=True):
            found[name].append(Used("ledger", profile, principal, account, team, cell.cost))
    return found


def _says(rows: Mapping[str, list[Used]], name: str) -> list[Used]:
    """Those that the tag says a team of."""
    return [row for row in rows.get(name, ()) if row.team and row.team != UNASSIGNED]


def _merged(rows: Mapping[str, list[Used]], same: Sequence[str]) -> list[Used]:
    """Each row once, with what any of the names of one tag says."""
    lists = [rows[name] for name in same if name in rows]
    if not lists:
        return [row._replace(team="") for row in next(iter(rows.values()), [])]
    return [next((row for row in alike if row.team), alike[0]) for alike in zip(*lists, strict=True)]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _profile(row: Used) -> str:
    return row.profile if ":application-inference-profile/" in row.profile else ""


def _principal(row: Used) -> str:
    """The user, or the role of a session."""
    match = _SESSION.fullmatch(row.principal)
    if match is None:
        return row.principal
    partition, account, role = match.groups()
    return f"arn:{partition or 'aws'}:iam::{account or row.account}:role/{role}"


_KINDS = ("tags", "profiles", "principals", "accounts")  # of members, in the order in which they decide
_NAMES: dict[str, Callable[[Used], str]] = {
    "profiles": _profile, "principals": _principal, "accounts": lambda row: row.account,
}  # fmt: skip


# --- one member ----------------------------------------------------------------------------------------------------


def _decide(
    found: Suggested,
    kind: str,
    name: str,
    by_source: Mapping[str, Counter[str]],
    teams: Sequence[str],
    config: Config,
) -> None:
    """A team for it, a conflict, or nothing."""
    picos = max(sum(votes.values()) for votes in by_source.values())
    chosen: dict[str, str] = {}
    why = ""
    for source, votes in by_source.items():
        tagged = {team: amount for team, amount in votes.items() if team}
        if not tagged:
            continue
        best = max(tagged, key=lambda team: (tagged[team], team))
        whole, of_tagged = sum(votes.values()), sum(tagged.values())
        ranked = sorted(tagged.items(), key=lambda item: (-item[1], item[0]))
        shares = ", ".join(f"{team} {show(amount)}" for team, amount in ranked)
        if tagged[best] * 100 < of_tagged * _PERCENT_OF_ONE:
            why = f"the {source} has tags of {shares}"
        elif of_tagged * 2 < whole:
            why = f"only {shares} of {show(whole)} is tagged in the {source}"
        part = "all of it" if tagged[best] == whole else f"{show(tagged[best])} of {show(whole)}"
        chosen[best] = f"{part} is tagged so in the {source}"
    if len(chosen) > 1 and not why:
        why = " and ".join(f"{team}: {says}" for team, says in chosen.items())
    if why:
        found.conflicts.append(Conflict(kind, name, picos, why))
    elif chosen:
        ((team, says),) = chosen.items()
        found.teams.setdefault(team, []).append(Member(kind, name, picos, says))
    elif named := _named_after(kind, name, teams, config):
        found.teams.setdefault(named, []).append(Member(kind, name, picos, "by its name alone"))


def _named_after(kind: str, name: str, teams: Iterable[str], config: Config) -> str:
    """The one team whose name is in its own."""
    account = config.accounts.get(name)
    text = (account.name if account else "") if kind == "accounts" else name.rpartition("/")[2]
    words = f"-{'-'.join(re.findall('[a-z0-9]+', re.sub('(?<=[a-z])(?=[A-Z])', '-', text).lower()))}-"
    fits = {team for team in teams if f"-{'-'.join(re.findall('[a-z0-9]+', team.lower()))}-" in words}
    return fits.pop() if len(fits) == 1 else ""


# --- what it comes to ----------------------------------------------------------------------------------------------


def as_teams(found: Suggested, config: Config) -> dict[str, Team]:
    """The teams of farthing.toml with the suggested members."""
    teams = dict(config.teams)
    for name, members in found.teams.items():
        old = teams.get(name, Team())
        added = {kind: tuple(member.name for member in members if member.kind == kind) for kind in _KINDS}
        both = {kind: (*getattr(old, kind), *names) for kind, names in added.items()}
        teams[name] = msgspec.structs.replace(old, **both)
    return teams


def _claimant(teams: Mapping[str, Team]) -> Callable[[Mapping[str, str]], str]:
    """The team of what a call tells, in the order that reports go by; "" if none claims it."""
    by_kind = {kind: claims(teams, kind) for kind in _NAMES}

    def claimant(said: Mapping[str, str]) -> str:
        found = (claim(said.get(kind, "")) for kind, claim in by_kind.items())
        return next((made[1] for made in found if made), "")

    return claimant


def _share_out(found: Suggested, used: Sequence[Used], ledger: Ledger | None, question: Question) -> None:
    """What each team would claim, by the very rules that reports go by."""
    teams = as_teams(found, question.config)
    if ledger is not None:
        asked = replace(question, config=msgspec.structs.replace(question.config, teams=teams))
        keys = ("team", "profile", "principal", "account")
        rows = []
        for cell in cells(ledger, asked, keys):
            team, profile, principal, account = cell.keys
            rows.append(
                (team if teams else UNASSIGNED, Used("ledger", profile, principal, account, "", cell.cost))
            )
    else:
        claimant = _claimant(teams)
        rows = [
            (
                claimant({"profiles": _profile(row), "principals": row.principal, "accounts": row.account})
                or UNASSIGNED,
                row,
            )
            for row in used
        ]
    sums: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for team, row in rows:
        sums[team] += row.picos
        if team == UNASSIGNED:
            left[_profile(row) or _principal(row) or row.account or "of no known account"] += row.picos
    found.claims = dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))
    found.unassigned = [(name, picos) for name, picos in left.most_common() if picos]


def teams_toml(found: Suggested) -> str:
    """Tables for farthing.toml, each member with what speaks for it."""
    return "\n".join(_toml(found)).strip() + "\n"


def _toml(found: Suggested) -> Iterator[str]:
    by = f"by the tag `{found.tag}`" if found.tag else "and no tag tells teams: name one with --tag"
    yield f"# Teams {by}, for farthing.toml. Check each member: what speaks for it stands beside it."
    whole = sum(found.claims.values())
    for team, members in sorted(
        found.teams.items(), key=lambda item: (-found.claims.get(item[0], 0), item[0])
    ):
        claims = found.claims.get(team, 0)
        share = f", {max(100 * claims // whole, 1)} % of all" if claims > 0 else ""
        yield from ("", f"# {show(claims)} would be theirs{share}")
        if team in found.known:
            yield "# farthing.toml has the team: add these members to its table"
        yield f"[teams.{team if re.fullmatch('[A-Za-z0-9_-]+', team) else json.dumps(team, ensure_ascii=False)}]"
        for kind in _KINDS:
            of_kind = [member for member in members if member.kind == kind]
            if of_kind:
                yield f"{kind} = ["
                for member in sorted(of_kind, key=lambda member: (-member.picos, member.name)):
                    text = json.dumps(member.name, ensure_ascii=False)
                    yield f"    {text},   # {show(member.picos)}: {member.why}"
                yield "]"
    if found.conflicts:
        yield from ("", "# Speaks for more than one team, or too little is tagged, so it is left out:")
        for conflict in sorted(found.conflicts, key=lambda conflict: -conflict.picos):
            yield f"#   {conflict.kind[:-1]} {conflict.name} ({show(conflict.picos)}): {conflict.why}"
    if found.unassigned:
        rest = sum(picos for _, picos in found.unassigned)
        yield from ("", f"# Nobody's, {show(rest)}:")
        for name, picos in found.unassigned[:_MOST_UNASSIGNED]:
            yield f"#   {show(picos):>14}  {name}"
        if len(found.unassigned) > _MOST_UNASSIGNED:
            yield f"#   and {len(found.unassigned) - _MOST_UNASSIGNED} more"
