"""Whose the billed money is: each line of a bill split over the teams whose usage it bills, exactly.

A billed line goes to the teams that have tokens at its very place (day, account, SKU, prompt band, meter), in their
proportion; what it has beyond these, to those who have tokens of the model and meter on that day that no other line
took (an endpoint misread); and what nobody here used, to the team that claims the account, or to none.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from farthing.allocate import apportion, takes, weights
from farthing.close._month import APART, BILLED, CAUSE, NOT_YET, USAGE, Month
from farthing.config import UNASSIGNED, Config
from farthing.ledger import Line

Owner = Callable[[str], str]  # from an account to the team that claims it
Place = tuple[str, ...]


def shared_bill(month: Month, owner: Owner) -> Iterator[Line]:
    """The lines of the bill as entries by team, and what is apart. They sum to the bill."""
    for line, got in _Ours(month).taken():
        yield from _of_teams(line, got, owner)
    for line in month.part(APART):
        yield _entry(line, owner(line.account), line.tokens, line.picos)


def not_yet(month: Month, owner: Owner) -> Iterator[Line]:
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
            yield Line(
                "entry", month.of, kind="usage", account=account, team=owner(account), picos=-cause.picos
            )
            continue
        picos = apportion(-cause.picos, [line.picos for line in left])
        for line, amount in zip(left, picos, strict=True):
            yield _entry(line, line.team, line.tokens, amount)


def pooled(lines: Sequence[Line], config: Config) -> Iterator[Line]:
    """Entries of the kinds that a pool of farthing.toml takes (tax, credit ...), given to its teams by its rule.

    In proportion means: to what each team used. Pools of calls are not shared out here: an entry tells no calls.
    """
    pools = [pool for pool in config.pools if pool.kinds and not pool.where]
    used: dict[str, int] = defaultdict(int)
    for line in lines:
        if line.kind == "usage":
            used[line.team] += line.picos
    teams = list(config.teams) or sorted(used.keys() - {UNASSIGNED})
    for line in lines:
        pool = next((pool for pool in pools if line.kind != "usage" and takes(pool, line.kind)), None)
        if pool is None:
            yield line
            continue
        parts = weights(pool, teams, used)
        for team, picos in zip(parts, apportion(line.picos, list(parts.values())), strict=True):
            yield line._replace(team=team, tokens=0, picos=picos)


class _Ours:
    """Our usage of what the bill may bill, as it is taken by the bill's lines one after another."""

    def __init__(self, month: Month) -> None:
        self._billed = month.part(BILLED)
        self._by_account = any(line.account for line in self._billed) or not self._billed
        self._by_month = bool((month.said.get("bill") or {}).get("by_month"))
        self._rates: dict[Line, int] = {}
        self._all: dict[Place, dict[Line, int]] = defaultdict(dict)  # as it was
        self._open: dict[Place, dict[Line, int]] = defaultdict(dict)
        self._near: dict[Place, list[Place]] = defaultdict(list)
        for line in month.part(USAGE):
            if line.platform == "bedrock" and line.card:
                place = self._place(line)
                if place not in self._all:
                    self._near[self._group(line)].append(place)
                self._all[place][line] = self._open[place][line] = line.tokens

    def _place(self, line: Line) -> Place:
        sku = (line.endpoint, line.zone, line.mode, line.kind)
        return (*self._group(line), *sku)

    def _group(self, line: Line) -> Place:
        day = f"{line.day[:7]}-01" if self._by_month else line.day
        return day, line.account if self._by_account else "", line.model, line.meter

    def taken(self) -> list[tuple[Line, list[tuple[Line, int]]]]:
        """Each billed line with our lines that it is for, and as many tokens of each as it bills.

        All lines take from their own places before any takes from one nearby.
        """
        found = [(line, self._own(line)) for line in self._billed]
        for line, got in found:
            for place in self._near.get(self._group(line), ()) if line.tokens > 0 else ():
                got += self._from(place, line.tokens - sum(count for _, count in got))
        return found

    def _own(self, line: Line) -> list[tuple[Line, int]]:
        place = self._place(line)
        if line.tokens > 0:
            return self._from(place, line.tokens)
        # taken back: from all who have some there
        return [(of, count) for of, count in self._all.get(place, {}).items() if count > 0]

    def _from(self, place: Place, wanted: int) -> list[tuple[Line, int]]:
        there = {line: count for line, count in self._open.get(place, {}).items() if count > 0}
        some = min(wanted, sum(there.values()))
        if some <= 0:
            return []
        taken = list(zip(there, apportion(some, list(there.values())), strict=True))
        for line, count in taken:
            self._open[place][line] -= count
        return [(line, count) for line, count in taken if count]

    def left(self, day: str, account: str) -> list[Line]:
        """What no line has taken of an account's day, with its list cost."""
        found = []
        for place, lines in self._open.items():
            if place[:2] == (day, account):
                for line, count in lines.items():
                    if count > 0 and line.picos > 0:
                        rate = line.picos // line.tokens
                        found.append(line._replace(tokens=count, picos=count * rate))
        return found


def _of_teams(line: Line, taken: list[tuple[Line, int]], owner: Owner) -> Iterator[Line]:
    tokens: dict[str, int] = defaultdict(int)
    for of, count in taken:
        tokens[of.team] += count
    if line.tokens > 0:
        unseen = line.tokens - sum(tokens.values())
        if unseen:
            tokens[owner(line.account)] += unseen
    if not tokens:
        yield _entry(line, owner(line.account), line.tokens, line.picos)
        return
    weights = list(tokens.values())
    parts = zip(tokens, apportion(line.tokens, weights), apportion(line.picos, weights), strict=True)
    for team, count, picos in parts:
        yield _entry(line, team, count, picos)


def _entry(line: Line, team: str, tokens: int, picos: int) -> Line:
    """An entry is of the month: it tells no day, card and prompt band."""
    return line._replace(
        part="entry", team=team or UNASSIGNED, day="", card="", said="", tokens=tokens, picos=picos,
        kind=line.kind if line.part == APART else "usage",
    )  # fmt: skip
