"""What teams share: each pool's money given to its teams, by the rule that farthing.toml says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from farthing.allocate._bill import Other
from farthing.allocate._divide import Money, divided
from farthing.allocate._usage import Piece, Usage, shared_by
from farthing.config import UNASSIGNED, Config, Pool, claims

DIRECT = "direct"


class Share(NamedTuple):
    """Money that a team bears. `part` is what it is for: `direct`, a pool, or a kind of the bill that no pool takes."""

    team: str
    part: str
    day: str  # "" where the month was shared as a whole
    model: str
    money: Money


def shares(
    money: Mapping[Piece, Money], rest: Mapping[Other, Money], usage: Usage, config: Config
) -> list[Share]:
    """All of it, given to teams. In this order:

    1. A call's cost is its team's, unless the call falls in a pool.
    2. Pools split by reads: cache writes go to who read them.
    3. The other pools, each by the rule of its own. In proportion means: to what 1 and 2 give a team.
    4. What is beside calls, and in no pool, goes to the team that claims its account; else it is unassigned.
    """
    found = [
        Share(piece.team, DIRECT, piece.place.day, piece.place.model, amount)
        for piece, amount in money.items()
        if not piece.pool
    ]
    by_reads = [pool for pool in config.pools if pool.split == "reads"]
    for pool in by_reads:
        found += _read(pool, money, usage)
    basis: dict[str, int] = defaultdict(int)
    for share in found:
        basis[share.team] += share.money.picos
    totals, left = _pooled(config.pools, money, rest)
    teams = list(config.teams) or sorted({piece.team for piece in money} - {UNASSIGNED})
    for pool in config.pools:
        if pool.name in totals and pool not in by_reads:
            weighted = weights(pool, teams, basis)
            parts = divided(totals[pool.name], list(weighted.values()))
            found += [
                Share(team, pool.name, "", "", part) for team, part in zip(weighted, parts, strict=True)
            ]
    claim = claims(config.teams, "accounts")
    for other, amount in left.items():
        team = claim(other.account)
        found.append(Share(team[1] if team else UNASSIGNED, other.kind, other.day, other.model, amount))
    return [share for share in _summed(found) if any(share.money)]


def _summed(found: Sequence[Share]) -> Iterator[Share]:
    sums: dict[Share, Money] = defaultdict(Money)
    for share in found:
        sums[share._replace(money=Money())] += share.money
    for share, amount in sums.items():
        yield share._replace(money=amount)


def _read(pool: Pool, money: Mapping[Piece, Money], usage: Usage) -> Iterator[Share]:
    """The writes of each day, account and model go to the teams that read there; where nobody did, to the writers."""
    written: dict[tuple[str, str, str, str], dict[str, Money]] = defaultdict(lambda: defaultdict(Money))
    for piece, amount in money.items():
        if piece.pool == pool.name:
            written[shared_by(pool.name, piece.place)][piece.team] += amount
    for where, writers in written.items():
        _, day, _, model = where
        reads = usage.reads.get(where, {})
        readers = {team: count for team, count in reads.items() if not pool.among or team in pool.among}
        if any(readers.values()):
            total = sum(writers.values(), Money())
            writers = dict(zip(readers, divided(total, list(readers.values())), strict=True))
        for team, amount in writers.items():
            yield Share(team, pool.name, day, model, amount)


def _pooled(
    pools: Sequence[Pool], money: Mapping[Piece, Money], rest: Mapping[Other, Money]
) -> tuple[dict[str, Money], dict[Other, Money]]:
    """What each pool has, and what is in none."""
    totals: dict[str, Money] = defaultdict(Money)
    left: dict[Other, Money] = {}
    for piece, amount in money.items():
        if piece.pool:
            totals[piece.pool] += amount
    for other, amount in rest.items():
        pool = next((pool for pool in pools if takes(pool, other.kind)), None)
        if pool:
            totals[pool.name] += amount
        else:
            left[other] = amount
    return totals, left


def takes(pool: Pool, kind: str) -> bool:
    return any(fnmatchcase(kind, pattern) for pattern in pool.kinds)


def weights(pool: Pool, teams: Sequence[str], basis: Mapping[str, int]) -> dict[str, int]:
    """How much of the pool each team gets: the whole of it is nobody's where there are no teams."""
    if pool.split == "fixed":
        return dict(pool.shares)
    among = pool.among or teams or (UNASSIGNED,)
    spent = {team: max(basis.get(team, 0), 0) for team in among}
    return spent if pool.split == "proportion" and any(spent.values()) else dict.fromkeys(among, 1)


_BY = {
    "proportion": "in proportion to what each spent itself",
    "even": "in equal parts",
    "fixed": "in fixed parts",
    "reads": "by what each read of the cache; what nobody read stays with its writer",
}


def in_words(pool: Pool) -> str:
    """What is in a pool, and how it is split."""
    what = f"calls of {' and '.join(pool.where)}" if pool.where else ", ".join(pool.kinds).replace("_", " ")
    if pool.split == "reads":
        what = f"cache writes of {what}"
    who = [f"{team} {part}" for team, part in pool.shares.items()] or list(pool.among)
    return f"{what}: {_BY[pool.split]}{': ' if who else ''}{', '.join(who)}"
