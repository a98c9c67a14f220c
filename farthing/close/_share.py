"""Whose the billed money is: each line of a bill split over the teams whose usage it bills, exactly.

A billed line goes to the teams that have tokens at its very place (day, account, SKU, prompt band, meter), in their
proportion; what it has beyond these, to those who have tokens of the model and meter on that day that no other line
took (an endpoint misread); and what nobody here used, to the team that claims the account, or to none.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from farthing.allocate import Taking, Wanted, apportion, takes, weights
from farthing.close._month import APART, BILLED, CAUSE, NOT_YET, READS, USAGE, Month
from farthing.config import UNASSIGNED, Config, Pool
from farthing.ledger import Line

Owner = Callable[[str], str]  # from an account to the team that claims it


class Given(NamedTuple):
    """An entry as it falls to a team, before pools: what of it is of calls in a pool, and where these were made."""

    entry: Line
    pool: str = ""
    day: str = ""
    account: str = ""


def shared_bill(month: Month, owner: Owner) -> Iterator[Given]:
    """The lines of the bill as entries by team, and what is apart. They sum to the bill."""
    for line, got in _Ours(month).taken():
        yield from _of_teams(line, got, owner)
    for line in month.part(APART):
        yield Given(_entry(line, owner(line.account), line.tokens, line.picos))


def not_yet(month: Month, owner: Owner) -> Iterator[Given]:
    """What AWS has not billed yet, by what we counted on these days and the bill has not; they sum to the cause."""
    ours = _Ours(month)
    ours.taken()
    for cause in month.part(CAUSE):
        if cause.kind != NOT_YET:
            continue
        match = re.match(r"(.*?) ?(\d{4}-\d\d-\d\d)", cause.said)
        account, day = match.groups() if match else ("", "")
        left = ours.left(day, account)
        if not left:
            yield Given(
                Line(
                    "entry", month.of, kind="usage", account=account, team=owner(account), picos=-cause.picos
                )
            )
            continue
        picos = apportion(-cause.picos, [line.picos for line in left])
        for line, amount in zip(left, picos, strict=True):
            yield computed(line._replace(picos=amount))


def computed(line: Line) -> Given:
    """Usage as an entry, at what it says."""
    return Given(_entry(line, line.team, line.tokens, line.picos), line.ref, line.day, line.account)


def pooled(found: Sequence[Given], month: Month, config: Config) -> Iterator[Line]:
    """The entries, with those of pools given to teams by their rules: of calls, and of kinds (tax, credit ...).

    The order is that of `farthing allocate`: what is a team's own; cache writes to who read them; then the other pools,
    in proportion to what these two give a team.
    """
    pools = {pool.name: pool for pool in config.pools}
    reads: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    for line in month.part(READS):
        readers = reads[line.ref, line.day, line.account, line.model]
        readers[line.team] = readers.get(line.team, 0) + line.tokens
    own: list[Line] = []
    shared: list[tuple[Pool, Line]] = []
    for given in found:
        line, pool = given.entry, pools.get(given.pool)
        if line.kind != "usage":
            pool = next((pool for pool in config.pools if takes(pool, line.kind)), None)
        if pool is None:
            own.append(line)
        elif pool.split == "reads":
            there = reads[pool.name, given.day, given.account, line.model]
            readers = {team: n for team, n in there.items() if n and team in (pool.among or there)}
            own += _divided(line, readers) if readers else [line]
        else:
            shared.append((pool, line))
    used: dict[str, int] = defaultdict(int)
    for line in own:
        if line.kind == "usage":
            used[line.team] += line.picos
    teams = list(config.teams) or sorted({given.entry.team for given in found} - {UNASSIGNED})
    yield from own
    for pool, line in shared:
        yield from _divided(line, weights(pool, teams, used))


def _divided(line: Line, shares: Mapping[str, int]) -> Iterator[Line]:
    parts = list(shares.values())
    amounts = zip(shares, apportion(line.tokens, parts), apportion(line.picos, parts), strict=True)
    for team, tokens, picos in amounts:
        yield line._replace(team=team, tokens=tokens, picos=picos)


class _Ours:
    """Our usage of what the bill may bill, as the bill's lines take it."""

    def __init__(self, month: Month) -> None:
        self._billed = month.part(BILLED)
        self._by_account = any(line.account for line in self._billed) or not self._billed
        self._by_month = bool((month.said.get("bill") or {}).get("by_month"))
        self._taking: Taking[Line] = Taking()
        for line in month.part(USAGE):
            if line.platform == "bedrock" and line.card:
                self._taking.add(line, self._place(line), self._group(line), line.tokens)

    def _place(self, line: Line) -> tuple[str, ...]:
        sku = (line.endpoint, line.zone, line.mode, line.kind)
        return (*self._group(line), *sku)

    def _group(self, line: Line) -> tuple[str, ...]:
        day = f"{line.day[:7]}-01" if self._by_month else line.day
        return day, line.account if self._by_account else "", line.model, line.meter

    def taken(self) -> list[tuple[Line, dict[Line, int]]]:
        """Each billed line with our lines that it is for, and as many tokens of each as it bills."""
        wanted = [Wanted(self._place(line), self._group(line), line.tokens) for line in self._billed]
        return list(zip(self._billed, self._taking.taken(wanted), strict=True))

    def left(self, day: str, account: str) -> list[Line]:
        """What no line has taken of an account's day, with its list cost."""
        return [
            line._replace(tokens=count, picos=count * (line.picos // line.tokens))
            for line, count in self._taking.left()
            if line.picos > 0 and self._group(line)[:2] == (day, account)
        ]


def _of_teams(line: Line, taken: Mapping[Line, int], owner: Owner) -> Iterator[Given]:
    tokens: dict[tuple[str, ...], int] = defaultdict(int)  # by team, pool, and where its calls were made
    for of, count in taken.items():
        tokens[(of.team, of.ref, of.day, of.account) if of.ref else (of.team,)] += count
    if line.tokens > 0:
        unseen = line.tokens - sum(tokens.values())
        if unseen:
            tokens[(owner(line.account),)] += unseen
    if not tokens:
        yield Given(_entry(line, owner(line.account), line.tokens, line.picos))
        return
    weights = list(tokens.values())
    parts = zip(tokens, apportion(line.tokens, weights), apportion(line.picos, weights), strict=True)
    for (team, *calls), count, picos in parts:
        yield Given(_entry(line, team, count, picos), *calls)


def _entry(line: Line, team: str, tokens: int, picos: int) -> Line:
    """An entry is of the month: it tells no day, card and prompt band."""
    return line._replace(
        part="entry", team=team or UNASSIGNED, ref="", day="", card="", said="", tokens=tokens, picos=picos,
        kind=line.kind if line.part == APART else "usage",
    )  # fmt: skip
